"""Sampling: ancestral, DDIM, Euler-Maruyama and probability flow, against torch, JAX and diffusers.

Each of these steps is x ← a_t x + b_t ε̂(x, t) + c_t z.  The other libraries get the three tables; our side is the
package's own sampler.  torch runs under inference_mode, JAX compiles the whole loop with lax.fori_loop, and diffusers
steps its schedulers around the torch network.  Results are compared without noise and timed with noise, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import Case, Work
from benchmarks.training import N_TIME, fill, random_layers, sizes_of
from scratchgen import VP, NoiseSchedule
from scratchgen.ddpm import ancestral_sampler, ddim_sampler
from scratchgen.export import Layers
from scratchgen.nn import NoiseNetwork
from scratchgen.nn.mlp import ROWS
from scratchgen.sde import euler_maruyama
from scratchgen.validation import Array

T = 50  # steps per piece of work; the time is linear in T, see `benchmarks.growth`


class Chain(NamedTuple):
    """The work of one sampler."""

    kind: str  # "ancestral", "DDIM", "Euler-Maruyama" or "probability flow"
    layers: Layers
    levels: Array  # (T, 2): scale and std at which each step calls the network, first step first
    tables: Array  # (T, 3): a, b, c
    x: Array  # (N, D), the start


class Silent(np.random.Generator):
    """A generator that draws zeros."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return np.zeros(size, dtype=dtype)


SCHEDULE, SDE = NoiseSchedule.linear(T), VP()
TIMES = np.linspace(1.0, 1e-3, T + 1)


def chain(kind: str, dimension: int, width: int, n: int) -> Chain:
    """Noise levels and coefficients of every step."""
    layers = random_layers((dimension + 2 * N_TIME, width, width, width, dimension), 1)
    x = np.random.default_rng(0).standard_normal((n, dimension), dtype=np.float32)
    t = np.arange(T, 0, -1)
    alpha, beta = SCHEDULE.alpha[t], SCHEDULE.beta[t]
    total, std = SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t]
    levels = np.stack([total, std], axis=1)
    if kind == "ancestral":
        tables = np.stack([1 / alpha, -(beta**2) / (std * alpha), beta], axis=1)
    elif kind == "DDIM":
        ratio = SCHEDULE.alpha_bar[t - 1] / total
        tables = np.stack([ratio, SCHEDULE.beta_bar[t - 1] - ratio * std, 0 * t], axis=1)
    else:
        now, step = TIMES[:-1], np.diff(TIMES)
        levels = np.stack(SDE.marginal(now), axis=1)
        g = SDE.diffusion(now)
        stochasticity = float(kind == "Euler-Maruyama")
        pull = 0.5 * (1 + stochasticity**2) * step * g**2 / levels[:, 1]
        tables = np.stack([1 + step * SDE.rate(now), pull, stochasticity * g * np.sqrt(-step)], axis=1)
    return Chain(kind, layers, levels, tables, x)


def ours(work: Chain, silent: bool = False) -> Callable[[], Array]:
    """The samplers of the package."""
    n_features = work.x.shape[1]
    network = NoiseNetwork(n_features, [len(b) for _, b in work.layers[:-1]], N_TIME, rng=0)
    fill(network.mlp, work.layers)

    def eps_hat(x: Array, t: int) -> Array:
        return network(x, float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.beta_bar[t]))

    def score(x: Array, t: float) -> Array:
        scale, std = SDE.level(t)
        return network(x, scale, std) * (-1 / std)

    def run() -> Array:
        rng = Silent() if silent else np.random.default_rng(0)
        path: Iterator[tuple[float, Array]]
        if work.kind == "ancestral":
            path = ancestral_sampler(SCHEDULE, eps_hat, work.x, rng)
        elif work.kind == "DDIM":
            path = ddim_sampler(SCHEDULE, eps_hat, work.x)
        else:
            stochasticity = float(work.kind == "Euler-Maruyama")
            path = euler_maruyama(SDE, score, work.x, TIMES, rng, stochasticity=stochasticity)
        *_, (_, x) = path
        return x

    return run


def features(work: Chain) -> Array:
    """The time features of every step, (T, 2 N_TIME)."""
    log_snr = 2 * np.log(work.levels[:, :1] / work.levels[:, 1:])
    angles = log_snr * (0.5 * np.geomspace(0.25, 4.0, N_TIME))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def torch_network(work: Chain) -> tuple[Any, Callable[[Any, int], Any]]:
    """torch, and a function ε̂ of x at step i."""
    import torch

    from benchmarks.frameworks import torch_

    torch.set_num_threads(1)
    network = torch_.NoiseNetwork(work.x.shape[1], sizes_of(work.layers)[1:-1], N_TIME)
    torch_.fill(network.mlp, work.layers)
    rows = torch.from_numpy(features(work))
    levels = work.levels / np.hypot(*work.levels.T)[:, None]

    def eps_hat(x: Any, i: int) -> Any:
        scale, std = levels[i].tolist()
        return network.predict(x, rows[i], std, scale)

    return torch, eps_hat


def with_torch(work: Chain, silent: bool = False) -> Callable[[], Array]:
    """A loop under inference_mode."""
    torch, eps_hat = torch_network(work)
    tables = (work.tables * [1, 1, not silent]).tolist()

    def run() -> Array:
        with torch.inference_mode():
            x = torch.from_numpy(work.x)
            for i, (a, b, c) in enumerate(tables):
                x = a * x + b * eps_hat(x, i)
                if c:
                    x = x + c * torch.randn_like(x)
            return x.numpy()

    return run


def with_diffusers(work: Chain, silent: bool = False) -> Callable[[], Array]:
    """DDPMScheduler or DDIMScheduler around the torch network.

    diffusers draws no noise in the last step, our sampler does.  The comparison without noise sets σ_t to 0 in all
    steps.
    """
    torch, eps_hat = torch_network(work)
    from diffusers import DDIMScheduler, DDPMScheduler

    options: dict[str, Any] = {"trained_betas": SCHEDULE.beta[1:] ** 2, "clip_sample": False}
    if work.kind == "ancestral":
        scheduler: Any = DDPMScheduler(T, variance_type="fixed_large", **options)
        if silent:
            scheduler._get_variance = lambda *_, **__: torch.zeros(())
    else:
        scheduler = DDIMScheduler(T, **options)
    scheduler.set_timesteps(T)

    def run() -> Array:
        with torch.inference_mode():
            x = torch.from_numpy(work.x)
            for i, t in enumerate(scheduler.timesteps):
                x = scheduler.step(eps_hat(x, i), t, x).prev_sample
            return x.numpy()

    return run


def with_jax(work: Chain, silent: bool = False) -> Callable[[], Array]:
    """One compiled fori_loop."""
    import jax
    import jax.numpy as jnp

    from benchmarks.frameworks.jax_ import predict

    layers = jax.tree.map(jnp.asarray, work.layers)
    rows, tables = jnp.asarray(features(work)), jnp.asarray(work.tables * [1, 1, not silent], dtype=jnp.float32)
    levels = jnp.asarray(work.levels / np.hypot(*work.levels.T)[:, None], dtype=jnp.float32)
    noisy = bool(work.tables[:, 2].any()) and not silent

    def body(i: Any, state: Any) -> Any:
        x, key = state
        eps = predict(layers, x, rows[i][None], levels[i, 1], levels[i, 0])
        x = tables[i, 0] * x + tables[i, 1] * eps
        if noisy:
            key, now = jax.random.split(key)
            x = x + tables[i, 2] * jax.random.normal(now, x.shape)
        return x, key

    loop = jax.jit(lambda x, key: jax.lax.fori_loop(0, T, body, (x, key))[0])

    def run() -> Array:
        return np.asarray(loop(work.x, jax.random.key(0)))

    return run


def bare_products(work: Chain) -> Work:
    """The matrix products of the network at every step, in blocks of as many rows as the network uses."""
    inputs, weights = work.x, [w for w, _ in work.layers]
    weights[0] = weights[0][
        : inputs.shape[1]
    ]  # the features of a noise level are one row, because all examples share them

    def run() -> None:
        for _ in range(T):
            for start in range(0, len(inputs), ROWS):
                h = inputs[start : start + ROWS]
                for w in weights:
                    h = h @ w

    return run


def case(kind: str, dimension: int, width: int, n: int) -> Case:
    """One sampler on one network."""
    work = chain(kind, dimension, width, n)
    makers: dict[str, Callable[..., Callable[[], Array]]] = {"scratchgen": ours}
    missing = []
    for side, library, make in (
        ("torch.inference_mode", "torch", with_torch),
        ("jax.lax.fori_loop", "jax", with_jax),
        ("diffusers loop", "diffusers", with_diffusers),
    ):
        if side == "diffusers loop" and kind not in ("ancestral", "DDIM"):
            continue  # diffusers' SDE solvers take different steps
        if find_spec(library):
            makers[side] = make
        else:
            missing.append(side)

    def check() -> dict[str, float]:
        few = work._replace(x=work.x[:64])
        results = {side: make(few, silent=True)() for side, make in makers.items()}
        mine = results.pop("scratchgen")
        size = float(np.abs(mine).max())
        return {side: float(np.abs(result - mine).max()) / size for side, result in results.items()}

    sides: dict[str, Callable[[], Work]] = {side: (lambda make=make: make(work)) for side, make in makers.items()}
    name = f"{kind}, {dimension}-D, width {width}, {n:,} chains"
    return Case(name, sides, check, 1e-5, T, bare_products(work), missing)


KINDS = ("ancestral", "Euler-Maruyama", "probability flow", "DDIM")


def cases(quick: bool = False) -> Iterator[Case]:
    """Four samplers in 2-D and in 64-D."""
    for dimension, width, n in [(2, 128, 1000)] if quick else [(2, 128, 10_000), (64, 256, 2_000)]:
        for kind in KINDS:
            yield case(kind, dimension, width, n)
