"""`scratchgen.load`: a model of any class from its file, by a fixed table of classes."""

import io
import json
import zipfile

import numpy as np
import pytest

import scratchgen
from scratchgen import load
from scratchgen.models.files import SHIPPED, ModelFileError

X = np.random.default_rng(0).standard_normal((40, 3)) * [3.0, 1.0, 0.5]
LEVELS = np.random.default_rng(0).integers(0, 4, (40, 3)).astype(float)
SMALL = {"hidden": (4,), "n_steps": 2, "rng": 0}
MODELS = {
    "GaussianMixture": lambda: scratchgen.GaussianMixture(2, rng=0).fit(X),
    "PPCA": lambda: scratchgen.PPCA(1).fit(X),
    "FactorAnalysis": lambda: scratchgen.FactorAnalysis(1, rng=0).fit(X),
    "CategoricalMixture": lambda: scratchgen.CategoricalMixture(2, n_levels=4, rng=0).fit(LEVELS),
    "VAE": lambda: scratchgen.VAE(1, **SMALL).fit(X),
    "LinearVAE": lambda: scratchgen.LinearVAE(1, n_steps=2, rng=0).fit(X),
    "DDPM": lambda: scratchgen.DDPM(scratchgen.NoiseSchedule.linear(5), **SMALL).fit(X),
    "ScoreSDE": lambda: scratchgen.ScoreSDE(scratchgen.VE(0.01, 10.0), **SMALL).fit(X),
}


@pytest.mark.parametrize("name", MODELS)
def test_load_gives_the_class_that_was_saved_and_the_same_samples(name, tmp_path):
    model = MODELS[name]()
    model.save(tmp_path / "model.npz")
    loaded = load(tmp_path / "model.npz")
    assert type(loaded) is type(model) is getattr(scratchgen, name)
    assert np.array_equal(loaded.sample(5, rng=1), model.sample(5, rng=1))


def with_class(path, name):
    """A copy of a model file whose header names another class."""
    other = path.with_name("other.npz")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            if member == "header.npy":
                header = json.loads(str(np.load(io.BytesIO(content), allow_pickle=False)))
                stream = io.BytesIO()
                np.save(stream, np.array(json.dumps(header | {"class": name})))
                content = stream.getvalue()
            new.writestr(member, content)
    return other


@pytest.mark.parametrize("name", ["Popen", "os.system", "Estimator", "NoiseSchedule", "", "ppca", "__class__"])
def test_a_class_that_is_no_model_is_refused(name, tmp_path):
    MODELS["PPCA"]().save(tmp_path / "model.npz")
    with pytest.raises(ModelFileError, match="the models are GaussianMixture, PPCA"):
        load(with_class(tmp_path / "model.npz", name))


def test_the_numbers_are_checked_by_the_class_of_the_header(tmp_path):
    MODELS["PPCA"]().save(tmp_path / "model.npz")
    assert type(load(with_class(tmp_path / "model.npz", "PPCA"))) is scratchgen.PPCA
    with pytest.raises(ModelFileError, match="is missing or unknown"):
        load(with_class(tmp_path / "model.npz", "GaussianMixture"))


def test_what_is_no_model_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "model.npz")
    (tmp_path / "text.npz").write_text("x,y")
    with pytest.raises(ModelFileError, match="is not a model saved by scratchgen"):
        load(tmp_path / "text.npz")
    with pytest.raises(TypeError, match="path must be text"):
        load(3)


def test_the_error_of_a_missing_file_lists_the_trained_models_of_the_package():
    with pytest.raises(FileNotFoundError, match=", ".join(SHIPPED)):
        load("digits-gan")
