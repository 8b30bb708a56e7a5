"""The register of the drawing functions of a tour, and the parts that several pictures have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from scratchgen.report.book.figures.frame import BLUE, DPI, GREY, ORANGE, STYLE, name_plane, panels
from scratchgen.report.tour import Tour
from scratchgen.validation import Array

N_POINTS = 2000  # of every scatter plot
DATA, MODEL, EXACT = GREY, BLUE, ORANGE  # colours of data, of a trained model, and of an exact answer
SMALL = 7.5  # points, of legends
Draw = Callable[[Tour], Figure]
DRAWINGS: dict[str, tuple[str, Draw]] = {}  # name of a picture → the text that stands in for it, and its function


class Picture(NamedTuple):
    """A picture of the book: its file, its size on the page in pixels, and the text that stands in for it."""

    file: str
    size: tuple[int, int]
    alt: str


def drawing(name: str, alt: str) -> Callable[[Draw], Draw]:
    """Decorator: the function below draws the picture with this name."""

    def collect(draw: Draw) -> Draw:
        DRAWINGS[name] = alt, draw
        return draw

    return collect


def draw_all(tour: Tour, folder: Path) -> dict[str, Picture]:
    """Draw every picture of a tour into the folder `trained` of a book; return "trained-NAME" → the picture."""
    (folder / "trained").mkdir(parents=True, exist_ok=True)
    pictures = {}
    with mpl.rc_context(STYLE):
        for name, (alt, draw) in DRAWINGS.items():
            figure, file = draw(tour), f"trained/{name}.png"
            width, height = figure.get_size_inches()
            pictures[f"trained-{name}"] = Picture(file, (round(100 * width), round(100 * height)), alt)
            figure.savefig(folder / file, dpi=DPI)
    return pictures


# --- parts of pictures ------------------------------------------------------------------------------------------------


def row_of(columns: int, height: float) -> tuple[Figure, Any]:
    """A figure with one row of axes."""
    figure, axes = panels(1, columns, height)
    return figure, axes[0]


def scatter(axes: Any, points: Array, title: str, color: str = MODEL, reach: float = 3.0) -> None:
    """Points in a square window."""
    axes.scatter(*points.T, s=1.5, color=color, alpha=0.5, linewidths=0)
    ticks = (-2, 0, 2)
    axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), xticks=ticks, yticks=ticks, aspect="equal")


def snapshots(path: Iterable[tuple[float, Array]], times: Iterable[float]) -> dict[float, Array]:
    """The first point of a path with falling times at or below each given time."""
    wanted, found = sorted(times, reverse=True), {}
    for t, x in path:
        while wanted and t <= wanted[0] + 1e-9:
            found[wanted.pop(0)] = x
    return found


def name_rows(axes: Any) -> None:
    """The axes, and the direction of time beside two rows of panels with equal times: forward above, reverse below."""
    name_plane(axes)
    axes[0, 0].set_ylabel("forward  →\n$x_2$")
    axes[1, 0].set_ylabel("←  reverse\n$x_2$")


def both_ways(columns: Sequence[tuple[Array, str, Array, str]]) -> Figure:
    """Points of the forward process above those of the reverse process, a column a time, each with its title."""
    figure, axes = panels(2, len(columns), 3.5, sharex=True, sharey=True)
    for (above, below), (forward, title, reverse, name) in zip(axes.T, columns, strict=True):
        scatter(above, forward, title, DATA)
        scatter(below, reverse, name)
    name_rows(axes)
    return figure
