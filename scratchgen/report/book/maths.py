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
TOKEN = re.compile(r"\\text\{[^{}]*\}|\\(?:left|right)(?!arrow)\\?.|\\[A-Za-z]+|\\?.")
OPENING, CLOSING = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
SIGNS = ("=", r"\le", r"\ge", r"\ne", r"\approx", r"\propto", r"\leftarrow", r"\to", "+", "-")
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
    first, *others = (_marked(chunk, symbols) for chunk in chunks(latex))
    others = [re.sub("^<mo>(?=&#x0002B;|&#x02212;)", '<mo form="infix">', other) for other in others]
    content = "".join(f"<mrow>{chunk}</mrow>" for chunk in (first, *others))
    return f'<math display="block" alttext="{escape(latex)}">{content}</math>'


def _marked(latex: str, symbols: dict[str, str]) -> str:
    content = _converted(latex)
    for mark, symbol in symbols.items():
        part = _converted(symbol)
        content = re.sub(WHOLE + re.escape(part), f'<mrow class="{mark}">{part}</mrow>', content)
    return content


def chunks(latex: str) -> list[str]:
    r"""Pieces of a formula between which a line may break on a narrow screen.

    A line breaks before a relation, before + and −, before the logarithm of an integrand, before a word and after
    `\quad`, but never inside brackets or norms.
    """
    out, depth, in_norm = [""], 0, False
    for token in TOKEN.findall(latex):
        if token == r"\|" and depth == in_norm:  # ‖ opens a norm outside brackets, and closes it
            depth, in_norm = 1 - depth, not in_norm
        depth -= token in CLOSING or token.startswith(r"\right")
        words = re.findall(r"\s*\S+\s*", token[6:-1]) if depth == 0 and token.startswith(r"\text") else []
        follows_operand = out[-1].strip() not in {"", *SIGNS}
        of_integrand = token == r"\log" and r"int" in out[-1]
        if depth == 0 and follows_operand and (token in SIGNS or of_integrand or words):
            out.append("")
        out[-1] += rf"\text{{{words[0]}}}" if words else token
        out += [rf"\text{{{word}}}" for word in words[1:]] + ([""] if depth == 0 and token == r"\quad" else [])
        depth += token in OPENING or bool(re.match(r"\\left(?!arrow)", token))
    return out


def shared(latex: str, symbols: dict[str, str], names: set[str]) -> dict[str, str]:
    """The symbols, name in the code → LaTeX, that occur in a formula and whose names occur in the code."""
    formula = _converted(latex.replace(r"\\", r"\quad"))
    return {
        name: symbol
        for name, symbol in symbols.items()
        if name in names and re.search(WHOLE + re.escape(_converted(symbol)), formula)
    }
