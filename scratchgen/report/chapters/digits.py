"""All models of the digits on one scale, together with exact densities."""

from __future__ import annotations

import numpy as np

from scratchgen import CategoricalMixture, GaussianMixture
from scratchgen.report.text import say
from scratchgen.report.tour import Tour, bits_per_dim, dequantized_digits, levels_of_digits


def compare_digits(tour: Tour) -> None:
    """Compare all models of the digits in bits per pixel, together with exact densities."""
    x, x_test = dequantized_digits(tour.seed)
    gaussian = GaussianMixture(1).fit(x)
    exact = {
        "17 equal levels (exact)": float(np.log2(17)),
        "one Gaussian (exact)": bits_per_dim(gaussian.log_prob(x_test)),
        "pixel histograms (exact)": bits_of_pixel_histograms(),
        "mixture of 40 histograms (exact)": bits_of_tables(tour.seed),
    }
    tour.bits_per_dim = exact | tour.bits_per_dim
    tour.begin(
        "digits",
        "Digits, 360 test images: bits per pixel, lower is better",
        "−log₂ p(k + u)/64 of dequantised images, or −log₂ P(k)/64; an ELBO bounds it from above",
    )
    for name, value in tour.bits_per_dim.items():
        say(f"  {name:<36}{value:.3f}")


def bits_of_tables(seed: int) -> float:
    """−log₂ P/64 of the test digits under a mixture of tables, 17 levels per pixel, by EM.

    40 tables and 10 pseudo-images are the best of 20 to 60 tables and 5 to 20 pseudo-images in five-fold
    cross-validation on the training images.
    """
    train, test = levels_of_digits()
    model = CategoricalMixture(40, n_levels=17, smoothing=10, rng=seed).fit(train)
    return bits_per_dim(model.log_prob(test))


def bits_of_pixel_histograms() -> float:
    """−log₂ P/64 of the test digits if every pixel has its own histogram of 17 levels, from the training digits.

    Half a count is added to every level, so that no level has probability 0.
    """
    train, test = (images.astype(int) for images in levels_of_digits())
    counts = 0.5 + np.array([np.bincount(pixel, minlength=17) for pixel in train.T])
    log_prob = np.log(counts / counts.sum(axis=1, keepdims=True))
    return bits_per_dim(log_prob[np.arange(64), test].sum(axis=1))
