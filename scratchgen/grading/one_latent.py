"""A decoder with one latent z: its posteriors on a grid of z, and the Gaussian nearest to a posterior."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from scratchgen.likelihood import LOG_2PI, logsumexp
from scratchgen.vae.objective import reconstruction_error
from scratchgen.validation import (
    Array,
    as_arrays,
    as_count,
    as_finite,
    as_number,
    as_real,
    check_callable,
    check_not_empty,
)

REACH = 9.0  # integrals over z are over [−9, 9] if the posterior lies there
MOST_PEAK = 1e6  # nats; rounding errors of log p are then below 1e-10
N_NODES = 4001  # least number of nodes over [−9, 9]
MOST_NODES = 2_000_000


class OneLatent(NamedTuple):
    """A decoder p_θ(x | z) = N(x; f(z), s² I) over one latent z ~ N(0, 1).

    Examples
    --------
    >>> line = OneLatent(lambda z: 2 * z, 0.0)  # x = 2z + ξ has variance 5
    >>> ((z, log_joint),) = line.log_joints(np.array([[1.0]]))
    >>> float(logsumexp(log_joint) + np.log(z[1] - z[0]) - (-0.5 * (LOG_2PI + np.log(5) + 1 / 5))) < 1e-12
    True
    """

    decode: Callable[[Array], Array]  # f, from z (M, 1) to means (M, D)
    log_variance: Array | float  # log s², a number or (D,)
    n_levels: int | None = None  # for whole numbers, see `vae.reconstruction_error`

    def log_prob(self, x: Array, means: Array) -> Array:
        """log p_θ(x | z), (M,), nats, of one x, (D,), at the decoder's means, (M, D)."""
        x, means = as_arrays("x (D), means (M, D)", x, means)
        return -reconstruction_error(x, means, self.log_variance, self.n_levels)[0]

    def log_joints(self, x: Array, n_nodes: int | None = None) -> Iterator[tuple[Array, Array]]:
        """Yield evenly spaced nodes z, (M,), and log p_θ(x, z) at these nodes, (M,), nats, for every row of x, (N, D).

        The nodes cover [−9, 9], and a larger interval if the posterior of x reaches beyond.

        Parameters
        ----------
        x : (N, D)
        n_nodes : int, optional
            Number of nodes over [−9, 9].  If None, 4001, or more if neighbouring means would differ by more than 0.2 s.

        Raises
        ------
        ArithmeticError
            If f changes by more than s/2 between nodes, or a posterior lies hundreds of prior standard deviations away.
            The integral over z could then be wrong by tenths of a nat.
        """
        if n_nodes is not None:
            as_count(n_nodes, "n_nodes", minimum=3)
        grids: dict[float, tuple[Array, Array]] = {}
        check_callable(self.decode, "decode", "z (M, 1) → means (M, D)")
        check_not_empty(as_finite(self.log_variance, "log_variance"), "log_variance")
        for row in as_arrays("x (N, D)", x):
            reach = REACH
            while True:
                if reach not in grids:
                    grids[reach] = self._grid(reach, n_nodes)
                z, means = grids[reach]
                log_joint = self.log_prob(row, means) - 0.5 * (z**2 + LOG_2PI)
                if max(log_joint[0], log_joint[-1]) < log_joint.max() - 30:  # below e⁻³⁰ of the peak at both ends
                    break
                reach *= 2
                if reach > 64 * REACH:
                    raise ArithmeticError(
                        f"the posterior of an x reaches beyond |z| = {reach / 2:g}: this x is far from all samples of "
                        "the model; leave it out"
                    )
            yield z, log_joint

    def _grid(self, reach: float, n_nodes: int | None) -> tuple[Array, Array]:
        """Nodes z, (M,), over [−reach, reach] with n_nodes an interval [−9, 9], and the decoder's means, (M, D)."""
        n, most = (N_NODES, 0.2) if n_nodes is None else (n_nodes, 0.5)
        while True:
            z = np.linspace(-reach, reach, int((n - 1) * reach / REACH) + 1)
            means = as_arrays("decode (M, D)", self.decode(z[:, None]), M=len(z))
            variance = np.exp(as_real(self.log_variance, "log_variance"))
            stride = float(np.sqrt((np.diff(means, axis=0) ** 2 / variance).sum(axis=1)).max())
            if stride <= most:
                return z, means
            if n_nodes is not None or n * stride / most > MOST_NODES:
                raise ArithmeticError(
                    f"the decoder moves by {stride:.2f} of its standard deviations between nodes, and an exact "
                    f"integral allows at most 0.5; pass n_nodes={int(n * stride / 0.4)}"
                )
            n = int(1.05 * n * stride / most) + 1


def _as_starts(starts: object) -> list[tuple[float, float]]:
    """Return starts as a list of (mean, standard deviation); TypeError or ValueError for other values."""
    try:
        pairs = [(mean, std) for mean, std in starts]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise TypeError(f"starts must be an iterable of (mean, standard deviation), got {starts!r:.60}") from None
    return [
        (as_number(mean, "mean of starts"), as_number(std, "std of starts", low=0.0, open_low=True))
        for mean, std in pairs
    ]


def nearest_gaussian(
    z: Array, log_density: Array, starts: Iterable[tuple[float, float]] = ()
) -> tuple[float, float, float]:
    """Mean and standard deviation of the Gaussian q with the least KL(q‖p), and this KL, nats.

    KL(q‖p) can have a local minimum at every mode of p.  The minimisation therefore starts at every mode, at the mean
    and standard deviation of p, and at `starts`.

    Parameters
    ----------
    z : (M,)
        Evenly spaced nodes that reach well beyond p, with a spacing of at most half a standard deviation of the
        narrowest mode.
    log_density : (M,)
        log p(z) up to a constant; finite, since KL(q‖p) is infinite if p is 0 somewhere.
    starts : iterable of (mean, standard deviation), optional
        Further starting points.

    Raises
    ------
    ValueError
        If shapes differ, log p is not finite or above 1e6, or p at an end is above e⁻³⁰ of its peak.
    ArithmeticError
        If the standard deviation of q is less than two spacings, or q reaches beyond the nodes.
    """
    from scipy.optimize import minimize  # not at the top: SciPy more than doubles the time of `import scratchgen`

    z, log_density = as_finite(z, "z"), as_finite(log_density, "log_density")
    if z.shape != log_density.shape or z.ndim != 1 or len(z) < 5:
        raise ValueError(f"z and log_density must have one shape (M,), M >= 5, got {z.shape} and {log_density.shape}")
    if abs(log_density.max()) > MOST_PEAK:
        raise ValueError(
            f"log_density must have a maximum of size {MOST_PEAK:g} at most, since rounding spoils differences of "
            f"larger numbers, got {log_density.max():.3g}; subtract its maximum"
        )
    if max(log_density[0], log_density[-1]) > log_density.max() - 30:
        raise ValueError("z must reach well beyond p, but log_density is within 30 of its maximum at an end; widen z")
    step = float(z[1] - z[0])
    # q is negligible outside this window: the interval where p is above e⁻¹⁰⁰ of its peak, and its width on each side.
    seen = np.flatnonzero(log_density > log_density.max() - 100)
    width = seen[-1] - seen[0] + 1
    window = slice(max(seen[0] - width, 0), seen[-1] + width)
    z, log_density = z[window], log_density[window]
    log_p = log_density - logsumexp(log_density) - np.log(step)
    mass = step * np.exp(log_p)
    mean = float(mass @ z)
    starts = [*_as_starts(starts), (mean, float(np.sqrt(mass @ (z - mean) ** 2)))]
    for i in 1 + np.flatnonzero((log_p[1:-1] > log_p[:-2]) & (log_p[1:-1] >= log_p[2:])):
        curvature = (2 * log_p[i] - log_p[i - 1] - log_p[i + 1]) / step**2
        starts.append((float(z[i]), float(1 / np.sqrt(max(curvature, step**-2 / len(z) ** 2)))))

    def kl(parameters: Array) -> tuple[float, Array]:
        mean, log_std = parameters
        u = (z - mean) * np.exp(-log_std)
        log_q = -0.5 * (u**2 + LOG_2PI) - log_std
        q = step * np.exp(log_q)
        pull = q * (log_q - log_p + 1)
        # Sums, not dot products: BLAS starts its threads for a dot product; 5 times as slow for 100,000 nodes or more.
        value, by_mean, by_log_std = (q * (log_q - log_p)).sum(), (pull * u).sum(), (pull * (u**2 - 1)).sum()
        return float(value), np.array([by_mean * np.exp(-log_std), by_log_std])

    # Bounds for mean and log std: the sums are wrong if q is narrower than the nodes or wider than their range.
    limits = [(z[0], z[-1]), (np.log(2 * step), np.log((z[-1] - z[0]) / 10))]
    found = [
        minimize(
            kl, (m, np.log(std)), jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-15, "gtol": 1e-9}
        )
        for m, std in starts
    ]
    best = min(found, key=lambda result: float(result.fun))
    mean, std = float(best.x[0]), float(np.exp(best.x[1]))
    if std < 2.001 * step or min(mean - z[0], z[-1] - mean) < 5 * std:
        raise ArithmeticError(
            f"the nearest Gaussian, mean {mean:.3g} and deviation {std:.3g}, does not fit nodes {step:.3g} apart from "
            f"{z[0]:.3g} to {z[-1]:.3g}; pass a finer or wider z"
        )
    return mean, std, float(best.fun)
