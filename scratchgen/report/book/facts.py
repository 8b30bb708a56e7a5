"""The facts about every row of the table of equations: both sides, mistakes and their effect, names of its tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from scratchgen.conformance import Check
from scratchgen.conformance.result import NAMELESS
from scratchgen.equations import Row, check
from scratchgen.equations.running import RUNNING
from scratchgen.museum import tour

# Rows whose checks search for the mistake for 3, 0.8 and 0.3 s: with their 8 mistakes the book would take 13 s longer.
SLOW = ("Algorithm 1", "a sliced step of (33)", "the continuous bound")


class Mistake(NamedTuple):
    """A mistake of the museum, and its effect on the numbers of a row."""

    text: str
    origin: str
    function: str
    result: Check | None  # None where the check takes too long for the book

    @property
    def effect(self) -> str:
        """The diagnosis of the check; "no known mistake" would be wrong in a list of known mistakes."""
        diagnosis = "" if self.result is None else self.result.diagnosis
        return diagnosis.replace(NAMELESS, "the check cannot name the cause")


class Fact(NamedTuple):
    """A row, its check, the mistakes that the check finds, and the names of its tests."""

    row: Row
    result: Check
    mistakes: list[Mistake]
    tests: list[str]


def facts() -> dict[str, Fact]:
    """The facts of all rows, by the name of the row."""
    tests = test_names()
    found = {row.name: Fact(row, result, [], tests[row.name]) for row, result, _ in tour.runs()}
    for name, mistake in mistakes():
        found[name].mistakes.append(mistake)
    return found


def test_names() -> dict[str, list[str]]:
    """Name of a row → its tests, "tests/chapters/test_ddpm.py::test_…"; a test holds the file to the marks."""
    index: dict[str, list[str]] = json.loads(files(__package__).joinpath("tests.json").read_text("utf8"))
    return index


def mistakes() -> Iterator[tuple[str, Mistake]]:
    """(name of the row, mistake) of both wings of the museum.

    A mistake of equations and propositions stands at every row that finds it; one of running code alone at the row of
    its function.
    """
    users = tour.rows_of()
    for shown in tour.EXHIBITS:
        rows = [row for row in users[shown.function] if row not in RUNNING]
        for row in rows or [row for row in users[shown.function] if row.function == shown.function]:
            result = None if row.name in SLOW else check(row, {shown.function: shown.planted})
            if result is None or (result.name == shown.killer and not result.passed):
                yield row.name, Mistake(shown.bug, shown.source, shown.function, result)
    for fault in tour.FAULTS:
        if fault.row is not None:
            result = None if fault.row in SLOW else tour.seeing(fault)
            yield fault.row, Mistake(fault.fault, "planted in running code", fault.function, result)
