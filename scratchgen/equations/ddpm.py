"""The problems of the rows about the diffusion chain, (19)-(29)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from scratchgen.conformance import (
    Check,
    check_bin_masses,
    check_bound_terms,
    check_categorical_draw,
    check_chains,
    check_ddim_sampler,
    check_ddim_step,
    check_even_log_snr,
    check_loss_gradient,
    check_loss_weights,
    check_negative_elbo,
    check_noise_merging,
    check_optimal_variance,
    check_predicted_noise,
    check_sampler,
    check_step_draws,
    check_step_loss,
    check_training,
    check_training_step,
    check_variational_bound,
)
from scratchgen.conformance.networks import printed_noise
from scratchgen.conformance.reference_chain import compose
from scratchgen.ddpm import optimal_reverse_variance
from scratchgen.equations.nn import mlp_by_hand
from scratchgen.equations.problems import (
    AFFINE,
    DATA_COV,
    SCHEDULE,
    SDE,
    SIGMA_SQUARED,
    SLOPES,
    Functions,
    GivenNoise,
    GivenUniform,
    Remembering,
    waves,
)
from scratchgen.equations.row import both, noted
from scratchgen.likelihood import level_values, softmax
from scratchgen.nn import EMA, NO_LABEL, Adam, EpsCoefficients, NoiseNetwork
from scratchgen.schedule import NoiseSchedule
from scratchgen.timestep_sampling import TimestepSampler
from scratchgen.validation import Array, IntArray


def _net(x: Array, t: int) -> Array:
    """A noise predictor that is neither linear nor exact."""
    return 0.2 + 0.5 * x + 0.4 * np.sin(1.3 * x + 0.1 * t)


def _step_loss(loss: Callable[..., Array], t: int) -> Check:
    """The expected loss of one step, for a loss(t, x0, eps_bar_prev, eps_t, eps_hat)."""
    return check_step_loss(loss, SCHEDULE, t, _net, 0.3, 0.8, float(SIGMA_SQUARED[t]))


def chains(f: Functions) -> Check:
    """(19) on four paths in three dimensions."""
    return check_chains(
        lambda path: f("ddpm.forward_log_prob")(SCHEDULE, path),
        lambda path, eps_hat: f("ddpm.reverse_log_prob")(SCHEDULE, path, eps_hat, SIGMA_SQUARED),
        SCHEDULE,
        2 * waves(6, 4, 3),
        SLOPES,
        SIGMA_SQUARED,
    )


def bound_terms(f: Functions) -> Check:
    """(20), term by term, for an affine ε̂."""
    return check_variational_bound(
        lambda x0, eps_hat, noise: f("ddpm.bound_terms")(SCHEDULE, x0, eps_hat, noise, SIGMA_SQUARED),
        SCHEDULE,
        *AFFINE,
    )


def negative_elbo(f: Functions) -> Check:
    """(21) from the noise losses of the same ε̂."""
    return check_negative_elbo(
        lambda noise_loss, second, D: f("ddpm.negative_elbo")(SCHEDULE, noise_loss, second, D, SIGMA_SQUARED),
        SCHEDULE,
        *AFFINE,
    )


def whole_path(f: Functions, t: int, T: int) -> Check:
    """−log p_θ(x_{t−1} | x_t) on a path of T steps from the noise of every step.

    The noises of the steps 1..t−1 are a rotation of the total noise of x_{t−1} and of t−2 other numbers.  The loss must
    not depend on the others, nor on the noises after step t, so that the integrals over x_1..x_{t−2} and over
    x_{t+1}..x_T are over a constant.  The numbers differ from example to example.
    """
    short = NoiseSchedule(SCHEDULE.variances[:T])
    steps = compose(short)
    # x_{t−1} = scale x_0 + Σ_i direction_i std ε_i
    direction = np.sqrt(steps.variance[1:t]) * steps.scale[t - 1] / steps.scale[1:t] / steps.std[t - 1]

    def loss(t: int, x0: Array, eps_bar_prev: Array, eps_t: Array, eps_hat: Callable[[Array, int], Array]) -> Array:
        noise = 2 * waves(T, *x0.shape)
        noise[t - 1] = eps_t
        surplus = eps_bar_prev - np.tensordot(direction, noise[: t - 1], 1)
        noise[: t - 1] += direction[:, None, None] * surplus
        path = f("ddpm.q_path")(short, x0, noise)
        return -f("ddpm.p_log_prob")(short, t, path[t - 1], path[t], eps_hat, SIGMA_SQUARED[: T + 1])

    return check_step_loss(loss, short, t, _net, 0.3, 0.8, float(SIGMA_SQUARED[t]))


def three_variables(f: Functions) -> Check:
    """(24): x_{t−1} directly from x_0, then one step."""

    def loss(t: int, x0: Array, eps_bar_prev: Array, eps_t: Array, eps_hat: Callable[[Array, int], Array]) -> Array:
        x_prev = SCHEDULE.alpha_bar[t - 1] * x0 + SCHEDULE.beta_bar[t - 1] * eps_bar_prev
        x_t = SCHEDULE.alpha[t] * x_prev + SCHEDULE.beta[t] * eps_t
        return -f("ddpm.p_log_prob")(SCHEDULE, t, x_prev, x_t, eps_hat, SIGMA_SQUARED)

    return _step_loss(loss, 4)


def one_step_loss(f: Functions) -> Check:
    """(26)."""
    return _step_loss(lambda *arguments: f("ddpm.one_step_loss")(SCHEDULE, *arguments, SIGMA_SQUARED), 3)


def merged_loss(f: Functions) -> Check:
    """(28): the two noises of the argument are ε and ω."""
    return _step_loss(
        lambda t, x0, eps, omega, eps_hat: f("ddpm.merged_loss")(SCHEDULE, t, x0, eps, omega, eps_hat, SIGMA_SQUARED), 3
    )


def noise_error(f: Functions) -> Check:
    """(29): the expectation of the whole loss over ε, and the loss that trains with its derivative."""
    eps, eps_hat = waves(4, 3), waves(4, 3, shift=1.0)
    return both(
        noted(
            _step_loss(
                lambda t, x0, eps, omega, eps_hat: f("ddpm.total_noise_loss")(
                    SCHEDULE, t, x0, eps, eps_hat, SIGMA_SQUARED
                ),
                3,
            ),
            "by `total_noise_loss`, which calls `noise_error`",
        ),
        check_loss_gradient(
            lambda eps_hat: f("ddpm.noise_error")(eps, eps_hat),
            lambda eps_hat: np.array(
                [sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) for rows in zip(eps, eps_hat, strict=True)]
            ),
            eps_hat,
        ),
    )


def noise_merging(f: Functions) -> Check:
    """(27) and the proposition before it."""
    return check_noise_merging(
        lambda t, first, second: f("ddpm.merge_noise")(SCHEDULE, t, first, second),
        lambda t, eps, omega: f("ddpm.split_noise")(SCHEDULE, t, eps, omega),
        SCHEDULE,
    )


def even_log_snr(f: Functions) -> Check:
    """Two lengths and two pairs of ends."""

    def variances(*arguments: Any) -> Array:
        out: Array = f("schedule.NoiseSchedule.log_snr_even")(*arguments).variances
        return out

    return both(check_even_log_snr(variances, 7, 4.5, -7.0), check_even_log_snr(variances, 12, 9.0, -10.0))


def best_variances(f: Functions) -> Check:
    """One variance for three dimensions, and one for each of three whose losses are multiples of one loss."""
    variance = f("ddpm.optimal_reverse_variance")
    return both(
        check_optimal_variance(lambda loss: variance(SCHEDULE, loss, 3), SCHEDULE, DATA_COV),
        *(
            check_optimal_variance(
                lambda loss, d=d: variance(SCHEDULE, np.outer(loss, [1, 2, 3]) / (d + 1), 3)[:, d],  # type: ignore[misc]
                SCHEDULE,
                np.array([[0.4]]),
            )
            for d in range(3)
        ),
    )


def sampler(f: Functions) -> Check:
    """Every step of the ancestral sampler, with the optimal variance."""
    spread = SCHEDULE.alpha_bar**2 * 0.3 + SCHEDULE.beta_bar**2
    best = optimal_reverse_variance(SCHEDULE, 1 - SCHEDULE.beta_bar**2 / spread, 1)

    def sample(x_T: Array, eps_hat: Callable[[Array, int], Array], noise: Array) -> Array:
        *_, (_, x0) = f("ddpm.ancestral_sampler")(SCHEDULE, eps_hat, x_T, GivenNoise(noise), best)
        return x0

    return check_sampler(sample, SCHEDULE, 0.5, 0.3, best)


def mixture_draws(f: Functions) -> Check:
    """The level that a draw used, from x_{t−1} = A_t x_t + B_t l_k + β̃_t z at three steps."""
    x_t, noise, law = 1.5 * waves(3, 2), waves(3, 2, shift=1.0), softmax(2 * waves(3, 2, 5, shift=2.0))
    levels, checks = level_values(5), []
    for t in (1, 3, 5):
        before, total = SCHEDULE.beta_bar[t - 1] ** 2, SCHEDULE.beta_bar[t] ** 2
        rest = SCHEDULE.alpha[t] * before / total * x_t + SCHEDULE.beta[t] * before**0.5 / total**0.5 * noise
        gain = SCHEDULE.alpha_bar[t - 1] * SCHEDULE.beta[t] ** 2 / total

        def draw(u: Array, t: int = t, rest: Array = rest, gain: float = float(gain)) -> Array:
            x_prev = f("ddpm.mixture_step")(SCHEDULE, t, x_t, levels, law, u, noise)
            return np.round(2 * ((x_prev - rest) / gain + 1), 3)  # 0, 1, …, 4, if the step is right

        checks.append(check_categorical_draw(draw, law))
    return both(*checks)


def ddim_sampler(f: Functions) -> Check:
    """DDIM over all steps, without, with some, and with all of the fresh noise."""
    checks = []
    for eta in (0.7, 0.0, 1.0):

        def sample(x_T: Array, eps_hat: Callable[[Array, int], Array], noise: Array, eta: float = eta) -> Array:
            *_, (_, x0) = f("ddpm.ddim_sampler")(SCHEDULE, eps_hat, x_T, GivenNoise(noise), eta)
            return x0

        checks.append(check_ddim_sampler(sample, SCHEDULE, eta))
    return both(*checks)


def ddim_step(f: Functions) -> Check:
    """One step of DDIM for every t and s, without, with some, and with all of the fresh noise."""
    return both(
        *(
            check_ddim_step(lambda *a, eta=eta: f("ddpm.ddim_step")(SCHEDULE, *a, eta), SCHEDULE, eta)
            for eta in (0.6, 0.0, 1.0)
        )
    )


def three_terms(f: Functions) -> Check:
    """L_T, L_{t−1} and L_0 in three dimensions."""
    x0, noise = waves(4, 3), waves(4, 3, shift=2.0)
    return check_bound_terms(
        lambda x0: f("ddpm.prior_loss")(SCHEDULE, x0),
        lambda t, x0, x_t, eps_hat: f("ddpm.step_loss")(SCHEDULE, t, x0, x_t, eps_hat, SIGMA_SQUARED),
        lambda x0, x_1, eps_hat: f("ddpm.reconstruction_loss")(SCHEDULE, x0, x_1, eps_hat, SIGMA_SQUARED),
        SCHEDULE,
        x0,
        noise,
        _net,
        SIGMA_SQUARED,
    )


def bins(f: Functions) -> Check:
    """L_0 of whole numbers: the masses of bins around the mean at ε̂ = 0, from the chain and from the SDE."""
    variance, means = np.append(0.0, np.full(5, 0.07**2)), waves(4)

    def by_chain(level: Array, mean: Array, std: float) -> Array:
        x0, x_1 = _every_pair(level / 8 - 1, SCHEDULE.alpha[1] * mean)
        loss = f("ddpm.reconstruction_loss")(SCHEDULE, x0, x_1, lambda x, t: 0 * x, variance, 17)
        return -loss.reshape(17, 4)

    def by_sde(level: Array, mean: Array, std: float) -> Array:
        scale, sigma = SDE.level(t_min)
        x0, x_t = _every_pair(level / 8 - 1, scale * mean)
        noise = (x_t - scale * x0) / sigma
        return -f("sde.reconstruction_loss")(SDE, x0, t_min, noise, 17).reshape(17, 4)

    t_min = 0.02
    scale, sigma = SDE.level(t_min)
    return both(check_bin_masses(by_chain, 17, means, 0.07), check_bin_masses(by_sde, 17, means, sigma / scale))


def _every_pair(a: Array, b: Array) -> tuple[Array, Array]:
    """All pairs of (n, 1) and (1, m) as two columns (n m, 1)."""
    return tuple(part.reshape(-1, 1) for part in np.broadcast_arrays(a, b))  # type: ignore[return-value]


def loss_weights(f: Functions) -> Check:
    """λ_t of every weighting."""
    return check_loss_weights(
        lambda weighting: f("ddpm.loss_weight")(SCHEDULE, weighting, SIGMA_SQUARED), SCHEDULE, SIGMA_SQUARED
    )


# --- training --------------------------------------------------------------------------------------------------------

SMALL = {"hidden": (3,), "n_time_features": 1, "n_classes": 2, "dtype": np.float64}
N_STEPS = 20


def _small_network(**options: Any) -> NoiseNetwork:
    """A network for points in the plane with labels; all of its parameters differ from 0."""
    network = NoiseNetwork(2, rng=0, **{**SMALL, **options})
    network.parameters[:] = 0.7 * waves(len(network.parameters))
    return network


def _printed_eps_hat(
    network: NoiseNetwork, parameters: Array, x_t: Array, t: IntArray, labels: IntArray, kind: str | None
) -> Array:
    """ε̂ of such a network from the formulas of its layers, for given parameters and steps t (N,)."""
    steps = compose(SCHEDULE)
    scale, std = steps.scale[t], np.sqrt(steps.total[t])
    coefficients = {
        None: None,
        "noise": (0 * scale, 1 + 0 * scale),
        "x0": (1 / std, -scale / std),
        "v": (std, scale),
        "step": (0 * scale, std / np.sqrt(steps.variance[t])),
    }[kind]
    indicators = (labels[:, None] == np.arange(network.n_classes)).astype(np.float64)
    mlp = mlp_by_hand(parameters, network.mlp.sizes)
    return printed_noise(mlp, x_t, scale, std, network.n_time_features, indicators, coefficients=coefficients)


def _printed_losses(
    network: NoiseNetwork,
    parameters: Array,
    x0: Array,
    t: IntArray,
    noise: Array,
    labels: IntArray,
    kind: str | None,
) -> Array:
    """‖ε − ε̂(ᾱ_t x_0 + β̄_t ε, t)‖² of every example."""
    steps = compose(SCHEDULE)
    x_t = steps.scale[t, None] * x0 + np.sqrt(steps.total[t, None]) * noise
    return ((noise - _printed_eps_hat(network, parameters, x_t, t, labels, kind)) ** 2).sum(axis=1)


def train_step(f: Functions) -> Check:
    """Line 5 of Algorithm 1 on five examples at different steps, for every prediction."""
    x0, noise, weight = waves(5, 2), waves(5, 2, shift=1.0), 1 + 0.5 * waves(5, shift=2.0)
    t, labels = np.array([1, 5, 2, 4, 3]), np.array([0, NO_LABEL, 1, 1, 0])
    checks = []
    for kind in ("v", "noise", "x0", "step"):
        network = _small_network()
        coefficients = _given_coefficients(t, kind)

        def step(parameters: Array) -> tuple[Array, Array]:
            network.parameters[:] = parameters  # noqa: B023
            given = {"labels": labels, "coefficients": coefficients}  # noqa: B023
            losses = f("ddpm.train_step")(network, SCHEDULE, x0, t, noise, weight, **given)  # noqa: B023
            return losses, network.gradient.copy()  # noqa: B023

        def losses(parameters: Array) -> Array:
            return _printed_losses(network, parameters, x0, t, noise, labels, kind)  # noqa: B023

        checks.append(check_training_step(step, losses, network.parameters.copy(), weight))
    return both(*checks)


def _given_coefficients(t: IntArray, kind: str) -> EpsCoefficients:
    """skip and gain of ε̂ for each prediction, (N,) each, by the reference chain."""
    steps = compose(SCHEDULE)
    scale, std = steps.scale[t], np.sqrt(steps.total[t])
    skip, gain = {
        "noise": (0 * std, 1 + 0 * std),
        "x0": (1 / std, -scale / std),
        "v": (std, scale),
        "step": (0 * std, std / np.sqrt(steps.variance[t])),
    }[kind]
    return EpsCoefficients(skip, gain)


class GivenSteps(TimestepSampler):
    """A sampler of steps that returns given steps and weights, and records the losses that it observes."""

    def __init__(self, t: IntArray, weights: Array) -> None:
        super().__init__(SCHEDULE.T, "uniform")
        self.draws = zip(t, weights, strict=True)
        self.observed: list[tuple[IntArray, Array]] = []

    def draw(self, n: int, rng: np.random.Generator) -> tuple[IntArray, Array]:
        """The next steps and weights."""
        return next(self.draws)

    def observe(self, t: IntArray, losses: Array) -> None:
        """Keep them."""
        self.observed.append((t, losses))


def train(f: Functions) -> Check:
    """The whole of Algorithm 1: labels, label dropout, weights λ_t, uneven draws, weight decay, moving average."""
    data, n = waves(9, 2), 6
    classes = np.arange(9) % 2
    drawn = np.arange(N_STEPS * n).reshape(N_STEPS, n) * 7 % 5 + 1
    corrections, table = 1 + 0.4 * waves(N_STEPS, n, shift=1.0), np.append(0.0, 1 + 0.5 * waves(5))
    network, rng = _small_network(), Remembering()

    def run(parameters: Array) -> tuple[Array, Array, Array]:
        network.parameters[:] = parameters
        ema = EMA(parameters.copy(), 0.8)
        loop = f("ddpm.train")(
            network,
            SCHEDULE,
            data,
            N_STEPS,
            rng,
            adam=Adam(network.parameters, weight_decay=0.1),
            ema=ema,
            sampler=GivenSteps(drawn, corrections),
            weights=table,
            prediction="x0",
            labels=classes,
            label_dropout=0.3,
            batch_size=n,
            learning_rate=0.05,
        )
        return np.array(list(loop)), network.parameters.copy(), ema.average

    def loss(parameters: Array, step: int) -> float:
        rows, noise = rng.given["integers"][step], rng.given["standard_normal"][step]
        labels = np.where(rng.given["random"][step] < 0.3, NO_LABEL, classes[rows])
        t = drawn[step]
        losses = _printed_losses(network, parameters, data[rows], t, noise, labels, "x0")
        return float(np.mean(table[t] * corrections[step] * losses))

    return check_training(
        run, loss, network.parameters.copy(), N_STEPS, 0.05, warmup=N_STEPS // 10, weight_decay=0.1, ema_decay=0.8
    )


def step_draws(f: Functions) -> Check:
    """Steps by each of the three choices; the third choice has observed losses that differ from step to step."""
    checks = []
    for choice in ("uniform", "stratified", "importance"):
        sampler = TimestepSampler(5, choice)
        for _ in range(12):
            sampler.observe(np.arange(1, 6), np.array([0.2, 1.0, 3.0, 0.5, 0.1]))
        checks.append(
            check_step_draws(
                lambda u, sampler=sampler: f("timestep_sampling.TimestepSampler.draw")(sampler, 10, GivenUniform(u)),  # type: ignore[misc]
                5,
            )
        )
    return both(*checks)


def predict_noise(f: Functions) -> Check:
    """ε̂ of every prediction at every step, with labels, guidance and clipping."""
    x_t, labels = 2 * waves(6, 2), np.array([0, 1, 1, 0, 1, 0])
    checks = []
    for kind in ("v", "noise", "x0", "step"):
        network = _small_network()

        def predict(x_t: Array, t: int, guidance: float, clip: bool) -> Array:
            return f("ddpm.predict_noise")(
                network,  # noqa: B023
                SCHEDULE,
                x_t,
                t,
                labels=labels,
                guidance=guidance,
                prediction=kind,  # noqa: B023
                clip=clip,
            )

        def output(x_t: Array, t: int, labelled: bool) -> Array:
            steps = np.full(len(x_t), t)
            given = labels if labelled else np.full_like(labels, NO_LABEL)
            # with skip 0 and gain 1 the network's ε̂ is its output
            return _printed_eps_hat(network, network.parameters, x_t, steps, given, "noise")  # noqa: B023

        checks.append(check_predicted_noise(predict, output, SCHEDULE, kind, x_t))
    return both(*checks)
