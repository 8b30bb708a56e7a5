"""The denoiser's form of a score model (Karras et al. 2022, EDM): noise levels σ, preconditioning, score.

The variable is y = x_t/scale = x_0 + σ ε with σ = std/scale.  A denoiser D(y, σ) approximates E[x_0 | y].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scratchgen.validation import (
    Array,
    ArrayLike,
    as_arrays,
    as_count,
    as_finite,
    as_number,
    as_real,
    check_positive,
    column,
)


class EDMCoefficients(NamedTuple):
    """D(y, σ) = c_skip y + c_out F(c_in y) for a network F, and the weight of ‖D − x_0‖²; each of the shape of σ."""

    c_skip: Array
    c_out: Array
    c_in: Array
    weight: Array


def edm_coefficients(sigma: ArrayLike, data_std: float = 0.5) -> EDMCoefficients:
    """Preconditioning of a denoiser (Karras et al. 2022, table 1).

        c_skip = s²/(σ² + s²),   c_out = σ s/√(σ² + s²),   c_in = 1/√(σ² + s²),   weight = 1/c_out²

    For data of variance s² the input of F has variance 1, and so has its target (x_0 − c_skip y)/c_out.  F = 0 is exact
    for N(0, s²).  With the weight every level counts alike: weight ‖D − x_0‖² = ‖F − target‖².  For s = 1 the target is
    −v.

    Parameters
    ----------
    sigma : float or array
        σ = std/scale, positive.
    data_std : float
        s, the standard deviation of one coordinate of the data; 0.5 is the value of Karras et al. for images in
        [−1, 1].

    Returns
    -------
    coefficients : EDMCoefficients
        In the dtype of sigma.

    Raises
    ------
    TypeError, ValueError
        If data_std or an element of sigma is not a positive finite number.

    Examples
    --------
    >>> c = edm_coefficients(0.5)
    >>> round(float(c.c_skip), 6), round(float(c.c_in), 6), round(float(c.weight), 6)
    (0.5, 1.414214, 8.0)
    """
    s, sigma = as_number(data_std, "data_std", low=0.0, open_low=True), as_finite(sigma, "sigma")
    if not (sigma > 0).all():
        raise ValueError(f"sigma must be positive, got {sigma}; the denoiser at σ = 0 is y itself")
    total = np.hypot(sigma, sigma.dtype.type(s))
    c_out = sigma * s / total
    return EDMCoefficients((s / total) ** 2, c_out, 1 / total, 1 / c_out**2)


def edm_sigmas(n_levels: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Array:
    """Noise levels from sigma_max down to sigma_min, (n_levels,), evenly spaced in σ^(1/ρ) (Karras et al. 2022, (5)).

    A sampler appends σ = 0 as its last level.  For large ρ the levels are evenly spaced in log σ; ρ = 7 puts more of
    them at small σ than even steps would.

    Parameters
    ----------
    n_levels : int
        At least 2.
    sigma_min, sigma_max : float
        In the units of the data; the defaults are those of Karras et al.
    rho : float
        ρ, at least 0.1, so that σ^(1/ρ) stays in range.

    Raises
    ------
    TypeError, ValueError
        If n_levels is below 2, rho is below 0.1, a σ is outside [1e-30, 1e30], or sigma_max is not above sigma_min.
    """
    n_levels, rho = as_count(n_levels, "n_levels", minimum=2), as_number(rho, "rho", low=0.1)
    low = as_number(sigma_min, "sigma_min", low=1e-30)
    high = as_number(sigma_max, "sigma_max", low=low, high=1e30, open_low=True)
    return np.linspace(high ** (1 / rho), low ** (1 / rho), n_levels) ** rho


def denoiser_to_score(x_t: Array, x0_hat: Array, scale: ArrayLike, std: ArrayLike) -> Array:
    """The score (scale · x̂_0 − x_t)/std², (N, D), of a denoiser's x̂_0 at x_t: Tweedie's formula (Efron 2011).

    In EDM's units, scale = 1 and std = σ, it is (D − y)/σ².

    Parameters
    ----------
    x_t, x0_hat : (N, D)
        x_t, and the denoiser's value at it.
    scale, std : float or (N,)
        Coefficients of x_t = scale · x_0 + std · ε.

    Raises
    ------
    ValueError
        If x0_hat has another shape than x_t, or std is not positive.
    """
    x_t, x0_hat = as_arrays("x_t (N, D), x0_hat (N, D)", x_t, x0_hat)
    check_positive(std, "std", "there is no score of a point mass")
    variance = as_real(std, "std") ** 2
    check_positive(variance, "std²", "it under- or overflows; use other units")
    return (column(scale, x_t, "scale") * x0_hat - x_t) / column(variance, x_t, "std")
