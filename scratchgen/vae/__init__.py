"""Equations (11)-(14): the Gaussian VAE, with the reparameterised gradient written by hand.

    −ELBO(x) = E_{z ~ q(z|x)}[−log p_θ(x | z)] + KL(q(z | x)‖N(0, I)),   q(z | x) = N(μ(x), diag σ²(x)),  (13)

where z = μ + σ ξ with ξ ~ N(0, I) makes one draw an unbiased, differentiable estimate, (14).  Sums run over
dimensions and means over examples; −log p_θ(x | z) is ‖x − x̂‖²/(2s²) + (D/2) log 2πs² with the decoder's variance s²:
averaging the squares over D instead, as many implementations do, is a decoder of variance D/2 in disguise.

`objective` has the loss and the bounds, `network` encoder and decoder with the backward pass, `model` the estimator,
`linear` the one whose optimum is known: PPCA's.
"""

from scratchgen.vae.linear import LinearVAE
from scratchgen.vae.model import VAE
from scratchgen.vae.network import VAENetwork
from scratchgen.vae.objective import importance_weighted_bound, vae_loss, vae_loss_table

__all__ = ["VAE", "LinearVAE", "VAENetwork", "importance_weighted_bound", "vae_loss", "vae_loss_table"]
