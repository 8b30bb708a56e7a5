"""Checks of equations (19)-(29): forward process, posterior, merging of noise, reverse steps, the variational bound.

Callables count t = 1..T with clean data at 0, take arrays (N, D) and the noise they need, and are probed at unit
vectors, sigma points and Gauss-Hermite nodes: nothing is drawn.  The right sides use the schedule's `variances` only,
composed step by step and conditioned as Gaussians, never the closed forms under test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import gauss_hermite, sigma_points
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array

EpsHat = Callable[[Array, int], Array]


class _Steps(NamedTuple):
    """x_t = alpha x_{t−1} + √variance ε_t, composed to x_t = scale x_0 + √total ε; every array has length T+1."""

    alpha: Array
    variance: Array
    scale: Array
    total: Array

    @property
    def T(self) -> int:
        return len(self.alpha) - 1

    @property
    def posterior(self) -> Array:
        """Variance of q(x_{t−1} | x_t, x_0) by adding precisions: α²/β² + 1/β̄²_{t−1}; 0 up to t = 1."""
        out = np.zeros(self.T + 1)
        out[2:] = 1 / (self.alpha[2:] ** 2 / self.variance[2:] + 1 / self.total[1:-1])
        return out


def _compose(schedule: NoiseSchedule) -> _Steps:
    variance = np.concatenate([[0.0], schedule.variances])
    alpha = np.sqrt(1 - variance)
    scale, total = [1.0], [0.0]
    for a, v in zip(alpha[1:], variance[1:], strict=True):
        scale.append(a * scale[-1])
        total.append(a**2 * total[-1] + v)
    return _Steps(alpha, variance, np.array(scale), np.array(total))


def _coefficients(f: Callable[..., ArrayLike], n_arguments: int) -> list[float]:
    """The factors of f(u_1, …, u_n) = Σ c_i u_i, read off at the unit vectors, each argument (n, 1)."""
    rows = np.eye(n_arguments)
    return [float(c) for c in np.asarray(f(*(rows[:, [i]] for i in range(n_arguments))), dtype=np.float64)[:, 0]]


def _shifted(table: Array) -> Array:
    """The table one step late, as if it had been padded on the wrong side."""
    return np.concatenate([table[:1], table[:-1]])


# --- (19), (25): the forward process -----------------------------------------------------------------------------


def check_schedule(
    schedule: NoiseSchedule, alpha_bar: ArrayLike, beta_bar: ArrayLike, beta_tilde: ArrayLike | None = None
) -> Check:
    """(25): tables ᾱ_t, β̄_t and, if given, β̃_t, each (T+1,) with t = 0 first, against steps composed one by one."""
    steps = _compose(schedule)
    name, checks = "check_schedule", []
    product_of_noise = np.cumprod(np.concatenate([[1.0], np.sqrt(schedule.variances)]))
    checks.append(
        compare(
            name,
            "(25)",
            "ᾱ",
            alpha_bar,
            steps.scale,
            1e-12,
            {
                "it is ᾱ_{t−1}: the table is padded on the wrong side": lambda: _shifted(steps.scale),
                "it is ᾱ_{t+1}: index 0 is the first step, not clean data": lambda: np.append(
                    steps.scale[1:], steps.scale[-1] * steps.alpha[-1]
                ),
                "it is ᾱ²: Ho's α-bar, whose root is meant": lambda: steps.scale**2,
                "it is the product of the β, not of the α": lambda: product_of_noise,
                "β² is squared once more: a variance is taken for a standard deviation": lambda: np.sqrt(
                    np.cumprod(1 - steps.variance**2)
                ),
            },
        )
    )
    checks.append(
        compare(
            name,
            "(25)",
            "β̄",
            beta_bar,
            np.sqrt(steps.total),
            1e-12,
            {
                "it is β̄²: no root is taken": lambda: steps.total,
                "it is √(1 − ᾱ): ᾱ is not squared": lambda: np.sqrt(1 - steps.scale),
                "it is β̄_{t−1}: the table is padded on the wrong side": lambda: _shifted(np.sqrt(steps.total)),
                "it is β_t, the noise of one step": lambda: np.sqrt(steps.variance),
            },
        )
    )
    if beta_tilde is not None:
        checks.append(
            compare(
                name,
                "(24)",
                "β̃",
                beta_tilde,
                np.sqrt(steps.posterior),
                1e-10,
                {
                    "it is β̃², a variance": lambda: steps.posterior,
                    "it is β_t": lambda: np.sqrt(steps.variance),
                    "1/β̄_t is missing": lambda: np.sqrt(steps.variance * _shifted(steps.total)),
                },
            )
        )
    return worst(*checks)


def check_forward_step(q_step: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(19), (30): x_t = α_t x_{t−1} + β_t ε_t for every t, for q_step(t, x_prev, noise); the deck's slide omits ε_t."""
    steps = _compose(schedule)
    left = [_coefficients(lambda x, e, t=t: q_step(t, x, e), 2) for t in range(1, steps.T + 1)]
    alpha, beta = steps.alpha[1:], np.sqrt(steps.variance[1:])
    return compare(
        "check_forward_step",
        "(19)",
        "(factor of x_{t−1}, factor of ε_t)",
        left,
        np.stack([alpha, beta], axis=1),
        1e-12,
        {
            "there is no noise, as printed on the deck's slide": lambda: np.stack([alpha, 0 * beta], axis=1),
            "the noise has factor β², a variance": lambda: np.stack([alpha, beta**2], axis=1),
            "α and β are swapped": lambda: np.stack([beta, alpha], axis=1),
            "x_{t−1} has factor 1 − β², not its root": lambda: np.stack([alpha**2, beta], axis=1),
            "it is the step t−1": lambda: np.stack([steps.alpha[:-1], np.sqrt(steps.variance[:-1])], axis=1),
        },
    )


def check_forward_process(q_sample: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(25): x_t = ᾱ_t x_0 + β̄_t ε for every t, for q_sample(t, x0, noise), against one step after another."""
    steps = _compose(schedule)
    left = np.array([_coefficients(lambda x, e, t=t: q_sample(t, x, e), 2) for t in range(1, steps.T + 1)])
    scale, std = steps.scale[1:], np.sqrt(steps.total[1:])
    mistakes = {
        "the noise has factor β̄², a variance": lambda: np.stack([scale, std**2], axis=1),
        "the noise has factor √(1 − ᾱ): ᾱ is not squared": lambda: np.stack([scale, np.sqrt(1 - scale)], axis=1),
        "x_0 has factor ᾱ²: Ho's α-bar without its root": lambda: np.stack([scale**2, std], axis=1),
        "the factors are swapped": lambda: np.stack([std, scale], axis=1),
        "it is x_{t−1}: index shifted by one": lambda: np.stack([steps.scale[:-1], np.sqrt(steps.total[:-1])], axis=1),
        "it is one step, not t of them": lambda: np.stack([steps.alpha[1:], np.sqrt(steps.variance[1:])], axis=1),
    }
    return worst(
        compare("check_forward_process", "(25)", "(ᾱ, β̄)", left, np.stack([scale, std], axis=1), 1e-12, mistakes),
        compare("check_forward_process", "(25)", "β̄²", left[:, 1] ** 2, steps.total[1:], 1e-12, relative=True),
    )


def check_posterior(
    q_posterior: Callable[[int, Array, Array], tuple[ArrayLike, ArrayLike]], schedule: NoiseSchedule
) -> Check:
    """q(x_{t−1} | x_t, x_0) of every t, for q_posterior(t, x_t, x0) → (mean, variance), by adding precisions.

    Its density is q(x_t | x_{t−1}) q(x_{t−1} | x_0)/q(x_t | x_0): three factors, where the deck names two.  At t = 1 it
    is the point x_0.
    """
    steps = _compose(schedule)
    ts = range(1, steps.T + 1)
    factors = np.array([_coefficients(lambda x, y, t=t: q_posterior(t, x, y)[0], 2) for t in ts])
    zero = np.zeros((1, 1))
    variances = np.array([np.asarray(q_posterior(t, zero, zero)[1], dtype=np.float64).ravel()[0] for t in ts])
    alpha, v, before, total = steps.alpha[1:], steps.variance[1:], steps.total[:-1], steps.total[1:]
    posterior = steps.posterior[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = posterior[:, None] * np.stack([alpha / v, steps.scale[:-1] / before], axis=1)
    exact[0] = [0.0, 1.0]
    return worst(
        compare(
            "check_posterior",
            "(24)",
            "(factor of x_t, factor of x_0) of the posterior mean",
            factors,
            exact,
            1e-9,
            {
                "the two factors are swapped": lambda: exact[:, ::-1],
                "ᾱ_t stands where ᾱ_{t−1} belongs": lambda: np.stack([exact[:, 0], exact[:, 1] * alpha], axis=1),
                "β stands where β² belongs in the factor of x_0": lambda: np.stack(
                    [exact[:, 0], exact[:, 1] / np.sqrt(v)], axis=1
                ),
                "1/β̄² is missing": lambda: exact * total[:, None],
                "it is that of step t−1: index shifted by one": lambda: np.concatenate([exact[:1], exact[:-1]]),
                "β̄_t stands where β̄_{t−1} belongs": lambda: np.stack([alpha, exact[:, 1]], axis=1),
            },
        ),
        compare(
            "check_posterior",
            "(24)",
            "the posterior variance",
            variances,
            posterior,
            1e-9,
            {
                "it is β_t², the variance of the forward step, which β̄_t in place of β̄_{t−1} gives too": lambda: v,
                "1/β̄_t² is missing": lambda: v * before,
                "it is that of step t−1: index shifted by one": lambda: _shifted(posterior),
                "β̄_{t−2} stands where β̄_{t−1} belongs: the table is padded once too often": lambda: (
                    v * _shifted(before) / total
                ),
                "it is β̃, a standard deviation": lambda: np.sqrt(posterior),
                "its first step is replaced by the second": lambda: np.append(posterior[1:2], posterior[1:]),
                "its first step is β_1²": lambda: np.append(v[:1], posterior[1:]),
                "it is a log-variance": lambda: np.log(posterior),
            },
        ),
    )


# --- (25)-(27): noise --------------------------------------------------------------------------------------------


def check_noise_merging(
    merge_noise: Callable[[int, Array, Array], tuple[ArrayLike, ArrayLike]],
    split_noise: Callable[[int, Array, Array], ArrayLike],
    schedule: NoiseSchedule,
) -> Check:
    """The proposition before (27): (ε, ω) = R(ε̄_{t−1}, ε_t) with β̄_t ε = α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t and R Rᵀ = I.

    The off-diagonal of R Rᵀ is E[ε ωᵀ]; with both Gaussian, 0 means independent.  split_noise(t, ε, ω) gives ε_t back.

    Parameters
    ----------
    merge_noise : callable
        merge_noise(t, eps_bar_prev, eps_t) → (ε, ω).
    split_noise : callable
        split_noise(t, eps, omega) → ε_t, (27).
    """
    steps = _compose(schedule)
    first, second = np.eye(2)[:, :1], np.eye(2)[:, 1:]
    rotations, splits, totals = [], [], []
    for t in range(1, steps.T + 1):
        eps, omega = (np.asarray(part, dtype=np.float64)[:, 0] for part in merge_noise(t, first, second))
        rotations.append([eps, omega])
        splits.append(np.asarray(split_noise(t, first, second), dtype=np.float64)[:, 0])
        totals.append(np.array([steps.alpha[t] * np.sqrt(steps.total[t - 1]), np.sqrt(steps.variance[t])]))
    R, exact = np.array(rotations), np.array(totals) / np.sqrt(steps.total[1:, None])
    other = np.stack([exact[:, 1], -exact[:, 0]], axis=1)
    name = "check_noise_merging"
    return worst(
        compare(
            name,
            "(27)",
            "the factors of ε̄_{t−1} and ε_t in ε",
            R[:, 0],
            exact,
            1e-12,
            {
                "1/β̄_t is missing: it is the noise itself, of variance β̄_t²": lambda: np.array(totals),
                "the two are swapped": lambda: exact[:, ::-1],
                "β̄_t stands where β̄_{t−1} belongs": lambda: np.stack([steps.alpha[1:], exact[:, 1]], axis=1),
            },
        ),
        compare(
            name,
            "(27)",
            "R Rᵀ, whose off-diagonal is E[ε ωᵀ],",
            R @ R.swapaxes(1, 2),
            np.broadcast_to(np.eye(2), (len(R), 2, 2)),
            1e-12,
        ),
        compare(
            name,
            "(27)",
            "the factors of ε̄_{t−1} and ε_t in ω",
            R[:, 1],
            other,
            1e-12,
            {"ω has the wrong sign": lambda: -other},
        ),
        compare(
            name,
            "(27)",
            "the factors of ε and ω in ε_t",
            splits,
            _inverse_row(R),
            1e-12,
            {
                "ω has the wrong sign": lambda: _inverse_row(R) * [1, -1],
                "it is ε̄_{t−1}": lambda: np.linalg.inv(R)[:, 0],
                "1/β̄_t is missing": lambda: _inverse_row(R) * np.sqrt(steps.total[1:, None]),
            },
        ),
    )


def _inverse_row(R: Array) -> Array:
    """The row of R⁻¹ that gives ε_t."""
    return np.linalg.inv(R)[:, 1]


def check_predict_x0(predict_x0: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(25) solved for x_0: the factors of x_t and ε̂, for predict_x0(t, x_t, eps_hat)."""
    steps = _compose(schedule)
    left = np.array([_coefficients(lambda x, e, t=t: predict_x0(t, x, e), 2) for t in range(1, steps.T + 1)])
    scale, std = steps.scale[1:], np.sqrt(steps.total[1:])
    right = np.stack([1 / scale, -std / scale], axis=1)
    return compare(
        "check_predict_x0",
        "(25)",
        "(factor of x_t, factor of ε̂) of x_0",
        left,
        right,
        1e-12,
        {
            "1/ᾱ is missing": lambda: right * scale[:, None],
            "the noise has the wrong sign": lambda: right * [1, -1],
            "the noise has factor β̄², a variance": lambda: right * np.stack([np.ones_like(std), std], axis=1),
            "it uses step t−1: index shifted by one": lambda: np.concatenate([[[1.0, 0.0]], right[:-1]]),
        },
        relative=True,
    )


# --- reverse steps -----------------------------------------------------------------------------------------------


def _reverse_mean(steps: _Steps) -> Array:
    """The factors of x_t and ε̂ in the mean of x_{t−1}, (T, 2): the posterior mean at the x_0 that ε̂ implies."""
    alpha, v, scale, total = steps.alpha[1:], steps.variance[1:], steps.scale, steps.total
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = steps.posterior[1:, None] * np.stack([alpha / v, scale[:-1] / total[:-1]], axis=1)
    weights[0] = [0.0, 1.0]
    return np.stack(
        [weights[:, 0] + weights[:, 1] / scale[1:], -weights[:, 1] * np.sqrt(total[1:]) / scale[1:]], axis=1
    )


def check_ancestral_step(
    step: Callable[[int, Array, Array, Array], ArrayLike], schedule: NoiseSchedule, sigma_squared: Array
) -> Check:
    """x_{t−1} = (x_t − (β_t²/β̄_t) ε̂)/α_t + σ_t z for every t, for step(t, x_t, eps_hat, noise) and TOTAL noise ε̂.

    The noise is there at t = 1 too: p_θ(x_0 | x_1) is a Gaussian like the others.  sigma_squared has length T+1; its
    index 0 is not used.
    """
    steps = _compose(schedule)
    left = [_coefficients(lambda x, e, z, t=t: step(t, x, e, z), 3) for t in range(1, steps.T + 1)]
    mean, sigma = _reverse_mean(steps), np.sqrt(np.asarray(sigma_squared)[1:])
    right = np.column_stack([mean, sigma])
    alpha, v, total = steps.alpha[1:], steps.variance[1:], steps.total[1:]

    def eps_factor(weight: Array) -> Array:
        return np.column_stack([mean[:, 0], -weight / alpha, sigma])

    return compare(
        "check_ancestral_step",
        "(24)",
        "(factor of x_t, of ε̂, of z) in x_{t−1}",
        left,
        right,
        1e-9,
        {
            "β_t stands where β_t²/β̄_t belongs: a net for all noise in the deck's formula for one step's": lambda: (
                eps_factor(np.sqrt(v))
            ),
            "β_t² stands where β_t²/β̄_t belongs": lambda: eps_factor(v),
            "β̄_t stands where β_t²/β̄_t belongs: it jumps to x_0": lambda: eps_factor(np.sqrt(total)),
            "ε̂ has the wrong sign": lambda: right * [1, -1, 1],
            "the noise has factor σ², a variance": lambda: np.column_stack([mean, sigma**2]),
            "the noise is left out at t = 1": lambda: np.column_stack([mean, np.append(0.0, sigma[1:])]),
            "there is no noise": lambda: np.column_stack([mean, 0 * sigma]),
            "it uses the tables of step t−1: index shifted by one": lambda: np.concatenate([[[1.0, 0, 0]], right[:-1]]),
            "σ_t is that of step t−1": lambda: np.column_stack([mean, _shifted(np.append(sigma[:1], sigma))[1:]]),
        },
    )


def check_ddim_step(
    step: Callable[[int, int, Array, Array, Array], ArrayLike], schedule: NoiseSchedule, eta: float
) -> Check:
    """DDIM keeps the marginals for every η: from x_t = ᾱ_t x_0 + β̄_t ε and ε̂ = ε to x_s ~ N(ᾱ_s x_0, β̄_s² I).

    step(t, s, x_t, eps_hat, noise) for every 0 <= s < t; fresh noise has factor σ = η (β̄_s/β̄_t) √(1 − ᾱ_t²/ᾱ_s²).
    """
    steps = _compose(schedule)
    scale, std = steps.scale, np.sqrt(steps.total)
    pairs = [(t, s) for t in range(1, steps.T + 1) for s in range(t)]
    left = [_coefficients(lambda x0, e, z, t=t, s=s: step(t, s, scale[t] * x0 + std[t] * e, e, z), 3) for t, s in pairs]
    t, s = np.array(pairs).T
    # q(x_s | x_t, x_0) of the chain that stops at s and t only: its variance, by adding precisions
    ratio = scale[t] / scale[s]
    with np.errstate(divide="ignore"):
        full = 1 / (ratio**2 / (std[t] ** 2 - ratio**2 * std[s] ** 2) + 1 / std[s] ** 2)
    sigma = eta * np.sqrt(full)
    direct = np.sqrt(np.maximum(std[s] ** 2 - sigma**2, 0.0))
    return compare(
        "check_ddim_step",
        "(25)",
        "(factor of x_0, of ε, of z) in x_s",
        left,
        np.stack([scale[s], direct, sigma], axis=1),
        1e-9,
        {
            "the direction to x_t has the wrong sign": lambda: np.stack([scale[s], -direct, sigma], axis=1),
            "η is ignored: there is no fresh noise": lambda: np.stack([scale[s], std[s], 0 * sigma], axis=1),
            "σ² is not taken off the direction": lambda: np.stack([scale[s], std[s], sigma], axis=1),
            "the fresh noise has factor σ², a variance": lambda: np.stack([scale[s], direct, sigma**2], axis=1),
        },
    )


def check_sampler(
    sample: Callable[[Array, EpsHat, Array], ArrayLike],
    schedule: NoiseSchedule,
    mean: float,
    variance: float,
    sigma_squared: Array,
) -> Check:
    """The whole ancestral sampler on scalar data N(mean, variance), from x_T ~ p_T with the exact ε̂: moments of x_0.

    With the optimal σ_t² they are those of the data, for every T; the mean alone would see neither the sign nor the
    size of the score.

    Parameters
    ----------
    sample : callable
        sample(x_T (N, 1), eps_hat, noise (T, N, 1)) → x_0 (N, 1), where noise[0] belongs to the step from T and
        eps_hat(x, t) is to be called with t = T..1.
    sigma_squared : (T+1,)
        The σ_t² that `sample` uses.
    """
    steps = _compose(schedule)
    T, spread = steps.T, steps.scale**2 * variance + steps.total

    def eps_hat(x: Array, t: int) -> Array:
        return np.sqrt(steps.total[t]) * (x - steps.scale[t] * mean) / spread[t]

    probes = T + 2
    start, noise = np.zeros((probes, 1)), np.zeros((T, probes, 1))
    start[1] = 1
    noise[np.arange(T), np.arange(2, probes)] = 1
    end = np.asarray(sample(start, eps_hat, noise), dtype=np.float64)[:, 0]
    slopes = end[1:] - end[0]
    left = [end[0] + slopes[0] * steps.scale[T] * mean, slopes[0] ** 2 * spread[T] + (slopes[1:] ** 2).sum()]
    gains = steps.alpha[1:] * spread[:-1] / spread[1:]

    def end_variance(noises: Array) -> float:
        v = spread[T]
        for t in range(T, 0, -1):
            v = gains[t - 1] ** 2 * v + noises[t]
        return float(v)

    sigma_squared = np.asarray(sigma_squared, dtype=np.float64)
    return compare(
        "check_sampler",
        "(19)",
        "(mean, variance) of x_0",
        left,
        [mean, end_variance(sigma_squared)],
        1e-10,
        {
            "the noise is left out at t = 1": lambda: [mean, end_variance(np.append([0, 0], sigma_squared[2:]))],
            "σ_t is that of step t−1": lambda: [mean, end_variance(_shifted(sigma_squared))],
            "there is no noise": lambda: [mean, end_variance(0 * sigma_squared)],
        },
    )


def check_optimal_variance(
    mean_square_step: Callable[[Array], ArrayLike], schedule: NoiseSchedule, covariance: Array
) -> Check:
    """v_t = E‖x_{t−1} − E[x_{t−1} | x_t]‖²/D of data N(0, covariance): the σ_t² that is best for the bound.

    mean_square_step(noise_loss (T+1,)) → (T+1,), from ℓ_t = E‖ε − ε*‖²; right by conditioning x_{t−1} on x_t.
    """
    steps, D = _compose(schedule), len(covariance)
    V = steps.scale[:, None, None] ** 2 * covariance + steps.total[:, None, None] * np.eye(D)
    fisher = np.trace(np.linalg.inv(V), axis1=1, axis2=2)
    left = np.asarray(mean_square_step(D - steps.total * fisher), dtype=np.float64)[1:]
    alpha = steps.alpha[1:, None, None]
    conditional = V[:-1] - alpha**2 * V[:-1] @ np.linalg.inv(V[1:]) @ V[:-1]
    return compare(
        "check_optimal_variance",
        "(29)",
        "σ*²",
        left,
        np.trace(conditional, axis1=1, axis2=2) / D,
        1e-10,
        {
            "it is summed over the D dimensions": lambda: np.trace(conditional, axis1=1, axis2=2),
            "it is β̃², the posterior's: the error of ε̂ is left out": lambda: steps.posterior[1:],
            "it is β²": lambda: steps.variance[1:],
            "β̃² is left out": lambda: np.trace(conditional, axis1=1, axis2=2) / D - steps.posterior[1:],
        },
    )


# --- (19)-(29): the bound ----------------------------------------------------------------------------------------


def check_chains(
    forward_log_prob: Callable[[Array], ArrayLike],
    reverse_log_prob: Callable[[Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    path: Array,
    slopes: Array,
    sigma_squared: Array,
) -> Check:
    """(19): the log-density of a path is that of one dense Gaussian, for a net ε̂(x, t) = slopes[t] · x.

    Parameters
    ----------
    forward_log_prob : callable
        forward_log_prob(path) → log q(x_{1:T} | x_0), (N,).
    reverse_log_prob : callable
        reverse_log_prob(path, eps_hat) → log p_θ(x_{0:T}), (N,).
    path : (T+1, N, 1)
    slopes, sigma_squared : (T+1,)
        Index 0 is not used.
    """
    steps, points = _compose(schedule), path[:, :, 0].T
    T = steps.T
    ratio = steps.scale[None, 1:] / steps.scale[1:, None]  # Cov(x_i, x_j) = (ᾱ_j/ᾱ_i) Var x_i for i <= j
    q_cov = np.minimum.outer(steps.total[1:], steps.total[1:]) * np.minimum(ratio, 1 / ratio)
    q = _normal_log_prob(points[:, 1:] - points[:, :1] * steps.scale[1:], q_cov)
    mean = _reverse_mean(steps)
    G = np.zeros((T + 1, T + 1))  # x_{0:T} = G (z_1, …, z_T, x_T)
    G[T, T] = 1
    for t in range(T, 0, -1):
        G[t - 1] = (mean[t - 1, 0] + mean[t - 1, 1] * slopes[t]) * G[t]
        G[t - 1, t - 1] += np.sqrt(sigma_squared[t])
    p = _normal_log_prob(points, G @ G.T)
    prior = -0.5 * (np.log(2 * np.pi) + points[:, -1] ** 2)
    return worst(
        compare("check_chains", "(19)", "log q(x_{1:T} | x_0)", forward_log_prob(path), q, 1e-9),
        compare(
            "check_chains",
            "(19)",
            "log p_θ(x_{0:T})",
            reverse_log_prob(path, lambda x, t: slopes[t] * x),
            p,
            1e-9,
            {"log p_θ(x_T) is missing": lambda: p - prior},
        ),
    )


def _normal_log_prob(x: Array, covariance: Array) -> Array:
    """log N(x; 0, covariance) of rows, by determinant and solution."""
    quadratic = (x * np.linalg.solve(covariance, x.T).T).sum(axis=1)
    return -0.5 * (len(covariance) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + quadratic)


def check_step_loss(
    loss: Callable[[int, Array, Array, Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    t: int,
    eps_hat: EpsHat,
    mean: float,
    std: float,
    sigma_squared: float,
) -> Check:
    """(22)-(29): −E_q log p_θ(x_{t−1} | x_t) with every constant, on scalar data N(mean, std²) and any entire net.

    Parameters
    ----------
    loss : callable
        loss(t, x0, eps_bar_prev, eps_t, eps_hat) → (N,), nats, all arrays (N, 1), for the given σ_t².  Forms in the
        merged noise, (28) and (29), get it from these by the proposition; only their expectation has to agree.
    eps_hat : callable
        Total noise ε̂(x_t, t), entire in x (sines and polynomials), for the 28³ Gauss-Hermite nodes to be exact.
    """
    steps = _compose(schedule)
    nodes, weights = gauss_hermite(28, 3)
    x0, eps_bar, eps_t = mean + std * nodes[:, :1], nodes[:, 1:2], nodes[:, 2:]
    alpha, v, before, total = steps.alpha[t], steps.variance[t], steps.total[t - 1], steps.total[t]
    x_prev = steps.scale[t - 1] * x0 + np.sqrt(before) * eps_bar
    x_t = alpha * x_prev + np.sqrt(v) * eps_t
    factors = _reverse_mean(steps)[t - 1]
    predicted = eps_hat(x_t, t)
    square = weights @ ((x_prev - factors[0] * x_t - factors[1] * predicted) ** 2)[:, 0]
    constant = 0.5 * np.log(2 * np.pi * sigma_squared)
    omega = steps.posterior[t] / (2 * sigma_squared)
    fit = square / (2 * sigma_squared)
    left = weights @ np.asarray(loss(t, x0, eps_bar, eps_t, eps_hat), dtype=np.float64)
    return compare(
        "check_step_loss",
        "(29)",
        "−E log p_θ(x_{t−1} | x_t)",
        left,
        constant + fit,
        1e-10,
        {
            "the prefactor has lost its ½, as printed": lambda: constant + 2 * fit,
            "ω is separated without leaving D β̃²/(2σ²), as printed": lambda: constant + fit - omega,
            "the prefactor is twice too large and ω leaves nothing, as printed": lambda: constant + 2 * (fit - omega),
            "½ log 2πσ² is missing": lambda: fit,
            "both ½ log 2πσ² and what ω leaves are missing": lambda: fit - omega,
            "β² stands where β⁴/β̄² belongs": lambda: constant + omega + (fit - omega) * total / v,
            "σ stands where σ² belongs in the prefactor": lambda: constant + fit * np.sqrt(sigma_squared),
        },
    )


def _dense_bound(
    steps: _Steps, mean: Array, covariance: Array, A: Array, b: Array, sigma_squared: Array
) -> tuple[float, Array]:
    """−E ELBO of data N(mean, covariance) under ε̂(x, t) = A_t x + b_t: from one Cholesky of both joints; ℓ_t.

    KL of the two dense Gaussians over (x_0, …, x_T) plus the entropy of x_0.
    """
    T, D = steps.T, len(mean)
    V = steps.scale[:, None, None] ** 2 * covariance + steps.total[:, None, None] * np.eye(D)
    q_mean = np.concatenate([a * mean for a in steps.scale])
    q_cov = np.block(
        [[steps.scale[max(i, j)] / steps.scale[min(i, j)] * V[min(i, j)] for j in range(T + 1)] for i in range(T + 1)]
    )
    factors = _reverse_mean(steps)
    G, g = np.zeros((T + 1, D, (T + 1) * D)), np.zeros((T + 1, D))
    G[T, :, T * D :] = np.eye(D)
    for t in range(T, 0, -1):
        slope = factors[t - 1, 0] * np.eye(D) + factors[t - 1, 1] * A[t]
        G[t - 1], g[t - 1] = slope @ G[t], slope @ g[t] + factors[t - 1, 1] * b[t]
        G[t - 1, :, (t - 1) * D : t * D] += np.sqrt(sigma_squared[t]) * np.eye(D)
    flat = G.reshape(-1, (T + 1) * D)
    factor = np.linalg.cholesky(flat @ flat.T)
    spread = np.linalg.solve(factor, np.linalg.cholesky(q_cov))
    shift = np.linalg.solve(factor, q_mean - g.ravel())
    log_ratio = 2 * np.log(np.abs(np.diagonal(spread))).sum()
    joint_kl = 0.5 * ((spread**2).sum() + (shift**2).sum() - len(q_cov) - log_ratio)
    entropy = 0.5 * (D * np.log(2 * np.pi * np.e) + np.linalg.slogdet(covariance)[1])
    std = np.sqrt(steps.total)[:, None, None]
    offset = (steps.scale[:, None, None] * A) @ mean + b
    noise_loss = (
        ((np.eye(D) - std * A) ** 2).sum(axis=(1, 2))
        + np.trace(steps.scale[:, None, None] ** 2 * A @ covariance @ A.swapaxes(1, 2), axis1=1, axis2=2)
        + (offset**2).sum(axis=1)
    )
    return float(joint_kl + entropy), noise_loss


def _terms(steps: _Steps, noise_loss: Array, second_moment: float, D: int, sigma_squared: Array) -> dict[str, float]:
    """Parts whose loss or change is a known mistake."""
    v, total = steps.variance[1:], steps.total[1:]
    s2, factors = np.asarray(sigma_squared)[1:], _reverse_mean(steps)[:, 1] ** 2
    fits = factors * noise_loss[1:] / (2 * s2)
    return {
        "prior": 0.5 * (steps.scale[-1] ** 2 * second_moment + D * (total[-1] - 1 - np.log(total[-1]))),
        "first": 0.5 * D * np.log(2 * np.pi * s2[0]) + fits[0],
        "fits": float(fits.sum()),
        "omega": float((0.5 * D * steps.posterior[1:] / s2).sum()),
        "logs": float((0.5 * D * np.log(s2 / v)).sum()),
    }


def check_variational_bound(
    bound: Callable[[Array, EpsHat, Array], ArrayLike],
    schedule: NoiseSchedule,
    mean: Array,
    covariance: Array,
    A: Array,
    b: Array,
    sigma_squared: Array,
) -> Check:
    """(20)-(21): −E ELBO = KL(q(x_{0:T})‖p_θ(x_{0:T})) + H(x_0), data N(mean, covariance), ε̂(x, t) = A_t x + b_t.

    Parameters
    ----------
    bound : callable
        bound(x0 (N, D), eps_hat, noise (T, N, D)) → −ELBO, (N,), or its terms, (N, n), where noise[t−1] is the TOTAL
        noise of x_t.  Sigma points over (x_0, ε) give the expectation, because each term is a quadratic.
    A : (T+1, D, D)
    b : (T+1, D)
    sigma_squared : (T+1,)
        The σ_t² that `bound` uses.  Index 0 of all three is not used.
    """
    steps, D = _compose(schedule), len(mean)
    points = sigma_points(2 * D)
    x0 = mean + points[:, :D] @ np.linalg.cholesky(covariance).T
    noise = np.broadcast_to(points[:, D:], (steps.T, *x0.shape))
    values = np.asarray(bound(x0, lambda x, t: x @ A[t].T + b[t], noise), dtype=np.float64)
    left = values.reshape(len(values), -1).sum(axis=1).mean()
    right, noise_loss = _dense_bound(steps, mean, covariance, A, b, sigma_squared)
    second = float(np.trace(covariance) + mean @ mean)
    parts = _terms(steps, noise_loss, second, D, sigma_squared)
    return compare(
        "check_variational_bound",
        "(20)",
        "−E ELBO",
        left,
        right,
        1e-9,
        {
            "L_T, the divergence from the prior, is missing": lambda: right - parts["prior"],
            "L_0, the reconstruction, is missing": lambda: right - parts["first"],
            "the losses have lost their ½, as printed": lambda: right + parts["fits"],
            "what ω leaves, D β̃²/(2σ²), is missing": lambda: right - parts["omega"],
            "log σ² is missing": lambda: right - parts["logs"],
            "it is averaged over the D dimensions": lambda: right / D,
        },
    )


def check_negative_elbo(
    negative_elbo: Callable[[Array, float, int], ArrayLike],
    schedule: NoiseSchedule,
    mean: Array,
    covariance: Array,
    A: Array,
    b: Array,
    sigma_squared: Array,
) -> Check:
    """(21), (29): the same value from the noise losses ℓ_t alone, for negative_elbo(noise_loss, second_moment, D)."""
    steps, D = _compose(schedule), len(mean)
    right, noise_loss = _dense_bound(steps, mean, covariance, A, b, sigma_squared)
    second = float(np.trace(covariance) + mean @ mean)
    parts = _terms(steps, noise_loss, second, D, sigma_squared)
    return compare(
        "check_negative_elbo",
        "(21)",
        "−E ELBO",
        negative_elbo(noise_loss, second, D),
        right,
        1e-9,
        {
            "the losses have lost their ½, as printed": lambda: right + parts["fits"],
            "what ω leaves, D β̃²/(2σ²), is missing": lambda: right - parts["omega"],
            "log σ² is missing": lambda: right - parts["logs"],
        },
    )


# --- whole numbers -----------------------------------------------------------------------------------------------


def check_bin_masses(
    log_mass: Callable[[Array, Array, float], ArrayLike], n_levels: int, means: Array, std: float
) -> Check:
    """The decoder of whole numbers 0..n_levels−1: masses sum to 1 and are differences of Φ with open ends.

    log_mass(level, mean, std) → log P(level), nats, elementwise for levels (n_levels, 1) and means (1, M) on the scale
    x_k = 2k/(n_levels−1) − 1.
    """
    from scipy.stats import norm

    levels = np.arange(n_levels)[:, None]
    left = np.asarray(log_mass(levels, means[None, :], std), dtype=np.float64)
    half = 1 / (n_levels - 1)
    centre = 2 * half * levels - 1

    def masses(width: float, open_ends: bool = True) -> Array:
        low, high = (centre - width - means) / std, (centre + width - means) / std
        if open_ends:
            low[0], high[-1] = -np.inf, np.inf
        # differences in the tail where both are small
        return np.where(low > 0, norm.sf(low) - norm.sf(high), norm.cdf(high) - norm.cdf(low))

    density = norm.pdf(centre, means, std)
    mistakes = {
        "they are a density, not masses: a continuous L_0 on whole numbers": lambda: density,
        "they are a density times the bin width": lambda: density * 2 * half,
        "the first and the last bin are closed": lambda: masses(half, open_ends=False),
        "the half-width is 1/n_levels, not 1/(n_levels − 1)": lambda: masses(1 / n_levels),
        "the bins are twice as wide as their distance": lambda: masses(2 * half),
    }
    return worst(
        compare("check_bin_masses", "(21)", "P(level)", np.exp(left), masses(half), 1e-10, mistakes),
        compare("check_bin_masses", "(21)", "Σ P(level)", np.exp(left).sum(axis=0), np.ones(len(means)), 1e-10),
    )


def check_bits_per_dim(
    bits_per_dim: Callable[[Array, int, float], ArrayLike], masses: Array, dimension: int, scale: float
) -> Check:
    """−log₂ P(k)/D from the nats of a density of y = scale · (k + u): equal if the density is constant on unit cubes.

    bits_per_dim(nats, dimension, scale) for the piecewise constant density with these masses P(k).
    """
    nats = -np.log(masses / scale**dimension)
    return compare(
        "check_bits_per_dim",
        "(21)",
        "bits per dimension",
        bits_per_dim(nats, dimension, scale),
        -np.log2(masses) / dimension,
        1e-11,
        {
            "the change of units is missing": lambda: nats / (dimension * np.log(2)),
            "the change of units has the wrong sign": lambda: nats / (dimension * np.log(2)) + np.log2(scale),
            "it is in nats": lambda: -np.log(masses) / dimension,
            "it is not divided by D": lambda: -np.log2(masses),
        },
    )
