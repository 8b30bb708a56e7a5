"""denoising-diffusion-pytorch: GaussianDiffusion, its continuous, elucidated and learned-variance forms.

Images are (N, C, 1, 1) here, so that the C channels are the dimensions.  Its tables are float32; "tables in float64"
are the same lines with float32 replaced while the object is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from denoising_diffusion_pytorch import (
    ContinuousTimeGaussianDiffusion,
    ElucidatedDiffusion,
    GaussianDiffusion,
    LearnedGaussianDiffusion,
    VParamContinuousTimeGaussianDiffusion,
)
from denoising_diffusion_pytorch.learned_gaussian_diffusion import discretized_gaussian_log_likelihood, normal_kl

from benchmarks.conformance import SINGLE, Finding, audited, returned
from benchmarks.conformance.shared import preconditioning
from benchmarks.conformance.torch_ import tensor
from scratchgen import NoiseSchedule
from scratchgen.conformance import (
    check_bin_masses,
    check_diagonal_kl,
    check_sampler_of,
    check_schedule,
)
from scratchgen.conformance.result import Check, compare
from scratchgen.equations.problems import LOG_VARIANCE, Q_MEAN, waves

NAME = "denoising-diffusion-pytorch"
T = 20
CLIP = "p_sample always clips x̂_0 to [−1, 1]; no option turns it off"
TANH = "Φ is replaced by ½ (1 + tanh(√(2/π) (x + 0.044715 x³))), as in Ho's code: off by up to 3e-4"
SHORT = (
    "the linear betas are scaled by 1000/T, up to 20/T: from T = 20 on down the last ones are 1 or more, and ᾱ² is 0 "
    "or negative"
)
MISSING = (
    "model_predictions uses partial and identity, which the module does not import: NameError for every sampler with "
    "sampling_timesteps < timesteps"
)
NOT_CLEAN = "the schedule starts at a log SNR of 9.2 (linear) or 8.8 (cosine), not at clean data"


def findings() -> Iterator[Finding]:
    yield from tables()
    yield from chain()
    yield from whole_loops()
    yield from learned()
    yield from continuous()
    yield from elucidated()


class Net(torch.nn.Module):
    """A network (x, t, self-conditioning) → prediction from a function, with the attributes that the classes read."""

    def __init__(self, function: Callable[[Any, Any], Any], channels: int = 3, out: int = 3) -> None:
        super().__init__()
        self.function, self.channels, self.out_dim = function, channels, out
        self.self_condition, self.random_or_learned_sinusoidal_cond = False, False
        self.place = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: Any, t: Any, _: Any = None) -> Any:
        return self.function(x, t)


def smooth(x: Any, t: Any) -> Any:
    """Within (−1, 1), so that clipping an x̂_0 changes nothing."""
    clock = torch.as_tensor(t).to(x).reshape(-1, *([1] * (x.ndim - 1)))
    return 0.8 * torch.tanh(0.7 * x + torch.sin(3 * x) / 3 + 0.1 * clock)


def diffusion(net: Any, double: bool, cls: Any = GaussianDiffusion, **options: Any) -> Any:
    given = {"image_size": 1, "timesteps": T, "beta_schedule": "cosine", "auto_normalize": False, **options}
    if not double:
        return cls(net, **given)
    with patch.object(torch, "float32", torch.float64):
        return cls(net, **given)


def image(x: Any) -> Any:
    return torch.as_tensor(x)[..., None, None]


def drawing(first: Any, *later: Any) -> Any:
    """Within this context torch.randn gives the first array, and torch.randn_like the others in turn."""
    noise = iter(later)
    return patch.multiple(torch, randn=lambda *_, **__: first, randn_like=lambda *_, **__: next(noise))


# --- tables ------------------------------------------------------------------------------------------------------


def tables() -> Iterator[Finding]:
    for kind, length, cause in (
        ("cosine", 1000, ""),
        ("sigmoid", 1000, ""),
        ("linear", 1000, ""),
        ("linear", 25, ""),
        ("linear", 10, SHORT),
    ):
        model = diffusion(Net(smooth), True, beta_schedule=kind, timesteps=length)
        what = f"GaussianDiffusion: alphas_cumprod, posterior_variance, '{kind}', T = {length}, in float64"
        if cause:
            scale = model.alphas_cumprod.numpy()
            check = compare("0 <= ᾱ² <= 1", "(25)", "ᾱ_t²", scale, np.clip(scale, 0, 1), 1e-12)
        else:
            squared = np.concatenate([[1.0], model.alphas_cumprod.numpy()])
            variance = np.concatenate([[0.0], model.posterior_variance.numpy()])
            schedule = NoiseSchedule(model.betas.numpy())
            check = check_schedule(schedule, np.sqrt(squared), np.sqrt(1 - squared), np.sqrt(variance))
        yield Finding(NAME, what, check, cause)
    cosine = diffusion(Net(smooth), True, timesteps=1000).betas
    right = NoiseSchedule.cosine(1000).variances
    yield Finding(
        NAME, "'cosine' betas, T = 1000", compare("NoiseSchedule.cosine", "(25)", "β_t²", cosine, right, 1e-12)
    )


# --- one chain ---------------------------------------------------------------------------------------------------


def chain() -> Iterator[Finding]:
    kinds = {"pred_noise": "noise", "pred_x0": "x0", "pred_v": "v"}
    default = of_chain("pred_v", "v", False, beta_schedule="sigmoid", timesteps=1000)
    kernels = {name: value for name, value in default.items() if name not in ("loss", "loss_weight", "eps_hat")}
    yield from audited(NAME, "GaussianDiffusion, the default: pred_v, sigmoid, T = 1000", **kernels)
    for double in (True, False):
        for objective, prediction in kinds.items():
            what = f"GaussianDiffusion, {objective}, T = {T}{', tables in float64' if double else ''}"
            yield from audited(NAME, what, **of_chain(objective, prediction, double))
    weighted = of_chain("pred_noise", "noise", True, min_snr_loss_weight=True)
    names = ("betas", "zero_based", "batched_t", "arrays", "dtype", "x0", "prediction", "eps_hat", "reduction")
    only_loss = {name: weighted[name] for name in (*names, "loss", "loss_weight")}
    yield from audited(NAME, f"GaussianDiffusion, pred_noise, min-SNR, T = {T}, tables in float64", **only_loss)
    clipped = of_chain("pred_noise", "noise", True, clip=True)
    only_step = {name: clipped[name] for name in (*names[:7], "variance", "last_noise", "step")}
    yield from audited(NAME, f"GaussianDiffusion.p_sample, pred_noise, T = {T}", {"step": CLIP}, **only_step)


def of_chain(objective: str, prediction: str, double: bool, clip: bool = False, **options: Any) -> dict[str, Any]:
    """The arguments of an audit."""
    net = Net(smooth)
    model = diffusion(net, double, objective=objective, **options)
    snr = (model.alphas_cumprod / (1 - model.alphas_cumprod)).double().numpy()
    betas = diffusion(net, True, objective=objective, **options).betas.numpy()
    weight = {"pred_noise": np.ones_like(snr), "pred_x0": snr, "pred_v": snr / (snr + 1)}[objective]
    if "min_snr_loss_weight" in options:
        weight = np.minimum(snr, 5) / snr

    def with_output(output: Any) -> Any:
        return diffusion(Net(lambda *_: output), double, objective=objective, **options)

    def step(t: Any, x_t: Any, output: Any, z: Any) -> Any:
        one = with_output(output)
        if clip:
            with drawing(None, z):
                return one.p_sample(x_t, int(t[0]))[0]
        mean, _, log_variance, _ = one.p_mean_variance(x_t, t, clip_denoised=False)
        return mean + (0.5 * log_variance).exp() * z * (t > 0).reshape(-1, 1, 1, 1)

    given: dict[str, Any] = {
        "betas": betas,
        "zero_based": True,
        "batched_t": True,
        "arrays": torch.as_tensor,
        "prediction": prediction,
        "x0": (0.9 * waves(5, 3, 1, 1)).astype(np.float64 if double else np.float32),
        "eps_hat": smooth,
        "variance": "posterior",
        "last_noise": False,
        "reduction": "mean",
        "loss_weight": weight,
        "dtype": "float64" if double else "float32",
        "alphas_cumprod": model.alphas_cumprod,
        "q_sample": lambda t, x0, z: model.q_sample(x0, t, z),
        "q_posterior": lambda t, x_t, x0: model.q_posterior(x0, x_t, t)[:2],
        "predict_x0": lambda t, x_t, output: with_output(output).model_predictions(x_t, t).pred_x_start,
        "step": step,
        "loss": lambda t, x0, z: model.p_losses(x0, t, z, loss_reduction="none"),
    }
    return given


# --- whole loops -------------------------------------------------------------------------------------------------


def whole_loops() -> Iterator[Finding]:
    """With a network for x_0 whose output lies in (−1, 1); one t for all examples counts from 0."""
    net = Net(smooth)
    x_T, noise = waves(4, 3, shift=1.0), waves(T, 4, 3, shift=2.0)

    def loop(method: str, **options: Any) -> Any:
        model = diffusion(net, True, objective="pred_x0", **options)

        def sample(x: Any, z: Any) -> Any:
            with drawing(image(x), *image(z)):
                return getattr(model, method)((len(x), 3, 1, 1))[:, :, 0, 0]

        return sample, NoiseSchedule(model.betas.numpy())

    def eps_hat(schedule: NoiseSchedule) -> Any:
        def predict(x: Any, t: int) -> Any:
            x0 = smooth(image(x), torch.tensor([t - 1]))[:, :, 0, 0].numpy()
            return (x - schedule.alpha_bar[t] * x0) / schedule.beta_bar[t]

        return predict

    sample, schedule = loop("p_sample_loop")
    check = check_sampler_of(sample, eps_hat(schedule), x_T, noise, schedule, "posterior", last_noise=False)
    yield Finding(NAME, f"GaussianDiffusion.p_sample_loop, pred_x0 within [−1, 1], T = {T}", check)
    for eta in (0.0, 0.7, 1.0):
        sample, schedule = loop("ddim_sample", ddim_sampling_eta=eta)
        check = check_sampler_of(sample, eps_hat(schedule), x_T, noise, schedule, eta=eta)
        yield Finding(NAME, f"GaussianDiffusion.ddim_sample, pred_x0 within [−1, 1], η = {eta:g}, T = {T}", check)


# --- learned variance --------------------------------------------------------------------------------------------


def learned() -> Iterator[Finding]:
    def log_mass(level: Any, mean: Any, std: float) -> Any:
        x, m = np.broadcast_arrays(2 * level / 255 - 1, mean)
        scale = np.full(x.shape, np.log(std))
        return discretized_gaussian_log_likelihood(tensor(x), means=tensor(m), log_scales=tensor(scale))

    yield Finding(
        NAME,
        "discretized_gaussian_log_likelihood, σ = 0.1",
        check_bin_masses(log_mass, 256, 0.9 * waves(5), 0.1),
        TANH,
    )
    zero = torch.zeros(1, dtype=torch.float64)
    kl = check_diagonal_kl(lambda m, v: normal_kl(tensor(m), tensor(v), zero, zero).sum(1), Q_MEAN, LOG_VARIANCE)
    yield Finding(NAME, "normal_kl", kl)
    net = Net(lambda x, t: torch.cat([smooth(x, t), 0.3 * torch.sin(x)], 1), out=6)
    model = diffusion(net, True, LearnedGaussianDiffusion, objective="pred_noise", sampling_timesteps=5)
    right = np.ones((2, 3))

    def sample() -> Any:
        return np.ones((2, 3)) if torch.isfinite(model.sample(2)).all() else np.full((2, 3), np.nan)

    check = compare("a sample is finite", "(25)", "1 for every number", returned(sample, right), right, 0.0)
    yield Finding(NAME, "LearnedGaussianDiffusion.sample, sampling_timesteps = 5 of 20", check, MISSING)


# --- continuous time ---------------------------------------------------------------------------------------------


def continuous() -> Iterator[Finding]:
    """p_mean_variance between all times of a grid, as DDIM with η = 1; the start of the grid is not clean data."""
    grid = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    for cls, options in (
        (ContinuousTimeGaussianDiffusion, {"noise_schedule": "linear"}),
        (ContinuousTimeGaussianDiffusion, {"noise_schedule": "cosine"}),
        (VParamContinuousTimeGaussianDiffusion, {}),
    ):
        label = f"{cls.__name__}{', ' + repr(options['noise_schedule']) if options else ''}"
        x_t, x0 = waves(4, 3), 2 * waves(4, 3, shift=1.0)
        for s, t in ((grid[0], grid[1]), (grid[0], grid[4])):
            yield Finding(
                NAME, f"{label}.p_mean_variance, t = {t:.1f}, s = {s:.1f}", between(cls, options, t, s, x_t, x0)
            )
        model = cls(of_snr(None), image_size=1, **options)
        end = float(torch.sigmoid(model.log_snr(torch.zeros(1, dtype=torch.float64))))
        yield Finding(NAME, f"{label}: level of t = 0", compare("ᾱ_0 = 1", "(25)", "ᾱ_0²", end, 1.0, 1e-12), NOT_CLEAN)


def of_snr(output: Any) -> Any:
    net = Net(lambda *_: output)
    net.random_or_learned_sinusoidal_cond = True
    return net


def between(cls: Any, options: Any, t: Any, s: Any, x_t: Any, x0: Any) -> Check:
    """The posterior of x_s given x_t and x_0, by adding precisions."""
    probe = cls(of_snr(None), image_size=1, **options)
    (a, b), (a_s, b_s) = (np.sqrt([float(torch.sigmoid(sign * probe.log_snr(u))) for sign in (1, -1)]) for u in (t, s))
    eps, v = (x_t - a * x0) / b, (a * x_t - x0) / b
    output = image(tensor(v if cls is VParamContinuousTimeGaussianDiffusion else eps))
    model = cls(of_snr(output), image_size=1, clip_sample_denoised=False, **options)
    mean, variance = model.p_mean_variance(image(tensor(x_t)), t, s)
    forward, added = a / a_s, b**2 - (a / a_s * b_s) ** 2
    precision = 1 / b_s**2 + forward**2 / added
    right = (a_s * x0 / b_s**2 + forward * x_t / added) / precision
    left = np.concatenate([mean[:, :, 0, 0].numpy().ravel(), [float(variance)]])
    name = "posterior by precisions"
    return compare(name, "(24)", "mean and variance of x_s", left, np.append(right.ravel(), 1 / precision), 1e-11)


# --- elucidated --------------------------------------------------------------------------------------------------


def elucidated() -> Iterator[Finding]:
    sigma_data, sigma = 0.5, np.array([0.01, 0.3, 4.0])
    model = ElucidatedDiffusion(of_snr(None), image_size=1, sigma_data=sigma_data)
    left = [f(tensor(sigma)).numpy() for f in (model.c_skip, model.c_out, model.c_in, model.c_noise, model.loss_weight)]
    yield Finding(
        NAME, "ElucidatedDiffusion: c_skip, c_out, c_in, c_noise, λ", preconditioning(left, sigma, sigma_data)
    )
    yield from elucidated_samplers()


def elucidated_samplers() -> Iterator[Finding]:
    """Heun in σ without churn and without clipping; the last step, to σ = 0, is Euler's and gives x̂_0."""

    def denoised(x: Any, sigma: Any) -> Any:
        return 0.6 * np.tanh(x / (1 + sigma))

    def make(n: int) -> Any:
        def net(x: Any, c_noise: Any) -> Any:  # the network for which the denoiser is `denoised`
            sigma = torch.exp(4 * c_noise).reshape(-1, 1, 1, 1)
            x = x * (sigma**2 + 0.25).sqrt()
            target = 0.6 * torch.tanh(x / (1 + sigma))
            return (target - 0.25 / (sigma**2 + 0.25) * x) * (sigma**2 + 0.25).sqrt() / (0.5 * sigma)

        return ElucidatedDiffusion(with_snr(net), image_size=1, num_sample_steps=n, S_churn=0.0, sigma_max=5.0)

    start = waves(4, 3, shift=1.0)
    model = make(12)
    sigmas = model.sample_schedule().double().numpy()
    for method, options in (("sample", {"clamp": False}), ("sample_using_dpmpp", {})):
        with drawing(image(torch.as_tensor(start)).float(), *([torch.zeros(1)] * 40)):
            left = 2 * getattr(model, method)(4, **options)[:, :, 0, 0].detach().numpy() - 1
        right = (
            heun(denoised, sigmas[0] * start, sigmas)
            if method == "sample"
            else dpmpp_2m(denoised, sigmas[0] * start, sigmas)
        )
        name = {"sample": "Heun's method", "sample_using_dpmpp": "DPM-Solver++(2M)"}[method]
        yield Finding(
            NAME,
            f"ElucidatedDiffusion.{method}, 12 steps",
            compare(name, "", "x_0", left, right, SINGLE),
            tolerance=SINGLE,
        )


def with_snr(function: Any) -> Any:
    net = Net(function)
    net.random_or_learned_sinusoidal_cond = True
    return net


def heun(denoised: Any, x: Any, sigmas: Any) -> Any:
    for t, s in pairwise(sigmas):
        slope = (x - denoised(x, t)) / t
        end = x + (s - t) * slope
        x = end if s == 0 else x + (s - t) * (slope + (end - denoised(end, s)) / s) / 2
    return x


def dpmpp_2m(denoised: Any, x: Any, sigmas: Any) -> Any:
    """Lu et al. 2022: x_s = (σ_s/σ_t) x + (1 − σ_s/σ_t) D, D extrapolated in log σ to the middle of the step."""
    last = None
    for t, s in pairwise(sigmas):
        now = denoised(x, t)
        D = now
        if last is not None and s > 0:
            middle = np.log(np.sqrt(t * s))
            D = now + (middle - np.log(t)) * (now - last[1]) / (np.log(t) - np.log(last[0]))
        x, last = s / t * x + (1 - s / t) * D, (t, now)
    return x
