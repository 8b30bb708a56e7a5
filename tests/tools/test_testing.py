"""`scratchgen.testing`: the strategies refuse what they cannot draw."""

import runpy
import sys

import pytest

from scratchgen.testing import em_problems, schedules


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda: em_problems(modes=("plain", "foo")).example(), "modes must be among"),
        (lambda: schedules(0.5, 0.1).example(), "low and high must satisfy"),
        (lambda: schedules(0.0, 0.5).example(), "low and high must satisfy"),
        (lambda: schedules(0.1, 1.0).example(), "low and high must satisfy"),
    ],
)
@pytest.mark.filterwarnings("ignore:The `.example")
def test_strategies_refuse_what_they_cannot_draw(strategy, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        strategy()


def test_without_hypothesis_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "scratchgen.testing")
    with pytest.raises(ModuleNotFoundError, match=r"^scratchgen\.testing needs hypothesis; .*pip install '\.\[test\]'"):
        runpy.run_module("scratchgen.testing")
