"""scikit-learn: GaussianMixture, PCA as a density, FactorAnalysis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.conformance import Finding
from scratchgen import Mixture
from scratchgen.conformance import check_e_step, check_em, check_log_prob, check_ppca_maximum
from scratchgen.conformance.result import compare
from scratchgen.equations.problems import PLANE, POINTS, waves

NAME = "scikit-learn"
RIDGE = (
    "the M-step adds reg_covar to every covariance, so that the step maximises no fixed objective; a floor of the "
    "eigenvalues keeps one"
)
CANCELS = "the covariance is E[x²] − m², with cancellation far from the origin; 'full' centres the data first"
DEGREES = "explained_variance_ divides by N − 1, maximum likelihood by N"
RANK = (
    "with N < D the discarded variance is averaged over min(N, D) − k eigenvalues, as documented, not over D − k: "
    "the zero eigenvalues must be counted"
)
WHITEN = (
    "get_covariance and get_precision multiply components_ by √explained_variance_ if whiten is set, but fit does not "
    "divide by it: the density of x depends on the scale of transform (issue 13898)"
)
LAST_STEP = "after max_iter steps noise_variance_ has one update more than components_ and loglike_"
SURPLUS = (
    "loglike_ uses log s + 1 for every kept eigenvalue s, which is right for s >= 1; for s < 1 the factor is 0 "
    "and the term is s"
)


def findings() -> Iterator[Finding]:
    yield from mixtures()
    yield from principal_components()
    yield from factor_analysis()


def parameters(mixture: Mixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return mixture.weights, mixture.means, mixture.covariances


def fitted(x: np.ndarray, weights: Any, means: Any, covariances: Any, **options: Any) -> Any:
    """scikit-learn's mixture after max_iter steps from given parameters."""
    from sklearn.mixture import GaussianMixture

    precisions = np.linalg.inv(covariances)
    form = options.get("covariance_type", "full")
    start = {"full": precisions, "diag": np.diagonal(precisions, axis1=1, axis2=2), "tied": precisions[0]}[form]
    options = {"reg_covar": 0.0, "tol": 0.0, "weights_init": weights, "means_init": means, **options}
    return GaussianMixture(len(weights), precisions_init=start, **options).fit(x)


def as_full(model: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    covariances = model.covariances_
    if model.covariance_type == "diag":
        covariances = np.array([np.diag(row) for row in covariances])
    if model.covariance_type == "tied":
        covariances = np.broadcast_to(covariances, (len(model.weights_), *covariances.shape))
    return model.weights_, model.means_, covariances


def step(**options: Any) -> Callable[..., Any]:
    return lambda x, *start: as_full(fitted(x, *start, max_iter=1, **options))


def mixtures() -> Iterator[Finding]:
    x = np.concatenate([1 + 0.4 * waves(40, 2), -1 + 0.6 * waves(50, 2, shift=1.0), waves(30, 2, shift=2.0)])
    plane = parameters(PLANE)

    def known() -> Any:
        from sklearn.mixture import GaussianMixture

        model = GaussianMixture(
            len(PLANE.weights)
        )  # max_iter=0 raises because covariances_ is missing, even if all is given
        model.weights_, model.means_, model.covariances_ = plane
        model.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(PLANE.covariances)).swapaxes(1, 2)
        return model

    yield Finding(
        NAME,
        "GaussianMixture.predict_proba",
        check_e_step(lambda points, *start: known().predict_proba(points), POINTS, *plane),
    )
    yield Finding(NAME, "GaussianMixture.score_samples", check_log_prob(known().score_samples, PLANE, POINTS))
    for reg_covar, cause in ((0.0, ""), (1e-6, RIDGE), (0.1, RIDGE)):
        label = " (the default)" if reg_covar == 1e-6 else ""
        yield Finding(
            NAME,
            f"GaussianMixture, one EM step, reg_covar={reg_covar:g}{label}",
            check_em(step(reg_covar=reg_covar), x, *plane),
            cause,
        )
    small = (plane[0], 1e-3 * plane[1], 1e-6 * plane[2])
    yield Finding(
        NAME,
        "GaussianMixture, one EM step, default, data of variance 1e-6",
        in_units(check_em_covariance(step(reg_covar=1e-6), 1e-3 * x, *small), 1e-6),
        RIDGE + "; 1e-6 is an absolute number, so that the fit depends on the units of x",
    )
    best = as_full(fitted(x, *plane, max_iter=500))
    for reg_covar, cause in ((0.0, ""), (0.1, RIDGE)):
        yield Finding(
            NAME,
            f"GaussianMixture, log-likelihood from the maximum on, reg_covar={reg_covar:g}",
            monotone(likelihoods(step(reg_covar=reg_covar), x, best)),
            cause,
        )
    yield from far_from_origin()


def check_em_covariance(em_step: Callable[..., Any], x: np.ndarray, *start: np.ndarray) -> Any:
    """The covariances after a step, and those of the package's M-step."""
    from scratchgen.em import e_step, m_step

    mixture = Mixture(*start)
    return em_step(x, *start)[2], m_step(x, e_step(x, mixture)[0], mixture).covariances


def in_units(covariances: tuple[np.ndarray, np.ndarray], unit: float) -> Any:
    left, right = (part / unit for part in covariances)
    return compare("em.m_step", "(15)", "the covariances after a step, in units of the data", left, right, 1e-9)


def likelihoods(em_step: Callable[..., Any], x: np.ndarray, start: Any, n_steps: int = 6) -> list[float]:
    values = []
    for _ in range(n_steps):
        values.append(float(Mixture(*start).log_prob(x).mean()))
        start = em_step(x, *start)
    return values


def monotone(values: list[float], what: str = "the mean log-likelihood after each step") -> Any:
    highest = np.maximum.accumulate(values)
    return compare("likelihood never falls", "(18)", what, values, highest, 1e-9)


def far_from_origin() -> Iterator[Finding]:
    """In one dimension, or with one component, all covariance types are equal."""
    shift = 1e5
    line = np.concatenate([1 + 0.4 * waves(40, 1), -1 + 0.6 * waves(50, 1, shift=1.0)])
    two = (np.array([0.4, 0.6]), np.array([[0.8], [-0.5]]), np.array([[[0.3]], [[0.5]]]))
    plane = np.concatenate([waves(40, 2), 0.5 * waves(30, 2, shift=1.0)])
    one = (np.array([1.0]), np.zeros((1, 2)), np.eye(2)[None])
    for form, x, start, cause in (
        ("full", line, two, ""),
        ("diag", line, two, CANCELS),
        ("tied", plane, one, CANCELS),
    ):
        for offset in (0.0, shift):
            moved = (start[0], start[1] + offset, start[2])
            yield Finding(
                NAME,
                f"GaussianMixture, one EM step, '{form}', data near {offset:g}",
                check_em(step(covariance_type=form), x + offset, *moved),
                cause if offset else "",
            )


# --- PCA ---------------------------------------------------------------------------------------------------------


def principal_components() -> Iterator[Finding]:
    from sklearn.decomposition import PCA

    def maximum(x: np.ndarray, **options: Any) -> Callable[..., Any]:
        def fit(S: np.ndarray, n_components: int) -> tuple[np.ndarray, float]:  # S is the sample covariance of x
            pca = PCA(n_components, random_state=0, **options).fit(x)
            excess = pca.explained_variance_ - pca.noise_variance_
            return pca.components_.T * np.sqrt(excess), pca.noise_variance_

        return fit

    tall = waves(40, 6) @ np.diag([3, 2, 1, 0.8, 0.6, 0.5]) + 0.2
    wide = waves(6, 10) @ np.diag(np.linspace(2, 0.5, 10))
    S = np.cov(tall.T, bias=True)
    yield Finding(
        NAME, "PCA.noise_variance_ and components_, S with 1/N", check_ppca_maximum(maximum(tall), S, 2), DEGREES
    )
    for solver in ("full", "covariance_eigh", "arpack", "randomized"):
        yield Finding(
            NAME,
            f"the same, S with 1/(N − 1), svd_solver='{solver}'",
            check_ppca_maximum(maximum(tall, svd_solver=solver), np.cov(tall.T), 2),
        )
    yield Finding(
        NAME,
        "the same, S with 1/(N − 1), 6 examples in 10 dimensions",
        check_ppca_maximum(maximum(wide, svd_solver="full"), np.cov(wide.T), 2),
        RANK,
    )
    plain = PCA(2).fit(tall)
    law = Mixture([1.0], plain.mean_[None], plain.get_covariance()[None])
    yield Finding(NAME, "PCA.score_samples, of its own get_covariance", check_log_prob(plain.score_samples, law, tall))
    W, noise_variance = maximum(tall)(S, 2)
    law = Mixture([1.0], tall.mean(axis=0)[None], (W @ W.T + noise_variance * np.eye(6))[None])
    for whiten, cause in ((False, ""), (True, WHITEN)):
        pca = PCA(2, whiten=whiten).fit(tall)
        yield Finding(
            NAME,
            f"PCA.score_samples, whiten={whiten}, of N(μ, WWᵀ + σ² I)",
            check_log_prob(pca.score_samples, law, tall),
            cause,
        )


# --- FactorAnalysis ----------------------------------------------------------------------------------------------


def factor_analysis() -> Iterator[Finding]:
    from sklearn.decomposition import FactorAnalysis

    z = waves(60, 2, shift=2.0)
    x = z @ waves(2, 6, shift=1.0) * 1.5 + waves(60, 6) * np.array([0.3, 0.5, 0.7, 0.4, 0.6, 0.8]) + 0.5

    def fit(n_components: int = 2, **options: Any) -> Any:
        return FactorAnalysis(n_components, **{"svd_method": "lapack", "tol": 1e-10, "max_iter": 20000, **options}).fit(
            x
        )

    model = fit()
    law = Mixture([1.0], model.mean_[None], model.get_covariance()[None])
    yield Finding(NAME, "FactorAnalysis.score_samples", check_log_prob(model.score_samples, law, x))
    for method in ("lapack", "randomized"):
        model = fit(svd_method=method)
        yield Finding(
            NAME, f"FactorAnalysis.loglike_, {method}", monotone(np.array(model.loglike_) / len(x), "loglike_/N")
        )
        yield Finding(NAME, f"FactorAnalysis.loglike_[-1], {method}", last_likelihood(model, x))
    yield Finding(NAME, "FactorAnalysis, the maximum", stationary(fit(tol=0.0), x))
    yield Finding(NAME, "FactorAnalysis.loglike_[-1], max_iter=3", last_likelihood(fit(max_iter=3), x), LAST_STEP)
    yield Finding(NAME, "FactorAnalysis.loglike_[-1], 5 factors of 6 dimensions", last_likelihood(fit(5), x))
    small = 0.1 * x
    model = FactorAnalysis(2, svd_method="lapack").fit(small)
    right = Mixture([1.0], model.mean_[None], np.eye(6)[None]).log_prob(small).mean()  # the start: ψ = 1, W = 0
    first = compare("log p of the start", "(16)", "loglike_[0]/N", model.loglike_[0] / len(x), right, 1e-9)
    yield Finding(NAME, "FactorAnalysis.loglike_[0], all variances below 1", first, SURPLUS)


def last_likelihood(model: Any, x: np.ndarray) -> Any:
    covariance = model.components_.T @ model.components_ + np.diag(model.noise_variance_)
    right = Mixture([1.0], model.mean_[None], covariance[None]).log_prob(x).mean()
    return compare("log p of the fitted model", "(16)", "loglike_[-1]/N", model.loglike_[-1] / len(x), right, 1e-9)


def stationary(model: Any, x: np.ndarray) -> Any:
    """The gradient of the mean log-likelihood in W and in log ψ; the gradient in C is ½ C⁻¹(S − C)C⁻¹."""
    W, psi = model.components_.T, model.noise_variance_
    precision = np.linalg.inv(W @ W.T + np.diag(psi))
    slope = 0.5 * (precision @ np.cov(x.T, bias=True) @ precision - precision)
    gradient = np.concatenate([(2 * slope @ W).ravel(), np.diagonal(slope) * psi])
    return compare("stationary", "(18)", "∂ log p/∂(W, log ψ)", gradient, np.zeros_like(gradient), 1e-6)
