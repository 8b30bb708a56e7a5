"""The tests of every equation, by their marks; `python -m tests.tools.marks` writes the index that the book reads."""

import ast
import json
from importlib.resources import files
from pathlib import Path

TESTS = Path(__file__).parent.parent
INDEX = files("scratchgen.report.book").joinpath("tests.json")


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


def index():
    """Number of an equation → its tests."""
    found = {}
    for number, test in sorted(MARKED):
        found.setdefault(str(number), []).append(f"tests/{test}")
    return found


if __name__ == "__main__":
    Path(str(INDEX)).write_text(json.dumps(index(), indent=0) + "\n", encoding="utf8")
