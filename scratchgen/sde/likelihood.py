"""Equation (34), its form for one example, and the likelihood of the probability flow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.sde.integration import integrate
from scratchgen.sde.matching import implicit_score_matching
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array, as_count, as_number, as_samples


def kl_bound(
    sde: LinearSDE, score_error: Callable[[float], float], prior_kl: float, t_min: float = 0.0, n_nodes: int = 64
) -> float:
    """Right side of (34), nats: ½ ∫ g(t)² E_{p_t}‖∇log p_t − s_θ‖² dt + KL(p_T‖π).

    It bounds KL(p_0‖p_θ) where p_θ is the time-0 law of the continuous reverse SDE with score s_θ started at π; it
    does NOT bound the law of the probability-flow ODE, nor that of a sampler with finitely many steps.  It is an
    equality when s_θ = ∇log q_t for some law q diffused by the same SDE and π = q_T.

    Parameters
    ----------
    sde : LinearSDE
    score_error : callable
        t → E_{p_t}‖∇log p_t(x) − s_θ(x, t)‖², summed over dimensions.
    prior_kl : float
        KL(p_T‖π), nats.
    t_min : float
        Integrate from here; with t_min > 0 the bound is on KL(p_{t_min}‖p_{θ, t_min}).
    n_nodes : int
        Gauss-Legendre nodes in y with t = t_min + (T − t_min) y³, which crowds them where scores are sharp.
    """
    times, weights = _time_nodes(sde, t_min, n_nodes)
    integrand = np.array([float(sde.diffusion(t)) ** 2 * score_error(float(t)) for t in times])
    return float(0.5 * (weights @ integrand) + prior_kl)


def _time_nodes(sde: LinearSDE, t_min: float, n_nodes: int) -> tuple[Array, Array]:
    """Times and weights of ∫ dt from t_min to the horizon: Gauss-Legendre in y with t = t_min + (T − t_min) y³."""
    span = sde.horizon - as_number(t_min, "t_min", low=0.0, high=sde.horizon)
    nodes, weights = np.polynomial.legendre.leggauss(as_count(n_nodes, "n_nodes"))
    y = 0.5 * (nodes + 1)
    return t_min + span * y**3, 0.5 * weights * 3 * span * y**2


def sde_log_prob_bound(
    sde: LinearSDE,
    score_and_divergence: Callable[[Array, float], tuple[Array, Array]],
    x: Array,
    noise: Array,
    noise_weights: Array | None = None,
    t_min: float = 0.0,
    prior_log_prob: Callable[[Array], Array] | None = None,
    n_nodes: int = 64,
) -> Array:
    """A lower bound of log p_θ(x) for every x, (N,), nats: (34) example by example (Song et al., NeurIPS 2021).

        log p_θ(x) ≥ E log π(x_T) − ½∫E[g² (‖s_θ‖² + 2 div s_θ) − 2 div f] dt,    x_t from x by the forward SDE

    p_θ is the law at t_min of the continuous reverse SDE with score s_θ.  An equality when s_θ = ∇log q_t and π = q_T
    for some law q diffused by the same SDE.  It bounds p_θ, and can lie above the data's own log p at single points.
    The integrand is implicit score matching; `ScoreSDE.elbo` is the denoising form, which needs no divergence.

    Parameters
    ----------
    score_and_divergence : callable
        (x, t) → (s_θ (N, D), div s_θ (N,)).
    x : (N, D)
        At t_min.
    noise : (M, D)
        ε in x_t = scale · x + std · ε.  Standard normal draws make the bound an unbiased estimate, nodes of a
        quadrature with their weights make it exact.
    noise_weights : (M,), optional
        Weights of the mean over noise; 1/M if None.
    t_min : float
    prior_log_prob : callable, optional
        log π, (N, D) → (N,); the process's own N(0, prior_std² I) if None.
    n_nodes : int
        Of the time integral, as for `kl_bound`.
    """
    x = as_samples(x)
    (N, D), noise = x.shape, as_samples(noise, "noise", dimension=x.shape[1])
    M = len(noise)
    noise_weights = np.full(M, 1 / M) if noise_weights is None else np.asarray(noise_weights)
    if noise_weights.shape != (M,) or abs(noise_weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"noise_weights must be {M} numbers, one a row of noise, that sum to 1, got {noise_weights!r:.60}"
        )
    prior_log_prob = sde.prior_log_prob if prior_log_prob is None else prior_log_prob
    scale_min, std_min = sde.level(t_min)

    def mean_at(t: float, f: Callable[[Array], Array]) -> Array:
        """E f(x_t) given x at t_min, (N,)."""
        scale, std = sde.level(t)
        ratio = scale / scale_min
        spread = np.sqrt(max(std**2 - (ratio * std_min) ** 2, 0.0))
        x_t = ratio * x[None] + spread * noise[:, None]
        return noise_weights @ f(x_t.reshape(M * N, D)).reshape(M, N)

    def loss(x_t: Array, t: float) -> Array:
        return float(sde.diffusion(t)) ** 2 * implicit_score_matching(*score_and_divergence(x_t, t))

    log_ratio = float(sde.log_scale(sde.horizon)) - np.log(scale_min)  # ∫f dt
    integral = np.zeros(N)
    for t, weight in zip(*(a.tolist() for a in _time_nodes(sde, t_min, n_nodes)), strict=True):
        integral += weight * mean_at(t, lambda x_t, t=t: loss(x_t, t))  # type: ignore[misc]
    return mean_at(sde.horizon, prior_log_prob) - 0.5 * integral + D * log_ratio


def probability_flow_log_prob(
    sde: LinearSDE,
    score_and_divergence: Callable[[Array, float], tuple[Array, Array]],
    x: Array,
    t_min: float = 0.0,
    rtol: float = 1e-6,
) -> Array:
    """log p^ODE(x), (N,), nats: exact log-likelihood of the probability flow dx/dt = f̃ = f x − ½g² s_θ.

        log p(x) = log π(x_T) + ∫ div f̃ dt  along the path from x at t_min to x_T

    Parameters
    ----------
    score_and_divergence : callable
        (x, t) → (s_θ (N, D), div s_θ (N,)).
    x : (N, D)
    t_min : float
        Where the flow's density is taken.
    rtol : float
        Relative tolerance of the adaptive integrator (DOP853); errors of log p measured about a tenth of it.
    """
    N, D = x.shape

    def slope(t: float, state: Array) -> Array:
        points = state[: N * D].reshape(N, D)
        score, divergence = score_and_divergence(points, t)
        half_g_squared = 0.5 * float(sde.diffusion(t)) ** 2
        velocity = sde.drift(points, t) - half_g_squared * score
        return np.concatenate([velocity.ravel(), D * float(sde.rate(t)) - half_g_squared * divergence])

    start = np.concatenate([x.astype(np.float64).ravel(), np.zeros(N)])
    end = integrate(slope, t_min, sde.horizon, start, rtol, 0.1 * rtol, "the probability flow", "raise t_min or rtol")
    return sde.prior_log_prob(end[: N * D].reshape(N, D)) + end[N * D :]
