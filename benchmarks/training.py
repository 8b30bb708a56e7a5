"""Training steps: forward, backward and Adam on the same weights, batches and noise, against torch and JAX.

The other libraries are used as their documentation recommends: torch.nn with fused Adam, with and without
torch.compile; jax.jit of value_and_grad with a hand-written Adam and donated buffers, and jax.lax.scan over all steps.
All numbers are float32.  The limit is the time of the matrix products of a step in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import Case, Work
from scratchgen import MLP, Adam, NoiseSchedule
from scratchgen.ddpm import noise_error
from scratchgen.export import Layers
from scratchgen.nn import NoiseNetwork
from scratchgen.vae import VAENetwork, train_step
from scratchgen.validation import Array

# ε is larger than the usual 1e-8: a weight whose gradient is pure rounding error must not move by a whole RATE
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-4
N_TIME = 8  # frequencies of time features, as in `NoiseNetwork`


class Problem(NamedTuple):
    """Initial weights and batches of all steps, and the kind of loss."""

    kind: str  # "mlp", "ddpm" or "vae"
    layers: list[Layers]  # initial weights of every network, for x W + b
    batches: tuple[Array, ...]  # each (steps, B, ...)

    @property
    def n_steps(self) -> int:
        return len(self.batches[0])


def layers_of(mlp: MLP) -> Layers:
    """Copies of an MLP's weights and biases."""
    return [(w.copy(), b.copy()) for w, b in zip(mlp.weights, mlp.biases, strict=True)]


def sizes_of(layers: Layers) -> tuple[int, ...]:
    """Widths of all layers, input first."""
    return len(layers[0][0]), *(len(bias) for _, bias in layers)


def fill(mlp: MLP, layers: Layers) -> None:
    """Copy weights and biases into an MLP, the inverse of `layers_of`."""
    for weight, bias, (w, b) in zip(mlp.weights, mlp.biases, layers, strict=True):
        weight[:], bias[:] = w, b


def random_layers(sizes: tuple[int, ...], seed: int) -> Layers:
    """Weights N(0, 1/fan_in) in every layer, so that no gradient is zero."""
    return layers_of(MLP(sizes, rng=seed))


def mlp_problem(sizes: tuple[int, ...], batch: int, n_steps: int) -> Problem:
    """Least squares."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_steps, batch, sizes[0]), dtype=np.float32)
    target = rng.standard_normal((n_steps, batch, sizes[-1]), dtype=np.float32)
    return Problem("mlp", [random_layers(sizes, 1)], (x, target))


def ddpm_problem(dimension: int, width: int, batch: int, n_steps: int) -> Problem:
    """‖ε − ε̂(x_t, t)‖² with x_t from x_0 and ε, 100 noise levels."""
    rng, schedule = np.random.default_rng(0), NoiseSchedule.linear(100)
    x0, noise = rng.standard_normal((2, n_steps, batch, dimension), dtype=np.float32)
    t = rng.integers(1, schedule.T + 1, (n_steps, batch))
    scale, std = schedule.alpha_bar[t].astype(np.float32), schedule.beta_bar[t].astype(np.float32)
    sizes = (dimension + 2 * N_TIME, width, width, width, dimension)
    return Problem("ddpm", [random_layers(sizes, 1)], (x0, noise, scale, std))


def vae_problem(dimension: int, n_latents: int, width: int, batch: int, n_steps: int) -> Problem:
    """−ELBO with a decoder variance fixed at 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_steps, batch, dimension), dtype=np.float32)
    noise = rng.standard_normal((n_steps, batch, n_latents), dtype=np.float32)
    layers = [random_layers((dimension, width, 2 * n_latents), 1), random_layers((n_latents, width, dimension), 2)]
    return Problem("vae", layers, (x, noise))


# --- ours --------------------------------------------------------------------------------------------------------


class Ours:
    """The package's networks and Adam."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        sizes = [sizes_of(layers) for layers in problem.layers]
        if problem.kind == "vae":
            (dimension, *hidden, double), _ = sizes
            self.network: Any = VAENetwork(dimension, double // 2, hidden, rng=0)
            self.mlps = [self.network.encoder, self.network.decoder]
        elif problem.kind == "ddpm":
            self.network = NoiseNetwork(sizes[0][-1], sizes[0][1:-1], N_TIME, rng=0)
            self.mlps = [self.network.mlp]
        else:
            self.network = MLP(sizes[0], rng=0)
            self.mlps = [self.network]
        for mlp, layers in zip(self.mlps, problem.layers, strict=True):
            fill(mlp, layers)
        self.adams = [Adam(mlp.parameters, RATE, BETA1, BETA2, EPSILON) for mlp in self.mlps]

    def step(self, batch: tuple[Array, ...]) -> None:
        """One step of training."""
        if self.problem.kind == "vae":
            train_step(self.network, *batch)
        elif self.problem.kind == "ddpm":
            x0, noise, scale, std = batch
            x_t = scale[:, None] * x0 + std[:, None] * noise
            eps_hat, backward = self.network.vjp(x_t, scale, std)
            backward(noise_error(noise, eps_hat)[1] / len(x0))
        else:
            x, target = batch
            y, backward = self.network.vjp(x)
            backward((2 / len(x)) * (y - target))
        for adam, mlp in zip(self.adams, self.mlps, strict=True):
            adam.step(mlp.gradient)

    def run(self) -> list[Layers]:
        """Run all steps; return the last weights."""
        for batch in zip(*self.problem.batches, strict=True):
            self.step(batch)
        return [layers_of(mlp) for mlp in self.mlps]


def bare_products(problem: Problem) -> Work:
    """The products of every layer in the forward and backward pass; the first layer needs no gradient of its input."""
    batch = len(problem.batches[0][0])
    shapes = [w.shape for layers in problem.layers for w, _ in layers]
    first = {0, *(len(problem.layers[0]) for _ in problem.layers[1:])} if problem.kind != "vae" else {0}
    inputs = [np.ones((batch, m), dtype=np.float32) for m, _ in shapes]
    outputs = [np.ones((batch, n), dtype=np.float32) for _, n in shapes]
    weights = [np.ones(shape, dtype=np.float32) for shape in shapes]

    def work() -> None:
        for _ in range(problem.n_steps):
            for x, w in zip(inputs, weights, strict=True):
                x @ w
            for i, (x, w, g) in enumerate(zip(inputs, weights, outputs, strict=True)):
                x.T @ g
                if i not in first:
                    g @ w.T

    return work


# --- torch -------------------------------------------------------------------------------------------------------


class Torch:
    """Perceptrons of `frameworks.torch_`, fused Adam; `compiled` puts the loss under torch.compile.

    The losses are those of `frameworks.torch_` for r = 1 and s² = 1.  There eager torch takes 8 to 11 % longer at width
    64, with the operations for any r and s².
    """

    def __init__(self, problem: Problem, compiled: bool = False) -> None:
        import torch

        from benchmarks.frameworks import torch_

        torch.set_num_threads(1)
        self.torch, self.problem, self.layers_of = torch, problem, torch_.layers_of
        self.nets = [torch_.perceptron(sizes_of(layers)) for layers in problem.layers]
        for net, layers in zip(self.nets, problem.layers, strict=True):
            torch_.fill(net, layers)
        parameters = [p for net in self.nets for p in net.parameters()]
        self.adam = torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPSILON, fused=True)
        self.frequencies = torch.from_numpy((0.5 * np.geomspace(0.25, 4.0, N_TIME)).astype(np.float32))
        if compiled:
            torch._dynamo.reset()  # without a reset torch stops compiling after eight networks
        self.loss: Callable[..., Any] = torch.compile(self._loss) if compiled else self._loss
        self.batches = [torch.from_numpy(part) for part in problem.batches]

    def _loss(self, *batch: Any) -> Any:
        torch = self.torch
        if self.problem.kind == "mlp":
            x, target = batch
            return ((self.nets[0](x) - target) ** 2).sum(dim=1).mean()
        if self.problem.kind == "ddpm":
            x0, noise, scale, std = (part if part.ndim == 2 else part[:, None] for part in batch)
            x_t = scale * x0 + std * noise
            angles = 2 * torch.log(scale / std) * self.frequencies
            inputs = torch.cat([x_t, torch.cos(angles), torch.sin(angles)], dim=1)
            return ((std * x_t + scale * self.nets[0](inputs) - noise) ** 2).sum(dim=1).mean()
        x, noise = batch
        mean, log_variance = self.nets[0](x).chunk(2, dim=1)
        x_hat = self.nets[1](mean + torch.exp(0.5 * log_variance) * noise)
        kl = 0.5 * (mean**2 + torch.expm1(log_variance) - log_variance).sum(dim=1)
        return (0.5 * ((x_hat - x) ** 2).sum(dim=1) + kl).mean()

    def run(self) -> list[Layers]:
        """Run all steps; return the last weights."""
        for batch in zip(*self.batches, strict=True):
            self.adam.zero_grad(set_to_none=True)
            self.loss(*batch).backward()
            self.adam.step()
        return [self.layers_of(net) for net in self.nets]


# --- JAX ---------------------------------------------------------------------------------------------------------


class Jax:
    """jax.jit of a whole step with donated buffers; `scanned` compiles the loop over the steps as well."""

    def __init__(self, problem: Problem, scanned: bool = False) -> None:
        import jax
        import jax.numpy as jnp

        from benchmarks.frameworks import jax_

        self.jax, self.theirs, self.problem, self.scanned = jax, jax_, problem, scanned
        parameters = jax.tree.map(jnp.array, problem.layers)
        moments = jax_.Moments(*(jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)), jnp.zeros(()))
        self.state = (parameters, moments)
        self.batches = [jnp.asarray(part) for part in problem.batches]
        self.single = jax.jit(self._step, donate_argnums=0)
        self.many = jax.jit(lambda state, batches: jax.lax.scan(self._scan, state, batches)[0], donate_argnums=0)
        self.slices = [tuple(part[i] for part in self.batches) for i in range(problem.n_steps)]

    def _loss(self, parameters: Any, batch: Any) -> Any:
        if self.problem.kind == "mlp":
            x, target = batch
            return ((self.theirs.perceptron(parameters[0], x) - target) ** 2).sum(axis=1).mean()
        if self.problem.kind == "ddpm":
            x0, noise, scale, std = batch
            return self.theirs.noise_losses(parameters[0], x0, scale[:, None], std[:, None], noise).mean()
        return self.theirs.vae_losses(*parameters, 0.0, *batch).mean()

    def _step(self, state: Any, batch: Any) -> Any:
        parameters, moments = state
        gradient = self.jax.grad(self._loss)(parameters, batch)
        return self.theirs.adam(parameters, gradient, moments, RATE, BETA1, BETA2, EPSILON)

    def _scan(self, state: Any, batch: Any) -> Any:
        return self._step(state, batch), None

    def run(self) -> list[Layers]:
        """Run all steps; return the last weights."""
        if self.scanned:
            self.state = self.many(self.state, tuple(self.batches))
        else:
            for batch in self.slices:
                self.state = self.single(self.state, batch)
        return self.jax.tree.map(np.asarray, self.jax.block_until_ready(self.state[0]))


# --- cases -------------------------------------------------------------------------------------------------------


def deviation(ours: list[Layers], other: list[Layers]) -> float:
    """Largest difference between two sets of weights."""
    pairs = zip([a for net in ours for layer in net for a in layer], _flat(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def _flat(networks: Any) -> list[Array]:
    return [np.asarray(a) for net in networks for layer in net for a in layer]


PEERS: dict[str, tuple[str, Callable[[Problem], Any]]] = {
    "torch, eager": ("torch", Torch),
    "torch.compile": ("torch", lambda problem: Torch(problem, compiled=True)),
    "jax.jit": ("jax", Jax),
    "jax.lax.scan": ("jax", lambda problem: Jax(problem, scanned=True)),
}


def case(name: str, problem: Problem) -> Case:
    """Our side against every installed library; each side continues its own training from round to round."""
    peers = {peer: make for peer, (library, make) in PEERS.items() if find_spec(library)}
    makers: dict[str, Callable[[Problem], Any]] = {"scratchgen": Ours, **peers}

    def check() -> dict[str, float]:
        """The weights after the first three steps."""
        few = problem._replace(batches=tuple(part[:3] for part in problem.batches))
        results = {side: make(few).run() for side, make in makers.items()}
        return {side: deviation(results["scratchgen"], results[side]) for side in peers}

    sides = {side: (lambda make=make: make(problem).run) for side, make in makers.items()}
    return Case(name, sides, check, 1e-5, problem.n_steps, bare_products(problem), [p for p in PEERS if p not in peers])


MLPS = [(64, 64), (64, 1024), (128, 256), (256, 256), (256, 1024), (512, 256)]  # width, batch
DDPMS = [(2, 64, 128), (2, 128, 256), (64, 256, 256), (64, 512, 256)]  # D, width, batch
VAES = [(2, 128), (16, 512)]  # latents, batch


def cases(quick: bool = False) -> Iterator[Case]:
    """MLP, DDPM and VAE steps over widths and batches; one piece of work takes about 30 to 300 milliseconds."""
    for width, batch in MLPS[:1] if quick else MLPS:
        problem = mlp_problem((66, width, width, width, 2), batch, 10 if width * batch > 2**16 else 60)
        yield case(f"MLP step, width {width}, batch {batch}", problem)
    for dimension, width, batch in DDPMS[1:3] if quick else DDPMS:
        problem = ddpm_problem(dimension, width, batch, 10 if width * batch > 2**16 else 60)
        yield case(f"DDPM step, {dimension}-D, width {width}, batch {batch}", problem)
    for n_latents, batch in VAES[:1] if quick else VAES:
        problem = vae_problem(64, n_latents, 256, batch, 20)
        yield case(f"VAE step, 64-D, {n_latents} latents, batch {batch}", problem)
