"""How time grows: exponents of N, K and D in EM, of N and T in sampling, of the width in training."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.em import data
from benchmarks.training import Ours, ddpm_problem
from scratchgen import NoiseSchedule
from scratchgen.ddpm import ancestral_sampler
from scratchgen.em import expected_moments
from scratchgen.noise_network import NoiseNetwork


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Least CPU time of several rounds, after one to warm up."""
    work()
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def em(n: int, dimension: int, n_components: int, rounds: int) -> float:
    """One iteration."""
    x, start = data(n, dimension, n_components)
    return seconds(lambda: expected_moments(x, start), rounds)


def sampling(n: int, T: int, rounds: int) -> float:
    """All steps of n chains in 2-D, width 64."""
    network, schedule = NoiseNetwork(2, (64, 64), rng=0), NoiseSchedule.linear(T)
    x = np.random.default_rng(0).standard_normal((n, 2), dtype=np.float32)

    def work() -> None:
        def eps_hat(x: np.ndarray, t: int) -> np.ndarray:
            return network(x, float(schedule.alpha_bar[t]), float(schedule.beta_bar[t]))

        for _ in ancestral_sampler(schedule, eps_hat, x, np.random.default_rng(0)):
            pass

    return seconds(work, rounds)


def training(width: int, rounds: int) -> float:
    """Ten DDPM steps in 64-D, batch 256."""
    return seconds(Ours(ddpm_problem(64, width, 256, 10)).run, rounds)


def report(rounds: int) -> list[str]:
    """Lines of Markdown: times at every size, and the slope of their logarithms."""
    grids: dict[str, tuple[list[int], Callable[[int], float]]] = {
        "EM, N (D = 2, K = 10)": ([10_000, 30_000, 100_000, 300_000], lambda n: em(n, 2, 10, rounds)),
        "EM, K (N = 30,000, D = 2)": ([5, 10, 20, 40], lambda k: em(30_000, 2, k, rounds)),
        "EM, D (N = 10,000, K = 5)": ([4, 8, 16, 32, 64], lambda d: em(10_000, d, 5, rounds)),
        "sampling, N (T = 50)": ([1_000, 3_000, 10_000, 30_000], lambda n: sampling(n, 50, rounds)),
        "sampling, T (N = 2,000)": ([25, 50, 100, 200], lambda T: sampling(2_000, T, rounds)),
        "training, width (64-D, batch 256)": ([64, 128, 256, 512], lambda width: training(width, rounds)),
    }
    lines = ["| what grows | sizes | milliseconds | exponent |", "|---|---|---|---|"]
    for name, (sizes, measure) in grids.items():
        times = [measure(size) for size in sizes]
        exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        shown = ", ".join(f"{1e3 * value:.3g}" for value in times)
        lines.append(f"| {name} | {', '.join(f'{size:,}' for size in sizes)} | {shown} | {exponent:.2f} |")
    return lines
