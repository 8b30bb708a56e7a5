"""The property catalogue: every proposition on random problems, through the checks that anybody's code can be put to.

Each test names its row.  Where a row is an inequality, its equality case stands beside it: "ELBO <= log p" alone would
find an entropy that is dropped, or has the wrong sign, in 0 of 500 random problems.  The inequality (34) cannot see T
for T/2; the mean of a reverse sampler sees neither the sign nor the size of the score; EM's monotony does not see
mixing weights that never change; the simple loss sees no weight and no constant.
"""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import MLP, VE, VP, Adam, Mixture, NoiseSchedule, SubVP
from scratchgen import conformance as c
from scratchgen.ddpm import (
    ancestral_sampler,
    bound_terms,
    ddim_step,
    forward_entropy,
    forward_log_prob,
    mean_square_step,
    merge_noise,
    merged_loss,
    negative_elbo,
    one_step_loss,
    p_log_prob,
    p_mean,
    p_step,
    predict_x0,
    q_path,
    q_posterior,
    q_sample,
    q_step,
    reverse_log_prob,
    reverse_variance,
    split_noise,
    total_noise_loss,
)
from scratchgen.em import e_step, free_energy, m_step, m_step_table, ppca_em_step, ppca_maximum
from scratchgen.equations.problems import GivenNoise
from scratchgen.likelihood import (
    bits_per_dim,
    cross_entropy_discrete,
    entropy_discrete,
    kl_diag_standard,
    kl_discrete,
    kl_gaussian,
    log_bin_mass,
)
from scratchgen.noise_network import NoiseNetwork
from scratchgen.quadrature import gauss_hermite
from scratchgen.sde import (
    denoising_score_matching,
    euler_maruyama,
    euler_step,
    explicit_score_matching,
    implicit_score_matching,
    kl_bound,
    reverse_drift,
    reverse_moments,
    sliced_score_matching,
)
from scratchgen.testing import (
    as_spd,
    cut,
    em_problems,
    linear_gaussians,
    mixtures_and_points,
    pairs_of_gaussians,
    reals,
    schedules,
    schedules_and_t,
    sdes,
    size,
    softmax,
    tables,
)
from scratchgen.vae import importance_weighted_bound, vae_loss, vae_loss_table
from scratchgen.variational import (
    elbo_split_table,
    elbo_table,
    joint_kl_table,
    linear_gaussian_elbo,
    linear_gaussian_mean_field,
    linear_gaussian_posterior,
    posterior_kl_table,
    posterior_table,
)
from tests.strategies import residual


def holds(check):
    """Fails with the check's own words."""
    assert check.passed, check


# --- (1)-(10) ---------------------------------------------------------------------------------------------


@given(tables())
def test_kl_of_tables(table):
    """P01."""
    p, model = table.p, table.decoder[:, 0]
    holds(c.check_kl(kl_discrete, p, model))
    holds(c.check_kl(lambda p, q: cross_entropy_discrete(p, q) - entropy_discrete(p), p, model))


@given(pairs_of_gaussians())
def test_kl_of_gaussians(pair):
    """P02, 0 at the match."""
    holds(c.check_gaussian_kl(kl_gaussian, *pair[0], *pair[1]))


@given(st.integers(1, 4).flatmap(lambda D: st.tuples(reals((3, D), -5, 5), reals((3, D), -8, 8))))
def test_kl_to_the_standard_normal(parameters):
    """P02b."""
    holds(c.check_diagonal_kl(kl_diag_standard, *parameters))


@given(tables())
def test_posterior_and_elbo_of_tables(table):
    """P03, P05, P07, each with its equality case."""
    holds(c.check_latent_posterior(posterior_table, table.joint))
    holds(c.check_posterior_kl(posterior_kl_table, table.joint, table.q))
    holds(c.check_elbo(elbo_table, table.joint, table.q))
    holds(c.check_split_elbo(elbo_split_table, table.decoder, table.prior, table.q))


@given(linear_gaussians())
def test_elbo_of_the_linear_gaussian_model(m):
    """P08, and 4.2c: the best diagonal q."""
    parameters = m.W, m.mean, m.noise_variance
    holds(c.check_linear_gaussian_posterior(linear_gaussian_posterior, m.x, *parameters))
    holds(c.check_linear_gaussian_elbo(linear_gaussian_elbo, m.x, *parameters, m.q_mean, m.q_cov))
    holds(c.check_mean_field(linear_gaussian_mean_field, m.x, *parameters))


@given(tables())
def test_joint_kl_of_tables(table):
    """P10, P12 and P18: at the posterior the joint KL is the marginal one."""
    model = table.decoder, table.prior
    posterior, _ = posterior_table(table.joint)
    for q in table.q, posterior:
        holds(c.check_joint_kl(joint_kl_table, table.p, q, *model))
        holds(c.check_vae_objective(vae_loss_table, table.p, q, *model))
    least = joint_kl_table(table.p, posterior, *model)
    assert residual(least, kl_discrete(table.p, table.joint.sum(axis=1))) < 1e-11
    assert joint_kl_table(table.p, table.q, *model) >= least - 1e-12


@given(tables(max_x=4, max_z=3), st.integers(1, 3))
def test_importance_weighted_bound_of_tables(table, n):
    holds(c.check_importance_weighted_bound(importance_weighted_bound, table.joint, table.q, n))


# --- (11)-(18) --------------------------------------------------------------------------------------------


@given(reals(size((2, 4), (4, 3), (4,), (2, 3), (2, 3)), -1, 1), st.floats(0.05, 4))
def test_one_draw_of_the_vae_averages_to_the_closed_elbo(flat, variance):
    """P14, through sigma points."""
    x, W, mean, q_mean, log_variance = cut(flat, (2, 4), (4, 3), (4,), (2, 3), (2, 3))
    holds(c.check_vae_loss(vae_loss, 5 * x, 2 * W, mean, variance, 3 * q_mean, 3 * log_variance))


@given(tables())
def test_free_m_step_of_tables(table):
    """P15."""
    holds(c.check_free_m_step(m_step_table, table.p, table.q, table.prior))


def em(x, weights, means, covariances):
    mixture = m_step(x, e_step(x, Mixture(weights, means, covariances))[0], Mixture(weights, means, covariances), 1e-3)
    return mixture.weights, mixture.means, mixture.covariances


@given(em_problems())
def test_em_on_easy_and_hard_data(problem):
    """PEM, PEM2, PEM3: a step is the constrained maximiser, six of them never lower the likelihood."""
    x, m = problem
    holds(c.check_em(em, x, m.weights, m.means, m.covariances, floor=1e-3, n_iterations=6))


@given(em_problems(modes=("plain", "offset 2^10", "duplicates", "collinear")))
def test_e_step_and_free_energy(problem):
    """PEM: (17)-(18), and log p_θ(x) at the posterior."""
    x, m = problem
    parameters = m.weights, m.means, m.covariances
    holds(c.check_e_step(lambda x, *p: np.exp(e_step(x, Mixture(*p))[0]), x, *parameters))
    log_resp = np.log(softmax(np.sin(np.arange(x.shape[0] * len(m.weights)).reshape(len(x), -1))))
    holds(c.check_free_energy(lambda x, r, *p: free_energy(x, r, Mixture(*p)), x, log_resp, *parameters))


@given(reals(size((4, 4), (4, 2)), -2, 2), st.floats(0.1, 2))
def test_em_step_of_ppca(flat, noise_variance):
    """PPEM."""
    A, W = cut(flat, (4, 4), (4, 2))
    holds(c.check_ppca_step(ppca_em_step, as_spd(A), W, noise_variance))


@given(st.integers(1, 3), reals(size((5,), (5, 5)), -1, 1))
def test_maximum_of_ppca(k, flat):
    """PPCA: eigenvalues in [0.1, 5], at least 1e-2 between the kept and the others."""
    values, A = cut(flat, (5,), (5, 5))
    values = np.sort(2.55 + 2.45 * values)[::-1]
    values[:k] += 1e-2
    U, _ = np.linalg.qr(A + 2 * np.eye(5))
    holds(c.check_ppca_maximum(ppca_maximum, (U * values) @ U.T, k))


# --- (19)-(29) --------------------------------------------------------------------------------------------


def of(function, schedule):
    """A function of (schedule, …) as one of (…)."""
    return lambda *arguments: function(schedule, *arguments)


@given(schedules(1e-9, 0.999))
def test_forward_process(schedule):
    """P25; variances to a relative 1e-12."""
    holds(c.check_forward_process(of(q_sample, schedule), schedule))
    holds(c.check_forward_step(of(q_step, schedule), schedule))
    holds(c.check_schedule(schedule, schedule.alpha_bar, schedule.beta_bar))


@given(schedules(1e-4, 0.9))
def test_posterior_and_reverse_step(schedule):
    """P25b and the formulas in ε̂, t = 1 included."""
    holds(c.check_posterior(of(q_posterior, schedule), schedule))
    holds(c.check_schedule(schedule, schedule.alpha_bar, schedule.beta_bar, schedule.beta_tilde))
    holds(c.check_predict_x0(of(predict_x0, schedule), schedule))
    for variance in "beta", "posterior":
        table = reverse_variance(schedule, variance)
        holds(c.check_ancestral_step(lambda *a, v=variance: p_step(schedule, *a, v), schedule, table))


@given(schedules(1e-6, 0.999))
def test_merging_of_noise(schedule):
    """P27: R Rᵀ = R² = I, and (27)."""
    holds(c.check_noise_merging(of(merge_noise, schedule), of(split_noise, schedule), schedule))


@given(schedules(1e-3, 0.8, max_T=6), st.floats(0, 1))
def test_ddim(schedule, eta):
    holds(c.check_ddim_step(lambda *a: ddim_step(schedule, *a, eta), schedule, eta))


@given(schedules_and_t(1e-3, 0.9, max_T=10), reals(6, -1.5, 1.5), st.floats(0.1, 1.0), st.floats(0.1, 2.0))
def test_four_forms_of_the_step_loss(case, net, std, variance):
    """P26: (24) = (26) = (28) = (29'), for a net that is not linear."""
    schedule, t = case
    a, b, k, d, m, e = net
    table = np.full(schedule.T + 1, variance)

    def eps_hat(x, t):
        return a + b * np.sin(k * x + d * t) + 0.3 * e * x

    def path_loss(t, x0, eps_bar, eps_t, eps_hat):
        x_prev = q_sample(schedule, t - 1, x0, eps_bar) if t > 1 else x0
        return -p_log_prob(schedule, t, x_prev, q_step(schedule, t, x_prev, eps_t), eps_hat, table)

    for loss in (
        path_loss,
        lambda *arguments: one_step_loss(schedule, *arguments, table),
        lambda *arguments: merged_loss(schedule, *arguments, table),
        lambda t, x0, eps, omega, eps_hat: total_noise_loss(schedule, t, x0, eps, eps_hat, table),
    ):
        holds(c.check_step_loss(loss, schedule, t, eps_hat, m, std, variance))


@st.composite
def affine_problems(draw):
    """T <= 5, D <= 2, data N(mean, covariance), ε̂ = A_t x + b_t, σ² in [0.1, 2]."""
    schedule, D = draw(schedules(1e-3, 0.9, max_T=5)), draw(st.integers(1, 2))
    T = schedule.T
    shapes = (D,), (D, D), (T + 1, D, D), (T + 1, D)
    mean, L, A, b = cut(draw(reals(size(*shapes), -1, 1)), *shapes)
    table = np.concatenate([[np.nan], draw(reals(T, 0.1, 2.0))])
    return SimpleNamespace(schedule=schedule, problem=(2 * mean, as_spd(L), A, b, table), table=table)


@given(affine_problems())
def test_variational_bound(case):
    """P20: Ho's terms = one line from the losses = one Cholesky of both joints."""
    schedule, table = case.schedule, case.table
    holds(c.check_variational_bound(lambda *a: bound_terms(schedule, *a, table), schedule, *case.problem))
    holds(c.check_negative_elbo(lambda *a: negative_elbo(schedule, *a, table), schedule, *case.problem))


@given(schedules(1e-3, 0.9, max_T=6), reals(32, -2, 2))
def test_densities_of_paths(schedule, flat):
    """(19): both chains against dense Gaussians."""
    T = schedule.T
    path, slopes = flat[: 3 * (T + 1)].reshape(T + 1, 3, 1), np.concatenate([[np.nan], 0.5 * flat[21 : 21 + T]])
    table = np.concatenate([[np.nan], 0.1 + np.abs(flat[26 : 26 + T])])
    holds(
        c.check_chains(
            lambda path: forward_log_prob(schedule, path),
            lambda path, eps_hat: reverse_log_prob(schedule, path, eps_hat, table),
            schedule,
            path,
            slopes,
            table,
        )
    )


@given(schedules(1e-3, 0.9, max_T=6), st.integers(1, 3))
def test_entropy_of_the_forward_path(schedule, D):
    """E16, what (21) leaves out: −E log q by sigma points over the noise, each term a quadratic."""
    T = schedule.T
    points = np.sqrt(T * D) * np.concatenate([np.eye(T * D), -np.eye(T * D)])
    path = q_path(schedule, np.ones((len(points), D)), points.reshape(-1, T, D).swapaxes(0, 1))
    assert residual(-forward_log_prob(schedule, path).mean(), forward_entropy(schedule, D)) < 1e-11


@given(schedules(1e-3, 0.9), st.integers(1, 2).flatmap(lambda D: reals((D, D), -1, 1)))
def test_best_variance(schedule, L):
    """P29: σ*²."""
    covariance = as_spd(L)
    check = c.check_optimal_variance(lambda ell: mean_square_step(schedule, ell, len(L)), schedule, covariance)
    holds(check)


@given(schedules(1e-3, 0.8, max_T=10), st.floats(-2, 2), st.floats(np.log(0.01), np.log(9)).map(np.exp))
def test_ancestral_sampler(schedule, mean, variance):
    """PANC: with σ*² it reproduces the data for every T; with the usual two it is off by what they add."""
    spread = schedule.alpha_bar**2 * variance + schedule.beta_bar**2
    best = mean_square_step(schedule, 1 - schedule.beta_bar**2 / spread, 1)
    for choice in best, "beta", "posterior":

        def sample(x_T, eps_hat, noise, choice=choice):
            *_, (_, x0) = ancestral_sampler(schedule, eps_hat, x_T, GivenNoise(noise), choice)
            return x0

        table = reverse_variance(schedule, choice)
        check = c.check_sampler(sample, schedule, mean, variance, table)
        holds(check)
        if choice is best:
            assert residual(check.right, np.array([mean / variance**0.5, 1.0])) < 1e-10


# --- whole numbers ----------------------------------------------------------------------------------------


@given(
    st.sampled_from([2, 17, 256]),
    reals((4,), -1.5, 1.5),
    st.floats(np.log(0.01), np.log(2.7)).map(np.exp),
)
def test_bin_masses(n_levels, means, std):
    """PB1: they sum to 1, are finite and differences of Φ."""
    holds(c.check_bin_masses(lambda level, mean, std: log_bin_mass(level, mean, std, n_levels), n_levels, means, std))


def test_bin_masses_keep_their_logarithm_where_a_difference_of_cdfs_is_zero():
    """At std 0.01 most of 17 bins lie further out than Φ reaches; their logarithms are finite and those of the tail."""
    logs = log_bin_mass(np.arange(17), np.array(-1.0), 0.01, 17)
    assert np.isfinite(logs).all()
    assert np.all(np.diff(logs) < 0)
    # Mills' ratio: log Φ(−a) = −a²/2 − log(a √2π) − 1/a² + …
    a = (np.arange(2, 17) / 8 - 1 / 16) / 0.01
    assert np.abs(logs[2:] - (-(a**2) / 2 - np.log(a * np.sqrt(2 * np.pi)) - a**-2.0)).max() < 1e-2
    mirrored = log_bin_mass(np.arange(17)[::-1], np.array(1.0), 0.01, 17)
    assert residual(mirrored, logs) < 1e-13


@pytest.mark.parametrize("n_levels", [1, 0])
def test_bins_need_two_levels(n_levels):
    with pytest.raises(ValueError, match=r"^n_levels must be at least 2"):
        log_bin_mass(np.zeros(1), np.zeros(1), 1.0, n_levels)


@given(reals((17,), -6, 6), st.integers(1, 3), st.floats(0.01, 3))
def test_dequantisation(logits, dimension, scale):
    """PB2: equality for a density that is constant on unit cubes."""
    holds(c.check_bits_per_dim(bits_per_dim, softmax(logits), dimension, scale))


@given(st.sampled_from([2, 5, 17]), reals((17,), -2, 2), schedules(1e-3, 0.9, max_T=6), st.data())
def test_bound_on_whole_numbers_stays_above_their_entropy(n_levels, logits, schedule, data):
    """PB3: with a mass for L_0, not a density, −E ELBO >= H(P); a density would fall below it without limit."""
    P = softmax(logits[:n_levels])
    x = (2 * np.arange(n_levels) / (n_levels - 1) - 1)[:, None]
    nodes, weights = gauss_hermite(40, 1)
    table = np.concatenate([[np.nan], data.draw(reals(schedule.T, 0.01, 1.0))])

    def eps_hat(x_t, t):
        """The Bayes predictor of this discrete law."""
        log_joint = np.log(P) - (x_t - schedule.alpha_bar[t] * x.T) ** 2 / (2 * schedule.beta_bar[t] ** 2)
        x0_hat = softmax(log_joint) @ x
        return (x_t - schedule.alpha_bar[t] * x0_hat) / schedule.beta_bar[t]

    x0, eps = np.repeat(x, len(nodes), axis=0), np.tile(nodes, (n_levels, 1))
    law = np.repeat(P, len(nodes)) * np.tile(weights, n_levels)
    terms = bound_terms(schedule, x0, eps_hat, np.broadcast_to(eps, (schedule.T, *eps.shape)), table)
    x_1 = q_sample(schedule, 1, x0, eps)
    mean = (x_1 - schedule.beta[1] ** 2 / schedule.beta_bar[1] * eps_hat(x_1, 1)) / schedule.alpha[1]
    level = np.repeat(np.arange(n_levels), len(nodes))[:, None]
    terms[:, 0] = -log_bin_mass(level, mean, np.sqrt(table[1]), n_levels)[:, 0]
    assert law @ terms.sum(axis=1) >= entropy_discrete(P) - 1e-9


# --- (30)-(34) --------------------------------------------------------------------------------------------


@given(sdes())
def test_processes(sde):
    """P31: d scale and d std² by differences."""
    holds(c.check_sde(sde.marginal, sde.drift, sde.diffusion, sde.horizon))


@given(sdes(kinds=(VP,), low=0.01), st.integers(1, 20))
def test_discretisation(sde, T):
    """P31: (30) with β_i = 1 − exp(−∫β) has the law of (31) at the grid."""
    holds(c.check_discretisation(NoiseSchedule.from_sde(sde, T).variances, sde))


@given(mixtures_and_points())
def test_score_and_denoiser_of_mixtures(pair):
    """P29, the score; E[x_0 | x_t] by Tweedie."""
    mixture, x = pair
    holds(c.check_log_prob(mixture.log_prob, mixture, x))
    holds(c.check_score(mixture.score, mixture, x))
    holds(c.check_denoiser(mixture.denoise, mixture, x, 0.8, 0.6))


class Gaussian:
    """Data N(mean, covariance) under an SDE."""

    def __init__(self, sde, mean, covariance):
        self.sde, self.mean, self.covariance = sde, mean, covariance

    def law(self, t):
        scale, std = self.sde.level(t)
        return scale * self.mean, scale**2 * self.covariance + std**2 * np.eye(len(self.mean))

    def score(self, x, t):
        mean, covariance = self.law(t)
        return -np.linalg.solve(covariance, (x - mean).T).T


@st.composite
def gaussian_data(draw, D=2):
    mean, L = cut(draw(reals(size((D,), (D, D)), -1, 1)), (D,), (D, D))
    return Gaussian(draw(sdes()), 2 * mean, as_spd(L))


@given(gaussian_data(), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.3]))
def test_reversal(data, churn, start):
    """P32c: the drift moves the moments back at every t, and from T to 0 the data's law is recovered."""
    sde = data.sde
    holds(
        c.check_reverse_sde(
            lambda x, t: reverse_drift(sde, data.score, x, t, churn),
            lambda t: churn * sde.diffusion(t),
            sde,
            data.mean,
            data.covariance,
            churn,
        )
    )
    t_min = start * sde.horizon
    mean, covariance = reverse_moments(sde, data.score, *data.law(sde.horizon), t_min, churn)
    assert residual(mean, data.law(t_min)[0]) < 1e-7
    assert residual(covariance, data.law(t_min)[1]) < 1e-7


@given(sdes(), st.floats(-2, 2), st.floats(np.log(0.05), np.log(4)).map(np.exp))
def test_a_small_step_backwards(sde, mean, variance):
    """P32."""
    data = Gaussian(sde, np.array([mean]), np.array([[variance]]))

    def step(x, t, s, noise):
        centre, std = euler_step(sde, data.score, x, t, s)
        return centre + std * noise

    holds(c.check_reverse_step(step, sde, mean, variance))


@given(sdes(), reals(8, 0.01, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_euler_maruyama_on_a_grid(sde, gaps, churn):
    """P32's blind spot: a score taken at t − h has the same order."""
    times = sde.horizon * (1 - np.concatenate([[0], np.cumsum(gaps) / gaps.sum()]) * 0.9)

    def score(x, t):
        return np.tanh(x + t) - x

    def sample(x, times, noise):
        *_, (_, end) = euler_maruyama(sde, score, x, times, noise=noise, churn=churn)
        return end

    holds(c.check_reverse_sampler(sample, score, sde, times, churn))


@given(st.floats(0.05, 1), st.floats(0.02, 3), reals(5, -1, 1))
def test_score_matching(variance, B, u):
    """P33: explicit, denoising, implicit and sliced losses of a nonlinear score on a diffused mixture."""
    mixture = Mixture([0.4, 0.6], [[-1.0 + u[0]], [1.0 + u[1]]], [[[variance]], [[2 * variance]]])
    holds(
        c.check_score_matching(
            denoising_score_matching,
            implicit_score_matching,
            sliced_score_matching,
            mixture,
            np.exp(-B / 2),
            np.sqrt(-np.expm1(-B)),
            lambda x: u[2] * x + u[3] * np.sin(2 * x + u[4]),
            lambda x: (u[2] + 2 * u[3] * np.cos(2 * x + u[4]))[:, 0],
        )
    )


@given(reals(size((3, 3), (3,), (3, 3)), -2, 2))
def test_sliced_score_matching_needs_directions_of_unit_covariance(flat):
    """P33b: for s = A x + b Rademacher and sigma-point directions give the implicit loss, unit ones a third of it."""
    A, b, x = cut(flat, (3, 3), (3,), (3, 3))
    score = x @ A.T + b
    implicit = implicit_score_matching(score, np.full(3, np.trace(A)))
    signs = np.array(list(product([1.0, -1.0], repeat=3)))
    axes = np.sqrt(3) * np.eye(3)
    for directions in signs, axes:
        values = [sliced_score_matching(score, v := np.broadcast_to(d, (3, 3)), v @ A.T) for d in directions]
        assert residual(np.mean(values, axis=0), implicit) < 1e-11
    unit = [sliced_score_matching(score, v := np.broadcast_to(d, (3, 3)), v @ A.T) for d in np.eye(3)]
    assert residual(3 * np.mean(unit, axis=0), implicit) < 1e-11


@given(reals(size((4, 2), (4, 2)), -3, 3))
def test_explicit_score_matching_is_a_distance(flat):
    """(33) itself: 0 at the score and nowhere else."""
    score, target = cut(flat, (4, 2), (4, 2))
    values = explicit_score_matching(score, target)
    assert residual(values, ((score - target) ** 2) @ np.ones(2)) < 1e-14
    assert not explicit_score_matching(target, target).any()


@given(sdes(), reals(12, -1, 1))
def test_likelihood_bound_is_an_equality(sde, flat):
    """P34: s_θ = ∇log q_t, π = q_T."""
    m_p, m_q, A, B = cut(flat, (2,), (2,), (2, 2), (2, 2))
    laws = 2 * m_p, A @ A.T + 0.2 * np.eye(2), 2 * m_q, B @ B.T + 0.2 * np.eye(2)
    holds(c.check_kl_bound(lambda error, prior_kl: kl_bound(sde, error, prior_kl), sde, *laws))


@given(st.floats(-0.3, 1), st.floats(0.3, 8), st.floats(0.2, 3))
def test_likelihood_bound_holds_for_the_sde(delta, B, horizon):
    """P34b, E34: KL(p_0‖p_θ) <= Bδ²/2 with a wrong score, by the exact law; the flow's KL may exceed it."""
    sde = VP(B / horizon, B / horizon, horizon)
    holds(c.check_reverse_law(lambda score: reverse_moments(sde, score, np.zeros(1), np.eye(1)), B, delta))
    bound = kl_bound(sde, lambda t: delta**2, 0.0)
    assert residual(bound, B * delta**2 / 2) < 1e-12
    _, covariance = reverse_moments(sde, lambda x, t: -(1 + delta) * x, np.zeros(1), np.eye(1))
    assert kl_gaussian(np.zeros(1), np.eye(1), np.zeros(1), covariance) <= bound + 1e-8


# --- training ---------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from(["silu", "tanh", "identity"]))
def test_backward_of_the_mlp(seed, activation):
    rng = np.random.default_rng(seed)
    mlp, x, g = MLP((3, 4, 2), activation, rng, np.float64), rng.standard_normal((5, 3)), rng.standard_normal((5, 2))

    def loss(flat):
        mlp.parameters[:] = flat
        return (mlp(x) * g).sum()

    def gradient(flat):
        mlp.parameters[:] = flat
        mlp.forward(x)
        mlp.backward(g)
        return mlp.gradient.copy()

    start = rng.standard_normal(len(mlp.parameters))
    holds(c.check_gradient(loss, gradient, start, rng.standard_normal((3, len(start)))))


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_backward_of_the_noise_network_to_its_input(seed, n_features):
    rng = np.random.default_rng(seed)
    network = NoiseNetwork(2, (5,), n_coordinate_features=n_features, rng=rng, dtype=np.float64)
    network.mlp.parameters[:] = 0.5 * rng.standard_normal(len(network.mlp.parameters))
    g, scale, std = rng.standard_normal((3, 2)), rng.uniform(0.1, 1, 3), rng.uniform(0.1, 1, 3)

    def gradient(flat):
        network.forward(flat.reshape(3, 2), scale, std)
        return network.backward(g).ravel()

    x = rng.standard_normal(6)
    loss = c.check_gradient(lambda flat: (network(flat.reshape(3, 2), scale, std) * g).sum(), gradient, x, np.eye(6))
    holds(loss)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.floats(0.5, 0.9999), st.floats(0, 0.1))
def test_adam(seed, beta1, beta2, weight_decay):
    rng = np.random.default_rng(seed)
    options = {"learning_rate": 0.01, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay}

    def run(parameters, gradients):
        adam, states = Adam(parameters, **options), []
        for gradient in gradients:
            adam.step(gradient)
            states.append(parameters.copy())
        return states

    holds(c.check_adam(run, rng.standard_normal(4), rng.standard_normal((7, 4)), **options))


# --- orders of convergence --------------------------------------------------------------------------------


def forward_errors(scheme, n):
    """Errors of (mean, variance, strong) at the end of n steps of dx = −2x dt + 2 dw from N(1, 0.3), horizon 1.

    Exact covariances of the scheme and of the true path driven by the same dW: the true step's noise is cov · dW/√h
    plus an independent rest.
    """
    b, h = 4.0, 1.0 / n
    exact = NoiseSchedule.from_sde(VP(b, b), n)
    a, step_variance = exact.alpha[1], exact.beta[1] ** 2
    cov = np.sqrt(b) * (1 - a) * 2 / b / np.sqrt(h)  # Cov(exact noise, dW/√h)
    rest = np.sqrt(step_variance - cov**2)
    x, dw = np.eye(3)[:, :1], np.eye(3)[:, 1:2]
    if scheme == "ddpm":  # (30) with β_i = β h
        approximate = q_step(NoiseSchedule(np.full(n, b * h)), 1, x, dw)[:, 0]
    elif scheme == "euler":
        sde = VP(b, b)
        approximate = (x + h * sde.drift(x, 0.5) + float(sde.diffusion(0.5)) * np.sqrt(h) * dw)[:, 0]
    else:  # the exact step, its noise made of dW alone
        approximate = q_step(exact, 1, x, dw)[:, 0]
    mean, V = np.array([1.0, 1.0]), np.full((2, 2), 0.3)
    M, G = np.diag([a, approximate[0]]), np.array([[cov, rest], approximate[1:]])
    for _ in range(n):
        mean, V = M @ mean, M @ V @ M.T + G @ G.T
    gap = mean[0] - mean[1]
    strong = np.sqrt(gap**2 + V[0, 0] + V[1, 1] - 2 * V[0, 1])
    return np.array([abs(gap), abs(V[0, 0] - V[1, 1]), strong])


@pytest.mark.parametrize(
    ("scheme", "at_512"),
    [("ddpm", [1.1e-3, 2.0e-4, 2.3e-3]), ("euler", [5.3e-4, 2.0e-3, 1.8e-3]), ("exact", [0, 0, 1.1e-3])],
)
def test_orders_of_the_forward_schemes(scheme, at_512):
    """4.8: (30), Euler-Maruyama and the exact step are of order 1 weakly and strongly; the exact one has no weak error.

    Strong order is 1, not ½, because the noise is additive.
    """
    errors = np.array([forward_errors(scheme, n) for n in (128, 256, 512)])
    assert errors[-1] == pytest.approx(at_512, rel=0.06, abs=1e-12)
    slopes = np.diff(np.log(np.maximum(errors, 1e-300)), axis=0) / np.log(2)
    for order, error in zip(slopes.T, errors[-1], strict=True):
        if error > 1e-12:
            assert order[-1] == pytest.approx(-1, abs=0.02)


def reverse_variance_error(n, kind):
    """Error of the variance of x_0 after n ancestral steps from the exact p_T, data N(0, 0.3), β = 4."""
    schedule = NoiseSchedule.from_sde(VP(4.0, 4.0), n)
    spread = schedule.alpha_bar**2 * 0.3 + schedule.beta_bar**2
    best = mean_square_step(schedule, 1 - schedule.beta_bar**2 / spread, 1)
    table = {"beta": schedule.beta**2, "posterior": schedule.beta_tilde**2, "best": best}[kind]
    v, one = spread[-1], np.ones((1, 1))
    for t in range(n, 0, -1):
        gain = float(p_mean(schedule, t, one, schedule.beta_bar[t] / spread[t] * one)[0, 0])
        v = gain**2 * v + table[t]
    return abs(v - 0.3)


def test_orders_of_the_ancestral_sampler():
    """4.8: σ* is exact, σ = β has weak order 1; with σ = β̃ the error is β(0) log(n)/n: no power of n at all.

    β̃_t²/β_t² is (t−1)/t near t = 0, so that step t lacks β²/t, and a harmonic sum remains.
    """
    ns = np.array([512, 1024, 2048])
    assert reverse_variance_error(200, "best") < 1e-14
    errors = [reverse_variance_error(n, "beta") for n in ns]
    assert np.diff(np.log(errors)) / np.log(2) == pytest.approx(-1, abs=0.01)
    growth = np.diff([n * reverse_variance_error(n, "posterior") for n in ns]) / np.log(2)
    assert 0.9 * 4 < growth[0] < growth[1] < 4


def test_kl_of_mixtures_in_34_is_an_equality():
    """6.4, GMM against GMM in one dimension, where nothing is Gaussian, on three processes."""
    p, q = (
        Mixture([0.3, 0.7], [[-1.2], [0.8]], [[[0.2]], [[0.4]]]),
        Mixture([0.6, 0.4], [[-0.7], [1.4]], [[[0.3]], [[0.15]]]),
    )
    for sde in VP(0.5, 4.0), SubVP(0.5, 4.0, 2.0), VE(0.3, 4.0, 0.3):

        def laws(t, sde=sde):
            return p.diffuse(*sde.level(t)), q.diffuse(*sde.level(t))

        def error(t, laws=laws):
            now, model = laws(t)
            x, weights = now.quadrature(spacing=0.15, width=10)
            return float(weights @ (np.exp(now.log_prob(x)) * ((now.score(x) - model.score(x)) ** 2)[:, 0]))

        end_p, end_q = laws(sde.horizon)
        assert kl_bound(sde, error, end_p.kl(end_q.log_prob)) == pytest.approx(p.kl(q.log_prob), abs=1e-8)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda: em_problems(modes=("plain", "foo")).example(), "modes must be among"),
        (lambda: schedules(0.5, 0.1).example(), "low and high must satisfy"),
        (lambda: schedules(0.0, 0.5).example(), "low and high must satisfy"),
        (lambda: schedules(0.1, 1.0).example(), "low and high must satisfy"),
    ],
)
@pytest.mark.filterwarnings("ignore:The `.example")
def test_strategies_refuse_what_they_cannot_draw(strategy, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        strategy()


def test_the_catalogue_is_covered():
    """Every row's name stands in a docstring here or beside the functions it is about."""
    from pathlib import Path

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    rows = "P01 P02 P02b P03 P05 P07 P08 P10 P12 P14 P15 P18 PEM PEM2 PEM3 PEM4 PPEM PPCA P25 P25b P26 P27 P29 P20 PANC"
    rows += " P31 P32 P32c PODE P33 P33b P34 P34b PB1 PB2 PB3"
    missing = [row for row in rows.split() if text.replace(rows, "").count(row) == 0]
    assert not missing
