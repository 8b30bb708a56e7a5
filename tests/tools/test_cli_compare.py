"""`scratchgen compare`: the table, its numbers, what it is silent about, and its errors."""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import scratchgen
from scratchgen import NoiseSchedule
from scratchgen.metrics import classifiers, frechet_distance, label_summed_bits
from scratchgen.report import cli
from scratchgen.report.commands.compare import BETTER, TITLES, _names, _text
from scratchgen.report.tables import Frame

RNG = np.random.default_rng(0)
REALS = RNG.standard_normal((60, 2)) * [100.0, 0.01] + [5.0, 0.0]
WHOLE = RNG.integers(0, 4, (60, 3))
LABELS = np.arange(60) % 2
TINY = {"hidden": (4,), "n_steps": 2, "rng": 0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with tables and models."""
    folder = tmp_path_factory.mktemp("compare")
    for name, heads, x in (
        ("reals.csv", ["a", "b"], REALS),
        ("whole.csv", ["u", "v", "w", "kind"], np.c_[WHOLE, LABELS]),
        (
            "train.csv",
            ["u", "v", "w", "kind"],
            [[*row, label] for row, label in zip((WHOLE + 0.5).tolist(), LABELS, strict=True)],
        ),
        ("other.csv", ["u", "v", "w", "kind"], np.c_[WHOLE[::-1], LABELS + 1]),
        ("few.csv", ["a", "b"], REALS[:15]),
        ("labelled.csv", ["a", "b", "kind"], np.c_[REALS, LABELS]),
    ):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([heads, *np.asarray(x, dtype=object).tolist()])
    scratchgen.GaussianMixture(rng=0).fit(REALS).save(folder / "gmm.npz")
    scratchgen.CategoricalMixture(1, 4, rng=0).fit(WHOLE).save(folder / "tables.npz")
    scratchgen.CategoricalMixture(1, 4, smoothing=0.0, rng=0).fit(WHOLE // 2).save(folder / "sharp.npz")
    ddpm = scratchgen.DDPM(NoiseSchedule.linear(4), n_classes=2, n_levels=4, prediction="levels", **TINY)
    ddpm.fit(WHOLE, LABELS).save(folder / "ddpm.npz")
    density = scratchgen.DDPM(NoiseSchedule.linear(4), n_classes=2, **TINY)
    density.fit(REALS, LABELS).save(folder / "density.npz")
    score = scratchgen.ScoreSDE(n_classes=2, n_levels=4, prediction="levels", n_sample_steps=3, **TINY)
    score.fit(WHOLE, LABELS).save(folder / "sde.npz")
    scratchgen.PPCA(1).fit(WHOLE + 0.5).save(folder / "ppca.npz")
    for name, heads in ("named", "ab"), ("other_names", "ba"):
        scratchgen.PPCA(1).fit(Frame(REALS, heads)).save(folder / f"{name}.npz")
    return folder


@pytest.fixture
def folder(files, monkeypatch):
    """The folder of the files, and a classifier of a few steps."""
    monkeypatch.chdir(files)
    monkeypatch.setattr(classifiers, "LEAST_STEPS", 3)
    monkeypatch.setattr(classifiers, "EPOCHS", 1)


def run(capsys, words, status=0):
    assert cli.main(words.split()) == status
    out, err = capsys.readouterr()
    return err if status else out


def rows_of(out):
    """Cells of the rows of the table by the first cell."""
    lines = out[out.index("   floor") :].split("\n\n")[0].splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert max(map(len, out.splitlines())) <= 80
    return {row[0]: row[1:] for row in cells}


def test_a_table_of_three_models_with_labels_and_training_data(folder, capsys):
    out = run(capsys, "compare whole.csv tables.npz ddpm.npz ppca.npz --train train.csv --labels kind --seed 4 -n 20")
    assert out.startswith("whole.csv: 60 rows, 3 columns\n")
    assert "3 draws of 20 samples against 60 rows of whole.csv; floor: 20 rows of train.csv " in " ".join(out.split())
    assert "too good" not in out
    rows = rows_of(out)
    assert list(rows) == [
        "floor", "Frechet distance", "MMD^2 x 1e4", "sliced W2^2", "precision", "recall", "density", "coverage",
        "two-sample test", "nearest train", "train on samples", "bits a column", "bits given label", "bits, summed out",
    ]  # fmt: skip
    assert rows["floor"] == ["tables", "ddpm", "ppca"]
    assert all(len(row) == 4 for name, row in rows.items() if name != "floor")
    dashes = {name: [cell == "-" for cell in row] for name, row in rows.items()}
    assert dashes["train on samples"] == [False, True, False, True]  # only the DDPM has labels
    assert dashes["bits a column"] == [True, False, False, True]  # a density has no bits of whole numbers
    assert dashes["bits given label"] == dashes["bits, summed out"] == [True, True, False, True]
    x = scratchgen.load("tables.npz").log_prob(WHOLE)
    bits = -x / (3 * np.log(2))
    assert rows["bits a column"][1] == f"{bits.mean():.3f} +- {bits.std(ddof=1) / 60**0.5:.3f}"


def test_every_row_has_a_best_value_and_every_part_is_announced(folder, capsys):
    words = "compare whole.csv ddpm.npz --train train.csv --labels kind -n 20"
    assert cli.main(words.split()) == 0
    out, err = capsys.readouterr()
    below = " ".join(out.split("\n\n")[1].split())
    rows = [name for name in rows_of(out) if name != "floor"]
    assert all(below.count(name) == 1 for name in rows)
    assert {*TITLES.values(), *rows} == {row for rows in BETTER.values() for row in rows}
    assert "higher is better precision, recall, coverage, train on samples best near 1 density, nearest train" in below
    assert "forest's test" not in below
    assert err.splitlines() == ["compare: samples of ddpm", "compare: metrics of the samples", "compare: bits"]


def test_halves_are_drawn_by_the_seed_and_columns_have_the_unit_of_their_spread(folder, capsys):
    out = run(capsys, "compare reals.csv gmm.npz --seed 4")
    rng = np.random.default_rng(4)
    order = rng.permutation(60)
    held_out, others = REALS[order[:30]], REALS[order[30:]]
    model, scale = scratchgen.load("gmm.npz"), held_out.std(axis=0)
    draws = [model.sample(30, rng=rng) for _ in range(3)]
    values = [frechet_distance(held_out / scale, draw / scale) for draw in draws]
    rows = rows_of(out)
    floor = frechet_distance(held_out / scale, others / scale)
    assert rows["Frechet distance"] == [
        _text("", floor, None),
        _text("", np.mean(values), np.std(values, ddof=1)),
    ]
    assert "nearest train" not in rows  # the command does not know the training data
    assert "train on samples" not in rows
    assert rows["bits a column"][1] != "-"
    assert run(capsys, "compare reals.csv gmm.npz --seed 4") == out
    assert run(capsys, "compare reals.csv gmm.npz --seed 5") != out


def test_samples_of_a_model_with_labels_are_those_of_their_labels(folder, capsys):
    out = run(capsys, "compare whole.csv ddpm.npz --labels kind")
    rng = np.random.default_rng(0)
    order = rng.permutation(60)
    held_out, others = order[:30], order[30:]
    labels = [rng.choice(LABELS[others], 30) for _ in range(3)]
    model = scratchgen.load("ddpm.npz")
    draws = [model.sample(30, rng=rng, y=y) for y in labels]
    rows = rows_of(out)
    values = [frechet_distance(WHOLE[held_out], draw) for draw in draws]
    assert rows["Frechet distance"][1] == _text("", np.mean(values), np.std(values, ddof=1))
    assert re.fullmatch(r"\d?\.\d+", rows["train on samples"][0])
    assert re.fullmatch(r"\d?\.\d+ \+- \d?\.\d+", rows["train on samples"][1])
    assert "bits given label" not in rows_of(run(capsys, "compare whole.csv ddpm.npz --drop kind"))


def test_bits_with_labels_are_those_of_the_metrics(folder, capsys):
    rows = rows_of(run(capsys, "compare whole.csv ddpm.npz sde.npz --train train.csv --labels kind --seed 3"))
    for name, given, summed in zip(
        ("ddpm", "sde"), rows["bits given label"][1:], rows["bits, summed out"][1:], strict=True
    ):
        model = scratchgen.load(f"{name}.npz")
        bits = -model.elbo(WHOLE, np.random.default_rng(3), y=LABELS) / (3 * np.log(2))
        assert given == _text("bits", bits.mean(), bits.std(ddof=1) / 60**0.5)
        both = label_summed_bits(model, WHOLE, [0.5, 0.5], n_repeats=2, rng=3)
        assert summed == _text("bits", both.mean, both.row_error)


def test_real_columns_have_bits_given_the_label_and_a_reason_for_the_row_left_out(folder, capsys):
    out = run(capsys, "compare labelled.csv density.npz gmm.npz --labels kind --train labelled.csv")
    rows = rows_of(out)
    bits = -scratchgen.load("density.npz").elbo(REALS, np.random.default_rng(0), y=LABELS) / (2 * np.log(2))
    assert rows["bits given label"] == ["-", _text("bits", bits.mean(), bits.std(ddof=1) / 60**0.5), "-"]
    assert "bits, summed out" not in rows
    assert "no row 'bits, summed out': it is for models of whole numbers" in " ".join(out.split())


def test_a_density_of_whole_numbers_has_no_bits_and_a_reason(folder, capsys):
    out = run(capsys, "compare whole.csv tables.npz ppca.npz --drop kind")
    assert "no bits for ppca: all cells are whole numbers, and the model has a density; fit tables," in " ".join(
        out.split()
    )
    assert rows_of(out)["bits a column"][2] == "-"
    assert "no bits" not in run(capsys, "compare whole.csv tables.npz --drop kind")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("other.csv", "half of the rows of whole.csv or more are also in other.csv: no row 'nearest train'"),
        ("whole.csv", "TRAIN whole.csv and DATA whole.csv are the same table, so that the floor means nothing, and"),
    ],
)
def test_data_that_are_also_in_the_training_table_have_no_ratio(train, message, folder, capsys):
    out = run(capsys, f"compare whole.csv tables.npz --train {train} --drop kind")
    assert message in " ".join(out.split())
    assert "nearest train" not in rows_of(out)


def test_many_rows_are_compared_with_fewer_samples(folder, monkeypatch, capsys):
    monkeypatch.setattr("scratchgen.report.commands.compare.MOST", 12)
    out = run(capsys, "compare whole.csv tables.npz --drop kind")
    assert "12 samples against 30 rows of whole.csv; floor: 12 other rows of whole.csv " in " ".join(out.split())
    assert "if a model was trained on whole.csv, its numbers are too good" in " ".join(out.split())
    assert "+-" in rows_of(out)["precision"][0]  # the rows of the floor are other ones in every repetition


def test_the_forest_is_asked_for(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    error = run(capsys, "compare whole.csv tables.npz --drop kind --forest", 2)
    assert "classifier 'forest' needs scikit-learn" in " ".join(error.split())


def test_a_row_of_probability_0_has_infinite_bits(folder, capsys):
    assert rows_of(run(capsys, "compare whole.csv sharp.npz --drop kind"))["bits a column"] == ["-", "inf"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("whole.csv gmm.npz --columns u,v,w", "gmm.npz was trained on 2 columns, and the data have 3; choose them"),
        ("whole.csv ddpm.npz --labels u", "ddpm.npz has 2 labels, and the data have 4; leave --labels out"),
        ("whole.csv tables.npz --drop kind -n 40", "-n must be in 10..30, the rows for the floor, got 40"),
        ("whole.csv tables.npz --drop kind -n 2", "-n must be in 10..30, the rows for the floor, got 2"),
        ("few.csv gmm.npz", "15 rows, 2 columns: a comparison needs 10 rows for the samples and 10 for the floor"),
        ("whole.csv ddpm.npz --train other.csv --labels kind", "--train other.csv must have the columns and labels of"),
        ("reals.csv named.npz other_names.npz", "other_names.npz was trained on other columns than the first model"),
        ("reals.csv no.npz", "path no.npz does not exist"),
    ],
)
def test_an_error_names_its_remedy(words, message, folder, capsys):
    assert message in " ".join(run(capsys, f"compare {words}", 2).split())


def test_names_of_columns_are_short_and_different():
    paths = [Path("a/model.npz"), Path("b/model.npz"), Path("a_long_name_of_a_file.npz"), Path("a_long_name_of_it.npz")]
    assert _names(paths) == ["model", "model (2)", "a_long_name_of", "a_long_nam (4)"]


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (0.96249, 0.0081, ".9625 +- .0081"),
        (9.1234, 1.0, "9.123 +- 1.000"),
        (34.411, 0.52, "34.41 +- 0.52"),
        (101.84, 1.71, "101.8 +- 1.7"),
        (12345.6, 321.2, "12346 +- 321"),
        (0.5, None, ".5000"),
        (0.5, 1.25, "0.500 +- 1.250"),
    ],
)
def test_numbers_have_14_characters_at_most(mean, spread, text):
    assert _text("", mean, spread) == text
    assert len(text) <= 14


def test_the_discrepancy_is_in_units_of_1e_minus_4():
    assert _text("mmd2", -0.000412, 0.00009) == "-4.1 +- 0.9"
    assert _text("mmd2", 0.00002, None) == ".2"
    assert _text("mmd2", -0.01051, 0.01235) == "-105 +- 124"


def test_a_training_that_was_left_early_is_said(folder, capsys):
    model = scratchgen.VAE(**TINY)
    next(model.train(REALS))
    model.save("left.npz", overwrite=True)
    out = " ".join(run(capsys, "compare reals.csv gmm.npz left.npz -n 10").split())
    assert out.count("holds a training that was left after") == 1
    assert "left.npz holds a training that was left after 1 of 2 steps; " in out
