"""Exact values for tables: the two parts of the mean KL, and the importance-weighted bound by enumeration."""

from __future__ import annotations

import numpy as np

from scratchgen.likelihood import kl_discrete, quiet_log
from scratchgen.vae.objective import importance_weighted_bound
from scratchgen.validation import Array, as_arrays, as_count, check_probabilities


def kl_parts_table(p_x: Array, q: Array, prior: Array) -> tuple[Array, float]:
    """The two parts of the mean regulariser of (13) (Hoffman and Johnson 2016), nats.

        E_p KL(q(z | x)‖q(z)) + KL(q̄(z)‖q(z)) with the prior q(z);   E_p KL(q(z | x)‖q̄(z)) = I_q(x; z)

    q̄(z) = Σ_x p(x) q(z | x) is the aggregate posterior.  Only the second part can vanish without a loss of information
    about x.

    Parameters
    ----------
    p_x : (X,)
    q : (X, Z)
        q(z | x).
    prior : (Z,)

    Returns
    -------
    information : (X,)
        KL(q(z | x)‖q̄(z)) of every x; its mean under p is I_q(x; z).
    aggregate_kl : float
        KL(q̄(z)‖prior).
    """
    p_x, q, prior = as_arrays("p_x (X), q (X, Z), prior (Z)", p_x, q, prior)
    check_probabilities(p_x, "p_x")
    check_probabilities(q, "q")
    check_probabilities(prior, "prior")
    aggregate = p_x @ q
    return kl_discrete(q, aggregate), float(kl_discrete(aggregate, prior))


def iwae_table(joint: Array, q: Array, n_draws: int) -> Array:
    """E log (1/n) Σ_i w_i for every x, (X,), nats, summed over all n-tuples of z (Burda et al. 2016).

    The value rises with n from the ELBO, n = 1, to log p(x); for q = p(z | x) it is log p(x) for every n.

    Parameters
    ----------
    joint, q : (X, Z)
        p(x, z) and q(z | x).
    n_draws : int
        n; the sum has Z^n terms.

    Raises
    ------
    TypeError, ValueError
        If n_draws is not a positive integer.
    """
    joint, q = as_arrays("joint (X, Z), q (X, Z)", joint, q)
    check_probabilities(joint, "joint", axis=None)
    check_probabilities(q, "q")
    n_draws = as_count(n_draws, "n_draws")
    draws = np.indices((q.shape[1],) * n_draws).reshape(n_draws, -1)
    law = q[:, draws].prod(axis=1)
    with np.errstate(invalid="ignore"):
        bounds = importance_weighted_bound(np.moveaxis((quiet_log(joint) - quiet_log(q))[:, draws], 1, 0))
    return np.where(law > 0, law * bounds, 0.0).sum(axis=1)
