"""GaussianMixture: the estimator over the steps of EM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.em.moments import Moments, expected_moments, moments_of_labels
from scratchgen.em.runs import best_of_runs, check_enough_rows
from scratchgen.em.steps import (
    COVARIANCE_TYPES,
    Prior,
    covariance_maximum,
    e_step,
    floored_mixture,
    free_energy,
    kmeans,
    kmeans_plus_plus,
    log_covariance_prior,
    m_step,
    maximum,
    nearest,
)
from scratchgen.estimator import Estimator, Progress
from scratchgen.mixture import Mixture
from scratchgen.validation import RNG, Array, as_choice, as_count, as_finite, as_generator, as_number, as_samples

STARTS = ("k-means++", "kmeans", "random_from_data", "random")


class GaussianMixture(Estimator):
    """Gaussian mixture fitted by EM.

    Parameters
    ----------
    n_components : int
        K.
    covariance_type : {"full", "tied", "diag", "spherical"}
        One matrix each, one for all, one variance a dimension, one variance each.
    tol : float
        A run has converged when the mean log-likelihood (with a prior, plus the log prior over N) gains less than this,
        nats.
    max_iter : int
        M-steps of a run; 0 keeps the best start as it is.
    n_init : int
        Number of starts, of which the best result is kept.
    init_params : {"k-means++", "kmeans", "random_from_data", "random"}
        Rows of x far apart, each with what is nearest to it; the same after Lloyd's algorithm; any rows of x (equal
        ones too), each with what is nearest to it; random responsibilities.  Not used if means are given.
    covariance_floor : float
        Least eigenvalue of a covariance, in squared units of x; without one the likelihood is unbounded for K >= 2.
        It is kept exactly, not by adding it: a ridge in the M-step breaks monotony.
    covariance_prior : (variance, count), optional
        As if every covariance had seen `count` more examples of `variance` in each direction (an inverse-Wishart MAP).
    weights_init, means_init, precisions_init : array_like, optional
        (K,), (K, D), and (K, D, D), (D, D), (K, D) or (K,) by type: where to start.  What is not given comes from
        `init_params`.
    warm_start : bool
        Start from the last fit, if there is one.
    rng : int, Generator or None

    Attributes
    ----------
    mixture_ : Mixture
        The fitted density; exact score, denoiser and diffusion come with it.
    weights_, means_ : (K,), (K, D)
    covariances_ : (K, D, D), (D, D), (K, D) or (K,), by type
    lower_bounds_ : (n_iter_ + 1,)
        Mean ELBO = mean log-likelihood after every E-step of the kept run, nats, plus the log prior over N if there is
        a prior: it never falls.
    converged_ : bool
    n_iter_ : int
        M-steps of the kept run.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(np.repeat([[1.0], [5.0]], 50, axis=0), 0.1, (100, 2))
    >>> model = GaussianMixture(n_components=2, covariance_type="diag", n_init=3, rng=0).fit(x)
    >>> np.sort(model.means_[:, 0]).round(), model.covariances_.shape
    (array([1., 5.]), (2, 2))
    >>> bool(model.bic(x) < GaussianMixture(1).fit(x).bic(x)), model.predict_proba([[1.1, 0.9]]).round().max()
    (True, np.float64(1.0))
    >>> model.mixture_.diffuse(0.6, 0.8).score(x).shape  # everything that a diffusion model is graded against
    (100, 2)

    The same from a given start, and then on from where it ended:

    >>> start = {"weights_init": [0.5, 0.5], "means_init": [[0, 0], [6, 6]], "precisions_init": [1.0, 1.0]}
    >>> model = GaussianMixture(2, "spherical", max_iter=2, tol=0, warm_start=True, **start).fit(x)
    >>> bounds = model.lower_bounds_
    >>> bool(model.fit(x).lower_bounds_[0] == bounds[-1])
    True

    A component on a single point would make the likelihood unbounded; the prior keeps each covariance from collapsing:

    >>> lonely = [[1.0, 1.0], [1.0, 1.2], [9.0, 9.0]]
    >>> model = GaussianMixture(2, covariance_prior=(0.01, 5.0), means_init=[[1, 1], [9, 9]]).fit(lonely)
    >>> np.linalg.eigvalsh(model.covariances_[1]).round(5)
    array([0.00833, 0.00833])
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
        covariance_type: str = "full",
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "k-means++",
        covariance_floor: float = 1e-6,
        covariance_prior: Prior | None = None,
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        warm_start: bool = False,
        rng: RNG = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.covariance_floor = covariance_floor
        self.covariance_prior = covariance_prior
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.warm_start = warm_start
        self.rng = rng

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Run EM from every start; yields after every M-step, with loss = −mean ELBO of the E-step that follows it."""
        K = as_count(self.n_components, "n_components")
        x = as_samples(x).astype(np.float64, copy=False)
        check_enough_rows(x, K)
        max_iter, n_init = as_count(self.max_iter, "max_iter", minimum=0), as_count(self.n_init, "n_init")
        tol = as_number(self.tol, "tol", low=0.0)
        floor = as_number(self.covariance_floor, "covariance_floor", low=0.0, open_low=True)
        as_choice(self.covariance_type, "covariance_type", COVARIANCE_TYPES)
        as_choice(self.init_params, "init_params", STARTS)
        prior, last, rng = self._prior(), self._last_fit(K, x.shape[1], floor), as_generator(self.rng)

        diagonal = self.covariance_type in ("diag", "spherical")

        def expect(mixture: Mixture) -> tuple[Moments, float]:
            moments, log_likelihood = expected_moments(x, mixture, diagonal)
            return moments, (log_likelihood + self._log_prior(mixture, prior)) / len(x)

        def maximise(moments: Moments, mixture: Mixture) -> Mixture:
            return maximum(moments, mixture, floor, self.covariance_type, prior)

        n_init = 1 if last is not None else n_init
        starts = [last] if last is not None else (self._initial_mixture(x, rng, floor) for _ in range(n_init))
        yield from best_of_runs(starts, expect, maximise, self._keep, tol, max_iter, n_init)

    def _prior(self) -> Prior | None:
        """covariance_prior, checked."""
        if self.covariance_prior is None:
            return None
        try:
            variance, count = self.covariance_prior
        except (TypeError, ValueError):
            raise ValueError(
                f"covariance_prior must be (variance, count) or None, got {self.covariance_prior!r}"
            ) from None
        return (
            as_number(variance, "covariance_prior's variance", low=0.0, open_low=True),
            as_number(count, "covariance_prior's count", low=0.0, open_low=True),
        )

    def _log_prior(self, mixture: Mixture, prior: Prior | None) -> float:
        if prior is None:
            return 0.0
        return log_covariance_prior(
            mixture.covariances[:1] if self.covariance_type == "tied" else mixture.covariances, prior
        )

    def _last_fit(self, K: int, D: int, floor: float) -> Mixture | None:
        """Where a warm start continues; None if there is nothing to continue."""
        if not self.warm_start or not hasattr(self, "mixture_"):
            return None
        if self.mixture_.means.shape != (K, D):
            raise ValueError(
                f"x and n_components must be as in the last fit, {self.mixture_.means.shape[1]} columns and "
                f"{len(self.mixture_.means)}, for a warm start, got {D} and {K}; set warm_start=False"
            )
        # The last fit may have had another type or a lower floor.
        weights, covariances = self.mixture_.weights, self.mixture_.covariances
        allowed = covariance_maximum(covariances, weights, self.covariance_type, floor)
        if np.allclose(allowed, covariances, rtol=1e-12, atol=0):
            return self.mixture_
        return Mixture(weights, self.mixture_.means, allowed)

    def _initial_mixture(self, x: Array, rng: np.random.Generator, floor: float) -> Mixture:
        """The given start; what is not given comes from the data."""
        K, D = self.n_components, x.shape[1]
        weights, means, covariances = self._given_weights(K), self._given_means(K, D), self._given_covariances(K, D)
        if weights is None or means is None or covariances is None:
            start = self._start_from(x, means, rng, floor)
            weights = start.weights if weights is None else weights
            means = start.means if means is None else means
            covariances = start.covariances if covariances is None else covariances
        return floored_mixture(weights, means, covariances, floor)

    def _start_from(self, x: Array, means: Array | None, rng: np.random.Generator, floor: float) -> Mixture:
        """An M-step on what `init_params` says, or on what is nearest to given means."""
        K, (N, D) = self.n_components, x.shape
        spread = np.tile(np.cov(x.T, bias=True).reshape(D, D), (K, 1, 1))
        spread = covariance_maximum(spread, np.full(K, N / K), self.covariance_type, floor)
        if means is None and self.init_params == "random":
            start = floored_mixture(np.full(K, 1 / K), np.tile(x.mean(axis=0), (K, 1)), spread, floor)
            resp = rng.random((N, K))
            resp /= resp.sum(axis=1, keepdims=True)
            return m_step(x, np.log(resp), start, floor, self.covariance_type, self._prior())
        if means is None and self.init_params == "random_from_data":
            means = x[rng.choice(N, size=K, replace=False)]
        elif means is None:
            means = kmeans_plus_plus(x, K, rng)
            means = kmeans(x, means) if self.init_params == "kmeans" else means
        start = floored_mixture(np.full(K, 1 / K), means, spread, floor)
        moments = moments_of_labels(x, nearest(x, means), start)
        return maximum(moments, start, floor, self.covariance_type, self._prior())

    def _given_weights(self, K: int) -> Array | None:
        """weights_init, checked."""
        if self.weights_init is None:
            return None
        weights = as_finite(self.weights_init, "weights_init")
        if weights.shape != (K,) or weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(f"weights_init must be {K} non-negative numbers that sum to 1, got {weights}")
        return weights

    def _given_means(self, K: int, D: int) -> Array | None:
        """means_init, checked."""
        if self.means_init is None:
            return None
        means = as_samples(self.means_init, "means_init", dimension=D)
        if means.shape[0] != K:
            raise ValueError(f"means_init must have {K} rows, as n_components says, got {means.shape[0]}")
        return means

    def _given_covariances(self, K: int, D: int) -> Array | None:
        """The inverses of precisions_init, (K, D, D), checked."""
        if self.precisions_init is None:
            return None
        precisions = as_finite(self.precisions_init, "precisions_init")
        shape = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}[self.covariance_type]
        if precisions.shape != shape:
            raise ValueError(f"precisions_init must have shape {shape}, got {precisions.shape}")
        full = expand(precisions, self.covariance_type, K, D)
        asymmetry = np.abs(full - full.swapaxes(1, 2)).max(axis=(1, 2))
        symmetric = (asymmetry <= 1e-8 * np.abs(full).max(axis=(1, 2))).all()
        if not symmetric or np.linalg.eigvalsh(full).min() <= 0:
            raise ValueError("precisions_init must be symmetric and positive definite; pass inverse covariances")
        return np.linalg.inv(full)

    def _keep(self, mixture: Mixture, bounds: list[float], converged: bool) -> None:
        self.mixture_ = mixture
        self.weights_, self.means_ = mixture.weights, mixture.means
        self.covariances_ = compress(mixture.covariances, self.covariance_type)
        self.lower_bounds_, self.converged_, self.n_iter_ = np.array(bounds), converged, len(bounds) - 1
        self.n_features_in_ = mixture.dimension

    def _restore(self) -> None:
        K, D = self.means_.shape
        self.mixture_ = Mixture(self.weights_, self.means_, expand(self.covariances_, self.covariance_type, K, D))

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

    def fit_predict(self, x: ArrayLike, y: object = None) -> Array:
        """Fit, and the likeliest component of every x, (N,); y is ignored."""
        return self.fit(x).predict(x)

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ, (n, D)."""
        self._require_fitted()
        return self.mixture_.sample(n, rng)

    @property
    def precisions_(self) -> Array:
        """Inverse covariances, in the shape of `covariances_`: as `precisions_init` they continue from this fit."""
        self._require_fitted()
        whole = self.covariance_type in ("full", "tied")
        if not whole:
            return 1 / self.covariances_
        inverse = np.linalg.inv(self.covariances_)
        return 0.5 * (inverse + inverse.swapaxes(-1, -2))

    @property
    def n_parameters_(self) -> int:
        """Free parameters: K − 1 weights, K·D means, and the covariances'."""
        self._require_fitted()
        K, D = self.means_.shape
        covariances = {"full": K * D * (D + 1) // 2, "tied": D * (D + 1) // 2, "diag": K * D, "spherical": K}
        return K - 1 + K * D + covariances[self.covariance_type]

    def bic(self, x: ArrayLike) -> float:
        """−2 Σ log p_θ(x) + n_parameters_ log N, nats: smaller is better."""
        log_prob = self.log_prob(x)
        return float(-2 * log_prob.sum() + self.n_parameters_ * np.log(len(log_prob)))

    def aic(self, x: ArrayLike) -> float:
        """−2 Σ log p_θ(x) + 2 n_parameters_, nats: smaller is better."""
        return float(-2 * self.log_prob(x).sum() + 2 * self.n_parameters_)


def compress(covariances: Array, covariance_type: str) -> Array:
    """(K, D, D) covariances of one type, in the shape that the type needs."""
    if covariance_type == "tied":
        return covariances[0]
    if covariance_type == "full":
        return covariances
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    return variances[:, 0] if covariance_type == "spherical" else variances


def expand(compressed: Array, covariance_type: str, K: int, D: int) -> Array:
    """The inverse of `compress`, (K, D, D)."""
    if covariance_type == "full":
        return compressed
    if covariance_type == "tied":
        return np.tile(compressed, (K, 1, 1))
    variances = compressed[:, None] if covariance_type == "spherical" else compressed
    return np.broadcast_to(variances, (K, D))[:, :, None] * np.eye(D)
