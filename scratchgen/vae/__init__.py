"""Equations (11)-(14): the Gaussian VAE, with a hand-written reparameterised gradient.

    −ELBO(x) = E_{z ~ q(z|x)}[−log p_θ(x | z)] + KL(q(z | x)‖N(0, I)),   q(z | x) = N(μ(x), diag σ²(x)),  (13)

The model: z ~ N(0, I), and a decoder network maps z to the mean of x.  Its posterior, (11), is out of reach.
Minimised: the joint KL of (10) over decoder and encoder, (12); without the constant −H(p) it is (13).
Exact: the KL to the prior; and the gradient on average, since z = μ + σ ξ with ξ ~ N(0, I) is differentiable, so that
one draw gives an unbiased estimate of (13), which is (14).  For affine networks the optimum is known: PPCA.
Lost: the gap of a Gaussian q with independent latents; `scratchgen.grading` computes it for one latent.

Losses are summed over dimensions and averaged over examples.  −log p_θ(x | z) is ‖x − x̂‖²/(2s²) + (D/2) log 2πs² with
the decoder's variance s².  Many implementations average the squares over D; that is a decoder of variance D/2.

* `objective`: (13), (14) with its derivatives, and the importance-weighted bound.
* `network`: encoder and decoder, and their bounds of log p_θ(x).
* `training`: one training step and the training loop.
* `tables`: for tables, the two parts of the mean KL, and the importance-weighted bound by enumeration.

Read `training` first: its step and loop are the whole algorithm.
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
