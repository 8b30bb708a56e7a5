"""The table of equations: all 34 are there, each with a public function, and each is checked by running it."""

import inspect

import numpy as np
import pytest

from scratchgen import conformance
from scratchgen.equations import EQUATIONS, PROPOSITIONS, check, find

ROWS = EQUATIONS + PROPOSITIONS
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
RETURN_OBJECTS = {  # or change one in place, so that their results cannot simply be doubled
    "em.m_step",
    "schedule.NoiseSchedule",
    "schedule.NoiseSchedule.from_sde",
    "vae.VAENetwork.loss",
    "network.MLP.backward",
    "optimizer.Adam",
}
CHAPTERS = {  # which module's function a number may have
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


@every_row
def test_both_sides_agree(row):
    result = check(row)
    assert result.passed, result
    assert result.residual < 0.05 * result.tolerance  # nothing is near its tolerance
    assert result.left.shape == result.right.shape
    assert np.isfinite(result.right).all()


@pytest.mark.parametrize("row", [row for row in ROWS if row.function not in RETURN_OBJECTS], ids=lambda row: row.name)
def test_right_sides_do_not_use_the_function_under_test(row):
    """A doubled result fails the check, and moves the left side only."""
    before, function = check(row), find(row.function)

    def doubled(*arguments, **keywords):
        value = function(*arguments, **keywords)
        if inspect.isgenerator(value):
            return ((t, 2 * x) for t, x in value)
        return tuple(2 * part for part in value) if isinstance(value, tuple) else 2 * value

    after = check(row, {row.function: doubled})
    assert not after, "a doubled result passes"
    if before.quantity == after.quantity:
        assert np.array_equal(before.right, after.right)


@every_row
def test_functions_are_public_documented_and_of_their_chapter(row):
    function = find(row.function)
    assert not row.function.split(".")[-1].startswith("_")
    assert inspect.getdoc(function)
    assert check(row).name in conformance.__all__
    if row.name.isdigit():
        assert int(row.name) in CHAPTERS[row.function.split(".")[0]]


def test_a_row_runs_what_stands_in_for_its_function():
    posterior = next(row for row in PROPOSITIONS if row.function == "ddpm.q_posterior")
    calls = []

    def mine(schedule, t, x_t, x0):
        calls.append(t)
        return 0 * x_t, 0.0

    assert not check(posterior, {"ddpm.q_posterior": mine})
    assert set(calls) == {1, 2, 3, 4, 5}
    assert check(posterior, {"ddpm.q_sample": mine})


def test_errata_are_sentences_without_a_full_stop():
    for row in ROWS:
        assert row.statement
        assert not row.erratum.endswith(".")
