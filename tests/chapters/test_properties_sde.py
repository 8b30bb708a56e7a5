"""Properties (30)-(34): processes, their reversal and score matching, through the checks of `scratchgen.conformance`.

The inequality (34) does not distinguish T from T/2, so that it is also tested as an equality.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import VP, Mixture, NoiseSchedule
from scratchgen import conformance as c
from scratchgen.ddpm import q_step
from scratchgen.likelihood import kl_gaussian
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
from scratchgen.testing import as_spd, cut, mixtures_and_points, reals, sdes, size
from tests.strategies import holds, residual


@pytest.mark.equation(31)
@given(sdes())
def test_processes_solve_their_moment_equations(sde):
    """Derivatives of scale and std² by differences."""
    holds(c.check_sde(sde.marginal, sde.drift, sde.diffusion, sde.horizon))


@pytest.mark.equation(30, 31)
@given(sdes(kinds=(VP,), low=0.01), st.integers(1, 20))
def test_discretisation_has_the_law_of_the_sde_on_the_grid(sde, T):
    """With β_i = 1 − exp(−∫β), (30) has the distribution of (31) on the grid."""
    holds(c.check_discretisation(NoiseSchedule.from_sde(sde, T).variances, sde))


@pytest.mark.equation(16)
@given(mixtures_and_points())
def test_score_and_denoiser_of_mixtures_are_exact(pair):
    """Density and score of a mixture, and E[x_0 | x_t] by Tweedie's formula."""
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


@pytest.mark.equation(32, "reverse-law")
@given(gaussian_data(), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.3]))
def test_reversal_moves_the_moments_back(data, stochasticity, start):
    """The drift moves the moments back at every t, and from T to 0 the distribution of the data returns."""
    sde = data.sde
    holds(
        c.check_reverse_sde(
            lambda x, t: reverse_drift(sde, data.score(x, t), x, t, stochasticity),
            lambda t: stochasticity * sde.diffusion(t),
            sde,
            data.mean,
            data.covariance,
            stochasticity,
        )
    )
    t_min = start * sde.horizon
    mean, covariance = reverse_moments(sde, data.score, *data.law(sde.horizon), t_min, stochasticity)
    assert residual(mean, data.law(t_min)[0]) < 1e-7
    assert residual(covariance, data.law(t_min)[1]) < 1e-7


@pytest.mark.equation(32, "euler-step")
@given(sdes(), st.floats(-2, 2), st.floats(np.log(0.05), np.log(4)).map(np.exp))
def test_a_small_step_backwards_has_the_conditional_law(sde, mean, variance):
    """As h → 0 a step has the distribution of x_{t−h} given x_t."""
    data = Gaussian(sde, np.array([mean]), np.array([[variance]]))

    def step(x, t, s, noise):
        centre, std = euler_step(sde, data.score(x, t), x, t, s)
        return centre + std * noise

    holds(c.check_reverse_step(step, sde, mean, variance))


@pytest.mark.equation(32, "euler-maruyama")
@given(sdes(), reals(8, 0.01, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_euler_maruyama_evaluates_at_the_start_of_a_step(sde, gaps, stochasticity):
    """The score is that at the start of a step; for small steps the score at t − h has the same order."""
    times = sde.horizon * (1 - np.concatenate([[0], np.cumsum(gaps) / gaps.sum()]) * 0.9)

    def score(x, t):
        return np.tanh(x + t) - x

    def sample(x, times, noise):
        *_, (_, end) = euler_maruyama(sde, score, x, times, noise=noise, stochasticity=stochasticity)
        return end

    holds(c.check_reverse_sampler(sample, score, sde, times, stochasticity))


@pytest.mark.equation(33)
@given(st.floats(0.05, 1), st.floats(0.02, 3), reals(5, -1, 1))
def test_forms_of_score_matching_differ_by_constants(variance, B, u):
    """Explicit, denoising, implicit and sliced losses of a nonlinear score on a diffused mixture."""
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


@pytest.mark.equation(33)
@given(reals(size((4, 2), (4, 2)), -3, 3))
def test_explicit_score_matching_is_a_distance(flat):
    """It is 0 at the score and positive elsewhere."""
    score, target = cut(flat, (4, 2), (4, 2))
    values = explicit_score_matching(score, target)
    assert residual(values, ((score - target) ** 2) @ np.ones(2)) < 1e-14
    assert not explicit_score_matching(target, target).any()


@pytest.mark.equation(34)
@given(sdes(), reals(12, -1, 1))
def test_likelihood_bound_is_an_equality(sde, flat):
    """For s_θ = ∇log q_t and π = q_T, at any horizon."""
    m_p, m_q, A, B = cut(flat, (2,), (2,), (2, 2), (2, 2))
    laws = 2 * m_p, A @ A.T + 0.2 * np.eye(2), 2 * m_q, B @ B.T + 0.2 * np.eye(2)
    holds(c.check_kl_bound(lambda error, prior_kl: kl_bound(sde, error, prior_kl), sde, *laws))


@pytest.mark.equation(34)
@given(st.floats(-0.3, 1), st.floats(0.3, 8), st.floats(0.2, 3))
def test_likelihood_bound_holds_for_the_sde(delta, B, horizon):
    """KL(p_0‖p_θ) <= Bδ²/2 with a wrong score, by the exact law of the reverse SDE; the flow may exceed the bound."""
    sde = VP(B / horizon, B / horizon, horizon)
    holds(c.check_reverse_law(lambda score: reverse_moments(sde, score, np.zeros(1), np.eye(1)), B, delta))
    bound = kl_bound(sde, lambda t: delta**2, 0.0)
    assert residual(bound, B * delta**2 / 2) < 1e-12
    _, covariance = reverse_moments(sde, lambda x, t: -(1 + delta) * x, np.zeros(1), np.eye(1))
    assert kl_gaussian(np.zeros(1), np.eye(1), np.zeros(1), covariance) <= bound + 1e-8


# --- orders of convergence --------------------------------------------------------------------------------


def forward_errors(scheme, n):
    """Errors of (mean, variance, strong) at the end of n steps of dx = −2x dt + 2 dw from N(1, 0.3), horizon 1.

    Exact covariances of the scheme and of the true path with the same dW: the noise of the true step is cov · dW/√h
    plus an independent part.
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
    else:  # the exact step, with noise from dW alone
        approximate = q_step(exact, 1, x, dw)[:, 0]
    mean, V = np.array([1.0, 1.0]), np.full((2, 2), 0.3)
    M, G = np.diag([a, approximate[0]]), np.array([[cov, rest], approximate[1:]])
    for _ in range(n):
        mean, V = M @ mean, M @ V @ M.T + G @ G.T
    gap = mean[0] - mean[1]
    strong = np.sqrt(gap**2 + V[0, 0] + V[1, 1] - 2 * V[0, 1])
    return np.array([abs(gap), abs(V[0, 0] - V[1, 1]), strong])


@pytest.mark.equation(30, 31)
@pytest.mark.parametrize(
    ("scheme", "at_512"),
    [("ddpm", [1.1e-3, 2.0e-4, 2.3e-3]), ("euler", [5.3e-4, 2.0e-3, 1.8e-3]), ("exact", [0, 0, 1.1e-3])],
)
def test_forward_schemes_have_order_one(scheme, at_512):
    """(30), Euler-Maruyama and the exact step have weak and strong order 1; the exact step has no weak error.

    The strong order is 1, not ½, because the noise is additive.
    """
    errors = np.array([forward_errors(scheme, n) for n in (128, 256, 512)])
    assert errors[-1] == pytest.approx(at_512, rel=0.06, abs=1e-12)
    slopes = np.diff(np.log(np.maximum(errors, 1e-300)), axis=0) / np.log(2)
    for order, error in zip(slopes.T, errors[-1], strict=True):
        if error > 1e-12:
            assert order[-1] == pytest.approx(-1, abs=0.02)
