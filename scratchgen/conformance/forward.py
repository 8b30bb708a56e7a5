"""Checks of equations (19), (25), (27): the forward process, its posterior, the merging of noise.

Every function under test is linear in its arrays.  It is called at every step with three dimensions, near 0 and far
from 0, and compared with a formula of the reference chain.  Then it is called with an array of steps, if it takes one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, takes_arrays
from scratchgen.conformance.reference_chain import (
    CANCELS,
    LATE,
    D,
    Formula,
    Steps,
    all_steps,
    at,
    at_clipped_steps,
    check_linear,
    clippings,
    common_mistakes,
    compose,
    compose_variances,
    enlarged,
    hos_table,
    of_hos_table,
    probes,
    rounding,
    shifted,
)
from scratchgen.conformance.result import Check, compare, first_of, worst
from scratchgen.conformance.returns import numbers
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
        The largest of the residuals, relative to ᾱ_t, β̄_t and β_t; tolerance 64 + 2 T machine epsilons, enlarged where
        1 − ᾱ² cancels.
    """
    steps = compose(schedule)
    tolerance = rounding(steps.T)

    def table(
        symbol: str,
        left: ArrayLike,
        of: Callable[[Steps], Array],
        unit: Array,
        condition: Array,
        mistakes: Tables,
        places: Tables | None = None,
    ) -> Check:
        tables = {**mistakes, **_mistaken_tables(of, steps)}
        return compare(
            "check_schedule",
            "(25)",
            symbol,
            left,
            of(steps),
            tolerance,
            {**tables, **extra_step(of)},
            unit=unit * enlarged(tolerance, condition),
            labels=lambda i: f"{symbol} at t = {i[0]}",
            single=CANCELS if condition.max() > 50 else "",
            places=places,
        )

    first = np.ravel(np.asarray(alpha_bar, dtype=np.float64))[1:2]

    def extra_step(of: Callable[[Steps], Array]) -> Tables:
        return {text: lambda s=s: of(s) for text, s in _after_a_step(steps, first).items()}  # type: ignore[misc]

    beta = np.sqrt(steps.variance)
    checks = [
        table(
            "ᾱ",
            alpha_bar,
            lambda s: s.scale,
            steps.scale,
            steps.scale_condition,
            {
                "it is ᾱ², which is Ho's α-bar; ᾱ here is its square root": lambda: steps.scale**2,
                "it is the product of the β, not of the α": lambda: np.cumprod(np.append(1.0, beta[1:])),
                "ᾱ is exp(−½ Σβ²), the limit of many small steps, not the product": lambda: np.exp(
                    -0.5 * np.cumsum(np.append(0.0, steps.variance[1:]))
                ),
                "ᾱ is ᾱ − ᾱ_T: it is shifted to 0 at t = T, and not rescaled": lambda: np.append(
                    1.0, steps.scale[1:] - steps.scale[-1]
                ),
                "it is α_t of one step": lambda: steps.alpha,
            },
        ),
        table(
            "β̄",
            beta_bar,
            lambda s: s.std,
            np.append(1.0, steps.std[1:]),
            steps.total_condition,
            {
                "it is β̄²: the square root is missing": lambda: steps.total,
                "it is √(1 − ᾱ): ᾱ is not squared": lambda: np.sqrt(1 - steps.scale),
                "it is 1 − ᾱ": lambda: 1 - steps.scale,
                "it is β_t, the noise of one step": lambda: beta,
                "it is log β̄²": lambda: np.log(steps.total),
                "β̄² is the sum of the β², not 1 − ᾱ²": lambda: np.sqrt(np.cumsum(np.append(0.0, steps.variance[1:]))),
                "β̄² is 1 − Π β²: the product of the β², not of the α²": lambda: np.sqrt(
                    1 - np.cumprod(np.append(1.0, steps.variance[1:]))
                ),
            },
        ),
    ]
    if beta_tilde is not None:
        checks.append(
            table(
                "β̃",
                beta_tilde,
                lambda s: np.sqrt(s.posterior),
                np.append(1.0, beta[1:]),
                steps.posterior_condition,
                {
                    "it is β̃², a variance": lambda: steps.posterior,
                    "it is β_t": lambda: beta,
                    "β̄_{t−1}²/β̄_t² stands where its root belongs, β̄_{t−1}/β̄_t": lambda: (
                        beta * shifted(steps.total) / np.append(1.0, steps.total[1:])
                    ),
                    "1/β̄_t is missing": lambda: beta * shifted(steps.std),
                },
                {
                    "β̃_1 is β̃_2, as in Ho's clipped log-variance": lambda: np.sqrt(
                        np.concatenate([steps.posterior[:1], steps.posterior[2:3], steps.posterior[2:]])
                    ),
                    "β̃_1 is β_1": lambda: np.concatenate([[0.0], beta[1:2], np.sqrt(steps.posterior[2:])]),
                },
            )
        )
    return worst(*(at_clipped_steps(check, steps) for check in checks))


Tables = dict[str, Callable[[], ArrayLike]]


def _mistaken_tables(of: Callable[[Steps], Array], steps: Steps) -> Tables:
    """The values of a table with a shifted index, or of another schedule."""
    right, T = of(steps), steps.T
    return {
        "it is that of step t−1: the table is padded on the wrong side": lambda: shifted(right),
        "it is that of step t+1, without an entry for clean data": lambda: np.append(right[1:], right[-1]),
        **{text: lambda v=v: of(compose_variances(v)) for text, v in _other_variances(steps).items()},  # type: ignore[misc]
        of_hos_table(T): lambda: of(hos_table(T)),
    }


def _other_variances(steps: Steps) -> dict[str, Array]:
    """Tables that are made from the given one by mistake."""
    return {
        "β² is squared once more: a variance is taken for a standard deviation": steps.variance[1:] ** 2,
        "the root of β² stands for β²: a standard deviation is taken for a variance": np.sqrt(steps.variance[1:]),
    }


def _after_a_step(steps: Steps, first: Array) -> dict[str, Steps]:
    """The chain after one more step, by ᾱ_1 of the code under test, (1,): all ᾱ_t have one factor too many."""
    factor = float(first[0] / steps.scale[1]) if first.size else 1.0
    if not 0 < factor < 1 - 1e-9:
        return {}
    scale = np.append(1.0, factor * steps.scale[1:])
    text = f"ᾱ_t has the factor {factor:.6g} at every t: one step too many stands before the first"
    return {text: steps._replace(scale=scale, total=1 - scale**2)}


def _mistakes(formula_of: Callable[[Steps], Formula], steps: Steps, inputs: tuple[str, ...]) -> dict[str, Formula]:
    """Those of every map, and those of other tables."""
    others = {text: formula_of(compose_variances(v)) for text, v in _other_variances(steps).items()}
    return {**common_mistakes(formula_of, steps, inputs), **others}


def weighted(first: Array, second: Array) -> Formula:
    """The formula of first_t times one input plus second_t times another."""
    return lambda t, x, y: at(first, t) * x + at(second, t) * y


@takes_arrays
def check_forward_step(q_step: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(19), (30): x_t = α_t x_{t−1} + β_t ε_t for every t.  The slide of the deck omits ε_t.

    Parameters
    ----------
    q_step : callable
        q_step(t, x_prev, noise) → x_t; all arrays (N, D).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        Tolerance 64 + 2 T machine epsilons.
    """
    check_callable(q_step, "q_step(t, x_prev, noise); t counts 1..T")
    steps = compose(schedule)
    alpha, v, inputs = steps.alpha, steps.variance, ("x_{t−1}", "ε_t")
    beta = np.sqrt(v)
    return check_linear(
        "check_forward_step",
        "(19)",
        q_step,
        "q_step",
        all_steps(steps),
        weighted(alpha, beta),
        inputs,
        "x_t",
        np.stack([(v / alpha)[1:], 1 / beta[1:]], axis=1),  # 1 − α² may stand for β²
        {
            "β is added without noise, as printed on the deck's slide": lambda t, x, e: at(alpha, t) * x + at(beta, t),
            "there is no noise": weighted(alpha, 0 * beta),
            "the noise has factor β², a variance": weighted(alpha, v),
            "α and β are swapped": weighted(beta, alpha),
            "x_{t−1} has factor 1 − β², without the square root": weighted(alpha**2, beta),
            "both square roots are missing": weighted(alpha**2, v),
            "x_{t−1} has factor 1: the variance grows": weighted(0 * alpha + 1, beta),
            "x_{t−1} has factor 1 − β²/2, the first order of the root": weighted(1 - v / 2, beta),
            "it is x_t from x_0, all steps at once": weighted(steps.scale, steps.std),
            "α is that of step t+1, beside β_t": weighted(np.append(alpha[1:], alpha[-1]), beta),
            "the noise is subtracted": weighted(alpha, -beta),
            **_mistakes(lambda s: weighted(s.alpha, np.sqrt(s.variance)), steps, inputs),
        },
        rounding(steps.T),
    )


@takes_arrays
def check_forward_process(q_sample: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(25): x_t = ᾱ_t x_0 + β̄_t ε for every t, from a composition of single steps.

    Parameters
    ----------
    q_sample : callable
        q_sample(t, x0, noise) → x_t; all arrays (N, D).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        Tolerance 64 + 2 T machine epsilons, for the factor of ε relative to β̄_t, and enlarged where 1 − ᾱ² cancels.
    """
    check_callable(q_sample, "q_sample(t, x0, noise); t counts 1..T")
    steps = compose(schedule)
    scale, std, inputs = steps.scale, steps.std, ("x_0", "ε")
    first = numbers(
        q_sample(1, np.ones((1, D)), np.zeros((1, D))), f"q_sample must return an array of shape (N, {D})"
    ).ravel()[:1]
    after_a_step = {text: weighted(s.scale, s.std) for text, s in _after_a_step(steps, first).items()}
    check = check_linear(
        "check_forward_process",
        "(25)",
        q_sample,
        "q_sample",
        all_steps(steps),
        weighted(scale, std),
        inputs,
        "x_t",
        np.stack([scale * steps.scale_condition, std * steps.total_condition], axis=1)[1:],
        {
            "the noise has factor β̄², a variance": weighted(scale, std**2),
            "the noise has factor √(1 − ᾱ): ᾱ is not squared": weighted(scale, np.sqrt(1 - scale)),
            "the noise has factor 1 − ᾱ": weighted(scale, 1 - scale),
            "x_0 has factor ᾱ², which is Ho's α-bar without its square root": weighted(scale**2, std),
            "both square roots are missing: x_0 has Ho's α-bar, the noise β̄²": weighted(scale**2, std**2),
            "the factors are swapped": weighted(std, scale),
            "the noise is subtracted: the distribution is right, the noise of this x_t has the other sign": weighted(
                scale, -std
            ),
            "x_0 is rescaled to 2x_0 − 1 inside": lambda t, x, e: at(scale, t) * (2 * x - 1) + at(std, t) * e,
            "it is divided by ᾱ, x_0 + σ ε with σ = β̄/ᾱ as in EDM": weighted(0 * scale + 1, std / scale),
            "it is the straight path (1 − t/T) x_0 + (t/T) ε of flow matching": weighted(
                1 - np.arange(steps.T + 1) / steps.T, np.arange(steps.T + 1) / steps.T
            ),
            "it is one step, not t steps": weighted(steps.alpha, np.sqrt(steps.variance)),
            "there is no noise": weighted(scale, 0 * std),
            "x_0 has factor 1: the variance grows": weighted(0 * scale + 1, std),
            "the noise is that of one step": weighted(scale, np.sqrt(steps.variance)),
            "x_0 has the factor of one step": weighted(steps.alpha, std),
            "ᾱ is the product of the β": weighted(
                np.cumprod(np.append(1.0, np.sqrt(steps.variance[1:]))),
                np.sqrt(1 - np.cumprod(np.append(1.0, steps.variance[1:]))),
            ),
            **clippings(weighted(scale, std), "x_t"),
            **after_a_step,
            **_mistakes(lambda s: weighted(s.scale, s.std), steps, inputs),
        },
        rounding(steps.T),
        floor=np.stack([1 + scale[1:], std[1:]], axis=1),  # the factor of ε in units of β̄
    )
    return at_clipped_steps(check, steps)


def _posterior_weights(steps: Steps) -> tuple[Array, Array]:
    """The factors of x_t and x_0 in the mean of q(x_{t−1} | x_t, x_0), (T+1,), by precisions; 0, 1 at t <= 1."""
    by_x_t, by_x0 = np.zeros(steps.T + 1), np.ones(steps.T + 1)
    by_x_t[2:] = steps.posterior[2:] * steps.alpha[2:] / steps.variance[2:]
    by_x0[2:] = steps.posterior[2:] * steps.scale[1:-1] / steps.total[1:-1]
    return by_x_t, by_x0


@takes_arrays
def check_posterior(
    q_posterior: Callable[[int, Array, Array], tuple[ArrayLike, ArrayLike]],
    schedule: NoiseSchedule,
    clipped: bool = False,
) -> Check:
    """Mean and variance of q(x_{t−1} | x_t, x_0) for every t, by adding precisions.

    Its density is q(x_t | x_{t−1}) q(x_{t−1} | x_0)/q(x_t | x_0).  The deck names two of these three factors.  At t = 1
    the distribution is the point x_0.

    Parameters
    ----------
    q_posterior : callable
        q_posterior(t, x_t, x0) → (mean (N, D), variance), where the variance is a number or broadcasts to (N, D).
    schedule : NoiseSchedule
    clipped : bool
        The variance at t = 1 is that of t = 2 in place of 0, as for the logarithm in Ho's code; T is 2 or more.

    Returns
    -------
    Check
        The larger residual of the mean and of the variance over β_t²; tolerance 64 + 2 T machine epsilons, enlarged
        where 1 − ᾱ² cancels.
    """
    check_callable(q_posterior, "q_posterior(t, x_t, x0); t counts 1..T")
    if clipped and schedule.T == 1:
        raise ValueError(
            "clipped must be False for T = 1, since the variance of t = 1 is replaced by that of t = 2; pass False (to "
            "`audit`: clipped_posterior=False)"
        )
    steps, name, tolerance = compose(schedule), "check_posterior", rounding(schedule.T)
    by_x_t, by_x0 = _posterior_weights(steps)
    v, before, total, posterior = steps.variance, shifted(steps.total), steps.total, steps.posterior
    safe, condition, inputs = np.append(1.0, total[1:]), steps.posterior_condition[1:], ("x_t", "x_0")
    before_or_1 = np.where(before > 0, before, 1.0)
    without = v * before / np.where(v + before > 0, v + before, 1.0)  # 1/(1/β_t² + 1/β̄_{t−1}²)
    mean = check_linear(
        name,
        "(24)",
        lambda t, x, y: parts(q_posterior(t, x, y), 2, "q_posterior")[0],
        "the mean of q_posterior",
        all_steps(steps),
        weighted(by_x_t, by_x0),
        inputs,
        "the posterior mean",
        condition[:, None] * np.stack([by_x_t, by_x0], axis=1)[1:],
        {
            "the two factors are swapped": weighted(by_x0, by_x_t),
            "ᾱ_t stands where ᾱ_{t−1} belongs": weighted(by_x_t, by_x0 * steps.alpha),
            "β stands where β² belongs in the factor of x_0": weighted(by_x_t, by_x0 / np.sqrt(np.append(1.0, v[1:]))),
            "1/β̄² is missing": weighted(by_x_t * total, by_x0 * total),
            "1/β̄ stands where 1/β̄² belongs": weighted(by_x_t * steps.std, by_x0 * steps.std),
            "β̄_t stands where β̄_{t−1} belongs": weighted(steps.alpha, by_x0),
            "ᾱ² stands for ᾱ, Ho's α-bar without its root": weighted(by_x_t, v * shifted(steps.scale) ** 2 / safe),
            "α² stands for α in the factor of x_t": weighted(by_x_t * steps.alpha, by_x0),
            "both square roots are missing": weighted(by_x_t * steps.alpha, v * shifted(steps.scale) ** 2 / safe),
            "ᾱ_t stands where α_t belongs": weighted(steps.scale * before / safe, by_x0),
            "ᾱ_{t−1} comes from a table padded on the wrong side": _padded(steps),
            "the precision of x_t given x_{t−1} is 1/β_t², without α_t²": weighted(
                without * steps.alpha / np.append(1.0, v[1:]),
                np.append(1.0, (without / before_or_1 * shifted(steps.scale))[1:]),
            ),
            "it is x_t/α_t, from two of the three factors": weighted(1 / steps.alpha, 0 * by_x0),
            "it is the mean of x_{t−1} given x_0 only": weighted(0 * by_x_t, shifted(steps.scale)),
            **_mistakes(lambda s: weighted(*_posterior_weights(s)), steps, inputs),
        },
        tolerance,
    )
    given, ts = probes(2)[:, 1:4], np.arange(1, steps.T + 1)
    shape = given.shape[1:]

    def variance(t: int) -> Array:
        value = parts(q_posterior(t, *given.copy()), 2, "q_posterior")[1]
        value = value[:, None] if value.shape == shape[:1] else value
        try:
            return np.broadcast_to(value, shape)
        except ValueError:
            raise ValueError(
                f"the variance of q_posterior must be a number or broadcast to (N, D) = {shape}, got {value.shape}"
            ) from None

    def over_beta(table: Array) -> Callable[[], Array]:
        return lambda: np.broadcast_to((table[1:] / v[1:])[:, None, None], (steps.T, *shape))

    second = np.concatenate([posterior[:1], posterior[2:3], posterior[2:]]) if steps.T > 1 else posterior
    expected = second if clipped else posterior
    beta_tilde = np.sqrt(posterior)
    spread = compare(
        name,
        "(24)",
        "the posterior variance over β²",
        np.array([variance(int(t)) for t in ts]) / v[1:, None, None],
        over_beta(expected)(),
        tolerance,
        {
            "it is β_t², the variance of the forward step (β̄_t in place of β̄_{t−1} gives it)": over_beta(v),
            "1/β̄_t² is missing": over_beta(v * before),
            "1/β̄_t stands where 1/β̄_t² belongs": over_beta(v * before / np.sqrt(safe)),
            "it is that of step t−1: index shifted by one": over_beta(shifted(posterior)),
            LATE: over_beta(np.append(posterior[1:], posterior[-1])),
            "it is that of step t−1, and of step T at t = 1, where an index is −1": over_beta(
                np.concatenate([[0.0], posterior[-1:], posterior[1:-1]])
            ),
            "β̄_{t−2} stands where β̄_{t−1} belongs: the table is padded twice": over_beta(v * shifted(before) / safe),
            "ᾱ_{t−1} comes from a table padded on the wrong side": over_beta(_padded_variance(steps)),
            "it is β̃, a standard deviation": over_beta(beta_tilde),
            "it is β̃⁴: a variance is squared": over_beta(posterior**2),
            "its first step is 0, as it is; pass clipped=False (to `audit`: clipped_posterior=False)"
            if clipped
            else "its first step is replaced by the second, as in Ho's code; pass clipped=True (to `audit`: "
            "clipped_posterior=True) if this is meant": over_beta(posterior if clipped else second),
            "its first step is β_1²": over_beta(np.concatenate([v[:2], posterior[2:]])),
            "it is a log-variance, with the first step replaced by the second": over_beta(
                np.log(np.where(second > 0, second, np.nan))
            ),
            "it is a log-variance, with log 1e-20 at the first step": over_beta(np.log(np.maximum(posterior, 1e-20))),
            **{
                f"it is at least {floor:g}": over_beta(np.append(posterior[:1], np.maximum(posterior[1:], floor)))
                for floor in FLOORS
            },
            "it is log β_t²": over_beta(np.log(np.append(1.0, v[1:]))),
            "it is β_t, a standard deviation": over_beta(np.sqrt(v)),
            "the precision of x_t given x_{t−1} is 1/β_t², without α_t²": over_beta(without),
            "β̄_t²/β̄_{t−1}² stands where β̄_{t−1}²/β̄_t² belongs": over_beta(
                np.where(before > 0, v * total / before_or_1, posterior)
            ),
            "it is β_t²/α_t², from two of the three factors": over_beta(v / (1 - v)),
            of_hos_table(steps.T): over_beta(hos_table(steps.T).posterior),
        },
        labels=lambda i: f"t = {i[0] + 1}: the posterior variance over β²",
        unit=2 * enlarged(tolerance, condition)[:, None, None],
        single=CANCELS if condition.max() > 50 else "",
    )
    return worst(mean, spread)


FLOORS = 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12  # guards of a variance that people write


def _padded_table(steps: Steps) -> Array:
    """ᾱ_1, …, ᾱ_{T−1}, 1 for t = 1..T, where 1, ᾱ_1, …, ᾱ_{T−1} belongs; index 0 is not used."""
    return np.concatenate([[1.0], steps.scale[1:-1], [1.0]])


def _padded_variance(steps: Steps) -> Array:
    return steps.variance * (1 - _padded_table(steps) ** 2) / np.append(1.0, steps.total[1:])


def _padded(steps: Steps) -> Formula:
    previous, safe = _padded_table(steps), np.append(1.0, steps.total[1:])
    return weighted(steps.alpha * (1 - previous**2) / safe, previous * steps.variance / safe)


@takes_arrays
def check_noise_merging(
    merge_noise: Callable[[int, Array, Array], tuple[ArrayLike, ArrayLike]],
    split_noise: Callable[[int, Array, Array], ArrayLike],
    schedule: NoiseSchedule,
) -> Check:
    """The proposition before (27): (ε, ω) = R(ε̄_{t−1}, ε_t), β̄_t ε = α_t β̄_{t−1} ε̄_{t−1} + β_t ε_t, R Rᵀ = I.

    The right side has R with the row of ω such that R is its own inverse; the row of ε_t in (27) is then this row.
    Both rows have length 1 and are orthogonal, so that E[ε ωᵀ] = 0.  Both are jointly Gaussian, so that 0 means
    independence.

    Parameters
    ----------
    merge_noise : callable
        merge_noise(t, eps_bar_prev, eps_t) → (ε, ω); all arrays (N, D).
    split_noise : callable
        split_noise(t, eps, omega) → ε_t, (27).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        ε_t by `split_noise` if all pass, else the largest of three residuals; tolerance 64 + 2 T machine epsilons,
        enlarged where 1 − ᾱ² cancels.
    """
    check_callable(merge_noise, "merge_noise(t, eps_bar_prev, eps_t); t counts 1..T")
    check_callable(split_noise, "split_noise(t, eps, omega); t counts 1..T")
    steps, pair = compose(schedule), ("ε̄_{t−1}", "ε_t")
    safe = np.append(1.0, steps.std[1:])

    def rotation(s: Steps) -> tuple[Array, Array]:
        safe = np.append(1.0, s.std[1:])
        return s.alpha * shifted(s.std) / safe, np.sqrt(s.variance) / safe

    cosine, sine = rotation(steps)

    apart = np.append(1.0, np.hypot(shifted(steps.std), np.sqrt(steps.variance))[1:])

    def part(
        f: Callable[..., ArrayLike],
        what: str,
        formula_of: Callable[[Steps], Formula],
        rows: tuple[Array, Array],
        inputs: tuple[str, ...],
        result: str,
        mistakes: dict[str, Formula],
    ) -> Check:
        return check_linear(
            "check_noise_merging",
            "(27)",
            f,
            what,
            all_steps(steps),
            formula_of(steps),
            inputs,
            result,
            steps.posterior_condition[1:, None] * np.stack(rows, axis=1)[1:],
            {**mistakes, **_mistakes(formula_of, steps, inputs)},
            rounding(steps.T),
        )

    def merged(which: int) -> Callable[..., Array]:
        return lambda t, x, y: parts(merge_noise(t, x, y), 2, "merge_noise")[which]

    def omega_row(s: Steps) -> Formula:
        cosine, sine = rotation(s)
        return weighted(sine, -cosine)

    *merges, split = (
        part(
            merged(0),
            "merge_noise",
            lambda s: weighted(*rotation(s)),
            (cosine, sine),
            pair,
            "ε",
            {
                "1/β̄_t is missing: the variance is β̄_t², not 1": weighted(cosine * safe, sine * safe),
                "the two are swapped": weighted(sine, cosine),
                "α_t is missing": weighted(cosine / steps.alpha, sine),
                "α_t² stands for α_t": weighted(cosine * steps.alpha, sine),
                "ᾱ_t stands for α_t": weighted(cosine / steps.alpha * steps.scale, sine),
                "β̄_t stands where β̄_{t−1} belongs": weighted(steps.alpha, sine),
                "the factors are squared": weighted(cosine**2, sine**2),
                "α_t is missing, and the row is divided by its own length": weighted(
                    shifted(steps.std) / apart, np.sqrt(steps.variance) / apart
                ),
                "it is the sum of the two noises": weighted(0 * cosine + 1, 0 * cosine + 1),
            },
        ),
        part(
            merged(1),
            "merge_noise",
            omega_row,
            (sine, cosine),
            pair,
            "ω",
            {
                "ω has the other sign: R is then not its own inverse": weighted(-sine, cosine),
                "both noises are added: ω is not independent of ε": weighted(sine, cosine),
                "it is ε again": weighted(cosine, sine),
            },
        ),
        part(
            split_noise,
            "split_noise",
            omega_row,
            (sine, cosine),
            ("ε", "ω"),
            "ε_t",
            {
                "ω has the wrong sign": weighted(sine, cosine),
                "it is ε̄_{t−1}": weighted(cosine, sine),
                "1/β̄_t is missing": weighted(sine * safe, -cosine * safe),
                "1/β̄_t stands twice": weighted(sine / safe, -cosine / safe),
            },
        ),
    )
    return first_of(split, *merges)


@takes_arrays
def check_predict_x0(predict_x0: Callable[[int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """(25) solved for x_0: x̂_0 = (x_t − β̄_t ε̂)/ᾱ_t for every t.

    Parameters
    ----------
    predict_x0 : callable
        predict_x0(t, x_t, eps_hat) → x̂_0; all arrays (N, D).
    schedule : NoiseSchedule

    Returns
    -------
    Check
        In units of 1/ᾱ_t; tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.
    """
    check_callable(predict_x0, "predict_x0(t, x_t, eps_hat); t counts 1..T")
    steps, inputs = compose(schedule), ("x_t", "ε̂")
    scale, std = steps.scale, steps.std

    def solved(s: Steps) -> Formula:
        return weighted(1 / s.scale, -s.std / s.scale)

    right, of_scale = solved(steps), steps.scale_condition
    check = check_linear(
        "check_predict_x0",
        "(25)",
        predict_x0,
        "predict_x0",
        all_steps(steps),
        right,
        inputs,
        "x̂_0",
        np.stack([of_scale, std * (of_scale + steps.total_condition)], axis=1)[1:] / scale[1:, None],
        {
            "1/ᾱ is missing": weighted(0 * scale + 1, -std),
            "the noise has the wrong sign": weighted(1 / scale, std / scale),
            "the noise has factor β̄², a variance": weighted(1 / scale, -(std**2) / scale),
            "the noise has factor √(1 − ᾱ): ᾱ is not squared": weighted(1 / scale, -np.sqrt(1 - scale) / scale),
            "it is divided by ᾱ², Ho's α-bar without its root": weighted(1 / scale**2, -std / scale**2),
            "both square roots are missing": weighted(1 / scale**2, -(std**2) / scale**2),
            "ε̂ has the factor 1/ᾱ − 1, where √(1/ᾱ² − 1) belongs": weighted(1 / scale, 1 - 1 / scale),
            'it is ᾱx_t − β̄ε̂, right for a network that predicts v; pass prediction="v" to `audit` if this is meant': (
                weighted(scale, -std)
            ),
            "1/ᾱ is missing in the factor of x_t": weighted(0 * scale + 1, -std / scale),
            "it is multiplied by ᾱ, not divided": weighted(scale, -std * scale),
            "the two factors are swapped": weighted(std / scale, -1 / scale),
            "1/ᾱ is missing in the factor of ε̂": weighted(1 / scale, -std),
            "it is divided by α_t of one step": weighted(1 / steps.alpha, -std / steps.alpha),
            "ε̂ has the factor of one step, β_t": weighted(1 / scale, -np.sqrt(steps.variance) / scale),
            "ᾱ_{t−1} stands where ᾱ_t belongs": weighted(1 / shifted(scale), -std / shifted(scale)),
            **clippings(right, "x̂_0"),
            **_mistakes(solved, steps, inputs),
        },
        rounding(steps.T),
        floor=np.broadcast_to((1 / scale[1:])[:, None], (steps.T, 2)),
    )
    return at_clipped_steps(check, steps)
