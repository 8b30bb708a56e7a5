"""Fixed numbers for the checks of the table; random generators that return given numbers or record their draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from scratchgen.likelihood import softmax
from scratchgen.mixture import Mixture
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde.processes import VP
from scratchgen.validation import Array

Functions = Callable[[str], Callable[..., Any]]  # "ddpm.q_sample" → the function to be checked


def waves(*shape: int, shift: float = 0.0) -> Array:
    """Irregular numbers in [−1, 1] without a random generator."""
    return np.sin(1.7 * np.arange(1, 1 + int(np.prod(shape))) ** 1.3 + shift).reshape(shape)


P = softmax(2 * waves(4))  # p(x)
Q = softmax(2 * waves(4, 3, shift=1.0))  # q(z | x)
DECODER = softmax(2 * waves(4, 3, shift=2.0), axis=0)  # p_θ(x | z)
PRIOR = softmax(waves(3, shift=3.0))  # q(z)
JOINT = DECODER * PRIOR
POSTERIOR = JOINT / JOINT.sum(axis=1, keepdims=True)

W, MU, NOISE = 1.2 * waves(4, 3), waves(4, shift=1.0), 0.7  # a linear-Gaussian model
X = 2 * waves(5, 4, shift=2.0)
Q_MEAN, Q_COV = waves(5, 3, shift=3.0), np.array([[0.8, 0.3, 0.1], [0.3, 0.5, -0.2], [0.1, -0.2, 0.6]])
LOG_VARIANCE = waves(5, 3, shift=4.0) - 0.5
SAMPLE_COV = 0.3 * np.eye(4) + np.cov(2 * waves(4, 9), bias=True)

SCHEDULE = NoiseSchedule(np.array([0.02, 0.1, 0.25, 0.4, 0.6]))
SIGMA_SQUARED = np.array([np.nan, 0.05, 0.2, 0.3, 0.5, 0.9])
SLOPES = np.concatenate([[np.nan], 0.6 + 0.3 * waves(5)])
A = np.concatenate([np.full((1, 3, 3), np.nan), 0.5 * np.eye(3) + 0.2 * waves(5, 3, 3)])
B = np.concatenate([np.full((1, 3), np.nan), 0.3 * waves(5, 3, shift=1.0)])
DATA_MEAN, DATA_COV = np.array([0.4, -0.7, 0.2]), np.array([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.4]])
OTHER_COV = np.array([[0.4, -0.1, 0.1], [-0.1, 0.6, 0.0], [0.1, 0.0, 0.3]])
AFFINE = (DATA_MEAN, DATA_COV, A, B, SIGMA_SQUARED)  # Gaussian data under ε̂ = A x + b

PLANE = Mixture(
    np.array([0.3, 0.5, 0.2]),
    np.array([[-1.0, 0.5], [1.0, -0.2], [0.3, 1.4]]),
    np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.4, -0.2], [-0.2, 0.5]], [[0.2, 0.0], [0.0, 0.6]]]),
)
LINE = Mixture(np.array([0.35, 0.65]), np.array([[-1.0], [0.8]]), np.array([[[0.15]], [[0.3]]]))
POINTS = 2 * waves(6, 2, shift=5.0)
SDE = VP(0.3, 4.0, 1.7)  # the horizon 1 would hide a missing factor T


def parameters_of(mixture: Mixture) -> tuple[Array, Array, Array]:
    """Weights, means and covariances."""
    return mixture.weights, mixture.means, mixture.covariances


def gaussian_score(sde: VP, mean: Array, covariance: Array) -> Callable[[Array, float], Array]:
    """∇log p_t of data N(mean, covariance)."""

    def score(x: Array, t: float) -> Array:
        scale, std = sde.level(t)
        V = scale**2 * covariance + std**2 * np.eye(len(mean))
        return -np.linalg.solve(V, (x - scale * mean).T).T

    return score


class GivenNoise(np.random.Generator):
    """A random generator that returns given noise, one array per call."""

    def __init__(self, noise: Array) -> None:
        super().__init__(np.random.PCG64(0))
        self.rows = iter(noise)

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """The next noise; `size` is ignored."""
        return next(self.rows).astype(dtype)


class GivenUniform(np.random.Generator):
    """A random generator whose uniform numbers all equal one number, or are the entries of an array."""

    def __init__(self, u: float | Array) -> None:
        super().__init__(np.random.PCG64(0))
        self.u = u

    def random(self, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The given number, or the given numbers in the shape `size`."""
        return self.u if size is None else np.broadcast_to(self.u, size).copy()

    def integers(self, low: Any, high: Any = None, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        """low, low + 1, …, high − 1, repeated."""
        low, high = (0, low) if high is None else (low, high)
        return low + np.arange(int(np.prod(size))).reshape(size) % (high - low)


class Remembering(np.random.Generator):
    """A random generator with a fixed seed that records its draws by the name of the method."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))
        self.given: dict[str, list[Array]] = {"integers": [], "standard_normal": [], "random": [], "choice": []}

    def _keep(self, name: str, value: Any) -> Any:
        self.given[name].append(np.array(value))
        return value

    def integers(self, *args: Any, **kwargs: Any) -> Any:
        """As NumPy's."""
        return self._keep("integers", super().integers(*args, **kwargs))

    def standard_normal(self, *args: Any, **kwargs: Any) -> Any:
        """As NumPy's."""
        return self._keep("standard_normal", super().standard_normal(*args, **kwargs))

    def random(self, *args: Any, **kwargs: Any) -> Any:
        """As NumPy's."""
        return self._keep("random", super().random(*args, **kwargs))

    def choice(self, *args: Any, **kwargs: Any) -> Any:
        """As in NumPy; the method draws integers internally."""
        n = len(self.given["integers"])
        value = super().choice(*args, **kwargs)
        del self.given["integers"][n:]
        return self._keep("choice", value)
