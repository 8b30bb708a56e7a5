"""Weights and training state of a network model as plain arrays in torch's layout, and the way back.

A training that outgrows NumPy goes on in a framework: `state_dict` between two steps of `train`, steps there, then
`load_state_dict`.  Neither function imports a framework.  `layers` and `from_layers` hold the weights of an MLP as a
plain list, as JAX code has them.  `benchmarks/frameworks` has the same networks, losses and samplers in torch and JAX.

    average.mlp.0.weight      moving average of the weights of DDPM and ScoreSDE, with which they sample
    network.mlp.0.weight      weights; for DDPM and ScoreSDE only between two steps of a training
    exp_avg.mlp.0.weight      Adam's first moment, as `torch.optim.Adam` has it, between two steps
    exp_avg_sq.mlp.0.weight   Adam's second moment, between two steps
    step                      number of steps done, between two steps
    mean_, scale_, losses_    further fitted attributes, by their names
    training.…                further arrays of `training_state_`, by their names

`mlp` stands for the layers of DDPM and ScoreSDE; VAE and LinearVAE have `encoder`, `decoder` and the vector
`log_variance`.  The part of a key after the first dot is the key of a torch module, in which `mlp` is a `Sequential` of
`Linear` and activations: layer i has `mlp.{2i}.weight`, (out, in), and `mlp.{2i}.bias`, (out,).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from scratchgen.models.diffusion import DiffusionModel
from scratchgen.models.vae import PARTS, GaussianVAE
from scratchgen.nn import MLP, Adam
from scratchgen.validation import Array, as_finite, as_real, check_type, refuse_masked

Model = TypeVar("Model", bound=GaussianVAE | DiffusionModel)
Layers = list[tuple[Array, Array]]  # (W (in, out), b (out,)) of every layer x W + b

CURVES = ("losses_", "validation_steps_", "validation_bounds_", "noise_losses_")  # arrays whose length is free


def layers(state: Mapping[str, Array], prefix: str) -> Layers:
    """The layers below a prefix as a plain list of (W (in, out), b (out,)), for x W + b.

    Parameters
    ----------
    state : dict of arrays
        From `state_dict`.
    prefix : str
        "average.mlp", "network.encoder", "exp_avg.mlp", …

    Raises
    ------
    ValueError
        If state has no layers below the prefix.

    Examples
    --------
    >>> from scratchgen import DDPM
    >>> x = np.random.default_rng(0).standard_normal((64, 2))
    >>> state = state_dict(DDPM(hidden=(8,), n_steps=2, rng=0).fit(x))
    >>> [(weight.shape, bias.shape) for weight, bias in layers(state, "average.mlp")]
    [((22, 8), (8,)), ((8, 2), (2,))]
    """
    check_type(state, Mapping, "state", "pass state_dict(model)")
    check_type(prefix, str, "prefix", "pass 'average.mlp'")
    found: Layers = []
    while (key := f"{prefix}.{2 * len(found)}.weight") in state:
        bias_key = f"{prefix}.{2 * len(found)}.bias"
        if bias_key not in state:
            raise ValueError(f"state must have the key {bias_key!r} beside {key!r}, got no such key; add it")
        weight, bias = (as_real(_as_copy(part, state[part]), f"state[{part!r}]") for part in (key, bias_key))
        weight = weight.T.copy()
        _check_layer(weight, bias, f"state[{key!r}].T and its bias")
        found.append((weight, bias))
    if not found:
        prefixes = sorted({key.removesuffix(".0.weight") for key in map(str, state) if key.endswith(".0.weight")})
        raise ValueError(f"prefix must be one of {prefixes}, the layers of state, got {prefix!r:.60}; pass one of them")
    return found


def from_layers(layers: Sequence[tuple[Array, Array]], prefix: str) -> dict[str, Array]:
    """Keys and arrays of a list of layers, the inverse of `layers`, to update a state with.

    Parameters
    ----------
    layers : list of (W (in, out), b (out,))
    prefix : str
        As for `layers`.
    """
    check_type(layers, Sequence, "layers", "pass a list of (W (in, out), b (out,))")
    check_type(prefix, str, "prefix", "pass 'average.mlp'")
    state = dict[str, Array]()
    for i, layer in enumerate(layers):
        if not isinstance(layer, Sequence) or len(layer) != 2:
            raise ValueError(f"layers[{i}] must be a pair (W (in, out), b (out,)), got {layer!r:.60}; pass both")
        weight, bias = (as_real(part, f"layers[{i}]") for part in layer)
        _check_layer(weight, bias, f"layers[{i}]")
        state |= {f"{prefix}.{2 * i}.weight": weight.T.copy(), f"{prefix}.{2 * i}.bias": bias.copy()}
    return state


def _check_layer(weight: Array, bias: Array, name: str) -> None:
    """Raise ValueError unless a layer has W (in, out) and b (out,)."""
    if weight.ndim != 2 or bias.shape != weight.shape[1:]:
        raise ValueError(
            f"{name} must have W of shape (in, out) and b of shape (out,), got {weight.shape} and {bias.shape}; "
            "transpose the weights of a torch Linear for a list of layers, not in a state"
        )


def state_dict(model: Model) -> dict[str, Array]:
    """Copies of all numbers of a fitted model, and of a training that has not ended, by the keys of this module.

    Parameters
    ----------
    model : VAE, LinearVAE, DDPM or ScoreSDE
        The constructor's arguments are not a part of the state: keep the model, or save it, for the way back.

    Returns
    -------
    state : dict of arrays
        `np.savez(path, **state)` writes it.

    Raises
    ------
    TypeError
        If model is none of these.
    NotFittedError
        If model is not fitted.
    ValueError
        If the model has residual blocks or a picture, which have no keys.

    Examples
    --------
    >>> from scratchgen import DDPM
    >>> x = np.random.default_rng(0).standard_normal((64, 2))
    >>> model = DDPM(hidden=(8,), n_steps=20, rng=0)
    >>> for progress in model.train(x):
    ...     if progress.step == 10:
    ...         break
    >>> state = state_dict(model)
    >>> state["network.mlp.0.weight"].shape, int(state["step"])
    ((8, 22), 10)
    >>> load_state_dict(model, state).resume(x).losses_.shape
    (20,)
    """
    check_type(model, (GaussianVAE, DiffusionModel), "model", "pass a VAE, LinearVAE, DDPM or ScoreSDE")
    if isinstance(model, DiffusionModel) and not isinstance(model.network_.mlp, MLP):
        kind = f"network={model.network!r}, picture={model.picture}"
        raise ValueError(f"model must have the network 'mlp' without a picture, got {kind}; others have no state dict")
    places = _places(model)
    held: dict[str, Any] = {name: getattr(model, name) for name in model._fitted}
    if model.training_state_ is not None:
        held |= {f"training.{name}": value for name, value in model.training_state_.arrays.items()}
    state = dict[str, Array]()
    for prefix, (name, factor) in places.items():
        vector = held.pop(name)
        if factor != 1.0:
            vector = (factor * vector.astype(np.float64)).astype(vector.dtype)
        if (mlp := _empty_mlp(model, prefix)) is None:
            state[prefix] = vector.copy()
            continue
        mlp.parameters[:] = vector
        state |= from_layers(list(zip(mlp.weights, mlp.biases, strict=True)), prefix)
    if model.training_state_ is not None:
        state["step"] = np.array(model.training_state_.step)
    return state | {name: np.array(value) for name, value in held.items() if name not in _copies(model)}


def load_state_dict(model: Model, state: Mapping[str, Array]) -> Model:
    """Set all numbers of a model to those of a state; return the model itself.

    The model then samples with the new numbers, and is saved with them.  If the state has a `step`, `resume(x)` goes on
    after that step.  The generator of the next draws, and the checksum of x, stay those of the model.

    Parameters
    ----------
    model : VAE, LinearVAE, DDPM or ScoreSDE
        The fitted model, or one that was loaded from its file; leave a loop over `train` first.
    state : dict of arrays
        The keys, shapes and dtypes of `state_dict(model)`.  `step` is less than `n_steps_`: `resume` takes the last
        step, after which some models compute further numbers from x.  Append one number to `losses_` for every further
        step; it has at least `step` numbers.

    Raises
    ------
    TypeError
        If model is none of these, or state is no dict.
    ValueError
        If a key is missing or unknown, or an array has another shape or dtype or numbers that no training has; the
        message names the key, and the model is as it was before.
    """
    expected = state_dict(model)
    check_type(state, Mapping, "state", "pass a dict with the keys of state_dict(model)")
    model._check_arguments(model._params_of_fit)
    for key in sorted(expected.keys() - state.keys()):
        raise ValueError(f"state must have the key {key!r}, got no such key; start from state_dict(model)")
    for key in sorted(state.keys() - expected.keys(), key=str):
        raise ValueError(f"state has the unknown key {key!r:.60}; pass the keys of state_dict(model) only")
    held = _joined(model, {key: _as_expected(key, state[key], array) for key, array in expected.items()})
    fitted, training = {name: _scalar(held[name]) for name in model._fitted}, model.training_state_
    if training is not None:
        held |= {name: held[original].copy() for name, original in _copies(model).items()}
        arrays = {name: _scalar(held[f"training.{name}"]) for name in training.arrays}
        training = training._replace(step=int(held["step"]), arrays=arrays)
    try:
        model._check_fitted(**fitted)
        if training is not None:
            model._check_state(training, fitted)
    except ValueError as error:
        raise ValueError(f"state: {error}") from error
    kept = {"n_features_in_": model.n_features_in_, "feature_names_in_": model._feature_names}
    model.set_fitted(**kept, _label_names=model._label_names, training_state_=training, **fitted)
    return model


def _scalar(array: Array) -> Any:
    """The number in an array without axes; other arrays as they are."""
    return array.item() if array.ndim == 0 else array


def _joined(model: Model, arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays of a state with the layers joined to the parameter vectors of a model file, by the names there."""
    joined = dict(arrays)
    for prefix, (name, factor) in _places(model).items():
        if (mlp := _empty_mlp(model, prefix)) is None:
            vector = joined.pop(prefix)
        else:
            for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
                weight[:], bias[:] = joined.pop(f"{prefix}.{2 * i}.weight").T, joined.pop(f"{prefix}.{2 * i}.bias")
            vector = mlp.parameters
        joined[name] = vector if factor == 1.0 else (vector.astype(np.float64) / factor).astype(vector.dtype)
    return joined


def _places(model: Model) -> dict[str, tuple[str, float]]:
    """Prefixes of the parameter vectors, each with the vector's name in a model file and the factor for torch."""
    adam = Adam(np.zeros(0))
    m, v = 1 - adam.beta1, 1 - adam.beta2  # `Adam` holds its moments without these factors
    if isinstance(model, DiffusionModel):
        fitted = {"average.mlp": ("parameters_", 1.0)}
        moments = {"exp_avg.mlp": ("training.m", m), "exp_avg_sq.mlp": ("training.v", v)}
        training = {"network.mlp": ("training.parameters", 1.0), **moments}
    else:
        fitted = {f"network.{name[:-1]}": (name, 1.0) for name in PARTS}
        training = {f"exp_avg.{name[:-1]}": (f"training.{name}m", m) for name in PARTS}
        training |= {f"exp_avg_sq.{name[:-1]}": (f"training.{name}v", v) for name in PARTS}
    return fitted if model.training_state_ is None else fitted | training


def _copies(model: Model) -> dict[str, str]:
    """Arrays of `training_state_` that a fitted attribute holds as well, each with the attribute's name."""
    if isinstance(model, DiffusionModel):
        return {"training.average": "parameters_"}
    return {f"training.{name}": name for name in PARTS}


def _empty_mlp(model: Model, prefix: str) -> MLP | None:
    """A copy of the MLP that a prefix stands for, whose numbers may change; None for a vector without layers."""
    part = getattr(model.network_, prefix.split(".")[1])
    return copy.deepcopy(part) if isinstance(part, MLP) else None


def _as_expected(key: str, value: Any, expected: Array) -> Array:
    """A copy of `value` as an array; ValueError unless it has the expected shape and dtype and finite numbers."""
    array = _as_copy(key, value)
    free = key in CURVES and array.ndim == expected.ndim
    shape = (len(array), *expected.shape[1:]) if free else expected.shape
    if array.shape != shape or array.dtype != expected.dtype:
        wanted = str(("any", *expected.shape[1:])).replace("'", "") if key in CURVES else expected.shape
        raise ValueError(
            f"state[{key!r}] must have shape {wanted} and dtype {expected.dtype}, got {array.shape} and {array.dtype}; "
            "compare with state_dict(model)"
        )
    as_finite(array, f"state[{key!r}]")
    if key.startswith("exp_avg_sq.") and (array < 0).any():
        raise ValueError(f"state[{key!r}] must not be negative, got {array.min()}; it averages squares")
    return array


def _as_copy(key: str, value: Any) -> Array:
    """A copy of the value of a state as an array; TypeError if it is masked, ValueError if it is no array."""
    refuse_masked(value, f"state[{key!r}]")
    try:
        return np.array(value)
    except Exception as error:  # of a framework's own tensor
        raise ValueError(
            f"state[{key!r}] must be an array, got a {type(value).__name__}: {error}; pass a NumPy array, for torch "
            "tensor.detach().cpu().numpy()"
        ) from error
