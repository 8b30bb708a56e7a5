"""Equations (19), (25), (27): the forward kernels, the posterior and the merged noise, as functions of given noise.

Steps t run from 1 to T as in the deck, and index 0 is clean data; t is an int or one int an example, (N,).  These
functions draw no random numbers.  With `noise` as an argument expectations can be computed by quadrature, and other
implementations can be compared on the same noise.  Results have the dtype of the data.
"""

import numpy as np

from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray, as_array, as_arrays, check_type, column


def check_schedule(schedule: NoiseSchedule) -> None:
    """Raise TypeError unless schedule is a NoiseSchedule."""
    check_type(schedule, NoiseSchedule, "schedule", "pass NoiseSchedule.linear(100)")


def check_time(schedule: NoiseSchedule, t: int | IntArray, name: str = "t", first: int = 1) -> None:
    """Raise TypeError unless t holds ints, and ValueError unless t is a number or (N,) with steps in first..T."""
    check_schedule(schedule)
    steps = as_array(t, name)
    if steps.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an int or an int array of steps, got {t!r:.60}; pass steps, not times")
    if steps.ndim > 1:
        raise ValueError(f"{name} must be an int or have shape (N,), got shape {steps.shape}")
    if steps.size and (steps.min() < first or steps.max() > schedule.T):
        raise ValueError(
            f"{name} must be in {first}..{schedule.T} (index 0 is clean data), got {steps.min()}..{steps.max()}"
        )


def check_step_number(schedule: NoiseSchedule, t: int) -> None:
    """Raise TypeError or ValueError unless t is one step in 1..T."""
    check_time(schedule, t)
    if np.ndim(t) > 0:
        raise ValueError(f"t must be one step, the same for all rows, got an array of shape {np.shape(t)}; loop over t")


def q_step(schedule: NoiseSchedule, t: int | IntArray, x_prev: Array, noise: Array) -> Array:
    """One forward step x_t = α_t x_{t−1} + β_t ε_t, (N, D), (19); the deck's slide omits ε_t.

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    x_prev, noise : (N, D)
        x_{t−1} and ε_t.

    Raises
    ------
    TypeError, ValueError
        If t is not a step, or noise has another shape than x_prev.
    """
    check_time(schedule, t)
    x_prev, noise = as_arrays("x_prev (N, D), noise (N, D)", x_prev, noise)
    return column(schedule.alpha[t], x_prev) * x_prev + column(schedule.beta[t], x_prev) * noise


def q_sample(schedule: NoiseSchedule, t: int | IntArray, x0: Array, noise: Array) -> Array:
    """The first t forward steps at once, x_t = ᾱ_t x_0 + β̄_t ε, (N, D): q(x_t | x_0) = N(ᾱ_t x_0, β̄_t² I), (25).

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    x0, noise : (N, D)
        x_0 and the total noise ε.

    Raises
    ------
    TypeError, ValueError
        If t is not a step, or noise has another shape than x0.
    """
    check_time(schedule, t)
    x0, noise = as_arrays("x0 (N, D), noise (N, D)", x0, noise)
    return column(schedule.alpha_bar[t], x0) * x0 + column(schedule.beta_bar[t], x0) * noise


def posterior_coefficients(schedule: NoiseSchedule, t: int | IntArray) -> tuple[Array | float, Array | float]:
    """The factors of x_t and of x_0 in the mean of q(x_{t−1} | x_t, x_0); numbers, or (N,) for t of shape (N,).

        A_t = α_t β̄²_{t−1}/β̄_t²,   B_t = ᾱ_{t−1} β_t²/β̄_t²

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    """
    check_time(schedule, t)
    previous, beta_bar_squared = np.asarray(t) - 1, schedule.beta_bar[t] ** 2
    keep: Array | float = schedule.alpha[t] * schedule.beta_bar[previous] ** 2 / beta_bar_squared
    return keep, schedule.alpha_bar[previous] * schedule.beta[t] ** 2 / beta_bar_squared


def q_posterior(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, x0: Array) -> tuple[Array, Array | float]:
    """The Gaussian posterior q(x_{t−1} | x_t, x_0) = q(x_t | x_{t−1}) q(x_{t−1} | x_0)/q(x_t | x_0).

        mean (α_t β̄²_{t−1} x_t + ᾱ_{t−1} β_t² x_0)/β̄_t²,   variance β̃_t²

    The deck's formula has two of the three factors.

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    x_t, x0 : (N, D)

    Returns
    -------
    mean : (N, D)
    variance : float, or (N, 1) for t of shape (N,)
        0 at t = 1, where the posterior is a point mass at x_0.

    Raises
    ------
    TypeError, ValueError
        If t is not a step, or x0 has another shape than x_t.
    """
    weight_x_t, weight_x0 = posterior_coefficients(schedule, t)
    x_t, x0 = as_arrays("x_t (N, D), x0 (N, D)", x_t, x0)
    mean = column(weight_x_t, x_t) * x_t + column(weight_x0, x_t) * x0
    return mean, column(schedule.beta_tilde[t] ** 2, x_t)


def predict_x0(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array) -> Array:
    """x̂_0 = (x_t − β̄_t ε̂)/ᾱ_t, (N, D): (25) solved for x_0 at the total noise ε̂.

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    x_t, eps_hat : (N, D)
    """
    check_time(schedule, t)
    x_t, eps_hat = as_arrays("x_t (N, D), eps_hat (N, D)", x_t, eps_hat)
    return (x_t - column(schedule.beta_bar[t], x_t) * eps_hat) / column(schedule.alpha_bar[t], x_t)


def merge_noise(schedule: NoiseSchedule, t: int | IntArray, eps_bar_prev: Array, eps_t: Array) -> tuple[Array, Array]:
    """The pair (ε, ω), (N, D) each, from the total noise ε̄_{t−1} up to step t−1 and the noise ε_t of step t.

        β̄_t ε = α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t,    β̄_t ω = β_t ε̄_{t−1} − α_t β̄_{t−1} ε_t

    The map is orthogonal and its own inverse.  For independent standard normal ε̄_{t−1} and ε_t, ε and ω are
    independent and standard normal.  The proposition needs independence; E[ε ωᵀ] = 0 implies it only because ε and ω
    are jointly Gaussian.

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    eps_bar_prev, eps_t : (N, D)
        ε̄_{t−1} and ε_t.
    """
    check_time(schedule, t)
    eps_bar_prev, eps_t = as_arrays("eps_bar_prev (N, D), eps_t (N, D)", eps_bar_prev, eps_t)
    cosine = column(schedule.alpha[t] * schedule.beta_bar[np.asarray(t) - 1] / schedule.beta_bar[t], eps_t)
    sine = column(schedule.beta[t] / schedule.beta_bar[t], eps_t)
    return cosine * eps_bar_prev + sine * eps_t, sine * eps_bar_prev - cosine * eps_t


def split_noise(schedule: NoiseSchedule, t: int | IntArray, eps: Array, omega: Array) -> Array:
    """The noise of step t from the merged pair, ε_t = (β_t ε − α_t β̄_{t−1} ω)/β̄_t, (N, D), (27).

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    eps, omega : (N, D)
        ε and ω of `merge_noise`.
    """
    eps, omega = as_arrays("eps (N, D), omega (N, D)", eps, omega)
    return merge_noise(schedule, t, eps, omega)[1]
