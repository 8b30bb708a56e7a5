"""A diffusion model in PyTorch, in Ho's convention, and its audit: `scratchgen audit torch_ddpm.py`.

The class has what public implementations have: float32 tables, t from 0, one t an image, a loss averaged over pixels,
and no noise in the last step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def extract(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return table.gather(0, t).reshape(-1, *(1 for _ in x.shape[1:]))


class Network(nn.Module):
    """ε_θ(x, t) for images (N, 1, 4, 4); any network would do."""

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T
        self.time = nn.Embedding(T, 16)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Dropout(0.1), nn.Linear(64, 16))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x + self.body(torch.cat([x.flatten(1), self.time(t)], dim=1)).reshape(x.shape)


class Diffusion:
    """The forward process, the reverse steps, the loss and the bound of Ho et al. (2020)."""

    def __init__(self, network: nn.Module, T: int = 1000) -> None:
        self.network, self.T = network, T
        self.betas = torch.linspace(1e-4, 0.02, T)
        self.alphas_cumprod = torch.cumprod(1 - self.betas, dim=0)
        before = torch.cat([torch.ones(1), self.alphas_cumprod[:-1]])
        total = 1 - self.alphas_cumprod
        self.posterior_variance = self.betas * (1 - before) / total
        self.posterior_x0 = self.betas * before.sqrt() / total
        self.posterior_x_t = (1 - before) * (1 - self.betas).sqrt() / total

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a = extract(self.alphas_cumprod, t, x0)
        return a.sqrt() * x0 + (1 - a).sqrt() * noise

    def q_posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        mean = extract(self.posterior_x0, t, x0) * x0 + extract(self.posterior_x_t, t, x0) * x_t
        return mean, extract(self.posterior_variance, t, x0)

    def predict_start(self, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a = extract(self.alphas_cumprod, t, x_t)
        return (x_t - (1 - a).sqrt() * noise) / a.sqrt()

    def step(self, x_t: Tensor, t: Tensor, predicted: Tensor, noise: Tensor) -> Tensor:
        mean, _ = self.q_posterior(self.predict_start(x_t, t, predicted), x_t, t)
        inner = (t > 0).float().reshape(-1, *(1 for _ in x_t.shape[1:]))
        return mean + inner * extract(self.betas, t, x_t).sqrt() * noise

    def p_sample(self, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return self.step(x_t, t, self.network(x_t, t), noise)

    def sample(self, x: Tensor, noise: Tensor) -> Tensor:
        for i, t in enumerate(reversed(range(self.T))):
            x = self.p_sample(x, torch.full((len(x),), t), noise[i])
        return x

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.network(self.q_sample(x0, t, noise), t), noise)

    def bound(self, x0: Tensor, noise: Tensor) -> Tensor:
        """−ELBO in nats, (N,); noise[t] is that of x_t."""
        total = 0.5 * (self.alphas_cumprod[-1] * x0**2 - self.alphas_cumprod[-1] - (1 - self.alphas_cumprod[-1]).log())
        for i in range(self.T):
            t = torch.full((len(x0),), i)
            x_t = self.q_sample(x0, t, noise[i])
            mean, _ = self.q_posterior(self.predict_start(x_t, t, self.network(x_t, t)), x_t, t)
            v = extract(self.betas, t, x0)
            if i == 0:
                total = total + 0.5 * ((x0 - mean) ** 2 / v + v.log() + math.log(2 * math.pi))
            else:
                q_mean, q_variance = self.q_posterior(x0, x_t, t)
                total = total + 0.5 * (v.log() - q_variance.log() - 1 + (q_variance + (q_mean - mean) ** 2) / v)
        return total.flatten(1).sum(dim=1)


def diffusion() -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(Network(1000).eval())  # without eval() dropout is on, and audit says so


def audit_me(model: Diffusion | None = None) -> dict[str, Any]:
    """The convention once, then the functions, each with its arguments in the order of `audit`."""
    d = diffusion() if model is None else model
    return {
        "betas": d.betas,  # float32: the code is judged as float32
        "zero_based": True,
        "batched_t": True,
        "last_noise": False,
        "reduction": "mean",
        "arrays": torch.as_tensor,
        "eps_hat": d.network,
        "x0": torch.linspace(-1, 1, 80).sin().reshape(5, 1, 4, 4),
        "alphas_cumprod": d.alphas_cumprod,
        "q_sample": lambda t, x0, noise: d.q_sample(x0, t, noise),
        "q_posterior": lambda t, x_t, x0: d.q_posterior(x0, x_t, t),
        "predict_x0": lambda t, x_t, output: d.predict_start(x_t, t, output),
        "step": lambda t, x_t, output, noise: d.step(x_t, t, output, noise),
        "loss": lambda t, x0, noise: d.loss(x0, t, noise),
        "bound": d.bound,
        "sampler": d.sample,
    }
