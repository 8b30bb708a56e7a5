"""State dicts: the layout of torch, the way back, the training that goes on, and refusals; no framework is needed."""

import copy
import re

import numpy as np
import pytest

from scratchgen import DDPM, PPCA, VAE, VP, ScoreSDE, load
from scratchgen.export import from_layers, layers, load_state_dict, state_dict
from scratchgen.models.estimator import NotFittedError
from tests.reliability.models import data, fitted, numbers, said

ENDED = ["VAE", "VAE of levels", "LinearVAE", "DDPM", "DDPM of levels", "ScoreSDE", "ScoreSDE of levels"]
LEFT = ["DDPM, left", "VAE, left", "ScoreSDE, left"]


def silu(z):
    return z / (1 + np.exp(-z))


def changed(model):
    """A copy of the model with other numbers, of the same shapes."""
    other = copy.deepcopy(model)
    state = state_dict(model)
    new = {key: array * 1.5 for key, array in state.items() if key.split(".")[0] in ("network", "average", "exp_avg")}
    return load_state_dict(other, state | new)


def test_a_layer_has_the_layout_of_torch_linear():
    """y = x Wᵀ + b with W (out, in), by hand, against the network."""
    model = fitted("VAE")
    state = state_dict(model)
    x = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    h = x
    for i in 0, 2, 4:
        h = h @ state[f"network.encoder.{i}.weight"].T + state[f"network.encoder.{i}.bias"]
        h = silu(h) if i < 4 else h
    assert np.abs(h - model.network_.encoder(x)).max() < 1e-6
    assert not np.allclose(h, 0)


def test_moments_have_the_scale_of_torch():
    """After one step Adam's moments are (1 − β₁) g and (1 − β₂) g²."""
    model = fitted("VAE, left")
    state = state_dict(model)
    for key, name in ("encoder", "encoder_"), ("decoder", "decoder_"):
        m = model.training_state_.arrays[f"{name}m"]
        own = np.concatenate([w.ravel() for pair in layers(state, f"exp_avg.{key}") for w in pair])
        assert np.abs(own - 0.1 * m).max() <= 1e-7 * np.abs(m).max()
        assert np.abs(m).max() > 0
        v = model.training_state_.arrays[f"{name}v"]
        own = np.concatenate([w.ravel() for pair in layers(state, f"exp_avg_sq.{key}") for w in pair])
        assert np.abs(own - 0.001 * v).max() <= 1e-7 * np.abs(v).max()
    assert state["step"] == 3


def test_the_average_is_not_the_network_in_training():
    state = state_dict(fitted("DDPM, left"))
    assert np.array_equal(layers(state, "average.mlp")[0][0], fitted("DDPM, left").network_.mlp.weights[0])
    assert not np.array_equal(state["average.mlp.0.weight"], state["network.mlp.0.weight"])


@pytest.mark.parametrize("kind", [*ENDED, *LEFT])
def test_the_way_there_and_back_changes_nothing_that_a_model_says(kind):
    model = fitted(kind)
    before = numbers(model), said(model)
    state = state_dict(model)
    other = changed(model)
    assert said(other) != said(model)
    assert load_state_dict(other, state) is other
    assert said(other) == said(model)
    if kind in ENDED:
        assert numbers(other) == numbers(model)
    assert (numbers(model), said(model)) == before
    for key, array in state_dict(other).items():
        assert array.dtype == state[key].dtype
        assert np.allclose(array, state[key], rtol=1e-6, atol=0)  # a factor of Adam's moments is rounded twice


@pytest.mark.parametrize("kind", LEFT)
def test_a_training_that_comes_back_is_saved_and_resumes(kind, tmp_path):
    model = copy.deepcopy(fitted(kind))
    other = load_state_dict(changed(model), state_dict(model))
    other.save(tmp_path / "model.npz")
    other, model = load(tmp_path / "model.npz").resume(data(model)), model.resume(data(model))
    for name in model._weights:
        assert np.abs(getattr(other, name) - getattr(model, name)).max() < 1e-6
    assert np.allclose(other.losses_, model.losses_, rtol=1e-5)
    assert len(other.losses_) == model.n_steps


def held(model):
    """All arrays of a model and of its training."""
    arrays = [getattr(model, name) for name in model._fitted]
    return arrays + list(model.training_state_.arrays.values())


@pytest.mark.parametrize("kind", LEFT)
def test_model_and_state_share_no_memory(kind):
    """A change of the state in place leaves the model as it is, and a step of the model leaves the state."""
    model = copy.deepcopy(fitted(kind))
    state = state_dict(model)
    for part in [held(model), held(load_state_dict(model, state))]:
        assert not any(np.shares_memory(array, own) for array in state.values() for own in part)


def test_steps_elsewhere_count():
    """Two more steps, with their losses: `resume` takes the rest, with the learning rates of the last steps."""
    model = copy.deepcopy(fitted("DDPM, left"))
    state = state_dict(model)
    state |= {"step": np.array(4), "losses_": np.append(state["losses_"], 7.0)}
    load_state_dict(model, state).resume(data(model))
    assert len(model.losses_) == 5
    assert model.losses_[3] == 7.0


def test_a_state_survives_savez(tmp_path):
    model = fitted("ScoreSDE, left")
    np.savez(tmp_path / "state.npz", **state_dict(model))
    with np.load(tmp_path / "state.npz") as state:
        assert said(load_state_dict(changed(model), dict(state))) == said(model)


def test_layers_and_from_layers_are_inverse():
    state = state_dict(fitted("VAE, left"))
    for prefix in "network.encoder", "exp_avg_sq.decoder":
        there = layers(state, prefix)
        assert [w.shape[1:] == b.shape for w, b in there] == [True, True]
        back = from_layers(there, prefix)
        assert back.keys() == {key for key in state if key.startswith(prefix)}
        assert all(np.array_equal(array, state[key]) for key, array in back.items())


def test_a_list_of_layers_is_checked():
    state = state_dict(fitted("DDPM"))
    with pytest.raises(ValueError, match=r"prefix must be one of \['average.mlp'\].*got 'network.mlp'"):
        layers(state, "network.mlp")
    with pytest.raises(ValueError, match=r"must have the key 'average.mlp.2.bias'"):
        layers({key: array for key, array in state.items() if key != "average.mlp.2.bias"}, "average.mlp")
    torchs = [(np.ones((4, 3)), np.ones(4))]
    with pytest.raises(ValueError, match=r"layers\[0\] must have W .* got \(4, 3\) and \(4,\); transpose"):
        from_layers(torchs, "average.mlp")
    with pytest.raises(ValueError, match=r"layers\[0\] must be a pair"):
        from_layers([np.ones((4, 3))], "average.mlp")


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.ones((3, 4)), ValueError, r"state\['a.0.weight'\].T and its bias must have W .* got \(4, 3\) and \(4,\)"),
        (np.ones(4), ValueError, r"got \(4,\) and \(4,\)"),
        ("text", TypeError, r"state\['a.0.weight'\] must be a real array"),
        (np.ma.masked_equal(np.eye(4, 3), 0), TypeError, r"state\['a.0.weight'\] must not be a masked array"),
    ],
    ids=["turned", "one axis", "text", "masked"],
)
def test_layers_of_a_state_are_checked(weight, error, message):
    with pytest.raises(error, match=message):
        layers({"a.0.weight": weight, "a.0.bias": np.ones(4)}, "a")
    with pytest.raises(ValueError, match=r"prefix must be one of \[\], the layers of state"):
        layers({1: np.ones(2)}, "a")


class Tensor:
    """An array that NumPy cannot read, as a tensor with a gradient or on a GPU."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


BAD = {  # key of the state, bad value, what the message says
    "shape": ("network.mlp.0.weight", lambda a: a.T, r"shape \(6, 19\) and dtype float32, got \(19, 6\)"),
    "dtype": ("average.mlp.2.bias", lambda a: a.astype(np.float64), "dtype float32, got .* and float64"),
    "NaN": ("exp_avg.mlp.0.bias", lambda a: a * np.nan, "must be finite, but .*nan"),
    "negative": ("exp_avg_sq.mlp.0.bias", lambda a: a - 1, "must not be negative"),
    "masked": ("network.mlp.0.bias", lambda a: np.ma.masked_greater(a, 0), "must not be a masked array; drop"),
    "tensor": ("network.mlp.0.bias", lambda a: Tensor(), r"must be an array, got a Tensor.*detach"),
    "fraction": ("step", lambda a: np.array(3.5), "dtype int64, got .* float64"),
    "last step": ("step", lambda a: np.array(5), "step must be below n_steps=5"),
    "steps without losses": ("step", lambda a: np.array(4), "with a loss a step, got 4 with 3"),
    "negative step": ("step", lambda a: np.array(-1), "step must be"),
    "losses of two axes": ("losses_", lambda a: a[:, None], r"shape \(any,\) and dtype float64, got \(3, 1\)"),
    "scale": ("scale_", lambda a: -a, "scale_ must be positive"),
    "count": ("training.n_seen", lambda a: a - 9, "training.n_seen must not be negative"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_wrong_array_is_named_and_the_model_stays(what):
    key, spoil, words = BAD[what]
    model = copy.deepcopy(fitted("DDPM, left"))
    before, state = numbers(model), state_dict(model)
    if what == "shape":
        assert state[key].shape == (6, 19)
    with pytest.raises((ValueError, TypeError), match=words) as error:
        load_state_dict(model, state | {key: spoil(state[key])})
    assert key in str(error.value)
    assert numbers(model) == before


def test_missing_and_unknown_keys_are_named():
    left, ended = fitted("DDPM, left"), fitted("DDPM")
    state = state_dict(left)
    del state["network.mlp.2.bias"]
    with pytest.raises(ValueError, match=r"must have the key 'network.mlp.2.bias'"):
        load_state_dict(left, state)
    for key in "step", "network.mlp.0.weight":
        with pytest.raises(ValueError, match=re.escape(f"unknown key '{key}'")):
            load_state_dict(ended, state_dict(ended) | {key: state_dict(left)[key]})


def test_other_models_arguments_and_types_are_refused():
    with pytest.raises(
        TypeError, match=r"model must be a GaussianVAE or DiffusionModel, got PPCA.*; pass a VAE, LinearVAE"
    ):
        state_dict(PPCA(1))
    for unfitted in DDPM(), VAE(), ScoreSDE(VP()):
        with pytest.raises(NotFittedError):
            state_dict(unfitted)
    model = copy.deepcopy(fitted("DDPM, left"))
    state = state_dict(model)
    with pytest.raises(TypeError, match="state must be a Mapping"):
        load_state_dict(model, list(state))
    with pytest.raises(ValueError, match="hidden must be"):
        load_state_dict(model.set_params(hidden=(7,)), state)
