"""Checks of EM with the prior q(z) = N(0, I), as in the deck: one step of PPCA, its maximum, factor analysis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, returned, takes_arrays
from scratchgen.conformance.instances import EPS, at_each, rounding
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.variational import condition
from scratchgen.validation import Array


@takes_arrays
def check_ppca_step(step: Callable[..., tuple[ArrayLike, Any]], S: Array, W: Array, noise_variance: float) -> Check:
    """(15)-(18) with q(z) = N(0, I): one EM step of PPCA on the sample covariance.

    The right side is the regression of x on z with the moments of the posterior.  A step that uses the old W for the
    new σ² is monotone and has the same fixed points, so that only this comparison finds it.  The step is called
    from two pairs of W and σ².

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
        Both results are divided by the size of the data; tolerance 5e-14, more in proportion to the condition numbers
        of W Wᵀ + σ² I and E zzᵀ.
    """
    check_callable(step, "step(S, W, noise_variance)")
    D, unit = len(S), float(np.trace(S)) / len(S)
    instances = [(S, W, noise_variance), (S, 0.6 * W[:, ::-1], 1.7 * noise_variance)]
    after = [parts(step(*instance), 2, "step") for instance in instances]

    def moments(S: Array, W: Array, noise_variance: float) -> tuple[Array, Array, Array, Array]:
        """E x zᵀ, E z zᵀ, its first term Cov(z | x), and the best W, in the units of S."""
        gain, posterior_cov = condition(W, noise_variance)
        xz, zz = S @ gain.T, posterior_cov + gain @ S @ gain.T
        return xz, zz, posterior_cov, xz @ np.linalg.inv(zz)

    def variance_with(V: Array, S: Array, W: Array, noise_variance: float) -> float:
        xz, zz, _, _ = moments(S, W, noise_variance)
        return float(np.trace(S) - 2 * np.sum(xz * V) + np.trace(V @ zz @ V.T)) / D / unit

    def best_variance(*instance: Any) -> float:
        return variance_with(moments(*instance)[3], *instance)

    def without_posterior_cov(*instance: Any) -> Array:
        xz, zz, posterior_cov, _ = moments(*instance)
        return xz @ np.linalg.inv(zz - posterior_cov) / unit**0.5

    # In units of the data's variance, because residuals are absolute for values below 1.
    digits = max((1 + np.linalg.norm(V, 2) ** 2 / s2) * np.linalg.cond(moments(S, V, s2)[1]) for S, V, s2 in instances)
    left_W, left_variance = [pair[0] / np.sqrt(unit) for pair in after], [pair[1] / unit for pair in after]
    name, tolerance = "check_ppca_step", rounding(digits)
    rest = D - W.shape[1]
    undivided = "it is not divided by D" + (", or by D − k, which is 1" if rest == 1 else "")
    by_degrees: dict[str, Callable[..., ArrayLike]] = {}
    if rest > 1:
        by_degrees["it is divided by D − k, not by D"] = lambda *instance: D / rest * best_variance(*instance)
    starts = "the given W and σ²", "0.6 W with its columns reversed and 1.7 σ²"
    return worst(
        compare(
            name,
            "(15)",
            "W after a step, in units",
            left_W,
            [moments(*instance)[3] / np.sqrt(unit) for instance in instances],
            tolerance,
            at_each(
                instances,
                {
                    "Cov(z | x) is missing in E zzᵀ": without_posterior_cov,
                    "it is the old W": lambda S, W, s2: W / unit**0.5,
                    "E zzᵀ is missing: it is E x zᵀ": lambda *instance: moments(*instance)[0] / unit**0.5,
                    "σ² is missing in Cov(z | x): it is M⁻¹": lambda S, W, s2: (
                        moments(S, W, s2)[0]
                        @ np.linalg.inv(moments(S, W, s2)[1] + (1 / s2 - 1) * moments(S, W, s2)[2])
                        / unit**0.5
                    ),
                    "σ stands where σ² belongs": lambda S, W, s2: moments(S, W, s2**0.5)[3] / unit**0.5,
                },
            ),
            labels=lambda index: f"W[{index[1]}, {index[2]}] after a step from {starts[index[0]]}, in units,",
        ),
        compare(
            name,
            "(15)",
            "σ² after a step, in units",
            left_variance,
            [best_variance(*instance) for instance in instances],
            tolerance,
            at_each(
                instances,
                {
                    "it uses the old W": lambda S, W, s2: variance_with(W, S, W, s2),
                    "it uses the old W in its cross term": lambda S, W, s2: (
                        float(np.trace(S) - np.sum(moments(S, W, s2)[0] * W)) / D / unit
                    ),
                    **by_degrees,
                    undivided: lambda *instance: D * best_variance(*instance),
                    "it is the old σ²": lambda S, W, s2: s2 / unit,
                    "it is σ, not σ²": lambda *instance: (unit * best_variance(*instance)) ** 0.5 / unit,
                },
            ),
            labels=lambda index: f"σ² after a step from {starts[index[0]]}, in units,",
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
        The largest of three residuals, for 1 to k latents; tolerance 5e-14, more in
        proportion to the condition number of W Wᵀ + σ² I.
    """
    check_callable(maximum, "maximum(S, k)")
    if not 1 <= n_components < len(S):
        raise ValueError(f"n_components must be in 1..{len(S) - 1}, below the {len(S)} dimensions, got {n_components}")
    D, unit = len(S), float(np.trace(S)) / len(S)
    ranks = range(1, n_components + 1)
    found = [parts(maximum(S, k), 2, "maximum") for k in ranks]
    for k, (W, s2) in zip(ranks, found, strict=True):
        returned(W, (D, k), "maximum (its first result)")
        returned(s2, (), "maximum (its second result)")
    S, values = S / unit, np.linalg.eigvalsh(S / unit)[::-1]
    loadings, variances = [W / np.sqrt(unit) for W, _ in found], [s2 / unit for _, s2 in found]
    with np.errstate(invalid="ignore", over="ignore"):
        covariances = [W @ W.T + s2 * np.eye(D) for W, s2 in zip(loadings, variances, strict=True)]

    def log_likelihood(C: Array) -> float:
        if not np.isfinite(C).all() or np.linalg.eigvalsh(C)[0] <= 0:
            return float("nan")
        return float(-0.5 * (D * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S))))

    def best(k: int) -> float:
        rest = values[k:].mean()
        return -0.5 * (D * np.log(2 * np.pi) + np.log(values[:k]).sum() + (D - k) * np.log(rest) + D)

    def by_eigenvalues(kept: Callable[[Array, float], Array]) -> Callable[[int], float]:
        """The log-likelihood with other eigenvalues of W Wᵀ: a function of the k largest and of σ²."""
        vectors = np.linalg.eigh(S)[1][:, ::-1]

        def value(k: int) -> float:
            rest = values[k:].mean()
            return log_likelihood((vectors[:, :k] * kept(values[:k], rest)) @ vectors[:, :k].T + rest * np.eye(D))

        return value

    name, each = "check_ppca_maximum", [(k,) for k in ranks]
    digits = float(values[0] / max(values[n_components:].mean(), EPS))
    checks = [
        compare(
            name,
            "(18)",
            "the mean log-likelihood",
            [log_likelihood(C) for C in covariances],
            [best(k) for k in ranks],
            rounding(digits),
            at_each(
                each,
                {
                    "σ² is not subtracted in W = U(Λ − σ²)^½": by_eigenvalues(lambda kept, rest: kept),
                    "σ² is subtracted twice": by_eigenvalues(lambda kept, rest: np.maximum(kept - 2 * rest, 0)),
                    "the root is missing: W = U(Λ − σ²)": by_eigenvalues(lambda kept, rest: (kept - rest) ** 2 * unit),
                },
            ),
            labels=lambda index: f"the mean log-likelihood at k = {index[0] + 1}",
        ),
        compare(
            name,
            "(18)",
            "σ²",
            variances,
            [values[k:].mean() for k in ranks],
            rounding(digits),
            at_each(
                each,
                {
                    "it is the sum of the discarded eigenvalues": lambda k: values[k:].sum(),
                    "it is averaged over all D": lambda k: values[k:].sum() / D,
                    "it is averaged over k": lambda k: values[k:].sum() / k,
                    "it is the largest discarded eigenvalue": lambda k: values[k],
                    "it is the smallest eigenvalue": lambda k: values[-1],
                    "it is the mean of the kept eigenvalues": lambda k: values[:k].mean(),
                },
            ),
            labels=lambda index: f"σ² at k = {index[0] + 1}",
        ),
    ]
    if not all(checks):
        return worst(*checks)
    checks += [
        compare(name, "(18)", "S C⁻¹ W (it should be W)", S @ np.linalg.solve(C, W), W, rounding(digits))
        for C, W in zip(covariances, loadings, strict=True)
    ]
    return worst(*checks)


@takes_arrays
def check_factor_analysis_step(
    step: Callable[[Array, Array, Array], tuple[ArrayLike, ArrayLike]], S: Array, W: Array, noise_variance: Array
) -> Check:
    """(15)-(18) with q(z) = N(0, I): one EM step of factor analysis on the sample covariance.

    The right side is the regression of x on z with the moments of the posterior.

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
        The larger of the two residuals, divided by the size of the data; tolerance 5e-14, more in proportion to the
        condition numbers of W Wᵀ + Ψ and E zzᵀ.
    """
    check_callable(step, "step(S, W, noise_variance)")
    D = len(W)
    gain, posterior_cov = condition(W, noise_variance)
    left = np.vstack([np.eye(D), gain])  # (x, E[z | x]) as a linear map of x
    moments = left @ S @ left.T
    moments[D:, D:] += posterior_cov
    best_W = moments[:D, D:] @ np.linalg.inv(moments[D:, D:])

    def residual(V: Array) -> Array:
        return np.diagonal(S - V @ moments[D:, :D] - moments[:D, D:] @ V.T + V @ moments[D:, D:] @ V.T)

    new_W, new_variance = parts(step(S, W, noise_variance), 2, "step")
    unit = float(np.trace(S)) / D
    digits = (np.linalg.norm(W, 2) ** 2 + noise_variance.max()) / noise_variance.min() * np.linalg.cond(moments[D:, D:])
    name, tolerance = "check_factor_analysis_step", rounding(digits)
    return worst(
        compare(
            name,
            "(15)",
            "W after a step, in units",
            new_W / unit**0.5,
            best_W / unit**0.5,
            tolerance,
            {
                "Cov(z | x) is missing in E zzᵀ": lambda: (
                    moments[:D, D:] @ np.linalg.inv(moments[D:, D:] - posterior_cov) / unit**0.5
                ),
                "E zzᵀ is missing: it is E x zᵀ": lambda: moments[:D, D:] / unit**0.5,
                "it is the old W": lambda: W / unit**0.5,
                "WᵀΨ⁻¹W is missing in Cov(z | x): it is that of the prior": lambda: (
                    moments[:D, D:] @ np.linalg.inv(moments[D:, D:] - posterior_cov + np.eye(W.shape[1])) / unit**0.5
                ),
                "Cov(z | x) is I + β W, not I − β W": lambda: (
                    moments[:D, D:]
                    @ np.linalg.inv(moments[D:, D:] - posterior_cov + np.eye(W.shape[1]) + gain @ W)
                    / unit**0.5
                ),
            },
            labels=lambda index: f"W[{index[0]}, {index[1]}] after a step, in units,",
        ),
        compare(
            name,
            "(15)",
            "Ψ after a step, in units",
            new_variance / unit,
            residual(best_W) / unit,
            tolerance,
            {
                "it uses the old W": lambda: residual(W) / unit,
                "it is the diagonal of S − W Wᵀ": lambda: np.diagonal(S - best_W @ best_W.T) / unit,
                "Cov(z | x) is missing: it is the residual at the posterior mean": lambda: (
                    np.diagonal((np.eye(D) - best_W @ gain) @ S @ (np.eye(D) - best_W @ gain).T) / unit
                ),
                "it uses the old W in its cross term": lambda: np.diagonal(S - W @ moments[D:, :D]) / unit,
                "it is one number for all dimensions": lambda: np.full(D, residual(best_W).mean()) / unit,
                "it is the old Ψ": lambda: noise_variance / unit,
                "it is the variance of x": lambda: np.diagonal(S) / unit,
            },
            labels=lambda index: f"Ψ[{index[0]}] after a step, in units,",
        ),
    )
