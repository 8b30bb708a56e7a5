"""ResidualMLP: its formula, its told inputs, its dropout and its errors.  The derivatives are tested in
`test_derivatives`."""

import numpy as np
import pytest

from scratchgen.nn import ResidualMLP
from tests.strategies import residual, slope_along


def silu(z):
    return z / (1 + np.exp(-z))


def by_hand(network, x, n_told, keeps=None):
    """The formula of the module, one example and one block at a time."""
    W, b = network.weights, network.biases
    out = []
    for n, row in enumerate(x):
        h = row @ W[0] + b[0]
        for k in range((len(W) - 2) // 2):
            told = row[len(row) - n_told :]
            units = silu(np.concatenate([silu(h), told]) @ W[1 + 2 * k] + b[1 + 2 * k])
            units = units if keeps is None else units * keeps[k][n]
            h = h + units @ W[2 + 2 * k] + b[2 + 2 * k]
        out.append(silu(h) @ W[-1] + b[-1])
    return np.array(out)


def random_network(sizes, n_told, dropout=0.0):
    network = ResidualMLP(sizes, n_told, dropout, 0, np.float64)
    network.parameters[:] = 0.3 * np.random.default_rng(1).standard_normal(len(network.parameters))
    return network


@pytest.mark.parametrize("n_told", [0, 2, 5])
@pytest.mark.parametrize("n_blocks", [1, 3])
def test_a_residual_network_has_the_formula_of_its_module(n_told, n_blocks):
    network = random_network((5, *[4] * n_blocks, 3), n_told, 0.5)
    x = np.random.default_rng(2).standard_normal((1100, 5))  # three blocks of rows
    assert residual(network(x[:600]), by_hand(network, x[:600], n_told)) < 1e-12
    assert residual(network(x[:5]), network.vjp(x[:5])[0]) < 1e-13
    shared = np.concatenate([x[:, :3], np.tile(x[0, 3:], (1100, 1))], axis=1)
    assert residual(network(x[:, :3], x[0, 3:]), network(shared)) < 1e-13


def test_an_untrained_network_returns_0_and_its_blocks_change_h_little():
    network = ResidualMLP((6, 200, 200, 3), 2, rng=0)
    assert not network(np.ones((4, 6))).any()
    sizes = [np.sqrt(len(weight)) * weight.std() for weight in network.weights]
    assert sizes == pytest.approx([1, 1, 0.3, 1, 0.3, 0], rel=0.05)
    assert not np.concatenate(network.biases).any()
    same, other = (ResidualMLP((6, 200, 200, 3), 2, rng=seed).parameters for seed in (0, 1))
    assert np.array_equal(same, network.parameters)
    assert not np.array_equal(other, network.parameters)


def test_dropped_units_are_those_of_the_generator_and_the_others_are_larger():
    """Units whose uniform number is below the probability are 0, the others are divided by 1 − p."""
    network, x = random_network((5, 40, 40, 3), 2, 0.3), np.random.default_rng(2).standard_normal((50, 5))
    draws = np.random.default_rng(3)
    keeps = [(draws.random((50, 40), dtype=np.float32) >= 0.3) / 0.7 for _ in range(2)]
    assert residual(network.vjp(x, np.random.default_rng(3))[0], by_hand(network, x, 2, keeps)) < 1e-6
    assert np.mean(keeps) == pytest.approx(1, abs=0.05)
    assert np.array_equal(network.vjp(x)[0], network.vjp(x)[0])
    assert residual(network.vjp(x)[0], by_hand(network, x, 2)) < 1e-12


def test_the_gradient_is_that_of_the_units_that_are_kept():
    network, x = random_network((5, 6, 6, 3), 2, 0.5), np.random.default_rng(2).standard_normal((4, 5))
    weight, direction = np.random.default_rng(4).standard_normal((4, 3)), np.ones(len(network.parameters))
    network.vjp(x, np.random.default_rng(3))[1](weight)
    gradient = network.gradient.copy()
    loss = lambda: float((weight * network.vjp(x, np.random.default_rng(3))[0]).sum())  # noqa: E731
    numeric = slope_along(network.parameters, direction, loss)
    assert abs(gradient @ direction - numeric) < 1e-6 * (1 + abs(numeric))


def test_without_dropout_no_random_number_is_drawn():
    rng = np.random.default_rng(0)
    random_network((5, 6, 6, 3), 2).vjp(np.ones((4, 5)), rng)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (
            ((3, 4, 5, 1),),
            ValueError,
            r"^hidden must hold one width for all blocks of network='residual', got sizes \[4, 5\]",
        ),
        (((3, 1),), ValueError, r"^hidden must hold one width for all blocks"),
        (((3, 4, 1), 4), ValueError, r"^n_told must be at most 3, got 4"),
        (((3, 4, 1), 0, 1.0), ValueError, r"^dropout must be in"),
        (((3, 4, 1), 0, "x"), TypeError, r"^dropout must be a number"),
        (((3, 4, 1), 0, 0.0, 0, np.float16), TypeError, r"^dtype must be float32 or float64"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        ResidualMLP(*arguments)


def test_inputs_of_another_width_are_refused():
    network = ResidualMLP((3, 4, 1), 1)
    calls = [lambda x: network(x), lambda x: network.vjp(x), lambda x: network.jvp(x, x)]
    for f in calls:
        with pytest.raises(ValueError, match=r"^x must have shape \(N, inputs\)"):
            f(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"^direction must have shape"):
        network.jvp(np.ones((2, 3)), np.ones((2, 4)))
