"""DDPM: noise prediction, ancestral sampling and the variational bound, (19)-(29)."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.ddpm.kernels import check_time, q_sample
from scratchgen.ddpm.objective import bound_terms, loss_weight, mean_square_step
from scratchgen.ddpm.predictions import PREDICTIONS, noise_from
from scratchgen.ddpm.samplers import ancestral_sampler, ddim_sampler, reverse_variance
from scratchgen.diffusion import DiffusionModel, Levels
from scratchgen.estimator import Progress
from scratchgen.level_network import LevelNetwork
from scratchgen.likelihood import levels_of
from scratchgen.noise_network import Head
from scratchgen.schedule import NoiseSchedule
from scratchgen.steps import StepChooser
from scratchgen.validation import RNG, Array, IntArray, as_choice, as_count, as_generator, as_number

if TYPE_CHECKING:
    from scratchgen.sde.model import ScoreSDE
    from scratchgen.sde.processes import LinearSDE


class DDPM(DiffusionModel):
    """Denoising diffusion probabilistic model (Ho, Jain and Abbeel 2020) with an MLP.

    Trained on E_t λ_t ‖ε − ε̂(x_t, t)‖² with t uniform on 1..T: (29), with λ_t in place of its weight.

    Parameters
    ----------
    schedule : NoiseSchedule, optional
        The forward process; NoiseSchedule.linear(100) if None.
    variance : {"beta", "posterior", "optimal"} or (T+1,) array
        σ_t² of the reverse steps, see `scratchgen.ddpm.reverse_variance`.  "optimal" is v_t, the best for the bound,
        estimated from the noise losses on the training data when training ends (and β_t² until then).
    prediction : {"v", "noise", "x0", "step", "levels"}
        What the MLP predicts, see `scratchgen.ddpm.noise_from`; the model's other verbs see its ε̂.  "levels", for whole
        numbers, is `LevelNetwork`'s law over the n_levels, which is also the decoder p_θ(x_0 | x_1).
    weighting : {"simple", "bound", "x0", "v", "min-snr"}
        λ_t, see `scratchgen.ddpm.loss_weight`.
    step_choice : {"uniform", "stratified", "importance"}
        How t is drawn, see `scratchgen.steps.StepChooser`; the loss's expectation is the same.
    n_levels : int, optional
        The data are whole numbers 0..n_levels−1: L_0 is the mass of their bins, and −elbo/(D ln 2) is in bits per
        dimension.
    clip_x0 : bool
        Cut x̂_0 to [−1, 1], where whole numbers lie after scaling, and take the ε̂ that belongs to it; needs `n_levels`.
        E[x_0 | x_t] lies there, so that no x̂_0 becomes worse.  (Others do so in sampling and in the bound by default.)
    n_classes : int
        With labels 0..n_classes−1 given to `fit` the network learns ε̂(x_t, t, y) as well as ε̂(x_t, t).
    p_unlabelled : float
        Part of the examples whose label is withheld in training.
    hidden : sequence of int
        Widths of the network's hidden layers.
    n_coordinate_features : int
        Frequencies of cos and sin features of the coordinates; 2 or 3 help on low-dimensional data with sharp edges.
    n_steps, batch_size, learning_rate : int, int, float
        Of Adam; the rate falls to 0 along half a cosine.
    weight_decay, ema_decay : float
        Of AdamW; of the parameters' moving average, which is the network that samples.
    standardize : bool
        Work on (x − mean)/scale instead of x; see `StandardizedEstimator`.
    rng : int, Generator or None
        Of initial weights and training.

    Attributes
    ----------
    schedule_ : NoiseSchedule
        The forward process in force.
    variance_ : (T+1,)
        σ_t² in force.
    network_ : NoiseNetwork
    losses_ : (steps,)
        Batch losses of training, with λ_t.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((256, 2))
    >>> model = DDPM(variance="optimal", hidden=(16,), n_steps=20, rng=0).fit(x)
    >>> model.sample(3, rng=1).shape, model.elbo(x, rng=2).shape
    ((3, 2), (256,))
    >>> model.respace(10).sample(3, rng=1, eta=0.0).shape  # DDIM, ten network calls
    (3, 2)

    With labels, and guidance:

    >>> y = (x[:, 0] > 0).astype(int)
    >>> model = DDPM(n_classes=2, weighting="min-snr", hidden=(16,), n_steps=20, rng=0).fit(x, y)
    >>> model.sample(3, rng=1, y=[0, 1, 1], guidance=2.0).shape
    (3, 2)

    Whole numbers, in nats of masses:

    >>> levels = np.random.default_rng(0).integers(0, 4, (200, 3))
    >>> model = DDPM(n_levels=4, weighting="bound", step_choice="importance", hidden=(16,), n_steps=20, rng=0)
    >>> model = model.fit(levels)
    >>> bool((model.elbo(levels, rng=1) < 0).all()), bool((model.sample(5, rng=2) % 1 == 0).all())
    (True, True)
    """

    _fitted: ClassVar[tuple[str, ...]] = (*DiffusionModel._fitted, "variance_", "noise_losses_")
    variance_: Array
    noise_losses_: Array

    def __init__(
        self,
        schedule: NoiseSchedule | None = None,
        variance: str | Array = "beta",
        prediction: str = "v",
        weighting: str = "simple",
        step_choice: str = "uniform",
        n_levels: int | None = None,
        clip_x0: bool = False,
        n_classes: int = 0,
        p_unlabelled: float = 0.1,
        hidden: Sequence[int] = (128, 128, 128),
        n_coordinate_features: int = 0,
        n_steps: int = 5000,
        batch_size: int = 256,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.0,
        ema_decay: float = 0.999,
        standardize: bool = True,
        rng: RNG = None,
    ) -> None:
        self.schedule = schedule
        self.variance = variance
        self.prediction = prediction
        self.weighting = weighting
        self.step_choice = step_choice
        self.n_levels = n_levels
        self.clip_x0 = clip_x0
        self.n_classes = n_classes
        self.p_unlabelled = p_unlabelled
        self.hidden = hidden
        self.n_coordinate_features = n_coordinate_features
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.standardize = standardize
        self.rng = rng

    # --- training --------------------------------------------------------------------------------------------------

    def fit(self, x: ArrayLike, y: object = None) -> Self:
        """Train from scratch on x, (N, D), to the end; y (N,) are labels with `n_classes`, and ignored without."""
        for _ in self.train(x, y):
            pass
        return self

    def train(self, x: ArrayLike, y: object = None) -> Iterator[Progress]:
        """Minimise E_t λ_t ‖ε − ε̂(x_t, t)‖² by Adam; yields after every step with the loss of the batch.

        It is summed over dimensions, and a perfect network's would not be 0.
        """
        as_count(self.n_classes, "n_classes", minimum=0)
        p_drop = as_number(self.p_unlabelled, "p_unlabelled", low=0.0, high=1.0)
        labels = None
        if self.n_classes:
            labels = self._as_labels(y, len(np.asarray(x)))
        yield from self._train(x, labels, p_drop)

    def _as_labels(self, y: object, n: int) -> IntArray:
        """Labels as ints (n,), within 0..n_classes−1."""
        labels = np.asarray(y)
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise ValueError(f"y must be {n} int labels, as n_classes={self.n_classes} says, got {y!r:.60}")
        if n and (labels.min() < 0 or labels.max() >= self.n_classes):
            raise ValueError(f"y must be in 0..{self.n_classes - 1}, got {labels.min()}..{labels.max()}")
        return labels

    def _given_labels(self, y: ArrayLike | None, n: int) -> IntArray | None:
        """The labels a caller gave, if any."""
        return None if y is None else self._as_labels(y, n)

    def _build(self, dimension: int, rng: RNG = None) -> None:
        schedule = NoiseSchedule.linear(100) if self.schedule is None else self.schedule
        # a wrong argument is refused before training, not after
        self.variance_ = reverse_variance(schedule, "beta" if self._estimates_variance else self.variance)
        as_choice(self.prediction, "prediction", (*PREDICTIONS, "levels"))
        if self.clip_x0 and self.n_levels is None:
            raise ValueError("clip_x0 needs n_levels, which says that x_0 lies in [−1, 1]; set it, or clip_x0=False")
        self._clips = bool(self.clip_x0)
        self._weight = loss_weight(schedule, self.weighting, self.variance_)
        self._chooser = StepChooser(schedule.T, self.step_choice)
        super()._build(dimension, rng)
        self.schedule_, self.noise_losses_ = schedule, np.zeros(0)

    @property
    def _estimates_variance(self) -> bool:
        return isinstance(self.variance, str) and self.variance == "optimal"

    def _draw_levels(self, n: int, rng: np.random.Generator) -> Levels:
        self._t, correction = self._chooser.draw(n, rng)
        schedule, t = self.schedule_, self._t
        return Levels(schedule.alpha_bar[t], schedule.beta_bar[t], self._weight[t] * correction, self._head(t))

    def _head(self, t: int | IntArray) -> Head | None:
        """What turns the network's output into ε̂; a `LevelNetwork` does that itself."""
        return None if self.prediction == "levels" else noise_from(self.schedule_, t, self.prediction)

    def _observe(self, losses: Array) -> None:
        self._chooser.observe(self._t, self._weight[self._t] * losses)

    def _finish(self, data: Array, rng: np.random.Generator) -> None:
        if self._estimates_variance:
            self.noise_losses_ = self._noise_losses(data, rng)
            self._use_best_variance()

    def _use_best_variance(self) -> None:
        best = mean_square_step(self.schedule_, self.noise_losses_, self.n_features_in_)
        self.variance_ = reverse_variance(self.schedule_, best)

    def _restore(self) -> None:
        variance, noise_losses = self.variance_, self.noise_losses_
        super()._restore()
        self.variance_, self.noise_losses_ = variance, noise_losses

    def respace(self, steps: int | ArrayLike) -> DDPM:
        """A fitted model with the same network and fewer steps, for faster sampling and its own bound.

        Parameters
        ----------
        steps : int, or 1-D array of ints
            How many of 1..T, evenly spaced, or which; see `NoiseSchedule.respace`.

        Raises
        ------
        ValueError
            If the steps are none of 1..T, `variance` was given as numbers, or `prediction` is "step": those mean
            something for the schedule of training only.
        """
        self._require_fitted()
        T = self.schedule_.T
        if isinstance(steps, int | np.integer):
            n = as_count(steps, "steps")
            if n > T:
                raise ValueError(f"steps must be at most the {T} steps of the schedule, got {n}")
            steps = -(-T * np.arange(1, n + 1) // n)
        if self.prediction == "step" or not isinstance(self.variance, str):
            raise ValueError("a model with prediction='step' or given variances cannot be respaced; train another")
        short = copy.copy(self)
        short.schedule = short.schedule_ = self.schedule_.respace(steps)
        if self._estimates_variance and len(self.noise_losses_):
            short.noise_losses_ = self.noise_losses_[np.concatenate([[0], np.asarray(steps)])]
            short._use_best_variance()
        else:
            short.variance_ = reverse_variance(short.schedule_, "beta" if self._estimates_variance else self.variance)
        return short

    def to_sde(self, sde: LinearSDE | None = None, t_min: float | None = None) -> ScoreSDE:
        """A fitted ScoreSDE with the same network, (30) → (31): to it a time is the noise level that it has.

        Parameters
        ----------
        sde : LinearSDE, optional
            VP() if None, which `NoiseSchedule.linear` discretises.
        t_min : float, optional
            Where the process stops; the level of the first step if None, below which the network was not trained.

        Raises
        ------
        ValueError
            If `prediction` is none that a ScoreSDE knows ("v", "levels"), or the model has labels or clip_x0.
        """
        from scratchgen.sde.model import ScoreSDE
        from scratchgen.sde.processes import VP

        self._require_fitted()
        if self.prediction not in ("v", "levels") or self.n_classes or self.clip_x0:
            raise ValueError(
                "only a model of prediction 'v' or 'levels', without labels and clip_x0, has a score SDE, got "
                f"{self.prediction!r}, n_classes={self.n_classes}, clip_x0={self.clip_x0}"
            )
        sde = VP() if sde is None else sde
        t_min = float(sde.time_at(np.log(self.schedule_.snr[1]))) if t_min is None else t_min
        return self._hand_over(ScoreSDE(sde, t_min))

    # --- prediction and sampling -----------------------------------------------------------------------------------

    def eps_hat(self, x_t: Array, t: int, y: ArrayLike | None = None, guidance: float = 1.0) -> Array:
        """Predicted total noise ε̂(x_t, t) for one step t, (N, D); x_t in the model's units (`to_model`).

        With labels y (N,), ε̂(x_t, t) + guidance · (ε̂(x_t, t, y) − ε̂(x_t, t)): 0 ignores the label, 1 is the model of
        p(x | y), more than 1 exaggerates it (Ho and Salimans 2022 count one less, w = guidance − 1).
        """
        self._require_fitted()
        check_time(self.schedule_, t)
        level = self._level(t)
        head = self._head(t)
        labels = self._given_labels(y, len(x_t))
        eps_hat = self.network_(x_t, *level, head, labels)
        if labels is not None and guidance != 1:
            free = self.network_(x_t, *level, head)
            eps_hat = free + as_number(guidance, "guidance") * (eps_hat - free)
        if self._clips:
            scale, std = level
            eps_hat = (x_t - scale * np.clip((x_t - std * eps_hat) / scale, -1, 1)) / std
        return eps_hat

    def predict_score(self, x_t: Array, t: int) -> Array:
        """∇ log p_t(x_t) ≈ −ε̂/β̄_t, (N, D), in the model's units."""
        return -self.eps_hat(x_t, t) / float(self.schedule_.beta_bar[t])

    def sample_path(
        self, n: int, rng: RNG = None, eta: float | None = None, y: ArrayLike | None = None, guidance: float = 1.0
    ) -> Iterator[tuple[int, Array]]:
        """Yield (t, x_t) for t = T..0 along n trajectories as in `sample`, x_t in the model's units."""
        self._require_fitted()
        rng = as_generator(rng)
        x_T = rng.standard_normal((as_count(n, "n", minimum=0), self.n_features_in_), dtype=np.float32)

        def eps_hat(x: Array, t: int) -> Array:
            return self.eps_hat(x, t, y, guidance)

        if eta is None:
            return ancestral_sampler(self.schedule_, eps_hat, x_T, rng, self.variance_)
        return ddim_sampler(self.schedule_, eps_hat, x_T, rng, eta)

    def sample(
        self,
        n: int,
        rng: RNG = None,
        eta: float | None = None,
        y: ArrayLike | None = None,
        guidance: float = 1.0,
    ) -> Array:
        """Draw n examples from p_θ(x_0), (n, D), in data units, by T ancestral steps.

        Parameters
        ----------
        n : int
        rng : int, Generator or None
        eta : float, optional
            DDIM steps with this η instead: 0 is deterministic given x_T.
        y : (n,) labels, optional
        guidance : float
            As for `eps_hat`.
        """
        rng = as_generator(rng)
        (t, x_1), (_, x) = deque(self.sample_path(n, rng, eta, y, guidance), maxlen=2)
        if isinstance(self.network_, LevelNetwork):
            return self.network_.draw(rng, x_1, *self._level(t), self._given_labels(y, n))
        return self._to_levels(self.to_data(x))

    def _level(self, t: int) -> tuple[float, float]:
        """ᾱ_t and β̄_t as Python floats, which leave float32 arrays float32."""
        return float(self.schedule_.alpha_bar[t]), float(self.schedule_.beta_bar[t])

    # --- likelihood ------------------------------------------------------------------------------------------------

    def noise_losses(self, x: ArrayLike, rng: RNG = None) -> Array:
        """ℓ_t = E‖ε − ε̂(x_t, t)‖² for t = 0..T, (T+1,), one noise draw an example and step; index 0 is 0."""
        return self._noise_losses(self.to_model(self._as_fitted_samples(x)), as_generator(rng))

    def _noise_losses(self, data: Array, rng: np.random.Generator) -> Array:
        losses = np.zeros(self.schedule_.T + 1)
        for t in range(1, self.schedule_.T + 1):
            noise = rng.standard_normal(data.shape)
            losses[t] = ((noise - self.eps_hat(q_sample(self.schedule_, t, data, noise), t)) ** 2).sum(axis=1).mean()
        return losses

    def bound_terms(self, x: ArrayLike, rng: RNG = None, y: ArrayLike | None = None) -> Array:
        """L_0, L_1, …, L_T of −ELBO for every example, (N, T+1), nats, in data units; see `ddpm.bound_terms`."""
        x0 = self.to_model(self._as_fitted_samples(x))
        noise = as_generator(rng).standard_normal((self.schedule_.T, *x0.shape))

        def eps_hat(x_t: Array, t: int) -> Array:
            return self.eps_hat(x_t, t, y)

        network, labels, decoder = self.network_, self._given_labels(y, len(x0)), None
        if isinstance(network, LevelNetwork):

            def decoder(x_1: Array) -> Array:
                return network.log_mass(levels_of(x0, len(network.levels)), x_1, *self._level(1), labels)

        terms = bound_terms(self.schedule_, x0, eps_hat, noise, self.variance_, self.n_levels, decoder)
        terms[:, 0] += self._log_volume
        return terms

    def elbo(self, x: ArrayLike, rng: RNG = None, y: ArrayLike | None = None) -> Array:
        """Unbiased estimate of the variational bound of log p_θ(x), (N,), nats: every step, one noise draw each.

        With labels y (N,) of log p_θ(x | y).
        """
        return -self.bound_terms(x, rng, y).sum(axis=1)
