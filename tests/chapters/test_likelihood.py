"""Equations (1)-(2): entropies, cross-entropies and KL against sums, quadrature and textbook formulas.

KL >= 0 alone finds almost no mistake: a KL with swapped arguments, or doubled, is also >= 0.  Every inequality is
therefore tested together with an independent oracle and with its equality case.
"""

from math import fsum, log

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from scratchgen.likelihood import (
    bits_per_dim,
    cross_entropy_discrete,
    cross_entropy_gaussian,
    entropy_discrete,
    entropy_gaussian,
    gaussian_log_prob,
    kl_diag_standard,
    kl_discrete,
    kl_gaussian,
    logsumexp,
    softmax,
)
from scratchgen.testing import pairs_of_gaussians, reals, tables
from tests.strategies import residual

# --- log sum exp ------------------------------------------------------------------------------------------


@given(st.sampled_from([(3,), (4, 2), (3, 1, 2), (2, 3, 4)]).flatmap(lambda shape: reals(shape, -900, 900)))
def test_logsumexp_is_scipys_on_every_axis(a):
    for axis in range(-1, a.ndim):
        assert residual(logsumexp(a, axis=axis), special.logsumexp(a, axis=axis)) < 1e-14


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64])
def test_logsumexp_and_softmax_take_bools_and_ints(dtype):
    a = np.array([[1, 0, 1], [0, 0, 1]], dtype=dtype)
    assert logsumexp(a).dtype == np.float64
    assert residual(logsumexp(a), special.logsumexp(a.astype(float), axis=-1)) < 1e-15
    assert residual(softmax(a), special.softmax(a.astype(float), axis=-1)) < 1e-15


def test_logsumexp_of_infinities_is_the_limit():
    a = np.array([[-np.inf, -np.inf], [-np.inf, 3.0], [np.inf, 0.0]])
    assert np.array_equal(logsumexp(a), [-np.inf, 3.0, np.inf])


@given(st.sampled_from([(3,), (4, 2), (3, 1, 2), (2, 3, 4)]).flatmap(lambda shape: reals(shape, -300, 300)))
def test_softmax_is_scipys_on_every_axis(a):
    for axis in range(-1, a.ndim):
        assert residual(softmax(a, axis=axis), special.softmax(a, axis=axis)) < 1e-14


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_and_logsumexp_keep_the_dtype_and_meet_no_subnormal_number(dtype):
    """Subnormal numbers take 10 to 50 times as long; terms that would be subnormal become 0."""
    tiny = np.finfo(dtype).tiny
    depth = -2 * np.log(tiny)
    a = np.append(np.linspace(0, -depth, 4001), -np.inf).astype(dtype)
    with np.errstate(under="raise"):
        law, total = softmax(a), logsumexp(a)
    assert law.dtype == total.dtype == dtype
    assert ((law == 0) | (law >= tiny)).all()
    assert np.allclose(law, special.softmax(a.astype(float)), rtol=1e-4, atol=2 * len(a) * tiny / np.finfo(dtype).eps)


# --- discrete ---------------------------------------------------------------------------------------------


@pytest.mark.equation(1, 2)
@given(tables())
def test_discrete_quantities_are_their_sums(table):
    p, q = table.p, table.decoder[:, 0]
    pairs = list(zip(p, q, strict=True))
    assert residual(entropy_discrete(p), fsum(-a * log(a) for a in p)) < 1e-13
    assert residual(cross_entropy_discrete(p, q), fsum(-a * log(b) for a, b in pairs)) < 1e-13
    assert residual(kl_discrete(p, q), fsum(a * log(a / b) for a, b in pairs)) < 1e-13


@pytest.mark.equation(2)
@given(tables())
def test_discrete_kl_is_zero_at_the_match_and_at_least_pinskers_bound_elsewhere(table):
    p, q = table.p, table.decoder[:, 0]
    assert kl_discrete(p, p) == 0
    assert kl_discrete(p, q) >= 0.5 * np.abs(p - q).sum() ** 2 - 1e-15


@pytest.mark.equation(1, 2)
@given(tables())
def test_maximum_likelihood_is_minimum_kl(table):
    """(1)-(2): E log p_θ and KL rank the models equally, and differ by H(p)."""
    models = table.decoder.T
    kl = kl_discrete(table.p, models)
    log_likelihood = -cross_entropy_discrete(table.p, models)
    assert kl.shape == (len(models),)
    assert residual(kl + log_likelihood, np.full(len(models), -entropy_discrete(table.p))) < 1e-12
    assert kl.argmin() == log_likelihood.argmax()


@pytest.mark.equation(1)
@given(reals((4,), -3, 3), reals((4,), -1, 1))
def test_frequencies_are_the_maximum_likelihood_model(logits, direction):
    """The maximum of (1) over all tables is p: there the derivative along every direction is 0."""
    p, h = softmax(logits), 1e-4
    up, down = (cross_entropy_discrete(p, softmax(np.log(p) + s * direction)) for s in (h, -h))
    assert abs(up - down) / (2 * h) < 1e-7
    assert min(up, down) >= cross_entropy_discrete(p, p) - 1e-15


@pytest.mark.equation(1, 2)
def test_zero_log_zero_is_zero_and_a_missing_atom_is_infinitely_far():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert entropy_discrete(p) == pytest.approx(np.log(2), abs=1e-15)
    assert cross_entropy_discrete(p, q) == pytest.approx(np.log(4), abs=1e-15)
    assert kl_discrete(p, q) == pytest.approx(np.log(2), abs=1e-15)
    assert kl_discrete(q, p) == np.inf
    assert cross_entropy_discrete(q, p) == np.inf
    assert kl_discrete(p, p) == 0
    assert entropy_discrete(np.array([1.0, 0.0])) == 0


def test_discrete_quantities_reduce_the_last_axis_only():
    p = softmax(np.random.default_rng(0).normal(size=(2, 3, 4)))
    q = softmax(np.random.default_rng(1).normal(size=(4,)))
    for batch, single in (
        (entropy_discrete(p), lambda row: entropy_discrete(row)),
        (cross_entropy_discrete(p, q), lambda row: cross_entropy_discrete(row, q)),
        (kl_discrete(p, q), lambda row: kl_discrete(row, q)),
    ):
        assert residual(batch, np.array([[single(row) for row in rows] for rows in p])) < 1e-15


def test_bits_per_dim_of_whole_numbers_themselves_need_no_scale():
    assert bits_per_dim(6 * np.log(2), 3) == pytest.approx(2, rel=1e-15)


# --- Gaussian density -------------------------------------------------------------------------------------


@given(
    reals((5, 3), -9, 9),
    reals((5, 3), -9, 9),
    st.sampled_from([(), (3,), (5, 3)]).flatmap(lambda shape: reals(shape, -4, 4)),
)
def test_gaussian_log_prob_is_scipys(x, mean, log_variance):
    """exp(log_variance) is a variance, not a standard deviation; a scalar, one per column, or one per value."""
    oracle = stats.norm.logpdf(x, mean, np.exp(log_variance / 2)).sum(axis=1)
    assert residual(gaussian_log_prob(x, mean, log_variance), oracle) < 1e-12
    if log_variance.ndim == 0:
        assert residual(gaussian_log_prob(x, mean, float(log_variance)), oracle) < 1e-12


def test_gaussian_log_prob_broadcasts_one_mean_or_one_x():
    x, mean = np.random.default_rng(0).normal(size=(2, 5, 3))
    for a, b in (x, mean[0]), (x[0], mean), (x[:1], mean), (x, mean[:1]):
        oracle = stats.norm.logpdf(a, b, np.exp(0.15)).sum(axis=-1)
        assert residual(gaussian_log_prob(a, b, 0.3), oracle) < 1e-14


def test_gaussian_log_prob_keeps_float32():
    x = np.ones((2, 3), np.float32)
    assert gaussian_log_prob(x, np.zeros(3, np.float32), 0.5).dtype == np.float32
    assert gaussian_log_prob(x, np.zeros(3, np.float32), np.full(3, 0.5)).dtype == np.float32


def test_gaussian_log_prob_is_double_where_either_argument_is():
    x, mean = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    exact = gaussian_log_prob(x.astype(float), mean.astype(float), 0.3)
    assert residual(gaussian_log_prob(x.astype(float), mean, 0.3), exact) < 1e-14
    assert residual(gaussian_log_prob(x, mean.astype(float), 0.3), exact) < 1e-14


def test_gaussian_log_prob_of_whole_numbers_does_not_round_the_variance():
    x, mean = np.array([[1, -2, 0]]), np.array([0, 1, 3])
    assert residual(gaussian_log_prob(x, mean, 0.3), gaussian_log_prob(x.astype(float), mean, 0.3)) < 1e-7


# --- Gaussian entropies -----------------------------------------------------------------------------------


@pytest.mark.equation(1, 2, "kl-of-gaussians")
@given(pairs_of_gaussians())
def test_gaussian_quantities_are_the_textbooks(pair):
    """Against inverse and determinant, which the package avoids."""
    (m, S), (n, R) = pair
    P, D, shift = np.linalg.inv(R), len(m), m - n
    log_det_S, log_det_R = np.linalg.slogdet(S)[1], np.linalg.slogdet(R)[1]
    quadratic = np.trace(P @ S) + shift @ P @ shift
    assert residual(entropy_gaussian(S), 0.5 * (D * np.log(2 * np.pi * np.e) + log_det_S)) < 1e-10
    cross_entropy = 0.5 * (D * np.log(2 * np.pi) + log_det_R + quadratic)
    assert residual(cross_entropy_gaussian(m, S, n, R), cross_entropy) < 1e-10
    assert residual(kl_gaussian(m, S, n, R), 0.5 * (quadratic - D + log_det_R - log_det_S)) < 1e-10


@pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 5, 3)], ids=str)
def test_diagonal_gaussian_quantities_sum_the_last_axis(shape):
    """Row by row: the KL against the general one with a diagonal matrix, the density against SciPy's."""
    x, mean, log_variance = np.random.default_rng(0).normal(size=(3, *shape))
    rows = zip(mean.reshape(-1, 3), log_variance.reshape(-1, 3), strict=True)
    expected = [kl_gaussian(m, np.diag(np.exp(v)), np.zeros(3), np.eye(3)) for m, v in rows]
    assert residual(kl_diag_standard(mean, log_variance), np.reshape(expected, shape[:-1])) < 1e-13
    oracle = stats.norm.logpdf(x, mean, np.exp(log_variance / 2)).sum(axis=-1)
    assert residual(gaussian_log_prob(x, mean, log_variance), oracle) < 1e-13


@pytest.mark.equation("vae-regulariser")
@pytest.mark.parametrize("sign", [1, -1])
def test_diagonal_kl_near_zero_has_the_error_that_its_docstring_states(sign):
    """½(e^v − 1 − v) against 80 digits: the relative error is below 2 ε/|v|; without expm1 it is of the order ε/v²."""
    v = sign * np.concatenate([np.geomspace(1e-15, 1.0, 200), [1e-12, 1e-6]])
    with mpmath.workdps(80):
        exact = np.array([float((mpmath.expm1(float(a)) - float(a)) / 2) for a in v])
    values = kl_diag_standard(np.zeros((len(v), 2)), np.stack([v, 0 * v], axis=1))
    epsilon = np.finfo(float).eps
    assert (np.abs(values / exact - 1) < 2 * epsilon / np.abs(v)).all()
    assert np.abs(values / exact - 1)[-2] < 1e-4  # at v = 1e-12
    assert np.abs(values / exact - 1)[-1] < 3e-10  # at v = 1e-6
    naive = 0.5 * (np.exp(v) - 1 - v)
    assert np.median(np.abs(naive - exact)[np.abs(v) < 1e-3]) > 1e-17
    assert kl_diag_standard(np.zeros((1, 4)), np.zeros((1, 4))) == 0


@pytest.mark.parametrize(
    "covariance",
    [-np.eye(2), np.diag([1.0, -1.0]), np.ones((2, 2)) - np.eye(2)],
    ids=["negative", "indefinite", "indefinite, zero diagonal"],
)
def test_an_invalid_covariance_is_an_error(covariance):
    """−I has determinant +1 in two dimensions, so that slogdet alone would return an entropy."""
    with pytest.raises(np.linalg.LinAlgError):
        entropy_gaussian(covariance)
    with pytest.raises(np.linalg.LinAlgError):
        kl_gaussian(np.zeros(2), covariance, np.zeros(2), np.eye(2))
    with pytest.raises(np.linalg.LinAlgError):
        cross_entropy_gaussian(np.zeros(2), np.eye(2), np.zeros(2), covariance)


def test_no_rows_have_no_sums():
    assert logsumexp(np.zeros((0, 3))).shape == (0,)
    assert softmax(np.zeros((0, 3))).shape == (0, 3)
