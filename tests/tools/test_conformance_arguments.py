"""The callables under test: their number and order of arguments is checked before a call, by their signature."""

import functools

import numpy as np
import pytest
import scipy.sparse

from scratchgen import Mixture, NoiseSchedule
from scratchgen.conformance import (
    check_bits_per_dim,
    check_em,
    check_forward_process,
    check_loss_weights,
    check_moving_average,
    check_posterior,
)
from scratchgen.conformance.arguments import check_callable, on_copies
from scratchgen.conformance.result import compare
from scratchgen.ddpm import q_sample

STEP = "step(t, s, x_t, eps_hat, noise); t counts 1..T"


class Module:
    """As a module of torch: any arguments by its signature."""

    def __call__(self, *args, **kwargs):
        return args


@pytest.mark.parametrize(
    "step",
    [
        lambda *a: a,
        lambda t, s, x_t, eps_hat, noise: x_t,
        lambda time, target, x, prediction, z: x,
        lambda s, t, x, e, z: x,  # s for the start
        lambda t, s, x, e, z=None, eta=0.0, t0=1: x,
        lambda *a, t=3: a,
        Module(),
        max,
    ],
)
def test_what_can_be_called_passes(step):
    check_callable(step, STEP)


@pytest.mark.parametrize(
    ("step", "got"),
    [
        (None, "NoneType"),
        (np.zeros(3), "ndarray"),
        (lambda t, x: x, r"the parameters \(t, x\)"),
        (lambda t, s, x, e, z, more: x, "the parameters"),
        (lambda t, s, x, e, z, *, more: x, "the parameters"),
        (lambda x_t, eps_hat, noise, t, s: x_t, "another order"),
        (lambda x, t, s, e, z: x, "another order"),
        (lambda a, b, t, c, d: a, "another order"),
    ],
)
def test_what_cannot_be_called_is_refused_with_the_call(step, got):
    with pytest.raises(TypeError, match=rf"^step must be callable as step\(t, s, x_t, eps_hat, noise\); t .*{got}"):
        check_callable(step, STEP)


SCHEDULE = NoiseSchedule(np.array([0.1, 0.3, 0.2, 0.4]))


def right(t, x0, noise):
    return q_sample(SCHEDULE, t, x0, noise)


@pytest.mark.parametrize("wrap", [lambda f: f, functools.partial], ids=["function", "partial"])
def test_code_that_writes_into_its_arguments_is_judged_on_copies_and_says_so(wrap):
    def in_place(t, x0, noise):
        value = right(t, x0, noise)
        noise[:] = 0
        return value

    with pytest.warns(UserWarning, match="q_sample changes its argument noise in place; it got copies"):
        assert check_forward_process(wrap(in_place), SCHEDULE)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "got None; does the function end without a return"),
        ("text", "got str"),
        ({"x": 1}, "got a dict"),
        ((z for z in "ab"), "got a generator"),
        (scipy.sparse.eye(3, format="csr"), "got a sparse csr"),
        ((np.zeros(3), np.zeros(2)), "got tuple: .*inhomogeneous"),
    ],
)
def test_what_is_no_array_is_named(value, got):
    with pytest.raises(ValueError, match=f"q_sample must return an array .*{got}"):
        check_forward_process(lambda t, x0, noise: value, SCHEDULE)


@pytest.mark.parametrize(
    ("value", "got"), [("ab", "str"), ({1: 2, 3: 4}, "a dict"), (3.0, "one float"), (None, "None")]
)
def test_what_is_no_pair_is_named(value, got):
    with pytest.raises(ValueError, match=f"q_posterior must return .* arrays, got {got}"):
        check_posterior(lambda t, x_t, x0: value, SCHEDULE)


def test_half_precision_and_another_schedule_are_refused():
    with pytest.raises(TypeError, match=r"q_sample must return float32 or float64, got float16, .* 3 digits"):
        check_forward_process(lambda *a: right(*a).astype(np.float16), SCHEDULE)
    with pytest.raises(TypeError, match=r"schedule must be a NoiseSchedule, got None; pass NoiseSchedule\(variances\)"):
        check_forward_process(right, None)


def test_an_optimiser_may_change_its_parameters_in_place():
    def average(start, parameters):
        path = []
        for n, row in enumerate(parameters, 1):
            decay = min(0.9, (1 + n) / (10 + n))
            start *= decay
            start += (1 - decay) * row
            path.append(start.copy())
        return path

    assert check_moving_average(average, np.array([1.0, 2.0]), np.arange(6.0).reshape(3, 2) ** 2, 0.9)


def test_names_among_the_arguments_stay_names():
    ones = np.append(0.0, np.ones(SCHEDULE.T))
    for names in (("simple",), ["simple"], ("simple", "simple")):
        assert check_loss_weights(lambda name: ones, SCHEDULE, SCHEDULE.beta**2, weightings=names)
        assert not check_loss_weights(lambda name: 2 * ones, SCHEDULE, SCHEDULE.beta**2, weightings=names)


def test_one_parameter_has_no_wrong_order():
    check_callable(lambda x: x, "diffusion(t)")
    with pytest.raises(TypeError, match="another order"):
        check_callable(lambda x, t: x, "drift(t, x)")


def test_bits_of_large_pictures_do_not_underflow():
    """scale^D = 256⁻³⁰⁷² is 0 in float64; its logarithm is not."""
    masses = np.array([1e-300, 0.25, 0.5])
    check = check_bits_per_dim(lambda nats, D, scale: nats / (D * np.log(2)) - np.log2(scale), masses, 3072, 1 / 256)
    assert check, check.diagnosis
    assert not check_bits_per_dim(lambda nats, D, scale: nats / (D * np.log(2)), masses, 3072, 1 / 256)


def test_the_simplest_name_is_told():
    mistakes = {
        "a; b": lambda: [2.0, 3.0],
        "b; a": lambda: [2.0, 3.0],
        "a": lambda: [2.0, 3.0],
        "a, twice": lambda: [2, 3],
    }
    assert compare("c", "(0)", "q", [2.0, 3.0], [1.0, 2.0], 1e-9, mistakes).diagnosis.endswith("; a")
    other = {"a; b": lambda: [2.0, 3.0], "a; c": lambda: [2.0, 3.0]}
    assert compare("c", "(0)", "q", [2.0, 3.0], [1.0, 2.0], 1e-9, other).diagnosis.endswith("; a; b; or: a; c")


def test_a_mistake_of_the_e_step_must_explain_the_whole_step():
    """The tied covariance about the mean of the data is also that after an E-step of the prior; the means are not."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((30, 2)), np.array([0.3, 0.7])
    means, covariances = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([np.eye(2)] * 2)

    def step(x, *theta):
        resp = np.exp(Mixture(*theta).log_joint(x))
        resp /= resp.sum(axis=1, keepdims=True)
        counts = resp.sum(axis=0)
        return counts / len(x), resp.T @ x / counts[:, None], np.array([np.cov(x.T, bias=True)] * 2)

    told = check_em(step, x, weights, means, covariances, covariance_type="tied").diagnosis
    assert told.endswith("; they are taken about the mean of the data")


class WithoutSignature:
    """A function whose signature Python does not know, as of some compiled modules."""

    __signature__ = "q_sample(t, x0, noise)"

    def __call__(self, t, x0, noise):
        noise[:] = 0.0


def test_an_argument_without_a_name_is_named_by_its_number():
    given = [1, np.ones(2), np.ones(2)]
    with pytest.warns(UserWarning, match="q_sample changes its argument number 3 in place; it got copies"):
        on_copies(WithoutSignature(), "q_sample")(*given)
    assert (given[2] == 1).all()
