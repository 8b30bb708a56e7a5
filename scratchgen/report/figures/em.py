"""Pictures of the models that EM fitted in a tour."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from scratchgen import GaussianMixture, Mixture, datasets
from scratchgen.report.book.figures.frame import BLUE, GREEN, GREY, ORANGE, PINK
from scratchgen.report.chapters.em import joint_kl_path
from scratchgen.report.figures.frame import DATA, EXACT, MODEL, N_POINTS, SMALL, drawing, row_of, scatter
from scratchgen.report.tour import Tour, standardized_penguins

SPECIES = (ORANGE, GREEN, PINK)  # of the penguins


def ellipses(
    axes: Any, mixture: Mixture, color: str, label: str, coordinates: tuple[int, int] = (0, 1), width: float = 1.5
) -> None:
    """The two-standard-deviation ellipse of every component."""
    pick = np.array(coordinates)
    for k, (mean, covariance) in enumerate(zip(mixture.means, mixture.covariances, strict=True)):
        values, vectors = np.linalg.eigh(covariance[np.ix_(pick, pick)])
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        axes.add_patch(
            Ellipse(
                mean[pick],
                *(4 * np.sqrt(values[::-1])),
                angle=angle,
                fill=False,
                color=color,
                lw=width,
                label=label if k == 0 else None,
            )
        )


@drawing(
    "em",
    "Three panels: a known mixture with the ellipses of its four components and of the four fitted ones; penguins of "
    "three species with three ellipses; and two falling curves, the distance of the bound to its last value.",
)
def em_figure(tour: Tour) -> Figure:
    """Ellipses of the fitted and of the true mixture, clusters of the penguins, and the bounds over the iterations."""
    figure, (left, middle, right) = row_of(3, 3.0)
    truth, fitted = datasets.gaussians_2d(), tour.models["mixture"]
    scatter(left, truth.sample(N_POINTS, tour.seed), "a known mixture", DATA, 3.0)
    ellipses(left, truth, EXACT, "generator", width=4)
    ellipses(left, fitted.mixture_, MODEL, "fitted")
    left.set(xlabel="$x_1$", ylabel="$x_2$", ylim=(-3, 4.4))
    left.legend(fontsize=SMALL, loc="upper right")
    penguins, species = standardized_penguins(), datasets.penguins()
    model: GaussianMixture = tour.models["penguins"]
    for k, (name, color) in enumerate(zip(species.species_names, SPECIES, strict=True)):
        middle.scatter(*penguins[species.species == k][:, [0, 2]].T, s=5, color=color, linewidths=0, label=name)
    ellipses(middle, model.mixture_, MODEL, "fitted", (0, 2))
    middle.set(
        title="penguins, 3 components",
        xlabel="length of the bill, standardised",
        ylabel="length of the flipper, standardised",
        ylim=(-2.7, 4.6),
    )
    middle.legend(fontsize=SMALL, loc="upper left", ncols=2, columnspacing=1, handletextpad=0.3)
    for key, label, color in (("mixture", "known mixture", BLUE), ("penguins", "penguins", GREEN)):
        bounds = tour.models[key].lower_bounds_
        right.semilogy(np.maximum(bounds[-1] - bounds[:-1], 1e-12), label=label, color=color)
    right.set(title="last bound − bound", xlabel="iteration", ylabel="nats")
    right.legend(fontsize=SMALL)
    return figure


@drawing(
    "em-joint-kl",
    "Two panels of falling curves for PPCA and for factor analysis: the joint divergence after every half-step, and "
    "the fall of the marginal divergence in each iteration.",
)
def joint_kl_figure(tour: Tour) -> Figure:
    """Alternating minimisation: the joint KL after every half-step, and its convergence."""
    figure, (left, right) = row_of(2, 3.2)
    penguins, halves = standardized_penguins(), 13
    for key, name, color in (("ppca", "PPCA, 2 factors", BLUE), ("factors", "factor analysis, 1 factor", ORANGE)):
        path = joint_kl_path(tour.models[key], penguins)
        left.plot(path[:halves], color=color, lw=1, drawstyle="steps-post")
        left.plot(range(0, halves, 2), path[:halves:2], "o", color=color, ms=5, label=f"{name}, after E")
        left.plot(range(1, halves, 2), path[1:halves:2], "v", color=color, ms=5, mfc="w", label=f"{name}, after M")
        gains = -np.diff(path[::2])
        right.loglog(np.arange(1, len(gains) + 1), np.maximum(gains, 1e-14), color=color, label=name)
    left.set(title="joint KL divergence", xlabel="half-step: E M E M …", ylabel="nats", xticks=range(0, halves, 2))
    left.legend(fontsize=SMALL)
    right.set(title="fall of KL(p‖p$_θ$) in an iteration", xlabel="iteration", ylabel="nats")
    right.legend(fontsize=SMALL)
    left.grid(axis="y", color=GREY, alpha=0.2)
    return figure
