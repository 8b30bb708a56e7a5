"""Checks of equations (13)-(14): the objective of the VAE, the loss of one draw, the importance-weighted bound."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.variational import gap_of_tables
from scratchgen.quadrature import sigma_points
from scratchgen.validation import Array


@takes_arrays
def check_vae_objective(loss: Callable[..., ArrayLike], p_x: Array, q: Array, decoder: Array, prior: Array) -> Check:
    """(13): E_p[−E_q log p_θ(x | z) + KL(q‖q(z))] = (12) + H(p), for distributions given as tables.

    Parameters
    ----------
    loss : callable
        loss(p_x, q, decoder, prior) → a number, nats.
    p_x : (X,)
        p(x), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    decoder : (X, Z)
        p_θ(x | z), positive; every column sums to 1.
    prior : (Z,)
        q(z), positive, sum 1.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    log_evidence, gap, _, _ = gap_of_tables(decoder * prior, q)
    fit, regulariser = (q * np.log(decoder)).sum(axis=1), (q * np.log(q / prior)).sum(axis=1)
    return compare(
        "check_vae_objective",
        "(13)",
        "E_p[−E_q log p_θ(x | z) + KL(q‖q(z))]",
        loss(p_x, q, decoder, prior),
        p_x @ (gap - log_evidence),
        1e-11,
        {
            "it is (12): p(x) stands under the logarithm": lambda: p_x @ (gap - log_evidence + np.log(p_x)),
            "the reconstruction has the wrong sign": lambda: p_x @ (fit + regulariser),
            "the KL has the wrong sign": lambda: -p_x @ (fit + regulariser),
            "x is averaged without p(x)": lambda: (gap - log_evidence).mean(),
        },
    )


@takes_arrays
def check_vae_loss(
    loss: Callable[..., ArrayLike],
    x: Array,
    W: Array,
    decoder_mean: Array,
    decoder_variance: float,
    q_mean: Array,
    q_log_variance: Array,
) -> Check:
    """(14): the mean of the loss over draws of z is −ELBO of the linear-Gaussian model, in closed form.

    q(z | x_n) = N(q_mean[n], diag exp q_log_variance[n]) and p(x | z) = N(W z + decoder_mean, decoder_variance I).  The
    loss is a quadratic in z, so that sigma points give the exact mean.

    Parameters
    ----------
    loss : callable
        loss(x, x_hat, mean, log_variance, decoder_log_variance) → (N,), nats.
    x : (N, D)
    W : (D, k)
    decoder_mean : (D,)
    decoder_variance : float
    q_mean, q_log_variance : (N, k)

    Returns
    -------
    Check
        Tolerance 1e-12.
    """
    points = sigma_points(W.shape[1])
    D, k, log_s2 = x.shape[1], W.shape[1], float(np.log(decoder_variance))
    q_variance = np.exp(q_log_variance)
    draws = [q_mean + np.sqrt(q_variance) * xi for xi in points]
    losses = [np.asarray(loss(x, z @ W.T + decoder_mean, q_mean, q_log_variance, log_s2)) for z in draws]
    value = np.mean(losses, axis=0)
    squares = ((x - decoder_mean - q_mean @ W.T) ** 2).sum(axis=1) + q_variance @ (W**2).sum(axis=0)
    constant = 0.5 * D * np.log(2 * np.pi * decoder_variance)
    kl = 0.5 * (q_mean**2 + q_variance - 1 - q_log_variance).sum(axis=1)
    fit = squares / (2 * decoder_variance)
    return compare(
        "check_vae_loss",
        "(14)",
        "−ELBO of an example",
        value,
        constant + fit + kl,
        1e-12,
        {
            "the KL is averaged over the latents, not summed": lambda: constant + fit + kl / k,
            "the squared error is averaged over the D dimensions": lambda: constant + fit / D + kl,
            "the constant (D/2) log 2πs² is missing": lambda: fit + kl,
            "s stands where s² belongs": lambda: constant + squares / (2 * np.sqrt(decoder_variance)) + kl,
            "the ½ before the squared error is missing": lambda: constant + 2 * fit + kl,
            "the ½ before the KL is missing": lambda: constant + fit + 2 * kl,
            "the KL has the wrong sign": lambda: constant + fit - kl,
            "the KL is missing": lambda: constant + fit,
            "it is averaged over the batch": lambda: (constant + fit + kl).mean(),
            "it is the plain sum of squares plus KL": lambda: squares + kl,
            "it is half the sum of squares plus KL: s² = 1 and no constant": lambda: squares / 2 + kl,
            "it is the mean of squares plus KL": lambda: squares / D + kl,
            "(D/2) log 2π is missing": lambda: constant - 0.5 * D * np.log(2 * np.pi) + fit + kl,
            "the KL is halved": lambda: constant + fit + kl / 2,
            "the constant of the Gaussian is counted D times": lambda: (
                constant + 0.5 * D * (D - 1) * np.log(2 * np.pi) + fit + kl
            ),
        },
    )


@takes_arrays
def check_importance_weighted_bound(
    bound: Callable[[Array], ArrayLike], joint: Array, q: Array, n_draws: int = 2
) -> Check:
    """Burda et al. 2016: E exp(bound) = p(x), and bound = log w for one draw, by a sum over all n-tuples of z.

    The inequality bound <= log p(x) alone would pass a plain mean of log w.

    Parameters
    ----------
    bound : callable
        bound(log_weights (n, X)) → (X,), nats, with log w = log p(x, z)/q(z | x).
    joint : (X, Z)
        p(x, z), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    n_draws : int

    Returns
    -------
    Check
        The larger of the two residuals; tolerance 1e-11.
    """
    log_weights = np.log(joint) - np.log(q)
    n_z = joint.shape[1]
    tuples = list(product(range(n_z), repeat=n_draws))
    law = np.array([np.prod(q[:, draw], axis=1) for draw in tuples])
    stacks = [log_weights[:, draw].T for draw in tuples]
    logs = np.array([bound(stack) for stack in stacks])

    def mean_of(f: Callable[[Array], Array]) -> Array:
        return (law * np.exp([f(stack) for stack in stacks])).sum(axis=0)

    def weigh_by_loss(stack: Array) -> Array:
        softmax = np.exp(-stack) / np.exp(-stack).sum(axis=0)
        return (softmax * stack).sum(axis=0)

    return worst(
        compare(
            "check_importance_weighted_bound",
            "(8)",
            "the bound of one draw",
            np.array([bound(log_weights[:, [z]].T) for z in range(n_z)]),
            log_weights.T,
            1e-11,
        ),
        compare(
            "check_importance_weighted_bound",
            "(8)",
            "E exp(bound) (it should be p(x))",
            (law * np.exp(logs)).sum(axis=0),
            joint.sum(axis=1),
            1e-11,
            {
                "it is the mean of the log-weights, an ELBO": lambda: mean_of(lambda stack: stack.mean(axis=0)),
                "log n is not subtracted": lambda: n_draws * joint.sum(axis=1),
                "it is the largest log-weight": lambda: mean_of(lambda stack: stack.max(axis=0)),
                "the worst draws have the largest weights: a softmax over losses": lambda: mean_of(weigh_by_loss),
            },
        ),
    )
