"""The networks of a VAE, and two bounds of log p_θ(x) as functions of given noise."""

from collections.abc import Callable, Sequence

import numpy as np

from scratchgen.nn import MLP
from scratchgen.vae.objective import importance_weighted_bound, log_importance_weight, reparameterise, vae_loss
from scratchgen.validation import (
    RNG,
    Array,
    DTypeLike,
    as_arrays,
    as_count,
    as_generator,
    as_widths,
    check_not_empty,
    check_type,
)


class VAENetwork:
    """Encoder x → (μ, log σ²) of q(z | x), decoder z → x̂, and the decoder's log variance log s².

    Parameters
    ----------
    dimension, n_latents : int
        D and k.
    hidden : sequence of int
        Widths of the encoder's hidden layers; () makes the encoder affine.
    activation, rng, dtype
        As for `MLP`.
    n_variances : int
        1 for one variance s² of all dimensions, D for one variance a dimension.
    n_levels : int, optional
        For whole numbers 0..n_levels−1 scaled to [−1, 1]: the decoder is then a Gaussian observed in bins.
    decoder_hidden : sequence of int, optional
        Widths of the decoder's hidden layers; `hidden` in reverse order if None.

    Attributes
    ----------
    encoder, decoder : MLP
        D → 2k and k → D.
    log_variance, log_variance_gradient : (1,) or (D,)
        log s² and its gradient.

    Raises
    ------
    TypeError, ValueError
        If a width is not a positive integer, or an argument of `MLP` is wrong.

    Examples
    --------
    >>> network = VAENetwork(5, 2, (8,), rng=0)
    >>> network.encoder.sizes, network.decoder.sizes, [len(parameters) for parameters, _ in network.parts]
    ((5, 8, 4), (2, 8, 5), [84, 69, 1])
    """

    def __init__(
        self,
        dimension: int,
        n_latents: int,
        hidden: Sequence[int] = (),
        activation: str = "silu",
        rng: RNG = None,
        dtype: DTypeLike = np.float32,
        n_variances: int = 1,
        n_levels: int | None = None,
        decoder_hidden: Sequence[int] | None = None,
    ) -> None:
        rng = as_generator(rng)
        self.n_latents = n_latents
        self.n_levels = None if n_levels is None else as_count(n_levels, "n_levels", minimum=2)
        n_variances = as_count(n_variances, "n_variances")
        self.encoder, self.decoder = (
            MLP(sizes, activation, rng, dtype) for sizes in self.sizes(dimension, n_latents, hidden, decoder_hidden)
        )
        self.log_variance: Array = np.zeros(n_variances, dtype=dtype)
        self.log_variance_gradient: Array = np.zeros(n_variances, dtype=dtype)

    @staticmethod
    def sizes(
        dimension: int, n_latents: int, hidden: Sequence[int], decoder_hidden: Sequence[int] | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Widths of the layers of encoder and decoder, input first, for the constructor's arguments."""
        D, k, hidden = as_count(dimension, "dimension"), as_count(n_latents, "n_latents"), as_widths(hidden, "hidden")
        back = hidden[::-1] if decoder_hidden is None else as_widths(decoder_hidden, "decoder_hidden")
        return (D, *hidden, 2 * k), (k, *back, D)

    @property
    def parts(self) -> list[tuple[Array, Array]]:
        """Flat (parameters, gradient) of the encoder, the decoder and the log variance."""
        return [
            (self.encoder.parameters, self.encoder.gradient),
            (self.decoder.parameters, self.decoder.gradient),
            (self.log_variance, self.log_variance_gradient),
        ]

    def encode(self, x: Array) -> tuple[Array, Array]:
        """μ and log σ² of q(z | x), each (N, k), for x (N, D)."""
        output = self.encoder(x)
        return output[:, : self.n_latents], output[:, self.n_latents :]


def check_network(network: object) -> None:
    """Raise TypeError unless network is a VAENetwork."""
    check_type(network, VAENetwork, "network")


def elbo(network: VAENetwork, x: Array, noise: Array) -> Array:
    """ELBO of every x, (N,), nats: the mean of −(14) over n draws z = μ + σ ξ.

    Parameters
    ----------
    network : VAENetwork
    x : (N, D)
    noise : (n, N, k) or (n, 1, k)
        n values of ξ: standard normal draws for an unbiased estimate, or nodes of a quadrature rule with equal weights.
    """
    check_network(network)
    x, noise = as_arrays("x (N, D), noise (n, rows, k)", x, noise, D=network.decoder.sizes[-1], k=network.n_latents)
    check_not_empty(noise, "noise")
    if noise.shape[1] not in (1, len(x)):
        raise ValueError(f"noise must have shape (n, N, k) or (n, 1, k) with N = {len(x)}, as x has, got {noise.shape}")
    x, mean, log_variance, decode = _float64(network, x)
    draws, log_s2 = (reparameterise(mean, log_variance, xi) for xi in noise), network.log_variance
    losses = [vae_loss(x, decode(z), mean, log_variance, log_s2, network.n_levels) for z in draws]
    return -np.mean(losses, axis=0)


def iwae(network: VAENetwork, x: Array, noise: Array) -> Array:
    """Importance-weighted bound of log p_θ(x) for every x, (N,), nats, see `importance_weighted_bound`.

    Parameters
    ----------
    network : VAENetwork
    x : (N, D)
    noise : (n, N, k)
        n standard normal draws of ξ; log w is computed at z = μ + σ ξ.
    """
    check_network(network)
    x, noise = as_arrays("x (N, D), noise (n, N, k)", x, noise, D=network.decoder.sizes[-1], k=network.n_latents)
    check_not_empty(noise, "noise")
    x, mean, log_variance, decode = _float64(network, x)
    draws = reparameterise(mean, log_variance, noise)
    log_s2, n_levels = network.log_variance, network.n_levels
    log_weights = [log_importance_weight(x, decode(z), z, mean, log_variance, log_s2, n_levels) for z in draws]
    return importance_weighted_bound(np.array(log_weights))


def _float64(network: VAENetwork, x: Array) -> tuple[Array, Array, Array, Callable[[Array], Array]]:
    """x rounded to the network's dtype, μ, log σ², and the decoder; all values are float64."""
    x = x.astype(network.log_variance.dtype)
    mean, log_variance = (part.astype(np.float64) for part in network.encode(x))
    return x.astype(np.float64), mean, log_variance, lambda z: network.decoder(z).astype(np.float64)
