"""Held-out bounds after different numbers of training steps: `python -m benchmarks.steps`.

VAE, DDPM and ScoreSDE are trained with 100 to 10,000 steps, and defaults for all else, on tables of 150 to 20,000 rows.
A fifth of the rows, at most 1000, are held out.  The cells are their mean bound in nats, in units of the data, for one
seed; the best of a row is bold.  Three of the tables come from scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from benchmarks.tables import table
from scratchgen import DDPM, VAE, ScoreSDE, datasets
from scratchgen.validation import Array

STEPS = (100, 300, 1000, 3000, 10_000)
MODELS = {"VAE": VAE, "DDPM": DDPM, "ScoreSDE": ScoreSDE}


def tables() -> dict[str, Array]:
    """Raw data, (N, D) each."""
    ring = datasets.eight_gaussians()
    return {
        "iris": table("iris"),
        "wine": table("wine"),
        "eight Gaussians, 250": ring.sample(250, rng=0),
        "penguins": datasets.penguins().measurements,
        "breast cancer": table("breast_cancer"),
        "eight Gaussians, 2500": ring.sample(2500, rng=0),
        "eight Gaussians, 20000": ring.sample(20_000, rng=0),
    }


def held_out_bounds(name: str, x: Array, steps: tuple[int, ...]) -> list[float]:
    """Mean bound of held-out rows of x, (N, D), after a training of each number of steps, nats."""
    rows = np.random.default_rng(0).permutation(len(x))
    n_held = min(len(x) // 5, 1000)
    held_out, rest = x[rows[:n_held]], x[rows[n_held:]]
    return [float(MODELS[name](n_steps=n, rng=0).fit(rest).elbo(held_out, rng=1).mean()) for n in steps]


def report(steps: tuple[int, ...], data: dict[str, Array]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| model | data | N, D | " + " | ".join(f"{n} steps" for n in steps) + " |"
    yield "|---" * (3 + len(steps)) + "|"
    for model in MODELS:
        for name, x in data.items():
            bounds = held_out_bounds(model, x, steps)
            cells = [f"**{bound:.2f}**" if bound == max(bounds) else f"{bound:.2f}" for bound in bounds]
            yield f"| {model} | {name} | {len(x)}, {x.shape[1]} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tables, 100 and 300 steps")
    quick = parser.parse_args().quick
    data = {name: x for name, x in tables().items() if not quick or name in ("iris", "penguins")}
    for line in report(STEPS[:2] if quick else STEPS, data):
        print(line, flush=True)


if __name__ == "__main__":
    main()
