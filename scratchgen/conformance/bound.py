"""Checks of equations (19)-(29): densities of paths, the loss of a step, the variational bound.

Expectations are exact: Gauss-Hermite nodes for one step of any entire net, sigma points and one Cholesky of the joint
Gaussian for whole chains of affine ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_sigma_squared, returned, takes_arrays
from scratchgen.conformance.result import Check, Mistakes, compare, worst
from scratchgen.conformance.steps import EpsHat, Steps, compose, reverse_mean
from scratchgen.ddpm.kernels import check_time
from scratchgen.quadrature import gauss_hermite, sigma_points
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_number


@takes_arrays
def check_chains(
    forward_log_prob: Callable[[Array], ArrayLike],
    reverse_log_prob: Callable[[Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    path: Array,
    slopes: Array,
    sigma_squared: Array,
) -> Check:
    """(19): the log-density of a path is that of one dense Gaussian, for a net ε̂(x, t) = slopes[t] · x.

    Parameters
    ----------
    forward_log_prob : callable
        forward_log_prob(path) → log q(x_{1:T} | x_0), (N,).
    reverse_log_prob : callable
        reverse_log_prob(path, eps_hat) → log p_θ(x_{0:T}), (N,).
    path : (T+1, N, 1)
    slopes, sigma_squared : (T+1,)
        Index 0 is not used.
    """
    sigma_squared = as_sigma_squared(sigma_squared, schedule)
    steps, points = compose(schedule), path[:, :, 0].T
    T = steps.T
    ratio = steps.scale[None, 1:] / steps.scale[1:, None]  # Cov(x_i, x_j) = (ᾱ_j/ᾱ_i) Var x_i for i <= j
    q_cov = np.minimum.outer(steps.total[1:], steps.total[1:]) * np.minimum(ratio, 1 / ratio)
    q = _normal_log_prob(points[:, 1:] - points[:, :1] * steps.scale[1:], q_cov)
    mean = reverse_mean(steps)
    G = np.zeros((T + 1, T + 1))  # x_{0:T} = G (z_1, …, z_T, x_T)
    G[T, T] = 1
    for t in range(T, 0, -1):
        G[t - 1] = (mean[t - 1, 0] + mean[t - 1, 1] * slopes[t]) * G[t]
        G[t - 1, t - 1] += np.sqrt(sigma_squared[t])
    p = _normal_log_prob(points, G @ G.T)
    prior = -0.5 * (np.log(2 * np.pi) + points[:, -1] ** 2)
    return worst(
        compare("check_chains", "(19)", "log q(x_{1:T} | x_0)", forward_log_prob(path), q, 1e-9),
        compare(
            "check_chains",
            "(19)",
            "log p_θ(x_{0:T})",
            reverse_log_prob(path, lambda x, t: slopes[t] * x),
            p,
            1e-9,
            {"log p_θ(x_T) is missing": lambda: p - prior},
        ),
    )


def _normal_log_prob(x: Array, covariance: Array) -> Array:
    """log N(x; 0, covariance) of rows, by determinant and solution."""
    quadratic = (x * np.linalg.solve(covariance, x.T).T).sum(axis=1)
    return -0.5 * (len(covariance) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + quadratic)


@takes_arrays
def check_step_loss(
    loss: Callable[[int, Array, Array, Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    t: int,
    eps_hat: EpsHat,
    mean: float,
    std: float,
    sigma_squared: float,
) -> Check:
    """(22)-(29): −E_q log p_θ(x_{t−1} | x_t) with every constant, on scalar data N(mean, std²) and any entire net.

    Parameters
    ----------
    loss : callable
        loss(t, x0, eps_bar_prev, eps_t, eps_hat) → (N,), nats, all arrays (N, 1), for the given σ_t².  Forms in the
        merged noise, (28) and (29), get it from these by the proposition; only their expectation has to agree.
    eps_hat : callable
        Total noise ε̂(x_t, t), entire in x (sines and polynomials), for the 28³ Gauss-Hermite nodes to be exact.
    """
    check_time(schedule, t)
    sigma_squared = as_number(sigma_squared, "sigma_squared", low=0.0, open_low=True)
    steps = compose(schedule)
    nodes, weights = gauss_hermite(28, 3)
    x0, eps_bar, eps_t = mean + std * nodes[:, :1], nodes[:, 1:2], nodes[:, 2:]
    alpha, v, before, total = steps.alpha[t], steps.variance[t], steps.total[t - 1], steps.total[t]
    x_prev = steps.scale[t - 1] * x0 + np.sqrt(before) * eps_bar
    x_t = alpha * x_prev + np.sqrt(v) * eps_t
    factors = reverse_mean(steps)[t - 1]
    predicted = eps_hat(x_t, t)
    square = weights @ ((x_prev - factors[0] * x_t - factors[1] * predicted) ** 2)[:, 0]
    constant = 0.5 * np.log(2 * np.pi * sigma_squared)
    omega = steps.posterior[t] / (2 * sigma_squared)
    fit = square / (2 * sigma_squared)
    left = weights @ returned(loss(t, x0, eps_bar, eps_t, eps_hat), (len(x0),), "loss")
    return compare(
        "check_step_loss",
        "(29)",
        "−E log p_θ(x_{t−1} | x_t)",
        left,
        constant + fit,
        1e-10,
        {
            "the prefactor has lost its ½, as printed": lambda: constant + 2 * fit,
            "ω is separated without leaving D β̃²/(2σ²), as printed": lambda: constant + fit - omega,
            "the prefactor of ‖ε − ε̂‖² has lost its ½, as printed": lambda: constant + omega + 2 * (fit - omega),
            "the prefactor is twice too large and ω leaves nothing, as printed": lambda: constant + 2 * (fit - omega),
            "½ log 2πσ² and the ½ of the prefactor are missing, as printed": lambda: 2 * fit,
            "½ log 2πσ² is missing": lambda: fit,
            "both ½ log 2πσ² and what ω leaves are missing": lambda: fit - omega,
            "β² stands where β⁴/β̄² belongs": lambda: constant + omega + (fit - omega) * total / v,
            "σ stands where σ² belongs in the prefactor": lambda: constant + fit * np.sqrt(sigma_squared),
        },
    )


def _dense_bound(
    steps: Steps, mean: Array, covariance: Array, A: Array, b: Array, sigma_squared: Array
) -> tuple[float, Array]:
    """−E ELBO of data N(mean, covariance) under ε̂(x, t) = A_t x + b_t: from one Cholesky of both joints; ℓ_t.

    KL of the two dense Gaussians over (x_0, …, x_T) plus the entropy of x_0.
    """
    T, D = steps.T, len(mean)
    V = steps.scale[:, None, None] ** 2 * covariance + steps.total[:, None, None] * np.eye(D)
    q_mean = np.concatenate([a * mean for a in steps.scale])
    q_cov = np.block(
        [[steps.scale[max(i, j)] / steps.scale[min(i, j)] * V[min(i, j)] for j in range(T + 1)] for i in range(T + 1)]
    )
    factors = reverse_mean(steps)
    G, g = np.zeros((T + 1, D, (T + 1) * D)), np.zeros((T + 1, D))
    G[T, :, T * D :] = np.eye(D)
    for t in range(T, 0, -1):
        slope = factors[t - 1, 0] * np.eye(D) + factors[t - 1, 1] * A[t]
        G[t - 1], g[t - 1] = slope @ G[t], slope @ g[t] + factors[t - 1, 1] * b[t]
        G[t - 1, :, (t - 1) * D : t * D] += np.sqrt(sigma_squared[t]) * np.eye(D)
    flat = G.reshape(-1, (T + 1) * D)
    factor = np.linalg.cholesky(flat @ flat.T)
    spread = np.linalg.solve(factor, np.linalg.cholesky(q_cov))
    shift = np.linalg.solve(factor, q_mean - g.ravel())
    log_ratio = 2 * np.log(np.abs(np.diagonal(spread))).sum()
    joint_kl = 0.5 * ((spread**2).sum() + (shift**2).sum() - len(q_cov) - log_ratio)
    entropy = 0.5 * (D * np.log(2 * np.pi * np.e) + np.linalg.slogdet(covariance)[1])
    std = np.sqrt(steps.total)[:, None, None]
    offset = (steps.scale[:, None, None] * A) @ mean + b
    noise_loss = (
        ((np.eye(D) - std * A) ** 2).sum(axis=(1, 2))
        + np.trace(steps.scale[:, None, None] ** 2 * A @ covariance @ A.swapaxes(1, 2), axis1=1, axis2=2)
        + (offset**2).sum(axis=1)
    )
    return float(joint_kl + entropy), noise_loss


def _mistaken_bounds(
    bound: float, steps: Steps, noise_loss: Array, second_moment: float, D: int, sigma_squared: Array
) -> Mistakes:
    """What −E ELBO becomes without one of its parts, or with a wrong factor."""
    v, total, scale = steps.variance[1:], steps.total[-1], steps.scale[-1]
    s2 = np.asarray(sigma_squared)[1:]
    fits = reverse_mean(steps)[:, 1] ** 2 * noise_loss[1:] / (2 * s2)
    L_0 = 0.5 * D * np.log(2 * np.pi * s2[0]) + fits[0]
    L_T = 0.5 * (scale**2 * second_moment + D * (total - 1 - np.log(total)))
    return {
        "L_T, the divergence from the prior, is missing": lambda: bound - L_T,
        "L_0, the reconstruction, is missing": lambda: bound - L_0,
        "the losses have lost their ½, as printed": lambda: bound + fits.sum(),
        "what ω leaves, D β̃²/(2σ²), is missing": lambda: bound - (0.5 * D * steps.posterior[1:] / s2).sum(),
        "log σ² is missing": lambda: bound - 0.5 * D * np.log(s2 / v).sum(),
        "the entropy of the forward chain is missing, as in the first “=” of (21)": lambda: (
            bound + 0.5 * D * np.log(2 * np.pi * np.e * v).sum()
        ),
        "it is averaged over the D dimensions": lambda: bound / D,
        "it is averaged over the T steps": lambda: bound / steps.T,
    }


@takes_arrays
def check_variational_bound(
    bound: Callable[[Array, EpsHat, Array], ArrayLike],
    schedule: NoiseSchedule,
    mean: Array,
    covariance: Array,
    A: Array,
    b: Array,
    sigma_squared: Array,
) -> Check:
    """(20)-(21): −E ELBO = KL(q(x_{0:T})‖p_θ(x_{0:T})) + H(x_0), data N(mean, covariance), ε̂(x, t) = A_t x + b_t.

    Parameters
    ----------
    bound : callable
        bound(x0 (N, D), eps_hat, noise (T, N, D)) → −ELBO, (N,), or its terms, (N, n), where noise[t−1] is the TOTAL
        noise of x_t.  Sigma points over (x_0, ε) give the expectation, because each term is a quadratic.
    A : (T+1, D, D)
    b : (T+1, D)
    sigma_squared : (T+1,)
        The σ_t² that `bound` uses.  Index 0 of all three is not used.
    """
    sigma_squared = as_sigma_squared(sigma_squared, schedule)
    steps, D = compose(schedule), len(mean)
    points = sigma_points(2 * D)
    x0 = mean + points[:, :D] @ np.linalg.cholesky(covariance).T
    noise = np.broadcast_to(points[:, D:], (steps.T, *x0.shape))
    values = np.asarray(bound(x0, lambda x, t: x @ A[t].T + b[t], noise), dtype=np.float64)
    left = values.reshape(len(values), -1).sum(axis=1).mean()
    right, noise_loss = _dense_bound(steps, mean, covariance, A, b, sigma_squared)
    second = float(np.trace(covariance) + mean @ mean)
    mistakes = _mistaken_bounds(right, steps, noise_loss, second, D, sigma_squared)
    return compare("check_variational_bound", "(20)", "−E ELBO", left, right, 1e-9, mistakes)


@takes_arrays
def check_negative_elbo(
    negative_elbo: Callable[[Array, float, int], ArrayLike],
    schedule: NoiseSchedule,
    mean: Array,
    covariance: Array,
    A: Array,
    b: Array,
    sigma_squared: Array,
) -> Check:
    """(21), (29): the same value from the noise losses ℓ_t alone, for negative_elbo(noise_loss, second_moment, D)."""
    sigma_squared = as_sigma_squared(sigma_squared, schedule)
    steps, D = compose(schedule), len(mean)
    right, noise_loss = _dense_bound(steps, mean, covariance, A, b, sigma_squared)
    second = float(np.trace(covariance) + mean @ mean)
    left = negative_elbo(noise_loss, second, D)
    mistakes = _mistaken_bounds(right, steps, noise_loss, second, D, sigma_squared)
    return compare("check_negative_elbo", "(21)", "−E ELBO", left, right, 1e-9, mistakes)
