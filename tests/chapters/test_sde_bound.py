"""The bound (34) of single examples against exact distributions; (34) for mixtures; the continuous bound."""

import numpy as np
import pytest
from scipy import stats

from scratchgen import VE, VP, Mixture, SubVP
from scratchgen.likelihood import LOG_2PI, gaussian_log_prob
from scratchgen.nn import CategoricalDenoiser, NoiseNetwork
from scratchgen.quadrature import sigma_points
from scratchgen.sde import (
    TimeSampler,
    diffusion_loss,
    kl_bound,
    prior_loss,
    reconstruction_loss,
    reverse_moments,
    sde_log_prob_bound,
)
from tests.exact import ExactNoise
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


@pytest.mark.equation(34, "sde-elbo")
@pytest.mark.parametrize("t_min", [0.0, 0.1])
@pytest.mark.parametrize("sde", PROCESSES)
def test_bound_is_log_q_at_every_point_when_the_score_is_of_a_diffused_law(sde, t_min):
    """A mixture q and π = q_T: the largest measured error is 6e-14."""
    end = Q.diffuse(*sde.level(sde.horizon))
    bound = sde_log_prob_bound(sde, exact(sde, Q), X, *trapezoid(), t_min, end.log_prob)
    assert residual(bound, Q.diffuse(*sde.level(t_min)).log_prob(X)) < 1e-12


@pytest.mark.equation(34)
@pytest.mark.parametrize("variance", [1.0, 1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("sde", PROCESSES)
def test_bound_is_log_q_whatever_the_scale_of_the_data(sde, variance):
    """For a Gaussian q the integrand is quadratic in the noise, and ±1 are exact nodes; 64 fixed times fail at 1e-8."""
    law = Mixture([1.0], [[0.0]], [[[variance]]])
    x = np.array([[-2.0], [0.0], [1.0]]) * variance**0.5
    end = law.diffuse(*sde.level(sde.horizon))
    bound = sde_log_prob_bound(sde, exact(sde, law), x, np.array([[-1.0], [1.0]]), prior_log_prob=end.log_prob)
    assert residual(bound, law.log_prob(x)) < 1e-9


@pytest.mark.equation(34)
def test_bound_from_the_shipped_prior_is_below_by_its_mismatch_on_average_and_above_at_some_points():
    """E_p bound = −H(p) − KL(p_T‖π); the bound is on log p_θ(x), so that it may exceed log p(x)."""
    sde = VP(0.1, 6.0)  # π is off by KL(p_T‖π) = 5e-4
    points, weights = P.quadrature(0.2)
    log_p = P.log_prob(points)
    bound = sde_log_prob_bound(sde, exact(sde, P), points, *trapezoid())
    mass = weights * np.exp(log_p)
    prior_kl = P.diffuse(*sde.level(sde.horizon)).kl(sde.prior_log_prob)
    assert prior_kl > 1e-4
    assert abs(mass @ bound - (-P.entropy() - prior_kl)) < 1e-11
    assert (bound - log_p)[mass > 1e-6].max() > 1e-5


@pytest.mark.equation(34, "sde-elbo", "reverse-law")
@pytest.mark.parametrize("delta", [-0.2, 0.4])
@pytest.mark.parametrize("sde", PROCESSES)
def test_both_sides_of_34_for_a_mixture_and_an_affine_score(sde, delta):
    """Data p a mixture, p_θ the Gaussian of `reverse_moments`: KL(p‖p_θ) by quadrature is below the bound.

    The right side also equals −H(p) minus the mean of the bound of every example.
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


@pytest.mark.equation(34)
@pytest.mark.parametrize("sde", PROCESSES)
def test_34_is_an_equality_for_mixtures_on_both_sides_of_every_process(sde):
    """s_θ = ∇log q_t and π = q_T with another mixture q; half of the integral would miss most of the KL."""

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


@pytest.mark.equation(34)
def test_draws_of_noise_have_equal_weight():
    noise = np.random.default_rng(0).standard_normal((5, 1))
    bound = sde_log_prob_bound(VP(), exact(VP(), Q), X, noise)
    assert residual(bound, sde_log_prob_bound(VP(), exact(VP(), Q), X, noise, np.full(5, 0.2))) < 1e-15


# --- the continuous bound's three terms -------------------------------------------------------------------


@pytest.mark.equation(34, "continuous-bound")
def test_denoising_and_implicit_form_are_one_bound():
    """−(L_T + integral + L_0) is E over x_{t_min} of this bound plus log p(x_0|x_{t_min}) − log q(x_{t_min}|x_0).

    With a random network, and every expectation by quadrature.
    """
    sde, t_min, rng = VP(), 0.02, np.random.default_rng(0)
    network = NoiseNetwork(1, (8,), rng=rng, dtype=np.float64)
    network.parameters[:] = 0.5 * rng.standard_normal(len(network.parameters))
    x0, (nodes, weights) = np.array([[0.7]]), trapezoid()

    def score_and_divergence(x, t):
        scale, std = sde.level(t)
        eps_hat, derivative, _ = network.jvp(x, np.ones_like(x), scale, std)
        return -eps_hat / std, -derivative[:, 0] / std

    scale, std = sde.level(t_min)
    start = scale * x0 + std * nodes
    implicit = sde_log_prob_bound(sde, score_and_divergence, start, nodes, weights, t_min)
    entropy = 0.5 * (LOG_2PI + 1) + np.log(std)
    decoder = -0.5 * (LOG_2PI + 1) - np.log(std / scale)
    by_implicit = weights @ implicit + decoder + entropy

    u, w = np.polynomial.legendre.leggauss(200)
    times = TimeSampler(sde, t_min).time_at(0.5 * (u + 1))
    rows = np.tile(x0, (len(nodes), 1))
    integral = sum(
        0.5 * w_t * float(weights @ diffusion_loss(network, sde, rows, np.full(len(nodes), t), nodes, t_min))
        for t, w_t in zip(times, w, strict=True)
    )
    by_denoising = -(prior_loss(sde, x0)[0] + integral + reconstruction_loss(sde, x0, t_min)[0])
    assert abs(by_implicit - by_denoising) < 1e-10


def mutual_information(sde, covariance, t):
    """I(x_0; x_t) = ½ log|I + SNR(t) C| for x_0 ~ N(m, C), nats."""
    return 0.5 * np.linalg.slogdet(np.eye(len(covariance)) + np.exp(sde.log_snr(t)) * covariance)[1]


@pytest.mark.parametrize("sde", [*PROCESSES, VP(0.1, 4.0)], ids=repr)
@pytest.mark.parametrize("covariance", [np.eye(2), np.array([[3.0, 0.8], [0.8, 0.5]])], ids=["identity", "correlated"])
def test_integral_of_the_noise_loss_is_the_mutual_information_at_t_min_minus_that_at_the_horizon(sde, covariance):
    """½∫E‖ε − ε*‖² d(log-SNR); for N(0, I) and VP(0.1, 4) it is 0.069 nats a dimension below I(x_0; x_{t_min})."""
    t_min, mean = 0.02, np.array([0.3, -1.0])
    law = Mixture([1.0], [mean], [covariance])
    pairs = sigma_points(4)  # the exact expectation of squares of (x_0, ε)
    x0, noise = mean + pairs[:, :2] @ np.linalg.cholesky(covariance).T, pairs[:, 2:]
    u, w = np.polynomial.legendre.leggauss(100)
    times = TimeSampler(sde, t_min).time_at(0.5 * (u + 1))
    means = [diffusion_loss(ExactNoise(law), sde, x0, np.full(8, t), noise, t_min).mean() for t in times]
    at_t_min, at_T = (mutual_information(sde, covariance, t) for t in (t_min, sde.horizon))
    assert 0.5 * w @ np.array(means) == pytest.approx(at_t_min - at_T, abs=1e-10)
    if sde == VP(0.1, 4.0) and covariance[0, 1] == 0:
        assert at_T / 2 == pytest.approx(0.069, abs=1e-3)


class WidePrior(VP):
    """A process whose prior is wider than x_T."""

    @property
    def prior_std(self):
        return 1.5


@pytest.mark.parametrize("sde", [*PROCESSES, WidePrior()], ids=repr)
def test_prior_loss_is_the_divergence_from_the_prior(sde):
    """KL(q(x_T | x_0)‖π) by its definition as a mean over noise."""
    x0, (nodes, weights) = np.array([[0.7, -1.3], [2.0, 0.1]]), trapezoid()
    scale, std = sde.level(sde.horizon)
    expected = np.zeros(2)
    for n, d in np.ndindex(2, 2):
        x_T = scale * x0[n, d] + std * nodes
        log_q = gaussian_log_prob(x_T, np.full_like(x_T, scale * x0[n, d]), 2 * np.log(std))
        expected[n] += weights @ (log_q - sde.prior_log_prob(x_T))
    assert residual(prior_loss(sde, x0), expected) < 1e-12


@pytest.mark.equation(34, "continuous-bound")
@pytest.mark.parametrize("sde", PROCESSES)
def test_diffusion_loss_is_the_noise_error_over_the_whole_span_of_log_snr(sde):
    rng, t_min = np.random.default_rng(0), 0.02
    network = NoiseNetwork(2, (4,), rng=rng, dtype=np.float64)
    network.parameters[:] = rng.standard_normal(len(network.parameters))
    x0, noise = rng.standard_normal((2, 5, 2))
    t = rng.uniform(t_min, sde.horizon, 5)
    losses = diffusion_loss(network, sde, x0, t, noise, t_min)
    span = sde.log_snr(t_min) - sde.log_snr(sde.horizon)
    for n in range(5):
        scale, std = sde.level(t[n])
        error = noise[n] - network(scale * x0[[n]] + std * noise[[n]], scale, std)[0]
        assert losses[n] == pytest.approx(0.5 * span * error @ error, rel=1e-12)


@pytest.mark.parametrize("sde", PROCESSES)
def test_reconstruction_loss_of_reals_is_the_decoders_mean_density(sde):
    x0, (nodes, weights), t_min = np.array([[0.7], [-2.0]]), trapezoid(), 0.03
    scale, std = sde.level(t_min)
    for n in range(2):
        mean = (scale * x0[n] + std * nodes) / scale
        log_p = gaussian_log_prob(np.broadcast_to(x0[n], mean.shape), mean, 2 * np.log(std / scale))
        assert reconstruction_loss(sde, x0, t_min)[n] == pytest.approx(-float(weights @ log_p), rel=1e-12)
    assert (
        residual(reconstruction_loss(sde, np.zeros((3, 4)), t_min), 4 * reconstruction_loss(sde, x0, t_min)[[0] * 3])
        < 1e-14
    )


@pytest.mark.parametrize("sde", PROCESSES)
def test_reconstruction_loss_of_whole_numbers_is_the_mass_of_their_bins(sde):
    """From x_{t_min} with the given noise; the masses of all levels sum to 1."""
    rng, t_min, levels = np.random.default_rng(0), 0.03, np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    x0, noise = rng.choice(levels, (4, 2)), rng.standard_normal((4, 2))
    scale, std = sde.level(t_min)
    centre, width = (scale * x0 + std * noise) / scale, std / scale
    edges = np.array([-np.inf, -0.75, -0.25, 0.25, 0.75, np.inf])
    below = stats.norm.cdf((edges - centre[:, :, None]) / width)
    mass = np.take_along_axis(np.diff(below), np.rint(2 * (x0 + 1)).astype(int)[:, :, None], axis=2)[:, :, 0]
    assert residual(np.exp(-reconstruction_loss(sde, x0, t_min, noise, 5)), mass.prod(axis=1)) < 1e-9


def test_reconstruction_loss_takes_another_decoder():
    """The distribution over levels of a network, at x_{t_min}."""
    sde, rng = VP(), np.random.default_rng(0)
    network = CategoricalDenoiser(np.full((2, 3), 1 / 3), np.eye(2), (4,), rng=rng, dtype=np.float64)
    x0, noise = np.array([[-1.0, 0.0], [1.0, 1.0]]), rng.standard_normal((2, 2))
    scale, std = sde.level(0.3)
    losses = reconstruction_loss(sde, x0, 0.3, noise, 3, lambda x_t: network.log_mass(x0 + 1, x_t, scale, std))
    assert residual(losses, -network.log_mass(x0 + 1, scale * x0 + std * noise, scale, std)) < 1e-15


def test_reconstruction_loss_asks_for_the_noise_that_it_needs():
    for arguments in {"n_levels": 3}, {"decoder": lambda x_t: x_t[:, 0]}:
        with pytest.raises(ValueError, match=r"^noise is needed .* of shape \(N, D\)$"):
            reconstruction_loss(VP(), np.zeros((2, 1)), 0.1, **arguments)


@pytest.mark.equation(31, 34)
@pytest.mark.parametrize("sde", PROCESSES)
def test_noise_enters_the_bound_with_its_sign(sde):
    """With s_θ = 0 the bound is log π(scale · x + std · ε) + D ∫f dt, for one ε."""
    scale, std = sde.level(sde.horizon)
    bound = sde_log_prob_bound(sde, lambda x, t: (0 * x, 0 * x[:, 0]), X, np.array([[0.7]]))
    assert residual(bound, sde.prior_log_prob(scale * X + std * 0.7) + np.log(scale)) < 1e-12


# --- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"x": X[:, 0]}, "x must"),
        ({"noise": np.zeros((5, 2))}, "noise must"),
        ({"noise": np.zeros(5)}, "noise must"),
        ({"noise": np.zeros((0, 1))}, "noise"),
        ({"noise_weights": np.ones(4) / 4}, "noise_weights must"),
        ({"noise_weights": np.ones(5)}, "noise_weights must"),
        ({"noise_weights": np.full(5, 0.3)}, "noise_weights must"),
    ],
)
def test_arrays_that_would_broadcast_are_refused(changed, name):
    arguments = {"x": X, "noise": np.zeros((5, 1))} | changed
    with pytest.raises(ValueError, match=name):
        sde_log_prob_bound(VP(), exact(VP(), P), **arguments)


@pytest.mark.parametrize("t_min", [-0.1, 1.1, np.nan])
def test_a_bound_outside_the_horizon_is_refused(t_min):
    with pytest.raises(ValueError, match=r"^t_min must be in \[0.0, 1.0\]"):
        sde_log_prob_bound(VP(), exact(VP(), P), X, np.zeros((1, 1)), t_min=t_min)


def test_a_score_that_is_not_finite_is_named():
    with pytest.raises(ArithmeticError, match=r"^the score must be finite between 0 and 1, but "):
        sde_log_prob_bound(VP(), lambda x, t: (x * np.nan, x[:, 0]), X, np.zeros((1, 1)))
