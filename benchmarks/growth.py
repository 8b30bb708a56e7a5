"""Growth of time and memory: with N, K and D in EM, with N and T in sampling, with the width in training."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.em import data
from benchmarks.markdown import Suite
from benchmarks.timing import Work
from benchmarks.training import Ours, ddpm_problem
from scratchgen import NoiseSchedule
from scratchgen.ddpm import ancestral_sampler
from scratchgen.fast.em_statistics import expected_statistics
from scratchgen.nn import NoiseNetwork


class Curve(NamedTuple):
    """The measurements at every size."""

    sizes: list[int]
    seconds: list[float]
    mebibytes: list[float]

    @property
    def exponent(self) -> float:
        """Slope of log time against log size."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])


def em(n: int, dimension: int, n_components: int) -> Work:
    """One iteration."""
    x, start = data(n, dimension, n_components)
    return lambda: expected_statistics(x, start)


def sampling(n: int, T: int) -> Work:
    """All steps of n chains in 2-D, width 64."""
    network, schedule = NoiseNetwork(2, (64, 64), rng=0), NoiseSchedule.linear(T)
    x = np.random.default_rng(0).standard_normal((n, 2), dtype=np.float32)

    def eps_hat(x: np.ndarray, t: int) -> np.ndarray:
        return network(x, float(schedule.alpha_bar[t]), float(schedule.beta_bar[t]))

    def work() -> None:
        for _ in ancestral_sampler(schedule, eps_hat, x, np.random.default_rng(0)):
            pass

    return work


GRIDS: dict[str, tuple[list[int], Callable[[int], Work]]] = {
    "EM, N (D = 2, K = 10)": ([10_000, 30_000, 100_000, 300_000, 1_000_000], lambda n: em(n, 2, 10)),
    "EM, N (D = 64, K = 3)": ([10_000, 30_000, 100_000], lambda n: em(n, 64, 3)),
    "EM, K (N = 30,000, D = 2)": ([10, 20, 40, 80, 160], lambda k: em(30_000, 2, k)),
    "EM, D (N = 10,000, K = 5)": ([4, 8, 16, 32, 64], lambda d: em(10_000, d, 5)),
    "sampling, N (T = 50)": ([1_000, 3_000, 10_000, 30_000], lambda n: sampling(n, 50)),
    "sampling, T (N = 1,000)": ([50, 100, 200, 500, 1_000], lambda T: sampling(1_000, T)),
    "training, width (64-D, batch 256)": ([64, 128, 256, 512], lambda w: Ours(ddpm_problem(64, w, 256, 10)).run),
}


def measure(sizes: list[int], prepare: Callable[[int], Work], rounds: int) -> Curve:
    """The least CPU time over rounds that run every size in turn, and the peak of the allocations of NumPy."""
    works, peaks = [prepare(size) for size in sizes], []
    for work in works:
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    least = [float("inf")] * len(sizes)
    for _ in range(rounds):
        for i, work in enumerate(works):
            began = time.process_time()
            work()
            least[i] = min(least[i], time.process_time() - began)
    return Curve(sizes, least, peaks)


def curves(quick: bool, rounds: int) -> dict[str, Curve]:
    """All grids; `quick` leaves out the largest size of each."""
    return {name: measure(sizes[: -1 if quick else None], prepare, rounds) for name, (sizes, prepare) in GRIDS.items()}


def report(found: dict[str, Curve]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| growing size | sizes | milliseconds | exponent | peak of allocations, MiB |"
    yield "|---|---|---|---|---|"
    for name, curve in found.items():
        sizes = ", ".join(f"{size:,}" for size in curve.sizes)
        times = ", ".join(f"{1e3 * value:.3g}" for value in curve.seconds)
        memory = ", ".join(f"{value:.2g}" for value in curve.mebibytes)
        yield f"| {name} | {sizes} | {times} | {curve.exponent:.2f} | {memory} |"


def suite(quick: bool, rounds: int) -> Suite:
    """Measure, yield Markdown, and return the measurements."""
    found = curves(quick, rounds)
    yield from report(found)
    return found
