"""Samples of a model beside its data: means, standard deviations and correlations of the columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scratchgen.em import sample_moments
from scratchgen.report.tables import Data
from scratchgen.validation import Array, weighted_rows

SAMPLES = 1000
MOST_COLUMNS = 2000  # of correlations


def samples_of(model: Any, data: Data, seed: int) -> Array:
    """Samples, (SAMPLES, D); with labels of random rows if the data have labels."""
    rng = np.random.default_rng(seed)
    given = {} if data.labels is None else {"y": data.labels[rng.integers(len(data.labels), size=SAMPLES)]}
    return np.asarray(model.sample(SAMPLES, rng=rng, **given))


def samples_beside(samples: Array, data: Data) -> Iterator[str]:
    """Lines: the columns whose mean and standard deviation, and the pair whose correlation, samples miss most.

    Columns that never vary in the data are left out, and correlations too if values are missing.
    """
    mean, std = moments(data.x, data.weights)
    vary = varies(data)
    names, x, samples = (
        [name for name, seen in zip(data.names, vary, strict=True) if seen],
        data.x[:, vary],
        samples[:, vary],
    )
    if not names:
        yield "  no column varies"
        return
    of_samples = moments(samples, None)
    errors, ratios = np.abs(of_samples[0] - mean[vary]) / std[vary], of_samples[1] / std[vary]
    m, low, high = int(errors.argmax()), int(ratios.argmin()), int(ratios.argmax())
    yield f"  mean         off by at most {errors[m]:.2g} standard deviations ({names[m]})"
    yield f"  sd ratio     {ratios[low]:.3g} ({names[low]}) to {ratios[high]:.3g} ({names[high]})"
    if 1 < len(names) <= MOST_COLUMNS and not np.isnan(x).any():
        lost = np.abs(correlations(covariance_of(x, data.weights)) - correlations(covariance_of(samples, None)))
        i, j = np.unravel_index(np.triu(lost, 1).argmax(), lost.shape)
        yield f"  correlation  off by at most {lost[i, j]:.2f} ({names[i]} and {names[j]})"


def varies(data: Data) -> Array:
    """Whether the values of each column, (D,), that are not missing and have a weight are more than one."""
    rows, _ = weighted_rows(data.x, data.weights)
    different: Array = np.nanmax(rows, axis=0) > np.nanmin(rows, axis=0)
    return different


def moments(x: Array, weights: Array | None) -> tuple[Array, Array]:
    """Means and standard deviations, (D,), of the values of x, (N, D), that are not missing, with weights of rows."""
    pairs = []
    for column in x.T:
        known = ~np.isnan(column)
        values, w = weighted_rows(column[known], None if weights is None else weights[known])
        mean = np.average(values, weights=w)
        pairs.append((mean, np.sqrt(np.average((values - mean) ** 2, weights=w))))
    means, stds = np.array(pairs).T
    return means, stds


def covariance_of(x: Array, weights: Array | None) -> Array:
    """Covariance, (D, D), of the rows of x, (N, D), with weights of rows."""
    return sample_moments(*weighted_rows(x, weights))[1]


def correlations(covariance: Array) -> Array:
    """Correlations, (D, D), of a covariance; 0 for constant columns."""
    std = np.sqrt(covariance.diagonal())
    scale = np.divide(1, std, out=np.zeros_like(std), where=std > 0)
    return covariance * scale * scale[:, None]
