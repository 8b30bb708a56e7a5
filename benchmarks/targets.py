"""The targets, and what became of them: the median over the rounds, at the worst of the cases that a target names.

"must" and "tried for" are what was hoped for on a machine with AVX-512, before anything was written; of MLP and DDPM
steps with batches of up to 256; VAE steps and larger batches have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

from benchmarks.timing import LIMIT, Timing

Record = dict[str, Any]  # suite: what it measured
TORCH, JIT, SCAN = ("torch, eager", "torch.compile"), ("jax.jit",), ("jax.lax.scan",)


class Target(NamedTuple):
    """One line of the table; `measure` returns the values of all cases by name, none if they were not run."""

    work: str
    must: float
    tried: float
    measure: Callable[[Record], dict[str, float]]
    cause: str
    at_most: bool = False


def ratios(suite: str, start: str, contains: str, sides: tuple[str, ...]) -> Callable[[Record], dict[str, float]]:
    """Medians of peer/ours (or ours/limit) in the cases whose names start and contain so."""

    def measure(record: Record) -> dict[str, float]:
        found = {}
        for timing in record.get(suite, []):
            assert isinstance(timing, Timing)
            if not (timing.name.startswith(start) and contains in timing.name + ",") or "batch 1024" in timing.name:
                continue
            for side in sides:
                if side == LIMIT:
                    found[timing.name] = timing.ratio("scratchgen", LIMIT)[0]
                elif side in timing.seconds:
                    found[f"{timing.name}, {side}"] = timing.ratio(side)[0]
        return found

    return measure


def em_ratios(contains: str) -> Callable[[Record], dict[str, float]]:
    """Full covariances, N >= 10,000, thin ones too."""
    every = ratios("em", "EM, full", contains, ("scikit-learn",))
    return lambda record: {name: value for name, value in every(record).items() if "N = 1,000, D" not in name}


def em_memory(record: Record) -> dict[str, float]:
    """MiB."""
    curves = record.get("growth", {}).items()
    return {name: max(curve.mebibytes) for name, curve in curves if name.startswith("EM, N")}


def em_error(record: Record) -> dict[str, float]:
    """Error of ours over scikit-learn's."""
    rows = record.get("accuracy", {}).items()
    return {kind: row["scratchgen"] / row["scikit-learn"] for kind, row in rows if "scikit-learn" in row}


def cold_start(record: Record) -> dict[str, float]:
    """Of `import torch`."""
    if "startup" not in record or "torch" not in record["startup"][0]:
        return {}
    imported, started = record["startup"]
    return {"cold start / import torch": median(started.seconds) / median(imported["torch"])}


def own_import(record: Record) -> dict[str, float]:
    """Seconds."""
    return {"import": median(record["startup"][0]["scratchgen"])} if "startup" in record else {}


def exponents(record: Record) -> dict[str, float]:
    """Distance of the exponent from 1, in N, K and T."""
    curves = record.get("growth", {}).items()
    return {
        f"{name}: {c.exponent:.2f}": abs(c.exponent - 1)
        for name, c in curves
        if ", D" not in name and "width" not in name
    }


CALLS = 'some 80 calls of NumPy, a microsecond or so each: most of "the rest" in anatomy'
PASSES = 'NumPy goes through the activations once an operation, XLA once a layer: "the rest" in anatomy'
PRODUCTS = "torch's products take less time than OpenBLAS's (anatomy), NumPy's passes over activations more"
COLD = "the limit's matrices stay in the cache, a step's do not; passes over activations and Adam come on top"
SAMPLER = "torch's products take less time (anatomy), and the bias with them: a part of it, the rest is not explained"
THIN = "thin components leave quadratic features no digits, and in whitened coordinates there is more to compute"
BLAS = "both are mostly the same BLAS"


def step(name: str, must: float, tried: float, width: int, sides: tuple[str, ...], cause: str) -> Target:
    """A target for all training steps of one width."""
    measure = ratios("training", "", f"width {width},", sides)
    return Target(f"step {name}, width {width}", must, tried, measure, cause, sides == (LIMIT,))


TARGETS = [
    step("vs torch", 3, 4, 64, TORCH, CALLS),
    step("vs torch", 1.7, 2.1, 128, TORCH, PASSES),
    step("vs torch", 1.2, 1.4, 256, TORCH, PRODUCTS),
    step("vs torch", 1, 1.15, 512, TORCH, PRODUCTS),
    step("vs jax.jit", 1, 1.3, 64, JIT, CALLS),
    step("vs jax.jit", 1, 1.3, 128, JIT, PASSES),
    step("vs jax.jit", 1, 1.3, 256, JIT, PASSES),
    step("vs jax.jit", 0.9, 1, 512, JIT, PASSES),
    Target("step vs jax.lax.scan", 0.7, 0.9, ratios("training", "", "width", SCAN), CALLS),
    step("over its products", 2.4, 2, 64, (LIMIT,), CALLS),
    step("over its products", 1.55, 1.35, 128, (LIMIT,), COLD),
    step("over its products", 1.4, 1.25, 256, (LIMIT,), COLD),
    step("over its products", 1.3, 1.15, 512, (LIMIT,), COLD),
    Target("sampling vs torch", 1.05, 1.25, ratios("sampling", "", "", ("torch.inference_mode",)), SAMPLER),
    Target("sampling vs diffusers", 1.15, 1.5, ratios("sampling", "", "", ("diffusers loop",)), SAMPLER),
    Target("EM vs scikit-learn, D = 2", 7, 12, em_ratios("D = 2,"), THIN),
    Target("EM vs scikit-learn, D = 8", 3, 6, em_ratios("D = 8,"), THIN),
    Target("EM vs scikit-learn, D = 64", 1.3, 2.2, em_ratios("D = 64,"), BLAS),
    Target("EM, allocations, MiB", 5, 3, em_memory, "", True),
    Target("EM, error over scikit-learn's", 1, 0.1, em_error, "the data's own rounding is common to both", True),
    Target("cold start over import torch", 1, 0.5, cold_start, "", True),
    Target("import scratchgen, s", 0.35, 0.15, own_import, "half of it is NumPy's own", True),
    Target("exponent of growth in N, K, T: off 1 by", 0.1, 0.1, exponents, "an iteration has a fixed part", True),
]


def report(record: Record) -> Iterator[str]:
    """Lines of Markdown; a target whose cases were not run is left out."""
    yield "| what | must be | tried for | at the worst case | range of the cases | |"
    yield "|---|---|---|---|---|---|"
    for target in TARGETS:
        values = target.measure(record)
        if not values:
            continue
        worst = max(values, key=lambda name: values[name] * (1 if target.at_most else -1))
        low, high, value = min(values.values()), max(values.values()), values[worst]

        def reaches(goal: float, value: float = value, at_most: bool = target.at_most) -> bool:
            return value <= goal if at_most else value >= goal

        sign = "≤" if target.at_most else "≥"
        verdict = "reached what was tried for" if reaches(target.tried) else "met"
        if not reaches(target.must):
            verdict = f"**missed** ({worst}): {target.cause}"
        goals = f"{sign} {target.must:g} | {sign} {target.tried:g}"
        yield f"| {target.work} | {goals} | {value:.2f} | {low:.2f} to {high:.2f} | {verdict} |"
