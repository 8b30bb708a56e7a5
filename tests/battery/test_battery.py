"""The batteries as tests: a wrong implementation fails and is never named wrongly, a right one passes.

The test command runs the quick cases of the fourth battery, the smallest; `python -m pytest tests/battery --battery`
runs all cases of all batteries.
"""

from pathlib import Path

import pytest

from scratchgen.conformance import Check
from scratchgen.conformance.result import NAMELESS, SINGLE, compare
from tests.battery.case import Wrong, cases_of, judged, told_by, verdict

EXPECTED = {  # wrong implementations with another verdict than "named" or "silent"
    "q_sample: t broadcast over dimensions, not examples": (
        "passed",
        "it is right for an int t, and raises for an array of them: a callable that raises takes ints only",
    ),
    "flow_order (Heun): Adams and Bashforth without the ratio of steps": (
        "passed",
        "neighbouring steps of the default levels differ by O(h) only, so that the order stays 2",
    ),
}
REFUSED = {  # right implementations of another problem than the check's, by the check
    "check_heun": "ten times one rounding changes the result: the check refuses the problem",
    "check_covariance_types": "the tied prior is counted once for each component, as an earlier docstring said",
    "check_learning_rate: transformers": "another warm-up, step/warmup",
}
# Names that the phrases of a case do not contain, each judged to be right by hand: "case => name".
BY_HAND = set((Path(__file__).parent / "by_hand.txt").read_text(encoding="utf-8").splitlines())
FIRST_RESULTS = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.txt")))


def pytest_generate_tests(metafunc):
    """The quick cases of the fourth battery; with --battery all cases of all batteries."""
    kind = next((name for name in ("wrong", "right") if name in metafunc.fixturenames), None)
    if kind is None:
        return
    everything = metafunc.config.getoption("--battery")
    batteries = ["first", "second", "third", "fourth", "fifth"] if everything else ["fourth"]
    cases = {f"{name}-{case.name}": case for name in batteries for case in cases_of(name, kind)}
    wanted = {name: case for name, case in cases.items() if everything or not case.slow}
    metafunc.parametrize(kind, wanted.values(), ids=wanted)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # 0/0 in the code under test
def test_a_wrong_implementation_fails_and_is_not_named_wrongly(wrong):
    expected = EXPECTED.get(wrong.name, ("named", ""))[0]
    check = wrong.run()
    found = judged(check, wrong.words)
    if found == "named wrongly" and f"{wrong.name} => {'; '.join(told_by(check))}" in BY_HAND:
        found = "named"
    assert found in {expected, "silent" if expected == "named" else expected}, check.diagnosis


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about torch.jit
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of adaptive steps in the code under test
def test_a_right_implementation_passes(right):
    check, other_problem = right.run(), any(right.name.startswith(start) for start in REFUSED)
    if other_problem and not check.passed:
        assert f"- {right.name}: " in FIRST_RESULTS
    else:
        assert check.passed, check


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
