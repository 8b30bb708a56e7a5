"""The text of a page: Markdown with formulas in $…$, links to equations, and directives that begin a line with ::."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

from scratchgen.report.book import code, maths
from scratchgen.report.book.pages import PAGES, page_of_equation, slug

EQUATION = re.compile(r"\((\d{1,2})\)")


def _link_equations(state: StateCore) -> None:
    """Turn "(25)" in text, but not in code, formulas or links, into a link to the equation."""
    for block in state.tokens:
        parts: list[Token] = []
        inside = 0
        for token in block.children or []:
            inside += {"link_open": 1, "link_close": -1}.get(token.type, 0)
            parts += [token] if inside else _linked(token)
        block.children = parts if block.children else block.children


def _linked(token: Token) -> Iterator[Token]:
    pieces = EQUATION.split(token.content) if token.type == "text" else []
    if len(pieces) < 2:
        yield token
        return
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            yield Token("text", "", 0, content=piece)
        else:
            yield Token("html_inline", "", 0, content=link_to_equation(piece))


def link_to_equation(number: str) -> str:
    """HTML of a link to an equation of the deck; plain text if there is none with this number."""
    page = page_of_equation(number)
    return f"({number})" if page is None else f'<a href="{page}.html#eq-{number}">({number})</a>'


def _maths(content: str, options: dict[str, Any]) -> str:
    return maths.display(content) if options["display_mode"] else maths.inline(content)


def _highlight(text: str, language: str, attributes: str) -> str:
    return code.block(text, language)


MARKDOWN = (
    MarkdownIt("commonmark", {"highlight": _highlight, "html": True})
    .enable("table")
    .use(dollarmath_plugin, renderer=_maths)
    .use(deflist_plugin)
    .use(anchors_plugin, max_level=4, slug_func=slug)
)
MARKDOWN.core.ruler.push("equations", _link_equations)


MARKDOWN.add_render_rule("code_block", lambda self, tokens, i, *rest: code.block(tokens[i].content))
PLAIN = MarkdownIt("commonmark", {"highlight": _highlight, "html": False})  # of docstrings, which have no formulas
PLAIN.core.ruler.push("equations", _link_equations)
PLAIN.add_render_rule("code_block", lambda self, tokens, i, *rest: code.block(tokens[i].content))


def plain(text: str) -> str:
    """HTML of the Markdown of a docstring."""
    return str(PLAIN.render(text))


def plain_line(text: str) -> str:
    """HTML of one line of a docstring, without <p>."""
    return str(PLAIN.renderInline(text))


def html(text: str) -> str:
    """HTML of Markdown; the term of a description list has an id, for links to the glossary."""
    rendered = str(MARKDOWN.render(text))
    rendered = re.sub(r"<dt>(.*?)</dt>", lambda found: f'<dt id="{slug(found[1])}">{found[1]}</dt>', rendered)
    return rendered.replace(
        "<table>", '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>'
    ).replace("</table>", "</table></div>")


def line(text: str) -> str:
    """HTML of one line of Markdown, without <p>."""
    return str(MARKDOWN.renderInline(text))


class Part(NamedTuple):
    """A piece of a page: `kind` is "text", "section", or the word of a directive."""

    kind: str
    argument: str
    body: str

    @property
    def number(self) -> str:
        """The number of the equation of "## 25 title"; empty for other sections."""
        number = self.argument.partition(" ")[0]
        return number if self.kind == "section" and number.isdigit() else ""

    @property
    def title(self) -> str:
        """The title of the section of an equation."""
        return self.argument.removeprefix(self.number).partition(" | ")[0].strip()

    @property
    def functions(self) -> list[str]:
        """Further functions that "## 25 title | function …" names."""
        return self.argument.partition(" | ")[2].split()


def parts(name: str) -> Iterator[Part]:
    """The parts of the text of a page.

    "## title" begins a section, and "::word argument" a directive.  Both hold the text up to the next mark.
    "::include NAME" stands for the text of another file.
    """
    text = re.sub(r"^::include (.+)\n", lambda found: _text(found[1]), _text(name), flags=re.M)
    for part in re.split(r"^(?=## |::\w)", text, flags=re.M):
        mark = re.match(r"(## |::)(.*)\n?", part)
        if mark is None:
            yield Part("text", "", part)
        elif mark[1] == "::":
            kind, _, argument = mark[2].partition(" ")
            yield Part(kind, argument.strip(), part[mark.end() :])
        else:
            yield Part("section", mark[2].strip(), part[mark.end() :])


def _text(name: str) -> str:
    return files(__package__).joinpath("text", f"{name}.md").read_text("utf8")


def titles() -> dict[str, str]:
    """Number of an equation → the title of its section."""
    return {part.number: part.title for page in PAGES for part in parts(page.name) if part.number}
