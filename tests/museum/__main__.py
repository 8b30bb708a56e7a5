"""Prints the museum: every bug, where it was seen, the check that finds it and what the check says."""

import unicodedata

from tests.museum.exhibits import UNSEEN, tour


def pad(text: str, width: int) -> str:
    """`text` with blanks up to `width` columns; the bars of ᾱ and β̄ may be characters of their own."""
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    return sum(not unicodedata.combining(character) for character in text)


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(columns, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, tuple("-" * width for width in widths), *rows):
        print("  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    table(("bug", "seen in", "function", "killed by", "residual", "diagnosis"), list(tour()))
    print()
    rows = [(shown.bug, shown.source, shown.function, shown.why) for shown in UNSEEN]
    table(("bug that no row sees", "seen in", "function", "why"), rows)
