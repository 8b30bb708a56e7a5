"""Checks of equations (19), (25), (27): the forward process, its posterior, the merging of noise.

Every function under test is linear in its arguments.  Its coefficients are read off at unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts, returned, takes_arrays
from scratchgen.conformance.reference_chain import coefficients, compose, factors, shifted
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array


@takes_arrays
def check_schedule(
    schedule: NoiseSchedule, alpha_bar: ArrayLike, beta_bar: ArrayLike, beta_tilde: ArrayLike | None = None
) -> Check:
    """(25): the tables ᾱ_t, β̄_t and β̃_t, from a composition of single steps.

    Parameters
    ----------
    schedule : NoiseSchedule
        Only its variances β_t² are used.
    alpha_bar, beta_bar : (T+1,)
        Index 0 is clean data: ᾱ_0 = 1, β̄_0 = 0.
    beta_tilde : (T+1,), optional
        The standard deviation of q(x_{t−1} | x_t, x_0).

    Returns
    -------
    Check
        The largest of the residuals; tolerance 1e-12, for β̃_t 1e-10.
    """
    steps = compose(schedule)
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
                "it is ᾱ_{t−1}: the table is padded on the wrong side": lambda: shifted(steps.scale),
                "it is ᾱ_{t+1}, the table padded at its end: index 0 is the first step": lambda: np.append(
                    steps.scale[1:], np.asarray(alpha_bar)[-1]
                ),
                "it is ᾱ², which is Ho's α-bar; ᾱ here is its square root": lambda: steps.scale**2,
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
                "it is β̄²: the square root is missing": lambda: steps.total,
                "it is √(1 − ᾱ): ᾱ is not squared": lambda: np.sqrt(1 - steps.scale),
                "it is β̄_{t−1}: the table is padded on the wrong side": lambda: shifted(np.sqrt(steps.total)),
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
                    "1/β̄_t is missing": lambda: np.sqrt(steps.variance * shifted(steps.total)),
                },
            )
        )
    return worst(*checks)


@takes_arrays
def check_forward_step(q_step: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(19), (30): x_t = α_t x_{t−1} + β_t ε_t for every t.  The slide of the deck omits ε_t.

    Parameters
    ----------
    q_step : callable
        q_step(t, x_prev, noise) → x_t; all arrays (N, 1).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        Tolerance 1e-12.
    """
    steps = compose(schedule)
    left = [coefficients(lambda x, e, t=t: q_step(t, x, e), 2) for t in range(1, steps.T + 1)]
    alpha, beta = steps.alpha[1:], np.sqrt(steps.variance[1:])
    return compare(
        "check_forward_step",
        "(19)",
        "(factor of x_{t−1}, of ε_t, constant, bend)",
        left,
        factors(alpha, beta),
        1e-12,
        {
            "β is added without noise, as printed on the deck's slide": lambda: np.column_stack(
                [alpha, 0 * beta, beta]
            ),
            "there is no noise": lambda: factors(alpha, 0 * beta),
            "the noise has factor β², a variance": lambda: factors(alpha, beta**2),
            "α and β are swapped": lambda: factors(beta, alpha),
            "x_{t−1} has factor 1 − β², without the square root": lambda: factors(alpha**2, beta),
            "it is the step t−1": lambda: factors(steps.alpha[:-1], np.sqrt(steps.variance[:-1])),
        },
        first=1,
    )


@takes_arrays
def check_forward_process(q_sample: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(25): x_t = ᾱ_t x_0 + β̄_t ε for every t, from a composition of single steps.

    Parameters
    ----------
    q_sample : callable
        q_sample(t, x0, noise) → x_t; all arrays (N, 1).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        Tolerance 1e-12.
    """
    steps = compose(schedule)
    left = np.array([coefficients(lambda x, e, t=t: q_sample(t, x, e), 2) for t in range(1, steps.T + 1)])
    scale, std = steps.scale[1:], np.sqrt(steps.total[1:])
    mistakes = {
        "the noise has factor β̄², a variance": lambda: factors(scale, std**2),
        "the noise has factor √(1 − ᾱ): ᾱ is not squared": lambda: factors(scale, np.sqrt(1 - scale)),
        "x_0 has factor ᾱ², which is Ho's α-bar without its square root": lambda: factors(scale**2, std),
        "the factors are swapped": lambda: factors(std, scale),
        "the noise is subtracted: the distribution is right, the noise of this x_t has the other sign": lambda: factors(
            scale, -std
        ),
        "it is x_{t−1}: index shifted by one": lambda: factors(steps.scale[:-1], np.sqrt(steps.total[:-1])),
        "it is one step, not t steps": lambda: factors(steps.alpha[1:], np.sqrt(steps.variance[1:])),
    }
    return worst(
        compare(
            "check_forward_process",
            "(25)",
            "(ᾱ, β̄, constant, bend)",
            left,
            factors(scale, std),
            1e-12,
            mistakes,
            first=1,
        ),
        compare("check_forward_process", "(25)", "β̄²", left[:, 1] ** 2, steps.total[1:], 1e-12, relative=True, first=1),
    )


@takes_arrays
def check_posterior(
    q_posterior: Callable[[int, Array, Array], tuple[ArrayLike, ArrayLike]], schedule: NoiseSchedule
) -> Check:
    """Mean and variance of q(x_{t−1} | x_t, x_0) for every t, by adding precisions.

    Its density is q(x_t | x_{t−1}) q(x_{t−1} | x_0)/q(x_t | x_0).  The deck names two of these three factors.  At t = 1
    the distribution is the point x_0.

    Parameters
    ----------
    q_posterior : callable
        q_posterior(t, x_t, x0) → (mean (N, 1), variance, a number).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        The larger residual of the coefficients of the mean and of the variance over β_t²; tolerance 1e-9.
    """
    steps = compose(schedule)
    ts = range(1, steps.T + 1)
    means = [coefficients(lambda x, y, t=t: parts(q_posterior(t, x, y), 2, "q_posterior")[0], 2) for t in ts]
    zero = np.zeros((1, 1))
    variances = np.array([parts(q_posterior(t, zero, zero), 2, "q_posterior")[1].ravel()[0] for t in ts])
    alpha, v, before, total = steps.alpha[1:], steps.variance[1:], steps.total[:-1], steps.total[1:]
    posterior = steps.posterior[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        by_x_t, by_x0 = posterior * alpha / v, posterior * steps.scale[:-1] / before
    by_x_t[0], by_x0[0] = 0.0, 1.0
    return worst(
        compare(
            "check_posterior",
            "(24)",
            "(factor of x_t, of x_0, constant, bend) of the posterior mean",
            means,
            factors(by_x_t, by_x0),
            1e-9,
            {
                "the two factors are swapped": lambda: factors(by_x0, by_x_t),
                "ᾱ_t stands where ᾱ_{t−1} belongs": lambda: factors(by_x_t, by_x0 * alpha),
                "β stands where β² belongs in the factor of x_0": lambda: factors(by_x_t, by_x0 / np.sqrt(v)),
                "1/β̄² is missing": lambda: factors(by_x_t * total, by_x0 * total),
                "it is that of step t−1: index shifted by one": lambda: factors(
                    np.append(0.0, by_x_t[:-1]), np.append(1.0, by_x0[:-1])
                ),
                "β̄_t stands where β̄_{t−1} belongs": lambda: factors(alpha, by_x0),
            },
            first=1,
        ),
        compare(
            "check_posterior",
            "(24)",
            "the posterior variance over β²",
            variances / v,
            posterior / v,
            1e-9,
            {
                "it is β_t², the variance of the forward step (β̄_t in place of β̄_{t−1} gives it)": lambda: v / v,
                "1/β̄_t² is missing": lambda: before,
                "it is that of step t−1: index shifted by one": lambda: shifted(posterior) / v,
                "β̄_{t−2} stands where β̄_{t−1} belongs: the table is padded twice": lambda: shifted(before) / total,
                "it is β̃, a standard deviation": lambda: np.sqrt(posterior) / v,
                "its first step is replaced by the second": lambda: np.append(posterior[1:2], posterior[1:]) / v,
                "its first step is β_1²": lambda: np.append(v[:1], posterior[1:]) / v,
                "it is a log-variance": lambda: np.log(posterior) / v,
            },
            first=1,
        ),
    )


@takes_arrays
def check_noise_merging(
    merge_noise: Callable[[int, Array, Array], tuple[ArrayLike, ArrayLike]],
    split_noise: Callable[[int, Array, Array], ArrayLike],
    schedule: NoiseSchedule,
) -> Check:
    """The proposition before (27): (ε, ω) = R(ε̄_{t−1}, ε_t), β̄_t ε = α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t, R Rᵀ = I.

    The off-diagonal entry of R Rᵀ is E[ε ωᵀ].  Both are jointly Gaussian, so that 0 means independence.

    Parameters
    ----------
    merge_noise : callable
        merge_noise(t, eps_bar_prev, eps_t) → (ε, ω); all arrays (N, 1).
    split_noise : callable
        split_noise(t, eps, omega) → ε_t, (27).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        The largest of four residuals; tolerance 1e-12.
    """
    steps = compose(schedule)
    first, second = np.eye(2)[:, :1], np.eye(2)[:, 1:]
    rotations, splits, totals = [], [], []
    for t in range(1, steps.T + 1):
        eps, omega = parts(merge_noise(t, first, second), 2, "merge_noise")
        rotations.append([returned(part, (2, 1), "merge_noise")[:, 0] for part in (eps, omega)])
        splits.append(returned(split_noise(t, first, second), (2, 1), "split_noise")[:, 0])
        totals.append(np.array([steps.alpha[t] * np.sqrt(steps.total[t - 1]), np.sqrt(steps.variance[t])]))
    R, unscaled, std = np.array(rotations), np.array(totals), np.sqrt(steps.total[1:, None])
    exact = unscaled / std
    turned = exact[:, ::-1] * [1, -1]  # the row of ω in R, and the row of ε_t in R⁻¹ = R
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
                "1/β̄_t is missing: the variance is β̄_t², not 1": lambda: unscaled,
                "the two are swapped": lambda: exact[:, ::-1],
                "β̄_t stands where β̄_{t−1} belongs": lambda: np.column_stack([steps.alpha[1:], exact[:, 1]]),
            },
            first=1,
        ),
        compare(
            name,
            "(27)",
            "R Rᵀ (its off-diagonal is E[ε ωᵀ])",
            R @ R.swapaxes(1, 2),
            np.broadcast_to(np.eye(2), (len(R), 2, 2)),
            1e-12,
            first=1,
        ),
        compare(name, "(27)", "the factors of ε̄_{t−1} and ε_t in ω", R[:, 1], turned, 1e-12, first=1),
        compare(
            name,
            "(27)",
            "the factors of ε and ω in ε_t",
            splits,
            turned,
            1e-12,
            {
                "ω has the wrong sign": lambda: turned * [1, -1],
                "it is ε̄_{t−1}": lambda: exact,
                "1/β̄_t is missing": lambda: turned * std,
                "1/β̄_t stands twice": lambda: turned / std,
            },
            first=1,
        ),
    )


@takes_arrays
def check_predict_x0(predict_x0: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(25) solved for x_0: x̂_0 = (x_t − β̄_t ε̂)/ᾱ_t for every t.

    Parameters
    ----------
    predict_x0 : callable
        predict_x0(t, x_t, eps_hat) → x̂_0; all arrays (N, 1).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        Tolerance 1e-12, relative to |right|.
    """
    steps = compose(schedule)
    left = np.array([coefficients(lambda x, e, t=t: predict_x0(t, x, e), 2) for t in range(1, steps.T + 1)])
    scale, std = steps.scale[1:], np.sqrt(steps.total[1:])
    return compare(
        "check_predict_x0",
        "(25)",
        "(factor of x_t, of ε̂, constant, bend) of x_0",
        left,
        factors(1 / scale, -std / scale),
        1e-12,
        {
            "1/ᾱ is missing": lambda: factors(np.ones_like(scale), -std),
            "the noise has the wrong sign": lambda: factors(1 / scale, std / scale),
            "the noise has factor β̄², a variance": lambda: factors(1 / scale, -(std**2) / scale),
            "ᾱ_{t−1} stands where ᾱ_t belongs": lambda: factors(1 / steps.scale[:-1], -std / steps.scale[:-1]),
            "it uses step t−1: index shifted by one": lambda: factors(
                1 / steps.scale[:-1], -np.sqrt(steps.total[:-1]) / steps.scale[:-1]
            ),
        },
        relative=True,
        first=1,
    )
