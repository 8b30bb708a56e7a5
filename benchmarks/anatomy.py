"""The time of a step by its parts, and the cost of each part in every library.

`parts` runs every library on the same arrays.  `step_parts` times each part of our step alone, on arrays of the sizes
of the step, interleaved with the whole step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.markdown import Suite
from benchmarks.timing import Work
from benchmarks.training import Ours, bare_products, mlp_problem
from scratchgen.fast import silu as fast
from scratchgen.validation import Array

WIDTHS = [(64, 64), (128, 256), (256, 256), (512, 256)]  # (width, batch)


def interleaved(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every work, one value per round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            began = time.process_time()
            work()
            seconds[name].append(time.process_time() - began)
    return seconds


N = 65_536  # numbers per call
LAYERS = (128, 256, 512)  # widths of square layers, at a batch of 256
COUNTS = {  # number of operations in one call of a part
    "exp of a float32": N,
    "exp of a float64": N,
    "SiLU of a float32": N,
    "normal float32": N,
    **{f"1,000 operations of products, width {width}": 3 * 2 * 256 * width**2 / 1000 for width in LAYERS},
}


def layer(width: int) -> tuple[Array, Array, Array]:
    """Input, weights and gradient of the output of one layer."""
    rng = np.random.default_rng(width)
    shapes = (256, width), (width, width), (256, width)
    x, weights, grad = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    return x, weights, grad


def numpy_parts(x: Array) -> tuple[Work, ...]:
    """The parts that `COUNTS` names, for x (N,) float32; the products are x W, xᵀ g and g Wᵀ."""
    out, wide, wide_out, rng = np.empty_like(x), x.astype(np.float64), np.empty(N), np.random.default_rng(0)

    def products(x: Array, weights: Array, grad: Array) -> Work:
        return lambda: (x @ weights, x.T @ grad, grad @ weights.T)

    return (
        lambda: np.exp(x, out=out),
        lambda: np.exp(wide, out=wide_out),
        lambda: fast.silu(x.copy()),
        lambda: rng.standard_normal(N, dtype=np.float32),
        *(products(*layer(width)) for width in LAYERS),
    )


def torch_parts(x: Array) -> tuple[Work, ...]:
    """The same parts; weights of torch.nn.Linear are transposed."""
    import torch

    torch.set_num_threads(1)
    tensor = torch.from_numpy(x)
    out, wide = torch.empty_like(tensor), tensor.double()
    wide_out = torch.empty_like(wide)

    def products(width: int) -> Work:
        x, weights, grad = (torch.from_numpy(part) for part in layer(width))
        return lambda: (x @ weights.T, grad.T @ x, grad @ weights)

    works: tuple[Work, ...] = (
        lambda: torch.exp(tensor, out=out),
        lambda: torch.exp(wide, out=wide_out),
        lambda: torch.nn.functional.silu(tensor),
        lambda: torch.randn(N),
        *(products(width) for width in LAYERS),
    )
    return tuple(torch.inference_mode()(work) for work in works)


def jax_parts(x: Array) -> tuple[Work, ...]:
    """The same parts, compiled; JAX has no float64 by default."""
    import jax
    import jax.numpy as jnp

    array, key = jnp.asarray(x), jax.random.key(0)
    exp, silu = jax.jit(jnp.exp), jax.jit(jax.nn.silu)
    compiled = jax.jit(lambda x, w, g: (x @ w, x.T @ g, g @ w.T))

    def products(width: int) -> Work:
        parts = [jnp.asarray(part) for part in layer(width)]
        return lambda: jax.block_until_ready(compiled(*parts))

    return (
        lambda: exp(array).block_until_ready(),
        lambda: None,
        lambda: silu(array).block_until_ready(),
        lambda: jax.random.normal(key, (N,)).block_until_ready(),
        *(products(width) for width in LAYERS),
    )


LIBRARIES = {"numpy": numpy_parts, "torch": torch_parts, "jax": jax_parts}


def parts(rounds: int, repeats: int = 4) -> dict[str, dict[str, float]]:
    """Median nanoseconds per operation, by part and library."""
    x = np.random.default_rng(0).uniform(-10, 0, N).astype(np.float32)
    works = {name: make(x) for name, make in LIBRARIES.items() if find_spec(name)}
    found: dict[str, dict[str, float]] = {}
    for i, (part, count) in enumerate(COUNTS.items()):
        seconds = interleaved({name: _repeat(own[i], repeats) for name, own in works.items()}, rounds)
        found[part] = {name: 1e9 * float(np.median(v)) / count / repeats for name, v in seconds.items()}
    if "jax" in works:
        del found["exp of a float64"]["jax"]
    return found


def _repeat(work: Work, times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            work()

    return repeated


def step_parts(rounds: int) -> dict[str, dict[str, float]]:
    """Median microseconds of an MLP step, its matrix products, its SiLU with slopes, and its Adam, by width."""
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
            "SiLU": _repeat(lambda z=z: fast.silu_and_slope(z.copy()), 3 * n),
            "Adam": _repeat(lambda adam=adam, gradient=gradient: adam.step(gradient), n),
        }
        seconds = interleaved(works, rounds)
        found[f"width {width}, batch {batch}"] = {k: 1e6 * float(np.median(v)) / n for k, v in seconds.items()}
    return found


def report(costs: dict[str, dict[str, float]], steps: dict[str, dict[str, float]]) -> Iterator[str]:
    """Lines of Markdown."""
    libraries = list(costs["exp of a float32"])
    yield f"| nanoseconds of | {' | '.join(libraries)} |"
    yield f"|---|{'---|' * len(libraries)}"
    for part, by_library in costs.items():
        cells = [f"{by_library[library]:.2f}" if library in by_library else "" for library in libraries]
        yield f"| {part} | {' | '.join(cells)} |"
    yield ""
    yield "| MLP step | all, µs | matrix products | SiLU and its slope | Adam | the rest: passes and calls |"
    yield "|---|---|---|---|---|---|"
    for name, values in steps.items():
        part = dict(values)
        whole = part.pop("step")
        shares = [value / whole for value in part.values()]
        cells = [f"{share:.0%}" for share in [*shares, 1 - sum(shares)]]
        yield f"| {name} | {whole:,.0f} | {' | '.join(cells)} |"


def suite(quick: bool, rounds: int) -> Suite:
    """Measure, yield Markdown, and return the measurements."""
    found = parts(rounds), step_parts(rounds)
    yield from report(*found)
    return found
