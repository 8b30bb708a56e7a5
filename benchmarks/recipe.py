"""Where another recipe than DDPM's default gives a better held-out bound: `python -m benchmarks.recipe`.

DDPM is trained at its defaults, with step_choice="importance", and with weighting="bound" as well.  The data are three
sets in the plane, the digits, and five tables, raw; scikit-learn has four of them.  A fifth of the rows, at most 800,
are held out.  The table has their mean bound, nats a column, in the units of the data: the mean of three seeds and half
their range, for 500, 1500 and 5000 steps and for the default number of steps, which is 5000 for the larger sets.  The
best recipe for a number of steps is bold.
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
from scratchgen import DDPM, datasets
from scratchgen.validation import Array

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    'step_choice="importance"': {"step_choice": "importance"},
    'weighting="bound", step_choice="importance"': {"weighting": "bound", "step_choice": "importance"},
}
STEPS = (500, 1500, 5000, None)
SEEDS = (0, 1, 2)
N_ROWS, MOST_HELD = 4000, 800
TABLES = ("wine", "breast_cancer", "diabetes", "iris")  # of scikit-learn
Data = dict[str, tuple[Array, dict[str, Any]]]


def sets() -> Data:
    """Rows, (N, D), and further arguments of DDPM, by name."""
    found: Data = {
        "eight Gaussians": (datasets.eight_gaussians().sample(N_ROWS, rng=0), {}),
        "two moons": (datasets.two_moons().sample(N_ROWS, rng=0), {}),
        "checkerboard": (datasets.checkerboard().sample(N_ROWS, rng=0), {}),
        "digits": (datasets.digits().images, {"n_levels": 17}),
        "penguins": (datasets.penguins().measurements, {}),
    }
    return found | {name: (table(name), {}) for name in TABLES}


def parted(x: Array) -> tuple[Array, Array]:
    """Rows for training and held-out rows of x, (N, D)."""
    rows = np.random.default_rng(0).permutation(len(x))
    n_held = min(len(x) // 5, MOST_HELD)
    return x[rows[n_held:]], x[rows[:n_held]]


def bounds(x: Array, recipe: dict[str, Any], n_steps: int | None, seeds: tuple[int, ...]) -> list[float]:
    """Mean bound of the held-out rows, nats a column, of one training for every seed."""
    rest, held_out = parted(x)
    models = (DDPM(n_steps=n_steps, rng=seed, **recipe).fit(rest) for seed in seeds)
    return [float(model.elbo(held_out, rng=1).mean()) / x.shape[1] for model in models]


def measure(
    x: Array, further: dict[str, Any], steps: tuple[int | None, ...], seeds: tuple[int, ...]
) -> dict[str, list[list[float]]]:
    """`bounds` for every number of steps, by recipe."""
    found: dict[str, list[list[float]]] = {}
    for name, recipe in RECIPES.items():
        known: dict[int, list[float]] = {}  # the default number of steps may be among the others
        for n in steps:
            planned = DDPM(n_steps=n)._planned_steps(len(parted(x)[0]))
            known[planned] = known.get(planned) or bounds(x, recipe | further, planned, seeds)
            found.setdefault(name, []).append(known[planned])
    return found


def report(data: Data, steps: tuple[int | None, ...], seeds: tuple[int, ...]) -> Iterator[str]:
    """Lines of Markdown."""
    titles = [f"{n} steps" if n else "default steps" for n in steps]
    yield f"| data | N, D | recipe | {' | '.join(titles)} |\n|{'---|' * (3 + len(steps))}"
    for name, (x, further) in data.items():
        found = measure(x, further, steps, seeds)
        best = [max(map(np.mean, column)) for column in zip(*found.values(), strict=True)]
        for recipe, row in found.items():
            cells = []
            for values, top in zip(row, best, strict=True):
                mean = f"{np.mean(values):.3f}"
                cells.append(f"{f'**{mean}**' if np.mean(values) == top else mean} ± {np.ptp(values) / 2:.3f}")
            yield f"| {name} | {len(x)}, {x.shape[1]} | {recipe} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="iris and penguins, 500 steps and the default, one seed")
    parser.add_argument("--only", default="", metavar="NAME", help="one set, by its name in the table")
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="replaces the table in FILE")
    options = parser.parse_args()
    threadpool_limits(1, user_api="blas")
    data = sets()
    kept = (options.only,) if options.only else ("iris", "penguins") if options.quick else tuple(data)
    if unknown := set(kept) - set(data):
        parser.error(f"--only must be one of {', '.join(data)}, got {', '.join(unknown)}")
    steps, seeds = ((500, None), SEEDS[:1]) if options.quick else (STEPS, SEEDS)
    publish(report({name: data[name] for name in kept}, steps, seeds), options.markdown)


if __name__ == "__main__":
    main()
