"""Checks of samplers of equation (32) on any grid of times: Euler-Maruyama, Heun's method, Langevin corrections.

The callables belong to one instance: their SDE and their score are fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, returned, takes_arrays
from scratchgen.conformance.loops import Shake, exactly, unit_of_loop
from scratchgen.conformance.result import Check, Mistakes, compare
from scratchgen.conformance.reverse_sde import NO_ROOT, numbers, signed
from scratchgen.conformance.sde import EPS
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array


@takes_arrays
def check_reverse_sampler(
    sample: Callable[[Array, Array, Array], ArrayLike],
    score: Callable[[Array, float], Array],
    sde: LinearSDE,
    times: Array,
    stochasticity: float = 1.0,
    n_corrections: int = 0,
    snr: float = 0.16,
) -> Check:
    """Euler-Maruyama on (32) along any falling grid of times, from its formula at every step.

    A step from t to s evaluates drift and g at t.  Langevin corrections x ← x + δ ∇log p + √(2δ) z with δ = 2 (snr
    std)² follow at s.

    Parameters
    ----------
    sample : callable
        sample(x (N, D), times (n+1,), noise) → x at times[-1].  noise is (n, N, D) without corrections, and
        (n, 1 + n_corrections, N, D) with them; N = 5 and D = 3.
    score : callable
        score(x (N, D), t) → (N, D); any function, not necessarily affine or exact.
    sde : LinearSDE
    times : (n+1,)
        Strictly falling.
    stochasticity : float
        0 for the probability flow, 1 for the reverse SDE.  A check at one value does not see a value that is written
        into the code: check at 0, at 1, and in between.
    n_corrections : int
        Langevin steps after every step.
    snr : float
        Size of the Langevin steps.

    Returns
    -------
    Check
        Tolerance 1e-13, plus 64 ε for every step.  The loop magnifies rounding; ten times its effect is allowed.

    Raises
    ------
    ValueError
        If rounding grows so much that right codes differ in the third digit, as for a score of large slope.
    """
    check_callable(sample, "sample(x, times, noise)")
    x, noise = _script(times, 1 + n_corrections)
    unit = np.abs(x).max(axis=1, keepdims=True)
    left = returned(sample(x, times, noise if n_corrections else noise[:, 0]), x.shape, "sample")
    last = times[-1]

    def walk(
        late: bool = False,
        noise_by: Callable[[float, float], float] = lambda g, h: g * np.sqrt(h),
        power: int = 1,
        score_by: Callable[[float], float] = lambda g: g**2,
        rate_by: float = 1.0,
        drift_by: float = 1.0,
        drift_dt: bool = True,
        correct: str = "after, at s",
        churn: float = stochasticity,
        dt: float | None = None,
        plain: bool = False,
        end: bool = True,
        delta_of: Callable[[float], float] = lambda std: 2 * (snr * std) ** 2,
        kick: float = 2.0,
        noise_at_end: bool = False,
        one_noise: bool = False,
        steps: int | None = None,
        weight_of: Callable[[float], float] = lambda lam: 0.5 * (1 + lam**2),
        clip: float = np.inf,
        g_factor: float = 1.0,
        shake: Shake = exactly,
    ) -> Array:
        """The end of the walk under a mistake."""
        y = x
        for (t, s), own in list(zip(pairwise(times.tolist()), noise, strict=True))[:steps]:
            y, z = shake(y), noise[0] if one_noise else own
            at, h = s if late else t, t - s if dt is None else dt
            f, g = float(sde.rate(at)), g_factor * float(sde.diffusion(at))

            def corrected(y: Array, there: float, z: Array = z) -> Array:
                for correction in z[1:]:
                    delta = delta_of(float(sde.std(there)))
                    y = y + delta * shake(score(y, there)) + np.sqrt(kick * delta) * correction
                return y

            if correct == "before, at t":
                y = corrected(y, t)
            weight = (0.5 if plain else weight_of(churn)) * score_by(g)
            silent = not end and s == last
            g = float(sde.diffusion(s)) if noise_at_end else g
            size, length = churn * noise_by(g, h) * (not silent), drift_by * (h if drift_dt else 1.0)
            y = y - length * (rate_by * f * y - weight * shake(score(y, at))) + size * z[0] ** power
            y = np.clip(y, -clip, clip)
            if correct.startswith("after"):
                y = corrected(y, t if correct == "after, at t" else s)
        return y

    even, n = float(times[0] - times[-1]) / (len(times) - 1), len(times) - 1
    known: Mistakes = {
        "drift and g are taken at the end of a step, not at its start": lambda: walk(late=True),
        "time runs forwards: the drift has the wrong sign": lambda: walk(drift_by=-1.0),
        "the score has the wrong sign": lambda: walk(score_by=lambda g: -(g**2)),
        "the score is missing": lambda: walk(score_by=lambda g: 0.0),
        "g stands where g² belongs": lambda: walk(score_by=lambda g: g),
        "f has the wrong sign": lambda: walk(rate_by=-1.0),
        "f x is missing": lambda: walk(rate_by=0.0),
        "dt is missing": lambda: walk(drift_dt=False),
        "there is no noise": lambda: walk(noise_by=lambda g, h: 0.0),
        "the noise has factor g dt, not g √dt": lambda: walk(noise_by=lambda g, h: g * h),
        "the noise has factor g² √dt, not g √dt": lambda: walk(noise_by=lambda g, h: g**2 * np.sqrt(h)),
        "the noise has factor √dt: g is missing": lambda: walk(noise_by=lambda g, h: np.sqrt(h)),
        "the noise has factor g: √dt is missing": lambda: walk(noise_by=lambda g, h: g),
        "the noise is squared, or two draws are multiplied": lambda: walk(power=2),
        "the noise has g of the end of the step": lambda: walk(noise_at_end=True),
        "one noise is shared by all steps: that of the first": lambda: walk(one_noise=True),
        "the last step is not made": lambda: walk(steps=n - 1),
        "½(1 + λ) stands where ½(1 + λ²) belongs": lambda: walk(weight_of=lambda lam: 0.5 * (1 + lam)),
        **{
            f"x is clipped to [−{c:g}, {c:g}] after every step": lambda c=c: walk(clip=c)  # type: ignore[misc]
            for c in (1.0, 3.0, 5.0, 10.0)
        },
        "the last step has no noise: its mean is returned": lambda: walk(end=False),
        "it is the reverse SDE for every stochasticity": lambda: walk(churn=1.0),
        "it is the probability flow for every stochasticity": lambda: walk(churn=0.0),
        "the score has the flow's ½ beside the noise": lambda: walk(plain=True),
        "every step has the length of an even grid over these times": lambda: walk(dt=even),
        "every step has the length horizon/n": lambda: walk(dt=sde.horizon / n),
        **({} if sde.rate(times).any() else {NO_ROOT: lambda: walk(g_factor=np.sqrt(0.5))}),
    }
    if n_corrections:
        known = {
            **known,
            "corrections are made at the time of the start of the step": lambda: walk(correct="after, at t"),
            "corrections come before the step, as in score_sde": lambda: walk(correct="before, at t"),
            "there are no corrections": lambda: walk(correct="never"),
            "corrections have δ = (snr std)²: its 2 is missing": lambda: walk(delta_of=lambda std: (snr * std) ** 2),
            "corrections have δ = 2 snr std, without a square": lambda: walk(delta_of=lambda std: 2 * snr * std),
            "the noise of corrections has factor √δ, not √(2δ)": lambda: walk(kick=1.0),
        }
    right, tolerance = walk() / unit, _tolerance(times)
    return compare(
        "check_reverse_sampler",
        "(32)",
        "x at the end of the grid, in units of the start",
        left / unit,
        right,
        tolerance,
        {sentence: lambda value=value: value() / unit for sentence, value in known.items()},  # type: ignore[misc]
        unit=unit_of_loop(
            "check_reverse_sampler", lambda shake: walk(shake=shake) / unit, 1 + np.abs(right), tolerance
        ),
        labels=lambda i: f"x at the end of the grid, in units of the start, example {i[0]}, dimension {i[1] + 1}",
    )


def _tolerance(times: Array) -> float:
    """1e-13, and the rounding of the steps between the times."""
    return 1e-13 + 64 * EPS * (len(times) - 1)


def _script(times: Array, n_draws: int) -> tuple[Array, Array]:
    """A start (5, 3) and noise (n, n_draws, 5, 3), without a random generator."""
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
        raise ValueError(f"times must have at least two entries and fall strictly, got {times}")
    far = np.array([[1.5], [1.5], [1.5], [12.0], [12.0]])  # beyond a clip at ±10
    return far * numbers(5, 3), 1.5 * numbers(len(times) - 1, n_draws, 5, 3, shift=1.0)


@takes_arrays
def check_heun(
    sample: Callable[[Array, Array], ArrayLike],
    score: Callable[[Array, float], Array],
    sde: LinearSDE,
    times: Array,
) -> Check:
    """Heun's method on the probability flow along any falling grid of times, from its formula at every step.

    A step uses the mean of the slope at its start and of the slope at the end of Euler's step.

    Parameters
    ----------
    sample : callable
        sample(x (N, D), times (n+1,)) → x at times[-1]; N = 5 and D = 3.
    score : callable
        score(x (N, D), t) → (N, D); any function.
    sde : LinearSDE
    times : (n+1,)
        Strictly falling.

    Returns
    -------
    Check
        Tolerance 1e-13, plus 64 ε for every step.  The loop magnifies rounding; ten times its effect is allowed.

    Raises
    ------
    ValueError
        If rounding grows so much that right codes differ in the third digit, as for a score of large slope.
    """
    check_callable(sample, "sample(x, times)")
    x, _ = _script(times, 1)
    last, unit = times[-1], np.abs(x).max(axis=1, keepdims=True)

    def slope(y: Array, t: float, weight: float = 0.5, shake: Shake = exactly) -> Array:
        return float(sde.rate(t)) * y - weight * float(sde.diffusion(t)) ** 2 * shake(score(y, t))

    def walk(
        second: Callable[[Array, Array, float, float], Array],
        weight: float = 0.5,
        mean: float = 0.5,
        shake: Shake = exactly,
    ) -> Array:
        """The end of the walk; second(y, slope, t, s) is the second slope of a step."""
        y = x
        for t, s in pairwise(times.tolist()):
            y = shake(y)
            first = slope(y, t, weight, shake)
            y = y + (s - t) * (mean * first + (1 if mean == 1 else 1 - mean) * second(y, first, t, s))
        return y / unit

    def ahead(y: Array, first: Array, t: float, s: float) -> Array:
        return slope(y + (s - t) * first, s)

    def shaken(shake: Shake) -> Array:
        return walk(lambda y, first, t, s: slope(shake(y + (s - t) * first), s, shake=shake), shake=shake)

    def without_root() -> Array:
        return walk(lambda y, first, t, s: slope(y + (s - t) * first, s, 0.25), weight=0.25)

    right, tolerance = walk(ahead), _tolerance(times)
    return compare(
        "check_heun",
        "(32)",
        "x at the end of the grid, in units of the start",
        returned(sample(x, times), x.shape, "sample") / unit,
        right,
        tolerance,
        {
            "it is Euler's method: one slope per step": lambda: walk(lambda y, first, t, s: first),
            "the last step is Euler's": lambda: walk(
                lambda y, first, t, s: first if s == last else ahead(y, first, t, s)
            ),
            "the second slope is taken at the time of the start": lambda: walk(
                lambda y, first, t, s: slope(y + (s - t) * first, t)
            ),
            "the second slope is taken at the x of the start": lambda: walk(lambda y, first, t, s: slope(y, s)),
            "it is the midpoint method": lambda: walk(
                lambda y, first, t, s: slope(y + 0.5 * (s - t) * first, 0.5 * (s + t)), mean=0.0
            ),
            "the step uses the second slope alone": lambda: walk(ahead, mean=0.0),
            "the two slopes are added: ½ is missing": lambda: walk(ahead, mean=1.0),
            "the score has the SDE's factor g², not ½ g²": lambda: walk(
                lambda y, first, t, s: slope(y + (s - t) * first, s, 1.0), weight=1.0
            ),
            **({} if sde.rate(times).any() else {NO_ROOT: without_root}),
        },
        unit=unit_of_loop("check_heun", shaken, 1 + np.abs(right), tolerance),
        labels=lambda i: f"x at the end of the grid, in units of the start, example {i[0]}, dimension {i[1] + 1}",
    )


@takes_arrays
def check_langevin_step(
    step: Callable[[Array, float, Array], ArrayLike], sde: LinearSDE, variance: ArrayLike, snr: float
) -> Check:
    """One Langevin step x' = x + δ ∇log p(x) + √(2δ) z with δ = 2 (snr std(t))², for ∇log p(x) = −x/variance.

    Parameters
    ----------
    step : callable
        step(x (N, 3), t, noise (N, 3)) → x'.
    sde : LinearSDE
        The check uses std(t), which sets δ, at three times.
    variance : float or (3,)
        Variance of p in every dimension.
    snr : float
        Size of the step.

    Returns
    -------
    Check
        The residual of the mean and of the noise of the step, in units of √(max variance) (1 + δ/min variance);
        tolerance 2e-14.
    """
    check_callable(step, "step(x, t, noise)")
    times = sde.horizon * np.array([0.2, 0.6, 1.0])
    variance = np.broadcast_to(np.asarray(variance, dtype=np.float64), (3,))
    width = float(np.sqrt(variance.max()))
    x, z = 3 * width * numbers(5, 3), 1.5 * numbers(5, 3, shift=1.0)

    def parts_of(t: float) -> Array:
        """The mean and the noise of the step, (2, 5, 3), from z and −z."""
        plus, minus = (returned(step(x, t, noise), x.shape, "step") for noise in (z, -z))
        return np.stack([0.5 * (plus + minus), 0.5 * (plus - minus)])

    def steps(delta_of: Callable[[float], float], noise: Callable[[float], float], sign: float = 1.0) -> Array:
        out = []
        for t in times.tolist():
            made = delta_of(float(sde.std(t)))
            out.append(np.stack([x - sign * made * x / variance, noise(made) * z]))
        return np.array(out) / units

    def delta(std: float) -> float:
        return 2 * (snr * std) ** 2

    def root(delta: float) -> float:
        return float(np.sqrt(2 * delta))

    def by_norms(std: float) -> float:
        norms = [float(np.linalg.norm(rows, axis=1).mean()) for rows in (z, x / variance)]
        return 2 * (snr * norms[0] / norms[1]) ** 2

    units = width * (1 + np.array([delta(float(sde.std(t))) for t in times]) / variance.min())[:, None, None, None]
    left = np.array([parts_of(t) for t in times.tolist()]) / units
    right = steps(delta, root)
    right[:, 1] = signed(left[:, 1], right[:, 1])
    return compare(
        "check_langevin_step",
        "(32)",
        "(mean, noise) of a Langevin step, in units of the standard deviation of p",
        left,
        right,
        2e-14,
        {
            "the noise has factor √δ": lambda: steps(delta, lambda d: float(np.sqrt(d))),
            "the noise has factor 2δ, a variance": lambda: steps(delta, lambda d: 2 * d),
            "there is no noise": lambda: steps(delta, lambda d: 0.0),
            "the score has the wrong sign": lambda: steps(delta, root, -1.0),
            "the score is missing": lambda: steps(delta, root, 0.0),
            "the step is ½ δ ∇log p": lambda: steps(delta, root, 0.5),
            "δ is (snr std)²: its 2 is missing": lambda: steps(lambda std: delta(std) / 2, root),
            "δ is 2 snr std, without a square": lambda: steps(lambda std: 2 * snr * std, root),
            "δ is 2 snr std²: snr is not squared": lambda: steps(lambda std: 2 * snr * std**2, root),
            "δ is 2 snr² std: std is not squared": lambda: steps(lambda std: 2 * snr**2 * std, root),
            "δ is 2 snr², without std": lambda: steps(lambda std: 2 * snr**2, root),
            "δ is 2 (snr ‖z‖/‖∇log p‖)² from means over the batch, as in score_sde": lambda: steps(by_norms, root),
        },
        labels=lambda i: f"t = {times[i[0]]:g}: {('mean', 'noise')[i[1]]} of the step, example {i[2]}",
    )
