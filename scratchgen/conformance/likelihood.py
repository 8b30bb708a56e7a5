"""Checks of equations (1)-(2): divergences in closed form, and the likelihood of whole numbers.

The right sides use inverses, determinants and plain sums, which the package itself avoids.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, check_callable, takes_arrays
from scratchgen.conformance.instances import argmin, at_each, by_entry, result, rounding, through
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.validation import Array


def _tilted(q: Array, theta: float) -> Array:
    """q e^{θs}, normalised, with s equally spaced from −1 to 1 over the table."""
    logits = np.log(q) + theta * np.linspace(-1, 1, len(q))
    tilted = np.exp(logits - logits.max())
    return tilted / tilted.sum()


def _matching_tilt(p: Array, q: Array) -> float:
    """The θ with E_θ s = E_p s, by bisection: the maximum of E_p log q_θ over the family `_tilted`."""
    s = np.linspace(-1, 1, len(p))
    low, high = -2000.0, 2000.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _tilted(q, middle) @ s < p @ s else (low, middle)
    return 0.5 * (low + high)


GUARDS = tuple(10.0**-k for k in range(3, 9))  # that people add inside a logarithm


@takes_arrays
def check_kl(kl: Callable[..., ArrayLike], p: Array, q: Array) -> Check:
    """(1)-(2): KL(p‖q) = −H(p) − E_p log q of two discrete distributions, and its argmin over a family of q.

    The values are compared at (p, q), (q, p), (p, p), and with their geometric mean.  The family is q e^{θs}, where s
    is equally spaced over the table.  (1) and (2) have the same optimum: the θ with E_θ s = E_p s.  A callable that
    returns −E_p log q − H(p) is (1).

    Parameters
    ----------
    kl : callable
        kl(p, q) → a number, nats.
    p, q : (X,)
        Positive, sum 1, with at least two entries.

    Returns
    -------
    Check
        The larger of the residuals of the values and of the argmin; tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(kl, "kl(p, q)")
    as_probabilities(p, "p")
    as_probabilities(q, "q")
    if p.shape != q.shape or len(p) < 2:
        raise ValueError(f"p and q must both be (X,) with X >= 2, got {p.shape} and {q.shape}")
    between = np.sqrt(p * q) / np.sqrt(p * q).sum()
    pairs = [(p, q), (q, p), (p, between), (between, q), (p, p)]
    labels = ["(p, q)", "(q, p)", "(p, r)", "(r, q)", "(p, p)"]
    right = [(a * np.log(a)).sum() - (a * np.log(b)).sum() for a, b in pairs]
    tolerance, unit = by_entry([1 - np.log(min(a.min(), b.min())) for a, b in pairs], right)
    values = compare(
        "check_kl",
        "(2)",
        "KL(p‖q)",
        [result(kl(a, b), "kl") for a, b in pairs],
        right,
        tolerance,
        at_each(
            pairs,
            {
                "the arguments are swapped: it is KL(q‖p)": lambda a, b: (b * np.log(b / a)).sum(),
                "it is −E log q: the entropy of p is not subtracted": lambda a, b: -(a * np.log(b)).sum(),
                "it is E log q, the objective of (1), not a divergence": lambda a, b: (a * np.log(b)).sum(),
                "the entropy of p is added, not subtracted": lambda a, b: -(a * np.log(a * b)).sum(),
                "it is in bits, not in nats": lambda a, b: (a * np.log2(a / b)).sum(),
                "it is a mean over the table, not a sum": lambda a, b: (a * np.log(a / b)).mean(),
                "p does not weigh the logarithms": lambda a, b: np.log(a / b).sum(),
                "it is KL(p‖q) + KL(q‖p)": lambda a, b: ((a - b) * np.log(a / b)).sum(),
                "it is the root of the Jensen-Shannon divergence, a symmetric distance": lambda a, b: np.sqrt(
                    0.5 * (a * np.log(2 * a / (a + b)) + b * np.log(2 * b / (a + b))).sum()
                ),
                "q stands where log q belongs, as in F.kl_div(q, p)": lambda a, b: (a * (np.log(a) - b)).sum(),
                "p stands where log p belongs in KL(q‖p), as in F.kl_div(p, q)": lambda a, b: (
                    b * (np.log(b) - a)
                ).sum(),
                "it is the Jensen-Shannon divergence": lambda a, b: (
                    0.5 * (a * np.log(2 * a / (a + b)) + b * np.log(2 * b / (a + b))).sum()
                ),
                "it is half the χ² divergence": lambda a, b: 0.5 * ((a - b) ** 2 / b).sum(),
                "it is the sum of squared differences": lambda a, b: ((a - b) ** 2).sum(),
                "the terms are taken in absolute value": lambda a, b: np.abs(a * np.log(a / b)).sum(),
                **{
                    f"{e:g} is added inside the logarithms": lambda a, b, e=e: (a * np.log((a + e) / (b + e))).sum()
                    for e in GUARDS
                },
                **{
                    f"{e:g} is added to q inside the logarithm": lambda a, b, e=e: (a * np.log(a / (b + e))).sum()
                    for e in GUARDS
                },
            },
        ),
        labels=lambda index: f"KL{labels[index[0]].replace(', ', '‖')}, with r the geometric mean,",
        unit=unit,
    )
    if values.left.shape != (len(pairs),):
        return values
    offsets = np.array([-1, -0.3, -0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3, 1])
    found, best = [], []
    for a, b in pairs[:4]:
        theta = _matching_tilt(a, b)
        law, s = _tilted(b, theta), np.linspace(-1, 1, len(a))
        candidates = theta + offsets / np.sqrt(law @ (s - law @ s) ** 2)
        family = [_tilted(b, t) for t in candidates]
        exact = np.array([(law * np.log(law / c)).sum() for c in family])  # = KL(a‖c) − KL(a‖law)
        exact[offsets == 0] = 0.0
        found.append(float(argmin([[result(kl(a, c), "kl")] for c in family], exact[:, None], candidates)[0]))
        best.append(theta)
    return worst(values, compare("check_kl", "(1)", "θ of the least KL(p‖q_θ), q_θ ∝ q exp(θs),", found, best, 1e-9))


@takes_arrays
def check_gaussian_kl(kl: Callable[..., ArrayLike], mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> Check:
    """(2): KL of two Gaussians, by inverse and determinant, and its value 0 for equal arguments.

    The values are compared for both orders of p and q, with a third Gaussian r, and for (p, p).

    Parameters
    ----------
    kl : callable
        kl(mean_p, cov_p, mean_q, cov_q) → a number, nats.
    mean_p, mean_q : (D,)
    cov_p, cov_q : (D, D)

    Returns
    -------
    Check
        Tolerance 5e-14, more in proportion to the covariances' condition number.
    """
    check_callable(kl, "kl(mean_p, cov_p, mean_q, cov_q)")

    def textbook(
        m: Array,
        S: Array,
        n: Array,
        R: Array,
        *,
        weight: float = 0.5,
        spread: float = 0.5,
        shift: float = 0.5,
        D: int = 1,
    ) -> float:
        P = np.linalg.inv(R)
        log_ratio = np.linalg.slogdet(R)[1] - np.linalg.slogdet(S)[1]
        quadratic = (m - n) @ P @ (m - n)
        return float(spread * np.trace(P @ S) + shift * quadratic - 0.5 * D * len(m) + weight * log_ratio)

    def by_precision(m: Array, S: Array, n: Array, R: Array) -> float:
        return textbook(m, np.linalg.inv(S), n, np.linalg.inv(R))

    p, q = (mean_p, cov_p), (mean_q, cov_q)
    r = (0.3 * mean_p + 0.9 * mean_q, 0.4 * cov_p + 1.1 * cov_q)
    pairs, labels = [(*p, *q), (*q, *p), (*p, *r), (*r, *q), (*p, *p)], ["p‖q", "q‖p", "p‖r", "r‖q", "p‖p"]
    right = np.array([textbook(*pair) for pair in pairs])
    right[-1] = 0.0
    size = np.array([abs(textbook(*pair, weight=0, D=0)) + len(mean_p) for pair in pairs])
    condition = np.array([max(np.linalg.cond(S), np.linalg.cond(R)) for _, S, _, R in pairs]) * size
    tolerance, unit = by_entry(condition / (1 + np.abs(right)), right)
    return compare(
        "check_gaussian_kl",
        "(2)",
        "KL(N_p‖N_q)",
        [result(kl(*pair), "kl") for pair in pairs],
        right,
        tolerance,
        at_each(
            pairs,
            {
                "the arguments are swapped: it is KL(q‖p)": lambda m, S, n, R: textbook(n, R, m, S),
                "the ½ of the log-determinants is missing": lambda *pair: textbook(*pair, weight=1.0),
                "the log-determinants are missing": lambda *pair: textbook(*pair, weight=0.0),
                "the log-determinants have the wrong sign": lambda *pair: textbook(*pair, weight=-0.5),
                "the trace tr S_q⁻¹S_p is missing": lambda *pair: textbook(*pair, spread=0.0),
                "the difference of the means is missing": lambda *pair: textbook(*pair, shift=0.0),
                "the ½ of the difference of the means is missing": lambda *pair: textbook(*pair, shift=1.0),
                "the ½ is missing": lambda *pair: 2 * textbook(*pair),
                "D is not subtracted: −D is missing": lambda *pair: textbook(*pair, D=0),
                "1 stands where D belongs": lambda *pair: textbook(*pair) + 0.5 * (len(mean_p) - 1),
                "the distance of the means is not squared": lambda m, S, n, R: (
                    textbook(m, S, n, R, shift=0.0) + 0.5 * float(np.sqrt((m - n) @ np.linalg.inv(R) @ (m - n)))
                ),
                "the trace has the diagonals of S_q⁻¹ and S_p only": lambda m, S, n, R: (
                    textbook(m, S, n, R, spread=0.0) + 0.5 * float(np.diagonal(np.linalg.inv(R)) @ np.diagonal(S))
                ),
                "the covariances are read as precisions": by_precision,
                "the covariances are squared: they are read as standard deviations": lambda m, S, n, R: textbook(
                    m, S @ S, n, R @ R
                ),
                "S_q is not inverted": lambda m, S, n, R: (
                    textbook(m, S, n, R, shift=0.0, spread=0.0) + 0.5 * float(np.trace(R @ S) + (m - n) @ R @ (m - n))
                ),
                "the trace is tr S_p⁻¹S_q": lambda m, S, n, R: (
                    textbook(m, S, n, R, spread=0.0) + 0.5 * float(np.trace(np.linalg.inv(S) @ R))
                ),
                "it is divided by D: a mean over the dimensions": lambda *pair: textbook(*pair) / len(mean_p),
                "only the diagonals of the covariances are used": lambda m, S, n, R: textbook(
                    m, np.diag(np.diagonal(S)), n, np.diag(np.diagonal(R))
                ),
                "the difference of the means is weighted by S_p⁻¹": lambda m, S, n, R: (
                    textbook(m, S, n, R, shift=0.0) + 0.5 * float((m - n) @ np.linalg.inv(S) @ (m - n))
                ),
            },
        ),
        labels=lambda index: f"KL({labels[index[0]]})",
        unit=unit,
    )


def _diagonal_terms(mean: Array, variance: Array, log_variance: Array) -> Array:
    return 0.5 * (mean**2 + variance - 1 - log_variance)


# Mistakes in KL(N(μ, diag σ²)‖N(0, I)): terms (N, k) from μ and log σ².
DIAGONAL_KLS: dict[str, Callable[[Array, Array], Array]] = {
    "the ½ of the KL is missing": lambda m, v: 2 * _diagonal_terms(m, np.exp(v), v),
    "the KL is halved": lambda m, v: 0.5 * _diagonal_terms(m, np.exp(v), v),
    "the KL has the wrong sign": lambda m, v: -_diagonal_terms(m, np.exp(v), v),
    "σ stands where σ² belongs in the KL": lambda m, v: _diagonal_terms(m, np.exp(v / 2), v / 2),
    "log σ² is read as log σ in the KL": lambda m, v: _diagonal_terms(m, np.exp(2 * v), 2 * v),
    "log σ stands for log σ² in the KL": lambda m, v: _diagonal_terms(m, np.exp(v), v / 2),
    "(log σ)² stands for log σ² in the KL": lambda m, v: _diagonal_terms(m, np.exp(v), v**2 / 4),
    "(log σ²)² stands for log σ² in the KL": lambda m, v: _diagonal_terms(m, np.exp(v), v**2),
    "σ stands for σ² in the KL, beside log σ²": lambda m, v: _diagonal_terms(m, np.exp(v / 2), v),
    "σ⁴ stands for σ² in the KL, beside log σ²": lambda m, v: _diagonal_terms(m, np.exp(2 * v), v),
    "log σ² stands for σ² in the KL": lambda m, v: _diagonal_terms(m, v, v),
    "(log σ²)² stands for σ² in the KL": lambda m, v: _diagonal_terms(m, v**2, v),
    "log σ² is read as σ in the KL": lambda m, v: _diagonal_terms(m, v**2, np.log(v**2)),
    "the KL is reversed: it is KL(N(0, I)‖q)": lambda m, v: 0.5 * ((1 + m**2) * np.exp(-v) - 1 + v),
    "μ² is missing in the KL": lambda m, v: _diagonal_terms(0 * m, np.exp(v), v),
    "μ stands for μ² in the KL": lambda m, v: _diagonal_terms(0 * m, np.exp(v), v) + 0.5 * m,
    "σ² is missing in the KL": lambda m, v: _diagonal_terms(m, 0 * v, v),
    "log σ² is missing in the KL": lambda m, v: _diagonal_terms(m, np.exp(v), 0 * v),
    "log σ² is added, not subtracted, in the KL": lambda m, v: _diagonal_terms(m, np.exp(v), -v),
    "−1 is missing in the KL": lambda m, v: _diagonal_terms(m, np.exp(v) + 1, v),
}


@takes_arrays
def check_diagonal_kl(kl: Callable[..., ArrayLike], mean: Array, log_variance: Array) -> Check:
    """(7), (14): KL(N(μ, diag σ²)‖N(0, I)) of every row, by the expectation of the log-ratio.

    The log-ratio is a quadratic in z.  The two points μ ± σ of every dimension integrate it exactly.  A second call has
    other numbers.

    Parameters
    ----------
    kl : callable
        kl(mean, log_variance) → (N,), nats.
    mean, log_variance : (N, k)

    Returns
    -------
    Check
        Tolerance 5e-14, more if |log σ²| is large.
    """
    check_callable(kl, "kl(mean, log_variance)")
    if mean.shape != log_variance.shape or mean.ndim != 2 or mean.size == 0:
        raise ValueError(f"mean and log_variance must both be (N, k), got {mean.shape} and {log_variance.shape}")
    instances = [(mean, log_variance), (0.7 * mean + 0.2, 0.6 * log_variance - 0.3)]

    def terms(m: Array, log_v: Array) -> Array:
        std = np.exp(log_v / 2)
        return -0.5 * (log_v + 1) + 0.25 * ((m + std) ** 2 + (m - std) ** 2)

    mistakes: dict[str, Callable[..., ArrayLike]] = {
        "it is averaged over the latent dimensions, not summed": lambda m, v: terms(m, v).mean(axis=1),
        "it is averaged over the examples: one value per example is expected": lambda m, v: (
            terms(m, v).sum(axis=1).mean() * np.ones(len(m))
        ),
        "it is summed over the examples": lambda m, v: terms(m, v).sum() * np.ones(len(m)),
        **{text: lambda m, v, wrong=wrong: wrong(m, v).sum(axis=1) for text, wrong in DIAGONAL_KLS.items()},
        **{
            f"{text}; it is averaged over the latent dimensions": lambda m, v, wrong=wrong: wrong(m, v).mean(axis=1)
            for text, wrong in DIAGONAL_KLS.items()
        },
    }
    right = np.array([terms(*instance).sum(axis=1) for instance in instances])
    tolerance, unit = by_entry([1 + np.abs(log_v).max(axis=1) for _, log_v in instances], right)
    return compare(
        "check_diagonal_kl",
        "(14)",
        "KL(N(μ, σ²)‖N(0, I))",
        [result(kl(*instance), "kl") for instance in instances],
        right,
        tolerance,
        at_each(instances, mistakes),
        labels=lambda index: f"KL(N(μ, σ²)‖N(0, I)) of example {index[1]}",
        unit=unit,
    )


@takes_arrays
def check_bin_masses(
    log_mass: Callable[[Array, Array, float], ArrayLike], n_levels: int, means: Array, std: float
) -> Check:
    """The decoder of whole numbers: P(level) is a difference of Φ, open at both ends, and all P(level) sum to 1.

    Level k of 0..n_levels−1 stands at x_k = 2k/(n_levels−1) − 1.  The logarithms are compared as well, so that a bin
    far from the mean counts: there both Φ of the difference round to the same number.

    Parameters
    ----------
    log_mass : callable
        log_mass(level, mean, std) → log P(level), nats, elementwise, for levels (n_levels, 1) and means (1, M).
    n_levels : int
    means : (M,)
        Means of the Gaussian, on the scale of x_k.
    std : float
        Standard deviation of the Gaussian.

    Returns
    -------
    Check
        The largest of the residuals of the masses, their sums and their logarithms; tolerance 5e-14 for the first two,
        1e-12 for logarithms, more if std is small.
    """
    check_callable(log_mass, "log_mass(level, mean, std)")
    from scipy.special import erfcx, ndtr

    levels = np.arange(float(n_levels))[:, None]
    left = result(log_mass(levels, means[None, :], std), "log_mass")
    half = 1 / (n_levels - 1)
    centre = 2 * half * levels - 1

    def edges(width: float, open_ends: bool = True, only: str = "") -> tuple[Array, Array]:
        low, high = (centre - width - means) / std, (centre + width - means) / std
        if open_ends or only == "last closed":
            low[0] = -np.inf
        if open_ends or only == "first closed":
            high[-1] = np.inf
        return low, high

    def log_masses(low: Array, high: Array) -> Array:
        # Bins in the upper half are reflected.  exp(−a²/2) erfcx(a/√2)/2 = Φ(−a) keeps the digits of the tail.
        near, far = np.where(low > 0, low, -high), np.where(low > 0, high, -low)
        a = np.maximum(near, 0.0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rest = np.where(np.isinf(far), 0.0, np.exp(0.5 * (a - far) * (a + far)) * erfcx(far / 2**0.5))
            tail = -0.5 * a**2 + np.log(0.5 * (erfcx(a / 2**0.5) - rest))
            return np.where(near >= 0, tail, np.log(ndtr(high) - ndtr(low)))

    def clamped(logs: Array) -> Array:
        return np.maximum(logs, left[np.isfinite(left)].min(initial=0.0))

    density = -0.5 * ((centre - means) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    logs: dict[str, Callable[[], ArrayLike]] = {
        "they are a density, not masses: a continuous L_0 on whole numbers": lambda: density,
        "they are a density times the bin width": lambda: density + np.log(2 * half),
        "the first and the last bin are closed": lambda: log_masses(*edges(half, open_ends=False)),
        "the last bin is closed: its upper tail is not open": lambda: log_masses(*edges(half, False, "last closed")),
        "the first bin is closed: its lower tail is not open": lambda: log_masses(*edges(half, False, "first closed")),
        "the half-width is 1/n_levels, not 1/(n_levels − 1)": lambda: log_masses(*edges(1 / n_levels)),
        "the half-width is 1/n_levels, and the first and the last bin are closed": lambda: log_masses(
            *edges(1 / n_levels, open_ends=False)
        ),
        "the bins are twice as wide as their distance": lambda: log_masses(*edges(2 * half)),
        "std² stands where std belongs": lambda: log_masses(*(edge / std for edge in edges(half))),
        "std is read as a variance: its root is used": lambda: log_masses(*(edge * std**0.5 for edge in edges(half))),
        "the lower edge is missing: it is Φ of the upper edge": lambda: np.log(ndtr(edges(half)[1])),
        "the levels are in reverse order": lambda: right[::-1],
        "Φ is approximated by a logistic function": lambda: log_difference(lambda z: 1 / (1 + np.exp(-1.702 * z))),
        "Φ is approximated by a tanh": lambda: log_difference(
            lambda z: 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (z + 0.044715 * z**3)))
        ),
        "small masses are clamped to one number": lambda: clamped(right),
        "it is a difference of two Φ, and small masses are clamped to one number": lambda: clamped(
            log_difference(ndtr)
        ),
        "it is a difference of two Φ, which has no digits in the upper tail; reflect it into the lower one": (
            lambda: log_difference(ndtr)
        ),
    }

    def log_difference(cdf: Callable[[Array], Array]) -> Array:
        low, high = edges(half)
        return np.log(cdf(high) - cdf(low))

    right = log_masses(*edges(half))
    masses = through(np.exp, logs)
    name, condition = "check_bin_masses", (1 + np.abs(means) + 1) / std  # of each mean

    def label(quantity: str) -> Callable[[tuple[int, ...]], str]:
        return lambda index: f"{quantity} of level {index[0]} at the mean {means[index[1]]:.4g}"

    with np.errstate(over="ignore"):
        given = np.exp(left)
    tolerance, unit = by_entry(condition, np.exp(right))
    for_sums, unit_of_sums = by_entry(condition * n_levels, np.ones(len(means)))
    for_logs, unit_of_logs = by_entry(condition + 1 / half, right, 1e-12)
    checks = [
        compare(
            name,
            "(21)",
            "P(level)",
            given,
            np.exp(right),
            tolerance,
            masses,
            labels=label("P(level)"),
            unit=unit,
        ),
        compare(
            name,
            "(21)",
            "Σ P(level)",
            given.sum(axis=0),
            np.ones(len(means)),
            for_sums,
            unit=unit_of_sums,
        ),
    ]
    if not all(checks):
        return worst(*checks)
    return worst(
        *checks,
        compare(
            name,
            "(21)",
            "log P(level)",
            left,
            right,
            for_logs,
            logs,
            labels=label("log P(level)"),
            unit=unit_of_logs,
        ),
    )


@takes_arrays
def check_bits_per_dim(
    bits_per_dim: Callable[[Array, int, float], ArrayLike], masses: Array, dimension: int, scale: float
) -> Check:
    """Bits per dimension, −log₂ P(k)/D, from a density of y = scale · (k + u) that is constant on every cell.

    Parameters
    ----------
    bits_per_dim : callable
        bits_per_dim(nats, dimension, scale) → bits per dimension, where nats is −log of the density of y.
    masses : (K,)
        P(k), positive, K >= 2, with different values.
    dimension : int
        D.
    scale : float
        Length of a cell along every axis.

    Returns
    -------
    Check
        Tolerance 5e-14.
    """
    check_callable(bits_per_dim, "bits_per_dim(nats, dimension, scale)")
    nats = dimension * np.log(scale) - np.log(masses)
    return compare(
        "check_bits_per_dim",
        "(21)",
        "bits per dimension",
        bits_per_dim(nats, dimension, scale),
        -np.log2(masses) / dimension,
        rounding(1 + np.abs(np.log(scale))),
        {
            "the change of units is missing": lambda: nats / (dimension * np.log(2)),
            "the change of units has the wrong sign": lambda: nats / (dimension * np.log(2)) + np.log2(scale),
            "log₂ scale is counted once, not in every dimension": lambda: (
                nats / (dimension * np.log(2)) - np.log2(scale) / dimension
            ),
            "log scale is taken in nats, beside bits": lambda: nats / (dimension * np.log(2)) - np.log(scale),
            "log 2 multiplies, where it should divide": lambda: -np.log(masses) * np.log(2) / dimension,
            **{
                f"{bits} bits are added, whatever the scale": lambda bits=bits: nats / (dimension * np.log(2)) + bits  # type: ignore[misc]
                for bits in (7, 8)
            },
            "it is in nats": lambda: -np.log(masses) / dimension,
            "ln 2 is missing": lambda: nats / dimension - np.log2(scale),
            "it is not divided by D": lambda: -np.log2(masses),
        },
    )
