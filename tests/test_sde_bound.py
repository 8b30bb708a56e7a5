"""The bound (34) example by example, against exact laws; and (34) itself for mixtures on both sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchgen import VE, VP, Mixture, SubVP
from scratchgen.likelihood import LOG_2PI, gaussian_log_prob, kl_diag_standard
from scratchgen.noise_network import NoiseNetwork
from scratchgen.sde import kl_bound, reverse_moments, sde_log_prob_bound
from tests.strategies import residual

P = Mixture([0.35, 0.65], [[-1.2], [0.9]], [[[0.2]], [[0.1]]])
Q = Mixture([0.5, 0.3, 0.2], [[-0.8], [0.4], [1.5]], [[[0.15]], [[0.3]], [[0.2]]])
X = np.linspace(-2.5, 2.5, 11)[:, None]
PROCESSES = [VP(), VP(0.5, 6.0, horizon=2.0), SubVP(0.2, 8.0, horizon=0.7), VE(0.05, 5.0, horizon=1.5)]


def trapezoid(reach=8.5, n=171):
    """Nodes (M, 1) and weights of E over ε ~ N(0, 1)."""
    nodes = np.linspace(-reach, reach, n)[:, None]
    weights = np.exp(-0.5 * nodes[:, 0] ** 2)
    return nodes, weights / weights.sum()


def exact(sde, law):
    """∇log q_t and its divergence."""

    def score_and_divergence(x, t):
        diffused = law.diffuse(*sde.level(t))
        return diffused.score(x), np.trace(diffused.score_jacobian(x), axis1=1, axis2=2)

    return score_and_divergence


@pytest.mark.parametrize("t_min", [0.0, 0.1])
@pytest.mark.parametrize("sde", PROCESSES)
def test_bound_is_log_q_at_every_point_when_the_score_is_of_a_diffused_law(sde, t_min):
    """A mixture q and π = q_T: 6e-14 was the worst."""
    end = Q.diffuse(*sde.level(sde.horizon))
    bound = sde_log_prob_bound(sde, exact(sde, Q), X, *trapezoid(), t_min, end.log_prob)
    assert residual(bound, Q.diffuse(*sde.level(t_min)).log_prob(X)) < 1e-12


def test_bound_from_the_shipped_prior_is_below_by_its_mismatch_on_average_and_above_at_some_points():
    """E_p bound = −H(p) − KL(p_T‖π) ; it bounds p_θ, so that it may exceed log p(x) itself."""
    sde = VP(0.1, 6.0)  # π is off by KL(p_T‖π) = 5e-4
    points, weights = P.quadrature(0.2)
    log_p = P.log_prob(points)
    bound = sde_log_prob_bound(sde, exact(sde, P), points, *trapezoid())
    mass = weights * np.exp(log_p)
    prior_kl = P.diffuse(*sde.level(sde.horizon)).kl(sde.prior_log_prob)
    assert prior_kl > 1e-4
    assert abs(mass @ bound - (-P.entropy() - prior_kl)) < 1e-11
    assert (bound - log_p)[mass > 1e-6].max() > 1e-5


@settings(max_examples=25)
@given(st.sampled_from(PROCESSES), st.floats(-0.3, 1.0), st.floats(-1, 1))
def test_bound_of_a_wrong_score_is_below_the_exact_law_of_its_sde(sde, delta, shift):
    """s_θ = −(1 + δ)(x − shift)/v_t: p_θ is Gaussian, its moments those of the exact reversal."""

    def score(x, t):
        scale, std = sde.level(t)
        return -(1 + delta) * (x - shift * scale) / (0.3 * scale**2 + std**2)

    def score_and_divergence(x, t):
        scale, std = sde.level(t)
        return score(x, t), np.full(len(x), -(1 + delta) / (0.3 * scale**2 + std**2))

    start = np.zeros(1), sde.prior_std**2 * np.eye(1)
    mean, covariance = reverse_moments(sde, score, *start)
    log_p = gaussian_log_prob(X, np.broadcast_to(mean, X.shape), np.log(covariance[0, 0]))
    bound = sde_log_prob_bound(sde, score_and_divergence, X, *trapezoid())
    assert (bound <= log_p + 1e-8 * (1 + np.abs(log_p))).all()


@pytest.mark.parametrize("delta", [-0.2, 0.4])
@pytest.mark.parametrize("sde", PROCESSES)
def test_both_sides_of_34_for_a_mixture_and_an_affine_score(sde, delta):
    """Data p a mixture, p_θ the Gaussian of `reverse_moments`: KL(p‖p_θ) by quadrature is below the bound.

    The same right side is H(p)'s distance from the mean of the bound of every example.
    """

    def score(x, t):
        scale, std = sde.level(t)
        return -(1 + delta) * (x - 0.2 * scale) / (0.9 * scale**2 + std**2)

    def score_error(t):
        diffused = P.diffuse(*sde.level(t))
        points, weights = diffused.quadrature(0.2)
        squared = ((diffused.score(points) - score(points, t)) ** 2)[:, 0]
        return float((weights * np.exp(diffused.log_prob(points))) @ squared)

    mean, covariance = reverse_moments(sde, score, np.zeros(1), sde.prior_std**2 * np.eye(1))
    left = P.kl(Mixture([1.0], mean[None], covariance[None]).log_prob)
    prior_kl = P.diffuse(*sde.level(sde.horizon)).kl(sde.prior_log_prob)
    right = kl_bound(sde, score_error, prior_kl)
    assert 0 < left < right

    def score_and_divergence(x, t):
        scale, std = sde.level(t)
        return score(x, t), np.full(len(x), -(1 + delta) / (0.9 * scale**2 + std**2))

    points, weights = P.quadrature(0.2)
    mass = weights * np.exp(P.log_prob(points))
    examples = sde_log_prob_bound(sde, score_and_divergence, points, *trapezoid())
    assert abs(-mass @ examples - P.entropy() - right) < 1e-11


@pytest.mark.parametrize("sde", PROCESSES)
def test_34_is_an_equality_for_mixtures_on_both_sides_of_every_process(sde):
    """s_θ = ∇log q_t and π = q_T with q another mixture; half the integral would miss it by most of the KL."""

    def score_error(t):
        p_t, q_t = (law.diffuse(*sde.level(t)) for law in (P, Q))
        points, weights = p_t.quadrature(0.2)
        squared = ((p_t.score(points) - q_t.score(points)) ** 2)[:, 0]
        return float((weights * np.exp(p_t.log_prob(points))) @ squared)

    prior_kl = P.diffuse(*sde.level(sde.horizon)).kl(Q.diffuse(*sde.level(sde.horizon)).log_prob)
    left, right = P.kl(Q.log_prob), kl_bound(sde, score_error, prior_kl)
    assert left > 0.1
    assert abs(left - right) < 1e-11
    assert abs(left - (0.5 * (right - prior_kl) + prior_kl)) > 0.02


def test_denoising_and_implicit_form_are_one_bound():
    """What ScoreSDE.elbo estimates is E over x_{t_min} of this bound plus log p(x_0|x_{t_min}) − log q(x_{t_min}|x_0).

    A random network, every expectation by quadrature.
    """
    sde, t_min, rng = VP(), 0.02, np.random.default_rng(0)
    network = NoiseNetwork(1, (8,), rng=rng, dtype=np.float64)
    network.mlp.parameters[:] = 0.5 * rng.standard_normal(len(network.mlp.parameters))
    x0, (nodes, weights) = np.array([[0.7]]), trapezoid()

    def score_and_divergence(x, t):
        scale, std = sde.level(t)
        eps_hat, derivative = network.forward_along(x, np.ones_like(x), scale, std)
        return -eps_hat / std, -derivative[:, 0] / std

    scale, std = sde.level(t_min)
    start = scale * x0 + std * nodes
    implicit = sde_log_prob_bound(sde, score_and_divergence, start, nodes, weights, t_min, n_nodes=200)
    entropy = 0.5 * (LOG_2PI + 1) + np.log(std)
    decoder = -0.5 * (LOG_2PI + 1) - np.log(std / scale)
    by_implicit = weights @ implicit + decoder + entropy

    low, high = (float(sde.log_snr(t)) for t in (sde.horizon, t_min))
    y, w = np.polynomial.legendre.leggauss(200)
    integral = 0.0
    for log_snr, weight in zip(low + (high - low) * 0.5 * (y + 1), 0.5 * (high - low) * w, strict=True):
        level = sde.level(float(sde.time_at(log_snr)))
        eps_hat = network(level[0] * x0 + level[1] * nodes, *level)
        integral += 0.5 * weight * float(weights @ ((nodes - eps_hat) ** 2)[:, 0])
    end = sde.level(sde.horizon)
    prior = kl_diag_standard(end[0] * x0 / sde.prior_std, np.full((1, 1), 2 * np.log(end[1] / sde.prior_std)))
    assert abs(by_implicit - (decoder - prior[0] - integral)) < 1e-10


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"x": X[:, 0]}, "x must"),
        ({"noise": np.zeros((5, 2))}, "noise must"),
        ({"noise": np.zeros(5)}, "noise must"),
        ({"noise": np.zeros((0, 1))}, "noise"),
        ({"noise_weights": np.ones(4) / 4}, "noise_weights must"),
        ({"noise_weights": np.ones(5)}, "noise_weights must"),
    ],
)
def test_arrays_that_would_broadcast_are_refused(changed, name):
    arguments = {"x": X, "noise": np.zeros((5, 1))} | changed
    with pytest.raises(ValueError, match=name):
        sde_log_prob_bound(VP(), exact(VP(), P), **arguments)
