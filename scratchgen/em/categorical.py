"""A mixture of categorical tables for whole numbers, with exact log P and denoiser, and its M-step.

    P(x) = Σ_c π_c Π_d P_cd(x_d)

For x drawn from such a mixture log P(x) is known, and E[x_0 | x_t] is known when the levels are scaled to [−1, 1] and
diffused.  Diffusion models of images with few grey levels are graded by these values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np

from scratchgen.em.algorithm import m_step_table
from scratchgen.likelihood import level_values, logsumexp, quiet_log, softmax
from scratchgen.validation import (
    RNG,
    SMALLEST,
    Array,
    ArrayLike,
    IntArray,
    as_arrays,
    as_count,
    as_finite,
    as_generator,
    as_real,
    as_sample_weight,
    as_samples,
    as_scale_and_std,
    check_flag,
    check_levels,
    check_probabilities,
    check_type,
    freeze,
    normalised,
)

NEVER = -1e300  # stands for log 0 in matrix products, where −inf times 0 would be NaN


@dataclass(frozen=True, eq=False, repr=False, init=False)
class CategoricalLaw:
    """P(x) = Σ_c π_c Π_d P_cd(x_d) for whole numbers x_d in 0..n_levels−1.

    Parameters
    ----------
    weights : array_like, (K,)
        π, with sum 1.
    probabilities : array_like, (K, D, n_levels)
        P_cd, with sum 1 over the levels.

    Raises
    ------
    ValueError
        If shapes disagree, a number is negative, or a sum is not 1 to within 1e-6; smaller errors are
        divided out.
    """

    weights: Array
    probabilities: Array
    log_weights: Array = field(init=False)  # log π
    _log_probabilities: Array = field(init=False)  # at least NEVER

    def __init__(self, weights: ArrayLike, probabilities: ArrayLike) -> None:
        weights = as_finite(weights, "weights").astype(np.float64)
        probabilities = as_finite(probabilities, "probabilities").astype(np.float64)
        if probabilities.ndim != 3 or weights.shape != probabilities.shape[:1] or probabilities.size == 0:
            raise ValueError(
                f"weights and probabilities must have shapes (K,) and (K, D, n_levels), "
                f"got {weights.shape} and {probabilities.shape}"
            )
        for name, value in {"weights": weights, "probabilities": probabilities}.items():
            if value.min() < 0 or (abs(value.sum(axis=-1) - 1) > 1e-6).any():
                raise ValueError(f"{name} must be non-negative and sum to 1 over the last axis; divide by the sum")
        pi, tables = (normalised(value) for value in (weights, probabilities))
        freeze(
            self,
            weights=pi,
            probabilities=tables,
            log_weights=quiet_log(pi),
            _log_probabilities=np.maximum(quiet_log(tables), NEVER),
        )

    def __repr__(self) -> str:
        K, D, n_levels = self.probabilities.shape
        return f"CategoricalLaw({K} components of {n_levels} levels in {D} dimensions)"

    def log_joint(self, x: Array) -> Array:
        """log π_c Π_d P_cd(x_d), the log joint of x and its component, (N, K), nats; −inf where a factor is 0.

        Parameters
        ----------
        x : (N, D) or (N, D, n_levels)
            Whole numbers, or their `indicators`, which save time when the method is called often.

        Raises
        ------
        ValueError
            If x has another D, or elements that are not whole numbers 0..n_levels−1.
        """
        K, D, n_levels = self.probabilities.shape
        x = as_real(x, "x")
        one_hot = (
            as_arrays("x (N, D, n_levels)", x, D=D, n_levels=n_levels)
            if x.ndim == 3
            else indicators(as_samples(x, dimension=D), n_levels)
        )
        log_joint = one_hot.reshape(len(one_hot), -1) @ self._log_probabilities.reshape(K, -1).T + self.log_weights
        return np.where(log_joint < 0.1 * NEVER, -np.inf, log_joint)

    def log_prob(self, x: Array) -> Array:
        """log P(x), (N,), nats, a probability and not a density, for x as in `log_joint`."""
        return logsumexp(self.log_joint(x))

    def posterior(self, x: Array) -> Array:
        """P(z = c | x), (N, K), (18), for x as in `log_joint`; π where P(x) = 0."""
        log_joint = self.log_joint(x)
        impossible = np.isneginf(log_joint).all(axis=1, keepdims=True)
        return softmax(np.where(impossible, self.log_weights, log_joint))

    @overload
    def sample(self, n: int, rng: RNG = None, *, return_labels: Literal[False] = False) -> IntArray: ...

    @overload
    def sample(self, n: int, rng: RNG = None, *, return_labels: Literal[True]) -> tuple[IntArray, IntArray]: ...

    def sample(self, n: int, rng: RNG = None, *, return_labels: bool = False) -> IntArray | tuple[IntArray, IntArray]:
        """Draw n examples of whole numbers, (n, D); with `return_labels` also their components 0..K−1, (n,) of int."""
        check_flag(return_labels, "return_labels")
        rng = as_generator(rng)
        labels = rng.choice(len(self.weights), size=as_count(n, "n", minimum=0), p=self.weights)
        steps = self.probabilities.cumsum(axis=2)[:, :, :-1]
        u = rng.random((len(labels), self.probabilities.shape[1], 1))
        x: IntArray = (u > steps[labels]).sum(axis=2)
        return (x, labels) if return_labels else x

    # --- diffusion: x_t = scale · x_0 + std · ε with the levels x_0 scaled to [−1, 1] --------------------------------

    def _diffused(self, x_t: Array, scale: float, std: float) -> tuple[Array, Array, Array, Array]:
        """log p(x_t, z = c), (N, K), less a number a row, (N,); E[x_0 | x_t, c] and Var(x_0d | x_t, c), (N, K, D)."""
        _, D, n_levels = self.probabilities.shape
        x_t, levels = as_samples(x_t, "x_t", dimension=D), level_values(n_levels)
        scale, std = as_scale_and_std(scale, std, least=SMALLEST)
        # The exponent is written as that of the nearest level and the excess of every level over it.  The excess is a
        # difference of squares in factors: far away x_t² would drown the differences of the levels.
        within = np.clip(x_t, -abs(scale), abs(scale))[:, :, None]
        nearest = levels[np.abs(within - scale * levels).argmin(axis=2)][:, :, None]
        least, apart = x_t[:, :, None] - scale * nearest, x_t[:, :, None] - scale * levels
        excess = (scale * (nearest - levels) / std) * ((apart + least) / std)
        log_peaks = -0.5 * (least[:, :, 0] / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
        log_terms = self._log_probabilities - 0.5 * excess[:, None]
        law = softmax(log_terms)
        means = law @ levels
        variances = np.maximum(law @ levels**2 - means**2, 0.0)
        return self.log_weights + logsumexp(log_terms).sum(axis=2), log_peaks.sum(axis=1), means, variances

    def diffused_log_prob(self, x_t: Array, scale: float, std: float) -> Array:
        """log p(x_t), a density, (N,), nats, for x_t (N, D); ValueError unless std is in [1e-60, 1e60]."""
        log_joint, log_peaks, _, _ = self._diffused(x_t, scale, std)
        return logsumexp(log_joint) + log_peaks

    def denoise(self, x_t: Array, scale: float, std: float) -> Array:
        """Bayes denoiser E[x_0 | x_t], (N, D); arguments as for `diffused_log_prob`."""
        log_joint, _, means, _ = self._diffused(x_t, scale, std)
        return np.einsum("nk,nkd->nd", softmax(log_joint), means)

    def denoise_variance(self, x_t: Array, scale: float, std: float) -> Array:
        """tr Cov(x_0 | x_t), (N,), the least mean squared error of a denoiser at x_t; arguments as for `denoise`."""
        log_joint, _, means, variances = self._diffused(x_t, scale, std)
        posterior = softmax(log_joint)
        spread = means - np.einsum("nk,nkd->nd", posterior, means)[:, None]
        return np.einsum("nk,nkd->n", posterior, variances + spread**2)


def indicators(x: Array, n_levels: int) -> Array:
    """Indicators [x_nd = k], (N, D, n_levels), of whole numbers x, (N, D); ValueError if x has other numbers."""
    x = as_arrays("x (N, D)", x)
    check_levels(x, as_count(n_levels, "n_levels", minimum=2))
    return (x[:, :, None] == np.arange(n_levels)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class TableStatistics:
    """Sufficient statistics of the M-step: Σ w, and of the components the shares of it and the tables of frequencies.

    For statistics `a` and `b` of two parts of the data, `a + b` are the statistics of both parts together.

    Parameters
    ----------
    total : float
        N = Σ_n w_n.
    aggregate : (K,)
        q(z) = Σ_n w_n q(z | x_n)/N.
    tables : (K, D, n_levels)
        Frequencies of the levels under q(x | z); those of all examples for a component with q(z) = 0.
    """

    total: float
    aggregate: Array
    tables: Array

    def __add__(self, other: TableStatistics) -> TableStatistics:
        """Merge two parts."""
        total = self.total + other.total
        aggregate = (self.total * self.aggregate + other.total * other.aggregate) / total
        share = np.full_like(aggregate, other.total / total)
        np.divide(other.total / total * other.aggregate, aggregate, out=share, where=aggregate > 0)
        share = share[:, None, None]
        return TableStatistics(total, aggregate, (1 - share) * self.tables + share * other.tables)


def table_statistics(one_hot: Array, log_resp: Array, sample_weight: Array | None = None) -> TableStatistics:
    """`TableStatistics` of the data under q; arguments as for `categorical_m_step`.

    Over all distributions of x the maximum of (15) is p_θ(x | z) = p(x) q(z | x)/q(z), `m_step_table` on the rows of
    the data.  Over products of one table a dimension the maximum is the product of the marginals of that p_θ(x | z).
    """
    one_hot, log_resp = as_arrays("one_hot (N, D, n_levels), log_resp (N, K)", one_hot, log_resp)
    check_probabilities(one_hot, "one_hot", axis=None)
    weights = as_sample_weight(sample_weight, len(one_hot))
    N, resp = weights.sum(), np.exp(log_resp)
    check_probabilities(resp, "exp(log_resp)")
    decoder, aggregate = m_step_table(weights / N, resp)
    return TableStatistics(N, aggregate, np.tensordot(decoder, one_hot, axes=(0, 0)))


def categorical_m_step(
    one_hot: Array, log_resp: Array, pseudo_counts: Array | float = 0.0, sample_weight: Array | None = None
) -> CategoricalLaw:
    """The M-step: the law that maximises Σ_n w_n E_q log p_θ(x_n, z), (15), plus the log prior Σ pseudo_counts · log P.

    Parameters
    ----------
    one_hot : (N, D, n_levels)
        The data, as `indicators`.
    log_resp : (N, K)
        log q(z | x).
    pseudo_counts : float or (D, n_levels)
        Counts added to those of every component (a Dirichlet prior).
    sample_weight : (N,), optional
        w; 1 for every example if None.
    """
    return categorical_m_step_from_statistics(table_statistics(one_hot, log_resp, sample_weight), pseudo_counts)


def categorical_m_step_from_statistics(
    statistics: TableStatistics, pseudo_counts: Array | float = 0.0
) -> CategoricalLaw:
    """The law that `categorical_m_step` returns, from `TableStatistics`; `pseudo_counts` are as there."""
    check_type(statistics, TableStatistics, "statistics")
    pseudo_counts, shape = as_real(pseudo_counts, "pseudo_counts"), statistics.tables.shape[1:]
    if pseudo_counts.shape not in ((), shape) or not (pseudo_counts >= 0).all():
        raise ValueError(f"pseudo_counts must be one number or {shape} numbers, none negative")
    counts = statistics.total * statistics.aggregate[:, None, None] * statistics.tables + pseudo_counts
    totals, tables = counts.sum(axis=2, keepdims=True), statistics.tables.copy()
    np.divide(counts, totals, out=tables, where=totals > 0)  # a component of weight 0 keeps the marginals of p(x)
    return CategoricalLaw(statistics.aggregate, tables)


def log_table_prior(tables: Array, pseudo_counts: Array) -> float:
    """Σ pseudo_counts · log P, nats: the log density of a Dirichlet prior up to a constant.

    Parameters
    ----------
    tables : (K, D, n_levels)
        P.
    pseudo_counts : (D, n_levels)
    """
    tables, pseudo_counts = as_arrays("tables (K, D, n_levels), pseudo_counts (D, n_levels)", tables, pseudo_counts)
    check_probabilities(tables, "tables")
    check_probabilities(pseudo_counts, "pseudo_counts", axis=None)
    seen = pseudo_counts > 0
    return float((pseudo_counts[seen] * np.log(tables[:, seen])).sum())
