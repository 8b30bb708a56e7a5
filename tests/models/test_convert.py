"""One network in two chapters: a DDPM as a ScoreSDE, and back."""

import numpy as np
import pytest

from scratchgen import DDPM, VE, VP, Mixture, NoiseSchedule, ScoreSDE, SubVP, load, to_ddpm, to_sde
from scratchgen.models.estimator import NotFittedError
from tests.strategies import residual

TRUTH = Mixture([0.4, 0.6], [[-1.0, 0.5], [0.8, -0.3]], [0.2 * np.eye(2), [[0.3, 0.1], [0.1, 0.2]]])
POINTS = np.array([[0.3, -1.2], [1.5, 0.4], [-0.7, 0.1]])
SMALL = {"hidden": (4,), "n_steps": 1, "rng": 0}


@pytest.mark.equation(30, 31)
def test_a_score_sde_converts_to_a_ddpm_whose_bound_falls_to_the_continuous_bound():
    """(31) → (30): the same ε̂ at the same noise level; −ELBO of T steps falls to the continuous bound like 1/T."""
    model = ScoreSDE(hidden=(32, 32), n_steps=600, learning_rate=1e-2, rng=0).fit(TRUTH.sample(2000, rng=0))
    x = TRUTH.sample(3000, rng=1)
    chain = to_ddpm(model, 20)
    for t in (1, 7, 20):
        assert np.array_equal(chain.eps_hat(POINTS, t), model.eps_hat(POINTS, t / 20))
    continuous = -model.elbo(x, rng=0, n_times=256).mean()
    bounds = [-to_ddpm(model, T).elbo(x, rng=0).mean() for T in (10, 40, 160)]
    assert bounds[0] > bounds[1] > bounds[2] > continuous - 0.02
    assert bounds[2] - continuous < 0.35 * (bounds[1] - continuous) + 0.02


@pytest.mark.equation(30, 31)
def test_a_ddpm_converts_to_a_score_sde_and_back():
    x = TRUTH.sample(500, rng=0)
    model = DDPM(NoiseSchedule.linear(50), hidden=(16,), n_steps=100, rng=0).fit(x)
    sde = to_sde(model)
    assert sde.sde_ == VP()
    assert sde.t_min == pytest.approx(1 / 50)
    assert residual(sde.eps_hat(POINTS, 0.5), model.eps_hat(POINTS, 25)) < 1e-6
    assert residual(to_ddpm(sde, 50).sample(5, rng=0), model.sample(5, rng=0)) < 1e-5
    assert sde.sample(5, rng=0).shape == (5, 2)
    assert sde.parameters_ is not model.parameters_
    levels = np.random.default_rng(0).integers(0, 3, (60, 2))
    tables = DDPM(n_levels=3, prediction="levels", hidden=(4,), n_steps=3, rng=0).fit(levels)
    assert np.isfinite(to_sde(tables).elbo(levels, rng=0)).all()
    assert np.isfinite(to_ddpm(to_sde(tables, t_min=0.01), 7).elbo(levels, rng=0)).all()


@pytest.mark.parametrize("sde", [VP(0.2, 15.0, 2.0), SubVP(), VE(0.01, 10.0)], ids=repr)
def test_a_ddpm_converts_to_a_score_sde_of_every_process(sde):
    """ε̂ depends on the noise level; t_min has the level of the first step."""
    model = DDPM(NoiseSchedule.linear(20), **SMALL | {"n_steps": 30}).fit(TRUTH.sample(50, rng=0))
    other = to_sde(model, sde)
    assert sde.log_snr(other.t_min) == pytest.approx(np.log(model.schedule_.snr[1]), abs=1e-9)
    assert np.array_equal(other.eps_hat(POINTS, 0.3), model.network_(POINTS, *sde.level(0.3)))
    assert other.mean_ is model.mean_
    assert other.scale_ is model.scale_
    assert to_sde(model, sde, t_min=0.25).t_min == 0.25


def test_a_converted_ddpm_has_the_requested_variances():
    model = ScoreSDE(**SMALL).fit(TRUTH.sample(20, rng=0))
    for variance in "beta", "posterior":
        chain = to_ddpm(model, 5, variance)
        assert chain.variance == variance
        assert chain.schedule_.T == 5
    assert np.array_equal(to_ddpm(model, 5).variance_, to_ddpm(model, 5, "beta").variance_)


def test_unfitted_models_cannot_be_converted():
    """This error comes before any other."""
    for convert in lambda: to_sde(DDPM(prediction="x0")), lambda: to_ddpm(ScoreSDE(VE(0.1, 5.0)), 0):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            convert()


def test_models_without_counterpart_are_refused_with_the_reason():
    x = TRUTH.sample(20, rng=0)
    for parameters in {"prediction": "x0"}, {"prediction": "noise"}, {"prediction": "step"}:
        with pytest.raises(ValueError, match=r"^ddpm must have prediction 'v' or 'levels' and no clip_x0"):
            to_sde(DDPM(**SMALL, **parameters).fit(x))
    whole = DDPM(n_levels=3, clip_x0=True, **SMALL).fit(np.arange(20).reshape(10, 2) % 3)
    with pytest.raises(ValueError, match=r"clip_x0=True"):
        to_sde(whole)
    for sde in VE(0.1, 5.0), SubVP():
        with pytest.raises(ValueError, match=r"^sde must be variance preserving"):
            to_ddpm(ScoreSDE(sde, **SMALL).fit(x), 5)
    for t_min in 0.0, 1.5:
        with pytest.raises(ValueError, match=r"^t_min must be"):
            to_sde(DDPM(**SMALL).fit(x), t_min=t_min)
    with pytest.raises(ValueError, match=r"^T must be"):
        to_ddpm(ScoreSDE(**SMALL).fit(x), 0)


@pytest.mark.parametrize(
    "changes", [{"n_steps": 7}, {"hidden": (9,)}, {"n_levels": 4}, {"prediction": "noise"}], ids=str
)
def test_a_conversion_has_the_arguments_of_the_fit_and_its_file_loads(changes, tmp_path):
    """`set_params` says what the next fit does, not how the network was made."""
    x = TRUTH.sample(20, rng=0)
    for i, (model, convert) in enumerate([(DDPM(**SMALL), to_sde), (ScoreSDE(**SMALL), lambda m: to_ddpm(m, 5))]):
        right = convert(model.fit(x))
        other = convert(model.set_params(**changes))
        assert other.get_params().keys() == right.get_params().keys()
        assert [getattr(other, name) for name in changes] == [getattr(right, name) for name in changes]
        other.save(tmp_path / f"{i}.npz")
        assert np.array_equal(load(tmp_path / f"{i}.npz").sample(4, rng=0), right.sample(4, rng=0))


def test_a_network_is_shared_with_a_model_that_takes_its_arguments():
    x, y = TRUTH.sample(20, rng=0), np.arange(20) % 3
    plain, labelled = DDPM(**SMALL).fit(x), DDPM(n_classes=3, **SMALL).fit(x, y)
    for model, other, n in (plain, DDPM(n_classes=3), 0), (labelled, ScoreSDE(), 3), (labelled, DDPM(n_classes=2), 3):
        assert model.share_network_with(other).n_classes == n
    with pytest.raises(ValueError, match=r"^learning_rate must be"):  # `save` would write a file that `load` refuses
        plain.share_network_with(DDPM(learning_rate=-1.0))
