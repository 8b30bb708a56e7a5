"""Grading: Bayes loss and excess against closed forms, and the density of a chain against known densities.

A wrong grade misjudges every model.  The tests use Gaussian data, where every number has a closed form; Gauss-Hermite
nodes for predictors that are not linear; and one Monte Carlo run.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from scratchgen import VE, VP, CategoricalMixture, Mixture, NoiseSchedule
from scratchgen.ddpm import negative_elbo, optimal_reverse_variance, p_mean, reverse_variance
from scratchgen.grading import (
    GridDensity,
    ancestral_density,
    chain_density,
    euler_density,
    grade_bound,
    grade_kl_bound,
    grade_noise,
    sample_noise_grade,
)
from scratchgen.likelihood import entropy_gaussian, kl_gaussian
from scratchgen.nn import CategoricalDenoiser
from scratchgen.sde import reverse_times
from scratchgen.testing import reals
from tests.strategies import FALSE_ALARM, residual

# --- a noise predictor ------------------------------------------------------------------------------------


@st.composite
def noisy_mixtures(draw, max_components=3):
    """(mixture, scale, std, rest): in one or two dimensions; `rest` is 8 numbers in [-1, 1] to perturb a predictor."""
    D, K = draw(st.integers(1, 2)), draw(st.integers(1, max_components))
    u, rest = draw(reals(K * (1 + D + D * D), -1, 1)), draw(reals(8, -1, 1))
    means, A = u[K : K + K * D].reshape(K, D), u[K + K * D :].reshape(K, D, D)
    weights = np.exp(u[:K]) / np.exp(u[:K]).sum()
    mixture = Mixture(weights, 2 * means, A @ A.swapaxes(1, 2) + 0.3 * np.eye(D))
    return mixture, draw(st.floats(0.1, 1)), draw(st.floats(0.1, 2)), rest


@given(noisy_mixtures(max_components=1))
def test_bayes_loss_of_a_gaussian_is_the_closed_form(case):
    """ℓ* = D − std² tr V⁻¹, and the optimal predictor std V⁻¹(x − scale m) has no excess."""
    mixture, scale, std, _ = case
    D, V = mixture.dimension, scale**2 * mixture.covariances[0] + std**2 * np.eye(mixture.dimension)
    precision = np.linalg.inv(V)
    grade = grade_noise(mixture, lambda x: std * (x - scale * mixture.means[0]) @ precision, scale, std)
    assert residual(grade.bayes, D - std**2 * np.trace(precision)) < 1e-11
    assert 0 <= grade.excess < 1e-20


@given(noisy_mixtures())
def test_excess_of_a_predictor_with_an_affine_error_is_the_closed_form(case):
    """E‖B x + c‖² from two moments of x_t, for every distribution; a constant alone gives ‖c‖²."""
    mixture, scale, std, rest = case
    D, law = mixture.dimension, mixture.diffuse(scale, std)
    c, B = rest[:D], rest[2 : 2 + D * D].reshape(D, D)
    second = law.covariance() + np.outer(law.mean(), law.mean())
    expected = np.trace(B @ second @ B.T) + 2 * c @ B @ law.mean() + c @ c

    grade = grade_noise(mixture, lambda x: -std * law.score(x) + x @ B.T + c, scale, std)
    constant = grade_noise(mixture, lambda x: -std * law.score(x) + c, scale, std)
    assert residual(grade.excess, expected) < 1e-11
    assert residual(constant.excess, c @ c) < 1e-11
    assert constant.bayes == grade.bayes


def denoising_loss(mixture, eps_hat, scale, std, n_nodes=40):
    """E‖ε − ε̂(scale x_0 + std ε)‖² by Gauss-Hermite over each component and ε, in one dimension."""
    z, w = np.polynomial.hermite_e.hermegauss(n_nodes)
    w = w / w.sum()
    total = 0.0
    for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
        x_t = scale * (mean[0] + covariance[0, 0] ** 0.5 * z[:, None]) + std * z
        error = z - eps_hat(x_t.reshape(-1, 1)).reshape(x_t.shape)
        total += weight * float(w @ error**2 @ w)
    return total


@given(noisy_mixtures().filter(lambda case: case[0].dimension == 1))
def test_bayes_loss_and_excess_add_up_to_the_loss(case):
    """Orthogonality: E‖ε − ε̂‖² = bayes + excess for a predictor that is not linear."""
    mixture, scale, std, (a, b, c, d, *_) = case

    def eps_hat(x):
        return a + 0.5 * x + b * np.sin(1.5 * c * x + d)

    grade = grade_noise(mixture, eps_hat, scale, std)
    assert residual(grade.bayes + grade.excess, denoising_loss(mixture, eps_hat, scale, std)) < 1e-9


def fine_bayes_loss(mixture, scale, std):
    """D + std² E div ∇log p_t, the other form of the Bayes loss, on a grid that is five times finer."""
    law = mixture.diffuse(scale, std)
    x, weights = law.quadrature(spacing=0.1)
    divergence = np.trace(law.score_jacobian(x), axis1=1, axis2=2)
    return mixture.dimension + std**2 * float(weights @ (np.exp(law.log_prob(x)) * divergence))


TWO = Mixture([0.35, 0.65], [[-1.0], [0.8]], [[[0.1]], [[0.25]]])
PLANE = Mixture([0.3, 0.7], [[-1.0, 0.5], [1.0, -0.2]], [[[0.3, 0.1], [0.1, 0.2]], [[0.4, -0.2], [-0.2, 0.5]]])


@pytest.mark.parametrize(
    ("mixture", "scale", "std", "tolerance"),
    [
        (TWO, 0.5, 3**0.5 / 2, 1e-7),
        (TWO, 0.2, 1.5, 1e-10),
        (TWO, 1.0, 0.3, 1e-7),
        (PLANE, 0.5, 3**0.5 / 2, 1e-9),
        (PLANE, 1.0, 0.3, 1e-7),
    ],
)
def test_bayes_loss_of_a_mixture_is_its_other_form_on_a_finer_grid(mixture, scale, std, tolerance):
    grade, exact = grade_noise(mixture, lambda x: 0 * x, scale, std), fine_bayes_loss(mixture, scale, std)
    assert grade.bayes == pytest.approx(exact, abs=tolerance)
    assert grade.excess == pytest.approx(mixture.dimension - exact, abs=tolerance)


def rejects(loss, errors):
    """Whether the mean of i.i.d. `errors` differs significantly from `loss` (a correct one: with FALSE_ALARM)."""
    z = (errors.mean() - loss) / (errors.std(ddof=1) / np.sqrt(len(errors)))
    return abs(z) > stats.norm.isf(FALSE_ALARM / 2)


def test_sampled_grade_is_the_exact_one_within_its_errors():
    """Quadrature is within 5.3 standard errors (FALSE_ALARM each); the grade at another noise level is rejected."""
    rng, n, allowed = np.random.default_rng(0), 20_000, stats.norm.isf(FALSE_ALARM / 2)
    for mixture in TWO, PLANE:
        x0, noise = mixture.sample(n, rng=rng), rng.standard_normal((n, mixture.dimension))
        for scale, std in (0.8, 0.6), (0.3, 0.9):
            grade = sample_noise_grade(mixture, np.tanh, x0, noise, scale, std)
            exact = grade_noise(mixture, np.tanh, scale, std)
            assert abs(grade.bayes - exact.bayes) < allowed * grade.bayes_error
            assert abs(grade.excess - exact.excess) < allowed * grade.excess_error
            other = grade_noise(mixture, np.tanh, scale, 1.1 * std)
            assert abs(grade.bayes - other.bayes) > allowed * grade.bayes_error
            naive = (noise + std * mixture.diffuse(scale, std).score(scale * x0 + std * noise)) ** 2  # ‖ε − ε*‖²
            assert grade.bayes_error < 0.7 * naive.sum(axis=1).std() / n**0.5


def test_sampled_grade_refuses_what_would_broadcast():
    x0 = np.zeros((4, 2))
    for noise, std, name in (
        (np.zeros((1, 2)), 0.5, "noise must"),
        (np.zeros((4, 1)), 0.5, "noise must"),
        (x0, 0.0, "std"),
    ):
        with pytest.raises(ValueError, match=name):
            sample_noise_grade(PLANE, np.tanh, x0, noise, 0.5, std)


def test_sampled_grade_of_the_bayes_denoiser_has_no_excess():
    """Three tables of 64 pixels.

    The denoiser of another distribution has an excess; the network that is exact for one table has none.
    """
    rng = np.random.default_rng(0)
    x = rng.binomial(16, rng.uniform(0.1, 0.9, (3, 64))[rng.integers(3, size=700)]).astype(float)
    law, other = (CategoricalMixture(K, n_levels=17, max_iter=20, rng=0).fit(x) for K in (3, 1))
    levels = law.levels()[law.sample(600, rng=1)]  # more than one block
    noise, scale, std = rng.standard_normal(levels.shape), 0.8, 0.6

    def optimal_for(model):
        return lambda x_t: (x_t - scale * model.denoise(x_t, scale, std)) / std

    grade = sample_noise_grade(law, optimal_for(law), levels, noise, scale, std)
    assert grade.excess < 1e-24
    assert 0 < grade.bayes < 64
    loss = ((noise - optimal_for(law)(scale * levels + std * noise)) ** 2).sum(axis=1)
    assert not rejects(grade.bayes, loss)
    assert sample_noise_grade(law, optimal_for(other), levels, noise, scale, std).excess > 0.5
    single = sample_noise_grade(other, optimal_for(law), levels, noise, scale, std)
    network = CategoricalDenoiser(other.probabilities_[0], np.eye(64), (4,), rng=0, dtype=np.float64)
    mine = sample_noise_grade(other, lambda x_t: network(x_t, scale, std), levels, noise, scale, std)
    assert mine.excess < 1e-20 < single.excess


def test_grade_in_three_dimensions_is_refused():
    mixture = Mixture([1.0], np.zeros((1, 3)), np.eye(3)[None])
    with pytest.raises(ValueError, match="1 or 2 dimensions"):
        grade_noise(mixture, lambda x: x, 1.0, 1.0)


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.equation(21, 29)
@pytest.mark.parametrize("variance", ["beta", np.linspace(0.1, 0.6, 6)], ids=["beta", "table"])
def test_bound_of_a_predictor_with_a_constant_error_is_the_closed_form(variance):
    """Gaussian data: the joint KL of the chain, −H(p) + ½[...] with ℓ_t = D − tr(β̄² V⁻¹) + ‖c‖²."""
    mean, covariance = np.array([0.5, -0.2]), np.array([[0.5, 0.2], [0.2, 0.8]])
    law, schedule, c = Mixture([1.0], mean[None], covariance[None]), NoiseSchedule.linear(5), np.array([0.3, -0.1])

    def optimum(t):
        V = schedule.alpha_bar[t] ** 2 * covariance + schedule.beta_bar[t] ** 2 * np.eye(2)
        return schedule.beta_bar[t] * np.linalg.inv(V)

    def eps_hat(x, t):
        return (x - schedule.alpha_bar[t] * mean) @ optimum(t) + c

    grade = grade_bound(schedule, eps_hat, law, variance)
    bayes = np.array([0.0] + [2 - schedule.beta_bar[t] * np.trace(optimum(t)) for t in range(1, 6)])
    assert residual(np.array(grade.noise), np.column_stack([bayes[1:], np.full(5, c @ c)])) < 1e-11
    sigma_squared = reverse_variance(schedule, variance)[1:]
    second = np.trace(covariance) + mean @ mean
    for value, loss in ((grade.bound, bayes + c @ c), (grade.least_bound, bayes)):
        v = schedule.beta_tilde[1:] ** 2 + schedule.beta[1:] ** 4 * loss[1:] / (
            2 * (schedule.alpha[1:] * schedule.beta_bar[1:]) ** 2
        )
        steps = (np.log(2 * np.pi * sigma_squared) + v / sigma_squared).sum()  # −E log p_θ(x_{t−1} | x_t), times 2/D
        q_entropy = (np.log(2 * np.pi * np.e * schedule.beta[1:] ** 2)).sum()  # of q(x_t | x_{t−1}), times 2/D
        prior = np.log(2 * np.pi) + (schedule.alpha_bar[-1] ** 2 * second + 2 * schedule.beta_bar[-1] ** 2) / 2
        assert value == pytest.approx(prior + steps - q_entropy, rel=1e-11)
    assert grade.entropy == pytest.approx(entropy_gaussian(covariance), rel=1e-12)


@pytest.mark.equation(21)
def test_bound_of_the_exact_denoiser_falls_to_the_entropy():
    """With the exact denoiser the bound falls to H(p) at rate 1/T, and stays above the KL of the chain."""
    gaps = []
    for T in 10, 40, 160:
        schedule = NoiseSchedule.from_sde(VP(0.1, 30.0), T)

        def eps_hat(x, t, schedule=schedule):
            return -schedule.beta_bar[t] * TWO.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t]).score(x)

        grade = grade_bound(schedule, eps_hat, TWO)
        assert grade.bound == pytest.approx(grade.least_bound, abs=1e-12)
        grid = ancestral_density(schedule, eps_hat, 1)
        gaps.append(grade.bound - grade.entropy)
        assert 0 < grid.kl_from(TWO.log_prob(grid.points)) < gaps[-1]
    assert np.log(gaps[1] / gaps[2]) / np.log(4) == pytest.approx(1, abs=0.06)


@pytest.mark.equation(34)
@pytest.mark.parametrize("sde", [VP(), VE(0.01, 5.0)], ids=repr)
def test_bound_of_the_score_of_another_law_is_its_kl(sde):
    """(34) as an equality: s_θ = ∇log q_t and π = q_T of a distribution q."""
    p, q = PLANE, Mixture([1.0], [[0.3, 0.1]], [[[0.9, 0.3], [0.3, 0.6]]])

    def level(law, t):
        return law.diffuse(*sde.level(t))

    t_min = 0.05
    q_end = level(q, sde.horizon)
    grade = grade_kl_bound(sde, lambda x, t: level(q, t).score(x), p, t_min, prior_log_prob=q_end.log_prob)
    assert grade.bound == pytest.approx(level(p, t_min).kl(level(q, t_min).log_prob), abs=1e-7)
    assert grade.prior == pytest.approx(level(p, sde.horizon).kl(q_end.log_prob), abs=1e-12)
    default = grade_kl_bound(sde, lambda x, t: level(q, t).score(x), p, t_min)
    assert default.bound - default.prior == pytest.approx(grade.bound - grade.prior, abs=1e-12)
    assert default.prior == pytest.approx(level(p, sde.horizon).kl(sde.prior_log_prob), abs=1e-12)


@pytest.mark.equation(34)
@pytest.mark.parametrize("std", [0.02, 0.003])
def test_bound_sees_narrow_components_of_the_other_law(std):
    """(34) as an equality from t = 0: p is N(0, 1), and q has a component that is narrower than p's own nodes."""
    sde, p = VP(0.1, 20.0, 2.0), Mixture([1.0], [[0.0]], [[[1.0]]])
    q = Mixture([0.9, 0.1], [[0.0], [0.31]], [[[1.0]], [[std**2]]])

    def score(x, t):
        return q.diffuse(*sde.level(t)).score(x)

    end = q.diffuse(*sde.level(2.0)).log_prob
    grade = grade_kl_bound(sde, score, p, rtol=1e-4, prior_log_prob=end, law=q)
    exact = integrate.quad(
        lambda x: float(np.exp(p.log_prob([[x]]) + 0.0)[0] * (p.log_prob([[x]]) - q.log_prob([[x]]))[0]),
        -9, 9, points=[0.31 + k * std for k in (-30, -6, -3, 0, 3, 6, 30)], epsabs=1e-12, limit=500,
    )[0]  # fmt: skip
    assert grade.bound == pytest.approx(exact, rel=1e-7)


@pytest.mark.equation(34)
def test_bound_of_a_score_that_is_too_short_is_the_closed_form():
    """s_θ = (1 − δ) ∇log p_t of a Gaussian: ½ ∫ g² δ² tr V_t⁻¹ dt + KL(p_T‖π)."""
    sde, delta = VP(), 0.2
    covariance = np.array([[0.5, 0.1], [0.1, 0.4]])
    p = Mixture([1.0], [[0.2, -0.3]], covariance[None])

    def integrand(t):
        scale, std = sde.level(t)
        V = scale**2 * covariance + std**2 * np.eye(2)
        return 0.5 * float(sde.diffusion(t)) ** 2 * delta**2 * np.trace(np.linalg.inv(V))

    grade = grade_kl_bound(sde, lambda x, t: (1 - delta) * p.diffuse(*sde.level(t)).score(x), p, 0.02)
    scale, std = sde.level(1.0)
    prior = kl_gaussian(scale * p.means[0], scale**2 * covariance + std**2 * np.eye(2), np.zeros(2), np.eye(2))
    assert grade.prior == pytest.approx(prior, abs=1e-9)
    assert grade.bound == pytest.approx(integrate.quad(integrand, 0.02, 1, epsabs=1e-12)[0] + prior, rel=1e-9)


# --- the density of a chain -------------------------------------------------------------------------------


def grid_kl(grid, log_prob):
    """KL(p‖grid) without the tails that a grid in double precision cannot represent."""
    p = np.exp(log_prob)
    seen = p > 1e-12 * p.max()
    return float((p[seen] * (log_prob[seen] - np.log(grid.density[seen]))).sum() * grid.cell)


class AffineChain:
    """x ← A x + b + s z from N(0, prior_std² I): its steps, and the moments of its end."""

    def __init__(self, A, b, stds, prior_std=1.0):
        self.D, self.prior_std = b.shape[1], prior_std
        self.steps = [(lambda x, A=A, b=b: x @ A.T + b, s) for A, b, s in zip(A, b, stds, strict=True)]
        self.mean, self.covariance = np.zeros(self.D), prior_std**2 * np.eye(self.D)
        for slope, shift, s in zip(A, b, stds, strict=True):
            self.mean = slope @ self.mean + shift
            self.covariance = slope @ self.covariance @ slope.T + s**2 * np.eye(self.D)

    def density(self, **kwargs):
        return chain_density(self.steps, self.D, self.prior_std, **kwargs)

    def log_prob(self, x):
        return np.atleast_1d(stats.multivariate_normal.logpdf(x, self.mean, self.covariance))


@st.composite
def affine_chains(draw, D):
    """One to three steps that do not fold or stretch the plane too much for the fixed grid of the test."""
    n = draw(st.integers(1, 3))
    u = draw(reals(n * (D * D + D + 1) + 1, -1, 1))
    A, b, s = u[: n * D * D].reshape(n, D, D), u[n * D * D : n * (D * D + D)].reshape(n, D), u[n * (D * D + D) : -1]
    return AffineChain(A / D + 0.4 * np.eye(D), b, 0.65 + 0.25 * s, prior_std=1.25 + 0.25 * u[-1])


def errors_on_gaussian(chain, grid):
    """The errors of mass, mean, covariance, log p within 6 standard deviations, and KL(exact‖grid)."""
    assert grid.points.shape == (len(grid.density), chain.D)
    mass, exact = grid.density * grid.cell, chain.log_prob(grid.points)
    mean = mass @ grid.points
    centred, held = grid.points - mean, exact > exact.max() - 18
    return np.array(
        [
            abs(mass.sum() - 1),
            residual(mean, chain.mean),
            residual((centred.T * mass) @ centred, chain.covariance),
            np.abs(np.log(grid.density[held]) - exact[held]).max(),
            abs(grid_kl(grid, exact)),
        ]
    )


FINE = np.array([1e-9, 1e-8, 1e-7, 1e-6, 1e-8])  # at a resolution of 0.4
DEFAULT = np.array([1e-6, 1e-6, 1e-6, 1e-5, 1e-6])


@given(affine_chains(1))
def test_density_of_a_gaussian_chain_on_the_line_is_exact(chain):
    assert np.all(errors_on_gaussian(chain, chain.density(resolution=0.4)) < FINE)


@given(affine_chains(2))
def test_density_of_a_gaussian_chain_in_the_plane_is_exact(chain):
    """With rotations and shears: the grid is a product, the density is not."""
    assert np.all(errors_on_gaussian(chain, chain.density(resolution=0.4, final_spacing=0.2)) < FINE)


def test_chain_without_steps_is_its_prior():
    for D in 1, 2:
        chain = AffineChain(np.empty((0, D, D)), np.empty((0, D)), [], prior_std=0.7)
        assert np.all(errors_on_gaussian(chain, chain.density(final_spacing=0.1)) < FINE)


def test_chain_takes_a_generator_of_steps_in_their_order():
    A, b, stds = np.array([[[0.5]], [[1.0]]]), np.array([[0.0], [2.0]]), [0.3, 0.6]
    chain = AffineChain(A, b, stds)
    grid = chain_density((step for step in chain.steps), 1, resolution=0.4)
    assert np.all(errors_on_gaussian(chain, grid) < FINE)
    assert np.any(errors_on_gaussian(AffineChain(A[::-1], b[::-1], stds[::-1]), grid) > 0.1)


@pytest.mark.parametrize("spacing", [0.05, 0.02])
def test_final_grid_is_as_fine_as_asked(spacing):
    grid = AffineChain(np.array([[[0.9]]]), np.array([[0.4]]), [0.5]).density(final_spacing=spacing)
    steps = np.diff(grid.points[:, 0])
    assert steps == pytest.approx(grid.cell, abs=1e-12)
    assert 0.95 * spacing < grid.cell < spacing * (1 + 1e-9)


def probed(mean, x0):
    """(A, b) of an affine map, from its values at 0 and the unit vectors."""
    values = mean(np.concatenate([0 * x0, np.eye(x0.shape[1])]))
    return (values[1:] - values[0]).T, values[0]


def chain_of(steps, D, prior_std=1.0):
    A, b = zip(*(probed(mean, np.zeros((1, D))) for mean, _ in steps), strict=True)
    return AffineChain(np.array(A), np.array(b), [std for _, std in steps], prior_std)


@pytest.mark.parametrize("D", [1, 2])
def test_kl_is_zero_at_a_match_and_the_closed_form_elsewhere(D):
    """KL(p‖chain), not KL(chain‖p)."""
    chain = AffineChain(np.empty((0, D, D)), np.empty((0, D)), [], prior_std=0.7)
    grid = chain.density(final_spacing=0.1)
    assert abs(grid.kl_from(chain.log_prob(grid.points))) < 1e-12
    mean, covariance = np.array([0.3, -0.2])[:D], np.array([[0.2, 0.1], [0.1, 0.3]])[:D, :D]
    log_prob = np.atleast_1d(stats.multivariate_normal.logpdf(grid.points, mean, covariance))
    closed = kl_gaussian(mean, covariance, chain.mean, chain.covariance)
    assert grid.kl_from(log_prob) == pytest.approx(closed, abs=1e-9)
    assert abs(kl_gaussian(chain.mean, chain.covariance, mean, covariance) - closed) > 0.1


def test_kl_with_zero_densities_is_a_limit_without_a_warning():
    """0 log 0 = 0; if p > 0 where the density is 0, the KL is infinite."""
    grid = GridDensity(np.array([[0.0], [1.0]]), np.array([0.25, 0.75]), 1.0)
    assert grid.kl_from(np.log([0.5, 0.5])) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert grid.kl_from(np.array([-np.inf, 0.0])) == pytest.approx(np.log(4 / 3))
    assert grid._replace(density=np.array([0.0, 1.0])).kl_from(np.array([-np.inf, 0.0])) == 0
    assert grid._replace(density=np.array([0.0, 1.0])).kl_from(np.log([0.5, 0.5])) == np.inf


# --- chains of a diffusion model --------------------------------------------------------------------------


def optimal_chain(T, variance):
    """(exact KL of TWO from the chain with the optimal net, its bound), nats."""
    schedule = NoiseSchedule.from_sde(VP(0.1, 30.0), T)
    laws = [TWO.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t]) for t in range(T + 1)]
    noise_loss = np.full(T + 1, np.nan)
    for t in range(1, T + 1):
        noise_loss[t] = fine_bayes_loss(TWO, schedule.alpha_bar[t], schedule.beta_bar[t])
    if variance == "best":
        variance = optimal_reverse_variance(schedule, noise_loss, 1)
    std = np.sqrt(reverse_variance(schedule, variance))

    def step(t):
        return lambda x: p_mean(schedule, t, x, -schedule.beta_bar[t] * laws[t].score(x)), float(std[t])

    grid = chain_density([step(t) for t in range(T, 0, -1)], 1, final_spacing=0.02)
    second_moment = float(TWO.covariance()[0, 0] + TWO.mean()[0] ** 2)
    bound = negative_elbo(schedule, noise_loss, second_moment, 1, variance) - TWO.entropy()
    return grid_kl(grid, TWO.log_prob(grid.points)), bound


@pytest.mark.parametrize("variance", ["beta", "best"])
def test_exact_kl_of_the_optimal_chain_falls_at_rate_two_and_its_bound_at_rate_one(variance):
    """The bound is looser for more steps; the exact KL of a chain with a wrong step would not fall."""
    kl, bound = np.array([optimal_chain(T, variance) for T in (10, 40, 80, 160)]).T
    assert np.all(kl > 0)
    assert np.all(kl < bound)
    kl_slopes, bound_slopes = (np.diff(np.log(value[1:])) / np.log(2) for value in (kl, bound))
    assert np.all(np.diff(kl_slopes) < 0)
    assert -2 < kl_slopes[-1] < -1.85
    assert bound_slopes[-1] == pytest.approx(-1, abs=0.06)


def test_order_of_the_bounds_is_not_the_order_of_the_chains():
    """σ = β̃ has a much worse bound; the exact KL shows the order of the chains."""
    (kl_beta, bound_beta), (kl_posterior, bound_posterior) = optimal_chain(40, "beta"), optimal_chain(40, "posterior")
    assert bound_posterior > 10 * bound_beta
    assert kl_posterior < 2.5 * kl_beta


# --- grids that cannot hold the chain ---------------------------------------------------------------------


def test_mass_between_the_nodes_of_the_returned_grid_is_an_error():
    chain = AffineChain(np.array([[[0.9]], [[0.9]]]), np.array([[0.4], [0.1]]), [0.9, 0.5])
    with pytest.raises(ArithmeticError, match=r"^the chain's density sums to .* at its end; lower final_spacing$"):
        chain.density(final_spacing=3.0)
    assert np.all(errors_on_gaussian(chain, chain.density(resolution=4.0)) < DEFAULT)  # the chain's own nodes adapt


def test_prior_narrower_than_the_first_step_is_not_missed():
    chain = AffineChain(np.array([[[1.0]]]), np.array([[0.0]]), [1.0], prior_std=0.1)
    assert np.all(errors_on_gaussian(chain, chain.density()) < DEFAULT)


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("slope", [2.0, 5.0])
def test_chain_that_stretches_is_right(slope, D):
    """Nodes that move apart keep their mass and make the density a comb: KL .014 for 0 at a slope of 3."""
    chain = AffineChain(np.diag([0.5, slope])[None, -D:, -D:], np.zeros((1, D)), [0.5])
    assert np.all(errors_on_gaussian(chain, chain.density(final_spacing=0.2)) < DEFAULT)


@pytest.mark.parametrize("resolution", [0.3, 0.6])
def test_nodes_lie_as_close_as_asked(resolution):
    """In units of the smaller std of the two steps that reach and leave the nodes."""
    stds, seen = [0.4, 0.1, 0.1, 0.3, 0.05], []

    def mean(x):
        seen.append(np.diff(x[:, 0]).max())
        return 0.9 * x

    chain_density([(mean, std) for std in stds], 1, prior_std=0.2, resolution=resolution)
    least = [min(pair) for pair in pairwise([0.2, *stds])]
    assert len(seen) == 2 * len(stds)  # the nodes, and those half a spacing away
    assert (np.array(seen) <= resolution * np.repeat(least, 2) * (1 + 1e-9)).all()
    assert (np.array(seen) > 0.7 * resolution * np.repeat(least, 2)).all()


def test_a_mean_of_one_frequency_does_not_deceive_the_choice_of_the_spacing():
    """Nodes 0.05 apart see sin 7x as a comb, and every second node sees the same comb; by a direct integral over x."""
    grid, x = chain_density([(lambda x: np.sin(7 * x), 0.05)], 1), np.linspace(-9, 9, 90_001)[:, None]
    kernels = np.exp(-0.5 * ((grid.points.T - np.sin(7 * x)) / 0.05) ** 2)
    assert residual(grid.density, np.exp(-0.5 * x[:, 0] ** 2) @ kernels * 2e-4 / (2 * np.pi * 0.05)) < 1e-6


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (lambda x: np.where(x > 0.1, 2.0, -2.0) + 1e-3 * np.floor(200 * x), 0.003),
        (np.copy, 1e-6),
        (lambda x: 1e6 * x, 1.0),
    ],
)
def test_a_chain_that_needs_too_many_nodes_is_refused_at_once(mean, std):
    """At a jump nodes stay apart for every number of nodes; a small std or a large mean needs a larger grid."""
    with pytest.raises(ArithmeticError, match=r"the density needs nodes .* apart on .* or a mean jumps"):
        chain_density([(mean, std)], 1)


# --- chains of few steps, where the mean pulls nodes apart most ----------------------------------------------------


def few_steps(law, T):
    """A schedule of T of 100 steps, and the optimal predictor for the data of a distribution."""
    schedule = NoiseSchedule.linear(100).respace(-(-100 * np.arange(1, T + 1) // T))
    return (
        schedule,
        lambda x, t: -schedule.beta_bar[t] * law.diffuse(schedule.alpha_bar[t], schedule.beta_bar[t]).score(x),
    )


@pytest.mark.parametrize(
    ("T", "variance"),
    [*((T, "beta") for T in range(1, 11)), (50, "beta"), (50, "posterior"), (50, np.linspace(0.02, 0.1, 51))],
    ids=[*map(str, range(1, 11)), "50", "50, posterior", "50, table"],
)
@pytest.mark.parametrize("D", [1, 2])
def test_density_of_ddpm_on_gaussian_data_is_exact(D, T, variance):
    """Ancestral sampling with the optimal ε̂ of N(m, S) is an affine chain from N(0, I), without an omitted step."""
    law = Mixture([1.0], [[0.4, -0.7][:D]], np.array([[[0.02, 0.01], [0.01, 0.3]]])[:, :D, :D])
    schedule, eps_hat = few_steps(law, T)
    std = np.sqrt(reverse_variance(schedule, variance))
    steps = [(lambda x, t=t: p_mean(schedule, t, x, eps_hat(x, t)), float(std[t])) for t in range(T, 0, -1)]
    errors = errors_on_gaussian(chain_of(steps, D), ancestral_density(schedule, eps_hat, D, variance))
    assert np.all(errors < DEFAULT), errors


@pytest.mark.parametrize(
    ("sde", "times", "D"),
    [*((VP(), reverse_times(VP(), n, 0.01), 1) for n in range(1, 11))]
    + [
        (sde, reverse_times(sde, 60, 0.05, detail=0.5), D) for sde in (VP(2.0, 10.0, 2.0), VE(0.2, 2.0)) for D in (1, 2)
    ],
    ids=lambda value: f"{len(value) - 1} steps" if isinstance(value, np.ndarray) else repr(value),
)
def test_density_of_euler_maruyama_on_gaussian_data_is_exact(sde, times, D):
    """(32) from the prior of the SDE; drift and g of a step are those at its start."""
    law = Mixture([1.0], [[0.4, -0.5][:D]], np.array([[[0.05, 0.03], [0.03, 0.3]]])[:, :D, :D])

    def score(x, t):
        return law.diffuse(*sde.level(t)).score(x)

    steps = [
        (
            lambda x, t=t, s=s: x + (s - t) * (sde.drift(x, t) - sde.diffusion(t) ** 2 * score(x, t)),
            float(sde.diffusion(t) * (t - s) ** 0.5),
        )
        for t, s in pairwise(times)
    ]
    errors = errors_on_gaussian(chain_of(steps, D, sde.prior_std), euler_density(sde, score, times, D))
    assert np.all(errors < DEFAULT), errors


def kl_of_chain(law, T, **options):
    schedule, eps_hat = few_steps(law, T)
    grid = ancestral_density(schedule, eps_hat, law.dimension, **options)
    return grid.kl_from(law.log_prob(grid.points))


@pytest.mark.parametrize("T", range(1, 11))
def test_density_of_a_short_ddpm_on_two_gaussians_is_that_of_a_fine_grid(T):
    """Between the modes the mean is steep.  With one node per deviation the KL had errors of up to 4e-4."""
    assert kl_of_chain(TWO, T) == pytest.approx(kl_of_chain(TWO, T, resolution=0.1), abs=3e-6)


def test_density_after_one_step_is_an_integral():
    """T = 1, against another quadrature."""
    schedule, eps_hat = few_steps(TWO, 1)
    grid = ancestral_density(schedule, eps_hat, 1)

    def density(x):
        def integrand(y):
            mean = p_mean(schedule, 1, np.array([[y]]), eps_hat(np.array([[y]]), 1))[0, 0]
            return stats.norm.pdf(x, mean, schedule.beta[1]) * stats.norm.pdf(y)

        return integrate.quad(integrand, -9, 9, epsabs=1e-12, epsrel=1e-12, limit=500)[0]

    for i in np.searchsorted(grid.points[:, 0], [-1.5, -0.4, 0.0, 0.9, 2.0]):
        assert grid.density[i] == pytest.approx(density(grid.points[i, 0]), rel=1e-8)


@pytest.mark.parametrize("T", [1, 2, 4, 7, 10])
def test_density_in_the_plane_of_independent_coordinates_is_a_product(T):
    """The KL is then the sum of the KLs on the line."""
    other = Mixture([0.5, 0.5], [[-0.5], [1.2]], [[[0.3]], [[0.1]]])
    pairs = [(i, j) for i in range(2) for j in range(2)]
    both = Mixture(
        [TWO.weights[i] * other.weights[j] for i, j in pairs],
        np.array([[TWO.means[i, 0], other.means[j, 0]] for i, j in pairs]),
        np.array([np.diag([TWO.covariances[i, 0, 0], other.covariances[j, 0, 0]]) for i, j in pairs]),
    )
    line = sum(kl_of_chain(law, T, resolution=0.1) for law in (TWO, other))
    assert kl_of_chain(both, T) == pytest.approx(line, abs=5e-6)


def test_kl_is_finite_where_both_tails_are_nothing():
    """Eight standard deviations from the mean the density is 0 and p is 1e-22."""
    chain = AffineChain(np.array([[[1.0]]]), np.array([[2.0]]), [0.05])
    grid = chain.density(resolution=0.5)
    assert grid.density.min() == 0
    assert abs(grid.kl_from(chain.log_prob(grid.points))) < 1e-8


@pytest.mark.parametrize("std", [1.0, 0.003], ids=["beyond the grid", "between its nodes"])
def test_kl_from_a_law_that_the_grid_does_not_hold_is_an_error(std):
    """The mass of p on the grid is not 1.  Without the error the KL would be 4.7 nats, not 47.2."""
    grid = AffineChain(np.array([[[0.0]]]), np.array([[0.0]]), [0.1]).density(final_spacing=0.01)
    with pytest.raises(ArithmeticError, match=r"^p sums to .* on this grid, not to 1"):
        grid.kl_from(stats.norm.logpdf(grid.points[:, 0], 0, std))


@pytest.mark.parametrize(("dimension", "error"), [(3, ValueError), (0, ValueError), (1.0, TypeError)])
def test_dimension_is_one_or_two(dimension, error):
    with pytest.raises(error, match=r"^dimension must be "):
        chain_density([], dimension)


@pytest.mark.parametrize("dimension", [1, 2])
def test_nodes_of_no_mass_that_a_mean_throws_far_away_are_left_out(dimension):
    """The mass beyond radius 6 is 2e-8 in the plane.  The mass beyond radius 5, NaN and infinity are not left out."""

    def density(radius, far=1e30):
        def mean(x):
            outside = np.linalg.norm(x, axis=1, keepdims=True) > radius
            return np.where(outside, far, x)

        return chain_density([(mean, 0.5)], dimension, final_spacing=0.1)

    end = Mixture([1.0], np.zeros((1, dimension)), [1.25 * np.eye(dimension)])
    grid = density(6.0)
    assert abs(grid.kl_from(end)) < 1e-7
    assert 1e-10 < 1 - grid.density.sum() * grid.cell < 1e-7
    for radius, far in (5.0, 1e30), (6.0, np.nan), (6.0, np.inf):
        with pytest.raises(ArithmeticError, match="of an axis"):
            density(radius, far)
