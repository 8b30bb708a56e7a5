"""DDPM: the model around Algorithm 1, Algorithm 2 and the variational bound, (19)-(29)."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from scratchgen.blocks import blocks, by_blocks
from scratchgen.ddpm import (
    LEVEL_STEPS,
    PREDICTIONS,
    WEIGHTINGS,
    EpsHat,
    LevelLaw,
    ancestral_sampler,
    bound_terms,
    ddim_sampler,
    forward_log_prob,
    loss_weight,
    noise_error,
    optimal_reverse_variance,
    predict_noise,
    predict_x0,
    q_path,
    q_sample,
    reconstruction_loss,
    reverse_log_prob,
    reverse_variance,
    train,
)
from scratchgen.likelihood import level_values
from scratchgen.models.diffusion import DiffusionModel
from scratchgen.models.estimator import UNTRAINED, finite, framed
from scratchgen.models.files import FLOAT64, Form
from scratchgen.models.network_model import TrainingLoop
from scratchgen.nn import CategoricalDenoiser, GuidedNetwork
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import exponential_sampler
from scratchgen.timestep_sampling import STEP_CHOICES, TimestepSampler
from scratchgen.vae import importance_weighted_bound
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    as_arrays,
    as_choice,
    as_count,
    as_generator,
    as_stochasticity,
    check_flag,
)

ESTIMATED = ("optimal", "optimal-diag")  # variances that are estimated at the end of training
LEAST_PATHS = 64  # that `iwae` computes at a time, since a call of the network for fewer rows takes as long


@dataclass(eq=False, repr=False)
class DDPM(DiffusionModel):
    """Denoising diffusion probabilistic model (Ho, Jain and Abbeel 2020) with an MLP.

    The training loss is E_t λ_t ‖ε − ε̂(x_t, t)‖² with t uniform on 1..T, which is (29) with λ_t as its weight.  `train`
    minimises it by Algorithm 1.

    Parameters
    ----------
    schedule : NoiseSchedule, optional
        Forward process; NoiseSchedule.linear(100) if None.
    variance : {"beta", "posterior", "optimal", "optimal-diag", "law", "mixture"} or (T+1,) array
        σ_t² of the reverse steps, see `scratchgen.ddpm.reverse_variance`.  "optimal" is the σ_t² with the least bound,
        see `scratchgen.ddpm.optimal_reverse_variance`, estimated on the training data at the end of training; before
        the end it is β_t².  "optimal-diag" is the same with one variance for each dimension.  "law" and "mixture" need
        prediction="levels" and no estimate: the reverse step is the Gaussian with the mean and the variance of
        `scratchgen.ddpm.law_moments`, or the mixture itself, `scratchgen.ddpm.mixture_log_prob`.
    prediction : {"v", "noise", "x0", "step", "levels"}
        Quantity that the MLP predicts, see `scratchgen.ddpm.eps_coefficients`; all other methods use the resulting ε̂.
        With the default "v" the errors of ε̂ and of x̂_0 are both at most that of the MLP, at every t.  "levels" is for
        whole numbers: a `CategoricalDenoiser` predicts the distribution over the n_levels, which is also the decoder
        p(x_0 | x_1).
    weighting : {"simple", "bound", "x0", "v", "min-snr"}
        λ_t, see `scratchgen.ddpm.loss_weight`.
    step_choice : {"uniform", "stratified", "importance"}
        Sampling of t, see `scratchgen.timestep_sampling.TimestepSampler`.  The choice changes the variance of the loss,
        not its expectation.
    n_levels : int, optional
        For whole numbers 0..n_levels−1: L_0 is then minus the log mass of a bin, and −elbo/(D ln 2) is in bits/dim.
    clip_x0 : bool
        Clip x̂_0 to [−1, 1] and use the corresponding ε̂; needs `n_levels`.  Scaled whole numbers and E[x_0 | x_t] lie
        in [−1, 1], so that clipping never increases the error of x̂_0.  Many implementations clip by default, in
        sampling and in the bound.
    n_classes : int
        Number of classes.  With labels 0..n_classes−1 given to `fit`, the network learns ε̂(x_t, t, y) and ε̂(x_t, t).
        With prediction="levels" its law given a label starts from the histograms of the class.
    label_dropout : float
        Probability that the label of an example is left out in training; 0.1 is a value of Ho and Salimans (2022).
    hidden : sequence of int
        Widths of the network's hidden layers, or of its residual blocks, which have one width.
    network : {"mlp", "residual"}
        "mlp": fully connected layers.  "residual": a block of two layers for every width in hidden, whose result is
        added to its input; noise level and label enter every block, see `scratchgen.nn.ResidualMLP`.
    dropout : float
        Probability that a unit inside a residual block is dropped in a step of training; for network="residual".
    picture : (int, int), optional
        Height and width, if the columns of x are the pixels of a picture, row by row; for prediction="levels".  A small
        network shared over the pixels then sees the 5 × 5 neighbours of a pixel, see `scratchgen.nn.PictureNetwork`.
    n_coordinate_features : int, optional
        Number of frequencies of cos and sin features of the coordinates, see `scratchgen.nn.coordinate_features`.  None
        takes 1 for data of one or two columns, and 0 for more; `network_.n_coordinate_features` is the number.  Points
        in a plane often have sharp shapes, which the network learns much faster with one frequency; more frequencies
        help checkerboards, but small tables with smooth densities then have lower bounds of new rows
        (`python -m benchmarks.features`).
    n_steps : int, optional
        Number of gradient steps.  None takes 4 for every row that is not held out, but 100 at least and 5000 at most;
        `n_steps_` is the number.  With many more steps the network memorises the rows of a small table, and new rows
        have a low bound (`python -m benchmarks.tables`).  Sharp shapes in a plane need more steps: for 250 points of
        eight Gaussians set n_steps=5000 (`python -m benchmarks.steps`).
    batch_size : int
        Examples a step.
    learning_rate : float
        Largest learning rate of Adam.  The rate rises over the first min(100, n_steps // 10) steps and then falls to 0
        along half a cosine.
    weight_decay : float
        Weight decay of AdamW.
    ema_decay : float
        Largest decay of the moving average of the parameters; the model samples with the average.  Update n uses the
        decay min(ema_decay, (1 + n)/(10 + n)), so that the average is over about a ninth of the steps; the default
        limits it from 90,000 steps on.
    augment : Shifts or Deformations, optional
        Train on copies of the rows, whose numbers are told to the network, see `scratchgen.augmentation`.  Held-out
        rows, bounds and samples have no copies.
    standardize : bool or "global"
        Work on (x − mean)/scale instead of x, with a scale for every column (True) or one for all columns ("global");
        see `StandardizedEstimator`.
    early_stopping : bool
        Hold out rows of x, compute their bound about every 5 % of the steps, on the same noise, and keep the weights
        with the best bound; stop when the bound no longer improves.  The checks take about a tenth of the time.
    validation_fraction : float
        Part of the rows that is held out with `early_stopping`.
    n_iter_no_change : int
        Number of checks without a better bound after which training stops.  With 5, 24 trainings on iris and on eight
        Gaussians kept weights within 0.12 nats of the best ones of a full training; with 4, within 0.57 nats.
    verbose : bool or int
        Show progress on stderr in `fit` and `resume`: a bar with rich on a terminal, about ten lines otherwise.
    rng : int, Generator or None
        Source of initial weights and of training.

    Attributes
    ----------
    schedule_ : NoiseSchedule
        Forward process of the fitted model.
    variance_ : (T+1,), or (T+1, D) for "optimal-diag"
        σ_t² of the fitted model; β_t² for "law" and "mixture", whose steps do not use it.
    network_ : NoiseNetwork or CategoricalDenoiser
        Network with the averaged parameters.
    n_steps_ : int
        Number of planned steps.
    losses_ : (steps,)
        Loss of every training step, with λ_t.
    history_ : History
        Training loss and validation bound: `plt.plot(history_.steps, history_.losses)`, and
        `plt.plot(history_.validation_steps, history_.validation_bounds)`.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((256, 2))
    >>> model = DDPM(variance="optimal", hidden=(16,), n_steps=20, rng=0).fit(x)
    >>> model.sample(3, rng=1).shape, model.elbo(x, rng=2).shape
    ((3, 2), (256,))
    >>> model.respace(10).sample(3, rng=1, eta=0.0).shape  # DDIM with 10 calls of the network
    (3, 2)
    >>> model.respace(model.schedule_.sinh_steps(10)).sample(3, rng=1, stochasticity=1.0).shape  # SDE-2M, 10 calls
    (3, 2)

    With labels, and guidance:

    >>> y = (x[:, 0] > 0).astype(int)
    >>> model = DDPM(n_classes=2, weighting="min-snr", hidden=(16,), n_steps=20, rng=0).fit(x, y)
    >>> model.sample(3, rng=1, y=[0, 1, 1], guidance=2.0).shape
    (3, 2)

    With whole numbers, whose likelihoods are probabilities:

    >>> levels = np.random.default_rng(0).integers(0, 4, (200, 3))
    >>> model = DDPM(n_levels=4, weighting="bound", step_choice="importance", hidden=(16,), n_steps=20, rng=0)
    >>> model = model.fit(levels)
    >>> bool((model.elbo(levels, rng=1) < 0).all()), bool((model.sample(5, rng=2) % 1 == 0).all())
    (True, True)
    """

    _fitted: ClassVar[tuple[str, ...]] = (*DiffusionModel._fitted, "variance_", "noise_losses_")

    schedule: NoiseSchedule | None = None
    variance: str | Array = "beta"
    weighting: str = "simple"
    step_choice: str = "uniform"
    clip_x0: bool = False
    variance_: Array = field(init=False)
    noise_losses_: Array = field(init=False)
    schedule_: NoiseSchedule = field(init=False)
    _clips: bool = field(init=False)
    _of_levels: str = field(init=False)  # "law" or "mixture"; empty for steps with `variance_`

    # --- training --------------------------------------------------------------------------------------------------

    def _loop(self, x: ArrayLike, y: object, resume: bool) -> TrainingLoop:
        """Algorithm 1 on x and y with the arguments of the model; then `variance_`."""
        self._check_parameters()
        sampler = TimestepSampler(self._n_times, self.step_choice)
        network, adam, ema, data, labels, rng, state, validate, copies = self._begin(x, y, sampler, resume)
        losses = train(
            network,
            self.schedule_,
            data,
            self.n_steps_,
            rng,
            adam=adam,
            ema=ema,
            sampler=sampler,
            weights=loss_weight(self.schedule_, self.weighting, self._given_variance),
            prediction=self._eps_prediction,
            labels=labels,
            label_dropout=self.label_dropout,
            augment=copies,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )
        return TrainingLoop(losses, state, rng, validate, partial(self._estimate_variance, data, rng))

    def _estimate_variance(self, data: Array, rng: np.random.Generator) -> None:
        """Set `variance_` for variance="optimal" and "optimal-diag" at the end of training."""
        if self._estimates_variance:
            losses = self._noise_losses(lambda rows: data[rows], len(data), rng, self._is_diagonal)
            vars(self).update(noise_losses_=losses, variance_=self._best_variance(losses))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_choices()
        if self.schedule is not None and not isinstance(self.schedule, NoiseSchedule):
            raise TypeError(
                f"schedule must be a NoiseSchedule or None, got {self.schedule!r}; NoiseSchedule.linear(100)"
            )
        self._given_variance  # noqa: B018 - the check of `variance`

    def _check_choices(self) -> None:
        """Raise ValueError if a choice is none of its names, or clip_x0 is set without n_levels."""
        check_flag(self.clip_x0, "clip_x0")
        as_choice(self.prediction, "prediction", (*PREDICTIONS, "levels"))
        as_choice(self.weighting, "weighting", WEIGHTINGS)
        as_choice(self.step_choice, "step_choice", STEP_CHOICES)
        if isinstance(self.variance, str):
            as_choice(self.variance, "variance", ("beta", "posterior", *ESTIMATED, *LEVEL_STEPS))
            if self.variance in LEVEL_STEPS and self.prediction != "levels":
                raise ValueError(
                    f"variance={self.variance!r} needs prediction='levels', which predicts the law over the levels, "
                    f"got {self.prediction!r}; pass variance='optimal'"
                )
        if self.clip_x0 and self.n_levels is None:
            raise ValueError("clip_x0 needs n_levels, which scales x_0 to [−1, 1], got None; set it, or clip_x0=False")

    @property
    def _chain(self) -> NoiseSchedule:
        """`schedule`, or its default."""
        return NoiseSchedule.linear(100) if self.schedule is None else self.schedule

    def set_fitted(self, **fitted: Any) -> Self:
        """Set fitted attributes; the default of `variance_` is `variance`, or β_t² if it is estimated or unused."""
        self._check_choices()
        D = fitted.get("n_features_in_", 1)
        default = {"variance_": self._starting_variance(D), "noise_losses_": np.zeros((0, *self._per_dimension(D)))}
        return super().set_fitted(**(default | fitted))

    def _built_from(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """Add the chain, whether x̂_0 is clipped, and the kind of steps."""
        of_levels = str(self.variance) if self._uses_law else ""
        built = {"schedule_": self._chain, "_clips": bool(self.clip_x0), "_of_levels": of_levels}
        return super()._built_from(fitted) | built

    def _forms(self, n_features: int) -> dict[str, Form]:
        forms, own = super()._forms(n_features), self._per_dimension(n_features)
        return {
            **forms,
            "variance_": Form(FLOAT64, (self._chain.T + 1, *own)),
            "noise_losses_": Form(FLOAT64, (None, *own)),
        }

    def _check_fitted(self, **fitted: Any) -> None:
        super()._check_fitted(**fitted)
        reverse_variance(self._chain, fitted["variance_"], len(fitted["mean_"]))
        if len(fitted["noise_losses_"]) not in (0, self._chain.T + 1) or (fitted["noise_losses_"] < 0).any():
            raise ValueError(f"noise_losses_ must be empty or hold {self._chain.T + 1} numbers, none below 0")

    @property
    def _eps_prediction(self) -> str | None:
        """`prediction` of a NoiseNetwork; None for a `CategoricalDenoiser`, which returns ε̂ itself."""
        return None if isinstance(self.network_, CategoricalDenoiser) else self.prediction

    @property
    def _estimates_variance(self) -> bool:
        return isinstance(self.variance, str) and self.variance in ESTIMATED

    @property
    def _uses_law(self) -> bool:
        return isinstance(self.variance, str) and self.variance in LEVEL_STEPS

    @property
    def _is_diagonal(self) -> bool:
        return isinstance(self.variance, str) and self.variance == "optimal-diag"

    def _per_dimension(self, n_features: int) -> tuple[int, ...]:
        """Axes of σ_t² after that of t: (D,) if every dimension has its own variance, else ()."""
        return (n_features,) if self._is_diagonal else ()

    @property
    def _given_variance(self) -> Array:
        """σ_t² of `variance`, (T+1,), on the chain of the arguments; β_t² if it is estimated or depends on x_t."""
        unknown = self._estimates_variance or self._uses_law
        return reverse_variance(self._chain, "beta" if unknown else self.variance)

    def _starting_variance(self, n_features: int) -> Array:
        """`_given_variance` in the shape of `variance_`."""
        given = self._given_variance
        return np.repeat(given[:, None], n_features, axis=1) if self._is_diagonal else given

    @property
    def _n_times(self) -> int:
        return self._chain.T

    @property
    def _n_calls(self) -> int:
        return self._chain.T

    def _best_variance(self, noise_losses: Array) -> Array:
        D = self.n_features_in_
        return reverse_variance(self.schedule_, optimal_reverse_variance(self.schedule_, noise_losses, D), D)

    def respace(self, steps: int | ArrayLike) -> Self:
        """Return a fitted model with the same network and fewer steps, which samples faster and has its own bound.

        Parameters
        ----------
        steps : int, or (n,) of int
            Number of steps, evenly spaced in 1..T, or the steps themselves, see `NoiseSchedule.respace`, such as those
            of `NoiseSchedule.sinh_steps`.

        Raises
        ------
        TypeError
            If steps is neither an int nor an array of numbers.
        ValueError
            If steps are not in 1..T and rising.  If `variance` is an array or `prediction` is "step", which are tied to
            the schedule of training.
        """
        T = self.schedule_.T
        if np.isscalar(steps):
            n = as_count(steps, "steps", maximum=T)
            steps = -(-T * np.arange(1, n + 1) // n)
        if self.prediction == "step" or not isinstance(self.variance, str):
            raise ValueError("a model with prediction='step' or an array variance cannot be respaced; train another")
        short = copy.copy(self)
        short.training_state_ = None
        short.schedule = short.schedule_ = self.schedule_.respace(steps)
        short._params_of_fit = self._params_of_fit | {"schedule": short.schedule}
        if self._estimates_variance and len(self.noise_losses_):
            short.noise_losses_ = self.noise_losses_[np.concatenate([[0], np.asarray(steps)])]
            short.variance_ = short._best_variance(short.noise_losses_)
        else:
            short.variance_ = short._starting_variance(self.n_features_in_)
        return short

    # --- prediction and sampling -----------------------------------------------------------------------------------

    def _predictor(self, given: GuidedNetwork) -> Callable[[Array, int], Array]:
        """ε̂ as a function of x_t (n, D) and t, for n examples with the labels of `given`."""
        return partial(
            predict_noise,
            given.network,
            self.schedule_,
            labels=given.labels,
            guidance=given.guidance,
            guidance_in=given.guidance_in,
            prediction=self._eps_prediction,
            clip=self._clips,
        )

    def _reverse_steps(self, given: GuidedNetwork) -> tuple[EpsHat | LevelLaw, str | Array]:
        """`eps_hat` and `variance` of the reverse steps of n examples, as for `scratchgen.ddpm.bound_terms`."""
        if not self._of_levels:
            return self._predictor(given), self.variance_
        if given.guidance != 1 and given.guidance_in != "logits":
            raise ValueError(
                f"guidance_in must be 'logits' for ancestral steps with variance={self._of_levels!r} and guidance="
                f"{given.guidance:g}, got {given.guidance_in!r}; pass 'logits', or take DDIM steps (eta) or multistep "
                "steps (stochasticity)"
            )
        schedule, levels = self.schedule_, level_values(int(self._params_of_fit["n_levels"]))
        return LevelLaw(schedule, levels, lambda x_t, t: given.law(x_t, *self._level(t))), self._of_levels

    def eps_hat(
        self, x_t: Array, t: int, y: ArrayLike | None = None, guidance: float = 1.0, guidance_in: str = "eps"
    ) -> Array:
        """Predicted total noise ε̂(x_t, t), (N, D).

        Parameters
        ----------
        x_t : (N, D)
            In the model's units, see `to_model`.
        t : int
            In 1..T.
        y : (N,) of int, optional
            Labels.  ε̂ is then ε̂(x_t, t) + guidance · (ε̂(x_t, t, y) − ε̂(x_t, t)).
        guidance : float
            0 ignores the labels, 1 gives the model of p(x | y), and larger values strengthen the dependence on y.
            Values other than 1 need labels.
        guidance_in : {"eps", "logits"}
            Quantity that guidance mixes, see `scratchgen.nn.GuidedNetwork`: ε̂ as above, or, for prediction="levels",
            the logits of the law over the levels, from whose mean ε̂ then follows.
        """
        x_t = as_arrays("x_t (N, D)", x_t, D=self.n_features_in_)
        return self._predictor(self._given(y, len(x_t), guidance, guidance_in))(x_t, t)

    def predict_score(
        self, x_t: Array, t: int, y: ArrayLike | None = None, guidance: float = 1.0, guidance_in: str = "eps"
    ) -> Array:
        """Score −ε̂/β̄_t ≈ ∇ log p_t(x_t), (N, D), in the model's units; arguments as for `eps_hat`."""
        return -self.eps_hat(x_t, t, y, guidance, guidance_in) / float(self.schedule_.beta_bar[t])

    def sample_path(
        self,
        n: int,
        rng: RNG = None,
        eta: float | None = None,
        y: ArrayLike | None = None,
        guidance: float = 1.0,
        *,
        guidance_in: str = "eps",
        stochasticity: float | None = None,
        denoise_last: bool = False,
    ) -> Iterator[tuple[int, Array]]:
        """Yield (t, x_t) for t = T..0 along n trajectories, x_t (n, D) in the model's units; see `sample`."""
        self._check_sampler(eta, stochasticity, denoise_last)
        rng, n = as_generator(rng), as_count(n, "n", minimum=0)
        given = self._given(y, n, guidance, guidance_in)
        if eta is None and stochasticity is None:
            eps_hat, variance = self._reverse_steps(given)
        else:
            eps_hat, variance = self._predictor(given), self.variance_
        x_T = rng.standard_normal((n, self.n_features_in_), dtype=np.float32)
        if stochasticity is not None:
            return self._multistep_path(eps_hat, x_T, rng, stochasticity)
        if eta is not None:
            return ddim_sampler(self.schedule_, eps_hat, x_T, rng, eta)
        return ancestral_sampler(self.schedule_, eps_hat, x_T, rng, variance, denoise_last)

    def _multistep_path(
        self, eps_hat: Callable[[Array, int], Array], x_T: Array, rng: np.random.Generator, stochasticity: float
    ) -> Iterator[tuple[int, Array]]:
        """`exponential_sampler` on the levels of the steps T..0; the last step, to clean data, is the mean of x_0."""
        schedule = self.schedule_
        levels = np.stack([schedule.alpha_bar, schedule.beta_bar], axis=1)
        step_at = {(scale, std): t for t, (scale, std) in enumerate(levels.tolist())}

        def denoise(x_t: Array, scale: float, std: float) -> Array:
            t = step_at[scale, std]
            return predict_x0(schedule, t, x_t, eps_hat(x_t, t))

        path = exponential_sampler(denoise, x_T, levels[::-1], rng, stochasticity)
        return ((schedule.T - i, x) for i, x in path)

    def _check_sampler(self, eta: float | None, stochasticity: float | None, denoise_last: bool) -> None:
        """Raise ValueError for two kinds of steps at once, and for denoise_last=True unless they are ancestral."""
        check_flag(denoise_last, "denoise_last")
        if stochasticity is not None:
            as_stochasticity(stochasticity)
            if eta is not None:
                raise ValueError(
                    f"eta must be None with stochasticity={stochasticity:g}, got {eta!r}; pass eta for DDIM steps or "
                    "stochasticity for multistep ones"
                )
        if denoise_last and (eta is not None or stochasticity is not None):
            kind, given = ("DDIM", f"eta={eta!r}") if eta is not None else ("multistep", f"{stochasticity=!r}")
            raise ValueError(
                f"denoise_last must be False for {kind} steps, whose last step adds no noise, got True with {given}; "
                "leave out denoise_last, or take ancestral steps"
            )
        if denoise_last and isinstance(self.network_, CategoricalDenoiser):
            raise ValueError(
                "denoise_last must be False for prediction='levels', whose last step draws whole numbers from "
                "P(x_0 | x_1), got True; leave it out"
            )

    @framed
    @finite(UNTRAINED)
    def sample(
        self,
        n: int,
        rng: RNG = None,
        eta: float | None = None,
        y: ArrayLike | None = None,
        guidance: float = 1.0,
        *,
        guidance_in: str = "eps",
        stochasticity: float | None = None,
        denoise_last: bool = False,
        as_frame: bool = False,
    ) -> Array:
        """Draw n examples, (n, D), in units of the data, by T ancestral steps: p_θ(x_0), the law that `elbo` is about.

        DDIM and multistep steps have other laws, for which the bound does not hold.  Every step is one call of the
        network; with guidance two.  `respace` gives the same network fewer steps.

        Parameters
        ----------
        n : int
        rng : int, Generator or None
        eta : float, optional
            η in [0, 1] of DDIM steps, which then replace the ancestral steps; for η = 0 x_T determines x_0.
        y : (n,) of int, optional
            Labels.
        guidance, guidance_in
            As for `eps_hat`.  Ancestral steps with variance "law" and "mixture" need a law over the levels, and
            therefore guidance in the logits.  With guidance in ε̂ the last draw of whole numbers is that given y.
        stochasticity : float, optional
            c of the multistep steps of `scratchgen.sde.exponential_step`, which then replace the ancestral steps: 0 for
            DPM-Solver++(2M), the flow, and 1 for SDE-DPM-Solver++(2M).  They are the best for few calls, if the t are
            those of `NoiseSchedule.sinh_steps`.  For a model of eight Gaussians with T = 100 and three seeds, KL(p‖p_θ)
            was 0.0098 nats with 20 of these steps and c = 1, 0.198 with 20 multistep steps evenly spaced in t, and
            0.0249 with 100 ancestral steps (`python -m benchmarks.solvers`).
        denoise_last : bool
            Return the mean of p_θ(x_0 | x_1), without the noise of the last step, which has the standard deviation σ_1.
            With `n_levels` the mean is rounded.  The law of these examples is not p_θ(x_0), the law that `elbo` is
            about.  An error for DDIM and multistep steps, whose last step adds no noise, and for prediction="levels",
            whose last step draws whole numbers.
        as_frame : bool
            Return a pandas.DataFrame with the names of fit.

        Raises
        ------
        TypeError, ValueError
            If an argument is wrong, or guidance is not 1 and there are no labels.
        ArithmeticError
            If guidance is so large that ε̂ overflows.
        """
        rng, n = as_generator(rng), as_count(n, "n", minimum=0)
        labels = None if y is None else self._as_labels(y, n)
        guide: Any = {"guidance": guidance, "guidance_in": guidance_in}
        further: Any = {"stochasticity": stochasticity, "denoise_last": denoise_last, **guide}

        def draw(rows: slice) -> Array:
            own = None if labels is None else labels[rows]
            path = self.sample_path(rows.stop - rows.start, rng, eta, own, **further)
            (_, x_1), (_, x) = deque(path, maxlen=2)
            if isinstance(self.network_, CategoricalDenoiser):
                return self._given(own, len(x_1), **guide).draw(rng, x_1, *self._level(1))
            return self._to_levels(self.to_data(x))

        return by_blocks(draw, n, self._numbers_a_row())

    def _level(self, t: int) -> tuple[float, float]:
        """ᾱ_t and β̄_t, the noise level of step t."""
        return float(self.schedule_.alpha_bar[t]), float(self.schedule_.beta_bar[t])

    # --- likelihood ------------------------------------------------------------------------------------------------

    @finite(UNTRAINED)
    def noise_losses(self, x: ArrayLike, rng: RNG = None) -> Array:
        """Estimate ℓ_t = E‖ε − ε̂(x_t, t)‖², (T+1,), from x (N, D), with one draw an example and step; ℓ_0 is 0."""
        x, rng = self._as_fitted_samples(x), as_generator(rng)
        self._check_units(x)
        return self._noise_losses(lambda rows: self._in_units(x[rows]), len(x), rng)

    def _noise_losses(
        self, data: Callable[[slice], Array], n: int, rng: np.random.Generator, by_dimension: bool = False
    ) -> Array:
        """ℓ_t, (T+1,), or ℓ_td, (T+1, D), of n examples; `data` gives blocks of them in the model's units."""
        losses = np.zeros((self.schedule_.T + 1, self.n_features_in_) if by_dimension else self.schedule_.T + 1)
        for t in range(1, self.schedule_.T + 1):
            for rows in blocks(n, self._numbers_a_row()):
                x0 = data(rows)
                noise = rng.standard_normal(x0.shape)
                error, slope = noise_error(noise, self.eps_hat(q_sample(self.schedule_, t, x0, noise), t))
                losses[t] += ((slope / 2) ** 2).sum(axis=0) if by_dimension else error.sum()  # slope is 2(ε̂ − ε)
        return losses / n

    def _decoder(self, x0: Array, given: GuidedNetwork) -> Callable[[Array], Array] | None:
        """log P(x_0 | x_1) of whole numbers x_0, (N,), as a function of x_1; None for real numbers."""
        n_levels, eps_hat = self.n_levels, self._predictor(given)
        if isinstance(self.network_, CategoricalDenoiser):
            return self._decoder_of_levels(x0, given, self._level(1))
        if n_levels is None:
            return None
        return lambda x_1: -reconstruction_loss(self.schedule_, x0, x_1, eps_hat, self.variance_, n_levels)

    @finite(UNTRAINED)
    def bound_terms(self, x: ArrayLike, rng: RNG = None, y: ArrayLike | None = None) -> Array:
        """The terms L_0, …, L_T of −ELBO of x, (N, D), in units of the data: (N, T+1), nats; see `ddpm.bound_terms`."""
        return self._sums_of_terms(lambda terms: terms, x, rng, y)

    def _sums_of_terms(self, f: Callable[[Array], Array], x: ArrayLike, rng: RNG, y: ArrayLike | None) -> Array:
        """f of the terms of the bound, (n, T+1), of blocks of n rows of x, (N, D), put together."""
        rng, labels, T = as_generator(rng), self._labels_of(y, x), self.schedule_.T

        def terms(x0: Array, rows: slice) -> Array:
            given = self._given(None if labels is None else labels[rows], len(x0))
            (steps, variance), decoder = self._reverse_steps(given), self._decoder(x0, given)
            noise, omega = ((rng.standard_normal(x0.shape) for _ in range(T)) for _ in range(2))  # ω: for the mixture
            terms = bound_terms(self.schedule_, x0, steps, noise, variance, decoder=decoder, omega=omega)
            terms[:, 0] += self._log_volume
            return f(terms)

        return self._by_blocks(terms, x, max(T + 1, self._numbers_a_row()))

    @finite(UNTRAINED)
    def elbo(self, x: ArrayLike, rng: RNG = None, y: ArrayLike | None = None) -> Array:
        """Unbiased estimate of the variational bound of log p_θ(x), (N,), nats, for x (N, D).

        The estimate sums over all steps, with one draw of the noise a step.  p_θ has the noise of the last step, as
        `sample` has by default; samples with `denoise_last` have another law.  With labels y, (N,), the bound is that
        of log p_θ(x | y).
        """
        return self._sums_of_terms(lambda terms: -terms.sum(axis=1), x, rng, y)

    @finite(UNTRAINED)
    def iwae(self, x: ArrayLike, rng: RNG = None, n_draws: int = 16, y: ArrayLike | None = None) -> Array:
        """Importance-weighted bound log (1/n) Σ_i p_θ(x_0, …, x_T)/q(x_1, …, x_T | x_0) over n paths, (N,), nats.

        The mean of the bound is the ELBO for n = 1, rises with n, and converges to log p_θ(x) (Burda et al. 2016).  If
        p_θ reverses the forward chain exactly, all paths have the same weight.

        Parameters
        ----------
        x : (N, D)
        rng : int, Generator or None
        n_draws : int
            n; a path takes T calls of the network.
        y : (N,) of int, optional
            Labels; the bound is then that of log p_θ(x | y).
        """
        rng, labels, schedule = as_generator(rng), self._labels_of(y, x), self.schedule_
        n_draws = as_count(n_draws, "n_draws")

        def bound(x0: Array, rows: slice) -> Array:
            given, log_weights = self._given(None if labels is None else labels[rows], len(x0)), []
            (steps, variance), decoder = self._reverse_steps(given), self._decoder(x0, given)
            for _ in range(n_draws):
                path = q_path(schedule, x0, (rng.standard_normal(x0.shape) for _ in range(schedule.T)))
                log_p = reverse_log_prob(schedule, path, steps, variance, decoder)
                log_weights.append(log_p - forward_log_prob(schedule, path))
            return importance_weighted_bound(np.array(log_weights)) - self._log_volume

        numbers = max(n_draws, (schedule.T + 1) * self._numbers_a_row())  # a path is kept as a whole
        return self._by_blocks(bound, x, numbers, least=LEAST_PATHS)
