"""Training that is left and resumed: the same bytes as without interruption, from memory and from a file."""

import copy
import io
import itertools
import json
import pickle
import random
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    NoiseSchedule,
    ScoreSDE,
)
from scratchgen.models.estimator import NotFittedError
from scratchgen.models.files import ModelFileError, encode
from scratchgen.models.training_state import checksum
from tests.reliability.models import archive, members, npy

X = np.random.default_rng(0).standard_normal((60, 3)) * [1.0, 2.0, 0.5]
GAPS = X.copy()
GAPS[:20, 1] = GAPS[20:35, ::2] = np.nan  # few patterns, for speed
LEVELS = np.random.default_rng(1).integers(0, 4, (60, 3))
Y = np.arange(60) % 3
T10 = NoiseSchedule.linear(10)
NET = {"hidden": (5,), "n_steps": 40, "batch_size": 16, "rng": 0}
EARLY = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 4, "learning_rate": 0.005}


def mersenne(seed):
    return np.random.Generator(np.random.MT19937(seed))


KINDS = {
    "DDPM": (lambda: DDPM(T10, "optimal", weight_decay=0.1, **NET), (X,)),
    "DDPM, importance": (lambda: DDPM(T10, step_choice="importance", **NET | {"rng": mersenne(3)}), (X,)),
    "DDPM, labels": (lambda: DDPM(T10, n_classes=3, label_dropout=0.5, prediction="x0", **NET), (X, Y)),
    "DDPM, levels": (
        lambda: DDPM(T10, "optimal", n_levels=4, prediction="levels", weighting="bound", **NET),
        (LEVELS,),
    ),
    "ScoreSDE": (lambda: ScoreSDE(n_sample_steps=9, **NET), (X,)),
    "ScoreSDE, sliced": (
        lambda: ScoreSDE(matching="sliced", time_choice="importance", n_sample_steps=9, **NET | {"batch_size": 128}),
        (X.astype(np.float32),),
    ),
    "ScoreSDE, labels": (
        lambda: ScoreSDE(
            n_classes=2,
            n_levels=4,
            prediction="levels",
            n_sample_steps=9,
            label_dropout=0.5,
            **NET | EARLY | {"n_iter_no_change": 99},
        ),
        (LEVELS, LEVELS[:, 0].astype(int) // 2),
    ),
    "VAE": (lambda: VAE(2, hidden=(5,), n_steps=40, decoder_variance="diag", rng=np.random.default_rng(7)), (X,)),
    "VAE, levels": (lambda: VAE(1, (5,), n_levels=4, n_steps=40, batch_size=None, dtype="float64", rng=0), (LEVELS,)),
    "LinearVAE": (lambda: LinearVAE(1, n_steps=40, rng=0), (X,)),
    "DDPM, early": (lambda: DDPM(T10, "optimal", n_classes=3, **NET | EARLY), (X, Y)),
    "ScoreSDE, early": (lambda: ScoreSDE(n_sample_steps=9, **NET | EARLY | {"n_iter_no_change": 99}), (X,)),
    "VAE, early": (lambda: VAE(1, (5,), n_steps=60, batch_size=16, rng=mersenne(1), **EARLY), (X,)),
    "GaussianMixture": (lambda: GaussianMixture(3, n_init=3, tol=0.0, max_iter=12, rng=mersenne(0)), (X,)),
    "GaussianMixture, tol": (lambda: GaussianMixture(2, "tied", n_init=4, tol=1e-6, init_params="random", rng=0), (X,)),
    "GaussianMixture, prior": (
        lambda: GaussianMixture(3, "diag", tol=0, max_iter=26, covariance_prior=(1.0, 2.0), rng=0),
        (X,),
    ),
    "GaussianMixture, over-relaxed": (
        lambda: GaussianMixture(3, n_init=2, tol=0, max_iter=14, acceleration="over-relaxed", rng=0),
        (X,),
    ),
    "GaussianMixture, gaps": (lambda: GaussianMixture(2, n_init=2, tol=0.0, max_iter=12, rng=0), (GAPS,)),
    "CategoricalMixture": (lambda: CategoricalMixture(3, 4, n_init=3, tol=0.0, max_iter=10, rng=0), (LEVELS,)),
    "PPCA": (lambda: PPCA(2, "em", tol=0.0, max_iter=30, rng=0), (X,)),
    "PPCA, gaps": (lambda: PPCA(1, tol=0.0, max_iter=30), (GAPS,)),
    "PPCA by EM, gaps": (lambda: PPCA(2, "em", tol=0.0, max_iter=30, rng=0), (GAPS,)),
    "FactorAnalysis": (lambda: FactorAnalysis(1, tol=0.0, max_iter=30, rng=np.random.default_rng(1)), (X,)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def four_times(monkeypatch):
    """The bound of the SDE, which early stopping computes after every epoch, from 4 times in place of 64."""
    elbo = ScoreSDE.elbo
    monkeypatch.setattr(ScoreSDE, "elbo", lambda self, x, rng=None, n_times=4, y=None: elbo(self, x, rng, n_times, y))


def everything(model, x):
    """Fitted attributes, samples, bounds, and the state of a Generator that was given, as bytes."""
    arrays = [np.ascontiguousarray(getattr(model, name)) for name in ("n_features_in_", *model._fitted)]
    arrays += [model.sample(7, rng=1), np.asarray(model.elbo(x, rng=2))]
    shared = [model.rng.random(3)] if isinstance(model.rng, np.random.Generator) else []
    return [(a.dtype.str, a.shape, a.tobytes()) for a in arrays + shared]


def cut(n, count=12):
    """At most `count` of the steps 1..n−1, the first and the last among them."""
    return sorted({int(s) for s in np.linspace(1, n - 1, count).round()})


@every_kind
def test_a_training_of_two_parts_has_the_bytes_of_one(kind, tmp_path):
    """Cut at 12 steps, from the file of that step and from a copy of the model in memory."""
    make, data = KINDS[kind]
    whole = make()
    steps = list(whole.train(*data))
    expected, n = everything(whole, data[0]), len(steps)
    assert whole.training_state_ is None
    assert n >= 20
    model = make()
    for state in model.train(*data):
        if state.step not in cut(n):
            continue
        assert model.training_state_.step == state.step
        path = tmp_path / f"{state.step}.npz"
        model.save(path)
        for again in type(model).load(path), copy.deepcopy(model), pickle.loads(pickle.dumps(model)):
            assert again.sample(5, rng=1).tobytes() == model.sample(5, rng=1).tobytes()
            left = list(again.train(*data, resume=True))
            assert left == steps[state.step :]
            assert everything(again, data[0]) == expected
            assert again.training_state_ is None
    assert everything(model, data[0]) == expected  # files and copies have not changed the training


@every_kind
def test_resume_goes_on_with_a_loop_that_was_left(kind, tmp_path):
    make, data = KINDS[kind]
    whole = make().fit(*data)
    expected = everything(whole, data[0])
    model = make()
    for n in 3, 5, 1:  # left three times, once by way of a file
        resume = {} if n == 3 else {"resume": True}
        for _ in itertools.islice(model.train(*data, **resume), n):
            pass
        if n == 5:
            model.save(tmp_path / "model.npz")
            model = type(model).load(tmp_path / "model.npz")
    assert model.resume(*data) is model
    assert everything(model, data[0]) == expected
    model.save(tmp_path / "end.npz")
    assert type(model).load(tmp_path / "end.npz").training_state_ is None


def lines_until(action, last=None):
    """Run `action`, and let line number `last` of the package's code in it raise KeyboardInterrupt; the lines run."""
    n, before = 0, sys.gettrace()

    def trace(frame, event, argument):
        nonlocal n
        if "scratchgen" not in frame.f_code.co_filename:
            return None
        n += event == "line"
        if n == last:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        assert n == last
    finally:
        sys.settrace(before)
    return n


@every_kind
def test_a_fit_that_was_interrupted_resumes(kind):
    """Ctrl-C at 16 random lines within `fit`: the model is that of an earlier step, and goes on to the same bytes."""
    make, data = KINDS[kind]
    expected, draw = everything(make().fit(*data), data[0]), random.Random(kind)
    n_lines, resumed = lines_until(lambda: make().fit(*data)), 0
    for line in draw.sample(range(n_lines // 5, n_lines), 16):
        model = make()
        lines_until(lambda model=model: model.fit(*data), line)
        if getattr(model, "training_state_", None) is None:
            continue  # before the first step or after the last one
        resumed += 1
        assert np.isfinite(model.sample(5, rng=1)).all()
        lines_until(lambda model=model: model.resume(*data), draw.randrange(1, n_lines))  # interrupted again
        if model.training_state_ is not None:
            model.resume(*data)
        assert everything(model, data[0]) == expected
    assert resumed > 5


# --- what is refused -------------------------------------------------------------------------------------------------


def left(kind, n=5):
    make, data = KINDS[kind]
    model = make()
    for _ in itertools.islice(model.train(*data), n):
        pass
    return model, data


@every_kind
def test_other_data_are_refused(kind):
    model, data = left(kind)
    x = data[0]
    state, changed = model.training_state_, x.copy()
    changed[2, 1] = x[2, 1] == 0
    for other in x[:-1], x[::-1], changed, np.vstack([x, x[:1]]):
        with pytest.raises(ValueError, match=r"^x is not the data of the training that resumes"):
            model.resume(other, *(np.resize(labels, len(other)) for labels in data[1:]))
        assert model.training_state_ is state
    model.resume(x.tolist() if x.dtype == np.float64 else x, *data[1:])


def test_other_labels_and_another_dtype_are_refused():
    model, (x, y) = left("DDPM, labels")
    with pytest.raises(ValueError, match=r"^x is not the data .* or further arguments differ"):
        model.resume(x, (y + 1) % 3)
    with pytest.raises(ValueError, match=r"same order and dtype"):
        model.resume(x.astype(np.float32), y)
    model.resume(x, y.astype(np.int8))


@every_kind
def test_changed_arguments_are_refused(kind):
    model, data = left(kind)
    name = "max_iter" if hasattr(model, "max_iter") else "n_steps"
    before = getattr(model, name)
    with pytest.raises(ValueError, match=rf"^{name} must be {before}, as in the training that resumes, got 77"):
        model.set_params(**{name: 77}).resume(*data)
    model.set_params(**{name: before}).resume(*data)
    model, data = left(kind)
    with pytest.raises(ValueError, match=r"^rng must be"):
        model.set_params(rng=np.random.default_rng(0)).resume(*data)


@every_kind
def test_a_loop_refuses_to_go_on_with_changed_arguments_and_its_file_holds_those_of_the_training(kind, tmp_path):
    make, data = KINDS[kind]
    model = copy.deepcopy(make())
    loop = model.train(*data)
    next(loop)
    step, seed = model.training_state_.step, model.rng
    name, value = ("n_components", 1) if hasattr(model, "n_components") else ("n_steps", 77)
    before = getattr(model, name)
    for changed in {name: value + (before == value)}, {"rng": 5}:
        model.set_params(**changed)
        (other,) = changed
        with pytest.raises(ValueError, match=rf"^{other} must be .*, as in the training that resumes, got"):
            next(loop)
        assert model.training_state_.step == step
        path = tmp_path / f"{other}.npz"
        model.save(path)
        assert getattr(type(model).load(path), name) == before
        model.set_params(**{name: before, "rng": seed})
        loop = model.train(*data, resume=True)
        next(loop)
        step = model.training_state_.step
    model.set_params(verbose=3)
    next(loop)
    assert model.training_state_.step == step + 1


def test_an_argument_that_changes_in_place_is_seen():
    means = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    loop = GaussianMixture(2, means_init=means, tol=0, rng=0).train(X)
    next(loop)
    means[0] = 7.0
    with pytest.raises(ValueError, match=r"^means_init must be"):
        next(loop)


def test_arguments_may_change_after_the_last_step():
    for model in (
        GaussianMixture(2, tol=0, max_iter=2, rng=0),
        PPCA(1, "em", tol=0, max_iter=2),
        LinearVAE(1, n_steps=2),
    ):
        for progress in model.train(X):
            if progress.step == progress.n_steps:
                model.set_params(verbose=1, rng=3)
        assert model.training_state_ is None


def test_a_model_without_an_unfinished_training_has_nothing_to_resume():
    with pytest.raises(NotFittedError):
        PPCA(1, "em").resume(X)
    for model in PPCA(1).fit(X), GaussianMixture(2, rng=0).fit(X), VAE(1, (4,), n_steps=2, rng=0).fit(X):
        with pytest.raises(ValueError, match=r"has no training to resume, since the last one has ended; use the model"):
            model.resume(X)
        assert model.training_state_ is None
    ddpm, _ = left("DDPM")
    assert ddpm.respace(5).training_state_ is None


def test_a_training_that_diverged_has_ended():
    model = DDPM(T10, learning_rate=1e10, **NET | {"n_steps": 30})
    with pytest.raises(ArithmeticError):
        model.fit(X)
    with pytest.raises(ValueError, match="no training to resume"):
        model.resume(X)


def test_a_resumed_training_that_diverges_at_once_keeps_what_it_began_with():
    """Means of gradients of 1e38, as a file may hold them, make the next step overflow."""
    for kind in "DDPM", "VAE":
        model, data = left(kind, n := 5)
        for name, array in model.training_state_.arrays.items():
            if name.endswith("m"):
                array[...] = 1e38
        before = [getattr(model, part).copy() for part in model._weights]
        with pytest.raises(ArithmeticError, match=rf"diverged in step {n + 1}: .* those after step {n}; lower"):
            model.resume(*data)
        assert all(map(np.array_equal, before, [getattr(model, part) for part in model._weights]))
        assert len(model.losses_) == n


def test_a_shared_generator_gets_the_state_of_the_training():
    rng = np.random.default_rng(5)
    model = VAE(1, (4,), n_steps=30, rng=rng)
    for _ in itertools.islice(model.train(X), 10):
        pass
    rng.standard_normal(100)
    assert everything(model.resume(X), X) == everything(
        VAE(1, (4,), n_steps=30, rng=np.random.default_rng(5)).fit(X), X
    )
    assert model.rng is rng


def test_the_checksum_sees_values_shape_dtype_and_order():
    x = np.arange(6.0)
    arrays = [x, x.reshape(2, 3), x.reshape(3, 2), x[::-1], x.astype(np.float32), x[:5], None]
    assert len({checksum(a) for a in arrays} | {checksum(x, None), checksum(x, x), checksum(None, x)}) == 10
    assert checksum(x[::2]) == checksum(x[::2].copy())
    for dtype in np.float64, np.float32:  # 0/0 has another sign than the NaN of a file
        gaps = np.array([1.0, np.nan], dtype)
        assert np.copysign(gaps, -1).tobytes() != np.copysign(gaps, 1).tobytes()
        assert checksum(-gaps * np.array([-1.0, 1.0], dtype)) == checksum(gaps)
        assert checksum(gaps) != checksum(gaps[::-1])


def test_a_loop_that_is_left_does_not_change_the_training_that_resumed():
    """The generator object of the first loop is still there, and ends after the second training."""
    make, data = KINDS["ScoreSDE"]
    model, whole = make(), make().fit(*data)
    first = model.train(*data)
    next(first)
    assert everything(model.resume(*data), X) == everything(whole, X)
    first.close()
    assert model.training_state_ is None
    assert everything(model, X) == everything(whole, X)


# --- files -----------------------------------------------------------------------------------------------------------


@cache
def file_of(kind):
    """Bytes of the file of a training that was left after five steps."""
    model, _ = left(kind)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.npz")
        return (Path(folder) / "model.npz").read_bytes()


def refuses(kind, path, header, parts, message):
    path.write_bytes(archive(header, parts))
    with pytest.raises(ModelFileError, match=message):
        type(KINDS[kind][0]()).load(path)


@every_kind
def test_a_file_with_another_state_is_refused(kind, tmp_path):
    path = tmp_path / "model.npz"
    header, parts = members(file_of(kind))
    states = [name for name in parts if name.startswith("training.")]
    assert states
    for name in states:
        array = np.load(io.BytesIO(parts[name]))
        refuses(kind, path, header, {k: v for k, v in parts.items() if k != name}, f"{name}: it is missing")
        refuses(kind, path, header, parts | {name: npy(array[None])}, f"{name}: shape .* is needed")
        refuses(
            kind, path, header, parts | {name: npy(np.zeros(array.shape, np.float16))}, f"{name}: dtype .* is needed"
        )
        if array.dtype.kind == "f" and array.size:
            refuses(kind, path, header, parts | {name: npy(array * np.nan)}, f"{name}: it must be finite")
        if name.endswith(("v", "n_seen", "mean_squares", "noise_variance_", "weights_", "probabilities_", "run")):
            refuses(kind, path, header, parts | {name: npy(-1 - array)}, r"negative|positive|at least 0")
    refuses(kind, path, header, parts | {"training.more": parts[states[0]]}, "training.more: no such model has this")
    rest = {k: v for k, v in parts.items() if not k.startswith("training")}  # as after a byte of the zip directory
    refuses(kind, path, header, rest, r"training: it must be there if is_training of the header is true")
    refuses(kind, path, header | {"is_training": False}, rest | {"training": parts["training"]}, r"true, and only then")


@every_kind
def test_a_file_with_another_step_or_generator_is_refused(kind, tmp_path):
    path = tmp_path / "model.npz"
    header, parts = members(file_of(kind))
    text = json.loads(str(np.load(io.BytesIO(parts["training"]))))

    def told(message, **changed):
        new = {key: value for key, value in (text | changed).items() if value != "dropped"}
        refuses(kind, path, header, parts | {"training": npy(np.array(json.dumps(new)))}, message)

    for name in text:
        told("it must hold step, checksum and generator", **{name: "dropped"})
    told("it must hold step, checksum and generator", more=1)
    told("step must be at least 0, got -1", step=-1)
    told("it must hold", step=2.0)
    told("step must be an integer", step=True)
    told("step", step=10**9 + 1)
    told("it must hold", checksum=7)
    told("it must hold", generator=None)
    told("bit_generator must be one of", generator={})
    other = encode(np.random.Generator(np.random.SFC64(0)), "rng")
    told("the generator must be a .*, as rng is, got SFC64", **other)
    refuses(kind, path, header, parts | {"training": npy(np.array("{"))}, "not a model saved by")
    refuses(kind, path, header, parts | {"training": npy(np.zeros(3))}, "training: a text")
    refuses(kind, path, header | {"format": 2}, parts, "this version reads format 5, the file has format 2")


@pytest.mark.parametrize("kind", ["DDPM", "VAE"])
def test_a_state_needs_a_loss_for_each_step(kind, tmp_path):
    header, parts = members(file_of(kind))
    refuses(kind, tmp_path / "model.npz", header, parts | {"losses_": npy(np.ones(4))}, "step must be below n_steps=40")
    header["params"]["n_steps"] = 5
    refuses(kind, tmp_path / "model.npz", header, parts, "n_steps_ must be n_steps = 5, got 40")
    parts["n_steps_"] = npy(np.array(5))
    refuses(
        kind, tmp_path / "model.npz", header, parts, "step must be below n_steps=5, with a loss a step, got 5 with 5"
    )


def test_held_out_rows_of_a_file_must_be_rows_of_the_data(tmp_path):
    path = tmp_path / "model.npz"
    header, parts = members(file_of("VAE, early"))
    held = np.load(io.BytesIO(parts["training.held_out"]))
    for wrong in np.r_[held[:-1], 60], np.r_[held[:-1], -1], np.r_[held, held[:1]], np.arange(60), held[:0]:
        path.write_bytes(archive(header, parts | {"training.held_out": npy(wrong)}))
        with pytest.raises(ValueError, match=r"held-out rows|held_out"):
            VAE.load(path).resume(X)
    for steps in [2, 2], [3, 1], [0, 1], [1, 6]:
        changed = {"validation_steps_": npy(np.array(steps)), "validation_bounds_": npy(np.ones(2))}
        refuses("VAE, early", path, header, parts | changed, r"validation_steps_ must rise within 1\.\.5")
    refuses("VAE, early", path, header, parts | {"validation_bounds_": npy(np.ones(3))}, "with a bound for each")


def test_trainings_that_stop_early_are_among_those_that_were_cut():
    lengths = {kind: len(list(KINDS[kind][0]().train(*KINDS[kind][1]))) for kind in KINDS if kind.endswith("early")}
    assert lengths["ScoreSDE, early"] == 40
    assert min(lengths.values()) < 40
