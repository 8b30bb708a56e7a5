"""Whole processes: how long an import takes, and how long until the first good samples."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib.util import find_spec
from statistics import median

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


def child(code: str) -> tuple[float, str]:
    """CPU seconds of a fresh interpreter that runs this, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def imports(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of `import library` less those of an empty interpreter, one a round."""
    libraries = ["scratchgen", *(name for name in ("torch", "jax", "sklearn.mixture") if find_spec(name.split(".")[0]))]
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    for _ in range(rounds):
        empty = child("pass")[0]
        for name in libraries:
            seconds[name].append(child(f"import {name}")[0] - empty)
    return seconds


def cold_starts(rounds: int) -> tuple[list[float], list[list[float]]]:
    """CPU seconds from nothing to 2,000 samples of eight Gaussians, one seed a round, and what the samples are like.

    E log p of the samples plus H(p) (0 for perfect ones), smallest and largest share of a mode (1/8), MiB at the peak.
    """
    seconds, quality = [], []
    for seed in range(rounds):
        spent, printed = child(COLD_START.format(seed=seed))
        seconds.append(spent)
        quality.append([float(word) for word in printed.split()])
    return seconds, quality


def report(rounds: int) -> list[str]:
    """Lines of Markdown."""
    times = imports(rounds)
    lines = ["| process | CPU seconds, median (range) |", "|---|---|"]
    for name, values in times.items():
        lines.append(f"| `import {name}` | {median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")
    seconds, quality = cold_starts(rounds)
    lines.append(f"| cold start to 2,000 samples | {median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |")
    off, least, most, memory = (sorted(column) for column in zip(*quality, strict=True))
    lines += [
        "",
        f"Samples of the cold starts: E log p + H(p) from {off[0]:.2f} to {off[-1]:.2f} nats, shares of the modes "
        f"from {least[0]:.3f} to {most[-1]:.3f}, peak memory {memory[-1]:.0f} MiB.",
    ]
    return lines
