"""The console output of the tour: progress while a model trains, and tables of measured against exact values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from scratchgen.models.estimator import Estimator
from scratchgen.models.progress import shown

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
        self.console = console or PipedConsole(highlight=False, soft_wrap=True)
        if not self.console.is_terminal and "COLUMNS" not in os.environ:
            self.console.width = 100  # a pipe has no width; 100 columns keep each row of a table on one line

    def say(self, text: str = "") -> None:
        """Print one line."""
        self.console.print(text, markup=False)

    def heading(self, text: str, equation: str) -> None:
        """Print the title of a chapter and its equation."""
        self.say()
        self.console.print(text, style="bold", markup=False)
        self.say(f"  {equation}")

    def train(self, label: str, model: Model, x: ArrayLike) -> Model:
        """Train to the end with a progress bar on a terminal; print the time and the loss, as `fit` reports it."""
        for _ in shown(model.train(x), label, model._report, lines=False, end=lambda text: self.say(f"  {text}")):
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
                grade.quantity,
                f"{grade.measured:.5f}",
                f"{grade.exact:.5f}",
                f"{grade.difference:+.1e}",
                grade.tolerance,
                f"[{style}]{verdict}[/]",
            )
        self.console.print(table)
