"""GaussianMixture and PPCA on rows with missing values: verbs, fits, recovery of parameters, imputation, refusals."""

import numpy as np
import pytest

from scratchgen import DDPM, PPCA, VAE, CategoricalMixture, FactorAnalysis, GaussianMixture, Mixture, NoiseSchedule
from scratchgen.em import ObservedMixture
from tests.em_helpers import at_floor, rise
from tests.frames import NA, Frame
from tests.strategies import relative, residual

LAW = Mixture(
    [0.4, 0.6], [[-2.0, 0.0, 1.0], [2.0, 1.0, -1.0]], [np.eye(3) + 0.5, [[1, 0.6, 0], [0.6, 1, -0.4], [0, -0.4, 0.5]]]
)


def with_gaps(x, share=0.2, seed=0):
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


FULL = LAW.sample(300, rng=1)
X = with_gaps(FULL)
X[np.isnan(X).all(axis=1)] = FULL[np.isnan(X).all(axis=1)]
X[[50, 200]] = np.nan
MODELS = {
    "GaussianMixture": lambda **options: GaussianMixture(2, tol=1e-10, max_iter=2000, rng=0, **options),
    "PPCA": lambda **options: PPCA(1, **options),
    "PPCA by EM": lambda **options: PPCA(1, "em", rng=0, **options),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def law_of(model):
    """The fitted law as a mixture, whose marginals share no code with PPCA."""
    if isinstance(model, GaussianMixture):
        return model.mixture_
    return Mixture([1.0], [model.mean_], [model.covariance()])


# --- verbs --------------------------------------------------------------------------------------------------


@every_model
def test_every_verb_takes_the_law_of_the_observed_values(kind):
    model = MODELS[kind]().fit(X)
    law = law_of(model)
    assert np.isnan(X).all(axis=1).sum() == 2
    for n, row in enumerate(X[:60]):
        a = np.flatnonzero(~np.isnan(row))
        expected = law.marginal(a).log_prob(row[None, a])[0] if len(a) else 0.0
        assert abs(model.log_prob(X[[n]])[0] - expected) < 1e-12
    assert residual(model.elbo(X), model.log_prob(X)) < 1e-12
    assert model.score(X) == pytest.approx(model.lower_bounds_[-1], rel=1e-12)
    assert rise(model.lower_bounds_) > -1e-12
    kept = ~np.isnan(X).any(axis=1)
    assert relative(model.log_prob(X)[kept], model.log_prob(FULL[kept])) < 1e-12
    assert model.bic(X) == pytest.approx(-2 * model.log_prob(X).sum() + model.n_parameters_ * np.log(300), rel=1e-13)
    if kind == "GaussianMixture":
        assert residual(model.predict_proba(X).sum(axis=1), np.ones(300)) < 1e-14
        for row, resp in zip(X[:60], model.predict_proba(X), strict=False):
            a = np.flatnonzero(~np.isnan(row))
            assert residual(resp, law.marginal(a).posterior(row[None, a])[0] if len(a) else law.weights) < 1e-12
        assert np.array_equal(model.predict(X), model.predict_proba(X).argmax(axis=1))
    else:
        M = model.components_.T @ model.components_
        for row, z in zip(X[:60], model.encode(X), strict=False):
            a = ~np.isnan(row)
            W = model.components_[a]
            exact = np.linalg.solve(W.T @ W + model.noise_variance_ * np.eye(len(M)), W.T @ (row - model.mean_)[a])
            assert residual(z, exact) < 1e-12
        assert rise(model.free_energies_) > -1e-12
        assert len(model.free_energies_) == 2 * model.n_iter_ + 1
        assert model.converged_


@every_model
def test_imputed_values_are_conditional_means_and_nothing_else_changes(kind):
    model = MODELS[kind]().fit(X)
    filled, law = model.impute(X), law_of(model)
    seen = ~np.isnan(X)
    assert np.array_equal(filled[seen], X[seen])
    for row, mean in zip(X[:60], filled, strict=False):
        a = np.flatnonzero(~np.isnan(row))
        if 0 < len(a) < 3:
            rest = law.conditional({int(d): row[d] for d in a})
            assert residual(mean[np.isnan(row)], rest.mean()) < 1e-12
    empty = np.isnan(X).all(axis=1)
    assert residual(filled[empty], np.tile(law.mean(), (2, 1))) < 1e-12
    assert np.array_equal(model.impute(FULL), FULL)
    error, plain = ((values - FULL)[~seen].std() for values in (filled, np.where(seen, X, np.nanmean(X, axis=0))))
    assert error < 0.95 * plain


def test_the_maximum_is_flat_for_ppca_too():
    """By differences of the likelihood along random directions, at convergence; both methods meet there."""
    x = with_gaps(np.random.default_rng(0).standard_normal((200, 2)) @ [[2, 1, 0, 1], [0, 1, 2, -1]] + 3.0)
    x += 0.5 * np.random.default_rng(1).standard_normal(x.shape)
    closed = PPCA(2, tol=0, max_iter=2000).fit(x)
    by_em = PPCA(2, "em", tol=0, max_iter=6000, rng=0).fit(x)
    assert closed.score(x) == pytest.approx(by_em.score(x), abs=1e-9)
    assert residual(closed.covariance(), by_em.covariance()) < 1e-4
    rng, W, mean, noise = np.random.default_rng(2), closed.components_, closed.mean_, closed.noise_variance_

    def log_likelihood(s, a, b, c):
        moved = W + s * a, mean + s * b, noise + s * c
        law = Mixture([1.0], [moved[1]], [moved[0] @ moved[0].T + moved[2] * np.eye(4)])
        return ObservedMixture(law).log_prob(x).mean()

    for _ in range(10):
        direction = rng.standard_normal(W.shape), rng.standard_normal(4), rng.standard_normal()
        slope = (log_likelihood(1e-5, *direction) - log_likelihood(-1e-5, *direction)) / 2e-5
        assert abs(slope) < 1e-6


# --- fits ---------------------------------------------------------------------------------------------------


@every_model
def test_weights_of_rows_are_repeated_rows_and_empty_rows_do_not_change_the_fit(kind):
    w = np.random.default_rng(3).integers(0, 3, 300)
    start = {"means_init": LAW.means, "weights_init": LAW.weights} if kind == "GaussianMixture" else {}
    weighted = MODELS[kind](**start).fit(X, sample_weight=w)
    repeated = MODELS[kind](**start).fit(np.repeat(X, w, axis=0))
    assert relative(law_of(weighted).covariances, law_of(repeated).covariances) < 1e-6
    assert weighted.lower_bounds_[-1] == pytest.approx(repeated.lower_bounds_[-1], rel=1e-9)
    kept = ~np.isnan(X).all(axis=1)
    without, whole = MODELS[kind](**start).fit(X[kept]), MODELS[kind](**start).fit(X)
    assert relative(law_of(without).covariances, law_of(whole).covariances) < 1e-4
    assert without.score(X[kept]) * kept.sum() == pytest.approx(whole.score(X) * 300, rel=1e-8)


def recovered(fit, x, mean, covariance, standard_errors):
    """Largest distance of the mean and the covariance of a fit from the truth, in standard errors."""
    model = fit(x)
    law = law_of(model)
    return max(
        (np.abs(law.means[0] - mean) / standard_errors[0]).max(),
        (np.abs(law.covariances[0] - covariance) / standard_errors[1]).max(),
    )


@pytest.mark.parametrize("kind", ["GaussianMixture", "PPCA"])
def test_parameters_are_recovered_from_rows_with_gaps(kind):
    """20 % missing, N = 4000, within six standard errors: a false alarm has the probability 12 · 2e-9.

    The standard errors are those of the pairs of observed values, 64 % of the rows; the maximum of the likelihood has
    smaller ones.  Columns filled with their means, the twin, must fail.  In 40 draws the largest distances were 3.1 at
    most, and those of the twin 10 at least.
    """
    W, mean, N = np.array([[2.0], [1.5], [-1.0]]), np.array([1.0, -2.0, 30.0]), 4000
    C = W @ W.T + 0.5 * np.eye(3)
    full = Mixture([1.0], [mean], [C]).sample(N, rng=5)
    x = with_gaps(full, seed=6)
    spread = np.sqrt(np.outer(np.diag(C), np.diag(C)) + C**2)
    errors = np.sqrt(np.diag(C) / (0.8 * N)), spread / np.sqrt(0.64 * N)
    fit = GaussianMixture(1, tol=1e-9).fit if kind == "GaussianMixture" else PPCA(1).fit
    assert recovered(fit, full, mean, C, errors) < 6
    assert recovered(fit, x, mean, C, errors) < 6
    filled = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    assert recovered(fit, filled, mean, C, errors) > 6


def test_values_missing_at_random_do_not_bias_the_fit():
    """Column 1 is missing wherever column 0 is large: the mean of its observed values is wrong, that of EM is not.

    The standard error is that of a regression at the mean of column 0.  Six of them: a false alarm has
    the probability 2e-9.
    """
    N, law = 2000, Mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.8], [0.8, 1.0]]])
    x = law.sample(N, rng=7)
    x[x[:, 0] > 0, 1] = np.nan
    seen = x[~np.isnan(x[:, 1]), 0]
    variance = 0.36 * (1 / len(seen) + (x[:, 0].mean() - seen.mean()) ** 2 / (len(seen) * seen.var())) + 0.64 / N
    model = GaussianMixture(1, tol=1e-12, max_iter=3000).fit(x)
    assert abs(model.means_[0, 1]) < 6 * variance**0.5
    assert abs(np.nanmean(x[:, 1])) > 6 * variance**0.5
    assert abs(GaussianMixture(1).fit(np.where(np.isnan(x), np.nanmean(x, axis=0), x)).means_[0, 1]) > 6 * variance**0.5


def test_components_are_recovered_from_rows_with_gaps():
    """Two components in three dimensions: the fit to gaps is as close to the truth as its larger errors allow.

    Means of observed values of one component have errors of at most √(1.5/(0.4 · 0.8 N)); six of them, for certain
    labels; the labels here are known to 97 %, so that eight are allowed.
    """
    full = LAW.sample(6000, rng=8)
    model = GaussianMixture(2, n_init=3, tol=1e-8, max_iter=500, rng=0).fit(with_gaps(full))
    order = np.argsort(model.means_[:, 0])
    assert np.abs(model.means_[order] - LAW.means).max() < 8 * np.sqrt(1.5 / (0.4 * 0.8 * 6000))
    assert np.abs(model.covariances_[order] - LAW.covariances).max() < 8 * np.sqrt(2) * 1.5 / np.sqrt(0.4 * 0.64 * 6000)
    assert np.abs(model.weights_[order] - LAW.weights).max() < 0.06


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_of_columns_shift_the_likelihood_of_their_observed_values(unit):
    units = np.array([1.0, unit, 1.0])
    one, two = (GaussianMixture(2, tol=1e-9, max_iter=500, rng=0).fit(x) for x in (X, X * units))
    shift = np.log(unit) * (~np.isnan(X[:, 1])).mean()
    assert two.score(X * units) + shift == pytest.approx(one.score(X), abs=1e-8)


@at_floor
def test_the_floor_is_a_fraction_of_the_variance_of_observed_values():
    w = np.random.default_rng(0).random(300)
    model = GaussianMixture(2, covariance_floor=0.6, tol=1e-9, rng=0).fit(X, sample_weight=w)
    seen = ~np.isnan(X)
    variances = [np.cov(X[s, d], bias=True, aweights=w[s]) for d, s in enumerate(seen.T)]
    least = np.linalg.eigvalsh(model.covariances_ / np.sqrt(np.outer(variances, variances))).min()
    assert least == pytest.approx(0.6, rel=1e-12)


@pytest.mark.parametrize("start", ["k-means++", "kmeans", "random_from_data", "random"])
def test_every_start_takes_gaps_and_a_warm_start_goes_on(start):
    model = GaussianMixture(2, init_params=start, tol=1e-8, max_iter=1000, warm_start=True, rng=0).fit(X)
    bounds = model.lower_bounds_
    assert rise(bounds) > -1e-12
    assert np.abs(np.sort(model.means_[:, 0]) - LAW.means[:, 0]).max() < 0.5
    assert model.fit(X).lower_bounds_[0] == bounds[-1]
    assert model.n_iter_ <= 2


@at_floor
def test_hard_rows_stay_finite():
    """One observed value a row, columns never seen together, and as many components as rows."""
    lonely = np.where(np.eye(3, dtype=bool)[np.arange(90) % 3], FULL[:90], np.nan)
    for x, K in (lonely, 2), (X[:6], 6), (np.vstack([lonely, np.full((9, 3), np.nan)]), 1):
        model = GaussianMixture(K, rng=0).fit(x)
        assert np.isfinite(model.log_prob(FULL)).all()
        assert rise(model.lower_bounds_) > -1e-9
    assert np.isfinite(PPCA(1, max_iter=50).fit(lonely).log_prob(FULL)).all()


# --- what comes in ------------------------------------------------------------------------------------------


@every_model
def test_na_of_a_frame_is_a_missing_value_and_names_are_kept(kind):
    values = X.astype(object)
    values[np.isnan(X)] = NA
    model = MODELS[kind]().fit(Frame(values, ["a", "b", "c"]))
    same = MODELS[kind]().fit(X)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert np.array_equal(model.log_prob(Frame(values, ["a", "b", "c"])), same.log_prob(X))
    assert np.array_equal(model.impute(Frame(values, ["a", "b", "c"])), same.impute(X))
    assert np.array_equal(same.log_prob(X.astype(np.float32)), model.log_prob(X.astype(np.float32)))


@every_model
def test_infinite_and_masked_values_and_empty_columns_are_refused(kind, tmp_path):
    model, bad = MODELS[kind](), X.copy()
    bad[4, 1] = np.inf
    for call in model.fit, MODELS[kind]().fit(X).impute, MODELS[kind]().fit(X).log_prob:
        with pytest.raises(ValueError, match=r"^x must be finite, but x\[4, 1\] is inf; drop inf, or pass NaN for a"):
            call(bad)
        with pytest.raises(TypeError, match="masked"):
            call(np.ma.masked_invalid(X))
    with pytest.raises(ValueError, match=r"^x must have a number in every column, but column 1 has only NaN; drop it"):
        model.fit(np.where([True, False, True], X, np.nan))


@pytest.mark.parametrize(
    "model",
    [
        *(GaussianMixture(2, kind, rng=0) for kind in ("tied", "diag", "spherical")),
        FactorAnalysis(1, rng=0),
        CategoricalMixture(2, 4, rng=0),
        VAE(1, (4,), n_steps=1, rng=0),
        DDPM(NoiseSchedule.linear(4), hidden=(4,), n_steps=1, rng=0),
    ],
    ids=lambda model: f"{type(model).__name__}-{getattr(model, 'covariance_type', '')}",
)
@pytest.mark.filterwarnings("ignore:EM has not converged")
def test_other_models_refuse_nan_and_name_those_that_take_it(model):
    whole = np.random.default_rng(0).integers(0, 4, (40, 3)).astype(float)
    bad = whole.copy()
    bad[3, 2] = np.nan
    words = (
        r"^x must be finite, but x\[3, 2\] is nan; drop or impute NaN and inf; PPCA and "
        r"GaussianMixture\(covariance_type='full'\) take NaN as a missing value"
    )
    with pytest.raises(ValueError, match=words):
        model.fit(bad)
    model.fit(whole)
    with pytest.raises(ValueError, match=words):
        model.score_samples(bad)


def test_mixtures_themselves_refuse_nan():
    """NaN from a failed computation must not count as missing."""
    for verb in LAW.log_prob, LAW.posterior, LAW.score:
        with pytest.raises(ValueError, match=r"^x must be finite, but x\[0, 0\] is nan"):
            verb(np.array([[np.nan, 1.0, 1.0]]))


def test_a_loop_over_train_has_usable_models_with_gaps():
    for kind, make in MODELS.items():
        model = make()
        for state in model.train(X):
            assert model.score(X) == pytest.approx(-state.loss, rel=1e-12), kind
            if state.step == 5:
                break
