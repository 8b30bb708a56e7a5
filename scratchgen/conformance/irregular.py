"""Fixed numbers and points for checks that need them, without a random generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.mixture import Mixture
from scratchgen.quadrature import central_difference
from scratchgen.validation import Array

WIDTH, WIDTH_SINGLE = 0.005, 0.1  # step of differences in units of the smallest std, for float64 and float32


def irregular(*shape: int, shift: float = 0.0) -> Array:
    """Irregular numbers in [−1, 1]."""
    return np.sin(1.7 * np.arange(1, 1 + int(np.prod(shape))) ** 1.3 + shift).reshape(shape)


def spread_points(law: Mixture, n: int) -> Array:
    """n points, (n, D): up to 1.5 standard deviations about the mean of a law, and the last two 12 of them away."""
    reach = np.append(np.full(n - 2, 1.5), [12.0, -12.0])
    unit = np.sqrt(np.diagonal(law.covariance()))
    return law.mean() + unit * reach[:, None] * np.where(np.arange(n) < n - 2, 1.0, 0.5)[:, None] * irregular(
        n, law.dimension, shift=1.0
    )


def smallest_std(law: Mixture) -> float:
    """The smallest standard deviation of a component in any direction."""
    return float(np.sqrt(np.linalg.eigvalsh(law.covariances).min()))


def jacobian(f: Callable[[Array], Array], x: Array, law: Mixture, single: bool | None = None) -> Array:
    """Jacobian [n, d, e] = ∂f_d/∂x_e, (N, D, D), of f at x by central differences of eighth order.

    Differences of sixth order with the steps h and 2 h are extrapolated, so that the error of order h⁶ cancels.  With
    `single` h is the step for float32; if `single` is None, the result of f decides.
    """
    single = np.asarray(f(x)).dtype == np.float32 if single is None else single
    width = smallest_std(law) * (WIDTH_SINGLE if single else WIDTH)

    def slopes(v: Array, h: float) -> Array:
        return np.asarray(central_difference(lambda u: np.asarray(f(x + u * v), dtype=np.float64), h))

    columns = [(64 * slopes(v, width) - slopes(v, 2 * width)) / 63 for v in np.eye(x.shape[1])]
    return np.stack(columns, axis=-1)
