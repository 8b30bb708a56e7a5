"""One case of a battery: a wrong implementation with its mistake, or a right implementation."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scratchgen.conformance import Check
from scratchgen.conformance.reference_chain import CANCELS
from scratchgen.conformance.result import ALSO, MINUS, NAMELESS, PLUS, SINGLE, TIMES


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


def cases_of(battery: str, kind: str) -> list[Wrong] | list[Right]:
    """The cases of all modules of a battery, "first" to "fifth", and of a kind, "wrong" or "right"."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob(f"{battery}_{kind}*.py"))
    return [case for name in modules for case in importlib.import_module(f"tests.battery.{name}").CASES]


def verdict(case: Wrong) -> str:
    """ "passed", "silent", "named" or "named wrongly": the judgement of a check on a wrong implementation."""
    return judged(case.run(), case.words)


def told_by(check: Check) -> list[str]:
    """The parts of a diagnosis that say what the numbers are."""
    text = check.diagnosis.replace(CANCELS, "").replace(SINGLE, NAMELESS)
    return [part for found in text.split(ALSO) for part in found.split("; ")[1:] if part != NAMELESS]


def judged(check: Check, words: tuple[str, ...]) -> str:
    """`verdict` for the result of a check and the phrases that name the mistake."""
    if check.passed:
        return "passed"
    told = told_by(check)
    if any(phrase in "; ".join(told) for phrase in words):
        return "named"
    return "named wrongly" if any(not is_fact(part) for part in told) else "silent"


def is_fact(part: str) -> bool:
    """Whether a part of a diagnosis says what the numbers are, and no mistake: "it is 5 times the right value"."""
    return any(fact in part for fact in (TIMES, PLUS, MINUS))
