"""Equations (11)-(14): the Gaussian VAE, with a hand-written reparameterised gradient.

    −ELBO(x) = E_{z ~ q(z|x)}[−log p_θ(x | z)] + KL(q(z | x)‖N(0, I)),   q(z | x) = N(μ(x), diag σ²(x)),  (13)

With z = μ + σ ξ and ξ ~ N(0, I), one draw gives an unbiased and differentiable estimate of (13), which is (14).  Losses
are summed over dimensions and averaged over examples.  −log p_θ(x | z) is ‖x − x̂‖²/(2s²) + (D/2) log 2πs² with the
decoder's variance s².  Many implementations average the squares over D; that is a decoder of variance D/2.

* `objective`: (13), (14) with its derivatives, and the importance-weighted bound.
* `network`: encoder and decoder, and their bounds of log p_θ(x).
* `training`: one training step and the training loop.
"""

from scratchgen.vae.network import VAENetwork, elbo, iwae
from scratchgen.vae.objective import (
    VAEGradient,
    importance_weighted_bound,
    log_importance_weight,
    reconstruction_error,
    reparameterise,
    vae_loss,
    vae_loss_and_gradient,
    vae_loss_table,
)
from scratchgen.vae.tables import iwae_table, kl_parts_table
from scratchgen.vae.training import LOG_VARIANCE_RATE, Draw, random_batch, sigma_batch, train, train_step

__all__ = [
    "LOG_VARIANCE_RATE",
    "Draw",
    "VAEGradient",
    "VAENetwork",
    "elbo",
    "importance_weighted_bound",
    "iwae",
    "iwae_table",
    "kl_parts_table",
    "log_importance_weight",
    "random_batch",
    "reconstruction_error",
    "reparameterise",
    "sigma_batch",
    "train",
    "train_step",
    "vae_loss",
    "vae_loss_and_gradient",
    "vae_loss_table",
]
