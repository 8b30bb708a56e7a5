"""Wing two: faults planted in the running code of the models, in sampling, likelihoods and the models themselves."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from scratchgen.ddpm import law_moments, reverse_variance
from scratchgen.likelihood import gaussian_log_prob
from scratchgen.museum.exhibit import fault
from scratchgen.sde import euler_step

# --- reverse steps ---------------------------------------------------------------------------------------------------


@fault("ε̂ is evaluated one step late", "ddpm.predict_noise", "verify: predicted noise")
def _one_level_late(original, network, schedule, x_t, t, *arguments, **options):
    return original(network, schedule, x_t, max(t - 1, 1), *arguments, **options)


@fault("a sampler adds σ²z for σz", "ddpm.p_step", "verify: a reverse step")
def _variance_times_noise(original, schedule, t, x_t, eps_hat, noise, variance="beta"):
    return original(schedule, t, x_t, eps_hat, np.sqrt(reverse_variance(schedule, variance)[t]) * noise, variance)


@fault("a sampler adds no noise in its last step", "ddpm.p_step", "verify: a reverse step")
def _last_step_without_noise(original, schedule, t, x_t, eps_hat, noise, variance="beta"):
    return original(schedule, t, x_t, eps_hat, 0 * noise if t == 1 else noise, variance)


@fault("the posterior variance is 0 at t = 1", "ddpm.reverse_variance", "verify: σ_t² of the reverse steps")
def _zero_variance(original, schedule, variance, dimension=None):
    table = original(schedule, variance, dimension)
    return (
        np.where(np.arange(len(table)) == 1, 0.0, table)
        if isinstance(variance, str) and variance == "posterior"
        else table
    )


@fault("guidance 0 and 1 are swapped", "ddpm.predict_noise", "verify: predicted noise")
def _swapped_guidance(original, network, schedule, x_t, t, labels=None, guidance=1.0, **given):
    return original(network, schedule, x_t, t, labels, 1 - guidance, **given)


@fault("guidance w + 1 for w", "ddpm.predict_noise", "verify: predicted noise")
def _one_more(original, network, schedule, x_t, t, labels=None, guidance=1.0, **given):
    return original(network, schedule, x_t, t, labels, guidance + 1, **given)


@fault("x̂₀ is not clipped", "ddpm.predict_noise", "verify: predicted noise")
def _unclipped(original, network, schedule, x_t, t, clip=False, **given):
    return original(network, schedule, x_t, t, **given)


@fault("DDIM adds no fresh noise", "ddpm.ddim_step", "verify: DDIM")
def _without_fresh_noise(original, schedule, t, s, x_t, eps_hat, noise=None, eta=0.0):
    return original(schedule, t, s, x_t, eps_hat, None if noise is None else 0 * noise, eta)


@fault("the score is ε̂/std, without the minus sign", "sde.predict_score", "verify: the continuous bound")
def _energy_gradient(original, network, sde, x, t):
    return -original(network, sde, x, t)


@fault("g for g² in the reverse drift", "sde.reverse_drift", "verify: (32)")
def _single_g(original, sde, score, x, t, stochasticity=1.0):
    g = float(sde.diffusion(t))
    return original(sde, score / g, x, t, stochasticity)


@fault("Heun's method uses one slope per step", "sde.heun", "verify: Heun's method")
def _one_slope(original, sde, score, x, times):
    yield float(times[0]), x
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x, _ = euler_step(sde, score(x, t), x, t, s, 0.0)
        yield s, x


@fault("a Langevin step adds √δ z for √(2δ) z", "sde.langevin_step", "verify: a Langevin step")
def _half_the_noise(original, sde, score, x, t, snr=0.16):
    mean, std = original(sde, score, x, t, snr)
    return mean, std / 2**0.5


@fault("the variance of the law leaves out β̃_t²", "ddpm.law_moments", "verify: variance from the law")
def _variance_of_the_law_alone(original, schedule, t, x_t, levels, law):
    mean, variance = original(schedule, t, x_t, levels, law)
    return mean, variance - schedule.beta_tilde[t] ** 2


@fault("all dimensions of a mixture step share one number u", "ddpm.mixture_step", "verify: a draw of the mixture step")
def _shared_uniform(original, schedule, t, x_t, levels, law, uniform, noise):
    return original(schedule, t, x_t, levels, law, np.repeat(uniform[:, :1], uniform.shape[1], axis=1), noise)


# --- likelihoods -----------------------------------------------------------------------------------------------------


@fault(
    "the prior of every process has standard deviation 1, also of VE",
    "sde.VE.prior_std",
    "verify: the continuous bound",
)
def _unit_prior(original, self):
    return 1.0


@fault("Hutchinson's probes are summed, not averaged", "sde.score_and_divergence", "verify: score of a network")
def _summed_probes(original, network, sde, x, t, probes=None, labels=None):
    score, divergence = original(network, sde, x, t, probes, labels)
    return score, divergence * (1 if probes is None else len(probes))


@fault("the bins of whole numbers are off by half", "likelihood._log_bin_mass", "verify: whole numbers")
def _half_a_bin(original, level, mean, std, n_levels):
    return original(level, mean + 1 / (n_levels - 1), std, n_levels)


@fault("L₀ of whole numbers is a density", "ddpm.reconstruction_loss", "verify: L₀ of whole numbers")
def _density_for_mass(original, schedule, x0, x_1, eps_hat, variance="beta", n_levels=None):
    return original(schedule, x0, x_1, eps_hat, variance)


@fault(
    "the importance-weighted bound is a mean of logarithms",
    "vae.importance_weighted_bound",
    "verify: importance weighting",
)
def _mean_of_logarithms(original, log_weights):
    return log_weights.mean(axis=0)


@fault(
    "a Gaussian's KL to the prior reads log σ² as log σ", "likelihood.kl_diag_standard", "verify: the VAE's regulariser"
)
def _log_variance_as_log_std(original, mean, log_variance):
    return original(mean, 2 * log_variance)


@fault(
    "a denoiser of whole numbers ignores the label", "nn.CategoricalDenoiser.law", "verify: denoiser of whole numbers"
)
def _law_without_label(original, self, x, scale, std, labels=None, guidance=1.0):
    return original(self, x, scale, std)


@fault("a mixture step has the density of its Gaussian", "ddpm.mixture_log_prob", "verify: the mixture step")
def _gaussian_for_the_mixture(original, schedule, t, x_prev, x_t, levels, law):
    mean, variance = law_moments(schedule, t, x_t, levels, law)
    return gaussian_log_prob(x_prev, mean, np.log(variance))


# --- models ----------------------------------------------------------------------------------------------------------


@fault(
    "the log-volume of the units has the wrong sign in likelihoods",
    "models.estimator.StandardizedEstimator._log_volume",
    "tests/models/test_ddpm.py::test_ddpm_bound_is_exact_for_gaussian_data",
)
def _negative_volume(original, self):
    return -original(self)


@fault(
    "samples are left in the model's units",
    "models.estimator.StandardizedEstimator.to_data",
    "tests/models/test_vae.py::test_linear_vae_draws_from_its_own_gaussian",
)
def _model_units(original, self, x):
    return x


@fault(
    "the optimal variance is never estimated",
    "models.ddpm.DDPM._best_variance",
    "tests/models/test_ddpm_choices.py::test_optimal_variance_is_estimated_when_training_ends",
)
def _never_estimated(original, self, noise_losses):
    return self.schedule_.beta**2


@fault(
    "a model with variance 'law' takes its steps with β_t²",
    "models.ddpm.DDPM._reverse_steps",
    "tests/models/test_level_steps.py::test_terms_of_a_model_are_those_of_its_steps",
)
def _without_the_law(original, self, given):
    return self._predictor(given), self.variance_


@fault(
    "the optimal variance of a dimension is that of the mean over dimensions",
    "models.ddpm.DDPM._per_dimension",
    "tests/models/test_level_steps.py::test_a_variance_for_each_dimension_is_estimated_saved_and_respaced",
)
def _one_for_all(original, self, n_features):
    return ()


@fault(
    "a model ignores the given guidance",
    "models.diffusion.DiffusionModel._given",
    "tests/models/test_ddpm_choices.py::test_guidance_is_linear_between_the_unlabelled_and_the_labelled_model",
)
def _guidance_ignored(original, self, y, n, guidance=1.0, guidance_in="eps"):
    return original(self, y, n)


@fault(
    "the last run of EM is kept, not the best",
    "models.mixture_model.MixtureModel._keep_best",
    "tests/models/test_gaussian_mixture.py::test_more_starts_keep_the_best",
)
def _last_of_runs(original, self, run, start, n_runs, rng, data, attributes, state):
    done = 0
    for _ in range(n_runs):
        for progress in original(self, run, start, 1, rng, data, attributes, state):
            yield progress._replace(step=done + progress.step, n_steps=n_runs * progress.n_steps)
        done += progress.step


@fault(
    "a warm start starts from new parameters",
    "models.gaussian_mixture.GaussianMixture._last_fit",
    "tests/models/test_gaussian_mixture.py::test_warm_start_continues",
)
def _cold_start(original, self, K, D, names, floor):
    return None


@fault(
    "every batch of a VAE is the first batch",
    "vae.random_batch",
    "tests/models/test_vae.py::test_training_draws_fresh_noise_and_fresh_batches",
)
def _first_batch(original, x, rng, n_latents, batch_size=None, augment=None):
    return original(x, np.random.default_rng(0), n_latents, batch_size, augment)
