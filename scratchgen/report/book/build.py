"""Write the book: every page from its text, the table of equations and the pictures."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from importlib.resources import as_file, files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from scratchgen import __version__
from scratchgen.equations import EQUATIONS, PROPOSITIONS, Row, find, through
from scratchgen.models.files import write_atomically
from scratchgen.report.book import code, maths, prose, reference
from scratchgen.report.book.facts import Fact, facts
from scratchgen.report.book.figures import ALT, draw
from scratchgen.report.book.pages import PAGES, Page, anchor, label, link, page_of, slug
from scratchgen.report.book.symbols import MARKS, SYMBOLS
from scratchgen.report.commands.audit import audit

ROWS = EQUATIONS + PROPOSITIONS
SUBSCRIPT = re.compile(r"(?<=\b\w)([\u0302-\u0304]?)_(?:\{([^{}]*)\}|(\w)(?![A-Za-z_]))")  # after a single letter
Section = tuple[str, str]  # id and title, for the contents


def build(folder: Path) -> list[Path]:
    """Write all pages, figures and the style sheet into a folder; return the pages in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    book = Book(facts(), draw(folder / "figures"))
    with as_file(files(__package__).joinpath("templates", "style.css")) as style:
        shutil.copyfile(style, folder / "style.css")
    written = []
    for page in PAGES:
        content, sections = book.content(page)
        written.append(_write(folder / f"{page.name}.html", book.framed(page, content, sections)))
    for name in reference.MODULES:
        page = Page(reference.page_name(name), name, "API")
        content, sections = book.module(name)
        written.append(_write(folder / f"{page.name}.html", book.framed(page, content, sections)))
    for file, content in reference.sources():
        page = Page(code.source_page(file).removesuffix(".html"), file, "Source")
        written.append(_write(folder / f"{page.name}.html", book.framed(page, content, [])))
    return written


def _write(path: Path, text: str) -> Path:
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


class Book:
    """The facts, the figures' sizes and the templates from which pages are made."""

    def __init__(self, found: dict[str, Fact], sizes: dict[str, tuple[int, int]]) -> None:
        self.facts, self.sizes = found, sizes
        environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"capital": _capital, "size": _size, "subscripts": _subscripts, "test_name": _test_name}
        environment.globals |= {
            "anchor": anchor,
            "link": link,
            "label": label,
            "page_name": reference.page_name,
            "verbs": lambda row: through(row, ROWS),
            "facts": found,
        }
        self.frame = environment.get_template("page.html")
        self.templates: Any = environment.get_template("parts.html").module

    def framed(self, page: Page, content: str, sections: list[Section]) -> str:
        """A whole page: the content between header, contents and footer."""
        place = PAGES.index(page) if page in PAGES else None
        return self.frame.render(
            page=page,
            content=Markup(content),
            sections=sections,
            groups=[(group, list(pages)) for group, pages in groupby(PAGES, key=lambda page: page.group)],
            before=PAGES[place - 1] if place else None,
            after=PAGES[place + 1] if place is not None and place + 1 < len(PAGES) else None,
            version=__version__,
        )

    def content(self, page: Page) -> tuple[str, list[Section]]:
        """The content of a page from the parts of its text, and its sections."""
        out, sections = [], []
        for part in prose.parts(page.name):
            if part.kind == "text":
                out.append(prose.html(part.body))
            elif part.kind == "section":
                if part.number:
                    sections.append((f"eq-{part.number}", f"({part.number}) {part.title}"))
                    out.append(self.equation(self.facts[part.number], part))
                else:
                    sections.append((slug(part.argument), part.argument))
                    out.append(prose.html(f"## {part.argument}\n\n{part.body}"))
            else:
                out.append(getattr(self, f"_{part.kind}")(part, page))
        return "\n".join(out), sections

    def equation(self, fact: Fact, part: prose.Part) -> str:
        """The section of one equation of the deck; a quotation in its text is the reason of the erratum.

        Behind " | " in its heading stand further functions to show.
        """
        row = fact.row
        claim, _, erratum = part.body.partition("\n> ")
        same = [other for other in EQUATIONS if other.function == row.function and other is not row]
        shown = [
            other for other in same if page_of(other) == page_of(row) and EQUATIONS.index(other) < EQUATIONS.index(row)
        ]
        things = [] if shown else [find(name) for name in (row.function, *part.functions)]
        names = {name for thing in things for name in code.names_in(thing)}
        symbols = maths.shared(row.latex, SYMBOLS[page_of(row)], names)
        marks = dict(zip(symbols, MARKS, strict=False))
        place = EQUATIONS.index(row)
        return str(
            self.templates.equation(
                fact,
                part.title,
                Markup(prose.html(claim)),
                Markup(prose.html(erratum.replace("\n> ", "\n").replace("\n>", "\n"))),
                Markup(
                    maths.display(row.latex, {marks[name]: symbol for name, symbol in symbols.items() if name in marks})
                ),
                [(code.place_of(thing), Markup(code.listing(thing, marks))) for thing in things],
                [(mark, name, Markup(maths.inline(symbols[name]))) for name, mark in marks.items()],
                same,
                shown[:1],
                EQUATIONS[place - 1] if place else None,
                EQUATIONS[place + 1] if place + 1 < len(EQUATIONS) else None,
            )
        )

    # --- directives of the text: ::figure, ::algorithm, … -----------------------------------------------------------

    def _figure(self, part: prose.Part, page: Page) -> str:
        """`::figure NAME`, with the caption in the paragraph below."""
        caption, _, rest = part.body.partition("\n\n")
        shown = self.templates.figure(
            part.argument, self.sizes[part.argument], ALT[part.argument], Markup(prose.line(caption.strip()))
        )
        return f"{shown}\n{prose.html(rest)}"

    def _algorithm(self, part: prose.Part, page: Page) -> str:
        """`::algorithm FUNCTION …`, with the paper's form below, up to `::end`."""
        things = [find(name) for name in part.argument.split()]
        listings = [(code.place_of(thing), Markup(code.listing(thing))) for thing in things]
        return str(self.templates.algorithm(Markup(prose.html(part.body)), listings))

    def _end(self, part: prose.Part, page: Page) -> str:
        return prose.html(part.body)

    def _propositions(self, part: prose.Part, page: Page) -> str:
        """`::propositions`: all rows of this page that are not equations of the deck."""
        shown = [self._proposition(row) for row in PROPOSITIONS if page_of(row) == page.name]
        return "\n".join(shown) + prose.html(part.body)

    def _file(self, part: prose.Part, page: Page) -> str:
        """`::file NAME`: an example of the book."""
        text = files(__package__).joinpath("examples", part.argument).read_text("utf8")
        return code.block(text, "python") + prose.html(part.body)

    def _audit(self, part: prose.Part, page: Page) -> str:
        """`::audit NAME`: the output of `scratchgen audit` for an example, computed now."""
        out = io.StringIO()
        example = files(__package__).joinpath("examples", part.argument)
        with as_file(example) as path, contextlib.redirect_stdout(out):
            audit(path)
        return code.block(f"$ scratchgen audit {part.argument}\n{out.getvalue()}") + prose.html(part.body)

    def module(self, name: str) -> tuple[str, list[Section]]:
        """The page of the API of one module, and its sections."""
        found = reference.entries(name)
        content = self.templates.module(name, prose.plain_line(reference.MODULES[name]), found)
        return str(content), [(entry.name, entry.name) for entry in found]

    def _api(self, part: prose.Part, page: Page) -> str:
        """`::api`: all modules and their public names."""
        modules = [(name, about, reference.entries(name)) for name, about in reference.MODULES.items()]
        return str(self.templates.api(modules)) + prose.html(part.body)

    def _systems(self, part: prose.Part, page: Page) -> str:
        """`::systems`, with lines "picture | address | name | text"."""
        lines, _, rest = part.body.partition("\n\n")
        cards = [
            (f"system-{name}", address, title, Markup(prose.line(text)))
            for name, address, title, text in (line.split(" | ") for line in lines.splitlines())
        ]
        return str(self.templates.systems(cards, self.sizes, ALT)) + prose.html(rest)

    def _table(self, part: prose.Part, page: Page) -> str:
        """`::table`: all equations of the deck with their verdicts."""
        titles = prose.titles()
        rows = [(self.facts[row.name], titles[row.name]) for row in EQUATIONS]
        passed = sum(fact.result.passed for fact in self.facts.values())
        return str(self.templates.table(rows, passed, len(self.facts))) + prose.html(part.body)

    def _proposition(self, row: Row) -> str:
        formula = Markup(maths.display(row.latex))
        return str(self.templates.proposition(self.facts[row.name], formula, code.place_of(find(row.function))))


def _capital(text: str) -> str:
    """The text with its first letter in upper case if it begins with a word of two letters or more."""
    return text[:1].upper() + text[1:] if re.match("[A-Za-z]{2}|a ", text) else text


def _subscripts(text: str) -> Markup:
    """HTML of a line of Unicode: x_t and x_{t−1} get a subscript, eps_hat does not; `code` and (25) become tags."""
    text = SUBSCRIPT.sub(lambda found: f"{found[1]}<sub>{found[2] or found[3]}</sub>", str(escape(text)))
    text = prose.EQUATION.sub(lambda found: prose.link_to_equation(found[1]), text)
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", text))


def _size(number: float) -> str:
    """A small or large number in two digits, with a minus sign; 0 and inf as they are."""
    return f"{number:.2g}".replace("-", "−").replace("e+", "e")


def _test_name(test: str) -> str:
    """tests/chapters/test_ddpm.py::test_the_claim → "the claim (test_ddpm.py)"."""
    file, _, name = test.partition("::")
    return f"{name.removeprefix('test_').replace('_', ' ')} ({file.rpartition('/')[2]})"
