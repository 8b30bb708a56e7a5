"""The printed tour of both wings: every mistake, its source, and the check or test that finds it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from scratchgen.conformance import Check
from scratchgen.equations import EQUATIONS, PROPOSITIONS, Row, check, find
from scratchgen.museum import (  # noqa: F401  # the import fills COLLECTED and PLANTED
    beyond,
    bound,
    chain,
    latent,
    networks,
    processes,
    running,
    running_samples,
    training,
)
from scratchgen.museum.exhibit import COLLECTED, PLANTED, Exhibit, Fault, Unseen
from scratchgen.museum.planting import planted
from scratchgen.museum.unseen import UNSEEN

ROWS = (*EQUATIONS, *PROPOSITIONS)
EXHIBITS: tuple[Exhibit, ...] = tuple(COLLECTED)
FAULTS: tuple[Fault, ...] = tuple(PLANTED)


@cache
def runs() -> list[tuple[Row, Check, set[str]]]:
    """Every row, its check, and the names of the functions that the check calls."""
    found = []
    for row in ROWS:
        names: set[str] = set()

        def recording(name: str, names: set[str] = names) -> Callable[..., Any]:
            names.add(name)
            return find(name)

        found.append((row, row.run(recording), names))
    return found


@cache
def rows_of() -> dict[str, list[Row]]:
    """The rows that use a function."""
    users: dict[str, list[Row]] = {}
    for row, _, names in runs():
        for name in names:
            users.setdefault(name, []).append(row)
    return users


def checks_of(shown: Exhibit | Unseen) -> list[Check]:
    """The checks of all rows that use the function, with the faulty one in its place."""
    return [check(row, {shown.function: shown.planted}) for row in rows_of()[shown.function]]


def killing(shown: Exhibit) -> Check:
    """The named check at its largest ratio of residual to tolerance."""
    checks = [c for c in checks_of(shown) if c.name == shown.killer]
    if not checks:
        raise RuntimeError(f"{shown.killer} did not run on {shown.function}; run `scratchgen verify` first")
    return max(checks, key=lambda c: c.residual / c.tolerance)


def seeing(fault: Fault) -> Check | None:
    """The check of the row that sees a fault, with the fault planted; None if a property test sees it."""
    if fault.row is None:
        return None
    row = next(row for row in ROWS if row.name == fault.row)
    with planted(fault.function, fault.replacement):
        return check(row)


def first_wing() -> Iterator[tuple[str, ...]]:
    """(mistake, source, function, check, residual, diagnosis) of every exhibit, as text."""
    for shown in EXHIBITS:
        c = killing(shown)
        yield shown.bug, shown.source, shown.function, shown.killer, f"{c.residual:.1e}", c.diagnosis


def second_wing() -> Iterator[tuple[str, ...]]:
    """(fault, function, row or test, residual, diagnosis) of every fault in running code, as text."""
    for fault in FAULTS:
        c = seeing(fault)
        found = ("", "") if c is None else (f"{c.residual:.1e}", c.diagnosis)
        yield fault.fault, fault.function, fault.seen_by, *found


def print_tour() -> None:
    """Print both wings and the mistakes that no row sees."""
    print("Wing one: faulty copies of functions, each found by one check of scratchgen.conformance\n")
    _table(("bug", "seen in", "function", "killed by", "residual", "diagnosis"), list(first_wing()))
    print("\nMistakes that no row of the table sees, but property tests do\n")
    rows = [(shown.bug, shown.source, shown.function, shown.why) for shown in UNSEEN]
    _table(("bug", "seen in", "function", "why no row sees it"), rows)
    print("\nWing two: faults planted in the running code of the models\n")
    _table(("fault", "planted in", "seen by", "residual", "diagnosis"), list(second_wing()))
    seen = sum(fault.row is not None for fault in FAULTS)
    print(
        f"\n{len(EXHIBITS)} mistakes in wing one; {len(FAULTS)} in wing two, {seen} of them seen by scratchgen verify"
    )


def _columns(text: str) -> int:
    """Number of columns of a text on the screen; the bar of ᾱ is a character of its own but takes no column."""
    return sum(not unicodedata.combining(character) for character in text)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; every column is as wide as its widest cell."""
    widths = [max(map(_columns, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, tuple("-" * width for width in widths), *rows):
        cells = (cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


__all__ = ["EXHIBITS", "FAULTS", "ROWS", "UNSEEN", "checks_of", "killing", "print_tour", "rows_of", "runs", "seeing"]
