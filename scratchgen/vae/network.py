"""Encoder and decoder of a VAE, and the gradient of (14) through the reparameterisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from scratchgen.likelihood import (
    LOG_2PI,
    gaussian_log_prob,
    kl_diag_standard,
    levels_of,
    log_bin_mass,
    log_bin_mass_slopes,
)
from scratchgen.network import MLP
from scratchgen.validation import RNG, Array, as_generator, as_widths


class VAENetwork:
    """Encoder x → (μ, log σ²), decoder z → x̂, and the decoder's log variance, with loss and gradient of (14).

    Parameters
    ----------
    dimension, n_latents : int
        D and k.
    hidden : sequence of int
        Hidden layers of the encoder; () makes it affine.
    activation, rng, dtype
        As for `MLP`.
    n_variances : int
        1 for one decoder variance, D for one a dimension.
    n_levels : int, optional
        The data are whole numbers 0..n_levels−1 scaled to [−1, 1], and log p_θ(x | z) is `log_bin_mass`.
    decoder_hidden : sequence of int, optional
        Hidden layers of the decoder; the encoder's in reverse if None.

    Attributes
    ----------
    encoder, decoder : MLP
        D → 2k and k → D.
    log_variance : (1,) or (D,)
        log s² of the decoder; `log_variance_gradient` is its gradient.
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
        hidden = as_widths(hidden, "hidden")
        self.n_latents = n_latents
        self.n_levels = n_levels
        self.encoder = MLP((dimension, *hidden, 2 * n_latents), activation, rng, dtype)
        decoder_hidden = hidden[::-1] if decoder_hidden is None else as_widths(decoder_hidden, "decoder_hidden")
        self.decoder = MLP((n_latents, *decoder_hidden, dimension), activation, rng, dtype)
        self.log_variance: Array = np.zeros(n_variances, dtype=dtype)
        self.log_variance_gradient: Array = np.zeros(n_variances, dtype=dtype)

    @property
    def parts(self) -> list[tuple[Array, Array]]:
        """(parameters, gradient) of encoder, decoder and log variance."""
        return [
            (self.encoder.parameters, self.encoder.gradient),
            (self.decoder.parameters, self.decoder.gradient),
            (self.log_variance, self.log_variance_gradient),
        ]

    def encode(self, x: Array) -> tuple[Array, Array]:
        """μ and log σ² of q(z | x), (N, k) each."""
        output = self.encoder(x)
        return output[:, : self.n_latents], output[:, self.n_latents :]

    def loss(self, x: Array, noise: Array, kl_weight: float = 1.0) -> Array:
        """−ELBO of every example at z = μ + σ · noise, (N,), nats, (14); leaves the mean's gradient in the parts.

        x is (N, D) and noise (N, k): standard normal draws for an unbiased estimate, or rows of a quadrature rule.
        With `kl_weight` other than 1 the KL counts that often, and the result is no longer minus a bound.
        """
        k = self.n_latents
        output = self.encoder.forward(x)
        mean, log_variance = output[:, :k].copy(), output[:, k:].copy()  # copies: sums over rows cost 3x in a view
        std = np.exp(0.5 * log_variance)
        z = mean + std * noise
        x_hat = self.decoder.forward(z)
        reconstruction, grad_x_hat, grad_log_s2 = self._reconstruction(x, x_hat)
        loss = kl_weight * kl_diag_standard(mean, log_variance) + reconstruction

        # Backward, for the mean over examples.
        N = len(x)
        grad_z = self.decoder.backward(grad_x_hat / N)
        weight = kl_weight / N
        grad_mean = grad_z + weight * mean  # ∂z/∂μ = 1;  ∂KL/∂μ = μ
        grad_log_variance = 0.5 * (grad_z * noise * std + weight * np.expm1(log_variance))  # ∂z/∂log σ² = ½ σ ξ
        self.encoder.backward_parameters(np.concatenate([grad_mean, grad_log_variance], axis=1))
        per_dimension = grad_log_s2.sum(axis=0) / N
        self.log_variance_gradient[:] = per_dimension if len(self.log_variance) > 1 else per_dimension.sum()
        return loss

    def log_decoder(self, x: Array, x_hat: Array) -> Array:
        """log p_θ(x | z) at the decoder's mean x̂, (N,), nats: a density, or with `n_levels` a mass."""
        if self.n_levels is None:
            return gaussian_log_prob(x, x_hat, self.log_variance.astype(x_hat.dtype))
        return log_bin_mass(levels_of(x, self.n_levels), x_hat, np.exp(0.5 * self.log_variance), self.n_levels).sum(
            axis=1
        )

    def _reconstruction(self, x: Array, x_hat: Array) -> tuple[Array, Array, Array]:
        """−log p_θ(x | z), (N,), and its derivatives with respect to x̂ and log s² in every dimension, (N, D) each."""
        if self.n_levels is None:  # `gaussian_log_prob` by hand: its squares are what the derivatives need as well
            residual: Array = x_hat - x
            slope: Array = np.exp(-self.log_variance) * residual
            square = slope * residual
            return 0.5 * (square + (LOG_2PI + self.log_variance)).sum(axis=1), slope, 0.5 * (1 - square)
        std = np.exp(0.5 * self.log_variance)
        log_mass, by_mean, by_log_s2 = log_bin_mass_slopes(levels_of(x, self.n_levels), x_hat, std, self.n_levels)
        return -log_mass.sum(axis=1), -by_mean, -by_log_s2
