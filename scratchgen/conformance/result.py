"""The result of a check, and the diagnosis of a disagreement.

A check computes one quantity by the implementation under test (left) and by an independent route (right).  If they
disagree, left is compared with the results of well-known mistakes.  A mistake is named only if it gives every number of
left, and if left differs from right at two entries or more.  A mistake of one entry is named if its place is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.returns import numbers
from scratchgen.validation import Array, as_number

Mistakes = Mapping[str, Callable[[], ArrayLike]]  # sentence → the value of this mistake, computed on failure only
Labels = Callable[[tuple[int, ...]], str] | Sequence[Sequence[str]]

NAMELESS = "no known mistake gives these numbers"
AT_SINGLE = "use `at(1e-5)` for code that computes in float32"
SINGLE = f"both sides agree to float32 precision only; {AT_SINGLE}"
EXPLAINS = 10.0, 0.01  # a mistake explains left if its own residual is below these multiples of tolerance and residual
EXPLAINS_SINGLE = 2e-6, 0.01  # the same for left in float32: an absolute bound, and a multiple of the residual
SINGLE_LIMIT = 1e-5  # the largest residual of a right computation in float32
TIMES, PLUS, MINUS = "times the right value", "the right value plus", "the right value minus"  # facts, not mistakes
SHORT = 11  # bits of a mantissa that float16 has: such numbers do not show the precision of a computation
ALSO = ".  Also, "  # between the diagnoses of two comparisons
OR = "; or: "  # between mistakes that give the same numbers


@dataclass(frozen=True, eq=False)
class Check:
    """The two sides of one equation, and the verdict.

    Attributes
    ----------
    name : str
        The function of the check.
    equation : str
        The number in the deck, as "(25)".
    quantity : str
        The quantity that is compared.
    left, right : arrays of one shape
        By the implementation under test, and by the independent route.
    residual : float
        max |left − right|/(1 + |right|), or max |left − right|/|right| where the check says "relative"; inf if a shape
        is wrong or a value is not finite.  Where a right computation loses digits, as 1 − ᾱ² near 1, the denominator is
        larger.
    tolerance : float
        A small multiple of the numerical error of the two computations in float64.
    diagnosis : str
        Empty if the check passed.  Otherwise the value, the expected value, and the mistake that gives this value if
        one is known.
    in_single : str
        The diagnosis if the code under test computes in float32.
    """

    name: str
    equation: str
    quantity: str
    left: Array
    right: Array
    residual: float
    tolerance: float
    diagnosis: str
    unit: Array | None = None
    in_single: str = ""

    @property
    def passed(self) -> bool:
        """Whether the residual is within the tolerance."""
        return self.residual <= self.tolerance

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        verdict = "ok" if self.passed else f"FAILED: {self.diagnosis}"
        return f"{self.name} {self.equation}: residual {self.residual:.1e}, tolerance {self.tolerance:.0e}, {verdict}"

    def at(self, tolerance: float) -> Check:
        """The same comparison at another tolerance.  1e-5 suits code that computes in float32."""
        tolerance = as_number(tolerance, "tolerance", low=0.0)
        left, right = self.sides
        told = self.in_single if tolerance >= SINGLE_LIMIT else ""  # that for float32 is right to 2e-6
        found = told or self.diagnosis or f"{self.quantity} is {left:.17g}, expected {right:.17g}"
        return replace(self, tolerance=tolerance, diagnosis="" if self.residual <= tolerance else found)

    def told_in_single(self) -> Self:
        """The same check with the diagnosis for code that computes in float32."""
        return replace(self, diagnosis=self.in_single or self.diagnosis)

    @property
    def sides(self) -> tuple[float, float]:
        """Left and right where the residual is largest; (nan, nan) if the shapes differ."""
        if self.left.shape != self.right.shape or self.left.size == 0:
            return float("nan"), float("nan")
        unit = 1 + np.abs(self.right) if self.unit is None else self.unit
        worst = np.unravel_index(_distance(self.left, self.right, unit).argmax(), self.left.shape)
        return float(self.left[worst]), float(self.right[worst])


def compare(
    name: str,
    equation: str,
    quantity: str,
    left: ArrayLike,
    right: ArrayLike,
    tolerance: float,
    mistakes: Mistakes | None = None,
    relative: bool = False,
    first: int = 0,
    labels: Labels | None = None,
    unit: ArrayLike | None = None,
    single: str = "",
    places: Mistakes | None = None,
    by_code: bool = False,
) -> Check:
    """Compare left with right; after a failure look for the mistakes that give left.

    `mistakes` maps the sentence of a diagnosis to the value that this mistake gives.  A mistake needs two differing
    entries to be named, so that left should hold several inputs or steps.  `places` are mistakes of one entry, which
    its place identifies, as t = 1.

    `labels` is the text for an entry in the diagnosis: a callable from the index to a whole subject ("t = 10, s = 7:
    factor of ε"), or the names of the entries along each axis, which follow the quantity.  Without labels `first` is
    the index of the first row: 1 if the rows are the steps t = 1..T.

    `unit` is the denominator of the residual, (…) that broadcasts to right, in place of 1 + |right|.  `single` is added
    to the diagnosis of a left that agrees to float32 precision.

    `by_code` says that right contains results of the code under test, as where two of its calls must agree.  A NaN in
    right is then a failure of the code; without `by_code` it is an error in the problem.
    """
    in_float32 = is_single(left)
    left, right = _as_array(left, quantity), np.asarray(right, dtype=np.float64)
    if by_code and not np.isfinite(right).all():
        place = _place(quantity, tuple(int(i) for i in np.argwhere(~np.isfinite(right))[0]), labels, first)
        diagnosis = f"{place}: the code under test returns a number that is not finite, so that there is no comparison"
        return Check(name, equation, quantity, left, right, float("inf"), tolerance, diagnosis)
    if not np.isfinite(right).all():
        raise ValueError(f"{name}: {quantity} has no finite value for this problem, got {right}; use another one")
    if unit is None:
        unit = np.abs(right) if relative else 1 + np.abs(right)
    unit = np.broadcast_to(np.asarray(unit, dtype=np.float64), right.shape)
    if left.shape != right.shape:
        diagnosis = f"{quantity} has shape {left.shape}, expected {right.shape}"
        return Check(name, equation, quantity, left, right, float("inf"), tolerance, diagnosis, unit)
    distance = _distance(left, right, unit)
    residual, diagnosis, shorter = float(distance.max(initial=0.0)), "", ""
    if not residual <= tolerance:
        where = np.unravel_index(distance.argmax(), left.shape)
        place = _place(quantity, tuple(int(i) for i in where), labels, first)
        found = f"{place} is {left[where]:.6g}, expected {right[where]:.6g}"
        reason, other = _reasons(left, right, unit, tolerance, mistakes or {}, places or {}, single)
        diagnosis, shorter = found + (other if in_float32 else reason), found + other
    return Check(name, equation, quantity, left, right, residual, tolerance, diagnosis, unit, shorter)


def is_single(value: Any) -> bool:
    """Whether `value`, or one array of a tuple or list, is in float32, or in float64 with numbers of float32 only."""
    if isinstance(value, tuple | list):
        return any(is_single(part) for part in value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return False
    if array.dtype.kind != "f" or array.dtype.itemsize < 8:
        return array.dtype.kind == "f"
    numbers = array[np.isfinite(array)]
    with np.errstate(over="ignore"):
        if not np.array_equal(numbers.astype(np.float32), numbers):
            return False
    return bool((np.ldexp(np.frexp(numbers)[0], SHORT) % 1 != 0).any())


def _as_array(value: ArrayLike, quantity: str) -> Array:
    """`value` as float64; a ragged list becomes an empty array, which has no valid shape; else ValueError."""
    if isinstance(value, list | tuple):  # arrays of the code under test, which may differ in shape
        try:
            np.asarray(value)
        except ValueError:
            return np.empty(0)
    return numbers(value, f"{quantity} must be an array of real numbers")


def worst(*checks: Check) -> Check:
    """The comparison with the largest ratio of residual to tolerance.

    If no mistake is known for it, but for another failure, then that other diagnosis comes first.
    """
    largest = max(checks, key=_ratio)
    if largest.passed:
        return largest
    failed = [check for check in checks if not check.passed]
    texts = [(check.diagnosis, check.in_single or check.diagnosis) for check in failed]
    first = failed.index(largest)
    diagnosis, in_single = (_joined(first, told, list(map(_ratio, failed))) for told in zip(*texts, strict=True))
    return largest if diagnosis == largest.diagnosis else replace(largest, diagnosis=diagnosis, in_single=in_single)


def first_of(*checks: Check) -> Check:
    """The first comparison if all pass, so that rounding does not choose the one that is shown; else `worst`."""
    return checks[0] if all(checks) else worst(*checks)


def _joined(first: int, texts: Sequence[str], ratios: Sequence[float]) -> str:
    """The text at `first`; if it names no mistake, the text with the largest ratio that does comes before it."""
    named = [i for i, text in enumerate(texts) if not text.endswith((NAMELESS, SINGLE))]
    if not texts[first].endswith((NAMELESS, SINGLE)) or not named:
        return texts[first]
    return f"{texts[max(named, key=lambda i: ratios[i])]}{ALSO}{texts[first]}"


def _ratio(check: Check) -> float:
    return check.residual / check.tolerance


def _place(quantity: str, index: tuple[int, ...], labels: Labels | None, first: int) -> str:
    """The subject of a diagnosis: the quantity and its entry."""
    if callable(labels):
        return labels(index)
    if labels is not None:
        return ", ".join([quantity, *(names[i] for names, i in zip(labels, index, strict=True))])
    place = ", ".join(str(i + first * (axis == 0)) for axis, i in enumerate(index))
    return f"{quantity}[{place}]" if index else quantity


def _distance(left: Array, right: Array, unit: Array) -> Array:
    """|left − right|/unit; 0 where both are equal, including infinities; else inf where it is not finite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        distance = np.abs(left - right) / unit
    return np.where(left == right, 0.0, np.where(np.isfinite(distance), distance, np.inf))


def _symptoms(left: Array, right: Array) -> dict[str, Callable[[], ArrayLike]]:
    """Mistakes that are possible for any quantity.  A clipping leaves two values between its bounds as they are."""
    low, high = left.min(initial=0), left.max(initial=0)
    inside = ((right > low) & (right < high)).sum()
    even = inside > 0 and low == -high and low in (-0.1, -0.5, -1, -2, -5, -10)  # a bound that people write
    symptoms: dict[str, Callable[[], ArrayLike]] = {
        "the sign is wrong": lambda: -right,
        "it is the exponential of the right value: a logarithm is missing": lambda: np.exp(right),
        "it is twice the right value": lambda: 2 * right,
        "it is half the right value": lambda: right / 2,
        "it is the square of the right value": lambda: right**2,
        "it is the right value divided by log 2: bits in place of nats": lambda: right / np.log(2),
        f"every value above {high:.6g} is clipped to it": lambda: np.minimum(right, high if inside > 1 else np.nan),
        f"every value is clipped to [{low:.6g}, {high:.6g}]": lambda: np.clip(
            right, low if inside > 1 or even else np.nan, high if inside > 1 or even else np.nan
        ),
        f"every value below {low:.6g} is clipped to it": lambda: np.maximum(right, low if inside > 1 else np.nan),
    }
    if not left.any():
        symptoms["it is zero"] = lambda: np.zeros_like(right)
    if (right >= 0).all():
        symptoms["it is the root of the right value"] = lambda: right**0.5
    if (right > 0).all():
        symptoms["it is the logarithm of the right value"] = lambda: np.log(right)
    if right.ndim and right.shape[-1] > 2:
        symptoms["it is the right value divided by the number of terms: a mean in place of a sum"] = lambda: (
            right / right.shape[-1]
        )
    return symptoms


def _reasons(
    left: Array, right: Array, unit: Array, tolerance: float, mistakes: Mistakes, places: Mistakes, single: str
) -> tuple[str, str]:
    """The part of a diagnosis after the numbers, for code in float64 and in float32; empty if left is not finite.

    A mistake for any quantity is named only if right has two different values where left is wrong: 4 is both the square
    of 2 and its double.
    """
    if not np.isfinite(left).all():
        return "", ""
    distance = _distance(left, right, unit)
    wrong, residual = distance > tolerance, float(distance.max())
    limits = (
        min(EXPLAINS[0] * tolerance, EXPLAINS[1] * residual),
        min(EXPLAINS_SINGLE[0], EXPLAINS_SINGLE[1] * residual),
    )
    n_values = len(np.unique(np.float32(right[wrong])))
    kinds = (
        ({**places, **mistakes} if wrong.sum() > 1 else places, 1),
        (_symptoms(left, right), 2),
    )
    reasons: list[str] = []
    fits: list[dict[str, float]] = []
    with np.errstate(all="ignore"):
        for known, least in kinds:
            fits.append({text: _fit(left, value(), unit) for text, value in known.items()} if n_values >= least else {})
    for limit in limits:
        found = [[text for text, fit in kind.items() if fit <= limit] for kind in fits]
        reasons.append(next((f"; {OR.join(_widest(texts))}" for texts in found if texts), ""))
    precise, shorter = reasons
    seen = _observation(left, right, unit, limits[0]) if n_values > 2 else ""
    hint = f"; {single}{SINGLE}" if residual <= SINGLE_LIMIT else f"; {seen}{NAMELESS}"
    return precise or f"; {seen}{NAMELESS}", precise or shorter or hint


def _widest(texts: list[str]) -> list[str]:
    """The sentences without special cases and combinations of another: of "a", "a, for b" and "a; c" only "a"."""

    def contains(text: str, other: str) -> bool:
        return text.startswith((f"{other}, ", f"{other}; ")) or text.endswith(f"; {other}")

    return [text for text in texts if not any(contains(text, other) for other in texts)]


def _observation(left: Array, right: Array, unit: Array, limit: float) -> str:
    """The relation of left to right at all entries, without a known cause: a multiple, or a constant difference."""
    where = unit > 0
    x, y = right[where] / unit[where], left[where] / unit[where]
    ratio, more = float(x @ y / (x @ x)), float(np.median(left - right))
    if _fit(left, ratio * right, unit) <= limit:
        number = f"{ratio:.6g}" if abs(ratio - 1) > 1e-3 else f"1 {'+' if ratio > 1 else '−'} {abs(ratio - 1):.3g}"
        return f"it is {number} {TIMES}; "
    if _fit(left, right + more, unit) <= limit:
        return f"it is {PLUS} {more:.6g}; " if more > 0 else f"it is {MINUS} {-more:.6g}; "
    return ""


def _fit(left: Array, wrong: ArrayLike, unit: Array) -> float:
    """Residual of left against a mistake, with broadcasting; inf if the shapes do not fit or it is not finite."""
    wrong = np.asarray(wrong, dtype=np.float64)
    try:
        wrong = np.broadcast_to(wrong, left.shape)
    except ValueError:
        return float("inf")
    return float(_distance(left, wrong, np.maximum(unit, np.abs(wrong))).max(initial=0.0))
