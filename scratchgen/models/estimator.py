"""Base classes of the models: common methods, scaled data, and information criteria.

A model is a dataclass.  Its constructor stores the arguments and does nothing else, as scikit-learn requires of
estimators; `clone`, `Pipeline` and `GridSearchCV` of scikit-learn work with these models.  scikit-learn itself is not
needed.
"""

from __future__ import annotations

import inspect
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar

import numpy as np

from scratchgen.blocks import blocks, by_blocks
from scratchgen.models.files import (
    FLOAT64,
    NUMBERS,
    Archive,
    Form,
    ModelFileError,
    as_path,
    decode,
    is_same,
    reading,
    write_model,
)
from scratchgen.models.progress import Progress as Progress
from scratchgen.models.progress import shown
from scratchgen.models.training_state import TrainingState
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    DTypeLike,
    as_arrays,
    as_count,
    as_generator,
    as_samples,
    check_columns,
    check_flag,
    check_levels,
    check_spread,
    check_varies,
    column_names,
    constant_columns,
    is_finite,
    weighted_rows,
)

MOST_LEVELS = 2**20  # of whole numbers; tables have one number for each
LARGEST_UNITS = 1e15  # largest distance from the mean in the model's units: networks square it in float32
P = ParamSpec("P")
R = TypeVar("R")


FAR = (
    "x is so far from the data of training that σ² of the encoder overflows; drop fill values and outliers, or train "
    "on data like x"
)
UNTRAINED = (
    "numbers of the network overflow, because x is far from the data of training or the network has not learned; look "
    "at losses_, and train with a lower learning_rate"
)


def finite(cause: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a method that returns an array, or a tuple of arrays, raise ArithmeticError in place of NaN or inf.

    `cause` ends the message with the cause and the remedy.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @wraps(method)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                result = method(*args, **kwargs)
            parts: Any = result if isinstance(result, tuple) else (result,)
            if not all(is_finite(part) for part in parts):
                raise ArithmeticError(f"{method.__name__} is not finite: {cause}")
            return result

        return checked

    return decorate


def framed(sample: Callable[P, R]) -> Callable[P, R]:
    """Let a model's `sample` return a pandas.DataFrame if its argument `as_frame` is True.

    The columns are `feature_names_in_`, or 0, 1, … for a model without names.  What follows x in a tuple, such as
    labels, stays an array.  The annotations say Array, since pandas need not be there for a type checker.
    """

    @wraps(sample)
    def framing(*args: P.args, **kwargs: P.kwargs) -> R:
        as_frame = kwargs.get("as_frame", False)
        check_flag(as_frame, "as_frame")
        if not as_frame:
            return sample(*args, **kwargs)
        try:  # before the draw, which may take minutes
            from pandas import DataFrame
        except ModuleNotFoundError:
            raise ModuleNotFoundError("as_frame=True needs pandas; pip install pandas, or pass False") from None
        result: Any = sample(*args, **kwargs)
        x, *rest = result if isinstance(result, tuple) else (result,)
        model: Any = args[0]
        frame = DataFrame(x, columns=model._feature_names)
        framed_result: Any = (frame, *rest) if rest else frame
        return framed_result

    return framing


def check_no_random_state(names: Container[str]) -> None:
    """Raise TypeError, with the right name, if scikit-learn's random_state is among the arguments."""
    if "random_state" in names:
        raise TypeError("random_state is not an argument; did you mean rng? pass rng=0, or a numpy Generator")


class NotFittedError(ValueError, AttributeError):
    """Error of a method that needs a fitted model."""


def _not_fitted(message: str) -> NotFittedError:
    """A NotFittedError, also of scikit-learn's class if that is loaded, since its tools catch only its own error."""
    theirs: Any = sys.modules.get("sklearn.exceptions")
    if theirs is None:
        return NotFittedError(message)
    both: Any = type(
        "NotFittedError",
        (NotFittedError, theirs.NotFittedError),
        {"__reduce__": lambda self: (_not_fitted, self.args)},  # pickle would look for a class of the module
    )
    return both(message)


def copied(params: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a constructor with copies of lists and arrays, which may change in place."""
    return {name: value.copy() if isinstance(value, list | np.ndarray) else value for name, value in params.items()}


@cache  # every step of EM asks for them
def _arguments(cls: Any) -> dict[str, inspect.Parameter]:
    """Arguments of the constructor of a class."""
    return {name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"}


@dataclass(eq=False, repr=False, kw_only=True)
class Estimator(ABC):
    """Base of all models: parameters, fit, score, save and load.

    The fields of a model's dataclass are the arguments of its constructor, and those with init=False are fitted
    attributes.  The fields of base classes are keyword-only, so that they come after those of the model itself.  Every
    model defines `train`, `sample` and `elbo`; models with an exact likelihood also define `log_prob`.
    """

    _fitted: ClassVar[tuple[str, ...]] = ()  # attributes that training sets and `save` writes
    n_features_in_: int = field(init=False)
    _feature_names: tuple[str, ...] | None = field(init=False)
    _label_names: tuple[str, ...] | None = field(init=False)  # of the labels 0, 1, ...; the command line sets them
    training_state_: TrainingState | None = field(init=False)  # None after the last step
    _params_of_fit: dict[str, Any] = field(init=False)
    verbose: bool | int = False
    rng: RNG = None

    # --- parameters ------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor arguments by name; `deep` has no effect and is there for scikit-learn."""
        return {name: getattr(self, name) for name in self._parameters()}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the object; TypeError for random_state, which `__init__` of a dataclass cannot explain."""
        check_no_random_state(kwargs.keys() - cls._parameters().keys())
        return super().__new__(cls)

    @classmethod
    def _parameters(cls) -> dict[str, inspect.Parameter]:
        """Arguments of the constructor; those of a subclass that is no dataclass are found as well."""
        return _arguments(cls)

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments, which the next fit checks; a loop over `train` refuses to go on with others.

        Fit again before you use the model: its numbers belong to the arguments before, which `save` writes, but methods
        read some arguments, such as `n_sample_steps`, when they are called.

        Raises
        ------
        ValueError
            If the model has no argument of that name.
        """
        check_no_random_state(params.keys() - self._parameters().keys())
        unknown = params.keys() - self.get_params().keys()
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no parameter {sorted(unknown)[0]!r}; it has {', '.join(self.get_params())}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = self._parameters()
        changed = [f"{k}={v!r}" for k, v in self.get_params().items() if repr(v) != repr(given[k].default)]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="density_estimator",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(allow_nan=self._takes_missing),
            non_deterministic=True,
        )

    # --- training and likelihood -----------------------------------------------------------------------------------

    @abstractmethod
    def train(self, x: ArrayLike, *, resume: bool = False) -> Iterator[Progress]:
        """Train on x, (N, D), step by step; the model is usable after every step.

        The training starts from scratch, or with `resume` after the last step of a training that has not ended.
        """

    def fit(self, x: ArrayLike, y: object = None) -> Self:
        """Train from scratch on x, (N, D), until `train` ends; y is ignored, and is there for scikit-learn's Pipeline.

        If x is a data frame whose column names are text, the model keeps the names as `feature_names_in_`, and every
        method refuses a frame with other columns or with another order.  An array has no names and is accepted.

        Raises
        ------
        TypeError, ValueError
            If x or a constructor argument is wrong.
        ArithmeticError
            If the loss becomes NaN or infinite.
        """
        return self._run(self.train(x))

    def _run(self, steps: Iterator[Progress]) -> Self:
        """Train to the end; with `verbose` show the progress."""
        self._check_parameters()  # `steps` makes the check when it runs; `verbose` has to be right before
        for _ in shown(steps, type(self).__name__, self._report) if self.verbose else steps:
            pass
        return self

    def _report(self, progress: Progress) -> str:
        """The loss after a step, as text for `verbose`."""
        return f"loss {progress.loss:.4g}"

    def resume(self, x: ArrayLike, y: object = None) -> Self:
        """Go on with a training that has not ended, on the same x, (N, D); y is as for `fit`.

        The model has such a training after a loop over `train` that was left, after Ctrl-C in `fit`, or from a file
        that was saved then.  The result has the same bytes as that of a training without interruption.

        Raises
        ------
        ValueError
            If there is no such training, an argument has changed since, or x or y are not those of the training.
        """
        return self._run(self.train(x, resume=True))

    def _names_in(self, x: ArrayLike, resume: bool) -> tuple[str, ...] | None:
        """Names of the columns of x; with `resume` those of the training, after a check of those of x."""
        if not resume:
            return column_names(x)
        known = getattr(self, "_feature_names", None)
        check_columns(column_names(x), known)
        return known

    def _state_to_resume(self, data: str) -> TrainingState:
        """A copy of `training_state_`; ValueError if it cannot go on with data of the checksum `data`."""
        state = self.training_state_
        if state is None:
            raise ValueError(
                f"this {type(self).__name__} has no training to resume, since the last one has ended; use the model as "
                "it is, or call fit(x) for a new training"
            )
        self._check_arguments(self._params_of_fit)
        if data != state.checksum:
            raise ValueError(
                "x is not the data of the training that resumes, or further arguments differ; pass the same numbers in "
                "the same order and dtype, or call fit(x)"
            )
        return state.copy()

    def _check_arguments(self, before: dict[str, Any]) -> None:
        """Raise ValueError if an argument but `verbose` is not as in the training, whose arguments are `before`.

        Loops over `train` make the check after every step: a file would hold arguments that are not of its numbers.
        """
        for name, value in self.get_params().items():
            if name != "verbose" and not is_same(value, before[name]):
                raise ValueError(
                    f"{name} must be {before[name]!r:.60}, as in the training that resumes, got {value!r:.60}; set it "
                    "back, or call fit(x)"
                )

    def _state_and_generator(self, data: str, resume: bool) -> tuple[TrainingState | None, np.random.Generator]:
        """State to go on from, None without `resume`, and the source of random numbers, set to that state."""
        state, rng = self._state_to_resume(data) if resume else None, as_generator(self.rng)
        if state is not None:
            rng.bit_generator.state = state.generator
        return state, rng

    @abstractmethod
    def sample(self, n: int, rng: RNG = None, *, as_frame: bool = False) -> Array:
        """Draw n examples from p_θ, (n, D), as a pandas.DataFrame with the names of fit if `as_frame` is True."""

    @abstractmethod
    def elbo(self, x: ArrayLike, rng: RNG = None) -> Array:
        """A lower bound of log p_θ(x), (N,), nats, for x (N, D); models that use `rng` give an unbiased estimate."""

    def score_samples(self, x: ArrayLike) -> Array:
        """`log_prob`, (N,), nats; for models without `log_prob`, `elbo` with the model's own `rng`.

        The name is that of scikit-learn.
        """
        if hasattr(self, "log_prob"):
            return np.asarray(self.log_prob(x))
        return self.elbo(x, rng=self.rng)

    def score(self, x: ArrayLike, y: object = None) -> float:
        """Mean of `score_samples`, nats: the "score" of scikit-learn, not the gradient ∇log p."""
        return float(self.score_samples(x).mean())

    if not TYPE_CHECKING:  # with __getattr__ a type checker would accept every name

        def __getattr__(self, name: str) -> Any:
            """Raise NotFittedError for an attribute that training sets, if the model is not fitted."""
            if name.startswith("_") or not name.endswith("_") or "n_features_in_" in vars(self):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise _not_fitted(f"this {type(self).__name__} is not fitted yet; call fit(x) or loop over train(x) first")

    @property
    def feature_names_in_(self) -> Array:
        """Names of the columns of the data frame of training, (D,) of str; without names there is no such attribute."""
        if self._feature_names is None:
            raise AttributeError
        return np.array(self._feature_names, dtype=object)  # scikit-learn's dtype

    @property
    def _takes_missing(self) -> bool:
        """Whether NaN in x is a missing value; otherwise it is an error."""
        return False

    def _as_fitted_samples(self, x: ArrayLike) -> Array:
        n_features = self.n_features_in_
        check_columns(column_names(x), self._feature_names)
        return as_samples(x, dimension=n_features, model=type(self).__name__, missing=self._takes_missing)

    def set_fitted(self, **fitted: Any) -> Self:
        """Set fitted attributes, from training or from a file, by name; return the model itself.

        `feature_names_in_`, the names of the columns, may be left out or None: the model then has no names.

        Raises
        ------
        ValueError
            If the names are not those of all the fitted attributes that `save` writes.
        """
        self._check_names(fitted)
        return self._keep(fitted | self._built_from(fitted))

    def _check_names(self, fitted: dict[str, Any]) -> None:
        names = {"n_features_in_", *self._fitted}
        if wrong := sorted((fitted.keys() - {"feature_names_in_", "training_state_", "_label_names"}) ^ names):
            raise ValueError(
                f"set_fitted must be given {', '.join(sorted(names))}; {', '.join(wrong)} "
                f"{'is' if len(wrong) == 1 else 'are'} missing or unknown"
            )

    def _keep(self, attributes: dict[str, Any]) -> Self:
        """Set all attributes at once, so that Ctrl-C leaves the old fit or the new one, and never a mixture of both."""
        names = attributes.pop("feature_names_in_", None)
        params = copied(self.get_params())
        own = {"training_state_": None, "_feature_names": None if names is None else tuple(names), "_label_names": None}
        attributes = own | attributes
        vars(self).update(attributes, _params_of_fit=params)  # `save` writes these, whatever `set_params` does later
        return self

    def _built_from(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """Attributes that are built from the fitted ones, such as a network, or that replace them."""
        return {}

    # --- files -----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted model to an .npz file, without pickle; between two steps of `train`, also `training_state_`.

        The file is complete or, after an error, as before.  A file that is replaced keeps its permissions, and its
        owner and group where the process may change them; elsewhere it becomes a file of this user, and no group gains
        access.  A BitGenerator as `rng` is written as the Generator that draws from it.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        FileNotFoundError
            If the folder does not exist.
        FileExistsError
            If the file exists and `overwrite` is False.
        TypeError
            If a constructor argument has a type that cannot be written.
        RuntimeError
            If the interpreter has ended, as in `__del__` of a global object; functions of `atexit` may save.
        """
        path = as_path(path)
        check_flag(overwrite, "overwrite")
        folder = Path(os.path.realpath(path)).parent  # a link is followed
        if not folder.is_dir():
            raise FileNotFoundError(f"path {path} is in a folder that does not exist; make {folder} first")
        if path.exists() and not overwrite:
            raise FileExistsError(f"path {path} exists; pass overwrite=True to replace it")
        fitted = {name: getattr(self, name) for name in ("n_features_in_", *self._fitted)}
        state, names = self.training_state_, self._feature_names
        write_model(path, type(self).__name__, self._params_of_fit, fitted, overwrite, names, state, self._label_names)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that `save` wrote.

        Nothing in a file is trusted: arguments, types, shapes and numbers are checked, and no code runs.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ModelFileError
            If the file is damaged or is not a model of this class, or no fit could have given its numbers.
        """
        with reading(path) as archive:
            if archive.model == cls.__name__:
                return cls._from_archive(archive)
        raise ModelFileError(f"path {path} holds a {archive.model}, not a {cls.__name__}; use {archive.model}.load")

    @classmethod
    def _from_archive(cls, archive: Archive) -> Self:
        """Build the model of a file after checks of the arguments, then of the arrays' forms, then of their numbers."""
        params = {key: decode(value, key) for key, value in archive.params.items()}
        if params.keys() != cls._parameters().keys():
            wrong = sorted(params.keys() ^ cls._parameters().keys())
            raise ModelFileError(f"argument {wrong[0]} is missing or unknown")
        model = cls(**params)
        model._check_parameters()
        n_features = archive.arrays({"n_features_in_": Form(("int64",), ())})
        D = as_count(n_features["n_features_in_"], "n_features_in_")
        names, label_names = archive.feature_names(D), archive.label_names(getattr(model, "n_classes", 0))
        state = archive.training()
        of_state = {} if state is None else {f"training.{name}": form for name, form in model._state_forms(D).items()}
        archive.only({"header", "n_features_in_", *cls._fitted, *of_state, *([] if state is None else ["training"])})
        fitted = archive.arrays(model._forms(D))
        model._check_fitted(**fitted)
        if state is not None:
            arrays = archive.arrays(of_state)
            state = state._replace(arrays={name.removeprefix("training."): array for name, array in arrays.items()})
            model._check_state(state, fitted)
        kept = {"feature_names_in_": names, "_label_names": label_names, "training_state_": state}
        return model.set_fitted(n_features_in_=D, **kept, **fitted)

    def _check_parameters(self) -> None:
        """Raise TypeError or ValueError for a wrong constructor argument, as far as it can be seen without data."""
        if not isinstance(self.verbose, bool | np.bool_):
            as_count(self.verbose, "verbose", minimum=0)
        as_generator(self.rng)

    def _forms(self, n_features: int) -> dict[str, Form]:
        """Types and shapes of the fitted attributes, which follow from the arguments and the number of columns."""
        return dict.fromkeys(self._fitted, Form(NUMBERS, None))

    def _check_fitted(self, **fitted: Any) -> None:  # noqa: B027
        """Raise ValueError for finite numbers that no fit gives, such as a negative variance."""

    def _state_forms(self, n_features: int) -> dict[str, Form]:
        """Types and shapes of the arrays of `training_state_`."""
        return {}

    def _check_state(self, state: TrainingState, fitted: dict[str, Any]) -> None:
        """Raise ValueError for a state that no training has."""
        as_count(state.step, "step", minimum=0)
        kind, needed = state.generator["bit_generator"], type(as_generator(self.rng).bit_generator).__name__
        if kind != needed:
            raise ValueError(f"training: the generator must be a {needed}, as rng is, got {kind}")


@dataclass(eq=False, repr=False, kw_only=True)
class StandardizedEstimator(Estimator):
    """Base of models that work on (x − mean_)/scale_, with a mean and a scale, (D,) each, of the training data.

    With `standardize=True` every column has its own mean and its own scale, the standard deviation, so that columns may
    have any units.  With "global" every column has its own mean, and all have one scale, the root mean square of the
    standard deviations; it keeps the shape of data whose columns have one unit, such as pictures and points of a plane.
    With False the model works on x itself.  Likelihoods are always those of x, in the units of the data.

    With `n_levels` the data are whole numbers 0..n_levels−1.  The model works on numbers scaled to [−1, 1], whatever
    `standardize` is, and likelihoods are probabilities, which have no units.
    """

    standardize: bool | str = True
    n_levels: int | None = None
    mean_: Array = field(init=False)
    scale_: Array = field(init=False)
    _one_scale: ClassVar[bool] = False  # whether standardize=True means one scale for all columns

    def _check_parameters(self) -> None:
        super()._check_parameters()
        known = isinstance(self.standardize, bool | np.bool_) or (
            isinstance(self.standardize, str) and self.standardize == "global"
        )
        if not known:
            raise TypeError(
                "standardize must be True or False, or 'global' for one scale for all columns, got "
                f"{self.standardize!r:.60}; pass True, which gives every column its own scale"
            )
        if self.n_levels is not None:
            as_count(self.n_levels, "n_levels", minimum=2, maximum=MOST_LEVELS)

    def _forms(self, n_features: int) -> dict[str, Form]:
        return {
            "mean_": Form(FLOAT64, (n_features,)),
            "scale_": Form(FLOAT64, (n_features,)),
        }

    def _check_fitted(self, **fitted: Any) -> None:
        if (fitted["scale_"] <= 0).any():
            raise ValueError(f"scale_ must be positive, got {fitted['scale_'].min()}")
        if self.n_levels is not None:
            half = 0.5 * (self.n_levels - 1)
            if any((fitted[name] != half).any() for name in ("mean_", "scale_")):
                raise ValueError(f"mean_ and scale_ must be {half} for n_levels={self.n_levels}")

    def _measure_units(self, x: Array) -> tuple[Array, Array]:
        """Compute mean_ and scale_, (D,) each, from x, (N, D)."""
        D = x.shape[1]
        if self.n_levels is not None:
            half = np.full(D, 0.5 * (self._as_levels(x) - 1))
            return half, half.copy()
        if not self.standardize:
            return np.zeros(D), np.ones(D)
        one_scale = self._one_scale or self.standardize == "global"
        if one_scale and len(constant_columns(x)) == D:
            raise ValueError(
                f"x must vary, but every column is constant (n_samples={len(x)}); pass other data or standardize=False"
            )
        if not one_scale:
            check_varies(x, "drop it, or, if all columns have one unit, pass standardize='global' or False")
        mean = x.mean(axis=0, dtype=np.float64)
        squares = sum(((x[rows] - mean) ** 2).sum(axis=0) for rows in blocks(len(x), D))
        variances = np.asarray(squares / len(x))
        if one_scale:
            variances = np.full(D, variances.mean())
        check_spread(x, variances)
        return mean, np.sqrt(variances)

    def _as_levels(self, x: Array) -> int:
        """Return n_levels; raise ValueError unless x holds whole numbers 0..n_levels−1."""
        n_levels = as_count(self.n_levels, "n_levels", minimum=2)
        check_levels(x, n_levels)
        return n_levels

    def _as_fitted_samples(self, x: ArrayLike) -> Array:
        array = super()._as_fitted_samples(x)
        if self.n_levels is not None:
            self._as_levels(array)
        return array

    def to_model(self, x: Array) -> Array:
        """Convert x, (N, D), from the units of the data to the model's: (x − mean_)/scale_.

        Raises
        ------
        ValueError
            If x has a NaN, or an element of the result is larger than 1e15 in size; its square could overflow in
            float32.
        """
        n_features = self.n_features_in_
        check_columns(column_names(x), self._feature_names)
        x = as_arrays("x (N, D)", x, D=n_features)
        self._check_units(x)
        return self._in_units(x)

    def _in_units(self, x: Array) -> Array:
        """(x − mean_)/scale_."""
        return (x - self.mean_) / self.scale_

    def _check_units(self, x: Array) -> None:
        """Raise ValueError for elements of x, (N, D), that `to_model` refuses."""
        for rows in blocks(len(x), x.shape[1]):
            wrong = np.argwhere(~(np.abs(self._in_units(x[rows])) <= LARGEST_UNITS))  # also NaN
            if len(wrong):
                n, d = wrong[0] + [rows.start, 0]
                raise ValueError(
                    f"x must lie within {LARGEST_UNITS:g} units of the model, {self.scale_[d] * LARGEST_UNITS:.3g}, of "
                    f"its mean, but x[{n}, {d}] is {x[n, d]}; drop fill values and NaN, or train on data like x with "
                    "standardize=True"
                )

    def _as_training_data(self, x: Array, dtype: DTypeLike) -> Array:
        """x, (N, D), in the model's units and in the dtype of training; a copy, made by blocks of rows."""
        self._check_units(x)
        return by_blocks(lambda rows: self._in_units(x[rows]).astype(dtype), len(x), x.shape[1])

    def _by_blocks(self, f: Callable[[Array, slice], R], x: ArrayLike, numbers: int = 1, least: int = 1) -> R:
        """Results of f for blocks of x, (N, D), in the model's units, and their rows; further arguments as `by_blocks`.

        A row has at least D numbers.
        """
        x = self._as_fitted_samples(x)
        self._check_units(x)
        return by_blocks(lambda rows: f(self._in_units(x[rows]), rows), len(x), max(numbers, x.shape[1]), least)

    def to_data(self, x: Array) -> Array:
        """Convert x, (N, D), from the model's units to those of the data: scale_ · x + mean_; NaN stays NaN.

        The verbs that call a network check the result, and raise ArithmeticError for NaN.
        """
        x = as_arrays("x (N, D)", x, D=self.n_features_in_)
        return x.astype(np.float64) * self.scale_ + self.mean_  # scale_ may exceed the range of float32

    def _to_levels(self, x: Array) -> Array:
        """Return x, in units of the data; with `n_levels` the whole number in whose bin x lies."""
        return x if self.n_levels is None else np.clip(np.rint(x), 0, self.n_levels - 1) + 0.0  # + 0.0 turns −0 into 0

    @property
    def _log_volume(self) -> float:
        """log |∂x/∂to_model(x)| = Σ_d log scale_d: log p(x) is the log density in the model's units minus this."""
        return 0.0 if self.n_levels is not None else float(np.log(self.scale_).sum())


class InformationCriteria(ABC):
    """BIC and AIC of models with an exact likelihood and a number of free parameters."""

    @property
    @abstractmethod
    def n_parameters_(self) -> int:
        """Number of free parameters."""

    @abstractmethod
    def log_prob(self, x: ArrayLike) -> Array:
        """log p_θ(x), (N,), nats."""

    def bic(self, x: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Bayesian information criterion −2 Σ log p_θ(x) + n_parameters_ log N, nats, for x (N, D); less is better.

        With weights w, (N,), the sum is Σ w log p_θ(x), and N is Σ w.
        """
        log_prob, weights = weighted_rows(self.log_prob(x), sample_weight)
        return float(-2 * (weights * log_prob).sum() + self.n_parameters_ * np.log(weights.sum()))

    def aic(self, x: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Akaike information criterion −2 Σ log p_θ(x) + 2 n_parameters_, nats, for x (N, D); less is better.

        With weights w, (N,), the sum is Σ w log p_θ(x).
        """
        log_prob, weights = weighted_rows(self.log_prob(x), sample_weight)
        return float(-2 * (weights * log_prob).sum() + 2 * self.n_parameters_)


class WeightedEstimator(InformationCriteria, Estimator):
    """Base of the models that EM fits, whose rows of data may have weights.

    A row of weight w counts as w equal rows, and a row of weight 0 is left out.  The weighted mean log-likelihood does
    not change when all weights are multiplied by a number; the number of examples, Σ w, which a prior and `bic` are
    compared with, does.
    """

    @abstractmethod
    def train(
        self, x: ArrayLike, *, sample_weight: ArrayLike | None = None, resume: bool = False
    ) -> Iterator[Progress]:
        """Train on x, (N, D), with weights (N,), step by step; the model is usable after every step.

        The training starts from scratch, or with `resume` after the last step of a training that has not ended.
        """

    def fit(self, x: ArrayLike, y: object = None, *, sample_weight: ArrayLike | None = None) -> Self:
        """Train from scratch on x, (N, D), until `train` ends.

        Parameters
        ----------
        x : (N, D)
        y
            Ignored; it is there for scikit-learn's Pipeline.
        sample_weight : (N,), optional
            Weights of the rows of x, none negative.  A row of weight w counts as w equal rows; 1 for every row if None.

        Raises
        ------
        TypeError, ValueError
            If x, the weights or a constructor argument is wrong.
        """
        return self._run(self.train(x, sample_weight=sample_weight))

    def resume(self, x: ArrayLike, y: object = None, *, sample_weight: ArrayLike | None = None) -> Self:
        """Go on with a training that has not ended, on the same x, (N, D), and the same weights; y is ignored.

        See `Estimator.resume` for trainings that have not ended, and for errors.
        """
        return self._run(self.train(x, sample_weight=sample_weight, resume=True))

    def score(self, x: ArrayLike, y: object = None, *, sample_weight: ArrayLike | None = None) -> float:
        """Mean of `score_samples`, nats, with weights (N,) of the rows; not the gradient ∇log p."""
        log_prob, weights = weighted_rows(self.score_samples(x), sample_weight)
        return float(np.average(log_prob, weights=weights))
