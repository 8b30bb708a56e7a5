"""(13), (14) and the importance-weighted bound: what a VAE minimises, on given draws of z."""

from __future__ import annotations

import numpy as np

from scratchgen.likelihood import gaussian_log_prob, kl_diag_standard, logsumexp
from scratchgen.validation import Array
from scratchgen.variational import elbo_split_table


def vae_loss_table(p_x: Array, q: Array, decoder: Array, prior: Array) -> float:
    """E_p[−E_q log p_θ(x | z) + KL(q(z | x)‖q(z))] of tables, nats, (13): the joint KL (12) plus H(p).

    p_x (X,), q[x, z] = q(z | x), decoder[x, z] = p_θ(x | z), prior (Z,).  Where the deck drops log p(x) as
    irrelevant, the value changes by the entropy H(p); the minimiser does not.
    """
    return -float(p_x @ elbo_split_table(decoder, prior, q))


def vae_loss(x: Array, x_hat: Array, mean: Array, log_variance: Array, decoder_log_variance: Array | float) -> Array:
    """−log N(x; x̂, s² I) + KL(N(μ, diag σ²)‖N(0, I)) of every example, (N,), nats, (14).

    One draw of z ~ q(z | x), on which the deck's (14) is silent, makes it an unbiased estimate of (13), not its value.

    Parameters
    ----------
    x, x_hat : (N, D)
        Data and the decoder's mean at the drawn z.
    mean, log_variance : (N, k)
        μ and log σ² of q(z | x).
    decoder_log_variance : float, (D,) or (N, D)
        log s².  With s² = ½ and without its constant the first term is the plain sum of squares.
    """
    return kl_diag_standard(mean, log_variance) - gaussian_log_prob(x, x_hat, decoder_log_variance)


def importance_weighted_bound(log_weights: Array) -> Array:
    """log (1/n) Σ_i w_i over the first axis, nats, for log w_i = log p_θ(x, z_i)/q(z_i | x) (Burda et al. 2016).

    The ELBO's draws at n = 1; its mean rises to log p_θ(x) with n.  exp of it is an unbiased estimate of p_θ(x).
    """
    return logsumexp(log_weights, axis=0) - np.log(len(log_weights))
