"""`scratchgen verify`: the table of equations, computed live."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from scratchgen.conformance import Check
from scratchgen.equations import EQUATIONS, PROPOSITIONS, Row, check, find
from scratchgen.report.console import Narrator

SHOWN = 12  # values of an equation's two sides that the detailed view prints


def verify(name: str | None, form: str, narrator: Narrator) -> int:
    """Check one equation or everything, print the outcome, and return 1 if something is outside its tolerance.

    Parameters
    ----------
    name : str or None
        Of one row, "1" to "34" or a proposition's.
    form : {"text", "json", "markdown"}
    """
    rows = [row for row in EQUATIONS + PROPOSITIONS if name in (None, row.name)]
    results = [(row, run(row)) for row in rows]
    if form == "json":
        print(json.dumps([as_record(row, result) for row, result in results], indent=1, ensure_ascii=False))
    elif form == "markdown":
        print(as_markdown(results))
    elif name is not None:
        show_one(*results[0], narrator)
    else:
        show_all(results, narrator)
    return 0 if all(result.passed for _, result in results) else 1


def run(row: Row) -> Check:
    """The row's check; an exception becomes a failure, so that one broken function does not hide the others."""
    try:
        return check(row)
    except Exception as error:
        nothing = np.empty(0)
        found = f"{row.function} raised {type(error).__name__}: {error}"
        return Check(row.name, f"({row.name})", row.statement, nothing, nothing, float("inf"), 0.0, found)


def as_record(row: Row, result: Check) -> dict[str, object]:
    """A row and its check as JSON knows them."""
    return {
        "equation": row.name,
        "statement": row.statement,
        "erratum": row.erratum,
        "function": f"scratchgen.{row.function}",
        "check": result.name,
        "quantity": result.quantity,
        "left": result.left.tolist(),
        "right": result.right.tolist(),
        "residual": result.residual,
        "tolerance": result.tolerance,
        "passed": result.passed,
        "diagnosis": result.diagnosis,
    }


def as_markdown(results: Sequence[tuple[Row, Check]]) -> str:
    """The README's table: what a row says, what is wrong with it as printed, which function and check it has."""
    lines = ["| | equation | erratum or remark | function | check |", "|---|---|---|---|---|"]
    for row, result in results:
        cells = (row.name, row.statement, row.erratum, f"`{row.function}`", f"`{result.name}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def show_all(results: Sequence[tuple[Row, Check]], narrator: Narrator) -> None:
    """Two tables, the deck's equations and what stands beside them, and one line of count."""
    equations, others = results[: len(EQUATIONS)], results[len(EQUATIONS) :]
    narrator.say(
        "Every equation, and below it what is compared: by its function (left) and by another route (right), where"
    )
    narrator.say("they differ most.  *: see the erratum or remark.")
    narrator.say()
    narrator.console.print(table_of(equations, "equation"))
    narrator.say()
    narrator.console.print(table_of(others, "and beside them"))
    narrator.say()
    narrator.say("Errata and remarks (scratchgen verify N shows one in detail):")
    for row, _ in equations:
        if row.erratum:
            narrator.say(f"  ({row.name}) {row.erratum}")
    narrator.say()
    for row, result in results:
        if not result.passed:
            narrator.say(f"{row.name}: {result.diagnosis}")
    passed = [sum(result.passed for _, result in part) for part in (equations, others)]
    narrator.say(
        f"{passed[0]} of {len(equations)} equations and {passed[1]} of {len(others)} propositions within tolerance"
    )


def table_of(results: Sequence[tuple[Row, Check]], title: str) -> Table:
    """number, statement, left, right, residual, tolerance, verdict."""
    table = Table(box=None, padding=(0, 0, 0, 2))
    table.add_column("", justify="right", max_width=14)
    table.add_column(title, min_width=14)
    for heading in ("left", "right", "residual", "tolerance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for row, result in results:
        left, right = result.sides
        verdict, style = ("ok", "green") if result.passed else ("OUT", "bold red")
        name = f"({row.name})" if row.name.isdigit() else row.name
        table.add_row(
            escape(name),
            f"{escape(row.statement)}{'*' if row.erratum else ''}\n[dim]{escape(result.quantity)}[/]",
            f"{left:.6f}",
            f"{right:.6f}",
            f"{result.residual:.0e}",
            f"{result.tolerance:.0e}",
            f"[{style}]{verdict}[/]",
        )
    return table


def show_one(row: Row, result: Check, narrator: Narrator) -> None:
    """Everything about one equation."""
    narrator.say(f"{f'({row.name})' if row.name.isdigit() else row.name}  {row.statement}")
    narrator.say()
    narrator.say(f"remark      {row.erratum or 'right as printed'}")
    narrator.say(f"function    scratchgen.{row.function}")
    summary = inspect.getdoc(find(row.function)) or ""
    narrator.say(textwrap.indent(summary.partition("\n\n")[0], "            "))
    narrator.say(f"checked by  scratchgen.conformance.{result.name}")
    narrator.say(f"            {result.quantity}")
    narrator.say()
    table = Table(box=None, padding=(0, 0, 0, 2))
    for heading in ("left", "right", "difference"):
        table.add_column(heading, justify="right")
    pairs = list(zip(result.left.ravel(), result.right.ravel(), strict=False))
    for left, right in pairs[:SHOWN]:
        table.add_row(f"{left:.15g}", f"{right:.15g}", f"{left - right:.1e}")
    narrator.console.print(table)
    if len(pairs) > SHOWN:
        narrator.say(f"  and {len(pairs) - SHOWN} more")
    narrator.say()
    verdict = "within" if result.passed else "OUTSIDE"
    narrator.say(f"residual {result.residual:.1e}, {verdict} the tolerance {result.tolerance:.0e}")
    if result.diagnosis:
        narrator.say(result.diagnosis)
