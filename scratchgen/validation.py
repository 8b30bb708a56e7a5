"""Checks of what comes in from outside: every error names the argument, what was expected, what came, the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.integer[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]
RNG: TypeAlias = int | np.random.Generator | np.random.SeedSequence | None


def as_generator(rng: RNG) -> np.random.Generator:
    """Return the Generator that `rng` stands for (SPEC 7).

    Parameters
    ----------
    rng : int, SeedSequence, Generator or None
        A seed (0 is a seed like any other), a Generator (used, and advanced, as it is), or None for fresh entropy.

    Raises
    ------
    TypeError
        For a bool, a float, or the legacy RandomState.
    ValueError
        For a negative seed.
    """
    if isinstance(rng, bool) or not isinstance(
        rng, int | np.integer | np.random.Generator | np.random.BitGenerator | np.random.SeedSequence | None
    ):
        raise TypeError(
            f"rng must be a non-negative int, a numpy.random.Generator or None, got {rng!r}; "
            "pass numpy.random.default_rng(seed)"
        )
    if isinstance(rng, int | np.integer) and rng < 0:
        raise ValueError(f"rng must be a non-negative seed, got {rng}")
    return np.random.default_rng(rng)


def as_finite(x: ArrayLike, name: str) -> Array:
    """Return `x` as a real, finite, floating-point array; float32 stays float32, everything else becomes float64.

    Errors contain the words by which scikit-learn's `check_estimator` knows them.
    """
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} must be a dense array, sparse ones are not supported; pass {name}.toarray()")
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(
            f"{name} must be a rectangular array, got rows of different lengths; pad or drop some"
        ) from None
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must be a real array, got dtype {array.dtype}; Complex data not supported")
    if array.dtype.kind == "O":
        array = _as_numbers(array, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be a real array, got dtype {array.dtype}; convert it to numbers first")
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()  # finite, in all but the rarest cases, exactly if all are: no array of truth values
    if not np.isfinite(total) and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} must be finite, but {name}[{', '.join(map(str, where))}] is {array[where]}; "
            "drop or impute NaN and inf"
        )
    return array


def _as_numbers(array: Any, name: str) -> Array:
    """An array of Python objects as float64, if all of them are numbers."""
    try:
        return np.array([float(value) for value in array.ravel()]).reshape(array.shape)  # NumPy would make None a NaN
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be a real array, got dtype object: {error}; convert it to numbers first"
        ) from None


def as_samples(
    x: ArrayLike, name: str = "x", *, dimension: int | None = None, n_min: int = 1, model: str = "it"
) -> Array:
    """Return `x` as an (N, D) array of finite real numbers.

    Parameters
    ----------
    x : array_like, (N, D)
        One example a row.
    name : str
        How the caller calls it.
    dimension : int, optional
        The D that is required.
    n_min : int
        The least N that is accepted.
    model : str
        Whose D is required.

    Raises
    ------
    TypeError, ValueError
        If x is not numeric, not two-dimensional, not finite, too short or of another D.
    """
    array = as_finite(x, name)
    if array.ndim != 2:
        raise ValueError(
            f"{name} must have shape (N, D), got shape {array.shape}. Reshape your data: "
            f"{name}.reshape(-1, 1) for N scalars, {name}.reshape(1, -1) for one example"
        )
    if array.shape[0] < n_min or array.shape[1] < 1:
        raise ValueError(
            f"{name} must have at least {n_min} row(s) and 1 column, got n_samples={array.shape[0]} and "
            f"{array.shape[1]} feature(s) (shape={array.shape}) while a minimum of "
            f"{n_min if array.shape[0] < n_min else 1} is required."
        )
    if dimension is not None and array.shape[1] != dimension:
        raise ValueError(
            f"{name} must have {dimension} columns, as the model has, got {array.shape[1]}: "
            f"X has {array.shape[1]} features, but {model} is expecting {dimension} features as input"
        )
    return array


def as_count(value: Any, name: str, *, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`; bools and fractions are refused."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def as_number(value: Any, name: str, *, low: float = -np.inf, high: float = np.inf, open_low: bool = False) -> float:
    """Return `value` as a finite float in [low, high], or in (low, high] with `open_low`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(value) or value < low or value > high or (open_low and value == low):
        finite = "" if np.isfinite(value) else " and finite"
        raise ValueError(f"{name} must be in {'(' if open_low else '['}{low}, {high}]{finite}, got {value}")
    return float(value)


def as_widths(value: Any, name: str) -> tuple[int, ...]:
    """Return `value` as the widths of hidden layers: a tuple of ints that are at least 1, or none at all."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of layer widths, got {value!r}; one layer of 64 is (64,)")
    return tuple(as_count(width, f"{name}[{i}]") for i, width in enumerate(value))


def as_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
