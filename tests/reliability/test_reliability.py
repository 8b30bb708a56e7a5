"""A small share of the table of reliability, and the cases that once were faults, one by one.

`python -m tests.reliability` measures the whole table.
"""

import io
import itertools
import json
import os
import stat
import threading
import warnings

import numpy as np
import pytest

from scratchgen import DDPM, PPCA, VAE, GaussianMixture
from scratchgen.models.files import ModelFileError, write_atomically
from tests.reliability import divergence, files, interruptions, threads
from tests.reliability.models import KINDS, REALS, archive, file_of, fitted, members, npy, numbers

# --- shares of the table ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:EM has not converged", "ignore:components .* have collapsed")
@pytest.mark.parametrize(
    ("cases", "allowed"),
    [
        (files.flips(120, seed=1), {"refused", "same"}),
        (files.truncations(40, seed=1), {"refused"}),
        (files.mutations(160, seed=1), {"refused", "same", "other"}),
        (itertools.islice(files.bombs(), 0, None, 17), {"refused", "same", "other"}),
        (files.absurdities(97), {"refused", "same", "other"}),
    ],
    ids=["flips", "truncations", "mutations", "bombs", "absurdities"],
)
def test_damaged_files_are_refused_in_little_memory(cases, allowed):
    found, most = files.tally(cases)
    assert set(found) <= allowed, found
    assert most <= files.MOST_MEMORY


def test_killed_processes_leave_whole_files():
    found = interruptions.kills(12, seed=1)
    assert found["unreadable"] == found["stale"] == found["left after the next save"] == 0


def test_ctrl_c_in_save_is_ctrl_c():
    found = interruptions.interrupts_in_save(15, seed=1)
    assert found == {"interrupt": 15, "left after the next save": 0}


def test_ctrl_c_in_fit_leaves_a_usable_or_untouched_model():
    found = interruptions.interrupts_in_fit(15, seed=1)
    assert found["interrupt"] == found["usable"] + found["untouched"] == 15


def test_eight_threads_say_what_one_says():
    assert threads.shared(1)[1] == []


def test_models_trained_at_once_are_those_trained_in_turn():
    assert threads.trained_at_once()[1] == []


def test_no_learning_rate_and_no_data_give_nan():
    wrong = [(name, word) for name, word in divergence.tried() if word not in ("finite", "clear error")]
    assert wrong == []


def test_failed_fits_lose_no_parameters():
    assert list(divergence.refits()) == []
    assert list(divergence.bad_batches()) == []


def test_no_update_that_overflows_is_kept():
    assert list(divergence.overflowing_updates()) == []
    assert list(divergence.overflowing_loops()) == []


# --- model files -----------------------------------------------------------------------------------------------------


def crafted(kind, tmp_path, change):
    """`load` of the file of a kind after `change(header, parts)`."""
    header, parts = members(file_of(kind))
    change(header, parts)
    (tmp_path / "model.npz").write_bytes(archive(header, parts))
    return type(fitted(kind)).load(tmp_path / "model.npz")


def refuses(kind, change, words, folder):
    """A file as it was saved loads, and one with the change is a ModelFileError that has the words."""
    crafted(kind, folder, lambda h, p: None)
    with pytest.raises(ModelFileError, match=f"model.npz is not a model saved by scratchgen: .*{words}"):
        crafted(kind, folder, change)


def fall(parts):
    """Let the bound of EM fall from 0 to −1 after 2 steps."""
    parts.update(lower_bounds_=npy(np.array([-3.0, 0.0, -1.0])), n_iter_=npy(np.array(2)))


def state_of(name):
    """A generator's state as `save` writes it."""
    bits = getattr(np.random, name)(0)
    state = json.loads(json.dumps(bits.state, default=lambda value: value.tolist()))
    return state


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("MT19937", lambda s: s["state"].update(pos=2**31 - 1), r"generator.state.pos: 1 int\(s\) in 0..624"),
        ("MT19937", lambda s: s["state"].update(pos=-1), r"generator.state.pos: 1 int\(s\) in 0..624"),
        ("MT19937", lambda s: s["state"].update(key=[1] * 623), r"generator.state.key: 624 int\(s\)"),
        ("MT19937", lambda s: s["state"].update(key=[2**32] * 624), r"generator.state.key: 624 int\(s\)"),
        ("Philox", lambda s: s.update(buffer_pos=5), r"generator.buffer_pos: 1 int\(s\) in 0..4"),
        ("Philox", lambda s: s.update(buffer=[0] * 3), r"generator.buffer: 4 int\(s\)"),
        ("SFC64", lambda s: s["state"].update(state=[1, 2, 3, -4]), r"generator.state.state: 4 int\(s\)"),
        ("PCG64", lambda s: s["state"].update(inc=2**128), r"generator.state.inc: 1 int\(s\)"),
        ("PCG64", lambda s: s["state"].update(inc=0), r"generator.state.inc: an odd int is needed, got 0"),
        ("PCG64DXSM", lambda s: s["state"].update(inc=6), r"generator.state.inc: an odd int is needed, got 6"),
        ("MT19937", lambda s: s["state"].update(key=[2**31 - 1] + [0] * 623), r"generator.state.key: not all of its b"),
        ("PCG64", lambda s: s.update(has_uint32=True), r"generator.has_uint32: 1 int\(s\) in 0..1"),
        ("PCG64", lambda s: s.pop("uinteger"), "generator: it must hold state, has_uint32, uinteger"),
        ("PCG64", lambda s: s.update(bit_generator="Generator"), "bit_generator must be one of"),
    ],
)
def test_a_tampered_generator_state_never_reaches_numpy(name, change, words, tmp_path):
    """NumPy's C code trusts a state: with MT19937 and pos = 2³¹ − 1 the next draw was a segmentation fault."""
    state = state_of(name)
    crafted("DDPM", tmp_path, lambda h, p: h["params"].update(rng={"generator": json.loads(json.dumps(state))}))
    change(state)
    with pytest.raises(ModelFileError, match=f"model.npz is not a model.*{words}"):
        crafted("DDPM", tmp_path, lambda h, p: h["params"].update(rng={"generator": state}))


def test_a_training_goes_on_from_no_state_that_draws_zeros(tmp_path):
    """A fit with such a state never ended: k-means++ rejects draws that are equal."""
    state = {**state_of("PCG64"), "state": {"state": 0, "inc": 0}}

    def stuck(header, parts):
        training = json.loads(str(np.load(io.BytesIO(parts["training"]))))
        parts["training"] = npy(np.array(json.dumps({**training, "generator": state})))

    with pytest.raises(ModelFileError, match=r"generator.state.inc: an odd int is needed, got 0"):
        crafted("DDPM, left", tmp_path, stuck)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("PCG64", {"state": 0, "inc": 1}),
        ("PCG64DXSM", {"state": 0, "inc": 1}),
        ("MT19937", {"key": [2**31] + [0] * 623, "pos": 624}),
        ("Philox", {"counter": [0] * 4, "key": [0] * 2}),
        ("SFC64", {"state": [0] * 4}),
    ],
)
def test_states_of_zeros_from_which_a_generator_recovers_are_accepted(name, own, tmp_path):
    state = {**state_of(name), "state": own}
    model = crafted("DDPM", tmp_path, lambda h, p: h["params"].update(rng={"generator": state}))
    model.rng.random(10**6)
    assert abs(model.rng.random(10**4).mean() - 0.5) < 0.03


def moved(content, number):
    """An array of a file with another number in the middle."""
    array = np.load(io.BytesIO(content))
    array[len(array) // 2] = number
    return array


def rescaled(header, parts):
    """Change the scale of a model of whole numbers."""
    parts["scale_"] = npy(np.full(3, 2.0))


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("PPCA by EM", lambda h, p: p.update(components_=npy(np.full((3, 2), 1e130))), "components_ must not be so la"),
        ("PPCA, left", lambda h, p: p.update({"training.components_": npy(np.full((3, 2), 1e130))}),
         "training.components_ must not be so large beside training.noise_variance_"),
        ("PPCA, left", lambda h, p: p.update({"training.noise_variance_": npy(np.array(0.0))}),
         "training.noise_variance_ must be positive"),
        ("ScoreSDE, left", lambda h, p: p.update({"training.noise_seed": npy(np.array(-1))}),
         "training.noise_seed must be "),
        ("ScoreSDE, left", lambda h, p: p.update({"training.held_out": npy(np.array([3, 3]))}),
         "training.held_out must be different rows"),
        ("ScoreSDE, left", lambda h, p: p.update({"training.held_out": npy(np.array([-3, 3]))}),
         "training.held_out must be different rows"),
        ("ScoreSDE, left", lambda h, p: p.update({"training.held_out": npy(np.zeros(0, np.int64))}),
         "training.held_out must be different rows"),
        ("DDPM, left", lambda h, p: p.update({"training.m": npy(moved(p["training.m"], 1e30))}),
         "training.m must not exceed 2.4 times the square root of training.v"),
        ("VAE, left", lambda h, p: p.update({"training.encoder_m": npy(moved(p["training.encoder_m"], -1e30))}),
         "training.encoder_m must not exceed 2.4"),
        ("VAE, left", lambda h, p: p.update({"training.encoder_v": npy(moved(p["training.encoder_v"], -1.0))}),
         "training.encoder_v must not be negative"),
        ("DDPM of levels", rescaled, "mean_ and scale_ must be 1.5 for n_levels=4"),
        ("VAE of levels", rescaled, "mean_ and scale_ must be 1.5 for n_levels=4"),
        ("VAE of levels", lambda h, p: p.update(log_variance_=npy(np.array([1e60]))), "log_variance_ must lie in -745"),
        ("DDPM, left", lambda h, p: p.update(training=npy(np.array(" " * 70000))), "training: a text of at most 65536"),
        ("DDPM", lambda h, p: h["params"].update(rng={"seed_sequence": {"entropy": -1, "spawn_key": [], "pool_size": 4,
                                                                         "n_children_spawned": 0}}), "seed_sequence: "),
        ("DDPM", lambda h, p: h["params"].update(rng={"seed_sequence": {"entropy": 1, "spawn_key": [],
                                                 "pool_size": 10**9, "n_children_spawned": 0}}), "pool_size in 4..64"),
        ("DDPM", lambda h, p: h["params"].update(rng={"seed_sequence": {"entropy": [1]}}), "seed_sequence: "),
        ("DDPM", lambda h, p: h["params"].update(hidden={"tuple": [[]] * 2**17}), "header: it has more than 131072 b"),
    ],
)  # fmt: skip
def test_numbers_that_no_fit_gives_are_refused_before_a_verb_meets_them(kind, change, words, tmp_path):
    refuses(kind, change, words, tmp_path)


def test_a_variance_of_the_decoder_that_overflows_is_an_error(tmp_path):
    model = crafted(
        "LinearVAE",
        tmp_path,
        lambda h, p: p.update(log_variance_=npy(np.full(1, 300.0)), scale_=npy(np.full(3, 1e100))),
    )
    with pytest.raises(ArithmeticError, match="decoder_variance_ is not finite: numbers of the network overflow"):
        model.decoder_variance_  # noqa: B018


def test_the_worst_headers_take_little_memory(monkeypatch):
    """A header of 1/128 of the largest size takes 1/128 of the memory at most."""
    monkeypatch.setattr("scratchgen.models.files.LARGEST_HEADER", 2**16)
    monkeypatch.setattr("scratchgen.models.files.MOST_BRACKETS", 2**10)
    found, most = files.tally(files.headers())
    assert set(found) == {"refused"}
    assert most <= files.MOST_MEMORY / 128


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("DDPM", lambda h, p: h["params"].update(hidden={"tuple": [10**6, 10**6]}), r"parameters_: shape \(\d+,\) is"),
        ("VAE", lambda h, p: h["params"].update(n_latents=10**8), r"encoder_: shape \(\d+,\) is needed"),
        ("PPCA", lambda h, p: p.update(n_features_in_=npy(np.array(10**8))), r"components_: shape \(10+, 1\)"),
        ("PPCA", lambda h, p: p.update(mean_=npy(np.array([0.0, np.nan, 0.0]))), "mean_: it must be finite"),
        ("PPCA", lambda h, p: p.update(mean_=npy(np.zeros(3, complex))), "mean_: dtype complex128 is none of numbers"),
        ("PPCA", lambda h, p: p.update(mean_=npy(np.zeros(1))), r"mean_: shape \(3,\) is needed, not \(1,\)"),
        ("PPCA", lambda h, p: p.update(mean_=npy(np.zeros(3, ">f8"))), "mean_: dtype float64 is needed, not >f8"),
        ("PPCA", lambda h, p: p.update(noise_variance_=npy(np.array(-1.0))), "noise_variance_ must be positive"),
        ("PPCA", lambda h, p: p.pop("mean_"), "mean_: it is missing"),
        ("PPCA", lambda h, p: p.update(extra=p["mean_"]), "extra: no such model has this member"),
        ("PPCA", lambda h, p: h.update(format=1), "this version reads format 5, the file has format 1"),
        ("PPCA", lambda h, p: h["params"].update(tol=-1.0), r"tol must be in \[0"),
        ("PPCA", lambda h, p: h["params"].update(tol=float("inf")), "argument tol: inf is not finite"),
        ("PPCA", lambda h, p: h["params"].pop("tol"), "argument tol is missing or unknown"),
        ("GaussianMixture full", lambda h, p: p.update(weights_=npy(np.array([0.9, 0.9]))), "weights must be non-neg"),
        ("GaussianMixture full", lambda h, p: p.update(covariances_=npy(-np.ones((2, 3, 3)))), "not positive definite"),
        ("CategoricalMixture", lambda h, p: p.update(probabilities_=npy(np.ones((2, 3, 4)))), "probabilities"),
        ("DDPM", lambda h, p: p.update(variance_=npy(np.zeros(11))), "variance"),
        ("PPCA", lambda h, p: fall(p), "lower_bounds_ must not fall"),
        ("GaussianMixture full", lambda h, p: fall(p), "lower_bounds_ must not fall"),
        ("CategoricalMixture", lambda h, p: fall(p), "lower_bounds_ must not fall"),
        ("PPCA", lambda h, p: p.update(free_energies_=npy(np.zeros(1))), "must be 1 numbers, every second"),
        ("PPCA", lambda h, p: p.update(free_energies_=npy(np.zeros(0))), "free_energies_ must be 1 numbers"),
        ("VAE", lambda h, p: p.update(losses_=npy(np.zeros(10**4))), r"losses_ must have n_steps_ = \d+ numbers"),
        ("DDPM", lambda h, p: p.update(losses_=npy(np.zeros(10**4))), r"losses_ must have n_steps_ = \d+ numbers"),
        ("ScoreSDE", lambda h, p: h["params"].update(t_min=2.0), r"t_min must be in \(0.0, 1.0\]"),
        ("DDPM of levels", lambda h, p: p.update(histograms_=npy(np.zeros((3, 4)))), "histograms_ must be positive"),
    ],
)  # fmt: skip
def test_a_file_that_no_fit_could_have_written_is_refused(kind, change, words, tmp_path):
    refuses(kind, change, words, tmp_path)


def test_a_small_file_cannot_claim_a_large_array(tmp_path):
    """Headers of arrays are compared with the arguments and with the member's size before memory is allocated."""

    def claims(header, parts):
        parts["mean_"] = parts["mean_"].replace(b"(3,), }         ", b"(1000000000,), }")

    with pytest.raises(ModelFileError, match=r"mean_: shape \(1000000000,\) takes 8000000000 bytes, not 24"):
        crafted("PPCA", tmp_path, claims)


def test_save_keeps_permissions_and_follows_links(tmp_path):
    model, path = fitted("PPCA"), tmp_path / "model.npz"
    old = os.umask(0o027)
    try:
        model.save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    model.save(path, overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    before = path.stat().st_ino
    model.save(link, overwrite=True)
    assert link.is_symlink()
    assert path.stat().st_ino != before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.npz", "model.npz"]
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        model.save(tmp_path, overwrite=True)


def test_stale_temporary_files_are_swept_and_those_of_living_writers_are_not(tmp_path):
    path = tmp_path / "model[1].npz"
    (tmp_path / ".model[1].npz.0123abcd.part").write_bytes(b"left by a killed process")
    (tmp_path / ".model1.npz.0123abcd.part").write_bytes(b"of another file")
    inside, go_on = threading.Event(), threading.Event()

    def slow(file):
        inside.set()
        go_on.wait()
        file.write(b"slow")

    writer = threading.Thread(target=write_atomically, args=(path, slow))
    writer.start()
    inside.wait()
    fitted("PPCA").save(path, overwrite=True)  # sweeps the first file, and not that of the slow writer
    assert len(list(tmp_path.glob(".model[[]1]*"))) == 1
    go_on.set()
    writer.join()
    assert path.read_bytes() == b"slow"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".model1.npz.0123abcd.part", "model[1].npz"]


def test_a_second_fit_that_fails_leaves_the_first():
    model = PPCA(1, method="em", max_iter=3, rng=0).fit(REALS)
    before = model.sample(5, rng=1)
    with pytest.raises(ValueError, match="x must hold numbers of size"):
        model.fit(REALS * 1e160)
    assert np.array_equal(model.sample(5, rng=1), before)


@pytest.mark.parametrize("make", [lambda **k: DDPM(hidden=(8,), **k), lambda **k: VAE(1, hidden=(8,), **k)])
def test_a_fit_that_diverges_keeps_the_last_good_parameters(make):
    model = make(n_steps=60, rng=0)
    name, seen = "parameters_" if isinstance(model, DDPM) else "encoder_", []

    def fit():
        seen.extend(getattr(model, name).copy() for _ in model.set_params(learning_rate=1e10).train(REALS))

    with pytest.raises(ArithmeticError, match=r"training diverged in step \d+: .*; lower learning_rate"):
        fit()
    assert np.array_equal(getattr(model, name), seen[-1])
    assert len(model.losses_) == len(seen)


@pytest.mark.parametrize("rate", [1e10, 1e300])
def test_no_warning_comes_from_an_overflow_that_is_reported(rate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ArithmeticError):
            VAE(1, hidden=(8,), n_steps=60, learning_rate=rate, rng=0).fit(REALS)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: VAE(1, hidden=(8,), n_steps=5, rng=0), {"decoder_variance": 1e-300}),
        (lambda: DDPM(n_classes=2, hidden=(8,), n_steps=5, rng=0), {"learning_rate": 1e-3}),
    ],
)
def test_a_refit_that_fails_in_its_first_step_leaves_the_old_fit_whole(make, change, monkeypatch):
    labels = (REALS[:, 0] > 0).astype(np.uint8)
    model = make().fit(REALS, labels)  # unsigned labels are labels
    before, params = numbers(model), model.get_params()
    model.set_params(**change)
    if isinstance(model, DDPM):
        monkeypatch.setattr("scratchgen.ddpm.training.train_step", lambda *a, **k: np.full(256, np.nan))
    with pytest.raises(ArithmeticError, match=r"diverged in step 1: .* before any change"):
        model.fit(REALS * 1e8, labels)
    assert numbers(model.set_params(**params)) == before


def test_devices_pipes_and_loops_of_links_are_left_alone(tmp_path):
    """A rename over /dev/null would replace the device for all processes."""
    model, pipe, loop = fitted("PPCA"), tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path in pipe, loop:
        for overwrite in True, False:
            with pytest.raises((ValueError, OSError), match=str(path)):
                model.save(path, overwrite=overwrite)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert loop.is_symlink()
    with pytest.raises(ModelFileError, match="a device or a pipe"):
        PPCA.load(pipe)
    for wrong in "", str(tmp_path / "new") + "/":
        with pytest.raises(ValueError, match="path must name a file"):
            model.save(wrong)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loop", "pipe"]


def test_only_one_of_many_writers_makes_a_new_file(tmp_path):
    path, start = tmp_path / "model.npz", threading.Barrier(8)
    said = []

    def write():
        start.wait()
        try:
            fitted("PPCA").save(path)
            said.append("saved")
        except FileExistsError:
            said.append("exists")

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(said) == ["exists"] * 7 + ["saved"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


def test_numbers_that_are_not_finite_are_never_saved(tmp_path):
    model = PPCA(1).fit(REALS)
    model.save(tmp_path / "model.npz")
    model.components_[:] = np.nan
    with pytest.raises(ArithmeticError, match="components_ must be finite"):
        model.save(tmp_path / "model.npz", overwrite=True)
    PPCA.load(tmp_path / "model.npz")


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_widths_may_be_a_range_and_masked_arrays_are_refused(tmp_path):
    model = VAE(1, hidden=range(4, 6), n_steps=2, rng=0).fit(REALS)
    model.save(tmp_path / "model.npz")
    assert VAE.load(tmp_path / "model.npz").hidden == (4, 5)
    for cls in GaussianMixture, PPCA, VAE, DDPM:
        with pytest.raises(
            TypeError, match=r"x must not be a masked array; drop the masked rows, or fill them: x.filled"
        ):
            cls(rng=0).fit(np.ma.array(REALS))
    matrix = PPCA(1).fit(np.asmatrix(REALS))
    assert np.array_equal(matrix.components_, PPCA(1).fit(REALS).components_)


@pytest.mark.parametrize(("number", "kind"), [(28, OSError), (13, PermissionError), (2, FileNotFoundError)])
def test_errors_of_the_disk_name_the_path_and_the_remedy(number, kind, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number), "temporary")

    monkeypatch.setattr("numpy.savez_compressed", full)
    words = rf"{os.strerror(number)}; pass a path in a folder that has room .*: '{tmp_path / 'model.npz'}'$"
    with pytest.raises(kind, match=words):
        fitted("PPCA").save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_missing_folder_is_refused_with_the_folder_to_make(tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "none" / "model.npz")
    for overwrite in True, False:
        with pytest.raises(FileNotFoundError, match=rf"^path {link} is in a folder .* make {tmp_path / 'none'} first"):
            fitted("PPCA").save(link, overwrite=overwrite)
    (tmp_path / "none").mkdir()
    fitted("PPCA").save(link)
    assert PPCA.load(link).n_features_in_ == 3


@pytest.mark.parametrize("name", ["\ud800", "folder/\ud800.npz"])
def test_a_path_with_a_lone_surrogate_is_refused_by_name(name):
    for verb in fitted("PPCA").save, PPCA.load:
        with pytest.raises(
            ValueError, match=r"^path must be the name of a file, .*lone surrogates, got .*; pass 'model"
        ):
            verb(name)


@pytest.mark.parametrize("kind", ["DDPM of levels"])
def test_an_asymmetric_covariance_in_a_file_is_refused(kind, tmp_path):
    def skew(header, parts):
        parts["covariance_"] = npy(np.eye(3) + 1e-6 * np.eye(3, k=1))

    with pytest.raises(ModelFileError, match="covariance_ must be symmetric; use"):
        crafted(kind, tmp_path, skew)


@pytest.mark.parametrize("call", [
    lambda model: model.sample(10**12),
    lambda model: model.elbo(REALS, n_draws=10**30),
    lambda model: model.iwae(REALS, n_draws=10**30),
])  # fmt: skip
def test_a_count_that_no_memory_holds_is_refused_at_once(call):
    with pytest.raises(ValueError, match=r"^n(_draws)? must be at most 1000000000, got 1e\+(12|30); lower it"):
        call(fitted("VAE"))


def test_ctrl_c_within_a_lock_is_ctrl_c(tmp_path, monkeypatch):
    """Seen once in 250 interruptions: the lock of a thread pool was released twice."""

    def interrupted(*args):
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr("scratchgen.models.files.ThreadPoolExecutor.submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted("PPCA").save(tmp_path / "model.npz")


def test_every_kind_is_in_the_table():
    assert {type(fitted(kind)).__name__ for kind in KINDS} >= {"GaussianMixture", "PPCA", "VAE", "DDPM", "ScoreSDE"}
    assert isinstance(fitted("GaussianMixture full"), GaussianMixture)
