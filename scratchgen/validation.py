"""Checks of arguments.

Every error names the argument, the expected value, the value received, and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

ArrayLike: TypeAlias = npt.ArrayLike
DTypeLike: TypeAlias = npt.DTypeLike
Array: TypeAlias = np.ndarray
IntArray: TypeAlias = np.ndarray
RNG: TypeAlias = int | np.random.Generator | np.random.SeedSequence | None

LARGEST = 1e60  # size of an element of `as_samples`; models compute products of four elements, and divide by variances


def as_generator(rng: RNG) -> np.random.Generator:
    """Return a random generator from a seed or a generator.

    Parameters
    ----------
    rng : int, SeedSequence, BitGenerator, Generator or None
        A seed; a Generator, which is returned itself, so that draws advance it; or None for fresh entropy.

    Raises
    ------
    TypeError
        If rng has another type, such as bool, float or the legacy RandomState.
    ValueError
        If the seed is negative.
    """
    if isinstance(rng, bool) or not isinstance(
        rng, int | np.integer | np.random.Generator | np.random.BitGenerator | np.random.SeedSequence | None
    ):
        raise TypeError(
            f"rng must be a non-negative int, a numpy.random.Generator or None, got {rng!r}; "
            "pass numpy.random.default_rng(seed)"
        )
    if isinstance(rng, int | np.integer) and rng < 0:
        raise ValueError(f"rng must be a non-negative seed, got {rng}; pass 0 or more")
    return np.random.default_rng(rng)


def as_finite(x: ArrayLike, name: str) -> Array:
    """Return `x` as a real, finite, floating-point array; float32 stays float32, every other dtype becomes float64.

    The errors contain the phrases that scikit-learn's `check_estimator` looks for.

    Parameters
    ----------
    x : array_like of any shape
    name : str
        Name of the argument, for the error messages.

    Raises
    ------
    TypeError
        If x is sparse, or its elements are not numbers.
    ValueError
        If x is complex, ragged, or has a NaN or an infinite element.
    """
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} must be a dense array, sparse ones are not supported; pass {name}.toarray()")
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(
            f"{name} must be a rectangular array, got rows of different lengths; pad them or drop rows"
        ) from None
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must be a real array, got dtype {array.dtype}; Complex data not supported")
    if array.dtype.kind == "O":
        try:  # NumPy's own conversion would make NaN of None
            array = np.array([float(value) for value in array.ravel()]).reshape(array.shape)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} must be a real array, got dtype object: {error}; convert it to numbers first"
            ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be a real array, got dtype {array.dtype}; convert it to numbers first")
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()  # a finite sum means finite elements; this test is faster than isfinite of all of them
    if not np.isfinite(total) and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} must be finite, but {name}[{', '.join(map(str, where))}] is {array[where]}; "
            "drop or impute NaN and inf"
        )
    return array


def as_samples(
    x: ArrayLike, name: str = "x", *, dimension: int | None = None, n_min: int = 1, model: str = "the model"
) -> Array:
    """Return `x` as an (N, D) array of finite real numbers of size 1e60 at most.

    Parameters
    ----------
    x : array_like, (N, D)
        One example a row.
    name : str
        Name of the argument, for the error messages.
    dimension : int, optional
        Required D.
    n_min : int
        Least accepted N.
    model : str
        Name of the model that requires D, for the error messages.

    Raises
    ------
    TypeError
        If x is sparse, or its elements are not numbers.
    ValueError
        If x is not two-dimensional, not finite or complex; if N is below `n_min`; if D is 0 or not `dimension`; if an
        element is larger than 1e60 in size, so that products of squares could overflow.
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
    if not float(np.vdot(array, array)) <= LARGEST**2:  # the sum of squares takes one pass
        too_large = np.argwhere(np.abs(array) > np.float64(LARGEST))  # float32 cannot hold LARGEST
        if len(too_large):
            n, d = too_large[0]
            raise ValueError(
                f"{name} must hold numbers of size {LARGEST:g} at most, since products of squares would overflow, but "
                f"{name}[{n}, {d}] is {array[n, d]}; drop fill values, or divide {name} by its largest number"
            )
    if dimension is not None and array.shape[1] != dimension:
        raise ValueError(
            f"{name} must have {dimension} columns, as the model has, got {array.shape[1]}: "
            f"X has {array.shape[1]} features, but {model} is expecting {dimension} features as input"
        )
    return array


def check_spread(x: Array, variances: Array) -> None:
    """Raise ValueError if a column of x, (N, D), varies but its variance, (D,), underflows."""
    low = variances < np.finfo(np.float64).tiny
    if low.any() and (lost := np.flatnonzero(low & (np.ptp(x, axis=0) > 0))).size:
        d, spread = lost[0], np.ptp(x, axis=0)
        raise ValueError(
            f"x must vary by more than 1e-153, since squares of smaller numbers underflow, but column {d} varies by "
            f"{spread[d]:.2g}; use smaller units, so that the numbers are larger"
        )


def as_count(value: Any, name: str, *, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`.

    Raises
    ------
    TypeError
        If value is not an integer; a bool and a float such as 2.0 are refused.
    ValueError
        If value is below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def as_number(value: Any, name: str, *, low: float = -np.inf, high: float = np.inf, open_low: bool = False) -> float:
    """Return `value` as a finite float in [low, high], or in (low, high] with `open_low`.

    Raises
    ------
    TypeError
        If value is not a real number; a bool is refused.
    ValueError
        If value is NaN, infinite or outside the interval.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(value) or value < low or value > high or (open_low and value == low):
        finite = "" if np.isfinite(value) else " and finite"
        raise ValueError(f"{name} must be in {'(' if open_low else '['}{low}, {high}]{finite}, got {value}")
    return float(value)


MOST_STOCHASTIC = 1e6  # λ; with a larger one a step is noise only, and λ² may overflow


def as_stochasticity(stochasticity: float) -> float:
    """λ of the reverse SDE as a float; TypeError or ValueError unless it is a number in [0, 1e6]."""
    return as_number(stochasticity, "stochasticity", low=0.0, high=MOST_STOCHASTIC)


def as_guidance(guidance: Any, labels: object) -> float:
    """Return guidance as a finite float; ValueError if it is not 1 and there are no labels."""
    guidance = as_number(guidance, "guidance")
    if labels is None and guidance != 1:
        raise ValueError(f"guidance={guidance:g} needs labels y, got None; pass labels, or leave guidance at 1")
    return guidance


def check_positive(value: ArrayLike, name: str, remedy: str = "pass numbers above 0") -> None:
    """Raise ValueError unless every number of `value`, of any shape, is positive and finite; NaN is refused."""
    array = np.asarray(value)
    wrong = ~((array > 0) & (array < np.inf))
    if wrong.any():
        raise ValueError(f"{name} must be positive and finite, got {array[wrong][0]}; {remedy}")


def as_widths(value: Any, name: str) -> tuple[int, ...]:
    """Return `value` as the widths of hidden layers: a tuple of positive ints, which may be empty.

    Raises
    ------
    TypeError
        If value is not a sequence, or an element is not an integer.
    ValueError
        If a width is below 1.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of layer widths, got {value!r}; one layer of 64 is (64,)")
    return tuple(as_count(width, f"{name}[{i}]") for i, width in enumerate(value))


def as_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`; raise ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_levels(x: ArrayLike, n_levels: int, name: str = "x") -> None:
    """Raise ValueError unless x, of any shape, holds whole numbers 0..n_levels−1; NaN is refused."""
    x = np.asarray(x)
    right = (x == np.rint(x)) & (x >= 0) & (x < n_levels)
    if not right.all():
        where = tuple(int(i) for i in np.argwhere(~right)[0])
        element = f"{name}[{', '.join(map(str, where))}]" if where else name
        negative = " (Negative values in data)" if x[where] < 0 else ""  # scikit-learn looks for this phrase
        raise ValueError(
            f"{name} must hold whole numbers in 0..{n_levels - 1}, as n_levels says, but {element} is {x[where]}"
            f"{negative}; raise n_levels, or use a model of real numbers (n_levels=None, or GaussianMixture)"
        )


def check_shapes(name: str, array: Array, like_name: str, like: Array) -> None:
    """Raise ValueError if two arrays differ in shape.

    NumPy would broadcast them: noise of shape (D,) would be one draw for all examples.
    """
    if np.shape(array) != np.shape(like):
        raise ValueError(f"{name} must have the shape of {like_name}, {np.shape(like)}, got {np.shape(array)}")


def freeze(instance: object, **arrays: Array) -> None:
    """Set arrays as read-only attributes of a frozen dataclass.

    Some of the arrays are computed from others, and a change of one array would make them disagree.
    """
    for name, array in arrays.items():
        array.setflags(write=False)
        object.__setattr__(instance, name, array)


def column(value: ArrayLike, like: Array) -> Array | float:
    """Return one number, or one number a row, as a factor for `like`, (N, D), that keeps the dtype of `like`.

    A number becomes a Python float, because a float64 scalar of NumPy would turn float32 arrays into float64.  An array
    of shape (N,) or (N, 1) becomes (N, 1) in the dtype of `like`; ValueError for other shapes.
    """
    array, like = np.asarray(value), np.asarray(like)
    if array.ndim == 0:
        return float(array)
    if array.size != len(array) or len(array) not in (1, len(like)):
        raise ValueError(
            f"t or std must be one number, or one number a row of the shape ({len(like)},), got the shape {array.shape}"
        )
    return array.reshape(-1, 1).astype(like.dtype if like.dtype.kind == "f" else np.float64, copy=False)
