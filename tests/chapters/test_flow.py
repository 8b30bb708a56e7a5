"""The flow's integrators, and the score of a network with its divergence, exact or by Hutchinson's estimate."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import VE, VP, Mixture, SubVP
from scratchgen.nn import CategoricalDenoiser, NoiseNetwork
from scratchgen.sde import flow_map, heun, predict_score, reverse_times, score_and_divergence
from tests.strategies import residual, slope

SDES = [VP(), VP(0.5, 8.0, 2.0), SubVP(0.1, 15.0), VE(0.05, 5.0)]
every_sde = pytest.mark.parametrize("sde", SDES, ids=repr)
TRUTH = Mixture([0.4, 0.6], [[-1.0, 0.5], [0.8, -0.3]], [0.2 * np.eye(2), [[0.3, 0.1], [0.1, 0.2]]])
POINTS = np.array([[0.3, -1.2], [1.5, 0.4], [-0.7, 0.1]])


def exact_score(sde):
    return lambda x, t: TRUTH.diffuse(*sde.level(t)).score(x)


@pytest.mark.equation(32)
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


@pytest.mark.equation(32, "heun")
@every_sde
def test_heun_is_of_second_order_and_euler_of_first(sde):
    """Slopes of log-log errors against the adaptive flow, on grids that are even in log-SNR."""
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


def test_grids_that_do_not_fall_are_refused():
    with pytest.raises(ValueError, match=r"^times must be a strictly falling"):
        next(heun(VP(), exact_score(VP()), POINTS, np.array([0.1, 0.5])))


@pytest.mark.equation(32)
def test_heuns_path_begins_at_its_start():
    times = reverse_times(VP(), 3, 0.1)
    path = list(heun(VP(), exact_score(VP()), POINTS, times))
    assert [t for t, _ in path] == times.tolist()
    assert path[0][1] is POINTS


# --- the score of a network -------------------------------------------------------------------------------


NETWORKS = {
    "NoiseNetwork": lambda rng: NoiseNetwork(2, (5, 4), rng=rng, dtype=np.float64),
    "with waves": lambda rng: NoiseNetwork(2, (5, 4), n_coordinate_features=2, rng=rng, dtype=np.float64),
    "CategoricalDenoiser": lambda rng: CategoricalDenoiser(
        np.full((2, 3), 1 / 3), np.eye(2), (4,), rng=rng, dtype=np.float64
    ),
}


@pytest.mark.equation("network-score")
@pytest.mark.parametrize("kind", NETWORKS)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_divergence_is_the_derivative_of_the_score(kind, seed, t):
    rng, sde = np.random.default_rng(seed), VP()
    network = NETWORKS[kind](rng)
    network.parameters[:] = rng.standard_normal(len(network.parameters)) / 2
    x = rng.standard_normal((3, 2))
    score, divergence = score_and_divergence(network, sde, x, t)
    assert residual(score, predict_score(network, sde, x, t)) < 1e-12
    assert residual(score, -network(x, *sde.level(t)) / sde.std(t)) < 1e-12
    numeric = sum(slope(lambda h, e=e: predict_score(network, sde, x + h * e, t) @ e, 1e-4) for e in np.eye(2))
    assert residual(divergence, numeric) < 1e-5


@pytest.mark.equation("network-score")
def test_hutchinsons_divergence_is_unbiased():
    """The mean over all signs in two dimensions, and the estimate with unit vectors, equal the divergence."""
    rng, sde = np.random.default_rng(0), VP()
    network = NoiseNetwork(2, (5, 4), rng=rng)
    network.parameters[:] = rng.standard_normal(len(network.parameters)) / 2
    x = rng.standard_normal((4, 2))
    score, exact = score_and_divergence(network, sde, x, 0.3)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    probes = np.broadcast_to(signs[:, None], (4, 4, 2))
    again, estimate = score_and_divergence(network, sde, x, 0.3, probes)
    assert np.array_equal(again, score)
    assert residual(estimate, exact) < 1e-5
    single = [score_and_divergence(network, sde, x, 0.3, probes[[i]])[1] for i in range(4)]
    assert np.abs(single - exact).max() > 1e-3
    assert residual(np.mean(single, axis=0), exact) < 1e-5


def test_scores_have_the_dtype_of_the_points():
    network, x = NoiseNetwork(2, (3,), rng=0), np.ones((3, 2))
    for dtype in np.float32, np.float64:
        score, divergence = score_and_divergence(network, VP(), x.astype(dtype), 0.3)
        assert score.dtype == divergence.dtype == dtype


def test_a_score_in_double_at_float32_points_stays_double():
    """Probes are converted to the dtype of the score."""
    network, x = NoiseNetwork(2, (3,), rng=0, dtype=np.float64), np.ones((3, 2), np.float32)
    assert network(x, *VP().level(0.3)).dtype == np.float64
    score, divergence = score_and_divergence(network, VP(), x, 0.3)
    assert score.dtype == divergence.dtype == np.float64


def test_default_tolerance_of_the_flow_is_1e_6():
    score = exact_score(VP())
    assert np.array_equal(flow_map(VP(), score, POINTS, 1.0, 0.1), flow_map(VP(), score, POINTS, 1.0, 0.1, rtol=1e-6))


def test_a_flow_that_cannot_be_integrated_is_named_with_its_remedy():
    with pytest.raises(ArithmeticError, match=r"^the flow could not be integrated: .*; raise t_min or rtol$"):
        flow_map(VP(), lambda x, t: x * np.nan, POINTS, 1.0, 0.1)
