"""GaussianMixture as a model: hard data, starts, priors, covariance types, files, arguments."""

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from scratchgen import CategoricalMixture, GaussianMixture, Mixture, load
from scratchgen.em import COVARIANCE_TYPES, STARTS, e_step, kmeans, kmeans_plus_plus, m_step, nearest
from scratchgen.models.files import ModelFileError
from scratchgen.models.gaussian_mixture import expand
from tests.em_helpers import X2, at_floor, blobs, every_type, hard_data, name_cases, rise, three_blobs
from tests.frames import Frame
from tests.reliability.models import archive, members
from tests.strategies import passes_as_sample, relative, residual

# --- hard data --------------------------------------------------------------------------------------------------


@at_floor
@pytest.mark.parametrize("kind", COVARIANCE_TYPES)
@pytest.mark.parametrize("prior", [None, (1.0, 2.0)], ids=["floor", "prior"])
@pytest.mark.parametrize(("x", "K"), hard_data().values(), ids=hard_data().keys())
def test_hard_data_give_a_finite_monotone_fit(x, K, prior, kind):
    model = GaussianMixture(K, kind, tol=0, max_iter=30, covariance_prior=prior, rng=0)
    constant = np.ptp(x, axis=0) == 0
    if constant.all() or (constant.any() and kind != "spherical"):
        with pytest.raises(ValueError, match=rf"n_samples={len(x)}\), but column {constant.argmax()} is.*; drop it"):
            model.fit(x)
        return
    model.fit(x)
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
    variances = x.var(axis=0) if kind != "spherical" else np.full(x.shape[1], x.var(axis=0).max())
    values = np.linalg.eigvalsh(model.mixture_.covariances / np.sqrt(np.outer(variances, variances)))
    assert values.min() > 0.999e-6 - 1e-14 * values.max()


@at_floor
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e3, 1e9])
def test_collinear_data_are_fitted_with_the_floor_in_two_directions(scale):
    """The rounding of a covariance moves the bound by about ε λ_max/floor, which is 1e-12 here."""
    x = scale * np.random.default_rng(12).standard_normal((24, 1)) * [1.0, 2.0, 3.0]
    model = GaussianMixture(2, tol=0, max_iter=30, covariance_floor=1e-3, rng=0).fit(x)
    assert rise(model.lower_bounds_) > -1e-9
    assert residual(model.elbo(x), model.log_prob(x)) < 1e-9
    values = np.linalg.eigvalsh(model.covariances_ / np.outer(x.std(axis=0), x.std(axis=0)))
    assert relative(values[:, :2], np.full((2, 2), 1e-3)) < 1e-6


@at_floor
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_a_floor_below_rounding_is_refused_or_kept(kind):
    """Collinear columns, for which no float64 matrix can hold a floor of 1e-17 of the variances."""
    for seed in range(7):
        rng = np.random.default_rng(seed)
        a = rng.normal(1e5, 5e4, 40).round()
        x = np.column_stack([a, 2 * a, rng.integers(0, 2, 40)])
        lost = r"^covariance_floor is lost to rounding beside variances .* times as large; raise .* by a factor of \d"
        with pytest.raises(ValueError, match=lost):
            GaussianMixture(2, kind, tol=0, covariance_floor=1e-17, rng=0).fit(x)
        model = GaussianMixture(2, kind, tol=0, covariance_floor=1e-9, rng=0).fit(x)
        assert rise(model.lower_bounds_) > -1e-6


def test_components_that_start_far_away_come_back():
    """All components start at +100, where naive densities are 0/0."""
    x = three_blobs()
    for means in ([[100.0, 100.0], [101.0, 100.0]], [[1e3, 0.0], [0.0, 0.0]]):
        start = {"weights_init": [0.5, 0.5], "means_init": means, "precisions_init": [np.eye(2)] * 2}
        model = GaussianMixture(2, tol=0, max_iter=40, rng=0, **start).fit(x)
        assert rise(model.lower_bounds_) > -1e-12
        assert model.score(x) >= GaussianMixture(1).fit(x).score(x) - 1e-9


def test_seventy_dimensions_of_variance_1e_minus_10_do_not_underflow():
    """Densities of e^±800 need logarithms."""
    rng = np.random.default_rng(0)
    centres = 1e-4 * rng.standard_normal((2, 70))
    x = np.repeat(centres, 100, axis=0) + 1e-5 * rng.standard_normal((200, 70))
    model = GaussianMixture(2, "diag", n_init=2, rng=0).fit(x)
    labels = model.predict(x)
    assert len({labels[0], labels[100]}) == 2
    assert len(set(labels[:100])) == len(set(labels[100:])) == 1
    assert model.score(x) > 600
    scaled = GaussianMixture(2, "diag", n_init=2, rng=0).fit(1e5 * x)
    assert abs(model.score(x) - scaled.score(1e5 * x) - 70 * np.log(1e5)) < 1e-6


# --- the estimator ----------------------------------------------------------------------------------------------


@pytest.mark.equation(8)
def test_elbo_is_log_prob_and_score_is_its_mean():
    """(8) at q = p_θ(z | x), where the bound is an equality."""
    x = three_blobs()
    model = GaussianMixture(3, rng=0).fit(x)
    new = three_blobs(seed=9)
    assert residual(model.elbo(new), model.log_prob(new)) < 1e-12
    assert residual(model.log_prob(new), model.mixture_.log_prob(new)) < 1e-15
    assert np.array_equal(model.score_samples(new), model.log_prob(new))
    assert model.score(new) == model.log_prob(new).mean()


@pytest.mark.equation(8, 18)
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


def test_the_fit_starts_at_the_given_parameters():
    x = three_blobs()
    start = {
        "weights_init": [0.2, 0.8],
        "means_init": [[0.0, 0.0], [3.0, 1.0]],
        "precisions_init": [[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]],
    }
    given_start = Mixture(start["weights_init"], start["means_init"], np.linalg.inv(start["precisions_init"]))
    model = GaussianMixture(2, max_iter=1, **start).fit(x)
    assert residual(model.lower_bounds_[0], given_start.log_prob(x).mean()) < 1e-13
    following = m_step(x, e_step(x, given_start)[0], given_start, 1e-6 * x.var(axis=0))
    assert residual(model.means_, following.means) < 1e-12


@pytest.mark.parametrize("name", ["weights_init", "means_init", "precisions_init"])
def test_each_part_of_a_start_can_be_given_alone(name):
    """The M-step on the points nearest to the means gives the other parts."""
    x = three_blobs()
    value = {
        "weights_init": [0.1, 0.9],
        "means_init": [[0.0, 0.0], [3.0, 1.0]],
        "precisions_init": [np.diag([5.0, 1.0]), np.diag([1.0, 7.0])],
    }[name]
    start = GaussianMixture(2, max_iter=0, rng=0, **{name: value}).fit(x)
    actual = {"weights_init": start.weights_, "means_init": start.means_, "precisions_init": start.precisions_}[name]
    assert residual(actual, np.asarray(value)) < 1e-12


@at_floor
def test_start_below_the_floor_is_lifted_so_that_the_bound_never_falls():
    """The initial covariances must satisfy the floor, or the first M-step lowers the likelihood."""
    x = 1e-2 * np.random.default_rng(0).standard_normal((20, 1))
    model = GaussianMixture(1, means_init=[[0.0]], precisions_init=[[[1e4]]], covariance_floor=1.0).fit(x)
    assert rise(model.lower_bounds_) > -1e-12


@at_floor
@pytest.mark.parametrize(
    ("model", "x", "seed"),
    [
        (GaussianMixture(4), three_blobs(40, spread=0.5), 5),
        (CategoricalMixture(3, n_levels=3, max_iter=5, tol=0), np.random.default_rng(1).integers(0, 3, (60, 4)), 8),
    ],
    ids=["GaussianMixture", "CategoricalMixture"],
)
def test_more_starts_keep_the_best(model, x, seed):
    """n_init runs with one Generator equal n_init single fits with it; the fit with the largest bound is kept."""
    cls, given, rng = type(model), model.get_params(), np.random.default_rng(seed)
    single = [cls(**given | {"rng": rng}).fit(x) for _ in range(6)]
    finals = [fitted.lower_bounds_[-1] for fitted in single]
    assert max(finals) - min(finals) > 1e-3
    assert np.argmax(finals) not in (0, 5)  # the best is neither the first nor the last
    many, best = cls(**given | {"n_init": 6, "rng": seed}), single[int(np.argmax(finals))]
    states = list(many.train(x))
    assert [state.step for state in states] == list(range(1, sum(fitted.n_iter_ for fitted in single) + 1))
    assert {state.n_steps for state in states} == {6 * model.max_iter}
    for name in best._fitted:
        assert np.array_equal(getattr(many, name), getattr(best, name))


def test_convergence_is_reported_even_if_the_last_step_gains_nothing():
    """Two clusters without overlap: one step reaches the maximum, the next gains 0 < tol."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((20, 1)), 100 + rng.standard_normal((20, 1))])
    model = GaussianMixture(2, means_init=[[1.0], [101.0]])
    n_steps = len(list(model.train(x)))
    assert n_steps < 100
    assert model.converged_ is True
    assert model.n_iter_ == n_steps


def test_reaching_max_iter_is_not_convergence():
    model = GaussianMixture(3, tol=0, max_iter=2, rng=0).fit(three_blobs())
    assert model.converged_ is False
    assert model.n_iter_ == 2


def test_gaussian_mixture_samples_have_its_law():
    model = GaussianMixture(3, rng=0).fit(three_blobs(300))
    assert passes_as_sample(model.sample(20_000, rng=1), model.mixture_)
    assert not passes_as_sample(model.sample(20_000, rng=1) + 0.1, model.mixture_)


# --- covariance types and the prior -----------------------------------------------------------------------------


def test_a_prior_acts_as_extra_examples_of_its_variance():
    """One component: Σ = (N S + count · variance · I)/(N + count)."""
    x = blobs()
    covariance = GaussianMixture(1, covariance_prior=(2.0, 0.5)).fit(x).covariances_[0]
    assert residual(covariance, (60 * np.cov(x.T, bias=True) + np.eye(3)) / 60.5) < 1e-12
    model = GaussianMixture(1, covariance_prior=(2.0, 30.0)).fit(x)
    S = np.cov(x.T, bias=True)
    assert residual(model.covariances_[0], (60 * S + 60 * np.eye(3)) / 90) < 1e-12
    log_prior = (
        -0.5 * 30 * (2 * np.trace(np.linalg.inv(model.covariances_[0])) + np.linalg.slogdet(model.covariances_[0])[1])
    )
    assert model.lower_bounds_[-1] == pytest.approx(model.score(x) + log_prior / 60, rel=1e-12)


@at_floor
def test_prior_keeps_a_component_on_one_point_from_collapsing():
    x = np.concatenate([blobs(30), [[50.0, 50.0, 50.0]]])
    start = {"means_init": [x[:30].mean(axis=0), x[-1]], "max_iter": 50, "tol": 0}
    prior = GaussianMixture(2, covariance_prior=(1.0, 4.0), covariance_floor=1e-12, **start).fit(x)
    assert residual(prior.covariances_[1], np.eye(3) * 4 / 5) < 1e-9
    floored = GaussianMixture(2, covariance_floor=1e-6, **start).fit(x)
    assert residual(floored.covariances_[1] / x.var(axis=0), 1e-6 * np.eye(3)) < 1e-17


@every_type
def test_parameters_have_the_shape_of_their_type_and_are_counted(kind, tmp_path):
    x, K, D = blobs(), 2, 3
    model = GaussianMixture(K, covariance_type=kind, rng=0).fit(x)
    shape, n = {"full": ((K, D, D), 12), "tied": ((D, D), 6), "diag": ((K, D), 6), "spherical": ((K,), 2)}[kind]
    assert model.covariances_.shape == shape
    assert model.n_parameters_ == K - 1 + K * D + n
    log_likelihood = model.log_prob(x).sum()
    assert model.aic(x) == pytest.approx(2 * (K - 1 + K * D + n) - 2 * log_likelihood, rel=1e-14)
    assert model.bic(x) == pytest.approx(np.log(60) * (K - 1 + K * D + n) - 2 * log_likelihood, rel=1e-14)
    assert np.all(np.diff(model.lower_bounds_) >= -1e-12)
    model.save(tmp_path / "m.npz")
    assert np.array_equal(GaussianMixture.load(tmp_path / "m.npz").log_prob(x), model.log_prob(x))
    whole = expand(model.precisions_, kind, K, D) @ expand(model.covariances_, kind, K, D)
    assert residual(whole, np.tile(np.eye(D), (K, 1, 1))) < 1e-12
    start = {"weights_init": model.weights_, "means_init": model.means_, "precisions_init": model.precisions_}
    again = GaussianMixture(K, covariance_type=kind, max_iter=1, tol=0, **start).fit(x)
    assert again.lower_bounds_[0] == pytest.approx(model.score(x), rel=1e-12)


@at_floor
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_precisions_of_flat_components_are_accepted_as_a_start(kind):
    """20 points of rank 2 in 10 dimensions: eigenvalues of 1e6 and 1, where an inverse is not exactly symmetric."""
    x = np.random.default_rng(0).standard_normal((20, 2)) @ np.random.default_rng(1).standard_normal((2, 10))
    model = GaussianMixture(2, kind, rng=0).fit(x)
    assert np.array_equal(model.precisions_, model.precisions_.swapaxes(-1, -2))
    start = {"weights_init": model.weights_, "means_init": model.means_, "precisions_init": model.precisions_}
    again = GaussianMixture(2, kind, max_iter=0, **start).fit(x)
    assert again.score(x) == pytest.approx(model.score(x), abs=1e-4)
    crooked = 1e-10 * np.array([[1.0, 0.5], [-0.5, 1.0]])
    with pytest.raises(ValueError, match=r"^precisions_init must be symmetric"):
        GaussianMixture(1, precisions_init=[crooked]).fit(x[:, :2])


def test_bic_finds_the_number_of_components():
    x = blobs(300)
    bic = [GaussianMixture(K, n_init=3, rng=0).fit(x).bic(x) for K in (1, 2, 3, 4)]
    assert np.argmin(bic) == 2


# --- where to start ---------------------------------------------------------------------------------------------


@at_floor
@every_type
@pytest.mark.parametrize("start", STARTS)
def test_every_start_converges_to_a_better_fit_than_one_gaussian(kind, start):
    x = blobs(90)
    model = GaussianMixture(3, covariance_type=kind, init_params=start, n_init=5, tol=1e-8, max_iter=500, rng=0).fit(x)
    assert model.converged_
    assert model.score(x) > GaussianMixture(1, covariance_type=kind).fit(x).score(x) + 0.1


def test_starts_differ_and_the_kmeans_start_is_kmeans():
    x = blobs(90)
    bounds = {s: GaussianMixture(3, init_params=s, max_iter=1, rng=0).fit(x).lower_bounds_ for s in STARTS}
    assert len({b[0] for b in bounds.values()}) == 4
    deviations = x.std(axis=0)
    centres = deviations * kmeans(x / deviations, kmeans_plus_plus(x / deviations, 3, np.random.default_rng(0)))
    by_hand = GaussianMixture(3, means_init=centres, max_iter=1).fit(x).lower_bounds_
    assert residual(bounds["kmeans"], by_hand) < 1e-12


@at_floor
def test_start_from_data_is_distinct_rows_each_as_likely_as_any_other():
    """4 rows in one column: all 6 pairs by a chi-square test; with `max_iter=0` the fit is the start."""
    x = np.array([[0.0], [3.0], [30.0], [33.0]])  # the means of all groups are whole numbers
    rng, counts = np.random.default_rng(0), dict.fromkeys(itertools.combinations(range(4), 2), 0)
    nearest_means = {
        pair: np.sort([x[nearest(x, x[list(pair)]) == k].mean() for k in (0, 1)]).tolist() for pair in counts
    }
    seen = [
        np.sort(GaussianMixture(2, max_iter=0, init_params="random_from_data", rng=rng).fit(x).means_[:, 0]).tolist()
        for _ in range(2000)
    ]
    expected = {str(means): 0 for means in nearest_means.values()}
    for means in nearest_means.values():
        expected[str(means)] += 2000 / 6
    observed = [sum(str(means) == key for means in seen) for key in expected]
    assert sum(observed) == 2000
    assert stats.chisquare(observed, list(expected.values())).pvalue > 1e-7
    assert stats.chisquare(observed, np.full(len(observed), 2000 / len(observed))).pvalue < 1e-7


def test_no_iterations_keep_the_best_start():
    x, start = blobs(), {"weights_init": [0.2, 0.8], "means_init": [[0.0] * 3, [1.0] * 3]}
    given_start = GaussianMixture(2, max_iter=0, precisions_init=np.array([np.eye(3)] * 2), **start).fit(x)
    assert np.array_equal(given_start.means_, start["means_init"])
    assert np.array_equal(given_start.weights_, start["weights_init"])
    assert residual(given_start.covariances_, np.array([np.eye(3)] * 2)) < 1e-15
    assert given_start.lower_bounds_ == pytest.approx([given_start.score(x)])
    assert (given_start.converged_, given_start.n_iter_) == (False, 0)
    rng = np.random.default_rng(6)
    single = [GaussianMixture(3, max_iter=0, rng=rng).fit(x).score(x) for _ in range(5)]
    assert GaussianMixture(3, max_iter=0, n_init=5, rng=6).fit(x).score(x) == max(single)
    assert np.argmax(single) not in (0, 4)
    levels = np.random.default_rng(0).integers(0, 3, (20, 2))
    tables = CategoricalMixture(2, n_levels=3, max_iter=0, rng=0).fit(levels)
    assert (tables.n_iter_, len(tables.lower_bounds_)) == (0, 1)
    assert tables.score(levels) < CategoricalMixture(2, n_levels=3, max_iter=1, rng=0).fit(levels).score(levels)


def test_fit_predict_is_fit_and_predict():
    x, levels = blobs(), np.random.default_rng(0).integers(0, 3, (20, 2))
    model = GaussianMixture(3, rng=0).fit(100 * x)
    assert np.array_equal(model.fit_predict(x), GaussianMixture(3, rng=0).fit(x).predict(x))
    tables = CategoricalMixture(2, n_levels=3, rng=0)
    assert np.array_equal(tables.fit_predict(levels), tables.fit(levels).predict(levels))


@pytest.mark.parametrize("model", [GaussianMixture(5), CategoricalMixture(5, n_levels=9)], ids=repr)
def test_more_components_than_rows_are_refused(model):
    with pytest.raises(
        ValueError, match=r"^n_components must be at most the 3 rows of x, got 5; lower it or pass more data"
    ):
        model.fit(np.arange(6.0).reshape(3, 2))


@at_floor
def test_warm_start_continues():
    x = blobs()
    whole = GaussianMixture(3, tol=0, max_iter=12, rng=0).fit(x)
    parts = GaussianMixture(3, tol=0, max_iter=5, warm_start=True, n_init=4, rng=0).fit(x)
    first = parts.lower_bounds_
    parts.set_params(max_iter=7).fit(x)
    assert parts.n_iter_ <= 7
    assert parts.lower_bounds_[0] == first[-1]
    again = GaussianMixture(3, tol=0, max_iter=5, rng=0).fit(x)
    again.set_params(max_iter=7, warm_start=True).fit(x)
    assert np.array_equal(again.means_, whole.means_)
    other = GaussianMixture(3, "full", tol=0, max_iter=5, rng=0).fit(x).set_params(warm_start=True)
    for change in {"covariance_type": "spherical"}, {"covariance_floor": 1.0}, {"covariance_type": "tied"}:
        states = list(other.set_params(**change, max_iter=4).train(x))
        assert states[-1].n_steps == 4
        assert np.all(np.diff(other.lower_bounds_) >= -1e-12)
        assert residual(expand(other.covariances_, other.covariance_type, 3, 3), other.mixture_.covariances) < 1e-15
    with pytest.raises(
        ValueError, match=r"^x and n_components must be as in the last fit, 3 columns and 3, .* got 3 and 2"
    ):
        again.set_params(n_components=2).fit(x)


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    name_cases(
        [
            ({"covariance_type": "round"}, ValueError, "covariance_type"),
            ({"init_params": "best"}, ValueError, "init_params"),
            ({"covariance_prior": 1.0}, ValueError, "covariance_prior"),
            ({"covariance_prior": (1.0,)}, ValueError, "covariance_prior"),
            ({"covariance_prior": (0.0, 1.0)}, ValueError, "covariance_prior's variance"),
            ({"covariance_prior": (1.0, -1.0)}, ValueError, "covariance_prior's count"),
            # without examples in the prior an empty component would collapse
            ({"covariance_prior": (1.0, 0.0)}, ValueError, "covariance_prior's count"),
            ({"covariance_type": "diag", "precisions_init": np.ones((3, 2))}, ValueError, "precisions_init"),
            ({"covariance_type": "spherical", "precisions_init": [-1.0, 1.0]}, ValueError, "precisions_init"),
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
def test_an_invalid_mixture_argument_is_refused_by_name(arguments, error, name):
    with pytest.raises(error, match=rf"^{name} must "):
        GaussianMixture(**{"n_components": 2, **arguments}).fit(X2)


# --- rounding, failure, state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [*STARTS, "means"])
def test_float32_rows_far_from_zero_give_the_fit_of_float64(start):
    """300,000 rows near 1000: the mean from a float32 sum has an error of 0.8."""
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((300_000, 2)) * [1.0, 0.3]).astype(np.float32)
    options = {"means_init": [[1000.0, 1000.0]]} if start == "means" else {"init_params": start}
    model = GaussianMixture(1, max_iter=2, tol=0, rng=0, **options).fit(x)
    exact = x.astype(np.float64)
    assert np.abs(model.means_[0] - exact.mean(axis=0)).max() < 1e-9
    assert np.abs(model.covariances_[0] - np.cov(exact.T, bias=True)).max() < 1e-9
    assert np.abs(x.mean(axis=0) - exact.mean(axis=0)).max() > 0.5  # the error of a float32 sum


@every_type
def test_fitted_attributes_are_those_of_the_mixture_after_every_step(kind):
    x = three_blobs()
    model = GaussianMixture(3, kind, tol=0, max_iter=3, n_init=2, rng=0)
    for _ in model.train(x):
        assert np.array_equal(model.weights_, model.mixture_.weights)
        assert np.array_equal(model.means_, model.mixture_.means)
        assert np.array_equal(expand(model.covariances_, kind, 3, 2), model.mixture_.covariances)
        copy = GaussianMixture(3, kind).set_fitted(
            **{name: getattr(model, name) for name in (*model._fitted, "n_features_in_")}
        )
        assert np.array_equal(copy.log_prob(x), model.log_prob(x))
        assert model.score(x) == pytest.approx(model.lower_bounds_[-1], rel=1e-12)


def test_labels_of_samples_compose_with_frames(monkeypatch):
    x = np.concatenate([np.random.default_rng(0).standard_normal((50, 2)) + shift for shift in (-9, 9)])
    model = GaussianMixture(2, rng=0).fit(Frame(x, ["a", "b"]))
    points, labels = model.sample(40, rng=1, return_labels=True)
    assert points.tobytes() == model.sample(40, rng=1).tobytes()
    assert np.array_equal(model.predict(points), labels)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda x, columns: Frame(x, columns)))
    frame, same = model.sample(40, rng=1, return_labels=True, as_frame=True)
    assert frame.columns == ["a", "b"]
    assert np.array_equal(same, labels)
    with pytest.raises(TypeError, match="return_labels must be"):
        model.sample(3, return_labels="yes")


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("weights_init", "", "weights_init must be a real array"),
        ("means_init", [[1.0]], "means_init must have 2 columns"),
        ("precisions_init", [[1.0]], "precisions_init must have shape"),
    ],
)
def test_initial_values_are_checked_where_no_run_uses_them(name, wrong, message, tmp_path):
    """A warm start ignores them, and a file held them; the training that came from the file could not go on."""
    x = np.random.default_rng(0).standard_normal((30, 2))
    model = GaussianMixture(2, rng=0, warm_start=True).fit(x)
    model.save(tmp_path / "model.npz")
    header, parts = members((tmp_path / "model.npz").read_bytes())
    header["params"][name] = wrong
    (tmp_path / "model.npz").write_bytes(archive(header, parts))
    with pytest.raises(ModelFileError, match=message):
        load(tmp_path / "model.npz")
    with pytest.raises((ValueError, TypeError), match=message):
        model.set_params(**{name: wrong}).fit(x)
