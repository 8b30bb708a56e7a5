"""VAE: constructor arguments, units and files around the networks, the training loop and the bounds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from scratchgen.augmentation import Augmentation
from scratchgen.blocks import by_blocks
from scratchgen.models.estimator import FAR, UNTRAINED, Progress, finite, framed
from scratchgen.models.files import Form
from scratchgen.models.network_model import NetworkModel, TrainingLoop, check_moments
from scratchgen.models.training_state import TrainingState, checksum
from scratchgen.nn import Adam, n_parameters
from scratchgen.nn.activations import ACTIVATIONS
from scratchgen.vae import LOG_VARIANCE_RATE, Draw, VAENetwork, elbo, iwae, random_batch, train
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    as_choice,
    as_count,
    as_generator,
    as_number,
    as_samples,
    check_varies,
)

PARTS = ("encoder_", "decoder_", "log_variance_")  # in the order of `VAENetwork.parts`


@dataclass(eq=False, repr=False)
class GaussianVAE(NetworkModel):
    """Base of `VAE` and `LinearVAE`: networks, training and the common methods."""

    n_latents: int = 2
    # Constants of `LinearVAE`, arguments of `VAE`
    hidden: Sequence[int] = field(default=(), init=False)
    decoder_hidden: Sequence[int] | None = field(default=(), init=False)
    activation: str = field(default="identity", init=False)
    n_levels: int | None = field(default=None, init=False)
    dtype: str = field(default="float64", init=False)
    _: KW_ONLY
    decoder_variance: float | str | None = None
    kl_weight: float = 1.0
    n_steps: int | None = 3000
    learning_rate: float = 2e-3

    _fitted: ClassVar[tuple[str, ...]] = (
        "mean_",
        "scale_",
        *PARTS,
        "n_steps_",
        "losses_",
        "validation_steps_",
        "validation_bounds_",
    )
    _weights: ClassVar[tuple[str, ...]] = PARTS
    encoder_: Array = field(init=False)
    decoder_: Array = field(init=False)
    log_variance_: Array = field(init=False)
    network_: VAENetwork = field(init=False)

    @abstractmethod
    def _draw(self, x: Array) -> Draw:
        """Function that draws batches of the rows of x, (N, D), and their noise, for `scratchgen.vae.train`."""

    def _loop(self, x: ArrayLike, resume: bool) -> TrainingLoop:
        """Minimise (14) on the batches and noise of `_draw`; the losses are in units of the data."""
        self._check_parameters()
        names, x = self._names_in(x, resume), as_samples(x)
        data = checksum(x)
        state, rng = self._state_and_generator(data, resume)
        held = self._hold_out(len(x), rng, state)
        rest = x[np.delete(np.arange(len(x)), held["held_out"])] if held else x
        if state is None:
            self._set_untrained(rest, names, rng)
        parts = {name: getattr(self, name) for name in PARTS}
        adams = [Adam(part) for part in parts.values()]
        m, v = ({name + moment: getattr(a, moment) for name, a in zip(parts, adams, strict=True)} for moment in "mv")
        state = self._state_of(parts | m | v, held, adams, data, rng, state)
        learned, _ = self._starting_variance()
        losses = train(
            self.network_,
            self._as_training_data(rest, self.dtype),
            self.n_steps_,
            rng,
            self._draw(rest),
            adams=adams,
            learning_rate=self.learning_rate,
            log_variance_rate=LOG_VARIANCE_RATE if learned else 0.0,
            kl_weight=self.kl_weight,
        )
        log_volume = self._log_volume
        validate = self._validation(x, held, self.get_params().get("batch_size") or len(rest))
        return TrainingLoop((loss + log_volume for loss in losses), state, rng, validate)

    def _set_untrained(self, x: Array, names: tuple[str, ...] | None, rng: np.random.Generator) -> None:
        """Set the units of x and networks with random weights; ValueError for a constant column without a variance."""
        if self.decoder_variance == "diag" and self.n_levels is None:
            check_varies(x, "with decoder_variance='diag' its s² would go to 0 and the ELBO to infinity; drop it")
        mean, scale = self._measure_units(x)
        start = self._new_network(x.shape[1], rng)
        start.log_variance[:] = np.log(self._starting_variance()[1])
        parts = dict(zip(PARTS, (part for part, _ in start.parts), strict=True))
        self.set_fitted(
            n_features_in_=x.shape[1],
            feature_names_in_=names,
            mean_=mean,
            scale_=scale,
            n_steps_=self._planned_steps(len(x)),
            losses_=np.zeros(0),
            **parts,
        )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True)
        as_number(self.kl_weight, "kl_weight", low=0.0)
        as_choice(self.activation, "activation", tuple(ACTIVATIONS))
        as_choice(self.dtype, "dtype", ("float32", "float64"))
        self._starting_variance()
        VAENetwork.sizes(1, self.n_latents, self.hidden, self.decoder_hidden)

    def _starting_variance(self) -> tuple[bool, float]:
        """Return whether s² is learned, and the initial s²; ValueError for a wrong decoder_variance."""
        learned = self.decoder_variance is None or isinstance(self.decoder_variance, str)
        if learned and self.decoder_variance not in (None, "diag"):
            raise ValueError(f"decoder_variance must be a number, None or 'diag', got {self.decoder_variance!r}")
        variance = as_number(1.0 if learned else self.decoder_variance, "decoder_variance", low=0.0, open_low=True)
        return learned, variance

    def _new_network(self, dimension: int, rng: RNG = None) -> VAENetwork:
        """Create the networks that the constructor's arguments describe, with random weights."""
        return VAENetwork(
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

    def _built_from(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """`network_` with copies of `encoder_`, `decoder_` and `log_variance_`, which become these copies."""
        network = self._new_network(fitted["n_features_in_"], rng=0)
        parts = dict(zip(PARTS, (part for part, _ in network.parts), strict=True))
        for name, part in parts.items():
            part[:] = fitted[name]
        return {"network_": network, **parts}

    def _forms(self, n_features: int) -> dict[str, Form]:
        sizes = VAENetwork.sizes(n_features, self.n_latents, self.hidden, self.decoder_hidden)
        lengths = [*map(n_parameters, sizes), n_features if self.decoder_variance == "diag" else 1]
        parts = {name: Form((self.dtype,), (length,)) for name, length in zip(PARTS, lengths, strict=True)}
        return super()._forms(n_features) | parts

    def _check_fitted(self, **fitted: Any) -> None:
        super()._check_fitted(**fitted)
        log_variance = fitted["log_variance_"]
        if not ((log_variance > -745) & (log_variance < 709)).all():  # else s² is 0 or infinite, and training diverges
            raise ValueError(f"log_variance_ must lie in -745..709, got {log_variance!r:.60}")

    @property
    def _n_calls(self) -> int:
        return 16  # the default of `elbo`

    def _state_forms(self, n_features: int) -> dict[str, Form]:
        forms = self._forms(n_features)
        own = {name + moment: forms[name] for moment in ("", "m", "v") for name in PARTS}
        return own | self._validation_forms(forms)

    def _check_state(self, state: TrainingState, fitted: dict[str, Any]) -> None:
        super()._check_state(state, fitted)
        for name in PARTS:
            check_moments(state.arrays, name + "m", name + "v")

    # --- use of the fitted model -----------------------------------------------------------------------------------

    @property
    @finite(UNTRAINED)
    def decoder_variance_(self) -> Array:
        """s² of the fitted decoder for every column, (D,), in squared units of the data: s² · scale_²."""
        return np.exp(self.log_variance_, dtype=np.float64) * self.scale_**2

    @finite(FAR)
    def encode(self, x: ArrayLike) -> tuple[Array, Array]:
        """Mean and variance of q(z | x), each (N, k), for x (N, D)."""

        def encode(data: Array, _: slice) -> tuple[Array, Array]:
            mean, log_variance = self.network_.encode(self._as_inputs(data))
            return mean.astype(np.float64), np.exp(log_variance, dtype=np.float64)

        return self._by_blocks(encode, x, self._numbers_a_row())

    @finite(UNTRAINED)
    def decode(self, z: ArrayLike) -> Array:
        """Mean of p_θ(x | z), (N, D), in units of the data, for z (N, k)."""
        z = as_samples(z, "z", dimension=self.network_.n_latents, n_min=0)
        return by_blocks(lambda rows: self.to_data(self.network_.decoder(z[rows])), len(z), self._numbers_a_row())

    def reconstruct(self, x: ArrayLike) -> Array:
        """Mean of p_θ(x | z), (N, D), at the mean z of q(z | x), for x (N, D)."""
        x = self._as_fitted_samples(x)
        self._check_units(x)
        return by_blocks(lambda rows: self.decode(self.encode(x[rows])[0]), len(x), self._numbers_a_row())

    @framed
    @finite(UNTRAINED)
    def sample(self, n: int, rng: RNG = None, *, as_frame: bool = False) -> Array:
        """Draw n examples from p_θ(x), (n, D), in units of the data: z ~ N(0, I), then x ~ N(decode(z), s²).

        s² is that of `decoder_variance_`, one number a column.  With `n_levels` x is replaced by the whole number in
        whose bin it lies.  Use `decode` for means without the noise of the decoder.  With `as_frame` x is a
        pandas.DataFrame with the names of fit.
        """
        rng, std = as_generator(rng), np.exp(0.5 * self.log_variance_, dtype=np.float64)

        def draw(rows: slice) -> Array:
            means = self.network_.decoder(rng.standard_normal((rows.stop - rows.start, self.network_.n_latents)))
            return self._to_levels(self.to_data(means + std * rng.standard_normal(means.shape)))

        return by_blocks(draw, as_count(n, "n", minimum=0), self._numbers_a_row())

    @finite(FAR)
    def elbo(self, x: ArrayLike, rng: RNG = None, n_draws: int = 16) -> Array:
        """Unbiased estimate of the ELBO, (N,), nats, for x (N, D).

        The KL is exact, and the reconstruction error is a mean over `n_draws` draws of z.
        """
        return self._bound(elbo, x, rng, n_draws)

    @finite(FAR)
    def iwae(self, x: ArrayLike, rng: RNG = None, n_draws: int = 64) -> Array:
        """Importance-weighted bound log (1/n) Σ_i p_θ(x, z_i)/q(z_i | x), (N,), nats, for x (N, D) (Burda et al. 2016).

        n is `n_draws`.  The mean of the bound is the ELBO for n = 1, rises with n, and converges to log p_θ(x).
        """
        return self._bound(iwae, x, rng, n_draws)

    def _bound(self, bound: Callable[[VAENetwork, Array, Array], Array], x: ArrayLike, rng: RNG, n_draws: int) -> Array:
        """A bound of x, (N, D), in units of the data, from n_draws values of ξ an example."""
        rng, n_draws, k = as_generator(rng), as_count(n_draws, "n_draws"), self.network_.n_latents

        def of_block(data: Array, _: slice) -> Array:
            noise = rng.standard_normal((n_draws, len(data), k))
            return bound(self.network_, self._as_inputs(data), noise) - self._log_volume

        return self._by_blocks(of_block, x, max(n_draws * k, self._numbers_a_row()))

    def _numbers_a_row(self) -> int:
        """Numbers in a row of the largest array of the bound of one draw: D or k."""
        return max(self.n_features_in_, self.network_.n_latents)

    def _as_inputs(self, data: Array) -> Array:
        """Convert data in the model's units to the network's dtype."""
        return data.astype(self.log_variance_.dtype)


@dataclass(eq=False, repr=False)
class VAE(GaussianVAE):
    """Variational autoencoder with a diagonal Gaussian posterior and a Gaussian decoder, for real or whole numbers.

    The training loss is (14).  `LinearVAE` has no hidden layers and trains on exact expectations.

    Parameters
    ----------
    n_latents : int
        k.
    hidden : sequence of int
        Widths of the encoder's hidden layers.  With two layers of 64 new rows of most small tables have better bounds
        than with one layer of 128, and samples of two clusters are nearer to them: a random forest told samples from
        new rows with accuracies of 0.52 to 0.55 in place of 0.56 to 0.63, on three tables of 1000 rows.
    decoder_hidden : sequence of int, optional
        Widths of the decoder's hidden layers; `hidden` in reverse order if None.
    activation : {"silu", "tanh", "identity"}
        Activation of all hidden layers.
    decoder_variance : float, None or "diag"
        s² in squared units of the model, in which every column has variance 1 by default.  None learns one s², "diag"
        learns one a dimension.  The optimum of a learned s² is the mean squared error of the reconstruction.
    n_levels : int, optional
        For whole numbers 0..n_levels−1: the decoder is then a Gaussian observed in bins, likelihoods are probabilities,
        and −elbo/(D ln 2) is in bits/dim.  With n_levels=2, for zeros and ones, it is a Bernoulli decoder: P(x_d = 1 |
        z) = Φ(m_d/s), where m_d is the network's output and Φ the normal distribution function, in place of a logistic
        function.
    kl_weight : float
        Factor of the KL in training, the β of Higgins et al. (2017).  For values other than 1 minus the training loss
        is not a lower bound of log p_θ(x).  `elbo` and `iwae` are lower bounds for every value.
    n_steps : int, optional
        Number of gradient steps.  None takes 4 for every row that is not held out, but 100 at least and 5000 at most;
        `n_steps_` is the number.  With many more steps the networks memorise the rows of a small table, and new rows
        have a low bound (`python -m benchmarks.tables`).
    batch_size : int, optional
        Examples a step; None takes all of x in every step.
    learning_rate : float
        Initial learning rate of Adam, which falls to 0 along half a cosine.
    augment : Shifts or Deformations, optional
        Train on copies of the rows, see `scratchgen.augmentation`.  p_θ is then a model of the copies; bounds are of x.
    standardize : bool or "global"
        Work on (x − mean)/scale instead of x, with a scale for every column (True) or one for all columns ("global");
        see `StandardizedEstimator`.
    dtype : {"float32", "float64"}
        Type of parameters and of training.
    early_stopping, validation_fraction, n_iter_no_change, verbose
        As for `DDPM`.
    rng : int, Generator or None
        Source of initial weights and of training.

    Attributes
    ----------
    network_ : VAENetwork
        Trained encoder, decoder and log s².
    decoder_variance_ : (D,)
        s² of every column in squared units of the data.
    n_steps_ : int
        Number of planned steps.
    losses_ : (steps,)
        Mean loss of the batch of every step, nats, in units of the data; for `kl_weight` 1 an estimate of −ELBO.
    history_ : History
        As for `DDPM`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> angle = rng.uniform(0, 3, (500, 1))
    >>> x = np.hstack([np.cos(angle), np.sin(angle)]) + 0.05 * rng.standard_normal((500, 2))
    >>> options = {"hidden": (16, 16), "decoder_hidden": (32,), "n_steps": 500, "learning_rate": 1e-2}
    >>> model = VAE(1, standardize="global", rng=0, **options).fit(x)  # one unit for both axes of the plane
    >>> mean, variance = model.encode(x)
    >>> mean.shape, variance.shape, model.decode([[0.0], [1.0]]).shape, model.sample(5, rng=1).shape
    ((500, 1), (500, 1), (2, 2), (5, 2))
    >>> bool(((x - model.reconstruct(x)) ** 2).mean() < 0.1 * x.var())  # one latent suffices for an arc
    True
    >>> bool(model.elbo(x, rng=1).mean() < model.iwae(x, rng=1, n_draws=64).mean())
    True

    Whole numbers have probabilities, not densities; −elbo/(D ln 2) is in bits/dim:

    >>> levels = rng.integers(0, 4, (200, 3))
    >>> masses = VAE(1, hidden=(8,), n_levels=4, n_steps=50, rng=0).fit(levels)
    >>> bool((masses.elbo(levels, rng=1) < 0).all()), np.unique(masses.sample(100, rng=1)).tolist()
    (True, [0.0, 1.0, 2.0, 3.0])

    Zeros and ones, with a Bernoulli decoder; the draws are zeros and ones:

    >>> bits = (rng.random((200, 3)) < 0.8).astype(int)
    >>> coins = VAE(1, hidden=(8,), n_levels=2, n_steps=50, rng=0).fit(bits)
    >>> np.unique(coins.sample(100, rng=1)).tolist()
    [0.0, 1.0]

    A variance a dimension, and a β-VAE:

    >>> VAE(1, (8,), decoder_variance="diag", n_steps=50, rng=0).fit(x).decoder_variance_.shape
    (2,)
    >>> weighted = VAE(1, (8,), kl_weight=4.0, n_steps=50, rng=0).fit(x)
    >>> bool(-weighted.losses_[-1] < weighted.elbo(x, rng=1).mean())  # elbo is a bound, −loss is not
    True
    """

    hidden: Sequence[int] = (64, 64)
    decoder_hidden: Sequence[int] | None = None
    activation: str = "silu"
    _: KW_ONLY
    n_levels: int | None = None
    dtype: str = "float32"
    n_steps: int | None = None
    batch_size: int | None = 128
    augment: Augmentation | None = None  # type: ignore[misc]

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.batch_size is not None:
            as_count(self.batch_size, "batch_size")

    def train(self, x: ArrayLike, *, resume: bool = False) -> Iterator[Progress]:
        """Minimise (14) on x, (N, D), by Adam; `resume` goes on with a training that has not ended.

        Yields
        ------
        progress : Progress
            After every step, with the mean loss of the batch, nats, in units of the data.

        Raises
        ------
        TypeError, ValueError
            If x or a constructor argument is wrong.
        ArithmeticError
            If the loss or the gradient becomes NaN or infinite, or the parameters overflow.  The model then keeps the
            last good parameters, or, if the first step fails, the fit from before.
        """
        return self._follow(partial(self._loop, x), resume)

    def _draw(self, x: Array) -> Draw:
        copies = self._copies(x, self.dtype)
        return partial(random_batch, n_latents=self.n_latents, batch_size=self.batch_size, augment=copies)
