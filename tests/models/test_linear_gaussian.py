"""PPCA and FactorAnalysis as models: optima, the record of half-steps, hard data, arguments."""

import numpy as np
import pytest
from hypothesis import given
from scipy import optimize

from scratchgen import PPCA, FactorAnalysis, Mixture
from scratchgen.likelihood import cross_entropy_gaussian, entropy_gaussian, kl_gaussian
from scratchgen.variational import linear_gaussian_posterior
from tests.em_helpers import (
    X2,
    blobs,
    data_with_covariance,
    hard_data,
    name_cases,
    rise,
    spectra,
    symmetric,
    three_blobs,
)
from tests.strategies import passes_as_sample, residual


@given(spectra())
def test_ppca_reaches_the_value_and_the_point_of_tipping_and_bishop(spectrum):
    """The value from eigenvalues alone, W Wᵀ from the mean of the discarded eigenvalues, and the gap 0."""
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
    """BFGS on (W, log σ²) from four starts, without eigenvectors, reaches the same maximum and no larger one."""
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


def test_ppca_encodes_to_the_posterior_mean():
    x = three_blobs()
    model = PPCA(1).fit(x)
    W, noise = model.components_, model.noise_variance_
    C = W @ W.T + noise * np.eye(2)
    assert residual(model.encode(x), (x - x.mean(axis=0)) @ np.linalg.inv(C) @ W) < 1e-12
    assert residual(model.mean_, x.mean(axis=0)) < 1e-14


def test_ppca_samples_have_its_law():
    x = data_with_covariance(np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.1], [0.0, 0.1, 0.3]]), [1.0, -2.0, 3.0])
    model = PPCA(1).fit(x)
    W, noise = model.components_, model.noise_variance_
    samples = model.sample(20_000, rng=0)
    assert passes_as_sample(samples, Mixture([1.0], [model.mean_], [W @ W.T + noise * np.eye(3)]))
    assert not passes_as_sample(samples, Mixture([1.0], [model.mean_], [W @ W.T + noise**2 * np.eye(3)]))
    assert model.sample(0, rng=0).shape == (0, 3)


@pytest.mark.parametrize("method", ["closed", "em"])
def test_ppca_refuses_data_without_noise(method):
    x = np.random.default_rng(0).standard_normal((30, 1)) * [1.0, 2.0, 3.0]
    with pytest.raises(
        ValueError, match=r"^x lies in a space of at most 1 dimension, .*FactorAnalysis .*, or lower n_components$"
    ):
        PPCA(1, method=method, tol=0, max_iter=5000, rng=0).fit(x)


@pytest.mark.parametrize("method", ["closed", "em"])
def test_ppca_says_that_numbers_may_be_far_larger_than_the_rest(method):
    """With one fill value of 1e9 the data fill the plane; the other variances are lost to rounding."""
    x = np.random.default_rng(0).standard_normal((100, 2))
    x[3, 1] = 1e9
    with pytest.raises(ValueError, match=r"; drop fill values that are far larger than the rest, bring the columns"):
        PPCA(1, method=method, rng=0).fit(x)


@pytest.mark.parametrize("model", [PPCA(1), PPCA(1, method="em", rng=0), FactorAnalysis(1, rng=0)], ids=repr)
def test_a_variance_that_underflows_is_an_error_and_a_small_one_is_not(model):
    x = np.random.default_rng(0).standard_normal((50, 3)) * [1.0, 2.0, 3.0]
    assert model.fit(x * 1e-140).score(x * 1e-140) == pytest.approx(
        model.fit(x).score(x) + 140 * 3 * np.log(10), rel=1e-6
    )
    for scale in (1e-155, 1e-170, 1e-300):
        with pytest.raises(ValueError, match=r"^x must vary by more than 1e-153, .*; use smaller units"):
            model.fit(x * scale)


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
def test_an_invalid_ppca_argument_is_refused_by_name(arguments, error, name):
    with pytest.raises(error, match=rf"^{name} must"):
        PPCA(**arguments).fit(X2)


NO_FACTORS = {  # data without a fit of PPCA or factor analysis, and the error messages
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
def test_hard_data_give_a_finite_fit_or_an_error_with_a_remedy(make, name):
    """A finite model with a likelihood that never falls, or a ValueError with a remedy."""
    x, model = hard_data()[name][0], make(1)
    needs_noise = not isinstance(model, FactorAnalysis)  # factor analysis has a floor for every column that varies
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


# --- factor analysis --------------------------------------------------------------------------------------------


@pytest.mark.equation(15, 18)
def test_factor_analysis_is_monotone_in_every_half_step_and_its_joint_kl_is_exact():
    """After E the joint KL is KL(p‖p_θ) of the Gaussian of the data; after M it is smaller."""
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


# --- both ------------------------------------------------------------------------------------------------------


BOTH = {
    "PPCA": lambda k, **kwargs: PPCA(k, **kwargs),
    "PPCA by EM": lambda k, **kwargs: PPCA(k, method="em", rng=0, **kwargs),
    "FactorAnalysis": lambda k, **kwargs: FactorAnalysis(k, rng=0, **kwargs),
}
each_model = pytest.mark.parametrize("make", BOTH.values(), ids=BOTH.keys())


def covariance_directions(W, noise):
    """Derivatives of W Wᵀ + Ψ with respect to every entry of W and every noise variance, as rows."""
    D, k = W.shape
    rows = []
    for d in range(D):
        for j in range(k):
            step = np.zeros((D, k))
            step[d, j] = 1
            rows.append((step @ W.T + W @ step.T).ravel())
    noises = [np.eye(D)] if np.ndim(noise) == 0 else [np.diag(e) for e in np.eye(D)]
    return np.array(rows + [n.ravel() for n in noises])


@pytest.mark.parametrize(("D", "k"), [(2, 1), (3, 1), (4, 2), (4, 3), (5, 2), (6, 3)])
@each_model
def test_parameters_are_counted_as_free_directions(make, D, k):
    """The means, plus the rank of the derivative of the covariance: rotations of W change nothing."""
    rng = np.random.default_rng(D + k)
    x = rng.standard_normal((60, k)) @ rng.standard_normal((k, D)) + rng.uniform(0.5, 1.5, D) * rng.standard_normal(
        (60, D)
    )
    model = make(k, max_iter=20).fit(x)
    # at a generic point: where W has orthogonal columns, or Ψ is at its floor, the count is the same
    W, noise = rng.standard_normal((D, k)), model.noise_variance_
    rank = np.linalg.matrix_rank(covariance_directions(W, noise), tol=1e-9)
    assert model.n_parameters_ == D + rank
    log_likelihood = model.log_prob(x).sum()
    assert model.aic(x) == pytest.approx(2 * (D + rank) - 2 * log_likelihood, rel=1e-13)
    assert model.bic(x) == pytest.approx(np.log(60) * (D + rank) - 2 * log_likelihood, rel=1e-13)


@pytest.mark.parametrize("k", [3, 5])
def test_more_factors_than_dimensions_have_no_more_parameters_than_a_covariance(k):
    model = FactorAnalysis(k, max_iter=3, rng=0).fit(blobs(30))
    assert model.n_parameters_ == 3 + 6


def test_factor_analysis_starts_with_half_of_each_variance_in_the_factors(monkeypatch):
    """W has independent entries N(0, v/(2k)) for a column of variance v, and (W Wᵀ)_dd/v has the mean 1/2.

    For k = 5 its standard deviation is 0.32, which is 0.0058 for the mean of 3000 columns.
    """
    x = np.random.default_rng(0).standard_normal((50, 3000)) * np.linspace(1, 100, 3000)
    monkeypatch.setattr(  # the start stays
        "scratchgen.models.linear_gaussian.factor_analysis_em_step",
        lambda covariance, W, variances, noise_floor: (W, variances),
    )
    model = FactorAnalysis(5, max_iter=1, rng=0).fit(x)
    assert abs(((model.components_**2).sum(axis=1) / x.var(axis=0)).mean() - 0.5) < 6 * 0.0058
    assert residual(model.noise_variance_, x.var(axis=0) / 2) < 1e-12


@each_model
def test_float32_rows_far_from_zero_give_the_fit_of_float64(make):
    """300,000 rows near 1000: the mean from a float32 sum has an error of 0.8."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300_000, 1)) @ [[1.0, 2.0, -1.0]] + 0.5 * rng.standard_normal((300_000, 3))
    x = (1000 + z).astype(np.float32)
    mean = x.mean(axis=0, dtype=np.float64)
    model, exact = make(1, max_iter=5).fit(x), make(1, max_iter=5).fit(x - mean)
    assert np.abs(model.mean_ - mean).max() < 1e-9
    assert residual(model.covariance(), exact.covariance()) < 1e-9
    assert residual(model.free_energies_, exact.free_energies_) < 1e-9
    assert np.abs(x.mean(axis=0) - mean).max() > 0.5  # the error of a float32 sum


@pytest.mark.equation(4, 8, 11, 18)
@each_model
def test_free_energies_are_the_likelihood_less_the_divergence_of_the_q_in_force(make):
    """The divergence is 0 after an E-step, and KL(old posterior‖new posterior) after an M-step, example by example."""
    x = blobs(40, D=4, seed=3)
    model, before = make(2, max_iter=6, tol=0), None
    for _ in model.train(x):
        now = (model.components_, model.mean_, model.noise_variance_)
        exact = Mixture([1.0], [model.mean_], [model.covariance()]).log_prob(x).mean()
        assert model.lower_bounds_[-1] == pytest.approx(exact, rel=1e-12)
        assert np.array_equal(model.free_energies_[::2], model.lower_bounds_)
        if before is not None:
            (old, old_cov), (new, new_cov) = (linear_gaussian_posterior(x, *theta) for theta in (before, now))
            kl = np.mean([kl_gaussian(m, old_cov, n, new_cov) for m, n in zip(old, new, strict=True)])
            assert kl > 1e-6
            assert model.free_energies_[-2] == pytest.approx(exact - kl, rel=1e-12)
        before = now


@pytest.mark.parametrize("cls", [PPCA, FactorAnalysis])
def test_a_file_whose_bounds_do_not_fit_its_step_is_refused(cls, tmp_path):
    model = cls(1, rng=0, **({"method": "em"} if cls is PPCA else {}))
    for progress in model.train(X2):
        if progress.step == 3:
            break
    model.training_state_.arrays["bounds"] = model.training_state_.arrays["bounds"][:-1]
    model.save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match=r"training.bounds must hold step \+ 1 numbers, got 3 for step 3"):
        cls.load(tmp_path / "m.npz")
