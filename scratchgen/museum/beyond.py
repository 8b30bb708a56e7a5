"""Wing one, beyond the deck: mistakes in solvers, exact values and second moments around the 34 equations."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from itertools import pairwise

import numpy as np

from scratchgen.ddpm import (
    exact_elbo,
    law_moments,
    mixture_log_prob,
    p_mean,
    posterior_coefficients,
    reverse_variance,
)
from scratchgen.em import missing_fractions
from scratchgen.likelihood import kl_discrete
from scratchgen.mixture import Mixture
from scratchgen.museum.exhibit import exhibit
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import (
    EDMCoefficients,
    edm_coefficients,
    exponential_step,
    flow_velocity,
    kl_rate,
    tweedie_covariance,
)
from scratchgen.vae import iwae_table

# --- paths and solvers ------------------------------------------------------------------------------------------------


@exhibit(
    "g² = d std²/dt, without the contraction by f", "mutation audit", "sde.path_coefficients", "check_fokker_planck"
)
def _without_contraction(scale, std, scale_rate, std_rate):
    return np.asarray(scale_rate) / scale, np.sqrt(2 * np.asarray(std) * std_rate)


@exhibit("the velocity points from noise to data", "mutation audit", "sde.flow_velocity", "check_flow_velocity")
def _towards_data(x0, noise, scale_rate, std_rate):
    return -flow_velocity(x0, noise, scale_rate, std_rate)


@exhibit(
    "the loss of a level has the weight of noise prediction, 1/σ²",
    "mutation audit",
    "sde.edm_coefficients",
    "check_edm_coefficients",
)
def _weight_of_noise(sigma, data_std=0.5):
    skip, out, into, _ = edm_coefficients(sigma, data_std)
    return EDMCoefficients(skip, out, into, 1 / np.asarray(sigma) ** 2)


@exhibit("n levels with steps of 1/n: σ_min is not reached", "mutation audit", "sde.edm_sigmas", "check_sigma_grid")
def _one_step_short(n_levels, sigma_min=0.002, sigma_max=80.0, rho=7.0):
    return np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n_levels, endpoint=False) ** rho


@exhibit(
    "the ratio h/h_last is turned over in the extrapolation",
    "mutation audit",
    "sde.exponential_step",
    "check_exponential_step",
)
def _ratio_turned_over(x, x0_hat, level, next_level, stochasticity=0.0, noise=None, last=None):
    if last is not None:
        h = np.log(next_level[0] / level[0]) + np.log(level[1] / next_level[1])
        last = (last[0], h**2 / last[1])
    return exponential_step(x, x0_hat, level, next_level, stochasticity, noise, last)


@exhibit(
    "the denoiser of the last step is not kept, so that the sampler has order 1",
    "mutation audit",
    "sde.exponential_sampler",
    "check_flow_order",
)
def _forgetful_sampler(denoise, x, levels, rng=None, stochasticity=0.0, multistep=True):
    yield 0, x
    for i, (level, next_level) in enumerate(pairwise(levels.tolist())):
        noise = rng.standard_normal(x.shape, dtype=x.dtype) if stochasticity > 0 else None
        x = exponential_step(x, denoise(x, *level), level, next_level, stochasticity, noise)
        yield i + 1, x


@exhibit(
    "noise is added to the step of the flow, whose drift is too weak for it",
    "mutation audit",
    "sde.exponential_sampler",
    "check_weak_order",
)
def _noise_on_the_flow(denoise, x, levels, rng=None, stochasticity=0.0, multistep=True):
    last = None
    yield 0, x
    for i, (level, next_level) in enumerate(pairwise(levels.tolist())):
        x0_hat = denoise(x, *level)
        h = np.log(next_level[0] / level[0]) + np.log(level[1] / next_level[1])
        x = exponential_step(x, x0_hat, level, next_level, last=last)
        if stochasticity > 0:
            factor = next_level[1] * np.sqrt(-np.expm1(-2 * stochasticity**2 * h))
            x = x + factor * rng.standard_normal(x.shape, dtype=x.dtype)
        last = (x0_hat, h) if multistep else None
        yield i + 1, x


@exhibit(
    "inversion noises x_s as if it were clean data", "mutation audit", "ddpm.ddim_inverse_step", "check_ddim_inversion"
)
def _noised_again(schedule, s, t, x_s, eps_hat):
    return schedule.alpha_bar[t] * x_s + schedule.beta_bar[t] * eps_hat


@exhibit(
    "the logarithm stands inside the sum over the levels",
    "mutation audit",
    "ddpm.mixture_log_prob",
    "check_mixture_step",
)
def _mean_of_log_densities(schedule, t, x_prev, x_t, levels, law):
    one_hot = np.broadcast_to(np.eye(len(levels))[:, None, None], (len(levels), *law.shape))
    each = np.array([_of_each_dimension(schedule, t, x_prev, x_t, levels, level) for level in one_hot])
    return np.einsum("ndk,knd->n", law, each)


def _of_each_dimension(schedule, t, x_prev, x_t, levels, law):
    columns = range(x_t.shape[1])
    return np.stack(
        [mixture_log_prob(schedule, t, x_prev[:, [d]], x_t[:, [d]], levels, law[:, [d]]) for d in columns],
        axis=1,
    )


@exhibit("the factor of Var(x₀|x_t) is not squared", "mutation audit", "ddpm.law_moments", "check_law_moments")
def _weight_not_squared(schedule, t, x_t, levels, law):
    mean, variance = law_moments(schedule, t, x_t, levels, law)
    least = schedule.beta_tilde[t] ** 2
    return mean, least + (variance - least) / posterior_coefficients(schedule, t)[1]


@exhibit(
    "the ends are log ᾱ/β̄, half the log-SNR",
    "mutation audit",
    "schedule.NoiseSchedule.log_snr_even",
    "check_even_log_snr",
)
def _half_log_snr(T, first=4.5, last=-7.0):
    return NoiseSchedule.log_snr_even(T, 2 * first, 2 * last)


# --- information and second moments -----------------------------------------------------------------------------------


@exhibit(
    "the losses are averaged uniformly over t, not over log-SNR",
    "mutation audit",
    "sde.mutual_information",
    "check_mutual_information",
)
def _uniform_over_time(sde, noise_loss, t_min, n_nodes=64):
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    times = t_min + 0.5 * (sde.horizon - t_min) * (nodes + 1)
    span = float(sde.log_snr(t_min) - sde.log_snr(sde.horizon))
    return 0.25 * span * float(weights @ np.array([noise_loss(float(t)) for t in times]))


@exhibit("g for g² in de Bruijn's identity", "mutation audit", "sde.kl_rate", "check_kl_rate")
def _rate_with_g(sde, p, q, t):
    return kl_rate(sde, p, q, t) / float(sde.diffusion(t))


@exhibit(
    "the covariance of x_0 keeps the units of x_t",
    "mutation audit",
    "sde.tweedie_covariance",
    "check_tweedie_covariance",
)
def _in_units_of_x_t(score, x_t, scale, std):
    return scale**2 * tweedie_covariance(score, x_t, scale, std)


@exhibit(
    "x̂_0 is clipped to [−1, 1] before it becomes a score",
    "mutation audit",
    "sde.denoiser_to_score",
    "check_conservative_score",
)
def _clipped_denoiser(x_t, x0_hat, scale, std):
    return (scale * np.clip(x0_hat, -1, 1) - x_t) / std**2


@exhibit(
    "the guided score is taken for the score of the tilted law",
    "mutation audit",
    "sde.tilted_score",
    "check_tilted_score",
)
def _guided_score(law, p_label, guidance, x_t, scale, std):
    label = Mixture(law.weights * p_label / (law.weights @ p_label), law.means, law.covariances)
    scores = [p.diffuse(scale, std).score(x_t) for p in (law, label)]
    return (1 - guidance) * scores[0] + guidance * scores[1]


# --- chains, tables, EM -----------------------------------------------------------------------------------------------


@exhibit("σ of the sampler comes one step late", "mutation audit", "grading.ancestral_density", "check_data_processing")
def _late_noise(schedule, eps_hat, dimension, variance="beta", resolution=1.0):
    points, table = np.linspace(-12, 12, 1201)[:, None], reverse_variance(schedule, variance)
    cell, density = float(points[1, 0] - points[0, 0]), np.exp(-0.5 * points[:, 0] ** 2) / np.sqrt(2 * np.pi)
    for t in range(schedule.T, 0, -1):
        std = np.sqrt(table[max(t - 1, 1)])
        means = p_mean(schedule, t, points, eps_hat(points, t))[:, 0]
        kernel = np.exp(-0.5 * ((points - means) / std) ** 2) / (np.sqrt(2 * np.pi) * std)
        density = cell * kernel @ density
    return points, density, cell


@exhibit(
    "the density of x_0 stands where the mass of its bin belongs",
    "mutation audit",
    "ddpm.exact_elbo",
    "check_discrete_bound",
)
def _density_of_levels(schedule, x0, eps_hat, variance="beta", n_levels=None, n_nodes=28):
    return exact_elbo(schedule, x0, eps_hat, variance, None, n_nodes)


@exhibit(
    "the middle of the cell stands for the mean over u",
    "mutation audit",
    "ddpm.dequantisation_cost",
    "check_dequantisation",
)
def _middle_of_the_cell(log_prob, k, n_nodes=20):
    N, D = k.shape
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    cube = np.stack(np.meshgrid(*[0.5 * (nodes + 1)] * D, indexing="ij"), axis=-1).reshape(-1, D)
    law = np.stack(np.meshgrid(*[0.5 * weights] * D, indexing="ij"), axis=-1).reshape(-1, D).prod(axis=1)
    mass = np.exp(log_prob((k[:, None] + cube).reshape(-1, D)).reshape(N, -1)) @ law
    return np.log(mass) - log_prob(k + 0.5)


@exhibit(
    "the aggregate posterior is averaged over x without p(x)", "mutation audit", "vae.kl_parts_table", "check_kl_parts"
)
def _unweighted_aggregate(p_x, q, prior):
    aggregate = q.mean(axis=0)
    return kl_discrete(q, aggregate), float(kl_discrete(aggregate, prior))


@exhibit(
    "the bound of n draws uses the first draw only; the mean of its exponential is right",
    "mutation audit",
    "vae.iwae_table",
    "check_iwae_ladder",
)
def _first_draw_only(joint, q, n_draws):
    return iwae_table(joint, q, 1)


@exhibit(
    "the fraction of observed information is taken for EM's rate",
    "mutation audit",
    "em.missing_fractions",
    "check_missing_information",
)
def _observed_fractions(x, mixture):
    return 1 - missing_fractions(x, mixture)[::-1]
