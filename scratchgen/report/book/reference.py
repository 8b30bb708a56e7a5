"""The API: every public name with signature, docstring and a link to its source; and the pages of the source."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from html import escape
from types import ModuleType
from typing import Any, NamedTuple

from scratchgen.report.book import code, prose

MODULES = {  # a module whose public names are listed → what it holds
    "scratchgen": "the models, networks and processes",
    "scratchgen.likelihood": "(1)-(2): entropy, cross-entropy and KL; masses of whole numbers",
    "scratchgen.variational": "(3)-(10): posteriors and bounds of tables and of the linear-Gaussian model",
    "scratchgen.vae": "(11)-(14): the VAE",
    "scratchgen.em": "(15)-(18): EM",
    "scratchgen.ddpm": "(19)-(29): the diffusion model",
    "scratchgen.sde": "(30)-(34): score models",
    "scratchgen.nn": "networks, their derivatives, Adam",
    "scratchgen.schedule": "the discrete forward process",
    "scratchgen.timestep_sampling": "draws of training steps",
    "scratchgen.law": "laws of data whose diffused densities are known",
    "scratchgen.mixture": "mixtures of Gaussians, exactly",
    "scratchgen.plane": "exact laws in the plane: squares, arcs, pinwheels",
    "scratchgen.augmentation": "copies of pictures for training",
    "scratchgen.recipes": "good arguments for a kind of data, with their numbers",
    "scratchgen.quadrature": "replacements of random draws",
    "scratchgen.fast.em_statistics": "EM in one pass",
    "scratchgen.grading": "exact answers for trained models",
    "scratchgen.metrics": "samples against data",
    "scratchgen.conformance": "checks for anybody's code",
    "scratchgen.datasets": "small data sets",
    "scratchgen.export": "weights in torch's layout",
}
HIDDEN = ("report", "museum", "equations")  # packages whose source has no page
HEADING = re.compile(r"^([A-Z]\w[\w ]*)\n-{3,}\n", re.M)
LISTS = ("Parameters", "Attributes", "Returns", "Yields", "Raises")


class Entry(NamedTuple):
    """A public function, class, method or property."""

    name: str  # "q_sample", or "DDPM.fit"
    signature: str
    summary: str  # the first sentence of the docstring
    docstring: str  # HTML
    place: code.Place
    members: list[Entry]


def page_name(module: str) -> str:
    """The page of the API of a module, without ".html"."""
    return f"api-{module.removeprefix('scratchgen').removeprefix('.').replace('.', '-') or 'models'}"


@cache
def entries(name: str) -> list[Entry]:
    """The public names of a module: those of `__all__`, or the functions and classes that it defines."""
    module = importlib.import_module(name)
    things = {name: getattr(module, name) for name in _public(module)}
    return [_entry(name, thing) for name, thing in sorted(things.items()) if callable(thing) and _is_ours(thing)]


def _public(module: ModuleType) -> list[str]:
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
    return [name for name in getattr(module, "__all__", own) if not name.startswith("_")]


def _is_ours(thing: Any) -> bool:
    return (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__.startswith("scratchgen")


def _entry(name: str, thing: Callable[..., Any], parent: str = "") -> Entry:
    text = inspect.getdoc(thing) or ""
    place = code.place_of(inspect.unwrap(thing))
    members = [_entry(key, method, f"{name}.") for key, method in _methods(thing)] if inspect.isclass(thing) else []
    summary = prose.plain_line(text.partition("\n\n")[0].replace("\n", " "))
    return Entry(parent + name, signature(name, thing), summary, docstring(text), place, members)


def _methods(thing: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for key in dir(thing):
        static = inspect.getattr_static(thing, key)
        method = static.fget if isinstance(static, property) else getattr(thing, key)
        function = getattr(method, "__func__", method)
        if not key.startswith("_") and inspect.isfunction(function) and _is_ours(function) and function.__doc__:
            yield key, function


def signature(name: str, thing: Callable[..., Any]) -> str:
    """Name and arguments as in the source; of a class without types, which its docstring has."""
    if inspect.isclass(thing):
        given = inspect.signature(thing).parameters.values()
        return f"{name}({', '.join(str(each.replace(annotation=each.empty)) for each in given)})"
    node = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    assert isinstance(node, ast.FunctionDef)
    result = "" if node.returns is None else f" → {ast.unparse(node.returns)}"
    return f"{name}({ast.unparse(node.args)}){result}"


def docstring(text: str) -> str:
    """HTML of a docstring in the style of numpydoc, after its first paragraph."""
    pieces = HEADING.split(text.partition("\n\n")[2])
    out = [prose.plain(pieces[0])]
    for heading, body in zip(pieces[1::2], pieces[2::2], strict=True):
        out.append(f'<p class="part">{heading}</p>')
        if heading in LISTS:
            out.append(_items(body))
        else:
            out.append(code.block(body, "pycon") if heading == "Examples" else prose.plain(body))
    return "".join(out)


def _items(body: str) -> str:
    """A description list of "name : type" lines, each with an indented text."""
    out = []
    for item in re.split(r"\n(?=\S)", body.strip("\n")):
        head, _, text = item.partition("\n")
        name, _, kind = head.partition(" : ")
        out.append(f"<dt><code>{escape(name)}</code> {escape(kind)}</dt><dd>{prose.plain(textwrap.dedent(text))}</dd>")
    return f'<dl class="items">{"".join(out)}</dl>'


def sources() -> Iterator[tuple[str, str]]:
    """(file, HTML) of every module of the package whose source has a page."""
    for module in pkgutil.walk_packages([str(code.ROOT)], "scratchgen."):
        if module.name.split(".")[1] in HIDDEN:
            continue
        path = code.ROOT.joinpath(*module.name.split(".")[1:])
        path = path / "__init__.py" if module.ispkg else path.with_suffix(".py")
        lines = code.coloured(path.read_text("utf8"))
        file = f"scratchgen/{path.relative_to(code.ROOT).as_posix()}"
        yield file, f'<h1 class="file">{file}</h1>{code.numbered(enumerate(lines, 1), "L")}'
