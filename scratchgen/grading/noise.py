"""Bayes loss and excess of a noise predictor on data from a mixture.

There the optimal noise predictor is known, ε*(x_t) = −std · ∇log p_t(x_t), so that a trained one can be graded by
E‖ε* − ε̂‖², the excess of its loss over the Bayes loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from scratchgen.em import CategoricalMixture
from scratchgen.mixture import Mixture
from scratchgen.validation import Array, as_number, as_samples

BLOCK = 500  # examples at a time: a categorical mixture's tables take N · K · D · n_levels numbers


class NoiseGrade(NamedTuple):
    """How good a noise predictor is at one noise level; both in units of ε, summed over dimensions."""

    bayes: float  # E‖ε − ε*‖², the least possible loss
    excess: float  # E‖ε* − ε̂‖², what the network adds to it


def grade_noise(mixture: Mixture, eps_hat: Callable[[Array], Array], scale: float, std: float) -> NoiseGrade:
    """Bayes loss and excess of ε̂(x_t) at x_t = scale · x_0 + std · ε with x_0 from `mixture`, by quadrature.

    Loss = bayes + excess exactly, because ε − ε* is orthogonal to every function of x_t.  The excess is integrated
    itself: as a difference of two estimated losses it would drown in their noise.
    """
    diffused = mixture.diffuse(scale, std)
    points, weights = diffused.quadrature(spacing=0.25)  # ‖∇log p‖² has poles: 0.5 was 1e-4 off, this is 1e-7
    mass = weights * np.exp(diffused.log_prob(points))
    optimum = -std * diffused.score(points)
    bayes = mixture.dimension - float(mass @ (optimum**2).sum(axis=1))
    return NoiseGrade(bayes, float(mass @ ((optimum - eps_hat(points)) ** 2).sum(axis=1)))


class SampledNoiseGrade(NamedTuple):
    """A `NoiseGrade` from samples, and the standard errors of its two numbers."""

    bayes: float
    excess: float
    bayes_error: float
    excess_error: float


def sample_noise_grade(
    law: Mixture | CategoricalMixture,
    eps_hat: Callable[[Array], Array],
    x0: Array,
    noise: Array,
    scale: float,
    std: float,
) -> SampledNoiseGrade:
    """`grade_noise` in any dimension, by the mean over examples x_0 of the law and noise ε, each (N, D).

    Both integrands are exact at every x_t: ‖ε* − ε̂‖² with ε* = (x_t − scale E[x_0 | x_t])/std, and
    E[‖ε − ε*‖² | x_t] = (scale/std)² tr Cov(x_0 | x_t), which varies far less than ‖ε − ε*‖².

    Parameters
    ----------
    law : Mixture or fitted CategoricalMixture
        Of x0; for a CategoricalMixture those are levels scaled to [−1, 1].
    eps_hat : callable
        ε̂ of x_t (n, D).
    """
    x0, noise = as_samples(x0, "x0"), as_samples(noise, "noise", dimension=x0.shape[1])
    if len(noise) != len(x0):
        raise ValueError(f"noise must have one row for each of the {len(x0)} rows of x0, got {len(noise)}")
    std = as_number(std, "std", low=0.0, open_low=True)
    excess, bayes = np.empty(len(x0)), np.empty(len(x0))
    for start in range(0, len(x0), BLOCK):
        rows = slice(start, start + BLOCK)
        x_t = scale * x0[rows] + std * noise[rows]
        optimum = (x_t - scale * law.denoise(x_t, scale, std)) / std
        excess[rows] = ((optimum - eps_hat(x_t)) ** 2).sum(axis=1)
        bayes[rows] = (scale / std) ** 2 * law.denoise_variance(x_t, scale, std)
    errors = [float(values.std(ddof=1) / len(x0) ** 0.5) if len(x0) > 1 else float("inf") for values in (bayes, excess)]
    return SampledNoiseGrade(float(bayes.mean()), float(excess.mean()), errors[0], errors[1])
