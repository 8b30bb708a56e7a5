"""The table of all metrics: each value and floor by hand, and a model, a copy and a blur are told apart."""

import numpy as np
import pytest

from scratchgen.metrics import classifiers, compare, frechet_distance, nearest_train_ratio

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((60, 2)), RNG.standard_normal((80, 2))  # draws of 40: the floor has a spread


@pytest.fixture(scope="module", autouse=True)
def short_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "LEAST_STEPS", 40)
        patch.setattr(classifiers, "EPOCHS", 1)
        yield


@pytest.fixture(scope="module")
def table(short_training):
    rng = np.random.default_rng(1)
    draws = {
        "right": [rng.standard_normal((40, 2)) for _ in range(2)],
        "copy": [Y[:40], Y[40:]],
        "blur": [3 * rng.standard_normal((40, 2)) for _ in range(2)],
    }
    return draws, {row.metric: row for row in compare(X, Y, draws, Y, rng=0)}


def test_rows_and_columns(table):
    _, rows = table
    assert list(rows) == [
        "frechet_distance", "mmd2", "sliced_wasserstein2", "precision", "recall", "density", "coverage",
        "two_sample_accuracy", "nearest_train_ratio",
    ]  # fmt: skip
    assert all(list(row.values) == ["right", "copy", "blur"] for row in rows.values())
    assert all(row.floor.spread is not None for row in rows.values())
    many = compare(X, Y, {"copy": [Y[:41], Y[39:]]}, rng=0)
    assert len(many) == 8
    assert all(row.floor.spread is None for row in many)


def test_values_and_floors_are_means_over_repetitions(table):
    draws, rows = table
    row = rows["frechet_distance"]
    values = [frechet_distance(X, part) for part in draws["blur"]]
    assert row.values["blur"].mean == pytest.approx(np.mean(values), rel=1e-12)
    assert row.values["blur"].spread == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    rng, floors = np.random.default_rng(0), []
    for _ in range(2):
        rng.integers(2**63)
        floors.append(frechet_distance(X, rng.permutation(Y)[:40]))
        rng.permutation(X)
    assert row.floor == pytest.approx((np.mean(floors), np.std(floors, ddof=1)), rel=1e-12)
    ratios = [nearest_train_ratio(part, Y, X).ratio for part in draws["right"]]
    assert rows["nearest_train_ratio"].values["right"].mean == pytest.approx(np.mean(ratios), rel=1e-12)


def test_each_kind_of_wrong_samples_shows_in_its_row(table):
    _, rows = table
    for metric in "frechet_distance", "mmd2", "sliced_wasserstein2":
        row = rows[metric]
        assert row.values["blur"].mean > row.floor.mean + 10 * row.floor.spread
        assert row.values["right"].mean < row.values["blur"].mean / 5
    assert rows["precision"].values["blur"].mean < 0.6 < 0.8 < rows["precision"].floor.mean
    assert rows["two_sample_accuracy"].values["blur"].mean > 0.6
    ratio = rows["nearest_train_ratio"]
    assert ratio.values["copy"].mean == 0
    assert 0.6 < ratio.floor.mean < 1.6
    assert 0.6 < ratio.values["right"].mean < 1.6


@pytest.mark.parametrize(
    ("draws", "error", "words"),
    [
        ([Y, Y], TypeError, "draws must map names"),
        ({}, TypeError, "draws must map names"),
        ({"": [Y, Y]}, TypeError, "draws must map names"),
        ({"m": [Y]}, ValueError, "two repetitions or more"),
        ({"m": [Y, Y], "k": [Y, Y, Y]}, ValueError, "as many for every model"),
        ({"m": [Y, Y[1:]]}, ValueError, "of one shape"),
        ({"m": [np.ones((9, 3))] * 2}, ValueError, "must have the 2 columns of x, got 3"),
        ({"m": [np.concatenate([X, Y])] * 2}, ValueError, "at most as many rows as y, 80, got 140"),
        ({"m": [Y[:5], Y[:5]]}, ValueError, r"draws\['m'\] must have at least 6"),
    ],
)
def test_draws_have_one_size(draws, error, words):
    with pytest.raises(error, match=words):
        compare(X, Y, draws)


def test_the_forest_has_a_row_of_its_own(monkeypatch):
    asked = []

    def accuracy(x, samples, classifier="mlp", rng=None):
        asked.append((classifier, len(samples), rng))
        return classifiers.Accuracy(0.75 if classifier == "forest" else 0.5, 0.0)

    monkeypatch.setattr("scratchgen.metrics.comparison.two_sample_accuracy", accuracy)
    *_, mlp, forest = compare(X, Y, {"copy": [Y[:40], Y[40:]]}, rng=0, forest=True)
    assert (mlp.metric, mlp.floor.mean) == ("two_sample_accuracy", 0.5)
    assert forest == ("forest_accuracy", (0.75, 0.0), {"copy": (0.75, 0.0)})
    assert len(asked) == 8
    assert len({seed for *_, seed in asked}) == 2  # one for each repetition, for floor and samples
