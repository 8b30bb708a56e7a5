"""`scratchgen book`: write the book of the equations as HTML pages."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from scratchgen.report.options import Commands, add_command, demo_extra
from scratchgen.report.text import CommandError

HELP = """\
Write the book: each of the equations (1) to (34) beside the code that runs, both sides computed live, its known
mistakes and pictures, as a folder of HTML pages that need no network and no script.

Example:
  scratchgen book -o book --open

Typical time: 25 s.  Needs the extra `demo`: in the checkout, pip install '.[demo]'."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "book", HELP, run)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("scratchgen-book"), metavar="FOLDER", help="default scratchgen-book"
    )
    parser.add_argument("--open", action="store_true", help="open the start page in the browser")


def run(options: argparse.Namespace) -> int:
    """Write the pages and say where they are."""
    with demo_extra("the book"):
        from scratchgen.report.book.build import build
    _check_folder(options.output)
    pages = build(options.output)
    start = options.output / "index.html"
    print(f"{len(pages)} pages; open {start}")
    if options.open:
        webbrowser.open(start.resolve().as_uri())
    return 0


def _check_folder(folder: Path) -> None:
    """CommandError if the folder holds files that are not an earlier book."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "glossary.html").exists():
        raise CommandError(f"{folder} holds files that are not an earlier book; name another folder with -o")
