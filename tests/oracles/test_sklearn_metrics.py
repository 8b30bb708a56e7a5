"""scikit-learn as an oracle of the metrics: neighbours, kernels, logistic loss, and its forest as a classifier."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, pairwise_distances
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from scratchgen import datasets
from scratchgen.metrics import (
    density_coverage,
    logistic_loss,
    mmd2,
    nearest_train_ratio,
    precision_recall,
    train_on_synthetic,
    two_sample_accuracy,
)

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((60, 4)), 0.8 * RNG.standard_normal((45, 4)) + 0.3


@pytest.mark.parametrize("k", [1, 5])
def test_neighbourhoods_are_those_of_its_search(k):
    """precision, recall, density and coverage by the definitions, from its neighbours."""
    radii = {name: NearestNeighbors(n_neighbors=k).fit(z).kneighbors()[0][:, -1] for name, z in (("x", X), ("y", Y))}
    distances = pairwise_distances(X, Y)
    inside = distances <= radii["x"][:, None]
    precision, recall = inside.any(axis=0).mean(), (distances <= radii["y"]).any(axis=1).mean()
    assert precision_recall(X, Y, k) == pytest.approx((precision, recall), rel=1e-12)
    assert density_coverage(X, Y, k) == pytest.approx((inside.sum() / (k * 45), inside.any(axis=1).mean()), rel=1e-12)


def test_distances_to_the_training_data_are_those_of_its_search():
    train, samples, held_out = X[:30], Y, X[30:]
    search = NearestNeighbors(n_neighbors=1).fit(train)
    found = nearest_train_ratio(samples, train, held_out)
    np.testing.assert_allclose(found.samples, search.kneighbors(samples)[0][:, 0], rtol=1e-12)
    np.testing.assert_allclose(found.held_out, search.kneighbors(held_out)[0][:, 0], rtol=1e-12)


def test_mmd2_is_that_of_its_kernel():
    h = 1.7
    kxx, kyy, kxy = (rbf_kernel(a, b, gamma=0.5 / h**2) for a, b in ((X, X), (Y, Y), (X, Y)))
    off = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kxx, kyy)]
    assert mmd2(X, Y, h) == pytest.approx(sum(off) - 2 * kxy.mean(), rel=1e-10)


def test_the_logistic_loss_is_its_log_loss():
    logits, labels = RNG.standard_normal((20, 3)), np.arange(20) % 3
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert logistic_loss(logits, labels)[0].mean() == pytest.approx(log_loss(labels, p), rel=1e-12)


def test_its_forest_finds_a_difference_and_no_difference():
    x, y = RNG.standard_normal((60, 3)), RNG.standard_normal((60, 3))
    accuracy, error = two_sample_accuracy(x, y, "forest", folds=2, rng=0)
    assert abs(accuracy - 0.5) < 5.4 * error
    assert two_sample_accuracy(x, y + 2, "forest", folds=2, rng=0).accuracy > 0.9


def test_our_classifier_learns_digits_as_well_as_its_support_vectors():
    """Its SVC has .99 on all digits; 300 digits for training give both less."""
    train, test = datasets.digits("train"), datasets.digits("test")
    x, labels = train.images[:400], train.labels[:400]
    ours = train_on_synthetic(test.images, test.labels, x, labels, rng=0)
    theirs = SVC().fit(x, labels).score(test.images, test.labels)
    assert ours.accuracy > theirs - 5.4 * ours.standard_error
    assert ours.accuracy > 0.9
