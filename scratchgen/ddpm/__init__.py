"""Equations (19)-(29): the diffusion model as a hierarchical VAE.

`kernels` has the forward process, `samplers` the reverse steps, `chain` the densities of both along a path,
`objective` the bound, `predictions` what a network may predict, `model` the estimator.
"""

from scratchgen.ddpm.chain import (
    forward_entropy,
    forward_log_prob,
    p_log_prob,
    q_log_prob,
    q_path,
    reverse_log_prob,
)
from scratchgen.ddpm.kernels import merge_noise, predict_x0, q_posterior, q_sample, q_step, split_noise
from scratchgen.ddpm.objective import (
    bound_terms,
    bound_weight,
    loss_weight,
    mean_square_step,
    merged_loss,
    negative_elbo,
    one_step_loss,
    step_weight,
    total_noise_loss,
)
from scratchgen.ddpm.predictions import from_noise, noise_from, to_noise
from scratchgen.ddpm.samplers import ancestral_sampler, ddim_sampler, ddim_step, p_mean, p_step, reverse_variance

__all__ = [
    "ancestral_sampler",
    "bound_terms",
    "bound_weight",
    "ddim_sampler",
    "ddim_step",
    "forward_entropy",
    "forward_log_prob",
    "from_noise",
    "loss_weight",
    "mean_square_step",
    "merge_noise",
    "merged_loss",
    "negative_elbo",
    "noise_from",
    "one_step_loss",
    "p_log_prob",
    "p_mean",
    "p_step",
    "predict_x0",
    "q_log_prob",
    "q_path",
    "q_posterior",
    "q_sample",
    "q_step",
    "reverse_log_prob",
    "reverse_variance",
    "split_noise",
    "step_weight",
    "to_noise",
    "total_noise_loss",
]
