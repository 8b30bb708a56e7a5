"""EM for mixtures and PPCA, (15)-(18): steps against formulas, monotony, stationarity, hard data, estimators.

Monotony alone cannot see weights that are never updated, or σ² computed with the old W (both are still
generalised EM), so that the M-steps are also compared with their formulas and with where else they could go.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from scratchgen import PPCA, FactorAnalysis, GaussianMixture, Mixture
from scratchgen.em import (
    e_step,
    floor_eigenvalues,
    free_energy,
    kmeans_plus_plus,
    m_step,
    ppca_em_step,
    ppca_maximum,
)
from scratchgen.em.steps import COVARIANCE_TYPES
from scratchgen.estimator import NotFittedError
from scratchgen.testing import cut, em_problems, reals, size, softmax, spd
from tests.strategies import FALSE_ALARM, passes_as_sample, relative, residual

FLOOR = 1e-3


def three_blobs(n=60, seed=0, spread=1.0):
    """Three overlapping groups in two dimensions."""
    rng = np.random.default_rng(seed)
    centres = 3.0 * np.array([[0, 0], [1, 0.5], [0.3, 1.2]])
    return centres[rng.integers(3, size=n)] + spread * rng.standard_normal((n, 2))


def rise(values):
    """The least step of a sequence, relative to 1 + |value|: >= -rounding means that it never falls."""
    values = np.asarray(values)
    return np.min(np.diff(values) / (1 + np.abs(values[1:])), initial=np.inf)


# --- the two steps ----------------------------------------------------------------------------------------


@given(em_problems())
def test_em_is_monotone_and_each_half_step_raises_the_free_energy(problem):
    """PEM, on hard data: F = log-likelihood after E, M raises F, nothing overflows, becomes nan or warns."""
    x, mixture = problem
    log_likelihoods = []
    for _ in range(6):
        log_resp, log_prob = e_step(x, mixture)
        log_likelihoods.append(log_prob.mean())
        assert residual(log_prob, mixture.log_prob(x)) < 1e-12
        assert residual(np.exp(log_resp), mixture.posterior(x)) < 1e-9
        assert residual(free_energy(x, log_resp, mixture), log_prob) < 1e-9
        following = m_step(x, log_resp, mixture, FLOOR)
        assert np.all(np.isfinite(following.means))
        assert abs(following.weights.sum() - 1) < 1e-12
        assert rise([log_prob.mean(), free_energy(x, log_resp, following).mean()]) > -1e-9
        mixture = following
    assert rise(log_likelihoods) > -1e-9


@given(em_problems())
def test_posterior_is_the_best_q(problem):
    """(16)-(18): any other q loses exactly KL(q‖posterior) of free energy, the bound (7) with its gap."""
    x, mixture = problem
    log_resp, log_prob = e_step(x, mixture)
    q = softmax(np.sin(np.arange(log_resp.size)).reshape(log_resp.shape))
    gap = log_prob - free_energy(x, np.log(q), mixture)
    assert residual(gap, (q * (np.log(q) - log_resp)).sum(axis=1)) < 1e-9
    assert np.all(gap >= -1e-9 * (1 + np.abs(log_prob)))


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


def test_m_step_has_no_floor_unless_given_one():
    x = 0.1 * three_blobs()
    start = Mixture([0.5, 0.5], x[:2], [np.eye(2)] * 2)
    log_resp, _ = e_step(x, start)
    free, floored = m_step(x, log_resp, start), m_step(x, log_resp, start, 0.0)
    assert np.array_equal(free.covariances, floored.covariances)
    assert np.linalg.eigvalsh(free.covariances).max() < 1


@given(em_problems(modes=("plain", "offset 2^10", "all far")), st.sampled_from([0.0, 1e-3, 0.1]))
def test_one_component_is_the_sample_moments(problem, shift):
    """PEM2: K = 1 converges in one step, to moments with 1/N."""
    x, mixture = problem
    start = Mixture([1.0], mixture.means[:1] + shift, mixture.covariances[:1])
    following = m_step(x, e_step(x, start)[0], start, 1e-12)
    centred = x - x.mean(axis=0)
    assert np.array_equal(following.weights, [1])
    assert residual(following.means[0], x.mean(axis=0)) < 1e-12
    assert residual(following.covariances[0], centred.T @ centred / len(x)) < 1e-9


@given(em_problems(), st.data())
def test_no_small_move_improves_on_the_m_step(problem, data):
    """PEM3: stationarity in π, in means and in covariances ⪰ floor; it sees what monotony cannot."""
    x, mixture = problem
    K, D = mixture.means.shape
    floor = 1e-2
    log_resp, _ = e_step(x, mixture)
    best = m_step(x, log_resp, mixture, floor)
    value = free_energy(x, log_resp, best).mean()
    shapes = (K,), (K, D), (K, D, D)
    tilt, shift, stretch = cut(data.draw(reals(size(*shapes), -1, 1)), *shapes)
    for step in (-0.1, -1e-3, 1e-3, 0.1):
        weights = best.weights * np.exp(step * tilt)
        A = np.eye(D) + step * stretch
        stretched = [floored(C, floor) for C in A @ best.covariances @ A.swapaxes(1, 2)]
        for moved in (
            Mixture(weights / weights.sum(), best.means, best.covariances),
            Mixture(best.weights, best.means + step * shift, best.covariances),
            Mixture(best.weights, best.means, stretched),
        ):
            assert rise([free_energy(x, log_resp, moved).mean(), value]) > -1e-10


def floored(covariance, floor):
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    covariance = vectors @ np.diag(np.maximum(values, floor)) @ vectors.T
    return 0.5 * (covariance + covariance.T)


@given(em_problems(), st.sampled_from([2.0**10, 2.0**20]))
def test_m_step_moves_with_the_data(problem, offset):
    """PEM4, with the responsibilities of the unshifted problem; the grid makes the shift exact."""
    x, mixture = problem
    log_resp, _ = e_step(x, mixture)
    here, there = (m_step(y, log_resp, mixture, FLOOR) for y in (x, x + offset))
    occupied = np.isfinite(log_resp).any(axis=0)
    assert residual(there.weights, here.weights) < 1e-12
    assert residual((there.means - offset)[occupied], here.means[occupied]) < 1e-6
    assert residual(there.covariances, here.covariances) < 1e-6


def test_weights_within_a_far_component_sum_to_one():
    """PEM4's bug: exp of a difference of logs near -5e5 is only 1e-10 accurate; an offset shows it."""
    x = np.arange(8.0)[:, None] / 4
    log_resp = np.stack([np.zeros(8), -5e5 - 0.37 * np.arange(8.0)], axis=1)
    start = Mixture([0.5, 0.5], [[0.0], [1e3]], np.ones((2, 1, 1)))
    weights = softmax(log_resp[:, 1])
    following = m_step(x + 2.0**20, log_resp, start, FLOOR)
    assert abs(following.means[1, 0] - 2.0**20 - weights @ x[:, 0]) < 1e-8


@given(em_problems(modes=("plain",)), st.data())
def test_em_is_equivariant_under_rotation(problem, data):
    x, mixture = problem
    D = x.shape[1]
    U, _ = np.linalg.qr(data.draw(spd(D)))
    rotated = Mixture(mixture.weights, mixture.means @ U.T, mixture.covariances)  # they are I
    here = m_step(x, e_step(x, mixture)[0], mixture, FLOOR)
    there = m_step(x @ U.T, e_step(x @ U.T, rotated)[0], rotated, FLOOR)
    assert residual(there.means, here.means @ U.T) < 1e-9
    assert residual(there.covariances, U @ here.covariances @ U.T) < 1e-9


def test_component_that_nobody_responds_to_keeps_its_place():
    x, mixture = np.array([[0.0], [1.0]]), Mixture([0.5, 0.5], [[0.3], [7.0]], [[[1.0]], [[2.0]]])
    following = m_step(x, np.array([[0.0, -np.inf], [0.0, -np.inf]]), mixture, FLOOR)
    assert following.weights.tolist() == [1, 0]
    assert following.means.tolist() == [[0.5], [7.0]]
    assert following.covariances.ravel().tolist() == [0.25, 2.0]


def test_free_energy_of_impossible_components():
    """0 log 0 = 0: q = 0 costs nothing where the weight is 0 too, q > 0 costs everything; nothing warns."""
    x = np.array([[0.0], [100.0]])
    alone = Mixture([1.0, 0.0], [[0.0], [100.0]], np.ones((2, 1, 1)))
    log_resp, log_prob = e_step(x, alone)
    assert residual(free_energy(x, log_resp, alone), log_prob) < 1e-15
    assert residual(free_energy(x, np.array([[0.0, -np.inf]] * 2), alone), log_prob) < 1e-15
    underflows = np.array([[0.0, -5000.0]])
    assert residual(free_energy(x[:1], underflows, alone), log_prob[:1]) < 1e-15
    assert free_energy(x, np.log(np.full((2, 2), 0.5)), alone).tolist() == [-np.inf, -np.inf]


def plain_em(x, weights, means, covariances, n_iterations):
    """EM as textbooks print it, without logarithms: good enough for tame data."""
    for _ in range(n_iterations):
        parts = zip(weights, means, covariances, strict=True)
        density = np.stack([w * stats.multivariate_normal.pdf(x, m, C) for w, m, C in parts], axis=1)
        r = density / density.sum(axis=1, keepdims=True)
        weights = r.mean(axis=0)
        means = [np.average(x, axis=0, weights=column) for column in r.T]
        covariances = [np.cov(x.T, bias=True, aweights=column) for column in r.T]
    return weights, np.array(means), np.array(covariances)


def test_ten_iterations_are_the_textbooks():
    x = three_blobs()
    start = np.array([0.2, 0.3, 0.5]), x[:3], np.tile(np.eye(2), (3, 1, 1))
    names = "weights_init", "means_init", "precisions_init"
    model = GaussianMixture(3, tol=0, max_iter=10, **dict(zip(names, start, strict=True))).fit(x)
    weights, means, covariances = plain_em(x, *start, 10)
    assert residual(model.weights_, weights) < 1e-10
    assert residual(model.means_, means) < 1e-10
    assert residual(model.covariances_, covariances) < 1e-10


def test_converged_em_has_zero_gradient():
    """Fisher's identity: at the fixed point the gradient of the log-likelihood in the means vanishes."""
    x = three_blobs(200)
    model = GaussianMixture(2, tol=0, max_iter=2000, rng=0).fit(x)
    r, h = model.predict_proba(x), 1e-5
    for k, d in itertools.product(range(2), range(2)):
        shift = np.zeros((2, 2))
        shift[k, d] = h
        moved = [Mixture(model.weights_, model.means_ + s * shift, model.covariances_) for s in (1, -1)]
        up, down = (mixture.log_prob(x).mean() for mixture in moved)
        assert abs(up - down) / (2 * h) < 1e-8
    assert residual(r.mean(axis=0), model.weights_) < 1e-8


def test_identical_components_are_a_saddle():
    x = three_blobs()
    start = Mixture([0.4, 0.6], x[[0, 0]], np.tile(np.eye(2), (2, 1, 1)))
    following = m_step(x, e_step(x, start)[0], start, FLOOR)
    one = Mixture([1.0], [x.mean(axis=0)], [np.cov(x.T, bias=True)])
    assert residual(following.weights, start.weights) < 1e-12
    assert residual(following.log_prob(x), one.log_prob(x)) < 1e-12


# --- the covariance floor ---------------------------------------------------------------------------------


@given(st.integers(1, 4).flatmap(lambda D: reals((D, D), -1, 1)), st.sampled_from([1e-6, 0.1, 10.0]))
def test_floor_raises_small_eigenvalues_and_only_those(A, floor):
    covariance = A @ A.T
    raised = floor_eigenvalues(covariance, floor)
    assert np.array_equal(raised, raised.T)
    assert residual(np.linalg.eigvalsh(raised), np.maximum(np.linalg.eigvalsh(covariance), floor)) < 1e-12
    assert residual(raised @ covariance, covariance @ raised) < 1e-12  # same eigenvectors
    if np.linalg.eigvalsh(covariance)[0] >= floor:
        assert residual(raised, covariance) < 1e-15


@given(st.integers(2, 4).flatmap(lambda D: reals((2, D, D), -1, 1)))
def test_floored_covariance_is_the_constrained_maximum(pair):
    """Of all Σ ⪰ floor I, the floored S maximises −log|Σ| − tr Σ⁻¹S; S + floor I does not."""
    A, B = pair
    S, floor = A @ A.T, 0.3

    def objective(covariance):
        return -np.linalg.slogdet(covariance)[1] - np.trace(np.linalg.solve(covariance, S))

    best = floor_eigenvalues(S, floor)
    value = objective(best)
    for step in (1e-3, 0.1, 1.0):
        other = floored(best + step * (B + B.T), floor)
        assert objective(other) <= value + 1e-10 * (1 + abs(value))
    assert objective(S + floor * np.eye(len(S))) < value + 1e-12 * (1 + abs(value))


def ridge_em(x, mixture, ridge, n_iterations):
    """The usual reg_covar: ridge · I added to every covariance after the M-step."""
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


def test_floor_keeps_em_monotone_where_an_additive_ridge_does_not():
    """Section 8, N = 12, K = 3, ε = 0.1: the twin falls in more than half of the runs, the floor in none."""
    falls = 0
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((12, 1))
        start = Mixture(np.full(3, 1 / 3), x[:3], np.ones((3, 1, 1)))
        falls += rise(ridge_em(x, start, 0.1, 30)) < -1e-6
        assert rise(floor_em(x, start, 0.1, 30)) > -1e-12
    assert falls >= 8


# --- k-means++ --------------------------------------------------------------------------------------------


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
    """Chi-square over all 24 outcomes; the twin, plain distances, is refused by the same counts."""
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


# --- GaussianMixture: hard data ---------------------------------------------------------------------------


def hard_data():
    rng = np.random.default_rng(12)
    plain = rng.standard_normal((24, 3))
    return {
        "plain, K=1": (plain, 1),
        "plain, K=3": (plain, 3),
        "K=N": (plain[:6], 6),
        "one point": (plain[:1], 1),
        "one column": (plain[:, :1], 2),
        "duplicates": (np.ones((9, 3)), 2),
        "duplicates of what floats cannot hold": (np.tile([0.1, 0.2, 0.3], (7, 1)), 2),
        "two atoms": (np.repeat([[0.1, 0.2], [5.1, -0.3]], 8, axis=0), 2),
        "constant column": (plain * [1.0, 0.0, 1.0], 2),
        "outlier at 1e3": (np.concatenate([plain, [[1e3, 0.0, 0.0]]]), 2),
        "offset 2^10": (plain + 2.0**10, 2),
        "offset 2^20": (plain + 2.0**20, 2),
        "offset 1e8": (plain + 1e8, 2),
        "scale 1e-6": (plain * 1e-6, 2),
        "scale 1e6": (plain * 1e6, 2),
        "below the floor": (plain * 1e-9, 3),
    }


@pytest.mark.parametrize("kind", COVARIANCE_TYPES)
@pytest.mark.parametrize("prior", [None, (1.0, 2.0)], ids=["floor", "prior"])
@pytest.mark.parametrize(("x", "K"), hard_data().values(), ids=hard_data().keys())
def test_hard_data_give_a_finite_monotone_fit(x, K, prior, kind):
    model = GaussianMixture(K, kind, tol=0, max_iter=30, covariance_prior=prior, rng=0).fit(x)
    for array in (
        model.weights_,
        model.means_,
        model.covariances_,
        model.lower_bounds_,
        model.sample(3, rng=0),
    ):
        assert np.all(np.isfinite(array))
    assert rise(model.lower_bounds_) > -1e-9
    assert residual(model.elbo(x), model.log_prob(x)) < 1e-7
    if prior is None:
        assert residual(model.lower_bounds_[-1], model.score(x)) < 1e-12
    assert residual(model.predict_proba(x).sum(axis=1), np.ones(len(x))) < 1e-9
    covariances = model.mixture_.covariances
    assert np.linalg.eigvalsh(covariances).min() > 0.999e-6 - 1e-14 * np.abs(covariances).max()


NO_FACTORS = {  # what PPCA and factor analysis cannot be fitted to, and what they say
    "one point": r"^x must have at least 2 row",
    "one column": r"^n_components must be below the 1 columns of x",
    "duplicates": r"lower n_components$|drop it$",
    "duplicates of what floats cannot hold": r"lower n_components$|drop it$",
    "two atoms": r"lower n_components$",
    "constant column": r"drop it$",
}


@pytest.mark.parametrize("name", hard_data())
@pytest.mark.parametrize(
    "make", [PPCA, lambda k: PPCA(k, method="em", rng=0), FactorAnalysis], ids=["PPCA", "EM", "FA"]
)
def test_hard_data_give_factors_or_a_word_that_helps(make, name):
    """A finite model whose likelihood never fell, or a ValueError with a remedy."""
    x, model = hard_data()[name][0], make(1)
    needs_noise = not isinstance(model, FactorAnalysis)  # which has a floor for every column that varies
    fits = {"one column", "two atoms"} if not needs_noise else {"constant column"}
    if name in NO_FACTORS and name not in fits:
        with pytest.raises(ValueError, match=NO_FACTORS[name]):
            model.fit(x)
        return
    model.fit(x)
    assert np.all(np.isfinite(model.covariance()))
    assert rise(model.free_energies_) > -1e-9
    assert residual(model.elbo(x), model.log_prob(x)) < 1e-6
    assert np.linalg.eigvalsh(model.covariance()).min() > 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
def test_collinear_data_are_fitted_with_a_floor_of_their_scale(scale):
    """Rounding of a covariance moves the bound by about ε λ_max/floor, which is 1e-12 here."""
    x = scale * np.random.default_rng(12).standard_normal((24, 1)) * [1.0, 2.0, 3.0]
    model = GaussianMixture(2, tol=0, max_iter=30, covariance_floor=1e-3 * scale**2, rng=0).fit(x)
    assert rise(model.lower_bounds_) > -1e-9
    assert residual(model.elbo(x), model.log_prob(x)) < 1e-9
    values = np.linalg.eigvalsh(model.covariances_)
    assert relative(values[:, :2], np.full((2, 2), 1e-3 * scale**2)) < 1e-6


def test_floor_too_small_for_doubles_is_refused_by_name():
    """Eigenvalues 1e-6 and 1e18 do not fit into one matrix of doubles; a floor of 1e4 does."""
    x = 1e9 * np.random.default_rng(12).standard_normal((24, 1)) * [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"covariance_floor"):
        GaussianMixture(2, rng=0).fit(x)
    assert rise(GaussianMixture(2, covariance_floor=1e8, rng=0).fit(x).lower_bounds_) > -1e-9


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_a_floor_lost_beside_large_variances_is_refused_or_kept(kind):
    """Columns of 1e5 and of 1, collinear: beside variances of 1e10 a floor of 1e-6 is below rounding."""
    for seed in range(7):
        rng = np.random.default_rng(seed)
        a = rng.normal(1e5, 5e4, 40).round()
        x = np.column_stack([a, 2 * a, rng.integers(0, 2, 40)])
        with pytest.raises(ValueError, match=r"^covariance_floor 1e-06 is lost .* raise covariance_floor to \d"):
            GaussianMixture(2, kind, tol=0, rng=0).fit(x)
        model = GaussianMixture(2, kind, tol=0, covariance_floor=50.0, rng=0).fit(x)
        assert rise(model.lower_bounds_) > -1e-6


def test_components_that_start_far_away_come_back():
    """All components at +100: naive densities are 0/0 there."""
    x = three_blobs()
    for means in ([[100.0, 100.0], [101.0, 100.0]], [[1e3, 0.0], [0.0, 0.0]]):
        start = {"weights_init": [0.5, 0.5], "means_init": means, "precisions_init": [np.eye(2)] * 2}
        model = GaussianMixture(2, tol=0, max_iter=40, rng=0, **start).fit(x)
        assert rise(model.lower_bounds_) > -1e-12
        assert model.score(x) >= GaussianMixture(1).fit(x).score(x) - 1e-9


@pytest.mark.parametrize("offset", [2.0**10, 2.0**20])
def test_fit_moves_with_the_data(offset):
    x = np.round(three_blobs() * 1024) / 1024
    here, there = (GaussianMixture(3, tol=0, max_iter=20, rng=0).fit(y) for y in (x, x + offset))
    assert residual(there.means_ - offset, here.means_) < 1e-6
    assert residual(there.covariances_, here.covariances_) < 1e-6


# --- GaussianMixture: the estimator -----------------------------------------------------------------------


def test_elbo_is_log_prob_and_score_is_its_mean():
    """(8) at q = p_θ(z | x), where the bound is an equality."""
    x = three_blobs()
    model = GaussianMixture(3, rng=0).fit(x)
    new = three_blobs(seed=9)
    assert residual(model.elbo(new), model.log_prob(new)) < 1e-12
    assert residual(model.log_prob(new), model.mixture_.log_prob(new)) < 1e-15
    assert np.array_equal(model.score_samples(new), model.log_prob(new))
    assert model.score(new) == model.log_prob(new).mean()


def test_lower_bounds_are_the_log_likelihood_after_every_e_step():
    x = three_blobs()
    model = GaussianMixture(3, tol=1e-9, max_iter=200, rng=0)
    losses = [state.loss for state in model.train(x)]
    assert model.converged_
    assert model.n_iter_ == len(losses) == len(model.lower_bounds_) - 1
    assert residual(-model.lower_bounds_[1:], np.array(losses)) < 1e-15
    assert rise(model.lower_bounds_) > -1e-12
    assert model.lower_bounds_[-1] - model.lower_bounds_[0] > 1e-3
    assert residual(model.lower_bounds_[-1], model.score(x)) < 1e-13


def test_separate_groups_are_found():
    rng = np.random.default_rng(0)
    centres, labels = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0]]), np.repeat([0, 1, 2], [50, 100, 150])
    x = centres[labels] + rng.standard_normal((300, 2)) * [1.0, 2.0]
    model = GaussianMixture(3, n_init=3, rng=0).fit(x)
    order = np.argsort(model.weights_)
    assert residual(model.weights_[order], np.array([50, 100, 150]) / 300) < 1e-9
    for k, label in zip(order, range(3), strict=True):
        assert residual(model.means_[k], x[labels == label].mean(axis=0)) < 1e-9
        assert residual(model.covariances_[k], np.cov(x[labels == label].T, bias=True)) < 1e-8
    assert np.array_equal(np.argsort(order)[model.predict(x)], labels)


def test_one_component_is_the_sample_covariance_at_once():
    x = three_blobs()
    model = GaussianMixture().fit(x)
    assert residual(model.means_[0], x.mean(axis=0)) < 1e-13
    assert residual(model.covariances_[0], np.cov(x.T, bias=True)) < 1e-13
    assert model.converged_
    assert model.n_iter_ == 1


def test_start_is_what_the_caller_gave():
    x = three_blobs()
    start = {
        "weights_init": [0.2, 0.8],
        "means_init": [[0.0, 0.0], [3.0, 1.0]],
        "precisions_init": [[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]],
    }
    given_start = Mixture(start["weights_init"], start["means_init"], np.linalg.inv(start["precisions_init"]))
    model = GaussianMixture(2, max_iter=1, **start).fit(x)
    assert residual(model.lower_bounds_[0], given_start.log_prob(x).mean()) < 1e-13
    following = m_step(x, e_step(x, given_start)[0], given_start, 1e-6)
    assert residual(model.means_, following.means) < 1e-12
    for left_out in start:
        partial = {name: value for name, value in start.items() if name != left_out}
        other = GaussianMixture(2, max_iter=1, rng=0, **partial).fit(x)
        assert abs(other.lower_bounds_[0] - model.lower_bounds_[0]) > 1e-3


@pytest.mark.parametrize("name", ["weights_init", "means_init", "precisions_init"])
def test_each_part_of_a_start_is_honoured_by_itself(name):
    """What is not given comes from the M-step on the points nearest to the means."""
    x = three_blobs()
    value = {
        "weights_init": [0.1, 0.9],
        "means_init": [[0.0, 0.0], [3.0, 1.0]],
        "precisions_init": [np.diag([5.0, 1.0]), np.diag([1.0, 7.0])],
    }[name]
    model = GaussianMixture(2, rng=0, **{name: value})
    start = model._initial_mixture(x, np.random.default_rng(0), 1e-6)
    actual = {
        "weights_init": start.weights,
        "means_init": start.means,
        "precisions_init": np.linalg.inv(start.covariances),
    }[name]
    assert residual(actual, np.asarray(value)) < 1e-12


def test_start_below_the_floor_is_lifted_so_that_the_bound_never_falls():
    """Section 8: the initial covariances must satisfy the floor, or the first M-step loses likelihood."""
    x = 1e-2 * np.random.default_rng(0).standard_normal((20, 1))
    model = GaussianMixture(1, means_init=[[0.0]], precisions_init=[[[1e4]]], covariance_floor=1.0).fit(x)
    assert rise(model.lower_bounds_) > -1e-12


def test_more_starts_keep_the_best():
    """n_init runs of one Generator are n_init single fits of it, of which the likeliest is kept."""
    x = three_blobs(40, spread=0.5)
    rng = np.random.default_rng(5)
    single = [GaussianMixture(4, rng=rng).fit(x) for _ in range(6)]
    finals = [model.lower_bounds_[-1] for model in single]
    assert max(finals) - min(finals) > 1e-2
    assert np.argmax(finals) not in (0, 5)  # neither the first nor the last would do
    many = GaussianMixture(4, n_init=6, rng=5).fit(x)
    best = single[int(np.argmax(finals))]
    assert np.array_equal(many.lower_bounds_, best.lower_bounds_)
    assert np.array_equal(many.means_, best.means_)
    assert many.n_iter_ == best.n_iter_
    assert many.converged_ == best.converged_


def test_convergence_is_reported_even_if_the_last_step_gains_nothing():
    """Two clusters without overlap: one step reaches the maximum, the next gains 0 < tol."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((20, 1)), 100 + rng.standard_normal((20, 1))])
    model = GaussianMixture(2, means_init=[[1.0], [101.0]])
    n_steps = len(list(model.train(x)))
    assert n_steps < 100
    assert model.converged_ is True
    assert model.n_iter_ == n_steps


def test_running_out_of_iterations_is_no_convergence():
    model = GaussianMixture(3, tol=0, max_iter=2, rng=0).fit(three_blobs())
    assert model.converged_ is False
    assert model.n_iter_ == 2


def test_tolerance_is_on_the_mean_log_likelihood():
    """Ten copies of the data are the same problem: a tolerance on the sum would run longer."""
    x = three_blobs()
    start = {"means_init": x[:3], "tol": 1e-3}
    once, tenfold = (GaussianMixture(3, **start).fit(y) for y in (x, np.tile(x, (10, 1))))
    assert once.n_iter_ == tenfold.n_iter_ > 1
    assert np.diff(once.lower_bounds_)[-1] < 1e-3 <= np.diff(once.lower_bounds_)[:-1].min()


def test_training_is_a_generator_and_the_model_usable_after_any_step():
    x = three_blobs()
    model = GaussianMixture(3, n_init=2, tol=0, max_iter=4, rng=0)
    states = []
    for state in model.train(x):
        states.append(state)
        assert model.score(x) >= -min(s.loss for s in states) - 1e-12
    assert [state.step for state in states] == list(range(1, len(states) + 1))
    assert {state.n_steps for state in states} == {8}


def test_fit_again_starts_afresh():
    x = three_blobs()
    model = GaussianMixture(2, rng=0).fit(x)
    assert residual(model.fit(100 * x).means_, GaussianMixture(2, rng=0).fit(100 * x).means_) == 0
    assert model.fit(x[:, :1]).means_.shape == (2, 1)


def test_fit_leaves_the_data_alone_and_accepts_other_real_dtypes():
    x = np.round(three_blobs() * 4)
    before = x.copy()
    reference = GaussianMixture(2, rng=0).fit(x)
    assert np.array_equal(x, before)
    for dtype in np.float32, np.int64, np.int8:
        model = GaussianMixture(2, rng=0).fit(x.astype(dtype))
        assert np.array_equal(model.means_, reference.means_)
        assert model.means_.dtype == np.float64
    assert np.array_equal(GaussianMixture(2, rng=0).fit(x.tolist()).means_, reference.means_)


def test_constructor_arguments_are_stored_as_given():
    means = [[0.0, 0.0], [1.0, 1.0]]
    model = GaussianMixture(2, means_init=means, rng=3)
    assert model.get_params()["means_init"] is means
    assert repr(GaussianMixture(2, tol=0.1)) == "GaussianMixture(n_components=2, tol=0.1)"


def test_gaussian_mixture_samples_have_its_law():
    model = GaussianMixture(3, rng=0).fit(three_blobs(300))
    assert passes_as_sample(model.sample(20_000, rng=1), model.mixture_)
    assert not passes_as_sample(model.sample(20_000, rng=1) + 0.1, model.mixture_)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: GaussianMixture(3, n_init=2, rng=rng),
        lambda rng: PPCA(1, method="em", max_iter=5, rng=rng),
    ],
    ids=["GaussianMixture", "PPCA"],
)
def test_same_seed_same_bytes(make):
    x = three_blobs()

    def bytes_of(model):
        return b"".join(np.asarray(getattr(model, name)).tobytes() for name in model._fitted)

    first = make(0).fit(x)
    assert bytes_of(make(0).fit(x)) == bytes_of(first)
    assert bytes_of(first.fit(x)) == bytes_of(make(0).fit(x))
    assert bytes_of(make(np.random.default_rng(0)).fit(x)) == bytes_of(first)
    assert bytes_of(make(1).fit(x)) != bytes_of(first)
    assert first.sample(4, rng=7).tobytes() == make(0).fit(x).sample(4, rng=7).tobytes()
    assert first.sample(4, rng=7).tobytes() != first.sample(4, rng=8).tobytes()


def test_generator_is_advanced_by_a_fit():
    rng = np.random.default_rng(0)
    model = GaussianMixture(3, rng=rng)
    first = model.fit(three_blobs()).lower_bounds_[0]
    assert model.fit(three_blobs()).lower_bounds_[0] != first
    assert rng.random() != np.random.default_rng(0).random()


# --- files ------------------------------------------------------------------------------------------------

MODELS = {
    "GaussianMixture": lambda **kwargs: GaussianMixture(2, means_init=[[0.0, 0.0], [3.0, 1.0]], **kwargs),
    "PPCA": lambda **kwargs: PPCA(1, method="em", max_iter=7, **kwargs),
}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


@each_model
def test_saved_model_comes_back_whole(make, tmp_path):
    x, path = three_blobs(), tmp_path / "model.npz"
    model = make(rng=3).fit(x)
    model.save(path)
    loaded = type(model).load(path)
    assert loaded.get_params() == model.get_params()
    for name in (*model._fitted, "n_features_in_"):
        before, after = getattr(model, name), getattr(loaded, name)
        assert type(after) is type(before)
        assert np.array_equal(after, before)
    assert np.array_equal(loaded.log_prob(x), model.log_prob(x))
    assert np.array_equal(loaded.elbo(x), model.elbo(x))
    assert loaded.sample(5, rng=1).tobytes() == model.sample(5, rng=1).tobytes()
    assert np.array_equal(loaded.fit(x).log_prob(x), model.fit(x).log_prob(x))


@pytest.mark.parametrize(
    "bits", [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]
)
def test_saved_generator_continues_where_it_was(bits, tmp_path):
    model = GaussianMixture(2, rng=np.random.Generator(bits(11))).fit(three_blobs())
    model.save(tmp_path / "model.npz")
    loaded = GaussianMixture.load(tmp_path / "model.npz")
    assert isinstance(loaded.rng.bit_generator, bits)
    assert np.array_equal(loaded.rng.random(5), model.rng.random(5))


@each_model
def test_existing_file_is_not_overwritten_unless_asked(make, tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(b"precious")
    model = make(rng=0).fit(three_blobs())
    with pytest.raises(FileExistsError, match=r"pass overwrite=True"):
        model.save(path)
    assert path.read_bytes() == b"precious"
    model.save(path, overwrite=True)
    assert np.array_equal(type(model).load(path).lower_bounds_, model.lower_bounds_)
    assert list(tmp_path.iterdir()) == [path]


def test_loading_another_class_says_which_one_it_is(tmp_path):
    GaussianMixture(1).fit(three_blobs()).save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"holds a GaussianMixture, not a PPCA; use GaussianMixture\.load"):
        PPCA.load(tmp_path / "model.npz")


@each_model
def test_unfitted_model_says_so(make, tmp_path):
    model = make()
    x = three_blobs()
    calls = [
        lambda: model.log_prob(x),
        lambda: model.elbo(x),
        lambda: model.sample(1),
        lambda: model.score(x),
    ]
    for call in [*calls, lambda: model.save(tmp_path / "model.npz")]:
        with pytest.raises(NotFittedError, match=r"not fitted yet; call fit\(x\)"):
            call()
    assert list(tmp_path.iterdir()) == []


# --- bad input --------------------------------------------------------------------------------------------

X2 = np.arange(8.0).reshape(4, 2)


def name_cases(cases):
    """Parameters with short ids: the argument's name and the number of the case."""
    return [pytest.param(*case, id=f"{case[2]}-{i}") for i, case in enumerate(cases)]


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    name_cases(
        [
            ({"n_components": 0}, ValueError, "n_components"),
            ({"n_components": 1.0}, TypeError, "n_components"),
            ({"n_components": True}, TypeError, "n_components"),
            ({"tol": -1e-3}, ValueError, "tol"),
            ({"tol": np.nan}, ValueError, "tol"),
            ({"tol": "small"}, TypeError, "tol"),
            ({"max_iter": -1}, ValueError, "max_iter"),
            ({"max_iter": 1.5}, TypeError, "max_iter"),
            ({"n_init": 0}, ValueError, "n_init"),
            ({"n_init": None}, TypeError, "n_init"),
            ({"covariance_floor": 0.0}, ValueError, "covariance_floor"),
            ({"covariance_floor": -1.0}, ValueError, "covariance_floor"),
            ({"covariance_floor": np.inf}, ValueError, "covariance_floor"),
            ({"rng": -1}, ValueError, "rng"),
            ({"rng": 1.0}, TypeError, "rng"),
            ({"means_init": [[0.0, 0.0]]}, ValueError, "means_init"),
            ({"means_init": [[0.0], [0.0]]}, ValueError, "means_init"),
            ({"means_init": [0.0, 0.0]}, ValueError, "means_init"),
            ({"means_init": [[0.0, np.nan]] * 2}, ValueError, "means_init"),
            ({"means_init": [["a", "b"]] * 2}, TypeError, "means_init"),
            ({"weights_init": [1.0]}, ValueError, "weights_init"),
            ({"weights_init": [0.9, 0.9]}, ValueError, "weights_init"),
            ({"weights_init": [1.5, -0.5]}, ValueError, "weights_init"),
            ({"weights_init": [np.nan, 1.0]}, ValueError, "weights_init"),
            ({"weights_init": ["a", "b"]}, TypeError, "weights_init"),
            ({"precisions_init": [[1.0, 0.0], [0.0, 1.0]]}, ValueError, "precisions_init"),
            ({"precisions_init": [np.eye(2)]}, ValueError, "precisions_init"),
            ({"precisions_init": [np.eye(3)] * 2}, ValueError, "precisions_init"),
            ({"precisions_init": [np.zeros((2, 2))] * 2}, ValueError, "precisions_init"),
            ({"precisions_init": [-np.eye(2)] * 2}, ValueError, "precisions_init"),
            ({"precisions_init": [[[1.0, 0.5], [0.0, 1.0]]] * 2}, ValueError, "precisions_init"),
            ({"precisions_init": [np.full((2, 2), np.nan)] * 2}, ValueError, "precisions_init"),
        ]
    ),
)
def test_mixture_argument_that_will_not_do_is_refused_by_name(arguments, error, name):
    with pytest.raises(error, match=rf"^{name}\b"):
        GaussianMixture(**{"n_components": 2, **arguments}).fit(X2)


@pytest.mark.parametrize("model", [GaussianMixture(2), PPCA(1)], ids=["GaussianMixture", "PPCA"])
@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.arange(4.0), ValueError),
        (X2[:1], ValueError),
        (X2 * np.nan, ValueError),
        (X2[:, :0], ValueError),
        (X2.astype(str), TypeError),
        (X2 * 1j, ValueError),
    ],
    ids=["1-D", "one row", "nan", "no columns", "str", "complex"],
)
def test_data_that_will_not_do_are_refused_by_name(model, x, error):
    with pytest.raises(error, match=r"^x must |^n_components must be at most the 1 rows of x, got 2; lower it"):
        model.fit(x)


@each_model
def test_fitted_model_refuses_points_of_another_dimension(make):
    model = make(rng=0).fit(three_blobs())
    for call in model.log_prob, model.elbo, model.score:
        with pytest.raises(ValueError, match=r"^x must have 2 columns, as the model has, got 3"):
            call(np.zeros((2, 3)))


# --- PPCA -------------------------------------------------------------------------------------------------


def data_with_covariance(S, mean):
    """2D points whose sample mean and covariance (1/N) are exactly these: mean ± √D L e_i."""
    steps = np.sqrt(len(S)) * np.linalg.cholesky(S).T
    return mean + np.concatenate([steps, -steps])


@st.composite
def spectra(draw):
    """(covariance, mean, k, eigenvalues in descending order), λ_k above the noise by 1e-3 or more."""
    k = draw(st.integers(1, 3))
    D = k + draw(st.integers(1, 3))
    values, mean, A = cut(draw(reals(size((D,), (D,), (D, D)), -1, 1)), (D,), (D,), (D, D))
    values = np.sort(2.55 + 2.45 * values)[::-1]
    values[:k] += 1e-2
    U, _ = np.linalg.qr(A + 2 * np.eye(D))
    return (U * values) @ U.T, 5 * mean, k, values


def symmetric(S):
    return 0.5 * (S + S.T)


@given(spectra())
def test_ppca_reaches_the_value_and_the_point_of_tipping_and_bishop(spectrum):
    """PPCA (4.2b): the value from eigenvalues alone, W Wᵀ from the discarded-mean noise, and gap 0."""
    S, mean, k, values = spectrum
    D, x = len(S), data_with_covariance(symmetric(S), mean)
    model = PPCA(k).fit(x)
    noise = values[k:].mean()
    exact = -0.5 * (D * np.log(2 * np.pi) + np.log(values[:k]).sum() + (D - k) * np.log(noise) + D)
    assert residual(model.score(x), exact) < 1e-10
    assert residual(model.lower_bounds_, np.array([exact])) < 1e-10
    assert residual(model.noise_variance_, noise) < 1e-10
    assert residual(model.mean_, mean) < 1e-12
    fitted = model.components_ @ model.components_.T + model.noise_variance_ * np.eye(D)
    eigenvalues, vectors = np.linalg.eigh(symmetric(S))
    target = (vectors * np.concatenate([np.full(D - k, noise), eigenvalues[D - k :]])) @ vectors.T
    assert residual(fitted, target) < 1e-9
    assert residual(model.elbo(x), model.log_prob(x)) < 1e-9


@given(spectra())
def test_ppca_gap_is_zero_with_an_axis_aligned_encoder_too(spectrum):
    """4.2c: the closed form's W has orthogonal columns, so that a VAE's diagonal encoder can be exact."""
    S, _, k, _ = spectrum
    W, noise = ppca_maximum(symmetric(S), k)
    M = W.T @ W + noise * np.eye(k)
    assert residual(M, np.diag(np.diag(M))) < 1e-10


@given(spectra())
def test_ppca_maximum_is_a_fixed_point_of_em(spectrum):
    S, _, k, _ = spectrum
    W, noise = ppca_maximum(symmetric(S), k)
    new_W, new_noise = ppca_em_step(symmetric(S), W, noise)
    assert residual(new_W, W) < 1e-9
    assert residual(new_noise, noise) < 1e-9


@st.composite
def ppca_steps(draw):
    """(S, W, σ²) of the catalogue's PPEM: 4x4, k = 2, σ² in [0.1, 2]."""
    A, W = cut(draw(reals(size((4, 4), (4, 2)), -2, 2)), (4, 4), (4, 2))
    return A @ A.T + 0.1 * np.eye(4), W, draw(st.floats(0.1, 2))


@given(ppca_steps())
def test_ppca_em_step_is_the_e_and_m_step_over_the_data(step):
    """(15)-(18) as sums over data: W' = Σ(x−μ)E zᵀ (Σ E zzᵀ)⁻¹ and σ²' = E‖x − μ − W'z‖²/D."""
    S, W, noise = step
    x = data_with_covariance(S, np.zeros(4))
    M = W.T @ W + noise * np.eye(2)
    z = x @ W @ np.linalg.inv(M)
    zz = len(x) * noise * np.linalg.inv(M) + z.T @ z
    W_exact = x.T @ z @ np.linalg.inv(zz)
    noise_exact = ((x**2).sum() - 2 * np.sum((x @ W_exact) * z) + np.trace(zz @ W_exact.T @ W_exact)) / x.size
    W_new, noise_new = ppca_em_step(S, W, noise)
    assert residual(W_new, W_exact) < 1e-9
    assert residual(noise_new, noise_exact) < 1e-9


@given(ppca_steps(), reals((4, 2), -1, 1))
def test_ppca_em_step_is_stationary(step, direction):
    """PPEM: Q(W, σ²) = −½[D log 2πσ² + E‖x − Wz‖²/σ²] rises in no direction.

    Together with the sums over data above, this is what sees σ² made with the old W.
    """
    S, W, noise = step
    M_inverse = np.linalg.inv(W.T @ W + noise * np.eye(2))
    xz = S @ W @ M_inverse
    zz = noise * M_inverse + M_inverse @ W.T @ xz

    def Q(W, noise):
        squared = np.trace(S) - 2 * np.sum(xz * W) + np.trace(zz @ W.T @ W)
        return -0.5 * (4 * np.log(noise) + squared / noise)

    W_new, noise_new = ppca_em_step(S, W, noise)
    best = Q(W_new, noise_new)
    for h in (-0.1, -1e-3, 1e-3, 0.1):
        assert rise([Q(W_new + h * direction, noise_new), best]) > -1e-9
        assert rise([Q(W_new, noise_new * np.exp(h)), best]) > -1e-9
        loss = best - Q(W_new, noise_new * np.exp(h))
        assert loss == pytest.approx(h**2, rel=0.05)  # Q'' in log σ² is −D/2


@given(ppca_steps())
def test_ppca_em_step_never_lowers_the_likelihood(step):
    S, W, noise = step
    values = []
    for _ in range(5):
        C = W @ W.T + noise * np.eye(4)
        values.append(-0.5 * (np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S))))
        W, noise = ppca_em_step(S, W, noise)
    assert rise(values) > -1e-9


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ppca_by_em_reaches_the_closed_form(k):
    U, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))
    x = data_with_covariance(symmetric((U * [5.0, 3.0, 2.0, 0.5, 0.2]) @ U.T), np.arange(5.0))
    closed = PPCA(k).fit(x)
    em = PPCA(k, method="em", tol=0, max_iter=400, rng=0).fit(x)
    assert residual(em.score(x), closed.score(x)) < 1e-12
    assert residual(em.components_ @ em.components_.T, closed.components_ @ closed.components_.T) < 1e-6
    assert residual(em.elbo(x), em.log_prob(x)) < 1e-12
    assert rise(em.lower_bounds_) > -1e-13
    assert residual(em.lower_bounds_[-1], em.score(x)) < 1e-14


def test_ppca_by_em_takes_the_steps_it_was_given_and_reports_each():
    x = data_with_covariance(np.diag([5.0, 4.0, 1.0, 0.5]), np.zeros(4))
    model = PPCA(1, method="em", tol=0, max_iter=7, rng=0)
    states = list(model.train(x))
    assert [(state.step, state.n_steps) for state in states] == [(i, 7) for i in range(1, 8)]
    assert residual(-model.lower_bounds_[1:], np.array([state.loss for state in states])) < 1e-15
    model = PPCA(1, method="em", tol=1e-4, rng=0).fit(x)
    gains = np.diff(model.lower_bounds_)
    assert len(gains) > 3
    assert gains[-1] < 1e-4 <= gains[:-1].min()


def test_ppca_is_the_maximum_of_the_likelihood_by_brute_force():
    """BFGS on (W, log σ²) from four starts, knowing nothing of eigenvectors, gets there and no further."""
    A = np.random.default_rng(3).standard_normal((4, 4))
    S = A @ A.T + 0.2 * np.eye(4)
    x = data_with_covariance(S, np.zeros(4))
    best = PPCA(2).fit(x).score(x)

    def loss(theta):
        C = theta[:8].reshape(4, 2) @ theta[:8].reshape(4, 2).T + np.exp(theta[8]) * np.eye(4)
        return 0.5 * (4 * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S)))

    found = [-optimize.minimize(loss, np.random.default_rng(s).standard_normal(9)).fun for s in range(4)]
    assert max(found) <= best + 1e-10
    assert max(found) == pytest.approx(best, abs=1e-8)


def test_ppca_em_started_across_the_best_direction_never_finds_it():
    """Section 8: a saddle; the reason why EM starts at random."""
    S = np.diag([5.0, 4.0, 0.5])
    W, noise = np.array([[0.0], [1.0], [0.0]]), 1.0
    for _ in range(200):
        W, noise = ppca_em_step(S, W, noise)
    found = W @ W.T + noise * np.eye(3)
    assert residual(found, np.diag([2.75, 4.0, 2.75])) < 1e-9  # the best direction is taken for noise


def test_ppca_encodes_to_the_posterior_mean():
    x = three_blobs()
    model = PPCA(1).fit(x)
    W, noise = model.components_, model.noise_variance_
    C = W @ W.T + noise * np.eye(2)
    assert residual(model.encode(x), (x - x.mean(axis=0)) @ np.linalg.inv(C) @ W) < 1e-12
    assert residual(model.mean_, x.mean(axis=0)) < 1e-14


def test_ppca_moves_with_the_data():
    x = np.round(three_blobs() * 1024) / 1024
    here, there = PPCA(1).fit(x), PPCA(1).fit(x + 2.0**20)
    assert residual(there.noise_variance_, here.noise_variance_) < 1e-7
    assert residual(there.score(x + 2.0**20), here.score(x)) < 1e-7


def test_ppca_samples_have_its_law():
    x = data_with_covariance(np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.1], [0.0, 0.1, 0.3]]), [1.0, -2.0, 3.0])
    model = PPCA(1).fit(x)
    W, noise = model.components_, model.noise_variance_
    samples = model.sample(20_000, rng=0)
    assert passes_as_sample(samples, Mixture([1.0], [model.mean_], [W @ W.T + noise * np.eye(3)]))
    assert not passes_as_sample(samples, Mixture([1.0], [model.mean_], [W @ W.T + noise**2 * np.eye(3)]))
    assert model.sample(0, rng=0).shape == (0, 3)


@pytest.mark.parametrize("spectrum", [[0.1] * 4, [3.0] * 5, [2.0, 0.1, 0.1, 0.1]], ids=repr)
def test_ppca_of_a_flat_spectrum_is_finite(spectrum):
    """λ_k − σ² is 0 up to rounding there, and must not reach the square root from below."""
    for k in range(1, len(spectrum)):
        W, noise = ppca_maximum(np.diag(spectrum), k)
        target = np.diag([*spectrum[:k], *[np.mean(spectrum[k:])] * (len(spectrum) - k)])
        assert residual(W @ W.T + noise * np.eye(len(W)), target) < 1e-7


@pytest.mark.parametrize("method", ["closed", "em"])
def test_ppca_refuses_data_without_noise(method):
    x = np.random.default_rng(0).standard_normal((30, 1)) * [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"^x lies in 1 dimensions or fewer.*lower n_components"):
        PPCA(1, method=method, tol=0, max_iter=5000, rng=0).fit(x)


@pytest.mark.parametrize("k", [2, 3])
def test_ppca_refuses_as_many_components_as_columns(k):
    with pytest.raises(ValueError, match=rf"^n_components must be below the 2 columns of x, got {k}"):
        PPCA(k).fit(X2)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    name_cases(
        [
            ({"n_components": 0}, ValueError, "n_components"),
            ({"n_components": "1"}, TypeError, "n_components"),
            ({"method": "svd"}, ValueError, "method"),
            ({"method": None}, ValueError, "method"),
            ({"tol": -1.0}, ValueError, "tol"),
            ({"max_iter": 0}, ValueError, "max_iter"),
            ({"method": "em", "rng": 0.5}, TypeError, "rng"),
        ]
    ),
)
def test_ppca_argument_that_will_not_do_is_refused_by_name(arguments, error, name):
    with pytest.raises(error, match=rf"^{name} must"):
        PPCA(**arguments).fit(X2)
