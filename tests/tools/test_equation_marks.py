"""Every equation of the deck has tests with its number, in addition to the table of equations."""

import json
import subprocess
import sys

import pytest

from tests.tools.marks import INDEX, MARKED, TESTS, index


@pytest.mark.parametrize("number", range(1, 35))
def test_every_equation_has_a_test_of_its_own(number):
    assert number in dict(MARKED)


def test_marks_are_numbers_of_equations():
    assert [entry for entry in MARKED if entry[0] not in range(1, 35)] == []


def test_the_index_of_the_book_names_the_marked_tests():
    assert json.loads(INDEX.read_text("utf8")) == index(), "run python -m tests.tools.marks"


def test_the_option_selects_the_tests_of_one_equation():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--equation", "27", "tests/chapters"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS.parent, timeout=300)
    collected = {line.partition("[")[0].removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}
    marked = {where for number, where in MARKED if number == 27 and where.startswith("chapters/")}
    assert collected == marked, done.stdout
