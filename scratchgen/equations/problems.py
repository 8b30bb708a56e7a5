"""One fixed problem for each row of the table that needs more than a line: what is checked, and on which numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from scratchgen.conformance import (
    Check,
    check_adam,
    check_chains,
    check_e_step,
    check_em,
    check_free_energy,
    check_gradient,
    check_kl,
    check_kl_bound,
    check_log_prob_bound,
    check_negative_elbo,
    check_noise_merging,
    check_probability_flow_likelihood,
    check_reverse_law,
    check_reverse_sampler,
    check_reverse_sde,
    check_reverse_step,
    check_sampler,
    check_score_matching,
    check_step_loss,
    check_variational_bound,
)
from scratchgen.mixture import Mixture
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde.processes import VP
from scratchgen.validation import Array

Functions = Callable[[str], Callable[..., Any]]  # "ddpm.q_sample" → the function to be checked


def waves(*shape: int, shift: float = 0.0) -> Array:
    """Irregular numbers in [−1, 1] without a random generator."""
    return np.sin(1.7 * np.arange(1, 1 + int(np.prod(shape))) ** 1.3 + shift).reshape(shape)


def probabilities(logits: Array, axis: int = -1) -> Array:
    """Softmax."""
    return np.exp(logits) / np.exp(logits).sum(axis=axis, keepdims=True)


P = probabilities(2 * waves(4))  # p(x)
Q = probabilities(2 * waves(4, 3, shift=1.0))  # q(z | x)
DECODER = probabilities(2 * waves(4, 3, shift=2.0), axis=0)  # p_θ(x | z)
PRIOR = probabilities(waves(3, shift=3.0))  # q(z)
JOINT = DECODER * PRIOR
POSTERIOR = JOINT / JOINT.sum(axis=1, keepdims=True)

W, MU, NOISE = 1.2 * waves(4, 3), waves(4, shift=1.0), 0.7  # a linear-Gaussian model
X = 2 * waves(5, 4, shift=2.0)
Q_MEAN, Q_COV = waves(5, 3, shift=3.0), np.array([[0.8, 0.3, 0.1], [0.3, 0.5, -0.2], [0.1, -0.2, 0.6]])
LOG_VARIANCE = waves(5, 3, shift=4.0) - 0.5
SAMPLE_COV = 0.3 * np.eye(4) + np.cov(2 * waves(4, 9), bias=True)

SCHEDULE = NoiseSchedule(np.array([0.02, 0.1, 0.25, 0.4, 0.6]))
SIGMA_SQUARED = np.array([np.nan, 0.05, 0.2, 0.3, 0.5, 0.9])
SLOPES = np.concatenate([[np.nan], 0.6 + 0.3 * waves(5)])
A = np.concatenate([np.full((1, 3, 3), np.nan), 0.5 * np.eye(3) + 0.2 * waves(5, 3, 3)])
B = np.concatenate([np.full((1, 3), np.nan), 0.3 * waves(5, 3, shift=1.0)])
DATA_MEAN, DATA_COV = np.array([0.4, -0.7, 0.2]), np.array([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.4]])
OTHER_COV = np.array([[0.4, -0.1, 0.1], [-0.1, 0.6, 0.0], [0.1, 0.0, 0.3]])
AFFINE = (DATA_MEAN, DATA_COV, A, B, SIGMA_SQUARED)  # Gaussian data under ε̂ = A x + b

PLANE = Mixture(
    np.array([0.3, 0.5, 0.2]),
    np.array([[-1.0, 0.5], [1.0, -0.2], [0.3, 1.4]]),
    np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.4, -0.2], [-0.2, 0.5]], [[0.2, 0.0], [0.0, 0.6]]]),
)
LINE = Mixture(np.array([0.35, 0.65]), np.array([[-1.0], [0.8]]), np.array([[[0.15]], [[0.3]]]))
POINTS = 2 * waves(6, 2, shift=5.0)
SDE = VP(0.3, 4.0, 1.7)  # a horizon other than 1, which would hide a missing T


def _net(x: Array, t: int) -> Array:
    """A noise predictor that is not linear and not right."""
    return 0.2 + 0.5 * x + 0.4 * np.sin(1.3 * x + 0.1 * t)


def _gaussian_score(sde: VP, mean: Array, covariance: Array) -> Callable[[Array, float], Array]:
    def score(x: Array, t: float) -> Array:
        scale, std = sde.level(t)
        V = scale**2 * covariance + std**2 * np.eye(len(mean))
        return -np.linalg.solve(V, (x - scale * mean).T).T

    return score


def _step_loss(loss: Callable[..., Array], t: int) -> Check:
    """The expected loss of one step, for a loss(t, x0, eps_bar_prev, eps_t, eps_hat)."""
    return check_step_loss(loss, SCHEDULE, t, _net, 0.3, 0.8, float(SIGMA_SQUARED[t]))


# --- the rows that need more than one line -----------------------------------------------------------------------


def cross_entropy(f: Functions) -> Check:
    """(1): −E_p log q less H(p) is KL(p‖q)."""
    cross_entropy, entropy = f("likelihood.cross_entropy_discrete"), f("likelihood.entropy_discrete")
    return check_kl(lambda p, q: cross_entropy(p, q) - entropy(p), P, Q[:, 0] / Q[:, 0].sum())


def _mixture_parameters(mixture: Mixture) -> tuple[Array, Array, Array]:
    return mixture.weights, mixture.means, mixture.covariances


def e_step(f: Functions) -> Check:
    """(18) on a mixture in the plane."""
    return check_e_step(
        lambda x, *parameters: np.exp(f("em.e_step")(x, Mixture(*parameters))[0]), POINTS, *_mixture_parameters(PLANE)
    )


def free_energy(f: Functions) -> Check:
    """(17) at a q that is not the posterior."""
    log_resp = np.log(probabilities(waves(6, 3)))
    return check_free_energy(
        lambda x, log_resp, *parameters: f("em.free_energy")(x, log_resp, Mixture(*parameters)),
        POINTS,
        log_resp,
        *_mixture_parameters(PLANE),
    )


def em(f: Functions) -> Check:
    """(15)-(18): six steps on eighteen points, covariances floored."""
    from scratchgen.em import e_step

    def step(x: Array, *parameters: Array) -> tuple[Array, Array, Array]:
        mixture = Mixture(*parameters)
        return _mixture_parameters(f("em.m_step")(x, e_step(x, mixture)[0], mixture, 0.05))

    x = np.concatenate([1 + 0.4 * waves(9, 2), -1 + 0.6 * waves(9, 2, shift=1.0)])
    return check_em(step, x, *_mixture_parameters(PLANE), floor=0.05)


def chains(f: Functions) -> Check:
    """(19) on four paths."""
    return check_chains(
        lambda path: f("ddpm.forward_log_prob")(SCHEDULE, path),
        lambda path, eps_hat: f("ddpm.reverse_log_prob")(SCHEDULE, path, eps_hat, SIGMA_SQUARED),
        SCHEDULE,
        2 * waves(6, 4, 1),
        SLOPES,
        SIGMA_SQUARED,
    )


def bound_terms(f: Functions) -> Check:
    """(20), term by term, for an affine net."""
    return check_variational_bound(
        lambda x0, eps_hat, noise: f("ddpm.bound_terms")(SCHEDULE, x0, eps_hat, noise, SIGMA_SQUARED),
        SCHEDULE,
        *AFFINE,
    )


def negative_elbo(f: Functions) -> Check:
    """(21) from the noise losses of the same net."""
    return check_negative_elbo(
        lambda noise_loss, second, D: f("ddpm.negative_elbo")(SCHEDULE, noise_loss, second, D, SIGMA_SQUARED),
        SCHEDULE,
        *AFFINE,
    )


def whole_path(f: Functions, t: int) -> Check:
    """−log p_θ(x_{t−1} | x_t) on a path of two steps, for t = 1 (x_2 integrates to 1) or t = 2."""
    short = NoiseSchedule(SCHEDULE.variances[:2])

    def loss(t: int, x0: Array, eps_bar_prev: Array, eps_t: Array, eps_hat: Callable[[Array, int], Array]) -> Array:
        noise = np.stack([eps_t, eps_bar_prev] if t == 1 else [eps_bar_prev, eps_t])
        path = f("ddpm.q_path")(short, x0, noise)
        return -f("ddpm.p_log_prob")(short, t, path[t - 1], path[t], eps_hat, SIGMA_SQUARED[:3])

    return check_step_loss(loss, short, t, _net, 0.3, 0.8, float(SIGMA_SQUARED[t]))


def three_variables(f: Functions) -> Check:
    """(24): x_{t−1} from x_0 at once, then one step."""

    def loss(t: int, x0: Array, eps_bar_prev: Array, eps_t: Array, eps_hat: Callable[[Array, int], Array]) -> Array:
        x_prev = SCHEDULE.alpha_bar[t - 1] * x0 + SCHEDULE.beta_bar[t - 1] * eps_bar_prev
        x_t = SCHEDULE.alpha[t] * x_prev + SCHEDULE.beta[t] * eps_t
        return -f("ddpm.p_log_prob")(SCHEDULE, t, x_prev, x_t, eps_hat, SIGMA_SQUARED)

    return _step_loss(loss, 4)


def one_step_loss(f: Functions) -> Check:
    """(26)."""
    return _step_loss(lambda *arguments: f("ddpm.one_step_loss")(SCHEDULE, *arguments, SIGMA_SQUARED), 3)


def merged_loss(f: Functions) -> Check:
    """(28): the two noises it is given stand for ε and ω."""
    return _step_loss(
        lambda t, x0, eps, omega, eps_hat: f("ddpm.merged_loss")(SCHEDULE, t, x0, eps, omega, eps_hat, SIGMA_SQUARED), 3
    )


def total_noise_loss(f: Functions) -> Check:
    """(29): of the two noises only ε is used."""
    return _step_loss(
        lambda t, x0, eps, omega, eps_hat: f("ddpm.total_noise_loss")(SCHEDULE, t, x0, eps, eps_hat, SIGMA_SQUARED), 3
    )


def noise_merging(f: Functions) -> Check:
    """(27) and its proposition."""
    return check_noise_merging(
        lambda t, first, second: f("ddpm.merge_noise")(SCHEDULE, t, first, second),
        lambda t, eps, omega: f("ddpm.split_noise")(SCHEDULE, t, eps, omega),
        SCHEDULE,
    )


def reverse_sde(f: Functions) -> Check:
    """(32) between the SDE and the flow."""
    score = _gaussian_score(SDE, DATA_MEAN, DATA_COV)
    return check_reverse_sde(
        lambda x, t: f("sde.reverse_drift")(SDE, score, x, t, 0.7),
        lambda t: 0.7 * SDE.diffusion(t),
        SDE,
        DATA_MEAN,
        DATA_COV,
        churn=0.7,
    )


def score_matching(f: Functions) -> Check:
    """(33) for a score that is neither linear nor right."""
    return check_score_matching(
        f("sde.denoising_score_matching"),
        f("sde.implicit_score_matching"),
        f("sde.sliced_score_matching"),
        LINE,
        *SDE.level(0.4),
        lambda x: -x + 0.5 * np.sin(2 * x),
        lambda x: (-1 + np.cos(2 * x))[:, 0],
    )


def kl_bound(f: Functions) -> Check:
    """(34) where it is an equality."""
    return check_kl_bound(
        lambda score_error, prior_kl: f("sde.kl_bound")(SDE, score_error, prior_kl),
        SDE,
        DATA_MEAN,
        DATA_COV,
        -DATA_MEAN,
        OTHER_COV,
    )


def log_prob_bound(f: Functions) -> Check:
    """(34) for single examples, where it is an equality; noise on an even grid gives its mean to rounding."""
    noise = np.linspace(-8.5, 8.5, 171)[:, None]
    weights = np.exp(-0.5 * noise[:, 0] ** 2)

    def bound(
        score_and_divergence: Callable[[Array, float], tuple[Array, Array]],
        prior_log_prob: Callable[[Array], Array],
        x: Array,
    ) -> Array:
        return f("sde.sde_log_prob_bound")(
            SDE, score_and_divergence, x, noise, weights / weights.sum(), prior_log_prob=prior_log_prob
        )

    return check_log_prob_bound(bound, SDE, LINE, np.linspace(-2.0, 2.0, 5)[:, None])


def sampler(f: Functions) -> Check:
    """Every step of the ancestral sampler with the best variance."""
    from scratchgen.ddpm import mean_square_step

    spread = SCHEDULE.alpha_bar**2 * 0.3 + SCHEDULE.beta_bar**2
    best = mean_square_step(SCHEDULE, 1 - SCHEDULE.beta_bar**2 / spread, 1)

    def sample(x_T: Array, eps_hat: Callable[[Array, int], Array], noise: Array) -> Array:
        *_, (_, x0) = f("ddpm.ancestral_sampler")(SCHEDULE, eps_hat, x_T, GivenNoise(noise), best)
        return x0

    return check_sampler(sample, SCHEDULE, 0.5, 0.3, best)


class GivenNoise:
    """A random generator that hands out given noise in turn."""

    def __init__(self, noise: Array) -> None:
        self.rows = iter(noise)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """The next noise, whatever `shape` asks for."""
        return next(self.rows).astype(dtype)


def reverse_step(f: Functions) -> Check:
    """One Euler-Maruyama step."""
    score = _gaussian_score(SDE, np.array([0.5]), np.array([[0.3]]))

    def step(x: Array, t: float, s: float, noise: Array) -> Array:
        mean, std = f("sde.euler_step")(SDE, score, x, t, s)
        return mean + std * noise

    return check_reverse_step(step, SDE, 0.5, 0.3)


def reverse_sampler(f: Functions) -> Check:
    """Euler-Maruyama on an uneven grid."""

    def score(x: Array, t: float) -> Array:
        return np.tanh(x + t) - x

    def sample(x: Array, times: Array, noise: Array) -> Array:
        *_, (_, end) = f("sde.euler_maruyama")(SDE, score, x, times, noise=noise, churn=0.8)
        return end

    return check_reverse_sampler(sample, score, SDE, np.array([1.7, 1.2, 0.9, 0.3, 0.05]), churn=0.8)


def flow(f: Functions) -> Check:
    """The probability flow of a mixture, from its exact p_T."""

    class FromExactEnd(VP):
        """SDE with p_T of the mixture for its prior."""

        def prior_log_prob(self, x: Array) -> Array:
            return PLANE.diffuse(*self.level(self.horizon)).log_prob(x)

    sde = FromExactEnd(SDE.beta_min, SDE.beta_max, SDE.horizon)

    def score_and_divergence(x: Array, t: float) -> tuple[Array, Array]:
        law = PLANE.diffuse(*sde.level(t))
        return law.score(x), np.trace(law.score_jacobian(x), axis1=1, axis2=2)

    return check_probability_flow_likelihood(
        lambda x: f("sde.probability_flow_log_prob")(sde, score_and_divergence, x, rtol=1e-9), PLANE, POINTS
    )


def reverse_law(f: Functions) -> Check:
    """The law of the reverse SDE with a wrong score."""

    def moments(score: Callable[[Array, float], Array]) -> Any:
        return f("sde.reverse_moments")(SDE, score, np.zeros(1), np.eye(1))

    return check_reverse_law(moments, float(SDE.beta_integral(SDE.horizon)), 0.3)


def mlp_gradient(f: Functions) -> Check:
    """Every parameter of a small MLP."""
    from scratchgen.network import MLP

    mlp = MLP((2, 4, 3, 2), rng=0, dtype=np.float64)
    mlp.biases[0][:] = 0.3 * waves(4)
    target = waves(5, 2)

    def loss(parameters: Array) -> float:
        mlp.parameters[:] = parameters
        return float(0.5 * ((mlp.forward(X[:, :2]) - target) ** 2).sum())

    def gradient(parameters: Array) -> Array:
        mlp.parameters[:] = parameters
        f("network.MLP.backward")(mlp, mlp.forward(X[:, :2]) - target)
        return mlp.gradient.copy()

    directions = np.concatenate([np.eye(len(mlp.parameters)), waves(2, len(mlp.parameters))])
    return check_gradient(loss, gradient, mlp.parameters.copy(), directions)


def vae_gradient(f: Functions) -> Check:
    """Every parameter of a small VAE."""
    from scratchgen.vae import VAENetwork

    network = VAENetwork(4, 2, (3,), rng=0, dtype=np.float64)
    noise, ends = waves(5, 2), np.cumsum([len(parameters) for parameters, _ in network.parts])[:-1]

    def put(flat: Array) -> None:
        for (parameters, _), values in zip(network.parts, np.split(flat, ends), strict=True):
            parameters[:] = values

    def loss(flat: Array) -> float:
        put(flat)
        return float(VAENetwork.loss(network, X, noise).mean())

    def gradient(flat: Array) -> Array:
        put(flat)
        f("vae.VAENetwork.loss")(network, X, noise)
        return np.concatenate([gradient for _, gradient in network.parts])

    start = np.concatenate([parameters for parameters, _ in network.parts])
    start[-1] = -0.4
    directions = np.concatenate([np.eye(len(start)), waves(2, len(start))])
    return check_gradient(loss, gradient, start, directions)


def adam(f: Functions) -> Check:
    """Six steps with weight decay."""

    def run(parameters: Array, gradients: Array) -> Array:
        adam = f("optimizer.Adam")(parameters, learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1)
        states = []
        for gradient in gradients:
            adam.step(gradient)
            states.append(parameters.copy())
        return np.array(states)

    return check_adam(
        run, waves(4), 1e-6 + waves(6, 4, shift=1.0), learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1
    )
