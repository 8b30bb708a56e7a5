"""Validation of the arguments of a check, and of the arrays that the callables under test return."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from scratchgen.conformance.result import Check, is_single
from scratchgen.conformance.returns import check_digits, numbers, several
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array

P = ParamSpec("P")
R = TypeVar("R")


class CodeWarning(UserWarning):
    """Warning of code under test, for which no check fails, such as a change of its arguments in place."""


def takes_arrays(check: Callable[P, R]) -> Callable[P, R]:
    """Decorate a check so that lists, tensors and integer arrays among its arguments become float64 arrays.

    Functions among its arguments get copies of their arrays, as `on_copies` says.  If one returns numbers in float32,
    the diagnosis is that for float32.
    """
    return _with_arrays(check, in_place=False)


def takes_arrays_in_place(check: Callable[P, R]) -> Callable[P, R]:
    """`takes_arrays` for a check whose functions may change their arrays in place: an optimiser, an average."""
    return _with_arrays(check, in_place=True)


def _with_arrays(check: Callable[P, R], in_place: bool) -> Callable[P, R]:
    signature = inspect.signature(check)

    @functools.wraps(check)
    def with_arrays(*args: P.args, **kwargs: P.kwargs) -> R:
        bound, singles = signature.bind(*args, **kwargs), set[bool]()
        for name, value in bound.arguments.items():
            if name == "schedule":
                as_schedule(value)
            if inspect.isroutine(value) or isinstance(value, functools.partial):
                bound.arguments[name] = on_copies(value, name, singles, in_place)
            if _is_array(value):
                bound.arguments[name] = np.asarray(value, dtype=np.float64)
        result = check(*bound.args, **bound.kwargs)
        if singles and isinstance(result, Check) and not result.passed:
            return result.told_in_single()
        return result

    return with_arrays


def _is_array(value: Any) -> bool:
    """Whether an argument of a check is an array, or a list or tuple of numbers; names are none."""
    if isinstance(value, list | tuple):
        return not any(isinstance(part, str) for part in value)
    return hasattr(value, "__array__") and not np.isscalar(value)


def on_copies(
    f: Callable[..., Any], name: str, singles: set[bool] | None = None, in_place: bool = False
) -> Callable[..., Any]:
    """`f` called with copies of its arrays, and a `CodeWarning` if it changes one in place and may not.

    True joins `singles` when f returns numbers in float32.
    """

    @functools.wraps(f)
    def watched(*args: Any, **kwargs: Any) -> Any:
        own = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        value = f(*own, **kwargs)
        if not in_place:
            warn_of_changes(f, name, args, own)
        check_digits(value, f"{name} must return float32 or float64")
        if singles is not None and not singles and is_single(value):
            singles.add(True)
        return value

    return watched


def warn_of_changes(f: Callable[..., Any], name: str, before: Sequence[Any], after: Sequence[Any]) -> None:
    """Warn if an array of `after` differs from that of `before`; f is asked for the name of the argument."""
    pairs = enumerate(zip(before, after, strict=True))
    changed = [i for i, (a, b) in pairs if isinstance(a, np.ndarray) and not _same(a, b)]
    if changed:
        try:
            names = list(inspect.signature(f).parameters)
        except (TypeError, ValueError):
            names = []
        which = " and ".join(names[i] if len(names) > i else f"number {i + 1}" for i in changed)
        text = f"{name} changes its argument {which} in place; it got copies, but your own arrays would be overwritten"
        warnings.warn(text, CodeWarning, stacklevel=3)


def _same(a: Any, b: Any) -> bool:
    return a is b or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def as_schedule(value: Any) -> NoiseSchedule:
    """Return `value` if it is a NoiseSchedule; raise TypeError otherwise."""
    if not isinstance(value, NoiseSchedule):
        raise TypeError(
            f"schedule must be a NoiseSchedule, got {'None' if value is None else type(value).__name__}; pass "
            "NoiseSchedule(variances), with the variances of the steps (Ho's betas)"
        )
    return value


def as_probabilities(p: Array, name: str, axis: int | tuple[int, ...] = -1) -> None:
    """Raise ValueError unless every entry of p is positive and p sums to 1 along `axis`."""
    if p.size == 0 or not (np.isfinite(p) & (p > 0)).all():
        raise ValueError(f"{name} must be positive everywhere, so that no logarithm is infinite, got {p}")
    if np.abs(p.sum(axis=axis) - 1).max() > 1e-9:
        raise ValueError(f"{name} must sum to 1 along axis {axis}, got {p.sum(axis=axis)}; divide by the sum")


def as_sigma_squared(sigma_squared: Array, schedule: NoiseSchedule, zero: bool = False) -> Array:
    """Validate the table σ_t², (T+1,), and set its unused index 0 to 0.  `zero` allows steps without noise."""
    table = np.asarray(sigma_squared)
    wrong = table.shape != (schedule.T + 1,) or not ((table[1:] >= 0) if zero else (table[1:] > 0)).all()
    if wrong:
        raise ValueError(
            f"sigma_squared must have {schedule.T + 1} entries, index 0 unused and the others "
            f"{'not negative' if zero else 'positive'}, got {table}"
        )
    return np.concatenate([[0.0], table[1:]])


def returned(value: Any, shape: tuple[int, ...], what: str) -> Array:
    """Convert the return value of a callable under test to float64; raise ValueError if its shape is not `shape`."""
    array = numbers(value, f"{what} must return an array of shape {shape}")
    if array.shape != shape:
        raise ValueError(f"{what} must return an array of shape {shape}, got shape {array.shape}")
    return array


def parts(value: Any, n: int, what: str) -> list[Array]:
    """Convert the n return values of a callable under test to float64 arrays; raise ValueError if there are not n."""
    wanted = f"{what} must return {n} arrays; result {{}} must be an array of real numbers"
    return [numbers(part, wanted.format(i)) for i, part in enumerate(several(value, n, what), start=1)]


def check_callable(f: Any, usage: str) -> None:
    """Raise TypeError unless f can be called as `usage` says: "step(t, x_t, eps_hat, noise); t counts 1..T".

    A callable without a signature, such as a builtin or a compiled module, passes.  The names of its parameters show a
    wrong order: t and s stand where `usage` has them, and no array has their place.
    """
    call = usage[usage.index("(") + 1 : usage.index(")")].split(", ")
    message = f"{usage[: usage.index('(')]} must be callable as {usage}"
    if not callable(f):
        raise TypeError(f"{message}, got {type(f).__name__}")
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*call)
    except TypeError:
        raise TypeError(f"{message}, got a callable with the parameters {signature}") from None
    if len(call) == 1:  # there is one order only
        return
    positional = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    numbers = {"t", "s"} & set(call)
    arrays = set(call) - numbers | {"x", "x0", "x_0", "x_t", "noise", "eps", "eps_hat"}
    for wanted, name in zip(call, positional, strict=False):
        if name in (arrays if wanted in numbers else numbers):
            raise TypeError(f"{message}, got another order of the parameters, {signature}")
