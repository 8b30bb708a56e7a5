"""The result of a check, and the diagnosis of a disagreement.

A check computes one quantity by the implementation under test (left) and by an independent route (right).  If they
disagree, left is compared with the results of well-known mistakes.  The diagnosis names the nearest mistake that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.validation import Array, as_number

Mistakes = Mapping[str, Callable[[], ArrayLike]]  # sentence → the value of this mistake, computed on failure only

NAMELESS = "no known mistake gives these numbers"
SINGLE = "both sides agree to float32 precision only; use `at(1e-5)` for code that computes in float32"
FITS = 0.01  # a mistake explains a failure if its own residual is below this fraction of the residual


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
        is wrong or a value is not finite.
    tolerance : float
        A small multiple of the numerical error of the two computations in float64.
    diagnosis : str
        Empty if the check passed.  Otherwise the value, the expected value, and the mistake that gives this value if
        one is known.
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
        """The same comparison at another tolerance.  1e-5 suits code that computes in float32."""
        tolerance = as_number(tolerance, "tolerance", low=0.0)
        left, right = self.sides
        found = self.diagnosis or f"{self.quantity} is {left:.17g}, expected {right:.17g}"
        return replace(self, tolerance=tolerance, diagnosis="" if self.residual <= tolerance else found)

    @property
    def sides(self) -> tuple[float, float]:
        """Left and right at the largest difference; (nan, nan) if the shapes differ."""
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
    """Compare left with right; after a failure look for the mistake that explains left best.

    `mistakes` maps the sentence of a diagnosis to the value that this mistake gives.  `first` is the index of the first
    row in the diagnosis: 1 if the rows are the steps t = 1..T.
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
    """`value` as float64; a ragged list becomes an empty array, which has no valid shape."""
    try:
        return np.asarray(value, dtype=np.float64)
    except ValueError:
        return np.empty(0)


def worst(*checks: Check) -> Check:
    """The comparison with the largest ratio of residual to tolerance; failures with a known mistake come first."""
    named = [check for check in checks if not check.passed and not check.diagnosis.endswith((NAMELESS, SINGLE))]
    return max(named or checks, key=lambda check: check.residual / check.tolerance)


def _distance(left: Array, right: Array, relative: bool) -> Array:
    """|left − right|/(1 + |right|), or |left − right|/|right|; 0 where both are equal, including infinities."""
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.abs(left - right) / (np.abs(right) if relative else 1 + np.abs(right))
    return np.where(left == right, 0.0, np.where(np.isfinite(distance), distance, np.inf))


def _residual(left: Array, right: Array, relative: bool) -> float:
    if left.shape != right.shape:
        return float("inf")
    return float(_distance(left, right, relative).max(initial=0.0))


def _symptoms(right: Array) -> dict[str, Callable[[], ArrayLike]]:
    """Mistakes that are possible for any quantity."""
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
    """Residual of left against the value of a mistake, with broadcasting; inf if the shapes do not fit."""
    wrong = np.asarray(wrong, dtype=np.float64)
    try:
        wrong = np.broadcast_to(wrong, left.shape)
    except ValueError:
        return float("inf")
    return _residual(left, wrong, relative)
