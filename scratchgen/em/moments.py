"""What an M-step needs of the data, gathered in one pass over them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from scratchgen.mixture import Mixture
from scratchgen.validation import Array, BoolArray, IntArray

BLOCK = 131_072  # numbers of one block of rows, a megabyte: smaller ones took 1.1 to 1.5x as long
NEGLIGIBLE = -700.0  # log of a responsibility: soon below, exp is subnormal, inexact, and takes 10 to 50 times as long
UNSEEN = 1e-290  # a count of so little has lost its digits to what is negligible, e^−700 = 1e-304 a row
SAFE = 1e4  # condition below which quadratic features lose no more than four of the sixteen digits


class Moments(NamedTuple):
    """What an M-step needs of the data: Σ_n q(k | x_n), and mean and covariance of x under q(x | k) ∝ q(k | x)."""

    counts: Array  # (K,)
    means: Array  # (K, D); of a component that was not seen the current one
    spread: Array  # (K, D, D); so too
    seen: BoolArray  # (K,): whether as many as 1e-290 examples respond to it


def expected_moments(x: Array, mixture: Mixture, diagonal: bool = False) -> tuple[Moments, float]:
    """The `Moments` at q = p_θ(z | x), (18), and Σ log p_θ(x_n), nats: `e_step` and half of `m_step` in one pass.

    A block of rows at a time, so that memory does not grow with N.  In whitened coordinates, which keep their digits
    wherever the data lie; or with quadratic features where these are safe and fewer, (D + 1)(D + 2)/2 < K (D + 1), and
    then 1.5 to 5 times as fast.  A component to which fewer than 1e-290 examples respond is not seen and keeps its mean
    and covariance, where `m_step`, in logarithms, moves them.

    Parameters
    ----------
    x : (N, D)
    mixture : Mixture
    diagonal : bool
        The mixture's covariances are diagonal, and only the diagonals of `spread` will be used; the others are then
        anything.

    Raises
    ------
    ValueError
        If `diagonal` is said of covariances that are not.
    """
    K, D = mixture.means.shape
    if diagonal and (mixture.covariances * (1 - np.eye(D))).any():
        raise ValueError("diagonal must be False for a mixture whose covariances are not diagonal, got True")
    if len(_pairs(D, diagonal)[0]) < K * (D + 1) and condition(mixture) < SAFE:
        sums, log_likelihood = quadratic_sums(x, mixture, diagonal)
        origins: Array = np.repeat(mixture.mean()[None], K, axis=0)
        factors: Array = np.repeat(np.eye(D)[None], K, axis=0)
    else:
        sums, log_likelihood = whitened_sums(x, mixture)
        origins, factors = mixture.means, np.linalg.cholesky(mixture.covariances)
    counts, means, spread = sums[:, D, D].copy(), mixture.means.copy(), mixture.covariances.copy()
    seen = counts > UNSEEN
    sums, origins, factors = sums[seen] / counts[seen, None, None], origins[seen], factors[seen]
    shift = sums[:, :D, D]
    means[seen] = origins + (factors @ shift[:, :, None])[:, :, 0]
    spread[seen] = factors @ (sums[:, :D, :D] - shift[:, :, None] * shift[:, None]) @ factors.swapaxes(1, 2)
    return Moments(counts, means, spread, seen), log_likelihood


def condition(mixture: Mixture) -> float:
    """By how much rounding grows in sums of squares about the common mean c.

    The largest squared row of an L_k⁻¹ times the largest E_k ‖x − c‖²: measured, errors of a component are at most
    7e-16 times this in units of its own width, for D = 1 to 64.
    """
    away = ((mixture.means - mixture.mean()) ** 2).sum(axis=1)
    extent = np.trace(mixture.covariances, axis1=1, axis2=2) + away
    return float((mixture.whitening**2).sum(axis=2).max() * extent.max())


def quadratic_sums(x: Array, mixture: Mixture, diagonal: bool = False) -> tuple[Array, float]:
    """Σ_n q(k | x_n) u uᵀ for u = [x_n − c; 1] about the mixture's mean c, (K, D + 1, D + 1), and Σ log p_θ(x_n).

    Both log w_k N(x; m_k, C_k) and the sums are linear in the products u_i u_j, i <= j: a matrix product each.
    Diagonal covariances need but u_i² and u_i; the other sums are then 0.
    """
    D, K = mixture.dimension, len(mixture.weights)
    i, j = _pairs(D, diagonal)
    maps = _whitening_maps(mixture)
    forms = -0.5 * maps.swapaxes(1, 2) @ maps
    forms[:, D, D] += np.maximum(mixture.log_scale, -1e300)  # −inf, of weight 0, would meet 0 inside a product
    coefficients = np.where(i == j, 1, 2) * forms[:, i, j]
    sums, log_likelihood = np.zeros_like(coefficients), 0.0
    for u in _blocks(x, mixture, K + len(i)):
        products = _products(u, diagonal)
        q = coefficients @ products
        log_likelihood += _normalise(q)
        sums += q @ products.T
    symmetric = np.zeros_like(forms)
    symmetric[:, i, j] = symmetric[:, j, i] = sums
    return symmetric, log_likelihood


@cache
def _pairs(D: int, diagonal: bool) -> tuple[IntArray, IntArray]:
    """i and j of the products u_i u_j, in the order of `_products`."""
    if diagonal:
        return np.r_[: D + 1, :D], np.r_[: D + 1, np.full(D, D)]
    return np.triu_indices(D + 1)


def _products(u: Array, diagonal: bool) -> Array:
    """u_i u_j, one row a pair: (D + 1)(D + 2)/2 of them, or 2D + 1."""
    if diagonal:
        return np.concatenate([u * u, u[:-1]])
    products, end = np.empty((len(u) * (len(u) + 1) // 2, u.shape[1])), 0
    for row in range(len(u)):
        start, end = end, end + len(u) - row
        np.multiply(u[row], u[row:], out=products[start:end])
    return products


def whitened_sums(x: Array, mixture: Mixture) -> tuple[Array, float]:
    """Σ_n q(k | x_n) y yᵀ for y = [L_k⁻¹ (x_n − m_k); 1], C_k = L_k L_kᵀ, (K, D + 1, D + 1), and Σ log p_θ(x_n).

    The count is in the corner, the mean beside it: all of order 1 in these coordinates wherever the data lie.
    """
    D, K = mixture.dimension, len(mixture.weights)
    maps = np.zeros((K, D + 1, D + 1))  # [x − c; 1] → [y_k; 1]
    maps[:, :D], maps[:, D, D] = _whitening_maps(mixture), 1.0
    sums, log_likelihood = np.zeros_like(maps), 0.0
    for u in _blocks(x, mixture, K * (D + 1)):
        y = (maps.reshape(-1, D + 1) @ u).reshape(K, D + 1, -1)
        q = mixture.log_scale[:, None] - 0.5 * np.einsum("kdn,kdn->kn", y[:, :D], y[:, :D])
        log_likelihood += _normalise(q)
        for k in range(K):
            sums[k] += _weighted_squares(y[k], q[k])
    return sums, log_likelihood


def _weighted_squares(y: Array, q: Array) -> Array:
    """Σ_n q_n y_n y_nᵀ for y of shape (D + 1, n)."""
    if len(y) < 32:
        return (y * q) @ y.T
    y = y * np.sqrt(q)  # z zᵀ is half of a product, which BLAS makes use of: a quarter less time in 64 dimensions,
    return y @ y.T  # but twice as much in 2 to 8


def _whitening_maps(mixture: Mixture) -> Array:
    """[x − c; 1] → L_k⁻¹ (x − m_k), (K, D, D + 1), c being the mixture's mean."""
    shifts = mixture.whitening @ (mixture.mean() - mixture.means)[:, :, None]
    return np.concatenate([mixture.whitening, shifts], axis=2)


def _blocks(x: Array, mixture: Mixture, numbers: int) -> Iterator[Array]:
    """[x − c; 1] for blocks of x, (D + 1, rows), so long that `numbers` a row fill a block."""
    (N, D), centre, rows = x.shape, mixture.mean(), max(BLOCK // numbers, 1)
    for start in range(0, N, rows):
        block = x[start : start + rows].T
        u = np.ones((D + 1, block.shape[1]))
        np.subtract(block, centre[:, None], out=u[:D])
        yield u


def _normalise(joint: Array) -> float:
    """Make log p_θ(k, x_n), (K, n), into q(k | x_n), in place; returns Σ log p_θ(x_n)."""
    top = joint.max(axis=0)
    joint -= top
    least = joint.min()
    if least < NEGLIGIBLE:
        np.clip(joint, NEGLIGIBLE, 0.0, out=joint)
    np.exp(joint, out=joint)
    if least < NEGLIGIBLE:
        joint -= joint.min()  # so that what is negligible is 0
    total = joint.sum(axis=0)
    joint /= total
    return float((top + np.log(total)).sum())


def moments_of_labels(x: Array, labels: IntArray, mixture: Mixture) -> Moments:
    """The `Moments` where every x_n has one component for certain, labels (N,)."""
    K = len(mixture.weights)
    means, spread = mixture.means.copy(), mixture.covariances.copy()
    counts = np.bincount(labels, minlength=K).astype(np.float64)
    for k in np.flatnonzero(counts):
        own = x[labels == k]
        means[k] = own.mean(axis=0)
        own -= means[k]
        spread[k] = own.T @ own / len(own)
    return Moments(counts, means, spread, counts > 0)
