"""Every equation of the deck has tests with its number, in addition to the table of equations."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


def numbers_of(function):
    """The arguments of the marks `@pytest.mark.equation(...)` of a test."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.equation":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


MARKED = [
    (number, f"{path.relative_to(TESTS)}::{node.name}")
    for path in sorted(TESTS.rglob("test_*.py"))
    if path.name != "test_equations.py"
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    for number in numbers_of(node)
]


@pytest.mark.parametrize("number", range(1, 35))
def test_every_equation_has_a_test_of_its_own(number):
    assert number in dict(MARKED)


def test_marks_are_numbers_of_equations():
    assert [entry for entry in MARKED if entry[0] not in range(1, 35)] == []


def test_the_option_selects_the_tests_of_one_equation():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--equation", "27", "tests/chapters"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS.parent, timeout=300)
    collected = {line.partition("[")[0].removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}
    marked = {where for number, where in MARKED if number == 27 and where.startswith("chapters/")}
    assert collected == marked, done.stdout
