"""Checks of EM with the prior q(z) = N(0, I), as in the deck: one step of PPCA, its maximum, factor analysis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.variational import condition
from scratchgen.validation import Array


@takes_arrays
def check_ppca_step(step: Callable[..., tuple[ArrayLike, Any]], S: Array, W: Array, noise_variance: float) -> Check:
    """(15)-(18) with q(z) = N(0, I): one EM step of PPCA on the sample covariance.

    The right side is the regression of x on z with the moments of the posterior.  A step that uses the old W for the
    new σ² is monotone and has the same fixed points, so that only this comparison finds it.

    Parameters
    ----------
    step : callable
        step(S, W, σ²) → (new W (D, k), new σ²).
    S : (D, D)
        Sample covariance.
    W : (D, k)
    noise_variance : float
        σ².

    Returns
    -------
    Check
        Both results are divided by the size of the data; tolerance 1e-9.
    """
    D, unit = len(S), float(np.trace(S)) / len(S)
    new_W, new_variance = parts(step(S, W, noise_variance), 2, "step")
    # In units of the data's variance, because residuals are absolute for values below 1.
    new_W, new_variance = new_W / np.sqrt(unit), new_variance / unit
    S, W, noise_variance = S / unit, W / np.sqrt(unit), noise_variance / unit
    gain, posterior_cov = condition(W, noise_variance)
    xz, zz = S @ gain.T, posterior_cov + gain @ S @ gain.T
    best_W = xz @ np.linalg.inv(zz)

    def residual_variance(V: Array) -> float:
        return float(np.trace(S) - 2 * np.sum(xz * V) + np.trace(V @ zz @ V.T)) / D

    return worst(
        compare(
            "check_ppca_step",
            "(15)",
            "W after a step, in units",
            new_W,
            best_W,
            1e-9,
            {
                "Cov(z | x) is missing in E zzᵀ": lambda: xz @ np.linalg.inv(gain @ S @ gain.T),
                "it is the old W": lambda: W,
            },
        ),
        compare(
            "check_ppca_step",
            "(15)",
            "σ² after a step, in units",
            new_variance,
            residual_variance(best_W),
            1e-9,
            {
                "it uses the old W": lambda: residual_variance(W),
                "it uses the old W in its cross term": lambda: float(np.trace(S) - np.sum(xz * W)) / D,
                "it is not divided by D": lambda: D * residual_variance(best_W),
            },
        ),
    )


@takes_arrays
def check_ppca_maximum(maximum: Callable[..., tuple[ArrayLike, Any]], S: Array, n_components: int) -> Check:
    """The maximum of the likelihood of PPCA: its value, its covariance W Wᵀ + σ² I, and S C⁻¹ W = W.

    The value is −½[D log 2π + Σ log λ_i + (D−k) log σ² + D] (Tipping and Bishop 1999).  W = S C⁻¹ W is the condition
    for a stationary point.

    Parameters
    ----------
    maximum : callable
        maximum(S, k) → (W (D, k), σ²).
    S : (D, D)
        Sample covariance with the factor 1/N of maximum likelihood.
    n_components : int
        k, below D.

    Returns
    -------
    Check
        The largest of three residuals; tolerance 1e-9, for the stationary point 1e-8.
    """
    if not 1 <= n_components < len(S):
        raise ValueError(f"n_components must be in 1..{len(S) - 1}, below the {len(S)} dimensions, got {n_components}")
    W, given = parts(maximum(S, n_components), 2, "maximum")
    unit = float(np.trace(S)) / len(S)
    S, W, noise_variance = S / unit, W / np.sqrt(unit), float(given) / unit
    C = W @ W.T + noise_variance * np.eye(len(S))
    values = np.linalg.eigvalsh(S)[::-1]
    D, rest = len(S), values[n_components:].mean()
    best = -0.5 * (D * np.log(2 * np.pi) + np.log(values[:n_components]).sum() + (D - n_components) * np.log(rest) + D)
    value = -0.5 * (D * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S)))
    return worst(
        compare("check_ppca_maximum", "(18)", "the mean log-likelihood", value, best, 1e-9),
        compare(
            "check_ppca_maximum",
            "(18)",
            "σ²",
            noise_variance,
            rest,
            1e-9,
            {
                "it is the sum of the discarded eigenvalues": lambda: values[n_components:].sum(),
                "it is averaged over all D": lambda: values[n_components:].sum() / D,
            },
        ),
        compare("check_ppca_maximum", "(18)", "S C⁻¹ W (it should be W)", S @ np.linalg.solve(C, W), W, 1e-8),
    )


@takes_arrays
def check_factor_analysis_step(
    step: Callable[[Array, Array, Array], tuple[ArrayLike, ArrayLike]], S: Array, W: Array, noise_variance: Array
) -> Check:
    """(15)-(18) with q(z) = N(0, I): one EM step of factor analysis on the sample covariance.

    The right side conditions the joint Gaussian of x and z on x, and regresses x on z with its moments.

    Parameters
    ----------
    step : callable
        step(S, W, Ψ) → (new W (D, k), new Ψ (D,)).
    S : (D, D)
        Sample covariance.
    W : (D, k)
    noise_variance : (D,)
        Ψ, the noise variance of every dimension.

    Returns
    -------
    Check
        The larger of the two residuals; tolerance 1e-9.
    """
    D, k = W.shape
    joint = np.block([[W @ W.T + np.diag(noise_variance), W], [W.T, np.eye(k)]])
    gain = joint[D:, :D] @ np.linalg.inv(joint[:D, :D])
    left = np.vstack([np.eye(D), gain])  # (x, E[z | x]) as a linear map of x
    moments = left @ S @ left.T
    moments[D:, D:] += joint[D:, D:] - gain @ joint[:D, D:]  # Cov(z | x)
    best_W = moments[:D, D:] @ np.linalg.inv(moments[D:, D:])

    def residual(V: Array) -> Array:
        return np.diagonal(S - V @ moments[D:, :D] - moments[:D, D:] @ V.T + V @ moments[D:, D:] @ V.T)

    new_W, new_variance = parts(step(S, W, noise_variance), 2, "step")
    name = "check_factor_analysis_step"
    return worst(
        compare(
            name,
            "(15)",
            "W after a step",
            new_W,
            best_W,
            1e-9,
            {
                "Cov(z | x) is missing in E zzᵀ": lambda: (
                    moments[:D, D:] @ np.linalg.inv(moments[D:, D:] - joint[D:, D:] + gain @ joint[:D, D:])
                )
            },
        ),
        compare(
            name,
            "(15)",
            "Ψ after a step",
            new_variance,
            residual(best_W),
            1e-9,
            {
                "it uses the old W": lambda: residual(W),
                "it is one number for all dimensions": lambda: np.full(D, residual(best_W).mean()),
            },
        ),
    )
