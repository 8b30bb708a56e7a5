"""Wing one, chapter (19)-(29): mistakes in the bound, and in the likelihood of whole numbers."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np

from scratchgen.ddpm import (
    bound_weight,
    merge_noise,
    optimal_reverse_variance,
    p_mean,
    q_posterior,
    q_sample,
    reverse_variance,
    split_noise,
    step_weight,
)
from scratchgen.likelihood import LOG_2PI, gaussian_log_prob, kl_diag_standard
from scratchgen.museum.exhibit import exhibit

# --- (19)-(29): the bound --------------------------------------------------------------------------------------------


@exhibit("log β_t for log β_t²", "mutation audit", "ddpm.forward_log_prob", "check_chains")
def _log_std_for_log_variance(schedule, path):
    steps = [
        gaussian_log_prob(path[t], schedule.alpha[t] * path[t - 1], np.log(schedule.beta[t]))
        for t in range(1, schedule.T + 1)
    ]
    return np.sum(steps, axis=0)


@exhibit("(D/2) log 2πσ² is dropped", "the deck as printed", "ddpm.p_log_prob", "check_step_loss")
def _square_only(schedule, t, x_prev, x_t, eps_hat, variance="beta"):
    sigma_squared = reverse_variance(schedule, variance)[t]
    return -((x_prev - p_mean(schedule, t, x_t, eps_hat(x_t, t))) ** 2).sum(axis=1) / (2 * sigma_squared)


def _printed_step_loss(schedule, t, x0, eps, eps_t, eps_hat, variance):
    """(26) and (28) with the deck's factor, β²/(α²σ²)."""
    one_step = schedule.beta[t] / schedule.beta_bar[t] * eps_hat(q_sample(schedule, t, x0, eps), t)
    normaliser = 0.5 * x0.shape[1] * (LOG_2PI + np.log(reverse_variance(schedule, variance)[t]))
    return normaliser + 2 * step_weight(schedule, variance)[t] * ((eps_t - one_step) ** 2).sum(axis=1)


@exhibit("(26) with twice the factor", "the deck as printed", "ddpm.one_step_loss", "check_step_loss")
def _printed_26(schedule, t, x0, eps_bar_prev, eps_t, eps_hat, variance="beta"):
    eps = merge_noise(schedule, t, eps_bar_prev, eps_t)[0]
    return _printed_step_loss(schedule, t, x0, eps, eps_t, eps_hat, variance)


@exhibit("(28) with twice the factor", "the deck as printed", "ddpm.merged_loss", "check_step_loss")
def _printed_28(schedule, t, x0, eps, omega, eps_hat, variance="beta"):
    return _printed_step_loss(schedule, t, x0, eps, split_noise(schedule, t, eps, omega), eps_hat, variance)


@exhibit("(29) with twice the factor", "the deck as printed", "ddpm.total_noise_loss", "check_step_loss")
def _printed_29(schedule, t, x0, eps, eps_hat, variance="beta"):
    sigma_squared = reverse_variance(schedule, variance)[t]
    constant = 0.5 * x0.shape[1] * (LOG_2PI + np.log(sigma_squared) + schedule.beta_tilde[t] ** 2 / sigma_squared)
    error = eps - eps_hat(q_sample(schedule, t, x0, eps), t)
    return constant + 2 * bound_weight(schedule, variance)[t] * (error**2).sum(axis=1)


@exhibit(
    "Dβ̃²/(2σ²), the integral over ω, is dropped from (29)",
    "the deck as printed",
    "ddpm.total_noise_loss",
    "check_step_loss",
)
def _omega_vanishes(schedule, t, x0, eps, eps_hat, variance="beta"):
    constant = 0.5 * x0.shape[1] * (LOG_2PI + np.log(reverse_variance(schedule, variance)[t]))
    error = eps - eps_hat(q_sample(schedule, t, x0, eps), t)
    return constant + bound_weight(schedule, variance)[t] * (error**2).sum(axis=1)


@exhibit(
    "the entropy of the forward chain is dropped, as in the first “=” of (21)",
    "the deck as printed",
    "ddpm.negative_elbo",
    "check_negative_elbo",
)
def _without_forward_entropy(schedule, noise_loss, second_moment, dimension, variance="beta"):
    sigma_squared = reverse_variance(schedule, variance)[1:]
    v = optimal_reverse_variance(schedule, noise_loss, dimension)[1:]
    prior = dimension * (LOG_2PI + schedule.beta_bar[-1] ** 2) + schedule.alpha_bar[-1] ** 2 * second_moment
    steps = LOG_2PI + np.log(sigma_squared) + v / sigma_squared
    return float(0.5 * (prior + dimension * steps.sum()))


def _bound(schedule, x0, eps_hat, noise, variance, posterior, level=None):
    """`bound_terms` with a given q(x_{t−1}|x_t, x_0), and with one step t for all terms if `level` is given."""
    sigma_squared = reverse_variance(schedule, variance)
    D = x0.shape[1]
    terms = np.empty((len(x0), schedule.T + 1))
    for step in range(1, schedule.T + 1):
        t = level or step
        x_t = q_sample(schedule, t, x0, noise[step - 1])
        mean = p_mean(schedule, t, x_t, eps_hat(x_t, t))
        if t == 1:
            terms[:, 0] = -gaussian_log_prob(x0, mean, np.log(sigma_squared[1]))
        else:
            q_mean, q_variance = posterior(schedule, t, x_t, x0)
            ratio = q_variance / sigma_squared[t]
            distance = ((q_mean - mean) ** 2).sum(axis=1) / sigma_squared[t]
            terms[:, step - 1] = 0.5 * (D * (ratio - 1 - np.log(ratio)) + distance)
    log_variance = np.full_like(x0, 2 * np.log(schedule.beta_bar[-1]))
    terms[:, -1] = kl_diag_standard(schedule.alpha_bar[-1] * x0, log_variance)
    return terms


@exhibit(
    "q(x_t|x_{t−1}) has the mean √(1−β) x_t, not √(1−β) x_{t−1}",
    "jmtomczak/intro_dgm, diffusion example",
    "ddpm.bound_terms",
    "check_variational_bound",
)
def _forward_kernel_at_the_wrong_state(schedule, x0, eps_hat, noise, variance="beta"):
    def kernel(schedule, t, x_t, x0):
        return schedule.alpha[t] * x_t, schedule.beta[t] ** 2

    return _bound(schedule, x0, eps_hat, noise, variance, kernel)


@exhibit(
    "t is set before the loop over the terms of the bound and stays constant",
    "tqch/ddpm-torch #20",
    "ddpm.bound_terms",
    "check_variational_bound",
)
def _time_never_changes(schedule, x0, eps_hat, noise, variance="beta"):
    return _bound(schedule, x0, eps_hat, noise, variance, q_posterior, level=schedule.T)


# --- whole numbers ---------------------------------------------------------------------------------------------------


@exhibit(
    "a density in the place of P(level): a continuous L_0 on discrete data",
    "mutation audit",
    "likelihood.log_bin_mass",
    "check_bin_masses",
)
def _continuous_l0(level, mean, std, n_levels):
    centre = 2 * np.asarray(level) / (n_levels - 1) - 1
    return -0.5 * (LOG_2PI + 2 * np.log(std) + ((centre - mean) / std) ** 2)


def _bin_masses(level, mean, std, n_levels, half, cdf, open_ends=True):
    """`log_bin_mass` as a difference of distribution functions; a mass of 0 becomes the smallest positive float."""
    centre = 2 * np.asarray(level) / (n_levels - 1) - 1
    lower, upper = cdf((centre - half - mean) / std), cdf((centre + half - mean) / std)
    if open_ends:
        lower, upper = np.where(level == 0, 0.0, lower), np.where(level == n_levels - 1, 1.0, upper)
    return np.log(np.maximum(upper - lower, 1e-300))


def _normal_cdf(z):
    return 0.5 * np.vectorize(math.erfc)(-z / 2**0.5)


@exhibit(
    "bins of width 2/K for levels at distance 2/(K−1)", "mutation audit", "likelihood.log_bin_mass", "check_bin_masses"
)
def _width_of_k_bins(level, mean, std, n_levels):
    return _bin_masses(level, mean, std, n_levels, 1 / n_levels, _normal_cdf)


@exhibit("the first and the last bin are closed", "mutation audit", "likelihood.log_bin_mass", "check_bin_masses")
def _closed_ends(level, mean, std, n_levels):
    return _bin_masses(level, mean, std, n_levels, 1 / (n_levels - 1), _normal_cdf, open_ends=False)


@exhibit(
    "Φ is approximated by a tanh", "openai/improved-diffusion, losses", "likelihood.log_bin_mass", "check_bin_masses"
)
def _tanh_for_the_normal(level, mean, std, n_levels):
    def cdf(z):
        return 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (z + 0.044715 * z**3)))

    return _bin_masses(level, mean, std, n_levels, 1 / (n_levels - 1), cdf)


@exhibit("nats are not divided by ln 2", "mutation audit", "likelihood.bits_per_dim", "check_bits_per_dim")
def _nats_for_bits(nats, dimension, scale=1.0):
    return nats / dimension - np.log2(scale)


@exhibit(
    "the offset of dequantisation has the wrong sign", "mutation audit", "likelihood.bits_per_dim", "check_bits_per_dim"
)
def _offset_added(nats, dimension, scale=1.0):
    return nats / (dimension * np.log(2)) + np.log2(scale)
