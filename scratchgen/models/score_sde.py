"""ScoreSDE: the model that trains by score matching and samples by the reverse SDE, with two likelihoods, (30)-(34)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np

from scratchgen.blocks import by_blocks
from scratchgen.models.diffusion import DiffusionModel
from scratchgen.models.estimator import UNTRAINED, finite, framed
from scratchgen.models.network_model import TrainingLoop
from scratchgen.nn import AnyPredictor, CategoricalDenoiser
from scratchgen.sde import (
    DIRECTIONS,
    MATCHINGS,
    VP,
    WEIGHTINGS,
    LinearSDE,
    TimeSampler,
    diffusion_loss,
    euler_maruyama,
    exponential_sampler,
    flow_map,
    heun,
    predict_score,
    predict_x0,
    prior_loss,
    probability_flow_log_prob,
    reconstruction_loss,
    reverse_times,
    score_and_divergence,
    sinh_times,
    train,
)
from scratchgen.sde.processes import check_noise
from scratchgen.sde.training import N_CELLS
from scratchgen.timestep_sampling import STEP_CHOICES
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    as_arrays,
    as_choice,
    as_count,
    as_generator,
    as_number,
    as_stochasticity,
    as_widths,
)

METHODS = ("multistep", "ddim", "euler", "heun", "adaptive")  # of `ScoreSDE.sample`
LEAST_FLOWS = 4096  # that `log_prob` integrates at a time, since a call of the network for fewer rows takes as long


@dataclass(eq=False, repr=False)
class ScoreSDE(DiffusionModel):
    """Score-based model with s_θ = −ε̂/std, (33), on a VP, sub-VP or VE process (Song et al. 2021).

    The training loss, which `train` minimises, is one of three forms of score matching that do not need the true score:
    denoising, E‖s_θ + ε/std‖², implicit and sliced.  All three have the minimiser of (33).  Denoising score matching is
    E‖ε − ε̂‖²/std², so that a weighting λ(t) can be replaced by a distribution of training times.  The implicit and
    sliced losses of a batch can be negative.

    Parameters
    ----------
    sde : VP, SubVP or VE, optional
        Forward process; VP() if None.
    t_min : float
        Last time of the reverse process, above 0, because the score can be infinite at t = 0 (data on a manifold).
    weighting : {"likelihood", "noise"}
        λ(t) of (33).  "likelihood": g(t)², for which (33) is the bound (34); training times are then uniform in
        log-SNR, since g² dt/std² = −d(log-SNR).  "noise": std(t)², for which training times are uniform; samples often
        look better.
    matching : {"denoising", "implicit", "sliced", "sliced-vr"}
        Form of score matching, see `scratchgen.sde.matching`.  The loss is std² times the form, plus D for all but
        "denoising"; the expectation of all four is E‖ε − ε̂‖².  All but "denoising" differentiate the network along
        directions v: D of them for "implicit", one for "sliced" and "sliced-vr" (‖s_θ‖² in place of (v·s_θ)²).  They
        are slower and have more variance.
    directions : {"rademacher", "gaussian"}
        Distribution of v in the sliced forms.
    time_choice : {"stratified", "uniform", "importance"}
        Sampling of training times, see `scratchgen.sde.TimeSampler`.  The choice changes the variance of the loss, not
        its expectation.  "importance" has the least variance among independent draws; the learned log-SNR schedule of
        Kingma et al. (2021) has the same optimum between the same ends.
    n_sample_steps : int
        Steps of `sample` from the horizon to x_0, at least 2; the last one leads from t_min to the mean of x_0.  A step
        is one call of the network, so that `sample` makes exactly this number of calls; see its argument `method`.
        With the default, 50, a trained model of eight Gaussians samples as well as with 250 Euler-Maruyama steps:
        KL(p‖p_θ) was 0.0084 and 0.0095 nats (`python -m benchmarks.solvers`; means of three seeds with ranges of 0.003
        to 0.004); with 30 steps it was 0.0087, with 20 steps 0.0130.  Columns with heavy tails need 50: with 30 steps
        the standard deviations of samples are too small by up to a further tenth (`benchmarks/RESULTS.md`).
    n_levels : int, optional
        For whole numbers 0..n_levels−1: likelihoods are then probabilities, and −elbo/(D ln 2) is in bits/dim.
    prediction : {"v", "levels"}
        Quantity that the network predicts.  "levels" is for whole numbers: a `CategoricalDenoiser` predicts the
        distribution over the n_levels, which is also the decoder P(x_0 | x_t) at t_min.
    n_classes : int
        Number of classes.  With labels 0..n_classes−1 given to `fit`, the network learns ε̂(x_t, t, y) and ε̂(x_t, t).
        With prediction="levels" its law given a label starts from the histograms of the class.
    label_dropout : float
        As for DDPM.
    hidden, network, dropout, picture, n_coordinate_features
        As for DDPM; dropout needs matching="denoising".
    n_steps, batch_size, learning_rate, weight_decay, ema_decay, standardize, rng
        As for DDPM.
    augment : Shifts or Deformations, optional
        As for DDPM; it needs matching="denoising".
    early_stopping, validation_fraction, n_iter_no_change, verbose
        As for DDPM.

    Attributes
    ----------
    sde_ : LinearSDE
        Forward process of the fitted model.
    network_ : NoiseNetwork or CategoricalDenoiser
        Network with the averaged parameters.
    n_steps_ : int
        Number of planned steps.
    losses_ : (steps,)
        Loss of every training step.
    history_ : History
        As for DDPM.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((256, 2))
    >>> model = ScoreSDE(hidden=(16,), n_steps=20, rng=0).fit(x)
    >>> model.sample(3, rng=1).shape, model.log_prob(x[:5]).shape
    ((3, 2), (5,))
    >>> levels = np.random.default_rng(0).integers(0, 4, (256, 3))
    >>> model = ScoreSDE(n_levels=4, prediction="levels", hidden=(16,), n_steps=20, rng=0).fit(levels)
    >>> bool(abs(-model.elbo(levels, rng=1).mean() / (3 * np.log(2)) - 2) < 0.1)  # four equal levels: 2 bits
    True

    With labels, and guidance:

    >>> y = (x[:, 0] > 0).astype(int)
    >>> model = ScoreSDE(n_classes=2, hidden=(16,), n_steps=20, rng=0).fit(x, y)
    >>> model.sample(3, rng=1, y=[0, 1, 1], guidance=2.0).shape, model.elbo(x[:5], rng=2, y=y[:5]).shape
    ((3, 2), (5,))
    """

    sde: LinearSDE | None = None
    t_min: float = 1e-3
    weighting: str = "likelihood"
    matching: str = "denoising"
    directions: str = "rademacher"
    time_choice: str = "stratified"
    n_sample_steps: int = 50
    sde_: LinearSDE = field(init=False)

    # --- training --------------------------------------------------------------------------------------------------

    def _loop(self, x: ArrayLike, y: object, resume: bool) -> TrainingLoop:
        """Score matching on x and y with the arguments of the model."""
        self._check_parameters()
        sampler = TimeSampler(self._process, self.t_min, self.weighting, self.time_choice)
        parts = self._begin(x, y, sampler.cells, resume)
        network, adam, ema, data, labels, rng, state, validate, copies = parts
        losses = train(
            network,
            self.sde_,
            data,
            self.n_steps_,
            rng,
            adam=adam,
            ema=ema,
            sampler=sampler,
            matching=self.matching,
            directions=self.directions,
            labels=labels,
            label_dropout=self.label_dropout,
            augment=copies,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )
        return TrainingLoop(losses, state, rng, validate)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_choices()

    def _check_choices(self) -> None:
        """Raise ValueError or TypeError if a choice is none of its names, or two choices exclude each other."""
        as_choice(self.matching, "matching", MATCHINGS)
        as_choice(self.directions, "directions", DIRECTIONS)
        as_choice(self.weighting, "weighting", WEIGHTINGS)
        as_choice(self.time_choice, "time_choice", STEP_CHOICES)
        if as_choice(self.prediction, "prediction", ("v", "levels")) == "levels" and self.matching != "denoising":
            raise ValueError(f"matching must be 'denoising' for prediction='levels', got {self.matching!r}")
        if self.dropout and self.matching != "denoising":
            raise ValueError(f"dropout must be 0 for matching={self.matching!r}, got {self.dropout}; use 'denoising'")
        as_count(self.n_sample_steps, "n_sample_steps", minimum=2, maximum=10**7)
        if self.sde is not None and not isinstance(self.sde, LinearSDE):
            raise TypeError(f"sde must be a VP, SubVP or VE process or None, got {self.sde!r}; pass VP()")
        as_number(self.t_min, "t_min", low=0.0, high=self._process.horizon, open_low=True)
        if self.t_min == self._process.horizon:
            raise ValueError(
                f"t_min must be below the horizon {self._process.horizon}, where sampling starts; lower it"
            )
        check_noise(self._process, self.t_min)

    def set_fitted(self, **fitted: Any) -> Self:
        """Set fitted attributes and the forward process `sde_`; ValueError if t_min is not in (0, horizon]."""
        self._check_choices()
        return super().set_fitted(**fitted)

    @property
    def _process(self) -> LinearSDE:
        """`sde`, or its default."""
        return VP() if self.sde is None else self.sde

    @property
    def _n_calls(self) -> int:
        return 64  # the default of `elbo`

    @property
    def _n_times(self) -> int:
        return N_CELLS

    def _built_from(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """Add the forward process."""
        return super()._built_from(fitted) | {"sde_": self._process}

    # --- prediction and sampling -----------------------------------------------------------------------------------

    def _check_time(self, t: float) -> float:
        """Return t as a float; ValueError unless t is in (0, horizon]."""
        return as_number(t, "t", low=0.0, high=self.sde_.horizon, open_low=True)

    def eps_hat(
        self, x_t: Array, t: float, y: ArrayLike | None = None, guidance: float = 1.0, guidance_in: str = "eps"
    ) -> Array:
        """Predicted total noise ε̂(x_t, t), (N, D), for x_t (N, D) in the model's units and t in (0, horizon].

        Labels y, (N,), and guidance are as for DDPM.
        """
        x_t = as_arrays("x_t (N, D)", x_t, D=self.n_features_in_)
        return self._given(y, len(x_t), guidance, guidance_in)(x_t, *self.sde_.level(self._check_time(t)))

    def predict_score(
        self, x_t: Array, t: float, y: ArrayLike | None = None, guidance: float = 1.0, guidance_in: str = "eps"
    ) -> Array:
        """Score s_θ(x_t, t) = −ε̂/std ≈ ∇ log p_t(x_t), (N, D), in the model's units; arguments as for `eps_hat`."""
        x_t = as_arrays("x_t (N, D)", x_t, D=self.n_features_in_)
        return predict_score(self._given(y, len(x_t), guidance, guidance_in), self.sde_, x_t, self._check_time(t))

    def score_and_divergence(
        self, x_t: Array, t: float, probes: Array | None = None, y: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """s_θ, (N, D), and its divergence, (N,), in the model's units; see `scratchgen.sde.score_and_divergence`.

        With labels y, (N,), the score is that of p(x | y).
        """
        x_t, probes = as_arrays("x_t (N, D), probes? (n, N, D)", x_t, probes, D=self.n_features_in_)
        labels = None if y is None else self._as_labels(y, len(x_t))
        return score_and_divergence(self.network_, self.sde_, x_t, self._check_time(t), probes, labels)

    def sample_path(
        self,
        n: int,
        rng: RNG = None,
        stochasticity: float = 1.0,
        method: str = "multistep",
        n_corrections: int = 0,
        snr: float = 0.16,
        *,
        y: ArrayLike | None = None,
        guidance: float = 1.0,
        guidance_in: str = "eps",
    ) -> Iterator[tuple[float, Array]]:
        """Yield (t, x_t) from the horizon to t_min along n trajectories, x_t (n, D) in the model's units.

        Arguments are as for `sample`.  There are n_sample_steps points; "adaptive" yields the end only.

        Raises
        ------
        TypeError, ValueError
            If method is unknown, "heun" or "adaptive" is combined with stochasticity, corrections with another method
            than "euler", stochasticity is not in [0, 1e6], snr is not in [0, 1), n or n_corrections is negative, or the
            labels or guidance are wrong.
        ArithmeticError
            If x becomes NaN or infinite in an Euler-Maruyama step, or guidance is so large that ε̂ overflows.
        """
        as_choice(method, "method", METHODS)
        if as_stochasticity(stochasticity) != 0 and method in ("heun", "adaptive"):
            raise ValueError(f"method {method!r} needs stochasticity=0, got {stochasticity}; pass 0, or 'multistep'")
        as_number(snr, "snr", low=0.0, high=1 - 1e-9)
        if as_count(n_corrections, "n_corrections", minimum=0) and method != "euler":
            raise ValueError(f"method must be 'euler' with n_corrections={n_corrections}, got {method!r}")
        sde, rng, n_steps = self.sde_, as_generator(rng), as_count(self.n_sample_steps, "n_sample_steps", minimum=2)
        shape = (as_count(n, "n", minimum=0), self.n_features_in_)
        network = self._given(y, shape[0], guidance, guidance_in)
        x_T = sde.prior_std * rng.standard_normal(shape, dtype=np.float32)
        if method in ("multistep", "ddim"):
            return self._exponential_path(network, x_T, rng, stochasticity, multistep=method == "multistep")
        score = partial(predict_score, network, sde)
        if method == "adaptive":
            return iter([(self.t_min, flow_map(sde, score, x_T, sde.horizon, self.t_min, rtol=1e-4))])
        times = reverse_times(sde, n_steps - 1, self.t_min)
        if method == "heun":
            return heun(sde, score, x_T, times)
        return euler_maruyama(
            sde, score, x_T, times, rng, stochasticity=stochasticity, n_corrections=n_corrections, snr=snr
        )

    def _exponential_path(
        self, network: AnyPredictor, x_T: Array, rng: np.random.Generator, stochasticity: float, multistep: bool
    ) -> Iterator[tuple[float, Array]]:
        """`exponential_sampler` on the times of `sinh_times`."""
        times = sinh_times(self.sde_, self.n_sample_steps - 1, self.t_min)
        levels = np.stack(self.sde_.marginal(times), axis=1)
        path = exponential_sampler(partial(predict_x0, network), x_T, levels, rng, stochasticity, multistep)
        return ((float(times[i]), x) for i, x in path)

    @framed
    @finite(UNTRAINED)
    def sample(
        self,
        n: int,
        rng: RNG = None,
        stochasticity: float = 1.0,
        method: str = "multistep",
        n_corrections: int = 0,
        snr: float = 0.16,
        *,
        y: ArrayLike | None = None,
        guidance: float = 1.0,
        guidance_in: str = "eps",
        as_frame: bool = False,
    ) -> Array:
        """Draw n examples, (n, D), in units of the data, by the reverse SDE (32) and the mean of x_0 given x at t_min.

        With `n_levels` the last step is a draw from the decoder of `elbo` at t_min instead of the mean; with
        prediction="v" this draw needs no call of the network.

        Parameters
        ----------
        n : int
        rng : int, Generator or None
        stochasticity : float
            c: 1 for the reverse SDE, 0 for the probability-flow ODE.  With an exact score all c have the same law, and
            c from 0 to 0.5 needs the fewest calls.  With a trained score the law of the flow is further from the data:
            on eight Gaussians KL(p‖p_θ) was 0.044 nats for c = 0, 0.014 for 0.5 and 0.008 for 1, all with 50 calls
            (`python -m benchmarks.solvers`).
        method : {"multistep", "ddim", "euler", "heun", "adaptive"}
            "multistep": exponential steps that extrapolate the denoiser, `scratchgen.sde.exponential_step`, on the grid
            of `scratchgen.sde.sinh_times`; SDE-DPM-Solver++(2M), for stochasticity 0 DPM-Solver++(2M).  "ddim": the
            same steps without extrapolation; DDIM with η = c at stochasticity 0 and 1 only.  "euler": Euler-Maruyama
            steps, evenly spaced in log-SNR, which need n_sample_steps of some hundreds.  "heun": Heun's method on these
            times, of second order, with two calls of the network a step, 2 n_sample_steps − 1 in sum.  "adaptive":
            `scratchgen.sde.flow_map` with rtol 1e-4.  The last two need stochasticity 0.
        n_corrections : int
            Langevin steps after every Euler-Maruyama step, each with a call, see `scratchgen.sde.euler_maruyama`.
        snr : float
            Size of the Langevin steps, in [0, 1).
        y : (n,) of int, optional
            Labels.
        guidance, guidance_in
            As for `DDPM.sample`.
        as_frame : bool
            Return a pandas.DataFrame with the names of fit.
        """
        rng, n = as_generator(rng), as_count(n, "n", minimum=0)
        labels = None if y is None else self._as_labels(y, n)

        def draw(rows: slice) -> Array:
            n, own = rows.stop - rows.start, None if labels is None else labels[rows]
            guide: Any = {"y": own, "guidance": guidance, "guidance_in": guidance_in}
            path = self.sample_path(n, rng, stochasticity, method, n_corrections, snr, **guide)
            t, x = deque(path, maxlen=1).pop()
            scale, std = self.sde_.level(t)
            network = self._given(n=n, **guide)
            if isinstance(self.network_, CategoricalDenoiser):
                return network.draw(rng, x, scale, std)
            if self.n_levels is not None:
                return self._to_levels(self.to_data((x + std * rng.standard_normal(x.shape)) / scale))
            return self.to_data(predict_x0(network, x, scale, std))

        return by_blocks(draw, n, self._numbers_a_row())

    # --- likelihood ------------------------------------------------------------------------------------------------

    @finite(UNTRAINED)
    def elbo(self, x: ArrayLike, rng: RNG = None, n_times: int = 64, y: ArrayLike | None = None) -> Array:
        """Unbiased estimate of the continuous-time bound of log p_θ(x), (N,), nats (Kingma et al. 2021).

            −log p ≤ KL(q(x_T | x)‖π) + ½∫E‖ε − ε̂‖² d(log-SNR) − E log N(x; x_{t_min}/scale, (std/scale)² I)

        p_θ is the reverse SDE from the horizon to t_min, followed by that Gaussian decoder.  With `n_levels` the
        decoder is the mass of the Gaussian in the bins, or the network's distribution over the levels.  For the exact
        ε̂ and the exact decoder the mean of the bound over the data is −H(p) − KL(p_T‖π), since ½∫E‖ε − ε*‖² d(log-SNR)
        is then the mutual information of x_0 and x_{t_min} minus that of x_0 and x_T.

        Parameters
        ----------
        x : (N, D)
        rng : int, Generator or None
        n_times : int
            Number of stratified times of the integral for every example; each has one draw of the noise.
        y : (N,) of int, optional
            Labels; the bound is then that of log p_θ(x | y).
        """
        rng, sde, clock = as_generator(rng), self.sde_, TimeSampler(self.sde_, self.t_min)
        n_times, labels = as_count(n_times, "n_times"), self._labels_of(y, x)

        def bound(x0: Array, rows: slice) -> Array:
            network = self._given(None if labels is None else labels[rows], len(x0))
            decoder, loss = self._decoder_of_levels(x0, network, sde.level(self.t_min)), prior_loss(sde, x0)
            for cell in range(n_times):  # every example has its own time, so that errors average out
                t = clock.time_at((cell + rng.random(len(x0))) / n_times)
                loss += diffusion_loss(network, sde, x0, t, rng.standard_normal(x0.shape), self.t_min) / n_times
            noise = None if self.n_levels is None else rng.standard_normal(x0.shape)
            loss += reconstruction_loss(sde, x0, self.t_min, noise, self.n_levels, decoder)
            return -(loss + self._log_volume)

        return self._by_blocks(bound, x, self._numbers_a_row())

    @finite(UNTRAINED)
    def log_prob(
        self,
        x: ArrayLike,
        rtol: float = 1e-5,
        n_probes: int | None = None,
        rng: RNG = None,
        y: ArrayLike | None = None,
    ) -> Array:
        """Log-likelihood of the probability flow at t_min, (N,), nats, to the tolerance `rtol`.

        The divergence takes D backward passes at every evaluation of the flow.

        Parameters
        ----------
        x : (N, D)
        rtol : float
            Relative tolerance of the integrator.
        n_probes : int, optional
            For large D: number of random sign vectors, drawn once for every x, for an unbiased estimate of the
            divergence by n_probes backward passes (Hutchinson 1989; Grathwohl et al. 2019).
        rng : int, Generator or None
            Source of the sign vectors.
        y : (N,) of int, optional
            Labels; the log-likelihood is then that of p_θ(x | y).

        Raises
        ------
        ValueError
            With `n_levels`, since the flow has a density and whole numbers have probabilities.
        ArithmeticError
            If the integrator fails.
        """
        if self.n_levels is not None:
            raise ValueError("log_prob is a density, but with n_levels x has probabilities; use elbo")
        n, rng = None if n_probes is None else as_count(n_probes, "n_probes"), as_generator(rng)
        labels = self._labels_of(y, x)

        def log_prob(points: Array, rows: slice) -> Array:
            probes = None if n is None else rng.choice([-1.0, 1.0], size=(n, *points.shape))
            own = None if labels is None else labels[rows]
            score = partial(score_and_divergence, self.network_, self.sde_, probes=probes, labels=own)
            return probability_flow_log_prob(self.sde_, score, points, self.t_min, rtol) - self._log_volume

        # numbers that a backward pass needs: two for every unit; a residual block has 2 layers
        activations = (4 if self.network == "residual" else 2) * sum(as_widths(self.hidden, "hidden"))
        return self._by_blocks(log_prob, x, max((n or 0) * self.n_features_in_, activations), LEAST_FLOWS)

    def score_samples(self, x: ArrayLike) -> Array:
        """`log_prob` of x, (N,), nats; with `n_levels`, `elbo` with the model's own `rng`."""
        return self.log_prob(x) if self.n_levels is None else self.elbo(x, self.rng)
