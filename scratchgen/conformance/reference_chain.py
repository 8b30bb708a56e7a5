"""The reference chain of the checks: a composition of single diffusion steps; the comparison of linear maps.

Only the variances of the schedule are used, never the tables and closed forms under test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned
from scratchgen.conformance.result import NAMELESS, SINGLE, Check, compare, worst
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray

EpsHat = Callable[[Array, int], Array]
Formula = Callable[..., Array]  # of the numbers (t, or t and s) and of the inputs (rows, D)

D = 3  # with different numbers in every dimension
NEAR = np.array([0.5, -0.25, 0.75])  # the inputs from which factors are read; no clipping at ±1
FAR = np.array([30.0, -24.0, 15.0])  # beyond a clipping at ±10
FAR_UNIT = 60.0  # results far from 0 are shown in this unit, so that a wrong factor is the larger error
FAR_SIGNS = np.array([[1, 1, 1], [-1, -1, -1], [1, -1, 1], [-1, 1, 1]])
EPS = float(np.finfo(np.float64).eps)
CLIPS = (1.0, 2.0, 3.0, 5.0, 6.0, 10.0)
UNCLIPPED = "hand over the code with its clipping turned off, so that the rest is checked"


class Steps(NamedTuple):
    """x_t = alpha x_{t−1} + √variance ε_t, composed to x_t = scale x_0 + √total ε; every array has length T+1."""

    alpha: Array
    variance: Array
    scale: Array
    total: Array

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.alpha) - 1

    @property
    def posterior(self) -> Array:
        """Variance of q(x_{t−1} | x_t, x_0), the inverse of the precision α²/β² + 1/β̄²_{t−1}; 0 up to t = 1."""
        out = np.zeros(self.T + 1)
        out[2:] = 1 / (self.alpha[2:] ** 2 / self.variance[2:] + 1 / self.total[1:-1])
        return out

    @property
    def std(self) -> Array:
        """β̄_t."""
        return np.sqrt(self.total)

    @property
    def roundings(self) -> Array:
        """The roundings in a product of t factors near 1, (T+1,), in units of the 64 machine epsilons of a check."""
        return 1 + np.arange(self.T + 1) / 32

    @property
    def condition(self) -> Array:
        """How many times the rounding of β² and of 1 − ᾱ² is enlarged in ᾱ_t and β̄_t, (T+1,); 0 at t = 0."""
        out = np.cumsum(self.variance / (1 - self.variance))
        out[1:] += self.roundings[1:] / self.std[1:]
        return out

    @property
    def posterior_condition(self) -> Array:
        """The same for the posterior, where 1 − ᾱ_t², 1 − ᾱ²_{t−1} and 1 − ᾱ_t²/ᾱ²_{t−1} may stand, (T+1,)."""
        out = self.condition
        out[1:] += 1 / self.variance[1:]
        out[2:] += 1 / self.total[1:-1]
        return out

    @property
    def step_condition(self) -> Array:
        """The rounding of a step in units of four machine epsilons, (T+1,): that of β² is enlarged in 1/α_t."""
        return 1 + 0.25 * self.variance / (1 - self.variance)

    @property
    def scale_condition(self) -> Array:
        """How many machine epsilons ᾱ_t may lose: those of β² in 1 − β², and √t roundings of a product, (T+1,)."""
        return np.cumsum(self.variance / (1 - self.variance)) + np.sqrt(np.arange(self.T + 1))

    @property
    def total_condition(self) -> Array:
        """The same for 1 − ᾱ_t², which may be a difference of numbers near 1, (T+1,); 0 at t = 0."""
        out = np.zeros(self.T + 1)
        out[1:] = (1 + self.scale[1:] ** 2 * self.scale_condition[1:]) / self.total[1:]
        return out

    @property
    def loop_condition(self) -> float:
        """The same for a loop over all steps, which adds up the errors of its factors."""
        return float((1 / self.total[1:] + 1 / np.sqrt(self.variance[1:])).sum())


def compose(schedule: NoiseSchedule) -> Steps:
    """The reference chain of the variances of a schedule."""
    return compose_variances(schedule.variances)


def compose_variances(variances: Array) -> Steps:
    """Compose the steps one by one: scale ← α scale, total ← α² total + β²."""
    variance = np.concatenate([[0.0], variances])
    alpha = np.sqrt(1 - variance)
    scale, total = [1.0], [0.0]
    for a, v in zip(alpha[1:], variance[1:], strict=True):
        scale.append(a * scale[-1])
        total.append(a**2 * total[-1] + v)
    return Steps(alpha, variance, np.array(scale), np.array(total))


def hos_table(T: int) -> Steps:
    """The chain of Ho's linear table."""
    return compose_variances(np.linspace(1e-4, 0.02, T))


def rounding(T: int) -> float:
    """The tolerance of a table that is a product of T factors: 64 + 2 T machine epsilons."""
    return (64 + 2 * T) * EPS


def enlarged(tolerance: float, condition: Array | float) -> Array:
    """The factor of the unit of a residual whose rounding is enlarged by a condition number; 1 without it.

    At the tolerance of the check it allows at least 64 machine epsilons of float64 times the condition; at 1e-5 it
    allows four of float32.
    """
    return 1 + max(64 * EPS / tolerance, 0.05) * np.asarray(condition)


def all_steps(steps: Steps) -> IntArray:
    """t = 1..T, (T, 1)."""
    return np.arange(1, steps.T + 1)[:, None]


# --- linear maps -----------------------------------------------------------------------------------------------------


def at(table: Array, t: int | IntArray) -> Array:
    """The entries of a table as a factor of (…, D); t of shape (N,) gives (N, 1)."""
    value = np.asarray(table[t])
    return value[:, None] if value.ndim == 1 else value


def probes(n_inputs: int) -> Array:
    """Inputs (n_inputs, n_inputs + 5, D): all 0; one input alone, near 0; all inputs, far from 0."""
    out = np.zeros((n_inputs, n_inputs + 5, D))
    for i in range(n_inputs):
        out[i, 1 + i] = NEAR
        out[i, n_inputs + 1 :] = FAR_SIGNS[:, [i]] * np.roll(FAR, i)
    return out


def read(images: Array, n_inputs: int) -> Array:
    """The factors of every input, the constant, and the results far from 0, (…, n_inputs + 5, D), from the images."""
    zero, near, far = images[..., :1, :], images[..., 1 : n_inputs + 1, :], images[..., n_inputs + 1 :, :]
    return np.concatenate([(near - zero) / NEAR, zero, far / FAR_UNIT], axis=-2)


def check_linear(
    name: str,
    equation: str,
    f: Callable[..., ArrayLike],
    what: str,
    numbers: IntArray,
    formula: Formula,
    inputs: tuple[str, ...],
    result: str,
    condition: Array,
    mistakes: dict[str, Formula],
    tolerance: float,
    floor: Array | None = None,
) -> Check:
    """Compare f(t, …, *inputs) with a formula for every step, in D = 3 and near and far from 0; then for arrays of t.

    Parameters
    ----------
    f : callable
        Under test.  The numbers come first, then the arrays (N, 3).
    what : str
        Its name in messages.
    numbers : (P, m)
        The numbers of every call: t, or t and s.
    formula : callable
        formula(*numbers (P, 1, 1), *inputs (rows, D)) → (P, rows, D).
    inputs : tuple of str
        Names of the arrays.
    result : str
        Name of the result.
    condition : (P, inputs)
        The number of machine epsilons that a right code may lose in each factor.  A factor that is no difference of
        numbers near each other loses none, however much another factor of the same step loses.
    mistakes : dict
        Sentence → formula.
    floor : (P, inputs), optional
        The unit of each factor, to which its loss is added, in place of 1 plus the factor.
    """
    given, n = probes(len(inputs)), len(inputs)
    columns = tuple(numbers.T[:, :, None, None])
    rows = [_call(f, what, tuple(int(i) for i in row), given) for row in numbers]
    right = read(formula(*columns, *given), n)
    near = np.abs(right[:, :n]).max(axis=2)
    per_factor = (1 + near if floor is None else floor) + (enlarged(tolerance, condition) - 1)
    others = 1 + np.abs(right[:, n:]).max(axis=2) + (enlarged(tolerance, condition) - 1).sum(axis=1, keepdims=True)
    unit = np.concatenate([per_factor, others], axis=1)[:, :, None]

    def place(index: tuple[int, ...]) -> str:
        p, row, d = index
        entries = [*(f"factor of {one}" for one in inputs), "constant", *["result far from 0"] * 4]
        return f"{_steps_text(numbers[p])}: {entries[row]} in {result}, dimension {d},"

    first = compare(
        name,
        equation,
        f"the map from ({', '.join(inputs)}) to {result}",
        read(np.array(rows), n),
        right,
        tolerance,
        {text: lambda m=m: read(m(*columns, *given), n) for text, m in mistakes.items()},  # type: ignore[misc]
        labels=place,
        unit=unit,
        single=CANCELS if condition.max() > 50 else "",
    )
    second = _with_arrays(name, equation, f, numbers, formula, n, result, condition, tolerance)
    return first if second is None else worst(first, second)


CANCELS = "1 − ᾱ² and its like are differences of float32 numbers near 1, with few correct digits at the first steps; "


def at_clipped_steps(check: Check, steps: Steps) -> Check:
    """The check with a sentence on clipped β², if entries differ there only; the last rows of left are t = 1..T.

    A schedule whose largest β² stands at its end is taken as clipped if its last β² is .99 and more.
    """
    clipped = steps.variance == steps.variance[-1]
    if check.passed or check.left.shape != check.right.shape or len(check.left) < steps.T or steps.variance[-1] < 0.99:
        return check
    if not np.isfinite(check.left).all() or not check.diagnosis.endswith((NAMELESS, SINGLE)):
        return check
    distance = np.abs(check.left - check.right) / (1.0 if check.unit is None else check.unit)
    limit = max(check.tolerance, 0.01 * check.residual)  # code in float32 differs a little everywhere
    wrong = (distance > limit).reshape(len(check.left), -1).any(axis=1)
    if (wrong[-steps.T :] & ~clipped[1:]).any():
        return check
    where = "; only steps with a clipped β² differ: β² is clipped, ᾱ is not recomputed from it"
    return replace(check, diagnosis=check.diagnosis[: check.diagnosis.rindex("; ")] + where, in_single="")


LATE = "every step is one too late: t counts 1..T, so that a table from 0 has index t − 1"


def of_hos_table(T: int) -> str:
    """The sentence for the right formulas of another schedule."""
    return (
        f"these are the numbers of Ho's table np.linspace(1e-4, 0.02, {T}), and the schedule is another: pass "
        "NoiseSchedule.from_variances of this table"
    )


def _steps_text(numbers: IntArray) -> str:
    return ", ".join(f"{symbol} = {i}" for symbol, i in zip("ts", numbers, strict=False))


def _call(f: Callable[..., ArrayLike], what: str, numbers: tuple[int, ...], inputs: Array) -> Array:
    """One call on copies of the inputs; an IndexError says how steps are counted."""
    try:
        value = f(*numbers, *inputs.copy())
    except IndexError as error:
        error.add_note(f"{what} was called with t = {numbers[0]}; t counts 1..T, and index 0 is clean data")
        raise
    return returned(value, inputs.shape[1:], what)


def _with_arrays(
    name: str,
    equation: str,
    f: Callable[..., ArrayLike],
    numbers: IntArray,
    formula: Formula,
    n_inputs: int,
    result: str,
    condition: Array,
    tolerance: float,
) -> Check | None:
    """The comparison for arrays of t, one step an example; None if f does not take them."""
    n = 5
    given = np.sin(1.7 * np.arange(1, 1 + n_inputs * n * D) ** 1.3).reshape(n_inputs, n, D)
    chosen = np.linspace(0, len(numbers) - 1, n).round().astype(np.int64)[[2, 0, 4, 1, 3]]
    picked = numbers[chosen]
    try:
        left = np.asarray(f(*(column.copy() for column in picked.T), *given.copy()), dtype=np.float64)
    except Exception:  # f takes ints only, and says so by any exception
        return None
    if left.shape != (n, D):
        return None

    def by(rows: IntArray) -> Array:
        return formula(*rows.T[:, :, None], *given)

    right = by(picked)
    lost = np.abs(np.einsum("pi,ipd->pd", enlarged(tolerance, condition[chosen]) - 1, np.abs(given)))
    unit = 1 + np.abs(right).max(axis=1, keepdims=True) + lost
    return compare(
        name,
        equation,
        f"{result} for t as an array",
        left,
        right,
        tolerance,
        {
            "the first t is used for all examples": lambda: by(np.broadcast_to(picked[:1], picked.shape)),
            "the last t is used for all examples": lambda: by(np.broadcast_to(picked[-1:], picked.shape)),
        },
        labels=lambda i: f"t as an array, {_steps_text(picked[i[0]])}: {result} in dimension {i[1]}",
        unit=unit,
    )


def common_mistakes(
    formula_of: Callable[[Steps], Formula], steps: Steps, inputs: tuple[str, ...]
) -> dict[str, Formula]:
    """The mistakes that are possible in every map of steps: shifted steps, another table, shared inputs."""
    formula, T = formula_of(steps), steps.T

    def moved(index: Callable[[Any], Any]) -> Formula:
        def wrong(*arguments: Array) -> Array:
            n = len(arguments) - len(inputs)
            return formula(*(index(one) for one in arguments[:n]), *arguments[n:])

        return wrong

    mistakes: dict[str, Formula] = {}
    if T > 1:
        mistakes |= {
            LATE: moved(lambda t: np.minimum(t + 1, T)),
            "it is that of step t−1: index shifted by one": moved(lambda t: t - 1),
            "it is that of step t−1, and right at t = 1": moved(lambda t: np.maximum(t - 1, 1)),
            "it is that of step t−1, and of step T at t = 1, where an index is −1": moved(lambda t: (t - 2) % T + 1),
            "it is that of step T + 1 − t: the steps are counted backwards": moved(lambda t: (T + 1 - t) % (T + 1)),
        }
        if not np.array_equal(steps.variance, hos_table(T).variance):
            mistakes[of_hos_table(T)] = formula_of(hos_table(T))
    for i, one in enumerate(inputs):

        def shared(share: Callable[[Array], Array], i: int = i) -> Formula:
            def wrong(*arguments: Array) -> Array:
                numbers, arrays = arguments[: -len(inputs)], list(arguments[-len(inputs) :])
                arrays[i] = np.broadcast_to(share(arrays[i]), arrays[i].shape)
                return formula(*numbers, *arrays)

            return wrong

        mistakes[f"all dimensions use {one} of the first dimension"] = shared(lambda x: x[..., :1])
        mistakes[f"{one} is averaged over the dimensions"] = shared(lambda x: x.mean(axis=-1, keepdims=True))
        mistakes[f"all examples use {one} of the first example"] = shared(lambda x: x[:1])
    return mistakes


def clipped(x: Array, bound: float) -> Array:
    """x within ±bound."""
    return np.minimum(np.maximum(x, -bound), bound)


def clippings(formula: Formula, what: str = "the result") -> dict[str, Formula]:
    """The mistakes of a result that is clipped."""

    def within(bound: float) -> Formula:
        return lambda *arguments: clipped(formula(*arguments), bound)

    advice = f"; {UNCLIPPED}" if what == "x̂_0" else ""
    return {f"{what} is clipped to [−{bound:g}, {bound:g}]{advice}": within(bound) for bound in CLIPS}


def coefficients(f: Callable[..., ArrayLike], n_arguments: int) -> list[float]:
    """The coefficients (c_1, …, c_n, c_0, bend) of f(u_1, …, u_n) = Σ c_i u_i + c_0, read off at 0 and at unit vectors.

    `bend` is the largest relative deviation from this linear map at three points of ±5.  A function that clips is
    linear near 0 and has bend > 0.  A deviation below 1e-12 is rounding and counts as 0.
    """
    far = 5 * np.stack([np.ones(n_arguments), -np.ones(n_arguments), (-1.0) ** np.arange(n_arguments)])
    rows = np.concatenate([np.eye(n_arguments), np.zeros((1, n_arguments)), far])
    image = returned(f(*(rows[:, [i]] for i in range(n_arguments))), (len(rows), 1), "the function under test")[:, 0]
    slopes, constant = image[:n_arguments] - image[n_arguments], float(image[n_arguments])
    departure = np.abs(image[n_arguments + 1 :] - far @ slopes - constant).max()
    bend = float(departure / (1e-300 + 5 * np.abs(slopes).sum() + abs(constant)))
    return [*slopes.tolist(), constant, 0.0 if bend < 1e-12 else bend]


def shifted(table: Array) -> Array:
    """The table delayed by one step, as if padded on the wrong side."""
    return np.concatenate([table[:1], table[:-1]])


def reverse_mean(steps: Steps) -> Array:
    """The factors of x_t and ε̂ in the mean of p_θ(x_{t−1} | x_t), (T, 2): the posterior mean at x̂_0(ε̂)."""
    alpha, v, scale, total = steps.alpha[1:], steps.variance[1:], steps.scale, steps.total
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = steps.posterior[1:, None] * np.stack([alpha / v, scale[:-1] / total[:-1]], axis=1)
    weights[0] = [0.0, 1.0]
    return np.stack(
        [weights[:, 0] + weights[:, 1] / scale[1:], -weights[:, 1] * np.sqrt(total[1:]) / scale[1:]], axis=1
    )
