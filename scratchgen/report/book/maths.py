"""LaTeX to MathML, which browsers show without a script, and the marks of the symbols that code and formula share."""

from __future__ import annotations

import re
from functools import cache
from html import escape

from latex2mathml.converter import convert

WORDS = re.compile(r'(?:<mi mathvariant="normal">\w</mi>){2,}')  # \mathrm{KL}, letter by letter
FUNCTION = re.compile(r"<mi>(log|exp|sinh|expm1)</mi>(?!<mo stretchy=\"false\">&#x00028;)")
SCRIPT = {"N": "𝒩", "U": "𝒰", "L": "ℒ"}  # browsers ignore mathvariant="script"
NAMES = re.compile(r"<mo(?: movablelimits=\"true\")?>(argm(?:in|ax))</mo>")
WHOLE = '(?<!<msub>)(?<!<msubsup>)(?<!true">)'  # ε is no part of ε_t or ε̂


@cache
def _converted(latex: str) -> str:
    """The content of <math>, with the spaces that browsers leave out around words."""
    if not latex.strip():
        raise ValueError("a formula must not be empty")
    content = re.fullmatch(r"<math[^>]*><mrow>(.*)</mrow></math>", convert(latex, display="block"))
    assert content is not None  # the form of latex2mathml
    text = WORDS.sub(lambda found: f"<mi>{''.join(re.findall('>(.)<', found[0]))}</mi>", content[1])
    text = FUNCTION.sub(r'<mo form="prefix" lspace="0.12em" rspace="0.17em">\1</mo>', text)
    text = NAMES.sub(r'<mo form="prefix" lspace="0" rspace="0.17em">\1</mo>', text)
    text = re.sub(r'<mi mathvariant="script">(\w)</mi>', lambda found: f"<mi>{SCRIPT[found[1]]}</mi>", text)
    text = text.replace('<mover accent="true">', "<mover>").replace("<mover>", '<mover accent="true">')
    text = re.sub(r'(<mover accent="true">)<mrow>(<mi>[^<]*</mi>)</mrow>', r"\1\2", text)  # \hat{x} is \hat x
    return text.replace('<mo stretchy="true">&#x000AF;</mo>', '<mo stretchy="false">&#x000AF;</mo>')


def inline(latex: str) -> str:
    """MathML of a formula in a line of text."""
    return f'<math alttext="{escape(latex)}"><mrow>{_converted(latex)}</mrow></math>'


def display(latex: str, symbols: dict[str, str] | None = None) -> str:
    r"""MathML of a formula on lines of its own; `\\` separates the lines, and a line may break at `\qquad`.

    Parameters
    ----------
    symbols : dict
        Class of the mark → LaTeX of the symbol; the symbols are marked where they occur.
    """
    lines = [
        "".join(_piece(piece.strip(), symbols or {}) for piece in line.split(r"\qquad")) for line in latex.split(r"\\")
    ]
    shown = "".join(f'<div class="row">{line}</div>' for line in lines)
    return f'<div class="formula" tabindex="0" role="group" aria-label="formula">{shown}</div>'


def _piece(latex: str, symbols: dict[str, str]) -> str:
    content = _converted(latex)
    for mark, symbol in symbols.items():
        part = _converted(symbol)
        content = re.sub(WHOLE + re.escape(part), f'<mrow class="{mark}">{part}</mrow>', content)
    return f'<math display="block" alttext="{escape(latex)}"><mrow>{content}</mrow></math>'


def shared(latex: str, symbols: dict[str, str], names: set[str]) -> dict[str, str]:
    """The symbols, name in the code → LaTeX, that occur in a formula and whose names occur in the code."""
    formula = _converted(latex.replace(r"\\", r"\quad"))
    return {
        name: symbol
        for name, symbol in symbols.items()
        if name in names and re.search(WHOLE + re.escape(_converted(symbol)), formula)
    }
