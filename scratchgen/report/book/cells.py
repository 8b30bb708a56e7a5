"""The examples of the book, run cell by cell: text, code, and the output of the code, computed now.

An example is a Python file in percent format: "# %%" begins a cell of code, and "# %% [markdown]" one of text in
comments.  Editors and Jupyter open such files as notebooks.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """One cell of an example."""

    kind: str  # "text" or "code"
    source: str  # Markdown without its "# ", or code
    output: str = ""  # what the code prints


def run(path: Path, namespace: dict[str, Any] | None = None) -> Iterator[Cell]:
    """The cells of a file, in their order; the cells of code share one namespace, as in a notebook."""
    namespace = {} if namespace is None else namespace
    line = 0  # of the first line of the cell, so that tracebacks name the lines of the file
    for part in re.split(r"^(?=# %%)", path.read_text("utf8"), flags=re.M):
        mark, _, source = part.partition("\n")
        if mark == "# %% [markdown]":
            yield Cell("text", re.sub("^# ?", "", source, flags=re.M).strip())
        elif mark:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * line + part, str(path), "exec"), namespace)
            yield Cell("code", source.strip(), out.getvalue())
        line += part.count("\n")
