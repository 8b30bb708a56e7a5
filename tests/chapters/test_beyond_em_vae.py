"""Beyond the deck: ELBO surgery, IWAE by enumeration, the rate of EM; wrong twins fail."""

import warnings
from itertools import product

import numpy as np
import pytest

from scratchgen import Mixture
from scratchgen.conformance import check_iwae_ladder, check_kl_parts, check_missing_information
from scratchgen.em import missing_fractions
from scratchgen.likelihood import kl_discrete, softmax
from scratchgen.vae import importance_weighted_bound, iwae_table, kl_parts_table
from scratchgen.variational import elbo_table


def named(check, sentence):
    assert not check
    assert sentence in check.diagnosis, check


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(seed, n_x=4, n_z=3):
    rng = np.random.default_rng(seed)
    p_x, prior = softmax(rng.standard_normal(n_x)), softmax(rng.standard_normal(n_z))
    q = softmax(2 * rng.standard_normal((n_x, n_z)))
    joint = softmax(2 * rng.standard_normal(n_x * n_z)).reshape(n_x, n_z)
    return p_x, q, prior, joint


@pytest.mark.equation("elbo-surgery")
@pytest.mark.parametrize("seed", range(5))
def test_the_parts_of_the_mean_kl_add_up(seed):
    p_x, q, prior, _ = tables(seed, 3 + seed, 2 + seed)
    assert check_kl_parts(kl_parts_table, p_x, q, prior)
    information, aggregate = kl_parts_table(p_x, q, prior)
    assert p_x @ information + aggregate == pytest.approx(p_x @ kl_discrete(q, prior), abs=1e-14)


@pytest.mark.equation("elbo-surgery")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda p, q, r: (kl_discrete(q, r), 0.0), "the KL to the prior, not to the aggregate"),
        (lambda p, q, r: (kl_discrete(q, q.mean(axis=0)), kl_parts_table(p, q, r)[1]), "without p(x)"),
        (lambda p, q, r: (p * kl_parts_table(p, q, r)[0], kl_parts_table(p, q, r)[1]), "it is weighted by p(x)"),
        (lambda p, q, r: (kl_parts_table(p, q, r)[0], kl_discrete(r, p @ q)), "expected"),
        (lambda p, q, r: (kl_discrete(p @ q, q), kl_parts_table(p, q, r)[1]), "expected"),
        (lambda p, q, r: (kl_parts_table(p, q, r)[0] / np.log(2), kl_parts_table(p, q, r)[1]), "expected"),
    ],
)
def test_wrong_parts_fail(wrong, sentence):
    p_x, q, prior, _ = tables(0)
    named(check_kl_parts(wrong, p_x, q, prior), sentence)


@pytest.mark.equation("iwae")
@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_of_iwae_rise_to_log_p(seed):
    _, q, _, joint = tables(seed, 3, 2 + seed % 2)
    assert check_iwae_ladder(iwae_table, joint, q)
    log_p = np.log(joint.sum(axis=1))
    values = np.array([iwae_table(joint, q, n) for n in range(1, 8)])
    np.testing.assert_allclose(values[0], elbo_table(joint, q), rtol=0, atol=1e-14)
    assert (np.diff(values, axis=0) > 0).all()
    assert (values < log_p).all()
    posterior = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([iwae_table(joint, posterior, n) for n in (1, 3)], [log_p] * 2, rtol=0, atol=1e-14)


@pytest.mark.equation("iwae")
def test_the_gap_of_iwae_falls_as_the_variance_of_the_weights_over_2n():
    _, q, _, joint = tables(1, 3, 2)
    q = 0.9 * joint / joint.sum(axis=1, keepdims=True) + 0.05
    p_x = joint.sum(axis=1)
    variance = (q * (joint / q / p_x[:, None] - 1) ** 2).sum(axis=1)
    gap = np.log(p_x) - iwae_table(joint, q, 14)
    np.testing.assert_allclose(gap, variance / 28, rtol=0.02)


def of_weights(bound):
    """IWAE by enumeration with another bound of a tuple of log-weights (n, X)."""

    def iwae(joint, q, n):
        log_w, total = np.log(joint) - np.log(q), 0.0
        for draw in product(range(q.shape[1]), repeat=n):
            total = total + q[:, draw].prod(axis=1) * bound(log_w[:, draw].T)
        return total

    return iwae


@pytest.mark.parametrize(
    ("bound", "sentence"),
    [
        (lambda w: w[0], "it is the ELBO for every n"),
        (lambda w: w.mean(axis=0), "it is the ELBO for every n"),
        (lambda w: np.log(np.exp(w).sum(axis=0)), "log n is not subtracted"),
        (lambda w: w.max(axis=0), "the largest weight"),
        (lambda w: np.log(np.linspace(0.5, 1.5, len(w)) @ np.exp(w) / len(w)) if len(w) > 1 else w[0], "expected"),
        (lambda w: np.log((np.exp(w[0]) + np.exp(w[-1])) / 2), "expected"),
        (lambda w: -importance_weighted_bound(-w), "expected"),
    ],
)
def test_wrong_bounds_of_tuples_fail(bound, sentence):
    _, q, _, joint = tables(2)
    assert check_iwae_ladder(of_weights(importance_weighted_bound), joint, q)
    named(check_iwae_ladder(of_weights(bound), joint, q), sentence)


def test_zeros_in_tables_cost_nothing_where_q_is_0_too():
    joint, q = np.array([[0.3, 0.0], [0.2, 0.5]]), np.array([[1.0, 0.0], [0.4, 0.6]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert iwae_table(joint, q, 3)[0] == pytest.approx(np.log(0.3))
    with pytest.raises(ValueError, match="n_draws must be at least 1"):
        iwae_table(joint, q, 0)


# --- the rate of EM ---------------------------------------------------------------------------------------------------

DATA = np.random.default_rng(3).standard_normal((40, 2)) * [1.0, 0.7] + np.where(np.arange(40) < 16, 1.2, -0.8)[:, None]
START = Mixture([0.4, 0.6], [[1.0, 1.0], [-1.0, -1.0]], [[[0.9, 0.2], [0.2, 0.5]], [[0.8, 0.0], [0.0, 0.6]]])
PARAMETERS = START.weights, START.means, START.covariances


def em_step(x, mixture):
    resp = mixture.posterior(x)
    return Mixture(mixture.weights, (resp.T @ x) / resp.sum(axis=0)[:, None], mixture.covariances)


def fixed_point(x, mixture, n=3000):
    for _ in range(n):
        mixture = em_step(x, mixture)
    return mixture


@pytest.mark.equation("em-rate")
def test_the_fractions_are_the_eigenvalues_of_an_em_step():
    assert check_missing_information(lambda x, *p: missing_fractions(x, Mixture(*p)), DATA, *PARAMETERS)
    line = Mixture([0.5, 0.3, 0.2], [[-1.0], [0.2], [1.5]], [[[0.3]], [[0.2]], [[0.4]]])
    x = np.sin(np.arange(30.0))[:, None] * 2
    parameters = line.weights, line.means, line.covariances
    assert check_missing_information(lambda x, *p: missing_fractions(x, Mixture(*p)), x, *parameters)


@pytest.mark.equation("em-rate")
def test_errors_of_em_shrink_by_the_largest_fraction_and_gains_by_its_square():
    end = fixed_point(DATA, START)
    rate = missing_fractions(DATA, end)[0]
    assert 0.1 < rate < 1
    errors, bounds, mixture = [], [], START
    for _ in range(14):
        errors.append(np.linalg.norm(mixture.means - end.means))
        bounds.append(mixture.log_prob(DATA).sum())
        mixture = em_step(DATA, mixture)
    assert errors[-1] / errors[-2] == pytest.approx(rate, rel=2e-3)
    gains = np.diff(bounds)
    assert gains[-1] / gains[-2] == pytest.approx(rate**2, rel=1e-2)
    rest = end.log_prob(DATA).sum() - bounds[-1]
    assert rest == pytest.approx(gains[-1] * rate**2 / (1 - rate**2), rel=1e-2)


def test_separate_components_miss_nothing_and_equal_ones_miss_almost_all():
    apart = Mixture([0.5, 0.5], [[-20.0], [20.0]], [[[1.0]], [[1.0]]])
    x = np.append(np.linspace(-21, -19, 9), np.linspace(19, 21, 9))[:, None]
    np.testing.assert_allclose(missing_fractions(x, apart), 0.0, atol=1e-12)
    close = Mixture([0.5, 0.5], [[-0.01], [0.01]], [[[1.0]], [[1.0]]])
    x = np.linspace(-1.7, 1.7, 60)[:, None]
    assert missing_fractions(x / x.std(), close)[0] == pytest.approx(1.0, abs=1e-3)


def ours_em(x, *p):
    return missing_fractions(x, Mixture(*p))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda x, *p: 1 - ours_em(x, *p)[::-1], "fractions of observed information"),
        (lambda x, *p: ours_em(x, *p)[::-1], "in rising order"),
        (lambda x, *p: ours_em(x, *p) ** 2, "they are the squares"),
        (lambda x, *p: ours_em(x, p[0][::-1], *p[1:]), "expected"),
        (lambda x, *p: ours_em(x, *p[:2], np.eye(2) + 0 * p[2]), "expected"),
        (lambda x, *p: ours_em(x, *p) * (1 + 1e-8), "expected"),
        (lambda x, *p: ours_em(x[:20], *p), "expected"),
    ],
)
def test_wrong_fractions_fail(wrong, sentence):
    named(check_missing_information(wrong, DATA, *PARAMETERS), sentence)
