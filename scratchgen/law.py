"""Law: a distribution of data with known diffused laws.  SmoothLaw: its score, and expectations by quadrature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np

from scratchgen.validation import (
    LARGEST,
    RNG,
    Array,
    ArrayLike,
    as_arrays,
    as_number,
    as_real,
    check_callable,
    check_type,
)

FINE = 0.15  # spacing of `quadrature` for logarithms and scores, which have complex poles
BLOCK = 2**16  # points at a time
MOST_NODES = 10_000_000  # of `quadrature`, 160 MB in two dimensions


class Law(ABC):
    """A distribution of data in D dimensions whose diffused laws are known, so that models of it can be graded."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """D, the number of coordinates of x."""

    @abstractmethod
    def log_prob(self, x: Array) -> Array:
        """log p(x), (N,), nats, for x (N, D)."""

    @abstractmethod
    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n points, (n, D)."""

    @abstractmethod
    def mean(self) -> Array:
        """E x, (D,)."""

    @abstractmethod
    def covariance(self) -> Array:
        """Cov x, (D, D)."""

    @abstractmethod
    def entropy(self) -> float:
        """H(p) = −E log p, nats."""

    @abstractmethod
    def diffuse(self, scale: float, std: float) -> SmoothLaw:
        """The law of scale · x + std · ε, ε ~ N(0, I): p_t of (25) for scale = ᾱ_t, std = β̄_t."""

    @abstractmethod
    def standardized(self, mean: ArrayLike, scale: ArrayLike) -> Law:
        """The law of (x − mean)/scale, for a mean and a positive scale of every column, (D,) each."""


class SmoothLaw(Law):
    """A law with a smooth density: it has a score, and expectations under it are quadratures."""

    @property
    @abstractmethod
    def detail(self) -> float:
        """Size of the narrowest feature of the density, in units of x."""

    def detail_within(self, low: Array, high: Array, width: float) -> float:
        """`detail` within a box; `width` standard deviations of a component that reaches into it count as in it."""
        return self.detail

    @abstractmethod
    def score(self, x: Array) -> Array:
        """Score ∇ log p(x), (N, D), for x (N, D)."""

    @abstractmethod
    def axes(self, spacing: float, width: float, law: SmoothLaw | None) -> list[tuple[Array, Array]]:
        """Nodes (M_d,) and weights (M_d,) of a quadrature rule along every axis, see `quadrature`."""

    def on_grid(self, *axes: Array) -> tuple[Array, Array]:
        """Density p, (M,), and its gradient ∇p, (M, D), on the product grid of an axis for every column.

        The last axis runs fastest.  A density below 1e-140 may be returned as 0.
        """
        x = product(*axes)
        density = np.exp(self.log_prob(x))
        return density, density[:, None] * self.score(x)

    def density_on_grid(self, *axes: Array) -> Array:
        """Density p, (M,), on the product grid, as by `on_grid`."""
        return self.on_grid(*axes)[0]

    def quadrature(self, spacing: float = 0.5, width: float = 9.0, law: SmoothLaw | None = None) -> tuple[Array, Array]:
        """Nodes and weights of the trapezoid rule for integrals of smooth functions, in one or two dimensions.

        Parameters
        ----------
        spacing : float
            Distance of nodes, in units of `detail`.  For the density itself the error is of order exp(−2π²/spacing²),
            and 0.5 is exact to rounding.  Scores and logarithms have complex poles near the line between two means and
            need a smaller spacing: measured errors for mixtures were 1e-4 at 0.5 and 1e-11 at 0.15.
        width : float
            The box reaches this many standard deviations beyond every mean.
        law : SmoothLaw, optional
            Another law in the integrand.  The nodes then resolve its details too, where they lie in the box.

        Returns
        -------
        points : (M, D)
        weights : (M,)
            Σ weights · f(points) ≈ ∫ f(x) dx.

        Raises
        ------
        TypeError, ValueError
            If D > 2, law has another dimension, or spacing or width is not a positive number.
        ArithmeticError
            If the box needs more than 10 million nodes.
        """
        axes = self._checked_axes(spacing, width, law)
        return product(*(nodes for nodes, _ in axes)), product(*(weights for _, weights in axes)).prod(axis=1)

    def _checked_axes(self, spacing: float, width: float, law: SmoothLaw | None) -> list[tuple[Array, Array]]:
        """`axes`, with the errors of `quadrature`."""
        if law is not None:
            check_type(law, SmoothLaw, "law", "pass a Mixture")
        if self.dimension > 2:
            raise ValueError(f"quadrature needs 1 or 2 dimensions, got {self.dimension}; sample instead")
        if law is not None and law.dimension != self.dimension:
            raise ValueError(f"law must have {self.dimension} dimensions, as this law, got {law.dimension}")
        spacing = as_number(spacing, "spacing", low=0.0, high=LARGEST, open_low=True)
        return self.axes(spacing, as_number(width, "width", low=0.0, high=LARGEST, open_low=True), law)

    def nodes(
        self, spacing: float, law: SmoothLaw | None = None, least: float = 0.0, with_score: bool = True
    ) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Nodes of `quadrature` in blocks: x (n, D), mass p(x) · weight (n,), density p (n,) and score (n, D).

        Nodes with a mass of at most `least` are left out.  Without `with_score` the score is (n, 0).
        """
        (first, first_weights), *rest = self._checked_axes(spacing, 9.0, law)
        others, weights = (
            [nodes for nodes, _ in rest],
            product(*(w for _, w in rest)).prod(axis=1) if rest else np.ones(1),
        )
        rows = max(BLOCK // len(weights), 1)
        for start in range(0, len(first), rows):
            block = first[start : start + rows]
            if with_score:
                density, gradient = self.on_grid(block, *others)
            else:
                density = self.density_on_grid(block, *others)
                gradient = np.empty((len(density), 0))
            mass = density * np.multiply.outer(first_weights[start : start + rows], weights).ravel()
            seen = mass > least
            p = density[seen]
            yield product(block, *others)[seen], mass[seen], p, gradient[seen] / p[:, None]

    def expectation(
        self, f: Callable[[Array], Array], spacing: float = 2 * FINE, rtol: float = 1e-5, law: SmoothLaw | None = None
    ) -> Array:
        """E_p f(x), (n,), by quadrature with a spacing that is halved until two results agree.

        The error of the trapezoid rule falls exponentially, so that the error of the last result is far smaller than
        the difference of the last two.  A feature of f between the nodes of both is not seen: pass the `law` that has
        it.

        Parameters
        ----------
        f : callable
            From x (M, D) to (M, n).
        spacing, law
            As for `quadrature`; the first spacing.
        rtol : float
            Largest difference of the last two results, as a fraction of E|f|.

        Raises
        ------
        ValueError
            As for `quadrature`.
        ArithmeticError
            If f is NaN, or the results do not agree with 10 million nodes.
        """
        check_callable(f, "f", "x (M, D) → (M, n)")

        def value(x: Array, density: Array, score: Array) -> Array:
            return as_arrays("f (M, n)", f(x), M=len(x))

        return self.integrate(value, spacing, rtol, law, with_score=False)

    def integrate(
        self,
        f: Callable[[Array, Array, Array], Array],
        spacing: float,
        rtol: float,
        law: SmoothLaw | None = None,
        least: float = 0.0,
        with_score: bool = True,
    ) -> Array:
        """`expectation` of a function of x (M, D), density p(x) (M,) and score (M, D), without nodes of little mass.

        Parameters
        ----------
        f : callable
            From x, p(x) and ∇log p(x) to (M, n).
        spacing, rtol, law
            As for `expectation`, with its errors.
        least : float
            Largest mass of a node that is left out.
        with_score : bool
            Compute the score; otherwise f gets one of shape (M, 0).
        """
        rtol, least = as_number(rtol, "rtol", low=0.0), as_number(least, "least", low=0.0)
        before: Array | None = None
        while True:
            total, size = np.zeros(()), np.zeros(())
            for x, mass, density, score in self.nodes(spacing, law, least, with_score):
                if len(x):
                    terms = mass[:, None] * f(x, density, score)
                    total, size = total + terms.sum(axis=0), size + np.abs(terms).sum(axis=0)
            if np.isnan(total).any():
                raise ArithmeticError(f"f must be a number at every point, but its expectation is {total}")
            if np.isinf(total).any() or (before is not None and (np.abs(total - before) <= rtol * size + 1e-13).all()):
                return total
            before, spacing = total, 0.5 * spacing

    def kl(self, q: SmoothLaw | Callable[[Array], Array]) -> float:
        """KL(p‖q) of any density q, nats, by quadrature in one or two dimensions, to about 1e-9 of 1 + E|log p/q|.

        Parameters
        ----------
        q : Mixture or callable
            q, or log q from x (M, D) to (M,), nats.  For a mixture the nodes resolve the components of both.  Nothing
            is known of a callable: a feature of log q that is narrower than a tenth of p's narrowest component may lie
            between the nodes.

        Raises
        ------
        TypeError
            If q is neither a mixture nor callable.
        ValueError
            If D > 2, q is a mixture of another dimension, or log q has another shape than (M,).
        ArithmeticError
            If log q is NaN, or 10 million nodes do not suffice.
        """
        if isinstance(q, type) or not (isinstance(q, SmoothLaw) or callable(q)):
            raise TypeError(f"q must be a Mixture or a function log q(x), (M, D) → (M,), got {type(q).__name__}")
        law = q if isinstance(q, SmoothLaw) else None

        def log_ratio(x: Array, density: Array, score: Array) -> Array:
            log_q = q.log_prob(x) if isinstance(q, SmoothLaw) else as_real(q(x), "q")
            if log_q.shape != (len(x),):
                raise ValueError(f"q must return log q(x) of shape ({len(x)},) for x {x.shape}, got {log_q.shape}")
            return (np.log(density) - log_q)[:, None]

        return float(self.integrate(log_ratio, 2 * FINE, 1e-5, law, with_score=False)[0])

    def entropy(self) -> float:
        """H(p) = −E log p, nats, by quadrature in one or two dimensions; ValueError for D > 2."""
        return -self.kl(lambda x: np.zeros(len(x)))  # E log p/1


def product(*axes: Array) -> Array:
    """Points of the product grid of n axes, (M, n); the last axis runs fastest."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def inverse(u: Callable[[Array], Array], values: Array, low: float, high: float) -> Array:
    """x in [low, high] with u(x) = values for a rising function u, by bisection."""
    a, b = np.full(len(values), low), np.full(len(values), high)
    for _ in range(60):
        x = (a + b) / 2
        below = u(x) < values
        a, b = np.where(below, x, a), np.where(below, b, x)
    return x
