"""Quality, variety and copies by nearest neighbours: precision, recall, density, coverage, memorisation."""

from typing import NamedTuple

import numpy as np

from scratchgen.metrics.distances import as_pair, as_rows, distance_blocks, nearest_distances, neighbour_radii
from scratchgen.validation import Array, ArrayLike, as_arrays, as_count, as_finite, as_number


class PrecisionRecall(NamedTuple):
    """Shares of rows in the neighbourhoods of the other set."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density and coverage of Naeem et al."""

    density: float
    coverage: float


class Memorisation(NamedTuple):
    """Median of the samples' distances over that of the held-out rows, and both sets of distances, in units of x."""

    ratio: float
    samples: Array  # (n,), distance of every sample to the nearest row of training
    held_out: Array  # (m,), distance of every held-out row to the nearest row of training


def precision_recall(x: ArrayLike, y: ArrayLike, k: int = 5) -> PrecisionRecall:
    """Improved precision and recall of samples y for data x (Kynkäänniemi et al. 2019, eq. 1 and 2).

    A row is in the neighbourhood of a set if it lies in a ball around one of its rows, whose radius is the distance of
    this row to its k-th nearest other row of the set.  Precision is the share of y in the neighbourhood of x, and
    recall that of x in the neighbourhood of y.  A copy of the data has 1 for both: look at `nearest_train_ratio` too.

    Parameters
    ----------
    x, y : (N, D), (M, D)
        Data and samples, more than k rows each.
    k : int

    Raises
    ------
    TypeError, ValueError
        If x or y is not an array of finite real numbers of such a shape, or k is not a positive integer.
    """
    k = as_count(k, "k")
    x, y = as_pair(x, y, n_min=k + 1)
    return PrecisionRecall(_share_inside(y, x, k), _share_inside(x, y, k))


def _share_inside(points: Array, centres: Array, k: int) -> float:
    """Share of points, (M, D), in one ball or more of radius `neighbour_radii` around the centres, (N, D)."""
    radii = neighbour_radii(centres, k)
    inside = sum(int((distances <= radii).any(axis=1).sum()) for _, distances in distance_blocks(points, centres))
    return inside / len(points)


def density_coverage(x: ArrayLike, y: ArrayLike, k: int = 5) -> DensityCoverage:
    """Density and coverage of samples y for data x (Naeem et al. 2020, eq. 5 and 6).

    Balls are those of `precision_recall` around the data.  Density is the mean number of balls that a sample is in,
    divided by k; coverage is the share of the balls with a sample inside.  For two sets of one continuous law the mean
    of the density is 1, and that of the coverage is `expected_coverage`.

    Parameters
    ----------
    x, y : (N, D), (M, D)
        Data, more than k rows, and samples.
    k : int

    Raises
    ------
    TypeError, ValueError
        If x or y is not an array of finite real numbers of such a shape, or k is not a positive integer.
    """
    k = as_count(k, "k")
    x, y = as_pair(x, y)
    x = as_rows(x, "x", k + 1)
    radii = neighbour_radii(x, k)
    counts = np.zeros(len(x))
    for _, distances in distance_blocks(y, x):
        counts += (distances <= radii).sum(axis=0)
    return DensityCoverage(float(counts.sum() / (k * len(y))), float((counts > 0).mean()))


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """Mean coverage of n rows of data by m samples of the same continuous law (Naeem et al. 2020, lemma 2).

        1 − Π_{i=1}^k (n − i)/(n + m − i)

    The k rows nearest to a row of data are all data, and no sample, with the probability of the product.

    Raises
    ------
    TypeError, ValueError
        If n, m or k is not a positive integer, or n is not above k.
    """
    k, m = as_count(k, "k"), as_count(m, "m")
    n = as_count(n, "n", minimum=k + 1)
    i = np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (n + m - i)))


def nearest_train_ratio(samples: ArrayLike, train: ArrayLike, held_out: ArrayLike) -> Memorisation:
    """Median distance of samples to the nearest row of training, over that of held-out rows.

    The ratio is 1 for samples of the law of the data, and well below 1 if a model copies its training data: compare the
    distributions too, since some copies among many other samples do not move the median.  Distances depend on the units
    of the columns.

    Parameters
    ----------
    samples, train, held_out : (n, D), (N, D), (m, D)
        Samples of a model, all rows that it was trained on, and other rows of the same law.

    Returns
    -------
    Memorisation
        ratio, and the distances of samples, (n,), and of held-out rows, (m,).

    Raises
    ------
    TypeError, ValueError
        If an argument is not an array of finite real numbers of such a shape, or half of the held-out rows or more are
        in train, so that there is no ratio.
    """
    train, samples = as_pair(train, samples, names=("train", "samples"))
    train, held_out = as_pair(train, held_out, names=("train", "held_out"))
    own, others = nearest_distances(samples, train), nearest_distances(held_out, train)
    scale = float(np.median(others))
    if scale == 0:
        raise ValueError(
            "held_out must be rows that the model was not trained on, but half of them or more are also rows of train; "
            "leave these out"
        )
    return Memorisation(float(np.median(own)) / scale, own, others)


def count_copies(samples: ArrayLike, row: ArrayLike, radius: float = 0.0) -> int:
    """Number of samples, (n, D), whose distance to one row, (D,), is at most `radius`, in units of the row.

    The row is a canary if it was repeated in the training data on purpose.

    Raises
    ------
    TypeError, ValueError
        If samples or row is not an array of finite real numbers of such a shape, or radius is negative.
    """
    rows = as_rows(samples, "samples")
    centre: Array = as_arrays("row (D)", as_finite(row, "row"), D=rows.shape[1])
    radius = as_number(radius, "radius", low=0.0)
    return sum(int((distances <= radius).sum()) for _, distances in distance_blocks(rows, centre[None]))
