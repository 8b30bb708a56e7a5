"""Pictures of EM, (15)-(18)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke

from scratchgen import PPCA, FactorAnalysis, Mixture, datasets
from scratchgen.em import e_step, em, m_step
from scratchgen.report.book.figures.frame import BLUE, GREEN, INK, ORANGE, PINK, drawing, name_plane, number, panels
from scratchgen.report.chapters.em import joint_kl_path
from scratchgen.report.tour import standardized_penguins

COLORS = (BLUE, ORANGE, GREEN, PINK)


def ellipses(axis: Any, mixture: Mixture) -> None:
    """The two-standard-deviation ellipse of every component, in its colour, with its number."""
    for k, (mean, covariance, color) in enumerate(zip(mixture.means, mixture.covariances, COLORS, strict=False), 1):
        values, vectors = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        width, height = 4 * np.sqrt(values[::-1])
        axis.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, color=color, lw=1.8))
        label = axis.text(*mean, str(k), color=INK, ha="center", va="center", fontsize=9, fontweight="bold")
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


@drawing(
    "em-iterations",
    "Four scatter plots of the same 800 points with four ellipses. At the start all ellipses are round circles in the "
    "middle. After 1, 5 and 30 iterations they move apart, and at the end each covers one of the four clusters. The "
    "colour of a point shows the component that is responsible for it, and a number at its mean names the component.",
)
def em_iterations() -> Figure:
    """A mixture of four Gaussians after 0, 1, 5 and 30 iterations."""
    x = datasets.gaussians_2d().sample(800, 1)
    start = Mixture(
        np.full(4, 0.25), [[-0.3, 0.3], [0.3, 0.3], [0.3, -0.3], [-0.3, -0.3]], np.tile(0.4 * np.eye(2), (4, 1, 1))
    )
    loop = em(
        start, lambda mixture: e_step(x, mixture), lambda log_resp, mixture: m_step(x, log_resp, mixture), max_iter=30
    )
    iterates = list(loop)
    figure, axes = panels(1, 4, 2.55, sharex=True, sharey=True)
    for axis, n in zip(axes[0], (0, 1, 5, 30), strict=True):
        iterate = iterates[n]
        shades = np.exp(iterate.expected) @ np.array([to_rgb(color) for color in COLORS])
        axis.scatter(*x.T, s=3, c=np.clip(shades, 0, 1), alpha=0.45, linewidths=0)
        ellipses(axis, iterate.theta)
        title = f"{n} iteration{'' if n == 1 else 's'}\nbound {number(iterate.bounds[n], '.3f')} nats"
        axis.set(title=title, aspect="equal", xlim=(-2.8, 2.8), ylim=(-3.1, 2.5))
    name_plane(axes)
    return figure


@drawing(
    "em-halves",
    "The joint divergence after every half-step of EM, for PPCA and for factor analysis on the penguins. Both are "
    "staircases that only go down, by large steps first and smaller ones later.",
)
def em_halves() -> Figure:
    """The joint KL after every half-step, E and M in turn."""
    penguins, halves = standardized_penguins(), 17
    figure, axes = panels(1, 1, 2.8)
    axis = axes[0, 0]
    for model, name, color in (
        (PPCA(2, "em", rng=0), "PPCA, 2 factors", BLUE),
        (FactorAnalysis(1, rng=0), "factor analysis, 1 factor", ORANGE),
    ):
        path = joint_kl_path(model.fit(penguins), penguins)[:halves]
        axis.plot(path, color=color, lw=1, drawstyle="steps-post")
        axis.plot(range(0, halves, 2), path[::2], "o", color=color, ms=5, label=f"{name}, after E")
        axis.plot(range(1, halves, 2), path[1::2], "v", color=color, ms=5, mfc="white", label=f"{name}, after M")
    axis.set(
        title=r"$\mathrm{KL}(p(x)\, q(z \mid x) \Vert p_\theta(x, z))$, penguins", xlabel="half-step", ylabel="nats"
    )
    axis.set_xticks(range(halves), ["E" if i % 2 == 0 else "M" for i in range(halves)])
    axis.legend()
    return figure
