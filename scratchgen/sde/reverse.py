"""Equation (32): the reverse SDE, the probability-flow ODE, and Euler-Maruyama steps on any grid of times.

Predictor-corrector sampling (Song et al. 2021) consists of Euler-Maruyama steps, each followed by Langevin steps.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from scratchgen.quadrature import affine_map, integrate
from scratchgen.schedule import sinh_log_snr
from scratchgen.sde.processes import LinearSDE, as_time, check_times
from scratchgen.validation import (
    LARGEST,
    Array,
    as_arrays,
    as_count,
    as_covariances,
    as_number,
    as_real,
    as_stochasticity,
    check_callable,
    check_rng,
)

Score = Callable[[Array, float], Array]  # ∇ log p_t(x) for one t, (N, D): exact or learned


def _as_finite_state(x: Array, t: float) -> Array:
    """Return x, (N, D), the state of a sampler at time t; ArithmeticError if an element is NaN or infinite."""
    if not np.isfinite(x).all():
        raise ArithmeticError(f"x is not finite at t = {t:g}; take more steps, or lower stochasticity")
    return x


def reverse_drift(sde: LinearSDE, score: Array, x: Array, t: float, stochasticity: float = 1.0) -> Array:
    """Drift, (N, D), of dx = [f x − ½(1 + λ²) g² ∇log p_t(x)] dt + λ g dw̄ with dt < 0, (32).

    Parameters
    ----------
    score : (N, D)
        ∇log p_t(x), exact or learned.
    x : (N, D)
    t : float
    stochasticity : float
        λ: 1 gives the reverse SDE, (32), and 0 the probability-flow ODE.  The marginals p_t are the same for every λ.
    """
    t, stochasticity = as_time(sde, t), as_stochasticity(stochasticity)
    score, x = as_arrays("score (N, D), x (N, D)", score, x)
    return sde.drift(x, t) - 0.5 * (1 + stochasticity**2) * float(sde.diffusion(t)) ** 2 * score


def reverse_moments(
    sde: LinearSDE, score: Score, mean: Array, covariance: Array, t_min: float = 0.0, stochasticity: float = 1.0
) -> tuple[Array, Array]:
    """Mean, (D,), and covariance, (D, D), at t_min of (32) started at N(mean, covariance), for a score affine in x.

        dm = (A m + c) dt,   dV = (A V + V Aᵀ − λ² g² I) dt,   dt < 0

    For a drift A(t) x + c(t) the law stays Gaussian.  `reverse_drift` at 0 and at the unit vectors gives A and c.  With
    these moments the left side of (34) is exact for any affine score; a sampler with finitely many steps would add its
    discretisation error.

    Parameters
    ----------
    score : callable
        ∇log p_t(x), affine in x.
    mean, covariance : (D,), (D, D)
        Moments at the horizon.
    t_min : float
        In [0, horizon].
    stochasticity : float
        λ of `reverse_drift`.

    Raises
    ------
    TypeError, ValueError
        If t_min is not in [0, horizon], or stochasticity is not in [0, 1e6].
    ArithmeticError
        If the score is not finite at the horizon, or the integrator fails.
    """
    check_callable(score, "score", "(x (N, D), t) → (N, D)")
    mean, covariance = as_arrays("mean (D)", mean), as_covariances("covariance (D, D)", covariance, D=len(mean))
    t_min = as_time(sde, t_min, "t_min")
    D, stochasticity = len(mean), as_stochasticity(stochasticity)

    def slope(t: float, state: Array) -> Array:
        A, c = affine_map(lambda x: reverse_drift(sde, score(x, t), x, t, stochasticity), D)
        m, V = state[0], state[1:]
        spread = A @ V + V @ A.T - (stochasticity * float(sde.diffusion(t))) ** 2 * np.eye(D)
        return np.concatenate([(A @ m + c)[None], spread])

    t_min = as_number(t_min, "t_min", low=0.0, high=sde.horizon)
    start = np.concatenate([np.asarray(mean, dtype=np.float64)[None], covariance])
    end = integrate(slope, sde.horizon, t_min, start, 1e-12, "the moments", "raise t_min")
    return end[0], end[1:]


def reverse_times(sde: LinearSDE, n_steps: int, t_min: float, detail: float = 0.0) -> Array:
    """n_steps + 1 times from the horizon down to t_min, evenly spaced in log(std²/scale² + detail²).

    Steps become shorter as the noise decreases, until the noise is as small as the `detail` of the data.  Evenly spaced
    times would put most steps where the noise is large.  With detail = 0 the times are evenly spaced in log-SNR.

    Parameters
    ----------
    n_steps : int
    t_min : float
        In (0, horizon), or 0 if detail > 0.
    detail : float
        Standard deviation of the finest structure of the data, in the units of the process.

    Raises
    ------
    TypeError, ValueError
        If n_steps is not a positive integer, detail is negative, or t_min is out of range.
    """
    t_min = as_time(sde, t_min, "t_min")
    detail = as_number(detail, "detail", low=0.0, high=LARGEST)
    t_min = as_number(t_min, "t_min", low=0.0, high=sde.horizon, open_low=detail == 0)
    if t_min == sde.horizon:
        raise ValueError(f"t_min must be below the horizon {sde.horizon}, got {t_min}; pass a smaller t_min")
    scale, std = sde.marginal(np.array([sde.horizon, t_min]))
    first, last = (std / scale) ** 2 + detail**2
    noise = np.geomspace(first, last, as_count(n_steps, "n_steps") + 1) - detail**2
    return np.concatenate([[sde.horizon], sde.time_at(-np.log(noise[1:-1])), [t_min]])


def sinh_times(sde: LinearSDE, n_steps: int, t_min: float) -> Array:
    """n_steps + 1 times from the horizon down to t_min at the log-SNRs of `sinh_log_snr`: the grid of fast samplers.

    The range of log-SNR is that of the process between t_min and the horizon.

    Parameters
    ----------
    sde : LinearSDE
    n_steps : int
    t_min : float
        In (0, horizon).

    Raises
    ------
    TypeError, ValueError
        If n_steps is not a positive integer, or t_min is out of range.
    """
    t_min = as_time(sde, t_min, "t_min", open_low=True)
    if t_min == sde.horizon:
        raise ValueError(f"t_min must be below the horizon {sde.horizon}, got {t_min}; pass a smaller t_min")
    low, high = sde.log_snr(np.array([sde.horizon, t_min]))
    log_snr = sinh_log_snr(low, high, as_count(n_steps, "n_steps") + 1)
    return np.concatenate([[sde.horizon], sde.time_at(log_snr[1:-1]), [t_min]])


def as_times(sde: LinearSDE, times: Array) -> Array:
    """Return times as float64; ValueError unless they are at least two in [0, horizon] that fall strictly, (n+1,)."""
    times = as_real(times, "times").astype(np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
        raise ValueError("times must be a strictly falling 1-D array of at least two times; use reverse_times")
    check_times(sde, times, "times")
    return times


def euler_std(sde: LinearSDE, t: float, s: float, stochasticity: float = 1.0) -> float:
    """Standard deviation λ g(t) √(t − s) of one Euler-Maruyama step of (32) from t to s < t; λ is the stochasticity."""
    t, stochasticity = as_time(sde, t), as_stochasticity(stochasticity)
    s = as_number(s, "s", high=t)  # the reverse process runs towards 0
    return stochasticity * float(sde.diffusion(t)) * (t - s) ** 0.5


def euler_step(
    sde: LinearSDE, score: Array, x: Array, t: float, s: float, stochasticity: float = 1.0
) -> tuple[Array, float]:
    """Mean, (N, D), and standard deviation of one Euler-Maruyama step of (32), x_s = mean + std · z with z ~ N(0, I).

    Parameters
    ----------
    score, x : (N, D)
        ∇log p_t(x), and x at time t.
    t, s : float
        Times, s < t.
    stochasticity : float
        λ of `reverse_drift`.
    """
    t = as_time(sde, t)
    s = as_number(s, "s", high=t)
    score, x = as_arrays("score (N, D), x (N, D)", score, x)
    mean = x + (s - t) * reverse_drift(sde, score, x, t, stochasticity)  # (32)
    return mean, euler_std(sde, t, s, stochasticity)


def langevin_step(sde: LinearSDE, score: Array, x: Array, t: float, snr: float = 0.16) -> tuple[Array, float]:
    """Mean, (N, D), and standard deviation of one Langevin step at time t, x' = mean + std · z with z ~ N(0, I).

        x' = x + δ ∇log p_t(x) + √(2δ) z,    δ = 2 (snr · std(t))²

    p_t is invariant only as δ → 0.  For p_t = N(0, V) a finite δ inflates the variance V to V/(1 − δ/(2V)), which is at
    most V/(1 − snr²).  Steps with snr ≥ 1 would diverge.  Song et al. (2021) use δ = 2 (snr ‖z‖/‖∇log p_t‖)² for VE,
    with norms averaged over the batch.  The two are equal for pure noise.  With std(t) the step of an example does not
    depend on the other examples.

    Parameters
    ----------
    score, x : (N, D)
        ∇log p_t(x), and x.
    t : float
    snr : float
        In [0, 1); 0.16 is the value of Song et al. (2021).
    """
    t = as_time(sde, t)
    score, x = as_arrays("score (N, D), x (N, D)", score, x)
    size = 2 * (as_number(snr, "snr", low=0.0, high=1 - 1e-9) * float(sde.std(t))) ** 2
    return x + size * score, (2 * size) ** 0.5


def euler_maruyama(
    sde: LinearSDE,
    score: Score,
    x: Array,
    times: Array,
    rng: np.random.Generator | None = None,
    noise: Array | None = None,
    stochasticity: float = 1.0,
    n_corrections: int = 0,
    snr: float = 0.16,
) -> Iterator[tuple[float, Array]]:
    """Euler-Maruyama steps of (32), x ← x + drift(x, t) dt + λ g(t) √|dt| z, and Langevin corrections.

    Drift and g are evaluated at the start of each step.  Every step may be followed by `n_corrections` Langevin steps
    at the new time, each with one call of the score.  At the same number of score calls, more steps help more than
    corrections: with the exact score of three Gaussians on a line, KL(p‖p_θ) was 0.0154 nats for 20 steps, 0.0126 for
    20 steps with one correction each, and 0.0036 for 40 steps.  Corrections help if the start or the predictor is
    wrong.

    Parameters
    ----------
    x : (N, D)
        Start, at times[0].
    times : (n+1,)
        Strictly falling.
    rng : Generator, optional
        Source of z; not needed with `noise`, nor for stochasticity 0 without corrections.
    noise : (n, N, D), optional
        z of every step; with corrections (n, 1 + n_corrections, N, D), z of every step and of its corrections.
    stochasticity : float
        λ of `reverse_drift`.
    n_corrections : int
        Langevin steps after every step.
    snr : float
        Size of the Langevin steps, see `langevin_step`.

    Yields
    ------
    t, x_t : float, (N, D)
        At every time.

    Raises
    ------
    ValueError
        If times do not fall strictly, stochasticity is not in [0, 1e6], noise has another shape, or noise is needed and
        neither `rng` nor `noise` is given.
    ArithmeticError
        If x becomes NaN or infinite.
    """
    check_callable(score, "score", "(x (N, D), t) → (N, D)")
    x, noise = as_arrays("x (N, D), noise? (...)", x, noise)
    if rng is not None:
        check_rng(rng)
    times, n_draws = as_times(sde, times), 1 + as_count(n_corrections, "n_corrections", minimum=0)
    stochasticity = as_stochasticity(stochasticity)
    if noise is None and rng is None and (stochasticity != 0 or n_corrections):
        raise ValueError(
            "rng or noise is needed when stochasticity or n_corrections is not 0; pass numpy.random.default_rng(seed)"
        )
    shape = (len(times) - 1, n_draws, *x.shape) if n_corrections else (len(times) - 1, *x.shape)
    if noise is not None and noise.shape != shape:
        raise ValueError(f"noise must have shape {shape}, got {noise.shape}")
    draws = None if noise is None else noise.reshape(len(times) - 1, n_draws, *x.shape)
    yield float(times[0]), x
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        with np.errstate(over="ignore", invalid="ignore"):  # _as_finite_state finds the result of an overflow
            for k in range(n_draws):
                if k == 0:
                    x, std = euler_step(sde, score(x, t), x, t, s, stochasticity)
                else:
                    x, std = langevin_step(sde, score(x, s), x, s, snr)
                if draws is not None:
                    x = x + std * draws[i, k]
                elif std != 0 and rng is not None:
                    x = x + std * rng.standard_normal(x.shape, dtype=x.dtype)
        yield s, _as_finite_state(x, s)
