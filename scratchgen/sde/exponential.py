"""Exponential integrators of the reverse process: DDIM, DPM-Solver++(2M) and their stochastic forms in one step.

With λ = log(scale/std) the reverse process is linear in x but for the denoiser E[x_0 | x_t].  The linear part is solved
exactly; only the denoiser is held fixed over a step, or extrapolated from the last step (Lu et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from scratchgen.validation import (
    Array,
    as_arrays,
    as_number,
    as_real,
    as_stochasticity,
    check_callable,
    check_flag,
    check_rng,
    check_shapes,
)

Level = tuple[float, float]  # (scale, std)


def as_level(level: Level, name: str) -> Level:
    """Return (scale, std) as floats; ValueError unless level holds two numbers."""
    if not isinstance(level, tuple | list) or len(level) != 2:
        raise ValueError(f"{name} must be (scale, std), two numbers, got {level!r:.60}")
    return as_number(level[0], f"scale of {name}"), as_number(level[1], f"std of {name}")


def log_ratio_step(level: Level, next_level: Level) -> float:
    """h = λ_s − λ_t with λ = log(scale/std), from level t to next_level s; inf for std = 0 at s.

    Raises
    ------
    ValueError
        If a scale or the std of level is not positive and finite, or next_level has not less noise than level.
    """
    (scale_t, std_t), (scale_s, std_s) = as_level(level, "level"), as_level(next_level, "next_level")
    finite = bool(np.isfinite([*level, *next_level]).all())
    if not (finite and scale_t > 0 < scale_s and std_t > 0 <= std_s and std_s / scale_s < std_t / scale_t):
        raise ValueError(f"std/scale must be positive and fall from level to next_level, got {level} and {next_level}")
    return float(np.log(scale_s / scale_t) + np.log(std_t / std_s)) if std_s > 0 else float("inf")


def exponential_step(
    x: Array,
    x0_hat: Array,
    level: Level,
    next_level: Level,
    stochasticity: float = 0.0,
    noise: Array | None = None,
    last: tuple[Array, float] | None = None,
) -> Array:
    """One step from x_t to x_s, (N, D), with h = λ_s − λ_t and the stochasticity c.

        D   = x̂_0 + (h/2h_last)(x̂_0 − x̂_0,last)                     or x̂_0 without `last`
        x_s = (std_s/std_t) e^(−c²h) x_t − scale_s expm1(−(1+c²)h) D + std_s √(−expm1(−2c²h)) z

    c = 0 without `last` is DDIM (η = 0), the exponential Euler step; with `last` it is DPM-Solver++(2M), of order 2 (Lu
    et al. 2022).  c = 1 without `last` is the exact draw of q(x_s | x_t, x_0 = x̂_0), DDIM with η = 1; with `last` it is
    SDE-DPM-Solver++(2M).  At std_s = 0 the step is scale_s x̂_0: h is infinite, and nothing can be extrapolated.

    Parameters
    ----------
    x, x0_hat : (N, D)
        x_t, and the denoiser E[x_0 | x_t] at it.
    level, next_level : (scale, std)
        At t and at s, with less noise at s.
    stochasticity : float
        c: 0 for the flow, 1 for the reverse SDE, as for `reverse_drift`.
    noise : (N, D), optional
        z, needed for c > 0.
    last : (x̂_0 (N, D), h), optional
        Denoiser and h of the step before.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, next_level has not less noise than level, c is not in [0, 1e6], or c > 0 without noise.
    """
    x, x0_hat, noise = as_arrays("x (N, D), x0_hat (N, D), noise? (N, D)", x, x0_hat, noise)
    c2, h = as_stochasticity(stochasticity) ** 2, log_ratio_step(level, next_level)
    if c2 > 0 and noise is None:
        raise ValueError("noise is needed for stochasticity > 0; pass standard normal noise of x's shape")
    (_, std_t), (scale_s, std_s) = level, next_level
    if std_s == 0:
        return float(scale_s) * x0_hat
    if last is not None:
        if not isinstance(last, tuple) or len(last) != 2:
            raise ValueError(f"last must be (x0_hat, h) of the step before, got {last!r:.60}")
        as_number(last[1], "h of last", low=0.0, open_low=True)
        check_shapes("x0_hat of the last step", last[0], "x", x)
        x0_hat = x0_hat + h / (2 * float(last[1])) * (x0_hat - last[0])
    x_s = float(std_s / std_t * np.exp(-c2 * h)) * x - float(scale_s * np.expm1(-(1 + c2) * h)) * x0_hat
    if noise is None:
        return x_s
    return x_s + float(std_s * np.sqrt(-np.expm1(-2 * c2 * h))) * noise


def exponential_sampler(
    denoise: Callable[[Array, float, float], Array],
    x: Array,
    levels: Array,
    rng: np.random.Generator | None = None,
    stochasticity: float = 0.0,
    multistep: bool = True,
) -> Iterator[tuple[int, Array]]:
    """Exponential steps along falling noise levels; the first step is of order 1, and so is one to std = 0.

    Parameters
    ----------
    denoise : callable
        (x_t (N, D), scale, std) → x̂_0 (N, D).
    x : (N, D)
        Start, at levels[0].
    levels : (n+1, 2)
        (scale, std) of every level, with falling std/scale; the last std may be 0.
    rng : Generator, optional
        Source of z, needed for stochasticity > 0.
    stochasticity : float
        c of `exponential_step`.
    multistep : bool
        Extrapolate the denoiser from the step before: DPM-Solver++(2M) in place of DDIM for c = 0.

    Yields
    ------
    i, x : int, (N, D)
        At levels[i], for i = 0..n.

    Raises
    ------
    ValueError
        If levels have another shape or do not fall, or stochasticity > 0 without rng.
    """
    check_callable(denoise, "denoise", "(x_t (N, D), scale, std) → (N, D)")
    x, levels = as_arrays("x (N, D)", x), as_real(levels, "levels")
    stochasticity = as_stochasticity(stochasticity)
    check_flag(multistep, "multistep")
    if rng is not None:
        check_rng(rng)
    if levels.ndim != 2 or levels.shape[1] != 2 or len(levels) < 2:
        raise ValueError(f"levels must have shape (n+1, 2) with n >= 1, one (scale, std) a row, got {levels.shape}")
    if stochasticity > 0 and rng is None:
        raise ValueError("rng is needed for stochasticity > 0; pass numpy.random.default_rng(seed)")
    if not (np.isfinite(levels).all() and (levels[:, 0] > 0).all()):
        raise ValueError(f"levels must hold finite scales above 0 and finite stds, got {levels}")
    if (np.diff(levels[:, 1] / levels[:, 0]) >= 0).any():
        raise ValueError("levels must have a falling std/scale; reverse their order")
    last: tuple[Array, float] | None = None
    yield 0, x
    for i, (level, next_level) in enumerate(pairwise([(float(a), float(b)) for a, b in levels])):
        x0_hat = as_arrays("denoise (N, D)", denoise(x, *level), N=len(x), D=x.shape[1])
        noise = rng.standard_normal(x.shape, dtype=x.dtype) if stochasticity > 0 and rng is not None else None
        x = exponential_step(x, x0_hat, level, next_level, stochasticity, noise, last)
        last = (x0_hat, log_ratio_step(level, next_level)) if multistep else None
        yield i + 1, x
