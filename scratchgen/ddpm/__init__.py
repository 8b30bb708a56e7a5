"""Equations (19)-(29): the diffusion model as a hierarchical VAE.

`kernels` has the forward process, `samplers` the reverse steps, `objective` the bound, `model` the estimator.
"""

from scratchgen.ddpm.kernels import merge_noise, predict_x0, q_posterior, q_sample, q_step, split_noise
from scratchgen.ddpm.objective import bound_terms, bound_weight, mean_square_step, negative_elbo
from scratchgen.ddpm.samplers import ancestral_sampler, ddim_step, p_mean, p_step, reverse_variance

__all__ = [
    "ancestral_sampler",
    "bound_terms",
    "bound_weight",
    "ddim_step",
    "mean_square_step",
    "merge_noise",
    "negative_elbo",
    "p_mean",
    "p_step",
    "predict_x0",
    "q_posterior",
    "q_sample",
    "q_step",
    "reverse_variance",
    "split_noise",
]
