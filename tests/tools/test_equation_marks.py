"""Every row of the table, equation or proposition, has tests with its name, in addition to the table itself."""

import json
import subprocess
import sys

import pytest

from tests.tools.marks import INDEX, NAMES, TESTS, index, marked


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_a_test_of_its_own(name):
    assert name in dict(marked())


def test_marks_are_numbers_of_equations_and_short_names_of_propositions():
    assert [entry for entry in marked() if entry[0] not in NAMES] == []


def test_the_index_of_the_book_names_the_marked_tests():
    assert json.loads(INDEX.read_text("utf8")) == index(), "run python -m tests.tools.marks"


@pytest.mark.parametrize("name", [27, "posterior"])
def test_the_option_selects_the_tests_of_one_row(name):
    """Two of the files hold tests of the row among other tests, and one file holds none."""
    files = ["chapters/test_ddpm.py", "chapters/test_properties_ddpm.py", "chapters/test_flow.py"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--equation", str(name)]
    command += [f"tests/{file}" for file in files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS.parent, timeout=300)
    collected = {line.partition("[")[0].removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}
    wanted = {where for mark, where in marked() if mark == name and where.partition("::")[0] in files}
    assert wanted
    assert collected == wanted, done.stdout
