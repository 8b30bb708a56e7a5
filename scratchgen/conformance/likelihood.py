"""Checks of equations (1)-(2): divergences in closed form, and the likelihood of whole numbers.

The right sides use inverses, determinants and plain sums, which the package itself avoids.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.validation import Array


@takes_arrays
def check_kl(kl: Callable[..., ArrayLike], p: Array, q: Array) -> Check:
    """(1)-(2): KL(p‖q) = −H(p) − E_p log q of two discrete distributions.

    Parameters
    ----------
    kl : callable
        kl(p, q) → a number, nats.
    p, q : (X,)
        Positive, sum 1.

    Returns
    -------
    Check
        Tolerance 1e-12.
    """
    as_probabilities(p, "p")
    as_probabilities(q, "q")
    return compare(
        "check_kl",
        "(2)",
        "KL(p‖q)",
        kl(p, q),
        (p * np.log(p)).sum() - (p * np.log(q)).sum(),
        1e-12,
        {
            "the arguments are swapped: it is KL(q‖p)": lambda: (q * np.log(q / p)).sum(),
            "it is −E log q: the entropy of p is not subtracted": lambda: -(p * np.log(q)).sum(),
            "it is E log q, the objective of (1), not a divergence": lambda: (p * np.log(q)).sum(),
            "it is in bits, not in nats": lambda: (p * np.log2(p / q)).sum(),
            "it is a mean over the table, not a sum": lambda: (p * np.log(p / q)).mean(),
        },
    )


@takes_arrays
def check_gaussian_kl(kl: Callable[..., ArrayLike], mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> Check:
    """(2): KL of two Gaussians, by inverse and determinant, and its value 0 for equal arguments.

    Parameters
    ----------
    kl : callable
        kl(mean_p, cov_p, mean_q, cov_q) → a number, nats.
    mean_p, mean_q : (D,)
    cov_p, cov_q : (D, D)

    Returns
    -------
    Check
        Tolerance 1e-9.
    """

    def textbook(m: Array, S: Array, n: Array, R: Array, weight: float = 0.5) -> float:
        P = np.linalg.inv(R)
        quadratic = np.trace(P @ S) + (m - n) @ P @ (m - n) - len(m)
        return float(0.5 * quadratic + weight * (np.linalg.slogdet(R)[1] - np.linalg.slogdet(S)[1]))

    return compare(
        "check_gaussian_kl",
        "(2)",
        "KL(N_p‖N_q) and KL(N_p‖N_p)",
        [np.asarray(kl(mean_p, cov_p, mean_q, cov_q)), np.asarray(kl(mean_p, cov_p, mean_p, cov_p))],
        [textbook(mean_p, cov_p, mean_q, cov_q), 0.0],
        1e-9,
        {
            "the arguments are swapped: it is KL(q‖p)": lambda: [textbook(mean_q, cov_q, mean_p, cov_p), 0.0],
            "the ½ of the log-determinants is missing": lambda: [textbook(mean_p, cov_p, mean_q, cov_q, 1.0), 0.0],
            "the log-determinants are missing": lambda: [textbook(mean_p, cov_p, mean_q, cov_q, 0.0), 0.0],
        },
    )


@takes_arrays
def check_diagonal_kl(kl: Callable[..., ArrayLike], mean: Array, log_variance: Array) -> Check:
    """(7), (14): KL(N(μ, diag σ²)‖N(0, I)) of every row, by the expectation of the log-ratio.

    The log-ratio is a quadratic in z.  The two points μ ± σ of every dimension integrate it exactly.

    Parameters
    ----------
    kl : callable
        kl(mean, log_variance) → (N,), nats.
    mean, log_variance : (N, k)

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    if mean.shape != log_variance.shape or mean.ndim != 2 or mean.size == 0:
        raise ValueError(f"mean and log_variance must both be (N, k), got {mean.shape} and {log_variance.shape}")
    std = np.exp(log_variance / 2)
    log_q = -0.5 * (log_variance + 1)
    log_p = -0.25 * ((mean + std) ** 2 + (mean - std) ** 2)
    terms = log_q - log_p

    def textbook(variance: Array) -> Array:
        return 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(axis=1)

    reverse = 0.5 * ((1 + mean**2) * np.exp(-log_variance) - 1 + log_variance)
    return compare(
        "check_diagonal_kl",
        "(14)",
        "KL(N(μ, σ²)‖N(0, I))",
        kl(mean, log_variance),
        terms.sum(axis=1),
        1e-11,
        {
            "it is averaged over the latent dimensions, not summed": lambda: terms.mean(axis=1),
            "it is averaged over the examples: one value per example is expected": lambda: terms.sum(axis=1).mean(),
            "σ stands where σ² belongs": lambda: textbook(std),
            "log σ² is read as log σ": lambda: textbook(std**4),
            "the arguments are swapped: it is KL(N(0, I)‖q)": lambda: reverse.sum(axis=1),
        },
    )


@takes_arrays
def check_bin_masses(
    log_mass: Callable[[Array, Array, float], ArrayLike], n_levels: int, means: Array, std: float
) -> Check:
    """The decoder of whole numbers: P(level) is a difference of Φ, open at both ends, and all P(level) sum to 1.

    Level k of 0..n_levels−1 stands at x_k = 2k/(n_levels−1) − 1.

    Parameters
    ----------
    log_mass : callable
        log_mass(level, mean, std) → log P(level), nats, elementwise, for levels (n_levels, 1) and means (1, M).
    n_levels : int
    means : (M,)
        Means of the Gaussian, on the scale of x_k.
    std : float
        Standard deviation of the Gaussian.

    Returns
    -------
    Check
        The larger of the residuals of the masses and of their sum; tolerance 1e-10.
    """
    from scipy.special import ndtr

    levels = np.arange(float(n_levels))[:, None]
    left = np.asarray(log_mass(levels, means[None, :], std), dtype=np.float64)
    half = 1 / (n_levels - 1)
    centre = 2 * half * levels - 1

    def masses(width: float, open_ends: bool = True) -> Array:
        low, high = (centre - width - means) / std, (centre + width - means) / std
        if open_ends:
            low[0], high[-1] = -np.inf, np.inf
        # differences in the tail where both are small
        return np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))

    density = np.exp(-0.5 * ((centre - means) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    mistakes = {
        "they are a density, not masses: a continuous L_0 on whole numbers": lambda: density,
        "they are a density times the bin width": lambda: density * 2 * half,
        "the first and the last bin are closed": lambda: masses(half, open_ends=False),
        "the half-width is 1/n_levels, not 1/(n_levels − 1)": lambda: masses(1 / n_levels),
        "the bins are twice as wide as their distance": lambda: masses(2 * half),
    }
    return worst(
        compare("check_bin_masses", "(21)", "P(level)", np.exp(left), masses(half), 1e-10, mistakes),
        compare("check_bin_masses", "(21)", "Σ P(level)", np.exp(left).sum(axis=0), np.ones(len(means)), 1e-10),
    )


@takes_arrays
def check_bits_per_dim(
    bits_per_dim: Callable[[Array, int, float], ArrayLike], masses: Array, dimension: int, scale: float
) -> Check:
    """Bits per dimension, −log₂ P(k)/D, from a density of y = scale · (k + u) that is constant on every cell.

    Parameters
    ----------
    bits_per_dim : callable
        bits_per_dim(nats, dimension, scale) → bits per dimension, where nats is −log of the density of y.
    masses : (K,)
        P(k), positive.
    dimension : int
        D.
    scale : float
        Length of a cell along every axis.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    nats = -np.log(masses / scale**dimension)
    return compare(
        "check_bits_per_dim",
        "(21)",
        "bits per dimension",
        bits_per_dim(nats, dimension, scale),
        -np.log2(masses) / dimension,
        1e-11,
        {
            "the change of units is missing": lambda: nats / (dimension * np.log(2)),
            "the change of units has the wrong sign": lambda: nats / (dimension * np.log(2)) + np.log2(scale),
            "it is in nats": lambda: -np.log(masses) / dimension,
            "ln 2 is missing": lambda: nats / dimension - np.log2(scale),
            "it is not divided by D": lambda: -np.log2(masses),
        },
    )
