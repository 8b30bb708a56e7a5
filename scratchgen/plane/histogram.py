"""A piecewise constant density in the plane, and its diffused laws."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scratchgen.blocks import by_blocks
from scratchgen.law import MOST_NODES, Law, SmoothLaw, inverse
from scratchgen.likelihood import LOG_2PI, logsumexp, quiet_log
from scratchgen.validation import (
    LARGEST,
    RNG,
    SMALLEST,
    Array,
    ArrayLike,
    as_count,
    as_finite,
    as_generator,
    as_number,
    as_samples,
    as_units,
    freeze,
)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Histogram(Law):
    """A density that is constant on every cell of a rectangular grid, and 0 outside the grid.

    Parameters
    ----------
    edges_1, edges_2 : array_like, (n_1 + 1,), (n_2 + 1,)
        Rising edges of the cells along x_1 and x_2.
    weights : array_like, (n_1, n_2)
        Probabilities of the cells, non-negative, with sum 1 to within 1e-6; they are divided by their sum.

    Raises
    ------
    ValueError
        If edges do not rise, shapes disagree, or weights are not probabilities.
    """

    edges: tuple[Array, Array]
    weights: Array = field(init=False)

    def __init__(self, edges_1: ArrayLike, edges_2: ArrayLike, weights: ArrayLike) -> None:
        edges = tuple(as_finite(e, name).astype(np.float64) for e, name in ((edges_1, "edges_1"), (edges_2, "edges_2")))
        weights = as_finite(weights, "weights").astype(np.float64)
        for name, e in zip(("edges_1", "edges_2"), edges, strict=True):
            if e.ndim != 1 or len(e) < 2 or not (np.diff(e) > 0).all():
                raise ValueError(f"{name} must be two or more rising numbers, got {e!r:.60}")
        cells = len(edges[0]) - 1, len(edges[1]) - 1
        if weights.shape != cells:
            raise ValueError(
                f"weights must have the shape {cells} of the cells of edges_1 and edges_2, got {weights.shape}"
            )
        if weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(
                f"weights must be non-negative and sum to 1, got the least {weights.min():g} and the sum "
                f"{weights.sum():g}; divide them by their sum"
            )
        freeze(self, weights=weights / weights.sum())
        object.__setattr__(self, "edges", edges)

    def __repr__(self) -> str:
        return "Histogram({} x {} cells)".format(*self.weights.shape)

    @property
    def dimension(self) -> int:
        """2."""
        return 2

    @property
    def log_densities(self) -> Array:
        """Logarithm of the density in every cell, (n_1, n_2), nats."""
        return quiet_log(self.weights / np.multiply.outer(*map(np.diff, self.edges)))

    def log_prob(self, x: Array) -> Array:
        """log p(x), (N,), nats, for x (N, 2); −inf outside the cells.  A cell has its lower edges, not its upper."""
        x = as_samples(x, dimension=2, model="the histogram")
        i, j = (np.searchsorted(e, column, side="right") for e, column in zip(self.edges, x.T, strict=True))
        return np.pad(self.log_densities, 1, constant_values=-np.inf)[i, j]

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n points, (n, 2)."""
        rng, n = as_generator(rng), as_count(n, "n", minimum=0)
        cells = np.stack(
            np.divmod(rng.choice(self.weights.size, size=n, p=self.weights.ravel()), self.weights.shape[1])
        )
        low = np.stack([e[cell] for e, cell in zip(self.edges, cells, strict=True)], axis=1)
        high = np.stack([e[cell + 1] for e, cell in zip(self.edges, cells, strict=True)], axis=1)
        return np.minimum(low + (high - low) * rng.random((n, 2)), np.nextafter(high, low))

    def mean(self) -> Array:
        """E x, (2,)."""
        return np.array([(self.weights.sum(axis=1 - d) @ _centres(e)) for d, e in enumerate(self.edges)])

    def covariance(self) -> Array:
        """Cov x, (2, 2)."""
        within = [self.weights.sum(axis=1 - d) @ np.diff(e) ** 2 / 12 for d, e in enumerate(self.edges)]
        a, b = (_centres(e) - m for e, m in zip(self.edges, self.mean(), strict=True))
        mixed = a @ self.weights @ b
        squares = np.array([self.weights.sum(axis=1) @ a**2, self.weights.sum(axis=0) @ b**2])
        return np.diag(squares + within) + np.array([[0.0, mixed], [mixed, 0.0]])

    def entropy(self) -> float:
        """H(p), nats."""
        seen = self.weights > 0
        return -float(self.weights[seen] @ self.log_densities[seen])

    def diffuse(self, scale: float, std: float) -> BlurredHistogram:
        """The law of scale · x + std · ε, ε ~ N(0, I).

        Raises
        ------
        TypeError, ValueError
            If scale is not in [1e-60, 1e60], or std is not in [1e-60, 1e60].
        """
        scale, std = (
            as_number(scale, "scale", low=SMALLEST, high=LARGEST),
            as_number(std, "std", low=SMALLEST, high=LARGEST),
        )
        return BlurredHistogram(self.standardized(np.zeros(2), np.full(2, 1 / scale)), np.full(2, std))

    def standardized(self, mean: ArrayLike, scale: ArrayLike) -> Histogram:
        """The law of (x − mean)/scale, for a mean and a positive scale of every column, (2,) each."""
        mean, scale = as_units(mean, scale, 2)
        edges_1, edges_2 = ((e - m) / s for e, m, s in zip(self.edges, mean, scale, strict=True))
        return Histogram(edges_1, edges_2, self.weights)


def _centres(edges: Array) -> Array:
    return (edges[1:] + edges[:-1]) / 2


LAYER = 3.0  # half width, in standard deviations of the noise, of the layer of fine nodes around an edge
COARSE = 0.3  # spacing in the middle of a cell, in units of the narrowest cell, for the spacing 1
NARROW = 0.5  # change of log φ and of z across a cell below which a difference of Φ would cancel


@dataclass(frozen=True, eq=False, repr=False)
class BlurredHistogram(SmoothLaw):
    """The law of x + std · ε for x from a histogram and ε ~ N(0, I): a sum of products of differences of Φ.

        p(x) = Σ_ij w_ij f_i(x_1) g_j(x_2),   f_i(x) = (Φ((b_i − x)/std_1) − Φ((a_i − x)/std_1))/(b_i − a_i)

    Parameters
    ----------
    histogram : Histogram
    std : (2,)
        Standard deviation of the noise in every column.
    """

    histogram: Histogram
    std: Array

    def __repr__(self) -> str:
        return f"BlurredHistogram({self.histogram!r}, std {self.std})"

    @property
    def dimension(self) -> int:
        """2."""
        return 2

    @property
    def detail(self) -> float:
        """Width of the edges, the smaller standard deviation of the noise."""
        return float(self.std.min())

    def _cells(self, x: Array) -> tuple[Array, list[Array]]:
        """log w_ij f_i(x_1) g_j(x_2), (N, n_1, n_2), and E[y_d − x_d | x, cell]/std_d², (N, n_d), of the clean y."""
        x = as_samples(x, dimension=2, model="the histogram")
        logs, pulls = zip(
            *(_blurred_cells(x[:, d], self.histogram.edges[d], float(self.std[d])) for d in range(2)), strict=True
        )
        return quiet_log(self.histogram.weights) + logs[0][:, :, None] + logs[1][:, None, :], list(pulls)

    def log_prob(self, x: Array) -> Array:
        """log p(x), (N,), nats, for x (N, 2)."""
        x = as_samples(x, dimension=2, model="the histogram")

        def log_prob(rows: slice) -> Array:
            log_joint, _ = self._cells(x[rows])
            return logsumexp(log_joint.reshape(len(log_joint), -1))

        return by_blocks(log_prob, len(x), 4 * self.histogram.weights.size)

    def score(self, x: Array) -> Array:
        """Score ∇ log p(x), (N, 2), for x (N, 2)."""
        x = as_samples(x, dimension=2, model="the histogram")

        def score(rows: slice) -> Array:
            log_joint, pulls = self._cells(x[rows])
            flat = log_joint.reshape(len(log_joint), -1)
            posterior = np.exp(log_joint - logsumexp(flat)[:, None, None])
            return np.stack([(posterior.sum(axis=2 - d) * pulls[d]).sum(axis=1) for d in range(2)], axis=1)

        return by_blocks(score, len(x), 4 * self.histogram.weights.size)

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n points, (n, 2)."""
        rng = as_generator(rng)
        x = self.histogram.sample(n, rng)
        return x + self.std * rng.standard_normal(x.shape)

    def mean(self) -> Array:
        """E x, (2,)."""
        return self.histogram.mean()

    def covariance(self) -> Array:
        """Cov x, (2, 2)."""
        return self.histogram.covariance() + np.diag(self.std**2)

    def diffuse(self, scale: float, std: float) -> BlurredHistogram:
        """The law of scale · x + std · ε, ε ~ N(0, I); scale is in [1e-60, 1e60], and std in [0, 1e60]."""
        scale, std = as_number(scale, "scale", low=SMALLEST, high=LARGEST), as_number(std, "std", low=0.0, high=LARGEST)
        cells = self.histogram.standardized(np.zeros(2), np.full(2, 1 / scale))
        return BlurredHistogram(cells, np.hypot(scale * self.std, std))

    def standardized(self, mean: ArrayLike, scale: ArrayLike) -> BlurredHistogram:
        """The law of (x − mean)/scale, for a mean and a positive scale of every column, (2,) each."""
        mean, scale = as_units(mean, scale, 2)
        return BlurredHistogram(self.histogram.standardized(mean, scale), self.std / scale)

    def axes(self, spacing: float, width: float, law: SmoothLaw | None) -> list[tuple[Array, Array]]:
        """Fine nodes at the edges and coarse ones between.

        The nodes x of an axis are evenly spaced in u(x) = x/h + Σ_e c_e LAYER · arctan((x − e)/(LAYER · std)), a sum
        over the edges e: their distance is about `spacing` · std at an edge and `spacing` · h far from every edge, with
        h = COARSE times the narrowest cell.  u is analytic, so that the rule keeps the exponential convergence of the
        trapezoid rule.
        """
        low, high = (
            np.array([e[k] + side * width * s for e, s in zip(self.histogram.edges, self.std, strict=True)])
            for k, side in ((0, -1), (-1, 1))
        )
        other = np.inf if law is None else law.detail_within(low, high, width)
        axes = []
        for d in range(2):
            e, s = self.histogram.edges[d], float(self.std[d])
            h = min(COARSE * float(np.diff(e).min()) + s, other)
            if not (high[d] - low[d]) / (spacing * h) < MOST_NODES**0.5:
                raise ArithmeticError(
                    f"quadrature needs more than {MOST_NODES:,} nodes; raise spacing, or sample instead"
                )
            axes.append(_graded(low[d], high[d], e, s, h, spacing))
        return axes

    def on_grid(self, *axes: Array) -> tuple[Array, Array]:
        """Density and gradient on a product grid by products of matrices."""
        logs, pulls = zip(
            *(_blurred_cells(*given) for given in zip(axes, self.histogram.edges, self.std.tolist(), strict=True)),
            strict=True,
        )
        (f, g), (df, dg) = [np.exp(log_f) for log_f in logs], [np.exp(a) * b for a, b in zip(logs, pulls, strict=True)]
        f, df = f @ self.histogram.weights, df @ self.histogram.weights
        return (f @ g.T).ravel(), np.stack([df @ g.T, f @ dg.T], axis=-1).reshape(-1, 2)


def _blurred_cells(x: Array, edges: Array, std: float) -> tuple[Array, Array]:
    """log f_i(x) and E[y − x | x, y in cell i]/std², (N, n) each, for y uniform on a cell and x = y + std · ε."""
    z = (edges - x[:, None]) / std
    low, high = z[:, :-1], z[:, 1:]
    narrow = (high - low) * (1 + np.abs(high + low) / 2) < NARROW
    log_mass, pull = np.empty(low.shape), np.empty(low.shape)
    for cells, integrals in ((narrow, _narrow_cells), (~narrow, _wide_cells)):
        log_mass[cells], pull[cells] = integrals(low[cells], high[cells])
    return log_mass - np.log(np.diff(edges)), pull / std


def _narrow_cells(low: Array, high: Array) -> tuple[Array, Array]:
    """log ∫φ and ∫zφ/∫φ between low and high, (n,), by Gauss-Legendre; the difference of two Φ would cancel."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = (high - low) / 2
    z = ((high + low) / 2)[:, None] + half[:, None] * nodes
    log_terms = np.log(weights) - 0.5 * z**2
    log_sum = logsumexp(log_terms)
    return log_sum + np.log(half) - 0.5 * LOG_2PI, (np.exp(log_terms - log_sum[:, None]) * z).sum(axis=1)


def _wide_cells(low: Array, high: Array) -> tuple[Array, Array]:
    """log ∫φ and ∫zφ/∫φ between low and high, (n,), by log Φ; cells above 0 are reflected, since 1 − Φ would cancel."""
    from scipy.special import log_ndtr  # SciPy takes long to import

    above = low > 0
    low, high = np.where(above, -high, low), np.where(above, -low, high)
    log_low, log_high = log_ndtr(low), log_ndtr(high)
    log_mass = log_high + np.log1p(-np.exp(log_low - log_high))
    pull = np.exp(-0.5 * (low**2 + LOG_2PI) - log_mass) - np.exp(-0.5 * (high**2 + LOG_2PI) - log_mass)
    return log_mass, np.where(above, -pull, pull)


def _graded(low: float, high: float, edges: Array, std: float, coarse: float, spacing: float) -> tuple[Array, Array]:
    """Nodes and weights of the trapezoid rule in u(x) = x/coarse + Σ_e c_e LAYER arctan((x − e)/(LAYER std)).

    c_e is 1 for edges far apart; n edges that are closer than std share one layer, c_e = 1/n.
    """
    shares = 1 / (1 / (1 + ((edges - edges[:, None]) / (LAYER * std)) ** 2)).sum(axis=0)

    def u(x: Array) -> Array:
        return (x / coarse + LAYER * np.arctan((x[:, None] - edges) / (LAYER * std)) @ shares) / spacing

    def slope(x: Array) -> Array:
        return 1 / coarse + (1 / (1 + ((x[:, None] - edges) / (LAYER * std)) ** 2)) @ shares / std

    first, last = u(np.array([low, high]))
    x = inverse(u, np.arange(np.ceil(first), last), low, high)
    return x, spacing / slope(x)
