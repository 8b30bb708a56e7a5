"""Every fault of wing two is seen by the row or the test that it names.

`tests/tools/test_equations.py` shows that every row passes without a fault, and the tests that faults name are tests of
this suite.
"""

import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from scratchgen.museum import tour
from scratchgen.museum.planting import planted
from scratchgen.museum.tour import FAULTS
from scratchgen.report import cli

ROOT = Path(__file__).parents[2]
IN_VERIFY = [fault for fault in FAULTS if fault.row is not None]
IN_TESTS = [fault for fault in FAULTS if fault.row is None]
seeing = cache(tour.seeing)  # a fault always has the same check


def title(fault):
    return f"{fault.function}-{fault.replacement.__name__.strip('_')}"


@pytest.mark.parametrize("fault", IN_VERIFY, ids=title)
def test_a_fault_in_running_code_is_seen_by_verify(fault):
    assert not seeing(fault), f"{fault.fault}: {fault.seen_by} passes with it"


def test_the_command_shows_every_fault_and_who_sees_it(monkeypatch, capsys):
    """Without wing one, which tests/museum/test_museum.py prints."""
    monkeypatch.setattr(tour, "seeing", seeing)
    monkeypatch.setattr(tour, "EXHIBITS", ())
    assert cli.main(["museum"]) == 0
    out = capsys.readouterr().out
    second = out.split("\nWing two")[1].splitlines()
    for fault in FAULTS:
        assert any(line.startswith(fault.fault) and f" {fault.seen_by}" in line for line in second)
    assert f"{len(FAULTS)} in wing two" in out.splitlines()[-1]


def test_faults_of_the_models_are_seen_by_their_property_tests():
    """In a separate interpreter, where each test runs with the fault that names it."""
    named = {fault.seen_by for fault in IN_TESTS}
    options = ["-q", "-rf", "-p", "no:cacheprovider", "-p", "tests.museum.plants"]
    command = [sys.executable, "-m", "pytest", *options, *sorted(named)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert set(re.findall(r"^FAILED (\S+?::\w+)", done.stdout, re.M)) == named, done.stdout + done.stderr


def test_every_fault_sits_in_a_function_that_exists_and_takes_its_arguments():
    """A wrong name or argument would make its test fail with an error, not because of the fault."""
    for fault in FAULTS:
        with planted(fault.function, fault.replacement) as original:
            own, given = (inspect.signature(function).parameters for function in (original, fault.replacement))
            kinds = {parameter.kind for parameter in given.values()}
            if inspect.Parameter.VAR_POSITIONAL not in kinds and inspect.Parameter.VAR_KEYWORD not in kinds:
                assert list(given)[1:] == list(own), fault.fault


def test_wing_two_holds_the_five_faults_that_verify_once_missed():
    """Every row passed with each of these five, when the models ran code of their own; and many more faults."""
    assert len(FAULTS) >= 50
    assert len(IN_VERIFY) >= 45
    assert len({fault.fault for fault in FAULTS}) == len({fault.replacement for fault in FAULTS}) == len(FAULTS)
    functions = {(fault.function, fault.replacement.__name__) for fault in FAULTS}
    assert functions >= {
        ("vae.vae_loss_and_gradient", "_without_kl"),
        ("ddpm.train_step", "_squared_scale"),
        ("ddpm.noise_error", "_towards_minus_noise"),
        ("fast.em_statistics._normalise", "_squared_responsibilities"),
        ("ddpm.predict_noise", "_one_level_late"),
    }
