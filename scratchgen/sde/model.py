"""ScoreSDE: a score model trained by score matching, sampled by the reverse SDE, (30)-(34)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.diffusion import DiffusionModel, Levels
from scratchgen.estimator import Progress
from scratchgen.level_network import LevelNetwork
from scratchgen.likelihood import LOG_2PI, kl_diag_standard, levels_of, log_bin_mass
from scratchgen.noise_network import NoiseNetwork
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde.corrector import check_snr, predictor_corrector
from scratchgen.sde.flow import flow_map, heun
from scratchgen.sde.likelihood import probability_flow_log_prob
from scratchgen.sde.processes import VP, LinearSDE
from scratchgen.sde.reverse import euler_maruyama, reverse_times
from scratchgen.steps import STEP_CHOICES, StepChooser, stratified
from scratchgen.validation import RNG, Array, IntArray, as_choice, as_count, as_generator, as_number

if TYPE_CHECKING:
    from scratchgen.ddpm.model import DDPM


N_CELLS = 100  # of the clock, for time_choice="importance"


class ScoreSDE(DiffusionModel):
    """Score-based model with s_θ = −ε̂/std, (33), on a VP, sub-VP or VE process.

    Training is score matching that needs no true score: denoising, E‖s_θ + ε/std‖², or implicit or sliced; all have the
    minimiser of (33).  In ε̂ the first is E‖ε − ε̂‖²/std², so that a weighting λ(t) becomes a choice of where training
    times fall.

    Parameters
    ----------
    sde : VP, SubVP or VE, optional
        The forward process; VP() if None.
    t_min : float
        Where the process is stopped short of clean data: the score of data on a thin set is infinite at t = 0.
    weighting : {"likelihood", "noise"}
        λ(t) of (33).  "likelihood": g(t)², with which (33) is the bound (34); since g² dt/std² = −d(log-SNR), it is
        training times drawn evenly in log-SNR.  "noise": std(t)², times drawn evenly; better-looking samples.
    matching : {"denoising", "implicit", "sliced", "sliced-vr"}
        What is minimised, see `scratchgen.sde.matching`, times std² and plus D: the four have one expectation, that of
        ‖ε − ε̂‖².  All but "denoising" do without ε and differentiate the network along directions v instead, one an
        example, "implicit" D; "sliced-vr" has ‖s_θ‖² for (v·s_θ)².  They are slower and noisier.
    directions : {"rademacher", "gaussian"}
        The law of v in the sliced losses.
    time_choice : {"stratified", "uniform", "importance"}
        How training times are drawn; the expectation is the same.  "stratified": one in each of batch_size equal cells
        of the clock that the weighting makes even.  "importance": 100 cells, drawn with p ∝ √E[loss²] as training sees
        it (`scratchgen.steps.StepChooser`).  For independent draws that law's mean loss has the least variance, so that
        a log-SNR schedule learned on it (Kingma et al. 2021) would come to the same between the same ends.
    n_sample_steps : int
        Steps of `sample`, evenly spaced in log-SNR.
    n_levels : int, optional
        The data are whole numbers 0..n_levels−1, and −elbo/(D ln 2) is in bits per dimension.
    prediction : {"v", "levels"}
        What the MLP predicts: v, or, for whole numbers, `LevelNetwork`'s law over the n_levels, which is also the
        decoder P(x_0 | x_t) at t_min.
    hidden, n_coordinate_features, n_steps, batch_size, learning_rate, weight_decay, ema_decay, standardize, rng
        As for DDPM.

    Attributes
    ----------
    sde_ : LinearSDE
        The forward process in force.
    network_ : NoiseNetwork
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

    def __init__(
        self,
        sde: LinearSDE | None = None,
        t_min: float = 1e-3,
        weighting: str = "likelihood",
        matching: str = "denoising",
        directions: str = "rademacher",
        time_choice: str = "stratified",
        n_sample_steps: int = 250,
        n_levels: int | None = None,
        prediction: str = "v",
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
        self.sde = sde
        self.t_min = t_min
        self.weighting = weighting
        self.matching = matching
        self.directions = directions
        self.time_choice = time_choice
        self.n_sample_steps = n_sample_steps
        self.n_levels = n_levels
        self.prediction = prediction
        self.hidden = hidden
        self.n_coordinate_features = n_coordinate_features
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.standardize = standardize
        self.rng = rng

    def _build(self, dimension: int, rng: RNG = None) -> None:
        sde = VP() if self.sde is None else self.sde
        as_choice(self.weighting, "weighting", ("likelihood", "noise"))
        as_choice(self.matching, "matching", ("denoising", "implicit", "sliced", "sliced-vr"))
        as_choice(self.directions, "directions", ("rademacher", "gaussian"))
        if as_choice(self.prediction, "prediction", ("v", "levels")) == "levels" and self.matching != "denoising":
            raise ValueError(f"matching must be 'denoising' for prediction='levels', got {self.matching!r}")
        as_number(self.t_min, "t_min", low=0.0, high=sde.horizon, open_low=True)
        as_count(self.n_sample_steps, "n_sample_steps")
        self._chooser = StepChooser(N_CELLS, as_choice(self.time_choice, "time_choice", STEP_CHOICES))
        super()._build(dimension, rng)
        self.sde_ = sde

    def _time_at_clock(self, u: Array) -> Array:
        """Times for u in [0, 1], from the horizon to t_min, evenly in log-SNR."""
        low, high = self.sde_.log_snr(np.array([self.sde_.horizon, self.t_min]))
        return self.sde_.time_at(low + (high - low) * u)

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Score matching by Adam; yields after every step with the batch's E‖ε − ε̂‖², summed over dimensions.

        The loss that a perfect network would have is not 0; an implicit or a sliced one of a batch can be negative.
        """
        return self._train(x)

    def _draw_clock(self, n: int, rng: np.random.Generator) -> tuple[Array, Array | float]:
        """n draws from [0, 1], and what corrects the mean of a loss for their law."""
        if self.time_choice == "stratified":
            return stratified(n, rng), 1.0
        self._cell, correction = self._chooser.draw(n, rng)
        return (self._cell - rng.random(n)) / N_CELLS, correction

    def _draw_levels(self, n: int, rng: np.random.Generator) -> Levels:
        u, correction = self._draw_clock(n, rng)
        if self.weighting == "likelihood":
            times = self._time_at_clock(u)
        else:
            times = self.t_min + (self.sde_.horizon - self.t_min) * u
        return Levels(*self.sde_.marginal(times), correction)

    def _observe(self, losses: Array) -> None:
        if self.time_choice == "importance":
            self._chooser.observe(self._cell, losses)

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
        if self.matching == "denoising" or isinstance(network, LevelNetwork):
            return super()._differentiate(network, x_t, noise, level, weight, labels, rng)
        (n, D), scale, std = x_t.shape, level.scale, level.std
        if self.matching == "implicit":  # the mean over √D e_d is the divergence itself
            v = np.repeat(D**0.5 * np.eye(D), n, axis=0)
            x_t, scale, std, weight = np.tile(x_t, (D, 1)), np.tile(scale, D), np.tile(std, D), np.tile(weight, D) / D
        elif self.directions == "rademacher":
            v = rng.choice([-1.0, 1.0], size=x_t.shape)
        else:
            v = rng.standard_normal(x_t.shape)
        v, std = v.astype(x_t.dtype), std[:, None].astype(x_t.dtype)
        eps_hat, derivative = network.forward_along(x_t, v, scale, std)
        # std² · sliced_score_matching of s_θ = −ε̂/std
        if self.matching == "sliced":
            projected = (v * eps_hat).sum(axis=1, keepdims=True)
            losses, gradient = projected[:, 0] ** 2, 2 * projected * v
        else:
            losses, gradient = (eps_hat**2).sum(axis=1), 2 * eps_hat
        losses = losses - (2 * std * v * derivative).sum(axis=1)
        network.backward_along(weight[:, None] * gradient, -2 * weight[:, None] * std * v)
        return losses.reshape(-1, n).mean(axis=0) + D

    def eps_hat(self, x_t: Array, t: float) -> Array:
        """Predicted total noise ε̂(x_t, t) at one time t, (N, D); x_t in the model's units (`to_model`)."""
        self._require_fitted()
        t = as_number(t, "t", low=0.0, high=self.sde_.horizon, open_low=True)
        return self.network_(x_t, *self.sde_.level(t))

    def predict_score(self, x_t: Array, t: float) -> Array:
        """s_θ(x_t, t) = −ε̂/std ≈ ∇ log p_t(x_t), (N, D), in the model's units."""
        return -self.eps_hat(x_t, t) / float(self.sde_.std(t))

    def score_and_divergence(self, x_t: Array, t: float, probes: Array | None = None) -> tuple[Array, Array]:
        """s_θ and its divergence, (N, D) and (N,): exact by D backward passes, or Hutchinson's estimate.

        With `probes` v, (n, N, D) of E vvᵀ = I, it is the mean of vᵀ(∇s_θ)v by n backward passes.
        """
        self._require_fitted()
        t = as_number(t, "t", low=0.0, high=self.sde_.horizon, open_low=True)
        scale, std = self.sde_.level(t)
        eps_hat = self.network_.forward(x_t, scale, std)
        divergence = np.zeros(len(x_t))
        if probes is None:  # unit vectors, whose estimates add up to the divergence itself
            probes, weight = np.broadcast_to(np.eye(x_t.shape[1])[:, None], (x_t.shape[1], *x_t.shape)), 1.0
        else:
            weight = 1 / len(probes)
        for v in probes.astype(eps_hat.dtype):
            divergence += weight * (self.network_.backward(v) * v).sum(axis=1)
        return -eps_hat.astype(np.float64) / std, -divergence / std

    def sample_path(
        self,
        n: int,
        rng: RNG = None,
        churn: float = 1.0,
        method: str = "euler",
        n_corrections: int = 0,
        snr: float = 0.16,
    ) -> Iterator[tuple[float, Array]]:
        """Yield (t, x_t) from the horizon down to t_min along n trajectories, x_t in the model's units.

        The arguments are as for `sample`; "adaptive" yields the end alone.
        """
        self._require_fitted()
        if as_choice(method, "method", ("euler", "heun", "adaptive")) != "euler" and churn != 0:
            raise ValueError(f"method {method!r} is for the flow; pass churn=0, got {churn}")
        check_snr(snr)
        if as_count(n_corrections, "n_corrections", minimum=0) and method != "euler":
            raise ValueError(f"method must be 'euler' with n_corrections={n_corrections}, got {method!r}")
        sde, rng = self.sde_, as_generator(rng)
        shape = (as_count(n, "n", minimum=0), self.n_features_in_)
        x_T = sde.prior_std * rng.standard_normal(shape, dtype=np.float32)
        if method == "adaptive":
            return iter([(self.t_min, flow_map(sde, self.predict_score, x_T, sde.horizon, self.t_min, rtol=1e-4))])
        times = reverse_times(sde, self.n_sample_steps, self.t_min)
        if method == "heun":
            return heun(sde, self.predict_score, x_T, times)
        if n_corrections == 0:
            return euler_maruyama(sde, self.predict_score, x_T, times, rng, churn=churn)
        return predictor_corrector(
            sde, self.predict_score, x_T, times, rng, churn=churn, n_corrections=n_corrections, snr=snr
        )

    def sample(
        self,
        n: int,
        rng: RNG = None,
        churn: float = 1.0,
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
        churn : float
            1 is the reverse SDE, 0 the probability-flow ODE.
        method : {"euler", "heun", "adaptive"}
            "heun" and "adaptive" are for the flow, and need churn = 0: second order on the same grid with two calls of
            the network a step, or `flow_map` to 1e-4.
        n_corrections : int
            Langevin steps after every step of "euler", see `scratchgen.sde.predictor_corrector`.
        snr : float
            Their size.
        """
        rng = as_generator(rng)
        t, x = deque(self.sample_path(n, rng, churn, method, n_corrections, snr), maxlen=1).pop()
        scale, std = self.sde_.level(t)
        if isinstance(self.network_, LevelNetwork):
            return self.network_.draw(rng, x, scale, std)
        if self.n_levels is not None:
            return self._to_levels(self.to_data((x + std * rng.standard_normal(x.shape)) / scale))
        return self.to_data((x - std * self.eps_hat(x, t)) / scale)

    def to_ddpm(self, T: int, variance: str | Array = "beta") -> DDPM:
        """A fitted DDPM of T steps with the same network, (31) → (30): its chain has the process's law at t = T/T, ….

        Its bound comes down to this model's as T grows.  Only a variance-preserving process has such a chain.
        """
        from scratchgen.ddpm.model import DDPM

        self._require_fitted()
        return self._hand_over(DDPM(NoiseSchedule.from_sde(self.sde_, T), variance))

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
        rng, sde = as_generator(rng), self.sde_
        scale, std = sde.level(sde.horizon)
        prior_log_variance = np.full_like(x0, 2 * np.log(std / sde.prior_std))
        prior = kl_diag_standard(scale * x0 / sde.prior_std, prior_log_variance)
        log_snr = sde.log_snr(np.array([self.t_min, sde.horizon]))
        squared = np.zeros(len(x0))
        for cell in range(as_count(n_times, "n_times")):  # every example at a time of its own: their errors average out
            times = self._time_at_clock((cell + rng.random(len(x0))) / n_times)
            scales, stds = sde.marginal(times)
            noise = rng.standard_normal(x0.shape)
            eps_hat = self.network_(scales[:, None] * x0 + stds[:, None] * noise, scales, stds)
            squared += ((noise - eps_hat) ** 2).sum(axis=1)
        integral = 0.5 * float(log_snr[0] - log_snr[1]) * squared / n_times
        return -(prior + integral + self._decoder_loss(x0, rng) + self._log_volume)

    def _decoder_loss(self, x0: Array, rng: np.random.Generator) -> Array | float:
        """−E log p(x_0 | x_{t_min}), (N,), or a number if it is the same for all, nats."""
        scale, std = self.sde_.level(self.t_min)
        if self.n_levels is None:  # E‖x_{t_min}/scale − x‖² is exactly D (std/scale)²
            return 0.5 * x0.shape[1] * (LOG_2PI + 1 + 2 * np.log(std / scale))
        x_t, levels = scale * x0 + std * rng.standard_normal(x0.shape), levels_of(x0, self.n_levels)
        if isinstance(self.network_, LevelNetwork):
            return -self.network_.log_mass(levels, x_t, scale, std)
        return -log_bin_mass(levels, x_t / scale, std / scale, self.n_levels).sum(axis=1)

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

        def score_and_divergence(x_t: Array, t: float) -> tuple[Array, Array]:
            return self.score_and_divergence(x_t, t, probes)

        flow = probability_flow_log_prob(self.sde_, score_and_divergence, points, self.t_min, rtol)
        return flow - self._log_volume

    def score_samples(self, x: ArrayLike) -> Array:
        """`log_prob`, (N,), nats; with `n_levels` `elbo` with the model's own `rng`."""
        return self.log_prob(x) if self.n_levels is None else self.elbo(x, self.rng)
