"""One reverse step of a noise-predicting model: ancestral and DDIM, given the predicted noise and fresh noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from scratchgen.ddpm.kernels import at, check_shapes, check_time, factor, predict_x0
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray, as_choice, as_number

EpsHat = Callable[[Array, int], Array]  # ε̂(x_t, t): predicted total noise, (N, D)


def reverse_variance(schedule: NoiseSchedule, variance: str | Array) -> Array:
    """σ_t² of p_θ(x_{t−1} | x_t) for t = 0..T, (T+1,); the deck leaves it open.

    Parameters
    ----------
    variance : {"beta", "posterior"} or (T+1,) array
        "beta": β_t², optimal for data N(0, I).  "posterior": β̃_t², optimal for data that is one point; since β̃_1 = 0
        would make L_0 infinite, its first step uses β_1².  An array gives σ_t² itself; index 0 is not used.
    """
    if isinstance(variance, str):
        as_choice(variance, "variance", ("beta", "posterior"))
        if variance == "beta":
            return schedule.beta**2
        table = schedule.beta_tilde**2
        table[1] = schedule.beta[1] ** 2
        return table
    table = np.array(variance, dtype=np.float64)
    if table.shape != (schedule.T + 1,) or not ((table[1:] > 0) & np.isfinite(table[1:])).all():
        raise ValueError(
            f"variance must be 'beta', 'posterior' or {schedule.T + 1} numbers, positive from index 1, "
            f"got {table if table.size < 9 else table.shape}"
        )
    table[0] = 0.0
    return table


def p_mean(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array) -> Array:
    """Mean of p_θ(x_{t−1} | x_t), (x_t − (β_t²/β̄_t) ε̂)/α_t, for predicted TOTAL noise ε̂.

    The deck's μ = (x_t − β_t ε_θ)/α_t is the same with its one-step network ε_θ = (β_t/β̄_t) ε̂.
    """
    check_time(schedule, t)
    check_shapes("eps_hat", eps_hat, "x_t", x_t)
    weight = at(schedule.beta, t) ** 2 / at(schedule.beta_bar, t)
    return (x_t - weight * eps_hat) / at(schedule.alpha, t)


def p_step(
    schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array, noise: Array, variance: str | Array = "beta"
) -> Array:
    """One ancestral step, x_{t−1} = μ_θ(x_t) + σ_t z with z = noise; also at t = 1, where p_θ has noise too."""
    std = np.sqrt(reverse_variance(schedule, variance))
    check_shapes("noise", noise, "x_t", x_t)
    return p_mean(schedule, t, x_t, eps_hat) + at(std, t) * noise


def ddim_step(
    schedule: NoiseSchedule,
    t: int | IntArray,
    s: int | IntArray,
    x_t: Array,
    eps_hat: Array,
    noise: Array | None = None,
    eta: float = 0.0,
) -> Array:
    """One DDIM step from t to any s < t (Song, Meng and Ermon 2021).

        x_s = ᾱ_s x̂_0 + √(β̄_s² − σ²) ε̂ + σ z,   σ = η (β̄_s/β̄_t) √(1 − ᾱ_t²/ᾱ_s²)

    η = 0 is deterministic; η = 1 with s = t−1 is the ancestral step with the posterior variance.

    Raises
    ------
    ValueError
        If s is not below t, η is outside [0, 1], or η > 0 comes without noise.
    """
    check_time(schedule, t)
    check_time(schedule, s, name="s", first=0)
    if not (np.asarray(s) < np.asarray(t)).all():
        raise ValueError(f"s must be below t, got s = {s}, t = {t}")
    eta = as_number(eta, "eta", low=0.0, high=1.0)
    if eta > 0 and noise is None:
        raise ValueError("noise is needed for eta > 0; pass standard normal noise of x_t's shape")
    if noise is not None:
        check_shapes("noise", noise, "x_t", x_t)
    alpha_bar, beta_bar = schedule.alpha_bar, schedule.beta_bar
    log_ratio = 2 * (np.log(alpha_bar[t]) - np.log(alpha_bar[s]))
    sigma = eta * beta_bar[s] / beta_bar[t] * np.sqrt(-np.expm1(log_ratio))
    direction = np.sqrt(np.maximum(beta_bar[s] ** 2 - sigma**2, 0.0))
    x_s = at(alpha_bar, s) * predict_x0(schedule, t, x_t, eps_hat) + factor(direction) * eps_hat
    return x_s if noise is None else x_s + factor(sigma) * noise


def ancestral_sampler(
    schedule: NoiseSchedule, eps_hat: EpsHat, x_T: Array, rng: np.random.Generator, variance: str | Array = "beta"
) -> Iterator[tuple[int, Array]]:
    """Yield (T, x_T), (T−1, x_{T−1}), …, (0, x_0), drawn from p_θ step by step, (19)."""
    table = reverse_variance(schedule, variance)
    x = x_T
    yield schedule.T, x
    for t in range(schedule.T, 0, -1):
        x = p_step(schedule, t, x, eps_hat(x, t), rng.standard_normal(x.shape, dtype=x.dtype), table)
        yield t - 1, x


def ddim_sampler(
    schedule: NoiseSchedule, eps_hat: EpsHat, x_T: Array, rng: np.random.Generator | None = None, eta: float = 0.0
) -> Iterator[tuple[int, Array]]:
    """Yield (T, x_T), (T−1, x_{T−1}), …, (0, x_0) by DDIM steps; `schedule.respace` makes them fewer and longer.

    `rng` is needed for eta > 0 only.
    """
    if as_number(eta, "eta", low=0.0, high=1.0) > 0 and rng is None:
        raise ValueError("rng is needed for eta > 0; pass numpy.random.default_rng(seed)")
    x = x_T
    yield schedule.T, x
    for t in range(schedule.T, 0, -1):
        noise = rng.standard_normal(x.shape, dtype=x.dtype) if eta > 0 and rng is not None else None
        x = ddim_step(schedule, t, t - 1, x, eps_hat(x, t), noise, eta)
        yield t - 1, x
