"""The command line, also as `python -m scratchgen`: the parser, the choice of the command, and its errors."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from scratchgen import __version__
from scratchgen.models.progress import say_on_stderr
from scratchgen.report.commands import audit, book, compare, data, fit, info, museum, sample, score, tour, verify
from scratchgen.report.options import TRACEBACK, Commands
from scratchgen.report.text import CommandError, Help, Parser, one_line, show_any_text

HELP = """\
Generative models from scratch, graded exactly.

Models of your own data:
  fit MODEL DATA  train one of seven models on a table
  sample          draw new rows or pictures from a model
  score           log-likelihood or its bound of the rows of a table
  compare         samples of models against data, by all metrics
  info            what a model file holds
  data            the bundled data sets

The theory:
  tour            train four families and grade each against an exact answer; the default, if no command is named
  verify          compute both sides of the 34 equations and compare them
  museum          known mistakes, and the check that finds each
  audit FILE.py   run every check that applies to your own code
  book            write the equations, their code, checks and pictures as HTML pages

`scratchgen COMMAND --help` has the equation, the defaults, an example and the typical time of a command.

Example:
  scratchgen fit gmm penguins -o model.npz --set n_components=3
  scratchgen sample model.npz -n 10"""
COMMANDS = (fit, sample, score, compare, info, data, tour, verify, museum, audit, book)
TOUR = {"seed": 0, "out": Path("scratchgen-report"), "quick": False}  # defaults of its options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all is in tolerance, 1 if not, 2 for wrong use or an error, 130 for Ctrl-C."""
    show_any_text()
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *place: _show_warning(message)
            status: int = options.run(options)
            print(end="", flush=True)  # a closed pipe is found here, and not when Python ends
            return status
    except KeyboardInterrupt as error:
        say_on_stderr(f"scratchgen: interrupted, {error if error.args else 'nothing more is written'}")
        return 130
    except BrokenPipeError:
        # the reader of the pipe (`head`, for example) has closed it; the last flush must not raise again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if options.traceback:
            raise
        known = isinstance(error, CommandError)
        message = str(error) if known else f"{type(error).__name__}: {error} (--traceback shows where)"
        if isinstance(error, MemoryError):
            message += "; use fewer columns or rows, or smaller arguments"
        say_on_stderr(one_line(f"scratchgen: {message}"))
        return 2


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; the default command is the tour."""
    parser = Parser(prog="scratchgen", description=HELP, formatter_class=Help)
    parser.add_argument("--version", action="version", version=f"scratchgen {__version__}")
    commands: Commands = parser.add_subparsers(dest="command", metavar="command", help="one of the above")
    tour.add_options(parser)
    parser.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)
    parser.set_defaults(**TOUR, traceback=False, run=tour.run)
    for command in COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    if options.command in ("verify", "museum", "audit") and _has_tour_options(options, "seed", "quick", "out"):
        parser.error(
            f"--seed, --quick and --out are options of the tour; {options.command} draws nothing and writes nothing"
        )
    if options.command not in (None, "tour") and _has_tour_options(options, "quick", "out"):
        parser.error(f"--quick and --out are options of the tour, not of {options.command}, whose file is -o FILE")
    return options


def _has_tour_options(options: argparse.Namespace, *names: str) -> bool:
    return any(getattr(options, name) != TOUR[name] for name in names)


def _show_warning(message: Warning | str) -> None:
    """Print a warning as one line, without the place in the package's code."""
    say_on_stderr(one_line(f"scratchgen: warning: {message}"))
