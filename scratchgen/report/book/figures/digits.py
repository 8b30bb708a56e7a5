"""Pictures of the digits that models of the package draw; nothing is trained for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from scratchgen import datasets
from scratchgen.report.book.figures.frame import drawing, panels
from scratchgen.report.book.shipped import N_IMAGES, drawn
from scratchgen.validation import Array


def show_digits(axes: Any, images: Array, columns: int, title: str) -> None:
    """A grid of 8x8 images with levels 0..16, white to black; values are rounded down, which inverts dequantisation."""
    rows = len(images) // columns
    canvas = np.full((9 * rows - 1, 9 * columns - 1), np.nan)
    for i, image in enumerate(np.floor(images[: rows * columns])):
        top, left = 9 * (i // columns), 9 * (i % columns)
        canvas[top : top + 8, left : left + 8] = image.reshape(8, 8)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
    axes.set(title=title)
    axes.set_axis_off()


def beside_test_images(name: str) -> Figure:
    """Draws of a model at the left, test images at the right."""
    figure, axes = panels(1, 2, 1.85, gridspec_kw={"wspace": 0.08})
    show_digits(axes[0, 0], drawn(name), 9, "draws of the model")
    show_digits(axes[0, 1], datasets.digits("test").images[:N_IMAGES], 9, "test digits")
    return figure


@drawing(
    "digits-tables",
    "Two grids of 36 handwritten digits: draws of the mixture of tables, which are grainy, and test pictures.",
)
def tables() -> Figure:
    """Draws of the mixture of tables."""
    return beside_test_images("digits-tables")


@drawing(
    "digits-vae", "Two grids of 36 handwritten digits: draws of the VAE, and test pictures; a few draws are no digit."
)
def vae() -> Figure:
    """Draws of the VAE."""
    return beside_test_images("digits-vae")


@drawing("digits-ddpm", "Two grids of 36 handwritten digits: draws of the diffusion model, and test pictures.")
def ddpm() -> Figure:
    """Draws of the DDPM."""
    return beside_test_images("digits-ddpm")


@drawing("digits-sde", "Two grids of 36 handwritten digits: draws of the score model, and test pictures.")
def sde() -> Figure:
    """Draws of the score SDE."""
    return beside_test_images("digits-sde")
