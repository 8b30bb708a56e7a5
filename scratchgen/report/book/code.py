"""The source of a function as HTML, with line numbers, its place, and marks on the names of symbols."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import BashLexer, BashSessionLexer, PythonConsoleLexer, PythonLexer

import scratchgen

ROOT = Path(scratchgen.__file__).parent
LEXERS = {"python": PythonLexer, "pycon": PythonConsoleLexer, "sh": BashLexer, "console": BashSessionLexer}


class Place(NamedTuple):
    """File and first line of an object of the package."""

    file: str  # "scratchgen/ddpm/kernels.py"
    line: int

    @property
    def page(self) -> str:
        """The page of the book with the source of this file, at this line."""
        return f"{source_page(self.file)}#L{self.line}"


def source_page(file: str) -> str:
    """The page of the book that shows a file of the package."""
    return f"source-{file.removeprefix('scratchgen/').removesuffix('.py').replace('/', '-')}.html"


def place_of(thing: Callable[..., Any]) -> Place:
    """File and line of a function, method or class."""
    file = Path(inspect.getsourcefile(thing) or "").resolve()
    return Place(f"scratchgen/{file.relative_to(ROOT.resolve()).as_posix()}", inspect.getsourcelines(thing)[1])


@cache
def coloured(text: str, language: str = "python") -> tuple[str, ...]:
    """Lines of HTML of a text in a language, coloured by Pygments."""
    shown = highlight(text, LEXERS[language](stripnl=False), HtmlFormatter(nowrap=True))
    return tuple(accented(shown).rstrip("\n").split("\n"))


def accented(html: str) -> str:
    """HTML in which ε̂ and its like have a class: fonts of code set the hat beside the letter, over the next sign."""
    return re.sub(r"\w[\u0300-\u036f]+", r'<span class="accented">\g<0></span>', html)


def block(text: str, language: str = "") -> str:
    """HTML of a block of code in prose."""
    if language in LEXERS:
        lines = "\n".join(f'<span class="line {depth(line)}">{line}</span>' for line in coloured(text, language))
        return f'<pre class="wrapped"><code>{lines}</code></pre>\n'
    plain = accented(escape(text)).rstrip("\n")  # its columns stay in their places: it scrolls
    return f'<pre tabindex="0"><code>{plain}</code></pre>\n'


def lines_of(thing: Callable[..., Any]) -> Iterator[tuple[int, str]]:
    """(line number, HTML) of the source; of a docstring only the first paragraph is kept."""
    source, first = inspect.getsourcelines(thing)
    text = textwrap.dedent("".join(source))
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    hidden = range(0)
    if (docstring := ast.get_docstring(node, clean=False)) is not None:
        start, end = node.body[0].lineno, node.body[0].end_lineno or 0
        hidden = range(start + docstring.partition("\n\n")[0].count("\n") + 1, end + 1)
    for number, line in enumerate(coloured(text), 1):
        if number not in hidden:
            cut = number + 1 in hidden
            yield first + number - 1, f'{line.removesuffix("</span>")} …"""</span>' if cut else line


def listing(thing: Callable[..., Any], symbols: dict[str, str] | None = None) -> str:
    """HTML of the source of a function; `symbols` maps names in the code to the classes of their marks."""
    rows = []
    for number, line in lines_of(thing):
        for name, mark in (symbols or {}).items():
            line = re.sub(rf'<span class="n">{name}</span>', f'<span class="n {mark}">{name}</span>', line)
        rows.append((number, line))
    return numbered(rows)


def depth(line: str) -> str:
    """The class of a line of HTML that says how deep it stands: its continuation stands to the right of it."""
    spaces = re.match("(?:<[^>]+>)*( *)", line)
    assert spaces is not None  # the pattern matches every line
    return f"in{len(spaces[1]) // 4}"


def numbered(rows: Iterable[tuple[int, str]], anchor: str = "") -> str:
    """HTML of numbered lines.

    Parameters
    ----------
    anchor : str
        Letter before the number in the id of a line; without it the lines have no ids.
    """
    lines = []
    for number, line in rows:
        name = f' id="{anchor}{number}"' if anchor else ""
        lines.append(f'<span class="line {depth(line)}"{name} data-n="{number}">{line}</span>')
    return f'<pre class="numbered"><code>{"".join(lines)}</code></pre>'


def names_in(thing: Callable[..., Any]) -> set[str]:
    """All names in the source of a function: variables, arguments and attributes."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return found | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
