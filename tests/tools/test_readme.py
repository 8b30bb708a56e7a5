"""README.md: every block runs as printed, every number in a block is reproduced, and every name and path exists."""

import importlib
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from scratchgen import datasets, recipes
from scratchgen.equations import EQUATIONS
from scratchgen.equations.row import through
from scratchgen.museum.tour import EXHIBITS, FAULTS, UNSEEN
from scratchgen.report import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def numbers(text):
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d*\.\d+", text)]


def promised(comment):
    """The values of a comment and their tolerances: "1.66 ± .03", or half a unit of the last digit."""
    for value, tolerance in re.findall(r"(\d*\.\d+)(?: ± (\.\d+))?", comment.partition(";")[0]):
        yield float(value), float(tolerance or 0.5 * 10 ** -len(value.partition(".")[2]))


def test_it_is_one_sitting_long():
    assert README.count("\n") <= 150
    assert max(len(line) for line in README.splitlines() if not line.startswith(("|", "python3", "!["))) <= 122


def test_the_python_example_prints_the_numbers_that_stand_beside_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = (block for block in blocks("python") if "torch" not in block)  # tests/oracles has that with torch
    assert 10 <= len(example.splitlines()) <= 15
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    comments = [line.partition("#")[2] for line in example.splitlines() if line.startswith("print(")]
    for line, comment in zip(printed, comments, strict=True):
        values = list(promised(comment.replace("],", "; ")))
        assert len(numbers(line)) == len(values) > 0
        for number, (value, tolerance) in zip(numbers(line), values, strict=True):
            assert number == pytest.approx(value, abs=tolerance)
    assert (tmp_path / "model.npz").exists()


def test_what_it_says_of_the_law_is_true():
    law = datasets.eight_gaussians()
    assert "the law itself has 1.435 on these rows" in README
    assert -law.log_prob(law.sample(2000, rng=1)).mean() == pytest.approx(1.435, abs=5e-4)
    assert "the law has 1.0155" in README
    assert law.covariance()[0, 0] ** 0.5 == pytest.approx(1.0155, abs=5e-5)


def test_the_commands_of_a_console_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) == 3
    for command in commands:
        program, *arguments = shlex.split(command.removeprefix("$ "))
        assert program == ".venv/bin/scratchgen"
        assert cli.main(arguments) == 0
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == 1001


def test_there_are_two_commands_and_each_sets_itself_up():
    tour, tests = blocks("sh")
    assert len(tour.splitlines()) == len(tests.splitlines()) == 1
    assert all(command.startswith("python3 -m venv .venv && .venv/bin/pip install") for command in (tour, tests))
    assert tour.rstrip().endswith(".venv/bin/scratchgen")
    assert ".venv/bin/python -m pytest" in tests


def test_every_file_and_function_of_the_reading_order_exists():
    rows = re.findall(r"^\| [^|]+ \| (\(\d.*?) \| (.*) \|$", README, flags=re.MULTILINE)
    assert len(rows) >= 5
    for equations, places in rows:
        for path, names in re.findall(r"\[`\S+`\]\((scratchgen/\S+\.py)\): ((?:`\w+`(?:, )?)+)", places):
            for name in re.findall(r"`(\w+)`", names):
                assert f"def {name}(" in (ROOT / path).read_text(), (path, name)
        named = {int(n) for n in re.findall(r"\d+", equations)}
        functions = {row.function.rpartition(".")[2] for row in EQUATIONS if int(row.name) in named}
        assert functions & set(re.findall(r"`(\w+)`", places)), equations


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_every_module_that_a_command_runs_exists():
    modules = set(re.findall(r"python -m ([\w.]+)", README)) - {"venv", "pytest"}
    assert {"benchmarks.quality", "benchmarks.race", "benchmarks.front"} <= modules
    assert all(find_spec(name) for name in modules)
    importlib.import_module("benchmarks.front")  # a change of the figures of the tour changes it too


def test_the_six_numbers_stand_in_the_pages_with_the_measurements():
    rows = README.split("## Six numbers")[1].split("\nMore: ")[0]
    bits = {(recipe.family, recipe.name): recipe.measured for recipe in recipes.RECIPES if recipe.kind == "digits"}
    for family in ("sde", "ddpm", "vae"):
        (measured,) = bits[family, "best"]
        assert f" {measured.expected:.3f} " in rows
        assert f" {measured.cpu_seconds:.0f} s" in rows
    pages = {name: (ROOT / "benchmarks" / f"{name}.md").read_text() for name in ("QUALITY", "RACE", "RESULTS", "TOUR")}
    for shown, name, row in (
        ("score SDE 36,", "QUALITY", r"\| sde best \| 35\.9"),
        ("DDPM 35,", "QUALITY", r"\| ddpm best \| 35\.0"),
        ("VAE 84;", "QUALITY", r"\| vae best \| 83\.5"),
        ("28.5", "QUALITY", r"\| train images \| 28\.5 "),
        ("0.54 s", "RACE", r"\| eight Gaussians, 0\.1 nats \| ours \|.* 0\.54 "),
        ("torch 2.7 s", "RACE", r"\| eight Gaussians, 0\.1 nats \| torch \|.* 2\.69 "),
        ("JAX 2.8 s", "RACE", r"\| eight Gaussians, 0\.1 nats \| JAX \|.* 2\.84 "),
        ("13.8 times", "RESULTS", r"\| EM, full, N = 1,000,000, D = 2, K = 10 \| [\d.]+ \| 13\.81 "),
        ("1.25 times", "RESULTS", r"\| EM, full, N = 10,000, D = 64, K = 3 \| [\d.]+ \| 1\.25 "),
        ("0.14 nats", "TOUR", r"−ELBO vs exact −E log p_θ \|.* 0\.14\d\d to 0\.14\d\d"),
    ):
        assert shown in rows
        assert re.search(row, pages[name]), row


def test_counts_are_those_of_the_package():
    assert f"shows {len(EXHIBITS)} bugs and {len(FAULTS)}\nfaults" in README
    assert len(UNSEEN) == 3
    assert "and three bugs that no check can see" in README
    assert f"| {len(EQUATIONS)} of {len(EQUATIONS)} |" in README
    idle = [row for row in EQUATIONS if not through(row, EQUATIONS)]
    assert f"| {len(idle)} of them are theory only" in README
    n_running = len(EQUATIONS) - len(idle)
    text = README.replace("\n", " ")
    assert f"For {n_running} equations the checked function is the one that models run" in text
    assert f"the other {len(idle)} are theory" in text
