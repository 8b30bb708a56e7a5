"""Held-out bounds for different numbers of coordinate features: `python -m benchmarks.features`.

ScoreSDE, or another model with `--model`, is trained with 0 to 3 frequencies of `n_coordinate_features`, and defaults
for all else, on sets in a plane and on tables of one to four columns.  A fifth of the rows, at most 1000, are held out;
every seed holds out other rows.  The cells are their mean bound, nats a column, of standardised columns, and for 1 to 3
frequencies the difference from 0, with its standard error over the seeds.  The tables come from scikit-learn and
statsmodels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.markdown import publish
from benchmarks.tables import table
from scratchgen import DDPM, ScoreSDE, datasets
from scratchgen.validation import Array

MODELS: dict[str, Any] = {"ScoreSDE": ScoreSDE, "DDPM": DDPM}
FREQUENCIES = (0, 1, 2, 3)
N_SEEDS = 5
TABLES = ("engel", "nile", "sunspots", "cancer", "strikes", "heart", "iris", "stackloss", "grunfeld")
MOST_HELD = 1000


def sets() -> dict[str, Array]:
    """Rows, (N, D), by name."""
    ring, board = datasets.eight_gaussians(), datasets.checkerboard()
    return {
        "three Gaussians on the line": datasets.gaussians_1d().sample(500, rng=0),
        "eight Gaussians, 100": ring.sample(100, rng=0),
        "eight Gaussians": ring.sample(2500, rng=0),
        "two moons, 250": datasets.two_moons().sample(250, rng=0),
        "two moons": datasets.two_moons().sample(2500, rng=0),
        "checkerboard": board.sample(2500, rng=0),
        "swiss roll": datasets.swiss_roll().sample(2500, rng=0),
        "pinwheel": datasets.pinwheel().sample(2500, rng=0),
        "four overlapping Gaussians": datasets.gaussians_2d().sample(500, rng=0),
        "penguins": datasets.penguins().measurements,
    }


def held_out_bound(cls: Any, x: Array, n_frequencies: int, seed: int) -> float:
    """Mean bound of held-out rows of the standardised x, (N, D), nats a column."""
    rows = np.random.default_rng(seed).permutation(len(x))
    n_held = min(len(x) // 5, MOST_HELD)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    model = cls(n_coordinate_features=n_frequencies, rng=seed).fit(standard[rows[n_held:]])
    return float(model.elbo(standard[rows[:n_held]], rng=1).mean()) / x.shape[1]


def report(cls: Any, data: dict[str, Array], n_seeds: int) -> Iterator[str]:
    """Lines of Markdown, as soon as they are measured."""
    yield f"| {cls.__name__} | N, D | {' | '.join(map(str, FREQUENCIES))} |\n|{'---|' * (2 + len(FREQUENCIES))}"
    for name, x in data.items():
        bounds = np.array([[held_out_bound(cls, x, n, seed) for seed in range(n_seeds)] for n in FREQUENCIES])
        gains = bounds[1:] - bounds[0]
        errors = gains.std(axis=1, ddof=1) / n_seeds**0.5
        cells = [f"{gain:+.3f} ± {error:.3f}" for gain, error in zip(gains.mean(axis=1), errors, strict=True)]
        yield f"| {name} | {len(x)}, {x.shape[1]} | {' | '.join([f'{bounds[0].mean():.3f}', *cells])} |"


def main() -> None:
    """Print the table, and write it into a file of Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="ScoreSDE")
    parser.add_argument("--quick", action="store_true", help="two small sets that need no further library, two seeds")
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="replaces the table in FILE")
    options = parser.parse_args()
    threadpool_limits(1, user_api="blas")
    data = sets()
    if options.quick:
        data = {name: x for name, x in data.items() if len(x) <= 250}
    else:
        data |= {name: table(name) for name in TABLES}
    publish(report(MODELS[options.model], data, 2 if options.quick else N_SEEDS), options.markdown)


if __name__ == "__main__":
    main()
