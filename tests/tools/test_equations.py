"""The table of equations: all 34 are there, each with a public function that its check runs."""

import inspect
from functools import cache

import numpy as np
import pytest

from scratchgen import conformance
from scratchgen.equations import EQUATIONS, PROPOSITIONS, check, find
from scratchgen.museum.planting import planted

ROWS = EQUATIONS + PROPOSITIONS
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
RETURN_OBJECTS = {  # functions that return an object or change one in place, so that `doubled` does not apply
    "em.categorical_m_step_from_statistics",
    "em.em",
    "em.m_step",
    "em.statistics_with_missing",
    "em.sufficient_statistics",
    "fast.em_statistics.expected_statistics",
    "schedule.NoiseSchedule",
    "schedule.NoiseSchedule.from_sde",
    "schedule.NoiseSchedule.log_snr_even",
    "nn.Adam",
    "nn.EMA",
}
AGAINST_ITSELF = {  # comparisons of one result with another; further comparisons of the same check are independent
    "S C⁻¹ W (it should be W)",
    "the loss of three dimensions (it should be the sum over the columns)",
    "(drift, scale, std, g) for an array of times",
    "(drift, diffusion) for an array of times",
    "the level drawn from different u",
}
CHAPTERS = {  # the modules that a number belongs to
    "likelihood": range(1, 3),
    "variational": range(3, 13),
    "vae": range(13, 15),
    "em": range(15, 19),
    "mixture": range(16, 17),
    "ddpm": range(19, 30),
    "schedule": range(30, 31),
    "sde": range(31, 35),
}


def test_all_34_equations_are_there_in_order():
    assert [row.name for row in EQUATIONS] == [str(number) for number in range(1, 35)]
    assert len({row.name for row in ROWS}) == len(ROWS)


checked = cache(check)  # without a replacement the check of a row always has the same result


@every_row
def test_both_sides_agree(row):
    result = checked(row)
    assert result.passed, result
    assert result.residual < 0.05 * result.tolerance  # every residual is far below the tolerance
    assert result.left.shape == result.right.shape
    assert np.isfinite(result.right).all()


def compared(row, replaced=None):
    """The result of a row's check, and (quantity, right side) of every comparison in the check."""
    sides = []

    def record(original, name, equation, quantity, left, right, *more, **options):
        sides.append((quantity, np.array(right, dtype=np.float64)))
        return original(name, equation, quantity, left, right, *more, **options)

    with planted("conformance.result.compare", record):
        return check(row, replaced), sides


def doubled(value):
    """Twice every number of a result; functions that carry gradients are unchanged."""
    if inspect.isgenerator(value):
        return (doubled(part) for part in value)
    if isinstance(value, tuple):
        parts = [part if isinstance(part, int) and not isinstance(part, bool) else doubled(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value if callable(value) else 2 * value


@pytest.mark.parametrize("row", [row for row in ROWS if row.function not in RETURN_OBJECTS], ids=lambda row: row.name)
def test_right_sides_do_not_use_the_function_under_test(row):
    """A doubled result fails the check and changes left sides only."""
    function = find(row.function)
    result, before = compared(row)
    broken, after = compared(row, {row.function: lambda *a, **k: doubled(function(*a, **k))})
    assert result
    assert not broken, "a doubled result passes"
    expected = iter(before)
    for quantity, again in after:  # a check may end at the first failure, so that comparisons are left out
        right = next(right for name, right in expected if name == quantity)
        assert quantity in AGAINST_ITSELF or np.array_equal(right, again), quantity


@every_row
def test_functions_are_public_documented_and_of_their_chapter(row):
    function = find(row.function)
    assert row.function.endswith(".__call__") or not row.function.split(".")[-1].startswith("_")
    assert inspect.getdoc(function)
    assert checked(row).name in conformance.__all__
    if row.name.isdigit():
        assert int(row.name) in CHAPTERS[row.function.split(".")[0]]


def test_a_row_checks_the_function_that_replaces_its_own():
    posterior = next(row for row in PROPOSITIONS if row.function == "ddpm.q_posterior")
    calls = []

    def mine(schedule, t, x_t, x0):
        calls.append(t)
        return 0 * x_t, 0.0

    assert not check(posterior, {"ddpm.q_posterior": mine})
    assert {int(step) for t in calls for step in np.ravel(t)} == {1, 2, 3, 4, 5}
    assert check(posterior, {"ddpm.q_sample": mine})


def test_errata_are_sentences_without_a_full_stop():
    for row in ROWS:
        assert row.statement
        assert not row.erratum.endswith(".")


@pytest.mark.parametrize(
    "name", ["19", "27", "three terms of the bound", "the continuous bound", "denoiser of whole numbers"]
)
def test_of_several_functions_the_numbers_are_those_of_the_row(name):
    """With the function of the row 0.1 % too large the check fails in the quantity that it shows otherwise."""
    row = next(row for row in ROWS if row.name == name)
    shown, function = check(row), find(row.function)
    wrong = check(row, {row.function: lambda *a, **k: 1.001 * function(*a, **k)})
    assert shown.passed
    assert not wrong.passed
    assert wrong.quantity == shown.quantity
