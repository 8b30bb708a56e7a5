"""A multilayer perceptron with a hand-written backward pass.

All parameters of a network lie in one flat vector, and so does their gradient; weights and biases are views of it.
An optimiser is then a handful of in-place passes over one array, and saving a network is saving a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchgen.validation import RNG, Array, as_choice, as_count, as_generator

ROWS = 512  # of a call at a time: activations stay in the cache, 1.2x on 10,000 rows of width 128
ACTIVATIONS = ("silu", "tanh", "identity")

# glibc hands the top of the heap back to the system whenever 128 kB of it are free, so that every temporary of a
# training step faults its pages in anew.  Freeing one large block, never touched, raises that threshold to 64 MB:
# measured 1.5x on a step of width 128 and batch 256.  (Elsewhere the line does nothing.)
np.empty(2**25 - 2**13, dtype=np.uint8)

# Of sigmoid's two forms NumPy is faster at tanh with AVX-512 and at exp without: with the other one a step of training
# took 1.02 to 1.1 times as long, one of sampling 1.1 to 1.2.
_SIMD = np.show_config(mode="dicts").get("SIMD Extensions", {})
TANH_IS_FAST = not {"X86_V4", "AVX512_SKX"}.isdisjoint(_SIMD.get("baseline", []) + _SIMD.get("found", []))


def _activate(z: Array, activation: str) -> Array:
    """σ(z); z is used up."""
    if activation == "silu" and TANH_IS_FAST:  # z/2 · (1 + tanh z/2), z · sigmoid(z) in a pass less
        z *= 0.5
        share = np.tanh(z)
        share += 1
        z *= share
        return z
    if activation == "silu":
        z /= _one_plus_exp_minus(z)
        return z
    return np.tanh(z, out=z) if activation == "tanh" else z


def _activate_and_slope(z: Array, activation: str) -> tuple[Array, Array]:
    """σ(z), to the last bit that of `_activate`, and σ'(z); z is used up."""
    if activation == "silu":  # with s = sigmoid(z): σ = z s, σ' = s + σ (1 − s)
        if TANH_IS_FAST:
            slope = _sigmoid(z)
            z *= slope
        else:
            slope = _one_plus_exp_minus(z)
            z /= slope
            np.reciprocal(slope, out=slope)
        rest = 1 - slope
        rest *= z
        slope += rest
        return z, slope
    if activation == "tanh":
        value = np.tanh(z)
        return value, 1 - value**2
    return z, np.ones_like(z)


def _sigmoid(z: Array) -> Array:
    """1/(1 + exp(−z)) = (1 + tanh z/2)/2."""
    if not TANH_IS_FAST:
        return np.reciprocal(_one_plus_exp_minus(z))
    s = 0.5 * z
    np.tanh(s, out=s)
    s += 1
    s *= 0.5
    return s


def _one_plus_exp_minus(z: Array) -> Array:
    """1 + exp(−z); inf where exp overflows, which leaves σ and σ' their limits."""
    q = np.negative(z)
    with np.errstate(over="ignore"):
        np.exp(q, out=q)
    q += 1
    return q


def _curvature(z: Array, activation: str) -> Array:
    """σ''(z)."""
    if activation == "silu":  # with s = sigmoid(z): σ' = s + z s(1 − s), σ'' = s(1 − s)(2 + z(1 − 2s))
        s = _sigmoid(z)
        return s * (1 - s) * (2 + z * (1 - 2 * s))
    if activation == "tanh":
        value = np.tanh(z)
        return -2 * value * (1 - value**2)
    return np.zeros_like(z)


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

    def __call__(self, x: Array, constant: Array | None = None) -> Array:
        """The output for x, (N, sizes[-1]), without keeping anything for `backward`.

        With `constant`, (c,), the last c inputs, which all rows share, x has sizes[0] − c columns: their part of the
        first product is then one row instead of N.
        """
        x = np.asarray(x, dtype=self.parameters.dtype)
        first = self.biases[0]
        if constant is not None:
            first = first + constant.astype(first.dtype) @ self.weights[0][x.shape[1] :]
        y = np.empty((len(x), self.sizes[-1]), dtype=x.dtype)
        for start in range(0, len(x), ROWS):
            z = x[start : start + ROWS] @ self.weights[0][: x.shape[1]]
            z += first
            for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
                z = _activate(z, self.activation) @ weight
                z += bias
            y[start : start + ROWS] = z
        return y

    def forward(self, x: Array) -> Array:
        """The output for x, (N, sizes[-1]); remembers what `backward` needs.  Computes in the parameters' dtype."""
        h = np.asarray(x, dtype=self.parameters.dtype)
        self._inputs, self._slopes = [h], []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = h.dot(weight)
            z += bias
            h, slope = _activate_and_slope(z, self.activation)
            self._inputs.append(h)
            self._slopes.append(slope)
        return h @ self.weights[-1] + self.biases[-1]

    def backward(self, grad_output: Array) -> Array:
        """Overwrite `gradient` with Σ_n grad_output_n · ∂y_n/∂parameters and return ∂/∂x, (N, sizes[0]).

        `grad_output` is ∂loss/∂y of the last `forward`, (N, sizes[-1]).
        """
        return self._backward(grad_output) @ self.weights[0].T

    def backward_parameters(self, grad_output: Array) -> None:
        """`backward` without ∂/∂x, which training does not need: a product less."""
        self._backward(grad_output)

    def _backward(self, grad_output: Array) -> Array:
        """Overwrite `gradient`, and return ∂/∂(x W_1 + b_1)."""
        if not self._inputs:
            raise ValueError("backward needs a forward pass first; call forward(x)")
        grad = np.asarray(grad_output, dtype=self.parameters.dtype)
        ones = np.ones(len(grad), dtype=grad.dtype)
        for i in reversed(range(len(self.weights))):  # np.dot, as @ takes longer to begin: 5 % of a 64-wide MLP's step
            np.dot(self._inputs[i].T, grad, out=self._weight_gradients[i])
            np.dot(ones, grad, out=self._bias_gradients[i])  # a sum over rows, in two thirds of the time of `sum`
            if i > 0:
                grad = grad.dot(self.weights[i].T)
                grad *= self._slopes[i - 1]
        return grad

    # --- along a direction -----------------------------------------------------------------------------------------

    def forward_along(self, x: Array, direction: Array) -> tuple[Array, Array]:
        """y(x) and its derivative (∂y/∂x) v along directions v, each (N, sizes[-1]); x and v are (N, sizes[0]).

        The derivative is carried forward beside the value, layer by layer: dh = σ'(z) · (dh W).  Remembers what
        `backward_along` needs.
        """
        h, dh = (np.asarray(a, dtype=self.parameters.dtype) for a in (x, direction))
        self._along: list[tuple[Array, ...]] = []  # what entered each layer, and z's slope, curvature and derivative
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z, dz = h @ weight + bias, dh @ weight
            curvature = _curvature(z, self.activation)
            value, slope = _activate_and_slope(z, self.activation)
            self._along.append((h, dh, slope, curvature * dz))
            h, dh = value, slope * dz
        self._along.append((h, dh))
        return h @ self.weights[-1] + self.biases[-1], dh @ self.weights[-1]

    def backward_along(self, grad_output: Array, grad_derivative: Array) -> None:
        """Overwrite `gradient` with that of Σ_n (g_n · y_n + k_n · (∂y/∂x) v_n) in the last `forward_along`.

        g and k are (N, sizes[-1]).  Where an ordinary `backward` has g ← σ' g, the derivative adds its own part:
        g ← σ' g + σ'' dz k and k ← σ' k.
        """
        if not hasattr(self, "_along"):
            raise ValueError("backward_along needs a forward pass first; call forward_along(x, direction)")
        grad, grad_d = (np.asarray(a, dtype=self.parameters.dtype) for a in (grad_output, grad_derivative))
        for i in reversed(range(len(self.weights))):
            h, dh = self._along[i][:2]
            self._weight_gradients[i][:] = h.T @ grad + dh.T @ grad_d
            self._bias_gradients[i][:] = grad.sum(axis=0)
            if i > 0:
                slope, bend = self._along[i - 1][2:]
                grad, grad_d = grad @ self.weights[i].T, grad_d @ self.weights[i].T
                grad, grad_d = slope * grad + bend * grad_d, slope * grad_d


def _layers(flat: Array, shapes: list[tuple[int, int]]) -> tuple[list[Array], list[Array]]:
    """Cut a flat vector into weight matrices and bias vectors, as views."""
    weights, biases, start = [], [], 0
    for m, n in shapes:
        weights.append(flat[start : start + m * n].reshape(m, n))
        biases.append(flat[start + m * n : start + (m + 1) * n])
        start += (m + 1) * n
    return weights, biases
