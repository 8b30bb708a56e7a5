"""Equations (19), (25), (27): the forward kernels, the posterior and the merging of noise, each on given noise.

t counts 1..T as in the deck, index 0 is clean data; t is an int or one int an example.  Nothing here draws random
numbers: `noise` comes in, so that expectations can be exact and frameworks compared bit by bit.
"""

from __future__ import annotations

import numpy as np

from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray


def factor(value: Array | float) -> Array | float:
    """A number or (N,), shaped to multiply (N, D) arrays: a float, or (N, 1).

    A Python float, unlike a NumPy number, leaves float32 arrays float32.
    """
    return np.asarray(value)[:, None] if np.ndim(value) else float(value)


def at(table: Array, t: int | IntArray) -> Array | float:
    """table[t] as a `factor`."""
    return factor(table[t])


def check_time(schedule: NoiseSchedule, t: int | IntArray, name: str = "t", first: int = 1) -> None:
    """Refuse steps outside first..T, which NumPy would wrap or misread as another step."""
    steps = np.asarray(t)
    if steps.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an int or an int array of steps, got dtype {steps.dtype}")
    if steps.ndim > 1:
        raise ValueError(f"{name} must be an int or have shape (N,), got shape {steps.shape}")
    if steps.size and (steps.min() < first or steps.max() > schedule.T):
        raise ValueError(
            f"{name} must be in {first}..{schedule.T} (index 0 is clean data), got {steps.min()}..{steps.max()}"
        )


def check_shapes(name: str, array: Array, like_name: str, like: Array) -> None:
    """Refuse arrays of different shapes, which NumPy would broadcast: noise (D,) would be one draw for all examples."""
    if np.shape(array) != np.shape(like):
        raise ValueError(f"{name} must have the shape of {like_name}, {np.shape(like)}, got {np.shape(array)}")


def q_step(schedule: NoiseSchedule, t: int | IntArray, x_prev: Array, noise: Array) -> Array:
    """One forward step, x_t = α_t x_{t−1} + β_t ε_t, arrays (N, D); the deck's slide omits ε_t."""
    check_time(schedule, t)
    check_shapes("noise", noise, "x_prev", x_prev)
    return at(schedule.alpha, t) * x_prev + at(schedule.beta, t) * noise


def q_sample(schedule: NoiseSchedule, t: int | IntArray, x0: Array, noise: Array) -> Array:
    """All steps at once, x_t = ᾱ_t x_0 + β̄_t ε, i.e. q(x_t | x_0) = N(ᾱ_t x_0, β̄_t² I), (25)."""
    check_time(schedule, t)
    check_shapes("noise", noise, "x0", x0)
    return at(schedule.alpha_bar, t) * x0 + at(schedule.beta_bar, t) * noise


def q_posterior(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, x0: Array) -> tuple[Array, Array | float]:
    """q(x_{t−1} | x_t, x_0) = q(x_t | x_{t−1}) q(x_{t−1} | x_0)/q(x_t | x_0), a Gaussian.

        mean (α_t β̄²_{t−1} x_t + ᾱ_{t−1} β_t² x_0)/β̄_t²,   variance β̃_t²

    Three factors, where the deck names two.

    Returns
    -------
    mean : (N, D)
    variance : a number, or (N, 1) for t of shape (N,)
        0 at t = 1, where the posterior is a point mass at x_0.
    """
    check_time(schedule, t)
    check_shapes("x0", x0, "x_t", x_t)
    previous = np.asarray(t) - 1
    beta_bar_squared = at(schedule.beta_bar, t) ** 2
    weight_x_t = at(schedule.alpha, t) * at(schedule.beta_bar, previous) ** 2 / beta_bar_squared
    weight_x0 = at(schedule.alpha_bar, previous) * at(schedule.beta, t) ** 2 / beta_bar_squared
    return weight_x_t * x_t + weight_x0 * x0, at(schedule.beta_tilde, t) ** 2


def predict_x0(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array) -> Array:
    """The x_0 that total noise ε̂ implies, (x_t − β̄_t ε̂)/ᾱ_t: (25) solved for x_0."""
    check_time(schedule, t)
    check_shapes("eps_hat", eps_hat, "x_t", x_t)
    return (x_t - at(schedule.beta_bar, t) * eps_hat) / at(schedule.alpha_bar, t)


def merge_noise(schedule: NoiseSchedule, t: int | IntArray, eps_bar_prev: Array, eps_t: Array) -> tuple[Array, Array]:
    """(ε, ω) from the noise ε̄_{t−1} up to t−1 and the noise ε_t of step t.

        β̄_t ε = α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t,    β̄_t ω = β_t ε̄_{t−1} − α_t β̄_{t−1} ε_t

    An orthogonal map that is its own inverse, so that (ε, ω) is standard normal if the inputs are: not only
    E[ε ωᵀ] = 0 but independence, which the proposition needs and which holds because both are jointly Gaussian.
    """
    check_time(schedule, t)
    check_shapes("eps_t", eps_t, "eps_bar_prev", eps_bar_prev)
    cosine = at(schedule.alpha, t) * at(schedule.beta_bar, np.asarray(t) - 1) / at(schedule.beta_bar, t)
    sine = at(schedule.beta, t) / at(schedule.beta_bar, t)
    return cosine * eps_bar_prev + sine * eps_t, sine * eps_bar_prev - cosine * eps_t


def split_noise(schedule: NoiseSchedule, t: int | IntArray, eps: Array, omega: Array) -> Array:
    """ε_t = (β_t ε − α_t β̄_{t−1} ω)/β̄_t, (27): the noise of one step from the merged pair."""
    check_shapes("omega", omega, "eps", eps)
    return merge_noise(schedule, t, eps, omega)[1]
