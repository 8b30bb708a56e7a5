"""TrainingState: all that a training which has not ended needs to go on."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, NamedTuple

import numpy as np

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
        if array is not None and array.dtype.kind == "f" and has_missing(array):
            array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
        digest.update(str(None if array is None else (array.dtype.str, array.shape)).encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()
