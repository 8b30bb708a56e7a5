"""What the property tests draw: the strategies of the property catalogue, and its residual.

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


def relative(a, b):
    """max |a - b|/|b|, for positive b."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    return float(np.max(np.abs(a - b) / np.abs(b), initial=0.0))


def reals(shape, low, high):
    return arrays(np.float64, shape, elements=st.floats(low, high, allow_subnormal=False, width=64))


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
    p, q, decoder, prior = (draw(reals(shape, -6, 6)) for shape in [(nx,), (nx, nz), (nx, nz), (nz,)])
    return Tables(softmax(p), softmax(q), softmax(decoder, axis=0), softmax(prior))


# --- Gaussians and mixtures -------------------------------------------------------------------------------


def spd(dimension, entry=2.0):
    """A Aᵀ + 0.1 I with entries of A in [-entry, entry]."""
    return reals((dimension, dimension), -entry, entry).map(lambda A: A @ A.T + 0.1 * np.eye(dimension))


@st.composite
def gaussians(draw, dimension=None):
    """(mean, covariance)."""
    D = draw(st.integers(1, 4)) if dimension is None else dimension
    return draw(reals((D,), -5, 5)), draw(spd(D))


@st.composite
def mixtures(draw, max_dimension=3, max_components=4, max_mean=4.0):
    D, K = draw(st.integers(1, max_dimension)), draw(st.integers(1, max_components))
    weights = softmax(draw(reals((K,), -3, 3)))
    covariances = [draw(spd(D, entry=1.0)) for _ in range(K)]
    return Mixture(weights, draw(reals((K, D), -max_mean, max_mean)), covariances)


@st.composite
def mixtures_and_points(draw, n=5, reach=8.0, **kwargs):
    mixture = draw(mixtures(**kwargs))
    return mixture, draw(reals((n, mixture.dimension), -reach, reach))


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
    x, means = (draw(arrays(np.int64, (n, D), elements=st.integers(-5120, 5120))) * GRID for n in (N, K))
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
    one = st.one_of(st.floats(low, high), st.floats(np.log(low), np.log(high)).map(np.exp)).map(
        lambda v: float(np.clip(v, low, high))
    )
    return st.lists(one, min_size=1, max_size=max_T).map(np.array)


# --- statistical tests ------------------------------------------------------------------------------------


def mixture_cdf(mixture, direction):
    """The distribution function of direction · x for x ~ mixture."""
    centres = mixture.means @ direction
    widths = np.sqrt(np.einsum("d,kde,e->k", direction, mixture.covariances, direction))
    return lambda y: stats.norm.cdf((np.asarray(y)[:, None] - centres) / widths) @ mixture.weights


def passes_as_sample(x, mixture, n_directions=6):
    """Whether projections of x on fixed directions pass Kolmogorov-Smirnov's test against the mixture.

    A right sample fails with probability at most FALSE_ALARM, by Bonferroni over the directions.
    """
    directions = np.random.default_rng(20).standard_normal((n_directions, mixture.dimension))
    directions = np.concatenate([np.eye(mixture.dimension), directions])
    p_values = [stats.kstest(x @ d, mixture_cdf(mixture, d)).pvalue for d in directions]
    return min(p_values) > FALSE_ALARM / len(directions)
