"""The lines of `scratchgen fit` that compare samples with the rows of training."""

from types import SimpleNamespace

import numpy as np
import pytest

from scratchgen.report.moments import SAMPLES, samples_beside
from scratchgen.report.tables import Data

NAMES = ("a", "b", "c")


def lines(samples, x, weights=None, labels=None):
    """Lines about a model that draws `samples`, (M, D), for rows x, (N, D)."""
    model = SimpleNamespace(sample=lambda n, rng, **given: samples)
    first, *rest = samples_beside(model, Data(x, NAMES[: x.shape[1]], True, labels, (), weights, None, ""), 0)
    assert first == f"{SAMPLES} samples, beside the rows of training:"
    return [line.split(maxsplit=1) for line in rest]


def draw(seed, n=50, D=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, D)) @ rng.standard_normal((D, D)) + rng.standard_normal(D)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_worst_mean_ratio_and_correlation_are_named(seed, weighted):
    """Rows of whole weights are repeated rows, whose moments NumPy computes without weights."""
    x, samples, counts = draw(seed), draw(seed + 100), np.random.default_rng(seed).integers(0, 4, 50)
    rows = np.repeat(x, counts, axis=0) if weighted else x
    errors = np.abs(samples.mean(axis=0) - rows.mean(axis=0)) / rows.std(axis=0)
    ratios = samples.std(axis=0) / rows.std(axis=0)
    lost = np.abs(np.corrcoef(samples.T) - np.corrcoef(rows.T))
    i, j = np.unravel_index(np.triu(lost).argmax(), (3, 3))
    low, high = ratios.argmin(), ratios.argmax()
    assert lines(samples, x, counts.astype(float) if weighted else None) == [
        ["mean", f"off by at most {errors.max():.2g} standard deviations ({NAMES[errors.argmax()]})"],
        ["sd", f"ratio     {ratios[low]:.3g} ({NAMES[low]}) to {ratios[high]:.3g} ({NAMES[high]})"],
        ["correlation", f"off by at most {lost[i, j]:.2f} ({NAMES[i]} and {NAMES[j]})"],
    ]


def test_missing_values_and_constant_columns_are_left_out():
    x, samples = draw(0), draw(1)
    x[:, 1] = 7.0
    x[:10, 0] = np.nan
    known = x[10:, 0]
    mean, ratio = lines(samples, x)
    errors = [abs(samples[:, 0].mean() - known.mean()) / known.std()]
    errors.append(abs(samples[:, 2].mean() - x[:, 2].mean()) / x[:, 2].std())
    assert mean[1] == f"off by at most {max(errors):.2g} standard deviations ({'ac'[int(np.argmax(errors))]})"
    assert "(b)" not in ratio[1]
    assert [line[0] for line in lines(samples, np.full((5, 3), 7.0))] == ["no"]
    assert [line[0] for line in lines(samples[:, :1], draw(0)[:, :1])] == ["mean", "sd"]


def test_samples_of_labels_have_the_shares_of_the_rows():
    labels, seen = np.repeat([0, 1], [10, 40]), []

    def sample(n, rng, y):
        seen.append(y)
        return draw(1, n)

    data = Data(draw(0), NAMES, True, labels, ("no", "yes"), None, None, "")
    assert len(list(samples_beside(SimpleNamespace(sample=sample), data, 0))) == 4
    assert seen[0].shape == (SAMPLES,)
    assert abs(seen[0].mean() - 0.8) < 6 * (0.8 * 0.2 / SAMPLES) ** 0.5


def test_samples_that_are_not_finite_are_no_crash():
    def sample(n, rng):
        raise ArithmeticError("sample is not finite")

    data = Data(draw(0), NAMES, True, None, (), None, None, "")
    _, line = samples_beside(SimpleNamespace(sample=sample), data, 0)
    assert line == "  none: sample is not finite"
