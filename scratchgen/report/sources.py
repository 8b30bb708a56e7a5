"""Tables as they stand in .csv, .tsv, .npy and .npz files and in the bundled data sets, for the command line.

Nothing is dropped or guessed silently: a ragged row, an open quote and a wrong encoding are errors with the remedy.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen.report.bundled import BUNDLED
from scratchgen.report.text import CommandError
from scratchgen.validation import Array

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # cells without a value, in small letters
DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
DAMAGED = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)  # errors of numpy.load

Cells = Sequence[str] | Array  # of one column


@dataclass(frozen=True)
class Source:
    """A table as it stands in a file."""

    name: str
    columns: dict[str, Cells]  # by name: text from a .csv, numbers otherwise
    named: bool  # whether the names are from the file; otherwise they are x0, x1, ...
    lines: Sequence[int] | None  # line in the file of every row; None where a file has no lines
    about: str = ""  # what else is said about the file
    extra: tuple[str, ...] = ()  # columns that only --labels takes

    def place(self, row: int) -> str:
        """A row as the user finds it."""
        return f"line {self.lines[row]}" if self.lines is not None else f"row {row} (the first is 0)"


def open_source(text: str) -> Source:
    """The table that `text` names, as it stands in the file."""
    file, colon, member = text.rpartition(":")
    if colon and file.lower().endswith(".npz"):
        return _npz(file, member)
    if text in BUNDLED:
        return _bundled(text)
    suffix = Path(text).suffix.lower()
    if not Path(text).exists():
        near = get_close_matches(text, BUNDLED, n=1)
        guess = f"did you mean {near[0]}?" if near else f"bundled data sets are {', '.join(BUNDLED)}"
        what = "file" if suffix else "file and no bundled data set"
        raise CommandError(
            f"there is no {what} {text}; " + (guess if not suffix or near else "look for a wrong folder")
        )
    if Path(text).is_dir():
        raise CommandError(f"{text} is a folder; name a .csv, .tsv, .npy or .npz file")
    try:
        match suffix:
            case ".csv" | ".tsv":
                return _csv(text)
            case ".npy":
                return _array(text, _load_numpy(text))
            case ".npz":
                return _npz(text, "")
    except PermissionError:
        raise CommandError(f"{text} may not be read; change its permissions") from None
    remedy = (
        f"unpack it with: gunzip -k {shlex.quote(text)}" if suffix == ".gz" else "save the table in one of these forms"
    )
    raise CommandError(f"{text} must end in .csv, .tsv, .npy or .npz; {remedy}")


# --- the kinds of files ----------------------------------------------------------------------------------------------


def _bundled(name: str) -> Source:
    found = BUNDLED[name]
    x, labels = found.make(found.n, 0)
    columns: dict[str, Cells] = dict(zip(found.names, x.T, strict=True))
    about = ", drawn with seed 0" if found.drawn else ""
    if labels is not None:
        columns[found.label] = labels.astype(np.float64)
    return Source(name, columns, True, None, about, (found.label,) if found.label else ())


def _load_numpy(file: str) -> Any:
    try:
        return np.load(io.BytesIO(Path(file).read_bytes()), allow_pickle=False)  # no file stays open after an error
    except PermissionError:
        raise
    except DAMAGED:
        raise CommandError(
            f"{file} is damaged or no NumPy file of numbers; save numbers with numpy.save or numpy.savez"
        ) from None


def _npz(file: str, member: str) -> Source:
    if not Path(file).exists():
        raise CommandError(f"there is no file {file}; look for a wrong folder")
    archive = _load_numpy(file)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise CommandError(f"{file} is an .npy file by its content; rename it to .npy")
    with archive:
        if "header" in archive.files and "n_features_in_" in archive.files:
            raise CommandError(f"{file} is a model, not data; scratchgen info {file} shows it")
        names = ", ".join(archive.files)
        if not names:
            raise CommandError(f"{file} holds no arrays; save numbers with numpy.savez")
        if not member and len(archive.files) != 1:
            raise CommandError(f"{file} has the members {names}; choose one: {file}:{archive.files[0]}")
        member = member or archive.files[0]
        if member not in archive.files:
            raise CommandError(f"{file} has no member {member}; it has {names}")
        try:
            return _array(f"{file}:{member}", archive[member])
        except DAMAGED:
            raise CommandError(f"{file}:{member} is damaged or no numbers; save numbers with numpy.savez") from None


def _array(name: str, array: Any) -> Source:
    if not isinstance(array, np.ndarray):
        raise CommandError(f"{name} is an .npz file by its content; rename it to .npz")
    if array.dtype.kind not in "biuf":
        raise CommandError(f"{name} holds {array.dtype}, not numbers; save it with x.astype(float)")
    if array.ndim != 2:
        rows = array.shape[0] if array.ndim > 2 else -1
        columns = int(np.prod(array.shape[1:])) if array.ndim > 2 else 1
        raise CommandError(
            f"{name} has the shape {array.shape}, but a table has a row for each example and a column for each number; "
            f"save x.reshape({rows}, {columns})"
        )
    if not len(array):
        raise CommandError(f"{name} has no rows; save an array of the shape (rows, columns)")
    x = array.astype(np.float64)
    return Source(name, {f"x{d}": column for d, column in enumerate(x.T)}, False, None)


def _csv(file: str) -> Source:
    text = _decode(file)
    tab = file.lower().endswith(".tsv")
    text, stated = _without_sep(text)
    delimiter = stated or ("\t" if tab else _delimiter(text))
    rows, lines, comments = _rows(file, text, delimiter)
    if not rows:
        raise CommandError(f"{file} is empty; write a line of names, and a line of numbers for each example")
    named = not all(is_number(cell) or is_number(cell, True) or is_missing(cell) for cell in rows[0])
    if named:
        names, rows, lines = _unique([cell.strip() for cell in rows[0]], file), rows[1:], lines[1:]
    elif comments and len(comments[-1]) == len(rows[0]) > 1:  # numpy.savetxt writes names like this
        names, named = _unique([cell.strip("# ") for cell in comments.pop()], file), True
    else:
        names = [f"x{d}" for d in range(len(rows[0]))]
    _check_delimiter(file, rows, lines)
    if not rows:
        raise CommandError(f"{file} has a header but no rows; write a line of numbers for each example below it")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            first = "the header" if named else f"line {lines[0]}"
            raise CommandError(
                f"{file}: line {line} has {len(row)} cells, but {first} has {len(names)} (separated by "
                f"{DELIMITERS[delimiter]}); mend the line, or put text with {DELIMITERS[delimiter]} in double quotes"
            )
    about = "" if named else ", no header line"
    about += f", comment lines skipped: {len(comments)}" if comments else ""
    return Source(file, dict(zip(names, zip(*rows, strict=True), strict=True)), named, lines, about)


def _decode(file: str) -> str:
    """Text of a file in UTF-8, or in UTF-16 with its mark."""
    content = Path(file).read_bytes()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise CommandError(f"{file} is no text; save the table as .csv in UTF-8") from None
        line = content[: error.start].count(b"\n") + 1
        raise CommandError(
            f"{file} is not in UTF-8 (line {line}); save it as UTF-8, or run: "
            f"iconv -f latin1 -t utf-8 {shlex.quote(file)} > utf8.csv"
        ) from None
    if "\0" in text:
        raise CommandError(f"{file} has NUL bytes: it is no text, or in UTF-16 without its mark; save it as UTF-8")
    return text


def _rows(file: str, text: str, delimiter: str) -> tuple[list[list[str]], list[int], list[list[str]]]:
    """Rows of cells, the line of each, and the rows of comments, which begin with # and a letter or a space."""
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
    rows, lines, comments = list[list[str]](), list[int](), list[list[str]]()
    try:
        for row in reader:
            if row and re.match(r"#[\w\s#!]", row[0]):
                comments.append(row)
            elif row and row != [""]:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise CommandError(
            f"{file}: the double quotes do not match at or before line {reader.line_num} ({error}); close each, and "
            "double those inside a cell"
        ) from None
    return rows, lines, comments


def _delimiter(text: str) -> str:
    """Tab, semicolon or comma: the first that divides all of the first lines into the same number of cells."""
    lines = [line for line in text[: 2**16].splitlines()[:50] if line.strip() and not line.startswith("#")]
    if len(text) > 2**16 and len(lines) > 1:
        lines.pop()  # it may be cut
    for delimiter in DELIMITERS:
        lengths = {len(row) for row in csv.reader(lines, delimiter=delimiter)}
        if len(lengths) == 1 and max(lengths) > 1:
            return delimiter
    first = lines[0] if lines else ""
    return max(DELIMITERS, key=lambda delimiter: (first.count(delimiter), delimiter == ","))


def _without_sep(text: str) -> tuple[str, str]:
    """The text, and the delimiter that its first line states as `sep=;`, a form of Excel; that line becomes empty."""
    found = re.match(r"sep=([\t;,])(?=\r?\n)", text)
    return (text[found.end() :], found[1]) if found else (text, "")


def _check_delimiter(file: str, rows: list[list[str]], lines: list[int]) -> None:
    """CommandError if the only cell of the first row of data is several numbers with another character between them."""
    parts = re.split(r"[\s|]+", rows[0][0].strip()) if rows and len(rows[0]) == 1 else []
    if len(parts) > 1 and all(map(is_number, parts)):
        raise CommandError(
            f"{file}: line {lines[0]} is one cell, {rows[0][0][:40]!r}; write commas, semicolons or tabs between the "
            "numbers"
        )


def _unique(names: list[str], file: str) -> list[str]:
    """The names of a header, with unnamed_0 for an empty one; CommandError if a name occurs twice."""
    names = [name or f"unnamed_{d}" for d, name in enumerate(names)]
    for name in names:
        if names.count(name) > 1:
            raise CommandError(f"{file}: the header has {name!r} twice; give every column a name of its own")
    return names


# --- cells ------------------------------------------------------------------------------------------------------------


def is_missing(cell: str) -> bool:
    """Whether a cell stands for no value."""
    return cell.strip().lower() in MISSING


def is_number(cell: str, decimal_comma: bool = False) -> bool:
    """Whether a cell is a number, and not missing."""
    try:
        number(cell, decimal_comma)
    except ValueError:
        return False
    return not is_missing(cell)


def number(cell: str, decimal_comma: bool) -> float:
    """A cell as a number, NaN for a missing one; ValueError for text, and for a point beside decimal commas."""
    if is_missing(cell):
        return float("nan")
    if "_" in cell:  # Python reads 1_000 as a number, and other programs do not
        raise ValueError(cell)
    if decimal_comma and "." in cell:  # 1.446 is 1446 where the comma is the decimal sign
        raise ValueError(cell)
    return float(cell.replace(",", ".") if decimal_comma else cell)
