"""The test suite in two processes, with another hash seed, and its coverage of the package; needs pytest-cov."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.reliability.report import Figure

ROOT = Path(__file__).parents[2]
LEAST = 98.0  # per cent of statements and branches


def measure(quick):
    """Figures of the suite; nothing with `quick`."""
    if quick:
        return []
    name, target = "the test suite in two processes with PYTHONHASHSEED=7", "all pass"
    if importlib.util.find_spec("pytest_cov") is None:
        return [Figure(name, target, "not run: install the group `reliability`", True, "not measured here")]
    command = [sys.executable, "-m", "pytest", "--quiet", "--numprocesses", "2", "--dist", "loadfile", "--cov"]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=False
    )
    total = re.search(r"^TOTAL .* (\d+\.\d+)%$", run.stdout, flags=re.MULTILINE)
    percent = float(total[1]) if total else 0.0
    return [
        Figure(name, target, run.stdout.splitlines()[-1], run.returncode == 0, "one order of the tests in a file"),
        Figure(
            "statements and branches that the suite runs, with its subprocesses", f"{LEAST:g} %", f"{percent} %",
            percent >= LEAST, "a line that runs need not be a line whose result is looked at; see tests/MUTANTS.md",
        ),
    ]  # fmt: skip
