"""The M-step of a Gaussian mixture, (15): sufficient statistics of the data under q, and the maximiser given them."""

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from scratchgen.blocks import blocks
from scratchgen.likelihood import logsumexp, quiet_log
from scratchgen.mixture import Mixture, whiten
from scratchgen.validation import (
    Array,
    IntArray,
    as_arrays,
    as_choice,
    as_covariances,
    as_finite,
    as_floors,
    as_labels,
    as_number,
    as_sample_weight,
    as_samples,
    check_probabilities,
    check_symmetric,
    check_type,
)

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
Prior = tuple[float, float]  # (variance, count), see `log_covariance_prior`


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Sufficient statistics of the M-step: count, mean and covariance of x under q(x | k) ∝ q(k | x).

    For statistics `a` and `b` of two parts of the data, `a + b` are the statistics of both parts together.

    Parameters
    ----------
    log_counts : (K,)
        log N_k = log Σ_n w_n q(k | x_n), with the weights w of the examples; −inf for a component with count 0.
    means : (K, D)
        m_k = E_q[x | k]; arbitrary for a component with count 0.
    covariances : (K, D, D)
        E_q[(x − m_k)(x − m_k)ᵀ | k], about the component's own mean; arbitrary for a component with count 0.
    """

    log_counts: Array
    means: Array
    covariances: Array

    def __add__(self, other: "SufficientStatistics") -> "SufficientStatistics":
        """Merge two parts from covariances about the own means; sums about a common centre would lose digits."""
        log_counts = np.logaddexp(self.log_counts, other.log_counts)
        share = np.exp(other.log_counts - np.where(np.isneginf(log_counts), 0.0, log_counts))[:, None]
        apart = other.means - self.means
        between = (share * (1 - share) * apart)[:, :, None] * apart[:, None]
        mine, theirs = (1 - share)[:, :, None] * self.covariances, share[:, :, None] * other.covariances
        means = np.where(share < 1, self.means + share * apart, other.means)
        return SufficientStatistics(log_counts, means, mine + theirs + between)


def sufficient_statistics(
    x: Array, log_resp: Array, mixture: Mixture, sample_weight: Array | None = None
) -> SufficientStatistics:
    """Sufficient statistics of the data under q.

    An example of weight w counts as w equal examples.  Counts are logarithms, so that a component has the right mean
    and covariance even if its count underflows.

    Parameters
    ----------
    x : (N, D)
    log_resp : (N, K)
        log q(k | x_n).
    mixture : Mixture
        Source of mean and covariance for a component with count 0.
    sample_weight : (N,), optional
        w; 1 for every example if None.
    """
    check_type(mixture, Mixture, "mixture")
    K, D = mixture.means.shape
    x, log_resp = as_arrays("x (N, D), log_resp (N, K)", as_finite(x, "x"), log_resp, K=K, D=D)
    log_resp = log_resp + quiet_log(as_sample_weight(sample_weight, len(x)))[:, None]  # log w_n q(k | x_n)
    log_counts = logsumexp(log_resp, axis=0)
    if not (log_counts < np.inf).all():
        raise ValueError("log_resp must hold the logarithms of probabilities, got NaN or inf; pass log q(z | x)")
    means, covariances = mixture.means.copy(), mixture.covariances.copy()
    for k in np.flatnonzero(np.isfinite(log_counts)):
        weights = np.exp(log_resp[:, k] - log_counts[k])
        weights /= weights.sum()  # the exp of large logs has relative errors of 1e-10
        means[k] = weights @ x
        means[k] += weights @ (x - means[k])  # removes the rounding error of the first sum, of the order ε ‖x‖
        centred = x - means[k]  # about the new mean, since E xxᵀ − m mᵀ loses digits far from 0
        covariances[k] = (centred.T * weights) @ centred
    return SufficientStatistics(log_counts, means, covariances)


def sample_moments(x: Array, sample_weight: Array | None = None) -> tuple[Array, Array]:
    """Mean, (D,), and covariance with the factor 1/N, (D, D), of rows x (N, D) with weights w, from blocks of rows."""
    x = as_samples(x)
    weights, D = as_sample_weight(sample_weight, len(x)), x.shape[1]

    def of_block(rows: slice) -> SufficientStatistics:
        block, w = x[rows].astype(np.float64, copy=False), weights[rows]
        covariance = np.cov(block.T, bias=True, aweights=w).reshape(1, D, D)
        return SufficientStatistics(quiet_log([w.sum()]), np.average(block, axis=0, weights=w)[None], covariance)

    total = reduce(add, map(of_block, blocks(len(x), 4 * D)))  # `cov` makes three more arrays of a block
    return total.means[0], total.covariances[0]


def statistics_of_labels(
    x: Array, labels: IntArray, mixture: Mixture, sample_weight: Array | None = None
) -> SufficientStatistics:
    """`sufficient_statistics` for responsibilities 0 and 1: x_n, (N, D), belongs to component labels[n], (N,)."""
    check_type(mixture, Mixture, "mixture")
    x, labels = as_arrays("x (N, D)", x, D=mixture.dimension), as_labels(labels, len(x), len(mixture.weights))
    means, covariances = mixture.means.copy(), mixture.covariances.copy()
    weights = as_sample_weight(sample_weight, len(x))
    counts = np.bincount(labels, weights, minlength=len(means))
    for k in np.flatnonzero(counts):
        own, w = x[labels == k].astype(np.float64), weights[labels == k]
        means[k] = np.average(own, axis=0, weights=w)
        means[k] += np.average(own - means[k], axis=0, weights=w)  # as in `sufficient_statistics`
        own = (own - means[k]) * np.sqrt(w)[:, None]
        covariances[k] = own.T @ own / counts[k]
    return SufficientStatistics(quiet_log(counts), means, covariances)


def m_step(
    x: Array,
    log_resp: Array,
    mixture: Mixture,
    covariance_floor: float | Array = 0.0,
    covariance_type: str = "full",
    covariance_prior: Prior | None = None,
    sample_weight: Array | None = None,
) -> Mixture:
    """The M-step: the mixture that maximises E_p E_q log p_θ(x, z), (15), subject to every covariance ⪰ diag(floor).

    Parameters
    ----------
    x : (N, D)
    log_resp : (N, K)
        log q(z | x).
    mixture : Mixture
        Current mixture.  A component with count 0 keeps its mean and covariance, and gets weight 0.
    covariance_floor : float or (D,)
        Lower bound of every covariance, in squared units of x, see `floor_eigenvalues`: a number for floor · I, or one
        number for each column for diag(floor).  The result is the exact constrained maximum, so that EM never lowers
        its bound; adding the floor to the covariance is not.
    covariance_type : {"full", "tied", "diag", "spherical"}
        A matrix for each component; one matrix for all; a diagonal matrix for each; σ² I for each.
    covariance_prior : (variance, count), optional
        Add `log_covariance_prior` to the sum over examples of the objective.
    sample_weight : (N,), optional
        Weights of the examples in the average E_p, as for `sufficient_statistics`.

    Raises
    ------
    ValueError
        If a covariance is not positive definite, or the floor is lost to rounding beside its largest eigenvalue.
    """
    statistics = sufficient_statistics(x, log_resp, mixture, sample_weight)
    return m_step_from_statistics(statistics, mixture, covariance_floor, covariance_type, covariance_prior)


def m_step_from_statistics(
    statistics: SufficientStatistics,
    mixture: Mixture,
    covariance_floor: float | Array = 0.0,
    covariance_type: str = "full",
    covariance_prior: Prior | None = None,
) -> Mixture:
    """The mixture that `m_step` returns, from `SufficientStatistics`; other arguments and errors as for `m_step`."""
    check_type(statistics, SufficientStatistics, "statistics")
    check_type(mixture, Mixture, "mixture")
    counts = np.exp(statistics.log_counts)
    spread = statistics.covariances
    spread = 0.5 * (spread + spread.swapaxes(1, 2))  # a component on one point leaves rounding, which is not symmetric
    covariances = covariance_maximum(spread, counts, covariance_type, covariance_floor, covariance_prior)
    unseen = np.isneginf(statistics.log_counts)
    means = np.where(unseen[:, None], mixture.means, statistics.means)
    if covariance_type != "tied":
        covariances[unseen] = mixture.covariances[unseen]
    try:
        return Mixture(counts / counts.sum(), means, covariances)
    except np.linalg.LinAlgError:  # a floor of 0 allows singular matrices; a small floor is lost to rounding
        raise _lost_floor(covariance_floor, covariances) from None


def covariance_maximum(
    spread: Array,
    counts: Array,
    covariance_type: str = "full",
    floor: float | Array = 0.0,
    prior: Prior | None = None,
) -> Array:
    """The covariances of one type that maximise the likelihood (and prior) given S_k and N_k, (K, D, D).

        Σ_k = (N_k S_k + count · variance · I)/(N_k + count)

    For "tied", S is first averaged over the components with weights N_k.  For "diag" only the diagonal is kept, for
    "spherical" the mean of the diagonal.  Then `floor_eigenvalues` gives the maximum subject to Σ_k ⪰ diag(floor) for
    "full" and "tied".  A variance of "diag" is raised to the floor of its column, and σ² I ⪰ diag(floor) holds where σ²
    is at least the largest floor of a column; both are the exact maximum as well.

    Parameters
    ----------
    spread : (K, D, D)
        S_k = E_q[(x − m_k)(x − m_k)ᵀ | z = k].
    counts : (K,)
        N_k = Σ_n q(z = k | x_n).
    covariance_type, floor, prior
        As for `m_step`.
    """
    spread, counts = as_arrays("spread (K, D, D), counts (K)", spread, counts)
    check_symmetric(spread, "spread")
    check_probabilities(counts, "counts", axis=None)
    as_choice(covariance_type, "covariance_type", COVARIANCE_TYPES)
    K, D, _ = spread.shape
    floors = as_floors(floor, "covariance_floor", D)
    if covariance_type == "tied":
        spread, counts = np.einsum("k,kde->de", counts / counts.sum(), spread)[None], counts.sum(keepdims=True)
    if prior is not None:
        variance, count = _as_prior(prior)
        spread = (counts[:, None, None] * spread + count * variance * np.eye(D)) / (counts + count)[:, None, None]
    if covariance_type in ("full", "tied"):
        out = floor_eigenvalues(spread, floor)
    else:
        variances = np.diagonal(spread, axis1=1, axis2=2)
        if covariance_type == "spherical":
            variances, floors = np.repeat(variances.mean(axis=1, keepdims=True), D, axis=1), floors.max()
        out = np.maximum(variances, floors)[:, :, None] * np.eye(D)
    return np.repeat(out, K // len(out), axis=0)


def _as_prior(prior: Prior) -> Prior:
    """(variance, count) after a check that both are finite and not negative."""
    if not isinstance(prior, tuple | list) or len(prior) != 2:
        raise ValueError(
            f"prior must be (variance, count), got {prior!r:.60}; pass two numbers, or covariance_prior=None"
        )
    variance, count = prior
    return (
        as_number(variance, "variance of covariance_prior, the prior,", low=0.0),
        as_number(count, "count of covariance_prior, the prior,", low=0.0),
    )


def log_covariance_prior(covariances: Array, prior: Prior) -> float:
    """−½ Σ_k count (variance · tr Σ_k⁻¹ + log|Σ_k|), nats: log density of an inverse-Wishart prior up to a constant.

    The prior has the effect of `count` further examples a component, with covariance variance · I about its mean.  EM
    with this prior raises the sum of log-likelihood and log prior, not the likelihood alone.  With count > 0 no
    covariance can become singular.

    Parameters
    ----------
    covariances : (K, D, D)
        Σ; for tied covariances one matrix, (1, D, D).
    prior : (variance, count)
    """
    covariances = as_covariances("covariances (K, D, D)", covariances)
    variance, count = _as_prior(prior)
    whitening, log_det = whiten(covariances)
    return float(-0.5 * count * (variance * (whitening**2).sum() + log_det.sum()))


def _lost_floor(floor: float | Array, covariances: Array) -> ValueError:
    if np.ndim(floor) == 0:
        largest = np.linalg.eigvalsh(covariances).max()
        lost, remedy = f" {floor:g}", f"to {1e-9 * largest:.1g} or more"
        beside = f"a variance of {largest:.2g}"
    else:
        ratio = np.linalg.eigvalsh(covariances / np.outer(np.sqrt(floor), np.sqrt(floor))).max()
        lost, remedy = "", f"by a factor of {max(1e-9 * ratio, 10):.1g} or more"
        beside = f"variances {ratio:.2g} times as large"
    return ValueError(
        f"covariance_floor{lost} is lost to rounding beside {beside}; "
        f"raise covariance_floor {remedy}, or bring the columns of x to similar scales"
    )


def floored_mixture(weights: Array, means: Array, covariances: Array, covariance_floor: float | Array) -> Mixture:
    """The Mixture whose covariances are raised by `floor_eigenvalues`; errors as for `m_step`."""
    covariances = floor_eigenvalues(covariances, covariance_floor)
    try:
        return Mixture(weights, means, covariances)
    except np.linalg.LinAlgError:
        raise _lost_floor(covariance_floor, covariances) from None


def floor_eigenvalues(covariances: Array, floor: float | Array) -> Array:
    """The maximum of the likelihood for Σ ⪰ diag(floor), given covariances (..., D, D).

    For a number the maximum is U max(Λ, floor) Uᵀ, where Σ = U Λ Uᵀ has no constraint.  One number for each column,
    (D,), is a number in the coordinates x_d/√floor_d: there the likelihood differs by a constant, and the constraint is
    Σ ⪰ I.

    Raises
    ------
    ValueError
        If the floor is negative or not finite, one of several numbers is 0, or the floor is below 64 ε times the
        largest eigenvalue of a covariance that needs it, with the machine's ε, in the coordinates above.
    """
    covariances = as_arrays("covariances (..., D, D)", covariances)
    check_symmetric(covariances, "covariances")
    floors = as_floors(floor, "covariance_floor", covariances.shape[-1])
    covariances = 0.5 * (covariances + covariances.swapaxes(-1, -2))
    try:
        np.linalg.cholesky(covariances - np.diag(floors))
        return covariances  # all eigenvalues are above the floor; Cholesky takes 1/18 of the time of eigenvalues
    except np.linalg.LinAlgError:
        least = floors.max()
        units = np.sqrt(floors / least) if least > 0 else np.ones_like(floors)  # 1 for a number
    area = np.outer(units, units)
    values, vectors = np.linalg.eigh(covariances / area)
    low = values[..., 0] < least
    lost = low & (least > 0) & (least < 64 * np.finfo(np.float64).eps * values[..., -1])
    if lost.any():  # rounding would change the log-likelihood by tenths of a nat
        raise _lost_floor(floor, covariances[lost])
    raised = vectors * np.sqrt(np.maximum(values, least))[..., None, :]
    raised = area * (raised @ raised.swapaxes(-1, -2))  # exactly symmetric, as A Aᵀ is
    return np.where(low[..., None, None], raised, covariances)
