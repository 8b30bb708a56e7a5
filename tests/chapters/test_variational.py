"""Equations (3)-(10): posterior, ELBO, gap and chain rule, for tables and in the linear-Gaussian model.

The inequality "ELBO <= log p" finds almost none of the usual mistakes (no entropy, its sign, a doubled KL: 0 of 500
random problems).  Therefore the gap is compared with the KL that it must equal, and with 0 at the posterior.
"""

from math import fsum, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen.em import m_step_table
from scratchgen.likelihood import (
    cross_entropy_discrete,
    kl_discrete,
    kl_gaussian,
    softmax,
)
from scratchgen.testing import cut, reals, size, spd, tables
from scratchgen.variational import (
    elbo_split_table,
    elbo_table,
    joint_kl_table,
    linear_gaussian_elbo,
    linear_gaussian_log_prob,
    linear_gaussian_posterior,
    posterior_table,
)
from tests.strategies import residual

# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.equation(5)
@given(tables())
def test_elbo_is_its_definition(table):
    """E_q log p(x, z) + H(q), term by term."""
    oracle = [
        fsum(r * (log(j) - log(r)) for r, j in zip(q, joint, strict=True))
        for q, joint in zip(table.q, table.joint, strict=True)
    ]
    assert residual(elbo_table(table.joint, table.q), np.array(oracle)) < 1e-12


@pytest.mark.equation(7)
@given(tables())
def test_split_elbo_is_reconstruction_minus_kl_to_the_prior(table):
    """Term by term: KL(q‖prior), not KL(prior‖q)."""
    oracle = [
        fsum(r * log(d) for r, d in zip(q, row, strict=True))
        - fsum(r * log(r / b) for r, b in zip(q, table.prior, strict=True))
        for q, row in zip(table.q, table.decoder, strict=True)
    ]
    assert residual(elbo_split_table(table.decoder, table.prior, table.q), np.array(oracle)) < 1e-12


@pytest.mark.equation(12)
@given(tables())
def test_joint_kl_is_its_definition(table):
    oracle = fsum(
        table.p[x] * table.q[x, z] * log(table.p[x] * table.q[x, z] / (table.decoder[x, z] * table.prior[z]))
        for x, z in np.ndindex(table.q.shape)
    )
    assert residual(joint_kl_table(table.p, table.q, table.decoder, table.prior), oracle) < 1e-12


@pytest.mark.equation(9, 10, 16, 17, 18)
@given(tables(), st.data())
def test_e_step_makes_the_joint_kl_the_marginal_one_and_minimal(table, data):
    """Any other q adds exactly E_p KL(q‖posterior)."""
    posterior, evidence = posterior_table(table.joint)
    least = joint_kl_table(table.p, posterior, table.decoder, table.prior)
    assert residual(least, kl_discrete(table.p, evidence)) < 1e-11
    direction = data.draw(reals(table.q.shape, -1, 1))
    for other in table.q, softmax(np.log(posterior) + 1e-2 * direction):
        excess = joint_kl_table(table.p, other, table.decoder, table.prior) - least
        assert residual(excess, table.p @ kl_discrete(other, posterior)) < 1e-11
        assert excess >= -1e-12


@pytest.mark.equation(15, 17, 18)
@given(tables())
def test_alternating_minimisation_never_raises_the_joint_kl(table):
    """EM for tables: after E the joint KL is KL(p‖p_θ), after a free M it is KL(q(z)‖prior)."""
    decoder, values = table.decoder, []
    for _ in range(3):
        q, evidence = posterior_table(decoder * table.prior)
        values.append(joint_kl_table(table.p, q, decoder, table.prior))
        assert residual(values[-1], kl_discrete(table.p, evidence)) < 1e-11
        decoder, aggregate = m_step_table(table.p, q)
        values.append(joint_kl_table(table.p, q, decoder, table.prior))
        assert residual(values[-1], kl_discrete(aggregate, table.prior)) < 1e-11
    assert np.all(np.diff(values) <= 1e-12)


@pytest.mark.equation(3, 5, 7, 12)
def test_tables_with_zeros_give_limits_without_a_warning():
    """0 log 0 = 0 in q; q > 0 where the joint is 0 gives an infinite KL; neither warns."""
    joint = np.array([[0.5, 0.0], [0.25, 0.25]])
    posterior, evidence = posterior_table(joint)
    assert np.array_equal(posterior, [[1, 0], [0.5, 0.5]])
    assert residual(elbo_table(joint, posterior), np.log(evidence)) < 1e-15
    elbo = elbo_table(joint, np.array([[0.5, 0.5], [1.0, 0.0]]))
    assert elbo == pytest.approx([-np.inf, np.log(0.25)], rel=1e-14)
    decoder, prior = np.array([[2 / 3, 0.0], [1 / 3, 1.0]]), np.array([0.75, 0.25])
    assert residual(elbo_split_table(decoder, prior, posterior), elbo_table(joint, posterior)) < 1e-15
    joint_kl = joint_kl_table(np.array([1.0, 0.0]), posterior, decoder, prior)
    assert joint_kl == pytest.approx(np.log(2), rel=1e-14)


# --- the linear-Gaussian model ----------------------------------------------------------------------------


class Model:
    """(W, μ, σ²), three data points, and the joint covariance of (x, z) for the oracles."""

    def __init__(self, W, mean, noise_variance, x):
        self.parameters = (W, mean, noise_variance)
        self.x = x
        self.D, self.k = W.shape
        self.covariance = W @ W.T + noise_variance * np.eye(self.D)
        self.regression = np.linalg.solve(self.covariance, W).T  # Cov(z, x) Cov(x)⁻¹
        self.posterior_mean = (x - mean) @ self.regression.T
        self.posterior_cov = np.eye(self.k) - self.regression @ W
        self.log_prob = np.atleast_1d(stats.multivariate_normal.logpdf(x, mean, self.covariance))


@st.composite
def models(draw):
    D, k, log_variance = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
        draw(st.floats(np.log(0.05), np.log(4))),
    )
    W, mean, x = cut(draw(reals(size((D, k), (D,), (3, D)), -1, 1)), (D, k), (D,), (3, D))
    return Model(2 * W, 3 * mean, float(np.exp(log_variance)), 5 * x)


@pytest.mark.equation(16)
@given(models())
def test_linear_gaussian_log_prob_is_scipys(model):
    assert residual(linear_gaussian_log_prob(model.x, *model.parameters), model.log_prob) < 1e-10


@pytest.mark.equation(7)
@given(models(), st.data())
def test_linear_gaussian_elbo_is_its_integral(model, data):
    """Sigma points m ± √k L e_i integrate the quadratic log p(x | z) exactly."""
    W, mean, noise_variance = model.parameters
    q_mean, q_cov = data.draw(reals((3, model.k), -3, 3)), data.draw(spd(model.k))
    steps = np.sqrt(model.k) * np.linalg.cholesky(q_cov).T
    z = q_mean[:, None] + np.concatenate([steps, -steps])  # (3, 2k, k)
    log_likelihood = stats.norm.logpdf(model.x[:, None], z @ W.T + mean, noise_variance**0.5).sum(axis=-1)
    kl = np.array([kl_gaussian(m, q_cov, np.zeros(model.k), np.eye(model.k)) for m in q_mean])
    elbo = linear_gaussian_elbo(model.x, *model.parameters, q_mean, q_cov)
    assert residual(elbo, log_likelihood.mean(axis=1) - kl) < 1e-10


@pytest.mark.equation(3, 5, 7, 11, 16)
def test_discrete_and_continuous_elbo_are_one_formula():
    """On a fine grid of z a linear-Gaussian model is a table; its ELBO equals the closed form, (5) = (7)."""
    z, step = np.linspace(-9, 9, 721, retstep=True)
    W, mean, noise_variance, x = (
        np.array([[1.5], [-0.4]]),
        np.array([0.2, 0.1]),
        0.6,
        np.array([[1.0, -2.0], [0.3, 0.4]]),
    )
    q_mean, q_var = np.array([[0.4], [-0.3]]), 0.3
    centres = z[:, None] * W[:, 0] + mean
    decoder = stats.norm.pdf(x[:, None], centres, noise_variance**0.5).prod(axis=-1)
    prior = stats.norm.pdf(z) * step
    q = stats.norm.pdf(z, q_mean, q_var**0.5) * step
    closed = linear_gaussian_elbo(x, W, mean, noise_variance, q_mean, np.array([[q_var]]))
    assert residual(elbo_table(decoder * prior, q), closed) < 1e-12
    assert residual(elbo_split_table(decoder, prior, q), closed) < 1e-12
    assert residual(-cross_entropy_discrete(q, decoder), closed + kl_discrete(q, prior)) < 1e-12
    posterior, evidence = posterior_table(decoder * prior)
    exact_mean, exact_cov = linear_gaussian_posterior(x, W, mean, noise_variance)
    assert residual(np.log(evidence), linear_gaussian_log_prob(x, W, mean, noise_variance)) < 1e-12
    assert residual(posterior @ z, exact_mean[:, 0]) < 1e-12
    assert residual(posterior @ z**2 - (posterior @ z) ** 2, np.full(2, exact_cov[0, 0])) < 1e-12
