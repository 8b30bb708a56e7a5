"""Checks of equations (30)-(31): the SDE and its discretisation.

The callables belong to one instance: their SDE is fixed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import central_difference
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array


@takes_arrays
def check_sde(
    marginal: Callable[[float], tuple[ArrayLike, ArrayLike]],
    drift: Callable[[Array, float], ArrayLike],
    diffusion: Callable[[float], ArrayLike],
    horizon: float,
) -> Check:
    """(31): scale and std of x_t = scale · x_0 + std · ε solve the equations of the moments of the SDE.

    d scale = f scale dt and d std² = (2 f std² + g²) dt, from (1, 0) at t = 0.  Derivatives are finite differences of
    sixth order at times inside (0, horizon).

    Parameters
    ----------
    marginal : callable
        marginal(t) → (scale, std).
    drift : callable
        drift(x (N, 1), t) → f(t) x, (N, 1).
    diffusion : callable
        diffusion(t) → g(t).
    horizon : float
        The last time T.

    Returns
    -------
    Check
        The largest of four residuals; tolerance 1e-12 at t = 0, 1e-9 for the drift, 1e-8 for the derivatives.
    """
    times = horizon * np.array([0.07, 0.2, 0.45, 0.7, 0.9])
    h = 1e-3 * horizon

    def scale(t: float) -> float:
        return float(np.asarray(marginal(t)[0]))

    def variance(t: float) -> float:
        return float(np.asarray(marginal(t)[1])) ** 2

    probes = np.array([[1.0], [0.0], [-1.0], [5.0], [-5.0]])
    drifts = np.array([returned(drift(probes, t), (5, 1), "drift")[:, 0] for t in times])
    rate = drifts[:, 0]
    g_squared = np.array([float(np.asarray(diffusion(t))) ** 2 for t in times])

    def slopes(f: Callable[[float], float]) -> Array:
        return np.array([central_difference(lambda step, t=t: f(t + step), h) for t in times])  # type: ignore[misc]

    v = np.array([variance(t) for t in times])
    unit = 1 + np.abs(v).max()
    start = [float(np.asarray(part)) for part in marginal(0.0)]
    return worst(
        compare("check_sde", "(31)", "(scale, std) at t = 0", start, [1.0, 0.0], 1e-12),
        compare(
            "check_sde",
            "(31)",
            "the drift at 1, 0, −1, 5 and −5 (it should be f · x)",
            drifts * horizon,
            rate[:, None] * probes[:, 0] * horizon,
            1e-9,
            {"x is missing": lambda: np.repeat(rate[:, None], 5, axis=1) * horizon},
        ),
        compare(
            "check_sde",
            "(31)",
            "d log scale/dt of the marginal (right: the drift's f)",
            slopes(lambda t: float(np.log(scale(t)))) * horizon,
            rate * horizon,
            1e-8,
            {"scale is exp(−∫β), the square of exp(−½∫β), or the drift has lost its ½": lambda: 2 * rate * horizon},
        ),
        compare(
            "check_sde",
            "(31)",
            "d std²/dt of the marginal (right: 2 f std² + g²)",
            slopes(variance) * horizon / unit,
            (2 * rate * v + g_squared) * horizon / unit,
            1e-8,
            {
                "g stands where g² belongs": lambda: (2 * rate * v + np.sqrt(g_squared)) * horizon / unit,
                "the drift's contraction 2 f std² is missing": lambda: g_squared * horizon / unit,
                "the marginal gives the variance, not the standard deviation": lambda: (
                    2 * np.sqrt(v) * (2 * rate * np.sqrt(v) + g_squared) * horizon / unit
                ),
                "g² is squared once more": lambda: (2 * rate * v + g_squared**2) * horizon / unit,
            },
        ),
    )


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
        Relative residual; tolerance 1e-12.
    """
    left = np.asarray(variances, dtype=np.float64)
    T = len(left)
    h = sde.horizon / T
    nodes, weights = np.polynomial.legendre.leggauss(20)
    starts = h * np.arange(T)[:, None]
    integrals = 0.5 * h * (np.asarray(sde.diffusion(starts + 0.5 * h * (nodes + 1))) ** 2 @ weights)
    right = -np.expm1(-integrals)

    def g_squared(t: Array) -> Array:
        return np.asarray(sde.diffusion(t)) ** 2

    ends = h * np.arange(1, T + 1)
    return compare(
        "check_discretisation",
        "(30)",
        "β_i²",
        left,
        right,
        1e-12,
        {
            "it is β(t_i) h, right to first order only": lambda: g_squared(ends) * h,
            "it is β(t_{i−1}) h, right to first order only": lambda: g_squared(ends - h) * h,
            "it is ∫β over the step, right to first order only": lambda: integrals,
            "it is β(t_i): the length of the step is missing": lambda: g_squared(ends),
            "it is 1 − exp(−β(t_i) h)": lambda: -np.expm1(-g_squared(ends) * h),
        },
        relative=True,
    )
