"""Checks of equations (19)-(29): densities of paths, the loss of one step, the variational bound.

Every expectation is exact.  One step with any entire function ε̂ uses Gauss-Hermite nodes.  A whole chain with affine
ε̂ uses sigma points and one Cholesky decomposition of the joint Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_sigma_squared, returned, takes_arrays
from scratchgen.conformance.reference_chain import EpsHat, Steps, compose, reverse_mean
from scratchgen.conformance.result import Check, Mistakes, compare, worst
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
    """(19): the log-densities of a path under q and under p_θ, for ε̂(x, t) = slopes[t] · x.

    The right sides are the log-densities of one dense Gaussian over the whole path.

    Parameters
    ----------
    forward_log_prob : callable
        forward_log_prob(path) → log q(x_{1:T} | x_0), (N,), nats.
    reverse_log_prob : callable
        reverse_log_prob(path, eps_hat) → log p_θ(x_{0:T}), (N,), nats.
    schedule : NoiseSchedule
    path : (T+1, N, 1)
        The states x_0, …, x_T of N paths.
    slopes : (T+1,)
        Slope of the total noise ε̂ at every step.
    sigma_squared : (T+1,)
        The variances σ_t² that `reverse_log_prob` uses.

    Returns
    -------
    Check
        The larger of the two residuals; tolerance 1e-9.
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
    """log N(x; 0, covariance) of every row, by a determinant and a linear solve."""
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
    """(22)-(29): −E_q log p_θ(x_{t−1} | x_t) with all constants, for scalar data N(mean, std²).

    Parameters
    ----------
    loss : callable
        loss(t, x0, eps_bar_prev, eps_t, eps_hat) → (N,), nats, for the given σ_t².  Every array is (N, 1);
        `eps_bar_prev` is the total noise of x_{t−1} and `eps_t` the noise of step t.  A loss in the merged noise, (28)
        or (29), merges these two first, by the proposition before (27).  Only the expectation is compared.
    schedule : NoiseSchedule
    t : int
        The step, 1..T.
    eps_hat : callable
        eps_hat(x_t, t) → total noise, (N, 1).  It must be an entire function of x (sines and polynomials), so that the
        28³ Gauss-Hermite nodes are exact.
    mean, std : float
        Mean and standard deviation of the data.
    sigma_squared : float
        The variance σ_t² that `loss` uses.

    Returns
    -------
    Check
        Tolerance 1e-10.
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
            "the term D β̃²/(2σ²), the integral over ω, is missing, as printed": lambda: constant + fit - omega,
            "the prefactor of ‖ε − ε̂‖² has lost its ½, as printed": lambda: constant + omega + 2 * (fit - omega),
            "the prefactor has lost its ½ and D β̃²/(2σ²) is missing, as printed": lambda: constant + 2 * (fit - omega),
            "½ log 2πσ² and the ½ of the prefactor are missing, as printed": lambda: 2 * fit,
            "½ log 2πσ² is missing": lambda: fit,
            "both ½ log 2πσ² and D β̃²/(2σ²) are missing": lambda: fit - omega,
            "β² stands where β⁴/β̄² belongs": lambda: constant + omega + (fit - omega) * total / v,
            "σ stands where σ² belongs in the prefactor": lambda: constant + fit * np.sqrt(sigma_squared),
        },
    )


def _dense_bound(
    steps: Steps, mean: Array, covariance: Array, A: Array, b: Array, sigma_squared: Array
) -> tuple[float, Array]:
    """−E ELBO of data N(mean, covariance) under ε̂(x, t) = A_t x + b_t, and the noise losses ℓ_t, (T+1,).

    −E ELBO is the KL of the two dense Gaussians over (x_0, …, x_T) plus the entropy of x_0.
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
    """The values of −E ELBO without one of its terms, or with a wrong factor."""
    v, total, scale = steps.variance[1:], steps.total[-1], steps.scale[-1]
    s2 = np.asarray(sigma_squared)[1:]
    fits = reverse_mean(steps)[:, 1] ** 2 * noise_loss[1:] / (2 * s2)
    L_0 = 0.5 * D * np.log(2 * np.pi * s2[0]) + fits[0]
    L_T = 0.5 * (scale**2 * second_moment + D * (total - 1 - np.log(total)))
    return {
        "L_T, the divergence from the prior, is missing": lambda: bound - L_T,
        "L_0, the reconstruction, is missing": lambda: bound - L_0,
        "the noise losses have lost their ½, as printed": lambda: bound + fits.sum(),
        "the term D β̃²/(2σ²), the integral over ω, is missing": lambda: (
            bound - (0.5 * D * steps.posterior[1:] / s2).sum()
        ),
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
    """(20)-(21): −E ELBO of data N(mean, covariance) under ε̂(x, t) = A_t x + b_t.

    The right side is KL(q(x_{0:T})‖p_θ(x_{0:T})) + H(x_0), from the two joint Gaussians.

    Parameters
    ----------
    bound : callable
        bound(x0 (N, D), eps_hat, noise (T, N, D)) → −ELBO, (N,), nats, or its n terms, (N, n).  noise[t−1] is the total
        noise of x_t.  Each term is a quadratic in (x_0, ε), so that sigma points give the exact expectation.
    schedule : NoiseSchedule
    mean : (D,)
    covariance : (D, D)
        Covariance of the data.
    A : (T+1, D, D)
    b : (T+1, D)
        Coefficients of the predicted total noise ε̂(x_t, t) = A_t x_t + b_t.
    sigma_squared : (T+1,)
        The variances σ_t² that `bound` uses.

    Returns
    -------
    Check
        Tolerance 1e-9.
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
    """(21), (29): −E ELBO from the noise losses ℓ_t = E‖ε − ε̂(x_t, t)‖² and E‖x_0‖².

    Parameters
    ----------
    negative_elbo : callable
        negative_elbo(noise_loss (T+1,), second_moment, D) → −E ELBO, a number, nats.
    schedule, mean, covariance, A, b, sigma_squared
        As in `check_variational_bound`, and so is the right side.

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    sigma_squared = as_sigma_squared(sigma_squared, schedule)
    steps, D = compose(schedule), len(mean)
    right, noise_loss = _dense_bound(steps, mean, covariance, A, b, sigma_squared)
    second = float(np.trace(covariance) + mean @ mean)
    left = negative_elbo(noise_loss, second, D)
    mistakes = _mistaken_bounds(right, steps, noise_loss, second, D, sigma_squared)
    return compare("check_negative_elbo", "(21)", "−E ELBO", left, right, 1e-9, mistakes)


@takes_arrays
def check_bound_terms(
    prior_loss: Callable[[Array], ArrayLike],
    step_loss: Callable[[int, Array, Array, EpsHat], ArrayLike],
    reconstruction_loss: Callable[[Array, Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    x0: Array,
    noise: Array,
    eps_hat: EpsHat,
    sigma_squared: Array,
) -> Check:
    """(20): the terms L_T, L_{t−1} and L_0 of every example.

    The right sides are means of log q/p over sigma points of q.

    Parameters
    ----------
    prior_loss : callable
        prior_loss(x0) → L_T, (N,), nats.
    step_loss : callable
        step_loss(t, x0, x_t, eps_hat) → L_{t−1}, (N,), nats, for t = 2..T.
    reconstruction_loss : callable
        reconstruction_loss(x0, x_1, eps_hat) → L_0, (N,), nats.
    schedule : NoiseSchedule
    x0, noise : (N, D)
        D of 2 or more, and noise that differs between its columns, so that a mean over D differs from a sum.
    eps_hat : callable
        eps_hat(x_t, t) → total noise (N, D); any function.
    sigma_squared : (T+1,)
        The variances σ_t² that the callables use.

    Returns
    -------
    Check
        The largest of the three residuals; tolerance 1e-10.
    """
    sigma_squared, steps = as_sigma_squared(sigma_squared, schedule), compose(schedule)
    points, means = sigma_points(x0.shape[1]), reverse_mean(steps)

    def log_normal(x: Array, mean: Array, variance: float) -> Array:
        return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(axis=1)

    def at(t: int) -> Array:
        return steps.scale[t] * x0 + np.sqrt(steps.total[t]) * noise

    def model_mean(t: int, x_t: Array) -> Array:
        return means[t - 1, 0] * x_t + means[t - 1, 1] * eps_hat(x_t, t)

    def kl(q_mean: Array, q_variance: float, p_mean: Array, p_variance: float) -> Array:
        draws = [q_mean + np.sqrt(q_variance) * point for point in points]
        ratios = [log_normal(x, q_mean, q_variance) - log_normal(x, p_mean, p_variance) for x in draws]
        return np.mean(ratios, axis=0)

    def step(t: int, variance: float | None = None) -> Array:
        x_t, posterior = at(t), steps.posterior[t]
        q_mean = posterior * (steps.alpha[t] / steps.variance[t] * x_t + steps.scale[t - 1] / steps.total[t - 1] * x0)
        return kl(q_mean, posterior, model_mean(t, x_t), sigma_squared[t] if variance is None else variance)

    name, ts = "check_bound_terms", range(2, steps.T + 1)
    L_T = kl(steps.scale[-1] * x0, steps.total[-1], np.zeros_like(x0), 1.0)
    L_0 = -log_normal(x0, model_mean(1, at(1)), sigma_squared[1])
    return worst(
        compare(name, "(20)", "L_T", prior_loss(x0), L_T, 1e-10, {"it is averaged over D": lambda: L_T / x0.shape[1]}),
        compare(
            name,
            "(20)",
            "L_{t−1}",
            np.array([step_loss(t, x0, at(t), eps_hat) for t in ts]),
            [step(t) for t in ts],
            1e-10,
            {"σ² is β̃_t²; the given σ_t² is ignored": lambda: [step(t, steps.posterior[t]) for t in ts]},
            first=1,
        ),
        compare(name, "(20)", "L_0", reconstruction_loss(x0, at(1), eps_hat), L_0, 1e-10),
    )


@takes_arrays
def check_loss_weights(
    weights: Callable[[str], ArrayLike], schedule: NoiseSchedule, sigma_squared: Array, weightings: tuple[str, ...] = ()
) -> Check:
    """(29): the weights λ_t of the training loss λ_t ‖ε − ε̂‖².

    Parameters
    ----------
    weights : callable
        weights(name) → λ_t, (T+1,), with λ_0 = 0.  The names and their right sides:

        * "simple": 1.
        * "x0": the loss ‖x_0 − x̂_0‖², where x_0 = (x_t − β̄ε)/ᾱ.
        * "v": the loss ‖v − v̂‖², where v = ᾱε − β̄x_0.
        * "min-snr": the weight of "x0" times min(SNR, 5).
        * "bound": T times the factor of ‖ε − ε̂‖² in −log p_θ(x_{t−1} | x_t).
    schedule : NoiseSchedule
    sigma_squared : (T+1,)
        The variances σ_t² of "bound".
    weightings : tuple of str
        The names to check; all five if empty.

    Returns
    -------
    Check
        Tolerance 1e-10.
    """
    steps = compose(schedule)
    T, scale, total = steps.T, steps.scale[1:], steps.total[1:]
    sigma = as_sigma_squared(sigma_squared, schedule)[1:]
    x0_per_noise, v_per_noise = -np.sqrt(total) / scale, scale + total / scale
    tables = {
        "simple": np.ones(T),
        "bound": T * reverse_mean(steps)[:, 1] ** 2 / (2 * sigma),
        "x0": x0_per_noise**2,
        "v": v_per_noise**2,
        "min-snr": np.minimum(scale**2 / total, 5.0) * x0_per_noise**2,
    }
    names = weightings or tuple(tables)
    right = np.array([np.append(0.0, tables[name]) for name in names])
    return compare(
        "check_loss_weights",
        "(29)",
        "λ_t of every weighting, t = 0..T",
        [np.asarray(weights(name)) for name in names],
        right,
        1e-10,
        {
            "the weight of the bound has lost its ½, as printed": lambda: np.where(
                np.array(names)[:, None] == "bound", 2 * right, right
            ),
            "they are the weights of step t−1": lambda: np.concatenate([0 * right[:, :1], right[:, :-1]], axis=1),
        },
    )
