"""Networks, losses, optimiser, moving average and sampler of scratchgen in torch, to go on with a training there.

    for progress in model.train(x):                 # leave the loop between two steps, or load such a model's file
        if progress.step == 100:
            break
    go_on(model, x, 1000)                           # steps 101 to 1100 in torch, with the draws of `train`
    model.resume(x)                                 # the rest in NumPy

On several processes, each with its part of every batch:

    torchrun --nproc-per-node 2 -m benchmarks.frameworks.torch_ model.npz further.npz 1000 x.npy

Batches, times and noise come from NumPy's generator, so that torch and NumPy can be compared from the same draws.  The
state of the generator goes back into the model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from scratchgen import DDPM, load
from scratchgen.ddpm import loss_weight
from scratchgen.export import Layers, load_state_dict, state_dict
from scratchgen.models.diffusion import DiffusionModel
from scratchgen.models.vae import GaussianVAE
from scratchgen.nn import NO_LABEL, Adam, cosine_decay
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import TimeSampler
from scratchgen.timestep_sampling import TimestepSampler
from scratchgen.vae import LOG_VARIANCE_RATE, random_batch, sigma_batch

ACTIVATIONS = {"silu": nn.SiLU, "tanh": nn.Tanh, "identity": nn.Identity}

# --- networks --------------------------------------------------------------------------------------------------------


def perceptron(sizes: Sequence[int], activation: str = "silu") -> nn.Sequential:
    """Linear layers with activations between them."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        modules += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    return nn.Sequential(*modules[:-1])


def fill(net: nn.Sequential, layers: Layers) -> None:
    """Copy a list of (W (in, out), b (out,)) into a perceptron, the inverse of `layers_of`."""
    for linear, (weight, bias) in zip(net[::2], layers, strict=True):
        linear.weight.data, linear.bias.data = torch.tensor(weight.T), torch.tensor(bias)


def layers_of(net: nn.Sequential) -> Layers:
    """Copies of the weights and biases of a perceptron."""
    return [(as_array(linear.weight).T.copy(), as_array(linear.bias)) for linear in net[::2]]


class NoiseNetwork(nn.Module):
    """ε̂ = skip · y + gain · F(y, features(y), features(log-SNR), label), y = x_t/r, as `scratchgen.nn.NoiseNetwork`."""

    def __init__(
        self,
        dimension: int,
        hidden: Sequence[int],
        n_time_features: int = 8,
        n_coordinate_features: int = 0,
        n_classes: int = 0,
    ) -> None:
        super().__init__()
        n_inputs = dimension * (1 + 2 * n_coordinate_features) + 2 * n_time_features + n_classes
        self.mlp = perceptron((n_inputs, *hidden, dimension))
        self.n_coordinate_features, self.n_classes = n_coordinate_features, n_classes
        frequencies = 0.125 * 16.0 ** (torch.arange(n_time_features) / max(n_time_features - 1, 1))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x_t: Tensor, scale: Tensor, std: Tensor, labels: Tensor | None = None) -> Tensor:
        """ε̂, (N, D), for x_t (N, D) and noise levels (N, 1) or (1, 1), best in float64."""
        given = self.given(2 * torch.log(scale / std), x_t.dtype, labels)
        scale, std = scale.to(x_t.dtype), std.to(x_t.dtype)
        r = torch.hypot(scale, std)
        return self.predict(x_t / r, given, std / r, scale / r)

    def given(self, log_snr: Tensor, dtype: torch.dtype, labels: Tensor | None = None) -> Tensor:
        """Inputs from noise level, (N, 1) or (1, 1), and label, (N,): (N, G) or (1, G)."""
        angles = log_snr.to(dtype) * self.frequencies
        features = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
        if not self.n_classes:
            return features
        if labels is None:
            indicators = features.new_zeros(len(features), self.n_classes)
        else:
            indicators = (labels[:, None] == torch.arange(self.n_classes, device=labels.device)).to(dtype)
        return torch.cat([features.expand(len(indicators), -1), indicators], dim=1)

    def predict(self, y: Tensor, given: Tensor, skip: Tensor | float, gain: Tensor | float) -> Tensor:
        """skip · y + gain · F(y, given), (N, D)."""
        points = [y]
        if self.n_coordinate_features:
            octaves = 2.0 ** torch.arange(1, self.n_coordinate_features + 1, device=y.device, dtype=y.dtype)
            angles = (y[:, :, None] * octaves).flatten(1)
            points += [torch.cos(angles), torch.sin(angles)]
        return skip * y + gain * self.mlp(torch.cat([*points, given.expand(len(y), -1)], dim=1))


class VAENetwork(nn.Module):
    """Encoder, decoder and log s², as `scratchgen.vae.VAENetwork` for real numbers."""

    def __init__(
        self,
        encoder: Sequence[int],
        decoder: Sequence[int],
        activation: str = "silu",
        n_variances: int = 1,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = perceptron(encoder, activation), perceptron(decoder, activation)
        self.log_variance = nn.Parameter(torch.zeros(n_variances))

    def forward(self, x: Tensor, noise: Tensor, kl_weight: float = 1.0) -> Tensor:
        """The loss (14) of every example, (N,), nats, for x (N, D) and ξ (N, k)."""
        return vae_losses(self.encoder, self.decoder, self.log_variance, x, noise, kl_weight)


def network_of(model: Any) -> nn.Module:
    """The network of a model, without its weights."""
    if getattr(model, "prediction", "v") != "v" or model.n_levels is not None:
        raise ValueError("the torch network is for prediction='v' and real numbers, n_levels=None; train such a model")
    ours = model.network_
    if isinstance(model, GaussianVAE):
        network: nn.Module = VAENetwork(
            ours.encoder.sizes, ours.decoder.sizes, model.activation, len(ours.log_variance)
        )
        return network.to(getattr(torch, model.dtype))
    features = ours.n_time_features, ours.n_coordinate_features
    return NoiseNetwork(ours.dimension, model.hidden, *features, ours.n_classes)


# --- losses ----------------------------------------------------------------------------------------------------------


def noise_losses(
    network: Callable[..., Tensor],
    x0: Tensor,
    scale: Tensor,
    std: Tensor,
    noise: Tensor,
    labels: Tensor | None = None,
) -> Tensor:
    """‖ε − ε̂(x_t)‖² of every example, (N,), at x_t = scale · x_0 + std · ε; levels (N, 1): the θ-part of (29), (33)."""
    x_t = scale.to(x0.dtype) * x0 + std.to(x0.dtype) * noise
    return ((network(x_t, scale, std, labels) - noise) ** 2).sum(dim=1)


def vae_losses(
    encoder: Callable[[Tensor], Tensor],
    decoder: Callable[[Tensor], Tensor],
    log_variance: Tensor,
    x: Tensor,
    noise: Tensor,
    kl_weight: float = 1.0,
) -> Tensor:
    """−log N(x; x̂(z), s²) + KL(N(μ, σ²)‖N(0, I)) of every example, (N,), nats, at z = μ + σ ξ: (14)."""
    mean, log_sigma2 = encoder(x).chunk(2, dim=1)
    residual = decoder(mean + torch.exp(0.5 * log_sigma2) * noise) - x
    reconstruction = 0.5 * (torch.exp(-log_variance) * residual**2 + log_variance + np.log(2 * np.pi)).sum(dim=1)
    kl = 0.5 * (mean**2 + torch.expm1(log_sigma2) - log_sigma2).sum(dim=1)
    return reconstruction + kl_weight * kl


# --- training --------------------------------------------------------------------------------------------------------


class Trainer:
    """Network, average and Adam of a training that has not ended: takes steps, and returns the state.

    Under torch.distributed every process has its part of the batch, and gradients are averaged over processes.
    """

    def __init__(self, model: Any, device: str = "cpu") -> None:
        self.model, self.state = model, state_dict(model)
        self.network = network_of(model).to(device)
        self.average = network_of(model).to(device) if isinstance(model, DiffusionModel) else None
        self.network.load_state_dict(self._part("network"))
        if self.average is not None:
            self.average.load_state_dict(self._part("average"))
        self.run = nn.parallel.DistributedDataParallel(self.network) if distributed.is_initialized() else self.network
        self.n_steps, self.losses = int(self.state["step"]), self.state["losses_"].tolist()
        learned = isinstance(model, DiffusionModel) or isinstance(model.decoder_variance, str | None)
        named, ours = dict(self.network.named_parameters()), Adam(np.zeros(0))
        variances = [parameter for name, parameter in named.items() if name == "log_variance"]
        others = [parameter for name, parameter in named.items() if name != "log_variance"]
        groups = [{"params": others, "factor": 1.0}, {"params": variances, "factor": LOG_VARIANCE_RATE * learned}]
        options = {"betas": (ours.beta1, ours.beta2), "eps": ours.epsilon}
        self.adam = torch.optim.AdamW(groups, **options, weight_decay=getattr(model, "weight_decay", 0.0))
        first, second = self._part("exp_avg"), self._part("exp_avg_sq")
        for name, parameter in named.items():
            moments = {"exp_avg": first[name].to(device), "exp_avg_sq": second[name].to(device)}
            self.adam.state[parameter] = {"step": torch.tensor(float(self.n_steps)), **moments}

    def _part(self, name: str) -> dict[str, Tensor]:
        """The arrays of the state below a name, for `Module.load_state_dict`."""
        prefix = f"{name}."
        return {k.removeprefix(prefix): torch.tensor(v) for k, v in self.state.items() if k.startswith(prefix)}

    def step(self, losses: Tensor, offset: float = 0.0) -> None:
        """One step of Adam on the mean of losses, (N,), and of the average; the loss is kept with `offset` added."""
        loss = losses.mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        warmup = 0 if self.average is None else min(100, self.model.n_steps_ // 10)
        rate = cosine_decay(self.n_steps, self.model.n_steps_, self.model.learning_rate, warmup)
        for group in self.adam.param_groups:
            group["lr"] = rate * group["factor"]
        self.adam.step()
        self.n_steps += 1
        if self.average is not None:
            decay = min(self.model.ema_decay, (1 + self.n_steps) / (10 + self.n_steps))
            with torch.no_grad():
                for mean, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
                    mean.mul_(decay).add_(parameter, alpha=1 - decay)
        self.losses.append(float(together(losses.detach()).mean()) + offset)

    def state_dict(self) -> dict[str, np.ndarray]:
        """The state for `scratchgen.export.load_state_dict`."""
        parts = {"network": dict(self.network.named_parameters())}
        if self.average is not None:
            parts["average"] = dict(self.average.named_parameters())
        for moment in "exp_avg", "exp_avg_sq":
            parts[moment] = {name: self.adam.state[p][moment] for name, p in self.network.named_parameters()}
        arrays = {f"{part}.{name}": as_array(p) for part, ps in parts.items() for name, p in ps.items()}
        return self.state | arrays | {"step": np.array(self.n_steps), "losses_": np.array(self.losses)}


def as_array(tensor: Tensor) -> np.ndarray:
    """A copy of a tensor as an array."""
    return tensor.detach().cpu().numpy().copy()


def together(part: Tensor) -> Tensor:
    """The parts of a vector on all processes, one after the other; the vector itself on a single process."""
    if not distributed.is_initialized():
        return part
    parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, part)
    return torch.cat(parts)


def go_on(model: Any, x: Any, n_steps: int, y: Any = None, device: str = "cpu") -> Any:
    """Take the next `n_steps` steps of a training in torch, with the draws of `train`; set and return the model.

    Parameters
    ----------
    model : DDPM, ScoreSDE, VAE or LinearVAE
        Its training has not ended.
    x : (N, D)
        All data of the training, on every process.
    n_steps : int
        At least one step stays for `model.resume(x)`.
    y : (N,) of int, optional
        Labels.
    """
    if (training := model.training_state_) is None:
        raise ValueError("model must have a training that has not ended; leave a loop over model.train(x) first")
    if model.early_stopping:
        raise ValueError("early_stopping must be False, since validation runs in model.train; got True")
    if getattr(model, "n_classes", 0) and y is None:
        raise ValueError(f"y must be given for a model with n_classes={model.n_classes}, got None; pass the labels")
    trainer = Trainer(model, device)
    rng = np.random.Generator(getattr(np.random, training.generator["bit_generator"])())
    rng.bit_generator.state = training.generator
    labels = np.asarray(y) if getattr(model, "n_classes", 0) else None
    data = model.to_model(np.asarray(x))
    steps = vae_steps(trainer, data, rng) if isinstance(model, GaussianVAE) else noise_steps(trainer, data, rng, labels)
    for _ in range(n_steps):
        next(steps)
    load_state_dict(model, trainer.state_dict())
    model.training_state_ = model.training_state_._replace(generator=dict(rng.bit_generator.state))
    return model


def own(batch: np.ndarray, device: Any) -> Tensor:
    """This process's part of the rows of a batch, which must be as many on every process."""
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    if len(batch) % world:
        raise ValueError(f"batch_size must be a multiple of {world} processes, got {len(batch)}")
    size = len(batch) // world
    start = size * distributed.get_rank() if world > 1 else 0
    return torch.tensor(batch[start : start + size], device=device)


def noise_steps(
    trainer: Trainer, data: np.ndarray, rng: np.random.Generator, labels: np.ndarray | None
) -> Iterator[None]:
    """Algorithm 1, or denoising score matching, on data (N, D) in the model's units; take a step, then yield."""
    model, device = trainer.model, next(trainer.network.parameters()).device
    data, (draw, observe) = data.astype(np.float32), level_sampler(model, trainer.state)
    while True:
        rows = rng.integers(len(data), size=model.batch_size)
        x0 = data[rows]
        noise = rng.standard_normal(x0.shape, dtype=x0.dtype)
        cells, scale, std, weight, correction = draw(len(rows), rng)
        given = None
        if labels is not None:
            shown = np.where(rng.random(len(rows)) < model.label_dropout, NO_LABEL, labels[rows])
            given = own(shown, device)
        scale, std = own(scale[:, None], device), own(std[:, None], device)
        losses = noise_losses(trainer.run, own(x0, device), scale, std, own(noise, device), given)
        trainer.step(own((weight * correction).astype(np.float32), device) * losses)
        observe(cells, weight * as_array(together(losses.detach())))
        yield


def level_sampler(model: Any, state: dict[str, np.ndarray]) -> tuple[Callable[..., Any], Callable[..., None]]:
    """A draw (n, rng) → cells of t, scale, std, λ and importance weight, each (n,); and `observe(cells, losses)`.

    The running means of importance sampling are those of the state.
    """
    if isinstance(model, DDPM):
        chain, means = model.schedule_, TimestepSampler(model.schedule_.T, model.step_choice)
        weights = loss_weight(chain, model.weighting, state["variance_"])

        def draw(n: int, rng: np.random.Generator) -> Any:
            t, correction = means.draw(n, rng)
            return t, chain.alpha_bar[t], chain.beta_bar[t], weights[t], correction

    else:
        if model.matching != "denoising":
            raise ValueError(f"the torch loss is for matching='denoising', got {model.matching!r}")
        sampler = TimeSampler(model.sde_, model.t_min, model.weighting, model.time_choice)
        means = sampler.cells

        def draw(n: int, rng: np.random.Generator) -> Any:
            cells, t, correction = sampler.draw(n, rng)
            return cells, *model.sde_.marginal(t), np.ones(n), correction

    means.mean_squares, means.n_seen = state["training.mean_squares"], state["training.n_seen"]
    return draw, means.observe


def vae_steps(trainer: Trainer, data: np.ndarray, rng: np.random.Generator) -> Iterator[None]:
    """Steps on (14), with data (N, D) in the model's units; LinearVAE has sigma points in place of noise."""
    model, device = trainer.model, next(trainer.network.parameters()).device
    data = data.astype(model.dtype)
    while True:
        if "batch_size" in model.get_params():
            batch, noise = random_batch(data, rng, model.n_latents, model.batch_size)
        else:
            batch, noise = sigma_batch(data, rng, model.n_latents)
        losses = trainer.run(own(batch, device), own(noise, device), model.kl_weight)
        trainer.step(losses, offset=float(np.log(model.scale_).sum()))
        yield


# --- sampling --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ancestral_sample(
    network: NoiseNetwork, schedule: NoiseSchedule, variance: np.ndarray, x: Tensor, draw: Callable[[], Tensor]
) -> Tensor:
    """Algorithm 2: x_0, (N, D), from x = x_T; `draw` returns standard normal noise, and `variance` is σ_t², (T+1,)."""
    for t in range(schedule.T, 0, -1):
        scale, std = (
            x.new_tensor([[level[t]]], dtype=torch.float64) for level in (schedule.alpha_bar, schedule.beta_bar)
        )
        eps_hat = network(x, scale, std)
        x = (x - schedule.beta[t] ** 2 / schedule.beta_bar[t] * eps_hat) / schedule.alpha[t]
        x = x + variance[t] ** 0.5 * draw()
    return x


# --- torchrun --------------------------------------------------------------------------------------------------------


def main(source: str, target: str, n_steps: str, *data: str) -> None:
    """Load a model whose training has not ended, take steps on all processes, and save it; data: x, and labels."""
    torch.set_num_threads(1)
    if distributed.is_torchelastic_launched():
        distributed.init_process_group("gloo")
    x, *labels = map(np.load, data)
    model = go_on(load(source), x, int(n_steps), *labels)
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        model.save(target, overwrite=True)
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
