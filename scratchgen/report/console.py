"""The console output of the tour: progress while a model trains, and tables of measured against exact values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from scratchgen.models.estimator import Estimator
from scratchgen.models.progress import Progress, shown
from scratchgen.report.text import fill, page_width

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


class PipedConsole(Console):
    """A console that raises BrokenPipeError when the reader of a pipe has closed it."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError; rich would end the process with the status of a failed check."""
        raise BrokenPipeError


class Narrator:
    """Writes to a terminal with progress bars, or plain lines without a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or PipedConsole(highlight=False)
        self.console.width = page_width()

    def say(self, text: str = "") -> None:
        """Print a text, broken between words to the width of the page."""
        self.console.print(fill(text, self.console.width), markup=False, soft_wrap=True)

    def heading(self, text: str, equation: str) -> None:
        """Print the title of a chapter and its equation."""
        self.say()
        self.console.print(text, style="bold", markup=False)
        self.say(f"  {equation}")

    def train(self, label: str, model: Model, x: ArrayLike, unit: str) -> Model:
        """Train to the end with a progress bar on a terminal; print the time, and the loss with its unit."""

        def report(progress: Progress) -> str:
            return f"{model._report(progress)} ({unit})"

        for _ in shown(model.train(x), label, report, lines=False, end=lambda text: self.say(f"  {text}")):
            pass
        return model

    def grades(self, grades: Sequence[Grade]) -> None:
        """Print a table of measured and exact values, difference and tolerance."""
        table = Table(box=None, padding=(0, 0, 0, 2))
        table.add_column("quantity (nats)")
        for title in ("measured", "exact", "difference", "tolerance"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("")
        for grade in grades:
            verdict, style = ("ok", "green") if grade.passed else ("OUT", "bold red")
            table.add_row(
                grade.name,
                f"{grade.measured:.5f}",
                f"{grade.exact:.5f}",
                f"{grade.difference:+.1e}",
                grade.tolerance,
                f"[{style}]{verdict}[/]",
            )
        self.console.print(table)
