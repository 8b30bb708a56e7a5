"""Checks of reverse steps from a law over levels, and of a schedule with even log-SNR.

The right sides use Bayes' rule only.  For independent pixels with histograms h the reverse step is exactly

    q(x_{t−1} | x_t) = q(x_t | x_{t−1}) q(x_{t−1})/q(x_t),   q(x_t) = Σ_k h_k N(x_t; ᾱ_t l_k, β̄_t²)

and P(l_k | x_t) is the posterior of the level.  Neither needs the posterior of x_{t−1} given x_0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, returned, takes_arrays
from scratchgen.conformance.reference_chain import Steps, compose
from scratchgen.conformance.result import Check, compare
from scratchgen.likelihood import logsumexp
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_count, as_number

LEVELS = np.array([-1.0, -0.3, 0.2, 1.0])  # not even, so that no formula for even levels passes
HISTOGRAMS = np.array([[0.1, 0.4, 0.2, 0.3], [0.6, 0.05, 0.25, 0.1]])
MOST_STEPS = 8
NARROWEST = 1e-3  # β̃_t that quadrature resolves on its grid


def _log_normal(x: Array, mean: Array, variance: float) -> Array:
    return np.asarray(-0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance)))


def _log_marginal(steps: Steps, t: int, x: Array) -> Array:
    """log of h_dk N(x_d; ᾱ_t l_k, β̄_t²), (…, D, K), whose sum over k is the density of pixel d."""
    return np.log(HISTOGRAMS) + _log_normal(x[..., None], steps.scale[t] * LEVELS, float(steps.total[t]))


def _problem(steps: Steps, t: int) -> tuple[Array, Array, Array]:
    """x_{t−1} and x_t of three examples of two pixels from the forward process, and P(level | x_t) by Bayes' rule."""
    z = np.sin(1.7 * np.arange(1, 13) ** 1.3 + t).reshape(2, 3, 2)
    x_prev = steps.scale[t - 1] * np.array([[-1.0, 0.2], [-0.3, 1.0], [1.0, -0.3]]) + 1.4 * steps.std[t - 1] * z[0]
    x_t = steps.alpha[t] * x_prev + 1.4 * np.sqrt(steps.variance[t]) * z[1]
    joint = _log_marginal(steps, t, x_t)
    return x_prev, x_t, np.exp(joint - logsumexp(joint)[..., None])


def _chosen(schedule: NoiseSchedule, name: str) -> tuple[Steps, list[int]]:
    """The reference chain, and at most eight of the steps from 2 on whose β̃_t is not too narrow."""
    steps = compose(schedule)
    wide = np.flatnonzero(np.sqrt(steps.posterior) > NARROWEST)
    if not len(wide):
        raise ValueError(f"{name}: schedule needs a step t >= 2 with β̃_t above {NARROWEST:g}; pass one with more noise")
    return steps, wide[np.unique(np.linspace(0, len(wide) - 1, MOST_STEPS).round().astype(int))].tolist()


@takes_arrays
def check_mixture_step(
    log_prob: Callable[[int, Array, Array, Array, Array], ArrayLike], schedule: NoiseSchedule
) -> Check:
    """The mixture step Π_d Σ_k P(l_k | x_t) q(x_{t−1,d} | x_t,d, l_k) of independent pixels is q(x_{t−1} | x_t).

    Parameters
    ----------
    log_prob : callable
        log_prob(t, x_prev (N, D), x_t (N, D), levels (K,), law (N, D, K)) → log density of x_{t−1}, (N,), for t >= 2.
    schedule : NoiseSchedule
        At most eight of its steps are used.

    Returns
    -------
    Check
        log p_θ(x_{t−1} | x_t), one row a step; tolerance 1e-9.
    """
    check_callable(log_prob, "log_prob(t, x_prev, x_t, levels, law)")
    steps, chosen = _chosen(schedule, "check_mixture_step")
    left, right = [], []
    parts_of_steps: list[tuple[Array, Array, Array, Array, float]] = []
    for t in chosen:
        x_prev, x_t, law = _problem(steps, t)
        left.append(returned(log_prob(t, x_prev, x_t, LEVELS.copy(), law.copy()), (3,), "log_prob"))
        forward = _log_normal(x_t, steps.alpha[t] * x_prev, float(steps.variance[t]))
        before, after = (logsumexp(_log_marginal(steps, s, x)) for s, x in ((t - 1, x_prev), (t, x_t)))
        right.append((forward + before - after).sum(axis=1))
        v = float(steps.posterior[t])
        keep = v * steps.alpha[t] / steps.variance[t]
        gain = v * steps.scale[t - 1] / steps.total[t - 1]
        parts_of_steps.append((x_prev[..., None], keep * x_t[..., None] + gain * LEVELS, law, np.log(HISTOGRAMS), v))

    def wrong(formula: Callable[[Array, Array, Array, Array, float], Array]) -> list[Array]:
        return [formula(*part) for part in parts_of_steps]

    return compare(
        "check_mixture_step",
        "(24)",
        "log p_θ(x_{t−1} | x_t)",
        left,
        right,
        1e-9,
        {
            "the logarithm stands inside the sum: Σ_k P(l_k) log q": lambda: wrong(
                lambda x, mean, law, h, v: (law * _log_normal(x, mean, v)).sum(axis=(1, 2))
            ),
            "all pixels share one level: a mixture of products": lambda: wrong(
                lambda x, mean, law, h, v: logsumexp((np.log(law) + _log_normal(x, mean, v)).sum(axis=1))
            ),
            "it is the Gaussian with the mean of the mixture and the variance β̃_t²": lambda: wrong(
                lambda x, mean, law, h, v: _log_normal(x[..., 0], (law * mean).sum(axis=2), v).sum(axis=1)
            ),
            "it is the Gaussian with the mean and the variance of the mixture": lambda: wrong(_gaussian),
            "the weights are the histograms, not P(l_k | x_t)": lambda: wrong(
                lambda x, mean, law, h, v: logsumexp(h + _log_normal(x, mean, v)).sum(axis=1)
            ),
            "β̃_t stands where β̃_t² belongs": lambda: wrong(
                lambda x, mean, law, h, v: logsumexp(np.log(law) + _log_normal(x, mean, v**0.5)).sum(axis=1)
            ),
            "−½ log 2π is missing": lambda: np.array(right) + np.log(2 * np.pi),
        },
        labels=lambda i: f"t = {chosen[i[0]]}: log p_θ(x_{{t−1}} | x_t) of example {i[1]}",
    )


def _gaussian(x: Array, mean: Array, law: Array, h: Array, v: float) -> Array:
    """The Gaussian with the moments of the mixture."""
    centre = (law * mean).sum(axis=2)
    variance: Any = v + (law * (mean - centre[..., None]) ** 2).sum(axis=2)
    return _log_normal(x[..., 0], centre, variance).sum(axis=1)


@takes_arrays
def check_law_moments(
    moments: Callable[[int, Array, Array, Array], tuple[ArrayLike, ArrayLike]], schedule: NoiseSchedule
) -> Check:
    """Mean and variance of every pixel of x_{t−1} given x_t, by quadrature of q(x_{t−1} | x_t) from Bayes' rule.

    The mean is A_t x_t + B_t E[x_0 | x_t], and the variance is β̃_t² + B_t² Var[x_0 | x_t].

    Parameters
    ----------
    moments : callable
        moments(t, x_t (N, D), levels (K,), law (N, D, K)) → (mean, variance), (N, D) each, for t >= 2.
    schedule : NoiseSchedule
        At most eight of its steps are used.

    Returns
    -------
    Check
        Mean, and variance in units of β̃_t²; tolerance 1e-9.
    """
    check_callable(moments, "moments(t, x_t, levels, law)")
    steps, chosen = _chosen(schedule, "check_law_moments")
    left, right, spreads, weights = [], [], [], []
    for t in chosen:
        _, x_t, law = _problem(steps, t)
        v = float(steps.posterior[t])
        mean, variance = (
            returned(part, (3, 2), "moments")
            for part in parts(moments(t, x_t, LEVELS.copy(), law.copy()), 2, "moments")
        )
        left.append([mean, variance / v])
        nodes = np.arange(-12.0, 12.0, 0.2 * v**0.5)[:, None, None]  # (M, 1, 1)
        density = _log_normal(x_t, steps.alpha[t] * nodes, float(steps.variance[t]))
        density = density + logsumexp(_log_marginal(steps, t - 1, np.broadcast_to(nodes, density.shape)))
        mass = np.exp(density - density.max(axis=0))
        mass /= mass.sum(axis=0)
        centre = (mass * nodes).sum(axis=0)
        right.append([centre, (mass * (nodes - centre) ** 2).sum(axis=0) / v])
        spread = (law * LEVELS**2).sum(axis=2) - (law @ LEVELS) ** 2
        spreads.append(spread / v)
        weights.append(v * steps.scale[t - 1] / steps.total[t - 1])
    exact, B = np.array(right), np.array(weights)[:, None, None]
    spread_of = np.array(spreads)

    def with_variance(variance: Array) -> Array:
        return np.stack([exact[:, 0], np.broadcast_to(variance, spread_of.shape)], axis=1)

    beta_squared = (steps.variance[chosen] / steps.posterior[chosen])[:, None, None]
    return compare(
        "check_law_moments",
        "(24)",
        "mean and variance/β̃_t² of x_{t−1} given x_t",
        left,
        exact,
        1e-9,
        {
            "the variance of the law is missing: the variance is β̃_t²": lambda: with_variance(np.array(1.0)),
            "B_t is not squared": lambda: with_variance(1 + B * spread_of),
            "B_t is missing: the variance of x_0 is added": lambda: with_variance(1 + spread_of),
            "β_t² stands where β̃_t² belongs": lambda: with_variance(beta_squared + B**2 * spread_of),
            "β̃_t² is missing: it is the variance of the law alone": lambda: with_variance(B**2 * spread_of),
            "the variance is that of all pixels, averaged": lambda: with_variance(
                (1 + B**2 * spread_of).mean(axis=2, keepdims=True)
            ),
        },
        labels=lambda i: (
            f"t = {chosen[i[0]]}: {('mean', 'variance/β̃_t²')[i[1]]} of x_{{t−1}} in example {i[2]}, pixel {i[3]}"
        ),
    )


def check_even_log_snr(
    schedule: Callable[[int, float, float], ArrayLike], T: int = 7, first: float = 4.5, last: float = -6.0
) -> Check:
    """log ᾱ_t²/β̄_t² of a schedule, composed from its β_t², falls in even steps from `first` at t = 1 to `last` at T.

    Parameters
    ----------
    schedule : callable
        schedule(T, first, last) → the variances β_1², …, β_T², (T,).
    T : int
        At least 3.
    first, last : float
        Log-SNRs, first above last.

    Returns
    -------
    Check
        Log-SNR of the steps 1..T; tolerance 1e-9.
    """
    check_callable(schedule, "schedule(T, first, last)")
    T, last = as_count(T, "T", minimum=3), as_number(last, "last")
    first = as_number(first, "first", low=last, open_low=True)
    log_signal = np.cumsum(np.log1p(-returned(schedule(T, first, last), (T,), "schedule")))
    i = np.arange(T)
    right = first + (last - first) * i / (T - 1)

    return compare(
        "check_even_log_snr",
        "(25)",
        "log ᾱ_t²/β̄_t²",
        log_signal - np.log(-np.expm1(log_signal)),
        right,
        1e-9,
        {
            "the ends are log ᾱ_t/β̄_t, half the log-SNR": lambda: 2 * right,
            "the last step falls short: the grid has T + 1 steps": lambda: first + (last - first) * i / T,
            "the first log-SNR is that of t = 0": lambda: first + (last - first) * (i + 1) / T,
            "the ends are powers of ten": lambda: right * np.log(10),
        },
        first=1,
    )
