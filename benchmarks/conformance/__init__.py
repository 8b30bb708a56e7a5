"""Checks of `scratchgen.conformance` on the code of real frameworks: `python -m benchmarks.conformance`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from scratchgen.conformance import Check
from scratchgen.conformance.audit import planned
from scratchgen.conformance.cases import run
from scratchgen.conformance.result import compare

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
        return bool(self.check.residual <= self.judged_at)

    @property
    def verdict(self) -> str:
        if self.passed:
            return "passes" if not self.cause else "PASSES, expected to fail"
        return "fails" if self.cause else "FAILS, cause unknown"

    @property
    def surprising(self) -> bool:
        return self.passed == bool(self.cause)


def audited(framework: str, what: str, causes: Mapping[str, str] | None = None, **given: Any) -> Iterator[Finding]:
    """All checks of `scratchgen.conformance.audit` that apply to the given callables."""
    for item in planned(**given):
        cause = (causes or {}).get(item.argument, "")
        yield Finding(framework, f"{what}: {item.argument}", run(item.case, item.argument), cause)


def order_of(errors: Callable[[int], Any], n_steps: int, nominal: float) -> Check:
    """The order of convergence of a solver, from its largest error with n, 2n and 4n steps; a higher one passes."""
    sizes = np.array([np.abs(errors(n)).max() for n in (n_steps, 2 * n_steps, 4 * n_steps)])
    orders = np.log2(sizes[:-1] / sizes[1:])
    quantity = f"order, from the errors at {n_steps}, {2 * n_steps} and {4 * n_steps} steps"
    return compare("order of convergence", "", quantity, np.minimum(orders, nominal), np.full(2, nominal), 0.05)


def returned(call: Callable[[], Any], like: Any) -> Any:
    """The result of the call; NaN in the shape of `like` if the call raises an error."""
    try:
        return call()
    except Exception:
        return np.full(np.shape(like), np.nan)
