"""Checks of EM in use: the loop, sufficient statistics, mixtures of tables, k-means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, takes_arrays
from scratchgen.conformance.em import (
    KINDS,
    condition_of_mixture,
    floored,
    log_joint_by_inverses,
    log_sum,
    normalised,
    of_kind,
    wrong_responsibilities,
)
from scratchgen.conformance.instances import at_each, result, rounding, through
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.validation import Array, as_number


def _not_hidden(spread: Array, floor: float) -> float:
    """The floor; ValueError if no eigenvalue of the covariances (…, D, D) is above it: all would be the floor."""
    largest = float(np.linalg.eigvalsh(spread).max())
    if not 0 <= floor < largest:
        raise ValueError(f"floor must be in [0, {largest:.3g}), below the largest variance, got {floor}; lower it")
    return floor


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
        Tolerance 5e-14, more if x − m or an inverse loses digits.

    Raises
    ------
    ValueError
        If floor is negative, or so large that every covariance is the floor.
    """

    def loop(n: int, floor: float = floor, delay: int = 0) -> tuple[list[float], list[tuple[Array, Array, Array]]]:
        """The objectives of n + 1 E-steps, and the mixtures at each; with a delay, from responsibilities of before."""
        states = [(weights, means, covariances)]
        for i in range(n):
            states.append(_plain_step(x, *states[max(i - delay, 0)], floor))
        return [float(log_sum(log_joint_by_inverses(x, *state)).mean()) for state in states], states

    as_number(floor, "floor", low=0.0)
    _not_hidden(np.array([_plain_step(x, *state, 0.0)[2] for state in loop(n_steps)[1]]), floor)
    objectives, states = loop(n_steps)

    def unbiased() -> tuple[Array, Array, Array]:
        """The last mixture, where every covariance is divided by N_k − 1."""
        state = weights, means, covariances
        for _ in range(n_steps):
            state = _plain_step(x, *state, 0.0)
            counts = (state[0] * len(x))[:, None, None]
            state = (*state[:2], np.array([floored(C, floor) for C in state[2] * counts / (counts - 1)]))
        return state

    longer, later = loop(n_steps + 1)
    left = parts(em(), 4, "em")
    name, tolerance = "check_em_loop", rounding(10 * condition_of_mixture(x, means, covariances))
    checks = [
        compare(
            name,
            "(18)",
            "mean log p_θ(x) at every E-step",
            left[0],
            objectives,
            tolerance,
            {
                "each objective is that after the next M-step": lambda: longer[1:],
                "each objective is that after the next M-step, and the last one stands twice": lambda: [
                    *objectives[1:],
                    objectives[-1],
                ],
                "each objective is that of the E-step before": lambda: [objectives[0], *objectives[:-1]],
                "they are sums over the examples, not means": lambda: len(x) * np.array(objectives),
                "they are losses, −log p": lambda: -np.array(objectives),
                "the floor is not applied": lambda: loop(n_steps, 0.0)[0],
                "the M-step uses the responsibilities under the mixture before": lambda: loop(n_steps, delay=1)[0],
                "the responsibilities are those of the start in every step": lambda: loop(n_steps, delay=n_steps)[0],
            },
            labels=lambda index: f"mean log p_θ(x) after {index[0]} M-steps",
        )
    ]
    for i, what in enumerate(("weights", "means", "covariances")):
        wrong = {
            "there is one M-step too many": lambda i=i: later[-1][i],
            "there is one M-step too few": lambda i=i: states[-2][i],
            "they are those of the start": lambda i=i: states[0][i],
            "they are divided by N_k − 1": lambda i=i: unbiased()[i],
            "the floor is not applied": lambda i=i: loop(n_steps, 0.0)[1][-1][i],
            "the responsibilities are those of the start in every step": lambda i=i: loop(n_steps, delay=n_steps)[1][
                -1
            ][i],
            "the M-step uses the responsibilities under the mixture before": lambda i=i: loop(n_steps, delay=1)[1][-1][
                i
            ],
        }
        checks.append(
            compare(name, "(15)", f"the {what} after the last M-step", left[1 + i], states[-1][i], tolerance, wrong)
        )
    return worst(*checks)


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
        Means are divided by the size of the data and covariances by its square; tolerance 5e-14, more if x − m or an
        inverse loses digits.
    """
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    resp, N = normalised(log_joint), len(x)
    total = resp.sum(axis=0)
    _, exact_means, exact_covariances = _plain_step(x, weights, means, covariances, 0.0)
    counts, m, C, log_likelihood = parts(statistics(), 4, "statistics")
    unit = np.abs(x - x.mean(axis=0)).max()
    name, tolerance = "check_statistics", rounding(condition_of_mixture(x, means, covariances))
    log_prob = log_sum(log_joint)[:, 0]

    def spread(resp: Array, centres: Array) -> Array:
        apart = x[:, None] - centres
        return np.einsum("nk,nkd,nke->kde", resp / resp.sum(axis=0), apart, apart)

    def mean_of(resp: Array) -> Array:
        return resp.T @ x / resp.sum(axis=0)[:, None]

    wrong = wrong_responsibilities(x, weights, means, covariances)
    return worst(
        compare(
            name,
            "(18)",
            "expected counts",
            counts,
            total,
            tolerance,
            {
                "they are means over the examples": lambda: resp.mean(axis=0),
                **through(lambda resp: resp.sum(axis=0), wrong, "in the E-step "),
            },
            labels=lambda index: f"the expected count of component {index[0]}",
        ),
        compare(
            name,
            "(15)",
            "expected means, in units",
            m / unit,
            exact_means / unit,
            tolerance,
            {
                "they are sums: they are not divided by N_k": lambda: exact_means * total[:, None] / unit,
                "they are divided by N, not by N_k": lambda: exact_means * total[:, None] / N / unit,
                **through(lambda resp: mean_of(resp) / unit, wrong, "in the E-step "),
            },
        ),
        compare(
            name,
            "(15)",
            "expected covariances, in units",
            C / unit**2,
            exact_covariances / unit**2,
            tolerance,
            {
                "they are second moments about 0": lambda: spread(resp, 0 * means) / unit**2,
                "they are taken about the old means": lambda: spread(resp, means) / unit**2,
                "they are sums: they are not divided by N_k": lambda: (
                    exact_covariances * total[:, None, None] / unit**2
                ),
                "they are divided by N, not by N_k": lambda: exact_covariances * total[:, None, None] / N / unit**2,
                **through(lambda resp: spread(resp, mean_of(resp)) / unit**2, wrong, "in the E-step "),
            },
        ),
        compare(
            name,
            "(16)",
            "the mean of log p_θ(x)",
            log_likelihood,
            log_prob.mean(),
            tolerance,
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
    check_callable(kmeans, "kmeans(x, centres)")

    def lloyd(farthest: bool = False, power: float = 2.0, centre: Callable[..., Array] = np.mean) -> Array:
        current = centres
        for _ in range(100):
            distances = np.array([[float((np.abs(row - c) ** power).sum()) for c in current] for row in x])
            own = (distances if not farthest else -distances).argmin(axis=1)
            following = np.array(
                [centre(x[own == k], axis=0) if (own == k).any() else c for k, c in enumerate(current)]
            )
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
            "the centres are the points nearest to them": lambda: np.array(
                [x[((x - centre) ** 2).sum(axis=1).argmin()] for centre in lloyd()]
            ),
            "the centres are medians, not means": lambda: lloyd(centre=np.median),
            "the distance is L1: Σ|x − c|": lambda: lloyd(power=1.0),
            "the distance is L1 and the centres are medians": lambda: lloyd(power=1.0, centre=np.median),
            "it stops after one step": lambda: [x[one_step == k].mean(axis=0) for k in range(len(centres))],
            "the centres do not move": lambda: centres,
        },
    )


MOST_PSEUDO_COUNTS = 100.0  # of one example


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
        step(x, weights, tables) → (log P(x) (N,), weights (K,), tables (K, D, n_levels)); x holds integers.
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
        The largest of three residuals; tolerance 5e-14, more if a logarithm is large.

    Raises
    ------
    ValueError
        If pseudo_counts are negative, or so large that the examples do not count beside them.
    """
    check_callable(step, "step(x, weights, tables)")
    if not ((pseudo_counts >= 0) & (pseudo_counts <= MOST_PSEUDO_COUNTS * len(x))).all():
        raise ValueError(
            f"pseudo_counts must be in [0, {MOST_PSEUDO_COUNTS * len(x):g}] for {len(x)} examples, so that they count, "
            f"got up to {pseudo_counts.max():g}; lower them"
        )
    levels = x.astype(np.int64)
    (N, D), K = x.shape, len(weights)
    log_joint = np.array(
        [[np.log([weights[k], *(tables[k, d, row[d]] for d in range(D))]).sum() for k in range(K)] for row in levels]
    )
    resp = normalised(log_joint)

    def counted(pseudo: Array, resp: Array = resp) -> Array:
        counts = np.tile(pseudo, (K, 1, 1))
        for n in range(N):
            for d in range(D):
                counts[:, d, levels[n, d]] += resp[n]
        return counts / counts.sum(axis=2, keepdims=True)

    def normalised_tables(counts: Array, axis: int = 2) -> Array:
        return counts / counts.sum(axis=axis, keepdims=True)

    def plain_counts() -> Array:
        return counted(0 * pseudo_counts) * resp.sum(axis=0)[:, None, None]

    log_prob, new_weights, new_tables = parts(step(levels.copy(), weights, tables), 3, "step")
    name, tolerance = "check_table_em", rounding(1 + np.abs(log_joint).max())
    responsibilities: dict[str, Callable[[], Array]] = {
        "the mixing weights are missing": lambda: normalised(log_joint - np.log(weights)),
        "the responsibilities are squared": lambda: resp**2,
        "it is 0 or 1: a hard assignment": lambda: np.eye(K)[resp.argmax(axis=1)],
        "they are not normalised: it is the joint": lambda: np.exp(log_joint),
        "only the first dimension counts": lambda: normalised(
            np.log(weights) + np.log(tables[:, 0, :]).T[levels[:, 0]]
        ),
    }
    return worst(
        compare(
            name,
            "(16)",
            "log P(x)",
            log_prob,
            log_sum(log_joint)[:, 0],
            tolerance,
            {
                "the mixing weights are missing": lambda: log_sum(log_joint - np.log(weights))[:, 0],
                "it is the largest term of the sum": lambda: log_joint.max(axis=1),
                "it is divided by D": lambda: log_sum(log_joint)[:, 0] / D,
            },
        ),
        compare(
            name,
            "(15)",
            "the weights after a step",
            new_weights,
            resp.mean(axis=0),
            tolerance,
            {
                "they are the old ones": lambda: weights,
                "the pseudo-counts are added to the weights": lambda: (
                    (resp.sum(axis=0) + pseudo_counts.sum()) / (resp.sum() + K * pseudo_counts.sum())
                ),
                "the pseudo-counts of a dimension are added to the weights": lambda: (
                    (resp.sum(axis=0) + pseudo_counts.sum(axis=1).mean())
                    / (resp.sum() + K * pseudo_counts.sum(axis=1).mean())
                ),
                "they are counts, not divided by N": lambda: resp.sum(axis=0),
                **through(lambda resp: resp.mean(axis=0), responsibilities, "in the E-step "),
            },
        ),
        compare(
            name,
            "(15)",
            "the tables after a step",
            new_tables,
            counted(pseudo_counts),
            tolerance,
            {
                "they are the old ones": lambda: tables,
                "the pseudo-counts are left out": lambda: counted(1e-300 + 0 * pseudo_counts),
                "the pseudo-counts are added to frequencies, not to counts": lambda: normalised_tables(
                    normalised_tables(plain_counts()) + pseudo_counts
                ),
                "it is normalised over the components, not over the levels": lambda: normalised_tables(
                    plain_counts() + pseudo_counts, axis=0
                ),
                "the pseudo-counts are shared among the K components": lambda: normalised_tables(
                    plain_counts() + pseudo_counts / K
                ),
                "the pseudo-counts are added after the normalisation": lambda: (
                    normalised_tables(plain_counts()) + pseudo_counts
                ),
                "they are divided by N_k alone, without the sum of the pseudo-counts": lambda: (
                    (plain_counts() + pseudo_counts) / resp.sum(axis=0)[:, None, None]
                ),
                "the pseudo-counts are their mean everywhere": lambda: counted(
                    0 * pseudo_counts + pseudo_counts.mean()
                ),
                "the pseudo-counts are their mean over the dimensions": lambda: counted(
                    0 * pseudo_counts + pseudo_counts.mean(axis=0)
                ),
                "the pseudo-counts are their mean over the levels of a dimension": lambda: counted(
                    0 * pseudo_counts + pseudo_counts.mean(axis=1, keepdims=True)
                ),
                "the pseudo-counts are 1": lambda: counted(1 + 0 * pseudo_counts),
                **through(lambda resp: counted(pseudo_counts, resp), responsibilities, "in the E-step "),
            },
            labels=lambda index: f"P(level {index[2]} | component {index[0]}) of dimension {index[1]} after a step",
        ),
    )


@takes_arrays
def check_covariance_types(
    maximum: Callable[[str, float, float], ArrayLike], spread: Array, counts: Array, floor: float
) -> Check:
    """(15): the maximum-likelihood covariances of every type, without and with a prior.

    The right side fills the entries of each type one by one.

    Parameters
    ----------
    maximum : callable
        maximum(type, variance, count) → covariances (K, D, D), for the types "full", "tied", "diag" and "spherical".
        The prior adds `count` examples of variance `variance` in every direction to each component; for "tied", to the
        one covariance, once.
    spread : (K, D, D)
        S_k, the covariance of the points of component k.
    counts : (K,)
        N_k, the number of points of component k.
    floor : float
        The least eigenvalue of a covariance.

    Returns
    -------
    Check
        Divided by the largest variance; tolerance 1e-12.

    Raises
    ------
    ValueError
        If floor is negative, or so large that every covariance is the floor.
    """
    check_callable(maximum, "maximum(type, variance, count)")
    _not_hidden(spread, floor)
    D = spread.shape[1]
    priors = ((1.0, 0.0), (0.7, 3.0))
    cases = [(kind, *prior) for kind in KINDS for prior in priors]

    def raised(covariances: Array, floor: float = floor) -> Array:
        return np.array([floored(C, floor) for C in covariances])

    def best(kind: str, variance: float, count: float, *, spread: Array = spread) -> Array:
        """The prior's examples belong to each component; for the type "tied" to all of them together."""
        given = of_kind(spread, counts, kind)
        n = counts.sum() if kind == "tied" else counts[:, None, None]
        return (n * given + count * variance * np.eye(D)) / (n + count)

    def denominator(kind: str) -> Any:
        return counts.sum() if kind == "tied" else counts[:, None, None]

    unit = np.abs(spread).max()
    equal = np.full(len(counts), counts.mean())
    per = (counts / counts.sum())[:, None, None]
    mistakes: dict[str, Callable[..., ArrayLike]] = {
        "the prior is left out": lambda kind, variance, count: raised(best(kind, 1.0, 0.0)),
        "the floor is not applied": lambda *case: best(*case),
        "a ridge, the floor, is added to them": lambda *case: best(*case) + floor * np.eye(D),
        "the variances are raised to the floor, not the eigenvalues": lambda *case: (
            best(*case) + np.maximum(floor - best(*case), 0) * np.eye(D)
        ),
        "the tied one is the plain average of the components, not weighted by N_k": lambda kind, *prior: raised(
            best(kind, *prior, spread=of_kind(spread, equal, kind) if kind == "tied" else spread)
        ),
        "the spherical one is the trace, not divided by D": lambda kind, *prior: raised(
            best(kind, *prior, spread=D * spread if kind == "spherical" else spread)
        ),
        "the spherical one is the trace, with the prior, not divided by D": lambda kind, *prior: raised(
            best(kind, *prior) * (D if kind == "spherical" else 1)
        ),
        "the diagonal one keeps the whole matrix": lambda kind, *prior: raised(
            best("full" if kind == "diag" else kind, *prior)
        ),
        "they are standard deviations": lambda *case: np.sqrt(np.abs(raised(best(*case)))),
        "they are divided by N, not by N_k": lambda *case: raised(best(*case) * per),
        "the prior adds its count but not its variance": lambda kind, variance, count: raised(best(kind, 0.0, count)),
        "the prior adds its variance but is not counted in the denominator": lambda kind, variance, count: raised(
            best(kind, variance, count) * (denominator(kind) + count) / denominator(kind)
        ),
        "the prior is added K times, once for every component, to the tied one": lambda kind, variance, count: raised(
            best(kind, variance, count * (len(counts) if kind == "tied" else 1))
        ),
        "the prior counts once, with variance but without `count`": lambda kind, variance, count: raised(
            best(kind, variance, float(count > 0))
        ),
    }

    def right(*case: Any) -> Array:
        return raised(best(*case))

    def only(wrong: Callable[..., ArrayLike], where: Callable[..., bool]) -> Callable[..., ArrayLike]:
        """The mistake in some of the cases, and the right value in the others."""
        return lambda *case: wrong(*case) if where(*case) else right(*case)

    for text, wrong in list(mistakes.items()):
        for kind in KINDS:
            mistakes[f"{text}, for the type “{kind}” only"] = only(wrong, lambda k, *_, kind=kind: k == kind)
        mistakes[f"{text}, but not for the type “tied”"] = only(wrong, lambda k, *_: k != "tied")
        mistakes[f"{text}, without a prior only"] = only(wrong, lambda kind, variance, count: count == 0)
        mistakes[f"{text}, with a prior only"] = only(wrong, lambda kind, variance, count: count > 0)
    return compare(
        "check_covariance_types",
        "(15)",
        "the covariances, in units",
        [result(maximum(*case), "maximum") / unit for case in cases],
        [raised(best(*case)) / unit for case in cases],
        1e-12,
        through(lambda values: np.array(values) / unit, at_each(cases, mistakes)),
        labels=lambda index: (
            f"the covariance {index[2:]} of component {index[1]}, type {cases[index[0]][0]}, "
            f"{'with' if cases[index[0]][2] else 'without'} a prior, in units,"
        ),
    )
