"""Adam, the moving average and the learning rate against their formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Adam
from scratchgen.nn.adam import BLOCK, EMA, check_step, check_update, cosine_decay
from tests.strategies import residual


def textbook_adam(parameters, gradients, rates, beta1, beta2, epsilon, weight_decay):
    """Algorithm 1 of Kingma and Ba, with the weight decay of Loshchilov and Hutter."""
    m, v = np.zeros_like(parameters), np.zeros_like(parameters)
    for n, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
        parameters = parameters - rate * (m_hat / (np.sqrt(v_hat) + epsilon) + weight_decay * parameters)
    return parameters


@pytest.mark.equation("adam")
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 0.99),
    st.floats(0, 0.9999),
    st.sampled_from([1e-8, 1e-3, 1.0]),
    st.sampled_from([0.0, 0.01, 1.0]),
)
def test_adam_is_the_printed_algorithm(seed, beta1, beta2, epsilon, weight_decay):
    """200 steps.  An ε of the size of the gradients shows its place; a decay of 1 shows its factor."""
    rng = np.random.default_rng(seed)
    start, gradients = rng.standard_normal(7), rng.standard_normal((200, 7)) * np.exp(rng.uniform(-5, 5, 7))
    rates = rng.uniform(0, 0.1, 200)
    parameters = start.copy()
    adam = Adam(parameters, 99.0, beta1, beta2, epsilon, weight_decay)
    for g, rate in zip(gradients, rates, strict=True):
        adam.step(g, rate)
    assert adam.n_steps == 200
    assert residual(parameters, textbook_adam(start, gradients, rates, beta1, beta2, epsilon, weight_decay)) < 1e-12


def test_adam_moves_every_block_of_many_parameters():
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(2 * BLOCK + 3), rng.standard_normal((3, 2 * BLOCK + 3))
    parameters = start.copy()
    adam = Adam(parameters, 0.01, weight_decay=0.1)
    for g in gradients:
        adam.step(g)
    assert residual(parameters, textbook_adam(start, gradients, [0.01] * 3, 0.9, 0.999, 1e-8, 0.1)) < 1e-12


def test_adam_changes_the_array_it_was_given_and_nothing_else():
    parameters, gradient = np.ones(4), np.arange(4.0)
    view = parameters[:2]
    adam = Adam(parameters)
    adam.step(gradient)
    assert adam.parameters is parameters
    assert view[1] < 1
    assert gradient.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("rate", [0.1, np.float64(0.1)])
def test_adam_keeps_float32_and_agrees_with_float64(rate):
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(20), rng.standard_normal((100, 20))
    results = []
    for dtype in np.float32, np.float64:
        parameters = start.astype(dtype)
        adam = Adam(parameters, weight_decay=0.1)
        for g in gradients.astype(dtype):
            adam.step(g, rate)
        assert {parameters.dtype, adam.m.dtype, adam.v.dtype} == {np.dtype(dtype)}
        results.append(parameters)
    assert residual(*results) < 1e-5


@pytest.mark.parametrize("name", ["learning_rate", "beta1", "beta2", "epsilon", "weight_decay"])
def test_adam_refuses_invalid_arguments(name):
    for value, error in (-0.1, ValueError), (np.nan, ValueError), ("1", TypeError):
        with pytest.raises(error, match=name):
            Adam(np.zeros(2), **{name: value})
    if name.startswith("beta"):
        with pytest.raises(ValueError, match=name):
            Adam(np.zeros(2), **{name: 1.0})


# --- overflow ---------------------------------------------------------------------------------------------

MOST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(("n_steps", "kept"), [(0, "from before the training"), (4, "after step 4")])
@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 1.01 * MOST**0.5])
def test_an_update_that_overflows_is_undone_in_all_networks(wrong, n_steps, kept):
    first, second = np.ones(3, np.float32), np.zeros(2, np.float32)
    updates = [(first, first.copy()), (second, second.copy())]
    first += 1
    second[1] = wrong
    message = rf"^training diverged in step {n_steps + 1}: .* overflows, and the parameters are those {kept}; lower"
    with np.errstate(over="ignore"), pytest.raises(ArithmeticError, match=message):
        check_update(n_steps, updates)
    assert (first.tolist(), second.tolist()) == ([1, 1, 1], [0, 0])


def test_an_update_is_kept_if_the_squared_length_does_not_overflow():
    parameters = np.full(4, 0.49 * MOST**0.5, np.float32)
    check_update(0, [(parameters, np.zeros(4, np.float32))])
    assert (parameters > 0.48 * MOST**0.5).all()


def test_parameters_that_pass_have_a_finite_average():
    largest = np.array([0.99 * MOST**0.5, 0.0], np.float32)
    ema = EMA(largest.copy())
    for sign in (-1, 1, 1, -1) * 50:
        check_update(0, [(sign * largest, largest)])
        ema.update(sign * largest)
    assert np.abs(ema.average).max() <= 1.001 * largest[0]


def test_gradients_that_pass_keep_the_moments_of_adam_finite():
    """v of equal gradients rises to 1/(1 − β₂) = 1000 squares: half the room that `check_step` leaves."""

    def moments(square, n):
        gradient = np.array([square**0.5, 0.0], np.float32)
        adam = Adam(np.zeros(2, np.float32))
        for step in range(n):
            check_step(step, 0.0, gradient)
            adam.step(gradient)
        return adam.m[0], adam.v[0]

    m, v = moments(MOST / 2001, 12_000)
    assert v == pytest.approx(0.5 * MOST, rel=2e-3)
    assert m == pytest.approx(10 * (MOST / 2001) ** 0.5, rel=1e-3)
    with np.errstate(over="ignore"), pytest.raises(ArithmeticError, match="step 1: the gradient overflows"):
        moments(MOST / 1999, 1)


@pytest.mark.parametrize("rate", [1e39, 1e300])
def test_a_step_of_adam_alone_warns_when_it_overflows(rate):
    parameters = np.ones(2, np.float32)
    with np.errstate(over="warn"), pytest.warns(RuntimeWarning, match="overflow encountered in cast"):
        Adam(parameters).step(parameters.copy(), rate)
    assert not np.isfinite(parameters).any()


# --- moving average ---------------------------------------------------------------------------------------


@pytest.mark.equation("moving-average")
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.999), st.integers(1, 60))
def test_moving_average_is_its_closed_form(seed, decay, n):
    """Σ_i (1 − d_i) d_{i+1} ⋯ d_n θ_i + d_1 ⋯ d_n θ_0 with d_i = min(decay, (1 + i)/(10 + i))."""
    rng = np.random.default_rng(seed)
    start, path = rng.standard_normal(3), rng.standard_normal((n, 3))
    decays = [min(decay, (1 + i) / (10 + i)) for i in range(1, n + 1)]
    weights = [np.prod(decays)] + [(1 - decays[i]) * np.prod(decays[i + 1 :]) for i in range(n)]
    assert abs(sum(weights) - 1) < 1e-12
    average = start.copy()
    ema = EMA(average, decay)
    for parameters in path:
        ema.update(parameters)
    assert ema.average is average
    assert residual(average, np.array(weights) @ np.vstack([start, path])) < 1e-12


def test_moving_average_without_decay_is_a_copy():
    average = np.zeros(3, dtype=np.float32)
    ema = EMA(average, 0)
    for parameters in np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32):
        ema.update(parameters)
        assert average.tobytes() == parameters.tobytes()
        assert not np.shares_memory(average, parameters)


def test_moving_average_keeps_float32():
    average = np.zeros(3, dtype=np.float32)
    EMA(average).update(np.ones(3, dtype=np.float32))
    assert average.dtype == np.float32
    assert residual(average, np.full(3, 9 / 11)) < 1e-6


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, np.nan])
def test_moving_average_refuses_an_invalid_decay(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(np.zeros(2), decay)


# --- learning rate ----------------------------------------------------------------------------------------


@pytest.mark.equation("learning-rate")
def test_cosine_decay_has_exact_ends_and_middle():
    assert cosine_decay(0, 1000, 0.3) == 0.3
    assert abs(cosine_decay(500, 1000, 0.3) - 0.15) < 1e-15
    assert abs(cosine_decay(250, 1000, 0.3) - 0.15 * (1 + 0.5**0.5)) < 1e-15
    assert abs(cosine_decay(1000, 1000, 0.3)) < 1e-15
    assert cosine_decay(999, 1000, 0.3) > 0


@pytest.mark.equation("learning-rate")
def test_cosine_decay_warms_up_linearly():
    assert [round(cosine_decay(step, 100, 1.0, warmup=4), 12) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert abs(cosine_decay(4 + 48, 100, 1.0, warmup=4) - 0.5) < 1e-15
    assert abs(cosine_decay(100, 100, 1.0, warmup=4)) < 1e-15


@given(st.integers(1, 50), st.integers(0, 60), st.floats(1e-6, 1))
def test_cosine_decay_rises_then_falls_and_is_never_0_while_training(n_steps, warmup, rate):
    rates = np.array([cosine_decay(step, n_steps, rate, warmup) for step in range(n_steps)])
    assert (rates > 0).all()
    assert rates.max() <= rate * (1 + 1e-15)
    assert (np.diff(rates[:warmup]) > 0).all()
    assert (np.diff(rates[warmup:]) < 0).all()
    assert isinstance(cosine_decay(0, n_steps, rate, warmup), float)
