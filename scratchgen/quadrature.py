"""Quadrature nodes in place of random draws, and an integrator of ODEs.

Functions of the theory take their noise as an argument.  Nodes of a quadrature rule in place of the noise give the
expectation to rounding: sigma points for quadratics, Gauss-Hermite nodes for entire functions, unit vectors for affine
maps.
"""

from collections.abc import Callable

import numpy as np

from scratchgen.validation import Array, as_arrays, as_count, as_number, check_callable


def sigma_points(dimension: int) -> Array:
    """The 2d points ±√d e_i, (2d, d); the mean of a quadratic function over them is its expectation under N(0, I_d)."""
    dimension = as_count(dimension, "dimension")
    return float(dimension) ** 0.5 * np.concatenate([np.eye(dimension), -np.eye(dimension)])


def gauss_hermite(n_nodes: int, dimension: int) -> tuple[Array, Array]:
    """Gauss-Hermite nodes (n_nodes^d, d) and weights (n_nodes^d,) of E f(z), z ~ N(0, I_d).

    For sines and polynomials 28 nodes a dimension suffice.  Functions with poles in the complex plane (scores of
    mixtures, tanh) need hundreds; the trapezoid rule is better for them.
    """
    n_nodes, dimension = as_count(n_nodes, "n_nodes"), as_count(dimension, "dimension")
    x, w = np.polynomial.hermite_e.hermegauss(n_nodes)
    nodes = np.stack(np.meshgrid(*[x] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    weights = np.stack(np.meshgrid(*[w / w.sum()] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    return nodes, weights.prod(axis=1)


def central_difference(f: Callable[[float], Array | float], h: float) -> Array | float:
    """f'(0) by a central difference of sixth order: step h, six calls of f, error O(h⁶)."""
    check_callable(f, "f", "x → f(x)")
    h = as_number(h, "h", low=0.0, open_low=True)
    return sum(w * (f(k * h) - f(-k * h)) for k, w in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))) / h


def affine_map(f: Callable[[Array], Array], dimension: int) -> tuple[Array, Array]:
    """A (D', D) and c (D',) of an affine map f(x) = x Aᵀ + c of rows x (N, D), from f at 0 and at the unit vectors."""
    check_callable(f, "f", "x (N, D) → (N, D')")
    dimension = as_count(dimension, "dimension")
    image = np.asarray(f(np.concatenate([np.zeros((1, dimension)), np.eye(dimension)])), dtype=np.float64)
    return (image[1:] - image[0]).T, image[0]


def tanh_sinh(f: Callable[[float], Array | float], low: float, high: float, rtol: float, what: str) -> Array:
    """∫ f(t) dt from low to high by the tanh-sinh rule of Takahasi and Mori (1974), for one or many integrals at once.

        t = low + (high − low)/(1 + exp(−π sinh u)),   trapezoid rule in u

    The nodes approach the lower end to 1e-33 of the length, so that no time scale near the lower end is missed.  The
    spacing is halved until two results agree.  For an f that is analytic between the ends the error of the last result
    is far smaller than their difference.

    Parameters
    ----------
    f : callable
        t → number or (n,); a deterministic function.
    low, high : float
    rtol : float
        Largest difference of the last two results, as a fraction of ∫|f| dt.
    what : str
        Name of f, for the error message.

    Raises
    ------
    TypeError, ValueError
        If rtol is not a positive number.
    ArithmeticError
        If f is not finite, or 1760 nodes do not suffice.
    """
    check_callable(f, "f", "t → f(t)")
    low, high = as_number(low, "low"), as_number(high, "high")
    rtol = as_number(rtol, "rtol", low=0.0, open_low=True)
    spacing, u = 0.25, np.arange(-3.875, 3.0, 0.25)
    total = size = np.zeros(())
    before = np.full((), np.nan)
    while spacing > 2**-9:
        y = 1 / (1 + np.exp(-np.pi * np.sinh(u)))
        weights = (high - low) * np.pi * np.cosh(u) * y / (1 + np.exp(np.pi * np.sinh(u)))
        values = [
            w * np.asarray(f(t)) for t, w in zip((low + (high - low) * y).tolist(), weights.tolist(), strict=True)
        ]
        total, size = total + np.sum(values, axis=0), size + np.sum(np.abs(values), axis=0)
        if not np.isfinite(total).all():
            raise ArithmeticError(f"{what} must be finite between {low:g} and {high:g}, but its integral is {total}")
        if (np.abs(spacing * total - before) <= rtol * spacing * size).all():
            return spacing * total
        before = spacing * total
        u, spacing = np.arange(-3.875 + 0.5 * spacing, 3.0, spacing), 0.5 * spacing  # the nodes between
    raise ArithmeticError(
        f"the integral of {what} from {low:g} to {high:g} does not settle to rtol = {rtol:g}; "
        f"pass a smooth {what} without random numbers, or raise rtol"
    )


def integrate(
    slope: Callable[[float, Array], Array],
    t: float,
    s: float,
    start: Array,
    rtol: float,
    what: str,
    cure: str,
) -> Array:
    """Solve d state/dt = slope(t, state) for every row of a batch from time t to time s by DOP853, of order 8.

    All rows take the same steps.  The error of a step is the largest over the rows, each in units of its own tolerance,
    so that every row keeps its tolerance whatever the other rows are.  An average over the batch, as in SciPy's
    `solve_ivp`, lets many easy rows hide a hard one.

    Parameters
    ----------
    slope : callable
        (t, state (N, n)) → derivative (N, n).
    t, s : float
        Times of the start and of the end; s may be below t.
    start : (N, n)
        State at t.
    rtol : float
        Relative tolerance of the root mean square of a row's error in a step; the absolute tolerance is a tenth of it.
    what, cure : str
        Name of the integrated quantity and remedy, for the error message.

    Returns
    -------
    end : (N, n)
        State at s.

    Raises
    ------
    TypeError
        If rtol is not a number.
    ValueError
        If rtol is not positive and finite.
    ArithmeticError
        If the slope is not finite at the start, or a step would have to be shorter than the rounding of t.

    Notes
    -----
    The coefficients are SciPy's.  The error estimate and the choice of the steps are those of Hairer, Nørsett and
    Wanner (1993, II.4 and II.5).
    """
    check_callable(slope, "slope", "(t, state) → derivative")
    t, s, start = as_number(t, "t"), as_number(s, "s"), as_arrays("start (N, n)", start)
    from scipy.integrate import DOP853  # SciPy takes 0.4 s to import; only this function needs it

    rtol = as_number(rtol, "rtol", low=0.0, open_low=True)
    state, derivative = start, slope(t, start)
    if not np.isfinite(derivative).all():
        raise ArithmeticError(f"{what} could not be integrated: the score is not finite at t = {t:g}; {cure}")
    stages = np.empty((DOP853.n_stages, *start.shape))

    def combine(weights: Array) -> Array:
        return (weights @ stages[: len(weights)].reshape(len(weights), -1)).reshape(start.shape)

    # The first step would change the rows by a tenth.  Later steps are up to 10 times as long as the step before.
    change, size = (float(((a / (0.1 + np.abs(start))) ** 2).mean(axis=1).max(initial=0)) for a in (derivative, start))
    h = (s - t) if change == 0 else np.sign(s - t) * (1e-6 + 0.1 * (size / change) ** 0.5)
    while t != s and start.size:
        h = h if abs(h) < abs(s - t) else s - t
        if abs(h) < 10 * np.spacing(abs(t)):
            raise ArithmeticError(f"{what} could not be integrated: no step is short enough at t = {t:g}; {cure}")
        stages[0] = derivative
        for i in range(1, DOP853.n_stages):
            stages[i] = slope(t + DOP853.C[i] * h, state + h * combine(DOP853.A[i, :i]))
        moved = state + h * combine(DOP853.B)
        tolerance = rtol * (0.1 + np.maximum(np.abs(state), np.abs(moved)))
        fifth, third = (((combine(E[:-1]) / tolerance) ** 2).mean(axis=1) for E in (DOP853.E5, DOP853.E3))
        error = abs(h) * float((fifth / np.sqrt(fifth + 0.01 * third + 1e-300)).max())
        accepted = error <= 1  # not if the error is NaN
        if accepted:
            t = s if h == s - t else t + h
            state, derivative = moved, slope(t, moved)
        h *= np.clip(0.9 * max(error, 1e-16) ** (-1 / 8), 0.2, 10.0 if accepted else 0.9) if error < np.inf else 0.2
    return state
