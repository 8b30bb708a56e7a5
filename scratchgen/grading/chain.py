"""The density of a chain of Gaussian steps, computed on a grid in one and two dimensions.

Ancestral DDPM sampling and Euler-Maruyama consist of Gaussian steps.  The density of their samples is therefore a
repeated integral, and the exact negative log-likelihood can be compared with the variational bound.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from scratchgen.ddpm import EpsHat, p_mean, reverse_variance
from scratchgen.law import SmoothLaw
from scratchgen.likelihood import quiet_log
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import LinearSDE, Score, euler_std, euler_step
from scratchgen.sde.reverse import as_times
from scratchgen.validation import Array, IntArray, as_arrays, as_count, as_number, check_callable

REACH = 8.0  # standard deviations beyond which a Gaussian is taken as 0; the mass there is 1e-15
LOST = 1e-6  # largest mass that a grid may lose
ALIASED = 1e-9  # largest aliasing error of a step; errors of KL(p‖p_θ) were then about 1e-6, for 1 to 100 steps
FAR = 2.5  # nodes of little mass are left out so many times as far from 0 as 0.999 of the mass
LEFT_OUT = 1e-7  # largest mass of the nodes that a step leaves out
MISSED = 1e-6  # largest difference in L1 from the sum over the nodes half a spacing away; float32 means reach 1e-7
REFINEMENT = 0.75  # factor of the spacing if a step needs finer nodes
MOST_NODES = {1: 20_000, 2: 1_500}  # largest number of nodes of an axis, by dimension
BLOCK = 2**23  # entries of a table of kernels that are computed at a time, 64 MB


class GridDensity(NamedTuple):
    """A density on a product grid in one or two dimensions."""

    points: Array  # (M, D)
    density: Array  # (M,)
    cell: float  # volume of a cell: Σ density · cell ≈ 1

    def kl_from(self, p: Array | SmoothLaw) -> float:
        """KL(p‖q) of a density p from this density q, nats; inf if p has mass where q is 0.

        Parameters
        ----------
        p : (M,) or SmoothLaw
            log p at `points`, nats, or a law with this density.

        Raises
        ------
        ArithmeticError
            If p sums to 1 on the grid only with an error above 1e-6: the grid is too small or too coarse.  The error of
            the KL for narrow p that pass was up to 2e-5.
        """
        if isinstance(p, SmoothLaw):
            if p.dimension != self.points.shape[1]:
                raise ValueError(f"p must have {self.points.shape[1]} dimensions, as this grid, got {p.dimension}")
            axis = self.points[: round(len(self.points) ** (1 / p.dimension)), -1]
            log_prob = quiet_log(p.density_on_grid(*[axis] * p.dimension))
        else:
            log_prob = as_arrays("p (M)", p, M=len(self.points))
        mass = np.exp(log_prob) * self.cell
        if not abs(mass.sum() - 1) <= LOST:
            raise ArithmeticError(f"p sums to {mass.sum():.7f} on this grid, not to 1; look at p, or use a finer grid")
        seen = (self.density > 0) & (mass > 0)
        if mass[~seen].sum() > 1e-9:
            return float("inf")
        return float((mass[seen] * (log_prob[seen] - np.log(self.density[seen]))).sum())


def _as_steps(steps: object) -> list[tuple[Callable[[Array], Array], float]]:
    """Return steps (mean, std) as a list; TypeError or ValueError unless all are a function and a positive number."""
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise TypeError(f"steps must be an iterable of (mean, std), got {steps!r:.60}")
    checked = []
    for step in steps:
        if not isinstance(step, tuple) or len(step) != 2:
            raise ValueError(f"steps must hold pairs (mean, std), got {step!r:.60}")
        check_callable(step[0], "mean of a step of steps", "x (M, D) → (M, D)")
        checked.append((step[0], as_number(step[1], "std of a step of steps", low=0.0, open_low=True)))
    return checked


def chain_density(
    steps: Iterable[tuple[Callable[[Array], Array], float]],
    dimension: int,
    prior_std: float = 1.0,
    final_spacing: float = 0.05,
    resolution: float = 1.0,
) -> GridDensity:
    """Exact density at the end of a chain x ← mean(x) + std · z, z ~ N(0, I), started at N(0, prior_std² I).

    Each step is p'(x) = ∫ N(x; mean(y), std² I) p(y) dy, computed as a sum over nodes y.  The spacing of the nodes is
    reduced until sums over every second node agree with the sum over all nodes so well that the error of the latter is
    below 1e-9, see `_aliasing`, and in one dimension until the nodes half a spacing away give the same density; in two
    dimensions that would double the time.  Chains of few steps need many more nodes than chains of many small steps,
    because their means move neighbouring nodes far apart.

    A network may throw nodes of little mass very far away.  A step leaves out nodes that come to lie 2.5 times as far
    from 0 as 0.999 of the mass, if their mass is at most 1e-7.  The returned density sums to so much less than 1, but
    to 1 − 1e-6 at least.  Of a normal distribution no node is left out.

    Parameters
    ----------
    steps : iterable of (mean, std)
        Steps in their order; mean is a continuous function from (M, D) to (M, D).
    dimension : int
        D, 1 or 2.
    prior_std : float
        Standard deviation of the start.
    final_spacing : float
        Spacing of the nodes of the returned grid.
    resolution : float
        Largest spacing of nodes, in units of the smaller std of the two steps before and after them.

    Raises
    ------
    TypeError, ValueError
        If dimension is not 1 or 2, or resolution, prior_std or the std of a step is not a positive number.
    ArithmeticError
        If a step needs more than 20,000 nodes, in two dimensions 1500 x 1500; if the density does not sum to 1 on the
        returned grid to within 1e-6.

    Examples
    --------
    >>> from scratchgen import Mixture
    >>> grid = chain_density([(lambda x: 3 * x, 1.0)], 1)
    >>> end = Mixture([1.0], [[0.0]], [[[10.0]]])  # N(0, 3² + 1)
    >>> abs(grid.kl_from(end.log_prob(grid.points))) < 1e-6
    True
    """
    if as_count(dimension, "dimension") > 2:
        raise ValueError(f"dimension must be 1 or 2, got {dimension}; use a sampled bound instead")
    most = as_number(resolution, "resolution", low=0.0, high=10.0, open_low=True)
    steps, final_spacing = _as_steps(steps), as_number(final_spacing, "final_spacing", low=0.0, open_low=True)
    ratio, prior_std = most, as_number(prior_std, "prior_std", low=0.0, open_low=True)
    law = _Kernels(np.ones(1), np.zeros((1, dimension)), prior_std, np.zeros(1, dtype=np.int64))
    spacings = [std for _, std in steps]
    axis = law.axis(ratio * min(prior_std, spacings[0]) if steps else final_spacing)
    density = law.parts(axis).sum(axis=0)
    for i, (mean, std) in enumerate(steps):
        while True:
            after = _moved(axis, density, mean, std, dimension)
            next_axis = after.axis(final_spacing if i == len(steps) - 1 else ratio * min(std, spacings[i + 1]))
            parts = after.parts(next_axis)
            aliased = _aliasing(parts)
            if aliased <= ALIASED and (
                dimension == 2 or _difference(parts.sum(axis=0), law, axis, after, mean, next_axis) <= MISSED
            ):
                break
            spacing = REFINEMENT * float(axis[1] - axis[0])
            axis, ratio = law.axis(spacing), spacing / min(law.std, std)
            density = law.parts(axis).sum(axis=0)
        law, axis, density = after, next_axis, parts.sum(axis=0)
        if aliased < ALIASED**2:  # log(error) ∝ spacing⁻²: the next coarser spacing may do
            ratio = min(ratio / REFINEMENT, most)
    cell = float(axis[1] - axis[0]) ** dimension
    total = float(density.sum()) * cell
    if abs(total - 1) > LOST:
        raise ArithmeticError(f"the chain's density sums to {total:.7f} instead of 1 at its end; lower final_spacing")
    return GridDensity(_product(axis, dimension), density, cell)


def ancestral_density(
    schedule: NoiseSchedule,
    eps_hat: EpsHat,
    dimension: int,
    variance: str | Array = "beta",
    resolution: float = 1.0,
    final_spacing: float = 0.05,
) -> GridDensity:
    """Exact density p_θ(x_0) of DDPM's ancestral sampler, T steps from N(0, I), by `chain_density`.

    Parameters
    ----------
    eps_hat : callable
        ε̂(x_t, t), (M, D), for an int t.
    dimension, resolution, final_spacing
        As for `chain_density`, with its errors.
    variance
        σ_t², as for `scratchgen.ddpm.reverse_variance`.
    """
    check_callable(eps_hat, "eps_hat", "(x_t (M, D), t) → (M, D)")
    std = np.sqrt(reverse_variance(schedule, variance))
    steps = [(lambda x, t=t: p_mean(schedule, t, x, eps_hat(x, t)), float(std[t])) for t in range(schedule.T, 0, -1)]
    return chain_density(steps, dimension, final_spacing=final_spacing, resolution=resolution)


def euler_density(
    sde: LinearSDE,
    score: Score,
    times: Array,
    dimension: int,
    resolution: float = 1.0,
    final_spacing: float = 0.05,
) -> GridDensity:
    """Exact density at times[-1] of Euler-Maruyama steps of (32), started from the prior, by `chain_density`.

    Parameters
    ----------
    score : callable
        s_θ(x, t), (M, D), for one t.
    times : (n+1,)
        Strictly falling, from the horizon.
    dimension, resolution, final_spacing
        As for `chain_density`, with its errors.
    """
    check_callable(score, "score", "(x (M, D), t) → (M, D)")
    steps = [
        (lambda x, t=t, s=s: euler_step(sde, score(x, t), x, t, s)[0], euler_std(sde, t, s))
        for t, s in pairwise(as_times(sde, times).tolist())
    ]
    return chain_density(steps, dimension, sde.prior_std, final_spacing, resolution)


class _Kernels(NamedTuple):
    """The density Σ_i mass_i N(x; centre_i, std² I) after a step; the step maps the nodes of a grid to the centres."""

    mass: Array  # (n,)
    centres: Array  # (n, D)
    std: float
    part: IntArray  # (n,) index of the node's coarser grid: 2^D interleaved grids have every second node an axis

    def axis(self, spacing: float) -> Array:
        """Nodes of an axis, at most `spacing` apart, over the range of all kernels; ArithmeticError for too many."""
        reach = float(np.abs(self.centres).max()) + REACH * self.std + 2 * spacing
        most = MOST_NODES[self.centres.shape[1]]
        if not 2 * reach / spacing < most:
            raise ArithmeticError(
                f"after a step of std {self.std:.3g} the density needs nodes {spacing:.2g} apart on ±{reach:.3g}, more "
                f"than the {most} of an axis: a std is small, or a mean jumps or is far away; use a bound instead"
            )
        return np.linspace(-reach, reach, int(np.ceil(2 * reach / spacing)) + 1)

    def parts(self, axis: Array) -> Array:
        """Sums over the kernels of each coarser grid, at the product grid of `axis`, (2^D, len(axis)^D)."""
        D, step = self.centres.shape[1], axis[1] - axis[0]
        parts = np.zeros((2**D, len(axis), len(axis) ** (D - 1)))
        nearest = np.rint((self.centres - axis[0]) / step).astype(np.intp)  # nodes
        order, half = np.lexsort((nearest[:, 0], self.part)), int(np.ceil(REACH * self.std / step))
        strip = nearest[order, 0] // (half + 1) + len(axis) * self.part[order]  # close kernels of one part
        for here in np.split(order, np.flatnonzero(np.diff(strip)) + 1):
            first, last = nearest[here[0], 0] - half, nearest[here[-1], 0] + half
            rows = slice(first, last + 1)
            for block in np.array_split(here, 1 + len(here) * len(axis) // BLOCK):
                centres = self.centres[block]
                kernel = _kernel(axis[rows], centres[:, 0], self.std, nearest[block, 0] - first, half)
                kernel *= self.mass[block, None]
                if D == 1:
                    parts[self.part[here[0]], rows, 0] += kernel.sum(axis=0)
                else:  # kernels factor over dimensions: one matrix product
                    other = _kernel(axis, centres[:, 1], self.std, nearest[block, 1], half)
                    parts[self.part[here[0]], rows] += kernel.T @ other
        return parts.reshape(2**D, -1)


def _moved(axis: Array, density: Array, mean: Callable[[Array], Array], std: float, dimension: int) -> _Kernels:
    """The kernels after one step from a density on the product grid of `axis`, without far ones of little mass."""
    mass = density * (axis[1] - axis[0]) ** dimension
    carries = mass > 1e-14 * mass.max()  # most nodes in two dimensions have less, which changes no digit of the result
    odd = np.indices([len(axis)] * dimension).reshape(dimension, -1) % 2
    part = (2 ** np.arange(dimension)) @ odd
    moved = _Kernels(mass[carries], mean(_product(axis, dimension)[carries]), std, part[carries])
    farness = np.abs(moved.centres).max(axis=1)
    order = np.argsort(farness)
    shares = np.cumsum(moved.mass[order]) / moved.mass.sum()
    far = (farness > FAR * farness[order[np.searchsorted(shares, 0.999)]]) & (farness < np.inf)
    if moved.mass[far].sum() > LEFT_OUT:
        return moved
    return _Kernels(moved.mass[~far], moved.centres[~far], std, moved.part[~far])


def _aliasing(parts: Array) -> float:
    """Average relative aliasing error of a sum over kernels, estimated from the sums over the coarser grids.

    For nodes with spacing h the relative error is a ripple of 2 exp(−c/h²), where c depends on the smoothness of the
    summands.  Sums over every second node have a ripple δ = 2 exp(−c/4h²), which is the spread of the `parts`.  The
    ripple of the sum over all nodes is therefore 2 (δ/2)⁴ = δ⁴/8.
    """
    density = parts.sum(axis=0)
    seen = density > 0
    spread = np.abs(len(parts) * parts[:, seen] / density[seen] - 1).max(axis=0)
    return float((np.minimum(spread, 1.0) ** 4 / 8) @ density[seen] / density.sum())


def _difference(
    density: Array, law: _Kernels, axis: Array, after: _Kernels, mean: Callable[[Array], Array], next_axis: Array
) -> float:
    """Difference in L1 of a step's density from the sum over the nodes half a spacing away.

    A shift of the nodes changes the sign of the aliasing error, so that the difference is twice the error.  `_aliasing`
    extrapolates from a coarser grid and misses the error if the summands oscillate with one frequency: for the mean
    sin 7x and std 0.05 the density was wrong by 0.4.
    """
    between, dimension = axis + 0.5 * (axis[1] - axis[0]), after.centres.shape[1]
    moved = _moved(between, law.parts(between).sum(axis=0), mean, after.std, dimension)
    inside = np.abs(moved.centres).max(axis=1) <= np.abs(after.centres).max()  # no mass lies beyond
    other = _Kernels(moved.mass[inside], moved.centres[inside], after.std, moved.part[inside]).parts(next_axis)
    return float(np.abs(other.sum(axis=0) - density).sum() / density.sum())


def _kernel(axis: Array, centres: Array, std: float, nearest: IntArray, half: int) -> Array:
    """N(axis; centre, std²) for every centre, (len(centres), len(axis)).

    Values at more than `half` nodes from the `nearest` one, which are REACH standard deviations away, are 0.  Leaving
    them out takes a tenth of the time of the full table.
    """
    window = nearest[:, None] + np.arange(-half, half + 1)
    values = np.exp(-0.5 * ((axis[window] - centres[:, None]) / std) ** 2) / ((2 * np.pi) ** 0.5 * std)
    kernel = np.zeros((len(centres), len(axis)))
    np.put_along_axis(kernel, window, values, axis=1)
    return kernel


def _product(axis: Array, dimension: int) -> Array:
    """Points of the product grid, (len(axis)^D, D)."""
    return np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
