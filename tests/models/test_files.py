"""Model files: damaged archives, files that change while they are read, and systems without locks."""

import os
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.lib import format as npy

from scratchgen import DDPM, PPCA, NoiseSchedule
from scratchgen.models import files
from scratchgen.models.estimator import Estimator, Progress
from scratchgen.models.files import Archive, ModelFileError, write_atomically

X = np.random.default_rng(7).standard_normal((40, 3)) * [3, 1, 0.5]
INFINITE = '{"array": [1.0, Infinity], "dtype": "float64"}'
LEVELS = np.random.default_rng(8).integers(0, 4, (40, 3))


@pytest.fixture
def saved(tmp_path):
    """The path of a saved PPCA."""
    path = tmp_path / "model.npz"
    PPCA(n_components=2).fit(X).save(path)
    return path


def edited(path, change):
    """Write the members of a file again after a change of {name: bytes}."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_header(path, change):
    """Write a file again with another text of its header."""
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "header": change(str(arrays["header"]))})


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_occurs_twice_is_refused(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("mean_.npy", archive.read("mean_.npy"))
    with pytest.raises(ModelFileError, match=r"model\.npz is not a model .*: a member occurs twice"):
        PPCA.load(saved)


def test_another_version_of_npy_is_refused(saved, tmp_path):
    with open(tmp_path / "mean.npy", "wb") as file:
        npy.write_array(file, X.mean(axis=0), version=(2, 0))
    edited(saved, lambda members: members.update({"mean_.npy": (tmp_path / "mean.npy").read_bytes()}))
    with pytest.raises(ModelFileError, match=r"mean_: version 1\.0 of \.npy is needed"):
        PPCA.load(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: np.zeros(3), r"header: a text of at most \d+ letters is needed, not <f8 \(3,\)"),
        (lambda text: np.array([text]), r"header: a text of at most \d+ letters is needed, not <U\d+ \(1,\)"),
        (lambda text: np.array(text[:-1] + ', "class": "PPCA"}'), "header: a key occurs twice"),
        (lambda text: np.array(text.replace('"rng": null', f'"rng": {INFINITE}')), "argument rng: it must be finite"),
    ],
    ids=["numbers", "a list of texts", "a key twice", "an infinite argument"],
)
def test_a_wrong_header_is_refused(saved, change, words):
    with_header(saved, change)
    with pytest.raises(ModelFileError, match=words):
        PPCA.load(saved)


def test_a_header_too_long_to_be_read_is_not_written(tmp_path, monkeypatch):
    model = PPCA(n_components=2).fit(X)
    monkeypatch.setattr(files, "LARGEST_HEADER", 20)
    with pytest.raises(ValueError, match=r"^the arguments and column names take \d+ letters, more than the 20"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("covariance", "words"),
    [
        ([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "covariance_ must be symmetric"),
        ([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "covariance_ must not have a negative eigenvalue"),
    ],
)
def test_a_covariance_that_no_data_have_is_refused(covariance, words, tmp_path):
    model = DDPM(NoiseSchedule.linear(3), hidden=(4,), n_steps=1, n_levels=4, prediction="levels", rng=0).fit(LEVELS)
    vars(model)["covariance_"] = np.array(covariance)
    model.save(tmp_path / "model.npz")
    with pytest.raises(ModelFileError, match=words):
        DDPM.load(tmp_path / "model.npz")


@pytest.mark.parametrize("losses", [np.ones(3), np.array([0.0, 1.0, 1.0, -1e-9])], ids=["too few", "negative"])
def test_losses_that_no_chain_has_are_refused(losses, tmp_path):
    model = DDPM(NoiseSchedule.linear(3), hidden=(4,), n_steps=1, rng=0).fit(X)
    vars(model)["noise_losses_"] = losses
    model.save(tmp_path / "model.npz")
    with pytest.raises(ModelFileError, match="noise_losses_ must be empty or hold 4 numbers, none below 0"):
        DDPM.load(tmp_path / "model.npz")


def test_fitted_attributes_are_set_together():
    model = PPCA(n_components=2).fit(X)
    fitted = {name: getattr(model, name) for name in ("n_features_in_", *PPCA._fitted)}
    with pytest.raises(ValueError, match=r"^set_fitted must be given .*; mean_ is missing or unknown"):
        PPCA().set_fitted(**{name: value for name, value in fitted.items() if name != "mean_"})
    with pytest.raises(ValueError, match=r"; means_, weight_ are missing or unknown"):
        PPCA().set_fitted(**fitted, means_=0, weight_=0)


@dataclass(eq=False, repr=False, kw_only=True)
class Median(Estimator):
    """A model of a user, which says nothing on the forms of its arrays."""

    _fitted = ("median_", "n_seen_")

    def train(self, x):
        self.set_fitted(n_features_in_=x.shape[1], median_=np.median(x, axis=0), n_seen_=len(x))
        yield Progress(1, 1, 0.0)

    def sample(self, n, rng=None):
        return np.tile(self.median_, (n, 1))

    def elbo(self, x, rng=None):
        return np.zeros(len(x))


def test_a_model_without_forms_keeps_numbers_of_any_shape(tmp_path):
    Median().fit(X).save(tmp_path / "model.npz")
    loaded = Median.load(tmp_path / "model.npz")
    assert np.array_equal(loaded.median_, np.median(X, axis=0))
    assert loaded.n_seen_ == 40


# --- files that change while they are read ----------------------------------------------------------------------------


def test_an_array_that_grew_after_its_form_was_read_is_refused(saved):
    edited(saved, lambda members: members.update({"mean_.npy": members["mean_.npy"] + b"\0"}))
    with open(saved, "rb") as file, pytest.raises(ModelFileError, match="mean_: bytes are left after the array"):
        Archive(file)._read("mean_", np.dtype(np.float64), (3,))


@pytest.mark.parametrize(("dtype", "shape"), [(np.float32, (3,)), (np.float64, (4,))])
def test_an_array_of_another_form_than_was_read_is_refused(saved, dtype, shape):
    with open(saved, "rb") as file:
        assert np.array_equal(Archive(file)._read("mean_", np.dtype(np.float64), (3,)), X.mean(axis=0))
        with pytest.raises(ModelFileError, match="mean_: it changed while it was read"):
            Archive(file)._read("mean_", np.dtype(dtype), shape)


# --- systems ---------------------------------------------------------------------------------------------------------


def write(path):
    write_atomically(path, lambda file: file.write(b"new"))


def test_a_system_without_locks_writes_and_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)  # as on Windows
    rename, written = os.replace, []

    def rename_closed(*names):
        assert written[0].closed, "Windows renames closed files only"
        rename(*names)

    def write_new(file):
        written.append(file)
        file.write(b"new")

    monkeypatch.setattr(os, "replace", rename_closed)
    path, stale = tmp_path / "model.npz", tmp_path / ".model.npz.01234567.part"
    stale.touch()
    write_atomically(path, write_new)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(files.fcntl is None, reason="needs locks")
def test_a_file_system_without_locks_writes_and_leaves_what_it_cannot_lock(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    path, other = tmp_path / "model.npz", tmp_path / ".model.npz.01234567.part"
    other.touch()
    write(path)
    assert path.read_bytes() == b"new"
    assert set(tmp_path.iterdir()) == {path, other}


@pytest.mark.skipif(files.fcntl is None, reason="needs locks")
def test_a_temporary_file_that_another_process_swept_is_made_again(tmp_path, monkeypatch):
    """The other process sweeps between the creation of the file and its lock."""
    lock, opened = files.fcntl.flock, []

    def sweep_first(file, flags):
        opened.append(file)
        if len(opened) == 1:
            os.unlink(file.name)
        return lock(file, flags)

    monkeypatch.setattr(files.fcntl, "flock", sweep_first)
    write(tmp_path / "model.npz")
    assert (tmp_path / "model.npz").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "model.npz"]
    first, second = opened
    assert first.name != second.name
    assert first.closed


def test_an_own_error_of_the_writing_thread_is_raised(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("mine")

    model = PPCA(n_components=2).fit(X)
    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(RuntimeError, match=r"^mine$"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []
