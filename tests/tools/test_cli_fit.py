"""The commands on one's own file: fit, sample, score and info of every model, their files, reports and errors."""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

import scratchgen
from scratchgen import load, recipes
from scratchgen.metrics import classifiers
from scratchgen.report import advice, cli, files, pictures, scores
from scratchgen.report.commands import fit, sample
from scratchgen.report.settings import settings_of, value_of
from scratchgen.report.tables import Choice, read
from scratchgen.report.text import CommandError, fill, in_ascii, table
from scratchgen.report.verbs import VERBS

RNG = np.random.default_rng(0)
REALS = RNG.standard_normal((60, 3)) @ [[2.0, 1.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.5]] + [10.0, 0.0, -3.0]
WHOLE = RNG.integers(0, 4, (60, 3))
SMALL = {
    "gmm": ["n_components=2"],
    "ppca": ["n_components=2"],
    "fa": ["n_components=1"],
    "tables": ["n_components=2"],
    "vae": ["n_steps=20", "hidden=[8]"],
    "ddpm": ["n_steps=20", "hidden=(8,)", "schedule=linear(5)"],
    "sde": ["n_steps=20", "hidden=(8,)", "sde=VE(0.01, 10)", "n_sample_steps=5"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a table of reals, one of whole numbers, and nothing else."""
    monkeypatch.chdir(tmp_path)
    for name, x in ("mine.csv", REALS), ("whole.csv", WHOLE):
        with open(name, "w", newline="") as file:
            csv.writer(file).writerows([["width", "height", "depth, mm"], *x.tolist()])
    return tmp_path


def run(*words, status=0):
    assert cli.main([str(word) for word in words]) == status


def sets(name):
    return [word for setting in SMALL[name] for word in ("--set", setting)]


def rows_of(file):
    heads, *rows = csv.reader(io.StringIO(Path(file).read_text(encoding="utf8")))
    return heads, rows


@pytest.mark.parametrize("name", VERBS)
def test_a_table_becomes_a_model_samples_and_scores(name, folder, capsys):
    data = "whole.csv" if name == "tables" else "mine.csv"
    x = WHOLE.astype(float) if name == "tables" else REALS
    run("fit", name, data, "-o", "model.npz", *sets(name), "--validate", ".1", "--seed", "3")
    out = capsys.readouterr().out
    assert out.startswith(f"{data}: 60 rows, 3 columns\n  width, height, depth, mm\n")
    assert re.search(r"training +-?\d+\.\d{4} \+- .* nats a row, -?\d+\.\d{4} bits a column \(54 rows\)", out)
    assert re.search(r"validation .* \(6 rows\)", out)
    model = load("model.npz")
    assert type(model) is VERBS[name].cls
    assert model.rng == 3
    assert (
        "".join(out.split("Next:\n")[1].splitlines(keepends=True)[0])
        == "  scratchgen sample model.npz -n 1000 -o samples.csv\n"
    )

    run("sample", "model.npz", "-n", 7, "-o", "samples.csv", "--seed", 5)
    heads, rows = rows_of("samples.csv")
    assert heads == ["width", "height", "depth, mm"] == list(model.feature_names_in_)
    assert np.array_equal(np.array(rows, float), model.sample(7, rng=5))
    if name == "tables":
        assert all(re.fullmatch("[0-3]", cell) for row in rows for cell in row)
    run("sample", "model.npz", "-n", 7, "-o", "samples.npy", "--seed", 5)
    assert np.array_equal(np.load("samples.npy"), model.sample(7, rng=5))
    capsys.readouterr()
    run("sample", "model.npz", "-n", 7, "--seed", 5)
    assert capsys.readouterr().out == Path("samples.csv").read_text(encoding="utf8")

    run("score", "model.npz", data, "-o", "rows.csv", "--seed", 5)
    out = capsys.readouterr().out
    scored = (
        model.log_prob(x) if name in ("gmm", "ppca", "fa", "tables") else model.elbo(x, rng=np.random.default_rng(5))
    )
    assert f"{scored.mean():.4f} +- {scored.std(ddof=1) / 60**0.5:.2g} nats a row" in out
    assert f"{-scored.mean() / (3 * np.log(2)):.4f} bits a column (60 rows)" in out
    assert ("exact" in out) == (name in ("gmm", "ppca", "fa", "tables"))
    assert ("of a probability" in out) == (name == "tables")
    heads, rows = rows_of("rows.csv")
    assert heads == ["line", "nats", "bits_per_column"]
    assert [int(row[0]) for row in rows] == list(range(2, 62))
    assert np.array_equal([float(row[1]) for row in rows], scored)

    run("info", "model.npz")
    out = capsys.readouterr().out
    for words in (VERBS[name].cls.__name__, VERBS[name].equation.splitlines()[0].strip()[:30], "parameters", "KiB"):
        assert words in out


def test_a_recipe_gives_arguments_which_set_changes(folder, capsys):
    run("fit", "gmm", "mine.csv", "-o", "model.npz", "--recipe", "best", "--set", "n_init=2")
    out = " ".join(capsys.readouterr().out.split())
    assert "recipe tables gmm best: " in out
    arguments = dict(recipes.find("tables", "gmm").arguments)
    assert repr(load("model.npz")) == repr(scratchgen.GaussianMixture(**{**arguments, "n_init": 2}, rng=0))
    run("fit", "ppca", "mine.csv", "-o", "other.npz", "--recipe", "best")
    assert repr(load("other.npz")) == repr(recipes.tables("ppca", rng=0))
    x = np.where(np.arange(180).reshape(60, 3) == 7, np.nan, REALS)
    np.save("gaps.npy", x)
    run("fit", "ppca", "gaps.npy", "-o", "gaps.npz", "--recipe", "best")
    assert repr(load("gaps.npz")) == repr(recipes.tables("ppca", rng=0))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("weighted", [False, True])
def test_a_recipe_with_copies_trains_on_them(weighted, folder, capsys):
    x, w = scratchgen.datasets.digits("test").images[:20], np.arange(20) % 3
    np.savetxt("few.csv", np.c_[x, w], delimiter=",", header=",".join([f"p{d}" for d in range(64)] + ["w"]))
    words = ["fit", "tables", "few.csv", "-o", "m.npz", "--recipe", "best", "--set", "n_components=1"]
    run(*words, *(["--weights", "w"] if weighted else ["--drop", "w"]))
    recipe = recipes.find("digits", "tables")
    assert f"{recipe.copies} deformed copies of every image" in capsys.readouterr().out
    arguments = {**recipe.arguments, "n_components": 1}
    weights = {"sample_weight": np.tile(w, recipe.copies + 1)} if weighted else {}
    expected = scratchgen.CategoricalMixture(**arguments, rng=0).fit(recipe.rows(x, 0), **weights)
    assert np.array_equal(load("m.npz").probabilities_, expected.probabilities_)


@pytest.mark.parametrize("family", recipes.FAMILIES)
def test_the_help_of_a_model_lists_its_recipes_with_their_numbers(family, capsys):
    with pytest.raises(SystemExit):
        cli.parse(["fit", family, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for recipe in recipes.RECIPES:
        if recipe.family == family:
            assert f"{recipe.kind}: {recipe.name}" in out
            for one in recipe.measured:
                spread = f" +- {one.spread:.2g}" if one.n_seeds > 1 else ""
                assert f"{one.expected:.4g}{spread} {one.metric.split()[0]}" in out


def test_a_trained_model_of_the_package_is_named_where_a_file_is(folder, capsys):
    run("sample", "digits-tables", "-n", 3, "-o", "samples.npy")
    assert np.array_equal(np.load("samples.npy"), load("digits-tables").sample(3, rng=0))
    run("score", "digits-tables", "digits_test", "--drop", "digit")
    assert "(360 rows)" in capsys.readouterr().out
    run("info", "digits-tables")
    assert re.search(r"digits-tables, \d+\.\d KiB", capsys.readouterr().out)
    scratchgen.PPCA(1).fit(REALS).save("digits-tables")
    assert type(load("digits-tables")) is scratchgen.PPCA  # a file of the name comes first


@pytest.mark.parametrize("name", ["gmm", "ppca"])
def test_missing_cells_are_missing_values_of_the_models_that_take_them(name, folder, capsys):
    gaps = np.where(np.random.default_rng(1).random(REALS.shape) < 0.2, np.nan, REALS)
    with open("gaps.csv", "w", newline="") as file:
        words = cycle(["", "NA", "nan", " ", "NaN", "null"])
        cells = [[next(words) if np.isnan(value) else value for value in row] for row in gaps]
        csv.writer(file).writerows([["width", "height", "depth, mm"], *cells])
    run("fit", name, "gaps.csv", "-o", "model.npz", *sets(name), "--seed", "3")
    assert f"60 rows, 3 columns; {np.isnan(gaps).sum()} missing cells" in capsys.readouterr().out
    model, expected = load("model.npz"), VERBS[name].cls(2, rng=3).fit(gaps)
    assert np.array_equal(model.sample(5, rng=0), expected.sample(5, rng=0))
    run("score", "model.npz", "gaps.csv")
    assert f"{expected.score(gaps):.4f} +- " in capsys.readouterr().out
    for refusing in ["fa"], ["gmm", "--set", "covariance_type=diag"]:
        run("fit", *refusing, "gaps.csv", "-o", "other.npz", status=2)
        assert "--drop-missing" in capsys.readouterr().err
    assert "issing cells (empty, NA or nan) are missing values" in VERBS[name].note


def test_a_fit_is_that_of_python_on_the_kept_rows(folder):
    """The command line adds no randomness of its own: the split is by the seed, the model is that of Python."""
    run("fit", "gmm", "mine.csv", "-o", "a.npz", "--set", "n_components=2", "--seed", 4, "--validate", ".25")
    held = np.random.default_rng(4).permutation(60)[:15]
    rest = np.delete(REALS, held, axis=0)
    expected = scratchgen.GaussianMixture(2, rng=4).fit(rest)
    assert np.array_equal(load("a.npz").means_, expected.means_)


def test_the_noise_of_a_bound_goes_on_from_block_to_block(folder, monkeypatch):
    run("fit", "vae", "mine.csv", "-o", "m.npz", *sets("vae"))
    monkeypatch.setattr(scores, "BLOCK", 25)
    model, rng = load("m.npz"), np.random.default_rng(6)
    expected = [model.elbo(block, rng=rng) for block in (REALS[:25], REALS[25:50], REALS[50:])]
    assert np.array_equal(scores.score_rows(model, REALS, 6).rows, np.concatenate(expected))


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        ([], "try --set early_stopping=True, or --set n_steps=375 in place of 1500"),
        (["--set", "early_stopping=True", "--set", "n_iter_no_change=50"], "try --set n_steps=375 in place of 1500"),
    ],
)
def test_a_model_that_memorises_its_rows_is_told_so(more, remedy, folder, capsys, monkeypatch):
    """With early stopping the best weights are kept, so that only a low limit gives the hint."""
    np.savetxt("few.csv", np.random.default_rng(1).standard_normal((20, 3)), delimiter=",")
    if more:
        monkeypatch.setattr(advice, "MEMORISED", -99)
    long = [w for s in ("n_steps=1500", "learning_rate=.01", "hidden=[64]", "n_latents=3") for w in ("--set", s)]
    run("fit", "vae", "few.csv", "-o", "m.npz", *long, *more, "--validate", ".2")
    assert f"the model memorises rows; {remedy}" in " ".join(capsys.readouterr().out.split())
    run("fit", "vae", "few.csv", "-o", "short.npz", "--set", "n_steps=20", "--validate", ".2")
    run("fit", "gmm", "few.csv", "-o", "gmm.npz", "--validate", ".2")
    assert capsys.readouterr().out.count("memorises") == bool(more)  # a VAE, and not the mixture


def test_ppca_of_columns_with_different_units_names_the_column_and_the_remedy(folder, capsys):
    x = np.random.default_rng(1).multivariate_normal(np.zeros(3), 0.1 * np.eye(3) + 0.9, 300) * [1.0, 1e3, 1e6]
    np.savetxt("units.csv", np.c_[x, np.full(300, 2.0)], header="x,y,z,still", delimiter=",", comments="")
    run("fit", "ppca", "units.csv", "-o", "m.npz", "--drop", "still")
    found = re.search(
        r"samples of 'x' will have (\S+) times .* fit fa gives", " ".join(capsys.readouterr().out.split())
    )
    ratio = load("m.npz").sample(20_000, rng=0)[:, 0].std() / x[:, 0].std()
    assert abs(float(found[1]) / ratio - 1) < 0.05
    assert ratio > 100
    np.savetxt("same.csv", np.c_[x / x.std(axis=0), np.full(300, 2.0)], delimiter=",")
    run("fit", "ppca", "same.csv", "-o", "s.npz")  # the constant column has no spread to compare with
    run("fit", "fa", "units.csv", "--drop", "still", "-o", "fa.npz")
    text = words(capsys)
    assert "one noise variance" not in text
    found = re.search(r"x3 never varies in the data, but samples of 'x3' have a standard deviation of (\S+); ", text)
    assert abs(float(found[1]) / load("s.npz").noise_variance_ ** 0.5 - 1) < 0.2


def test_the_help_of_a_model_lists_the_roles_of_columns_that_it_takes(capsys):
    for name in VERBS:
        with pytest.raises(SystemExit):
            cli.main(["fit", name, "--help"])
        text = words(capsys)
        assert ("--labels COLUMN" in text) == (name in ("ddpm", "sde"))
        assert ("--weights COLUMN" in text) == (name in ("gmm", "ppca", "fa", "tables"))
        assert ("n_levels=(largest cell + 1)" in text) == (name == "tables")


def words(capsys, stream="out"):
    return " ".join(getattr(capsys.readouterr(), stream).split())


def test_tables_of_columns_with_different_ranges_name_the_column_and_the_remedy(folder, capsys):
    """The weights are part of both standard deviations."""
    rng = np.random.default_rng(1)
    x = np.c_[rng.integers(0, 3, 60), rng.integers(0, 300, 60), rng.integers(0, 2, 60), np.full(60, 4)]
    w = np.where(x[:, 2] < 1, 1.0, 0.1)
    np.savetxt("ranges.csv", np.c_[x, w], header="small,large,other,still,w", delimiter=",", comments="")
    given = ["ranges.csv", "--weights", "w", "--set", "n_components=3"]
    run("fit", "tables", *given, "-o", "m.npz")
    found = re.search(r"samples of '(\w+)' will have (\S+) times .* '\w+' has 0\.\.(\d)", words(capsys))
    assert found.groups()[::2] == ("other", "1")
    samples, of_data = load("m.npz").sample(100_000, rng=0)[:, 2], np.average(x[:, 2], weights=w)
    ratio = samples.std() / np.sqrt(of_data * (1 - of_data))
    assert abs(float(found[2]) / ratio - 1) < 0.1
    assert ratio > 5
    run("fit", "tables", *given, "--set", "smoothing=0", "-o", "s.npz")
    run("fit", "tables", *given, "--columns", "small,other", "-o", "c.npz")
    assert "times the standard deviation" not in words(capsys)


def test_correlations_that_one_factor_loses_are_named(folder, capsys):
    """Two pairs of columns need two factors; weights change which correlation the data have."""
    rng = np.random.default_rng(1)
    a, b, noise = (rng.standard_normal((500, n)) for n in (1, 1, 4))
    x = np.c_[a, -a, b, b] + 0.3 * noise
    np.savetxt("pairs.csv", np.c_[x, np.ones(500)], header="a,minus,b,c,w", delimiter=",", comments="")
    expected = np.corrcoef(x.T)[2, 3]
    for model in "fa", "ppca":
        run("fit", model, "pairs.csv", "--weights", "w", "-o", f"{model}.npz")
        text = words(capsys)
        found = re.search(r"correlation of '(\w+)' and '(\w+)' is (\S+) in the data and (\S+) in the model", text)
        pair = {found[1], found[2]}
        assert pair in ({"a", "minus"}, {"b", "c"})
        i = 0 if pair == {"a", "minus"} else 2
        covariance = load(f"{model}.npz").covariance()
        of_model = covariance[i, i + 1] / np.sqrt(covariance[i, i] * covariance[i + 1, i + 1])
        assert abs(float(found[3])) > 0.85
        assert abs(abs(float(found[3])) - expected) < 0.05
        assert abs(float(found[4]) - of_model) < 0.006
        assert "raise n_components=1, to 3 at most" in text
        run("fit", model, "pairs.csv", "--weights", "w", "--set", "n_components=2", "-o", f"{model}2.npz")
        assert "the correlation of" not in words(capsys)


def test_advice_needs_no_complete_rows_and_no_spread(folder, capsys):
    np.savetxt("gaps.csv", [[1.0, np.nan, 5, 1], [2, 3, 5, 4], [np.nan, 1, 5, 1], [4, 4, 5, 3]], delimiter=",")
    run("fit", "ppca", "gaps.csv", "-o", "gaps.npz")
    assert "the correlation of" not in words(capsys)
    run("fit", "gmm", "mine.csv", "-o", "one.npz")
    assert "one component is a single normal distribution" in words(capsys)
    run("fit", "gmm", "mine.csv", "--set", "n_components=2", "-o", "two.npz")
    assert "single normal" not in words(capsys)


def test_gaussians_of_few_variances_name_the_column_or_the_correlation(folder, capsys):
    x = np.random.default_rng(1).multivariate_normal(np.zeros(2), [[1.0, 0.9], [0.9, 1.0]], 300)
    np.savetxt("units.csv", x * [1.0, 1e3], delimiter=",", header="x,y", comments="")
    np.savetxt("units_alike.csv", x, delimiter=",", header="x,y", comments="")
    run("fit", "gmm", "units.csv", "--set", "covariance_type=spherical", "-o", "a.npz")
    found = re.search(r"samples of 'x' will have (\S+) times .* 'diag' and 'full' give every column", words(capsys))
    assert abs(float(found[1]) / (load("a.npz").mixture_.covariance()[0, 0] ** 0.5 / x[:, 0].std()) - 1) < 0.01
    for kind, file in ("spherical", "units_alike.csv"), ("diag", "units.csv"), ("full", "units.csv"):
        run("fit", "gmm", file, "--set", f"covariance_type={kind}", "-o", f"{kind}.npz")
        text = words(capsys)
        lost = (
            "the correlation of 'x' and 'y' is 0.90 in the data and 0.00 in the model: raise n_components, or" in text
        )
        assert lost == (kind != "full")
        assert "times the standard deviation" not in text


def test_the_largest_correlation_of_few_rows_is_no_sign_of_a_fault(folder, capsys):
    """Independent columns of 40 rows have a correlation beyond 0.3; 25 copies of the rows show that it is there."""
    x = np.random.default_rng(3).standard_normal((40, 20))
    assert np.abs(np.corrcoef(x.T) - np.eye(20)).max() > 0.4
    np.savetxt("few.csv", x, delimiter=",")
    np.savetxt("many.csv", np.tile(x, (25, 1)), delimiter=",")
    for model in "fa", "ppca":
        run("fit", model, "few.csv", "-o", f"{model}.npz")
        assert "the correlation of" not in words(capsys)
        run("fit", model, "many.csv", "-o", f"{model}2.npz")
        assert "the correlation of" in words(capsys)


def test_one_component_of_tables_loses_the_correlations(folder, capsys):
    """The correlation of the model that the advice names is that of its samples."""
    rng = np.random.default_rng(1)
    z, alone = rng.integers(0, 4, 500), rng.integers(0, 3, 500)
    np.savetxt("codes.csv", np.c_[z, z + rng.integers(0, 2, 500), alone], header="a,b,c", delimiter=",", comments="")
    correlations = []
    for k in 1, 2, 4:
        run("fit", "tables", "codes.csv", "--set", f"n_components={k}", "-o", f"{k}.npz")
        text = words(capsys)
        of_samples = np.corrcoef(load(f"{k}.npz").sample(100_000, rng=0).T)[0, 1]
        correlations.append(of_samples)
        found = re.search(r"correlation of 'a' and 'b' is 0.9\d in the data and (\S+) in the model: raise (\S+);", text)
        assert bool(found) == (of_samples < 0.6)
        if found:
            assert abs(float(found[1]) - of_samples) < 0.02
            assert found[2] == f"n_components={k}"
    assert correlations[0] < 0.02 < 0.6 < correlations[2]
    run("fit", "tables", "codes.csv", "--columns", "a", "-o", "a.npz")
    np.savetxt("still.csv", np.c_[alone, np.zeros(500)], delimiter=",")
    run("fit", "tables", "still.csv", "--set", "smoothing=0", "-o", "still.npz")
    run("fit", "tables", "still.csv", "-o", "smooth.npz")
    assert "the correlation of" not in words(capsys)


def test_advice_on_missing_cells_names_a_model_that_takes_them(folder, capsys):
    """Values that are there where another column is large vary less than all values: PPCA is right to vary more."""
    rng = np.random.default_rng(5)
    a, noise = rng.standard_normal((200, 1)), 0.05 * rng.standard_normal((200, 3))
    x = a + noise
    x[a[:, 0] < 1.2, 1] = np.nan
    np.savetxt("selected.csv", x, delimiter=",")
    run("fit", "ppca", "selected.csv", "--set", "tol=3e-4", "-o", "selected.npz")
    assert np.sqrt(load("selected.npz").covariance()[1, 1]) > 2 * np.nanstd(x[:, 1])
    assert "times the standard deviation" not in words(capsys)
    y = rng.standard_normal((200, 3)) * [1.0, 20.0, 20.0]
    y[:40, 0] = np.nan
    np.savetxt("units.csv", y, delimiter=",")
    run("fit", "ppca", "units.csv", "-o", "units.npz")
    text = words(capsys)
    assert "fit gmm gives every column its own variance" in text
    assert "fit fa" not in text
    run("fit", "gmm", "units.csv", "-o", "gmm.npz")
    np.savetxt("units.csv", y[40:], delimiter=",")
    run("fit", "ppca", "units.csv", "-o", "complete.npz")
    assert "fit fa gives every column its own noise" in words(capsys)
    run("fit", "fa", "units.csv", "-o", "fa.npz")


def test_one_outlier_among_held_out_rows_is_no_sign_of_memory():
    near, far = (scores.Score(np.full(9, value), 2, False) for value in (-1.0, -2.1))
    outlier = scores.Score(np.r_[np.full(8, -1.9), -1e6], 2, False)
    assert [advice.memorises(near, other) for other in (near, far, outlier)] == [False, True, False]


@pytest.mark.parametrize("model", ["ddpm", "sde"])
def test_labels_train_a_model_that_draws_the_wanted_class(model, folder, capsys):
    text = "a,b,kind\n" + "".join(f"{i % 2 * 10 + i / 50},{i % 7},{'hi' if i % 2 else 'lo'}\n" for i in range(60))
    Path("kinds.csv").write_text(text)
    run("fit", model, "kinds.csv", "--labels", "kind", "-o", "m.npz", *sets(model))
    out = capsys.readouterr().out
    assert "labels 0..1: 0 = hi, 1 = lo\n" in out
    x, y = read("kinds.csv", Choice(drop=("kind",))).x, np.arange(60) % 2 == 0  # lo is the second in the order of text
    bounds = [load("m.npz").elbo(x, rng=np.random.default_rng(0), y=labels) for labels in (y.astype(int), None)]
    assert "given the labels:" in " ".join(out.split())
    assert f"training    {bounds[0].mean():.4f} +- " in out
    for words, bound in ((("--labels", "kind"), bounds[0]), (("--drop", "kind"), bounds[1])):
        run("score", "m.npz", "kinds.csv", *words)
        out = capsys.readouterr().out
        assert f"{bound.mean():.4f} +- " in out
        assert ("scored without labels; --labels COLUMN gives the bound" in out) == ("--drop" in words)
    Path("three.csv").write_text(Path("kinds.csv").read_text() + "1,2,new\n" * 2)
    line = error_of(capsys, "score", "m.npz", "three.csv", "--labels", "kind")
    assert (
        "m.npz has 2 labels, and column 'kind' has 3 different values; leave --labels out and pass --drop kind" in line
    )
    assert load("m.npz").n_classes == 2
    run("sample", "m.npz", "-n", 4, "--set", "y=1", "--set", "guidance=2", "-o", "s.npy")
    assert np.array_equal(np.load("s.npy"), load("m.npz").sample(4, rng=0, y=[1] * 4, guidance=2))


def test_a_label_is_drawn_by_its_name_in_the_table(folder, capsys):
    rows = "".join(f"{i + i % 7},{'18-25' if i % 2 else 'old age'},{i % 2 + 1}\n" for i in range(60))
    Path("ages.csv").write_text("a,age,code\n" + rows)
    small = ["--set", "n_steps=2", "--set", "hidden=[4]"]
    run("fit", "ddpm", "ages.csv", "--columns", "a", "--labels", "age", "-o", "age.npz", *small)
    assert "\n  scratchgen sample age.npz --set y=18-25 -n 1000 -o samples.csv\n" in capsys.readouterr().out
    run("fit", "ddpm", "ages.csv", "--columns", "a", "--labels", "code", "-o", "code.npz", *small)
    run("fit", "ddpm", "ages.csv", "--columns", "a", "--labels", "age", "-o", "three.npz", *small, "--set=n_classes=3")
    assert "\n  scratchgen sample three.npz -n 1000 -o samples.csv\n" in capsys.readouterr().out
    capsys.readouterr()
    for file, label, code in (
        ("age.npz", "18-25", [0] * 4),
        ("age.npz", "old age", [1] * 4),
        ("age.npz", "1", [1] * 4),  # the number of a label, since no name is a number
        ("age.npz", "['old age', '18-25', 1, 0]", [1, 0, 1, 0]),
        ("age.npz", "None", None),
        ("code.npz", "1", [0] * 4),  # the name 1, which has the number 0
        ("three.npz", "1", [1] * 4),
    ):
        run("sample", file, "-n", 4, "--set", f"y={label}", "-o", "s.npy", "--force")
        assert np.array_equal(np.load("s.npy"), load(file).sample(4, rng=0, y=code))
        assert ("drawn without a label, from the law of all labels" in words(capsys)) == (code is None)
    for file, label, message in (
        ("age.npz", "young", "--set y=young: age.npz has the labels 18-25, old age; name one of them"),
        ("age.npz", "2", "--set y=2: age.npz has the labels 18-25, old age; name one of them"),
        ("code.npz", "0", "--set y=0: code.npz has the labels 1, 2; name one of them"),
        ("three.npz", "young", "--set y=young: the labels of three.npz have no names, only numbers 0..2; write"),
    ):
        assert message in error_of(capsys, "sample", file, "--set", f"y={label}")
    for setting in "y=2", "guidance=2":
        assert f"--set {setting[:-2]}: digits-vae holds a VAE, which has no labels; leave it out" in error_of(
            capsys, "sample", "digits-vae", "--set", setting
        )
    for file, line in ("age.npz", "labels 0 = 18-25, 1 = old age "), ("three.npz", "labels 0..2, without names "):
        run("info", file)
        assert line in words(capsys)


def test_a_label_may_be_named_as_a_list_is(folder):
    Path("lists.csv").write_text("a,kind\n" + "".join(f"{i + i % 7},[{i % 3 + 1}]\n" for i in range(60)))
    run("fit", "ddpm", "lists.csv", "--labels", "kind", "-o", "m.npz", "--set", "n_steps=2", "--set", "hidden=[4]")
    run("sample", "m.npz", "-n", 4, "--set", "y=[1]", "-o", "s.npy")
    assert np.array_equal(np.load("s.npy"), load("m.npz").sample(4, rng=0, y=[0] * 4))


def test_labels_of_other_names_are_refused(folder, capsys):
    text = "a,b,kind\n" + "".join(f"{i},{i % 7},{i % 2 + 1}\n" for i in range(60))
    Path("numbers.csv").write_text(text)
    Path("others.csv").write_text(text.replace(",2\n", ",3\n"))
    np.save("floats.npy", np.loadtxt("numbers.csv", delimiter=",", skiprows=1))
    run("fit", "ddpm", "numbers.csv", "--labels", "kind", "-o", "m.npz", "--set", "n_steps=2", "--set", "hidden=[4]")
    message = "m.npz was trained on the labels 1, 2, and the data have 1, 3; name the column of the same labels"
    for command in "score m.npz others.csv", "compare others.csv m.npz":
        assert message in error_of(capsys, *command.split(), "--labels", "kind")
    run("score", "m.npz", "floats.npy", "--labels", "x2", "--columns", "x0,x1")
    Path("texts.csv").write_text(text.replace(",2\n", ",2.0\n"))
    run("score", "m.npz", "texts.csv", "--labels", "kind")
    Path("alike.csv").write_text(text + "1,1,1.0\n2,2,1.0\n")
    Path("twins.csv").write_text(text + "1,1,01\n2,2,01\n")
    assert read("alike.csv", Choice(labels="kind")).classes == ("1", "1.0", "2")
    run("fit", "ddpm", "alike.csv", "--labels", "kind", "-o", "alike.npz", "--set", "n_steps=2", "--set", "hidden=[4]")
    assert "was trained on the labels" in error_of(capsys, "score", "alike.npz", "twins.csv", "--labels", "kind")
    begun, table = (
        scratchgen.DDPM(n_classes=2, n_steps=2, hidden=[4], rng=0),
        read("numbers.csv", Choice(labels="kind")),
    )
    next(iter(begun.train(table.x, table.labels)))
    begun._label_names = table.classes
    begun.save("begun.npz")
    words = ["--labels", "kind", "-o", "begun.npz", "--resume"]
    assert message.replace("m.npz", "begun.npz") in error_of(capsys, "fit", "ddpm", "others.csv", *words)
    run("fit", "ddpm", "numbers.csv", *words)


def test_levels_of_tables_are_counted_and_proposed_for_others(folder, capsys):
    run("fit", "tables", "whole.csv", "-o", "t.npz")
    assert "n_levels=4, since the largest cell is 3\n" in capsys.readouterr().out
    assert load("t.npz").n_levels == 4
    run("fit", "tables", "whole.csv", "-o", "t.npz", "--force", "--set", "n_levels=6")
    assert load("t.npz").n_levels == 6
    run("fit", "vae", "whole.csv", "-o", "v.npz", *sets("vae"))
    text = words(capsys)
    assert "with --set n_levels=4" in text
    assert "share the levels" not in text
    codes = np.c_[WHOLE[:, 0] * 7, WHOLE[:, 1] // 2]
    np.savetxt("codes.csv", codes, header="n,code", delimiter=",", comments="")
    run("fit", "vae", "codes.csv", "-o", "c.npz", *sets("vae"))
    assert "share the levels, and one of a small range, such as 'code' with 0..1, may become too wide" in words(capsys)
    run("fit", "vae", "whole.csv", "-o", "w.npz", *sets("vae"), "--set", "n_levels=4")
    run("sample", "w.npz", "-n", 9, "-o", "w.csv")
    assert all(re.fullmatch("[0-3]", cell) for row in rows_of("w.csv")[1] for cell in row)  # not 3.0
    run("fit", "tables", "mine.csv", "-o", "u.npz", status=2)
    assert "but tables are for whole numbers 0, 1, 2" in capsys.readouterr().err


def test_values_are_literals_words_and_a_few_calls():
    assert value_of("a", "3") == 3
    assert value_of("a", "[1, 2.5]") == [1, 2.5]
    assert value_of("a", "None") is None
    assert [value_of("a", word) for word in ("full", "k-means++", "'tied'")] == ["full", "k-means++", "tied"]
    assert np.array_equal(value_of("a", "linear(20)").beta, scratchgen.NoiseSchedule.linear(20).beta)
    assert value_of("a", "VE(0.01, sigma_max=50)") == scratchgen.VE(0.01, 50)
    assert value_of("a", "NoiseSchedule.cosine(T=7)").T == 7
    assert value_of("a", "log_snr_even(50, 4.5, -7)").snr[1] == scratchgen.NoiseSchedule.log_snr_even(50).snr[1]
    assert settings_of(["x=1", "y=b"], ["x", "y"], "It") == {"x": 1, "y": "b"}


@pytest.mark.parametrize(
    "text", ["__import__('os').system('true')", "VE(*[1])", "VE(**{})", "VE(f())", "open('x')", "1 +", "a.b", "(" * 300]
)
def test_no_other_code_is_evaluated(text):
    with pytest.raises(CommandError, match="cannot be read"):
        value_of("a", text)


def error_of(capsys, *words, status=2):
    run(*words, status=status)
    (line,) = capsys.readouterr().err.splitlines()
    return line


ERRORS = {
    "no argument of this name": ("fit gmm mine.csv -o n.npz --set n_component=3", "did you mean n_components?"),
    "no value": ("fit gmm mine.csv -o n.npz --set tol", "--set tol has no value; write --set NAME=VALUE"),
    "twice": ("fit gmm mine.csv -o n.npz --set tol=1 --set tol=2", "--set tol is given twice"),
    "the generator": ("fit gmm mine.csv -o n.npz --set rng=1", "the seed is the option --seed N"),
    "a wrong value": ("fit gmm mine.csv -o n.npz --set n_components=0", "ValueError: n_components must be at least 1"),
    "a wrong call": ("fit sde mine.csv -o n.npz --set sde=VE(1)", "sigma_max"),
    "a wrong ending": ("fit gmm mine.csv -o n.csv", "-o n.csv must end in .npz"),
    "no folder": ("fit gmm mine.csv -o no/n.npz", "there is no folder no; make it first"),
    "an existing model": ("fit gmm mine.csv -o m.npz", "m.npz exists; --force replaces it, --resume continues"),
    "a folder": ("fit gmm folder -o n.npz", "folder is a folder; name a .csv, .tsv, .npy or .npz file"),
    "no archive": ("fit gmm no.npz:x -o n.npz", "there is no file no.npz; look for a wrong folder"),
    "a damaged archive": ("fit gmm damaged.npz:x -o n.npz", "damaged.npz is damaged or no NumPy file of numbers"),
    "one row": ("fit gmm one_row.csv -o n.npz", "one_row.csv: 1 row, 2 columns: a model needs at least 2 rows"),
    "no name of a bundled set": ("data -o n.csv", "name a data set for -o n.csv: digits, "),
    "a picture of no rows": ("sample m.npz -n 0 -o n.png", "a picture needs at least one row; pass -n 1 or more"),
    "a name that is too long": (f"sample m.npz -n 1 -o {'n' * 300}.csv", "-o path "),
    "another class": ("fit ppca mine.csv -o m.npz --resume", "m.npz holds a GaussianMixture, not a PPCA"),
    "other arguments": ("fit gmm mine.csv -o m.npz --resume --set tol=9", "was begun with tol=0.001, not 9"),
    "no rows left": ("fit gmm mine.csv -o n.npz --validate .99", "--validate 0.99 leaves 1 of 60 rows"),
    "weights of a network": ("fit vae mine.csv -o n.npz --weights width", "--weights is for gmm, ppca, fa and tables"),
    "weights that are negative": ("fit gmm mine.csv -o n.npz --weights height", "has a negative weight in column"),
    "no such weights": ("fit gmm mine.csv -o n.npz --weights widht", "no column 'widht'; did you mean width?"),
    "a constant column": (
        "fit gmm flat.csv -o n.npz",
        "vary, but flat, b c never does; leave it out with --drop 'flat,b c'",
    ),
    "a constant column of a network": (
        "fit vae flat.csv -o n.npz",
        "'flat,b c', or, if all columns have one unit, pass --set standardize=global",
    ),
    "a fill value": ("fit gmm fill.csv -o n.npz", "would overflow, but line 3, column 'b', is 1e+99; drop fill values"),
    "a fill value in an array": ("fit gmm fill.npy -o n.npz", "but row 1, column 'x1', is 1e+99; drop fill values"),
    "no names": (
        "fit gmm mine.csv -o n.npz --columns width,widht",
        "mine.csv has no column 'widht'; did you mean width?",
    ),
    "a compressed table": ("fit gmm a.csv.gz -o n.npz", "unpack it with: gunzip -k a.csv.gz"),
    "another form": ("fit gmm a.json -o n.npz", "must end in .csv, .tsv, .npy or .npz; save the table in one of these"),
    "no arrays": ("fit gmm none.npz -o n.npz", "none.npz holds no arrays; save numbers with numpy.savez"),
    "labels of a score": ("score m.npz repeated.csv --labels kind", "m.npz has no labels, and column 'kind' has 2"),
    "labels of a mixture": ("fit gmm penguins -o n.npz --labels species", "--labels is for ddpm"),
    "too few columns": ("score m.npz mine.csv --drop width", "was trained on 3 columns, and mine.csv has 2"),
    "no such argument of sample": ("sample m.npz --set eta=0", "GaussianMixture.sample has no argument 'eta'"),
    "no picture": ("data penguins -o p.png", "-o p.png must end in .csv, .npy"),
    "existing samples": ("sample m.npz -o mine.csv", "mine.csv exists; --force replaces it"),
    "existing data": ("data penguins -o mine.csv", "mine.csv exists; --force replaces it"),
    "no such set": ("data moons", "there is no data set moons; there are digits"),
    "rows of a shipped set": ("data digits -n 5", "digits has 1797 rows and is not drawn"),
    "no model": ("sample q.npz", "path q.npz does not exist"),
    "no trained model": ("sample digits-dpm", "or name a trained model of the package: digits-tables, "),
    "no such recipe": (
        "fit gmm mine.csv -o n.npz --recipe fast",
        "gmm has no --recipe fast for tables, the kind of mine.csv; take --recipe best",
    ),
    "no such recipe of some": (
        "fit sde digits_test -o n.npz --recipe quick",
        "sde has no --recipe quick for digits, the kind of digits_test; take one of ",
    ),
    "no recipe": (
        "fit gmm digits_test -o n.npz --recipe best",
        "gmm has no --recipe best for digits, the kind of digits_test; there is none; take --set",
    ),
    "a recipe without its labels": (
        "fit ddpm digits_test -o n.npz --recipe labels",
        "--recipe labels needs labels; name their column with --labels",
    ),
    "a table as model": ("info mine.csv", "is not a model saved by scratchgen"),
    "a model as table": ("fit gmm m.npz -o n.npz", "m.npz is a model, not data; scratchgen info m.npz"),
}


@pytest.mark.parametrize(("words", "message"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line_and_leaves_the_files_alone(words, message, folder, capsys):
    run("fit", "gmm", "mine.csv", "-o", "m.npz")
    Path("flat.csv").write_text("flat,a,b c\n3,1,0\n3,2,0\n3,4,0\n")
    Path("fill.csv").write_text("a,b\n1,2\n2,1e99\n4,4\n")
    np.save("fill.npy", [[1, 2], [2, 1e99], [4, 4]])
    np.savez("none.npz")
    Path("folder").mkdir()
    Path("damaged.npz").write_bytes(b"PK")
    Path("one_row.csv").write_text("a,b\n1,2\n")
    Path("a.csv.gz").touch()
    Path("a.json").touch()
    Path("repeated.csv").write_text('width,height,"depth, mm",kind\n' + "1,2,3,0\n1,2,4,1\n" * 2)
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    line = error_of(capsys, *re.split(" (?!50)", words))
    assert line.startswith("scratchgen: ")
    assert message in line
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_file_that_appears_meanwhile_is_kept(folder, monkeypatch, capsys):
    run("fit", "gmm", "mine.csv", "-o", "m.npz")
    monkeypatch.setattr(sample, "check_output", lambda *given: None)  # found no file yet
    assert "mine.csv exists; --force replaces it" in error_of(capsys, "sample", "m.npz", "-o", "mine.csv")


def test_the_options_of_the_tour_are_of_no_other_command(folder, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--quick", "sample", "m.npz"])
    assert "--quick and --out are options of the tour, not of sample" in words(capsys, "err")


def test_scores_of_rows_are_written_as_an_array(folder):
    run("fit", "gmm", "mine.csv", "-o", "m.npz")
    run("score", "m.npz", "mine.csv", "-o", "rows.npy")
    nats = load("m.npz").log_prob(REALS)
    np.testing.assert_allclose(np.load("rows.npy"), np.stack([nats, -nats / 3 / np.log(2)], axis=1), rtol=1e-12)


def test_a_class_that_no_command_fits_has_no_equation_in_info(folder, capsys):
    scratchgen.LinearVAE(1, n_steps=2, rng=0).fit(REALS).save("m.npz")
    run("info", "m.npz")
    text = words(capsys)
    assert "class LinearVAE arguments" in text
    assert "equation" not in text


def test_whole_numbers_of_many_levels_are_no_hint(folder, capsys):
    np.savetxt("many.csv", np.c_[np.arange(300), np.arange(300) % 7], fmt="%d", delimiter=",")
    run("fit", "vae", "many.csv", "-o", "v.npz", *sets("vae"))
    assert "whole numbers" not in words(capsys)


@pytest.mark.parametrize("value", ["1", "0", "nan"])
def test_a_fraction_is_between_0_and_1(value, folder, capsys):
    with pytest.raises(SystemExit):
        cli.main(["fit", "gmm", "mine.csv", "-o", "n.npz", "--validate", value])
    assert f"must be between 0 and 1, such as .1, got {value}; see" in capsys.readouterr().err


@pytest.mark.parametrize("names", [",", "", "width,width"])
def test_names_of_columns_are_some_and_different(names, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "gmm", "mine.csv", "-o", "n.npz", "--columns", names])
    assert ended.value.code == 2
    assert f"must be different names, separated by commas, got {names!r}; see" in capsys.readouterr().err


def test_a_folder_without_permission_is_found_before_the_work(folder, monkeypatch, capsys):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    assert "the folder . may not be written; name a file in" in error_of(
        capsys, *["fit", "gmm", "mine.csv", "-o", "n.npz"]
    )


def test_without_memory_the_error_has_a_remedy(folder, monkeypatch, capsys):
    def train(self, x, sample_weight=None, resume=False):
        raise MemoryError("Unable to allocate 75 GiB")

    monkeypatch.setattr(scratchgen.PPCA, "train", train)
    line = error_of(capsys, "fit", "ppca", "mine.csv", "-o", "n.npz")
    assert line.startswith("scratchgen: MemoryError: Unable to allocate 75 GiB")
    assert line.endswith("; use fewer columns or rows, or smaller arguments")


def test_a_wide_table_is_said_to_be_slow(folder, monkeypatch, capsys):
    monkeypatch.setattr(fit, "WIDE", 2)
    run("fit", "ppca", "mine.csv", "-o", "n.npz")
    assert "a covariance of 3 columns has 6 numbers, which is slow" in capsys.readouterr().out
    run("fit", "ppca", "mine.csv", "-o", "n.npz", "--drop", "width", "--force")
    run("fit", "vae", "mine.csv", "-o", "n.npz", "--force", *sets("vae"))
    assert "slow" not in capsys.readouterr().out


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@pytest.mark.filterwarnings("always:components .* have collapsed")
def test_a_terminal_shows_errors_and_warnings_broken_between_words(folder, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")  # without a bar
    run("fit", "gmm", "mine.csv", "-o", "no/n.npz", status=2)
    with pytest.raises(SystemExit):
        cli.main(["fit", "gmm", "mine.csv", "-o", "n.npz", "--seed", "-1"])
    Path("line.csv").write_text("a,b\n1,2\n2,4\n3,6\n5,10\n")
    run("fit", "gmm", "line.csv", "-o", "n.npz")
    text = sys.stderr.getvalue()
    assert text.startswith(
        "scratchgen: -o no/n.npz: there is no\nfolder no; make it first\nscratchgen fit gmm: argument"
    )
    assert "scratchgen: warning: components [0] of 1 have collapsed; lower" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 40


def test_closed_streams_are_no_reason_to_fail(folder, monkeypatch, capsys):
    """As in `scratchgen ... >&-`; only rows need a place to go."""
    monkeypatch.setattr(sys, "stdout", None)
    run("fit", "gmm", "mine.csv", "-o", "m.npz")
    assert "standard output is closed; name a file with -o" in error_of(capsys, "sample", "m.npz")
    run("sample", "m.npz", "-n", 3, "-o", "s.csv")
    monkeypatch.setattr(sys, "stderr", None)
    run("info", "no.npz", status=2)


def test_a_closed_pipe_does_not_lose_the_training(folder, monkeypatch):
    """The model is saved before the first line after the training."""

    def closed(text):
        if "steps in" in text:
            raise BrokenPipeError

    monkeypatch.setattr(fit, "say", closed)
    monkeypatch.setattr(cli.os, "dup2", lambda *files: None)
    with open(os.devnull, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        run("fit", "vae", "mine.csv", "-o", "m.npz", *sets("vae"), status=141)
    assert len(load("m.npz").losses_) == 20


def test_files_are_replaced_with_force(folder):
    run("fit", "gmm", "mine.csv", "-o", "m.npz")
    run("fit", "ppca", "mine.csv", "-o", "m.npz", "--force")
    assert type(load("m.npz")) is scratchgen.PPCA
    run("sample", "m.npz", "-n", 1, "-o", "s.csv")
    run("sample", "m.npz", "-n", 3, "-o", "s.csv", "--force")
    assert len(rows_of("s.csv")[1]) == 3


def test_data_writes_what_fit_reads(folder, capsys):
    run("data")
    out = capsys.readouterr().out
    assert "penguins\n" in out
    assert "licence: CC0 1.0" in out
    run("data", "two_moons", "-n", 50, "--seed", 3, "-o", "moons.csv")
    x = np.array(rows_of("moons.csv")[1], float)
    assert np.array_equal(x, scratchgen.datasets.two_moons().sample(50, rng=3))
    run("data", "digits_test", "-o", "digits.npy")
    assert np.array_equal(np.load("digits.npy"), scratchgen.datasets.digits("test").images)
    capsys.readouterr()
    run("data", "penguins")
    assert capsys.readouterr().out.startswith(
        "bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g\n39.1,18.7,181"
    )


# --- weights of rows ------------------------------------------------------------------------------------------------


WEIGHTS = np.random.default_rng(1).integers(0, 4, 60)


@pytest.fixture
def weighted(folder):
    """The tables with a column of whole weights, and with every row as often as its weight says."""
    for name, x in ("real", REALS), ("whole", WHOLE):
        for file, rows in (
            (f"{name}_w.csv", [["a", "w", "b", "c"], *np.insert(x.astype(object), 1, WEIGHTS, axis=1).tolist()]),
            (f"{name}_repeated.csv", [["a", "b", "c"], *np.repeat(x, WEIGHTS, axis=0).tolist()]),
        ):
            with open(file, "w", newline="") as stream:
                csv.writer(stream).writerows(rows)
    return folder


def scored_lines(text):
    """The mean, without its error, and the bits of every line of scores."""
    return re.findall(r"(-?[\d.]+) \+- [\d.]+ nats a row, (-?[\d.]+) bits", text)


@pytest.mark.parametrize(("name", "kind"), [("gmm", "real"), ("ppca", "real"), ("fa", "real"), ("tables", "whole")])
def test_a_weighted_row_counts_as_so_many_rows(name, kind, weighted, capsys):
    run("fit", name, f"{kind}_w.csv", "--weights", "w", "-o", "w.npz")
    out = capsys.readouterr().out
    assert out.startswith(f"{kind}_w.csv: 60 rows, 3 columns\n  a, b, c\n")
    assert f"({(WEIGHTS > 0).sum()} rows with weights)" in " ".join(out.split())
    assert f"scratchgen score w.npz {kind}_w.csv --weights w\n" in out
    run("fit", name, f"{kind}_repeated.csv", "-o", "r.npz")
    repeated = capsys.readouterr().out
    assert scored_lines(out) == scored_lines(repeated) != []
    x = WHOLE if kind == "whole" else REALS
    assert np.allclose(load("w.npz").log_prob(x), load("r.npz").log_prob(x), rtol=1e-9)
    run("fit", name, f"{kind}_w.csv", "--drop", "w", "-o", "u.npz")  # weights matter
    assert not np.allclose(load("u.npz").log_prob(x), load("r.npz").log_prob(x), rtol=1e-3)
    capsys.readouterr()
    run("score", "w.npz", f"{kind}_w.csv", "--weights", "w")
    assert scored_lines(capsys.readouterr().out) == scored_lines(repeated)
    run("score", "w.npz", f"{kind}_w.csv")
    out = capsys.readouterr().out
    assert out.startswith(f"{kind}_w.csv: 60 rows, 3 columns; left out: w\n")
    assert f"{load('w.npz').log_prob(x).mean():.4f} +- " in out


def test_held_out_rows_keep_their_weights(weighted, capsys):
    run("fit", "ppca", "real_w.csv", "--weights", "w", "-o", "w.npz", "--validate", ".25", "--seed", 4)
    out = capsys.readouterr().out
    held = np.sort(np.random.default_rng(4).permutation(60)[:15])
    rest = np.setdiff1d(np.arange(60), held)
    expected = scratchgen.PPCA(rng=4).fit(REALS[rest], sample_weight=WEIGHTS[rest])
    assert np.array_equal(load("w.npz").log_prob(REALS), expected.log_prob(REALS))
    means = [expected.score(REALS[rows], sample_weight=WEIGHTS[rows]) for rows in (rest, held)]
    assert [float(mean) for mean, _ in scored_lines(out)] == pytest.approx(means, abs=5e-5)


def test_the_error_of_a_weighted_mean_is_that_of_the_mean_at_equal_weights():
    rows = RNG.standard_normal(500)
    equal, none = (scores.Score(rows, 2, False, weights) for weights in (np.full(500, 2.0), None))
    assert equal.text() == none.text().replace("rows)", "rows with weights)")
    weights = np.r_[np.ones(250), np.zeros(250)]  # half of the rows
    half = scores.Score(rows[:250], 2, False, None)
    assert scores.Score(rows, 2, False, weights).text() == half.text().replace("rows)", "rows with weights)")
    draws = np.random.default_rng(2).standard_normal((20000, 40))
    weights = np.linspace(0.1, 3, 40)
    error = float(re.search(r"\+- (\S+) ", scores.Score(draws[0], 1, False, weights).text())[1])
    assert error == pytest.approx((draws @ weights / weights.sum()).std(), rel=0.35)


def test_a_row_of_weight_0_may_be_impossible():
    rows = np.array([-np.inf, -1.0, -2.0])
    assert "2 rows with weights" in scores.Score(rows, 2, True, np.array([0.0, 1, 1])).text()
    assert scores.Score(rows, 2, True, np.array([1.0, 1, 1])).text().startswith("-inf: 1 of 3 rows")


@pytest.mark.parametrize("name", ["gmm", "fa"])
@pytest.mark.filterwarnings("ignore:EM has not converged")
def test_the_command_that_continues_has_the_weights(name, weighted, monkeypatch, capsys):
    words = ["fit", name, "real_w.csv", "--weights", "w", *("--set", "n_components=2", "--set", "tol=0")]
    words += ["--set", "max_iter=20", "-o"]
    interrupt(monkeypatch, VERBS[name].cls, 4)
    line = error_of(capsys, *words, "m.npz", status=130)
    again = shlex.split(line.split("continue: scratchgen ")[1])
    without = [word for word in again if word not in ("--weights", "w")]
    assert "x is not the data" in error_of(capsys, *without, "--drop", "w")
    run(*again, "--set", "verbose=True")  # the one argument that may change
    assert "at most" in capsys.readouterr().err
    run(*words, "n.npz")
    assert load("m.npz").sample(7, rng=1).tobytes() == load("n.npz").sample(7, rng=1).tobytes()


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoints_are_written_on_the_way(folder, monkeypatch):
    """With no least time between them, one is written at every tenth."""
    saved = []
    monkeypatch.setattr(fit, "SAVED_EVERY", (-1.0, 60.0))
    save = scratchgen.VAE.save

    def counting(model, out, **options):
        save(model, out, **options)
        saved.append(len(load(out).losses_))

    monkeypatch.setattr(scratchgen.VAE, "save", counting)
    run("fit", "vae", "mine.csv", "-o", "m.npz", *sets("vae"))
    assert saved == [*range(2, 20, 2), 20]


def interrupt(monkeypatch, cls, step):
    """Let the training of a class end with Ctrl-C after this many steps, once."""
    train = cls.train

    def interrupted(self, *data, **options):
        for progress in train(self, *data, **options):
            yield progress
            if progress.step == step:
                monkeypatch.setattr(cls, "train", train)
                raise KeyboardInterrupt

    monkeypatch.setattr(cls, "train", interrupted)


@pytest.mark.filterwarnings("ignore:EM has not converged")
@pytest.mark.parametrize("name", ["vae", "ddpm", "sde", "gmm", "fa"])
def test_ctrl_c_leaves_a_training_that_resumes_to_the_same_bytes(name, folder, monkeypatch, capsys):
    cls, validate = VERBS[name].cls, ("--validate", ".1", "--seed", 2)
    em = ("--set", "n_components=2", "--set", "tol=0", "--set", "max_iter=40")
    settings, step = (em, 4) if name in ("gmm", "fa") else (sets(name), 15)
    words = ["fit", name, "mine.csv", *settings, "--drop", '"depth, mm"', *validate, "-o"]
    interrupt(monkeypatch, cls, step)
    line = error_of(capsys, *words, "m.npz", status=130)
    assert line.startswith(f"scratchgen: interrupted, m.npz holds the training of {step} steps; continue: scratchgen ")
    again = shlex.split(line.split("continue: scratchgen ")[1])
    assert again[-1] == "--resume"
    left = f"m.npz holds a training that was left after {step} of {'at most 40' if settings is em else 20} steps; "
    left += "scratchgen fit with the same arguments and --resume continues it"
    capsys.readouterr()
    assert error_of(capsys, "sample", "m.npz", "-n", 2, status=0) == f"scratchgen: {left}"
    for command in ["score", "m.npz", "mine.csv"], ["info", "m.npz"]:
        run(*command)
        text = " ".join(capsys.readouterr().out.split())
        assert left in text
        assert "raise max_iter" not in text
    run(*again)
    run("score", "m.npz", "mine.csv")
    run("sample", "m.npz", "-n", 2)
    out, error = capsys.readouterr()
    assert "was left" not in out + error
    run(*words, "n.npz")
    first, second = load("m.npz"), load("n.npz")
    assert first.training_state_ is None
    assert list(first.feature_names_in_) == ["width", "height"]
    assert first.sample(7, rng=1).tobytes() == second.sample(7, rng=1).tobytes()
    assert error_of(capsys, *again) == (
        "scratchgen: the training in m.npz has ended; begin again with --force in place of --resume"
    )


def test_resume_refuses_other_rows_and_starts_without_a_file(folder, monkeypatch, capsys):
    words = ["fit", "vae", "mine.csv", "-o", "m.npz", *sets("vae"), "--resume"]
    interrupt(monkeypatch, scratchgen.VAE, 5)
    line = error_of(capsys, *words, status=130)
    assert "continue: " in line
    assert "x is not the data of the training" in error_of(capsys, *words, "--validate", ".1")
    assert error_of(capsys, *words, "--columns", "height,width") == (
        "scratchgen: m.npz was begun with the columns width, height, depth, mm, not height, width; choose them with "
        "--columns 'width,height,\"depth, mm\"', or begin again with --force in place of --resume"
    )
    run(*words)
    Path("m.npz").unlink()
    capsys.readouterr()
    run(*words)
    assert "there is no m.npz yet, so that training starts from the beginning" in capsys.readouterr().out


def test_ctrl_c_before_the_first_step_writes_nothing(folder, monkeypatch, capsys):
    def interrupted(self, x, resume=False):
        raise KeyboardInterrupt

    monkeypatch.setattr(scratchgen.VAE, "train", interrupted)
    line = error_of(capsys, "fit", "vae", "mine.csv", "-o", "n.npz", *sets("vae"), status=130)
    assert line == "scratchgen: interrupted, before the first step; no file was written"
    assert not Path("n.npz").exists()
    assert not Path("n.npz").exists()


# --- what the core install does -----------------------------------------------------------------------------------


WITHOUT = (
    "import sys\nfor name in ('rich', 'matplotlib', 'threadpoolctl', 'pandas', 'sklearn'): sys.modules[name] = None\n"
    "from scratchgen.report.cli import main; sys.exit(main(sys.argv[1:]))"
)


def core(*words, **environment):
    """Run the command line in a fresh interpreter without the extras."""
    root = str(Path(scratchgen.__file__).parents[1])
    env = os.environ | {"PYTHONPATH": root, **environment}
    command = [sys.executable, "-W", "error", "-c", WITHOUT, *words]
    return subprocess.run(command, capture_output=True, check=False, env=env, timeout=120)


def test_without_the_extras_all_but_pictures_and_the_tour_run(folder):
    for words in (
        "fit gmm mine.csv -o m.npz",
        "fit ddpm mine.csv -o d.npz --set n_steps=3 --set hidden=[4] --set schedule=linear(3)",
        "sample m.npz -n 3 -o s.csv",
        "score d.npz s.csv",
        "info m.npz",
        "data",
        "verify 25",
    ):
        done = core(*words.split())
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
    records = json.loads(core("verify", "25", "--json").stdout)
    assert records[0]["passed"] is True
    for words in ("sample m.npz -o s.png", "tour"):
        done = core(*words.split())
        assert done.returncode == 2
        assert b"pip install '.[demo]'" in done.stderr
    assert not Path("s.png").exists()


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "NO_COLOR": "1"}


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "fit --help",
        "fit ddpm --help",
        "verify 21",
        "verify 21 --json",
        "info m.npz",
        "fit fa no.csv -o é.npz",
    ],
)
def test_outputs_in_ascii_hold_no_other_letters_and_do_not_fail(words, folder):
    run("fit", "gmm", "mine.csv", "-o", "m.npz")
    done = core(*words.split(), **ASCII)
    assert done.returncode == (2 if "no.csv" in words else 0), done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert b"Traceback" not in done.stderr


def test_every_letter_of_the_package_has_an_ascii_form():
    letters = set("".join(path.read_text(encoding="utf8") for path in Path(scratchgen.__file__).parent.rglob("*.py")))
    assert {letter for letter in letters if "?" in in_ascii(letter)} == {"?"}
    assert "".join(map(in_ascii, "ε̂ ≤ ᾱ₁ + σ²·λ⁻¹")) == "epsilon_hat <= alpha_bar1 + sigma^2*lambda^-^1"
    assert in_ascii("中") == "?"


def test_a_closed_pipe_ends_a_long_sample(folder):
    run("fit", "gmm", "mine.csv", "-o", "m.npz")
    root = str(Path(scratchgen.__file__).parents[1])
    command = f"{sys.executable} -m scratchgen sample m.npz -n 20000 | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": root}
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_ctrl_c_in_a_process_ends_with_130(folder):
    root = str(Path(scratchgen.__file__).parents[1])
    command = [sys.executable, "-m", "scratchgen", "fit", "sde", "mine.csv", "-o", "m.npz", "--set", "n_steps=1000000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root, "PYTHONUNBUFFERED": "1"},
    )
    process.stdout.readline()
    process.stdout.readline()  # the table is read, and training begins
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.startswith("scratchgen: interrupted, ")


# --- texts -----------------------------------------------------------------------------------------------------------


def test_paragraphs_are_joined_and_broken_and_indented_lines_hang():
    text = "One line\nand its rest.\n\n  name   what it is\n  x = a + b + c"
    assert fill(text, 14) == "One line and\nits rest.\n\n  name   what\n    it is\n  x = a + b +\n    c"
    assert fill(text, 20) == "One line and its\nrest.\n\n  name   what it is\n  x = a + b + c"


def test_a_table_keeps_its_columns_and_breaks_one_between_words():
    rows = [("a", "one two three four five", "1.5"), ("bb", "ᾱ", "-10.25")]
    assert table(("", "text", "x"), rows, "rwr", 26) == [
        "    text                 x",
        " a  one two three      1.5",
        "    four five",
        "bb  ᾱ               -10.25",
    ]


def test_a_row_without_probability_is_said(folder, capsys):
    Path("a.csv").write_text("a,b\n0,1\n1,1\n0,0\n")
    Path("b.csv").write_text("a,b\n0,1\n2,1\n")
    run("fit", "tables", "a.csv", "-o", "m.npz", "--set", "n_levels=3", "--set", "smoothing=0")
    run("score", "m.npz", "b.csv")
    assert "-inf: 1 of 2 rows have probability 0 in the model\n" in capsys.readouterr().out


def test_a_picture_is_written_for_each_kind_of_rows(folder, capsys, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_IMAGES", 10)
    for name, data, setting in (("gmm", "mine.csv", "tol=1"), ("tables", "digits_test", "n_levels=17")):
        run("fit", name, data, "-o", f"{name}.npz", "--set", setting)
        run("sample", f"{name}.npz", "-n", 12, "-o", f"{name}.png")
    out = capsys.readouterr().out
    assert "gmm.png: 12 rows, 3 columns, drawn with seed 0\n" in out
    assert "tables.png: 12 pictures of 8 x 8, of which 10 are shown, drawn with seed 0\n" in out
    run("sample", "tables.npz", "-n", 1, "-o", "tables.png", "--force")
    assert "tables.png: 1 picture of 8 x 8, drawn with seed 0\n" in capsys.readouterr().out
    for columns in ("width", "width,height"):
        run("fit", "gmm", "mine.csv", "-o", "few.npz", "--columns", columns, "--force")
        run("sample", "few.npz", "-o", "few.png", "--force")
        assert Path("few.png").read_bytes().startswith(b"\x89PNG")
    assert Path("tables.png").read_bytes().startswith(b"\x89PNG")
    run("fit", "gmm", "digits_test", "-o", "wide.npz", "--columns", ",".join(f"pixel{d}" for d in range(17, 27)))
    run("sample", "wide.npz", "-o", "wide.png", status=2)
    assert not Path("wide.png").exists()


# --- help ------------------------------------------------------------------------------------------------------------

COMMANDS = [
    "",
    "fit",
    *(f"fit {name}" for name in VERBS),
    "sample",
    "score",
    "compare",
    "info",
    "data",
    "tour",
    "verify",
    "museum",
    "audit",
]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_equation_an_example_and_a_time_and_fits_the_terminal(command, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= min(width, 80)
    assert "Example:" in out
    text = " ".join(out.split())
    if command:
        assert re.search(r"\(\d+\)", text) or command in ("info", "data")
        assert "Typical time:" in text
    if command.startswith("fit "):
        for name, parameter in VERBS[command[4:]].cls._parameters().items():
            of_data = command == "fit tables" and name == "n_levels"
            assert name == "rng" or of_data or f"{name}={parameter.default!r}" in text


def examples_of(command, capsys):
    """The words of every example in the help of a command."""
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    lines = re.search(r"Example:\n((?:  .*\n)+)", capsys.readouterr().out)[1]
    return [shlex.split(re.split("[|>]", line)[0]) for line in lines.splitlines()]


SLOW = ("tour", "museum", "verify")  # without arguments; their examples, and that of a picture, are parsed only
SHORT = {"vae": ["n_steps=2"], "ddpm": ["n_steps=2", "schedule=linear(5)"], "sde": ["n_steps=2", "n_sample_steps=5"]}


def test_the_examples_of_every_help_run_as_they_stand(folder, monkeypatch, capsys):
    """In one folder, with short trainings; only audit needs a file of one's own."""
    monkeypatch.setattr(classifiers, "LEAST_STEPS", 1)
    monkeypatch.setattr(classifiers, "EPOCHS", 1)
    Path("mine.csv").unlink()
    Path("mine.py").write_text(
        "import numpy as np\nbetas = np.linspace(1e-4, 0.02, 100)\na = np.cumprod(1 - betas)\n"
        "def q_sample(t, x0, e):\n    return np.sqrt(a[t]) * x0 + np.sqrt(1 - a[t]) * e\n"
        "def audit_me():\n    return {'betas': betas, 'zero_based': True, 'q_sample': q_sample}\n"
    )
    commands = sorted(COMMANDS, key=lambda command: not command.startswith("fit"))
    for command in commands:
        for name, *words in examples_of(command, capsys):
            assert name == "scratchgen"
            options = cli.parse(words)
            if (words[0] in SLOW and not getattr(options, "equation", None)) or "samples.png" in words:
                continue
            if words[0] in ("fit", "sample", "data", "score") and "-o" in words:
                words.append("--force")
            if words[0] == "compare":
                words += ["-n", "10"]
            if words[0] == "fit":
                words += [word for setting in SHORT.get(words[1], []) for word in ("--set", setting)]
            run(*words)


def test_the_help_quotes_what_a_shell_would_read():
    for verb in VERBS.values():
        for call in re.findall(r"\S*\w\([^ ]*\)\S*", verb.note):
            assert not re.search("=[A-Za-z]", call) or call.startswith("'"), call
