"""Peak memory of whole processes: `python -m benchmarks.memory WORK SIDE` is one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import em, sampling, training
from benchmarks.markdown import Suite
from benchmarks.timing import Case

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux
WORKS: dict[str, Callable[[], Case]] = {
    "sampling": lambda: sampling.case("ancestral", 2, 128, 10_000),
    "em-2-10": lambda: em.case(em.Size(1_000_000, 2, 10, 1)),
    "ddpm": lambda: training.case("10 DDPM steps, 64-D, width 256, batch 256", training.ddpm_problem(64, 256, 256, 10)),
    "em-2-50": lambda: em.case(em.Size(1_000_000, 2, 50, 1)),
    "em-64-3": lambda: em.case(em.Size(100_000, 64, 3, 1)),
}
Peaks = dict[str, dict[str, tuple[float, float]]]  # case, side: MiB of the process, MiB that the work added


def resident(field: str) -> float:
    """VmRSS, or its peak VmHWM, of this process, MiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return float(line.split()[1]) / 1024


def measure(work: str, side: str) -> tuple[float, float]:
    """Run the work once in this process; return the peak, and the peak minus the memory before the work, MiB."""
    run = WORKS[work]().sides[side]()
    CLEAR.write_text("5")  # resets the peak
    before = resident("VmRSS")
    run()
    peak = resident("VmHWM")
    return peak, peak - before


def peaks(quick: bool = False) -> Peaks:
    """Every side of every work in its own process; empty without /proc."""
    found: Peaks = {}
    for work in list(WORKS)[: 2 if quick else None] if CLEAR.exists() else []:
        case = WORKS[work]()
        found[case.name] = {}
        for side in case.sides:
            command = [sys.executable, "-m", "benchmarks.memory", work, side]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            peak, added = map(float, done.stdout.split()[-2:])
            found[case.name][side] = (peak, added)
    return found


def report(found: Peaks) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| work, once, in a fresh process | side | peak, MiB | added by the work, MiB |"
    yield "|---|---|---|---|"
    for work, sides in found.items():
        for side, (peak, added) in sides.items():
            yield f"| {work} | {side} | {peak:,.0f} | {added:,.1f} |"


def suite(quick: bool, rounds: int) -> Suite:
    """Measure, yield Markdown, and return the measurements."""
    found = peaks(quick)
    yield from report(found)
    return found


if __name__ == "__main__":
    print(*measure(*sys.argv[1:]))
