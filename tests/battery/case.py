"""One case of a battery: a wrong implementation with its mistake, or a right implementation."""

from collections.abc import Callable
from typing import NamedTuple

from scratchgen.conformance import Check
from scratchgen.conformance.result import NAMELESS, SINGLE


class Wrong(NamedTuple):
    """An implementation with one mistake, given to one check."""

    name: str  # the mistake in a few words
    run: Callable[[], Check]
    words: tuple[str, ...]  # a diagnosis that contains one of these phrases names the mistake
    slow: bool = False  # takes more than half a second


class Right(NamedTuple):
    """A right implementation, given to one check; code in float32 is judged by `.at(1e-5)` in `run`."""

    name: str  # the convention, precision, schedule, D and T
    run: Callable[[], Check]
    slow: bool = False


def verdict(case: Wrong) -> str:
    """ "passed", "silent", "named" or "named wrongly": the judgement of a check on a wrong implementation."""
    check = case.run()
    if check.passed:
        return "passed"
    if any(phrase in check.diagnosis for phrase in case.words):
        return "named"
    told = [part for part in check.diagnosis.split("; ")[1:] if part not in (NAMELESS, SINGLE)]
    return "named wrongly" if told else "silent"
