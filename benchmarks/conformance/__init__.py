"""Checks of `scratchgen.conformance` on the code of real frameworks: `python -m benchmarks.conformance`."""

from __future__ import annotations

from typing import NamedTuple

from scratchgen.conformance import Check

SINGLE = 1e-5  # tolerance for float32: the unit roundoff 2⁻²⁴ = 6e-8 times the error growth of a sum and a root


class Finding(NamedTuple):
    """One check of one object of a framework."""

    framework: str
    what: str  # the object and its settings
    check: Check
    cause: str = ""  # the reason of a failure, if known; a failure without a reason fails the run
    tolerance: float | None = None  # replaces the tolerance of the check, for a framework with fewer digits

    @property
    def judged_at(self) -> float:
        return self.check.tolerance if self.tolerance is None else self.tolerance

    @property
    def passed(self) -> bool:
        return self.check.residual <= self.judged_at

    @property
    def verdict(self) -> str:
        if self.passed:
            return "passes" if not self.cause else "PASSES, expected to fail"
        return "fails" if self.cause else "FAILS, cause unknown"

    @property
    def surprising(self) -> bool:
        return self.passed == bool(self.cause)
