"""The results of a tour: models, grades, likelihoods; and the data that the chapters share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from scratchgen import datasets, likelihood
from scratchgen.grading import NoiseGrade, SampledNoiseGrade
from scratchgen.models.estimator import Estimator
from scratchgen.report.console import Grade, Narrator
from scratchgen.validation import Array

Model = TypeVar("Model", bound=Estimator)


@dataclass
class Tour:
    """Results of a tour, for the figures and metrics.json."""

    seed: int
    quick: bool
    narrator: Narrator
    grades: list[Grade] = field(default_factory=list)
    models: dict[str, Any] = field(default_factory=dict)
    bits_per_dim: dict[str, float] = field(default_factory=dict)
    drawback: dict[str, tuple[float, float]] = field(default_factory=dict)  # KL(p‖p_θ), least gap of a Gaussian q
    noise_grades: dict[str, tuple[Array, list[NoiseGrade]]] = field(default_factory=dict)
    tables_grades: tuple[Array, list[SampledNoiseGrade]] | None = None  # the same against 64-D tables of levels
    ladder: dict[int, tuple[float, float, float]] = field(default_factory=dict)  # T: exact NLL, bound, least bound

    def steps(self, n: int) -> int:
        """Training steps: n, or a fifth of it for a quick tour."""
        return n // 5 if self.quick else n

    @property
    def slack(self) -> float:
        """Factor of the tolerances that depend on training: 1, or 4 for a quick tour."""
        return 4.0 if self.quick else 1.0

    def train(self, name: str, label: str, model: Model, x: Array) -> Model:
        """Train a model and keep it under `name`."""
        self.models[name] = self.narrator.train(label, model, x)
        return model

    def grade(self, chapter: str, quantity: str, measured: float, exact: float, low: float, high: float) -> None:
        """Record one comparison; it passes if low <= measured − exact <= high."""
        self.grades.append(Grade(chapter, quantity, float(measured), float(exact), low, high))

    def show_grades(self, chapter: str) -> None:
        """Print the table of one chapter."""
        self.narrator.grades([grade for grade in self.grades if grade.chapter == chapter])


def standardized_penguins() -> Array:
    """The four penguin measurements, each with mean 0 and variance 1, (342, 4)."""
    measurements = datasets.penguins().measurements
    return (measurements - measurements.mean(axis=0)) / measurements.std(axis=0)


def dequantized_digits(seed: int) -> tuple[Array, Array]:
    """Training (1437, 64) and test (360, 64) digits as continuous data on [0, 17)."""
    x, x_test = levels_of_digits()
    return datasets.dequantize(x, rng=seed), datasets.dequantize(x_test, rng=seed + 1)


def levels_of_digits() -> tuple[Array, Array]:
    """Training (1437, 64) and test (360, 64) digits as whole numbers 0..16."""
    x, x_test = (datasets.digits(split).images for split in ("train", "test"))
    return x, x_test


def digit_options(tour: Tour) -> dict[str, Any]:
    """Arguments of DDPM and ScoreSDE for the digits: a distribution over the 17 levels of every pixel, AdamW."""
    return {
        "n_levels": 17,
        "prediction": "levels",
        "hidden": (256, 256, 256),
        "learning_rate": 3e-3,
        "weight_decay": 1.0,
        "rng": tour.seed,
    }


def bits_per_dim(log_prob: Array) -> float:
    """−mean log p(k + u)/(64 ln 2), an upper bound of the bits −log₂ P(k)/64; from log P(k), the bits themselves."""
    return float(likelihood.bits_per_dim(-log_prob.mean(), 64))
