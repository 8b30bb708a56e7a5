"""PictureNetwork: its formula pixel by pixel, its parts, its copies; counts of parameters and choices of networks.

The derivatives are tested in `test_derivatives`.
"""

import copy
import pickle

import numpy as np
import pytest

from scratchgen.nn import CategoricalDenoiser, NoiseNetwork
from scratchgen.nn.networks import check_choices, count_parameters, new_network
from tests.strategies import residual


def silu(z):
    return z / (1 + np.exp(-z))


def by_hand(network, x, picture, n_outputs):
    """The formula of the module, one example and one pixel at a time."""
    (height, width), D = picture, picture[0] * picture[1]
    W_patch, W_context, W_told, place, W_inner, b_inner, heads = network.pixels._arrays
    both = network.trunk(x)
    out = both[:, : D * n_outputs].copy()
    for n, row in enumerate(x):
        pictures, told = row[: 3 * D].reshape(3, height, width), row[3 * D :]
        context = both[n, D * n_outputs :].reshape(D, 8)
        for i in range(height):
            for j in range(width):
                d, patch = i * width + j, np.zeros((3, 5, 5))
                for a in range(5):
                    for b in range(5):
                        if 0 <= i + a - 2 < height and 0 <= j + b - 2 < width:
                            patch[:, a, b] = pictures[:, i + a - 2, j + b - 2]
                z = W_patch @ patch.ravel() + W_context @ context[d] + W_told @ told + place[d, :, 0]
                z = W_inner @ silu(z) + b_inner[:, 0]
                out[n, d * n_outputs : (d + 1) * n_outputs] += heads[d] @ silu(z)
    return out


@pytest.mark.parametrize("kind", ["mlp", "residual"])
@pytest.mark.parametrize(("picture", "n_told"), [((3, 4), 2), ((1, 6), 0), ((7, 6), 1)])
def test_a_picture_network_has_the_formula_of_its_module(kind, picture, n_told):
    D = picture[0] * picture[1]
    network = new_network((3 * D + n_told, 5, 5, 2 * D), n_told, kind, 0.0, picture, 0, np.float64)
    network.parameters[:] = 0.4 * np.random.default_rng(1).standard_normal(len(network.parameters))
    x = np.random.default_rng(2).standard_normal((3, 3 * D + n_told))
    assert residual(network(x), by_hand(network, x, picture, 2)) < 1e-12


def test_an_untrained_network_returns_0_and_has_a_context():
    network = new_network((14, 5, 5, 4), 2, "residual", 0.0, (2, 2), 0, np.float32)
    assert not network(np.ones((3, 14), np.float32)).any()
    assert np.abs(network.trunk(np.ones((3, 14)))[:, 4:]).min() > 0
    *arrays, heads = network.pixels._arrays
    assert not heads.any()
    assert [bool(array.any()) for array in arrays] == [True, True, True, False, True, False]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_parts_of_a_copy_are_views_of_the_vectors_of_the_copy(copied):
    network = new_network((14, 5, 4), 2, "mlp", 0.0, (2, 2), 0, np.float64)
    x = np.random.default_rng(0).standard_normal((3, 14))
    twin, before = copied(network), network(x)
    twin.parameters[:] = np.random.default_rng(1).standard_normal(len(twin.parameters))
    assert np.array_equal(network(x), before)
    network.parameters[:] = twin.parameters
    assert np.array_equal(network(x), twin(x))
    for each in network, twin:
        each.vjp(x)[1](np.ones((3, 4)))
    assert np.array_equal(network.gradient, twin.gradient)
    assert np.array_equal(twin.gradient, np.concatenate([twin.trunk.gradient, twin.pixels.gradient]))


@pytest.mark.parametrize("kind", ["mlp", "residual"])
@pytest.mark.parametrize("picture", [None, (2, 3)])
@pytest.mark.parametrize("n_told", [0, 4])
def test_the_count_of_parameters_is_their_number(kind, picture, n_told):
    sizes = (18 + n_told, 5, 5, 24)
    network = new_network(sizes, n_told, kind, 0.0, picture, 0, np.float32)
    assert count_parameters(sizes, n_told, kind, picture) == len(network.parameters) == len(network.gradient)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("cnn", (4,), 0.0, None), ValueError, r"^network must be one of 'mlp', 'residual', got 'cnn'"),
        (("mlp", (4,), 0.1, None), ValueError, r"^dropout must be 0 for network='mlp', got 0.1"),
        (("residual", (4, 5), 0.1, None), ValueError, r"^hidden must hold one width"),
        (("residual", (4,), 1.0, None), ValueError, r"^dropout must be in"),
        (("mlp", (4,), 0.0, (8,)), ValueError, r"^picture must be the height and the width, or None, got \(8,\)"),
        (("mlp", (4,), 0.0, 8), TypeError, r"^picture must be a sequence"),
        (("mlp", (4,), 0.0, (8, 0)), ValueError, r"^picture\[1\] must be at least 1"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        check_choices(*arguments)


def test_networks_refuse_the_same_choices_and_a_picture_of_another_size():
    arguments = np.full((6, 3), 1 / 3), np.eye(6), (4,)
    with pytest.raises(ValueError, match=r"^picture must have D = 6 pixels, got \(2, 2\)"):
        CategoricalDenoiser(*arguments, picture=(2, 2))
    with pytest.raises(ValueError, match=r"^dropout must be 0 for network='mlp'"):
        CategoricalDenoiser(*arguments, dropout=0.5)
    with pytest.raises(ValueError, match=r"^network must be one of"):
        NoiseNetwork(2, network="x")
