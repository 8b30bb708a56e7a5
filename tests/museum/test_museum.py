"""Every bug of the museum is found by the check that its exhibit names, and by no other."""

import pytest

from scratchgen import conformance
from scratchgen.equations import check
from tests.museum.exhibits import EXHIBITS, NAMELESS, ROWS, UNSEEN, checks_of, killing, rows_of

NAMED = 60  # exhibits whose diagnosis names a mistake, measured


def title(shown):
    return f"{shown.function}-{shown.planted.__name__}"


def report(shown, checks):
    """What to read when an exhibit is not killed as its label says."""
    lines = [f"  {c.name} {c.equation}: {'passed' if c else 'failed'}, residual {c.residual:.1e}" for c in checks]
    return "\n".join([f"{shown.bug} ({shown.source}), planted in {shown.function}", *lines])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_package_itself_passes(row):
    assert check(row)


@pytest.mark.parametrize("shown", EXHIBITS, ids=title)
def test_a_bug_is_found_by_its_check_and_by_no_other(shown):
    checks = checks_of(shown)
    failed = {c.name for c in checks if not c}
    assert shown.killer in failed, report(shown, checks)
    assert failed == {shown.killer}, report(shown, checks)  # without its killer the bug survives


@pytest.mark.parametrize("shown", UNSEEN, ids=title)
def test_a_blind_spot_is_still_one(shown):
    checks = checks_of(shown)
    assert all(checks), "it is seen now and belongs among the exhibits: " + report(shown, checks)


def test_every_check_finds_a_bug():
    checks = {name for name in conformance.__all__ if name.startswith("check_")}
    assert {shown.killer for shown in EXHIBITS} == checks


def test_labels_are_right():
    shown = [*EXHIBITS, *UNSEEN]
    assert {one.function for one in shown} <= rows_of().keys()
    assert len({one.bug for one in shown}) == len({one.planted for one in shown}) == len(shown)
    assert all(one.bug and one.source for one in shown)


def test_most_bugs_are_called_by_a_name():
    nameless = [shown for shown in EXHIBITS if killing(shown).diagnosis.endswith(NAMELESS)]
    named = len(EXHIBITS) - len(nameless)
    assert named >= NAMED, "\n".join(f"{shown.function}: {shown.bug}" for shown in nameless)
