"""Hypothesis strategies for networks with random parameters, their inputs, and the options of their calls."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from scratchgen.nn import MLP, CategoricalDenoiser, EpsCoefficients, NoiseNetwork, ResidualMLP
from scratchgen.nn.activations import ACTIVATIONS
from scratchgen.nn.networks import new_network

seeds = st.integers(0, 2**32 - 1)


class Case(NamedTuple):
    """A network and the arguments of its call."""

    make: Callable[[Any], Any]  # dtype -> network, with the same parameters in every call
    x: np.ndarray  # (N, D), float64
    given: dict[str, Any]  # keyword arguments of a call
    rng: np.random.Generator

    @property
    def network(self):
        return self.make(np.float64)


def filled(network, parameters):
    network.parameters[:] = parameters
    return network


@st.composite
def mlps(draw):
    """0 to 3 hidden layers, with random biases."""
    sizes, activation = draw(st.lists(st.integers(1, 5), min_size=2, max_size=5)), draw(st.sampled_from([*ACTIVATIONS]))
    rng = np.random.default_rng(draw(seeds))
    parameters = rng.standard_normal(len(MLP(sizes).parameters))
    x = rng.standard_normal((draw(st.integers(1, 4)), sizes[0]))
    return Case(lambda dtype: filled(MLP(sizes, activation, rng=0, dtype=dtype), parameters), x, {}, rng)


@st.composite
def residual_mlps(draw):
    """1 to 3 blocks, with 0 to all inputs told, with random biases."""
    n_inputs, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    sizes = (n_inputs, *[width] * draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    n_told, rng = draw(st.integers(0, n_inputs)), np.random.default_rng(draw(seeds))
    parameters = rng.standard_normal(len(ResidualMLP(sizes, n_told).parameters))
    x = rng.standard_normal((draw(st.integers(1, 4)), n_inputs))
    return Case(lambda dtype: filled(ResidualMLP(sizes, n_told, 0.3, 0, dtype), parameters), x, {}, rng)


@st.composite
def picture_networks(draw):
    """Pictures of 1 to 4 rows and columns, with 0 to 2 told inputs, on both kinds of trunks."""
    picture, n_told = (draw(st.integers(1, 4)), draw(st.integers(1, 4))), draw(st.integers(0, 2))
    D, kind = picture[0] * picture[1], draw(st.sampled_from(["mlp", "residual"]))
    arguments = (3 * D + n_told, 4, 4, 2 * D), n_told, kind, 0.0, picture, 0
    rng = np.random.default_rng(draw(seeds))
    parameters = 0.5 * rng.standard_normal(len(new_network(*arguments, np.float64).parameters))
    x = rng.standard_normal((draw(st.integers(1, 4)), 3 * D + n_told))
    return Case(lambda dtype: filled(new_network(*arguments, dtype), parameters), x, {}, rng)


@st.composite
def noise_levels(draw, n, rng, widest=3.0):
    """scale and std as keyword arguments: two numbers, or a number and an array, or two arrays."""
    shapes = draw(st.sampled_from([((), ()), ((n,), ()), ((n,), (n,))]))
    return {"scale": rng.uniform(0.1, 1.0, shapes[0]), "std": np.exp(rng.uniform(-widest, widest, shapes[1]))}


@st.composite
def noise_networks(draw):
    """With and without both kinds of features, classes, labels (some missing) and coefficients of every shape."""
    D, N, n_classes = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.sampled_from([0, 2]))
    options = {
        **draw(st.sampled_from([{"hidden": ()}, {"hidden": (5, 2, 6)}, {"hidden": (4, 4), "network": "residual"}])),
        "n_time_features": draw(st.integers(0, 3)),
        "n_coordinate_features": draw(st.integers(0, 3)),
        "n_classes": n_classes,
    }
    rng = np.random.default_rng(draw(seeds))
    parameters = rng.standard_normal(len(NoiseNetwork(D, **options).parameters))
    given = draw(noise_levels(N, rng))
    shape = draw(st.sampled_from([None, (), (N,), (N, 1)]))
    if shape is not None:
        given["coefficients"] = EpsCoefficients(rng.standard_normal(shape), rng.standard_normal(shape))
    if n_classes and draw(st.booleans()):
        given["labels"] = rng.integers(-1, n_classes, N)
    x = rng.standard_normal((N, D))
    return Case(lambda dtype: filled(NoiseNetwork(D, **options, rng=0, dtype=dtype), parameters), x, given, rng)


@st.composite
def categorical_denoisers(draw, trained=True):
    """With and without classes, their histograms and labels; F = 0 unless `trained`."""
    D, N, n_classes = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.sampled_from([0, 2]))
    n_levels, n_time_features = draw(st.sampled_from([2, 3, 17])), draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(seeds))
    histograms, A = rng.dirichlet(np.ones(n_levels), size=D), rng.standard_normal((D, D))
    arguments = histograms, A @ A.T, (5,), n_time_features, n_classes
    options = {"network": draw(st.sampled_from(["mlp", "residual"])), "picture": draw(st.sampled_from([None, (1, D)]))}
    own = rng.dirichlet(np.ones(n_levels), size=(n_classes, D)) if draw(st.booleans()) else None
    parameters = 0.5 * rng.standard_normal(len(CategoricalDenoiser(*arguments, **options).parameters))
    given = {name: np.clip(level, 0.2, 1.0) for name, level in draw(noise_levels(N, rng)).items()}
    if n_classes and draw(st.booleans()):
        given["labels"] = rng.integers(-1, n_classes, N)
    x = rng.standard_normal((N, D))

    def make(dtype):
        network = CategoricalDenoiser(*arguments, rng=0, dtype=dtype, class_histograms=own, **options)
        return filled(network, parameters) if trained else network

    return Case(make, x, given, rng)
