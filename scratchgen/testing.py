"""Hypothesis strategies for the theory: random problems for the conformance checks; and checks of an audit as tests.

Needs the extra `test`.  The tolerances of the checks were measured for these ranges: logits of tables are in [−6, 6],
so that no probability is 0; covariances are A Aᵀ + 0.1 I; data for EM are multiples of 2⁻¹⁰, so that the addition of an
offset 2¹⁰ or 2²⁰ is exact.

>>> from hypothesis import given, settings
>>> from scratchgen.conformance import check_forward_process
>>> from scratchgen.testing import schedules
>>> @settings(max_examples=5, derandomize=True)
... @given(schedules())
... def test_q_sample(schedule):
...     mine = lambda t, x0, noise: schedule.alpha_bar[t] * x0 + schedule.beta_bar[t] * noise
...     assert check_forward_process(mine, schedule), check_forward_process(mine, schedule)
>>> test_q_sample()
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

try:
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays
except ModuleNotFoundError as error:
    remedy = "run in the checkout: pip install '.[test]'"
    raise ModuleNotFoundError(f"scratchgen.testing needs {error.name}; {remedy}") from None

from scratchgen.likelihood import softmax
from scratchgen.mixture import Mixture
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import VE, VP, LinearSDE, SubVP
from scratchgen.validation import Array, as_arrays, as_count, as_number

if TYPE_CHECKING:
    import pytest

GRID = 2.0**-10
HARD_MODES = ("plain", "offset 2^10", "far component", "all far", "duplicates", "collinear")


def reals(shape: int | tuple[int, ...], low: float, high: float) -> st.SearchStrategy[Array]:
    """Arrays of independent numbers in [low, high]; arrays of Hypothesis would repeat one value in most entries."""
    return arrays(np.float64, shape, elements=st.floats(low, high, allow_subnormal=False), fill=st.nothing())


def cut(flat: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Cut one long draw into arrays of these shapes; one draw is several times faster than several."""
    ends = np.cumsum([0, *(np.prod(shape, dtype=int) for shape in shapes)])
    return [flat[a:b].reshape(shape) for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]


def size(*shapes: tuple[int, ...]) -> tuple[int]:
    """The length of the draw that `cut` needs for these shapes."""
    return (int(sum(np.prod(shape) for shape in shapes)),)


# --- tables ------------------------------------------------------------------------------------------------------


class Tables(NamedTuple):
    """A discrete latent-variable model, an encoder, and the distribution of the data; every entry is positive.

    The shapes are p (X,), q (X, Z), decoder (X, Z) and prior (Z,).  Rows of q and columns of the decoder sum to 1.
    """

    p: Array  # (X,) p(x) of the data
    q: Array  # (X, Z) q(z | x), rows sum to 1
    decoder: Array  # (X, Z) p_θ(x | z), columns sum to 1
    prior: Array  # (Z,) q(z)

    @property
    def joint(self) -> Array:
        """p_θ(x, z), (X, Z)."""
        return self.decoder * self.prior


@st.composite
def tables(draw: st.DrawFn, max_x: int = 6, max_z: int = 6) -> Tables:
    """`Tables` with 2..max_x values of x and 1..max_z values of z."""
    nx, nz = draw(st.integers(2, max_x)), draw(st.integers(1, max_z))
    shapes = (nx,), (nx, nz), (nx, nz), (nz,)
    p, q, decoder, prior = cut(draw(reals(size(*shapes), -6, 6)), *shapes)
    return Tables(softmax(p), softmax(q), softmax(decoder, axis=0), softmax(prior))


# --- Gaussians and mixtures --------------------------------------------------------------------------------------


def as_spd(A: Array) -> Array:
    """A Aᵀ + 0.1 I for a stack of A."""
    A = as_arrays("A (..., D, k)", A)
    return A @ A.swapaxes(-1, -2) + 0.1 * np.eye(A.shape[-2])


def spd(dimension: int, entry: float = 2.0) -> st.SearchStrategy[Array]:
    """Symmetric positive definite matrices A Aᵀ + 0.1 I with entries of A in [−entry, entry]."""
    dimension, entry = as_count(dimension, "dimension"), as_number(entry, "entry", low=0.0, open_low=True)
    return reals((dimension, dimension), -entry, entry).map(as_spd)


@st.composite
def pairs_of_gaussians(draw: st.DrawFn, max_dimension: int = 4) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """((mean, covariance), (mean, covariance)), means in [−5, 5], covariances as in `spd`."""
    D = draw(st.integers(1, max_dimension))
    m, n, A, B = cut(draw(reals(size((D,), (D,), (D, D), (D, D)), -1, 1)), (D,), (D,), (D, D), (D, D))
    return (5 * m, as_spd(2 * A)), (5 * n, as_spd(2 * B))


class LinearGaussian(NamedTuple):
    """p(z) = N(0, I), p(x | z) = N(W z + mean, noise_variance I), three points, and q(z | x) = N(q_mean[n], q_cov)."""

    W: Array  # (D, k)
    mean: Array  # (D,)
    noise_variance: float
    x: Array  # (3, D)
    q_mean: Array  # (3, k)
    q_cov: Array  # (k, k)


@st.composite
def linear_gaussians(draw: st.DrawFn) -> LinearGaussian:
    """`LinearGaussian` with D 1..4, k 1..3 and noise variances from 0.05 to 4."""
    D, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    log_variance = draw(st.floats(np.log(0.05), np.log(4)))
    shapes = (D, k), (D,), (3, D), (3, k), (k, k)
    W, mean, x, q_mean, A = cut(draw(reals(size(*shapes), -1, 1)), *shapes)
    return LinearGaussian(2 * W, 3 * mean, float(np.exp(log_variance)), 5 * x, 3 * q_mean, as_spd(2 * A))


@st.composite
def mixtures_and_points(
    draw: st.DrawFn, n: int = 5, max_dimension: int = 3, max_components: int = 4
) -> tuple[Mixture, Array]:
    """A mixture with means in [−4, 4] and covariances A Aᵀ + 0.1 I, |A| <= 1, and n points in [−8, 8]."""
    D, K = draw(st.integers(1, max_dimension)), draw(st.integers(1, max_components))
    shapes = (K,), (K, D), (K, D, D), (n, D)
    logits, means, A, x = cut(draw(reals(size(*shapes), -1, 1)), *shapes)
    return Mixture(softmax(3 * logits), 4 * means, as_spd(A)), 8 * x


def mixtures(max_dimension: int = 3, max_components: int = 4) -> st.SearchStrategy[Mixture]:
    """Mixtures as in `mixtures_and_points`."""
    return mixtures_and_points(0, max_dimension, max_components).map(lambda pair: pair[0])


# --- EM ----------------------------------------------------------------------------------------------------------


class EMProblem(NamedTuple):
    """Data x (N, D), multiples of 2⁻¹⁰, and a `Mixture` as the start of EM, with unit covariances."""

    x: Array  # (N, D)
    mixture: Mixture


@st.composite
def em_problems(draw: st.DrawFn, modes: Sequence[str] = HARD_MODES, max_components: int = 4) -> EMProblem:
    """N 1..12, D 1..3, K 1..4, without or with one difficulty.

    "offset 2^10": data far from 0.  "far component": one component starts at distance 1e3.  "all far": all components
    start at distance 100.  "duplicates": one point many times.  "collinear": a line in D dimensions.
    """
    N, D, K = draw(st.integers(1, 12)), draw(st.integers(1, 3)), draw(st.integers(1, max_components))
    unknown = set(modes) - set(HARD_MODES)
    if unknown:
        raise ValueError(f"modes must be among {', '.join(HARD_MODES)}, got {sorted(unknown)[0]!r}")
    mode = draw(st.sampled_from(list(modes)))
    entries = arrays(np.int64, ((N + K) * D,), elements=st.integers(-5120, 5120), fill=st.nothing())
    x, means = cut(draw(entries) * GRID, (N, D), (K, D))
    match mode:
        case "offset 2^10":
            x, means = x + 2.0**10, means + 2.0**10
        case "far component":
            means[0] += 1e3
        case "all far":
            means += 100
        case "duplicates":
            x = np.repeat(x[:1], N, axis=0)
        case "collinear":
            x = x[:, :1] * np.arange(1, D + 1)
    weights = softmax(draw(reals((K,), -3, 3)))
    return EMProblem(x, Mixture(weights, means, np.tile(np.eye(D), (K, 1, 1))))


# --- schedules and processes -------------------------------------------------------------------------------------


def variances(low: float, high: float, max_T: int = 40) -> st.SearchStrategy[Array]:
    """Variances β² of single steps, partly log-uniform and partly uniform, so that both ends of (0, 1) occur."""
    low, high, max_T = as_number(low, "low"), as_number(high, "high"), as_count(max_T, "max_T")
    if not 0 < low <= high < 1:
        raise ValueError(f"low and high must satisfy 0 < low <= high < 1, got {low} and {high}")

    def mixed(u: Array) -> Array:
        logarithmic = np.clip(np.exp(np.log(low) + np.log(high / low) * u[1::2]), low, high)
        return np.where(u[::2] < 0.5, low + (high - low) * u[1::2], logarithmic)

    return st.integers(1, max_T).flatmap(lambda T: reals((2 * T,), 0, 1)).map(mixed)


@st.composite
def schedules(draw: st.DrawFn, low: float = 1e-3, high: float = 0.9, max_T: int = 40, min_T: int = 1) -> NoiseSchedule:
    """Schedules of min_T..max_T steps with variances in [low, high] in any order."""
    v = draw(variances(low, high, max_T))
    return NoiseSchedule(np.resize(v, max(min_T, len(v))))


@st.composite
def schedules_and_t(
    draw: st.DrawFn, low: float = 1e-3, high: float = 0.9, max_T: int = 40, first: int = 1
) -> tuple[NoiseSchedule, int]:
    """(schedule, t) with first <= t <= T."""
    schedule = draw(schedules(low, high, max_T, min_T=first))
    return schedule, draw(st.integers(first, schedule.T))


@st.composite
def sdes(draw: st.DrawFn, kinds: Sequence[type[LinearSDE]] = (VP, SubVP, VE), low: float = 0.0) -> Any:
    """VP and sub-VP with ∫β up to about 8, VE with a ratio of up to 50, on horizons from 0.2 to 3.

    A horizon of 1 would hide a missing factor T.  `low` is the least β(0) · horizon of VP and sub-VP.
    """
    kind, horizon, u, v = draw(st.sampled_from(list(kinds))), draw(st.floats(0.2, 3)), *draw(reals(2, 0, 1))
    if kind is VE:
        sigma_min = 0.05 + 0.45 * u
        return VE(sigma_min, sigma_min * 50 ** (0.2 + 0.8 * v), horizon)
    return kind((low + 2 * u) / horizon, (0.3 + 6 * v) / horizon, horizon)  # type: ignore[call-arg]


# --- pytest ------------------------------------------------------------------------------------------------------


def parametrize_with_checks(**arguments: Any) -> "pytest.MarkDecorator":
    """Make each check of an audit a test; the decorated test gets the check and calls it.

    A check runs when its test calls it.  It raises AssertionError with the diagnosis, and an error of the code under
    test comes through with its traceback.  Notes of the check are warnings, which pytest shows in its summary.

    Parameters
    ----------
    arguments
        Those of `scratchgen.conformance.audit`.

    Examples
    --------
    >>> import numpy as np
    >>> betas = np.linspace(1e-4, 0.02, 1000)
    >>> a = np.cumprod(1 - betas)
    >>> def q_sample(t, x0, noise):
    ...     return np.sqrt(a[t]) * x0 + np.sqrt(1 - a[t]) * noise
    >>> @parametrize_with_checks(betas=betas, zero_based=True, q_sample=q_sample)
    ... def test_my_ddpm(check):  # its id is test_my_ddpm[q_sample: check_forward_process]
    ...     check()
    """
    import pytest

    from scratchgen.conformance.audit import planned

    items = planned(**arguments)
    return pytest.mark.parametrize("check", items, ids=[item.name for item in items])
