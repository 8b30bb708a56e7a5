"""The command line: its messages, its files, its exit status."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scratchgen.models.files import write_atomically
from scratchgen.report import chapters, cli
from scratchgen.report.book import build
from scratchgen.report.book.pages import PAGES
from scratchgen.report.console import Grade
from scratchgen.report.figures import DRAWINGS
from scratchgen.report.text import columns_of
from scratchgen.report.tour import TERMS


def grade(difference):
    return Grade("em", "a number", 1.0 + difference, 1.0, -0.1, 0.1)


def write_page(path):
    path.write_text("a page")
    return path


@pytest.fixture
def no_training(monkeypatch):
    """A tour that records one passing grade and writes a page."""
    monkeypatch.setattr(build, "build", lambda folder, tour: [write_page(folder / "index.html")])
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


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"scratchgen {cli.__version__}\n"


# --- exit status -------------------------------------------------------------------------------------------------


def test_all_within_tolerance_is_status_0_and_one_outside_is_status_1(no_training, monkeypatch, tmp_path, capsys):
    assert cli.main(["--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 differences within tolerance"
    monkeypatch.setattr(chapters, "run", lambda tour: tour.grades.extend([grade(0.0), grade(0.2)]))
    assert cli.main(["--out", str(tmp_path / "b")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2 differences within tolerance"


@pytest.mark.parametrize(("difference", "passed"), [(0.1, True), (-0.1, True), (0.11, False), (float("nan"), False)])
def test_a_grade_passes_inside_its_tolerance_and_nan_never(difference, passed):
    assert Grade("em", "a number", difference, 0.0, -0.1, 0.1).passed is passed


def test_the_first_lines_name_the_models_the_seed_the_folder_and_the_time(no_training, tmp_path, capsys):
    out = tmp_path / "report"
    cli.main(["--seed", "7", "--out", str(out)])
    text = " ".join(capsys.readouterr().out.split())
    assert "EM, VAE, DDPM and a score SDE" in text
    assert re.search(r"Seed 7; about \d+ s", text)
    assert f"goes to {out}{os.sep} " in text


def test_an_error_is_one_line_and_traceback_shows_the_rest(monkeypatch, tmp_path, capsys):
    def fails(tour):
        raise ArithmeticError("the numbers ran out")

    monkeypatch.setattr(chapters, "run", fails)
    assert cli.main(["--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "scratchgen: ArithmeticError: the numbers ran out (--traceback shows where)"
    with pytest.raises(ArithmeticError):
        cli.main(["--out", str(tmp_path), "--traceback"])


@pytest.mark.parametrize("missing", ["matplotlib", "threadpoolctl"])
def test_a_missing_extra_is_named_with_its_remedy(missing, tmp_path):
    script = f"import sys; sys.modules[{missing!r}] = None; from scratchgen.report.cli import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert missing in line
    assert "pip install '.[demo]'" in line
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_one_line_and_status_130(tmp_path):
    command = [sys.executable, "-m", "scratchgen", "--out", str(tmp_path / "report")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ
    )
    for line in process.stdout:
        if "linear VAE" in line:  # a model is being trained
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "scratchgen: interrupted, nothing more is written\n"


# --- the folder of the report -----------------------------------------------------------------------------------------


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(no_training, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert cli.main(["--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_earlier_report_is_replaced_and_a_message_says_so(no_training, tmp_path, capsys):
    out = tmp_path / "report"
    cli.main(["--out", str(out)])
    assert "goes to" in capsys.readouterr().out
    (out / "notes.txt").touch()  # a file of the user stays
    assert cli.main(["--out", str(out)]) == 0
    assert "replaces that in" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"index.html", "metrics.json", "notes.txt"}


@pytest.mark.parametrize("ends", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("part", ["training", "writing"])
def test_a_tour_that_ends_early_leaves_the_earlier_report_whole(part, ends, no_training, monkeypatch, tmp_path):
    """No metrics.json without its pages: an empty folder stays empty, and a report stays as it was."""

    def fails(*arguments):
        raise ends

    cli.main(["--out", str(tmp_path / "report"), "--seed", "3"])
    if part == "training":
        monkeypatch.setattr(chapters, "run", fails)
    else:
        monkeypatch.setattr(build, "build", fails)
    for name in ("report", "fresh"):
        assert cli.main(["--out", str(tmp_path / name)]) in (2, 130)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"index.html", "metrics.json"}
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["seed"] == 3
    assert list((tmp_path / "fresh").iterdir()) == []


def test_files_of_a_killed_tour_are_cleared_away(no_training, tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "ddpm.html").touch()
    assert cli.main(["--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "metrics.json"}


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


# --- the whole tour with little training -----------------------------------------------------------------------------


SHORT_TOUR = """
import sys
from scratchgen import DDPM, CategoricalMixture, ScoreSDE, datasets
from scratchgen.report.tour import Tour

Tour.steps = lambda self, n: n // 200
digits, sample, elbo, respace = datasets.digits, CategoricalMixture.sample, ScoreSDE.elbo, DDPM.respace
datasets.digits = lambda split: datasets.Digits(*(part[::5] for part in digits(split)))
CategoricalMixture.sample = lambda self, n, rng: sample(self, n // 20, rng)
ScoreSDE.elbo = lambda self, x, rng, n_times=64: elbo(self, x, rng, n_times // 32)
DDPM.respace = lambda self, T: respace(self, T if T == 100 else T // 5)

import numpy as np
from scratchgen.conformance import Check
from scratchgen.equations import EQUATIONS, PROPOSITIONS
from scratchgen.report.book import build, reference
from scratchgen.report.book.facts import Fact
from scratchgen.report.figures import frame

frame.DPI = 40
passed = Check("check", "(1)", "a number", np.ones(1), np.ones(1), 0.0, 1e-9, "")
build.facts = lambda: {row.name: Fact(row, passed, [], []) for row in EQUATIONS + PROPOSITIONS}
build.cells.run = lambda path: []
build.draw = lambda folder: dict.fromkeys(build.ALT, (100, 100))
reference.MODULES.clear()
reference.sources = tuple

from scratchgen.report.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def short_tour(tmp_path_factory):
    """The tour with a two-hundredth of its training and with less data: every part runs, some grades fail.

    The short tour has a fifth of the digits, a twentieth of the draws of the tables, a 32nd of the times of the SDE's
    bound, and a fifth of the steps of the three short DDPMs of the ladder.  Of the book it writes the pages of text,
    without the pictures that need no tour.
    """
    folder = tmp_path_factory.mktemp("tour")
    command = [sys.executable, "-c", SHORT_TOUR, "--quick"]
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
    """H(p) <= exact −E log p_θ <= −ELBO, and (34) as an equality, need no good network."""
    _, out = short_tour
    value = {
        (g["chapter"], g["quantity"]): g["difference"] for g in json.loads((out / "metrics.json").read_text())["grades"]
    }
    assert value["ddpm", "exact −E log p_θ vs H(p)"] > 0
    assert value["ddpm", "−ELBO vs exact −E log p_θ"] > 0
    assert value["sde", "(34) right vs left, KL(p‖p_θ)"] > 0
    for law in ("eight Gaussians", "checkerboard", "two moons"):
        assert abs(value["sde", f"(34) equality, {law}"]) < 1e-6


def test_without_a_terminal_there_are_plain_lines_and_tables_fit(short_tour):
    done, _ = short_tour
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert max(map(columns_of, done.stdout.splitlines())) <= 80
    assert "OUT" in done.stdout


def test_every_loss_has_its_unit_and_every_table_its_words(short_tour):
    done, _ = short_tour
    lines = [line for line in done.stdout.splitlines() if "steps in" in line]
    text = " ".join(done.stdout.split())
    assert len(lines) == 15
    assert len(re.findall(r"loss [\d.]+ \((?:nats|squared error of ε)\)", text)) == len(lines)
    assert all(" ".join(words.split()) in text for words in TERMS.values())


def test_it_writes_the_book_with_every_figure_and_every_grade(short_tour):
    done, out = short_tour
    pages = {f"{page.name}.html" for page in PAGES}
    assert {path.name for path in out.iterdir()} == pages | {"trained", "metrics.json", "style.css", "book.js"}
    assert {path.name for path in (out / "trained").iterdir()} == {f"{name}.png" for name in DRAWINGS}
    for name in DRAWINGS:
        assert (out / "trained" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    metrics = json.loads((out / "metrics.json").read_text())
    assert {g["chapter"] for g in metrics["grades"]} == {"em", "vae", "ddpm", "sde"}
    n_passed = sum(g["passed"] for g in metrics["grades"])
    assert done.stdout.splitlines()[-1] == f"{n_passed} of {len(metrics['grades'])} differences within tolerance"
    assert metrics["seed"] == 0
    assert metrics["quick"] is True
