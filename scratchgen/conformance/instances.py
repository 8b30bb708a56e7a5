"""Several instances of one problem: mistakes at each of them, the condition number in a tolerance, and an argmin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.returns import numbers
from scratchgen.validation import Array

EPS = float(np.finfo(np.float64).eps)
DISTINCT = 1e-5  # candidates whose objectives differ by less than this fraction do not count: float32 cannot order them


def rounding(condition: ArrayLike, least: float = 5e-14) -> float:
    """The tolerance of a problem with this condition number: 64 machine epsilons times it, and at least `least`.

    It is at most 1e-4.  A wider tolerance would let mistakes pass: with a condition number above 1e10 no code has more
    than four right digits, and another problem is the better test.
    """
    return min(max(least, 64 * EPS * float(np.max(condition))), 1e-4)


def by_entry(condition: ArrayLike, right: ArrayLike, least: float = 5e-14) -> tuple[float, Array]:
    """The tolerance and the unit of `compare` with which every entry is judged by its own condition number.

    `condition` broadcasts to right.  The tolerance is that of the entry with the smallest condition number; an entry
    with a larger one has a larger unit.
    """
    right = np.asarray(right, dtype=np.float64)
    each = np.clip(64 * EPS * np.broadcast_to(np.asarray(condition, dtype=np.float64), right.shape), least, 1e-4)
    tolerance = float(each.min(initial=1e-4))
    return tolerance, (1 + np.abs(right)) * each / tolerance


def result(value: Any, what: str) -> Array:
    """The return value of the callable `what` as float64; raise ValueError if it is not an array of numbers."""
    return numbers(value, f"{what} must return a number or an array")


def at_each(
    instances: Sequence[tuple[Any, ...]], mistakes: Mapping[str, Callable[..., ArrayLike]]
) -> dict[str, Callable[[], ArrayLike]]:
    """The mistakes of `compare`, where left is an array over instances: every mistake is a function of one instance."""

    def values(wrong: Callable[..., ArrayLike]) -> Callable[[], ArrayLike]:
        return lambda: [np.asarray(wrong(*instance)) for instance in instances]

    return {sentence: values(wrong) for sentence, wrong in mistakes.items()}


def through(
    f: Callable[[Any], ArrayLike], mistakes: Mapping[str, Callable[[], Any]], prefix: str = ""
) -> dict[str, Callable[[], ArrayLike]]:
    """The mistakes f(value), where value is an earlier quantity with a mistake in it."""

    def later(wrong: Callable[[], Any]) -> Callable[[], ArrayLike]:
        return lambda: f(wrong())

    return {prefix + sentence: later(wrong) for sentence, wrong in mistakes.items()}


def argmin(values: ArrayLike, exact: ArrayLike, candidates: ArrayLike) -> Array:
    """The candidate with the least value, (M,), for values and exact objectives of shape (n_candidates, M).

    Candidates whose exact objective is too near the least one are left out, except for the best of them.
    """
    values, exact = np.asarray(values, dtype=np.float64), np.asarray(exact, dtype=np.float64)
    excess = exact - exact.min(axis=0)
    kept = (excess == 0) | (excess > DISTINCT * (1 + np.abs(exact)))
    return np.asarray(candidates)[np.where(kept, values, np.inf).argmin(axis=0)]
