"""Both steps of EM in one pass: equal to one after the other, monotone where they are, in memory that does not grow."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given

from scratchgen import GaussianMixture, Mixture
from scratchgen import conformance as c
from scratchgen.em import e_step, expected_moments, m_step, maximum, moments_of_labels
from scratchgen.em.moments import BLOCK, condition, quadratic_sums, whitened_sums
from scratchgen.testing import em_problems
from tests.strategies import residual


def in_one_pass(x, weights, means, covariances):
    """A step of EM; of components that are not seen, which stay where they are, as `m_step` has it."""
    mixture = Mixture(weights, means, covariances)
    moments = expected_moments(x, mixture)[0]
    stepped, other = maximum(moments, mixture, 1e-3), m_step(x, e_step(x, mixture)[0], mixture, 1e-3)
    seen = moments.seen
    assert np.array_equal(stepped.means[~seen], means[~seen])
    assert np.array_equal(stepped.covariances[~seen], covariances[~seen])
    assert (stepped.weights[~seen] < 1e-289).all()
    spread = np.where(seen[:, None, None], stepped.covariances, other.covariances)
    return stepped.weights, np.where(seen[:, None], stepped.means, other.means), spread


@given(em_problems(modes=("plain", "offset 2^10", "all far", "duplicates", "collinear")))
def test_one_pass_is_em_on_easy_and_hard_data(problem):
    """1e-7 and not 1e-9, because a component of width 0.03 may start many widths from the data, where they cancel."""
    x, m = problem
    check = c.check_em(in_one_pass, x, m.weights, m.means, m.covariances, floor=1e-3, n_iterations=6).at(1e-7)
    assert check.passed, check


def overlapping(D, K, n, seed=0):
    """Data, and a mixture in whose reach they are."""
    rng = np.random.default_rng(seed)
    A = 0.4 * rng.standard_normal((K, D, D)) + np.eye(D)
    weights = rng.uniform(1, 2, K)
    return rng.standard_normal((n, D)), Mixture(
        weights / weights.sum(), rng.standard_normal((K, D)), A @ A.swapaxes(1, 2)
    )


@pytest.mark.parametrize(("distance", "seen"), [(20.0, True), (36.0, True), (37.2, False), (38.0, False), (1e3, False)])
@pytest.mark.parametrize("sums", [whitened_sums, quadratic_sums])
def test_a_component_far_away_is_seen_while_its_count_has_digits(distance, seen, sums):
    """At 36 widths it is e^−648, and moves as `m_step` has it; at 37.2 it is e^−692, and stays."""
    mixture = Mixture([0.5, 0.5], [[0.0], [distance]], np.ones((2, 1, 1)))
    x = np.array([[0.0], [0.01]])
    count = float(sums(x, mixture)[0][1, 1, 1])
    moments = expected_moments(x, mixture)[0]
    assert moments.seen.tolist() == [True, seen]
    expected = m_step(x, e_step(x, mixture)[0], mixture)
    if seen:
        assert abs(np.log(count) - np.log(expected.weights[1]) - np.log(2)) < 1e-9
        assert residual(moments.means, expected.means) < 1e-9
    else:
        assert count < 1e-300
        assert moments.means[1] == distance


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize(("D", "K"), [(1, 1), (2, 5), (8, 3), (20, 4), (40, 2)])
def test_one_pass_is_one_step_after_the_other(D, K, offset):
    """To 1e-12 of the spread where the data are about 0, and to what their own rounding leaves 1e6 away from it."""
    n = 3 * BLOCK // (K * (D + 1)) // 2  # a block and a half
    x, mixture = overlapping(D, K, n)
    x, mixture = x + offset, Mixture(mixture.weights, mixture.means + offset, mixture.covariances)
    log_resp, log_prob = e_step(x, mixture)
    expected = m_step(x, log_resp, mixture)
    moments, log_likelihood = expected_moments(x, mixture)
    found = maximum(moments, mixture)
    tolerance = 1e-12 if offset == 0 else 1e-8
    assert residual(log_likelihood / n, log_prob.mean()) < tolerance
    assert residual(found.weights, expected.weights) < tolerance
    assert residual(found.means - offset, expected.means - offset) < tolerance
    assert residual(found.covariances, expected.covariances) < tolerance


def test_certain_labels_are_responsibilities_of_one():
    x, mixture = overlapping(3, 4, 50)
    labels = np.random.default_rng(1).integers(0, 3, 50)  # nobody has the last
    with np.errstate(divide="ignore"):
        log_resp = np.log((labels[:, None] == np.arange(4)).astype(float))
    expected, found = m_step(x, log_resp, mixture), maximum(moments_of_labels(x, labels, mixture), mixture)
    assert residual(found.means, expected.means) < 1e-13
    assert residual(found.covariances, expected.covariances) < 1e-13
    assert found.weights[3] == 0
    assert np.array_equal(found.means[3], mixture.means[3])


def test_memory_does_not_grow_with_the_data():
    """PERFORMANCE's 5 MiB, at any N: measured 2 to 3."""
    for D, K in (2, 50), (8, 3), (16, 10), (64, 10), (30, 20):
        peaks = []
        for n in 20_000, 100_000:
            x, mixture = overlapping(D, K, n)
            tracemalloc.start()
            expected_moments(x, mixture)
            peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
            tracemalloc.stop()
        assert max(peaks) < 5
        assert abs(peaks[1] - peaks[0]) < 0.1


def test_a_whole_fit_needs_no_more():
    """Given a start, the fit takes neither a copy of the data nor an array as long as they are."""
    x, mixture = overlapping(2, 3, 400_000)  # 6 MiB
    precisions = np.linalg.inv(mixture.covariances)
    start = {"weights_init": mixture.weights, "means_init": mixture.means, "precisions_init": precisions}
    tracemalloc.start()
    GaussianMixture(3, max_iter=2, tol=0.0, **start).fit(x)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak < 5
    assert x.nbytes > 5 * 2**20


# --- the two ways of it ----------------------------------------------------------------------------------------------


def turned(D, K, extent, shortest, seed):
    """A mixture with axes from `shortest` to 1 in every direction and means `extent` apart, and data from it."""
    rng = np.random.default_rng(seed)
    axes = np.exp(rng.uniform(np.log(shortest), 0, (K, D)))
    axes[:, 0] = shortest
    A = np.linalg.qr(rng.standard_normal((K, D, D)))[0] * axes[:, None]
    mixture = Mixture(np.full(K, 1 / K), extent * rng.standard_normal((K, D)), A @ A.swapaxes(1, 2))
    return mixture.sample(1500, rng), mixture


def whitened_deviation(sums, mixture, reference):
    """Mean and covariance that the sums say, against others, each in units of the component's own width."""
    D = mixture.dimension
    counts = sums[:, D, D]
    shift = sums[:, :D, D] / counts[:, None]
    spread = sums[:, :D, :D] / counts[:, None, None] - shift[:, :, None] * shift[:, None]
    W = np.linalg.inv(np.linalg.cholesky(reference.spread))
    off = W @ (spread - reference.spread) @ W.swapaxes(1, 2)
    moved = W @ (mixture.mean() + shift - reference.means)[:, :, None]
    return max(np.abs(off).max(), np.abs(moved).max(), np.abs(counts / reference.counts - 1).max())


@pytest.mark.parametrize(
    ("extent", "shortest", "least"),
    [(1.0, 0.5, 1.0), (1.0, 0.05, 10.0), (30.0, 0.5, 1e2), (1.0, 1e-3, 1e4), (1e3, 0.5, 1e5)],
    ids=["easy", "thin", "far", "very thin", "very far"],
)
@pytest.mark.parametrize("D", [1, 2, 8, 30])
def test_quadratic_features_lose_as_many_digits_as_the_condition_says(D, extent, shortest, least, monkeypatch):
    """Against whitened coordinates: measured, at most 7e-16 times the condition."""
    monkeypatch.setattr("scratchgen.em.moments.SAFE", 0.0)
    for seed in range(5):
        x, mixture = turned(D, 4, extent, shortest, seed)
        amplified = condition(mixture)
        assert amplified > least
        reference = expected_moments(x, mixture)[0]
        deviation = whitened_deviation(quadratic_sums(x, mixture)[0], mixture, reference)
        assert deviation < 1.5e-15 * (amplified + 2)


def test_the_faster_way_is_only_taken_where_it_is_safe(monkeypatch):
    """Where neither thin nor far components cost digits, and features are fewer than whitened coordinates."""
    taken = []
    for name, way in (("quadratic_sums", quadratic_sums), ("whitened_sums", whitened_sums)):
        monkeypatch.setattr(
            f"scratchgen.em.moments.{name}",
            lambda *arguments, name=name, way=way: (taken.append(name), way(*arguments))[1],
        )
    for D, K, extent, shortest in [
        (2, 3, 1.0, 0.5),
        (3, 3, 1.0, 0.5),
        (4, 3, 1.0, 0.5),
        (2, 3, 1.0, 1e-3),
        (2, 3, 1e3, 0.5),
    ]:
        x, mixture = turned(D, K, extent, shortest, 0)
        expected_moments(x, mixture)
        assert (taken.pop() == "quadratic_sums") == (D < 4 and shortest == 0.5 and extent == 1.0)


@pytest.mark.parametrize(("D", "K"), [(1, 1), (2, 5), (8, 3), (20, 2)])
def test_diagonal_covariances_need_no_mixed_products(D, K):
    x, mixture = overlapping(D, K, 3000)
    mixture = Mixture(mixture.weights, mixture.means, mixture.covariances * np.eye(D))
    whole, total = expected_moments(x, mixture)
    found, log_likelihood = expected_moments(x, mixture, diagonal=True)
    assert residual(log_likelihood, total) < 1e-13
    assert residual(found.counts, whole.counts) < 1e-12
    assert residual(found.means, whole.means) < 1e-12
    assert residual(np.diagonal(found.spread, 0, 1, 2), np.diagonal(whole.spread, 0, 1, 2)) < 1e-12
    for covariance_type in "diag", "spherical":
        expected, stepped = (maximum(m, mixture, 0.0, covariance_type) for m in (whole, found))
        assert residual(stepped.covariances, expected.covariances) < 1e-12


def test_diagonal_is_refused_where_it_is_not_so():
    x, mixture = overlapping(3, 2, 20)
    with pytest.raises(ValueError, match="diagonal must be False"):
        expected_moments(x, mixture, diagonal=True)
