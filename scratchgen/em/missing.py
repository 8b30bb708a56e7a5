"""The E-step for rows with missing values (NaN), which are latent variables like z (Ghahramani and Jordan 1994).

A value is missing at random if the chance that it is missing depends on observed values only.  The likelihood of a row
then is the marginal density of its observed values x_a.  All rows with the same missing columns b have the same
regression of x_b on x_a, so that the computations go by pattern of missing columns.  The M-steps are those of complete
data, since they need the data only through expected sufficient statistics.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scratchgen.em.algorithm import e_step
from scratchgen.em.gaussian import SufficientStatistics, sufficient_statistics
from scratchgen.likelihood import logsumexp, quiet_log
from scratchgen.mixture import Mixture
from scratchgen.validation import (
    Array,
    ArrayLike,
    IntArray,
    as_arrays,
    as_finite,
    as_real,
    as_sample_weight,
    as_samples,
    check_callable,
    check_not_empty,
    check_type,
)
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_posterior

ROWS = 4096  # rows with one pattern that are taken at a time


def patterns(x: Array) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Yield observed columns a, missing columns b, and at most ROWS of the rows of x, (N, D), that have them."""
    x = as_samples(x, missing=True)
    missing, pattern = np.unique(np.isnan(x), axis=0, return_inverse=True)
    pattern = pattern.ravel()  # NumPy 2.0 returns it as a column
    order = np.argsort(pattern, kind="stable")
    for b, rows in zip(missing, np.split(order, np.bincount(pattern).cumsum()[:-1]), strict=True):
        for start in range(0, len(rows), ROWS):
            yield np.flatnonzero(~b), np.flatnonzero(b), rows[start : start + ROWS]


def by_pattern(f: Callable[[Array, IntArray], Array], x: Array) -> Array:
    """The rows of f(x_a, a), (N, ...), for the observed columns a of every row of x, (N, D)."""
    check_callable(f, "f", "(x_a (n, A), a (A,)) → (n, ...)")
    x = as_samples(x, missing=True)
    parts = [(rows, as_real(f(x[np.ix_(rows, a)], a), "f")) for a, _, rows in patterns(x)]
    rest = parts[0][1].shape[1:]
    out = np.empty((len(x), *rest))
    for rows, part in parts:
        if part.shape != (len(rows), *rest):
            raise ValueError(f"f must return an array {(len(rows), *rest)}, as for other columns, got {part.shape}")
        out[rows] = part
    return out


# --- mixtures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObservedMixture:
    """The law of the observed values of a row and its component, for `e_step` and `free_energy`.

    Parameters
    ----------
    mixture : Mixture
        The law of complete rows.
    """

    mixture: Mixture

    def __post_init__(self) -> None:
        check_type(self.mixture, Mixture, "mixture")

    @property
    def log_weights(self) -> Array:
        """log p(z), (K,), nats."""
        return self.mixture.log_weights

    def log_joint(self, x: Array) -> Array:
        """log w_k N(x_a; m_ka, C_kaa), (N, K), nats, for the observed values x_a of every row of x, (N, D)."""
        x = _as_incomplete(x, self.mixture)

        def of_columns(known: Array, a: IntArray) -> Array:
            if len(a):
                return self.mixture.marginal(a).log_joint(known)
            return np.tile(self.log_weights, (len(known), 1))  # nothing is observed, and p(x_a) is 1

        return by_pattern(of_columns, x)

    def log_prob(self, x: Array) -> Array:
        """log p(x_a), (N,), nats, for the observed values x_a of every row of x, (N, D)."""
        return logsumexp(self.log_joint(x))


def statistics_with_missing(
    x: Array, mixture: Mixture, sample_weight: ArrayLike | None = None
) -> tuple[SufficientStatistics, float]:
    """The E-step for rows with missing values: expected sufficient statistics under q = p_θ(z, x_b | x_a), (18).

    Given x_a and a component k, x_b is Gaussian with the mean m_kb + C_kba C_kaa⁻¹ (x_a − m_ka), which is affine in
    x_a, and a covariance V_k that does not depend on x_a.  The mean and the covariance of complete rows therefore are
    those of x_a, mapped by the affine function, plus V_k in the missing columns.  Without V_k the covariances would be
    too small, and the bound could fall.  Rows without observed values have log p = 0, and enter the mean only.

    Parameters
    ----------
    x : (N, D)
        NaN where a value is missing.
    mixture : Mixture
    sample_weight : (N,), optional
        Weights w of the rows; 1 for every row if None.

    Returns
    -------
    statistics : SufficientStatistics
        For `m_step_from_statistics`.
    log_likelihood : float
        Σ_n w_n log p_θ(x_na) / Σ_n w_n, nats.

    Raises
    ------
    ValueError
        If an argument is wrong.
    """
    x = _as_incomplete(x, mixture)
    weights, (K, D) = as_sample_weight(sample_weight, len(x)), mixture.means.shape
    log_likelihood = 0.0
    total = SufficientStatistics(np.full(K, -np.inf), mixture.means, mixture.covariances)
    for a, b, rows in patterns(x):
        if not len(a):
            continue  # rows without observed values: log p is 0 for every θ
        known, (law, gains, V) = x[np.ix_(rows, a)], mixture.regression(a)
        log_resp, log_prob = e_step(known, law)
        observed = sufficient_statistics(known, log_resp + quiet_log(weights[rows])[:, None], law)
        affine = np.zeros((K, D, len(a)))  # E[x | x_a, k] = m_k + affine_k (x_a − m_ka)
        affine[:, a], affine[:, b] = np.eye(len(a)), gains
        means = mixture.means + np.einsum("kda,ka->kd", affine, observed.means - law.means)
        covariances = affine @ observed.covariances @ affine.swapaxes(1, 2)
        covariances[np.ix_(np.arange(K), b, b)] += V
        total += SufficientStatistics(observed.log_counts, means, covariances)
        log_likelihood += float(weights[rows] @ log_prob)
    return total, log_likelihood / float(weights.sum())


def impute(x: Array, mixture: Mixture) -> Array:
    """Rows of x, (N, D), with E[x_b | x_a] = Σ_k p(k | x_a) E[x_b | x_a, k] in place of the missing values x_b."""
    x = _as_incomplete(x, mixture)
    out = x.astype(np.float64)
    for a, b, rows in patterns(x):
        if not len(a):
            out[rows] = mixture.mean()
            continue
        known, (law, gains, _) = x[np.ix_(rows, a)], mixture.regression(a)
        means = mixture.means[:, b] + np.einsum("kba,nka->nkb", gains, known[:, None] - law.means)
        out[np.ix_(rows, b)] = np.einsum("nk,nkb->nb", law.posterior(known), means)
    return out


def _as_incomplete(x: Array, mixture: Mixture) -> Array:
    check_type(mixture, Mixture, "mixture")
    return as_samples(x, dimension=mixture.dimension, model="the mixture", missing=True)


# --- x = W z + μ + noise ---------------------------------------------------------------------------------------------


class CompletedRows(NamedTuple):
    """Result of `complete_rows`."""

    x: Array  # (N, D), with E[x_b | x_a] in place of the missing values x_b
    covariance: Array  # (D, D), average of Cov(x_b | x_a); 0 in columns without missing values
    elbo: Array  # (N,), (7) at q = p_θ(z | x_a), which equals log p_θ(x_a), nats


def complete_rows(
    x: Array, W: Array, mean: Array, noise_variance: float | Array, sample_weight: ArrayLike | None = None
) -> CompletedRows:
    """The E-step of PPCA for rows with missing values, from p_θ(z | x_a) = N(m, V), (11).

        E[x_b | x_a] = W_b m + μ_b,   Cov(x_b | x_a) = W_b V W_bᵀ + Ψ_b

    W_b and Ψ_b have the rows of the missing columns b.  The M-step is that of complete data, with the mean of these
    rows and their covariance plus the average of Cov(x_b | x_a).

    Parameters
    ----------
    x : (N, D)
        NaN where a value is missing.
    W : (D, k)
    mean : (D,)
        μ.
    noise_variance : float or (D,)
        σ² or Ψ.
    sample_weight : (N,), optional
        Weights of the rows in the average.

    Raises
    ------
    ValueError
        If an argument is wrong.
    """
    W, mean = as_arrays("W (D, k), mean (D)", as_finite(W, "W"), as_finite(mean, "mean"))
    check_not_empty(W, "W")
    noise = as_real(noise_variance, "noise_variance")
    noise = as_arrays("noise_variance (D)", noise if noise.ndim else np.full(len(mean), noise), D=len(mean))
    x, weights = as_samples(x, dimension=len(mean), missing=True), as_sample_weight(sample_weight, len(x))
    completed, covariance, elbo = x.astype(np.float64), np.zeros((len(mean), len(mean))), np.empty(len(x))
    for a, b, rows in patterns(x):
        given = x[np.ix_(rows, a)], W[a], mean[a], noise[a]
        m, V = linear_gaussian_posterior(*given)
        elbo[rows] = linear_gaussian_elbo(*given, m, V)
        completed[np.ix_(rows, b)] = m @ W[b].T + mean[b]
        covariance[np.ix_(b, b)] += weights[rows].sum() * (W[b] @ V @ W[b].T + np.diag(noise[b]))
    return CompletedRows(completed, covariance / weights.sum(), elbo)


def fill_with_means(x: Array, sample_weight: ArrayLike | None = None) -> tuple[Array, Array]:
    """Rows of x, (N, D), with the mean of its column in place of every missing value, and their weights, for starts.

    Rows without observed values are left out.

    Raises
    ------
    ValueError
        If a column has only missing values.
    """
    x = as_samples(x, missing=True)
    missing, weights = np.isnan(x), as_sample_weight(sample_weight, len(x))
    seen = weights[:, None] * ~missing
    empty = np.flatnonzero(seen.sum(axis=0) == 0)
    if len(empty):
        raise ValueError(f"x must have a number in every column, but column {empty[0]} has only NaN; drop it")
    filled = np.where(missing, (seen * np.where(missing, 0.0, x)).sum(axis=0) / seen.sum(axis=0), x)
    rows = ~missing.all(axis=1)
    return filled[rows], weights[rows]
