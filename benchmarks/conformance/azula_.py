"""azula: samplers, denoisers and their losses.

A schedule of azula gives (α_t, σ_t) for t in [0, 1]; its samplers call a denoiser for the mean of p(x_0 | x_t).  Single
steps run here on the steps of a `NoiseSchedule`, whole samplers on x_t = x_0 + σ ε of Gaussian data, whose probability
flow has a closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from azula import denoise, noise, sample
from azula.linalg.covariance import FullCovariance

from benchmarks.conformance import Finding, order_of
from benchmarks.conformance.torch_ import tensor
from scratchgen import VP, Mixture
from scratchgen.conformance import check_ddim_step, check_denoiser, check_reverse_step
from scratchgen.conformance.result import Check, compare
from scratchgen.equations.problems import DATA_COV, DATA_MEAN, SCHEDULE, waves

NAME = "azula"
ROOT = "noise is σ_s √(η τ): its η is the square of the η of Song et al. (2021); 0 and 1 are the same"
LEVEL = (
    "the integral has the factor √(α_s² + σ_t²) in place of √(α_s² + σ_s²): the sampler is of first order for every "
    "`order`, unless the data are N(0, I)"
)
CLIP = "weights (α/σ)² + 1 above max_weight = 1e4 are cut by default: the loss is no longer that of v below σ = 0.01 α"


def findings() -> Iterator[Finding]:
    yield from steps()
    yield from denoisers()
    yield from losses()
    yield from samplers()


class Levels(noise.Schedule):
    """A schedule from a function t → (α_t, σ_t)."""

    def __init__(self, level: Any) -> None:
        self.level = level

    def __call__(self, t: Any) -> Any:
        scale, std = self.level(t.numpy())
        return tensor(scale), tensor(std)


class Given(denoise.Denoiser):
    """A denoiser from a function (x_t, t) → E[x_0 | x_t]."""

    def __init__(self, mean: Any, schedule: noise.Schedule) -> None:
        super().__init__()
        self.mean, self.schedule = mean, schedule

    def forward(self, x_t: Any, t: Any, **_: Any) -> Any:
        return denoise.DiracPosterior(tensor(self.mean(x_t.numpy(), t.numpy())))


def drawing(z: Any) -> Any:
    return patch.object(torch, "randn_like", lambda *_, **__: tensor(z))


# --- one step ----------------------------------------------------------------------------------------------------


def ddim(cls: Any, right_eta: float, **options: Any) -> Check:
    def level(t: Any) -> Any:
        return SCHEDULE.alpha_bar[t.astype(int)], SCHEDULE.beta_bar[t.astype(int)]

    def step(t: int, s: int, x_t: Any, eps_hat: Any, z: Any) -> Any:
        x0 = (x_t - SCHEDULE.beta_bar[t] * eps_hat) / SCHEDULE.alpha_bar[t]
        sampler = cls(Given(lambda *_: x0, Levels(level)), silent=True, **options)
        with drawing(z):
            return sampler.step(tensor(x_t), tensor(t), tensor(s))

    return check_ddim_step(step, SCHEDULE, right_eta)


def steps() -> Iterator[Finding]:
    yield Finding(NAME, "DDPMSampler.step", ddim(sample.DDPMSampler, 1.0))
    yield Finding(NAME, "EulerSampler.step, as DDIM with η = 0", ddim(sample.EulerSampler, 0.0))
    for eta in (0.0, 0.7, 1.0):
        cause = ROOT if eta == 0.7 else ""
        yield Finding(NAME, f"DDIMSampler.step, η = {eta:g}", ddim(sample.DDIMSampler, eta, eta=eta), cause)
    yield Finding(NAME, "DDIMSampler.step, its η = 0.49, as η = 0.7", ddim(sample.DDIMSampler, 0.7, eta=0.49))
    sde, mean, variance = VP(0.3, 4.0, 1.7), 0.5, 0.3

    def x0_hat(x: Any, t: Any) -> Any:
        scale, std = sde.level(float(t))
        return mean + scale * variance * (x - scale * mean) / (scale**2 * variance + std**2)

    for eta in (0.0, 0.7, 1.0):

        def step(x: Any, t: float, s: float, z: Any, eta: float = eta) -> Any:
            sampler = sample.ItoSampler(Given(x0_hat, Levels(sde.level)), eta=eta, silent=True)
            with drawing(z):
                return sampler.step(tensor(x), tensor(t), tensor(s))

        yield Finding(NAME, f"ItoSampler.step, η = {eta:g}", check_reverse_step(step, sde, mean, variance, eta))


# --- denoisers and losses ----------------------------------------------------------------------------------------


def denoisers() -> Iterator[Finding]:
    values, vectors = np.linalg.eigh(DATA_COV)
    covariance = FullCovariance(tensor(vectors), tensor(values))
    law, x = Mixture([1.0], DATA_MEAN[None], DATA_COV[None]), 2 * waves(6, 3)
    unit = Mixture([1.0], np.zeros((1, 3)), np.eye(3)[None])

    def gaussian(x_t: Any, scale: float, std: float) -> Any:
        schedule = Levels(lambda t: (np.full(t.shape, scale), np.full(t.shape, std)))
        return denoise.GaussianDenoiser(tensor(DATA_MEAN), covariance, schedule)(tensor(x_t), tensor(0.5)).mean

    def karras(x_t: Any, scale: float, std: float) -> Any:
        schedule = Levels(lambda t: (np.full(t.shape, scale), np.full(t.shape, std)))
        return denoise.KarrasDenoiser(Backbone(0.0), schedule)(tensor(x_t), tensor(0.5)).mean.detach()

    for scale, std in ((0.8, 0.6), (1.0, 5.0)):
        label = f"α = {scale:g}, σ = {std:g}"
        yield Finding(NAME, f"GaussianDenoiser, {label}", check_denoiser(gaussian, law, x, scale, std))
        yield Finding(
            NAME, f"KarrasDenoiser of the network 0, data N(0, I), {label}", check_denoiser(karras, unit, x, scale, std)
        )


class Backbone(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(tensor(factor))

    def forward(self, x: Any, c_time: Any) -> Any:
        return self.factor * torch.sin(x + c_time.reshape(-1, *([1] * (x.ndim - 1))))


def losses() -> Iterator[Finding]:
    """The mean square error of v = α ε − σ x_0, if v̂ is the v of x̂_0; schedules with α² + σ² = 1."""
    x0, z = waves(1, 3), waves(1, 3, shift=1.0)
    for cls in (denoise.KarrasDenoiser, denoise.SimpleDenoiser):
        for std in (0.6, 1e-3):
            scale = np.sqrt(1 - std**2)
            schedule = Levels(lambda t, a=scale, s=std: (np.full(t.shape, a), np.full(t.shape, s)))
            denoiser, t = cls(Backbone(0.7), schedule), tensor([0.5])
            with drawing(z), torch.no_grad():
                left = float(denoiser.loss(tensor(x0), t))
                x_t = scale * x0 + std * z
                x0_hat = denoiser(tensor(x_t), t).mean.numpy()
            v, v_hat = scale * z - std * x0, (scale * x_t - x0_hat) / std
            check = compare("‖v − v̂‖²", "(29)", "mean over the dimensions", left, ((v - v_hat) ** 2).mean(), 1e-9)
            cut = CLIP if cls is denoise.SimpleDenoiser and std < 0.01 else ""
            yield Finding(NAME, f"{cls.__name__}.loss, σ = {std:g}", check, cut)


# --- whole samplers ----------------------------------------------------------------------------------------------


def samplers() -> Iterator[Finding]:
    """Probability flow of x_0 ~ N(0.5, 0.3) from σ = 3 to 0.05, σ even in log σ; the exact solution is affine."""
    mean, variance, start = 0.5, 0.3, np.array([[-3.0, 0.2, 4.0]])

    def level(t: Any) -> Any:
        return np.ones(np.shape(t)), 0.05 * 60.0 ** np.asarray(t)

    def x0_hat(x: Any, t: Any) -> Any:
        return mean + variance * (x - mean) / (variance + level(t)[1] ** 2)

    end = mean + (start - mean) * np.sqrt((variance + 0.05**2) / (variance + 3.0**2))
    denoiser = Given(x0_hat, Levels(level))
    for cls, options, nominal in (
        (sample.EulerSampler, {}, 1),
        (sample.DDIMSampler, {}, 1),
        (sample.HeunSampler, {}, 2),
        (sample.ItoSampler, {"eta": 0.0}, 1),
        (sample.zABSampler, {"order": 2}, 2),
        (sample.vABSampler, {"order": 2}, 2),
        (sample.zEABSampler, {"order": 2}, 2),
        (sample.xEABSampler, {"order": 2}, 2),
        (sample.REABSampler, {"order": 2}, 2),
    ):

        def errors(n: int, cls: Any = cls, options: Any = options) -> Any:
            sampler = cls(denoiser, steps=n, silent=True, dtype=torch.float64, **options)
            return sampler(tensor(start)).numpy() - end

        label = "".join(f", {key}={value:g}" for key, value in options.items())
        cause = LEVEL if cls is sample.REABSampler else ""
        yield Finding(NAME, f"{cls.__name__}{label}", order_of(errors, 200, nominal), cause)
