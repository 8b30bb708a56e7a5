"""Advice after `scratchgen fit`: faults of a fit that the mean score does not show, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scratchgen.models.categorical_mixture import CategoricalMixture
from scratchgen.models.gaussian_mixture import GaussianMixture
from scratchgen.models.linear_gaussian import PPCA, LinearGaussianModel
from scratchgen.models.network_model import NetworkModel
from scratchgen.report.scores import Score
from scratchgen.report.tables import Data
from scratchgen.validation import Array, weighted_rows

TOO_WIDE = 2.0  # standard deviation of a column of samples over that of the data, from which there is advice
LOST = 0.3  # distance of a correlation of the model from that of the data, from which there is advice
FALSE_ALARM = 0.01  # probability that a correlation of independent columns is taken for one that the model lost
MEMORISED = 0.5  # nats a column by which the validation bound is below the training bound of a model that memorises


def on_scores(model: NetworkModel, training: Score, validation: Score) -> Iterator[str]:
    """Advice for a network that memorises the training rows."""
    if memorises(training, validation):
        remedy = "" if model.early_stopping else "--set early_stopping=True, or "
        yield (
            "the validation bound is far below the training bound: the model memorises rows; try "
            f"{remedy}--set n_steps={max(model.n_steps_ // 4, 1)} in place of {model.n_steps_}"
        )


def memorises(training: Score, validation: Score) -> bool:
    """Whether the median score falls by more than 0.5 nats a column from training to validation.

    A mean would fall by one outlier among the held-out rows.
    """
    return bool(np.median(training.rows) - np.median(validation.rows) > MEMORISED * training.n_columns)


def on_columns(model: object, data: Data) -> Iterator[str]:
    """Advice for a model by EM whose samples have other standard deviations or correlations than the data."""
    if isinstance(model, GaussianMixture) and model.n_components == 1:
        yield "one component is a single normal distribution; for K clusters: --set n_components=K"
    if isinstance(model, CategoricalMixture):
        k = model.n_components
        yield from list(_too_wide_tables(model, data)) or _lost_correlation(
            _covariance(model), data, f"raise n_components={k}; the columns are independent within a component"
        )
    if isinstance(model, LinearGaussianModel):
        k, most = model.n_components, len(data.names) - 1
        remedy = f"raise n_components={k}, to {most} at most, or fit gmm"
        wide = list(_too_wide_noise(model, data)) if isinstance(model, PPCA) else []
        yield from wide or (_lost_correlation(model.covariance(), data, remedy) if k < most else ())


def _too_wide_tables(model: CategoricalMixture, data: Data) -> Iterator[str]:
    """Smoothing spreads one example over the levels of all columns, which are far away for a column of small ones."""
    if found := _widest(np.sqrt(_covariance(model).diagonal()), data):
        name, ratio = found
        largest = int(data.x[:, data.names.index(name)].max())
        yield (
            f"samples of {name!r} will have {ratio:.3g} times the standard deviation of the data: the levels "
            f"0..{model.n_levels - 1} are those of the column with the largest cell, {name!r} has 0..{largest}, and "
            "smoothing gives every level a probability.  --set smoothing=0 gives levels that do not occur the "
            "probability 0; or fit columns of other ranges apart, with --columns; or fit gmm, ddpm or sde"
        )


def _covariance(model: CategoricalMixture) -> Array:
    """Covariance, (D, D), of samples of a mixture of tables."""
    levels = np.arange(model.n_levels)
    means = model.probabilities_ @ levels
    centred = means - model.weights_ @ means
    covariance: Array = (centred.T * model.weights_) @ centred
    within = (model.probabilities_ * (levels - means[..., None]) ** 2).sum(axis=2)
    return covariance + np.diag(model.weights_ @ within)


def _too_wide_noise(model: PPCA, data: Data) -> Iterator[str]:
    """One noise variance of all columns is large for a column of small values.

    Values that are not missing may vary less than all values; the noise alone must exceed their standard deviation.
    """
    spread = np.sqrt(model.covariance().diagonal())
    found = _widest(spread, data)
    if found and np.sqrt(model.noise_variance_) * found[1] > spread[data.names.index(found[0])]:
        missing = np.isnan(data.x).any()
        other = f"fit {'gmm' if missing else 'fa'} gives every column its own {'variance' if missing else 'noise'}"
        yield (
            f"PPCA has one noise variance for all columns: samples of {found[0]!r} will have {found[1]:.3g} times the "
            f"standard deviation of the data.  {other}; or divide the columns by their standard deviations before "
            "fit ppca"
        )


def _widest(spread: Array, data: Data) -> tuple[str, float] | None:
    """Name and ratio of the column whose standard deviation exceeds that of the data most, if by more than TOO_WIDE."""
    of_data = np.array([_std(column, data.weights) for column in data.x.T])
    ratios = np.divide(spread, of_data, out=np.ones_like(spread), where=of_data > 0)
    d = int(ratios.argmax())
    return (data.names[d], float(ratios[d])) if ratios[d] > TOO_WIDE else None


def _std(column: Array, weights: Array | None) -> float:
    """Standard deviation of the values of a column, (N,), that are not missing, with the weights of their rows."""
    known = ~np.isnan(column)
    values, weights = weighted_rows(column[known], None if weights is None else weights[known])
    mean = np.average(values, weights=weights)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _lost_correlation(covariance: Array, data: Data, remedy: str) -> Iterator[str]:
    """The pair of columns whose correlation a model of this covariance loses most; nothing with missing values.

    A correlation of N rows has the standard error (1 − ρ²)/√N, and the largest of many is no sign of a fault.
    """
    D, names = len(covariance), data.names
    if D < 2 or np.isnan(data.x).any():
        return
    x, weights = weighted_rows(data.x, data.weights)
    of_data, of_model = _correlations(np.cov(x.T, aweights=weights, ddof=0)), _correlations(covariance)
    lost = np.abs(np.triu(of_data - of_model, 1))
    i, j = (int(place) for place in np.unravel_index(lost.argmax(), (D, D)))
    r, rho = float(of_data[i, j]), float(of_model[i, j])
    chance = (1 - rho**2) * np.sqrt(2 * np.log(D**2 / FALSE_ALARM) / weights.sum() ** 2 * (weights @ weights))
    if abs(r - rho) > max(LOST, chance):
        yield (
            f"the correlation of {names[i]!r} and {names[j]!r} is {r:.2f} in the data and {rho:.2f} in the model: "
            f"{remedy}"
        )


def _correlations(covariance: Array) -> Array:
    """Correlations, (D, D), of a covariance; 0 for constant columns."""
    std = np.sqrt(covariance.diagonal())
    scale = np.divide(1, std, out=np.zeros_like(std), where=std > 0)
    return covariance * scale * scale[:, None]
