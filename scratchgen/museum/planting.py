"""Planting of a fault in running code: for some time a function behaves differently, wherever it is referred to.

The code of the function object itself is exchanged.  Therefore `from x import f`, and dicts, named tuples, default
arguments and closures that hold the function, all see the fault.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

MARK = "the replacement"  # a constant of the stub; the replacement takes its place


@contextmanager
def planted(name: str, replacement: Callable[..., Any]) -> Iterator[FunctionType]:
    """Let the function called `name` behave as `replacement` inside a `with` block.

    Parameters
    ----------
    name : str
        Within scratchgen: "ddpm.q_sample", "nn.mlp.MLP.vjp", "models.ddpm.DDPM.sample".  A function, a method (also a
        class method, a static or an inherited method) or a property, written in Python.
    replacement : callable
        Called as replacement(original, *arguments), where `original` behaves as the function did before.

    Yields
    ------
    original : function
        The first argument of `replacement`.

    Raises
    ------
    LookupError
        If scratchgen has no such name.
    TypeError
        If the name is not that of a Python function: a class, a compiled function or a cached one.

    Examples
    --------
    >>> from scratchgen.likelihood import bits_per_dim
    >>> with planted("likelihood.bits_per_dim", lambda original, *arguments: -original(*arguments)):
    ...     negative = bits_per_dim(4.0, 2)
    >>> bool(negative == -bits_per_dim(4.0, 2))
    True
    """
    function = function_named(name)
    original = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    original.__kwdefaults__ = function.__kwdefaults__
    original.__doc__ = function.__doc__

    def call(*arguments: Any, **keywords: Any) -> Any:
        return replacement(original, *arguments, **keywords)

    # The stub takes any arguments; the defaults are those of the original.
    free = len(function.__code__.co_freevars)
    function.__code__ = _stub(free, call, inspect.isgeneratorfunction(function))
    function.__defaults__ = function.__kwdefaults__ = None
    try:
        yield original
    finally:
        function.__code__ = original.__code__
        function.__defaults__, function.__kwdefaults__ = original.__defaults__, original.__kwdefaults__


def function_named(name: str) -> FunctionType:
    """The Python function for a name of `planted`; for a method or a property, the function inside."""
    holder, attribute = _holder(name)
    value = inspect.getattr_static(holder, attribute)
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    if not isinstance(value, FunctionType):
        raise TypeError(
            f"name must be the name of a function, method or property written in Python, got {name!r}, "
            f"which is a {type(value).__name__}; name one of its methods, or the function that calls it"
        )
    return value


def _holder(name: str) -> tuple[Any, str]:
    """The module or class that holds the last part of a name, and that part."""
    *parts, attribute = name.split(".")
    holder: Any = importlib.import_module("scratchgen")
    for i, part in enumerate(parts):
        try:
            holder = getattr(holder, part)
        except AttributeError:
            try:  # a module that is not imported yet
                holder = importlib.import_module(".".join(["scratchgen", *parts[: i + 1]]))
            except ModuleNotFoundError:
                raise LookupError(
                    f"name must be a name within scratchgen, got {name!r}: there is no {part!r}"
                ) from None
    if not hasattr(holder, attribute):
        raise LookupError(f"name must be a name within scratchgen, got {name!r}: there is no {attribute!r}")
    return holder, attribute


def _stub(n_free: int, call: Callable[..., Any], yields: bool) -> CodeType:
    """Code that passes its arguments to `call`; it has one free variable per cell of the closure of the function.

    The code of a generator function must be that of a generator.
    """
    free = [f"free_{i}" for i in range(n_free)]
    lines = [
        f"def outer({', '.join(free)}):",
        "    def stub(*arguments, **keywords):",
        f"        call = {MARK!r}",
        f"        {'yield from' if yields else 'return'} call(*arguments, **keywords)",
        *(f"        {variable}" for variable in free),  # never reached, but it makes the name a free variable
        "    return stub",
    ]
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), namespace)
    code: CodeType = namespace["outer"](*free).__code__
    return code.replace(co_consts=tuple(call if constant == MARK else constant for constant in code.co_consts))
