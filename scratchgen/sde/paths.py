"""Paths x_t = scale · x_0 + std · ε with any scale(t) and std(t): the SDE of a path, and the velocity of its flow.

`LinearSDE` starts from f and g and gives scale and std; here scale and std are given, as in flow matching, where
scale = 1 − t and std = t.
"""

from __future__ import annotations

import numpy as np

from scratchgen.validation import Array, ArrayLike, as_arrays, column


def path_coefficients(
    scale: ArrayLike, std: ArrayLike, scale_rate: ArrayLike, std_rate: ArrayLike
) -> tuple[Array, Array]:
    """Coefficients f and g of the SDE dx = f x dt + g dw with the marginals of a path (Kingma et al. 2021).

        f = scale'/scale,   g² = 2 std (std' − f std)

    g² is −std² times the derivative of the log-SNR.  Every path with a falling log-SNR thus has a reverse SDE, (32),
    and a probability flow; a sampler for it needs the score and these two numbers only.

    Parameters
    ----------
    scale, std : float or (n,)
        Coefficients of the path; both positive, std may be 0.
    scale_rate, std_rate : float or (n,)
        Their derivatives with respect to t.

    Returns
    -------
    rate, diffusion : float64 of the common shape
        f, per unit of t, and g, the standard deviation of the noise of one unit of t.

    Raises
    ------
    ValueError
        If scale is not positive, or the log-SNR rises, so that no forward process has these marginals.

    Examples
    --------
    >>> f, g = path_coefficients(0.8, 0.2, -1.0, 1.0)                 # flow matching at t = 0.2
    >>> round(float(f), 6), round(float(g) ** 2, 6)
    (-1.25, 0.5)
    """
    shapes = "scale (...), std (...), scale_rate (...), std_rate (...)"
    a, b, da, db = as_arrays(shapes, scale, std, scale_rate, std_rate)
    if not (b >= 0).all():
        raise ValueError(f"std must not be negative, got {b}; pass a standard deviation")
    if not (a > 0).all():
        raise ValueError(f"scale must be positive, got {a}; end the path before scale is 0")
    rate = da / a
    g_squared = 2 * b * (db - rate * b)
    if not (g_squared >= 0).all():
        raise ValueError(
            f"std/scale must not fall with t, got the rates {da} of scale and {db} of std; let t = 0 be clean data"
        )
    return rate, np.sqrt(g_squared)


def flow_velocity(x0: Array, noise: Array, scale_rate: ArrayLike, std_rate: ArrayLike) -> Array:
    """Velocity scale' · x_0 + std' · ε, (N, D), of a path x_t = scale · x_0 + std · ε (Lipman et al. 2023).

    For one pair (x_0, ε) it is the target of flow matching; for scale = 1 − t and std = t it is ε − x_0.  For the
    conditional means E[x_0 | x_t] and E[ε | x_t] it is the velocity f x − ½g² ∇log p_t of the probability flow.  The
    second is the mean of the first given x_t.  Therefore the losses towards both differ by a constant, and have the
    same gradient.

    Parameters
    ----------
    x0, noise : (N, D)
        x_0 and ε, or their conditional means given x_t.
    scale_rate, std_rate : float or (N,)
        Derivatives of scale and std with respect to t.

    Raises
    ------
    ValueError
        If noise has another shape than x0, or a rate is neither a number nor one number a row.
    """
    x0, noise = as_arrays("x0 (N, D), noise (N, D)", x0, noise)
    return column(scale_rate, x0, "scale_rate") * x0 + column(std_rate, x0, "std_rate") * noise
