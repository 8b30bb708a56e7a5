"""Reverse steps from a law over levels: the mixture step, and the Gaussian step with the mixture's variance.

A model of whole numbers predicts P(x_0d = l_k | x_t) for every dimension d and level l_k.  With it the reverse step is

    p_θ(x_{t−1} | x_t) = Π_d Σ_k P(l_k | x_t) q(x_{t−1,d} | x_t,d, l_k)

A Gaussian step with the mean and the variance of this mixture, in every dimension, needs no further training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen.ddpm.kernels import check_step_number, posterior_coefficients, q_posterior
from scratchgen.likelihood import LOG_2PI, draw_levels, logsumexp, quiet_log
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_arrays, as_finite, check_probabilities

LEVEL_STEPS = ("law", "mixture")  # values of `variance` that need a law over levels


@dataclass(frozen=True, eq=False)
class LevelLaw:
    """A noise predictor that knows the law over the levels; `variance` "law" and "mixture" take it for `eps_hat`.

    Parameters
    ----------
    schedule : NoiseSchedule
    levels : (K,)
        l_k, the values of x_0.
    law : callable
        P(x_0d = l_k | x_t) of x_t (N, D) and an int t, (N, D, K).
    """

    schedule: NoiseSchedule
    levels: Array
    law: Callable[[Array, int], Array]

    def __call__(self, x_t: Array, t: int) -> Array:
        """ε̂ = (x_t − ᾱ_t E[x_0 | x_t])/β̄_t, (N, D)."""
        check_step_number(self.schedule, t)
        mean = (self.law(x_t, t) @ self.levels).astype(x_t.dtype)
        return (x_t - float(self.schedule.alpha_bar[t]) * mean) / float(self.schedule.beta_bar[t])


def as_level_law(eps_hat: Any, variance: str | Array) -> LevelLaw | None:
    """The `LevelLaw` of a step whose variance is "law" or "mixture", None for others; TypeError if eps_hat is none."""
    if not isinstance(variance, str) or variance not in LEVEL_STEPS:
        return None
    if not isinstance(eps_hat, LevelLaw):
        raise TypeError(
            f"eps_hat must be a LevelLaw for variance={variance!r}, got {eps_hat!r:.60}; "
            "pass LevelLaw(schedule, levels, law)"
        )
    return eps_hat


def law_moments(schedule: NoiseSchedule, t: int, x_t: Array, levels: Array, law: Array) -> tuple[Array, Array]:
    """Mean and variance of the mixture step in every dimension, (N, D) each.

        mean A_t x_t + B_t E[x_0 | x_t],   variance β̃_t² + B_t² Var[x_0d | x_t]

    A_t and B_t are `posterior_coefficients`.  At t = 1 the variance is that of the law, which may be 0.

    Parameters
    ----------
    t : int
        In 1..T.
    x_t : (N, D)
    levels : (K,)
        l_k.
    law : (N, D, K)
        P(x_0d = l_k | x_t).

    Raises
    ------
    TypeError, ValueError
        If t is not a step, or shapes disagree.
    """
    x_t, levels, law = _checked(schedule, t, x_t, levels, law)
    mean = law @ levels
    spread = (law * (levels - mean[:, :, None]) ** 2).sum(axis=2)
    _, weight = posterior_coefficients(schedule, t)
    return q_posterior(schedule, t, x_t, mean.astype(x_t.dtype))[0], schedule.beta_tilde[t] ** 2 + weight**2 * spread


def mixture_log_prob(schedule: NoiseSchedule, t: int, x_prev: Array, x_t: Array, levels: Array, law: Array) -> Array:
    """log Π_d Σ_k P(l_k | x_t) N(x_{t−1,d}; A_t x_t,d + B_t l_k, β̃_t²), (N,), nats; arguments as for `law_moments`.

    Parameters
    ----------
    t : int
        In 2..T.  At t = 1 the step has no density, because x_0 is one of the levels.
    x_prev : (N, D)
        x_{t−1}.

    Raises
    ------
    TypeError, ValueError
        If t is not a step, t is 1, or shapes disagree.
    """
    x_t, levels, law = _checked(schedule, t, x_t, levels, law)
    x_prev = as_arrays("x_prev (N, D)", x_prev, N=len(x_t), D=x_t.shape[1])
    check_has_density(t, "mixture")
    keep, weight = posterior_coefficients(schedule, t)
    std = float(schedule.beta_tilde[t])
    distance = ((x_prev - keep * x_t)[:, :, None] - weight * levels) / std
    terms = logsumexp(quiet_log(law) - 0.5 * distance**2) - np.log(std) - 0.5 * LOG_2PI
    return terms.sum(axis=1)


def mixture_step(
    schedule: NoiseSchedule, t: int, x_t: Array, levels: Array, law: Array, uniform: Array, noise: Array
) -> Array:
    """A draw of the mixture step: a level of every dimension from `law`, then q(x_{t−1} | x_t, level), (N, D).

    At t = 1 the draw is the level.

    Parameters
    ----------
    t, x_t, levels, law
        As for `law_moments`.
    uniform : (N, D)
        Uniform numbers in [0, 1), which choose the levels.
    noise : (N, D)
        Standard normal.
    """
    x_t, levels, law = _checked(schedule, t, x_t, levels, law)
    uniform, noise = as_arrays("uniform (N, D), noise (N, D)", uniform, noise, N=len(x_t), D=x_t.shape[1])
    drawn = levels[draw_levels(law, uniform)].astype(x_t.dtype)
    mean, _ = q_posterior(schedule, t, x_t, drawn)
    return mean + float(schedule.beta_tilde[t]) * noise


def check_has_density(t: int, variance: str) -> None:
    """Raise ValueError at t = 1, where the law of x_0 is over levels."""
    if t == 1:
        raise ValueError(
            f"t must be at least 2 for variance={variance!r}, because the first step draws levels and has no density, "
            "got 1; pass a decoder for x_0"
        )


def _checked(schedule: NoiseSchedule, t: int, x_t: Array, levels: Array, law: Array) -> tuple[Array, Array, Array]:
    """x_t, levels and law after checks of t, of the shapes and of the sums."""
    check_step_number(schedule, t)
    x_t, levels, law = as_arrays("x_t (N, D), levels (K), law (N, D, K)", x_t, levels, law)
    check_probabilities(law, "law")
    return x_t, as_finite(levels, "levels"), law
