"""Checks of the steps and times that training draws: a weighted mean over them is unbiased."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts
from scratchgen.conformance.result import Check, compare
from scratchgen.validation import Array

N_SHIFTS = 1024  # of the even grid over the one uniform number behind a draw of steps
N_TIME_SHIFTS = 128


def check_step_draws(draw: Callable[[float], tuple[ArrayLike, ArrayLike]], T: int) -> Check:
    """(29): random steps t with weights, E[(1/n) Σ weight · f(t)] = (1/T) Σ_t f(t).

    f runs over the indicators of the steps 0..T+1.

    Parameters
    ----------
    draw : callable
        draw(u) → (t (n,), weights (n,)), where the number u in (0, 1) shifts the whole draw.
    T : int
        Number of steps.

    Returns
    -------
    Check
        T times the share of every step.  The mean over a grid of 1024 values of u has errors at the edges of the cells,
        hence the tolerance 2e-2.
    """
    seen = np.zeros(T + 2)
    for u in (np.arange(N_SHIFTS) + 0.5) / N_SHIFTS:
        t, weights = parts(draw(float(u)), 2, "draw")
        inside = np.clip(t.astype(np.int64), 0, T + 1)
        seen += np.bincount(inside, weights=weights, minlength=T + 2) / len(t) / N_SHIFTS
    right = np.concatenate([[0.0], np.full(T, 1 / T), [0.0]])
    return compare(
        "check_step_draws",
        "(29)",
        "T times the weighted share of every step 0..T+1",
        T * seen,
        T * right,
        2e-2,
        {
            "step 1 is never drawn, or every step is one too late": lambda: (
                T * np.concatenate([[0.0, 0.0], right[2:-1], [1 / T]])
            ),
            "every step is one too early": lambda: T * np.append(right[1:], 0.0),
        },
    )


def check_time_draws(
    draw: Callable[[float], tuple[ArrayLike, ArrayLike]], clock: Callable[[Array], ArrayLike], n_moments: int = 4
) -> Check:
    """(33): random times t with weights, E[(1/n) Σ weight · c(t)^k] = 1/(k + 1) for k = 0..n_moments−1.

    These are the moments of a clock c(t) that is uniform on [0, 1].

    Parameters
    ----------
    draw : callable
        draw(u) → (t (n,), weights (n,)), where the number u in (0, 1) shifts the whole draw.
    clock : callable
        clock(t) → the share of the training interval before t, (n,), in the measure that is meant to be uniform.
    n_moments : int

    Returns
    -------
    Check
        Tolerance 2e-3, the error of the grid of u.
    """
    moments = np.zeros(n_moments)
    for u in (np.arange(N_TIME_SHIFTS) + 0.5) / N_TIME_SHIFTS:
        t, weights = parts(draw(float(u)), 2, "draw")
        powers = np.asarray(clock(t), dtype=np.float64)[:, None] ** np.arange(n_moments)
        moments += np.mean(weights[:, None] * powers, axis=0) / N_TIME_SHIFTS
    return compare(
        "check_time_draws",
        "(33)",
        "the weighted moments of the clock",
        moments,
        1 / np.arange(1.0, n_moments + 1),
        2e-3,
    )
