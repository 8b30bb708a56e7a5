"""EM at its full breadth: covariance types, starts, the MAP prior, factor analysis, mixtures of tables.

Every maximum is tested as one: no small move of what an M-step chose, within what its type allows, may raise the
objective that it claims to maximise; and the objective of a run never falls.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import PPCA, CategoricalMixture, FactorAnalysis, GaussianMixture, Mixture, datasets
from scratchgen.conformance import check_linear_gaussian_elbo, check_linear_gaussian_posterior
from scratchgen.em import (
    covariance_maximum,
    e_step,
    factor_analysis_em_step,
    free_energy,
    kmeans,
    kmeans_plus_plus,
    log_covariance_prior,
    m_step,
    ppca_em_step,
)
from scratchgen.em.gaussian import STARTS, compress, expand
from scratchgen.em.steps import COVARIANCE_TYPES, nearest
from scratchgen.likelihood import cross_entropy_gaussian, entropy_gaussian
from scratchgen.quadrature import central_difference
from scratchgen.testing import as_spd, cut, em_problems, linear_gaussians, reals, size
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_posterior
from tests.strategies import residual

every_type = pytest.mark.parametrize("kind", COVARIANCE_TYPES)
PRIORS = [None, (0.7, 3.0)]


def blobs(n=60, D=3, seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((3, D))
    scales = 0.4 + rng.random((3, D))
    labels = np.arange(n) % 3
    return centres[labels] + scales[labels] * rng.standard_normal((n, D)) + 0.3 * rng.standard_normal((n, 1))


# --- covariance types -------------------------------------------------------------------------------------


@st.composite
def spreads(draw):
    K, D = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    A, counts = cut(draw(reals(size((K, D, D), (K,)), -1, 1)), (K, D, D), (K,))
    return A @ A.swapaxes(1, 2) + 0.01 * np.eye(D), 1 + 10 * np.abs(counts)


def objective(covariances, spread, counts, kind, prior):
    """−½ Σ N_k (log|Σ_k| + tr Σ_k⁻¹ S_k) plus the log prior: what an M-step maximises over Σ."""
    value = sum(
        -0.5 * n * (np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S)))
        for n, C, S in zip(counts, covariances, spread, strict=True)
    )
    if prior is not None:
        value += log_covariance_prior(covariances[:1] if kind == "tied" else covariances, prior)
    return value


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


@given(spreads())
def test_types_are_nested_and_their_maxima_ordered(problem):
    """full >= diag >= spherical and full >= tied: a type that allows less cannot fit better."""
    spread, counts = problem
    values = {
        kind: objective(covariance_maximum(spread, counts, kind), spread, counts, kind, None)
        for kind in COVARIANCE_TYPES
    }
    slack = 1e-9 * (1 + abs(values["full"]))
    assert values["full"] >= values["diag"] - slack
    assert values["diag"] >= values["spherical"] - slack
    assert values["full"] >= values["tied"] - slack
    if spread.shape[1] == 1:
        assert values["full"] == pytest.approx(values["spherical"], rel=1e-12)


@given(em_problems(), st.sampled_from(COVARIANCE_TYPES), st.sampled_from(PRIORS))
def test_em_of_every_type_is_monotone_on_easy_and_hard_data(problem, kind, prior):
    """PEM for all four types, with and without the prior: log-likelihood + log prior never falls, nor in half-steps."""
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


@pytest.mark.parametrize("prior", PRIORS)
@every_type
def test_a_component_that_nobody_responds_to_keeps_its_place(kind, prior):
    """Its mean and covariance stay, at weight 0; a tied covariance is everybody's."""
    x, covariances = blobs(20), np.array([1.0, 2.0])[:, None, None] * np.eye(3)
    mixture = Mixture([0.5, 0.5], [[0.0] * 3, [7.0] * 3], covariances)
    log_resp = np.stack([np.zeros(20), np.full(20, -np.inf)], axis=1)
    after = m_step(x, log_resp, mixture, 1e-6, kind, prior)
    alone = m_step(x, log_resp[:, :1], Mixture([1.0], [[0.0] * 3], covariances[:1]), 1e-6, kind, prior)
    assert np.array_equal(after.weights, [1, 0])
    assert np.array_equal(after.means[1], [7.0] * 3)
    assert residual(after.covariances[0], alone.covariances[0]) < 1e-14
    assert residual(after.covariances[1], alone.covariances[0] if kind == "tied" else covariances[1]) < 1e-14


def test_a_step_and_its_covariances_are_full_and_without_a_floor_unless_said_otherwise():
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


def test_prior_is_that_many_examples_of_that_variance():
    """One component: Σ = (N S + count · variance · I)/(N + count)."""
    x = blobs()
    model = GaussianMixture(1, covariance_prior=(2.0, 30.0)).fit(x)
    S = np.cov(x.T, bias=True)
    assert residual(model.covariances_[0], (60 * S + 60 * np.eye(3)) / 90) < 1e-12
    log_prior = (
        -0.5 * 30 * (2 * np.trace(np.linalg.inv(model.covariances_[0])) + np.linalg.slogdet(model.covariances_[0])[1])
    )
    assert model.lower_bounds_[-1] == pytest.approx(model.score(x) + log_prior / 60, rel=1e-12)


def test_prior_keeps_a_component_on_one_point_from_collapsing():
    x = np.concatenate([blobs(30), [[50.0, 50.0, 50.0]]])
    start = {"means_init": [x[:30].mean(axis=0), x[-1]], "max_iter": 50, "tol": 0}
    prior = GaussianMixture(2, covariance_prior=(1.0, 4.0), covariance_floor=1e-12, **start).fit(x)
    assert residual(prior.covariances_[1], np.eye(3) * 4 / 5) < 1e-9
    floored = GaussianMixture(2, covariance_floor=1e-6, **start).fit(x)
    assert residual(floored.covariances_[1], 1e-6 * np.eye(3)) < 1e-12


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


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_precisions_of_flat_components_are_taken_back(kind):
    """20 points of rank 2 in 10 dimensions: eigenvalues of 1e6 beside 1, where an inverse is not quite symmetric."""
    x = np.random.default_rng(0).standard_normal((20, 2)) @ np.random.default_rng(1).standard_normal((2, 10))
    model = GaussianMixture(2, kind, rng=0).fit(x)
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


def test_seventy_dimensions_of_variance_1e_minus_10_do_not_underflow():
    """Densities of e^±800: only logarithms get through."""
    rng = np.random.default_rng(0)
    centres = 1e-4 * rng.standard_normal((2, 70))
    x = np.repeat(centres, 100, axis=0) + 1e-5 * rng.standard_normal((200, 70))
    model = GaussianMixture(2, "diag", covariance_floor=1e-14, n_init=2, rng=0).fit(x)
    labels = model.predict(x)
    assert len({labels[0], labels[100]}) == 2
    assert len(set(labels[:100])) == len(set(labels[100:])) == 1
    assert model.score(x) > 600
    scaled = GaussianMixture(2, "diag", covariance_floor=1e-4, n_init=2, rng=0).fit(1e5 * x)
    assert abs(model.score(x) - scaled.score(1e5 * x) - 70 * np.log(1e5)) < 1e-6


# --- where to start ---------------------------------------------------------------------------------------


@given(em_problems(modes=("plain", "duplicates")))
def test_kmeans_ends_where_no_point_and_no_centre_moves(problem):
    x, mixture = problem
    centres = kmeans(x, mixture.means)
    labels = nearest(x, centres)
    for k in np.unique(labels):
        assert residual(centres[k], x[labels == k].mean(axis=0)) < 1e-12

    def cost(c):
        return ((x[:, None] - c) ** 2).sum(axis=2).min(axis=1).sum()

    assert cost(centres) <= cost(mixture.means) + 1e-9


def test_kmeans_keeps_an_empty_centre_and_its_input():
    x, start = np.array([[0.0], [1.0]]), np.array([[0.4], [9.0]])
    assert np.array_equal(kmeans(x, start), [[0.5], [9.0]])
    assert np.array_equal(start, [[0.4], [9.0]])
    assert np.array_equal(kmeans(x, np.array([[0.1], [0.9]]), max_iter=1), [[0.0], [1.0]])


@every_type
@pytest.mark.parametrize("start", STARTS)
def test_every_start_leads_somewhere_sensible(kind, start):
    x = blobs(90)
    model = GaussianMixture(3, covariance_type=kind, init_params=start, n_init=5, tol=1e-8, max_iter=500, rng=0).fit(x)
    assert model.converged_
    assert model.score(x) > GaussianMixture(1, covariance_type=kind).fit(x).score(x) + 0.1


def test_starts_differ_and_kmeans_is_kmeans():
    x = blobs(90)
    bounds = {s: GaussianMixture(3, init_params=s, max_iter=1, rng=0).fit(x).lower_bounds_ for s in STARTS}
    assert len({b[0] for b in bounds.values()}) == 4
    centres = kmeans(x, kmeans_plus_plus(x, 3, np.random.default_rng(0)))
    by_hand = GaussianMixture(3, means_init=centres, max_iter=1).fit(x).lower_bounds_
    assert residual(bounds["kmeans"], by_hand) < 1e-12


def test_start_from_data_is_distinct_rows_each_as_likely_as_any_other():
    """Of 4 rows in one column, all 6 pairs by chi-square; with `max_iter=0` the start itself is the fit."""
    x = np.array([[0.0], [1.0], [10.0], [11.0]])
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


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"covariance_type": "round"}, "covariance_type"),
        ({"init_params": "best"}, "init_params"),
        ({"covariance_prior": 1.0}, "covariance_prior"),
        ({"covariance_prior": (1.0,)}, "covariance_prior"),
        ({"covariance_prior": (0.0, 1.0)}, "covariance_prior's variance"),
        ({"covariance_prior": (1.0, -1.0)}, "covariance_prior's count"),
        ({"covariance_prior": (1.0, 0.0)}, "covariance_prior's count"),  # would collapse with an emptied component
        ({"covariance_type": "diag", "precisions_init": np.ones((2, 2))}, "precisions_init"),
        ({"covariance_type": "spherical", "precisions_init": [-1.0, 1.0]}, "precisions_init"),
    ],
    ids=str,
)
def test_arguments_that_will_not_do_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=rf"^{name} must (be|have) "):
        GaussianMixture(2, **arguments).fit(blobs())


# --- factor analysis --------------------------------------------------------------------------------------


@given(linear_gaussians(), reals(4, 0.1, 3))
def test_linear_gaussian_model_with_a_noise_for_every_dimension(m, noise):
    """(8), (11) for factor analysis: rescaling x by Ψ^½ makes it a PPCA of σ² = 1, with a Jacobian."""
    noise = noise[: len(m.mean)]
    root = np.sqrt(noise)
    parameters = (m.W, m.mean, noise)
    white = (m.x / root, (m.W.T / root).T, m.mean / root, 1.0)
    mean, cov = linear_gaussian_posterior(m.x, *parameters)
    white_mean, white_cov = linear_gaussian_posterior(*white)
    assert residual(mean, white_mean) < 1e-10
    assert residual(cov, white_cov) < 1e-10
    jacobian = np.log(root).sum()
    assert residual(linear_gaussian_log_prob(m.x, *parameters), linear_gaussian_log_prob(*white) - jacobian) < 1e-10
    elbo = linear_gaussian_elbo(m.x, *parameters, m.q_mean, m.q_cov)
    assert residual(elbo, linear_gaussian_elbo(*white, m.q_mean, m.q_cov) - jacobian) < 1e-10
    assert check_linear_gaussian_posterior(linear_gaussian_posterior, *white)
    assert check_linear_gaussian_elbo(linear_gaussian_elbo, *white, m.q_mean, m.q_cov)


@given(reals(size((4, 4), (4, 2), (4, 2), (4,)), -1, 1), reals(4, 0.1, 2))
def test_factor_analysis_step_is_stationary(flat, noise):
    """PPEM for Ψ: at (W', Ψ') the derivative of E_p E_q log p_θ(x, z) vanishes along every direction, q frozen."""
    A, W, dW, dv = cut(flat, (4, 4), (4, 2), (4, 2), (4,))
    S = as_spd(A)
    new_W, new_noise = factor_analysis_em_step(S, W, noise)
    beta = np.linalg.solve(W @ W.T + np.diag(noise), W).T
    zz = np.eye(2) - beta @ W + beta @ S @ beta.T

    def q(step):
        V, v = new_W + step * dW, new_noise * np.exp(step * dv)
        errors = np.diagonal(S) - 2 * ((V @ beta) * S).sum(axis=1) + ((V @ zz) * V).sum(axis=1)
        return -0.5 * (np.log(v) + errors / v).sum()

    scale = 1 + np.abs(dW).sum() / new_noise.min()
    assert abs(central_difference(q, 1e-3)) < 1e-7 * scale
    for step in (0.05, -0.05):
        assert q(step) <= q(0.0) + 1e-12


@given(reals(size((4, 4), (4, 2)), -1, 1), st.floats(0.1, 2))
def test_factor_analysis_takes_the_same_W_as_ppca_and_pools_to_its_noise(flat, variance):
    A, W = cut(flat, (4, 4), (4, 2))
    S = as_spd(A)
    fa_W, fa_noise = factor_analysis_em_step(S, W, np.full(4, variance))
    W, noise = ppca_em_step(S, W, variance)
    assert residual(fa_W, W) < 1e-9
    assert residual(fa_noise.mean(), np.float64(noise)) < 1e-9


def test_factor_analysis_is_monotone_in_every_half_step_and_its_joint_kl_is_exact():
    """After E: KL(p‖p_θ) of the data's Gaussian; after M: it has fallen."""
    x = blobs(200, D=5, seed=3)
    model = FactorAnalysis(2, tol=0, max_iter=400, rng=0).fit(x)
    assert np.all(np.diff(model.free_energies_) >= -1e-12)
    assert np.array_equal(model.free_energies_[::2], model.lower_bounds_)
    S = np.cov(x.T, bias=True)
    cross = cross_entropy_gaussian(x.mean(axis=0), S, model.mean_, model.covariance())
    assert -model.free_energies_[-1] == pytest.approx(cross, rel=1e-12)
    assert -model.free_energies_[-1] - entropy_gaussian(S) > 0
    assert model.score(x) >= PPCA(2).fit(x).score(x)


def test_factor_analysis_finds_each_dimensions_noise_and_has_no_unit():
    rng = np.random.default_rng(5)
    W, noise = rng.standard_normal((6, 2)), np.array([0.1, 0.2, 0.5, 1.0, 2.0, 4.0])
    x = rng.standard_normal((4_000, 2)) @ W.T + np.sqrt(noise) * rng.standard_normal((4_000, 6)) + 3
    model = FactorAnalysis(2, tol=1e-8, max_iter=400, rng=0).fit(x)
    assert np.abs(model.noise_variance_ / noise - 1).max() < 0.25
    assert residual(model.components_ @ model.components_.T, W @ W.T) < 0.15
    unit = np.array([1e-6, 1.0, 1e6, 1.0, 1e3, 1.0])
    scaled = FactorAnalysis(2, tol=1e-8, max_iter=400, rng=0).fit(x * unit)
    assert residual(scaled.log_prob(x * unit) + np.log(unit).sum(), model.log_prob(x)) < 1e-6


def test_factor_analysis_floors_a_column_that_the_factors_explain_whole():
    x = np.random.default_rng(0).standard_normal((100, 3))
    x[:, 1] = x[:, 0]
    model = FactorAnalysis(1, noise_floor=1e-4, tol=0, max_iter=300, rng=0).fit(x)
    assert model.noise_variance_[:2] == pytest.approx(1e-4 * x.var(axis=0)[:2], rel=1e-6)
    assert np.all(np.diff(model.free_energies_) >= -1e-10)


def test_factor_analysis_refuses_a_constant_column():
    x = np.random.default_rng(0).standard_normal((20, 3))
    x[:, 1] = 7.0
    with pytest.raises(ValueError, match=r"^x must vary in every column .*column 1 is constant; drop it"):
        FactorAnalysis(1).fit(x)


def test_factor_analysis_samples_have_its_covariance():
    x = blobs(200, D=4, seed=2)
    model = FactorAnalysis(2, rng=0).fit(x)
    drawn = model.sample(100_000, rng=1)
    z = (np.cov(drawn.T, bias=True) - model.covariance()) * np.sqrt(100_000) / np.trace(model.covariance())
    assert np.abs(z).max() < 6
    assert np.array_equal(
        model.encode(x), linear_gaussian_posterior(x, model.components_, model.mean_, model.noise_variance_)[0]
    )


@pytest.mark.parametrize("model", [PPCA(2, "em", rng=0), FactorAnalysis(2, rng=0)], ids=["PPCA", "FactorAnalysis"])
def test_factors_say_whether_they_converged(model, tmp_path):
    x = blobs(100, D=5, seed=1)
    model.set_params(max_iter=3, tol=0.0).fit(x)
    assert (model.converged_, model.n_iter_) == (False, 3)
    model.set_params(max_iter=5000, tol=1e-4).fit(x)
    assert model.converged_ is True
    assert len(model.lower_bounds_) == model.n_iter_ + 1
    model.save(tmp_path / "m.npz")
    assert type(model).load(tmp_path / "m.npz").converged_ is True
    closed = PPCA(2).fit(x)
    assert (closed.converged_, closed.n_iter_) == (True, 0)


def test_ppca_records_every_half_step_too():
    x = blobs(100, D=4, seed=1)
    model = PPCA(2, method="em", tol=0, max_iter=50, rng=0).fit(x)
    assert len(model.free_energies_) == 2 * len(model.lower_bounds_) - 1
    assert np.all(np.diff(model.free_energies_) >= -1e-12)


# --- mixtures of tables -----------------------------------------------------------------------------------


@st.composite
def categorical_problems(draw):
    N, D, L, K = draw(st.integers(1, 12)), draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    x = draw(st.lists(st.lists(st.integers(0, L - 1), min_size=D, max_size=D), min_size=max(N, K), max_size=max(N, K)))
    return np.array(x, dtype=float), L, K


@given(categorical_problems(), st.sampled_from([0.0, 0.1, 1.0]))
def test_em_of_tables_is_monotone_and_ends_stationary(problem, smoothing):
    x, L, K = problem
    model = CategoricalMixture(K, n_levels=L, smoothing=smoothing, tol=0, max_iter=20, rng=0).fit(x)
    bounds = model.lower_bounds_
    assert np.all(np.diff(bounds) >= -1e-9 * (1 + np.abs(bounds[1:])))
    assert residual(model.probabilities_.sum(axis=2), np.ones((K, x.shape[1]))) < 1e-12
    assert np.isfinite(model.log_prob(x)).all()
    resp = model.predict_proba(x)
    assert residual(resp.sum(axis=1), np.ones(len(x))) < 1e-12


@given(categorical_problems())
def test_one_table_is_the_smoothed_frequencies(problem):
    x, L, _ = problem
    model = CategoricalMixture(1, n_levels=L, smoothing=0.5).fit(x)
    counts = np.stack([np.bincount(column.astype(int), minlength=L) for column in x.T])
    exact = (counts + 0.5 * (counts + 1 / L) / (len(x) + 1)) / (len(x) + 0.5)
    assert residual(model.probabilities_[0], exact) < 1e-14
    log_prob = [sum(np.log(exact[d, int(row[d])]) for d in range(x.shape[1])) for row in x]
    assert residual(model.log_prob(x), np.array(log_prob)) < 1e-12


def small_tables(rng=0):
    x = np.random.default_rng(rng).integers(0, 3, (40, 2)).astype(float)
    x[:20] = np.minimum(x[:20], 1)
    return CategoricalMixture(2, n_levels=3, rng=0).fit(x), x


def test_masses_sum_to_one_and_elbo_is_log_prob():
    model, x = small_tables()
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    assert np.exp(model.log_prob(every)).sum() == pytest.approx(1, rel=1e-13)
    assert residual(model.elbo(x), model.log_prob(x)) < 1e-12
    assert np.array_equal(model.predict(x), model.predict_proba(x).argmax(axis=1))


def test_a_level_never_seen_is_impossible_without_smoothing():
    model = CategoricalMixture(1, n_levels=3, smoothing=0.0).fit([[0.0], [1.0]])
    assert model.log_prob([[2.0]])[0] == -np.inf
    assert model.log_prob([[0.0]])[0] == pytest.approx(np.log(0.5))
    model = CategoricalMixture(2, n_levels=5, smoothing=0, max_iter=3, rng=0).fit([[0, 0], [0, 1], [1, 1]])
    assert model.elbo([[4, 4]])[0] == model.log_prob([[4, 4]])[0] == -np.inf
    assert residual(model.predict_proba([[4, 4]])[0], model.weights_) < 1e-12


def test_diffused_density_and_denoiser_are_those_of_the_atoms():
    """Against the mixture of 9 Gaussians around the 9 images, weighted by their exact masses."""
    model, _ = small_tables()
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    atoms, masses = every - 1, np.exp(model.log_prob(every))
    for scale, std in (0.9, 0.2), (0.3, 0.95):
        law = Mixture(masses, scale * atoms, np.tile(std**2 * np.eye(2), (9, 1, 1)))
        x_t = np.random.default_rng(0).normal(size=(20, 2))
        assert residual(model.diffused_log_prob(x_t, scale, std), law.log_prob(x_t)) < 1e-12
        tweedie = (x_t + std**2 * law.score(x_t)) / scale
        assert residual(model.denoise(x_t, scale, std), tweedie) < 1e-10
        trace = np.trace(law.score_jacobian(x_t), axis1=1, axis2=2)
        missed = (std / scale) ** 2 * (2 + std**2 * trace)
        assert residual(model.denoise_variance(x_t, scale, std), missed) < 1e-10
    assert residual(model.denoise(atoms, 1.0, 1e-3), atoms) < 1e-12


@pytest.mark.parametrize("std", [1e-6, 1e-8, 1e-10])
def test_denoised_levels_stay_within_the_levels_at_tiny_noise(std):
    """Logs of 1e16, where exp of a difference of them is no probability any more."""
    model, _ = small_tables()
    x_t = np.random.default_rng(0).normal(size=(500, 2))
    assert np.abs(model.denoise(x_t, 1.0, std)).max() <= 1 + 1e-15


def test_samples_of_tables_have_their_masses():
    model, _ = small_tables()
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    drawn = model.sample(100_000, rng=0)
    observed = [(drawn == row).all(axis=1).sum() for row in every]
    assert stats.chisquare(observed, 100_000 * np.exp(model.log_prob(every))).pvalue > 1e-7
    wrong = np.full(9, 100_000 / 9)
    assert stats.chisquare(observed, wrong).pvalue < 1e-7


def test_digits_as_tables_beat_pixel_histograms_by_a_quarter():
    """One table is the pixel histograms of the tour, 2.433 bits; forty reach 2.156 to 2.162 (seeds 0 to 3)."""
    x, x_test = (datasets.digits(split).images for split in ("train", "test"))

    def bits(K):
        model = CategoricalMixture(K, n_levels=17, smoothing=10, rng=0).fit(x)
        return -model.score(x_test) / (64 * np.log(2))

    assert bits(1) == pytest.approx(2.433, abs=0.005)
    assert bits(40) < 2.17


@pytest.mark.parametrize("x", [[[0.5]], [[-1.0]], [[3.0]]], ids=str)
def test_what_is_no_level_is_refused_with_its_place(x):
    with pytest.raises(ValueError, match=r"^x must hold whole numbers in 0\.\.2, but x\[0, 0\] is "):
        CategoricalMixture(1, n_levels=3).fit(x)


def test_tables_come_back_from_a_file(tmp_path):
    model, x = small_tables()
    model.save(tmp_path / "m.npz")
    assert np.array_equal(CategoricalMixture.load(tmp_path / "m.npz").log_prob(x), model.log_prob(x))
