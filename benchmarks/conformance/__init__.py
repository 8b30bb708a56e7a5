"""Code of real frameworks, put through `scratchgen.conformance`: `python -m benchmarks.conformance`."""

from __future__ import annotations

from typing import NamedTuple

from scratchgen.conformance import Check

SINGLE = 1e-5  # tolerance where the framework computes in 32 bits: 2⁻²⁴ = 6e-8, times what a sum and a root cost


class Finding(NamedTuple):
    """One check of one object of a framework."""

    framework: str
    what: str  # the object and its settings
    check: Check
    cause: str = ""  # why it fails, if that is known; a failure without it fails the run
    tolerance: float | None = None  # in place of the check's own, where the framework has fewer digits

    @property
    def judged_at(self) -> float:
        return self.check.tolerance if self.tolerance is None else self.tolerance

    @property
    def passed(self) -> bool:
        return self.check.residual <= self.judged_at

    @property
    def verdict(self) -> str:
        if self.passed:
            return "passes" if not self.cause else "PASSES, was known to fail"
        return "fails" if self.cause else "FAILS, cause unknown"

    @property
    def surprising(self) -> bool:
        return self.passed == bool(self.cause)
