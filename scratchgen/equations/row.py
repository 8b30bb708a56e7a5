"""One row of the table of equations: statement, erratum, function, the verbs that run it, check."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from scratchgen.conformance import Check
from scratchgen.equations.problems import Functions


class Row(NamedTuple):
    """One equation or one proposition."""

    name: str  # the number in the deck, "1" to "34", or the subject of the proposition
    statement: str
    erratum: str  # the error of the printed equation, or a remark; empty if the printed equation is right
    function: str  # the public function, "module.name" within scratchgen
    run: Callable[[Functions], Check]
    runs_in: tuple[str, ...] = ()  # verbs of the models that call the function, "DDPM.fit"
    theory_only: str = ""  # the reason, if no verb calls the function
    fast: str = ""  # a faster form of the function in `scratchgen.fast`; a row of its own checks that both are equal
    use: str = ""  # one sentence on the use of a proposition beyond the deck
    used_in: tuple[str, ...] = ()  # names of the rows of the steps and loops in which the function runs
    latex: str = ""  # the statement for typesetting; `\\` separates its lines
    slug: str = ""  # the short name, where that of `slug_of` would be long or has no letters


def check(row: Row, replaced: Mapping[str, Callable[..., Any]] | None = None) -> Check:
    """Run the check of a row; the functions in `replaced` take the place of the package's own."""
    return row.run(lambda name: (replaced or {}).get(name) or find(name))


def find(name: str) -> Callable[..., Any]:
    """The function or method with the name that a row gives, as "ddpm.q_sample" or "mixture.Mixture.score"."""
    value: Any = importlib.import_module("scratchgen")
    path = "scratchgen"
    for part in name.split("."):
        path = f"{path}.{part}"
        if not hasattr(value, part):
            importlib.import_module(path)
        value = getattr(value, part)
    return value


def through(row: Row, rows: tuple[Row, ...]) -> tuple[str, ...]:
    """The verbs that run the function of a row, directly or through its fast form (then named in the text)."""
    by_fast_form = next((other.runs_in for other in rows if row.fast and other.function == row.fast), ())
    return row.runs_in + tuple(f"{verb} through {row.fast}" for verb in by_fast_form if verb not in row.runs_in)


def noted(check: Check, note: str) -> Check:
    """The check with a note behind its quantity, such as the function that gave the numbers."""
    return replace(check, quantity=f"{check.quantity}, {note}")


def both(first: Check, *others: Check) -> Check:
    """The first of several checks if all pass, else the one with the largest ratio of residual to tolerance."""
    failed = [check for check in (first, *others) if not check.passed]
    return max(failed, key=lambda check: check.residual / check.tolerance) if failed else first
