"""Checks of arguments.

Every error names the argument, the expected value, the value received, and the remedy.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from scratchgen.blocks import blocks

ArrayLike: TypeAlias = npt.ArrayLike
DTypeLike: TypeAlias = npt.DTypeLike
Array: TypeAlias = np.ndarray
IntArray: TypeAlias = np.ndarray
RNG: TypeAlias = int | np.random.Generator | np.random.BitGenerator | np.random.SeedSequence | None

FLOATS = np.dtype(np.float64), np.dtype(np.float32)  # of computations, in the byte order of the machine
NO_MISSING = "drop or impute NaN and inf; PPCA and GaussianMixture(covariance_type='full') take NaN as a missing value"
LARGEST = 1e60  # size of an element of `as_samples`; models compute products of four elements, and divide by variances
SMALLEST = 1e-60  # size of a number whose square is divided by


def is_integer(value: object) -> bool:
    """Whether value is an int of Python or NumPy; a bool and a duration, timedelta64, are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


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
    seed = is_integer(rng)
    if not seed and not isinstance(rng, np.random.Generator | np.random.BitGenerator | np.random.SeedSequence | None):
        raise TypeError(
            f"rng must be a non-negative int, a numpy.random.Generator or None, got {rng!r}; "
            "pass numpy.random.default_rng(seed)"
        )
    if seed and rng < 0:  # type: ignore[operator]
        raise ValueError(f"rng must be a non-negative seed, got {rng}; pass 0 or more")
    return np.random.default_rng(rng)


def refuse_masked(x: Any, name: str) -> None:
    """Raise TypeError for a masked array or a list of masked rows, whose mask NumPy's functions would drop."""
    rows = x if isinstance(x, list | tuple) else (x,)
    if any(isinstance(row, np.ma.MaskedArray) for row in rows):
        raise TypeError(f"{name} must not be a masked array; drop the masked rows, or fill them: {name}.filled(0.0)")


def as_array(x: ArrayLike, name: str) -> Array:
    """Return `x` as an array of any dtype; TypeError if it is masked or sparse, ValueError if it is ragged."""
    refuse_masked(x, name)
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} must be a dense array, sparse ones are not supported; pass {name}.toarray()")
    try:
        return np.asarray(x)
    except ValueError:
        raise ValueError(
            f"{name} must be a rectangular array, got rows of different lengths; pad them or drop rows"
        ) from None


def as_real(x: ArrayLike, name: str) -> Array:
    """Return `x` as an array of real numbers, which may be NaN; float32 stays, every other dtype becomes float64.

    An array of bools becomes one of 0 and 1.  A data frame becomes the array of its columns, in their order; NA,
    the missing value of its nullable columns, becomes NaN.

    Raises
    ------
    TypeError
        If x is masked or sparse, or its elements are not numbers; text such as "1.5" is no number, nor is True alone.
    ValueError
        If x is complex or ragged, or a finite element is beyond the range of float64.
    """
    if type(x) is np.ndarray and x.dtype in FLOATS:
        return x
    array = as_array(x, name)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must be a real array, got dtype {array.dtype}; Complex data not supported")
    if array.dtype.kind == "O":
        floats = np.empty(array.shape)
        for where, value in np.ndenumerate(array):  # NumPy's own conversion would make NaN of None
            try:
                floats[where] = _as_float(value)
            except (TypeError, ValueError, OverflowError) as error:
                place = _in_column(x, where)
                raise TypeError(
                    f"{name} must be a real array, got dtype object: {error}{place}; convert it to numbers first"
                ) from None
        return floats
    if array.dtype.kind not in "fiub":
        place = _in_column(x, (0, 0))
        raise TypeError(f"{name} must be a real array, got dtype {array.dtype}{place}; convert it to numbers first")
    if array.dtype.kind == "b" and array.ndim == 0:
        raise TypeError(f"{name} must be a number or an array of numbers, got {array[()]}; pass 1.0 or 0.0")
    if array.dtype in FLOATS:
        return array
    with np.errstate(over="ignore"):
        floats = array.astype(np.float64)
    if array.dtype.kind == "f" and (lost := np.isinf(floats) & (floats != array)).any():  # a long double
        raise ValueError(f"{name} must hold numbers within the range of float64, got {array[lost][0]!s}; rescale it")
    return floats


def _as_float(value: Any) -> float:
    """One element of an array of objects as a float; pandas.NA becomes NaN, and text is refused."""
    if isinstance(value, str | bytes):
        raise TypeError(f"could not convert string to float: {value!r:.60}")
    number = float("nan") if type(value).__name__ == "NAType" else float(value)
    if np.isinf(number) and number != value:
        raise OverflowError(f"{value!r:.60} is beyond the range of float64")
    return number


def _in_column(x: Any, where: tuple[int, ...]) -> str:
    """The column of an element as a part of an error message, if x is a data frame."""
    return f", in column {list(x.columns)[where[1]]!r:.60}" if _is_frame(x) and len(where) == 2 else ""


def _is_frame(x: Any) -> bool:
    """Whether x is a data frame of pandas, polars or a library like them; none of them is imported."""
    return not isinstance(x, np.ndarray) and isinstance(getattr(x, "columns", None), Iterable)


def column_names(x: Any, name: str = "x") -> tuple[str, ...] | None:
    """Names of the columns of a data frame; None for an array, and for a frame whose names are not text, as 0, 1, ….

    The rule and the first error are scikit-learn's.

    Raises
    ------
    TypeError
        If some names are text and others are not.
    ValueError
        If a name occurs twice.
    """
    names = list(x.columns) if _is_frame(x) else []
    kinds = sorted({"str" if isinstance(label, str) else type(label).__name__ for label in names})
    if "str" not in kinds:
        return None
    if len(kinds) > 1:
        raise TypeError(
            f"{name} must have column names of one kind. Feature names are only supported if all input features have "
            f"string names, but your input has {kinds} as feature name / column name types; "
            f"{name}.columns = {name}.columns.astype(str) makes all of them text"
        )
    seen = set[str]()
    for label in names:
        if label in seen:
            raise ValueError(f"{name} must have a different name for every column, but {label!r:.60} occurs twice")
        seen.add(label)
    return tuple(map(str, names))


def check_columns(names: tuple[str, ...] | None, fitted: tuple[str, ...] | None, name: str = "x") -> None:
    """Raise ValueError if both have column names, and they differ or have another order; the words are scikit-learn's.

    None stands for no names: a model that was fitted to a frame accepts an array, whose columns are taken in order.
    """
    if names is None or fitted is None or names == fitted:
        return

    def some(title: str, labels: set[str]) -> str:
        lines = [f"- {label:.60}\n" for label in sorted(labels)[:5]] + ["- ...\n"] * (len(labels) > 5)
        return f"{title}:\n{''.join(lines)}" if labels else ""

    unseen, missing = set(names) - set(fitted), set(fitted) - set(names)
    differences = some("Feature names unseen at fit time", unseen)
    differences += some("Feature names seen at fit time, yet now missing", missing)
    raise ValueError(
        f"{name} must have the columns of fit. The feature names should match those that were passed during fit.\n"
        + (differences or "Feature names must be in the same order as they were in fit.\n")
        + f"Pass {name}[list(model.feature_names_in_)], or {name}.to_numpy() if the same columns have other names"
    )


@functools.cache
def _axes(spec: str) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Name, whether None is allowed, and axes of every array of a specification."""
    found = re.findall(r"(\w+)(\?)? \(([^)]*)\)", spec)
    return [(name, bool(optional), tuple(re.findall(r"[^,\s]+", axes))) for name, optional, axes in found]


def as_arrays(spec: str, *values: Any, **lengths: int) -> Any:
    """Return values as arrays of real numbers whose shapes are as `spec` says: one array, or a tuple of them.

    NaN and inf pass: training and samplers look for them, and say where they come from.  Ints become float64.

    Parameters
    ----------
    spec : str
        Names and axes, "x (N, D), mean (D,), noise? (N, D)".  Axes with one letter must have one length; "..." stands
        for any further axes, which must broadcast; an array with "?" may be None.
    values
        One for each name.
    lengths
        Known lengths, such as D=2.

    Raises
    ------
    TypeError, ValueError
        If a value is not an array of real numbers, or its shape is another.
    """
    shapes = []
    for value in values:  # a loop takes half the time of `all`
        if type(value) is not np.ndarray or value.dtype not in FLOATS:
            named = zip(_axes(spec), values, strict=True)
            values = tuple(None if may and v is None else as_real(v, name) for (name, may, _), v in named)
            shapes = [None if value is None else value.shape for value in values]
            break
        shapes.append(value.shape)
    if error := _wrong_shape(spec, *shapes, **lengths):
        raise ValueError(error)
    return values[0] if len(values) == 1 else values


@functools.lru_cache(maxsize=4096)  # every step of training asks for the same shapes
def _wrong_shape(spec: str, *shapes: tuple[int, ...] | None, **lengths: int) -> str | None:
    """The error for the first shape that is not as `spec` says, with the remedy; None if all shapes are right."""
    before = dict[tuple[str, ...], tuple[str, tuple[int, ...]]]()
    leading: tuple[int, ...] = ()
    for (name, _, axes), shape in zip(_axes(spec), shapes, strict=True):
        if shape is None:
            continue
        own, ends = axes, shape
        if axes[:1] == ("...",):
            n = max(len(shape) - len(axes) + 1, 0)
            own, ends = axes[1:], shape[n:]
            try:
                leading = np.broadcast_shapes(leading, shape[:n])
            except ValueError:
                others = " and ".join(f"{other} {size}" for other, size in before.values())
                return f"{name} must broadcast with {others}, got shape {shape}; pass arrays of one shape"
        elif axes in before and before[axes][1] != shape:
            return f"{name} must have the shape of {before[axes][0]}, {before[axes][1]}, got {shape}"
        seen = dict(lengths)
        if len(ends) != len(own) or any(seen.setdefault(a, n) != n for a, n in zip(own, ends, strict=True)):
            wanted = f"({', '.join(axes)}{',' * (len(axes) == 1)})"
            if all(axis in lengths for axis in axes):
                wanted += f" = {tuple(lengths[axis] for axis in axes)}"
            return f"{name} must have shape {wanted}, got shape {shape}; {_advice(name, axes, shape)}"
        lengths = seen
        before.setdefault((*axes, name) if axes[:1] == ("...",) else axes, (name, shape))
    return None


def _advice(name: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> str:
    """How an array gets the number of axes that is wanted."""
    if len(shape) == len(axes) + 1 and shape[-1] == 1:
        return f"{name}[..., 0] drops the last axis"
    if len(shape) > len(axes) == 2:
        return f"{name}.reshape(len({name}), -1) makes one row of every example"
    return f"one example is {name}[None]" if len(shape) == len(axes) - 1 else "pass arrays of one size"


def as_draws(spec: str, draws: Any, **lengths: int) -> Iterator[Array]:
    """Yield arrays of one shape, one at a time: the elements of an array, or the arrays that an iterator yields.

    An iterator may draw each array when it is used, so that memory does not grow with their number.

    Parameters
    ----------
    spec : str
        Name and axes of all of them as one array, "noise (T, N, D)".
    draws : array or iterator of arrays
    lengths
        Lengths of all axes.

    Raises
    ------
    TypeError, ValueError
        If there are more or fewer arrays than the first axis says, or one is not an array of real numbers of the shape
        of the other axes.
    """
    if not isinstance(draws, Iterator):
        yield from as_arrays(spec, draws, **lengths)
        return
    [(name, _, (first, *axes))] = _axes(spec)
    seen = 0
    for seen, draw in enumerate(draws, 1):
        if seen <= lengths[first]:
            yield as_arrays(f"{name} ({', '.join(axes)})", draw, **lengths)
    if seen != lengths[first]:
        raise ValueError(f"{name} must yield {first} = {lengths[first]} arrays, got {seen}; draw one for each of them")


def check_type(value: Any, kind: type | tuple[type, ...], name: str, remedy: str = "") -> None:
    """Raise TypeError unless `value` is an instance of a class, or of one of several."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        got = f"the class {value.__name__}; pass an instance" if isinstance(value, type) else f"{value!r:.60}"
        raise TypeError(f"{name} must be a {names}, got {got}{'; ' * bool(remedy)}{remedy}")


def check_rng(rng: Any) -> None:
    """Raise TypeError unless rng is a Generator; given draws come from a subclass of it."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r:.60}; pass numpy.random.default_rng(seed)")


def check_flag(value: Any, name: str) -> None:
    """Raise TypeError unless value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_callable(f: Any, name: str, usage: str) -> None:
    """Raise TypeError unless f is a function; `usage` describes its arguments and its result for the message."""
    if not callable(f) or isinstance(f, type):
        raise TypeError(f"{name} must be a function, {usage}, got {f!r:.60}")


def check_probabilities(p: Array, name: str, axis: int | tuple[int, ...] | None = -1) -> None:
    """Raise ValueError unless p holds finite numbers >= 0, and its sums along `axis`, unless None, are 1 to 1e-6."""
    right = (p >= 0) & (p < np.inf)
    if not right.all():
        raise ValueError(f"{name} must hold probabilities, none negative, NaN or inf, got {p[~right][0]}")
    if axis is not None and not (np.abs(p.sum(axis=axis) - 1) <= 1e-6).all():
        raise ValueError(
            f"{name} must sum to 1 along axis {axis}, got sums {p.sum(axis=axis)!r:.60}; divide by the sums"
        )


def normalised(p: Array) -> Array:
    """p divided by its sums along the last axis; a sum that is 1 but for rounding stays, so that copies are equal."""
    total = p.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(np.abs(total - 1) > 1e-14, p / total, p))


def check_symmetric(matrices: Array, name: str) -> None:
    """Raise ValueError unless finite matrices, (..., D, D), are symmetric to 1e-8 of their largest element."""
    if matrices.shape[-1] != matrices.shape[-2]:
        raise ValueError(f"{name} must be square in its last two axes, got shape {matrices.shape}; pass (..., D, D)")
    if not np.isfinite(matrices).all():
        raise ValueError(f"{name} must be finite, got NaN or inf; look for a division by 0")
    size = np.abs(matrices).max(axis=(-2, -1), keepdims=True)
    if (np.abs(matrices - matrices.swapaxes(-1, -2)) > 1e-8 * size).any():
        raise ValueError(f"{name} must be symmetric; use 0.5 * (C + C.T)")


def as_covariances(spec: str, *values: Any, **lengths: int) -> Any:
    """`as_arrays` for covariances, (..., D, D); ValueError unless all are symmetric and positive definite."""
    arrays = as_arrays(spec, *values, **lengths)
    for (name, *_), C in zip(_axes(spec), arrays if isinstance(arrays, tuple) else (arrays,), strict=True):
        check_symmetric(C, name)
        try:
            np.linalg.cholesky(C)
        except np.linalg.LinAlgError:
            least = float(np.linalg.eigvalsh(C).min())
            raise np.linalg.LinAlgError(
                f"{name} must be positive definite, but its least eigenvalue is {least:.3g}; raise it"
            ) from None
    return arrays


def as_finite(x: ArrayLike, name: str, *, missing: bool = False, remedy: str = "drop or impute NaN and inf") -> Array:
    """Return `x` as a real, finite, floating-point array; float32 stays float32, every other dtype becomes float64.

    The errors contain the phrases that scikit-learn's `check_estimator` looks for.

    Parameters
    ----------
    x : array_like of any shape
    name : str
        Name of the argument, for the error messages.
    missing : bool
        Whether NaN is accepted, as a missing value.
    remedy : str
        End of the error message for other numbers.

    Raises
    ------
    TypeError
        If x is sparse, or its elements are not numbers.
    ValueError
        If x is complex, ragged, or has an infinite element, or a NaN that is not accepted.
    """
    array = as_real(x, name)
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    if not is_finite(array) and (wrong := np.isinf(array) if missing else ~np.isfinite(array)).any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{name} must be finite, but {name}[{', '.join(map(str, where))}] is {array[where]}; {remedy}")
    return array


def is_finite(array: Array) -> bool:
    """Whether all elements of an array are finite numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()  # a finite sum means finite elements: one pass, and no array of the length of the data
    return bool(np.isfinite(total) or np.isfinite(array).all())


def has_missing(x: Array) -> bool:
    """Whether an element of x, from `as_samples`, is NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = x.sum()  # without NaN one pass, and no array of the length of the data
    return bool(np.isnan(total) and np.isnan(x).any())


def as_samples(
    x: ArrayLike,
    name: str = "x",
    *,
    dimension: int | None = None,
    n_min: int = 1,
    model: str = "the model",
    missing: bool = False,
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
    missing : bool
        Whether NaN is accepted, as a missing value.

    Raises
    ------
    TypeError
        If x is sparse, or its elements are not numbers.
    ValueError
        If x is not two-dimensional, not finite or complex; if N is below `n_min`; if D is 0 or not `dimension`; if an
        element is larger than 1e60 in size, so that products of squares could overflow.
    """
    remedy = "drop or impute NaN and inf"
    if name == "x":  # data, and not a parameter such as centres
        remedy = "drop inf, or pass NaN for a missing value" if missing else NO_MISSING
    array = as_finite(x, name, missing=missing, remedy=remedy)
    if array.ndim > 2:
        raise ValueError(
            f"{name} must have shape (N, D), got shape {array.shape}. Reshape your data: "
            f"{name}.reshape(len({name}), -1) makes one row of every example"
        )
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
    squares = (np.vdot(part, part) for part in (array[rows] for rows in blocks(*array.shape)))  # `vdot` may copy
    if not float(sum(squares)) <= LARGEST**2:
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


def constant_columns(x: Array) -> IntArray:
    """Indices of the columns of x, (N, D), that are constant, or vary only by rounding in the dtype of x."""
    low, high = x.min(axis=0), x.max(axis=0)  # no array of the length of the data
    return np.flatnonzero(high - low <= 8 * np.finfo(x.dtype).eps * np.maximum(np.abs(low), np.abs(high)))


def check_varies(x: Array, remedy: str) -> None:
    """Raise ValueError, which names the first one and ends with `remedy`, if a column of x, (N, D), is constant."""
    constant = constant_columns(x)
    if len(constant):
        d = constant[0]
        rounding = f", but for rounding beside {x[0, d]:.3g}" if np.ptp(x[:, d]) else ""
        raise ValueError(
            f"x must vary in every column (n_samples={len(x)}), but column {d} is constant{rounding}; {remedy}"
        )


def as_sample_weight(sample_weight: ArrayLike | None, n: int) -> Array:
    """Return the weights of n rows, (n,), float64; None is a weight of 1 for every row.

    Raises
    ------
    TypeError
        If the weights are not numbers.
    ValueError
        If their shape is not (n,), one is negative or not finite, or their sum is not in [1e-60, 1e60].
    """
    if sample_weight is None:
        return np.broadcast_to(1.0, n)  # one number for all rows: no array of the length of the data
    weights = as_finite(sample_weight, "sample_weight").astype(np.float64, copy=False)
    if weights.shape != (n,):
        raise ValueError(
            f"sample_weight must have shape (N,) = ({n},), one weight for each row of x, got shape {weights.shape}; "
            "pass an array with one axis, or None for equal weights"
        )
    if n and weights.min() < 0:
        row = int(weights.argmin())
        raise ValueError(
            f"sample_weight must not be negative, but sample_weight[{row}] is {weights[row]}; pass 0 to leave a row out"
        )
    if not SMALLEST <= weights.sum() <= LARGEST:
        raise ValueError(
            f"sample_weight must not be zero for all rows, and its sum must be in [1e-60, 1e60], got the sum "
            f"{weights.sum():.3g}; pass positive weights for the rows to use, of size 1 or so"
        )
    return weights


def weighted_rows(x: Array, sample_weight: ArrayLike | None) -> tuple[Array, Array]:
    """Rows of x, (N, ...), with a positive weight, and their weights; errors as for `as_sample_weight`."""
    weights = as_sample_weight(sample_weight, len(x))
    if weights.min() > 0:
        return x, weights
    seen = weights > 0
    return x[seen], weights[seen]


def check_spread(x: Array, variances: Array) -> None:
    """Raise ValueError if a column of x, (N, D), varies but its variance, (D,), underflows."""
    low = variances < np.finfo(np.float64).tiny
    if low.any() and (lost := np.flatnonzero(low & (np.ptp(x, axis=0) > 0))).size:
        d, spread = lost[0], np.ptp(x, axis=0)
        raise ValueError(
            f"x must vary by more than 1e-153, since squares of smaller numbers underflow, but column {d} varies by "
            f"{spread[d]:.2g}; use smaller units, so that the numbers are larger"
        )


MOST = 10**9  # count of anything: more would not fit into memory


def as_count(value: Any, name: str, *, minimum: int = 1, maximum: int = MOST) -> int:
    """Return `value` as an int in minimum..maximum.

    Raises
    ------
    TypeError
        If value is not an integer; a bool, a duration and a float such as 2.0 are refused.
    ValueError
        If value is below `minimum` or above `maximum`.
    """
    if type(value) is int and minimum <= value <= maximum:
        return value
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r:.60}; pass an int")
    number = int(value)
    if not -1e300 < number < 1e300:  # Python prints no ints of more than 4300 digits
        raise ValueError(f"{name} must be in {minimum}..{maximum}, got an int of size above 1e300; pass a smaller one")
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}; raise it")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {number:.6g}; lower it")
    return number


def as_number(value: Any, name: str, *, low: float = -np.inf, high: float = np.inf, open_low: bool = False) -> float:
    """Return `value` as a finite float in [low, high], or in (low, high] with `open_low`.

    Raises
    ------
    TypeError
        If value is not a real number; a bool and a duration are refused.
    ValueError
        If value is NaN, infinite, beyond the range of float64 or outside the interval.
    """
    if type(value) is float and low < value < high:
        return value
    if not is_integer(value) and not isinstance(value, float | np.floating):
        raise TypeError(f"{name} must be a number, got {value!r:.60}; pass a float")
    try:
        number = float(value)  # inf for a long double of NumPy beyond the range of float64
    except OverflowError:  # an int beyond that range
        number = float("inf") if value > 0 else -float("inf")
    if not np.isfinite(number) or number < low or number > high or (open_low and number == low):
        finite = "" if np.isfinite(number) else " and finite"
        raise ValueError(f"{name} must be in {'(' if open_low else '['}{low}, {high}]{finite}, got {number}")
    return number


def as_scale_and_std(scale: Any, std: Any, least: float = 0.0) -> tuple[float, float]:
    """Coefficients of scale · x + std · ε as floats whose squares are exact to rounding.

    Raises
    ------
    TypeError, ValueError
        If |scale| is above 1e60, std is outside [least, 1e60], or both are below 1e-60, but for scale = std = 0.
    """
    scale = as_number(scale, "scale", low=-LARGEST, high=LARGEST)
    std = as_number(std, "std", low=least, high=LARGEST)
    if 0 < max(abs(scale), std) < SMALLEST:
        raise ValueError(
            f"scale or std must be at least {SMALLEST:g} in size, since their squares would underflow, got "
            f"{scale} and {std}; multiply both by one number"
        )
    return scale, std


def as_units(mean: ArrayLike, scale: ArrayLike, D: int) -> tuple[Array, Array]:
    """Return a mean and a positive scale of D columns, (D,) each, as float64; TypeError or ValueError."""
    check_positive(scale, "scale")
    pair = as_arrays("mean (D), scale (D)", as_finite(mean, "mean"), as_finite(scale, "scale"), D=D)
    return pair[0].astype(np.float64), pair[1].astype(np.float64)


def as_floors(floor: Any, name: str, D: int) -> Array:
    """Return the floor of D columns, (D,), from one number >= 0 for all of them, or from D numbers above 0."""
    if as_array(floor, name).ndim == 0:
        return np.full(D, as_number(floor, name, low=0.0))
    floors: Array = as_arrays(f"{name} (D)", floor, D=D)
    check_positive(floors, name)
    return floors


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


def check_not_empty(array: Array, name: str) -> None:
    """Raise ValueError if an array has no elements."""
    if not array.size:
        raise ValueError(f"{name} must have at least one element on every axis, got shape {array.shape}; pass numbers")


def check_positive(value: ArrayLike, name: str, remedy: str = "pass numbers above 0") -> None:
    """Raise ValueError unless every number of `value`, of any shape, is positive and finite; NaN is refused."""
    array = as_real(value, name)
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
    scalar = isinstance(value, np.ndarray) and value.ndim == 0
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray) or scalar:
        raise TypeError(f"{name} must be a sequence of layer widths, got {value!r:.60}; one layer of 64 is (64,)")
    return tuple(as_count(width, f"{name}[{i}]") for i, width in enumerate(value))


def as_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`; raise ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        meant = [c for c in choices if isinstance(value, str) and c.lower() == value.lower()]
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r:.60}{hint}")
    return value


def check_levels(x: ArrayLike, n_levels: int, name: str = "x") -> None:
    """Raise ValueError unless x, of any shape, holds whole numbers 0..n_levels−1; NaN is refused."""
    x = as_real(x, name)
    rows = np.atleast_1d(x)
    for block in blocks(len(rows), max(rows[:1].size, 1)):
        part = rows[block]
        right = (part == np.rint(part)) & (part >= 0) & (part < n_levels)
        if right.all():
            continue
        first, *others = (int(i) for i in np.argwhere(~right)[0])
        where = (block.start + first, *others) if x.ndim else ()
        element = f"{name}[{', '.join(map(str, where))}]" if where else name
        negative = " (Negative values in data)" if x[where] < 0 else ""  # scikit-learn looks for this phrase
        raise ValueError(
            f"{name} must hold whole numbers in 0..{n_levels - 1}, as n_levels says, but {element} is {x[where]}"
            f"{negative}; raise n_levels, or use a model of real numbers (n_levels=None, or GaussianMixture)"
        )


def as_labels(labels: ArrayLike, n: int, n_labels: int, name: str = "labels", first: int = 0) -> IntArray:
    """Return labels as an int array (n,); TypeError or ValueError unless they are ints in first..n_labels−1."""
    if labels is None:
        raise ValueError(f"{name} must be {n} int labels, got None; number the classes 0, 1, …")
    as_real(labels, name)  # refuses text, masked, sparse and ragged arrays
    array = np.asarray(labels)
    if array.shape != (n,):
        raise ValueError(
            f"{name} must have the shape ({n},), one label an example, got {array.shape}; pass {n} labels, without "
            "further axes"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold ints, got dtype {array.dtype}; number the classes 0, 1, …")
    if n and (array.min() < first or array.max() >= n_labels):
        raise ValueError(
            f"{name} must be in {first}..{n_labels - 1}, got {array.min()}..{array.max()}; number them 0, 1, …"
        )
    return array.astype(np.int64, copy=False)  # NO_LABEL is negative, which unsigned ints cannot hold


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


def column(value: ArrayLike, like: Array, name: str = "t, s or std") -> Array | float:
    """Return one number, or one number a row, as a factor for `like`, (N, D), that keeps the dtype of `like`.

    A number becomes a Python float, because a float64 scalar of NumPy would turn float32 arrays into float64.  An array
    of shape (N,) or (N, 1) becomes (N, 1) in the dtype of `like`; ValueError for other shapes, TypeError for text.
    """
    array, like = as_real(value, name), np.asarray(like)
    if array.ndim == 0:
        return float(array)
    if array.size != len(array) or len(array) not in (1, len(like)):
        raise ValueError(
            f"{name} must be one number, or one number a row of the shape ({len(like)},), got the shape {array.shape}"
        )
    return array.reshape(-1, 1).astype(like.dtype if like.dtype.kind == "f" else np.float64, copy=False)
