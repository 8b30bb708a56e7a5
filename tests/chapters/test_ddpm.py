"""Equations (19)-(29): kernels, the merging of noise, reverse steps and the bound, each against another route.

No expectation uses random draws.  Noise is an argument of every function: unit vectors read off an affine map, sigma
points integrate a quadratic, and Gauss-Hermite nodes integrate an entire function, all through the code that users run.
A loss alone does not show its weight or its constants, and the inequality of a bound shows little.  The tests therefore
use equalities, and show that they fail with the factors of the deck.
"""

from fractions import Fraction
from itertools import islice, pairwise

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
    ddim_sampler,
    ddim_step,
    eps_coefficients,
    forward_log_prob,
    loss_weight,
    merge_noise,
    merged_loss,
    negative_elbo,
    noise_error,
    one_step_loss,
    optimal_reverse_variance,
    p_log_prob,
    p_mean,
    p_step,
    predict_noise,
    predict_x0,
    q_path,
    q_posterior,
    q_sample,
    q_step,
    reconstruction_loss,
    reverse_log_prob,
    reverse_variance,
    split_noise,
    step_loss,
    step_weight,
    total_noise_loss,
    train,
    train_step,
)
from scratchgen.likelihood import entropy_gaussian, kl_gaussian
from scratchgen.nn import EMA, Adam, NoiseNetwork
from scratchgen.quadrature import gauss_hermite, sigma_points
from scratchgen.testing import mixtures_and_points, reals, schedules, schedules_and_t
from scratchgen.timestep_sampling import TimestepSampler
from tests.strategies import relative, residual


@st.composite
def sigma_squared(draw, schedule):
    """σ_t² in [0.1, 2]; index 0 is not used, and is NaN."""
    return np.concatenate([[np.nan], draw(reals(schedule.T, 0.1, 2.0))])


# --- the loss of one step ----------------------------------------------------------------------------------


@pytest.mark.equation(29)
@given(schedules(1e-3, 0.9))
def test_bound_weight_of_the_two_usual_variances(schedule):
    """½(SNR(t−1)/SNR(t) − 1) for σ = β̃, β²/(2β̄²α²) for σ = β."""
    snr = schedule.snr
    assert relative(bound_weight(schedule, "posterior")[2:], 0.5 * (snr[1:-1] / snr[2:] - 1)) < 1e-9
    expected = schedule.beta[1:] ** 2 / (2 * (schedule.beta_bar[1:] * schedule.alpha[1:]) ** 2)
    for variance in "beta", schedule.beta**2:
        weight = bound_weight(schedule, variance)
        assert weight[0] == 0
        assert relative(weight[1:], expected) < 1e-13
    assert bound_weight(schedule, "posterior")[1] == pytest.approx(expected[0], rel=1e-13)


@pytest.mark.equation(19, 22, 23, 24, 26, 28, 29)
@given(schedules_and_t(1e-3, 0.9, max_T=6), st.data())
def test_step_losses_and_path_densities_add_up_over_dimensions(case, data):
    """For ε̂ that acts on each coordinate alone; one dimension does not distinguish D log 2πσ² from (1/D) log 2πσ²."""
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


@pytest.mark.equation(25, 27)
@given(schedules(1e-3, 0.9, max_T=8), st.data())
def test_a_path_is_at_every_step_one_jump_in_the_merged_noise(schedule, data):
    """(25) by merging noise step by step along `q_path`; its t-th noise is the noise of step t alone."""
    x0, *noise = data.draw(reals((schedule.T + 1, 3, 2), -3, 3))
    path, eps = q_path(schedule, x0, np.array(noise)), np.zeros_like(x0)
    assert np.array_equal(path[0], x0)
    for t in range(1, schedule.T + 1):
        eps = merge_noise(schedule, t, eps, noise[t - 1])[0]
        assert residual(path[t], q_sample(schedule, t, x0, eps)) < 1e-12


# --- the optimal net and the optimal variance -------------------------------------------------------------


@given(schedules_and_t(1e-3, 0.9, max_T=10, first=2), mixtures_and_points())
def test_p_mean_of_the_optimal_noise_is_the_mean_of_the_step_before(case, data):
    """ε* = −β̄ ∇log p_t gives E[x_{t−1} | x_t], here by denoising one step of the mixture of x_{t−1}."""
    (schedule, t), (mixture, x_t) = case, data
    before, now = (mixture.diffuse(schedule.alpha_bar[s], schedule.beta_bar[s]) for s in (t - 1, t))
    mean = p_mean(schedule, t, x_t, -schedule.beta_bar[t] * now.score(x_t))
    assert residual(mean, before.denoise(x_t, schedule.alpha[t], schedule.beta[t])) < 1e-10


def noise_loss_of_gaussian(schedule, variance, D):
    """ℓ*_t = D − β̄_t² tr V_t⁻¹ of data N(m, variance · I) and the optimal ε̂, (T+1,)."""
    return D * (1 - schedule.beta_bar**2 / (schedule.alpha_bar**2 * variance + schedule.beta_bar**2))


@pytest.mark.equation("reverse-variance", "best-variance")
@given(schedules(1e-3, 0.9), st.integers(1, 3))
def test_hos_two_variances_are_the_best_of_two_extremes(schedule, D):
    """σ = β for data N(0, I), where ℓ* = Dᾱ²; σ = β̃ for data that is one point, where ℓ* = 0."""
    normal = optimal_reverse_variance(schedule, D * schedule.alpha_bar**2, D)
    assert relative(normal[1:], reverse_variance(schedule, "beta")[1:]) < 1e-11
    point = optimal_reverse_variance(schedule, np.zeros(schedule.T + 1), D)
    assert point[1] == 0
    assert relative(point[2:], reverse_variance(schedule, "posterior")[2:]) < 1e-13


# --- the bound --------------------------------------------------------------------------------------------


@pytest.mark.equation(20)
@given(schedules(1e-3, 0.9, max_T=10), reals((3, 2), -4, 4))
def test_bound_is_tight_at_every_point_when_the_chain_is_reversed_exactly(schedule, x0):
    """The equality case: ε̂ = β̄ x and σ = β reverse the chain on N(0, I), so that −ELBO(x_0) = −log N(x_0; 0, I)."""
    points = sigma_points(2)
    rows, noise = np.repeat(x0, len(points), axis=0), np.tile(points, (len(x0), 1))
    noise = np.broadcast_to(noise, (schedule.T, *rows.shape))
    terms = bound_terms(schedule, rows, lambda x, t: schedule.beta_bar[t] * x, noise)
    value = terms.sum(axis=1).reshape(len(x0), -1).mean(axis=1)
    assert residual(value, -stats.norm.logpdf(x0).sum(axis=1)) < 1e-10


@pytest.mark.equation(21)
@given(schedules(1e-3, 0.9, max_T=10), reals(2, -2, 2), st.floats(np.log(0.01), np.log(9)).map(np.exp))
def test_bound_of_the_optimal_chain_on_isotropic_data_is_the_priors_mismatch(schedule, mean, variance):
    """With σ² = v* the bound is KL(p_T‖N(0, I)) for every T: the reverse steps are exact."""
    loss, end = noise_loss_of_gaussian(schedule, variance, 2), schedule.alpha_bar[-1]
    best = optimal_reverse_variance(schedule, loss, 2)
    bound = negative_elbo(schedule, loss, 2 * variance + mean @ mean, 2, best) - entropy_gaussian(variance * np.eye(2))
    covariance = (end**2 * variance + schedule.beta_bar[-1] ** 2) * np.eye(2)
    assert bound == pytest.approx(kl_gaussian(end * mean, covariance, np.zeros(2), np.eye(2)), abs=1e-10)


NODES_2, WEIGHTS_2 = gauss_hermite(28, 2)


@pytest.mark.equation(20, 21, "bound-terms")
@given(schedules(1e-3, 0.9, max_T=4), reals(6, -1.5, 1.5), st.floats(0.1, 1.0), st.data())
def test_bound_terms_and_negative_elbo_agree_for_a_nonlinear_net(schedule, net, spread, data):
    """Term by term, and from the noise losses alone, by Gauss-Hermite over (x_0, ε)."""
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


@pytest.mark.equation(20)
def test_bound_terms_are_one_examples_own():
    """A row depends only on its own x_0 and noise: nothing is averaged over examples."""
    rng = np.random.default_rng(0)
    schedule, x0, noise = NoiseSchedule.linear(5), rng.standard_normal((4, 3)), rng.standard_normal((5, 4, 3))
    terms = bound_terms(schedule, x0, lambda x, t: np.tanh(x + t), noise, "posterior")
    assert terms.shape == (4, 6)
    for n in range(4):
        alone = bound_terms(schedule, x0[[n]], lambda x, t: np.tanh(x + t), noise[:, [n]], "posterior")
        assert residual(alone[0], terms[n]) < 1e-14


@pytest.mark.equation(20)
def test_each_term_has_its_own_noise():
    """noise[t−1] belongs to x_t alone: it changes L_0 for t = 1, L_{t−1} for t >= 2, and never L_T."""
    rng = np.random.default_rng(0)
    schedule, x0, noise = NoiseSchedule.linear(5), rng.standard_normal((4, 3)), rng.standard_normal((5, 4, 3))
    terms = bound_terms(schedule, x0, lambda x, t: np.tanh(x + t), noise)
    for t in range(1, 6):
        other = noise.copy()
        other[t - 1] += 1
        changed = bound_terms(schedule, x0, lambda x, t: np.tanh(x + t), other) != terms
        assert np.array_equal(changed, np.broadcast_to(np.arange(6) == t - 1, (4, 6)))


# --- many steps -------------------------------------------------------------------------------------------


@pytest.mark.equation(21)
def test_bound_with_the_posterior_variance_never_reaches_the_entropy():
    """On smooth data the bound with σ = β̃ stays γ/2 nats per dimension above the entropy for every number of steps."""
    excess = []
    for T in 1000, 10_000, 100_000:
        schedule = NoiseSchedule.from_sde(VP(4.0, 4.0), T)
        loss = noise_loss_of_gaussian(schedule, 0.3, 1)
        best = optimal_reverse_variance(schedule, loss, 1)
        excess.append(np.subtract(*(negative_elbo(schedule, loss, 0.3, 1, kind) for kind in ("posterior", best))))
    error = np.abs(np.array(excess) - np.euler_gamma / 2)
    assert np.all(error[1:] < error[:-1] / 5)  # log(T)/T
    assert error[-1] < 1e-3


@pytest.mark.equation(21)
@pytest.mark.parametrize("variance", ["beta", "optimal"])
def test_bound_of_the_optimal_chain_tends_to_the_entropy_at_rate_one(variance):
    """T (bound − H) → ¼∫β² E(1 + s')² dt for σ = β and ¼∫β² Var(s') dt for the optimal σ, with s = ∂log p_t."""
    law, sde, T = Mixture([0.35, 0.65], [[-1.0], [0.8]], [[[0.1]], [[0.25]]]), VP(1.0, 19.0), 1000
    schedule, loss, integrand = NoiseSchedule.from_sde(sde, T), np.empty(T + 1), np.empty(T + 1)
    for t in range(T + 1):
        p_t = law.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t])
        x, weights = p_t.quadrature()
        mass, slope = weights * np.exp(p_t.log_prob(x)), p_t.score_jacobian(x)[:, 0, 0]
        spread = mass @ (1 + slope) ** 2 if variance == "beta" else mass @ (slope - mass @ slope) ** 2
        loss[t], integrand[t] = 1 + schedule.beta_bar[t] ** 2 * (mass @ slope), sde.beta(t / T) ** 2 * spread
    second_moment = float(law.covariance()[0, 0] + law.mean()[0] ** 2)
    sigma_squared = "beta" if variance == "beta" else optimal_reverse_variance(schedule, loss, 1)
    excess = negative_elbo(schedule, loss, second_moment, 1, sigma_squared) - law.entropy()
    assert T * excess == pytest.approx(0.25 * np.trapezoid(integrand, dx=1 / T), rel=0.02)


# --- ancestral sampling -----------------------------------------------------------------------------------


def variance_error(n, kind):
    """Error of the variance of x_0 after n ancestral steps from the exact p_T, for data N(0, 0.3) and β = 4."""
    schedule = NoiseSchedule.from_sde(VP(4.0, 4.0), n)
    spread = schedule.alpha_bar**2 * 0.3 + schedule.beta_bar**2
    best = optimal_reverse_variance(schedule, noise_loss_of_gaussian(schedule, 0.3, 1), 1)
    sigma_squared = reverse_variance(schedule, best if kind == "optimal" else kind)
    variance, one = spread[-1], np.ones((1, 1))
    for t in range(n, 0, -1):
        gain = float(p_mean(schedule, t, one, schedule.beta_bar[t] / spread[t] * one)[0, 0])
        variance = gain**2 * variance + sigma_squared[t]
    return variance - 0.3


@pytest.mark.equation(19)
def test_ancestral_sampler_is_of_order_one_except_with_the_posterior_variance():
    """The optimal σ is exact, and σ = β has weak order 1; with σ = β̃ the error is β(0) log(n)/n.

    β̃_t²/β_t² tends to (t − 1)/t near t = 0, so that step t lacks β²/t, a term of a harmonic sum.
    """
    ns = np.array([512, 1024, 2048])
    assert abs(variance_error(200, "optimal")) < 1e-14
    assert np.diff(np.log([abs(variance_error(n, "beta")) for n in ns])) == pytest.approx(-np.log(2), abs=0.007)
    growth = np.diff([n * abs(variance_error(n, "posterior")) for n in ns]) / np.log(2)
    assert 0.9 * 4 < growth[0] < growth[1] < 4


@pytest.mark.equation(19, "ancestral-sampling")
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
    assert np.array_equal(start, np.ones((2, 3)))  # and not changed
    rng = np.random.default_rng(0)
    for (t, x), (_, after) in pairwise(path):
        step = p_step(schedule, t, x, 0.1 * t * x, rng.standard_normal((2, 3)), "posterior")
        assert np.array_equal(step, after)


@pytest.mark.equation("reverse-step")
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


@pytest.mark.equation("ddim")
@given(schedules_and_t(1e-4, 0.8, max_T=10), reals((3, 2), -3, 3), reals((3, 2), -3, 3), reals((3, 2), -3, 3))
def test_ddim_with_eta_1_is_the_ancestral_step(case, x_t, eps_hat, noise):
    """s = t−1: q_posterior at the predicted x_0, including the noise."""
    schedule, t = case
    mean, variance = q_posterior(schedule, t, x_t, predict_x0(schedule, t, x_t, eps_hat))
    step = ddim_step(schedule, t, t - 1, x_t, eps_hat, noise, eta=1.0)
    assert residual(step, mean + np.sqrt(variance) * noise) < 1e-9
    if t > 1:
        assert residual(step, p_step(schedule, t, x_t, eps_hat, noise, "posterior")) < 1e-9


@given(jumps(), reals((3, 2), -3, 3), reals((3, 2), -3, 3), reals((3, 2), -3, 3))
def test_ddim_with_eta_0_is_deterministic(case, x_t, eps_hat, noise):
    """The noise changes nothing, and two jumps with one ε̂ are one jump."""
    schedule, t, s = case
    step = ddim_step(schedule, t, s, x_t, eps_hat)
    assert np.array_equal(ddim_step(schedule, t, s, x_t, eps_hat, noise, eta=0.0), step)
    if s > 0:
        assert residual(ddim_step(schedule, s, 0, step, eps_hat), ddim_step(schedule, t, 0, x_t, eps_hat)) < 1e-9


@pytest.mark.equation("x0-from-noise")
@given(schedules_and_t(1e-6, 0.9, max_T=10), reals((3, 2), -3, 3), reals((3, 2), -3, 3), st.floats(0, 1))
def test_ddim_to_0_returns_the_predicted_x0(case, x_t, eps_hat, eta):
    step = ddim_step(*case, 0, x_t, eps_hat, np.ones((3, 2)), eta)
    assert np.array_equal(step, predict_x0(*case, x_t, eps_hat))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "v",
    [[0.5, 1e-12, 1e-3, 1e-15, 0.9, 1e-9], [1e-18, 0.05], [1e-12, 0.999, 1e-12, 1e-17], [1e-12] * 8],
    ids=["mixed", "small before large", "small after large", "all small"],
)
def test_ddim_coefficients_keep_their_digits(v, eta):
    """σ and √(β̄_s² − σ²) in fractions, for every jump; η = 1, s = t−1 gives σ = β̃_t."""
    schedule = NoiseSchedule(v)
    alpha_bar_squared = [Fraction(1)]
    for variance in v:
        alpha_bar_squared.append(alpha_bar_squared[-1] * (1 - Fraction(variance)))
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    for t in range(1, len(v) + 1):
        for s in range(t):
            ratio = (1 - alpha_bar_squared[s]) / (1 - alpha_bar_squared[t])
            variance = Fraction(eta) ** 2 * ratio * (1 - alpha_bar_squared[t] / alpha_bar_squared[s])
            sigma = ddim_step(schedule, t, s, zero, zero, one, eta).item()
            assert sigma == pytest.approx(float(variance) ** 0.5, rel=2e-14, abs=0)
            # ε̂ = 1 at x_t = β̄_t gives x̂_0 = 0
            direction = ddim_step(schedule, t, s, schedule.beta_bar[t] * one, one, zero, eta).item()
            left = float(1 - alpha_bar_squared[s] - variance) ** 0.5
            assert direction == pytest.approx(left, rel=2e-14, abs=0)
        assert ddim_step(schedule, t, t - 1, zero, zero, one, 1.0).item() == pytest.approx(
            schedule.beta_tilde[t], rel=2e-14, abs=0
        )


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
    assert residual(function(t[0], X[:1], Y[:1], Z[:1]), rows[:1]) < 1e-15  # a NumPy integer is accepted as an int


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_no_examples_give_an_empty_array(function):
    assert function(np.zeros(0, dtype=int), X[:0], Y[:0], Z[:0]).shape == (0, 2)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("t", [1, 4, np.array([1, 4, 6, 2, 1])], ids=str)
def test_float32_stays_float32(function, t):
    single = [a.astype(np.float32) for a in (X, Y, Z)]
    value = function(t, *single)
    assert value.dtype == np.float32
    assert residual(value, function(t, X, Y, Z)) < 1e-5


def test_float32_stays_float32_in_the_sampler():
    start = X.astype(np.float32)
    for _, x in ancestral_sampler(SCHEDULE, lambda x, t: 0.5 * x, start, np.random.default_rng(0), "posterior"):
        assert x.dtype == np.float32


def test_integers_are_read_as_reals():
    for t in 2, np.array([1, 2, 3, 4, 5]):
        assert np.array_equal(q_sample(SCHEDULE, t, np.ones((5, 2), int), Y), q_sample(SCHEDULE, t, np.ones((5, 2)), Y))


def test_posterior_variance_has_a_column_for_an_array_of_t():
    assert q_posterior(SCHEDULE, np.array([1, 2, 3, 4, 5]), X, Y)[1].shape == (5, 1)
    assert isinstance(q_posterior(SCHEDULE, 2, X, Y)[1], float)


def test_clean_data_have_variance_and_weight_0():
    for variance in "beta", "posterior", np.full(7, 0.3):
        assert reverse_variance(SCHEDULE, variance)[0] == 0
        assert step_weight(SCHEDULE, variance)[0] == 0


@pytest.mark.equation("reverse-variance")
def test_reverse_variance_returns_a_new_array():
    """No result is a view of the frozen schedule."""
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


@pytest.mark.equation(19)
def test_a_decoder_takes_the_place_of_the_last_step():
    """log p_θ(x_0 | x_1) of the decoder, and the Gaussians of all other steps."""
    path = np.random.default_rng(0).standard_normal((7, 5, 2))
    log_prob = reverse_log_prob(SCHEDULE, path, lambda x, t: np.tanh(x), decoder=lambda x: np.sin(x[:, 0]))
    gaussian = reverse_log_prob(SCHEDULE, path, lambda x, t: np.tanh(x))
    last = p_log_prob(SCHEDULE, 1, path[0], path[1], lambda x, t: np.tanh(x))
    assert residual(log_prob, gaussian - last + np.sin(path[1][:, 0])) < 1e-13


def test_the_default_variance_is_beta():
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
        lambda *variance: step_loss(SCHEDULE, 3, X, Y, eps_hat, *variance),
        lambda *variance: p_step(SCHEDULE, 3, X, Y, Z, *variance),
        sampled,
    ):
        assert np.array_equal(use(), use("beta"))
        assert not np.array_equal(use(), use("posterior"))
    loss = reconstruction_loss(SCHEDULE, X, Y, eps_hat)  # σ_1² is β_1² for both names
    assert np.array_equal(loss, reconstruction_loss(SCHEDULE, X, Y, eps_hat, "beta"))


NAMES = {  # the second and the first array argument
    "q_step": ("noise", "x_prev"),
    "q_sample": ("noise", "x0"),
    "q_posterior": ("x0", "x_t"),
    "merge_noise": ("eps_t", "eps_bar_prev"),
    "split_noise": ("omega", "eps"),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", [Y[0], Y[:, :1], Y[:1], Y[0, 0], Y[None]], ids=lambda array: str(np.shape(array)))
def test_arrays_of_another_shape_are_refused_by_name(function, wrong):
    """NumPy would broadcast such arrays: one draw of noise for all examples."""
    name, like = NAMES.get(function.split()[0], ("eps_hat", "x_t"))
    with pytest.raises(ValueError, match=rf"^{name} must have the shape of {like}, \(5, 2\), got "):
        FUNCTIONS[function](3, X, wrong, Z)


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
def test_an_invalid_step_t_is_refused(function, t, error):
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


@pytest.mark.equation("ddim-loop")
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ddim_sampler_is_its_steps_from_T_to_0(eta, dtype):
    def eps_hat(x, t):
        return np.tanh(x) / (t + 1)

    start, rng = X.astype(dtype), np.random.default_rng(3)
    expected = [(6, start)]
    for t in range(6, 0, -1):
        x = expected[-1][1]
        noise = rng.standard_normal(x.shape, dtype=dtype) if eta else None
        expected.append((t - 1, ddim_step(SCHEDULE, t, t - 1, x, eps_hat(x, t), noise, eta)))
    path = list(ddim_sampler(SCHEDULE, eps_hat, start, *([np.random.default_rng(3), eta] if eta else [])))
    assert [t for t, _ in path] == [6, 5, 4, 3, 2, 1, 0]
    for (_, x), (_, y) in zip(path, expected, strict=True):
        assert np.array_equal(x, y)
        assert x.dtype == dtype


@pytest.mark.parametrize(("eta", "words"), [(-0.1, "eta must be"), (1.1, "eta must be"), (0.5, "rng is needed")])
def test_ddim_sampler_refuses_its_arguments_before_the_first_step(eta, words):
    with pytest.raises(ValueError, match=rf"^{words}"):
        next(ddim_sampler(SCHEDULE, lambda x, t: x, X, eta=eta))


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
def test_an_invalid_variance_is_refused(use, variance):
    name = "one of 'beta', 'posterior', "
    shape = r"a name or an array of shape \(7,\)( or \(7, 2\))?, .*; pass 'beta', or put a 0"
    with pytest.raises(ValueError, match=rf"^variance must be ({name}|{shape}|positive and finite, got .*; pass)"):
        use(variance)


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match=r"^weighting must be one of "):
        loss_weight(SCHEDULE, "even")


@pytest.mark.equation(20)
@pytest.mark.parametrize("shape", [(5, 5, 2), (6, 4, 2), (6, 5, 1), (5, 2)], ids=str)
def test_bound_terms_refuse_noise_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"^noise must have shape \(T, N, D\) = \(6, 5, 2\), got "):
        bound_terms(SCHEDULE, X, lambda x, t: x, np.zeros(shape))


# --- Algorithm 1 ------------------------------------------------------------------------------------------


class Slopes:
    """ε̂ = A_t x + b_t with its backward pass, in place of a network: parameters (A, b) per level."""

    def __init__(self, D, levels, seed):
        rng = np.random.default_rng(seed)
        self.levels = levels
        self.parameters = rng.standard_normal(D * D + D)
        self.gradient = np.full(D * D + D, np.nan)
        self.calls = []

    def eps_hat(self, x, beta_bar, parameters=None):
        parameters = self.parameters if parameters is None else parameters
        D = x.shape[1]
        A, b = parameters[: D * D].reshape(D, D), parameters[D * D :]
        return beta_bar[:, None] * np.tanh(x @ A.T + b)

    def vjp(self, x, scale, std, labels=None, **_):
        self.calls.append((x, scale, std, labels))
        out = self.eps_hat(x, std)

        def backward(grad, inputs=False):
            inner = grad * std[:, None] * (1 - (out / std[:, None]) ** 2)
            self.gradient[:] = np.concatenate([(inner.T @ x).ravel(), inner.sum(axis=0)])

        return out, backward


@pytest.mark.equation(29, "algorithm-1-step")
@given(schedules(1e-3, 0.9, max_T=6), st.integers(0, 2**32 - 1))
def test_a_step_of_algorithm_1_has_the_gradient_of_the_weighted_loss(schedule, seed):
    """(1/N) Σ λ_n ‖ε_n − ε̂(x_t)‖² by complex step; every example has its own step, noise and weight."""
    rng = np.random.default_rng(seed)
    x0, noise = rng.standard_normal((2, 4, 3))
    t, weight = rng.integers(1, schedule.T + 1, 4), rng.uniform(0.1, 3, 4)
    network = Slopes(3, schedule, seed)
    losses = train_step(network, schedule, x0, t, noise, weight, labels="label")
    x_t = schedule.alpha_bar[t][:, None] * x0 + schedule.beta_bar[t][:, None] * noise
    ((seen, scale, std, labels),) = network.calls
    assert residual(seen, x_t) < 1e-14
    assert np.array_equal(scale, schedule.alpha_bar[t])
    assert np.array_equal(std, schedule.beta_bar[t])
    assert labels == "label"
    assert residual(losses, ((noise - network.eps_hat(x_t, std)) ** 2).sum(axis=1)) < 1e-13

    def loss(parameters):
        return (weight * ((noise - network.eps_hat(x_t, std, parameters)) ** 2).sum(axis=1)).mean()

    units = 1e-30j * np.eye(len(network.parameters))
    expected = [loss(network.parameters + unit).imag / 1e-30 for unit in units]
    assert residual(network.gradient, np.array(expected)) < 1e-12


@pytest.mark.equation(29)
@given(reals((2, 4, 3), -3, 3))
def test_the_loss_that_trains_is_the_one_that_is_reported(flat):
    """(29) minus its constants, divided by its weight, is `noise_error`, whose derivative is 2(ε̂ − ε)."""
    eps, eps_hat = flat
    losses, gradient = noise_error(eps, eps_hat)
    variance = np.full(SCHEDULE.T + 1, 0.3)
    total = total_noise_loss(SCHEDULE, 4, 0 * eps, eps, lambda x, t: eps_hat, variance)
    at_no_error = total_noise_loss(SCHEDULE, 4, 0 * eps, eps, lambda x, t: eps, variance)
    assert residual(bound_weight(SCHEDULE, variance)[4] * losses, total - at_no_error) < 1e-12
    assert residual(losses, np.einsum("nd,nd->n", eps - eps_hat, eps - eps_hat)) < 1e-13
    assert residual(gradient, 2 * (eps_hat - eps)) < 1e-14
    with pytest.raises(ValueError, match=r"^eps_hat must have the shape of noise"):
        noise_error(eps, eps_hat[0])


def optimiser(network):
    """Adam and the moving average of a network, for `train`."""
    return {"adam": Adam(network.parameters), "ema": EMA(network.parameters.copy())}


@pytest.mark.equation(29, "algorithm-1")
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("prediction", [None, "x0"])
def test_algorithm_1_is_its_printed_lines(prediction, labelled):
    """Against the same lines by hand: rows, noise, t, labels, one gradient step, the moving average."""
    schedule, n, B = NoiseSchedule.linear(5), 12, 16
    x, labels = np.random.default_rng(1).standard_normal((30, 2)), np.arange(30) % 3 if labelled else None
    weights = loss_weight(schedule, "bound")

    def new():
        return NoiseNetwork(2, (3,), rng=3, dtype=np.float64, n_classes=3)

    network, average = new(), new().parameters
    options = {"batch_size": B, "learning_rate": 0.03, "label_dropout": 0.4, "prediction": prediction, "labels": labels}
    losses = list(
        train(network, schedule, x, n, np.random.default_rng(2), adam=Adam(network.parameters, weight_decay=0.1),
              ema=EMA(average, 0.7), sampler=TimestepSampler(5, "importance"), weights=weights, **options)
    )  # fmt: skip
    mine, rng, sampler = new(), np.random.default_rng(2), TimestepSampler(5, "importance")
    adam, mean = Adam(mine.parameters, weight_decay=0.1), mine.parameters.copy()
    for step in range(n):
        rows = rng.integers(30, size=B)
        noise = rng.standard_normal((B, 2))
        t, correction = sampler.draw(B, rng)
        given = {} if labels is None else {"labels": np.where(rng.random(B) < 0.4, -1, labels[rows])}
        if prediction:
            given["coefficients"] = eps_coefficients(schedule, t, prediction)
        x_t = schedule.alpha_bar[t][:, None] * x[rows] + schedule.beta_bar[t][:, None] * noise
        eps_hat, backward = mine.vjp(x_t, schedule.alpha_bar[t], schedule.beta_bar[t], **given)
        square = ((eps_hat - noise) ** 2).sum(axis=1)
        backward(2 * (weights[t] * correction)[:, None] * (eps_hat - noise) / B)
        adam.step(mine.gradient, 0.03 * (step + 1) if step < 1 else 0.015 * (1 + np.cos(np.pi * (step - 1) / (n - 1))))
        decay = min(0.7, (2 + step) / (11 + step))
        mean = decay * mean + (1 - decay) * mine.parameters
        sampler.observe(t, weights[t] * square)
        assert losses[step] == pytest.approx((weights[t] * correction * square).mean(), rel=1e-12)
    assert residual(network.parameters, mine.parameters) < 1e-12
    assert residual(average, mean) < 1e-12
    assert not np.allclose(average, network.parameters)


def test_algorithm_1_has_the_documented_defaults():
    """A training without options is the one with the default values; the labels make label_dropout count."""
    schedule, x = NoiseSchedule.linear(5), np.random.default_rng(1).standard_normal((30, 2))

    def run(**options):
        network = NoiseNetwork(2, (3,), rng=3, dtype=np.float64, n_classes=3)
        average = network.parameters.copy()
        loop = train(network, schedule, x, 5, np.random.default_rng(2), adam=Adam(network.parameters),
                     ema=EMA(average), sampler=TimestepSampler(5, "uniform"), weights=np.ones(6),
                     labels=np.arange(30) % 3, **options)  # fmt: skip
        return [list(loop), network.parameters.tolist(), average.tolist()]

    defaults = {"label_dropout": 0.1, "batch_size": 256, "learning_rate": 5e-3}
    assert run() == run(**defaults)


@pytest.mark.parametrize(("n_steps", "warmup"), [(32, 3), (1010, 100)])
def test_the_learning_rate_rises_over_a_tenth_of_the_steps_and_at_most_100(n_steps, warmup):
    """The first step of Adam moves every parameter with a gradient by the learning rate, in its first step 1/warmup."""
    network = NoiseNetwork(2, (3,), rng=3, dtype=np.float64)
    before, x = network.parameters.copy(), np.random.default_rng(1).standard_normal((30, 2))
    next(
        train(network, SCHEDULE, x, n_steps, np.random.default_rng(2), weights=np.ones(7), **optimiser(network),
              sampler=TimestepSampler(6, "uniform"), learning_rate=0.3)
    )  # fmt: skip
    assert np.abs(network.parameters - before).max() == pytest.approx(0.3 / warmup, rel=1e-4)


def test_algorithm_1_computes_in_the_dtype_of_the_data():
    """Noise and weights in float64 would make float64 of float32 data."""

    class Recorder(Slopes):
        def vjp(self, x, scale, std, labels=None, **_):
            out, backward = super().vjp(x, scale, std)
            return out.astype(np.float32), lambda grad: dtypes.append(grad.dtype) or backward(grad)

    dtypes, network = [], Recorder(2, SCHEDULE, 0)
    x = np.random.default_rng(1).standard_normal((30, 2), dtype=np.float32)
    loop = train(network, SCHEDULE, x, 1, np.random.default_rng(2), weights=np.ones(7), **optimiser(network),
                 sampler=TimestepSampler(6, "uniform"))  # fmt: skip
    next(loop)
    assert {network.calls[0][0].dtype, *dtypes} == {np.dtype(np.float32)}


def test_algorithm_1_trains_on_what_augment_returns_and_tells_the_network_its_numbers():
    """Examples of −x, and numbers that are the rows: the loop is that on −x, with other inputs."""
    x = np.random.default_rng(1).standard_normal((30, 2)).astype(np.float32)
    rows = []

    def negated(chosen, rng):
        rows.append(chosen)
        return -x[chosen], np.stack([chosen, rng.random(len(chosen))], axis=1)

    def run(x, augment):
        network, told = NoiseNetwork(2, (3,), rng=3, n_augment=2), []
        vjp = network.vjp
        network.vjp = lambda *args, augment_labels, **kw: (told.append(augment_labels), vjp(*args, **kw))[1]
        rng = np.random.default_rng(2)
        given = {"sampler": TimestepSampler(6, "uniform"), "weights": np.ones(7), "augment": augment}
        return list(train(network, SCHEDULE, x, 1, rng, **optimiser(network), **given)), told

    losses, told = run(x, negated)
    assert np.array_equal(told[0][:, 0], rows[0])
    assert losses != run(x, None)[0]
    assert run(x, lambda rows, rng: (-x[rows], np.zeros((len(rows), 2))))[0] == run(-x, None)[0]
    assert run(x, None)[1] == [None]


@pytest.mark.equation("algorithm-1")
@pytest.mark.parametrize("split", [0, 1, 5, 11, 12])
def test_a_second_loop_goes_on_where_the_first_one_ended(split):
    """Twelve steps by one loop or by two: the objects between two steps hold the whole state, the labels' too."""
    x = np.random.default_rng(1).standard_normal((30, 2))

    def run(*splits):
        network, rng = NoiseNetwork(2, (3,), rng=3, n_classes=3), np.random.default_rng(2)
        given, losses = optimiser(network), []
        given |= {"sampler": TimestepSampler(6, "importance"), "weights": np.ones(7), "labels": np.arange(30) % 3}
        for n in (*splits, 12 - sum(splits)):
            loop = train(network, SCHEDULE, x, 12, rng, **given)
            losses += list(islice(loop, n))
        assert list(train(network, SCHEDULE, x, 12, rng, **given)) == []
        return losses, network.parameters.tolist(), given["ema"].average.tolist(), rng.random()

    assert run() == run(split)
    assert run() != run(split)[::-1]


def test_algorithm_1_needs_the_optimiser_of_its_network_and_an_average_of_its_own():
    network, x = NoiseNetwork(2, (3,), rng=3), np.ones((4, 2), np.float32)
    given = {"weights": np.ones(7), "sampler": TimestepSampler(6, "uniform"), **optimiser(network)}

    def refused(message, **changed):
        with pytest.raises(ValueError, match=message):
            next(train(network, SCHEDULE, x, 5, np.random.default_rng(2), **given | changed))

    refused(r"^adam must change the network's own parameters", adam=Adam(network.parameters.copy()))
    refused(r"^ema must average into an array of its own", ema=EMA(network.parameters))
    refused(r"^ema must average into an array of its own", ema=EMA(network.parameters[:]))
    refused(r"^ema must average 65 parameters, got 64", ema=EMA(network.parameters[1:].copy()))
    network = NoiseNetwork(2, (3,), rng=3, dtype=np.float64)
    given |= optimiser(network)
    refused(r"^ema must average in float64, .* got float32", ema=EMA(network.parameters.astype(np.float32)))


def test_a_loss_that_is_not_finite_ends_the_training_with_its_step():
    network = NoiseNetwork(2, (3,), rng=3)
    loop = train(network, SCHEDULE, np.ones((4, 2), np.float32), 5, np.random.default_rng(2), weights=np.ones(7),
                 **optimiser(network), sampler=TimestepSampler(6, "uniform"))  # fmt: skip
    next(loop)
    network.parameters[:] = np.nan
    with pytest.raises(ArithmeticError, match=r"diverged in step 2: the loss is nan"):
        next(loop)


def test_weights_that_float32_cannot_hold_end_the_training_before_its_first_step():
    network = NoiseNetwork(2, (3,), rng=3)
    before = network.parameters.copy()
    loop = train(network, SCHEDULE, np.ones((4, 2), np.float32), 5, np.random.default_rng(2), weights=np.full(7, 1e39),
                 **optimiser(network), sampler=TimestepSampler(6, "uniform"))  # fmt: skip
    with pytest.raises(ArithmeticError, match=r"step 1: the loss is inf, .* or a weight of the loss is too"):
        next(loop)
    assert np.array_equal(network.parameters, before)


# --- ε̂ of a network ---------------------------------------------------------------------------------------


@pytest.mark.equation("predicted-noise")
@given(st.integers(1, 6), st.floats(-1, 4), st.booleans(), st.integers(0, 2**32 - 1))
def test_predicted_noise_is_the_networks_at_the_level_of_its_step(t, guidance, clip, seed):
    """Guidance mixes the network with and without labels; a clipped x̂_0 keeps x_t = ᾱ x̂_0 + β̄ ε̂."""
    rng, labels = np.random.default_rng(seed), np.array([0, 2, 1, -1])
    network = NoiseNetwork(2, (5,), rng=rng, dtype=np.float64, n_classes=3)
    network.parameters[:] = rng.standard_normal(len(network.parameters))
    x = rng.standard_normal((4, 2))
    scale, std = float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.beta_bar[t])
    free, told = network(x, scale, std), network(x, scale, std, labels=labels)
    eps_hat = predict_noise(network, SCHEDULE, x, t, labels, guidance, clip=clip)
    expected = (1 - guidance) * free + guidance * told
    if clip:
        x0_hat = np.clip((x - std * expected) / scale, -1, 1)
        assert residual(scale * x0_hat + std * eps_hat, x) < 1e-12
        expected = (x - scale * x0_hat) / std
    assert residual(eps_hat, expected) < 1e-9
    assert np.array_equal(predict_noise(network, SCHEDULE, x, t), free)
    as_x0 = network(x, scale, std, eps_coefficients(SCHEDULE, t, "x0"))
    assert np.array_equal(predict_noise(network, SCHEDULE, x, t, prediction="x0"), as_x0)
    assert not np.allclose(as_x0, free)
