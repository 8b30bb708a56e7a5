"""The noise network: ε̂ from an MLP of the noisy point and its noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from scratchgen.nn.features import (
    augment_columns,
    coordinate_features,
    coordinate_features_jvp,
    coordinate_features_vjp,
    count_told,
    label_indicators,
    time_features,
)
from scratchgen.nn.mlp import Backward
from scratchgen.nn.networks import check_choices, new_trunk
from scratchgen.validation import (
    RNG,
    Array,
    ArrayLike,
    DTypeLike,
    IntArray,
    as_array,
    as_arrays,
    as_count,
    as_real,
    as_widths,
    check_positive,
    check_type,
    column,
)


class EpsCoefficients(NamedTuple):
    """Coefficients of ε̂ = skip · x_t + gain · F, with a network's output F; each a number, (N,) or (N, 1)."""

    skip: Array | float
    gain: Array | float


class NoiseLevels(NamedTuple):
    """Parts of a `NoiseNetwork` that depend on noise levels only, one row a level; see `NoiseNetwork.noise_levels`."""

    features: Array  # (n, 2 n_time_features)
    skip: Array  # skip · r, (n, 1)
    gain: Array | float  # (n, 1)
    r: Array  # (n, 1)

    def at(self, rows: IntArray) -> NoiseLevels:
        """The levels of these rows, (N,) of int, which count as in NumPy; IndexError if one does not exist."""
        return NoiseLevels(*(np.asarray(part).take(rows, axis=0) for part in self))


def as_levels(scale: ArrayLike, std: ArrayLike) -> tuple[Array, Array, Array]:
    """Scale, std and log-SNR as float64 columns, (N, 1) or (1, 1); ValueError unless scale and std are positive."""
    levels = []
    for name, value in ("scale", scale), ("std", std):
        array = as_real(value, name)
        if array.ndim > 1 and array.size != len(array):
            raise ValueError(f"{name} must be one number, or one number a row, got shape {array.shape}; drop an axis")
        levels.append(array.astype(np.float64, copy=False).reshape(-1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_snr = 2 * np.log(levels[0] / levels[1])
    if not np.isfinite(log_snr).all():
        check_positive(scale, "scale")
        check_positive(std, "std", "there is no noise to predict at std = 0")
    return levels[0], levels[1], log_snr


class NoiseNetwork:
    """ε̂(x_t, noise level), the predicted total noise ε of x_t = scale · x_0 + std · ε.

        ε̂ = skip · x_t + gain · F(y, features(y), features(log-SNR), label),   y = x_t/r,  r² = scale² + std²

    With the default skip = std/r², gain = scale/r the first term alone is the optimum for data N(0, I); the MLP F is 0
    before training.  For a variance-preserving process r = 1, and F predicts the v of Salimans and Ho (2022).  With
    other `EpsCoefficients` F predicts another quantity, see `scratchgen.ddpm.eps_coefficients`.

    Parameters
    ----------
    dimension : int
        D.
    hidden : sequence of int
        Widths of the hidden layers of F.
    n_time_features, n_coordinate_features : int
        Numbers of frequencies of `time_features` and `coordinate_features`; 0 for none.
    n_classes : int
        Number of classes, whose indicators are inputs of F; 0 for none.  Without a label all indicators are 0.
    n_augment : int
        Numbers of an augmentation that are inputs of F; 0 for none.  Only `vjp` takes them; elsewhere they are 0.
    network : {"mlp", "residual"}
        Kind of F: an `MLP`, or a `ResidualMLP` with one block for every width in hidden.
    dropout : float
        Probability that a unit inside a residual block is dropped in training.
    rng, dtype
        As for `MLP`.

    Attributes
    ----------
    mlp : MLP or ResidualMLP
        F.
    parameters, gradient : (P,)
        Parameters of F and their gradient.

    Raises
    ------
    TypeError, ValueError
        If a width or a number of features is not an integer in its range.
    """

    def __init__(
        self,
        dimension: int,
        hidden: Sequence[int] = (128, 128, 128),
        n_time_features: int = 8,
        n_coordinate_features: int = 0,
        rng: RNG = None,
        dtype: DTypeLike = np.float32,
        n_classes: int = 0,
        n_augment: int = 0,
        network: str = "mlp",
        dropout: float = 0.0,
    ) -> None:
        sizes = self.sizes(dimension, hidden, n_time_features, n_coordinate_features, n_classes, n_augment)
        self.dimension = dimension
        self.n_time_features = n_time_features
        self.n_coordinate_features = n_coordinate_features
        self.n_classes = n_classes
        self.n_augment = n_augment
        n_told = count_told(n_time_features, n_classes, n_augment)
        check_choices(network, sizes[1:-1], dropout, None)
        self.mlp = new_trunk(sizes, n_told, network, dropout, rng, dtype)
        self.parameters, self.gradient = self.mlp.parameters, self.mlp.gradient

    @staticmethod
    def sizes(
        dimension: int,
        hidden: Sequence[int],
        n_time_features: int = 8,
        n_coordinate_features: int = 0,
        n_classes: int = 0,
        n_augment: int = 0,
    ) -> tuple[int, ...]:
        """Widths of all layers of F, input first, for the constructor's arguments."""
        inputs = as_count(dimension, "dimension")
        inputs *= 1 + 2 * as_count(n_coordinate_features, "n_coordinate_features", minimum=0)
        inputs += count_told(n_time_features, n_classes, n_augment)
        return (inputs, *as_widths(hidden, "hidden"), dimension)

    def _levels(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        coefficients: EpsCoefficients | None,
        labels: IntArray | None,
    ) -> tuple[Array, NoiseLevels]:
        """x in the network's dtype, and noise levels: one row an example, or one row for all examples."""
        dtype = self.parameters.dtype
        x = as_real(x, "x").astype(dtype, copy=False)
        scale, std, log_snr = as_levels(scale, std)
        lengths = len(scale), len(std), len(x) if labels is None else as_array(labels, "labels").size
        if x.ndim != 2 or x.shape[1] != self.dimension or not {*lengths} <= {1, len(x)} or lengths[2] != len(x):
            raise ValueError(
                f"x must have shape (N, D), scale and std one number or N, and labels N, with "
                f"D = {self.dimension}, got x {x.shape}, "
                f"{lengths[0]} and {lengths[1]} numbers, and {lengths[2]} labels; pass one of each for every row"
            )
        if coefficients is not None:
            check_type(coefficients, EpsCoefficients, "coefficients")
        features = time_features(log_snr.astype(dtype)[:, 0], self.n_time_features)
        scale, std = scale.astype(dtype), std.astype(dtype)
        r = np.hypot(scale, std)
        if coefficients is None:
            return x, NoiseLevels(features, std / r, scale / r, r)
        skip = r * column(coefficients.skip, x, "skip of coefficients")
        return x, NoiseLevels(features, skip, column(coefficients.gain, x, "gain of coefficients"), r)

    def _inputs(
        self, x: Array, levels: NoiseLevels, labels: IntArray | None, augment_labels: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The MLP's inputs from the point, those from noise level, label and augmentation, and y = x/r.

        The second has one row an example, or one row for all examples.
        """
        n, given = self.n_coordinate_features, levels.features
        if self.n_classes or self.n_augment or augment_labels is not None:
            alike = labels is None and augment_labels is None
            given = given if alike or len(given) == len(x) else given.repeat(len(x), axis=0)
            indicators = label_indicators(labels, len(given), self.n_classes, given.dtype)
            augmented = augment_columns(augment_labels, len(given), self.n_augment, given.dtype)
            given = np.concatenate([given, indicators, augmented], axis=1)
        y = x / levels.r
        return np.concatenate([y, coordinate_features(y, n)], axis=1) if n else y, given, y

    def noise_levels(self, scale: Array, std: Array, coefficients: EpsCoefficients | None = None) -> NoiseLevels:
        """Parts of the network that depend on noise levels only, for `vjp`; a training computes them once.

        Parameters
        ----------
        scale, std : (n,)
        coefficients : EpsCoefficients, optional
            skip and gain, each a number or (n,), as for a call.
        """
        scale, std = as_arrays("scale (n), std (n)", scale, std)
        _, levels = self._levels(np.zeros((len(scale), self.dimension)), scale, std, coefficients, None)
        return levels._replace(gain=levels.gain * np.ones_like(levels.r))

    def __call__(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        coefficients: EpsCoefficients | None = None,
        labels: IntArray | None = None,
    ) -> Array:
        """ε̂ for x, (N, D).

        Parameters
        ----------
        x : (N, D)
            x_t.
        scale, std : float or (N,)
            Noise level: x_t = scale · x_0 + std · ε.
        coefficients : EpsCoefficients, optional
            skip and gain; those of the class docstring if None.
        labels : (N,) of 0..n_classes−1, or NO_LABEL, optional
        """
        x, levels = self._levels(x, scale, std, coefficients, labels)
        points, given, y = self._inputs(x, levels, labels)
        eps_hat = self.mlp(points, given[0]) if len(given) == 1 else self.mlp(_side_by_side(points, given))
        eps_hat *= levels.gain
        eps_hat += levels.skip * y
        return eps_hat

    def vjp(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        coefficients: EpsCoefficients | None = None,
        labels: IntArray | None = None,
        levels: NoiseLevels | None = None,
        augment_labels: Array | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Array, Backward]:
        """ε̂, (N, D), and its backward pass backward(∂loss/∂ε̂, inputs=False), see `MLP.vjp`.

        Parameters
        ----------
        x, scale, std, coefficients, labels
            As for a call.
        levels : NoiseLevels, optional
            The `noise_levels` of every row; the network then does not compute them from scale, std and coefficients.
        augment_labels : (N, n_augment), optional
            Numbers of the augmentation of every row (Karras et al. 2022); 0 if None.
        rng : Generator, optional
            Source of the dropped units of a network with dropout; no unit is dropped if None.
        """
        if levels is None:
            x, levels = self._levels(x, scale, std, coefficients, labels)
        else:
            check_type(levels, NoiseLevels, "levels", "pass network.noise_levels(scale, std)")
            x = as_arrays("x (N, D)", x, N=len(levels.r), D=self.dimension).astype(self.parameters.dtype, copy=False)
        points, given, y = self._inputs(x, levels, labels, augment_labels)
        entering = _side_by_side(points, given)
        output, mlp_backward = self.mlp.vjp(entering, rng)
        _, skip, gain, r = levels

        def backward(grad: Array, inputs: bool = False) -> Array | None:
            grad = np.asarray(grad, dtype=y.dtype)
            by_entering = mlp_backward(gain * grad, inputs)
            if by_entering is None:
                return None
            D, n = self.dimension, self.n_coordinate_features
            by_y = skip * grad + by_entering[:, :D]
            if n:
                by_y += coordinate_features_vjp(y, by_entering[:, D : D * (1 + 2 * n)], n)
            return by_y / r

        output *= gain
        output += skip * y
        return output, backward

    def jvp(
        self,
        x: Array,
        direction: Array,
        scale: Array | float,
        std: Array | float,
        coefficients: EpsCoefficients | None = None,
        labels: IntArray | None = None,
    ) -> tuple[Array, Array, Callable[[Array, Array], None]]:
        """ε̂, its derivative (∂ε̂/∂x) v along directions v (N, D), each (N, D), and the backward pass of both.

        backward(g, k), with g and k (N, D), overwrites `gradient` with the gradient of Σ (g · ε̂ + k · (∂ε̂/∂x) v), see
        `MLP.jvp`.  Other arguments are as for a call.
        """
        x, levels = self._levels(x, scale, std, coefficients, labels)
        points, given, y = self._inputs(x, levels, labels)
        _, skip, gain, r = levels
        direction = as_arrays("direction (N, D)", direction, N=len(y), D=self.dimension)
        entering = _side_by_side(points, given)
        D, n = self.dimension, self.n_coordinate_features
        dy = np.asarray(direction, dtype=y.dtype) / r
        moved = np.zeros_like(entering)  # noise level and label do not depend on x
        moved[:, :D] = dy
        moved[:, D : D * (1 + 2 * n)] = coordinate_features_jvp(y, dy, n)
        output, derivative, mlp_backward = self.mlp.jvp(entering, moved)

        def backward(grad: Array, grad_derivative: Array) -> None:
            mlp_backward(gain * grad, gain * grad_derivative)

        return skip * y + gain * output, skip * dy + gain * derivative, backward


def _side_by_side(points: Array, given: Array) -> Array:
    """Concatenate the columns of `points`, (N, P), and of `given`, (N, G) or (1, G) for all rows: (N, P + G)."""
    return np.concatenate([points, given if len(given) == len(points) else given.repeat(len(points), axis=0)], axis=1)
