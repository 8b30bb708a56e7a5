"""Activations: values, slopes and curvatures; the fast forms of SiLU against the readable form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from scratchgen import MLP
from scratchgen.fast import silu as fast
from scratchgen.nn.activations import ACTIVATIONS, silu, silu_curvature
from tests.strategies import residual, slope

DTYPES = [np.float32, np.float64]


@pytest.fixture(params=[True, False], ids=["by tanh", "by exp"])
def form(request, monkeypatch):
    """Both formulas of the sigmoid, whichever is faster on this machine."""
    monkeypatch.setattr(fast, "TANH_IS_FAST", request.param)


def hard_inputs(dtype):
    """Ordinary, huge, tiny, subnormal and infinite numbers, both zeros, and points of saturation."""
    info = np.finfo(dtype)
    edges = [0.0, info.smallest_subnormal, 5 * info.smallest_subnormal, info.tiny, info.eps, 1e-3, 1.0, 17.0, 37.0]
    edges += [88.0, 89.0, 104.0, 709.0, 710.0, 746.0, 1e4, 1e30, info.max, np.inf]
    points = np.concatenate([np.linspace(0, 40, 2001), np.geomspace(float(info.tiny), 1e30, 500), edges])
    return np.concatenate([points, -points]).astype(dtype)


def assert_fast_forms_are_the_readable_ones(z):
    """Equal up to a few ε of |z| or of 1; NaN for the product of infinity and 0."""
    dtype, eps = z.dtype, 4 * np.finfo(z.dtype).eps
    with np.errstate(invalid="ignore", under="ignore"):  # overflow and division by 0 stay errors
        readable, slope_readable = silu(z)
        value, (same, slope_fast) = fast.silu(z.copy()), fast.silu_and_slope(z.copy())
    assert {value.dtype, same.dtype, slope_fast.dtype, readable.dtype} == {dtype}
    assert np.array_equal(value, same, equal_nan=True)  # a call without and with slopes has the same bits
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.maximum(np.abs(z), 1)
        for left, right in (value, readable), (slope_fast, slope_readable):
            close = np.abs(left - right) <= eps * size
            assert (close | (left == right) | (np.isnan(left) & np.isnan(right))).all()


@pytest.mark.equation("silu-in-place")
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("dtype", DTYPES)
def test_fast_forms_are_the_readable_ones_on_hard_inputs(dtype):
    z = hard_inputs(dtype)
    assert_fast_forms_are_the_readable_ones(z)
    assert np.array_equal(np.isnan(silu_of(z)), np.isneginf(z))  # −∞ · 0


def silu_of(z):
    with np.errstate(invalid="ignore"):
        return fast.silu(z.copy())


@pytest.mark.parametrize("tanh", [True, False])
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=32))
def test_fast_forms_are_the_readable_ones_on_any_numbers(tanh, numbers):
    kept, fast.TANH_IS_FAST = fast.TANH_IS_FAST, tanh
    try:
        for dtype in DTYPES:
            assert_fast_forms_are_the_readable_ones(np.array(numbers, dtype=dtype))
    finally:
        fast.TANH_IS_FAST = kept


@pytest.mark.equation("silu-in-place")
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("dtype", DTYPES)
def test_fast_forms_work_in_place(dtype):
    z = np.linspace(-3, 3, 7).astype(dtype)
    assert fast.silu(z) is z
    assert fast.silu_and_slope(z)[0] is z


@pytest.mark.equation("silu")
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 5e-6)])
def test_silu_and_its_derivative_are_the_closed_forms(dtype, tolerance):
    z = np.concatenate([np.linspace(-40, 40, 4001), [-1e4, -1e3, -750.0, -100.0, -88.0, 100.0, 1e3, 1e4]]).astype(dtype)
    exact, s = z.astype(np.float64), expit(z.astype(np.float64))
    for value, derivative in silu(z), fast.silu_and_slope(z.copy()), one_silu(z):
        assert value.dtype == derivative.dtype == dtype
        assert residual(value, exact * s) < tolerance
        assert residual(derivative, s * (1 + exact * (1 - s))) < tolerance


def one_silu(z):
    """σ(z) and σ'(z) of a network with one unit, in the dtype of z."""
    mlp = MLP((1, 1, 1), "silu", rng=0, dtype=z.dtype)
    mlp.parameters[:] = [1, 0, 1, 0]
    value, backward = mlp.vjp(z[:, None])
    assert np.array_equal(mlp(z[:, None]), value)  # the same bits with and without slopes
    return value[:, 0], backward(np.ones((len(z), 1)), inputs=True)[:, 0]


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_has_its_limits_without_a_warning(dtype):
    z = np.array([-1e4, -200.0, 0.0, 200.0, 1e4], dtype=dtype)
    with np.errstate(all="raise", under="ignore"):
        for value, derivative in one_silu(z), silu(z):
            assert (abs(value - [0, 0, 0, 200, 1e4]) < 1e-80).all()
            assert (abs(derivative - [0, 0, 0.5, 1, 1]) < 1e-80).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(st.integers(0, 2**32 - 1))
def test_slope_and_curvature_are_derivatives(name, seed):
    activation, z = ACTIVATIONS[name], np.random.default_rng(seed).uniform(-6, 6, 9)
    value, derivative = activation.value_and_slope(z.copy())
    assert residual(value, activation.value(z.copy())) == 0
    assert residual(derivative, slope(lambda h: activation.value(z + h), 1e-3)) < 1e-10
    assert residual(activation.curvature(z), slope(lambda h: activation.value_and_slope(z + h)[1], 1e-3)) < 1e-10


@pytest.mark.usefixtures("form")
def test_curvature_of_silu_is_1_half_at_0_and_vanishes_far_away():
    assert residual(silu_curvature(np.array([0.0, -800.0, 800.0])), [0.5, 0.0, 0.0]) < 1e-15
