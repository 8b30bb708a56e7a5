"""Source pages and the API."""

from __future__ import annotations

from collections.abc import Iterator


def sources() -> Iterator[tuple[str, str]]:
    """(file, HTML) of every module that the book links to."""
    yield from ()
