"""Distances between laws against closed forms: Gaussians, shifts, quantiles, and sums over all ways to split a pool."""

from itertools import combinations

import numpy as np
import pytest

from scratchgen.metrics import frechet_distance, median_bandwidth, mmd2, sliced_wasserstein2
from scratchgen.metrics.distances import distance_blocks, nearest_distances, neighbour_radii
from scratchgen.quadrature import gauss_hermite

RNG = np.random.default_rng(0)


def with_moments(mean, covariance, n, rng):
    """Rows, (n, D), whose mean and covariance are exactly these."""
    x = rng.standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(np.atleast_2d(np.cov(x.T))), x.T).T
    return np.asarray(mean) + white @ np.linalg.cholesky(covariance).T


def spd(D, rng):
    a = rng.standard_normal((D, D))
    return a @ a.T + 0.1 * np.eye(D)


def splits(pool, n):
    """All ways to split the rows of a pool into n and the rest."""
    for chosen in combinations(range(len(pool)), n):
        rest = [i for i in range(len(pool)) if i not in chosen]
        yield pool[list(chosen)], pool[rest]


# --- Fréchet distance ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [1, 2, 5])
def test_frechet_distance_of_gaussians_with_known_moments(D):
    """Against ‖m_x − m_y‖² + tr C_x + tr C_y − 2 Σ √eigenvalues(C_x C_y), another route to the trace of the root."""
    rng = np.random.default_rng(D)
    m, c, other_m, other_c = rng.standard_normal(D), spd(D, rng), rng.standard_normal(D), spd(D, rng)
    x, y = with_moments(m, c, 40, rng), with_moments(other_m, other_c, 25, rng)
    root = np.sqrt(np.linalg.eigvals(c @ other_c).real).sum()
    expected = ((m - other_m) ** 2).sum() + np.trace(c) + np.trace(other_c) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_covariances_that_commute_is_that_of_the_standard_deviations():
    s, r, m = np.array([2.0, 0.5, 1e-9]), np.array([1.0, 3.0, 1e-8]), np.array([0.3, -1.0, 2.0])
    x, y = with_moments(np.zeros(3), np.diag(s**2), 30, RNG), with_moments(m, np.diag(r**2), 20, RNG)
    assert frechet_distance(x, y) == pytest.approx((m**2).sum() + ((s - r) ** 2).sum(), rel=1e-10)


def test_frechet_distance_keeps_its_digits_for_equal_and_singular_laws():
    x = RNG.standard_normal((6, 9)) * 1e4  # fewer rows than columns, so that the covariance is singular
    assert frechet_distance(x, x[::-1]) < 1e-14
    assert frechet_distance(x, x + 1e-3) == pytest.approx(9e-6, rel=1e-6)
    assert frechet_distance(x, np.zeros((2, 9))) == pytest.approx(
        (x.mean(axis=0) ** 2).sum() + x.var(axis=0, ddof=1).sum()
    )


# --- MMD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [0.7, None])
def test_mmd2_of_one_law_is_0_on_average(bandwidth):
    """Rows of one law are exchangeable: the average over all ways to split any pool of rows is 0."""
    pool = RNG.standard_normal((6, 2))
    values = [mmd2(x, y, bandwidth) for x, y in splits(pool, 2)]
    assert abs(np.mean(values)) < 1e-15
    assert np.std(values) > 0.01


def test_the_biased_estimate_is_not():
    """The twin: with the terms i = j the average is positive."""
    pool = RNG.standard_normal((6, 2))
    kernel = lambda x, y: np.exp(-((x[:, None] - y) ** 2).sum(axis=-1) / 2)  # noqa: E731
    values = [kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean() for x, y in splits(pool, 2)]
    assert np.mean(values) > 0.01


def test_mmd2_has_the_mean_of_the_closed_form_of_gaussians():
    """E k(a, b) = (h²/(h² + v))^{D/2} exp(−‖m‖²/2(h² + v)) with a − b ~ N(m, v I); here by Gauss-Hermite, exactly.

    The mean of the estimate over pairs of two rows is E k(x, x') + E k(y, y') − 2 E k(x, y).
    """
    h, s, r, m = 1.3, 0.8, 0.5, 0.9
    nodes, weights = gauss_hermite(12, 1)
    nodes, n = nodes[:, 0], len(nodes)
    total, batch = 0.0, weights[:, None] * weights
    for i in range(n):  # E over x, x', y, y' of mmd2([x, x'], [y, y']), which is a sum of terms of pairs
        for j in range(n):
            total += batch[i, j] * mmd2([[s * nodes[i]], [s * nodes[j]]], [[m + r * nodes[i]], [m + r * nodes[j]]], h)
    pair = lambda v, shift: (h**2 / (h**2 + v)) ** 0.5 * np.exp(-(shift**2) / (2 * (h**2 + v)))  # noqa: E731
    # the cross term pairs x with y at equal nodes (difference m + (r − s) z) and at different ones
    cross = 0.5 * pair((r - s) ** 2, m) + 0.5 * pair(r**2 + s**2, m)
    assert total == pytest.approx(pair(2 * s**2, 0) + pair(2 * r**2, 0) - 2 * cross, abs=1e-6)


def test_the_bandwidth_is_the_median_distance_or_the_mean():
    assert median_bandwidth([[0.0], [1.0]], [[3.0]]) == 2.0  # distances 1, 2, 3
    assert median_bandwidth([[0.0], [0.0], [0.0]], [[0.0], [1.0]]) == 0.4  # 4 of 10 distances are 1
    with pytest.raises(ValueError, match="x and y must have different rows"):
        mmd2(np.ones((3, 2)), np.ones((2, 2)))
    many = np.arange(3000.0)[:, None]
    assert median_bandwidth(many, many) == pytest.approx(3000 * (1 - 0.5**0.5), rel=2e-3)


# --- sliced W₂ --------------------------------------------------------------------------------------------------------


def test_a_shift_gives_its_square_over_the_dimension():
    x, c = RNG.standard_normal((20, 3)), np.array([1.0, -2.0, 0.5])
    basis = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
    assert sliced_wasserstein2(x, x + c, directions=7 * basis) == pytest.approx(c @ c / 3, rel=1e-12)
    assert sliced_wasserstein2(x, (x + c)[::-1], 4000, rng=0) == pytest.approx(c @ c / 3, rel=0.1)


@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 3), (6, 4), (1, 4)])
def test_on_a_line_it_is_the_integral_over_quantiles_for_any_numbers_of_rows(n, m):
    """Repetition of rows, n m of each, does not change a law; equal numbers of rows pair in their order."""
    x, y = RNG.standard_normal((n, 1)), RNG.standard_normal((m, 1))
    a, b = np.sort(np.repeat(x[:, 0], m)), np.sort(np.repeat(y[:, 0], n))
    assert sliced_wasserstein2(x, y, 3, rng=0) == pytest.approx(((a - b) ** 2).mean(), rel=1e-12)


def test_it_is_the_least_cost_over_all_couplings():
    from scipy.optimize import linear_sum_assignment

    x, y, theta = RNG.standard_normal((6, 2)), RNG.standard_normal((6, 2)), np.array([[0.6, 0.8], [1.0, 0.0]])
    costs = [((x @ t)[:, None] - y @ t) ** 2 for t in theta]
    least = np.mean([cost[linear_sum_assignment(cost)].mean() for cost in costs])
    assert sliced_wasserstein2(x, y, directions=theta) == pytest.approx(least, rel=1e-12)


def test_directions_are_vectors_and_draws_are_reproducible():
    x, y = RNG.standard_normal((6, 2)), RNG.standard_normal((4, 2))
    assert sliced_wasserstein2(x, y, 5, rng=3) == sliced_wasserstein2(x, y, 5, rng=3)
    for wrong in [[[0.0, 0.0]], np.empty((0, 2))]:
        with pytest.raises(ValueError, match="directions must be one or more vectors"):
            sliced_wasserstein2(x, y, directions=wrong)


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_blocks_give_the_numbers_of_one_block(monkeypatch):
    x, y = RNG.standard_normal((50, 2)), RNG.standard_normal((30, 2))
    whole = [mmd2(x, y), sliced_wasserstein2(x, y, rng=0), *nearest_distances(x, y), *neighbour_radii(x, 3)]
    monkeypatch.setattr("scratchgen.blocks.BLOCK", 100)
    assert len(list(distance_blocks(x, y))) == 17
    parts = [mmd2(x, y), sliced_wasserstein2(x, y, rng=0), *nearest_distances(x, y), *neighbour_radii(x, 3)]
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_two_sets_have_the_same_columns():
    with pytest.raises(ValueError, match=r"^y must have the 2 columns of x, got 3; pass rows"):
        frechet_distance(np.ones((4, 2)), np.ones((4, 3)))
