"""scikit-learn as an oracle (its mixtures and PCA), and as a host (its tools on our estimators)."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone, is_outlier_detector
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as SklearnFactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    Mixture,
    NoiseSchedule,
    ScoreSDE,
    datasets,
)
from scratchgen.em import e_step, m_step
from scratchgen.models.gaussian_mixture import compress
from tests.em_helpers import at_floor
from tests.oracles.sklearn_mixture import FAILS
from tests.strategies import residual

SMALL = {
    GaussianMixture: {"n_components": 2, "max_iter": 5},
    PPCA: {"n_components": 2},
    FactorAnalysis: {"n_components": 2, "max_iter": 5},
    VAE: {"n_latents": 2, "hidden": (4,), "n_steps": 4},
    LinearVAE: {"n_latents": 2, "n_steps": 4},
    DDPM: {"schedule": NoiseSchedule.linear(5), "hidden": (4,), "n_steps": 4},
    ScoreSDE: {"hidden": (4,), "n_steps": 4},
}
AS_CHECKED = {  # its data may have a single column or row, and any whole number as a level
    GaussianMixture: {"n_components": 1},
    PPCA: {"n_components": 1},
    FactorAnalysis: {"n_components": 1},
    CategoricalMixture: {"n_levels": 200},
}
every_model = pytest.mark.parametrize("cls", list(SMALL))


def data(n=150, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0, 0], [4, 1, 0], [0, -3, 2]])
    return centres[rng.integers(3, size=n)] + rng.standard_normal((n, 3)) @ np.diag([1, 0.7, 0.4]) + 10.0


START = Mixture(
    [0.2, 0.3, 0.5], data(3, seed=5), np.array([1.0, 2.0, 0.5])[:, None, None] * (np.eye(3) + 0.3 * np.ones((3, 3)))
)


def sklearn_mixture(max_iter, tol=0.0):
    """Their mixture without its additive ridge, from the same start."""
    model = SklearnMixture(
        3,
        reg_covar=0.0,
        tol=tol,
        max_iter=max_iter,
        weights_init=START.weights,
        means_init=START.means,
        precisions_init=np.linalg.inv(START.covariances),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(data())


def our_mixture(max_iter, tol=0.0):
    return GaussianMixture(
        3,
        tol=tol,
        max_iter=max_iter,
        covariance_floor=1e-12,
        weights_init=START.weights,
        means_init=START.means,
        precisions_init=np.linalg.inv(START.covariances),
    ).fit(data())


# --- as an oracle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_thirty_em_steps_are_scikit_learns_each_from_the_same_start(kind):
    """reg_covar = 0: weights, means and covariances to 1e-12 after every single step, for all four types."""
    x, mixture = data(), START
    mixture = m_step(x, e_step(x, mixture)[0], mixture, covariance_type=kind)
    for _ in range(30):
        covariances = compress(mixture.covariances, kind)
        inverse = np.linalg.inv if kind in ("full", "tied") else np.reciprocal
        theirs = SklearnMixture(
            3,
            covariance_type=kind,
            reg_covar=0.0,
            max_iter=1,
            weights_init=mixture.weights,
            means_init=mixture.means,
            precisions_init=inverse(covariances),
            init_params="random_from_data",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            theirs.fit(x)
        assert abs(theirs.lower_bound_ - mixture.log_prob(x).mean()) < 1e-12
        mixture = m_step(x, e_step(x, mixture)[0], mixture, covariance_type=kind)
        assert residual(theirs.weights_, mixture.weights) < 1e-12
        assert residual(theirs.means_, mixture.means) < 1e-12
        assert residual(theirs.covariances_, compress(mixture.covariances, kind)) < 1e-12


def test_scikit_learns_own_mixture_tests_pass_on_ours():
    """In a separate process, with the plugin that lists skipped tests and expected failures with reasons.

    Their float32 variants are off by default and expect float32 results; our class computes in float64.
    """
    module = "sklearn.mixture.tests.test_gaussian_mixture"
    plugins = ["-p", "tests.oracles.sklearn_mixture", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, *plugins, "--pyargs", module]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert run.returncode == 0, run.stdout
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}
    assert counts["passed"] >= 41
    assert counts["xfailed"] == len(FAILS)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_criteria_are_scikit_learns(kind):
    ours = GaussianMixture(2, covariance_type=kind, rng=0).fit(data())
    theirs = SklearnMixture(2, covariance_type=kind)
    theirs.weights_, theirs.means_, theirs.covariances_ = ours.weights_, ours.means_, ours.covariances_
    inverse = np.linalg.inv if kind in ("full", "tied") else np.reciprocal
    theirs.precisions_cholesky_ = (
        np.linalg.cholesky(inverse(ours.covariances_))
        if kind in ("full", "tied")
        else inverse(ours.covariances_) ** 0.5
    )
    assert theirs._n_parameters() == ours.n_parameters_
    assert abs(ours.bic(data()) - theirs.bic(data())) < 1e-9
    assert abs(ours.aic(data()) - theirs.aic(data())) < 1e-9


def test_factor_analysis_is_scikit_learns():
    """At convergence their SVD steps and our EM reach the same likelihood and covariance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 1)) * [1.0, 2.0, -1.0, 0.5] + rng.standard_normal((300, 4)) * [1.0, 0.8, 2.0, 1.0]
    theirs = SklearnFactorAnalysis(1, tol=1e-10, max_iter=20_000, svd_method="lapack").fit(x)
    ours = FactorAnalysis(1, tol=1e-14, max_iter=20_000, rng=0).fit(x)
    assert abs(ours.score(x) - theirs.score(x)) < 1e-9
    assert residual(ours.covariance(), theirs.get_covariance()) < 1e-5


@pytest.mark.parametrize("n", [1, 2, 30])
def test_em_follows_scikit_learns_path(n):
    theirs, ours = sklearn_mixture(n), our_mixture(n)
    assert residual(ours.weights_, theirs.weights_) < 1e-9
    assert residual(ours.means_, theirs.means_) < 1e-9
    assert residual(ours.covariances_, theirs.covariances_) < 1e-8
    x = data(40, seed=1)
    assert residual(ours.log_prob(x), theirs.score_samples(x)) < 1e-8
    assert residual(ours.predict_proba(x), theirs.predict_proba(x)) < 1e-8
    assert (ours.predict(x) == theirs.predict(x)).all()
    assert abs(ours.score(x) - theirs.score(x)) < 1e-8


def test_ppca_is_scikit_learns_pca():
    x, new = data(), data(40, seed=1)
    for k in 1, 2:
        theirs, ours = PCA(k).fit(x), PPCA(k).fit(x)
        # their covariance has the factor 1/(N − 1), maximum likelihood has 1/N: compare after scaling
        n = len(x)
        assert abs(ours.noise_variance_ * n / (n - 1) - theirs.noise_variance_) < 1e-10
        rescaled = PPCA(k).fit(x.mean(axis=0) + (x - x.mean(axis=0)) * (n / (n - 1)) ** 0.5)
        assert residual(rescaled.log_prob(new), theirs.score_samples(new)) < 1e-10
        assert (
            residual(
                rescaled.components_ @ rescaled.components_.T + rescaled.noise_variance_ * np.eye(3),
                theirs.get_covariance(),
            )
            < 1e-10
        )
        assert ours.score(x) >= theirs.score(x)  # our fit is the maximum


# --- as a host --------------------------------------------------------------------------------------------


@every_model
def test_clone_keeps_parameters_and_forgets_the_fit(cls):
    model = cls(**SMALL[cls], rng=0)
    copy = clone(model.fit(data()))
    assert copy is not model
    assert not hasattr(copy, "n_features_in_")
    assert repr(copy.get_params()["rng"]) == "0"
    assert set(copy.get_params()) == set(model.get_params())
    assert residual(copy.fit(data()).sample(5, rng=0), model.sample(5, rng=0)) == 0


@every_model
def test_models_know_their_state_and_kind(cls):
    model = cls(**SMALL[cls], rng=0)
    with pytest.raises(SklearnNotFittedError):
        check_is_fitted(model)
    check_is_fitted(model.fit(data()))
    assert not is_outlier_detector(model)
    assert get_tags(model).non_deterministic  # scikit-learn cannot set `rng`


@at_floor  # one component on rows in a plane
@pytest.mark.filterwarnings("ignore:Estimator .* does not inherit from `sklearn.base.BaseEstimator`")
@pytest.mark.parametrize("cls", [*SMALL, CategoricalMixture])
def test_every_check_of_scikit_learns_own_is_passed(cls):
    """The skipped checks need packages that are not installed; one check has reals, which are no levels."""
    name, refused = "check_sample_weight_equivalence_on_dense_data", {}
    if cls is CategoricalMixture:  # tests/models/test_sample_weight.py has the check with levels
        refused = {name: "the check's data are no whole numbers"}
    model = cls(**(SMALL.get(cls, {}) | AS_CHECKED.get(cls, {})))
    results = check_estimator(model, on_skip=None, expected_failed_checks=refused)
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(refused)
    assert {result["status"] for result in results if result["check_name"] not in refused} <= {"passed", "skipped"}
    assert sum(result["status"] == "passed" for result in results) >= 37


@every_model
def test_pipeline_scales_and_fits(cls):
    scaled = StandardScaler().fit_transform(data())
    pipeline = make_pipeline(StandardScaler(), cls(**SMALL[cls], rng=0)).fit(data())
    alone = cls(**SMALL[cls], rng=0).fit(scaled)
    assert abs(pipeline.score(data()) - alone.score(scaled)) < 1e-9
    assert residual(pipeline.score_samples(data()), alone.score_samples(scaled)) < 1e-9
    assert isinstance(repr(pipeline), str)


@at_floor
def test_grid_search_chooses_by_held_out_likelihood():
    search = GridSearchCV(GaussianMixture(n_init=3, rng=1), {"n_components": [1, 2, 3]}, cv=3).fit(data())
    assert search.best_params_ == {"n_components": 3}  # data has three clusters
    scores = [np.mean(cross_val_score(GaussianMixture(k, n_init=3, rng=1), data(), cv=3)) for k in (1, 2, 3)]
    assert residual(search.cv_results_["mean_test_score"], scores) < 1e-12
    assert search.best_estimator_.score(data()) == GaussianMixture(3, n_init=3, rng=1).fit(data()).score(data())


def test_grid_search_reaches_into_a_pipeline():
    pipeline = Pipeline([("scale", StandardScaler()), ("model", PPCA())])
    search = GridSearchCV(pipeline, {"model__n_components": [1, 2], "model__method": ["closed", "em"]}, cv=3)
    search.set_params(estimator__model__rng=0).fit(data())
    scores = search.cv_results_["mean_test_score"].reshape(2, 2)  # methods sorted first
    assert residual(scores[0], scores[1]) < 1e-4
    assert search.best_params_["model__n_components"] == 2


def test_digits_equal_scikit_learns():
    theirs = load_digits()
    assert np.array_equal(datasets.digits().images, theirs.data)
    assert np.array_equal(datasets.digits().labels, theirs.target)
