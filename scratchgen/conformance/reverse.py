"""Checks of the reverse steps: ancestral sampling, DDIM, whole samplers, guidance, the reverse variances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_sigma_squared, check_callable, returned, takes_arrays
from scratchgen.conformance.loops import Shake, exactly, unit_of_loop
from scratchgen.conformance.reference_chain import (
    CANCELS,
    CLIPS,
    FAR,
    NEAR,
    UNCLIPPED,
    D,
    EpsHat,
    Formula,
    Steps,
    all_steps,
    at,
    at_clipped_steps,
    check_linear,
    clipped,
    common_mistakes,
    compose,
    enlarged,
    reverse_mean,
    rounding,
    shifted,
)
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray, as_number

ALL_PAIRS = 40  # the longest chain of which every pair (t, s) is compared


# --- ancestral sampling ----------------------------------------------------------------------------------------------


def _mean_tables(steps: Steps) -> tuple[Array, Array]:
    """The factors of x_t and of ε̂ in the mean of p_θ(x_{t−1} | x_t), (T+1,); 1 and 0 at t = 0."""
    by_x_t, by_eps = reverse_mean(steps).T
    return np.append(1.0, by_x_t), np.append(0.0, by_eps)


def _reverse_step(by_x_t: Array, by_eps: Array, sigma: Array) -> Formula:
    return lambda t, x, e, z: at(by_x_t, t) * x + at(by_eps, t) * e + at(sigma, t) * z


ADDED = "the last step adds noise; pass last_noise=True to `audit` if this is meant"


def _ancestral_mistakes(steps: Steps, sigma: Array) -> dict[str, Formula]:
    """Sentence → formula of a wrong step from x_t, ε̂ and z."""
    (by_x_t, by_eps), T = _mean_tables(steps), steps.T
    alpha, v, std, scale = steps.alpha, steps.variance, steps.std, steps.scale
    safe = np.append(1.0, std[1:])

    def mean(eps_factor: Array) -> Formula:
        return _reverse_step(by_x_t, -eps_factor / alpha, sigma)

    def noise(other: Array) -> Formula:
        return _reverse_step(by_x_t, by_eps, other)

    def of_x0_hat(bound: float) -> Formula:
        """The posterior mean at a clipped x̂_0."""
        by_x0 = -by_eps * scale / safe

        def step(t: IntArray, x: Array, e: Array, z: Array) -> Array:
            x0_hat = (x - at(std, t) * e) / at(scale, t)
            weight = at(by_x_t, t) - at(by_x0, t) / at(scale, t)
            return weight * x + at(by_x0, t) * clipped(x0_hat, bound) + at(sigma, t) * z

        return step

    def as_it_is(last: int) -> Formula:
        """x_t is returned up to t = last, with noise."""
        early = np.arange(T + 1) <= last
        return _reverse_step(np.where(early, 1.0, by_x_t), np.where(early, 0.0, by_eps), sigma)

    def of_tables() -> dict[str, Formula]:
        """Sentence → formula for the σ_t² of a name; one that differs at t = 1 only is the noise of the last step."""
        beta, tilde, zero = np.sqrt(v), np.sqrt(steps.posterior), np.zeros(2)
        names = {"β_t²": beta, "β̃_t²": tilde}
        meant = next((name for name, table in names.items() if np.allclose(sigma[2:], table[2:])), "the given table")
        found: dict[str, Formula] = {}
        for what, option, table in (
            ("β_t²", "beta", beta),
            ("β_t², with 0 at t = 1", "beta", np.append(zero, beta[2:])),
            ("β̃_t²", "posterior", tilde),
            ("β̃_t², with β_1² at t = 1", "posterior", np.append(beta[:2], tilde[2:])),
        ):
            advice = f'; pass variance="{option}" and last_noise={bool(table[1] > 0)} to `audit` if this is meant'
            if not np.allclose(sigma[2:], table[2:]):
                found[f"σ_t² is {what}, not {meant}{advice}"] = noise(table)
            elif sigma[1] == 0:
                found[ADDED] = noise(np.append(beta[:2], sigma[2:]))
        return found

    first = np.append(0.0, sigma[1:2])
    return {
        "β_t stands where β_t²/β̄_t belongs, as if ε̂ were the noise of one step": mean(np.sqrt(v)),
        "β_t² stands where β_t²/β̄_t belongs": mean(v),
        "β̄_t stands where β_t²/β̄_t belongs": mean(std),
        "β_t²/β̄_t² stands where β_t²/β̄_t belongs: 1 − ᾱ² without its square root": mean(v / safe**2),
        "β_t/β̄_t stands where β_t²/β̄_t belongs": mean(np.sqrt(v) / safe),
        "√(1 − ᾱ) stands where β̄ = √(1 − ᾱ²) belongs: ᾱ is not squared": mean(
            v / np.append(1.0, np.sqrt(1 - scale[1:]))
        ),
        "1 − α_t stands where β_t² = 1 − α_t² belongs: α is not squared": mean((1 - alpha) / safe),
        "β̄_{t−1} stands where β̄_t belongs": mean(v / np.concatenate([safe[:2], safe[1:-1]])),
        "ε̂ has the wrong sign": _reverse_step(by_x_t, -by_eps, sigma),
        "1/α_t is missing": _reverse_step(by_x_t * alpha, by_eps * alpha, sigma),
        "it is multiplied by α_t, not divided": _reverse_step(by_x_t * alpha**2, by_eps * alpha**2, sigma),
        "1/α_t² stands for 1/α_t": _reverse_step(by_x_t / alpha, by_eps / alpha, sigma),
        "1/ᾱ_t stands where 1/α_t belongs": _reverse_step(1 / scale, -v / safe / scale, sigma),
        "1/α_t is missing in the factor of ε̂": mean(v / safe * alpha),
        "the noise has factor σ², a variance": noise(sigma**2),
        "the noise has factor √σ: a standard deviation is taken for a variance": noise(np.sqrt(sigma)),
        "the noise has factor exp(½ σ²): σ² is read as its logarithm": noise(np.exp(0.5 * sigma**2)),
        "the noise has factor log σ², a log-variance": noise(np.log(np.append(1.0, sigma[1:] ** 2))),
        "x_t is returned as it is at t = 1": as_it_is(1),
        "x_t is returned as it is at t = 1 and t = 2": as_it_is(2),
        "the noise is squared, or two draws are multiplied": lambda t, x, e, z: (
            at(by_x_t, t) * x + at(by_eps, t) * e + at(sigma, t) * z**2
        ),
        "the noise is left out at t = 1; pass last_noise=False to `audit` if this is meant": noise(
            np.append([0.0, 0.0], sigma[2:])
        ),
        "the noise is left out at t = 1 and t = 2": noise(np.append([0.0, 0.0, 0.0], sigma[3:])[: T + 1]),
        "the noise is left out at t = T": noise(np.append(sigma[:-1], 0.0)),
        "there is noise at t = 1 only": noise(np.concatenate([first, 0 * sigma[2:]])),
        "there is no noise": noise(0 * sigma),
        "the noise is added twice": noise(2 * sigma),
        "the noise is subtracted": noise(-sigma),
        "the noise has factor 1": noise(0 * sigma + 1),
        "the noise is divided by α_t": noise(sigma / alpha),
        "σ_t is that of step t−1": noise(shifted(sigma)),
        "σ_t is that of step t−1, and right at t = 1": noise(np.concatenate([sigma[:2], sigma[1:-1]])),
        "σ_t is that of step t+1": noise(np.append(sigma[1:], sigma[-1])),
        **of_tables(),
        **{f"x̂_0 is clipped to [−{bound:g}, {bound:g}]; {UNCLIPPED}": of_x0_hat(bound) for bound in CLIPS},
        **common_mistakes(lambda s: _reverse_step(*_mean_tables(s), sigma), steps, ("x_t", "ε̂", "z")),
    }


@takes_arrays
def check_ancestral_step(
    step: Callable[[int, Array, Array, Array], ArrayLike], schedule: NoiseSchedule, sigma_squared: Array
) -> Check:
    """x_{t−1} = (x_t − (β_t²/β̄_t) ε̂)/α_t + σ_t z for every t, with the total noise ε̂.

    The step t = 1 adds noise like every other step, because p_θ(x_0 | x_1) is a Gaussian.

    Parameters
    ----------
    step : callable
        step(t, x_t, eps_hat, noise) → x_{t−1}; all arrays (N, D).
    schedule : NoiseSchedule
    sigma_squared : (T+1,)
        The variances σ_t² that `step` uses.

    Returns
    -------
    Check
        Tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.
    """
    check_callable(step, "step(t, x_t, eps_hat, noise); t counts 1..T")
    steps = compose(schedule)
    sigma = np.sqrt(as_sigma_squared(sigma_squared, schedule, zero=True))
    check = check_linear(
        "check_ancestral_step",
        "(24)",
        step,
        "step",
        all_steps(steps),
        _reverse_step(*_mean_tables(steps), sigma),
        ("x_t", "ε̂", "z"),
        "x_{t−1}",
        steps.posterior_condition[1:, None] * np.abs(np.stack([*_mean_tables(steps), sigma], axis=1))[1:],
        _ancestral_mistakes(steps, sigma),
        rounding(steps.T),
    )
    return at_clipped_steps(check, steps)


# --- DDIM ------------------------------------------------------------------------------------------------------------


class _Levels:
    """ᾱ and β̄ of steps t and s as factors of (…, D), and the variance of x_t given x_s."""

    def __init__(self, steps: Steps, t: IntArray, s: IntArray) -> None:
        self.t, log_scale = t, np.cumsum(np.log1p(-steps.variance))
        jump = np.where(np.subtract(t, s) == 1, steps.variance[t], -np.expm1(log_scale[t] - log_scale[s]))
        self.scale_t, self.std_t = at(steps.scale, t), at(steps.std, t)
        self.scale_s, self.std_s = at(steps.scale, s), at(steps.std, s)
        self.jump = jump[:, None] if np.ndim(jump) == 1 else jump
        self.sigma = self.std_s / self.std_t * np.sqrt(np.maximum(self.jump, 0.0))  # at η = 1

    def direct(self, sigma: Array) -> Array:
        """The factor of ε̂."""
        return np.sqrt(np.maximum(self.std_s**2 - sigma**2, 0.0))

    def x0_hat(self, x_t: Array, eps_hat: Array) -> Array:
        """x̂_0."""
        return (x_t - self.std_t * eps_hat) / self.scale_t


def _ddim(steps: Steps, eta: float) -> Formula:
    def step(t: IntArray, s: IntArray, x: Array, e: Array, z: Array) -> Array:
        at_ = _Levels(steps, t, s)
        sigma = eta * at_.sigma
        return at_.scale_s * at_.x0_hat(x, e) + at_.direct(sigma) * e + sigma * z

    return step


def _ddim_mistakes(steps: Steps, eta: float) -> dict[str, Formula]:
    """Sentence → formula of a wrong step from t to s, x_t, ε̂ and z."""

    def made(weights: Callable[[_Levels, Array], tuple[Array, Array, Array]]) -> Formula:
        """From the factors of x̂_0, ε̂ and z as a function of the levels and the right σ."""

        def step(t: IntArray, s: IntArray, x: Array, e: Array, z: Array) -> Array:
            at_ = _Levels(steps, t, s)
            by_x0, by_eps, by_z = weights(at_, eta * at_.sigma)
            return by_x0 * at_.x0_hat(x, e) + by_eps * e + by_z * z

        return step

    def with_sigma(other: Callable[[_Levels], Array]) -> Formula:
        return made(lambda at_, _: (at_.scale_s, at_.direct(other(at_)), other(at_)))

    def clipping(bound: float, stale: bool) -> Formula:
        def step(t: IntArray, s: IntArray, x: Array, e: Array, z: Array) -> Array:
            at_ = _Levels(steps, t, s)
            x0, sigma = clipped(at_.x0_hat(x, e), bound), eta * at_.sigma
            e = e if stale else (x - at_.scale_t * x0) / at_.std_t
            return at_.scale_s * x0 + at_.direct(sigma) * e + sigma * z

        return step

    def one_step(t: IntArray, s: IntArray, x: Array, e: Array, z: Array) -> Array:
        at_, sigma = _Levels(steps, t, s), eta * at(np.sqrt(steps.posterior), t)
        return at_.scale_s * at_.x0_hat(x, e) + at_.direct(sigma) * e + sigma * z

    def without_root(t: IntArray, s: IntArray, x: Array, e: Array, z: Array) -> Array:
        at_, sigma = _Levels(steps, t, s), eta * _Levels(steps, t, s).sigma
        return at_.scale_s * (x - at_.std_t * e) / at_.scale_t**2 + at_.direct(sigma) * e + sigma * z

    right = _ddim(steps, eta)
    mistakes: dict[str, Formula] = {
        "the direction to x_t has the wrong sign": made(lambda a, sigma: (a.scale_s, -a.direct(sigma), sigma)),
        "η is ignored: there is no fresh noise": made(lambda a, sigma: (a.scale_s, a.std_s, 0 * sigma)),
        "η is ignored: the step has η = 1": with_sigma(lambda a: a.sigma),
        "the fresh noise is left out, its σ² is taken off the direction": made(
            lambda a, sigma: (a.scale_s, a.direct(sigma), 0 * sigma)
        ),
        "σ² is not taken off the direction": made(lambda a, sigma: (a.scale_s, a.std_s, sigma)),
        "σ is taken off the direction in place of σ²": made(
            lambda a, sigma: (a.scale_s, np.sqrt(np.maximum(a.std_s**2 - sigma, 0)), sigma)
        ),
        "the fresh noise has factor σ², a variance": made(lambda a, sigma: (a.scale_s, a.direct(sigma), sigma**2)),
        "η stands in σ and again before the fresh noise": made(
            lambda a, sigma: (a.scale_s, a.direct(sigma), eta * sigma)
        ),
        "the fresh noise is added twice": made(lambda a, sigma: (a.scale_s, a.direct(sigma), 2 * sigma)),
        "β̄_t stands where β̄_s belongs in the direction": made(
            lambda a, sigma: (a.scale_s, np.sqrt(np.maximum(a.std_t**2 - sigma**2, 0)), sigma)
        ),
        "β̄_s² stands where β̄_s belongs: the square root of the direction is missing": made(
            lambda a, sigma: (a.scale_s, a.std_s**2 - sigma**2, sigma)
        ),
        "ᾱ_t stands where ᾱ_s belongs": made(lambda a, sigma: (a.scale_t, a.direct(sigma), sigma)),
        "ᾱ_s² stands where ᾱ_s belongs, Ho's α-bar without its root": made(
            lambda a, sigma: (a.scale_s**2, a.direct(sigma), sigma)
        ),
        "ᾱ_s is missing: x̂_0 has factor 1": made(lambda a, sigma: (1 + 0 * a.scale_s, a.direct(sigma), sigma)),
        "x̂_0 is divided by ᾱ_t², Ho's α-bar without its root": without_root,
        "the whole is x̂_0": made(lambda a, sigma: (1 + 0 * sigma, 0 * sigma, 0 * sigma)),
        "σ has the factor η² in place of η": with_sigma(lambda a: eta**2 * a.sigma),
        "σ has 1 − ᾱ_t² in place of 1 − ᾱ_t²/ᾱ_s²": with_sigma(lambda a: eta * a.std_s),
        "σ has β̄_t/β̄_s in place of β̄_s/β̄_t": with_sigma(
            lambda a: eta * a.std_t / np.where(a.std_s > 0, a.std_s, np.inf) * np.sqrt(a.jump)
        ),
        "σ has lost its factor β̄_s/β̄_t": with_sigma(lambda a: eta * np.sqrt(a.jump)),
        "σ has 1 − ᾱ_t/ᾱ_s: ᾱ is not squared": with_sigma(
            lambda a: eta * a.std_s / a.std_t * np.sqrt(1 - a.scale_t / a.scale_s)
        ),
        "σ is that of the single step from t to t − 1": one_step,
        "σ is that of the single step from t to t − 1, and at most β̄_s": with_sigma(
            lambda a: np.minimum(eta * at(np.sqrt(steps.posterior), a.t), a.std_s)
        ),
        "the step to x_0 keeps the noise level of s = 1": lambda t, s, x, e, z: right(t, np.maximum(s, 1), x, e, z),
        "s is ignored: the step goes to t − 1": lambda t, s, x, e, z: right(t, t - 1, x, e, z),
        "t and s are swapped": lambda t, s, x, e, z: right(np.where(s > 0, s, -1), t, x, e, z),
    }
    for bound in CLIPS:
        text = f"x̂_0 is clipped to [−{bound:g}, {bound:g}]"
        mistakes[f"{text}; ε̂ is not recomputed from it; {UNCLIPPED}"] = clipping(bound, True)
        mistakes[f"{text}, and ε̂ recomputed from it; {UNCLIPPED}"] = clipping(bound, False)
    return {**mistakes, **common_mistakes(lambda s: _ddim(s, eta), steps, ("x_t", "ε̂", "z"))}


def _ddim_condition(steps: Steps, eta: float, t: IntArray, s: IntArray) -> Array:
    """How many machine epsilons the factors of x_0, ε and z in x_s may lose, (P, 3)."""
    at_ = _Levels(steps, t, s)
    sigma, of_scale, of_total = eta * at_.sigma, steps.scale_condition[:, None], steps.total_condition[:, None]
    of_sigma = sigma * (1 / at_.jump + of_total[t] + of_total[s])
    direct = at_.direct(sigma)  # the root of a difference
    of_direct = (at_.std_s**2 * of_total[s] + sigma * of_sigma) / np.where(direct > 0, direct, np.inf)
    of_x0 = at_.scale_s * (of_scale[t] + of_scale[s])
    of_eps = at_.scale_s / at_.scale_t * (1 + at_.std_t * (of_total[t] + of_scale[t])) + of_direct
    return np.concatenate([of_x0, of_eps, of_sigma], axis=1)


def _pairs(T: int) -> IntArray:
    """All pairs (t, s) with 0 <= s < t, (P, 2); for long chains single steps, jumps to 0, and jumps on a grid."""
    if T <= ALL_PAIRS:
        return np.array([(t, s) for t in range(1, T + 1) for s in range(t)])
    grid = np.unique(np.linspace(0, T, 25).round().astype(np.int64))
    single = [(t, t - 1) for t in range(1, T + 1)]
    return np.array(sorted({*single, *((int(t), int(s)) for t in grid for s in grid if s < t)}))


@takes_arrays
def check_ddim_step(
    step: Callable[[int, int, Array, Array, Array], ArrayLike], schedule: NoiseSchedule, eta: float
) -> Check:
    """One DDIM step keeps the marginals for every η and every 0 <= s < t.

    From x_t = ᾱ_t x_0 + β̄_t ε and ε̂ = ε, x_s has the distribution N(ᾱ_s x_0, β̄_s² I).  The factor of the fresh noise
    is σ = η (β̄_s/β̄_t) √(1 − ᾱ_t²/ᾱ_s²).  For T of 40 and less all pairs (t, s) are compared.  η is one number: call the
    check for several, as 0, 0.7 and 1, to see a step that has one of them built in.

    Parameters
    ----------
    step : callable
        step(t, s, x_t, eps_hat, noise) → x_s; all arrays (N, D).
    schedule : NoiseSchedule
    eta : float
        η; 0 is deterministic.

    Returns
    -------
    Check
        Tolerance 64 + 2 T machine epsilons, enlarged by ᾱ_s/ᾱ_t and where 1 − ᾱ² cancels.
    """
    check_callable(step, "step(t, s, x_t, eps_hat, noise); t counts 1..T, s counts 0..t−1")
    eta = as_number(eta, "eta", low=0.0, high=1.0)
    steps, pairs = compose(schedule), _pairs(schedule.T)

    def on_path(formula: Formula) -> Formula:
        """From x_t to x_0 and ε as the inputs."""
        return lambda t, s, x0, e, z: formula(t, s, at(steps.scale, t) * x0 + at(steps.std, t) * e, e, z)

    return check_linear(
        "check_ddim_step",
        "(25)",
        on_path(step),  # type: ignore[arg-type]
        "step",
        pairs,
        on_path(_ddim(steps, eta)),
        ("x_0", "ε", "z"),
        "x_s",
        _ddim_condition(steps, eta, *pairs.T),
        {text: on_path(wrong) for text, wrong in _ddim_mistakes(steps, eta).items()},
        rounding(steps.T),
    )


# --- whole samplers --------------------------------------------------------------------------------------------------


@takes_arrays
def check_sampler(
    sample: Callable[[Array, EpsHat, Array], ArrayLike],
    schedule: NoiseSchedule,
    mean: float,
    variance: float,
    sigma_squared: Array,
) -> Check:
    """The whole ancestral sampler: x_0 of given noise, and mean and variance of x_0 for data N(mean, variance I).

    With the exact ε̂ and the optimal σ_t² the moments equal those of the data, for every T.  The mean alone depends
    neither on the sign nor on the size of the score.  The network of the given noise is not linear, and some of the
    noise is large, so that a clipping of x̂_0 to ±10 shows.

    Parameters
    ----------
    sample : callable
        sample(x_T (N, D), eps_hat, noise (T, N, D)) → x_0 (N, D).  noise[0] belongs to the step from T.  `sample` calls
        eps_hat(x, t) with t = T..1, an int or (N,).
    schedule : NoiseSchedule
    mean, variance : float
        Mean and variance of the data in every dimension.
    sigma_squared : (T+1,)
        The variances σ_t² that `sample` uses.

    Returns
    -------
    Check
        The larger residual; tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.  The loop magnifies
        rounding; ten times its effect is allowed.
    """
    check_callable(sample, "sample(x_T, eps_hat, noise)")
    steps, mean = compose(schedule), as_number(mean, "mean")
    T = steps.T
    variance = as_number(variance, "variance", low=0.0, open_low=True)
    spread = steps.scale**2 * variance + steps.total
    sigma_squared = as_sigma_squared(sigma_squared, schedule, zero=True)
    sigma, tolerance = np.sqrt(sigma_squared), rounding(T)
    factor = enlarged(tolerance, steps.loop_condition)
    by_x_t, by_eps = _mean_tables(steps)

    def exact(x: Array, t: int | IntArray) -> Array:
        return at(steps.std, t) * (x - at(steps.scale, t) * mean) / at(spread, t)

    def bent(x: Array, t: int | IntArray) -> Array:
        """With a wave whose slope the factor 1/α_t of a step does not magnify."""
        return exact(x, t) + 0.2 * at(steps.alpha * steps.std, t) * np.sin(x + 0.5 * at(np.arange(T + 1.0), t))

    start, noise = _given_noise(T)
    x_T = start.copy()
    x_T[-1] = FAR / max(steps.scale[T] * variance / spread[T], 1e-2)
    if T > 1 and sigma[2] > 0:
        noise[T - 2, -1] = FAR / sigma[2]

    formula = _reverse_step(by_x_t, by_eps, sigma)
    walk = _walker(steps, x_T, bent, noise)
    right = walk(formula)
    along = compare(
        "check_sampler",
        "(19)",
        "x_0 of given noise",
        returned(sample(x_T.copy(), bent, noise.copy()), x_T.shape, "sample"),
        right,
        tolerance,
        {
            **_loop_mistakes(walk, formula, noise),
            **_walks(walk, _ancestral_mistakes(steps, sigma), T),
        },
        labels=lambda i: f"x_0 of given noise, example {i[0]}, dimension {i[1]},",
        unit=unit_of_loop(
            "check_sampler", lambda shake: walk(formula, shake=shake), (1 + np.abs(right)) * factor, tolerance
        ),
        single=CANCELS,
    )
    probes = T + 2
    start, unit = np.zeros((probes, D)), np.zeros((T, probes, D))
    start[1], unit[np.arange(T), np.arange(2, probes)] = NEAR, NEAR
    end = returned(sample(start, exact, unit), (probes, D), "sample")
    slopes = (end[1:] - end[0]) / NEAR
    left = [end[0] + slopes[0] * steps.scale[T] * mean, slopes[0] ** 2 * spread[T] + (slopes[1:] ** 2).sum(axis=0)]
    gains = steps.alpha[1:] * spread[:-1] / spread[1:]

    def moments(noises: Array) -> Array:
        v = spread[T]
        for t in range(T, 0, -1):
            v = gains[t - 1] ** 2 * v + noises[t]
        return np.repeat([[mean / np.sqrt(variance)], [v / variance]], D, axis=1)

    return worst(
        along,
        compare(
            "check_sampler",
            "(19)",
            "(mean, variance) of x_0, in units of the data",
            np.array(left) / [[np.sqrt(variance)], [variance]],
            moments(sigma_squared),
            tolerance,
            {
                "the noise is left out at t = 1": lambda: moments(np.append([0, 0], sigma_squared[2:])),
                "σ_t is that of step t−1": lambda: moments(shifted(sigma_squared)),
                "there is no noise": lambda: moments(0 * sigma_squared),
                "the noise has factor σ², a variance": lambda: moments(sigma_squared**2),
            },
            unit=(1 + np.abs(moments(sigma_squared))) * factor,
            single=CANCELS,
        ),
    )


def _given_noise(T: int) -> tuple[Array, Array]:
    """x_T (5, D) and noise (T, 5, D): irregular numbers without a random generator."""
    numbers = 1.5 * np.sin(1.7 * np.arange(1.0, 1 + 5 * D * (T + 1)) ** 1.3).reshape(T + 1, 5, D)
    return numbers[0], numbers[1:]


Walk = Callable[..., Array]


def _walker(steps: Steps, x_T: Array, eps_hat: EpsHat, noise: Array) -> Walk:
    """The loop over steps, as a function of the formula of a step and of mistakes in the loop."""
    T = len(noise)

    def walk(
        step: Formula,
        step_of: Callable[[int], int] = lambda t: t,
        noise: Array = noise,
        predict: Callable[[list[Array]], Array] = lambda predicted: predicted[-1],
        first: int = T,
        last: int = 1,
        shake: Shake = exactly,
    ) -> Array:
        """x after the step `last`; ε̂ is that of step_of(t), and predict(ε̂ of all steps so far) is used."""
        x, predicted = x_T, []
        for t in range(first, last - 1, -1):
            x = shake(x, steps.step_condition[t])
            predicted.append(shake(eps_hat(x, step_of(t)), steps.step_condition[t]))
            x = step(t, x, predict(predicted), noise[T - t])
        return x

    return walk


def _loop_mistakes(walk: Walk, formula: Formula, noise: Array) -> dict[str, Callable[[], Array]]:
    """Mistakes in the loop of a sampler, where every step is right."""
    T = len(noise)

    def given(other: Array) -> Callable[[], Array]:
        return lambda: walk(formula, noise=np.broadcast_to(other, noise.shape))

    return {
        "ε̂ is evaluated at t − 1: the network gets the wrong step": lambda: walk(formula, lambda t: t - 1),
        "ε̂ is evaluated at t − 1, and at 1 for t = 1": lambda: walk(formula, lambda t: max(t - 1, 1)),
        "ε̂ is evaluated at t + 1: the network gets the wrong step": lambda: walk(formula, lambda t: min(t + 1, T)),
        "the steps of ε̂ are counted backwards: the network gets T + 1 − t": lambda: walk(formula, lambda t: T + 1 - t),
        "ε̂ is evaluated at T in every step": lambda: walk(formula, lambda t: T),
        "ε̂ is stale: that of the step before": lambda: walk(formula, predict=lambda e: e[max(len(e) - 2, 0)]),
        "ε̂ is stale: that of the first step, for all steps": lambda: walk(formula, predict=lambda e: e[0]),
        "the first step is not made": lambda: walk(formula, first=T - 1),
        "the last step, t = 1, is not made: x_1 is returned": lambda: walk(formula, last=2),
        "one noise is shared by all steps: that of the first step": given(noise[:1]),
        "one noise is shared by all steps: that of the last step": given(noise[-1:]),
        "the noise of the steps is used in the order t = 1..T, in reverse": given(noise[::-1]),
        "every step has the noise of the step before": given(np.concatenate([noise[-1:], noise[:-1]])),
        "every step has the noise of the next step": given(np.concatenate([noise[1:], noise[:1]])),
    }


def _walks(walk: Walk, formulas: dict[str, Formula], T: int) -> dict[str, Callable[[], Array]]:
    """The end of a whole chain for every wrong step; none for chains of over 1000 steps, to save time."""
    return {text: lambda m=m: walk(m) for text, m in formulas.items()} if T <= 1000 else {}  # type: ignore[misc]


@takes_arrays
def check_ddim_sampler(
    sample: Callable[[Array, EpsHat, Array], ArrayLike], schedule: NoiseSchedule, eta: float
) -> Check:
    """The whole DDIM sampler over the steps T..1, for a network that is not linear, from its formula at every step.

    Parameters
    ----------
    sample : callable
        sample(x_T (N, D), eps_hat, noise (T, N, D)) → x_0 (N, D).  noise[0] belongs to the step from T.  `sample` calls
        eps_hat(x, t) with t = T..1, an int or (N,).
    schedule : NoiseSchedule
    eta : float
        η; 0 is deterministic.

    Returns
    -------
    Check
        Tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.  The loop magnifies rounding; ten times its
        effect is allowed.
    """
    check_callable(sample, "sample(x_T, eps_hat, noise)")
    eta = as_number(eta, "eta", low=0.0, high=1.0)
    steps = compose(schedule)
    T, std = steps.T, steps.std
    x_T, noise = _given_noise(T)
    x_T = x_T.copy()
    x_T[-1] = FAR * max(1.0, steps.scale[T])

    def eps_hat(x: Array, t: int | IntArray) -> Array:
        """Exact for N(0, 4), plus a wave whose slope the factor 1/α_t of a step does not magnify."""
        exact = at(std, t) * x / at(4 * steps.scale**2 + steps.total, t)
        return exact + 0.2 * at(steps.alpha * std, t) * np.sin(x + 0.5 * at(np.arange(T + 1.0), t))

    def single(formula: Formula) -> Formula:
        """From t to t − 1."""
        return lambda t, *rest: formula(t, t - 1, *rest)

    formula, tolerance, walk = single(_ddim(steps, eta)), rounding(T), _walker(steps, x_T, eps_hat, noise)
    right = walk(formula)
    return compare(
        "check_ddim_sampler",
        "(25)",
        "x_0",
        returned(sample(x_T.copy(), eps_hat, noise.copy()), x_T.shape, "sample"),
        right,
        tolerance,
        {
            **_loop_mistakes(walk, formula, noise),
            **_walks(walk, {text: single(m) for text, m in _ddim_mistakes(steps, eta).items()}, T),
        },
        labels=lambda i: f"x_0, example {i[0]}, dimension {i[1]},",
        unit=unit_of_loop(
            "check_ddim_sampler",
            lambda shake: walk(formula, shake=shake),
            (1 + np.abs(right)) * enlarged(tolerance, steps.loop_condition),
            tolerance,
        ),
        single=CANCELS,
    )


# --- variances -------------------------------------------------------------------------------------------------------


@takes_arrays
def check_optimal_variance(
    mean_square_step: Callable[[Array], ArrayLike], schedule: NoiseSchedule, covariance: Array
) -> Check:
    """The σ_t² with the best bound, v_t = E‖x_{t−1} − E[x_{t−1} | x_t]‖²/D, for data N(0, covariance).

    The right side is the variance of x_{t−1} conditioned on x_t.

    Parameters
    ----------
    mean_square_step : callable
        mean_square_step(noise_loss (T+1,)) → v_t, (T+1,), from ℓ_t = E‖ε − ε*‖² of the optimal ε*.
    schedule : NoiseSchedule
    covariance : (D, D)
        Covariance of the data.

    Returns
    -------
    Check
        In units of β_t²; tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.
    """
    check_callable(mean_square_step, "mean_square_step(noise_loss)")
    steps, D = compose(schedule), len(covariance)
    eigenvalues = np.linalg.eigvalsh(covariance)
    V = steps.scale[:, None] ** 2 * eigenvalues + steps.total[:, None]  # of x_t along the axes of the covariance
    left = returned(mean_square_step(D - steps.total * (1 / V).sum(axis=1)), (steps.T + 1,), "mean_square_step")[1:]
    v = steps.variance[1:]
    # the precision of x_{t−1} given x_t is 1/V_{t−1} + α_t²/β_t²
    conditional = (1 / (1 / V[:-1] + (steps.alpha[1:] ** 2 / v)[:, None])).sum(axis=1)
    tolerance, tilde = rounding(steps.T), steps.posterior[1:]
    of_loss = conditional / D - tilde  # the term with the noise loss
    return compare(
        "check_optimal_variance",
        "(29)",
        "σ*²",
        left,
        conditional / D,
        tolerance,
        {
            "it is summed over the D dimensions": lambda: conditional,
            "it is β̃², the posterior variance: the error of ε̂ is left out": lambda: steps.posterior[1:],
            "it is β²": lambda: steps.variance[1:],
            "β̃² is left out": lambda: of_loss,
            "the noise loss is not divided by D": lambda: tilde + of_loss * D,
            "β̃² is divided by D": lambda: tilde / D + of_loss,
            "1/α² is missing": lambda: tilde + of_loss * (1 - v),
            "1/ᾱ_t² stands for 1/α_t²": lambda: tilde + of_loss * (1 - v) / steps.scale[1:] ** 2,
            "the factor of ε̂ is not squared": lambda: tilde + of_loss / np.abs(reverse_mean(steps)[:, 1]),
            "the noise loss is subtracted": lambda: tilde - of_loss,
            "1/β̄² is missing": lambda: tilde + of_loss * steps.total[1:],
            "β² stands for β⁴": lambda: tilde + of_loss / v,
            "β_t² stands for β̃_t²": lambda: v + of_loss,
            "it is a standard deviation": lambda: np.sqrt(conditional / D),
            "it is a log-variance": lambda: np.log(conditional / D),
            "it is that of step t−1: index shifted by one": lambda: np.append(left[0], conditional[:-1] / D),
        },
        first=1,
        unit=v * enlarged(tolerance, steps.posterior_condition[1:]),
    )


@takes_arrays
def check_predicted_noise(
    predict: Callable[[Array, int, float, bool], ArrayLike],
    output: Callable[[Array, int, bool], Array],
    schedule: NoiseSchedule,
    kind: str,
    x_t: Array,
) -> Check:
    """ε̂ from the prediction of a network, with guidance, with and without clipping of x̂_0 to [−1, 1].

    Parameters
    ----------
    predict : callable
        predict(x_t (N, D), t, guidance, clip) → ε̂ (N, D), with labels: ε̂(x_t) + guidance · (ε̂(x_t, y) − ε̂(x_t)).
        Guidance 0 ignores the label, and 1 does not change the prediction with the label.
    output : callable
        output(x_t, t, labelled) → the prediction of the network with or without labels, (N, D).
    schedule : NoiseSchedule
    kind : {"noise", "x0", "v", "step"}
        The prediction: ε, x_0, v = ᾱ_t ε − β̄_t x_0, or (β_t/β̄_t) ε.  The right side solves this equation and
        x_t = ᾱ_t x_0 + β̄_t ε for ε.
    x_t : (N, D)
        Some entries large enough for x̂_0 to be clipped.

    Returns
    -------
    Check
        Tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.
    """
    check_callable(predict, "predict(x_t, t, guidance, clip); t counts 1..T")
    steps = compose(schedule)
    guidances = (0.0, 0.5, 1.0, 2.5)

    def noise_of(t: int, prediction: Array, kind: str = kind) -> Array:
        scale, std = steps.scale[t], np.sqrt(steps.total[t])
        row = {
            "noise": (0.0, 1.0),
            "x0": (1.0, 0.0),
            "v": (-std, scale),
            "step": (0.0, np.sqrt(steps.variance[t]) / std),
        }
        return np.linalg.solve([[scale, std], row[kind]], np.stack([x_t.ravel(), prediction.ravel()]))[1].reshape(
            x_t.shape
        )

    def clipped(t: int, eps_hat: Array, low: float) -> Array:
        scale, std = steps.scale[t], np.sqrt(steps.total[t])
        return (x_t - scale * np.minimum(np.maximum((x_t - std * eps_hat) / scale, low), 1)) / std

    def all_of(
        weight: Callable[[float], float] = lambda w: w,
        clip: bool = True,
        noise_of: Callable[[int, Array], Array] = noise_of,
        low: float = -1.0,
    ) -> Array:
        rows = []
        for t in range(1, steps.T + 1):
            free, given = (noise_of(t, output(x_t, t, labelled)) for labelled in (False, True))
            for w in guidances:
                eps_hat = (1 - weight(w)) * free + weight(w) * given
                rows.append([eps_hat, clipped(t, eps_hat, low) if clip else eps_hat])
        return np.array(rows)

    def by_noise(wrong: Callable[..., Array]) -> Callable[[], Array]:
        """ε̂ = wrong(prediction, ᾱ, β̄, β) for every step."""
        return lambda: all_of(
            noise_of=lambda t, out: wrong(out, steps.scale[t], np.sqrt(steps.total[t]), np.sqrt(steps.variance[t]))
        )

    def taken_for(other: str) -> Callable[[], Array]:
        return lambda: all_of(noise_of=lambda t, out: noise_of(t, out, other))

    converted: dict[str, dict[str, Callable[[], Array]]] = {
        "noise": {"ε has the wrong sign": by_noise(lambda out, scale, std, beta: -out)},
        "x0": {
            "x_t − ᾱx_0 is not divided by β̄": by_noise(lambda out, scale, std, beta: x_t - scale * out),
            "x_t − ᾱx_0 is divided by β̄², a variance": by_noise(
                lambda out, scale, std, beta: (x_t - scale * out) / std**2
            ),
            "ᾱ is missing before x_0": by_noise(lambda out, scale, std, beta: (x_t - out) / std),
            "ε has the wrong sign": by_noise(lambda out, scale, std, beta: (scale * out - x_t) / std),
        },
        "v": {
            "v has the other sign": by_noise(lambda out, scale, std, beta: std * x_t - scale * out),
            "β̄x_t has the wrong sign: ᾱv − β̄x_t": by_noise(lambda out, scale, std, beta: scale * out - std * x_t),
            "ᾱ and β̄ are swapped: ᾱx_t + β̄v": by_noise(lambda out, scale, std, beta: scale * x_t + std * out),
            "it is x̂_0 of v, ᾱx_t − β̄v": by_noise(lambda out, scale, std, beta: scale * x_t - std * out),
            "β̄x_t is missing": by_noise(lambda out, scale, std, beta: scale * out),
            "ε has the wrong sign": by_noise(lambda out, scale, std, beta: -std * x_t - scale * out),
        },
        "step": {
            "the factor is inverted: β_t/β̄_t": by_noise(lambda out, scale, std, beta: out * beta / std),
            "the factor is β̄_t²/β_t²": by_noise(lambda out, scale, std, beta: out * std**2 / beta**2),
            "the factor is β̄_t: 1/β_t is missing": by_noise(lambda out, scale, std, beta: out * std),
            "the factor is 1/β_t: β̄_t is missing": by_noise(lambda out, scale, std, beta: out / beta),
            "ε has the wrong sign": by_noise(lambda out, scale, std, beta: -out * std / beta),
        },
    }
    meanings = {"noise": "ε", "x0": "x_0", "v": "v", "step": "the noise of one step"}

    left = [
        [np.asarray(predict(x_t, t, w, clip), dtype=np.float64) for clip in (False, True)]
        for t in range(1, steps.T + 1)
        for w in guidances
    ]
    right, tolerance = all_of(), rounding(steps.T)
    condition = np.repeat(steps.posterior_condition[1:], len(guidances))[:, None, None, None]
    return compare(
        "check_predicted_noise",
        "(25)",
        "ε̂ by step and guidance, then without and with clipping",
        left,
        right,
        tolerance,
        {
            "guidance 0 and 1 are swapped": lambda: all_of(lambda w: 1 - w),
            "w + 1 stands where w belongs: this is the w of Ho and Salimans": lambda: all_of(lambda w: w + 1),
            "guidance is ignored": lambda: all_of(lambda w: 1.0),
            "the label is dropped": lambda: all_of(lambda w: 0.0),
            "x̂_0 is not clipped": lambda: all_of(clip=False),
            "x̂_0 is clipped to [0, 1]": lambda: all_of(low=0.0),
            "x̂_0 is clipped from above only": lambda: all_of(low=-np.inf),
            "guidance has the wrong sign": lambda: all_of(lambda w: -w),
            **{f"the prediction is taken for {text}": taken_for(one) for one, text in meanings.items() if one != kind},
            **converted[kind],
            "ε̂ itself is clipped to [−1, 1], not x̂_0": lambda: _eps_clipped(all_of(clip=False)),
            "guidance is squared": lambda: all_of(lambda w: w**2),
        },
        labels=lambda i: (
            f"t = {i[0] // 4 + 1}, guidance {guidances[i[0] % 4]:g}, {('without', 'with')[i[1]]} clipping: ε̂ of "
            f"example {i[2]} in dimension {i[3]}"
        ),
        unit=(1 + np.abs(right).max(axis=(1, 2, 3), keepdims=True)) * enlarged(tolerance, condition),
    )


def _eps_clipped(eps_hat: Array) -> Array:
    """ε̂ without and with clipping, (…, 2, N, D), where the second is ε̂ within ±1."""
    return np.stack([eps_hat[:, 0], clipped(eps_hat[:, 1], 1.0)], axis=1)


@takes_arrays
def check_reverse_variance(variance: Callable[[str], ArrayLike], schedule: NoiseSchedule) -> Check:
    """The variances σ_t² for t = 1..T: "beta" is β_t², "posterior" is β̃_t².

    The first step of "posterior" is β_1², because β̃_1 = 0 would make −log p_θ(x_0 | x_1) infinite.

    Parameters
    ----------
    variance : callable
        variance(name) → σ_t², (T+1,), index 0 not used.
    schedule : NoiseSchedule

    Returns
    -------
    Check
        In units of β_t²; tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.
    """
    steps = compose(schedule)
    check_callable(variance, "variance(name)")
    steps, tolerance = compose(schedule), rounding(schedule.T)
    v, tilde = steps.variance[1:], steps.posterior[1:]
    posterior = np.append(v[0], tilde[1:])
    clipped_first = np.append(tilde[1:2], tilde[1:]) if steps.T > 1 else posterior
    left = [returned(variance(name), (steps.T + 1,), "variance")[1:] for name in ("beta", "posterior")]
    return compare(
        "check_reverse_variance",
        "(24)",
        "σ_t² for t = 1..T, “beta” and “posterior”",
        np.array(left) / v,
        [v / v, posterior / v],
        tolerance,
        {
            "they are standard deviations": lambda: [np.sqrt(v) / v, np.sqrt(posterior) / v],
            "they are log-variances": lambda: [np.log(v) / v, np.log(posterior) / v],
            "they are log-variances, the first posterior one that of the second step": lambda: [
                np.log(v) / v,
                np.log(clipped_first) / v,
            ],
            "the two are swapped": lambda: [posterior / v, v / v],
            "“beta” is the geometric mean of β_t² and β̃_t²": lambda: [np.sqrt(clipped_first / v), posterior / v],
            "they are those of step t+1": lambda: [
                np.append(v[1:], v[-1]) / v,
                np.append(posterior[1:], posterior[-1]) / v,
            ],
            "“posterior” is β_t²": lambda: [v / v, v / v],
            "1/β̄_t² is missing": lambda: [v / v, np.append(v[0], v[1:] * steps.total[1:-1]) / v],
            "they are those of step t−1": lambda: [shifted(v) / v, shifted(posterior) / v],
        },
        labels=lambda i: f"{('“beta”', '“posterior”')[i[0]]}, t = {i[1] + 1}: σ_t²/β_t²",
        places={
            "the first posterior variance is 0: β̃_1² stands where β_1² belongs": lambda: [v / v, tilde / v],
            "the first posterior variance is that of the second step, β̃_2²": lambda: [v / v, clipped_first / v],
        },
        unit=2 * enlarged(tolerance, np.stack([0 * v, steps.posterior_condition[1:]])),
    )
