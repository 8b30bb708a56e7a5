"""`--set name=value`: values are Python literals, words, and a few calls such as linear(200) or VE(0.01, 50)."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from typing import Any

from scratchgen.augmentation import Deformations, Shifts
from scratchgen.report.text import CommandError
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import VE, VP, SubVP

CALLS: dict[str, Callable[..., Any]] = {
    "linear": NoiseSchedule.linear,
    "cosine": NoiseSchedule.cosine,
    "log_snr_even": NoiseSchedule.log_snr_even,
    "VP": VP,
    "SubVP": SubVP,
    "VE": VE,
    "Shifts": Shifts,
    "Deformations": Deformations,
}
WORD = re.compile(r"[A-Za-z][\w+-]*")  # k-means++, min-snr


def add_settings(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option --set."""
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help=what)


def settings_of(texts: Sequence[str], allowed: Collection[str], whose: str) -> dict[str, Any]:
    """The values of `--set` by name; CommandError for another name or a value that cannot be read."""
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandError(f"--set {text} has no value; write --set NAME=VALUE")
        if name == "rng":
            raise CommandError("--set rng is not needed; the seed is the option --seed N")
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            has = f"it has {', '.join(allowed)}" if allowed else "it has none"
            raise CommandError(f"{whose} has no argument {name!r}; {hint}{has}")
        if name in settings:
            raise CommandError(f"--set {name} is given twice; give it once")
        settings[name] = value_of(name, value)
    return settings


def value_of(name: str, text: str) -> Any:
    """A literal, a word or a call of `CALLS` with numbers; nothing else is evaluated."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Call):
            return _call(node, name, text)
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if WORD.fullmatch(text.strip()):
            return text.strip()
        raise CommandError(
            f"--set {name}={text} cannot be read; write a number, a word, True, None, a list such as '[64, 64]', "
            f"or one of {', '.join(f'{call}(...)' for call in CALLS)} in quotes"
        ) from None


def _call(node: ast.Call, name: str, text: str) -> Any:
    """The object of a call with literal arguments; ValueError unless it is one of `CALLS`."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if function not in CALLS or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(text)
    args = [ast.literal_eval(arg) for arg in node.args]
    given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    try:
        return CALLS[function](*args, **given)
    except (TypeError, ValueError) as error:
        raise CommandError(f"--set {name}={text}: {error}") from None
