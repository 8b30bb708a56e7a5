"""Equation (32): the reverse SDE, its deterministic twin, and Euler-Maruyama on any grid of times."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from scratchgen.quadrature import affine_map
from scratchgen.sde.integration import integrate
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array, as_count, as_number

Score = Callable[[Array, float], Array]  # ∇ log p_t(x) for one t, (N, D): exact or learned


def reverse_drift(sde: LinearSDE, score: Score, x: Array, t: float, churn: float = 1.0) -> Array:
    """Drift of dx = [f − ½(1 + churn²) g² ∇log p_t] dt + churn · g dw̄, where time runs backwards (dt < 0).

    churn = 1 is the reverse SDE, (32); churn = 0 the probability-flow ODE; every churn has the same marginals.
    """
    return sde.drift(x, t) - 0.5 * (1 + churn**2) * float(sde.diffusion(t)) ** 2 * score(x, t)


def reverse_moments(
    sde: LinearSDE, score: Score, mean: Array, covariance: Array, t_min: float = 0.0, churn: float = 1.0
) -> tuple[Array, Array]:
    """Mean (D,) and covariance (D, D) at t_min of (32) started at N(mean, covariance), for a score affine in x.

    Where the drift is A(t) x + c(t) the law stays Gaussian, dm = (A m + c) dt and dV = (A V + V Aᵀ − churn² g² I) dt
    with dt < 0; A and c are read off `reverse_drift` at 0 and at the unit vectors.  It is the exact left side of (34)
    for a wrong affine score, where a sampler of finitely many steps would add its own error.
    """
    D = len(mean)

    def slope(t: float, state: Array) -> Array:
        A, c = affine_map(lambda x: reverse_drift(sde, score, x, t, churn), D)
        V = state[D:].reshape(D, D)
        spread = A @ V + V @ A.T - (churn * float(sde.diffusion(t))) ** 2 * np.eye(D)
        return np.concatenate([A @ state[:D] + c, spread.ravel()])

    t_min = as_number(t_min, "t_min", low=0.0, high=sde.horizon)
    start = np.concatenate([np.asarray(mean, dtype=np.float64), np.ravel(covariance)])
    end = integrate(slope, sde.horizon, t_min, start, 1e-11, 1e-13, "the moments", "raise t_min")
    return end[:D], end[D:].reshape(D, D)


def reverse_times(sde: LinearSDE, n_steps: int, t_min: float, detail: float = 0.0) -> Array:
    """n_steps + 1 times from the horizon down to t_min, evenly spaced in log(std²/scale² + detail²).

    Steps shrink with the noise that is left, down to where it is as fine as the data's own `detail`; evenly spaced
    times would waste most of them at the noisy end.  With detail = 0 they are even in log-SNR.

    Parameters
    ----------
    t_min : float
        In (0, horizon), or 0 if detail > 0.
    detail : float
        Standard deviation of the data's finest structure, in the units of the process.
    """
    detail = as_number(detail, "detail", low=0.0)
    t_min = as_number(t_min, "t_min", low=0.0, high=sde.horizon, open_low=detail == 0)
    if t_min == sde.horizon:
        raise ValueError(f"t_min must be below the horizon {sde.horizon}, got {t_min}: there is no time between them")
    scale, std = sde.marginal(np.array([sde.horizon, t_min]))
    first, last = (std / scale) ** 2 + detail**2
    noise = np.geomspace(first, last, as_count(n_steps, "n_steps") + 1) - detail**2
    times = np.empty_like(noise)
    times[0], times[-1] = sde.horizon, t_min
    times[1:-1] = sde.time_at(-np.log(noise[1:-1]))
    return times


def check_times(times: Array) -> Array:
    """A grid of falling times, float64."""
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
        raise ValueError("times must be a strictly falling 1-D array of at least two times, as reverse_times returns")
    return times


def euler_std(sde: LinearSDE, t: float, s: float, churn: float = 1.0) -> float:
    """Standard deviation churn · g(t) √(t − s) of one Euler-Maruyama step of (32) from t down to s."""
    return churn * float(sde.diffusion(t)) * (t - s) ** 0.5


def euler_step(sde: LinearSDE, score: Score, x: Array, t: float, s: float, churn: float = 1.0) -> tuple[Array, float]:
    """Mean (N, D) and standard deviation of one Euler-Maruyama step of (32) from t down to s: x_s = mean + std · z."""
    mean = x + (s - t) * reverse_drift(sde, score, x, t, churn)
    return mean, euler_std(sde, t, s, churn)


def euler_maruyama(
    sde: LinearSDE,
    score: Score,
    x: Array,
    times: Array,
    rng: np.random.Generator | None = None,
    noise: Array | None = None,
    churn: float = 1.0,
) -> Iterator[tuple[float, Array]]:
    """Yield (t, x_t) along falling `times`: x ← x + drift(x, t) dt + churn · g(t) √|dt| z.

    The drift and g are taken at the time that a step leaves, so the grid that is stepped is the grid that is
    evaluated.

    Parameters
    ----------
    x : (N, D)
        Start, at times[0].
    times : (n+1,)
        Strictly falling.
    rng : Generator
        Source of z; not needed with `noise` or with churn = 0.
    noise : (n, N, D), optional
        z of every step.
    churn : float
        As for `reverse_drift`.

    Raises
    ------
    ValueError
        If times do not fall, or noise is needed and neither `rng` nor `noise` is given.
    """
    times = check_times(times)
    if churn != 0 and rng is None and noise is None:
        raise ValueError("rng or noise is needed when churn is not 0; pass numpy.random.default_rng(seed)")
    if noise is not None and noise.shape != (len(times) - 1, *x.shape):
        raise ValueError(f"noise must have shape {(len(times) - 1, *x.shape)}, got {noise.shape}")
    yield float(times[0]), x
    for i, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        x, std = euler_step(sde, score, x, t, s, churn)
        if noise is not None:
            x = x + std * noise[i]
        elif churn != 0 and rng is not None:
            x = x + std * rng.standard_normal(x.shape, dtype=x.dtype)
        yield s, x
