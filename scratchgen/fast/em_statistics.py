"""`em.e_step` and `em.sufficient_statistics` of a `Mixture` in one pass over the data."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from scratchgen.em.algorithm import e_step
from scratchgen.em.gaussian import SufficientStatistics, sufficient_statistics
from scratchgen.likelihood import quiet_log
from scratchgen.mixture import Mixture
from scratchgen.validation import Array, IntArray, as_sample_weight

BLOCK = 131_072  # numbers in a block of rows, a megabyte; smaller blocks took 1.1 to 1.9x as long
NEGLIGIBLE = -700.0  # log of the least responsibility above 0; exp(−708) is subnormal: inexact and 10 to 50x as slow
UNSEEN = 1e-290  # smaller counts are taken as 0; they have no correct digits, since responsibilities below 1e-304 are 0
SAFE = 1e4  # largest `condition` for quadratic features, which then lose at most four of sixteen digits
FAR = 1e11  # largest `condition` for whitened coordinates, whose errors then are at most 1e-10 of a component's width
STILL = 1e-16  # smaller squares of a move, in units of the component's variance, are rounding of a constant column


def expected_statistics(
    x: Array, mixture: Mixture, diagonal: bool = False, sample_weight: Array | None = None
) -> tuple[SufficientStatistics, float]:
    """Sufficient statistics under q = p_θ(z | x), (18), and the mean of log p_θ(x_n), (16), nats.

    The function replaces `em.e_step` followed by `em.sufficient_statistics`.  It takes a block of rows at a time, so
    that memory does not grow with N.  There are three forms, from the fastest to the most accurate.

    * `quadratic_sums`, if it has fewer terms, (D + 1)(D + 2)/2 < K (D + 1), and `condition` is below SAFE.
      `quadratic_sums` is then 1.5 to 5 times as fast as `whitened_sums`.
    * `whitened_sums`, if `condition` is below FAR.
    * `statistics_of_blocks`, if components lie farther apart, and if a component moves by more than √SAFE of its new
      standard deviations.  The first two forms would then lose its variance, a small difference of large averages.

    A component with a count below 1e-290 is treated as one with count 0, whereas `em.sufficient_statistics`, which
    works in logarithms, still finds its mean and covariance.

    Parameters
    ----------
    x : (N, D)
    mixture : Mixture
    diagonal : bool
        The mixture's covariances are diagonal, and the caller uses only the diagonals of the resulting covariances; the
        other entries are then arbitrary.
    sample_weight : (N,), optional
        Weights w of the examples; 1 for every example if None.

    Returns
    -------
    statistics : SufficientStatistics
    log_likelihood : float
        Σ_n w_n log p_θ(x_n) / Σ_n w_n, nats.

    Raises
    ------
    ValueError
        If x has no rows, or `diagonal` is True and a covariance is not diagonal.
    """
    K, D = mixture.means.shape
    if len(x) == 0:
        raise ValueError("x must have at least one row, since averages over no rows are not defined, got shape (0, D)")
    if diagonal and (mixture.covariances * (1 - np.eye(D))).any():
        raise ValueError("diagonal must be False for a mixture whose covariances are not diagonal, got True")
    weights = None if sample_weight is None else as_sample_weight(sample_weight, len(x))
    amplified = condition(mixture)
    if amplified >= FAR:
        return statistics_of_blocks(x, mixture, weights)
    quadratic = amplified < SAFE and len(_pairs(D, diagonal)[0]) < K * (D + 1)
    sums, log_likelihood = (
        quadratic_sums(x, mixture, diagonal, weights) if quadratic else whitened_sums(x, mixture, weights)
    )
    counts, means, covariances = sums[:, D, D], mixture.means.copy(), mixture.covariances.copy()
    log_counts, seen = np.full(K, -np.inf), counts > UNSEEN
    own = sums[seen]
    averages = own / own[:, D:, D:]
    shift = averages[:, :D, D]
    moved = shift[:, :, None] * shift[:, None]
    spread = averages[:, :D, :D] - moved
    far = moved.diagonal(0, 1, 2) > SAFE * spread.diagonal(0, 1, 2)
    if far.any():
        unit = covariances[seen].diagonal(0, 1, 2) if quadratic else 1.0
        if (far & (moved.diagonal(0, 1, 2) > STILL * unit)).any():
            return statistics_of_blocks(x, mixture, weights)
    log_counts[seen] = np.log(counts[seen])
    if quadratic:
        means[seen], covariances[seen] = mixture.mean() + shift, spread
    else:  # from whitened coordinates to those of x
        factors = np.linalg.cholesky(mixture.covariances[seen])
        means[seen] += (factors @ shift[:, :, None])[:, :, 0]
        covariances[seen] = factors @ spread @ factors.swapaxes(1, 2)
    return SufficientStatistics(log_counts, means, covariances), log_likelihood / _total_weight(x, weights)


def statistics_of_blocks(
    x: Array, mixture: Mixture, weights: Array | None = None
) -> tuple[SufficientStatistics, float]:
    """`em.e_step` and `em.sufficient_statistics` of blocks of rows, added up; results as for `expected_statistics`.

    Every block has its averages about its own means.  No digits are lost, wherever the data and the mixture lie, but
    the computation takes 1.8 to 5 times as long as `whitened_sums`.
    """
    K, D = mixture.means.shape
    total, log_likelihood = SufficientStatistics(np.full(K, -np.inf), mixture.means, mixture.covariances), 0.0
    for block, w in _blocks(x, weights, K * (D + 1)):
        log_resp, log_prob = e_step(block, mixture)
        if w is not None:
            log_resp, log_prob = log_resp + quiet_log(w)[:, None], w * log_prob
        total += sufficient_statistics(block, log_resp, mixture)
        log_likelihood += float(log_prob.sum())
    unseen = total.log_counts < np.log(UNSEEN)
    means = np.where(unseen[:, None], mixture.means, total.means)
    covariances = np.where(unseen[:, None, None], mixture.covariances, total.covariances)
    log_counts = np.where(unseen, -np.inf, total.log_counts)
    return SufficientStatistics(log_counts, means, covariances), log_likelihood / _total_weight(x, weights)


def _total_weight(x: Array, weights: Array | None) -> float:
    """Σ_n w_n; N without weights."""
    return len(x) if weights is None else float(weights.sum())


def condition(mixture: Mixture) -> float:
    """Factor by which rounding errors grow in sums of squares about the mixture's mean c.

    The factor is the largest squared norm of a row of L_k⁻¹, over all k, times the largest E_k ‖x − c‖².  For D = 1 to
    64 the measured errors of means, in units of a component's own width, were at most 7e-16 times this factor.
    """
    away = ((mixture.means - mixture.mean()) ** 2).sum(axis=1)
    extent = mixture.covariances.trace(0, 1, 2) + away
    return float((mixture.whitening**2).sum(axis=2).max() * extent.max())


def quadratic_sums(
    x: Array, mixture: Mixture, diagonal: bool = False, weights: Array | None = None
) -> tuple[Array, float]:
    """Σ_n w_n q(k | x_n) u uᵀ for u = [x_n − c; 1], (K, D + 1, D + 1), and Σ_n w_n log p_θ(x_n), nats.

    w_n are the weights of the examples, and c is the mixture's mean.  log π_k N(x; m_k, C_k) and the sums are both
    linear in the products u_i u_j, i <= j, so that each is one matrix product.  Diagonal covariances need only u_i² and
    u_i; the other sums are then 0.
    """
    (K, D), centre = mixture.means.shape, mixture.mean()
    i, j = _pairs(D, diagonal)
    maps = _whitening_maps(mixture, centre)
    forms = -0.5 * maps.swapaxes(1, 2) @ maps
    forms[:, D, D] += np.maximum(mixture.log_peaks, -1e300)  # −inf (weight 0) times 0 would be NaN
    coefficients = np.where(i == j, 1, 2) * forms[:, i, j]
    sums, log_likelihood = np.zeros_like(coefficients), 0.0
    for block, w in _blocks(x, weights, K + len(i)):
        products = _products(_from_centre(block, centre), diagonal)
        q = coefficients @ products  # log p_θ(k, x_n), until `_normalise` replaces it by w_n q(k | x_n)
        log_likelihood += _normalise(q, w)
        sums += q @ products.T
    symmetric = np.zeros_like(forms)
    symmetric[:, i, j] = symmetric[:, j, i] = sums
    return symmetric, log_likelihood


@cache
def _pairs(D: int, diagonal: bool) -> tuple[IntArray, IntArray]:
    """Indices i and j of the products u_i u_j, in the order of `_products`."""
    if diagonal:
        return np.r_[: D + 1, :D], np.r_[: D + 1, np.full(D, D)]
    return np.triu_indices(D + 1)


def _products(u: Array, diagonal: bool) -> Array:
    """Products u_i u_j, one row a pair: (D + 1)(D + 2)/2 rows, or 2D + 1 if diagonal."""
    if diagonal:
        return np.concatenate([u * u, u[:-1]])
    products, end = np.empty((len(u) * (len(u) + 1) // 2, u.shape[1])), 0
    for row in range(len(u)):
        start, end = end, end + len(u) - row
        np.multiply(u[row], u[row:], out=products[start:end])
    return products


def whitened_sums(x: Array, mixture: Mixture, weights: Array | None = None) -> tuple[Array, float]:
    """Σ_n w_n q(k | x_n) y yᵀ for y = [L_k⁻¹ (x_n − m_k); 1], (K, D + 1, D + 1), and Σ_n w_n log p_θ(x_n), nats.

    w_n are the weights of the examples, and C_k = L_k L_kᵀ.  The last column holds the sums of L_k⁻¹ (x_n − m_k), and
    its last entry the count N_k.  In these coordinates all averages are of order 1, wherever the data lie.
    """
    (K, D), centre = mixture.means.shape, mixture.mean()
    maps = np.zeros((K, D + 1, D + 1))  # [x − c; 1] → [y_k; 1]
    maps[:, :D], maps[:, D, D] = _whitening_maps(mixture, centre), 1.0
    sums, log_likelihood = np.zeros_like(maps), 0.0
    for block, w in _blocks(x, weights, K * (D + 1)):
        y = (maps.reshape(-1, D + 1) @ _from_centre(block, centre)).reshape(K, D + 1, -1)
        q = mixture.log_peaks[:, None] - 0.5 * np.einsum("kdn,kdn->kn", y[:, :D], y[:, :D])
        log_likelihood += _normalise(q, w)
        for k in range(K):
            sums[k] += _weighted_squares(y[k], q[k])
    return sums, log_likelihood


def _weighted_squares(y: Array, q: Array) -> Array:
    """Σ_n q_n y_n y_nᵀ for y of shape (D + 1, n)."""
    if len(y) < 32:
        return (y * q) @ y.T
    y = y * np.sqrt(q)  # BLAS computes half of the symmetric y yᵀ: a quarter less time in 64 dimensions,
    return y @ y.T  # but 1.1 to 1.2 times as much in 2 to 8


def _whitening_maps(mixture: Mixture, centre: Array) -> Array:
    """Matrices of the maps [x − c; 1] → L_k⁻¹ (x − m_k), (K, D, D + 1)."""
    shifts = mixture.whitening @ (centre - mixture.means)[:, :, None]
    return np.concatenate([mixture.whitening, shifts], axis=2)


def _blocks(x: Array, weights: Array | None, numbers: int) -> Iterator[tuple[Array, Array | None]]:
    """Yield blocks of the rows of x and their weights; with `numbers` numbers a row a block has BLOCK numbers."""
    rows = max(BLOCK // numbers, 1)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        yield x[block], None if weights is None else weights[block]


def _from_centre(block: Array, centre: Array) -> Array:
    """[x − c; 1], (D + 1, rows), for a block of rows."""
    u = np.ones((len(centre) + 1, len(block)))
    np.subtract(block.T, centre[:, None], out=u[:-1])
    return u


def _normalise(joint: Array, weights: Array | None) -> float:
    """Replace log p_θ(k, x_n), (K, n), by w_n q(k | x_n), in place; return Σ_n w_n log p_θ(x_n), nats.

    Without weights every w_n is 1.
    """
    top = joint.max(axis=0)
    joint -= top
    least = joint.min()
    if least < NEGLIGIBLE:
        np.clip(joint, NEGLIGIBLE, 0.0, out=joint)
    np.exp(joint, out=joint)
    if least < NEGLIGIBLE:
        joint -= joint.min()  # negligible responsibilities become 0
    total = joint.sum(axis=0)
    log_prob = top + np.log(total)
    if weights is None:
        joint /= total
        return float(log_prob.sum())
    joint *= weights / total
    return float(weights @ log_prob)
