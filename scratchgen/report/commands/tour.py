"""`scratchgen tour`, the default: train, grade and draw everything."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from scratchgen import __version__
from scratchgen.models.files import write_atomically
from scratchgen.report.options import Commands, add_command, demo_extra, seed

TYPICAL_SECONDS = {False: 155, True: 65}  # of a tour, by --quick, on two cores
HELP = """\
Train EM, VAE, DDPM and a score SDE and grade each against an exact answer (the default: `scratchgen` alone is the
tour).

Every model maximises the ELBO, (7) and (8): by EM (15)-(18), by (14) for the VAE, by (29) for the DDPM and by (33)
for the SDE.

Example:
  scratchgen tour --quick --out report

Typical time: 155 s on two cores, with --quick 65 s.  Needs the extra `demo`: in the checkout, pip install '.[demo]'."""


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
        help="folder for the figures and metrics.json (default scratchgen-report)",
    )
    parser.add_argument(
        "--quick", action="store_true", default=argparse.SUPPRESS, help="a fifth of the training, with wider tolerances"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    return tour(options.seed, options.out, options.quick)


def tour(seed: int, out: Path, quick: bool) -> int:
    """Train, grade and draw everything; return 1 if a difference is outside its tolerance."""
    with demo_extra("the tour"):
        from threadpoolctl import threadpool_limits

        from scratchgen.report.book.tour_page import write_tour_page
        from scratchgen.report.chapters import run
        from scratchgen.report.console import Narrator
        from scratchgen.report.figures import draw_all
        from scratchgen.report.tour import Tour
    replaced = claim_folder(out)
    began = time.perf_counter()
    narrator = Narrator()
    narrator.say(
        f"scratchgen {__version__}: trains EM, VAE, DDPM and a score SDE from scratch and grades each exactly."
    )
    narrator.say(
        f"Seed {seed}; about {TYPICAL_SECONDS[quick]} s on two cores; figures and metrics.json "
        f"{'replace those in' if replaced else 'go to'} {out}{os.sep}"
    )
    journey = Tour(seed, quick, narrator)
    # At these sizes a second BLAS thread gains little; with the other core busy it is ten times slower.
    with threadpool_limits(1, user_api="blas"):
        run(journey)
        figures = draw_all(journey, out)
    failed = [grade for grade in journey.grades if not grade.passed]
    metrics = {
        "scratchgen": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seed": seed,
        "quick": quick,
        "grades": [
            {
                "chapter": g.chapter,
                "quantity": g.quantity.strip(),
                "measured": g.measured,
                "exact": g.exact,
                "difference": g.difference,
                "low": g.low,
                "high": g.high,
                "passed": g.passed,
            }
            for g in journey.grades
        ],
        "digits_bits_per_dim": journey.bits_per_dim,
        "vae_drawback": {
            name: {"model_gap": model_gap, "least_gaussian_gap": least_gap}
            for name, (model_gap, least_gap) in journey.drawback.items()
        },
        "ddpm_ladder": {
            T: {"exact": exact, "bound": bound, "least_bound": least}
            for T, (exact, bound, least) in journey.ladder.items()
        },
    }
    write_atomically(out / "metrics.json", lambda file: file.write(json.dumps(metrics, indent=1).encode() + b"\n"))
    page = write_tour_page(out, journey.grades, journey.bits_per_dim)
    narrator.say()
    narrator.say(f"{page}: {len(figures)} figures with captions, and all grades; {time.perf_counter() - began:.0f} s")
    narrator.say(f"{len(journey.grades) - len(failed)} of {len(journey.grades)} differences within tolerance")
    return 1 if failed else 0


def claim_folder(out: Path) -> bool:
    """Create the folder of the report; return True if the folder holds an earlier report.

    Raises
    ------
    FileExistsError
        If the folder holds other files.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / "metrics.json").exists():
        return True
    if any(out.iterdir()):
        raise FileExistsError(f"--out {out} holds files that are not an earlier report; name another folder")
    (out / "metrics.json").touch()  # marks the folder as a report, so that an interrupted tour can be repeated
    return False
