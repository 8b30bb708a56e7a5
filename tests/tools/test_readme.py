"""The examples in the README run, and the modules and numbers that it names exist."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np

from scratchgen.ddpm import train_step
from scratchgen.equations import EQUATIONS, PROPOSITIONS, check
from scratchgen.museum.tour import EXHIBITS, UNSEEN
from scratchgen.report.verify import as_markdown

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_examples_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for example in blocks("python"):
        if "import torch" in example:  # see tests/oracles/test_torch_examples.py
            continue
        shortened = example.replace("n_steps=2000", "n_steps=200")
        exec(compile(shortened, "README.md", "exec"), namespace)
    bound, entropy = map(float, capsys.readouterr().out.split())
    assert entropy == namespace["truth"].entropy()
    assert bound > entropy
    assert np.isclose(namespace["model"].score(namespace["x"]), namespace["model"].log_prob(namespace["x"]).mean())
    assert (tmp_path / "model.npz").exists()
    check = namespace["check"]
    assert f'"{check.diagnosis}"' in README
    assert f"residual {check.residual:.1e}, tolerance {check.tolerance:.0e}" in README


def test_the_algorithm_that_it_shows_is_the_one_that_runs():
    """The same statements as in `ddpm.train_step`, without its docstring and annotations."""
    shown = ast.parse(next(example for example in blocks("python") if "def train_step" in example)).body[0]
    running = ast.parse(inspect.getsource(train_step)).body[0]
    assert [argument.arg for argument in shown.args.args] == [argument.arg for argument in running.args.args]
    assert ast.unparse(shown.body) == ast.unparse(running.body[1:])


def test_the_table_of_equations_is_the_packages():
    results = [(row, check(row)) for row in EQUATIONS + PROPOSITIONS]
    assert f"\n{as_markdown(results)}\n" in README, "run: scratchgen verify --markdown"


def test_the_museum_is_as_large_as_it_says():
    assert f"a museum of {len(EXHIBITS)} bugs" in README
    assert len(UNSEEN) == 3
    assert "three that no fixed" in README


def test_there_are_two_commands_and_each_sets_itself_up():
    tour, tests = blocks("sh")
    assert len(tour.splitlines()) == len(tests.splitlines()) == 1
    assert all(command.startswith("python3 -m venv .venv && .venv/bin/pip install") for command in (tour, tests))
    assert tour.rstrip().endswith(".venv/bin/scratchgen")
    assert ".venv/bin/python -m pytest" in tests


def test_every_module_it_lists_exists_and_every_module_is_listed():
    house = README.split("## The house")[1].split("##")[0]
    listed = {name.rstrip("/").removesuffix(".py") for name in re.findall(r"`([a-z_]+(?:\.py|/))`", house)}
    existing = {
        path.stem for path in (ROOT / "scratchgen").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert listed <= existing
    assert existing - listed <= {"__init__", "__main__", "blocks", "validation", "files"}
    assert {
        f"def {name}(" in (ROOT / path).read_text()
        for path, names in re.findall(r"\]\((scratchgen/\S+\.py)\): (`.*?) \|", README)
        for name in re.findall(r"`(\w+)`", names)
    } == {True}
