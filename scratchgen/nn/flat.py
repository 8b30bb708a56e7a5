"""Parameters of a network in one flat vector, and their gradient in another; the layers are views of both.

The optimiser then works on one array, and a saved network is one vector.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from scratchgen.validation import Array, DTypeLike

Shapes = Sequence[tuple[int, ...]]


class FlatParameters:
    """Arrays of these shapes, one after the other in `parameters`, with their derivatives in `gradient`, (P,) each.

    Change the elements of the vectors (`network.parameters[:] = ...`); a new array would not reach the layers.
    """

    def __init__(self, shapes: Shapes, dtype: DTypeLike) -> None:
        self._shapes = tuple(shapes)
        self.place(np.zeros(total(shapes), dtype), np.zeros(total(shapes), dtype))

    def place(self, parameters: Array, gradient: Array) -> None:
        """Take these vectors, (P,), with the numbers that they hold."""
        self.parameters, self.gradient = parameters, gradient
        self._arrays, self._derivatives = split(parameters, self._shapes), split(gradient, self._shapes)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.place(self.parameters, self.gradient)  # arrays of a copied or unpickled network are no views


def total(shapes: Shapes) -> int:
    """Number of elements of arrays of these shapes."""
    return sum(prod(shape) for shape in shapes)


def split(flat: Array, shapes: Shapes) -> list[Array]:
    """Arrays of these shapes that are views of a flat vector."""
    arrays, start = [], 0
    for shape in shapes:
        arrays.append(flat[start : start + prod(shape)].reshape(shape))
        start += prod(shape)
    return arrays


def layer_shapes(layers: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Shapes of weights (m, n) and bias (n,) of every layer, given as (m, n)."""
    return [shape for m, n in layers for shape in ((m, n), (n,))]
