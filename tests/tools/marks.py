"""The tests of every row, by their marks; `python -m tests.tools.marks` writes the index that the book reads."""

import ast
import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from scratchgen.equations import EQUATIONS, PROPOSITIONS, slug_of

TESTS = Path(__file__).parent.parent
INDEX = files("scratchgen.report.book").joinpath("tests.json")


def names_of(function):
    """The arguments of the marks `@pytest.mark.equation(...)` of a test."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.equation":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


@cache
def marked():
    """All (mark, "folder/file.py::test"); a mark is a number of an equation, or the short name of a proposition."""
    return [
        (name, f"{path.relative_to(TESTS)}::{node.name}")
        for path in sorted(TESTS.rglob("test_*.py"))
        if path.name != "test_equations.py"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for name in names_of(node)
    ]


# The name of a row in a mark, a number of the deck or a short name → the row's full name
NAMES = {int(row.name): row.name for row in EQUATIONS} | {slug_of(row): row.name for row in PROPOSITIONS}


def index():
    """Full name of a row → its tests."""
    return {row: sorted({f"tests/{test}" for mark, test in marked() if mark == name}) for name, row in NAMES.items()}


if __name__ == "__main__":
    Path(str(INDEX)).write_text(json.dumps(index(), indent=0, ensure_ascii=False) + "\n", encoding="utf8")
