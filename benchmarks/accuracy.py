"""The accuracy of an EM iteration on data that are far from 0 or nearly flat: ours and scikit-learn's.

The reference is the same iteration in extended precision (80 bits on x86), by the textbook formulas.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.em import ours, theirs
from benchmarks.markdown import Suite
from scratchgen import Mixture
from scratchgen.validation import Array

D, K, N = 8, 4, 2_000
KINDS = {  # offset of the data, unit of length, variance of one axis (the others: 1)
    "easy": (0.0, 1.0, 1.0),
    "1e8 away": (1e8, 1.0, 1.0),
    "condition 1e4": (0.0, 1.0, 1e-4),
    "condition 1e8": (0.0, 1.0, 1e-8),
    "condition 1e12": (0.0, 1.0, 1e-12),
    "clusters of width 1e-3": (0.0, 1e-3, 1.0),
    "clusters of width 1e-6": (0.0, 1e-6, 1.0),
}
Parameters = tuple[Array, Array]  # means, covariances


def problem(offset: float, width: float, shortest: float) -> tuple[Array, Mixture]:
    """Clusters with means about 1 apart, and a mixture that is slightly wrong."""
    rng = np.random.default_rng(0)
    axes = width * np.array([shortest**0.5, *np.ones(D - 1)])
    A = np.linalg.qr(rng.standard_normal((K, D, D)))[0] * axes
    means = offset + rng.standard_normal((K, D))
    truth = Mixture(np.full(K, 1 / K), means, A @ A.swapaxes(1, 2))
    off = width * shortest**0.5 * 0.3 * rng.standard_normal((K, D))
    return truth.sample(N, rng), Mixture(truth.weights, means + off, 1.2 * truth.covariances)


def reference(x: Array, start: Mixture) -> Parameters:
    """One iteration in np.longdouble."""
    x = x.astype(np.longdouble)
    means, covariances = start.means.astype(np.longdouble), start.covariances.astype(np.longdouble)
    log_joint = np.empty((N, K), dtype=np.longdouble)
    for k in range(K):
        L = _cholesky(covariances[k])
        y = _forward_substitution(L, (x - means[k]).T)
        log_joint[:, k] = np.log(start.weights[k]) - np.log(np.diagonal(L)).sum() - (y**2).sum(axis=0) / 2
    q = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    q /= q.sum(axis=1, keepdims=True)
    counts = q.sum(axis=0)
    means = (q.T @ x) / counts[:, None]
    centred = x - means[:, None]
    return means, np.einsum("nk,knd,kne->kde", q, centred, centred) / counts[:, None, None]


def _cholesky(C: Any) -> Any:
    """L with L Lᵀ = C; LAPACK has no Cholesky decomposition in extended precision."""
    L = np.zeros_like(C)
    for i in range(D):
        L[i, i] = np.sqrt(C[i, i] - (L[i, :i] ** 2).sum())
        L[i + 1 :, i] = (C[i + 1 :, i] - L[i + 1 :, :i] @ L[i, :i]) / L[i, i]
    return L


def _forward_substitution(L: Any, b: Any) -> Any:
    y = np.zeros_like(b)
    for i in range(D):
        y[i] = (b[i] - L[i, :i] @ y[:i]) / L[i, i]
    return y


def error(found: Parameters, exact: Parameters) -> float:
    """The largest error of a mean or covariance, in units of the component's width in that direction."""
    worst = 0.0
    for mean, covariance, true_mean, true_covariance in zip(*found, *exact, strict=True):
        W = np.linalg.inv(np.linalg.cholesky(true_covariance.astype(np.float64)))
        off = W @ (covariance - true_covariance).astype(np.float64) @ W.T
        moved = W @ (mean - true_mean).astype(np.float64)
        worst = max(worst, float(np.abs(off).max()), float(np.abs(moved).max()))
    return worst


def errors() -> dict[str, dict[str, float]]:
    """Errors by kind of data and side; NaN where a side raises an error."""
    found: dict[str, dict[str, float]] = {}
    sides = {"scratchgen": ours} | ({"scikit-learn": theirs} if find_spec("sklearn") else {})
    for kind, (offset, width, shortest) in KINDS.items():
        x, start = problem(offset, width, shortest)
        exact, found[kind] = reference(x, start), {}
        for side, fit in sides.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = fit(x, "full", start, 1, start.covariances)
                found[kind][side] = error((model.means_, model.covariances_), exact)
            except ValueError:
                found[kind][side] = float("nan")
    return found


def report(found: dict[str, dict[str, float]]) -> Iterator[str]:
    """Lines of Markdown."""
    sides = list(next(iter(found.values())))
    yield f"| {D}-D data, {K} components | {' | '.join(sides)} |"
    yield f"|---|{'---|' * len(sides)}"
    for kind, values in found.items():
        yield f"| {kind} | {' | '.join('refuses' if np.isnan(v) else f'{v:.0e}' for v in values.values())} |"


def suite(quick: bool, rounds: int) -> Suite:
    """Measure, yield Markdown, and return the measurements."""
    found = errors()
    yield from report(found)
    return found
