"""Wing one: mistakes in losses with their gradients, steps, loops, draws of times, and the optimiser."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from scratchgen.ddpm import ddim_step, loss_weight, predict_noise, step_loss, train, train_step
from scratchgen.em import (
    categorical_m_step_from_statistics,
    covariance_maximum,
    factor_analysis_em_step,
    sufficient_statistics,
)
from scratchgen.em.algorithm import Iterate
from scratchgen.fast.em_statistics import expected_statistics
from scratchgen.museum.exhibit import exhibit
from scratchgen.nn import EMA, Adam, cosine_decay
from scratchgen.sde import (
    TimeSampler,
    denoising_error,
    diffusion_loss,
    euler_step,
    langevin_step,
    score_and_divergence,
    score_step,
    sliced_step,
)
from scratchgen.timestep_sampling import TimestepSampler
from scratchgen.vae import vae_loss_and_gradient
from scratchgen.validation import column

# --- losses and their gradients --------------------------------------------------------------------------------------


@exhibit("the gradient of a square without its factor 2", "mutation audit", "ddpm.noise_error", "check_loss_gradient")
def _gradient_without_two(noise, eps_hat):
    return ((eps_hat - noise) ** 2).sum(axis=1), eps_hat - noise


@exhibit(
    "the squared error is averaged over the dimensions of an example",
    "lucidrains/denoising-diffusion-pytorch, p_losses",
    "ddpm.noise_error",
    "check_loss_gradient",
)
def _mean_error(noise, eps_hat):
    return ((eps_hat - noise) ** 2).mean(axis=1), 2 * (eps_hat - noise) / noise.shape[1]


@exhibit("the target of (33) is −ε, without 1/std", "mutation audit", "sde.denoising_error", "check_loss_gradient")
def _target_without_std(score, noise, std):
    return denoising_error(score, noise, 1.0)


@exhibit(
    "the KL has no gradient with respect to log σ²",
    "mutation audit",
    "vae.vae_loss_and_gradient",
    "check_loss_gradient",
)
def _log_variance_forgotten(x, x_hat, mean, log_variance, decoder_log_variance, kl_weight=1.0, n_levels=None):
    losses, by = vae_loss_and_gradient(x, x_hat, mean, log_variance, decoder_log_variance, kl_weight, n_levels)
    return losses, by._replace(log_variance=0 * log_variance)


@exhibit(
    "the weight of the bound, with twice the factor", "the deck as printed", "ddpm.loss_weight", "check_loss_weights"
)
def _printed_weight(schedule, weighting, variance="beta"):
    weight = loss_weight(schedule, weighting, variance)
    return 2 * weight if weighting == "bound" else weight


# --- steps and loops -------------------------------------------------------------------------------------------------


@exhibit("x_t has ᾱ² for ᾱ", "huggingface/diffusers, naming", "ddpm.train_step", "check_training_step")
def _squared_scale(network, schedule, x0, t, noise, weight, **given):
    return train_step(network, schedule, column(schedule.alpha_bar[t], x0) * x0, t, noise, weight, **given)


@exhibit("the weights λ are left out of the gradient", "mutation audit", "sde.score_step", "check_training_step")
def _unweighted_step(network, sde, x0, t, noise, weight, **given):
    return score_step(network, sde, x0, t, noise, np.ones_like(weight), **given)


@exhibit("the derivative belongs to a shorter direction", "mutation audit", "sde.sliced_step", "check_training_step")
def _short_directions(network, sde, x0, t, noise, weight, directions, reduce_variance=False, **given):
    return sliced_step(network, sde, x0, t, noise, weight, 0.5 * directions, reduce_variance, **given)


@exhibit(
    "the gradient of log σ² without its ½, as if the output were log σ",
    "mutation audit",
    "vae.train_step",
    "check_training_step",
)
def _whole_log_variance_gradient(network, x, noise, kl_weight=1.0):
    output, encoder_backward = network.encoder.vjp(x)
    mean, log_variance = np.split(output, 2, axis=1)
    std, N = np.exp(0.5 * log_variance), len(x)
    x_hat, decoder_backward = network.decoder.vjp(mean + std * noise)
    losses, by = vae_loss_and_gradient(x, x_hat, mean, log_variance, network.log_variance, kl_weight)
    by_z = decoder_backward(by.x_hat / N, inputs=True)
    by_log_variance = by_z * noise * std + 2 * by.log_variance / N
    encoder_backward(np.concatenate([by_z + by.mean / N, by_log_variance], axis=1))
    by_log_s2 = by.decoder_log_variance.sum(axis=0) / N
    network.log_variance_gradient[:] = by_log_s2 if len(by_log_s2) == len(network.log_variance) else by_log_s2.sum()
    return losses


@exhibit("the moving average is never updated", "mutation audit", "ddpm.train", "check_training")
def _stale_average(*arguments, ema, **options):
    return train(*arguments, ema=EMA(ema.average.copy(), ema.decay), **options)


@exhibit(
    "every M-step uses the responsibilities of the E-step before the last", "mutation audit", "em.em", "check_em_loop"
)
def _stale_responsibilities(start, e_step, m_step, tol=0.0, max_iter=100, log_prior=lambda theta: 0.0):
    theta, bounds, before = start, [], e_step(start)[0]
    for _ in range(max_iter + 1):
        expected, elbo = e_step(theta)
        bounds.append(float(np.mean(elbo)))
        yield Iterate(theta, expected, bounds, False)
        theta, before = m_step(before, theta), expected


@exhibit("the responsibilities are squared", "mutation audit", "em.sufficient_statistics", "check_statistics")
def _squared_responsibilities(x, log_resp, mixture, sample_weight=None):
    return sufficient_statistics(x, 2 * log_resp, mixture, sample_weight)


@exhibit(
    "the log-likelihood is a sum over the examples, not a mean",
    "mutation audit",
    "fast.em_statistics.expected_statistics",
    "check_statistics",
)
def _summed_log_likelihood(x, mixture, diagonal=False, sample_weight=None):
    statistics, log_likelihood = expected_statistics(x, mixture, diagonal, sample_weight)
    return statistics, len(x) * log_likelihood


@exhibit("the pseudo-counts are left out", "mutation audit", "em.categorical_m_step_from_statistics", "check_table_em")
def _tables_without_prior(statistics, pseudo_counts=0.0):
    return categorical_m_step_from_statistics(statistics)


@exhibit(
    "one noise variance for all dimensions",
    "mutation audit",
    "em.factor_analysis_em_step",
    "check_factor_analysis_step",
)
def _common_noise(covariance, W, noise_variance, noise_floor=0.0):
    new_W, left = factor_analysis_em_step(covariance, W, noise_variance, noise_floor)
    return new_W, np.full_like(left, left.mean())


@exhibit(
    "the prior of the covariances is left out", "mutation audit", "em.covariance_maximum", "check_covariance_types"
)
def _without_prior(spread, counts, covariance_type="full", floor=0.0, prior=None):
    return covariance_maximum(spread, counts, covariance_type, floor)


@exhibit("points join the farthest centre", "mutation audit", "em.kmeans", "check_kmeans")
def _farthest_centre(x, centres, max_iter=300, sample_weight=None):
    for _ in range(max_iter):
        labels = ((x[:, None] - centres) ** 2).sum(axis=2).argmax(axis=1)
        centres = np.array([x[labels == k].mean(axis=0) if (labels == k).any() else c for k, c in enumerate(centres)])
    return centres


# --- draws of times --------------------------------------------------------------------------------------------------


@exhibit(
    "the loss is not corrected for the importance sampling of steps",
    "mutation audit",
    "timestep_sampling.TimestepSampler.draw",
    "check_step_draws",
)
def _uncorrected_draws(self, n, rng):
    return TimestepSampler.draw(self, n, rng)[0], np.ones(n)


@exhibit("step 1 is never drawn", "mutation audit", "timestep_sampling.TimestepSampler.draw", "check_step_draws")
def _without_first_step(self, n, rng):
    t, weight = TimestepSampler.draw(self, n, rng)
    return np.maximum(t, 2), weight


@exhibit("times are uniform in the square of the clock", "mutation audit", "sde.TimeSampler.draw", "check_time_draws")
def _bent_clock(self, n, rng):
    cells, _, weight = TimeSampler.draw(self, n, rng)
    u = (np.arange(n) + rng.random(n)) / n
    return cells, self.time_at(u**2), weight


# --- steps of samplers, bounds of networks ---------------------------------------------------------------------------


@exhibit(
    "guidance w is used as w + 1, the convention of Ho and Salimans",
    "Ho and Salimans 2022, (6)",
    "ddpm.predict_noise",
    "check_predicted_noise",
)
def _guided_too_far(network, schedule, x_t, t, labels=None, guidance=1.0, prediction=None, clip=False):
    return predict_noise(network, schedule, x_t, t, labels, guidance + 1, prediction, clip)


@exhibit("ε̂ is evaluated one step late", "mutation audit", "ddpm.ddim_sampler", "check_ddim_sampler")
def _late_network(schedule, eps_hat, x_T, rng=None, eta=0.0):
    x = x_T
    yield schedule.T, x
    for t in range(schedule.T, 0, -1):
        x = ddim_step(schedule, t, t - 1, x, eps_hat(x, t - 1), rng.standard_normal(x.shape), eta)
        yield t - 1, x


@exhibit("the KL of a step without the ½ of its distance", "mutation audit", "ddpm.step_loss", "check_bound_terms")
def _whole_distance(schedule, t, x0, x_t, eps_hat, variance="beta"):
    at_mean = step_loss(schedule, t, x0, x_t, lambda x, t: 0 * x, variance)
    return 2 * step_loss(schedule, t, x0, x_t, eps_hat, variance) - at_mean


@exhibit("√δ for √(2δ)", "mutation audit", "sde.langevin_step", "check_langevin_step")
def _half_noise(sde, score, x, t, snr=0.16):
    mean, std = langevin_step(sde, score, x, t, snr)
    return mean, std / 2**0.5


@exhibit("Heun's method with one slope per step", "mutation audit", "sde.heun", "check_heun")
def _euler_for_heun(sde, score, x, times):
    yield float(times[0]), x
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x, _ = euler_step(sde, score(x, t), x, t, s, 0.0)
        yield s, x


@exhibit("Hutchinson's probes are summed", "mutation audit", "sde.score_and_divergence", "check_divergence")
def _summed_probes(network, sde, x, t, probes=None, labels=None):
    score, divergence = score_and_divergence(network, sde, x, t, probes, labels)
    return score, divergence * (1 if probes is None else len(probes))


@exhibit("the integral over log-SNR without its ½", "mutation audit", "sde.diffusion_loss", "check_continuous_bound")
def _whole_integral_over_snr(network, sde, x0, t, noise, t_min):
    return 2 * diffusion_loss(network, sde, x0, t, noise, t_min)


# --- the optimiser ---------------------------------------------------------------------------------------------------


@exhibit("moments are not corrected for their start at 0", "mutation audit", "nn.Adam", "check_adam")
class _UncorrectedAdam(Adam):
    def step(self, gradient, learning_rate=None):
        rate = self.learning_rate if learning_rate is None else learning_rate
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        self.parameters *= 1 - rate * self.weight_decay
        self.parameters -= rate * self.m / (np.sqrt(self.v) + self.epsilon)


@exhibit("decay and 1 − decay are swapped", "mutation audit", "nn.EMA", "check_moving_average")
class _SwappedEMA(EMA):
    def update(self, parameters):
        self.n_updates += 1
        decay = 1 - min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.average *= decay
        self.average += (1 - decay) * parameters


@exhibit("the learning rate does not rise first", "mutation audit", "nn.cosine_decay", "check_learning_rate")
def _without_warmup(step, n_steps, learning_rate, warmup=0):
    return cosine_decay(step, n_steps, learning_rate)
