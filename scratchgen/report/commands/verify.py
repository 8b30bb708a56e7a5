"""`scratchgen verify`: both sides of every equation."""

from __future__ import annotations

import argparse

from scratchgen.report.options import Commands, add_command

HELP = """\
Compute both sides of the 34 equations of the deck, (1) to (34), and of the propositions beside them, and compare
them.

Example:
  scratchgen verify
  scratchgen verify 25
  scratchgen verify --json > rows.json

Typical time: 4 s for all, 1 s for one.  The status is 1 if an equation is outside its tolerance."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", HELP, run)
    parser.add_argument(
        "equation",
        type=equation,
        nargs="?",
        metavar="N",
        help="a number in 1..34 or the name of a proposition: show this row in detail",
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", dest="form", action="store_const", const="json", help="print every value as JSON")
    forms.add_argument("--markdown", dest="form", action="store_const", const="markdown", help="print a Markdown table")
    parser.set_defaults(form="text")


def equation(text: str) -> str:
    """One of the 34 numbers of the deck, or the name of a proposition."""
    from scratchgen.equations import EQUATIONS, PROPOSITIONS

    for row in EQUATIONS + PROPOSITIONS:
        if text.lower() in (row.name.lower(), f"({row.name.lower()})"):
            return row.name
    names = ", ".join(row.name for row in PROPOSITIONS)
    raise argparse.ArgumentTypeError(f"must be in 1..34 or one of {names}; got {text}")


def run(options: argparse.Namespace) -> int:
    """Check the equations; return 1 if one of them is outside its tolerance."""
    from scratchgen.report.verify import verify

    return verify(options.equation, options.form)
