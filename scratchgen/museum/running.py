"""Wing two: faults planted in the running code of the models, in training.

The first argument of a replacement is the original function.  Each fault names the row of `scratchgen verify` or the
property test that sees it.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from scratchgen.ddpm import noise_error, q_sample
from scratchgen.mixture import Mixture
from scratchgen.museum.exhibit import fault
from scratchgen.validation import column

# --- losses ----------------------------------------------------------------------------------------------------------


@fault("the VAE is trained without its KL", "vae.vae_loss_and_gradient", "verify: (14)")
def _without_kl(original, x, x_hat, mean, log_variance, decoder_log_variance, kl_weight=1.0, n_levels=None):
    return original(x, x_hat, mean, log_variance, decoder_log_variance, 0.0, n_levels)


@fault("the weight of the KL is ignored", "vae.vae_loss_and_gradient", "verify: (14)")
def _kl_weight_ignored(original, x, x_hat, mean, log_variance, decoder_log_variance, kl_weight=1.0, n_levels=None):
    return original(x, x_hat, mean, log_variance, decoder_log_variance, 1.0, n_levels)


@fault("the decoder uses s for s²", "vae.reconstruction_error", "verify: (14)")
def _decoder_std(original, x, x_hat, decoder_log_variance, n_levels=None):
    return original(x, x_hat, 0.5 * np.asarray(decoder_log_variance), n_levels)


@fault("the network is trained towards −ε", "ddpm.noise_error", "verify: (29)")
def _towards_minus_noise(original, noise, eps_hat):
    return original(-noise, eps_hat)


@fault("the squared error is a mean over the dimensions, not a sum", "ddpm.noise_error", "verify: (29)")
def _mean_over_dimensions(original, noise, eps_hat):
    losses, gradient = original(noise, eps_hat)
    return losses / noise.shape[1], gradient / noise.shape[1]


@fault("λ_t is the weight of step t − 1", "ddpm.loss_weight", "verify: weights of the loss")
def _late_weights(original, schedule, weighting, variance="beta"):
    return np.append(0.0, original(schedule, weighting, variance)[:-1])


@fault("the target of denoising is −ε, without 1/std", "sde.denoising_error", "verify: (33)")
def _target_without_std(original, score, noise, std):
    return original(score, noise, 1.0)


@fault("the sliced loss has lost the factor 2 of its derivative", "sde.sliced_error", "verify: (33)")
def _single_derivative(original, score, direction, derivative, reduce_variance=False):
    losses, by_score, by_derivative = original(score, direction, derivative / 2, reduce_variance)
    return losses, by_score, by_derivative / 2


# --- steps and loops -------------------------------------------------------------------------------------------------


@fault("x_t is made with ᾱ² for ᾱ in training", "ddpm.train_step", "verify: a step of Algorithm 1")
def _squared_scale(original, network, schedule, x0, t, noise, weight, **given):
    return original(network, schedule, column(schedule.alpha_bar[t], x0) * x0, t, noise, weight, **given)


@fault("x_t is made with the noise of another example", "ddpm.train_step", "verify: a step of Algorithm 1")
def _noise_of_another(original, network, schedule, x0, t, noise, weight, **given):
    x_t = q_sample(schedule, t, x0, noise[::-1])
    eps_hat, backward = network.vjp(x_t, schedule.alpha_bar[t], schedule.beta_bar[t], **given)
    losses, by_eps_hat = noise_error(noise, eps_hat)
    backward(weight[:, None] / len(x0) * by_eps_hat)
    return losses


@fault("the labels are dropped for all", "ddpm.train", "verify: Algorithm 1")
def _all_labels_dropped(original, *arguments, label_dropout=0.1, **options):
    return original(*arguments, label_dropout=1.0, **options)


@fault("label dropout p drops the share 1 − p of the labels", "ddpm.train", "verify: Algorithm 1")
def _inverted_dropout(original, *arguments, label_dropout=0.1, **options):
    return original(*arguments, label_dropout=1 - label_dropout, **options)


@fault("λ_t is left out of the training loop", "ddpm.train", "verify: Algorithm 1")
def _unweighted_loop(original, *arguments, weights, **options):
    return original(*arguments, weights=np.ones_like(weights), **options)


@fault("a draw of the VAE is μ + σ²ξ", "vae.train_step", "verify: a step of the VAE")
def _variance_for_std(original, network, x, noise, kl_weight=1.0):
    std = np.exp(0.5 * network.encode(x)[1])
    return original(network, x, std * noise, kl_weight)


@fault("x_t of the SDE has std² for std", "sde.VP.perturb", "verify: (31)")
def _perturbed_by_variance(original, self, t, x0, noise):
    return original(self, t, x0, column(self.std(t), x0) * noise)


@fault("λ(t) has lost its factor std²", "sde.score_step", "verify: a step of (33)")
def _unweighted_score(original, network, sde, x0, t, noise, weight, **given):
    return original(network, sde, x0, t, noise, weight / sde.std(t) ** 2, **given)


# --- draws of times --------------------------------------------------------------------------------------------------


@fault(
    "the loss is not corrected for importance sampling", "timestep_sampling.TimestepSampler.draw", "verify: draws of t"
)
def _uncorrected(original, self, n, rng):
    t, weight = original(self, n, rng)
    return t, np.ones_like(weight)


@fault("stratified draws miss step 1 and reach T + 1", "timestep_sampling.stratified_steps", "verify: draws of t")
def _one_too_late(original, T, n, rng):
    return original(T, n, rng) + 1


@fault("uniform draws miss step T", "timestep_sampling.uniform_steps", "verify: draws of t")
def _last_step_missed(original, T, n, rng):
    return rng.integers(1, T, size=n)


@fault("times are uniform in t, not in log-SNR", "sde.TimeSampler.time_at", "verify: draws of training times")
def _even_times(original, self, u):
    return self.t_min + (self.sde.horizon - self.t_min) * u


# --- networks and the optimiser --------------------------------------------------------------------------------------


@fault("time features of the SNR, not of its logarithm", "nn.time_features", "verify: noise network")
def _features_of_snr(original, log_snr, n):
    return original(np.exp(log_snr), n)


@fault("the Wiener gain has the wrong sign", "nn.CategoricalDenoiser._gains", "verify: denoiser of whole numbers")
def _negative_gain(original, self, scale, std):
    return -original(self, scale, std)


@fault("the moving average is the raw weights", "nn.EMA.update", "verify: moving average")
def _raw_weights(original, self, parameters):
    self.average[:] = parameters


@fault("Adam does not correct its moments for their start at 0", "nn.Adam.step", "verify: Adam")
def _uncorrected_moments(original, self, gradient, learning_rate=None):
    self.n_steps += 10**6
    original(self, gradient, learning_rate)


@fault("the learning rate falls from the first step on", "nn.cosine_decay", "verify: learning rate")
def _without_warmup(original, step, n_steps, learning_rate, warmup=0):
    return original(step, n_steps, learning_rate)


@fault("the derivative of SiLU is the sigmoid alone", "fast.silu.silu_and_slope", "verify: SiLU in place")
def _slope_without_curvature(original, z):
    before = z.copy()
    return original(z)[0], 1 / (1 + np.exp(-np.clip(before, -700, 700)))


# --- EM --------------------------------------------------------------------------------------------------------------


@fault("the responsibilities are squared in the loop of EM", "fast.em_statistics._normalise", "verify: EM in one pass")
def _squared_responsibilities(original, joint, weights):
    log_likelihood = original(joint, weights)
    joint **= 2
    joint /= np.maximum(joint.sum(axis=0), 1e-300)  # the sum is 0 for an example of weight 0
    return log_likelihood


@fault("the E-step keeps the mixing weights of the start", "em.em", "verify: the loop of EM")
def _old_weights(original, start, e_step, m_step, *arguments, **options):
    def stale(theta):
        return e_step(Mixture(start.weights, theta.means, theta.covariances))

    return original(start, stale, m_step, *arguments, **options)


@fault("the floor is added to every covariance; eigenvalues are not raised to it", "em.floor_eigenvalues", "verify: EM")
def _added_floor(original, covariances, floor):
    return covariances + floor * np.eye(covariances.shape[-1])


@fault("k-means assigns points to the farthest centre", "em.nearest", "verify: k-means")
def _farthest(original, x, centres):
    return ((x[:, None] - centres) ** 2).sum(axis=2).argmax(axis=1)


@fault("the covariances of EM are taken about the old means", "em.sufficient_statistics", "verify: statistics for EM")
def _about_old_means(original, x, log_resp, mixture, sample_weight=None):
    found = original(x, log_resp, mixture, sample_weight)
    apart = found.means - mixture.means
    return type(found)(found.log_counts, found.means, found.covariances + apart[:, :, None] * apart[:, None])
