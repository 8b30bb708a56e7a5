"""Tables of numbers from .csv, .tsv, .npy and .npz files, and the bundled data sets, for the command line.

Nothing is dropped or guessed silently: a cell that is no number, a column of text and a ragged row are errors, which
name the line, the column and the option that helps.
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
from typing import Any, NamedTuple

import numpy as np

from scratchgen.report.bundled import BUNDLED
from scratchgen.report.text import CommandError
from scratchgen.validation import Array, IntArray

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # cells without a value, in small letters
DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
DAMAGED = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)  # errors of numpy.load
SHOWN = 6  # names of columns in a message

Cells = Sequence[str] | Array  # of one column


class Choice(NamedTuple):
    """What the user chose of a table."""

    columns: tuple[str, ...] | None = None  # names to keep, all if None
    drop: tuple[str, ...] = ()
    labels: str | None = None  # name of the column with labels
    drop_missing: bool = False
    decimal_comma: bool = False
    seed: int = 0  # of bundled data that are drawn


DEFAULT = Choice()


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


class Data(NamedTuple):
    """The chosen columns as numbers."""

    x: Array  # (N, D), NaN for missing cells
    names: tuple[str, ...]  # of the D columns
    named: bool  # whether the names are from the file
    labels: IntArray | None  # (N,), 0, 1, ...
    classes: tuple[str, ...]  # value of every label
    lines: Sequence[int] | None  # line in the file of every row
    about: str  # one sentence about the table


def read(text: str, choice: Choice = DEFAULT, missing: bool = False, known: Sequence[str] = ()) -> Data:
    """Read the table that `text` names and choose its columns; CommandError with the remedy for a wrong one.

    Parameters
    ----------
    text : str
        A file, `file.npz:member` or the name of a bundled data set.
    choice : Choice
    missing : bool
        Whether missing cells are returned as NaN; otherwise they are an error.
    known : sequence of str
        Names of the columns of a model, which are taken in this order from a table with names.
    """
    source = open_source(text, choice.seed)
    if known and choice.columns is None and source.named:
        choice = choice._replace(columns=tuple(known))
    names = _chosen(source, choice)
    x = _numbers(source, names, choice.decimal_comma)
    labels, classes = _labels(source, choice.labels) if choice.labels is not None else (None, ())
    lines, about = source.lines, source.about
    gaps = np.isnan(x)
    if choice.drop_missing and gaps.any():
        keep = ~gaps.any(axis=1)
        x, labels = x[keep], labels if labels is None else labels[keep]
        lines = None if lines is None else [line for line, kept in zip(lines, keep, strict=True) if kept]
        about += f"; {(~keep).sum()} rows with missing cells left out"
        if not len(x):
            raise CommandError(f"{source.name}: every row has a missing cell; leave out columns with --drop NAME")
    elif gaps.any() and not missing:
        n, d = np.argwhere(gaps)[0]
        incomplete = gaps.any(axis=1).sum()
        raise CommandError(
            f"{source.name}: {source.place(n)} has no value in column {names[d]!r}; {incomplete} of {len(x)} rows have "
            f"a missing cell: leave them out with --drop-missing, or a column with --drop {option([names[d]])}"
        )
    elif gaps.any():
        about += f"; {gaps.sum()} missing cells"
    return Data(x, names, source.named, labels, classes, lines, f"{source.name}: {size_of(x)}{about}")


def size_of(x: Array) -> str:
    """Number of rows and columns in words."""
    return ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in zip(x.shape, ("row", "column"), strict=True))


def open_source(text: str, seed: int = 0) -> Source:
    """The table that `text` names, as it stands in the file."""
    file, colon, member = text.rpartition(":")
    if colon and file.lower().endswith(".npz"):
        return _npz(file, member)
    if text in BUNDLED:
        return _bundled(text, seed)
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
    raise CommandError(f"{text} must end in .csv, .tsv, .npy or .npz; save the table in one of these forms")


# --- the kinds of files ----------------------------------------------------------------------------------------------


def _bundled(name: str, seed: int) -> Source:
    found = BUNDLED[name]
    x, labels = found.make(found.n, seed)
    columns: dict[str, Cells] = dict(zip(found.names, x.T, strict=True))
    about = f", drawn with seed {seed}" if found.drawn else ""
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
        if not member and len(archive.files) != 1:
            raise CommandError(f"{file} has the members {names}; choose one: {file}:{(archive.files or ['x'])[0]}")
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
    delimiter = "\t" if tab else _delimiter(text)
    rows, lines, comments = _rows(file, text, delimiter)
    if not rows:
        raise CommandError(f"{file} is empty; write a line of names, and a line of numbers for each example")
    named = not all(_is_number(cell) or _is_missing(cell) for cell in rows[0])
    if named:
        names, rows, lines = _unique([cell.strip() for cell in rows[0]], file), rows[1:], lines[1:]
    elif comments and len(comments[-1]) == len(rows[0]) > 1:  # numpy.savetxt writes names like this
        names, named = _unique([cell.strip("# ") for cell in comments.pop()], file), True
    else:
        names = [f"x{d}" for d in range(len(rows[0]))]
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
        try:
            lengths = {len(row) for row in csv.reader(lines, delimiter=delimiter)}
        except csv.Error:
            continue
        if len(lengths) == 1 and max(lengths) > 1:
            return delimiter
    first = lines[0] if lines else ""
    return max(DELIMITERS, key=lambda delimiter: (first.count(delimiter), delimiter == ","))


def _unique(names: list[str], file: str) -> list[str]:
    """The names of a header, with unnamed_0 for an empty one; CommandError if a name occurs twice."""
    names = [name or f"unnamed_{d}" for d, name in enumerate(names)]
    for name in names:
        if names.count(name) > 1:
            raise CommandError(f"{file}: the header has {name!r} twice; give every column a name of its own")
    return names


# --- the choice of columns -------------------------------------------------------------------------------------------


def _chosen(source: Source, choice: Choice) -> tuple[str, ...]:
    """Names of the columns to read."""
    for name in (*(choice.columns or ()), *choice.drop, *([choice.labels] if choice.labels is not None else [])):
        if name not in source.columns:
            near = get_close_matches(name, source.columns, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {_listed(list(source.columns))}"
            raise CommandError(f"{source.name} has no column {name!r}; {hint}")
    left_out = {*choice.drop, choice.labels, *source.extra}
    names = tuple(name for name in choice.columns or source.columns if name not in left_out)
    if not names:
        raise CommandError(f"{source.name}: no column is left; choose from {_listed(list(source.columns))}")
    unnamed = [name for name in names if name.startswith("unnamed_")]
    if unnamed and choice.columns is None:
        raise CommandError(
            f"{source.name}: the header has no name for column {list(source.columns).index(unnamed[0]) + 1}, which may "
            f"be a row number; leave it out with --drop {option(unnamed)}, or choose with --columns"
        )
    return names


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def joined(names: Sequence[str]) -> str:
    """Names in one text, as --columns reads them: a name with a comma stands in double quotes."""
    return ",".join(f'"{name}"' if "," in name else name for name in names)


def option(names: Sequence[str]) -> str:
    """Names as they are typed in a shell."""
    return shlex.quote(joined(names))


def _numbers(source: Source, names: Sequence[str], decimal_comma: bool) -> Array:
    """The named columns as numbers, (N, D)."""
    columns, texts = [], list[tuple[str, str]]()
    for name in names:
        cells = source.columns[name]
        if isinstance(cells, np.ndarray):
            columns.append(cells)
            continue
        wrong = [n for n, cell in enumerate(cells) if not _is_number(cell, decimal_comma) and not _is_missing(cell)]
        if 2 * len(wrong) > len(cells):
            texts.append((name, cells[wrong[0]].strip()))
        elif wrong:
            raise CommandError(f"{source.name}: {source.place(wrong[0])}, column {name!r}: {_advice(cells[wrong[0]])}")
        else:
            columns.append(np.array([_number(cell, decimal_comma) for cell in cells]))
    if texts:
        name, value = texts[0]
        if re.fullmatch(r"[+-]?\d+,\d+", value):
            raise CommandError(f"{source.name}: column {name!r}: {_advice(value)}")
        every = [name for name, _ in texts]
        others = [name for name in names if name not in every]
        raise CommandError(
            f"{source.name}: column {name!r} holds text, such as {value[:40]!r}; models need numbers: leave "
            f"{'it' if len(texts) == 1 else f'the {len(texts)} columns of text'} out with --drop {option(every)}"
            + (f", or choose with --columns {option(others[:SHOWN])}" if others else "")
        )
    x = np.stack(columns, axis=1)
    infinite = np.argwhere(np.isinf(x))
    if len(infinite):
        n, d = infinite[0]
        raise CommandError(f"{source.name}: {source.place(n)}, column {names[d]!r} is {x[n, d]}; write a finite number")
    return x


def _advice(cell: str) -> str:
    cell = cell.strip()
    if re.fullmatch(r"[+-]?\d+,\d+", cell):
        return f"{cell!r} has a comma; pass --decimal-comma if it is the decimal sign"
    return f"{cell[:40]!r} is no number; mend the cell, or leave it empty and pass --drop-missing"


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _is_number(cell: str, decimal_comma: bool = False) -> bool:
    try:
        _number(cell, decimal_comma)
    except ValueError:
        return False
    return not _is_missing(cell)


def _number(cell: str, decimal_comma: bool) -> float:
    """A cell as a number, NaN for a missing one; ValueError for text."""
    if _is_missing(cell):
        return float("nan")
    if "_" in cell:  # Python reads 1_000 as a number, and other programs do not
        raise ValueError(cell)
    return float(cell.replace(",", ".") if decimal_comma else cell)


def _labels(source: Source, name: str) -> tuple[IntArray, tuple[str, ...]]:
    """Labels 0, 1, ... of a column, in the order of its sorted values, and these values."""
    cells = source.columns[name]
    values = [f"{cell:g}" if isinstance(cell, float) else cell.strip() for cell in cells]
    for n, value in enumerate(values):
        if _is_missing(value):
            raise CommandError(
                f"{source.name}: {source.place(n)} has no label in column {name!r}; fill it or drop the row"
            )
    numeric = all(map(_is_number, values))
    classes = sorted(set(values), key=float) if numeric else sorted(set(values))
    if len(classes) == len(values) or len(classes) < 2:
        raise CommandError(
            f"{source.name}: column {name!r} has {len(classes)} different values in {len(values)} rows; labels are two "
            "or more classes with several rows each"
        )
    index = {value: code for code, value in enumerate(classes)}
    return np.array([index[value] for value in values]), tuple(classes)
