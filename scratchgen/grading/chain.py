"""The density of a chain of Gaussian steps, followed on a grid in one and two dimensions.

A sampler whose every step is Gaussian (ancestral DDPM, Euler-Maruyama) has an exact negative log-likelihood, which the
variational bound can be held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from scratchgen.ddpm.samplers import EpsHat, p_mean, reverse_variance
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde.processes import LinearSDE
from scratchgen.sde.reverse import Score, euler_std, euler_step
from scratchgen.validation import Array, as_count

REACH = 8.0  # standard deviations beyond which a Gaussian is taken as 0: its tail holds 1e-15


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
        if abs(mass.sum() - 1) > 1e-6:
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

    Each step is p'(x) = ∫ N(x; mean(y), std² I) p(y) dy on a grid fine enough for its kernel.  In two dimensions the
    kernel is a product once mean(y) is known, so that a step is one matrix product instead of a four-index sum.

    Parameters
    ----------
    steps : iterable of (mean, std)
        In the order they are taken; mean maps (M, D) to (M, D).
    dimension : int
        1 or 2.
    prior_std : float
    final_spacing : float
        Distance of nodes of the returned grid.
    resolution : float
        Distance of nodes in units of the std of the step that leaves them.  A trained 100-step DDPM lost 1e-8 of its
        mass at 1.0, 7e-13 at 0.75 and 7e-5 at 1.25.

    Raises
    ------
    ValueError
        If dimension is not 1 or 2.
    ArithmeticError
        If more than 1e-3 of the mass is lost, or aliased because a step pulls neighbouring nodes apart.
    """
    if as_count(dimension, "dimension") > 2:
        raise ValueError(f"dimension must be 1 or 2, got {dimension}; use a sampled bound instead")
    steps = list(steps)
    spacings = [resolution * std for _, std in steps] + [final_spacing]
    axis = _axis(REACH * prior_std, spacings[0])
    points = _product(axis, dimension)
    blur = 0.0
    density = np.exp(-0.5 * (points**2).sum(axis=1) / prior_std**2) / (2 * np.pi * prior_std**2) ** (dimension / 2)
    for (mean, std), spacing in zip(steps, spacings[1:], strict=True):
        mass = density * (axis[1] - axis[0]) ** dimension
        carries = mass > 1e-14 * mass.max()  # the rest cannot change a digit of the result, and is most of the plane
        centres = mean(points[carries])
        blur = max(blur, _aliasing(mass, carries, centres, std, len(axis), dimension))
        axis = _axis(float(np.abs(centres).max()) + REACH * std + 2 * spacing, spacing)
        kernels = [_kernel(axis, centres[:, d], std) for d in range(dimension)]
        kernels[0] *= mass[carries, None]
        density = kernels[0].sum(axis=0) if dimension == 1 else (kernels[0].T @ kernels[1]).ravel()
        points = _product(axis, dimension)
    cell = (axis[1] - axis[0]) ** dimension
    if abs(density.sum() * cell - 1) > 1e-3 or blur > 1e-3:
        raise ArithmeticError(
            f"the chain's density sums to {density.sum() * cell:.4f} instead of 1 and a step aliased {blur:.0e} of it; "
            "lower resolution and final_spacing"
        )
    return GridDensity(points, density, float(cell))


def ancestral_density(
    schedule: NoiseSchedule, eps_hat: EpsHat, dimension: int, variance: str | Array = "beta", resolution: float = 1.0
) -> GridDensity:
    """Exact density p_θ(x_0) of DDPM's ancestral sampler, T steps from N(0, I), by `chain_density`.

    Chains of few steps pull neighbouring nodes apart, and need a `resolution` of 0.4 or so.
    """
    std = np.sqrt(reverse_variance(schedule, variance))
    steps = [(lambda x, t=t: p_mean(schedule, t, x, eps_hat(x, t)), float(std[t])) for t in range(schedule.T, 0, -1)]
    return chain_density(steps, dimension, resolution=resolution)


def euler_density(sde: LinearSDE, score: Score, times: Array, dimension: int) -> GridDensity:
    """Exact density at times[-1] of Euler-Maruyama on the reverse SDE, (32), from the prior on, by `chain_density`."""
    steps = [
        (lambda x, t=t, s=s: euler_step(sde, score, x, t, s)[0], euler_std(sde, t, s))
        for t, s in pairwise(times.tolist())
    ]
    return chain_density(steps, dimension, sde.prior_std)


def _axis(reach: float, spacing: float) -> Array:
    """Evenly spaced nodes over [−reach, reach], at most `spacing` apart."""
    return np.linspace(-reach, reach, int(np.ceil(2 * reach / spacing)) + 1)


def _aliasing(mass: Array, carries: Array, centres: Array, std: float, n: int, dimension: int) -> float:
    """How much of the density a sum over kernels that stand this far apart leaves as ripple, averaged over the mass.

    Kernels r standard deviations apart add up to a constant with a ripple of 2 exp(−2π²/r²).
    """
    moved = np.full((len(mass), dimension), np.nan)
    moved[carries] = centres
    moved = moved.reshape(*[n] * dimension, dimension)
    ripple = np.zeros(moved.shape[:-1])
    for axis in range(dimension):
        apart = np.sqrt((np.diff(moved, axis=axis) ** 2).sum(axis=-1)) / std
        with np.errstate(divide="ignore"):
            wave = np.nan_to_num(2 * np.exp(-2 * np.pi**2 / apart**2))
        ripple += np.insert(wave, 0, 0.0, axis=axis)
    return float(ripple.ravel() @ mass / mass.sum())


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
