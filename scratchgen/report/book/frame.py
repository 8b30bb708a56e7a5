"""The templates: the frame of a page, the parts that stand in it, and the filters of their text."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from scratchgen import __version__
from scratchgen.equations import EQUATIONS, PROPOSITIONS, slug_of, through
from scratchgen.report.book import prose
from scratchgen.report.book.pages import PAGES, Page, anchor, label, link
from scratchgen.report.book.reference import page_name

ROWS = EQUATIONS + PROPOSITIONS
SUBSCRIPT = re.compile(r"(?<=\b\w)([\u0302-\u0304]?)_(?:\{([^{}]*)\}|(\w)(?![A-Za-z_]))")  # after a single letter
Section = tuple[str, str]  # id and title, for the contents


class Frame:
    """The frame of all pages, and their parts as functions of a template."""

    def __init__(self) -> None:
        environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"capital": capital, "size": size, "subscripts": subscripts, "test_name": test_name}
        environment.globals |= {
            "anchor": anchor,
            "link": link,
            "label": label,
            "slug_of": slug_of,
            "page_name": page_name,
            "verbs": lambda row: through(row, ROWS),
            "rows": {row.name: row for row in ROWS},
        }
        self._page = environment.get_template("page.html")
        self.parts: Any = environment.get_template("parts.html").module

    def page(self, page: Page, content: str, sections: list[Section]) -> str:
        """A whole page: the content between header, contents and footer."""
        place = PAGES.index(page) if page in PAGES else None
        groups = [(name, list(pages)) for name, pages in groupby(PAGES, key=lambda page: page.group)]
        return self._page.render(
            page=page,
            content=Markup(content),
            sections=sections,
            groups=groups,
            before=PAGES[place - 1] if place else None,
            after=PAGES[place + 1] if place is not None and place + 1 < len(PAGES) else None,
            version=__version__,
        )


def capital(text: str) -> str:
    """The text with its first letter in upper case if it begins with a word of two letters or more."""
    return text[:1].upper() + text[1:] if re.match("[A-Za-z]{2}|a ", text) else text


def subscripts(text: str) -> Markup:
    """HTML of a line of Unicode: x_t and x_{t−1} get a subscript, eps_hat does not; `code` and (25) become tags."""
    text = SUBSCRIPT.sub(lambda found: f"{found[1]}<sub>{found[2] or found[3]}</sub>", str(escape(text)))
    text = prose.EQUATION.sub(lambda found: prose.link_to_equation(found[1]), text)
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", text))


def size(number: float) -> str:
    """A small or large number in two digits, with a minus sign; 0 and inf as they are."""
    return f"{number:.2g}".replace("-", "−").replace("e+", "e")


def test_name(test: str) -> str:
    """tests/chapters/test_ddpm.py::test_the_claim → "the claim (test_ddpm.py)"."""
    file, _, name = test.partition("::")
    return f"{name.removeprefix('test_').replace('_', ' ')} ({file.rpartition('/')[2]})"
