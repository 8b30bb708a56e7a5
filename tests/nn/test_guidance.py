"""Guidance of arrays, of networks, and of laws with levels that are impossible; dropped labels."""

import numpy as np
import pytest

from scratchgen.nn import NO_LABEL, CategoricalDenoiser, GuidedNetwork, NoiseNetwork, drop_labels, guided
from tests.strategies import residual

RNG = np.random.default_rng(0)


def test_guidance_is_linear_with_exact_ends():
    free, told = RNG.standard_normal((2, 5, 3)).astype(np.float32)
    for w in (-2.0, 0.25, 3.0):
        mixed = guided(free, told, w)
        assert mixed.dtype == np.float32
        assert residual(mixed, (1 - w) * free + w * told) < 1e-6
    assert guided(free, told, 0.0) is free
    assert guided(free, told, 1.0) is told


def test_levels_that_are_impossible_stay_impossible_and_nothing_is_nan():
    free = np.array([0.5, -np.inf, 0.1, -np.inf])
    told = np.array([0.2, -np.inf, -np.inf, 0.3])
    for w in (-1.0, 0.5, 2.0, 1e6):
        mixed = guided(free, told, w)
        assert np.array_equal(np.isneginf(mixed), [False, True, True, True])
        assert mixed[0] == 0.5 + w * (0.2 - 0.5)
    assert guided(free, told, 0.0) is free
    assert guided(free, told, 1.0) is told
    with pytest.raises(ArithmeticError, match=r"^the prediction is not finite with guidance=1e\+300; lower guidance"):
        guided(np.full(2, 1e10), np.full(2, 2e10), 1e300)
    with pytest.raises(ValueError, match="told"):
        guided(free, told[:3], 2.0)


def test_labels_are_dropped_with_their_probability():
    labels = RNG.integers(0, 5, 4000)
    dropped = drop_labels(labels, 0.3, np.random.default_rng(1))
    assert set(np.unique(dropped[dropped != labels])) == {NO_LABEL}
    assert abs((dropped == NO_LABEL).mean() - 0.3) < 5.4 * (0.3 * 0.7 / 4000) ** 0.5
    assert np.array_equal(drop_labels(labels, 0.0, np.random.default_rng(1)), labels)
    assert (drop_labels(labels, 1.0, np.random.default_rng(1)) == NO_LABEL).all()


# --- networks -------------------------------------------------------------------------------------------------

ALL = np.array([[0.2, 0.3, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25]])  # the last level of the first pixel never occurs
OF_CLASSES = np.array([[[0.4, 0.2, 0.4, 0.0], [0.5, 0.5, 0.0, 0.0]], [[0.0, 0.4, 0.6, 0.0], [0.0, 0.0, 0.5, 0.5]]])


def denoiser():
    network = CategoricalDenoiser(ALL, np.eye(2) * 0.3, (4,), n_classes=2, class_histograms=OF_CLASSES, rng=0)
    network.parameters[:] = 0.3 * np.random.default_rng(2).standard_normal(len(network.parameters))
    return network


def test_the_guided_law_has_the_levels_of_both_laws():
    network, x, labels = denoiser(), RNG.standard_normal((6, 2)), np.array([0, 1, 1, 0, NO_LABEL, 1])
    free, told = (network.logits(x, 0.8, 0.6, y).astype(np.float64) for y in (None, labels))
    possible = np.isfinite(free) & np.isfinite(told)
    for w in (0.5, 3.0, 50.0):
        law = network.law(x, 0.8, 0.6, labels, w)
        assert np.array_equal(law > 0, possible) or w == 50.0
        with np.errstate(invalid="ignore"):
            tilt = np.where(possible, np.exp(np.where(possible, (1 - w) * free + w * told, -np.inf)), 0.0)
        assert residual(law, tilt / tilt.sum(axis=-1, keepdims=True)) < 1e-4
        guide = GuidedNetwork(network, labels, w, "logits")
        assert residual(guide(x, 0.8, 0.6), (x - 0.8 * law @ network.levels) / 0.6) < 1e-5
        assert np.array_equal(guide.law(x, 0.8, 0.6), law)
        drawn = guide.draw(np.random.default_rng(0), x, 0.8, 0.6).astype(int)
        assert np.take_along_axis(possible, drawn[:, :, None], axis=2).all()
    assert (drawn == law.argmax(axis=-1)).mean() > 0.8  # of the sharp law of w = 50
    assert np.array_equal(network.logits(x, 0.8, 0.6, labels, 0.0), network.logits(x, 0.8, 0.6))
    assert np.array_equal(network.law(x, 0.8, 0.6, labels, 1.0), network.law(x, 0.8, 0.6, labels))


def test_the_law_of_a_network_that_is_guided_in_eps_is_that_given_the_labels():
    network, x, labels = denoiser(), RNG.standard_normal((6, 2)), np.array([0, 1, 1, 0, 1, 1])
    guide = GuidedNetwork(network, labels, 3.0)
    assert np.array_equal(guide.law(x, 0.8, 0.6), network.law(x, 0.8, 0.6, labels))
    free, told = network(x, 0.8, 0.6), network(x, 0.8, 0.6, labels)
    assert residual(guide(x, 0.8, 0.6), free + 3 * (told - free)) < 1e-6
    assert np.array_equal(GuidedNetwork(network, labels)(x, 0.8, 0.6), told)
    assert np.array_equal(GuidedNetwork(network)(x, 0.8, 0.6), free)


def test_laws_without_a_common_level_have_no_mixture():
    tables = np.array([[[1.0, 0.0]], [[0.5, 0.5]]])
    network = CategoricalDenoiser([[0.0, 1.0]], np.eye(1), (), n_classes=2, class_histograms=tables, rng=0)
    assert network.law(np.zeros((1, 1)), 0.8, 0.6, [0], 1.0).tolist() == [[[1.0, 0.0]]]
    assert network.law(np.zeros((1, 1)), 0.8, 0.6, [1], 2.0).tolist() == [[[0.0, 1.0]]]
    with pytest.raises(ArithmeticError, match=r"^no level is possible both with the label and without it"):
        network.law(np.zeros((1, 1)), 0.8, 0.6, [0], 2.0)


def test_refusals():
    plain = NoiseNetwork(2, (3,), n_classes=2, rng=0)
    with pytest.raises(ValueError, match=r"^guidance_in must be 'eps' for a network without a law over levels"):
        GuidedNetwork(plain, np.zeros(3, dtype=int), 2.0, "logits")
    with pytest.raises(ValueError, match=r"needs labels y, got None"):
        GuidedNetwork(plain, None, 2.0)
    with pytest.raises(ValueError, match="guidance_in must be one of"):
        GuidedNetwork(plain, guidance_in="score")
    for verb in GuidedNetwork(plain).law, lambda *level: GuidedNetwork(plain).draw(RNG, *level):
        with pytest.raises(TypeError, match=r"^network must be a CategoricalDenoiser"):
            verb(np.zeros((3, 2)), 0.8, 0.6)
