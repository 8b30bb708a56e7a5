"""Information, divergence and second moments along a diffusion: I-MMSE, de Bruijn, Tweedie's covariance, tilts.

The functions are exact: expectations under a `Mixture` in one or two dimensions are quadratures.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.likelihood import logsumexp, quiet_log, softmax
from scratchgen.mixture import Mixture
from scratchgen.quadrature import central_difference
from scratchgen.sde.processes import LinearSDE, as_time
from scratchgen.validation import (
    LARGEST,
    SMALLEST,
    Array,
    ArrayLike,
    as_arrays,
    as_count,
    as_finite,
    as_number,
    as_samples,
    check_callable,
    check_type,
)

WIDTH = 0.02  # step of the differences of a score, in units of std


def _spacing(law: Mixture) -> float:
    """Spacing of nodes in units of the smallest std: errors of scores of far and narrow modes are 1e-12 and 3e-8."""
    return 0.15 if law.dimension > 1 else 0.07


def mutual_information(sde: LinearSDE, noise_loss: Callable[[float], float], t_min: float, n_nodes: int = 32) -> float:
    """I(x_0; x_{t_min}) − I(x_0; x_T), nats: half the integral of the least noise loss over log-SNR (Guo et al. 2005).

        dI/d(log-SNR) = ½ E‖ε − E[ε | x_t]‖²

    The integral has the same value for every process with the same log-SNR at both ends: the bound of a diffusion model
    does not depend on its schedule in between (Kingma et al. 2021).

    Parameters
    ----------
    sde : LinearSDE
    noise_loss : callable
        t → E‖ε − ε̂(x_t, t)‖², summed over dimensions.  For a network's ε̂ the value is larger by the excess of the loss.
    t_min : float
        In (0, horizon).
    n_nodes : int
        Number of Gauss-Legendre nodes in log-SNR.

    Raises
    ------
    TypeError, ValueError
        If t_min is not in (0, horizon], or n_nodes is not a positive integer.
    """
    t_min = as_time(sde, t_min, "t_min", open_low=True)
    check_callable(noise_loss, "noise_loss", "t → a number")
    low, high = sde.log_snr(np.array([sde.horizon, t_min])).tolist()
    nodes, weights = np.polynomial.legendre.leggauss(as_count(n_nodes, "n_nodes"))
    times = sde.time_at(0.5 * (low + high) + 0.5 * (high - low) * nodes)
    return (
        0.25
        * (high - low)
        * float(weights @ np.array([as_number(noise_loss(t), "noise_loss(t)") for t in times.tolist()]))
    )


def kl_rate(sde: LinearSDE, p: Mixture, q: Mixture, t: float) -> float:
    """d/dt KL(p_t‖q_t) = −½ g² E_{p_t}‖∇log p_t − ∇log q_t‖², nats a unit of time: de Bruijn's identity for two laws.

    Both laws are diffused by the same SDE.  The integral over t is the equality case of (34), and shows that a
    diffusion never increases the divergence.

    Parameters
    ----------
    sde : LinearSDE
    p, q : Mixture
        Laws at time 0, in one or two dimensions.
    t : float

    Raises
    ------
    ValueError
        If the laws have more than two dimensions.
    """
    t = as_time(sde, t)
    check_type(p, Mixture, "p")
    check_type(q, Mixture, "q")
    if p.dimension != q.dimension:
        raise ValueError(f"q must have {p.dimension} dimensions, as p has, got {q.dimension}")
    p, q = p.diffuse(*sde.level(t)), q.diffuse(*sde.level(t))
    both = Mixture(
        np.concatenate([p.weights, q.weights]) / 2,
        np.concatenate([p.means, q.means]),
        np.concatenate([p.covariances, q.covariances]),
    )
    points, weights = both.quadrature(_spacing(p))  # nodes as fine as either law needs
    distance = ((p.score(points) - q.score(points)) ** 2).sum(axis=1)
    return -0.5 * float(sde.diffusion(t)) ** 2 * float((weights * np.exp(p.log_prob(points))) @ distance)


def tweedie_covariance(score: Callable[[Array], Array], x_t: Array, scale: float, std: float) -> Array:
    """Cov(x_0 | x_t) = (std/scale)² (I + std² ∇s), (N, D, D), from a score s at one noise level (Efron 2011).

    For the exact score the matrices are symmetric and positive semidefinite.  The derivatives are central differences
    of sixth order, so that any score can be examined: a network need not be the gradient of a function, and its
    asymmetry measures how far it is from one.

    Parameters
    ----------
    score : callable
        s, (N, D) → (N, D), in float64.
    x_t : (N, D)
    scale, std : float
        Coefficients of x_t = scale · x_0 + std · ε, both in [1e-60, 1e60].

    Returns
    -------
    covariances : (N, D, D)
        Entry [n, d, e] contains ∂s_d/∂x_e.

    Raises
    ------
    TypeError, ValueError
        If scale or std is not a positive number, or x_t is not (N, D).
    """
    x_t = as_samples(x_t, "x_t")
    scale, std = (as_number(v, name, low=SMALLEST, high=LARGEST) for v, name in ((scale, "scale"), (std, "std")))
    directions = np.eye(x_t.shape[1])
    check_callable(score, "score", "x (N, D) → (N, D)")

    def score_at(x: Array) -> Array:
        return np.asarray(as_arrays("score (N, D)", score(x), N=len(x), D=x.shape[1]))

    jacobian = [central_difference(lambda u, v=v: score_at(x_t + u * v), WIDTH * std) for v in directions]  # type: ignore[misc]
    return (std / scale) ** 2 * (directions + std**2 * np.stack(jacobian, axis=-1))


def tilted_score(law: Mixture, p_label: ArrayLike, guidance: float, x_t: Array, scale: float, std: float) -> Array:
    """Score, (N, D), at one noise level of data with the law ∝ p(x) (p(x | y)/p(x))^w, by quadrature.

    Guidance follows (1 − w) ∇log p_t(x) + w ∇log p_t(x | y) instead (Ho and Salimans 2022).  Both agree for w in {0, 1}
    and as std → 0, and for Gaussians of equal covariance; in general they differ, and guided samples do not have the
    tilted law.

    Parameters
    ----------
    law : Mixture
        p(x) at time 0, in one or two dimensions.
    p_label : array_like, (K,)
        P(y | k), the probability of the label for every component; p(x | y) ∝ Σ_k w_k P(y | k) N(x; m_k, C_k).
    guidance : float
        w, not negative.
    x_t : (N, D)
    scale, std : float
        Coefficients of x_t = scale · x_0 + std · ε, both in [1e-60, 1e60].

    Raises
    ------
    TypeError, ValueError
        If p_label does not hold K numbers in [0, 1] of which one is positive, guidance is negative, or D > 2.
    """
    check_type(law, Mixture, "law")
    c, w = as_finite(p_label, "p_label"), as_number(guidance, "guidance", low=0.0)
    if c.shape != law.weights.shape or not ((c >= 0) & (c <= 1)).all() or not (c * law.weights).any():
        raise ValueError(f"p_label must be {len(law.weights)} numbers in [0, 1], not all 0, got {c}")
    scale, std = (as_number(v, name, low=SMALLEST, high=LARGEST) for v, name in ((scale, "scale"), (std, "std")))
    x_t = as_samples(x_t, "x_t", dimension=law.dimension)
    narrow = float(np.sqrt(np.linalg.eigvalsh(law.covariances).min()))
    nodes, _ = law.quadrature(_spacing(law) * min(1.0, std / scale / narrow))
    log_joint = law.log_joint(nodes)
    log_prob = logsumexp(log_joint)
    log_tilt = log_prob + w * (logsumexp(log_joint + quiet_log(c)) - log_prob)
    squares = ((x_t[:, None] - scale * nodes) ** 2).sum(axis=-1)
    return (scale * softmax(log_tilt - 0.5 * squares / std**2) @ nodes - x_t) / std**2
