"""The decoder that maps N(0, 1) to a given distribution on the line: Gaussian decoders restrict no marginal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.likelihood import LOG_2PI, logsumexp
from scratchgen.mixture import Mixture
from scratchgen.validation import Array


def transport_decoder(truth: Mixture) -> Callable[[Array], Array]:
    """The function f = F⁻¹ ∘ Φ that maps N(0, 1) exactly to p, with the distribution function F of p.

    A VAE with this decoder and noise s has the marginal ∫ N(x; f(z), s²) N(z) dz = p ∗ N(0, s²), which is
    `truth.diffuse(1, s)`.  This marginal tends to p as s → 0: a Gaussian decoder can match any density.

    Returns
    -------
    f : callable
        From z of any shape, |z| <= 9, to x of the same shape.

    Examples
    --------
    >>> f = transport_decoder(Mixture([1.0], [[3.0]], [[[4.0]]]))
    >>> f(np.array([-1.0, 0.0, 2.0])).round(9)
    array([1., 3., 7.])
    """
    from scipy.special import log_ndtr, ndtri_exp

    if truth.dimension != 1:
        raise ValueError(f"truth must be a Mixture on the line, got {truth.dimension} dimensions")
    there = np.isfinite(truth.log_weights)
    means, stds = truth.means[there, 0], np.sqrt(truth.covariances[there, 0, 0])
    log_weights = truth.log_weights[there]

    def normal_score(y: Array) -> Array:
        """Φ⁻¹(F(y)), from the nearer tail, because the other tail rounds to 1."""
        below = logsumexp(log_ndtr((y[:, None] - means) / stds) + log_weights)
        above = logsumexp(log_ndtr((means - y[:, None]) / stds) + log_weights)
        return np.where(below < above, ndtri_exp(np.minimum(below, -1e-300)), -ndtri_exp(np.minimum(above, -1e-300)))

    y = np.unique(
        (means + stds * np.linspace(-10, 10, 4001)[:, None]).ravel()
    )  # dense where p is large, at every scale
    scores = np.maximum.accumulate(normal_score(y))

    def f(z: Array) -> Array:
        flat = np.asarray(z, dtype=np.float64).ravel()
        x = np.interp(flat, scores, y)
        right = np.searchsorted(scores, flat).clip(1, len(y) - 1)
        for _ in range(4):  # Newton's method within the two nodes: dz/dx = p(x)/φ(z)
            z_x = normal_score(x)
            slope = np.exp(truth.log_prob(x[:, None]) + 0.5 * (z_x**2 + LOG_2PI))
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = x - (z_x - flat) / slope
            x = np.clip(np.where(np.isfinite(moved), moved, x), y[right - 1], y[right])
        return x.reshape(np.shape(z))

    return f
