"""What a network may predict of x_t = ᾱ_t x_0 + β̄_t ε, each exactly convertible into the others.

    "noise"   ε, the total noise (Ho's ε_θ)
    "x0"      x_0, clean data
    "v"       v = ᾱ_t ε − β̄_t x_0  (Salimans and Ho 2022)
    "step"    E[ε_t | x_t] = (β_t/β̄_t) ε, the noise of one step: the deck's own ε_θ, (26)

Given x_t, every one of them is an affine function of ε.
"""

from __future__ import annotations

from scratchgen.ddpm.kernels import at, check_shapes, check_time
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray, as_choice

PREDICTIONS = ("noise", "x0", "v", "step")


def noise_from(schedule: NoiseSchedule, t: int | IntArray, kind: str) -> tuple[Array | float, Array | float]:
    """(skip, gain) of ε̂ = skip · x_t + gain · prediction; numbers, or (N, 1) for t of shape (N,).

    noise: (0, 1);   x0: (1, −ᾱ_t)/β̄_t;   v: (β̄_t, ᾱ_t);   step: (0, β̄_t/β_t)
    """
    check_time(schedule, t)
    as_choice(kind, "kind", PREDICTIONS)
    alpha_bar, beta_bar = at(schedule.alpha_bar, t), at(schedule.beta_bar, t)
    if kind == "noise":
        return 0.0, 1.0
    if kind == "x0":
        return 1 / beta_bar, -alpha_bar / beta_bar
    if kind == "v":
        return beta_bar, alpha_bar
    return 0.0, beta_bar / at(schedule.beta, t)


def to_noise(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, prediction: Array, kind: str) -> Array:
    """The ε̂ that a prediction of this kind stands for, (N, D)."""
    check_shapes("prediction", prediction, "x_t", x_t)
    skip, gain = noise_from(schedule, t, kind)
    return skip * x_t + gain * prediction


def from_noise(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array, kind: str) -> Array:
    """The prediction of this kind that ε̂ stands for, (N, D): the inverse of `to_noise`."""
    check_shapes("eps_hat", eps_hat, "x_t", x_t)
    skip, gain = noise_from(schedule, t, kind)
    return (eps_hat - skip * x_t) / gain
