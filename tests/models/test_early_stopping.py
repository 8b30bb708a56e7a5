"""Early stopping: held-out rows, the validation bound on fixed noise, the best weights, and the history."""

import numpy as np
import pytest

from scratchgen import DDPM, VAE, LinearVAE, NoiseSchedule, ScoreSDE

X = np.random.default_rng(0).standard_normal((50, 3)) * [1.0, 2.0, 0.5] + 4.0
Y = np.arange(50) % 3
LEVELS = np.random.default_rng(1).integers(0, 4, (50, 3)).astype(np.float64)
STOP = {"n_steps": 60, "rng": 0, "early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 100}
NET = STOP | {"hidden": (5,), "batch_size": 16}
T10 = NoiseSchedule.linear(10)
KINDS = {
    "DDPM": (lambda **more: DDPM(T10, **NET | more), (X,)),
    "DDPM, labels": (lambda **more: DDPM(T10, "optimal", n_classes=3, **NET | more), (X, Y)),
    "DDPM, levels": (lambda **more: DDPM(T10, n_levels=4, prediction="levels", **NET | more), (LEVELS,)),
    "ScoreSDE": (lambda **more: ScoreSDE(**NET | more), (X,)),
    "VAE": (lambda **more: VAE(2, hidden=(5,), **STOP | more), (X,)),
    "LinearVAE": (lambda **more: LinearVAE(1, **STOP | more), (X,)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def followed(model, data):
    """Held-out rows, seed of the noise, and a copy of the weights after every step."""
    weights = []
    for progress in model.train(*data):  # noqa: B007 - the last one is returned
        if model.training_state_ is not None:
            held, seed = (model.training_state_.arrays[name] for name in ("held_out", "noise_seed"))
        weights.append([getattr(model, name).copy() for name in model._weights])
    return held, seed, weights, progress


@every_kind
def test_the_model_ends_with_the_weights_of_the_best_bound(kind):
    make, data = KINDS[kind]
    model = make(learning_rate=0.1)
    held, seed, weights, _ = followed(model, data)
    given = {"y": data[1][held]} if len(data) > 1 else {}

    def bound():
        return model.elbo(data[0][held], rng=seed, **given).mean()

    steps, _, at, bounds = model.history_
    assert at.tolist() == list(range(3, 61, 3))
    assert len(steps) == len(model.losses_) == 60
    best = int(at[bounds.argmax()])
    kept = weights[-1]
    if kind != "DDPM, labels":  # there `variance_` has changed since
        assert bound() == bounds.max()
    if best < 60:
        assert all(np.array_equal(a, b) for a, b in zip(kept, weights[best - 1], strict=True))
    for step, value in zip(at[:-1], bounds[:-1], strict=True):
        for name, array in zip(model._weights, weights[step - 1], strict=True):
            getattr(model, name)[...] = array
        if kind != "DDPM, labels":
            assert bound() == value


@pytest.mark.parametrize("patience", [1, 3])
@every_kind
def test_training_stops_after_checks_without_a_better_bound(kind, patience):
    make, data = KINDS[kind]
    whole = make(learning_rate=0.3).fit(*data)
    bounds, expected = whole.validation_bounds_, 20
    for n in range(1, 21):
        if n - 1 - bounds[:n].argmax() >= patience:
            expected = n
            break
    model = make(learning_rate=0.3, n_iter_no_change=patience)
    *_, progress = followed(model, data)
    assert (progress.step, progress.n_steps) == (3 * expected, 60)
    assert np.array_equal(model.validation_bounds_, bounds[:expected])
    assert np.array_equal(model.losses_, whole.losses_[: 3 * expected])
    assert model.training_state_ is None
    assert model.validation_steps_[-1] == len(model.losses_)


def test_some_of_these_trainings_stop_early_and_some_do_not():
    steps = {len(make(learning_rate=0.3, n_iter_no_change=1).fit(*data).losses_) for make, data in KINDS.values()}
    assert min(steps) < 60
    assert len(KINDS["LinearVAE"][0](learning_rate=0.01).fit(X).losses_) == 60


@every_kind
def test_held_out_rows_take_no_part_in_training(kind):
    """Other held-out rows: the same units, the same losses, other bounds."""
    make, (x, *labels) = KINDS[kind]
    model = make()
    held, *_ = followed(model, (x, *labels))
    assert len(set(held.tolist())) == len(held) == 10
    other = x.copy()
    other[held] = other[held][:, ::-1] if kind == "DDPM, levels" else other[held] + 0.3
    again = make().fit(other, *labels)
    assert np.array_equal(again.losses_, model.losses_)
    assert np.array_equal(again.mean_, model.mean_)
    assert not np.array_equal(again.validation_bounds_, model.validation_bounds_)
    if kind != "DDPM, levels":
        assert np.allclose(model.mean_, np.delete(x, held, axis=0).mean(axis=0), rtol=1e-6)
    other = x.copy()
    other[np.delete(np.arange(50), held)[0]] = other[held][0]
    assert not np.array_equal(make().fit(other, *labels).losses_, model.losses_)


@every_kind
def test_without_early_stopping_no_row_is_held_out(kind):
    make, data = KINDS[kind]
    model = make(early_stopping=False, validation_fraction=0.9, n_iter_no_change=1).fit(*data)
    plain = make(early_stopping=False).fit(*data)
    assert np.array_equal(model.losses_, plain.losses_)
    assert len(model.losses_) == 60
    assert model.history_.validation_steps.size == model.history_.validation_bounds.size == 0


def test_the_history_is_in_the_file(tmp_path):
    make, data = KINDS["VAE"]
    model = make().fit(*data)
    model.save(tmp_path / "model.npz")
    for a, b in zip(VAE.load(tmp_path / "model.npz").history_, model.history_, strict=True):
        assert np.array_equal(a, b)
        assert a.dtype == b.dtype


def test_one_row_is_held_out_at_least_and_one_is_left():
    model = VAE(1, (3,), **STOP | {"validation_fraction": 1e-6})
    held, *_ = followed(model, (X,))
    assert len(held) == 1
    for rows, fraction in (1, 0.1), (2, 0.9):
        with pytest.raises(ValueError, match=rf"^x must have more than the {rows if rows > 1 else 1} row"):
            VAE(1, (3,), standardize=False, **STOP | {"validation_fraction": fraction}).fit(X[:rows])


def test_a_held_out_row_that_the_others_cannot_scale_is_refused_before_the_first_step():
    x = X.copy()
    model = VAE(1, (3,), **STOP)
    held, *_ = followed(VAE(1, (3,), **STOP), (x,))
    x[held[0], 0] = 1e40
    with pytest.raises(ValueError, match="units of the model"):
        model.fit(x)
    levels = LEVELS.copy()
    levels[held[0], 0] = 7
    with pytest.raises(ValueError, match=r"whole numbers in 0\.\.3"):
        VAE(1, (3,), n_levels=4, **STOP).fit(levels)
    assert not hasattr(model, "losses_")


def test_a_bound_that_is_not_finite_ends_the_training_with_its_step(monkeypatch):
    """The first step of this VAE makes σ² of the encoder overflow; the old fit stays."""
    model = VAE(2, hidden=(5,), **STOP).fit(X)
    before = model.sample(5, rng=1)
    with pytest.raises(ArithmeticError, match=r"diverged in step 1: the bound .* from before the training; lower"):
        model.set_params(n_steps=20, learning_rate=1e10).fit(X)
    assert np.array_equal(model.sample(5, rng=1), before)

    model, elbo, weights = VAE(2, hidden=(5,), **STOP), VAE.elbo, []

    def failing(self, *arguments, **given):
        if len(self.losses_) > 3:
            raise ArithmeticError("σ² of the encoder overflows")
        return elbo(self, *arguments, **given)

    monkeypatch.setattr(VAE, "elbo", failing)
    with pytest.raises(ArithmeticError, match=r"diverged in step 6: the bound .* are those after step 6; lower"):
        weights.extend(model.encoder_.copy() for _ in model.train(X))
    assert len(weights) == 5
    assert (len(model.losses_), model.validation_steps_.tolist(), model.training_state_) == (6, [3], None)
    assert not np.array_equal(model.encoder_, weights[-1])
