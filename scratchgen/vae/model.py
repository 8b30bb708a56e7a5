"""VAE: the estimator over networks and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.estimator import Progress, StandardizedEstimator
from scratchgen.likelihood import gaussian_log_prob, kl_diag_standard
from scratchgen.optimizer import Adam, cosine_decay, finite_loss
from scratchgen.vae.network import VAENetwork
from scratchgen.vae.objective import importance_weighted_bound
from scratchgen.validation import RNG, Array, as_choice, as_count, as_generator, as_number, as_samples

# One number that every example pulls the same way.  At the networks' own learning rate it lags them: after 2000 steps
# on digits the decoder variance was still 51 % above the mean squared error that it should equal.
LOG_VARIANCE_RATE = 10


class VAE(StandardizedEstimator):
    """Variational autoencoder with diagonal Gaussian posterior and a Gaussian decoder, as it is or in bins.

    Without hidden layers, training with exact expectations is `LinearVAE`'s.

    Parameters
    ----------
    n_latents : int
        k.
    hidden : sequence of int
        Hidden layers of the encoder.
    decoder_hidden : sequence of int, optional
        Hidden layers of the decoder; the encoder's in reverse if None.
    activation : {"silu", "tanh", "identity"}
    decoder_variance : float, None or "diag"
        s², in the model's units squared; None learns one, "diag" one a dimension (optimum: the mean squared error).
    n_levels : int, optional
        The data are whole numbers 0..n_levels−1: the decoder is a Gaussian in bins, and likelihoods are masses, so that
        −elbo/(D ln 2) is in bits per dimension of the numbers themselves.
    kl_weight : float
        How often the KL counts in training (the β of Higgins et al. 2017).  With any value but 1 the training loss is
        not minus a bound of log p_θ(x); `elbo` and `iwae` always are bounds, of the model that came out.
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
        Mean loss of the batches, nats, in the data's units: −ELBO, with `kl_weight` 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> angle = rng.uniform(0, 3, (500, 1))
    >>> x = np.hstack([np.cos(angle), np.sin(angle)]) + 0.05 * rng.standard_normal((500, 2))
    >>> model = VAE(1, hidden=(16, 16), decoder_hidden=(32,), n_steps=500, learning_rate=1e-2, rng=0).fit(x)
    >>> mean, variance = model.encode(x)
    >>> mean.shape, variance.shape, model.decode([[0.0], [1.0]]).shape, model.sample(5, rng=1).shape
    ((500, 1), (500, 1), (2, 2), (5, 2))
    >>> bool(((x - model.reconstruct(x)) ** 2).mean() < 0.1 * x.var())  # one number a point keeps the arc
    True
    >>> bool(model.elbo(x, rng=1).mean() < model.iwae(x, 64, rng=1).mean())
    True

    Whole numbers have masses, not densities; −elbo/(D ln 2) is in bits per dimension:

    >>> levels = rng.integers(0, 4, (200, 3))
    >>> masses = VAE(1, hidden=(8,), n_levels=4, n_steps=50, rng=0).fit(levels)
    >>> bool((masses.elbo(levels, rng=1) < 0).all()), np.unique(masses.sample(100, rng=1)).tolist()
    (True, [0.0, 1.0, 2.0, 3.0])

    A variance a dimension, and a β-VAE:

    >>> VAE(1, (8,), decoder_variance="diag", n_steps=50, rng=0).fit(x).decoder_variance_.shape
    (2,)
    >>> weighted = VAE(1, (8,), kl_weight=4.0, n_steps=50, rng=0).fit(x)
    >>> bool(-weighted.losses_[-1] < weighted.elbo(x, rng=1).mean())  # the loss is no bound, elbo is
    True
    """

    _fitted: ClassVar[tuple[str, ...]] = ("mean_", "scale_", "encoder_", "decoder_", "log_variance_", "losses_")

    def __init__(
        self,
        n_latents: int = 2,
        hidden: Sequence[int] = (128,),
        decoder_hidden: Sequence[int] | None = None,
        activation: str = "silu",
        decoder_variance: float | str | None = None,
        n_levels: int | None = None,
        kl_weight: float = 1.0,
        n_steps: int = 3000,
        batch_size: int | None = 128,
        learning_rate: float = 2e-3,
        standardize: bool = True,
        dtype: str = "float32",
        rng: RNG = None,
    ) -> None:
        self.n_latents = n_latents
        self.hidden = hidden
        self.decoder_hidden = decoder_hidden
        self.activation = activation
        self.decoder_variance = decoder_variance
        self.n_levels = n_levels
        self.kl_weight = kl_weight
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.standardize = standardize
        self.dtype = dtype
        self.rng = rng

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Maximise the ELBO by Adam; yields after every step with the loss of the batch, nats an example."""
        x = as_samples(x)
        as_count(self.n_latents, "n_latents")
        n_steps = as_count(self.n_steps, "n_steps")
        if self.batch_size is not None:
            as_count(self.batch_size, "batch_size")
        learning_rate = as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True)
        kl_weight = as_number(self.kl_weight, "kl_weight", low=0.0)
        as_choice(self.dtype, "dtype", ("float32", "float64"))
        rng = as_generator(self.rng)
        mean, scale = self._measure_units(x)
        learned = self.decoder_variance is None or isinstance(self.decoder_variance, str)
        if learned and self.decoder_variance not in (None, "diag"):
            raise ValueError(f"decoder_variance must be a number, None or 'diag', got {self.decoder_variance!r}")
        variance = as_number(1.0 if learned else self.decoder_variance, "decoder_variance", low=0.0, open_low=True)
        constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
        if self.decoder_variance == "diag" and self.n_levels is None and len(constant):
            raise ValueError(
                f"x must vary in every column for decoder_variance='diag', but column {constant[0]} is constant: its "
                "variance would go to 0 and the ELBO to infinity; drop it"
            )
        self._build(x.shape[1], rng)
        self.network_.log_variance[:] = np.log(variance)
        self.mean_, self.scale_, self.n_features_in_, self.losses_ = mean, scale, x.shape[1], np.zeros(0)
        data = self.to_model(x).astype(self.dtype)
        factors = (1, 1, LOG_VARIANCE_RATE if learned else 0)
        optimizers = [
            (Adam(parameters), gradient, factor)
            for (parameters, gradient), factor in zip(self.network_.parts, factors, strict=True)
        ]
        losses = np.empty(n_steps)
        for step in range(n_steps):
            batch, noise = self._draw(data, rng)
            loss = float(self.network_.loss(batch, noise, kl_weight).mean()) + self._log_volume
            losses[step] = finite_loss(loss, step)
            rate = cosine_decay(step, n_steps, learning_rate)
            for adam, gradient, factor in optimizers:
                adam.step(gradient, factor * rate)
            self.losses_ = losses[: step + 1]
            yield Progress(step + 1, n_steps, float(losses[step]))

    def _draw(self, data: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """A batch of examples, and the noise ξ of one step."""
        if self.batch_size is not None:
            data = data.take(rng.integers(len(data), size=self.batch_size), axis=0)
        return data, rng.standard_normal((len(data), self.n_latents), dtype=data.dtype)

    def _build(self, dimension: int, rng: RNG = None) -> None:
        self.network_ = VAENetwork(
            dimension,
            self.n_latents,
            self.hidden,
            self.activation,
            rng,
            self.dtype,
            n_variances=dimension if self.decoder_variance == "diag" else 1,
            n_levels=self.n_levels,
            decoder_hidden=self.decoder_hidden,
        )
        self.encoder_, self.decoder_ = self.network_.encoder.parameters, self.network_.decoder.parameters
        self.log_variance_ = self.network_.log_variance

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
        z = as_samples(z, "z", dimension=self.network_.n_latents, n_min=0)
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
        means = self.decode(rng.standard_normal((as_count(n, "n", minimum=0), self.network_.n_latents)))
        x = means + np.sqrt(self.decoder_variance_) * rng.standard_normal(means.shape)
        return self._to_levels(x)

    def elbo(self, x: ArrayLike, rng: RNG = None, n_draws: int = 16) -> Array:
        """ELBO of every x, (N,), nats: the KL exactly, the reconstruction as a mean over `n_draws` of z."""
        n_draws = as_count(n_draws, "n_draws")
        return self._elbo(x, lambda shape: as_generator(rng).standard_normal((n_draws, *shape)))

    def _elbo(self, x: ArrayLike, draw: Callable[[tuple[int, ...]], Array]) -> Array:
        """ELBO with the reconstruction averaged over the noise ξ, (n, N, k) or (n, 1, k), that `draw` returns."""
        data, mean, log_variance = self._posterior(x)
        std = np.exp(0.5 * log_variance)
        reconstruction = np.mean([self._log_decoder(data, mean + std * xi) for xi in draw(mean.shape)], axis=0)
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
