"""(15)-(18) for mixtures: steps against formulas, monotonicity, stationarity, hard data, starts.

A monotone likelihood alone does not find mixing weights that never change, because this is still a generalised EM.
Therefore the M-steps are also compared with their formulas.  Every maximum is tested: no small move of the result of an
M-step, within its covariance type, may raise the objective.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import GaussianMixture, Mixture
from scratchgen import conformance as c
from scratchgen.em import (
    COVARIANCE_TYPES,
    SufficientStatistics,
    clusters,
    covariance_maximum,
    e_step,
    em,
    floor_eigenvalues,
    floored_mixture,
    free_energy,
    kmeans,
    kmeans_plus_plus,
    log_covariance_prior,
    m_step,
    m_step_from_statistics,
    m_step_table,
    nearest,
    starting_mixture,
)
from scratchgen.likelihood import softmax
from scratchgen.models.gaussian_mixture import compress, expand
from scratchgen.testing import cut, em_problems, reals, size, tables
from scratchgen.validation import constant_columns
from tests.em_helpers import at_floor, blobs, every_type, rise, three_blobs
from tests.strategies import FALSE_ALARM, holds, residual

FLOOR = 1e-3


PRIORS = [None, (0.7, 3.0)]


# --- the two steps ----------------------------------------------------------------------------------------------


@pytest.mark.equation(16, 17, 18)
@given(em_problems())
def test_posterior_is_the_best_q(problem):
    """(16)-(18): any other q loses exactly KL(q‖posterior) of free energy, the gap of the bound (7)."""
    x, mixture = problem
    log_resp, log_prob = e_step(x, mixture)
    q = softmax(np.sin(np.arange(log_resp.size)).reshape(log_resp.shape))
    gap = log_prob - free_energy(x, np.log(q), mixture)
    assert residual(gap, (q * (np.log(q) - log_resp)).sum(axis=1)) < 1e-9
    assert np.all(gap >= -1e-9 * (1 + np.abs(log_prob)))


@pytest.mark.equation(15, "em")
@given(em_problems(modes=("plain",)))
def test_m_step_is_weighted_moments(problem):
    """(15): π = mean of r, m = Σ r x/Σ r, C = Σ r (x − m)(x − m)ᵀ/Σ r, and then the floor."""
    x, mixture = problem
    r = mixture.posterior(x)
    following = m_step(x, np.log(r), mixture, FLOOR)
    assert residual(following.weights, r.mean(axis=0)) < 1e-12
    for k in range(len(mixture.weights)):
        mean = np.average(x, axis=0, weights=r[:, k])
        covariance = np.cov(x.T, bias=True, aweights=r[:, k]).reshape(x.shape[1], -1)
        values, vectors = np.linalg.eigh(covariance)
        assert residual(following.means[k], mean) < 1e-10
        raised = vectors @ np.diag(np.maximum(values, FLOOR)) @ vectors.T
        assert residual(following.covariances[k], raised) < 1e-9


@pytest.mark.equation(15)
@given(em_problems(), st.sampled_from([2.0**10, 2.0**20]))
def test_m_step_moves_with_the_data(problem, offset):
    """With the responsibilities of the unshifted problem; data on a grid make the shift exact."""
    x, mixture = problem
    log_resp, _ = e_step(x, mixture)
    here, there = (m_step(y, log_resp, mixture, FLOOR) for y in (x, x + offset))
    occupied = np.isfinite(log_resp).any(axis=0)
    assert residual(there.weights, here.weights) < 1e-12
    assert residual((there.means - offset)[occupied], here.means[occupied]) < 1e-6
    assert residual(there.covariances, here.covariances) < 1e-6


@pytest.mark.equation(15)
def test_weights_within_a_far_component_sum_to_one():
    """The exp of a difference of logarithms near -5e5 has a relative error of 1e-10, which an offset shows."""
    x = np.arange(8.0)[:, None] / 4
    log_resp = np.stack([np.zeros(8), -5e5 - 0.37 * np.arange(8.0)], axis=1)
    start = Mixture([0.5, 0.5], [[0.0], [1e3]], np.ones((2, 1, 1)))
    weights = softmax(log_resp[:, 1])
    following = m_step(x + 2.0**20, log_resp, start, FLOOR)
    assert abs(following.means[1, 0] - 2.0**20 - weights @ x[:, 0]) < 1e-8
    assert following.covariances[1, 0, 0] == pytest.approx(np.cov(x[:, 0], bias=True, aweights=weights), rel=1e-13)


@pytest.mark.equation(17)
def test_free_energy_of_impossible_components_is_finite_only_at_q_0():
    """0 log 0 = 0: q = 0 adds nothing where the weight is 0; q > 0 gives −∞; neither warns."""
    x = np.array([[0.0], [100.0]])
    alone = Mixture([1.0, 0.0], [[0.0], [100.0]], np.ones((2, 1, 1)))
    log_resp, log_prob = e_step(x, alone)
    assert residual(free_energy(x, log_resp, alone), log_prob) < 1e-15
    assert residual(free_energy(x, np.array([[0.0, -np.inf]] * 2), alone), log_prob) < 1e-15
    underflows = np.array([[0.0, -5000.0]])
    assert residual(free_energy(x[:1], underflows, alone), log_prob[:1]) < 1e-15
    assert free_energy(x, np.log(np.full((2, 2), 0.5)), alone).tolist() == [-np.inf, -np.inf]


class Poisoned:
    """A law whose `log_joint` leaves freed memory full of NaN, which NumPy gives to the next arrays of this size."""

    def log_joint(self, x):
        poison = [np.full((2, 3), np.nan) for _ in range(4)]
        del poison
        return np.zeros((2, 3))


@pytest.mark.equation(17)
def test_free_energy_reads_no_memory_that_was_not_written():
    log_resp = np.array([[0.0, -np.inf, -np.inf]] * 2)
    assert free_energy(np.zeros((2, 1)), log_resp, Poisoned()).tolist() == [0.0, 0.0]


def plain_em(x, weights, means, covariances, n_iterations):
    """EM as in textbooks, without logarithms, for easy data."""
    for _ in range(n_iterations):
        parts = zip(weights, means, covariances, strict=True)
        density = np.stack([w * stats.multivariate_normal.pdf(x, m, C) for w, m, C in parts], axis=1)
        r = density / density.sum(axis=1, keepdims=True)
        weights = r.mean(axis=0)
        means = [np.average(x, axis=0, weights=column) for column in r.T]
        covariances = [np.cov(x.T, bias=True, aweights=column) for column in r.T]
    return weights, np.array(means), np.array(covariances)


@pytest.mark.equation(15, 18, "em")
def test_ten_iterations_are_the_textbooks():
    x = three_blobs()
    start = np.array([0.2, 0.3, 0.5]), x[:3], np.tile(np.eye(2), (3, 1, 1))
    names = "weights_init", "means_init", "precisions_init"
    model = GaussianMixture(3, tol=0, max_iter=10, **dict(zip(names, start, strict=True))).fit(x)
    weights, means, covariances = plain_em(x, *start, 10)
    assert residual(model.weights_, weights) < 1e-10
    assert residual(model.means_, means) < 1e-10
    assert residual(model.covariances_, covariances) < 1e-10


# --- the covariance floor ---------------------------------------------------------------------------------------


@given(st.integers(1, 4).flatmap(lambda D: reals((D, D), -1, 1)), st.sampled_from([1e-6, 0.1, 10.0]))
def test_floor_raises_small_eigenvalues_and_only_those(A, floor):
    covariance = A @ A.T
    raised = floor_eigenvalues(covariance, floor)
    assert np.array_equal(raised, raised.T)
    assert residual(np.linalg.eigvalsh(raised), np.maximum(np.linalg.eigvalsh(covariance), floor)) < 1e-12
    assert residual(raised @ covariance, covariance @ raised) < 1e-12  # same eigenvectors
    if np.linalg.eigvalsh(covariance)[0] >= floor:
        assert residual(raised, covariance) < 1e-15


def test_rounded_covariances_become_symmetric_to_the_bit():
    crooked = np.array([[[1.0, 0.5], [0.5 + 1e-12, 2.0]], [[1.0, 1.0], [1.0 + 1e-12, 1.0]]])
    for covariances in (crooked[:1], crooked):  # above the floor, and below
        found = floor_eigenvalues(covariances, 1e-3)
        assert np.array_equal(found, found.swapaxes(1, 2))
        assert residual(found[0], crooked[0]) < 1e-12


def ridge_em(x, mixture, ridge, n_iterations):
    """The usual reg_covar: ridge · I is added to every covariance after the M-step."""
    values = []
    for _ in range(n_iterations):
        log_resp, log_prob = e_step(x, mixture)
        values.append(log_prob.mean())
        following = m_step(x, log_resp, mixture, 1e-9)
        covariances = following.covariances + ridge * np.eye(x.shape[1])
        mixture = Mixture(following.weights, following.means, covariances)
    return values


def floor_em(x, mixture, floor, n_iterations):
    values = []
    for _ in range(n_iterations):
        log_resp, log_prob = e_step(x, mixture)
        values.append(log_prob.mean())
        mixture = m_step(x, log_resp, mixture, floor)
    return values


@pytest.mark.equation(15, 18)
def test_floor_keeps_em_monotone_where_an_additive_ridge_does_not():
    """N = 12, K = 3, ε = 0.1: with the ridge the likelihood falls in most runs, with the floor in none."""
    falls = 0
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((12, 1))
        start = Mixture(np.full(3, 1 / 3), x[:3], np.ones((3, 1, 1)))
        falls += rise(ridge_em(x, start, 0.1, 30)) < -1e-6
        assert rise(floor_em(x, start, 0.1, 30)) > -1e-12
    assert falls >= 8


# --- covariance types -------------------------------------------------------------------------------------------


@st.composite
def spreads(draw):
    K, D = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    A, counts = cut(draw(reals(size((K, D, D), (K,)), -1, 1)), (K, D, D), (K,))
    return A @ A.swapaxes(1, 2) + 0.01 * np.eye(D), 1 + 10 * np.abs(counts)


def objective(covariances, spread, counts, kind, prior):
    """−½ Σ N_k (log|Σ_k| + tr Σ_k⁻¹ S_k) plus the log prior: the objective of an M-step over Σ."""
    value = sum(
        -0.5 * n * (np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S)))
        for n, C, S in zip(counts, covariances, spread, strict=True)
    )
    if prior is not None:
        value += log_covariance_prior(covariances[:1] if kind == "tied" else covariances, prior)
    return value


@pytest.mark.equation(15, "covariance-types")
@given(
    spreads(), st.sampled_from(COVARIANCE_TYPES), st.sampled_from(PRIORS), st.sampled_from([0.0, 0.3]), reals(27, -1, 1)
)
def test_covariance_maximum_is_one_within_its_type_and_above_the_floor(problem, kind, prior, floor, u):
    """Every feasible move of 1 % lowers the objective, or changes nothing."""
    spread, counts = problem
    K, D, _ = spread.shape
    best = covariance_maximum(spread, counts, kind, floor, prior)
    assert np.linalg.eigvalsh(best).min() >= floor - 1e-12
    assert residual(expand(compress(best, kind), kind, K, D), best) < 1e-15
    top = objective(best, spread, counts, kind, prior)
    directions = u.reshape(3, 3, 3)[:K, :D, :D]
    for step in (0.01, -0.01):
        moved = compress(best + step * (directions + directions.swapaxes(1, 2)), kind)
        moved = expand(moved, kind, K, D)
        values, vectors = np.linalg.eigh(moved)
        feasible = (vectors * np.maximum(values, max(floor, 1e-9))[:, None]) @ vectors.swapaxes(1, 2)
        if kind in ("diag", "spherical"):
            feasible = expand(compress(feasible, kind), kind, K, D)
        assert objective(feasible, spread, counts, kind, prior) <= top + 1e-10 * (1 + abs(top))


@pytest.mark.equation(15, 18)
@given(em_problems(), st.sampled_from(COVARIANCE_TYPES), st.sampled_from(PRIORS))
def test_em_of_every_type_is_monotone_on_easy_and_hard_data(problem, kind, prior):
    """All four types, with and without the prior: log-likelihood + log prior never falls, also in half-steps."""
    x, mixture = problem

    def log_prior(m):
        if prior is None:
            return 0.0
        return log_covariance_prior(m.covariances[:1] if kind == "tied" else m.covariances, prior)

    values = []
    for _ in range(6):
        log_resp, log_prob = e_step(x, mixture)
        values.append(log_prob.sum() + log_prior(mixture))
        mixture = m_step(x, log_resp, mixture, 1e-3, kind, prior)
        half = free_energy(x, log_resp, mixture).sum() + log_prior(mixture)
        assert half >= values[-1] - 1e-9 * (1 + abs(values[-1]))
    assert np.isfinite(values).all()
    assert np.all(np.diff(values) >= -1e-9 * (1 + np.abs(values[1:])))


@pytest.mark.equation(15)
@pytest.mark.parametrize("prior", PRIORS)
@every_type
def test_a_component_without_responsibility_keeps_its_parameters_for_every_type(kind, prior):
    """Its mean and covariance stay, at weight 0; a tied covariance belongs to all components."""
    x, covariances = blobs(20), np.array([1.0, 2.0])[:, None, None] * np.eye(3)
    mixture = Mixture([0.5, 0.5], [[0.0] * 3, [7.0] * 3], covariances)
    log_resp = np.stack([np.zeros(20), np.full(20, -np.inf)], axis=1)
    after = m_step(x, log_resp, mixture, 1e-6, kind, prior)
    alone = m_step(x, log_resp[:, :1], Mixture([1.0], [[0.0] * 3], covariances[:1]), 1e-6, kind, prior)
    assert np.array_equal(after.weights, [1, 0])
    assert np.array_equal(after.means[1], [7.0] * 3)
    assert residual(after.covariances[0], alone.covariances[0]) < 1e-14
    assert residual(after.covariances[1], alone.covariances[0] if kind == "tied" else covariances[1]) < 1e-14


def test_the_defaults_of_a_step_are_full_covariances_and_no_floor():
    x = blobs(30)
    x[:, 2] = 1e-4 * x[:, 0] + 1e-3 * x[:, 1]
    mixture = Mixture([1.0], [[0.0] * 3], [np.eye(3)])
    S = np.cov(x.T, bias=True)[None]
    assert residual(covariance_maximum(S, np.array([30.0])), S) < 1e-15
    noisy = x + 1e-5 * np.random.default_rng(0).standard_normal(x.shape)
    after = m_step(noisy, np.zeros((30, 1)), mixture)
    assert residual(after.covariances[0], np.cov(noisy.T, bias=True)) < 1e-14
    with pytest.raises(ValueError, match=r"^covariance_floor 0 is lost to rounding"):
        m_step(np.ones((4, 3)), np.zeros((4, 1)), mixture)


def test_a_floor_is_lost_below_64_times_the_rounding_of_the_largest_eigenvalue():
    """64 ε is accepted and the float below it refused; the remedy is 1e-9 of the largest eigenvalue."""
    least = 64 * np.finfo(np.float64).eps
    singular = np.diag([1.0, 0.0])
    assert residual(floor_eigenvalues(singular, least), np.diag([1.0, least])) < 1e-15
    with pytest.raises(ValueError, match=r"raise covariance_floor to 3e-09 or more"):
        floor_eigenvalues(3 * singular, 3 * least * (1 - 1e-15))


def test_an_unseen_component_keeps_its_mean_whatever_the_statistics_hold():
    mixture = Mixture([0.5, 0.5], [[1.0, 2.0], [3.0, 4.0]], [np.eye(2)] * 2)
    statistics = SufficientStatistics(np.array([0.0, -np.inf]), np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    assert m_step_from_statistics(statistics, mixture).means.tolist() == [[0.0, 0.0], [3.0, 4.0]]


# --- k-means ----------------------------------------------------------------------------------------------------


def seeding_law(x, power):
    """Exact probabilities of (first, second, third) row: first uniform, each next ∝ distance^power."""
    law = {}
    for rows in itertools.permutations(range(len(x)), 3):
        p = 1 / len(x)
        for chosen in (rows[:1], rows[:2]):
            distance = np.abs(x - x[list(chosen)].T).min(axis=1) ** power
            p *= distance[rows[len(chosen)]] / distance.sum()
        law[rows] = p
    return law


def test_kmeans_plus_plus_draws_rows_by_squared_distance():
    """Chi-square over all 24 outcomes; the same counts reject draws by plain distances."""
    x = np.array([[0.0], [1.0], [2.5], [4.0]])
    rng, n = np.random.default_rng(0), 3000
    counts = dict.fromkeys(seeding_law(x, 2), 0)
    for _ in range(n):
        counts[tuple(np.searchsorted(x[:, 0], kmeans_plus_plus(x, 3, rng)[:, 0]).tolist())] += 1

    def p_value(power):
        expected = n * np.array(list(seeding_law(x, power).values()))
        return stats.chisquare(list(counts.values()), expected).pvalue

    assert min(seeding_law(x, 2).values()) * n > 5
    assert p_value(2) > FALSE_ALARM
    assert p_value(1) < FALSE_ALARM


def test_kmeans_plus_plus_chooses_the_same_rows_in_any_units():
    x = three_blobs()
    for scale in 2.0**-40, 2.0**40:
        rows, scaled = (kmeans_plus_plus(y, 4, np.random.default_rng(0)) for y in (x, scale * x))
        assert np.array_equal(scaled, scale * rows)


def test_kmeans_plus_plus_never_takes_a_point_twice_while_others_are_left():
    x = np.repeat(np.arange(4.0)[:, None], 5, axis=0)
    for seed in range(20):
        centres = kmeans_plus_plus(x, 4, np.random.default_rng(seed))
        assert sorted(centres[:, 0]) == [0, 1, 2, 3]
    assert kmeans_plus_plus(np.ones((3, 2)), 3, np.random.default_rng(0)).tolist() == [[1, 1]] * 3


@pytest.mark.equation("k-means")
@given(em_problems(modes=("plain", "duplicates")))
def test_kmeans_ends_where_no_point_and_no_centre_moves(problem):
    x, mixture = problem
    centres = kmeans(x, mixture.means)
    labels = clusters(x, centres)
    assert len(np.unique(labels)) == min(len(x), len(centres))
    for k in np.unique(labels):
        assert residual(centres[k], x[labels == k].mean(axis=0)) < 1e-12

    def cost(c):
        return ((x[:, None] - c) ** 2).sum(axis=2).min(axis=1).sum()

    assert cost(centres) <= cost(mixture.means) + 1e-9


def test_kmeans_empties_no_cluster_and_keeps_its_input():
    """A centre without points gets the point that is farthest from its own centre."""
    x, start = np.array([[0.0], [1.0]]), np.array([[0.4], [9.0]])
    assert np.array_equal(kmeans(x, start), [[0.0], [1.0]])
    assert np.array_equal(start, [[0.4], [9.0]])
    assert np.array_equal(kmeans(x, np.array([[0.1], [0.9]]), max_iter=1), [[0.0], [1.0]])
    x = np.array([[0.0], [1.0], [5.0], [6.2], [6.5]])
    assert clusters(x, np.array([[0.5], [5.5], [90.0]])).tolist() == [0, 0, 1, 1, 2]
    assert np.array_equal(kmeans(x, np.array([[0.5], [5.5], [90.0]])), [[0.5], [5.0], [6.35]])


@given(em_problems(modes=("plain", "duplicates", "far component", "all far")))
def test_every_centre_gets_a_point_while_there_are_enough(problem):
    """The other points stay with their nearest centre."""
    x, mixture = problem
    K = len(mixture.means)
    labels, closest = clusters(x, mixture.means), nearest(x, mixture.means)
    sizes = np.bincount(labels, minlength=K)
    n_empty = K - len(np.unique(closest))
    assert (sizes > 0).sum() == min(len(x), K)
    assert (labels != closest).sum() == min(n_empty, len(x) - (K - n_empty))


def test_kmeans_sums_float32_rows_in_float64():
    """300,000 rows near 1000: the mean from a float32 sum has an error of 0.8; the centre has none."""
    x = (1000 + np.random.default_rng(0).standard_normal((300_000, 2))).astype(np.float32)
    assert np.abs(kmeans(x, x[:1])[0] - x.mean(axis=0, dtype=np.float64)).max() < 1e-4


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8])
def test_kmeans_of_ints_has_the_centres_of_floats(dtype):
    """Int centres would lose their fractions, and squares of small ints would overflow."""
    x = np.array([[0, 1], [1, 0], [120, 100], [121, 103], [60, 3], [61, 5]], dtype=dtype)
    expected = kmeans(x.astype(float), x[[0, 2, 4]].astype(float))
    assert expected.tolist() == [[0.5, 0.5], [120.5, 101.5], [60.5, 4.0]]
    assert np.array_equal(kmeans(x, x[[0, 2, 4]]), expected)
    twice = x[[0, 0, 2, 4]]  # an empty cluster gets the farthest point
    assert np.array_equal(clusters(x, twice), clusters(x.astype(float), twice.astype(float)))
    seeds = [kmeans_plus_plus(rows, 3, np.random.default_rng(0)) for rows in (x, x.astype(float))]
    assert np.array_equal(*seeds)
    assert seeds[0].dtype == np.float64


def test_equal_rows_are_shared_among_all_centres():
    x = np.repeat([[1.0, 2.0]], 5, axis=0)
    assert sorted(np.bincount(clusters(x, x[:3]), minlength=3)) == [1, 1, 3]
    assert np.array_equal(kmeans(x, x[:3]), x[:3])
    for start in ("random_from_data", "k-means++", "kmeans"):
        assert starting_mixture(x, 3, start, np.random.default_rng(0), 1e-6).weights.min() > 0


# --- the loop -----------------------------------------------------------------------------------------------


@pytest.mark.equation(15, 18, "em-loop")
def test_the_loop_alternates_the_two_steps():
    """θ, E-step and bound of every iterate; each M-step gets the E-step of the previous θ."""
    calls = []

    def step_e(theta):
        calls.append(("E", theta))
        return f"q{theta}", np.array([theta - 1.0, theta + 1.0])

    def step_m(q, theta):
        calls.append(("M", q, theta))
        return theta + 1

    iterates = [(t, q, list(bounds), done) for t, q, bounds, done in em(0, step_e, step_m, tol=0.0, max_iter=2)]
    assert iterates == [
        (0, "q0", [0.0], False),
        (1, "q1", [0.0, 1.0], False),
        (2, "q2", [0.0, 1.0, 2.0], False),
    ]
    assert calls == [("E", 0), ("M", "q0", 0), ("E", 1), ("M", "q1", 1), ("E", 2)]


@pytest.mark.parametrize(("tol", "n"), [(0.0, 6), (0.3, 3), (0.5, 3), (0.51, 2), (2.0, 2)])
def test_the_loop_ends_when_the_bound_gains_less_than_the_tolerance(tol, n):
    """Gains of 1/2, 1/4, 1/8, ...: a gain of exactly `tol` continues; a start alone has not converged."""
    run = list(em(0, lambda t: (None, 1 - 0.5**t), lambda _, t: t + 1, tol=tol, max_iter=5))
    assert len(run) == n
    assert [iterate.converged for iterate in run] == [False] * (n - 1) + [tol > 0]
    assert [iterate.theta for iterate in em(7, lambda t: (None, t), lambda _, t: t + 1, max_iter=0)] == [7]


@pytest.mark.parametrize("split", range(6))
@pytest.mark.parametrize(("tol", "max_iter"), [(0.0, 5), (0.04, 7), (0.0, 0)])
def test_a_run_goes_on_from_an_iterate_and_the_bounds_before_it(split, tol, max_iter):
    """The second run starts with the E-step of that iterate, and ends where one run would have ended."""

    def run(start=0, bounds=()):
        loop = em(start, lambda t: (t, 1 - 0.5**t), lambda q, t: t + 1, tol, max_iter, lambda t: 0.25, bounds=bounds)
        return [(theta, q, list(bounds), done) for theta, q, bounds, done in loop]

    whole = run()
    theta, _, bounds, _ = whole[min(split, len(whole) - 1)]
    given = tuple(bounds[:-1])
    assert run(theta, given) == whole[min(split, len(whole) - 1) :]
    assert given == tuple(bounds[:-1])  # the loop appends to a list of its own


def test_the_loop_has_100_m_steps_and_no_tolerance_by_default():
    assert len(list(em(0, lambda t: (None, 0.5 * t), lambda _, t: t + 1))) == 101
    run = list(em(0, lambda t: (None, min(t, 3) * 1e-9), lambda _, t: t + 1))
    assert len(run) == 101


@pytest.mark.equation("em-loop")
def test_a_bound_that_falls_is_not_convergence():
    """The bounds 0, 2, 1.9, 1.9: the loop goes on after the fall, and ends at the gain of 0."""
    bounds = [0.0, 2.0, 1.9, 1.9, 5.0]
    run = list(em(0, lambda t: (None, bounds[t]), lambda _, t: t + 1, tol=0.5, max_iter=4))
    assert [iterate.converged for iterate in run] == [False, False, False, True]
    for fall, expected in (1.0, [False] * 5), (1e-11, [False] * 5), (1e-14, [False, True]):  # 1e-14 is rounding
        falling = list(em(0, lambda t, fall=fall: (None, 1 - fall * t), lambda _, t: t + 1, tol=0.5, max_iter=4))
        assert [iterate.converged for iterate in falling] == expected


@pytest.mark.parametrize(("level", "fall", "rounding"), [(-1e6, 1e-7, True), (0.0, 1.5e-12, False), (0.0, 5e-13, True)])
def test_the_rounding_of_a_bound_grows_with_its_size(level, fall, rounding):
    run = list(em(0, lambda t: (None, level - fall * t), lambda _, t: t + 1, tol=0.5, max_iter=1))
    assert run[1].converged == rounding


def test_the_loop_adds_the_prior_to_the_bound():
    run = list(
        em(1.0, lambda t: (None, np.array([t, 3 * t])), lambda _, t: 2 * t, max_iter=2, log_prior=lambda t: -t / 2)
    )
    assert run[-1].bounds == [1.5, 3.0, 6.0]


@pytest.mark.equation(15, 16, 18)
@at_floor
@given(em_problems())
def test_the_loop_of_the_model_equals_the_loop_over_e_step_and_m_step(problem):
    """GaussianMixture runs the fast form; e_step and m_step give the same bounds and the same mixture."""
    x, mixture = problem
    if len(x) < len(mixture.weights):
        x = np.repeat(x, 4, axis=0)
    if len(constant_columns(x)):
        return
    floor = FLOOR * x.var(axis=0)
    start = floored_mixture(mixture.weights, mixture.means, mixture.covariances, floor)
    *_, last = em(start, lambda m: e_step(x, m), lambda q, m: m_step(x, q, m, floor), max_iter=4)
    start = {"weights_init": mixture.weights, "means_init": mixture.means}
    model = GaussianMixture(len(mixture.weights), covariance_floor=FLOOR, max_iter=4, tol=0, **start)
    model.set_params(precisions_init=np.linalg.inv(mixture.covariances)).fit(x)
    n = min(len(last.bounds), len(model.lower_bounds_))
    assert residual(model.lower_bounds_[:n], np.array(last.bounds)[:n]) < 1e-6


@pytest.mark.equation(15)
def test_free_m_step_of_an_unused_z_is_the_data_law():
    """p_θ(x | z) of this z is free; the other z are unchanged, and nothing is NaN."""
    p_x, q = np.array([0.2, 0.3, 0.5]), np.array([[0.4, 0.0, 0.6], [1.0, 0.0, 0.0], [0.5, 0.0, 0.5]])
    decoder, aggregate = m_step_table(p_x, q)
    assert aggregate == pytest.approx([0.63, 0.0, 0.37])
    assert np.array_equal(decoder[:, 1], p_x)
    assert residual(decoder.sum(axis=0), np.ones(3)) < 1e-15
    assert residual(decoder[:, 0], np.array([0.08, 0.3, 0.25]) / 0.63) < 1e-15


# --- the checks that any implementation can be put to ---------------------------------------------------


@pytest.mark.equation(15)
@given(tables())
def test_free_m_step_of_tables_is_the_maximiser(table):
    """After the step the joint KL is KL(q(z)‖prior), with the aggregate posterior q(z)."""
    holds(c.check_free_m_step(m_step_table, table.p, table.q, table.prior))


def em_step(x, weights, means, covariances):
    mixture = m_step(x, e_step(x, Mixture(weights, means, covariances))[0], Mixture(weights, means, covariances), 1e-3)
    return mixture.weights, mixture.means, mixture.covariances


@pytest.mark.equation(15, 17, 18, "em")
@given(em_problems())
def test_em_on_easy_and_hard_data_maximises_and_never_lowers_the_likelihood(problem):
    """A step is the constrained maximiser, six steps never lower the likelihood, and nothing overflows."""
    x, m = problem
    holds(c.check_em(em_step, x, m.weights, m.means, m.covariances, floor=1e-3, n_iterations=6))


@pytest.mark.equation(16, 17, 18)
@given(em_problems(modes=("plain", "offset 2^10", "duplicates", "collinear")))
def test_e_step_is_bayes_rule_and_the_free_energy_is_tight_there(problem):
    """Bayes' rule; and the free energy, which is log p_θ(x) at the posterior."""
    x, m = problem
    parameters = m.weights, m.means, m.covariances
    holds(c.check_e_step(lambda x, *p: np.exp(e_step(x, Mixture(*p))[0]), x, *parameters))
    log_resp = np.log(softmax(np.sin(np.arange(x.shape[0] * len(m.weights)).reshape(len(x), -1))))
    holds(c.check_free_energy(lambda x, r, *p: free_energy(x, r, Mixture(*p)), x, log_resp, *parameters))
