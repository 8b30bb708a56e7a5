"""Checks of the reverse steps: ancestral, DDIM, a whole sampler, and the variance that is best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_sigma_squared, returned, takes_arrays
from scratchgen.conformance.result import Check, compare
from scratchgen.conformance.steps import EpsHat, coefficients, compose, factors, reverse_mean, shifted
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_number


@takes_arrays
def check_ancestral_step(
    step: Callable[[int, Array, Array, Array], ArrayLike], schedule: NoiseSchedule, sigma_squared: Array
) -> Check:
    """x_{t−1} = (x_t − (β_t²/β̄_t) ε̂)/α_t + σ_t z for every t, for step(t, x_t, eps_hat, noise) and TOTAL noise ε̂.

    The noise is there at t = 1 too: p_θ(x_0 | x_1) is a Gaussian like the others.  sigma_squared has length T+1; its
    index 0 is not used.
    """
    steps = compose(schedule)
    left = [coefficients(lambda x, e, z, t=t: step(t, x, e, z), 3) for t in range(1, steps.T + 1)]
    (by_x_t, by_eps), sigma = reverse_mean(steps).T, np.sqrt(as_sigma_squared(sigma_squared, schedule, zero=True)[1:])
    alpha, v, total = steps.alpha[1:], steps.variance[1:], steps.total[1:]
    return compare(
        "check_ancestral_step",
        "(24)",
        "(factor of x_t, of ε̂, of z, constant, bend) in x_{t−1}",
        left,
        factors(by_x_t, by_eps, sigma),
        1e-9,
        {
            "β_t stands where β_t²/β̄_t belongs: a net for all noise in the deck's formula for one step's": lambda: (
                factors(by_x_t, -np.sqrt(v) / alpha, sigma)
            ),
            "β_t² stands where β_t²/β̄_t belongs": lambda: factors(by_x_t, -v / alpha, sigma),
            "β̄_t stands where β_t²/β̄_t belongs": lambda: factors(by_x_t, -np.sqrt(total) / alpha, sigma),
            "ε̂ has the wrong sign": lambda: factors(by_x_t, -by_eps, sigma),
            "the noise has factor σ², a variance": lambda: factors(by_x_t, by_eps, sigma**2),
            "the noise is left out at t = 1": lambda: factors(by_x_t, by_eps, np.append(0.0, sigma[1:])),
            "there is no noise": lambda: factors(by_x_t, by_eps, 0 * sigma),
            "σ_t is that of step t−1": lambda: factors(by_x_t, by_eps, shifted(sigma)),
        },
        first=1,
    )


@takes_arrays
def check_ddim_step(
    step: Callable[[int, int, Array, Array, Array], ArrayLike], schedule: NoiseSchedule, eta: float
) -> Check:
    """DDIM keeps the marginals for every η: from x_t = ᾱ_t x_0 + β̄_t ε and ε̂ = ε to x_s ~ N(ᾱ_s x_0, β̄_s² I).

    step(t, s, x_t, eps_hat, noise) for every 0 <= s < t; fresh noise has factor σ = η (β̄_s/β̄_t) √(1 − ᾱ_t²/ᾱ_s²).
    """
    eta = as_number(eta, "eta", low=0.0, high=1.0)
    steps = compose(schedule)
    scale, std = steps.scale, np.sqrt(steps.total)
    pairs = [(t, s) for t in range(1, steps.T + 1) for s in range(t)]
    left = [coefficients(lambda x0, e, z, t=t, s=s: step(t, s, scale[t] * x0 + std[t] * e, e, z), 3) for t, s in pairs]
    t, s = np.array(pairs).T
    # q(x_s | x_t, x_0) of the chain that stops at s and t only: its variance, by adding precisions
    ratio = scale[t] / scale[s]
    with np.errstate(divide="ignore"):
        full = 1 / (ratio**2 / (std[t] ** 2 - ratio**2 * std[s] ** 2) + 1 / std[s] ** 2)
    sigma = eta * np.sqrt(full)
    direct = np.sqrt(np.maximum(std[s] ** 2 - sigma**2, 0.0))
    return compare(
        "check_ddim_step",
        "(25)",
        "(factor of x_0, of ε, of z, constant, bend) in x_s",
        left,
        factors(scale[s], direct, sigma),
        1e-9,
        {
            "the direction to x_t has the wrong sign": lambda: factors(scale[s], -direct, sigma),
            "η is ignored: there is no fresh noise": lambda: factors(scale[s], std[s], 0 * sigma),
            "σ² is not taken off the direction": lambda: factors(scale[s], std[s], sigma),
            "the fresh noise has factor σ², a variance": lambda: factors(scale[s], direct, sigma**2),
        },
    )


@takes_arrays
def check_sampler(
    sample: Callable[[Array, EpsHat, Array], ArrayLike],
    schedule: NoiseSchedule,
    mean: float,
    variance: float,
    sigma_squared: Array,
) -> Check:
    """The whole ancestral sampler on scalar data N(mean, variance), from x_T ~ p_T with the exact ε̂: moments of x_0.

    With the optimal σ_t² they are those of the data, for every T; the mean alone would see neither the sign nor the
    size of the score.

    Parameters
    ----------
    sample : callable
        sample(x_T (N, 1), eps_hat, noise (T, N, 1)) → x_0 (N, 1), where noise[0] belongs to the step from T and
        eps_hat(x, t) is to be called with t = T..1.
    sigma_squared : (T+1,)
        The σ_t² that `sample` uses.
    """
    steps = compose(schedule)
    T, spread = steps.T, steps.scale**2 * variance + steps.total

    def eps_hat(x: Array, t: int) -> Array:
        return np.sqrt(steps.total[t]) * (x - steps.scale[t] * mean) / spread[t]

    variance = as_number(variance, "variance", low=0.0, open_low=True)
    sigma_squared = as_sigma_squared(sigma_squared, schedule, zero=True)
    probes = T + 2
    start, noise = np.zeros((probes, 1)), np.zeros((T, probes, 1))
    start[1] = 1
    noise[np.arange(T), np.arange(2, probes)] = 1
    end = returned(sample(start, eps_hat, noise), (probes, 1), "sample")[:, 0]
    slopes = end[1:] - end[0]
    left = [end[0] + slopes[0] * steps.scale[T] * mean, slopes[0] ** 2 * spread[T] + (slopes[1:] ** 2).sum()]
    gains = steps.alpha[1:] * spread[:-1] / spread[1:]

    def end_variance(noises: Array) -> float:
        v = spread[T]
        for t in range(T, 0, -1):
            v = gains[t - 1] ** 2 * v + noises[t]
        return float(v)

    def moments(noises: Array) -> Array:
        return np.array([mean / np.sqrt(variance), end_variance(noises) / variance])

    return compare(
        "check_sampler",
        "(19)",
        "(mean, variance) of x_0, in units of the data's",
        np.array(left) / [np.sqrt(variance), variance],
        moments(sigma_squared),
        1e-10,
        {
            "the noise is left out at t = 1": lambda: moments(np.append([0, 0], sigma_squared[2:])),
            "σ_t is that of step t−1": lambda: moments(shifted(sigma_squared)),
            "there is no noise": lambda: moments(0 * sigma_squared),
        },
    )


@takes_arrays
def check_optimal_variance(
    mean_square_step: Callable[[Array], ArrayLike], schedule: NoiseSchedule, covariance: Array
) -> Check:
    """v_t = E‖x_{t−1} − E[x_{t−1} | x_t]‖²/D of data N(0, covariance): the σ_t² that is best for the bound.

    mean_square_step(noise_loss (T+1,)) → (T+1,), from ℓ_t = E‖ε − ε*‖²; right by conditioning x_{t−1} on x_t.
    """
    steps, D = compose(schedule), len(covariance)
    V = steps.scale[:, None, None] ** 2 * covariance + steps.total[:, None, None] * np.eye(D)
    fisher = np.trace(np.linalg.inv(V), axis1=1, axis2=2)
    left = np.asarray(mean_square_step(D - steps.total * fisher), dtype=np.float64)[1:]
    alpha = steps.alpha[1:, None, None]
    conditional = V[:-1] - alpha**2 * V[:-1] @ np.linalg.inv(V[1:]) @ V[:-1]
    return compare(
        "check_optimal_variance",
        "(29)",
        "σ*²",
        left,
        np.trace(conditional, axis1=1, axis2=2) / D,
        1e-10,
        {
            "it is summed over the D dimensions": lambda: np.trace(conditional, axis1=1, axis2=2),
            "it is β̃², the posterior's: the error of ε̂ is left out": lambda: steps.posterior[1:],
            "it is β²": lambda: steps.variance[1:],
            "β̃² is left out": lambda: np.trace(conditional, axis1=1, axis2=2) / D - steps.posterior[1:],
        },
        first=1,
    )
