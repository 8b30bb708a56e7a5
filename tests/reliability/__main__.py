"""The table of reliability: `python -m tests.reliability`, with `--quick` for a twentieth of the cases."""

import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from tests.reliability import arguments, divergence, files, interruptions, repetition, strange, suite, threads
from tests.reliability.report import table

PARTS = (files, interruptions, arguments, strange, divergence, threads, repetition, suite)

if __name__ == "__main__":
    warnings.filterwarnings("ignore", "EM has not converged")  # fits are short on purpose
    quick = "--quick" in sys.argv[1:]
    figures, began = [], time.monotonic()
    for part in PARTS:
        for figure in part.measure(quick):
            print(f"{'held' if figure.held else 'NOT HELD'}: {figure.name}: {figure.reached}", flush=True)
            figures.append(figure)
    if not quick:
        results = Path(__file__).with_name("RESULTS.md")
        minutes = (time.monotonic() - began) / 60
        versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
        head = f"# Reliability\n\nWritten by `python -m tests.reliability` in {minutes:.0f} minutes ({versions}).\n\n"
        results.write_text(head + table(figures) + "\n", encoding="utf-8")
    sys.exit(not all(figure.held for figure in figures))
