"""Bayes loss and excess of a noise predictor on data from a `Mixture`.

There the optimal noise predictor is known, ε*(x_t) = −std · ∇log p_t(x_t), so that a trained one can be graded by
E‖ε* − ε̂‖², the excess of its loss over the Bayes loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from scratchgen.mixture import Mixture
from scratchgen.validation import Array


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
