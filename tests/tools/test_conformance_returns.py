"""Return values that are no arrays or not finite: the message says what came, and blames the code, not the problem."""

import warnings

import numpy as np
import pytest
from scipy import sparse

from scratchgen.conformance import (
    audit,
    check_covariance_types,
    check_e_step,
    check_em,
    check_em_loop,
    check_kmeans,
    check_sde,
    check_table_em,
)
from scratchgen.conformance.em import log_joint_by_inverses, normalised
from scratchgen.conformance.instances import result
from scratchgen.equations import EQUATIONS, PROPOSITIONS, check, find
from scratchgen.sde import VP

X = np.random.default_rng(0).standard_normal((20, 2))
STATE = np.array([0.4, 0.6]), np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([np.eye(2)] * 2)

NO_ARRAYS = {
    "None": (None, "got None; does the function end without a return statement"),
    "dict": ({"weights": 1, "means": 2}, r"got a dict with the keys \['weights', 'means'\]; return its values"),
    "sparse": (sparse.csr_matrix(np.eye(2)), r"got a sparse csr_matrix; return \.toarray\(\)"),
    "str": ("0.5", "got str '0.5'; return "),
    "set": ({1, 2}, r"got set \{1, 2\}; return "),
}
ONE = {
    "generator": ((i for i in range(3)), "got a generator; return a list or an array"),
    "complex": (np.ones(3) * 1j, "got ndarray: its dtype is complex128; return an array of real numbers"),
    "a None in a list": ([1.0, None], "got list: .*NoneType.*; return an array of real numbers"),
    "a text in an array": (np.array(["1", "2"]), "got ndarray: its dtype is <U1; return an array of real numbers"),
}
SEVERAL = {
    "2 results": ((1, 2), r"got 2 \(tuple\); return a tuple of 3 arrays"),
    "a number": (3.0, r"got one float, 3\.0; return a tuple of 3 arrays"),
    "a None": ((1.0, None, 2.0), "result 2 must be an array of real numbers, got None; does"),
    "a text": ((1.0, [2.0], "a"), "result 3 must be an array of real numbers, got str 'a'; return"),
    "ragged": ((1.0, [2.0], [[1], [1, 2]]), "result 3 must be an array of real numbers, got list: .*; return"),
}


@pytest.mark.parametrize(("value", "message"), {**NO_ARRAYS, **ONE}.values(), ids={**NO_ARRAYS, **ONE})
def test_what_is_no_array_is_refused_by_name(value, message):
    for name, call in {
        "responsibilities must return a number or an array": lambda: check_e_step(lambda *a: value, X, *STATE),
        "drift must return an array of shape \\(5, 3\\)": lambda: check_sde(
            lambda t: (1.0, 0.1), lambda x, t: value, lambda t: 1.0, 1.0
        ),
        "diffusion must be one number": lambda: check_sde(lambda t: (1.0, 0.1), lambda x, t: -x, lambda t: value, 1.0),
        "the centres must be an array of real numbers": lambda: check_kmeans(lambda *a: value, X, STATE[1]),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}.*, {message}"):
            call()


@pytest.mark.parametrize(("value", "message"), {**NO_ARRAYS, **SEVERAL}.values(), ids={**NO_ARRAYS, **SEVERAL})
def test_what_is_not_the_right_number_of_arrays_is_refused_by_name(value, message):
    with pytest.raises(ValueError, match=f"^step must return 3 arrays.*{message}"):
        check_em(lambda *a: value, X, *STATE)


@pytest.mark.parametrize("value", [0.5, {"scale": 1}, None, (1.0,), (1.0, 2.0, 3.0)], ids=repr)
def test_a_marginal_is_two_numbers(value):
    with pytest.raises(ValueError, match=r"^marginal must return 2 arrays, got .*; (return|does)"):
        check_sde(lambda t: value, lambda x, t: -x, lambda t: 1.0, 1.0)


@pytest.mark.parametrize("value", [(1, 2), {"weights": 1}, None, 3.0], ids=repr)
def test_audit_says_what_an_m_step_must_return(value):
    (row,) = audit(m_step=lambda x, r: value).rows
    assert "m_step must return three results, (weights, means, covariances), got " in row.diagnosis


def test_numbers_of_any_kind_are_arrays():
    for value in 2, 2.0, True, np.float32(2), [1, 2.0], (1, 2), np.array([1, 2], dtype=object), [[1], [2]]:
        assert result(value, "f").dtype == np.float64


# --- a ridge or a floor that hides the covariances ----------------------------------------------------------------


def em_step(x, weights, means, covariances, change="", floor=0.0, ridge=0.0, dtype=np.float64):
    """One step of EM, or one with a mistake in the covariances."""
    resp = normalised(log_joint_by_inverses(x, weights, means, covariances))
    counts = resp.sum(axis=0)
    centres = resp.T @ x / counts[:, None]
    apart = x[:, None] - (means if change == "old means" else centres)
    spread = np.einsum("nk,nkd,nke->kde", resp / (counts - (change == "N_k − 1")), apart, apart)
    if change == "diagonal":
        spread = spread * np.eye(2)
    values, vectors = np.linalg.eigh(spread)
    raised = np.einsum("kde,ke,kfe->kdf", vectors, np.maximum(values, floor), vectors) + ridge * np.eye(2)
    if change == "never finite" or (change == "NaN later" and not np.array_equal(means, STATE[1])):
        raised = raised * np.nan
    return tuple(part.astype(dtype).astype(np.float64) for part in (counts / len(x), centres, raised))


@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0, 1e3, 1e6, 1e12, 1e20])
@pytest.mark.parametrize("kind", ["ridge", "floor"])
def test_a_large_ridge_or_floor_does_not_hide_the_covariances(kind, size):
    """With x as it is, every covariance is the ridge in float32, and from 1e12 on in float64 as well."""
    for change in "", "N_k − 1", "old means", "diagonal":
        double = check_em(lambda *a, c=change: em_step(*a, c, **{kind: size}), X, *STATE, **{kind: size})
        single = check_em(
            lambda *a, c=change: em_step(*a, c, dtype=np.float32, **{kind: size}), X, *STATE, **{kind: size}
        )
        assert bool(double) == bool(single.at(1e-5)) == (not change), change
        if change == "N_k − 1":
            assert "they are divided by N_k − 1" in double.diagnosis
        if change and size > 1:
            assert ", with x times " in double.diagnosis


@pytest.mark.parametrize("change", ["never finite", "NaN later"])
def test_a_step_that_becomes_nan_fails_and_the_problem_is_not_blamed(change):
    found = check_em(lambda *a: em_step(*a, change), X, *STATE)
    assert not found
    assert " is nan, expected " in found.diagnosis


# --- results that are not finite ----------------------------------------------------------------------------------


def spoilt(value, number, everywhere):
    """`value` of a function with NaN or inf in place of all numbers, or of the last one."""
    if isinstance(value, tuple):
        parts = [spoilt(part, number, everywhere) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, float):
        return number
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        value = value.copy()
        value.flat[0 if everywhere else -1 :] = number
    return value


@pytest.mark.parametrize(("number", "everywhere"), [(np.nan, True), (np.inf, False)], ids=["NaN", "one inf"])
@pytest.mark.parametrize("row", EQUATIONS + PROPOSITIONS, ids=lambda row: row.name)
def test_a_result_that_is_not_finite_is_the_fault_of_the_code(row, number, everywhere):
    """The check fails and says so: no error, above all none that asks for another problem."""
    f = find(row.function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert check(row, {row.function: lambda *a, **k: spoilt(f(*a, **k), number, everywhere)}).left is not None


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["marginal", "drift", "diffusion"])
@pytest.mark.parametrize("late", [False, True])
def test_an_sde_that_is_not_finite_fails(place, number, late):
    right = {"marginal": VP().marginal, "drift": VP().drift, "diffusion": VP().diffusion}

    def wrong(*arguments):
        value = right[place](*arguments)
        return spoilt(value, number, everywhere=True) if not late or np.max(arguments[-1]) > 0.4 else value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = check_sde(**{**right, place: wrong}, horizon=1.0)
    assert not result
    assert "nan" in result.diagnosis or "inf" in result.diagnosis or "not finite" in result.diagnosis


@pytest.mark.parametrize("floor", [-1.0, np.nan, 1e3, 1e12])
def test_a_floor_that_hides_every_covariance_is_refused_where_x_is_fixed(floor):
    spread = np.array([np.eye(2), [[2.0, 0.3], [0.3, 1.0]]])
    with pytest.raises(
        ValueError, match=r"^floor must be in \[0, 2\.08\), below the largest variance, got .*; lower it"
    ):
        check_covariance_types(lambda *a: spread, spread, np.array([3.0, 4.0]), floor)
    with pytest.raises(ValueError, match=r"^floor must be in \[0"):
        check_em_loop(lambda: (0.0, *STATE), X, *STATE, 2, floor)


@pytest.mark.parametrize("count", [-1.0, np.nan, 1e9])
def test_pseudo_counts_that_hide_the_examples_are_refused(count):
    tables = np.full((1, 2, 2), 0.5)
    with pytest.raises(ValueError, match=r"^pseudo_counts must be in \[0, 400\] for 4 examples, .*; lower them"):
        check_table_em(lambda *a: None, np.zeros((4, 2)), np.ones(1), tables, np.full((2, 2), count))
