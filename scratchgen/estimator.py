"""Estimator: the verbs all models share.

Constructor arguments are stored as given and nothing else happens in a constructor, which is scikit-learn's contract
and is kept by duck typing: `clone`, `Pipeline` and `GridSearchCV` work, scikit-learn is no dependency.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.files import write_atomically
from scratchgen.validation import RNG, Array, as_count, as_samples


class Progress(NamedTuple):
    """What `train` yields after every step."""

    step: int  # steps done, from 1
    n_steps: int  # steps planned; training may end earlier
    loss: float  # nats; what it is the loss of, the model says


class NotFittedError(ValueError, AttributeError):
    """A model was asked for something that only a fitted model has."""


def _not_fitted_error() -> type[NotFittedError]:
    """NotFittedError, and scikit-learn's at the same time if that is loaded: its tools catch their own."""
    theirs = sys.modules.get("sklearn.exceptions")
    return NotFittedError if theirs is None else type("NotFittedError", (NotFittedError, theirs.NotFittedError), {})


class Estimator:
    """Base of all models: parameters, fit by training, mean log-likelihood, save and load.

    A model defines `train`, `sample` and `elbo`; where it has an exact likelihood it defines `log_prob` as well.
    """

    _fitted: ClassVar[tuple[str, ...]] = ()  # attributes that training sets and `save` keeps

    # --- parameters ------------------------------------------------------------------------------------------------

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name; `deep` is accepted for scikit-learn, there is nothing nested."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments; they are checked at the next fit."""
        unknown = set(params) - set(self._parameter_names())
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no parameter {sorted(unknown)[0]!r}; "
                f"it has {', '.join(self._parameter_names())}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(defaults[k].default)]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="density_estimator",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(),
            non_deterministic=True,
        )

    # --- training and likelihood -----------------------------------------------------------------------------------

    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Train from scratch, a step at a time; the model can be used after any step."""
        raise NotImplementedError

    def fit(self, x: ArrayLike, y: object = None) -> Self:
        """Train from scratch on x, (N, D), to the end; y is ignored (Pipelines pass one)."""
        for _ in self.train(x):
            pass
        return self

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ, (n, D)."""
        raise NotImplementedError

    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """A lower bound of log p_θ(x), (N,), nats; an unbiased estimate where it needs `rng`."""
        raise NotImplementedError

    def score_samples(self, x: ArrayLike) -> Array:
        """scikit-learn's word for `log_prob`, (N,), nats; for models without one, `elbo` with the model's own `rng`."""
        if hasattr(self, "log_prob"):
            return np.asarray(self.log_prob(x))
        return self.elbo(x, rng=getattr(self, "rng", None))

    def score(self, x: ArrayLike, y: object = None) -> float:
        """Mean of `score_samples`, nats: scikit-learn's "score", not the gradient ∇log p."""
        return float(self.score_samples(x).mean())

    def _require_fitted(self) -> None:
        if not hasattr(self, "n_features_in_"):
            name = type(self).__name__
            raise _not_fitted_error()(f"this {name} is not fitted yet; call fit(x) or loop over train(x) first")

    def _as_fitted_samples(self, x: ArrayLike) -> Array:
        self._require_fitted()
        return as_samples(x, dimension=self.n_features_in_, model=type(self).__name__)

    n_features_in_: int

    # --- files -----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted model to an .npz file, atomically and without pickle.

        Raises
        ------
        FileExistsError
            If the file exists and `overwrite` is False.
        NotFittedError
            If there is nothing to save.
        """
        self._require_fitted()
        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"path {path} is in a folder that does not exist; make {path.parent} first")
        if path.exists() and not overwrite:
            raise FileExistsError(f"path {path} exists; pass overwrite=True to replace it")
        header = {"class": type(self).__name__, "params": {k: _encode(v) for k, v in self.get_params().items()}}
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ("n_features_in_", *self._fitted)}
        arrays["header"] = json.dumps(header)
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that `save` wrote.

        Raises
        ------
        ValueError
            If the file is not a model of this class.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                saved = dict(file)
            header = json.loads(str(saved["header"]))
        except (ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(f"path {path} is not a model saved by scratchgen: {error}") from None
        if header["class"] != cls.__name__:
            raise ValueError(f"path {path} holds a {header['class']}, not a {cls.__name__}; use {header['class']}.load")
        model = cls(**{name: _decode(value) for name, value in header["params"].items()})
        for name in ("n_features_in_", *cls._fitted):
            value = saved[name]
            setattr(model, name, value.item() if value.ndim == 0 else value)
        model._restore()
        return model

    def _restore(self) -> None:
        """Rebuild after `load` what is derived from the fitted arrays."""


class StandardizedEstimator(Estimator):
    """An estimator that works on (x − mean_)/scale_: the mean of every column, one scale for all of them.

    With `standardize=False` it works on x itself.  Likelihoods are always reported for x, in the data's own units.
    With `n_levels` the data are whole numbers 0..n_levels−1, the model works on them scaled to [−1, 1], and likelihoods
    are masses, which have no units.
    """

    standardize: bool
    n_levels: int | None = None
    mean_: Array
    scale_: float

    def _measure_units(self, x: Array) -> tuple[Array, float]:
        """What mean_ and scale_ are for x, (N, D)."""
        if self.n_levels is not None:
            half = 0.5 * (self._as_levels(x) - 1)
            return np.full(x.shape[1], half), half
        if not self.standardize:
            return np.zeros(x.shape[1]), 1.0
        mean = x.mean(axis=0, dtype=np.float64)
        scale = float(np.sqrt(((x - mean) ** 2).mean()))
        if scale == 0:
            raise ValueError(
                f"x is constant (n_samples={len(x)}), so it has no scale; pass data that varies, or standardize=False"
            )
        return mean, scale

    def _as_levels(self, x: Array) -> int:
        """n_levels, if x holds such whole numbers."""
        n_levels = as_count(self.n_levels, "n_levels", minimum=2)
        if ((x != np.rint(x)) | (x < 0) | (x >= n_levels)).any():
            raise ValueError(
                f"x must hold whole numbers in 0..{n_levels - 1}, as n_levels says; n_levels=None takes reals"
            )
        return n_levels

    def _as_fitted_samples(self, x: ArrayLike) -> Array:
        array = super()._as_fitted_samples(x)
        if self.n_levels is not None:
            self._as_levels(array)
        return array

    def to_model(self, x: Array) -> Array:
        """(x − mean_)/scale_, (N, D): data units to the model's."""
        return (x - self.mean_) / self.scale_

    def to_data(self, x: Array) -> Array:
        """scale_ · x + mean_, (N, D): the model's units to the data's."""
        return x * self.scale_ + self.mean_

    def _to_levels(self, x: Array) -> Array:
        """x in data units; with `n_levels` the whole number whose bin it falls into."""
        return x if self.n_levels is None else np.clip(np.rint(x), 0, self.n_levels - 1) + 0.0  # no −0

    @property
    def _log_volume(self) -> float:
        """log |∂x/∂(model units)| = D log scale_: subtract it from a log density in the model's units."""
        return 0.0 if self.n_levels is not None else self.n_features_in_ * float(np.log(self.scale_))


def _encode(value: Any) -> Any:
    """A constructor argument as JSON."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.random.Generator):
        return {"generator": _encode(value.bit_generator.state)}
    if isinstance(value, dict):
        return {"dict": {key: _encode(v) for key, v in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v) for v in value]}
    if is_dataclass(value) and type(value).__module__.startswith("scratchgen."):
        given = {f.name: _encode(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"object": [type(value).__module__, type(value).__name__], "fields": given}
    if isinstance(value, list):
        return [_encode(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot save a parameter of type {type(value).__name__}; use numbers, arrays or library objects")


def _decode(value: Any) -> Any:
    """The inverse of `_encode`."""
    if isinstance(value, list):
        return [_decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.asarray(value["array"], dtype=value["dtype"])
    if "tuple" in value:
        return tuple(_decode(v) for v in value["tuple"])
    if "generator" in value:
        state = _decode(value["generator"])
        bits = _our_class(np.random, state["bit_generator"], np.random.BitGenerator)()
        bits.state = state
        return np.random.Generator(bits)
    if "dict" in value:
        return {key: _decode(v) for key, v in value["dict"].items()}
    module, name = value["object"]
    if not module.startswith("scratchgen."):
        raise ValueError(f"the file names an object of {module}, which no model of ours holds; do not trust it")
    given = {key: _decode(v) for key, v in value["fields"].items()}
    return _our_class(importlib.import_module(module), name)(**given)


def _our_class(module: ModuleType, name: str, base: type = object) -> Any:
    """The dataclass or bit generator of that name: a file may name parameters, not call functions."""
    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, base) or not (is_dataclass(found) or base is not object):
        raise ValueError(f"the file names {module.__name__}.{name}, which is no parameter of a model; do not trust it")
    return found
