"""DDPM: noise prediction, ancestral sampling and the variational bound, (19)-(29)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.ddpm.kernels import check_time
from scratchgen.ddpm.objective import bound_terms
from scratchgen.ddpm.samplers import ancestral_sampler, reverse_variance
from scratchgen.diffusion import DiffusionModel
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import RNG, Array, as_count, as_generator


class DDPM(DiffusionModel):
    """Denoising diffusion probabilistic model (Ho, Jain and Abbeel 2020) with a noise-predicting MLP.

    Trained on Ho's simple loss E_t‖ε − ε̂(x_t, t)‖² with t uniform on 1..T: (29) without its weight.

    Parameters
    ----------
    schedule : NoiseSchedule, optional
        The forward process; NoiseSchedule.linear(100) if None.
    variance : {"beta", "posterior"} or (T+1,) array
        σ_t² of the reverse steps, see `scratchgen.ddpm.reverse_variance`.
    hidden : sequence of int
        Widths of the network's hidden layers.
    n_coordinate_features : int
        Frequencies of cos and sin features of the coordinates; 2 or 3 help on low-dimensional data with sharp edges.
    n_steps, batch_size, learning_rate : int, int, float
        Of Adam; the rate falls to 0 along half a cosine.
    ema_decay : float
        Of the parameters' moving average, which is the network that samples.
    standardize : bool
        Work on (x − mean)/scale instead of x; see `StandardizedEstimator`.
    rng : int, Generator or None
        Of initial weights and training.

    Attributes
    ----------
    schedule_ : NoiseSchedule
        The forward process in force.
    network_ : NoiseNetwork
    losses_ : (steps,)
        Batch losses of training.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((256, 2))
    >>> model = DDPM(hidden=(16,), n_steps=20, rng=0).fit(x)
    >>> model.sample(3, rng=1).shape, model.elbo(x, rng=2).shape
    ((3, 2), (256,))
    """

    def __init__(
        self,
        schedule: NoiseSchedule | None = None,
        variance: str | Array = "beta",
        hidden: Sequence[int] = (128, 128, 128),
        n_coordinate_features: int = 0,
        n_steps: int = 5000,
        batch_size: int = 256,
        learning_rate: float = 5e-3,
        ema_decay: float = 0.999,
        standardize: bool = True,
        rng: RNG = None,
    ) -> None:
        self.schedule = schedule
        self.variance = variance
        self.hidden = hidden
        self.n_coordinate_features = n_coordinate_features
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.ema_decay = ema_decay
        self.standardize = standardize
        self.rng = rng

    def _build(self, dimension: int, rng: RNG = None) -> None:
        schedule = NoiseSchedule.linear(100) if self.schedule is None else self.schedule
        reverse_variance(schedule, self.variance)  # a wrong one is refused before training, not after
        super()._build(dimension, rng)
        self.schedule_ = schedule

    def _draw_levels(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        t = rng.integers(1, self.schedule_.T + 1, size=n)
        return self.schedule_.alpha_bar[t], self.schedule_.beta_bar[t]

    def eps_hat(self, x_t: Array, t: int) -> Array:
        """Predicted total noise ε̂(x_t, t) for one step t, (N, D); x_t in the model's units (`to_model`)."""
        self._require_fitted()
        check_time(self.schedule_, t)
        return self.network_(x_t, float(self.schedule_.alpha_bar[t]), float(self.schedule_.beta_bar[t]))

    def predict_score(self, x_t: Array, t: int) -> Array:
        """∇ log p_t(x_t) ≈ −ε̂/β̄_t, (N, D), in the model's units."""
        return -self.eps_hat(x_t, t) / float(self.schedule_.beta_bar[t])

    def sample_path(self, n: int, rng: RNG = None) -> Iterator[tuple[int, Array]]:
        """Yield (t, x_t) for t = T..0 along n ancestral trajectories, x_t in the model's units."""
        self._require_fitted()
        rng = as_generator(rng)
        x_T = rng.standard_normal((as_count(n, "n", minimum=0), self.n_features_in_), dtype=np.float32)
        return ancestral_sampler(self.schedule_, self.eps_hat, x_T, rng, self.variance)

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ(x_0), (n, D), in data units, by T ancestral steps."""
        _, x = deque(self.sample_path(n, rng), maxlen=1).pop()
        return self.to_data(x)

    def bound_terms(self, x: ArrayLike, rng: RNG = None) -> Array:
        """L_0, L_1, …, L_T of −ELBO for every example, (N, T+1), nats, in data units; see `ddpm.bound_terms`."""
        x0 = self.to_model(self._as_fitted_samples(x))
        noise = as_generator(rng).standard_normal((self.schedule_.T, *x0.shape))
        terms = bound_terms(self.schedule_, x0, self.eps_hat, noise, self.variance)
        terms[:, 0] += self._log_volume
        return terms

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """Unbiased estimate of the variational bound of log p_θ(x), (N,), nats: every step, one noise draw each."""
        return -self.bound_terms(x, rng).sum(axis=1)
