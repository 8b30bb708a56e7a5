"""The museum of real bugs: copies of the package's functions, each with one mistake.

An exhibit names the check that finds it; no check was written for an exhibit.  A planted function takes the place of
the package's own in the table of equations, and of all checks there the named one fails and no other.  At the end stand
mistakes that no row sees, with the reason; the property tests see each of them.

The mistakes were seen in public code, where a project is named; stand in the deck as printed, where an erratum is; or
can happen to anybody and were tried one by one, in a "mutation audit".

`python -m tests.museum` prints the tour.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from scratchgen.conformance import Check
from scratchgen.ddpm.kernels import at, merge_noise, q_posterior, q_sample, split_noise
from scratchgen.ddpm.objective import bound_weight, mean_square_step, step_weight
from scratchgen.ddpm.samplers import p_mean, p_step, predict_x0, reverse_variance
from scratchgen.em import floored_mixture, m_step
from scratchgen.equations import EQUATIONS, PROPOSITIONS, Row, check, find
from scratchgen.likelihood import LOG_2PI, cross_entropy_discrete, gaussian_log_prob, kl_diag_standard, kl_discrete
from scratchgen.mixture import Mixture
from scratchgen.optimizer import Adam
from scratchgen.sde.likelihood import sde_log_prob_bound
from scratchgen.sde.reverse import euler_std, euler_step, reverse_drift, reverse_moments
from scratchgen.vae import vae_loss
from scratchgen.variational import elbo_split_table, elbo_table, linear_gaussian_posterior

ROWS = (*EQUATIONS, *PROPOSITIONS)
NAMELESS = "no mistake known here gives these numbers"  # how a diagnosis ends that names no mistake


class Exhibit(NamedTuple):
    """One bug: what is wrong, where it was seen, the function it sits in, and the check that finds it."""

    bug: str
    source: str
    function: str  # as in the table of equations
    planted: Callable[..., Any]
    killer: str


_COLLECTED: list[Exhibit] = []


def exhibit(bug: str, source: str, function: str, killer: str) -> Callable[..., Any]:
    """Put the function below on show."""

    def collect(planted: Callable[..., Any]) -> Callable[..., Any]:
        _COLLECTED.append(Exhibit(bug, source, function, planted, killer))
        return planted

    return collect


# --- (1)-(2): entropies and divergences --------------------------------------------------------------------------


@exhibit("KL(q‖p) stands for KL(p‖q)", "mutation audit", "likelihood.kl_discrete", "check_kl")
def reversed_kl(p, q):
    return kl_discrete(q, p)


@exhibit("log-determinants without their ½", "mutation audit", "likelihood.kl_gaussian", "check_gaussian_kl")
def whole_log_determinants(mean_p, cov_p, mean_q, cov_q):
    factor = np.linalg.cholesky(cov_q)
    spread = np.linalg.solve(factor, np.linalg.cholesky(cov_p))
    shift = np.linalg.solve(factor, mean_p - mean_q)
    log_ratio = 2 * np.log(np.abs(np.diagonal(spread))).sum()
    return 0.5 * float((spread**2).sum() + (shift**2).sum() - len(cov_p)) - log_ratio


@exhibit("N(μ, σ) for N(μ, σ²)", "erratum E9 of the deck, Figure 2", "likelihood.kl_diag_standard", "check_diagonal_kl")
def std_for_variance(mean, log_variance):
    std = np.exp(0.5 * log_variance)
    return 0.5 * (mean**2 + std - 1 - np.log(std)).sum(axis=-1)


@exhibit(
    "the KL is averaged over the latents, not summed",
    "maxhodak/keras-molecules #59",
    "likelihood.kl_diag_standard",
    "check_diagonal_kl",
)
def mean_over_latents(mean, log_variance):
    return 0.5 * (mean**2 + np.expm1(log_variance) - log_variance).mean(axis=-1)


# --- (3)-(12): posterior and ELBO --------------------------------------------------------------------------------


@exhibit(
    "(11) divided by p(x), the data's law, here 1/N",
    "erratum E3 of the deck",
    "variational.posterior_table",
    "check_latent_posterior",
)
def divided_by_p_of_x(joint):
    p_x = np.full(len(joint), 1 / len(joint))
    return joint / p_x[:, None], joint.sum(axis=1)


@exhibit(
    "min KL taken for max ELBO: the joint is not normalised",
    "erratum E4 of the deck",
    "variational.posterior_kl_table",
    "check_posterior_kl",
)
def kl_to_the_joint(joint, q):
    return kl_discrete(q, joint)


@exhibit("the entropy of q is dropped", "mutation audit", "variational.elbo_table", "check_elbo")
def elbo_without_entropy(joint, q):
    return -cross_entropy_discrete(q, joint)


@exhibit(
    "the KL has the wrong sign",
    "AntixK/PyTorch-VAE #68, in its log",
    "variational.elbo_split_table",
    "check_split_elbo",
)
def kl_added(decoder, prior, q):
    return -cross_entropy_discrete(q, decoder) + kl_discrete(q, prior)


@exhibit(
    "log p(x) is dropped as irrelevant: (13) for (12)",
    "erratum E7 of the deck",
    "variational.joint_kl_table",
    "check_joint_kl",
)
def joint_kl_without_p(p_x, q, decoder, prior):
    return -float(p_x @ elbo_table(decoder * prior, q))


@exhibit(
    "σ² is missing from the posterior's covariance",
    "mutation audit",
    "variational.linear_gaussian_posterior",
    "check_linear_gaussian_posterior",
)
def posterior_without_noise_variance(x, W, mean, noise_variance):
    M = W.T @ W + noise_variance * np.eye(W.shape[1])
    return np.linalg.solve(M, W.T @ (x - mean).T).T, np.linalg.inv(M)


@exhibit(
    "mean field takes the posterior's own variances, which is the least reversed KL",
    "mutation audit",
    "variational.linear_gaussian_mean_field",
    "check_mean_field",
)
def marginal_variances(x, W, mean, noise_variance):
    means, covariance = linear_gaussian_posterior(x, W, mean, noise_variance)
    return means, np.diagonal(covariance)


@exhibit(
    "(D/2) log 2πσ² is dropped from the ELBO",
    "mutation audit",
    "variational.linear_gaussian_elbo",
    "check_linear_gaussian_elbo",
)
def elbo_without_constant(x, W, mean, noise_variance, q_mean, q_cov):
    residual = ((x - mean - q_mean @ W.T) ** 2).sum(axis=1) + np.trace(W @ q_cov @ W.T)
    log_det = 2 * np.log(np.diagonal(np.linalg.cholesky(q_cov))).sum()
    kl = 0.5 * ((q_mean**2).sum(axis=1) + np.trace(q_cov) - len(q_cov) - log_det)
    return -0.5 * residual / noise_variance - kl


# --- (13)-(14): the VAE ------------------------------------------------------------------------------------------


@exhibit("x is averaged without p(x)", "mutation audit", "vae.vae_loss_table", "check_vae_objective")
def unweighted_examples(p_x, q, decoder, prior):
    return -float(elbo_split_table(decoder, prior, q).mean())


@exhibit(
    "the normal constant is multiplied by D and then summed over D",
    "jmtomczak/intro_dgm, VAE example",
    "vae.vae_loss",
    "check_vae_loss",
)
def constant_times_dimension(x, x_hat, mean, log_variance, decoder_log_variance):
    D = x.shape[1]
    terms = -0.5 * D * LOG_2PI - 0.5 * decoder_log_variance - 0.5 * (x - x_hat) ** 2 * np.exp(-decoder_log_variance)
    return kl_diag_standard(mean, log_variance) - terms.sum(axis=-1)


@exhibit(
    "the squared error is averaged over D, not summed",
    "erratum E9 of the deck; pytorch/examples #399",
    "vae.vae_loss",
    "check_vae_loss",
)
def mean_over_dimensions(x, x_hat, mean, log_variance, decoder_log_variance):
    squares = ((x - x_hat) ** 2).mean(axis=-1) * np.exp(-decoder_log_variance)
    constant = x.shape[1] * (LOG_2PI + decoder_log_variance)
    return kl_diag_standard(mean, log_variance) + 0.5 * (constant + squares)


@exhibit(
    "softmax over losses: the worst draw weighs most",
    "AntixK/PyTorch-VAE, iwae.py",
    "vae.importance_weighted_bound",
    "check_importance_weighted_bound",
)
def softmax_over_losses(log_weights):
    losses = -log_weights
    weights = np.exp(losses - losses.max(axis=0))
    return -(weights / weights.sum(axis=0) * losses).sum(axis=0)


@exhibit(
    "the gradient of log σ² without its ½: as if the network gave log σ",
    "mutation audit",
    "vae.VAENetwork.loss",
    "check_gradient",
)
def whole_log_variance_gradient(self, x, noise):
    k = self.n_latents
    output = self.encoder.forward(x)
    mean, log_variance = output[:, :k], output[:, k:]
    std = np.exp(0.5 * log_variance)
    x_hat = self.decoder.forward(mean + std * noise)
    residual = x_hat - x
    precision = np.exp(-self.log_variance)
    N, D = x.shape
    grad_z = self.decoder.backward(precision * residual / N)
    grad_log_variance = grad_z * noise * std + np.expm1(log_variance) / N
    self.encoder.backward(np.concatenate([grad_z + mean / N, grad_log_variance], axis=1))
    self.log_variance_gradient[:] = 0.5 * (D - precision * (residual**2).sum() / N)
    return vae_loss(x, x_hat, mean, log_variance, self.log_variance)


# --- (15)-(18): EM and mixtures ----------------------------------------------------------------------------------


@exhibit("(15) is normalised over z, not over x", "mutation audit", "em.m_step_table", "check_free_m_step")
def normalised_over_z(p_x, q):
    joint = p_x[:, None] * q
    return joint / joint.sum(axis=1, keepdims=True), p_x @ q


@exhibit("the components are assigned 0 or 1", "mutation audit", "em.e_step", "check_e_step")
def hard_assignment(x, mixture):
    log_joint = mixture.log_joint(x)
    best = log_joint.argmax(axis=1)
    return np.where(np.arange(log_joint.shape[1]) == best[:, None], 0.0, -np.inf), log_joint.max(axis=1)


@exhibit("the entropy of q is dropped from the free energy", "mutation audit", "em.free_energy", "check_free_energy")
def free_energy_without_entropy(x, log_resp, mixture):
    return (np.exp(log_resp) * mixture.log_joint(x)).sum(axis=1)


@exhibit("the mixing weights are never updated", "ddbourgin/numpy-ml, gmm.py", "em.m_step", "check_em")
def weights_never_updated(x, log_resp, mixture, covariance_floor=0.0):
    new = m_step(x, log_resp, mixture, covariance_floor)
    return Mixture(mixture.weights, new.means, new.covariances)


@exhibit("a ridge is added to every covariance", "scikit-learn, reg_covar", "em.m_step", "check_em")
def additive_ridge(x, log_resp, mixture, covariance_floor=0.0):
    new = m_step(x, log_resp, mixture, 0.0)
    return Mixture(new.weights, new.means, new.covariances + covariance_floor * np.eye(x.shape[1]))


@exhibit("σ² of PPCA is updated with the old W", "mutation audit", "em.ppca_em_step", "check_ppca_step")
def old_loadings(covariance, W, noise_variance):
    M = W.T @ W + noise_variance * np.eye(W.shape[1])
    SW = covariance @ W
    new_W = np.linalg.solve((noise_variance * np.eye(W.shape[1]) + np.linalg.solve(M, W.T @ SW)).T, SW.T).T
    new_variance = float(np.trace(covariance) - np.sum(np.linalg.solve(M, SW.T) * W.T)) / len(covariance)
    return new_W, new_variance


@exhibit("W of PPCA keeps the noise: Λ for Λ − σ²", "mutation audit", "em.ppca_maximum", "check_ppca_maximum")
def noise_counted_twice(covariance, n_components):
    values, vectors = np.linalg.eigh(covariance)
    noise_variance = float(values[:-n_components].mean())
    return vectors[:, ::-1][:, :n_components] * np.sqrt(values[::-1][:n_components]), noise_variance


@exhibit("the mixture's density without its weights", "mutation audit", "mixture.Mixture.log_prob", "check_log_prob")
def density_without_weights(self, x):
    log_joint = self.log_joint(x) - np.log(self.weights)
    top = log_joint.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(log_joint - top).sum(axis=1, keepdims=True)))[:, 0]


@exhibit("the score has the wrong sign", "mutation audit", "mixture.Mixture.score", "check_score")
def score_of_the_energy(self, x):
    posterior, scores = self._component_scores(x)
    return np.einsum("nk,nkd->nd", posterior, -scores)


@exhibit("std for std² in Tweedie's formula", "mutation audit", "mixture.Mixture.denoise", "check_denoiser")
def tweedie_with_std(self, x_t, scale, std):
    return (x_t + std * self.diffuse(scale, std).score(x_t)) / scale


# --- the schedule ------------------------------------------------------------------------------------------------


def _tables(alpha_bar, beta_bar, beta):
    """The tables of a schedule with β̃ derived from them."""
    beta_tilde = np.zeros_like(beta)
    beta_tilde[1:] = beta[1:] * beta_bar[:-1] / beta_bar[1:]
    return SimpleNamespace(alpha_bar=alpha_bar, beta_bar=beta_bar, beta_tilde=beta_tilde)


@exhibit("ᾱ is the cumulative product of β", "LuChengTHU/dpm-solver #13", "schedule.NoiseSchedule", "check_schedule")
def product_of_noise(variances):
    beta = np.sqrt(np.concatenate([[0.0], variances]))
    alpha_bar = np.concatenate([[1.0], np.cumprod(beta[1:])])
    return _tables(alpha_bar, np.sqrt(1 - alpha_bar**2), beta)


@exhibit(
    "β is read as a standard deviation where the table holds Ho's, a variance",
    "erratum E29 of the deck",
    "schedule.NoiseSchedule",
    "check_schedule",
)
def variance_for_std(variances):
    beta = np.concatenate([[0.0], variances])
    alpha_bar = np.cumprod(np.sqrt(1 - beta**2))
    return _tables(alpha_bar, np.sqrt(1 - alpha_bar**2), beta)


@exhibit(
    "β_i = β(t_i), without the length of the step",
    "erratum E30 of the deck",
    "schedule.NoiseSchedule.from_sde",
    "check_discretisation",
)
def without_dt(sde, T):
    times = np.linspace(0.0, sde.horizon, T + 1)
    return SimpleNamespace(variances=sde.beta(times[1:]))  # some exceed 1, so that NoiseSchedule would refuse them


@exhibit(
    "β_i = β(t_i)Δt for 1 − exp(−∫β)",
    "erratum E31 of the deck",
    "schedule.NoiseSchedule.from_sde",
    "check_discretisation",
)
def first_order(sde, T):
    times = np.linspace(0.0, sde.horizon, T + 1)
    return SimpleNamespace(variances=sde.beta(times[1:]) * sde.horizon / T)


# --- (19), (25)-(27): kernels and noise --------------------------------------------------------------------------


@exhibit("x_t = α_t x_{t−1} + β_t, without ε_t", "erratum E13 of the deck", "ddpm.q_step", "check_forward_step")
def forward_without_noise(schedule, t, x_prev, noise):
    return at(schedule.alpha, t) * x_prev + at(schedule.beta, t)


@exhibit(
    "the noise of x_t has factor 1 − ᾱ², a variance, without its root",
    "huggingface/diffusers PR #10185, undone by #10644",
    "ddpm.q_sample",
    "check_forward_process",
)
def variance_times_noise(schedule, t, x0, noise):
    return at(schedule.alpha_bar, t) * x0 + at(schedule.beta_bar, t) ** 2 * noise


def _posterior(schedule, t, x_t, x0, alpha_bar_previous):
    """`q_posterior` with a given ᾱ_{t−1}."""
    before, total, v = 1 - alpha_bar_previous**2, schedule.beta_bar[t] ** 2, schedule.beta[t] ** 2
    mean = (schedule.alpha[t] * before * x_t + alpha_bar_previous * v * x0) / total
    return mean, v * before / total


@exhibit(
    "ᾱ_{t−1} is a table padded on the wrong side",
    "lucidrains/denoising-diffusion-pytorch #18",
    "ddpm.q_posterior",
    "check_posterior",
)
def padded_on_the_wrong_side(schedule, t, x_t, x0):
    previous = np.append(schedule.alpha_bar[1:-1], 1.0)  # belongs in front: [1.0, ᾱ_1, …, ᾱ_{T−1}]
    return _posterior(schedule, t, x_t, x0, previous[t - 1])


@exhibit(
    "the posterior variance without 1/(1 − ᾱ_t²)",
    "varun-ml/diffusion-models-tutorial #1",
    "ddpm.q_posterior",
    "check_posterior",
)
def variance_not_divided(schedule, t, x_t, x0):
    mean, _ = q_posterior(schedule, t, x_t, x0)
    return mean, (schedule.beta[t] * schedule.beta_bar[t - 1]) ** 2


@exhibit(
    "the posterior variance of the first step is that of the second",
    "openai/improved-diffusion #45",
    "ddpm.q_posterior",
    "check_posterior",
)
def first_step_clipped(schedule, t, x_t, x0):
    mean, _ = q_posterior(schedule, t, x_t, x0)
    return mean, schedule.beta_tilde[max(t, 2)] ** 2


@exhibit(
    "the posterior from two factors, without q(x_{t−1}|x_0)",
    "erratum E14 of the deck",
    "ddpm.q_posterior",
    "check_posterior",
)
def two_factors(schedule, t, x_t, x0):
    return x_t / schedule.alpha[t], (schedule.beta[t] / schedule.alpha[t]) ** 2


@exhibit("x̂_0 is divided by ᾱ_{t−1}, not ᾱ_t", "mutation audit", "ddpm.predict_x0", "check_predict_x0")
def previous_alpha_bar(schedule, t, x_t, eps_hat):
    return (x_t - at(schedule.beta_bar, t) * eps_hat) / at(schedule.alpha_bar, t - 1)


@exhibit("ω has the wrong sign in (27)", "mutation audit", "ddpm.split_noise", "check_noise_merging")
def omega_added(schedule, t, eps, omega):
    return merge_noise(schedule, t, eps, -omega)[1]


# --- reverse steps -----------------------------------------------------------------------------------------------


@exhibit(
    "β_t for β_t²/β̄_t: a net for all noise in the formula for one step's",
    "erratum E23 of the deck",
    "ddpm.p_step",
    "check_ancestral_step",
)
def one_step_formula(schedule, t, x_t, eps_hat, noise, variance="beta"):
    std = np.sqrt(reverse_variance(schedule, variance))
    return (x_t - at(schedule.beta, t) * eps_hat) / at(schedule.alpha, t) + at(std, t) * noise


@exhibit(
    "a path's identity is taken for a rule of sampling: no noise is added",
    "erratum E24 of the deck",
    "ddpm.p_step",
    "check_ancestral_step",
)
def mean_only(schedule, t, x_t, eps_hat, noise, variance="beta"):
    return p_mean(schedule, t, x_t, eps_hat)


@exhibit("the noise is dropped at t = 1", "AkiRusProd/numpy-diffusion", "ddpm.p_step", "check_ancestral_step")
def last_step_without_noise(schedule, t, x_t, eps_hat, noise, variance="beta"):
    return p_step(schedule, t, x_t, eps_hat, noise if t > 1 else 0 * noise, variance)


@exhibit(
    "t − 1 against t: the network is asked one step early", "mutation audit", "ddpm.ancestral_sampler", "check_sampler"
)
def network_off_by_one(schedule, eps_hat, x_T, rng, variance="beta"):
    x = x_T
    yield schedule.T, x
    for t in range(schedule.T, 0, -1):
        x = p_step(schedule, t, x, eps_hat(x, t - 1), rng.standard_normal(x.shape, dtype=x.dtype), variance)
        yield t - 1, x


@exhibit(
    "DDIM's direction to x_t has the wrong sign", "AkiRusProd/numpy-diffusion", "ddpm.ddim_step", "check_ddim_step"
)
def ddim_with_the_wrong_sign(schedule, t, s, x_t, eps_hat, noise=None, eta=0.0):
    alpha_bar, beta_bar = schedule.alpha_bar, schedule.beta_bar
    sigma = eta * beta_bar[s] / beta_bar[t] * np.sqrt(1 - (alpha_bar[t] / alpha_bar[s]) ** 2)
    direction = np.sqrt(np.maximum(beta_bar[s] ** 2 - sigma**2, 0.0))
    x_s = alpha_bar[s] * predict_x0(schedule, t, x_t, eps_hat) - direction * eps_hat
    return x_s if noise is None else x_s + sigma * noise


@exhibit("v_t is summed over D, not averaged", "mutation audit", "ddpm.mean_square_step", "check_optimal_variance")
def summed_over_dimensions(schedule, noise_loss, dimension):
    return dimension * mean_square_step(schedule, noise_loss, dimension)


# --- (19)-(29): the bound ----------------------------------------------------------------------------------------


@exhibit("log β_t for log β_t²", "mutation audit", "ddpm.forward_log_prob", "check_chains")
def log_std_for_log_variance(schedule, path):
    steps = [
        gaussian_log_prob(path[t], schedule.alpha[t] * path[t - 1], np.log(schedule.beta[t]))
        for t in range(1, schedule.T + 1)
    ]
    return np.sum(steps, axis=0)


@exhibit("(D/2) log 2πσ² is dropped", "erratum E20 of the deck", "ddpm.p_log_prob", "check_step_loss")
def square_only(schedule, t, x_prev, x_t, eps_hat, variance="beta"):
    sigma_squared = reverse_variance(schedule, variance)[t]
    return -((x_prev - p_mean(schedule, t, x_t, eps_hat(x_t, t))) ** 2).sum(axis=1) / (2 * sigma_squared)


def _printed_step_loss(schedule, t, x0, eps, eps_t, eps_hat, variance):
    """(26) and (28) with the deck's prefactor, β²/(α²σ²)."""
    one_step = schedule.beta[t] / schedule.beta_bar[t] * eps_hat(q_sample(schedule, t, x0, eps), t)
    normaliser = 0.5 * x0.shape[1] * (LOG_2PI + np.log(reverse_variance(schedule, variance)[t]))
    return normaliser + 2 * step_weight(schedule, variance)[t] * ((eps_t - one_step) ** 2).sum(axis=1)


@exhibit("the prefactor of (26), twice too large", "erratum E21 of the deck", "ddpm.one_step_loss", "check_step_loss")
def printed_26(schedule, t, x0, eps_bar_prev, eps_t, eps_hat, variance="beta"):
    eps = merge_noise(schedule, t, eps_bar_prev, eps_t)[0]
    return _printed_step_loss(schedule, t, x0, eps, eps_t, eps_hat, variance)


@exhibit("the prefactor of (28), twice too large", "erratum E21 of the deck", "ddpm.merged_loss", "check_step_loss")
def printed_28(schedule, t, x0, eps, omega, eps_hat, variance="beta"):
    return _printed_step_loss(schedule, t, x0, eps, split_noise(schedule, t, eps, omega), eps_hat, variance)


@exhibit(
    "the prefactor of (29), twice too large", "erratum E21 of the deck", "ddpm.total_noise_loss", "check_step_loss"
)
def printed_29(schedule, t, x0, eps, eps_hat, variance="beta"):
    sigma_squared = reverse_variance(schedule, variance)[t]
    constant = 0.5 * x0.shape[1] * (LOG_2PI + np.log(sigma_squared) + schedule.beta_tilde[t] ** 2 / sigma_squared)
    error = eps - eps_hat(q_sample(schedule, t, x0, eps), t)
    return constant + 2 * bound_weight(schedule, variance)[t] * (error**2).sum(axis=1)


@exhibit(
    "what ω leaves in (29), Dβ̃²/(2σ²), is dropped",
    "erratum E22 of the deck",
    "ddpm.total_noise_loss",
    "check_step_loss",
)
def omega_vanishes(schedule, t, x0, eps, eps_hat, variance="beta"):
    constant = 0.5 * x0.shape[1] * (LOG_2PI + np.log(reverse_variance(schedule, variance)[t]))
    error = eps - eps_hat(q_sample(schedule, t, x0, eps), t)
    return constant + bound_weight(schedule, variance)[t] * (error**2).sum(axis=1)


@exhibit(
    "the forward chain's entropy is dropped, as in the first “=” of (21)",
    "erratum E16 of the deck",
    "ddpm.negative_elbo",
    "check_negative_elbo",
)
def without_forward_entropy(schedule, noise_loss, second_moment, dimension, variance="beta"):
    sigma_squared = reverse_variance(schedule, variance)[1:]
    v = mean_square_step(schedule, noise_loss, dimension)[1:]
    prior = dimension * (LOG_2PI + schedule.beta_bar[-1] ** 2) + schedule.alpha_bar[-1] ** 2 * second_moment
    steps = LOG_2PI + np.log(sigma_squared) + v / sigma_squared
    return float(0.5 * (prior + dimension * steps.sum()))


def _bound(schedule, x0, eps_hat, noise, variance, posterior, level=None):
    """`bound_terms` with a given q(x_{t−1}|x_t, x_0), and the level t that every term takes if one is given."""
    sigma_squared = reverse_variance(schedule, variance)
    D = x0.shape[1]
    terms = np.empty((len(x0), schedule.T + 1))
    for step in range(1, schedule.T + 1):
        t = level or step
        x_t = q_sample(schedule, t, x0, noise[step - 1])
        mean = p_mean(schedule, t, x_t, eps_hat(x_t, t))
        if t == 1:
            terms[:, 0] = -gaussian_log_prob(x0, mean, np.log(sigma_squared[1]))
        else:
            q_mean, q_variance = posterior(schedule, t, x_t, x0)
            ratio = q_variance / sigma_squared[t]
            distance = ((q_mean - mean) ** 2).sum(axis=1) / sigma_squared[t]
            terms[:, step - 1] = 0.5 * (D * (ratio - 1 - np.log(ratio)) + distance)
    log_variance = np.full_like(x0, 2 * np.log(schedule.beta_bar[-1]))
    terms[:, -1] = kl_diag_standard(schedule.alpha_bar[-1] * x0, log_variance)
    return terms


@exhibit(
    "q(x_t|x_{t−1}) around √(1−β) x_t, where x_{t−1} belongs",
    "jmtomczak/intro_dgm, diffusion example",
    "ddpm.bound_terms",
    "check_variational_bound",
)
def forward_kernel_at_the_wrong_state(schedule, x0, eps_hat, noise, variance="beta"):
    def kernel(schedule, t, x_t, x0):
        return schedule.alpha[t] * x_t, schedule.beta[t] ** 2

    return _bound(schedule, x0, eps_hat, noise, variance, kernel)


@exhibit(
    "t is set before the loop over the bound's terms and never changes",
    "tqch/ddpm-torch #20",
    "ddpm.bound_terms",
    "check_variational_bound",
)
def time_never_changes(schedule, x0, eps_hat, noise, variance="beta"):
    return _bound(schedule, x0, eps_hat, noise, variance, q_posterior, level=schedule.T)


# --- whole numbers -----------------------------------------------------------------------------------------------


@exhibit(
    "a density stands for P(level): a continuous L_0 on discrete data",
    "mutation audit",
    "likelihood.log_bin_mass",
    "check_bin_masses",
)
def continuous_l0(level, mean, std, n_levels):
    centre = 2 * np.asarray(level) / (n_levels - 1) - 1
    return -0.5 * (LOG_2PI + 2 * np.log(std) + ((centre - mean) / std) ** 2)


def _bin_masses(level, mean, std, n_levels, half, cdf, open_ends=True):
    """`log_bin_mass` as a difference of distribution functions; a bin of mass 0 gets the least float."""
    centre = 2 * np.asarray(level) / (n_levels - 1) - 1
    lower, upper = cdf((centre - half - mean) / std), cdf((centre + half - mean) / std)
    if open_ends:
        lower, upper = np.where(level == 0, 0.0, lower), np.where(level == n_levels - 1, 1.0, upper)
    return np.log(np.maximum(upper - lower, 1e-300))


def _normal_cdf(z):
    return 0.5 * np.vectorize(math.erfc)(-z / 2**0.5)


@exhibit("bins of width 2/K for levels 2/(K−1) apart", "mutation audit", "likelihood.log_bin_mass", "check_bin_masses")
def width_of_k_bins(level, mean, std, n_levels):
    return _bin_masses(level, mean, std, n_levels, 1 / n_levels, _normal_cdf)


@exhibit("the first and the last bin are closed", "mutation audit", "likelihood.log_bin_mass", "check_bin_masses")
def closed_ends(level, mean, std, n_levels):
    return _bin_masses(level, mean, std, n_levels, 1 / (n_levels - 1), _normal_cdf, open_ends=False)


@exhibit(
    "Φ is approximated by a tanh", "openai/improved-diffusion, losses", "likelihood.log_bin_mass", "check_bin_masses"
)
def tanh_for_the_normal(level, mean, std, n_levels):
    def cdf(z):
        return 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (z + 0.044715 * z**3)))

    return _bin_masses(level, mean, std, n_levels, 1 / (n_levels - 1), cdf)


@exhibit("nats are not divided by ln 2", "mutation audit", "likelihood.bits_per_dim", "check_bits_per_dim")
def nats_for_bits(nats, dimension, scale=1.0):
    return nats / dimension - np.log2(scale)


@exhibit(
    "the offset of dequantisation has the wrong sign", "mutation audit", "likelihood.bits_per_dim", "check_bits_per_dim"
)
def offset_added(nats, dimension, scale=1.0):
    return nats / (dimension * np.log(2)) + np.log2(scale)


# --- (31)-(34): the SDE ------------------------------------------------------------------------------------------


@exhibit("scale is e^(−B), its square", "mutation audit", "sde.VP.marginal", "check_sde")
def squared_scale(self, t):
    B = self.beta_integral(t)
    return np.exp(-B), np.sqrt(-np.expm1(-B))


@exhibit(
    "the score has the wrong sign in the reverse drift",
    "jsboige/CoursIA PR #16132",
    "sde.reverse_drift",
    "check_reverse_sde",
)
def drift_with_the_wrong_sign(sde, score, x, t, churn=1.0):
    return sde.drift(x, t) + 0.5 * (1 + churn**2) * float(sde.diffusion(t)) ** 2 * score(x, t)


@exhibit("the flow's ½ in the reverse SDE", "mutation audit", "sde.reverse_drift", "check_reverse_sde")
def half_of_the_score(sde, score, x, t, churn=1.0):
    return sde.drift(x, t) - 0.5 * float(sde.diffusion(t)) ** 2 * score(x, t)


@exhibit("the reverse SDE is stepped with dt > 0", "erratum E32 of the deck", "sde.euler_step", "check_reverse_step")
def forward_in_time(sde, score, x, t, s, churn=1.0):
    return x + (t - s) * reverse_drift(sde, score, x, t, churn), euler_std(sde, t, s, churn)


@exhibit(
    "the score is evaluated at t − h, where the step arrives",
    "mutation audit",
    "sde.euler_maruyama",
    "check_reverse_sampler",
)
def evaluated_where_it_arrives(sde, score, x, times, rng=None, noise=None, churn=1.0):
    def late(x, t):
        return score(x, float(times[np.searchsorted(-times, -t) + 1]))

    yield float(times[0]), x
    for i, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        mean, std = euler_step(sde, late, x, t, s, churn)
        x = mean + std * noise[i]
        yield s, x


@exhibit(
    "dt = −T/N on a grid that has other steps",
    "yang-song/score_sde, sampling",
    "sde.euler_maruyama",
    "check_reverse_sampler",
)
def constant_dt(sde, score, x, times, rng=None, noise=None, churn=1.0):
    dt = sde.horizon / (len(times) - 1)
    yield float(times[0]), x
    for i, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        mean, std = euler_step(sde, score, x, t, t - dt, churn)
        x = mean + std * noise[i]
        yield s, x


@exhibit(
    "denoising score matching towards +ε/std",
    "mutation audit",
    "sde.denoising_score_matching",
    "check_score_matching",
)
def positive_target(score, noise, std):
    return ((score - noise / std) ** 2).sum(axis=1)


@exhibit("the divergence without its 2", "mutation audit", "sde.implicit_score_matching", "check_score_matching")
def single_divergence(score, divergence):
    return (score**2).sum(axis=1) + divergence


def _flow_log_prob(sde, score_and_divergence, x, rtol, strength, ends):
    """`probability_flow_log_prob` with a given strength of the score and between given ends."""
    from scipy.integrate import solve_ivp

    N, D = x.shape

    def slope(t, state):
        points = state[: N * D].reshape(N, D)
        score, divergence = score_and_divergence(points, t)
        velocity = sde.drift(points, t) - strength(t) * score
        return np.concatenate([velocity.ravel(), D * float(sde.rate(t)) - strength(t) * divergence])

    start = np.concatenate([x.astype(np.float64).ravel(), np.zeros(N)])
    end = solve_ivp(slope, ends, start, method="DOP853", rtol=rtol, atol=0.1 * rtol).y[:, -1]
    return sde.prior_log_prob(end[: N * D].reshape(N, D)) + end[N * D :]


@exhibit(
    "g for g² in the probability flow",
    "jmtomczak/intro_dgm, score-based example",
    "sde.probability_flow_log_prob",
    "check_probability_flow_likelihood",
)
def flow_with_g(sde, score_and_divergence, x, t_min=0.0, rtol=1e-6):
    def strength(t):
        return 0.5 * float(sde.diffusion(t))

    return _flow_log_prob(sde, score_and_divergence, x, rtol, strength, (t_min, sde.horizon))


@exhibit(
    "the flow is integrated from T to 0, with data as its start",
    "openai/consistency_models_cifar10 #12",
    "sde.probability_flow_log_prob",
    "check_probability_flow_likelihood",
)
def flow_in_the_wrong_direction(sde, score_and_divergence, x, t_min=0.0, rtol=1e-6):
    def strength(t):
        return 0.5 * float(sde.diffusion(t)) ** 2

    return _flow_log_prob(sde, score_and_divergence, x, rtol, strength, (sde.horizon, t_min))


def _path_integral(sde, score_error):
    """∫ g² E‖∇log p_t − s_θ‖² dt over [0, T]."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    y = 0.5 * (nodes + 1)
    integrand = np.array([float(sde.diffusion(t)) ** 2 * score_error(float(t)) for t in sde.horizon * y**3])
    return float((0.5 * weights * 3 * sde.horizon * y**2 * integrand).sum())


@exhibit("T for T/2 in (34)", "mutation audit", "sde.kl_bound", "check_kl_bound")
def whole_path(sde, score_error, prior_kl):
    return _path_integral(sde, score_error) + prior_kl


@exhibit("an average over t, without the factor T, in (34)", "mutation audit", "sde.kl_bound", "check_kl_bound")
def without_horizon(sde, score_error, prior_kl):
    return 0.5 * _path_integral(sde, score_error) / sde.horizon + prior_kl


@exhibit("KL(p_T‖π) is left out of (34)", "mutation audit", "sde.kl_bound", "check_kl_bound")
def without_prior_kl(sde, score_error, prior_kl):
    return 0.5 * _path_integral(sde, score_error)


@exhibit("the drift's divergence is left out", "mutation audit", "sde.sde_log_prob_bound", "check_log_prob_bound")
def without_drift(sde, score_and_divergence, x, noise, weights, prior_log_prob):
    right = sde_log_prob_bound(sde, score_and_divergence, x, noise, weights, prior_log_prob=prior_log_prob)
    return right - float(sde.log_scale(sde.horizon))


@exhibit("½ is left out of one example's bound", "mutation audit", "sde.sde_log_prob_bound", "check_log_prob_bound")
def whole_integral(sde, score_and_divergence, x, noise, weights, prior_log_prob):
    def twice(points, t):  # a score whose loss is twice as large
        score, divergence = score_and_divergence(points, t)
        return 2**0.5 * score, 2 * divergence

    return sde_log_prob_bound(sde, twice, x, noise, weights, prior_log_prob=prior_log_prob)


@exhibit(
    "(34) read as a bound on the flow's law", "erratum E34 of the deck", "sde.reverse_moments", "check_reverse_law"
)
def law_of_the_flow(sde, score, mean, covariance, t_min=0.0, churn=1.0):
    return reverse_moments(sde, score, mean, covariance, t_min, churn=0.0)


# --- training ----------------------------------------------------------------------------------------------------


@exhibit("gradients add up from call to call", "mutation audit", "network.MLP.backward", "check_gradient")
def accumulated_gradient(self, grad_output):
    grad = grad_output
    for i in reversed(range(len(self.weights))):
        self._weight_gradients[i] += self._inputs[i].T @ grad
        self._bias_gradients[i] += grad.sum(axis=0)
        grad = grad @ self.weights[i].T
        if i > 0:
            grad = grad * self._slopes[i - 1]
    return grad


@exhibit("the slope of the activation is forgotten", "mutation audit", "network.MLP.backward", "check_gradient")
def without_slopes(self, grad_output):
    grad = grad_output
    for i in reversed(range(len(self.weights))):
        np.matmul(self._inputs[i].T, grad, out=self._weight_gradients[i])
        grad.sum(axis=0, out=self._bias_gradients[i])
        grad = grad @ self.weights[i].T
    return grad


@exhibit("moments are not corrected for their start at 0", "mutation audit", "optimizer.Adam", "check_adam")
class UncorrectedAdam(Adam):
    def step(self, gradient, learning_rate=None):
        rate = self.learning_rate if learning_rate is None else learning_rate
        self._m = self.beta1 * self._m + (1 - self.beta1) * gradient
        self._v = self.beta2 * self._v + (1 - self.beta2) * gradient**2
        self.parameters *= 1 - rate * self.weight_decay
        self.parameters -= rate * self._m / (np.sqrt(self._v) + self.epsilon)


EXHIBITS: tuple[Exhibit, ...] = tuple(_COLLECTED)


# --- what no row sees ---------------------------------------------------------------------------------------------


class Unseen(NamedTuple):
    """A bug that every row lets pass, and why."""

    bug: str
    source: str
    function: str
    planted: Callable[..., Any]
    why: str


def _late_step(sde, score, x, t, s, churn=1.0):
    drift = reverse_drift(sde, lambda x, _: score(x, s), x, t, churn)
    return x + (s - t) * drift, euler_std(sde, t, s, churn)


def _one_pass_covariance(x, log_resp, mixture, covariance_floor=0.0):
    resp = np.exp(log_resp)
    counts = resp.sum(axis=0)
    means = resp.T @ x / counts[:, None]
    second = np.einsum("nk,nd,ne->kde", resp, x, x) / counts[:, None, None]
    covariances = second - means[:, :, None] * means[:, None, :]
    return floored_mixture(counts / counts.sum(), means, covariances, covariance_floor)


def _sum_without_maximum(self, x):
    return np.log(np.exp(self.log_joint(x)).sum(axis=1))


def _clipped_log_variance(mean, log_variance):
    return kl_diag_standard(mean, np.clip(log_variance, -5, 5))


def _cancelling(variances):
    beta = np.sqrt(np.concatenate([[0.0], variances]))
    alpha_bar = np.cumprod(np.sqrt(1 - beta**2))
    return _tables(alpha_bar, np.sqrt(1 - alpha_bar**2), beta)


UNSEEN: tuple[Unseen, ...] = (
    Unseen(
        "the score is evaluated at t − h in one step",
        "mutation audit",
        "sde.euler_step",
        _late_step,
        "both are right as h → 0, to the same order; on a grid it is seen",
    ),
    Unseen(
        "covariances as E xxᵀ − m mᵀ, which cancels",
        "scikit-learn #30382",
        "em.m_step",
        _one_pass_covariance,
        "the row's data lie near 0",
    ),
    Unseen(
        "log Σ exp without the maximum, which underflows",
        "gmm-torch #13",
        "mixture.Mixture.log_prob",
        _sum_without_maximum,
        "the row's points lie near the means",
    ),
    Unseen(
        "log σ² is clipped to [−5, 5]",
        "mutation audit",
        "likelihood.kl_diag_standard",
        _clipped_log_variance,
        "the row's log σ² lie within",
    ),
    Unseen(
        "β̄ = √(1 − ᾱ²), which cancels",
        "mutation audit",
        "schedule.NoiseSchedule",
        _cancelling,
        "the row's β² are not small",
    ),
)


# --- the tour ----------------------------------------------------------------------------------------------------


@cache
def rows_of() -> dict[str, list[Row]]:
    """Which rows use a function, by running each once."""
    users: dict[str, list[Row]] = {}
    for row in ROWS:
        names: set[str] = set()

        def recording(name: str, names: set[str] = names) -> Callable[..., Any]:
            names.add(name)
            return find(name)

        row.run(recording)
        for name in names:
            users.setdefault(name, []).append(row)
    return users


def checks_of(shown: Exhibit | Unseen) -> list[Check]:
    """The checks of all rows that use the function, with the planted one in its place."""
    return [check(row, {shown.function: shown.planted}) for row in rows_of()[shown.function]]


def killing(shown: Exhibit) -> Check:
    """The named check where it fails most."""
    checks = [c for c in checks_of(shown) if c.name == shown.killer]
    return max(checks, key=lambda c: c.residual / c.tolerance)


def tour() -> Iterator[tuple[str, str, str, str, str, str]]:
    """(bug, where it was seen, function, killer, residual, diagnosis) of every exhibit, as text."""
    for shown in EXHIBITS:
        c = killing(shown)
        yield shown.bug, shown.source, shown.function, shown.killer, f"{c.residual:.1e}", c.diagnosis
