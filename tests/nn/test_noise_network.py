"""The noise network: noise levels, coefficients, labels and features.  `test_derivatives` tests the derivatives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from scratchgen import Mixture, NoiseSchedule
from scratchgen.ddpm import eps_coefficients
from scratchgen.nn import NO_LABEL, NoiseNetwork, coordinate_features, time_features
from tests.networks import noise_networks, seeds
from tests.strategies import residual

# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.equation("noise-network")
@given(noise_networks())
def test_noise_is_skip_times_x_plus_gain_times_the_mlp(case):
    """Example by example, from the documented inputs: y = x/r and its waves, the waves of log-SNR, the label."""
    network, given = case.network, dict(case.given)
    N, D, n_classes = *case.x.shape, network.n_classes
    scale, std = (np.broadcast_to(given[name], N) for name in ("scale", "std"))
    labels = given.get("labels", np.full(N, NO_LABEL))
    eps_hat = np.empty((N, D))
    for i in range(N):
        r = np.sqrt(scale[i] ** 2 + std[i] ** 2)
        y = case.x[i] / r
        indicators = [float(labels[i] == c) for c in range(n_classes)]
        waves = coordinate_features(y[None], network.n_coordinate_features)[0]
        clock = time_features(np.log(scale[[i]] ** 2 / std[[i]] ** 2), network.n_time_features)[0]
        F = network.mlp(np.concatenate([y, waves, clock, indicators])[None])[0]
        skip, gain = std[i] / r**2, scale[i] / r
        if "coefficients" in given:
            skip, gain = (np.broadcast_to(np.ravel(part), N)[i] for part in given["coefficients"])
        eps_hat[i] = skip * case.x[i] + gain * F
    assert np.abs(network(case.x, **given) - eps_hat).max() < 1e-11 * (1 + np.abs(eps_hat).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(noise_networks(), st.floats(0.1, 1), st.floats(0.1, 10))
def test_one_noise_level_may_be_a_number_or_an_array_of_equal_ones(dtype, case, scale, std):
    network, N = case.make(dtype), len(case.x)
    rest = {name: value for name, value in case.given.items() if name not in ("scale", "std")}
    together = network(case.x, np.full(N, scale), np.full(N, std), **rest)
    for form in (float, np.float64, np.array, lambda value: np.full(1, value)):
        alone = network(case.x, form(scale), form(std), **rest)
        assert alone.dtype == dtype
        assert np.abs(alone - together).max() < 30 * np.finfo(dtype).eps * (1 + np.abs(together).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [0, 3])
@pytest.mark.parametrize("kind", [None, "noise", "v"])
def test_levels_computed_before_give_the_same_bytes(dtype, n_classes, kind):
    """Training computes the levels of all steps once, and takes the rows of a batch from them."""
    rng, schedule = np.random.default_rng(0), NoiseSchedule.linear(9)
    network = NoiseNetwork(2, (5,), n_coordinate_features=2, rng=rng, dtype=dtype, n_classes=n_classes)
    network.parameters[:] = rng.standard_normal(len(network.parameters))
    t, x, grad = rng.integers(1, 10, 40), *rng.standard_normal((2, 40, 2)).astype(dtype)
    labels = rng.integers(NO_LABEL, 3, 40) if n_classes else None
    steps = np.arange(1, 10)
    levels = network.noise_levels(
        schedule.alpha_bar[1:], schedule.beta_bar[1:], kind and eps_coefficients(schedule, steps, kind)
    ).at(t - 1)
    assert {part.dtype for part in levels} == {np.dtype(dtype)}
    results = []
    coefficients = kind and eps_coefficients(schedule, t, kind)
    for how in {"coefficients": coefficients}, {"levels": levels}:
        eps_hat, backward = network.vjp(x, schedule.alpha_bar[t], schedule.beta_bar[t], labels=labels, **how)
        results.append([eps_hat, backward(grad, inputs=True), network.gradient.copy()])
    for plain, table in zip(*results, strict=True):
        assert np.array_equal(plain, table)


def test_levels_of_another_kind_or_number_are_refused():
    network, x = NoiseNetwork(2, (5,), rng=0), np.ones((3, 2))
    levels = network.noise_levels(np.full(4, 0.8), np.full(4, 0.6))
    with pytest.raises(TypeError, match=r"levels must be a NoiseLevels, .*noise_levels"):
        network.vjp(x, 0.8, 0.6, levels=0.8)
    with pytest.raises(ValueError, match=r"x must have shape \(N, D\) = \(4, 2\), got shape \(3, 2\)"):
        network.vjp(x, 0.8, 0.6, levels=levels)
    with pytest.raises(IndexError, match="out of bounds"):
        levels.at(np.array([0, 4]))


@pytest.mark.equation("noise-network")
@given(st.floats(-6, 6), st.floats(-12, 12), st.integers(0, 3), seeds)
def test_untrained_noise_network_is_exact_for_standard_normal_data(log_r, log_snr, n_features, seed):
    """E[ε | x_t] = std x_t/(scale² + std²) for data N(0, I), at levels of VP, where r = 1, and of VE, where r > 1."""
    rng = np.random.default_rng(seed)
    scale, std = np.exp(log_r) * np.sqrt(expit([log_snr, -log_snr]))
    x = np.exp(log_r) * rng.standard_normal((4, 3))
    network = NoiseNetwork(3, (5,), n_coordinate_features=n_features, rng=rng, dtype=np.float64)
    standard = Mixture([1.0], np.zeros((1, 3)), np.eye(3)[None])
    exact = -std * standard.diffuse(scale, std).score(x)
    assert residual(network(x, scale, std), exact) < 1e-12
    assert residual(network.vjp(x, scale, std)[0], exact) < 1e-12


def test_labels_are_indicators_and_a_withheld_one_is_none():
    network = NoiseNetwork(2, (), n_classes=3, rng=0, dtype=np.float64)  # linear: a label adds its row of weights
    network.parameters[:] = np.random.default_rng(0).standard_normal(len(network.parameters))
    x, labels = np.random.default_rng(1).standard_normal((4, 2)), np.array([2, NO_LABEL, 0, 1])
    without, shift = network(x, 0.6, 0.8), np.zeros((4, 2))
    shift[labels >= 0] = 0.6 * network.mlp.weights[0][-3:][labels[labels >= 0]]
    assert residual(network(x, 0.6, 0.8, labels=labels), without + shift) < 1e-14
    assert residual(network(x, 0.6, 0.8, labels=np.full(4, NO_LABEL)), without) < 1e-14


def test_labels_are_ignored_by_a_network_without_classes():
    network = NoiseNetwork(2, (4,), rng=0)
    network.parameters[:] = np.random.default_rng(0).standard_normal(len(network.parameters))
    x = np.ones((2, 2), dtype=np.float32)
    assert np.array_equal(network(x, 0.6, 0.8, labels=np.array([0, 1])), network(x, 0.6, 0.8))


# --- features ---------------------------------------------------------------------------------------------


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


def test_noise_network_of_no_points_returns_an_empty_array():
    x, none = np.zeros((0, 3), dtype=np.float32), np.zeros(0)
    for n in (0, 2):
        network = NoiseNetwork(3, (4,), n_coordinate_features=n, n_classes=2, rng=0)
        assert network(x, 0.6, 0.8).shape == network(x, none, none).shape == (0, 3)
        assert network(x, 0.6, 0.8, labels=np.zeros(0, dtype=int)).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dimension": 0}, ValueError, "dimension must be at least 1"),
        ({"dimension": 2.0}, TypeError, "dimension must be an integer"),
        ({"dimension": 2, "n_time_features": -1}, ValueError, "n_time_features must be at least 0"),
        ({"dimension": 2, "n_coordinate_features": -1}, ValueError, "n_coordinate_features must be at least 0"),
        ({"dimension": 2, "n_classes": -1}, ValueError, "n_classes must be at least 0"),
        ({"dimension": 2, "hidden": (4, 0)}, ValueError, r"hidden\[1\] must be at least 1"),
    ],
)
def test_noise_network_refuses_invalid_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        NoiseNetwork(**arguments)


@pytest.mark.parametrize(
    ("x", "scale", "labels"),
    [(np.ones((1, 2)), np.ones(5), None), (np.ones((5, 2)), 1.0, np.ones(1, int)), (np.ones(2), 1.0, None)],
)
def test_noise_network_refuses_what_numpy_would_broadcast(x, scale, labels):
    with pytest.raises(ValueError, match=r"^x must have shape \(N, D\), scale and std one number or N, and labels N"):
        NoiseNetwork(2, (4,), n_classes=2, rng=0)(x, scale, 0.5, labels=labels)


@pytest.mark.parametrize("n_coordinate_features", [0, 2])
def test_no_rows_have_no_noise_and_no_gradient(n_coordinate_features):
    network = NoiseNetwork(3, (4,), n_coordinate_features=n_coordinate_features, rng=0)
    none = np.zeros((0, 3))
    for std in 0.8, np.zeros(0):
        network.gradient[:] = 1.0
        eps_hat, derivative, backward = network.jvp(none, none, 0.6, std)
        assert eps_hat.shape == derivative.shape == network(none, 0.6, std).shape == (0, 3)
        backward(none, none)
        assert not network.gradient.any()
        eps_hat, backward = network.vjp(none, 0.6, std)
        assert eps_hat.shape == backward(none, inputs=True).shape == (0, 3)
