"""Equation (34) and the likelihood of the probability flow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.sde.integration import integrate
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array, as_count, as_number


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
    t_min = as_number(t_min, "t_min", low=0.0, high=sde.horizon)
    nodes, weights = np.polynomial.legendre.leggauss(as_count(n_nodes, "n_nodes"))
    y = 0.5 * (nodes + 1)
    span = sde.horizon - t_min
    times = t_min + span * y**3
    integrand = np.array([float(sde.diffusion(t)) ** 2 * score_error(float(t)) for t in times])
    return float(0.5 * (0.5 * weights * 3 * span * y**2 * integrand).sum() + prior_kl)


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
