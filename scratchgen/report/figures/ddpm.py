"""Pictures of the DDPMs of a tour."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchgen import DDPM, ScoreSDE, datasets
from scratchgen.ddpm import q_sample
from scratchgen.report.book.figures.digits import show_digits
from scratchgen.report.book.figures.frame import GREEN
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
from scratchgen.report.tour import Tour


@drawing(
    "ddpm-process",
    "Two rows of five scatter plots. Above, eight clusters become a round cloud; below, a round cloud becomes eight "
    "clusters.",
)
def ddpm_process_figure(tour: Tour) -> Figure:
    """Top: the forward process.  Bottom: the learned reverse process."""
    model: DDPM = tour.models["ddpm"]
    schedule, times = model.schedule_, [0, 10, 25, 50, 100]
    x0 = datasets.eight_gaussians().sample(N_POINTS, tour.seed)
    noise = np.random.default_rng(tour.seed).standard_normal(x0.shape)
    reverse = snapshots(model.sample_path(N_POINTS, tour.seed), times)
    noisy = [(q_sample(schedule, t, x0, noise), f"t = {t}", reverse[t], "") for t in times[1:]]
    return both_ways([(x0, "data, t = 0", reverse[0], "samples"), *noisy])


@drawing(
    "ddpm-ladder",
    "Curves over the number of steps, 10 to 100: the exact cross-entropy of the sampler, its bound and the bound of "
    "the exact denoiser fall towards the entropy, a level line below them.",
)
def ladder_figure(tour: Tour) -> Figure:
    """Entropy, exact cross-entropy and bound of one DDPM, with all or some of its steps."""
    figure, (axes,) = row_of(1, 3.6)
    T, entropy = np.array(list(tour.ladder)), datasets.eight_gaussians().entropy()
    exact, bound, best = np.array(list(tour.ladder.values())).T
    axes.plot(T, bound, "o-", color=MODEL, label="−ELBO")
    axes.plot(T, best, color=EXACT, ls="--", label="−ELBO with the exact denoiser")
    axes.plot(T, exact, "s-", color=GREEN, label="−E log p$_θ$(x₀), on a grid")
    axes.axhline(entropy, color=EXACT, label="H(p)")
    axes.set(title="entropy, exact cross-entropy and bound", xlabel="T, steps of one network", ylabel="nats")
    axes.set(xscale="log", xticks=T, xticklabels=T, xlim=(9, 111))
    axes.minorticks_off()
    axes.legend(fontsize=SMALL)
    return figure


@drawing(
    "ddpm-digits",
    "Left, eight columns of digits that appear from noise, from above to below. Then 64 samples of the model, and 64 "
    "training digits.",
)
def ddpm_digits_figure(tour: Tour) -> Figure:
    """Samples, and one row of images per time step."""
    return digits_figure(tour.models["ddpm_digits"], tour, [100, 60, 40, 25, 15, 8, 0], "samples")


def digits_figure(model: DDPM | ScoreSDE, tour: Tour, times: list[float], title: str) -> Figure:
    """Digits from noise to data, with samples and training images."""
    figure, (left, middle, right) = row_of(3, 2.75)
    path = snapshots(model.sample_path(8, tour.seed), times)
    show_digits(
        left,
        np.concatenate([model.to_data(path[t]) for t in times]),
        8,
        f"t = {times[0]:g} (above) to {times[-1]:g}",
    )
    show_digits(middle, model.sample(64, tour.seed), 8, title)
    show_digits(right, datasets.digits("train").images[:64], 8, "training digits")
    return figure
