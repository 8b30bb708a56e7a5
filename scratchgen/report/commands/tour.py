"""`scratchgen tour`, the default: train, grade and draw everything."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scratchgen import __version__
from scratchgen.models.files import write_atomically
from scratchgen.report.options import Commands, add_command, demo_extra, seed
from scratchgen.report.text import say

if TYPE_CHECKING:  # needs the extra
    from scratchgen.report.tour import Tour

UNFINISHED = "unfinished"  # name of the folder for the files of a tour before its end
TYPICAL_SECONDS = {False: 100, True: 70}  # of a tour, by --quick, on two cores
HELP = """\
Train EM, VAE, DDPM and a score SDE, grade each against an exact answer, and write the book with the results (the
default: `scratchgen` alone is the tour).

Every model of the tour maximises the ELBO, (7) and (8): by EM (15)-(18), for tables with pseudo-counts; by (14) for the
VAE; by (29) with the weights of the bound for the DDPM, which drops them by default; by (33) with λ = g² for the SDE.

Example:
  scratchgen tour --quick --out report

Typical time: 100 s on two cores, with --quick 70 s.  Needs the extra `demo`: in the checkout, pip install '.[demo]'."""
WORDS = """\
p is the density of the data, p_θ that of a model, z its latent variable, and q(z|x) stands in for the posterior of z.
E_p is the mean over p. KL is the Kullback-Leibler divergence, and the ELBO a lower bound of log p_θ(x). Logarithms are
natural, so their unit is the nat; 1 nat is 1.44 bits. A loss is the number that a training makes small: −ELBO or its
parts with θ. (7) is the equation 7 of the deck: `scratchgen verify 7` shows it."""


def add(commands: Commands) -> None:
    """Add the command."""
    add_options(add_command(commands, "tour", HELP, run))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the tour to the bare command and to `tour`; only the bare command has defaults."""
    parser.add_argument(
        "--seed", type=seed, default=argparse.SUPPRESS, help="seed of data, weights and samples (default 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FOLDER",
        help="folder for the book of the results and metrics.json (default scratchgen-report)",
    )
    parser.add_argument(
        "--quick", action="store_true", default=argparse.SUPPRESS, help="a fifth of the training, with wider tolerances"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    return tour(options.seed, options.out, options.quick)


def tour(seed: int, out: Path, quick: bool) -> int:
    """Train and grade everything, and write the book with the results; return 1 if a difference is not in tolerance."""
    with demo_extra("the tour"):
        from threadpoolctl import threadpool_limits

        from scratchgen.report.book.build import build
        from scratchgen.report.chapters import run
        from scratchgen.report.tour import Tour
    replaced = claim_folder(out)
    began = time.perf_counter()
    say(f"scratchgen {__version__}: trains EM, VAE, DDPM and a score SDE from scratch and grades each exactly.")
    say(
        f"Seed {seed}; about {TYPICAL_SECONDS[quick]} s on two cores; the book of the results "
        f"{'replaces that in' if replaced else 'goes to'} {out}{os.sep}"
    )
    say(f"\n{WORDS}")
    journey = Tour(seed, quick)
    # At these sizes a second BLAS thread gains little; with the other core busy it is ten times slower.
    with threadpool_limits(1, user_api="blas"), unfinished(out) as folder:
        run(journey)
        print()
        say("All models are trained. The book of 34 equations is written with their results.")
        pages = build(folder, journey)
        text = json.dumps(metrics(journey), indent=1) + "\n"
        write_atomically(folder / "metrics.json", lambda file: file.write(text.encode()))
        move_files(folder, out)
    say(f"{out / 'index.html'}: {len(pages)} pages; {time.perf_counter() - began:.0f} s")
    say(journey.verdict)
    return 0 if journey.passed else 1


def metrics(tour: Tour) -> dict[str, Any]:
    """The content of metrics.json."""
    return {
        "scratchgen": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seed": tour.seed,
        "quick": tour.quick,
        "grades": [
            {
                "chapter": g.chapter,
                "quantity": g.quantity,
                "unit": g.unit,
                "measured": g.measured,
                "exact": g.exact,
                "difference": g.difference,
                "low": g.low,
                "high": g.high,
                "passed": g.passed,
            }
            for g in tour.grades
        ],
        "digits_bits_per_dim": tour.bits_per_dim,
        "vae_drawback": {
            name: {"model_gap": model_gap, "least_gaussian_gap": least_gap}
            for name, (model_gap, least_gap) in tour.drawback.items()
        },
        "ddpm_ladder": {
            T: {"exact": exact, "bound": bound, "least_bound": least}
            for T, (exact, bound, least) in tour.ladder.items()
        },
    }


# --- the folder -------------------------------------------------------------------------------------------------------


def claim_folder(out: Path) -> bool:
    """Create the folder of the report; return True if the folder holds an earlier report or book.

    Raises
    ------
    FileExistsError
        If the folder holds other files.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any((out / name).exists() for name in ("metrics.json", "glossary.html")):
        return True
    if any(path.name != UNFINISHED for path in out.iterdir()):
        raise FileExistsError(f"--out {out} holds files that are not an earlier report; name another folder")
    return False


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """An empty folder in `out` for files that are not complete yet; it is removed at the end, also of a failed tour."""
    folder = out / UNFINISHED
    shutil.rmtree(folder, ignore_errors=True)  # of a tour that was killed
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def move_files(source: Path, target: Path) -> None:
    """Move all files of a folder to the same places in another one, and replace those that are there.

    metrics.json is the last one, so that it belongs to the pages and pictures beside it.
    """
    (target / "metrics.json").unlink(missing_ok=True)
    for path in sorted(source.rglob("*"), key=lambda path: path.name == "metrics.json"):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            path.replace(place)
