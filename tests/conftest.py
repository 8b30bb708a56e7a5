"""Selection of tests by equation, slow cases of the batteries, and profiles of Hypothesis.

`python -m pytest --equation 25` runs the tests with the mark `@pytest.mark.equation(25)`.
`python -m pytest tests/battery --battery` runs all cases of all batteries.

The environment variable HYPOTHESIS_PROFILE chooses a profile:

- `ci`, the default: the same 25 examples in every run, so that no failure is random;
- `explore`: 300 new examples, for a longer search by hand or at night;
- `mutation`: few examples and no shrinking, for runs on broken code, where only pass or fail counts.
"""

import os

import pytest
from hypothesis import Phase, settings

# One thread for BLAS in every process, also in those that tests start: the test command runs two processes, and more
# threads than cores slow each other down.  OpenBLAS reads this when NumPy is imported, which is after this file.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The width of the output: readline, which pytest loads, sets these two for the processes of pytest-xdist.
os.environ.pop("COLUMNS", None)
os.environ.pop("LINES", None)

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=300, print_blob=True)
ci = settings.get_profile("ci")
settings.register_profile("mutation", ci, max_examples=20, phases=[Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser):
    parser.addoption("--equation", type=int, metavar="N", help="run only the tests of equation (N) of the deck")
    parser.addoption("--battery", action="store_true", help="run all cases of all batteries")


def pytest_configure(config):
    config.addinivalue_line("markers", "equation(*numbers): the test checks these equations of the deck")


def pytest_collection_modifyitems(config, items):
    number = config.getoption("--equation")
    if number is None:
        return
    if not 1 <= number <= 34:
        raise pytest.UsageError(f"--equation must be in 1..34, got {number}")

    def is_of(item):
        return any(number in mark.args for mark in item.iter_markers("equation"))

    config.hook.pytest_deselected(items=[item for item in items if not is_of(item)])
    items[:] = [item for item in items if is_of(item)]
