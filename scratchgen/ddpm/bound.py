"""Equations (19)-(24): the log-densities of both Markov chains along a path, and the variational bound of log p_θ(x_0).

A path is an array (T+1, N, D) of x_0, …, x_T.  The mean of log q − log p_θ over paths from q is KL(q‖p_θ), (20), and
every term of (21) is the mean of a `p_log_prob`.  Ho et al. (2020) write the bound, with all constants, as

    −ELBO = L_T + Σ_{t=2}^T L_{t−1} + L_0

with the loss of the prior L_T, the losses of the steps L_{t−1}, and the loss of the reconstruction of x_0, L_0.
"""

from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np

from scratchgen.ddpm.kernels import check_schedule, check_step_number, q_posterior, q_sample, q_step
from scratchgen.ddpm.levels import as_level_law, check_has_density, law_moments, mixture_log_prob
from scratchgen.ddpm.objective import bound_weight
from scratchgen.ddpm.samplers import EpsHat, as_variance, p_mean, reverse_variance
from scratchgen.likelihood import LOG_2PI, gaussian_log_prob, kl_diag_standard, levels_of, log_bin_mass
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_arrays, as_count, as_draws, as_number, as_real, check_callable

# --- both chains along a path -----------------------------------------------------------------------------------------


def q_path(schedule: NoiseSchedule, x0: Array, noise: Array | Iterator[Array]) -> Array:
    """The forward path x_0, …, x_T, (T+1, N, D), from x0 (N, D) and noise (T, N, D), where noise[t−1] is ε_t.

    The noise is an array, or an iterator of ε_1, …, ε_T.
    """
    check_schedule(schedule)
    x0 = as_arrays("x0 (N, D)", x0)
    path = [x0]
    for t, eps in enumerate(_noise_of_steps(schedule, x0, noise), 1):
        path.append(q_step(schedule, t, path[-1], eps))
    return np.stack(path)


def _noise_of_steps(
    schedule: NoiseSchedule, x0: Array, noise: Array | Iterator[Array], name: str = "noise"
) -> Iterator[Array]:
    """The noise of the steps 1, …, T, each (N, D) as x0; `as_draws` names the errors."""
    return as_draws(f"{name} (T, N, D)", noise, T=schedule.T, N=len(x0), D=x0.shape[1])


def q_log_prob(schedule: NoiseSchedule, t: int, x_t: Array, x_prev: Array) -> Array:
    """log q(x_t | x_{t−1}) = log N(x_t; α_t x_{t−1}, β_t² I), (N,), nats, for x_t and x_prev (N, D)."""
    check_step_number(schedule, t)
    x_t, x_prev = as_arrays("x_t (N, D), x_prev (N, D)", x_t, x_prev)
    return gaussian_log_prob(x_t, q_step(schedule, t, x_prev, np.zeros_like(x_prev)), 2 * np.log(schedule.beta[t]))


def p_log_prob(
    schedule: NoiseSchedule, t: int, x_prev: Array, x_t: Array, eps_hat: EpsHat, variance: str | Array = "beta"
) -> Array:
    """log p_θ(x_{t−1} | x_t) = log N(x_{t−1}; μ_θ(x_t), σ_t² I), (N,), nats: minus the integrand of (22)-(24).

    The deck writes ‖x_{t−1} − μ‖²/(2σ_t²) and drops (D/2) log 2πσ_t².  Losses with different σ_t can be compared only
    with that term.  The value depends on x_{t−1} and x_t alone; therefore the integral (22) over the path reduces to
    (24).

    Parameters
    ----------
    t : int
    x_prev, x_t : (N, D)
        x_{t−1} and x_t.
    eps_hat : callable
        ε̂(x_t, t), (N, D).
    variance
        As for `ancestral_sampler`.  "law" and "mixture" have a density for t >= 2.
    """
    check_step_number(schedule, t)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    x_prev, x_t = as_arrays("x_prev (N, D), x_t (N, D)", x_prev, x_t)
    law = as_level_law(eps_hat, variance)
    if law is not None and _is_mixture(variance):
        return mixture_log_prob(schedule, t, x_prev, x_t, law.levels, law.law(x_t, t))
    mean, sigma_squared = _p_moments(schedule, t, x_t, eps_hat, variance)
    return gaussian_log_prob(x_prev, mean, np.log(sigma_squared))


def _is_mixture(variance: str | Array) -> bool:
    """Whether `variance` is "mixture", the step whose KL has no closed form."""
    return isinstance(variance, str) and variance == "mixture"


def _p_moments(
    schedule: NoiseSchedule, t: int, x_t: Array, eps_hat: EpsHat, variance: str | Array
) -> tuple[Array, Array]:
    """Mean (N, D) and variance, a number, (D,) or (N, D), of the Gaussian p_θ(x_{t−1} | x_t)."""
    law = as_level_law(eps_hat, variance)
    if law is not None:
        check_has_density(t, str(variance))
        return law_moments(schedule, t, x_t, law.levels, law.law(x_t, t))
    table = reverse_variance(schedule, variance, x_t.shape[1])
    return p_mean(schedule, t, x_t, eps_hat(x_t, t)), table[t]


def forward_log_prob(schedule: NoiseSchedule, path: Array) -> Array:
    """log q(x_1, …, x_T | x_0) = Σ_t log q(x_t | x_{t−1}) of a path (T+1, N, D), (N,), nats: (19) without q̃(x_0)."""
    check_schedule(schedule)
    path = as_arrays("path (T+1, N, D)", path, **{"T+1": schedule.T + 1})
    return np.sum([q_log_prob(schedule, t, path[t], path[t - 1]) for t in range(1, schedule.T + 1)], axis=0)


def reverse_log_prob(
    schedule: NoiseSchedule,
    path: Array,
    eps_hat: EpsHat,
    variance: str | Array = "beta",
    decoder: Callable[[Array], Array] | None = None,
) -> Array:
    """log p_θ(x_0, …, x_T) = log N(x_T; 0, I) + Σ_t log p_θ(x_{t−1} | x_t), (N,), nats, the second line of (19).

    Parameters
    ----------
    path : (T+1, N, D)
        x_0, …, x_T.
    eps_hat, variance, decoder
        As for `bound_terms`.
    """
    check_schedule(schedule)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    path = as_arrays("path (T+1, N, D)", path, **{"T+1": schedule.T + 1})
    variance = as_variance(schedule, eps_hat, variance, path.shape[2])
    log_prob = gaussian_log_prob(path[-1], np.zeros_like(path[-1]), 0.0)
    for t in range(schedule.T, 0, -1):
        if t == 1 and decoder is not None:
            check_callable(decoder, "decoder", "x_1 (N, D) → (N,)")
            log_prob = log_prob + as_arrays("decoder (N)", decoder(path[1]), N=len(log_prob))
        else:
            log_prob = log_prob + p_log_prob(schedule, t, path[t - 1], path[t], eps_hat, variance)
    return log_prob


def forward_entropy(schedule: NoiseSchedule, dimension: int) -> float:
    """−E_q log q(x_1, …, x_T | x_0) = Σ_t (D/2) log 2πeβ_t², nats: the term missing in the deck's first "=" of (21).

    The entropy contains no θ, because the forward process is fixed.  The KL (20) is the right side of the deck's (21)
    minus this entropy and H(x_0).
    """
    check_schedule(schedule)
    dimension = as_count(dimension, "dimension")
    return float(0.5 * dimension * (LOG_2PI + 1 + 2 * np.log(schedule.beta[1:])).sum())


# --- the bound --------------------------------------------------------------------------------------------------------


def prior_loss(schedule: NoiseSchedule, x0: Array) -> Array:
    """L_T = KL(q(x_T | x_0)‖N(0, I)), (N,), nats, for x0 (N, D); L_T contains no θ and is small if ᾱ_T is small."""
    check_schedule(schedule)
    x0 = as_arrays("x0 (N, D)", x0)
    log_variance = np.full_like(x0, 2 * np.log(schedule.beta_bar[-1]))
    return kl_diag_standard(schedule.alpha_bar[-1] * x0, log_variance)


def step_loss(
    schedule: NoiseSchedule,
    t: int,
    x0: Array,
    x_t: Array,
    eps_hat: EpsHat,
    variance: str | Array = "beta",
    omega: Array | None = None,
) -> Array:
    """L_{t−1} = KL(q(x_{t−1} | x_t, x_0)‖p_θ(x_{t−1} | x_t)) for t = 2..T, (N,), nats.

    For two Gaussians the expectation over ω of the merged noise (27) is known.  For the mixture step it is not, and the
    result is an unbiased estimate from a given ω ~ N(0, I),

        KL(q‖p_G) + log p_G(x_{t−1}) − log p_θ(x_{t−1}),   x_{t−1} = E[x_{t−1} | x_t, x_0] + β̃_t ω

    with the Gaussian p_G of the mixture's mean and variance.

    Parameters
    ----------
    t : int
    x0, x_t : (N, D)
    eps_hat, variance
        As for `p_log_prob`.
    omega : (N, D), optional
        ω, needed for variance="mixture" and not used otherwise.
    """
    check_step_number(schedule, t)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    x0, x_t = as_arrays("x0 (N, D), x_t (N, D)", x0, x_t)
    q_mean, q_variance = q_posterior(schedule, t, x_t, x0)
    law = as_level_law(eps_hat, variance)
    if law is None or not _is_mixture(variance):
        return _kl_of_steps(q_mean, q_variance, *_p_moments(schedule, t, x_t, eps_hat, variance))
    omega = as_arrays("omega (N, D)", _needed(omega), N=len(x0), D=x0.shape[1])
    x_prev, probabilities = q_mean + np.sqrt(q_variance) * omega, law.law(x_t, t)
    log_p = mixture_log_prob(schedule, t, x_prev, x_t, law.levels, probabilities)
    mean, sigma_squared = law_moments(schedule, t, x_t, law.levels, probabilities)
    log_gaussian = gaussian_log_prob(x_prev, mean, np.log(sigma_squared))
    return _kl_of_steps(q_mean, q_variance, mean, sigma_squared) + log_gaussian - log_p


def _kl_of_steps(q_mean: Array, q_variance: Array | float, mean: Array, sigma_squared: Array) -> Array:
    """KL(N(q_mean, q_variance)‖N(mean, sigma_squared)) of independent dimensions, (N,), nats."""
    ratio = q_variance / sigma_squared
    return np.asarray(0.5 * (ratio - 1 - np.log(ratio) + (q_mean - mean) ** 2 / sigma_squared).sum(axis=1))


def _needed(omega: Array | Iterator[Array] | None) -> Array | Iterator[Array]:
    """Omega; ValueError if it is None."""
    if omega is None:
        raise ValueError("omega is needed for variance='mixture', whose KL has no closed form; pass N(0, I) draws")
    return omega


def reconstruction_loss(
    schedule: NoiseSchedule,
    x0: Array,
    x_1: Array,
    eps_hat: EpsHat,
    variance: str | Array = "beta",
    n_levels: int | None = None,
) -> Array:
    """L_0 = −log p_θ(x_0 | x_1), (N,), nats: from the density, or with `n_levels` from the mass of the bins of x_0.

    Parameters
    ----------
    x0, x_1 : (N, D)
    eps_hat, variance, n_levels
        As for `bound_terms`.
    """
    check_schedule(schedule)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    x0, x_1 = as_arrays("x0 (N, D), x_1 (N, D)", x0, x_1)
    if n_levels is None:
        return -p_log_prob(schedule, 1, x0, x_1, eps_hat, variance)
    mean, sigma_squared = _p_moments(schedule, 1, x_1, eps_hat, variance)
    return -log_bin_mass(levels_of(x0, n_levels, "x0"), mean, np.sqrt(sigma_squared), n_levels).sum(axis=1)


def bound_terms(
    schedule: NoiseSchedule,
    x0: Array,
    eps_hat: EpsHat,
    noise: Array | Iterator[Array],
    variance: str | Array = "beta",
    n_levels: int | None = None,
    decoder: Callable[[Array], Array] | None = None,
    omega: Array | Iterator[Array] | None = None,
) -> Array:
    """The terms L_0, …, L_T of −ELBO for every example, (N, T+1), nats, (20).

    The expectation of the sum of a row is an upper bound of −log p_θ(x_0).

    Parameters
    ----------
    x0 : (N, D)
    eps_hat : callable
        ε̂(x_t, t), (N, D), for an int t.
    noise : (T, N, D)
        noise[t−1] is the total noise ε of x_t.  Standard normal draws give unbiased estimates of all terms.  An
        iterator over the T arrays, each (N, D), may draw each of them when it is used.
    variance
        As for `ancestral_sampler`.  "law" and "mixture" need a decoder.
    n_levels : int, optional
        For whole numbers 0..n_levels−1 scaled to [−1, 1]: L_0 is then minus the log mass of the bin of x_0, and the sum
        bounds −log P(x_0).  A density would give no bound on −log P(x_0).
    decoder : callable, optional
        Function of x_1 (N, D) that returns log p_θ(x_0 | x_1), (N,), nats, instead of the Gaussian.
    omega : (T, N, D), optional
        omega[t−1] is ω of `step_loss`, needed for variance="mixture" and not used otherwise; an array or an iterator,
        as noise.

    Returns
    -------
    terms : (N, T+1)
        Column 0 is L_0, column t−1 is L_{t−1} for t = 2..T, column T is L_T.

    Raises
    ------
    ValueError
        If noise has another shape, or variance is not one that `ancestral_sampler` accepts.
    """
    check_schedule(schedule)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    x0 = as_arrays("x0 (N, D)", x0)
    variance = as_variance(schedule, eps_hat, variance, x0.shape[1])
    terms = np.empty((len(x0), schedule.T + 1))
    merged = (
        _noise_of_steps(schedule, x0, _needed(omega), "omega") if _is_mixture(variance) else repeat(None, schedule.T)
    )
    for t, (eps, own) in enumerate(zip(_noise_of_steps(schedule, x0, noise), merged, strict=True), 1):
        x_t = q_sample(schedule, t, x0, eps)
        if t > 1:
            terms[:, t - 1] = step_loss(schedule, t, x0, x_t, eps_hat, variance, own)
        elif decoder is None:
            terms[:, 0] = reconstruction_loss(schedule, x0, x_t, eps_hat, variance, n_levels)
        else:
            check_callable(decoder, "decoder", "x_1 (N, D) → (N,)")
            terms[:, 0] = -as_arrays("decoder (N)", decoder(x_t), N=len(x0))
    terms[:, -1] = prior_loss(schedule, x0)
    return terms


def optimal_reverse_variance(schedule: NoiseSchedule, noise_loss: Array, dimension: int) -> Array:
    """v_t = E‖x_{t−1} − μ_θ(x_t)‖²/D = β̃_t² + β_t⁴ ℓ_t/(D α_t² β̄_t²), (T+1,): the σ_t² with the least bound.

    For the exact network v_t is the optimal variance of Bao et al. (2022).  A step with one variance for each dimension
    has the least bound at v_td = E(x_{t−1,d} − μ_d)² = β̃_t² + β_t⁴ ℓ_td/(α_t² β̄_t²), (T+1, D), which is never more
    than the least bound of one variance.

    Parameters
    ----------
    noise_loss : (T+1,) or (T+1, D)
        ℓ_t = E‖ε − ε̂‖² for t = 0..T, summed over dimensions, or ℓ_td = E(ε_d − ε̂_d)²; index 0 is not used.
    dimension : int
        D.

    Raises
    ------
    TypeError, ValueError
        If dimension is not a positive integer, or noise_loss does not hold T+1 finite numbers, or D (T+1).
    """
    check_schedule(schedule)
    dimension, loss = as_count(dimension, "dimension"), as_real(noise_loss, "noise_loss").astype(np.float64)
    steps = schedule.T + 1
    if loss.shape not in ((steps,), (steps, dimension)) or not ((loss[1:] >= 0) & (loss[1:] < np.inf)).all():
        raise ValueError(
            f"noise_loss must be {steps} numbers, or ({steps}, {dimension}), finite from index 1 and not negative, "
            f"got {loss if loss.size < 9 else loss.shape}; pass the losses of t = 0..T"
        )
    half_factor = bound_weight(schedule, np.ones(schedule.T + 1))  # w_t at σ_t² = 1
    if loss.ndim == 2:
        return schedule.beta_tilde[:, None] ** 2 + 2 * half_factor[:, None] * loss
    return schedule.beta_tilde**2 + 2 * half_factor * loss / dimension


def negative_elbo(
    schedule: NoiseSchedule, noise_loss: Array, second_moment: float, dimension: int, variance: str | Array = "beta"
) -> float:
    """E_p[−ELBO] from the noise losses, nats: (21) with all constants.

        ½[D log 2π + ᾱ_T² E‖x_0‖² + D β̄_T²] + Σ_t (D/2)[log(σ_t²/β_t²) + v_t/σ_t² − 1]

    v_t is `optimal_reverse_variance`, and the sum from t = 1 contains L_0.  KL(q(x_{0:T})‖p_θ(x_{0:T})) is E_p[−ELBO]
    minus the entropy of x_0.

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
    second_moment = as_number(second_moment, "second_moment", low=0.0)
    sigma_squared = reverse_variance(schedule, variance)[1:]
    v = optimal_reverse_variance(schedule, noise_loss, dimension)[1:]
    if v.ndim > 1:
        raise ValueError(f"noise_loss must have shape ({schedule.T + 1},), got {np.shape(noise_loss)}; sum over D")
    prior = dimension * (LOG_2PI + schedule.beta_bar[-1] ** 2) + schedule.alpha_bar[-1] ** 2 * second_moment
    steps = np.log(sigma_squared / schedule.beta[1:] ** 2) + v / sigma_squared - 1
    return float(0.5 * (prior + dimension * steps.sum()))
