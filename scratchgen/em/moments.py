"""What an M-step needs of the data, gathered in one pass over them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scratchgen.mixture import Mixture
from scratchgen.validation import Array, BoolArray, IntArray

BLOCK = 131_072  # numbers of one block of rows, a megabyte: smaller ones took 1.1 to 1.5x as long


class Moments(NamedTuple):
    """What an M-step needs of the data: Σ_n q(k | x_n), and mean and covariance of x under q(x | k) ∝ q(k | x)."""

    counts: Array  # (K,)
    means: Array  # (K, D); of a component that was not seen the current one
    spread: Array  # (K, D, D); so too
    seen: BoolArray  # (K,): whether any x responds to it, be it less than a float can count


def expected_moments(x: Array, mixture: Mixture) -> tuple[Moments, float]:
    """The `Moments` at q = p_θ(z | x), (18), and Σ log p_θ(x_n), nats: `e_step` and half of `m_step` in one pass.

    A block of rows at a time, so that memory does not grow with N, and in whitened coordinates y_k = L_k⁻¹(x − m_k) for
    C_k = L_k L_kᵀ, one product for all components.  With a 1 appended to y, Σ_n q(k | x_n) y yᵀ holds the count in its
    corner, the mean beside it and the second moment, all of order 1 wherever the data lie.  A component whose every
    responsibility is below the least float keeps its mean and covariance, where `m_step`, in logarithms, moves them: at
    weight 0 either way.
    """
    (N, D), K = x.shape, len(mixture.weights)
    centre = mixture.mean()
    maps = np.zeros((K, D + 1, D + 1))  # [x − centre; 1] → [y_k; 1]
    maps[:, :D, :D] = mixture.whitening
    maps[:, :D, D] = -(mixture.whitening @ (mixture.means - centre)[:, :, None])[:, :, 0]
    maps[:, D, D] = 1.0
    sums, log_likelihood = np.zeros_like(maps), 0.0
    rows = max(BLOCK // (K * (D + 1)), 1)
    for start in range(0, N, rows):
        block = x[start : start + rows] - centre
        augmented = np.concatenate([block.T, np.ones((1, len(block)))])
        y = (maps.reshape(-1, D + 1) @ augmented).reshape(K, D + 1, -1)
        joint = mixture.log_scale[:, None] - 0.5 * np.einsum("kdn,kdn->kn", y[:, :D], y[:, :D])
        top = joint.max(axis=0)
        joint -= top
        np.exp(joint, out=joint)
        total = joint.sum(axis=0)
        log_likelihood += float((top + np.log(total)).sum())
        joint /= total
        y *= np.sqrt(joint)[:, None]  # q y yᵀ = (√q y)(√q y)ᵀ: no second array of this size, and half of the product
        sums += y @ y.swapaxes(1, 2)
    counts, means, spread = sums[:, D, D].copy(), mixture.means.copy(), mixture.covariances.copy()
    seen = counts > 0
    sums = sums[seen] / counts[seen, None, None]
    shift, factors = sums[:, :D, D], np.linalg.cholesky(mixture.covariances[seen])
    means[seen] += (factors @ shift[:, :, None])[:, :, 0]
    spread[seen] = factors @ (sums[:, :D, :D] - shift[:, :, None] * shift[:, None]) @ factors.swapaxes(1, 2)
    return Moments(counts, means, spread, seen), log_likelihood


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
