"""DiffusionModel, the base of DDPM and ScoreSDE: the noise network, its moving average, and the scaling of data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np

from scratchgen.models.estimator import StandardizedEstimator
from scratchgen.models.files import FLOAT64, Form
from scratchgen.nn import CategoricalDenoiser, NoiseNetwork, NoisePredictor, n_parameters
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    as_count,
    as_generator,
    as_number,
    as_samples,
    as_widths,
    check_symmetric,
    check_type,
    column_names,
)

Other = TypeVar("Other", bound="DiffusionModel")


@dataclass(eq=False, repr=False, kw_only=True)
class DiffusionModel(StandardizedEstimator):
    """Base of DDPM and ScoreSDE, which differ in the noise levels of training and in sampling and bounds."""

    prediction: str = "v"
    hidden: Sequence[int] = (128, 128, 128)
    n_coordinate_features: int = 0
    n_steps: int = 5000
    batch_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 0.0
    ema_decay: float = 0.999

    _fitted: ClassVar[tuple[str, ...]] = (
        "mean_",
        "scale_",
        "parameters_",
        "losses_",
        "histograms_",
        "covariance_",
    )
    n_classes = 0  # an argument of DDPM only
    parameters_: Array = field(init=False)
    histograms_: Array = field(init=False)
    covariance_: Array = field(init=False)
    losses_: Array = field(init=False)
    network_: NoisePredictor = field(init=False)

    def _start(self, x: ArrayLike) -> tuple[NoisePredictor, Array, dict[str, Any]]:
        """Check the arguments of training, compute the scaling of the data, and set the untrained network.

        Returns
        -------
        network : NoiseNetwork or CategoricalDenoiser
            The network to train; `network_` holds the moving average of its parameters.
        data : (N, D)
            x in the model's units, float32.
        options : dict
            Further arguments of the training loop.
        """
        names, x, options = column_names(x), as_samples(x), self._options()
        mean, scale = self._measure_units(x)
        histograms, covariance = self._statistics(x, mean, scale)
        network = self._new_network(x.shape[1], histograms, covariance, options["rng"])
        self.set_fitted(
            n_features_in_=x.shape[1],
            feature_names_in_=names,
            mean_=mean,
            scale_=scale,
            parameters_=network.parameters,
            losses_=np.zeros(0),
            histograms_=histograms,
            covariance_=covariance,
        )
        return network, self.to_model(x).astype(np.float32), options

    def _options(self) -> dict[str, Any]:
        """Arguments of the training loop after checks."""
        return {
            "n_steps": as_count(self.n_steps, "n_steps"),
            "rng": as_generator(self.rng),
            "batch_size": as_count(self.batch_size, "batch_size"),
            "learning_rate": as_number(self.learning_rate, "learning_rate", low=0.0, open_low=True),
        }

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._options()
        as_number(self.weight_decay, "weight_decay", low=0.0)
        as_number(self.ema_decay, "ema_decay", low=0.0, high=1 - 1e-9)
        as_widths(self.hidden, "hidden")
        as_count(self.n_coordinate_features, "n_coordinate_features", minimum=0)
        if not isinstance(self.prediction, str):
            raise TypeError(f"prediction must be text, got {self.prediction!r:.60}; pass 'v'")
        if self.prediction == "levels" and self.n_levels is None:
            raise ValueError("n_levels must say how many levels x has for prediction='levels', got None; set n_levels")

    def _forms(self, n_features: int) -> dict[str, Form]:
        if self.prediction == "levels":
            sizes = CategoricalDenoiser.sizes(n_features, self.hidden, n_classes=self.n_classes)
            histograms, covariance = Form(FLOAT64, (n_features, self.n_levels)), Form(FLOAT64, (n_features, n_features))
        else:
            n = self.n_coordinate_features
            sizes = NoiseNetwork.sizes(n_features, self.hidden, n_coordinate_features=n, n_classes=self.n_classes)
            histograms = covariance = Form(FLOAT64, (0,))
        parameters = Form(("float32",), (n_parameters(sizes),))
        own = {"parameters_": parameters, "histograms_": histograms, "covariance_": covariance}
        return super()._forms(n_features) | own

    def _check_fitted(self, **fitted: Any) -> None:
        super()._check_fitted(**fitted)
        histograms, covariance = fitted["histograms_"], fitted["covariance_"]
        if len(histograms) and (histograms.min() <= 0 or np.abs(histograms.sum(axis=1) - 1).max() > 1e-9):
            raise ValueError("histograms_ must be positive, with sum 1 in every row")
        if len(covariance):
            check_symmetric(covariance, "covariance_")
            if np.linalg.eigvalsh(covariance)[0] < -1e-9 * np.abs(covariance).max():
                raise ValueError("covariance_ must not have a negative eigenvalue")

    def _statistics(self, x: Array, mean: Array, scale: Array) -> tuple[Array, Array]:
        """Histograms (D, n_levels) and covariance (D, D) of the scaled data, for a `CategoricalDenoiser`."""
        if self.prediction != "levels" or self.n_levels is None:
            return np.zeros(0), np.zeros(0)
        counts = np.stack([np.bincount(column.astype(np.int64), minlength=self.n_levels) for column in x.T])
        share = counts + 1 / self.n_levels  # one more example, spread over the levels, so that none is impossible
        covariance = np.atleast_2d(np.cov(((x - mean) / scale).T, bias=True))
        return share / share.sum(axis=1, keepdims=True), covariance

    def _new_network(self, dimension: int, histograms: Array, covariance: Array, rng: RNG) -> NoisePredictor:
        """Create the untrained network for `prediction`."""
        if self.prediction == "levels":
            return CategoricalDenoiser(histograms, covariance, self.hidden, n_classes=self.n_classes, rng=rng)
        return NoiseNetwork(
            dimension,
            self.hidden,
            n_coordinate_features=self.n_coordinate_features,
            rng=rng,
            n_classes=self.n_classes,
        )

    def _built_from(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """`network_` with a copy of `parameters_`, the moving average; `parameters_` becomes this copy."""
        network = self._new_network(fitted["n_features_in_"], fitted["histograms_"], fitted["covariance_"], rng=0)
        network.parameters[:] = fitted["parameters_"]
        return {"network_": network, "parameters_": network.parameters}

    def share_network_with(self, other: Other) -> Other:
        """Give the unfitted model `other` a copy of this model's network and scaling, and return `other`.

        The network depends on a noise level through its log-SNR only, so that it serves both kinds of models.
        """
        check_type(other, DiffusionModel, "other", "pass DDPM() or ScoreSDE()")
        shared = ("prediction", "n_levels", "hidden", "n_coordinate_features", "standardize", "rng")
        other.set_params(**{name: getattr(self, name) for name in shared})
        fitted = {name: getattr(self, name) for name in ("n_features_in_", *DiffusionModel._fitted)}
        return other.set_fitted(**fitted, feature_names_in_=self._feature_names)
