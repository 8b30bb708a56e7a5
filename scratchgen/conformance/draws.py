"""Checks of the steps and times that training draws: a weighted mean over them is unbiased."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts
from scratchgen.conformance.result import NAMELESS, Check, Mistakes, compare
from scratchgen.validation import Array

N_SHIFTS = 1024  # about so many numbers u in the even grid behind a draw of steps
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
        T times the share of every step.  u runs over an even grid.  Two halves of the grid give the error, which is 0
        if the draws change at multiples of 1/T only; it is added to the tolerance 1e-12.
    """
    check_callable(draw, "draw(u)")
    k = max(1, N_SHIFTS // (2 * T))
    halves, shares, weighted = np.zeros((2, T + 2)), np.zeros(T + 2), False
    for j in range(2 * T * k):
        t, weights = parts(draw((j + 0.5) / (2 * T * k)), 2, "draw")
        if t.ndim != 1 or weights.shape != t.shape or (t != np.round(t)).any():
            raise ValueError(f"draw must return whole steps (n,) and weights (n,), got {t} and shape {weights.shape}")
        inside = np.clip(t.astype(np.int64), 0, T + 1)
        shares += np.bincount(inside, minlength=T + 2) / len(t) / (2 * k)
        weighted = weighted or bool((weights != 1).any())
        halves[j % 2] += np.bincount(inside, weights=weights, minlength=T + 2) / len(t) / k
    left, right = halves.mean(axis=0), np.concatenate([[0.0], np.ones(T), [0.0]])
    error = np.abs(halves[0] - halves[1]) + (np.ptp(halves, axis=0).max() > 1e-9) * 4 * T / (2 * T * k)
    never_first = np.concatenate([[0.0, 0.0], np.full(T - 1, T / max(T - 1, 1)), [0.0]])

    def judged(mistakes: Mistakes) -> Check:
        return compare(
            "check_step_draws",
            "(29)",
            "T times the weighted share of every step 0..T+1",
            left,
            right,
            1e-12,
            mistakes,
            labels=([f"t = {t}" for t in range(T + 2)],),
            unit=1 + right + error / 1e-12,
        )

    of_weights: dict[str, Callable[[], Array]] = {
        "the weights are inverted: T p_t, not 1/(T p_t)": lambda: shares**2,
        "the weights are p_t, not 1/(T p_t)": lambda: shares**2 / T,
        "the weights are 1/√(T p_t), not 1/(T p_t)": lambda: np.sqrt(shares),
    }
    check = judged(
        {
            "every step is one too late: it is drawn from 2..T+1": lambda: np.concatenate([[0.0], right[:-1]]),
            "every step is one too early: it is drawn from 0..T−1, and t counts 1..T": lambda: np.append(
                right[1:], 0.0
            ),
            "step 1 is never drawn": lambda: never_first,
            "step 2 stands for step 1": lambda: np.concatenate([[0.0, 0.0, 2.0], right[3:]]),
            "step T is never drawn": lambda: np.concatenate([never_first[1 : T + 1], [0.0, 0.0]]),
            "steps are drawn from 0..T": lambda: np.append(np.full(T + 1, T / (T + 1)), 0.0),
            "0 and T have half the share: numbers in 0..T are rounded, or the partner of t is T − t": lambda: (
                np.concatenate([[0.5], np.ones(T - 1), [0.5, 0.0]])
            ),
            "the weights are summed, not averaged, over the draws": lambda: len(t) * right,
            "the weights are divided by T": lambda: right / T,
            "the weights are multiplied by T": lambda: right * T,
            **(of_weights if weighted else {}),
        }
    )
    outside = shares[0] + shares[-1] > 0
    if weighted or outside or not check.diagnosis.endswith(NAMELESS):
        return check
    return judged({"the draws are not even, and every weight is 1: the weights 1/(T p_t) are missing": lambda: shares})


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

    def moments_of(power: float, low: float = 0.0, high: float = 1.0) -> Callable[[], Array]:
        """The moments of (low + (high − low) u)^power, with u on an even grid."""
        u = (np.arange(100_000) + 0.5) / 100_000
        return lambda: np.array([((low + (high - low) * u) ** (power * k)).mean() for k in range(n_moments)])

    low, high = max(2 * float(moments[1]) - 1, 0.0), min(2 * float(moments[1]), 1.0)
    return compare(
        "check_time_draws",
        "(33)",
        "the weighted moments of the clock",
        moments,
        1 / np.arange(1.0, n_moments + 1),
        2e-3,
        {
            "the clock is u², with u uniform: early times are too frequent": moments_of(2.0),
            "the clock is √u, with u uniform: late times are too frequent": moments_of(0.5),
            f"the clock is uniform on [{low:.3g}, 1]: the start is never drawn": moments_of(1.0, low=low),
            f"the clock is uniform on [0, {high:.3g}]: the end is never drawn": moments_of(1.0, high=high),
        },
    )
