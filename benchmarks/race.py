"""Time to a given quality, with and without the cold start: `python -m benchmarks.race`.

Every contestant trains a DDPM of 100 steps with the same network (128, 128, 128), data, batch size, largest learning
rate and cosine decay:

- "ours": DDPM at its defaults, and with weighting="bound" and step_choice="importance";
- "torch", "torch.compile" and "JAX": Algorithm 1 as in our default, from our initial weights, with the functions of
  `benchmarks.frameworks` and draws of the framework: fused Adam and an average by foreach in torch; in JAX one compiled
  scan over all steps;
- "plain recipe": prediction of the noise, uniform t, no moving average and no features of the coordinates, in torch and
  from its initial weights.  It has our features of the noise level and our learning rates.

The goals are KL(p‖p_θ) of the ancestral sampler below 0.1 and 0.05 nats, step by step on a grid, for eight Gaussians
and two moons, and a bound of the test digits below 3.1 bits/dim.  The two moons have noise of 0.1: for 0.05 the chain
has a KL of 0.071 with the exact denoiser, for 0.1 one of 0.020, and of 0.014 for eight Gaussians.  The weights of every
contestant are put into our network, which is graded off the clock.

The learning rate falls to 0 at the end of a training, so that every number of steps is a training of its own.  The
result is the least number of steps on the grid `HORIZONS` whose training reaches the goal, by bisection, for each seed.

Times are CPU seconds of a fresh process on one core with one thread.  "training" starts when all code is compiled:
torch has done two steps, which are taken back.  "with cold start" adds imports, compilation and set-up.  The processes
of the other frameworks do not pay for the import of scratchgen, whose functions they share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.markdown import Suite, publish
from benchmarks.timing import pin_to_one_core, start_with_one_thread
from scratchgen import DDPM, NoiseSchedule, datasets
from scratchgen.export import Layers, from_layers, layers, load_state_dict, state_dict
from scratchgen.grading import ancestral_density
from scratchgen.law import SmoothLaw
from scratchgen.nn import NoiseNetwork, cosine_decay
from scratchgen.validation import Array

ROOT = Path(__file__).parents[1]
HORIZONS = (200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 6400, 9600, 12_800)
SHORT = HORIZONS[2:9]  # in `python -m benchmarks`
SEEDS = (0, 1, 2)
N_ROWS = 20_000
NOISE = 0.1  # of the two moons
CHILD = """
import sys, time
began = time.process_time()
from benchmarks import race
race.run(began, *sys.argv[1:])
"""

# --- targets ---------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """Data, arguments of DDPM, a number that is lower for better models, and the goals for it."""

    data: Callable[[int], Array]  # seed → (N, D)
    options: dict[str, Any]
    grade: Callable[[DDPM], float]
    goals: tuple[float, ...]


def kl_from(truth: SmoothLaw) -> Callable[[DDPM], float]:
    """KL(p‖p_θ) of a model's ancestral sampler, nats, exact on a grid; inf for a density that the grid cannot hold."""

    def grade(model: DDPM) -> float:
        try:
            grid = ancestral_density(model.schedule_, model.eps_hat, truth.dimension, model.variance_)
            return grid.kl_from(truth.log_prob(grid.points))
        except ArithmeticError:
            return float("inf")

    return grade


def bits_of_test_digits(model: DDPM) -> float:
    """−ELBO of the test digits, bits/dim, on the same noise for every model."""
    images = datasets.digits("test").images
    return -float(model.elbo(images, rng=1).mean()) / (images.shape[1] * np.log(2))


IN_PLANE: dict[str, Any] = {"n_coordinate_features": 3, "standardize": False}
RING = datasets.eight_gaussians()
MOONS = datasets.two_moons(noise=NOISE)
TARGETS = {
    "eight Gaussians": Target(lambda seed: RING.sample(N_ROWS, seed), IN_PLANE, kl_from(RING), (0.1, 0.05)),
    "two moons": Target(lambda seed: MOONS.sample(N_ROWS, seed), IN_PLANE, kl_from(MOONS), (0.1, 0.05)),
    "digits": Target(lambda _: datasets.digits("train").images, {"n_levels": 17}, bits_of_test_digits, (3.1,)),
}

# --- contestants -----------------------------------------------------------------------------------------------------
# Each is a function (options, x, n_steps, seed) → a function without arguments that trains and returns the layers.

Prepared = Callable[[], Layers]


def ours(options: dict[str, Any], x: Array, n_steps: int, seed: int) -> Prepared:
    """DDPM of this package."""
    model = DDPM(n_steps=n_steps, rng=seed, **options)
    return lambda: layers(state_dict(model.fit(x)), "average.mlp")


class Setting(NamedTuple):
    """The model, data, initial weights and learning rates that a training in another framework takes from ours."""

    model: DDPM  # with one step of training
    data: Array  # (N, D), in its units, float32
    start: Layers  # initial weights
    rates: list[float]  # learning rates
    scale: Array  # (T+1, 1), float32
    std: Array  # (T+1, 1), float32


def setting(options: dict[str, Any], x: Array, n_steps: int, seed: int) -> Setting:
    """The training that DDPM would do, off the clock."""
    model = DDPM(n_steps=1, rng=seed, **options).fit(x)
    chain: NoiseSchedule = model.schedule_
    mlp = NoiseNetwork(
        x.shape[1], model.hidden, n_coordinate_features=model.network_.n_coordinate_features, rng=seed
    ).mlp
    rates = [cosine_decay(i, n_steps, model.learning_rate, min(100, n_steps // 10)) for i in range(n_steps)]
    levels = (level[:, None].astype(np.float32) for level in (chain.alpha_bar, chain.beta_bar))
    start = list(zip(mlp.weights, mlp.biases, strict=True))
    return Setting(model, model.to_model(x).astype(np.float32), start, rates, *levels)


class Torch:
    """Algorithm 1 in torch, with prediction of v, a moving average and our initial weights, or without all three."""

    def __init__(self, given: Setting, seed: int, compiled: bool, plain: bool) -> None:
        import torch

        from benchmarks.frameworks import torch_

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.torch, self.theirs, self.given, self.plain = torch, torch_, given, plain
        model, dimension = given.model, given.data.shape[1]
        features = {"n_coordinate_features": model.network_.n_coordinate_features}
        self.network, self.average = (torch_.NoiseNetwork(dimension, model.hidden, **features) for _ in range(2))
        self.start = torch_.layers_of(self.network.mlp) if plain else given.start
        self.data, self.scale, self.std = map(torch.from_numpy, (given.data, given.scale, given.std))
        log_snr = 2 * torch.log(self.scale[1:] / self.std[1:])  # inf at t = 0
        self.inputs = torch.cat([torch.zeros(1, 16), self.network.given(log_snr, torch.float32)])
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.begin()

    def begin(self) -> None:
        """Set the initial weights and a new Adam."""
        for network in self.network, self.average:
            self.theirs.fill(network.mlp, self.start)
        self.parameters, self.averages = list(self.network.parameters()), list(self.average.parameters())
        self.adam, self.n_steps = self.torch.optim.Adam(self.parameters, fused=True), 0

    def _loss(self, x0: Any, t: Any, noise: Any) -> Any:
        scale, std = self.scale[t], self.std[t]
        skip, gain = (0.0, 1.0) if self.plain else (std, scale)
        eps_hat = self.network.predict(scale * x0 + std * noise, self.inputs[t], skip, gain)
        return ((eps_hat - noise) ** 2).sum(dim=1).mean()

    def step(self, rate: float) -> None:
        """One step of Algorithm 1 and of the moving average."""
        torch, model = self.torch, self.given.model
        x0 = self.data[torch.randint(len(self.data), (model.batch_size,))]
        t = torch.randint(1, len(self.scale), (model.batch_size,))
        self.adam.zero_grad(set_to_none=True)
        self.loss(x0, t, torch.randn_like(x0)).backward()
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.n_steps += 1
        if not self.plain:
            decay = min(model.ema_decay, (1 + self.n_steps) / (10 + self.n_steps))
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    def train(self) -> Layers:
        """All steps."""
        for rate in self.given.rates:
            self.step(rate)
        return self.theirs.layers_of((self.network if self.plain else self.average).mlp)


def in_torch(
    options: dict[str, Any], x: Array, n_steps: int, seed: int, compiled: bool = False, plain: bool = False
) -> Prepared:
    """`Torch`, after two steps that are taken back."""
    given = setting(options, x, n_steps, seed)
    clock.restart()
    training = Torch(given, seed, compiled, plain)
    for _ in range(2):
        training.step(0.0)
    training.begin()
    return training.train


def in_jax(options: dict[str, Any], x: Array, n_steps: int, seed: int) -> Prepared:
    """Algorithm 1 in JAX, compiled before it runs."""
    given = setting(options, x, n_steps, seed)
    clock.restart()
    import jax
    import jax.numpy as jnp

    from benchmarks.frameworks import jax_

    model, features = given.model, given.model.network_.n_coordinate_features
    data, scale, std = map(jnp.asarray, (given.data, given.scale, given.std))
    start = jax.tree.map(jnp.array, given.start)
    zeros = [jax.tree.map(jnp.zeros_like, start) for _ in range(2)]
    carry = jax_.Carry(start, jax.tree.map(jnp.copy, start), jax_.Moments(*zeros, jnp.zeros(())))
    key, rates = jax.random.key(seed), jnp.asarray(given.rates, dtype=jnp.float32)

    def body(carry: Any, each: Any) -> Any:
        key, rate = each
        of_rows, of_t, of_noise = jax.random.split(key, 3)
        x0 = data[jax.random.randint(of_rows, (model.batch_size,), 0, len(data))]
        t = jax.random.randint(of_t, (model.batch_size,), 1, len(scale))
        batch = x0, scale[t], std[t], jax.random.normal(of_noise, x0.shape), rate
        return jax_.step(carry, batch, model.ema_decay, features)

    def loop(carry: Any, key: Any, rates: Any) -> Any:
        return jax.lax.scan(body, carry, (jax.random.split(key, len(rates)), rates))

    compiled = jax.jit(loop, donate_argnums=0).lower(carry, key, rates).compile()

    def train() -> Layers:
        end, _ = jax.block_until_ready(compiled(carry, key, rates))
        return [(np.asarray(weight), np.asarray(bias)) for weight, bias in end.average]

    return train


class Contestant(NamedTuple):
    """A training, the arguments of the DDPM that is trained, and the library that it needs."""

    prepare: Callable[..., Prepared]
    library: str
    options: dict[str, Any]


# In `python -m benchmarks`; torch.compile and the plain recipe take longer than torch.
IN_SUITE = ("ours", 'ours, weighting="bound", step_choice="importance"', "torch", "JAX")
RECIPE = {"weighting": "bound", "step_choice": "importance"}
PLAIN = {"prediction": "noise", "n_coordinate_features": 0}
CONTESTANTS = {
    "ours": Contestant(ours, "scratchgen", {}),
    'ours, weighting="bound", step_choice="importance"': Contestant(ours, "scratchgen", RECIPE),
    "torch": Contestant(in_torch, "torch", {}),
    "torch.compile": Contestant(partial(in_torch, compiled=True), "torch", {}),
    "JAX": Contestant(in_jax, "jax", {}),
    "plain recipe": Contestant(partial(in_torch, plain=True), "torch", PLAIN),
}


def arguments(contestant: str, target: str) -> dict[str, Any]:
    """Arguments of the DDPM whose network the contestant trains."""
    return TARGETS[target].options | CONTESTANTS[contestant].options


# --- one training in a process of its own ----------------------------------------------------------------------------


class Clock:
    """CPU seconds of this process since `began`."""

    def __init__(self) -> None:
        self.began = time.process_time()

    def restart(self) -> None:
        """Leave out what has been done."""
        self.began = time.process_time()

    def read(self) -> float:
        """Seconds."""
        return time.process_time() - self.began


clock = Clock()


def run(began: float, contestant: str, target: str, n_steps: str, seed: str, path: str) -> None:
    """Train, and write the layers and both times to a file."""
    clock.began = began
    each = CONTESTANTS[contestant]
    x = TARGETS[target].data(int(seed))
    train = each.prepare(arguments(contestant, target), x, int(n_steps), int(seed))
    before = clock.read()
    trained = train()
    after = clock.read()
    np.savez(path, seconds=np.array([after - before, after]), **from_layers(trained, "average.mlp"))


class Result(NamedTuple):
    """One training."""

    n_steps: int
    grade: float  # nats, or bits/dim
    seconds: float  # of the training
    cold: float  # with the cold start


def train_and_grade(contestant: str, target: str, n_steps: int, seed: int) -> Result:
    """One training in a fresh process, and the grade of its weights in our network."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "end.npz")
        command = [sys.executable, "-c", CHILD, contestant, target, str(n_steps), str(seed), path]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{contestant} failed on {target}:\n{done.stderr[-2000:]}")
        with np.load(path) as end:
            state = dict(end)
    seconds, cold = state.pop("seconds").tolist()
    return Result(n_steps, TARGETS[target].grade(filled(contestant, target, state, seed)), seconds, cold)


def filled(contestant: str, target: str, state: dict[str, Array], seed: int) -> DDPM:
    """Our model with the layers of a contestant."""
    model = DDPM(n_steps=1, rng=0, **arguments(contestant, target)).fit(TARGETS[target].data(seed))
    return load_state_dict(model, state_dict(model) | state)


# --- the race --------------------------------------------------------------------------------------------------------


def least(train: Callable[[int], Result], goal: float, horizons: tuple[int, ...]) -> Result | None:
    """The training of the least horizon whose grade is at most the goal, by bisection; None if there is none."""
    i = bisect_left(horizons, True, key=lambda n: train(n).grade <= goal)
    return train(horizons[i]) if i < len(horizons) else None


def spread(values: list[float]) -> str:
    """Median and range; the value itself if it is one."""
    return f"{values[0]:.2f}" if len(values) == 1 else f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def cells(found: list[Result | None], horizons: tuple[int, ...]) -> list[str]:
    """Steps and both times of a row; a goal counts as reached if every seed reaches it."""
    reached = [result for result in found if result is not None]
    if len(reached) < len(found):
        return [f"{len(reached)} of {len(found)} seeds within {horizons[-1]:,}", "–", "–"]
    steps = " / ".join(f"{result.n_steps:,}" for result in reached)
    return [steps, spread([result.seconds for result in reached]), spread([result.cold for result in reached])]


Record = dict[str, dict[str, list[Any]]]  # target -> contestant -> all trainings, each with its seed


def report(
    targets: Sequence[str],
    contestants: Sequence[str],
    horizons: tuple[int, ...],
    seeds: tuple[int, ...],
    record: Record,
) -> Iterator[str]:
    """Lines of Markdown; fill `record`."""
    yield "| goal | contestant | steps, each seed | training, CPU s | with cold start |\n|---|---|---|---|---|"
    for target in targets:
        unit = "bits/dim" if "n_levels" in TARGETS[target].options else "nats"
        for name in contestants:
            kept: list[Any] = record.setdefault(target, {}).setdefault(name, [])
            if find_spec(CONTESTANTS[name].library) is None:
                yield f"| {target} | {name} | missing | – | – |"
                continue

            @cache
            def train(n_steps: int, seed: int, name: str = name, target: str = target, kept: Any = kept) -> Result:
                result = train_and_grade(name, target, n_steps, seed)
                kept.append((seed, *result))
                return result

            for goal in TARGETS[target].goals:
                found = [least(lambda n, seed=seed: train(n, seed), goal, horizons) for seed in seeds]
                yield f"| {target}, {goal} {unit} | {name} | {' | '.join(cells(found, horizons))} |"


def suite(quick: bool, rounds: int) -> Suite:
    """The race of `python -m benchmarks`: eight Gaussians, at most 3200 steps; `quick` takes one seed."""
    record: Record = {}
    yield from report(list(TARGETS)[:1], IN_SUITE, SHORT, SEEDS[: 1 if quick else None], record)
    return record


def draw(record: Record, path: Path) -> None:
    """Grade of every training against its CPU time with the cold start, a panel for each target."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure((5 * len(record), 5.5), layout="constrained")
    for axes, (target, by_name) in zip(figure.subplots(1, len(record), squeeze=False)[0], record.items(), strict=True):
        for name, kept in by_name.items():
            horizons = sorted({row[1] for row in kept})
            of = {n: [row for row in kept if row[1] == n] for n in horizons}
            grades = [median(row[2] for row in of[n]) for n in horizons]
            axes.loglog([median(row[4] for row in of[n]) for n in horizons], grades, "o-", label=name)
        for goal in TARGETS[target].goals:
            axes.axhline(goal, color="0.7", lw=1)
        digits = "n_levels" in TARGETS[target].options
        axes.set(title=target, xlabel="CPU time with cold start, s", ylabel="bits/dim" if digits else "KL(p‖p_θ), nats")
        axes.set_yscale("linear" if digits else "log")
        for axis in (axes.xaxis,) if digits else (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize="small", ncols=len(record))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the race and print one Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(TARGETS)}; default all")
    parser.add_argument("--quick", action="store_true", help="as in `python -m benchmarks`, with one seed")
    parser.add_argument("--markdown", type=Path, default=None, metavar="FILE", help="replaces the table in FILE")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="all trainings")
    parser.add_argument("--figure", type=Path, default=None, metavar="FILE", help=".png or .svg; needs matplotlib")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"targets must be among {', '.join(TARGETS)}, got {', '.join(sorted(unknown))}")
    start_with_one_thread("benchmarks.race")
    pin_to_one_core()
    names = options.targets or list(TARGETS)[: 1 if options.quick else None]
    extent = (IN_SUITE, SHORT, SEEDS[:1]) if options.quick else (list(CONTESTANTS), HORIZONS, SEEDS)
    record: Record = {}
    publish(report(names, *extent, record), options.markdown)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if options.figure is not None:
        draw(record, options.figure)


if __name__ == "__main__":
    main()
