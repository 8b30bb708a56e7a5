"""Checks of equations (30)-(31): the SDE and its discretisation.

The callables belong to one instance: their SDE is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, returned, takes_arrays
from scratchgen.conformance.result import Check, Mistakes, compare, worst
from scratchgen.conformance.returns import numbers, several
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array

EPS = float(np.finfo(np.float64).eps)
NODES = 24, 40  # of Gauss-Legendre between two times; the difference of the two results enters the tolerance
LARGEST_ERROR = 1e-6  # of a quadrature in a tolerance; a larger one would hide mistakes


def number(value: Any, what: str) -> float:
    """Convert the return value of a callable under test to a float; raise ValueError if it is not one number."""
    array = numbers(value, f"{what} must be one number for a time that is a number")
    if array.size != 1:
        raise ValueError(f"{what} must be one number for a time that is a number, got shape {array.shape}")
    return float(array.reshape(()))


def by_array(f: Callable[..., Any], shape: tuple[int, ...], *arguments: Any) -> Array | None:
    """f(*arguments) for an array of times, as float64; None if f takes numbers only: it raises or has another shape."""
    try:
        value = np.asarray(f(*arguments), dtype=np.float64)
    except Exception:  # any error of code that is written for one time
        return None
    return value if value.shape == shape else None


def moments(f: Array, g_squared: Array, scale: float, std: float, times: Array) -> Array:
    """(scale, std) at the times, (n, 2): d scale = f scale dt, d std² = (2 f std² + g²) dt from the start at t = 0.

    f and g_squared, (n, M), are the values at the Gauss-Legendre nodes of the n intervals between 0 and the times.
    """
    nodes, weights = np.polynomial.legendre.leggauss(f.shape[1])
    variance, path = std**2, []
    for f_here, g_here, (start, end) in zip(f, g_squared, pairwise([0.0, *times]), strict=True):
        half = 0.5 * (end - start)
        integral = np.polynomial.legendre.legint(
            half * np.polynomial.legendre.legfit(nodes, f_here, len(nodes) - 1), lbnd=-1
        )
        to_end = np.polynomial.legendre.legval(1.0, integral)  # ∫f over the interval
        remaining = to_end - np.polynomial.legendre.legval(nodes, integral)
        scale, variance = (
            scale * np.exp(to_end),
            variance * np.exp(2 * to_end) + half * weights @ (np.exp(2 * remaining) * g_here),
        )
        path.append([scale, np.sqrt(np.maximum(variance, 0.0))])
    return np.array(path)


def time_nodes(times: Array, n: int) -> Array:
    """The n Gauss-Legendre nodes of every interval between 0 and the times, (len(times), n)."""
    nodes, _ = np.polynomial.legendre.leggauss(n)
    starts = np.concatenate([[0.0], times[:-1]])
    return starts[:, None] + 0.5 * (times - starts)[:, None] * (nodes + 1)


@takes_arrays
def check_sde(
    marginal: Callable[[float], tuple[ArrayLike, ArrayLike]],
    drift: Callable[[Array, float], ArrayLike],
    diffusion: Callable[[float], ArrayLike],
    horizon: float,
) -> Check:
    """(31): scale and std of x_t = scale · x_0 + std · ε solve the equations of the moments of the SDE.

        d scale = f scale dt,   d std² = (2 f std² + g²) dt

    The right side is their solution by quadrature, from f and g alone.  Its start at t = 0 is (1, 0).  A small std(0)
    is accepted, for processes that start at a noise level: std(0) = sigma_min with scale 1, or scale² + std² = 1.

    Parameters
    ----------
    marginal : callable
        marginal(t) → (scale, std).
    drift : callable
        drift(x (N, D), t) → f(t) x, (N, D).
    diffusion : callable
        diffusion(t) → g(t).
    horizon : float
        The last time T.  Times of the check lie in [0, 0.9 T].

    Returns
    -------
    Check
        The largest of four residuals: the start; the linearity of the drift in D = 3, also for points with coordinates
        beyond ±10; an array of times in the place of a number, where the callables accept one; scale and std, relative.
        Tolerance 1e-13, or 64 ε (scale/std)², the rounding of 1 − scale², if that is larger, plus the error of the
        quadrature.
    """
    for f, usage in (marginal, "marginal(t)"), (drift, "drift(x, t)"), (diffusion, "diffusion(t)"):
        check_callable(f, usage)
    name, times = "check_sde", horizon * np.array([0.07, 0.2, 0.45, 0.7, 0.9])
    probes = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0], [-1.5, 4.0, -0.7], [12.0, -15.0, 7.0], [-13.0, 0.3, 25.0]])

    def level(t: float) -> list[float]:
        return [number(part, "scale and std") for part in several(marginal(t), 2, "marginal")]

    def g(t: float) -> float:
        return number(diffusion(t), "diffusion")

    def drift_at(t: float) -> Array:
        return returned(drift(probes, t), probes.shape, "drift")

    def rate(t: float) -> float:
        near = probes[:3]
        return float((drift_at(t)[:3] * near).sum() / (near**2).sum())

    def tabulated(n: int) -> tuple[Array, Array]:
        nodes = time_nodes(times, n)
        return tuple(np.vectorize(h, otypes=[float])(nodes) for h in (rate, lambda t: g(t) ** 2))

    left = np.array([level(t) for t in times.tolist()])
    scale_0, std_0 = level(0.0)
    clean = not 0 <= std_0 <= 0.1 * left[-1, 1]
    begin = 0.0 if clean else std_0
    preserving = abs(scale_0**2 + begin**2 - 1) < 1e-6 and scale_0 < 1
    start = (np.sqrt(1 - begin**2) if preserving else 1.0), begin
    table = tabulated(NODES[1])
    coarse, fine = moments(*tabulated(NODES[0]), *start, times), moments(*table, *start, times)
    shrinks = fine[:, 0] < 1
    condition = ((fine[:, 0] / fine[:, 1]) ** 2)[shrinks].max(initial=0.0) if fine[:, 1].all() else 0.0
    error = (np.abs(coarse - fine) / np.maximum(fine, 1e-300)).max()
    tolerance = float(max(1e-13, 64 * EPS * condition) + (error if error < LARGEST_ERROR else LARGEST_ERROR))
    rates = np.array([rate(t) for t in times.tolist()])
    drifts = np.array([drift_at(t) for t in times.tolist()])
    linear = rates[:, None, None] * probes
    return worst(
        compare(
            name,
            "(31)",
            "(scale, std) at t = 0",
            [scale_0, std_0],
            start,
            tolerance,
            {"scale and std are swapped, as by the wrong sign of log-SNR": lambda: [0.0, 1.0]},
            by_code=True,
        ),
        compare(
            name,
            "(31)",
            "the drift, in units of 1/horizon (it should be f · x)",
            drifts * horizon,
            linear * horizon,
            tolerance,
            {
                "x is missing: it is the same for every x": lambda: drifts[:, :1, :1] * horizon,
                **{
                    f"x is clipped to ±{c:g} in the drift": lambda c=c: (  # type: ignore[misc]
                        rates[:, None, None] * np.clip(probes, -c, c) * horizon
                    )
                    for c in (5.0, 10.0, 20.0)
                },
                "it is the same in every dimension": lambda: (
                    drifts[:, :, :1] * horizon if drifts[:, :, 0].std(axis=1).all() else np.nan
                ),
            },
            labels=lambda i: f"t = {times[i[0]]:g}, x = {probes[i[1:]]:g}: the drift",
            by_code=True,
        ),
        _by_times(marginal, drift, diffusion, times, probes, tolerance),
        compare(
            name,
            "(31)",
            "(scale, std) of the marginal",
            left,
            fine,
            tolerance,
            _mistakes(*table, rates, left, fine, start, times, lambda t: level(t)[1]),
            relative=True,
            labels=lambda i: f"t = {times[i[0]]:g}: {('scale', 'std')[i[1]]} of the marginal",
            by_code=True,
        ),
    )


def _by_times(
    marginal: Callable[..., Any],
    drift: Callable[..., Any],
    diffusion: Callable[..., Any],
    times: Array,
    probes: Array,
    tolerance: float,
) -> Check:
    """Every time with its own row: (drift, scale, std, g) for an array of times against those for its entries."""
    N, right = len(times), []
    for n, t in enumerate(times.tolist()):
        right.append([*np.asarray(drift(probes, t))[n], *(number(p, "scale") for p in marginal(t)), diffusion(t)])
    expected = np.array(right, dtype=np.float64)
    left = expected.copy()
    for columns, value in (
        (slice(0, 3), by_array(drift, probes.shape, probes, times)),
        (3, by_array(lambda t: marginal(t)[0], (N,), times)),
        (4, by_array(lambda t: marginal(t)[1], (N,), times)),
        (5, by_array(diffusion, (N,), times)),
    ):
        if value is not None:
            left[:, columns] = value
    unit, same = 1e-300 + np.abs(expected).max(axis=0), expected.copy()
    same[:, :3] = np.asarray(drift(probes, float(times[0])))
    return compare(
        "check_sde",
        "(31)",
        "(drift, scale, std, g) for an array of times",
        left / unit,
        expected / unit,
        tolerance,
        {"every row has the drift of the first time": lambda: same / unit},
        labels=lambda i: (
            f"with t as an array, t = {times[i[0]]:g}: {('drift', 'drift', 'drift', 'scale', 'std', 'g')[i[1]]}"
        ),
        by_code=True,
    )


def _mistakes(
    f: Array,
    g_squared: Array,
    rates: Array,
    left: Array,
    right: Array,
    start: tuple[float, float],
    times: Array,
    std: Callable[[float], float],
) -> Mistakes:
    """Values of (scale, std) under a mistake: solutions for a corrected drift or diffusion, and changed scale and std.

    f and g_squared are values at the nodes of `moments`, and rates those of f at the times.
    """
    A, B = right.T

    def like(left: Array, right: Array) -> bool:
        return bool(np.allclose(left, right, rtol=1e-5, atol=1e-9 * np.abs(right).max()))

    def solved(f: Array, g_squared: Array, valid: bool = True) -> Array:
        return moments(f, g_squared, *start, times) if valid else np.full_like(right, np.nan)

    def both(scale: ArrayLike, std: ArrayLike, valid: bool = True) -> Array:
        return np.column_stack(np.broadcast_arrays(scale, std)) if valid else np.full_like(right, np.nan)

    def slope_for_square() -> Array:
        nodes = time_nodes(times, f.shape[1])
        return solved(f, 2 * np.vectorize(std, otypes=[float])(nodes) * np.sqrt(g_squared), bool(left[:, 1].all()))

    def without_integral() -> Array:
        scale = np.exp(rates * times)
        return both(scale, np.sqrt(np.maximum(1 - scale**2, 0.0)), moves)

    g, moves = np.sqrt(g_squared), bool(f.any())
    preserving, sub = like(f, -0.5 * g_squared), moves and like(B, 1 - A**2)
    factors = {"doubled": like(f, -g_squared), "halved": like(f, -0.25 * g_squared)}
    with np.errstate(divide="ignore", invalid="ignore"):
        c_f = float(np.log(left[0, 0] / start[0]) / np.log(A[0] / start[0])) if moves else np.nan
        drag = solved(f, 0 * g_squared)[0, 1] ** 2  # what is left of std(0)²
        c_g = float((left[0, 1] ** 2 - drag) / (B[0] ** 2 - drag))
    sub_vp = ", or the diffusion has lost sub-VP's 1 − exp(−2∫β)" if preserving else ""
    root_2 = ": a factor √2 of g is missing" if abs(c_g - 2) < 1e-9 else ""
    square, root = ("exp(−∫β)", "exp(−¼∫β)") if preserving or sub else ("exp(2∫f)", "exp(½∫f)")
    return {
        "the drift has lost its ½: it is −β x": lambda: solved(f / 2, g_squared, factors["doubled"]),
        "the drift has one ½ too many: it is −¼ β x": lambda: solved(2 * f, g_squared, factors["halved"]),
        "the drift −½β x is missing": lambda: solved(-0.5 * g_squared, g_squared, not moves),
        "β² stands where β belongs in the drift": lambda: solved(
            -0.5 * g_squared, g_squared, like(f, -0.5 * g_squared**2)
        ),
        "√β stands where β belongs in the drift": lambda: solved(-0.5 * g_squared, g_squared, like(f, -0.5 * g)),
        "the drift has the wrong sign": lambda: solved(-f, g_squared, moves),
        f"f is {1 / c_f if c_f else np.inf:.6g} times what scale and std need": lambda: solved(
            c_f * f, g_squared, c_f > 0 and abs(c_f - 1) > 1e-4 and not any(factors.values())
        ),
        "the diffusion is g², not g: its root is missing": lambda: solved(f, g),
        "the diffusion is √g, not g": lambda: solved(f, g_squared**2),
        f"g² is {1 / c_g if c_g else np.inf:.6g} times what scale and std need{root_2}": lambda: solved(
            f, c_g * g_squared, c_g > 0 and abs(c_g - 1) > 1e-4
        ),
        "g is dσ/dt, where g² = dσ²/dt": slope_for_square,
        "scale and std belong to twice the f and g² of the SDE": lambda: solved(2 * f, 2 * g_squared, moves),
        "scale and std belong to half the f and g² of the SDE": lambda: solved(f / 2, g_squared / 2, moves),
        "scale and std have no contraction by the drift": lambda: solved(0 * f, g_squared, moves),
        "std has no contraction 2 f std² by the drift": lambda: both(A, solved(0 * f, g_squared)[:, 1]),
        f"scale is {square}, the square of the right value": lambda: both(A**2, B),
        f"scale is {root}, the root of the right value": lambda: both(A**0.5, B),
        "scale and std are given as squares, Ho's ᾱ and 1 − ᾱ": lambda: both(A**2, B**2, moves),
        "scale and std are swapped, as by the wrong sign of log-SNR": lambda: both(B, A),
        "the logarithm of scale is given": lambda: both(np.log(A), B),
        "the logarithm of std is given": lambda: both(A, np.log(B)),
        "the logarithm of the variance is given": lambda: both(A, 2 * np.log(B)),
        "β(t) t stands where ∫β belongs": without_integral,
        f"std is the variance{sub_vp}": lambda: both(A, B**2),
        "std is √(1 − scale²), that of a variance-preserving process": lambda: both(
            A, np.sqrt(np.maximum(1 - A**2, 0.0)), sub
        ),
        "std is 1 − scale": lambda: both(A, 1 - A, moves),
        "std is 1: the start of the reverse process stands where std(t) belongs": lambda: both(A, 1.0),
    }


@takes_arrays
def check_discretisation(variances: ArrayLike, sde: LinearSDE) -> Check:
    """(30)-(31): the steps β_1², …, β_T² have exactly the distribution of a variance-preserving SDE on an even grid.

    The right side is β_i² = 1 − exp(−∫g² over step i), with the integral by Gauss-Legendre.  The first-order table
    g²(t_i) h, with h = horizon/T, is right only in the limit h → 0.

    Parameters
    ----------
    variances : (T,)
        β_i², dimensionless.
    sde : LinearSDE
        Variance-preserving.

    Returns
    -------
    Check
        Relative residual.  Tolerance 1e-13, plus 64 ε times the condition of differences of ∫g², plus the error of the
        quadrature.
    """
    left = np.asarray(variances, dtype=np.float64)
    T = len(left)
    h = sde.horizon / T
    starts = h * np.arange(T)[:, None]

    def integral(n: int) -> Array:
        """∫g² over every step, (T,), by n nodes."""
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return 0.5 * h * (np.asarray(sde.diffusion(starts + 0.5 * h * (nodes + 1))) ** 2 @ weights)

    coarse, integrals = integral(12), integral(20)
    right = -np.expm1(-integrals)
    error = np.abs(coarse / integrals - 1).max()
    condition = (np.cumsum(integrals) / integrals).max()  # of differences of ∫g² between the steps

    def g_squared(t: Array) -> Array:
        return np.asarray(sde.diffusion(t)) ** 2

    ends = h * np.arange(1, T + 1)
    return compare(
        "check_discretisation",
        "(30)",
        "the variances of the steps",
        left,
        right,
        float(1e-13 + 64 * EPS * condition + min(error, LARGEST_ERROR)),
        {
            "it is β(t_i) h, right to first order only": lambda: g_squared(ends) * h,
            "it is β(t_{i−1}) h, right to first order only": lambda: g_squared(ends - h) * h,
            "it is ∫β over the step, right to first order only": lambda: integrals,
            "it is β(t_i): the length of the step is missing": lambda: g_squared(ends),
            "it is β_i, the root: a standard deviation": lambda: np.sqrt(right),
            "it is 1 − β_i² = α_i²": lambda: 1 - right,
            "it is 1 − exp(−½∫β), the ½ of the drift": lambda: -np.expm1(-integrals / 2),
            "it is 1 − exp(−∫β from 0), that of all steps so far": lambda: -np.expm1(-np.cumsum(integrals)),
            "it is that of the next step": lambda: np.append(right[1:], -np.expm1(-g_squared(ends[-1:] + h / 2) * h)),
            "it is that of step i−1": lambda: np.append(right[:1], right[:-1]),
            "it is that of the horizon 1": lambda: -np.expm1(-integrals / sde.horizon),
            "it is 1 − exp(−β(t_i) h)": lambda: -np.expm1(-g_squared(ends) * h),
        },
        relative=True,
        labels=lambda index: f"the variance of step {index[0] + 1}",
    )
