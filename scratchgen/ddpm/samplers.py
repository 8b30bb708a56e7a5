"""Reverse steps of a noise-predicting model, and the sampling loops: Algorithm 2 of Ho et al. (2020), and DDIM."""

from collections.abc import Callable, Iterator

import numpy as np

from scratchgen.ddpm.kernels import check_schedule, check_time, predict_x0
from scratchgen.ddpm.levels import LevelLaw, as_level_law, law_moments, mixture_step
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import (
    Array,
    IntArray,
    as_arrays,
    as_choice,
    as_number,
    as_real,
    check_callable,
    check_flag,
    check_positive,
    check_rng,
    column,
)

EpsHat = Callable[[Array, int], Array]  # ε̂(x_t, t): predicted total noise, (N, D)


def reverse_variance(schedule: NoiseSchedule, variance: str | Array, dimension: int | None = None) -> Array:
    """Variance σ_t² of p_θ(x_{t−1} | x_t) for t = 0..T, (T+1,), or (T+1, D) for such a table; σ_0² = 0.

    The deck does not specify σ_t².

    Parameters
    ----------
    variance : {"beta", "posterior"}, (T+1,) or (T+1, D) array
        "beta": β_t², optimal for data N(0, I).  "posterior": β̃_t², optimal for data that is one point; σ_1² is then
        β_1², since β̃_1 = 0 would make L_0 infinite.  An array gives σ_t² itself; index 0 is not used.
    dimension : int, optional
        D.  Without it a table of shape (T+1, D) is an error, because the caller needs one number for each t.

    Raises
    ------
    ValueError
        If variance is another name, or the array has another shape or a number that is not positive and finite.
    """
    check_schedule(schedule)
    if isinstance(variance, str):
        if as_choice(variance, "variance", ("beta", "posterior")) == "beta":
            return schedule.beta**2
        return np.concatenate([[0.0], schedule.beta[1:2] ** 2, schedule.beta_tilde[2:] ** 2])
    table = np.array(as_real(variance, "variance"), dtype=np.float64)
    shapes = [(schedule.T + 1,)] if dimension is None else [(schedule.T + 1,), (schedule.T + 1, dimension)]
    if table.shape not in shapes:
        raise ValueError(
            f"variance must be a name or an array of shape {' or '.join(map(str, shapes))}, one number for each "
            f"t = 0..T, got shape {table.shape}; pass 'beta', or put a 0, which is not used, before the "
            f"{schedule.T} numbers"
        )
    check_positive(table[1:], "variance", "pass positive numbers from index 1 on")
    table[0] = 0.0
    return table


def p_mean(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array) -> Array:
    """Mean of p_θ(x_{t−1} | x_t), (x_t − (β_t²/β̄_t) ε̂)/α_t, (N, D), for the predicted total noise ε̂.

    The deck's μ = (x_t − β_t ε_θ)/α_t has the same value for the deck's one-step network ε_θ = (β_t/β̄_t) ε̂.

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    x_t, eps_hat : (N, D)

    Raises
    ------
    TypeError, ValueError
        If t is not a step, or eps_hat has another shape than x_t.
    """
    check_time(schedule, t)
    x_t, eps_hat = as_arrays("x_t (N, D), eps_hat (N, D)", x_t, eps_hat)
    weight = column(schedule.beta[t] ** 2 / schedule.beta_bar[t], x_t)
    return (x_t - weight * eps_hat) / column(schedule.alpha[t], x_t)


def p_step(
    schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array, noise: Array, variance: str | Array = "beta"
) -> Array:
    """One ancestral step x_{t−1} = μ_θ(x_t) + σ_t z, (N, D).

    Noise is added at t = 1 as well, because p_θ(x_0 | x_1) has the variance σ_1²; Ho et al. (2020) set z = 0 there, as
    `ancestral_sampler` does with `denoise_last`.

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    x_t, eps_hat, noise : (N, D)
        x_t, the predicted total noise, and z.
    variance
        As for `reverse_variance`; (T+1, D) is allowed.
    """
    check_time(schedule, t)
    x_t, eps_hat, noise = as_arrays("x_t (N, D), eps_hat (N, D), noise (N, D)", x_t, eps_hat, noise)
    std = np.sqrt(reverse_variance(schedule, variance, x_t.shape[1]))
    of_t = column(std[t], x_t) if std.ndim == 1 else std[t].astype(x_t.dtype)
    return p_mean(schedule, t, x_t, eps_hat) + of_t * noise


def _level_step(
    schedule: NoiseSchedule, t: int, x_t: Array, law: LevelLaw, rng: np.random.Generator, variance: str
) -> Array:
    """One ancestral step of a `LevelLaw`: the mixture step, or the Gaussian step with its moments."""
    probabilities, noise = law.law(x_t, t), rng.standard_normal(x_t.shape, dtype=x_t.dtype)
    if variance == "mixture":
        return mixture_step(schedule, t, x_t, law.levels, probabilities, rng.random(x_t.shape), noise)
    mean, sigma_squared = law_moments(schedule, t, x_t, law.levels, probabilities)
    return mean + np.sqrt(sigma_squared).astype(x_t.dtype) * noise


def as_variance(
    schedule: NoiseSchedule, eps_hat: EpsHat | LevelLaw, variance: str | Array, dimension: int
) -> str | Array:
    """`variance` after its checks: a table of `reverse_variance`, or the name of a step of a `LevelLaw`."""
    return variance if as_level_law(eps_hat, variance) else reverse_variance(schedule, variance, dimension)


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

    For η = 0 the step is deterministic.  For η = 1 and s = t−1 the step is the ancestral step with variance β̃_t².

    Parameters
    ----------
    t, s : int or (N,) of int
        t in 1..T, s in 0..t−1.
    x_t, eps_hat : (N, D)
    noise : (N, D), optional
        z, needed for η > 0.
    eta : float
        η, in [0, 1].

    Raises
    ------
    TypeError, ValueError
        If s or t is not a step, s is not below t, η is outside [0, 1], η > 0 without noise, or shapes differ.
    """
    check_time(schedule, t)
    check_time(schedule, s, name="s", first=0)
    if not (np.asarray(s) < np.asarray(t)).all():
        raise ValueError(f"s must be below t, got s = {s}, t = {t}")
    eta = as_number(eta, "eta", low=0.0, high=1.0)
    if eta > 0 and noise is None:
        raise ValueError("noise is needed for eta > 0; pass standard normal noise of x_t's shape")
    x_t, eps_hat, noise = as_arrays("x_t (N, D), eps_hat (N, D), noise? (N, D)", x_t, eps_hat, noise)
    log_ratio = schedule.log_signal_ratio(s, t)  # of ᾱ_t²/ᾱ_s²
    added, ratio = -np.expm1(log_ratio), schedule.beta_bar[s] / schedule.beta_bar[t]
    sigma = eta * ratio * np.sqrt(added)
    # β̄_s² − σ² without cancellation, since β̄_t² = 1 − ᾱ_t²/ᾱ_s² + (ᾱ_t²/ᾱ_s²) β̄_s²
    direction = ratio * np.sqrt((1 - eta) * (1 + eta) * added + np.exp(log_ratio) * schedule.beta_bar[s] ** 2)
    x_s = column(schedule.alpha_bar[s], x_t) * predict_x0(schedule, t, x_t, eps_hat) + column(direction, x_t) * eps_hat
    return x_s if noise is None else x_s + column(sigma, x_t) * noise


def ancestral_sampler(
    schedule: NoiseSchedule,
    eps_hat: EpsHat,
    x_T: Array,
    rng: np.random.Generator,
    variance: str | Array = "beta",
    denoise_last: bool = False,
) -> Iterator[tuple[int, Array]]:
    """Algorithm 2 of Ho et al. (2020): draw x_{T−1}, …, x_0 from p_θ step by step, (19).

    Parameters
    ----------
    eps_hat : callable
        ε̂(x_t, t), (N, D), for an int t; a `LevelLaw` for variance "law" and "mixture".
    x_T : (N, D)
        Draws of N(0, I).
    rng : Generator
        Source of the noise of the steps.
    variance
        As for `reverse_variance`; (T+1, D) is allowed.  "law": the Gaussian step with the moments of `law_moments`.
        "mixture": `mixture_step`.
    denoise_last : bool
        Let x_0 be the mean of p_θ(x_0 | x_1), without its noise σ_1 z, as Ho et al. (2020) do.  The law of x_0 is then
        not p_θ(x_0), the law that the bound is about.

    Yields
    ------
    t, x_t : int, (N, D)
        For t = T, T−1, …, 0.
    """
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    check_rng(rng)
    check_flag(denoise_last, "denoise_last")
    law = as_level_law(eps_hat, variance)
    x = as_arrays("x_T (N, D)", x_T)
    table = as_variance(schedule, eps_hat, variance, x.shape[1])
    yield schedule.T, x
    for t in range(schedule.T, 0, -1):
        if t == 1 and denoise_last:
            x = p_mean(schedule, t, x, eps_hat(x, t))
        elif law is not None:
            x = _level_step(schedule, t, x, law, rng, str(variance))
        else:
            x = p_step(schedule, t, x, eps_hat(x, t), rng.standard_normal(x.shape, dtype=x.dtype), table)
        yield t - 1, x


def ddim_sampler(
    schedule: NoiseSchedule, eps_hat: EpsHat, x_T: Array, rng: np.random.Generator | None = None, eta: float = 0.0
) -> Iterator[tuple[int, Array]]:
    """Draw x_{T−1}, …, x_0 by DDIM steps from t to t−1; use `schedule.respace` for fewer and longer steps.

    Parameters
    ----------
    eps_hat, x_T
        As for `ancestral_sampler`.
    rng : Generator, optional
        Source of the noise, needed for eta > 0.
    eta : float
        η of `ddim_step`.

    Yields
    ------
    t, x_t : int, (N, D)
        For t = T, T−1, …, 0.

    Raises
    ------
    ValueError
        If eta is outside [0, 1], or eta > 0 without rng.
    """
    if as_number(eta, "eta", low=0.0, high=1.0) > 0 and rng is None:
        raise ValueError("rng is needed for eta > 0; pass numpy.random.default_rng(seed)")
    check_schedule(schedule)
    check_callable(eps_hat, "eps_hat", "(x_t (N, D), t) → (N, D)")
    if rng is not None:
        check_rng(rng)
    x = as_arrays("x_T (N, D)", x_T)
    yield schedule.T, x
    for t in range(schedule.T, 0, -1):
        noise = rng.standard_normal(x.shape, dtype=x.dtype) if eta > 0 and rng is not None else None
        x = ddim_step(schedule, t, t - 1, x, eps_hat(x, t), noise, eta)
        yield t - 1, x
