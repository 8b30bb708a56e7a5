"""Checks of equation (34): the likelihood of the flow, the bound on the divergence, the bound of one example.

An inequality alone finds few mistakes.  Each bound is checked in the case where it is an equality.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.score import log_density
from scratchgen.mixture import Mixture
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array


@takes_arrays
def check_probability_flow_likelihood(log_prob: Callable[[Array], ArrayLike], mixture: Mixture, x: Array) -> Check:
    """log p^ODE(x) = log p_0(x): with the exact score and the exact p_T, the flow has the density of the data.

    Parameters
    ----------
    log_prob : callable
        log_prob(x (N, D)) → (N,), nats, integrated to an error of about 1e-8.
    mixture : Mixture
        The distribution of the data.
    x : (N, D)

    Returns
    -------
    Check
        Tolerance 1e-7.
    """
    return compare(
        "check_probability_flow_likelihood",
        "(34)",
        "log p(x) by the probability flow",
        log_prob(x),
        log_density(mixture, x).real,
        1e-7,
    )


def _gaussian_kl(m: Array, S: Array, n: Array, R: Array) -> float:
    P = np.linalg.inv(R)
    log_ratio = np.linalg.slogdet(R)[1] - np.linalg.slogdet(S)[1]
    return float(0.5 * (np.trace(P @ S) + (m - n) @ P @ (m - n) - len(m) + log_ratio))


@takes_arrays
def check_kl_bound(
    kl_bound: Callable[[Callable[[float], float], float], ArrayLike],
    sde: LinearSDE,
    mean_p: Array,
    cov_p: Array,
    mean_q: Array,
    cov_q: Array,
) -> Check:
    """(34) as an equality: if s_θ = ∇log q_t of a diffused q and π = q_T, the bound is KL(p‖q).

    p and q are Gaussian.  The horizon of the SDE must differ from 1, because T = 1 hides a missing factor T.

    Parameters
    ----------
    kl_bound : callable
        kl_bound(score_error, prior_kl) → nats, with score_error(t) = E_{p_t}‖∇log p_t − s_θ‖² and
        prior_kl = KL(p_T‖π).
    sde : LinearSDE
    mean_p, mean_q : (D,)
    cov_p, cov_q : (D, D)

    Returns
    -------
    Check
        Tolerance 1e-8.
    """

    def at(mean: Array, covariance: Array, t: float) -> tuple[Array, Array]:
        scale, std = (float(part) for part in sde.marginal(t))
        return scale * mean, scale**2 * covariance + std**2 * np.eye(len(mean))

    def score_error(t: float) -> float:
        (m, V), (n, R) = at(mean_p, cov_p, t), at(mean_q, cov_q, t)
        P, Q = np.linalg.inv(V), np.linalg.inv(R)
        return float(np.trace((Q - P) @ (Q - P) @ V) + ((Q @ (m - n)) ** 2).sum())

    prior_kl = _gaussian_kl(*at(mean_p, cov_p, sde.horizon), *at(mean_q, cov_q, sde.horizon))
    right = _gaussian_kl(mean_p, cov_p, mean_q, cov_q)
    path = right - prior_kl  # ½ ∫ g² E‖∇log p_t − ∇log q_t‖² dt
    return compare(
        "check_kl_bound",
        "(34)",
        "½ ∫ g² E‖∇log p_t − s_θ‖² dt + KL(p_T‖π)",
        kl_bound(score_error, prior_kl),
        right,
        1e-8,
        {
            "T stands where T/2 belongs": lambda: 2 * path + prior_kl,
            "the factor T is missing": lambda: path / sde.horizon + prior_kl,
            "KL(p_T‖π) is missing": lambda: path,
            "KL(p_T‖π) is halved": lambda: path + prior_kl / 2,
            "the divergence is reversed: it is KL(q‖p)": lambda: _gaussian_kl(mean_q, cov_q, mean_p, cov_p),
        },
    )


@takes_arrays
def check_log_prob_bound(log_prob_bound: Callable[..., ArrayLike], sde: LinearSDE, mixture: Mixture, x: Array) -> Check:
    """(34) for single examples, as an equality with log q(x): s_θ = ∇log q_t and π = q_T of a mixture q.

    Parameters
    ----------
    log_prob_bound : callable
        log_prob_bound(score_and_divergence, prior_log_prob, x (N, 1)) → (N,), nats, with expectations over x_t given x
        by quadrature.  score_and_divergence(x, t) → ∇log q_t (N, 1) and its divergence (N,);
        prior_log_prob(x) → log q_T, (N,).
    sde : LinearSDE
    mixture : Mixture
        q, one-dimensional.
    x : (N, 1)

    Returns
    -------
    Check
        Tolerance 1e-8.
    """
    if mixture.dimension != 1:
        raise ValueError(f"mixture must have 1 dimension, got {mixture.dimension}")

    def diffused(t: float) -> Mixture:
        return mixture.diffuse(*(float(part) for part in sde.marginal(t)))

    def score_and_divergence(points: Array, t: float) -> tuple[Array, Array]:
        law = diffused(t)
        return law.score(points), law.score_jacobian(points)[:, 0, 0]

    prior = diffused(sde.horizon).log_prob
    scale, std = (float(part) for part in sde.marginal(sde.horizon))
    right = mixture.log_prob(x)

    def at_the_end() -> Array:
        """E log q_T(x_T) given x."""
        noise = np.linspace(-9.0, 9.0, 181)
        weights = np.exp(-0.5 * noise**2) / np.exp(-0.5 * noise**2).sum()
        return prior((scale * x + std * noise).reshape(-1, 1)).reshape(len(x), -1) @ weights

    return compare(
        "check_log_prob_bound",
        "(34)",
        "E log π(x_T) − ½∫E[g²(‖s‖² + 2 div s) − 2 div f]dt",
        log_prob_bound(score_and_divergence, prior, x),
        right,
        1e-8,
        {
            "∫div f dt is missing": lambda: right - np.log(scale),
            "½ is missing before ∫g²(‖s‖² + 2 div s)": lambda: 2 * right - at_the_end() - np.log(scale),
        },
    )


@takes_arrays
def check_reverse_law(
    reverse_moments: Callable[[Callable[[Array, float], Array]], tuple[ArrayLike, ArrayLike]],
    integral: float,
    delta: float,
) -> Check:
    """(34), left side in closed form: data N(0, 1), s_θ = −(1 + δ)x, π = N(0, 1), B = ∫g² dt of a VP process.

        v_θ = [1 + 2δ e^(−(1+2δ)B)]/(1 + 2δ),   KL(p_0‖p_θ) = ½(1/v_θ − 1 + log v_θ) <= Bδ²/2

    The bound holds for the distribution of the reverse SDE.  It need not hold for the flow, whose variance is e^(−Bδ):
    at B = 10 and δ = ½ the divergence of the flow is 71 nats, and the bound is 1.25.

    Parameters
    ----------
    reverse_moments : callable
        reverse_moments(score) → (mean (1,), covariance (1, 1)) at time 0 of the reverse SDE from N(0, 1);
        score(x, t) = s_θ.
    integral : float
        B.
    delta : float
        δ.

    Returns
    -------
    Check
        Tolerance 1e-8.
    """
    rate = 1 + 2 * delta
    mean, covariance = (np.asarray(part).ravel() for part in reverse_moments(lambda x, t: -(1 + delta) * x))
    return compare(
        "check_reverse_law",
        "(34)",
        "(mean, variance) of p_θ",
        [mean[0], covariance[0]],
        [0.0, (1 + 2 * delta * np.exp(-rate * integral)) / rate],
        1e-8,
        {
            "it is the distribution of the flow, which (34) does not bound": lambda: [0.0, np.exp(-integral * delta)],
            "it is the distribution of the data: the error of the score has no effect": lambda: [0.0, 1.0],
        },
    )


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
    Gauss-Legendre in t; and −E log N(x_0; x_{t_min}/scale, (std/scale)² I) by sigma points.

    Parameters
    ----------
    prior_loss : callable
        prior_loss(x0) → (N,), nats.
    diffusion_loss : callable
        diffusion_loss(x0 (N, D), t (N,), noise (N, D)) → (N,), nats.  The mean over noise, and over t uniform in
        log-SNR on [t_min, T], is the integral.
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
        The largest of three residuals; tolerance 1e-8 for the integral, 1e-10 for the others.
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

    nodes, weights = np.polynomial.legendre.leggauss(200)
    times = t_min + 0.5 * (sde.horizon - t_min) * (nodes + 1)
    weights = 0.5 * (sde.horizon - t_min) * weights
    scale, std = (np.asarray(part)[:, None] for part in sde.marginal(times))
    g_squared = np.asarray(sde.diffusion(times)) ** 2
    # E‖−slope x_t/std + ε/std‖² for x_t = scale x_0 + std ε
    error = (slope * scale / std) ** 2 * (x0**2).sum(axis=1) + D * ((1 - slope * std) / std) ** 2
    integral = 0.5 * (weights * g_squared) @ error

    low, high = (float(sde.log_snr(t)) for t in (sde.horizon, t_min))
    even = np.asarray(sde.time_at(low + 0.5 * (high - low) * (nodes + 1)))
    left = np.array([over_noise(lambda noise, t=t: diffusion_loss(x0, np.full(N, t), noise)) for t in even])  # type: ignore[misc]

    def decoder_loss(noise: Array, std: float) -> Array:
        return -log_normal(x0 - (scale_0 * x0 + std_0 * noise) / scale_0, std)

    return worst(
        compare(
            name,
            "(34)",
            "KL(q(x_T | x₀)‖π)",
            prior_loss(x0),
            over_noise(lambda noise: log_ratio(noise, std_T)),
            1e-10,
            {"π is N(0, I), not N(0, std(T)² I)": lambda: over_noise(lambda noise: log_ratio(noise, 1.0))},
        ),
        compare(
            name,
            "(34)",
            "½∫g² E‖s_θ + ε/std‖² dt",
            0.5 * np.polynomial.legendre.leggauss(200)[1] @ left,
            integral,
            1e-8,
            {
                "its ½ is missing": lambda: 2 * integral,
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
            1e-10,
            {"std stands where std/scale belongs": lambda: over_noise(lambda noise: decoder_loss(noise, std_0))},
        ),
    )


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
        Tolerance 1e-9 for the score, 1e-7 for the divergences.
    """
    axes = np.eye(x.shape[1])
    jacobian = (
        -np.stack(
            [np.asarray(central_difference(lambda h, e=e: np.asarray(eps_hat(x + h * e)), 1e-3)) for e in axes],  # type: ignore[misc]
            axis=2,
        )
        / std
    )
    trace = np.trace(jacobian, axis1=1, axis2=2)
    by_probes = np.einsum("pnd,nde,pne->n", probes, jacobian, probes)
    score, exact = parts(score_and_divergence(x, None), 2, "score_and_divergence")
    _, estimate = parts(score_and_divergence(x, probes), 2, "score_and_divergence")
    right, name = -np.asarray(eps_hat(x)) / std, "check_divergence"
    return worst(
        compare(
            name,
            "(33)",
            "s_θ",
            score,
            right,
            1e-9,
            {"it is ε̂/std, without the minus sign": lambda: -right, "it is −ε̂: 1/std is missing": lambda: std * right},
        ),
        compare(name, "(34)", "div s_θ", exact, trace, 1e-7, {"it is averaged over D": lambda: trace / x.shape[1]}),
        compare(
            name,
            "(34)",
            "Hutchinson's estimate of div s_θ",
            estimate,
            by_probes / len(probes),
            1e-7,
            {"it is summed over the probes": lambda: by_probes},
        ),
    )
