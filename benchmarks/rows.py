"""Memory of every verb over the rows of a large file: `python -m benchmarks.rows [MEBIBYTES]`.

The numbers are the peaks of NumPy's allocations, by tracemalloc, less what the work must hold: its result, and in the
fit of a network the copy of the rows in float32.  The pages of the file that the system keeps are not among them, since
it drops them when memory is needed.  The rows of a smaller file take fewer blocks, and the same memory for each.
"""

from __future__ import annotations

import argparse
import tempfile
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import Suite, publish
from benchmarks.timing import pin_to_one_core, start_with_one_thread
from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    NoiseSchedule,
    ScoreSDE,
)

SMALL: dict[str, Any] = {"hidden": (64,), "n_steps": 5, "rng": 0}
RANDOM: dict[str, Any] = {"rng": 0}
MIXTURE = {"score_samples": {}, "elbo": {}, "predict": {}, "predict_proba": {}}
LINEAR = {"score_samples": {}, "elbo": {}, "encode": {}}
# Model, and its verbs over rows with their options, beside `fit` and `sample`; few iterations, steps and draws.
MODELS: list[tuple[Any, dict[str, dict[str, Any]]]] = [
    (GaussianMixture(5, max_iter=2, rng=0), MIXTURE),
    (CategoricalMixture(5, n_levels=4, max_iter=2, rng=0), MIXTURE),
    (PPCA(2, method="em", max_iter=2, rng=0), LINEAR),
    (FactorAnalysis(2, max_iter=2, rng=0), LINEAR),
    (
        VAE(2, **SMALL),
        {"elbo": RANDOM | {"n_draws": 2}, "iwae": RANDOM | {"n_draws": 2}, "encode": {}, "reconstruct": {}},
    ),
    (
        DDPM(NoiseSchedule.linear(5), **SMALL),
        {"elbo": RANDOM, "bound_terms": RANDOM, "iwae": RANDOM | {"n_draws": 1}, "noise_losses": RANDOM},
    ),
    (ScoreSDE(n_sample_steps=5, **SMALL), {"elbo": RANDOM | {"n_times": 2}}),
    (LinearVAE(2, n_steps=2, rng=0), {"log_prob": {}, "elbo": {}}),  # a step of `fit` takes all rows at once
]


def write_file(path: Path, mebibytes: float, dimension: int, dtype: str) -> np.ndarray:
    """Whole numbers 0..3 in a file of about this size, so that all models take them; opened for reading."""
    n, rng = int(mebibytes * 2**20) // (dimension * np.dtype(dtype).itemsize), np.random.default_rng(1)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n, dimension))
    for start in range(0, n, 65_536):
        x[start : start + 65_536] = rng.integers(0, 4, x[start : start + 65_536].shape)
    return np.load(path, mmap_mode="r")


def added(work: Any, *given: Any, **options: Any) -> float:
    """Peak of the allocations during work less its result, MiB."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # EM stops early
            result = work(*given, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    parts = result if isinstance(result, tuple) else (result,)
    return (peak - sum(part.nbytes for part in parts if isinstance(part, np.ndarray))) / 2**20


def measure(unfitted: Any, verbs: dict[str, dict[str, Any]], x: np.ndarray) -> Iterator[tuple[str, float]]:
    """Every verb of a model over the rows of x, (N, D), and the MiB that it adds."""
    name, model = type(unfitted).__name__, type(unfitted)(**unfitted.get_params())
    if name == "LinearVAE":
        model.fit(x[:1000])
    else:
        copy = 4 * x.size / 2**20 if name in ("VAE", "DDPM", "ScoreSDE") else 0.0
        yield f"{name}.fit", added(model.fit, x) - copy
    for verb, options in verbs.items():
        yield f"{name}.{verb}", added(getattr(model, verb), x, **options)
    yield f"{name}.sample", added(model.sample, len(x), rng=0)


Record = dict[str, dict[str, float]]  # model.verb -> file -> MiB added


def report(mebibytes: float, dimensions: tuple[int, ...], record: Record) -> Iterator[str]:
    """A table of Markdown for files in float32 and float64; fill `record`."""
    kinds = [(dimension, dtype) for dimension in dimensions for dtype in ("float32", "float64")]
    titles = [f"{mebibytes} MiB, {dimension} columns, {dtype}" for dimension, dtype in kinds]
    yield f"| MiB that a verb adds | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}"
    with tempfile.TemporaryDirectory() as folder:
        files = [write_file(Path(folder) / f"{i}.npy", mebibytes, *kind) for i, kind in enumerate(kinds)]
        for unfitted, verbs in MODELS:
            for row in zip(*(measure(unfitted, verbs, x) for x in files), strict=True):
                values = [value for _, value in row]
                record[row[0][0]] = dict(zip(titles, values, strict=True))
                yield f"| {row[0][0]} | {' | '.join(f'{value:.0f}' for value in values)} |"


def suite(quick: bool, rounds: int) -> Suite:
    """Part of `python -m benchmarks`: files of 64 MiB; `quick` takes one size of row and 4 MiB."""
    record: Record = {}
    yield from report(4 if quick else 64, (8,) if quick else (8, 64), record)
    return record


def main() -> None:
    """Print a table of Markdown for files of 8 and 64 columns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__)
    parser.add_argument("mebibytes", nargs="?", type=int, default=1024, help="size of each file (default 1024)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replaces the table in FILE")
    options = parser.parse_args()
    start_with_one_thread("benchmarks.rows")
    pin_to_one_core()
    publish(report(options.mebibytes, (8, 64), {}), options.markdown)


if __name__ == "__main__":
    main()
