"""Networks, losses, Adam, moving average and sampler of scratchgen in JAX, to go on with a training there.

An MLP is a plain list of (W (in, out), b (out,)), as `scratchgen.export.layers` returns it.

    carry = from_state(state_dict(model))           # between two steps of model.train(x)
    carry, losses = jax.lax.scan(step, carry, (x0, scale, std, noise, rates))   # each (steps, N, …)
    load_state_dict(model, to_state(carry, state, losses))

The functions are for DDPM and ScoreSDE with prediction="v", and the loss of VAE for real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scratchgen.export import from_layers, layers
from scratchgen.nn import Adam
from scratchgen.schedule import NoiseSchedule

OURS = Adam(np.zeros(0))  # its β₁, β₂ and ε

# --- networks and losses ---------------------------------------------------------------------------------------------


def perceptron(layers: Any, x: jax.Array) -> jax.Array:
    """x → σ(x W₁ + b₁) → … → h W_L + b_L with SiLU."""
    for weight, bias in layers[:-1]:
        x = jax.nn.silu(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def time_features(log_snr: jax.Array, n: int = 8) -> jax.Array:
    """cos and sin of the log-SNR, (N, 1), at n frequencies, (N, 2n)."""
    angles = log_snr * (0.125 * 16.0 ** (np.arange(n) / max(n - 1, 1))).astype(np.float32)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


def predict(layers: Any, y: jax.Array, given: jax.Array, skip: Any, gain: Any, n_coordinate_features: int = 0) -> Any:
    """skip · y + gain · F(y, features(y), given), (N, D), for y = x_t/r, (N, D), and given, (N, G) or (1, G)."""
    points = [y]
    if n_coordinate_features:
        angles = (y[:, :, None] * 2.0 ** jnp.arange(1, n_coordinate_features + 1)).reshape(len(y), -1)
        points += [jnp.cos(angles), jnp.sin(angles)]
    given = jnp.broadcast_to(given, (len(y), given.shape[1]))
    return skip * y + gain * perceptron(layers, jnp.concatenate([*points, given], axis=1))


def eps_hat(layers: Any, x_t: Any, scale: Any, std: Any, n_coordinate_features: int = 0) -> jax.Array:
    """ε̂ of `scratchgen.nn.NoiseNetwork` without labels, (N, D), at levels (N, 1) or (1, 1)."""
    r = jnp.hypot(scale, std)
    return predict(layers, x_t / r, time_features(2 * jnp.log(scale / std)), std / r, scale / r, n_coordinate_features)


def noise_losses(layers: Any, x0: Any, scale: Any, std: Any, noise: Any, n_coordinate_features: int = 0) -> jax.Array:
    """‖ε − ε̂(x_t)‖² of every example, (N,), at x_t = scale · x_0 + std · ε; levels (N, 1): the θ-part of (29), (33)."""
    predicted = eps_hat(layers, scale * x0 + std * noise, scale, std, n_coordinate_features)
    return ((predicted - noise) ** 2).sum(axis=1)


def vae_losses(encoder: Any, decoder: Any, log_variance: Any, x: Any, noise: Any, kl_weight: float = 1.0) -> jax.Array:
    """−log N(x; x̂(z), s²) + KL(N(μ, σ²)‖N(0, I)) of every example, (N,), nats, at z = μ + σ ξ: (14)."""
    mean, log_sigma2 = jnp.split(perceptron(encoder, x), 2, axis=1)
    residual = perceptron(decoder, mean + jnp.exp(0.5 * log_sigma2) * noise) - x
    reconstruction = 0.5 * (jnp.exp(-log_variance) * residual**2 + log_variance + np.log(2 * np.pi)).sum(axis=1)
    kl = 0.5 * (mean**2 + jnp.expm1(log_sigma2) - log_sigma2).sum(axis=1)
    return reconstruction + kl_weight * kl


# --- training --------------------------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """Adam's moments, trees like the parameters, and the number of steps."""

    m: Any
    v: Any
    n: jax.Array


def adam(
    parameters: Any,
    gradient: Any,
    moments: Moments,
    rate: Any,
    beta1: float = OURS.beta1,
    beta2: float = OURS.beta2,
    epsilon: float = OURS.epsilon,
) -> tuple[Any, Moments]:
    """One step of Adam; the new parameters and moments."""
    n = moments.n + 1
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, moments.m, gradient)
    v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, moments.v, gradient)
    c1, c2 = 1 - beta1**n, 1 - beta2**n

    def move(p: Any, m: Any, v: Any) -> Any:
        return p - rate * (m / c1) / (jnp.sqrt(v / c2) + epsilon)

    return jax.tree.map(move, parameters, m, v), Moments(m, v, n)


PARTS = ("network", "average", "exp_avg", "exp_avg_sq")


class Carry(NamedTuple):
    """State of a training of DDPM or ScoreSDE between two steps."""

    network: Any
    average: Any
    moments: Moments


def from_state(state: Mapping[str, np.ndarray]) -> Carry:
    """The state of `scratchgen.export.state_dict` as lists of layers."""
    parts = {name: jax.tree.map(jnp.asarray, layers(state, f"{name}.mlp")) for name in PARTS}
    moments = Moments(parts["exp_avg"], parts["exp_avg_sq"], jnp.asarray(state["step"], dtype=jnp.float32))
    return Carry(parts["network"], parts["average"], moments)


def to_state(carry: Carry, state: Mapping[str, np.ndarray], losses: Any) -> dict[str, np.ndarray]:
    """The state for `scratchgen.export.load_state_dict`, from the state before and the losses of the further steps."""
    network, average, (m, v, n) = jax.tree.map(np.asarray, carry)
    arrays = {"step": np.array(int(n)), "losses_": np.append(state["losses_"], np.asarray(losses, dtype=np.float64))}
    for name, part in zip(PARTS, (network, average, m, v), strict=True):
        arrays |= from_layers(part, f"{name}.mlp")
    return {**state, **arrays}


def step(carry: Carry, batch: Any, ema_decay: float = 0.999, n_coordinate_features: int = 0) -> tuple[Carry, jax.Array]:
    """One step of Algorithm 1 or of denoising score matching, with equal weights, for `jax.lax.scan`.

    batch holds x_0 (N, D), scale and std (N, 1), ε (N, D) and the learning rate.
    """
    x0, scale, std, noise, rate = batch

    def loss(network: Any) -> jax.Array:
        return noise_losses(network, x0, scale, std, noise, n_coordinate_features).mean()

    value, gradient = jax.value_and_grad(loss)(carry.network)
    network, moments = adam(carry.network, gradient, carry.moments, rate)
    decay = jnp.minimum(ema_decay, (1 + moments.n) / (10 + moments.n))
    average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, carry.average, network)
    return Carry(network, average, moments), value


# --- sampling --------------------------------------------------------------------------------------------------------


def ancestral_sample(
    layers: Any, schedule: NoiseSchedule, variance: np.ndarray, x_T: Any, noise: Any, n_coordinate_features: int = 0
) -> jax.Array:
    """Algorithm 2: x_0, (N, D), from x_T, (N, D), and the noise of the steps T, …, 1, (T, N, D)."""
    t = np.arange(schedule.T, 0, -1)
    scale, std = schedule.alpha_bar[t], schedule.beta_bar[t]
    tables = np.stack([scale, std, schedule.alpha[t], schedule.beta[t] ** 2 / std, variance[t] ** 0.5], axis=1)
    tables = tables[:, :, None, None].astype(np.float32)

    def body(x: Any, given: Any) -> tuple[Any, None]:
        (scale, std, alpha, weight, sigma), z = given
        predicted = eps_hat(layers, x, scale, std, n_coordinate_features)
        return (x - weight * predicted) / alpha + sigma * z, None

    return jax.lax.scan(body, x_T, (jnp.asarray(tables), noise))[0]
