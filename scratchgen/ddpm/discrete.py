"""Whole numbers: the ELBO without Monte Carlo error, and the cost of dequantisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.ddpm.bound import bound_terms
from scratchgen.ddpm.kernels import check_schedule
from scratchgen.ddpm.samplers import EpsHat
from scratchgen.likelihood import logsumexp
from scratchgen.quadrature import gauss_hermite
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_arrays, as_count, as_samples, check_callable, check_levels


def exact_elbo(
    schedule: NoiseSchedule,
    x0: Array,
    eps_hat: EpsHat,
    variance: str | Array = "beta",
    n_levels: int | None = None,
    n_nodes: int = 28,
) -> Array:
    """The ELBO of every example, (N,), nats, by quadrature over the noise in place of draws.

    Every term of `bound_terms` depends on one x_t only, so that its expectation is an integral over D numbers.  For
    whole numbers and any ε̂, exp(ELBO(x)) ≤ P_θ(x): summed over all x it is at most 1, and E_P[−ELBO] ≥ H(P) for every
    law P.

    Parameters
    ----------
    x0 : (N, D)
        With `n_levels`, levels scaled to [−1, 1].
    eps_hat, variance, n_levels
        As for `bound_terms`.
    n_nodes : int
        Gauss-Hermite nodes of one dimension; all have n_nodes^D.

    Raises
    ------
    TypeError, ValueError
        As for `bound_terms`, or if D > 3.
    """
    check_schedule(schedule)
    x0 = as_samples(x0, "x0")
    if x0.shape[1] > 3:
        raise ValueError(f"x0 must have at most 3 columns for quadrature, got {x0.shape[1]}; draw noise instead")
    nodes, weights = gauss_hermite(as_count(n_nodes, "n_nodes"), x0.shape[1])
    noise = np.broadcast_to(np.tile(nodes, (len(x0), 1)), (schedule.T, len(x0) * len(nodes), x0.shape[1]))
    terms = bound_terms(schedule, np.repeat(x0, len(nodes), axis=0), eps_hat, noise, variance, n_levels)
    return -terms.sum(axis=1).reshape(len(x0), -1) @ weights


def dequantisation_cost(log_prob: Callable[[Array], Array], k: Array, n_nodes: int = 20) -> Array:
    """KL(uniform‖p(u | k)) of every example, (N,), nats: the loss of a density of k + u as a model of P(k).

        log P(k) = log ∫ p(k + u) du ≥ ∫ log p(k + u) du,   u in [0, 1)^D

    The difference of both sides is returned (Theis et al. 2016).  It is 0 only if the density is constant on the cell,
    and a variational q(u | k) can reduce it.

    Parameters
    ----------
    log_prob : callable
        log p of points (M, D), (M,), nats.
    k : (N, D)
        Whole numbers.
    n_nodes : int
        Gauss-Legendre nodes of one dimension; all have n_nodes^D.

    Raises
    ------
    TypeError, ValueError
        If k is not an (N, D) array with at most three columns, or n_nodes is not a positive integer.
    """
    check_callable(log_prob, "log_prob", "points (M, D) → (M,)")
    k = as_samples(k, "k")
    check_levels(k - k.min(initial=0), int(np.ptp(k)) + 2, "k")
    N, D = k.shape
    if D > 3:
        raise ValueError(f"k must have at most 3 columns for quadrature, got {D}; draw u instead")
    nodes, weights = np.polynomial.legendre.leggauss(as_count(n_nodes, "n_nodes"))
    cube = np.stack(np.meshgrid(*[0.5 * (nodes + 1)] * D, indexing="ij"), axis=-1).reshape(-1, D)
    law = np.stack(np.meshgrid(*[0.5 * weights] * D, indexing="ij"), axis=-1).reshape(-1, D).prod(axis=1)
    points = (k[:, None] + cube).reshape(-1, D)
    log_p = as_arrays("log_prob (M)", log_prob(points), M=len(points)).reshape(N, -1)
    return logsumexp(log_p + np.log(law)) - log_p @ law
