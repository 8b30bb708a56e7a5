"""A noise network for whole numbers: it predicts a law over the levels of every dimension, and ε̂ from its mean.

A plain noise predictor spends its capacity on learning that pixels take 17 values.  Here that is known: the posterior
of one pixel given its own noisy value is exact from the start, and the MLP only learns what the others say about it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from scratchgen.likelihood import level_values
from scratchgen.network import MLP
from scratchgen.noise_network import Head, as_column, label_indicators, time_features
from scratchgen.validation import RNG, Array, IntArray, as_count, as_widths

N_CORRECTIONS = 4  # numbers a dimension that the MLP gives: on lowest level, on highest, ∝ level, ∝ level²


class LevelNetwork:
    """ε̂(x_t, noise level) for x_0 with n_levels values 2k/(n_levels − 1) − 1 in every dimension.

        P(x_0d = l_k | x_t) ∝ h_dk N(x_td; scale l_k, std²) exp Σ_b F_db B_bk,    ε̂ = (x_t − scale E[x_0 | x_t])/std

    with the histograms h of the data, and F an MLP of x_t, that posterior's mean for F = 0, the linear denoiser of the
    data's covariance, log-SNR and label.  F starts at 0, where ε̂ is exact for independent dimensions.  B has the
    indicators of the first and the last level, the level and its square: 4 numbers a dimension, where n_levels of them
    would be too many for small data.

    Parameters
    ----------
    histograms : (D, n_levels)
        Probabilities of the levels in every dimension.
    covariance : (D, D)
        Of the scaled data.
    hidden : sequence of int
        Widths of F's hidden layers.
    n_time_features, n_classes, rng, dtype
        As for `NoiseNetwork`.
    """

    def __init__(
        self,
        histograms: Array,
        covariance: Array,
        hidden: Sequence[int] = (256, 256, 256),
        n_time_features: int = 8,
        n_classes: int = 0,
        rng: RNG = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        D, n_levels = histograms.shape
        self.n_time_features = as_count(n_time_features, "n_time_features", minimum=0)
        self.n_classes = as_count(n_classes, "n_classes", minimum=0)
        width = 3 * D + 2 * n_time_features + n_classes
        self.mlp = MLP((width, *as_widths(hidden, "hidden"), N_CORRECTIONS * D), rng=rng, dtype=dtype, zero_last=True)
        k, levels = np.arange(n_levels), level_values(n_levels)
        self.levels: Array = levels.astype(dtype)
        self._basis: Array = np.stack([k == 0, k == n_levels - 1, levels, levels**2]).astype(dtype)
        with np.errstate(divide="ignore"):  # a level never seen stays impossible
            self._log_histograms: Array = np.log(histograms).astype(dtype)
        self._mean: Array = (histograms @ levels).astype(dtype)
        values, vectors = np.linalg.eigh(covariance)
        self._values: Array = np.maximum(values, 0.0).astype(dtype)
        self._vectors: Array = vectors.astype(dtype)

    # --- forward ---------------------------------------------------------------------------------------------------

    def _law(self, logits: Array) -> Array:
        """Probabilities over the last axis."""
        law = np.exp(logits - logits.max(axis=-1, keepdims=True))
        law /= law.sum(axis=-1, keepdims=True)
        return law

    def _inputs(self, x: Array, scale: Array, std: Array, labels: IntArray | None) -> tuple[Array, Array, Array, Array]:
        """The MLP's input, every pixel's own posterior as logits and law (N, D, n_levels), and Wiener gains (N, D)."""
        own = self._log_histograms - 0.5 * ((x[:, :, None] - scale[:, :, None] * self.levels) / std[:, :, None]) ** 2
        own_law = self._law(own)
        centred = x - scale * self._mean
        gains = scale * self._values / (scale**2 * self._values + std**2)
        denoised = ((centred @ self._vectors) * gains) @ self._vectors.T
        log_snr = 2 * np.log(scale / std)[:, 0]
        clock = time_features(log_snr, self.n_time_features)
        given = label_indicators(labels, len(x), self.n_classes).astype(x.dtype)
        parts = [centred / np.hypot(scale, std), own_law @ self.levels - self._mean, denoised, clock, given]
        return np.concatenate(parts, axis=1), own, own_law, gains

    def _columns(self, x: Array, scale: Array | float, std: Array | float) -> tuple[Array, Array, Array]:
        dtype = self.mlp.parameters.dtype
        return np.asarray(x, dtype=dtype), as_column(scale, len(x), dtype), as_column(std, len(x), dtype)

    def law(self, x: Array, scale: Array | float, std: Array | float, labels: IntArray | None = None) -> Array:
        """P(x_0d = l_k | x_t), (N, D, n_levels): the decoder of the last step."""
        x, scale, std = self._columns(x, scale, std)
        inputs, own, _, _ = self._inputs(x, scale, std, labels)
        return self._law(own + self.mlp(inputs).reshape(*x.shape, N_CORRECTIONS) @ self._basis)

    def log_mass(
        self, level: Array, x: Array, scale: Array | float, std: Array | float, labels: IntArray | None = None
    ) -> Array:
        """log P(x_0 | x_t) of whole numbers `level` (N, D), (N,), nats."""
        law = self.law(x, scale, std, labels).astype(np.float64)
        return np.log(np.take_along_axis(law, level.astype(np.int64)[:, :, None], axis=2)[:, :, 0]).sum(axis=1)

    def draw(
        self,
        rng: np.random.Generator,
        x: Array,
        scale: Array | float,
        std: Array | float,
        labels: IntArray | None = None,
    ) -> Array:
        """Whole numbers drawn from P(x_0 | x_t), (N, D)."""
        steps = self.law(x, scale, std, labels).astype(np.float64).cumsum(axis=2)[:, :, :-1]
        return (rng.random((*x.shape, 1)) > steps).sum(axis=2).astype(np.float64)

    def __call__(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        head: Head | None = None,
        labels: IntArray | None = None,
    ) -> Array:
        """ε̂ for x of shape (N, D); `head` is for other networks."""
        law = self.law(x, scale, std, labels)
        x, scale, std = self._columns(x, scale, std)
        return (x - scale * (law @ self.levels)) / std

    def forward(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        head: Head | None = None,
        labels: IntArray | None = None,
    ) -> Array:
        """As a call; remembers what `backward` needs."""
        x, self._scale, self._std = self._columns(x, scale, std)
        inputs, own, self._own_law, self._gains = self._inputs(x, self._scale, self._std, labels)
        corrections = self.mlp.forward(inputs).reshape(*x.shape, N_CORRECTIONS)
        self._posterior = self._law(own + corrections @ self._basis)
        return (x - self._scale * (self._posterior @ self.levels)) / self._std

    # --- backward --------------------------------------------------------------------------------------------------

    def _variance(self, law: Array) -> Array:
        """Variance of the level under a law, (N, D): the derivative of its mean with respect to a tilt ∝ level."""
        return law @ self.levels**2 - (law @ self.levels) ** 2

    def backward_parameters(self, grad_output: Array) -> None:
        """`backward` without ∂/∂x."""
        self.mlp.backward_parameters(self._corrections_gradient(grad_output))

    def _corrections_gradient(self, grad_output: Array) -> Array:
        """∂/∂F, (N, N_CORRECTIONS · D), by ∂E[level]/∂F_b = Cov(level, B_b)."""
        law = self._posterior
        covariances = law @ (self._basis * self.levels).T - (law @ self._basis.T) * (law @ self.levels)[:, :, None]
        return ((-self._scale / self._std * grad_output)[:, :, None] * covariances).reshape(len(law), -1)

    def backward(self, grad_output: Array) -> Array:
        """Overwrite `mlp.gradient` and return ∂/∂x, (N, D), for ∂loss/∂ε̂ of the last `forward`."""
        D, scale, std = grad_output.shape[1], self._scale, self._std
        grad = self.mlp.backward(self._corrections_gradient(grad_output))
        tilt = scale / std**2  # ∂/∂x of the own posterior's logits, per unit of level
        grad_x = grad_output / std - scale / std * grad_output * self._variance(self._posterior) * tilt
        grad_x += grad[:, :D] / np.hypot(scale, std)
        grad_x += grad[:, D : 2 * D] * self._variance(self._own_law) * tilt
        return grad_x + ((grad[:, 2 * D : 3 * D] @ self._vectors) * self._gains) @ self._vectors.T
