"""Further inputs of a noise network: sinusoids of the log-SNR and of the coordinates, and indicators of the label."""

from functools import cache
from typing import Any

import numpy as np

from scratchgen.validation import Array, IntArray, as_arrays, as_count, as_labels

NO_LABEL = -1  # label of an example without a label


def count_told(n_time_features: int = 8, n_classes: int = 0, n_augment: int = 0) -> int:
    """Number of told inputs: features of the noise level, indicators of labels, numbers of an augmentation."""
    n = 2 * as_count(n_time_features, "n_time_features", minimum=0)
    return n + as_count(n_classes, "n_classes", minimum=0) + as_count(n_augment, "n_augment", minimum=0)


def time_features(log_snr: Array, n: int) -> Array:
    """cos and sin of the log-SNR, (N,), at n frequencies from 1/8 to 2, (N, 2n).

    log-SNR = log(scale²/std²) identifies a noise level.  A step of DDPM and a time of an SDE with the same noise level
    have the same log-SNR, so that one network can be used for both.
    """
    log_snr, n = as_arrays("log_snr (N)", log_snr), as_count(n, "n", minimum=0)
    angles = log_snr[:, None] * _time_frequencies(n, log_snr.dtype)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


@cache  # computing the frequencies in every step of training would take 3 to 10 % of a small network's step
def _time_frequencies(n: int, dtype: np.dtype[Any]) -> Array:
    return (0.125 * 16.0 ** (np.arange(n) / max(n - 1, 1))).astype(dtype)


def coordinate_features(x: Array, n: int) -> Array:
    """cos and sin of every coordinate of x, (N, D), at the frequencies 2, 4, …, 2ⁿ, (N, 2nD).

    With these features a small network can represent sharp edges.  The columns are the cosines, coordinate by
    coordinate, then the sines.
    """
    x, n = as_arrays("x (N, D)", x), as_count(n, "n", minimum=0)
    angles = (x[:, :, None] * _octaves(n, x.dtype)).reshape(len(x), n * x.shape[1])
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def coordinate_features_jvp(x: Array, direction: Array, n: int) -> Array:
    """Directional derivative of `coordinate_features` at x (N, D) along `direction` (N, D), (N, 2nD)."""
    frequency = _octaves(n, x.dtype)
    angles, turned = x[:, :, None] * frequency, direction[:, :, None] * frequency
    waves = [-np.sin(angles) * turned, np.cos(angles) * turned]
    return np.concatenate([wave.reshape(len(x), n * x.shape[1]) for wave in waves], axis=1)


def coordinate_features_vjp(x: Array, grad: Array, n: int) -> Array:
    """∂loss/∂x, (N, D), for grad = ∂loss/∂features, (N, 2nD)."""
    frequency = _octaves(n, x.dtype)
    angles = x[:, :, None] * frequency
    by_cos, by_sin = grad.reshape(len(x), 2, x.shape[1], n).swapaxes(0, 1)
    return ((np.cos(angles) * by_sin - np.sin(angles) * by_cos) * frequency).sum(axis=2)


@cache
def _octaves(n: int, dtype: np.dtype[Any]) -> Array:
    """The frequencies 2, 4, …, 2ⁿ, (n,)."""
    return (2.0 ** np.arange(1, n + 1)).astype(dtype)


def label_indicators(labels: IntArray | None, n: int, n_classes: int, dtype: np.dtype[Any]) -> Array:
    """Indicators of the labels, (n, n_classes): 1 in the column of the class; all 0 for NO_LABEL or without labels."""
    if labels is None:
        return np.zeros((n, n_classes), dtype)
    labels = as_labels(labels, n, n_classes, first=NO_LABEL)
    return (labels[:, None] == np.arange(n_classes)).astype(dtype)


def augment_columns(augment_labels: Array | None, n: int, n_augment: int, dtype: np.dtype[Any]) -> Array:
    """The numbers of the augmentation, (n, n_augment), in dtype; 0 for None, which means data as they are."""
    if augment_labels is None:
        return np.zeros((n, n_augment), dtype)
    shape = "augment_labels (N, n_augment)"
    return as_arrays(shape, augment_labels, N=n, n_augment=n_augment).astype(dtype, copy=False)
