"""The lines of `scratchgen fit` that compare samples with the rows of training."""

from types import SimpleNamespace

import numpy as np
import pytest

import scratchgen
from scratchgen.report import advice
from scratchgen.report.commands import fit
from scratchgen.report.moments import SAMPLES, samples_beside, samples_of
from scratchgen.report.tables import Data

NAMES = ("a", "b", "c")


def lines(samples, x, weights=None, labels=None):
    """Lines about `samples`, (M, D), for rows x, (N, D)."""
    return [line.split(maxsplit=1) for line in samples_beside(samples, table(x, weights, labels))]


def table(x, weights=None, labels=None):
    return Data(x, NAMES[: x.shape[1]], True, labels, (), weights, None, "")


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

    assert samples_of(SimpleNamespace(sample=sample), table(draw(0), labels=labels), 0).shape == (SAMPLES, 3)
    assert seen[0].shape == (SAMPLES,)
    assert abs(seen[0].mean() - 0.8) < 6 * (0.8 * 0.2 / SAMPLES) ** 0.5


def test_samples_that_are_not_finite_are_no_crash():
    def sample(n, rng):
        raise ArithmeticError("sample is not finite")

    first, line = fit._about_samples(SimpleNamespace(sample=sample), table(draw(0)), 0)
    assert first == f"{SAMPLES} samples, beside the rows of training:"
    assert line == "  none: sample is not finite"


def test_a_constant_column_that_varies_in_samples_is_named():
    """The samples of a constant column are constant in a model that learns its variance of 0."""
    x, samples = draw(0), draw(0)[np.arange(400) % 50]
    x[:, 1] = 0.1  # its standard deviation is 1e-17 by rounding
    (line,) = advice.on_samples(None, table(x), samples)
    assert line == (
        f"b never varies in the data, but samples of 'b' have a standard deviation of {samples[:, 1].std():.2g}; leave "
        "it out with --drop b"
    )
    x[:, 0] = 7.0
    assert next(advice.on_samples(None, table(x), samples)).startswith(
        "a, b never vary in the data, but samples of 'a'"
    )
    x[:, 0], samples[:, 1] = samples[:50, 0], 0.1
    assert not list(advice.on_samples(None, table(x), samples))
    assert "(b)" not in str(lines(samples, x))
    assert not list(advice.on_samples(None, table(draw(0)), draw(0)))


def network(**given):
    """A model whose arguments the advice names."""
    model = scratchgen.DDPM(**given)
    model.n_steps_ = 300
    return model


def test_samples_of_a_network_far_from_the_data_get_a_remedy():
    x = np.random.default_rng(0).standard_normal((500, 3)) * [1.0, 1.0, 1e5]
    good = np.random.default_rng(1).standard_normal((1000, 3)) * [1.0, 1.0, 1e5]
    longer = "train longer, with --set n_steps=600 for example"
    for shift, factor, told, remedy in (
        ([0, 0, 0], [1, 1, 1], False, ""),
        ([0.5, 0, 0], [1, 1, 1], True, longer),
        ([0, 0, 0], [0.6, 1, 1], True, longer),
        ([0, 0, 0], [1.6, 1, 1], True, longer),
        ([0, 0, 0], [0, 1, 1], True, longer),
    ):
        lines = list(advice.on_samples(network(), table(x), good * factor + shift))
        assert len(lines) == told, (shift, factor)
        assert all(line.startswith("samples of 'a' are far from") and remedy in line for line in lines)
    for standardize, data, remedy in (
        ("global", x, "; the columns have different units: leave --set standardize=global out"),
        (False, x, "; the columns have different units: leave --set standardize=False out"),
        ("global", x * [1, 1, 1e-5], longer),
    ):
        (line,) = advice.on_samples(network(standardize=standardize), table(data), data + np.array([0.5, 0, 0]))
        assert remedy in line
    assert not list(advice.on_samples(network(), table(np.full((9, 3), 2.0)), np.full((9, 3), 2.0)))
    assert not list(
        advice.on_samples(None, table(x), good + np.array([0.5, 0, 0]))
    )  # a model by EM has advice of its own


def test_a_rare_value_that_few_samples_have_is_no_fault():
    """One row of 500 is 100: the standard deviation of samples without it is a tenth."""
    x = np.random.default_rng(0).standard_normal((500, 2))
    samples = np.random.default_rng(1).standard_normal((1000, 2))
    x[0, 0] = 100
    assert not list(advice.on_samples(network(), table(x), samples))


def test_samples_beyond_the_smallest_or_largest_row_are_counted():
    rng = np.random.default_rng(0)
    x = np.c_[np.exp(rng.standard_normal(400)) + 86, rng.standard_normal((400, 2))]
    normal = x.mean(axis=0) + x.std(axis=0) * rng.standard_normal((1000, 3))
    share = (normal[:, 0] < x[:, 0].min()).mean()
    assert list(advice.on_samples(None, table(x), normal)) == [
        f"range: {share:.0%} of the samples of 'a' are below the smallest row ({x[:, 0].min():g}); if 'a' is never "
        "negative, take its logarithm before fit"
    ]
    (line,) = advice.on_samples(None, table(-x), -normal)
    assert line.startswith(f"range: {share:.0%} of the samples of 'a' are above the largest row ({-x[:, 0].min():g}); ")
    assert line.endswith("; more components, more steps or another model may follow its shape")
    some = np.where(np.arange(400) < 20, 1.0, 1e-9)  # as few as 20 rows: chance
    assert not list(advice.on_samples(None, table(x, some), normal * [0, 1, 1] + [100, 0, 0]))
    wide = (normal - x.mean(axis=0)) * 3 + x.mean(axis=0)  # another line says that the samples are too wide
    assert not list(advice.on_samples(None, table(x), wide))


@pytest.mark.parametrize("n", [10, 40, 300])
def test_the_range_of_a_healthy_fit_is_no_fault(n):
    """100 tables of 3 columns: one side of a column alarms with a probability of exp(-10) at most."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x, samples = rng.standard_normal((n, 3)), rng.standard_normal((1000, 3))
        assert not list(advice.on_samples(None, table(x), samples))


def test_a_column_of_few_values_is_no_column_of_real_numbers():
    rng = np.random.default_rng(0)
    sex, other = rng.integers(0, 2, 200), rng.standard_normal((200, 2))
    x, samples = np.c_[sex, other], 0.5 * rng.standard_normal((1000, 3)) + [0.5, 0, 0]
    told = "'a' has 2 different values, but the model draws real numbers: round its samples, or "
    codes = rng.integers(0, 9, (200, 3)) * [0, 1, 1] + x * [1, 0, 0]
    assert list(advice.on_samples(None, table(x), samples)) == [
        f"{told}name a column of classes with --labels of fit ddpm or fit sde"
    ]
    assert list(advice.on_samples(None, table(codes), samples + np.array([0, 4, 4]))) == [f"{told}fit tables"]
    levels = SimpleNamespace(n_levels=9)
    assert not list(advice.on_samples(levels, table(codes), samples + np.array([0, 4, 4])))
