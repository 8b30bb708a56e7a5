"""The reference chain of the checks: a composition of single diffusion steps; the coefficients of linear maps.

Only the variances of the schedule are used, never the tables and closed forms under test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array

EpsHat = Callable[[Array, int], Array]


class Steps(NamedTuple):
    """x_t = alpha x_{t−1} + √variance ε_t, composed to x_t = scale x_0 + √total ε; every array has length T+1."""

    alpha: Array
    variance: Array
    scale: Array
    total: Array

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.alpha) - 1

    @property
    def posterior(self) -> Array:
        """Variance of q(x_{t−1} | x_t, x_0), the inverse of the precision α²/β² + 1/β̄²_{t−1}; 0 up to t = 1."""
        out = np.zeros(self.T + 1)
        out[2:] = 1 / (self.alpha[2:] ** 2 / self.variance[2:] + 1 / self.total[1:-1])
        return out


def compose(schedule: NoiseSchedule) -> Steps:
    """Compose the steps one by one: scale ← α scale, total ← α² total + β²."""
    variance = np.concatenate([[0.0], schedule.variances])
    alpha = np.sqrt(1 - variance)
    scale, total = [1.0], [0.0]
    for a, v in zip(alpha[1:], variance[1:], strict=True):
        scale.append(a * scale[-1])
        total.append(a**2 * total[-1] + v)
    return Steps(alpha, variance, np.array(scale), np.array(total))


def coefficients(f: Callable[..., ArrayLike], n_arguments: int) -> list[float]:
    """The coefficients (c_1, …, c_n, c_0, bend) of f(u_1, …, u_n) = Σ c_i u_i + c_0, read off at 0 and at unit vectors.

    `bend` is the largest relative deviation from this linear map at three points of ±5.  A function that clips is
    linear near 0 and has bend > 0.  A deviation below 1e-12 is rounding and counts as 0.
    """
    far = 5 * np.stack([np.ones(n_arguments), -np.ones(n_arguments), (-1.0) ** np.arange(n_arguments)])
    rows = np.concatenate([np.eye(n_arguments), np.zeros((1, n_arguments)), far])
    image = returned(f(*(rows[:, [i]] for i in range(n_arguments))), (len(rows), 1), "the function under test")[:, 0]
    slopes, constant = image[:n_arguments] - image[n_arguments], float(image[n_arguments])
    departure = np.abs(image[n_arguments + 1 :] - far @ slopes - constant).max()
    bend = float(departure / (1e-300 + 5 * np.abs(slopes).sum() + abs(constant)))
    return [*slopes.tolist(), constant, 0.0 if bend < 1e-12 else bend]


def factors(*columns: Array) -> Array:
    """The expected result of `coefficients`, one row per step: the given factors, constant 0, bend 0."""
    nothing = np.zeros_like(columns[0])
    return np.column_stack([*columns, nothing, nothing])


def shifted(table: Array) -> Array:
    """The table delayed by one step, as if padded on the wrong side."""
    return np.concatenate([table[:1], table[:-1]])


def reverse_mean(steps: Steps) -> Array:
    """The factors of x_t and ε̂ in the mean of p_θ(x_{t−1} | x_t), (T, 2): the posterior mean at x̂_0(ε̂)."""
    alpha, v, scale, total = steps.alpha[1:], steps.variance[1:], steps.scale, steps.total
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = steps.posterior[1:, None] * np.stack([alpha / v, scale[:-1] / total[:-1]], axis=1)
    weights[0] = [0.0, 1.0]
    return np.stack(
        [weights[:, 0] + weights[:, 1] / scale[1:], -weights[:, 1] * np.sqrt(total[1:]) / scale[1:]], axis=1
    )
