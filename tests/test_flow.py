"""The flow's integrators, Hutchinson's divergence, and one network for DDPM and score SDE."""

import itertools

import numpy as np
import pytest

from scratchgen import DDPM, VE, VP, Mixture, NoiseSchedule, ScoreSDE, SubVP
from scratchgen.sde import flow_map, heun, reverse_times
from tests.strategies import residual

SDES = [VP(), VP(0.5, 8.0, 2.0), SubVP(0.1, 15.0), VE(0.05, 5.0)]
every_sde = pytest.mark.parametrize("sde", SDES, ids=repr)
TRUTH = Mixture([0.4, 0.6], [[-1.0, 0.5], [0.8, -0.3]], [0.2 * np.eye(2), [[0.3, 0.1], [0.1, 0.2]]])
POINTS = np.array([[0.3, -1.2], [1.5, 0.4], [-0.7, 0.1]])


def exact_score(sde):
    return lambda x, t: TRUTH.diffuse(*sde.level(t)).score(x)


@every_sde
def test_flow_of_a_gaussian_is_the_map_between_its_marginals(sde):
    """x_t = m_t + V_t^½ V_T^−½ (x_T − m_T) for isotropic data, there and back."""
    law = Mixture([1.0], [[0.5, -1.0]], [0.3 * np.eye(2)])

    def score(x, t):
        return law.diffuse(*sde.level(t)).score(x)

    end, start = sde.horizon, 0.1 * sde.horizon
    there = flow_map(sde, score, POINTS, end, start, rtol=1e-9)
    laws = [law.diffuse(*sde.level(t)) for t in (end, start)]
    ratio = (laws[1].covariances[0, 0, 0] / laws[0].covariances[0, 0, 0]) ** 0.5
    assert residual(there, laws[1].means[0] + ratio * (POINTS - laws[0].means[0])) < 1e-7
    assert residual(flow_map(sde, score, there, start, end, rtol=1e-9), POINTS) < 1e-7


@every_sde
def test_heun_is_of_second_order_and_euler_of_first(sde):
    """Slopes of log-log errors against the adaptive flow, on grids even in log-SNR."""
    score, t_min = exact_score(sde), 0.1 * sde.horizon
    exact = flow_map(sde, score, POINTS, sde.horizon, t_min, rtol=1e-10)
    errors = []
    for n in (64, 128, 256):
        times = reverse_times(sde, n, t_min)
        *_, (t, x) = heun(sde, score, POINTS, times)
        assert t == t_min
        errors.append(np.abs(x - exact).max())
    orders = -np.diff(np.log2(errors))
    assert 1.8 < orders[-1] < 2.3


def test_grids_that_do_not_fall_and_methods_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"^times must be a strictly falling"):
        next(heun(VP(), exact_score(VP()), POINTS, np.array([0.1, 0.5])))
    model = ScoreSDE(hidden=(4,), n_steps=1, rng=0).fit(TRUTH.sample(20, rng=0))
    with pytest.raises(ValueError, match=r"^method must be one of 'euler', 'heun', 'adaptive', got 'rk4'"):
        model.sample(2, rng=0, churn=0.0, method="rk4")
    with pytest.raises(ValueError, match=r"^method 'heun' is for the flow; pass churn=0, got 1.0"):
        model.sample(2, rng=0, method="heun")


def trained(**parameters):
    defaults = {
        "hidden": (32, 32),
        "n_steps": 600,
        "learning_rate": 1e-2,
        "t_min": 0.02,
        "n_sample_steps": 200,
        "rng": 0,
    }
    return ScoreSDE(**{**defaults, **parameters}).fit(TRUTH.sample(2000, rng=0))


def test_all_methods_draw_the_same_flow():
    model = trained()
    euler, heun_, adaptive = (model.sample(50, rng=3, churn=0.0, method=m) for m in ("euler", "heun", "adaptive"))
    assert np.abs(heun_ - adaptive).max() < 5e-3
    assert np.abs(heun_ - adaptive).max() < np.abs(euler - adaptive).max() < 0.5


def test_hutchinsons_divergence_is_unbiased():
    """The mean over all signs of two dimensions, and the estimate of unit vectors, are the divergence itself."""
    model = trained(n_steps=50)
    x = np.random.default_rng(0).standard_normal((4, 2))
    score, exact = model.score_and_divergence(x, 0.3)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    probes = np.broadcast_to(signs[:, None], (4, 4, 2))
    again, estimate = model.score_and_divergence(x, 0.3, probes)
    assert np.array_equal(again, score)
    assert residual(estimate, exact) < 1e-5
    single = [model.score_and_divergence(x, 0.3, probes[[i]])[1] for i in range(4)]
    assert np.abs(single - exact).max() > 1e-3
    assert residual(np.mean(single, axis=0), exact) < 1e-5


def test_likelihood_by_probes_comes_near_the_exact_one():
    model = trained()
    x = TRUTH.sample(200, rng=5)
    exact, estimated = model.log_prob(x), model.log_prob(x, n_probes=8, rng=0)
    error = estimated - exact
    assert np.abs(error).max() > 1e-4
    assert abs(error.mean()) < 5.5 * error.std() / 200**0.5
    assert error.std() < 0.3
    assert model.log_prob(x[:5], n_probes=2, rng=1).tobytes() == model.log_prob(x[:5], n_probes=2, rng=1).tobytes()


# --- one network, two chapters ----------------------------------------------------------------------------


def test_a_score_sde_is_a_ddpm_at_every_step_and_its_bound_comes_down_to_its_own():
    """(31) → (30): the same ε̂ at the same noise level; −ELBO of T steps falls to the continuous one like 1/T."""
    model = trained(t_min=1e-3)
    x = TRUTH.sample(3000, rng=1)
    chain = model.to_ddpm(20)
    for t in (1, 7, 20):
        assert np.array_equal(chain.eps_hat(POINTS, t), model.eps_hat(POINTS, t / 20))
    continuous = -model.elbo(x, rng=0, n_times=256).mean()
    bounds = [-model.to_ddpm(T).elbo(x, rng=0).mean() for T in (10, 40, 160)]
    assert bounds[0] > bounds[1] > bounds[2] > continuous - 0.02
    assert bounds[2] - continuous < 0.35 * (bounds[1] - continuous) + 0.02
    with pytest.raises(ValueError, match=r"^sde must be variance preserving"):
        ScoreSDE(VE(0.1, 5.0), hidden=(4,), n_steps=1, rng=0).fit(x[:20]).to_ddpm(5)


def test_a_ddpm_is_a_score_sde_and_comes_back():
    x = TRUTH.sample(500, rng=0)
    model = DDPM(NoiseSchedule.linear(50), hidden=(16,), n_steps=100, rng=0).fit(x)
    sde = model.to_sde()
    assert sde.sde_ == VP()
    assert sde.t_min == pytest.approx(1 / 50)
    assert residual(sde.eps_hat(POINTS, 0.5), model.eps_hat(POINTS, 25)) < 1e-6
    assert residual(sde.to_ddpm(50).sample(5, rng=0), model.sample(5, rng=0)) < 1e-5
    assert sde.sample(5, rng=0).shape == (5, 2)
    assert sde.parameters_ is not model.parameters_
    levels = np.random.default_rng(0).integers(0, 3, (60, 2))
    tables = DDPM(n_levels=3, prediction="levels", hidden=(4,), n_steps=3, rng=0).fit(levels)
    assert np.isfinite(tables.to_sde().elbo(levels, rng=0)).all()
    assert np.isfinite(tables.to_sde(t_min=0.01).to_ddpm(7).elbo(levels, rng=0)).all()
    for parameters in {"prediction": "x0"}, {"n_classes": 2}:
        other = DDPM(hidden=(4,), n_steps=1, rng=0, **parameters).fit(x, np.zeros(500, dtype=int))
        with pytest.raises(ValueError, match=r"^only a model of prediction 'v' or 'levels', without labels"):
            other.to_sde()
