"""E-steps for rows with missing values: against quadrature over the missing values, closed forms, and complete data."""

import numpy as np
import pytest
from scipy import stats

from scratchgen import Mixture
from scratchgen.em import (
    ObservedMixture,
    SufficientStatistics,
    by_pattern,
    complete_rows,
    e_step,
    fill_with_means,
    free_energy,
    impute,
    m_step_from_statistics,
    ppca_maximum,
    statistics_with_missing,
    sufficient_statistics,
)
from scratchgen.em import missing as module
from scratchgen.variational import linear_gaussian_log_prob
from tests.em_helpers import rise
from tests.strategies import relative, residual

GAP = np.nan


def a_mixture(D, K=2, seed=0):
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((K, D, D))
    covariances = roots @ roots.swapaxes(1, 2) + 0.2 * np.eye(D)
    return Mixture(rng.dirichlet(np.full(K, 5.0)), 2 * rng.standard_normal((K, D)), covariances)


def with_gaps(x, share=0.3, seed=0):
    return np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)


def parts(statistics):
    return np.exp(statistics.log_counts), statistics.means, statistics.covariances


def filled_by_quadrature(x, law):
    """Every row as many rows: its missing values on a grid, with the weights of the rule times p(x_b | x_a)."""
    rows, weights = [], []
    axis = np.arange(-30.0, 30.0, 0.2)
    for row in x:
        b = np.flatnonzero(np.isnan(row))
        grid = np.stack(np.meshgrid(*[axis] * len(b), indexing="ij"), axis=-1).reshape(-1, len(b)) if len(b) else None
        points = np.tile(row, (1 if grid is None else len(grid), 1))
        points[:, b] = 0 if grid is None else grid
        density = np.exp(law.log_prob(points))
        rows.append(points)
        weights.append(density / density.sum())
    return np.concatenate(rows), np.concatenate(weights)


# --- likelihood and statistics ----------------------------------------------------------------------------


@pytest.mark.parametrize("D", [2, 3, 5])
def test_the_density_of_a_row_is_that_of_its_observed_values(D):
    """Against densities of SciPy; a row without observed values has log p = 0, and the prior as posterior."""
    law = a_mixture(D)
    x = with_gaps(law.sample(40, rng=1), 0.5)
    x[3], x[4] = GAP, 0.5
    expected = np.zeros((40, 2))
    for n, row in enumerate(x):
        a = np.flatnonzero(~np.isnan(row))
        for k in range(2):
            expected[n, k] = np.log(law.weights[k])
            if len(a):
                m, C = law.means[k, a], law.covariances[k][np.ix_(a, a)]
                expected[n, k] += stats.multivariate_normal.logpdf(row[a], m, C)
    observed = ObservedMixture(law)
    assert residual(observed.log_joint(x), expected) < 1e-13
    log_resp, log_prob = e_step(x, observed)
    assert residual(log_prob, np.logaddexp(*expected.T)) < 1e-13
    assert abs(log_prob[3]) < 1e-15
    assert residual(np.exp(log_resp[3]), law.weights) < 1e-15
    assert residual(free_energy(x, log_resp, observed), log_prob) < 1e-13
    q = np.log(np.full((40, 2), 0.5))
    kl = (0.5 * (q - log_resp)).sum(axis=1)
    assert residual(free_energy(x, q, observed), log_prob - kl) < 1e-13
    assert log_prob[4] == pytest.approx(law.log_prob(x[4:5])[0], rel=1e-13)


@pytest.mark.equation("missing-values")
@pytest.mark.parametrize("D", [2, 3])
def test_statistics_are_expectations_over_the_missing_values(D):
    """The trapezoid rule over one and two missing values.  Measured: 9e-16; without Cov(x_b | x_a), 0.2."""
    law = a_mixture(D, seed=2)
    x = law.sample(12, rng=3)
    x[0, 0] = x[1, 1] = x[2, -1] = x[3, 0] = GAP
    if D == 3:
        x[4, :2] = x[5, 1:] = GAP
    weights = np.arange(1.0, 13.0)
    rows, shares = filled_by_quadrature(x, law)
    copies = np.repeat(weights, [len(filled_by_quadrature(row[None], law)[0]) for row in x])
    exact = sufficient_statistics(rows, e_step(rows, law)[0], law, shares * copies)
    found, log_likelihood = statistics_with_missing(x, law, weights)
    for ours, theirs in zip(parts(found), parts(exact), strict=True):
        assert residual(ours, theirs) < 1e-14
    log_prob = ObservedMixture(law).log_prob(x)
    assert log_likelihood == pytest.approx(np.average(log_prob, weights=weights), rel=1e-14)


def test_imputed_values_are_conditional_means():
    """By quadrature, and by `conditional` for every row; a row without observed values gets E x."""
    law = a_mixture(3, seed=2)
    x = with_gaps(law.sample(9, rng=3), 0.5)
    x[0], x[1] = GAP, 0.3
    filled = impute(x, law)
    seen = ~np.isnan(x)
    assert np.array_equal(filled[seen], x[seen])
    assert np.array_equal(filled[0], law.mean())
    for row, mean in zip(x[1:], filled[1:], strict=True):
        a = np.flatnonzero(~np.isnan(row))
        if 0 < len(a) < 3:
            rest = law.conditional({int(d): row[d] for d in a})
            assert residual(mean[np.isnan(row)], rest.mean()) < 1e-13
    (row,) = x[1:][np.isnan(x[1:]).sum(axis=1) == 1][:1]
    points, shares = filled_by_quadrature(row[None], law)
    assert residual(impute(row[None], law)[0], shares @ points) < 1e-12


@pytest.mark.equation("missing-values")
def test_rows_without_gaps_have_the_statistics_of_complete_data():
    law = a_mixture(3)
    x, w = law.sample(5000, rng=1), np.random.default_rng(0).random(5000)  # more rows than one block has
    found, log_likelihood = statistics_with_missing(x, law, w)
    exact = sufficient_statistics(x, e_step(x, law)[0], law, w)
    for ours, theirs in zip(parts(found), parts(exact), strict=True):
        assert relative(ours, theirs) < 1e-12
    assert log_likelihood == pytest.approx(np.average(law.log_prob(x), weights=w), rel=1e-13)
    assert np.array_equal(impute(x, law), x)


def test_weights_are_repeated_rows_and_empty_rows_have_no_effect_on_the_statistics():
    law = a_mixture(3)
    x, w = with_gaps(law.sample(60, rng=1)), np.random.default_rng(0).integers(1, 4, 60)
    x[5] = GAP
    found, log_likelihood = statistics_with_missing(x, law, w)
    repeated, same = statistics_with_missing(np.repeat(x, w, axis=0), law)
    kept = ~np.isnan(x).all(axis=1)
    without, _ = statistics_with_missing(x[kept], law, w[kept])
    for ours, theirs, third in zip(parts(found), parts(repeated), parts(without), strict=True):
        assert relative(ours, theirs) < 1e-12
        assert relative(ours, third) < 1e-12
    assert log_likelihood == pytest.approx(same, rel=1e-13)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_and_offsets_shift_the_likelihood_and_map_the_statistics(unit):
    """The log-likelihood shifts by log(unit) for every observed value of the column.  Measured: 9e-13, 3e-11, 6e-12."""
    law, units, offset = a_mixture(3), np.array([1.0, unit, 1.0]), np.array([0.0, 0.0, 1e6])
    x = with_gaps(law.sample(200, rng=1))
    other = Mixture(law.weights, units * law.means + offset, law.covariances * np.outer(units, units))
    (one, before), (two, after) = statistics_with_missing(x, law), statistics_with_missing(x * units + offset, other)
    assert abs(after - before + np.log(unit) * (~np.isnan(x[:, 1])).mean()) < 1e-11
    assert relative(two.means, one.means * units + offset) < 3e-10  # of rounding beside the offset
    assert residual(two.covariances / np.outer(units, units), one.covariances) < 6e-11


def test_a_component_far_from_all_rows_keeps_its_place():
    """Its responsibilities underflow; the statistics stay finite and belong to the rows nearest to it."""
    near, far = np.zeros(2), np.full(2, 1e6)
    law = Mixture([0.5, 0.5], [near, far], [np.eye(2)] * 2)
    x = np.array([[0.0, GAP], [1.0, 0.5], [GAP, -1.0]])
    found, log_likelihood = statistics_with_missing(x, law)
    assert np.isfinite(log_likelihood)
    assert found.log_counts[1] < -1e11
    assert all(np.isfinite(part).all() for part in parts(found))


# --- EM -----------------------------------------------------------------------------------------------------


def fit(x, law, statistics=statistics_with_missing, n_steps=200):
    """The mixture after EM with a fixed number of steps, and the bounds."""
    bounds = []
    for _ in range(n_steps):
        expected, bound = statistics(x, law)
        law = m_step_from_statistics(expected, law, 1e-9)
        bounds.append(bound)
    return law, bounds


def without_spread(x, law):
    """The wrong E-step: complete the rows with conditional means, given k, and forget Cov(x_b | x_a, k)."""
    log_resp, log_prob = e_step(x, ObservedMixture(law))
    K, D = law.means.shape
    means, covariances = np.empty((K, D)), np.empty((K, D, D))
    for k in range(K):
        one = Mixture([1.0], law.means[[k]], law.covariances[[k]])
        s = sufficient_statistics(impute(x, one), log_resp[:, [k]], one)
        means[k], covariances[k] = s.means[0], s.covariances[0]
    log_counts = np.logaddexp.reduce(log_resp, axis=0)
    return SufficientStatistics(log_counts, means, covariances), float(log_prob.mean())


def slopes(x, law, h=1e-5):
    """Derivatives of the mean log-likelihood along every parameter: logits, means, and factors of covariances."""
    K, D = law.means.shape
    factors = np.linalg.cholesky(law.covariances)
    theta = np.concatenate([np.log(law.weights), law.means.ravel(), factors[:, *np.tril_indices(D)].ravel()])

    def log_likelihood(theta):
        w, m = np.exp(theta[:K]) / np.exp(theta[:K]).sum(), theta[K : K + K * D].reshape(K, D)
        L = np.zeros((K, D, D))
        L[:, *np.tril_indices(D)] = theta[K + K * D :].reshape(K, -1)
        return ObservedMixture(Mixture(w, m, L @ L.swapaxes(1, 2))).log_prob(x).mean()

    steps = h * np.eye(len(theta))
    return np.array([(log_likelihood(theta + s) - log_likelihood(theta - s)) / (2 * h) for s in steps])


def test_em_rises_to_a_point_where_the_likelihood_of_the_observed_values_is_flat():
    """D = 3, K = 2.  Measured: 2e-10; without Cov(x_b | x_a) in the E-step the bound falls, to a slope of 0.3."""
    law = a_mixture(3)
    x = with_gaps(law.sample(150, rng=1), 0.25)
    last, bounds = fit(x, law)
    assert rise(bounds) > -1e-13
    assert bounds[-1] > bounds[0]
    assert np.abs(slopes(x, law)).max() > 1e-2
    assert np.abs(slopes(x, last)).max() < 2e-9
    wrong, lower = fit(x, law, without_spread, n_steps=200)
    assert np.abs(slopes(x, wrong)).max() > 1e-2
    assert lower[-1] < bounds[-1] - 1e-2
    assert rise(lower) < -1e-3


@pytest.mark.parametrize("D", [2, 3])
def test_em_is_the_closed_form_for_monotone_gaps(D):
    """One Gaussian, x_d missing wherever x_{d−1} is: products of regressions on earlier columns (Anderson 1957)."""
    rng = np.random.default_rng(D)
    law = a_mixture(D, K=1)
    x = law.sample(200, rng=rng)
    for d in range(1, D):
        x[np.isnan(x[:, d - 1]) | (x[:, d - 1] > law.means[0, d - 1] + 0.5), d] = GAP  # missing at random
    mean, C = x[:, :1].mean(axis=0), np.cov(x[:, :1].T, bias=True).reshape(1, 1)
    for d in range(1, D):
        seen = ~np.isnan(x[:, d])
        known, y = x[seen, :d], x[seen, d]
        design = np.column_stack([np.ones(len(y)), known])
        (intercept, *slope), *_ = np.linalg.lstsq(design, y, rcond=None)
        noise = np.mean((y - design @ [intercept, *slope]) ** 2)
        cross = C @ slope
        C = np.block([[C, cross[:, None]], [cross[None], np.array([[noise + slope @ cross]])]])
        mean = np.append(mean, intercept + mean @ slope)
    last, _ = fit(x, Mixture([1.0], [np.nanmean(x, axis=0)], [np.diag(np.nanvar(x, axis=0))]))
    assert residual(last.means[0], mean) < 1e-9
    assert residual(last.covariances[0], C) < 1e-9
    assert np.abs(np.nanmean(x, axis=0) - mean).max() > 0.05  # the mean of the observed values is another


# --- PPCA ---------------------------------------------------------------------------------------------------


@pytest.mark.equation("ppca-missing-values")
def test_completed_rows_of_ppca_are_those_of_its_gaussian():
    """(11) of the observed columns, against the mixture of one component N(μ, W Wᵀ + Ψ), with weights."""
    rng = np.random.default_rng(0)
    W, mean, x = rng.standard_normal((4, 2)), rng.standard_normal(4), with_gaps(rng.standard_normal((50, 4)), 0.4)
    x[7] = GAP
    w = rng.random(50)
    for noise in 0.3, rng.random(4) + 0.1:
        law = Mixture([1.0], [mean], [W @ W.T + noise * np.eye(4)])
        rows, spread, elbo = complete_rows(x, W, mean, noise, w)
        assert residual(elbo, ObservedMixture(law).log_prob(x)) < 1e-13
        assert residual(rows, impute(x, law)) < 1e-13
        kept = ~np.isnan(x).all(axis=1)
        found, _ = statistics_with_missing(x[kept], law, w[kept])
        rows, spread, _ = complete_rows(x[kept], W, mean, noise, w[kept])
        assert residual(np.average(rows, axis=0, weights=w[kept]), found.means[0]) < 1e-13
        assert residual(np.cov(rows.T, bias=True, aweights=w[kept]) + spread, found.covariances[0]) < 1e-13


def test_completed_rows_keep_the_digits_of_a_small_noise():
    """σ² is 1e-12 of W Wᵀ, whose Cholesky factors have no digits of it left; the closed form of one latent is exact."""
    W, x = np.array([[1e3], [2e3], [3e3]]), np.array([[1e3, 2e3 + 1e-3, GAP]])
    rows, spread, elbo = complete_rows(x, W, np.zeros(3), 1e-6)
    w, y = W[:2, 0], x[0, :2]
    m = w @ y / (w @ w + 1e-6)
    assert rows[0, 2] == pytest.approx(3e3 * m, rel=1e-14)
    assert spread[2, 2] == pytest.approx(9e6 * 1e-6 / (w @ w + 1e-6) + 1e-6, rel=1e-12)
    assert residual(elbo, linear_gaussian_log_prob(x[:, :2], W[:2], np.zeros(2), 1e-6)) < 1e-9


@pytest.mark.equation("ppca-missing-values")
def test_the_closed_form_is_the_m_step_of_completed_rows():
    """EM with the closed form as M-step rises to a flat point of the likelihood of the observed values."""
    rng = np.random.default_rng(0)
    x = with_gaps(rng.standard_normal((120, 2)) @ rng.standard_normal((2, 4)) + 0.5 * rng.standard_normal((120, 4)))
    theta, bounds = (*ppca_maximum(np.diag(np.nanvar(x, axis=0)), 2), np.nanmean(x, axis=0)), []
    for _ in range(300):
        W, noise, mean = theta
        rows, spread, elbo = complete_rows(x, W, mean, noise)
        bounds.append(elbo.mean())
        theta = (*ppca_maximum(np.cov(rows.T, bias=True) + spread, 2), rows.mean(axis=0))
    assert rise(bounds) > -1e-13

    def log_likelihood(W, noise, mean):
        return complete_rows(x, W, mean, noise).elbo.mean()

    for _ in range(10):
        step = 1e-5 * rng.standard_normal(8), 1e-5 * rng.standard_normal(), 1e-5 * rng.standard_normal(4)
        up, down = (
            log_likelihood(theta[0] + s * step[0].reshape(4, 2), theta[1] + s * step[1], theta[2] + s * step[2])
            for s in (1, -1)
        )
        assert abs(up - down) / 2e-5 < 1e-8


# --- starts and arguments -----------------------------------------------------------------------------------


def test_rows_are_filled_with_the_weighted_means_of_columns():
    x, w = np.array([[1.0, GAP], [4.0, 2.0], [GAP, GAP], [GAP, 5.0]]), np.array([1.0, 2.0, 7.0, 1.0])
    filled, weights = fill_with_means(x, w)
    assert residual(filled, np.array([[1.0, 3.0], [4.0, 2.0], [3.0, 5.0]])) < 1e-15
    assert weights.tolist() == [1.0, 2.0, 1.0]
    with pytest.raises(ValueError, match=r"^x must have a number in every column, but column 1 has only NaN; drop it"):
        fill_with_means(x[[0, 2]])
    with pytest.raises(ValueError, match="column 1 has only NaN"):
        fill_with_means(x, [1.0, 0.0, 1.0, 0.0])


def test_blocks_of_rows_with_one_pattern_add_up(monkeypatch):
    law = a_mixture(3)
    x = with_gaps(law.sample(300, rng=1))
    whole, log_likelihood = statistics_with_missing(x, law)
    monkeypatch.setattr(module, "ROWS", 7)
    blocks, same = statistics_with_missing(x, law)
    for ours, theirs in zip(parts(blocks), parts(whole), strict=True):
        assert relative(ours, theirs) < 1e-12
    assert log_likelihood == pytest.approx(same, rel=1e-13)
    assert sum(len(rows) for *_, rows in module.patterns(x)) == 300


@pytest.mark.parametrize(
    "call", [lambda x, law: ObservedMixture(law).log_prob(x), statistics_with_missing, impute], ids=["log", "E", "fill"]
)
def test_infinite_values_and_other_laws_are_refused(call):
    law = a_mixture(2)
    with pytest.raises(ValueError, match=r"^x must be finite, but x\[0, 1\] is inf; drop inf, or pass NaN"):
        call(np.array([[GAP, np.inf]]), law)
    with pytest.raises(ValueError, match=r"^x must have 2 columns"):
        call(np.zeros((3, 3)), law)
    with pytest.raises(TypeError, match=r"^mixture must be a Mixture"):
        call(np.zeros((3, 2)), "law")


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (
            lambda x, a: x[:1].sum(axis=1),
            ValueError,
            r"^f must return an array \(2,\), as for other columns, got \(1,\)",
        ),
        (lambda x, a: x, ValueError, r"^f must return an array \(2, 2\), as for other columns, got \(2, 1\)"),
        (lambda x, a: None, TypeError, r"^f must be a real array"),
    ],
    ids=["one row", "columns", "None"],
)
def test_a_function_of_rows_with_gaps_must_return_one_row_each(f, error, message):
    """One row was repeated for all rows with the same gaps."""
    with pytest.raises(error, match=message):
        by_pattern(f, np.array([[1.0, 2.0], [3.0, 4.0], [GAP, 5.0], [GAP, 6.0]])[[2, 3, 0, 1]])
