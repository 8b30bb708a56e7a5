"""Checks of what training rests on: gradients and Adam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned, takes_arrays
from scratchgen.conformance.result import Check, compare
from scratchgen.quadrature import central_difference
from scratchgen.validation import Array


@takes_arrays
def check_gradient(
    loss: Callable[[Array], ArrayLike],
    gradient: Callable[[Array], ArrayLike],
    parameters: Array,
    directions: Array,
    h: float = 1e-3,
) -> Check:
    """A hand-written gradient against differences of sixth order along given directions.

    Parameters
    ----------
    loss, gradient : callables
        loss(parameters) → a number, gradient(parameters) → (P,), for any float64 vector of P parameters.  Slopes are
        compared in units of the largest.
    parameters : (P,)
    directions : (n, P)
        Unit vectors find the wrong parameter, dense ones find it with fewer calls.
    h : float
        Step along a direction; errors are O(h⁶) and 1e-16/h.
    """
    gradient(parameters)  # a second call finds gradients that add up
    left = directions @ returned(gradient(parameters), parameters.shape, "gradient")

    def value(at: Array) -> float:
        return float(returned(loss(at), (), "loss"))

    def along(direction: Array) -> float:
        return float(central_difference(lambda step: value(parameters + step * direction), h))

    right = np.array([along(direction) for direction in directions])
    # In units of the largest slope, or of what rounding leaves of the differences of a large loss.
    unit = max(np.abs(right).max(initial=0.0), 1e-9 * abs(value(parameters)), 1e-300)
    return compare(
        "check_gradient", "(14)", "the derivative along a direction, in units", left / unit, right / unit, 1e-7
    )


@takes_arrays
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
    """Adam, and AdamW with weight_decay > 0, after every step, against Kingma and Ba's algorithm as printed.

    Parameters
    ----------
    run : callable
        run(parameters (P,), gradients (n, P)) → the parameters after each of the n steps, (n, P).
    tolerance : float
        1e-12 for float64; 1e-5 for float32.
    """

    def textbook(correct: bool = True, root_epsilon: bool = False, decoupled: bool = True) -> Array:
        theta, m, v = parameters.astype(np.float64), np.zeros(len(parameters)), np.zeros(len(parameters))
        states = []
        for n, g in enumerate(gradients, start=1):
            if decoupled:
                theta = theta - learning_rate * weight_decay * theta
            else:
                g = g + weight_decay * theta
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            m_hat, v_hat = (m / (1 - beta1**n), v / (1 - beta2**n)) if correct else (m, v)
            step = m_hat / np.sqrt(v_hat + epsilon) if root_epsilon else m_hat / (np.sqrt(v_hat) + epsilon)
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
            "ε stands under the root": lambda: textbook(root_epsilon=True),
            "weight decay goes through the moments: L2, not AdamW": lambda: textbook(decoupled=False),
            "it moves up the gradient": lambda: 2 * parameters - textbook(),
            "it does not move": lambda: np.broadcast_to(parameters, gradients.shape),
        },
    )
