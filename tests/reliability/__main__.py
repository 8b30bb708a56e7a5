"""The table of reliability: `python -m tests.reliability`, with `--quick` for a twentieth of the cases."""

import sys
from pathlib import Path

from tests.reliability import arguments, divergence, files, interruptions, repetition, suite, threads
from tests.reliability.report import table

PARTS = (files, interruptions, arguments, divergence, threads, repetition, suite)

if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    figures = []
    for part in PARTS:
        for figure in part.measure(quick):
            print(f"{'held' if figure.held else 'NOT HELD'}: {figure.name}: {figure.reached}", flush=True)
            figures.append(figure)
    if not quick:
        results = Path(__file__).with_name("RESULTS.md")
        head = "# Reliability\n\nWritten by `python -m tests.reliability`.\n\n"
        results.write_text(head + table(figures) + "\n", encoding="utf-8")
    sys.exit(not all(figure.held for figure in figures))
