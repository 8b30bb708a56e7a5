"""Checks of networks: outputs from the formula of each layer, derivatives from finite differences.

The right sides use only the weight matrices of a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts, returned, takes_arrays, takes_arrays_in_place
from scratchgen.conformance.em import normalised
from scratchgen.conformance.instances import rounding
from scratchgen.conformance.result import Check, compare, first_of, worst
from scratchgen.quadrature import central_difference
from scratchgen.validation import Array

Layers = Sequence[tuple[Array, Array]]  # (weights (m, n), biases (n,)) of every layer, input first


def printed_mlp(
    x: Array, layers: Layers, activation: str = "silu", late_bias: bool = False, residual: bool = False
) -> Array:
    """σ(x W_1 + b_1) → … → h W_L + b_L, (N, n), with the activation in its formula; the options are mistakes."""
    activate: Callable[[Array], Array] = {
        "silu": lambda z: z / (1 + np.exp(-z)),
        "tanh": lambda z: 1 - 2 / (np.exp(2 * z) + 1),
        "identity": lambda z: z,
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "leaky": lambda z: np.where(z > 0, z, 0.01 * z),
        "quick gelu": lambda z: z / (1 + np.exp(-1.702 * z)),
        "relu": lambda z: np.maximum(z, 0),
        "gelu": lambda z: z * (0.5 + 0.5 * np.vectorize(math.erf)(z / 2**0.5)),
    }[activation]
    for i, (weight, bias) in enumerate(layers):
        before, z = x, np.einsum("nm,mk->nk", x, weight)
        if i == len(layers) - 1:
            x = z + bias
        else:
            x = activate(z) + bias if late_bias else activate(z + bias)
            x = x + before if residual and x.shape == before.shape else x
    return x


def check_mlp(call: Callable[[Array], ArrayLike], layers: Layers, x: Array, activation: str = "silu") -> Check:
    """The output of a multilayer perceptron, from its matrices.

    Parameters
    ----------
    call : callable
        call(x) → (N, n).
    layers : sequence of (weights (m, n), biases (n,))
        Input layer first.
    x : (N, m)
    activation : {"silu", "tanh", "identity", "sigmoid", "relu", "gelu"}

    Returns
    -------
    Check
        Tolerance 5e-14.
    """
    right = printed_mlp(x, layers, activation)
    return compare(
        "check_mlp",
        "(14)",
        "the output of the network",
        call(x),
        right,
        1e-13,
        {
            "the last layer has an activation": lambda: printed_mlp(right, [(np.eye(right.shape[1]), 0.0)] * 2),  # type: ignore[list-item]
            "the last bias is missing": lambda: right - layers[-1][1],
            "the first bias is missing": lambda: printed_mlp(
                x, [(layers[0][0], 0 * layers[0][1]), *layers[1:]], activation
            ),
            **{
                f"the weights of layer {i + 1} are transposed": lambda i=i: printed_mlp(  # type: ignore[misc]
                    x, [(w.T if j == i else w, b) for j, (w, b) in enumerate(layers)], activation
                )
                for i, (weight, _) in enumerate(layers)
                if weight.shape[0] == weight.shape[1]
            },
            "all square weights are transposed": lambda: printed_mlp(
                x, [(w.T if w.shape[0] == w.shape[1] else w, b) for w, b in layers], activation
            ),
            "the biases are missing": lambda: printed_mlp(
                x, [(weight, 0 * bias) for weight, bias in layers], activation
            ),
            "the biases are added after the activation": lambda: printed_mlp(x, layers, activation, late_bias=True),
            "the activation is LeakyReLU, of slope 0.01": lambda: printed_mlp(x, layers, "leaky"),
            "the activation is z σ(1.702 z), an approximation of GELU": lambda: printed_mlp(x, layers, "quick gelu"),
            "the input of a layer is added to its output, a residual connection": lambda: printed_mlp(
                x, layers, activation, residual=True
            ),
            "there is no activation": lambda: printed_mlp(x, layers, "identity"),
            "the activation is tanh": lambda: printed_mlp(x, layers, "tanh"),
            "the activation is the sigmoid": lambda: printed_mlp(x, layers, "sigmoid"),
            "the activation is ReLU": lambda: printed_mlp(x, layers, "relu"),
            "the activation is GELU": lambda: printed_mlp(x, layers, "gelu"),
            "the activation is missing in the first layer": lambda: printed_mlp(
                printed_mlp(x, layers[:1], "identity"), layers[1:], activation
            ),
        },
    )


CLIPPED = 10, 15, 20, 30, 50, 88  # guards of an exponential


@takes_arrays_in_place
def check_activation(
    value: Callable[[Array], ArrayLike], value_and_slope: Callable[[Array], tuple[ArrayLike, ArrayLike]], z: Array
) -> Check:
    """SiLU, z/(1 + e⁻ᶻ), and its derivative s + z s (1 − s) with s the sigmoid.

    The right side computes s in two branches, one per sign of z, so that no exponential overflows.

    Parameters
    ----------
    value : callable
        value(z) → SiLU(z), (n,).
    value_and_slope : callable
        value_and_slope(z) → (SiLU(z), derivative), (n,) each.  Both callables may overwrite their argument.
    z : (n,)

    Returns
    -------
    Check
        The largest of three residuals; tolerance 1e-13.
    """
    small = np.exp(-np.abs(z))
    s = np.where(z >= 0, 1 / (1 + small), small / (1 + small))
    slope = s + z * s * (1 - s)
    left, derivative = parts(value_and_slope(z.copy()), 2, "value_and_slope")

    def silu_slope(inside: Array, outside: Array | None = None) -> Array:
        """s + z s (1 − s) with s the sigmoid of `inside`."""
        s = 1 / (1 + np.exp(-inside))
        return s + (inside if outside is None else outside) * s * (1 - s)

    name, unit = "check_activation", 1 + np.abs(z)
    mistakes: dict[str, Callable[[], ArrayLike]] = {
        "it is the sigmoid": lambda: s / unit,
        "it is a rectifier": lambda: np.maximum(z, 0) / unit,
        "it is tanh": lambda: np.tanh(z) / unit,
        "it is GELU": lambda: z * (0.5 + 0.5 * np.vectorize(math.erf)(z / 2**0.5)) / unit,
        "it is softplus": lambda: (np.maximum(z, 0) + np.log1p(small)) / unit,
        "it is SiLU of −z": lambda: z * (s - 1) / unit,
        "it is z σ(1.702 z), an approximation of GELU": lambda: z / (1 + np.exp(-1.702 * z)) / unit,
        **{
            f"the input of the sigmoid is clipped to ±{c}": lambda c=c: z / (1 + np.exp(-np.clip(z, -c, c))) / unit  # type: ignore[misc]
            for c in CLIPPED
        },
    }
    slopes: dict[str, Callable[[], ArrayLike]] = {
        "it is the sigmoid alone": lambda: s,
        "it is the derivative of the sigmoid": lambda: s * (1 - s),
        "the sigmoid is missing": lambda: z * s * (1 - s),
        "1 − s is missing: it is s + z s": lambda: s + z * s,
        "z s (1 − s) is subtracted": lambda: s - z * s * (1 - s),
        "(1 − s)² stands where s (1 − s) belongs": lambda: s + z * (1 - s) ** 2,
        "it is y + s (1 − y) with z in the place of y = SiLU(z)": lambda: z + s * (1 - z),
        "the factor z is missing": lambda: s + s * (1 - s),
        "it is that of z σ(1.702 z), an approximation of GELU": lambda: silu_slope(1.702 * z),
        **{
            f"the input of the sigmoid is clipped to ±{c}": lambda c=c: silu_slope(np.clip(z, -c, c), z)  # type: ignore[misc]
            for c in CLIPPED
        },
        "it is the derivative of a rectifier": lambda: z > 0,
    }
    return worst(
        compare(name, "(14)", "SiLU", np.asarray(value(z.copy())) / unit, z * s / unit, 1e-13, mistakes),
        compare(name, "(14)", "SiLU, returned with its derivative,", left / unit, z * s / unit, 1e-13, mistakes),
        compare(name, "(14)", "the derivative of SiLU", derivative, slope, 1e-13, slopes),
    )


@takes_arrays
def check_jvp(
    jvp: Callable[[Array, Array], tuple[ArrayLike, ArrayLike]],
    call: Callable[[Array], ArrayLike],
    x: Array,
    direction: Array,
) -> Check:
    """A network's output and its directional derivative, from finite differences of the network.

    Parameters
    ----------
    jvp : callable
        jvp(x, direction) → (output (N, n), derivative of the output along the direction (N, n)).
    call : callable
        call(x) → (N, n).
    x, direction : (N, D)

    Returns
    -------
    Check
        Tolerance 1e-13 for the output, and 1e-10 plus the error of the difference for the derivative: the difference at
        half the step shows it.  The step is 0.01, and 0.1 for a network that computes in float32.
    """
    left, derivative = parts(jvp(x, direction), 2, "jvp")
    output = np.asarray(call(x))
    right, step = output.astype(np.float64), 0.1 if output.dtype.itemsize < 8 else 0.01

    def difference(step: float) -> Array:
        return np.asarray(central_difference(lambda h: np.asarray(call(x + h * direction), dtype=np.float64), step))

    def transposed() -> Array:
        """The product of the transposed Jacobian and the direction."""
        if right.shape != x.shape:
            return np.array(np.nan)
        columns = [
            np.asarray(central_difference(lambda h, e=e: np.asarray(call(x + h * e), dtype=np.float64), step / 2))  # type: ignore[misc]
            for e in np.eye(x.shape[1])
        ]
        return np.stack([(column * direction).sum(axis=1) for column in columns], axis=1)

    coarse, slope = difference(step), difference(step / 2)
    error = float((np.abs(coarse - slope) / (1 + np.abs(slope))).max())
    name = "check_jvp"
    return worst(
        compare(name, "(33)", "the output of the network", left, right, 1e-13),
        compare(
            name,
            "(33)",
            "its derivative along a direction",
            derivative,
            slope,
            1e-10 + error,
            {
                "the length of the direction is ignored": lambda: (
                    slope / np.linalg.norm(direction, axis=1, keepdims=True)
                ),
                "it is a vjp, the product of the transposed Jacobian": transposed,
                "it is averaged over the examples": lambda: np.tile(slope.mean(axis=0), (len(x), 1)),
                "it is multiplied by the output": lambda: slope * right,
                "all examples have the direction of the first": lambda: np.asarray(
                    central_difference(lambda h: np.asarray(call(x + h * direction[:1]), dtype=np.float64), step / 2)
                ),
            },
        ),
    )


def printed_features(log_snr: Array, n: int) -> Array:
    """cos and sin of f · log-SNR, (N, 2n), for n frequencies f from 1/8 to 2 in a geometric sequence."""
    frequencies = [0.125 * 16.0 ** (i / max(n - 1, 1)) for i in range(n)]
    waves = [np.cos(w * log_snr) for w in frequencies] + [np.sin(w * log_snr) for w in frequencies]
    return np.stack(waves, axis=1) if waves else np.zeros((len(log_snr), 0))


def printed_noise(
    mlp: Callable[[Array], Array],
    x: Array,
    scale: Array,
    std: Array,
    n_time_features: int,
    indicators: Array,
    n_octaves: int = 0,
    coefficients: tuple[Array, Array] | None = None,
    log_snr: Callable[[Array, Array], Array] = lambda scale, std: np.log(scale**2 / std**2),
) -> Array:
    """ε̂ = skip x + gain F(x/r, waves of x/r, waves of the log-SNR, label), r² = scale² + std², (N, D).

    The defaults of (skip, gain), (N,) each, are std/r² and scale/r.
    """
    r = np.sqrt(scale**2 + std**2)
    y = x / r[:, None]
    skip, gain = (std / r**2, scale / r) if coefficients is None else coefficients
    angles = np.array([2.0**j * y[:, d] for d in range(y.shape[1]) for j in range(1, n_octaves + 1)])
    waves = np.concatenate([np.cos(angles), np.sin(angles)]).T if n_octaves else np.zeros((len(x), 0))
    clock = printed_features(log_snr(scale, std), n_time_features)
    inputs = np.concatenate([y, waves, clock, indicators], axis=1)
    return skip[:, None] * x + gain[:, None] * mlp(inputs)


@takes_arrays
def check_noise_network(
    eps_hat: Callable[[Array, Any, Any], ArrayLike],
    mlp: Callable[[Array], Array],
    x: Array,
    scale: Array,
    std: Array,
    n_time_features: int,
    indicators: Array,
    n_octaves: int = 0,
    coefficients: tuple[Array, Array] | None = None,
) -> Check:
    """The noise network ε̂ = skip x + gain F, for different noise levels per example and for one common level.

    Parameters
    ----------
    eps_hat : callable
        eps_hat(x (N, D), scale, std) → (N, D).  scale and std have shape (N,), or are numbers if all examples share one
        level.  The labels are those of `indicators`.
    mlp : callable
        F, with the inputs that `printed_noise` lists.
    x : (N, D)
    scale, std : (N,)
        Noise levels: x_t = scale · x_0 + std · ε.
    n_time_features : int
        Number of frequencies of the log-SNR.
    indicators : (N, n_classes)
        One column per class; the row of an example without a label is 0.
    n_octaves : int
        Number of frequencies of x/r.
    coefficients : tuple of (N,) arrays, optional
        (skip, gain); the defaults are those of `printed_noise`.

    Returns
    -------
    Check
        Tolerance 5e-14, more if the noise levels differ in size.
    """
    right = printed_noise(mlp, x, scale, std, n_time_features, indicators, n_octaves, coefficients)
    settings = (n_time_features, indicators, n_octaves, coefficients)
    levels, r = np.ones_like(scale), np.sqrt(scale**2 + std**2)

    def with_coefficients(skip: Array, gain: Array) -> Array:
        return printed_noise(mlp, x, scale, std, *settings[:3], coefficients=(skip, gain))

    def with_inputs(change: Callable[[Array], Array]) -> Array:
        """ε̂ with other inputs of the network, for x without octaves."""
        if n_octaves:
            return np.array(np.nan)
        return printed_noise(lambda h: mlp(change(h)), x, scale, std, *settings)

    n, D, at = n_time_features, x.shape[1], x.shape[1]
    first_class = np.eye(1, indicators.shape[1])
    skip, gain = (std / r**2, scale / r) if coefficients is None else coefficients
    first = None if coefficients is None else (coefficients[0][0] * levels, coefficients[1][0] * levels)
    alone = [printed_noise(mlp, x, a * levels, b * levels, *settings[:3]) for a, b in zip(scale, std, strict=True)]
    mistakes = {
        "the features are waves of the SNR, not of its logarithm": lambda: printed_noise(
            mlp, x, scale, std, *settings, log_snr=lambda scale, std: scale**2 / std**2
        ),
        "the log-SNR is log(scale/std), without its factor 2": lambda: printed_noise(
            mlp, x, scale, std, *settings, log_snr=lambda scale, std: np.log(scale / std)
        ),
        "the labels are dropped": lambda: printed_noise(
            mlp, x, scale, std, n_time_features, 0 * indicators, n_octaves, coefficients
        ),
        "the log-SNR has the wrong sign": lambda: printed_noise(
            mlp, x, scale, std, *settings, log_snr=lambda scale, std: np.log(std**2 / scale**2)
        ),
        "all examples have the noise level of the first": lambda: printed_noise(
            mlp, x, scale[0] * levels, std[0] * levels, n_time_features, indicators, n_octaves, first
        ),
        "the labels are shifted by one example": lambda: printed_noise(
            mlp, x, scale, std, n_time_features, np.roll(indicators, 1, axis=0), n_octaves, coefficients
        ),
        "x is not divided by r before the network": lambda: with_inputs(
            lambda h: np.concatenate([h[:, :D] * r[:, None], h[:, D:]], axis=1)
        ),
        "sines come before cosines in the waves of the log-SNR": lambda: with_inputs(
            lambda h: np.concatenate(
                [h[:, :at], h[:, at + n : at + 2 * n], h[:, at : at + n], h[:, at + 2 * n :]], axis=1
            )
        ),
        "the waves are those of ¼ log std, EDM's c_noise": lambda: printed_noise(
            mlp, x, scale, std, *settings, log_snr=lambda scale, std: 0.25 * np.log(std)
        ),
        "the waves are those of ¼ log(std/scale), EDM's c_noise": lambda: printed_noise(
            mlp, x, scale, std, *settings, log_snr=lambda scale, std: 0.25 * np.log(std / scale)
        ),
        "an example without a label gets class 0": lambda: printed_noise(
            mlp,
            x,
            scale,
            std,
            n,
            indicators + (indicators.sum(axis=1, keepdims=True) == 0) * first_class,
            *settings[2:],
        ),
        "the labels are those of the next class": lambda: printed_noise(
            mlp, x, scale, std, n, np.roll(indicators, 1, axis=1), *settings[2:]
        ),
        "gain and skip are exchanged": lambda: with_coefficients(gain, skip),
        "the gain has the wrong sign": lambda: with_coefficients(skip, -gain),
        "the skip connection is missing": lambda: right - skip[:, None] * x,
    }
    if coefficients is None:
        mistakes |= {
            "the gain is 1/r, not scale/r": lambda: with_coefficients(skip, 1 / r),
            "the gain is 1": lambda: with_coefficients(skip, levels),
            "the gain is scale": lambda: with_coefficients(skip, scale),
            "the gain is std/r, not scale/r": lambda: with_coefficients(skip, std / r),
            "the skip connection is std/r: its r is not squared": lambda: with_coefficients(std / r, scale / r),
            "the skip connection is std: 1/r² is missing": lambda: with_coefficients(std, scale / r),
            "the skip connection is 1/r²: std is missing": lambda: with_coefficients(1 / r**2, scale / r),
            "the skip connection is scale/r²": lambda: with_coefficients(scale / r**2, scale / r),
        }
    name, tolerance = "check_noise_network", rounding(1 + np.abs(np.log(scale / std)).max() * 2**n_octaves)
    checks = [
        compare(
            name, "(29)", "ε̂ of examples at different noise levels", eps_hat(x, scale, std), right, tolerance, mistakes
        )
    ]
    if coefficients is None:
        left = [np.asarray(eps_hat(x, float(a), float(b))) for a, b in zip(scale, std, strict=True)]
        checks.append(compare(name, "(29)", "ε̂ at one noise level", left, alone, tolerance))
    return worst(*checks)


# --- distributions over levels ---------------------------------------------------------------------------------------


def printed_law(
    mlp: Callable[[Array], Array],
    x: Array,
    scale: Array,
    std: Array,
    histograms: Array,
    covariance: Array,
    n_time_features: int,
    indicators: Array,
    prior_weight: float = 1.0,
    precision: Callable[[Any], Any] = lambda std: 1 / std**2,
) -> Array:
    """P(x_0d = l_k | x_t) ∝ h_dk N(x_td; scale l_k, std²) exp(F_d · B_k), (N, D, n_levels), example by example.

    B_k has four entries: [k is the first level], [k is the last level], l_k and l_k².  The last two
    options are mistakes.  The inputs of F are: x_t minus
    its mean, divided by √(scale² + std²); the posterior mean of every pixel given that pixel alone, minus the mean; the
    linear (Wiener) posterior mean given all pixels, minus the mean; waves of the log-SNR; the label.
    """
    D, K = histograms.shape
    levels = np.array([2 * k / (K - 1) - 1 for k in range(K)])
    basis = np.array([[k == 0, k == K - 1, levels[k], levels[k] ** 2] for k in range(K)], dtype=np.float64)
    mean = histograms @ levels
    waves = printed_features(np.log(scale**2 / std**2), n_time_features)
    laws = []
    for n in range(len(x)):
        own = prior_weight * np.log(histograms)
        own = own - 0.5 * precision(std[n]) * (x[n][:, None] - scale[n] * levels) ** 2
        own_mean = normalised(own) @ levels
        V = scale[n] ** 2 * covariance + std[n] ** 2 * np.eye(D)
        centred = x[n] - scale[n] * mean
        linear = scale[n] * covariance @ np.linalg.inv(V) @ centred
        inputs = [centred / np.sqrt(scale[n] ** 2 + std[n] ** 2), own_mean - mean, linear, waves[n], indicators[n]]
        F = mlp(np.concatenate(inputs)[None])[0].reshape(D, 4)
        laws.append(normalised(own + F @ basis.T))
    return np.array(laws)


@takes_arrays
def check_categorical_denoiser(
    law: Callable[[], ArrayLike],
    eps_hat: Callable[[], ArrayLike],
    mlp: Callable[[Array], Array],
    x: Array,
    scale: Array,
    std: Array,
    histograms: Array,
    covariance: Array,
    n_time_features: int,
    indicators: Array,
) -> Check:
    """The denoiser of whole numbers: its distribution P(x_0 | x_t), and ε̂ from the mean of this distribution.

    Parameters
    ----------
    law : callable
        law() → P(x_0d = l_k | x_t), (N, D, n_levels), of the given problem.
    eps_hat : callable
        eps_hat() → ε̂, (N, D), of the given problem.
    mlp : callable
        F, with its inputs in this order: x_t minus its mean, over √(scale² + std²), (D,); the posterior mean of every
        pixel given that pixel alone, minus the mean, (D,); the linear posterior mean given all pixels, minus the mean,
        (D,); the waves of the log-SNR; the label.  It returns (N, 4 D): the four factors of dimension 0, then those of
        dimension 1, and so on, in the order [first level], [last level], l_k, l_k².
    x : (N, D)
    scale, std : (N,)
        Noise levels: x_t = scale · x_0 + std · ε.
    histograms : (D, n_levels)
        P(level) of every dimension.
    covariance : (D, D)
        Covariance of the data, in units where the levels run from −1 to 1.
    n_time_features : int
        Number of frequencies of the log-SNR.
    indicators : (N, n_classes)
        One column per class; the row of an example without a label is 0.

    Returns
    -------
    Check
        P(x₀ | x_t) if both pass, else the larger residual; tolerance 5e-14, more if the noise is small.
    """
    right = printed_law(mlp, x, scale, std, histograms, covariance, n_time_features, indicators)

    def wrong_law(order: Callable[[Array], Array] = lambda F: F, **options: Any) -> Array:
        return printed_law(
            lambda h: order(mlp(h)), x, scale, std, histograms, covariance, n_time_features, indicators, **options
        )

    levels = np.linspace(-1, 1, histograms.shape[1])
    noise = (x - scale[:, None] * (right @ levels)) / std[:, None]
    size = 1 + (np.abs(x).max() + scale.max()) / std.min()
    name, tolerance = "check_categorical_denoiser", rounding(np.linalg.cond(covariance) + size**2)
    return first_of(
        compare(
            name,
            "(24)",
            "P(x₀ | x_t)",
            law(),
            right,
            tolerance,
            {
                "the labels are dropped": lambda: printed_law(
                    mlp, x, scale, std, histograms, covariance, n_time_features, 0 * indicators
                ),
                "it is log P": lambda: np.log(right),
                "all dimensions have the histogram of the first": lambda: printed_law(
                    mlp, x, scale, std, histograms[[0] * len(histograms)], covariance, n_time_features, indicators
                ),
                "the histograms are left out, but not in the means": lambda: wrong_law(prior_weight=0.0),
                "std stands where std² belongs in the likelihood of a level": lambda: wrong_law(
                    precision=lambda std: 1 / std
                ),
                "the ½ is missing in the likelihood of a level": lambda: wrong_law(precision=lambda std: 2 / std**2),
                "the factors are ordered by kind, not by dimension": lambda: wrong_law(
                    lambda F: np.swapaxes(F.reshape(len(F), 4, -1), 1, 2).reshape(F.shape)
                ),
                "the factors of the first and the last level are exchanged": lambda: wrong_law(
                    lambda F: F.reshape(len(F), -1, 4)[:, :, [1, 0, 2, 3]].reshape(F.shape)
                ),
                "the histograms are left out": lambda: printed_law(
                    mlp, x, scale, std, np.ones_like(histograms), covariance, n_time_features, indicators
                ),
            },
        ),
        compare(
            name,
            "(25)",
            "ε̂",
            eps_hat(),
            noise,
            tolerance,
            {
                "x₀ is the mean of the numbers 0..K−1, not of levels in [−1, 1]": lambda: (
                    (x - scale[:, None] * (right @ np.arange(len(levels)))) / std[:, None]
                ),
                "x₀ is the mean of k/(K − 1), levels in [0, 1]": lambda: (
                    (x - scale[:, None] * (right @ (0.5 * (levels + 1)))) / std[:, None]
                ),
                "the sign is wrong": lambda: -noise,
                "it is the mean of x₀": lambda: right @ levels,
                "x₀ is the most probable level, not the mean": lambda: (
                    (x - scale[:, None] * levels[right.argmax(axis=2)]) / std[:, None]
                ),
                "the scale of x₀ is missing": lambda: (x - right @ levels) / std[:, None],
                "it is divided by std², a variance": lambda: noise / std[:, None],
                "it is not divided by std": lambda: noise * std[:, None],
            },
        ),
    )


@takes_arrays
def check_categorical_draw(draw: Callable[[Array], ArrayLike], law: Array, n_uniform: int = 500) -> Check:
    """Draws of whole numbers: the frequency of every level over an even grid of uniform numbers.

    Every entry must depend on its own uniform number only.  Draws from different numbers are therefore compared with
    the draws where all entries have one number.

    Parameters
    ----------
    draw : callable
        draw(u (N, D)) → whole numbers (N, D), for uniform numbers u in (0, 1), one per entry.
    law : (N, D, n_levels)
        The distribution of every entry.
    n_uniform : int
        Size of the grid.

    Returns
    -------
    Check
        The worse of two comparisons: tolerance 30/n_uniform for the frequencies, as the grid counts every level to
        within 1/n_uniform, and 1e-9 for the levels.
    """
    N, D, K = law.shape
    grid = (np.arange(n_uniform) + 0.5) / n_uniform
    drawn = np.array([returned(draw(np.full((N, D), u)), (N, D), "draw") for u in grid])
    rows = np.arange(8 * N * D).reshape(8, N, D) * 7919 % 104729 % n_uniform  # an irregular number for every entry
    n, d = np.indices((N, D))
    frequencies = (drawn[..., None] == np.arange(K)).mean(axis=0)

    def levels(rows: Array) -> Array:
        """The draws of every entry from the numbers of the grid with these indices."""
        return drawn[rows, n, d]

    return worst(
        compare(
            "check_categorical_draw",
            "(24)",
            "the frequency of every level",
            frequencies,
            law,
            30 / n_uniform,
            {
                "the levels are in reverse order: k is drawn for K − 1 − k": lambda: law[:, :, ::-1],
                "the levels are counted from 1": lambda: np.concatenate([0 * law[:, :, :1], law[:, :, :-1]], axis=2),
                "the levels are counted from 1, and the last two are one": lambda: np.concatenate(
                    [0 * law[:, :, :1], law[:, :, :-2], law[:, :, -2:].sum(axis=2, keepdims=True)], axis=2
                ),
                "it is the most probable level: an argmax, no draw": lambda: np.eye(K)[law.argmax(axis=2)],
                "the law is squared and normalised: a temperature of ½": lambda: (
                    law**2 / (law**2).sum(axis=2, keepdims=True)
                ),
                "the root of the law is taken and normalised: a temperature of 2": lambda: (
                    np.sqrt(law) / np.sqrt(law).sum(axis=2, keepdims=True)
                ),
                "all levels are equally probable": lambda: np.full_like(law, 1 / K),
                "all dimensions have the law of the first": lambda: np.broadcast_to(law[:, :1], law.shape),
                "all examples have the law of the first": lambda: np.broadcast_to(law[:1], law.shape),
            },
        ),
        compare(
            "check_categorical_draw",
            "(24)",
            "the level drawn from different u",
            [returned(draw(grid[row]), (N, D), "draw") for row in rows],
            levels(rows),
            1e-9,
            {
                "all dimensions share one u: that of the first": lambda: levels(
                    np.broadcast_to(rows[..., :1], rows.shape)
                ),
                "all examples share one u: that of the first": lambda: levels(np.broadcast_to(rows[:, :1], rows.shape)),
                "all entries share one u: the first": lambda: levels(np.broadcast_to(rows[:, :1, :1], rows.shape)),
                "the dimensions use u in reverse order": lambda: levels(rows[..., ::-1]),
                "the examples use u in reverse order": lambda: levels(rows[:, ::-1]),
                "every example uses u of the one before": lambda: levels(np.roll(rows, 1, axis=1)),
                "every dimension uses u of the one before": lambda: levels(np.roll(rows, 1, axis=2)),
                "it is drawn from 1 − u": lambda: levels(n_uniform - 1 - rows),
            },
            labels=lambda i: f"the level of example {i[1]}, dimension {i[2]}, drawn from different u,",
            by_code=True,
        ),
    )
