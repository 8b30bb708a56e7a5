"""Distances between rows, by blocks of rows, so that memory does not grow with the product of the numbers of rows."""

from collections.abc import Iterator

import numpy as np

from scratchgen.blocks import blocks
from scratchgen.validation import Array, ArrayLike, as_samples


def as_rows(x: ArrayLike, name: str, n_min: int = 1) -> Array:
    """Return rows, (N, D), as float64; errors as for `as_samples`."""
    return as_samples(x, name, n_min=n_min).astype(np.float64, copy=False)


def as_pair(x: ArrayLike, y: ArrayLike, n_min: int = 1, names: tuple[str, str] = ("x", "y")) -> tuple[Array, Array]:
    """Return two sets of rows, (N, D) and (M, D), as float64.

    Raises
    ------
    TypeError, ValueError
        If one is not an array of finite real numbers with `n_min` rows or more, or their numbers of columns differ.
    """
    first, second = as_rows(x, names[0], n_min), as_rows(y, names[1], n_min)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{names[1]} must have the {first.shape[1]} columns of {names[0]}, got {second.shape[1]}; pass rows with "
            "the same columns, in the same order"
        )
    return first, second


def distance_blocks(x: Array, y: Array, metric: str = "euclidean") -> Iterator[tuple[slice, Array]]:
    """Yield blocks of rows of x, (N, D), and their distances to all rows of y, (M, D), as arrays (rows, M).

    `metric` is "euclidean" or "sqeuclidean".  Distances are sums of squared differences, and not the faster
    ‖x‖² + ‖y‖² − 2 x·y, so that equal rows have the distance 0 and close rows lose no digits.
    """
    from scipy.spatial.distance import cdist

    for rows in blocks(len(x), len(y)):
        yield rows, cdist(x[rows], y, metric)


def nearest_distances(x: Array, y: Array) -> Array:
    """Distance of every row of x, (N, D), to the nearest row of y, (M, D): (N,)."""
    return np.concatenate([distances.min(axis=1) for _, distances in distance_blocks(x, y)])


def neighbour_radii(x: Array, k: int) -> Array:
    """Distance of every row of x, (N, D), to its k-th nearest other row, (N,), for k < N."""
    radii = np.empty(len(x))
    for rows, distances in distance_blocks(x, x):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf  # the row itself
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii
