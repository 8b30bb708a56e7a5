"""What a check returns, and how a disagreement is turned into a sentence.

A check computes one quantity by the implementation under test (left) and by an independent route (right).  When they
disagree, left is held against what well-known mistakes would have given; the nearest one, if it fits, is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.validation import Array, as_number

Mistakes = Mapping[str, Callable[[], ArrayLike]]  # what it is → what it would have given; computed on failure only

NAMELESS = "no mistake known here gives these numbers"
SINGLE = "it agrees to 32 bits only; `at(1e-5)` judges code that computes in them"
FITS = 0.01  # a mistake explains a failure if it brings the residual down to this part of it


@dataclass(frozen=True, eq=False)
class Check:
    """One equation, both of its sides.

    Attributes
    ----------
    name : str
        The check's function.
    equation : str
        The deck's number, as "(25)".
    quantity : str
        What is compared.
    left, right : arrays of one shape
        By the implementation under test, and by the independent route.
    residual : float
        max |left − right|/(1 + |right|), or max |left − right|/|right| where the check says so; inf if a shape is wrong
        or a value is not finite.
    tolerance : float
        Multiples of what rounding and the right side's own route cost.
    diagnosis : str
        Empty if passed; else what differs, by how much, and the mistake that would give these numbers, if it is known.
    """

    name: str
    equation: str
    quantity: str
    left: Array
    right: Array
    residual: float
    tolerance: float
    diagnosis: str

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
        """The same comparison judged at another tolerance: 1e-5 suits code that computes in 32 bits."""
        tolerance = as_number(tolerance, "tolerance", low=0.0)
        left, right = self.sides
        found = self.diagnosis or f"{self.quantity} is {left:.17g}, expected {right:.17g}"
        return replace(self, tolerance=tolerance, diagnosis="" if self.residual <= tolerance else found)

    @property
    def sides(self) -> tuple[float, float]:
        """Left and right where they differ most (nan, nan if the shapes differ)."""
        if self.left.shape != self.right.shape or self.left.size == 0:
            return float("nan"), float("nan")
        worst = np.unravel_index(_distance(self.left, self.right, False).argmax(), self.left.shape)
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
) -> Check:
    """Check left against right; on failure look for the mistake that explains left best.

    `first` is what the diagnosis calls the first row: 1 where rows are the steps t = 1..T.
    """
    left, right = _as_array(left), np.asarray(right, dtype=np.float64)
    if not np.isfinite(right).all():
        raise ValueError(f"{name}: {quantity} has no finite value for this problem, got {right}; use another one")
    residual = _residual(left, right, relative)
    diagnosis = ""
    if not residual <= tolerance:
        diagnosis = _diagnose(
            quantity, left, right, residual, {**(mistakes or {}), **_symptoms(right)}, relative, first
        )
    return Check(name, equation, quantity, left, right, residual, tolerance, diagnosis)


def _as_array(value: ArrayLike) -> Array:
    """`value` as float64; parts of different shapes become an empty array, which no right side is."""
    try:
        return np.asarray(value, dtype=np.float64)
    except ValueError:
        return np.empty(0)


def worst(*checks: Check) -> Check:
    """Of several comparisons the one that fails most, a mistake that is known before one that is not."""
    named = [check for check in checks if not check.passed and not check.diagnosis.endswith((NAMELESS, SINGLE))]
    return max(named or checks, key=lambda check: check.residual / check.tolerance)


def _distance(left: Array, right: Array, relative: bool) -> Array:
    """|left − right| in units of 1 + |right| or |right|; 0 where they are equal, infinite or not."""
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.abs(left - right) / (np.abs(right) if relative else 1 + np.abs(right))
    return np.where(left == right, 0.0, np.where(np.isfinite(distance), distance, np.inf))


def _residual(left: Array, right: Array, relative: bool) -> float:
    if left.shape != right.shape:
        return float("inf")
    return float(_distance(left, right, relative).max(initial=0.0))


def _symptoms(right: Array) -> dict[str, Callable[[], ArrayLike]]:
    """Mistakes that can befall any quantity."""
    symptoms: dict[str, Callable[[], ArrayLike]] = {
        "the sign is wrong": lambda: -right,
        "it is the exponential of the right value: a logarithm is missing": lambda: np.exp(right),
        "it is twice the right value": lambda: 2 * right,
        "it is half the right value": lambda: right / 2,
        "it is the square of the right value, a variance in place of a standard deviation": lambda: right**2,
        "it is zero": lambda: np.zeros_like(right),
    }
    if (right >= 0).all():
        symptoms["it is the root of the right value, a standard deviation in place of a variance"] = lambda: right**0.5
    if right.size > 1:
        symptoms["it is the right value divided by the number of terms: a mean in place of a sum"] = lambda: (
            right / right.shape[-1]
        )
    return symptoms


def _diagnose(
    quantity: str, left: Array, right: Array, residual: float, mistakes: Mistakes, relative: bool, first: int
) -> str:
    if left.shape != right.shape:
        return f"{quantity} has shape {left.shape}, expected {right.shape}"
    where = np.unravel_index(_distance(left, right, relative).argmax(), left.shape)
    place = f"[{', '.join(str(int(i) + first * (axis == 0)) for axis, i in enumerate(where))}]" if where else ""
    found = f"{quantity}{place} is {left[where]:.6g}, expected {right[where]:.6g}"
    if not np.isfinite(left).all():
        return found
    with np.errstate(all="ignore"):
        fits = {sentence: _fit(left, wrong(), relative) for sentence, wrong in mistakes.items()}
    sentence = min(fits, key=lambda key: fits[key])
    if fits[sentence] > FITS * residual:
        return f"{found}; {SINGLE if residual < 2e-6 else NAMELESS}"
    return f"{found}; {sentence}"


def _fit(left: Array, wrong: ArrayLike, relative: bool) -> float:
    """Residual of left against a wrong value, which may broadcast; inf if that is no number."""
    wrong = np.asarray(wrong, dtype=np.float64)
    try:
        wrong = np.broadcast_to(wrong, left.shape)
    except ValueError:
        return float("inf")
    return _residual(left, wrong, relative)
