"""Stand-ins for pandas, which the tests do not need: a frame with named columns, and a missing value."""

import numpy as np


class Frame:
    """A data frame as scratchgen uses one: the names of its columns, and its values as an array."""

    def __init__(self, values, columns=None):
        self.values = np.asarray(values)
        self.columns = list(range(self.values.shape[1]) if columns is None else columns)

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class NAType:
    """The class of pandas.NA, which has no number."""


NA = NAType()
