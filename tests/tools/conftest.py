"""The book, written once for all tests that read it."""

from pathlib import Path

import pytest

from scratchgen.museum import tour
from scratchgen.report import cli
from scratchgen.report.book import cells
from tests.tools.book_pages import Parsed, few_exhibits, few_faults


@pytest.fixture(scope="session")
def namespaces():
    """Name of an example → the variables with which it ended when the book was written."""
    return {}


@pytest.fixture(scope="session")
def book(tmp_path_factory, namespaces):
    """The folder of a book, written once by the command, with a few mistakes of the museum."""
    folder = tmp_path_factory.mktemp("book") / "pages"
    opened, run = [], cells.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "EXHIBITS", few_exhibits())
        patch.setattr(tour, "FAULTS", few_faults())
        patch.setattr("scratchgen.report.book.figures.frame.DPI", 40)
        patch.setattr("webbrowser.open", opened.append)
        patch.setattr(cells, "run", lambda path: run(path, namespaces.setdefault(path.stem, {})))
        assert cli.main(["book", "-o", str(folder), "--open"]) == 0
    assert opened == [(folder / "index.html").resolve().as_uri()]
    return folder


@pytest.fixture(scope="session")
def pages(book):
    """Name of a page → its tags."""
    return {path.name: Parsed(path) for path in sorted(Path(book).glob("*.html"))}
