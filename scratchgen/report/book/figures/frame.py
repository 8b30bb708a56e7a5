"""Style, colours and the register of drawing functions, for all pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a7f87"  # Okabe and Ito
INK, PANEL = "#20242a", "#ffffff"
STYLE: Any = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8b9099",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "xtick.color": "#565d66",
    "ytick.color": "#565d66",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": PANEL,
    "savefig.facecolor": PANEL,
}
DPI = 180
WIDTH = 7.6  # inches, of every picture; 100 pixels of the page each
FIGURES: dict[str, Callable[[], Figure]] = {}
ALT: dict[str, str] = {}  # name of a picture → the text that stands in for it


def drawing(name: str, alt: str) -> Callable[[Callable[[], Figure]], Callable[[], Figure]]:
    """Decorator: the function below draws the picture with this name."""

    def collect(draw: Callable[[], Figure]) -> Callable[[], Figure]:
        FIGURES[name], ALT[name] = draw, alt
        return draw

    return collect


def draw(folder: Path) -> dict[str, tuple[int, int]]:
    """Draw all pictures as PNG files into a folder; return name → width and height on the page, in pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    with mpl.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make()
            width, height = figure.get_size_inches()
            sizes[name] = round(100 * width), round(100 * height)
            figure.savefig(folder / f"{name}.png", dpi=DPI)
    return sizes


def number(value: float, form: str = "g") -> str:
    """A number with a minus sign, not a hyphen."""
    return format(value, form).replace("-", "−")


def name_plane(axes: Any) -> None:
    """The names of the two columns of the data, below and to the left of a grid of axes."""
    for axis in axes[-1]:
        axis.set_xlabel("$x_1$")
    for axis in axes[:, 0]:
        axis.set_ylabel("$x_2$")


def panels(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure with a grid of axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
