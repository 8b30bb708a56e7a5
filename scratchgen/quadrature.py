"""Deterministic replacements for random draws: expectations and derivatives that are exact to rounding.

Theory functions take their noise as an argument, so that a few well-chosen points in its place give the expectation
itself: sigma points for quadratics, Gauss-Hermite nodes for entire functions, unit vectors for affine maps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.validation import Array


def sigma_points(dimension: int) -> Array:
    """The 2d points ±√d e_i, (2d, d): with equal weights they integrate every quadratic against N(0, I_d) exactly."""
    return float(dimension) ** 0.5 * np.concatenate([np.eye(dimension), -np.eye(dimension)])


def gauss_hermite(n_nodes: int, dimension: int) -> tuple[Array, Array]:
    """Nodes (n_nodes^d, d) and weights of E f(z), z ~ N(0, I_d): 28 a dimension suffice for sines and polynomials.

    Functions with poles in the complex plane (mixture scores, tanh) need hundreds; use a trapezoid rule there.
    """
    x, w = np.polynomial.hermite_e.hermegauss(n_nodes)
    nodes = np.stack(np.meshgrid(*[x] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    weights = np.stack(np.meshgrid(*[w / w.sum()] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    return nodes, weights.prod(axis=1)


def central_difference(f: Callable[[float], Array | float], h: float) -> Array | float:
    """f'(0) by differences of sixth order, error O(h⁶)."""
    return sum(w * (f(k * h) - f(-k * h)) for k, w in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))) / h


def affine_map(f: Callable[[Array], Array], dimension: int) -> tuple[Array, Array]:
    """(A, c) of an affine f(x) = x Aᵀ + c on rows (N, dimension), read off at 0 and at the unit vectors."""
    image = np.asarray(f(np.concatenate([np.zeros((1, dimension)), np.eye(dimension)])), dtype=np.float64)
    return (image[1:] - image[0]).T, image[0]
