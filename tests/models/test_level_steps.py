"""DDPM with variance "law", "mixture" and "optimal-diag": bound, samplers, files, resuming, respacing, errors."""

import numpy as np
import pytest

from scratchgen import DDPM, NoiseSchedule, ScoreSDE, ddpm
from scratchgen.export import load_state_dict, state_dict
from scratchgen.likelihood import level_values
from scratchgen.models.convert import to_ddpm
from scratchgen.models.files import ModelFileError
from tests.strategies import residual

RNG = np.random.default_rng(0)
LEVELS = np.repeat(RNG.integers(0, 4, (60, 1)), 3, axis=1)  # three equal columns
Y = LEVELS[:, 0] // 2
REALS = RNG.standard_normal((200, 3)) * [1.0, 1.0, 1.0] @ [[1.0, 0.9, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 1.0]]
SCHEDULE = NoiseSchedule.log_snr_even(6, 3.0, -5.0)
SMALL = {"hidden": (8,), "n_steps": 40, "batch_size": 32, "rng": 0}
KINDS = pytest.mark.parametrize("kind", ["law", "mixture"])


def of_levels(kind, **parameters):
    model = DDPM(SCHEDULE, kind, prediction="levels", n_levels=4, **SMALL | parameters)
    return model.fit(LEVELS, Y if model.n_classes else None)


@KINDS
def test_terms_of_a_model_are_those_of_its_steps(kind):
    model, rng = of_levels(kind), np.random.default_rng(7)
    x0 = model.to_model(LEVELS)

    def law(x_t, t):
        return model.network_.law(x_t, SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t])

    pairs = [[rng.standard_normal(x0.shape) for _ in range(1 + (kind == "mixture"))] for _ in range(SCHEDULE.T)]
    steps = ddpm.LevelLaw(SCHEDULE, level_values(4), law)
    noise, omega = [pair[0] for pair in pairs], [pair[-1] for pair in pairs]
    terms = ddpm.bound_terms(
        SCHEDULE, x0, steps, np.array(noise), kind, decoder=lambda x_1: np.zeros(len(x_1)), omega=np.array(omega)
    )
    ours = model.bound_terms(LEVELS, rng=7)
    assert residual(ours[:, 1:], terms[:, 1:]) < 1e-10
    assert residual(-ours.sum(axis=1), model.elbo(LEVELS, rng=7)) < 1e-12
    by_table = ddpm.bound_terms(SCHEDULE, x0, steps, np.array(noise), "beta", decoder=lambda x_1: np.zeros(len(x_1)))
    assert by_table[:, 1:-1].sum(axis=1).mean() > terms[:, 1:-1].sum(axis=1).mean() + 0.1


@KINDS
def test_models_of_levels_sample_save_and_respace(kind, tmp_path):
    model = of_levels(kind)
    assert np.array_equal(model.variance_, SCHEDULE.beta**2)
    model.save(tmp_path / "m.npz")
    loaded, short = DDPM.load(tmp_path / "m.npz"), model.respace(3)
    drawn = [
        [m.sample(5, rng=1), m.sample(5, rng=1, eta=0.5), m.sample(5, rng=1, stochasticity=1.0), m.elbo(LEVELS, rng=2)]
        for m in (model, loaded, short)
    ]
    for ours, theirs in zip(drawn[0], drawn[1], strict=True):
        assert ours.tobytes() == theirs.tobytes()
    for samples in drawn[2][:3]:
        assert set(np.unique(samples)) <= {0.0, 1.0, 2.0, 3.0}
    *_, (t, x_0) = model.sample_path(4, rng=1)
    assert (t, x_0.dtype) == (0, np.float32)
    if kind == "mixture":
        levels = (x_0 + 1) * 1.5
        assert residual(levels, np.rint(levels)) < 1e-5
    short.save(tmp_path / "short.npz")
    again = DDPM.load(tmp_path / "short.npz")
    assert again.sample(5, rng=1).tobytes() == drawn[2][0].tobytes()
    table = model.set_params(variance="beta")  # the fitted model keeps the steps of its fit
    assert table.elbo(LEVELS, rng=2).tobytes() == drawn[0][3].tobytes()


@KINDS
def test_training_goes_on_where_it_stopped(kind, tmp_path):
    whole, half = of_levels(kind), DDPM(SCHEDULE, kind, prediction="levels", n_levels=4, **SMALL)
    for state in half.train(LEVELS):
        if state.step == 17:
            break
    half.save(tmp_path / "half.npz")
    rest = DDPM.load(tmp_path / "half.npz").resume(LEVELS)
    assert rest.elbo(LEVELS, rng=0).tobytes() == whole.elbo(LEVELS, rng=0).tobytes()


@KINDS
def test_labels_reach_the_law_and_guidance_in_eps_needs_other_steps(kind):
    model = of_levels(kind, n_classes=2, n_steps=300)
    right, wrong = model.elbo(LEVELS, rng=0, y=Y), model.elbo(LEVELS, rng=0, y=1 - Y)
    assert right.mean() > wrong.mean() + 0.3
    y = np.repeat([0, 1], 1000)
    assert ((model.sample(2000, rng=0, y=y)[:, 0] // 2) == y).mean() > 0.65  # 0.5 without labels
    with pytest.raises(ValueError, match=rf"^guidance_in must be 'logits' .* variance='{kind}' and guidance=2"):
        model.sample(2, rng=0, y=[0, 1], guidance=2.0)
    assert model.sample(2, rng=0, y=[0, 1], guidance=2.0, eta=0.0).shape == (2, 3)


@KINDS
def test_importance_weighting_raises_the_bound_on_average(kind):
    model, x = of_levels(kind, n_steps=400).respace(2), np.tile(LEVELS, (10, 1))
    low, high = (model.iwae(x, rng=3, n_draws=n) for n in (1, 12))
    gain, gap = high - low, low - model.elbo(x, rng=4)
    assert gain.mean() > 5.5 * gain.std() / len(gain) ** 0.5
    assert abs(gap.mean()) < 5.5 * gap.std() / len(gap) ** 0.5  # one path has the mean of the ELBO


@KINDS
def test_a_score_model_of_levels_becomes_such_a_chain(kind):
    sde = ScoreSDE(prediction="levels", n_levels=4, **SMALL).fit(LEVELS)
    x = np.tile(LEVELS, (30, 1))
    gain = to_ddpm(sde, 8, kind).elbo(x, rng=0) - to_ddpm(sde, 8).elbo(x, rng=0)
    assert gain.mean() > 5.5 * gain.std() / len(gain) ** 0.5


@pytest.mark.parametrize("kind", ["law", "mixture"])
def test_models_without_a_law_refuse_its_steps(kind):
    with pytest.raises(ValueError, match=f"^variance='{kind}' needs prediction='levels', .*; pass variance='optimal'"):
        DDPM(variance=kind, n_levels=4).fit(LEVELS)
    with pytest.raises(ValueError, match="needs prediction='levels'"):
        to_ddpm(ScoreSDE(**SMALL).fit(REALS), 4, kind)


# --- one variance for each dimension ----------------------------------------------------------------------


def test_a_variance_for_each_dimension_is_estimated_saved_and_respaced(tmp_path):
    """Columns that another column determines have a smaller variance; its mean over D is the scalar optimum."""
    model = DDPM(SCHEDULE, "optimal-diag", **SMALL | {"n_steps": 400, "hidden": (32,)})
    for state in model.train(REALS):
        if state.step == 5:
            assert np.array_equal(model.variance_, np.repeat(SCHEDULE.beta[:, None] ** 2, 3, axis=1))
            model.save(tmp_path / "early.npz")
            assert np.array_equal(model.respace(2).variance_[1:, 0], model.respace(2).schedule_.beta[1:] ** 2)
    assert DDPM.load(tmp_path / "early.npz").variance_.shape == (7, 3)
    best = ddpm.optimal_reverse_variance(SCHEDULE, model.noise_losses_, 3)
    assert np.array_equal(model.variance_[1:], best[1:])
    assert residual(model.noise_losses_.sum(axis=1)[1:], model.noise_losses(REALS, rng=1)[1:]) < 0.2
    assert (model.variance_[1, :2] < 0.95 * model.variance_[1, 2]).all()
    model.save(tmp_path / "m.npz")
    loaded = DDPM.load(tmp_path / "m.npz")
    assert loaded.elbo(REALS, rng=0).tobytes() == model.elbo(REALS, rng=0).tobytes()
    assert loaded.sample(5, rng=0).tobytes() == model.sample(5, rng=0).tobytes()
    short = loaded.respace([2, 4, 6])
    kept = model.noise_losses_[[0, 2, 4, 6]]
    assert np.array_equal(short.variance_[1:], ddpm.optimal_reverse_variance(short.schedule_, kept, 3)[1:])
    scalar = DDPM(SCHEDULE, "optimal", **SMALL | {"n_steps": 400, "hidden": (32,)}).fit(REALS)
    assert residual(scalar.variance_, model.variance_.mean(axis=1)) < 1e-12
    assert model.elbo(REALS, rng=0).mean() > scalar.elbo(REALS, rng=0).mean() + 0.01


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("variance_", lambda v: v[:, 0], "variance_"),
        ("variance_", lambda v: -v, "variance must be positive and finite"),
        ("noise_losses_", lambda v: v[:3], "noise_losses_ must be empty or hold 7 numbers"),
        ("noise_losses_", lambda v: -v, "noise_losses_ must be empty or hold 7 numbers"),
        ("noise_losses_", lambda v: v[:, :2], "noise_losses_"),
    ],
)
def test_arrays_that_no_fit_gives_are_refused(name, change, words, tmp_path):
    model = DDPM(SCHEDULE, "optimal-diag", **SMALL | {"n_steps": 2}).fit(REALS)
    vars(model)[name] = change(getattr(model, name))
    model.save(tmp_path / "m.npz")
    with pytest.raises(ModelFileError, match=words):
        DDPM.load(tmp_path / "m.npz")


def test_an_estimated_variance_is_no_argument_of_a_conversion():
    with pytest.raises(ValueError, match=r"^variance must not be 'optimal-diag', which is estimated"):
        to_ddpm(ScoreSDE(**SMALL).fit(REALS), 4, "optimal-diag")


def test_a_state_has_one_variance_for_each_dimension():
    one, other = (DDPM(SCHEDULE, "optimal-diag", **SMALL | {"n_steps": 2, "rng": seed}).fit(REALS) for seed in (0, 1))
    state = state_dict(one)
    loaded = load_state_dict(other, state)
    assert loaded.elbo(REALS, rng=0).tobytes() == one.elbo(REALS, rng=0).tobytes()
    with pytest.raises(ValueError, match=r"state\['noise_losses_'\] must have shape \(any, 3\)"):
        load_state_dict(other, state | {"noise_losses_": state["noise_losses_"][:, 0]})
