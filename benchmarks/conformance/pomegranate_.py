"""pomegranate: GeneralMixtureModel of Normal, in float32 (it does not compute in float64 throughout)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from pomegranate.distributions import Normal
from pomegranate.gmm import GeneralMixtureModel

from benchmarks.conformance import SINGLE, Finding, returned
from benchmarks.conformance.shared import compact, restricted
from benchmarks.conformance.sklearn_ import parameters
from scratchgen import Mixture
from scratchgen.conformance import check_e_step, check_em, check_log_prob
from scratchgen.conformance.result import Check, compare
from scratchgen.em import e_step, m_step
from scratchgen.equations.problems import PLANE, POINTS, waves

NAME = "pomegranate"
SPREAD = "sample passes the variances to torch.distributions.Normal, which takes standard deviations"
NO_SPHERE = "sample returns None for covariance_type='sphere'"
STALE = (
    "fit ends with an E-step whose sums are never used, and _reset_cache of the mixture does not clear those of its "
    "components: the next fit or summarize adds to them"
)
UNWEIGHTED = (
    "summarize returns Σ log p(x) without the sample weights, by which fit decides to stop: with weights it stops when "
    "the wrong sum falls"
)
CANCELS = "the covariance is E[xxᵀ] − m mᵀ in float32, with cancellation far from the origin"


def findings() -> Iterator[Finding]:
    x = np.concatenate([1 + 0.4 * waves(40, 2), -1 + 0.6 * waves(50, 2, shift=1.0), waves(30, 2, shift=2.0)])
    plane = parameters(PLANE)
    check = check_e_step(lambda points, *start: mixture(*start).predict_proba(cast(points)), POINTS, *plane)
    yield Finding(NAME, "GeneralMixtureModel.predict_proba", check, tolerance=SINGLE)
    check = check_log_prob(lambda points: mixture(*plane).log_probability(cast(points)), PLANE, POINTS)
    yield Finding(NAME, "GeneralMixtureModel.log_probability", check, tolerance=SINGLE)
    for form in ("full", "diag"):
        check = check_em(step(form), x, *restricted(PLANE, form), covariance_type=form)
        yield Finding(NAME, f"GeneralMixtureModel, one EM step, '{form}'", check, tolerance=SINGLE)
    far = (plane[0], plane[1] + 100, plane[2])
    check = check_em(step("full"), x + 100, *far)
    yield Finding(NAME, "GeneralMixtureModel, one EM step, 'full', data near 100", check, CANCELS, SINGLE)
    yield from drawn()
    yield Finding(NAME, "GeneralMixtureModel: one EM step after a fit that converged", after_a_fit(x, plane), STALE)
    yield Finding(NAME, "GeneralMixtureModel.summarize, with sample weights", weighted(x, plane), UNWEIGHTED)


def cast(x: Any) -> Any:
    return torch.tensor(np.asarray(x), dtype=torch.float32)


def mixture(weights: Any, means: Any, covariances: Any, form: str = "full", **options: Any) -> Any:
    parts = [
        Normal(cast(m), cast(c), covariance_type=form) for m, c in zip(means, compact(covariances, form), strict=True)
    ]
    return GeneralMixtureModel(parts, priors=cast(weights), **options)


def read(model: Any, form: str) -> Any:
    covariances = [part.covs.numpy() if form == "full" else np.diag(part.covs.numpy()) for part in model.distributions]
    return model.priors.numpy(), [part.means.numpy() for part in model.distributions], covariances


def step(form: str) -> Callable[..., Any]:
    def em_step(x: Any, *start: Any) -> Any:
        model = mixture(*start, form=form)
        model.summarize(cast(x))
        model.from_summaries()
        return read(model, form)

    return em_step


def drawn() -> Iterator[Finding]:
    """Standard deviations of 1e5 draws from N(0, diag(0.04, 9)); the tolerance is ten standard errors."""
    n, variance = 100_000, np.array([0.04, 9.0])
    for form, covariance, cause in (
        ("full", np.diag(variance), ""),
        ("diag", variance, SPREAD),
        ("sphere", 4.0, NO_SPHERE),
    ):
        torch.manual_seed(0)
        right = np.sqrt(variance) if form != "sphere" else np.array([2.0, 2.0])

        def spread(form: str = form, covariance: Any = covariance) -> Any:
            return Normal(cast(np.zeros(2)), cast(covariance), covariance_type=form).sample(n).std(dim=0)

        left = returned(spread, right)
        check = compare("√variance", "", "std of the samples", left, right, 10 / np.sqrt(2 * n), relative=True)
        yield Finding(NAME, f"Normal.sample, '{form}'", check, cause)


def after_a_fit(x: Any, plane: Any) -> Check:
    """The means after one step on other data, against the M-step from the same parameters."""
    model = mixture(*plane, tol=1e-3, max_iter=1000)
    model.fit(cast(x))
    weights, means, covariances = (np.array(part, dtype=np.float64) for part in read(model, "full"))
    other = x[::2] + 0.3
    model.summarize(cast(other))
    model.from_summaries()
    start = Mixture(weights / weights.sum(), means, (covariances + covariances.swapaxes(1, 2)) / 2)
    right = m_step(other, e_step(other, start)[0], start).means
    return compare("em.m_step", "(18)", "the means after the step", np.array(read(model, "full")[1]), right, SINGLE)


def weighted(x: Any, plane: Any) -> Check:
    counts = np.where(x[:, 0] > 0, 3.0, 1.0)
    left = float(mixture(*plane).summarize(cast(x), sample_weight=cast(counts[:, None])))
    right = (counts * Mixture(*plane).log_prob(x)).sum()
    return compare("Σ w log p", "(16)", "the log-likelihood by which fit stops", left, right, SINGLE)
