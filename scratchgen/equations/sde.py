"""The problems of the rows about the SDE, (30)-(34)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from scratchgen.conformance import (
    Check,
    check_continuous_bound,
    check_divergence,
    check_heun,
    check_kl_bound,
    check_langevin_step,
    check_log_prob_bound,
    check_loss_gradient,
    check_probability_flow_likelihood,
    check_reverse_law,
    check_reverse_sampler,
    check_reverse_sde,
    check_reverse_step,
    check_score_matching,
    check_sde,
    check_time_draws,
    check_training,
    check_training_step,
)
from scratchgen.conformance.networks import printed_noise
from scratchgen.conformance.reference_chain import coefficients
from scratchgen.equations.nn import mlp_by_hand
from scratchgen.equations.problems import (
    DATA_COV,
    DATA_MEAN,
    LINE,
    OTHER_COV,
    PLANE,
    POINTS,
    SDE,
    Functions,
    GivenUniform,
    Remembering,
    gaussian_score,
    waves,
)
from scratchgen.equations.row import both, noted
from scratchgen.mixture import Mixture
from scratchgen.nn import EMA, NO_LABEL, Adam, NoiseNetwork
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.sde import TimeSampler
from scratchgen.sde.processes import VE, VP, LinearSDE, SubVP
from scratchgen.validation import Array, IntArray

T_MIN = 0.05
STOCHASTICITIES = 0.7, 0.0, 1.0
UNEVEN = np.array([1.7, 1.2, 0.9, 0.3, 0.05])  # a grid of times


def marginal(f: Functions) -> Check:
    """(31): scale and std, from x_t = scale · x_0 + std · ε and from the method that returns them."""

    def read_off(t: float) -> tuple[float, float]:
        scale, std, *_ = coefficients(lambda x0, noise: f("sde.VP.perturb")(SDE, t, x0, noise), 2)
        return scale, std

    return both(
        check_sde(read_off, SDE.drift, SDE.diffusion, SDE.horizon),
        check_sde(lambda t: f("sde.VP.marginal")(SDE, t), SDE.drift, SDE.diffusion, SDE.horizon),
    )


def reverse_sde(f: Functions) -> Check:
    """(32) for the flow, for the SDE, and between both; a value that is written into the code passes once only."""
    score = gaussian_score(SDE, DATA_MEAN, DATA_COV)
    return both(
        *(
            check_reverse_sde(
                lambda x, t, made=made: f("sde.reverse_drift")(SDE, score(x, t), x, t, made),  # type: ignore[misc]
                lambda t, made=made: made * SDE.diffusion(t),  # type: ignore[misc]
                SDE,
                DATA_MEAN,
                DATA_COV,
                stochasticity=made,
            )
            for made in STOCHASTICITIES
        )
    )


def score_matching(f: Functions) -> Check:
    """(33) for a score that is neither linear nor exact."""
    forms = (f("sde.denoising_score_matching"), f("sde.implicit_score_matching"), f("sde.sliced_score_matching"))
    on_a_line = check_score_matching(
        *forms, LINE, *SDE.level(0.4), lambda x: -x + 0.5 * np.sin(2 * x), lambda x: (-1 + np.cos(2 * x))[:, 0]
    )
    in_a_plane = check_score_matching(
        *forms,
        PLANE,
        *SDE.level(0.6),
        lambda x: -x + 0.5 * np.sin(x + x[:, ::-1]),
        lambda x: -2 + np.cos(x.sum(axis=1)),
    )
    noise, std = waves(4, 3), np.array([0.2, 0.5, 0.9, 1.4])
    directions = waves(4, 3, shift=2.0)
    return both(
        noted(on_a_line, "by `denoising_score_matching`, which calls `denoising_error`"),
        in_a_plane,
        check_loss_gradient(
            lambda score: f("sde.denoising_error")(score, noise, std),
            lambda score: ((score + noise / std[:, None]) ** 2).sum(axis=1),
            waves(4, 3, shift=1.0),
            "(33)",
        ),
        check_loss_gradient(
            lambda score: f("sde.denoising_error")(score, noise, 0.7),
            lambda score: ((score + noise / 0.7) ** 2).sum(axis=1),
            waves(4, 3, shift=1.0),
            "(33)",
        ),
        *_sliced_gradients(f, directions),
    )


def _sliced_gradients(f: Functions, v: Array) -> list[Check]:
    """`sliced_error` and its derivatives, with (v·s)² and with its mean in the place of (v·s)²."""
    score, derivative, checks = waves(4, 3, shift=1.0), waves(4, 3, shift=3.0), []
    for reduce_variance in (False, True):

        def written_out(score: Array, derivative: Array) -> Array:
            square = (score**2).sum(axis=1) if reduce_variance else np.einsum("nd,nd->n", v, score) ** 2  # noqa: B023
            return square + 2 * np.einsum("nd,nd->n", v, derivative)

        def by_score(s: Array) -> tuple[Array, Array]:
            losses, by, _ = f("sde.sliced_error")(s, v, derivative, reduce_variance)  # noqa: B023
            return losses, by

        def by_derivative(d: Array) -> tuple[Array, Array]:
            losses, _, by = f("sde.sliced_error")(score, v, d, reduce_variance)  # noqa: B023
            return losses, by

        checks.append(check_loss_gradient(by_score, lambda s: written_out(s, derivative), score, "(33)"))
        checks.append(check_loss_gradient(by_derivative, lambda d: written_out(score, d), derivative, "(33)"))
    return checks


def kl_bound(f: Functions) -> Check:
    """(34) as an equality."""
    return check_kl_bound(
        lambda score_error, prior_kl: f("sde.kl_bound")(SDE, score_error, prior_kl),
        SDE,
        DATA_MEAN,
        DATA_COV,
        -DATA_MEAN,
        OTHER_COV,
    )


def log_prob_bound(f: Functions) -> Check:
    """(34) for single examples: a mixture on a line with an even grid of noise, and a Gaussian with sigma points."""
    noise = np.linspace(-8.5, 8.5, 171)[:, None]  # gives the mean up to rounding
    weights = np.exp(-0.5 * noise[:, 0] ** 2)

    def bound(
        noise: Array,
        weights: Array,
        score_and_divergence: Callable[[Array, float], tuple[Array, Array]],
        prior_log_prob: Callable[[Array], Array],
        x: Array,
    ) -> Array:
        return f("sde.sde_log_prob_bound")(SDE, score_and_divergence, x, noise, weights, prior_log_prob=prior_log_prob)

    return both(
        check_log_prob_bound(
            partial(bound, noise, weights / weights.sum()), SDE, LINE, np.linspace(-4.0, 4.0, 6)[:, None]
        ),
        check_log_prob_bound(
            partial(bound, sigma_points(3), np.full(6, 1 / 6)),
            SDE,
            Mixture(np.ones(1), DATA_MEAN[None], DATA_COV[None]),
            3 * waves(5, 3),
        ),
    )


def reverse_step(f: Functions) -> Check:
    """One Euler-Maruyama step."""
    variance = np.diag(DATA_COV)
    score = gaussian_score(SDE, DATA_MEAN, np.diag(variance))

    def step(x: Array, t: float, s: float, noise: Array, made: float) -> Array:
        mean, std = f("sde.euler_step")(SDE, score(x, t), x, t, s, made)
        return mean + std * noise

    return both(
        *(check_reverse_step(partial(step, made=made), SDE, DATA_MEAN, variance, made) for made in STOCHASTICITIES)
    )


def reverse_sampler(f: Functions, n_corrections: int = 0) -> Check:
    """Euler-Maruyama on an uneven grid."""

    def score(x: Array, t: float) -> Array:
        return np.tanh(x + t) - x

    def sample(x: Array, times: Array, noise: Array, made: float) -> Array:
        *_, (_, end) = f("sde.euler_maruyama")(
            SDE, score, x, times, noise=noise, stochasticity=made, n_corrections=n_corrections, snr=0.3
        )
        return end

    return both(
        *(
            check_reverse_sampler(partial(sample, made=made), score, SDE, UNEVEN, made, n_corrections, snr=0.3)
            for made in STOCHASTICITIES
        )
    )


def flow(f: Functions) -> Check:
    """The probability flow of a mixture, with its exact p_T."""

    class FromExactEnd(VP):
        """An SDE whose prior is the p_T of the mixture."""

        def prior_log_prob(self, x: Array) -> Array:
            return PLANE.diffuse(*self.level(self.horizon)).log_prob(x)

    sde = FromExactEnd(SDE.beta_min, SDE.beta_max, SDE.horizon)

    def score_and_divergence(x: Array, t: float) -> tuple[Array, Array]:
        law = PLANE.diffuse(*sde.level(t))
        return law.score(x), np.trace(law.score_jacobian(x), axis1=1, axis2=2)

    return check_probability_flow_likelihood(
        lambda x: f("sde.probability_flow_log_prob")(sde, score_and_divergence, x, rtol=1e-9), PLANE, POINTS, sde
    )


def reverse_law(f: Functions) -> Check:
    """The distribution of the reverse SDE with a wrong score."""

    def moments(score: Callable[[Array, float], Array]) -> Any:
        return f("sde.reverse_moments")(SDE, score, np.zeros(2), np.eye(2))

    return check_reverse_law(moments, float(SDE.beta_integral(SDE.horizon)), 0.3)


def predictor_corrector(f: Functions) -> Check:
    """Euler-Maruyama with two Langevin steps after every step."""
    return reverse_sampler(f, n_corrections=2)


def langevin_step(f: Functions) -> Check:
    """One correction."""
    variance = np.array([0.8, 0.5, 1.3])

    def step(x: Array, t: float, noise: Array) -> Array:
        mean, std = f("sde.langevin_step")(SDE, -x / variance, x, t, 0.3)
        return mean + std * noise

    return check_langevin_step(step, SDE, variance, 0.3)


def heun(f: Functions) -> Check:
    """Heun's method on an uneven grid."""

    def score(x: Array, t: float) -> Array:
        return np.tanh(x + t) - x

    def sample(x: Array, times: Array) -> Array:
        *_, (_, end) = f("sde.heun")(SDE, score, x, times)
        return end

    return check_heun(sample, score, SDE, UNEVEN)


# --- training --------------------------------------------------------------------------------------------------------

N_STEPS = 20


def _small_network(D: int = 2, n_classes: int = 2) -> NoiseNetwork:
    """A network with labels; all of its parameters differ from 0."""
    network = NoiseNetwork(D, (3,), n_time_features=1, rng=0, dtype=np.float64, n_classes=n_classes)
    network.parameters[:] = 0.7 * waves(len(network.parameters))
    return network


def _printed_score(
    network: NoiseNetwork, parameters: Array, sde: LinearSDE, x: Array, t: Array, labels: IntArray
) -> Array:
    """s_θ = −ε̂/std from the formulas of the network, for times t and labels, (N,) each."""
    scale, std = (np.asarray(part) for part in sde.marginal(t))
    indicators = (labels[:, None] == np.arange(network.n_classes)).astype(np.float64)
    mlp = mlp_by_hand(parameters, network.mlp.sizes)
    return -printed_noise(mlp, x, scale, std, network.n_time_features, indicators) / std[:, None]


def _printed_losses(
    network: NoiseNetwork,
    parameters: Array,
    sde: LinearSDE,
    x0: Array,
    t: Array,
    noise: Array,
    labels: IntArray,
    directions: Array | None = None,
    reduce_variance: bool = False,
) -> Array:
    """‖s_θ(x_t) + ε/std‖²; with directions (M, N, D), the mean over them of (v·s_θ)² + 2 v·(∇s_θ v)."""
    scale, std = (np.asarray(part)[:, None] for part in sde.marginal(t))
    x_t = scale * x0 + std * noise
    score = _printed_score(network, parameters, sde, x_t, t, labels)
    if directions is None:
        return ((score + noise / std) ** 2).sum(axis=1)
    losses = []
    for v in directions:
        slope = central_difference(
            lambda h, v=v: _printed_score(network, parameters, sde, x_t + h * v, t, labels),  # type: ignore[misc]
            1e-2,
        )
        square = (score**2).sum(axis=1) if reduce_variance else (v * score).sum(axis=1) ** 2
        losses.append(square + 2 * (v * slope).sum(axis=1))
    return np.mean(losses, axis=0)


def score_step(f: Functions) -> Check:
    """A step of denoising score matching on five examples at different times, for two processes."""
    x0, noise, weight = waves(5, 2), waves(5, 2, shift=1.0), 1 + 0.5 * waves(5, shift=2.0)
    checks, labels = [], np.array([0, NO_LABEL, 1, 1, 0])
    for sde in (SDE, VE(0.1, 3.0, 1.3)):
        network, t = _small_network(), sde.horizon * np.array([0.1, 0.9, 0.3, 1.0, 0.6])

        def step(parameters: Array) -> tuple[Array, Array]:
            network.parameters[:] = parameters  # noqa: B023
            losses = f("sde.score_step")(network, sde, x0, t, noise, weight, labels=labels)  # noqa: B023
            return losses, network.gradient.copy()  # noqa: B023

        def losses(parameters: Array) -> Array:
            return _printed_losses(network, parameters, sde, x0, t, noise, labels)  # noqa: B023

        checks.append(check_training_step(step, losses, network.parameters.copy(), weight, "(33)"))
    return both(*checks)


def sliced_step(f: Functions) -> Check:
    """A step of sliced score matching, with and without reduced variance, on five examples with two directions."""
    x0, noise, weight = waves(5, 2), waves(5, 2, shift=1.0), 1 + 0.5 * waves(5, shift=2.0)
    t, directions = SDE.horizon * np.array([0.1, 0.9, 0.3, 1.0, 0.6]), waves(2, 5, 2, shift=3.0)
    checks, labels = [], np.array([0, NO_LABEL, 1, 1, 0])
    for reduce_variance in (False, True):
        network = _small_network()

        def step(parameters: Array) -> tuple[Array, Array]:
            network.parameters[:] = parameters  # noqa: B023
            losses = f("sde.sliced_step")(
                network,  # noqa: B023
                SDE,
                x0,
                t,
                noise,
                weight,
                directions,
                reduce_variance,  # noqa: B023
                labels=labels,
            )
            return losses, network.gradient.copy()  # noqa: B023

        def losses(parameters: Array) -> Array:
            return _printed_losses(network, parameters, SDE, x0, t, noise, labels, directions, reduce_variance)  # noqa: B023

        checks.append(check_training_step(step, losses, network.parameters.copy(), weight, "(33)"))
    return both(*checks)


class GivenTimes(TimeSampler):
    """A sampler of times that returns given times and weights."""

    def __init__(self, t: Array, weights: Array) -> None:
        super().__init__(SDE, T_MIN)
        self.draws = zip(t, weights, strict=True)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[IntArray, Array, Array]:
        """The next times and weights."""
        t, weights = next(self.draws)
        return np.arange(1, n + 1), t, weights


def train(f: Functions) -> Check:
    """The training loop of each form of score matching: labels, label dropout, uneven draws, moving average."""
    return both(*(_train(f, matching) for matching in ("denoising", "sliced", "sliced-vr", "implicit")))


def _train(f: Functions, matching: str) -> Check:
    data, n, n_steps = waves(9, 2), 4, N_STEPS if matching == "denoising" else 3
    times = T_MIN + (SDE.horizon - T_MIN) * (0.5 + 0.5 * waves(n_steps, n))
    corrections = 1 + 0.4 * waves(n_steps, n, shift=1.0)
    network, rng, classes = _small_network(), Remembering(), np.arange(9) % 2

    def run(parameters: Array) -> tuple[Array, Array, Array]:
        network.parameters[:] = parameters
        ema = EMA(parameters.copy(), 0.8)
        loop = f("sde.train")(
            network,
            SDE,
            data,
            n_steps,
            rng,
            adam=Adam(network.parameters),
            ema=ema,
            sampler=GivenTimes(times, corrections),
            matching=matching,
            labels=classes,
            label_dropout=0.3,
            batch_size=n,
            learning_rate=0.05,
        )
        return np.array(list(loop)), network.parameters.copy(), ema.average

    def loss(parameters: Array, step: int) -> float:
        rows, noise, t = rng.given["integers"][step], rng.given["standard_normal"][step], times[step]
        variance, D, directions = np.asarray(SDE.std(t)) ** 2, data.shape[1], None
        labels = np.where(rng.given["random"][step] < 0.3, NO_LABEL, classes[rows])
        if matching == "implicit":
            directions = np.stack([np.tile(D**0.5 * axis, (n, 1)) for axis in np.eye(D)])
        elif matching != "denoising":
            directions = rng.given["choice"][step][None]
        reduce_variance = matching == "sliced-vr"
        losses = _printed_losses(network, parameters, SDE, data[rows], t, noise, labels, directions, reduce_variance)
        return float(np.mean(corrections[step] * (variance * losses + (0 if directions is None else D))))

    return check_training(
        run, loss, network.parameters.copy(), n_steps, 0.05, n_steps // 10, ema_decay=0.8, equation="(33)"
    )


def time_draws(f: Functions) -> Check:
    """Times by each of the three choices, uniform in log-SNR and in time."""
    checks = []
    for weighting in ("likelihood", "noise"):
        for choice in ("stratified", "uniform", "importance"):
            sampler = TimeSampler(SDE, T_MIN, weighting, choice)
            for _ in range(12):
                sampler.observe(np.arange(1, 101), 1.5 + waves(100))

            def clock(t: Array, weighting: str = weighting) -> Array:
                if weighting == "noise":
                    return (t - T_MIN) / (SDE.horizon - T_MIN)
                low, high = (2 * np.log(a / b) for a, b in (SDE.level(SDE.horizon), SDE.level(T_MIN)))
                scale, std = SDE.marginal(t)
                return (2 * np.log(scale / std) - low) / (high - low)

            def draw(u: float, sampler: TimeSampler = sampler) -> tuple[Array, Array]:
                _, t, weights = f("sde.TimeSampler.draw")(sampler, 200, GivenUniform(u))
                return t, weights

            checks.append(check_time_draws(draw, clock))
    return both(*checks)


# --- scores and the bound of a network -------------------------------------------------------------------------------


class LinearNoise(NoiseNetwork):
    """ε̂ = slope · x at every noise level."""

    def __init__(self, slope: float) -> None:
        super().__init__(3, (), rng=0, dtype=np.float64)
        self.slope = slope

    def __call__(self, x: Array, *level: Any, **given: Any) -> Array:
        """slope · x."""
        return self.slope * x


def continuous_bound(f: Functions) -> Check:
    """The three terms for a linear network, on three processes."""
    x0, network = waves(5, 3), LinearNoise(0.6)
    return both(
        *(
            check_continuous_bound(
                lambda x0, sde=sde: f("sde.prior_loss")(sde, x0),  # type: ignore[misc]
                lambda x0, t, noise, sde=sde: f("sde.diffusion_loss")(network, sde, x0, t, noise, T_MIN),  # type: ignore[misc]
                lambda x0, noise, sde=sde: f("sde.reconstruction_loss")(sde, x0, T_MIN, noise),  # type: ignore[misc]
                sde,
                T_MIN,
                0.6,
                x0,
            )
            for sde in (SDE, VE(0.1, 3.0, 1.3), SubVP(0.3, 4.0, 1.7))
        )
    )


def score_and_divergence(f: Functions) -> Check:
    """The score of a network in three dimensions, its divergence, and Hutchinson's estimate with four probes."""
    network, x, t = _small_network(3, n_classes=0), waves(5, 3), 0.8
    scale, std = SDE.level(t)
    levels = np.ones(len(x))
    mlp = mlp_by_hand(network.parameters, network.mlp.sizes)

    def eps_hat(x: Array) -> Array:
        return printed_noise(mlp, x, scale * levels, std * levels, network.n_time_features, np.zeros((len(x), 0)))

    return check_divergence(
        lambda x, probes: f("sde.score_and_divergence")(network, SDE, x, t, probes), eps_hat, std, x, waves(4, 5, 3)
    )
