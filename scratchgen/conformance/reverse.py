"""Checks of the reverse steps: ancestral sampling, DDIM, whole samplers, guidance, the reverse variances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_sigma_squared, returned, takes_arrays
from scratchgen.conformance.reference_chain import EpsHat, coefficients, compose, factors, reverse_mean, shifted
from scratchgen.conformance.result import Check, compare
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_number


@takes_arrays
def check_ancestral_step(
    step: Callable[[int, Array, Array, Array], ArrayLike], schedule: NoiseSchedule, sigma_squared: Array
) -> Check:
    """x_{t−1} = (x_t − (β_t²/β̄_t) ε̂)/α_t + σ_t z for every t, with the total noise ε̂.

    The step t = 1 adds noise like every other step, because p_θ(x_0 | x_1) is a Gaussian.

    Parameters
    ----------
    step : callable
        step(t, x_t, eps_hat, noise) → x_{t−1}; all arrays (N, 1).
    schedule : NoiseSchedule
    sigma_squared : (T+1,)
        The variances σ_t² that `step` uses.

    Returns
    -------
    Check
        Tolerance 1e-9.
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
            "β_t stands where β_t²/β̄_t belongs, as if ε̂ were the noise of one step": lambda: factors(
                by_x_t, -np.sqrt(v) / alpha, sigma
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
    """One DDIM step keeps the marginals for every η and every 0 <= s < t.

    From x_t = ᾱ_t x_0 + β̄_t ε and ε̂ = ε, x_s has the distribution N(ᾱ_s x_0, β̄_s² I).  The factor of the fresh noise
    is σ = η (β̄_s/β̄_t) √(1 − ᾱ_t²/ᾱ_s²).

    Parameters
    ----------
    step : callable
        step(t, s, x_t, eps_hat, noise) → x_s; all arrays (N, 1).
    schedule : NoiseSchedule
    eta : float
        η; 0 is deterministic.

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    eta = as_number(eta, "eta", low=0.0, high=1.0)
    steps = compose(schedule)
    scale, std = steps.scale, np.sqrt(steps.total)
    pairs = [(t, s) for t in range(1, steps.T + 1) for s in range(t)]
    left = [coefficients(lambda x0, e, z, t=t, s=s: step(t, s, scale[t] * x0 + std[t] * e, e, z), 3) for t, s in pairs]
    t, s = np.array(pairs).T
    # the variance of q(x_s | x_t, x_0), by adding precisions
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
    """The whole ancestral sampler on scalar data: mean and variance of x_0, from x_T ~ p_T with the exact ε̂.

    With the optimal σ_t² they equal those of the data, for every T.  The mean alone depends neither on the sign nor on
    the size of the score.

    Parameters
    ----------
    sample : callable
        sample(x_T (N, 1), eps_hat, noise (T, N, 1)) → x_0 (N, 1).  noise[0] belongs to the step from T.  `sample` calls
        eps_hat(x, t) with t = T..1.
    schedule : NoiseSchedule
    mean, variance : float
        Mean and variance of the data.
    sigma_squared : (T+1,)
        The variances σ_t² that `sample` uses.

    Returns
    -------
    Check
        Tolerance 1e-10.
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
        "(mean, variance) of x_0, in units of the data",
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
    """The σ_t² with the best bound, v_t = E‖x_{t−1} − E[x_{t−1} | x_t]‖²/D, for data N(0, covariance).

    The right side is the variance of x_{t−1} conditioned on x_t.

    Parameters
    ----------
    mean_square_step : callable
        mean_square_step(noise_loss (T+1,)) → v_t, (T+1,), from ℓ_t = E‖ε − ε*‖² of the optimal ε*.
    schedule : NoiseSchedule
    covariance : (D, D)
        Covariance of the data.

    Returns
    -------
    Check
        Tolerance 1e-10.
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
            "it is β̃², the posterior variance: the error of ε̂ is left out": lambda: steps.posterior[1:],
            "it is β²": lambda: steps.variance[1:],
            "β̃² is left out": lambda: np.trace(conditional, axis1=1, axis2=2) / D - steps.posterior[1:],
        },
        first=1,
    )


@takes_arrays
def check_ddim_sampler(
    sample: Callable[[Array, EpsHat, Array], ArrayLike], schedule: NoiseSchedule, eta: float
) -> Check:
    """The whole DDIM sampler over the steps T..1, for a network that is not linear, from its formula at every step.

    Parameters
    ----------
    sample : callable
        sample(x_T (N, 1), eps_hat, noise (T, N, 1)) → x_0 (N, 1).  noise[0] belongs to the step from T.  `sample` calls
        eps_hat(x, t) with t = T..1.
    schedule : NoiseSchedule
    eta : float
        η; 0 is deterministic.

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    steps = compose(schedule)
    T, std = steps.T, np.sqrt(steps.total)
    x_T, noise = np.linspace(-1.5, 1.5, 4)[:, None], np.cos(np.arange(1.0, 1 + 4 * T)).reshape(T, 4, 1)

    def eps_hat(x: Array, t: int) -> Array:
        return 0.6 * x + 0.3 * np.sin(2 * x + 0.5 * t)

    def walk(late: int = 0, with_noise: bool = True) -> Array:
        x = x_T
        for t in range(T, 0, -1):
            predicted = eps_hat(x, t - late)
            sigma = eta * np.sqrt(steps.posterior[t])
            x0 = (x - std[t] * predicted) / steps.scale[t]
            x = steps.scale[t - 1] * x0 + np.sqrt(max(steps.total[t - 1] - sigma**2, 0.0)) * predicted
            x = x + sigma * noise[T - t] if with_noise else x
        return x

    return compare(
        "check_ddim_sampler",
        "(25)",
        "x_0",
        sample(x_T, eps_hat, noise),
        walk(),
        1e-9,
        {
            "ε̂ is evaluated one step late": lambda: walk(late=1),
            "there is no fresh noise": lambda: walk(with_noise=False),
        },
    )


@takes_arrays
def check_predicted_noise(
    predict: Callable[[Array, int, float, bool], ArrayLike],
    output: Callable[[Array, int, bool], Array],
    schedule: NoiseSchedule,
    kind: str,
    x_t: Array,
) -> Check:
    """ε̂ from the prediction of a network, with guidance, with and without clipping of x̂_0 to [−1, 1].

    Parameters
    ----------
    predict : callable
        predict(x_t (N, D), t, guidance, clip) → ε̂ (N, D), with labels.
    output : callable
        output(x_t, t, labelled) → the prediction of the network with or without labels, (N, D).
    schedule : NoiseSchedule
    kind : {"noise", "x0", "v", "step"}
        The prediction: ε, x_0, v = ᾱ_t ε − β̄_t x_0, or (β_t/β̄_t) ε.  The right side solves this equation and
        x_t = ᾱ_t x_0 + β̄_t ε for ε.
    x_t : (N, D)
        Some entries large enough for x̂_0 to be clipped.

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    steps = compose(schedule)
    guidances = (0.0, 0.5, 1.0, 2.5)

    def noise_of(t: int, prediction: Array) -> Array:
        scale, std = steps.scale[t], np.sqrt(steps.total[t])
        row = {
            "noise": (0.0, 1.0),
            "x0": (1.0, 0.0),
            "v": (-std, scale),
            "step": (0.0, np.sqrt(steps.variance[t]) / std),
        }
        return np.linalg.solve([[scale, std], row[kind]], np.stack([x_t.ravel(), prediction.ravel()]))[1].reshape(
            x_t.shape
        )

    def clipped(t: int, eps_hat: Array) -> Array:
        scale, std = steps.scale[t], np.sqrt(steps.total[t])
        return (x_t - scale * np.minimum(np.maximum((x_t - std * eps_hat) / scale, -1), 1)) / std

    def all_of(weight: Callable[[float], float], clip: bool = True) -> Array:
        rows = []
        for t in range(1, steps.T + 1):
            free, given = (noise_of(t, output(x_t, t, labelled)) for labelled in (False, True))
            for w in guidances:
                eps_hat = (1 - weight(w)) * free + weight(w) * given
                rows.append([eps_hat, clipped(t, eps_hat) if clip else eps_hat])
        return np.array(rows)

    left = [
        [np.asarray(predict(x_t, t, w, clip), dtype=np.float64) for clip in (False, True)]
        for t in range(1, steps.T + 1)
        for w in guidances
    ]
    return compare(
        "check_predicted_noise",
        "(25)",
        "ε̂ by step and guidance, then without and with clipping",
        left,
        all_of(lambda w: w),
        1e-9,
        {
            "guidance 0 and 1 are swapped": lambda: all_of(lambda w: 1 - w),
            "w + 1 stands where w belongs: this is the w of Ho and Salimans": lambda: all_of(lambda w: w + 1),
            "guidance is ignored": lambda: all_of(lambda w: 1.0),
            "the label is dropped": lambda: all_of(lambda w: 0.0),
            "x̂_0 is not clipped": lambda: all_of(lambda w: w, clip=False),
        },
    )


@takes_arrays
def check_reverse_variance(variance: Callable[[str], ArrayLike], schedule: NoiseSchedule) -> Check:
    """The variances σ_t² for t = 1..T: "beta" is β_t², "posterior" is β̃_t².

    The first step of "posterior" is β_1², because β̃_1 = 0 would make −log p_θ(x_0 | x_1) infinite.

    Parameters
    ----------
    variance : callable
        variance(name) → σ_t², (T+1,), index 0 not used.
    schedule : NoiseSchedule

    Returns
    -------
    Check
        Tolerance 1e-12.
    """
    steps = compose(schedule)
    posterior = np.append(steps.variance[1], steps.posterior[2:])
    return compare(
        "check_reverse_variance",
        "(24)",
        "σ_t² for t = 1..T, “beta” and “posterior”",
        [np.asarray(variance(name), dtype=np.float64)[1:] for name in ("beta", "posterior")],
        [steps.variance[1:], posterior],
        1e-12,
        {
            "the first posterior variance is 0": lambda: [steps.variance[1:], steps.posterior[1:]],
            "they are standard deviations": lambda: [np.sqrt(steps.variance[1:]), np.sqrt(posterior)],
            "the two are swapped": lambda: [posterior, steps.variance[1:]],
        },
    )
