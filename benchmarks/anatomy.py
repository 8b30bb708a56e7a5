"""Where a step's time goes, and what one exponential costs each library: the causes of what is lost.

Every part is timed alone, on arrays of the step's own sizes, interleaved with the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.timing import Work
from benchmarks.training import Ours, bare_products, mlp_problem
from scratchgen.validation import Array

WIDTHS = [(64, 64), (128, 256), (256, 256), (512, 256)]  # and batch


def interleaved(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every work, once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            began = time.process_time()
            work()
            seconds[name].append(time.process_time() - began)
    return seconds


def exponentials(rounds: int) -> dict[str, float]:
    """Median nanoseconds of exp for one number, 65,536 at a time, by library and type."""
    n, repeats = 65_536, 20
    works = {}
    for dtype in ("float32", "float64"):
        x = -np.random.default_rng(0).uniform(0, 10, n).astype(dtype)
        works |= {f"{library}, {dtype}": _repeat(work, repeats) for library, work in _exp_of(x).items()}
    found = interleaved(works, rounds)
    return {name: 1e9 * float(np.median(values)) / n / repeats for name, values in found.items()}


def _exp_of(x: Array) -> dict[str, Work]:
    """exp of one array by every library that is installed."""
    out = np.empty_like(x)
    works: dict[str, Work] = {"NumPy": lambda: np.exp(x, out=out)}
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        tensor, target = torch.from_numpy(x), torch.from_numpy(out)
        works["torch"] = lambda: torch.exp(tensor, out=target)
    if find_spec("jax") and x.dtype == np.float32:  # float64 is off unless a process asks for it
        import jax

        compiled, array = jax.jit(jax.numpy.exp), jax.numpy.asarray(x)
        works["jax.jit"] = lambda: compiled(array).block_until_ready()
    return works


def _repeat(work: Work, times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            work()

    return repeated


def step_parts(rounds: int) -> dict[str, dict[str, float]]:
    """Median microseconds of an MLP step, its matrix products, its exponentials and its Adam, by width."""
    found = {}
    for width, batch in WIDTHS:
        n = max(2**21 // (width * batch), 4)
        problem = mlp_problem((66, width, width, width, 2), batch, n)
        ours = Ours(problem)
        z = np.random.default_rng(0).standard_normal((batch, width), dtype=np.float32)
        adam, gradient = ours.adams[0], ours.mlps[0].gradient
        works: dict[str, Any] = {
            "step": ours.run,
            "products": bare_products(problem),
            "exp": _repeat(lambda z=z: np.exp(z), 3 * n),
            "Adam": _repeat(lambda adam=adam, gradient=gradient: adam.step(gradient), n),
        }
        seconds = interleaved(works, rounds)
        found[f"width {width}, batch {batch}"] = {k: 1e6 * float(np.median(v)) / n for k, v in seconds.items()}
    return found


def report(exp: dict[str, float], parts: dict[str, dict[str, float]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield f"One exp: {', '.join(f'{name} {value:.2f} ns' for name, value in exp.items())}."
    yield ""
    yield "| MLP step | all, µs | matrix products | exp | Adam | the rest: passes over activations, and calls |"
    yield "|---|---|---|---|---|---|"
    for name, values in parts.items():
        part = dict(values)
        whole = part.pop("step")
        shares = [value / whole for value in part.values()]
        cells = " | ".join(f"{share:.0%}" for share in [*shares, 1 - sum(shares)])
        yield f"| {name} | {whole:,.0f} | {cells} |"
