"""TrainingState: all that a training which has not ended needs to go on."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, NamedTuple

import numpy as np

from scratchgen.blocks import blocks
from scratchgen.validation import Array, has_missing


class TrainingState(NamedTuple):
    """State of a training between two steps, beside the fitted attributes of the model.

    A training that goes on from this state ends with the same bytes as one that was never interrupted.
    """

    step: int  # number of steps done
    checksum: str  # of the data and of all further arguments with one number a row
    generator: dict[str, Any]  # state of the bit generator, from which the next draws come
    arrays: dict[str, Any]  # parameters in training, moments of Adam, running means, …; or the iterate of EM

    def copy(self) -> TrainingState:
        """A state with copies of the arrays, which later steps do not change."""
        return self._replace(arrays={name: copy.copy(value) for name, value in self.arrays.items()})


def checksum(*arrays: Array | None) -> str:
    """SHA-256 of types, shapes and numbers of arrays, which may be None; it depends on the order of the rows.

    NaN has many bit patterns, and all count as one.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(None if array is None else (array.dtype.str, array.shape)).encode())
        if array is None:
            continue
        for rows in blocks(len(array), max(array[:1].size, 1)):
            part = array[rows]
            if part.dtype.kind == "f" and has_missing(part):
                part = np.where(np.isnan(part), part.dtype.type(np.nan), part)
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
