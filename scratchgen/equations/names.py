"""The names by which a row can be asked for: number, short name, full name, and name of its function."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from scratchgen.equations.row import Row


def slug_of(row: Row) -> str:
    """The short name of a row: its own, or the words of its name without "a", "the" and "'s", joined by hyphens.

    Examples
    --------
    >>> from scratchgen.equations import EQUATIONS, PROPOSITIONS
    >>> slug_of(EQUATIONS[24]), slug_of(PROPOSITIONS[-1])
    ('forward-marginal', 'em-rate')
    """
    return row.slug or as_slug(row.name)


def as_slug(name: str) -> str:
    """Words in ASCII and in small letters, joined by hyphens; without an article at the start and without "'s"."""
    plain = unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"^(a|an|the) |'s\b", "", plain)).strip("-")


def called(text: str, rows: Sequence[Row]) -> list[Row]:
    """The rows that a text may mean, none, one or several.

    The first of these that fits some row decides: number, "(25)", full name or short name; name of a function,
    "q_sample" or "ddpm.q_sample"; words of the short name, "vae draw".
    """
    name = text.lower().strip()
    words = set(as_slug(text).split("-"))
    exact = [row for row in rows if name in (row.name.lower(), f"({row.name.lower()})", slug_of(row))]
    by_function = [row for row in rows if name in (row.function.lower(), row.function.lower().rpartition(".")[2])]
    by_words = [row for row in rows if words <= set(slug_of(row).split("-"))]
    return exact or by_function or by_words


def similar(text: str, rows: Sequence[Row]) -> list[Row]:
    """At most three rows whose short name or function is spelled like a text, the most similar first."""
    by_spelling = {spelling: row for row in rows for spelling in (slug_of(row), row.function.rpartition(".")[2])}
    found = difflib.get_close_matches(text.lower().replace(" ", "-"), by_spelling, cutoff=0.7)
    return list({by_spelling[spelling].name: by_spelling[spelling] for spelling in found}.values())
