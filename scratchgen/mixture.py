"""Mixture: a Gaussian mixture, for which score, denoiser and diffused densities are known exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np

from scratchgen.blocks import by_blocks
from scratchgen.law import MOST_NODES, SmoothLaw, product
from scratchgen.likelihood import LOG_2PI, logsumexp, quiet_log, softmax
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    IntArray,
    as_count,
    as_finite,
    as_generator,
    as_number,
    as_samples,
    as_scale_and_std,
    as_units,
    check_flag,
    check_symmetric,
    freeze,
    normalised,
)

LOG_TINY = -330.0  # a factor of a product of two Gaussians below exp(−330) counts as 0, as slow subnormals would


def whiten(covariances: Array) -> tuple[Array, Array]:
    """L⁻¹ of the Cholesky factors C = L Lᵀ, (..., D, D), and log|C|, (...), for covariances C (..., D, D).

    The rows of L have the units of x.  They are divided by the diagonal before L is inverted, so that rounding does not
    depend on the units: pivots from columns with larger units lost up to twelve digits.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    factors = np.linalg.cholesky(covariances)
    diagonal = np.diagonal(factors, axis1=-2, axis2=-1)
    inverse = np.linalg.solve(factors / diagonal[..., None], np.broadcast_to(np.eye(factors.shape[-1]), factors.shape))
    return inverse / diagonal[..., None, :], 2 * np.log(diagonal).sum(axis=-1)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Mixture(SmoothLaw):
    """p(x) = Σ_k w_k N(x; m_k, C_k): density, score, posterior and denoiser in closed form.

    Parameters
    ----------
    weights : array_like, (K,)
        w, non-negative, with sum 1 to within 1e-6; they are divided by their sum.
    means : array_like, (K, D)
        m.
    covariances : array_like, (K, D, D)
        C, symmetric and positive definite.

    Attributes
    ----------
    log_weights : (K,)
        log w, nats; −inf for weight 0.  A conditional law can have weights that are too small for a float: they are 0
        in `weights`, and exact here.
    whitening : (K, D, D)
        L_k⁻¹ for C_k = L_k L_kᵀ.  Under component k the vector L_k⁻¹ (x − m_k) is standard normal.
    log_volumes : (K,)
        ½ log|2π C_k| = −log N(m_k; m_k, C_k), nats.

    Raises
    ------
    ValueError
        If shapes disagree, weights are not probabilities, or a covariance is not symmetric.
    numpy.linalg.LinAlgError
        If a covariance is not positive definite (a subclass of ValueError).
    """

    weights: Array
    means: Array
    covariances: Array
    log_weights: Array = field(init=False)
    whitening: Array = field(init=False)
    log_volumes: Array = field(init=False)

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> None:
        weights = as_finite(weights, "weights").astype(np.float64)
        means = as_finite(means, "means").astype(np.float64)
        covariances = as_finite(covariances, "covariances").astype(np.float64)
        if means.ndim != 2 or means.size == 0:
            raise ValueError(f"means must have shape (K, D) with K >= 1 and D >= 1, got shape {means.shape}")
        K, D = means.shape
        if weights.shape != (K,) or covariances.shape != (K, D, D):
            raise ValueError(
                f"weights, means, covariances must have shapes (K,), (K, D), (K, D, D), "
                f"got {weights.shape}, {means.shape}, {covariances.shape}"
            )
        if weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(f"weights must be non-negative and sum to 1, got {weights}; divide by weights.sum()")
        check_symmetric(covariances, "covariances")
        try:
            whitening, log_det = whiten(covariances)
        except np.linalg.LinAlgError:
            k = int(np.argmin(np.linalg.eigvalsh(covariances)[:, 0]))
            message = f"covariances[{k}] is not positive definite; raise its smallest eigenvalues"
            raise np.linalg.LinAlgError(message) from None
        weights = normalised(weights)
        freeze(
            self,
            weights=weights,
            means=means,
            covariances=covariances,
            log_weights=quiet_log(weights),
            whitening=whitening,
            log_volumes=0.5 * (D * LOG_2PI + log_det),
        )

    def _derived(self, means: Array, covariances: Array, log_weights: Array | None = None) -> Mixture:
        """A mixture with the weights of this one, or with weights ∝ exp(log_weights), (K,), which may underflow."""
        if log_weights is None:
            log_weights, weights = self.log_weights, self.weights
        else:
            log_weights, weights = log_weights - logsumexp(log_weights), softmax(log_weights)
        law = Mixture(weights, means, covariances)
        freeze(law, log_weights=log_weights)
        return law

    def __repr__(self) -> str:
        return f"Mixture({len(self.weights)} components in {self.dimension} dimensions)"

    @property
    def dimension(self) -> int:
        """D, the number of coordinates of x."""
        return int(self.means.shape[1])

    @property
    def log_peaks(self) -> Array:
        """log w_k N(m_k; m_k, C_k) = log w_k − ½ log|2π C_k|, (K,), nats."""
        return self.log_weights - self.log_volumes

    # --- density and posterior -------------------------------------------------------------------------------------

    def _whitened(self, x: Array) -> Array:
        """L_k⁻¹ (x − m_k) for every component, (K, N, D)."""
        return (x - self.means[:, None]) @ self.whitening.swapaxes(1, 2)

    def log_joint(self, x: Array) -> Array:
        """log w_k N(x_n; m_k, C_k), the log joint density of x and its component, (N, K), nats, for x (N, D)."""
        y = self._whitened(as_samples(x, dimension=self.dimension, model="the mixture"))
        return (self.log_peaks[:, None] - 0.5 * (y**2).sum(axis=-1)).T

    def log_prob(self, x: Array) -> Array:
        """log p(x), (N,), nats, for x (N, D)."""
        x = as_samples(x, dimension=self.dimension, model="the mixture")
        return by_blocks(lambda rows: logsumexp(self.log_joint(x[rows])), len(x), self.means.size)

    def posterior(self, x: Array) -> Array:
        """Responsibilities p(k | x), (N, K), (18), for x (N, D)."""
        return softmax(self.log_joint(x))

    # --- score -----------------------------------------------------------------------------------------------------

    def _component_scores(self, x: Array) -> tuple[Array, Array]:
        """Responsibilities (N, K) and the scores −C_k⁻¹(x − m_k) of the components, (N, K, D)."""
        x = as_samples(x, dimension=self.dimension, model="the mixture")
        return self.posterior(x), -(self._whitened(x) @ self.whitening).swapaxes(0, 1)

    def score(self, x: Array) -> Array:
        """Score ∇ log p(x) = −Σ_k p(k | x) C_k⁻¹ (x − m_k), (N, D), for x (N, D)."""
        x = as_samples(x, dimension=self.dimension, model="the mixture")
        return by_blocks(
            lambda rows: np.einsum("nk,nkd->nd", *self._component_scores(x[rows])), len(x), 2 * self.means.size
        )

    def score_jacobian(self, x: Array) -> Array:
        """Jacobian of the score, ∇∇ᵀ log p(x), (N, D, D), for x (N, D).

        ∇∇ᵀ log p(x) = E[v vᵀ] − s sᵀ − E[C_k⁻¹],   v_k = −C_k⁻¹(x − m_k),   s = E[v],   E over p(k | x)
        """
        posterior, scores = self._component_scores(x)
        mean = np.einsum("nk,nkd->nd", posterior, scores)
        spread = scores - mean[:, None]  # centred, since E[v vᵀ] − s sᵀ would cancel far from every mean
        precisions = self.whitening.swapaxes(1, 2) @ self.whitening
        return np.einsum("nk,nkd,nke->nde", posterior, spread, spread) - np.einsum("nk,kde->nde", posterior, precisions)

    # --- diffusion -------------------------------------------------------------------------------------------------

    def diffuse(self, scale: float, std: float) -> Mixture:
        """The mixture that is the law of scale · x + std · ε, ε ~ N(0, I): p_t of (25) for scale = ᾱ_t, std = β̄_t.

        Raises
        ------
        TypeError, ValueError
            If scale or std is not a finite number of size 1e60 at most, both are below 1e-60 in size, or std is
            negative.
        numpy.linalg.LinAlgError
            If scale and std are both 0.
        """
        scale, std = as_scale_and_std(scale, std)
        covariances = scale**2 * self.covariances + std**2 * np.eye(self.dimension)
        return self._derived(scale * self.means, covariances)

    def standardized(self, mean: ArrayLike, scale: ArrayLike) -> Mixture:
        """The mixture that is the law of (x − mean)/scale, for a mean and a positive scale of every column, (D,) each.

        Raises
        ------
        TypeError, ValueError
            If mean and scale are not D finite numbers, or a scale is not positive.
        """
        mean, scale = as_units(mean, scale, self.dimension)
        return self._derived((self.means - mean) / scale, self.covariances / np.multiply.outer(scale, scale))

    def denoise(self, x_t: Array, scale: float, std: float) -> Array:
        """Bayes denoiser E[x_0 | x_t] for x_t = scale · x_0 + std · ε, (N, D).

            E[x_0 | x_t, k] = m_k + scale C_k (scale² C_k + std² I)⁻¹ (x_t − scale m_k),   averaged over p(k | x_t)

        Tweedie's formula (x_t + std² ∇log p_t)/scale has the same value, but loses digits when scale is small.

        Parameters
        ----------
        x_t : (N, D)
        scale, std : float
        """
        posterior, means = self._denoised(x_t, scale, std)
        return np.einsum("nk,nkd->nd", posterior, means)

    def denoise_variance(self, x_t: Array, scale: float, std: float) -> Array:
        """tr Cov(x_0 | x_t), (N,), the least mean squared error of a denoiser at x_t; arguments as for `denoise`."""
        scale, std = as_scale_and_std(scale, std)
        posterior, means = self._denoised(x_t, scale, std)
        gains = np.linalg.solve(scale**2 * self.covariances + std**2 * np.eye(self.dimension), self.covariances)
        within = std**2 * np.trace(gains, axis1=1, axis2=2)  # tr Cov(x_0 | x_t, k), the same for every x_t
        spread = means - np.einsum("nk,nkd->nd", posterior, means)[:, None]
        return posterior @ within + np.einsum("nk,nkd,nkd->n", posterior, spread, spread)

    def _denoised(self, x_t: Array, scale: float, std: float) -> tuple[Array, Array]:
        """P(k | x_t), (N, K), and E[x_0 | x_t, k], (N, K, D)."""
        posterior, scores = self.diffuse(scale, std)._component_scores(as_samples(x_t, "x_t", dimension=self.dimension))
        return posterior, self.means - float(scale) * np.einsum("kde,nke->nkd", self.covariances, scores)

    # --- marginal and conditional laws -----------------------------------------------------------------------------

    def marginal(self, columns: Sequence[int] | IntArray) -> Mixture:
        """The law of some coordinates of x, in the order of `columns`; the weights stay.

        Raises
        ------
        TypeError, ValueError
            If columns is empty, repeats a column, or has others than the ints 0..D−1.
        """
        rows = self._as_columns(columns, "columns")
        return self._derived(self.means[:, rows], self.covariances[:, rows][:, :, rows])

    def conditional(self, given: Mapping[int, float]) -> Mixture:
        """The law of the other coordinates, in their order, given the values of some: p(x_b | x_a).

            w_k ∝ w_k N(x_a; m_ka, C_kaa),   m_kb + C_kba C_kaa⁻¹ (x_a − m_ka),   C_kbb − C_kba C_kaa⁻¹ C_kab

        With the coordinates a first, C_k = L Lᵀ has the blocks L_aa, L_ba and L_bb.  The mean is m_kb + L_ba L_aa⁻¹
        (x_a − m_ka), and the covariance is L_bb L_bbᵀ, without a difference.  Weights are kept as logarithms, so that
        log p(x_b | x_a) is right however far x_a and x_b are from all components.  Between two components of the same
        covariance, at d standard deviations from both, rounding changes the weights by 1e-16 d², as in `posterior`.

        Parameters
        ----------
        given : dict
            Value by column, for at least one column and not for all.

        Raises
        ------
        TypeError, ValueError
            If given is no dict of ints 0..D−1 and finite numbers, is empty, or has all columns.

        Examples
        --------
        >>> law = Mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.8], [0.8, 1.0]]])
        >>> rest = law.conditional({1: 2.0})
        >>> rest.means.round(12), rest.covariances.round(12)
        (array([[1.6]]), array([[[0.36]]]))
        """
        if not isinstance(given, Mapping):
            raise TypeError(f"given must be a dict of values by column, got {given!r:.60}; pass {{0: 1.5}}")
        a = self._as_columns(list(given), "given")
        b = np.delete(np.arange(self.dimension), a)
        if not len(b):
            raise ValueError(f"given must leave a column of the {self.dimension}, got all; use log_prob for a density")
        values = np.array([[as_number(value, f"given[{column}]") for column, value in given.items()]])
        law, gains, covariances = self.regression(a)
        means = self.means[:, b] + np.einsum("kba,ka->kb", gains, as_samples(values, "given") - law.means)
        log_joint = law.log_joint(values)[0]
        return self._derived(means, covariances, log_joint - log_joint.max())

    def regression(self, columns: Sequence[int] | IntArray) -> tuple[Mixture, Array, Array]:
        """The regressions of the other columns b, in their order, on columns a, one for each component.

        Parameters
        ----------
        columns : (A,)
            a; with all columns b is empty.

        Returns
        -------
        law : Mixture
            The law of x_a.
        gains : (K, B, A)
            C_kba C_kaa⁻¹, so that E[x_b | x_a, k] = m_kb + gains_k (x_a − m_ka).
        covariances : (K, B, B)
            Cov(x_b | x_a, k).

        Raises
        ------
        TypeError, ValueError
            As for `marginal`.
        """
        law, n = self.marginal(columns), len(columns)
        order = np.concatenate([columns, np.delete(np.arange(self.dimension), columns)])
        factors = np.linalg.cholesky(self.covariances[:, order][:, :, order])
        rest = factors[:, n:, n:]
        return law, factors[:, n:, :n] @ law.whitening, rest @ rest.swapaxes(1, 2)

    def _as_columns(self, columns: Sequence[int] | IntArray, name: str) -> IntArray:
        """Columns as an int array; ValueError unless they are different ints in 0..D−1, at least one."""
        if (
            isinstance(columns, str)
            or not isinstance(columns, Sequence | np.ndarray)
            or getattr(columns, "ndim", 1) == 0
        ):
            raise TypeError(f"{name} must be a list of columns, got {columns!r:.60}; pass [0, 2]")
        out = [as_count(column, f"{name}: a column", minimum=0, maximum=self.dimension - 1) for column in columns]
        if not out or len(set(out)) < len(out):
            raise ValueError(f"{name} must have different columns, at least one, got {columns!r:.60}; pass [0, 2]")
        return np.array(out)

    # --- sampling and moments --------------------------------------------------------------------------------------

    @overload
    def sample(self, n: int, rng: RNG = None, *, return_labels: Literal[False] = False) -> Array: ...

    @overload
    def sample(self, n: int, rng: RNG = None, *, return_labels: Literal[True]) -> tuple[Array, IntArray]: ...

    def sample(self, n: int, rng: RNG = None, *, return_labels: bool = False) -> Array | tuple[Array, IntArray]:
        """Draw n points, (n, D); with `return_labels` the points and their components 0..K−1, (n,) of int."""
        check_flag(return_labels, "return_labels")
        rng = as_generator(rng)
        labels = rng.choice(len(self.weights), size=as_count(n, "n", minimum=0), p=self.weights)
        factors = np.linalg.cholesky(self.covariances)
        noise = rng.standard_normal((len(labels), self.dimension))
        x = self.means[labels] + np.einsum("nde,ne->nd", factors[labels], noise)
        return (x, labels) if return_labels else x

    def mean(self) -> Array:
        """E x, (D,)."""
        return self.weights @ self.means

    def covariance(self) -> Array:
        """Cov x, (D, D)."""
        centred = self.means - self.mean()
        return np.einsum("k,kde->de", self.weights, self.covariances) + (centred.T * self.weights) @ centred

    @property
    def detail(self) -> float:
        """Smallest standard deviation, in any direction, of a component of positive weight."""
        return _narrowest(self.covariances[self.weights > 0])

    def detail_within(self, low: Array, high: Array, width: float) -> float:
        """`detail` of the components that reach, within `width` standard deviations, into a box; inf without any."""
        reach = width * np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))
        inside = ((self.means + reach > low) & (self.means - reach < high)).all(axis=1) & (self.weights > 0)
        return _narrowest(self.covariances[inside])

    def axes(self, spacing: float, width: float, law: SmoothLaw | None) -> list[tuple[Array, Array]]:
        """Even nodes on a box around the components of positive weight; see `quadrature`."""
        seen = self.weights > 0
        reach = width * np.sqrt(np.diagonal(self.covariances[seen], axis1=1, axis2=2))
        low, high = (self.means[seen] - reach).min(axis=0), (self.means[seen] + reach).max(axis=0)
        detail = self.detail if law is None else min(self.detail, law.detail_within(low, high, width))
        step = spacing * detail
        if not np.prod((high - low) / step) < MOST_NODES:
            raise ArithmeticError(
                f"quadrature needs nodes {step:.2g} apart on a box of sides {high - low}, more than {MOST_NODES:,}: "
                "a component is very narrow; sample instead"
            )
        nodes = [np.arange(a, b + step, step) for a, b in zip(low, high, strict=True)]
        return [(axis, np.full(len(axis), step)) for axis in nodes]

    def on_grid(self, *axes: Array) -> tuple[Array, Array]:
        """Density and gradient on a product grid; for diagonal covariances in the plane by products of matrices."""
        if not self._factors:
            return super().on_grid(*axes)
        z, kernels = [], []
        for axis, means, variances in zip(
            axes, self.means.T, self.covariances.diagonal(axis1=1, axis2=2).T, strict=True
        ):
            z.append((means - axis[:, None]) / variances)
            exponents = -0.5 * z[-1] ** 2 * variances
            kernels.append(np.where(exponents > LOG_TINY, np.exp(np.maximum(exponents, LOG_TINY)), 0.0))
        kernels[0] *= np.exp(self.log_peaks)
        density = kernels[0] @ kernels[1].T
        gradient = np.stack([(kernels[0] * z[0]) @ kernels[1].T, kernels[0] @ (kernels[1] * z[1]).T], axis=-1)
        return density.ravel(), gradient.reshape(-1, 2)

    def density_on_grid(self, *axes: Array) -> Array:
        """Density on a product grid, without its gradient."""
        return super().density_on_grid(*axes) if self._factors else np.exp(self.log_prob(product(*axes)))

    @property
    def _factors(self) -> bool:
        """Whether the components are products of densities of two coordinates."""
        return self.dimension == 2 and not self.covariances[:, 0, 1].any()


def _narrowest(covariances: Array) -> float:
    """Smallest standard deviation of covariances (K, D, D) in any direction; inf without any."""
    return float(np.sqrt(np.linalg.eigvalsh(covariances)[:, 0].min(initial=np.inf)))
