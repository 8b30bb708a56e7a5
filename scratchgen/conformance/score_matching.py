"""Check of (33): score matching, in expectation and example by example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned, takes_arrays
from scratchgen.conformance.result import Check, compare, first_of
from scratchgen.conformance.score import diffused, log_density, responsibilities
from scratchgen.conformance.sde import LARGEST_ERROR, by_array
from scratchgen.law import FINE
from scratchgen.mixture import Mixture
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.validation import Array

Form = Callable[..., Any]
WRONG_DENOISING: Mapping[str, Form] = {
    "the target of denoising is +ε/std": lambda s, noise, b: ((s - noise / b) ** 2).sum(axis=1),
    "the target of denoising is −ε: 1/std is missing": lambda s, noise, b: ((s + noise) ** 2).sum(axis=1),
    "the target of denoising is −ε/std²": lambda s, noise, b: ((s + noise / b**2) ** 2).sum(axis=1),
    "the score is taken for the noise ε̂": lambda s, noise, b: ((s - noise) ** 2).sum(axis=1),
    "it is ‖std · s_θ + ε‖², weighted by std²": lambda s, noise, b: ((b * s + noise) ** 2).sum(axis=1),
    "it is averaged over D": lambda s, noise, b: ((s + noise / b) ** 2).mean(axis=1),
    "it has a factor ½": lambda s, noise, b: 0.5 * ((s + noise / b) ** 2).sum(axis=1),
    "it is the norm, not its square": lambda s, noise, b: np.sqrt(((s + noise / b) ** 2).sum(axis=1)),
}
WRONG_IMPLICIT: Mapping[str, Form] = {
    "the divergence has lost its 2": lambda s, div: (s**2).sum(axis=1) + div,
    "the divergence has the wrong sign": lambda s, div: (s**2).sum(axis=1) - 2 * div,
    "it has a factor ½": lambda s, div: 0.5 * (s**2).sum(axis=1) + div,
    "it is averaged over D": lambda s, div: ((s**2).sum(axis=1) + 2 * div) / s.shape[1],
    "‖s_θ‖² is averaged over D": lambda s, div: (s**2).mean(axis=1) + 2 * div,
    "‖s_θ‖² is missing": lambda s, div: 2 * div,
    "‖s_θ‖ is not squared": lambda s, div: np.sqrt((s**2).sum(axis=1)) + 2 * div,
}
WRONG_SLICED: Mapping[str, Form] = {
    "the derivative has lost its 2": lambda s, v, d: (v * s).sum(axis=1) ** 2 + (v * d).sum(axis=1),
    "the derivative has the wrong sign": lambda s, v, d: (v * s).sum(axis=1) ** 2 - 2 * (v * d).sum(axis=1),
    "it has a factor ½": lambda s, v, d: 0.5 * (v * s).sum(axis=1) ** 2 + (v * d).sum(axis=1),
    "v · s_θ is not squared": lambda s, v, d: (v * s).sum(axis=1) + 2 * (v * d).sum(axis=1),
    "it is Σ_d (v_d s_d)², not (v · s_θ)²": lambda s, v, d: ((v * s) ** 2).sum(axis=1) + 2 * (v * d).sum(axis=1),
    "the derivative is not multiplied by v": lambda s, v, d: (v * s).sum(axis=1) ** 2 + 2 * d.sum(axis=1),
    "it is averaged over D": lambda s, v, d: ((v * s).sum(axis=1) ** 2 + 2 * (v * d).sum(axis=1)) / s.shape[1],
    "the derivative has lost its 2, beside ‖s_θ‖²": lambda s, v, d: (s**2).sum(axis=1) + (v * d).sum(axis=1),
    "the derivative is not multiplied by v, beside ‖s_θ‖²": lambda s, v, d: (s**2).sum(axis=1) + 2 * d.sum(axis=1),
    "the derivative has the wrong sign, beside ‖s_θ‖²": lambda s, v, d: (s**2).sum(axis=1) - 2 * (v * d).sum(axis=1),
    "v is missing in (v · s_θ)²: it is (Σ_d s_d)²": lambda s, v, d: (
        s.sum(axis=1) ** 2 + 2 * (v * d).sum(axis=1)
    ),
    "v has length 1": lambda s, v, d: (
        ((v * s).sum(axis=1) ** 2 + 2 * (v * d).sum(axis=1)) / (v**2).sum(axis=1)
    ),
}  # fmt: skip


class _Law:
    """x_t at the nodes of a quadrature rule, with the exact score and the conditional law of the noise."""

    def __init__(self, mixture: Mixture, scale: float, std: float, spacing: float) -> None:
        law = diffused(mixture, scale, std)
        x, weights = law.quadrature(spacing)
        log_p = log_density(law, x).real
        keep = log_p > log_p.max() - 60  # the rest of the grid adds less than 1e-20
        self.x, self.std, self.mass = x[keep], std, (weights * np.exp(log_p))[keep]
        precisions, share = np.linalg.inv(law.covariances), responsibilities(law, self.x)
        means = std * np.einsum("kde,nke->nkd", precisions, self.x[:, None] - law.means)
        self.noise = np.einsum("nk,nkd->nd", share, means)  # E[ε | x_t] = −std · ∇log p_t
        rest = means - self.noise[:, None]
        self.covariance = np.eye(law.dimension) + np.einsum("nk,kde->nde", share, -(std**2) * precisions)
        self.covariance += np.einsum("nk,nkd,nke->nde", share, rest, rest)

    def of_noise(self, f: Callable[[Array], Array]) -> float:
        """E f(ε), for a function of (x_t, ε) that is quadratic in ε: sigma points given every x_t."""
        values, vectors = np.linalg.eigh(self.covariance)
        factors = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
        points = sigma_points(self.x.shape[1])
        return float(np.mean([self.mass @ f(self.noise + factors @ point) for point in points]))


@takes_arrays
def check_score_matching(
    denoising: Callable[[Array, Array, float], ArrayLike],
    implicit: Callable[[Array, Array], ArrayLike],
    sliced: Callable[[Array, Array, Array], ArrayLike],
    mixture: Mixture,
    scale: float,
    std: float,
    score: Callable[[Array], Array],
    divergence: Callable[[Array], Array],
) -> Check:
    """(33): three forms of score matching differ by constants that do not depend on s_θ.

    denoising = explicit + D/std² − J, implicit = sliced = explicit − J, with J = E‖∇log p‖².  The forms are compared
    in expectation, for two scores, and example by example in D = 3, where a mean over D is seen.

    Parameters
    ----------
    denoising : callable
        denoising(score (N, D), noise (N, D), std) → (N,).
    implicit : callable
        implicit(score (N, D), divergence (N,)) → (N,).
    sliced : callable
        sliced(score (N, D), direction (N, D), derivative (N, D)) → (N,), with derivative = ∇s_θ · direction.  Its
        square may be (v·s_θ)² or ‖s_θ‖², the mean over v.
    mixture : Mixture
        Distribution of x_0, in one or two dimensions.
    scale, std : float
        x_t = scale · x_0 + std · ε.
    score, divergence : callables
        s_θ(x) → (N, D) and its divergence → (N,); any smooth function that grows slower than the density falls.

    Returns
    -------
    Check
        The denoising loss if all pass, else the largest of four residuals.  Tolerance 1e-12, plus the difference of two
        quadrature rules.
    """
    D = mixture.dimension
    rows = np.sin(1.7 * np.arange(1.0, 61.0) ** 1.3).reshape(4, 5, 3)
    s, noise, v, d = 2 * rows[0], rows[1], np.where(rows[2] > 0, 1.3, -0.8), rows[3]
    fine, coarse = _Law(mixture, scale, std, 0.8 * FINE), _Law(mixture, scale, std, FINE)
    trials = [_trial_scores(law, score, divergence) for law in (fine, coarse)]

    def explicit(law: _Law, fields: list[tuple[Array, Array]]) -> list[float]:
        """Explicit loss minus J for the two scores."""
        exact = -law.noise / law.std
        return [float(law.mass @ (value**2 - 2 * value * exact).sum(axis=1)) for value, _ in fields]

    def in_expectation(f: Form, kind: str) -> list[float]:
        values = []
        for value, jacobian in trials[0]:
            if kind == "denoising":
                values.append(fine.of_noise(lambda e, value=value: np.asarray(f(value, e, std))))  # type: ignore[misc]
            elif kind == "implicit":
                values.append(float(fine.mass @ np.asarray(f(value, np.trace(jacobian, axis1=1, axis2=2)))))
            else:
                signs = [np.array([1.0, *rest]) for rest in product((1.0, -1.0), repeat=D - 1)]
                per_sign = [f(value, np.broadcast_to(sign, value.shape), jacobian @ sign) for sign in signs]
                values.append(float(np.mean([fine.mass @ np.asarray(one) for one in per_sign])))
        return values

    right, rough = explicit(fine, trials[0]), explicit(coarse, trials[1])
    error = max(abs(a - b) / (1 + abs(a)) for a, b in zip(right, rough, strict=True))
    tolerance = float(1e-12 * max(1.0, std**-2) + min(error, LARGEST_ERROR))
    checks = []
    for kind, form, arguments, written, wrong, constant in (
        ("denoising", denoising, (s, noise, 0.6), lambda s, e, b: ((s + e / b) ** 2).sum(axis=1), WRONG_DENOISING,
         D / std**2),
        ("implicit", implicit, (s, d[:, 0]), lambda s, div: (s**2).sum(axis=1) + 2 * div, WRONG_IMPLICIT, 0.0),
        ("sliced", sliced, (s, v, d), lambda s, v, d: (v * s).sum(axis=1) ** 2 + 2 * (v * d).sum(axis=1), WRONG_SLICED,
         0.0),
    ):  # fmt: skip
        left = returned(form(*arguments), (5,), kind)
        expected = np.asarray(written(*arguments))
        if kind == "sliced":
            by_norm = (s**2).sum(axis=1) + 2 * (v * d).sum(axis=1)
            expected = min(expected, by_norm, key=lambda value: float(np.abs(left - value).max()))
        checks.append(
            compare(
                "check_score_matching",
                "(33)",
                f"{kind} loss",
                [*left, *in_expectation(form, kind)],
                [*expected, *(value + constant for value in right)],
                tolerance,
                {
                    sentence: lambda f=f, kind=kind, arguments=arguments: [*f(*arguments), *in_expectation(f, kind)]  # type: ignore[misc]
                    for sentence, f in wrong.items()
                },
                labels=([*(f"example {n} in D = 3" for n in range(5)), "E for s_θ", "E for another s_θ"],),
            )
        )
    stds = np.array([0.3, 0.6, 0.9, 1.4, 2.0])
    by_std = by_array(denoising, (5,), s, noise, stds)
    if by_std is not None:
        checks.append(
            compare(
                "check_score_matching",
                "(33)",
                "denoising loss with an array of std",
                by_std,
                ((s + noise / stds[:, None]) ** 2).sum(axis=1),
                tolerance,
                {
                    "every example has the std of the first": lambda: ((s + noise / stds[0]) ** 2).sum(axis=1),
                    **{
                        sentence: lambda f=f: f(s, noise, stds[:, None])  # type: ignore[misc]
                        for sentence, f in WRONG_DENOISING.items()
                    },
                },
            )
        )
    return first_of(*checks)


def _trial_scores(
    law: _Law, score: Callable[[Array], Array], divergence: Callable[[Array], Array]
) -> list[tuple[Array, Array]]:
    """s_θ and ½ s_θ − 0.3 x at the nodes, (M, D), with their Jacobians, (M, D, D)."""
    D = law.x.shape[1]
    value, trace = np.asarray(score(law.x)), np.asarray(divergence(law.x))
    if D == 1:
        jacobian = trace[:, None, None]
    else:
        slopes = [central_difference(lambda h, e=e: np.asarray(score(law.x + h * e)), 1e-3) for e in np.eye(D)]  # type: ignore[misc]
        jacobian = np.stack([np.asarray(slope) for slope in slopes], axis=2)
    if np.abs(np.trace(jacobian, axis1=1, axis2=2) - trace).max() > 1e-6 * (1 + np.abs(trace).max()):
        raise ValueError("divergence must be the divergence of score; its values differ from differences of score")
    return [(value, jacobian), (0.5 * value - 0.3 * law.x, 0.5 * jacobian - 0.3 * np.eye(D))]
