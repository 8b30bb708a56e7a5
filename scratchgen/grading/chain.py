"""The density of a chain of Gaussian steps, followed on a grid in one and two dimensions.

A sampler whose every step is Gaussian (ancestral DDPM, Euler-Maruyama) has an exact negative log-likelihood, which the
variational bound can be held against.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from scratchgen.ddpm import EpsHat, p_mean, reverse_variance
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import LinearSDE, Score, euler_std, euler_step
from scratchgen.validation import Array, IntArray, as_count, as_number

REACH = 8.0  # standard deviations beyond which a Gaussian is taken as 0: its tail holds 1e-15
LOST = 1e-6  # of the mass, the most that a grid may lose
ALIASED = 1e-9  # the most that a step may alias: errors of KL(p‖p_θ) were then about 1e-6, for 1 to 100 steps
REFINEMENT = 0.75  # of the spacing, where a step needs finer nodes
MOST_NODES = {1: 20_000, 2: 1_500}  # of an axis
BLOCK = 2**23  # entries of a table of kernels at a time, 64 MB


class GridDensity(NamedTuple):
    """A density on a product grid in one or two dimensions."""

    points: Array  # (M, D)
    density: Array  # (M,)
    cell: float  # volume of a cell: Σ density · cell ≈ 1

    def kl_from(self, log_prob: Array) -> float:
        """KL(p‖this), nats, for log p at `points`; inf if p has mass where this has none.

        Raises
        ------
        ArithmeticError
            If more than 1e-6 of p's mass lies beyond the grid or between its nodes.
        """
        mass = np.exp(log_prob) * self.cell
        if abs(mass.sum() - 1) > LOST:
            raise ArithmeticError(f"p sums to {mass.sum():.7f} on this grid, not to 1; use a finer or a wider one")
        seen = (self.density > 0) & (mass > 0)
        if mass[~seen].sum() > 1e-9:
            return float("inf")
        return float((mass[seen] * (log_prob[seen] - np.log(self.density[seen]))).sum())


def chain_density(
    steps: Iterable[tuple[Callable[[Array], Array], float]],
    dimension: int,
    prior_std: float = 1.0,
    final_spacing: float = 0.05,
    resolution: float = 1.0,
) -> GridDensity:
    """Exact density at the end of a chain x ← mean(x) + std · z, z ~ N(0, I), started at N(0, prior_std² I).

    Each step is p'(x) = ∫ N(x; mean(y), std² I) p(y) dy, a sum over nodes y.  The nodes become finer until the sum over
    every second node agrees with the sum over all, so far that the latter is exact: chains of few steps, which pull
    neighbouring nodes apart, need many more nodes than those of many small steps.

    Parameters
    ----------
    steps : iterable of (mean, std)
        In the order they are taken; mean maps (M, D) to (M, D), without jumps.
    dimension : int
        1 or 2.
    prior_std : float
    final_spacing : float
        Distance of nodes of the returned grid.
    resolution : float
        The most that nodes lie apart, in units of the std of the step that reaches or leaves them, whichever is less.

    Raises
    ------
    ValueError
        If dimension is not 1 or 2.
    ArithmeticError
        If 20,000 nodes, in two dimensions 1500 x 1500, are too few for a step; if more than 1e-6 of the mass lies
        between the nodes of the returned grid.

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
    most = as_number(resolution, "resolution", low=0.0, open_low=True)
    steps, ratio = list(steps), most
    law = _Kernels(np.ones(1), np.zeros((1, dimension)), prior_std, np.zeros(1, dtype=np.int64))
    spacings = [std for _, std in steps]
    axis = law.axis(ratio * min(prior_std, spacings[0]) if steps else final_spacing)
    density = law.parts(axis).sum(axis=0)
    for i, (mean, std) in enumerate(steps):
        while True:
            after = _moved(axis, density, mean, std, dimension)
            is_last = i == len(steps) - 1
            next_axis = after.axis(final_spacing if is_last else ratio * min(std, spacings[i + 1]))
            parts = after.parts(next_axis)
            aliased = _aliasing(parts)
            if aliased <= ALIASED:
                break
            spacing = REFINEMENT * float(axis[1] - axis[0])
            axis, ratio = law.axis(spacing), spacing / min(law.std, std)
            if len(axis) > MOST_NODES[dimension]:
                raise ArithmeticError(
                    f"a step of std {std:.3g} needs nodes less than {spacing:.2g} apart, more than a grid of "
                    f"{MOST_NODES[dimension]} an axis has: its std is small, or its mean jumps; use a bound instead"
                )
            density = law.parts(axis).sum(axis=0)
        law, axis, density = after, next_axis, parts.sum(axis=0)
        if aliased < ALIASED**2:  # the estimate's logarithm goes by spacing⁻²: 1/REFINEMENT² = 1.8
            ratio = min(ratio / REFINEMENT, most)
    cell = float(axis[1] - axis[0]) ** dimension
    total = float(density.sum()) * cell
    if abs(total - 1) > LOST:
        raise ArithmeticError(f"the chain's density sums to {total:.7f} instead of 1 at its end; lower final_spacing")
    return GridDensity(_product(axis, dimension), density, cell)


def ancestral_density(
    schedule: NoiseSchedule, eps_hat: EpsHat, dimension: int, variance: str | Array = "beta", resolution: float = 1.0
) -> GridDensity:
    """Exact density p_θ(x_0) of DDPM's ancestral sampler, T steps from N(0, I), by `chain_density`."""
    std = np.sqrt(reverse_variance(schedule, variance))
    steps = [(lambda x, t=t: p_mean(schedule, t, x, eps_hat(x, t)), float(std[t])) for t in range(schedule.T, 0, -1)]
    return chain_density(steps, dimension, resolution=resolution)


def euler_density(sde: LinearSDE, score: Score, times: Array, dimension: int, resolution: float = 1.0) -> GridDensity:
    """Exact density at times[-1] of Euler-Maruyama on the reverse SDE, (32), from the prior on, by `chain_density`."""
    steps = [
        (lambda x, t=t, s=s: euler_step(sde, score(x, t), x, t, s)[0], euler_std(sde, t, s))
        for t, s in pairwise(times.tolist())
    ]
    return chain_density(steps, dimension, sde.prior_std, resolution=resolution)


class _Kernels(NamedTuple):
    """A density Σ_i mass_i N(x; centre_i, std² I), as a step leaves it; centres come from the nodes of a grid."""

    mass: Array  # (n,)
    centres: Array  # (n, D)
    std: float
    part: IntArray  # (n,) which of the 2^D interleaved coarser grids, of every second node an axis, has the node

    def axis(self, spacing: float) -> Array:
        """Nodes at most `spacing` apart that reach beyond every kernel."""
        reach = float(np.abs(self.centres).max()) + REACH * self.std + 2 * spacing
        return np.linspace(-reach, reach, int(np.ceil(2 * reach / spacing)) + 1)

    def parts(self, axis: Array) -> Array:
        """Its summands from each of the coarser grids, on the product grid of `axis`, (2^D, len(axis)^D)."""
        D, rows = self.centres.shape[1], max(BLOCK // len(axis), 1)
        parts = np.zeros((2**D, len(axis) ** D))
        for part, total in enumerate(parts):
            here = np.flatnonzero(self.part == part)
            for start in range(0, len(here), rows):  # a kernel is a product over dimensions: one matrix product
                block = here[start : start + rows]
                kernels = [_kernel(axis, self.centres[block, d], self.std) for d in range(D)]
                kernels[0] *= self.mass[block, None]
                total += kernels[0].sum(axis=0) if D == 1 else (kernels[0].T @ kernels[1]).ravel()
        return parts


def _moved(axis: Array, density: Array, mean: Callable[[Array], Array], std: float, dimension: int) -> _Kernels:
    """The kernels in which one step turns a density on the product grid of `axis`."""
    mass = density * (axis[1] - axis[0]) ** dimension
    carries = mass > 1e-14 * mass.max()  # the rest cannot change a digit of the result, and is most of the plane
    odd = np.indices([len(axis)] * dimension).reshape(dimension, -1) % 2
    part = (2 ** np.arange(dimension)) @ odd
    return _Kernels(mass[carries], mean(_product(axis, dimension)[carries]), std, part[carries])


def _aliasing(parts: Array) -> float:
    """Estimated relative error of a sum over kernels at the nodes of a grid, averaged over the density.

    A sum over nodes h apart errs by a ripple of 2 exp(−c/h²), c depending on how smooth the summands are.  The sum over
    every second node has a ripple δ = 2 exp(−c/4h²), which the spread of the `parts` shows, and so 2 (δ/2)⁴ is that of
    the sum over all.
    """
    density = parts.sum(axis=0)
    seen = density > 0
    spread = np.abs(len(parts) * parts[:, seen] / density[seen] - 1).max(axis=0)
    return float((np.minimum(spread, 1.0) ** 4 / 8) @ density[seen] / density.sum())


def _kernel(axis: Array, centres: Array, std: float) -> Array:
    """N(axis; centre, std²) for every centre, (len(centres), len(axis)).

    Computed only within REACH standard deviations, which takes a tenth of the time of the full table.
    """
    step = axis[1] - axis[0]
    half = int(np.ceil(REACH * std / step))
    window = np.rint((centres - axis[0]) / step).astype(np.intp)[:, None] + np.arange(-half, half + 1)
    values = np.exp(-0.5 * ((axis[window] - centres[:, None]) / std) ** 2) / ((2 * np.pi) ** 0.5 * std)
    kernel = np.zeros((len(centres), len(axis)))
    np.put_along_axis(kernel, window, values, axis=1)
    return kernel


def _product(axis: Array, dimension: int) -> Array:
    """All points of the product grid, (len(axis)^D, D)."""
    return np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
