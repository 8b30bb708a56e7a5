"""`python -m benchmarks`: ours against framework versions, on the same work, interleaved, on one core.

Installs nothing: what is missing of torch, JAX, scikit-learn and diffusers is left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SUITES = ("training", "sampling", "em", "startup", "growth")


def main() -> int:
    """Run the suites asked for and print Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller cases, three rounds; under 3 minutes")
    parser.add_argument("--rounds", type=int, default=None, help="interleaved rounds (default 9, quick 3)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="every round's time of every side")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"there is no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if any(os.environ.get(name) != "1" for name in THREADS):  # read when the libraries are loaded, so before that
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks", *sys.argv[1:]],
            os.environ | dict.fromkeys(THREADS, "1"),
        )
    rounds = options.rounds or (3 if options.quick else 9)
    suites = options.suites or list(SUITES)
    print(*heading(), sep="\n", flush=True)
    record = []
    for suite in suites:
        print(f"\n## {suite}\n", flush=True)
        if suite == "startup":
            from benchmarks import startup

            print(*startup.report(rounds), sep="\n", flush=True)
        elif suite == "growth":
            from benchmarks import growth

            print(*growth.report(2 if options.quick else 5), sep="\n", flush=True)
        else:
            record += compare(suite, options.quick, rounds)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def heading() -> list[str]:
    """What was measured on: processor, versions, core."""
    from benchmarks.timing import pin_to_one_core

    core = pin_to_one_core()
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    found = []
    for library in ("numpy", "scipy", "torch", "jax", "scikit-learn", "diffusers"):
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"{library} missing")
    pinned = "no core pinned" if core < 0 else "pinned to one core"
    return [f"{processor}, one thread, {pinned}, CPU time; Python {platform.python_version()}, {', '.join(found)}"]


def compare(suite: str, quick: bool, rounds: int) -> list[dict[str, object]]:
    """Time the cases of one suite and print them as one table: peer/ours, above 1 where the peer is slower."""
    from importlib import import_module

    import numpy as np

    from benchmarks.timing import LIMIT, time_case

    record: list[dict[str, object]] = []
    header: list[str] = []
    for case in import_module(f"benchmarks.{suite}").cases(quick):
        timing = time_case(case, rounds)
        others = [side for side in timing.seconds if side != "scratchgen"]
        if others != header:
            header = others
            titles = [f"{side} / ours" if side != LIMIT else f"ours / {LIMIT}" for side in others]
            print(f"\n| case | ours, ms | {' | '.join(titles)} |\n|---|---|{'---|' * len(others)}")
        cells = []
        for side in others:
            middle, low, high = timing.ratio("scratchgen", LIMIT) if side == LIMIT else timing.ratio(side)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        milliseconds = 1e3 * float(np.median(timing.seconds["scratchgen"]))
        missing = f" (missing: {', '.join(case.missing)})" if case.missing else ""
        print(f"| {case.name}{missing} | {milliseconds:.3g} | {' | '.join(cells)} |", flush=True)
        record.append({"case": case.name, "seconds": timing.seconds, "deviations": timing.deviations})
    return record


if __name__ == "__main__":
    sys.exit(main())
