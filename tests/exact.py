"""Diffusion models with the exact predictor of a known distribution in place of the trained network.

Expectations of the bounds are then sums over nodes, which a scripted Generator supplies.  Samplers of Gaussian data are
affine in their noise, so that one call at 0 and at unit vectors gives the exact mean and covariance.
"""

import numpy as np
from scipy import stats

from scratchgen import Mixture
from tests.strategies import Scripted

LOG_2PI = np.log(2 * np.pi)


class ExactNoise:
    """(1 + error) E[ε | x_t] = −(1 + error) std ∇log p_t(x_t) for data of a known distribution, as a network."""

    def __init__(self, law, error=0.0):
        self.law, self.factor = law, 1 + error

    def __call__(self, x, scale, std, *_, **__):
        if np.ndim(scale) == 0:
            return -self.factor * std * self.law.diffuse(scale, std).score(x)
        answer = np.empty(x.shape)
        for level in set(zip(scale.tolist(), std.tolist(), strict=True)):
            rows = (scale == level[0]) & (std == level[1])
            answer[rows] = self(x[rows], *level)
        return answer

    def vjp(self, x, scale, std, *_, **__):
        jacobian = -self.factor * std * self.law.diffuse(scale, std).score_jacobian(x)
        return self(x, scale, std), lambda grad, inputs: np.einsum("nd,nde->ne", grad, jacobian)


def in_units_of(model, law):
    """A mixture in data units as one in units of the model, which has a scale for every column."""
    scales = np.outer(model.scale_, model.scale_)
    return Mixture(law.weights, model.to_model(law.means), law.covariances / scales)


def exact(model, law, error=0.0):
    """The model as if it had learnt `law`, which is in data units; and the law in units of the model."""
    for _ in zip(range(1), model.train(law.sample(50, rng=0)), strict=False):
        pass
    inner = in_units_of(model, law)
    model.network_ = ExactNoise(inner, error)
    return model, inner


def gaussian(mean, covariance):
    return Mixture([1.0], np.array([mean], dtype=float), np.array([covariance], dtype=float))


GAUSSIAN = gaussian([1.0, -2.0], [[4.0, 1.5], [1.5, 1.0]])
BIMODAL = Mixture([0.3, 0.7], [[-1.0], [0.6]], [[[0.1]], [[0.05]]])  # 1-D
CLUSTERS = Mixture(
    [0.5, 0.2, 0.3], [[0.0, 2.0], [-2.0, -1.0], [2.0, -1.0]], np.array([0.1, 0.2, 0.05])[:, None, None] * np.eye(2)
)


def multistep_moments(levels, law, c, extrapolates=True):
    """Mean and covariance of E[x_0 | x] at the end of multistep steps along levels (scale, std) for Gaussian data.

    The start is N(0, std² I) of the first level.  The state is (x, last x̂_0), which moves linearly; the steps are those
    of Lu et al. (2022), algorithm 2, with r = h_last/h, and of their stochastic form.
    """
    D, C, m = law.dimension, law.covariance(), law.mean()
    one, nil = np.eye(D), np.zeros((D, D))
    mean, V = np.zeros(2 * D), np.zeros((2 * D, 2 * D))
    V[:D, :D] = levels[0][1] ** 2 * one
    h_last = np.inf if extrapolates else None
    for i, (a, s) in enumerate(levels):
        K = a * C @ np.linalg.inv(a**2 * C + s**2 * one)  # x̂_0 = K x + k
        k = m - a * K @ m
        if i == len(levels) - 1:
            return K @ mean[:D] + k, K @ V[:D, :D] @ K.T
        b, u = levels[i + 1]
        h = np.log(b / u) - np.log(a / s)
        now, before = (1.0, 0.0) if h_last is None else (1 + h / (2 * h_last), h / (2 * h_last))
        gain = b * (1 - np.exp(-(1 + c**2) * h))
        A = np.block([[u / s * np.exp(-(c**2) * h) * one + gain * now * K, -gain * before * one], [K, nil]])
        mean = A @ mean + np.concatenate([gain * now * k, k])
        V = A @ V @ A.T
        V[:D, :D] += u**2 * (1 - np.exp(-2 * c**2 * h)) * one
        h_last = h if extrapolates else None
    raise AssertionError


def sigma_rows(law):
    """Points and noises, all pairs of sigma points: means over the rows are E_p E_ε of any quadratic function."""
    D = law.dimension
    unit = D**0.5 * np.vstack([np.eye(D), -np.eye(D)])
    points = law.mean() + unit @ np.linalg.cholesky(law.covariance()).T
    return np.repeat(points, 2 * D, axis=0), np.tile(unit, (2 * D, 1))


def grid_rows(law):
    """Points, noises and weights of a product rule for E_p E_ε of smooth functions, in one dimension."""
    points, weights = law.quadrature()
    weights = weights * np.exp(law.log_prob(points))
    noise = np.linspace(-8, 8, 65)
    noise_weights = stats.norm.pdf(noise) * (noise[1] - noise[0])
    rows = np.repeat(points, len(noise), axis=0), np.tile(noise[:, None], (len(points), 1))
    return *rows, np.outer(weights, noise_weights).ravel()


def affine(rng_shapes, sample):
    """Mean and Jacobian of a sampler that is affine in its normal numbers, arrays of `rng_shapes` = (calls, D)."""
    calls, D = rng_shapes
    units = np.vstack([np.zeros(calls * D), np.eye(calls * D)]).reshape(-1, calls, D)
    rng = Scripted(lambda i, shape: units[:, i])
    draws = sample(len(units), rng).astype(np.float64)
    assert rng.calls == calls
    return draws[0], (draws[1:] - draws[0]).T
