"""The seven small pictures of the start page: one a system."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from scratchgen import VP, CategoricalMixture, GaussianMixture, NoiseSchedule, datasets
from scratchgen.report.book.figures.em import ellipses
from scratchgen.report.book.figures.frame import BLUE, GREY, ORANGE, drawing
from scratchgen.report.book.figures.sde import arrows
from scratchgen.report.transport import transport_decoder

SIDE = 2.2  # inches


def square() -> tuple[Figure, Any]:
    """A small square figure without ticks."""
    figure = Figure(figsize=(SIDE, SIDE), layout="constrained")
    axis = figure.subplots()
    axis.set(xticks=[], yticks=[])
    return figure, axis


@drawing("system-gmm", "Points of four clusters, each with the ellipse of its Gaussian.")
def gmm() -> Figure:
    """A fitted mixture of Gaussians."""
    figure, axis = square()
    x = datasets.gaussians_2d().sample(600, 0)
    axis.scatter(*x.T, s=3, color=GREY, alpha=0.5, linewidths=0)
    ellipses(axis, GaussianMixture(4, rng=1, n_init=2, max_iter=60, tol=1e-4).fit(x).mixture_)
    axis.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return figure


def _factor(stds: tuple[float, float]) -> Figure:
    """Points of x = W z + noise, the line W z, and the noise at five places of the line."""
    figure, axis = square()
    rng, W = np.random.default_rng(2), np.array([[1.1], [0.8]])
    x = rng.standard_normal((150, 1)) @ W.T + rng.standard_normal((150, 2)) * stds
    axis.scatter(*x.T, s=5, color=GREY, alpha=0.6, linewidths=0)
    axis.plot(*(np.array([[-3.0], [3.0]]) @ W.T).T, color=ORANGE)
    axis.text(0.4, -2.9, "line: W z", color=ORANGE, fontsize=8.5)
    axis.text(-3.2, 2.8, "noise, two standard\ndeviations", color=BLUE, fontsize=8.5, va="center")
    for z in (-2.0, -1.0, 0.0, 1.0, 2.0):
        axis.add_patch(Ellipse((1.1 * z, 0.8 * z), 4 * stds[0], 4 * stds[1], fill=False, color=BLUE, lw=1.2))
    axis.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return figure


@drawing("system-ppca", "Points beside a sloping line, with equal circles along it: the noise of all columns.")
def ppca() -> Figure:
    """One factor, with one noise variance."""
    return _factor((0.4, 0.4))


@drawing("system-fa", "Points beside a sloping line, with upright ellipses along it: each column has its own noise.")
def factors() -> Figure:
    """One factor, with a noise variance for every column."""
    return _factor((0.2, 0.65))


@drawing("system-tables", "Nine blurred digits, the mean picture of each of nine classes found by EM.")
def tables() -> Figure:
    """Mean pictures of a mixture of tables."""
    figure, axis = square()
    images = datasets.digits("train").images[:700]
    model = CategoricalMixture(9, n_levels=17, max_iter=15, smoothing=1.0, rng=0).fit(images)
    classes = np.stack([images[model.predict(images) == c].mean(axis=0) for c in range(9)]).reshape(3, 3, 8, 8)
    axis.imshow(classes.transpose(0, 2, 1, 3).reshape(24, 24), cmap="gray_r")
    for edge in (7.5, 15.5):
        axis.axhline(edge, color="white", lw=3)
        axis.axvline(edge, color="white", lw=3)
    axis.set_axis_off()
    return figure


@drawing("system-vae", "A staircase from a normal latent at the bottom to three peaks of x at the left.")
def vae() -> Figure:
    """A decoder between a normal latent and the data."""
    figure, axis = square()
    truth, z = datasets.gaussians_1d(), np.linspace(-2.6, 2.6, 301)
    x = np.linspace(-2.2, 2.6, 301)
    axis.plot(z, transport_decoder(truth)(z), color=ORANGE)
    normal, density = np.exp(-0.5 * z**2), np.exp(truth.log_prob(x[:, None]))
    axis.fill_between(z, -3.3, -3.3 + 0.9 * normal, color=BLUE, alpha=0.35, lw=0)
    axis.fill_betweenx(x, -3.8, -3.8 + density, color=BLUE, alpha=0.35, lw=0)
    axis.set(xlim=(-3.8, 2.8), ylim=(-3.3, 2.8), xlabel="z", ylabel="x")
    return figure


@drawing(
    "system-ddpm", "The density of a diffused variable as shades: three bands at the left become one at the right."
)
def ddpm() -> Figure:
    """The diffused density over t."""
    figure, axis = square()
    law, schedule, x = datasets.gaussians_1d(), NoiseSchedule.linear(60), np.linspace(-3, 3, 161)
    levels = zip(schedule.alpha_bar.tolist(), schedule.beta_bar.tolist(), strict=True)
    density = np.stack([np.exp(law.diffuse(a, b).log_prob(x[:, None])) for a, b in levels], axis=1)
    axis.pcolormesh(np.arange(61), x, density**0.5, cmap="Blues", shading="auto", vmax=1.2)
    axis.set(xlabel="t", ylabel="x")
    return figure


@drawing("system-sde", "Arrows of the score over eight clusters on a ring; every arrow points to a cluster nearby.")
def score() -> Figure:
    """The score field of eight Gaussians."""
    figure, axis = square()
    law = datasets.eight_gaussians().diffuse(*VP().level(0.12))
    grid = np.linspace(-2.4, 2.4, 11)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    field = law.score(points)
    axis.scatter(*law.sample(400, 0).T, s=3, color=GREY, alpha=0.4, linewidths=0)
    arrows(axis, points, field)
    axis.set(xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return figure
