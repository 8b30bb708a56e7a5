"""Units of work and their results, one JSON line each, so that a run goes on where another one has stopped."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from scratchgen import load
from scratchgen.models.files import encode, write_atomically
from scratchgen.validation import Array, IntArray

Record = dict[str, Any]
LONGEST = 12  # lists of settings in a record


class Unit(NamedTuple):
    """A piece of work of some minutes at most, with its result as JSON."""

    part: str
    name: str
    seed: int
    about: Any  # settings, as JSON: a record with other settings is out of date
    run: Callable[[], Record]

    @property
    def key(self) -> str:
        """A short text that is different for other settings."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Options:
    """The amount of work, and the folders of results and models, for all parts."""

    folder: Path  # of the records and figures
    models: Path  # of the trained models
    quick: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def n_samples(self) -> int:
        """Samples of a draw."""
        return 40 if self.quick else 1080

    @property
    def n_draws(self) -> int:
        """Draws of every model."""
        return 2 if self.quick else 3

    @property
    def n_times(self) -> int:
        """Noises of a bound for every image."""
        return 8 if self.quick else 512

    def few(self, x: Array, most: int = 20) -> Array:
        """All rows of x; with `quick` the first few."""
        return x[:most] if self.quick else x

    def planned(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a model; with `quick` for a few steps of a small one."""
        if not self.quick:
            return arguments
        small = {"n_steps": 20, "hidden": (16,) * len(arguments.get("hidden", ())), "max_iter": 3, "n_init": 1}
        small["n_sample_steps"] = 4
        small["n_components"] = min(10, arguments.get("n_components", 1))
        return arguments | {name: value for name, value in small.items() if name in arguments}


def settings_of(model: Any) -> Record:
    """Class and arguments of a model as JSON."""
    arguments = {name: encode(value, name) for name, value in model.get_params().items() if name != "verbose"}
    return {"class": type(model).__name__, **arguments}


def trained(model: Any, x: Array, options: Options, y: IntArray | None = None) -> tuple[Any, float]:
    """The model after its training on x, and the CPU seconds; the one from the folder of models, if it is there."""
    about = json.dumps([settings_of(model), hashlib.sha256(x.tobytes()).hexdigest(), y is not None])
    file = options.models / f"{type(model).__name__}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.npz"
    seconds = file.with_suffix(".json")
    if seconds.exists():
        return load(file), float(json.loads(seconds.read_text())["seconds"])
    began = time.process_time()
    model.fit(x, y)
    spent = time.process_time() - began
    options.models.mkdir(parents=True, exist_ok=True)
    model.save(file, overwrite=True)
    seconds.write_text(json.dumps({"seconds": spent}))
    return model, spent


def read(folder: Path, part: str) -> dict[tuple[str, int], Record]:
    """The records of a part by name and seed."""
    file = folder / f"{part}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {(record["name"], record["seed"]): record for record in map(json.loads, lines)}


def run(units: Iterable[Unit], options: Options, again: bool = False) -> int:
    """Run the units whose records are missing or out of date, and write each record as soon as it is there.

    A unit that raises an error is reported, and the others run; the result is the number of such units.
    """
    n_failed = 0
    processor, versions = machine(("numpy", "scipy", "scikit-learn"))
    for unit in units:
        records = read(options.folder, unit.part)
        known = records.get((unit.name, unit.seed))
        if known is not None and known["key"] == unit.key and known["quick"] == options.quick and not again:
            say(f"{unit.part}, {unit.name}, seed {unit.seed}: kept")
            continue
        say(f"{unit.part}, {unit.name}, seed {unit.seed} ...")
        began = time.process_time()
        try:
            result = unit.run()
        except Exception as error:
            say(f"  failed: {type(error).__name__}: {error}")
            n_failed += 1
            continue
        spent = time.process_time() - began
        records[unit.name, unit.seed] = {
            "name": unit.name,
            "seed": unit.seed,
            **_rounded(result),
            "unit_seconds": round(spent, 1),
            "key": unit.key,
            "about": _shortened(json.loads(json.dumps(unit.about, default=str))),
            "quick": options.quick,
            "machine": processor,
            "versions": versions,
            "commit": _commit(),
        }
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records.values())
        options.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(options.folder / f"{unit.part}.jsonl", lambda file, text=text: file.write(text.encode()))
        shown = {name: value for name, value in _rounded(result).items() if isinstance(value, int | float)}
        say(f"  {spent:.1f} s of CPU time; {', '.join(f'{name} {value:g}' for name, value in shown.items())}")
    return n_failed


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def _rounded(value: Any) -> Any:
    """A result with floats of six digits."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return _rounded(value.tolist())
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, np.generic):
        return _rounded(value.item())
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _shortened(about: Any) -> Any:
    """Settings for a reader: a long list becomes its length and its ends."""
    if isinstance(about, dict):
        return {name: _shortened(one) for name, one in about.items()}
    if not isinstance(about, list):
        return about
    return [_shortened(one) for one in about] if len(about) <= LONGEST else f"{len(about)}: {about[0]} ... {about[-1]}"


def _commit() -> str:
    """The commit of the code, with a + if files differ from it; empty outside a repository."""
    here = Path(__file__).parent
    found = [
        subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", "../../scratchgen"))
    ]
    return found[0] + "+" * bool(found[1])
