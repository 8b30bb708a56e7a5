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

from scratchgen import conformance as c
from scratchgen.em import m_step_table
from scratchgen.likelihood import (
    cross_entropy_discrete,
    entropy_discrete,
    kl_diag_standard,
    kl_discrete,
    kl_gaussian,
    softmax,
)
from scratchgen.testing import cut, linear_gaussians, pairs_of_gaussians, reals, size, tables
from scratchgen.vae import importance_weighted_bound, vae_loss, vae_loss_table
from scratchgen.variational import (
    elbo_split_table,
    elbo_table,
    joint_kl_table,
    linear_gaussian_elbo,
    linear_gaussian_log_prob,
    linear_gaussian_mean_field,
    linear_gaussian_posterior,
    posterior_kl_table,
    posterior_table,
)
from tests.strategies import holds, residual

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


@pytest.mark.equation(16)
@given(linear_gaussians())
def test_linear_gaussian_log_prob_is_scipys(m):
    covariance = m.W @ m.W.T + m.noise_variance * np.eye(len(m.W))
    exact = stats.multivariate_normal.logpdf(m.x, m.mean, covariance)
    assert residual(linear_gaussian_log_prob(m.x, m.W, m.mean, m.noise_variance), exact) < 1e-10


@pytest.mark.equation(7)
@given(linear_gaussians())
def test_linear_gaussian_elbo_is_its_integral(m):
    """Sigma points m ± √k L e_i integrate the quadratic log p(x | z) exactly."""
    k = len(m.q_cov)
    steps = np.sqrt(k) * np.linalg.cholesky(m.q_cov).T
    z = m.q_mean[:, None] + np.concatenate([steps, -steps])  # (3, 2k, k)
    log_likelihood = stats.norm.logpdf(m.x[:, None], z @ m.W.T + m.mean, m.noise_variance**0.5).sum(axis=-1)
    kl = np.array([kl_gaussian(mean, m.q_cov, np.zeros(k), np.eye(k)) for mean in m.q_mean])
    assert residual(linear_gaussian_elbo(m.x, *m[:3], *m[4:]), log_likelihood.mean(axis=1) - kl) < 1e-10


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


# --- the checks that any implementation can be put to ---------------------------------------------------


@pytest.mark.equation(1, 2)
@given(tables())
def test_kl_of_tables_is_cross_entropy_minus_entropy(table):
    """KL(p‖p_θ) = −H(p) − E_p log p_θ."""
    p, model = table.p, table.decoder[:, 0]
    holds(c.check_kl(kl_discrete, p, model))
    holds(c.check_kl(lambda p, q: cross_entropy_discrete(p, q) - entropy_discrete(p), p, model))


@pytest.mark.equation(2, "kl-of-gaussians")
@given(pairs_of_gaussians())
def test_kl_of_gaussians_is_the_textbook_formula(pair):
    """Against the textbook formula, and 0 for two equal Gaussians."""
    holds(c.check_gaussian_kl(kl_gaussian, *pair[0], *pair[1]))


@pytest.mark.equation(14, "vae-regulariser")
@given(st.integers(1, 4).flatmap(lambda D: st.tuples(reals((3, D), -5, 5), reals((3, D), -8, 8))))
def test_kl_to_the_standard_normal_is_the_general_formula(parameters):
    """The diagonal formula is the general one with a diagonal matrix."""
    holds(c.check_diagonal_kl(kl_diag_standard, *parameters))


@pytest.mark.equation(3, 4, 5, 7)
@given(tables())
def test_posterior_of_tables_is_bayes_rule_and_the_elbo_gap_the_kl(table):
    """Bayes' rule; log p(x) − ELBO(q) = KL(q‖p(z | x)), which is 0 at the posterior; both forms of the ELBO."""
    holds(c.check_latent_posterior(posterior_table, table.joint))
    holds(c.check_posterior_kl(posterior_kl_table, table.joint, table.q))
    holds(c.check_elbo(elbo_table, table.joint, table.q))
    holds(c.check_split_elbo(elbo_split_table, table.decoder, table.prior, table.q))


@pytest.mark.equation(4, 6, 8, 11)
@given(linear_gaussians())
def test_elbo_gap_of_the_linear_gaussian_model_is_the_kl(m):
    """ELBO(q) + KL(q‖p_θ(z | x)) = log p_θ(x) for every Gaussian q, and the best diagonal q."""
    parameters = m.W, m.mean, m.noise_variance
    holds(c.check_linear_gaussian_posterior(linear_gaussian_posterior, m.x, *parameters))
    holds(c.check_linear_gaussian_elbo(linear_gaussian_elbo, m.x, *parameters, m.q_mean, m.q_cov))
    holds(c.check_mean_field(linear_gaussian_mean_field, m.x, *parameters))


@pytest.mark.equation(9, 10, 12, 13)
@given(tables())
def test_joint_kl_of_tables_obeys_the_chain_rule(table):
    """The chain rule of the joint KL, and (12) = (13) − H(p), for every q and for the posterior."""
    model = table.decoder, table.prior
    for q in table.q, posterior_table(table.joint)[0]:
        holds(c.check_joint_kl(joint_kl_table, table.p, q, *model))
        holds(c.check_vae_objective(vae_loss_table, table.p, q, *model))


@pytest.mark.equation(8, "importance-weighting")
@given(tables(max_x=4, max_z=3), st.integers(1, 3))
def test_importance_weights_of_tables_average_to_the_evidence(table, n):
    """E exp(bound) = p(x) for every number of draws."""
    holds(c.check_importance_weighted_bound(importance_weighted_bound, table.joint, table.q, n))


@pytest.mark.equation(14, "vae-draw")
@given(reals(size((2, 4), (4, 3), (4,), (2, 3), (2, 3)), -1, 1), st.floats(0.05, 4))
def test_one_draw_of_the_vae_averages_to_the_closed_elbo(flat, variance):
    """Sigma points in place of ξ integrate the loss of a linear decoder, a quadratic, exactly."""
    x, W, mean, q_mean, log_variance = cut(flat, (2, 4), (4, 3), (4,), (2, 3), (2, 3))
    holds(c.check_vae_loss(vae_loss, 5 * x, 2 * W, mean, variance, 3 * q_mean, 3 * log_variance))
