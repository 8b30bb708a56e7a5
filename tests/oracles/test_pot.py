"""POT (Python optimal transport) as an oracle of the metrics."""

import numpy as np
import ot
import pytest

from scratchgen.metrics import frechet_distance, sliced_wasserstein2

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), 0.8 * RNG.standard_normal((13, 4)) + 0.3


def test_sliced_distance_of_the_same_directions():
    directions = RNG.standard_normal((4, 7))
    directions /= np.linalg.norm(directions, axis=0)
    expected = ot.sliced_wasserstein_distance(X, Y, projections=directions) ** 2
    assert sliced_wasserstein2(X, Y, directions=directions.T) == pytest.approx(expected, rel=1e-10)


def test_on_a_line_it_is_the_optimal_transport():
    cost = (X[:, :1] - Y[:, 0]) ** 2
    expected = ot.emd2(np.full(20, 1 / 20), np.full(13, 1 / 13), cost)
    assert sliced_wasserstein2(X[:, :1], Y[:, :1]) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_is_its_distance_of_gaussians():
    moments = X.mean(axis=0), Y.mean(axis=0), np.cov(X.T), np.cov(Y.T)
    expected = ot.gaussian.bures_wasserstein_distance(*moments) ** 2
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-9)
