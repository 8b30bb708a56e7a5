"""The page of quality from units of every kind; their classifiers are those of scikit-learn."""

import json

import pytest

from benchmarks.quality import ablations, records, report
from benchmarks.quality.parts import PARTS

pytest.importorskip("matplotlib")


@pytest.fixture
def options(tmp_path):
    return records.Options(tmp_path, tmp_path / "models", quick=True, seeds=(0,))


def unit(part, name, options):
    return next(one for one in PARTS[part][0](options) if one.name == name)


def test_units_of_every_kind_fill_the_page(options, tmp_path):
    wanted = {
        "digits": ["KDE memoriser", "sde best", "sde labels"],
        "ablations": [ablations.BASE],
        "chains": ["log-SNR 4.5 to -7, T = 25; optimal-diag"],
        "plane": ["eight_gaussians, ddpm default", "checkerboard, gmm best"],
        "tables": ["ppca best"],
        "canary": ["20 more copies"],
        "curves": ["recipe"],
        "times": ["sde / 8"],
    }
    assert set(wanted) == set(PARTS)
    for part, names in wanted.items():
        records.run([unit(part, name, options) for name in names], options)
    report.write(options)
    page = (tmp_path / "QUALITY.md").read_text()
    for i in range(1, 8):
        assert f"## Evidence {i}: " in page
    in_tables = ("digits", "ablations", "plane", "tables", "canary")
    heads = [name.split(", ")[-1] for part in in_tables for name in wanted[part]]
    assert all(f"| {head} |" in page for head in heads)
    figures = sorted(path.stem for path in tmp_path.glob("*.png"))
    assert figures == ["curves", "distances", "grid", "nearest", "times"]
    assert all(f"]({name}.png)" in page for name in figures)
    assert "**With --quick: the numbers mean nothing.**" in page
    numbers = json.loads((tmp_path / "recipes.json").read_text())
    assert numbers["digits sde best"][0]["n_seeds"] == 1
    assert {row["data"] for row in numbers["plane gmm best"]} == {"checkerboard"}
    assert "other settings" not in page
    records.run([unit("tables", "ppca best", options)._replace(about="other")], options)
    assert "**1 of them have other settings than the code has now.**" in report.source(
        report.in_order("tables", options), "tables"
    )
