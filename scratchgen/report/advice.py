"""Advice after `scratchgen fit`: faults of a fit that the mean score does not show, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress

import numpy as np

from scratchgen.models.categorical_mixture import CategoricalMixture
from scratchgen.models.gaussian_mixture import GaussianMixture
from scratchgen.models.linear_gaussian import PPCA, LinearGaussianModel
from scratchgen.models.network_model import NetworkModel
from scratchgen.report.moments import correlations, covariance_of, moments, varies
from scratchgen.report.scores import Score
from scratchgen.report.tables import Data, listed, option
from scratchgen.validation import Array, weighted_rows

TOO_WIDE = (
    1.4  # standard deviation of samples over that of the data, from which there is advice (1/1.4 for networks too)
)
LOST = 0.3  # distance of a correlation of the model from that of the data, from which there is advice
FALSE_ALARM = 0.01  # probability that a correlation of independent columns is taken for one that the model lost
FAR = 0.3  # standard deviations by which the mean of samples is off, from which there is advice
CHANCE = 4.0  # standard errors of a variance of samples, below which its ratio is no sign of a fault
UNITS = 10  # ratio of the largest and the smallest standard deviation of columns in one unit
FEW = 5  # most different values of a column that may be codes
OUTSIDE = 0.05  # share of the samples beyond the smallest or largest row, from which there is advice
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
    match model:
        case GaussianMixture():
            yield from _on_gaussians(model, data)
        case CategoricalMixture():
            yield from _on_tables(model, data)
        case LinearGaussianModel():
            yield from _on_factors(model, data)


def on_samples(model: object, data: Data, samples: Array) -> Iterator[str]:
    """Advice for a model whose samples, (M, D), differ from the data in a way that the user may not expect."""
    if isinstance(model, NetworkModel):
        yield from _on_moments(model, data, samples)
    yield from _on_constant_columns(data, samples)
    if getattr(model, "n_levels", None) is None:  # the model draws real numbers
        few = [1 < len(np.unique(column[~np.isnan(column)])) <= FEW < len(column) / 4 for column in data.x.T]
        yield from _on_few_values(list(compress(data.names, few)), data)
        yield from _on_ranges(varies(data) & ~np.array(few), data, samples)


def _on_few_values(names: list[str], data: Data) -> Iterator[str]:
    """Columns of 2 to 5 different values, such as 0 and 1, beside real numbers."""
    if names:
        n = len(np.unique(data.x[:, data.names.index(names[0])]))
        whole = ((data.x == np.floor(data.x)) & (data.x >= 0)).all()
        other = "fit tables" if whole else "name a column of classes with --labels of fit ddpm or fit sde"
        yield f"{names[0]!r} has {n} different values, but the model draws real numbers: round its samples, or {other}"


def _on_ranges(chosen: Array, data: Data, samples: Array) -> Iterator[str]:
    """The column, of the `chosen` ones, (D,), of which most samples are outside the range of the rows, on one side.

    One side of N rows misses 1/N of their law on average, and more than 10/N with the probability exp(−10).
    """
    rows, weights = weighted_rows(data.x, data.weights)
    low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
    chosen = chosen & (samples.std(axis=0) <= TOO_WIDE * moments(data.x, data.weights)[1])  # another line names those
    outside = np.where(chosen, [(samples < low).mean(axis=0), (samples > high).mean(axis=0)], 0)
    side, d = (int(place) for place in np.unravel_index(outside.argmax(), outside.shape))
    share = outside[side, d]
    if share > max(OUTSIDE, 10 * (weights @ weights) / weights.sum() ** 2):
        positive = f"if {data.names[d]!r} is never negative, take its logarithm before fit"
        remedy = positive if low[d] > 0 else "more components, more steps or another model may follow its shape"
        edge = f"above the largest row ({high[d]:g})" if side else f"below the smallest row ({low[d]:g})"
        yield f"range: {share:.0%} of the samples of {data.names[d]!r} are {edge}; {remedy}"


def _on_moments(model: NetworkModel, data: Data, samples: Array) -> Iterator[str]:
    """A network whose samples have another mean or standard deviation in a column.

    The variance of M samples of fourth moment κσ⁴ has the relative standard error √((κ − 1)/M), which is large for
    rare values.
    """
    vary = varies(data)
    if not vary.any():
        return
    x, samples, names = data.x[:, vary], samples[:, vary], list(compress(data.names, vary))
    mean, std = moments(x, data.weights)
    kurtosis = (((x - mean) / std) ** 4).mean(axis=0)
    errors, ratios = np.abs(samples.mean(axis=0) - mean) / std, samples.std(axis=0) / std
    wrong = np.abs(ratios**2 - 1) > CHANCE * np.sqrt((kurtosis - 1) / len(samples))
    far = np.maximum(errors / FAR, np.where(wrong, np.abs(np.log(np.maximum(ratios, 1e-9))) / np.log(TOO_WIDE), 0))
    if far.max() <= 1:
        return
    d = int(far.argmax())
    if model.n_levels is None and model.standardize is not True and std.max() > UNITS * std.min():
        remedy = f"the columns have different units: leave --set standardize={model.standardize} out"
    else:
        remedy = f"train longer, with --set n_steps={2 * model.n_steps_} for example, or take another model"
    yield (
        f"samples of {names[d]!r} are far from the data: mean off by {errors[d]:.2g} standard deviations, sd ratio "
        f"{ratios[d]:.3g}; {remedy}"
    )


def _on_constant_columns(data: Data, samples: Array) -> Iterator[str]:
    """Columns that never vary in the data, and vary in samples: one variance for all columns, or smoothing."""
    constant = ~varies(data)
    names = list(compress(data.names, constant))
    drawn = samples[:, constant]
    if (np.ptp(drawn, axis=0) > 0).any():
        spread = drawn.std(axis=0)
        d = int(spread.argmax())
        never, them = ("never varies", "it") if len(names) == 1 else ("never vary", "them")
        yield (
            f"{listed(names)} {never} in the data, but samples of {names[d]!r} have a standard deviation of "
            f"{spread[d]:.2g}; leave {them} out with --drop {option(names)}"
        )


def _on_gaussians(model: GaussianMixture, data: Data) -> Iterator[str]:
    """One component, one variance for all columns, and components without correlations."""
    kind, covariance = model.covariance_type, model.mixture_.covariance()
    if model.n_components == 1:
        yield "one component is a single normal distribution; for K clusters: --set n_components=K"
    found = _widest(covariance, data) if kind == "spherical" else None
    if found:
        yield (
            "with covariance_type='spherical' all columns of a component share one variance: samples of "
            f"{found[0]!r} will have {found[1]:.3g} times the standard deviation of the data.  'diag' and 'full' give "
            "every column its own"
        )
    elif kind in ("spherical", "diag"):
        yield from _lost_correlation(covariance, data, "raise n_components, or --set covariance_type=full")


def _on_tables(model: CategoricalMixture, data: Data) -> Iterator[str]:
    """Levels that are far too many for a column, and one component, whose columns are independent."""
    covariance = _covariance_of_tables(model)
    if found := _widest(covariance, data):
        name, ratio = found
        largest = int(data.x[:, data.names.index(name)].max())
        yield (
            f"samples of {name!r} will have {ratio:.3g} times the standard deviation of the data: the levels "
            f"0..{model.n_levels - 1} are those of the column with the largest cell, {name!r} has 0..{largest}, and "
            "smoothing gives every level a probability.  --set smoothing=0 gives levels that do not occur the "
            "probability 0; or fit columns of other ranges apart, with --columns; or fit gmm, ddpm or sde"
        )
    elif model.n_components == 1:
        yield from _lost_correlation(
            covariance, data, "raise n_components=1; the columns are independent within a component"
        )


def _covariance_of_tables(model: CategoricalMixture) -> Array:
    """Covariance, (D, D), of samples of a mixture of tables."""
    levels = np.arange(model.n_levels)
    means = model.probabilities_ @ levels
    centred = means - model.weights_ @ means
    covariance: Array = (centred.T * model.weights_) @ centred
    within = (model.probabilities_ * (levels - means[..., None]) ** 2).sum(axis=2)
    return covariance + np.diag(model.weights_ @ within)


def _on_factors(model: LinearGaussianModel, data: Data) -> Iterator[str]:
    """One noise variance that is large for a column of small values, and too few factors.

    Values that are not missing may vary less than all values; the noise alone must exceed their standard deviation.
    """
    covariance = model.covariance()
    found = _widest(covariance, data) if isinstance(model, PPCA) else None
    if found and np.sqrt(model.noise_variance_ / covariance.diagonal()[data.names.index(found[0])]) * found[1] > 1:
        missing = np.isnan(data.x).any()
        other = f"fit {'gmm' if missing else 'fa'} gives every column its own {'variance' if missing else 'noise'}"
        yield (
            f"PPCA has one noise variance for all columns: samples of {found[0]!r} will have {found[1]:.3g} times the "
            f"standard deviation of the data.  {other}; or divide the columns by their standard deviations before "
            "fit ppca"
        )
    elif (k := model.n_components) < (most := len(data.names) - 1):
        yield from _lost_correlation(covariance, data, f"raise n_components={k}, to {most} at most, or fit gmm")


def _widest(covariance: Array, data: Data) -> tuple[str, float] | None:
    """Name and ratio of the column whose standard deviation exceeds that of the data most, if by more than TOO_WIDE."""
    spread, of_data = np.sqrt(covariance.diagonal()), moments(data.x, data.weights)[1]
    ratios = np.divide(spread, of_data, out=np.ones_like(spread), where=of_data > 0)
    d = int(ratios.argmax())
    return (data.names[d], float(ratios[d])) if ratios[d] > TOO_WIDE else None


def _lost_correlation(covariance: Array, data: Data, remedy: str) -> Iterator[str]:
    """The pair of columns whose correlation a model of this covariance loses most; nothing with missing values.

    A correlation of N rows has the standard error (1 − ρ²)/√N, and the largest of many is no sign of a fault.
    """
    D, names = len(covariance), data.names
    if D < 2 or np.isnan(data.x).any():
        return
    _, weights = weighted_rows(data.x, data.weights)
    of_data, of_model = correlations(covariance_of(data.x, data.weights)), correlations(covariance)
    lost = np.abs(np.triu(of_data - of_model, 1))
    i, j = (int(place) for place in np.unravel_index(lost.argmax(), (D, D)))
    r, rho = float(of_data[i, j]), float(of_model[i, j])
    chance = (1 - rho**2) * np.sqrt(2 * np.log(D**2 / FALSE_ALARM) / weights.sum() ** 2 * (weights @ weights))
    if abs(r - rho) > max(LOST, chance):
        yield (
            f"the correlation of {names[i]!r} and {names[j]!r} is {r:.2f} in the data and {rho:.2f} in the model: "
            f"{remedy}"
        )
