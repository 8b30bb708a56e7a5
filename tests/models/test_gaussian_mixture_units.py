"""GaussianMixture in any units: the fit of x · unit is the fit of x, and the floor of every column is the exact one."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from scratchgen import PPCA, CategoricalMixture, FactorAnalysis, GaussianMixture
from scratchgen.em import (
    COVARIANCE_TYPES,
    STARTS,
    clusters,
    covariance_maximum,
    floor_eigenvalues,
    floored_mixture,
    log_covariance_prior,
    nearest,
)
from scratchgen.models.gaussian_mixture import column_variances, compress, expand
from scratchgen.testing import cut, reals, size
from tests.em_helpers import at_floor, blobs, every_type
from tests.strategies import relative, residual

UNITS = {
    "1e-9": 1e-9,
    "1e9": 1e9,
    "0.3048": 0.3048,
    "own units": np.array([1e9, 1e-9, 10.0, 1e-3]),
}


def table(n=60):
    """Four columns with three groups: correlated, of one decimal, of whole numbers, and far from 0."""
    x = blobs(n, D=4)
    x[:, 1], x[:, 2] = x[:, 1].round(1), (2 * x[:, 2]).round()
    return x + np.array([0.0, 0.0, 5.0, 100.0])


def assert_fit_of(model, x, unit, other):
    """`other`, fitted to x · unit, is `model` in other units."""
    unit = np.broadcast_to(unit, x.shape[1:])
    assert abs(other.score(x * unit) + np.log(unit).sum() - model.score(x)) < 1e-9
    assert residual(other.lower_bounds_ + np.log(unit).sum(), model.lower_bounds_) < 1e-9
    assert other.n_iter_ == model.n_iter_
    assert residual(other.predict_proba(x * unit), model.predict_proba(x)) < 1e-9
    assert residual(other.weights_, model.weights_) < 1e-9
    sd = x.std(axis=0)
    assert residual((other.means_ / unit - model.means_) / sd, 0 * model.means_) < 1e-9
    area, moved = np.outer(unit, unit), other.mixture_.covariances - np.outer(unit, unit) * model.mixture_.covariances
    assert residual(moved / area / np.outer(sd, sd), 0 * moved) < 1e-9
    shape = (
        compress((area * np.outer(sd, sd))[None], other.covariance_type),
        compress(np.outer(sd, sd)[None], model.covariance_type),
    )
    precisions = other.precisions_ * shape[0], model.precisions_ * shape[1]
    assert residual(precisions[0], precisions[1]) < 1e-8 * np.abs(precisions[1]).max()


def kinds_and_units():
    """Spherical components know one unit."""
    return [(kind, unit) for kind in COVARIANCE_TYPES for unit in UNITS if kind != "spherical" or unit != "own units"]


@at_floor
@pytest.mark.parametrize("floor", [1e-6, 0.2])
@pytest.mark.parametrize("start", [*STARTS, "means"])
@pytest.mark.parametrize(("kind", "name"), kinds_and_units())
def test_the_fit_does_not_depend_on_the_units_of_the_columns(kind, name, start, floor):
    """Measured: 4e-12 at most, and whole numbers have seeds at equal distance.  With a floor of 0.2 the floor binds."""
    x, unit = table(), UNITS[name]
    options = {"init_params": start} if start in STARTS else {}
    options |= {"n_init": 2, "covariance_floor": floor, "rng": 3}

    def fit(scale):
        given_means = {"means_init": x[[0, 20, 40]] * scale} if start == "means" else {}
        return GaussianMixture(3, kind, **options, **given_means).fit(x * scale)

    model = fit(1.0)
    sd = x.std(axis=0).max() if kind == "spherical" else x.std(axis=0)
    least = np.linalg.eigvalsh(model.mixture_.covariances / sd / np.reshape(sd, (-1, 1)))[:, 0].min()
    assert least > floor * (1 - 1e-9)
    assert floor < 0.2 or least < floor * (1 + 1e-9)
    assert_fit_of(model, x, unit, fit(unit))


@at_floor
@pytest.mark.parametrize("name", UNITS)
@every_type
def test_weights_given_starts_and_warm_starts_have_no_units_either(kind, name):
    if kind == "spherical" and name == "own units":
        return
    x, unit, w = table(), UNITS[name], np.random.default_rng(0).uniform(0, 2, 60)
    first = GaussianMixture(3, kind, rng=1).fit(x, sample_weight=w)
    other = GaussianMixture(3, kind, rng=1).fit(x * unit, sample_weight=w)
    assert abs(other.score(x * unit) + np.log(unit * np.ones(4)).sum() - first.score(x)) < 1e-9
    area = compress(np.outer(unit * np.ones(4), unit * np.ones(4))[None], kind)
    start = {"weights_init": first.weights_, "means_init": first.means_, "precisions_init": first.precisions_}
    moved = start | {"means_init": first.means_ * unit, "precisions_init": first.precisions_ / area}
    options = {"covariance_floor": 0.05, "warm_start": True, "max_iter": 3, "tol": 0}  # a floor above the start
    models = GaussianMixture(3, kind, **options, **start), GaussianMixture(3, kind, **options, **moved)
    for _ in range(2):  # the second fit starts from the first
        models[0].fit(x)
        models[1].fit(x * unit)
        assert_fit_of(models[0], x, unit, models[1])


@pytest.mark.parametrize("unit", [1e-140, 1e55])
@every_type
def test_units_near_the_ends_of_float64_are_units_as_well(kind, unit):
    x = blobs(90, D=4)
    model, other = (GaussianMixture(3, kind, rng=0).fit(y) for y in (x, x * unit))
    assert abs(other.score(x * unit) + 4 * np.log(unit) - model.score(x)) < 1e-9


@every_type
def test_a_shift_of_a_million_deviations_changes_nothing_but_the_last_digits(kind):
    """x + 1e6 rounds x to 1e-10; measured: 3e-11."""
    x = blobs(200, D=4)
    model = GaussianMixture(3, kind, n_init=2, rng=0).fit(x)
    far = GaussianMixture(3, kind, n_init=2, rng=0).fit(x + 1e6)
    assert abs(far.score(x + 1e6) - model.score(x)) < 1e-9
    assert residual(far.means_ - 1e6, model.means_) < 1e-8
    assert residual(far.predict_proba(x + 1e6), model.predict_proba(x)) < 1e-8


@pytest.mark.parametrize("unit", [np.array([1e-9, 1.0, 1e9]), np.array([1e9, 1.0, 1e-9])])
def test_columns_of_weak_correlation_keep_their_digits_in_own_units(unit):
    """A correlation of 1e-7 beside units of 1e18: a pivot of the large unit would cost eight digits."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3))
    x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T  # exactly white
    x[:, 1] += 1e-7 * x[:, 0]
    x[:, 2] += 1e-7 * x[:, 1]
    model, other = GaussianMixture(1).fit(x), GaussianMixture(1).fit(x * unit)
    assert abs(other.score(x * unit) + np.log(unit).sum() - model.score(x)) < 1e-12
    assert residual(other.log_prob(x * unit) + np.log(unit).sum(), model.log_prob(x)) < 1e-12
    assert residual(other.precisions_ * np.outer(unit, unit), model.precisions_) < 1e-14
    start = {"weights_init": [1.0], "means_init": other.means_, "precisions_init": other.precisions_}
    again = GaussianMixture(1, max_iter=0, **start).fit(x * unit)
    assert abs(again.score(x * unit) - other.score(x * unit)) < 1e-12


# --- starts ----------------------------------------------------------------------------------------------------------


def test_seeds_are_chosen_in_deviations_of_each_column():
    """Two groups that only column 1 tells apart, whose unit is small: in raw units the start does not see them."""
    rng = np.random.default_rng(0)
    groups = np.repeat([0.0, 1.0], 50)
    x = np.column_stack([1e4 * rng.standard_normal(100), 1e-4 * (10 * groups + rng.standard_normal(100))])
    for start in "k-means++", "kmeans":
        model = GaussianMixture(2, "diag", init_params=start, n_init=5, rng=0).fit(x)
        assert abs(np.corrcoef(model.predict(x), groups)[0, 1]) == pytest.approx(1.0)


def test_the_start_of_spherical_components_is_by_distances_in_their_one_unit():
    x = np.column_stack([np.repeat([0.0, 9.0], 30), np.tile([0.0, 0.1], 30)])
    x += 0.01 * np.random.default_rng(0).standard_normal(x.shape)
    for seed in range(10):  # in deviations both columns would split the rows equally well
        model = GaussianMixture(2, "spherical", init_params="kmeans", max_iter=0, rng=seed).fit(x)
        assert np.ptp(model.means_[:, 0]) > 8


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 0.1, 0.3048, 1e5])
def test_a_point_between_two_centres_joins_the_first_in_any_unit(unit):
    x, centres = np.arange(-50.0, 51)[:, None], np.array([[-7.0], [3.0], [13.0]])
    expected = np.where(x[:, 0] <= -2, 0, np.where(x[:, 0] <= 8, 1, 2))
    assert np.array_equal(nearest(x * unit / 3, centres * unit / 3), expected)
    x, twice = np.array([[3.0], [-7.0], [13.0], [4.0]]), np.array([[3.0], [3.0]])
    assert clusters(x * unit / 3, twice * unit / 3).tolist() == [0, 1, 0, 0]  # the first of two points farthest away


# --- the floor of every column ----------------------------------------------------------------------------------------


@st.composite
def floors(draw):
    """Covariances (K, D, D) and a floor (D,), in units of 1e-9 to 1e9."""
    K, D = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    A, log_floor, log_unit = cut(draw(reals(size((K, D, D), (D,), (D,)), -1, 1)), (K, D, D), (D,), (D,))
    unit = 10.0 ** (9 * log_unit)
    return A @ A.swapaxes(1, 2) * np.outer(unit, unit), 10**log_floor * unit**2, unit


@pytest.mark.equation(15)
@given(floors())
def test_a_floor_of_every_column_satisfies_the_conditions_of_karush_kuhn_and_tucker(problem):
    """P = Σ⁻¹ maximises ½ log|P| − ½ tr P S for P ⪯ F⁻¹.

    The multiplier M = Σ − S must be positive semidefinite, and M (F⁻¹ − P) = 0: where M acts, the floor binds.  The
    objective is concave and the set convex, so that the conditions are sufficient.
    """
    S, floor, _ = problem
    raised = floor_eigenvalues(S, floor)
    assert np.array_equal(raised, raised.swapaxes(-1, -2))
    area = np.sqrt(np.outer(floor, floor))
    S, raised = S / area, raised / area  # in units of the floor: F = I
    scale = 1 + np.abs(S).max()
    multiplier = raised - S
    assert np.linalg.eigvalsh(raised).min() > 1 - 1e-11 * scale
    assert np.linalg.eigvalsh(multiplier).min() > -1e-11 * scale
    slack = np.eye(len(floor)) - np.linalg.inv(raised)
    assert np.abs(multiplier @ slack).max() < 1e-10 * scale


@pytest.mark.equation(15)
@pytest.mark.parametrize("prior", [None, (0.3, 2.0)])
@pytest.mark.parametrize("D", [2, 3])
@every_type
def test_a_floor_of_every_column_gives_the_maximum_that_an_optimiser_finds(kind, D, prior):
    """Σ = F^½ (I + A Aᵀ) F^½ is every feasible covariance; 5 starts, measured 2e-9."""
    rng = np.random.default_rng(D)
    B = rng.standard_normal((2, D, D))
    S, counts = B @ B.swapaxes(1, 2) / D, np.array([3.0, 5.0])
    floor = np.array([2.0, 0.05, 0.4])[:D]
    n = {"full": 2 * D * D, "tied": D * D, "diag": 2 * D, "spherical": 2}[kind]

    def covariances(a):
        if kind in ("full", "tied"):
            A = a.reshape(-1, D, D)
            return np.resize((np.eye(D) + A @ A.swapaxes(1, 2)) * np.sqrt(np.outer(floor, floor)), (2, D, D))
        if kind == "diag":
            return (floor * (1 + a.reshape(2, D) ** 2))[:, :, None] * np.eye(D)
        return (floor.max() * (1 + a**2))[:, None, None] * np.eye(D)

    def loss(C):
        fit = sum(
            0.5 * n * (np.linalg.slogdet(c)[1] + np.trace(np.linalg.solve(c, s)))
            for n, c, s in zip(counts, C, S, strict=True)
        )
        return fit if prior is None else fit - log_covariance_prior(C[:1] if kind == "tied" else C, prior)

    found = covariance_maximum(S, counts, kind, floor, prior)
    assert np.linalg.eigvalsh(found / np.sqrt(np.outer(floor, floor))).min() == pytest.approx(1, abs=1e-12)
    assert residual(expand(compress(found, kind), kind, 2, D), found) < 1e-15
    best = min(minimize(lambda a: loss(covariances(a)), rng.standard_normal(n)).fun for _ in range(5))
    assert abs(loss(found) - best) < 1e-6
    one_number = covariance_maximum(S, counts, kind, floor.max(), prior)  # the twin: another constraint
    assert kind == "spherical" or loss(one_number) - best > 1e-2


def test_one_number_is_a_floor_of_equal_columns():
    S = np.array([[[1.0, 0.9], [0.9, 1.0]], [[0.01, 0.0], [0.0, 3.0]]])
    for kind in COVARIANCE_TYPES:
        one = covariance_maximum(S, np.ones(2), kind, 0.3)
        assert residual(covariance_maximum(S, np.ones(2), kind, np.full(2, 0.3)), one) < 1e-15


@pytest.mark.parametrize(
    ("floor", "word"),
    [([0.1], "shape"), ([0.1, 0.0], "positive"), ([0.1, -1.0], "positive"), ([[0.1, 0.1]], "shape"),
     ([0.1, np.nan], "positive"), ([0.1, np.inf], "positive")],
)  # fmt: skip
def test_a_wrong_floor_of_columns_is_refused_by_name(floor, word):
    for call in (
        lambda: floor_eigenvalues(np.eye(2), np.array(floor)),
        lambda: covariance_maximum(np.eye(2)[None], np.ones(1), "diag", np.array(floor)),
        lambda: floored_mixture([1.0], [[0.0, 0.0]], [np.eye(2)], np.array(floor)),
    ):
        with pytest.raises(ValueError, match=rf"^covariance_floor.*{word}"):
            call()


def test_a_spherical_start_below_the_floor_stays_spherical():
    x = blobs(60) * [1.0, 2.0, 5.0]
    start = {"weights_init": [0.5, 0.5], "means_init": x[:2], "precisions_init": [1e9, 1e-3]}
    with pytest.warns(RuntimeWarning, match=r"components \[0\] of 2"):
        model = GaussianMixture(2, "spherical", covariance_floor=0.1, max_iter=0, **start).fit(x)
    assert model.covariances_ == pytest.approx([0.1 * x.var(axis=0).max(), 1000.0], rel=1e-12)
    assert residual(model.mixture_.covariances, model.covariances_[:, None, None] * np.eye(3)) < 1e-15


def test_variances_of_blocks_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    x, w = 1e6 + rng.standard_normal((20_000, 3)) * [1e-3, 1.0, 1e3], rng.uniform(0, 2, 20_000)
    expected = np.average((x - np.average(x, axis=0, weights=w)) ** 2, axis=0, weights=w)
    assert relative(column_variances(x, w), expected) < 1e-10  # the mean of column 0 has an error of 1e-7 deviations
    assert relative(column_variances(x, np.broadcast_to(1.0, len(x))), x.var(axis=0)) < 1e-10


# --- constant columns -------------------------------------------------------------------------------------------------


@every_type
def test_a_constant_column_is_refused_by_name_where_it_makes_the_likelihood_infinite(kind):
    x = blobs()
    x[:, 1] = 0.1
    if kind == "spherical":  # its one variance stays positive
        assert np.isfinite(GaussianMixture(2, kind, rng=0).fit(x).score(x))
        x[:, [0, 2]] = 3.0, 4.0
    column = 0 if kind == "spherical" else 1
    with pytest.raises(ValueError, match=rf"^x must vary .*, but column {column} is constant.*; drop it, since a var"):
        GaussianMixture(2, kind, rng=0).fit(x)
    small = blobs() * [1.0, 1e-160, 1.0] if kind != "spherical" else 1e-160 * blobs()
    with pytest.raises(ValueError, match=r"^x must vary by more than 1e-153"):
        GaussianMixture(2, kind, rng=0).fit(small)


# --- warnings ---------------------------------------------------------------------------------------------------------


def said(model, x, **options):
    """Warnings of a fit: text and file."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model.fit(x, **options)
    assert all(w.category is RuntimeWarning for w in record)
    assert all(w.filename == __file__ for w in record)  # the line of the caller, outside the package
    return [str(w.message) for w in record]


LEVELS = np.random.default_rng(0).integers(0, 4, (50, 3))


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda n: GaussianMixture(3, tol=1e-9, max_iter=n, n_init=3, rng=0), blobs(90)),
        (lambda n: CategoricalMixture(2, n_levels=4, tol=1e-6, max_iter=n, n_init=3, rng=0), LEVELS),
        (lambda n: PPCA(1, "em", tol=1e-9, max_iter=n, rng=0), blobs(90)),
        (lambda n: FactorAnalysis(1, tol=1e-9, max_iter=n, rng=0), blobs(90)),
    ],
    ids=["GaussianMixture", "CategoricalMixture", "PPCA by EM", "FactorAnalysis"],
)
def test_a_fit_that_has_not_converged_says_so_once_with_the_remedy(make, x):
    model = make(2)
    (text,) = said(model, x)
    assert model.converged_ is False
    gain = np.diff(model.lower_bounds_)[-1]
    assert text == (
        f"EM has not converged in max_iter = 2 iterations: the last one changed the bound by {gain:.2g} nats, and tol "
        f"is {model.tol:g}; raise max_iter or tol"
    )
    assert said(make(5000), x) == []  # raised max_iter
    assert said(make(2).set_params(tol=100.0), x) == []  # raised tol
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps = make(2).train(x)
        next(steps)  # a loop that the caller ends early says nothing
        del steps


def test_no_iterations_are_not_a_lack_of_convergence():
    assert said(GaussianMixture(2, max_iter=0, rng=0), blobs()) == []
    assert said(CategoricalMixture(2, n_levels=4, max_iter=0, rng=0), LEVELS) == []
    assert said(PPCA(1), blobs()) == []


@every_type
def test_a_floor_that_binds_is_said_once_with_components_and_remedies(kind):
    """Two of four groups are points; tied and spherical components feel the floor only together, or by their own σ²."""
    x = np.concatenate([blobs(40, D=2), np.repeat([[20.0, 20.0], [-20.0, 20.0]], 6, axis=0)])
    means = [x[:40].mean(axis=0), [20.0, 20.0], [-20.0, 20.0]]
    floor = 1e-6 if kind != "tied" else 0.2
    options = {"means_init": means, "covariance_floor": floor, "rng": 0}
    texts = said(GaussianMixture(3, kind, **options), x)
    assert len(texts) == 1
    named = "0, 1, 2" if kind == "tied" else "1, 2"
    assert texts[0].startswith(f"components [{named}] of 3 have collapsed; lower n_components, ")
    assert f"only covariance_floor, {floor:g} of the variance of each column, holds up their cov" in texts[0]
    for remedy in "lower n_components", "pass more data", "raise covariance_floor", "covariance_prior", "fill values":
        assert remedy in texts[0]
    assert said(GaussianMixture(3, kind, **options, covariance_prior=(100.0, 50.0)), x) == []  # one of the remedies
    assert said(GaussianMixture(1, kind, rng=0), x) == []  # another


def test_many_components_at_the_floor_are_not_all_named():
    x = np.random.default_rng(0).standard_normal((12, 2))
    (text,) = said(GaussianMixture(12, rng=0), x)
    assert "components [0, 1, 2, 3, 4, 5, 6, 7, 8, …] of 12" in text


def test_both_warnings_come_after_the_last_step_of_a_loop():
    x = np.concatenate([blobs(40, D=2), [[20.0, 20.0]] * 3])
    model = GaussianMixture(2, means_init=[x[0], x[-1]], max_iter=2, tol=0)
    steps = model.train(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(steps)
        next(steps)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        assert list(steps) == []
    assert [re.split(", |;| in ", str(w.message))[0] for w in record] == [
        "EM has not converged",
        "components [1] of 2 have collapsed",
    ]
