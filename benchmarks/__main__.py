"""`python -m benchmarks`: this package against frameworks, on one core: time, memory, accuracy, quality of samples.

Nothing is installed.  A library of torch, JAX, scikit-learn and diffusers that is missing is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.machine import machine
from benchmarks.markdown import publish
from benchmarks.timing import LIMIT, pin_to_one_core, start_with_one_thread, time_case

COMPARED = ("training", "sampling", "em")  # suites of cases that several libraries run
LONG = ("race", "solvers")  # minutes, also in their short form
SUITES = (*COMPARED, "accuracy", "memory", "rows", "startup", "growth", "anatomy", *LONG)


def main() -> int:
    """Run the suites and print Markdown; return 1 if the results of a side differ from ours."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"any of {', '.join(SUITES)}; default all")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer and smaller cases, three rounds, no race and no solvers unless named; under 3 minutes",
    )
    parser.add_argument("--rounds", type=int, default=None, help="interleaved rounds (default 9, quick 3)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="all numbers of every round")
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="replaces the tables in FILE")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"suites must be among {', '.join(SUITES)}, got {', '.join(sorted(unknown))}")
    start_with_one_thread("benchmarks")
    rounds = options.rounds or (3 if options.quick else 9)
    record: dict[str, Any] = {}
    publish(report(options.suites, options.quick, rounds, record), options.markdown)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1, default=vars) + "\n", encoding="utf-8")
    return int(any(timing.disagreeing for suite in COMPARED for timing in record.get(suite, [])))


def report(suites: list[str], quick: bool, rounds: int, record: dict[str, Any]) -> Iterator[str]:
    """Run one suite after another, all of them if none is named; yield Markdown and fill `record`."""
    yield heading(rounds)
    if quick and not suites:
        yield f"\nLeft out by --quick, unless they are named: {', '.join(LONG)}."
    for suite in suites or (name for name in SUITES if not (quick and name in LONG)):
        began = cpu_seconds()
        yield f"\n## {suite}\n"
        module = import_module(f"benchmarks.{suite}")
        if suite in COMPARED:
            yield from compare(module.cases(quick), rounds, record.setdefault(suite, []))
        else:
            record[suite] = yield from module.suite(quick, rounds)
        yield f"\nThis suite took {cpu_seconds() - began:.0f} s of CPU time."
    if not quick:
        yield "\n## targets\n"
        yield from targets.report(record)


def cpu_seconds() -> float:
    """CPU time of this process and of all processes that it started and that have ended."""
    return sum(os.times()[:4])


def heading(rounds: int) -> str:
    """The machine of the measurement: processor, versions, core."""
    core = pin_to_one_core()
    processor, versions = machine(("numpy", "scipy", "torch", "jax", "scikit-learn", "diffusers"))
    pinned = "no core pinned" if core < 0 else "pinned to one core"
    return (
        f"{processor}; one thread, {pinned}, CPU time, {rounds} rounds; {versions}.  Cells are medians of "
        "time(peer)/time(ours) with the range in brackets; above 1 the peer is slower.  For bare products: "
        "time(ours)/time(products)."
    )


def compare(cases: Iterator[Any], rounds: int, record: list[Any]) -> Iterator[str]:
    """Time the cases of one suite; one table per set of sides."""
    header: list[str] = []
    for case in cases:
        timing = time_case(case, rounds)
        record.append(timing)
        others = [side for side in timing.seconds if side != "scratchgen"]
        if others != header:
            header = others
            titles = [f"{side} / ours" if side != LIMIT else f"ours / {LIMIT}" for side in others]
            yield f"\n| case | ours, ms | {' | '.join(titles)} |\n|---|---|{'---|' * len(others)}"
        cells = []
        for side in others:
            middle, low, high = timing.ratio("scratchgen", LIMIT) if side == LIMIT else timing.ratio(side)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        milliseconds = 1e3 * timing.median("scratchgen")
        missing = f" (missing: {', '.join(case.missing)})" if case.missing else ""
        wrong = f" (**disagrees**: {', '.join(timing.disagreeing)})" if timing.disagreeing else ""
        yield f"| {case.name}{missing}{wrong} | {milliseconds:.3g} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
