"""The targets and the measured values: the median over the rounds, at the worst case of each target.

"must" and "tried for" were set before the code was written, for a machine with AVX-512.  They concern steps of MLP and
DDPM with batches of up to 256; VAE steps and larger batches have no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

from benchmarks.timing import LIMIT, Timing

Record = dict[str, Any]  # suite -> its measurements
TORCH, JIT, SCAN = ("torch, eager", "torch.compile"), ("jax.jit",), ("jax.lax.scan",)


class Target(NamedTuple):
    """One line of the table; `measure` returns the values of all cases by name, empty if they were not run."""

    work: str
    must: float
    tried: float
    measure: Callable[[Record], dict[str, float]]
    cause: str
    at_most: bool = False


def ratios(suite: str, start: str, contains: str, sides: tuple[str, ...]) -> Callable[[Record], dict[str, float]]:
    """Medians of peer/ours (or ours/limit) in the cases whose names start with `start` and contain `contains`."""

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
    """Full covariances with N >= 10,000, including thin clusters."""
    every = ratios("em", "EM, full", contains, ("scikit-learn",))
    return lambda record: {name: value for name, value in every(record).items() if "N = 1,000, D" not in name}


def em_memory(record: Record) -> dict[str, float]:
    """Peak of allocations, MiB."""
    curves = record.get("growth", {}).items()
    return {name: max(curve.mebibytes) for name, curve in curves if name.startswith("EM, N")}


def rows_memory(record: Record) -> dict[str, float]:
    """MiB that a verb over the rows of a file allocates besides its result and a network's copy of x, see `rows`."""
    rows = record.get("rows", {}).items()
    return {f"{verb}, {file}": added for verb, files in rows for file, added in files.items()}


def em_error(record: Record) -> dict[str, float]:
    """Our error over scikit-learn's."""
    rows = record.get("accuracy", {}).items()
    return {kind: row["scratchgen"] / row["scikit-learn"] for kind, row in rows if "scikit-learn" in row}


def cold_start(record: Record) -> dict[str, float]:
    """Time of a cold start over the time of `import torch`."""
    if "startup" not in record or "torch" not in record["startup"][0]:
        return {}
    imported, started = record["startup"]
    return {"cold start / import torch": median(started.seconds) / median(imported["torch"])}


def own_import(record: Record) -> dict[str, float]:
    """Import time in seconds."""
    return {"import": median(record["startup"][0]["scratchgen"])} if "startup" in record else {}


def exponents(record: Record) -> dict[str, float]:
    """Distance of the exponent of growth from 1, in N, K and T."""
    curves = record.get("growth", {}).items()
    return {
        f"{name}: {c.exponent:.2f}": abs(c.exponent - 1)
        for name, c in curves
        if ", D" not in name and "width" not in name
    }


CALLS = 'about 80 calls of NumPy at about one microsecond: most of "the rest" in anatomy'
PASSES = 'NumPy passes over the activations once per operation, XLA once per layer: "the rest" in anatomy'
PRODUCTS = "torch's products are faster than OpenBLAS's (anatomy), and NumPy needs more passes over the activations"
COLD = "the matrices of the limit stay in the cache, those of a step do not; a step also needs activations and Adam"
SAMPLER = "torch's products, bias included, are faster (anatomy): a part of the difference, the rest is not explained"
THIN = "for thin components quadratic features have no accurate digits; whitened coordinates need more operations"
BLAS = "most of the time of both is the same BLAS"


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
    Target("a verb over many rows, allocations, MiB", 64, 64, rows_memory, "", True),
    Target("EM, error over scikit-learn's", 1, 0.1, em_error, "the rounding of the data is common to both", True),
    Target("cold start over import torch", 1, 0.5, cold_start, "", True),
    Target("import scratchgen, s", 0.35, 0.15, own_import, "half of the time is the import of NumPy", True),
    Target(
        "exponent of growth in N, K, T: distance from 1",
        0.1,
        0.1,
        exponents,
        "every iteration has a constant part",
        True,
    ),
]


def report(record: Record) -> Iterator[str]:
    """Lines of Markdown; a target whose cases were not run is left out."""
    yield "| quantity | must be | tried for | at the worst case | range of the cases | |"
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
        verdict = "reached the goal that was tried for" if reaches(target.tried) else "met"
        if not reaches(target.must):
            verdict = f"**missed** ({worst}): {target.cause}"
        goals = f"{sign} {target.must:g} | {sign} {target.tried:g}"
        yield f"| {target.work} | {goals} | {value:.2f} | {low:.2f} to {high:.2f} | {verdict} |"
