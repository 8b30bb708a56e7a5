"""Pictures of samples: a grid of images, a histogram, a scatter plot, or one for each pair of columns."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from matplotlib.figure import Figure

from scratchgen.report.tables import size_of
from scratchgen.report.text import CommandError
from scratchgen.validation import Array

MOST_IMAGES, MOST_COLUMNS = 100, 8


def draw(rows: Array, names: Sequence[str], n_levels: int | None) -> tuple[Figure, str]:
    """The figure of rows (N, D) and its words; rows of D = side² whole numbers are images of side × side."""
    N, D = rows.shape
    if N == 0:
        raise CommandError("a picture needs at least one row; pass -n 1 or more")
    if n_levels is not None and D > MOST_COLUMNS and isqrt(D) ** 2 == D:
        shown = f", of which {MOST_IMAGES} are shown" if N > MOST_IMAGES else ""
        words = f"{N} picture{'s' * (N != 1)} of {isqrt(D)} x {isqrt(D)}{shown}"
        return _images(rows[:MOST_IMAGES], n_levels), words
    if D > MOST_COLUMNS:
        raise CommandError(
            f"there is no picture of {D} columns: pictures are for square images of whole numbers and for at most "
            f"{MOST_COLUMNS} columns; write a .csv or .npy file"
        )
    if D <= 2:
        return _plane(rows, names), size_of(rows)
    return _pairs(rows, names), size_of(rows)


def _images(rows: Array, n_levels: int) -> Figure:
    across = isqrt(len(rows) - 1) + 1
    down, side = -(-len(rows) // across), isqrt(rows.shape[1])
    figure = Figure(figsize=(0.7 * across, 0.7 * down), layout="constrained")
    for axes, row in zip(figure.subplots(down, across, squeeze=False).ravel(), rows, strict=False):
        axes.imshow(row.reshape(side, side), cmap="gray_r", vmin=0, vmax=n_levels - 1)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def _plane(rows: Array, names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    if rows.shape[1] == 1:
        axes.hist(rows[:, 0], bins="auto", color="C0")
        axes.set_ylabel("rows")
    else:
        axes.scatter(rows[:, 0], rows[:, 1], s=4, linewidths=0, alpha=0.5)
        axes.set_ylabel(names[1])
    axes.set_xlabel(names[0])
    return figure


def _pairs(rows: Array, names: Sequence[str]) -> Figure:
    D = len(names)
    figure = Figure(figsize=(1.8 * D, 1.8 * D), layout="constrained")
    grid = figure.subplots(D, D, squeeze=False, sharex="col")
    for i in range(D):
        for j in range(D):
            if i == j:
                grid[i, j].hist(rows[:, i], bins="auto", color="C0")
                grid[i, j].set_yticks([])  # the counts of the histogram are not on the scale of this row's name
            else:
                grid[i, j].scatter(rows[:, j], rows[:, i], s=2, linewidths=0, alpha=0.5)
            grid[i, j].tick_params(labelsize=6)
        grid[i, 0].set_ylabel(names[i], fontsize=7)
        grid[-1, i].set_xlabel(names[i], fontsize=7)
    return figure
