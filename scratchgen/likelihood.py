"""Equations (1)-(2): maximum likelihood is minimum KL divergence.

    KL(p‖p_θ) = −H(p) − E_p log p_θ,

so that the θ that maximises E_p log p_θ, (1), minimises KL(p‖p_θ), (2).  The deck calls p "empirical"; for
continuous x the divergence from an empirical law to a density is infinite for every θ, and (2) then means
"(1) up to the constant −H(p)".  Everything is in nats.
"""

from __future__ import annotations

import numpy as np

from scratchgen.validation import Array, as_count

LOG_2PI = float(np.log(2 * np.pi))


def logsumexp(a: Array, axis: int = -1) -> Array:
    """log Σ exp(a) along one axis, without overflow; a slice of −inf gives −inf.

    scipy.special has one too; importing it would triple the time that `import scratchgen` takes.
    """
    top = a.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.squeeze(top, axis) + np.log(np.exp(a - top).sum(axis=axis))


def _weighted_log(p: Array, q: Array) -> Array:
    """p log q with 0 log 0 = 0, and −inf where p > 0 = q."""
    with np.errstate(divide="ignore"):
        return np.where(p > 0, p * np.log(np.where(p > 0, q, 1.0)), 0.0)


def entropy_discrete(p: Array) -> Array:
    """H(p) = −Σ p log p over the last axis, in nats."""
    return -_weighted_log(p, p).sum(axis=-1)


def cross_entropy_discrete(p: Array, q: Array) -> Array:
    """−E_p log q = −Σ p log q over the last axis, in nats: minus the objective of (1)."""
    return -_weighted_log(p, q).sum(axis=-1)


def kl_discrete(p: Array, q: Array) -> Array:
    """KL(p‖q) = Σ p log(p/q) over the last axis, in nats, (2); +inf where p > 0 = q."""
    return (_weighted_log(p, p) - _weighted_log(p, q)).sum(axis=-1)


def gaussian_log_prob(x: Array, mean: Array, log_variance: Array | float) -> Array:
    """log N(x; mean, exp(log_variance) I) summed over the last axis, in nats.

    Shapes broadcast; `log_variance` may be a scalar, one value a dimension, or one a value of x.
    """
    log_variance = np.asarray(log_variance, dtype=np.result_type(x, mean, np.float32))
    terms = LOG_2PI + log_variance + (x - mean) ** 2 * np.exp(-log_variance)
    return -0.5 * np.broadcast_to(terms, np.broadcast_shapes(x.shape, np.shape(mean))).sum(axis=-1)


def log_bin_mass(level: Array, mean: Array, std: Array | float, n_levels: int) -> Array:
    """log P(level) of a Gaussian observed in bins, nats: the decoder of x_0 when data are whole numbers 0..n_levels−1.

        P(k) = Φ((x_k + h − mean)/std) − Φ((x_k − h − mean)/std),   x_k = 2k h − 1,   h = 1/(n_levels − 1)

    Levels are scaled to [−1, 1]; the first and the last bin reach to infinity, so that the masses sum to 1 without a
    clamp.  A density in its place is unbounded on such data, and no part of a bound on log P.

    Parameters
    ----------
    level : whole numbers in 0..n_levels−1
    mean, std : arrays that broadcast with level
        On the scale of x_k.
    n_levels : int
        At least 2: 17 for the 8x8 digits, 256 for bytes.
    """
    return _log_bin_mass(level, mean, std, n_levels)[0]


def level_values(n_levels: int) -> Array:
    """The places 2k/(n_levels − 1) − 1 of the levels k = 0..n_levels−1 in [−1, 1], (n_levels,)."""
    return 2 * np.arange(n_levels) / (n_levels - 1) - 1


def levels_of(x: Array, n_levels: int) -> Array:
    """Whole numbers 0..n_levels−1 from their places in [−1, 1], the inverse of `level_values`."""
    return np.rint(0.5 * (n_levels - 1) * (x + 1))


def log_bin_mass_slopes(level: Array, mean: Array, std: Array | float, n_levels: int) -> tuple[Array, Array, Array]:
    """`log_bin_mass` and its derivatives with respect to mean and log std², each of the shape of the masses.

    ∂/∂mean = (φ(l) − φ(u))/(std · P),   ∂/∂log std² = ½ (l φ(l) − u φ(u))/P,   l, u the edges in units of std
    """
    log_mass, lower, upper = _log_bin_mass(level, mean, std, n_levels)

    def ratio(edge: Array) -> Array:
        """φ(edge)/P, by logarithms: both underflow in the tails; 0 at an open end."""
        return np.exp(-0.5 * (edge**2 + LOG_2PI) - log_mass)

    at_lower, at_upper = ratio(lower), ratio(upper)
    finite_lower, finite_upper = np.where(np.isfinite(lower), lower, 0.0), np.where(np.isfinite(upper), upper, 0.0)
    return log_mass, (at_lower - at_upper) / std, 0.5 * (finite_lower * at_lower - finite_upper * at_upper)


def _log_bin_mass(level: Array, mean: Array, std: Array | float, n_levels: int) -> tuple[Array, Array, Array]:
    """log P(level), and the bin's edges in standard deviations from the mean."""
    from scipy.special import log_ndtr  # importing SciPy would triple the time of `import scratchgen`

    half = 1 / (as_count(n_levels, "n_levels", minimum=2) - 1)
    centre = 2 * half * np.asarray(level) - 1
    lower = np.where(np.equal(level, 0), -np.inf, (centre - half - mean) / std)
    upper = np.where(np.equal(level, n_levels - 1), np.inf, (centre + half - mean) / std)
    # In the upper tail both Φ round to 1, so that bin is reflected into the lower one, where logarithms keep digits.
    near, far = np.where(lower > 0, -lower, upper), np.where(lower > 0, -upper, lower)
    log_near = log_ndtr(near)
    return log_near + np.log(-np.expm1(log_ndtr(far) - log_near)), lower, upper


def bits_per_dim(nats: Array | float, dimension: int, scale: float = 1.0) -> Array | float:
    """−log₂ p per dimension of whole numbers k, from nats = −log p(scale · k + shift): nats/(D ln 2) − log₂ scale.

    A density of y = scale · (k + u), u uniform on [0, 1), bounds log P(k); stretching y by `scale` stretched the unit
    cube by scale^D.  17 levels on [−1, 1) have scale 2/17, 256 levels 2/256.
    """
    return nats / (dimension * np.log(2)) - np.log2(scale)


def _log_det(covariance: Array) -> float:
    """log |covariance| by Cholesky: fails loudly where slogdet would return the wrong sign."""
    return float(2 * np.log(np.diagonal(np.linalg.cholesky(covariance))).sum())


def entropy_gaussian(covariance: Array) -> float:
    """H(N(m, S)) = ½ log|2πe S|, in nats, for S of shape (D, D)."""
    return 0.5 * (len(covariance) * (LOG_2PI + 1) + _log_det(covariance))


def cross_entropy_gaussian(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> float:
    """−E_p log q for p = N(mean_p, cov_p), q = N(mean_q, cov_q), in nats."""
    factor = np.linalg.cholesky(cov_q)
    spread = np.linalg.solve(factor, np.linalg.cholesky(cov_p))
    shift = np.linalg.solve(factor, mean_p - mean_q)
    return 0.5 * (len(cov_q) * LOG_2PI + _log_det(cov_q) + float((spread**2).sum() + (shift**2).sum()))


def kl_gaussian(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> float:
    """KL(N(mean_p, cov_p)‖N(mean_q, cov_q)) = ½[tr S_q⁻¹S_p + |m_p−m_q|²_{S_q⁻¹} − D + log|S_q|/|S_p|], in nats."""
    factor = np.linalg.cholesky(cov_q)
    spread = np.linalg.solve(factor, np.linalg.cholesky(cov_p))
    shift = np.linalg.solve(factor, mean_p - mean_q)
    log_ratio = 2 * np.log(np.abs(np.diagonal(spread))).sum()
    return 0.5 * float((spread**2).sum() + (shift**2).sum() - len(cov_p) - log_ratio)


def kl_diag_standard(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, diag exp(log_variance))‖N(0, I)) summed over the last axis, in nats: the regulariser of (14).

        ½ Σ (μ² + σ² − 1 − log σ²)

    The deck's Figure 2 prints N(μ, σ) where the variance σ² is meant.  expm1 keeps the value accurate near 0.
    """
    return 0.5 * (mean**2 + np.expm1(log_variance) - log_variance).sum(axis=-1)
