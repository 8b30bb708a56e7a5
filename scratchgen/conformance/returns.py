"""Return values of the code under test as float64 arrays, with errors that say what came and what to return instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from scratchgen.validation import Array

SHORT_DIGITS = {"float16": 3, "bfloat16": 2}


def refuse_objects(value: Any, name: str) -> None:
    """Raise ValueError for a result that no check can read, TypeError for numbers of too few digits."""
    check_digits(value, f"{name} must return float32 or float64")
    if is_object(value):
        raise ValueError(f"{name} must return numbers or arrays, got {described(value)}")


def check_digits(value: Any, wanted: str) -> None:
    """Raise TypeError for an array of float16 or bfloat16."""
    dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if dtype in SHORT_DIGITS:
        raise TypeError(
            f"{wanted}, got {dtype}, which keeps {SHORT_DIGITS[dtype]} digits; run the code in float32 or float64"
        )


def is_object(value: Any) -> bool:
    """Whether a result is None, a text, a mapping, a set, a generator or a sparse array."""
    sized = hasattr(value, "__len__") or hasattr(value, "__array__") or np.isscalar(value)
    return not sized or hasattr(value, "toarray") or isinstance(value, Mapping | Set | str | bytes)


def described(value: Any) -> str:
    """A return value in the text of an error, with a remedy where the kind of value has one."""
    if value is None:
        return "None; does the function end without a return statement?"
    if hasattr(value, "toarray"):
        return f"a sparse {type(value).__name__}; return .toarray()"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {list(value)!r:.60}; return its values as arrays"
    if isinstance(value, Iterable) and not hasattr(value, "__len__") and not hasattr(value, "__array__"):
        return f"a {type(value).__name__}; return a list or an array of its values"
    if isinstance(value, tuple | list):
        shapes = [getattr(part, "shape", None) for part in value[:9]]
        held = (type(v).__name__ if s is None else f"shape {tuple(s)}" for v, s in zip(value, shapes, strict=False))
        return f"a {type(value).__name__} of {len(value)}: {', '.join(held)}{', …' if len(value) > 9 else ''}"
    return f"{type(value).__name__} {value!r:.60}; return an array of real numbers"


def numbers(value: Any, wanted: str) -> Array:
    """`value` as a float64 array; ValueError with the text `wanted`, "f must return …", if it is none of real numbers.

    NumPy alone would make NaN of None, a number of "3", and a real part of a complex number.
    """
    check_digits(value, wanted)
    if is_object(value):
        raise ValueError(f"{wanted}, got {described(value)}")
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = np.array([float(entry) for entry in array.ravel()]).reshape(array.shape)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"its dtype is {array.dtype}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{wanted}, got {type(value).__name__}: {error}; return an array of real numbers") from None
    return array.astype(np.float64, copy=False)


def several(value: Any, n: int, what: str) -> list[Any]:
    """The n return values of the callable `what` as they came; ValueError if there are not n."""
    wanted, remedy = f"{what} must return {n} arrays", f"return a tuple of {n} arrays"
    if value is None or isinstance(value, Mapping) or hasattr(value, "toarray"):
        raise ValueError(f"{wanted}, got {described(value)}")
    if isinstance(value, Set | str | bytes):
        raise ValueError(f"{wanted}, got {type(value).__name__} {value!r:.60}; {remedy}")
    try:
        given = list(value)
    except TypeError:  # a number, or an array of shape ()
        raise ValueError(f"{wanted}, got one {type(value).__name__}, {value!r:.60}; {remedy}") from None
    if len(given) != n:
        raise ValueError(f"{wanted}, got {len(given)} ({type(value).__name__}); {remedy}")
    return given
