"""The columns of a table that the user of the command line chose, as numbers.

Nothing is dropped or guessed silently.  A cell that is no number, a column of text, and a missing cell for a model that
takes no missing values are errors, which name the line, the column and the option that helps.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from scratchgen.report.sources import Source, is_missing, is_number, number, open_source
from scratchgen.report.text import CommandError
from scratchgen.validation import Array, IntArray

DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")  # 1,234.5
POINTS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d*|[+-]?\d{1,3}(\.\d{3}){2,}")  # 1.234,5 and 1.234.567
DATE = re.compile(r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{2,4})([ T].*)?")  # 2024-01-31, 31.1.2024
FEWEST = 10  # rows beside the first, from which their standard deviations tell whether it is one of them
SHOWN = 6  # names of columns in a message


class Choice(NamedTuple):
    """The columns and the options that the user chose for a table."""

    columns: tuple[str, ...] | None = None  # names to keep, all if None
    drop: tuple[str, ...] = ()
    labels: str | None = None  # name of the column with labels
    weights: str | None = None  # name of the column with weights
    drop_missing: bool = False
    decimal_comma: bool = False


DEFAULT = Choice()


class Frame:
    """Numbers with names of columns; `fit` keeps the names as it keeps those of a data frame."""

    def __init__(self, values: Array, columns: Sequence[str]) -> None:
        self.values, self.columns = values, list(columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.values if dtype is None else self.values.astype(dtype)


class Data(NamedTuple):
    """The chosen columns as numbers."""

    x: Array  # (N, D), NaN for missing cells
    names: tuple[str, ...]  # of the D columns
    named: bool  # whether the names are from the file
    labels: IntArray | None  # (N,), 0, 1, ...
    classes: tuple[str, ...]  # value of every label
    weights: Array | None  # (N,), of the rows
    lines: Sequence[int] | None  # line in the file of every row
    about: str  # one sentence about the table

    def take(self, rows: IntArray) -> Data:
        """The table with these rows only."""
        return self._replace(
            x=self.x[rows],
            labels=None if self.labels is None else self.labels[rows],
            weights=None if self.weights is None else self.weights[rows],
            lines=None if self.lines is None else [self.lines[row] for row in rows],
        )


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
        Names of the columns of a model, taken in this order from a table with names; `about` lists the others.
    """
    source = open_source(text)
    by_name = bool(known) and choice.columns is None and source.named
    if by_name:
        choice = choice._replace(columns=tuple(known))
    names = _chosen(source, choice)
    x = _numbers(source, names, choice.decimal_comma)
    labels, classes = _labels(source, choice) if choice.labels is not None else (None, ())
    weights = _weights(source, choice) if choice.weights is not None else None
    data, about = Data(x, names, source.named, labels, classes, weights, source.lines, ""), source.about
    ignored = [name for name in source.columns if name not in (*names, choice.labels, choice.weights, *choice.drop)]
    if by_name and ignored:
        about += f"; left out: {listed(ignored)}"
    if not source.named and source.lines is not None and _is_far_from_others(x):
        first = ", ".join(str(source.columns[name][0]).strip() for name in names)
        about += (
            f"; line {source.lines[0]}, {first[:60]!r}, was read as a row, and is far from all others: if it holds "
            "names, let them begin with a letter, such as y2019"
        )
    gaps = np.isnan(x)
    if choice.drop_missing:
        keep = ~gaps.any(axis=1) & (True if weights is None else ~np.isnan(weights))
        keep &= True if labels is None else labels >= 0
        data = data.take(np.flatnonzero(keep))
        n_left = int((~keep).sum())
        about += f"; {n_left} row{'s' * (n_left != 1)} with missing cells left out" if n_left else ""
        if not keep.any():
            raise CommandError(f"{source.name}: every row has a missing cell; leave out columns with --drop NAME")
    elif gaps.any() and not missing:
        n, d = np.argwhere(gaps)[0]
        incomplete = gaps.any(axis=1).sum()
        raise CommandError(
            f"{source.name}: {source.place(n)} has no value in column {names[d]!r}; {incomplete} of {len(x)} rows have "
            f"a missing cell: leave them out with --drop-missing, or a column with --drop {option([names[d]])}, or fit "
            "ppca, or gmm with covariance_type=full, which take missing cells"
        )
    elif gaps.any():
        about += f"; {gaps.sum()} missing cells"
    return data._replace(about=f"{source.name}: {size_of(data.x)}{about}")


def _is_far_from_others(x: Array) -> bool:
    """Whether the first row of x, (N, D), is more than 10 standard deviations of the others off in every column."""
    first, others = x[0], x[1:]
    if len(others) < FEWEST or np.isnan(others).all(axis=0).any():
        return False
    return bool((np.abs(first - np.nanmean(others, axis=0)) > 10 * np.nanstd(others, axis=0)).all())


def size_of(x: Array) -> str:
    """Number of rows and columns in words."""
    return ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in zip(x.shape, ("row", "column"), strict=True))


def _chosen(source: Source, choice: Choice) -> tuple[str, ...]:
    """Names of the columns to read."""
    for name in (*(choice.columns or ()), *choice.drop, choice.labels, choice.weights):
        if name is None:
            continue
        if name not in source.columns:
            near = get_close_matches(name, source.columns, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {listed(list(source.columns))}"
            raise CommandError(f"{source.name} has no column {name!r}; {hint}")
    left_out = {*choice.drop, choice.labels, choice.weights, *source.extra}
    names = tuple(name for name in choice.columns or source.columns if name not in left_out)
    if not names:
        raise CommandError(f"{source.name}: no column is left; choose from {listed(list(source.columns))}")
    unnamed = [name for name in names if name.startswith("unnamed_")]
    if unnamed and choice.columns is None:
        raise CommandError(
            f"{source.name}: the header has no name for column {list(source.columns).index(unnamed[0]) + 1}, which may "
            f"be a row number; leave it out with --drop {option(unnamed)}, or choose with --columns"
        )
    return names


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are in all."""
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
    columns, texts = [], dict[str, str]()
    for name in names:
        cells = source.columns[name]
        wrong = _wrong_cells(cells, decimal_comma)
        if 2 * len(wrong) > len(cells):
            texts[name] = cells[wrong[0]].strip()
        elif wrong:
            advice = _advice_on_number(cells[wrong[0]], decimal_comma) or _advice_on_text(cells[wrong[0]])
            raise CommandError(f"{source.name}: {source.place(wrong[0])}, column {name!r}: {advice}")
        elif isinstance(cells, np.ndarray):
            columns.append(cells)
        else:
            columns.append(np.array([number(cell, decimal_comma) for cell in cells]))
    if texts:
        raise _error_of_texts(source.name, names, texts, decimal_comma)
    x = np.stack(columns, axis=1)
    infinite = np.argwhere(np.isinf(x))
    if len(infinite):
        n, d = infinite[0]
        raise CommandError(f"{source.name}: {source.place(n)}, column {names[d]!r} is {x[n, d]}; write a finite number")
    return x


def _wrong_cells(cells: Array | Sequence[str], decimal_comma: bool) -> list[int]:
    """Places of the cells of a column that are neither numbers nor missing."""
    if isinstance(cells, np.ndarray):
        return []
    return [n for n, cell in enumerate(cells) if not is_number(cell, decimal_comma) and not is_missing(cell)]


def _error_of_texts(table: str, names: Sequence[str], texts: dict[str, str], decimal_comma: bool) -> CommandError:
    """The error for columns that hold text; `texts` has a value of each of them."""
    for name, value in texts.items():
        if advice := _advice_on_number(value, decimal_comma):  # before any other text: this is none
            return CommandError(f"{table}: column {name!r}: {advice}")
    name, value = next(iter(texts.items()))
    others = [name for name in names if name not in texts]
    them = "it" if len(texts) == 1 else f"the {len(texts)} columns of text"
    what, write = ("dates", "write days since the first") if DATE.fullmatch(value) else ("text", "write some")
    return CommandError(
        f"{table}: column {name!r} holds {what}, such as {value[:40]!r}; models need numbers: {write}, "
        f"or leave {them} out with --drop {option(list(texts))}"
        + (f", or choose with --columns {option(others[:SHOWN])}" if others else "")
    )


def _advice_on_number(cell: str, decimal_comma: bool) -> str:
    """The remedy for a number whose points or commas are not read; empty for other cells."""
    cell = cell.strip()
    if POINTS.fullmatch(cell):
        comma = ", and pass --decimal-comma" if "," in cell and not decimal_comma else ""
        return f"{cell!r} has a point that separates thousands; save the table without such points{comma}"
    if decimal_comma and is_number(cell):
        return (
            f"{cell!r} has a point; if it separates thousands, save the table without it; if it is the decimal sign, "
            "leave --decimal-comma out, or write commas in this column too"
        )
    if THOUSANDS.fullmatch(cell):
        decimal = "if it is the decimal sign, pass --decimal-comma; " if DECIMAL_COMMA.fullmatch(cell) else ""
        return f"{cell!r} has a comma; {decimal}if it separates thousands, save the table without it"
    if DECIMAL_COMMA.fullmatch(cell):
        return f"{cell!r} has a comma; pass --decimal-comma if it is the decimal sign"
    return ""


def _advice_on_text(cell: str) -> str:
    return f"{cell.strip()[:40]!r} is no number; mend the cell, or leave it empty and pass --drop-missing"


def _weights(source: Source, choice: Choice) -> Array:
    """The weights of the rows, (N,); NaN for a missing one if `choice` leaves such rows out."""
    name = str(choice.weights)
    weights = _numbers(source, [name], choice.decimal_comma)[:, 0]
    wrong = np.flatnonzero((weights < 0) | (np.isnan(weights) & (not choice.drop_missing)))
    if len(wrong):
        n = wrong[0]
        value, hint = ("no", ", or pass --drop-missing") if np.isnan(weights[n]) else ("a negative", "")
        raise CommandError(
            f"{source.name}: {source.place(n)} has {value} weight in column {name!r}; write a number >= 0{hint}"
        )
    return weights


def _labels(source: Source, choice: Choice) -> tuple[IntArray, tuple[str, ...]]:
    """Labels 0, 1, ... of a column, in the order of its sorted values, and these values.

    A missing label is −1 if `choice` leaves such rows out.
    """
    name = str(choice.labels)
    cells = source.columns[name]
    values = [f"{cell:g}" if isinstance(cell, float) else cell.strip() for cell in cells]
    for n, value in enumerate(values):
        if is_missing(value) and not choice.drop_missing:
            raise CommandError(
                f"{source.name}: {source.place(n)} has no label in column {name!r}; fill it, or pass --drop-missing"
            )
    found = {value for value in values if not is_missing(value)}
    numbers = all(map(is_number, found))
    classes = sorted(found, key=lambda value: (float(value), value)) if numbers else sorted(found)
    if len(classes) == len(values) or len(classes) < 2:
        raise CommandError(
            f"{source.name}: column {name!r} has {len(classes)} different values in {len(values)} rows; labels are two "
            "or more classes with several rows each"
        )
    index = {value: code for code, value in enumerate(classes)}
    return np.array([index.get(value, -1) for value in values]), tuple(classes)
