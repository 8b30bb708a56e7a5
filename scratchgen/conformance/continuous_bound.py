"""Checks of the continuous-time bound of a network, and of the divergence of its score."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts, takes_arrays
from scratchgen.conformance.result import Check, compare, first_of, worst
from scratchgen.conformance.sde_bounds import with_error
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array


@takes_arrays
def check_continuous_bound(
    prior_loss: Callable[[Array], ArrayLike],
    diffusion_loss: Callable[[Array, Array, Array], ArrayLike],
    reconstruction_loss: Callable[[Array, Array], ArrayLike],
    sde: LinearSDE,
    t_min: float,
    slope: float,
    x0: Array,
) -> Check:
    """The three terms of the continuous-time bound of every example, for a network ε̂(x, t) = slope · x.

    The right sides are KL(q(x_T | x_0)‖π) by sigma points, with π = N(0, std(T)² I); ½∫g² E‖s_θ + ε/std‖² dt by
    Gauss-Legendre in t with two numbers of nodes; and −E log N(x_0; x_{t_min}/scale, (std/scale)² I) by sigma points.

    Parameters
    ----------
    prior_loss : callable
        prior_loss(x0) → (N,), nats.
    diffusion_loss : callable
        diffusion_loss(x0 (N, D), t (N,), noise (N, D)) → (N,), nats.  The mean over noise, and over t uniform in
        log-SNR on [t_min, T], is the integral.  Every example of a call has its own time.
    reconstruction_loss : callable
        reconstruction_loss(x0, noise) → (N,), nats.  The mean over noise is the term.
    sde : LinearSDE
    t_min : float
        The smallest time.
    slope : float
        Of ε̂.
    x0 : (N, D)

    Returns
    -------
    Check
        The integral if all pass, else the largest of three residuals.  Tolerance 1e-12; for the integral 1e-10, plus
        the error of the quadrature.
    """
    N, D = x0.shape
    points, name = sigma_points(D), "check_continuous_bound"
    (scale_T, std_T), (scale_0, std_0) = sde.level(sde.horizon), sde.level(t_min)

    def over_noise(f: Callable[[Array], ArrayLike]) -> Array:
        return np.mean([np.asarray(f(np.broadcast_to(p, x0.shape))) for p in points], axis=0)

    def log_normal(x: Array, std: float) -> Array:
        return -0.5 * ((x / std) ** 2 + np.log(2 * np.pi * std**2)).sum(axis=1)

    def log_ratio(noise: Array, prior_std: float) -> Array:
        return log_normal(std_T * noise, std_T) - log_normal(scale_T * x0 + std_T * noise, prior_std)

    def by_nodes(n: int) -> Array:
        """½∫g² E‖s_θ + ε/std‖² dt, (N,), by n nodes in y with t = t_min + (T − t_min) y³."""
        nodes, weights = np.polynomial.legendre.leggauss(n)
        y, span = 0.5 * (nodes + 1), sde.horizon - t_min
        times = t_min + span * y**3
        scale, std = (np.asarray(part)[:, None] for part in sde.marginal(times))
        # E‖−slope x_t/std + ε/std‖² for x_t = scale x_0 + std ε
        error = (slope * scale / std) ** 2 * (x0**2).sum(axis=1) + D * ((1 - slope * std) / std) ** 2
        return np.asarray(0.75 * span * (weights * y**2 * np.asarray(sde.diffusion(times)) ** 2) @ error)

    coarse, integral = by_nodes(150), by_nodes(200)
    error = float(np.abs(coarse - integral).max() / (1 + np.abs(integral).max()))
    low, high = (float(sde.log_snr(t)) for t in (sde.horizon, t_min))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    even = np.asarray(sde.time_at(low + 0.5 * (high - low) * (nodes + 1)))
    left = np.zeros(N)
    for i in range(len(even)):
        mine = (i + 41 * np.arange(N)) % len(even)  # every example has another time in the same call
        left += 0.5 * weights[mine] * over_noise(lambda noise, mine=mine: diffusion_loss(x0, even[mine], noise))  # type: ignore[misc]

    def decoder_loss(noise: Array, std: float) -> Array:
        return -log_normal(x0 - (scale_0 * x0 + std_0 * noise) / scale_0, std)

    prior, diffusion, reconstruction = (
        compare(
            name,
            "(34)",
            "KL(q(x_T | x₀)‖π)",
            prior_loss(x0),
            over_noise(lambda noise: log_ratio(noise, std_T)),
            1e-12,
            {
                "π is N(0, I), not N(0, std(T)² I)": lambda: over_noise(lambda noise: log_ratio(noise, 1.0)),
                "its ½ is missing": lambda: 2 * over_noise(lambda noise: log_ratio(noise, std_T)),
                "it is averaged over D": lambda: over_noise(lambda noise: log_ratio(noise, std_T)) / D,
            },
            labels=lambda i: f"KL(q(x_T | x₀)‖π), example {i[0]}",
        ),
        compare(
            name,
            "(34)",
            "½∫g² E‖s_θ + ε/std‖² dt",
            left,
            integral,
            with_error(1e-10, error),
            {
                "its ½ is missing": lambda: 2 * integral,
                "it has one ½ too many": lambda: integral / 2,
                "it is averaged over D": lambda: integral / D,
                "it is a mean over time, without the length of the interval in log-SNR": lambda: (
                    integral / (high - low)
                ),
            },
        ),
        compare(
            name,
            "(34)",
            "−E log p(x₀ | x_t) at t_min",
            over_noise(lambda noise: reconstruction_loss(x0, noise)),
            over_noise(lambda noise: decoder_loss(noise, std_0 / scale_0)),
            1e-12,
            {
                "std stands where std/scale belongs in the logarithm": lambda: (
                    over_noise(lambda noise: decoder_loss(noise, std_0 / scale_0)) + D * np.log(scale_0)
                ),
                "the constant (D/2) log 2π(std/scale)² is missing": lambda: over_noise(
                    lambda noise: 0.5 * (noise**2).sum(axis=1)
                ),
                "log of the variance stands without its ½": lambda: (
                    over_noise(lambda noise: decoder_loss(noise, std_0 / scale_0)) + D * np.log(std_0 / scale_0)
                ),
                "the squares have lost their ½": lambda: over_noise(
                    lambda noise: decoder_loss(noise, std_0 / scale_0) + 0.5 * (noise**2).sum(axis=1)
                ),
                "std stands where std/scale belongs": lambda: over_noise(lambda noise: decoder_loss(noise, std_0)),
                "the sign is wrong": lambda: -over_noise(lambda noise: decoder_loss(noise, std_0 / scale_0)),
                "it is averaged over D": lambda: over_noise(lambda noise: decoder_loss(noise, std_0 / scale_0)) / D,
                "(D/2) log 2π is missing": lambda: (
                    over_noise(lambda noise: decoder_loss(noise, std_0 / scale_0)) - 0.5 * D * np.log(2 * np.pi)
                ),
            },
            labels=lambda i: f"−E log p(x₀ | x_t) at t_min, example {i[0]}",
        ),
    )
    return first_of(diffusion, prior, reconstruction)


@takes_arrays
def check_divergence(
    score_and_divergence: Callable[[Array, Array | None], tuple[ArrayLike, ArrayLike]],
    eps_hat: Callable[[Array], ArrayLike],
    std: float,
    x: Array,
    probes: Array,
) -> Check:
    """A score s_θ = −ε̂/std, its divergence tr ∇s_θ, and Hutchinson's estimate of the divergence.

    The right sides are finite differences of ε̂.

    Parameters
    ----------
    score_and_divergence : callable
        score_and_divergence(x, probes) → (s_θ (N, D), divergence (N,)).  Without probes (None) the divergence is exact.
        With probes v, (n, N, D), it is the mean of vᵀ(∇s_θ)v over them.
    eps_hat : callable
        eps_hat(x) → (N, D).
    std : float
    x : (N, D)
    probes : (n, N, D)

    Returns
    -------
    Check
        Tolerance 1e-12 for the score; 1e-10 for the divergences, plus the difference of two steps of the differences.
    """

    def by_differences(h: float) -> Array:
        """∇s_θ, (N, D, D)."""
        axes = np.eye(x.shape[1])
        slopes = [central_difference(lambda step, e=e: np.asarray(eps_hat(x + step * e)), h) for e in axes]  # type: ignore[misc]
        return -np.stack([np.asarray(slope) for slope in slopes], axis=2) / std

    jacobian, rough = by_differences(0.02), by_differences(0.04)
    tolerance = with_error(1e-10, float(np.abs(jacobian - rough).max() / (1 + np.abs(jacobian).max())))
    trace = np.trace(jacobian, axis1=1, axis2=2)
    by_probes = np.einsum("pnd,nde,pne->n", probes, jacobian, probes)
    unit_probes = probes / np.maximum(np.linalg.norm(probes, axis=2, keepdims=True), 1e-300)
    score, exact = parts(score_and_divergence(x, None), 2, "score_and_divergence")
    _, estimate = parts(score_and_divergence(x, probes), 2, "score_and_divergence")
    right, name, D = -np.asarray(eps_hat(x)) / std, "check_divergence", x.shape[1]
    return worst(
        compare(
            name,
            "(33)",
            "s_θ",
            score,
            right,
            1e-12,
            {
                "it is ε̂/std, without the minus sign": lambda: -right,
                "it is −ε̂: 1/std is missing": lambda: std * right,
                "it is ε̂": lambda: -std * right,
                "it is −ε̂/std²": lambda: right / std,
                "it is −std · ε̂": lambda: std**2 * right,
            },
            labels=lambda i: f"s_θ, example {i[0]}, dimension {i[1] + 1}",
        ),
        compare(
            name,
            "(34)",
            "div s_θ",
            exact,
            trace,
            tolerance,
            {
                "it is averaged over D": lambda: trace / D,
                "1/std is missing": lambda: std * trace,
                "the sign is wrong": lambda: -trace,
                "it is the sum of all derivatives, not of ∂s_d/∂x_d": lambda: jacobian.sum(axis=(1, 2)),
            },
            labels=lambda i: f"div s_θ, example {i[0]}",
        ),
        compare(
            name,
            "(34)",
            "Hutchinson's estimate of div s_θ",
            estimate,
            by_probes / len(probes),
            tolerance,
            {
                "it is summed over the probes": lambda: by_probes,
                "it is averaged over D": lambda: by_probes / len(probes) / D,
                "only the first probe is used": lambda: np.einsum("nd,nde,ne->n", probes[0], jacobian, probes[0]),
                "it is divided by std², a variance": lambda: by_probes / len(probes) / std,
                "the probes are divided by their length": lambda: (
                    np.einsum("pnd,nde,pne->n", unit_probes, jacobian, unit_probes) / len(probes)
                ),
                "1/std is missing": lambda: std * by_probes / len(probes),
            },
            labels=lambda i: f"Hutchinson's estimate of div s_θ, example {i[0]}",
        ),
    )
