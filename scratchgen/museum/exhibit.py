"""The records of the museum: an exhibit of wing one, an unseen mistake, a fault of wing two."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Planted = TypeVar("Planted", bound=Callable[..., Any])


class Exhibit(NamedTuple):
    """One mistake: its text, its source, the function with the mistake, and the check that finds it."""

    bug: str
    source: str
    function: str  # its name in the table of equations
    planted: Callable[..., Any]
    killer: str


class Unseen(NamedTuple):
    """A mistake that no row sees, and the reason."""

    bug: str
    source: str
    function: str
    planted: Callable[..., Any]
    why: str


COLLECTED: list[Exhibit] = []


def exhibit(bug: str, source: str, function: str, killer: str) -> Callable[[Planted], Planted]:
    """Decorator: add the faulty function below to the exhibits of wing one."""

    def collect(planted: Planted) -> Planted:
        COLLECTED.append(Exhibit(bug, source, function, planted, killer))
        return planted

    return collect


class Fault(NamedTuple):
    """A fault of wing two in running code, and the row or the test that sees it."""

    fault: str
    function: str  # the name for `scratchgen.museum.planting.planted`
    replacement: Callable[..., Any]  # the first argument is the original function
    seen_by: str  # "verify: " and a row of the table of equations, or "tests/…::test_…"

    @property
    def row(self) -> str | None:
        """The name of the row that sees the fault; None if a test sees it."""
        found = re.fullmatch(r"verify: (?:\((\d+)\)|(.+))", self.seen_by)
        return None if found is None else found[1] or found[2]


PLANTED: list[Fault] = []


def fault(text: str, function: str, seen_by: str) -> Callable[[Planted], Planted]:
    """Decorator: add the replacement below to the faults of wing two."""

    def collect(replacement: Planted) -> Planted:
        PLANTED.append(Fault(text, function, replacement, seen_by))
        return replacement

    return collect
