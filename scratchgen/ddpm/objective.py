"""Equations (20)-(29): the variational bound of the diffusion chain, with every constant.

The deck's prefactors in (26), (28), (29) are twice too large and its (29) drops a constant; with them put right,

    −E_q log p_θ(x_{t−1} | x_t) = (D/2) log 2πσ_t² + D β̃_t²/(2σ_t²) + w_t ℓ_t,                            (29')
    w_t = β_t⁴/(2 β̄_t² α_t² σ_t²),    ℓ_t = E‖ε − ε̂(ᾱ_t x_0 + β̄_t ε, t)‖².
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scratchgen.ddpm.kernels import merge_noise, q_posterior, q_sample, split_noise
from scratchgen.ddpm.samplers import p_mean, reverse_variance
from scratchgen.likelihood import LOG_2PI, gaussian_log_prob, kl_diag_standard, levels_of, log_bin_mass
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_choice

if TYPE_CHECKING:
    from scratchgen.ddpm.samplers import EpsHat


def bound_weight(schedule: NoiseSchedule, variance: str | Array = "beta") -> Array:
    """w_t = β_t⁴/(2 β̄_t² α_t² σ_t²) for t = 0..T, (T+1,): half the deck's prefactor in (29); w_0 = 0."""
    weight = np.zeros(schedule.T + 1)
    sigma_squared = reverse_variance(schedule, variance)[1:]
    weight[1:] = schedule.beta[1:] ** 4 / (2 * (schedule.beta_bar[1:] * schedule.alpha[1:]) ** 2 * sigma_squared)
    return weight


WEIGHTINGS = ("simple", "bound", "x0", "v", "min-snr")


def loss_weight(schedule: NoiseSchedule, weighting: str, variance: str | Array = "beta") -> Array:
    """λ_t of the training loss E_t λ_t ‖ε − ε̂‖², t uniform on 1..T, for t = 0..T, (T+1,); λ_0 = 0.

        simple     1                  Ho's
        bound      T w_t              the part of −ELBO that θ can change, nats, (29)
        x0         1/SNR              ‖x_0 − x̂_0‖²
        v          1/ᾱ_t²             ‖v − v̂‖²
        min-snr    min(SNR, 5)/SNR    ‖x_0 − x̂_0‖² weighted by min(SNR, 5) (Hang et al. 2023)

    Raises
    ------
    ValueError
        If weighting is none of these.
    """
    as_choice(weighting, "weighting", WEIGHTINGS)
    weight: Array = np.ones(schedule.T + 1)
    snr = schedule.snr
    if weighting == "bound":
        weight = schedule.T * bound_weight(schedule, variance)
    elif weighting == "x0":
        weight = 1 / snr
    elif weighting == "v":
        weight = 1 / schedule.alpha_bar**2
    elif weighting == "min-snr":
        weight[1:] = np.minimum(snr[1:], 5.0) / snr[1:]
    weight[0] = 0.0
    return weight


def step_weight(schedule: NoiseSchedule, variance: str | Array = "beta") -> Array:
    """β_t²/(2 α_t² σ_t²) for t = 0..T, (T+1,): half the deck's prefactor in (26) and (28); 0 at t = 0."""
    weight = np.zeros(schedule.T + 1)
    weight[1:] = (schedule.beta[1:] / schedule.alpha[1:]) ** 2 / (2 * reverse_variance(schedule, variance)[1:])
    return weight


def one_step_loss(
    schedule: NoiseSchedule,
    t: int,
    x0: Array,
    eps_bar_prev: Array,
    eps_t: Array,
    eps_hat: EpsHat,
    variance: str | Array = "beta",
) -> Array:
    """−log p_θ(x_{t−1} | x_t) in the noise of two stretches, (N,), nats, (26) with its constants.

        (D/2) log 2πσ_t² + β_t²/(2α_t²σ_t²) ‖ε_t − ε_θ(ᾱ_t x_0 + α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t, t)‖²

    The deck's ε_θ predicts the noise of ONE step; it is (β_t/β̄_t) ε̂ of the total noise that networks predict.
    """
    return _step_loss(schedule, t, x0, merge_noise(schedule, t, eps_bar_prev, eps_t)[0], eps_t, eps_hat, variance)


def merged_loss(
    schedule: NoiseSchedule,
    t: int,
    x0: Array,
    eps: Array,
    omega: Array,
    eps_hat: EpsHat,
    variance: str | Array = "beta",
) -> Array:
    """The same in the merged noise, (N,), nats, (28): ε_t = (β_t ε − α_t β̄_{t−1} ω)/β̄_t and x_t = ᾱ_t x_0 + β̄_t ε.

    Equal to `one_step_loss` at every single (ε, ω) = merge_noise(ε̄_{t−1}, ε_t).
    """
    return _step_loss(schedule, t, x0, eps, split_noise(schedule, t, eps, omega), eps_hat, variance)


def _step_loss(
    schedule: NoiseSchedule, t: int, x0: Array, eps: Array, eps_t: Array, eps_hat: EpsHat, variance: str | Array
) -> Array:
    one_step = schedule.beta[t] / schedule.beta_bar[t] * eps_hat(q_sample(schedule, t, x0, eps), t)
    normaliser = 0.5 * x0.shape[1] * (LOG_2PI + np.log(reverse_variance(schedule, variance)[t]))
    return normaliser + step_weight(schedule, variance)[t] * ((eps_t - one_step) ** 2).sum(axis=1)


def total_noise_loss(
    schedule: NoiseSchedule, t: int, x0: Array, eps: Array, eps_hat: EpsHat, variance: str | Array = "beta"
) -> Array:
    """The same with ω integrated out, (N,), nats, (29) with its constants, which is (29') for each ε.

        (D/2) log 2πσ_t² + D β̃_t²/(2σ_t²) + w_t ‖ε − ε̂(ᾱ_t x_0 + β̄_t ε, t)‖²

    "Separating" ω, as the deck does, does not make it vanish: it leaves the second term.
    """
    sigma_squared = reverse_variance(schedule, variance)[t]
    constant = 0.5 * x0.shape[1] * (LOG_2PI + np.log(sigma_squared) + schedule.beta_tilde[t] ** 2 / sigma_squared)
    error = eps - eps_hat(q_sample(schedule, t, x0, eps), t)
    return constant + bound_weight(schedule, variance)[t] * (error**2).sum(axis=1)


def mean_square_step(schedule: NoiseSchedule, noise_loss: Array, dimension: int) -> Array:
    """v_t = E‖x_{t−1} − μ_θ(x_t)‖²/D = β̃_t² + β_t⁴ ℓ_t/(D α_t² β̄_t²) for t = 0..T: the σ_t² that is best for the bound.

    `noise_loss` holds ℓ_t for t = 0..T, (T+1,), summed over the D dimensions; index 0 is not used.
    """
    half_factor = bound_weight(schedule, np.ones(schedule.T + 1))  # w_t at σ_t² = 1
    return schedule.beta_tilde**2 + 2 * half_factor * noise_loss / dimension


def negative_elbo(
    schedule: NoiseSchedule, noise_loss: Array, second_moment: float, dimension: int, variance: str | Array = "beta"
) -> float:
    """E_p[−ELBO] in nats from the noise losses alone, (20)-(21) with all constants.

        ½[D log 2π + ᾱ_T² E‖x_0‖² + D β̄_T²] + Σ_t (D/2)[log(σ_t²/β_t²) + v_t/σ_t² − 1]

    KL(q(x_{0:T})‖p_θ(x_{0:T})) is this minus the entropy of x_0; the sum starts at t = 1 and so contains L_0.

    Parameters
    ----------
    noise_loss : (T+1,)
        ℓ_t = E‖ε − ε̂‖², summed over dimensions; index 0 is not used.
    second_moment : float
        E‖x_0‖².
    dimension : int
        D.
    variance
        As for `reverse_variance`.
    """
    sigma_squared = reverse_variance(schedule, variance)[1:]
    v = mean_square_step(schedule, noise_loss, dimension)[1:]
    prior = dimension * (LOG_2PI + schedule.beta_bar[-1] ** 2) + schedule.alpha_bar[-1] ** 2 * second_moment
    steps = np.log(sigma_squared / schedule.beta[1:] ** 2) + v / sigma_squared - 1
    return float(0.5 * (prior + dimension * steps.sum()))


def bound_terms(
    schedule: NoiseSchedule,
    x0: Array,
    eps_hat: EpsHat,
    noise: Array,
    variance: str | Array = "beta",
    n_levels: int | None = None,
    decoder: Callable[[Array], Array] | None = None,
) -> Array:
    """Ho's terms of −ELBO for every example, (N, T+1), nats; a row's sum bounds −log p_θ(x_0) in expectation.

        column 0      L_0     = −log p_θ(x_0 | x_1)
        column t−1    L_{t−1} = KL(q(x_{t−1} | x_t, x_0)‖p_θ(x_{t−1} | x_t)),  t = 2..T
        column T      L_T     = KL(q(x_T | x_0)‖N(0, I))

    Parameters
    ----------
    x0 : (N, D)
    eps_hat : callable
        ε̂(x_t, t) for an int t.
    noise : (T, N, D)
        noise[t−1] is the total noise ε of x_t; one standard normal draw makes every term an unbiased estimate.
    variance
        As for `reverse_variance`.
    n_levels : int, optional
        x0 holds whole numbers 0..n_levels−1 scaled to [−1, 1], and L_0 is the mass of their bins, `log_bin_mass`: the
        sum then bounds −log P(x_0), which a density in its place would not.
    decoder : callable, optional
        log p_θ(x_0 | x_1), (N,), of x_1 (N, D), instead of the Gaussian density or its bins' masses.
    """
    if noise.shape != (schedule.T, *x0.shape):
        raise ValueError(f"noise must have shape (T, N, D) = {(schedule.T, *x0.shape)}, got {noise.shape}")
    sigma_squared = reverse_variance(schedule, variance)
    D = x0.shape[1]
    terms = np.empty((len(x0), schedule.T + 1))
    for t in range(1, schedule.T + 1):
        x_t = q_sample(schedule, t, x0, noise[t - 1])
        if t == 1 and decoder is not None:
            terms[:, 0] = -decoder(x_t)
            continue
        mean = p_mean(schedule, t, x_t, eps_hat(x_t, t))
        if t == 1:
            terms[:, 0] = -_log_decoder(x0, mean, sigma_squared[1], n_levels)
        else:
            q_mean, q_variance = q_posterior(schedule, t, x_t, x0)
            ratio = q_variance / sigma_squared[t]
            distance = ((q_mean - mean) ** 2).sum(axis=1) / sigma_squared[t]
            terms[:, t - 1] = 0.5 * (D * (ratio - 1 - np.log(ratio)) + distance)
    log_variance = np.full_like(x0, 2 * np.log(schedule.beta_bar[-1]))
    terms[:, -1] = kl_diag_standard(schedule.alpha_bar[-1] * x0, log_variance)
    return terms


def _log_decoder(x0: Array, mean: Array, variance: float, n_levels: int | None) -> Array:
    """log p_θ(x_0 | x_1), (N,), nats: a density, or with `n_levels` a mass."""
    if n_levels is None:
        return gaussian_log_prob(x0, mean, np.log(variance))
    return log_bin_mass(levels_of(x0, n_levels), mean, np.sqrt(variance), n_levels).sum(axis=1)
