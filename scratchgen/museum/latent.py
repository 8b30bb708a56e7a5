"""Wing one, chapters (1)-(18): mistakes in divergences, the ELBO, the VAE, EM and mixtures."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from scratchgen.em import m_step
from scratchgen.likelihood import LOG_2PI, cross_entropy_discrete, kl_diag_standard, kl_discrete
from scratchgen.mixture import Mixture
from scratchgen.museum.exhibit import exhibit
from scratchgen.variational import elbo_split_table, elbo_table, linear_gaussian_posterior

# --- (1)-(2): entropies and divergences ------------------------------------------------------------------------------


@exhibit("KL(q‖p) stands for KL(p‖q)", "mutation audit", "likelihood.kl_discrete", "check_kl")
def _reversed_kl(p, q):
    return kl_discrete(q, p)


@exhibit("log-determinants without ½", "mutation audit", "likelihood.kl_gaussian", "check_gaussian_kl")
def _whole_log_determinants(mean_p, cov_p, mean_q, cov_q):
    factor = np.linalg.cholesky(cov_q)
    spread = np.linalg.solve(factor, np.linalg.cholesky(cov_p))
    shift = np.linalg.solve(factor, mean_p - mean_q)
    log_ratio = 2 * np.log(np.abs(np.diagonal(spread))).sum()
    return 0.5 * float((spread**2).sum() + (shift**2).sum() - len(cov_p)) - log_ratio


@exhibit("N(μ, σ) for N(μ, σ²)", "the deck as printed, Figure 2", "likelihood.kl_diag_standard", "check_diagonal_kl")
def _std_for_variance(mean, log_variance):
    std = np.exp(0.5 * log_variance)
    return 0.5 * (mean**2 + std - 1 - np.log(std)).sum(axis=-1)


@exhibit(
    "the KL is averaged over the latents, not summed",
    "maxhodak/keras-molecules #59",
    "likelihood.kl_diag_standard",
    "check_diagonal_kl",
)
def _mean_over_latents(mean, log_variance):
    return 0.5 * (mean**2 + np.expm1(log_variance) - log_variance).mean(axis=-1)


# --- (3)-(12): posterior and ELBO ------------------------------------------------------------------------------------


@exhibit(
    "(11) divided by p(x) of the data, here 1/N",
    "the deck as printed",
    "variational.posterior_table",
    "check_latent_posterior",
)
def _divided_by_p_of_x(joint):
    p_x = np.full(len(joint), 1 / len(joint))
    return joint / p_x[:, None], joint.sum(axis=1)


@exhibit(
    "min KL is read as max ELBO: the joint is not normalised",
    "the deck as printed",
    "variational.posterior_kl_table",
    "check_posterior_kl",
)
def _kl_to_the_joint(joint, q):
    return kl_discrete(q, joint)


@exhibit("the entropy of q is dropped", "mutation audit", "variational.elbo_table", "check_elbo")
def _elbo_without_entropy(joint, q):
    return -cross_entropy_discrete(q, joint)


@exhibit(
    "the KL has the wrong sign",
    "AntixK/PyTorch-VAE #68, in its log",
    "variational.elbo_split_table",
    "check_split_elbo",
)
def _kl_added(decoder, prior, q):
    return -cross_entropy_discrete(q, decoder) + kl_discrete(q, prior)


@exhibit(
    "log p(x) is dropped as irrelevant: (13) for (12)",
    "the deck as printed",
    "variational.joint_kl_table",
    "check_joint_kl",
)
def _joint_kl_without_p(p_x, q, decoder, prior):
    return -float(p_x @ elbo_table(decoder * prior, q))


@exhibit(
    "σ² is missing from the posterior's covariance",
    "mutation audit",
    "variational.linear_gaussian_posterior",
    "check_linear_gaussian_posterior",
)
def _posterior_without_noise_variance(x, W, mean, noise_variance):
    M = W.T @ W + noise_variance * np.eye(W.shape[1])
    return np.linalg.solve(M, W.T @ (x - mean).T).T, np.linalg.inv(M)


@exhibit(
    "mean field takes the marginal variances of the posterior: the reversed KL is minimal",
    "mutation audit",
    "variational.linear_gaussian_mean_field",
    "check_mean_field",
)
def _marginal_variances(x, W, mean, noise_variance):
    means, covariance = linear_gaussian_posterior(x, W, mean, noise_variance)
    return means, np.diagonal(covariance)


@exhibit(
    "(D/2) log 2πσ² is dropped from the ELBO",
    "mutation audit",
    "variational.linear_gaussian_elbo",
    "check_linear_gaussian_elbo",
)
def _elbo_without_constant(x, W, mean, noise_variance, q_mean, q_cov):
    residual = ((x - mean - q_mean @ W.T) ** 2).sum(axis=1) + np.trace(W @ q_cov @ W.T)
    log_det = 2 * np.log(np.diagonal(np.linalg.cholesky(q_cov))).sum()
    kl = 0.5 * ((q_mean**2).sum(axis=1) + np.trace(q_cov) - len(q_cov) - log_det)
    return -0.5 * residual / noise_variance - kl


# --- (13)-(14): the VAE ----------------------------------------------------------------------------------------------


@exhibit("x is averaged without p(x)", "mutation audit", "vae.vae_loss_table", "check_vae_objective")
def _unweighted_examples(p_x, q, decoder, prior):
    return -float(elbo_split_table(decoder, prior, q).mean())


@exhibit(
    "the normal constant is multiplied by D and then summed over D",
    "jmtomczak/intro_dgm, VAE example",
    "vae.vae_loss",
    "check_vae_loss",
)
def _constant_times_dimension(x, x_hat, mean, log_variance, decoder_log_variance):
    D = x.shape[1]
    terms = -0.5 * D * LOG_2PI - 0.5 * decoder_log_variance - 0.5 * (x - x_hat) ** 2 * np.exp(-decoder_log_variance)
    return kl_diag_standard(mean, log_variance) - terms.sum(axis=-1)


@exhibit(
    "the squared error is averaged over D, not summed",
    "the deck as printed; pytorch/examples #399",
    "vae.vae_loss",
    "check_vae_loss",
)
def _mean_over_dimensions(x, x_hat, mean, log_variance, decoder_log_variance):
    squares = ((x - x_hat) ** 2).mean(axis=-1) * np.exp(-decoder_log_variance)
    constant = x.shape[1] * (LOG_2PI + decoder_log_variance)
    return kl_diag_standard(mean, log_variance) + 0.5 * (constant + squares)


@exhibit(
    "z = μ + σ²ξ: exp(log σ²) for exp(½ log σ²)",
    "rachtsingh/ibp_vae #3",
    "vae.reparameterise",
    "check_reparameterisation",
)
def _variance_for_std(mean, log_variance, noise):
    return mean + np.exp(log_variance) * noise


@exhibit(
    "the noise has standard deviation .01",
    "keras-team/keras #4211; maxhodak/keras-molecules #61",
    "vae.reparameterise",
    "check_reparameterisation",
)
def _small_noise(mean, log_variance, noise):
    return mean + np.exp(0.5 * log_variance) * (0.01 * noise)


@exhibit(
    "softmax over losses: the worst draw has the largest weight",
    "AntixK/PyTorch-VAE, iwae.py",
    "vae.importance_weighted_bound",
    "check_importance_weighted_bound",
)
def _softmax_over_losses(log_weights):
    losses = -log_weights
    weights = np.exp(losses - losses.max(axis=0))
    return -(weights / weights.sum(axis=0) * losses).sum(axis=0)


# --- (15)-(18): EM and mixtures --------------------------------------------------------------------------------------


@exhibit("(15) is normalised over z, not over x", "mutation audit", "em.m_step_table", "check_free_m_step")
def _normalised_over_z(p_x, q):
    joint = p_x[:, None] * q
    return joint / joint.sum(axis=1, keepdims=True), p_x @ q


@exhibit("the components are assigned 0 or 1", "mutation audit", "em.e_step", "check_e_step")
def _hard_assignment(x, mixture):
    log_joint = mixture.log_joint(x)
    best = log_joint.argmax(axis=1)
    return np.where(np.arange(log_joint.shape[1]) == best[:, None], 0.0, -np.inf), log_joint.max(axis=1)


@exhibit("the entropy of q is dropped from the free energy", "mutation audit", "em.free_energy", "check_free_energy")
def _free_energy_without_entropy(x, log_resp, mixture):
    return (np.exp(log_resp) * mixture.log_joint(x)).sum(axis=1)


@exhibit("the mixing weights are never updated", "ddbourgin/numpy-ml, gmm.py", "em.m_step", "check_em")
def _weights_never_updated(x, log_resp, mixture, covariance_floor=0.0):
    new = m_step(x, log_resp, mixture, covariance_floor)
    return Mixture(mixture.weights, new.means, new.covariances)


@exhibit("a ridge is added to every covariance", "scikit-learn, reg_covar", "em.m_step", "check_em")
def _additive_ridge(x, log_resp, mixture, covariance_floor=0.0):
    new = m_step(x, log_resp, mixture, 0.0)
    return Mixture(new.weights, new.means, new.covariances + covariance_floor * np.eye(x.shape[1]))


@exhibit("σ² of PPCA is updated with the old W", "mutation audit", "em.ppca_em_step", "check_ppca_step")
def _old_loadings(covariance, W, noise_variance):
    M = W.T @ W + noise_variance * np.eye(W.shape[1])
    SW = covariance @ W
    new_W = np.linalg.solve((noise_variance * np.eye(W.shape[1]) + np.linalg.solve(M, W.T @ SW)).T, SW.T).T
    new_variance = float(np.trace(covariance) - np.sum(np.linalg.solve(M, SW.T) * W.T)) / len(covariance)
    return new_W, new_variance


@exhibit("W of PPCA keeps the noise: Λ for Λ − σ²", "mutation audit", "em.ppca_maximum", "check_ppca_maximum")
def _noise_counted_twice(covariance, n_components):
    values, vectors = np.linalg.eigh(covariance)
    noise_variance = float(values[:-n_components].mean())
    return vectors[:, ::-1][:, :n_components] * np.sqrt(values[::-1][:n_components]), noise_variance


@exhibit("log Σ exp without the maximum, with underflow", "gmm-torch #13", "mixture.Mixture.log_prob", "check_log_prob")
def _sum_without_maximum(self, x):
    with np.errstate(divide="ignore"):
        return np.log(np.exp(self.log_joint(x)).sum(axis=1))


@exhibit("the density of a mixture without its weights", "mutation audit", "mixture.Mixture.log_prob", "check_log_prob")
def _density_without_weights(self, x):
    log_joint = self.log_joint(x) - np.log(self.weights)
    top = log_joint.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(log_joint - top).sum(axis=1, keepdims=True)))[:, 0]


@exhibit("the score has the wrong sign", "mutation audit", "mixture.Mixture.score", "check_score")
def _score_of_the_energy(self, x):
    posterior, scores = self._component_scores(x)
    return np.einsum("nk,nkd->nd", posterior, -scores)


@exhibit("std for std² in Tweedie's formula", "mutation audit", "mixture.Mixture.denoise", "check_denoiser")
def _tweedie_with_std(self, x_t, scale, std):
    return (x_t + std * self.diffuse(scale, std).score(x_t)) / scale
