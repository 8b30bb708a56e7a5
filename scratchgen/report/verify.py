"""`scratchgen verify`: run the table of equations and print it."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scratchgen.conformance import Check
from scratchgen.equations import BEYOND, EQUATIONS, PROPOSITIONS, Row, check, find, slug_of, through
from scratchgen.report.text import fill, styled, table, terminal_width

ROWS = EQUATIONS + PROPOSITIONS
SHOWN = 12  # number of values that the detailed view prints of each side


def verify(name: str | None, form: str) -> int:
    """Check one row or all, print the results, and return 1 if one is outside its tolerance.

    Parameters
    ----------
    name : str or None
        The name of one row, "1" to "34" or a proposition; None for all rows.
    form : {"text", "list", "json"}
        "list" prints the names and places, and checks nothing.
    """
    rows = [row for row in ROWS if name in (None, row.name)]
    if form == "list":
        print("\n".join(listing(rows)))
        return 0
    results = [(row, run(row)) for row in rows]
    if form == "json":
        print(json.dumps([as_record(row, result) for row, result in results], indent=1, ensure_ascii=False))
    elif name is not None:
        show_one(*results[0])
        results += show_uses(rows[0])
    else:
        show_all(results)
    return 0 if all(result.passed for _, result in results) else 1


def run(row: Row) -> Check:
    """The check of a row; an exception becomes a failure, so that the other rows still run."""
    try:
        return check(row)
    except Exception as error:
        nothing = np.empty(0)
        found = f"{row.function} raised {type(error).__name__}: {error}"
        return Check(row.name, f"({row.name})", row.statement, nothing, nothing, float("inf"), 0.0, found)


def listing(rows: Sequence[Row]) -> list[str]:
    """Lines of a table with number, short name, file and line of every row."""
    cells = [(f"({row.name})" if row.name.isdigit() else "", slug_of(row), place_of(row)) for row in rows]
    return table(("", "name", "place"), cells, "rll")


def as_record(row: Row, result: Check) -> dict[str, object]:
    """A row and its check as a record for JSON."""
    return {
        "equation": row.name,
        "name": slug_of(row),
        "statement": row.statement,
        "erratum": row.erratum,
        "function": f"scratchgen.{row.function}",
        "place": place_of(row),
        "use": row.use,
        "runs_in": list(through(row, ROWS)) or f"theory only: {row.theory_only}",
        "check": result.name,
        "quantity": result.quantity,
        "left": result.left.tolist(),
        "right": result.right.tolist(),
        "residual": result.residual,
        "tolerance": result.tolerance,
        "passed": result.passed,
        "diagnosis": result.diagnosis,
    }


def where(row: Row) -> str:
    """The verbs that run the function of a row, in one line."""
    parts = [", ".join(row.runs_in)] if row.runs_in else []
    through_fast = [verb.partition(" through ")[0] for verb in through(row, ROWS) if " through " in verb]
    if through_fast:
        parts.append(f"through {row.fast}: {', '.join(through_fast)}")
    return "; ".join(parts) or f"theory only: {row.theory_only}"


def distinct(rows: Sequence[Row]) -> int:
    """The number of different functions of these rows."""
    return len({row.function for row in rows})


def show_all(results: Sequence[tuple[Row, Check]]) -> None:
    """Print three tables, the deck's equations, the rows that complete them and those beyond, and lines of counts."""
    equations, others = results[: len(EQUATIONS)], results[len(EQUATIONS) : -len(BEYOND)]
    beyond = results[-len(BEYOND) :]
    print("Every equation, and below it the compared quantity: by its function (left) and by another route (right), at")
    print("their largest residual.  *: see the erratum or remark.")
    print()
    print_rows(equations, "equation")
    print()
    print_rows(others, "propositions and running code")
    print()
    print_rows(beyond, "beyond the deck")
    print()
    print("Errata and remarks (scratchgen verify NAME shows one row in detail, scratchgen verify --list the names):")
    for row, _ in equations:
        if row.erratum:
            print(f"  ({row.name}) {row.erratum}")
    print()
    for row, result in results:
        if not result.passed:
            print(f"{row.name}: {result.diagnosis}")
    passed = [sum(result.passed for _, result in part) for part in (equations, others, beyond)]
    print(
        f"{passed[0]} of {len(equations)} equations, {passed[1]} of {len(others)} propositions and {passed[2]} of "
        f"{len(beyond)} beyond the deck within tolerance"
    )
    runs = [row for row, _ in equations if through(row, ROWS)]
    print(
        f"{len(runs)} of {len(equations)} equations run when models train, sample and are scored "
        f"({distinct(runs)} of {distinct([row for row, _ in equations])} functions); the others are theory only"
    )


def print_rows(results: Sequence[tuple[Row, Check]], title: str) -> None:
    """Print a table of number, statement, left, right, residual, tolerance and verdict."""
    rows = []
    for row, result in results:
        left, right = result.sides
        rows.append(
            (
                f"({row.name})" if row.name.isdigit() else fill(row.name, 14),
                f"{row.statement}{'*' if row.erratum else ''}\n{result.quantity}",
                f"{left:.6f}",
                f"{right:.6f}",
                f"{result.residual:.0e}",
                f"{result.tolerance:.0e}",
                styled("ok", "32") if result.passed else styled("OUT", "1;31"),
            )
        )
    heads = ("", title, "left", "right", "residual", "tolerance", "")
    print("\n".join(table(heads, rows, "rwrrrrl", terminal_width(100))))


def informative_first(result: Check) -> list[tuple[float, float]]:
    """The pairs of left and right: the largest differences first, and whole numbers after others."""
    pairs = list(zip(result.left.ravel().tolist(), result.right.ravel().tolist(), strict=False))

    def rank(pair: tuple[float, float]) -> tuple[float, bool]:
        left, right = pair
        differ = 0.0 if left == right else abs(left - right)
        return -differ if np.isfinite(differ) else -np.inf, right % 1 == 0

    return sorted(pairs, key=rank)


def show_one(row: Row, result: Check) -> None:
    """Print everything about one row."""
    print(f"{f'({row.name})' if row.name.isdigit() else row.name}  {row.statement}")
    print()
    print(f"name        {slug_of(row)}")
    if row.use:
        print(f"use         {row.use}")
    else:
        print(f"remark      {row.erratum or 'right as printed'}")
    print(f"function    scratchgen.{row.function}")
    print(f"            {place_of(row)}")
    summary = inspect.getdoc(find(row.function)) or ""
    print(textwrap.indent(summary.partition("\n\n")[0], "            "))
    for i, line in enumerate(textwrap.wrap(where(row), 100, break_long_words=False)):
        print(f"{'runs in' if i == 0 else '':12}{line}")
    print(f"checked by  scratchgen.conformance.{result.name}")
    print(f"            {result.quantity}")
    print()
    pairs = informative_first(result)
    shown = [(f"{left:.15g}", f"{right:.15g}", f"{left - right:.1e}") for left, right in pairs[:SHOWN]]
    print("\n".join(table(("left", "right", "difference"), shown, "rrr")))
    if len(pairs) > SHOWN:
        print(f"  and {len(pairs) - SHOWN} more")
    print()
    verdict = "within" if result.passed else "OUTSIDE"
    print(f"residual {result.residual:.1e}, {verdict} the tolerance {result.tolerance:.0e}")
    if result.diagnosis:
        print(result.diagnosis)


def show_uses(row: Row) -> list[tuple[Row, Check]]:
    """Check the steps and loops in which the function of a row runs; print and return the results."""
    results = [(other, run(other)) for name in row.used_in for other in ROWS if other.name == name]
    if results:
        print()
        print("The steps and loops in which the function runs:")
    for other, result in results:
        verdict = "ok " if result.passed else "OUT"
        print(f"  {verdict}  {other.name}: scratchgen.{other.function}, {place_of(other)}")
        if not result.passed:
            print(f"       {result.diagnosis}")
    return results


def place_of(row: Row) -> str:
    """The place "file:line" of the function of a row, as editors open it, or a note if its source cannot be found.

    The path is relative to the current directory if the file is below it, and absolute if not.
    """
    try:
        file, (_, line) = inspect.getsourcefile(find(row.function)), inspect.getsourcelines(find(row.function))
    except OSError:
        return "source not found"
    path = Path(file or "").resolve()
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"
