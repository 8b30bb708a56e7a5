"""Checks of equation (32): the reverse SDE and one step of it.

The reverse drift has to move the moments of a Gaussian as the forward process moves them.  The callables belong to
one instance: their SDE and their score are fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, returned, takes_arrays
from scratchgen.conformance.result import Check, Labels, Mistakes, compare, worst
from scratchgen.conformance.sde import LARGEST_ERROR, by_array, number
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array

NAME = "check_reverse_sde"
NO_ROOT = "g² is half of dσ²/dt: g has lost its √2"  # of a process with f = 0


def numbers(*shape: int, shift: float = 0.0) -> Array:
    """Irregular numbers in [−1, 1] without a random generator."""
    return np.sin(1.7 * np.arange(1.0, 1 + np.prod(shape)) ** 1.3 + shift).reshape(shape)


def _places(times: Array, what: str) -> Labels:
    """Labels of arrays over (time, example, dimension)."""
    return lambda i: f"t = {times[i[0]]:g}: {what}, example {i[1]}, dimension {i[2] + 1}"


@takes_arrays
def check_reverse_sde(
    drift: Callable[[Array, float], ArrayLike],
    diffusion: Callable[[float], ArrayLike],
    sde: LinearSDE,
    mean: Array,
    covariance: Array,
    stochasticity: float = 1.0,
) -> Check:
    """(32): on data N(mean, covariance) the reverse drift moves the moments as the forward process does.

    For a drift A x + c and a diffusion G, A V + V Aᵀ − G² I = 2 f V + g² I and A m + c = f m hold at every t.  The mean
    alone does not depend on the score.

    Parameters
    ----------
    drift : callable
        drift(x (N, D), t) → (N, D), with the exact score of the diffused data.  Time runs backwards, dt < 0.
    diffusion : callable
        diffusion(t) → G(t), the factor of dw̄.
    sde : LinearSDE
    mean : (D,)
    covariance : (D, D)
        Covariance of the data.
    stochasticity : float
        0 for the probability flow (G = 0), 1 for the reverse SDE (G = g), or any other value.  A check at one value
        does not see a value that is written into the code: check at 0, at 1, and in between.

    Returns
    -------
    Check
        The largest of four residuals: the diffusion, the drift at 12 standard deviations, the rates of the moments, and
        arrays of times where the callables accept them.  The units are v = √(tr V/D) and the rate 1/horizon + |f| +
        g²/v².  Tolerance 1e-13.
    """
    check_callable(drift, "drift(x, t)")
    check_callable(diffusion, "diffusion(t)")
    D, times = len(mean), sde.horizon * np.array([0.1, 0.3, 0.6, 0.85, 0.97])
    problems = [_Moments(sde, mean, covariance, t) for t in times.tolist()]
    k, made = 0.5 * (1 + stochasticity**2), np.array([number(diffusion(t), "diffusion") for t in times.tolist()])
    g, unit = np.array([p.g for p in problems]), np.array([1 / (p.width * np.sqrt(p.speed)) for p in problems])
    values = [returned(drift(p.points, p.t), p.points.shape, "drift") for p in problems]
    maps = [p.affine(value) for p, value in zip(problems, values, strict=True)]
    left = np.array([p.rates(*line, stochasticity) for p, line in zip(problems, maps, strict=True)])

    def rates(line: Callable[[_Moments], tuple[Array, Array]]) -> Array:
        """The rates of the moments under another drift, given by its slope A and its value at the mean."""
        return np.array([p.rates(*line(p), stochasticity) for p in problems])

    def fitted() -> float:
        """The factor of g² V⁻¹(x − m) in the drift, from its slope at the first time."""
        p, (A, _) = problems[0], maps[0]
        return float(np.trace((A - p.f * np.eye(D)) @ p.V) / (D * p.g**2))

    def of_data(p: _Moments) -> tuple[Array, Array]:
        pull = k * p.g**2 * np.linalg.inv(covariance)
        return p.f * np.eye(D) + pull, p.f * p.m + pull @ (p.m - mean)

    wrong: Mapping[str, Callable[[_Moments], tuple[Array, Array]]] = {
        "the score has the wrong sign": lambda p: p.line(-k * p.g**2),
        "the score is missing": lambda p: p.line(0.0),
        "g stands where g² belongs": lambda p: p.line(k * p.g),
        "g⁴ stands where g² belongs": lambda p: p.line(k * p.g**4),
        "the score has the flow's ½ in the SDE": lambda p: p.line(0.5 * p.g**2),
        "the score has the SDE's factor in the flow": lambda p: p.line(p.g**2),
        "the ½ of the score is missing": lambda p: p.line(2 * k * p.g**2),
        "f has the wrong sign": lambda p: p.line(k * p.g**2, -1.0),
        "the whole drift has the wrong sign": lambda p: p.line(-k * p.g**2, -1.0),
        "f x is missing": lambda p: p.line(k * p.g**2, 0.0),
        "the noise ε̂ stands where the score −ε̂/std belongs": lambda p: p.line(-k * p.g**2 * p.std),
        "−ε̂ stands where −ε̂/std belongs": lambda p: p.line(k * p.g**2 * p.std),
        "−ε̂/std² stands where −ε̂/std belongs": lambda p: p.line(k * p.g**2 / p.std),
        "½(1 + λ) stands where ½(1 + λ²) belongs": lambda p: p.line(0.5 * (1 + stochasticity) * p.g**2),
        "½λ² stands where ½(1 + λ²) belongs": lambda p: p.line(0.5 * stochasticity**2 * p.g**2),
        "the score is that of x_t given x_0 = 0, −x/std²": lambda p: (
            (p.f + k * p.g**2 / p.std**2) * np.eye(D),
            (p.f + k * p.g**2 / p.std**2) * p.m,
        ),
        "the mean of the data is not scaled in the score": lambda p: (
            p.line(k * p.g**2)[0],
            p.f * p.m + k * p.g**2 * np.linalg.inv(p.V) @ (p.m - mean),
        ),
        "f has one ½ too many": lambda p: p.line(k * p.g**2, 0.5),
        "the score is that of the data, not of x_t": of_data,
    }
    if not any(p.f for p in problems):
        wrong = {**wrong, NO_ROOT: lambda p: p.line(0.5 * k * p.g**2)}
    factor = fitted()
    if not any(abs(factor - known) < 1e-6 for known in _usual(stochasticity)):
        sentence = f"the score has the factor {factor:.6g} g², not {k:.6g} g²"
        wrong = {**wrong, sentence: lambda p: p.line(factor * p.g**2)}
    mistakes: Mistakes = {sentence: partial(rates, line) for sentence, line in wrong.items()}
    ratio = float(made[0] / g[0])
    named = any(abs(ratio - known) < 1e-9 for known in (0.0, 1.0, stochasticity**2))
    fixed = f"it is g times {ratio:.6g}, not times {stochasticity:.6g}"
    names = [*(f"mean {i + 1}" for i in range(D)), *(f"covariance {i + 1},{j + 1}" for i in range(D) for j in range(D))]
    far = np.array([value[D + 1 :] / (p.width * p.speed) for p, value in zip(problems, values, strict=True)])

    def far_out(line: Callable[[_Moments], tuple[Array, Array]]) -> Array:
        """Another drift at 12 standard deviations."""
        lines = [(p, *line(p)) for p in problems]
        return np.array([((p.points[D + 1 :] - p.m) @ A.T + c) / (p.width * p.speed) for p, A, c in lines])

    return worst(
        compare(
            NAME,
            "(32)",
            "the diffusion (it should be stochasticity · g)",
            made * unit,
            stochasticity * g * unit,
            1e-13,
            {
                "it is g for every stochasticity": lambda: g * unit,
                "it is g², not g": lambda: g**2 * unit,
                "it is stochasticity · g², not stochasticity · g": lambda: stochasticity * g**2 * unit,
                "it is stochasticity² · g": lambda: stochasticity**2 * g * unit,
                **({} if named else {fixed: lambda: ratio * g * unit}),
            },
            labels=lambda i: f"t = {times[i[0]]:g}: the diffusion",
        ),
        compare(
            NAME,
            "(32)",
            "the drift at 12 standard deviations",
            far,
            far_out(lambda p: p.line(k * p.g**2)),
            1e-13,
            {sentence: partial(far_out, line) for sentence, line in wrong.items()},
            labels=_places(times, "the drift at 12 standard deviations"),
        ),
        compare(
            NAME,
            "(32)",
            "d(mean, covariance)/dt",
            left,
            [p.exact_rates() for p in problems],
            1e-13,
            mistakes,
            labels=lambda i: f"t = {times[i[0]]:g}: d/dt of {names[i[1]]}",
        ),
        _by_times(drift, diffusion, problems),
    )


def _usual(stochasticity: float) -> list[float]:
    """Factors of g² ∇log p_t that have a sentence of their own."""
    right = 0.5 * (1 + stochasticity**2)
    return [0.0, 0.5, 1.0, -right, 2 * right, 0.5 * (1 + stochasticity), 0.5 * stochasticity**2]


class _Moments:
    """x_t of Gaussian data at one time: its moments, the points where a drift is read off, and rates of moments."""

    def __init__(self, sde: LinearSDE, mean: Array, covariance: Array, t: float) -> None:
        scale, self.std = (float(part) for part in sde.marginal(t))
        self.t, self.horizon, self.D = t, sde.horizon, len(mean)
        self.m, self.V = scale * mean, scale**2 * covariance + self.std**2 * np.eye(len(mean))
        self.f, self.g = float(sde.rate(t)), float(sde.diffusion(t))
        self.width = float(np.sqrt(np.trace(self.V) / self.D))
        self.speed = 1 / self.horizon + abs(self.f) + (self.g / self.width) ** 2  # f x and g² ∇log p_t may cancel
        far = 12 * numbers(5, self.D, shift=t)
        self.points = self.m + self.width * np.concatenate([np.zeros((1, self.D)), np.eye(self.D), far])

    def affine(self, value: Array) -> tuple[Array, Array]:
        """The slope A of a drift with these values at the points, and its value at the mean."""
        return (value[1 : self.D + 1] - value[0]).T / self.width, value[0]

    def line(self, weight: float, sign: float = 1.0) -> tuple[Array, Array]:
        """The same of the drift sign · f x + weight · V⁻¹(x − m)."""
        return sign * self.f * np.eye(self.D) + weight * np.linalg.inv(self.V), sign * self.f * self.m

    def rates(self, A: Array, at_mean: Array, stochasticity: float) -> Array:
        """d(mean, covariance)/dt under a drift and its right diffusion, in units of width and speed."""
        spread = A @ self.V + self.V @ A.T - (stochasticity * self.g) ** 2 * np.eye(self.D)
        return np.concatenate([at_mean / self.width, spread.ravel() / self.width**2]) / self.speed

    def exact_rates(self) -> Array:
        """The same of the forward process."""
        spread = 2 * self.f * self.V + self.g**2 * np.eye(self.D)
        return np.concatenate([self.f * self.m / self.width, spread.ravel() / self.width**2]) / self.speed


def _by_times(drift: Callable[..., ArrayLike], diffusion: Callable[..., ArrayLike], problems: list[_Moments]) -> Check:
    """Every row at its own time: (drift, diffusion) for an array of times against those for its entries."""
    points = problems[2].points
    here = [problems[n % len(problems)] for n in range(len(points))]
    times = np.array([p.t for p in here])
    right = np.array(
        [[*np.asarray(drift(points, p.t))[n], number(diffusion(p.t), "diffusion")] for n, p in enumerate(here)],
        dtype=np.float64,
    )
    left = right.copy()
    by_drift, by_diffusion = by_array(drift, points.shape, points, times), by_array(diffusion, (len(times),), times)
    if by_drift is not None:
        left[:, :-1] = by_drift
    if by_diffusion is not None:
        left[:, -1] = by_diffusion
    unit, first = 1e-300 + np.abs(right).max(), np.asarray(drift(points, here[0].t))
    return compare(
        NAME,
        "(32)",
        "(drift, diffusion) for an array of times",
        left / unit,
        right / unit,
        1e-13,
        {"every row has the drift of the first time": lambda: np.column_stack([first, right[:, -1]]) / unit},
        labels=lambda i: (
            f"with t as an array, t = {times[i[0]]:g}: {'drift' if i[1] < points.shape[1] else 'diffusion'}"
        ),
        by_code=True,
    )


# --- one step --------------------------------------------------------------------------------------------------------


IN_THE_LIMIT = "(x_s − x_t)/dt and the noise/√dt as dt → 0, in units of the standard deviation and the horizon"


@takes_arrays
def check_reverse_step(
    step: Callable[[Array, float, float, Array], ArrayLike],
    sde: LinearSDE,
    mean: ArrayLike,
    variance: ArrayLike,
    stochasticity: float = 1.0,
) -> Check:
    """(32): one step with the exact score, on data N(mean, diag(variance)).

    The step of Euler-Maruyama is linear in x and in the noise.  A step of horizon/32 is compared with it.  Another
    scheme passes if its mean and its noise agree with drift and diffusion in the limit t − s → 0: the quotients for
    four small steps are extrapolated to 0, so that an error of the score by 1e-6 is seen.

    Parameters
    ----------
    step : callable
        step(x (N, D), t, s, noise (N, D)) → x at the time s < t.
    sde : LinearSDE
    mean, variance : float or (D,)
        Mean and variance of the data in every dimension; D = 1 for numbers.
    stochasticity : float
        0 for the probability flow, 1 for the reverse SDE.

    Returns
    -------
    Check
        The residual of the mean (with noise 0) and of the noise of a step, in units of the standard deviation of x_t.
        Tolerance 1e-13 for Euler-Maruyama.  For another scheme the two quotients are compared, with tolerance 1e-8 plus
        the error of the extrapolation.  Use `at(2e-2)` for another scheme in float32: the quotient of a small step
        magnifies its rounding.
    """
    check_callable(step, "step(x, t, s, noise)")
    mean, variance = np.broadcast_arrays(np.atleast_1d(mean), np.atleast_1d(variance))
    times = sde.horizon * np.array([0.25, 0.5, 0.75, 0.96875])
    problems = [_Step(sde, mean, variance, stochasticity, t) for t in times.tolist()]
    exact, in_the_limit = _compare_steps(step, problems, sde.horizon / 32), _compare_limits(step, problems)
    if exact:
        return exact
    consistent = in_the_limit.residual <= min(2e-2, 0.1 * exact.residual)  # another scheme, perhaps in float32
    return in_the_limit if in_the_limit or consistent else exact


class _Step:
    """One step from x_t of Gaussian data with independent dimensions: five points, noise, and Euler-Maruyama."""

    def __init__(self, sde: LinearSDE, mean: Array, variance: Array, stochasticity: float, t: float) -> None:
        self.sde, self.mean, self.variance, self.stochasticity, self.t = sde, mean, variance, stochasticity, t
        m, V, _ = self.law(t)
        self.width = np.sqrt(V)
        far = np.array([[2.0], [2.0], [2.0], [12.0], [12.0]])
        self.x = m + far * self.width * numbers(5, len(mean), shift=t)
        self.noise = 1.5 * numbers(5, len(mean), shift=t + 1)

    def law(self, t: float) -> tuple[Array, Array, float]:
        """Mean and variance of x_t in every dimension, and std."""
        scale, std = (float(part) for part in self.sde.marginal(t))
        return scale * self.mean, scale**2 * self.variance + std**2, std

    def drift(self, t: float, weight: Callable[[float, float], float] | None = None, sign: float = 1.0) -> Array:
        """sign · f x − weight(g, std) ∇log p_t(x) at the points, by the law at t."""
        m, V, std = self.law(t)
        g = float(self.sde.diffusion(t))
        factor = 0.5 * (1 + self.stochasticity**2) * g**2 if weight is None else weight(g, std)
        return sign * float(self.sde.rate(t)) * self.x + factor * (self.x - m) / V

    def g(self, t: float) -> float:
        """g(t)."""
        return float(self.sde.diffusion(t))


def _parts(step: Callable[..., ArrayLike], p: _Step, h: float) -> tuple[Array, Array]:
    """x_s − x_t without noise, and what the noise adds, in units of the standard deviation of x_t."""
    still = returned(step(p.x, p.t, p.t - h, np.zeros_like(p.x)), p.x.shape, "step")
    moved = returned(step(p.x, p.t, p.t - h, p.noise), p.x.shape, "step")
    return (still - p.x) / p.width, (moved - still) / p.width


def signed(left: Array, right: Array) -> Array:
    """`right`, or −right if left has the other sign: −z is a standard normal draw as z is."""
    return -right if (left * right).sum() < 0 else right


def _compare_steps(step: Callable[..., ArrayLike], problems: list[_Step], h: float) -> Check:
    """Mean and noise of a step against those of Euler-Maruyama."""
    name, times = "check_reverse_step", np.array([p.t for p in problems])
    k, lam = 0.5 * (1 + problems[0].stochasticity ** 2), problems[0].stochasticity
    pairs = [_parts(step, p, h) for p in problems]
    moved, noise = (np.array(part) for part in zip(*pairs, strict=True))

    def mean(drift: Callable[[_Step], Array]) -> Callable[[], Array]:
        return lambda: np.array([-h * drift(p) / p.width for p in problems])

    def spread(factor: Callable[[_Step], float]) -> Array:
        return signed(noise, np.array([factor(p) * p.noise / p.width for p in problems]))

    def fitted() -> float:
        """The factor of −g² ∇log p_t in the drift, from the largest entry of the score at the first time."""
        p = problems[0]
        score = p.drift(p.t, lambda g, std: g**2, 0.0)
        place = np.unravel_index(np.abs(score).argmax(), score.shape)
        return float((-moved[0] * p.width / h - p.drift(p.t, lambda g, std: 0.0))[place] / score[place])

    factor = fitted()
    known: dict[str, Callable[[], ArrayLike]] = {
        "time runs forwards: the drift has the wrong sign": mean(lambda p: -p.drift(p.t)),
        "the score has the wrong sign": mean(lambda p: p.drift(p.t, lambda g, std: -k * g**2)),
        "the score is missing": mean(lambda p: p.drift(p.t, lambda g, std: 0.0)),
        "g stands where g² belongs": mean(lambda p: p.drift(p.t, lambda g, std: k * g)),
        "the score has the flow's ½ in the SDE": mean(lambda p: p.drift(p.t, lambda g, std: 0.5 * g**2)),
        "the score has the SDE's factor in the flow": mean(lambda p: p.drift(p.t, lambda g, std: g**2)),
        "f has the wrong sign": mean(lambda p: p.drift(p.t, sign=-1.0)),
        "f x is missing": mean(lambda p: p.drift(p.t, sign=0.0)),
        "the noise ε̂ stands where the score −ε̂/std belongs": mean(
            lambda p: p.drift(p.t, lambda g, std: -k * g**2 * std)
        ),
        "−ε̂ stands where −ε̂/std belongs": mean(lambda p: p.drift(p.t, lambda g, std: k * g**2 * std)),
        "the score is that of x_t given x_0 = the mean: its variance is std²": mean(
            lambda p: p.drift(p.t, lambda g, std: 0.0) + k * p.g(p.t) ** 2 * (p.x - p.law(p.t)[0]) / p.law(p.t)[2] ** 2
        ),
        "dt is missing": mean(lambda p: p.drift(p.t) / h),
    }
    if not any(p.sde.rate(p.t) for p in problems):
        known[NO_ROOT] = mean(lambda p: p.drift(p.t, lambda g, std: 0.5 * k * g**2))
    if not any(abs(factor - known) < 1e-6 for known in (*_usual(lam), k / h)):
        sentence = f"the score has the factor {factor:.6g} g², not {k:.6g} g²"
        known = {**known, sentence: mean(lambda p: p.drift(p.t, lambda g, std: factor * g**2))}
    root, first = float(np.sqrt(h)), problems[0]
    loud = first.noise / first.width * first.g(first.t) * root
    ratio = abs(float((noise[0] * loud).sum() / (loud**2).sum()))
    named = any(abs(ratio - known) < 1e-9 for known in (0.0, 1.0, lam**2, lam * root, lam / root))
    fixed = f"the noise has {ratio:.6g} times the factor g √dt, not {lam:.6g} times"
    return worst(
        compare(
            name,
            "(32)",
            "x_s − x_t without noise, in units of the standard deviation",
            moved,
            mean(lambda p: p.drift(p.t))(),
            1e-13,
            known,
            labels=_places(times, f"the mean of a step of {h:.4g}"),
        ),
        compare(
            name,
            "(32)",
            "the noise in x_s, in units of the standard deviation",
            noise,
            spread(lambda p: lam * p.g(p.t) * root),
            1e-13,
            {
                "there is no noise": lambda: np.zeros_like(noise),
                "the noise has factor g dt, not g √dt": lambda: spread(lambda p: lam * p.g(p.t) * h),
                "the noise has factor g² √dt, not g √dt": lambda: spread(lambda p: lam * p.g(p.t) ** 2 * root),
                "the noise has factor √dt: g is missing": lambda: spread(lambda p: lam * root),
                "the noise has factor g: √dt is missing": lambda: spread(lambda p: lam * p.g(p.t)),
                "the noise has the factor g √dt for every stochasticity": lambda: spread(lambda p: p.g(p.t) * root),
                "the noise has the factor stochasticity²": lambda: spread(lambda p: lam**2 * p.g(p.t) * root),
                **({} if named else {fixed: lambda: spread(lambda p: ratio * p.g(p.t) * root)}),
                "the noise is squared, or two draws are multiplied": lambda: np.array(
                    [lam * p.g(p.t) * root * p.noise**2 / p.width for p in problems]
                ),
                "all dimensions have one noise": lambda: np.array(
                    [lam * p.g(p.t) * root * np.repeat(p.noise[:, :1], len(p.mean), 1) / p.width for p in problems]
                ),
            },
            labels=_places(times, f"the noise of a step of {h:.4g}"),
        ),
    )


def _compare_limits(step: Callable[..., ArrayLike], problems: list[_Step]) -> Check:
    """The quotients (x_s − x_t)/dt and noise/√dt of four small steps, extrapolated to dt = 0."""
    horizon, times = problems[0].sde.horizon, np.array([p.t for p in problems])
    sizes = horizon / (1024 * 2.0 ** np.arange(4))
    quotients = []
    for h in sizes.tolist():
        pairs = [_parts(step, p, h) for p in problems]
        quotients.append(np.array([np.stack([m / h * horizon, z * (horizon / h) ** 0.5]) for m, z in pairs]))
    table, previous = quotients, quotients
    for order in range(1, 4):
        previous = table
        table = [(2**order * b - a) / (2**order - 1) for a, b in pairwise(table)]
    limit = table[0]
    error = np.abs(limit - previous[1]).max() / (1 + np.abs(limit).max())
    right = np.array(
        [
            np.stack(
                [
                    -p.drift(p.t) * horizon / p.width,
                    p.stochasticity * p.g(p.t) * horizon**0.5 * p.noise / p.width,
                ]
            )
            for p in problems
        ]
    )
    right[:, 1] = signed(limit[:, 1], right[:, 1])
    return compare(
        "check_reverse_step",
        "(32)",
        IN_THE_LIMIT,
        limit,
        right,
        float(1e-8 + min(error, LARGEST_ERROR)),
        labels=lambda i: f"t = {times[i[0]]:g}: {('the mean of x_s − x_t over dt', 'the noise over √dt')[i[1]]}",
    )
