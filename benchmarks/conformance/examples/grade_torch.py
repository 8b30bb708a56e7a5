"""A network in PyTorch, graded against the exact answer: `python -m benchmarks.conformance.examples.grade_torch`.

The data come from a mixture of Gaussians on the line.  The exact denoiser, the entropy and the density of a sampler are
then known, so that the grade of a network has no error of sampling:

* `grade_noise`: the loss of the network at one noise level, in two parts: the least possible loss and the excess.
* `ancestral_density`: the density of the samples of DDPM's sampler, and its KL from the data.
* `euler_density`: the same for Euler-Maruyama steps of the reverse SDE with the score −ε̂/std.

The network is any callable over NumPy arrays; `as_callable` wraps one of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from scratchgen import VP, Mixture, NoiseSchedule
from scratchgen.grading import ancestral_density, euler_density, grade_noise
from scratchgen.sde import reverse_times

T = 30
DATA = Mixture([0.4, 0.6], [[-1.0], [0.8]], [[[0.15]], [[0.3]]])
PROCESS = VP(0.1, 12.0)
SCHEDULE = NoiseSchedule.from_sde(PROCESS, T)


def network() -> nn.Module:
    """ε_θ of (x_t, log-SNR)."""
    return nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))


def train(net: nn.Module, n_steps: int) -> None:
    """Algorithm 1 of Ho et al."""
    optimiser = torch.optim.Adam(net.parameters(), 4e-3)
    scale, std = (torch.as_tensor(np.array(a), dtype=torch.float32) for a in (SCHEDULE.alpha_bar, SCHEDULE.beta_bar))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    data = torch.as_tensor(DATA.sample(20_000, rng=0), dtype=torch.float32)
    for _ in range(n_steps):
        x0, t = data[torch.randint(len(data), (512,))], torch.randint(1, T + 1, (512, 1))
        noise = torch.randn_like(x0)
        loss = ((noise - forward(net, scale[t] * x0 + std[t] * noise, scale[t], std[t])) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()


def forward(net: nn.Module, x_t: Tensor, scale: Tensor, std: Tensor) -> Tensor:
    return net(torch.cat([x_t, (scale / std).log().expand_as(x_t)], dim=1))


def as_callable(net: nn.Module) -> Callable[[np.ndarray, float, float], np.ndarray]:
    """The network over NumPy arrays, at one noise level."""

    @torch.no_grad()
    def eps_hat(x_t: np.ndarray, scale: float, std: float) -> np.ndarray:
        level = (torch.tensor(float(value), dtype=torch.float32) for value in (scale, std))
        return forward(net, torch.as_tensor(x_t, dtype=torch.float32), *level).double().numpy()

    return eps_hat


class Grade(NamedTuple):
    """Losses at step t (the least possible, the excess); KL(data‖samples) of two samplers, nats."""

    losses: dict[int, tuple[float, float]]
    ancestral_kl: float
    euler_kl: float


def grade(net: nn.Module) -> Grade:
    eps_hat = as_callable(net)
    scale, std = SCHEDULE.alpha_bar, SCHEDULE.beta_bar
    losses = {
        t: tuple(grade_noise(DATA, lambda x, t=t: eps_hat(x, scale[t], std[t]), scale[t], std[t]))  # type: ignore[misc]
        for t in (1, 10, 20, 30)
    }
    samples = ancestral_density(SCHEDULE, lambda x, t: eps_hat(x, scale[t], std[t]), dimension=1)

    def score(x: np.ndarray, t: float) -> np.ndarray:
        scale, std = PROCESS.level(t)
        return -eps_hat(x, scale, std) / std

    times = reverse_times(PROCESS, T, 1e-2)
    euler = euler_density(PROCESS, score, times, dimension=1)
    data_at_the_end = DATA.diffuse(*PROCESS.level(times[-1]))
    return Grade(
        losses, samples.kl_from(DATA.log_prob(samples.points)), euler.kl_from(data_at_the_end.log_prob(euler.points))
    )


def main(n_steps: int = 1000) -> Grade:
    torch.manual_seed(0)
    net = network()
    train(net, n_steps)
    result = grade(net)
    for t, (least, excess) in result.losses.items():
        print(f"t = {t:<3} least loss {least:.4f}, excess {excess:.4f}")
    print(f"KL(data‖samples), nats: ancestral {result.ancestral_kl:.4f}, Euler-Maruyama {result.euler_kl:.4f}")
    return result


if __name__ == "__main__":
    main()
