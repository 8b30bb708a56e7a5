"""Paired timing: every side does the same work in one interleaved run, on one core, by CPU time."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Work = Callable[[], object]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def start_with_one_thread(module: str) -> None:
    """Start `python -m module` again with one thread in every library, unless it was started so.

    The libraries read these variables when they are loaded.
    """
    if any(os.environ.get(name) != "1" for name in THREADS):
        single = os.environ | dict.fromkeys(THREADS, "1")
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], single)


def pin_to_one_core() -> int:
    """Keep this process, its threads and the processes that it starts on one core.

    Returns the number of the core, −1 where the system cannot do this.
    """
    if not hasattr(os, "sched_setaffinity"):
        return -1
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


@dataclass
class Case:
    """One piece of work for several sides.

    `sides` maps a name to a function that prepares the work (imports, weights, batches) and returns a function that
    does the work once.  The first side is ours.  `limit` is the time of the bare matrix products, a lower bound.
    `check` returns the largest deviation of the results of every side from ours.
    """

    name: str
    sides: dict[str, Callable[[], Work]]
    check: Callable[[], dict[str, float]]
    tolerance: float
    units: int = 1  # steps, iterations or calls in one piece of work
    limit: Work | None = None
    missing: list[str] = field(default_factory=list)  # sides whose library is not installed


@dataclass
class Timing:
    """Seconds of CPU time per unit for every side, one number per round."""

    name: str
    seconds: dict[str, list[float]]
    deviations: dict[str, float]
    tolerance: float
    missing: list[str] = field(default_factory=list)  # sides whose library is not installed

    @property
    def disagreeing(self) -> list[str]:
        """Sides without timing, because their results differ from ours."""
        return [side for side in self.deviations if side not in self.seconds]

    def median(self, side: str) -> float:
        """Seconds."""
        return float(np.median(self.seconds[side]))

    def ratio(self, side: str, base: str | None = None) -> tuple[float, float, float]:
        """Median, minimum and maximum of time(side)/time(base) over the rounds; the default base is ours."""
        base = next(iter(self.seconds)) if base is None else base
        ratios = np.array(self.seconds[side]) / np.array(self.seconds[base])
        return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


LIMIT = "bare matrix products"


def time_case(case: Case, rounds: int = 9) -> Timing:
    """Run every side that agrees with ours once as a warm-up, then `rounds` times in turn.

    A side whose results deviate by more than the tolerance is not timed, because its work is different.
    """
    deviations = case.check()
    makers = {side: make for side, make in case.sides.items() if deviations.get(side, 0.0) <= case.tolerance}
    sides = {side: make() for side, make in makers.items()}
    if case.limit is not None:
        sides[LIMIT] = case.limit
    for work in sides.values():
        work()
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    names = list(sides)
    gc.collect()
    gc.disable()  # a garbage collection visits all objects of torch and JAX, and leaves the caches cold
    try:
        for i in range(rounds):
            for side in names[i % len(names) :] + names[: i % len(names)]:  # the first side changes from round to round
                began = time.process_time()
                sides[side]()
                seconds[side].append((time.process_time() - began) / case.units)
    finally:
        gc.enable()
    return Timing(case.name, seconds, deviations, case.tolerance, case.missing)
