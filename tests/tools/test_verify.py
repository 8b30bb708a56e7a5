"""`scratchgen verify` and the options of `scratchgen museum`: their output and exit status."""

import functools
import json
import os
import re
import runpy
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from scratchgen.conformance import Check
from scratchgen.equations import BEYOND, EQUATIONS, PROPOSITIONS, slug_of, through
from scratchgen.museum.planting import planted
from scratchgen.report import cli
from scratchgen.report import verify as verify_module
from scratchgen.report.commands.verify import equation

ROWS = EQUATIONS + PROPOSITIONS
once = functools.cache(verify_module.run)


@pytest.fixture
def each_row_once(monkeypatch):
    """Run the check of a row once for all tests that look at the output only."""
    monkeypatch.setattr(verify_module, "run", once)


def test_verify_shows_34_of_34_within_ten_seconds():
    began = os.times().children_user
    done = subprocess.run([sys.executable, "-m", "scratchgen", "verify"], capture_output=True, text=True, check=False)
    assert os.times().children_user - began < 10
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    k = len(BEYOND)
    n = len(PROPOSITIONS) - k
    assert lines[-2] == f"34 of 34 equations, {n} of {n} propositions and {k} of {k} beyond the deck within tolerance"
    for number in range(1, 35):
        (line,) = [line for line in lines if re.match(rf" *\({number}\)  .* ok *$", line)]
        *_, left, right, residual, tolerance, _ = line.split()
        assert float(left) == pytest.approx(float(right), abs=2e-6)
        assert float(residual) < float(tolerance)
    assert max(map(len, lines)) <= 120


@pytest.mark.usefixtures("each_row_once")
def test_verify_prints_text_in_square_brackets(monkeypatch, capsys):
    """Rich would read [log p] as a style and remove it."""
    monkeypatch.setenv("COLUMNS", "200")  # wide enough that no text is broken into two lines
    assert cli.main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "−E_q[log" in out
    assert "[f − ½" in out


@pytest.mark.usefixtures("each_row_once")
@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row.name)
def test_verify_one_equation_in_detail(row, capsys):
    assert cli.main(["verify", row.name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"({row.name})  {row.statement}\n")
    assert (row.erratum or "right as printed") in out
    assert f"scratchgen.{row.function}" in out
    assert "runs in     " in out
    assert f"name        {slug_of(row)}\n" in out
    assert re.search(r"^ {12}\S+\.py:\d+$", out, re.M)
    verdict, _, uses = out.partition("\nThe steps and loops in which the function runs:\n")
    assert "within the tolerance" in verdict.splitlines()[-1]
    assert [line.strip()[5:].partition(": ")[0] for line in uses.splitlines()] == list(row.used_in)


def test_the_detailed_view_shows_the_largest_differences_and_whole_numbers_last(capsys):
    left, right = np.array([1.0, 0.25, np.nan, 3.0, -np.inf, 0.5]), np.array([1.0, 0.25, 2.0, 3.5, -np.inf, 0.5 + 1e-9])
    result = Check("check", "(1)", "a", left, right, np.inf, 1e-12, "wrong")
    pairs = verify_module.informative_first(result)
    assert np.isnan(pairs[0][0])
    assert pairs[1:] == [(3.0, 3.5), (0.5, 0.5 + 1e-9), (0.25, 0.25), (-np.inf, -np.inf), (1.0, 1.0)]
    cli.main(["verify", "posterior"])
    shown = capsys.readouterr().out.partition("difference\n")[2].splitlines()[:12]
    values = [float(line.split()[0]) for line in shown]
    assert not set(values) & {0.0, 1.0, -1.0}


def test_verify_of_an_equation_sees_a_fault_in_the_step_that_uses_it(capsys):
    """(29) itself is right; the step of Algorithm 1 hands its gradient back with the wrong sign."""

    def flipped(original, network, schedule, x0, t, noise, weight, **given):
        return original(network, schedule, x0, t, noise, -weight, **given)

    with planted("ddpm.train_step", flipped):
        assert cli.main(["verify", "29"]) == 1
    out = capsys.readouterr().out
    assert "within the tolerance" in out
    assert "OUT  a step of Algorithm 1: scratchgen.ddpm.train_step" in out


def test_every_row_can_be_asked_for_by_its_names():
    for row in ROWS:
        for text in (row.name, row.name.upper(), slug_of(row), f"({row.name})"):
            assert equation(text) == row.name
    assert {name for row in ROWS for name in row.used_in} <= {row.name for row in PROPOSITIONS}


def test_short_names_are_different_words_in_ascii():
    slugs = [slug_of(row) for row in ROWS]
    assert len(set(slugs)) == len(ROWS)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug) for slug in slugs)
    assert max(map(len, slugs)) <= 24
    assert not [row.name for row in ROWS if row.slug and row.slug == slug_of(row._replace(slug=""))], "not needed"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("(25)", "25"),
        ("q_sample", "25"),
        ("ddpm.q_sample", "25"),
        ("posterior", "q(x_{t−1}|x_t,x₀)"),
        ("merging", "27"),
        ("algorithm-1", "Algorithm 1"),
        ("Algorithm 1 step", "a step of Algorithm 1"),
        ("de Bruijn", "de Bruijn"),
        ("de-bruijn", "de Bruijn"),
        ("EM's rate", "EM's rate"),
        ("em-rate", "EM's rate"),
        ("draw vae", "a draw of the VAE"),
        ("tweedie", "Tweedie's covariance"),
    ],
)
def test_short_names_functions_and_words_find_their_row(text, name):
    assert cli.parse(["verify", text]).equation == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p_log_prob", "may be one of 3 rows: whole-path (22), later-states (23), three-states (24); name one"),
        ("marginal", "may be one of 2 rows: model-marginal (16), forward-marginal (25); name one"),
        ("posteriro", "did you mean posterior, posterior-kl (4)?"),
        ("algoritm 1", "did you mean algorithm-1, algorithm-1-step?"),
        ("qsample", "did you mean forward-marginal (25)?"),
        ("35", "'35' is neither a number in 1..34 nor a name; `scratchgen verify --list` prints all names"),
    ],
)
def test_a_name_of_several_rows_or_of_none_is_refused_with_candidates(text, expected, capsys):
    with pytest.raises(SystemExit):
        cli.parse(["verify", text])
    assert expected in capsys.readouterr().err


def test_the_list_has_every_short_name_and_a_place_that_an_editor_opens(tmp_path, monkeypatch, capsys):
    """The path is relative below the current directory, absolute elsewhere."""
    monkeypatch.setattr(verify_module, "run", None)  # nothing is checked
    monkeypatch.chdir(verify_module.__file__.rpartition("/scratchgen/")[0])
    assert cli.main(["verify", "--list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[-2] for line in lines] == [slug_of(row) for row in ROWS]
    assert [line[0] for line in lines[:34]] == [f"({number})" for number in range(1, 35)]
    for row, (*_, place) in zip(ROWS, lines, strict=True):
        file, _, line = place.rpartition(":")
        assert file.startswith("scratchgen/")
        source = Path(file).read_text("utf8").splitlines()[int(line) - 1 :]
        name = row.function.rpartition(".")[2]
        assert any(f"def {name}(" in text or f"class {name}" in text for text in source[:3]), place
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify", "q_sample", "--list"]) == 0
    place = capsys.readouterr().out.split()[-1].rpartition(":")[0]
    assert Path(place).is_absolute()
    assert Path(place).exists()


def test_a_function_without_source_has_a_note_for_its_place(monkeypatch):
    def no_source(thing):
        raise OSError("could not get source code")

    monkeypatch.setattr("inspect.getsourcelines", no_source)
    assert verify_module.place_of(ROWS[0]) == "source not found"


@pytest.mark.usefixtures("each_row_once")
def test_verify_as_json_parses_and_holds_every_row(capsys):
    assert cli.main(["verify", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["equation"] for record in records] == [row.name for row in EQUATIONS + PROPOSITIONS]
    for record in records:
        left, right = np.array(record["left"]), np.array(record["right"])
        assert left.shape == right.shape
        assert record["passed"] is True
        assert record["residual"] <= record["tolerance"]
    assert cli.main(["verify", "25", "--json"]) == 0
    assert [record["equation"] for record in json.loads(capsys.readouterr().out)] == ["25"]


@pytest.mark.usefixtures("each_row_once")
def test_verify_says_where_the_functions_of_the_equations_run(capsys):
    """The overview has the count; the other forms name the verbs of each function, direct or through a fast form."""
    running = [row for row in EQUATIONS if through(row, ROWS)]
    n, functions = len({row.function for row in running}), {row.function for row in EQUATIONS}
    assert cli.main(["verify"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{len(running)} of 34 equations run when models train, sample and are scored ({n} of ")
    assert f"{len(functions)} functions" in last
    assert cli.main(["verify", "--json"]) == 0
    records = {record["equation"]: record["runs_in"] for record in json.loads(capsys.readouterr().out)}
    assert records["29"] == ["DDPM.fit", "DDPM.noise_losses"]
    assert "GaussianMixture.fit through fast.em_statistics.expected_statistics" in records["16"]
    assert records["26"].startswith("theory only: ")
    assert all(
        isinstance(runs_in, list) == bool(through(row, ROWS))
        for row, runs_in in zip(ROWS, records.values(), strict=True)
    )
    assert cli.main(["verify", "16"]) == 0
    assert "through fast.em_statistics" in capsys.readouterr().out.replace("\n            ", " ")


def test_verify_ends_with_status_1_and_says_what_is_wrong(monkeypatch, capsys):
    """One function of DDPM is broken; only its row is outside the tolerance, of all equations of DDPM.

    tests/museum/test_museum.py holds the mistakes of all chapters to this.
    """
    run = verify_module.run
    for row in ROWS:
        once(row)  # before the function is replaced
    ddpm = [row for row in EQUATIONS if row.function.startswith("ddpm.")]
    monkeypatch.setattr(verify_module, "run", lambda row: run(row) if row in ddpm else once(row))
    monkeypatch.setattr("scratchgen.ddpm.q_sample", lambda schedule, t, x0, noise: schedule.alpha_bar[t] * x0 + noise)
    assert cli.main(["verify"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-2].startswith("33 of 34 equations")
    assert next(line for line in out if line.endswith("OUT")).split()[0] == "(25)"
    assert any(line.startswith("25: ") and "expected" in line for line in out)
    assert cli.main(["verify", "25"]) == 1
    assert "OUTSIDE the tolerance" in capsys.readouterr().out
    assert cli.main(["verify", "24"]) == 0


@pytest.mark.usefixtures("each_row_once")
def test_verify_one_proposition_by_its_name(capsys):
    assert cli.main(["verify", "em"]) == 0
    assert capsys.readouterr().out.startswith("EM  the M-step maximises")


def test_verify_goes_on_when_a_function_raises(monkeypatch, capsys):
    run = verify_module.run
    for row in ROWS:
        once(row)  # before the function is replaced
    monkeypatch.setattr("scratchgen.ddpm.q_sample", lambda *arguments: None)
    monkeypatch.setattr(verify_module, "run", lambda row: run(row) if row.name == "25" else once(row))
    assert cli.main(["verify"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-2].startswith("33 of 34 equations")
    assert any(line.startswith("25: ddpm.q_sample raised ValueError: q_sample must return") for line in out)


@pytest.mark.parametrize("option", [["--seed", "3"], ["--quick"], ["--out", "x"]])
def test_verify_refuses_the_tours_options(option, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*option, "verify"])
    assert ended.value.code == 2
    assert "verify draws nothing" in capsys.readouterr().err


@pytest.mark.usefixtures("each_row_once")
def test_verify_respects_the_width_of_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "88")
    assert cli.main(["verify"]) == 0
    tables = [line for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith(" ok")]
    assert len(tables) == 34 + len(PROPOSITIONS)
    columns = [sum(not unicodedata.combining(character) for character in line) for line in tables]
    assert max(columns) <= 88


@pytest.mark.parametrize("number", ["0", "35", "-1", "x", "2.5"])
def test_verify_refuses_unknown_names(number, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", number])
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_a_closed_pipe_is_no_error(tmp_path):
    """The output is as long as that of `scratchgen verify`; every row shows the result of the first."""
    script = tmp_path / "verify_with_one_result.py"
    script.write_text(
        "import sys; from scratchgen.report import cli, verify; result = verify.run(verify.ROWS[0]); "
        "verify.run = lambda row: result; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = f"{sys.executable} {script} verify --json | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("[")
    piped = f"{sys.executable} {script} verify; echo $? >&2"
    done = subprocess.run(f"({piped}) | head -1", shell=True, capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("141", "0")  # 0 if the whole output fitted into the pipe


# --- the museum ----------------------------------------------------------------------------------------------------


def test_the_museum_is_a_module_too(capsys):
    with planted("museum.tour.print_tour", lambda original: print("both wings")):
        runpy.run_module("scratchgen.museum", run_name="__main__")
    assert capsys.readouterr().out == "both wings\n"


def test_the_museum_refuses_the_tours_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--seed", "3", "museum"])
    assert "museum draws nothing" in capsys.readouterr().err
