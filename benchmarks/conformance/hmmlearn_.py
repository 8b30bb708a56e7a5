"""hmmlearn: one EM step of hidden Markov models that are mixtures: all rows of the transitions are the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hmmlearn import hmm

from benchmarks.conformance import Finding
from benchmarks.conformance.shared import compact, restricted
from benchmarks.conformance.sklearn_ import parameters
from scratchgen.conformance import check_e_step, check_em, check_log_prob
from scratchgen.conformance.result import Check, compare
from scratchgen.equations.problems import PLANE, POINTS, waves

NAME = "hmmlearn"
PRIOR = "the default covars_prior = 0.01 is added to the N_k S_k of every state: the step is MAP, in units of the data"
ONES = PRIOR + "; for 'full' and 'tied' the number is added to the entries off the diagonal as well"
OLD = (
    "the covariances are taken about the means before the step, too large by (m − m_old)(m − m_old)ᵀ: a conditional "
    "maximum, by which the likelihood never falls, but not the M-step; the fixed points are the same"
)
REPEATED = (
    "after fit each variance stands D times in covars_, (K D, D, D), and sample takes covars_[state]: state i is drawn "
    "with the variance of state i // D"
)
CANCELS = "the covariance is Σ q x² − 2 m Σ q x + m² N_k, with cancellation far from the origin"


def findings() -> Iterator[Finding]:
    x = np.concatenate([1 + 0.4 * waves(40, 2), -1 + 0.6 * waves(50, 2, shift=1.0), waves(30, 2, shift=2.0)])
    plane = parameters(PLANE)
    check = check_e_step(lambda points, *start: gaussian(*start).predict_proba(points), POINTS, *plane)
    yield Finding(NAME, "GaussianHMM.predict_proba", check)
    check = check_log_prob(lambda points: [gaussian(*plane).score(point[None]) for point in points], PLANE, POINTS)
    yield Finding(NAME, "GaussianHMM.score of single points", check)
    for form in ("full", "tied", "diag", "spherical"):
        start = restricted(PLANE, form)
        check = check_em(step_of_states(form, covars_prior=0.0), x, *start, covariance_type=form)
        yield Finding(NAME, f"GaussianHMM, one EM step, '{form}', covars_prior=0", check)
        check = check_em(step_of_states(form), x, *start, covariance_type=form)
        cause = ONES if form in ("full", "tied") else PRIOR
        yield Finding(NAME, f"GaussianHMM, one EM step, '{form}', the default", check, cause)
        if form != "tied":
            check = check_em(step_of_mixture(form), x, *start, covariance_type=form)
            yield Finding(NAME, f"GMMHMM with one state, one EM step, '{form}'", check, OLD)
    yield Finding(NAME, "GaussianHMM.sample after fit, 'spherical'", drawn(x), REPEATED)
    far = (plane[0], plane[1] + 1e5, plane[2])
    check = check_em(step_of_states("full", covars_prior=0.0), x + 1e5, *far)
    yield Finding(NAME, "GaussianHMM, one EM step, 'full', covars_prior=0, data near 100000", check, CANCELS)


def drawn(x: Any) -> Check:
    """Standard deviation of 1e5 draws about the mean of their state; the tolerance is ten standard errors and more."""
    model = gaussian(*restricted(PLANE, "spherical"), "spherical", covars_prior=0.0).fit(x)
    variance = np.array([((x - m) ** 2 * q[:, None]).sum() / (2 * q.sum()) for m, q in weighted_points(model, x)])
    model.startprob_, model.transmat_ = np.full(3, 1 / 3), np.full((3, 3), 1 / 3)
    points, states = model.sample(100_000, random_state=0)
    left = [(points[states == k] - model.means_[k]).std() for k in range(3)]
    return compare("√variance", "", "std of the samples of a state", left, np.sqrt(variance), 0.03, relative=True)


def weighted_points(model: Any, x: Any) -> Any:
    """Means after the step with the responsibilities before it, which give its variances."""
    before = gaussian(*restricted(PLANE, "spherical"), "spherical").predict_proba(x)
    return zip(model.means_, before.T, strict=True)


def as_full(covariances: Any, form: str, n: int) -> Any:
    """Covariances (K, D, D) from the attribute covars_."""
    if form == "tied" and covariances.ndim == 2:
        return np.broadcast_to(covariances, (n, *covariances.shape)).copy()
    if form == "spherical" and covariances.ndim == 1:
        return covariances[:, None, None] * np.eye(2)
    if form == "spherical":
        return covariances[:: len(covariances) // n]  # after fit each of them is repeated
    return np.array([np.diag(row) for row in covariances]) if covariances.ndim == 2 else covariances


def gaussian(weights: Any, means: Any, covariances: Any, form: str = "full", **options: Any) -> Any:
    model = hmm.GaussianHMM(
        len(weights), form, n_iter=1, tol=-np.inf, params="mc", init_params="", min_covar=0.0, **options
    )
    model.startprob_, model.transmat_ = weights / weights.sum(), np.tile(weights / weights.sum(), (len(weights), 1))
    model.n_features, model.means_, model.covars_ = means.shape[1], means, compact(covariances, form)
    return model


def step_of_states(form: str, **options: Any) -> Callable[..., Any]:
    """The weights are the mean posterior, that Baum-Welch would keep for the stationary law."""

    def step(x: Any, weights: Any, means: Any, covariances: Any) -> Any:
        model = gaussian(weights, means, covariances, form, **options)
        new = model.predict_proba(x).mean(axis=0)
        model.fit(x)
        return new, model.means_, as_full(model.covars_, form, len(weights))

    return step


def step_of_mixture(form: str) -> Callable[..., Any]:
    def step(x: Any, weights: Any, means: Any, covariances: Any) -> Any:
        model = hmm.GMMHMM(
            1, len(weights), covariance_type=form, n_iter=1, tol=-np.inf, params="wmc", init_params="", min_covar=0.0
        )
        model.startprob_, model.transmat_, model.n_features = np.ones(1), np.ones((1, 1)), means.shape[1]
        model.weights_, model.means_, model.covars_ = weights[None], means[None], compact(covariances, form)[None]
        model.fit(x)
        return model.weights_[0], model.means_[0], as_full(model.covars_[0], form, len(weights))

    return step
