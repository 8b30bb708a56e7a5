"""Forward SDEs dx = f(t) x dt + g(t) dw, (31), and their Gaussian marginals x_t = scale(t) x_0 + std(t) ε.

Here, as in Song et al. 2021, β(t) = g(t)² is a variance a unit of time; the deck's chapters before (30) use β for a
standard deviation.  The log-SNR log(scale²/std²) of each of them falls at the rate g²/std², which is why it is the
natural clock of training and of likelihood: the weighting λ(t) = g² of (34) is the uniform one in log-SNR.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.likelihood import gaussian_log_prob
from scratchgen.validation import Array, as_number


class LinearSDE:
    """What VP, SubVP and VE share; each gives `log_scale`, `std`, `rate` (f) and `diffusion` (g)."""

    horizon: float

    def log_scale(self, t: ArrayLike) -> Array:
        """log scale(t) = ∫₀ᵗ f(s) ds."""
        raise NotImplementedError

    def std(self, t: ArrayLike) -> Array:
        """std(t), the standard deviation of x_t given x_0."""
        raise NotImplementedError

    def rate(self, t: ArrayLike) -> Array:
        """f(t) of the drift f(t) x."""
        raise NotImplementedError

    def diffusion(self, t: ArrayLike) -> Array:
        """g(t), the coefficient of dw."""
        raise NotImplementedError

    def time_at(self, log_snr: ArrayLike) -> Array:
        """The t at which log(scale²/std²) has this value: the inverse of `log_snr`."""
        raise NotImplementedError

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """f(t) x for x of shape (N, D) and t a number or (N,)."""
        return column(self.rate(t), x) * x

    def marginal(self, t: ArrayLike) -> tuple[Array, Array]:
        """(scale, std) of x_t = scale · x_0 + std · ε; (1, 0) at t = 0."""
        return np.exp(self.log_scale(t)), self.std(t)

    def level(self, t: float) -> tuple[float, float]:
        """`marginal` at one time as Python floats, which leave float32 arrays float32."""
        scale, std = self.marginal(t)
        return float(scale), float(std)

    def log_snr(self, t: ArrayLike) -> Array:
        """log(scale²/std²); inf at t = 0."""
        with np.errstate(divide="ignore"):
            return 2 * (self.log_scale(t) - np.log(self.std(t)))

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior π = N(0, prior_std² I) from which the reverse process starts."""
        return float(self.std(self.horizon))

    def prior_log_prob(self, x: Array) -> Array:
        """log π(x), (N,), nats."""
        return gaussian_log_prob(x, np.zeros_like(x), 2 * np.log(self.prior_std))


def column(value: ArrayLike, like: Array) -> Array | float:
    """A number stays a Python float (so float32 arrays stay float32); (N,) becomes (N, 1) in the dtype of `like`."""
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array[:, None].astype(like.dtype)


def _check_horizon(horizon: float) -> None:
    as_number(horizon, "horizon", low=0.0, open_low=True)


@dataclass(frozen=True)
class VP(LinearSDE):
    """Variance preserving: dx = −½β(t) x dt + √β(t) dw, (31), β rising linearly from beta_min to beta_max.

    With B(t) = ∫₀ᵗ β(s) ds: scale = e^(−B/2), std = √(1 − e^(−B)).  Its exact discretisation is
    `NoiseSchedule.from_sde`, which is (30) with β_i = 1 − exp(−∫β) over step i.

    Parameters
    ----------
    beta_min, beta_max : float
        Variances a unit of time at t = 0 and t = horizon.
    horizon : float
        T, the end of time.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    horizon: float = 1.0

    def __post_init__(self) -> None:
        _check_horizon(self.horizon)
        as_number(self.beta_min, "beta_min", low=0.0)
        as_number(self.beta_max, "beta_max", low=0.0, open_low=True)

    def beta(self, t: ArrayLike) -> Array:
        """β(t) = g(t)²."""
        return self.beta_min + (self.beta_max - self.beta_min) * np.asarray(t, dtype=np.float64) / self.horizon

    def beta_integral(self, t: ArrayLike) -> Array:
        """B(t) = ∫₀ᵗ β(s) ds."""
        t = np.asarray(t, dtype=np.float64)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2 / self.horizon

    def _time_of_integral(self, integral: Array) -> Array:
        """The inverse of `beta_integral`, as 2B/(b + √(b² + 2cB)), which does not cancel."""
        slope = (self.beta_max - self.beta_min) / self.horizon
        return 2 * integral / (self.beta_min + np.sqrt(np.maximum(self.beta_min**2 + 2 * slope * integral, 0.0)))

    def rate(self, t: ArrayLike) -> Array:  # noqa: D102
        return -0.5 * self.beta(t)

    def diffusion(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.sqrt(self.beta(t))

    def log_scale(self, t: ArrayLike) -> Array:  # noqa: D102
        return -0.5 * self.beta_integral(t)

    def std(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.sqrt(-np.expm1(-self.beta_integral(t)))

    def time_at(self, log_snr: ArrayLike) -> Array:  # noqa: D102
        return self._time_of_integral(np.logaddexp(0.0, -np.asarray(log_snr, dtype=np.float64)))


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP: the drift of VP with g² = β(t)(1 − e^(−2B)); scale = e^(−B/2), std = 1 − e^(−B) (Song et al. 2021)."""

    def diffusion(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.sqrt(self.beta(t) * -np.expm1(-2 * self.beta_integral(t)))

    def std(self, t: ArrayLike) -> Array:  # noqa: D102
        return -np.expm1(-self.beta_integral(t))

    def time_at(self, log_snr: ArrayLike) -> Array:  # noqa: D102
        inverse_ratio = np.exp(-0.5 * np.asarray(log_snr, dtype=np.float64))  # std/scale = 2 sinh(B/2)
        return self._time_of_integral(2 * np.arcsinh(0.5 * inverse_ratio))


@dataclass(frozen=True)
class VE(LinearSDE):
    """Variance exploding: dx = g(t) dw with σ(t) = sigma_min (sigma_max/sigma_min)^(t/T) and g² = dσ²/dt.

    scale = 1, std² = σ(t)² − sigma_min²: x_0 is clean data, so that std(0) = 0; score_sde uses σ(t) itself.

    Parameters
    ----------
    sigma_min, sigma_max : float
        In units of the data; sigma_max should be well above the data's diameter.
    horizon : float
        T, the end of time.
    """

    sigma_min: float
    sigma_max: float
    horizon: float = 1.0

    def __post_init__(self) -> None:
        _check_horizon(self.horizon)
        as_number(self.sigma_min, "sigma_min", low=0.0, open_low=True)
        as_number(self.sigma_max, "sigma_max", low=self.sigma_min, open_low=True)

    @property
    def _log_ratio(self) -> float:
        return float(np.log(self.sigma_max / self.sigma_min))

    def rate(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.zeros_like(np.asarray(t, dtype=np.float64))

    def diffusion(self, t: ArrayLike) -> Array:  # noqa: D102
        sigma = self.sigma_min * np.exp(self._log_ratio * np.asarray(t, dtype=np.float64) / self.horizon)
        return sigma * (2 * self._log_ratio / self.horizon) ** 0.5

    def log_scale(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.zeros_like(np.asarray(t, dtype=np.float64))

    def std(self, t: ArrayLike) -> Array:  # noqa: D102
        exponent = 2 * self._log_ratio * np.asarray(t, dtype=np.float64) / self.horizon
        return self.sigma_min * np.sqrt(np.expm1(exponent))

    def time_at(self, log_snr: ArrayLike) -> Array:  # noqa: D102
        variance = np.exp(-np.asarray(log_snr, dtype=np.float64))
        return self.horizon * np.log1p(variance / self.sigma_min**2) / (2 * self._log_ratio)
