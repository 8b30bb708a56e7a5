"""Initial values of EM: k-means++ seeds, Lloyd's algorithm, and the initial mixture."""

import numpy as np

from scratchgen.em.gaussian import (
    Prior,
    covariance_maximum,
    floored_mixture,
    m_step,
    m_step_from_statistics,
    sample_moments,
    statistics_of_labels,
)
from scratchgen.mixture import Mixture
from scratchgen.validation import Array, IntArray, as_choice, as_count, as_samples, check_rng, weighted_rows

STARTS = ("k-means++", "kmeans", "random_from_data", "random")
MOST_ROWS = 100_000  # of a start
MOST_NUMBERS = 2**20  # in the rows of a start, 8 MB of float64, but 100 rows a component or more
BLOCK = 131_072  # distances computed at a time, a megabyte
EQUAL = 1e-9  # relative difference of distances that count as equal, since rounding depends on the unit of x


def _shares(weights: Array) -> Array | None:
    """Probabilities ∝ weights for `rng.choice`; None, its uniform draw, if all weights are equal."""
    return None if np.ptp(weights) == 0 else weights / weights.sum()


def kmeans_plus_plus(x: Array, n_centres: int, rng: np.random.Generator, sample_weight: Array | None = None) -> Array:
    """k-means++ seeds, (n_centres, D): rows of x with probability ∝ squared distance to the nearest earlier seed.

    With weights w, (N,), the first seed has probability ∝ w, and the others w times the squared distance.
    """
    check_rng(rng)
    n_centres = as_count(n_centres, "n_centres")
    x, weights = weighted_rows(as_samples(x), sample_weight)  # squares of small ints would overflow
    centres = [x[rng.choice(len(x), p=_shares(weights))]]
    distance = ((x - centres[0]) ** 2).sum(axis=1)
    for _ in range(1, n_centres):
        far = weights * distance
        total = far.sum()
        row = rng.choice(len(x), p=far / total if total > 0 else _shares(weights))
        centres.append(x[row])
        distance = np.minimum(distance, ((x - x[row]) ** 2).sum(axis=1))
    return np.array(centres)


def some_rows(x: Array, sample_weight: Array, n_components: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """At most MOST_ROWS rows of x, (N, D), as float64, and their weights; all of them, or rows without replacement.

    A start needs no more: the E-steps that follow use all rows.
    """
    check_rng(rng)
    x, weights = weighted_rows(as_samples(x), sample_weight)
    n = min(MOST_ROWS, max(MOST_NUMBERS // x.shape[1], 100 * as_count(n_components, "n_components")))
    if len(x) > n:
        rows = np.sort(rng.choice(len(x), size=n, replace=False, shuffle=False))
        x, weights = x[rows], weights[rows]
    return x.astype(np.float64, copy=False), weights


def nearest(x: Array, centres: Array) -> IntArray:
    """Index of the nearest centre, (N,), for x (N, D) and centres (K, D); the first one at equal distances."""
    x = as_samples(x)
    centres = as_samples(centres, "centres", dimension=x.shape[1], model="x")
    from scipy.spatial.distance import cdist  # here and not at the top, since SciPy is slow to import

    rows = max(BLOCK // len(centres), 1)
    blocks = (cdist(x[start : start + rows], centres, "sqeuclidean") for start in range(0, len(x), rows))
    return np.concatenate([(d <= (1 + EQUAL) * d.min(axis=1, keepdims=True)).argmax(axis=1) for d in blocks])


def clusters(x: Array, centres: Array) -> IntArray:
    """Labels of the nearest centre, (N,), changed so that no cluster is empty if N >= K.

    An empty cluster gets one point: the point farthest from its own centre among the clusters with more than one point.

    Parameters
    ----------
    x : (N, D)
    centres : (K, D)
    """
    x, centres = as_samples(x), as_samples(centres, "centres")
    labels = nearest(x, centres)
    sizes = np.bincount(labels, minlength=len(centres))
    spare = len(x) - np.count_nonzero(sizes)
    for k in np.flatnonzero(sizes == 0)[:spare]:
        distance = ((x - centres[labels].astype(np.float64)) ** 2).sum(axis=1)
        distance = np.where(sizes[labels] > 1, distance, -1.0)
        row = (distance >= (1 - EQUAL) * distance.max()).argmax()
        sizes[labels[row]] -= 1
        labels[row], sizes[k] = k, 1
    return labels


def kmeans(x: Array, centres: Array, max_iter: int = 300, sample_weight: Array | None = None) -> Array:
    """Lloyd's algorithm for x (N, D) from initial `centres` (K, D): the centres, (K, D), when labels stop changing.

    With weights w, (N,), a centre is the weighted mean of its points.
    """
    max_iter = as_count(max_iter, "max_iter")
    x, weights = weighted_rows(as_samples(x), sample_weight)
    centres = as_samples(centres, "centres", dimension=x.shape[1], model="x")
    centres, labels = np.array(centres, dtype=np.float64), np.full(len(x), -1)
    for _ in range(max_iter):
        previous, labels = labels, clusters(x, centres)
        if np.array_equal(labels, previous):
            break
        for k in np.unique(labels):
            own = labels == k
            centres[k] = np.average(x[own], axis=0, weights=weights[own])
    return centres


def starting_mixture(
    x: Array,
    n_components: int,
    method: str,
    rng: np.random.Generator,
    covariance_floor: float | Array,
    covariance_type: str = "full",
    covariance_prior: Prior | None = None,
    means: Array | None = None,
    sample_weight: Array | None = None,
) -> Mixture:
    """The initial mixture: one M-step from the responsibilities of a method in `STARTS`, for `some_rows` of x.

    Parameters
    ----------
    x : (N, D)
    n_components : int
        K.
    method : {"k-means++", "kmeans", "random_from_data", "random"}
        "k-means++": every point joins its nearest k-means++ seed.  "kmeans": the same after Lloyd's algorithm.
        "random_from_data": every point joins the nearest of K random rows of x.  "random": random responsibilities.
        Rows are drawn in proportion to their weights.  Distances are in units of the standard deviation of each column,
        so that the start does not depend on their units; for "spherical", whose columns share one unit, in that unit.
    rng : Generator
    covariance_floor, covariance_type, covariance_prior
        As for `m_step`.
    means : (K, D), optional
        Every point joins the nearest of these means, and `method` is not used.
    sample_weight : (N,), optional
        Weights of the rows, as for `m_step`.

    Raises
    ------
    ValueError
        As for `m_step`.
    """
    n_components = as_count(n_components, "n_components")
    x, sample_weight = weighted_rows(as_samples(x), sample_weight)
    as_choice(method, "method", STARTS)
    check_rng(rng)
    D, K = x.shape[1], n_components
    mean, spread = sample_moments(x, sample_weight)
    centre = np.tile(mean, (K, 1))
    same = np.tile(spread, (K, 1, 1)), np.full(K, sample_weight.sum() / K)
    covariances = covariance_maximum(*same, covariance_type, covariance_floor)
    whole = floored_mixture(np.full(K, 1 / K), centre, covariances, covariance_floor)
    options = covariance_floor, covariance_type, covariance_prior
    x, sample_weight = some_rows(x, sample_weight, K, rng)
    N = len(x)
    if means is None and method == "random":
        resp = rng.random((N, K))
        return m_step(x, np.log(resp / resp.sum(axis=1, keepdims=True)), whole, *options, sample_weight)
    deviations = np.ones(D) if covariance_type == "spherical" else np.sqrt(spread.diagonal())
    units = np.where(deviations > 0, deviations, 1.0)  # a constant column adds nothing to distances
    scaled = x / units
    if means is not None:
        centres = means / units
    elif method == "random_from_data":
        centres = scaled[rng.choice(N, size=K, replace=False, p=_shares(sample_weight))]
    else:
        centres = kmeans_plus_plus(scaled, K, rng, sample_weight)
        centres = kmeans(scaled, centres, sample_weight=sample_weight) if method == "kmeans" else centres
    statistics = statistics_of_labels(x, clusters(scaled, centres), whole, sample_weight)
    return m_step_from_statistics(statistics, whole, *options)
