"""Checks of equations (30)-(32), (34): the SDE, its discretisation and reversal, likelihoods and their bound.

A drift has to move the moments of a Gaussian as the forward process moved them; a bound has to equal the divergence
that it bounds.  Callables are those of one instance: they close over their SDE and their exact score.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.score import log_density
from scratchgen.mixture import Mixture
from scratchgen.quadrature import affine_map, central_difference
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array

# --- (30)-(31): the SDE and its discretisation -----------------------------------------------------------------------


@takes_arrays
def check_sde(
    marginal: Callable[[float], tuple[ArrayLike, ArrayLike]],
    drift: Callable[[Array, float], ArrayLike],
    diffusion: Callable[[float], ArrayLike],
    horizon: float,
) -> Check:
    """(31): scale and std of x_t = scale · x_0 + std · ε solve d scale = f scale dt and d std² = (2 f std² + g²) dt.

    From (1, 0) at t = 0; derivatives by differences of sixth order at times inside (0, horizon).

    Parameters
    ----------
    marginal : callable
        marginal(t) → (scale, std).
    drift, diffusion : callables
        drift(x (N, 1), t) = f(t) x and diffusion(t) = g(t).
    """
    times = horizon * np.array([0.07, 0.2, 0.45, 0.7, 0.9])
    h = 1e-3 * horizon

    def scale(t: float) -> float:
        return float(np.asarray(marginal(t)[0]))

    def variance(t: float) -> float:
        return float(np.asarray(marginal(t)[1])) ** 2

    probes = np.array([[1.0], [0.0], [-1.0], [5.0], [-5.0]])
    drifts = np.array([returned(drift(probes, t), (5, 1), "drift")[:, 0] for t in times])
    rate = drifts[:, 0]
    g_squared = np.array([float(np.asarray(diffusion(t))) ** 2 for t in times])

    def slopes(f: Callable[[float], float]) -> Array:
        return np.array([central_difference(lambda step, t=t: f(t + step), h) for t in times])  # type: ignore[misc]

    v = np.array([variance(t) for t in times])
    unit = 1 + np.abs(v).max()
    start = [float(np.asarray(part)) for part in marginal(0.0)]
    return worst(
        compare("check_sde", "(31)", "(scale, std) at t = 0", start, [1.0, 0.0], 1e-12),
        compare(
            "check_sde",
            "(31)",
            "the drift at 1, 0, −1, 5 and −5 (it should be f · x)",
            drifts * horizon,
            rate[:, None] * probes[:, 0] * horizon,
            1e-9,
            {"x is missing": lambda: np.repeat(rate[:, None], 5, axis=1) * horizon},
        ),
        compare(
            "check_sde",
            "(31)",
            "d log scale/dt of the marginal (right: the drift's f)",
            slopes(lambda t: float(np.log(scale(t)))) * horizon,
            rate * horizon,
            1e-8,
            {"scale is the square, exp(−∫β) for exp(−½∫β), or the drift has lost its ½": lambda: 2 * rate * horizon},
        ),
        compare(
            "check_sde",
            "(31)",
            "d std²/dt of the marginal (right: 2 f std² + g²)",
            slopes(variance) * horizon / unit,
            (2 * rate * v + g_squared) * horizon / unit,
            1e-8,
            {
                "g stands where g² belongs": lambda: (2 * rate * v + np.sqrt(g_squared)) * horizon / unit,
                "the drift's contraction 2 f std² is missing": lambda: g_squared * horizon / unit,
                "the marginal gives the variance, not the standard deviation": lambda: (
                    2 * np.sqrt(v) * (2 * rate * np.sqrt(v) + g_squared) * horizon / unit
                ),
                "g² is squared once more": lambda: (2 * rate * v + g_squared**2) * horizon / unit,
            },
        ),
    )


@takes_arrays
def check_discretisation(variances: ArrayLike, sde: LinearSDE) -> Check:
    """(30)-(31): a table β_1², …, β_T² has exactly the law of a variance-preserving SDE at t = 0, h, 2h, …, horizon.

    β_i² = 1 − exp(−∫g² over step i), the integral by Gauss-Legendre.  The first-order table g²(t_i) h, h = horizon/T,
    is right in the limit only.
    """
    left = np.asarray(variances, dtype=np.float64)
    T = len(left)
    h = sde.horizon / T
    nodes, weights = np.polynomial.legendre.leggauss(20)
    starts = h * np.arange(T)[:, None]
    integrals = 0.5 * h * (np.asarray(sde.diffusion(starts + 0.5 * h * (nodes + 1))) ** 2 @ weights)
    right = -np.expm1(-integrals)

    def g_squared(t: Array) -> Array:
        return np.asarray(sde.diffusion(t)) ** 2

    ends = h * np.arange(1, T + 1)
    return compare(
        "check_discretisation",
        "(30)",
        "β_i²",
        left,
        right,
        1e-12,
        {
            "it is β(t_i) h, right to first order only": lambda: g_squared(ends) * h,
            "it is β(t_{i−1}) h, right to first order only": lambda: g_squared(ends - h) * h,
            "it is ∫β over the step, right to first order only": lambda: integrals,
            "it is β(t_i): the length of the step is missing": lambda: g_squared(ends),
            "it is 1 − exp(−β(t_i) h)": lambda: -np.expm1(-g_squared(ends) * h),
        },
        relative=True,
    )


# --- (32): the reverse SDE -------------------------------------------------------------------------------------------


@takes_arrays
def check_reverse_sde(
    drift: Callable[[Array, float], ArrayLike],
    diffusion: Callable[[float], ArrayLike],
    sde: LinearSDE,
    mean: Array,
    covariance: Array,
    churn: float = 1.0,
) -> Check:
    """(32): on data N(mean, covariance) the reverse drift moves the moments as the forward process moved them.

    With drift A x + c and diffusion G: A V + V Aᵀ − G² I = 2 f V + g² I and A m + c = f m at every t, for churn 0 (the
    probability flow, G = 0), 1 (the reverse SDE, G = g) and any other.  The mean alone would not see the score.

    Parameters
    ----------
    drift : callable
        drift(x (N, D), t), with the exact score of the diffused data inside; time runs backwards, dt < 0.
    diffusion : callable
        G(t) of dw̄.
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
        """Rates under sign · f x + weight(g) V⁻¹(x − m)."""
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
    k, coefficient = 0.5 * (1 + churn**2), np.array([float(sde.diffusion(t)) for t in times])
    return worst(
        compare(
            name,
            "(32)",
            "the diffusion (it should be churn · g)",
            [float(np.asarray(diffusion(t))) for t in times],
            churn * coefficient,
            1e-9,
            {
                "it is g, whatever the churn": lambda: coefficient,
                "it is g², not g": lambda: coefficient**2,
                "it is churn · g², not churn · g": lambda: churn * coefficient**2,
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
    """(32): a small step with the exact score is q(x_s | x_t) of scalar data N(mean, variance) up to O((t−s)²).

    step(x (N, 1), t, s, noise (N, 1)) → x at s < t.  The errors of mean and variance at a step of 1e-4 of the horizon,
    as parts of what f and g do to the law in that time.
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
        "the error of a small step's mean, and its variance, per unit of time",
        left,
        right,
        2e-2,
        {
            "there is no noise, or it has factor g dt, not g √dt": lambda: zeros,
        },
    )


@takes_arrays
def check_reverse_sampler(
    sample: Callable[[Array, Array, Array], ArrayLike],
    score: Callable[[Array, float], Array],
    sde: LinearSDE,
    times: Array,
    churn: float = 1.0,
) -> Check:
    """Euler-Maruyama on (32) along any falling `times`, as a map of its start and its noise, step by step by hand.

    Drift and g are those of the time that a step leaves: the grid that is stepped is the grid that is evaluated.
    sample(x (N, D), times (n+1,), noise (n, N, D)) → x at times[-1]; `score` need not be affine, nor right.
    """
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
        raise ValueError(f"times must fall strictly and be at least two, got {times}")
    rng = np.arange(1.0, 1 + 3 * 2 * len(times))
    x = np.sin(rng[:6]).reshape(3, 2)
    noise = np.cos(rng[: 6 * (len(times) - 1)]).reshape(len(times) - 1, 3, 2)
    left = sample(x, times, noise)

    def walk(late: bool = False, with_noise: bool = True) -> Array:
        y = x
        for (t, s), z in zip(pairwise(times), noise, strict=True):
            at = s if late else t
            f, g = float(sde.rate(at)), float(sde.diffusion(at))
            y = (
                y
                - (t - s) * (f * y - 0.5 * (1 + churn**2) * g**2 * score(y, at))
                + (churn * g * np.sqrt(t - s) * z if with_noise else 0)
            )
        return y

    return compare(
        "check_reverse_sampler",
        "(32)",
        "x at the end of the grid",
        left,
        walk(),
        1e-11,
        {
            "drift and g are taken where a step arrives, not where it leaves": lambda: walk(late=True),
            "there is no noise": lambda: walk(with_noise=False),
        },
    )


# --- (34): likelihood ------------------------------------------------------------------------------------------------


@takes_arrays
def check_probability_flow_likelihood(log_prob: Callable[[Array], ArrayLike], mixture: Mixture, x: Array) -> Check:
    """log p^ODE(x) = log p_0(x): the flow with the exact score, started from the exact p_T, has the data's own density.

    log_prob(x (N, D)) → (N,), nats, integrated to 1e-8 or so; `mixture` is the law of the data.
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
    """(34) where it is an equality: s_θ = ∇log q_t of a diffused law q and π = q_T, so that it is KL(p‖q).

    kl_bound(score_error, prior_kl) → nats, for score_error(t) = E_{p_t}‖∇log p_t − s_θ‖² and prior_kl = KL(p_T‖π).  The
    inequality cannot see T/2 → T, and T = 1 hides a missing T: use a horizon other than 1.
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
            "KL(p_T‖π) is halved too": lambda: path + prior_kl / 2,
            "the divergence is reversed: it is KL(q‖p)": lambda: _gaussian_kl(mean_q, cov_q, mean_p, cov_p),
        },
    )


@takes_arrays
def check_log_prob_bound(log_prob_bound: Callable[..., ArrayLike], sde: LinearSDE, mixture: Mixture, x: Array) -> Check:
    """(34) example by example, where it is an equality, log q(x): s_θ = ∇log q_t and π = q_T of a mixture q in 1-D.

    log_prob_bound(score_and_divergence, prior_log_prob, x (N, 1)) → (N,), nats, with its expectations over x_t given x
    by quadrature.  It is given score_and_divergence(x, t) → ∇log q_t (N, 1) and its divergence (N,), and
    prior_log_prob(x) → log q_T (N,).
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

    The bound is on the law of the reverse SDE; that of the flow, v = e^(−Bδ), need not obey it: 71 nats against 1.25 at
    B = 10, δ = ½.

    Parameters
    ----------
    reverse_moments : callable
        reverse_moments(score) → (mean (1,), covariance (1, 1)) at time 0 of the reverse SDE started at N(0, 1).
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
            "it is the law of the flow, which (34) does not bound": lambda: [0.0, np.exp(-integral * delta)],
            "it is the law of the data: the score's error has no effect": lambda: [0.0, 1.0],
        },
    )
