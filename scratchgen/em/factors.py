"""PPCA and factor analysis: x = W z + μ + noise with q(z) = N(0, I) fixed, the deck's own case, all in closed form.

Every run records the free energy E_p E_q[log p_θ(x, z) − log q] after each half-step: the joint KL is that with a minus
sign, less the entropy of the data's law.  After an E-step it is KL(p‖p_θ), after an M-step it has fallen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.estimator import Estimator, Progress
from scratchgen.validation import RNG, Array, as_choice, as_count, as_generator, as_number, as_samples
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_posterior


def ppca_maximum(covariance: Array, n_components: int, noise_variance: float | None = None) -> tuple[Array, float]:
    """The maximum-likelihood W (D, k) and σ² of x = W z + μ + σ ε (Tipping and Bishop 1999).

    W = U_k max(Λ_k − σ² I, 0)^½,   σ² = mean of the D − k smallest eigenvalues of `covariance` (with 1/N)

    With `noise_variance` given, σ² is that, and a direction whose eigenvalue does not exceed it is left to the noise.
    """
    values, vectors = np.linalg.eigh(covariance)
    if noise_variance is None and not 0 < n_components < len(values):
        raise ValueError(f"n_components must be in 1..{len(values) - 1} for σ² to have directions, got {n_components}")
    if noise_variance is None:
        noise_variance = float(values[:-n_components].mean())
    excess = np.maximum(values[::-1][:n_components] - noise_variance, 0.0)
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


def factor_analysis_em_step(
    covariance: Array, W: Array, noise_variance: Array, noise_floor: float | Array = 0.0
) -> tuple[Array, Array]:
    """One E- and M-step of factor analysis on the sample covariance S, (15)-(18): W' (D, k) and Ψ' (D,).

        β = Wᵀ(W Wᵀ + Ψ)⁻¹,   W' = S βᵀ (I − βW + βSβᵀ)⁻¹,   Ψ' = diag(S − W'βS)

    With `noise_floor` it is the maximum subject to Ψ >= floor.  With all Ψ equal it is `ppca_em_step` up to that.
    """
    weighted = (W.T / noise_variance).T
    beta = np.linalg.solve(np.eye(W.shape[1]) + W.T @ weighted, weighted.T)  # (I + WᵀΨ⁻¹W)⁻¹WᵀΨ⁻¹, the same by k × k
    S_beta = covariance @ beta.T
    new_W = np.linalg.solve((np.eye(W.shape[1]) - beta @ W + beta @ S_beta).T, S_beta.T).T
    left = np.diagonal(covariance) - (new_W * S_beta).sum(axis=1)
    return new_W, np.maximum(left, noise_floor)


class LinearGaussianModel(Estimator):
    """What PPCA and FactorAnalysis share: they differ in the noise and in how a step is made."""

    n_components: int
    components_: Array
    mean_: Array
    noise_variance_: float | Array
    lower_bounds_: Array
    free_energies_: Array
    converged_: bool
    n_iter_: int

    def _run_em(
        self, x: Array, W: Array, noise_variance: float | Array, tol: float, max_iter: int
    ) -> Iterator[Progress]:
        """EM from (W, Ψ) to convergence; keeps the model usable after every step."""
        mean, covariance = x.mean(axis=0), np.atleast_2d(np.cov(x.T, bias=True))
        self.n_features_in_, self.mean_ = len(mean), mean
        energies: list[float] = []
        self._keep(x, W, noise_variance, energies)
        for iteration in range(1, max_iter + 1):
            q_mean, q_cov = linear_gaussian_posterior(x, W, mean, noise_variance)
            W, noise_variance = self._step(covariance, W, noise_variance)
            energies.append(float(linear_gaussian_elbo(x, W, mean, noise_variance, q_mean, q_cov).mean()))
            self._keep(x, W, noise_variance, energies)
            self.n_iter_, self.converged_ = iteration, bool(self.lower_bounds_[-1] - self.lower_bounds_[-2] < tol)
            yield Progress(iteration, max_iter, -self.lower_bounds_[-1])
            if self.converged_:
                break

    def _step(self, covariance: Array, W: Array, noise: float | Array) -> tuple[Array, float | Array]:
        raise NotImplementedError

    def _keep(self, x: Array, W: Array, noise_variance: float | Array, energies: list[float]) -> None:
        """Take over the parameters and the free energy of the E-step that they allow, the log-likelihood."""
        self.components_, self.noise_variance_ = W, noise_variance
        energies.append(float(self.log_prob(x).mean()))
        self.free_energies_, self.lower_bounds_ = np.array(energies), np.array(energies[::2])

    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x) = log N(x; μ, W Wᵀ + Ψ), (N,), nats, exact."""
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
        x = self._as_fitted_samples(x)
        return linear_gaussian_posterior(x, self.components_, self.mean_, self.noise_variance_)[0]

    def covariance(self) -> Array:
        """Cov x = W Wᵀ + Ψ of the fitted model, (D, D)."""
        self._require_fitted()
        return self.components_ @ self.components_.T + self.noise_variance_ * np.eye(self.n_features_in_)

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ, (n, D)."""
        self._require_fitted()
        rng = as_generator(rng)
        z = rng.standard_normal((as_count(n, "n", minimum=0), self.components_.shape[1]))
        noise = rng.standard_normal((len(z), self.n_features_in_))
        return z @ self.components_.T + self.mean_ + np.sqrt(self.noise_variance_) * noise


class PPCA(LinearGaussianModel):
    """Probabilistic principal component analysis: p(z) = N(0, I_k), p_θ(x | z) = N(W z + μ, σ² I).

    The deck's own latent-variable model with everything in closed form, and the exact optimum of a linear VAE.

    Parameters
    ----------
    n_components : int
        k, at most D − 1.
    method : {"closed", "em"}
        Tipping and Bishop's formula, or EM from random W, which comes to the same optimum, slowly where eigenvalues
        are close or columns of very different scales.
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
    free_energies_ : (2 n_iter_ + 1,) or (1,)
        Mean ELBO after every half-step, E M E …, nats: the joint KL is −this − H(p).
    converged_, n_iter_ : bool, int
        Whether the last iteration gained less than tol; the closed form has 0 iterations and has converged.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((200, 3)) * [3.0, 1.0, 1.0]
    >>> closed, em = PPCA(1).fit(x), PPCA(1, method="em", tol=0, max_iter=300, rng=0).fit(x)
    >>> bool(abs(closed.score(x) - em.score(x)) < 1e-10)
    True
    """

    _fitted: ClassVar[tuple[str, ...]] = (
        "components_",
        "mean_",
        "noise_variance_",
        "lower_bounds_",
        "free_energies_",
        "converged_",
        "n_iter_",
    )

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
        as_choice(self.method, "method", ("closed", "em"))
        covariance = np.atleast_2d(np.cov(x.T, bias=True))
        self._total = float(np.trace(covariance))
        if self.method == "closed":
            self.n_features_in_, self.mean_ = D, x.mean(axis=0)
            self._keep(x, *ppca_maximum(covariance, k), [])
            self.n_iter_, self.converged_ = 0, True
            yield Progress(1, 1, -self.lower_bounds_[-1])
            return
        start = as_generator(self.rng).standard_normal((D, k)) * (self._total / D) ** 0.5
        yield from self._run_em(x, start, self._total / D, tol, max_iter)

    def _step(self, covariance: Array, W: Array, noise: float | Array) -> tuple[Array, float | Array]:
        W, variance = ppca_em_step(covariance, W, float(noise))
        self._require_noise(W, variance)
        return W, variance

    def _keep(self, x: Array, W: Array, noise_variance: float | Array, energies: list[float]) -> None:
        self._require_noise(W, float(noise_variance))
        super()._keep(x, W, noise_variance, energies)

    def _require_noise(self, W: Array, variance: float) -> None:
        if variance <= 1e-14 * self._total:
            raise ValueError(
                f"x lies in {W.shape[1]} dimensions or fewer, so that σ² is 0 and the likelihood infinite; "
                "lower n_components"
            )


class FactorAnalysis(LinearGaussianModel):
    """Factor analysis by EM: p(z) = N(0, I_k), p_θ(x | z) = N(W z + μ, diag Ψ), each dimension with its own noise.

    Parameters
    ----------
    n_components : int
        k.
    tol : float
        EM stops when the mean log-likelihood gains less than this, nats.
    max_iter : int
    noise_floor : float
        Least Ψ_d, as a part of the variance of column d: without one the likelihood can be unbounded (Heywood cases).
    rng : int, Generator or None
        Of EM's start.

    Attributes
    ----------
    components_ : (D, k)
        W, up to a rotation.
    mean_, noise_variance_ : (D,)
        μ and Ψ.
    lower_bounds_ : (n_iter_ + 1,)
        Mean log-likelihood after every E-step, nats.
    free_energies_ : (2 n_iter_ + 1,)
        Mean ELBO after every half-step, E M E …, nats: the joint KL is −this − H(p).
    converged_, n_iter_ : bool, int
        Whether the last iteration gained less than tol.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((5000, 1)) * [1.0, 2.0, 3.0] + rng.standard_normal((5000, 3)) * [1.0, 0.5, 2.0]
    >>> FactorAnalysis(1, rng=0).fit(x).noise_variance_.round(1)
    array([1. , 0.3, 3.8])
    """

    _fitted: ClassVar[tuple[str, ...]] = PPCA._fitted

    def __init__(
        self,
        n_components: int = 1,
        tol: float = 1e-6,
        max_iter: int = 1000,
        noise_floor: float = 1e-6,
        rng: RNG = None,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.noise_floor = noise_floor
        self.rng = rng

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """EM in units of every column's standard deviation; yields with loss = −mean log-likelihood, nats."""
        x = as_samples(x, n_min=2).astype(np.float64)
        k, D = as_count(self.n_components, "n_components"), x.shape[1]
        max_iter, tol = as_count(self.max_iter, "max_iter"), as_number(self.tol, "tol", low=0.0)
        floor = as_number(self.noise_floor, "noise_floor", low=0.0, high=1.0, open_low=True)
        variances = x.var(axis=0)
        constant = np.flatnonzero(np.ptp(x, axis=0) <= 8 * np.finfo(np.float64).eps * np.abs(x).max(axis=0))
        if len(constant):
            raise ValueError(
                f"x must vary in every column (n_samples={len(x)}), but column {constant[0]} is constant; drop it"
            )
        start = as_generator(self.rng).standard_normal((D, k)) * np.sqrt(variances / (2 * k))[:, None]
        self._floors = floor * variances
        yield from self._run_em(x, start, 0.5 * variances, tol, max_iter)

    def _step(self, covariance: Array, W: Array, noise: float | Array) -> tuple[Array, float | Array]:
        return factor_analysis_em_step(covariance, W, np.asarray(noise), self._floors)
