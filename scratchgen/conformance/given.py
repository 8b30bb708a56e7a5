"""Noise for code that draws its own: the checks compare on shared noise, so that the code must get ours."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from scratchgen.conformance.arguments import CodeWarning
from scratchgen.conformance.convention import as_numpy

STANDARD = ("randn", "randn_like", "standard_normal")


class NoDraw(CodeWarning):
    """Warning of code that uses none of the given arrays."""


@contextmanager
def given_noise(*noise: Any, t: Any = None) -> Iterator[None]:
    """Let draws of torch and NumPy return given arrays, in the order of the calls, and random integers be t.

    `torch.randn`, `torch.randn_like`, `np.random.randn` and `np.random.standard_normal` return the next array.
    `torch.normal`, `np.random.normal` and `normal_` of a tensor (and so `torch.nn.init.normal_` and
    `torch.distributions.Normal`) return mean + std times it.  `torch.randint` and `np.random.randint` return t.  The
    same holds for a generator that `np.random.default_rng` or `np.random.RandomState` makes within it.

    A generator of NumPy made before is not reached, and `jax.random` is not: give such code its noise as an argument.

    Parameters
    ----------
    *noise
        The arrays, as the code takes them, whatever shape it asks for.
    t
        The steps, as the code counts them; random integers are drawn as ever if None.  A range that is too wide, and
        draws that are not even, are not seen.

    Raises
    ------
    ValueError
        Within the block, if the code draws more arrays than there are.

    Warns
    -----
    NoDraw
        If the code draws none of the arrays, or no integers although t is given: it has another source of noise.  A
        last step that adds no noise is right.

    CodeWarning
        If a given step is not in the range from which the code draws.

    Examples
    --------
    >>> import numpy as np
    >>> from scratchgen.conformance import given_noise
    >>> with given_noise([0.5, -1.0]):
    ...     np.random.randn(2)
    [0.5, -1.0]
    """
    left, drawn = iter(noise), {"noise": False, "t": False}

    def draw(*_: Any, **__: Any) -> Any:
        drawn["noise"] = True
        for array in left:
            return array
        raise ValueError(f"the code draws more than {len(noise)} times; give given_noise one array for each draw")

    def scaled(loc: Any = 0.0, scale: Any = 1.0, *_: Any, **named: Any) -> Any:
        return named.get("mean", loc) + named.get("std", scale) * draw()

    def filled(tensor: Any, mean: float = 0.0, std: float = 1.0, **_: Any) -> Any:
        return tensor.copy_(mean + std * draw())

    def steps(*bounds: Any, **named: Any) -> Any:
        drawn["t"] = True
        never = never_drawn(t, *bounds, **named)
        if never:
            text = f"the code draws t from a range without {never[0]}, which is one of the given steps"
            warnings.warn(text, CodeWarning, stacklevel=3)
        return t

    integers = {} if t is None else {"randint": steps, "integers": steps}
    replaced = dict.fromkeys(STANDARD, draw) | {"normal": scaled} | integers
    methods = {name: staticmethod(f) for name, f in replaced.items()}
    generator = type("Generator", (np.random.Generator,), methods)
    legacy = type("RandomState", (np.random.RandomState,), methods)
    make, torch = np.random.default_rng, sys.modules.get("torch")
    with ExitStack() as stack:
        stack.enter_context(
            patch.object(np.random, "default_rng", lambda *seed, **named: generator(make(*seed, **named).bit_generator))
        )
        stack.enter_context(patch.object(np.random, "RandomState", legacy))
        for module in filter(None, (np.random, torch)):
            for name in replaced.keys() & set(dir(module)):
                stack.enter_context(patch.object(module, name, replaced[name]))
        if torch is not None:
            stack.enter_context(patch.object(torch.Tensor, "normal_", filled))
        yield
    for what, given in ("noise", bool(noise)), ("t", t is not None):
        if given and not drawn[what]:
            source = "draws none of the given noise" if what == "noise" else "draws no random integers for the given t"
            remedy = "a generator made before, or another library, is not reached; pass its numbers as an argument"
            warnings.warn(f"the code {source}; {remedy}", NoDraw, stacklevel=3)


def never_drawn(t: Any, low: Any = 0, high: Any = None, *_: Any, endpoint: bool = False, **__: Any) -> list[int]:
    """The steps t that are not among the integers low..high−1, or 0..low−1 without high; none for bounds of arrays."""
    try:
        first, last = (0, operator.index(low)) if high is None else (operator.index(low), operator.index(high))
    except TypeError:  # torch.randint(high, size)
        return [] if high is None or not isinstance(high, tuple | list) else never_drawn(t, low, endpoint=endpoint)
    given = np.ravel(as_numpy(t))
    return [int(one) for one in given if not first <= one < last + endpoint]
