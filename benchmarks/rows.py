"""Memory of every verb over the rows of a large file: `python -m benchmarks.rows [MEBIBYTES]`.

The numbers are the peaks of NumPy's allocations, by tracemalloc, less the result.  The pages of the file that the
system keeps are not among them, since it drops them when memory is needed.
"""

from __future__ import annotations

import sys
import tempfile
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

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


def write_file(path: Path, mebibytes: int, dimension: int, dtype: str) -> None:
    """Whole numbers 0..3 in a file of about this size, so that all models take them."""
    n, rng = mebibytes * 2**20 // (dimension * np.dtype(dtype).itemsize), np.random.default_rng(1)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n, dimension))
    for start in range(0, n, 65_536):
        x[start : start + 65_536] = rng.integers(0, 4, x[start : start + 65_536].shape)


def added(work: Any, *given: Any, **options: Any) -> tuple[float, float]:
    """Peak of the allocations during work less its result, and the size of the result, MiB."""
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # EM stops early
        result = work(*given, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    parts = result if isinstance(result, tuple) else (result,)
    size = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    return (peak - size) / 2**20, size / 2**20


def measure(mebibytes: int, dimension: int, dtype: str) -> Iterator[tuple[str, str, float, float]]:
    """Model, verb, MiB added and MiB of the result, for a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        write_file(path, mebibytes, dimension, dtype)
        x = np.load(path, mmap_mode="r")
        for unfitted, verbs in MODELS:
            name, model = type(unfitted).__name__, type(unfitted)(**unfitted.get_params())
            if name == "LinearVAE":
                model.fit(x[:1000])
            else:
                yield name, "fit", *added(model.fit, x)
            for verb, options in verbs.items():
                yield name, verb, *added(getattr(model, verb), x, **options)
            yield name, "sample", *added(model.sample, len(x), rng=0)


def main(mebibytes: int = 1024) -> None:
    """Print a table of Markdown for files of 8 and 64 columns, in float32 and float64."""
    print("| file | model | verb | added, MiB | result, MiB |\n|---|---|---|---|---|")
    for dimension in 8, 64:
        for dtype in "float32", "float64":
            for model, verb, peak, size in measure(mebibytes, dimension, dtype):
                file = f"{mebibytes} MiB, {dimension} columns, {dtype}"
                print(f"| {file} | {model} | {verb} | {peak:,.0f} | {size:,.0f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
