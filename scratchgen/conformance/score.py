"""Checks of scores and of (33): densities and denoisers of mixtures, score matching.

The right side of a score is the complex-step derivative of the log-density.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import returned, takes_arrays
from scratchgen.conformance.em import log_joint_by_inverses
from scratchgen.conformance.result import Check, compare
from scratchgen.mixture import FINE, Mixture
from scratchgen.quadrature import central_difference
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


@takes_arrays
def check_log_prob(log_prob: Callable[[Array], ArrayLike], mixture: Mixture, x: Array) -> Check:
    """log p(x) of a Gaussian mixture, by inverses and determinants.

    Parameters
    ----------
    log_prob : callable
        log_prob(x) → (N,), nats.
    mixture : Mixture
    x : (N, D)

    Returns
    -------
    Check
        Tolerance 1e-10.
    """
    exact = log_density(mixture, x).real
    D = mixture.dimension
    return compare(
        "check_log_prob",
        "(16)",
        "log p(x)",
        log_prob(x),
        exact,
        1e-10,
        {
            "(D/2) log 2π is missing": lambda: exact + 0.5 * D * np.log(2 * np.pi),
            "the mixing weights are missing": lambda: np.log(
                sum(
                    np.exp(log_density(Mixture(np.ones(1), m[None], C[None]), x).real)
                    for m, C in zip(mixture.means, mixture.covariances, strict=True)
                )
            ),
        },
    )


@takes_arrays
def check_score(score: Callable[[Array], ArrayLike], mixture: Mixture, x: Array, std: float = 1.0) -> Check:
    """The score ∇ log p(x) of a Gaussian mixture, by the complex step.

    Parameters
    ----------
    score : callable
        score(x) → (N, D).
    mixture : Mixture
    x : (N, D)
    std : float
        The noise of a diffused mixture; only the diagnosis uses it.

    Returns
    -------
    Check
        In units of 1/std of the narrowest direction of the mixture; tolerance 1e-10.
    """
    exact = _exact_score(mixture, x)
    value = returned(score(x), x.shape, "score")
    unit = 1 / np.sqrt(np.linalg.eigvalsh(mixture.covariances).min())  # scores of wide distributions are small numbers
    return compare(
        "check_score",
        "(33)",
        "∇ log p(x), in units of 1/std",
        value / unit,
        exact / unit,
        1e-10,
        {
            "the sign is wrong": lambda: -exact / unit,
            "it is −std · ∇log p, the noise": lambda: -std * exact / unit,
            "it is std · ∇log p": lambda: std * exact / unit,
            "it is std² · ∇log p, the denoiser's shift": lambda: std**2 * exact / unit,
        },
    )


@takes_arrays
def check_denoiser(
    denoise: Callable[[Array, float, float], ArrayLike], mixture: Mixture, x_t: Array, scale: float, std: float
) -> Check:
    """E[x_0 | x_t] for x_t = scale · x_0 + std · ε and x_0 from a Gaussian mixture, by Tweedie's formula.

    Parameters
    ----------
    denoise : callable
        denoise(x_t, scale, std) → (N, D).
    mixture : Mixture
        Distribution of x_0.
    x_t : (N, D)
    scale, std : float

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    covariances = scale**2 * mixture.covariances + std**2 * np.eye(mixture.dimension)
    score = _exact_score(Mixture(mixture.weights, scale * mixture.means, covariances), x_t)
    exact = (x_t + std**2 * score) / scale
    return compare(
        "check_denoiser",
        "(25)",
        "E[x_0 | x_t]",
        denoise(x_t, scale, std),
        exact,
        1e-9,
        {
            "the score has the wrong sign": lambda: (x_t - std**2 * score) / scale,
            "std stands where std² belongs": lambda: (x_t + std * score) / scale,
            "1/scale is missing": lambda: x_t + std**2 * score,
        },
    )


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
    """(33): three forms of score matching in one dimension differ by constants that do not depend on s_θ.

    denoising = explicit + D/std² − J, implicit = sliced = explicit − J, with J = E‖∇log p‖².

    Parameters
    ----------
    denoising : callable
        denoising(score (N, 1), noise (N, 1), std) → (N,).
    implicit : callable
        implicit(score (N, 1), divergence (N,)) → (N,).
    sliced : callable
        sliced(score (N, 1), direction (N, 1), derivative (N, 1)) → (N,), with derivative = ∇s_θ · direction.
    mixture : Mixture
        Distribution of x_0, one-dimensional.
    scale, std : float
        x_t = scale · x_0 + std · ε.
    score, divergence : callables
        s_θ(x) → (N, 1) and its divergence → (N,); any smooth function that grows slower than the density falls.

    Returns
    -------
    Check
        Tolerance 1e-8.
    """
    covariances = scale**2 * mixture.covariances + std**2 * np.eye(1)
    law = Mixture(mixture.weights, scale * mixture.means, covariances)
    x, weights = law.quadrature(FINE)
    mass, exact = weights * np.exp(log_density(law, x).real), _exact_score(law, x)
    s, div = score(x), divergence(x)
    fisher = float(mass @ (exact**2)[:, 0])
    explicit = float(mass @ ((s - exact) ** 2)[:, 0])
    # ε given x_t has mean −std ∇log p and variance 1 + std² (log p)''; two points integrate the quadratic
    curvature = np.asarray(central_difference(lambda h: _exact_score(law, x + h)[:, 0], 1e-3))
    spread = np.sqrt(np.maximum(1 + std**2 * curvature, 0.0))[:, None]
    by_noise = [mass @ np.asarray(denoising(s, -std * exact + sign * spread, std)) for sign in (1, -1)]
    direction = np.where(np.arange(len(x)) % 2 == 0, 1.0, -1.0)[:, None]
    left = [
        0.5 * float(sum(by_noise)),
        float(mass @ np.asarray(implicit(s, div))),
        float(mass @ np.asarray(sliced(s, direction, div[:, None] * direction))),
    ]
    dsm, ism = explicit + 1 / std**2 - fisher, explicit - fisher
    square, slope = float(mass @ (s**2)[:, 0]), float(mass @ div)
    cross = float(mass @ (s * exact)[:, 0])
    return compare(
        "check_score_matching",
        "(33)",
        "(denoising, implicit, sliced) loss",
        left,
        [dsm, ism, ism],
        1e-8,
        {
            "the divergence has lost its 2 in the implicit loss": lambda: [dsm, square + slope, ism],
            "the divergence has lost its 2 in the sliced loss": lambda: [dsm, ism, square + slope],
            "the divergence has the wrong sign": lambda: [dsm, square - 2 * slope, ism],
            "the target of denoising is +ε/std": lambda: [square + 1 / std**2 - 2 * (-cross), ism, ism],
            "the target of denoising is −ε: 1/std is missing": lambda: [square + 1 - 2 * std * cross, ism, ism],
            "the target of denoising is −ε/std²": lambda: [square + 1 / std**4 - 2 * cross / std, ism, ism],
        },
    )
