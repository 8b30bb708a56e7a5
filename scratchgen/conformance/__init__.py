"""Checks of the theory, for any implementation.

A check takes the callables under test and one problem.  It computes one quantity twice: by the callables (left), and
by an independent route (right).  Nothing is drawn at random.

Conventions of every check:

* N examples, D dimensions, k latents, K components, T steps; step 0 is clean data.  Steps t are Python integers.
  Kernels and steps are then called with arrays of t, (N,): a callable that raises takes integers only and passes.
* Callables get float64 arrays and Python numbers.  A callable may return whatever `numpy.asarray` accepts, of the
  shape that is stated.  An array of another shape fails the check, or raises ValueError.
* Densities, losses and bounds are in nats, one value per example, summed over the D dimensions.
* ε̂ is the total noise: x_t = ᾱ_t x_0 + β̄_t ε.  Tables over steps have length T+1; index 0 is not used.
* A check returns a `Check`.  Its residual is max |left − right|/(1 + |right|) unless the check says otherwise, and the
  check passes if the residual is at most the tolerance.  The tolerance is a small multiple of the numerical error of
  the two computations in float64; `Check.at` judges the same comparison at another one.
* A check with several comparisons returns the one with the largest ratio of residual to tolerance.
* A diagnosis names a mistake only if it gives every number that was compared, and at least two of them are wrong.

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
'it is β_t², the variance of the forward step (β̄_t in place of β̄_{t−1} gives it)'
"""

from scratchgen.conformance.audit import Audit, audit
from scratchgen.conformance.beyond_ddpm import (
    check_data_processing,
    check_ddim_inversion,
    check_dequantisation,
    check_discrete_bound,
)
from scratchgen.conformance.beyond_information import (
    check_conservative_score,
    check_kl_rate,
    check_mutual_information,
    check_tilted_score,
    check_tweedie_covariance,
)
from scratchgen.conformance.beyond_latent import (
    check_iwae_ladder,
    check_kl_parts,
    check_missing_information,
)
from scratchgen.conformance.beyond_paths import (
    check_flow_velocity,
    check_fokker_planck,
)
from scratchgen.conformance.beyond_solvers import (
    check_edm_coefficients,
    check_exponential_step,
    check_flow_order,
    check_sigma_grid,
    check_weak_order,
)
from scratchgen.conformance.bound import (
    check_bound_terms,
    check_chains,
    check_loss_weights,
    check_negative_elbo,
    check_step_loss,
    check_variational_bound,
)
from scratchgen.conformance.continuous_bound import check_continuous_bound, check_divergence
from scratchgen.conformance.convention import EDM
from scratchgen.conformance.draws import check_step_draws, check_time_draws
from scratchgen.conformance.em import check_e_step, check_em, check_free_energy, check_free_m_step
from scratchgen.conformance.em_running import (
    check_covariance_types,
    check_em_loop,
    check_kmeans,
    check_statistics,
    check_table_em,
)
from scratchgen.conformance.forward import (
    check_forward_process,
    check_forward_step,
    check_noise_merging,
    check_posterior,
    check_predict_x0,
    check_schedule,
)
from scratchgen.conformance.given import given_noise
from scratchgen.conformance.levels import check_even_log_snr, check_law_moments, check_mixture_step
from scratchgen.conformance.likelihood import (
    check_bin_masses,
    check_bits_per_dim,
    check_diagonal_kl,
    check_gaussian_kl,
    check_kl,
)
from scratchgen.conformance.networks import (
    check_activation,
    check_categorical_denoiser,
    check_categorical_draw,
    check_jvp,
    check_mlp,
    check_noise_network,
)
from scratchgen.conformance.ppca import check_factor_analysis_step, check_ppca_maximum, check_ppca_step
from scratchgen.conformance.result import Check
from scratchgen.conformance.reverse import (
    check_ancestral_step,
    check_ddim_sampler,
    check_ddim_step,
    check_optimal_variance,
    check_predicted_noise,
    check_reverse_variance,
    check_sampler,
)
from scratchgen.conformance.reverse_samplers import check_heun, check_langevin_step, check_reverse_sampler
from scratchgen.conformance.reverse_sde import check_reverse_sde, check_reverse_step
from scratchgen.conformance.score import check_denoiser, check_log_prob, check_score
from scratchgen.conformance.score_matching import check_score_matching
from scratchgen.conformance.sde import check_discretisation, check_sde
from scratchgen.conformance.sde_bounds import (
    check_kl_bound,
    check_log_prob_bound,
    check_probability_flow_likelihood,
    check_reverse_law,
)
from scratchgen.conformance.trained import (
    check_bound_of,
    check_flow_likelihood_of,
    check_loss_of,
    check_sampler_of,
)
from scratchgen.conformance.training import (
    check_adam,
    check_gradient,
    check_learning_rate,
    check_loss_gradient,
    check_moving_average,
    check_training,
    check_training_step,
)
from scratchgen.conformance.vae import (
    check_bernoulli_loss,
    check_importance_weighted_bound,
    check_reparameterisation,
    check_vae_loss,
    check_vae_objective,
)
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
    "EDM",
    "Audit",
    "Check",
    "audit",
    "check_activation",
    "check_adam",
    "check_ancestral_step",
    "check_bernoulli_loss",
    "check_bin_masses",
    "check_bits_per_dim",
    "check_bound_of",
    "check_bound_terms",
    "check_categorical_denoiser",
    "check_categorical_draw",
    "check_chains",
    "check_conservative_score",
    "check_continuous_bound",
    "check_covariance_types",
    "check_data_processing",
    "check_ddim_inversion",
    "check_ddim_sampler",
    "check_ddim_step",
    "check_denoiser",
    "check_dequantisation",
    "check_diagonal_kl",
    "check_discrete_bound",
    "check_discretisation",
    "check_divergence",
    "check_e_step",
    "check_edm_coefficients",
    "check_elbo",
    "check_em",
    "check_em_loop",
    "check_even_log_snr",
    "check_exponential_step",
    "check_factor_analysis_step",
    "check_flow_likelihood_of",
    "check_flow_order",
    "check_flow_velocity",
    "check_fokker_planck",
    "check_forward_process",
    "check_forward_step",
    "check_free_energy",
    "check_free_m_step",
    "check_gaussian_kl",
    "check_gradient",
    "check_heun",
    "check_importance_weighted_bound",
    "check_iwae_ladder",
    "check_joint_kl",
    "check_jvp",
    "check_kl",
    "check_kl_bound",
    "check_kl_parts",
    "check_kl_rate",
    "check_kmeans",
    "check_langevin_step",
    "check_latent_posterior",
    "check_law_moments",
    "check_learning_rate",
    "check_linear_gaussian_elbo",
    "check_linear_gaussian_posterior",
    "check_log_prob",
    "check_log_prob_bound",
    "check_loss_gradient",
    "check_loss_of",
    "check_loss_weights",
    "check_mean_field",
    "check_missing_information",
    "check_mixture_step",
    "check_mlp",
    "check_moving_average",
    "check_mutual_information",
    "check_negative_elbo",
    "check_noise_merging",
    "check_noise_network",
    "check_optimal_variance",
    "check_posterior",
    "check_posterior_kl",
    "check_ppca_maximum",
    "check_ppca_step",
    "check_predict_x0",
    "check_predicted_noise",
    "check_probability_flow_likelihood",
    "check_reparameterisation",
    "check_reverse_law",
    "check_reverse_sampler",
    "check_reverse_sde",
    "check_reverse_step",
    "check_reverse_variance",
    "check_sampler",
    "check_sampler_of",
    "check_schedule",
    "check_score",
    "check_score_matching",
    "check_sde",
    "check_sigma_grid",
    "check_split_elbo",
    "check_statistics",
    "check_step_draws",
    "check_step_loss",
    "check_table_em",
    "check_tilted_score",
    "check_time_draws",
    "check_training",
    "check_training_step",
    "check_tweedie_covariance",
    "check_vae_loss",
    "check_vae_objective",
    "check_variational_bound",
    "check_weak_order",
    "given_noise",
]
