"""Return values that are no arrays: every error says what must be returned, what came and what to do."""

import numpy as np
import pytest
from scipy import sparse

from scratchgen.conformance import audit, check_e_step, check_em, check_kmeans, check_sde
from scratchgen.conformance.instances import result

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
    assert "m_step must return 3 arrays, got " in row.diagnosis


def test_numbers_of_any_kind_are_arrays():
    for value in 2, 2.0, True, np.float32(2), [1, 2.0], (1, 2), np.array([1, 2], dtype=object), [[1], [2]]:
        assert result(value, "f").dtype == np.float64
