"""Forward SDEs dx = f(t) x dt + g(t) dw, (31), and their Gaussian marginals x_t = scale(t) x_0 + std(t) ε.

β(t) = g(t)² is a variance a unit of time, as in Song et al. (2021); before (30) the deck uses β for a standard
deviation.  For every process log-SNR = log(scale²/std²) falls at the rate g²/std².  The weighting λ(t) = g² of (34)
therefore is the uniform weighting of E‖ε − ε̂‖² in log-SNR.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from scratchgen.likelihood import gaussian_log_prob, quiet_log
from scratchgen.validation import Array, ArrayLike, as_arrays, as_number, as_real, check_type, column

BEYOND = 1e-6  # relative rounding error of a time in float32, which may lie beyond the horizon


def check_process(sde: LinearSDE) -> None:
    """Raise TypeError unless sde is a LinearSDE."""
    check_type(sde, LinearSDE, "sde", "pass VP()")


def check_times(sde: LinearSDE, t: ArrayLike, name: str = "t") -> None:
    """Raise TypeError or ValueError unless sde is a process, and t one or more times in [0, horizon]; refuse NaN."""
    check_process(sde)
    times = as_real(t, name)
    if times.size and not (times.min() >= 0 and times.max() <= sde.horizon * (1 + BEYOND)):
        raise ValueError(f"{name} must be in [0, {sde.horizon}], the times of the process, got {t!r:.60}")


def as_time(sde: LinearSDE, t: float, name: str = "t", open_low: bool = False) -> float:
    """Return one time in [0, horizon], or in (0, horizon] with `open_low`, as a float; TypeError or ValueError."""
    check_process(sde)
    if isinstance(t, float) and sde.horizon < t <= sde.horizon * (1 + BEYOND):
        return sde.horizon
    return as_number(t, name, low=0.0, high=sde.horizon, open_low=open_low)


LEAST_STD = 1e-15  # losses divide noise by std and square, which overflows in float32 below 1e-19


def check_noise(sde: LinearSDE, t_min: float) -> None:
    """Raise ValueError if the noise at the last time of training is lost to rounding."""
    std = sde.level(t_min)[1]
    if std < LEAST_STD:
        raise ValueError(
            f"t_min must leave noise of std {LEAST_STD:g} or more, got {std:.3g} at {t_min:g}; raise t_min"
        )


class LinearSDE(ABC):
    """Base of VP, SubVP and VE: each defines `log_scale`, `std`, `rate` (f), `diffusion` (g) and `time_at`.

    These five methods take a number or an array, and return float64 of the same shape.
    """

    horizon: float

    @abstractmethod
    def log_scale(self, t: ArrayLike) -> Array:
        """log scale(t) = ∫₀ᵗ f(s) ds."""

    @abstractmethod
    def std(self, t: ArrayLike) -> Array:
        """Standard deviation std(t) of x_t given x_0."""

    @abstractmethod
    def rate(self, t: ArrayLike) -> Array:
        """Coefficient f(t) of the drift f(t) x."""

    @abstractmethod
    def diffusion(self, t: ArrayLike) -> Array:
        """Coefficient g(t) of dw."""

    @abstractmethod
    def time_at(self, log_snr: ArrayLike) -> Array:
        """Time t at which log(scale²/std²) has a given value: the inverse of `log_snr`; 0 for inf.

        The time may lie beyond the horizon.  It is inf for −inf, and for a value that the process never reaches.
        """

    def drift(self, x: Array, t: ArrayLike) -> Array:
        """Drift f(t) x, (N, D), for x (N, D) and t a number or (N,)."""
        check_times(self, t)
        x = as_arrays("x (N, D)", x)
        return column(self.rate(t), x, "t") * x

    def marginal(self, t: ArrayLike) -> tuple[Array, Array]:
        """Coefficients (scale, std) of x_t = scale · x_0 + std · ε; (1, 0) at t = 0."""
        return np.exp(self.log_scale(t)), self.std(t)

    def perturb(self, t: ArrayLike, x0: Array, noise: Array) -> Array:
        """x_t = scale · x_0 + std · ε, (N, D), a draw of the solution of (31): q(x_t | x_0) = N(scale · x_0, std² I).

        Parameters
        ----------
        t : float or (N,)
        x0, noise : (N, D)
            x_0 and ε.  The result has the dtype of x0.

        Raises
        ------
        ValueError
            If noise has another shape than x0.
        """
        check_times(self, t)
        x0, noise = as_arrays("x0 (N, D), noise (N, D)", x0, noise)
        return column(np.exp(self.log_scale(t)), x0, "t") * x0 + column(self.std(t), x0, "t") * noise

    def level(self, t: float) -> tuple[float, float]:
        """`marginal` at one time as Python floats; their products with float32 arrays stay float32."""
        scale, std = self.marginal(as_time(self, t))
        return float(scale), float(std)

    def log_snr(self, t: ArrayLike) -> Array:
        """log-SNR = log(scale²/std²); inf at t = 0."""
        return 2 * (self.log_scale(t) - quiet_log(self.std(t)))

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior π = N(0, prior_std² I), the initial law of the reverse process."""
        return float(self.std(self.horizon))

    def prior_log_prob(self, x: Array) -> Array:
        """log π(x), (N,), nats, for x (N, D)."""
        x = as_arrays("x (N, D)", x)
        return gaussian_log_prob(x, np.zeros_like(x), 2 * np.log(self.prior_std))


@dataclass(frozen=True)
class VP(LinearSDE):
    """Variance-preserving SDE dx = −½β(t) x dt + √β(t) dw, (31), with β(t) linear from beta_min to beta_max.

        scale = e^(−B/2),   std = √(1 − e^(−B)),   B(t) = ∫₀ᵗ β(s) ds

    `NoiseSchedule.from_sde` gives the exact discretisation: (30) with β_i = 1 − exp(−∫β) over step i.

    Parameters
    ----------
    beta_min, beta_max : float
        β(0) and β(horizon), variances a unit of time; the defaults are those of Song et al. (2021).
    horizon : float
        T, the last time.

    Raises
    ------
    TypeError, ValueError
        If beta_min is negative, beta_max or horizon is not positive, or scale² at the horizon is below the least
        float64, 2e-308.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    horizon: float = 1.0

    def __post_init__(self) -> None:
        as_number(self.horizon, "horizon", low=0.0, open_low=True)
        as_number(self.beta_min, "beta_min", low=0.0)
        as_number(self.beta_max, "beta_max", low=0.0, open_low=True)
        total = float(self.beta_integral(self.horizon))
        if -total < np.log(np.finfo(np.float64).tiny):
            raise ValueError(
                f"horizon and betas must leave some signal, but scale² = exp(-{total:.4g}) underflows at the horizon; "
                "lower beta_max or the horizon"
            )

    def beta(self, t: ArrayLike) -> Array:
        """β(t) = g(t)²."""
        return (
            self.beta_min
            + (self.beta_max - self.beta_min) * as_real(t, "t").astype(np.float64, copy=False) / self.horizon
        )

    def beta_integral(self, t: ArrayLike) -> Array:
        """B(t) = ∫₀ᵗ β(s) ds."""
        t = as_real(t, "t").astype(np.float64, copy=False)
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) / self.horizon * t)

    def _time_of_integral(self, integral: Array) -> Array:
        """Inverse of `beta_integral` as 2B/(b + √(b² + 2cB)), a form without cancellation.

        The quotient is 0/0 at B = 0 for b = 0, and inf/inf at B = inf.  For c < 0 the integral has a largest value.
        """
        slope = (self.beta_max - self.beta_min) / self.horizon
        inner = (integral > 0) & np.isfinite(integral)
        square = self.beta_min**2 + 2 * slope * np.where(inner, integral, 0.0)
        ends = np.where(square < 0, np.inf, integral)
        root = np.sqrt(np.maximum(square, 0.0))
        return np.divide(2 * integral, self.beta_min + root, out=ends, where=inner & (square >= 0))

    def rate(self, t: ArrayLike) -> Array:  # noqa: D102
        return -0.5 * self.beta(t)

    def diffusion(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.sqrt(self.beta(t))

    def log_scale(self, t: ArrayLike) -> Array:  # noqa: D102
        return -0.5 * self.beta_integral(t)

    def std(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.sqrt(-np.expm1(-self.beta_integral(t)))

    def time_at(self, log_snr: ArrayLike) -> Array:  # noqa: D102
        return self._time_of_integral(np.logaddexp(0.0, -as_real(log_snr, "log_snr").astype(np.float64, copy=False)))


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP SDE (Song et al. 2021): the drift of VP and g² = β(t)(1 − e^(−2B)); scale = e^(−B/2), std = 1 − e^(−B)."""

    def diffusion(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.sqrt(self.beta(t) * -np.expm1(-2 * self.beta_integral(t)))

    def std(self, t: ArrayLike) -> Array:  # noqa: D102
        return -np.expm1(-self.beta_integral(t))

    def time_at(self, log_snr: ArrayLike) -> Array:  # noqa: D102
        log_ratio = -as_real(log_snr, "log_snr").astype(
            np.float64, copy=False
        )  # log(std²/scale²), and std/scale = 2 sinh(B/2)
        integral = 2 * np.arcsinh(0.5 * np.exp(0.5 * np.minimum(log_ratio, 80.0)))
        return self._time_of_integral(np.where(log_ratio > 80, log_ratio, integral))  # 2 sinh(B/2) = e^(B/2) to e^-80


@dataclass(frozen=True)
class VE(LinearSDE):
    """Variance-exploding SDE dx = g(t) dw with σ(t) = sigma_min (sigma_max/sigma_min)^(t/T) and g² = dσ²/dt.

        scale = 1,   std² = σ(t)² − sigma_min²

    x_0 is clean data, so that std(0) = 0.  The code of Song et al. (2021) uses std = σ(t).

    Parameters
    ----------
    sigma_min, sigma_max : float
        Standard deviations in units of the process; sigma_max should be well above the diameter of the data.
    horizon : float
        T, the last time.

    Raises
    ------
    TypeError, ValueError
        If sigma_min or horizon is not positive, or sigma_max is not above sigma_min.
    """

    sigma_min: float
    sigma_max: float
    horizon: float = 1.0

    def __post_init__(self) -> None:
        as_number(self.horizon, "horizon", low=0.0, open_low=True)
        as_number(self.sigma_min, "sigma_min", low=0.0, open_low=True)
        as_number(self.sigma_max, "sigma_max", low=self.sigma_min, open_low=True)

    @property
    def _log_ratio(self) -> float:
        return float(np.log(self.sigma_max / self.sigma_min))

    def rate(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.zeros_like(as_real(t, "t").astype(np.float64, copy=False))

    def diffusion(self, t: ArrayLike) -> Array:  # noqa: D102
        sigma = self.sigma_min * np.exp(self._log_ratio * as_real(t, "t").astype(np.float64, copy=False) / self.horizon)
        return sigma * (2 * self._log_ratio / self.horizon) ** 0.5

    def log_scale(self, t: ArrayLike) -> Array:  # noqa: D102
        return np.zeros_like(as_real(t, "t").astype(np.float64, copy=False))

    def std(self, t: ArrayLike) -> Array:  # noqa: D102
        return self.sigma_min * np.sqrt(
            np.expm1(2 * self._log_ratio * as_real(t, "t").astype(np.float64, copy=False) / self.horizon)
        )

    def time_at(self, log_snr: ArrayLike) -> Array:  # noqa: D102
        log_variance = -as_real(log_snr, "log_snr").astype(np.float64, copy=False)
        log_growth = np.logaddexp(0.0, log_variance - 2 * np.log(self.sigma_min))  # log σ(t)²/sigma_min²
        return self.horizon * log_growth / (2 * self._log_ratio)
