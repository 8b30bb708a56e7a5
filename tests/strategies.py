"""What the property tests share: the strategies of the property catalogue, its residual, slopes, scripted noise.

Ranges are the catalogue's: tables from logits in [-6, 6], so that no probability is 0 (zeros have tests of
their own); data of mixtures on the grid 2^-10, so that adding an offset of 2^10 or 2^20 is exact.
"""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from scratchgen import Mixture

FALSE_ALARM = 1e-7  # of one statistical test
GRID = 2.0**-10


def residual(a, b):
    """max |a - b|/(1 + |b|); shapes must agree, so that broadcasting hides nothing."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    return float(np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0.0))


def slope(f, h):
    """f'(0) by a central difference of fourth order."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def slope_along(array, direction, f, h=1e-4):
    """Derivative of f() when `array`, which f reads, moves along `direction`; the array is put back."""
    start = array.copy()

    def moved(step):
        array[:] = start + step * direction
        return f()

    derivative = slope(moved, h)
    array[:] = start
    return derivative


def affine_moments(run, n_noises, mean, variance):
    """Exact mean and variance at the end of an affine sampler in one dimension, by affine probing (4.3).

    `run` maps a start (N, 1) and noise (n, N, 1) to (N, 1); it is called once, with N = n + 2 probes.
    """
    start, noise = np.zeros((n_noises + 2, 1)), np.zeros((n_noises, n_noises + 2, 1))
    start[1] = 1
    noise[np.arange(n_noises), np.arange(2, n_noises + 2)] = 1
    end = run(start, noise)[:, 0]
    slopes = end[1:] - end[0]
    return end[0] + slopes[0] * mean, slopes[0] ** 2 * variance + (slopes[1:] ** 2).sum()


class Scripted(np.random.Generator):
    """A Generator whose i-th array of normal numbers is script(i, shape), and whose uniform numbers are 1/2."""

    def __init__(self, script):
        super().__init__(np.random.PCG64(0))
        self.script, self.calls = script, 0

    def standard_normal(self, size=None, dtype=np.float64, out=None):
        self.calls += 1
        return np.broadcast_to(self.script(self.calls - 1, size), size).astype(dtype)

    def random(self, size=None, dtype=np.float64, out=None):
        return np.full(size, 0.5)


def relative(a, b):
    """max |a - b|/|b|, for positive b."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    return float(np.max(np.abs(a - b) / np.abs(b), initial=0.0))


def reals(shape, low, high):
    """Every entry is drawn by itself: Hypothesis would fill most of an array with one value."""
    return arrays(np.float64, shape, elements=st.floats(low, high, allow_subnormal=False), fill=st.nothing())


def cut(flat, *shapes):
    """One long draw cut into arrays of these shapes, which is several times faster than as many draws."""
    ends = np.cumsum([0, *(np.prod(shape, dtype=int) for shape in shapes)])
    return [flat[a:b].reshape(shape) for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]


def size(*shapes):
    return (int(sum(np.prod(shape) for shape in shapes)),)


def softmax(logits, axis=-1):
    weights = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


# --- tables -----------------------------------------------------------------------------------------------


class Tables(NamedTuple):
    p: np.ndarray  # (X,) the data's law
    q: np.ndarray  # (X, Z) q(z | x), rows sum to 1
    decoder: np.ndarray  # (X, Z) p_θ(x | z), columns sum to 1
    prior: np.ndarray  # (Z,) q(z)

    @property
    def joint(self):
        return self.decoder * self.prior


@st.composite
def tables(draw):
    nx, nz = draw(st.integers(2, 6)), draw(st.integers(1, 6))
    shapes = (nx,), (nx, nz), (nx, nz), (nz,)
    p, q, decoder, prior = cut(draw(reals(size(*shapes), -6, 6)), *shapes)
    return Tables(softmax(p), softmax(q), softmax(decoder, axis=0), softmax(prior))


# --- Gaussians and mixtures -------------------------------------------------------------------------------


def as_spd(A):
    """A Aᵀ + 0.1 I for a stack of A."""
    return A @ A.swapaxes(-1, -2) + 0.1 * np.eye(A.shape[-1])


def spd(dimension, entry=2.0):
    """A Aᵀ + 0.1 I with entries of A in [-entry, entry]."""
    return reals((dimension, dimension), -entry, entry).map(as_spd)


@st.composite
def pairs_of_gaussians(draw):
    """((mean, covariance), (mean, covariance)), means in [-5, 5], covariances as in `spd`."""
    D = draw(st.integers(1, 4))
    m, n, A, B = cut(draw(reals(size((D,), (D,), (D, D), (D, D)), -1, 1)), (D,), (D,), (D, D), (D, D))
    return (5 * m, as_spd(2 * A)), (5 * n, as_spd(2 * B))


@st.composite
def mixtures_and_points(draw, n=5, max_dimension=3, max_components=4):
    """A mixture with means in [-4, 4] and covariances A Aᵀ + 0.1 I, |A| <= 1, and n points in [-8, 8]."""
    D, K = draw(st.integers(1, max_dimension)), draw(st.integers(1, max_components))
    shapes = (K,), (K, D), (K, D, D), (n, D)
    logits, means, A, x = cut(draw(reals(size(*shapes), -1, 1)), *shapes)
    return Mixture(softmax(3 * logits), 4 * means, as_spd(A)), 8 * x


def mixtures(**kwargs):
    return mixtures_and_points(n=0, **kwargs).map(lambda pair: pair[0])


# --- EM ---------------------------------------------------------------------------------------------------

HARD_MODES = ("plain", "offset 2^10", "far component", "all far", "duplicates", "collinear")


class EMProblem(NamedTuple):
    x: np.ndarray  # (N, D), on the grid
    mixture: Mixture  # where EM starts, every covariance ⪰ I


@st.composite
def em_problems(draw, modes=HARD_MODES, max_components=4):
    """`gmmdata` of the catalogue: N 1..12, D 1..3, K 1..4, plain or hard in one of its ways."""
    N, D, K = draw(st.integers(1, 12)), draw(st.integers(1, 3)), draw(st.integers(1, max_components))
    mode = draw(st.sampled_from(modes))
    entries = arrays(np.int64, ((N + K) * D,), elements=st.integers(-5120, 5120), fill=st.nothing())
    x, means = cut(draw(entries) * GRID, (N, D), (K, D))
    if mode == "offset 2^10":
        x, means = x + 2.0**10, means + 2.0**10
    elif mode == "far component":
        means[0] += 1e3
    elif mode == "all far":
        means += 100
    elif mode == "duplicates":
        x = np.repeat(x[:1], N, axis=0)
    elif mode == "collinear":
        x = x[:, :1] * np.arange(1, D + 1)
    weights = softmax(draw(reals((K,), -3, 3)))
    return EMProblem(x, Mixture(weights, means, np.tile(np.eye(D), (K, 1, 1))))


# --- schedules --------------------------------------------------------------------------------------------


def variances(low, high, max_T=40):
    """One-step variances β², log-uniform and uniform mixed, so that both ends of (0, 1) are reached."""
    return (
        st.integers(1, max_T)
        .flatmap(lambda T: reals((2 * T,), 0, 1))
        .map(
            lambda u: np.where(
                u[::2] < 0.5,
                low + (high - low) * u[1::2],
                np.clip(np.exp(np.log(low) + np.log(high / low) * u[1::2]), low, high),
            )
        )
    )


# --- statistical tests ------------------------------------------------------------------------------------


def mixture_cdf(mixture, direction):
    """The distribution function of direction · x for x ~ mixture."""
    centres = mixture.means @ direction
    widths = np.sqrt(np.einsum("d,kde,e->k", direction, mixture.covariances, direction))
    return lambda y: stats.norm.cdf((np.asarray(y)[:, None] - centres) / widths) @ mixture.weights


def passes_as_sample(x, mixture, n_directions=3):
    """Whether projections of x on fixed directions pass Kolmogorov-Smirnov's test against the mixture.

    A right sample fails with probability at most FALSE_ALARM, by Bonferroni over the directions.
    """
    directions = np.random.default_rng(20).standard_normal((n_directions, mixture.dimension))
    directions = np.concatenate([np.eye(mixture.dimension), directions])
    p_values = [stats.kstest(x @ d, mixture_cdf(mixture, d)).pvalue for d in directions]
    return min(p_values) > FALSE_ALARM / len(directions)
