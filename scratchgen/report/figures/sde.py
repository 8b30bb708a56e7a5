"""Pictures of the score models of a tour, and of the losses of all models that gradient steps trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from scratchgen import PPCA, ScoreSDE, datasets
from scratchgen.report.book.figures.frame import BLUE, GREEN, PINK, name_plane, panels
from scratchgen.report.figures.ddpm import digits_figure
from scratchgen.report.figures.frame import (
    EXACT,
    MODEL,
    N_POINTS,
    SMALL,
    both_ways,
    drawing,
    row_of,
    snapshots,
)
from scratchgen.report.tour import Tour, standardized_penguins
from scratchgen.validation import Array


@drawing(
    "sde-process",
    "Two rows of five scatter plots of eight clusters that become a round cloud to the right: exact diffused data "
    "above, and the reverse SDE below.",
)
def sde_process_figure(tour: Tour) -> Figure:
    """Top: exact diffused data.  Bottom: the reverse SDE."""
    model: ScoreSDE = tour.models["sde"]
    times = [model.t_min, 0.05, 0.15, 0.4, 1.0]
    truth = datasets.eight_gaussians()
    reverse = snapshots(model.sample_path(N_POINTS, tour.seed), times)
    exact = [truth.diffuse(*model.sde_.level(t)).sample(N_POINTS, tour.seed) for t in times]
    names = ["samples", "", "", "", ""]
    titles = [f"exact, t = {t:g}" for t in times]
    return both_ways(list(zip(exact, titles, [reverse[t] for t in times], names, strict=True)))


@drawing(
    "sde-scores",
    "Above, four panels with arrows of the exact and of the learned score over shades of the density. Below, maps of "
    "the error, which is small where there are data, and grey areas without data.",
)
def scores_figure(tour: Tour) -> Figure:
    """Above: the learned and the exact score field at several times.  Below: the error of the learned one."""
    model: ScoreSDE = tour.models["sde"]
    truth, times = datasets.eight_gaussians(), [0.02, 0.1, 0.3, 0.8]
    axis = np.linspace(-2.7, 2.7, 19)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    fine = np.linspace(-3.0, 3.0, 121)
    plane = np.stack(np.meshgrid(fine, fine), axis=-1).reshape(-1, 2)
    figure, axes = panels(2, len(times), 4.4, sharex=True, sharey=True)
    for panel, below, t in zip(*axes, times, strict=True):
        diffused = truth.diffuse(*model.sde_.level(t))
        density = np.exp(diffused.log_prob(plane)).reshape(121, 121)
        panel.imshow(density, cmap="Greys", origin="lower", extent=(-3, 3, -3, 3), alpha=0.5)
        seen = (
            diffused.log_prob(points) > diffused.log_prob(plane).max() - 12
        )  # almost no data: the score is not learned there
        for field, color, width, alpha in (
            (diffused.score(points), EXACT, 0.016, 0.5),
            (model.predict_score(points, t), MODEL, 0.006, 1.0),
        ):
            length = np.linalg.norm(field, axis=1, keepdims=True)
            arrows = (field / np.sqrt(length))[seen]  # square roots of the lengths, because scores span three decades
            panel.quiver(*points[seen].T, *arrows.T, color=color, width=width, alpha=alpha, scale=45)
        error = np.linalg.norm(model.predict_score(plane, t) - diffused.score(plane), axis=1)
        relative = np.where(density.ravel() > 1e-4 * density.max(), error * model.sde_.level(t)[1], np.nan)
        image = below.imshow(
            relative.reshape(121, 121), cmap="Purples", origin="lower", extent=(-3, 3, -3, 3), vmin=0, vmax=1
        )
        for axis in (panel, below):
            axis.set(xlim=(-3, 3), ylim=(-3, 3), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        panel.set(title=f"score, t = {t:g}")
        below.set(title=f"error, t = {t:g}", facecolor="0.8")  # grey where there are almost no data
    name_plane(axes)
    figure.colorbar(image, ax=axes[1, :], shrink=0.8, label=r"$\Vert s_\theta - \nabla \log p_t \Vert \cdot$ std")
    for color, width, alpha, label in ((EXACT, 5, 0.5, "exact"), (MODEL, 2, 1.0, "learned")):
        axes[0, 0].plot([], [], color=color, lw=width, alpha=alpha, label=label)
    figure.legend(loc="outside upper right", ncols=2, fontsize=SMALL)
    return figure


@drawing(
    "sde-trajectories",
    "Three panels of eight paths each over the shaded exact density on a line: the forward SDE, the reverse SDE, and "
    "the smooth paths of the probability flow.",
)
def trajectories_figure(tour: Tour) -> Figure:
    """On the line: paths of the forward SDE, the reverse SDE and the probability flow over the density p_t."""
    model: ScoreSDE = tour.models["sde_line"]
    truth, process = datasets.gaussians_1d(), model.sde_
    x, times = np.linspace(-3.2, 3.2, 201)[:, None], np.linspace(0, process.horizon, 201)
    density = np.stack([np.exp(truth.diffuse(*process.level(t)).log_prob(x)) for t in times.tolist()], axis=1)
    rng = np.random.default_rng(tour.seed)
    forward = [truth.sample(8, rng)[:, 0]]
    for t, s in pairwise(times):  # the exact transition from t to s
        ratio = np.exp(process.log_scale(s) - process.log_scale(t))
        spread = np.sqrt(process.std(s) ** 2 - (ratio * process.std(t)) ** 2)
        forward.append(ratio * forward[-1] + spread * rng.standard_normal(8))
    paths = {"forward SDE, (31)  →": (times, np.array(forward))}
    for title, stochasticity in (("←  reverse SDE, (32)", 1.0), ("←  probability flow", 0.0)):
        steps = list(model.sample_path(8, tour.seed, stochasticity=stochasticity))
        paths[title] = np.array([t for t, _ in steps]), np.array([x[:, 0] for _, x in steps])
    figure, axes = row_of(3, 2.8)
    for panel, (title, (t, path)) in zip(axes, paths.items(), strict=True):
        panel.pcolormesh(times, x[:, 0], density**0.5, cmap="Greys", shading="auto", alpha=0.6)
        panel.plot(t, path, color=MODEL, lw=0.7)
        panel.set(title=title, xlabel="t", ylim=(-3.2, 3.2), xlim=(0, process.horizon), xticks=(0, 0.5, 1))
    axes[0].set_ylabel("x")
    return figure


@drawing(
    "sde-digits",
    "Left, columns of digits that appear from noise, from above to below. Then 64 samples of the reverse SDE, and 64 "
    "training digits.",
)
def sde_digits_figure(tour: Tour) -> Figure:
    """Samples, and one row of images per time."""
    model: ScoreSDE = tour.models["sde_digits"]
    return digits_figure(model, tour, [1.0, 0.6, 0.4, 0.25, 0.15, 0.08, model.t_min], "samples of the reverse SDE")


@drawing(
    "excess-loss",
    "Bayes loss and excess over log-SNR, for two models in the plane and one in 64 dimensions. The excess lies far "
    "below the Bayes loss.",
)
def excess_figure(tour: Tour) -> Figure:
    """Bayes loss and excess loss of the noise predictors against log-SNR, in two and in 64 dimensions."""
    figure, (left, right) = row_of(2, 3.6)
    for color, (name, (log_snr, grades)) in zip((BLUE, PINK), tour.noise_grades.items(), strict=True):
        draw_grades(left, log_snr, grades, color, name)
    left.set(title="eight Gaussians", ylabel="squared error of ε", ylim=(1e-6, 4))
    assert tour.tables_grades is not None
    draw_grades(right, *tour.tables_grades, GREEN, "score model")
    right.set(title="64 pixels from 10 tables", ylabel="squared error of ε", ylim=(1e-5, 200))
    return figure


def draw_grades(axes: Any, log_snr: Array, grades: Sequence[NamedTuple], color: str, name: str) -> None:
    """The excess loss and the Bayes loss, which no predictor can undercut."""
    bayes, excess = np.array(grades).T[:2]
    axes.semilogy(log_snr, excess, color=color, label=f"{name}: excess")
    axes.semilogy(log_snr, bayes, color=color, ls="--", lw=1, label=f"{name}: Bayes loss (exact)")
    axes.set(xlabel="log-SNR (clean data to the right)")
    axes.legend(fontsize=SMALL)


@drawing(
    "losses",
    "Eight panels with noisy losses of training and their moving averages, which fall and level off.",
)
def losses_figure(tour: Tour) -> Figure:
    """Batch losses of all models that were trained by gradient."""
    names = {
        "linear_vae": "linear VAE, penguins",
        "vae": "VAE, digits",
        "ddpm": "DDPM, eight Gaussians",
        "ddpm_digits": "DDPM, digits",
        "sde": "score, eight Gaussians",
        "sde_line": "score, on the line",
        "sde_tables": "score, tables",
        "sde_digits": "score, digits",
    }
    figure, axes = panels(2, 4, 4.0)
    for panel, (key, title) in zip(axes.flat, names.items(), strict=True):
        losses = tour.models[key].losses_
        window = max(len(losses) // 100, 1)
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        panel.plot(losses, color="0.9", lw=0.3)
        panel.plot(np.arange(len(smooth)) + window // 2, smooth, color=MODEL)
        low, high = np.quantile(smooth, [0.0, 0.95])
        panel.set(
            title=title,
            xlabel="step",
            ylabel="nats" if "vae" in key or key.startswith("ddpm") else "squared error of ε",
            ylim=(low - 0.2 * (high - low), high + 0.5 * (high - low)),
        )
    penguins = standardized_penguins()
    axes[0, 0].axhline(-PPCA(2).fit(penguins).score(penguins), color=EXACT, ls="--", label="PPCA (exact)")
    axes[0, 0].legend(fontsize=SMALL)
    return figure
