"""The model of `torch_ddpm` with one mistake of each kind: `python -m benchmarks.conformance.examples.torch_mistakes`.

Each mistake is planted alone.  It is printed with the rows that fail and their diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.conformance.examples.torch_ddpm import Diffusion, audit_me, diffusion, extract
from scratchgen.conformance import Audit, audit
from scratchgen.conformance.cases import CODE


def root_missing(d: Diffusion) -> dict[str, Any]:
    a = d.alphas_cumprod
    return {"q_sample": lambda t, x0, e: extract(a, t, x0) * x0 + (1 - extract(a, t, x0)).sqrt() * e}


def forward_variance(d: Diffusion) -> dict[str, Any]:
    return {"q_posterior": lambda t, x_t, x0: (d.q_posterior(x0, x_t, t)[0], extract(d.betas, t, x0))}


def one_step_late(d: Diffusion) -> dict[str, Any]:
    return {"predict_x0": lambda t, x_t, e: d.predict_start(x_t, (t + 1).clamp(max=d.T - 1), e)}


def variance_for_std(d: Diffusion) -> dict[str, Any]:
    return {"step": lambda t, x_t, e, z: d.step(x_t, t, e, extract(d.betas, t, x_t).sqrt() * z)}


def target_is_data(d: Diffusion) -> dict[str, Any]:
    def loss(t: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        return nn.functional.mse_loss(d.network(d.q_sample(x0, t, noise), t), x0)

    return {"loss": loss}


def shifted_time(d: Diffusion) -> dict[str, Any]:
    def loss(t: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        return nn.functional.mse_loss(d.network(d.q_sample(x0, t, noise), (t - 1).clamp(min=0)), noise)

    return {"loss": loss}


def no_reconstruction(d: Diffusion) -> dict[str, Any]:
    def bound(x0: Tensor, noise: Tensor) -> Tensor:
        t = torch.zeros(len(x0), dtype=torch.int64)
        x_1 = d.q_sample(x0, t, noise[0])
        error = x0 - d.predict_start(x_1, t, d.network(x_1, t))
        return d.bound(x0, noise) - 0.5 * (error**2 / d.betas[0] + (2 * torch.pi * d.betas[0]).log()).flatten(1).sum(1)

    return {"bound": bound}


def bits_per_dimension(d: Diffusion) -> dict[str, Any]:
    return {"bound": lambda x0, noise: d.bound(x0, noise) / (x0[0].numel() * torch.tensor(2.0).log())}


def small_variance(d: Diffusion) -> dict[str, Any]:
    def sample(x: Tensor, noise: Tensor) -> Tensor:
        for i, t in enumerate(reversed(range(d.T))):
            ratio = (d.posterior_variance[t] / d.betas[t]).sqrt()
            x = d.p_sample(x, torch.full((len(x),), t), ratio * noise[i])
        return x

    return {"sampler": sample}


def dropout_is_on(d: Diffusion) -> dict[str, Any]:
    d.network.train()
    return {"loss": lambda t, x0, noise: d.loss(x0, t, noise)}


MISTAKES: dict[str, Callable[[Diffusion], dict[str, Any]]] = {
    "the root of ᾱ is missing": root_missing,
    "the posterior has the variance of the forward step": forward_variance,
    "the tables are read one step late": one_step_late,
    "the noise has a variance for its factor": variance_for_std,
    "the target of the loss is x_0": target_is_data,
    "the network gets t − 1": shifted_time,
    "the bound lacks L_0": no_reconstruction,
    "the bound is in bits per dimension": bits_per_dimension,
    "the sampler has the posterior variance": small_variance,
    "the network is in training mode": dropout_is_on,
}


def audited(name: str) -> Audit:
    """The audit of the functions with one mistake, and of no others."""
    model = diffusion()
    changes = MISTAKES[name](model)
    right = audit_me(model)
    others = dict.fromkeys(CODE.keys() - changes.keys())
    return audit(**{**right, **others, **changes})


def main() -> None:
    for name in MISTAKES:
        print(f"{name}:")
        for row in audited(name).rows:
            if not row.passed:
                print(row)
        print()


if __name__ == "__main__":
    main()
