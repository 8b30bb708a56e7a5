"""Figures of benchmarks/QUALITY.md from the records, without any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.quality.digits import held_out_part, train_part
from benchmarks.quality.records import Record
from benchmarks.quality.samples import as_images
from scratchgen.metrics.distances import nearest_distances
from scratchgen.validation import Array

Records = dict[tuple[str, int], Record]
COLOURS = {"sde": "C0", "ddpm": "C1", "vae": "C2", "tables": "C3", "gmm": "C4", "ppca": "C5", "fa": "C6"}
DPI = 80


def tiled(images: Array, across: int) -> Array:
    """Pictures of 8 × 8 pixels as one, with white lines between them."""
    framed = np.pad(images.reshape(-1, 8, 8), ((0, 0), (0, 1), (0, 1)))
    return framed.reshape(-1, across, 9, 9).swapaxes(1, 2).reshape(-1, 9 * across)[:-1, :-1]


def show(axes: Any, images: Array, across: int, title: str) -> None:
    """A grid of pictures, dark on white."""
    axes.imshow(tiled(images, across), cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
    axes.set_title(title, fontsize="medium")
    axes.axis("off")


def grid(digits: Records, name: str) -> Figure:
    """The first 100 samples, and 100 test images."""
    texts = one(digits, name)["grid"]
    n = len(texts) // 10 * 10
    test = held_out_part().images[np.random.default_rng(0).permutation(360)[:n]]
    figure = Figure((10, 5.2), layout="constrained")
    for axes, images, title in zip(
        figure.subplots(1, 2), (as_images(texts[:n]), test), (f"samples: {name}", "test images"), strict=True
    ):
        show(axes, images, 10, title)
    return figure


def nearest(digits: Records, name: str) -> Figure:
    """The ten samples nearest to a training image, above that image."""
    record = one(digits, name)
    figure = Figure((7, 2.2), layout="constrained")
    rows = as_images(record["nearest"] + record["neighbours"])
    show(figure.subplots(), rows, len(record["nearest"]), f"above: samples of {name}; below: nearest training images")
    return figure


def distances(digits: Records, names: list[str]) -> Figure:
    """Distribution functions of the distance to the nearest training image."""
    figure = Figure((6, 4), layout="constrained")
    axes = figure.subplots()
    curves = {"test images": nearest_distances(held_out_part().images, train_part().images)}
    curves |= {name: np.array(one(digits, name)["distances"]) for name in (*names, "KDE memoriser")}
    for name, values in curves.items():
        style = {"test images": "k-", "KDE memoriser": "r:"}.get(name, "-")
        axes.plot(np.sort(values), np.arange(1, len(values) + 1) / len(values), style, label=name)
    axes.set(xlabel="distance to the nearest training image, levels", ylabel="share of images", ylim=(0, 1))
    axes.legend(fontsize="small")
    return figure


def curves(found: Records) -> Figure:
    """Bits of training and of validation images by step."""
    figure = Figure((6, 4), layout="constrained")
    axes = figure.subplots()
    for i, ((name, _), record) in enumerate(found.items()):
        axes.plot(record["step"], record["validation"], f"C{i}o-", label=f"{name}: validation images")
        axes.plot(record["step"], record["train"], f"C{i}o--", label=f"{name}: training images")
    axes.set(xlabel="steps of training", ylabel="bits a pixel")
    axes.legend(fontsize="small")
    return figure


def times(digits: Records, shorter: Records) -> Figure:
    """Test bits against CPU seconds of training, by family."""
    figure = Figure((6, 4), layout="constrained")
    axes = figure.subplots()
    points: dict[str, list[tuple[float, float]]] = {}
    for (name, _), record in [*digits.items(), *shorter.items()]:
        if record["seconds"] > 0 and "bits" in record and "labels" not in name:
            points.setdefault(name.split()[0], []).append((record["seconds"], record["bits"]))
    for family, values in points.items():
        if family in COLOURS:
            seconds, bits = np.array(sorted(values)).T
            axes.semilogx(seconds, bits, "o-", color=COLOURS[family], label=family, ms=4)
    axes.set(xlabel="CPU seconds of training, one thread", ylabel="test bits a pixel")
    axes.legend(fontsize="small")
    return figure


def one(records: Records, name: str) -> Record:
    """The record of a name that has pictures: that of its first seed."""
    return next(record for (own, _), record in records.items() if own == name and "grid" in record)


def save(folder: Path, drawings: dict[str, Callable[[], Figure]]) -> None:
    """Write figures as PNG."""
    for name, draw in drawings.items():
        draw().savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
