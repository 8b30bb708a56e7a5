"""The printed lines of the tour: titles, trainings, and tables of measured against exact values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.typing import ArrayLike

from scratchgen.models.estimator import Estimator
from scratchgen.models.progress import Progress, shown
from scratchgen.report.text import page_width, say, styled, table

Model = TypeVar("Model", bound=Estimator)


@dataclass(frozen=True)
class Grade:
    """One measured number and its exact value; the grade passes if low <= measured − exact <= high."""

    chapter: str
    quantity: str
    measured: float
    exact: float
    low: float
    high: float
    unit: str = "nats"

    @property
    def name(self) -> str:
        """The quantity, with its unit if that is not nats."""
        return self.quantity if self.unit == "nats" else f"{self.quantity} ({self.unit})"

    @property
    def difference(self) -> float:
        """measured − exact."""
        return self.measured - self.exact

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.low <= self.difference <= self.high

    @property
    def tolerance(self) -> str:
        """The allowed differences, as text."""
        return f"±{self.high:.2g}" if self.low == -self.high else f"{self.low:.2g}…{self.high:.2g}"


def show_title(text: str, equations: str) -> None:
    """Print the title of a chapter and its equations."""
    print(f"\n{styled(text, '1')}")
    for line in equations.splitlines():
        say(f"  {line}")


def train(label: str, model: Model, x: ArrayLike, unit: str) -> Model:
    """Train to the end with a progress bar on a terminal; print the time, and the loss with its unit."""

    def report(progress: Progress) -> str:
        return f"{model._report(progress)} ({unit})"

    for _ in shown(model.train(x), label, report, lines=False, end=lambda text: say(f"  {text}")):
        pass
    return model


def show_grades(grades: Sequence[Grade]) -> None:
    """Print a table of measured and exact values, difference and tolerance."""
    rows = [
        (
            grade.name,
            f"{grade.measured:.5f}",
            f"{grade.exact:.5f}",
            f"{grade.difference:+.1e}",
            grade.tolerance,
            styled("ok", "32") if grade.passed else styled("OUT", "31"),
        )
        for grade in grades
    ]
    heads = ("quantity (nats)", "measured", "exact", "difference", "tolerance", "")
    for line in table(heads, rows, "wrrrrl", page_width() - 2):
        print(f"  {line}", flush=True)
