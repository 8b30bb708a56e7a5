"""The probability-flow ODE: Heun's method, an adaptive integrator of high order, and the likelihood of the flow."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from scratchgen.quadrature import integrate
from scratchgen.sde.processes import LinearSDE, as_time
from scratchgen.sde.reverse import Score, as_times, reverse_drift
from scratchgen.validation import Array, as_arrays, check_callable


def as_pair(value: Any, x: Array) -> tuple[Array, Array]:
    """Return the value of `score_and_divergence` at x, (N, D); TypeError or ValueError unless it is (N, D) and (N,)."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(
            f"score_and_divergence must return (score, divergence), got {type(value).__name__}; return both"
        )
    shapes = "score_and_divergence (N, D), score_and_divergence (N)"
    score, divergence = as_arrays(shapes, *value, N=len(x), D=x.shape[1])
    return score, divergence


def heun(sde: LinearSDE, score: Score, x: Array, times: Array) -> Iterator[tuple[float, Array]]:
    """Heun's method for the probability-flow ODE, (32) with stochasticity 0; error O(1/n²) for n steps.

        x' = x + d(x, t) dt,   x ← x + ½ [d(x, t) + d(x', s)] dt,   dt = s − t

    d is `reverse_drift`.  A step calls the score twice, at its start and at its end.

    Parameters
    ----------
    x : (N, D)
        Start, at times[0].
    times : (n+1,)
        Strictly falling.

    Yields
    ------
    t, x_t : float, (N, D)
        At every time.

    Raises
    ------
    ValueError
        If times do not fall strictly.
    """
    check_callable(score, "score", "(x (N, D), t) → (N, D)")
    x = as_arrays("x (N, D)", x)
    times = as_times(sde, times)
    yield float(times[0]), x
    for t, s in pairwise(times.tolist()):
        slope = reverse_drift(sde, score(x, t), x, t, stochasticity=0.0)
        x_s = x + (s - t) * slope
        ahead = reverse_drift(sde, score(x_s, s), x_s, s, stochasticity=0.0)
        x = x + 0.5 * (s - t) * (slope + ahead)
        yield s, x


def flow_map(sde: LinearSDE, score: Score, x: Array, t: float, s: float, rtol: float = 1e-6) -> Array:
    """Solution at time s, (N, D), of the probability-flow ODE from x, (N, D), at time t, in either direction of time.

    Parameters
    ----------
    rtol : float
        Relative tolerance of the adaptive integrator (DOP853), which every row keeps.

    Raises
    ------
    TypeError, ValueError
        If rtol is not a positive number.
    ArithmeticError
        If the score is not finite at the start, or the integrator fails.
    """
    check_callable(score, "score", "(x (N, D), t) → (N, D)")
    t, s, x = as_time(sde, t), as_time(sde, s, "s"), as_arrays("x (N, D)", x)

    def slope(time: float, x: Array) -> Array:
        return reverse_drift(sde, score(x, time), x, time, stochasticity=0.0)

    return integrate(slope, t, s, x.astype(np.float64), rtol, "the flow", "raise t_min or rtol")


def probability_flow_log_prob(
    sde: LinearSDE,
    score_and_divergence: Callable[[Array, float], tuple[Array, Array]],
    x: Array,
    t_min: float = 0.0,
    rtol: float = 1e-6,
) -> Array:
    """log p^ODE(x), (N,), nats: exact log-likelihood of the probability flow dx/dt = f̃ = f x − ½g² s_θ.

        log p(x) = log π(x_T) + ∫ div f̃ dt  along the path from x at t_min to x_T

    Parameters
    ----------
    score_and_divergence : callable
        (x, t) → (s_θ (N, D), div s_θ (N,)).
    x : (N, D)
    t_min : float
        Time of the density.
    rtol : float
        Relative tolerance of the adaptive integrator (DOP853), which every row keeps.  Measured errors of log p were
        about rtol/10.

    Raises
    ------
    TypeError, ValueError
        If rtol is not a positive number.
    ArithmeticError
        If the score is not finite at t_min, or the integrator fails.
    """
    check_callable(score_and_divergence, "score_and_divergence", "(x (N, D), t) → (N, D) and (N,)")
    t_min, x = as_time(sde, t_min, "t_min"), as_arrays("x (N, D)", x)
    D = x.shape[1]

    def slope(t: float, state: Array) -> Array:
        points = state[:, :D]
        score, divergence = as_pair(score_and_divergence(points, t), points)
        velocity = reverse_drift(sde, score, points, t, stochasticity=0.0)
        spread = D * float(sde.rate(t)) - 0.5 * float(sde.diffusion(t)) ** 2 * divergence  # divergence of the velocity
        return np.column_stack([velocity, spread])

    start = np.column_stack([x.astype(np.float64), np.zeros(len(x))])
    end = integrate(slope, t_min, sde.horizon, start, rtol, "the probability flow", "raise t_min or rtol")
    return sde.prior_log_prob(end[:, :D]) + end[:, D]
