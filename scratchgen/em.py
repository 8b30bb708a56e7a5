"""Equations (15)-(18): EM as alternating minimisation of KL(p(x) q(z|x)‖p_θ(x, z)).

The E-step takes q(z | x) = p_θ(z | x), (18), after which the joint KL equals KL(p‖p_θ); the M-step maximises
E_p E_q log p_θ(x, z) over θ with q frozen, (15).  (The deck's formula after (18) lets θ vary in the sampling law too,
which would not maximise the likelihood.)  In a Gaussian mixture z is the component and its law π is learned as well;
in PPCA z ~ N(0, I) is fixed, as in the deck.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.estimator import Estimator, Progress
from scratchgen.likelihood import logsumexp
from scratchgen.mixture import Mixture
from scratchgen.validation import RNG, Array, as_count, as_finite, as_generator, as_number, as_samples
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_posterior

# --- the M-step over all tables ------------------------------------------------------------------------------------


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


# --- the two steps for a Gaussian mixture ------------------------------------------------------------------------


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


def m_step(x: Array, log_resp: Array, mixture: Mixture, covariance_floor: float = 0.0) -> Mixture:
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
    """
    log_counts = logsumexp(log_resp, axis=0)
    means, covariances = mixture.means.copy(), mixture.covariances.copy()
    for k in np.flatnonzero(np.isfinite(log_counts)):
        weights = np.exp(log_resp[:, k] - log_counts[k])
        weights /= weights.sum()  # exp of a difference of large logs is only 1e-10 accurate
        means[k] = weights @ x
        centred = x - means[k]  # about the new mean: E xxᵀ − m mᵀ loses its digits far from 0
        covariances[k] = (centred.T * weights) @ centred
    counts = np.exp(log_counts)
    return floored_mixture(counts / counts.sum(), means, covariances, covariance_floor)


def floored_mixture(weights: Array, means: Array, covariances: Array, covariance_floor: float) -> Mixture:
    """The Mixture with every covariance's eigenvalues raised to the floor."""
    floored = np.array([floor_eigenvalues(covariance, covariance_floor) for covariance in covariances])
    try:
        np.linalg.cholesky(floored)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"covariance_floor {covariance_floor:g} is lost to rounding: a covariance is no longer positive definite; "
            "raise covariance_floor"
        ) from None
    return Mixture(weights, means, floored)


def floor_eigenvalues(covariance: Array, floor: float) -> Array:
    """U max(Λ, floor) Uᵀ for covariance = U Λ Uᵀ, (D, D): the likelihood's maximum subject to Σ ⪰ floor · I."""
    covariance = 0.5 * (covariance + covariance.T)
    values, vectors = np.linalg.eigh(covariance)
    if values[0] >= floor:
        return covariance
    raised = vectors * np.sqrt(np.maximum(values, floor))
    return raised @ raised.T  # exactly symmetric, as A Aᵀ is


def free_energy(x: Array, log_resp: Array, mixture: Mixture) -> Array:
    """E_q[log p_θ(x, z) − log q(z | x)] for every x, (N,), nats: the ELBO of (8) for any q, log p_θ(x) at (18)."""
    log_joint = mixture.log_joint(x)
    resp = np.exp(log_resp)
    responds = resp > 0  # 0 log 0 = 0
    terms = np.zeros_like(log_joint)
    terms[responds] = resp[responds] * (log_joint[responds] - log_resp[responds])
    return terms.sum(axis=1)


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


class GaussianMixture(Estimator):
    """Gaussian mixture with full covariances, fitted by EM.

    Parameters
    ----------
    n_components : int
        K.
    tol : float
        A run has converged when the mean log-likelihood gains less than this, nats.
    max_iter : int
    n_init : int
        Number of k-means++ starts, of which the likeliest result is kept.
    covariance_floor : float
        Least eigenvalue of a covariance, in squared units of x; without one the likelihood is unbounded for K >= 2.
    weights_init, means_init, precisions_init : array_like, optional
        (K,), (K, D), (K, D, D): where to start.  What is not given comes from k-means++ and its nearest points.
    rng : int, Generator or None

    Attributes
    ----------
    mixture_ : Mixture
        The fitted density; exact score, denoiser and diffusion come with it.
    weights_, means_, covariances_ : arrays
        Its parameters.
    lower_bounds_ : (n_iter_ + 1,)
        Mean ELBO = mean log-likelihood after every E-step of the kept run, nats: it never falls.
    converged_ : bool
    n_iter_ : int
        M-steps of the kept run.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(np.repeat([[1.0], [5.0]], 50, axis=0), 0.1, (100, 2))
    >>> model = GaussianMixture(n_components=2, rng=0).fit(x)
    >>> np.sort(model.means_[:, 0]).round()
    array([1., 5.])
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        "weights_",
        "means_",
        "covariances_",
        "lower_bounds_",
        "converged_",
        "n_iter_",
    )

    def __init__(
        self,
        n_components: int = 1,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        covariance_floor: float = 1e-6,
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        rng: RNG = None,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.covariance_floor = covariance_floor
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.rng = rng

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Run EM from every start; yields after every M-step, with loss = −mean ELBO of the E-step that follows it."""
        K = as_count(self.n_components, "n_components")
        x = as_samples(x, n_min=K).astype(np.float64)
        max_iter, n_init = as_count(self.max_iter, "max_iter"), as_count(self.n_init, "n_init")
        tol = as_number(self.tol, "tol", low=0.0)
        floor = as_number(self.covariance_floor, "covariance_floor", low=0.0, open_low=True)
        rng = as_generator(self.rng)
        best, step = -np.inf, 0
        for _ in range(n_init):
            leads = False
            mixture = self._initial_mixture(x, rng, floor)
            log_resp, log_prob = e_step(x, mixture)
            bounds = [float(log_prob.mean())]
            for _ in range(max_iter):
                mixture = m_step(x, log_resp, mixture, floor)
                log_resp, log_prob = e_step(x, mixture)
                bounds.append(float(log_prob.mean()))
                converged = bounds[-1] - bounds[-2] < tol
                leads = leads or bounds[-1] > best  # a start that has taken the lead is kept to its end
                if leads:
                    best = bounds[-1]
                    self._keep(mixture, bounds, converged)
                step += 1
                yield Progress(step, n_init * max_iter, -bounds[-1])
                if converged:
                    break

    def _initial_mixture(self, x: Array, rng: np.random.Generator, floor: float) -> Mixture:
        """The given start, completed by an M-step on the points nearest to the (given or k-means++) means."""
        K, (N, D) = self.n_components, x.shape
        given = self.means_init
        means = kmeans_plus_plus(x, K, rng) if given is None else as_samples(given, "means_init", dimension=D)
        if means.shape[0] != K:
            raise ValueError(f"means_init must have {K} rows, as n_components says, got {means.shape[0]}")
        spread = np.cov(x.T, bias=True).reshape(D, D)
        start = floored_mixture(np.full(K, 1 / K), means, np.tile(spread, (K, 1, 1)), floor)
        distances = ((x[:, None] - means) ** 2).sum(axis=2)
        log_resp = np.full((N, K), -np.inf)
        log_resp[np.arange(N), distances.argmin(axis=1)] = 0.0
        start = m_step(x, log_resp, start, floor)
        weights, covariances = start.weights, start.covariances
        if self.weights_init is not None:
            weights = as_finite(self.weights_init, "weights_init")
            if weights.shape != (K,) or weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
                raise ValueError(f"weights_init must be {K} non-negative numbers that sum to 1, got {weights}")
        if self.precisions_init is not None:
            precisions = as_finite(self.precisions_init, "precisions_init")
            if precisions.shape != (K, D, D):
                raise ValueError(f"precisions_init must have shape {(K, D, D)}, got {precisions.shape}")
            symmetric = np.allclose(precisions, precisions.swapaxes(1, 2), rtol=1e-8)
            if not symmetric or np.linalg.eigvalsh(precisions).min() <= 0:
                raise ValueError("precisions_init must be symmetric and positive definite; pass inverse covariances")
            covariances = np.linalg.inv(precisions)
        return floored_mixture(weights, start.means if given is None else means, covariances, floor)

    def _keep(self, mixture: Mixture, bounds: list[float], converged: bool) -> None:
        self.mixture_ = mixture
        self.weights_, self.means_, self.covariances_ = mixture.weights, mixture.means, mixture.covariances
        self.lower_bounds_, self.converged_, self.n_iter_ = np.array(bounds), converged, len(bounds) - 1
        self.n_features_in_ = mixture.dimension

    def _restore(self) -> None:
        self.mixture_ = Mixture(self.weights_, self.means_, self.covariances_)

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x), (N,), nats, exact."""
        x = self._as_fitted_samples(x)
        return self.mixture_.log_prob(x)

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """The ELBO at q = p_θ(z | x), (N,), nats: term by term, and equal to `log_prob`; `rng` is not needed."""
        x = self._as_fitted_samples(x)
        return free_energy(x, e_step(x, self.mixture_)[0], self.mixture_)

    def predict_proba(self, x: ArrayLike) -> Array:
        """p_θ(z = k | x), (N, K)."""
        x = self._as_fitted_samples(x)
        return self.mixture_.posterior(x)

    def predict(self, x: ArrayLike) -> Array:
        """The likeliest component of every x, (N,)."""
        return self.predict_proba(x).argmax(axis=1)

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ, (n, D)."""
        self._require_fitted()
        return self.mixture_.sample(n, rng)


# --- probabilistic PCA -------------------------------------------------------------------------------------------


def ppca_maximum(covariance: Array, n_components: int) -> tuple[Array, float]:
    """The maximum-likelihood W (D, k) and σ² of x = W z + μ + σ ε (Tipping and Bishop 1999).

    W = U_k (Λ_k − σ² I)^½,   σ² = mean of the D − k smallest eigenvalues of `covariance` (with 1/N)
    """
    values, vectors = np.linalg.eigh(covariance)
    noise_variance = float(values[:-n_components].mean())
    excess = np.maximum(values[::-1][:n_components] - noise_variance, 0.0)  # below 0 only by rounding
    return vectors[:, ::-1][:, :n_components] * np.sqrt(excess), noise_variance


def ppca_em_step(covariance: Array, W: Array, noise_variance: float) -> tuple[Array, float]:
    """One E- and M-step of PPCA on the sample covariance S, (15)-(18) with q(z) = N(0, I) fixed.

    W' = S W (σ² I + M⁻¹ WᵀS W)⁻¹,   σ²' = tr(S − S W M⁻¹ W'ᵀ)/D,   M = WᵀW + σ² I
    """
    M = W.T @ W + noise_variance * np.eye(W.shape[1])
    SW = covariance @ W
    new_W = np.linalg.solve((noise_variance * np.eye(W.shape[1]) + np.linalg.solve(M, W.T @ SW)).T, SW.T).T
    new_variance = float(np.trace(covariance) - np.sum(np.linalg.solve(M, SW.T) * new_W.T)) / len(covariance)
    return new_W, new_variance


class PPCA(Estimator):
    """Probabilistic principal component analysis: p(z) = N(0, I_k), p_θ(x | z) = N(W z + μ, σ² I).

    The deck's own latent-variable model with everything in closed form, and the exact optimum of a linear VAE.

    Parameters
    ----------
    n_components : int
        k, at most D − 1.
    method : {"closed", "em"}
        Tipping and Bishop's formula, or EM from random W; both reach the same optimum.
    tol : float
        EM stops when the mean log-likelihood gains less than this, nats.
    max_iter : int
    rng : int, Generator or None
        Of EM's start.

    Attributes
    ----------
    components_ : (D, k)
        W.
    mean_ : (D,)
    noise_variance_ : float
        σ².
    lower_bounds_ : (n_iter_ + 1,) or (1,)
        Mean log-likelihood after every E-step, nats.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((200, 3)) * [3.0, 1.0, 1.0]
    >>> closed, em = PPCA(1).fit(x), PPCA(1, method="em", tol=0, max_iter=300, rng=0).fit(x)
    >>> bool(abs(closed.score(x) - em.score(x)) < 1e-10)
    True
    """

    _fitted: ClassVar[tuple[str, ...]] = ("components_", "mean_", "noise_variance_", "lower_bounds_")

    def __init__(
        self, n_components: int = 1, method: str = "closed", tol: float = 1e-9, max_iter: int = 1000, rng: RNG = None
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.rng = rng

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """One step for the closed form, or EM; yields with loss = −mean log-likelihood, nats."""
        x = as_samples(x, n_min=2).astype(np.float64)
        k, D = as_count(self.n_components, "n_components"), x.shape[1]
        max_iter, tol = as_count(self.max_iter, "max_iter"), as_number(self.tol, "tol", low=0.0)
        if k >= D:
            raise ValueError(
                f"n_components must be below the {D} columns of x, got {k} for {D} feature(s): "
                "σ² needs directions left over"
            )
        if self.method not in ("closed", "em"):
            raise ValueError(f"method must be 'closed' or 'em', got {self.method!r}")
        mean = x.mean(axis=0)
        covariance = np.atleast_2d(np.cov(x.T, bias=True))
        total = float(np.trace(covariance))
        if self.method == "closed":
            W, variance = ppca_maximum(covariance, k)
            self._keep(x, mean, W, variance, total, [])
            yield Progress(1, 1, -self.lower_bounds_[-1])
            return
        W, variance = as_generator(self.rng).standard_normal((D, k)) * (total / D) ** 0.5, total / D
        self._keep(x, mean, W, variance, total, [])
        for iteration in range(1, max_iter + 1):
            W, variance = ppca_em_step(covariance, W, variance)
            self._keep(x, mean, W, variance, total, self.lower_bounds_.tolist())
            yield Progress(iteration, max_iter, -self.lower_bounds_[-1])
            if self.lower_bounds_[-1] - self.lower_bounds_[-2] < tol:
                break

    def _keep(self, x: Array, mean: Array, W: Array, variance: float, total: float, bounds: list[float]) -> None:
        if variance <= 1e-14 * total:
            raise ValueError(
                f"x lies in {W.shape[1]} dimensions or fewer, so that σ² is 0 and the likelihood infinite; "
                "lower n_components"
            )
        self.n_features_in_, self.mean_, self.components_, self.noise_variance_ = len(mean), mean, W, variance
        self.lower_bounds_ = np.array([*bounds, float(self.log_prob(x).mean())])

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x) = log N(x; μ, W Wᵀ + σ² I), (N,), nats, exact."""
        x = self._as_fitted_samples(x)
        return linear_gaussian_log_prob(x, self.components_, self.mean_, self.noise_variance_)

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """The ELBO at q = p_θ(z | x), (N,), nats, equal to `log_prob`; `rng` is not needed."""
        x = self._as_fitted_samples(x)
        parameters = (self.components_, self.mean_, self.noise_variance_)
        mean, covariance = linear_gaussian_posterior(x, *parameters)
        return linear_gaussian_elbo(x, *parameters, mean, covariance)

    def encode(self, x: ArrayLike) -> Array:
        """E[z | x], (N, k)."""
        return linear_gaussian_posterior(
            self._as_fitted_samples(x), self.components_, self.mean_, self.noise_variance_
        )[0]

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ, (n, D)."""
        self._require_fitted()
        rng = as_generator(rng)
        z = rng.standard_normal((as_count(n, "n", minimum=0), self.components_.shape[1]))
        noise = rng.standard_normal((len(z), self.n_features_in_))
        return z @ self.components_.T + self.mean_ + self.noise_variance_**0.5 * noise
