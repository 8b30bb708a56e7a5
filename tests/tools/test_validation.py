"""Checks of arguments: the accepted values, their dtype, and the message of every error."""

import numpy as np
import pytest
from scipy import sparse

from scratchgen.validation import (
    as_choice,
    as_count,
    as_finite,
    as_generator,
    as_number,
    as_samples,
    column,
    has_missing,
)

# --- rng --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, np.int64(7), np.uint8(0), 2**70], ids=repr)
def test_int_rng_is_numpys_seed(seed):
    assert np.array_equal(as_generator(seed).random(3), np.random.default_rng(seed).random(3))


def test_none_is_fresh_entropy():
    assert as_generator(None).random() != as_generator(None).random()


def test_generator_is_used_and_advanced_not_copied():
    rng = np.random.default_rng(3)
    assert as_generator(rng) is rng


def test_seed_sequence_is_accepted():
    sequence = np.random.SeedSequence(5)
    assert as_generator(sequence).random() == np.random.default_rng(np.random.SeedSequence(5)).random()


def test_global_state_is_neither_read_nor_written():
    def state():
        return np.random.get_state()[1].tobytes()  # noqa: NPY002

    before = state()
    as_generator(None).random()
    as_generator(0).random()
    assert state() == before


@pytest.mark.parametrize(
    "rng",
    [True, np.True_, 1.0, np.float64(1), np.random.RandomState(0), "1", np.float32(1), object(), 1 + 0j],
    ids=lambda rng: type(rng).__name__,
)
def test_rng_of_a_wrong_kind_is_a_type_error(rng):
    with pytest.raises(TypeError, match=r"^rng must be .*numpy\.random\.default_rng\(seed\)"):
        as_generator(rng)


@pytest.mark.parametrize("rng", [-1, np.int64(-5)], ids=repr)
def test_negative_seed_is_a_value_error(rng):
    with pytest.raises(ValueError, match=f"^rng must be a non-negative seed, got {rng}"):
        as_generator(rng)


# --- arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ([1, 2], np.float64),
        ([1.5], np.float64),
        (np.ones(2, np.float32), np.float32),
        (np.ones(2, np.float16), np.float64),
        (np.ones(2, np.uint8), np.float64),
        ([True, False], np.float64),
        (np.ones(2, ">f8"), np.float64),
    ],
)
def test_real_input_becomes_float64_but_float32_stays(given, dtype):
    array = as_finite(given, "x")
    assert array.dtype == dtype
    assert array.dtype.isnative
    assert np.array_equal(array, given)


def test_float64_array_is_not_copied():
    x = np.arange(3.0)
    assert np.shares_memory(as_finite(x, "x"), x)


@pytest.mark.parametrize("x", [["a"], [object()], [{}, 1.0]], ids=["str", "object", "dict"])
def test_array_that_is_not_real_is_a_type_error(x):
    with pytest.raises(TypeError, match=r"^some_name must be a real array, got dtype "):
        as_finite(x, "some_name")


def test_complex_numbers_are_a_value_error():
    with pytest.raises(ValueError, match=r"^some_name must be a real array, got dtype complex128"):
        as_finite([1j], "some_name")


def test_numbers_as_python_objects_are_numbers():
    assert np.array_equal(as_finite(np.array([1, 2.5, True], dtype=object), "x"), [1, 2.5, 1])
    for missing in None, [1.0, None]:
        with pytest.raises(TypeError, match=r"^x must be a real array, got dtype object"):
            as_finite(missing, "x")


def test_sparse_arrays_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"^x must be a dense array, sparse .*x\.toarray\(\)"):
        as_finite(sparse.eye_array(3), "x")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_not_finite_is_a_value_error_that_says_where(value, word):
    x = np.zeros((3, 4))
    x[1, 2] = x[2, 0] = value
    with pytest.raises(ValueError, match=rf"^some_name must be finite, but some_name\[1, 2\] is {word};"):
        as_finite(x, "some_name")


def test_ragged_rows_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^some_name must"):
        as_finite([[1.0], [1.0, 2.0]], "some_name")


@pytest.mark.parametrize("shape", [(3, 2), (1, 1)])
def test_samples_are_n_by_d(shape):
    assert as_samples(np.zeros(shape)).shape == shape


def test_pictures_are_told_to_reshape():
    with pytest.raises(ValueError, match=r"^x must have shape \(N, D\), got .*x\.reshape\(len\(x\), -1\)"):
        as_samples(np.zeros((5, 8, 8)))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_samples_of_another_rank_are_told_to_reshape(shape):
    with pytest.raises(ValueError, match=r"^x must have shape \(N, D\), got shape .*x\.reshape\(-1, 1\)"):
        as_samples(np.zeros(shape))


@pytest.mark.parametrize(("shape", "n_min"), [((0, 2), 1), ((3, 0), 1), ((3, 2), 4)])
def test_too_few_rows_or_columns_are_refused(shape, n_min):
    with pytest.raises(ValueError, match=rf"^data must have at least {n_min} row"):
        as_samples(np.zeros(shape), "data", n_min=n_min)
    assert as_samples(np.zeros((4, 2)), n_min=4).shape == (4, 2)


def test_other_number_of_columns_is_refused():
    for D in 2, 4:
        with pytest.raises(ValueError, match=rf"^data must have 3 columns, as the model has, got {D}"):
            as_samples(np.zeros((5, D)), "data", dimension=3)
    assert as_samples(np.zeros((5, 3)), dimension=3).shape == (5, 3)


@pytest.mark.parametrize("value", [1.0001e60, -1e160, 1.7e308])
def test_numbers_whose_squares_overflow_are_refused_by_name_and_place(value):
    x = np.zeros((3, 2))
    x[2, 1] = value
    with pytest.raises(ValueError, match=r"^data must hold numbers of size 1e\+60 at most, .* data\[2, 1\] is "):
        as_samples(x, "data")
    for largest in 1e60, -1e60:
        x[:] = largest
        assert as_samples(x) is x
    single = np.full((3, 2), np.finfo(np.float32).max)  # squares overflow in float32, and not in float64
    assert as_samples(single) is single


# --- scalars ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, np.int32(4), np.uint8(2)], ids=repr)
def test_count_is_a_python_int(value):
    assert as_count(value, "n") == value
    assert type(as_count(value, "n")) is int


@pytest.mark.parametrize("value", [True, np.True_, 2.0, "2", None, np.array(2)], ids=repr)
def test_count_of_a_wrong_kind_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^n must be an integer, got "):
        as_count(value, "n")


@pytest.mark.parametrize(("value", "minimum"), [(0, 1), (-1, 0), (3, 4)])
def test_count_below_its_minimum_is_a_value_error(value, minimum):
    with pytest.raises(ValueError, match=f"^n must be at least {minimum}, got {value}"):
        as_count(value, "n", minimum=minimum)
    assert as_count(minimum, "n", minimum=minimum) == minimum


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.25), np.int8(1)], ids=repr)
def test_number_is_a_python_float(value):
    number = as_number(value, "tol", low=0.0, high=1.0)
    assert number == value
    assert type(number) is float


@pytest.mark.parametrize("value", [True, "1", None, 1j, [1.0]], ids=repr)
def test_number_of_a_wrong_kind_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^tol must be a number, got "):
        as_number(value, "tol")


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, -np.inf])
def test_number_outside_its_interval_is_a_value_error(value):
    with pytest.raises(ValueError, match=r"^tol must be in \[0\.0, 1\.0\]( and finite)?, got "):
        as_number(value, "tol", low=0.0, high=1.0)
    if not np.isfinite(value):  # which is refused also without an interval
        with pytest.raises(ValueError, match=r"^tol must be in "):
            as_number(value, "tol")


def test_open_end_is_excluded():
    with pytest.raises(ValueError, match=r"^tol must be in \(0\.0, 1\.0\], got 0"):
        as_number(0.0, "tol", low=0.0, high=1.0, open_low=True)
    assert as_number(1e-300, "tol", low=0.0, open_low=True) == 1e-300


def test_choice_is_one_of_those_offered():
    assert as_choice("b", "method", ("a", "b")) == "b"


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"], np.array("a"), np.array(["a", "b"])], ids=repr)
def test_other_choice_is_refused_with_the_list(value):
    with pytest.raises(ValueError, match=r"^method must be one of 'a', 'b', got "):
        as_choice(value, "method", ("a", "b"))


# --- numbers that multiply rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2, 0.5, np.float64(0.3), np.array(0.3)], ids=repr)
def test_number_for_all_rows_is_a_python_float(value):
    assert type(column(value, np.ones((3, 2), np.float32))) is float
    assert column(value, np.ones((3, 2), np.float32)) == value


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_number_of_every_row_becomes_a_column_in_the_dtype_of_the_rows(shape, dtype):
    value = np.array([0.1, 0.2, 0.3]).reshape(shape)
    factor = column(value, np.ones((3, 2), dtype))
    assert factor.shape == (3, 1)
    assert factor.dtype == dtype
    assert np.array_equal(factor[:, 0], value.ravel().astype(dtype))
    for wrong in np.ones((3, 2)), np.ones((1, 3)), np.ones(2):
        with pytest.raises(ValueError, match=r"must be one number, or one number a row of the shape \(3,\), got"):
            column(wrong, np.ones((3, 2), dtype))


# --- missing values ---------------------------------------------------------------------------------------


def test_missing_values_are_accepted_where_they_are_wanted():
    x = np.array([[1.0, np.nan], [np.nan, np.nan]])
    assert np.array_equal(as_samples(x, missing=True), x, equal_nan=True)
    assert as_samples(x.astype(np.float32), missing=True).dtype == np.float32
    with pytest.raises(
        ValueError, match=r"^x must be finite, but x\[0, 1\] is nan; drop or impute .* take NaN as a missing"
    ):
        as_samples(x)
    with pytest.raises(
        ValueError, match=r"^centres must be finite, but centres\[0, 1\] is nan; drop or impute NaN and inf$"
    ):
        as_samples(x, "centres")
    x[1, 0] = -np.inf
    with pytest.raises(ValueError, match=r"^x must be finite, but x\[1, 0\] is -inf; drop inf, or pass NaN"):
        as_samples(x, missing=True)
    x[1, 0] = 1e61
    with pytest.raises(ValueError, match=r"^x must hold numbers of size 1e\+60 at most, .* x\[1, 0\] is 1e\+61"):
        as_samples(x, missing=True)


def test_sums_that_overflow_are_not_missing_values():
    huge = np.float32(3e38)
    assert not has_missing(np.array([huge, huge, -huge, -huge] * 9))
    assert has_missing(np.array([huge, huge, np.float32(np.nan)]))
