"""The parts of the benchmark, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.quality import ablations, digits, plane, spread
from benchmarks.quality.records import Options, Unit

PARTS: dict[str, tuple[Callable[[Options], Iterator[Unit]], str]] = {
    "digits": (digits.units, "all families: test bits, samples and their metrics, floors; three seeds"),
    "frechet": (spread.units, "where the Fréchet distance of samples comes from; three seeds"),
    "ablations": (ablations.units, "what each choice of the recipe `sde fast` is worth, validation bits"),
    "chains": (ablations.chains, "DDPM: schedule and variance, validation bits, one training"),
    "plane": (plane.units, "KL of every model on sets of the plane, three seeds"),
    "tables": (plane.tables, "nats a column of held-out penguins, three seeds"),
    "canary": (digits.canary, "copies of one training image, two trainings"),
    "curves": (digits.curves, "bits of training and of validation images along two trainings"),
    "times": (digits.times, "test bits of shorter trainings"),
}
