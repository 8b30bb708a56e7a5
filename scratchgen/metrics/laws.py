"""Distances between the laws of two sets of rows: Fréchet distance, maximum mean discrepancy, sliced W₂."""

import numpy as np

from scratchgen.blocks import blocks
from scratchgen.metrics.distances import as_pair, distance_blocks
from scratchgen.validation import RNG, Array, ArrayLike, as_arrays, as_count, as_finite, as_generator, as_number

MEDIAN_ROWS = 1000  # rows of each set, evenly spaced, of which the median rule looks at all pairs


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance of the Gaussians with the moments of two sets of rows, in squared units of x.

        ‖m_x − m_y‖² + tr(C_x + C_y − 2 (C_x^½ C_y C_x^½)^½)

    This is the W₂² of the two Gaussians (Dowson and Landau 1982).  Heusel et al. (2017) compute it from features of a
    network; here it is that of the rows themselves.  Rows of one law have a positive distance on average, which falls
    as 1/n: compare the distance with that of data to data at the same numbers of rows.

    Parameters
    ----------
    x, y : (N, D), (M, D)
        Two rows or more each.  Covariances C are those of `numpy.cov`, with divisors N − 1 and M − 1.

    Raises
    ------
    TypeError, ValueError
        If x or y is not an array of finite real numbers of such a shape.

    Notes
    -----
    For C = RᵀR the second term is the least ‖R_x − Q R_y‖² over orthogonal matrices Q (Procrustes).  In this form it is
    not the difference of large numbers, and it needs no square root of a matrix: R is the triangle of a QR
    decomposition of the centred rows.
    """
    x, y = as_pair(x, y, n_min=2)
    factor_x, factor_y = _covariance_factor(x), _covariance_factor(y)
    u, _, v = np.linalg.svd(factor_x @ factor_y.T)
    shift = x.mean(axis=0) - y.mean(axis=0)
    return float(shift @ shift + ((factor_x - u @ v @ factor_y) ** 2).sum())


def _covariance_factor(x: Array) -> Array:
    """R, (D, D), with RᵀR the covariance of x, (N, D)."""
    triangle = np.linalg.qr(x - x.mean(axis=0), mode="r") / (len(x) - 1) ** 0.5
    factor = np.zeros((x.shape[1], x.shape[1]))
    factor[: len(triangle)] = triangle
    return factor


def median_bandwidth(x: ArrayLike, y: ArrayLike) -> float:
    """Median distance of two rows of x, (N, D), and y, (M, D), together, in units of x; the mean if the median is 0.

    Gretton et al. (2012) take the median for the bandwidth of the Gaussian kernel.  It is 0 for tables of a few whole
    numbers, where half of the pairs are equal rows.  Of more than 1000 rows of a set, 1000 of even spacing are taken.

    Raises
    ------
    TypeError, ValueError
        If x or y is not an array of finite real numbers, or all rows are equal.
    """
    from scipy.spatial.distance import pdist

    distances = pdist(np.concatenate([_some_rows(rows) for rows in as_pair(x, y)]))
    bandwidth = float(np.median(distances)) or float(distances.mean())
    if bandwidth == 0:
        raise ValueError("x and y must have different rows, but all rows are equal; pass rows that vary")
    return bandwidth


def _some_rows(x: Array) -> Array:
    """All rows of x, (N, D), or MEDIAN_ROWS of even spacing."""
    return x[np.linspace(0, len(x) - 1, min(len(x), MEDIAN_ROWS)).astype(np.int64)]


def mmd2(x: ArrayLike, y: ArrayLike, bandwidth: float | None = None) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, eq. 3).

        mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{i,j} k(x_i, y_j),  k(a, b) = exp(−‖a − b‖²/2h²)

    The mean of the estimate is MMD² ≥ 0, and 0 only if both sets have one law.  The estimate itself may be negative.
    MMD² has no units.

    Parameters
    ----------
    x, y : (N, D), (M, D)
        Two rows or more each.
    bandwidth : float, optional
        h, in units of x.  None is the `median_bandwidth` of x and y.  The estimate then still has the mean 0 for two
        sets of one law, up to 1000 rows a set: h is a symmetric function of all rows.

    Raises
    ------
    TypeError, ValueError
        If x or y is not an array of finite real numbers of such a shape, or bandwidth is not a positive number.
    """
    x, y = as_pair(x, y, n_min=2)
    h = median_bandwidth(x, y) if bandwidth is None else as_number(bandwidth, "bandwidth", low=0.0, open_low=True)
    n, m = len(x), len(y)
    within_x = (_kernel_sum(x, x, h) - n) / (n * (n - 1))  # k(x_i, x_i) = 1
    within_y = (_kernel_sum(y, y, h) - m) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, h) / (n * m)


def _kernel_sum(x: Array, y: Array, h: float) -> float:
    """Σ_{i,j} exp(−‖x_i − y_j‖²/2h²)."""
    return float(sum(np.exp(-0.5 * (distances / h) ** 2).sum() for _, distances in distance_blocks(x, y)))


def sliced_wasserstein2(
    x: ArrayLike, y: ArrayLike, n_directions: int = 100, rng: RNG = None, *, directions: ArrayLike | None = None
) -> float:
    """Mean of W₂²(θ·x, θ·y) over directions θ, in squared units of x (Rabin et al. 2011; Bonneel et al. 2015).

    Each W₂² is exact: on a line the best coupling joins equal quantiles, also of different numbers of rows.  A shift by
    c alone gives ‖c‖²/D on average over the directions.

    Parameters
    ----------
    x, y : (N, D), (M, D)
    n_directions : int
        Number of directions, uniform on the sphere, that rng draws.
    rng : int, Generator or None
    directions : (L, D), optional
        Directions in place of those of rng.  Each is divided by its length.

    Raises
    ------
    TypeError, ValueError
        If x or y is not an array of finite real numbers, n_directions is not a positive integer, or a direction is 0 or
        has another number of columns.
    """
    x, y = as_pair(x, y)
    n_directions, rng = as_count(n_directions, "n_directions"), as_generator(rng)
    if directions is None:
        directions = rng.standard_normal((n_directions, x.shape[1]))
    theta = as_arrays("directions (L, D)", as_finite(directions, "directions"), D=x.shape[1])
    theta = theta.astype(np.float64, copy=False)
    lengths = np.linalg.norm(theta, axis=1, keepdims=True)
    if not len(theta) or not lengths.all():
        raise ValueError(f"directions must be one or more vectors, none of them 0, got {directions!r:.60}; drop zeros")
    theta = theta / lengths
    total = 0.0
    for some in blocks(len(theta), len(x) + len(y)):
        total += float(_line_wasserstein2(x @ theta[some].T, y @ theta[some].T).sum())
    return total / len(theta)


def _line_wasserstein2(x: Array, y: Array) -> Array:
    """W₂² of columns, (L,), for x (N, L) and y (M, L): ∫₀¹ (F_x⁻¹(u) − F_y⁻¹(u))² du.

    Both quantile functions are constant between the levels i/N and j/M, which whole numbers M i and N j represent.
    """
    n, m = len(x), len(y)
    edges = np.union1d(m * np.arange(n + 1), n * np.arange(m + 1))
    left = edges[:-1]
    gaps = np.sort(x, axis=0)[left // m] - np.sort(y, axis=0)[left // n]
    return np.diff(edges) @ gaps**2 / (n * m)
