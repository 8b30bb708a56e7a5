"""Equations (19)-(24): the two Markov chains and their log-densities along given paths.

A path is an array (T+1, N, D) of x_0, …, x_T.  With E over q, log q − log p_θ of a path is KL(q‖p_θ), (20), and every
term of (21) is one `p_log_prob`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scratchgen.ddpm.kernels import q_step
from scratchgen.ddpm.samplers import p_mean, reverse_variance
from scratchgen.likelihood import LOG_2PI, gaussian_log_prob
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array

if TYPE_CHECKING:
    from scratchgen.ddpm.samplers import EpsHat


def q_path(schedule: NoiseSchedule, x0: Array, noise: Array) -> Array:
    """The forward path x_0, …, x_T, (T+1, N, D), that noise (T, N, D) makes step by step; noise[t−1] is ε_t."""
    path = [x0]
    for t in range(1, schedule.T + 1):
        path.append(q_step(schedule, t, path[-1], noise[t - 1]))
    return np.stack(path)


def q_log_prob(schedule: NoiseSchedule, t: int, x_t: Array, x_prev: Array) -> Array:
    """log q(x_t | x_{t−1}) = log N(x_t; α_t x_{t−1}, β_t² I), (N,), nats."""
    return gaussian_log_prob(x_t, q_step(schedule, t, x_prev, np.zeros_like(x_prev)), 2 * np.log(schedule.beta[t]))


def p_log_prob(
    schedule: NoiseSchedule, t: int, x_prev: Array, x_t: Array, eps_hat: EpsHat, variance: str | Array = "beta"
) -> Array:
    """log p_θ(x_{t−1} | x_t) = log N(x_{t−1}; μ_θ(x_t), σ_t² I), (N,), nats: minus the integrand of (22)-(24).

    The deck writes ‖x_{t−1} − μ‖²/(2σ_t²) and drops (D/2) log 2πσ_t², without which no two σ_t can be compared.
    Of the whole path it needs x_{t−1} and x_t only, which is why (22) integrates down to (24).
    """
    log_variance = np.log(reverse_variance(schedule, variance)[t])
    return gaussian_log_prob(x_prev, p_mean(schedule, t, x_t, eps_hat(x_t, t)), log_variance)


def forward_log_prob(schedule: NoiseSchedule, path: Array) -> Array:
    """log q(x_1, …, x_T | x_0) = Σ_t log q(x_t | x_{t−1}), (N,), nats, the first line of (19) without q̃(x_0)."""
    return np.sum([q_log_prob(schedule, t, path[t], path[t - 1]) for t in range(1, schedule.T + 1)], axis=0)


def reverse_log_prob(schedule: NoiseSchedule, path: Array, eps_hat: EpsHat, variance: str | Array = "beta") -> Array:
    """log p_θ(x_0, …, x_T) = log N(x_T; 0, I) + Σ_t log p_θ(x_{t−1} | x_t), (N,), nats, the second line of (19)."""
    steps = [p_log_prob(schedule, t, path[t - 1], path[t], eps_hat, variance) for t in range(1, schedule.T + 1)]
    return gaussian_log_prob(path[-1], np.zeros_like(path[-1]), 0.0) + np.sum(steps, axis=0)


def forward_entropy(schedule: NoiseSchedule, dimension: int) -> float:
    """−E_q log q(x_1, …, x_T | x_0) = Σ_t (D/2) log 2πeβ_t², nats: what the deck's first "=" in (21) leaves out.

    It contains no θ, because the forward process is fixed; together with H(x_0) it turns (21) into (20).
    """
    return float(0.5 * dimension * (LOG_2PI + 1 + 2 * np.log(schedule.beta[1:])).sum())
