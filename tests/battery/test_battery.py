"""The batteries as tests: a wrong implementation fails and is never named wrongly, a right one passes.

`python -m pytest tests/battery --battery` runs the slow cases too.
"""

import importlib
from pathlib import Path

import pytest

from scratchgen.conformance import Check
from scratchgen.conformance.result import NAMELESS, SINGLE, compare
from tests.battery.case import Wrong, verdict

EXPECTED = {  # wrong implementations with another verdict than "named" or "silent"
    "q_sample: t broadcast over dimensions, not examples": (
        "passed",
        "it is right for an int t, and raises for an array of them: a callable that raises takes ints only",
    ),
}
REFUSED = {  # right implementations of another problem than the check's, by the check
    "check_heun": "ten times one rounding changes the result: the check refuses the problem",
    "check_covariance_types": "the tied prior is counted once for each component, as an earlier docstring said",
    "check_learning_rate: transformers": "another warm-up, step/warmup",
}


def cases_of(kind):
    """All cases of the modules `*_kind.py`, the slow ones with the mark `battery`."""
    for path in sorted(Path(__file__).parent.glob(f"*_{kind}.py")):
        for case in importlib.import_module(f"tests.battery.{path.stem}").CASES:
            marks = [pytest.mark.battery] if case.slow else []
            yield pytest.param(case, id=f"{path.stem}-{case.name}", marks=marks)


@pytest.mark.parametrize("case", tuple(cases_of("wrong")))
def test_a_wrong_implementation_fails_and_is_not_named_wrongly(case):
    expected = EXPECTED.get(case.name, ("named", ""))[0]
    found = verdict(case)
    assert found in {expected, "silent" if expected == "named" else expected}, case.run().diagnosis


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about torch.jit
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of adaptive steps in the code under test
@pytest.mark.parametrize("case", tuple(cases_of("right")))
def test_a_right_implementation_passes(case):
    check = case.run()
    reasons = [reason for start, reason in REFUSED.items() if case.name.startswith(start)]
    if not check.passed and reasons and case.name in refused_first():
        pytest.xfail(reasons[0])
    assert check.passed, check


def refused_first():
    """The text of the first results, where the refused implementations stand."""
    return "".join(path.read_text() for path in Path(__file__).parent.glob("*.txt"))


def of(left, words):
    """The verdict on `left` where right is 1, 2, 3, with one known mistake."""
    mistakes = {"it is moved; by one": lambda: [2.0, 3.0, 4.0]}

    def run() -> Check:
        return compare("c", "(0)", "head with a phrase", left, [1.0, 2.0, 3.0], 1e-12, mistakes)

    return verdict(Wrong("w", run, words))


def test_a_verdict_reads_the_mistake_and_not_the_head_or_a_hint():
    assert of([1, 2, 3], ()) == "passed"
    assert of([2, 3, 4], ("moved",)) == of([2, 3, 4], ("by one",)) == "named"
    assert of([2, 3, 4], ("another",)) == of([2, 3, 4], ("phrase",)) == "named wrongly"
    assert of([5, 3, 9], ("phrase",)) == of([5, 3, 9], ("no known",)) == "silent"
    assert of([7, 14, 21], ("7 times",)) == "named"
    assert of([7, 14, 21], ("sign",)) == "silent"  # a multiple is a fact and no mistake
    single = [1 + 1e-7, 2 - 2e-7, 3 + 3e-7]
    assert of([float(f) for f in map("{:.9f}".format, single)], ()) == "silent"
    assert NAMELESS not in SINGLE
