"""Paired timing: every side does the same work in one interleaved run, on one core, by CPU time."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Work = Callable[[], object]


def pin_to_one_core() -> int:
    """Keep this process, and every thread of every library in it, on one core; returns which (−1 where unsupported).

    The numbers of threads have to be set before the libraries are loaded; `benchmarks.__main__` does so.
    """
    if not hasattr(os, "sched_setaffinity"):
        return -1
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


@dataclass
class Case:
    """One piece of work, done by several sides.

    `sides` maps a name to what prepares the work (imports, weights, batches) and returns a function that does it once;
    the first is ours.  `limit` is the time that cannot be undercut: the bare matrix products.  `check` returns the
    largest deviation of every side's results from ours.
    """

    name: str
    sides: dict[str, Callable[[], Work]]
    check: Callable[[], dict[str, float]]
    tolerance: float
    units: int = 1  # steps, iterations or calls in one piece of work
    limit: Work | None = None
    missing: list[str] = field(default_factory=list)


@dataclass
class Timing:
    """Seconds of CPU time a unit, one number a round, for every side."""

    name: str
    seconds: dict[str, list[float]]
    deviations: dict[str, float]
    tolerance: float

    @property
    def disagreeing(self) -> list[str]:
        """Sides that were not timed, as their results are not ours."""
        return [side for side in self.deviations if side not in self.seconds]

    def median(self, side: str) -> float:
        """Seconds."""
        return float(np.median(self.seconds[side]))

    def ratio(self, side: str, base: str | None = None) -> tuple[float, float, float]:
        """Median, least and largest of time(side)/time(base) over the rounds, base being ours unless named."""
        base = next(iter(self.seconds)) if base is None else base
        ratios = np.array(self.seconds[side]) / np.array(self.seconds[base])
        return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


LIMIT = "bare matrix products"


def time_case(case: Case, rounds: int = 9) -> Timing:
    """Run every side that agrees with ours once to warm up, then `rounds` times in turn.

    A side whose results deviate by more than the tolerance is not timed: a time of other work means nothing.
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
    gc.disable()  # a collection between works walks through all of torch and JAX, and leaves the caches cold
    try:
        for i in range(rounds):
            for side in names[i % len(names) :] + names[: i % len(names)]:  # nobody always comes first
                began = time.process_time()
                sides[side]()
                seconds[side].append((time.process_time() - began) / case.units)
    finally:
        gc.enable()
    return Timing(case.name, seconds, deviations, case.tolerance)
