"""Equations (13) and (14), and the importance-weighted bound, as functions of given draws of z."""

from typing import NamedTuple

import numpy as np

from scratchgen.likelihood import (
    LOG_2PI,
    gaussian_log_prob,
    kl_diag_standard,
    levels_of,
    log_bin_mass_slopes,
    logsumexp,
)
from scratchgen.validation import Array, as_arrays, as_number, as_real, check_probabilities
from scratchgen.variational import elbo_split_table


class VAEGradient(NamedTuple):
    """Derivatives of the loss (14) of every example with respect to its arguments, at fixed z."""

    x_hat: Array  # (N, D)
    mean: Array  # (N, k)
    log_variance: Array  # (N, k)
    decoder_log_variance: Array  # (N, D); for one log s² of all dimensions sum over them


def vae_loss_table(p_x: Array, q: Array, decoder: Array, prior: Array) -> float:
    """E_p[−E_q log p_θ(x | z) + KL(q(z | x)‖q(z))] of tables, nats, (13): the joint KL (12) plus the entropy H(p).

    The deck drops log p(x) as irrelevant.  That changes the value by H(p), and does not change the minimiser.

    Parameters
    ----------
    p_x : (X,)
    q, decoder : (X, Z)
        q(z | x) and p_θ(x | z).
    prior : (Z,)
    """
    shapes = "p_x (X), q (X, Z), decoder (X, Z), prior (Z)"
    p_x, q, decoder, prior = as_arrays(shapes, p_x, q, decoder, prior)
    check_probabilities(p_x, "p_x")
    return -float(p_x @ elbo_split_table(decoder, prior, q))


def reparameterise(mean: Array, log_variance: Array, noise: Array) -> Array:
    """A draw z = μ + σ ξ of q(z | x) = N(μ, diag σ²) from noise ξ ~ N(0, I), (14).

    z is a differentiable function of μ and log σ², with ∂z/∂μ = 1 and ∂z/∂log σ² = ½ σ ξ.

    Parameters
    ----------
    mean, log_variance : (..., k)
        μ and log σ².
    noise : (..., k)
        ξ.
    """
    mean, log_variance, noise = as_arrays(
        "mean (..., k), log_variance (..., k), noise (..., k)", mean, log_variance, noise
    )
    return mean + np.exp(0.5 * log_variance) * noise


def reconstruction_error(
    x: Array, x_hat: Array, decoder_log_variance: Array | float, n_levels: int | None = None
) -> tuple[Array, Array, Array]:
    """−log p_θ(x | z) of every example, the first term of (14), nats, and its derivatives.

        ½ Σ_d [(x̂_d − x_d)²/s_d² + log 2πs_d²]

    Parameters
    ----------
    x, x_hat : (N, D)
        Data and the decoder's mean.
    decoder_log_variance : float, (D,) or (N, D)
        log s².
    n_levels : int, optional
        For whole numbers 0..n_levels−1 scaled to [−1, 1]: the decoder is then the Gaussian observed in bins, see
        `scratchgen.likelihood.log_bin_mass`.  None for a density.

    Returns
    -------
    losses : (N,)
    by_x_hat, by_log_variance : (N, D)
        Derivatives with respect to x̂ and to log s_d².
    """
    shapes = "x (...), x_hat (...), decoder_log_variance (...)"
    x, x_hat, log_variance = as_arrays(shapes, x, x_hat, decoder_log_variance)
    log_variance = log_variance.astype(np.result_type(x, x_hat, np.float32), copy=False)
    if n_levels is None:  # `gaussian_log_prob` written out, since the derivatives use its squares
        residual: Array = x_hat - x
        by_x_hat: Array = np.exp(-log_variance) * residual
        square = by_x_hat * residual
        return 0.5 * (square + (LOG_2PI + log_variance)).sum(axis=-1), by_x_hat, 0.5 * (1 - square)
    std = np.exp(0.5 * log_variance)
    log_mass, by_mean, by_log_variance = log_bin_mass_slopes(levels_of(x, n_levels), x_hat, std, n_levels)
    return -log_mass.sum(axis=-1), -by_mean, -by_log_variance


def vae_loss_and_gradient(
    x: Array,
    x_hat: Array,
    mean: Array,
    log_variance: Array,
    decoder_log_variance: Array | float,
    kl_weight: float = 1.0,
    n_levels: int | None = None,
) -> tuple[Array, VAEGradient]:
    """−log p_θ(x | z) + KL(N(μ, diag σ²)‖N(0, I)) of every example, (N,), nats, (14), and its derivatives.

    `vae_loss` returns the value alone.  `train_step` uses the derivatives.

    Parameters
    ----------
    x, x_hat, mean, log_variance, decoder_log_variance, n_levels
        As for `vae_loss`.
    kl_weight : float
        Factor of the KL.  For values other than 1 minus the loss is not a lower bound of log p_θ(x).

    Returns
    -------
    losses : (N,)
    gradient : VAEGradient
    """
    shapes = "x (N, D), x_hat (N, D), mean (N, k), log_variance (N, k)"
    x, x_hat, mean, log_variance = as_arrays(shapes, x, x_hat, mean, log_variance)
    kl_weight = as_number(kl_weight, "kl_weight", low=0.0)
    reconstruction, by_x_hat, by_log_s2 = reconstruction_error(x, x_hat, decoder_log_variance, n_levels)
    losses = reconstruction + kl_weight * kl_diag_standard(mean, log_variance)
    by_mean, by_log_variance = kl_weight * mean, 0.5 * kl_weight * np.expm1(log_variance)  # ∂KL/∂μ, ∂KL/∂log σ²
    return losses, VAEGradient(by_x_hat, by_mean, by_log_variance, by_log_s2)


def vae_loss(
    x: Array,
    x_hat: Array,
    mean: Array,
    log_variance: Array,
    decoder_log_variance: Array | float,
    n_levels: int | None = None,
) -> Array:
    """−log p_θ(x | z) + KL(N(μ, diag σ²)‖N(0, I)) of every example, (N,), nats, (14).

    The decoder p_θ(x | z) is N(x; x̂, s² I).  With one draw z ~ q(z | x) the loss is an unbiased estimate of (13), and
    not its value; the deck's (14) does not mention the draw.

    Parameters
    ----------
    x, x_hat : (N, D)
        Data and the decoder's mean at the drawn z.
    mean, log_variance : (N, k)
        μ and log σ² of q(z | x).
    decoder_log_variance : float, (D,) or (N, D)
        log s².  For s² = ½ the first term is ‖x − x̂‖² plus a constant.
    n_levels : int, optional
        As for `reconstruction_error`.
    """
    return vae_loss_and_gradient(x, x_hat, mean, log_variance, decoder_log_variance, n_levels=n_levels)[0]


def log_importance_weight(
    x: Array,
    x_hat: Array,
    z: Array,
    mean: Array,
    log_variance: Array,
    decoder_log_variance: Array | float,
    n_levels: int | None = None,
) -> Array:
    """log w = log p_θ(x | z) q(z)/q(z | x) of every example, (N,), nats, for q(z | x) = N(μ, diag σ²), q(z) = N(0, I).

    Over z ~ q(z | x) the mean of log w is the ELBO, (8), and the mean of w is p_θ(x).

    Parameters
    ----------
    z : (N, k)
        Draws of q(z | x); x̂ is the decoder's mean at z.
    x, x_hat, mean, log_variance, decoder_log_variance, n_levels
        As for `vae_loss`.
    """
    shapes = "x (N, D), x_hat (N, D), z (N, k), mean (N, k), log_variance (N, k)"
    x, x_hat, z, mean, log_variance = as_arrays(shapes, x, x_hat, z, mean, log_variance)
    log_prior = gaussian_log_prob(z, np.zeros_like(z), 0.0)
    log_decoder = -reconstruction_error(x, x_hat, decoder_log_variance, n_levels)[0]
    return log_decoder + log_prior - gaussian_log_prob(z, mean, log_variance)


def importance_weighted_bound(log_weights: Array) -> Array:
    """log (1/n) Σ_i w_i for log w_i = log p_θ(x, z_i)/q(z_i | x), (N,), nats (Burda et al. 2016).

    For n = 1 the bound is one draw of the ELBO.  Its mean rises with n and converges to log p_θ(x).  The exponential of
    the bound is an unbiased estimate of p_θ(x).

    Parameters
    ----------
    log_weights : (n, N)
        log w_i, nats.
    """
    log_weights = as_real(log_weights, "log_weights")
    if log_weights.ndim == 0 or len(log_weights) == 0:
        raise ValueError(f"log_weights must have shape (n, N) with n >= 1, got shape {log_weights.shape}; draw z first")
    return logsumexp(log_weights, axis=0) - np.log(len(log_weights))
