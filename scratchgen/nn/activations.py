"""Activation functions of an MLP with their first and second derivatives, applied to every element of an array."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from scratchgen.fast import silu as fast
from scratchgen.validation import Array


def sigmoid(z: Array) -> Array:
    """s(z) = 1/(1 + exp(−z))."""
    with np.errstate(over="ignore"):  # exp may overflow to inf; 1/inf is the right limit
        return np.asarray(1 / (1 + np.exp(-z)))


def silu(z: Array) -> tuple[Array, Array]:
    """z s(z) and its derivative s + z s (1 − s), s = sigmoid(z) (Hendrycks and Gimpel 2016; Elfwing et al. 2018)."""
    s = sigmoid(z)
    return z * s, s + z * s * (1 - s)


def silu_curvature(z: Array) -> Array:
    """Second derivative of SiLU, s (1 − s) (2 + z (1 − 2s))."""
    s = sigmoid(z)
    return s * (1 - s) * (2 + z * (1 - 2 * s))


def tanh_and_slope(z: Array) -> tuple[Array, Array]:
    """The hyperbolic tangent of z and its derivative 1 − tanh² z."""
    value = np.tanh(z)
    return value, 1 - value**2


def tanh_curvature(z: Array) -> Array:
    """Second derivative of the hyperbolic tangent, −2 tanh z (1 − tanh² z)."""
    value, slope = tanh_and_slope(z)
    return -2 * value * slope


def identity(z: Array) -> Array:
    """No activation: z itself."""
    return z


def identity_and_slope(z: Array) -> tuple[Array, Array]:
    """No activation: z and its derivative 1."""
    return z, np.ones_like(z)


class Activation(NamedTuple):
    """An activation σ with its derivatives; `value` and `value_and_slope` may overwrite their argument."""

    value: Callable[[Array], Array]  # σ(z)
    value_and_slope: Callable[[Array], tuple[Array, Array]]  # σ(z) and σ'(z)
    curvature: Callable[[Array], Array]  # σ''(z)


ACTIVATIONS = {
    "silu": Activation(fast.silu, fast.silu_and_slope, silu_curvature),  # both are fast forms of `silu`
    "tanh": Activation(np.tanh, tanh_and_slope, tanh_curvature),
    "identity": Activation(identity, identity_and_slope, np.zeros_like),
}
