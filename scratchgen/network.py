"""A multilayer perceptron with a hand-written backward pass, and the noise network ε̂ built from it.

All parameters of a network lie in one flat vector, and so does their gradient; weights and biases are views of it.
An optimiser is then a handful of in-place passes over one array, and saving a network is saving a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchgen.validation import RNG, Array, IntArray, as_choice, as_count, as_generator, as_widths

ACTIVATIONS = ("silu", "tanh", "identity")

# glibc hands the top of the heap back to the system whenever 128 kB of it are free, so that every temporary of a
# training step faults its pages in anew.  Freeing one large block, never touched, raises that threshold to 64 MB:
# measured 1.5x on training a 256-wide network.  (Elsewhere the line does nothing.)
np.empty(2**25 - 2**13, dtype=np.uint8)


def _activate(z: Array, activation: str) -> tuple[Array, Array]:
    """Return σ(z) and σ'(z)."""
    if activation == "silu":  # z · sigmoid(z), and its derivative from the same exponential
        with np.errstate(over="ignore"):  # exp(−z) = inf gives the right limits, −0 and 0
            q = np.exp(-z)
        q += 1
        value = z / q
        slope = z - value
        slope += 1
        slope /= q
        return value, slope
    if activation == "tanh":
        value = np.tanh(z)
        return value, 1 - value**2
    return z, np.ones_like(z)


class MLP:
    """Fully connected network x → σ(x W_1 + b_1) → … → h W_L + b_L, without activation after the last layer.

    Parameters
    ----------
    sizes : sequence of int
        Width of every layer, input first: (2, 64, 64, 1) has two hidden layers.
    activation : {"silu", "tanh", "identity"}
    rng : int, Generator or None
        Weights are drawn from N(0, 1/fan_in), biases are 0.
    dtype : float32 or float64
    zero_last : bool
        Start with last layer 0, so that the untrained network returns 0.

    Attributes
    ----------
    parameters, gradient : (P,)
        Flat vectors.  Write into them (`mlp.parameters[:] = ...`), do not replace them: layers are views.
    weights, biases : list of arrays
        Views of `parameters`; weights[i] has shape (sizes[i], sizes[i+1]).

    Examples
    --------
    >>> mlp = MLP((2, 8, 1), rng=0)
    >>> y = mlp.forward(np.ones((4, 2), dtype=np.float32))
    >>> mlp.backward(np.ones_like(y)).shape, mlp.gradient.shape
    ((4, 2), (33,))
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "silu",
        rng: RNG = None,
        dtype: DTypeLike = np.float32,
        *,
        zero_last: bool = False,
    ) -> None:
        self.sizes = tuple(as_count(size, "sizes") for size in sizes)
        if len(self.sizes) < 2:
            raise ValueError(f"sizes must name at least the input and the output width, got {sizes}")
        self.activation = as_choice(activation, "activation", ACTIVATIONS)
        rng = as_generator(rng)
        if not np.issubdtype(dtype, np.floating):
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        n_parameters = sum((m + 1) * n for m, n in pairwise(self.sizes))
        self.parameters: Array = np.zeros(n_parameters, dtype=dtype)
        self.gradient: Array = np.zeros_like(self.parameters)
        self._cut()
        for weight in self.weights[: len(self.weights) - zero_last]:
            weight[:] = rng.standard_normal(weight.shape) / len(weight) ** 0.5
        self._inputs: list[Array] = []  # what entered each layer in the last `forward`
        self._slopes: list[Array] = []  # σ'(z) of each hidden layer in the last `forward`

    def _cut(self) -> None:
        """Make the layers views of the flat vectors."""
        shapes = list(pairwise(self.sizes))
        self.weights, self.biases = _layers(self.parameters, shapes)
        self._weight_gradients, self._bias_gradients = _layers(self.gradient, shapes)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cut()  # a copied or unpickled array is no view any more

    def __call__(self, x: Array) -> Array:
        """The output for x, (N, sizes[-1]), without keeping anything for `backward`."""
        h = np.asarray(x, dtype=self.parameters.dtype)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = _activate(h @ weight + bias, self.activation)[0]
        return h @ self.weights[-1] + self.biases[-1]

    def forward(self, x: Array) -> Array:
        """The output for x, (N, sizes[-1]); remembers what `backward` needs.  Computes in the parameters' dtype."""
        h = np.asarray(x, dtype=self.parameters.dtype)
        self._inputs, self._slopes = [h], []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h, slope = _activate(h @ weight + bias, self.activation)
            self._inputs.append(h)
            self._slopes.append(slope)
        return h @ self.weights[-1] + self.biases[-1]

    def backward(self, grad_output: Array) -> Array:
        """Overwrite `gradient` with Σ_n grad_output_n · ∂y_n/∂parameters and return ∂/∂x, (N, sizes[0]).

        `grad_output` is ∂loss/∂y of the last `forward`, (N, sizes[-1]).
        """
        if not self._inputs:
            raise ValueError("backward needs a forward pass first; call forward(x)")
        grad = np.asarray(grad_output, dtype=self.parameters.dtype)
        for i in reversed(range(len(self.weights))):
            np.matmul(self._inputs[i].T, grad, out=self._weight_gradients[i])
            grad.sum(axis=0, out=self._bias_gradients[i])
            grad = grad @ self.weights[i].T
            if i > 0:
                grad *= self._slopes[i - 1]
        return grad


def _layers(flat: Array, shapes: list[tuple[int, int]]) -> tuple[list[Array], list[Array]]:
    """Cut a flat vector into weight matrices and bias vectors, as views."""
    weights, biases, start = [], [], 0
    for m, n in shapes:
        weights.append(flat[start : start + m * n].reshape(m, n))
        biases.append(flat[start + m * n : start + (m + 1) * n])
        start += (m + 1) * n
    return weights, biases


def time_features(log_snr: Array, n: int) -> Array:
    """cos and sin of log-SNR at n frequencies from 1/8 to 2, (N, 2n).

    A noise level is known to the network by its log-SNR log(scale²/std²), which is the same number for a DDPM's step
    and an SDE's time, so that one network serves both.
    """
    angles = 0.5 * log_snr[:, None] * np.geomspace(0.25, 4.0, n).astype(log_snr.dtype)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def _frequencies(n: int, like: Array) -> Array:
    """2, 4, …, 2ⁿ in the dtype of `like`."""
    return (2.0 ** np.arange(1, n + 1)).astype(like.dtype)


def coordinate_features(x: Array, n: int) -> Array:
    """cos and sin of every coordinate at frequencies 2, 4, …, 2ⁿ, (N, 2nD): lets a small network draw sharp edges."""
    angles = (x[:, :, None] * _frequencies(n, x)).reshape(len(x), n * x.shape[1])
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


Head = tuple[Array | float, Array | float]  # (skip, gain)
NO_LABEL = -1


def as_column(value: Array | float, n: int) -> Array:
    """A number or n of them as a column (n, 1), float64."""
    return np.broadcast_to(np.asarray(value, dtype=np.float64).reshape(-1, 1), (n, 1))


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

    def _inputs(
        self, x: Array, scale: Array | float, std: Array | float, head: Head | None, labels: IntArray | None
    ) -> tuple[Array, Array, Array, Array, Array]:
        """MLP input, y = x/r, and skip · r, gain and r as columns."""
        dtype, N = self.mlp.parameters.dtype, len(x)
        scale, std = as_column(scale, N), as_column(std, N)
        r = np.hypot(scale, std)
        skip, gain = (std / r, scale / r) if head is None else (r * as_column(head[0], N), as_column(head[1], N))
        y = (x / r).astype(dtype)
        log_snr = 2 * np.log(scale / std)[:, 0].astype(dtype)
        parts = [y, coordinate_features(y, self.n_coordinate_features), time_features(log_snr, self.n_time_features)]
        parts.append(label_indicators(labels, N, self.n_classes).astype(dtype))
        return np.concatenate(parts, axis=1), y, skip.astype(dtype), gain.astype(dtype), r.astype(dtype)

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

    def backward(self, grad_output: Array) -> Array:
        """Overwrite `mlp.gradient` and return ∂/∂x, (N, D), for ∂loss/∂ε̂ of the last `forward`."""
        D, n = self.dimension, self.n_coordinate_features
        grad = self.mlp.backward(self._gain * grad_output)
        grad_y = self._skip * grad_output + grad[:, :D]
        if n:
            frequency = _frequencies(n, grad)
            angles = self._y[:, :, None] * frequency
            grad_cos, grad_sin = grad[:, D : D + 2 * n * D].reshape(len(grad), 2, D, n).swapaxes(0, 1)
            grad_y = grad_y + ((np.cos(angles) * grad_sin - np.sin(angles) * grad_cos) * frequency).sum(axis=2)
        return grad_y / self._r
