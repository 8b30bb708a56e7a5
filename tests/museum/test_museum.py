"""Every mistake of wing one is found by the check that its exhibit names, and by no other check.

`tests/tools/test_equations.py` shows that every row passes without a mistake.
"""

from functools import cache

import pytest

from scratchgen import conformance
from scratchgen.conformance.result import NAMELESS
from scratchgen.museum import tour
from scratchgen.museum.tour import EXHIBITS, UNSEEN, killing, rows_of
from scratchgen.report import cli

NAMED = 82  # exhibits whose diagnosis names a mistake, measured
checks_of = cache(tour.checks_of)  # the checks of an exhibit always have the same results


def title(shown):
    return f"{shown.function}-{shown.planted.__name__.strip('_')}"


def report(shown, checks):
    """The message if an exhibit is not found as its label says."""
    lines = [f"  {c.name} {c.equation}: {'passed' if c else 'failed'}, residual {c.residual:.1e}" for c in checks]
    return "\n".join([f"{shown.bug} ({shown.source}), planted in {shown.function}", *lines])


@pytest.fixture
def each_exhibit_once(monkeypatch):
    """Run the checks of an exhibit once for all tests of this file."""
    monkeypatch.setattr(tour, "checks_of", checks_of)


@pytest.mark.parametrize("shown", EXHIBITS, ids=title)
def test_a_bug_is_found_by_its_check_and_by_no_other(shown):
    checks = checks_of(shown)
    failed = {c.name for c in checks if not c}
    assert shown.killer in failed, report(shown, checks)
    assert failed == {shown.killer}, report(shown, checks)  # no other check finds the mistake


@pytest.mark.parametrize("shown", UNSEEN, ids=title)
def test_an_unseen_mistake_passes_every_check(shown):
    checks = checks_of(shown)
    assert all(checks), "a row sees this mistake: make it an exhibit: " + report(shown, checks)


def test_every_check_finds_a_bug():
    """Except checks of a user's network and of a Bernoulli decoder, which the package itself does not have.

    Their mistakes stand in tests/tools/test_trained.py and tests/tools/test_audit.py.
    """
    foreign = {
        "check_bernoulli_loss",
        "check_bound_of",
        "check_flow_likelihood_of",
        "check_loss_of",
        "check_sampler_of",
    }
    checks = {name for name in conformance.__all__ if name.startswith("check_")} - foreign
    assert {shown.killer for shown in EXHIBITS} == checks


def test_exhibits_are_distinct_and_name_functions_of_the_table():
    shown = [*EXHIBITS, *UNSEEN]
    assert {one.function for one in shown} <= rows_of().keys()
    assert len({one.bug for one in shown}) == len({one.planted for one in shown}) == len(shown)
    assert all(one.bug and one.source for one in shown)


def test_an_exhibit_whose_check_did_not_run_is_an_error(monkeypatch):
    monkeypatch.setattr(tour, "checks_of", lambda shown: [])
    shown = EXHIBITS[0]
    with pytest.raises(RuntimeError, match=f"^{shown.killer} did not run on {shown.function}; run `scratchgen verify`"):
        killing(shown)


@pytest.mark.usefixtures("each_exhibit_once")
def test_most_diagnoses_name_a_mistake():
    nameless = [shown for shown in EXHIBITS if killing(shown).diagnosis.endswith(NAMELESS)]
    named = len(EXHIBITS) - len(nameless)
    assert named >= NAMED, "\n".join(f"{shown.function}: {shown.bug}" for shown in nameless)


@pytest.mark.usefixtures("each_exhibit_once")
def test_the_command_shows_every_mistake_and_who_finds_it(monkeypatch, capsys):
    """Without wing two, which tests/museum/test_running.py prints."""
    monkeypatch.setattr(tour, "FAULTS", ())
    assert cli.main(["museum"]) == 0
    out = capsys.readouterr().out
    first, rest = out.split("\nMistakes that no row")
    for shown in EXHIBITS:
        (line,) = [line for line in first.splitlines() if line.startswith(f"{shown.bug}  ")]
        assert f" {shown.killer} " in line
    for shown in UNSEEN:
        assert any(line.startswith(shown.bug) and line.endswith(shown.why) for line in rest.splitlines())
    assert out.splitlines()[-1].startswith(f"{len(EXHIBITS)} mistakes in wing one; ")
