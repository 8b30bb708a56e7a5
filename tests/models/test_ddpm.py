"""DDPM: bounds, samples and predictions against exact answers; the draws of training."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import DDPM, NoiseSchedule
from scratchgen.ddpm import bound_terms, negative_elbo
from scratchgen.nn import NoiseNetwork
from tests.exact import (
    BIMODAL,
    CLUSTERS,
    GAUSSIAN,
    LOG_2PI,
    affine,
    exact,
    gaussian,
    grid_rows,
    multistep_moments,
    sigma_rows,
)
from tests.strategies import FALSE_ALARM, Scripted, passes_as_sample, residual

# --- DDPM with an exact predictor -------------------------------------------------------------------------

SCHEDULE = NoiseSchedule.linear(12)
VARIANCES = {"beta": "beta", "posterior": "posterior", "array": np.linspace(0.02, 0.9, 13)}


def predictor(law, schedule, t, error=0.0):
    """E and e of the affine ε̂(x_t, t) = E x_t + e for Gaussian data."""
    covariance = schedule.alpha_bar[t] ** 2 * law.covariance() + schedule.beta_bar[t] ** 2 * np.eye(law.dimension)
    E = (1 + error) * schedule.beta_bar[t] * np.linalg.inv(covariance)
    return E, -E @ (schedule.alpha_bar[t] * law.mean())


def step_variances(schedule, variance):
    """σ_t² as the docstring of `reverse_variance` says."""
    if isinstance(variance, str):
        table = schedule.beta**2 if variance == "beta" else schedule.beta_tilde**2
        return np.concatenate([[0, schedule.beta[1] ** 2], table[2:]])
    return variance


def chain_bound(law, schedule, variance, error):
    """E_q[log q(x_{1:T} | x_0) − log p_θ(x_{0:T})] step by step, from covariances of neighbours in the chain.

    The formula uses no posterior, no β̃_t and no weight of (29).
    """
    D, sigma2 = law.dimension, step_variances(schedule, variance)
    mean, V = law.mean(), law.covariance()
    total = 0.0
    for t in range(1, schedule.T + 1):
        alpha, beta2 = schedule.alpha[t], schedule.beta[t] ** 2
        E, e = predictor(law, schedule, t, error)
        A = (np.eye(D) - beta2 / schedule.beta_bar[t] * E) / alpha
        c = -beta2 / schedule.beta_bar[t] * e / alpha
        V_t = alpha**2 * V + beta2 * np.eye(D)
        miss = V - alpha * (A @ V + V @ A.T) + A @ V_t @ A.T  # of x_{t−1} − A x_t − c
        shift = mean - A @ (alpha * mean) - c
        total += 0.5 * (D * (LOG_2PI + np.log(sigma2[t])) + (np.trace(miss) + shift @ shift) / sigma2[t])
        total -= 0.5 * D * (LOG_2PI + 1 + np.log(beta2))
        mean, V = alpha * mean, V_t
    return total + 0.5 * (D * LOG_2PI + np.trace(V) + mean @ mean)


@pytest.mark.parametrize("kind", VARIANCES)
@pytest.mark.parametrize("error", [0.0, 0.2])
@pytest.mark.parametrize("standardize", [True, "global", False])
def test_ddpm_bound_is_exact_for_gaussian_data(standardize, error, kind):
    """E_p[−elbo] = KL(q‖p_θ) over whole paths + H(p), with all constants, in data units, for exact and wrong ε̂."""
    model, law = exact(DDPM(SCHEDULE, VARIANCES[kind], standardize=standardize, n_steps=1, rng=0), GAUSSIAN, error)
    x0, noise = sigma_rows(GAUSSIAN)
    elbo = model.elbo(x0, rng=Scripted(lambda i, shape: noise))
    assert elbo.shape == (len(x0),)
    expected = chain_bound(law, SCHEDULE, VARIANCES[kind], error) + np.log(model.scale_).sum()
    assert abs(elbo.mean() + expected) < 1e-11


@pytest.mark.parametrize("kind", VARIANCES)
def test_ddpm_bound_is_the_closed_form_for_a_mixture(kind):
    """E_p[−elbo] by quadrature over data and noise is `negative_elbo` at ℓ_t = D − β̄_t² E‖∇log p_t‖²."""
    model, law = exact(DDPM(SCHEDULE, VARIANCES[kind], n_steps=1, rng=0), BIMODAL)
    x0, noise, weights = grid_rows(BIMODAL)
    assert abs(weights.sum() - 1) < 1e-9
    elbo = weights @ model.elbo(x0, rng=Scripted(lambda i, shape: noise))
    losses = np.zeros(SCHEDULE.T + 1)
    for t in range(1, SCHEDULE.T + 1):
        p_t = law.diffuse(SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t])
        points, w = p_t.quadrature(spacing=0.05)  # scores have poles, densities do not
        losses[t] = 1 - SCHEDULE.beta_bar[t] ** 2 * (w * np.exp(p_t.log_prob(points))) @ p_t.score(points)[:, 0] ** 2
    second_moment = float(law.mean() @ law.mean() + np.trace(law.covariance()))
    closed = negative_elbo(SCHEDULE, losses, second_moment, 1, VARIANCES[kind]) + np.log(model.scale_).sum()
    assert abs(elbo + closed) < 1e-7
    assert closed > BIMODAL.entropy() + 0.05


def test_ddpm_bound_draws_standard_normal_noise_for_every_step_and_example():
    """Statistical: within 5.5 standard errors of the exact mean and variance; each fails once in 2e7 runs."""
    model, _ = exact(DDPM(SCHEDULE, n_steps=1, rng=0), GAUSSIAN, 0.2)
    x0, n = np.array([[2.0, -1.0]]), 3000
    unit = 2**0.5 * np.vstack([np.eye(2), -np.eye(2)])
    mean = model.bound_terms(np.repeat(x0, 4, axis=0), rng=Scripted(lambda i, shape: unit)).mean(axis=0)
    terms = model.bound_terms(np.repeat(x0, n, axis=0), rng=0)
    assert terms.shape == (n, SCHEDULE.T + 1)
    assert (abs(terms.mean(axis=0) - mean) <= 5.5 * terms.std(axis=0) / n**0.5 + 1e-12).all()
    assert (terms[:, :-1].std(axis=0) > 0).all()
    assert terms[:, -1].std() < 1e-12  # L_T needs no noise
    correlation = np.corrcoef(terms[:, :-1].T) - np.eye(SCHEDULE.T)
    assert abs(correlation).max() < 5.5 / n**0.5 * 2  # steps do not share noise


def test_ddpm_bound_terms_add_up():
    model = DDPM(NoiseSchedule.linear(6), hidden=(4,), n_steps=3, rng=0).fit(GAUSSIAN.sample(50, rng=0))
    x = GAUSSIAN.sample(5, rng=1)
    terms = model.bound_terms(x, rng=2)
    assert residual(model.elbo(x, rng=2), -terms.sum(axis=1)) < 1e-15
    plain = bound_terms(
        model.schedule_, model.to_model(x), model.eps_hat, np.random.default_rng(2).standard_normal((6, 5, 2))
    )
    assert (
        residual(terms[:, 1:], plain[:, 1:]) < 1e-15
    )  # only the density of the decoder has units, not the divergences
    assert residual(terms[:, 0], plain[:, 0] + np.log(model.scale_).sum()) < 1e-15


@pytest.mark.parametrize("kind", VARIANCES)
def test_ddpm_samples_gaussian_data_with_the_exact_moments_of_its_chain(kind):
    model, law = exact(DDPM(SCHEDULE, VARIANCES[kind], n_steps=1, rng=0), GAUSSIAN)
    mean, jacobian = affine((SCHEDULE.T + 1, 2), model.sample)
    sigma2 = step_variances(SCHEDULE, VARIANCES[kind])
    m, V = np.zeros(2), np.eye(2)
    for t in range(SCHEDULE.T, 0, -1):
        E, e = predictor(law, SCHEDULE, t)
        weight = SCHEDULE.beta[t] ** 2 / SCHEDULE.beta_bar[t]
        A = (np.eye(2) - weight * E) / SCHEDULE.alpha[t]
        m, V = A @ m - weight * e / SCHEDULE.alpha[t], A @ V @ A.T + sigma2[t] * np.eye(2)
    assert residual(mean, model.scale_ * m + model.mean_) < 1e-6  # x_T is float32
    assert residual(jacobian @ jacobian.T, np.outer(model.scale_, model.scale_) * V) < 1e-6


@pytest.mark.parametrize("c", [0.0, 0.5, 1.0])
def test_ddpm_samples_gaussian_data_by_multistep_steps_with_their_exact_moments(c):
    """On all steps of a chain, and on those of a respaced one."""
    for n in 12, 5:
        schedule = NoiseSchedule.linear(12)
        schedule = schedule.respace(schedule.sinh_steps(n))
        model, law = exact(DDPM(schedule, n_steps=1, rng=0), GAUSSIAN)
        draw = lambda size, rng, model=model: model.sample(size, rng, stochasticity=c)  # noqa: E731
        mean, jacobian = affine((n + 1 if c else 1, 2), draw)  # the last step draws noise, and multiplies it by 0
        levels = np.stack([schedule.alpha_bar, schedule.beta_bar], axis=1)[:0:-1]
        m, V = multistep_moments(levels, law, c)
        assert (
            residual(mean, model.scale_ * m + model.mean_) < 2e-4
        )  # x_T is float32, and x̂_0 is divided by ᾱ_T = 0.007
        assert residual(jacobian @ jacobian.T, np.outer(model.scale_, model.scale_) * V) < 2e-4


@pytest.mark.parametrize("c", [0.0, 1.0])
def test_ddpm_samples_a_mixture_with_20_calls_by_multistep_steps(c):
    """Statistical, against the mixture; 20 ancestral steps, even in t, fail, and so do 20 of DDIM."""
    model, _ = exact(DDPM(n_steps=1, rng=0), CLUSTERS)
    network = model.network_
    fast, even = model.respace(model.schedule_.sinh_steps(20)), model.respace(20)
    assert fast.network_ is network
    path = list(fast.sample_path(3000, rng=0, stochasticity=c))
    assert [t for t, _ in path] == list(range(20, -1, -1))
    assert (fast.sample(3000, rng=0, stochasticity=c) == fast.to_data(path[-1][1])).all()
    assert passes_as_sample(fast.sample(3000, rng=1, stochasticity=c), CLUSTERS)
    assert not passes_as_sample(even.sample(3000, rng=1), CLUSTERS)
    assert not passes_as_sample(even.sample(3000, rng=1, eta=0.0), CLUSTERS)


def test_ddpm_samples_a_mixture():
    """Statistical, against the mixture; a sampler that ends one step early fails."""
    model, law = exact(DDPM(NoiseSchedule.linear(150), n_steps=1, rng=0), CLUSTERS)
    path = list(model.sample_path(2000, rng=0))
    assert [t for t, _ in path] == list(range(150, -1, -1))
    assert passes_as_sample(path[0][1], gaussian([0, 0], np.eye(2)))
    assert passes_as_sample(path[-1][1], law)
    assert not passes_as_sample(path[-12][1], law)
    assert (model.sample(2000, rng=0) == model.to_data(path[-1][1])).all()
    assert passes_as_sample(model.sample(2000, rng=1), CLUSTERS)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ddpm_predicts_noise_and_score_at_the_level_of_step_t(t, seed):
    model, law = exact_ddpm()
    x = np.random.default_rng(seed).standard_normal((3, 2))
    p_t = law.diffuse(SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t])
    assert residual(model.predict_score(x, t), p_t.score(x)) < 1e-12
    assert residual(model.eps_hat(x, t), -SCHEDULE.beta_bar[t] * p_t.score(x)) < 1e-12


@pytest.mark.parametrize(("t", "error"), [(0, ValueError), (13, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_ddpm_refuses_steps_outside_its_schedule(t, error):
    model, _ = exact_ddpm()
    for verb in model.eps_hat, model.predict_score:
        with pytest.raises(error, match="t must be"):
            verb(np.zeros((2, 2)), t)


@cache
def exact_ddpm():
    return exact(DDPM(SCHEDULE, n_steps=1, rng=0), CLUSTERS)


# --- training, seen from inside ---------------------------------------------------------------------------


def test_ddpm_trains_on_every_step_equally_often(monkeypatch):
    levels, vjp = [], NoiseNetwork.vjp

    def spied(network, x, scale, std, *rest, **given):
        levels.append((scale, std))
        return vjp(network, x, scale, std, *rest, **given)

    monkeypatch.setattr(NoiseNetwork, "vjp", spied)
    schedule = NoiseSchedule.linear(10)
    DDPM(schedule, hidden=(4,), n_steps=150, batch_size=64, rng=0).fit(GAUSSIAN.sample(50, rng=0))
    scale, std = (np.concatenate(column) for column in zip(*levels, strict=True))
    t = abs(scale[:, None] - schedule.alpha_bar).argmin(axis=1)
    assert (scale == schedule.alpha_bar[t]).all()
    assert (std == schedule.beta_bar[t]).all()
    counts = np.bincount(t, minlength=11)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > FALSE_ALARM
    assert len({tuple(batch) for batch, _ in levels}) == 150
