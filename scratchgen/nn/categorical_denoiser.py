"""A noise network for whole numbers, which predicts a distribution over the levels of every dimension.

ε̂ follows from the mean of that distribution.  A `NoiseNetwork` has to learn that pixels take only 17 values.  In this
network the posterior of a pixel given its own noisy value is exact before training, and the MLP learns the dependence
on the other pixels.
"""

from collections.abc import Sequence

import numpy as np

from scratchgen.likelihood import draw_levels, level_values, logsumexp, quiet_log, softmax
from scratchgen.nn.features import NO_LABEL, augment_columns, count_told, label_indicators, time_features
from scratchgen.nn.labels import guided
from scratchgen.nn.mlp import Backward
from scratchgen.nn.networks import Network, Picture, check_choices, new_network
from scratchgen.nn.noise_network import as_levels
from scratchgen.validation import (
    RNG,
    Array,
    DTypeLike,
    IntArray,
    as_arrays,
    as_count,
    as_guidance,
    as_labels,
    as_widths,
    check_levels,
    check_probabilities,
    check_rng,
    check_symmetric,
)

N_CORRECTIONS = 4  # outputs of the MLP a dimension: logits for the lowest level, the highest level, ∝ level, ∝ level²


class CategoricalDenoiser:
    """ε̂(x_t, noise level) for x_0 with n_levels values l_k = 2k/(n_levels − 1) − 1 in every dimension.

        P(x_0d = l_k | x_t) ∝ h_dk N(x_td; scale l_k, std²) exp Σ_b F_db B_bk,    ε̂ = (x_t − scale E[x_0 | x_t])/std

    h are the histograms of the data, or of the class of a label with `class_histograms`.  Inputs of the MLP F: x_t,
    the per-pixel posterior mean (the mean for F = 0), the Wiener denoiser (linear, from the data's covariance), log-SNR
    and label.  F = 0 before training; ε̂ is then exact for independent dimensions.  The rows of B are the indicators of
    the first and of the last level, the level and its square.  F therefore has 4 outputs a dimension; n_levels outputs
    would be too many for small data sets.

    Inside, the levels lie on the first axis, (n_levels, N, D): sums over levels then add whole arrays.  A call then
    takes 0.65 times as long as with the levels on the last axis.

    Parameters
    ----------
    histograms : (D, n_levels)
        Probabilities of the levels in every dimension.
    covariance : (D, D)
        Covariance of the data, scaled to [−1, 1].
    hidden : sequence of int
        Widths of the hidden layers of F.
    n_time_features, n_classes, rng, dtype, n_augment
        As for `NoiseNetwork`.
    class_histograms : (n_classes, D, n_levels), optional
        Probabilities of the levels in every class, the h of examples with a label.
    network : {"mlp", "residual"}
        Kind of F: an `MLP`, or a `ResidualMLP` with one block for every width in hidden.
    dropout : float
        Probability that a unit inside a residual block is dropped in training.
    picture : (int, int), optional
        Height and width of a picture of D pixels.  F is then a `PictureNetwork`, with a network shared over the pixels.

    Attributes
    ----------
    mlp : MLP, ResidualMLP or PictureNetwork
        F.
    parameters, gradient : (P,)
        Parameters of F and their gradient.
    levels : (n_levels,)
        l_k.

    Raises
    ------
    TypeError, ValueError
        If a width or a number of features is not an integer in its range.
    """

    def __init__(
        self,
        histograms: Array,
        covariance: Array,
        hidden: Sequence[int] = (256, 256, 256),
        n_time_features: int = 8,
        n_classes: int = 0,
        rng: RNG = None,
        dtype: DTypeLike = np.float32,
        *,
        n_augment: int = 0,
        class_histograms: Array | None = None,
        network: str = "mlp",
        dropout: float = 0.0,
        picture: Picture | None = None,
    ) -> None:
        histograms = as_arrays("histograms (D, n_levels)", histograms)
        check_probabilities(histograms, "histograms")
        D, n_levels = histograms.shape
        covariance = as_arrays("covariance (D, D)", covariance, D=D)
        check_symmetric(covariance, "covariance")
        sizes = self.sizes(D, hidden, n_time_features, n_classes, n_augment)
        self.n_time_features = n_time_features
        self.n_classes = n_classes
        self.n_augment = n_augment
        n_told = count_told(n_time_features, n_classes, n_augment)
        check_choices(network, sizes[1:-1], dropout, picture)
        if picture is not None and picture[0] * picture[1] != D:
            raise ValueError(f"picture must have D = {D} pixels, got {picture}; pass the height and the width of x")
        self.mlp: Network = new_network(sizes, n_told, network, dropout, picture, rng, dtype)
        self.parameters, self.gradient = self.mlp.parameters, self.mlp.gradient
        k, levels = np.arange(n_levels), level_values(n_levels)
        self.levels: Array = levels.astype(dtype)
        self._basis: Array = np.stack([k == 0, k == n_levels - 1, levels, levels**2], axis=1).astype(dtype)
        tables = self._tables(histograms, class_histograms)
        self._log_histograms: Array = np.moveaxis(quiet_log(tables), -1, 0).astype(dtype, order="C")
        self._mean: Array = (histograms @ levels).astype(dtype)
        values, vectors = np.linalg.eigh(covariance)
        if values[0] < -1e-6 * abs(values[-1]):
            raise ValueError(f"covariance must be positive semidefinite, but has the eigenvalue {values[0]:.3g}")
        self._values: Array = np.maximum(values, 0.0).astype(dtype)
        self._vectors: Array = vectors.astype(dtype)

    def _tables(self, histograms: Array, class_histograms: Array | None) -> Array:
        """Histograms of every class, then of no class, (n_classes + 1, D, n_levels): NO_LABEL = −1 counts from the end.

        A level of probability 0 stays impossible.
        """
        D, n_levels = histograms.shape
        if class_histograms is None:
            return np.tile(histograms, (self.n_classes + 1, 1, 1))
        class_histograms = as_arrays(
            "class_histograms (C, D, n_levels)", class_histograms, C=self.n_classes, D=D, n_levels=n_levels
        )
        check_probabilities(class_histograms, "class_histograms")
        return np.concatenate([class_histograms, histograms[None]])

    @staticmethod
    def sizes(
        dimension: int, hidden: Sequence[int], n_time_features: int = 8, n_classes: int = 0, n_augment: int = 0
    ) -> tuple[int, ...]:
        """Widths of all layers of F, input first, for D dimensions and the constructor's other arguments."""
        dimension = as_count(dimension, "dimension")
        inputs = 3 * dimension + count_told(n_time_features, n_classes, n_augment)
        return (inputs, *as_widths(hidden, "hidden"), N_CORRECTIONS * dimension)

    # --- inputs ----------------------------------------------------------------------------------------------------

    def _columns(self, x: Array, scale: Array | float, std: Array | float) -> tuple[Array, Array, Array]:
        """Return x, and scale and std as columns, (N, 1) or (1, 1) for numbers, all in the network's dtype."""
        dtype = self.parameters.dtype
        x = as_arrays("x (N, D)", x, D=len(self._mean)).astype(dtype, copy=False)
        scale, std = (level.astype(dtype) for level in as_levels(scale, std)[:2])
        for name, level in ("scale", scale), ("std", std):
            if len(level) not in (1, len(x)):
                raise ValueError(f"{name} must be one number, or one for each of {len(x)} rows, got {len(level)}")
        return x, scale, std

    def _own_logits(self, x: Array, scale: Array, std: Array, labels: IntArray | None) -> Array:
        """Logits of the posterior of every pixel given its own noisy value alone, (n_levels, N, D)."""
        labels = np.array([NO_LABEL]) if labels is None else as_labels(labels, len(x), self.n_classes, first=NO_LABEL)
        unit = np.sqrt(2.0).astype(x.dtype) * std
        z = x / unit - self.levels[:, None, None] * (scale / unit)
        np.square(z, out=z)
        return np.subtract(self._log_histograms[:, labels], z, out=z)  # log h − (x − scale l)²/(2 std²)

    def _gains(self, scale: Array, std: Array) -> Array:
        """Gains of the Wiener denoiser along the eigenvectors of the covariance, (N, D) or (1, D)."""
        return scale * self._values / (scale**2 * self._values + std**2)

    def _inputs(
        self,
        x: Array,
        scale: Array,
        std: Array,
        own_law: Array,
        labels: IntArray | None,
        augment_labels: Array | None = None,
    ) -> Array:
        """Inputs of the MLP, (N, 3D + 2 n_time_features + n_classes + n_augment)."""
        centred = x - scale * self._mean
        denoised = ((centred @ self._vectors) * self._gains(scale, std)) @ self._vectors.T
        clock = time_features(2 * np.log(scale / std)[:, 0], self.n_time_features)
        clock = np.broadcast_to(clock, (len(x), clock.shape[1]))
        given = label_indicators(labels, len(x), self.n_classes, x.dtype)
        augmented = augment_columns(augment_labels, len(x), self.n_augment, x.dtype)
        own_mean = self._mean_of(self.levels, own_law) - self._mean
        return np.concatenate([centred / np.hypot(scale, std), own_mean, denoised, clock, given, augmented], axis=1)

    # --- the distribution over the levels --------------------------------------------------------------------------

    def _guided_logits(
        self, x: Array, scale: Array | float, std: Array | float, labels: IntArray | None, guidance: float
    ) -> Array:
        """`logits` with the levels first, (n_levels, N, D)."""
        guidance = as_guidance(guidance, labels)
        told = self._logits(x, scale, std, labels)
        if guidance == 1:
            return told
        mixed = guided(self._logits(x, scale, std, None), told, guidance)
        if np.isneginf(mixed.max(axis=0)).any():
            raise ArithmeticError("no level is possible both with the label and without it; leave guidance at 1")
        return mixed

    def _logits(self, x: Array, scale: Array | float, std: Array | float, labels: IntArray | None) -> Array:
        """log P(x_0d = l_k | x_t) up to a constant in every dimension, (n_levels, N, D), float64."""
        x, scale, std = self._columns(x, scale, std)
        own = self._own_logits(x, scale, std, labels)
        corrections = self.mlp(self._inputs(x, scale, std, softmax(own, axis=0), labels))
        return self._corrected(own, corrections).astype(np.float64)

    def _corrected(self, own: Array, corrections: Array) -> Array:
        """Add Σ_b F_db B_bk to the logits `own`, (n_levels, N, D), in place, for F (N, 4D) with 4 columns a pixel."""
        own += (self._basis @ corrections.reshape(-1, N_CORRECTIONS).T).reshape(own.shape)
        return own

    def _mean_of(self, values: Array, law: Array) -> Array:
        """Means under `law`, (n_levels, N, D), of `values` of a level: (N, D) for (n_levels,), else (N, D, values)."""
        means = law.reshape(len(law), -1).T @ values
        return means.reshape(*law.shape[1:], *values.shape[1:])

    def logits(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        labels: IntArray | None = None,
        guidance: float = 1.0,
    ) -> Array:
        """log P(x_0d = l_k | x_t) up to a constant in every dimension, (N, D, n_levels); arguments as for `law`."""
        return np.moveaxis(self._guided_logits(x, scale, std, labels, guidance), 0, -1)

    def law(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        labels: IntArray | None = None,
        guidance: float = 1.0,
    ) -> Array:
        """P(x_0d = l_k | x_t), (N, D, n_levels), the decoder of the last step.

        Parameters
        ----------
        x : (N, D)
            x_t.
        scale, std : float or (N,)
            Noise level: x_t = scale · x_0 + std · ε.
        labels : (N,) of 0..n_classes−1, or NO_LABEL, optional
        guidance : float
            w of the logits log P(l_k | x_t) + w (log P(l_k | x_t, y) − log P(l_k | x_t)), see `guided`: 0 is the law
            without the label, 1 that given the label; larger w make the levels sharper that the label speaks for.

        Returns
        -------
        law : (N, D, n_levels)
            In float64; probabilities below 1e-292 of the largest become 0.  `log_mass` has no such limit.
        """
        return np.moveaxis(softmax(self._guided_logits(x, scale, std, labels, guidance), axis=0), 0, -1)

    def log_mass(
        self, level: Array, x: Array, scale: Array | float, std: Array | float, labels: IntArray | None = None
    ) -> Array:
        """log P(x_0 | x_t), (N,), nats, of whole numbers x_0 = `level`, (N, D); other arguments as for `law`.

        Raises
        ------
        ValueError
            If an element of level is not a whole number 0..n_levels−1.
        """
        check_levels(level, len(self.levels), "level")
        x, level = as_arrays("x (N, D), level (N, D)", x, level)
        logits = self._logits(x, scale, std, labels)
        chosen = np.take_along_axis(logits, level.astype(np.int64)[None], axis=0)[0]
        return (chosen - logsumexp(logits, axis=0)).sum(axis=1)

    def draw(
        self,
        rng: np.random.Generator,
        x: Array,
        scale: Array | float,
        std: Array | float,
        labels: IntArray | None = None,
        guidance: float = 1.0,
    ) -> Array:
        """Draw whole numbers x_0 ~ P(x_0 | x_t), (N, D); arguments as for `law`."""
        check_rng(rng)
        law = self.law(x, scale, std, labels, guidance)
        return draw_levels(law, rng.random(law.shape[:2])).astype(np.float64)

    # --- predicted noise -------------------------------------------------------------------------------------------

    def __call__(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        labels: IntArray | None = None,
        guidance: float = 1.0,
    ) -> Array:
        """ε̂ = (x_t − scale E[x_0 | x_t])/std, (N, D); arguments as for `law`."""
        law = np.moveaxis(self.law(x, scale, std, labels, guidance), -1, 0)
        x, scale, std = self._columns(x, scale, std)
        return (x - scale * self._mean_of(self.levels, law).astype(x.dtype)) / std

    def vjp(
        self,
        x: Array,
        scale: Array | float,
        std: Array | float,
        labels: IntArray | None = None,
        augment_labels: Array | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Array, Backward]:
        """ε̂, (N, D), and its backward pass, backward(∂loss/∂ε̂, inputs=False), see `MLP.vjp`.

        Parameters
        ----------
        x, scale, std, labels
            As for `law`.
        augment_labels, rng
            As for `NoiseNetwork.vjp`.
        """
        x, scale, std = self._columns(x, scale, std)
        own = self._own_logits(x, scale, std, labels)
        own_law = softmax(own, axis=0)
        corrections, mlp_backward = self.mlp.vjp(self._inputs(x, scale, std, own_law, labels, augment_labels), rng)
        law = softmax(self._corrected(own, corrections), axis=0)
        mean = self._mean_of(self.levels, law)

        def backward(grad: Array, inputs: bool = False) -> Array | None:
            grad = np.asarray(grad, dtype=x.dtype)
            # ∂E[level]/∂F_b = Cov(level, B_b), ∂ε̂/∂E[level] = −scale/std
            covariances = self._mean_of(self._basis * self.levels[:, None], law)
            covariances -= self._mean_of(self._basis, law) * mean[:, :, None]
            by_corrections = (-scale / std * grad)[:, :, None] * covariances
            by_entering = mlp_backward(by_corrections.reshape(len(x), N_CORRECTIONS * x.shape[1]), inputs)
            if by_entering is None:
                return None
            D = x.shape[1]
            tilt = scale / std**2  # ∂(own logit)/∂x, a unit of level
            by_x = grad / std - scale / std * grad * self._variance(law) * tilt
            by_x += by_entering[:, :D] / np.hypot(scale, std)
            by_x += by_entering[:, D : 2 * D] * self._variance(own_law) * tilt
            by_denoised = by_entering[:, 2 * D : 3 * D] @ self._vectors
            return by_x + (by_denoised * self._gains(scale, std)) @ self._vectors.T

        return (x - scale * mean) / std, backward

    def _variance(self, law: Array) -> Array:
        """Variance of the level, (N, D), which is the derivative of its mean with respect to b of a logit b · level."""
        return self._mean_of(self.levels**2, law) - self._mean_of(self.levels, law) ** 2
