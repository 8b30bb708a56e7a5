"""The pinwheel, whose diffused laws are mixtures of many Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product as product_of

import numpy as np

from scratchgen.blocks import by_blocks
from scratchgen.law import Law, inverse
from scratchgen.likelihood import LOG_2PI
from scratchgen.mixture import Mixture
from scratchgen.validation import (
    LARGEST,
    RNG,
    SMALLEST,
    Array,
    ArrayLike,
    as_count,
    as_generator,
    as_number,
    as_samples,
    as_units,
)

FARTHEST = 8.0  # standard deviations of r beyond which an arm is cut off; the mass there is 1e-15
NODE = 0.9  # distance of needles, in standard deviations of the noise; the error of the density is about 1e-10
THICK = 5.0  # tangential_std within which neighbouring needles keep that distance
TILE = 12  # nodes a side of a tile of a grid
NEAR = 9.0  # standard deviations beyond which a diffused needle counts as 0 on a grid
MOST_NEEDLES = 100_000
MOST_RADIANS = 10_000  # of the bend of an arm
SCANNED = 20  # points a radian at which the zeros of `_distance` are looked for


@dataclass(frozen=True)
class Pinwheel(Law):
    """Arms of a wheel that are bent: x = R(2πk/n_arms + rate · exp(r)) (r, s).

    r ~ N(1, radial_std²), s ~ N(0, tangential_std²), k is uniform on 0..n_arms−1, and R(φ) is the rotation by φ.
    Given k and r the point lies on a line, with a normal distribution; such a line is a needle here.  Diffused needles
    are Gaussians, so that the diffused law is a mixture of Gaussians, with an integral over r.

    Parameters
    ----------
    n_arms : int
        At least 2, since the mean of a single arm is not 0.
    radial_std, tangential_std : float
        Length and thickness of an arm.
    rate : float
        Bend of the arms, in radians; 0 for straight arms, negative to bend them clockwise.
    origin, unit : two numbers
        The law is that of (x − origin)/unit.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, or an arm is bent by 10,000 radians or more.
    """

    n_arms: int = 5
    radial_std: float = 0.3
    tangential_std: float = 0.1
    rate: float = 0.25
    origin: tuple[float, float] = (0.0, 0.0)
    unit: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        as_count(self.n_arms, "n_arms", minimum=2)
        as_number(self.radial_std, "radial_std", low=SMALLEST, high=80.0)  # exp(1 + 8 radial_std) is a float
        as_number(self.tangential_std, "tangential_std", low=SMALLEST, high=LARGEST)
        as_number(self.rate, "rate", low=-LARGEST, high=LARGEST)
        as_units(self.origin, self.unit, 2)
        with np.errstate(over="ignore"):
            turns = abs(self.rate) * np.exp(self._reach[1])
        if not turns < MOST_RADIANS:
            raise ValueError(
                f"rate must bend an arm by less than {MOST_RADIANS:,} radians within {FARTHEST:g} radial_std, got "
                f"{self.rate}, which bends it by {turns:.3g}; lower rate or radial_std"
            )

    @property
    def dimension(self) -> int:
        """2."""
        return 2

    @property
    def _reach(self) -> tuple[float, float]:
        """Least and largest r of an arm."""
        return 1 - FARTHEST * self.radial_std, 1 + FARTHEST * self.radial_std

    def _axes(self, arm: Array | float, r: Array) -> tuple[Array, Array]:
        """Unit vectors of r and of s, (..., 2) each, at r on an arm."""
        angle = 2 * np.pi * arm / self.n_arms + self.rate * np.exp(r)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)

    def sample(self, n: int, rng: RNG = None) -> Array:
        """Draw n points, (n, 2)."""
        rng, n = as_generator(rng), as_count(n, "n", minimum=0)
        arm = rng.integers(self.n_arms, size=n)
        r, s = 1 + self.radial_std * rng.standard_normal(n), self.tangential_std * rng.standard_normal(n)
        along, across = self._axes(arm, r)
        return (r[:, None] * along + s[:, None] * across - self.origin) / self.unit

    def log_prob(self, x: Array) -> Array:
        """log p(x), (N,), nats, for x (N, 2): a sum over the needles through x.

            p(x) = Σ_k Σ_r N(r; 1, radial_std²) N(s; 0, tangential_std²)/(n_arms |1 − rate exp(r) s|)

        r and s solve x = R (r, s); r is a zero of the distance of the needle from x, and the divisor is the derivative
        of this distance.
        """
        x = as_samples(x, dimension=2, model="the pinwheel") * self.unit + self.origin
        low, high = self._reach
        turns = abs(self.rate) * np.exp(high)
        grid = np.linspace(low, high, 100 + int(SCANNED * turns))
        along, _ = self._axes(np.arange(self.n_arms)[:, None], grid)
        log_volume = float(np.log(self.unit).sum())
        return by_blocks(lambda rows: self._log_prob(x[rows], grid, along) + log_volume, len(x), along.size)

    def _log_prob(self, x: Array, grid: Array, along: Array) -> Array:
        """log p without units for x (N, 2); r is looked for between the points of the grid, with directions `along`."""
        distance = np.einsum("nd,krd->nkr", x, along) - grid
        n, k, i = np.nonzero((distance[..., 1:] > 0) != (distance[..., :-1] > 0))
        low, high, rising = grid[i], grid[i + 1], distance[n, k, i + 1] > 0
        for _ in range(50):  # bisection
            r = (low + high) / 2
            above = ((x[n] * self._axes(k, r)[0]).sum(axis=1) > r) == rising
            low, high = np.where(above, low, r), np.where(above, r, high)
        r = (low + high) / 2
        s = (x[n] * self._axes(k, r)[1]).sum(axis=1)
        squares = ((r - 1) / self.radial_std) ** 2 + (s / self.tangential_std) ** 2
        log_terms = -0.5 * squares - LOG_2PI - np.log(self.n_arms * self.radial_std * self.tangential_std)
        log_prob = np.full(len(x), -np.inf)
        np.logaddexp.at(log_prob, n, log_terms - np.log(np.abs(1 - self.rate * np.exp(r) * s)))
        return log_prob

    def mean(self) -> Array:
        """E x, (2,)."""
        return -np.array(self.origin) / self.unit

    def covariance(self) -> Array:
        """Cov x, (2, 2)."""
        law = self.diffuse(1.0, 0.1 * min(self.unit))  # any noise, which is then subtracted
        return law.covariance() - 0.01 * min(self.unit) ** 2 * np.eye(2)

    def entropy(self) -> float:
        """H(p) = −E log p, nats, by quadrature over r and s; the arms are alike."""
        z = np.linspace(-FARTHEST, FARTHEST, 129)[1:-1]
        weights = np.exp(-0.5 * z**2)
        weights /= weights.sum()
        along, across = self._axes(0, 1 + self.radial_std * z)
        r, s = (1 + self.radial_std * z)[:, None, None], (self.tangential_std * z)[None, :, None]
        x = (r * along[:, None] + s * across[:, None]).reshape(-1, 2)
        log_prob = self.log_prob((x - self.origin) / self.unit)
        return -float(np.multiply.outer(weights, weights).ravel() @ log_prob)

    def diffuse(self, scale: float, std: float) -> Needles:
        """The law of scale · x + std · ε, ε ~ N(0, I), as a mixture of diffused needles at nodes of r.

        The nodes are evenly spaced in a function of r, so that the distance of two neighbouring needles is at most NODE
        standard deviations of the noise within THICK tangential_std of the arm.  The trapezoid rule over these nodes
        then has a relative error of about 1e-9.

        Raises
        ------
        TypeError, ValueError
            If scale or std is not in [1e-60, 1e60].
        ArithmeticError
            If more than 100,000 needles are needed.
        """
        scale = as_number(scale, "scale", low=SMALLEST, high=LARGEST)
        std = as_number(std, "std", low=SMALLEST, high=LARGEST)
        unit, (low, high) = np.array(self.unit), self._reach
        noise = std / scale * unit.min()
        turning = THICK * self.tangential_std * abs(self.rate) / noise
        sliding = abs(self.rate) / np.hypot(self.tangential_std, noise)

        def density_of_nodes(r: Array) -> Array:
            slide = sliding * 0.5 * (1 + r**2) * np.exp(r)  # a needle slides along itself by |r| exp(r) |rate|
            return (1 / noise + 1 / self.radial_std + turning * np.exp(r) + slide) / NODE

        def nodes_below(r: Array) -> Array:
            slid = sliding * 0.5 * (r**2 - 2 * r + 3) * np.exp(r)
            return ((1 / noise + 1 / self.radial_std) * r + turning * np.exp(r) + slid) / NODE

        first, last = nodes_below(np.array([low, high]))
        if not (last - first) * self.n_arms < MOST_NEEDLES:
            raise ArithmeticError(f"std must leave noise that {MOST_NEEDLES:,} needles resolve, got {std}; raise std")
        r = inverse(nodes_below, np.arange(np.ceil(first), last), low, high)
        density = np.exp(-0.5 * ((r - 1) / self.radial_std) ** 2)
        weights = density / density_of_nodes(r)
        along, across = self._axes(np.arange(self.n_arms)[:, None], r)
        means = scale * (r[:, None] * along - self.origin) / unit
        needles = scale * self.tangential_std * across / unit
        covariances = np.multiply.outer(np.ones(self.n_arms * len(r)), std**2 * np.eye(2))
        covariances += np.einsum("krd,kre->krde", needles, needles).reshape(-1, 2, 2)
        weights = np.tile(weights / (self.n_arms * weights.sum()), self.n_arms)
        slope = (1 + self.radial_std) * self.rate * np.exp(1 + self.radial_std)  # of an arm, one radial_std outside
        thinnest = min(self.tangential_std / np.hypot(1, slope), self.radial_std) / unit.max()
        return Needles(weights, means.reshape(-1, 2), covariances, float(np.hypot(scale * thinnest, std)))

    def standardized(self, mean: ArrayLike, scale: ArrayLike) -> Pinwheel:
        """The law of (x − mean)/scale, for a mean and a positive scale of every column, (2,) each."""
        mean, scale = as_units(mean, scale, 2)
        origin, unit = np.array(self.origin) + np.array(self.unit) * mean, np.array(self.unit) * scale
        return replace(self, origin=(float(origin[0]), float(origin[1])), unit=(float(unit[0]), float(unit[1])))


class Needles(Mixture):
    """A mixture of many Gaussians whose sum is smoother than each of them; `detail` is that of the sum."""

    _detail: float

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike, detail: float) -> None:
        super().__init__(weights, means, covariances)
        object.__setattr__(self, "_detail", detail)

    @property
    def detail(self) -> float:
        """Thickness of an arm."""
        return self._detail

    def on_grid(self, *axes: Array) -> tuple[Array, Array]:
        """Density and gradient on a product grid, tile by tile, from the needles near a tile; without any p is 0."""
        density = np.zeros([len(axis) for axis in axes])
        gradient = np.zeros((*density.shape, 2))
        starts = (range(0, len(axis), TILE) for axis in axes)
        a, b, c = self.whitening[:, 0, 0], self.whitening[:, 1, 0], self.whitening[:, 1, 1]
        for i, j in product_of(*starts):
            tile = slice(i, i + TILE), slice(j, j + TILE)
            x1, x2 = axes[0][tile[0]], axes[1][tile[1]]
            centre, half = np.array([x1[0] + x1[-1], x2[0] + x2[-1]]) / 2, np.array([np.ptp(x1), np.ptp(x2)]) / 2
            d = centre - self.means
            y1 = np.maximum(np.abs(a * d[:, 0]) - a * half[0], 0)
            y2 = np.maximum(np.abs(b * d[:, 0] + c * d[:, 1]) - np.abs(b) * half[0] - c * half[1], 0)
            near = np.flatnonzero(y1**2 + y2**2 < NEAR**2)
            if len(near):
                d1, d2 = x1 - self.means[near, 0, None], x2 - self.means[near, 1, None]
                y1 = a[near, None] * d1
                y2 = (b[near, None] * d1)[:, :, None] + (c[near, None] * d2)[:, None]
                p = np.exp((self.log_peaks[near, None] - 0.5 * y1**2)[:, :, None] - 0.5 * y2**2)
                density[tile] = p.sum(axis=0)
                slope = p * y2
                gradient[(*tile, 0)] = -np.einsum("kij,ki->ij", p, a[near, None] * y1) - np.einsum(
                    "kij,k->ij", slope, b[near]
                )
                gradient[(*tile, 1)] = -np.einsum("kij,k->ij", slope, c[near])
        return density.ravel(), gradient.reshape(-1, 2)

    def detail_within(self, low: Array, high: Array, width: float) -> float:
        """Thickness of an arm."""
        return self._detail
