"""The command line: what it says, what it writes, how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from scratchgen import __main__ as cli
from scratchgen.equations import EQUATIONS, PROPOSITIONS
from scratchgen.files import write_atomically
from scratchgen.report import chapters
from scratchgen.report.console import Grade

FIGURES = {
    "em",
    "vae-digits",
    "em-joint-kl",
    "vae-latents",
    "vae-drawback",
    "ddpm-process",
    "ddpm-digits",
    "ddpm-ladder",
    "sde-scores",
    "sde-trajectories",
    "sde-process",
    "sde-digits",
    "excess-loss",
    "losses",
}


def grade(difference):
    return Grade("em", "a number", 1.0 + difference, 1.0, -0.1, 0.1)


@pytest.fixture
def no_training(monkeypatch):
    """A tour that records one passing grade and draws nothing."""
    monkeypatch.setattr("scratchgen.report.figures.draw_all", lambda tour, folder: [])
    monkeypatch.setattr(chapters, "run", lambda tour: tour.grades.append(grade(0.0)))


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--seed", "3", "--quick"], ["tour", "--seed", "3", "--quick"], ["--seed", "3", "tour", "--quick"]],
)
def test_the_bare_command_is_the_tour_and_options_stand_before_or_behind_it(arguments):
    options = cli.parse(arguments)
    assert (options.seed, options.quick, options.out) == (3, True, Path("scratchgen-report"))
    assert cli.parse([]).seed == 0


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "x"], ["nonsense"], ["--unknown"]])
def test_wrong_use_ends_with_status_2_and_names_what_was_wrong(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert arguments[-1].lstrip("-") in capsys.readouterr().err


def test_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"scratchgen {cli.__version__}\n"


# --- how it ends -------------------------------------------------------------------------------------------------


def test_all_within_tolerance_is_status_0_and_one_outside_is_status_1(no_training, monkeypatch, tmp_path, capsys):
    assert cli.main(["--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 differences within tolerance"
    monkeypatch.setattr(chapters, "run", lambda tour: tour.grades.extend([grade(0.0), grade(0.2)]))
    assert cli.main(["--out", str(tmp_path / "b")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2 differences within tolerance"


@pytest.mark.parametrize(("difference", "passed"), [(0.1, True), (-0.1, True), (0.11, False), (float("nan"), False)])
def test_a_grade_passes_inside_its_tolerance_and_nan_never(difference, passed):
    assert Grade("em", "a number", difference, 0.0, -0.1, 0.1).passed is passed


def test_the_first_words_say_what_runs_with_which_seed_where_and_how_long(no_training, tmp_path, capsys):
    out = tmp_path / "report"
    cli.main(["--seed", "7", "--out", str(out)])
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "EM, VAE, DDPM and a score SDE" in first
    assert re.search(r"Seed 7; about \d+ s", second)
    assert str(out) in second


def test_an_error_is_one_line_and_traceback_shows_the_rest(monkeypatch, tmp_path, capsys):
    def fails(tour):
        raise ArithmeticError("the numbers ran out")

    monkeypatch.setattr(chapters, "run", fails)
    assert cli.main(["--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "scratchgen: ArithmeticError: the numbers ran out (--traceback shows where)"
    with pytest.raises(ArithmeticError):
        cli.main(["--out", str(tmp_path), "--traceback"])


@pytest.mark.parametrize("missing", ["rich", "matplotlib", "threadpoolctl"])
def test_a_missing_extra_is_named_with_its_remedy(missing, tmp_path):
    script = f"import sys; sys.modules[{missing!r}] = None; from scratchgen.__main__ import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert missing in line
    assert "pip install 'scratchgen[demo]'" in line
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_one_line_and_status_130(tmp_path):
    command = [sys.executable, "-m", "scratchgen", "--out", str(tmp_path / "report")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ
    )
    for line in process.stdout:
        if "linear VAE" in line:  # it is in the middle of the work
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "scratchgen: interrupted, nothing more is written\n"


# --- the report's folder -----------------------------------------------------------------------------------------


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(no_training, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert cli.main(["--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_earlier_report_is_replaced_and_that_is_said(no_training, tmp_path, capsys):
    cli.main(["--out", str(tmp_path / "report")])
    assert "go to" in capsys.readouterr().out
    assert cli.main(["--out", str(tmp_path / "report")]) == 0
    assert "replace those in" in capsys.readouterr().out


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fails(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]


# --- verify ------------------------------------------------------------------------------------------------------


def test_verify_shows_34_of_34_within_twenty_seconds():
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "scratchgen", "verify"], capture_output=True, text=True, check=False)
    assert time.perf_counter() - began < 20
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (
        lines[-1] == f"34 of 34 equations and {len(PROPOSITIONS)} of {len(PROPOSITIONS)} propositions within tolerance"
    )
    for number in range(1, 35):
        (line,) = [line for line in lines if re.match(rf" *\({number}\)  .* ok *$", line)]
        *_, left, right, residual, tolerance, _ = line.split()
        assert float(left) == pytest.approx(float(right), abs=2e-6)
        assert float(residual) < float(tolerance)
    assert max(map(len, lines)) <= 120


def test_verify_prints_what_stands_in_square_brackets(capsys):
    """Rich would take [log p] for a style and swallow it."""
    assert cli.main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "−E_q[log" in out
    assert "[f − ½" in out.replace("\n", "")


@pytest.mark.parametrize("row", EQUATIONS, ids=lambda row: row.name)
def test_verify_one_equation_in_detail(row, capsys):
    assert cli.main(["verify", row.name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"({row.name})  {row.statement}\n")
    assert (row.erratum or "right as printed") in out
    assert f"scratchgen.{row.function}" in out
    assert "within the tolerance" in out.splitlines()[-1]


def test_verify_as_json_is_everything_and_parses(capsys):
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


def test_verify_ends_with_status_1_and_says_what_is_wrong(monkeypatch, capsys):
    """A function of the package is broken; its row, and no other, is out."""
    monkeypatch.setattr("scratchgen.ddpm.q_sample", lambda schedule, t, x0, noise: schedule.alpha_bar[t] * x0 + noise)
    assert cli.main(["verify"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("33 of 34 equations")
    assert next(line for line in out if line.endswith("OUT")).split()[0] == "(25)"
    assert any(line.startswith("25: ") and "expected" in line for line in out)
    assert cli.main(["verify", "25"]) == 1
    assert "OUTSIDE the tolerance" in capsys.readouterr().out
    assert cli.main(["verify", "24"]) == 0


def test_verify_one_proposition_by_its_name(capsys):
    assert cli.main(["verify", "em"]) == 0
    assert capsys.readouterr().out.startswith("EM  the M-step maximises")


def test_verify_goes_on_when_a_function_raises(monkeypatch, capsys):
    monkeypatch.setattr("scratchgen.ddpm.q_sample", lambda *arguments: None)
    assert cli.main(["verify"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("33 of 34 equations")
    assert any(
        line.startswith("25: ddpm.q_sample raised ValueError: the function under test must return") for line in out
    )


@pytest.mark.parametrize("option", [["--seed", "3"], ["--quick"], ["--out", "x"]])
def test_verify_refuses_the_tours_options(option, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*option, "verify"])
    assert ended.value.code == 2
    assert "verify draws nothing" in capsys.readouterr().err


def test_verify_keeps_to_the_width_it_is_given():
    environment = {**os.environ, "COLUMNS": "88"}
    command = [sys.executable, "-m", "scratchgen", "verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    tables = [line for line in done.stdout.splitlines() if line.rstrip().endswith(" ok")]
    assert len(tables) == 34 + len(PROPOSITIONS)
    columns = [sum(not unicodedata.combining(character) for character in line) for line in tables]
    assert max(columns) <= 88


@pytest.mark.parametrize("number", ["0", "35", "-1", "x", "2.5"])
def test_verify_refuses_what_is_no_equation(number, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", number])
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m scratchgen verify --markdown | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("| | equation")
    piped = f"{sys.executable} -m scratchgen verify; echo $? >&2"
    done = subprocess.run(f"({piped}) | head -1", shell=True, capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("141", "0")  # 0 if the pipe held it all


# --- the whole of it, hardly trained -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_tour(tmp_path_factory):
    """The real tour with a two-hundredth of its training: everything runs, some grades must fail."""
    folder = tmp_path_factory.mktemp("tour")
    script = (
        "import sys; from scratchgen.report.tour import Tour; Tour.steps = lambda self, n: n // 200; "
        "from scratchgen.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return done, folder / "scratchgen-report"


def test_an_untrained_diffusion_model_fails_its_grades(short_tour):
    done, out = short_tour
    metrics = json.loads((out / "metrics.json").read_text())
    failed = {(g["chapter"], g["quantity"]) for g in metrics["grades"] if not g["passed"]}
    assert done.returncode == 1, done.stderr
    assert ("ddpm", "noise loss vs Bayes loss") in failed
    assert ("sde", "noise loss vs Bayes loss") in failed
    assert not {name for chapter, name in failed if chapter == "em"}


def test_the_ladder_of_likelihoods_holds_for_a_bad_model_too(short_tour):
    """H(p) <= exact −E log p_θ <= −ELBO, and the equality case of (34), need no good network."""
    _, out = short_tour
    value = {
        (g["chapter"], g["quantity"]): g["difference"] for g in json.loads((out / "metrics.json").read_text())["grades"]
    }
    assert value["ddpm", "exact −E log p_θ vs H(p)"] > 0
    assert value["ddpm", "−ELBO vs exact −E log p_θ"] > 0
    assert value["sde", "(34) right vs left, KL(p‖p_θ)"] > 0
    assert abs(value["sde", "(34) equality, s_θ = ∇log q_t"]) < 1e-6


def test_without_a_terminal_there_are_plain_lines_and_tables_fit(short_tour):
    done, _ = short_tour
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "OUT" in done.stdout


def test_it_writes_every_figure_and_every_grade(short_tour):
    done, out = short_tour
    assert {path.name for path in out.iterdir()} == {f"{name}.png" for name in FIGURES} | {"metrics.json"}
    for name in FIGURES:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    metrics = json.loads((out / "metrics.json").read_text())
    assert {g["chapter"] for g in metrics["grades"]} == {"em", "vae", "ddpm", "sde"}
    n_passed = sum(g["passed"] for g in metrics["grades"])
    assert done.stdout.splitlines()[-1] == f"{n_passed} of {len(metrics['grades'])} differences within tolerance"
    assert metrics["seed"] == 0
    assert metrics["quick"] is True
