"""Progress of a training on stderr: a bar with rich on a terminal, about ten plain lines otherwise."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

N_LINES = 10  # of a training without a bar
REFRESH = 0.1  # seconds between two updates of the bar


class Progress(NamedTuple):
    """State of training after a step, as `train` yields it."""

    step: int  # number of steps done
    n_steps: int  # number of planned steps; EM and early stopping may end earlier
    loss: float  # loss of this step; the docstring of each model's `train` defines it


def say_on_stderr(line: str) -> None:
    """Print a line on stderr at once; Windows without a console has no stderr."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def shown(
    steps: Iterable[Progress],
    name: str,
    report: Callable[[Progress], str],
    lines: bool = True,
    end: Callable[[str], None] = say_on_stderr,
) -> Generator[Progress, None, None]:
    """Yield the steps of a training, and show its progress on stderr; a last line has the number of steps and the time.

    After `resume` the last line has the number of steps since, and that of all steps in brackets.

    Parameters
    ----------
    steps : iterable of Progress
        `model.train(x)`.
    name : str
        Name of the model.
    report : Progress → str
        Loss, and validation bound if there is one, as text.
    lines : bool
        Whether there are lines where there is no bar; the last line is always there.
    end : str → None
        Prints the last line.
    """
    began, first, progress = time.monotonic(), 0, None
    show = _with_bar if _has_bar() else _with_lines if lines else None
    for progress in steps if show is None else show(steps, name, report):
        first = first or progress.step
        yield progress
    if progress is not None:
        n = progress.step - first + 1
        steps_done = f"{n}{' more' * (first > 1)} step{'s' * (n != 1)}"
        total = f" ({progress.step} in all)" if first > 1 else ""
        end(f"{name}: {steps_done} in {time.monotonic() - began:.1f} s{total}, {report(progress)}")


def _has_bar() -> bool:
    """Whether stderr is a terminal that can redraw a line, and rich is installed."""
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return terminal and importlib.util.find_spec("rich") is not None


def _with_lines(steps: Iterable[Progress], name: str, report: Callable[[Progress], str]) -> Iterator[Progress]:
    """Yield the steps, and print a line after every tenth part of them, but the last."""
    began, first = time.monotonic(), 0
    for progress in steps:
        step, n_steps, _ = progress
        first = first or step
        if step % -(-n_steps // N_LINES) == 0 and step < n_steps:
            left = (time.monotonic() - began) / (step - first + 1) * (n_steps - step)
            say_on_stderr(f"{name}: step {step} of {n_steps}, {report(progress)}, at most {left:.0f} s left")
        yield progress


def _with_bar(steps: Iterable[Progress], name: str, report: Callable[[Progress], str]) -> Iterator[Progress]:
    """Yield the steps, and let rich draw a bar, which disappears at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task, drawn = bar.add_task(name, total=None), 0.0
        for progress in steps:
            if time.monotonic() - drawn >= REFRESH:
                text = f"{name}: step {progress.step} of {progress.n_steps}, {report(progress)}"
                bar.update(task, completed=progress.step, total=progress.n_steps, description=text)
                drawn = time.monotonic()
            yield progress
