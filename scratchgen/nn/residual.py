"""A multilayer perceptron of residual blocks, with dropout and hand-written derivatives.

    h ← x W + b
    h ← h + D(σ([σ(h), c] A_k + a_k)) B_k + b_k,   k = 1, 2, …
    y = σ(h) V + v

σ is SiLU.  The told inputs c are the last columns of x: noise level, label and augmentation.  They enter every block.
D drops units in training (Srivastava et al. 2014).
"""

from collections.abc import Callable, Sequence

import numpy as np

from scratchgen.fast.silu import silu, silu_and_slope
from scratchgen.nn.activations import silu_curvature
from scratchgen.nn.flat import FlatParameters, Shapes, layer_shapes
from scratchgen.nn.mlp import ROWS, Backward, as_float_type
from scratchgen.validation import (
    RNG,
    Array,
    DTypeLike,
    as_arrays,
    as_count,
    as_generator,
    as_number,
    as_real,
    as_widths,
    check_shapes,
)

SHRINK = 0.3  # of the first weights B_k: the blocks of an untrained network change h little


class ResidualMLP(FlatParameters):
    """Network of residual blocks x → y, see the head of this file, with the calls of an `MLP`.

    Parameters
    ----------
    sizes : sequence of int
        Width of every layer, input first: (20, 64, 64, 1) has two blocks of width 64.  All blocks have one width.
    n_told : int
        Number of told inputs, the last columns of x, which enter every block.
    dropout : float
        Probability that a unit inside a block is dropped in `vjp` with a generator.  The other units are divided by
        1 − dropout, so that means stay the same.
    rng : int, Generator or None
        Source of the initial weights, N(0, 1/fan_in), those of B_k times 0.3.  V and all biases are 0.
    dtype : float32 or float64
        Type of parameters and results.

    Attributes
    ----------
    parameters, gradient : (P,)
        Flat vectors, see `FlatParameters`.
    weights, biases : list of arrays
        W, A_1, B_1, A_2, …, V and b, a_1, b_1, …, v, which are views of `parameters`.

    Raises
    ------
    TypeError
        If a width is not an integer, or dtype is not a floating-point type.
    ValueError
        If there is no block, the blocks have two widths, there are more told inputs than inputs, or dropout is not in
        [0, 1).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        n_told: int = 0,
        dropout: float = 0.0,
        rng: RNG = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(self.shapes(sizes, n_told), as_float_type(dtype))
        self.sizes = as_widths(sizes, "sizes")
        self.n_told = n_told
        self.dropout = as_number(dropout, "dropout", low=0.0, high=1 - 1e-6)
        rng = as_generator(rng)
        for i, weight in enumerate(self.weights[:-1]):
            inner = i > 0 and i % 2 == 0
            weight[:] = rng.standard_normal(weight.shape) * (SHRINK if inner else 1.0) / len(weight) ** 0.5

    @staticmethod
    def shapes(sizes: Sequence[int], n_told: int = 0) -> Shapes:
        """Shapes of all weights and biases for the constructor's arguments, in the order of `parameters`."""
        n_inputs, *blocks, n_outputs = as_widths(sizes, "sizes") or (0, 0)
        if len(set(blocks)) != 1:
            raise ValueError(
                f"hidden must hold one width for all blocks of network='residual', got sizes {blocks}; use (64, 64)"
            )
        n_told, width = as_count(n_told, "n_told", minimum=0, maximum=n_inputs), blocks[0]
        inside = [layer for _ in blocks for layer in ((width + n_told, width), (width, width))]
        return layer_shapes([(n_inputs, width), *inside, (width, n_outputs)])

    def place(self, parameters: Array, gradient: Array) -> None:
        """Take these vectors, (P,), with the numbers that they hold."""
        super().place(parameters, gradient)
        self.weights, self.biases = self._arrays[::2], self._arrays[1::2]

    @property
    def _blocks(self) -> range:
        """Index of A_k in `weights` for every block; that of B_k is the next one."""
        return range(1, len(self.weights) - 1, 2)

    def _as_inputs(self, x: Array, name: str = "x") -> tuple[Array, Array]:
        """Return x in the network's dtype, and its told columns."""
        shape = f"{name} (N, inputs)"
        x = as_arrays(shape, as_real(x, name), inputs=self.sizes[0]).astype(self.parameters.dtype, copy=False)
        return x, x[:, self.sizes[0] - self.n_told :]

    def __call__(self, x: Array, constant: Array | None = None) -> Array:
        """Compute the output for x, (N, sizes[-1]), without dropout, in blocks of rows; arguments as for `MLP`."""
        if constant is not None:
            x, constant = as_arrays("x (N, inputs), constant (c)", x, constant)
            x = np.concatenate([x, np.broadcast_to(constant, (len(x), len(constant)))], axis=1)
        x, told = self._as_inputs(x)
        W, b = self.weights, self.biases
        y = np.empty((len(x), self.sizes[-1]), dtype=x.dtype)
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            h = x[rows] @ W[0] + b[0]
            for i in self._blocks:
                z = np.concatenate([silu(h.copy()), told[rows]], axis=1) @ W[i] + b[i]
                h += silu(z) @ W[i + 1] + b[i + 1]
            y[rows] = silu(h) @ W[-1] + b[-1]
        return y

    def vjp(self, x: Array, rng: np.random.Generator | None = None) -> tuple[Array, Backward]:
        """Compute the output for x and return the backward pass, see `MLP.vjp`.

        Parameters
        ----------
        x : (N, sizes[0])
        rng : Generator, optional
            Source of the dropped units; no unit is dropped if None.
        """
        x, told = self._as_inputs(x)
        W, b = self.weights, self.biases
        tape = []
        h = x.dot(W[0])
        h += b[0]
        for i in self._blocks:
            value, slope = silu_and_slope(h.copy())
            entering = np.concatenate([value, told], axis=1)
            z = entering.dot(W[i])
            z += b[i]
            units, units_slope = silu_and_slope(z)
            if rng is not None and self.dropout:
                keep = (rng.random(units.shape, dtype=np.float32) >= self.dropout) * x.dtype.type(
                    1 / (1 - self.dropout)
                )
                units *= keep
                units_slope *= keep
            tape.append((entering, slope, units, units_slope))
            h += units.dot(W[i + 1])
            h += b[i + 1]
        last, last_slope = silu_and_slope(h)

        def backward(grad: Array, inputs: bool = False) -> Array | None:
            grad = as_real(grad, "grad").astype(x.dtype, copy=False)
            check_shapes("grad", grad, "the output y", y)
            width, by_told = self.sizes[1], np.zeros_like(told)
            self._store(-1, last, grad)
            by_h = grad.dot(W[-1].T)
            by_h *= last_slope
            for i, (entering, slope, units, units_slope) in zip(reversed(self._blocks), reversed(tape), strict=True):
                self._store(i + 1, units, by_h)
                by_z = by_h.dot(W[i + 1].T)
                by_z *= units_slope
                self._store(i, entering, by_z)
                by_value = by_z.dot(W[i][:width].T)
                by_value *= slope
                by_h += by_value
                if inputs:
                    by_told += by_z @ W[i][width:].T
            self._store(0, x, by_h)
            if not inputs:
                return None
            by_x = by_h @ W[0].T
            by_x[:, self.sizes[0] - self.n_told :] += by_told
            return by_x

        y = last @ W[-1] + b[-1]
        return y, backward

    def _store(self, i: int, entering: Array, grad: Array) -> None:
        """Write the gradient of layer i, entering · W_i + b_i, for grad = ∂loss/∂output."""
        by_weights, by_biases = self._derivatives[::2], self._derivatives[1::2]
        np.dot(entering.T, grad, out=by_weights[i])
        np.dot(np.ones(len(grad), dtype=grad.dtype), grad, out=by_biases[i])

    def jvp(self, x: Array, direction: Array) -> tuple[Array, Array, Callable[[Array, Array], None]]:
        """Compute the output for x, its derivative along `direction`, and the backward pass of both, see `MLP.jvp`.

        No unit is dropped.
        """
        (x, told), (dx, dtold) = self._as_inputs(x), self._as_inputs(direction, "direction")
        check_shapes("direction", dx, "x", x)
        W, b = self.weights, self.biases
        tape = []
        h, dh = x @ W[0] + b[0], dx @ W[0]
        for i in self._blocks:
            value, dvalue, bend = _activate(h, dh)
            entering, dentering = np.concatenate([value, told], axis=1), np.concatenate([dvalue, dtold], axis=1)
            units, dunits, units_bend = _activate(entering @ W[i] + b[i], dentering @ W[i])
            tape.append((entering, dentering, bend, units, dunits, units_bend))
            h, dh = h + units @ W[i + 1] + b[i + 1], dh + dunits @ W[i + 1]
        last, dlast, last_bend = _activate(h, dh)

        def backward(grad: Array, grad_derivative: Array) -> None:
            g, k = (np.asarray(a, dtype=x.dtype) for a in (grad, grad_derivative))
            width = self.sizes[1]
            self._store_both(-1, last, dlast, g, k)
            g, k = _by_argument(last_bend, g @ W[-1].T, k @ W[-1].T)
            for i, (entering, dentering, bend, units, dunits, units_bend) in zip(
                reversed(self._blocks), reversed(tape), strict=True
            ):
                self._store_both(i + 1, units, dunits, g, k)
                g_z, k_z = _by_argument(units_bend, g @ W[i + 1].T, k @ W[i + 1].T)
                self._store_both(i, entering, dentering, g_z, k_z)
                g_h, k_h = _by_argument(bend, g_z @ W[i][:width].T, k_z @ W[i][:width].T)
                g, k = g + g_h, k + k_h
            self._store_both(0, x, dx, g, k)

        return last @ W[-1] + b[-1], dlast @ W[-1], backward

    def _store_both(self, i: int, h: Array, dh: Array, grad: Array, grad_derivative: Array) -> None:
        """Write the gradient of layer i with the output h W_i + b_i and its derivative dh W_i."""
        self._derivatives[::2][i][:] = h.T @ grad + dh.T @ grad_derivative
        self._derivatives[1::2][i][:] = grad.sum(axis=0)


Bend = tuple[Array, Array]  # σ'(z) and σ''(z) dz


def _activate(z: Array, dz: Array) -> tuple[Array, Array, Bend]:
    """σ(z), its derivative σ'(z) dz, and the two numbers that the backward pass of both needs."""
    bend = silu_curvature(z) * dz
    value, slope = silu_and_slope(z.copy())
    return value, slope * dz, (slope, bend)


def _by_argument(bend: Bend, grad: Array, grad_derivative: Array) -> tuple[Array, Array]:
    """∂loss/∂z and ∂loss/∂dz for the gradients with respect to σ(z) and σ'(z) dz."""
    slope, curved = bend
    return slope * grad + curved * grad_derivative, slope * grad_derivative
