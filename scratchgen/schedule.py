"""NoiseSchedule: the coefficients of the discrete forward process x_t = α_t x_{t−1} + β_t ε_t with α_t² + β_t² = 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np

from scratchgen.validation import (
    Array,
    ArrayLike,
    IntArray,
    as_array,
    as_count,
    as_finite,
    as_number,
    as_real,
    check_levels,
    freeze,
)


class _TimeChange(Protocol):
    """The part of a `LinearSDE` that `NoiseSchedule.from_sde` uses."""

    horizon: float

    def log_scale(self, t: ArrayLike) -> Array: ...

    def marginal(self, t: ArrayLike) -> tuple[Array, Array]: ...


@dataclass(frozen=True, eq=False, repr=False, init=False)
class NoiseSchedule:
    """Coefficients of the forward process at t = 0..T; every array has T+1 entries, and index 0 is clean data.

    Parameters
    ----------
    variances : array_like, (T,)
        One-step noise variances β_1², …, β_T², each in (0, 1).  Ho et al. write β_t for them.

    Attributes
    ----------
    T : int
        Number of steps.
    alpha, beta : (T+1,)
        β_t is the standard deviation of one step's noise, and α_t = √(1 − β_t²); α_0 = 1, β_0 = 0.
    alpha_bar, beta_bar : (T+1,)
        ᾱ_t = α_1⋯α_t and β̄_t = √(1 − ᾱ_t²) of x_t = ᾱ_t x_0 + β̄_t ε, (25).
    beta_tilde : (T+1,)
        Standard deviation β_t β̄_{t−1}/β̄_t of q(x_{t−1} | x_t, x_0); 0 at t = 0 and t = 1.
    snr : (T+1,)
        ᾱ_t²/β̄_t²; inf at t = 0.

    Raises
    ------
    ValueError
        If variances is not a non-empty 1-D array of finite numbers, a variance lies outside (0, 1), or a variance or
        ᾱ_T² is below the least normal float64, 2e-308.

    Notes
    -----
    The deck's β is a standard deviation; Ho's and Song's β is its square.  ᾱ and β̄ are computed by log1p and expm1.  At
    β² = 1e-12 the relative error of β̄ is 5e-13; √(1 − ᾱ²) would have a relative error of 4e-5.
    """

    variances: Array
    T: int = field(init=False)
    alpha: Array = field(init=False)
    beta: Array = field(init=False)
    alpha_bar: Array = field(init=False)
    beta_bar: Array = field(init=False)
    beta_tilde: Array = field(init=False)
    snr: Array = field(init=False)

    def __init__(self, variances: ArrayLike) -> None:
        variances = np.array(as_finite(variances, "variances"), dtype=np.float64)
        if variances.ndim != 1 or len(variances) == 0:
            raise ValueError(f"variances must have shape (T,) with T >= 1, got shape {variances.shape}")
        outside = np.flatnonzero((variances < np.finfo(np.float64).tiny) | (variances >= 1))  # 1/β² must not overflow
        if len(outside):
            i = int(outside[0])
            low = "2.2e-308" if 0 < variances[i] < 1 else "0"
            raise ValueError(
                f"variances must lie strictly between {low} and 1, but variances[{i}] is {variances[i]}; "
                "pass the variance β² (Ho's beta), not β, and rescale the table when T changes"
            )
        squared = np.concatenate([[0.0], variances])
        log_alpha_bar_squared = np.cumsum(np.log1p(-squared))
        lost = np.flatnonzero(log_alpha_bar_squared < np.log(np.finfo(np.float64).tiny))
        if len(lost):
            raise ValueError(
                f"variances must leave some signal, but alpha_bar² underflows at step {lost[0]} of {len(variances)}; "
                f"pass at most {lost[0] - 1} of these variances, or smaller ones"
            )
        beta_bar = np.sqrt(-np.expm1(log_alpha_bar_squared))
        object.__setattr__(self, "T", len(variances))
        freeze(
            self,
            variances=variances,
            alpha=np.sqrt(1 - squared),
            beta=np.sqrt(squared),
            alpha_bar=np.exp(log_alpha_bar_squared / 2),
            beta_bar=beta_bar,
            beta_tilde=np.concatenate([[0.0], np.sqrt(variances) * beta_bar[:-1] / beta_bar[1:]]),
            snr=np.concatenate([[np.inf], np.exp(log_alpha_bar_squared[1:]) / beta_bar[1:] ** 2]),
        )

    def __repr__(self) -> str:
        return f"NoiseSchedule(T={self.T}, alpha_bar[T]={self.alpha_bar[-1]:.3g})"

    def log_signal_ratio(self, s: int | IntArray, t: int | IntArray) -> Array:
        """log ᾱ_t²/ᾱ_s² = Σ_{s < i ≤ t} log(1 − β_i²), of the shape of s and t, for steps 0 <= s < t <= T.

        Only the steps between s and t are summed.  A difference of two logarithms of ᾱ would lose the digits of small
        β_i² after large ones.
        """
        for name, steps in ("s", s), ("t", t):
            if as_array(steps, name).dtype.kind not in "iu":
                raise TypeError(f"{name} must be an int or an int array of steps, got {steps!r:.60}")
            check_levels(steps, self.T + 1, name)
        if not np.less(s, t).all():
            raise ValueError(f"s must be below t, got s = {s}, t = {t}; swap them")
        logs = np.append(np.log1p(-self.variances), 0.0)  # the logarithm of step i has index i − 1
        ends = np.stack(np.broadcast_arrays(s, t), axis=-1)
        return np.add.reduceat(logs, ends.ravel())[::2].reshape(ends.shape[:-1])

    def respace(self, steps: ArrayLike) -> NoiseSchedule:
        """The schedule of the chain that visits only some of the steps; its ᾱ_i is ᾱ of this schedule at t_i.

            β_i² = 1 − ᾱ²_{t_i}/ᾱ²_{t_{i−1}}

        The noise levels of the short chain are levels of the long one, so that a network trained on the long chain can
        be used.  To start at N(0, I), the short chain has to contain the last step T.

        Parameters
        ----------
        steps : array_like of int, (n,)
            t_1 < … < t_n, within 1..T.

        Raises
        ------
        ValueError
            If steps is not a 1-D array of ints that rise strictly within 1..T, or a β_i² rounds to 1.
        """
        as_real(steps, "steps")  # refuses text, masked and ragged arrays
        steps = np.asarray(steps)
        if steps.ndim != 1 or steps.size == 0 or steps.dtype.kind not in "iu":
            raise ValueError(
                f"steps must be a 1-D array of ints, got shape {steps.shape} and dtype {steps.dtype}; pass the steps "
                f"that stay, such as [1, {self.T}]"
            )
        if steps[0] < 1 or steps[-1] > self.T or (np.diff(steps) <= 0).any():
            raise ValueError(f"steps must rise strictly within 1..{self.T}, got {steps}; pass sorted, distinct steps")
        previous = np.concatenate([[0], steps[:-1]])
        variances = -np.expm1(self.log_signal_ratio(previous, steps))
        if variances.max() == 1:
            i = int(variances.argmax())
            raise ValueError(
                f"steps must leave variances below 1, but the variance from {previous[i]} to {steps[i]} rounds to 1; "
                "keep more steps"
            )
        return NoiseSchedule(variances)

    def sinh_steps(self, n: int) -> IntArray:
        """n distinct steps in 1..T with the log-SNRs nearest to those of `sinh_log_snr`, rising to T; for `respace`.

        The range of log-SNR is that of the chain, from step T to step 1.  The last step is always T.

        Parameters
        ----------
        n : int
            Number of steps, at most T.

        Raises
        ------
        TypeError, ValueError
            If n is not an integer in 1..T.

        Examples
        --------
        >>> NoiseSchedule.linear(100).sinh_steps(8)
        array([  1,   3,   8,  18,  34,  54,  76, 100])
        """
        n, log_snr = as_count(n, "n", maximum=self.T), np.log(self.snr[1:])
        wanted = sinh_log_snr(log_snr[-1], log_snr[0], n)[::-1] if self.T > 1 else log_snr
        nearest = np.rint(np.interp(-wanted, -log_snr, np.arange(1, self.T + 1))).astype(np.int64)
        i = np.arange(n)
        rising = np.maximum.accumulate(nearest - i) + i  # equal neighbours move up, by as little as possible
        return np.minimum(rising, self.T - n + 1 + i)  # and stay at or below T

    @classmethod
    def from_variances(cls, v: ArrayLike) -> Self:
        """Schedule from a table of β_t², (T,), the "betas" of Ho et al.; the first entry is that of t = 1."""
        return cls(v)

    @classmethod
    def linear(cls, T: int, beta_min: float = 0.1, beta_max: float = 20.0) -> Self:
        """Linear schedule of Ho et al. (2020), rescaled so that ᾱ_T is the same for every T.

            β_t² = 1 − exp(−b(t − ½)/T),   b(s) = beta_min + (beta_max − beta_min) s/T

        At T = 1000 the table differs from Ho's linspace(1e-4, 0.02, 1000) by at most 1.05 % of the last entry; the
        first entry is larger by a tenth.  Ho's table is right for T = 1000 only: linspace(1e-4, 0.02, 100) leaves
        ᾱ_T² = 0.36, and N(0, I) is not the law of its x_T.  The schedule is the exact discretisation of
        `VP(beta_min, beta_max)`, and `from_sde` gives the same numbers.

        Parameters
        ----------
        T : int
            Number of steps.
        beta_min, beta_max : float
            Noise variances a unit of time at the start and at the end; the whole chain takes one unit of time.

        Raises
        ------
        TypeError, ValueError
            If T is not a positive integer, beta_min is negative, or beta_max is not positive.
        """
        T = as_count(T, "T")
        low = as_number(beta_min, "beta_min", low=0.0)
        high = as_number(beta_max, "beta_max", low=0.0, open_low=True)
        midpoints = (np.arange(T) + 0.5) / T
        return cls(-np.expm1(-(low + (high - low) * midpoints) / T))

    @classmethod
    def cosine(cls, T: int, offset: float = 0.008, max_variance: float = 0.999) -> Self:
        """Cosine schedule of Nichol and Dhariwal (2021): ᾱ_t² ∝ cos²(½π (t/T + offset)/(1 + offset)).

        The formula gives β_T² = 1.  As in the paper, variances above `max_variance` are replaced by `max_variance`.

        Parameters
        ----------
        T : int
            Number of steps.
        offset : float
            At least 0; the paper's 0.008 keeps the first steps from being very small.
        max_variance : float
            In (0, 1).
        """
        T = as_count(T, "T")
        offset = as_number(offset, "offset", low=0.0)
        cap = as_number(max_variance, "max_variance", low=0.0, high=1 - 1e-12, open_low=True)
        angle = 0.5 * np.pi * (np.arange(T + 1) / T + offset) / (1 + offset)
        # 1 − cos²b/cos²a = sin(b−a) sin(b+a)/cos²a, without the cancellation of 1 − f(t)/f(t−1)
        before, after = angle[:-1], angle[1:]
        return cls(np.minimum(np.sin(after - before) * np.sin(after + before) / np.cos(before) ** 2, cap))

    @classmethod
    def log_snr_even(cls, T: int, first: float = 4.5, last: float = -7.0) -> Self:
        """Schedule with log-SNRs evenly spaced from `first` at t = 1 to `last` at t = T.

            β_t² = β̄_t² (1 − SNR_t/SNR_{t−1}),   β̄_t² = 1/(1 + SNR_t)

        Parameters
        ----------
        T : int
            Number of steps.  For T = 1 the log-SNR is `last`.
        first : float
            log ᾱ_1²/β̄_1².  4.5 is for prediction="levels" of DDPM with 17 levels: the noise of x_1/ᾱ_1 is then 0.84 of
            the distance of two levels, and the decoder P(x_0 | x_1) does the rest.
        last : float
            log ᾱ_T²/β̄_T²; below `first`.

        Raises
        ------
        TypeError, ValueError
            If T is not a positive integer, first is not above last, or a variance β_t² rounds to 0 or 1.

        Examples
        --------
        >>> np.log(NoiseSchedule.log_snr_even(6, 4.5, -5.5).snr[1:]).round(6)
        array([ 4.5,  2.5,  0.5, -1.5, -3.5, -5.5])
        """
        T, last = as_count(T, "T"), as_number(last, "last")
        first = as_number(first, "first", low=last, open_low=True)
        log_snr = np.linspace(last, first, T)[::-1]
        with np.errstate(over="ignore"):  # β̄_t² is then 0, which the constructor refuses
            beta_bar_squared = 1 / (1 + np.exp(log_snr))
        return cls(-np.expm1(np.diff(log_snr, prepend=np.inf)) * beta_bar_squared)

    @classmethod
    def from_sde(cls, sde: _TimeChange, T: int) -> Self:
        """The T-step chain whose law is that of a variance-preserving SDE at the times 0, h, 2h, …, horizon, (30)-(31).

            β_i² = 1 − exp(−∫ β(s) ds over step i),   h = horizon/T

        Parameters
        ----------
        sde : VP
        T : int
            Number of steps.

        Raises
        ------
        ValueError
            If scale² + std² is not 1 at all times, as for SubVP and VE.
        """
        if isinstance(sde, type) or not hasattr(sde, "marginal"):
            raise TypeError(f"sde must be a variance-preserving process, got {sde!r:.60}; pass VP()")
        T = as_count(T, "T")
        times = np.linspace(0.0, sde.horizon, T + 1)
        scale, std = sde.marginal(times)
        if not np.allclose(scale**2 + std**2, 1.0, rtol=0, atol=1e-9):
            raise ValueError(f"sde must be variance preserving (scale² + std² = 1), got {sde!r}; use VP")
        return cls(-np.expm1(2 * np.diff(sde.log_scale(times))))


CENTRE, WIDTH = 2.0, 4.0  # of `sinh_log_snr`, for data of unit variance


def sinh_log_snr(low: float, high: float, n: int) -> Array:
    """n rising values of log-SNR = 2 + 4 sinh v from low to high, (n,), with v evenly spaced.

    The values are densest at 2, where the denoiser of data of unit variance changes most, and ever sparser towards both
    ends, where x_t is almost pure noise or almost clean.  On eight Gaussians 20 multistep calls with c = 1 and the
    exact score had KL(p‖p_θ) = 0.0040 nats on this grid, and 0.0148 on a grid evenly spaced in log-SNR (`python -m
    benchmarks.solvers`).  For data of variance V the centre would be 2 − log V.  For n = 1 the value is low.

    Parameters
    ----------
    low, high : float
        The range of the process, see `LinearSDE.log_snr`.
    n : int

    Raises
    ------
    TypeError, ValueError
        If n is not a positive integer, or high is not above low.

    Examples
    --------
    >>> sinh_log_snr(-10.0, 9.0, 5).round(1)
    array([-10. ,  -2.9,   1. ,   4.3,   9. ])
    """
    low = as_number(low, "low")
    high, n = as_number(high, "high", low=low, open_low=True), as_count(n, "n")
    start, end = np.arcsinh((np.array([low, high]) - CENTRE) / WIDTH)
    return CENTRE + WIDTH * np.sinh(np.linspace(start, end, n))
