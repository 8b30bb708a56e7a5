"""Checks of equation (32): the reverse SDE, its steps, and samplers on any grid of times.

The reverse drift has to move the moments of a Gaussian as the forward process moves them.  The callables belong to
one instance: their SDE and their score are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned, takes_arrays
from scratchgen.conformance.reference_chain import coefficients, factors
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import affine_map
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array


@takes_arrays
def check_reverse_sde(
    drift: Callable[[Array, float], ArrayLike],
    diffusion: Callable[[float], ArrayLike],
    sde: LinearSDE,
    mean: Array,
    covariance: Array,
    stochasticity: float = 1.0,
) -> Check:
    """(32): on data N(mean, covariance) the reverse drift moves the moments as the forward process does.

    For a drift A x + c and a diffusion G, A V + V Aᵀ − G² I = 2 f V + g² I and A m + c = f m hold at every t.  The mean
    alone does not depend on the score.

    Parameters
    ----------
    drift : callable
        drift(x (N, D), t) → (N, D), with the exact score of the diffused data.  Time runs backwards, dt < 0.
    diffusion : callable
        diffusion(t) → G(t), the factor of dw̄.
    sde : LinearSDE
    mean : (D,)
    covariance : (D, D)
        Covariance of the data.
    stochasticity : float
        0 for the probability flow (G = 0), 1 for the reverse SDE (G = g), or any other value.

    Returns
    -------
    Check
        The largest of three residuals; tolerance 1e-9.
    """
    D, times = len(mean), sde.horizon * np.array([0.1, 0.3, 0.6, 0.85, 1.0])

    def law(t: float) -> tuple[Array, Array]:
        scale, std = sde.level(t)
        return scale * mean, scale**2 * covariance + std**2 * np.eye(D)

    def rates(t: float, A: Array, c: Array) -> Array:
        """d(mean, covariance)/dt under the drift A x + c and the diffusion under test."""
        m, V = law(t)
        spread = A @ V + V @ A.T - float(np.asarray(diffusion(t))) ** 2 * np.eye(D)
        return np.concatenate([A @ m + c, spread.ravel()])

    def drift_of(t: float, weight: Callable[[float], float], sign: float = 1.0) -> Array:
        """Rates of the moments under the drift sign · f x + weight(g) V⁻¹(x − m)."""
        m, V = law(t)
        pull = weight(float(sde.diffusion(t))) * np.linalg.inv(V)
        return rates(t, sign * float(sde.rate(t)) * np.eye(D) + pull, -pull @ m)

    maps = [affine_map(lambda x, t=t: returned(drift(x, t), x.shape, "drift"), D) for t in times]  # type: ignore[misc]
    left = [rates(t, A, c) for t, (A, c) in zip(times, maps, strict=True)]
    far = 5 * np.concatenate([np.eye(D), -np.eye(D)])
    name = "check_reverse_sde"
    right = []
    for t in times:
        (m, V), f, g = law(t), float(sde.rate(t)), float(sde.diffusion(t))
        right.append(np.concatenate([f * m, (2 * f * V + g**2 * np.eye(D)).ravel()]))
    k, coefficient = 0.5 * (1 + stochasticity**2), np.array([float(sde.diffusion(t)) for t in times])
    return worst(
        compare(
            name,
            "(32)",
            "the diffusion (it should be stochasticity · g)",
            [float(np.asarray(diffusion(t))) for t in times],
            stochasticity * coefficient,
            1e-9,
            {
                "it is g for every stochasticity": lambda: coefficient,
                "it is g², not g": lambda: coefficient**2,
                "it is stochasticity · g², not stochasticity · g": lambda: stochasticity * coefficient**2,
            },
        ),
        compare(
            name,
            "(32)",
            "the drift at ±5 (it should be affine)",
            np.array([np.asarray(drift(far, t)) for t in times]),
            [far @ A.T + c for A, c in maps],
            1e-9,
        ),
        compare(
            name,
            "(32)",
            "d(mean, covariance)/dt",
            left,
            right,
            1e-9,
            {
                "the score has the wrong sign": lambda: [drift_of(t, lambda g: -k * g**2) for t in times],
                "the score is missing": lambda: [drift_of(t, lambda g: 0.0) for t in times],
                "g stands where g² belongs": lambda: [drift_of(t, lambda g: k * g) for t in times],
                "the score has the flow's ½ in the SDE": lambda: [drift_of(t, lambda g: 0.5 * g**2) for t in times],
                "the score has the SDE's factor in the flow": lambda: [drift_of(t, lambda g: g**2) for t in times],
                "f has the wrong sign": lambda: [drift_of(t, lambda g: k * g**2, -1.0) for t in times],
                "the whole drift has the wrong sign": lambda: [drift_of(t, lambda g: -k * g**2, -1.0) for t in times],
            },
        ),
    )


@takes_arrays
def check_reverse_step(
    step: Callable[[Array, float, float, Array], ArrayLike], sde: LinearSDE, mean: float, variance: float
) -> Check:
    """(32): a small step with the exact score samples q(x_s | x_t) up to an error of O((t−s)²), on scalar data.

    Parameters
    ----------
    step : callable
        step(x (N, 1), t, s, noise (N, 1)) → x at the time s < t.
    sde : LinearSDE
    mean, variance : float
        Mean and variance of the data.

    Returns
    -------
    Check
        Errors of mean and variance at a step of 1e-4 of the horizon, relative to the change by f and g in this step;
        tolerance 2e-2.
    """
    left, right = [], []
    h = 1e-4 * sde.horizon
    for t in sde.horizon * np.array([0.2, 0.5, 0.8, 1.0]):
        (scale_s, std_s), (scale_t, std_t) = ((float(a), float(b)) for a, b in (sde.marginal(t - h), sde.marginal(t)))
        V_s, V_t = scale_s**2 * variance + std_s**2, scale_t**2 * variance + std_t**2
        gain = scale_t / scale_s * V_s / V_t
        unit = (float(sde.diffusion(t)) ** 2 + abs(float(sde.rate(t))) * (V_t + scale_t**2 * mean**2)) * h
        z = np.array([[-1.5], [0.0], [1.5], [0.0]])
        noise = np.array([[0.0], [0.0], [0.0], [1.0]])
        x = scale_t * mean + np.sqrt(V_t) * z
        out = returned(step(x, t, t - h, noise), (4, 1), "step")[:, 0]
        exact = scale_s * mean + gain * np.sqrt(V_t) * z[:3, 0]
        left.append([*((out[:3] - exact) * np.sqrt(V_t) / unit), (out[3] - out[1]) ** 2 / unit])
        right.append([0.0, 0.0, 0.0, V_s * (1 - gain * scale_t / scale_s) / unit])
    zeros = np.array(right) * [1, 1, 1, 0]
    return compare(
        "check_reverse_step",
        "(32)",
        "the error of the mean and the variance of a small step, per unit of time",
        left,
        right,
        2e-2,
        {
            "there is no noise, or the noise has factor g dt, not g √dt": lambda: zeros,
        },
    )


@takes_arrays
def check_reverse_sampler(
    sample: Callable[[Array, Array, Array], ArrayLike],
    score: Callable[[Array, float], Array],
    sde: LinearSDE,
    times: Array,
    stochasticity: float = 1.0,
    n_corrections: int = 0,
    snr: float = 0.16,
) -> Check:
    """Euler-Maruyama on (32) along any falling grid of times, from its formula at every step.

    A step from t to s evaluates drift and g at t.  Langevin corrections x ← x + δ ∇log p + √(2δ) z with δ = 2 (snr
    std)² follow at s.

    Parameters
    ----------
    sample : callable
        sample(x (N, D), times (n+1,), noise) → x at times[-1].  noise is (n, N, D) without corrections, and
        (n, 1 + n_corrections, N, D) with them.
    score : callable
        score(x (N, D), t) → (N, D); any function, not necessarily affine or exact.
    sde : LinearSDE
    times : (n+1,)
        Strictly falling.
    stochasticity : float
        0 for the probability flow, 1 for the reverse SDE.
    n_corrections : int
        Langevin steps after every step.
    snr : float
        Size of the Langevin steps.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    x, noise = _script(times, 1 + n_corrections)
    left = sample(x, times, noise if n_corrections else noise[:, 0])

    def walk(late: bool = False, with_noise: bool = True, early_correction: bool = False) -> Array:
        y = x
        for (t, s), z in zip(pairwise(times), noise, strict=True):
            at = s if late else t
            f, g = float(sde.rate(at)), float(sde.diffusion(at))
            y = (
                y
                - (t - s) * (f * y - 0.5 * (1 + stochasticity**2) * g**2 * score(y, at))
                + (stochasticity * g * np.sqrt(t - s) * z[0] if with_noise else 0)
            )
            for correction in z[1:]:
                there = t if early_correction else s
                delta = 2 * (snr * float(sde.std(there))) ** 2
                y = y + delta * score(y, there) + np.sqrt(2 * delta) * correction
        return y

    return compare(
        "check_reverse_sampler",
        "(32)",
        "x at the end of the grid",
        left,
        walk(),
        1e-11,
        {
            "drift and g are taken at the end of a step, not at its start": lambda: walk(late=True),
            "there is no noise": lambda: walk(with_noise=False),
            "corrections are made at the time of the start of the step": lambda: walk(early_correction=True),
        },
    )


def _script(times: Array, n_draws: int) -> tuple[Array, Array]:
    """A start (3, 2) and noise (n, n_draws, 3, 2), without a random generator."""
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
        raise ValueError(f"times must have at least two entries and fall strictly, got {times}")
    shape = (len(times) - 1, n_draws, 3, 2)
    count = np.arange(1.0, 1 + np.prod(shape))
    return np.sin(count[:6] if len(count) >= 6 else np.arange(1.0, 7.0)).reshape(3, 2), np.cos(count).reshape(shape)


@takes_arrays
def check_heun(
    sample: Callable[[Array, Array], ArrayLike],
    score: Callable[[Array, float], Array],
    sde: LinearSDE,
    times: Array,
) -> Check:
    """Heun's method on the probability flow along any falling grid of times, from its formula at every step.

    A step uses the mean of the slope at its start and of the slope at the end of Euler's step.

    Parameters
    ----------
    sample : callable
        sample(x (N, D), times (n+1,)) → x at times[-1].
    score : callable
        score(x (N, D), t) → (N, D); any function.
    sde : LinearSDE
    times : (n+1,)
        Strictly falling.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    x, _ = _script(times, 1)

    def slope(y: Array, t: float) -> Array:
        return float(sde.rate(t)) * y - 0.5 * float(sde.diffusion(t)) ** 2 * score(y, t)

    def walk(second: bool = True) -> Array:
        y = x
        for t, s in pairwise(times):
            first = slope(y, t)
            ahead = y + (s - t) * first
            y = y + 0.5 * (s - t) * (first + slope(ahead, s)) if second else ahead
        return y

    return compare(
        "check_heun",
        "(32)",
        "x at the end of the grid",
        sample(x, times),
        walk(),
        1e-11,
        {"it is Euler's method: one slope per step": lambda: walk(second=False)},
    )


@takes_arrays
def check_langevin_step(
    step: Callable[[Array, float, Array], ArrayLike], sde: LinearSDE, variance: float, snr: float
) -> Check:
    """One Langevin step x' = x + δ ∇log p(x) + √(2δ) z with δ = 2 (snr std(t))², for ∇log p(x) = −x/variance.

    Parameters
    ----------
    step : callable
        step(x (N, 1), t, noise (N, 1)) → x'.
    sde : LinearSDE
        The check uses std(t), which sets δ, at three times.
    variance : float
        Variance of p.
    snr : float
        Size of the step.

    Returns
    -------
    Check
        Tolerance 1e-12.
    """
    times = sde.horizon * np.array([0.2, 0.6, 1.0])
    left = [coefficients(lambda x, z, t=t: step(x, t, z), 2) for t in times]
    delta = np.array([2 * (snr * float(sde.std(t))) ** 2 for t in times])
    return compare(
        "check_langevin_step",
        "(32)",
        "(factor of x, of z, constant, bend)",
        left,
        factors(1 - delta / variance, np.sqrt(2 * delta)),
        1e-12,
        {
            "the noise has factor √δ": lambda: factors(1 - delta / variance, np.sqrt(delta)),
            "the noise has factor 2δ, a variance": lambda: factors(1 - delta / variance, 2 * delta),
            "the score has the wrong sign": lambda: factors(1 + delta / variance, np.sqrt(2 * delta)),
        },
    )
