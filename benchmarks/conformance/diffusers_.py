"""diffusers: the DDPM, DDIM, VP and VE schedulers.

Step i = 0..T−1 of diffusers is step t = i + 1 of the deck; `betas` are the β_t² and `alphas_cumprod` the ᾱ_t².  The
tables of diffusers are float32 for samples of every dtype.  Each object is checked twice: as it is, at the tolerance of
float32; and with tables recomputed in float64 from the same betas, at the tolerance of the check.  The second check
separates a wrong formula from rounding.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from benchmarks.conformance import SINGLE, Finding
from scratchgen import VE, VP, NoiseSchedule
from scratchgen.conformance import (
    check_ancestral_step,
    check_ddim_step,
    check_discretisation,
    check_forward_process,
    check_posterior,
    check_predict_x0,
    check_reverse_sampler,
    check_reverse_step,
    check_sampler,
    check_schedule,
)
from scratchgen.conformance.result import Check, compare
from scratchgen.ddpm import ddim_step
from scratchgen.equations.problems import SCHEDULE, waves

if TYPE_CHECKING:
    import torch

NAME = "diffusers"
QUOTIENT = 2e-2  # of differences of float32 numbers σ_i over a small step
TABLE = SCHEDULE.variances.tolist()  # five well-conditioned steps, for errors in formulas
LAST = (
    "step adds noise for timestep > 0 only, as Ho does for images: the result at t = 1 is the mean of "
    "p_θ(x_0 | x_1), not a sample"
)
CLIP = "the default clip_sample=True clips x̂_0 to [−1, 1], for data in this range; the step is not linear"
LOG = "_get_variance returns log β², and step takes its square root as if it were β²: NaN (known, issue 14569)"
KEEPS_FIRST = "with set_alpha_to_one=False the last step ends at x_1 (ᾱ_1² in place of 1), not at clean data"
STRIDE = (
    "step goes back by T // n and ignores the grid of set_timesteps, so that the network is called at another step "
    "than x_t (known, issues 11347 and 12633); DDPMScheduler uses the grid"
)
FIRST_ORDER = "an evenly spaced table is the first-order discretisation β(t)/T of the SDE, not its exact distribution"
GRID = "the step has length 1/N, the grid has spacing (1 − sampling_eps)/(N − 1); equal only if N = 1/sampling_eps"


def findings() -> Iterator[Finding]:
    yield from tables()
    yield from ddpm()
    yield from ddim()
    yield from ddim_loops()
    yield from sde_vp()
    yield from sde_ve()


def tensor(x: Any) -> torch.Tensor:
    import torch

    return torch.tensor(np.asarray(x), dtype=torch.float64)


def in_double(scheduler: Any) -> Any:
    """The scheduler with its tables recomputed in float64 from its own betas."""
    import torch

    scheduler.betas = scheduler.betas.double()
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    if hasattr(scheduler, "final_alpha_cumprod") and scheduler.config.set_alpha_to_one is False:
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def schedule_of(scheduler: Any) -> NoiseSchedule:
    """The betas of the scheduler, as exact numbers."""
    return NoiseSchedule(scheduler.betas.double().numpy())


def given(scheduler: Any, noise: Any) -> Any:
    """Within this context the scheduler's module draws `noise`."""
    module = importlib.import_module(type(scheduler).__module__)
    return patch.object(module, "randn_tensor", lambda *_, **__: tensor(noise))


def both(make: Callable[[], Any], what: str, check: Callable[[Any], Check], rounding: str = "") -> Iterator[Finding]:
    yield Finding(NAME, what, check(make()), rounding, SINGLE)
    yield Finding(NAME, f"{what}, tables in float64", check(in_double(make())))


# --- tables ------------------------------------------------------------------------------------------------------


def tables() -> Iterator[Finding]:
    from diffusers import DDPMScheduler

    linear, cosine = DDPMScheduler(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    ours = NoiseSchedule.cosine(1000).variances
    yield Finding(
        NAME,
        "DDPMScheduler.betas, squaredcos_cap_v2, T = 1000",
        compare("NoiseSchedule.cosine", "(25)", "β_t²", cosine.betas.numpy(), ours, 1e-12, relative=True),
        tolerance=SINGLE,
    )
    yield Finding(
        NAME,
        "DDPMScheduler.betas, the default, as a discretisation of VP(0.1, 20)",
        check_discretisation(linear.betas.numpy(), VP(0.1, 20.0)),
        FIRST_ORDER,
        SINGLE,
    )


# --- DDPMScheduler -----------------------------------------------------------------------------------------------


def ddpm_step(scheduler: Any, t: int, x_t: Any, output: Any, noise: Any) -> Any:
    with given(scheduler, noise):
        return scheduler.step(tensor(output), t - 1, tensor(x_t)).prev_sample


def forward(scheduler: Any) -> Check:
    import torch

    return check_forward_process(
        lambda t, x0, noise: scheduler.add_noise(tensor(x0), tensor(noise), torch.full((len(x0),), t - 1)),
        schedule_of(scheduler),
    )


def posterior(scheduler: Any) -> Check:
    """With prediction_type='sample' the output of the network is x_0."""

    def q_posterior(t: int, x_t: Any, x0: Any) -> tuple[Any, Any]:
        return ddpm_step(scheduler, t, x_t, x0, np.zeros_like(x_t)), scheduler._get_variance(t - 1)

    return check_posterior(q_posterior, schedule_of(scheduler))


def ancestral(scheduler: Any, variance: str, at_first: bool = False) -> Check:
    schedule = schedule_of(scheduler)
    table = {"small": schedule.beta_tilde, "large": schedule.beta}[variance] ** 2
    if not at_first:
        table[1] = 0.0
    return check_ancestral_step(lambda *arguments: ddpm_step(scheduler, *arguments), schedule, table)


def predicted_x0(scheduler: Any) -> Check:
    def predict(t: int, x_t: Any, eps_hat: Any) -> Any:
        with given(scheduler, np.zeros_like(x_t)):
            return scheduler.step(tensor(eps_hat), t - 1, tensor(x_t)).pred_original_sample

    return check_predict_x0(predict, schedule_of(scheduler))


def predicted_x0_from_velocity(scheduler: Any) -> Check:
    """v of (x_0, ε) by get_velocity, with x_0 from x_t and ε; then x_0 from v by step."""
    import torch

    schedule = schedule_of(scheduler)

    def predict(t: int, x_t: Any, eps_hat: Any) -> Any:
        x0 = (x_t - schedule.beta_bar[t] * eps_hat) / schedule.alpha_bar[t]
        velocity = scheduler.get_velocity(tensor(x0), tensor(eps_hat), torch.full((len(x0),), t - 1))
        with given(scheduler, np.zeros_like(x_t)):
            return scheduler.step(velocity, t - 1, tensor(x_t)).pred_original_sample

    return check_predict_x0(predict, schedule)


def learned_range(scheduler: Any) -> Check:
    """The second half of the output of the network is 0, which means the geometric mean of β_t² and β̃_t²."""
    schedule = schedule_of(scheduler)
    table = schedule.beta * schedule.beta_tilde
    return check_ancestral_step(
        lambda t, x_t, eps_hat, z: ddpm_step(scheduler, t, x_t, np.concatenate([eps_hat, 0 * eps_hat], axis=1), z),
        schedule,
        table,
    )


def sampler(scheduler: Any, variance: str, at_first: bool = False) -> Check:
    """The loop of a pipeline: set_timesteps(T), then all steps."""
    schedule = schedule_of(scheduler)
    table = {"small": schedule.beta_tilde, "large": schedule.beta}[variance] ** 2
    if not at_first:
        table[1] = 0.0

    def sample(x_T: Any, eps_hat: Any, noise: Any) -> Any:
        scheduler.set_timesteps(schedule.T)
        x = tensor(x_T)
        for i, z in zip(scheduler.timesteps, noise, strict=True):
            with given(scheduler, z):
                x = scheduler.step(tensor(eps_hat(x.numpy(), int(i) + 1)), i, x).prev_sample
        return x

    return check_sampler(sample, schedule, 0.5, 0.3, table)


def padded(scheduler: Any) -> Check:
    """The tables that step reads, with clean data as their first entry."""
    import torch

    squared = torch.cat([torch.ones(1, dtype=scheduler.alphas_cumprod.dtype), scheduler.alphas_cumprod])
    clamp = 1e-20  # the floor of _get_variance
    variances = [0.0] + [max(float(scheduler._get_variance(i)) - clamp, 0.0) for i in range(len(scheduler.betas))]
    return check_schedule(schedule_of(scheduler), squared.sqrt(), (1 - squared).sqrt(), np.sqrt(variances))


def ddpm() -> Iterator[Finding]:
    from diffusers import DDPMScheduler

    def make(**options: Any) -> Callable[[], Any]:
        options = {"trained_betas": TABLE, "num_train_timesteps": len(TABLE), "clip_sample": False, **options}
        return lambda: DDPMScheduler(**options)

    def default(**options: Any) -> Callable[[], Any]:
        return lambda: DDPMScheduler(clip_sample=False, **options)

    name = "DDPMScheduler"
    yield from both(make(), f"{name}: alphas_cumprod, _get_variance, T = 5", padded)
    yield from both(make(), f"{name}.add_noise, T = 5", forward)
    yield from both(make(prediction_type="sample"), f"{name}.step of x_0, _get_variance, T = 5", posterior)
    yield from both(make(), f"{name}.step: pred_original_sample, T = 5", predicted_x0)
    velocity = make(prediction_type="v_prediction")
    yield from both(velocity, f"{name}.step of get_velocity: pred_original_sample, T = 5", predicted_x0_from_velocity)
    for kind in ("fixed_small", "fixed_small_log", "fixed_large"):
        variance = "large" if kind == "fixed_large" else "small"
        yield from both(
            make(variance_type=kind),
            f"{name}.step, {kind}, T = 5, no noise at t = 1",
            lambda scheduler, variance=variance: ancestral(scheduler, variance),
        )
    yield from both(make(variance_type="learned_range"), f"{name}.step, learned_range, T = 5, halfway", learned_range)
    large, log = make(variance_type="fixed_large"), make(variance_type="fixed_large_log")
    for what, check, cause in (
        ("step, fixed_large_log, T = 5, no noise at t = 1", ancestral(log(), "large"), LOG),
        ("step, fixed_large, T = 5, σ_1 = β_1", ancestral(large(), "large", at_first=True), LAST),
        ("step, fixed_small, T = 5, clip_sample", ancestral(make(clip_sample=True)(), "small"), CLIP),
    ):
        yield Finding(NAME, f"{name}.{what}", check, cause, SINGLE)
    yield from both(make(), f"{name}, whole loop, fixed_small, T = 5", lambda s: sampler(s, "small"))
    yield from both(large, f"{name}, whole loop, fixed_large, T = 5, no noise at t = 1", lambda s: sampler(s, "large"))
    yield Finding(
        NAME, f"{name}, whole loop, fixed_large, T = 5, σ_1 = β_1", sampler(large(), "large", True), LAST, SINGLE
    )
    yield from both(default(), f"{name}: tables, the default, T = 1000", padded)
    yield from both(default(), f"{name}.add_noise, the default table, T = 1000", forward)
    yield from both(default(prediction_type="sample"), f"{name}.step of x_0, the default table, T = 1000", posterior)
    yield from both(
        default(), f"{name}, whole loop, fixed_small, the default table, T = 1000", lambda s: sampler(s, "small")
    )
    for kind in ("small", "large"):
        yield from both(
            default(variance_type=f"fixed_{kind}"),
            f"{name}.step, fixed_{kind}, the default table, T = 1000",
            lambda scheduler, kind=kind: ancestral(scheduler, kind),
        )


# --- DDIMScheduler -----------------------------------------------------------------------------------------------


def ddim() -> Iterator[Finding]:
    from diffusers import DDIMScheduler

    def make(T: int = 5, **options: Any) -> Callable[[], Any]:
        table = {"trained_betas": TABLE, "num_train_timesteps": T} if T == 5 else {}
        return lambda: DDIMScheduler(**table, **{"clip_sample": False, **options})

    def jumps(scheduler: Any, eta: float) -> Check:
        T = scheduler.config.num_train_timesteps

        def step(t: int, s: int, x_t: Any, eps_hat: Any, noise: Any) -> Any:
            scheduler.num_inference_steps = Fraction(
                T, t - s
            )  # T // this number is the stride, so that every pair (t, s) is possible
            return scheduler.step(
                tensor(eps_hat), t - 1, tensor(x_t), eta=eta, variance_noise=tensor(noise)
            ).prev_sample

        return check_ddim_step(step, schedule_of(scheduler), eta)

    for eta in (0.0, 0.5, 1.0):
        yield from both(make(), f"DDIMScheduler.step, η = {eta:g}, T = 5", lambda s, eta=eta: jumps(s, eta))
    first = jumps(make(set_alpha_to_one=False)(), 0.0)
    yield Finding(NAME, "DDIMScheduler.step, η = 0, T = 5, set_alpha_to_one=False", first, KEEPS_FIRST, SINGLE)
    cut = jumps(make(clip_sample=True)(), 0.0)
    yield Finding(NAME, "DDIMScheduler.step, η = 0, T = 5, clip_sample", cut, CLIP, SINGLE)


def ddim_loops() -> Iterator[Finding]:
    """Grids of fewer steps: x_0 from three x_T with the exact ε̂ of N(0.5, 0.3), tables in float64.

    DDPM on a grid is DDIM with η = 1.
    """
    from diffusers import DDIMScheduler, DDPMScheduler

    def loop(cls: Any, n: int, eta: float, **options: Any) -> Check:
        scheduler = in_double(cls(clip_sample=False, **options))
        schedule = schedule_of(scheduler)
        scheduler.set_timesteps(n)
        scale, std = schedule.alpha_bar, schedule.beta_bar

        def eps_hat(x: Any, t: int) -> Any:
            return std[t] * (x - scale[t] * 0.5) / (scale[t] ** 2 * 0.3 + std[t] ** 2)

        start = np.array([[-1.0], [0.2], [1.5]])
        x, y = tensor(start), start
        grid = [int(i) + 1 for i in scheduler.timesteps] + [0]
        for t, s in pairwise(grid):
            noise = waves(*start.shape, shift=float(t))
            with given(scheduler, noise):
                x = scheduler.step(tensor(eps_hat(x.numpy(), t)), t - 1, x).prev_sample
            y = ddim_step(schedule, t, s, y, eps_hat(y, t), noise, eta)
        return compare("along ddpm.ddim_step", "(25)", "x_0 at the end of the loop", x.numpy(), y, 1e-9)

    for spacing in ("leading", "trailing", "linspace"):
        for n in (10, 7):
            exact = spacing == "leading" or (spacing == "trailing" and 1000 % n == 0)
            yield Finding(
                NAME,
                f"DDIMScheduler, whole loop, T = 1000, n = {n}, '{spacing}'",
                loop(DDIMScheduler, n, 0.0, timestep_spacing=spacing),
                "" if exact else STRIDE,
            )
            yield Finding(
                NAME,
                f"DDPMScheduler, whole loop, T = 1000, n = {n}, '{spacing}'",
                loop(DDPMScheduler, n, 1.0, timestep_spacing=spacing),
            )
    yield Finding(
        NAME,
        "DDIMScheduler, whole loop, T = 1000, n = 10, steps_offset=1",
        loop(DDIMScheduler, 10, 0.0, steps_offset=1),
    )


# --- the SDE schedulers ------------------------------------------------------------------------------------------


def gaussian_score(sde: Any, x: np.ndarray, t: float, mean: float, variance: float) -> np.ndarray:
    scale, std = sde.level(t)
    return -(x - scale * mean) / (scale**2 * variance + std**2)


def sde_vp() -> Iterator[Finding]:
    from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler

    sde, name = VP(0.1, 20.0), "ScoreSdeVpScheduler.step_pred"

    def step(scheduler: Any, x: np.ndarray, t: float, score: np.ndarray, noise: np.ndarray) -> Any:
        output = -float(sde.std(t)) * score  # the argument "score" is ε̂
        with given(scheduler, noise):
            return scheduler.step_pred(tensor(output), tensor(x), tensor(t))[0]

    def small_step(x: np.ndarray, t: float, s: float, noise: np.ndarray) -> Any:
        scheduler = ScoreSdeVpScheduler()
        scheduler.set_timesteps(round(1 / (t - s)))
        return step(scheduler, x, t, gaussian_score(sde, x, t, 0.5, 0.3), noise)

    yield Finding(NAME, f"{name}, one step", check_reverse_step(small_step, sde, 0.5, 0.3))

    def score(x: np.ndarray, t: float) -> np.ndarray:
        return -x + 0.3 * np.sin(x + t)

    def walk(n: int, eps: float) -> Check:
        scheduler = ScoreSdeVpScheduler(sampling_eps=eps)
        scheduler.set_timesteps(n)
        grid = scheduler.timesteps.double().numpy()

        def sample(x: np.ndarray, times: np.ndarray, noise: np.ndarray) -> Any:
            y = tensor(x)
            for t, z in zip(times[:-1], noise, strict=True):
                y = step(scheduler, y.numpy(), float(t), score(y.numpy(), float(t)), z)
            return y

        return check_reverse_sampler(sample, score, sde, grid)

    for n in (20, 100, 1000, 2000):
        what, cause = f"ScoreSdeVpScheduler, its own grid, N = {n}", "" if n == 1000 else GRID
        yield Finding(NAME, what, walk(n, 1e-3), cause, SINGLE)
    for n in (20, 100):
        yield Finding(NAME, f"the same with sampling_eps = 1/N, N = {n}", walk(n, 1 / n), tolerance=SINGLE)


def sde_ve() -> Iterator[Finding]:
    from diffusers import ScoreSdeVeScheduler

    sde = VE(0.01, 50.0)

    def step(x: np.ndarray, t: float, s: float, noise: np.ndarray) -> Any:
        n = round(1 / (t - s)) + 1
        scheduler = ScoreSdeVeScheduler(n, sigma_min=0.01, sigma_max=50.0)
        scheduler.set_timesteps(n)
        scheduler.set_sigmas(n)
        with given(scheduler, noise):
            return scheduler.step_pred(tensor(gaussian_score(sde, x, t, 0.5, 0.3)), t, tensor(x)).prev_sample

    what, check = "ScoreSdeVeScheduler.step_pred, small steps", check_reverse_step(step, sde, 0.5, 0.3)
    yield Finding(NAME, what, check, tolerance=QUOTIENT)
