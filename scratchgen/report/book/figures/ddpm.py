"""Pictures of the diffusion model, (19)-(29)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from scratchgen import Mixture, NoiseSchedule, datasets
from scratchgen.ddpm import (
    ancestral_sampler,
    bound_weight,
    negative_elbo,
    optimal_reverse_variance,
    q_posterior,
    q_sample,
)
from scratchgen.grading import ancestral_density, grade_bound
from scratchgen.report.book.figures.frame import BLUE, GREEN, GREY, ORANGE, drawing, name_plane, number, panels
from scratchgen.validation import Array


def eps_hat_of(law: Mixture, schedule: NoiseSchedule) -> Callable[[Array, int], Array]:
    """The exact ε̂(x_t, t) = −β̄_t ∇log p_t(x_t) of data from a mixture."""
    return lambda x, t: -schedule.beta_bar[t] * law.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t]).score(x)


# --- the diffusion model ---------------------------------------------------------------------------------------------


@drawing(
    "ddpm-chain",
    "The density of x_t for t from 0 to 100, as shades over a line of x. Three narrow peaks at t = 0 melt into "
    "one standard normal bell at t = 100. Six paths of the forward chain wander over it from left to right.",
)
def ddpm_chain() -> Figure:
    """Density of x_t over t, and paths of the forward chain."""
    law, schedule = datasets.gaussians_1d(), NoiseSchedule.linear(100)
    x = np.linspace(-3.2, 3.2, 257)
    steps = np.arange(schedule.T + 1)
    density = np.stack(
        [np.exp(law.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t]).log_prob(x[:, None])) for t in steps], axis=1
    )
    rng = np.random.default_rng(3)
    path = [law.sample(6, rng)[:, 0]]
    for t in steps[1:]:
        path.append(schedule.alpha[t] * path[-1] + schedule.beta[t] * rng.standard_normal(6))
    figure, axes = panels(1, 3, 3.1, sharey=True, width_ratios=(1, 6, 1))
    left, middle, right = axes[0]
    middle.pcolormesh(steps, x, density**0.5, cmap="Greys", shading="auto", vmax=1.1)
    middle.plot(steps, np.array(path), color=BLUE, lw=0.8)
    middle.set(title=r"forward  →:  $x_t = \alpha_t x_{t-1} + \beta_t \varepsilon_t$", xlabel="t", xlim=(0, schedule.T))
    for axis, values, name in ((left, density[:, 0], "$p(x_0)$"), (right, density[:, -1], "$p(x_T)$")):
        axis.fill_betweenx(x, values, color=BLUE, alpha=0.25, lw=0)
        axis.plot(values, x, color=BLUE)
        axis.set(title=name, xlabel="density", xlim=(0, None), xticks=[])
        axis.spines["bottom"].set_visible(False)
    left.set(ylabel="x", ylim=(-3.2, 3.2))
    left.invert_xaxis()
    return figure


@drawing(
    "ddpm-posterior",
    "Densities of x_{t-1} given x_t. With four steps the exact density has two peaks and the best Gaussian lies "
    "between them. With a hundred steps the exact density and the Gaussian are one curve. A third panel shows "
    "q(x_{t-1} given x_t, x_0) for three values of x_0: three narrow Gaussians of one width.",
)
def ddpm_posterior() -> Figure:
    """Exact reverse steps and Gaussians with their moments; q(x_{t−1} | x_t, x_0)."""
    law, x = datasets.gaussians_1d(), np.linspace(-3, 3, 1201)
    figure, axes = panels(1, 3, 2.8)
    for axis, T, t in ((axes[0, 0], 4, 1), (axes[0, 1], 100, 25)):
        schedule, x_t = NoiseSchedule.linear(T), 0.1
        before = law.diffuse(schedule.alpha_bar[t - 1], schedule.beta_bar[t - 1])
        noise = (x_t - schedule.alpha[t] * x) / schedule.beta[t]
        exact = before.log_prob(x[:, None]) - 0.5 * noise**2
        exact = np.exp(exact - exact.max())
        exact /= exact.sum() * (x[1] - x[0])
        mean = (exact * x).sum() * (x[1] - x[0])
        std = np.sqrt((exact * (x - mean) ** 2).sum() * (x[1] - x[0]))
        axis.fill_between(x, exact, color=BLUE, alpha=0.25, lw=0)
        axis.plot(x, exact, color=BLUE, label="exact")
        axis.plot(
            x,
            np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * (2 * np.pi) ** 0.5),
            color=ORANGE,
            ls="--",
            label="Gaussian",
        )
        axis.set(
            title=f"$q(x_{{{t - 1}}} \\mid x_{{{t}}})$,  T = {T}",
            xlabel=f"$x_{{{t - 1}}}$",
            ylim=(0, 1.45 * exact.max()),
            yticks=[],
        )
        axis.set_xlim(mean - 4.5 * std, mean + 4.5 * std)
        axis.legend(loc="upper left", fontsize=8.5, ncols=2, columnspacing=1, handlelength=1.5)
    schedule, t, x_t = NoiseSchedule.linear(100), 5, 0.1
    axis = axes[0, 2]
    for x0, color in ((-1.1, BLUE), (0.1, GREEN), (1.3, ORANGE)):
        mean, variance = q_posterior(schedule, t, np.array([[x_t]]), np.array([[x0]]))
        centre, std = float(mean[0, 0]), float(variance) ** 0.5
        axis.plot(x, np.exp(-0.5 * ((x - centre) / std) ** 2) / (std * (2 * np.pi) ** 0.5), color=color)
        axis.annotate(
            f"$x_0$ = {number(x0)}" if x0 > 1 else number(x0),
            (centre, 0.42 / std),
            ha="center",
            color=color,
            fontsize=8.5,
            xytext=(0, 3),
            textcoords="offset points",
        )
    axes[0, 0].set_ylabel("density")
    axis.set(title=r"$q(x_4 \mid x_5, x_0)$,  T = 100", xlabel="$x_4$", yticks=[], xlim=(-0.75, 0.95))
    axis.set_ylim(0, 1.2 * axis.get_ylim()[1])
    return figure


@drawing(
    "ddpm-reverse",
    "Two rows of five scatter plots. Above, the forward chain turns eight clusters on a ring into one round "
    "cloud. Below, the reverse chain with the exact noise predictor turns a round cloud into the eight clusters.",
)
def ddpm_reverse() -> Figure:
    """Forward and reverse chain of eight Gaussians, with the exact ε̂."""
    law, schedule, shown = datasets.eight_gaussians(), NoiseSchedule.linear(100), (0, 10, 25, 50, 100)
    rng = np.random.default_rng(0)
    x0, noise = law.sample(1000, rng), rng.standard_normal((1000, 2))
    reverse = dict(
        ancestral_sampler(schedule, eps_hat_of(law, schedule), rng.standard_normal((1000, 2)), rng, "posterior")
    )
    figure, axes = panels(2, 5, 3.5, sharex=True, sharey=True)
    for column, t in enumerate(shown):
        for axis, points, color in (
            (axes[0, column], q_sample(schedule, t, x0, noise) if t else x0, GREY),
            (axes[1, column], reverse[t], BLUE),
        ):
            axis.scatter(*points.T, s=2.5, color=color, alpha=0.5, linewidths=0)
            axis.set(xlim=(-3, 3), ylim=(-3, 3), xticks=(-2, 0, 2), yticks=(-2, 0, 2), aspect="equal")
        axes[0, column].set_title(f"t = {t}" if t else "data, t = 0")
    name_plane(axes)
    axes[0, 0].set_ylabel("forward  →\n$x_2$")
    axes[1, 0].set_ylabel("←  reverse\n$x_2$")
    return figure


@drawing(
    "ddpm-schedule",
    "Left, the factors of signal and of noise over t: one falls from 1 to 0, the other rises from 0 to 1. Right, "
    "the weight of the noise loss in the bound, which falls by a factor of ten over the first thirty steps and "
    "then rises a little, and the constant weight of the simple loss.",
)
def ddpm_schedule() -> Figure:
    """ᾱ_t and β̄_t, and the weights of the loss."""
    schedule = NoiseSchedule.linear(100)
    t = np.arange(schedule.T + 1)
    figure, axes = panels(1, 2, 2.7)
    left, right = axes[0]
    left.plot(t, schedule.alpha_bar, color=BLUE)
    left.plot(t, schedule.beta_bar, color=ORANGE, ls="--")
    left.annotate(
        r"$\bar{\alpha}_t$, signal", (40, schedule.alpha_bar[40]), xytext=(8, 2), textcoords="offset points", color=BLUE
    )
    left.annotate(
        r"$\bar{\beta}_t$, noise",
        (60, schedule.beta_bar[60]),
        xytext=(0, -14),
        textcoords="offset points",
        color=ORANGE,
    )
    left.set(title=r"$x_t = \bar{\alpha}_t x_0 + \bar{\beta}_t \varepsilon$", xlabel="t", xlim=(0, 100), ylim=(0, 1.05))
    right.semilogy(t[1:], bound_weight(schedule)[1:], color=BLUE)
    right.axhline(1 / schedule.T, color=ORANGE, ls="--")
    right.annotate(
        "$w_t$ of the bound, (29)",
        (14, bound_weight(schedule)[14]),
        xytext=(8, 8),
        textcoords="offset points",
        color=BLUE,
    )
    right.annotate(
        "1/T, the simple loss", (40, 1 / schedule.T), xytext=(0, 5), textcoords="offset points", color=ORANGE
    )
    right.set(
        title=r"weight of $\mathbb{E}\,\Vert\varepsilon - \hat{\varepsilon}\Vert^2$ at step t",
        xlabel="t",
        ylabel="nats",
        xlim=(1, 100),
        ylim=(0.006, 1),
    )
    return figure


LADDER = (2, 4, 8, 16, 32, 64, 128)  # numbers of steps


class Ladder(NamedTuple):
    """Nats of the exact ε̂: the entropy, and what lies above the entropy, for every number of steps."""

    entropy: float
    exact: Array  # KL(p‖p_θ), with σ_t² = β_t²
    bound: Array  # E[−ELBO] − H(p), with σ_t² = β_t²
    best: Array  # the same with the best σ_t²


@cache
def ladder() -> Ladder:
    """H(p), and the distances of samples and bounds of `LADDER` steps from H(p), for three Gaussians on a line."""
    law = datasets.gaussians_1d()
    second_moment = float(law.covariance()[0, 0] + law.mean()[0] ** 2)
    rungs = []
    for T in LADDER:
        schedule = NoiseSchedule.linear(T)
        eps_hat = eps_hat_of(law, schedule)
        grade = grade_bound(schedule, eps_hat, law, "beta")
        loss = np.array([0.0, *(level.bayes for level in grade.noise)])
        best = optimal_reverse_variance(schedule, loss, 1)
        bounds = np.array([grade.bound, negative_elbo(schedule, loss, second_moment, 1, best)])
        exact = ancestral_density(schedule, eps_hat, 1, "beta", final_spacing=0.01).kl_from(law)
        rungs.append((exact, *(bounds - grade.entropy)))
    return Ladder(grade.entropy, *np.array(rungs).T)


@drawing(
    "ddpm-ladder",
    "Nats above the entropy over the number of steps, for the exact noise predictor, on logarithmic axes. Three curves "
    "fall: the bound with the variance beta squared, the bound with the best variance below it, and lowest the exact "
    "divergence of the samples. The exact curve falls fastest.",
)
def ddpm_ladder() -> Figure:
    """KL(p‖p_θ) and E[−ELBO] − H(p) of the exact ε̂ over the number of steps."""
    found = ladder()
    figure, axes = panels(1, 1, 2.9)
    axis = axes[0, 0]
    for values, color, style, name in (
        (found.bound, ORANGE, "s--", r"bound, $\sigma_t^2 = \beta_t^2$"),
        (found.best, GREEN, "^:", r"bound, the best $\sigma_t^2$"),
        (found.exact, BLUE, "o-", r"exact cross-entropy, $\sigma_t^2 = \beta_t^2$"),
    ):
        axis.loglog(LADDER, values, style, color=color, ms=4, label=name)
    axis.set(
        title=f"above the entropy H(p) = {found.entropy:.3f} nats, with the exact noise predictor",
        xlabel="number of steps T",
        ylabel="nats",
    )
    ticks = (0.003, 0.01, 0.03, 0.1, 0.3)
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks(LADDER, [str(T) for T in LADDER])
    axis.minorticks_off()
    axis.legend(loc="lower left")
    return figure
