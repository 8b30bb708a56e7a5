"""Selection of tests by equation, slow cases of the batteries, and profiles of Hypothesis.

`python -m pytest --equation 25` runs the tests with the mark `@pytest.mark.equation(25)`, and `--equation posterior`
those of a proposition by its short name (`scratchgen verify --list`).
`python -m pytest tests/battery --battery` runs all cases of all batteries.

The environment variable HYPOTHESIS_PROFILE chooses a profile:

- `ci`, the default: the same 25 examples in every run, so that no failure is random;
- `explore`: 300 new examples, for a longer search by hand or at night;
- `mutation`: few examples and no shrinking, for runs on broken code, where only pass or fail counts.
"""

import gc
import os

import pytest
from hypothesis import Phase, settings

# One thread for BLAS in every process, also in those that tests start: the test command runs two processes, and more
# threads than cores slow each other down.  OpenBLAS reads this when NumPy is imported, which is after this file.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The processes that tests start read the compiled package, and do not compile it each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The width of the output: readline, which pytest loads, sets these two for the processes of pytest-xdist.
os.environ.pop("COLUMNS", None)
os.environ.pop("LINES", None)

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=300, print_blob=True)
ci = settings.get_profile("ci")
settings.register_profile("mutation", ci, max_examples=20, phases=[Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser):
    parser.addoption("--equation", metavar="NAME", help="run only the tests of this row of `scratchgen verify --list`")
    parser.addoption("--battery", action="store_true", help="run all cases of all batteries")


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "equation(*names): the test checks these equations of the deck, by number, or propositions, by short name",
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect the tests without garbage collection, and leave them out of later ones.

    The objects of 11,000 tests live to the end, and every full collection visits them all: a third of the time of
    collecting the tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config, items):
    name = config.getoption("--equation")
    if name is None:
        return
    from scratchgen.equations import EQUATIONS, PROPOSITIONS, called, slug_of

    found = called(name, EQUATIONS + PROPOSITIONS)
    if len(found) != 1:
        raise pytest.UsageError(f"--equation must be a number in 1..34 or a short name, got {name}")
    names = {found[0].name, slug_of(found[0])}

    def is_of(item):
        return any(names & set(map(str, mark.args)) for mark in item.iter_markers("equation"))

    config.hook.pytest_deselected(items=[item for item in items if not is_of(item)])
    items[:] = [item for item in items if is_of(item)]
