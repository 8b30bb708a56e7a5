"""Checks of EM in use: the loop, sufficient statistics, mixtures of tables, k-means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts, takes_arrays
from scratchgen.conformance.em import floored, log_joint_by_inverses, log_sum, normalised
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.validation import Array


def _plain_step(x: Array, weights: Array, means: Array, covariances: Array, floor: float) -> tuple[Array, Array, Array]:
    """One E-step and one M-step of a Gaussian mixture, by plain sums."""
    resp = normalised(log_joint_by_inverses(x, weights, means, covariances))
    counts = resp.sum(axis=0)
    means = resp.T @ x / counts[:, None]
    spread = [(resp[:, k, None] * (x - m)).T @ (x - m) / counts[k] for k, m in enumerate(means)]
    return counts / len(x), means, np.array([floored(C, floor) for C in spread])


@takes_arrays
def check_em_loop(
    em: Callable[[], tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    x: Array,
    weights: Array,
    means: Array,
    covariances: Array,
    n_steps: int,
    floor: float = 0.0,
) -> Check:
    """(15)-(18) as a loop: the objective at every E-step, and the mixture after the last M-step.

    An M-step uses the responsibilities under the mixture that it updates.  The objective of an E-step belongs to the
    mixture of that E-step.

    Parameters
    ----------
    em : callable
        em() → (mean log p_θ(x) at every E-step (n_steps + 1,), weights (K,), means (K, D), covariances (K, D, D)),
        from the given start.
    x : (N, D)
    weights : (K,)
    means : (K, D)
    covariances : (K, D, D)
        The start.
    n_steps : int
        Number of M-steps.
    floor : float
        The least eigenvalue of a covariance.

    Returns
    -------
    Check
        Tolerance 1e-9 for the objectives, 1e-8 for the mixture.
    """
    state, objectives = (weights, means, covariances), []
    for n in range(n_steps + 1):
        objectives.append(float(log_sum(log_joint_by_inverses(x, *state)).mean()))
        if n < n_steps:
            state = _plain_step(x, *state, floor)
    left = parts(em(), 4, "em")
    name = "check_em_loop"
    return worst(
        compare(name, "(18)", "mean log p_θ(x) at every E-step", left[0], objectives, 1e-9),
        *(
            compare(name, "(15)", f"the {what} after the last M-step", value, exact, 1e-8)
            for what, value, exact in zip(("weights", "means", "covariances"), left[1:], state, strict=True)
        ),
    )


@takes_arrays
def check_statistics(
    statistics: Callable[[], tuple[ArrayLike, ...]],
    x: Array,
    weights: Array,
    means: Array,
    covariances: Array,
) -> Check:
    """(15), (18): expected counts, means and covariances of every component, and the mean of log p_θ(x).

    Parameters
    ----------
    statistics : callable
        statistics() → (counts (K,), means (K, D), covariances (K, D, D), mean of log p_θ(x)), at q = p_θ(z | x).
    x : (N, D)
    weights : (K,)
    means : (K, D)
    covariances : (K, D, D)
        The mixture p_θ.

    Returns
    -------
    Check
        Means are divided by the size of the data and covariances by its square; tolerance 1e-9.
    """
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    resp = normalised(log_joint)
    _, exact_means, exact_covariances = _plain_step(x, weights, means, covariances, 0.0)
    counts, m, C, log_likelihood = parts(statistics(), 4, "statistics")
    unit = np.abs(x - x.mean(axis=0)).max()
    name = "check_statistics"
    log_prob = log_sum(log_joint)[:, 0]
    squared = resp**2 / (resp**2).sum(axis=1, keepdims=True)
    return worst(
        compare(
            name,
            "(18)",
            "expected counts",
            counts,
            resp.sum(axis=0),
            1e-9,
            {
                "the responsibilities are squared": lambda: (resp**2).sum(axis=0),
                "the responsibilities are squared and normalised": lambda: squared.sum(axis=0),
                "they are means over the examples": lambda: resp.mean(axis=0),
            },
        ),
        compare(name, "(15)", "expected means, in units", m / unit, exact_means / unit, 1e-9),
        compare(
            name,
            "(15)",
            "expected covariances, in units",
            C / unit**2,
            exact_covariances / unit**2,
            1e-9,
            {
                "they are second moments about 0": lambda: (
                    (exact_covariances + exact_means[:, :, None] * exact_means[:, None]) / unit**2
                )
            },
        ),
        compare(
            name,
            "(16)",
            "the mean of log p_θ(x)",
            log_likelihood,
            log_prob.mean(),
            1e-10,
            {"it is the sum over the examples": lambda: log_prob.sum()},
        ),
    )


@takes_arrays
def check_kmeans(kmeans: Callable[[Array, Array], ArrayLike], x: Array, centres: Array) -> Check:
    """Lloyd's algorithm for k-means, from given centres until no point changes its centre.

    Parameters
    ----------
    kmeans : callable
        kmeans(x, centres) → centres (K, D).
    x : (N, D)
    centres : (K, D)
        The start.

    Returns
    -------
    Check
        Tolerance 1e-12.
    """

    def lloyd(farthest: bool = False) -> Array:
        current = centres
        for _ in range(100):
            distances = np.array([[float(((row - c) ** 2).sum()) for c in current] for row in x])
            own = (distances if not farthest else -distances).argmin(axis=1)
            following = np.array([x[own == k].mean(axis=0) if (own == k).any() else c for k, c in enumerate(current)])
            if np.array_equal(following, current):
                break
            current = following
        return current

    one_step = np.array([[float(((row - c) ** 2).sum()) for c in centres] for row in x]).argmin(axis=1)
    return compare(
        "check_kmeans",
        "(15)",
        "the centres",
        kmeans(x, centres),
        lloyd(),
        1e-12,
        {
            "points join the farthest centre": lambda: lloyd(farthest=True),
            "it stops after one step": lambda: [x[one_step == k].mean(axis=0) for k in range(len(centres))],
            "the centres do not move": lambda: centres,
        },
    )


@takes_arrays
def check_table_em(
    step: Callable[[Array, Array, Array], tuple[ArrayLike, ArrayLike, ArrayLike]],
    x: Array,
    weights: Array,
    tables: Array,
    pseudo_counts: Array,
) -> Check:
    """(15)-(18) for a mixture of categorical tables: log P(x), then weights and tables after one step, by counting.

    Parameters
    ----------
    step : callable
        step(x, weights, tables) → (log P(x) (N,), weights (K,), tables (K, D, n_levels)).
    x : (N, D)
        Whole numbers 0..n_levels−1.
    weights : (K,)
    tables : (K, D, n_levels)
        P(level | component) of every dimension.
    pseudo_counts : (D, n_levels)
        Counts that are added to those of every component.

    Returns
    -------
    Check
        The largest of three residuals; tolerance 1e-10.
    """
    levels = x.astype(np.int64)
    (N, D), K = x.shape, len(weights)
    joint = np.array(
        [[weights[k] * np.prod([tables[k, d, row[d]] for d in range(D)]) for k in range(K)] for row in levels]
    )
    resp = joint / joint.sum(axis=1, keepdims=True)

    def counted(pseudo: Array, resp: Array = resp) -> Array:
        counts = np.tile(pseudo, (K, 1, 1))
        for n in range(N):
            for d in range(D):
                counts[:, d, levels[n, d]] += resp[n]
        return counts / counts.sum(axis=2, keepdims=True)

    log_prob, new_weights, new_tables = parts(step(x, weights, tables), 3, "step")
    name = "check_table_em"
    return worst(
        compare(name, "(16)", "log P(x)", log_prob, np.log(joint.sum(axis=1)), 1e-10),
        compare(
            name,
            "(15)",
            "the weights after a step",
            new_weights,
            resp.mean(axis=0),
            1e-10,
            {"they are the old ones": lambda: weights},
        ),
        compare(
            name,
            "(15)",
            "the tables after a step",
            new_tables,
            counted(pseudo_counts),
            1e-10,
            {
                "the pseudo-counts are left out": lambda: counted(1e-300 + 0 * pseudo_counts),
                "the responsibilities are squared": lambda: counted(pseudo_counts, resp**2),
            },
        ),
    )


@takes_arrays
def check_covariance_types(
    maximum: Callable[[str, float, float], ArrayLike], spread: Array, counts: Array, floor: float
) -> Check:
    """(15): the maximum-likelihood covariances of every type, without and with a prior.

    The right side fills the free entries of each type one by one.

    Parameters
    ----------
    maximum : callable
        maximum(type, variance, count) → covariances (K, D, D), for the types "full", "tied", "diag" and "spherical".
        The prior adds `count` examples of variance `variance` in every direction to each component.
    spread : (K, D, D)
        S_k, the covariance of the points of component k.
    counts : (K,)
        N_k, the number of points of component k.
    floor : float
        The least eigenvalue of a covariance.

    Returns
    -------
    Check
        Tolerance 1e-10.
    """
    K, D, _ = spread.shape
    kinds, priors = ("full", "tied", "diag", "spherical"), ((1.0, 0.0), (0.7, 3.0))

    def best(kind: str, variance: float, count: float, k: int) -> Array:
        members = range(K) if kind == "tied" else [k]
        n = sum(float(counts[m]) for m in members)
        S = np.asarray(sum(counts[m] * spread[m] for m in members)) / n
        S = (n * S + count * variance * np.eye(D)) / (n + count)
        if kind == "diag":
            S = np.array([[S[d, e] if d == e else 0.0 for e in range(D)] for d in range(D)])
        elif kind == "spherical":
            S = sum(S[d, d] for d in range(D)) / D * np.eye(D)
        return floored(S, floor)

    cases = [(kind, *prior) for kind in kinds for prior in priors]
    return compare(
        "check_covariance_types",
        "(15)",
        "the covariances of every type, without and with a prior",
        [np.asarray(maximum(*case)) for case in cases],
        [[best(*case, k) for k in range(K)] for case in cases],
        1e-10,
        {"the prior is left out": lambda: [[best(case[0], 1.0, 0.0, k) for k in range(K)] for case in cases]},
    )
