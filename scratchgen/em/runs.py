"""From the two steps to a fit: runs of EM from several starts, of which the best is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from scratchgen.estimator import Progress
from scratchgen.validation import Array

Theta = TypeVar("Theta")  # whatever parameters a model has
Expected = TypeVar("Expected")  # what its M-step needs of its E-step: responsibilities, or moments under them


def best_of_runs(
    starts: Iterable[Theta],
    e_step: Callable[[Theta], tuple[Expected, float]],
    m_step: Callable[[Expected, Theta], Theta],
    keep: Callable[[Theta, list[float], bool], None],
    tol: float,
    max_iter: int,
    n_runs: int,
) -> Iterator[Progress]:
    """EM from every start; yields after every M-step, with loss = −the mean objective of the E-step that follows it.

    Parameters
    ----------
    starts : iterable of θ
    e_step : θ → (what the M-step needs, mean objective)
    m_step : (that, θ) → θ
    keep : called with (θ, objectives of its run after every E-step, converged) of the best θ so far
        A start that has taken the lead is kept to its end, which by monotony is better still.
    tol : float
        A run has converged when its objective gains less than this.
    max_iter, n_runs : int
        M-steps of a run, and how many runs `Progress` shall announce.
    """
    best, step = -np.inf, 0
    for theta in starts:
        leads, converged, bounds = False, False, list[float]()
        while True:
            expected, bound = e_step(theta)
            bounds.append(bound)
            converged = len(bounds) > 1 and bounds[-1] - bounds[-2] < tol
            leads = leads or bound > best
            if leads:
                best = bound
                keep(theta, bounds, converged)
            if len(bounds) > 1:
                step += 1
                yield Progress(step, n_runs * max_iter, -bound)
            if converged or len(bounds) > max_iter:
                break
            theta = m_step(expected, theta)


def check_enough_rows(x: Array, n_components: int) -> None:
    """Refuse more components than examples: the rest would have nothing to respond to."""
    if n_components > len(x):
        raise ValueError(
            f"n_components must be at most the {len(x)} rows of x, got {n_components}; lower it or pass more data"
        )
