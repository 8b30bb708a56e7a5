"""DiffusionModel, the base of DDPM and ScoreSDE: the noise network, its moving average, and the scaling of data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np

from scratchgen.augmentation import Augmentation, Copies
from scratchgen.likelihood import levels_of
from scratchgen.models.estimator import Progress
from scratchgen.models.files import FLOAT64, Form
from scratchgen.models.network_model import NetworkModel, TrainingLoop, check_moments
from scratchgen.models.training_state import TrainingState, checksum
from scratchgen.nn import EMA, Adam, CategoricalDenoiser, GuidedNetwork, NoiseNetwork, NoisePredictor
from scratchgen.nn.features import count_told
from scratchgen.nn.networks import check_choices, count_parameters, numbers_a_pixel
from scratchgen.timestep_sampling import TimestepSampler
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    IntArray,
    as_count,
    as_labels,
    as_number,
    as_samples,
    as_widths,
    check_symmetric,
    check_type,
)

MOST_COLUMNS = 2  # of data whose network has coordinate features by default, see `DDPM`
Other = TypeVar("Other", bound="DiffusionModel")


def level_shares(x: Array, n_levels: int) -> Array:
    """Share of every level in the columns of whole numbers x, (N, D), smoothed: (D, n_levels), all positive.

    One more example is spread over the levels, so that none is impossible.
    """
    counts = np.stack([np.bincount(column.astype(np.int64), minlength=n_levels) for column in x.T])
    shares: Array = counts + 1 / n_levels
    return shares / shares.sum(axis=1, keepdims=True)


class TrainingParts(NamedTuple):
    """The objects of a training loop, and its state, which is made of their arrays."""

    network: NoisePredictor  # in training; `network_` has the moving average of its parameters
    adam: Adam
    ema: EMA
    data: Array  # the rows of x that are not held out, in the model's units, float32
    labels: IntArray | None
    rng: np.random.Generator
    state: TrainingState
    validate: Callable[[], float] | None
    copies: Copies | None  # of rows of `data`, by `augment`


@dataclass(eq=False, repr=False, kw_only=True)
class DiffusionModel(NetworkModel):
    """Base of DDPM and ScoreSDE, which differ in the noise levels of training and in sampling and bounds."""

    prediction: str = "v"
    hidden: Sequence[int] = (128, 128, 128)
    network: str = "mlp"
    dropout: float = 0.0
    picture: tuple[int, int] | None = None
    n_coordinate_features: int | None = None
    n_steps: int | None = None
    batch_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 0.0
    ema_decay: float = 0.9999
    n_classes: int = 0
    label_dropout: float = 0.1
    augment: Augmentation | None = None  # type: ignore[misc]

    _fitted: ClassVar[tuple[str, ...]] = (
        "mean_",
        "scale_",
        "parameters_",
        "n_steps_",
        "losses_",
        "validation_steps_",
        "validation_bounds_",
        "histograms_",
        "class_histograms_",
        "covariance_",
    )
    _weights: ClassVar[tuple[str, ...]] = ("parameters_",)
    parameters_: Array = field(init=False)
    histograms_: Array = field(init=False)
    class_histograms_: Array = field(init=False)
    covariance_: Array = field(init=False)
    network_: NoisePredictor = field(init=False)

    # --- training --------------------------------------------------------------------------------------------------

    def fit(self, x: ArrayLike, y: object = None) -> Self:
        """Train from scratch on x, (N, D), to the end; arguments and errors as for `train`."""
        return self._run(self.train(x, y))

    def resume(self, x: ArrayLike, y: object = None) -> Self:
        """Go on with a training that has not ended, see `Estimator.resume`; y are its labels."""
        return self._run(self.train(x, y, resume=True))

    def train(self, x: ArrayLike, y: object = None, *, resume: bool = False) -> Iterator[Progress]:
        """Minimise the loss of the class docstring by Adam.

        Parameters
        ----------
        x : (N, D)
            An array, or a data frame; `Estimator.fit` says what its names are for.
        y : (N,) of int, optional
            Labels 0..n_classes−1, needed if n_classes > 0; ignored if n_classes is 0.
        resume : bool
            Go on after the last step of a training that has not ended, see `Estimator.resume`.

        Yields
        ------
        progress : Progress
            After every step, with the loss of the batch, summed over dimensions.  The expected loss of the optimal
            network is not 0.

        Raises
        ------
        TypeError, ValueError
            If x, y or a constructor argument is wrong.
        ArithmeticError
            If the loss or the gradient becomes NaN or infinite, or the parameters overflow.  The model then keeps the
            last good parameters, or, if the first step fails, the fit from before.
        """
        return self._follow(partial(self._loop, x, y), resume)

    @abstractmethod
    def _loop(self, x: ArrayLike, y: object, resume: bool) -> TrainingLoop:
        """The training loop of the model's chapter on x and y, with the arguments of the model."""

    def _numbers_a_row(self) -> int:
        """Numbers in a row of the largest array of a call of the network: D, or D · n_levels for a table of levels."""
        if not isinstance(self.network_, CategoricalDenoiser):
            return self.n_features_in_
        return self.n_features_in_ * max(len(self.network_.levels), numbers_a_pixel(self._params_of_fit["picture"]))

    @property
    @abstractmethod
    def _n_times(self) -> int:
        """Number of steps t, or of cells of training times: each has a running mean."""

    def _begin(self, x: ArrayLike, y: object, means: TimestepSampler, resume: bool) -> TrainingParts:
        """Make the objects that the training loop changes: anew, or with `resume` as in `training_state_`.

        Parameters
        ----------
        x : (N, D)
        y : (N,) of int, optional
            Labels, for a model with classes.
        means : TimestepSampler
            The sampler of the loop, or its part with running means, which are set.
        resume : bool
        """
        names, x = self._names_in(x, resume), as_samples(x)
        labels = self._as_labels(y, len(x)) if self.n_classes else None
        data = checksum(x, labels)
        state, rng = self._state_and_generator(data, resume)
        held = self._hold_out(len(x), rng, state)
        rest = np.delete(np.arange(len(x)), held["held_out"]) if held else slice(None)
        if state is None:
            mean, scale = self._measure_units(x[rest])
            statistics = self._statistics(x[rest], mean, scale, None if labels is None else labels[rest])
            network = self._new_network(x.shape[1], statistics, rng)
            self.set_fitted(
                n_features_in_=x.shape[1],
                feature_names_in_=names,
                mean_=mean,
                scale_=scale,
                parameters_=network.parameters,
                n_steps_=self._planned_steps(len(x[rest])),
                losses_=np.zeros(0),
                **statistics,
            )
        else:
            network = self._new_network(x.shape[1], vars(self), rng=0)
        adam = Adam(network.parameters, weight_decay=self.weight_decay)
        ema = EMA(self.parameters_, self.ema_decay)
        arrays = {
            "parameters": network.parameters,
            "average": ema.average,
            "m": adam.m,
            "v": adam.v,
            "mean_squares": means.mean_squares,
            "n_seen": means.n_seen,
        }
        state = self._state_of(arrays, held, [adam], data, rng, state)
        ema.n_updates = state.step
        trained, trained_labels = self._as_training_data(x[rest], np.float32), None if labels is None else labels[rest]
        validate = self._validation(x, held, self.batch_size, labels)
        copies = self._copies(x[rest], np.float32)
        return TrainingParts(network, adam, ema, trained, trained_labels, rng, state, validate, copies)

    def _as_labels(self, y: Any, n: int) -> IntArray:
        """Return labels y as an int array (n,); TypeError or ValueError unless they are ints in 0..n_classes−1."""
        if not self.n_classes:
            raise ValueError("y must be None for a model without labels, n_classes=0; train one with n_classes set")
        return as_labels(y, n, self.n_classes, "y")

    def _labels_of(self, y: ArrayLike | None, x: ArrayLike) -> IntArray | None:
        """Labels y of the rows of x, (N, D), after checks; None if y is None."""
        return None if y is None else self._as_labels(y, len(self._as_fitted_samples(x)))

    def _given(self, y: Any, n: int, guidance: float = 1.0, guidance_in: str = "eps") -> GuidedNetwork:
        """The network for n rows with labels y, (n,), or without labels if y is None."""
        return GuidedNetwork(self.network_, None if y is None else self._as_labels(y, n), guidance, guidance_in)

    def _decoder_of_levels(
        self, x0: Array, given: GuidedNetwork, level: tuple[float, float]
    ) -> Callable[[Array], Array] | None:
        """log P(x_0 | x_t, y) of a `CategoricalDenoiser`, (N,), as a function of x_t at a noise level; else None."""
        network = self.network_
        if not isinstance(network, CategoricalDenoiser):
            return None
        levels = levels_of(x0, len(network.levels))
        return lambda x_t: network.log_mass(levels, x_t, *level, given.labels)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        as_count(self.batch_size, "batch_size")
        as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True)
        as_number(self.weight_decay, "weight_decay", low=0.0)
        as_number(self.ema_decay, "ema_decay", low=0.0, high=1 - 1e-9)
        check_choices(self.network, as_widths(self.hidden, "hidden"), self.dropout, self.picture)
        as_count(self.n_classes, "n_classes", minimum=0)
        as_number(self.label_dropout, "label_dropout", low=0.0, high=1.0)
        self._n_frequencies(1)
        if not isinstance(self.prediction, str):
            raise TypeError(f"prediction must be text, got {self.prediction!r:.60}; pass 'v'")
        if self.prediction == "levels" and self.n_levels is None:
            raise ValueError("n_levels must say how many levels x has for prediction='levels', got None; set n_levels")
        if self.picture is not None and self.prediction != "levels":
            raise ValueError(
                f"picture must be None for prediction={self.prediction!r}, got {self.picture}; pass prediction='levels'"
            )

    @property
    def _n_augment(self) -> int:
        """Number of numbers of the augmentation that are told to the network."""
        return 0 if self.augment is None else self.augment.n_augment

    def _n_frequencies(self, dimension: int) -> int:
        """Number of frequencies for D columns: `n_coordinate_features`; for None 1 up to 2 columns, and 0 above."""
        if self.n_coordinate_features is None:
            return 1 if dimension <= MOST_COLUMNS else 0
        return as_count(self.n_coordinate_features, "n_coordinate_features", minimum=0)

    def _forms(self, n_features: int) -> dict[str, Form]:
        told = {"n_classes": self.n_classes, "n_augment": self._n_augment}
        if self.prediction == "levels":
            sizes = CategoricalDenoiser.sizes(n_features, self.hidden, **told)
            histograms, covariance = Form(FLOAT64, (n_features, self.n_levels)), Form(FLOAT64, (n_features, n_features))
            class_histograms = Form(FLOAT64, (self.n_classes, n_features, self.n_levels) if self.n_classes else (0,))
        else:
            n = self._n_frequencies(n_features)
            sizes = NoiseNetwork.sizes(n_features, self.hidden, n_coordinate_features=n, **told)
            histograms = class_histograms = covariance = Form(FLOAT64, (0,))
        length = count_parameters(sizes, count_told(**told), self.network, self.picture)
        parameters = Form(("float32",), (length,))
        own = {"parameters_": parameters, "histograms_": histograms, "class_histograms_": class_histograms}
        return super()._forms(n_features) | own | {"covariance_": covariance}

    def _state_forms(self, n_features: int) -> dict[str, Form]:
        cells, parameters = (self._n_times + 1,), self._forms(n_features)["parameters_"]
        means = {"mean_squares": Form(FLOAT64, cells), "n_seen": Form(("int64",), cells)}
        own = dict.fromkeys(("parameters", "average", "m", "v"), parameters) | means
        return own | self._validation_forms(self._forms(n_features))

    def _check_state(self, state: TrainingState, fitted: dict[str, Any]) -> None:
        super()._check_state(state, fitted)
        check_moments(state.arrays, "m", "v")
        for name in "mean_squares", "n_seen":
            if (state.arrays[name] < 0).any():
                raise ValueError(f"training.{name} must not be negative")

    def _check_fitted(self, **fitted: Any) -> None:
        super()._check_fitted(**fitted)
        for name in "histograms_", "class_histograms_":
            histograms = fitted[name]
            if len(histograms) and (histograms.min() <= 0 or np.abs(histograms.sum(axis=-1) - 1).max() > 1e-9):
                raise ValueError(f"{name} must be positive, with sum 1 in every row")
        covariance = fitted["covariance_"]
        if len(covariance):
            check_symmetric(covariance, "covariance_")
            if np.linalg.eigvalsh(covariance)[0] < -1e-9 * np.abs(covariance).max():
                raise ValueError("covariance_ must not have a negative eigenvalue")

    def _statistics(self, x: Array, mean: Array, scale: Array, labels: IntArray | None) -> dict[str, Array]:
        """Histograms of the data and of the classes, and covariance of the scaled data, for a `CategoricalDenoiser`.

        Their shapes are (D, n_levels), (n_classes, D, n_levels) and (D, D); without levels they are empty.
        """
        if self.prediction != "levels" or self.n_levels is None:
            return dict.fromkeys(("histograms_", "class_histograms_", "covariance_"), np.zeros(0))
        of_classes = [level_shares(x[labels == y], self.n_levels) for y in range(self.n_classes)]
        return {
            "histograms_": level_shares(x, self.n_levels),
            "class_histograms_": np.array(of_classes),
            "covariance_": np.atleast_2d(np.cov(((x - mean) / scale).T, bias=True)),
        }

    def _new_network(self, dimension: int, statistics: dict[str, Any], rng: RNG) -> NoisePredictor:
        """Create the untrained network for `prediction`."""
        if self.prediction == "levels":
            return CategoricalDenoiser(
                statistics["histograms_"],
                statistics["covariance_"],
                self.hidden,
                rng=rng,
                n_classes=self.n_classes,
                n_augment=self._n_augment,
                class_histograms=statistics["class_histograms_"] if self.n_classes else None,
                network=self.network,
                dropout=self.dropout,
                picture=self.picture,
            )
        return NoiseNetwork(
            dimension,
            self.hidden,
            n_coordinate_features=self._n_frequencies(dimension),
            rng=rng,
            n_classes=self.n_classes,
            n_augment=self._n_augment,
            network=self.network,
            dropout=self.dropout,
        )

    def _built_from(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """`network_` with a copy of `parameters_`, the moving average; `parameters_` becomes this copy."""
        network = self._new_network(fitted["n_features_in_"], fitted, rng=0)
        network.parameters[:] = fitted["parameters_"]
        return {"network_": network, "parameters_": network.parameters}

    def share_network_with(self, other: Other) -> Other:
        """Give the unfitted model `other` a copy of this model's network and scaling, and return `other`.

        The network depends on a noise level through its log-SNR only, so that it serves both kinds of models.
        """
        check_type(other, DiffusionModel, "other", "pass DDPM() or ScoreSDE()")
        fitted = {name: getattr(self, name) for name in ("n_features_in_", *DiffusionModel._fitted)}
        of_network = ("hidden", "network", "dropout", "picture", "n_coordinate_features", "n_classes", "augment")
        shared = ("prediction", "n_levels", *of_network, "n_steps", "standardize", "rng")
        other.set_params(**{name: self._params_of_fit[name] for name in shared})  # not those of a later `set_params`
        other._check_parameters()
        return other.set_fitted(**fitted, feature_names_in_=self._feature_names, _label_names=self._label_names)
