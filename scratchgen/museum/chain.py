"""Wing one, chapter (19)-(29): mistakes in the schedule, the kernels and the reverse steps."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from scratchgen.ddpm import (
    merge_noise,
    optimal_reverse_variance,
    p_mean,
    p_step,
    predict_x0,
    q_posterior,
    reverse_variance,
)
from scratchgen.museum.exhibit import exhibit

# --- the schedule ----------------------------------------------------------------------------------------------------


def _tables(alpha_bar, beta_bar, beta):
    """The tables of a schedule, with β̃ derived from them."""
    beta_tilde = np.zeros_like(beta)
    beta_tilde[1:] = beta[1:] * beta_bar[:-1] / beta_bar[1:]
    return SimpleNamespace(alpha_bar=alpha_bar, beta_bar=beta_bar, beta_tilde=beta_tilde)


@exhibit("ᾱ is the cumulative product of β", "LuChengTHU/dpm-solver #13", "schedule.NoiseSchedule", "check_schedule")
def _product_of_noise(variances):
    beta = np.sqrt(np.concatenate([[0.0], variances]))
    alpha_bar = np.concatenate([[1.0], np.cumprod(beta[1:])])
    return _tables(alpha_bar, np.sqrt(1 - alpha_bar**2), beta)


@exhibit(
    "the table holds Ho's β, a variance, but is read as a standard deviation",
    "the deck as printed",
    "schedule.NoiseSchedule",
    "check_schedule",
)
def _variance_for_std(variances):
    beta = np.concatenate([[0.0], variances])
    alpha_bar = np.cumprod(np.sqrt(1 - beta**2))
    return _tables(alpha_bar, np.sqrt(1 - alpha_bar**2), beta)


@exhibit(
    "β_i = β(t_i), without the length of the step",
    "the deck as printed",
    "schedule.NoiseSchedule.from_sde",
    "check_discretisation",
)
def _without_dt(sde, T):
    times = np.linspace(0.0, sde.horizon, T + 1)
    return SimpleNamespace(variances=sde.beta(times[1:]))  # NoiseSchedule would raise, because some exceed 1


@exhibit(
    "β_i = β(t_i)Δt for 1 − exp(−∫β)",
    "the deck as printed",
    "schedule.NoiseSchedule.from_sde",
    "check_discretisation",
)
def _first_order(sde, T):
    times = np.linspace(0.0, sde.horizon, T + 1)
    return SimpleNamespace(variances=sde.beta(times[1:]) * sde.horizon / T)


# --- (19), (25)-(27): kernels and noise ------------------------------------------------------------------------------


@exhibit("x_t = α_t x_{t−1} + β_t, without ε_t", "the deck as printed", "ddpm.q_step", "check_forward_step")
def _forward_without_noise(schedule, t, x_prev, noise):
    return schedule.alpha[t] * x_prev + schedule.beta[t]


@exhibit(
    "the noise of x_t has factor 1 − ᾱ², a variance, without the square root",
    "huggingface/diffusers PR #10185, undone by #10644",
    "ddpm.q_sample",
    "check_forward_process",
)
def _variance_times_noise(schedule, t, x0, noise):
    return schedule.alpha_bar[t] * x0 + schedule.beta_bar[t] ** 2 * noise


def _posterior(schedule, t, x_t, x0, alpha_bar_previous):
    """`q_posterior` with a given ᾱ_{t−1}."""
    before, total, v = 1 - alpha_bar_previous**2, schedule.beta_bar[t] ** 2, schedule.beta[t] ** 2
    mean = (schedule.alpha[t] * before * x_t + alpha_bar_previous * v * x0) / total
    return mean, v * before / total


@exhibit(
    "ᾱ_{t−1} from a table padded on the wrong side",
    "lucidrains/denoising-diffusion-pytorch #18",
    "ddpm.q_posterior",
    "check_posterior",
)
def _padded_on_the_wrong_side(schedule, t, x_t, x0):
    previous = np.append(schedule.alpha_bar[1:-1], 1.0)  # right: [1.0, ᾱ_1, …, ᾱ_{T−1}]
    return _posterior(schedule, t, x_t, x0, previous[t - 1])


@exhibit(
    "the posterior variance without 1/(1 − ᾱ_t²)",
    "varun-ml/diffusion-models-tutorial #1",
    "ddpm.q_posterior",
    "check_posterior",
)
def _variance_not_divided(schedule, t, x_t, x0):
    mean, _ = q_posterior(schedule, t, x_t, x0)
    return mean, (schedule.beta[t] * schedule.beta_bar[t - 1]) ** 2


@exhibit(
    "the posterior variance of the first step is that of the second",
    "openai/improved-diffusion #45",
    "ddpm.q_posterior",
    "check_posterior",
)
def _first_step_clipped(schedule, t, x_t, x0):
    mean, _ = q_posterior(schedule, t, x_t, x0)
    return mean, schedule.beta_tilde[max(t, 2)] ** 2


@exhibit(
    "the posterior from two factors, without q(x_{t−1}|x_0)",
    "the deck as printed",
    "ddpm.q_posterior",
    "check_posterior",
)
def _two_factors(schedule, t, x_t, x0):
    return x_t / schedule.alpha[t], (schedule.beta[t] / schedule.alpha[t]) ** 2


@exhibit("x̂_0 is divided by ᾱ_{t−1}, not ᾱ_t", "mutation audit", "ddpm.predict_x0", "check_predict_x0")
def _previous_alpha_bar(schedule, t, x_t, eps_hat):
    return (x_t - schedule.beta_bar[t] * eps_hat) / schedule.alpha_bar[t - 1]


@exhibit("ω has the wrong sign in (27)", "mutation audit", "ddpm.split_noise", "check_noise_merging")
def _omega_added(schedule, t, eps, omega):
    return merge_noise(schedule, t, eps, -omega)[1]


# --- reverse steps ---------------------------------------------------------------------------------------------------


@exhibit(
    "β_t for β_t²/β̄_t: the total noise in the formula for the noise of one step",
    "the deck as printed",
    "ddpm.p_step",
    "check_ancestral_step",
)
def _one_step_formula(schedule, t, x_t, eps_hat, noise, variance="beta"):
    std = np.sqrt(reverse_variance(schedule, variance))
    return (x_t - schedule.beta[t] * eps_hat) / schedule.alpha[t] + std[t] * noise


@exhibit(
    "an identity along a path is used for sampling: no noise is added",
    "the deck as printed",
    "ddpm.p_step",
    "check_ancestral_step",
)
def _mean_only(schedule, t, x_t, eps_hat, noise, variance="beta"):
    return p_mean(schedule, t, x_t, eps_hat)


@exhibit("the noise is dropped at t = 1", "AkiRusProd/numpy-diffusion", "ddpm.p_step", "check_ancestral_step")
def _last_step_without_noise(schedule, t, x_t, eps_hat, noise, variance="beta"):
    return p_step(schedule, t, x_t, eps_hat, noise if t > 1 else 0 * noise, variance)


@exhibit("t − 1 for t: the network gets the wrong step", "mutation audit", "ddpm.ancestral_sampler", "check_sampler")
def _network_off_by_one(schedule, eps_hat, x_T, rng, variance="beta"):
    x = x_T
    yield schedule.T, x
    for t in range(schedule.T, 0, -1):
        x = p_step(schedule, t, x, eps_hat(x, t - 1), rng.standard_normal(x.shape, dtype=x.dtype), variance)
        yield t - 1, x


@exhibit(
    "DDIM's direction to x_t has the wrong sign", "AkiRusProd/numpy-diffusion", "ddpm.ddim_step", "check_ddim_step"
)
def _ddim_with_the_wrong_sign(schedule, t, s, x_t, eps_hat, noise=None, eta=0.0):
    alpha_bar, beta_bar = schedule.alpha_bar, schedule.beta_bar
    sigma = eta * beta_bar[s] / beta_bar[t] * np.sqrt(1 - (alpha_bar[t] / alpha_bar[s]) ** 2)
    direction = np.sqrt(np.maximum(beta_bar[s] ** 2 - sigma**2, 0.0))
    x_s = alpha_bar[s] * predict_x0(schedule, t, x_t, eps_hat) - direction * eps_hat
    return x_s if noise is None else x_s + sigma * noise


@exhibit(
    "v_t is summed over D, not averaged", "mutation audit", "ddpm.optimal_reverse_variance", "check_optimal_variance"
)
def _summed_over_dimensions(schedule, noise_loss, dimension):
    return dimension * optimal_reverse_variance(schedule, noise_loss, dimension)


@exhibit(
    "σ_1² of “posterior” is β̃_1² = 0, so that L_0 is infinite",
    "mutation audit",
    "ddpm.reverse_variance",
    "check_reverse_variance",
)
def _first_variance_zero(schedule, variance):
    return schedule.beta**2 if variance == "beta" else schedule.beta_tilde**2
