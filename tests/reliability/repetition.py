"""The same seed gives the same bytes: every kind of model in fresh processes, and the tour twice."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.reliability.models import KINDS, fitted, numbers, said
from tests.reliability.report import Figure


def digests():
    """One digest of numbers and samples a kind."""
    return [hashlib.sha256(numbers(fitted(kind)) + said(fitted(kind))).hexdigest() for kind in KINDS]


def in_a_process(hash_seed):
    """`digests` of a fresh process with this seed of Python's hashes."""
    code = "from tests.reliability.repetition import digests; print(*digests())"
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def tour(folder, hash_seed):
    """metrics.json of the tour in a fresh process, without the measured seconds."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    out = Path(folder) / str(hash_seed)
    subprocess.run(
        [sys.executable, "-m", "scratchgen", "--out", str(out)], env=environment, capture_output=True, check=True
    )
    return out.joinpath("metrics.json").read_bytes()


def measure(quick):
    """Figures of repetition."""
    here, there = " ".join(digests()).split(), [in_a_process(seed).split() for seed in (0, 1, 77)]
    differ = [kind for kind, *values in zip(KINDS, here, *there, strict=True) if len(set(values)) > 1]
    figures = [
        Figure(
            f"{len(KINDS)} kinds of models fitted in four processes with other hash seeds", "the same bytes",
            f"{len(differ)} differ {differ or ''}".strip(), not differ,
            "one machine; another processor or BLAS rounds otherwise",
        )
    ]  # fmt: skip
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            same = tour(folder, 0) == tour(folder, 1)
        figures.append(
            Figure(
                "the tour twice", "the same metrics.json", "the same" if same else "they differ", same, "one machine"
            )
        )
    return figures
