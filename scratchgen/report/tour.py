"""The results of a tour: models, grades, likelihoods; and the data that the chapters share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from scratchgen import datasets, likelihood
from scratchgen.grading import NoiseGrade, SampledNoiseGrade
from scratchgen.models.estimator import Estimator
from scratchgen.report.console import Grade, show_grades, show_title, train
from scratchgen.report.text import say
from scratchgen.validation import Array

Model = TypeVar("Model", bound=Estimator)
NOISE_ERROR = "squared error of ε"  # E‖ε − ε̂‖², summed over the columns, which has no unit
TERMS = {  # chapter → the words of its quantities
    "em": "log p_θ is the log-likelihood of a model, a mean over the rows; the ELBO is its lower bound, (7). H is the "
    "entropy of the Gaussian with the moments of the data. The joint KL is the divergence that EM minimises, (10); "
    "after an E-step it is KL(p‖p_θ), that of the model from the data.",
    "vae": "PPCA is the exact optimum of a linear VAE. s² is the variance of the decoder; a latent is active if it is "
    "not the same for all rows. H(p) is the entropy of the data, the least possible −E log p_θ. The gap of q is its KL "
    "divergence from the posterior; the least gap is that of the best Gaussian.",
    "ddpm": "The noise loss is the squared error E‖ε − ε̂‖² of the predicted noise. The Bayes loss is the least that "
    "any network can have. H(p) is the entropy of the data: H(p) ≤ −E log p_θ ≤ −ELBO.",
    "sde": "(34) bounds the KL divergence of the samples from the data (left) by the error of the score (right). If "
    "the score is that of another law q, and sampling starts at the end of q, both sides are equal; here q is four "
    "Gaussians. The flow is the probability flow, an ODE with the marginals of the SDE. Tables are a mixture of "
    "tables, 17 levels for each of 64 pixels, whose log P is exact.",
    "digits": "u is uniform noise on [0, 1), which makes real numbers of the whole levels k. IWAE-64 is a bound with "
    "64 draws of z for each row, tighter than the ELBO. A mixture of histograms is a mixture of tables.",
}


@dataclass
class Tour:
    """Results of a tour, for the figures and metrics.json."""

    seed: int
    quick: bool
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

    def begin(self, chapter: str, title: str, equations: str) -> None:
        """Print the title of a chapter, its equations, and the words of its quantities."""
        show_title(title, equations)
        say(f"\n{TERMS[chapter]}\n")

    def train(self, name: str, label: str, model: Model, x: Array, unit: str = "nats") -> Model:
        """Train a model and keep it under `name`; `unit` is that of its loss."""
        self.models[name] = train(label, model, x, unit)
        return model

    def grade(
        self, chapter: str, quantity: str, measured: float, exact: float, low: float, high: float, unit: str = "nats"
    ) -> None:
        """Record one comparison; it passes if low <= measured − exact <= high."""
        self.grades.append(Grade(chapter, quantity, float(measured), float(exact), low, high, unit))

    def of(self, chapter: str) -> list[Grade]:
        """The grades of one chapter."""
        return [grade for grade in self.grades if grade.chapter == chapter]

    def show_grades(self, chapter: str) -> None:
        """Print the table of one chapter."""
        print()
        show_grades(self.of(chapter))

    @property
    def passed(self) -> bool:
        """Whether all differences are within their tolerances."""
        return all(grade.passed for grade in self.grades)

    @property
    def verdict(self) -> str:
        """How many of the differences are within their tolerances."""
        n_passed = sum(grade.passed for grade in self.grades)
        return f"{n_passed} of {len(self.grades)} differences within tolerance"


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
