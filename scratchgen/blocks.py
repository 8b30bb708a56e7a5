"""Computation by blocks of rows, so that memory does not grow with the number of rows."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray
R = TypeVar("R")
BLOCK = 2**19  # numbers in a block of rows, 4 MB of float64


def blocks(n: int, numbers: int, least: int = 1) -> Iterator[slice]:
    """Slices of n rows, in their order, for `numbers` numbers a row: BLOCK numbers in all, but `least` rows or more.

    For n = 0 there is one empty slice.
    """
    rows = max(BLOCK // numbers, least)
    return (slice(start, min(start + rows, n)) for start in range(0, max(n, 1), rows))


def by_blocks(f: Callable[[slice], R], n: int, numbers: int, least: int = 1) -> R:
    """The results of f for the blocks of n rows, put together: an array (n, ...), or a tuple of them, as f returns.

    The results for one block are those of f, without a copy.
    """
    out: tuple[Array, ...] = ()
    for block in blocks(n, numbers, least):
        result = f(block)
        if block == slice(0, n):
            return result
        parts: Any = result if isinstance(result, tuple) else (result,)
        out = out or tuple(np.empty((n, *part.shape[1:]), part.dtype) for part in parts)
        for whole, part in zip(out, parts, strict=True):
            whole[block] = part
    together: Any = out if isinstance(result, tuple) else out[0]
    return together
