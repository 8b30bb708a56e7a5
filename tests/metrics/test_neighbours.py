"""Metrics by nearest neighbours: small cases by hand, exact means over all splits of a pool, and copies."""

import numpy as np
import pytest

from scratchgen.metrics import (
    count_copies,
    density_coverage,
    expected_coverage,
    mmd2,
    nearest_train_ratio,
    precision_recall,
)
from tests.metrics.test_laws import splits

RNG = np.random.default_rng(0)
LINE = np.array([[0.0], [1.0], [2.0], [3.0]])  # every ball of k = 1 has the radius 1, and of k = 2 the radii 2, 1, 1, 2


def test_precision_and_recall_by_hand():
    samples = np.array([[-0.9], [-1.1], [3.9], [10.0]])  # two of four within 1 of a row of the line
    # balls of the samples: radii .2, .2, 5, 6.1; the line lies in that of 3.9, from −1.1 to 8.9
    assert precision_recall(LINE, samples, 1) == (0.5, 1.0)
    assert precision_recall(samples, LINE, 1) == (1.0, 0.5)
    assert precision_recall(LINE, LINE + 100, 2) == (0.0, 0.0)
    assert precision_recall(LINE, LINE + 1, 1) == (1.0, 1.0)  # on the boundary counts


def test_density_and_coverage_by_hand():
    samples = np.array([[0.5], [0.6], [20.0]])
    # k = 2: 0.5 and 0.6 are in the balls around 0 (radius 2), 1 (radius 1); not 2 (radius 1: 1..3); 3 has radius 2
    density, coverage = density_coverage(LINE, samples, 2)
    assert density == pytest.approx(4 / (2 * 3))
    assert coverage == 0.5


@pytest.mark.parametrize(("n", "m", "k"), [(4, 4, 2), (5, 2, 1), (4, 3, 3)])
def test_density_and_coverage_of_one_law_have_their_exact_means(n, m, k):
    """Rows of one law are exchangeable: the averages over all ways to split any pool are 1 and `expected_coverage`."""
    values = np.array([density_coverage(x, y, k) for x, y in splits(RNG.standard_normal((n + m, 2)), n)])
    np.testing.assert_allclose(values.mean(axis=0), [1.0, expected_coverage(n, m, k)], rtol=1e-12)
    assert values.std(axis=0).min() > 0.01


def test_precision_and_recall_are_exchanged_with_the_sets():
    x, y = RNG.standard_normal((30, 3)), 0.5 * RNG.standard_normal((20, 3))
    assert precision_recall(x, y, 3) == precision_recall(y, x, 3)[::-1]
    assert precision_recall(x, y).precision > precision_recall(x, y).recall  # narrow samples miss the outer rows


def test_copies_of_the_training_data_are_found():
    train, held_out = RNG.standard_normal((60, 4)), RNG.standard_normal((40, 4))
    ratio, own, others = nearest_train_ratio(train[:20] + 1e-3, train, held_out)
    assert ratio == pytest.approx(2e-3 / np.median(others), rel=1e-9)
    assert own.shape == (20,)
    np.testing.assert_allclose(own, 2e-3, rtol=1e-9)
    assert nearest_train_ratio(held_out, train, held_out).ratio == 1
    assert precision_recall(held_out, train[:40]).precision > 0.8  # while sample scores see nothing wrong
    assert abs(mmd2(held_out, train[:40])) < 0.02


def test_the_ratio_by_hand():
    train = np.arange(10.0)[:, None]
    assert nearest_train_ratio(train[:5] + 0.1, train, train[3:6] + 0.2).ratio == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"^held_out must be rows that the model was not trained on"):
        nearest_train_ratio(train + 0.1, train, train)


def test_the_canary_is_counted():
    row = RNG.standard_normal(3)
    samples = np.concatenate(
        [RNG.standard_normal((50, 3)) + 20, np.tile(row, (7, 1)), row[None] + np.array([0.0, 0.3, 0.4])]
    )
    assert count_copies(samples, row) == 7
    assert count_copies(samples, row, 0.5 + 1e-9) == 8
    assert count_copies(samples, row, 0.4) == 7
