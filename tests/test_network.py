"""The MLP and the noise network: gradients against central differences, closed forms, views, dtypes, errors."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from scratchgen import MLP, Mixture, network
from scratchgen.network import ACTIVATIONS
from scratchgen.noise_network import NoiseNetwork, coordinate_features, time_features
from tests.strategies import residual, slope, slope_along


def unit(rng, shape):
    direction = rng.standard_normal(shape)
    return direction / np.linalg.norm(direction)


def same_slope(gradient, direction, numeric):
    """Whether gradient · direction is the numeric derivative, to 1e-8 of the gradient's size."""
    return abs(float((gradient * direction).sum()) - numeric) <= 1e-8 * max(float(np.linalg.norm(gradient)), 1e-2)


@st.composite
def mlps(draw, dtype=np.float64):
    """An MLP with 0-3 hidden layers, every parameter random (biases too), and an rng for the rest."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mlp = MLP(sizes, draw(st.sampled_from(ACTIVATIONS)), rng=rng, dtype=dtype)
    mlp.parameters[:] = rng.standard_normal(len(mlp.parameters))
    return mlp, rng


@st.composite
def noise_networks(draw):
    """A noise network with random parameters, points, and a noise level: a number, or one for every example."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hidden = draw(st.lists(st.integers(1, 6), max_size=3))
    network = NoiseNetwork(
        draw(st.integers(1, 3)), hidden, draw(st.integers(0, 3)), draw(st.integers(0, 3)), rng, np.float64
    )
    network.mlp.parameters[:] = rng.standard_normal(len(network.mlp.parameters))
    x = rng.standard_normal((draw(st.integers(1, 4)), network.dimension))
    shape = draw(st.sampled_from([(), (len(x),)]))
    return network, x, rng.uniform(0.1, 1.0, shape), np.exp(rng.uniform(-3, 3, shape)), rng


# --- MLP: gradients ---------------------------------------------------------------------------------------


@given(mlps())
def test_mlp_backward_is_the_derivative(drawn):
    mlp, rng = drawn
    x, weight = rng.standard_normal((4, mlp.sizes[0])), rng.standard_normal((4, mlp.sizes[-1]))
    direction, shift = unit(rng, mlp.parameters.shape), unit(rng, x.shape)
    mlp.forward(x)
    grad_x = mlp.backward(weight)
    assert grad_x.shape == x.shape

    def loss():
        return float((weight * mlp(x)).sum())

    assert same_slope(mlp.gradient, direction, slope_along(mlp.parameters, direction, loss))
    assert same_slope(grad_x, shift, slope_along(x, shift, loss))


def test_mlp_backward_overwrites_and_serves_the_last_forward():
    rng = np.random.default_rng(0)
    mlp = MLP((2, 3, 2), rng=0, dtype=np.float64)
    x, other, weight = rng.standard_normal((3, 4, 2))
    mlp.forward(x)
    grad_x, gradient = mlp.backward(weight), mlp.gradient.copy()
    mlp.forward(other)
    mlp.backward(5 * weight)
    mlp(other)  # a plain call leaves nothing for backward
    mlp.forward(x)
    mlp(other)
    assert (mlp.backward(weight) == grad_x).all()
    assert (mlp.gradient == gradient).all()


def test_mlp_gradient_is_a_sum_over_examples():
    rng = np.random.default_rng(0)
    mlp = MLP((3, 4, 2), "tanh", rng=0, dtype=np.float64)
    x, weight = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    total = np.zeros_like(mlp.gradient)
    for row in range(5):
        mlp.forward(x[[row]])
        mlp.backward(weight[[row]])
        total += mlp.gradient
    mlp.forward(x)
    mlp.backward(weight)
    assert residual(mlp.gradient, total) < 1e-14


def test_mlp_backward_needs_a_forward():
    mlp = MLP((2, 3, 1), rng=0)
    mlp(np.ones((4, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="forward"):
        mlp.backward(np.ones((4, 1)))


@given(mlps())
def test_derivative_along_a_direction_and_its_gradient(drawn):
    """y and dy of `forward_along` against the call's own slope; the gradient of g·y + k·dy along the parameters."""
    mlp, rng = drawn
    x, v = rng.standard_normal((2, 4, mlp.sizes[0]))
    g, k = rng.standard_normal((2, 4, mlp.sizes[-1]))
    value, derivative = mlp.forward_along(x, v)
    assert residual(value, mlp(x)) < 1e-13
    numeric = slope(lambda h: mlp(x + h * v), 1e-3)
    assert residual(derivative, numeric) < 1e-8 * (1 + np.abs(derivative).max())
    assert mlp.backward_along(g, k) is None
    gradient, direction = mlp.gradient.copy(), unit(rng, mlp.parameters.shape)

    def loss():
        y, dy = mlp.forward_along(x, v)
        return float((g * y).sum() + (k * dy).sum())

    assert same_slope(gradient, direction, slope_along(mlp.parameters, direction, loss))
    mlp.forward_along(x, v)
    mlp.backward_along(g, np.zeros_like(k))  # without the derivative's part it is the ordinary one
    along = mlp.gradient.copy()
    mlp.forward(x)
    mlp.backward(g)
    assert residual(along, mlp.gradient) < 1e-13


def test_backward_along_needs_a_forward_along():
    mlp = MLP((2, 3, 1), rng=0)
    mlp.forward(np.ones((4, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="forward_along"):
        mlp.backward_along(np.ones((4, 1)), np.ones((4, 1)))


# --- MLP: values ------------------------------------------------------------------------------------------


@given(mlps())
def test_mlp_is_affine_maps_with_activations_between(drawn):
    mlp, rng = drawn
    x = rng.standard_normal((4, mlp.sizes[0]))
    sigma = {"silu": lambda z: z * expit(z), "tanh": np.tanh, "identity": lambda z: z}[mlp.activation]
    h, rest = x, mlp.parameters.copy()
    for i, (m, n) in enumerate(zip(mlp.sizes[:-1], mlp.sizes[1:], strict=True)):
        weight, bias, rest = rest[: m * n].reshape(m, n), rest[m * n : (m + 1) * n], rest[(m + 1) * n :]
        h = (sigma(h) if i else h) @ weight + bias
    assert rest.size == 0
    assert residual(mlp.forward(x), h) < 1e-12
    assert residual(mlp(x), h) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(mlps(), st.integers(0, 5))
def test_mlp_forward_is_its_call(dtype, drawn, n):
    source, rng = drawn
    mlp = MLP(source.sizes, source.activation, rng=0, dtype=dtype)
    mlp.parameters[:] = source.parameters
    x = rng.standard_normal((n, mlp.sizes[0])).astype(dtype)
    assert mlp(x).shape == (n, mlp.sizes[-1])
    assert (mlp(x) == mlp.forward(x)).all()


def test_float32_mlp_computes_in_float32_whatever_comes_in():
    mlp = MLP((2, 3, 1), rng=0)
    x = np.random.default_rng(0).standard_normal((4, 2))
    for y in mlp(x), mlp.forward(x):
        assert y.dtype == np.float32
        assert (y == mlp(x.astype(np.float32))).all()


def one_silu(z):
    """σ(z) and σ'(z) of a network of one unit, in the dtype of z."""
    mlp = MLP((1, 1, 1), "silu", rng=0, dtype=z.dtype)
    mlp.parameters[:] = [1, 0, 1, 0]
    value = mlp.forward(z[:, None])[:, 0]
    return value, mlp.backward(np.ones((len(z), 1)))[:, 0]


@pytest.fixture(params=[True, False], ids=["by tanh", "by exp"])
def either_form(request, monkeypatch):
    """Both ways to a sigmoid, whichever is the faster here."""
    monkeypatch.setattr(network, "TANH_IS_FAST", request.param)


@pytest.mark.usefixtures("either_form")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 5e-6)])
def test_silu_and_its_derivative_are_the_closed_forms(dtype, tolerance):
    z = np.concatenate([np.linspace(-40, 40, 4001), [-1e4, -1e3, -750.0, -100.0, -88.0, 100.0, 1e3, 1e4]]).astype(dtype)
    value, derivative = one_silu(z)
    exact, sigmoid = z.astype(np.float64), expit(z.astype(np.float64))
    assert value.dtype == derivative.dtype == dtype
    assert residual(value, exact * sigmoid) < tolerance
    assert residual(derivative, sigmoid * (1 + exact * (1 - sigmoid))) < tolerance


@pytest.mark.usefixtures("either_form")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silu_has_its_limits_without_a_warning(dtype):
    with np.errstate(all="raise", under="ignore"):
        value, derivative = one_silu(np.array([-1e4, -200.0, 0.0, 200.0, 1e4], dtype=dtype))
    assert (abs(value - [0, 0, 0, 200, 1e4]) < 1e-80).all()
    assert (abs(derivative - [0, 0, 0.5, 1, 1]) < 1e-80).all()


@pytest.mark.usefixtures("either_form")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_call_has_the_same_silu_as_a_pass_that_remembers(dtype):
    mlp, z = MLP((1, 1, 1), "silu", rng=0, dtype=dtype), np.linspace(-200, 200, 801).astype(dtype)
    mlp.parameters[:] = [1, 0, 1, 0]
    with np.errstate(all="raise", under="ignore"):
        value = mlp(z[:, None])
        assert (value == mlp.forward(z[:, None])).all()
    assert residual(value[:, 0], z * expit(z)) < 100 * np.finfo(dtype).eps


# --- MLP: parameters --------------------------------------------------------------------------------------


def test_mlp_layers_are_views_of_the_flat_vectors():
    mlp = MLP((2, 3, 1), rng=0, dtype=np.float64)
    assert mlp.parameters.shape == mlp.gradient.shape == (2 * 3 + 3 + 3 * 1 + 1,)
    mlp.parameters[:] = np.arange(13)
    assert mlp.weights[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert mlp.biases[0].tolist() == [6, 7, 8]
    assert mlp.weights[1].tolist() == [[9], [10], [11]]
    assert mlp.biases[1].tolist() == [12]
    mlp.weights[1][2, 0] = -1
    assert mlp.parameters[11] == -1
    before = mlp(np.ones((1, 2)))
    mlp.parameters[12] += 5
    assert mlp(np.ones((1, 2))) == before + 5


def test_mlp_weights_have_variance_one_over_fan_in_and_biases_are_0():
    mlp = MLP((400, 500, 300), rng=0)
    for weight, fan_in in zip(mlp.weights, (400, 500), strict=True):
        n = weight.size
        # the variance of n normal numbers is off by more than 5.5 · √(2/n) once in 2e7
        assert abs(fan_in * np.mean(weight.astype(np.float64) ** 2) - 1) < 5.5 * (2 / n) ** 0.5
    assert all((bias == 0).all() for bias in mlp.biases)


def test_mlp_seeds_are_values():
    a, b, c = (MLP((3, 4, 1), rng=seed).parameters for seed in (0, 0, 1))
    assert a.tobytes() == b.tobytes()
    assert a.tobytes() != c.tobytes()


def test_zero_last_starts_at_0_and_can_learn():
    mlp = MLP((2, 5, 3), rng=0, zero_last=True)
    x = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)
    assert (mlp.forward(x) == 0).all()
    assert (mlp.weights[0] != 0).all()
    mlp.backward(np.ones((4, 3)))
    assert (mlp._weight_gradients[1] != 0).any()  # a network that is 0 in the layer before as well would stay there


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_keeps_its_dtype(activation, dtype):
    mlp = MLP((2, 3, 3, 1), activation, rng=0, dtype=dtype)
    x = np.ones((4, 2), dtype=dtype)
    y = mlp.forward(x)
    assert y.dtype == mlp(x).dtype == dtype
    assert mlp.backward(np.ones((4, 1))).dtype == dtype  # whatever dtype the loss's gradient has
    assert mlp.parameters.dtype == mlp.gradient.dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (((3,),), ValueError, "sizes must name"),
        (((),), ValueError, "sizes must name"),
        (((2, 0, 1),), ValueError, "sizes must be at least 1"),
        (((2, 1.5),), TypeError, "sizes must be an integer"),
        (((2, True),), TypeError, "sizes must be an integer"),
        (((2, 1), "relu"), ValueError, "activation must be one of 'silu', 'tanh', 'identity', got 'relu'"),
        (((2, 1), "silu", -1), ValueError, "rng must be a non-negative seed"),
        (((2, 1), "silu", np.random.RandomState(0)), TypeError, "rng must be"),
    ],
)
def test_mlp_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        MLP(*arguments)


# --- noise network ----------------------------------------------------------------------------------------


@given(noise_networks())
def test_noise_network_backward_is_the_derivative(drawn):
    network, x, scale, std, rng = drawn
    weight = rng.standard_normal(x.shape)
    parameters = network.mlp.parameters
    direction, shift = unit(rng, parameters.shape), unit(rng, x.shape)
    network.forward(x, scale, std)
    grad_x = network.backward(weight)
    assert grad_x.shape == x.shape

    def loss():
        return float((weight * network(x, scale, std)).sum())

    assert same_slope(network.mlp.gradient, direction, slope_along(parameters, direction, loss))
    assert same_slope(grad_x, shift, slope_along(x, shift, loss))


@given(noise_networks())
def test_noise_network_forward_is_its_call(drawn):
    network, x, scale, std, _ = drawn
    assert residual(network(x, scale, std), network.forward(x, scale, std)) < 1e-13


@given(mlps(), st.integers(0, 3), st.integers(0, 5))
def test_inputs_that_all_rows_share_may_be_given_once(drawn, n_shared, n):
    mlp, rng = drawn
    n_shared = min(n_shared, mlp.sizes[0])
    x, constant = rng.standard_normal((n, mlp.sizes[0] - n_shared)), rng.standard_normal(n_shared)
    together = mlp(np.concatenate([x, np.tile(constant, (n, 1))], axis=1))
    assert residual(mlp(x, constant), together) < 1e-13


def test_rows_of_a_call_do_not_depend_on_how_many_there_are():
    mlp = MLP((3, 8, 2), rng=0, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((1300, 3))  # more than two blocks
    parts = np.concatenate([mlp(x[:700]), mlp(x[700:])])
    assert residual(mlp(x), parts) < 1e-14
    assert residual(mlp(x), mlp.forward(x)) < 1e-14


@given(mlps())
def test_gradient_without_that_of_the_input_is_the_same(drawn):
    mlp, rng = drawn
    weight = rng.standard_normal((4, mlp.sizes[-1]))
    mlp.forward(rng.standard_normal((4, mlp.sizes[0])))
    mlp.backward(weight)
    gradient = mlp.gradient.copy()
    mlp.gradient[:] = np.nan
    assert mlp.backward_parameters(weight) is None
    assert np.array_equal(mlp.gradient, gradient)


@given(noise_networks())
def test_noise_level_of_every_example_is_its_own(drawn):
    network, x, scale, std, _ = drawn
    together = network(x, scale, std)
    levels = zip(np.broadcast_to(scale, len(x)).tolist(), np.broadcast_to(std, len(x)).tolist(), strict=True)
    alone = [network(row[None], a, s)[0] for row, (a, s) in zip(x, levels, strict=True)]
    assert residual(together, np.array(alone)) < 1e-12


@given(noise_networks(), st.floats(0.1, 10))
def test_noise_network_has_no_unit_of_length(drawn, c):
    """x_t, scale and std may be divided by r: VP, VE and anything between are one problem."""
    network, x, scale, std, _ = drawn
    assert residual(network(c * x, c * scale, c * std), network(x, scale, std)) < 1e-10


@given(st.floats(-6, 6), st.floats(-12, 12), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_untrained_noise_network_is_exact_for_standard_normal_data(log_r, log_snr, n_features, seed):
    """E[ε | x_t] = std x_t/(scale² + std²) for data N(0, I): at VP levels, where r = 1, and at VE's, where r > 1."""
    rng = np.random.default_rng(seed)
    scale, std = np.exp(log_r) * np.sqrt(expit([log_snr, -log_snr]))
    x = np.exp(log_r) * rng.standard_normal((4, 3))
    network = NoiseNetwork(3, (5,), n_coordinate_features=n_features, rng=rng, dtype=np.float64)
    standard = Mixture([1.0], np.zeros((1, 3)), np.eye(3)[None])
    exact = -std * standard.diffuse(scale, std).score(x)
    assert residual(network(x, scale, std), exact) < 1e-12
    assert residual(network.forward(x, scale, std), exact) < 1e-12


@given(noise_networks())
def test_noise_network_adds_the_mlp_with_gain_scale_over_r(drawn):
    """With F constant, ε̂ = std/r² x + scale/r F: what the MLP has to learn stays of order 1 at every noise level."""
    network, x, scale, std, rng = drawn
    network.mlp.parameters[:] = 0
    F = rng.standard_normal(network.dimension)
    network.mlp.biases[-1][:] = F
    scale, std = (np.broadcast_to(v, len(x))[:, None] for v in (scale, std))
    r = np.sqrt(scale**2 + std**2)
    assert residual(network(x, scale[:, 0], std[:, 0]), std * x / r**2 + scale / r * F) < 1e-12


@pytest.mark.parametrize("level", [(0.6, 0.8), (1.0, 50.0), (np.full(4, 0.6), np.full(4, 0.8))])
@pytest.mark.parametrize("x_dtype", [np.float32, np.float64])
def test_float32_noise_network_stays_float32_and_agrees_with_float64(level, x_dtype):
    rng = np.random.default_rng(0)
    single = NoiseNetwork(2, (8, 8), n_coordinate_features=2, rng=0)
    double = NoiseNetwork(2, (8, 8), n_coordinate_features=2, rng=0, dtype=np.float64)
    single.mlp.parameters[:] = double.mlp.parameters[:] = rng.standard_normal(len(double.mlp.parameters))
    x = rng.standard_normal((4, 2)).astype(x_dtype)
    weight = rng.standard_normal((4, 2)).astype(np.float32)
    assert single(x, *level).dtype == single.forward(x, *level).dtype == np.float32
    assert single.backward(weight).dtype == single.mlp.gradient.dtype == np.float32
    assert residual(single(x, *level), double(x, *level)) < 1e-4
    double.forward(x, *level)
    assert residual(single.backward(weight), double.backward(weight)) < 1e-3
    assert residual(single.mlp.gradient, double.mlp.gradient) < 1e-3


def test_time_features_are_waves_in_log_snr():
    log_snr = np.array([-7.0, 0.0, 1.5, 8.0])
    frequencies = [0.125, 0.5, 2.0]  # 3 of them, geometric from 1/8 to 2
    expected = [[f(w * v) for f in (np.cos, np.sin) for w in frequencies] for v in log_snr]
    assert residual(time_features(log_snr, 3), np.array(expected)) < 1e-14
    assert time_features(log_snr.astype(np.float32), 3).dtype == np.float32


def test_coordinate_features_are_octaves_of_every_coordinate():
    x = np.array([[0.3, -1.0], [2.0, 0.1]])
    expected = [[f(w * v) for f in (np.cos, np.sin) for v in row for w in (2, 4, 8)] for row in x]
    assert residual(coordinate_features(x, 3), np.array(expected)) < 1e-14
    assert coordinate_features(x.astype(np.float32), 3).dtype == np.float32
    assert coordinate_features(x, 0).shape == (2, 0)


def test_noise_network_of_no_points():
    for n in (0, 2):
        network = NoiseNetwork(3, (4,), n_coordinate_features=n, rng=0)
        assert network(np.zeros((0, 3), dtype=np.float32), 0.6, 0.8).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dimension": 0}, ValueError, "dimension must be at least 1"),
        ({"dimension": 2.0}, TypeError, "dimension must be an integer"),
        ({"dimension": 2, "n_time_features": -1}, ValueError, "n_time_features must be at least 0"),
        ({"dimension": 2, "n_coordinate_features": -1}, ValueError, "n_coordinate_features must be at least 0"),
        ({"dimension": 2, "hidden": (4, 0)}, ValueError, r"hidden\[1\] must be at least 1"),
    ],
)
def test_noise_network_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        NoiseNetwork(**arguments)


def test_layers_of_a_copied_or_unpickled_network_are_views_of_its_own_parameters():
    original = MLP((2, 3, 1), rng=0)
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        twin.parameters[:] = 0
        assert not np.any(twin(np.ones((1, 2))))
        twin.forward(np.ones((1, 2)))
        twin.backward(np.ones((1, 1)))
        assert np.any(twin.gradient)
    assert np.any(original.parameters)


# --- noise network: along a direction ---------------------------------------------------------------------


@given(noise_networks())
def test_derivative_of_the_noise_along_a_direction_and_its_gradient(drawn):
    network, x, scale, std, rng = drawn
    v, g, k = rng.standard_normal((3, *x.shape))
    value, derivative = network.forward_along(x, v, scale, std)
    assert residual(value, network(x, scale, std)) < 1e-13
    network.forward(x, scale, std)
    assert residual((derivative * g).sum(), (network.backward(g) * v).sum()) < 1e-11  # g·(J v) = (Jᵀ g)·v
    network.forward_along(x, v, scale, std)
    network.backward_along(g, k)
    gradient, direction = network.mlp.gradient.copy(), unit(rng, network.mlp.parameters.shape)

    def loss():
        y, dy = network.forward_along(x, v, scale, std)
        return float((g * y).sum() + (k * dy).sum())

    assert same_slope(gradient, direction, slope_along(network.mlp.parameters, direction, loss))


def test_a_pass_along_a_direction_leaves_the_ordinary_one_alone():
    rng = np.random.default_rng(0)
    network = NoiseNetwork(2, (4,), rng=0, dtype=np.float64)
    network.mlp.parameters[:] = rng.standard_normal(len(network.mlp.parameters))
    x, v, g = rng.standard_normal((3, 5, 2))
    network.forward(x, 0.8, 0.6)
    expected = network.backward(g), network.mlp.gradient.copy()
    network.forward(x, 0.8, 0.6)
    network.forward_along(x, v, 0.1, 0.99)
    assert np.array_equal(network.backward(g), expected[0])
    assert np.array_equal(network.mlp.gradient, expected[1])
    for call in (lambda n: n.backward(g), lambda n: n.backward_parameters(g), lambda n: n.backward_along(g, g)):
        with pytest.raises(ValueError, match="needs a forward pass"):
            call(NoiseNetwork(2, (4,), rng=0))
