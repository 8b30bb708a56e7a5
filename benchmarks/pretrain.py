"""The trained models of the package, scratchgen/data/digits-*.npz: `python -m benchmarks.pretrain`.

Each is a recipe of `scratchgen.recipes` with a smaller network, trained on all 1437 training images with seed 0.  Its
numbers are rounded to a short mantissa, so that the compressed file is small; the bits of the test images are those of
the rounded model.  benchmarks/pretrained.json has them, with a checksum of the numbers and the machine: a training on
such a machine gives the same bytes.  --check trains again and compares, and writes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.quality.digits import bits
from benchmarks.quality.records import Options
from benchmarks.timing import start_with_one_thread
from scratchgen import datasets, recipes
from scratchgen.validation import Array

ROOT = Path(__file__).parents[1]
DATA, RECORD = ROOT / "scratchgen" / "data", ROOT / "benchmarks" / "pretrained.json"
MOST_BYTES = 1_500_000  # of all files together
SMALLER: dict[str, tuple[str, str, dict[str, Any]]] = {  # family, recipe and changed arguments
    "digits-tables": ("tables", "fast", {}),
    "digits-vae": ("vae", "best", {"hidden": (128, 128)}),
    "digits-ddpm": ("ddpm", "labels", {"hidden": (128, 128)}),
    "digits-sde": ("sde", "best", {"hidden": (128, 128)}),
}
MANTISSA = {"covariance_": 24, "losses_": 10, "parameters_": 8, "encoder_": 8, "decoder_": 8, "log_variance_": 8}
DENOMINATOR = 2**20  # of the probabilities of tables


def untrained(name: str) -> Any:
    """The model of a name before its training."""
    family, recipe, changes = SMALLER[name]
    arguments = dict(recipes.find("digits", family, recipe).arguments) | changes
    return recipes.FAMILIES[family](**arguments, rng=0)


def train(name: str) -> tuple[Any, float]:
    """The trained model with rounded numbers, and the CPU seconds."""
    model, (images, labels) = untrained(name), datasets.digits("train")
    began = time.process_time()
    model.fit(images, labels if getattr(model, "n_classes", 0) else None)
    seconds = time.process_time() - began
    values = {key: shortened(key, getattr(model, key)) for key in model._fitted}
    short = type(model)(**model.get_params())
    return short.set_fitted(n_features_in_=64, feature_names_in_=None, training_state_=None, **values), seconds


def shortened(name: str, value: Any) -> Any:
    """A fitted attribute with fewer digits."""
    if name in ("weights_", "probabilities_"):
        return as_fractions(value)
    return rounded(value, MANTISSA[name]) if name in MANTISSA else value


def rounded(x: Array, n_bits: int) -> Array:
    """Numbers with mantissas of n bits, in the type of x."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 2.0**n_bits) / 2.0**n_bits, exponent).astype(x.dtype)


def as_fractions(p: Array) -> Array:
    """Probabilities of the denominator 2^20, none of them 0; the largest of a row takes the rest, for the sum 1."""
    counts = np.maximum(np.rint(p * DENOMINATOR), 1)
    rest = DENOMINATOR - counts.sum(axis=-1, keepdims=True)
    largest = np.expand_dims(counts.argmax(axis=-1), -1)
    np.put_along_axis(counts, largest, np.take_along_axis(counts, largest, -1) + rest, -1)
    return counts / DENOMINATOR


def checksum(model: Any) -> str:
    """SHA-256 of all fitted numbers."""
    digest = hashlib.sha256()
    for name in model._fitted:
        value = np.ascontiguousarray(getattr(model, name))
        digest.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


def bits_of_test(model: Any) -> float:
    """Bits a pixel of the test images."""
    folder = Path()
    return bits(model, datasets.digits("test").images, Options(folder, folder)).mean


def main() -> int:
    """Train the models, and write them and their record; with --check compare them with the record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(SMALLER)}; default all")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a checksum differs")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SMALLER):
        parser.error(f"names must be among {', '.join(SMALLER)}, got {', '.join(sorted(unknown))}")
    start_with_one_thread("benchmarks.pretrain")
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    same, (processor, versions) = True, machine(("numpy", "scipy"))
    for name in options.names or SMALLER:
        model, seconds = train(name)
        found = {"sha256": checksum(model), "bits": round(bits_of_test(model), 4), "cpu_seconds": round(seconds, 1)}
        print(f"{name}: {found}", flush=True)
        if options.check:
            same = same and found["sha256"] == record[name]["sha256"]
            continue
        model.save(DATA / f"{name}.npz", overwrite=True)
        record[name] = {**found, "model": repr(model), "machine": processor, "versions": versions}
        RECORD.write_text(json.dumps({key: record[key] for key in SMALLER if key in record}, indent=1) + "\n")
        total = sum((DATA / f"{key}.npz").stat().st_size for key in record)
        print(f"  {(DATA / f'{name}.npz').stat().st_size:,} bytes; all files {total:,} of {MOST_BYTES:,}", flush=True)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
