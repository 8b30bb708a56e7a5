"""Sufficient statistics of a mixture, (15): they add up over parts of the data; one pass equals two steps.

The form in one pass is compared with `e_step` and `sufficient_statistics` on easy and on hard data, with quadratic
features and with whitened coordinates.
"""

import math
import tracemalloc
from itertools import product

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import GaussianMixture, Mixture
from scratchgen.em import (
    SufficientStatistics,
    e_step,
    m_step,
    m_step_from_statistics,
    starting_mixture,
    statistics_of_labels,
    sufficient_statistics,
)
from scratchgen.fast.em_statistics import (
    BLOCK,
    FAR,
    SAFE,
    UNSEEN,
    _products,
    condition,
    expected_statistics,
    quadratic_sums,
    statistics_of_blocks,
    whitened_sums,
)
from scratchgen.testing import em_problems
from tests.em_helpers import at_floor, every_type
from tests.strategies import residual


def parameters(statistics):
    return statistics.log_counts, statistics.means, statistics.covariances


# --- statistics of parts -----------------------------------------------------------------------------------------


@pytest.mark.equation(15, "em-statistics")
@given(em_problems(), st.integers(1, 12), st.sampled_from([0.0, 2.0**20]))
def test_statistics_add_up_over_parts_of_the_data(problem, cut, offset):
    """For any cut, far from 0, and with components that have responsibility in one part only."""
    x, mixture = problem
    if len(x) == 1:
        x = np.repeat(x, 2, axis=0)
    log_resp, _ = e_step(x, mixture)
    log_resp[: len(x) // 2, 0] = -np.inf  # no responsibility in the first half
    cut, x = min(cut, len(x) - 1), x + offset
    whole = sufficient_statistics(x, log_resp, mixture)
    first, second = (sufficient_statistics(x[part], log_resp[part], mixture) for part in (np.s_[:cut], np.s_[cut:]))
    for total in (first + second, second + first):
        seen = np.isfinite(whole.log_counts)
        assert np.array_equal(np.isfinite(total.log_counts), seen)
        assert residual(total.log_counts[seen], whole.log_counts[seen]) < 1e-12
        assert np.abs(total.means - whole.means)[seen].max(initial=0) < 1e-9 * (1 + 1e-6 * offset)
        assert residual(total.covariances[seen], whole.covariances[seen]) < 1e-9


def test_a_part_without_response_changes_nothing():
    """The means and covariances of such a part have no effect, not even of rounding."""
    some = SufficientStatistics(np.array([1.0]), np.array([[0.1, 0.7]]), np.array([[[0.3, 0.1], [0.1, 0.9]]]))
    none = SufficientStatistics(np.array([-np.inf]), np.array([[1e9, -3.3]]), np.array([np.eye(2)]))
    for total in (some + none, none + some):
        for found, expected in zip(parameters(total), parameters(some), strict=True):
            assert np.array_equal(found, expected)
    assert (none + none).log_counts[0] == -np.inf


@pytest.mark.equation(15, "em-statistics")
def test_counts_that_no_float_can_hold_still_have_a_mean():
    """log q = −5e5: e^−5e5 is 0 in float64; the component still moves, and its weight is the nearest float."""
    x = np.arange(8.0)[:, None] / 4
    log_resp = np.stack([np.zeros(8), -5e5 - 0.37 * np.arange(8.0)], axis=1)
    mixture = Mixture([0.5, 0.5], [[0.0], [1e3]], np.ones((2, 1, 1)))
    statistics = sufficient_statistics(x, log_resp, mixture)
    assert statistics.log_counts[1] == pytest.approx(-5e5 + np.log(np.exp(-0.37 * np.arange(8)).sum()), rel=1e-15)
    halves = [sufficient_statistics(x[part], log_resp[part], mixture) for part in (np.s_[:3], np.s_[3:])]
    for s in (statistics, halves[0] + halves[1]):
        following = m_step_from_statistics(s, mixture)
        assert following.weights.tolist() == [1, 0]
        assert following.means[1, 0] == pytest.approx(np.average(x[:, 0], weights=np.exp(-0.37 * np.arange(8))))


# --- in one pass -------------------------------------------------------------------------------------------------


def assert_equal_to_two_steps(x, mixture, diagonal=False, tolerance=1e-9):
    """A component with an expected count below UNSEEN has the count 0 in the pass over blocks.

    Means and covariances are compared in units of the component's own width, or of the mixture's whole width where that
    is larger (a component far from all data).
    """
    log_resp, log_prob = e_step(x, mixture)
    expected = sufficient_statistics(x, log_resp, mixture)
    found, bound = expected_statistics(x, mixture, diagonal)
    seen = np.isfinite(found.log_counts)
    near = expected.log_counts > np.log(UNSEEN)
    clear = np.abs(expected.log_counts - np.log(UNSEEN)) > 1e-6
    assert np.array_equal(seen[clear], near[clear])
    assert np.array_equal(found.means[~seen], mixture.means[~seen])
    assert np.array_equal(found.covariances[~seen], mixture.covariances[~seen])
    assert np.abs(bound - log_prob.mean()) < tolerance * (1 + np.abs(log_prob).mean())
    scale = np.abs(x - mixture.mean()).max() + np.sqrt(np.trace(mixture.covariances, 0, 1, 2).max())
    keep = np.eye(x.shape[1]) if diagonal else 1.0
    digits = tolerance * (1 + np.abs(log_prob).max())  # a log-likelihood of 1e6 is known to 1e-10 only
    assert np.abs(found.log_counts[seen] - expected.log_counts[seen]).max(initial=0) < 10 * digits
    assert np.abs(found.means - expected.means)[seen].max(initial=0) < digits * scale
    assert np.abs((found.covariances - expected.covariances) * keep)[seen].max(initial=0) < digits * scale**2


HARD = ("plain", "offset 2^10", "far component", "all far", "duplicates", "collinear")


@pytest.mark.equation(16, 18)
@given(
    em_problems(modes=HARD, max_components=6),
    st.sampled_from([1.0, 1e-2, 30.0]),
    st.booleans(),
    st.sampled_from([1.0, 2.0**-20, 2.0**20]),
)
def test_one_pass_is_two_steps_on_easy_and_hard_data(problem, width, ghost, unit):
    """Components that are far, thin, wide, or of weight 0; duplicates, lines, offsets; small and large units."""
    x, mixture = problem
    weights = mixture.weights.copy()
    if ghost and len(weights) > 1:
        weights[-1] = 0.0
        weights /= weights.sum()
    D = x.shape[1]
    shape = width**2 * (np.eye(D) + 0.3 * np.ones((D, D))) / (1 + np.arange(len(weights)))[:, None, None]
    for covariances, diagonal in ((shape, False), (shape * np.eye(D), True), (shape * np.eye(D), False)):
        assert_equal_to_two_steps(unit * x, Mixture(weights, unit * mixture.means, unit**2 * covariances), diagonal)


def overlapping(D, K, n, seed=0):
    """Data, and a mixture that overlaps with them."""
    rng = np.random.default_rng(seed)
    A = 0.4 * rng.standard_normal((K, D, D)) + np.eye(D)
    weights = rng.uniform(1, 2, K)
    return rng.standard_normal((n, D)), Mixture(
        weights / weights.sum(), rng.standard_normal((K, D)), A @ A.swapaxes(1, 2)
    )


@pytest.mark.parametrize(("distance", "seen"), [(20.0, True), (36.0, True), (37.2, False), (38.0, False), (1e3, False)])
@pytest.mark.parametrize("sums", [whitened_sums, quadratic_sums])
def test_a_component_far_away_is_seen_while_its_count_has_digits(distance, seen, sums):
    """At 36 widths the count is e^−648, and the component moves as in `m_step`; at 37.2 it is e^−692, and it stays."""
    mixture = Mixture([0.5, 0.5], [[0.0], [distance]], np.ones((2, 1, 1)))
    x = np.array([[0.0], [0.01]])
    count = float(sums(x, mixture)[0][1, 1, 1])
    statistics = expected_statistics(x, mixture)[0]
    assert np.isfinite(statistics.log_counts).tolist() == [True, seen]
    expected = m_step(x, e_step(x, mixture)[0], mixture)
    if seen:
        assert abs(np.log(count) - np.log(expected.weights[1]) - np.log(2)) < 1e-9
        assert residual(statistics.means, expected.means) < 1e-9
    else:
        assert count < 1e-300
        assert statistics.means[1] == distance


@pytest.mark.equation("em-in-one-pass")
@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize(("D", "K"), [(1, 1), (2, 5), (8, 3), (20, 4), (40, 2)])
def test_one_pass_is_one_step_after_the_other(D, K, offset):
    """To 1e-12 of the spread for data near 0; at a distance of 1e6, to the rounding error of the data."""
    n = 3 * BLOCK // (K * (D + 1)) // 2  # a block and a half
    x, mixture = overlapping(D, K, n)
    x, mixture = x + offset, Mixture(mixture.weights, mixture.means + offset, mixture.covariances)
    log_resp, log_prob = e_step(x, mixture)
    expected = m_step(x, log_resp, mixture)
    statistics, log_likelihood = expected_statistics(x, mixture)
    found = m_step_from_statistics(statistics, mixture)
    tolerance = 1e-12 if offset == 0 else 1e-8
    assert residual(log_likelihood, log_prob.mean()) < tolerance
    assert residual(found.weights, expected.weights) < tolerance
    assert residual(found.means - offset, expected.means - offset) < tolerance
    assert residual(found.covariances, expected.covariances) < tolerance


def test_a_row_with_more_numbers_than_a_block_is_a_block_of_its_own(monkeypatch):
    x, mixture = overlapping(3, 4, 20)
    expected, log_likelihood = expected_statistics(x, mixture)
    monkeypatch.setattr("scratchgen.fast.em_statistics.BLOCK", 1)
    found, again = expected_statistics(x, mixture)
    assert max(residual(again, log_likelihood), residual(found.covariances, expected.covariances)) < 1e-13


def test_certain_labels_are_responsibilities_of_one():
    x, mixture = overlapping(3, 4, 50)
    labels = np.random.default_rng(1).integers(0, 3, 50)  # no point has the last label
    with np.errstate(divide="ignore"):
        log_resp = np.log((labels[:, None] == np.arange(4)).astype(float))
    expected = m_step(x, log_resp, mixture)
    found = m_step_from_statistics(statistics_of_labels(x, labels, mixture), mixture)
    assert residual(found.means, expected.means) < 1e-13
    assert residual(found.covariances, expected.covariances) < 1e-13
    assert found.weights[3] == 0
    assert np.array_equal(found.means[3], mixture.means[3])


def test_means_of_labelled_rows_are_rounded_once_in_every_column():
    """A sum over 30,000 rows near 1e9 is wrong in its last digits, and a column near 0 must not inherit them."""
    rng, mixture = np.random.default_rng(0), Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    x = rng.normal([0.0, 1e9], 1.0, (30_000, 2))
    found = statistics_of_labels(x, np.zeros(30_000, dtype=int), mixture)
    exact = np.array([math.fsum(column) / 30_000 for column in x.T])
    assert np.abs(x.mean(axis=0) - exact)[1] > 10 * np.spacing(1e9)
    assert (np.abs(found.means[0] - exact) <= [1e-15, 4 * np.spacing(1e9)]).all()


@pytest.mark.equation("em-in-one-pass")
def test_memory_does_not_grow_with_the_data():
    """5 MiB for every N: measured 2 to 3."""
    for D, K in (2, 50), (8, 3), (16, 10), (64, 10), (30, 20):
        peaks = []
        for n in 20_000, 100_000:
            x, mixture = overlapping(D, K, n)
            tracemalloc.start()
            expected_statistics(x, mixture)
            peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
            tracemalloc.stop()
        assert max(peaks) < 5
        assert abs(peaks[1] - peaks[0]) < 0.1


def test_memory_of_a_whole_fit_does_not_grow_with_the_data():
    """From a given start, the fit makes neither a copy of the data nor an array of the same length."""
    x, mixture = overlapping(2, 3, 400_000)  # 6 MiB
    precisions = np.linalg.inv(mixture.covariances)
    start = {"weights_init": mixture.weights, "means_init": mixture.means, "precisions_init": precisions}
    tracemalloc.start()
    GaussianMixture(3, max_iter=2, tol=0.0, **start).fit(x)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak < 5
    assert x.nbytes > 5 * 2**20


# --- the two forms of the pass ---------------------------------------------------------------------------------------


def turned(D, K, extent, shortest, seed):
    """A mixture with axes from `shortest` to 1 in every direction and means `extent` apart, and data from it."""
    rng = np.random.default_rng(seed)
    axes = np.exp(rng.uniform(np.log(shortest), 0, (K, D)))
    axes[:, 0] = shortest
    A = np.linalg.qr(rng.standard_normal((K, D, D)))[0] * axes[:, None]
    mixture = Mixture(np.full(K, 1 / K), extent * rng.standard_normal((K, D)), A @ A.swapaxes(1, 2))
    return mixture.sample(1500, rng), mixture


def whitened_deviation(sums, mixture, reference):
    """Mean and covariance from the sums against others, each in units of the component's own width."""
    D = mixture.dimension
    counts = sums[:, D, D]
    shift = sums[:, :D, D] / counts[:, None]
    spread = sums[:, :D, :D] / counts[:, None, None] - shift[:, :, None] * shift[:, None]
    W = np.linalg.inv(np.linalg.cholesky(reference.covariances))
    off = W @ (spread - reference.covariances) @ W.swapaxes(1, 2)
    moved = W @ (mixture.mean() + shift - reference.means)[:, :, None]
    return max(np.abs(off).max(), np.abs(moved).max(), np.abs(counts / np.exp(reference.log_counts) - 1).max())


@pytest.mark.parametrize(
    ("extent", "shortest", "least"),
    [(1.0, 0.5, 1.0), (1.0, 0.05, 10.0), (30.0, 0.5, 1e2), (1.0, 1e-3, 1e4), (1e3, 0.5, 1e5)],
    ids=["easy", "thin", "far", "very thin", "very far"],
)
@pytest.mark.parametrize("D", [1, 2, 8, 30])
def test_quadratic_features_lose_as_many_digits_as_the_condition_says(D, extent, shortest, least, monkeypatch):
    """Against whitened coordinates: the measured error is at most 7e-16 times the condition."""
    monkeypatch.setattr("scratchgen.fast.em_statistics.SAFE", 0.0)
    for seed in range(5):
        x, mixture = turned(D, 4, extent, shortest, seed)
        amplified = condition(mixture)
        assert amplified > least
        reference = expected_statistics(x, mixture)[0]
        deviation = whitened_deviation(quadratic_sums(x, mixture)[0], mixture, reference)
        assert deviation < 1.5e-15 * (amplified + 2)


@pytest.fixture
def taken(monkeypatch):
    """Names of the forms that run, in their order."""
    names = []
    for form in (quadratic_sums, whitened_sums, statistics_of_blocks):
        name = form.__name__
        monkeypatch.setattr(
            f"scratchgen.fast.em_statistics.{name}",
            lambda *arguments, name=name, form=form: (names.append(name), form(*arguments))[1],
        )
    return names


def test_quadratic_features_are_used_only_where_they_are_accurate(taken):
    """Neither thin nor far components lose digits there, and there are fewer features than whitened coordinates."""
    for D, K, extent, shortest in [
        (2, 3, 1.0, 0.5),
        (3, 3, 1.0, 0.5),
        (4, 3, 1.0, 0.5),
        (2, 3, 1.0, 1e-3),
        (2, 3, 1e3, 0.5),
    ]:
        x, mixture = turned(D, K, extent, shortest, 0)
        expected_statistics(x, mixture)
        assert (taken.pop() == "quadratic_sums") == (D < 4 and shortest == 0.5 and extent == 1.0)


@pytest.mark.parametrize(("D", "K"), [(1, 1), (2, 5), (8, 3), (20, 2)])
def test_diagonal_covariances_need_no_mixed_products(D, K):
    x, mixture = overlapping(D, K, 3000)
    mixture = Mixture(mixture.weights, mixture.means, mixture.covariances * np.eye(D))
    whole, total = expected_statistics(x, mixture)
    found, log_likelihood = expected_statistics(x, mixture, diagonal=True)
    assert residual(log_likelihood, total) < 1e-13
    assert residual(found.log_counts, whole.log_counts) < 1e-12
    assert residual(found.means, whole.means) < 1e-12
    assert residual(np.diagonal(found.covariances, 0, 1, 2), np.diagonal(whole.covariances, 0, 1, 2)) < 1e-12
    for covariance_type in "diag", "spherical":
        expected, stepped = (m_step_from_statistics(m, mixture, 0.0, covariance_type) for m in (whole, found))
        assert residual(stepped.covariances, expected.covariances) < 1e-12


def test_diagonal_is_refused_for_full_covariances():
    x, mixture = overlapping(3, 2, 20)
    with pytest.raises(ValueError, match="diagonal must be False"):
        expected_statistics(x, mixture, diagonal=True)


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize(("extent", "quadratic"), [(1.0, True), (10.0, True), (100.0, False), (1e4, False)])
def test_whitened_coordinates_are_used_for_far_components_in_any_units(extent, quadratic, unit, taken):
    """condition < SAFE on both sides of the limit, in all units; beyond it the result is that of the whitened form."""
    x, mixture = turned(2, 4, extent, 0.5, 0)
    assert (condition(mixture) < SAFE) == quadratic
    here = expected_statistics(x, mixture)[0]
    scaled = Mixture(mixture.weights, unit * mixture.means, unit**2 * mixture.covariances)
    there = expected_statistics(unit * x, scaled)[0]
    assert taken == ["quadratic_sums" if quadratic else "whitened_sums"] * 2
    assert residual(there.means / unit, here.means) < 1e-11
    assert residual(there.covariances / unit**2, here.covariances) < 1e-11


def test_float32_rows_far_from_zero_are_summed_in_float64():
    """300,000 rows near 1000: a float32 sum gives a mean of 1008.9."""
    x = (1000 + np.random.default_rng(0).standard_normal((300_000, 2))).astype(np.float32)
    exact_mean, exact = x.mean(axis=0, dtype=np.float64), np.cov(x.T.astype(np.float64), bias=True)
    assert abs(np.add.reduce(x, axis=0) / len(x) - exact_mean).max() > 0.1  # the error of a float32 sum
    mixture = Mixture([1.0], [[999.0, 1001.0]], [np.eye(2)])
    found = [
        expected_statistics(x, mixture)[0],
        sufficient_statistics(x, np.zeros((len(x), 1)), mixture),
        statistics_of_labels(x, np.zeros(len(x), dtype=int), mixture),
    ]
    for statistics in found:
        assert np.abs(statistics.means[0] - exact_mean).max() < 1e-9
        assert np.abs(statistics.covariances[0] - exact).max() < 1e-9


@at_floor
@pytest.mark.parametrize(("kind", "diagonal"), [("diag", True), ("spherical", True), ("full", False), ("tied", False)])
def test_models_of_diagonal_covariances_take_2_d_plus_1_products(kind, diagonal, monkeypatch):
    """Full covariances need (D + 1)(D + 2)/2; the statistics are the same, with fewer products."""
    heights = []
    products = _products
    monkeypatch.setattr(
        "scratchgen.fast.em_statistics._products",
        lambda u, diagonal: (heights.append(len(products(u, diagonal))), products(u, diagonal))[1],
    )
    x, _ = overlapping(4, 8, 200)
    GaussianMixture(8, kind, max_iter=2, covariance_floor=1e-2, rng=0).fit(x)
    assert set(heights) == {9 if diagonal else 15}


# --- components that are far apart, and components that move far -----------------------------------------------------


def exact_step(x, weights, means, variances):
    """log N_k, means and covariances under q, and the mean log-likelihood, for spherical components, in 80 digits."""
    with mpmath.workdps(80):
        rows, centres = ([[mpmath.mpf(float(v)) for v in row] for row in a] for a in (x, means))
        D, moments, total = x.shape[1], [], mpmath.mpf(0)
        q = []
        for row in rows:
            joint = [
                w
                * mpmath.exp(-sum((a - b) ** 2 for a, b in zip(row, m, strict=True)) / (2 * v))
                / (2 * mpmath.pi * v) ** (D / 2)
                for w, m, v in zip(map(mpmath.mpf, weights), centres, map(mpmath.mpf, variances), strict=True)
            ]
            total += mpmath.log(sum(joint))
            q.append([j / sum(joint) for j in joint])
        for k in range(len(weights)):
            count = sum(r[k] for r in q)
            mean = [sum(r[k] * row[d] for r, row in zip(q, rows, strict=True)) / count for d in range(D)]
            moments.append(
                (
                    float(mpmath.log(count)),
                    [float(m) for m in mean],
                    [
                        [
                            float(
                                sum(
                                    r[k] * (row[i] - mean[i]) * (row[j] - mean[j])
                                    for r, row in zip(q, rows, strict=True)
                                )
                                / count
                            )
                            for j in range(D)
                        ]
                        for i in range(D)
                    ],
                )
            )
        return (*(np.array(part) for part in zip(*moments, strict=True)), float(total) / len(x))


def assert_exact(x, weights, means, variances, tolerance=1e-9):
    """`expected_statistics` against 80 digits; errors in units of the standard deviations of every component."""
    mixture = Mixture(weights, means, np.array(variances)[:, None, None] * np.eye(x.shape[1]))
    log_counts, exact_means, exact_covariances, log_likelihood = exact_step(x, weights, means, variances)
    for form, diagonal in ((expected_statistics, False), (expected_statistics, True), (statistics_of_blocks, None)):
        found, bound = form(x, mixture) if diagonal is None else form(x, mixture, diagonal)
        assert abs(bound - log_likelihood) < tolerance * (1 + abs(log_likelihood))
        assert np.abs(found.log_counts - log_counts).max() < tolerance
        std = np.sqrt(np.diagonal(exact_covariances, 0, 1, 2))
        rounding = 4 * np.finfo(float).eps * np.abs(exact_means)
        assert (np.abs(found.means - exact_means) <= tolerance * std + rounding).all()
        off = np.abs(found.covariances - exact_covariances) * (np.eye(x.shape[1]) if diagonal else 1.0)
        assert (off <= tolerance * std[:, :, None] * std[:, None]).all()


@pytest.mark.equation(15)
@pytest.mark.parametrize(("fill", "D"), list(product([1e3, 1e5, 1e6, 1e8, 1e15, 1e20, 1e37, -1e37], [2, 3])))
def test_fill_values_do_not_change_the_variance_of_the_other_rows(fill, D):
    """The mixture's mean is then far from all rows, and a difference from it has no digits of N(0, 1) left."""
    x = np.random.default_rng(0).standard_normal((40, D))
    x[37:, 1] = fill
    assert_exact(x, [0.9, 0.1], np.array([np.zeros(D), fill * np.eye(D)[1]]), [1.0, 2.0])


@pytest.mark.equation(15)
@pytest.mark.parametrize("place", [0.0, 0.005], ids=["in the middle", "nearer to one mean"])
@pytest.mark.parametrize(("away", "variance"), [(1e8, 1e12), (1e8, 1e16), (3e4, 1e8), (1e12, 1e24), (1e5, 1e11)])
def test_a_component_that_moves_far_and_shrinks_has_the_right_covariance(away, variance, place):
    """E yyᵀ − (E y)(E y)ᵀ about the old mean would leave no digits of the new covariance."""
    x = np.random.default_rng(1).standard_normal((30, 2)) + place * away
    assert_exact(x, [0.4, 0.6], [[-away, -away], [away, 0.9 * away]], [variance, 0.9 * variance])


@pytest.mark.parametrize("gap", [3e2, 3e5, 3.1e5, 3.2e5, 1e7])
def test_components_farther_apart_than_whitened_coordinates_allow_are_summed_about_their_own_means(gap, taken):
    x = np.random.default_rng(2).standard_normal((40, 1)) + gap * (np.arange(40) % 2)[:, None]
    mixture = Mixture([0.5, 0.5], [[0.0], [gap]], np.ones((2, 1, 1)))
    expected_statistics(x, mixture)
    assert taken == ["whitened_sums" if condition(mixture) < FAR else "statistics_of_blocks"]
    assert_exact(x, [0.5, 0.5], [[0.0], [gap]], [1.0, 1.0])


def test_constant_columns_are_no_reason_for_the_slow_form(taken):
    """Their variance is 0, and the rounding error of their mean is not a move."""
    x = np.random.default_rng(3).standard_normal((500, 4))
    x[:, 1], x[:, 2] = 0.1, 1e3 / 3
    for kind in ("full", "diag"):
        law = starting_mixture(x, 2, "k-means++", np.random.default_rng(0), 1e-6, kind)
        for _ in range(6):
            statistics, _ = expected_statistics(x, law, diagonal=kind == "diag")
            law = m_step_from_statistics(statistics, law, 1e-6, kind)
    assert len(taken) == 12
    assert "statistics_of_blocks" not in taken


@pytest.mark.equation(15)
@at_floor
@every_type
@pytest.mark.parametrize("fill", [1e15, 1e20, 1e37])
@pytest.mark.parametrize("start", ["given", "k-means++"])
def test_a_model_fitted_to_rows_with_fill_values_has_the_variance_of_the_other_rows(kind, fill, start):
    """297 rows N(0, 1) and 3 rows with a fill value: the exact covariance of the 297 rows, for every type."""
    x = np.random.default_rng(0).standard_normal((300, 2))
    x[297:] = [0.5, fill]  # three equal rows: covariance 0
    means = [[0.0, 0.0], [0.5, fill]] if start == "given" else None
    options = {"means_init": means, "max_iter": 3, "tol": 0.0, "covariance_floor": 1e-6 / x.var(axis=0).max()}
    model = GaussianMixture(2, kind, rng=1, **options).fit(x)
    k = int(model.weights_.argmax())
    plain = np.cov(x[:297].T, bias=True)
    expected = {
        "full": plain,
        "tied": plain * 297 / 300,
        "diag": np.diagonal(plain),
        "spherical": np.trace(plain) / 2,
    }[kind]
    found = model.covariances_ if kind == "tied" else model.covariances_[k]
    assert np.abs(found - expected).max() < 1e-12
    assert np.abs(model.means_[k] - x[:297].mean(axis=0)).max() < 1e-14
    assert model.means_[1 - k].tolist() == [0.5, fill]


@pytest.mark.equation(15, 18)
@every_type
def test_a_start_far_from_all_data_ends_where_a_good_start_ends(kind):
    """Means at ±1e8 with precision 1e-12: the first M-step moves both means to the data, and the bound never falls."""
    x = np.random.default_rng(0).standard_normal((300, 2))
    unit = {"full": np.tile(np.eye(2), (2, 1, 1)), "tied": np.eye(2), "diag": np.ones((2, 2)), "spherical": np.ones(2)}
    start = {"weights_init": [0.5, 0.5], "means_init": [[-1e8, -1e8], [1e8, 1e8]]}
    model = GaussianMixture(2, kind, precisions_init=1e-12 * unit[kind], **start).fit(x)
    assert model.converged_
    assert (np.diff(model.lower_bounds_) >= 0).all()
    one = GaussianMixture(1, kind).fit(x)  # both components are the same
    assert abs(model.score(x) - one.score(x)) < 1e-4


def test_averages_over_no_rows_are_refused():
    mixture = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    with pytest.raises(ValueError, match="x must have at least one row"):
        expected_statistics(np.zeros((0, 2)), mixture)
