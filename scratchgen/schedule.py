"""NoiseSchedule: the numbers of the discrete forward process x_t = α_t x_{t−1} + β_t ε_t with α² + β² = 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.validation import Array, as_count, as_finite, as_number


class _TimeChange(Protocol):
    """What `NoiseSchedule.from_sde` needs of a stochastic differential equation."""

    horizon: float

    def log_scale(self, t: ArrayLike) -> Array: ...

    def marginal(self, t: ArrayLike) -> tuple[Array, Array]: ...


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule:
    """The forward process at t = 0..T: every array has length T+1 and index 0 is clean data.

    Parameters
    ----------
    variances : array_like, (T,)
        One-step noise variances β_1², …, β_T², each in (0, 1): Ho's "beta_t", counted from t = 1.

    Attributes
    ----------
    T : int
        Number of steps.
    alpha, beta : (T+1,)
        α_t and β_t, √(1 − β_t²) and the standard deviation of one step's noise; α_0 = 1, β_0 = 0.
    alpha_bar, beta_bar : (T+1,)
        x_t = ᾱ_t x_0 + β̄_t ε, (25): ᾱ_t = α_1⋯α_t, β̄_t = √(1 − ᾱ_t²).
    beta_tilde : (T+1,)
        Standard deviation β_t β̄_{t−1}/β̄_t of q(x_{t−1} | x_t, x_0); 0 at t = 0 and t = 1.
    snr : (T+1,)
        ᾱ_t²/β̄_t²; inf at t = 0.

    Raises
    ------
    ValueError
        If a variance lies outside (0, 1).

    Notes
    -----
    The deck's β is a standard deviation; Ho's and Song's is its square.  ᾱ and β̄ come from log1p and expm1: √(1 − ᾱ²)
    would have a relative error of 4e-5 at β² = 1e-12, this has 5e-13.
    """

    variances: Array
    alpha: Array = field(init=False)
    beta: Array = field(init=False)
    alpha_bar: Array = field(init=False)
    beta_bar: Array = field(init=False)
    beta_tilde: Array = field(init=False)
    snr: Array = field(init=False)

    def __post_init__(self) -> None:
        variances = np.array(as_finite(self.variances, "variances"), dtype=np.float64)
        if variances.ndim != 1 or len(variances) == 0:
            raise ValueError(f"variances must have shape (T,) with T >= 1, got shape {variances.shape}")
        outside = np.flatnonzero((variances <= 0) | (variances >= 1))
        if len(outside):
            i = int(outside[0])
            raise ValueError(
                f"variances must lie strictly between 0 and 1, but variances[{i}] is {variances[i]}; "
                "pass β² (Ho's beta), not β, and rescale the table when T changes"
            )
        squared = np.concatenate([[0.0], variances])
        log_alpha_bar_squared = np.cumsum(np.log1p(-squared))
        beta_bar = np.sqrt(-np.expm1(log_alpha_bar_squared))
        beta_tilde = np.zeros_like(squared)
        beta_tilde[1:] = np.sqrt(variances) * beta_bar[:-1] / beta_bar[1:]
        snr = np.full_like(squared, np.inf)
        snr[1:] = np.exp(log_alpha_bar_squared[1:]) / beta_bar[1:] ** 2
        tables = {
            "variances": variances,
            "alpha": np.sqrt(1 - squared),
            "beta": np.sqrt(squared),
            "alpha_bar": np.exp(log_alpha_bar_squared / 2),
            "beta_bar": beta_bar,
            "beta_tilde": beta_tilde,
            "snr": snr,
        }
        for name, table in tables.items():
            table.setflags(write=False)
            object.__setattr__(self, name, table)

    @property
    def T(self) -> int:
        """Number of noising steps."""
        return len(self.variances)

    def __repr__(self) -> str:
        return f"NoiseSchedule(T={self.T}, alpha_bar[T]={self.alpha_bar[-1]:.3g})"

    def respace(self, steps: ArrayLike) -> NoiseSchedule:
        """The chain that visits only these t, strictly rising in 1..T: its ᾱ_i is this one's ᾱ at steps[i−1].

            β_i² = 1 − ᾱ²_{t_i}/ᾱ²_{t_{i−1}}

        A network trained on the long chain serves the short one, since it sees the same noise levels.  Sampling from
        N(0, I) needs the last step, T, among them.
        """
        steps = np.asarray(steps)
        if steps.ndim != 1 or steps.size == 0 or steps.dtype.kind not in "iu":
            raise ValueError(f"steps must be a 1-D array of ints, got shape {steps.shape} and dtype {steps.dtype}")
        if steps[0] < 1 or steps[-1] > self.T or (np.diff(steps) <= 0).any():
            raise ValueError(f"steps must rise strictly within 1..{self.T}, got {steps}")
        log_alpha_bar_squared = np.concatenate([[0.0], np.cumsum(np.log1p(-self.variances))])
        return NoiseSchedule(-np.expm1(np.diff(log_alpha_bar_squared[np.concatenate([[0], steps])])))

    @classmethod
    def from_variances(cls, v: ArrayLike) -> NoiseSchedule:
        """Schedule from Ho's table of β_t² (his "betas"), length T, first entry = first step."""
        return cls(np.asarray(v))

    @classmethod
    def linear(cls, T: int, beta_min: float = 0.1, beta_max: float = 20.0) -> NoiseSchedule:
        """Ho's linear schedule, rescaled so that x_T is as noisy at every T.

            β_t² = 1 − exp(−b(t − ½)/T),   b(s) = beta_min + (beta_max − beta_min) s/T

        At T = 1000 this is linspace(1e-4, 0.02, 1000) to 1 % of its last entry.  That table itself belongs to
        T = 1000: with 100 steps it leaves ᾱ_T² = 0.36, and sampling from N(0, I) is wrong.  It is the exact
        discretisation of `VP(beta_min, beta_max)`, so `from_sde` gives the same numbers.
        """
        T = as_count(T, "T")
        low = as_number(beta_min, "beta_min", low=0.0)
        high = as_number(beta_max, "beta_max", low=0.0, open_low=True)
        midpoints = (np.arange(T) + 0.5) / T
        return cls(-np.expm1(-(low + (high - low) * midpoints) / T))

    @classmethod
    def cosine(cls, T: int, offset: float = 0.008, max_variance: float = 0.999) -> NoiseSchedule:
        """Nichol and Dhariwal's cosine schedule: ᾱ_t² ∝ cos²(½π (t/T + offset)/(1 + offset)).

        The last variance would be exactly 1; as in the paper, variances are capped at `max_variance`.
        """
        T = as_count(T, "T")
        offset = as_number(offset, "offset", low=0.0)
        cap = as_number(max_variance, "max_variance", low=0.0, high=1 - 1e-12, open_low=True)
        angle = 0.5 * np.pi * (np.arange(T + 1) / T + offset) / (1 + offset)
        # 1 − cos²b/cos²a = sin(b−a) sin(b+a)/cos²a, without the cancellation of 1 − f(t)/f(t−1)
        before, after = angle[:-1], angle[1:]
        return cls(np.minimum(np.sin(after - before) * np.sin(after + before) / np.cos(before) ** 2, cap))

    @classmethod
    def from_sde(cls, sde: _TimeChange, T: int) -> NoiseSchedule:
        """The T-step chain with exactly the law of a variance-preserving SDE at t = 0, h, 2h, …, horizon, (30)-(31).

            β_i² = 1 − exp(−∫ β(s) ds over step i)

        Raises
        ------
        ValueError
            If the SDE does not keep scale² + std² = 1 (sub-VP and VE have no such chain).
        """
        T = as_count(T, "T")
        times = np.linspace(0.0, sde.horizon, T + 1)
        scale, std = sde.marginal(times)
        if not np.allclose(scale**2 + std**2, 1.0, rtol=0, atol=1e-9):
            raise ValueError(f"sde must be variance preserving (scale² + std² = 1), got {sde!r}; use VP")
        return cls(-np.expm1(2 * np.diff(sde.log_scale(times))))
