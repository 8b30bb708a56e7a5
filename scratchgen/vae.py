"""Equations (11)-(14): the Gaussian VAE, with the reparameterised gradient written by hand.

    −ELBO(x) = E_{z ~ q(z|x)}[−log p_θ(x | z)] + KL(q(z | x)‖N(0, I)),   q(z | x) = N(μ(x), diag σ²(x)),  (13)

where z = μ + σ ξ with ξ ~ N(0, I) makes one draw an unbiased, differentiable estimate, (14).  Sums run over
dimensions and means over examples; −log p_θ(x | z) is ‖x − x̂‖²/(2s²) + (D/2) log 2πs² with the decoder's variance s²:
averaging the squares over D instead, as many implementations do, is a decoder of variance D/2 in disguise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from scratchgen.estimator import Progress, StandardizedEstimator
from scratchgen.likelihood import gaussian_log_prob, kl_diag_standard, log_bin_mass, log_bin_mass_slopes, logsumexp
from scratchgen.network import MLP
from scratchgen.optimizer import Adam, cosine_decay
from scratchgen.quadrature import sigma_points
from scratchgen.validation import RNG, Array, as_choice, as_count, as_generator, as_number, as_samples
from scratchgen.variational import elbo_split_table

# One number that every example pulls the same way.  At the networks' own learning rate it lags them: after 2000 steps
# on digits the decoder variance was still 51 % above the mean squared error that it should equal.
LOG_VARIANCE_RATE = 10


def vae_loss_table(p_x: Array, q: Array, decoder: Array, prior: Array) -> float:
    """E_p[−E_q log p_θ(x | z) + KL(q(z | x)‖q(z))] of tables, nats, (13): the joint KL (12) plus H(p).

    p_x (X,), q[x, z] = q(z | x), decoder[x, z] = p_θ(x | z), prior (Z,).  Where the deck drops log p(x) as
    irrelevant, the value changes by the entropy H(p); the minimiser does not.
    """
    return -float(p_x @ elbo_split_table(decoder, prior, q))


def vae_loss(x: Array, x_hat: Array, mean: Array, log_variance: Array, decoder_log_variance: Array | float) -> Array:
    """−log N(x; x̂, s² I) + KL(N(μ, diag σ²)‖N(0, I)) of every example, (N,), nats, (14).

    One draw of z ~ q(z | x), on which the deck's (14) is silent, makes it an unbiased estimate of (13), not its value.

    Parameters
    ----------
    x, x_hat : (N, D)
        Data and the decoder's mean at the drawn z.
    mean, log_variance : (N, k)
        μ and log σ² of q(z | x).
    decoder_log_variance : float, (D,) or (N, D)
        log s².  With s² = ½ and without its constant the first term is the plain sum of squares.
    """
    return kl_diag_standard(mean, log_variance) - gaussian_log_prob(x, x_hat, decoder_log_variance)


def importance_weighted_bound(log_weights: Array) -> Array:
    """log (1/n) Σ_i w_i over the first axis, nats, for log w_i = log p_θ(x, z_i)/q(z_i | x) (Burda et al. 2016).

    The ELBO's draws at n = 1; its mean rises to log p_θ(x) with n.  exp of it is an unbiased estimate of p_θ(x).
    """
    return logsumexp(log_weights, axis=0) - np.log(len(log_weights))


class VAENetwork:
    """Encoder x → (μ, log σ²), decoder z → x̂, and the decoder's log variance, with loss and gradient of (14).

    Parameters
    ----------
    dimension, n_latents : int
        D and k.
    hidden : sequence of int
        Hidden layers of the encoder, and reversed of the decoder; () makes both linear.
    activation, rng, dtype
        As for `MLP`.
    n_variances : int
        1 for one decoder variance, D for one a dimension.
    n_levels : int, optional
        The data are whole numbers 0..n_levels−1 scaled to [−1, 1], and log p_θ(x | z) is `log_bin_mass`.

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
    ) -> None:
        rng = as_generator(rng)
        self.n_latents = n_latents
        self.n_levels = n_levels
        self.encoder = MLP((dimension, *hidden, 2 * n_latents), activation, rng, dtype)
        self.decoder = MLP((n_latents, *reversed(hidden), dimension), activation, rng, dtype)
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

    def loss(self, x: Array, noise: Array) -> Array:
        """−ELBO of every example at z = μ + σ · noise, (N,), nats, (14); leaves the mean's gradient in the parts.

        x is (N, D) and noise (N, k): standard normal draws for an unbiased estimate, or rows of a quadrature rule.
        """
        k = self.n_latents
        output = self.encoder.forward(x)
        mean, log_variance = output[:, :k], output[:, k:]
        std = np.exp(0.5 * log_variance)
        z = mean + std * noise
        x_hat = self.decoder.forward(z)
        reconstruction, grad_x_hat, grad_log_s2 = self._reconstruction(x, x_hat)
        loss = kl_diag_standard(mean, log_variance) + reconstruction

        # Backward, for the mean over examples.
        N = len(x)
        grad_z = self.decoder.backward(grad_x_hat / N)
        grad_mean = grad_z + mean / N  # ∂z/∂μ = 1;  ∂KL/∂μ = μ
        grad_log_variance = 0.5 * (grad_z * noise * std + np.expm1(log_variance) / N)  # ∂z/∂log σ² = ½ σ ξ
        self.encoder.backward(np.concatenate([grad_mean, grad_log_variance], axis=1))
        per_dimension = grad_log_s2.sum(axis=0) / N
        self.log_variance_gradient[:] = per_dimension if len(self.log_variance) > 1 else per_dimension.sum()
        return loss

    def log_decoder(self, x: Array, x_hat: Array) -> Array:
        """log p_θ(x | z) at the decoder's mean x̂, (N,), nats: a density, or with `n_levels` a mass."""
        if self.n_levels is None:
            return gaussian_log_prob(x, x_hat, self.log_variance.astype(x_hat.dtype))
        return log_bin_mass(self._levels(x), x_hat, np.exp(0.5 * self.log_variance), self.n_levels).sum(axis=1)

    def _reconstruction(self, x: Array, x_hat: Array) -> tuple[Array, Array, Array]:
        """−log p_θ(x | z), (N,), and its derivatives with respect to x̂ and log s² in every dimension, (N, D) each."""
        if self.n_levels is None:
            precision, residual = np.exp(-self.log_variance), x_hat - x
            return -self.log_decoder(x, x_hat), precision * residual, 0.5 * (1 - precision * residual**2)
        std = np.exp(0.5 * self.log_variance)
        log_mass, by_mean, by_log_s2 = log_bin_mass_slopes(self._levels(x), x_hat, std, self.n_levels)
        return -log_mass.sum(axis=1), -by_mean, -by_log_s2

    def _levels(self, x: Array) -> Array:
        """Whole numbers from their places in [−1, 1]."""
        return np.rint(0.5 * ((self.n_levels or 0) - 1) * (x + 1))


class VAE(StandardizedEstimator):
    """Variational autoencoder with diagonal Gaussian posterior and a Gaussian decoder, as it is or in bins.

    With hidden=() both networks are linear, and the best attainable mean ELBO is the maximum likelihood of PPCA, which
    grades the training exactly.

    Parameters
    ----------
    n_latents : int
        k.
    hidden : sequence of int
        Hidden layers of the encoder, and reversed of the decoder.
    activation : {"silu", "tanh", "identity"}
    decoder_variance : float, None or "diag"
        s², in the model's units squared; None learns one, "diag" one a dimension (optimum: the mean squared error).
    n_levels : int, optional
        The data are whole numbers 0..n_levels−1: the decoder is a Gaussian in bins, and likelihoods are masses, so that
        −elbo/(D ln 2) is in bits per dimension of the numbers themselves.
    latent_noise : {"random", "sigma"}
        ξ of training: fresh draws, or all 2k `sigma_points`, which make the loss of a linear VAE exact.
    n_steps, batch_size, learning_rate : int, int or None, float
        Of Adam, whose rate falls to 0 along half a cosine; batch_size None uses all of x every step.
    standardize : bool
        Work on (x − mean)/scale instead of x; see `StandardizedEstimator`.
    dtype : {"float32", "float64"}
    rng : int, Generator or None
        Of initial weights and training.

    Attributes
    ----------
    network_ : VAENetwork
    decoder_variance_ : float, or (D,) for "diag"
        s² in squared units of the data.
    losses_ : (steps,)
        Mean −ELBO of the batches, nats, in the data's units.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((200, 3)) * [3.0, 1.0, 1.0]
    >>> from scratchgen import PPCA
    >>> model = VAE(1, (), latent_noise="sigma", batch_size=None, learning_rate=0.01, dtype="float64", rng=0)
    >>> bool(abs(model.fit(x).elbo(x).mean() - PPCA(1).fit(x).score(x)) < 1e-5)
    True
    """

    _fitted: ClassVar[tuple[str, ...]] = ("mean_", "scale_", "encoder_", "decoder_", "log_variance_", "losses_")

    def __init__(
        self,
        n_latents: int = 2,
        hidden: Sequence[int] = (128,),
        activation: str = "silu",
        decoder_variance: float | str | None = None,
        n_levels: int | None = None,
        latent_noise: str = "random",
        n_steps: int = 3000,
        batch_size: int | None = 128,
        learning_rate: float = 2e-3,
        standardize: bool = True,
        dtype: str = "float32",
        rng: RNG = None,
    ) -> None:
        self.n_latents = n_latents
        self.hidden = hidden
        self.activation = activation
        self.decoder_variance = decoder_variance
        self.n_levels = n_levels
        self.latent_noise = latent_noise
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.standardize = standardize
        self.dtype = dtype
        self.rng = rng

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Maximise the ELBO by Adam; yields after every step with loss = −ELBO of the batch, nats an example."""
        x = as_samples(x)
        k, n_steps = as_count(self.n_latents, "n_latents"), as_count(self.n_steps, "n_steps")
        batch_size = None if self.batch_size is None else as_count(self.batch_size, "batch_size")
        learning_rate = as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True)
        as_choice(self.latent_noise, "latent_noise", ("random", "sigma"))
        as_choice(self.dtype, "dtype", ("float32", "float64"))
        rng = as_generator(self.rng)
        learned = self.decoder_variance in (None, "diag")
        variance = as_number(1.0 if learned else self.decoder_variance, "decoder_variance", low=0.0, open_low=True)
        mean, scale = self._measure_units(x)
        self._build(x.shape[1], rng)
        self.network_.log_variance[:] = np.log(variance)
        self.mean_, self.scale_, self.n_features_in_, self.losses_ = mean, scale, x.shape[1], np.zeros(0)
        data = self.to_model(x).astype(self.dtype)
        factors = (1, 1, LOG_VARIANCE_RATE if learned else 0)
        optimizers = [
            (Adam(parameters), gradient, factor)
            for (parameters, gradient), factor in zip(self.network_.parts, factors, strict=True)
        ]
        points = sigma_points(k).astype(data.dtype)
        losses = np.empty(n_steps)
        for step in range(n_steps):
            batch = data if batch_size is None else data.take(rng.integers(len(data), size=batch_size), axis=0)
            if self.latent_noise == "sigma":
                noise, batch = np.repeat(points, len(batch), axis=0), np.tile(batch, (len(points), 1))
            else:
                noise = rng.standard_normal((len(batch), k), dtype=data.dtype)
            losses[step] = float(self.network_.loss(batch, noise).mean()) + self._log_volume
            rate = cosine_decay(step, n_steps, learning_rate)
            for adam, gradient, factor in optimizers:
                adam.step(gradient, factor * rate)
            self.losses_ = losses[: step + 1]
            yield Progress(step + 1, n_steps, float(losses[step]))

    def _build(self, dimension: int, rng: RNG = None) -> None:
        n_variances = dimension if self.decoder_variance == "diag" else 1
        self.network_ = VAENetwork(
            dimension, self.n_latents, self.hidden, self.activation, rng, self.dtype, n_variances, self.n_levels
        )
        self.encoder_, self.decoder_ = self.network_.encoder.parameters, self.network_.decoder.parameters
        self.log_variance_ = self.network_.log_variance

    def _measure_units(self, x: Array) -> tuple[Array, float]:
        if self.n_levels is None:
            return super()._measure_units(x)
        n_levels = as_count(self.n_levels, "n_levels", minimum=2)
        if ((x != np.rint(x)) | (x < 0) | (x >= n_levels)).any():
            raise ValueError(
                f"x must hold whole numbers in 0..{n_levels - 1}, as n_levels says; n_levels=None takes reals"
            )
        half = 0.5 * (n_levels - 1)  # levels to [−1, 1]
        return np.full(x.shape[1], half), half

    @property
    def _log_volume(self) -> float:
        """log |∂x/∂(model units)|; masses have no units."""
        return super()._log_volume if self.n_levels is None else 0.0

    def _restore(self) -> None:
        saved = self.encoder_, self.decoder_, self.log_variance_
        self._build(self.n_features_in_)
        self.encoder_[:], self.decoder_[:], self.log_variance_[:] = saved

    @property
    def decoder_variance_(self) -> float | Array:
        """s² of the fitted decoder, in squared units of the data: a number, or (D,) if each dimension has its own."""
        self._require_fitted()
        variances = np.exp(self.log_variance_, dtype=np.float64) * self.scale_**2
        return float(variances[0]) if len(variances) == 1 else variances

    def encode(self, x: ArrayLike) -> tuple[Array, Array]:
        """Mean and variance of q(z | x), (N, k) each."""
        _, mean, log_variance = self._posterior(x)
        return mean, np.exp(log_variance)

    def decode(self, z: ArrayLike) -> Array:
        """Mean of p_θ(x | z), (N, D), in data units."""
        self._require_fitted()
        z = as_samples(z, "z", dimension=self.n_latents, n_min=0)
        return self.to_data(self.network_.decoder(z.astype(self.dtype)))

    def reconstruct(self, x: ArrayLike) -> Array:
        """The decoder's mean at the posterior's mean, (N, D)."""
        return self.decode(self.encode(x)[0])

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ(x), (n, D): z ~ N(0, I), then x ~ N(decode(z), s² I).  For means use `decode`.

        With `n_levels` the draw falls into the bin of a whole number.
        """
        self._require_fitted()
        rng = as_generator(rng)
        means = self.decode(rng.standard_normal((as_count(n, "n", minimum=0), self.n_latents)))
        x = means + np.sqrt(self.decoder_variance_) * rng.standard_normal(means.shape)
        return x if self.n_levels is None else np.clip(np.rint(x), 0, self.n_levels - 1)

    def elbo(self, x: ArrayLike, rng: RNG = None, n_draws: int = 16) -> Array:
        """ELBO of every x, (N,), nats: the KL exactly, the reconstruction as a mean over `n_draws` of z.

        A linear decoder's reconstruction is a quadratic in z, so the `sigma_points` give it exactly, without `rng`.
        """
        data, mean, log_variance = self._posterior(x)
        noise: Array = sigma_points(self.n_latents)[:, None]
        if len(self.hidden) > 0 or self.n_levels is not None:
            noise = as_generator(rng).standard_normal((as_count(n_draws, "n_draws"), *mean.shape))
        std = np.exp(0.5 * log_variance)
        reconstruction = np.mean([self._log_decoder(data, mean + std * xi) for xi in noise], axis=0)
        return reconstruction - kl_diag_standard(mean, log_variance) - self._log_volume

    def iwae(self, x: ArrayLike, n_draws: int = 64, rng: RNG = None) -> Array:
        """Importance-weighted bound log (1/n) Σ p_θ(x, z_i)/q(z_i | x), (N,), nats (Burda et al. 2016).

        Its mean rises from the ELBO at n = 1 to log p_θ(x).
        """
        data, mean, log_variance = self._posterior(x)
        noise = as_generator(rng).standard_normal((as_count(n_draws, "n_draws"), *mean.shape))
        log_weights = []
        for xi in noise:
            z = mean + np.exp(0.5 * log_variance) * xi
            log_prior = gaussian_log_prob(z, np.zeros_like(z), 0.0)
            log_weights.append(self._log_decoder(data, z) + log_prior - gaussian_log_prob(z, mean, log_variance))
        return importance_weighted_bound(np.array(log_weights)) - self._log_volume

    def _posterior(self, x: ArrayLike) -> tuple[Array, Array, Array]:
        """x in the model's units, and mean and log variance of q(z | x), float64."""
        data = self.to_model(self._as_fitted_samples(x)).astype(self.dtype)
        mean, log_variance = self.network_.encode(data)
        return data.astype(np.float64), mean.astype(np.float64), log_variance.astype(np.float64)

    def _log_decoder(self, x: Array, z: Array) -> Array:
        """log p_θ(x | z), (N,), nats, in the model's units."""
        x_hat = self.network_.decoder(z.astype(self.dtype)).astype(np.float64)
        return self.network_.log_decoder(x, x_hat)
