"""Checks of densities, scores and denoisers of mixtures.

The right side of a score is the complex-step derivative of the log-density.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned, takes_arrays
from scratchgen.conformance.em import FLOORS, RIDGES, log_joint_by_inverses
from scratchgen.conformance.result import SINGLE_LIMIT, Check, compare, worst
from scratchgen.conformance.sde import EPS, LARGEST_ERROR
from scratchgen.mixture import Mixture
from scratchgen.validation import Array


def log_density(mixture: Mixture, x: Array) -> Array:
    """log p(x), (N,), by inverses and determinants, also for complex x."""
    log_joint = log_joint_by_inverses(x, mixture.weights, mixture.means, mixture.covariances)
    top = log_joint.real.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(log_joint - top).sum(axis=1))


def _exact_score(mixture: Mixture, x: Array) -> Array:
    """∇ log p(x), (N, D), by the complex step Im log p(x + i h e_d)/h, which has no cancellation."""
    h = 1e-30
    columns = [log_density(mixture, x + 1j * h * e).imag / h for e in np.eye(mixture.dimension)]
    return np.stack(columns, axis=1)


def responsibilities(mixture: Mixture, x: Array) -> Array:
    """p(k | x), (N, K)."""
    log_joint = log_joint_by_inverses(x, mixture.weights, mixture.means, mixture.covariances)
    joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def with_far_points(mixture: Mixture, x: Array, width: float = 12.0) -> Array:
    """x and four points at `width` standard deviations of the widest direction from the mean."""
    reach = width * np.sqrt(np.linalg.eigvalsh(mixture.covariance()).max())
    direction = np.sin(np.arange(1.0, 1 + 2 * mixture.dimension) ** 1.3).reshape(2, -1)
    direction /= np.abs(direction).max(axis=1, keepdims=True)
    return np.concatenate([x, mixture.mean() + reach * np.concatenate([direction, -direction])])


def _conditioned(tolerance: float, mixture: Mixture, x: Array) -> float:
    """The tolerance, or the rounding of a right computation if that is larger.

    It is 64 ε times the largest condition number of a covariance, and 16 ε times the largest −log p of the nearest
    component, which p(k | x) of several components contains.
    """
    log_joint = log_joint_by_inverses(x, mixture.weights, mixture.means, mixture.covariances)
    height = np.abs(log_joint.max(axis=1)).max() if len(mixture.weights) > 1 else 0.0
    return float(max(tolerance, 64 * EPS * np.linalg.cond(mixture.covariances).max(), 16 * EPS * height))


@takes_arrays
def check_log_prob(log_prob: Callable[[Array], ArrayLike], mixture: Mixture, x: Array) -> Check:
    """log p(x) of a Gaussian mixture, by inverses and determinants.

    Parameters
    ----------
    log_prob : callable
        log_prob(x) → (N,), nats.
    mixture : Mixture
    x : (N, D)
        The check adds points at 12 standard deviations, and at 45, where a sum of densities without logsumexp is 0.

    Returns
    -------
    Check
        Tolerance 2e-14, or the rounding of a right computation if that is larger.
    """
    near = _log_prob_at(log_prob, mixture, with_far_points(mixture, x), "")
    if near.residual > max(near.tolerance, SINGLE_LIMIT):
        return near
    far = with_far_points(mixture, x[:0], UNDERFLOWS)
    return worst(near, _log_prob_at(log_prob, mixture, far, ", where every density underflows (sum in logarithms),"))


UNDERFLOWS = 45.0  # standard deviations at which the density is 0 in float64


def _log_prob_at(log_prob: Callable[[Array], ArrayLike], mixture: Mixture, x: Array, where: str) -> Check:
    """The comparison of `check_log_prob` at x, with `where` in the label."""
    exact, D = log_density(mixture, x).real, mixture.dimension
    weights, means, covariances = mixture.weights, mixture.means, mixture.covariances
    log_weights = np.log(weights, where=weights > 0, out=np.full(len(weights), -np.inf))
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    log_det = np.linalg.slogdet(covariances)[1]

    def wider(ridge: float) -> Array:
        return log_density(Mixture(weights, means, covariances + ridge * np.eye(D)), x).real

    def total(log_terms: Array) -> Array:
        return np.asarray(np.logaddexp.reduce(log_terms, axis=1))

    return compare(
        "check_log_prob",
        "(16)",
        "log p(x)",
        log_prob(x),
        exact,
        _conditioned(2e-14, mixture, x),
        {
            "(D/2) log 2π is missing": lambda: exact + 0.5 * D * np.log(2 * np.pi),
            "½ log 2π stands where (D/2) log 2π belongs": lambda: exact + 0.5 * (D - 1) * np.log(2 * np.pi),
            "the mixing weights are missing": lambda: total(log_joint - log_weights),
            "½ log|C| is missing": lambda: total(log_joint + 0.5 * log_det),
            "the ½ of log|C| stands twice, as ½ Σ log diag of the Cholesky factor": lambda: total(
                log_joint + 0.25 * log_det
            ),
            "it is in bits, not nats": lambda: exact / np.log(2),
            "log|C| has lost its ½": lambda: total(log_joint - 0.5 * log_det),
            "½ log|C| has the wrong sign": lambda: total(log_joint + log_det),
            "the quadratic form has lost its ½": lambda: total(
                2 * log_joint - log_weights + 0.5 * (D * np.log(2 * np.pi) + log_det)
            ),
            "it is the log-density of the nearest component": lambda: log_joint.max(axis=1),
            "it is Σ_k w_k log N_k, the mean of logarithms": lambda: (log_joint - log_weights) @ weights,
            "covariances are taken for standard deviations": lambda: (
                log_density(Mixture(weights, means, covariances @ covariances), x).real
            ),
            **{
                f"{floor:g} is added to p(x) before the logarithm": partial(np.logaddexp, exact, np.log(floor))
                for floor in (*FLOORS, 1e-15, 1e-16, 1e-20, 1e-30)
            },
            **{f"{ridge:g} is added to the variances": partial(wider, ridge) for ridge in RIDGES},
            "it is averaged over D": lambda: exact / D,
        },
        labels=lambda i: f"log p at x = {as_text(x[i[0]])}{where}",
    )


def as_text(x: Array) -> str:
    """A point in the text of a diagnosis; of long vectors the first three coordinates."""
    return f"({', '.join([f'{value:.4g}' for value in x[:3]] + ['…'] * (len(x) > 3))})"


@takes_arrays
def check_score(score: Callable[[Array], ArrayLike], mixture: Mixture, x: Array, std: float = 1.0) -> Check:
    """The score ∇ log p(x) of a Gaussian mixture, by the complex step.

    Parameters
    ----------
    score : callable
        score(x) → (N, D).
    mixture : Mixture
    x : (N, D)
        The check adds points at 12 standard deviations.
    std : float
        The noise of a diffused mixture; only the diagnosis uses it.

    Returns
    -------
    Check
        In units of 1/std of the narrowest direction of the mixture.  Tolerance 1e-12, or the rounding of a
        right computation if that is larger.
    """
    x = with_far_points(mixture, x)
    exact, value = _exact_score(mixture, x), returned(score(x), x.shape, "score")
    unit = 1 / np.sqrt(np.linalg.eigvalsh(mixture.covariances).min())  # scores of wide distributions are small numbers

    def by_component(precisions: Array, weights: Array) -> Array:
        return -np.einsum("nk,kde,nke->nd", weights, precisions, x[:, None] - mixture.means) / unit

    def precisions() -> Array:
        return np.linalg.inv(mixture.covariances)

    def here() -> Array:
        return responsibilities(mixture, x)

    def undetermined() -> Array:
        log_joint = log_joint_by_inverses(x, mixture.weights, mixture.means, mixture.covariances)
        log_joint = log_joint + 0.5 * np.linalg.slogdet(mixture.covariances)[1]
        joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        return joint / joint.sum(axis=1, keepdims=True)

    norms = np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-300)
    longest = float(np.linalg.norm(value, axis=1).max())
    K = len(mixture.weights)
    equal = Mixture(np.full(K, 1 / K), mixture.means, mixture.covariances)
    scaled: dict[str, Callable[[], ArrayLike]] = {
        "it is −std · ∇log p, the noise": lambda: -std * exact / unit,
        "it is std · ∇log p": lambda: std * exact / unit,
        "it is std² · ∇log p, the denoiser's shift": lambda: std**2 * exact / unit,
        "it is ∇log p/std, as −ε̂/std²": lambda: exact / std / unit,
        "it is −∇log p/std, as ε̂/std²": lambda: -exact / std / unit,
    }
    scaled = {} if std == 1 else scaled  # where std is 1 they say no more than the sign
    return compare(
        "check_score",
        "(33)",
        "∇ log p(x), in units of 1/std",
        value / unit,
        exact / unit,
        _conditioned(1e-12, mixture, x),
        {
            "the sign is wrong": lambda: -exact / unit,
            **scaled,
            f"its norm is clipped to {longest:.4g}": lambda: exact * np.minimum(longest / norms, 1.0) / unit,
            "the mixing weights are left out of p(k | x)": lambda: by_component(
                precisions(), responsibilities(equal, x)
            ),
            "it is ∇p, not ∇log p": lambda: np.exp(log_density(mixture, x).real)[:, None] * exact / unit,
            "it is the score of the nearest component": lambda: by_component(
                precisions(), (here() == here().max(axis=1, keepdims=True)).astype(float)
            ),
            "the mixing weights stand where p(k | x) belongs": lambda: by_component(
                precisions(), np.tile(mixture.weights, (len(x), 1))
            ),
            "L⁻¹ stands where C⁻¹ = L⁻ᵀL⁻¹ belongs: x − m is whitened once": lambda: by_component(
                np.linalg.inv(np.linalg.cholesky(mixture.covariances)), here()
            ),
            "it is the score of one Gaussian with the moments of the mixture": lambda: (
                -(x - mixture.mean()) @ np.linalg.inv(mixture.covariance()) / unit
            ),
            "the means of the components are that of the mixture": lambda: (
                -np.einsum("nk,kde,ne->nd", here(), precisions(), x - mixture.mean()) / unit
            ),
            "the determinants are left out of p(k | x)": lambda: by_component(precisions(), undetermined()),
            "C⁻¹ is missing": lambda: by_component(np.tile(np.eye(x.shape[1]), (len(mixture.weights), 1, 1)), here()),
            "C stands where C⁻¹ belongs": lambda: by_component(mixture.covariances, here()),
        },
        labels=lambda i: f"coordinate {i[1] + 1} of ∇ log p at x = {as_text(x[i[0]])}, in units of 1/std",
    )


def diffused(mixture: Mixture, scale: float, std: float) -> Mixture:
    """The law of scale · x_0 + std · ε."""
    covariances = scale**2 * mixture.covariances + std**2 * np.eye(mixture.dimension)
    return Mixture(mixture.weights, scale * mixture.means, covariances)


def _denoised(
    mixture: Mixture,
    x_t: Array,
    scale: float,
    std: float,
    gain: float = 1.0,
    under: Callable[[Mixture], Mixture] = lambda law: law,
    hard: bool = False,
) -> Array:
    """E[x_0 | x_t], (N, D), as the mean of E[x_0 | x_t, k] over p(k | x_t); the options are for mistakes."""
    law = diffused(mixture, scale, std)
    gains = gain * scale * mixture.covariances @ np.linalg.inv(law.covariances)
    means = mixture.means + np.einsum("kde,nke->nkd", gains, x_t[:, None] - law.means)
    share = responsibilities(under(law), x_t)
    share = (share == share.max(axis=1, keepdims=True)).astype(np.float64) if hard else share
    return np.einsum("nk,nkd->nd", share, means)


def _weighted(mixture: Mixture, x_t: Array, scale: float, std: float) -> Array:
    """The mean of E[x_0 | x_t, k] over the mixing weights."""
    law = diffused(mixture, scale, std)
    gains = scale * mixture.covariances @ np.linalg.inv(law.covariances)
    means = mixture.means + np.einsum("kde,nke->nkd", gains, x_t[:, None] - law.means)
    return np.einsum("k,nkd->nd", mixture.weights, means)


def _other_levels(scale: float, std: float) -> list[tuple[float, float]]:
    """A level of less and one of more noise in the same kind of process: scale² + std² = 1, scale + std = 1, other."""
    if scale < 1 and abs(scale**2 + std**2 - 1) < 1e-6:
        return [(float(np.sqrt(1 - b**2)), b) for b in (0.5 * std, 0.5 + 0.5 * std)]
    if scale < 1 and abs(scale + std - 1) < 1e-6:
        return [(1 - b, b) for b in (0.5 * std, 0.5 + 0.5 * std)]
    return [(scale, 0.5 * std), (scale, 2 * std)]


@takes_arrays
def check_denoiser(
    denoise: Callable[[Array, float, float], ArrayLike], mixture: Mixture, x_t: Array, scale: float, std: float
) -> Check:
    """E[x_0 | x_t] for x_t = scale · x_0 + std · ε and x_0 from a Gaussian mixture.

    Tweedie's formula (x_t + std² ∇log p_t)/scale is a second route.  It cancels where scale is small, and the
    difference of the two routes enters the tolerance.

    Parameters
    ----------
    denoise : callable
        denoise(x_t, scale, std) → (N, D).
    mixture : Mixture
        Distribution of x_0.
    x_t : (N, D)
        The check adds points at 12 standard deviations of x_t, and calls `denoise` at one level of less noise and at
        one of more noise, of the same kind of process.
    scale, std : float

    Returns
    -------
    Check
        In units of the standard deviation of x_0.  Tolerance 1e-12, or the rounding of a
        right computation if that is larger, plus ten times the difference of the two routes and of the
        rounding of x_t/scale.
    """
    unit = float(np.sqrt(np.diagonal(mixture.covariance()).mean()))
    levels = [(scale, std), *_other_levels(scale, std)]
    laws = [diffused(mixture, *level) for level in levels]
    points = [with_far_points(law, x_t) for law in laws]
    scores = [_exact_score(law, x) for law, x in zip(laws, points, strict=True)]
    right = np.array([_denoised(mixture, x, a, b) for x, (a, b) in zip(points, levels, strict=True)]) / unit

    def everywhere(f: Callable[[Array, Array, float, float], ArrayLike]) -> Array:
        """f(x, ∇log p_t(x), scale, std) at every level, (3, N, D), in units of the data."""
        return np.array([f(x, s, a, b) for x, s, (a, b) in zip(points, scores, levels, strict=True)]) / unit

    tweedie = everywhere(lambda x, s, a, b: (x + b**2 * s) / a)
    error = np.abs(tweedie - right).max() / (1 + np.abs(right).max())
    error += 2 * EPS * max(np.abs(x).max() / (a * unit) for x, (a, _) in zip(points, levels, strict=True))
    left = everywhere(lambda x, s, a, b: returned(denoise(x, a, b), x.shape, "denoise"))
    return compare(
        "check_denoiser",
        "(25)",
        "E[x_0 | x_t], in units of its standard deviation",
        left,
        right,
        float(max(map(partial(_conditioned, 1e-12), laws, points)) + min(10 * error, LARGEST_ERROR)),
        {
            "scale is missing in the gain scale C (scale² C + std² I)⁻¹": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, a, b, 1 / a)
            ),
            "the gain is scale² C (scale² C + std² I)⁻¹: one scale too many": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, a, b, a)
            ),
            "p(k | x_t) is that of clean data": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, a, b, under=lambda law: mixture)
            ),
            "the means are not scaled in p(k | x_t)": lambda: everywhere(
                lambda x, s, a, b: _denoised(
                    mixture, x, a, b, under=lambda law: Mixture(law.weights, mixture.means, law.covariances)
                )
            ),
            "the noise is missing in p(k | x_t)": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, a, b, under=lambda law: diffused(mixture, a, 0.0))
            ),
            "the mixing weights stand where p(k | x_t) belongs": lambda: everywhere(
                lambda x, s, a, b: _weighted(mixture, x, a, b)
            ),
            "the mixing weights are left out of p(k | x_t)": lambda: everywhere(
                lambda x, s, a, b: _denoised(
                    mixture,
                    x,
                    a,
                    b,
                    under=lambda law: Mixture(
                        np.full(len(law.weights), 1 / len(law.weights)), law.means, law.covariances
                    ),
                )
            ),
            "it is Σ p(k | x_t) m_k, the means of the components alone": lambda: everywhere(
                lambda x, s, a, b: responsibilities(diffused(mixture, a, b), x) @ mixture.means
            ),
            "it is that of one Gaussian with the moments of the mixture": lambda: everywhere(
                lambda x, s, a, b: _denoised(Mixture([1.0], [mixture.mean()], [mixture.covariance()]), x, a, b)
            ),
            "it is that of the most probable component": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, a, b, hard=True)
            ),
            "the score has the wrong sign": lambda: everywhere(lambda x, s, a, b: (x - b**2 * s) / a),
            "std stands where std² belongs": lambda: everywhere(lambda x, s, a, b: (x + b * s) / a),
            "std² is missing": lambda: everywhere(lambda x, s, a, b: (x + s) / a),
            "1/scale is missing: it is E[scale · x_0 | x_t], at the level of the noise": lambda: everywhere(
                lambda x, s, a, b: x + b**2 * s
            ),
            "only x_t is divided by scale": lambda: everywhere(lambda x, s, a, b: x / a + b**2 * s),
            "it is the noise E[ε | x_t]": lambda: everywhere(lambda x, s, a, b: -b * s),
            "it is the score ∇log p_t": lambda: everywhere(lambda x, s, a, b: s),
            "it is x_t/scale, without a shift": lambda: everywhere(lambda x, s, a, b: x / a),
            "scale is left out: x_t is taken for x_0 + std · ε": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, 1.0, b)
            ),
            "x_t is not divided by scale, and the noise is std/scale": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, 1.0, b / a)
            ),
            "scale and std are swapped": lambda: everywhere(lambda x, s, a, b: _denoised(mixture, x, b, a)),
            "std is taken for the variance": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, a, float(np.sqrt(b)))
            ),
            "std² is taken for the standard deviation": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, a, b**2)
            ),
            "it is the denoiser of the first level at every level": lambda: everywhere(
                lambda x, s, a, b: _denoised(mixture, x, scale, std)
            ),
            "the score is that of the data, not of x_t": lambda: everywhere(
                lambda x, s, a, b: (x + b**2 * _exact_score(mixture, x)) / a
            ),
        },
        labels=lambda i: (
            f"coordinate {i[2] + 1} of E[x_0 | x_t] at x_t = {as_text(points[i[0]][i[1]])}, "
            f"scale {levels[i[0]][0]:.3g}, std {levels[i[0]][1]:.3g}, in units of the std of x_0"
        ),
    )
