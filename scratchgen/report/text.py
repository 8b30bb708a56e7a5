"""Text for terminals: paragraphs and tables of a given width, and ASCII for outputs that cannot show other letters."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any, NoReturn

SIGNS = {
    "−": "-", "–": "-", "…": "...", "‖": "||", "∇": "grad ", "Σ": "sum", "Π": "prod", "∫": "int", "∂": "d", "√": "sqrt",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "·": "*", "∗": "*", "×": "x", "÷": "/", "±": "+-", "∞": "inf",
    "→": "->", "←": "<-", "∘": "o", "⊙": "*", "∈": " in ", "⪰": ">=", "⌊": "floor(", "⌋": ")", "∼": "~", "∝": "~",
    "⋯": "...", "′": "'", "ø": "o", "λ": "lambda", "Λ": "Lambda", "⁄": "/", "‘": "'", "’": "'", "“": '"', "”": '"',
    "\u0302": "_hat", "\u0303": "_tilde", "\u0304": "_bar",
}  # fmt: skip


def in_ascii(character: str) -> str:
    """The nearest ASCII text of one character: "<=" for ≤, "beta" for β, "e" for é, "?" for unknown ones."""
    if character.isascii():
        return character
    if character in SIGNS:
        return SIGNS[character]
    parts = unicodedata.normalize("NFKD", character)
    if parts != character:
        power = "^" if unicodedata.decomposition(character).startswith("<super>") else ""
        return power + "".join(map(in_ascii, parts))
    if unicodedata.combining(character):
        return ""
    words = unicodedata.name(character, "").split(" LETTER ")
    return words[1].split()[0].lower() if words[0].startswith("GREEK") and len(words) == 2 else "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Handler of encoding errors: ASCII for the characters that the output cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(in_ascii, error.object[error.start : error.end])), error.end


def show_any_text() -> None:
    """Let standard output and errors print every text, whatever their encoding is."""
    codecs.register_error("scratchgen", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="scratchgen")


def terminal_width(default: int) -> int:
    """Columns of the terminal or of COLUMNS; `default` for a pipe."""
    return max(shutil.get_terminal_size((default, 24)).columns, 20)


def page_width() -> int:
    """Columns of running text: those of the terminal, at most 80."""
    return min(terminal_width(80), 80)


def say(text: str) -> None:
    """Print a text at once, broken between words to the width of the page."""
    print(fill(text, page_width()), flush=True)


def one_line(message: str) -> str:
    """An error or a warning as one line, which a terminal shows broken between words."""
    line = " ".join(message.split())
    return fill(line, page_width()) if sys.stderr is not None and sys.stderr.isatty() else line


def columns_of(text: str) -> int:
    """Number of columns of a text on the screen; colours and combining characters, as the bar of ᾱ, take none."""
    return sum(not unicodedata.combining(character) for character in re.sub("\x1b\\[\\d*m", "", text))


def fill(text: str, width: int) -> str:
    """Break a text between words; lines without indent are joined to paragraphs, and indented ones stay lines.

    The rest of an indented line hangs by two more columns, or under the text that follows two spaces.
    """
    paragraphs = list[str]()
    for line in text.splitlines():
        if paragraphs and "" not in (line, paragraphs[-1]) and " " not in (line[0], paragraphs[-1][0]):
            paragraphs[-1] += " " + line
        else:
            paragraphs.append(line)
    return "\n".join(_fill_one(paragraph, width) for paragraph in paragraphs)


def _fill_one(line: str, width: int) -> str:
    """Break one paragraph or one indented line."""
    indent = len(line) - len(line.lstrip())
    name = re.match(r"\s+\S.*?\s{2,}(?=\S)", line)
    hanging = name.end() if name and name.end() < width // 2 else indent + 2 * (indent > 0)
    lines = textwrap.wrap(line, width, subsequent_indent=" " * hanging, break_on_hyphens=False, break_long_words=False)
    return "\n".join(lines)


class Help(argparse.HelpFormatter):
    """Help of at most 80 columns that keeps the paragraphs and the indented lines of descriptions."""

    def __init__(self, prog: str) -> None:
        width = page_width()
        super().__init__(prog, max_help_position=min(24, width // 3), width=width)

    def _format_usage(self, *parts: Any) -> str:
        usage = super()._format_usage(*parts)
        if max(map(len, usage.splitlines())) <= self._width:
            return usage
        return textwrap.fill(" ".join(usage.split()), self._width, subsequent_indent="  ") + "\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return fill(text, width)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; its commands are parsers of the same class."""

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line that names the help in place of the whole usage."""
        self.exit(2, one_line(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], align: str, width: int | None = None) -> list[str]:
    """Lines of a table whose cells are at most as wide as the column's widest.

    Parameters
    ----------
    heads, rows : sequences of str
        A cell may have several lines.
    align : str
        A letter for each column: "l", "r", or "w" for the one column that is broken between words to fit `width`.
    width : int, optional
        Columns of the terminal.
    """
    cells = [[cell.split("\n") for cell in row] for row in (heads, *rows)]
    widths = [max(columns_of(line) for row in cells for line in row[i]) for i in range(len(heads))]
    if width is not None and "w" in align:
        i = align.index("w")
        widths[i] = min(widths[i], max(width - sum(widths) + widths[i] - 2 * (len(widths) - 1), 14))
        for row in cells:
            row[i] = [piece for line in row[i] for piece in _wrap(line, widths[i])]
    lines = []
    for row in cells:
        for k in range(max(map(len, row))):
            parts = [cell[k] if k < len(cell) else "" for cell in row]
            padded = [
                " " * (w - columns_of(part)) + part if side == "r" else part + " " * (w - columns_of(part))
                for part, w, side in zip(parts, widths, align, strict=True)
            ]
            lines.append("  ".join(["", *padded])[2:].rstrip())
    return lines


def _wrap(line: str, width: int) -> list[str]:
    """Break a line between words; combining characters take no column, so that textwrap would break too early."""
    lines, current = [], ""
    for word in line.split(" "):
        joined = f"{current} {word}" if current else word
        if current and columns_of(joined) > width:
            lines.append(current)
            current = word
        else:
            current = joined
    return [*lines, current]


def styled(text: str, code: str) -> str:
    """Text in a colour of the terminal, "32" for green; plain without a terminal, with NO_COLOR and TERM=dumb."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


class CommandError(Exception):
    """A wrong use of a command; the text is the whole message, with the remedy."""
