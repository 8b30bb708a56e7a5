"""Estimator: the verbs all models share; and the same in units of the model's own.

A model is a dataclass: its constructor stores the arguments and does nothing else.  This is scikit-learn's contract, so
that `clone`, `Pipeline` and `GridSearchCV` work; scikit-learn is no dependency.
"""

import json
import os
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from scratchgen.models.files import decode, encode, write_atomically
from scratchgen.validation import RNG, Array, ArrayLike, as_count, as_samples


class Progress(NamedTuple):
    """What `train` yields after every step."""

    step: int  # steps done, from 1
    n_steps: int  # steps planned; training may end earlier
    loss: float  # nats; each model's `train` says which loss


class NotFittedError(ValueError, AttributeError):
    """A model was asked for something that only a fitted model has."""


class Estimator(ABC):
    """Base of all models: parameters, fit by training, mean log-likelihood, save and load.

    A model is a dataclass whose fields are its constructor's arguments.  It defines `train`, `sample` and `elbo`; where
    it has an exact likelihood it defines `log_prob` as well.
    """

    _fitted: ClassVar[tuple[str, ...]] = ()  # attributes that training sets and `save` keeps
    n_features_in_: int

    # --- parameters ------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name; `deep` is accepted for scikit-learn, there is nothing nested."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # leaves are dataclasses

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments; they are checked at the next fit."""
        unknown = params.keys() - self.get_params().keys()
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no parameter {sorted(unknown)[0]!r}; it has {', '.join(self.get_params())}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = {field.name: field.default for field in fields(self)}  # type: ignore[arg-type]
        changed = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(given[k])]
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

    @abstractmethod
    def train(self, x: ArrayLike) -> Iterator[Progress]:
        """Train from scratch, a step at a time; the model can be used after any step."""

    def fit(self, x: ArrayLike, y: object = None) -> Self:
        """Train from scratch on x, (N, D), to the end; y is ignored (Pipelines pass one)."""
        for _ in self.train(x):
            pass
        return self

    @abstractmethod
    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n examples from p_θ, (n, D)."""

    @abstractmethod
    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """A lower bound of log p_θ(x), (N,), nats; an unbiased estimate where it needs `rng`."""

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
            theirs: Any = sys.modules.get("sklearn.exceptions")  # whose tools catch their own error
            both = (NotFittedError,) if theirs is None else (NotFittedError, theirs.NotFittedError)
            error: Any = type("NotFittedError", both, {})
            raise error(f"this {type(self).__name__} is not fitted yet; call fit(x) or loop over train(x) first")

    def _as_fitted_samples(self, x: ArrayLike) -> Array:
        self._require_fitted()
        return as_samples(x, dimension=self.n_features_in_, model=type(self).__name__)

    def set_fitted(self, **fitted: Any) -> Self:
        """Take over fitted attributes, from training or from a file, by name; returns the model itself.

        Models that hold something derived from these attributes, such as a network, derive it here.
        """
        for name, value in fitted.items():
            setattr(self, name, value)
        return self

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
        header = {"class": type(self).__name__, "params": {k: encode(v) for k, v in self.get_params().items()}}
        fitted = {name: getattr(self, name) for name in ("n_features_in_", *self._fitted)}
        write_atomically(path, lambda file: np.savez_compressed(file, header=json.dumps(header), **fitted))

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
        model = cls(**{name: decode(value) for name, value in header["params"].items()})
        fitted = {name: saved[name] for name in ("n_features_in_", *cls._fitted)}
        return model.set_fitted(**{name: v.item() if v.ndim == 0 else v for name, v in fitted.items()})


class StandardizedEstimator(Estimator):
    """An estimator that works on (x − mean_)/scale_: the mean of every column, one scale for all of them.

    With `standardize=False` it works on x itself.  Likelihoods are always reported for x, in the data's own units.
    With `n_levels` the data are whole numbers 0..n_levels−1, the model works on them scaled to [−1, 1], and likelihoods
    are masses, which have no units.
    """

    standardize: bool
    n_levels: int | None
    mean_: Array
    scale_: float

    def _measure_units(self, x: Array) -> tuple[Array, float]:
        """mean_ and scale_ for x, (N, D)."""
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


class InformationCriteria(ABC):
    """BIC and AIC of a model with an exact likelihood and a count of its free parameters."""

    @property
    @abstractmethod
    def n_parameters_(self) -> int:
        """Number of free parameters."""

    @abstractmethod
    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x), (N,), nats."""

    def bic(self, x: ArrayLike) -> float:
        """−2 Σ log p_θ(x) + n_parameters_ log N, nats: smaller is better."""
        log_prob = self.log_prob(x)
        return float(-2 * log_prob.sum() + self.n_parameters_ * np.log(len(log_prob)))

    def aic(self, x: ArrayLike) -> float:
        """−2 Σ log p_θ(x) + 2 n_parameters_, nats: smaller is better."""
        return float(-2 * self.log_prob(x).sum() + 2 * self.n_parameters_)
