"""Noise for code that draws its own: the checks compare on shared noise, so that the code must get ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

NORMAL = ("randn", "randn_like", "standard_normal")


@contextmanager
def given_noise(*noise: Any, t: Any = None) -> Iterator[None]:
    """Let draws of torch and NumPy return given arrays, in the order of the calls, and random integers be t.

    `torch.randn`, `torch.randn_like`, `np.random.randn`, `np.random.standard_normal` and `standard_normal` of a
    generator made by `np.random.default_rng` return the next array; `torch.randint`, `np.random.randint` and `integers`
    of such a generator return t.  A generator made before is not reached.

    Parameters
    ----------
    *noise
        The arrays, as the code takes them, whatever shape it asks for.
    t
        The steps, as the code counts them; random integers are drawn as ever if None.

    Raises
    ------
    ValueError
        Within it, if the code draws more arrays than there are.

    Examples
    --------
    >>> import numpy as np
    >>> from scratchgen.conformance import given_noise
    >>> with given_noise([0.5, -1.0]):
    ...     np.random.randn(2)
    [0.5, -1.0]
    """
    left = iter(noise)

    def draw(*_: Any, **__: Any) -> Any:
        for array in left:
            return array
        raise ValueError(f"the code draws more than {len(noise)} times; give given_noise one array for each draw")

    def steps(*_: Any, **__: Any) -> Any:
        return t

    make = np.random.default_rng

    def generator(*seed: Any) -> SimpleNamespace:
        return SimpleNamespace(standard_normal=draw, integers=make(*seed).integers if t is None else steps)

    replaced = dict.fromkeys(NORMAL, draw) | ({} if t is None else {"randint": steps})
    with ExitStack() as stack:
        stack.enter_context(patch.object(np.random, "default_rng", generator))
        for module in filter(None, (np.random, sys.modules.get("torch"))):
            for name in replaced.keys() & set(dir(module)):
                stack.enter_context(patch.object(module, name, replaced[name]))
        yield
