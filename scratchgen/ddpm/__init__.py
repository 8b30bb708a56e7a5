"""Equations (19)-(29): the diffusion model as a hierarchical VAE.

    x_t = ᾱ_t x_0 + β̄_t ε,   ε ~ N(0, I),  (25)

The model: T fixed Gaussian steps turn data into noise, and T learned Gaussian steps p_θ(x_{t−1} | x_t) lead back, (19).
The latent variable is the whole path x_1, …, x_T.
Minimised: the KL divergence of the two joint laws of the path, (20)-(24).  The part that θ can change is the squared
error ‖ε − ε̂(x_t, t)‖² of the total noise, (29), weighted over t.
Exact: (25), the posterior q(x_{t−1} | x_t, x_0), and the bound with all its constants, in nats.  For mixtures the best
noise predictor is known, ε* = −β̄_t ∇ log p_t(x_t), and so is the least loss.
Lost: the exact reverse step is no Gaussian; the cost falls as T rises.  The rest is the error of the network.

* `kernels`: the forward process, its posterior and the merged noise.
* `training`: Algorithm 1 of Ho et al. (2020).
* `samplers`: the reverse steps, Algorithm 2 and DDIM.
* `objective`: the loss of one step and its weights.
* `bound`: the densities of both chains along a path, and the variational bound.
* `predictions`: the quantities that a network may predict.
* `levels`, `discrete`: the reverse steps of a law over levels, and whole numbers; `inversion`: DDIM towards noise.

Read `kernels` and `training` first, then `samplers`.
"""

from scratchgen.ddpm.bound import (
    bound_terms,
    forward_entropy,
    forward_log_prob,
    negative_elbo,
    optimal_reverse_variance,
    p_log_prob,
    prior_loss,
    q_log_prob,
    q_path,
    reconstruction_loss,
    reverse_log_prob,
    step_loss,
)
from scratchgen.ddpm.discrete import dequantisation_cost, exact_elbo
from scratchgen.ddpm.inversion import ddim_inverse_step
from scratchgen.ddpm.kernels import (
    merge_noise,
    posterior_coefficients,
    predict_x0,
    q_posterior,
    q_sample,
    q_step,
    split_noise,
)
from scratchgen.ddpm.levels import LEVEL_STEPS, LevelLaw, law_moments, mixture_log_prob, mixture_step
from scratchgen.ddpm.objective import (
    WEIGHTINGS,
    bound_weight,
    loss_weight,
    merged_loss,
    noise_error,
    one_step_loss,
    step_weight,
    total_noise_loss,
)
from scratchgen.ddpm.predictions import (
    PREDICTIONS,
    eps_coefficients,
    eps_to_prediction,
    predict_noise,
    prediction_to_eps,
)
from scratchgen.ddpm.samplers import (
    EpsHat,
    ancestral_sampler,
    ddim_sampler,
    ddim_step,
    p_mean,
    p_step,
    reverse_variance,
)
from scratchgen.ddpm.training import train, train_step

__all__ = [
    "LEVEL_STEPS",
    "PREDICTIONS",
    "WEIGHTINGS",
    "EpsHat",
    "LevelLaw",
    "ancestral_sampler",
    "bound_terms",
    "bound_weight",
    "ddim_inverse_step",
    "ddim_sampler",
    "ddim_step",
    "dequantisation_cost",
    "eps_coefficients",
    "eps_to_prediction",
    "exact_elbo",
    "forward_entropy",
    "forward_log_prob",
    "law_moments",
    "loss_weight",
    "merge_noise",
    "merged_loss",
    "mixture_log_prob",
    "mixture_step",
    "negative_elbo",
    "noise_error",
    "one_step_loss",
    "optimal_reverse_variance",
    "p_log_prob",
    "p_mean",
    "p_step",
    "posterior_coefficients",
    "predict_noise",
    "predict_x0",
    "prediction_to_eps",
    "prior_loss",
    "q_log_prob",
    "q_path",
    "q_posterior",
    "q_sample",
    "q_step",
    "reconstruction_loss",
    "reverse_log_prob",
    "reverse_variance",
    "split_noise",
    "step_loss",
    "step_weight",
    "total_noise_loss",
    "train",
    "train_step",
]
