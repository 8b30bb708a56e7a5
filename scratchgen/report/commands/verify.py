"""`scratchgen verify`: both sides of every equation."""

from __future__ import annotations

import argparse

from scratchgen.report.options import Commands, add_command

HELP = """\
Compute both sides of the 34 equations of the deck, (1) to (34), and of the propositions beside them, and compare
them.

NAME is a number in 1..34, a short name, a full name, or the name of a function.  Words of a short name suffice if
only one row has them.

Example:
  scratchgen verify
  scratchgen verify 25
  scratchgen verify posterior
  scratchgen verify q_sample
  scratchgen verify --list
  scratchgen verify --json > rows.json

Typical time: 4 s for all, 1 s for one.  The status is 1 if an equation is outside its tolerance."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", HELP, run)
    parser.add_argument("equation", type=equation, nargs="?", metavar="NAME", help="show this row in detail")
    forms = parser.add_mutually_exclusive_group()
    texts = {
        "list": "print the short name, file and line of every row, without a check",
        "json": "print every value as JSON",
    }
    for form, text in texts.items():
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=text)
    parser.set_defaults(form="text")


def equation(text: str) -> str:
    """The full name of the one row that a text means."""
    from scratchgen.equations import EQUATIONS, PROPOSITIONS, Row, called, similar, slug_of

    def listed(rows: list[Row]) -> str:
        return ", ".join(f"{slug_of(row)} ({row.name})" if row.name.isdigit() else slug_of(row) for row in rows)

    rows = EQUATIONS + PROPOSITIONS
    found = called(text, rows)
    if len(found) == 1:
        return found[0].name
    if found:
        raise argparse.ArgumentTypeError(f"{text!r} may be one of {len(found)} rows: {listed(found)}; name one of them")
    near = similar(text, rows)
    question = f"did you mean {listed(near)}? " if near else ""
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither a number in 1..34 nor a name; {question}`scratchgen verify --list` prints all names"
    )


def run(options: argparse.Namespace) -> int:
    """Check the equations; return 1 if one of them is outside its tolerance."""
    from scratchgen.report.verify import verify

    return verify(options.equation, options.form)
