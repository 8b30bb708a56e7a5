"""Figures of reliability: what was tried, the target, and what was reached."""

from typing import NamedTuple


class Figure(NamedTuple):
    """One line of the table."""

    name: str  # what was tried
    target: str
    reached: str
    held: bool  # whether the target is reached
    weakest: str  # what the figure does not show


def table(figures):
    """The figures as a table in Markdown, with the weakest point of each below."""
    lines = ["| figure | target | reached | held |", "|---|---|---|---|"]
    lines += [f"| {f.name} | {f.target} | {f.reached} | {'yes' if f.held else 'NO'} |" for f in figures]
    lines += ["", "Weakest point of each figure:", ""]
    lines += [f"- {f.name}: {f.weakest}" for f in figures]
    return "\n".join(lines)
