"""The MLP: values, rows, dtypes, views and errors.  The derivatives are tested in `test_derivatives`."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from scratchgen.nn import MLP
from tests.networks import mlps
from tests.strategies import residual

# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.equation("mlp")
@given(mlps())
def test_mlp_is_affine_maps_with_activations_between(case):
    mlp, x = case.network, case.x
    sigma = {"silu": lambda z: z * expit(z), "tanh": np.tanh, "identity": lambda z: z}[mlp.activation]
    h, rest = x, mlp.parameters.copy()
    for i, (m, n) in enumerate(zip(mlp.sizes[:-1], mlp.sizes[1:], strict=True)):
        weight, bias, rest = rest[: m * n].reshape(m, n), rest[m * n : (m + 1) * n], rest[(m + 1) * n :]
        h = (sigma(h) if i else h) @ weight + bias
    assert rest.size == 0
    assert residual(mlp.vjp(x)[0], h) < 1e-12
    assert residual(mlp(x), h) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(mlps(), st.integers(0, 5))
def test_vjp_has_the_bits_of_a_call(dtype, case, n):
    mlp = case.make(dtype)
    x = case.rng.standard_normal((n, mlp.sizes[0]))
    assert mlp(x).shape == (n, mlp.sizes[-1])
    assert (mlp(x) == mlp.vjp(x)[0]).all()


@pytest.mark.parametrize("columns", [0, 1, 2, 4, 5])
def test_another_number_of_columns_is_refused(columns):
    """A call with too few columns would use the first rows of the first weights."""
    mlp, x = MLP((3, 4, 1), rng=0), np.ones((2, columns))
    right = np.ones((2, 3))
    calls = [lambda: mlp(x), lambda: mlp.vjp(x), lambda: mlp.jvp(x, x), lambda: mlp.jvp(right, x)]
    calls += [lambda: mlp(x, np.ones(1))] if columns != 2 else []
    for call in calls:
        with pytest.raises(
            ValueError, match=r"^(x|direction) must have shape \(N, [23]\), since the network has 3 inputs, got"
        ):
            call()
    with pytest.raises(ValueError, match=r"^x must have shape \(N, 3\)"):
        mlp(np.ones(3))


def test_float32_mlp_computes_in_float32_whatever_comes_in():
    mlp = MLP((2, 3, 1), rng=0)
    x = np.random.default_rng(0).standard_normal((4, 2))
    for y in mlp(x), mlp.vjp(x)[0], mlp.jvp(x, x)[0]:
        assert y.dtype == np.float32
        assert (y == mlp(x.astype(np.float32))).all()


@given(mlps(), st.integers(0, 3), st.integers(0, 5))
def test_inputs_that_all_rows_share_may_be_given_once(case, n_shared, n):
    mlp, rng = case.network, case.rng
    n_shared = min(n_shared, mlp.sizes[0])
    x, constant = rng.standard_normal((n, mlp.sizes[0] - n_shared)), rng.standard_normal(n_shared)
    together = mlp(np.concatenate([x, np.tile(constant, (n, 1))], axis=1))
    assert residual(mlp(x, constant), together) < 1e-13


def test_rows_of_a_call_do_not_depend_on_how_many_there_are():
    mlp = MLP((3, 8, 2), rng=0, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((1300, 3))  # more than two blocks
    parts = np.concatenate([mlp(x[:700]), mlp(x[700:])])
    assert residual(mlp(x), parts) < 1e-14
    assert residual(mlp(x), mlp.vjp(x)[0]) < 1e-14


# --- parameters -------------------------------------------------------------------------------------------


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


def test_equal_seeds_give_equal_mlps_and_others_do_not():
    a, b, c = (MLP((3, 4, 1), rng=seed).parameters for seed in (0, 0, 1))
    assert a.tobytes() == b.tobytes()
    assert a.tobytes() != c.tobytes()


def test_zero_last_starts_at_0_and_can_learn():
    mlp = MLP((2, 5, 3), rng=0, zero_last=True)
    x = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)
    output, backward = mlp.vjp(x)
    assert (output == 0).all()
    assert (mlp.weights[0] != 0).all()
    backward(np.ones((4, 3)))
    assert (mlp._weight_gradients[1] != 0).any()  # with zeros in the layer before as well, no gradient would leave 0


def test_mlp_refuses_other_dtypes():
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got int64"):
        MLP((2, 1), dtype=np.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (((3,),), ValueError, "sizes must name"),
        (((),), ValueError, "sizes must name"),
        (((2, 0, 1),), ValueError, r"sizes\[1\] must be at least 1"),
        (((2, 1.5),), TypeError, "must be an integer"),
        (((2, True),), TypeError, "must be an integer"),
        (((2, 1), "relu"), ValueError, "activation must be one of 'silu', 'tanh', 'identity', got 'relu'"),
        (((2, 1), "silu", -1), ValueError, "rng must be a non-negative seed"),
        (((2, 1), "silu", np.random.RandomState(0)), TypeError, "rng must be"),
    ],
)
def test_mlp_refuses_invalid_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        MLP(*arguments)


def test_layers_of_a_copied_or_unpickled_network_are_views_of_its_own_parameters():
    original = MLP((2, 3, 1), rng=0)
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        twin.parameters[:] = 0
        assert not np.any(twin(np.ones((1, 2))))
        twin.vjp(np.ones((1, 2)))[1](np.ones((1, 1)))
        assert np.any(twin.gradient)
    assert np.any(original.parameters)
