"""Quadrature nodes in place of random draws, and an integrator of ODEs.

Functions of the theory take their noise as an argument.  Nodes of a quadrature rule in place of the noise give the
expectation to rounding: sigma points for quadratics, Gauss-Hermite nodes for entire functions, unit vectors for affine
maps.
"""

from collections.abc import Callable

import numpy as np

from scratchgen.validation import Array, as_number


def sigma_points(dimension: int) -> Array:
    """The 2d points ±√d e_i, (2d, d); the mean of a quadratic function over them is its expectation under N(0, I_d)."""
    return float(dimension) ** 0.5 * np.concatenate([np.eye(dimension), -np.eye(dimension)])


def gauss_hermite(n_nodes: int, dimension: int) -> tuple[Array, Array]:
    """Gauss-Hermite nodes (n_nodes^d, d) and weights (n_nodes^d,) of E f(z), z ~ N(0, I_d).

    For sines and polynomials 28 nodes a dimension suffice.  Functions with poles in the complex plane (scores of
    mixtures, tanh) need hundreds; the trapezoid rule is better for them.
    """
    x, w = np.polynomial.hermite_e.hermegauss(n_nodes)
    nodes = np.stack(np.meshgrid(*[x] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    weights = np.stack(np.meshgrid(*[w / w.sum()] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    return nodes, weights.prod(axis=1)


def central_difference(f: Callable[[float], Array | float], h: float) -> Array | float:
    """f'(0) by a central difference of sixth order: step h, six calls of f, error O(h⁶)."""
    return sum(w * (f(k * h) - f(-k * h)) for k, w in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))) / h


def affine_map(f: Callable[[Array], Array], dimension: int) -> tuple[Array, Array]:
    """A (D', D) and c (D',) of an affine map f(x) = x Aᵀ + c of rows x (N, D), from f at 0 and at the unit vectors."""
    image = np.asarray(f(np.concatenate([np.zeros((1, dimension)), np.eye(dimension)])), dtype=np.float64)
    return (image[1:] - image[0]).T, image[0]


def integrate(
    slope: Callable[[float, Array], Array],
    t: float,
    s: float,
    start: Array,
    rtol: float,
    what: str,
    cure: str,
) -> Array:
    """Solve d state/dt = slope(t, state) from time t to time s by DOP853, a Runge-Kutta method of order 8.

    Parameters
    ----------
    slope : callable
        (t, state (n,)) → derivative (n,).
    t, s : float
        Times of the start and of the end; s may be below t.
    start : (n,)
        State at t.
    rtol : float
        Relative tolerance; the absolute tolerance is a tenth of it.
    what, cure : str
        Name of the integrated quantity and remedy, for the error message.

    Returns
    -------
    end : (n,)
        State at s.

    Raises
    ------
    TypeError
        If rtol is not a number.
    ValueError
        If rtol is not positive and finite.
    ArithmeticError
        If the slope is not finite at the start, or the integrator fails.
    """
    from scipy.integrate import solve_ivp  # SciPy takes 0.4 s to import; only this function needs it

    rtol = as_number(rtol, "rtol", low=0.0, open_low=True)
    if not np.isfinite(slope(t, start)).all():  # solve_ivp would choose a step of NaN and never return
        raise ArithmeticError(f"{what} could not be integrated: the score is not finite at t = {t:g}; {cure}")
    solution = solve_ivp(slope, (t, s), start, method="DOP853", rtol=rtol, atol=0.1 * rtol)
    if not solution.success:
        raise ArithmeticError(f"{what} could not be integrated: {solution.message}; {cure}")
    return solution.y[:, -1]
