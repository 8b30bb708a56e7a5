"""A multilayer perceptron with hand-written derivatives."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from scratchgen.nn.activations import ACTIVATIONS
from scratchgen.nn.flat import FlatParameters, layer_shapes, total
from scratchgen.validation import (
    RNG,
    Array,
    DTypeLike,
    as_arrays,
    as_choice,
    as_generator,
    as_real,
    as_widths,
    check_flag,
    check_shapes,
)

ROWS = 512  # rows that a call computes at a time; activations stay in the cache, 1.1x to 1.2x as fast for width 128

# glibc returns the top of the heap to the system whenever 128 kB of it are free.  Every temporary array of a training
# step then causes page faults again.  Freeing one large, untouched block raises the threshold to 64 MB.  Without the
# next line a step of width 128 and batch 256 takes 1.3 to 1.5 times as long.  (Other C libraries: no effect.)
np.empty(2**25 - 2**13, dtype=np.uint8)


class Backward(Protocol):
    """Second result of `vjp`: the backward pass from ∂loss/∂output to the parameters and, on request, to the inputs."""

    def __call__(self, grad: Array, inputs: bool = False) -> Array | None:
        """Overwrite the network's `gradient` with ∂loss/∂parameters; return ∂loss/∂x if `inputs`, else None."""


def as_float_type(dtype: DTypeLike) -> np.dtype[Any]:
    """Return dtype; TypeError unless it is float32 or float64."""
    try:  # np.dtype takes more, such as a number for its own type
        found = np.dtype(dtype) if isinstance(dtype, str | type | np.dtype) else None
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        got = dtype if found is None else found
        raise TypeError(f"dtype must be float32 or float64, got {got!s:.60}; half precision would overflow")
    return found


class MLP(FlatParameters):
    """Fully connected network x → σ(x W_1 + b_1) → … → h W_L + b_L, without activation after the last layer.

    Parameters
    ----------
    sizes : sequence of int
        Width of every layer, input first: (2, 64, 64, 1) has two hidden layers.
    activation : {"silu", "tanh", "identity"}
        σ.
    rng : int, Generator or None
        Source of the initial weights, N(0, 1/fan_in); biases are 0.
    dtype : float32 or float64
        Type of parameters and results.
    zero_last : bool
        Set the weights of the last layer to 0 as well, so that the untrained network returns 0.

    Attributes
    ----------
    parameters, gradient : (P,)
        Flat vectors, see `FlatParameters`.
    weights, biases : list of arrays
        Views of `parameters`; weights[i] has shape (sizes[i], sizes[i+1]).

    Raises
    ------
    TypeError
        If a width is not an integer, or dtype is not a floating-point type.
    ValueError
        If there are fewer than two widths, a width is below 1, or the activation is unknown.

    Examples
    --------
    >>> mlp = MLP((2, 8, 1), rng=0)
    >>> y, backward = mlp.vjp(np.ones((4, 2), dtype=np.float32))
    >>> backward(np.ones_like(y), inputs=True).shape, mlp.gradient.shape
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
        self.sizes = as_widths(sizes, "sizes")
        check_flag(zero_last, "zero_last")
        if len(self.sizes) < 2:
            raise ValueError(f"sizes must name at least the input and the output width, got {sizes}")
        self.activation = as_choice(activation, "activation", tuple(ACTIVATIONS))
        rng = as_generator(rng)
        as_float_type(dtype)
        super().__init__(layer_shapes(pairwise(self.sizes)), dtype)
        for weight in self.weights[: len(self.weights) - zero_last]:
            weight[:] = rng.standard_normal(weight.shape) / len(weight) ** 0.5

    def place(self, parameters: Array, gradient: Array) -> None:
        """Take these vectors, (P,), with the numbers that they hold."""
        super().place(parameters, gradient)
        self.weights, self.biases = self._arrays[::2], self._arrays[1::2]
        self._weight_gradients, self._bias_gradients = self._derivatives[::2], self._derivatives[1::2]

    def _as_inputs(self, x: Array, n_constant: int = 0, name: str = "x") -> Array:
        """Return x in the network's dtype; ValueError unless x has shape (N, sizes[0] − n_constant)."""
        x = as_real(x, name).astype(self.parameters.dtype, copy=False)
        if x.ndim != 2 or x.shape[1] != self.sizes[0] - n_constant:
            raise ValueError(
                f"{name} must have shape (N, {self.sizes[0] - n_constant}), since the network has {self.sizes[0]} "
                f"inputs, got shape {x.shape}"
            )
        return x

    def __call__(self, x: Array, constant: Array | None = None) -> Array:
        """Compute the output for x, (N, sizes[-1]), in blocks of rows.

        Parameters
        ----------
        x : (N, sizes[0] − c)
            c = 0 without `constant`.
        constant : (c,), optional
            The last c inputs, if they are the same for all rows: their part of the first product is computed once.

        Raises
        ------
        ValueError
            If x has another shape.
        """
        if constant is not None:
            constant = as_arrays("constant (c)", constant)
        x = self._as_inputs(x, 0 if constant is None else len(constant))
        activate = ACTIVATIONS[self.activation].value
        first = self.biases[0]
        if constant is not None:
            first = first + constant.astype(first.dtype) @ self.weights[0][x.shape[1] :]
        y = np.empty((len(x), self.sizes[-1]), dtype=x.dtype)
        for start in range(0, len(x), ROWS):
            z = x[start : start + ROWS] @ self.weights[0][: x.shape[1]]
            z += first
            for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
                z = activate(z) @ weight
                z += bias
            y[start : start + ROWS] = z
        return y

    def vjp(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Backward]:
        """Compute the output for x and return the backward pass (a vector-Jacobian product, as in JAX).

        Parameters
        ----------
        x : (N, sizes[0])
        rng : Generator, optional
            Not used: the argument of networks with dropout.

        Returns
        -------
        y : (N, sizes[-1])
        backward : callable
            backward(grad) overwrites `gradient` with Σ_n grad_n · ∂y_n/∂parameters for grad = ∂loss/∂y, (N, sizes[-1]).
            backward(grad, inputs=True) also returns ∂loss/∂x, (N, sizes[0]), which takes one more matrix product.
        """
        h = self._as_inputs(x)
        activate = ACTIVATIONS[self.activation].value_and_slope
        entering, slopes = [h], list[Array]()
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = h.dot(weight)
            z += bias
            h, slope = activate(z)
            entering.append(h)
            slopes.append(slope)

        def backward(grad: Array, inputs: bool = False) -> Array | None:
            grad = as_real(grad, "grad").astype(self.parameters.dtype, copy=False)
            check_shapes("grad", grad, "the output y", y)
            ones = np.ones(len(grad), dtype=grad.dtype)
            for i in reversed(range(len(self.weights))):  # np.dot has less overhead than @: 5 % at width 64
                np.dot(entering[i].T, grad, out=self._weight_gradients[i])
                np.dot(ones, grad, out=self._bias_gradients[i])  # sum over rows; `sum` takes 1.5 to 4x as long
                if i > 0:
                    grad = grad.dot(self.weights[i].T)
                    grad *= slopes[i - 1]
            return grad @ self.weights[0].T if inputs else None

        y = h @ self.weights[-1] + self.biases[-1]
        return y, backward

    def jvp(self, x: Array, direction: Array) -> tuple[Array, Array, Callable[[Array, Array], None]]:
        """Compute the output for x, its directional derivative, and the backward pass of both.

        The derivative is computed layer by layer beside the value: dz = dh W, then dh = σ'(z) dz.  In the backward pass
        an activation maps the gradients g of the value and k of the derivative to σ' g + σ'' dz k and σ' k.

        Parameters
        ----------
        x, direction : (N, sizes[0])
            Points and directions v.

        Returns
        -------
        y, derivative : (N, sizes[-1])
            y(x) and (∂y/∂x) v.
        backward : callable
            backward(g, k), with g and k (N, sizes[-1]), overwrites `gradient` with the gradient of
            Σ_n (g_n · y_n + k_n · (∂y/∂x) v_n).
        """
        h, dh = self._as_inputs(x), self._as_inputs(direction, name="direction")
        check_shapes("direction", dh, "x", h)
        activation = ACTIVATIONS[self.activation]
        entering, bends = [(h, dh)], list[tuple[Array, Array]]()  # bends: σ'(z) and σ''(z) dz
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z, dz = h @ weight + bias, dh @ weight
            bend = activation.curvature(z) * dz
            h, slope = activation.value_and_slope(z)
            dh = slope * dz
            entering.append((h, dh))
            bends.append((slope, bend))

        def backward(grad: Array, grad_derivative: Array) -> None:
            grad, grad_d = (np.asarray(a, dtype=self.parameters.dtype) for a in (grad, grad_derivative))
            for i in reversed(range(len(self.weights))):
                h, dh = entering[i]
                self._weight_gradients[i][:] = h.T @ grad + dh.T @ grad_d
                self._bias_gradients[i][:] = grad.sum(axis=0)
                if i > 0:
                    slope, bend = bends[i - 1]
                    grad, grad_d = grad @ self.weights[i].T, grad_d @ self.weights[i].T
                    grad, grad_d = slope * grad + bend * grad_d, slope * grad_d

        return h @ self.weights[-1] + self.biases[-1], dh @ self.weights[-1], backward


def n_parameters(sizes: Sequence[int]) -> int:
    """Number of weights and biases of an MLP of these widths."""
    return total(layer_shapes(pairwise(as_widths(sizes, "sizes"))))
