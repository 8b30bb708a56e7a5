"""DDIM inversion: the deterministic step run towards more noise."""

from __future__ import annotations

import numpy as np

from scratchgen.ddpm.kernels import check_time
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray, as_arrays, column


def ddim_inverse_step(
    schedule: NoiseSchedule, s: int | IntArray, t: int | IntArray, x_s: Array, eps_hat: Array
) -> Array:
    """The inverse of `ddim_step` with η = 0, from s to t > s, for the same ε̂ (Song, Meng and Ermon 2021).

        x_t = ᾱ_t (x_s − β̄_s ε̂)/ᾱ_s + β̄_t ε̂

    The round trip is exact only if both steps use the same ε̂.  An encoder knows ε̂(x_s, s), and not the ε̂(x_t, t) of
    the step that it inverts; its error is of second order in the length of a step.

    Parameters
    ----------
    s, t : int or (N,) of int
        s in 0..T−1, t in s+1..T.
    x_s, eps_hat : (N, D)

    Raises
    ------
    TypeError, ValueError
        If s or t is not a step, t is not above s, or eps_hat has another shape than x_s.
    """
    check_time(schedule, s, name="s", first=0)
    check_time(schedule, t)
    if not (np.asarray(t) > np.asarray(s)).all():
        raise ValueError(f"t must be above s, got t = {t}, s = {s}; `ddim_step` goes from t down to s")
    x_s, eps_hat = as_arrays("x_s (N, D), eps_hat (N, D)", x_s, eps_hat)
    ratio = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    return column(ratio, x_s) * x_s + column(schedule.beta_bar[t] - ratio * schedule.beta_bar[s], x_s) * eps_hat
