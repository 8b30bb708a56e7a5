"""EM iterations of a Gaussian mixture, full and diagonal covariances, against scikit-learn, from the same start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.timing import Case
from scratchgen import GaussianMixture, Mixture
from scratchgen.validation import Array

FLOOR = 1e-9  # theirs is added, ours is a least eigenvalue: so small, neither matters here


def data(n: int, dimension: int, n_components: int, thin: float = 1.0) -> tuple[Array, Mixture]:
    """Points of overlapping clusters, and a mixture from which EM still has a way to go.

    Clusters' axes are as 1 to 2 or so in two dimensions and more alike in many, where little tells them apart; `thin`
    makes one axis of each shorter.
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


def precisions(covariance_type: str, start: Mixture) -> Array:
    """Unit precisions in the shape of a type."""
    K, D = start.means.shape
    return {"full": np.tile(np.eye(D), (K, 1, 1)), "tied": np.eye(D), "diag": np.ones((K, D)), "spherical": np.ones(K)}[
        covariance_type
    ]


def given(covariance_type: str, start: Mixture, n_iterations: int) -> dict[str, Any]:
    """What both classes call by the same name."""
    return {
        "n_components": len(start.weights),
        "covariance_type": covariance_type,
        "weights_init": start.weights,
        "means_init": start.means,
        "precisions_init": precisions(covariance_type, start),
        "max_iter": n_iterations,
        "tol": 0.0,
    }


def ours(x: Array, covariance_type: str, start: Mixture, n_iterations: int) -> GaussianMixture:
    """Our fit, stopped after so many M-steps."""
    return GaussianMixture(covariance_floor=FLOOR, **given(covariance_type, start, n_iterations)).fit(x)


def theirs(x: Array, covariance_type: str, start: Mixture, n_iterations: int) -> Any:
    """scikit-learn's."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Theirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = Theirs(reg_covar=FLOOR, init_params="random_from_data", **given(covariance_type, start, n_iterations))
        return model.fit(x)


def case(n: int, dimension: int, n_components: int, covariance_type: str, n_iterations: int) -> Case:
    """The same number of iterations; a fit's own overhead (checks, a first M-step that the start overrides) counts."""
    x, start = data(n, dimension, n_components)
    sides = {"scratchgen": ours} | ({"scikit-learn": theirs} if find_spec("sklearn") else {})

    def check() -> dict[str, float]:
        fits = {side: fit(x[: 20 * n_components * dimension], covariance_type, start, 2) for side, fit in sides.items()}
        mine = fits["scratchgen"]
        return {
            side: max(float(np.abs(a - b).max()) for a, b in ((mine.means_, fit.means_), (mine.weights_, fit.weights_)))
            for side, fit in fits.items()
            if side != "scratchgen"
        }

    works = {side: (lambda fit=fit: fit(x, covariance_type, start, n_iterations)) for side, fit in sides.items()}
    name = f"EM, {covariance_type}, N = {n:,}, D = {dimension}, K = {n_components}"
    return Case(name, works, check, 1e-6, n_iterations, missing=[] if len(sides) > 1 else ["scikit-learn"])


def cases(quick: bool = False) -> Iterator[Case]:
    """Over sizes with full covariances, then the other types."""
    sizes = [(10_000, 2, 10), (10_000, 8, 10), (10_000, 64, 3), (100_000, 2, 10), (100_000, 8, 50), (1_000_000, 2, 3)]
    for n, dimension, n_components in sizes[: 3 if quick else None]:
        yield case(n, dimension, n_components, "full", 20 if n <= 10_000 else 5)
    for covariance_type in ("tied", "diag", "spherical"):
        yield case(10_000, 8, 10, covariance_type, 20)
