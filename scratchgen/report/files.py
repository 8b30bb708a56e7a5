"""Output files of the commands: checks before the work, and tables as .csv, .npy or on standard output."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from scratchgen.models.files import as_path, write_atomically
from scratchgen.report.text import CommandError
from scratchgen.validation import Array


def check_output(path: Path, suffixes: Sequence[str], force: bool, remedy: str = "--force replaces it") -> None:
    """Raise CommandError unless `path` can be written: before the work, so that no work is lost."""
    endings = ", ".join(suffixes)
    if path.suffix.lower() not in suffixes:
        raise CommandError(f"-o {path} must end in {endings}")
    try:
        as_path(path)
    except (ValueError, OSError) as error:
        raise CommandError(f"-o {error}") from None
    if not path.parent.is_dir():
        raise CommandError(f"-o {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise CommandError(f"-o {path}: the folder {path.parent} may not be written; name a file in another folder")
    if path.exists() and not force:
        raise CommandError(f"{path} exists; {remedy}, or name another file with -o")


def write_file(path: Path, write: Any, force: bool) -> None:
    """Let `write` fill the file; an existing one is replaced only with `force`, also if it appeared meanwhile."""
    try:
        write_atomically(path, write, replace=force)
    except FileExistsError:
        raise CommandError(f"{path} exists; --force replaces it, or name another file with -o") from None


def write_npy(path: Path, rows: Array, force: bool) -> None:
    """Write an array as .npy."""
    write_file(path, lambda file: np.save(file, rows), force)


def write_csv(path: Path | None, names: Sequence[str], rows: Iterable[Sequence[Any]], force: bool) -> None:
    """Write names and rows as CSV, numbers with all of their digits; to standard output for None."""

    def write(file: Any) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)

    def write_bytes(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        write(text)
        text.detach()

    if path is None and sys.stdout is None:
        raise CommandError("standard output is closed; name a file with -o")
    if path is None:
        write(sys.stdout)
    else:
        write_file(path, write_bytes, force)
