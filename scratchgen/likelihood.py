"""Equations (1)-(2): maximum likelihood is minimum KL divergence.

    KL(p‖p_θ) = −H(p) − E_p log p_θ

Wanted: a model p_θ that is close to the law p of the data.
Minimised: KL(p‖p_θ), (2), the nats by which the model predicts the data worse than their own law does.
Exact: the entropy H(p) contains no θ, so that the θ that maximises E_p log p_θ, (1), is the θ that minimises (2).
Lost: nothing; but H(p) is unknown for real data, so that the value of (1) alone does not say how far p_θ is from p.

The deck calls p "empirical".  For continuous x the divergence from an empirical distribution to a density is infinite
for every θ, and (2) is to be read as (1) plus the constant −H(p).  All values are in nats.

* `cross_entropy_discrete`, `entropy_discrete`, `kl_discrete`: (1) and (2) for tables.
* `kl_gaussian`, `kl_diag_standard`: divergences of Gaussians in closed form.
* `gaussian_log_prob`, `log_bin_mass`: the density of a real number, and the mass of a whole number, under a Gaussian.
* `bits_per_dim`: nats of a row as bits of a dimension.
* `logsumexp`, `softmax`: probabilities in logarithms, without overflow.

Read on in `variational`, where a latent variable makes log p_θ(x) an integral.
"""

from __future__ import annotations

import numpy as np

from scratchgen.validation import (
    Array,
    ArrayLike,
    as_arrays,
    as_count,
    as_covariances,
    as_number,
    as_real,
    check_levels,
    check_positive,
    check_probabilities,
)

LOG_2PI = float(np.log(2 * np.pi))


def _exp(a: Array) -> Array:
    """exp(a) for a <= 0; results below tiny/ε become 0, with the smallest normal number `tiny` and the machine's ε.

    Sums and quotients of the results are then never subnormal; arithmetic on subnormal numbers takes 10 to 50 times as
    long.  `maximum` raises numbers far below the threshold, because NumPy takes 8 times as long for their exp.
    """
    info = np.finfo(np.result_type(a, np.float32))
    least = float(np.log(info.tiny / info.eps))
    return np.exp(np.maximum(a, least)) * (a > least) if a.size and a.min() < least else np.exp(a)


def quiet_log(a: ArrayLike) -> Array:
    """log a, and −inf where a is 0, without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(as_real(a, "a"))


def logsumexp(a: Array, axis: int = -1) -> Array:
    """log Σ exp(a) along one axis, without overflow; a slice of −inf gives −inf.

    scipy.special.logsumexp gives the same values, but with scipy.special `import scratchgen` takes 2.2 times as long.
    """
    a = as_real(a, "a")
    axis = as_count(axis, "axis", minimum=-a.ndim)
    top = a.max(axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0).astype(a.dtype)
    return np.squeeze(top, axis) + quiet_log(_exp(a - top).sum(axis=axis))


def softmax(logits: Array, axis: int = -1) -> Array:
    """exp(logits)/Σ exp(logits) along one axis, without overflow.

    Terms below 1e-31 (float32) or 1e-292 (float64) of the largest one become 0.
    """
    logits = as_real(logits, "logits")
    axis = as_count(axis, "axis", minimum=-logits.ndim)
    law = _exp(logits - logits.max(axis=axis, keepdims=True, initial=-np.inf))
    ones = np.ones(law.shape[axis], dtype=law.dtype)  # a matrix product with ones is faster than `sum`: 8x for 17 terms
    law /= np.expand_dims(np.tensordot(law, ones, (axis, 0)), axis)
    return law


def _weighted_log(p: Array, q: Array) -> Array:
    """p log q with 0 log 0 = 0, and −inf where p > 0 = q."""
    return np.where(p > 0, p * quiet_log(np.where(p > 0, q, 1.0)), 0.0)


def entropy_discrete(p: Array) -> Array:
    """H(p) = −Σ p log p over the last axis, nats, for p of shape (..., K)."""
    p = as_arrays("p (..., K)", p)
    check_probabilities(p, "p")
    return -_weighted_log(p, p).sum(axis=-1)


def cross_entropy_discrete(p: Array, q: Array) -> Array:
    """−E_p log q = −Σ p log q over the last axis, nats, for p and q of shape (..., K): minus the objective of (1)."""
    p, q = as_arrays("p (..., K), q (..., K)", p, q)
    check_probabilities(p, "p")
    check_probabilities(q, "q", axis=None)
    return -_weighted_log(p, q).sum(axis=-1)


def kl_discrete(p: Array, q: Array) -> Array:
    """KL(p‖q) = Σ p log(p/q) over the last axis, (2), nats, for p and q of shape (..., K); +inf where p > 0 = q."""
    p, q = as_arrays("p (..., K), q (..., K)", p, q)
    check_probabilities(p, "p")
    check_probabilities(q, "q", axis=None)
    return (_weighted_log(p, p) - _weighted_log(p, q)).sum(axis=-1)


def gaussian_log_prob(x: Array, mean: Array, log_variance: Array | float) -> Array:
    """log N(x; mean, exp(log_variance) I) summed over the last axis, nats.

    Parameters
    ----------
    x, mean : (..., D)
        Arrays that broadcast against each other.
    log_variance : float, (D,) or (..., D)

    Returns
    -------
    log_prob : (...)
    """
    x, mean, log_variance = as_arrays("x (...), mean (...), log_variance (...)", x, mean, log_variance)
    log_variance = np.asarray(log_variance, dtype=np.result_type(x, mean, np.float32))
    terms = LOG_2PI + log_variance + (x - mean) ** 2 * np.exp(-log_variance)
    return -0.5 * np.broadcast_to(terms, np.broadcast_shapes(x.shape, np.shape(mean))).sum(axis=-1)


def log_bin_mass(level: Array, mean: Array, std: Array | float, n_levels: int) -> Array:
    """log P(level) of a Gaussian observed in bins, nats: a decoder p(x_0 | ·) of whole numbers 0..n_levels−1.

        P(k) = Φ((x_k + h − mean)/std) − Φ((x_k − h − mean)/std),   x_k = 2k h − 1,   h = 1/(n_levels − 1)

    Levels are scaled to [−1, 1].  The first and the last bin reach to infinity, so that the masses sum to 1 without
    clamping.  A density instead of the masses could become arbitrarily large on whole numbers, and would give no bound
    on log P.

    Parameters
    ----------
    level : array of whole numbers 0..n_levels−1
    mean, std : float, or arrays that broadcast with level
        Mean and standard deviation of the Gaussian, on the scale of x_k.
    n_levels : int
        At least 2: 17 for the 8x8 digits, 256 for bytes.

    Returns
    -------
    log_mass : array of the broadcast shape

    Raises
    ------
    ValueError
        If n_levels is below 2, an element of level is not a whole number 0..n_levels−1, or std is not positive and
        finite.
    """
    check_positive(std, "std")
    return _log_bin_mass(level, mean, std, n_levels)[0]


def level_values(n_levels: int) -> Array:
    """The levels k = 0..n_levels−1 scaled to [−1, 1], 2k/(n_levels − 1) − 1, (n_levels,)."""
    return 2 * np.arange(as_count(n_levels, "n_levels", minimum=2)) / (n_levels - 1) - 1


def levels_of(x: Array, n_levels: int, name: str = "x") -> Array:
    """Whole numbers 0..n_levels−1 from scaled levels x in [−1, 1]: the inverse of `level_values`, elementwise.

    Rounding errors of up to 1 % of the distance between two levels are removed.  `name` is that of x in the error.

    Raises
    ------
    ValueError
        If an element of x is farther from all levels.
    """
    exact = 0.5 * (as_count(n_levels, "n_levels", minimum=2) - 1) * (as_real(x, name) + 1)
    level = np.rint(exact)
    check_levels(np.where(abs(exact - level) <= 0.01, level, exact), n_levels, f"(n_levels − 1)({name} + 1)/2")
    return level


def draw_levels(law: Array, uniform: Array) -> Array:
    """The level k of every entry with P(l < k) < u <= P(l <= k), (N, D) of int, for law (N, D, K) and u (N, D).

    Raises
    ------
    ValueError
        If shapes disagree, law does not sum to 1 over the levels, or u is outside [0, 1].
    ArithmeticError
        If a probability is not finite.
    """
    law, uniform = as_arrays("law (N, D, K), uniform (N, D)", law, uniform)
    if not np.isfinite(law).all():
        raise ArithmeticError("x must be finite, but the law of x_0 is NaN; look at x, or train with a lower rate")
    check_probabilities(law, "law")
    if not ((uniform >= 0) & (uniform <= 1)).all():
        raise ValueError("uniform must lie in [0, 1]; pass rng.random of the shape of x")
    steps = law.cumsum(axis=2)[:, :, :-1]
    return (uniform[:, :, None] > steps).sum(axis=2)


def log_bin_mass_slopes(level: Array, mean: Array, std: Array | float, n_levels: int) -> tuple[Array, Array, Array]:
    """`log_bin_mass` and its derivatives with respect to mean and log std², each of the shape of the masses.

        ∂/∂mean = (φ(l) − φ(u))/(std · P),   ∂/∂log std² = ½ (l φ(l) − u φ(u))/P

    φ is the density of N(0, 1); l and u are the distances of the bin's edges from the mean in units of std.  ValueError
    if std is 0 or negative.  A NaN gives NaN, by which training sees that its parameters have diverged.
    """
    std = as_real(std, "std")
    check_positive(np.where(np.isnan(std), 1.0, std), "std")
    log_mass, lower, upper = _log_bin_mass(level, mean, std, n_levels)

    def ratio(edge: Array) -> Array:
        """φ(edge)/P from logarithms, since both underflow in the tails; 0 at an infinite edge."""
        return np.exp(-0.5 * (edge**2 + LOG_2PI) - log_mass)

    at_lower, at_upper = ratio(lower), ratio(upper)
    finite_lower, finite_upper = np.where(np.isfinite(lower), lower, 0.0), np.where(np.isfinite(upper), upper, 0.0)
    return log_mass, (at_lower - at_upper) / std, 0.5 * (finite_lower * at_lower - finite_upper * at_upper)


def _log_bin_mass(level: Array, mean: Array, std: Array | float, n_levels: int) -> tuple[Array, Array, Array]:
    """log P(level), and the bin's edges in standard deviations from the mean."""
    from scipy.special import log_ndtr  # at the top of the file `import scratchgen` would take 2.2 times as long

    level, mean, std = as_arrays("level (...), mean (...), std (...)", level, mean, std)
    half = 1 / (as_count(n_levels, "n_levels", minimum=2) - 1)
    check_levels(level, n_levels, "level")
    centre = 2 * half * np.asarray(level) - 1
    lower = np.where(np.equal(level, 0), -np.inf, (centre - half - mean) / std)
    upper = np.where(np.equal(level, n_levels - 1), np.inf, (centre + half - mean) / std)
    # In the upper tail both Φ round to 1.  A bin there is reflected into the lower tail, where log Φ keeps its digits.
    near, far = np.where(lower > 0, -lower, upper), np.where(lower > 0, -upper, lower)
    log_near = log_ndtr(near)
    return log_near + np.log(-np.expm1(log_ndtr(far) - log_near)), lower, upper


def bits_per_dim(nats: Array | float, dimension: int, scale: float = 1.0) -> Array | float:
    """Bits per dimension of whole numbers k, from the density of scaled data: nats/(D ln 2) − log₂ scale.

    For y = scale · (k + u) + shift with u uniform on [0, 1), −log p(y) − D log scale bounds −log P(k) in expectation:
    the unit cube of k has volume scale^D in the units of y.

    Parameters
    ----------
    nats : float or (N,)
        −log p(y), summed over the dimensions.
    dimension : int
        D.
    scale : float
        Width of a level in the units of y: 2/17 for 17 levels on [−1, 1), 2/256 for 256 levels.

    Raises
    ------
    TypeError, ValueError
        If dimension is not a positive integer, or scale is not a positive number.
    """
    dimension, scale = as_count(dimension, "dimension"), as_number(scale, "scale", low=0.0, open_low=True)
    return as_real(nats, "nats") / (dimension * np.log(2)) - np.log2(scale)


def _log_det(covariance: Array) -> float:
    """log |covariance| by Cholesky, which raises LinAlgError for a matrix that is not positive definite."""
    return float(2 * np.log(np.diagonal(np.linalg.cholesky(covariance))).sum())


def _whitened(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> tuple[Array, Array]:
    """L_q⁻¹ L_p, (D, D), and L_q⁻¹ (m_p − m_q), (D,), for covariances S = L Lᵀ: p in coordinates where q is N(0, I)."""
    factor = np.linalg.cholesky(cov_q)
    return np.linalg.solve(factor, np.linalg.cholesky(cov_p)), np.linalg.solve(factor, mean_p - mean_q)


def entropy_gaussian(covariance: Array) -> float:
    """H(N(m, S)) = ½ log|2πe S|, nats, for S of shape (D, D)."""
    covariance = as_covariances("covariance (D, D)", covariance)
    return 0.5 * (len(covariance) * (LOG_2PI + 1) + _log_det(covariance))


def cross_entropy_gaussian(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> float:
    """−E_p log q for p = N(mean_p, cov_p), q = N(mean_q, cov_q), nats; means (D,), covariances (D, D)."""
    mean_p, mean_q = as_arrays("mean_p (D), mean_q (D)", mean_p, mean_q)
    cov_p, cov_q = as_covariances("cov_p (D, D), cov_q (D, D)", cov_p, cov_q, D=len(mean_p))
    spread, shift = _whitened(mean_p, cov_p, mean_q, cov_q)
    return 0.5 * (len(cov_q) * LOG_2PI + _log_det(cov_q) + float((spread**2).sum() + (shift**2).sum()))


def kl_gaussian(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> float:
    """KL(N(m_p, S_p)‖N(m_q, S_q)) = ½[tr S_q⁻¹S_p + ‖m_p − m_q‖²_{S_q⁻¹} − D + log|S_q|/|S_p|], nats.

    Means are (D,), covariances (D, D).
    """
    mean_p, mean_q = as_arrays("mean_p (D), mean_q (D)", mean_p, mean_q)
    cov_p, cov_q = as_covariances("cov_p (D, D), cov_q (D, D)", cov_p, cov_q, D=len(mean_p))
    spread, shift = _whitened(mean_p, cov_p, mean_q, cov_q)
    log_ratio = 2 * np.log(np.abs(np.diagonal(spread))).sum()
    return 0.5 * float((spread**2).sum() + (shift**2).sum() - len(cov_p) - log_ratio)


def kl_diag_standard(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, diag exp(log_variance))‖N(0, I)) summed over the last axis, nats: the second term of (14).

        ½ Σ (μ² + σ² − 1 − log σ²)

    The deck's Figure 2 prints N(μ, σ) where the variance σ² is meant.  With expm1 the error of σ² − 1 − log σ² near
    σ = 1 is of the order ε |log σ²| with the machine's ε, and ε/|log σ²| relative to the term: 2e-10 at log σ² = 1e-6,
    5e-5 at 1e-12.  The term itself is then ½ (log σ²)².  Without expm1 the error would be of the order ε.

    Parameters
    ----------
    mean, log_variance : (..., k)
        μ and log σ².
    """
    mean, log_variance = as_arrays("mean (..., k), log_variance (..., k)", mean, log_variance)
    return 0.5 * (mean**2 + np.expm1(log_variance) - log_variance).sum(axis=-1)
