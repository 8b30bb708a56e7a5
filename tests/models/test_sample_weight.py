"""Weights of rows in EM: a row of weight w counts as w equal rows, in every model, bound, prior and criterion."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import PPCA, CategoricalMixture, FactorAnalysis, GaussianMixture, LinearVAE, Mixture
from scratchgen.em import (
    STARTS,
    CategoricalLaw,
    categorical_m_step,
    clusters,
    e_step,
    indicators,
    kmeans,
    kmeans_plus_plus,
    m_step,
    m_step_from_statistics,
    starting_mixture,
    statistics_of_labels,
    sufficient_statistics,
)
from scratchgen.fast.em_statistics import FAR, SAFE, condition, expected_statistics, statistics_of_blocks
from scratchgen.testing import em_problems
from tests.em_helpers import at_floor, every_type, rise
from tests.strategies import residual

N = 40
pytestmark = at_floor  # components on two or three of 40 rows


def drawn_weights(seed, n=N):
    """Whole numbers 0..3."""
    return np.random.default_rng(seed).integers(0, 4, n)


def reals(D, seed=0, n=N):
    """Two groups in D dimensions."""
    rng = np.random.default_rng(seed)
    return 1.5 * rng.standard_normal((n, D)) + 2.0 * (np.arange(n) % 2)[:, None]


def given_start(kind, K, D, seed=0):
    """The three arguments of a start of GaussianMixture."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((K, D, D))
    P = A @ A.swapaxes(1, 2) + np.eye(D)
    precisions = {"full": P, "tied": P[0], "diag": np.diagonal(P, 0, 1, 2), "spherical": P[:, 0, 0]}[kind]
    weights = rng.uniform(1, 2, K)
    means = 2 * rng.standard_normal((K, D))
    return {"weights_init": weights / weights.sum(), "means_init": means, "precisions_init": precisions}


def assert_same_fit(model, other, tolerance=1e-12):
    """All fitted attributes agree, the number of iterations exactly."""
    for name in model._fitted:
        a, b = (np.asarray(getattr(m, name), dtype=np.float64) for m in (model, other))
        assert a.shape == b.shape, name
        assert np.abs(a - b).max() <= tolerance * (1 + np.abs(b).max()), name
    assert model.n_iter_ == other.n_iter_


# --- equal to repeated rows -------------------------------------------------------------------------------------------


@every_type
@pytest.mark.parametrize("prior", [None, (0.5, 2.0)], ids=["floor", "prior"])
@pytest.mark.parametrize("D", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_weights_are_repeated_rows_for_gaussian_mixtures(K, D, prior, kind):
    """Measured: 4e-14 at most."""
    x, w = reals(D, seed=10 * K + D), drawn_weights(D)
    options = given_start(kind, K, D) | {"covariance_prior": prior, "max_iter": 25, "tol": 1e-6}
    options["covariance_floor"] = 1e-2  # a component on D rows would amplify rounding by 1e6 with a floor of 1e-6
    model = GaussianMixture(K, kind, **options).fit(x, sample_weight=w)
    repeated = np.repeat(x, w, axis=0)
    assert_same_fit(model, GaussianMixture(K, kind, **options).fit(repeated))
    assert residual(model.lower_bounds_[0], GaussianMixture(K, kind, **options).fit(x).lower_bounds_[0]) > 1e-4
    assert rise(model.lower_bounds_) > -1e-12
    if prior is None:
        assert residual(model.lower_bounds_[-1], model.score(x, sample_weight=w)) < 1e-12
    assert model.bic(x, sample_weight=w) == pytest.approx(model.bic(repeated), rel=1e-12)
    assert model.aic(x, sample_weight=w) == pytest.approx(model.aic(repeated), rel=1e-12)


@every_type
@pytest.mark.parametrize("K", [1, 3])
def test_given_means_alone_start_weighted_rows_as_repeated_rows(K, kind):
    """The other parts of the start come from the rows nearest to each mean, with their weights."""
    x, w = reals(3), drawn_weights(1)
    w[:K] = 2
    options = {"means_init": x[:K], "max_iter": 10, "tol": 1e-9}
    model = GaussianMixture(K, kind, **options).fit(x, sample_weight=w)
    assert_same_fit(model, GaussianMixture(K, kind, **options).fit(np.repeat(x, w, axis=0)))


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("D", [1, 2, 5])
@pytest.mark.parametrize("K", [1, 2, 4])
def test_weights_are_repeated_rows_for_categorical_mixtures(K, D, smoothing, monkeypatch):
    """The start is given by its seeds; Lloyd's algorithm and EM follow."""
    rng = np.random.default_rng(K + D)
    x = np.where(np.arange(60)[:, None] % 2, rng.integers(0, 3, (60, D)), rng.integers(1, 5, (60, D))).astype(float)
    w, seeds = drawn_weights(D, 60), np.linspace(0.0, 4.0, K)[:, None] + np.zeros((K, D))
    drawn_with = []

    def given_seeds(x, n_centres, rng, sample_weight):
        drawn_with.append(sample_weight)
        return seeds

    monkeypatch.setattr("scratchgen.models.categorical_mixture.kmeans_plus_plus", given_seeds)
    options = {"n_levels": 5, "smoothing": smoothing, "max_iter": 30, "tol": 1e-6}
    model = CategoricalMixture(K, **options).fit(x, sample_weight=w)
    repeated = np.repeat(x, w, axis=0)
    assert_same_fit(model, CategoricalMixture(K, **options).fit(repeated))
    assert np.array_equal(drawn_with[0], w[w > 0])
    assert residual(model.weights_ @ model.probabilities_[:, 0], np.bincount(x[:, 0].astype(int), w) / w.sum()) < 0.2
    assert rise(model.lower_bounds_) > -1e-12
    assert model.bic(x, sample_weight=w) == pytest.approx(model.bic(repeated), rel=1e-12)


FACTORS = {
    "PPCA": lambda k: PPCA(k),
    "PPCA by EM": lambda k: PPCA(k, "em", tol=1e-7, rng=0),
    "FactorAnalysis": lambda k: FactorAnalysis(k, tol=1e-7, rng=0),
}


@pytest.mark.parametrize("make", FACTORS.values(), ids=FACTORS)
@pytest.mark.parametrize(("D", "k"), [(2, 1), (3, 2), (4, 1), (5, 3)])
def test_weights_are_repeated_rows_for_factors(D, k, make):
    """The random start is the same; measured: 4e-15."""
    rng = np.random.default_rng(D)
    x = rng.standard_normal((N, k)) @ rng.standard_normal((k, D)) + 0.5 * rng.standard_normal((N, D)) + 3.0
    w = drawn_weights(D + 1)
    model = make(k).fit(x, sample_weight=w)
    repeated = np.repeat(x, w, axis=0)
    assert_same_fit(model, make(k).fit(repeated))
    assert residual(model.mean_, x.mean(axis=0)) > 1e-3
    assert rise(model.free_energies_) > -1e-12
    assert residual(model.lower_bounds_[-1], model.score(x, sample_weight=w)) < 1e-12
    assert model.bic(x, sample_weight=w) == pytest.approx(model.bic(repeated), rel=1e-12)


@pytest.mark.equation(15)
@given(em_problems(), st.integers(0, 999))
def test_statistics_of_weighted_rows_are_those_of_repeated_rows(problem, seed):
    """Both forms, and one M-step of each kind."""
    x, mixture = problem
    w = drawn_weights(seed, len(x))
    w[0] += w.sum() == 0
    repeated, labels = np.repeat(x, w, axis=0), clusters(x, mixture.means)
    pairs = [
        (
            sufficient_statistics(x, e_step(x, mixture)[0], mixture, w),
            sufficient_statistics(repeated, e_step(repeated, mixture)[0], mixture),
        ),
        (
            statistics_of_labels(x, labels, mixture, w),
            statistics_of_labels(repeated, np.repeat(labels, w), mixture),
        ),
        (expected_statistics(x, mixture, sample_weight=w)[0], expected_statistics(repeated, mixture)[0]),
        (statistics_of_blocks(x, mixture, w)[0], statistics_of_blocks(repeated, mixture)[0]),
    ]
    scale = 1 + np.abs(x - mixture.mean()).max()
    for found, expected in pairs:
        seen = np.isfinite(expected.log_counts)
        assert np.array_equal(np.isfinite(found.log_counts), seen)
        assert np.abs(found.log_counts[seen] - expected.log_counts[seen]).max(initial=0) < 1e-9
        assert np.abs(found.means - expected.means)[seen].max(initial=0) < 1e-9 * scale
        assert np.abs(found.covariances - expected.covariances)[seen].max(initial=0) < 1e-9 * scale**2


@pytest.mark.equation(16, 18)
@pytest.mark.parametrize(
    ("distance", "size"), [(1.0, 1.0), (1.0, 1e-3), (1e3, 1e-4)], ids=["quadratic", "whitened", "blocks"]
)
def test_every_fast_form_takes_weights(distance, size, monkeypatch):
    """Against the two functions that the fast form replaces, in blocks of a few rows."""
    monkeypatch.setattr("scratchgen.fast.em_statistics.BLOCK", 64)
    rng = np.random.default_rng(0)
    means = distance * rng.standard_normal((4, 2))
    mixture = Mixture(np.full(4, 0.25), means, np.tile(size**2 * np.eye(2), (4, 1, 1)))
    x, w = mixture.sample(200, rng=1), rng.uniform(0, 2, 200)
    w[:70] = 0.0  # whole blocks
    assert {1.0: condition(mixture) < SAFE, 1e-3: SAFE < condition(mixture) < FAR, 1e-4: condition(mixture) > FAR}[size]
    log_resp, log_prob = e_step(x, mixture)
    expected = sufficient_statistics(x, log_resp, mixture, w)
    found, bound = expected_statistics(x, mixture, sample_weight=w)
    assert bound == pytest.approx(w @ log_prob / w.sum(), rel=1e-12)
    assert residual(np.exp(found.log_counts), np.exp(expected.log_counts)) < 1e-9
    assert np.abs(found.means - expected.means).max() < 1e-8 * size
    assert np.abs(found.covariances - expected.covariances).max() < 1e-8 * size**2


# --- weights of any size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.1, 1 / 3, 1e-9, 1e9])
def test_a_factor_of_all_weights_changes_only_the_number_of_examples(factor):
    """Without a prior the fit is the same; a prior counts as many examples, and bic has N = Σ w."""
    x, w = reals(3), np.random.default_rng(3).uniform(0, 2, N)
    start = given_start("full", 2, 3) | {"max_iter": 20, "tol": 1e-6}
    plain, scaled = (GaussianMixture(2, **start).fit(x, sample_weight=c * w) for c in (1.0, factor))
    assert_same_fit(plain, scaled)
    assert scaled.score(x, sample_weight=factor * w) == pytest.approx(plain.score(x, sample_weight=w), rel=1e-12)
    total = -2 * w @ plain.log_prob(x)
    assert plain.bic(x, sample_weight=w) == pytest.approx(total + plain.n_parameters_ * np.log(w.sum()), rel=1e-12)
    prior, less = (
        GaussianMixture(2, covariance_prior=(0.5, count), **start).fit(x, sample_weight=c * w)
        for c, count in ((1.0, 3.0), (factor, factor * 3.0))
    )
    assert_same_fit(prior, less)
    same_prior = GaussianMixture(2, covariance_prior=(0.5, 3.0), **start).fit(x, sample_weight=factor * w)
    assert residual(same_prior.covariances_, prior.covariances_) > 1e-3
    for make in FACTORS.values():
        assert_same_fit(make(1).fit(x, sample_weight=w), make(1).fit(x, sample_weight=factor * w))


def test_fractional_weights_of_tables_count_as_fractions_of_rows():
    """One component: P = (Σ w [x = l] + pseudo-counts)/(Σ w + smoothing), for weights that are no whole numbers."""
    x, w = np.array([[0.0], [1.0], [1.0], [2.0]]), np.array([0.3, 0.25, 0.5, 0.0])
    model = CategoricalMixture(1, n_levels=3, smoothing=2.0).fit(x, sample_weight=w)
    counts = np.array([0.3, 0.75, 0.0])
    pseudo = 2.0 * (counts + 1 / 3) / (1.05 + 1)
    assert residual(model.probabilities_[0, 0], (counts + pseudo) / (counts + pseudo).sum()) < 1e-14


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_the_gradient_of_the_weighted_likelihood_vanishes_at_one_gaussian(kind):
    """Central differences of Σ w log N(x; m, L Lᵀ) in every entry of m and of the covariance."""
    x, w = reals(3, seed=5), np.random.default_rng(6).uniform(0, 3, N)
    model = GaussianMixture(1, kind).fit(x, sample_weight=w)
    m, C = model.mixture_.means[0], model.mixture_.covariances[0]

    def objective(m, C):
        away = x - m
        return -0.5 * w @ (np.linalg.slogdet(C)[1] + (away @ np.linalg.inv(C) * away).sum(axis=1))

    directions = [(e, np.zeros((3, 3))) for e in np.eye(3)]
    pairs = [(i, j) for i in range(3) for j in range(i, 3) if kind == "full" or i == j]
    for i, j in pairs:
        step = np.zeros((3, 3))
        step[i, j] = step[j, i] = 1
        directions.append((np.zeros(3), step))
    h = 1e-4
    for dm, dC in directions:
        here = (objective(m + h * dm, C + h * dC) - objective(m - h * dm, C - h * dC)) / (2 * h)
        assert abs(here) < 1e-5
    unweighted = GaussianMixture(1, kind).fit(x).mixture_
    up, down = (objective(unweighted.means[0] + s * h * np.eye(3)[0], C) for s in (1, -1))
    assert abs(up - down) / (2 * h) > 1  # the twin: the fit without weights is no maximum


@pytest.mark.equation(17)
@every_type
def test_every_half_step_raises_the_weighted_free_energy(kind):
    """E_w E_q log p_θ(x, z) of the M-step's θ is at least that of the θ before and of any near it."""
    x, w = reals(2, seed=8), np.random.default_rng(9).uniform(0, 2, N)
    start = Mixture([0.5, 0.5], [[0.0, 0.0], [2.0, 1.0]], np.tile(np.eye(2), (2, 1, 1)))
    log_resp, _ = e_step(x, start)
    following = m_step(x, log_resp, start, covariance_type=kind, sample_weight=w)

    def objective(mixture):
        return (w[:, None] * np.exp(log_resp) * mixture.log_joint(x)).sum()

    best = objective(following)
    assert best > objective(start)
    assert best > objective(m_step(x, log_resp, start, covariance_type=kind)) + 1e-3  # the step without weights
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = following.means + 0.01 * rng.standard_normal((2, 2))
        assert objective(Mixture(following.weights, near, following.covariances * rng.uniform(0.98, 1.02))) < best


# --- rows of weight 0 and starts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", STARTS)
def test_a_row_of_weight_0_is_absent(init):
    """Also where it would change starts, floors and checks: a fill value, a level of its own, and more rows than K."""
    x, w = reals(2), np.ones(N)
    x[[3, 7]], w[[3, 7]] = 1e30, 0.0
    here = w > 0
    options = {"n_init": 2, "init_params": init, "rng": 0}
    assert_same_fit(
        GaussianMixture(3, **options).fit(x, sample_weight=w), GaussianMixture(3, **options).fit(x[here]), 1e-12
    )
    for make in FACTORS.values():
        assert_same_fit(make(1).fit(x, sample_weight=w), make(1).fit(x[here]))
    levels = np.random.default_rng(0).integers(0, 3, (N, 2))
    levels[3] = 4
    tables = CategoricalMixture(2, n_levels=5, rng=0)
    counted, absent = tables.fit(levels, sample_weight=w), CategoricalMixture(2, n_levels=5, rng=0).fit(levels[here])
    assert_same_fit(counted, absent)


def test_what_is_said_of_rows_is_said_of_rows_with_a_weight():
    x = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [5.0, 3.0]])
    w = [1.0, 1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=r"^n_components must be at most the 3 rows of x, got 4.*weight 0"):
        GaussianMixture(4).fit(x, sample_weight=w)
    with pytest.raises(ValueError, match=r"column 0 is constant"):
        FactorAnalysis(1).fit(x, sample_weight=w)
    for model in PPCA(1), FactorAnalysis(1):
        with pytest.raises(ValueError, match=r"^sample_weight must be positive for at least 2 rows of x, got 1"):
            model.fit(x, sample_weight=[0.0, 0.0, 2.0, 0.0])


@pytest.mark.parametrize("init", STARTS)
def test_equal_weights_draw_the_same_start_as_no_weights(init):
    x, levels = reals(2), np.random.default_rng(0).integers(0, 3, (N, 2))
    plain = GaussianMixture(3, init_params=init, rng=1).fit(x)
    assert_same_fit(GaussianMixture(3, init_params=init, rng=1).fit(x, sample_weight=np.full(N, 0.3)), plain)
    tables = [CategoricalMixture(2, n_levels=3, rng=1).fit(levels, sample_weight=w) for w in (None, np.ones(N))]
    assert_same_fit(*tables)


def test_seeds_are_drawn_by_weight_times_squared_distance():
    """The exact law of two seeds on four points against counts: z < 5.5 in 12 pairs is false alarm 5e-7."""
    x, w, n = np.array([[0.0], [1.0], [3.0], [9.0]]), np.array([2.0, 0.5, 1.0, 0.0]), 20_000
    rng, counts = np.random.default_rng(0), np.zeros((4, 4))
    for _ in range(n):
        first, second = (int(np.flatnonzero(x[:, 0] == c)[0]) for c in kmeans_plus_plus(x, 2, rng, w)[:, 0])
        counts[first, second] += 1
    squared = (x - x.T) ** 2
    law = (w / w.sum())[:, None] * w * squared / (squared @ w)[:, None]
    without = squared / (4 * squared.sum(axis=1, keepdims=True))

    def z(p):
        seen = p > 0
        return (np.abs(counts - n * p)[seen] / np.sqrt(n * p * (1 - p))[seen]).max()

    assert counts[law == 0].sum() == 0
    assert z(law) < 5.5
    assert z(without) > 50  # the twin


def test_random_rows_are_drawn_by_weight():
    """The two rows are told by the larger weight of the start; 5.5 standard deviations are a false alarm of 4e-8."""
    x, w, n = np.array([[0.0], [1.0], [3.0]]), np.array([2.0, 0.5, 1.5]), 3000
    rng = np.random.default_rng(0)
    starts = [starting_mixture(x, 2, "random_from_data", rng, 1e-6, sample_weight=w).weights.max() for _ in range(n)]
    found = np.mean(np.isclose(starts, 0.5))  # rows 0 and 1, with row 2 at row 1: 2 and 0.5 + 1.5 of the weight 4
    p = w / w.sum()
    expected = p[0] * p[1] * (1 / (1 - p[0]) + 1 / (1 - p[1]))  # either row first, then the other without it
    std = np.sqrt(expected * (1 - expected) / n)
    assert abs(found - expected) < 5.5 * std
    assert abs(found - 1 / 3) > 5.5 * std  # the twin: all three pairs equally often


@every_type
def test_a_start_is_one_weighted_m_step_from_its_method(kind):
    """Composed by hand from the same draws: seeds, Lloyd's algorithm, statistics of labels, random responsibilities."""
    x, w, K = reals(2), np.random.default_rng(4).uniform(0.1, 3, N), 3
    any_law = Mixture(np.full(K, 1 / K), np.zeros((K, 2)), np.tile(np.eye(2), (K, 1, 1)))
    centred = x - np.average(x, axis=0, weights=w)
    scaled = x if kind == "spherical" else x / np.sqrt(np.average(centred**2, axis=0, weights=w))
    seeds = kmeans_plus_plus(scaled, K, np.random.default_rng(0), w)
    resp = np.random.default_rng(0).random((N, K))
    expected = {"random": m_step(x, np.log(resp / resp.sum(axis=1, keepdims=True)), any_law, 1e-6, kind, None, w)}
    for method, centres in {"k-means++": seeds, "kmeans": kmeans(scaled, seeds, sample_weight=w)}.items():
        statistics = statistics_of_labels(x, clusters(scaled, centres), any_law, w)
        expected[method] = m_step_from_statistics(statistics, any_law, 1e-6, kind)
    for method, law in expected.items():
        found = starting_mixture(x, K, method, np.random.default_rng(0), 1e-6, kind, sample_weight=w)
        for name in "weights", "means", "covariances":
            assert residual(getattr(found, name), getattr(law, name)) < 1e-13, (method, name)


@given(em_problems(modes=("plain", "duplicates")), st.integers(0, 999))
def test_kmeans_of_weighted_rows_is_that_of_repeated_rows(problem, seed):
    """While no cluster becomes empty, where one copy of a row could leave the others."""
    x, mixture = problem
    w = 1 + drawn_weights(seed, len(x))
    centres = mixture.means
    for _ in range(20):
        labels = ((x[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        if len(np.unique(labels)) < len(centres):
            return
        centres = np.array([np.average(x[labels == k], axis=0, weights=w[labels == k]) for k in range(len(centres))])
    assert residual(kmeans(x, mixture.means, 20, w), kmeans(np.repeat(x, w, axis=0), mixture.means, 20)) < 1e-12


# --- arguments --------------------------------------------------------------------------------------------------------

MODELS = [
    GaussianMixture(1),
    CategoricalMixture(1, n_levels=3),
    PPCA(1),
    PPCA(1, "em", rng=0),
    FactorAnalysis(1, rng=0),
]
LEVELS = np.arange(24.0).reshape(8, 3) % 7 % 3


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (np.ones(7), ValueError, r"shape \(N,\) = \(8,\), one weight for each row of x, got shape \(7,\)"),
        (np.ones((8, 1)), ValueError, r"got shape \(8, 1\); pass an array with one axis"),
        (2.0, ValueError, r"got shape \(\)"),
        (-np.ones(8), ValueError, r"not be negative, but sample_weight\[0\] is -1.0; pass 0"),
        (np.zeros(8), ValueError, r"not be zero for all rows"),
        (np.full(8, np.nan), ValueError, r"finite, but sample_weight\[0\] is nan"),
        (np.full(8, np.inf), ValueError, r"finite, but sample_weight\[0\] is inf"),
        (["a"] * 8, TypeError, r"real array"),
        (np.ma.masked_array(np.ones(8), [True] + [False] * 7), TypeError, r"masked"),
    ],
)
def test_wrong_weights_are_refused_by_name(model, weights, error, words):
    uses = [model.fit, lambda x, **given: list(model.train(x, **given)), model.fit(LEVELS).bic, model.aic, model.score]
    uses += [model.fit_predict] if hasattr(model, "fit_predict") else []
    for use in uses:
        with pytest.raises(error, match=rf"^sample_weight must .*{words}"):
            use(LEVELS, sample_weight=weights)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_the_second_argument_is_never_taken_for_weights(model):
    """y is ignored, as scikit-learn's Pipeline needs; weights have their name."""
    w = np.arange(8.0)
    plain = model.fit(LEVELS).score(LEVELS)
    assert model.fit(LEVELS, w).score(LEVELS) == plain
    assert model.score(LEVELS, w) == plain
    assert model.fit(LEVELS, sample_weight=w).score(LEVELS) != plain
    for use in (lambda: model.fit(LEVELS, None, w), lambda: list(model.train(LEVELS, w)), lambda: model.bic(LEVELS, w)):
        with pytest.raises(TypeError, match="positional argument"):
            use()


def test_fit_predict_uses_the_weights_and_labels_every_row():
    x, w = reals(2), drawn_weights(2)
    options = {"means_init": [[0.0, 0.0], [2.0, 2.0]], "max_iter": 5, "tol": 0.0}
    labels = GaussianMixture(2, **options).fit_predict(x, sample_weight=w)
    assert np.array_equal(labels, GaussianMixture(2, **options).fit(x, sample_weight=w).predict(x))
    assert labels.shape == (N,)


def test_weights_are_left_as_they_are():
    x, w = reals(2), np.arange(N, dtype=np.float64)
    before = w.copy()
    w.setflags(write=False)
    for model in GaussianMixture(2, rng=0), PPCA(1), FactorAnalysis(1, rng=0):
        model.fit(x, sample_weight=w)
    assert np.array_equal(w, before)


def test_lists_ints_and_flags_are_weights():
    x = reals(2)
    keep = np.arange(N) % 3 > 0
    expected = PPCA(1).fit(x[keep])
    for w in (keep, keep.astype(int), keep.tolist(), keep.astype(np.float32)):
        assert_same_fit(PPCA(1).fit(x, sample_weight=w), expected, 1e-13)


def test_a_level_without_weight_has_probability_zero_and_no_warning():
    """log P is −inf for the row of weight 0, which no mean counts."""
    x, w = np.array([[0.0], [0.0], [1.0]]), [1.0, 2.0, 0.0]
    model = CategoricalMixture(1, n_levels=2, smoothing=0.0).fit(x, sample_weight=w)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.score(x, sample_weight=w) == 0.0
        assert model.bic(x, sample_weight=w) == pytest.approx(np.log(3.0))
        assert model.score(x) == -np.inf
    law = categorical_m_step(indicators(x, 2), np.zeros((3, 1)), 0.0, w)
    assert isinstance(law, CategoricalLaw)
    assert law.probabilities[0, 0].tolist() == [1.0, 0.0]


# --- information criteria ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "n"),
    [
        (GaussianMixture(2, rng=0), 1 + 2 * 3 + 2 * 6),
        (GaussianMixture(2, "tied", rng=0), 1 + 2 * 3 + 6),
        (GaussianMixture(2, "diag", rng=0), 1 + 2 * 3 + 2 * 3),
        (GaussianMixture(2, "spherical", rng=0), 1 + 2 * 3 + 2),
        (CategoricalMixture(2, n_levels=3, rng=0), 1 + 2 * 3 * 2),
        (PPCA(1), 3 + 3 + 1),
        (PPCA(2), 3 + 3 + 2 + 1),
        (FactorAnalysis(1, rng=0), 3 + 3 + 3),
        (LinearVAE(1, n_steps=5, rng=0), 3 + 3 + 1),
        (LinearVAE(2, n_steps=5, rng=0), 3 + 3 + 2 + 1),
        (LinearVAE(1, decoder_variance="diag", n_steps=5, rng=0), 3 + 3 + 3),
        (LinearVAE(1, decoder_variance=0.5, n_steps=5, rng=0), 3 + 3),
        (LinearVAE(5, decoder_variance=0.5, n_steps=5, rng=0), 3 + 6),
    ],
    ids=repr,
)
def test_every_exact_likelihood_has_its_criteria(model, n):
    """The numbers of parameters are counted by hand: D = 3, and W without the angles of its rotations."""
    x = LEVELS if isinstance(model, CategoricalMixture) else reals(3)
    model.fit(x)
    log_likelihood, w = model.log_prob(x), np.arange(1.0, len(x) + 1)
    assert model.n_parameters_ == n
    assert model.aic(x) == pytest.approx(2 * n - 2 * log_likelihood.sum(), rel=1e-13)
    assert model.bic(x) == pytest.approx(n * np.log(len(x)) - 2 * log_likelihood.sum(), rel=1e-13)
    assert model.aic(x, sample_weight=w) == pytest.approx(2 * n - 2 * w @ log_likelihood, rel=1e-13)
    assert model.bic(x, sample_weight=w) == pytest.approx(n * np.log(w.sum()) - 2 * w @ log_likelihood, rel=1e-13)


@pytest.mark.parametrize("variance", [None, "diag", 0.5])
def test_parameters_of_a_linear_vae_are_counted_as_free_directions(variance):
    """D means, plus the rank of the derivative of W Wᵀ + Ψ in W and in the learned variances."""
    D, k = 5, 2
    model = LinearVAE(k, decoder_variance=variance, n_steps=3, rng=0).fit(reals(D))
    W, noises = model.components_, {None: [np.eye(D)], "diag": [np.diag(e) for e in np.eye(D)], 0.5: []}[variance]
    rows = [(E @ W.T + W @ E.T).ravel() for E in np.eye(D * k).reshape(-1, D, k)]
    assert model.n_parameters_ == D + np.linalg.matrix_rank(np.array(rows + [n.ravel() for n in noises]), tol=1e-9)


def test_bic_of_a_linear_vae_is_that_of_ppca_at_the_optimum():
    x = np.random.default_rng(0).standard_normal((200, 3)) * [3.0, 1.0, 1.0]
    assert LinearVAE(1, rng=0).fit(x).bic(x) == pytest.approx(PPCA(1).fit(x).bic(x), rel=1e-8)
