"""The problems of the rows about the VAE, (14)."""

from __future__ import annotations

import numpy as np

from scratchgen.conformance import (
    Check,
    check_loss_gradient,
    check_reparameterisation,
    check_training,
    check_training_step,
    check_vae_loss,
)
from scratchgen.equations.nn import mlp_by_hand
from scratchgen.equations.problems import LOG_VARIANCE, MU, NOISE, Q_MEAN, Functions, W, X, waves
from scratchgen.equations.row import both
from scratchgen.nn import Adam
from scratchgen.vae import VAENetwork
from scratchgen.validation import Array

N_STEPS = 12


def _printed_loss(
    x: Array, x_hat: Array, mean: Array, log_variance: Array, log_s2: Array | float, kl_weight: float = 1.0
) -> Array:
    """−log N(x; x̂, s²) + KL(N(μ, σ²)‖N(0, 1)), summed over the dimensions of an example."""
    s2 = np.exp(log_s2)
    fit = (0.5 * np.log(2 * np.pi * s2) + (x - x_hat) ** 2 / (2 * s2)).sum(axis=1)
    return fit + kl_weight * 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)


def loss_and_gradient(f: Functions) -> Check:
    """(14): its mean over draws in closed form, and its derivative with respect to each argument."""

    def value(x: Array, x_hat: Array, mean: Array, log_variance: Array, log_s2: float) -> Array:
        return f("vae.vae_loss_and_gradient")(x, x_hat, mean, log_variance, log_s2)[0]

    arguments = {
        "x_hat": waves(5, 4, shift=1.0),
        "mean": Q_MEAN,
        "log_variance": LOG_VARIANCE,
        "decoder_log_variance": 0.4 * waves(5, 4, shift=2.0),
    }
    checks = []
    for s2 in (NOISE, 0.05):
        checks.append(check_vae_loss(value, X, W, MU, s2, Q_MEAN, LOG_VARIANCE))
        checks.append(check_vae_loss(lambda *a: f("vae.vae_loss")(*a), X, W, MU, s2, Q_MEAN, LOG_VARIANCE))
    for i, name in enumerate(arguments):
        for kl_weight in (1.0, 0.3):

            def one(values: Array, name: str = name, i: int = i, kl_weight: float = kl_weight) -> tuple[Array, Array]:
                losses, gradient = f("vae.vae_loss_and_gradient")(X, **{**arguments, name: values}, kl_weight=kl_weight)
                return losses, gradient[i]

            def losses(values: Array, name: str = name, kl_weight: float = kl_weight) -> Array:
                x_hat, mean, log_variance, log_s2 = {**arguments, name: values}.values()
                return _printed_loss(X, x_hat, mean, log_variance, log_s2, kl_weight)

            checks.append(check_loss_gradient(one, losses, arguments[name], "(14)"))
    return both(*checks, *_masses(f))


def _masses(f: Functions) -> list[Check]:
    """(14) for whole numbers, with derivatives with respect to mean and log-variance of the decoder."""
    levels, log_s2 = np.array([[0.0, 1, 4], [2, 3, 0], [4, 4, 1], [1, 0, 3]]), 0.4 * waves(4, 3, shift=2.0) - 1
    mean, log_variance = waves(4, 2), waves(4, 2, shift=1.0) - 0.5

    def by(x_hat: Array, log_s2: Array, name: str) -> tuple[Array, Array]:
        losses, gradient = f("vae.vae_loss_and_gradient")(
            levels / 2 - 1, x_hat, mean, log_variance, log_s2, kl_weight=0.0, n_levels=5
        )
        return losses, getattr(gradient, name)

    def printed(x_hat: Array, log_s2: Array) -> Array:
        from scipy.special import ndtr

        std = np.exp(log_s2 / 2)
        lower = np.where(levels == 0, -np.inf, (levels / 2 - 1.25 - x_hat) / std)
        upper = np.where(levels == 4, np.inf, (levels / 2 - 0.75 - x_hat) / std)
        return -np.log(ndtr(upper) - ndtr(lower)).sum(axis=1)

    x_hat = 0.8 * waves(4, 3, shift=3.0)
    return [
        check_loss_gradient(lambda at: by(at, log_s2, "x_hat"), lambda at: printed(at, log_s2), x_hat, "(14)"),
        check_loss_gradient(
            lambda at: by(x_hat, at, "decoder_log_variance"), lambda at: printed(x_hat, at), log_s2, "(14)"
        ),
    ]


def reparameterise(f: Functions) -> Check:
    """A draw of every latent of five examples, with noise that differs in every entry."""
    return check_reparameterisation(f("vae.reparameterise"), Q_MEAN, LOG_VARIANCE, 1.5 * waves(5, 3, shift=1.0))


# --- training --------------------------------------------------------------------------------------------------------


def _small_network(n_variances: int = 1) -> VAENetwork:
    """Points in three dimensions, two latents; all parameters differ from 0."""
    network = VAENetwork(3, 2, (3,), rng=0, dtype=np.float64, n_variances=n_variances)
    _put(network, _flat_start(network))
    return network


def _flat_start(network: VAENetwork) -> Array:
    return 0.6 * waves(sum(len(parameters) for parameters, _ in network.parts))


def _put(network: VAENetwork, flat: Array) -> None:
    """Copy a flat vector of parameters into the network: encoder, decoder, log s²."""
    ends = np.cumsum([len(parameters) for parameters, _ in network.parts])[:-1]
    for (parameters, _), values in zip(network.parts, np.split(flat, ends), strict=True):
        parameters[:] = values


def _printed_losses(network: VAENetwork, flat: Array, x: Array, noise: Array, kl_weight: float = 1.0) -> Array:
    """(14) of every example at z = μ + σξ, from the formulas of the networks."""
    n_encoder, n_decoder, _ = (len(parameters) for parameters, _ in network.parts)
    encoder = mlp_by_hand(flat[:n_encoder], network.encoder.sizes)
    decoder = mlp_by_hand(flat[n_encoder : n_encoder + n_decoder], network.decoder.sizes)
    mean, log_variance = np.split(encoder(x), 2, axis=1)
    x_hat = decoder(mean + np.exp(log_variance / 2) * noise)
    return _printed_loss(x, x_hat, mean, log_variance, flat[n_encoder + n_decoder :], kl_weight)


def train_step(f: Functions) -> Check:
    """Every parameter of a small VAE: one decoder variance or one per dimension, KL weight 1 or another."""
    x, noise, checks = waves(5, 3), waves(5, 2, shift=1.0), []
    for n_variances, kl_weight in ((1, 1.0), (3, 0.4)):
        network = _small_network(n_variances)

        def step(flat: Array) -> tuple[Array, Array]:
            _put(network, flat)  # noqa: B023
            losses = f("vae.train_step")(network, x, noise, kl_weight)  # noqa: B023
            return losses, np.concatenate([gradient for _, gradient in network.parts])  # noqa: B023

        def losses(flat: Array) -> Array:
            return _printed_losses(network, flat, x, noise, kl_weight)  # noqa: B023

        checks.append(check_training_step(step, losses, _flat_start(network), 1.0, "(14)"))
    return both(*checks)


def train(f: Functions) -> Check:
    """The loop over batches, with a separate learning rate for log s²."""
    network, n = _small_network(), 4
    batches, noises = waves(N_STEPS, n, 3), waves(N_STEPS, n, 2, shift=1.0)
    start = _flat_start(network)
    rates = np.full(len(start), 0.05)
    rates[-1] *= 3

    def run(flat: Array) -> tuple[Array, Array, Array]:
        _put(network, flat)
        draws = zip(batches, noises, strict=True)
        loop = f("vae.train")(
            network,
            batches[0],
            N_STEPS,
            np.random.default_rng(0),
            lambda x, rng: next(draws),
            adams=[Adam(part) for part, _ in network.parts],
            learning_rate=0.05,
            log_variance_rate=3.0,
            kl_weight=0.7,
        )
        losses = np.array(list(loop))
        return losses, np.concatenate([parameters for parameters, _ in network.parts]), flat

    def loss(flat: Array, step: int) -> float:
        return float(_printed_losses(network, flat, batches[step], noises[step], 0.7).mean())

    return check_training(run, loss, start, N_STEPS, rates, equation="(14)")
