"""The classifier two-sample test and training on samples: known accuracies, and the derivative of the loss."""

import sys

import numpy as np
import pytest
from scipy.special import erf

from scratchgen.metrics import classifiers, logistic_loss, train_on_synthetic, two_sample_accuracy

RNG = np.random.default_rng(0)


def test_the_loss_and_its_derivative():
    logits, labels = RNG.standard_normal((6, 3)), np.array([0, 1, 2, 2, 1, 0])
    losses, gradient = logistic_loss(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses, -np.log(p[np.arange(6), labels]), rtol=1e-12)
    h = 1e-6
    for k in range(3):
        step = h * np.eye(3)[k]
        slope = (logistic_loss(logits + step, labels)[0] - logistic_loss(logits - step, labels)[0]) / (2 * h)
        np.testing.assert_allclose(gradient[:, k], slope, atol=1e-9)


def test_with_two_classes_it_is_the_logistic_loss_also_far_out():
    difference = np.array([-800.0, -1.0, 0.0, 3.0, 800.0])
    losses, _ = logistic_loss(np.stack([np.zeros(5), difference], axis=1), np.ones(5, dtype=int))
    np.testing.assert_allclose(losses, np.logaddexp(0, -difference), rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_accuracy_of_two_gaussians_is_that_of_the_best_classifier(shift):
    """Φ(shift/2); 0.5 for one law.  The tolerance is 5 standard errors, and what 400 rows cost the classifier."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) + np.array([shift, 0.0])
    accuracy, error = two_sample_accuracy(x, y, folds=4, rng=0)
    best = 0.5 * (1 + erf(shift / 2 / 2**0.5))
    assert abs(accuracy - best) < 5.4 * error
    assert error == pytest.approx((best * (1 - best) / 400) ** 0.5, rel=0.15)


def test_unequal_numbers_of_rows_do_not_move_the_floor():
    """A classifier that always said x would have half of its answers right, whatever the numbers of rows."""
    x, y = RNG.standard_normal((150, 2)), RNG.standard_normal((30, 2))
    accuracy, error = two_sample_accuracy(x, y, folds=3, rng=0)
    assert abs(accuracy - 0.5) < 5.4 * error
    assert two_sample_accuracy(x, y, folds=3, rng=0) == (accuracy, error)  # same seed, same numbers


def test_a_fine_pattern_is_found():
    """Rows on the lines of a grid and between them: .53 without the sines and cosines of the coordinates."""
    rng = np.random.default_rng(2)
    x = np.rint(rng.uniform(-4, 4, (300, 1)))
    assert two_sample_accuracy(x, x + 0.5, folds=2, rng=0).accuracy > 0.9


def test_training_on_samples_learns_the_labels_of_data():
    labels = np.arange(90) % 3
    centres = np.array([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 4.0, 1.0]])  # the last column is constant
    noise = RNG.standard_normal((90, 3)) * [0.5, 0.5, 0.0]
    x, y = centres[labels] + noise, centres[labels] + noise[::-1]
    assert train_on_synthetic(x, labels, y, labels, rng=0) == (1.0, 0.0)
    accuracy, error = train_on_synthetic(x, labels, y, (labels + 1) % 3, rng=0)
    assert accuracy == 0
    accuracy, error = train_on_synthetic(x, labels, y[labels < 2], labels[labels < 2], rng=0)  # a class is missing
    assert accuracy == pytest.approx(2 / 3)
    assert error == pytest.approx((2 / 9 / 90) ** 0.5)


def test_the_forest_needs_scikit_learn_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ModuleNotFoundError, match="needs scikit-learn; run: pip install scikit-learn, or pass"):
        two_sample_accuracy(np.zeros((6, 1)), np.ones((6, 1)), "forest", folds=2)


def test_the_forest_is_called_by_its_words(monkeypatch):
    """With a stand-in; tests/oracles runs scikit-learn's own."""

    class Forest:
        def __init__(self, n_trees, random_state):
            assert (n_trees, type(random_state)) == (200, int)

        def fit(self, x, labels):
            self.limit = (x[labels == 0].max() + x[labels == 1].min()) / 2
            return self

        def predict(self, x):
            return (x[:, 0] > self.limit).astype(int)

    stand_in = type(sys)("sklearn.ensemble")
    stand_in.RandomForestClassifier = Forest
    monkeypatch.setitem(sys.modules, "sklearn", type(sys)("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", stand_in)
    x = RNG.random((20, 1))
    assert two_sample_accuracy(x, x + 3, "forest", rng=0) == (1.0, 0.0)


def test_parts_are_stratified():
    for n in 10, 13:
        sizes = np.bincount(classifiers._parts(n, 5, np.random.default_rng(0)))
        assert sizes.sum() == n
        assert np.ptp(sizes) <= 1
