"""The seven small pictures of the start page after a tour: a trained model in place of each exact one."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from scratchgen import datasets
from scratchgen.report.book.figures.digits import show_digits
from scratchgen.report.book.figures.start import square
from scratchgen.report.figures.em import SPECIES, ellipses
from scratchgen.report.figures.frame import DATA, EXACT, MODEL, drawing
from scratchgen.report.tour import Tour, standardized_penguins


@drawing("system-gmm", "Points of four clusters with the ellipses of the generator and of the fit, which agree.")
def gmm(tour: Tour) -> Figure:
    """The fitted mixture over its generator."""
    figure, axis = square()
    truth = datasets.gaussians_2d()
    axis.scatter(*truth.sample(600, tour.seed).T, s=3, color=DATA, alpha=0.5, linewidths=0)
    ellipses(axis, truth, EXACT, "generator", width=4)
    ellipses(axis, tour.models["mixture"].mixture_, MODEL, "fitted")
    axis.text(-2.5, 2.3, "generator", color=EXACT, fontsize=8.5)
    axis.text(2.5, 2.3, "fitted", color=MODEL, fontsize=8.5, ha="right")
    axis.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return figure


@drawing("system-ppca", "Penguins of three species in the plane of two factors; each species has its own place.")
def ppca(tour: Tour) -> Figure:
    """The posterior means of two factors, in the colours of the species, which the model has not seen."""
    figure, axis = square()
    z, penguins = tour.models["ppca"].encode(standardized_penguins()), datasets.penguins()
    axis.scatter(*z.T, s=5, c=np.array(SPECIES)[penguins.species], linewidths=0)
    for k, name in enumerate(penguins.species_names):
        label = axis.text(*z[penguins.species == k].mean(axis=0), name, fontsize=8.5, ha="center", va="center")
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axis.set(title="penguins", xlabel="factor $z_1$", ylabel="factor $z_2$")
    return figure


@drawing(
    "system-fa",
    "A bar for each of four measurements of penguins: the part of its variance that one factor explains.",
)
def factors(tour: Tour) -> Figure:
    """The shares of the variances that the factor explains."""
    figure, axis = square()
    model = tour.models["factors"]
    explained = (model.components_**2).sum(axis=1)
    axis.barh(["bill", "depth", "flipper", "mass"], explained / np.diag(model.covariance()), color=MODEL)
    axis.set(
        xlim=(0, 1), xlabel="variance explained", yticks=range(4), yticklabels=["bill", "depth", "flipper", "mass"]
    )
    axis.set_xticks((0, 1))
    axis.invert_yaxis()
    return figure


@drawing("system-tables", "Nine blurred digits, the mean pictures of nine of ten classes that EM found.")
def tables(tour: Tour) -> Figure:
    """Mean pictures of a mixture of tables."""
    figure, axis = square()
    levels = tour.models["tables"].probabilities_[:9] @ np.arange(17)
    show_digits(axis, levels, 3, "")
    return figure


@drawing("system-vae", "Sixteen digits that the VAE decoded from random latents.")
def vae(tour: Tour) -> Figure:
    """Decoded draws of the prior."""
    figure, axis = square()
    model = tour.models["vae_levels"]
    show_digits(axis, model.decode(np.random.default_rng(tour.seed).standard_normal((16, model.n_latents))), 4, "")
    return figure


@drawing("system-ddpm", "Points in eight clusters on a ring, drawn from the trained diffusion model.")
def ddpm(tour: Tour) -> Figure:
    """Samples of the DDPM in the plane."""
    figure, axis = square()
    axis.scatter(*tour.models["ddpm"].sample(1000, tour.seed).T, s=3, color=MODEL, alpha=0.5, linewidths=0)
    axis.set(xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return figure


@drawing("system-sde", "Sixteen digits, drawn by the reverse SDE with the learned score.")
def score(tour: Tour) -> Figure:
    """Digits of the score model."""
    figure, axis = square()
    show_digits(axis, tour.models["sde_digits"].sample(16, tour.seed), 4, "")
    return figure
