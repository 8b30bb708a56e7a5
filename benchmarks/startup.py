"""Whole processes: the time of an import, and the time until the first good samples."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

from benchmarks.markdown import Suite

COLD_START = """
from scratchgen import DDPM, datasets
truth = datasets.eight_gaussians()
model = DDPM(hidden=(64, 64), n_coordinate_features=2, n_steps=1500, batch_size=128, learning_rate=1e-2, ema_decay=0.98,
             weighting="bound", step_choice="importance", standardize=False, rng={seed}).fit(truth.sample(5000, {seed}))
x = model.sample(2000, {seed})
import numpy as np
shares = np.bincount(((x[:, None] - truth.means) ** 2).sum(-1).argmin(1), minlength=8) / len(x)
peak = next((float(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")), 0.0)
print(truth.log_prob(x).mean() + truth.entropy(), shares.min(), shares.max(), peak)
"""


class ColdStarts(NamedTuple):
    """The measurements of `cold_starts`."""

    seconds: list[float]
    quality: list[list[float]]  # E log p + H, smallest and largest share of a mode, MiB, per seed


def child(code: str) -> tuple[float, str]:
    """CPU seconds of a fresh interpreter that runs the code, and its output.

    Byte code is kept between runs, as after `pip install`.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def imports(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of `import library` minus those of an empty interpreter, one value per round."""
    libraries = ["scratchgen", *(name for name in ("torch", "jax", "sklearn.mixture") if find_spec(name.split(".")[0]))]
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    for name in libraries:
        child(f"import {name}")
    for _ in range(rounds):
        empty = child("pass")[0]
        for name in libraries:
            seconds[name].append(child(f"import {name}")[0] - empty)
    return seconds


def cold_starts(rounds: int) -> ColdStarts:
    """CPU seconds from an empty process to 2,000 samples of eight Gaussians, one seed per round, and sample quality.

    The quality is E log p of the samples plus H(p) (0 for perfect samples), the smallest and the largest share of a
    mode (ideally 1/8), and the peak memory in MiB.
    """
    seconds, quality = [], []
    for seed in range(rounds):
        spent, printed = child(COLD_START.format(seed=seed))
        seconds.append(spent)
        quality.append([float(word) for word in printed.split()])
    return ColdStarts(seconds, quality)


def report(imported: dict[str, list[float]], started: ColdStarts) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| process | CPU seconds, median (range) |"
    yield "|---|---|"
    rows = {f"`import {name}`": values for name, values in imported.items()}
    for name, values in (rows | {"cold start to 2,000 samples": started.seconds}).items():
        yield f"| {name} | {median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |"
    off, least, most, memory = (sorted(column) for column in zip(*started.quality, strict=True))
    yield ""
    yield (
        f"Samples of the cold starts: E log p + H(p) from {off[0]:.2f} to {off[-1]:.2f} nats, shares of the modes from "
        f"{least[0]:.3f} to {most[-1]:.3f}, peak memory {memory[-1]:.0f} MiB."
    )


def suite(quick: bool, rounds: int) -> Suite:
    """Measure, yield Markdown, and return the measurements."""
    found = imports(rounds), cold_starts(rounds)
    yield from report(*found)
    return found
