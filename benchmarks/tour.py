"""The tables of benchmarks/TOUR.md from several tours, mean or range over their seeds.

for seed in 0 1 2; do scratchgen --seed $seed --out tour-$seed; done
python -m benchmarks.tour tour-0 tour-1 tour-2 --markdown benchmarks/TOUR.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import publish

LABELS = {"em": "EM", "vae": "VAE", "ddpm": "DDPM", "sde": "SDE"}
Metrics = dict[str, Any]


def span(values: Sequence[float], digits: int = 4) -> str:
    """Smallest to largest, or one number if they print alike."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def difference(values: Sequence[float]) -> str:
    """The range of differences; the largest size if all are below 1e-4."""
    largest = max(abs(value) for value in values)
    if largest == 0:
        return "0"
    return span(values) if largest >= 1e-4 else f"at most {largest:.0e}"


def tolerance(low: float, high: float) -> str:
    """±, or a range."""
    return "0" if low == high == 0 else f"±{high:.2g}" if low == -high else f"{low:.2g} to {high:.2g}"


def grades(tours: list[Metrics]) -> Iterator[str]:
    """Measured and exact values of every chapter."""
    yield "| | quantity | measured | exact | difference | tolerance |\n|---|---|---|---|---|---|"
    for rows in zip(*(tour["grades"] for tour in tours), strict=True):
        measured, exact, differences, high = (
            [row[key] for row in rows] for key in ("measured", "exact", "difference", "high")
        )
        cells = (span(measured), span(exact), difference(differences), tolerance(rows[0]["low"], max(high)))
        name = rows[0]["quantity"].replace("|", "\\|")
        yield f"| {LABELS[rows[0]['chapter']]} | {name} | {' | '.join(cells)} |"


def ladder(tours: list[Metrics]) -> Iterator[str]:
    """Exact likelihood and bounds of one network by its number of steps, means."""
    yield "| steps of one network | exact −E log p_θ | −ELBO | −ELBO, exact denoiser |\n|---|---|---|---|"
    for T in tours[0]["ddpm_ladder"]:
        means = (np.mean([tour["ddpm_ladder"][T][key] for tour in tours]) for key in ("exact", "bound", "least_bound"))
        yield f"| {T} | {' | '.join(f'{mean:.4f}' for mean in means)} |"


def bits(tours: list[Metrics]) -> Iterator[str]:
    """Bits a pixel of the test digits, mean and range."""
    yield "| model | bits a pixel |\n|---|---|"
    for name in tours[0]["digits_bits_per_dim"]:
        values = [tour["digits_bits_per_dim"][name] for tour in tours]
        same = len({f"{value:.3f}" for value in values}) == 1
        yield f"| {name} | {np.mean(values):.3f}" + (" |" if same else f" ({span(values, 3)}) |")


def drawback(tours: list[Metrics]) -> Iterator[str]:
    """KL of a Gaussian decoder and the least gap of a Gaussian posterior."""
    yield "| | KL(p‖p_θ), nats | least E KL(q‖p_θ(z\\|x)) of a Gaussian q |\n|---|---|---|"
    for name in tours[0]["vae_drawback"]:
        found = [tour["vae_drawback"][name] for tour in tours]
        gaps = (span([one[key] for one in found]) for key in ("model_gap", "least_gaussian_gap"))
        yield f"| {name} | {' | '.join(gaps)} |"


def report(tours: list[Metrics]) -> Iterator[str]:
    """All tables."""
    yield f"Seeds {', '.join(str(tour['seed']) for tour in tours)}; NumPy {tours[0]['numpy']}.\n"
    yield from grades(tours)
    yield "\nDDPM of eight Gaussians, whose entropy H(p) is the exact value in the rows above, nats:\n"
    yield from ladder(tours)
    yield "\nThe Gaussian decoder and the Gaussian posterior of a VAE on the line:\n"
    yield from drawback(tours)
    yield "\nThe 360 test digits:\n"
    yield from bits(tours)


def main() -> None:
    """Print the tables, and write them into a file of Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tour", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a tour")
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="replaces the tables in FILE")
    options = parser.parse_args()
    tours = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in options.folders]
    publish(report(tours), options.markdown)


if __name__ == "__main__":
    main()
