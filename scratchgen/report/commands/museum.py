"""`scratchgen museum`: known mistakes and the checks that find them."""

from __future__ import annotations

import argparse

from scratchgen.report.options import Commands, add_command

HELP = """\
Show known mistakes and faults planted in running code, and the check or test that finds each.

Every exhibit is a wrong form of one of the equations (1) to (34) or of a step of the models.

Example:
  scratchgen museum | less -S

Typical time: 45 s."""


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, "museum", HELP, run)


def run(options: argparse.Namespace) -> int:
    """Print both wings of the museum of mistakes."""
    from scratchgen.museum.tour import print_tour

    print_tour()
    return 0
