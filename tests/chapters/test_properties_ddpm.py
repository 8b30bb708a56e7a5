"""Properties (19)-(29): the diffusion model on random schedules, through the checks of `scratchgen.conformance`.

The simple loss does not show its weight or its constants, and the mean of a reverse sampler shows neither the sign nor
the size of the score.  The tests therefore use whole bounds, variances and orders of convergence.
"""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import NoiseSchedule
from scratchgen import conformance as c
from scratchgen.ddpm import (
    ancestral_sampler,
    bound_terms,
    ddim_step,
    forward_entropy,
    forward_log_prob,
    merge_noise,
    merged_loss,
    negative_elbo,
    one_step_loss,
    optimal_reverse_variance,
    p_log_prob,
    p_step,
    predict_x0,
    q_path,
    q_posterior,
    q_sample,
    q_step,
    reverse_log_prob,
    reverse_variance,
    split_noise,
    total_noise_loss,
)
from scratchgen.em import indicators
from scratchgen.equations.problems import GivenNoise
from scratchgen.likelihood import (
    bits_per_dim,
    entropy_discrete,
    level_values,
    levels_of,
    log_bin_mass,
    log_bin_mass_slopes,
    softmax,
)
from scratchgen.nn import CategoricalDenoiser
from scratchgen.quadrature import gauss_hermite
from scratchgen.testing import as_spd, cut, reals, schedules, schedules_and_t, size
from tests.strategies import holds, residual


def of(function, schedule):
    """A function of (schedule, …) as a function of (…)."""
    return lambda *arguments: function(schedule, *arguments)


@pytest.mark.equation(25, "forward-step")
@given(schedules(1e-9, 0.999))
def test_forward_process_composes_its_steps(schedule):
    """One jump equals the composition of the steps; variances to a relative 1e-12."""
    holds(c.check_forward_process(of(q_sample, schedule), schedule))
    holds(c.check_forward_step(of(q_step, schedule), schedule))
    holds(c.check_schedule(schedule, schedule.alpha_bar, schedule.beta_bar))


@pytest.mark.equation(24, "posterior", "x0-from-noise", "reverse-step")
@given(schedules(1e-4, 0.9))
def test_posterior_is_bayes_ratio_and_the_reverse_step_its_formula(schedule):
    """The posterior q(x_{t−1} | x_t, x_0) is Bayes' ratio; the formulas in ε̂, including t = 1."""
    holds(c.check_posterior(of(q_posterior, schedule), schedule))
    holds(c.check_schedule(schedule, schedule.alpha_bar, schedule.beta_bar, schedule.beta_tilde))
    holds(c.check_predict_x0(of(predict_x0, schedule), schedule))
    for variance in "beta", "posterior":
        table = reverse_variance(schedule, variance)
        holds(c.check_ancestral_step(lambda *a, v=variance: p_step(schedule, *a, v), schedule, table))


@pytest.mark.equation(27)
@given(schedules(1e-6, 0.999))
def test_merging_of_noise_is_an_orthogonal_map(schedule):
    """R Rᵀ = R² = I, and (27)."""
    holds(c.check_noise_merging(of(merge_noise, schedule), of(split_noise, schedule), schedule))


@pytest.mark.equation("ddim")
@given(schedules(1e-3, 0.8, max_T=6), st.floats(0, 1))
def test_ddim_keeps_the_marginals_for_every_eta(schedule, eta):
    """For every η: the step's mean and standard deviation."""
    holds(c.check_ddim_step(lambda *a: ddim_step(schedule, *a, eta), schedule, eta))


@pytest.mark.equation(22, 23, 24, 26, 28, 29)
@given(schedules_and_t(1e-3, 0.9, max_T=10), reals(6, -1.5, 1.5), st.floats(0.1, 1.0), st.floats(0.1, 2.0))
def test_four_forms_of_the_step_loss_are_equal(case, net, std, variance):
    """(24) = (26) = (28) = (29) with all constants, for ε̂ that is not linear."""
    schedule, t = case
    a, b, k, d, m, e = net
    table = np.full(schedule.T + 1, variance)

    def eps_hat(x, t):
        return a + b * np.sin(k * x + d * t) + 0.3 * e * x

    def path_loss(t, x0, eps_bar, eps_t, eps_hat):
        x_prev = q_sample(schedule, t - 1, x0, eps_bar) if t > 1 else x0
        return -p_log_prob(schedule, t, x_prev, q_step(schedule, t, x_prev, eps_t), eps_hat, table)

    for loss in (
        path_loss,
        lambda *arguments: one_step_loss(schedule, *arguments, table),
        lambda *arguments: merged_loss(schedule, *arguments, table),
        lambda t, x0, eps, omega, eps_hat: total_noise_loss(schedule, t, x0, eps, eps_hat, table),
    ):
        holds(c.check_step_loss(loss, schedule, t, eps_hat, m, std, variance))


@st.composite
def affine_problems(draw):
    """T <= 5, D <= 2, data N(mean, covariance), ε̂ = A_t x + b_t, σ² in [0.1, 2]."""
    schedule, D = draw(schedules(1e-3, 0.9, max_T=5)), draw(st.integers(1, 2))
    T = schedule.T
    shapes = (D,), (D, D), (T + 1, D, D), (T + 1, D)
    mean, L, A, b = cut(draw(reals(size(*shapes), -1, 1)), *shapes)
    table = np.concatenate([[np.nan], draw(reals(T, 0.1, 2.0))])
    return SimpleNamespace(schedule=schedule, problem=(2 * mean, as_spd(L), A, b, table), table=table)


@pytest.mark.equation(20, 21)
@given(affine_problems())
def test_variational_bound_is_the_joint_kl_plus_the_entropy(case):
    """Ho's terms equal the formula from the losses, and one Cholesky decomposition of both joint Gaussians."""
    schedule, table = case.schedule, case.table
    holds(c.check_variational_bound(lambda *a: bound_terms(schedule, *a, table), schedule, *case.problem))
    holds(c.check_negative_elbo(lambda *a: negative_elbo(schedule, *a, table), schedule, *case.problem))


@pytest.mark.equation(19)
@given(schedules(1e-3, 0.9, max_T=6), reals(32, -2, 2))
def test_densities_of_paths_are_dense_gaussians(schedule, flat):
    """Both chains against dense Gaussians."""
    T = schedule.T
    path, slopes = flat[: 3 * (T + 1)].reshape(T + 1, 3, 1), np.concatenate([[np.nan], 0.5 * flat[21 : 21 + T]])
    table = np.concatenate([[np.nan], 0.1 + np.abs(flat[26 : 26 + T])])
    holds(
        c.check_chains(
            lambda path: forward_log_prob(schedule, path),
            lambda path, eps_hat: reverse_log_prob(schedule, path, eps_hat, table),
            schedule,
            path,
            slopes,
            table,
        )
    )


@pytest.mark.equation(21)
@given(schedules(1e-3, 0.9, max_T=6), st.integers(1, 3))
def test_entropy_of_the_forward_path_is_the_constant_of_21(schedule, D):
    """The constant that (21) leaves out: −E log q by sigma points over the noise, where each term is a quadratic."""
    T = schedule.T
    points = np.sqrt(T * D) * np.concatenate([np.eye(T * D), -np.eye(T * D)])
    path = q_path(schedule, np.ones((len(points), D)), points.reshape(-1, T, D).swapaxes(0, 1))
    assert residual(-forward_log_prob(schedule, path).mean(), forward_entropy(schedule, D)) < 1e-11


@pytest.mark.equation("best-variance")
@given(schedules(1e-3, 0.9), st.integers(1, 2).flatmap(lambda D: reals((D, D), -1, 1)))
def test_best_variance_is_the_mean_conditional_variance(schedule, L):
    """The σ_t² with the best bound is E‖x_{t−1} − E[x_{t−1} | x_t]‖²/D."""
    covariance = as_spd(L)
    check = c.check_optimal_variance(lambda ell: optimal_reverse_variance(schedule, ell, len(L)), schedule, covariance)
    holds(check)


@pytest.mark.equation("ancestral-sampling")
@given(schedules(1e-3, 0.8, max_T=10), st.floats(-2, 2), st.floats(np.log(0.01), np.log(9)).map(np.exp))
def test_ancestral_sampler_with_the_best_variance_has_the_moments_of_the_data(schedule, mean, variance):
    """From x_T ~ p_T, and with the best σ_t², for every T; with β² or β̃² the error is known."""
    spread = schedule.alpha_bar**2 * variance + schedule.beta_bar**2
    best = optimal_reverse_variance(schedule, 1 - schedule.beta_bar**2 / spread, 1)
    for choice in best, "beta", "posterior":

        def sample(x_T, eps_hat, noise, choice=choice):
            *_, (_, x0) = ancestral_sampler(schedule, eps_hat, x_T, GivenNoise(noise), choice)
            return x0

        table = reverse_variance(schedule, choice)
        holds(c.check_sampler(sample, schedule, mean, variance, table))
    end = spread[-1]  # the variance of the samples, step by step
    for t in range(schedule.T, 0, -1):
        end = (schedule.alpha[t] * spread[t - 1] / spread[t]) ** 2 * end + best[t]
    assert residual(end / variance, 1.0) < 1e-10


@pytest.mark.parametrize("T", [1, 2, 10, 100])
@pytest.mark.parametrize("end", [0.9, 0.5, 1e-3])
def test_ancestral_sampler_from_the_prior_misses_the_data_by_the_mismatch_at_T(T, end):
    """From N(0, I) the exact steps give m + g (0 − ᾱ_T m) and v + g² (1 − V_T), g = ᾱ_T v/V_T and V_T = Var x_T.

    Only x_T ~ p_T gives N(m, v) for every T.
    """
    schedule, m, v = NoiseSchedule(np.full(T, 1 - end ** (2 / T))), 0.7, 3.0
    spread = schedule.alpha_bar**2 * v + schedule.beta_bar**2
    best = optimal_reverse_variance(schedule, 1 - schedule.beta_bar**2 / spread, 1)

    def eps_hat(x, t):
        return schedule.beta_bar[t] * (x - schedule.alpha_bar[t] * m) / spread[t]

    def moments(mean, std):
        """Mean and variance of x_0 for x_T ~ N(mean, std²), from 0 and unit vectors in place of all noise."""
        nodes = np.concatenate([np.zeros((1, T + 1)), np.eye(T + 1)])
        x_T, noise = mean + std * nodes[:, :1], nodes[:, 1:].T[:, :, None]
        *_, (_, x0) = ancestral_sampler(schedule, eps_hat, x_T, GivenNoise(noise), best)
        return x0[0, 0], ((x0[1:] - x0[0]) ** 2).sum()

    g = end * v / spread[-1]
    assert residual(moments(end * m, spread[-1] ** 0.5), (m, v)) < 1e-10
    assert residual(moments(0.0, 1.0), (m - g * end * m, v + g**2 * (1 - spread[-1]))) < 1e-10
    assert (abs(moments(0.0, 1.0)[1] - v) > 0.1) == (end > 0.1)


# --- whole numbers ----------------------------------------------------------------------------------------


@pytest.mark.equation("whole-numbers")
@given(
    st.sampled_from([2, 17, 256]),
    reals((4,), -1.5, 1.5),
    st.floats(np.log(0.01), np.log(2.7)).map(np.exp),
)
def test_bin_masses_sum_to_one_and_are_differences_of_phi(n_levels, means, std):
    """The masses sum to 1, are finite, and are differences of Φ."""
    holds(c.check_bin_masses(lambda level, mean, std: log_bin_mass(level, mean, std, n_levels), n_levels, means, std))


@pytest.mark.equation("whole-numbers")
def test_bin_masses_keep_their_logarithm_where_a_difference_of_cdfs_is_zero():
    """At std 0.01 most of 17 bins are so far out that Φ rounds; their logarithms are finite, and those of the tail."""
    logs = log_bin_mass(np.arange(17), np.array(-1.0), 0.01, 17)
    assert np.isfinite(logs).all()
    assert np.all(np.diff(logs) < 0)
    # Mills' ratio: log Φ(−a) = −a²/2 − log(a √2π) − 1/a² + …
    a = (np.arange(2, 17) / 8 - 1 / 16) / 0.01
    assert np.abs(logs[2:] - (-(a**2) / 2 - np.log(a * np.sqrt(2 * np.pi)) - a**-2.0)).max() < 1e-2
    mirrored = log_bin_mass(np.arange(17)[::-1], np.array(1.0), 0.01, 17)
    assert residual(mirrored, logs) < 1e-13


@pytest.mark.parametrize("n_levels", [1, 0])
def test_bins_need_two_levels(n_levels):
    with pytest.raises(ValueError, match=r"^n_levels must be at least 2"):
        log_bin_mass(np.zeros(1), np.zeros(1), 1.0, n_levels)


@pytest.mark.parametrize("wrong", [17, -1, 3.5, np.nan, 1e300])
def test_numbers_that_are_no_levels_have_no_mass(wrong):
    """By name and place, in every function that takes levels."""
    levels, zeros = np.array([[0.0, 16.0], [wrong, 3.0]]), np.zeros((2, 2))
    value = re.escape(str(float(wrong)))
    told = rf"^{{0}} must hold whole numbers in 0\.\.16, as n_levels says, but {{0}}\[1, 0\] is {value}"
    for f in log_bin_mass, log_bin_mass_slopes:
        with pytest.raises(ValueError, match=told.format("level")):
            f(levels, zeros, 1.0, 17)
        assert np.isfinite(f(np.where(levels == wrong, 5, np.nan_to_num(levels) % 17), zeros, 1.0, 17)[0]).all()
    with pytest.raises(ValueError, match=told.format("x")):
        indicators(levels, 17)
    with pytest.raises(ValueError, match="must hold whole numbers"):
        levels_of(levels / 8 - 1, 17)
    denoiser = CategoricalDenoiser(np.full((2, 17), 1 / 17), np.eye(2), (3,), rng=0)
    with pytest.raises(ValueError, match=told.format("level")):
        denoiser.log_mass(levels, zeros, 0.6, 0.8)
    with pytest.raises(ValueError, match=r"^level must hold whole numbers in 0\.\.16, as n_levels says, but level is"):
        log_bin_mass(wrong, 0.0, 1.0, 17)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_levels", [2, 17, 256, 65_536])
def test_levels_survive_scaling_and_rounding(dtype, n_levels):
    k = np.arange(n_levels)
    assert np.array_equal(levels_of(level_values(n_levels).astype(dtype), n_levels), k)
    shifted = level_values(n_levels) + 0.04 / (n_levels - 1)  # 2 % of the distance between two levels
    with pytest.raises(ValueError, match="must hold whole numbers"):
        levels_of(shifted, n_levels)
    for f in level_values, partial(levels_of, np.zeros(1)):
        with pytest.raises(ValueError, match=r"^n_levels must be at least 2"):
            f(1)


@pytest.mark.equation("bits-per-dimension")
@given(reals((17,), -6, 6), st.integers(1, 3), st.floats(0.01, 3))
def test_dequantised_bits_are_those_of_the_masses(logits, dimension, scale):
    """Equality for a density that is constant on unit cubes."""
    holds(c.check_bits_per_dim(bits_per_dim, softmax(logits), dimension, scale))


@pytest.mark.equation(20, "l0")
@given(st.sampled_from([2, 5, 17]), reals((17,), -2, 2), schedules(1e-3, 0.9, max_T=6), st.data())
def test_bound_on_whole_numbers_stays_above_their_entropy(n_levels, logits, schedule, data):
    """With a mass for L_0, −E ELBO >= H(P); with a density it would have no lower limit."""
    P = softmax(logits[:n_levels])
    x = (2 * np.arange(n_levels) / (n_levels - 1) - 1)[:, None]
    nodes, weights = gauss_hermite(40, 1)
    table = np.concatenate([[np.nan], data.draw(reals(schedule.T, 0.01, 1.0))])

    def eps_hat(x_t, t):
        """The Bayes predictor of this discrete law."""
        log_joint = np.log(P) - (x_t - schedule.alpha_bar[t] * x.T) ** 2 / (2 * schedule.beta_bar[t] ** 2)
        x0_hat = softmax(log_joint) @ x
        return (x_t - schedule.alpha_bar[t] * x0_hat) / schedule.beta_bar[t]

    x0, eps = np.repeat(x, len(nodes), axis=0), np.tile(nodes, (n_levels, 1))
    law = np.repeat(P, len(nodes)) * np.tile(weights, n_levels)
    terms = bound_terms(schedule, x0, eps_hat, np.broadcast_to(eps, (schedule.T, *eps.shape)), table)
    x_1 = q_sample(schedule, 1, x0, eps)
    mean = (x_1 - schedule.beta[1] ** 2 / schedule.beta_bar[1] * eps_hat(x_1, 1)) / schedule.alpha[1]
    level = np.repeat(np.arange(n_levels), len(nodes))[:, None]
    terms[:, 0] = -log_bin_mass(level, mean, np.sqrt(table[1]), n_levels)[:, 0]
    assert law @ terms.sum(axis=1) >= entropy_discrete(P) - 1e-9


# --- orders of convergence --------------------------------------------------------------------------------
