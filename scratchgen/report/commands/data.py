"""`scratchgen data`: the bundled data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scratchgen.report.bundled import BUNDLED, Bundled
from scratchgen.report.files import check_output, write_csv, write_npy
from scratchgen.report.options import Commands, add_command, count, seed
from scratchgen.report.tables import size_of
from scratchgen.report.text import CommandError, fill, page_width

HELP = """\
List the bundled data sets with their sizes, sources and licences, or write one of them as a table.

`fit` and `score` take the same names for DATA. Some sets have a known density, so that a model's bound −E ELBO,
(13) and (21), can be held against the entropy H(p).

Example:
  scratchgen data
  scratchgen data two_moons -n 5000 -o moons.csv

Typical time: under 1 s."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "data", HELP, run)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a data set; without a name all are listed")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="a .csv or .npy file (default: print CSV)")
    parser.add_argument("-n", type=count, metavar="N", help="number of rows of a set that is drawn (default 10000)")
    parser.add_argument("--seed", type=seed, default=argparse.SUPPRESS, help="of a set that is drawn (default 0)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    out, name = options.output, options.name
    if name is None:
        if out is not None:
            raise CommandError(f"name a data set for -o {out}: {', '.join(BUNDLED)}")
        print("\n\n".join(_entry(name, found) for name, found in BUNDLED.items()))
        return 0
    if name not in BUNDLED:
        raise CommandError(f"there is no data set {name}; there are {', '.join(BUNDLED)}")
    if out is not None:
        check_output(out, (".csv", ".npy"), options.force)
    found = BUNDLED[name]
    if options.n is not None and not found.drawn:
        raise CommandError(f"{name} has {found.n} rows and is not drawn; leave -n out")
    x, _ = found.make(found.n if options.n is None else options.n, options.seed)
    if out is not None and out.suffix.lower() == ".npy":
        write_npy(out, x, options.force)
    else:
        whole = bool((x == np.floor(x)).all())
        write_csv(out, found.names, (x.astype(np.int64) if whole else x).tolist(), options.force)
    if out is not None:
        print(f"{out}: {size_of(x)}")
    return 0


def _entry(name: str, found: Bundled) -> str:
    """Lines about one data set."""
    size = (
        f"{'any number of' if found.drawn else found.n} rows, {len(found.names)} column{'s' * (len(found.names) != 1)}"
    )
    labels = f"; labels: {found.label}" if found.label else ""
    text = f"{name}\n  {found.about}\n  {size}{labels}\n  source: {found.source}\n  licence: {found.licence}"
    return fill(text, page_width())
