"""Functions that the parsers of all commands share: adding a command, and the types of options."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from scratchgen.models.files import SHIPPED
from scratchgen.report.tables import Choice, joined
from scratchgen.report.text import Help, Parser

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

MODEL = f"a file of `scratchgen fit` or of save, or a trained model of the package: {', '.join(SHIPPED)}"
TRACEBACK = "show the traceback of an error"


def add_command(commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], int] | None) -> Parser:
    """Add a parser whose help is `text`; `run` runs the command."""
    parser = commands.add_parser(name, description=text, formatter_class=Help)
    if run is not None:
        parser.set_defaults(run=run)
    parser.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)
    return parser


def seed(text: str) -> int:
    """A non-negative integer."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {value}")
    return value


@contextmanager
def demo_extra(what: str) -> Iterator[None]:
    """Name the remedy if a package of the extra `demo` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} needs {error.name}; run in the checkout: pip install '.[demo]'") from None


def count(text: str) -> int:
    """A number of rows, 0 or more."""
    return seed(text)


def names(text: str) -> tuple[str, ...]:
    """Names of columns, separated by commas; a name with a comma stands in double quotes."""
    found = tuple(name.strip() for row in csv.reader([text], skipinitialspace=True) for name in row if name.strip())
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"must be different names, separated by commas, got {text!r}")
    return found


def add_data_options(parser: argparse.ArgumentParser, *, labels: bool = True, weights: bool = True) -> None:
    """Add DATA and the choice of its columns; the help leaves --labels and --weights out for models that take none."""
    parser.add_argument(
        "data", metavar="DATA", help="a .csv, .tsv or .npy file, file.npz:member, or a name of `scratchgen data`"
    )
    parser.add_argument("--columns", type=names, metavar="A,B", help="columns to keep (default: all)")
    parser.add_argument("--drop", type=names, default=(), metavar="A,B", help="columns to leave out")
    of_labels, of_weights = (f"column with the {name} of the rows, for " for name in ("labels", "weights"))
    roles = {
        "--labels": of_labels + "ddpm and sde" if labels else argparse.SUPPRESS,
        "--weights": of_weights + "gmm, ppca, fa and tables" if weights else argparse.SUPPRESS,
    }
    for name, text in roles.items():
        parser.add_argument(name, metavar="COLUMN", help=text)
    parser.add_argument("--drop-missing", action="store_true", help="leave out rows with missing cells")
    parser.add_argument("--decimal-comma", action="store_true", help="read 1,5 as one and a half")


def choice_of(options: argparse.Namespace) -> Choice:
    """The choice of columns in parsed options."""
    return Choice(
        options.columns, options.drop, options.labels, options.weights, options.drop_missing, options.decimal_comma
    )


def words_of(options: argparse.Namespace) -> list[str]:
    """The words of the command line that `choice_of` reads, for a command to type next."""
    words = [str(options.data)]
    for name in ("columns", "drop"):
        words += [f"--{name}", joined(getattr(options, name))] if getattr(options, name) else []
    for name in ("labels", "weights"):
        words += [f"--{name}", getattr(options, name)] if getattr(options, name) is not None else []
    return words + ["--drop-missing"] * options.drop_missing + ["--decimal-comma"] * options.decimal_comma
