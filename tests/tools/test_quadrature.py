"""Quadrature in place of random draws: each rule is exact up to its degree, and not beyond."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from scratchgen.quadrature import affine_map, central_difference, gauss_hermite, integrate, sigma_points, tanh_sinh
from scratchgen.testing import cut, reals, size
from tests.strategies import residual


@given(st.integers(1, 5), reals(size((5,), (5, 5)), -2, 2), st.floats(-2, 2))
def test_sigma_points_integrate_quadratics(d, flat, c):
    """E[xᵀAx + bᵀx + c] = tr A + c for x ~ N(0, I), but not E x_1⁴ = 3."""
    b, A = cut(flat, (5,), (5, 5))
    b, A, points = b[:d], A[:d, :d], sigma_points(d)
    assert points.shape == (2 * d, d)
    values = np.einsum("nd,de,ne->n", points, A, points) + points @ b + c
    assert residual(values.mean(), np.trace(A) + c) < 1e-14
    assert (points[:, 0] ** 4).mean() == pytest.approx(d, rel=1e-14)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_gauss_hermite_has_the_moments_of_the_normal_law(dimension):
    nodes, weights = gauss_hermite(10, dimension)
    assert nodes.shape == (10**dimension, dimension)
    assert weights.sum() == pytest.approx(1, rel=1e-14)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15), (18, 34459425)):
        for axis in range(dimension):
            assert weights @ nodes[:, axis] ** power == pytest.approx(moment, rel=1e-11, abs=1e-9)
    if dimension > 1:
        assert weights @ (nodes[:, 0] ** 2 * nodes[:, 1] ** 4) == pytest.approx(3, rel=1e-12)


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_gauss_hermite_integrates_sines(a, b):
    """E sin(a z + b) = sin(b) e^(−a²/2), with the 28 nodes of the checks."""
    nodes, weights = gauss_hermite(28, 1)
    assert weights @ np.sin(a * nodes[:, 0] + b) == pytest.approx(np.sin(b) * np.exp(-(a**2) / 2), abs=1e-14)


def test_central_difference_is_of_sixth_order():
    """Exact for polynomials up to x⁶, and the error of a sine falls by 2⁶ when h is halved."""
    for power in range(7):
        derivative = central_difference(lambda step, n=power: (0.7 + step) ** n, 0.1)
        assert derivative == pytest.approx(power * 0.7 ** (power - 1), abs=1e-12)
    errors = [abs(central_difference(lambda step: np.sin(0.7 + step), h) - np.cos(0.7)) for h in (0.4, 0.2, 0.1)]
    assert np.diff(np.log(errors)) / np.log(2) == pytest.approx(-6, abs=0.1)


@given(st.integers(1, 4), reals(size((4, 4), (4,)), -3, 3))
def test_affine_map_reads_off_matrix_and_constant(d, flat):
    A, c = (part[:d] for part in cut(flat, (4, 4), (4,)))
    A = A[:, :d]
    matrix, constant = affine_map(lambda x: x @ A.T + c, d)
    assert residual(matrix, A) < 1e-14
    assert np.array_equal(constant, c)


# --- integrals over time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
def test_tanh_sinh_sees_every_time_scale_near_the_lower_end(scale):
    """∫ s dt/(s + t)² from 0 to 3 is 3/(3 + s): the mass lies at t of the order of s."""
    value = tanh_sinh(lambda t: scale / (scale + t) ** 2, 0.0, 3.0, 1e-6, "f")
    assert value == pytest.approx(3 / (3 + scale), rel=1e-12)


def test_tanh_sinh_takes_each_of_its_1760_nodes_once_before_it_gives_up():
    """The nodes are y(u) = 1/(1 + exp(−π sinh u)) for u from −3.875 to 3, and halving adds those between."""
    nodes, rng = [], np.random.default_rng(0)
    with pytest.raises(ArithmeticError, match=r"^the integral of f from 0 to 1 does not settle to rtol = 1e-06"):
        tanh_sinh(lambda t: nodes.append(t) or rng.random(), 0.0, 1.0, 1e-6, "f")
    u = np.arange(-3.875, 3.0, 2.0**-8)
    assert len(nodes) == 1760
    assert np.sort(nodes) == pytest.approx(1 / (1 + np.exp(-np.pi * np.sinh(u))), rel=1e-10, abs=0)
    first = []
    tanh_sinh(lambda t: first.append(t) or 1.0, 0.0, 1.0, 1e-6, "f")
    assert first == nodes[: len(first)]
    assert first[:28] == pytest.approx(1 / (1 + np.exp(-np.pi * np.sinh(u[::64]))), rel=1e-10, abs=0)


def test_tanh_sinh_integrates_rows_and_singular_ends():
    value = tanh_sinh(lambda t: np.array([t**-0.5, np.cos(t), 0.0, -1.0]), 0.0, 2.0, 1e-6, "f")
    assert residual(value, np.array([8**0.5, np.sin(2.0), 0.0, -2.0])) < 1e-12
    assert tanh_sinh(lambda t: 1.0, 0.7, 0.7, 1e-6, "f") == 0
    assert tanh_sinh(np.exp, -1.0, 2.0, 1e-6, "f") == pytest.approx(np.exp(2) - np.exp(-1), rel=1e-12)


def test_tanh_sinh_waits_for_its_slowest_row():
    """cos 200t needs many more nodes than cos t."""
    counts = []
    for frequency in (1.0, 200.0):
        times = []
        f = lambda t, times=times, w=frequency: times.append(t) or np.cos([t, w * t])  # noqa: E731
        value = tanh_sinh(f, 0.0, 1.0, 1e-6, "f")
        assert residual(value, np.sin([1.0, frequency]) / [1.0, frequency]) < 1e-9
        counts.append(len(times))
    assert counts[1] >= 4 * counts[0]


# --- differential equations -------------------------------------------------------------------------------


def rotated(frequency, t, s, rtol):
    """Rows turning with these frequencies from (1, 0) at t, at time s, and the largest error of every row."""
    start = np.tile([1.0, 0.0], (len(frequency), 1))

    def slope(_, state):
        return frequency[:, None] * np.stack([-state[:, 1], state[:, 0]], axis=1)

    end = integrate(slope, t, s, start, rtol, "the rotation", "stop")
    angle = frequency * (s - t)
    return end, np.abs(end - np.stack([np.cos(angle), np.sin(angle)], axis=1)).max(axis=1)


@pytest.mark.parametrize(("t", "s"), [(0.0, 3.0), (2.0, -1.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-10])
def test_every_row_keeps_its_tolerance(t, s, rtol):
    """With the average over the batch as the norm, the fast row is wrong by 0.5 beside 20 000 slow ones at 1e-3."""
    fast = np.array([40.0])
    alone, error_alone = rotated(fast, t, s, rtol)
    batch, errors = rotated(np.concatenate([np.full(20_000, 0.1), fast]), t, s, rtol)
    assert error_alone[0] < 100 * rtol
    assert errors[-1] < 100 * rtol
    assert errors[:-1].max() < rtol
    assert np.abs(batch[-1] - alone[0]).max() < 10 * rtol


def test_a_row_does_not_depend_on_its_place():
    frequency = np.array([3.0, 0.5, 20.0, 0.0])
    end, _ = rotated(frequency, 0.0, 1.0, 1e-6)
    assert np.array_equal(rotated(frequency[::-1], 0.0, 1.0, 1e-6)[0], end[::-1])


def times_of_steps(slope, t, s, start, rtol):
    """Ends of all attempted steps: a step has 11 stages after its start, and one slope at its end if it is accepted."""
    calls = []
    end = integrate(lambda t, y: calls.append(t) or slope(t, y), t, s, start, rtol, "y", "stop")
    assert len(calls) % 12 == 1  # no step is refused
    return np.array(calls[::12]), end


@pytest.mark.parametrize(("t", "s"), [(0.0, 3.0), (2.0, -1.5)], ids=["forward", "backward"])
@pytest.mark.parametrize("rtol", [1e-4, 1e-7])
def test_steps_of_one_row_are_scipys_after_the_same_first_step(t, s, rtol):
    """SciPy's norm is the root mean square over the state; both have the factors .2 to 10 and the safety factor .9."""

    def slope(t, y):
        return np.stack([y[..., 1], -(1 + 0.5 * np.sin(t)) * y[..., 0]], axis=-1)

    times, end = times_of_steps(slope, t, s, np.array([[1.0, 0.5]]), rtol)
    first = abs(times[1] - times[0])
    theirs = solve_ivp(slope, (t, s), [1.0, 0.5], "DOP853", rtol=rtol, atol=rtol / 10, first_step=first)
    assert times == pytest.approx(theirs.t, rel=1e-9)
    assert residual(end[0], theirs.y[:, -1]) < 1e-9


def test_the_first_step_would_change_the_row_that_moves_most_by_a_tenth():
    """By a tenth of the size of the row, in units of .1 + |y|."""
    start, slopes = np.array([[2.0, -1.0], [0.3, 0.1]]), np.array([[3.0, 0.0], [1.0, 2.0]])
    times, end = times_of_steps(lambda t, y: slopes, 1.0, 5.0, start, 1e-6)
    change, size = ((np.abs(a) / (0.1 + np.abs(start))) ** 2 for a in (slopes, start))
    first = 1e-6 + 0.1 * np.sqrt(size.mean(axis=1).max() / change.mean(axis=1).max())
    assert times[1] - times[0] == pytest.approx(first, rel=1e-12)
    assert np.diff(times)[:-1] == pytest.approx(first * 10.0 ** np.arange(len(times) - 2), rel=1e-9)
    assert times[-1] == 5
    assert residual(end, start + 4 * slopes) < 1e-14
    times, _ = times_of_steps(lambda t, y: 0 * y, 2.0, -1.0, start, 1e-6)  # nothing moves: one step
    assert times.tolist() == [2, -1]


def test_an_integral_over_no_time_or_no_rows_is_the_start():
    start = np.ones((2, 1))
    assert integrate(lambda t, y: y, 0.3, 0.3, start, 1e-6, "y", "stop") is start
    assert integrate(lambda t, y: y, 0.0, 1.0, start[:0], 1e-6, "y", "stop").shape == (0, 1)
    assert np.array_equal(integrate(lambda t, y: 0 * y, 0.0, 1.0, start, 1e-6, "y", "stop"), start)


def test_the_last_step_ends_at_the_given_time_to_the_bit():
    """0.9 + (0.1 − 0.9) is not 0.1 in floating point, and the rest would be too short for a step."""
    t, s, start = 0.9, 0.1, np.ones((1, 1))
    assert t + (s - t) != s
    times, _ = times_of_steps(lambda t, y: 0 * y, t, s, start, 1e-6)
    assert times.tolist() == [t, s]
    assert np.array_equal(integrate(lambda t, y: 0 * y, t, s, start, 1e-6, "y", "stop"), start)


def test_a_singular_slope_ends_with_an_error():
    """y' = y² from 1 is infinite at t = 1."""
    with pytest.raises(ArithmeticError, match=r"^y could not be integrated: no step is short enough at t = 1; stop$"):
        integrate(lambda t, y: y**2, 0.0, 2.0, np.ones((1, 1)), 1e-8, "y", "stop")
