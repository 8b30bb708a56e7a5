"""A mixture of tables for whole numbers, by EM: an exact discrete density with an exact denoiser.

    P(x) = Σ_c π_c Π_d P_cd(x_d)

A diffusion model of images with few grey levels can be graded against it: log P is known, and so is E[x_0 | x_t] when
the levels, scaled to [−1, 1], are diffused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.em.runs import best_of_runs, check_enough_rows
from scratchgen.em.steps import kmeans, kmeans_plus_plus, nearest
from scratchgen.estimator import Estimator, Progress
from scratchgen.likelihood import level_values, logsumexp
from scratchgen.validation import RNG, Array, as_count, as_generator, as_number, as_samples

Parameters = tuple[Array, Array]  # π (K,) and P (K, D, n_levels)


class CategoricalMixture(Estimator):
    """Mixture of independent categorical variables, fitted by EM.

    Parameters
    ----------
    n_components : int
        K.
    n_levels : int
        Values are 0..n_levels−1: 17 for the 8x8 digits.
    smoothing : float
        Pseudo-examples that every table has seen, spread over the levels as the whole column is, one more example of
        equal shares of all levels included (a Dirichlet prior around the pixel's histogram); 0 is maximum likelihood,
        which gives probability 0 to what was not seen.
    tol : float
        A run has converged when the mean objective gains less than this, nats.
    max_iter, n_init : int
        M-steps of a run; number of starts, each from k-means on the levels as numbers, of which the best is kept.
    rng : int, Generator or None

    Attributes
    ----------
    weights_ : (K,)
        π.
    probabilities_ : (K, D, n_levels)
        P_cd.
    lower_bounds_ : (n_iter_ + 1,)
        Mean log-likelihood plus log prior over N after every E-step, nats: it never falls.
    converged_, n_iter_ : bool, int

    Examples
    --------
    >>> x = np.repeat([[0, 0, 2], [2, 1, 0]], 50, axis=0)
    >>> model = CategoricalMixture(2, n_levels=3, rng=0).fit(x)
    >>> model.probabilities_.argmax(axis=2)[model.predict(x[[0, 99]])]
    array([[0, 0, 2],
           [2, 1, 0]])
    """

    _fitted: ClassVar[tuple[str, ...]] = ("weights_", "probabilities_", "lower_bounds_", "converged_", "n_iter_")

    def __init__(
        self,
        n_components: int = 1,
        n_levels: int = 2,
        smoothing: float = 1.0,
        tol: float = 1e-4,
        max_iter: int = 200,
        n_init: int = 1,
        rng: RNG = None,
    ) -> None:
        self.n_components = n_components
        self.n_levels = n_levels
        self.smoothing = smoothing
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.rng = rng

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.positive_only = True
        return tags

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Run EM from every start; yields after every M-step, with loss = −mean objective, nats."""
        K = as_count(self.n_components, "n_components")
        max_iter, n_init = as_count(self.max_iter, "max_iter", minimum=0), as_count(self.n_init, "n_init")
        tol, smoothing = as_number(self.tol, "tol", low=0.0), as_number(self.smoothing, "smoothing", low=0.0)
        x = as_samples(x).astype(np.float64)
        one_hot = self._one_hot(x)
        check_enough_rows(one_hot, K)
        # (D, n_levels): the column's frequencies with one example of every level's share, so that none is 0
        pseudo = smoothing * (one_hot.sum(axis=0) + 1 / one_hot.shape[2]) / (len(one_hot) + 1)
        rng = as_generator(self.rng)

        def start() -> Parameters:
            # On the digits 20 tables came to 2.17 bits a pixel from here, to 2.20 from random responsibilities.
            clusters = nearest(x, kmeans(x, kmeans_plus_plus(x, K, rng)))
            resp = 0.9 * (clusters[:, None] == np.arange(K)) + 0.1 / K  # a 0 in a table would stay one
            return _m_step(one_hot, resp, pseudo)

        def expect(parameters: Parameters) -> tuple[Array, float]:
            log_joint = _log_joint(one_hot, *parameters)
            bound = float(logsumexp(log_joint).mean()) + _log_prior(parameters[1], pseudo) / len(one_hot)
            return _posterior(log_joint, parameters[0]), bound

        def maximise(resp: Array, parameters: Parameters) -> Parameters:
            return _m_step(one_hot, resp, pseudo)

        starts = (start() for _ in range(n_init))
        yield from best_of_runs(starts, expect, maximise, self._keep, tol, max_iter, n_init)

    def _one_hot(self, x: Array) -> Array:
        """Levels as indicators, (N, D, n_levels)."""
        n_levels = as_count(self.n_levels, "n_levels", minimum=2)
        wrong = np.argwhere((x != np.round(x)) | (x < 0) | (x >= n_levels))
        if len(wrong):
            n, d = wrong[0]
            negative = " (Negative values in data)" if x[n, d] < 0 else ""
            raise ValueError(
                f"x must hold whole numbers in 0..{n_levels - 1}, but x[{n}, {d}] is {x[n, d]}{negative}; "
                "set n_levels, or use GaussianMixture for real numbers"
            )
        return (x[:, :, None] == np.arange(n_levels)).astype(np.float64)

    def _keep(self, parameters: Parameters, bounds: list[float], converged: bool) -> None:
        self.weights_, self.probabilities_ = parameters
        self.n_features_in_ = self.probabilities_.shape[1]
        self.lower_bounds_, self.converged_, self.n_iter_ = np.array(bounds), converged, len(bounds) - 1

    def _log_joint(self, x: ArrayLike) -> Array:
        one_hot = self._one_hot(self._as_fitted_samples(x))
        return _log_joint(one_hot, self.weights_, self.probabilities_)

    def log_prob(self, x: ArrayLike) -> Array:
        """log P(x), (N,), nats: a mass, not a density."""
        return logsumexp(self._log_joint(x))

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """The ELBO at q = P(z | x), (N,), nats, term by term; equal to `log_prob`, and `rng` is not needed."""
        log_joint = self._log_joint(x)
        resp = _posterior(log_joint, self.weights_)
        terms = np.zeros_like(log_joint)
        responds = resp > 0  # 0 log 0 = 0
        terms[responds] = resp[responds] * (log_joint[responds] - np.log(resp[responds]))
        return terms.sum(axis=1)

    def predict_proba(self, x: ArrayLike) -> Array:
        """P(z = c | x), (N, K); π where P(x) = 0, which only smoothing=0 allows."""
        return _posterior(self._log_joint(x), self.weights_)

    def predict(self, x: ArrayLike) -> Array:
        """The likeliest component of every x, (N,)."""
        return self.predict_proba(x).argmax(axis=1)

    def fit_predict(self, x: ArrayLike, y: object = None) -> Array:
        """Fit, and the likeliest component of every x, (N,); y is ignored."""
        return self.fit(x).predict(x)

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples, (n, D), whole numbers."""
        self._require_fitted()
        rng = as_generator(rng)
        labels = rng.choice(len(self.weights_), size=as_count(n, "n", minimum=0), p=self.weights_)
        steps = self.probabilities_.cumsum(axis=2)[:, :, :-1]
        u = rng.random((len(labels), self.n_features_in_, 1))
        return (u > steps[labels]).sum(axis=2)

    # --- diffused --------------------------------------------------------------------------------------------------

    def levels(self) -> Array:
        """The values 2k/(n_levels − 1) − 1 that level k has in [−1, 1], (n_levels,)."""
        return level_values(self.n_levels)

    def _diffused(self, x_t: ArrayLike, scale: float, std: float) -> tuple[Array, Array, Array]:
        """log joint of (x_t, z), (N, K), E[x_0 | x_t, c] and Var(x_0d | x_t, c), each (N, K, D)."""
        x_t = self._as_fitted_samples(x_t)
        std = as_number(std, "std", low=0.0, open_low=True)
        log_kernel = -0.5 * ((x_t[:, :, None] - scale * self.levels()) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
        with np.errstate(divide="ignore"):
            log_terms = log_kernel[:, None] + np.log(self.probabilities_)
        log_marginal = logsumexp(log_terms)
        law = np.exp(log_terms - log_marginal[..., None])
        means = law @ self.levels()
        variances = np.maximum(law @ self.levels() ** 2 - means**2, 0.0)
        return np.log(self.weights_) + log_marginal.sum(axis=2), means, variances

    def diffused_log_prob(self, x_t: ArrayLike, scale: float, std: float) -> Array:
        """log density of x_t = scale · x_0 + std · ε, x_0 the levels in [−1, 1], (N,), nats."""
        return logsumexp(self._diffused(x_t, scale, std)[0])

    def denoise(self, x_t: ArrayLike, scale: float, std: float) -> Array:
        """E[x_0 | x_t], the Bayes denoiser, (N, D), for levels in [−1, 1]."""
        log_joint, means, _ = self._diffused(x_t, scale, std)
        return np.einsum("nk,nkd->nd", _posterior(log_joint, self.weights_), means)

    def denoise_variance(self, x_t: ArrayLike, scale: float, std: float) -> Array:
        """tr Cov(x_0 | x_t), (N,): what even the Bayes denoiser misses by, squared."""
        log_joint, means, variances = self._diffused(x_t, scale, std)
        posterior = _posterior(log_joint, self.weights_)
        spread = means - np.einsum("nk,nkd->nd", posterior, means)[:, None]
        return np.einsum("nk,nkd->n", posterior, variances + spread**2)


def _log_joint(one_hot: Array, weights: Array, tables: Array) -> Array:
    """log π_c Π_d P_cd(x_d), (N, K); −inf where a table has a 0."""
    N, K = len(one_hot), len(weights)
    with np.errstate(divide="ignore"):
        log_weights, log_tables = np.log(weights), np.log(tables)
    seen = np.where(np.isneginf(log_tables), -1e300, log_tables)  # 0 · (−inf) would be nan in the product
    log_joint = one_hot.reshape(N, -1) @ seen.reshape(K, -1).T + log_weights
    return np.where(log_joint < -1e299, -np.inf, log_joint)


def _posterior(log_joint: Array, weights: Array) -> Array:
    """P(z = c | x), (N, K), from log P(x, z); π where that is 0 for all z."""
    log_joint = np.where(np.isneginf(log_joint).all(axis=1, keepdims=True), np.log(weights), log_joint)
    resp = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    # Divided by its sum: where logs are near 1e16, one less log P(x) is no logarithm of a probability any more.
    return resp / resp.sum(axis=1, keepdims=True)


def _m_step(one_hot: Array, resp: Array, pseudo: Array) -> tuple[Array, Array]:
    """π and P that maximise E_p E_q log p_θ(x, z) plus the log prior; a table without examples is uniform."""
    counts = np.tensordot(resp, one_hot, axes=(0, 0)) + pseudo
    totals = counts.sum(axis=2, keepdims=True)
    uniform = np.full_like(counts, 1 / counts.shape[2])
    return resp.mean(axis=0), np.divide(counts, totals, out=uniform, where=totals > 0)


def _log_prior(tables: Array, pseudo: Array) -> float:
    """Σ pseudo · log P, the Dirichlet law up to its constant, nats."""
    seen = pseudo > 0
    return float((pseudo[seen] * np.log(tables[:, seen])).sum())
