"""Checks of training: losses and their gradients, steps, loops, Adam, the moving average, the learning rate.

The right side of a gradient is a finite difference of the loss.  The right side of a loop is a plain loop over such
differences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, returned, takes_arrays, takes_arrays_in_place
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import central_difference
from scratchgen.validation import Array

STEP = 1e-3  # length of a difference of sixth order; the error is 1e-18 times a seventh derivative


# --- gradients -------------------------------------------------------------------------------------------------------


@takes_arrays
def check_gradient(
    loss: Callable[[Array], ArrayLike],
    gradient: Callable[[Array], ArrayLike],
    parameters: Array,
    directions: Array,
    h: float = STEP,
) -> Check:
    """The gradient of a loss, from finite differences of sixth order along given directions.

    Parameters
    ----------
    loss : callable
        loss(parameters) → a number, for any float64 vector of P parameters.
    gradient : callable
        gradient(parameters) → (P,).
    parameters : (P,)
    directions : (n, P)
        Unit vectors name the wrong parameter; dense vectors need fewer calls.
    h : float
        Length of a difference; the error is O(h⁶) plus 1e-16/h.

    Returns
    -------
    Check
        Slopes in units of the largest slope; tolerance 1e-7.
    """
    gradient(parameters)  # a second call finds gradients that accumulate
    left = directions @ returned(gradient(parameters), parameters.shape, "gradient")

    def value(at: Array) -> float:
        return float(returned(loss(at), (), "loss"))

    right = _slopes(value, parameters, directions, h)
    unit = _unit(right, value(parameters))
    return compare(
        "check_gradient", "(14)", "the derivative along a direction, in units", left / unit, right / unit, 1e-7
    )


def _slopes(loss: Callable[[Array], float], at: Array, directions: Array, h: float = STEP) -> Array:
    """Derivatives of a loss along directions, by finite differences of sixth order."""

    def along(direction: Array) -> float:
        return float(central_difference(lambda step: loss(at + step * direction), h))

    return np.array([along(direction) for direction in directions])


def _unit(slopes: Array, loss: float) -> float:
    """The largest slope, or the rounding error of the differences of a large loss."""
    return max(float(np.abs(slopes).max(initial=0.0)), 1e-9 * abs(loss), 1e-300)


@takes_arrays
def check_loss_gradient(
    loss_and_gradient: Callable[[Array], tuple[ArrayLike, ArrayLike]],
    losses: Callable[[Array], ArrayLike],
    at: Array,
    equation: str = "(29)",
) -> Check:
    """The loss of every example and its derivative, from another formula of the loss and finite differences.

    Parameters
    ----------
    loss_and_gradient : callable
        loss_and_gradient(argument (N, D)) → (losses (N,), derivatives (N, D)).  The loss of an example depends on its
        own row only.
    losses : callable
        losses(argument) → (N,), by another route.
    at : (N, D)
        The argument, with D of 2 or more, so that a mean over D differs from a sum.
    equation : str

    Returns
    -------
    Check
        Tolerance 1e-10 for the losses, 1e-7 for the derivatives.
    """
    left, gradient = parts(loss_and_gradient(at), 2, "loss_and_gradient")
    value = returned(losses(at), (len(at),), "losses")

    def moved(axis: Array) -> Callable[[float], Array]:
        return lambda h: returned(losses(at + h * axis), (len(at),), "losses")

    right = np.stack([np.asarray(central_difference(moved(axis), STEP)) for axis in np.eye(at.shape[1])], axis=1)
    name = "check_loss_gradient"
    return worst(
        compare(name, equation, "the loss of an example", left, value, 1e-10),
        compare(
            name,
            equation,
            "the derivative of an example's loss",
            gradient,
            right,
            1e-7,
            {"it is divided by the number of examples": lambda: right / len(at)},
        ),
    )


# --- steps and loops -------------------------------------------------------------------------------------------------


@takes_arrays_in_place
def check_training_step(
    step: Callable[[Array], tuple[ArrayLike, ArrayLike]],
    losses: Callable[[Array], ArrayLike],
    parameters: Array,
    weight: Array | float = 1.0,
    equation: str = "(29)",
) -> Check:
    """One step of training before the optimiser: the losses of a batch, and the gradient of their weighted mean.

    Parameters
    ----------
    step : callable
        step(parameters (P,)) → (losses (N,), gradient (P,)).
    losses : callable
        losses(parameters) → (N,): the same losses in one formula, without a gradient.
    parameters : (P,)
        Not an optimum, and no entry near 0.
    weight : (N,) or float
        The weight of every example in the mean (1/N) Σ weight · loss.
    equation : str

    Returns
    -------
    Check
        Tolerance 1e-9 for the losses, 1e-7 for the gradient, in units of its largest slope.
    """
    check_callable(step, "step(parameters)")
    check_callable(losses, "losses(parameters)")
    step(parameters)  # a second call finds gradients that accumulate
    left, gradient = parts(step(parameters), 2, "step")
    right = np.asarray(losses(parameters), dtype=np.float64)
    name, axes = "check_training_step", np.eye(len(parameters))
    if gradient.shape != parameters.shape:
        return compare(name, equation, "the gradient", gradient, np.zeros_like(parameters), 1e-7)

    def slopes(weight: Array | float) -> Array:
        return _slopes(lambda at: float(np.mean(weight * np.asarray(losses(at), dtype=np.float64))), parameters, axes)

    def of_logsumexp() -> Array:
        largest = right.max()
        return _slopes(
            lambda at: float(np.log(np.exp(np.asarray(losses(at), dtype=np.float64) - largest).sum())), parameters, axes
        )

    exact = slopes(weight)
    unit = _unit(exact, float(np.mean(right)))
    norm, length = float(np.linalg.norm(exact)), float(np.linalg.norm(gradient))
    bound = float(f"{length:.2g}")  # a bound that people write has two digits at most
    clipped_norm: dict[str, Callable[[], Array]] = {}
    if 0 < length < norm and abs(length - bound) < 1e-5 * bound:  # optimisers divide by the norm + 1e-6
        clipped_norm[f"it is clipped to the norm {bound:g}"] = lambda: exact * length / norm / unit
    return worst(
        compare(
            name,
            equation,
            "the losses of a batch",
            left,
            right,
            1e-9,
            {
                "they are multiplied by the weights": lambda: weight * right,
                "the mean over the examples stands for every example": lambda: np.full_like(right, right.mean()),
                "the weighted mean stands for every example": lambda: np.full_like(right, np.mean(weight * right)),
                "they are divided by the number of examples": lambda: right / len(right),
            },
            labels=([f"example {i}" for i in range(len(right))],),
        ),
        compare(
            name,
            equation,
            "the gradient of the weighted mean loss, in units",
            gradient / unit,
            exact / unit,
            1e-7,
            {
                "it is the gradient of a sum over the batch": lambda: len(right) * exact / unit,
                "the weights are ignored": lambda: slopes(1.0) / unit,
                "the weights are squared": lambda: slopes(np.square(weight)) / unit,
                "the weights are divided by their sum, not by the number of examples": lambda: (
                    exact / unit / np.mean(weight)
                ),
                "it is the gradient of the logsumexp of the losses, not of their mean": lambda: of_logsumexp() / unit,
                **clipped_norm,
                "it is the ascent direction: the sign is wrong": lambda: -exact / unit,
                "it is added to the gradient of the call before": lambda: 2 * exact / unit,
                "it is the gradient of the first example only": lambda: (
                    slopes(len(right) * weight * np.eye(len(right))[0]) / unit
                ),
            },
        ),
    )


@takes_arrays_in_place
def check_training(
    train: Callable[[Array], tuple[ArrayLike, ArrayLike, ArrayLike]],
    loss: Callable[[Array, int], ArrayLike],
    parameters: Array,
    n_steps: int,
    learning_rate: Array | float,
    warmup: int = 0,
    weight_decay: float = 0.0,
    ema_decay: float | None = None,
    equation: str = "(29)",
) -> Check:
    """A whole training loop on known batches: losses, parameters and moving average after the last step.

    The reference is a plain loop.  Its gradient is a finite difference in every coordinate, its optimiser is the
    printed Adam, and its learning rate rises over `warmup` steps, as (step + 1)/warmup for step = 0, 1, …, and then
    falls along half a cosine.

    Parameters
    ----------
    train : callable
        train(parameters (P,)) → (loss of every step (n_steps,), last parameters (P,), last average (P,)).  The average
        is ignored if `ema_decay` is None.
    loss : callable
        loss(parameters, n) → the loss of batch n = 0..n_steps−1, a number.
    parameters : (P,)
        The start.
    n_steps : int
    learning_rate : float or (P,)
        The largest learning rate, of each parameter.
    warmup : int
        Steps over which the learning rate rises.
    weight_decay : float
        Decoupled, as in AdamW.
    ema_decay : float, optional
        The decay of the average; step k = 1, 2, … uses (1 + k)/(10 + k) if that is smaller.
    equation : str

    Returns
    -------
    Check
        The largest of the residuals; tolerance 1e-6.
    """
    name = "check_training"
    left = parts(train(parameters.copy()), 3, "train")

    def batch_loss(n: int) -> Callable[[Array], float]:
        return lambda at: float(np.asarray(loss(at, n)))

    @cache
    def slopes(n: int, raw: bytes) -> Array:
        """The gradient of batch n at the parameters with these bytes; loops with other mistakes need it again."""
        at = np.frombuffer(raw)
        return _slopes(batch_loss(n), at, np.eye(len(at)))

    def plain(
        correct: bool = True,
        warm: bool = True,
        bar: float | None = ema_decay,
        ascend: bool = False,
        late: int = 0,
        accumulate: int = 0,
        batch: Callable[[int], int] = lambda n: n,
        old_average: bool = False,
        rate_of: Callable[[int], float] | None = None,
        decoupled: bool = True,
        decay_weights: bool = True,
        adam: bool = True,
        late_loss: bool = False,
        even: bool = False,
    ) -> tuple[Array, Array, Array]:
        """The loop, with mistakes; `accumulate` gradients before are added, and the rate is that of step n − late."""
        gradients: list[Array] = []
        theta, m, v = parameters.astype(np.float64), np.zeros(len(parameters)), np.zeros(len(parameters))
        average, values = theta.copy(), []
        for n in range(n_steps):
            values.append(batch_loss(n)(theta))
            gradients.append(slopes(batch(n), theta.tobytes()))
            g = np.sum(gradients[-1 - accumulate :], axis=0) + (0 if decoupled else weight_decay * theta)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            m_hat, v_hat = (m / (1 - 0.9 ** (n + 1)), v / (1 - 0.999 ** (n + 1))) if correct else (m, v)
            share = printed_rate(max(n - late, 0), n_steps, warmup if warm else 0) if rate_of is None else rate_of(n)
            rate, shrink = learning_rate * share, weight_decay if decoupled and decay_weights else 0.0
            step = rate * (m_hat / (np.sqrt(v_hat) + 1e-8) if adam else g) + rate * shrink * theta
            before, theta = theta, theta + step if ascend else theta - step
            values[-1] = batch_loss(n)(theta) if late_loss else values[-1]
            decay = 0.0 if bar is None else min(bar, 1.0 if even else (2 + n) / (11 + n))
            average = decay * average + (1 - decay) * (before if old_average else theta)
        return np.array(values), theta, average

    values, theta, average = plain()

    def part(i: int) -> dict[str, Callable[[], Array]]:
        """Part i of the result under mistakes of the loop."""
        return {
            "gradients accumulate: those of all steps before are added": lambda: plain(accumulate=n_steps)[i],
            "gradients accumulate: that of the step before is added": lambda: plain(accumulate=1)[i],
            "the learning rate is one step late": lambda: plain(late=1)[i],
            "the gradient is that of the first batch in every step": lambda: plain(batch=lambda n: 0)[i],
            "the gradient is that of the batch before": lambda: plain(batch=lambda n: max(n - 1, 0))[i],
            "the learning rate is constant": lambda: plain(rate_of=lambda n: 1.0)[i],
            "the learning rate is constant after its rise": lambda: plain(
                rate_of=lambda n: min(1.0, (n + 1) / max(warmup, 1))
            )[i],
            "the rise starts at 0: step/warmup": lambda: plain(
                rate_of=lambda n: n / warmup if n < warmup else printed_rate(n, n_steps, warmup)
            )[i],
            "weight decay goes through the moments: L2, not AdamW": lambda: plain(decoupled=False)[i],
            "the weights do not decay": lambda: plain(decay_weights=False)[i],
            "there is no Adam: the steps are −rate · gradient": lambda: plain(adam=False)[i],
            "the moments of Adam are not corrected for their start at 0": lambda: plain(correct=False)[i],
            "the learning rate does not rise first": lambda: plain(warm=False)[i],
            "it moves along +gradient, not −gradient": lambda: plain(ascend=True)[i],
        }

    checks = [
        compare(
            name,
            equation,
            "the loss of every step",
            left[0],
            values,
            1e-6,
            {"it is measured after the step, not before": lambda: plain(late_loss=True)[0], **part(0)},
        ),
        compare(
            name,
            equation,
            "the parameters after the last step",
            left[1],
            theta,
            1e-6,
            {
                **part(1),
                "it does not move": lambda: parameters,
            },
        ),
    ]
    if ema_decay is not None:
        checks.append(
            compare(
                name,
                equation,
                "the moving average of the parameters",
                left[2],
                average,
                1e-6,
                {
                    **part(2),
                    "it is that of the parameters before each update": lambda: plain(old_average=True)[2],
                    "the decay of the first steps is not reduced": lambda: plain(even=True)[2],
                    "it is the parameters themselves": lambda: theta,
                    "it does not move": lambda: parameters,
                },
            )
        )
    return worst(*checks)


# --- the optimiser ---------------------------------------------------------------------------------------------------


def printed_rate(step: int, n_steps: int, warmup: int) -> float:
    """The learning rate of a step as a fraction of the largest: a linear rise, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return float(np.cos(0.5 * np.pi * (step - warmup) / (n_steps - warmup)) ** 2)


@takes_arrays
def check_learning_rate(rate: Callable[[int], float], n_steps: int, learning_rate: float, warmup: int) -> Check:
    """The learning rate of every step: linear over `warmup` steps, then half a cosine down to 0 at n_steps.

    For step = 0, 1, …, warmup − 1 it is learning_rate (step + 1)/warmup, so that the first step is not lost.  From
    step = warmup it is ½ learning_rate (1 + cos(π (step − warmup)/(n_steps − warmup))).

    Parameters
    ----------
    rate : callable
        rate(step) → a number, for step = 0..n_steps−1.
    n_steps : int
    learning_rate : float
        The largest.
    warmup : int

    Returns
    -------
    Check
        Residual relative to the rate plus 1 % of the largest, since 1 + cos loses digits near the end; tolerance 1e-13.
    """
    steps = range(n_steps)
    right = np.array([learning_rate * printed_rate(step, n_steps, warmup) for step in steps])

    def after_rise(fall: Callable[[int], float] | None = None, rise: Callable[[int], float] | None = None) -> Array:
        """The rates with another rise or another fall; None is the right one."""
        return np.array(
            [right[i] if (other := rise if i < warmup else fall) is None else learning_rate * other(i) for i in steps]
        )

    left = np.array([rate(step) for step in steps])
    end = printed_rate(n_steps - 1, n_steps, warmup)
    least = (float(left[-1]) / learning_rate - end) / (1 - end) if end < 1 else 0.0  # of a cosine with another end
    return compare(
        "check_learning_rate",
        "(14)",
        "the learning rate of a step",
        left,
        right,
        1e-13,
        {
            "it does not rise first": lambda: [learning_rate * printed_rate(step, n_steps, 0) for step in steps],
            "it is constant after its rise": lambda: np.where(
                np.arange(n_steps) < warmup, right, learning_rate * np.ones(n_steps)
            ),
            "it starts at 0: the first step changes nothing": lambda: np.append(0.0, right[:-1]),
            "the rise starts at 0: step/warmup": lambda: after_rise(None, lambda i: i / warmup),
            "the rise ends one step late: (step + 1)/(warmup + 1)": lambda: after_rise(
                None, lambda i: (i + 1) / (warmup + 1)
            ),
            "the cosine is counted from step 0, not from the end of the warm-up": lambda: after_rise(
                lambda i: np.cos(0.5 * np.pi * i / n_steps) ** 2
            ),
            "the cosine ends at the last step: n_steps − 1": lambda: after_rise(
                lambda i: np.cos(0.5 * np.pi * (i - warmup) / max(n_steps - 1 - warmup, 1)) ** 2
            ),
            "it falls and rises again, by a whole period of the cosine": lambda: after_rise(
                lambda i: np.cos(np.pi * (i - warmup) / (n_steps - warmup)) ** 2
            ),
            "it falls by a quarter of the cosine: the square is missing": lambda: after_rise(
                lambda i: np.cos(0.5 * np.pi * (i - warmup) / (n_steps - warmup))
            ),
            **(
                {
                    f"it falls to {least:.4g} of the largest, not to 0": lambda: after_rise(
                        lambda i: least + (1 - least) * printed_rate(i, n_steps, warmup)
                    )
                }
                if 0 < least < 1 - 1e-9
                else {}
            ),
            "1 + cos stands without its ½": lambda: after_rise(lambda i: 2 * printed_rate(i, n_steps, warmup)),
            "it falls along a line, not along a cosine": lambda: after_rise(
                lambda i: 1 - (i - warmup) / (n_steps - warmup)
            ),
        },
        unit=right + 0.01 * learning_rate,
    )


@takes_arrays_in_place
def check_moving_average(
    average: Callable[[Array, Array], ArrayLike], start: Array, parameters: Array, decay: float
) -> Check:
    """The exponential moving average of the parameters after every step, from an explicit weighted sum.

    The decay of step k = 1, 2, … is min(decay, (1 + k)/(10 + k)).

    Parameters
    ----------
    average : callable
        average(start (P,), parameters (n, P)) → the average after every step, (n, P).
    start : (P,)
    parameters : (n, P)
        The parameters after every step.
    decay : float

    Returns
    -------
    Check
        Tolerance 1e-12.
    """
    n = len(parameters)

    def weighted(decays: Array, start: Array = start) -> Array:
        """Row i: Π decays up to i times the start, plus (1 − decay_k) Π_{k<j<=i} decay_j times parameters k."""
        terms = np.vstack([start, (1 - decays[:, None]) * parameters])
        rows = []
        for i in range(n):
            later = np.append(np.cumprod(decays[i::-1])[::-1], 1.0)
            rows.append(later @ terms[: i + 2])
        return np.array(rows)

    k = np.arange(1, n + 1)

    def weighted_of(other: Array) -> Array:
        average, rows = start, []
        for decay_k, row in zip(np.minimum(decay, (1 + k) / (10 + k)), other, strict=True):
            average = decay_k * average + (1 - decay_k) * row
            rows.append(average)
        return np.array(rows)

    return compare(
        "check_moving_average",
        "(29)",
        "the average after each step",
        average(start.copy(), parameters.copy()),
        weighted(np.minimum(decay, (1 + k) / (10 + k))),
        1e-12,
        {
            "the steps are counted from 0: the decay of step k is k/(9 + k)": lambda: weighted(
                np.minimum(decay, k / (9 + k))
            ),
            "the decay of step k is that of the next step, (2 + k)/(11 + k)": lambda: weighted(
                np.minimum(decay, (2 + k) / (11 + k))
            ),
            "it starts at 0, not at the parameters": lambda: weighted(np.minimum(decay, (1 + k) / (10 + k)), 0 * start),
            "it starts at the parameters after the first step": lambda: weighted(
                np.minimum(decay, (1 + k) / (10 + k)), parameters[0]
            ),
            "it is that of the parameters before each update": lambda: weighted_of(np.vstack([start, parameters[:-1]])),
            "it is the parameters themselves": lambda: parameters,
            "the decay of the first steps is not reduced": lambda: weighted(np.full(n, decay)),
            "decay and 1 − decay are swapped": lambda: weighted(1 - np.minimum(decay, (1 + k) / (10 + k))),
        },
    )


@takes_arrays_in_place
def check_adam(
    run: Callable[[Array, Array], ArrayLike],
    parameters: Array,
    gradients: Array,
    learning_rate: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    tolerance: float = 1e-12,
) -> Check:
    """Adam after every step, from the algorithm printed in Kingma and Ba 2015; AdamW if weight_decay > 0.

    Parameters
    ----------
    run : callable
        run(parameters (P,), gradients (n, P)) → the parameters after each of the n steps, (n, P).
    parameters : (P,)
        The start.
    gradients : (n, P)
        The gradient of every step.
    learning_rate, beta1, beta2, epsilon, weight_decay : float
        The options of `run`.
    tolerance : float
        1e-12 for code in float64, 1e-5 for code in float32.

    Returns
    -------
    Check
        The tolerance is the argument.
    """

    def textbook(
        correct: bool = True,
        root_epsilon: bool = False,
        decoupled: bool = True,
        early_epsilon: bool = False,
        correct_first: bool = True,
        correct_second: bool = True,
        largest: str = "",
        first: int = 1,
        decays: tuple[float, float] = (beta1, beta2),
        power: float = 0.5,
        absolute: bool = False,
        decay_rate: float = learning_rate,
        corrections: tuple[float, float] | None = None,
    ) -> Array:
        """The printed algorithm; the options are mistakes."""
        (b1, b2), (c1, c2), top = decays, corrections or decays, np.zeros(len(parameters))
        theta, m, v = parameters.astype(np.float64), np.zeros(len(parameters)), np.zeros(len(parameters))
        states = []
        for n, g in enumerate(gradients, start=first):
            if decoupled:
                theta = theta - decay_rate * weight_decay * theta
            else:
                g = g + weight_decay * theta
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (np.abs(g) if absolute else g**2)
            top = np.maximum(top, v)
            m_hat = m / (1 - c1**n) if correct and correct_first else m
            v_hat = (top if largest == "before" else v) / (1 - c2**n if correct and correct_second else 1)
            if largest == "after":
                v_hat = top = np.maximum(top if n > first else 0 * top, v_hat)
            added = epsilon / np.sqrt(1 - beta2**n) if early_epsilon else epsilon
            step = m_hat / np.sqrt(v_hat + epsilon) if root_epsilon else m_hat / (v_hat**power + added)
            theta = theta - learning_rate * step
            states.append(theta)
        return np.array(states)

    return compare(
        "check_adam",
        "(14)",
        "the parameters after each step",
        run(parameters.copy(), gradients.copy()),
        textbook(),
        tolerance,
        {
            "the moments are not corrected for their start at 0": lambda: textbook(correct=False),
            "only the first moment is corrected for its start at 0": lambda: textbook(correct_second=False),
            "only the second moment is corrected for its start at 0": lambda: textbook(correct_first=False),
            "the second moment is the largest so far: AMSGrad, by corrected moments": lambda: textbook(largest="after"),
            "the second moment is the largest so far: AMSGrad": lambda: textbook(largest="before"),
            "the steps are counted from 2 in the correction": lambda: textbook(first=2),
            "the decays β₁ and β₂ are exchanged, but not in the correction": lambda: textbook(
                decays=(beta2, beta1), corrections=(beta1, beta2)
            ),
            "the decays β₁ and β₂ are exchanged": lambda: textbook(decays=(beta2, beta1)),
            "the root of the second moment is missing": lambda: textbook(power=1.0),
            "|g| stands for g² in the second moment": lambda: textbook(absolute=True),
            "weight decay is not multiplied by the learning rate": lambda: textbook(decay_rate=1.0),
            "ε is added before the bias correction, as TensorFlow's ε̂": lambda: textbook(early_epsilon=True),
            "ε stands under the root": lambda: textbook(root_epsilon=True),
            "weight decay goes through the moments: L2, not AdamW": lambda: textbook(decoupled=False),
            "it moves along +gradient, not −gradient": lambda: 2 * parameters - textbook(),
            "it does not move": lambda: np.broadcast_to(parameters, gradients.shape),
        },
    )
