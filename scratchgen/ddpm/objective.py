"""Equations (26)-(29): the loss of one step, its weights, and the part of the loss that trains a network.

The deck's prefactors in (26), (28), (29) are too large by a factor of 2, and its (29) lacks a constant.  Corrected:

    −E_q log p_θ(x_{t−1} | x_t) = (D/2) log 2πσ_t² + D β̃_t²/(2σ_t²) + w_t ℓ_t,                            (29')
    w_t = β_t⁴/(2 β̄_t² α_t² σ_t²),    ℓ_t = E‖ε − ε̂(ᾱ_t x_0 + β̄_t ε, t)‖².
"""

import numpy as np

from scratchgen.ddpm.kernels import check_schedule, check_step_number, merge_noise, q_sample, split_noise
from scratchgen.ddpm.samplers import EpsHat, reverse_variance
from scratchgen.likelihood import LOG_2PI
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_arrays, as_choice, check_callable

WEIGHTINGS = ("simple", "bound", "x0", "v", "min-snr")


def noise_error(noise: Array, eps_hat: Array) -> tuple[Array, Array]:
    """‖ε − ε̂‖² of every example, (N,), and its derivative 2(ε̂ − ε) with respect to ε̂, (N, D): the θ-part of (29).

    Training minimises ‖ε − ε̂‖².  `total_noise_loss` multiplies it by its weight and adds the constants of (29).

    Parameters
    ----------
    noise, eps_hat : (N, D)
        ε and ε̂.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    noise, eps_hat = as_arrays("noise (N, D), eps_hat (N, D)", noise, eps_hat)
    error = eps_hat - noise
    return (error**2).sum(axis=1), 2 * error


def total_noise_loss(
    schedule: NoiseSchedule, t: int, x0: Array, eps: Array, eps_hat: EpsHat, variance: str | Array = "beta"
) -> Array:
    """The expectation of −log p_θ(x_{t−1} | x_t) over ω at given ε, (N,), nats: (29) with its constants.

        (D/2) log 2πσ_t² + D β̃_t²/(2σ_t²) + w_t ‖ε − ε̂(ᾱ_t x_0 + β̄_t ε, t)‖²

    The second term is the expectation of the terms in ω, which the deck drops.

    Parameters
    ----------
    t : int
        In 1..T.
    x0, eps : (N, D)
        x_0 and the total noise ε.
    eps_hat : callable
        ε̂(x_t, t), (N, D).
    variance
        As for `reverse_variance`.
    """
    check_step_number(schedule, t)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    x0, eps = as_arrays("x0 (N, D), eps (N, D)", x0, eps)
    sigma_squared = reverse_variance(schedule, variance)[t]
    constant = 0.5 * x0.shape[1] * (LOG_2PI + np.log(sigma_squared) + schedule.beta_tilde[t] ** 2 / sigma_squared)
    losses, _ = noise_error(eps, eps_hat(q_sample(schedule, t, x0, eps), t))
    return constant + bound_weight(schedule, variance)[t] * losses


def bound_weight(schedule: NoiseSchedule, variance: str | Array = "beta") -> Array:
    """w_t = β_t⁴/(2 β̄_t² α_t² σ_t²) for t = 0..T, (T+1,), half the deck's prefactor in (29); w_0 = 0.

    Parameters
    ----------
    variance
        σ_t², as for `reverse_variance`.
    """
    sigma_squared = reverse_variance(schedule, variance)[1:]
    weight = schedule.beta[1:] ** 4 / (2 * (schedule.beta_bar[1:] * schedule.alpha[1:]) ** 2 * sigma_squared)
    return np.concatenate([[0.0], weight])


def loss_weight(schedule: NoiseSchedule, weighting: str, variance: str | Array = "beta") -> Array:
    """λ_t of the training loss E_t λ_t ‖ε − ε̂‖², t uniform on 1..T, for t = 0..T, (T+1,); λ_0 = 0.

        simple     1                  the simple loss of Ho et al. (2020)
        bound      T w_t              the part of −ELBO that depends on θ, nats, (29)
        x0         1/SNR              ‖x_0 − x̂_0‖²
        v          1/ᾱ_t²             ‖v − v̂‖²
        min-snr    min(SNR, 5)/SNR    ‖x_0 − x̂_0‖² weighted by min(SNR, 5) (Hang et al. 2023)

    Parameters
    ----------
    weighting : {"simple", "bound", "x0", "v", "min-snr"}
    variance
        σ_t² in w_t, as for `reverse_variance`.

    Raises
    ------
    ValueError
        If weighting is none of these names.
    """
    check_schedule(schedule)
    as_choice(weighting, "weighting", WEIGHTINGS)
    snr = schedule.snr[1:]
    match weighting:
        case "bound":
            weight = schedule.T * bound_weight(schedule, variance)[1:]
        case "x0":
            weight = 1 / snr
        case "v":
            weight = 1 / schedule.alpha_bar[1:] ** 2
        case "min-snr":
            weight = np.minimum(snr, 5.0) / snr
        case _:
            weight = np.ones(schedule.T)
    return np.concatenate([[0.0], weight])


# --- the same loss before the expectation over ω: theory only --------------------------------------------------------


def step_weight(schedule: NoiseSchedule, variance: str | Array = "beta") -> Array:
    """β_t²/(2 α_t² σ_t²) for t = 0..T, (T+1,), half the deck's prefactor in (26) and (28); 0 at t = 0."""
    check_schedule(schedule)
    weight = (schedule.beta[1:] / schedule.alpha[1:]) ** 2 / (2 * reverse_variance(schedule, variance)[1:])
    return np.concatenate([[0.0], weight])


def one_step_loss(
    schedule: NoiseSchedule,
    t: int,
    x0: Array,
    eps_bar_prev: Array,
    eps_t: Array,
    eps_hat: EpsHat,
    variance: str | Array = "beta",
) -> Array:
    """−log p_θ(x_{t−1} | x_t) as a function of ε̄_{t−1} and ε_t, (N,), nats: (26) with its constants.

        (D/2) log 2πσ_t² + β_t²/(2α_t²σ_t²) ‖ε_t − ε_θ(ᾱ_t x_0 + α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t, t)‖²

    The deck's ε_θ predicts the noise of one step: ε_θ = (β_t/β̄_t) ε̂, where ε̂ predicts the total noise.

    Parameters
    ----------
    t : int
        In 1..T.
    x0, eps_bar_prev, eps_t : (N, D)
        x_0, the total noise ε̄_{t−1} up to step t−1, and the noise ε_t of step t.
    eps_hat, variance
        As for `total_noise_loss`.
    """
    check_step_number(schedule, t)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    x0, eps_bar_prev, eps_t = as_arrays("x0 (N, D), eps_bar_prev (N, D), eps_t (N, D)", x0, eps_bar_prev, eps_t)
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
    """−log p_θ(x_{t−1} | x_t) as a function of the merged noise (ε, ω), (N,), nats: (28) with its constants.

        (D/2) log 2πσ_t² + β_t²/(2α_t²σ_t²) ‖(β_t ε − α_t β̄_{t−1} ω)/β̄_t − ε_θ(ᾱ_t x_0 + β̄_t ε, t)‖²

    The value equals `one_step_loss` at every (ε, ω) = merge_noise(ε̄_{t−1}, ε_t).

    Parameters
    ----------
    t : int
        In 1..T.
    x0, eps, omega : (N, D)
    eps_hat, variance
        As for `total_noise_loss`.
    """
    check_step_number(schedule, t)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    x0, eps, omega = as_arrays("x0 (N, D), eps (N, D), omega (N, D)", x0, eps, omega)
    return _step_loss(schedule, t, x0, eps, split_noise(schedule, t, eps, omega), eps_hat, variance)


def _step_loss(
    schedule: NoiseSchedule, t: int, x0: Array, eps: Array, eps_t: Array, eps_hat: EpsHat, variance: str | Array
) -> Array:
    """(D/2) log 2πσ_t² + β_t²/(2α_t²σ_t²) ‖ε_t − (β_t/β̄_t) ε̂‖² for total noise ε and one step's noise ε_t, (N,)."""
    eps_hat_t = as_arrays("eps_hat (N, D)", eps_hat(q_sample(schedule, t, x0, eps), t), N=len(x0), D=x0.shape[1])
    one_step = schedule.beta[t] / schedule.beta_bar[t] * eps_hat_t
    normaliser = 0.5 * x0.shape[1] * (LOG_2PI + np.log(reverse_variance(schedule, variance)[t]))
    return normaliser + step_weight(schedule, variance)[t] * ((eps_t - one_step) ** 2).sum(axis=1)
