"""The two steps of EM for a Gaussian mixture, z being the component and its law π learned as well."""

from __future__ import annotations

import numpy as np

from scratchgen.em.moments import BLOCK, Moments
from scratchgen.likelihood import logsumexp
from scratchgen.mixture import Mixture
from scratchgen.validation import Array, IntArray

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
Prior = tuple[float, float]  # (variance, count): as if every covariance had seen `count` more examples of `variance`


def m_step_table(p_x: Array, q: Array) -> tuple[Array, Array]:
    """The p_θ(x | z) = p(x) q(z | x)/q(z) that maximises (15) among all tables, and q(z) = Σ_x p(x) q(z | x).

    What is left of the joint KL is then KL(q(z)‖prior).  The deck's (15) prints log p(x, z) where log p_θ(x | z) is
    meant: p(x, z) = p(x) q(z | x) has no θ in it.

    Parameters
    ----------
    p_x : (X,)
    q : (X, Z)
        q(z | x); every z is used by some x.

    Returns
    -------
    decoder : (X, Z)
        Columns sum to 1.
    aggregate : (Z,)
    """
    aggregate = p_x @ q
    return p_x[:, None] * q / aggregate, aggregate


def e_step(x: Array, mixture: Mixture) -> tuple[Array, Array]:
    """q(z | x) = p_θ(z | x), (18).

    Returns
    -------
    log_resp : (N, K)
        log q(z = k | x_n).
    log_prob : (N,)
        log p_θ(x_n), nats, which is the ELBO at this q.
    """
    log_joint = mixture.log_joint(x)
    log_prob = logsumexp(log_joint)
    return log_joint - log_prob[:, None], log_prob


def m_step(
    x: Array,
    log_resp: Array,
    mixture: Mixture,
    covariance_floor: float = 0.0,
    covariance_type: str = "full",
    covariance_prior: Prior | None = None,
) -> Mixture:
    """The mixture that maximises E_p E_q log p_θ(x, z), (15), among those with every covariance ⪰ floor · I.

    Parameters
    ----------
    x : (N, D)
    log_resp : (N, K)
        log q(z | x).
    mixture : Mixture
        The current one: a component that no point responds to keeps its mean and covariance, at weight 0.
    covariance_floor : float
        Least eigenvalue, in squared units of x.  Raising eigenvalues to the floor solves the constrained problem
        exactly, so EM stays monotone; adding floor · I to the covariance does not.
    covariance_type : {"full", "tied", "diag", "spherical"}
        One matrix each, one for all, one variance a dimension, one variance each.
    covariance_prior : (variance, count), optional
        Maximise the sum of this and `log_covariance_prior` instead.
    """
    log_counts = logsumexp(log_resp, axis=0)
    means, spread = mixture.means.copy(), mixture.covariances.copy()
    responds = np.isfinite(log_counts)
    for k in np.flatnonzero(responds):
        weights = np.exp(log_resp[:, k] - log_counts[k])
        weights /= weights.sum()  # exp of a difference of large logs is only 1e-10 accurate
        means[k] = weights @ x
        centred = x - means[k]  # about the new mean: E xxᵀ − m mᵀ loses its digits far from 0
        spread[k] = (centred.T * weights) @ centred
    moments = Moments(np.exp(log_counts), means, spread, responds)
    return maximum(moments, mixture, covariance_floor, covariance_type, covariance_prior)


def maximum(
    moments: Moments,
    mixture: Mixture,
    covariance_floor: float = 0.0,
    covariance_type: str = "full",
    covariance_prior: Prior | None = None,
) -> Mixture:
    """The mixture that `m_step` returns, from the moments; the arguments are its."""
    counts, means, spread, seen = moments
    covariances = covariance_maximum(spread, counts, covariance_type, covariance_floor, covariance_prior)
    if covariance_type != "tied":
        covariances[~seen] = mixture.covariances[~seen]
    return _mixture(counts / counts.sum(), means, covariances, covariance_floor)


def covariance_maximum(
    spread: Array,
    counts: Array,
    covariance_type: str = "full",
    floor: float = 0.0,
    prior: Prior | None = None,
) -> Array:
    """The covariances of one type that maximise the likelihood (and prior) given S_k and N_k, (K, D, D).

        Σ = (N_k S_k + count · variance · I)/(N_k + count), pooled or cut to its type, eigenvalues >= floor

    Each type's maximum under Σ ⪰ floor · I is its free maximum with what lies below the floor raised to it.

    Parameters
    ----------
    spread : (K, D, D)
        S_k = E_q[(x − m_k)(x − m_k)ᵀ | z = k].
    counts : (K,)
        N_k = Σ_n q(z = k | x_n).
    """
    K, D, _ = spread.shape
    if covariance_type == "tied":
        spread, counts = np.einsum("k,kde->de", counts / counts.sum(), spread)[None], counts.sum(keepdims=True)
    if prior is not None:
        variance, count = prior
        spread = (counts[:, None, None] * spread + count * variance * np.eye(D)) / (counts + count)[:, None, None]
    if covariance_type in ("full", "tied"):
        out = floor_eigenvalues(spread, floor)
    else:
        variances = np.diagonal(spread, axis1=1, axis2=2)
        if covariance_type == "spherical":
            variances = np.repeat(variances.mean(axis=1, keepdims=True), D, axis=1)
        out = np.maximum(variances, floor)[:, :, None] * np.eye(D)
    return np.repeat(out, K // len(out), axis=0)


def log_covariance_prior(covariances: Array, prior: Prior) -> float:
    """−½ Σ_k count (variance · tr Σ_k⁻¹ + log|Σ_k|), nats: the inverse-Wishart law up to its constant.

    Pass one matrix, (1, D, D), for tied covariances.  EM with this prior raises log-likelihood plus this, not the
    likelihood alone; with count > 0 no covariance can collapse.
    """
    variance, count = prior
    factors = np.linalg.cholesky(covariances)
    log_det = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum()
    whitening = np.linalg.solve(factors, np.broadcast_to(np.eye(covariances.shape[1]), covariances.shape))
    return float(-0.5 * count * (variance * (whitening**2).sum() + log_det))


def _mixture(weights: Array, means: Array, covariances: Array, floor: float) -> Mixture:
    """A Mixture; if the floor was lost to rounding, the error says so."""
    try:
        np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        raise _lost_floor(floor, float(np.linalg.eigvalsh(covariances).max())) from None
    return Mixture(weights, means, covariances)


def _lost_floor(floor: float, largest: float) -> ValueError:
    return ValueError(
        f"covariance_floor {floor:g} is lost to rounding beside a variance of {largest:.2g}; "
        f"raise covariance_floor to {1e-9 * largest:.1g} or more, or bring the columns of x to like scales"
    )


def floored_mixture(weights: Array, means: Array, covariances: Array, covariance_floor: float) -> Mixture:
    """The Mixture with every covariance's eigenvalues raised to the floor."""
    return _mixture(weights, means, floor_eigenvalues(covariances, covariance_floor), covariance_floor)


def floor_eigenvalues(covariances: Array, floor: float) -> Array:
    """U max(Λ, floor) Uᵀ for every covariance = U Λ Uᵀ, (..., D, D): the likelihood's maximum where Σ ⪰ floor · I."""
    covariances = 0.5 * (covariances + covariances.swapaxes(-1, -2))
    try:
        np.linalg.cholesky(covariances - floor * np.eye(covariances.shape[-1]))
        return covariances  # all are above it; a tenth of the price of eigenvalues
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariances)
    low, largest = values[..., 0] < floor, values[..., -1]
    lost = low & (floor > 0) & (floor < 64 * np.finfo(np.float64).eps * largest)
    if lost.any():  # the likelihood would move by tenths of a nat
        raise _lost_floor(floor, float(largest[lost].max()))
    raised = vectors * np.sqrt(np.maximum(values, floor))[..., None, :]
    raised = raised @ raised.swapaxes(-1, -2)  # exactly symmetric, as A Aᵀ is
    return np.where(low[..., None, None], raised, covariances)


def free_energy(x: Array, log_resp: Array, mixture: Mixture) -> Array:
    """E_q[log p_θ(x, z) − log q(z | x)] for every x, (N,), nats: the ELBO of (8) for any q, log p_θ(x) at (18)."""
    log_joint = mixture.log_joint(x)
    resp = np.exp(log_resp)
    responds = resp > 0  # 0 log 0 = 0
    terms = np.zeros_like(log_joint)
    terms[responds] = resp[responds] * (log_joint[responds] - log_resp[responds])
    return terms.sum(axis=1)


# --- where to start ----------------------------------------------------------------------------------------------


def kmeans_plus_plus(x: Array, n_centres: int, rng: np.random.Generator) -> Array:
    """Rows of x chosen far apart, (n_centres, D): each with probability ∝ squared distance to those chosen before."""
    centres = [x[rng.integers(len(x))]]
    distance = ((x - centres[0]) ** 2).sum(axis=1)
    for _ in range(1, n_centres):
        total = distance.sum()
        row = rng.choice(len(x), p=distance / total) if total > 0 else rng.integers(len(x))
        centres.append(x[row])
        distance = np.minimum(distance, ((x - x[row]) ** 2).sum(axis=1))
    return np.array(centres)


def nearest(x: Array, centres: Array) -> IntArray:
    """Index of the centre nearest to every x, (N,)."""
    from scipy.spatial.distance import cdist  # importing SciPy would triple the time of `import scratchgen`

    labels = np.empty(len(x), dtype=np.int64)
    rows = max(BLOCK // len(centres), 1)
    for start in range(0, len(x), rows):
        labels[start : start + rows] = cdist(x[start : start + rows], centres, "sqeuclidean").argmin(axis=1)
    return labels


def kmeans(x: Array, centres: Array, max_iter: int = 300) -> Array:
    """Lloyd's algorithm from these centres until no point changes its own, (K, D); an empty centre stays."""
    centres, labels = centres.copy(), np.full(len(x), -1)
    for _ in range(max_iter):
        previous, labels = labels, nearest(x, centres)
        if np.array_equal(labels, previous):
            break
        for k in np.unique(labels):
            centres[k] = x[labels == k].mean(axis=0)
    return centres
