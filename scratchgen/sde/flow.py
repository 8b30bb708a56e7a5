"""The probability flow as an ODE: Heun's method on a grid, and an adaptive integrator of high order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scratchgen.sde.integration import integrate
from scratchgen.sde.processes import LinearSDE
from scratchgen.sde.reverse import Score, check_times, reverse_drift
from scratchgen.validation import Array


def heun(sde: LinearSDE, score: Score, x: Array, times: Array) -> Iterator[tuple[float, Array]]:
    """Yield (t, x_t) along falling `times`, (n+1,), by Heun's method on (32) with churn 0, error O(1/n²).

        x' = x + d(x, t) dt,   x ← x + ½ [d(x, t) + d(x', s)] dt

    Two calls of the score a step, at both ends of it; x is (N, D), at times[0].
    """
    times = check_times(times)
    yield float(times[0]), x
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        slope = reverse_drift(sde, score, x, t, churn=0.0)
        ahead = reverse_drift(sde, score, x + (s - t) * slope, s, churn=0.0)
        x = x + 0.5 * (s - t) * (slope + ahead)
        yield s, x


def flow_map(sde: LinearSDE, score: Score, x: Array, t: float, s: float, rtol: float = 1e-6) -> Array:
    """Where the flow carries x (N, D) from time t to time s, in either direction, (N, D), to about `rtol`."""
    shape = x.shape

    def slope(time: float, state: Array) -> Array:
        return reverse_drift(sde, score, state.reshape(shape), time, churn=0.0).ravel()

    start = x.astype(np.float64).ravel()
    return integrate(slope, t, s, start, rtol, 0.1 * rtol, "the flow", "raise t_min or rtol").reshape(shape)
