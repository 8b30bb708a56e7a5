"""The effect of rounding on a loop that calls a network at every step.

Two right codes of one loop differ by the rounding of every step.  The loop magnifies it by 1/α_t and by the slope of
the network.  The right side is therefore also computed with states and values of the network that are wrong by a few
machine epsilons at every step.  Ten times the effect is allowed, example by example.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.validation import Array

EPS = float(np.finfo(np.float64).eps)
ALLOWED = 10.0  # multiple of the effect of rounding that counts as equal
LARGEST = 1e-3  # of what is allowed, in units of 1 + |right|
N_PATTERNS = 4  # of signs of the errors

Shake = Callable[..., Array]  # (x, times=1.0) → x with rounding errors, `times` as large


def exactly(x: Array, times: float = 1.0) -> Array:
    """`x` without errors."""
    return x


def _shake(pattern: int) -> Shake:
    """Errors of four machine epsilons, with irregular signs that depend on the entries only."""
    return lambda x, times=1.0: x * (1 + 4 * EPS * times * np.where(np.sin(1e5 * x + pattern) > 0, 1.0, -1.0))


def growth(name: str, loop: Callable[[Shake], Array]) -> Array:
    """Ten times the effect of rounding on every number that a loop returns.

    Parameters
    ----------
    name : str
        Name of the check, for the error message.
    loop : callable
        loop(shake) → an array.  It shakes the state at the start of every step and every value of the network.

    Raises
    ------
    ValueError
        If the loop magnifies rounding so much that the result has fewer than three digits.
    """
    right = loop(exactly)
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = ALLOWED * np.max([np.abs(loop(_shake(pattern)) - right) for pattern in range(N_PATTERNS)], axis=0)
        share = np.max(allowed / (1 + np.abs(right)), initial=0.0)
    if np.isfinite(right).all() and not share <= LARGEST:
        raise ValueError(
            f"{name}: this problem leaves no digits in float64: its steps magnify rounding errors, so that right codes "
            f"may differ by {share:.1g} of the result; use smaller steps, or a network of smaller slope"
        )
    return np.asarray(allowed)


def unit_of_loop(name: str, walk: Callable[[Shake], Array], unit: Array, tolerance: float) -> Array:
    """`unit` of the end (N, D) of a loop, or more, so that ten times the effect of rounding is within the tolerance.

    The largest effect on an example counts for all its dimensions.  Arguments and errors are those of `growth`.
    """
    return np.maximum(unit, growth(name, walk).max(axis=1, keepdims=True) / tolerance)
