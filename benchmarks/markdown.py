"""Prints measured tables, and writes them into a hand-written file."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from scratchgen.models.files import write_atomically

Suite = Generator[str, None, Any]  # yields Markdown line by line, returns the measurements
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def replace_table(path: Path, table: str) -> None:
    """Write the table between two marks, and keep the rest of the file; missing marks are added."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if BEGIN not in text or END not in text:
        text = f"{text}\n{BEGIN}\n{END}\n".lstrip()
    before, rest = text.split(BEGIN, 1)
    whole = f"{before}{BEGIN}\n{table}\n{END}{rest.split(END, 1)[1]}"
    write_atomically(path, lambda file: file.write(whole.encode()))


def publish(lines: Iterable[str], path: Path | None) -> None:
    """Print each line of a table as soon as it is measured; with a path also replace the table of that file."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(line)
    if path is not None:
        replace_table(path, "\n".join(kept))
