"""The theory as checks that any implementation can be put through.

A check takes plain callables (anything whose results `numpy.asarray` accepts) and one instance of the problem, draws
nothing at random, and returns a `Check`: both sides, the residual, the tolerance and, when it fails, what kind of
mistake gives such numbers.

>>> import numpy as np
>>> from scratchgen import NoiseSchedule
>>> from scratchgen.conformance import check_posterior
>>> schedule = NoiseSchedule.linear(10)
>>> beta, total = schedule.beta**2, schedule.beta_bar**2          # β_t² and β̄_t²
>>> def mine(t, x_t, x0):
...     mean = (schedule.alpha[t] * total[t - 1] * x_t + schedule.alpha_bar[t - 1] * beta[t] * x0) / total[t]
...     return mean, beta[t]                                      # the variance of the forward step
>>> bool(check_posterior(mine, schedule))
False
>>> check_posterior(mine, schedule).diagnosis.split("; ")[1]
'it is β_t², the variance of the forward step, which β̄_t in place of β̄_{t−1} gives too'
"""

from scratchgen.conformance.bound import check_chains, check_negative_elbo, check_step_loss, check_variational_bound
from scratchgen.conformance.em import (
    check_e_step,
    check_em,
    check_free_energy,
    check_free_m_step,
    check_ppca_maximum,
    check_ppca_step,
)
from scratchgen.conformance.forward import (
    check_forward_process,
    check_forward_step,
    check_noise_merging,
    check_posterior,
    check_predict_x0,
    check_schedule,
)
from scratchgen.conformance.likelihood import (
    check_bin_masses,
    check_bits_per_dim,
    check_diagonal_kl,
    check_gaussian_kl,
    check_kl,
)
from scratchgen.conformance.result import Check
from scratchgen.conformance.reverse import check_ancestral_step, check_ddim_step, check_optimal_variance, check_sampler
from scratchgen.conformance.score import check_denoiser, check_log_prob, check_score, check_score_matching
from scratchgen.conformance.sde import (
    check_discretisation,
    check_kl_bound,
    check_log_prob_bound,
    check_probability_flow_likelihood,
    check_reverse_law,
    check_reverse_sampler,
    check_reverse_sde,
    check_reverse_step,
    check_sde,
)
from scratchgen.conformance.training import check_adam, check_gradient
from scratchgen.conformance.vae import check_importance_weighted_bound, check_vae_loss, check_vae_objective
from scratchgen.conformance.variational import (
    check_elbo,
    check_joint_kl,
    check_latent_posterior,
    check_linear_gaussian_elbo,
    check_linear_gaussian_posterior,
    check_mean_field,
    check_posterior_kl,
    check_split_elbo,
)

__all__ = [
    "Check",
    "check_adam",
    "check_ancestral_step",
    "check_bin_masses",
    "check_bits_per_dim",
    "check_chains",
    "check_ddim_step",
    "check_denoiser",
    "check_diagonal_kl",
    "check_discretisation",
    "check_e_step",
    "check_elbo",
    "check_em",
    "check_forward_process",
    "check_forward_step",
    "check_free_energy",
    "check_free_m_step",
    "check_gaussian_kl",
    "check_gradient",
    "check_importance_weighted_bound",
    "check_joint_kl",
    "check_kl",
    "check_kl_bound",
    "check_latent_posterior",
    "check_linear_gaussian_elbo",
    "check_linear_gaussian_posterior",
    "check_log_prob",
    "check_log_prob_bound",
    "check_mean_field",
    "check_negative_elbo",
    "check_noise_merging",
    "check_optimal_variance",
    "check_posterior",
    "check_posterior_kl",
    "check_ppca_maximum",
    "check_ppca_step",
    "check_predict_x0",
    "check_probability_flow_likelihood",
    "check_reverse_law",
    "check_reverse_sampler",
    "check_reverse_sde",
    "check_reverse_step",
    "check_sampler",
    "check_schedule",
    "check_score",
    "check_score_matching",
    "check_sde",
    "check_split_elbo",
    "check_step_loss",
    "check_vae_loss",
    "check_vae_objective",
    "check_variational_bound",
]
