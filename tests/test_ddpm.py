"""Equations (19)-(29): kernels, the merging of noise, reverse steps and the bound, each against another route.

No test here draws a random number for an expectation.  Noise is an argument everywhere, so that unit vectors read
off an affine map, sigma points integrate a quadratic and Gauss-Hermite nodes an entire function, all through the
code that users run (THEORY 4.3).  A loss alone sees no weight and no constant, and a bound's inequality next to
nothing: hence equalities, with the deck's own prefactors as the twin that must fail.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import VP, Mixture, NoiseSchedule
from scratchgen.ddpm import (
    ancestral_sampler,
    bound_terms,
    bound_weight,
    ddim_step,
    forward_log_prob,
    mean_square_step,
    merge_noise,
    merged_loss,
    negative_elbo,
    one_step_loss,
    p_log_prob,
    p_mean,
    p_step,
    predict_x0,
    q_path,
    q_posterior,
    q_sample,
    q_step,
    reverse_log_prob,
    reverse_variance,
    split_noise,
    step_weight,
    total_noise_loss,
)
from scratchgen.likelihood import entropy_gaussian, kl_gaussian
from scratchgen.quadrature import gauss_hermite, sigma_points
from scratchgen.testing import mixtures_and_points, reals, schedules, schedules_and_t
from tests.strategies import affine_moments, relative, residual


@st.composite
def sigma_squared(draw, schedule):
    """σ_t² in [0.1, 2]; index 0 is nobody's business, so that it is not even a number."""
    return np.concatenate([[np.nan], draw(reals(schedule.T, 0.1, 2.0))])


# --- what one step costs ----------------------------------------------------------------------------------


@given(schedules(1e-3, 0.9))
def test_bound_weight_of_the_two_usual_variances(schedule):
    """6.1: ½(SNR(t−1)/SNR(t) − 1) for σ = β̃, β²/(2β̄²α²) for σ = β."""
    snr = schedule.snr
    assert relative(bound_weight(schedule, "posterior")[2:], 0.5 * (snr[1:-1] / snr[2:] - 1)) < 1e-9
    expected = schedule.beta[1:] ** 2 / (2 * (schedule.beta_bar[1:] * schedule.alpha[1:]) ** 2)
    for variance in "beta", schedule.beta**2:
        weight = bound_weight(schedule, variance)
        assert weight[0] == 0
        assert relative(weight[1:], expected) < 1e-13
    assert bound_weight(schedule, "posterior")[1] == pytest.approx(expected[0], rel=1e-13)


@given(schedules_and_t(1e-3, 0.9, max_T=6), st.data())
def test_step_losses_and_path_densities_add_up_over_dimensions(case, data):
    """For a net that acts on each coordinate alone; one dimension cannot tell D log 2πσ² from (1/D) log 2πσ²."""
    schedule, t = case
    T = schedule.T
    x0, *noise = data.draw(reals((T + 1, 3, 2), -2, 2))
    path, table = q_path(schedule, x0, np.array(noise)), data.draw(sigma_squared(schedule))
    a, b = noise[0], noise[-1]

    def eps_hat(x, t):
        return np.sin(x + t)

    for loss in (
        lambda c: one_step_loss(schedule, t, x0[:, c], a[:, c], b[:, c], eps_hat, table),
        lambda c: merged_loss(schedule, t, x0[:, c], a[:, c], b[:, c], eps_hat, table),
        lambda c: total_noise_loss(schedule, t, x0[:, c], a[:, c], eps_hat, table),
        lambda c: p_log_prob(schedule, t, x0[:, c], a[:, c], eps_hat, table),
        lambda c: forward_log_prob(schedule, path[:, :, c]),
        lambda c: reverse_log_prob(schedule, path[:, :, c], eps_hat, table),
    ):
        assert loss([0, 1]).dtype == np.float64
        assert residual(loss([0, 1]), loss([0]) + loss([1])) < 1e-11


@given(schedules(1e-3, 0.9, max_T=8), st.data())
def test_a_path_is_at_every_step_one_jump_in_the_merged_noise(schedule, data):
    """(25) by iterating P27 along `q_path`, whose t-th noise is that of step t and of no other."""
    x0, *noise = data.draw(reals((schedule.T + 1, 3, 2), -3, 3))
    path, eps = q_path(schedule, x0, np.array(noise)), np.zeros_like(x0)
    assert np.array_equal(path[0], x0)
    for t in range(1, schedule.T + 1):
        eps = merge_noise(schedule, t, eps, noise[t - 1])[0]
        assert residual(path[t], q_sample(schedule, t, x0, eps)) < 1e-12


# --- the optimal net and the optimal variance -------------------------------------------------------------


@given(schedules_and_t(1e-3, 0.9, max_T=10, first=2), mixtures_and_points())
def test_p_mean_of_the_optimal_noise_is_the_mean_of_the_step_before(case, data):
    """P29: ε* = −β̄ ∇log p_t gives E[x_{t−1} | x_t], here by denoising one step of x_{t−1}'s own mixture."""
    (schedule, t), (mixture, x_t) = case, data
    before, now = (mixture.diffuse(schedule.alpha_bar[s], schedule.beta_bar[s]) for s in (t - 1, t))
    mean = p_mean(schedule, t, x_t, -schedule.beta_bar[t] * now.score(x_t))
    assert residual(mean, before.denoise(x_t, schedule.alpha[t], schedule.beta[t])) < 1e-10


class GaussianData:
    """x_0 ~ N(m, S) under a schedule, with all that 4.4 says of it."""

    def __init__(self, schedule, mean, covariance):
        self.schedule, self.mean, self.covariance, self.D = schedule, mean, covariance, len(mean)
        a, b = schedule.alpha_bar[:, None, None], schedule.beta_bar[:, None, None]
        self.V = a**2 * covariance + b**2 * np.eye(self.D)  # (T+1, D, D), Cov x_t
        self.fisher = np.trace(np.linalg.inv(self.V), axis1=1, axis2=2)  # J_t
        self.noise_loss = self.D - schedule.beta_bar**2 * self.fisher  # ℓ*_t
        self.second_moment = float(np.trace(covariance) + mean @ mean)

    def eps_star(self, x, t):
        centred = x - self.schedule.alpha_bar[t] * self.mean
        return self.schedule.beta_bar[t] * np.linalg.solve(self.V[t], centred.T).T

    def negative_elbo(self, variance):
        """Of the optimal net."""
        return negative_elbo(self.schedule, self.noise_loss, self.second_moment, self.D, variance)

    def bound_on_kl(self, variance):
        return self.negative_elbo(variance) - entropy_gaussian(self.covariance)


@st.composite
def gaussian_data(draw, low=1e-3, high=0.9, max_T=5, isotropic=False):
    schedule = draw(schedules(low, high, max_T))
    D = draw(st.integers(1, 2))
    if isotropic:
        covariance = draw(st.floats(np.log(0.01), np.log(9)).map(np.exp)) * np.eye(D)
    else:
        factor = draw(reals((D, D), -1, 1))
        covariance = factor @ factor.T + 0.1 * np.eye(D)
    return GaussianData(schedule, draw(reals(D, -2, 2)), covariance)


@given(gaussian_data(max_T=10), reals((3, 2), -3, 3))
def test_p_mean_is_gaussian_conditioning(data, x_t):
    """P29, 4.4: E[x_{t−1} | x_t] from the joint law, where Cov(x_{t−1}, x_t) = α_t V_{t−1}; t = 1 too."""
    x_t, schedule = x_t[:, : data.D], data.schedule
    for t in range(1, schedule.T + 1):
        gain = schedule.alpha[t] * data.V[t - 1] @ np.linalg.inv(data.V[t])
        expected = schedule.alpha_bar[t - 1] * data.mean + (x_t - schedule.alpha_bar[t] * data.mean) @ gain.T
        assert residual(p_mean(schedule, t, x_t, data.eps_star(x_t, t)), expected) < 1e-10


@given(schedules(1e-3, 0.9), st.integers(1, 3))
def test_hos_two_variances_are_the_best_of_two_extremes(schedule, D):
    """4.6: σ = β for data N(0, I), where ℓ* = Dᾱ²; σ = β̃ for data that is one point, where ℓ* = 0."""
    normal = mean_square_step(schedule, D * schedule.alpha_bar**2, D)
    assert relative(normal[1:], reverse_variance(schedule, "beta")[1:]) < 1e-11
    point = mean_square_step(schedule, np.zeros(schedule.T + 1), D)
    assert point[1] == 0
    assert relative(point[2:], reverse_variance(schedule, "posterior")[2:]) < 1e-13


@given(gaussian_data(), st.data())
def test_any_other_variance_costs_what_it_should(data, draw):
    """4.6: σ_t² = v_t is optimal; σ_t² = v_t/r costs (D/2)(r − 1 − log r) nats at its step."""
    best = mean_square_step(data.schedule, data.noise_loss, data.D)
    r = draw.draw(reals(data.schedule.T + 1, 0.2, 5.0))
    cost = data.negative_elbo(best / r) - data.negative_elbo(best)
    assert cost == pytest.approx(0.5 * data.D * (r - 1 - np.log(r))[1:].sum(), abs=1e-10)


# --- the bound --------------------------------------------------------------------------------------------


class AffineModel:
    """Gaussian data and ε̂(x, t) = A_t x + b_t: both joints of (19) are Gaussian, so (20) is one closed formula."""

    def __init__(self, data, A, b, variance):
        self.data, self.A, self.b, self.variance = data, A, b, variance
        schedule, D, T = data.schedule, data.D, data.schedule.T
        # ε − ε̂ = (I − β̄A) ε − ᾱA(x_0 − m) − (ᾱAm + b)
        a_bar, b_bar = schedule.alpha_bar[:, None, None], schedule.beta_bar[:, None, None]
        offset = (a_bar * A) @ data.mean + b
        self.noise_loss = (
            ((np.eye(D) - b_bar * A) ** 2).sum(axis=(1, 2))
            + np.trace(a_bar**2 * A @ data.covariance @ A.swapaxes(1, 2), axis1=1, axis2=2)
            + (offset**2).sum(axis=1)
        )
        ratio = np.minimum.outer(schedule.alpha_bar, schedule.alpha_bar) / np.maximum.outer(
            schedule.alpha_bar, schedule.alpha_bar
        )  # ᾱ_j/ᾱ_i for i <= j
        self.q_mean = np.concatenate([a * data.mean for a in schedule.alpha_bar])
        self.q_cov = np.block([[ratio[i, j] * data.V[min(i, j)] for j in range(T + 1)] for i in range(T + 1)])
        # x_{0:T} = g + G (z_0, …, z_{T−1}, x_T), from the top down; p_mean read off at 0 and the unit vectors
        sigma = np.sqrt(reverse_variance(schedule, variance))
        G, g = np.zeros((T + 1, D, (T + 1) * D)), np.zeros((T + 1, D))
        G[T, :, T * D :] = np.eye(D)
        probes = np.concatenate([np.zeros((1, D)), np.eye(D)])
        for t in range(T, 0, -1):
            image = p_mean(schedule, t, probes, self.eps_hat(probes, t))
            slope = (image[1:] - image[0]).T
            G[t - 1], g[t - 1] = slope @ G[t], slope @ g[t] + image[0]
            G[t - 1, :, (t - 1) * D : t * D] += sigma[t] * np.eye(D)
        G = G.reshape(-1, (T + 1) * D)
        self.p_mean, self.p_cov = g.ravel(), G @ G.T

    def eps_hat(self, x, t):
        return x @ self.A[t].T + self.b[t]

    def joint_kl(self):
        return kl_gaussian(self.q_mean, self.q_cov, self.p_mean, self.p_cov)

    def marginal_kl(self):
        D = self.data.D
        return kl_gaussian(self.q_mean[:D], self.q_cov[:D, :D], self.p_mean[:D], self.p_cov[:D, :D])

    def conditional_kl(self):
        """E_q KL(q(x_{1:T} | x_0)‖p_θ(x_{1:T} | x_0))."""
        D, parts = self.data.D, []
        for mean, cov in ((self.q_mean, self.q_cov), (self.p_mean, self.p_cov)):
            gain = cov[D:, :D] @ np.linalg.inv(cov[:D, :D])
            parts.append((gain, mean[D:] - gain @ mean[:D], cov[D:, D:] - gain @ cov[:D, D:]))
        (q_gain, q_shift, q_cov), (p_gain, p_shift, p_cov) = parts
        gain, x0_mean = q_gain - p_gain, self.q_mean[:D]
        spread = np.trace(gain @ self.q_cov[:D, :D] @ gain.T @ np.linalg.inv(p_cov))
        return kl_gaussian(gain @ x0_mean + q_shift, q_cov, p_shift, p_cov) + 0.5 * spread

    def expected_bound_terms(self):
        """E of every column, by sigma points over (x_0, ε): each term is a quadratic in them."""
        data, D, T = self.data, self.data.D, self.data.schedule.T
        points = sigma_points(2 * D)
        x0 = data.mean + points[:, :D] @ np.linalg.cholesky(data.covariance).T
        noise = np.broadcast_to(points[:, D:], (T, *x0.shape))
        return bound_terms(data.schedule, x0, self.eps_hat, noise, self.variance).mean(axis=0)


@st.composite
def affine_models(draw):
    data = draw(gaussian_data())
    T, D = data.schedule.T, data.D
    A, b = draw(reals((T + 1, D, D), -1, 1)), draw(reals((T + 1, D), -1, 1))
    return AffineModel(data, A, b, draw(st.one_of(st.just("beta"), st.just("posterior"), sigma_squared(data.schedule))))


@given(affine_models())
def test_bound_terms_are_hos_terms_one_by_one(model):
    """6.1: L_0 first, L_{t−1} in column t−1, L_T last."""
    data, schedule, D = model.data, model.data.schedule, model.data.D
    sigma_squared = reverse_variance(schedule, model.variance)
    weight = schedule.beta**4 / np.maximum(2 * (schedule.beta_bar * schedule.alpha) ** 2 * sigma_squared, 1e-300)
    expected = np.empty(schedule.T + 1)
    expected[0] = 0.5 * D * np.log(2 * np.pi * sigma_squared[1]) + weight[1] * model.noise_loss[1]
    ratio = schedule.beta_tilde[2:] ** 2 / sigma_squared[2:]
    expected[1:-1] = 0.5 * D * (ratio - 1 - np.log(ratio)) + (weight * model.noise_loss)[2:]
    beta_bar_squared = schedule.beta_bar[-1] ** 2
    prior = D * (beta_bar_squared - 1 - np.log(beta_bar_squared))
    expected[-1] = 0.5 * (schedule.alpha_bar[-1] ** 2 * data.second_moment + prior)
    assert residual(model.expected_bound_terms(), expected) < 1e-10


@given(affine_models())
def test_joint_kl_is_the_marginal_kl_plus_the_conditional_one(model):
    """P20, (9)-(10) for the chain: what the bound gives away is E KL(q(x_{1:T} | x_0)‖p_θ(x_{1:T} | x_0))."""
    data = model.data
    value = negative_elbo(data.schedule, model.noise_loss, data.second_moment, data.D, model.variance)
    kl = value - entropy_gaussian(data.covariance)
    assert residual(kl, model.marginal_kl() + model.conditional_kl()) < 1e-9
    assert kl >= model.marginal_kl() - 1e-9


@given(schedules(1e-3, 0.9, max_T=10), reals((3, 2), -4, 4))
def test_bound_is_tight_at_every_point_when_the_chain_is_reversed_exactly(schedule, x0):
    """P20, the equality case: ε̂ = β̄ x and σ = β reverse the chain on N(0, I), so −ELBO(x_0) = −log N(x_0; 0, I)."""
    points = sigma_points(2)
    rows, noise = np.repeat(x0, len(points), axis=0), np.tile(points, (len(x0), 1))
    noise = np.broadcast_to(noise, (schedule.T, *rows.shape))
    terms = bound_terms(schedule, rows, lambda x, t: schedule.beta_bar[t] * x, noise)
    value = terms.sum(axis=1).reshape(len(x0), -1).mean(axis=1)
    assert residual(value, -stats.norm.logpdf(x0).sum(axis=1)) < 1e-10


@given(gaussian_data(max_T=10, isotropic=True))
def test_bound_of_the_optimal_chain_on_isotropic_data_is_the_priors_mismatch(data):
    """4.6: with σ² = v* the bound is KL(p_T‖N(0, I)) for every T: reversing costs nothing."""
    best, final = mean_square_step(data.schedule, data.noise_loss, data.D), data.schedule.alpha_bar[-1]
    expected = kl_gaussian(final * data.mean, data.V[-1], np.zeros(data.D), np.eye(data.D))
    assert data.bound_on_kl(best) == pytest.approx(expected, abs=1e-10)


NODES_2, WEIGHTS_2 = gauss_hermite(28, 2)


@given(schedules(1e-3, 0.9, max_T=4), reals(6, -1.5, 1.5), st.floats(0.1, 1.0), st.data())
def test_bound_terms_and_negative_elbo_agree_for_a_nonlinear_net(schedule, net, spread, data):
    """Both routes of 6.1 by Gauss-Hermite over (x_0, ε)."""
    a, b, c, d, e, m = net
    variance = data.draw(sigma_squared(schedule))
    x0 = m + spread * NODES_2[:, :1]
    noise = np.broadcast_to(NODES_2[:, 1:], (schedule.T, *x0.shape))

    def eps_hat(x, t):
        return a + b * np.sin(c * x + d * t) + e * x

    noise_loss = np.full(schedule.T + 1, np.nan)
    for t in range(1, schedule.T + 1):
        error = NODES_2[:, 1:] - eps_hat(q_sample(schedule, t, x0, NODES_2[:, 1:]), t)
        noise_loss[t] = WEIGHTS_2 @ error[:, 0] ** 2
    total = WEIGHTS_2 @ bound_terms(schedule, x0, eps_hat, noise, variance).sum(axis=1)
    assert residual(total, negative_elbo(schedule, noise_loss, m**2 + spread**2, 1, variance)) < 1e-10


def test_bound_terms_are_one_examples_own():
    """A row depends on its own x_0 and noise only: nothing is averaged over examples."""
    rng = np.random.default_rng(0)
    schedule, x0, noise = NoiseSchedule.linear(5), rng.standard_normal((4, 3)), rng.standard_normal((5, 4, 3))
    terms = bound_terms(schedule, x0, lambda x, t: np.tanh(x + t), noise, "posterior")
    assert terms.shape == (4, 6)
    for n in range(4):
        alone = bound_terms(schedule, x0[[n]], lambda x, t: np.tanh(x + t), noise[:, [n]], "posterior")
        assert residual(alone[0], terms[n]) < 1e-14


def test_each_term_has_its_own_noise():
    """noise[t−1] belongs to x_t alone: another one changes L_0 for t = 1, L_{t−1} for t >= 2, and L_T never."""
    rng = np.random.default_rng(0)
    schedule, x0, noise = NoiseSchedule.linear(5), rng.standard_normal((4, 3)), rng.standard_normal((5, 4, 3))
    terms = bound_terms(schedule, x0, lambda x, t: np.tanh(x + t), noise)
    for t in range(1, 6):
        other = noise.copy()
        other[t - 1] += 1
        changed = bound_terms(schedule, x0, lambda x, t: np.tanh(x + t), other) != terms
        assert np.array_equal(changed, np.broadcast_to(np.arange(6) == t - 1, (4, 6)))


# --- many steps -------------------------------------------------------------------------------------------


def test_posterior_variance_never_gets_there():
    """6.3: on smooth data the bound with σ = β̃ keeps γ/2 nats a dimension however many steps are taken."""
    excess = []
    for T in 1000, 10_000, 100_000:
        schedule = NoiseSchedule.from_sde(VP(4.0, 4.0), T)
        data = GaussianData(schedule, np.zeros(1), np.array([[0.3]]))
        best = mean_square_step(schedule, data.noise_loss, 1)
        excess.append(data.negative_elbo("posterior") - data.negative_elbo(best))
    error = np.abs(np.array(excess) - np.euler_gamma / 2)
    assert np.all(error[1:] < error[:-1] / 5)  # log(T)/T
    assert error[-1] < 1e-3


MIXTURE = Mixture([0.35, 0.65], [[-1.0], [0.8]], [[[0.1]], [[0.25]]])


@pytest.mark.parametrize("variance", ["beta", "best"])
def test_bound_of_the_optimal_chain_tends_to_the_entropy_at_rate_one(variance):
    """6.3: T (bound − H) → ¼∫β² E(1 + s')² dt for σ = β and ¼∫β²(E s'² − (E s')²) dt for σ² = v."""
    sde, T = VP(1.0, 19.0), 1000
    schedule = NoiseSchedule.from_sde(sde, T)
    fisher, integrand = np.full(T + 1, np.nan), np.empty(T + 1)
    for t in range(T + 1):
        law = MIXTURE.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t])
        x, weights = law.quadrature()
        mass, slope = weights * np.exp(law.log_prob(x)), law.score_jacobian(x)[:, 0, 0]
        fisher[t] = -mass @ slope
        spread = mass @ (1 + slope) ** 2 if variance == "beta" else mass @ slope**2 - fisher[t] ** 2
        integrand[t] = sde.beta(t / T) ** 2 * spread
    noise_loss = 1 - schedule.beta_bar**2 * fisher
    second_moment = float(MIXTURE.covariance()[0, 0] + MIXTURE.mean()[0] ** 2)
    sigma_squared = "beta" if variance == "beta" else mean_square_step(schedule, noise_loss, 1)
    excess = negative_elbo(schedule, noise_loss, second_moment, 1, sigma_squared) - MIXTURE.entropy()
    assert T * excess == pytest.approx(0.25 * np.trapezoid(integrand, dx=1 / T), rel=0.02)


# --- ancestral sampling -----------------------------------------------------------------------------------


def test_ancestral_sampler_yields_every_state_from_T_to_0():
    schedule, start = NoiseSchedule.linear(4), np.ones((2, 3))
    seen = []

    def eps_hat(x, t):
        seen.append(t)
        return 0.1 * t * x

    path = list(ancestral_sampler(schedule, eps_hat, start, np.random.default_rng(0), "posterior"))
    assert [t for t, _ in path] == [4, 3, 2, 1, 0]
    assert seen == [4, 3, 2, 1]
    assert path[0][1] is start
    rng = np.random.default_rng(0)
    for (t, x), (_, after) in pairwise(path):
        step = p_step(schedule, t, x, 0.1 * t * x, rng.standard_normal((2, 3)), "posterior")
        assert np.array_equal(step, after)


def test_ancestral_sampler_does_not_change_its_start():
    start = np.ones((2, 3))
    for _ in ancestral_sampler(NoiseSchedule.linear(3), lambda x, t: 0 * x, start, np.random.default_rng(0)):
        pass
    assert np.array_equal(start, np.ones((2, 3)))


@given(schedules_and_t(1e-6, 0.999), reals((3, 2), -3, 3), st.data())
def test_p_step_is_its_mean_plus_sigma_times_noise(case, x_t, data):
    """σ, the square root of each table; also at t = 1."""
    schedule, t = case
    eps_hat, noise = data.draw(reals((3, 2), -3, 3)), data.draw(reals((3, 2), -3, 3))
    table = data.draw(sigma_squared(schedule))
    posterior = schedule.beta_tilde if t > 1 else schedule.beta
    for variance, sigma in ("beta", schedule.beta), ("posterior", posterior), (table, np.sqrt(table)):
        step = p_step(schedule, t, x_t, eps_hat, noise, variance) - p_mean(schedule, t, x_t, eps_hat)
        assert np.abs(step - sigma[t] * noise).max() < 1e-13 * (1 + np.abs(x_t).max() / schedule.alpha[t])


# --- DDIM -------------------------------------------------------------------------------------------------


@st.composite
def jumps(draw, low=1e-3, high=0.8, max_T=10):
    """(schedule, t, s) with 0 <= s < t <= T."""
    schedule, t = draw(schedules_and_t(low, high, max_T))
    return schedule, t, draw(st.integers(0, t - 1))


@given(schedules_and_t(1e-4, 0.8, max_T=10), reals((3, 2), -3, 3), reals((3, 2), -3, 3), reals((3, 2), -3, 3))
def test_ddim_with_eta_1_is_the_ancestral_step(case, x_t, eps_hat, noise):
    """s = t−1: q_posterior at the predicted x_0, noise and all."""
    schedule, t = case
    mean, variance = q_posterior(schedule, t, x_t, predict_x0(schedule, t, x_t, eps_hat))
    step = ddim_step(schedule, t, t - 1, x_t, eps_hat, noise, eta=1.0)
    assert residual(step, mean + np.sqrt(variance) * noise) < 1e-9
    if t > 1:
        assert residual(step, p_step(schedule, t, x_t, eps_hat, noise, "posterior")) < 1e-9


@given(jumps().filter(lambda case: case[2] >= 1), reals((3, 2), -3, 3), reals((3, 2), -3, 3), reals((3, 2), -3, 3))
def test_ddim_with_eta_1_is_the_ancestral_step_of_the_schedule_with_those_two_times(case, x_t, eps_hat, noise):
    """A jump over any number of steps is the one step of the chain that only stops at s and t."""
    schedule, t, s = case
    ratio = (schedule.alpha_bar[t] / schedule.alpha_bar[s]) ** 2
    short = NoiseSchedule([schedule.beta_bar[s] ** 2, 1 - ratio])
    mean, variance = q_posterior(short, 2, x_t, predict_x0(schedule, t, x_t, eps_hat))
    step = ddim_step(schedule, t, s, x_t, eps_hat, noise, eta=1.0)
    assert residual(step, mean + np.sqrt(variance) * noise) < 1e-9


@given(jumps(), reals((3, 2), -3, 3), reals((3, 2), -3, 3), reals((3, 2), -3, 3))
def test_ddim_with_eta_0_is_deterministic(case, x_t, eps_hat, noise):
    """Noise changes nothing, and two jumps with one ε̂ are one jump."""
    schedule, t, s = case
    step = ddim_step(schedule, t, s, x_t, eps_hat)
    assert np.array_equal(ddim_step(schedule, t, s, x_t, eps_hat, noise, eta=0.0), step)
    if s > 0:
        assert residual(ddim_step(schedule, s, 0, step, eps_hat), ddim_step(schedule, t, 0, x_t, eps_hat)) < 1e-9


@given(schedules_and_t(1e-6, 0.9, max_T=10), reals((3, 2), -3, 3), reals((3, 2), -3, 3), st.floats(0, 1))
def test_ddim_to_0_returns_the_predicted_x0(case, x_t, eps_hat, eta):
    step = ddim_step(*case, 0, x_t, eps_hat, np.ones((3, 2)), eta)
    assert np.array_equal(step, predict_x0(*case, x_t, eps_hat))


def test_ddim_is_finite_where_rounding_makes_sigma_the_larger():
    """β̄_s² − σ² comes out as −1e-34 here."""
    step = ddim_step(NoiseSchedule([1e-18, 0.05]), 2, 1, np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)), eta=1.0)
    assert np.isfinite(step).all()


def ddim_moments(data, eta):
    def run(x, noise):
        for t in range(data.schedule.T, 0, -1):
            x = ddim_step(data.schedule, t, t - 1, x, data.eps_star(x, t), noise[data.schedule.T - t], eta)
        return x

    T = data.schedule.T
    return affine_moments(run, T, data.schedule.alpha_bar[T] * data.mean[0], data.V[T, 0, 0])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_weak_order_of_ddim_is_one_for_every_eta(eta):
    """Exact score, times even in β̄/ᾱ: the mean is exact, the variance's slope tends to −1."""
    errors, Ts = [], [80, 160, 320, 640]
    for T in Ts:
        alpha_bar_squared = 1 / (1 + (5 * np.arange(T + 1) / T) ** 2)
        schedule = NoiseSchedule(1 - alpha_bar_squared[1:] / alpha_bar_squared[:-1])
        mean, variance = ddim_moments(GaussianData(schedule, np.ones(1), np.array([[0.3]])), eta)
        assert residual(mean, 1.0) < 1e-12
        errors.append(abs(variance - 0.3))
    slopes = np.diff(np.log(errors)) / np.log(2)
    assert np.all(np.diff(slopes) < 0)
    assert -1 < slopes[-1] < (-0.98 if eta == 0 else -0.9)


# --- shapes and dtypes ------------------------------------------------------------------------------------

X, Y, Z = np.random.default_rng(0).standard_normal((3, 5, 2))
SCHEDULE = NoiseSchedule.linear(6)
FUNCTIONS = {
    "q_step": lambda t, x, y, z: q_step(SCHEDULE, t, x, y),
    "q_sample": lambda t, x, y, z: q_sample(SCHEDULE, t, x, y),
    "q_posterior mean": lambda t, x, y, z: q_posterior(SCHEDULE, t, x, y)[0],
    "q_posterior variance": lambda t, x, y, z: q_posterior(SCHEDULE, t, x, y)[1] * np.ones_like(x),
    "predict_x0": lambda t, x, y, z: predict_x0(SCHEDULE, t, x, y),
    "merge_noise eps": lambda t, x, y, z: merge_noise(SCHEDULE, t, x, y)[0],
    "merge_noise omega": lambda t, x, y, z: merge_noise(SCHEDULE, t, x, y)[1],
    "split_noise": lambda t, x, y, z: split_noise(SCHEDULE, t, x, y),
    "p_mean": lambda t, x, y, z: p_mean(SCHEDULE, t, x, y),
    "p_step beta": lambda t, x, y, z: p_step(SCHEDULE, t, x, y, z),
    "p_step posterior": lambda t, x, y, z: p_step(SCHEDULE, t, x, y, z, "posterior"),
    "ddim_step": lambda t, x, y, z: ddim_step(SCHEDULE, t, t // 2, x, y),
    "ddim_step eta": lambda t, x, y, z: ddim_step(SCHEDULE, t, t // 2, x, y, z, 0.7),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_one_t_an_example_is_a_loop_over_int_t(function):
    t = np.array([3, 1, 6, 6, 2])
    rows = [function(int(t[n]), X[[n]], Y[[n]], Z[[n]])[0] for n in range(5)]
    assert residual(function(t, X, Y, Z), np.array(rows)) < 1e-15
    assert residual(function(t[0], X[:1], Y[:1], Z[:1]), rows[:1]) < 1e-15  # a NumPy integer is an int


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_no_examples_are_an_empty_answer(function):
    assert function(np.zeros(0, dtype=int), X[:0], Y[:0], Z[:0]).shape == (0, 2)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_float32_stays_float32_for_int_t(function):
    single = [a.astype(np.float32) for a in (X, Y, Z)]
    for t in 1, 4:
        value = function(t, *single)
        assert value.dtype == np.float32
        assert residual(value, function(t, X, Y, Z)) < 1e-5


def test_float32_stays_float32_in_the_sampler():
    start = X.astype(np.float32)
    for _, x in ancestral_sampler(SCHEDULE, lambda x, t: 0.5 * x, start, np.random.default_rng(0), "posterior"):
        assert x.dtype == np.float32


def test_posterior_variance_has_a_column_for_an_array_of_t():
    assert q_posterior(SCHEDULE, np.array([1, 2, 3, 4, 5]), X, Y)[1].shape == (5, 1)
    assert isinstance(q_posterior(SCHEDULE, 2, X, Y)[1], float)


def test_reverse_variance_is_the_callers_to_change():
    """No table is a view of the frozen schedule."""
    for kind in "beta", "posterior":
        reverse_variance(SCHEDULE, kind)[:] = 7.0
    assert SCHEDULE.beta.max() < 1
    assert SCHEDULE.beta_tilde.max() < 1
    given_table = np.full(7, 0.5)
    assert np.array_equal(reverse_variance(SCHEDULE, given_table), np.append(0.0, given_table[1:]))
    assert np.array_equal(reverse_variance(SCHEDULE, given_table.tolist()), np.append(0.0, given_table[1:]))
    assert reverse_variance(SCHEDULE, given_table.astype(np.float32)).dtype == np.float64
    assert given_table[0] == 0.5
    assert np.isfinite(p_step(SCHEDULE, 2, X, Y, Z, np.append(-1.0, given_table[1:]))).all()


def test_variance_is_beta_unless_said_otherwise():
    def sampled(*variance):
        return [x for _, x in ancestral_sampler(SCHEDULE, eps_hat, X, np.random.default_rng(0), *variance)]

    def eps_hat(x, t):
        return x

    noise = np.random.default_rng(0).standard_normal((6, 5, 2))
    for use in (
        lambda *variance: bound_weight(SCHEDULE, *variance),
        lambda *variance: step_weight(SCHEDULE, *variance),
        lambda *variance: one_step_loss(SCHEDULE, 3, X, Y, Z, eps_hat, *variance),
        lambda *variance: merged_loss(SCHEDULE, 3, X, Y, Z, eps_hat, *variance),
        lambda *variance: total_noise_loss(SCHEDULE, 3, X, Y, eps_hat, *variance),
        lambda *variance: p_log_prob(SCHEDULE, 3, X, Y, eps_hat, *variance),
        lambda *variance: reverse_log_prob(SCHEDULE, np.concatenate([X[None], noise]), eps_hat, *variance),
        lambda *variance: negative_elbo(SCHEDULE, np.ones(7), 1.0, 2, *variance),
        lambda *variance: bound_terms(SCHEDULE, X, eps_hat, noise, *variance),
        lambda *variance: p_step(SCHEDULE, 3, X, Y, Z, *variance),
        sampled,
    ):
        assert np.array_equal(use(), use("beta"))
        assert not np.array_equal(use(), use("posterior"))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("wrong", [Y[0], Y[:, :1], Y[:1], Y[0, 0], Y[None]], ids=lambda array: str(np.shape(array)))
def test_arrays_of_another_shape_are_refused_by_name(function, wrong):
    """NumPy would broadcast them: one draw of noise for all examples."""
    with pytest.raises(ValueError, match=r"^(noise|x0|eps_hat|eps_t|omega) must have the shape of \w+, \(5, 2\), got "):
        function(3, X, wrong, Z)


@pytest.mark.parametrize("name", ["p_step beta", "p_step posterior", "ddim_step eta"])
@pytest.mark.parametrize("wrong", [Z[0], Z[:, :1], Z[:1]], ids=lambda array: str(np.shape(array)))
def test_fresh_noise_of_another_shape_is_refused(name, wrong):
    with pytest.raises(ValueError, match=r"^noise must have the shape of x_t, \(5, 2\), got "):
        FUNCTIONS[name](3, X, Y, wrong)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    ("t", "error"),
    [
        (0, ValueError),
        (7, ValueError),
        (-1, ValueError),
        (np.array([1, 2, 0, 3, 4]), ValueError),
        (np.array([1, 2, 7, 3, 4]), ValueError),
        (np.ones((5, 1), dtype=int), ValueError),
        (2.0, TypeError),
        (True, TypeError),
        (np.full(5, 2.0), TypeError),
    ],
    ids=str,
)
def test_t_that_is_no_step_is_refused(function, t, error):
    """NumPy would wrap t = −1 and read t = 0 as clean data."""
    with pytest.raises(error, match=r"^t must "):
        function(t, X, Y, Z)


@pytest.mark.parametrize(
    ("t", "s", "error"),
    [
        (3, 3, ValueError),
        (3, 4, ValueError),
        (3, -1, ValueError),
        (3, 7, ValueError),
        (3, 1.0, TypeError),
        (np.array([3, 1, 3, 3, 3]), 1, ValueError),
        (3, np.array([2, 2, 3, 1, 0]), ValueError),
    ],
    ids=str,
)
def test_ddim_refuses_s_that_is_not_below_t(t, s, error):
    with pytest.raises(error, match=r"^s must be "):
        ddim_step(SCHEDULE, t, s, X, Y)


def test_ddim_takes_one_s_an_example():
    t, s = np.array([3, 6, 6, 2, 1]), np.array([0, 5, 1, 1, 0])
    rows = [ddim_step(SCHEDULE, int(t[n]), int(s[n]), X[[n]], Y[[n]], Z[[n]], 0.3)[0] for n in range(5)]
    assert residual(ddim_step(SCHEDULE, t, s, X, Y, Z, 0.3), np.array(rows)) < 1e-15


@pytest.mark.parametrize(
    ("eta", "error"), [(-0.1, ValueError), (1.1, ValueError), (np.nan, ValueError), ("1", TypeError)]
)
def test_ddim_refuses_eta_outside_the_unit_interval(eta, error):
    with pytest.raises(error, match=r"^eta must be "):
        ddim_step(SCHEDULE, 3, 1, X, Y, Z, eta)


def test_ddim_asks_for_the_noise_it_needs():
    with pytest.raises(ValueError, match=r"^noise is needed for eta > 0"):
        ddim_step(SCHEDULE, 3, 1, X, Y, eta=0.5)


@pytest.mark.parametrize(
    "variance",
    [
        "fixedlarge",
        np.ones(6),
        np.ones(8),
        np.ones((7, 1)),
        0.5,
        np.zeros(7),
        np.r_[1, 1, -1, np.ones(4)],
        np.full(7, np.nan),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "use",
    [
        lambda variance: reverse_variance(SCHEDULE, variance),
        lambda variance: bound_weight(SCHEDULE, variance),
        lambda variance: negative_elbo(SCHEDULE, np.ones(7), 1.0, 1, variance),
        lambda variance: bound_terms(SCHEDULE, X, lambda x, t: x, np.zeros((6, 5, 2)), variance),
        lambda variance: p_step(SCHEDULE, 2, X, Y, Z, variance),
        lambda variance: next(ancestral_sampler(SCHEDULE, lambda x, t: x, X, np.random.default_rng(0), variance)),
    ],
    ids=["reverse_variance", "bound_weight", "negative_elbo", "bound_terms", "p_step", "ancestral_sampler"],
)
def test_variance_that_is_no_table_is_refused(use, variance):
    with pytest.raises(
        ValueError, match=r"^variance must be (one of 'beta', 'posterior'|'beta', 'posterior' or 7 numbers), "
    ):
        use(variance)


@pytest.mark.parametrize("shape", [(5, 5, 2), (6, 4, 2), (6, 5, 1), (5, 2)], ids=str)
def test_bound_terms_refuse_noise_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"^noise must have shape \(T, N, D\) = \(6, 5, 2\), got "):
        bound_terms(SCHEDULE, X, lambda x, t: x, np.zeros(shape))
