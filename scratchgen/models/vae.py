"""VAE: the estimator over networks and bounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from scratchgen.models.estimator import Progress, StandardizedEstimator
from scratchgen.vae import LOG_VARIANCE_RATE, Draw, VAENetwork, elbo, iwae, random_batch, train
from scratchgen.validation import RNG, Array, ArrayLike, as_choice, as_count, as_generator, as_number, as_samples


class GaussianVAE(StandardizedEstimator):
    """Base of `VAE` and `LinearVAE`: networks, training and verbs, in the data's units."""

    n_latents: int
    hidden: Sequence[int]
    decoder_hidden: Sequence[int] | None
    activation: str
    decoder_variance: float | str | None
    kl_weight: float
    n_steps: int
    batch_size: int | None
    learning_rate: float
    dtype: str
    rng: RNG

    _fitted: ClassVar[tuple[str, ...]] = ("mean_", "scale_", "encoder_", "decoder_", "log_variance_", "losses_")
    network_: VAENetwork
    encoder_: Array
    decoder_: Array
    log_variance_: Array
    losses_: Array

    def _train(self, x: ArrayLike, draw: Draw) -> Iterator[Progress]:
        """Minimise (14) on the batches and noise of `draw`; yields after every step."""
        x = as_samples(x)
        n_steps = as_count(self.n_steps, "n_steps")
        learning_rate = as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True)
        kl_weight = as_number(self.kl_weight, "kl_weight", low=0.0)
        rng = as_generator(self.rng)
        mean, scale = self._measure_units(x)
        learned, variance = self._starting_variance(x)
        start = self._new_network(x.shape[1], rng)
        start.log_variance[:] = np.log(variance)
        parts = dict(zip(("encoder_", "decoder_", "log_variance_"), (part for part, _ in start.parts), strict=True))
        self.set_fitted(mean_=mean, scale_=scale, n_features_in_=x.shape[1], losses_=np.zeros(0), **parts)
        log_volume, losses = self._log_volume, np.empty(n_steps)
        steps = train(
            self.network_,
            self.to_model(x).astype(self.dtype),
            n_steps,
            rng,
            draw,
            learning_rate=learning_rate,
            log_variance_rate=LOG_VARIANCE_RATE if learned else 0.0,
            kl_weight=kl_weight,
        )
        for step, loss in enumerate(steps):
            losses[step] = loss + log_volume
            self.losses_ = losses[: step + 1]
            yield Progress(step + 1, n_steps, float(losses[step]))

    def _starting_variance(self, x: Array) -> tuple[bool, float]:
        """Whether s² is learned, and the s² from which training starts."""
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
        return learned, variance

    def _new_network(self, dimension: int, rng: RNG = None) -> VAENetwork:
        """Encoder and decoder with drawn weights, as the constructor's arguments say."""
        return VAENetwork(
            dimension,
            as_count(self.n_latents, "n_latents"),
            self.hidden,
            self.activation,
            rng,
            as_choice(self.dtype, "dtype", ("float32", "float64")),
            n_variances=dimension if self.decoder_variance == "diag" else 1,
            n_levels=self.n_levels,
            decoder_hidden=self.decoder_hidden,
        )

    def set_fitted(self, **fitted: Any) -> Self:
        """Take over fitted attributes; `network_` is made anew around `encoder_`, `decoder_` and `log_variance_`."""
        super().set_fitted(**fitted)
        names = ("encoder_", "decoder_", "log_variance_")
        if not fitted.keys().isdisjoint(names):
            self.network_ = self._new_network(self.n_features_in_)
            for name, (part, _) in zip(names, self.network_.parts, strict=True):
                part[:] = getattr(self, name)
                setattr(self, name, part)
        return self

    # --- verbs ---------------------------------------------------------------------------------------------------

    @property
    def decoder_variance_(self) -> float | Array:
        """s² of the fitted decoder, in squared units of the data: a number, or (D,) if each dimension has its own."""
        self._require_fitted()
        variances = np.exp(self.log_variance_, dtype=np.float64) * self.scale_**2
        return float(variances[0]) if len(variances) == 1 else variances

    def encode(self, x: ArrayLike) -> tuple[Array, Array]:
        """Mean and variance of q(z | x), (N, k) each."""
        data = self._as_data(x)
        mean, log_variance = self.network_.encode(data)
        return mean.astype(np.float64), np.exp(log_variance, dtype=np.float64)

    def decode(self, z: ArrayLike) -> Array:
        """Mean of p_θ(x | z), (N, D), in data units."""
        self._require_fitted()
        z = as_samples(z, "z", dimension=self.network_.n_latents, n_min=0)
        return self.to_data(self.network_.decoder(z))

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
        data = self._as_data(x)
        return elbo(self.network_, data, self._noise(len(data), rng, n_draws)) - self._log_volume

    def iwae(self, x: ArrayLike, rng: RNG = None, n_draws: int = 64) -> Array:
        """Importance-weighted bound log (1/n) Σ p_θ(x, z_i)/q(z_i | x), (N,), nats (Burda et al. 2016).

        Its mean rises from the ELBO at n = 1 to log p_θ(x).
        """
        data = self._as_data(x)
        return iwae(self.network_, data, self._noise(len(data), rng, n_draws)) - self._log_volume

    def _noise(self, n: int, rng: RNG, n_draws: int) -> Array:
        """ξ of `n_draws` draws for n examples, (n_draws, n, k)."""
        return as_generator(rng).standard_normal((as_count(n_draws, "n_draws"), n, self.network_.n_latents))

    def _as_data(self, x: ArrayLike) -> Array:
        """x in the model's units and the network's dtype."""
        return self.to_model(self._as_fitted_samples(x)).astype(self.log_variance_.dtype)


@dataclass(eq=False, repr=False)
class VAE(GaussianVAE):
    """Variational autoencoder with a diagonal Gaussian posterior and a Gaussian decoder, for real or whole numbers.

    `LinearVAE` has no hidden layers and trains on exact expectations.

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
        Factor of the KL in training (the β of Higgins et al. 2017).  With any value but 1 the training loss is not
        minus a bound of log p_θ(x).  `elbo` and `iwae` are bounds for every value.
    n_steps, batch_size, learning_rate : int, int or None, float
        Of Adam, whose rate falls to 0 along half a cosine; with batch_size None every step uses all of x.
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
    >>> bool(((x - model.reconstruct(x)) ** 2).mean() < 0.1 * x.var())  # one latent keeps the arc
    True
    >>> bool(model.elbo(x, rng=1).mean() < model.iwae(x, rng=1, n_draws=64).mean())
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
    >>> bool(-weighted.losses_[-1] < weighted.elbo(x, rng=1).mean())  # elbo is a bound, minus the loss is none
    True
    """

    n_latents: int = 2
    hidden: Sequence[int] = (128,)
    decoder_hidden: Sequence[int] | None = None
    activation: str = "silu"
    decoder_variance: float | str | None = None
    n_levels: int | None = None
    kl_weight: float = 1.0
    n_steps: int = 3000
    batch_size: int | None = 128
    learning_rate: float = 2e-3
    standardize: bool = True
    dtype: str = "float32"
    rng: RNG = None

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Maximise the ELBO by Adam; yields after every step with the loss of the batch, nats an example."""
        if self.batch_size is not None:
            as_count(self.batch_size, "batch_size")
        return self._train(x, partial(random_batch, n_latents=self.n_latents, batch_size=self.batch_size))
