"""Labels of a network: dropped at random in training, and followed more or less strictly afterwards."""

import numpy as np

from scratchgen.nn.features import NO_LABEL
from scratchgen.validation import Array, IntArray, as_array, as_arrays, as_labels, as_number, check_rng, check_shapes


def drop_labels(labels: IntArray, probability: float, rng: np.random.Generator) -> IntArray:
    """Labels, (N,), each replaced by NO_LABEL with a probability, so that a network also learns to do without."""
    labels = as_labels(labels, as_array(labels, "labels").size, np.iinfo(np.int64).max, first=NO_LABEL)
    probability = as_number(probability, "probability", low=0.0, high=1.0)
    check_rng(rng)
    return np.where(rng.random(len(labels)) < probability, NO_LABEL, labels)


def guided(free: Array, told: Array, guidance: float) -> Array:
    """free + w (told − free), of any shape, with w = `guidance`: exactly `free` for w = 0, exactly `told` for w = 1.

    An element −inf is the logit of a level that is impossible.  A level that is impossible in one of the two laws is
    impossible for every w but 0 and 1.

    Parameters
    ----------
    free, told : (...)
        ε̂ or logits, without the label and with it.
    guidance : float
        w; above 1 the dependence on the label is stronger than in the model of p(x | y).

    Raises
    ------
    ArithmeticError
        If guidance is so large that the sum is not finite.
    """
    free, told = as_arrays("free (...), told (...)", free, told)
    check_shapes("told", told, "free", free)
    guidance = as_number(guidance, "guidance")
    if guidance in (0.0, 1.0):
        return told if guidance else free
    with np.errstate(over="ignore", invalid="ignore"):
        mixed = free + guidance * (told - free)
    impossible = np.isneginf(free) | np.isneginf(told)
    if not (np.isfinite(mixed) | impossible).all():
        raise ArithmeticError(f"the prediction is not finite with guidance={guidance:g}; lower guidance")
    return np.where(impossible, -np.inf, mixed).astype(mixed.dtype, copy=False)
