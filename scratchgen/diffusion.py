"""What DDPM and ScoreSDE share: one noise network, trained by predicting ε in x_t = scale · x_0 + std · ε."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.estimator import Progress, StandardizedEstimator
from scratchgen.level_network import LevelNetwork
from scratchgen.noise_network import NO_LABEL, Head, NoiseNetwork
from scratchgen.optimizer import EMA, Adam, cosine_decay, finite_loss
from scratchgen.validation import RNG, Array, IntArray, as_count, as_generator, as_number, as_samples

WARMUP = 100  # steps over which the learning rate rises


Other = TypeVar("Other", bound="DiffusionModel")


class Levels(NamedTuple):
    """The noise levels of one batch, and how its examples count."""

    scale: Array  # (n,)
    std: Array  # (n,)
    weight: Array | float = 1.0  # (n,) λ, times what corrects for uneven draws
    head: Head | None = None  # what the network predicts, see `NoiseNetwork`


class DiffusionModel(StandardizedEstimator):
    """Base of DDPM and ScoreSDE: they differ in which noise levels they train on and how they sample."""

    hidden: Sequence[int]
    n_coordinate_features: int
    n_classes: int = 0
    prediction: str = "v"
    weight_decay: float = 0.0
    n_steps: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    standardize: bool
    rng: RNG

    _fitted: ClassVar[tuple[str, ...]] = (
        "mean_",
        "scale_",
        "parameters_",
        "losses_",
        "histograms_",
        "covariance_",
    )

    def _draw_levels(self, n: int, rng: np.random.Generator) -> Levels:
        """Of n training examples."""
        raise NotImplementedError

    def _observe(self, losses: Array) -> None:
        """Told the losses (n,), without weights, of the batch whose levels were drawn last."""

    def _finish(self, data: Array, rng: np.random.Generator) -> None:
        """Called with the data in the model's units when the network has its last parameters."""

    def _train(self, x: ArrayLike, labels: IntArray | None = None, p_drop: float = 0.0) -> Iterator[Progress]:
        """Minimise E λ‖ε − ε̂(x_t)‖² by Adam with a moving average of the parameters; yields after every step."""
        x = as_samples(x)
        n_steps, batch_size = as_count(self.n_steps, "n_steps"), as_count(self.batch_size, "batch_size")
        learning_rate = as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True)
        as_number(self.ema_decay, "ema_decay", low=0.0, high=1 - 1e-9)
        weight_decay = as_number(self.weight_decay, "weight_decay", low=0.0)
        rng = as_generator(self.rng)
        mean, scale = self._measure_units(x)
        self.histograms_, self.covariance_ = self._statistics(x, mean, scale)
        self._build(x.shape[1], rng)
        self.mean_, self.scale_, self.n_features_in_, self.losses_ = mean, scale, x.shape[1], np.zeros(0)
        data = self.to_model(x).astype(np.float32)
        network = self._network(x.shape[1])
        network.mlp.parameters[:] = self.parameters_
        adam, average = Adam(network.mlp.parameters, weight_decay=weight_decay), EMA(self.parameters_, self.ema_decay)
        losses = np.empty(n_steps)
        for step in range(n_steps):
            rows = rng.integers(len(data), size=batch_size)
            x0 = data.take(rows, axis=0)
            noise = rng.standard_normal(x0.shape, dtype=np.float32)
            level = self._draw_levels(batch_size, rng)
            given = None
            if labels is not None:
                given = np.where(rng.random(batch_size) < p_drop, NO_LABEL, labels[rows])
            x_t = level.scale[:, None].astype(np.float32) * x0 + level.std[:, None].astype(np.float32) * noise
            weight = np.full(batch_size, level.weight, dtype=np.float32)
            batch_losses = self._differentiate(network, x_t, noise, level, weight / batch_size, given, rng)
            adam.step(network.mlp.gradient, cosine_decay(step, n_steps, learning_rate, min(WARMUP, n_steps // 10)))
            average.update(network.mlp.parameters)
            self._observe(batch_losses)
            losses[step] = finite_loss(float(weight @ batch_losses) / batch_size, step)
            self.losses_ = losses[: step + 1]
            if step == n_steps - 1:
                self._finish(data, rng)
            yield Progress(step + 1, n_steps, float(losses[step]))

    def _differentiate(
        self,
        network: NoiseNetwork | LevelNetwork,
        x_t: Array,
        noise: Array,
        level: Levels,
        weight: Array,
        labels: IntArray | None,
        rng: np.random.Generator,
    ) -> Array:
        """‖ε − ε̂‖² of every example, (n,), leaving in `network.mlp.gradient` the gradient of its weighted sum."""
        error = network.forward(x_t, level.scale, level.std, level.head, labels) - noise
        network.backward_parameters(2 * weight[:, None] * error)
        return (error**2).sum(axis=1)

    def _statistics(self, x: Array, mean: Array, scale: float) -> tuple[Array, Array]:
        """Histograms (D, n_levels) and covariance (D, D) of the scaled data, which a `LevelNetwork` knows."""
        if self.prediction != "levels":
            return np.zeros(0), np.zeros(0)
        if self.n_levels is None:
            raise ValueError("n_levels must say how many levels x has for prediction='levels', got None")
        counts = np.stack([np.bincount(column.astype(np.int64), minlength=self.n_levels) for column in x.T])
        share = counts + 1 / self.n_levels  # one example of every level's share, so that none is impossible
        covariance = np.atleast_2d(np.cov(((x - mean) / scale).T, bias=True))
        return share / share.sum(axis=1, keepdims=True), covariance

    def _network(self, dimension: int, rng: RNG = None) -> NoiseNetwork | LevelNetwork:
        if self.prediction == "levels":
            return LevelNetwork(self.histograms_, self.covariance_, self.hidden, n_classes=self.n_classes, rng=rng)
        return NoiseNetwork(
            dimension,
            self.hidden,
            n_coordinate_features=self.n_coordinate_features,
            rng=rng,
            n_classes=self.n_classes,
        )

    def _build(self, dimension: int, rng: RNG = None) -> None:
        """Make what a fitted model holds beside its numbers: the network that samples and scores.

        Its parameters are the moving average of those that are trained.
        """
        self.network_ = self._network(dimension, rng)
        self.parameters_ = self.network_.mlp.parameters

    def _hand_over(self, other: Other) -> Other:
        """`other`, unfitted, with this model's network and units: a noise level is the same thing to both."""
        for name in ("prediction", "n_levels", "hidden", "n_coordinate_features", "standardize", "rng"):
            setattr(other, name, getattr(self, name))
        for name in ("mean_", "scale_", "n_features_in_", "losses_", "histograms_", "covariance_"):
            setattr(other, name, getattr(self, name))
        other._build(self.n_features_in_)
        other.parameters_[:] = self.parameters_
        return other

    def _restore(self) -> None:
        saved = self.parameters_
        self._build(self.n_features_in_)
        self.parameters_[:] = saved
