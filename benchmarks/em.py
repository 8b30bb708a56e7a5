"""EM iterations of a Gaussian mixture with all four types of covariances, against scikit-learn, from the same start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import Case
from scratchgen import GaussianMixture, Mixture
from scratchgen.validation import Array

FLOOR = 1e-30  # our floor, in variances of the columns; scikit-learn would add it to every variance, so there it is 0


def data(n: int, dimension: int, n_components: int, thin: float = 1.0) -> tuple[Array, Mixture]:
    """Points of overlapping clusters, and a mixture that is far from convergence.

    The axes of a cluster have a ratio of about 1 to 2 in two dimensions, and are more alike in many dimensions.  `thin`
    shortens one axis of every cluster.
    """
    rng, apart = np.random.default_rng(0), (2 / dimension) ** 0.5
    rotations = np.linalg.qr(rng.standard_normal((n_components, dimension, dimension)))[0]
    axes = 0.5 * np.exp(0.5 * apart * rng.uniform(-1, 1, (n_components, dimension)))
    axes[:, 0] *= thin
    A = rotations * axes[:, None]
    means = 2 * apart * rng.standard_normal((n_components, dimension))
    truth = Mixture(np.full(n_components, 1 / n_components), means, A @ A.swapaxes(1, 2))
    start = Mixture(truth.weights, means + 0.3 * apart, np.tile(np.eye(dimension), (n_components, 1, 1)))
    return truth.sample(n, 0), start


def given(covariance_type: str, start: Mixture, n_iterations: int, covariances: Array | None = None) -> dict[str, Any]:
    """Arguments that both classes call by the same name; the covariances are 1 unless given."""
    K, D = start.means.shape
    unit = {"full": np.tile(np.eye(D), (K, 1, 1)), "tied": np.eye(D), "diag": np.ones((K, D)), "spherical": np.ones(K)}
    return {
        "n_components": K,
        "covariance_type": covariance_type,
        "weights_init": start.weights,
        "means_init": start.means,
        "precisions_init": unit[covariance_type] if covariances is None else np.linalg.inv(covariances),
        "max_iter": n_iterations,
        "tol": 0.0,
    }


def ours(x: Array, *start: Any) -> GaussianMixture:
    """Our fit, stopped after a given number of M-steps; arguments as for `given`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "EM has not converged", RuntimeWarning)
        return GaussianMixture(covariance_floor=FLOOR, **given(*start)).fit(x)


def theirs(x: Array, *start: Any) -> Any:
    """scikit-learn's."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Theirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Theirs(reg_covar=0.0, init_params="random_from_data", **given(*start)).fit(x)


class Size(NamedTuple):
    """One fit."""

    n: int
    dimension: int
    n_components: int
    n_iterations: int
    covariance_type: str = "full"
    thin: float = 1.0

    @property
    def name(self) -> str:
        kind = self.covariance_type + (f" ({self.thin:g} thin)" if self.thin != 1 else "")
        return f"EM, {kind}, N = {self.n:,}, D = {self.dimension}, K = {self.n_components}"


SIZES = [
    Size(1_000, 2, 3, 20),
    Size(10_000, 2, 10, 20),
    Size(100_000, 2, 3, 10),
    Size(100_000, 2, 50, 3),
    Size(1_000_000, 2, 10, 3),
    Size(10_000, 8, 10, 20),
    Size(100_000, 8, 10, 5),
    Size(100_000, 8, 50, 3),
    Size(100_000, 8, 3, 5),
    Size(10_000, 64, 3, 5),
    Size(10_000, 64, 10, 5),
    Size(10_000, 64, 50, 5),
    Size(10_000, 2, 10, 5, thin=0.01),
    Size(10_000, 8, 10, 5, thin=0.01),
    *(Size(10_000, 8, 10, 10, kind) for kind in ("tied", "diag", "spherical")),
    *(Size(100_000, 2, 10, 5, kind) for kind in ("tied", "diag", "spherical")),
]
QUICK = [Size(10_000, 2, 10, 5), Size(10_000, 8, 10, 5), Size(10_000, 64, 3, 3), Size(10_000, 8, 10, 5, "diag")]


def deviation(ours: GaussianMixture, theirs: Any) -> float:
    """The largest difference between the parameters of two fits."""
    names = ("weights_", "means_", "covariances_")
    return max(float(np.abs(getattr(ours, name) - getattr(theirs, name)).max()) for name in names)


def case(size: Size) -> Case:
    """The same number of iterations on both sides, with the checks of a fit and the E-step after the last M-step."""
    x, start = data(size.n, size.dimension, size.n_components, size.thin)
    fits = {"scratchgen": ours} | ({"scikit-learn": theirs} if find_spec("sklearn") else {})

    def fit(side: str, x: Array, n_iterations: int) -> Any:
        model = fits[side](x, size.covariance_type, start, n_iterations)
        if model.n_iter_ != n_iterations:
            raise AssertionError(f"{size.name}: {side} stopped after {model.n_iter_} of {n_iterations} iterations")
        return model

    def check() -> dict[str, float]:
        few = x[: 20 * size.n_components * size.dimension]
        mine, *others = (fit(side, few, 2) for side in fits)
        return {"scikit-learn": deviation(mine, other) for other in others}  # noqa: B035 (none or one)

    works = {side: (lambda side=side: lambda: fit(side, x, size.n_iterations)) for side in fits}
    missing = [] if len(fits) > 1 else ["scikit-learn"]
    return Case(size.name, works, check, 1e-10, size.n_iterations, missing=missing)


def cases(quick: bool = False) -> Iterator[Case]:
    """Sizes with full covariances, thin clusters, then the other types."""
    yield from map(case, QUICK if quick else SIZES)
