"""The noise network: ε̂ from an MLP of the noisy point and its noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchgen.network import MLP
from scratchgen.validation import RNG, Array, IntArray, as_count, as_widths


def time_features(log_snr: Array, n: int) -> Array:
    """cos and sin of log-SNR at n frequencies from 1/8 to 2, (N, 2n).

    A noise level is known to the network by its log-SNR log(scale²/std²), which is the same number for a DDPM's step
    and an SDE's time, so that one network serves both.
    """
    return _waves(log_snr[:, None] * _time_frequencies(n, log_snr.dtype))


@cache  # it is asked in every step of training, and would take a tenth of a small one
def _time_frequencies(n: int, dtype: np.dtype[Any]) -> Array:
    return (0.125 * 16.0 ** (np.arange(n) / max(n - 1, 1))).astype(dtype)


def coordinate_features(x: Array, n: int) -> Array:
    """cos and sin of every coordinate at frequencies 2, 4, …, 2ⁿ, (N, 2nD): lets a small network draw sharp edges."""
    return _waves((x[:, :, None] * _octaves(n, x.dtype)).reshape(len(x), n * x.shape[1]))


@cache
def _octaves(n: int, dtype: np.dtype[Any]) -> Array:
    """2, 4, …, 2ⁿ."""
    return (2.0 ** np.arange(1, n + 1)).astype(dtype)


def _waves(angles: Array) -> Array:
    """cos and sin of (N, n) angles, (N, 2n)."""
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


Head = tuple[Array | float, Array | float]  # (skip, gain)
NO_LABEL = -1


def as_column(value: Array | float, n: int, dtype: DTypeLike) -> Array:
    """A number or n of them as a column (n, 1)."""
    value = np.asarray(value, dtype=dtype)
    return np.full((n, 1), value) if value.ndim == 0 else value.reshape(n, 1)


def label_indicators(labels: IntArray | None, n: int, n_classes: int) -> Array:
    """One column a class, (n, n_classes), 1 where the label is that class; all 0 for NO_LABEL, and without labels."""
    labels = np.full(n, NO_LABEL) if labels is None else labels
    return (labels[:, None] == np.arange(n_classes)).astype(np.float64)


class NoiseNetwork:
    """ε̂(x_t, noise level): predicts the total noise ε in x_t = scale · x_0 + std · ε.

        ε̂ = skip · x_t + gain · F(y, features(y), features(log-SNR), label),   y = x_t/r,  r² = scale² + std²

    With skip = std/r² and gain = scale/r, the default, the first term alone is the exact answer for data N(0, I); the
    MLP F starts at 0 and learns the rest.  (For a variance-preserving process, where r = 1, F is then the "v" of
    Salimans and Ho 2022.)  Other pairs make F predict something else, see `scratchgen.ddpm.noise_from`.

    Parameters
    ----------
    dimension : int
        D.
    hidden : sequence of int
        Widths of F's hidden layers.
    n_time_features, n_coordinate_features : int
        Numbers of frequencies; 0 leaves the features out.
    n_classes : int
        Of labels that F may be given as indicators; 0 for none.  No label is all zeros.
    rng, dtype
        As for `MLP`.
    """

    def __init__(
        self,
        dimension: int,
        hidden: Sequence[int] = (128, 128, 128),
        n_time_features: int = 8,
        n_coordinate_features: int = 0,
        rng: RNG = None,
        dtype: DTypeLike = np.float32,
        n_classes: int = 0,
    ) -> None:
        self.dimension = as_count(dimension, "dimension")
        self.n_time_features = as_count(n_time_features, "n_time_features", minimum=0)
        self.n_coordinate_features = as_count(n_coordinate_features, "n_coordinate_features", minimum=0)
        self.n_classes = as_count(n_classes, "n_classes", minimum=0)
        width = dimension * (1 + 2 * n_coordinate_features) + 2 * n_time_features + n_classes
        self.mlp = MLP((width, *as_widths(hidden, "hidden"), dimension), rng=rng, dtype=dtype, zero_last=True)
        self._gain = self._gain_along = np.ones((1, 1), dtype=dtype)  # of the last `forward` and `forward_along`

    def _inputs(
        self, x: Array, scale: Array | float, std: Array | float, head: Head | None, labels: IntArray | None
    ) -> tuple[Array, Array, Array, Array, Array]:
        """MLP input, y = x/r, and skip · r, gain and r as columns."""
        dtype, N = self.mlp.parameters.dtype, len(x)
        scale, std = as_column(scale, N, np.float64), as_column(std, N, np.float64)
        log_snr = 2 * np.log(scale / std).astype(dtype)
        scale, std = scale.astype(dtype), std.astype(dtype)
        r = np.hypot(scale, std)
        skip: Array = std / r if head is None else r * as_column(head[0], N, dtype)
        gain: Array = scale / r if head is None else as_column(head[1], N, dtype)
        y = np.asarray(x, dtype=dtype) / r
        parts = [self._features(y), time_features(log_snr[:, 0], self.n_time_features)]
        if self.n_classes:
            parts.append(label_indicators(labels, N, self.n_classes).astype(dtype))
        return np.concatenate(parts, axis=1), y, skip, gain, r

    def _features(self, y: Array) -> Array:
        """Those of the MLP's inputs that the point alone decides."""
        n = self.n_coordinate_features
        return np.concatenate([y, coordinate_features(y, n)], axis=1) if n else y

    def _at_one_level(self, x: Array, scale: float, std: float, head: Head | None) -> Array:
        """A call at one noise level without labels, as samplers make it: all rows share the level's features."""
        r = float(np.hypot(scale, std))
        skip, gain = (std / r, scale / r) if head is None else (r * float(head[0]), float(head[1]))
        dtype = self.mlp.parameters.dtype
        y = np.asarray(x, dtype=dtype) / r
        log_snr = np.array([2 * np.log(scale / std)], dtype=dtype)
        no_label = np.zeros(self.n_classes, dtype=dtype)
        level = np.concatenate([time_features(log_snr, self.n_time_features)[0], no_label])
        eps_hat = self.mlp(self._features(y), level)
        eps_hat *= gain
        eps_hat += skip * y
        return eps_hat

    def __call__(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        head: Head | None = None,
        labels: IntArray | None = None,
    ) -> Array:
        """ε̂ for x of shape (N, D).

        Parameters
        ----------
        scale, std : float or (N,)
        head : (skip, gain), each a float or (N,) or (N, 1), optional
        labels : (N,) of 0..n_classes−1, or NO_LABEL, optional
        """
        if labels is None and all(np.ndim(part) == 0 for part in (scale, std, *(head or ()))):
            return self._at_one_level(x, float(scale), float(std), head)
        inputs, y, skip, gain, _ = self._inputs(x, scale, std, head, labels)
        return skip * y + gain * self.mlp(inputs)

    def forward(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        head: Head | None = None,
        labels: IntArray | None = None,
    ) -> Array:
        """As a call; remembers what `backward` needs."""
        inputs, self._y, self._skip, self._gain, self._r = self._inputs(x, scale, std, head, labels)
        return self._skip * self._y + self._gain * self.mlp.forward(inputs)

    def backward_parameters(self, grad_output: Array) -> None:
        """`backward` without ∂/∂x."""
        self.mlp.backward_parameters(self._gain * grad_output)

    def backward(self, grad_output: Array) -> Array:
        """Overwrite `mlp.gradient` and return ∂/∂x, (N, D), for ∂loss/∂ε̂ of the last `forward`."""
        D, n = self.dimension, self.n_coordinate_features
        grad = self.mlp.backward(self._gain * grad_output)
        grad_y = self._skip * grad_output + grad[:, :D]
        if n:
            frequency = _octaves(n, grad.dtype)
            angles = self._y[:, :, None] * frequency
            grad_cos, grad_sin = grad[:, D : D + 2 * n * D].reshape(len(grad), 2, D, n).swapaxes(0, 1)
            grad_y = grad_y + ((np.cos(angles) * grad_sin - np.sin(angles) * grad_cos) * frequency).sum(axis=2)
        return grad_y / self._r

    # --- along a direction -----------------------------------------------------------------------------------------

    def forward_along(
        self,
        x: Array,
        direction: Array,
        scale: Array | float,
        std: Array | float,
        head: Head | None = None,
        labels: IntArray | None = None,
    ) -> tuple[Array, Array]:
        """ε̂ and its derivative (∂ε̂/∂x) v along directions v (N, D), each (N, D); remembers for `backward_along`."""
        inputs, y, skip, self._gain_along, r = self._inputs(x, scale, std, head, labels)
        dy, n = direction.astype(y.dtype) / r, self.n_coordinate_features
        frequency = _octaves(n, y.dtype)
        angles, turned = y[:, :, None] * frequency, dy[:, :, None] * frequency
        along = np.zeros_like(inputs)  # noise level and label stay where they are
        moved = [dy, *((wave * turned).reshape(len(y), -1) for wave in (-np.sin(angles), np.cos(angles)))]
        along[:, : self.dimension * (1 + 2 * n)] = np.concatenate(moved, axis=1)
        value, derivative = self.mlp.forward_along(inputs, along)
        return skip * y + self._gain_along * value, skip * dy + self._gain_along * derivative

    def backward_along(self, grad_output: Array, grad_derivative: Array) -> None:
        """Overwrite `mlp.gradient` with that of Σ (g · ε̂ + k · (∂ε̂/∂x) v) for g and k (N, D), see `MLP`."""
        self.mlp.backward_along(self._gain_along * grad_output, self._gain_along * grad_derivative)
