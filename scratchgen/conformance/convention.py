"""The convention of somebody's code: how it counts t, which arrays it takes, and what its functions return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.returns import described
from scratchgen.ddpm import eps_to_prediction, prediction_to_eps
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import LinearSDE
from scratchgen.validation import Array, IntArray, as_choice

PREDICTIONS = ("noise", "x0", "v", "step", "score")
SPREADS = ("variance", "std", "log_variance")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class EDM(LinearSDE):
    """The process of Karras et al. (2022), x = x_0 + σ ε, with σ itself as the time: scale 1, std t, g² = 2t.

    Parameters
    ----------
    horizon : float
        The largest σ.
    """

    horizon: float = 80.0

    def log_scale(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.zeros_like(np.asarray(t, dtype=np.float64))

    def std(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.asarray(t, dtype=np.float64)

    def rate(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.zeros_like(np.asarray(t, dtype=np.float64))

    def diffusion(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.sqrt(2 * np.asarray(t, dtype=np.float64))

    def time_at(self, log_snr: ArrayLike) -> Array:  # noqa: D102
        return np.exp(-0.5 * np.asarray(log_snr, dtype=np.float64))


def as_numpy(value: Any) -> Any:
    """A NumPy array from any array; tensors of torch are detached and copied to the CPU."""
    if isinstance(value, tuple | list) and any(hasattr(part, "detach") for part in value):
        value = [as_numpy(part) for part in value]
    if hasattr(value, "detach"):
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no such dtype
            raise TypeError("arrays must be in float32 or float64, got bfloat16; convert them by .float()")
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"arrays of one shape are expected, got {described(value)}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"arrays must hold real numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array


@dataclass(frozen=True)
class Convention:
    """The convention of the code under test; `audit` documents the options.

    Raises
    ------
    ValueError
        If an option has a value that is not among its choices.
    """

    zero_based: bool
    batched_t: bool
    prediction: str
    in_sigma: bool
    posterior_spread: str
    latent_spread: str
    dtype: str
    arrays: Callable[[Any], Any]
    shape: tuple[int, ...] | None  # of one example of x0

    def __post_init__(self) -> None:
        as_choice(self.prediction, "prediction", PREDICTIONS)
        as_choice(self.posterior_spread, "posterior_spread", SPREADS)
        as_choice(self.latent_spread, "latent_spread", SPREADS)
        as_choice(self.dtype, "dtype", DTYPES)
        for name in ("zero_based", "batched_t", "in_sigma"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if not callable(self.arrays):
            raise ValueError(f"arrays must be a function such as torch.as_tensor, got {self.arrays!r}")

    # --- towards the code under test ---------------------------------------------------------------------------------

    def plain(self, x: ArrayLike) -> Any:
        """An array in the dtype and of the type that the code takes."""
        return self.arrays(np.array(x, dtype=self.dtype))

    def data(self, x: Array) -> Any:
        """Examples (…, D) as (…, *shape), or as they are without an x_0."""
        return self.plain(x if self.shape is None else np.reshape(x, (*x.shape[:-1], *self.shape)))

    def columns(self, n: int) -> list[IntArray]:
        """Which of the n dimensions of a check stand in the dimensions of x_0, for every call of the code.

        The dimensions repeat if x_0 has more.  If x_0 has fewer, each of several calls gets a part of the dimensions.
        """
        size = n if self.shape is None else int(np.prod(self.shape))
        return list((np.arange(-(-n // size) * size) % n).reshape(-1, size))

    def time(self, t: Any, n: int) -> Any:
        """A step as the code counts it: an int, or ints of shape (n,).

        ValueError for an array of t that would silently be broadcast over the last axis, by code that takes an int.
        """
        steps = np.asarray(t) - int(self.zero_based)
        if steps.ndim and not self.batched_t and self.shape is not None and self.shape[-1] == n:
            raise ValueError(f"t must be an int here: code for an int broadcasts {n} steps over the last axis")
        if self.batched_t or steps.ndim:
            return self.arrays(np.array(np.broadcast_to(steps, (n,)), dtype=np.int64))
        return int(steps)

    def output(self, schedule: NoiseSchedule, t: Any, x_t: Array, eps_hat: Array) -> Array:
        """The prediction of a network that means the total noise ε̂."""
        if self.prediction == "score":
            return -eps_hat / np.reshape(schedule.beta_bar[t], (-1, 1))
        return eps_to_prediction(schedule, t, x_t, eps_hat, self.prediction)

    def latent(self, log_variance: Array) -> Array:
        """A log-variance as the VAE under test gives it to its functions."""
        return {"log_variance": log_variance, "variance": np.exp(log_variance), "std": np.exp(log_variance / 2)}[
            self.latent_spread
        ]

    # --- and back ----------------------------------------------------------------------------------------------------

    def examples(self, value: Any, like: Array) -> Array:
        """A result as (…, D) if it has as many numbers as `like`; otherwise as it is."""
        array = as_numpy(value)
        return array.reshape(like.shape) if array.size == like.size and array.ndim >= like.ndim else array

    def variance(self, spread: Any) -> Array:
        """The variance from the second result of q_posterior."""
        array = np.asarray(as_numpy(spread), dtype=np.float64)
        if self.posterior_spread != "log_variance" and (array < 0).any():
            raise ValueError(f"q_posterior must return a {self.posterior_spread} of 0 or more, got {array.min():.6g}")
        return {"variance": array, "std": array**2, "log_variance": np.exp(array)}[self.posterior_spread]

    def network(self, net: Callable[..., Any], schedule: NoiseSchedule) -> Callable[[Array, Any], Array]:
        """The network as a function (x_t (n, D), t) of float64 arrays; the result has the dtype of the network's."""

        def predict(x: Array, t: Any) -> Array:
            if self.in_sigma:
                scale, std = schedule.alpha_bar[t], schedule.beta_bar[t]
                level = np.broadcast_to(std / scale, (len(x),)) if self.batched_t else float(std / scale)
                value = net(self.data(x / scale), self.plain(level) if self.batched_t else level)
            else:
                value = net(self.data(x), self.time(t, len(x)))
            return self.examples(value, x)

        return predict

    def noise(self, net: Callable[..., Any], schedule: NoiseSchedule) -> Callable[[Array, Any], Array]:
        """The total noise ε̂ of the network."""
        predict = self.network(net, schedule)

        def eps_hat(x: Array, t: Any) -> Array:
            value = predict(x, t)
            if self.prediction == "score":
                return (-schedule.beta_bar[t] * value).astype(value.dtype)
            return prediction_to_eps(schedule, t, x, value, self.prediction).astype(value.dtype)

        return eps_hat
