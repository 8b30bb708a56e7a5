"""What DDPM and ScoreSDE share: one noise network, trained by predicting ε in x_t = scale · x_0 + std · ε."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.estimator import Progress, StandardizedEstimator
from scratchgen.network import NoiseNetwork
from scratchgen.optimizer import EMA, Adam, cosine_decay
from scratchgen.validation import RNG, Array, as_count, as_generator, as_number, as_samples

WARMUP = 100  # steps over which the learning rate rises


class DiffusionModel(StandardizedEstimator):
    """Base of DDPM and ScoreSDE: they differ in which noise levels they train on and how they sample."""

    hidden: Sequence[int]
    n_coordinate_features: int
    n_steps: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    standardize: bool
    rng: RNG

    _fitted: ClassVar[tuple[str, ...]] = ("mean_", "scale_", "parameters_", "losses_")

    def _draw_levels(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """(scale, std), each (n,), of n training examples."""
        raise NotImplementedError

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Minimise E‖ε − ε̂(x_t)‖² by Adam with a moving average of the parameters; yields after every step.

        The loss of each `Progress` is that of one batch, in the units of ε, summed over dimensions; the loss that
        a perfect network would have is not 0.
        """
        x = as_samples(x)
        n_steps, batch_size = as_count(self.n_steps, "n_steps"), as_count(self.batch_size, "batch_size")
        learning_rate = as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True)
        as_number(self.ema_decay, "ema_decay", low=0.0, high=1 - 1e-9)
        rng = as_generator(self.rng)
        mean, scale = self._measure_units(x)
        self._build(x.shape[1], rng)
        self.mean_, self.scale_, self.n_features_in_, self.losses_ = mean, scale, x.shape[1], np.zeros(0)
        data = self.to_model(x).astype(np.float32)
        network = NoiseNetwork(x.shape[1], self.hidden, n_coordinate_features=self.n_coordinate_features)
        network.mlp.parameters[:] = self.parameters_
        adam, average = Adam(network.mlp.parameters), EMA(self.parameters_, self.ema_decay)
        losses = np.empty(n_steps)
        for step in range(n_steps):
            x0 = data.take(rng.integers(len(data), size=batch_size), axis=0)
            noise = rng.standard_normal(x0.shape, dtype=np.float32)
            scales, stds = self._draw_levels(batch_size, rng)
            x_t = scales[:, None].astype(np.float32) * x0 + stds[:, None].astype(np.float32) * noise
            error = network.forward(x_t, scales, stds) - noise
            network.backward((2 / batch_size) * error)
            adam.step(network.mlp.gradient, cosine_decay(step, n_steps, learning_rate, min(WARMUP, n_steps // 10)))
            average.update(network.mlp.parameters)
            losses[step] = float((error**2).sum()) / batch_size
            self.losses_ = losses[: step + 1]
            yield Progress(step + 1, n_steps, float(losses[step]))

    def _build(self, dimension: int, rng: RNG = None) -> None:
        """Make what a fitted model holds beside its numbers: the network that samples and scores.

        Its parameters are the moving average of those that are trained.
        """
        self.network_ = NoiseNetwork(dimension, self.hidden, n_coordinate_features=self.n_coordinate_features, rng=rng)
        self.parameters_ = self.network_.mlp.parameters

    def _restore(self) -> None:
        saved = self.parameters_
        self._build(self.n_features_in_)
        self.parameters_[:] = saved
