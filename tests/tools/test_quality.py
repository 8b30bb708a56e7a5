"""`python -m benchmarks.quality` and `benchmarks.pretrain`: units, records, floors, the page, and shipped models."""

import json

import numpy as np
import pytest

from benchmarks import pretrain
from benchmarks.machine import machine
from benchmarks.quality import ablations, digits, plane, records, report, samples
from benchmarks.quality.parts import PARTS
from scratchgen import ScoreSDE, datasets, load
from scratchgen.likelihood import log_bin_mass
from scratchgen.models.files import SHIPPED


@pytest.fixture
def options(tmp_path):
    return records.Options(tmp_path, tmp_path / "models", quick=True, seeds=(0,))


def unit(part, name, options):
    return next(one for one in PARTS[part][0](options) if one.name == name)


# --- floors ----------------------------------------------------------------------------------------------------------


def test_validation_images_are_a_fifth_of_every_class_of_the_training_images():
    fit, held = digits.validation()
    whole = datasets.digits("train")
    together = np.concatenate([np.c_[part.images, part.labels] for part in (fit, held)])
    assert sorted(together.tolist()) == sorted(np.c_[whole.images, whole.labels].tolist())
    assert (np.bincount(held.labels) == np.bincount(whole.labels) // 5).all()


def test_the_memoriser_has_the_bits_of_its_law():
    """Against bins of one Gaussian an image, summed without a table."""
    x = datasets.digits("test").images[:2]
    train, half = datasets.digits("train").images, 8.0
    mass = log_bin_mass(x[:, None, :], train / half - 1, digits.KDE_WIDTH / half, 17).sum(axis=2)
    exact = -np.log(np.exp(mass - mass.max(axis=1, keepdims=True)).mean(axis=1)) - mass.max(axis=1)
    assert np.abs(digits.kde_bits(x) - exact / (64 * np.log(2))).max() < 1e-12


def test_class_histograms_draw_the_levels_of_their_class():
    x, labels = digits.from_histograms(3000, np.random.default_rng(0))
    own = x[labels == 3]
    share = (own[:, :, None] == np.arange(17)).mean(axis=0)
    error = np.abs(share - digits.class_histograms()[3]).max()
    assert error < 6 * 0.5 / len(own) ** 0.5  # six standard deviations at most
    assert np.abs(share - digits.class_histograms()[4]).max() > 0.5


def test_letters_stand_for_levels():
    x = datasets.digits("test").images[:3]
    assert np.array_equal(samples.as_images(samples.as_letters(x)), x)


# --- units and records -----------------------------------------------------------------------------------------------


def test_every_part_has_units_of_different_names(options):
    for part, (units, _) in PARTS.items():
        keys = [(one.part, one.name, one.seed) for one in units(options)]
        assert len(set(keys)) == len(keys) > 0
        assert {one[0] for one in keys} == {part}


def test_a_result_is_kept_until_its_settings_change(options, capsys):
    calls = []
    one = records.Unit("part", "name", 0, {"steps": 3}, lambda: calls.append(1) or {"bits": 1 / 3, "rows": np.ones(2)})
    for _ in range(2):
        records.run([one], options)
    assert len(calls) == 1
    record = records.read(options.folder, "part")["name", 0]
    assert record["bits"] == 0.333333
    assert record["rows"] == [1.0, 1.0]
    assert "kept" in capsys.readouterr().err
    records.run([one._replace(about={"steps": 4})], options)
    records.run([one._replace(about={"steps": 4})], options, again=True)
    assert len(calls) == 3
    assert len(records.read(options.folder, "part")) == 1


def test_a_unit_that_fails_does_not_stop_the_others(options, capsys):
    def fail():
        raise ArithmeticError("a cause")

    units = [records.Unit("part", name, 0, None, what) for name, what in (("bad", fail), ("good", lambda: {"x": 1.0}))]
    assert records.run(units, options) == 1
    assert "failed: ArithmeticError: a cause" in capsys.readouterr().err
    assert list(records.read(options.folder, "part")) == [("good", 0)]


def test_a_model_is_trained_once(options, monkeypatch):
    x = datasets.two_moons().sample(40, rng=0)
    first, seconds = records.trained(ScoreSDE(hidden=(4,), n_steps=2, rng=0), x, options)
    monkeypatch.setattr(ScoreSDE, "fit", None)
    second, same = records.trained(ScoreSDE(hidden=(4,), n_steps=2, rng=0), x, options)
    assert seconds == same
    assert np.array_equal(first.parameters_, second.parameters_)
    with pytest.raises(TypeError):
        records.trained(ScoreSDE(hidden=(4,), n_steps=2, rng=1), x, options)


def test_a_change_of_a_recipe_changes_what_is_trained(options):
    found = {one.name: one.about[0] for one in ablations.units(options)}
    base = found.pop(ablations.BASE)
    assert all(
        about != base for name, about in found.items() if not name.endswith("the steps")
    )  # quick fixes the steps


# --- the command and the page ----------------------------------------------------------------------------------------


def test_a_target_is_judged_by_the_mean_over_seeds():
    target = report.Target("x", "digits", "sde fast", "bits", 1.78, 1.0, cause="a cause")
    assert report.verdict(target, report.Number(1.78, 0.1, 3)) == "reached"
    assert report.verdict(target, report.Number(1.80, 0.1, 3)) == "missed by 0.0200: a cause"
    assert report.verdict(target, report.Number(0.9, 0.1, 3)) == "missed by 0.1000: a cause"
    assert report.verdict(target, None) == "not measured"
    assert report.number([1.0, None]) is None
    assert report.number([1.0, 3.0]) == (2.0, 2**0.5, 2)


def test_differences_are_paired():
    base = {"bits": 2.0, "rows": [1.0, 3.0], "seconds": 1.0}
    other = {"bits": 2.5, "rows": [1.5, 3.5], "seconds": 2.0}
    *_, row, _ = report.ablations_table({(ablations.BASE, 0): base, ("half the batch", 0): other})
    assert row == "| half the batch | 2.5000 | +0.5000 ± 0.0000 | 2 |"


def test_a_bound_that_no_quadrature_settles_is_a_mean_over_points(monkeypatch):
    law = datasets.eight_gaussians()
    model, x = ScoreSDE(hidden=(4,), n_steps=2, rng=0).fit(law.sample(40, rng=0)), law.sample(2000, rng=1)
    exact = plane.kl_bound(model, law, x)
    assert set(exact) == {"bound", "sampler"}
    assert 0 < exact["sampler"] < exact["bound"] + 0.01  # the sampler has finite steps
    monkeypatch.setattr(plane, "grade_score_sde", lambda *_, **__: 1 / 0)
    assert plane.kl_bound(model, law, x) == {"bound": exact["bound"]}
    monkeypatch.setattr(plane, "grade_kl_bound", lambda *_: 1 / 0)
    found = plane.kl_bound(model, law, x)
    assert abs(found["bound"] - exact["bound"]) < 6 * found["bound_error"]


def test_kl_is_the_mean_of_log_ratios():
    assert plane.kl("bound", np.array([1.0, 2.0, 3.0])) == {"bound": 2.0, "bound_error": 1 / 3**0.5}


# --- trained models of the package -----------------------------------------------------------------------------------


def test_shortened_numbers_are_near_and_short():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    short = pretrain.rounded(x, 8)
    assert short.dtype == np.float32
    assert np.abs(short / x - 1).max() <= 2.0**-8
    assert (short.view(np.uint32) % 2**16 == 0).all()
    p = np.random.default_rng(0).dirichlet(np.full(17, 0.1), (3, 4))
    q = pretrain.as_fractions(p)
    assert (q.sum(axis=-1) == 1).all()
    assert q.min() >= 2.0**-20
    assert np.abs(q - p).max() < 17 * 2.0**-20


def test_shipped_models_are_small_and_have_their_record():
    record = json.loads(pretrain.RECORD.read_text())
    assert set(record) == set(SHIPPED)
    assert sum((pretrain.DATA / f"{name}.npz").stat().st_size for name in SHIPPED) <= pretrain.MOST_BYTES
    for name in SHIPPED:
        model = load(name)
        assert records.settings_of(model) == records.settings_of(pretrain.untrained(name))
        assert record[name]["sha256"] == pretrain.checksum(model)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_smallest_shipped_model_is_trained_again():
    """The same bytes on a machine of the record, and the same bits elsewhere."""
    record = json.loads(pretrain.RECORD.read_text())["digits-tables"]
    model, _ = pretrain.train("digits-tables")
    if (record["machine"], record["versions"]) == machine(("numpy", "scipy")):
        assert pretrain.checksum(model) == record["sha256"]
    assert abs(pretrain.bits_of_test(model) - record["bits"]) < 5e-3
    assert abs(pretrain.bits_of_test(load("digits-tables")) - record["bits"]) < 1e-4
