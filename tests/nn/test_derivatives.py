"""Backward passes of every network: derivatives of its own call, for all options of the call, in both dtypes."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import nn
from scratchgen.conformance import check_gradient
from scratchgen.nn import MLP, NoiseNetwork
from tests.networks import categorical_denoisers, mlps, noise_networks, picture_networks, residual_mlps
from tests.strategies import holds, residual, slope, slope_along

KINDS = {
    "MLP": mlps(),
    "ResidualMLP": residual_mlps(),
    "PictureNetwork": picture_networks(),
    "NoiseNetwork": noise_networks(),
    "CategoricalDenoiser": categorical_denoisers(),
}
every_network = pytest.mark.parametrize("kind", KINDS)
every_network_with_jvp = pytest.mark.parametrize("kind", ["MLP", "ResidualMLP", "NoiseNetwork"])


def unit(rng, shape):
    direction = rng.standard_normal(shape)
    return direction / np.linalg.norm(direction)


def same_slope(gradient, direction, numeric):
    """Whether gradient · direction equals the numerical derivative, to 1e-8 of the size of the gradient."""
    return abs(float((gradient * direction).sum()) - numeric) <= 1e-8 * max(float(np.linalg.norm(gradient)), 1e-2)


@every_network
@given(data=st.data())
def test_vjp_has_the_values_of_a_call(kind, data):
    case = data.draw(KINDS[kind])
    network = case.network
    assert residual(network.vjp(case.x, **case.given)[0], network(case.x, **case.given)) < 1e-12


@pytest.mark.equation("mlp-backward", "noise-network-backward", "level-denoiser-backward")
@every_network
@given(data=st.data())
def test_backward_is_the_derivative_to_parameters_and_to_x(kind, data):
    case = data.draw(KINDS[kind])
    network, x = case.network, case.x.copy()
    output, backward = network.vjp(x, **case.given)
    weight = case.rng.standard_normal(output.shape)
    by_x = backward(weight, inputs=True)
    assert by_x.shape == x.shape

    def loss():
        return float((weight * network(x, **case.given)).sum())

    direction, shift = unit(case.rng, network.parameters.shape), unit(case.rng, x.shape)
    gradient = network.gradient.copy()
    assert same_slope(gradient, direction, slope_along(network.parameters, direction, loss))
    assert same_slope(by_x, shift, slope_along(x, shift, loss))


@every_network
@given(data=st.data())
def test_gradient_without_that_of_the_input_is_the_same(kind, data):
    case = data.draw(KINDS[kind])
    network = case.network
    output, backward = network.vjp(case.x, **case.given)
    weight = case.rng.standard_normal(output.shape)
    backward(weight, inputs=True)
    gradient = network.gradient.copy()
    network.gradient[:] = np.nan
    assert backward(weight) is None
    assert np.array_equal(network.gradient, gradient)


@every_network
@given(data=st.data())
def test_a_backward_pass_belongs_to_its_own_forward_pass(kind, data):
    """Calls and other passes in between change nothing; a second backward pass overwrites the first gradient."""
    case = data.draw(KINDS[kind])
    network, other = case.network, case.rng.standard_normal(case.x.shape)
    output, backward = network.vjp(case.x, **case.given)
    weight = case.rng.standard_normal(output.shape)
    by_x, gradient = backward(weight, inputs=True), network.gradient.copy()
    network(other, **case.given)
    network.vjp(other, **case.given)[1](5 * weight)
    if hasattr(network, "jvp"):
        network.jvp(other, other, **case.given)[2](weight, weight)
    assert np.array_equal(backward(weight, inputs=True), by_x)
    assert np.array_equal(network.gradient, gradient)


@pytest.mark.equation("mlp-backward", "noise-network-backward", "level-denoiser-backward")
@every_network
@given(data=st.data())
def test_gradient_is_a_sum_over_examples(kind, data):
    case = data.draw(KINDS[kind])
    network, N = case.network, len(case.x)
    output, backward = network.vjp(case.x, **case.given)
    weight = case.rng.standard_normal(output.shape)
    backward(weight)
    gradient, total = network.gradient.copy(), np.zeros_like(network.gradient)
    for i in range(N):

        def of_example(value, i=i):
            """The row of the example in an option; a number belongs to all examples."""
            if isinstance(value, tuple):
                return type(value)(*map(of_example, value))
            return value if np.ndim(value) == 0 else value[[i]]

        given_one = {name: of_example(value) for name, value in case.given.items()}
        network.vjp(case.x[[i]], **given_one)[1](weight[[i]])
        total += network.gradient
    assert np.abs(gradient - total).max() < 1e-12 * (1 + np.abs(gradient).max())


@every_network
@given(data=st.data())
def test_float32_stays_float32_and_agrees_with_float64(kind, data):
    """For every combination of dtypes of points, levels, coefficients and gradients."""
    case = data.draw(KINDS[kind])
    single, double = case.make(np.float32), case.network
    weight = case.rng.standard_normal(double(case.x, **case.given).shape)
    for x in case.x, case.x.astype(np.float32):
        output, backward = single.vjp(x, **case.given)
        by_x = backward(weight, inputs=True)
        exact, exact_backward = double.vjp(x, **case.given)
        exact_by_x = exact_backward(weight, inputs=True)
        assert {a.dtype for a in (single(x, **case.given), output, by_x, single.gradient)} == {np.dtype(np.float32)}
        assert {a.dtype for a in (double(x, **case.given), exact, exact_by_x)} == {np.dtype(np.float64)}
        for mine, right in (output, exact), (by_x, exact_by_x), (single.gradient, double.gradient):
            assert np.abs(mine - right).max() < 1e-3 * (1 + np.abs(right).max())


@pytest.mark.parametrize("kind", ["NoiseNetwork", "CategoricalDenoiser"])
@given(data=st.data())
def test_parameters_and_gradient_are_the_mlps_also_of_a_copy(kind, data):
    original = data.draw(KINDS[kind]).network
    for network in original, copy.deepcopy(original), pickle.loads(pickle.dumps(original)):
        assert network.parameters is network.mlp.parameters
        assert network.gradient is network.mlp.gradient


# --- along a direction ------------------------------------------------------------------------------------


@pytest.mark.equation("mlp-derivative", "noise-network-derivative")
@every_network_with_jvp
@given(data=st.data())
def test_jvp_is_the_derivative_along_a_direction(kind, data):
    """Against a difference of calls, and g · (J v) = (Jᵀ g) · v."""
    case = data.draw(KINDS[kind])
    network, x, v = case.network, case.x, case.rng.standard_normal(case.x.shape)
    value, derivative, _ = network.jvp(x, v, **case.given)
    assert residual(value, network(x, **case.given)) < 1e-12
    size = 1 + np.abs(derivative).max()
    assert np.abs(derivative - slope(lambda h: network(x + h * v, **case.given), 1e-4)).max() < 1e-7 * size
    g = case.rng.standard_normal(value.shape)
    by_x = network.vjp(x, **case.given)[1](g, inputs=True)
    assert abs((g * derivative).sum() - (by_x * v).sum()) < 1e-11 * (size + np.abs(by_x).max())


@pytest.mark.equation("mlp-derivative", "noise-network-derivative")
@every_network_with_jvp
@given(data=st.data())
def test_backward_of_jvp_is_the_gradient_of_value_and_derivative(kind, data):
    case = data.draw(KINDS[kind])
    network, x, v = case.network, case.x, case.rng.standard_normal(case.x.shape)
    value, _, backward = network.jvp(x, v, **case.given)
    g, k = case.rng.standard_normal((2, *value.shape))
    assert backward(g, k) is None
    gradient, direction = network.gradient.copy(), unit(case.rng, network.parameters.shape)

    def loss():
        y, dy, _ = network.jvp(x, v, **case.given)
        return float((g * y).sum() + (k * dy).sum())

    assert same_slope(gradient, direction, slope_along(network.parameters, direction, loss))
    network.vjp(x, **case.given)[1](g)
    ordinary = network.gradient.copy()
    backward(g, np.zeros_like(k))  # with grad_derivative = 0 the result is the ordinary gradient
    assert np.abs(network.gradient - ordinary).max() < 1e-13 * (1 + np.abs(ordinary).max())


@every_network_with_jvp
@given(data=st.data())
def test_jvp_in_float32_agrees_with_float64(kind, data):
    case = data.draw(KINDS[kind])
    v = case.rng.standard_normal(case.x.shape)
    found = []
    for dtype in np.float32, np.float64:
        network = case.make(dtype)
        value, derivative, backward = network.jvp(case.x, v, **case.given)
        backward(np.ones(value.shape), np.ones(value.shape))
        found.append((value, derivative, network.gradient))
        assert {a.dtype for a in found[-1]} == {np.dtype(dtype)}
    for mine, right in zip(*found, strict=True):
        assert np.abs(mine - right).max() < 1e-3 * (1 + np.abs(right).max())


# --- by check_gradient of the package -----------------------------------------------------------------------------


@pytest.mark.parametrize("network", [MLP((2, 5, 3), rng=0, dtype=np.float64), NoiseNetwork(2, (5,), dtype=np.float64)])
def test_check_gradient_passes_our_networks(network):
    rng = np.random.default_rng(0)
    given = {"scale": 0.8, "std": 0.6} if isinstance(network, NoiseNetwork) else {}
    x = rng.standard_normal((4, 2))
    weight = rng.standard_normal(network(x, **given).shape)

    def loss(flat):
        network.parameters[:] = flat
        return float((network(x, **given) * weight).sum())

    def gradient(flat):
        network.parameters[:] = flat
        network.vjp(x, **given)[1](weight)
        return network.gradient.copy()

    start = 0.5 * rng.standard_normal(len(network.parameters))
    holds(check_gradient(loss, gradient, start, rng.standard_normal((3, len(start)))))


def with_labels_and_with_numbers(kind, dtype=np.float64):
    """A network of two classes, and one of two numbers of an augmentation, with the same parameters."""
    more, arguments = {"rng": 0, "dtype": dtype}, (3, (5,), 2)
    if kind == "CategoricalDenoiser":
        arguments = np.full((3, 4), 0.25), np.eye(3), (5,), 2
    networks = getattr(nn, kind)(*arguments, **more, n_classes=2), getattr(nn, kind)(*arguments, **more, n_augment=2)
    for network in networks:
        network.parameters[:] = np.random.default_rng(1).standard_normal(len(network.parameters))
    return networks


@pytest.mark.parametrize("kind", ["NoiseNetwork", "CategoricalDenoiser"])
@pytest.mark.parametrize("scale", [0.6, np.array([0.5, 0.6, 0.7])])
def test_numbers_of_an_augmentation_enter_as_the_indicators_of_labels(kind, scale):
    labelled, augmented = with_labels_and_with_numbers(kind)
    x, weight = np.random.default_rng(2).standard_normal((2, 3, 3))
    labels = np.array([1, -1, 0])
    indicators = (labels[:, None] == np.arange(2)).astype(float)
    for told, numbers in (labels, indicators), (None, None), (None, np.zeros((3, 2))):
        eps_hat, backward = labelled.vjp(x, scale, 0.8, labels=told)
        other, other_backward = augmented.vjp(x, scale, 0.8, augment_labels=numbers, rng=np.random.default_rng(0))
        assert residual(eps_hat, other) < 1e-14
        assert residual(backward(weight, inputs=True), other_backward(weight, inputs=True)) < 1e-13
        assert residual(labelled.gradient, augmented.gradient) < 1e-13
    assert residual(augmented(x, scale, 0.8), augmented.vjp(x, scale, 0.8)[0]) < 1e-12
    for network, numbers in (labelled, indicators), (augmented, indicators[:2]), (augmented, indicators[:, :1]):
        with pytest.raises(ValueError, match=r"^augment_labels must have shape \(N, n_augment\)"):
            network.vjp(x, scale, 0.8, augment_labels=numbers)
