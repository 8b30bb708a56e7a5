"""k-diffusion: wrappers of networks, samplers in σ, and the likelihood of the flow.

x = x_0 + σ ε.  A step of our chain at (ᾱ, β̄) is one at x/ᾱ with σ = β̄/ᾱ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from k_diffusion import external, layers, sampling

from benchmarks.conformance import SINGLE, Finding, order_of, returned
from benchmarks.conformance.shared import preconditioning
from benchmarks.conformance.torch_ import tensor
from scratchgen import NoiseSchedule
from scratchgen.conformance import (
    EDM,
    check_ddim_step,
    check_denoiser,
    check_flow_likelihood_of,
    check_heun,
    check_reverse_sampler,
)
from scratchgen.conformance.result import compare
from scratchgen.equations.problems import PLANE, POINTS, SCHEDULE, waves

NAME = "k-diffusion"
CALLABLE = (
    "__init__ stores a callable weighting, and then raises ValueError, because the next lines compare it with the "
    "three names"
)
FIRST_H = "h is assigned only in steps to σ > 0: a single step [σ, 0] raises UnboundLocalError"
LIKE_DDIM = "the noise is σ_s √(1 − (σ_s/σ_t)^(2η)): the marginals are kept, but its η is DDIM's at 0 and 1 only"


def findings() -> Iterator[Finding]:
    yield from wrappers()
    yield from steps()
    yield from samplers()
    yield from likelihood()


# --- networks ----------------------------------------------------------------------------------------------------


def wrappers() -> Iterator[Finding]:
    sigma = np.array([0.01, 0.3, 4.0])
    scalings = layers.Denoiser(None, sigma_data=0.5).get_scalings(tensor(sigma))
    yield Finding(
        NAME, "layers.Denoiser: c_skip, c_out, c_in", preconditioning([c.numpy() for c in scalings], sigma, 0.5)
    )
    x0, noise = waves(3, 1, 1, 2), waves(3, 1, 1, 2, shift=1.0)
    for weighting in ("karras", "soft-min-snr", "snr", torch.ones_like):
        yield weighted(weighting, x0, noise, sigma)
    yield from discrete()


def weighted(weighting: Any, x0: Any, noise: Any, sigma: Any) -> Finding:
    """The weight of ‖x̂_0 − x_0‖² of the names: 1/c_out², times 1, snr/(1 + snr)², or snr/(1 + snr)."""
    snr, c_out2 = 0.25 / sigma**2, sigma**2 * 0.25 / (sigma**2 + 0.25)
    factor = {"karras": np.ones(3), "soft-min-snr": snr / (1 + snr) ** 2, "snr": snr / (1 + snr)}
    name = weighting if isinstance(weighting, str) else "callable"

    def loss() -> Any:
        net = layers.Denoiser(lambda x, s: torch.sin(x), sigma_data=0.5, weighting=weighting)
        return net.loss(tensor(x0), tensor(noise), tensor(sigma))

    level = sigma[:, None, None, None]
    x = x0 + level * noise
    x0_hat = 0.25 / (level**2 + 0.25) * x + np.sqrt(c_out2).reshape(level.shape) * np.sin(x / np.sqrt(level**2 + 0.25))
    right = factor.get(name, 1.0) / c_out2 * ((x0_hat - x0) ** 2).mean(axis=(1, 2, 3))
    check = compare("λ ‖x̂_0 − x_0‖²", "", "loss of an example", returned(loss, right), right, 1e-12)
    return Finding(NAME, f"layers.Denoiser.loss, weighting '{name}'", check, CALLABLE if name == "callable" else "")


def discrete() -> Iterator[Finding]:
    """The exact networks for ε and for v of a mixture; σ is given in steps, that are found again in the table."""
    squared = torch.tensor(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))

    def eps(x: Any, t: Any, cls: Any) -> Any:
        table = cls(None, squared, quantize=False)
        std = float(table.t_to_sigma(t)[0])
        scale = 1 / np.sqrt(1 + std**2)
        return -std * scale * PLANE.diffuse(scale, std * scale).score(x.numpy()), scale, std * scale

    def of_eps(x: Any, t: Any) -> Any:
        return tensor(eps(x, t, external.DiscreteEpsDDPMDenoiser)[0])

    def of_v(x: Any, t: Any) -> Any:
        noise, scale, std = eps(x, t, external.DiscreteVDDPMDenoiser)
        return tensor((noise - std * x.numpy()) / scale)  # α ε − σ x̂_0, x̂_0 = (x − σ ε)/α

    def continuous_v(x: Any, t: Any) -> Any:
        scale, std = np.cos(np.pi / 2 * float(t[0])), np.sin(np.pi / 2 * float(t[0]))
        noise = -std * PLANE.diffuse(scale, std).score(x.numpy())
        return tensor((noise - std * x.numpy()) / scale)

    def denoised(net: Any) -> Any:
        return lambda x, scale, std: net(tensor(x), torch.full((len(x),), float(std), dtype=torch.float64))

    for cls, network in ((external.DiscreteEpsDDPMDenoiser, of_eps), (external.DiscreteVDDPMDenoiser, of_v)):
        check = check_denoiser(denoised(cls(network, squared, quantize=False)), PLANE, POINTS, 1.0, 0.8)
        yield Finding(NAME, f"external.{cls.__name__}, Ho's table", check, tolerance=SINGLE)
    check = check_denoiser(denoised(external.VDenoiser(continuous_v)), PLANE, POINTS, 1.0, 0.8)
    yield Finding(NAME, "external.VDenoiser", check)


# --- one step ----------------------------------------------------------------------------------------------------


def one_step(sampler: Any, schedule: NoiseSchedule, **options: Any) -> Any:
    def step(t: int, s: int, x_t: Any, eps_hat: Any, noise: Any) -> Any:
        scale, sigma = schedule.alpha_bar, schedule.beta_bar / schedule.alpha_bar
        grid = tensor([sigma[t], sigma[s]])
        if sampler in ABOVE_0 and s == 0:  # a single step of theirs to 0 is a row of its own
            return (x_t - schedule.beta_bar[t] * eps_hat) / scale[t]
        given = {"noise_sampler": lambda *_: tensor(noise)} if "eta" in options else {}
        x = sampler(
            lambda x, level: x - level[:, None] * tensor(eps_hat),
            tensor(x_t / scale[t]),
            grid,
            disable=True,
            **given,
            **options,
        )
        return scale[s] * x.numpy()

    return step


ABOVE_0 = (sampling.sample_dpmpp_2m_sde, sampling.sample_dpmpp_3m_sde)


def steps() -> Iterator[Finding]:
    """The first step of every sampler that starts with one of first order."""
    for sampler in (sampling.sample_euler, sampling.sample_lms, sampling.sample_dpmpp_2m):
        check = check_ddim_step(one_step(sampler, SCHEDULE), SCHEDULE, 0.0)
        yield Finding(NAME, f"sampling.{sampler.__name__}, one step, as DDIM with η = 0", check)
    for eta in (0.0, 0.7, 1.0):
        check = check_ddim_step(one_step(sampling.sample_euler_ancestral, SCHEDULE, eta=eta), SCHEDULE, eta)
        yield Finding(NAME, f"sampling.sample_euler_ancestral, one step, η = {eta:g}", check)
        for sampler in ABOVE_0:
            check = check_ddim_step(one_step(sampler, SCHEDULE, eta=eta), SCHEDULE, eta)
            yield Finding(
                NAME, f"sampling.{sampler.__name__}, one step, η = {eta:g}", check, LIKE_DDIM if eta == 0.7 else ""
            )
    x, x0 = 2 * waves(4, 3), waves(4, 3, shift=1.0)
    for sampler in ABOVE_0:
        left = returned(lambda f=sampler: f(lambda *_: tensor(x0), tensor(x), tensor([2.0, 0.0]), disable=True), x0)
        check = compare("x_0 = x̂_0", "(25)", "the step from σ = 2 to 0", left, x0, 1e-12)
        yield Finding(NAME, f"sampling.{sampler.__name__}, sigmas = [2, 0]", check, FIRST_H)


# --- whole samplers ----------------------------------------------------------------------------------------------


def samplers() -> Iterator[Finding]:
    sde, grid = EDM(), np.array([5.0, 3.1, 1.4, 0.9, 0.2])

    def score(x: Any, t: float) -> Any:
        return (-x + 0.3 * np.sin(x + t)) / (1 + t**2)

    def denoised(x: Any, sigma: Any) -> Any:
        return x + sigma[0] ** 2 * tensor(score(x.numpy(), float(sigma[0])))

    def euler(x: Any, times: Any, noise: Any) -> Any:
        return sampling.sample_euler(denoised, tensor(x), tensor(times), disable=True)

    def heun(x: Any, times: Any) -> Any:
        return sampling.sample_heun(denoised, tensor(x), tensor(times), disable=True)

    yield Finding(NAME, "sampling.sample_euler, any grid", check_reverse_sampler(euler, score, sde, grid, 0.0))
    yield Finding(NAME, "sampling.sample_heun, any grid", check_heun(heun, score, sde, grid))
    for sampler, options, nominal in (
        (sampling.sample_euler, {}, 1),
        (sampling.sample_heun, {}, 2),
        (sampling.sample_dpm_2, {}, 2),
        (sampling.sample_lms, {"order": 2}, 2),
        (sampling.sample_lms, {"order": 4}, 2),
        (sampling.sample_dpmpp_2m, {}, 2),
        (sampling.sample_dpm_2_ancestral, {"eta": 0.0}, 2),
        (sampling.sample_dpmpp_2s_ancestral, {"eta": 0.0}, 2),
        (sampling.sample_dpmpp_sde, {"eta": 0.0}, 2),
        (sampling.sample_dpmpp_2m_sde, {"eta": 0.0, "solver_type": "midpoint"}, 2),
        (sampling.sample_dpmpp_2m_sde, {"eta": 0.0, "solver_type": "heun"}, 2),
        (sampling.sample_dpmpp_3m_sde, {"eta": 0.0}, 2),
    ):
        label = "".join(f", {key}={value}" for key, value in options.items())
        yield Finding(NAME, f"sampling.{sampler.__name__}{label}", order_of(errors(sampler, options), 200, nominal))
    for sampler, options, nominal in (
        (sampling.sample_euler_ancestral, {}, 1),
        (sampling.sample_dpmpp_2s_ancestral, {}, 1),
        (sampling.sample_dpmpp_sde, {}, 1),
        (sampling.sample_dpmpp_2m_sde, {"solver_type": "midpoint"}, 2),
        (sampling.sample_dpmpp_2m_sde, {"solver_type": "heun"}, 2),
        (sampling.sample_dpmpp_3m_sde, {}, 2),
    ):
        for eta in (0.7, 1.0):
            label = "".join(f", {key}={value}" for key, value in {"eta": eta, **options}.items())
            found = order_of(variances(sampler, {"eta": eta, **options}), 50, nominal)
            yield Finding(NAME, f"sampling.{sampler.__name__}{label}, variance of the samples", found)


MEAN, VARIANCE, HIGH, LOW = 0.5, 0.3, 3.0, 0.05


def linear(x: Any, sigma: Any) -> Any:
    """E[x_0 | x] of N(MEAN, VARIANCE)."""
    return MEAN + VARIANCE * (x - MEAN) / (VARIANCE + sigma[:, None] ** 2)


def grid_of(n: int) -> Any:
    return tensor(np.geomspace(HIGH, LOW, n + 1))


def errors(sampler: Any, options: Any) -> Any:
    """Against the exact flow of Gaussian data."""
    start = np.array([[-3.0], [0.2], [4.0]])
    end = MEAN + (start - MEAN) * np.sqrt((VARIANCE + LOW**2) / (VARIANCE + HIGH**2))
    given = {"noise_sampler": lambda *_: torch.zeros(3, 1)} if "eta" in options else {}
    return lambda n: sampler(linear, tensor(start), grid_of(n), disable=True, **given, **options).numpy() - end


def variances(sampler: Any, options: Any) -> Any:
    """Error of the variance of the samples, which are affine in the start and in every noise."""

    def error(n: int) -> Any:
        calls = 2 * n if sampler in (sampling.sample_dpmpp_sde, sampling.sample_dpmpp_2s_ancestral) else n
        basis = np.concatenate([np.zeros((1, calls + 1)), np.eye(calls + 1)])
        rows = iter(tensor(basis.T[1:, :, None]))
        x = sampler(
            linear, tensor(basis[:, :1]), grid_of(n), disable=True, noise_sampler=lambda *_: next(rows), **options
        ).numpy()[:, 0]
        factors = x[1:] - x[0]
        return factors[0] ** 2 * (VARIANCE + HIGH**2) + (factors[1:] ** 2).sum() - (VARIANCE + LOW**2)

    return error


# --- likelihood --------------------------------------------------------------------------------------------------


def likelihood() -> Iterator[Finding]:
    """Log-likelihood of a diagonal Gaussian, for which one random vector of signs gives the exact divergence."""
    mean, variance, low, high = np.array([0.4, -0.2, 0.1]), np.array([0.3, 0.6, 1.1]), 0.05, 20.0

    def denoised(x: Any, sigma: Any) -> Any:
        return tensor(mean) + tensor(variance) * (x - tensor(mean)) / (tensor(variance) + sigma[:, None] ** 2)

    def log_prob(x: Any) -> Any:
        return sampling.log_likelihood(denoised, tensor(x), low, high, atol=1e-9, rtol=1e-9)[0]

    check = check_flow_likelihood_of(
        log_prob, lambda x, t: (mean - x) / (variance + t**2), waves(5, 3), EDM(high), low, rtol=1e-7
    )
    yield Finding(NAME, "sampling.log_likelihood, rtol=1e-9", check)
