"""diffusers as an oracle: the DDPM and DDIM schedulers, step by step and in whole loops, in float64.

Index i of diffusers is our t = i + 1, and its "betas" are the β_t².  Its tables are float32; here they are recomputed
from our betas.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import DDPM, Mixture, NoiseSchedule
from scratchgen.ddpm import (
    ancestral_sampler,
    ddim_sampler,
    ddim_step,
    eps_to_prediction,
    p_mean,
    p_step,
    predict_x0,
    prediction_to_eps,
    q_posterior,
    q_sample,
    reverse_variance,
)
from scratchgen.testing import reals, schedules
from tests.strategies import Scripted

KINDS = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
VARIANCES = {"posterior": "fixed_small", "beta": "fixed_large"}
LINEAR, COSINE = NoiseSchedule.linear(100), NoiseSchedule.cosine(50)
DATA = Mixture([0.3, 0.7], [[-1.0, 0.5], [1.5, 0.0]], [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]])

# 1e-3 <= β² <= 1/2 and T <= 12 keep ᾱ_T >= 2⁻⁶: x̂_0 divides by ᾱ_t, rounding included
random_betas = schedules(1e-3, 0.5, max_T=12)
every_schedule = pytest.mark.parametrize(
    "strategy", [st.just(LINEAR), st.just(COSINE), random_betas], ids=["linear", "cosine", "random"]
)
both_schedules = pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
every_kind = pytest.mark.parametrize("kind", KINDS)
every_variance = pytest.mark.parametrize("variance", VARIANCES)
every_eta = pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
seeds = st.integers(0, 2**31)


def close(theirs, ours, tolerance=1e-12):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=tolerance, atol=tolerance, strict=True)


def in_double(cls, schedule, **options):
    """Their scheduler with our betas and tables computed from them, without clipping."""
    scheduler = cls(num_train_timesteps=schedule.T, clip_sample=False, **options)
    scheduler.betas = torch.tensor(schedule.variances)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    return scheduler


def generator(seed):
    return torch.Generator().manual_seed(seed)


def noise_of(seed, *shape):
    """The arrays that a scheduler draws from `generator(seed)`, in order."""
    source = generator(seed)
    return np.array([torch.randn(shape[1:], generator=source, dtype=torch.float64).numpy() for _ in range(shape[0])])


def draw_two(data):
    """x_t and a prediction, (3, 2) each."""
    return data.draw(reals((2, 3, 2), -3, 3))


# --- one step -------------------------------------------------------------------------------------------------


@every_kind
@every_variance
@every_schedule
@given(data=st.data(), seed=seeds)
def test_ancestral_step_is_diffusers_for_every_prediction_and_variance(strategy, variance, kind, data, seed):
    """At t = 1 diffusers adds no noise and our step does; there only the mean is compared."""
    schedule, (x_t, prediction) = data.draw(strategy), draw_two(data)
    theirs = in_double(DDPMScheduler, schedule, prediction_type=KINDS[kind], variance_type=VARIANCES[variance])
    (z,) = noise_of(seed, 1, *x_t.shape)
    for t in range(1, schedule.T + 1):
        step = theirs.step(torch.tensor(prediction), t - 1, torch.tensor(x_t), generator=generator(seed))
        eps_hat = prediction_to_eps(schedule, t, x_t, prediction, kind)
        ours = p_step(schedule, t, x_t, eps_hat, z, variance) if t > 1 else p_mean(schedule, t, x_t, eps_hat)
        close(step.prev_sample, ours)
        close(step.pred_original_sample, predict_x0(schedule, t, x_t, eps_hat))


@every_schedule
@given(data=st.data(), seed=seeds)
def test_step_towards_a_given_x0_is_a_draw_from_the_posterior(strategy, data, seed):
    schedule, (x_t, x0) = data.draw(strategy), draw_two(data)
    theirs = in_double(DDPMScheduler, schedule, prediction_type="sample")
    (z,) = noise_of(seed, 1, *x_t.shape)
    for t in range(1, schedule.T + 1):
        mean, variance = q_posterior(schedule, t, x_t, x0)
        step = theirs.step(torch.tensor(x0), t - 1, torch.tensor(x_t), generator=generator(seed))
        close(step.prev_sample, mean + np.sqrt(variance) * z)


@every_eta
@every_kind
@every_schedule
@given(data=st.data())
def test_ddim_step_is_diffusers_for_every_eta_and_stride(strategy, kind, eta, data):
    """n inference steps give the stride T // n; a step beyond clean data ends at clean data."""
    schedule, (x_t, prediction), z = data.draw(strategy), draw_two(data), data.draw(reals((3, 2), -3, 3))
    theirs = in_double(DDIMScheduler, schedule, prediction_type=KINDS[kind])
    n = data.draw(st.integers(1, schedule.T))
    theirs.set_timesteps(n)
    for t in range(1, schedule.T + 1):
        s = max(t - schedule.T // n, 0)
        eps_hat = prediction_to_eps(schedule, t, x_t, prediction, kind)
        step = theirs.step(torch.tensor(prediction), t - 1, torch.tensor(x_t), eta=eta, variance_noise=torch.tensor(z))
        close(step.prev_sample, ddim_step(schedule, t, s, x_t, eps_hat, z, eta))


# --- whole loops ----------------------------------------------------------------------------------------------


def eps_star(schedule, x, t):
    """The exact total noise for data from DATA."""
    return -schedule.beta_bar[t] * DATA.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t]).score(x)


def times(theirs):
    """The steps t at which their loop calls the network, falling."""
    return [int(i) + 1 for i in theirs.timesteps]


def compare_paths(theirs, schedule, sampler, seed, **options):
    """Their loop over `theirs.timesteps`, with noise from `seed`, equals `sampler` on the chain of these steps."""
    grid = times(theirs)
    start, *noise = noise_of(seed, len(grid) + 1, 4, 2)
    if grid[-1] == 1:
        noise[-1] = np.zeros_like(start)  # diffusers adds no noise at t = 1
    source = generator(seed)
    path = [torch.randn(4, 2, generator=source, dtype=torch.float64)]
    for t in grid:
        eps_hat = torch.tensor(eps_star(schedule, path[-1].numpy(), t))
        path.append(theirs.step(eps_hat, t - 1, path[-1], generator=source, **options).prev_sample)
    ours = list(
        sampler(
            schedule.respace(grid[::-1]),
            lambda x, i: eps_star(schedule, x, grid[-i]),
            start,
            Scripted(lambda i, shape: noise[i]),
        )
    )
    assert [i for i, _ in ours] == list(range(len(grid), -1, -1))
    # a single step has β² = 1 − ᾱ_T² = 1 − 1e-6, which as a float64 keeps 10 digits of ᾱ_T: 8e-12 measured
    close(torch.stack(path), np.array([x for _, x in ours]), 1e-12 if len(grid) > 1 else 2e-11)


def compare_ancestral_paths(theirs, schedule, variance, seed):
    def sampler(short, *arguments):
        table = reverse_variance(short, variance)
        if variance == "posterior":
            table[1] = 1e-20  # diffusers clamps β̃_1² = 0 at 1e-20
        return ancestral_sampler(short, *arguments, table)

    compare_paths(theirs, schedule, sampler, seed)


def spaced(cls, schedule, n, spacing, **options):
    theirs = in_double(cls, schedule, timestep_spacing=spacing, **options)
    theirs.set_timesteps(n)
    return theirs


@every_variance
@both_schedules
@pytest.mark.parametrize("seed", [0, 1])
def test_ancestral_loop_is_diffusers(schedule, variance, seed):
    theirs = in_double(DDPMScheduler, schedule, variance_type=VARIANCES[variance])
    compare_ancestral_paths(theirs, schedule, variance, seed)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [1, 7, 10])
@every_variance
@both_schedules
def test_ancestral_loop_on_fewer_steps_is_diffusers(schedule, variance, n, spacing):
    theirs = spaced(DDPMScheduler, schedule, n, spacing, variance_type=VARIANCES[variance])
    compare_ancestral_paths(theirs, schedule, variance, seed=2)


# "trailing" only if n divides T: DDIMScheduler steps back by T // n on every grid (issue 11347 of diffusers)
@pytest.mark.parametrize(
    ("n", "spacing"), [(1, "trailing"), (10, "trailing"), (50, "trailing"), (7, "leading"), (10, "leading")]
)
@every_eta
@both_schedules
def test_ddim_loop_is_diffusers_for_every_eta(schedule, eta, n, spacing):
    theirs = spaced(DDIMScheduler, schedule, n, spacing)
    compare_paths(theirs, schedule, lambda *a: ddim_sampler(*a, eta), seed=3, eta=eta)


@every_eta
@both_schedules
def test_ddim_steps_between_times_of_the_long_chain_are_diffusers_loop(schedule, eta):
    """`ddim_step` on the long chain gives the same path as `ddim_sampler` on the respaced chain."""
    theirs = spaced(DDIMScheduler, schedule, 10, "trailing")
    x, y = torch.tensor(DATA.means), DATA.means
    noise = noise_of(4, 10, *y.shape)
    for (t, s), z in zip(pairwise([*times(theirs), 0]), noise, strict=True):
        eps_hat = torch.tensor(eps_star(schedule, x.numpy(), t))
        x = theirs.step(eps_hat, t - 1, x, eta=eta, variance_noise=torch.tensor(z)).prev_sample
        y = ddim_step(schedule, t, s, y, eps_star(schedule, y, t), z, eta)
        close(x, y)


# --- forward process, v, guidance -----------------------------------------------------------------------------


@every_schedule
@given(data=st.data())
def test_noising_and_velocity_are_diffusers_with_a_step_for_every_example(strategy, data):
    schedule = data.draw(strategy)
    x0, eps = data.draw(reals((2, schedule.T, 2), -3, 3))
    t = np.arange(1, schedule.T + 1)
    theirs = in_double(DDPMScheduler, schedule)
    arguments = torch.tensor(x0), torch.tensor(eps), torch.tensor(t - 1)
    x_t = q_sample(schedule, t, x0, eps)
    close(theirs.add_noise(*arguments), x_t)
    velocity = theirs.get_velocity(*arguments)
    close(velocity, eps_to_prediction(schedule, t, x_t, eps, "v"))
    close(eps, prediction_to_eps(schedule, t, x_t, velocity.numpy(), "v"))


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
def test_guidance_counts_as_diffusers_guider(guidance):
    """0 ignores the label, and 1 is the labelled network, as in the default of diffusers; the paper counts from −1."""
    from diffusers import ClassifierFreeGuidance  # experimental in diffusers: only this test needs it

    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    model = DDPM(NoiseSchedule.linear(5), n_classes=2, hidden=(8,), n_steps=30, rng=0)
    model.fit(y[:, None] + 0.1 * rng.standard_normal((40, 2)), y)
    x = rng.standard_normal((40, 2))
    given_label, free = model.eps_hat(x, 3, y), model.eps_hat(x, 3)
    assert np.abs(given_label - free).max() > 1e-3
    theirs = ClassifierFreeGuidance(guidance).forward(torch.tensor(given_label), torch.tensor(free)).pred
    close(theirs, model.eps_hat(x, 3, y, guidance))
