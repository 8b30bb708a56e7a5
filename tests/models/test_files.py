"""Model files: damaged archives, files that change while they are read, and systems without locks."""

import json
import os
import stat
import subprocess
import sys
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.lib import format as npy

from scratchgen import DDPM, PPCA, NoiseSchedule, load
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


@pytest.mark.parametrize("names", ['["a"]', '["a", "a"]', '["a", 1]', "[]", "null", '"ab"'])
def test_names_of_labels_are_one_different_text_each(names, tmp_path):
    model, path = DDPM(NoiseSchedule.linear(4), n_classes=2, hidden=(4,), n_steps=1, rng=0), tmp_path / "model.npz"
    model.fit(X, np.arange(40) % 2).save(path)
    assert "label_names" not in str(np.load(path)["header"])
    with_header(path, lambda text: np.array(text[:-1] + f', "label_names": {names}}}'))
    with pytest.raises(ModelFileError, match=r"header: it must hold format|label_names: 2 different texts are needed"):
        DDPM.load(path)


def test_a_model_without_labels_has_no_names_of_them(saved):
    with_header(saved, lambda text: np.array(text[:-1] + ', "label_names": ["a"]}'))
    with pytest.raises(ModelFileError, match="label_names: 0 different texts are needed, or no such key"):
        PPCA.load(saved)


def test_a_header_too_long_to_be_read_is_not_written(tmp_path, monkeypatch):
    model = PPCA(n_components=2).fit(X)
    monkeypatch.setattr(files, "LARGEST_HEADER", 20)
    with pytest.raises(ValueError, match=r"^the arguments and column names take \d+ letters, more than the 20"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_header_of_too_many_lists_to_be_read_is_not_written(tmp_path, monkeypatch):
    model = PPCA(n_components=2).fit(X)
    monkeypatch.setattr(files, "MOST_BRACKETS", 1)
    with pytest.raises(
        ValueError, match=r"^the arguments and column names have 2 brackets, \[ or {, more than the 1 of"
    ):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_ten_thousand_named_columns_is_far_from_the_limits():
    names = [f"country [{i}], of {{birth}}: somewhere" for i in range(10_000)]
    text = json.dumps(names)
    assert len(text) < files.LARGEST_HEADER / 16
    assert files._n_brackets(text) < files.MOST_BRACKETS / 4


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


# --- permissions -----------------------------------------------------------------------------------------------------


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.skipif(files.fcntl is None, reason="needs permissions of POSIX")
@pytest.mark.parametrize("umask", [0o000, 0o027])
@pytest.mark.parametrize("own", [None, 0o600, 0o640, 0o444, 0o666])
def test_the_temporary_file_has_the_permissions_of_the_file_from_the_start(own, umask, tmp_path):
    path, seen = tmp_path / "model.npz", []
    if own is not None:
        path.touch()
        path.chmod(own)
    expected = 0o666 & ~umask if own is None else own
    old = os.umask(umask)
    try:
        write_atomically(path, lambda file: seen.append(mode(file.name)))
    finally:
        os.umask(old)
    assert seen == [expected]
    assert mode(path) == expected


@pytest.mark.skipif(files.fcntl is None, reason="needs permissions of POSIX")
def test_the_temporary_file_of_a_file_that_is_replaced_begins_private(tmp_path, monkeypatch):
    path, seen, take = tmp_path / "model.npz", [], files._take_permissions
    path.touch()
    path.chmod(0o644)

    def look_first(file, like):
        seen.append(mode(file.name))
        take(file, like)

    monkeypatch.setattr(files, "_take_permissions", look_first)
    write(path)
    assert seen == [0o600, 0o644]


@pytest.mark.skipif(files.fcntl is None, reason="needs permissions of POSIX")
def test_permissions_that_changed_while_the_file_was_written_are_kept(tmp_path):
    path = tmp_path / "model.npz"
    path.touch()
    path.chmod(0o644)
    write_atomically(path, lambda file: path.chmod(0o600))
    assert mode(path) == 0o600


@pytest.mark.skipif(files.fcntl is None, reason="needs permissions of POSIX")
def test_a_replaced_file_keeps_its_owner_and_its_group(tmp_path):
    """Root gives the file to somebody else first, which nobody else may do."""
    path = tmp_path / "model.npz"
    path.touch()
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    path.chmod(0o640)
    before = path.stat()
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (before.st_uid, before.st_gid, 0o640)


@pytest.mark.skipif(files.fcntl is None, reason="needs permissions of POSIX")
@pytest.mark.parametrize(("before", "after"), [(0o660, 0o600), (0o640, 0o600), (0o664, 0o644), (0o604, 0o644)])
def test_where_the_group_cannot_be_kept_no_other_group_gains_access(before, after, tmp_path, monkeypatch):
    path, real, asked = tmp_path / "model.npz", os.stat, []
    path.touch()
    path.chmod(before)

    def of_another_group(name, **options):
        status = real(name, **options)
        if os.fspath(name) != os.fspath(path):
            return status
        return os.stat_result((*status[:4], 1, 99999, *status[6:]))

    def refuse(descriptor, owner, group):
        asked.append((owner, group))
        raise PermissionError("not the owner")

    monkeypatch.setattr(os, "stat", of_another_group)
    monkeypatch.setattr(os, "fchown", refuse)
    write(path)
    monkeypatch.undo()
    assert mode(path) == after
    assert asked == [(1, 99999), (-1, 99999)] * 2


# --- the end of the interpreter --------------------------------------------------------------------------------------

PROGRAM = """
import atexit, sys, threading
import numpy as np
from scratchgen import PPCA

model = PPCA(1).fit(np.random.default_rng(0).standard_normal((20, 3)))
how, path = sys.argv[1:]

class Last:
    save = model.save

    def __del__(self):
        self.save(path)

if how == "atexit":
    atexit.register(model.save, path)
elif how == "thread":
    def late():
        threading.main_thread().join()
        model.save(path)

    threading.Thread(target=late).start()
else:
    last = Last()
"""


@pytest.mark.parametrize("how", ["atexit", "thread"])
def test_a_model_is_saved_at_the_end_of_a_program(how, tmp_path):
    """No thread starts then: "cannot schedule new futures after interpreter shutdown"."""
    path = tmp_path / "model.npz"
    run = subprocess.run([sys.executable, "-c", PROGRAM, how, path], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert PPCA.load(path).n_features_in_ == 3
    assert list(tmp_path.iterdir()) == [path]


def test_after_the_end_of_the_interpreter_save_says_what_to_do(tmp_path):
    command = [sys.executable, "-c", PROGRAM, "del", tmp_path / "model.npz"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "RuntimeError: the interpreter has ended, so that no file is written; save before, or in a" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_further_threads_the_calling_thread_writes(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(files.ThreadPoolExecutor, "submit", refuse)
    model = PPCA(n_components=2).fit(X)
    model.save(tmp_path / "model.npz")
    assert np.array_equal(PPCA.load(tmp_path / "model.npz").mean_, model.mean_)
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(RuntimeError, match=r"^the interpreter has ended, so that no file is written; save before"):
        model.save(tmp_path / "other.npz")
    assert list(tmp_path.iterdir()) == [tmp_path / "model.npz"]


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [b"model.npz", 3])
def test_a_path_object_that_gives_no_text_is_refused(given):
    class Named:
        def __fspath__(self):
            return given

    model = PPCA(n_components=2).fit(X)
    for verb in model.save, PPCA.load, load:
        with pytest.raises(TypeError, match=r"^path must be text or a pathlib.Path, got (b'model.npz'|3); pass 'model"):
            verb(Named())


# --- sources of random numbers ---------------------------------------------------------------------------------------

SOURCES = {
    "BitGenerator": lambda: np.random.PCG64(3),
    "Philox": lambda: np.random.Philox(3),
    "SeedSequence": lambda: np.random.SeedSequence(3),
    "spawned": lambda: np.random.SeedSequence([2**70, 5], pool_size=8).spawn(3)[2],
    "entropy": lambda: np.random.SeedSequence(),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_that_fit_takes_is_saved(source, tmp_path):
    rng = source()
    model = PPCA(n_components=2, method="em", tol=0.0, max_iter=4, rng=rng)
    for _ in zip(range(2), model.train(X), strict=False):
        pass
    model.save(tmp_path / "model.npz")
    loaded = PPCA.load(tmp_path / "model.npz")
    draws = [np.random.default_rng(m.rng).standard_normal(5) for m in (loaded, model)]
    assert np.array_equal(*draws)
    if isinstance(rng, np.random.SeedSequence):
        assert loaded.rng.state == rng.state
    loaded.save(tmp_path / "again.npz")
    assert np.array_equal(model.resume(X).components_, loaded.resume(X).components_)


class Mine(np.random.PCG64):
    """A bit generator that no file can name."""


@pytest.mark.parametrize(
    "rng",
    [Mine(0), np.random.Generator(Mine(0)), np.random.SeedSequence(0, pool_size=65)],
    ids=lambda rng: str(rng)[:9],
)
def test_a_source_that_no_file_can_hold_is_refused_by_name(rng, tmp_path):
    model = PPCA(n_components=2, method="em", max_iter=2, tol=1e3, rng=rng).fit(X)
    with pytest.raises(
        TypeError, match=r"^rng cannot be saved, since its type is (Mine|SeedSequence); fit with numbers, "
    ):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_two_bit_generators_of_one_state_are_not_the_same():
    assert not files.is_same(np.random.PCG64(0), np.random.PCG64(0))
    assert files.is_same(np.random.SeedSequence(0), np.random.SeedSequence(0))
    assert not files.is_same(np.random.SeedSequence(0), np.random.SeedSequence(1))
    assert not files.is_same(object(), object())  # no file can hold them
