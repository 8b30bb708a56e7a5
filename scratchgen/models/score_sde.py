"""ScoreSDE: the estimator over score matching, the reverse SDE and the continuous-time bound, (30)-(34)."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from scratchgen.likelihood import levels_of
from scratchgen.models.diffusion import DiffusionModel
from scratchgen.models.estimator import Progress
from scratchgen.nn import CategoricalDenoiser
from scratchgen.sde import (
    DIRECTIONS,
    MATCHINGS,
    VP,
    LinearSDE,
    TimeSampler,
    diffusion_loss,
    euler_maruyama,
    flow_map,
    heun,
    predict_score,
    prior_loss,
    probability_flow_log_prob,
    reconstruction_loss,
    reverse_times,
    score_and_divergence,
    train,
)
from scratchgen.validation import RNG, Array, ArrayLike, as_choice, as_count, as_generator, as_number


@dataclass(eq=False, repr=False)
class ScoreSDE(DiffusionModel):
    """Score-based model with s_θ = −ε̂/std, (33), on a VP, sub-VP or VE process.

    Training is score matching that needs no true score: denoising, E‖s_θ + ε/std‖², or implicit or sliced; all have the
    minimiser of (33).  In ε̂ the first is E‖ε − ε̂‖²/std², so that a weighting λ(t) becomes a law of training times.

    Parameters
    ----------
    sde : VP, SubVP or VE, optional
        The forward process; VP() if None.
    t_min : float
        Where the process is stopped short of clean data: the score of data on a thin set is infinite at t = 0.
    weighting : {"likelihood", "noise"}
        λ(t) of (33).  "likelihood": g(t)², with which (33) is the bound (34); since g² dt/std² = −d(log-SNR), these are
        training times drawn evenly in log-SNR.  "noise": std(t)², times drawn evenly; better-looking samples.
    matching : {"denoising", "implicit", "sliced", "sliced-vr"}
        The loss, see `scratchgen.sde.matching`, times std² and for all but "denoising" plus D: the four have one
        expectation, that of ‖ε − ε̂‖².  All but "denoising" do without ε and differentiate the network along directions
        v instead, one an example, "implicit" D; "sliced-vr" has ‖s_θ‖² for (v·s_θ)².  They are slower and noisier.
    directions : {"rademacher", "gaussian"}
        The law of v in the sliced losses.
    time_choice : {"stratified", "uniform", "importance"}
        How training times are drawn, see `scratchgen.sde.TimeSampler`; the loss's expectation is the same.  For
        independent draws "importance" has the least variance, so that a log-SNR schedule learned on it (Kingma et al.
        2021) would come to the same between the same ends.
    n_sample_steps : int
        Steps of `sample`, evenly spaced in log-SNR.
    n_levels : int, optional
        The data are whole numbers 0..n_levels−1, and −elbo/(D ln 2) is in bits per dimension.
    prediction : {"v", "levels"}
        Output of the MLP: v, or, for whole numbers, the law of a `CategoricalDenoiser` over the n_levels, which is also
        the decoder P(x_0 | x_t) at t_min.
    hidden, n_coordinate_features, n_steps, batch_size, learning_rate, weight_decay, ema_decay, standardize, rng
        As for DDPM.

    Attributes
    ----------
    sde_ : LinearSDE
        The forward process in force.
    network_ : NoiseNetwork or CategoricalDenoiser
    losses_ : (steps,)
        Batch losses of training.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((256, 2))
    >>> model = ScoreSDE(hidden=(16,), n_steps=20, rng=0).fit(x)
    >>> model.sample(3, rng=1).shape, model.log_prob(x[:5]).shape
    ((3, 2), (5,))
    >>> levels = np.random.default_rng(0).integers(0, 4, (256, 3))
    >>> model = ScoreSDE(n_levels=4, prediction="levels", hidden=(16,), n_steps=20, rng=0).fit(levels)
    >>> bool(abs(-model.elbo(levels, rng=1).mean() / (3 * np.log(2)) - 2) < 0.1)  # four equal levels are two bits
    True
    """

    sde: LinearSDE | None = None
    t_min: float = 1e-3
    weighting: str = "likelihood"
    matching: str = "denoising"
    directions: str = "rademacher"
    time_choice: str = "stratified"
    n_sample_steps: int = 250
    n_levels: int | None = None
    prediction: str = "v"
    hidden: Sequence[int] = (128, 128, 128)
    n_coordinate_features: int = 0
    n_steps: int = 5000
    batch_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    standardize: bool = True
    rng: RNG = None

    # --- training --------------------------------------------------------------------------------------------------

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Score matching by Adam; yields after every step with the batch's E‖ε − ε̂‖², summed over dimensions.

        The loss would not be 0 for a perfect network; an implicit or a sliced one of a batch can be negative.
        """
        as_choice(self.matching, "matching", MATCHINGS)
        as_choice(self.directions, "directions", DIRECTIONS)
        if as_choice(self.prediction, "prediction", ("v", "levels")) == "levels" and self.matching != "denoising":
            raise ValueError(f"matching must be 'denoising' for prediction='levels', got {self.matching!r}")
        as_count(self.n_sample_steps, "n_sample_steps")
        network, data, options = self._start(x)
        steps = train(
            network,
            self.parameters_,
            self.sde_,
            data,
            sampler=TimeSampler(self.sde_, self.t_min, self.weighting, self.time_choice),
            matching=self.matching,
            directions=self.directions,
            **options,
        )
        losses = np.empty(options["n_steps"])
        for step, loss in enumerate(steps, start=1):
            losses[step - 1], self.losses_ = loss, losses[:step]
            yield Progress(step, len(losses), loss)

    def set_fitted(self, **fitted: Any) -> Self:
        """Take over fitted attributes; the process in force is `sde`, stopped at `t_min`."""
        sde = VP() if self.sde is None else self.sde
        as_number(self.t_min, "t_min", low=0.0, high=sde.horizon, open_low=True)
        self.sde_ = sde
        return super().set_fitted(**fitted)

    # --- prediction and sampling -----------------------------------------------------------------------------------

    def _check_time(self, t: float) -> float:
        """A time of a fitted model's process, in (0, horizon]."""
        self._require_fitted()
        return as_number(t, "t", low=0.0, high=self.sde_.horizon, open_low=True)

    def eps_hat(self, x_t: Array, t: float) -> Array:
        """Predicted total noise ε̂(x_t, t) at one time t, (N, D); x_t in the model's units (`to_model`)."""
        t = self._check_time(t)
        return self.network_(x_t, *self.sde_.level(t))

    def predict_score(self, x_t: Array, t: float) -> Array:
        """s_θ(x_t, t) = −ε̂/std ≈ ∇ log p_t(x_t), (N, D), in the model's units."""
        t = self._check_time(t)
        return predict_score(self.network_, self.sde_, x_t, t)

    def score_and_divergence(self, x_t: Array, t: float, probes: Array | None = None) -> tuple[Array, Array]:
        """s_θ and its divergence in the model's units, (N, D) and (N,), see `scratchgen.sde.score_and_divergence`."""
        t = self._check_time(t)
        return score_and_divergence(self.network_, self.sde_, x_t, t, probes)

    def sample_path(
        self,
        n: int,
        rng: RNG = None,
        stochasticity: float = 1.0,
        method: str = "euler",
        n_corrections: int = 0,
        snr: float = 0.16,
    ) -> Iterator[tuple[float, Array]]:
        """Yield (t, x_t) from the horizon down to t_min along n trajectories, x_t in the model's units.

        The arguments are as for `sample`; "adaptive" yields the end alone.
        """
        self._require_fitted()
        if as_choice(method, "method", ("euler", "heun", "adaptive")) != "euler" and stochasticity != 0:
            raise ValueError(f"method {method!r} is for the flow; pass stochasticity=0, got {stochasticity}")
        as_number(snr, "snr", low=0.0, high=1 - 1e-9)
        if as_count(n_corrections, "n_corrections", minimum=0) and method != "euler":
            raise ValueError(f"method must be 'euler' with n_corrections={n_corrections}, got {method!r}")
        sde, rng = self.sde_, as_generator(rng)
        shape = (as_count(n, "n", minimum=0), self.n_features_in_)
        x_T = sde.prior_std * rng.standard_normal(shape, dtype=np.float32)
        score = partial(predict_score, self.network_, sde)
        if method == "adaptive":
            return iter([(self.t_min, flow_map(sde, score, x_T, sde.horizon, self.t_min, rtol=1e-4))])
        times = reverse_times(sde, self.n_sample_steps, self.t_min)
        if method == "heun":
            return heun(sde, score, x_T, times)
        return euler_maruyama(
            sde, score, x_T, times, rng, stochasticity=stochasticity, n_corrections=n_corrections, snr=snr
        )

    def sample(
        self,
        n: int,
        rng: RNG = None,
        stochasticity: float = 1.0,
        method: str = "euler",
        n_corrections: int = 0,
        snr: float = 0.16,
    ) -> Array:
        """Draw n examples, (n, D), in data units: Euler-Maruyama on (32), then the mean of x_0 given x at t_min.

        With `n_levels` a draw from the decoder that `elbo` assumes there, instead of the mean.

        Parameters
        ----------
        n : int
        rng : int, Generator or None
        stochasticity : float
            1 is the reverse SDE, 0 the probability-flow ODE.
        method : {"euler", "heun", "adaptive"}
            "heun" and "adaptive" are for the flow, and need stochasticity = 0: second order on the same grid with two
            calls of the network a step, or `flow_map` to 1e-4.
        n_corrections : int
            Langevin steps after every step of "euler", see `scratchgen.sde.euler_maruyama`.
        snr : float
            Their size.
        """
        rng = as_generator(rng)
        t, x = deque(self.sample_path(n, rng, stochasticity, method, n_corrections, snr), maxlen=1).pop()
        scale, std = self.sde_.level(t)
        if isinstance(self.network_, CategoricalDenoiser):
            return self.network_.draw(rng, x, scale, std)
        if self.n_levels is not None:
            return self._to_levels(self.to_data((x + std * rng.standard_normal(x.shape)) / scale))
        return self.to_data((x - std * self.eps_hat(x, t)) / scale)

    # --- likelihood ------------------------------------------------------------------------------------------------

    def elbo(self, x: ArrayLike, rng: RNG = None, n_times: int = 64) -> Array:
        """Unbiased estimate of the continuous-time bound of log p_θ(x), (N,), nats (Kingma et al. 2021).

            −log p ≤ KL(q(x_T | x)‖π) + ½∫E‖ε − ε̂‖² d(log-SNR) − E log N(x; x_{t_min}/scale, (std/scale)² I)

        for the reverse SDE from the horizon to t_min followed by that Gaussian decoder; with `n_levels` by the mass
        that it has in the bins, or by the network's law over the levels.  With the exact ε̂ and the exact law the bound
        is an equality but for KL(p_T‖π): ½∫E‖ε − ε*‖² d(log-SNR) is the information that x_{t_min} has on x_0.

        Parameters
        ----------
        n_times : int
            Stratified times, each with one noise draw, that estimate the integral for every example.
        """
        x0 = self.to_model(self._as_fitted_samples(x))
        rng, sde, clock = as_generator(rng), self.sde_, TimeSampler(self.sde_, self.t_min)
        loss = prior_loss(sde, x0)
        for cell in range(as_count(n_times, "n_times")):  # every example at a time of its own: their errors average out
            t = clock.time_at((cell + rng.random(len(x0))) / n_times)
            loss += diffusion_loss(self.network_, sde, x0, t, rng.standard_normal(x0.shape), self.t_min) / n_times
        noise = None if self.n_levels is None else rng.standard_normal(x0.shape)
        loss += reconstruction_loss(sde, x0, self.t_min, noise, self.n_levels, self._decoder(x0))
        return -(loss + self._log_volume)

    def _decoder(self, x0: Array) -> Callable[[Array], Array] | None:
        """The network's log P(x_0 | x_{t_min}) of levels as a function of x_{t_min}, (N,), if it has one."""
        network = self.network_
        if not isinstance(network, CategoricalDenoiser):
            return None
        levels, (scale, std) = levels_of(x0, len(network.levels)), self.sde_.level(self.t_min)
        return lambda x_t: network.log_mass(levels, x_t, scale, std)

    def log_prob(self, x: ArrayLike, rtol: float = 1e-5, n_probes: int | None = None, rng: RNG = None) -> Array:
        """log-likelihood of the probability flow started at t_min, (N,), nats, exact to `rtol`.

        The divergence takes D backward passes at every evaluation.  For large D, `n_probes` random signs v, drawn once
        for every x, make it an unbiased estimate by as many passes (Hutchinson; Grathwohl et al. 2019).

        Raises
        ------
        ValueError
            With `n_levels`: the flow has a density, and whole numbers have a mass.
        """
        if self.n_levels is not None:
            raise ValueError("log_prob is a density, and x are whole numbers with n_levels; use elbo")
        points = self.to_model(self._as_fitted_samples(x))
        probes = None
        if n_probes is not None:
            probes = as_generator(rng).choice([-1.0, 1.0], size=(as_count(n_probes, "n_probes"), *points.shape))
        score = partial(score_and_divergence, self.network_, self.sde_, probes=probes)
        return probability_flow_log_prob(self.sde_, score, points, self.t_min, rtol) - self._log_volume

    def score_samples(self, x: ArrayLike) -> Array:
        """`log_prob`, (N,), nats; with `n_levels` `elbo` with the model's own `rng`."""
        return self.log_prob(x) if self.n_levels is None else self.elbo(x, self.rng)
