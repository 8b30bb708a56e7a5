"""Training on (14): one step with the reparameterised gradient, and the training loop."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from scratchgen.augmentation import Copies, check_copies
from scratchgen.nn import Adam, check_adam, check_loop, check_step, check_update, cosine_decay
from scratchgen.quadrature import sigma_points
from scratchgen.vae.network import VAENetwork, check_network
from scratchgen.vae.objective import reparameterise, vae_loss_and_gradient
from scratchgen.validation import Array, as_arrays, as_count, as_number, check_callable, check_not_empty, check_rng

# Learning rate of log s² as a multiple of the networks' rate.  At a multiple of 1 log s² converges too slowly: after
# 2000 steps on the digits s² was still 28 % above its optimum E‖x − x̂(z)‖²/D.
LOG_VARIANCE_RATE = 10.0

Draw = Callable[[Array, np.random.Generator], tuple[Array, Array]]  # (x (N, D), rng) → batch (n, D), noise (n, k)


def train_step(network: VAENetwork, x: Array, noise: Array, kl_weight: float = 1.0) -> Array:
    """Loss (14) of every example at z = μ + σ ξ, (N,), nats; the gradient of the mean loss goes to `network.parts`.

    Parameters
    ----------
    network : VAENetwork
    x : (N, D)
    noise : (N, k)
        ξ: standard normal draws for an unbiased estimate, or nodes of a quadrature rule.
    kl_weight : float
        Factor of the KL.

    Returns
    -------
    losses : (N,)
    """
    check_network(network)
    x, noise = as_arrays("x (N, D), noise (N, k)", x, noise, k=network.n_latents)
    N, k = noise.shape
    output, encoder_backward = network.encoder.vjp(x)
    mean, log_variance = output[:, :k].copy(), output[:, k:].copy()  # sums over rows of a view take 1.2x as long
    x_hat, decoder_backward = network.decoder.vjp(reparameterise(mean, log_variance, noise))
    log_s2, n_levels = network.log_variance, network.n_levels
    losses, by = vae_loss_and_gradient(x, x_hat, mean, log_variance, log_s2, kl_weight, n_levels)  # (14)
    by_z = decoder_backward(by.x_hat / N, inputs=True)
    assert by_z is not None  # inputs=True
    by_mean = by_z + by.mean / N  # ∂z/∂μ = 1
    std = np.exp(0.5 * log_variance)
    by_log_variance = 0.5 * (by_z * noise * std) + by.log_variance / N  # ∂z/∂log σ² = ½ σ ξ
    encoder_backward(np.concatenate([by_mean, by_log_variance], axis=1))
    by_log_s2 = by.decoder_log_variance.sum(axis=0) / N
    network.log_variance_gradient[:] = by_log_s2 if len(log_s2) > 1 else by_log_s2.sum()
    return losses


def train(
    network: VAENetwork,
    x: Array,
    n_steps: int,
    rng: np.random.Generator,
    draw: Draw,
    *,
    adams: Sequence[Adam],
    learning_rate: float = 2e-3,
    log_variance_rate: float = LOG_VARIANCE_RATE,
    kl_weight: float = 1.0,
) -> Iterator[float]:
    """Minimise (14) by Adam with a learning rate that falls to 0 along half a cosine.

    Between two steps network, adams and rng hold the whole state.  A loop that is started with them goes on with step
    `adams[0].n_steps` + 1 as if there had been one loop.

    Parameters
    ----------
    network : VAENetwork
        Trained in place.
    x : (N, D)
        Data in the network's dtype.
    n_steps : int
        Number of gradient steps, with those that `adams` have done before.
    rng : Generator
        Source of the batches and of ξ.
    draw : callable
        Function of x and rng that returns the batch, (n, D), and its noise ξ, (n, k): `random_batch` or `sigma_batch`
        with their further arguments bound.
    adams : sequence of Adam
        The optimisers of the parameters of `network.parts`: encoder, decoder, log s².
    learning_rate : float
        Initial learning rate of encoder and decoder; that of `adams` is not used.
    log_variance_rate : float
        Learning rate of log s² as a multiple of `learning_rate`; 0 keeps s² fixed.
    kl_weight : float
        Factor of the KL.

    Yields
    ------
    loss : float
        Mean loss of the batch of each step, nats.

    Raises
    ------
    ArithmeticError
        If the loss or a gradient is NaN or infinite, or the update overflows; the network is that of the step before.
    """
    check_network(network)
    check_rng(rng)
    check_callable(draw, "draw", "(x, rng) → batch (n, D), noise (n, k)")
    x = as_arrays("x (N, D)", x, D=network.decoder.sizes[-1])
    check_not_empty(x, "x")
    check_loop(n_steps, None, learning_rate)
    log_variance_rate = as_number(log_variance_rate, "log_variance_rate", low=0.0)
    as_number(learning_rate * log_variance_rate, "learning_rate * log_variance_rate")
    kl_weight = as_number(kl_weight, "kl_weight", low=0.0)
    parameters, gradients = zip(*network.parts, strict=True)
    if not isinstance(adams, Sequence) or len(adams) != len(parameters):
        raise ValueError(f"adams must be one Adam for each of network.parts, got {adams!r:.60}; pass three")
    for i, adam in enumerate(adams):
        check_adam(adam, parameters[i], f"adams[{i}]")
    updates = [(part, part.copy()) for part in parameters]
    for step in range(adams[0].n_steps, n_steps):
        batch, noise = draw(x, rng)
        with np.errstate(over="ignore", invalid="ignore"):  # `check_step` and `check_update` find overflow
            loss = float(train_step(network, batch, noise, kl_weight).mean())
            check_step(step, loss, *gradients)
            for part, before in updates:
                before[:] = part
            rate = cosine_decay(step, n_steps, learning_rate)
            for adam, gradient, factor in zip(adams, gradients, (1, 1, log_variance_rate), strict=True):
                adam.step(gradient, factor * rate)
            check_update(step, updates)
        yield loss


def random_batch(
    x: Array,
    rng: np.random.Generator,
    n_latents: int,
    batch_size: int | None = None,
    augment: Copies | None = None,
) -> tuple[Array, Array]:
    """Draw a batch of x, (n, D), and standard normal noise, (n, k).

    Parameters
    ----------
    x : (N, D)
    rng : Generator
    n_latents : int
        k.
    batch_size : int, optional
        Number of rows, drawn with replacement; None takes all rows.
    augment : callable, optional
        Function that draws copies of rows, as for `scratchgen.ddpm.train`; the numbers are not told to a VAE.
    """
    check_rng(rng)
    x, n_latents = as_arrays("x (N, D)", x), as_count(n_latents, "n_latents")
    check_not_empty(x, "x")
    check_copies(augment)
    rows = np.arange(len(x)) if batch_size is None else rng.integers(len(x), size=as_count(batch_size, "batch_size"))
    if augment is not None:
        x, _ = augment(rows, rng)
    elif batch_size is not None:
        x = x.take(rows, axis=0)
    return x, rng.standard_normal((len(x), n_latents), dtype=x.dtype)


def sigma_batch(x: Array, rng: np.random.Generator, n_latents: int) -> tuple[Array, Array]:
    """All rows of x combined with each of the 2k `sigma_points`, (2kN, D) and (2kN, k).

    The mean over these points is the exact expectation over ξ if (14) is quadratic in z, as for affine decoders.
    """
    n_latents = as_count(n_latents, "n_latents")
    check_rng(rng)
    x = as_arrays("x (N, D)", x)
    points = sigma_points(n_latents)
    return np.tile(x, (len(points), 1)), np.repeat(points, len(x), axis=0).astype(x.dtype)
