"""Write the book: every page from its text, the table of equations and the pictures."""

from __future__ import annotations

import contextlib
import io
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from markupsafe import Markup

from scratchgen.equations import EQUATIONS, PROPOSITIONS, Row, find
from scratchgen.models.files import SHIPPED, write_atomically
from scratchgen.report.book import cells, code, maths, prose, reference
from scratchgen.report.book.facts import Fact, facts
from scratchgen.report.book.figures import ALT, draw
from scratchgen.report.book.frame import Frame, Section
from scratchgen.report.book.pages import PAGES, Page, page_of, slug
from scratchgen.report.book.shipped import N_IMAGES, scored
from scratchgen.report.book.sliders import SLIDERS
from scratchgen.report.book.symbols import MARKS, SYMBOLS
from scratchgen.report.commands.audit import audit
from scratchgen.report.figures import Picture, draw_all
from scratchgen.report.tour import TERMS, Tour


def build(folder: Path, tour: Tour | None = None) -> list[Path]:
    """Write all pages, figures, style sheet and script into a folder; return the pages in their order.

    The results of a tour fill the sections about trained models with grades and pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = draw(folder / "figures")
    pictures = {name: Picture(f"figures/{name}.png", size, ALT[name]) for name, size in sizes.items()}
    if tour is not None:
        pictures |= draw_all(tour, folder)
    book = Book(facts(), pictures, tour)
    for name in ("style.css", "book.js"):
        with as_file(files(__package__).joinpath("templates", name)) as template:
            shutil.copyfile(template, folder / name)
    written = []
    for page in PAGES:
        content, sections = book.content(page)
        written.append(_write(folder / f"{page.name}.html", book.frame.page(page, content, sections)))
    for name in reference.MODULES:
        page = Page(reference.page_name(name), name, "API")
        content, sections = book.module(name)
        written.append(_write(folder / f"{page.name}.html", book.frame.page(page, content, sections)))
    for file, content in reference.sources():
        page = Page(code.source_page(file).removesuffix(".html"), file, "Source")
        written.append(_write(folder / f"{page.name}.html", book.frame.page(page, content, [])))
    return written


def _write(path: Path, text: str) -> Path:
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


class Book:
    """The facts, the pictures, the results of a tour if there are any, and the frame from which pages are made."""

    def __init__(self, found: dict[str, Fact], pictures: dict[str, Picture], tour: Tour | None = None) -> None:
        self.facts, self.pictures, self.tour, self.frame = found, pictures, tour, Frame()
        self.parts = self.frame.parts

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
                    title = self._title(part)
                    sections.append((slug(title), title))
                    out.append(prose.html(f"## {title}\n\n{part.body}"))
            else:
                out.append(getattr(self, f"_{part.kind}")(part, page))
        return "\n".join(out), sections

    def _title(self, part: prose.Part) -> str:
        """The title of a section; of "one | other" the first without the results of a tour, the second with them."""
        without, _, with_tour = part.argument.partition(" | ")
        return with_tour if with_tour and self.tour else without

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
        colours = dict(zip(dict.fromkeys(symbols.values()), MARKS, strict=False))  # names of one symbol share its mark
        marks = {name: colours[symbol] for name, symbol in symbols.items() if symbol in colours}
        place = EQUATIONS.index(row)
        return str(
            self.parts.equation(
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
        """`::figure NAME`, with the caption in the paragraph below; nothing for a trained model without a tour."""
        caption, _, rest = part.body.partition("\n\n")
        name, text = part.argument, Markup(prose.line(caption.strip()))
        left_out = name.startswith("trained-") and self.tour is None
        shown = "" if left_out else str(self.parts.figure(name, self.pictures[name], text))
        return shown + prose.html(rest)

    def _slider(self, part: prose.Part, page: Page) -> str:
        """`::slider NAME`: a control beside the figure with this name, for browsers that run scripts."""
        name, slider = part.argument, SLIDERS[part.argument]()
        return str(self.parts.slider(name, slider, Markup(slider.as_json(name)))) + prose.html(part.body)

    def _algorithm(self, part: prose.Part, page: Page) -> str:
        """`::algorithm FUNCTION …`, with the paper's form below, up to `::end`."""
        things = [find(name) for name in part.argument.split()]
        listings = [(code.place_of(thing), Markup(code.listing(thing))) for thing in things]
        return str(self.parts.algorithm(Markup(prose.html(part.body)), listings))

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

    def _example(self, part: prose.Part, page: Page) -> str:
        """`::example NAME`: an example of the book with its output, computed now."""
        out = []
        with as_file(files(__package__).joinpath("examples", part.argument)) as path:
            for cell in cells.run(path):
                out.append(prose.html(cell.source) if cell.kind == "text" else code.block(cell.source, "python"))
                if cell.output:
                    out.append(f'<div class="output">{code.block(cell.output)}</div>')
        return "\n".join(out) + prose.html(part.body)

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
        content = self.parts.module(name, prose.plain_line(reference.MODULES[name]), found)
        return str(content), [(entry.name, entry.name) for entry in found]

    def _api(self, part: prose.Part, page: Page) -> str:
        """`::api`: all modules and their public names."""
        modules = [(name, about, reference.entries(name)) for name, about in reference.MODULES.items()]
        return str(self.parts.api(modules)) + prose.html(part.body)

    def _systems(self, part: prose.Part, page: Page) -> str:
        """`::systems`, with lines "picture | address | name | text"; a tour has pictures of its own."""
        lines, _, rest = part.body.partition("\n\n")
        kind = "system" if self.tour is None else "trained-system"
        cards = [
            (self.pictures[f"{kind}-{name}"], address, title, Markup(prose.line(text)))
            for name, address, title, text in (line.split(" | ") for line in lines.splitlines())
        ]
        return str(self.parts.systems(cards)) + prose.html(rest)

    def _tour(self, part: prose.Part, page: Page) -> str:
        """`::tour`: the verdict of the tour, or its command."""
        return str(self.parts.tour(self.tour)) + prose.html(part.body)

    def _grades(self, part: prose.Part, page: Page) -> str:
        """`::grades CHAPTER`: measured and exact values of the tour."""
        chapter = part.argument
        shown = self.parts.grades(self.tour.of(chapter), TERMS[chapter]) if self.tour else ""
        return str(shown) + prose.html(part.body)

    def _shipped(self, part: prose.Part, page: Page) -> str:
        """`::shipped NAME`: the commands and the bits of a model of the package."""
        return str(self.parts.shipped(scored(part.argument), N_IMAGES)) + prose.html(part.body)

    def _bits(self, part: prose.Part, page: Page) -> str:
        """`::bits`: the test digits under the models of the package and of the tour."""
        models = [scored(name) for name in SHIPPED]
        trained = self.tour.bits_per_dim if self.tour else {}
        return str(self.parts.bits(models, trained, TERMS["digits"])) + prose.html(part.body)

    def _table(self, part: prose.Part, page: Page) -> str:
        """`::table`: all equations of the deck with their verdicts."""
        titles = prose.titles()
        rows = [(self.facts[row.name], titles[row.name]) for row in EQUATIONS]
        passed = sum(fact.result.passed for fact in self.facts.values())
        return str(self.parts.table(rows, passed, len(self.facts))) + prose.html(part.body)

    def _proposition(self, row: Row) -> str:
        formula = Markup(maths.display(row.latex))
        return str(self.parts.proposition(self.facts[row.name], formula, code.place_of(find(row.function))))
