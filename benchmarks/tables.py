"""The defaults of VAE, DDPM and ScoreSDE on ordinary tables: `python -m benchmarks.tables`.

The tables are those of scikit-learn and statsmodels, raw: columns of numbers that vary, rows without a missing cell.
The defaults were chosen on the 20 tables of `TUNED`; the 12 of `HELD_BACK` were used only here.

The first table describes 2000 samples of each model, for three seeds:

- "mean": the largest error of a column's mean, in standard deviations of the column.  The target is at most 0.2.
- "sd": the standard deviation of the samples over that of the data, for the column where this ratio is farthest from 1.
  The target is 0.7 to 1.3.  The standard deviation of some columns comes from a few rows, and a bootstrap of the table
  misses the target too.  The number in brackets leaves these columns out: it is the worst ratio of the columns where
  90 % of bootstraps reach the target.
- "forest": the accuracy with which a random forest tells rows of the data from samples, in five folds.  The accuracy is
  0.5 if rows and samples look the same, and lower if samples are near copies of rows.  The target is at most 0.7.
- "hand": the accuracy of the forest for columns that were standardised by hand, for the first seed.  A table where
  "hand" is above 0.7 does not count as a miss of the forest.

The cells show the worst of three seeds, and the range for the forest.  "data" is the accuracy of a forest for one half
of the rows against the other half; below 50 rows it is mostly noise.  Misses are bold.  The samples are real numbers,
so that a forest recognises them at once in a column of whole numbers.

The second table is for tables below 1250 rows, where the default number of steps is below 5000; one seed.  A fifth of
the rows is held out.  "bound" is the mean bound of the held-out rows in nats a column, of standardised columns.
"copies" is the median distance of samples from the nearest row of training, over that of the held-out rows: samples are
copies if it is far below 1.  Both are shown for the default and for 5000 steps; a bound that is better by 0.1 is bold.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.markdown import publish
from scratchgen import DDPM, VAE, ScoreSDE
from scratchgen.validation import Array

MODELS: dict[str, Any] = {"VAE": VAE, "DDPM": DDPM, "ScoreSDE": ScoreSDE}
BUNDLED = ("wine", "iris", "breast_cancer", "diabetes", "digits", "linnerud")  # of scikit-learn
TUNED = (
    *BUNDLED, "copper", "anes96", "fair", "macrodata", "statecrime", "engel", "star98", "longley", "stackloss",
    "scotland", "ccard", "randhie", "cancer", "heart",
)  # fmt: skip
HELD_BACK = (
    "committee", "cpunish", "danish_data", "elnino", "grunfeld", "interest_inflation", "modechoice", "nile", "strikes",
    "sunspots", "spector", "china_smoking",
)  # fmt: skip
QUICK = ("iris", "spector")
N_SAMPLES = 2000
FOREST_ROWS = 500  # most rows of the data that a forest sees
SEEDS = (0, 1, 2)
LONG = 5000  # steps


class Moments(NamedTuple):
    """One model on one table; NaN for samples that are not finite."""

    mean: float  # largest error of a column's mean, standard deviations of the column, over all seeds
    ratio: float  # standard deviation of the samples over that of the data, of the worst column and seed
    sure_ratio: float  # the same of the columns that are `determined`; 1 if there is none
    forests: Array  # accuracy of the forest by seed
    hand: float  # accuracy of the forest for columns that were standardised by hand


class Memory(NamedTuple):
    """One model on four fifths of a table."""

    bound: float  # mean bound of held-out rows, nats a column
    copies: float  # median distance from the nearest row of training: of samples over that of held-out rows


def table(name: str) -> Array:
    """Numbers of a table, (N, D), without constant columns and rows with missing cells."""
    if name in BUNDLED:
        from sklearn import datasets

        data = getattr(datasets, f"load_{name}")()
        x = np.hstack([data.data, data.target]) if name == "linnerud" else data.data
    else:
        from statsmodels.api import datasets

        x = getattr(datasets, name).load_pandas().data.select_dtypes("number").dropna().to_numpy(np.float64)
    return varying(x)


def varying(x: Array) -> Array:
    """The columns of x, (N, D), that are not constant."""
    return x[:, np.ptp(x, axis=0) > 0]


def forest(x: Array, other: Array) -> float:
    """Accuracy of a random forest that tells rows of x, (N, D), from rows of other, (M, D), in at most five folds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    both = np.vstack([x, other])
    label = np.arange(len(both)) < len(x)
    folds = min(5, len(x), len(other))
    return float(cross_val_score(RandomForestClassifier(100, random_state=0), both, label, cv=folds).mean())


def forest_on_samples(x: Array, samples: Array) -> float:
    """Accuracy of a forest for at most 500 random rows of x and as many samples; NaN if samples are not finite."""
    rows = np.random.default_rng(0).permutation(len(x))[:FOREST_ROWS]
    return forest(x[rows], samples[: len(rows)]) if np.isfinite(samples).all() else np.nan


def floor_of(x: Array) -> float:
    """Accuracy of a forest for one half of the rows of x, (N, D), at most 500, against another half."""
    rows = np.random.default_rng(1).permutation(len(x))
    half = min(len(x) // 2, FOREST_ROWS)
    return forest(x[rows[:half]], x[rows[half : 2 * half]])


def samples_of(cls: Any, x: Array, seed: int) -> Array:
    """2000 samples of a model that was trained on x, (N, D), at its defaults; NaN if training or sampling failed."""
    try:
        return np.asarray(cls(rng=seed).fit(x).sample(N_SAMPLES, rng=seed))
    except ArithmeticError:
        return np.full((N_SAMPLES, x.shape[1]), np.nan)


def determined(x: Array) -> Array:
    """Whether 90 % of bootstraps of x, (N, D), have 0.7 to 1.3 times the standard deviation of a column, (D,)."""
    rng = np.random.default_rng(2)
    stds = np.array([x[rng.integers(len(x), size=len(x))].std(axis=0) for _ in range(200)])
    low, high = np.quantile(stds / x.std(axis=0), (0.05, 0.95), axis=0)
    return (low >= 0.7) & (high <= 1.3)


def farthest(ratios: Array) -> float:
    """The number that is farthest from 1, NaN if there is one, and 1 if there is none."""
    return float(ratios[np.abs(ratios - 1).argmax()]) if len(ratios) else 1.0


def moments(cls: Any, x: Array, seeds: tuple[int, ...]) -> Moments:
    """Train a model on x, (N, D), with every seed, and compare its samples with x."""
    samples = [samples_of(cls, x, seed) for seed in seeds]
    mean, std = x.mean(axis=0), x.std(axis=0)
    errors = np.array([np.abs(drawn.mean(axis=0) - mean) / std for drawn in samples])
    ratios = np.array([drawn.std(axis=0) / std for drawn in samples])
    forests = np.array([forest_on_samples(x, drawn) for drawn in samples])
    standard = (x - mean) / std
    hand = forest_on_samples(standard, samples_of(cls, standard, seeds[0]))
    sure = ratios[:, determined(x)].ravel()
    return Moments(float(errors.max()), farthest(ratios.ravel()), farthest(sure), forests, hand)


def memory(cls: Any, x: Array, n_steps: int | None) -> Memory:
    """Train a model on four fifths of the standardised rows of x, (N, D), and look for copies of these rows."""
    rows = np.random.default_rng(0).permutation(len(x))
    n_held = max(len(x) // 5, 1)
    used = np.ptp(x[rows[n_held:]], axis=0) > 0
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    held_out, rest = standard[rows[:n_held], :][:, used], standard[rows[n_held:], :][:, used]
    model = cls(n_steps=n_steps, rng=0).fit(rest)
    tree = cKDTree(rest)
    samples, others = (float(np.median(tree.query(points)[0])) for points in (model.sample(1000, rng=1), held_out))
    bound = float(model.elbo(held_out, rng=1).mean()) / rest.shape[1]
    return Memory(bound, samples / others if others else np.nan)


def measure(name: str, seeds: tuple[int, ...]) -> tuple[tuple[int, ...], float, dict[str, Moments]]:
    """Shape, floor of the forest, and moments by model, of one table."""
    warnings.simplefilter("ignore")  # of scikit-learn, for tables of few rows
    x = table(name)
    return x.shape, floor_of(x), {model: moments(cls, x, seeds) for model, cls in MODELS.items()}


def remember(name: str) -> tuple[tuple[int, ...], dict[str, tuple[Memory, Memory]]] | None:
    """Shape, and memory by model at the default and after 5000 steps; None for a table where they are the same."""
    x = table(name)
    if len(x) * 4 >= LONG:
        return None
    return x.shape, {model: (memory(cls, x, None), memory(cls, x, LONG)) for model, cls in MODELS.items()}


def marked(text: str, is_miss: bool) -> str:
    """The text, bold for a miss."""
    return f"**{text}**" if is_miss else text


def misses(found: Moments) -> tuple[bool, bool, bool, bool]:
    """Whether the means, the standard deviations, those that are determined, and the forest miss; NaN is a miss."""
    by_forest = not found.forests[0] <= 0.7 and not found.hand > 0.7  # the same seed
    return not found.mean <= 0.2, not 0.7 <= found.ratio <= 1.3, not 0.7 <= found.sure_ratio <= 1.3, by_forest


def cells(found: Moments) -> list[str]:
    """Four cells of the first table."""
    mean, std, sure, by_forest = misses(found)
    return [
        marked(f"{found.mean:.2f}", mean),
        f"{marked(f'{found.ratio:.2f}', std)} ({marked(f'{found.sure_ratio:.2f}', sure)})",
        marked(f"{found.forests.min():.2f} to {found.forests.max():.2f}", by_forest),
        f"{found.hand:.2f}",
    ]


def samples_report(names: tuple[str, ...], found: Iterator[Any]) -> Iterator[str]:
    """Lines of the first table, from the results of `measure`, and how often each model misses."""
    heads = [f"{model}: {head}" for model in MODELS for head in ("mean", "sd", "forest", "hand")]
    yield f"| table | N, D | data | {' | '.join(heads)} |\n|{'---|' * (3 + len(heads))}"
    counts = {model: np.zeros((2, 4), dtype=int) for model in MODELS}
    for name, (shape, floor, by_model) in zip(names, found, strict=True):
        row = [f"{name} (held back)" if name in HELD_BACK else name, f"{shape[0]}, {shape[1]}", f"{floor:.2f}"]
        for model, each in by_model.items():
            counts[model][int(name in HELD_BACK)] += misses(each)
            row += cells(each)
        yield f"| {' | '.join(row)} |"
    yield ""
    n_held = sum(name in HELD_BACK for name in names)
    for model, (tuned, held) in counts.items():
        yield (
            f"- {model}: mean missed in {tuned[0]}, sd in {tuned[1]} (in brackets {tuned[2]}), forest in {tuned[3]} of "
            f"{len(names) - n_held} tables; held back {held[0]}, {held[1]} ({held[2]}) and {held[3]} of {n_held}"
        )


def memory_report(names: tuple[str, ...], found: Iterator[Any]) -> Iterator[str]:
    """Lines of the second table, from the results of `remember`, and how often the default has the better bound."""
    heads = [f"{model}: {head}" for model in MODELS for head in ("bound", "at 5000", "copies", "at 5000")]
    yield f"\n| table | N, D | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}"
    better = {model: np.zeros(2, dtype=int) for model in MODELS}
    for name, (shape, by_model) in ((name, each) for name, each in zip(names, found, strict=True) if each):
        row = [f"{name} (held back)" if name in HELD_BACK else name, f"{shape[0]}, {shape[1]}"]
        for model, (default, long) in by_model.items():
            better[model] += default.bound > long.bound, 1
            row += [marked(f"{default.bound:.2f}", default.bound > long.bound + 0.1)]
            row += [marked(f"{long.bound:.2f}", long.bound > default.bound + 0.1)]
            row += [f"{default.copies:.2f}", f"{long.copies:.2f}"]
        yield f"| {' | '.join(row)} |"
    yield ""
    for model, (n, of) in better.items():
        yield f"- {model} has the better held-out bound at its default in {n} of {of} tables."


def report(names: tuple[str, ...], seeds: tuple[int, ...], workers: int) -> Iterator[str]:
    """Lines of Markdown, as soon as they are measured."""
    began = time.monotonic()
    with ProcessPoolExecutor(workers) as pool:
        yield from samples_report(names, pool.map(measure, names, [seeds] * len(names)))
        yield from memory_report(names, pool.map(remember, names))
    processes = f"{workers} process{'es' * (workers > 1)}"
    yield f"\n{processes} with one thread each, {(time.monotonic() - began) / 60:.0f} minutes."


def main() -> None:
    """Print both tables, and write them into a file of Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)} only, one seed; a minute")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (default 2)")
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="replaces the tables in FILE")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for the worker processes
    names, seeds = (QUICK, SEEDS[:1]) if options.quick else ((*TUNED, *HELD_BACK), SEEDS)
    publish(report(names, seeds, options.workers), options.markdown)


if __name__ == "__main__":
    main()
