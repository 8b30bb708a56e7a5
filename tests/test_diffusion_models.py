"""DDPM and ScoreSDE: training seen from inside, and bounds, likelihoods and samples against exact answers.

With the exact predictor of a known law in place of the trained network everything is known: expectations of the
bounds are sums over nodes, fed in through a scripted Generator, and samplers of Gaussian data are affine in their
noise, so that one call at 0 and at unit vectors reads off mean and covariance.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import DDPM, VE, VP, Mixture, NoiseSchedule, ScoreSDE, SubVP
from scratchgen.ddpm import bound_terms, mean_square_step, negative_elbo
from scratchgen.noise_network import NoiseNetwork
from tests.strategies import FALSE_ALARM, Scripted, passes_as_sample, residual

LOG_2PI = np.log(2 * np.pi)
SDES = [VP(), VP(0.5, 8.0, 2.0), SubVP(0.1, 15.0), VE(0.01, 20.0)]
every_sde = pytest.mark.parametrize("sde", SDES, ids=repr)


class ExactNoise:
    """(1 + error) E[ε | x_t] = −(1 + error) std ∇log p_t(x_t) for data of a known law, in a trained network's place."""

    def __init__(self, law, error=0.0):
        self.law, self.factor = law, 1 + error

    def __call__(self, x, scale, std, *_):
        if np.ndim(scale) == 0:
            return -self.factor * std * self.law.diffuse(scale, std).score(x)
        answer = np.empty(x.shape)
        for level in set(zip(scale.tolist(), std.tolist(), strict=True)):
            rows = (scale == level[0]) & (std == level[1])
            answer[rows] = self(x[rows], *level)
        return answer

    def forward(self, x, scale, std):
        self.jacobian = -self.factor * std * self.law.diffuse(scale, std).score_jacobian(x)
        return self(x, scale, std)

    def backward(self, grad_output):
        return np.einsum("nd,nde->ne", grad_output, self.jacobian)


def exact(model, law, error=0.0):
    """The model as if it had learnt `law`, given in data units; and the law in the model's units."""
    for _ in zip(range(1), model.train(law.sample(50, rng=0)), strict=False):
        pass
    inner = Mixture(law.weights, (law.means - model.mean_) / model.scale_, law.covariances / model.scale_**2)
    model.network_ = ExactNoise(inner, error)
    return model, inner


def gaussian(mean, covariance):
    return Mixture([1.0], np.array([mean], dtype=float), np.array([covariance], dtype=float))


GAUSSIAN = gaussian([1.0, -2.0], [[4.0, 1.5], [1.5, 1.0]])
BIMODAL = Mixture([0.3, 0.7], [[-1.0], [0.6]], [[[0.1]], [[0.05]]])  # 1-D
CLUSTERS = Mixture(
    [0.5, 0.2, 0.3], [[0.0, 2.0], [-2.0, -1.0], [2.0, -1.0]], np.array([0.1, 0.2, 0.05])[:, None, None] * np.eye(2)
)


def sigma_rows(law):
    """Points and noises, all pairs of sigma points: means over rows are E_p E_ε of anything quadratic in both."""
    D = law.dimension
    unit = D**0.5 * np.vstack([np.eye(D), -np.eye(D)])
    points = law.mean() + unit @ np.linalg.cholesky(law.covariance()).T
    return np.repeat(points, 2 * D, axis=0), np.tile(unit, (2 * D, 1))


def grid_rows(law):
    """Points, noises and weights of a product rule for E_p E_ε of smooth functions, in one dimension."""
    points, weights = law.quadrature()
    weights = weights * np.exp(law.log_prob(points))
    noise = np.linspace(-8, 8, 65)
    noise_weights = stats.norm.pdf(noise) * (noise[1] - noise[0])
    rows = np.repeat(points, len(noise), axis=0), np.tile(noise[:, None], (len(points), 1))
    return *rows, np.outer(weights, noise_weights).ravel()


def affine(rng_shapes, sample):
    """Mean and Jacobian of a sampler that is affine in its normal numbers, arrays of `rng_shapes` = (calls, D)."""
    calls, D = rng_shapes
    units = np.vstack([np.zeros(calls * D), np.eye(calls * D)]).reshape(-1, calls, D)
    rng = Scripted(lambda i, shape: units[:, i])
    draws = sample(len(units), rng).astype(np.float64)
    assert rng.calls == calls
    return draws[0], (draws[1:] - draws[0]).T


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
    """E_q[log q(x_{1:T} | x_0) − log p_θ(x_{0:T})] step by step, from the covariances of neighbours in the chain.

    No posterior, no β̃_t and no weight of (29) enters.
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
@pytest.mark.parametrize("standardize", [True, False])
def test_ddpm_bound_is_exact_for_gaussian_data(standardize, error, kind):
    """E_p[−elbo] = KL(q‖p_θ) over whole paths + H(p): every constant, in data units, right predictor or wrong."""
    model, law = exact(DDPM(SCHEDULE, VARIANCES[kind], standardize=standardize, n_steps=1, rng=0), GAUSSIAN, error)
    x0, noise = sigma_rows(GAUSSIAN)
    elbo = model.elbo(x0, rng=Scripted(lambda i, shape: noise))
    assert elbo.shape == (len(x0),)
    expected = chain_bound(law, SCHEDULE, VARIANCES[kind], error) + 2 * np.log(model.scale_)
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
    closed = negative_elbo(SCHEDULE, losses, second_moment, 1, VARIANCES[kind]) + np.log(model.scale_)
    assert abs(elbo + closed) < 1e-7
    assert closed > BIMODAL.entropy() + 0.05


def test_ddpm_bound_draws_standard_normal_noise_for_every_step_and_example():
    """By chance: within 5.5 standard errors of the exact mean and variance, each fails once in 2e7."""
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
    assert residual(terms[:, 1:], plain[:, 1:]) < 1e-15  # divergences have no units; only the decoder's density has
    assert residual(terms[:, 0], plain[:, 0] + 2 * np.log(model.scale_)) < 1e-15


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
    assert residual(jacobian @ jacobian.T, model.scale_**2 * V) < 1e-6


@pytest.mark.parametrize("T", [1, 2, 7, 50])
def test_ddpm_with_the_best_variance_reproduces_a_gaussian_for_every_T(T):
    """PANC: isotropic data and σ_t² = v_t; all that is left is the start at N(0, I) instead of p_T, propagated."""
    v0, schedule, data = 0.3, NoiseSchedule.linear(T), gaussian([4.0, 1.0], 0.3 * np.eye(2))
    V = schedule.alpha_bar**2 * v0 + schedule.beta_bar**2
    variance = mean_square_step(schedule, 2 - 2 * schedule.beta_bar**2 / V, dimension=2)
    model, _ = exact(DDPM(schedule, variance, standardize=False, n_steps=1, rng=0), data)
    mean, jacobian = affine((T + 1, 2), model.sample)
    gain = schedule.alpha_bar[T] * v0 / V[T]
    assert residual(mean, data.mean() * (1 - gain * schedule.alpha_bar[T])) < 1e-6
    assert residual(jacobian @ jacobian.T, (v0 + gain**2 * (1 - V[T])) * np.eye(2)) < 1e-6


def test_ddpm_samples_a_mixture():
    """By chance, against the law itself; a sampler that ends one step early is found."""
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
def test_ddpm_predicts_nothing_at_steps_it_does_not_have(t, error):
    model, _ = exact_ddpm()
    for verb in model.eps_hat, model.predict_score:
        with pytest.raises(error, match="t must be"):
            verb(np.zeros((2, 2)), t)


@cache
def exact_ddpm():
    return exact(DDPM(SCHEDULE, n_steps=1, rng=0), CLUSTERS)


# --- ScoreSDE with an exact predictor: the bound ----------------------------------------------------------


def log_snr_ends(sde, t_min):
    """log(scale²/std²) at the horizon and at t_min."""
    return [float(2 * np.log(scale / std)) for scale, std in (sde.marginal(sde.horizon), sde.marginal(t_min))]


def kl_to_prior(sde, law):
    """KL(p_T‖π) by its definition, in one dimension by quadrature, for one Gaussian in closed form."""
    scale, std = (float(v) for v in sde.marginal(sde.horizon))
    p_T = law.diffuse(scale, std)
    cross = 0.5 * law.dimension * (LOG_2PI + 2 * np.log(sde.prior_std)) + 0.5 / sde.prior_std**2 * (
        np.trace(p_T.covariance()) + p_T.mean() @ p_T.mean()
    )
    return float(cross - entropy(p_T))


def entropy(law):
    if len(law.weights) > 1:
        return law.entropy()
    return 0.5 * float(law.dimension * (LOG_2PI + 1) + np.linalg.slogdet(law.covariances[0])[1])


def sde_bound(sde, t_min, law):
    """E_p[−elbo] of an exact score: KL(p_T‖π) + H(x_{t_min}/scale), since only the two ends of the path differ."""
    scale, std = (float(v) for v in sde.marginal(t_min))
    return kl_to_prior(sde, law) + entropy(law.diffuse(scale, std)) - law.dimension * np.log(scale)


@every_sde
@pytest.mark.parametrize("error", [0.0, 0.3, -0.5])
def test_sde_bound_is_exact_for_gaussian_data(sde, error):
    """E_p[−elbo] = KL(p_T‖π) + H + ½ ∫ E‖ε* − ε̂‖² d(log-SNR): (34) with its factor, at times read off the SDE."""
    t_min, n_times = 0.01, 200
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), GAUSSIAN, error)
    x0, noise = sigma_rows(GAUSSIAN)
    elbo = model.elbo(x0, rng=Scripted(lambda i, shape: noise), n_times=n_times)
    assert elbo.shape == (len(x0),)
    low, high = log_snr_ends(sde, t_min)
    eigenvalues = np.linalg.eigvalsh(law.covariance())
    # E‖ε*‖² = Σ 1/(1 + λ e^u) at log-SNR u, whose integral is −Σ log(λ + e^−u)
    excess = error**2 * (np.log(eigenvalues + np.exp(-low)) - np.log(eigenvalues + np.exp(-high))).sum()
    expected = sde_bound(sde, t_min, law) + 0.5 * excess + 2 * np.log(model.scale_)
    assert abs(elbo.mean() + expected) < 1e-5  # the midpoint rule in time


def test_sde_bound_is_exact_for_a_mixture():
    sde, t_min = VP(), 0.005
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), BIMODAL)
    x0, noise, weights = grid_rows(BIMODAL)
    elbo = weights @ model.elbo(x0, rng=Scripted(lambda i, shape: noise), n_times=150)
    expected = sde_bound(sde, t_min, law) + np.log(model.scale_)
    assert abs(elbo + expected) < 1e-4
    assert 0 < expected - BIMODAL.entropy() < 0.01  # the bound is nearly tight: what is left is t_min


def test_sde_bound_is_unbiased_for_any_number_of_times():
    """By chance: within 5.5 standard errors, each fails once in 2e7; more times have less variance."""
    sde, n, t_min = VP(), 600, 0.01
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), GAUSSIAN)
    expected = sde_bound(sde, t_min, law) + 2 * np.log(model.scale_)
    x = GAUSSIAN.sample(n, rng=1)
    spreads = []
    for n_times in 1, 3, 20:  # every example has times of its own, so that examples are independent
        gaps = GAUSSIAN.log_prob(x) - model.elbo(x, rng=10 + n_times, n_times=n_times)
        spreads.append(gaps.std(ddof=1))
        gap = expected - entropy(GAUSSIAN)
        assert abs(gaps.mean() - gap) < stats.t.isf(FALSE_ALARM / 2, n - 1) * spreads[-1] / n**0.5
    assert spreads[0] > 3 * spreads[2]
    assert abs(gap) < 0.05


# --- ScoreSDE with an exact predictor: the likelihood -----------------------------------------------------


@every_sde
def test_flow_likelihood_is_exact_for_gaussian_data(sde):
    """The flow maps N(a m, V_{t_min}) to N(a_T m, V_T) along each axis; π's log density there, and the volume."""
    t_min = 0.01
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), GAUSSIAN)
    x = GAUSSIAN.sample(20, rng=1)
    eigenvalues, axes = np.linalg.eigh(law.covariance())
    (a, s), (a_T, s_T) = sde.marginal(t_min), sde.marginal(sde.horizon)
    stretch = np.sqrt((a_T**2 * eigenvalues + s_T**2) / (a**2 * eigenvalues + s**2))
    end = (model.to_model(x) - a * law.mean()) @ axes * stretch + a_T * law.mean() @ axes
    expected = stats.norm.logpdf(end, 0, s_T).sum(axis=1) + np.log(stretch).sum() - 2 * np.log(model.scale_)
    assert residual(model.log_prob(x, rtol=1e-9), expected) < 1e-6
    assert residual(model.log_prob(x), expected) < 1e-3


def test_flow_likelihood_is_the_mixtures_log_density():
    """With next to no data left at the horizon the flow's density is p at t_min."""
    sde, t_min = VP(0.1, 40.0), 1e-3
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), CLUSTERS)
    x = CLUSTERS.sample(20, rng=1)
    scale, std = (float(v) for v in sde.marginal(t_min))
    expected = law.diffuse(scale, std).log_prob(model.to_model(x)) - 2 * np.log(model.scale_)
    assert residual(model.log_prob(x, rtol=1e-7), expected) < 1e-4
    assert residual(CLUSTERS.log_prob(x), expected) < 0.05  # nearly that of clean data


@pytest.mark.parametrize("n_coordinate_features", [0, 2])
def test_flow_likelihood_of_any_network_integrates_to_one(n_coordinate_features):
    """Right for a network that has learnt little, too: a density is a density, whatever its score."""
    parameters = {"hidden": (16,), "n_steps": 300, "learning_rate": 1e-2, "rng": 0}
    model = ScoreSDE(n_coordinate_features=n_coordinate_features, **parameters).fit(BIMODAL.sample(200, rng=0))
    x = np.linspace(-4, 4, 401)[:, None]
    density = np.exp(model.log_prob(x))
    assert abs(density.sum() * 0.02 - 1) < 1e-3
    assert density.max() > 0.5


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0), st.integers(0, 2))
def test_divergence_is_the_derivative_of_the_score(seed, t, n_coordinate_features):
    rng = np.random.default_rng(seed)
    model = small_score_sde()
    network = NoiseNetwork(2, (5, 4), n_coordinate_features=n_coordinate_features, rng=rng, dtype=np.float64)
    network.mlp.parameters[:] = rng.standard_normal(len(network.mlp.parameters)) / 2
    model.network_ = network
    x = rng.standard_normal((3, 2))
    score, divergence = model.score_and_divergence(x, t)
    assert residual(score, model.predict_score(x, t)) < 1e-12
    numeric = np.zeros(3)
    for d, step in enumerate(1e-4 * np.eye(2)):
        f = [model.predict_score(x + k * step, t)[:, d] for k in (1, -1, 2, -2)]
        numeric += (8 * (f[0] - f[1]) - (f[2] - f[3])) / 12e-4
    assert residual(divergence, numeric) < 1e-6


@cache
def small_score_sde():
    return ScoreSDE(n_steps=1, hidden=(2,), rng=0).fit(CLUSTERS.sample(20, rng=0))


@pytest.mark.parametrize("t", [0.0, -0.1, 1.1, np.nan])
def test_score_sde_predicts_nothing_outside_its_times(t):
    model = small_score_sde()
    for verb in model.eps_hat, model.predict_score:
        with pytest.raises(ValueError, match="t must be"):
            verb(np.zeros((2, 2)), t)


@every_sde
def test_score_sde_predicts_noise_and_score_at_time_t(sde):
    model, law = exact(ScoreSDE(sde, n_steps=1, rng=0), CLUSTERS)
    x = np.random.default_rng(0).standard_normal((3, 2))
    for t in 0.01, 0.3, sde.horizon:
        scale, std = (float(v) for v in sde.marginal(t))
        p_t = law.diffuse(scale, std)
        assert residual(model.predict_score(x, t), p_t.score(x)) < 1e-12
        assert residual(model.eps_hat(x, t), -std * p_t.score(x)) < 1e-12
        score, divergence = model.score_and_divergence(x, t)
        assert residual(score, p_t.score(x)) < 1e-12
        assert residual(divergence, np.trace(p_t.score_jacobian(x), axis1=1, axis2=2)) < 1e-12


# --- ScoreSDE with an exact predictor: samples ------------------------------------------------------------


def euler_moments(sde, law, times, churn):
    """Mean and covariance of Euler-Maruyama on (32) for Gaussian data, then of E[x_0 | x] at the last time."""
    D = law.dimension
    mean, V = np.zeros(D), sde.prior_std**2 * np.eye(D)

    def score(t):
        scale, std = (float(v) for v in sde.marginal(t))
        precision = np.linalg.inv(scale**2 * law.covariance() + std**2 * np.eye(D))
        return -precision, precision @ (scale * law.mean())

    for t, s in pairwise(times):
        f, g2, h = float(sde.rate(t)), float(sde.diffusion(t)) ** 2, t - s
        S, b = score(t)
        A = (1 - h * f) * np.eye(D) + 0.5 * (1 + churn**2) * g2 * h * S
        mean = A @ mean + 0.5 * (1 + churn**2) * g2 * h * b
        V = A @ V @ A.T + churn**2 * g2 * h * np.eye(D)
    scale, std = (float(v) for v in sde.marginal(times[-1]))
    S, b = score(times[-1])
    A = (np.eye(D) + std**2 * S) / scale  # Tweedie
    return A @ mean + std**2 / scale * b, A @ V @ A.T


@every_sde
@pytest.mark.parametrize("churn", [1.0, 0.0, 0.5])
def test_score_sde_samples_gaussian_data_with_the_exact_moments_of_its_scheme(sde, churn):
    n, t_min = 12, 0.02
    model, law = exact(ScoreSDE(sde, t_min, n_sample_steps=n, n_steps=1, rng=0), GAUSSIAN)
    mean, jacobian = affine((n + 1 if churn else 1, 2), lambda size, rng: model.sample(size, rng=rng, churn=churn))
    low, high = log_snr_ends(sde, t_min)
    times = [sde.horizon, *(float(sde.time_at(u)) for u in np.linspace(low, high, n + 1)[1:-1]), t_min]
    m, V = euler_moments(sde, law, times, churn)
    assert residual(mean, model.scale_ * m + model.mean_) < 1e-5  # x_T is float32
    assert residual(jacobian @ jacobian.T, model.scale_**2 * V) < 1e-5


@every_sde
@pytest.mark.parametrize("churn", [1.0, 0.0])
def test_score_sde_samples_have_the_right_covariance_at_first_order(sde, churn):
    """The error halves when steps double; what no step removes is t_min and the start at π."""
    errors = []
    data = gaussian([0, 0], [[1.0, 0.3], [0.3, 0.5]])
    for n in 100, 200, 400:
        model, _ = exact(ScoreSDE(sde, n_sample_steps=n, standardize=False, n_steps=1, rng=0), data)
        jacobian = affine((n + 1 if churn else 1, 2), lambda size, rng: model.sample(size, rng=rng, churn=churn))[1]  # noqa: B023
        errors.append(jacobian @ jacobian.T - data.covariance())
    assert abs(2 * errors[2] - errors[1]).max() < 0.03  # extrapolated to no step at all
    assert np.log2(np.linalg.norm(errors[0] - errors[1]) / np.linalg.norm(errors[1] - errors[2])) > 0.8


@pytest.mark.parametrize("churn", [1.0, 0.0])
def test_score_sde_samples_a_mixture(churn):
    """By chance, against the law itself; a path that stops half-way is found."""
    model, law = exact(ScoreSDE(n_steps=1, rng=0), CLUSTERS)
    path = list(model.sample_path(1500, rng=0, churn=churn))
    times = np.array([t for t, _ in path])
    assert times[0] == 1.0
    assert times[-1] == 1e-3
    assert len(times) == 251
    assert (np.diff(times) < 0).all()
    assert passes_as_sample(path[0][1], gaussian([0, 0], np.eye(2)))
    assert passes_as_sample(path[-1][1], law)
    assert not passes_as_sample(path[-120][1], law)
    assert passes_as_sample(model.sample(1500, rng=0, churn=churn), CLUSTERS)


# --- training, seen from inside ---------------------------------------------------------------------------


class Spy:
    """Records what a NoiseNetwork is trained on."""

    def __init__(self, monkeypatch):
        forward, backward = NoiseNetwork.forward, NoiseNetwork.backward_parameters
        self.x_t, self.scale, self.std, self.noise, self.loss = [], [], [], [], []

        def spied_forward(network, x, scale, std, *rest):
            self.output = forward(network, x, scale, std, *rest)
            for record, value in (self.x_t, x), (self.scale, scale), (self.std, std):
                record.append(np.array(value, dtype=np.float64))
            return self.output

        def spied_backward(network, grad_output):
            error = grad_output * len(grad_output) / 2  # the gradient of the mean of ‖error‖²
            self.noise.append((self.output - error).astype(np.float64))
            self.loss.append(float((error**2).sum() / len(error)))
            backward(network, grad_output)

        monkeypatch.setattr(NoiseNetwork, "forward", spied_forward)
        monkeypatch.setattr(NoiseNetwork, "backward_parameters", spied_backward)


DIFFUSION = {
    DDPM: {"schedule": NoiseSchedule.linear(10)},
    ScoreSDE: {"sde": VP(), "t_min": 0.05},
}
both = pytest.mark.parametrize("cls", DIFFUSION)


def tiny(cls, **parameters):
    return cls(**{**DIFFUSION[cls], "hidden": (4,), "n_steps": 60, "batch_size": 64, "rng": 0, **parameters})


@both
def test_training_predicts_the_noise_that_was_added_to_the_data(cls, monkeypatch):
    """x_t = scale x_0 + std ε with x_0 a row of the data, and the loss is E‖ε − ε̂‖², summed over dimensions."""
    spy = Spy(monkeypatch)
    x = np.random.default_rng(0).permutation(np.arange(-12.0, 13.0)).reshape(-1, 1) * [1.0, 3.0]
    model = tiny(cls)
    losses = [state.loss for state in model.train(x)]
    assert residual(losses, spy.loss) < 1e-5
    assert (model.losses_ == losses).all()
    noise, scale, std = np.concatenate(spy.noise), np.concatenate(spy.scale), np.concatenate(spy.std)
    keep = scale > 0.2  # where float32 leaves enough of x_0
    x0 = model.to_data((np.concatenate(spy.x_t) - std[:, None] * noise) / scale[:, None])[keep]
    assert abs(x0 - np.rint(x0)).max() < 1e-3
    rows = np.rint(x0)
    assert (rows[:, 1] == 3 * rows[:, 0]).all()
    assert set(rows[:, 0]) == set(x[:, 0])
    assert stats.chisquare(np.unique_counts(rows[:, 0]).counts).pvalue > FALSE_ALARM
    for column in noise.T:
        assert stats.kstest(column, "norm").pvalue > FALSE_ALARM
    assert abs(np.corrcoef(noise.T)[0, 1]) < 5.5 / len(noise) ** 0.5


def test_ddpm_trains_on_every_step_alike(monkeypatch):
    spy = Spy(monkeypatch)
    tiny(DDPM, n_steps=150).fit(GAUSSIAN.sample(50, rng=0))
    schedule = NoiseSchedule.linear(10)
    scale, std = np.concatenate(spy.scale), np.concatenate(spy.std)
    t = abs(scale[:, None] - schedule.alpha_bar).argmin(axis=1)
    assert (scale == schedule.alpha_bar[t]).all()
    assert (std == schedule.beta_bar[t]).all()
    counts = np.bincount(t, minlength=11)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > FALSE_ALARM
    assert len({tuple(batch) for batch in spy.scale}) == 150


@every_sde
@pytest.mark.parametrize("weighting", ["likelihood", "noise"])
def test_score_sde_trains_on_one_time_in_every_cell(sde, weighting, monkeypatch):
    """Cells of equal log-SNR (λ = g²) or of equal time (λ = std²), and in each of them evenly."""
    spy = Spy(monkeypatch)
    tiny(ScoreSDE, sde=sde, t_min=0.01, weighting=weighting, n_steps=40).fit(GAUSSIAN.sample(50, rng=0))
    log_snr = 2 * np.log(np.array(spy.scale) / np.array(spy.std))
    low, high = log_snr_ends(sde, 0.01)
    if weighting == "likelihood":
        position = (log_snr - low) / (high - low) * 64
    else:
        position = (sde.time_at(log_snr) - 0.01) / (sde.horizon - 0.01) * 64
    position = np.sort(position, axis=1) - np.arange(64)
    assert position.min() > -1e-6
    assert position.max() < 1 + 1e-6
    assert stats.kstest(position.ravel(), "uniform").pvalue > FALSE_ALARM
    assert residual(np.array(spy.scale) ** 2, scale_squared(sde, log_snr)) < 1e-9


def scale_squared(sde, log_snr):
    """scale² as a function of log-SNR, from the invariant of each process."""
    snr = np.exp(log_snr)
    if type(sde) is VP:
        return snr / (1 + snr)
    if type(sde) is VE:
        return np.ones_like(snr)
    return (2 / (1 + np.sqrt(1 + 4 * np.sqrt(snr) ** 2)) * np.sqrt(snr)) ** 2  # a/(1 − a²) = √snr


@both
def test_sampling_network_is_the_moving_average_of_the_trained_one(cls):
    """Training does not depend on the average, so that a run without one shows the path that is averaged."""
    x, decay = GAUSSIAN.sample(50, rng=0), 0.7
    raw = tiny(cls, ema_decay=0.0, learning_rate=0.05, n_steps=30)
    path = [raw.parameters_.copy() for _ in raw.train(x)]
    average = tiny(cls, ema_decay=decay, learning_rate=0.05, n_steps=30)
    expected = None
    for n, _ in enumerate(average.train(x), start=1):
        if expected is None:
            start = expected = (average.parameters_ - (1 - 2 / 11) * path[0]) / (2 / 11)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * path[n - 1]
        assert residual(average.parameters_, expected) < 1e-4
    assert residual(start, NoiseNetwork(2, (4,), rng=0).mlp.parameters) < 1e-4  # where both started
    assert average.network_.mlp.parameters is average.parameters_
    assert residual(raw.parameters_, average.parameters_) > 1e-3
    assert (average.eps_hat(x, 1) == average.network_(x, *level(average))).all()


def level(model):
    if isinstance(model, DDPM):
        return float(model.schedule_.alpha_bar[1]), float(model.schedule_.beta_bar[1])
    return tuple(float(v) for v in model.sde_.marginal(1))


@both
def test_learning_rate_rises_then_falls_to_0(cls):
    """Adam's step is at most about its rate: warm-up over a tenth of a short run, half a cosine after it."""
    model = tiny(cls, ema_decay=0.0, learning_rate=1e-2, n_steps=200)
    path = [model.parameters_.copy() for _ in model.train(GAUSSIAN.sample(50, rng=0))]
    moves = np.abs(np.diff(path, axis=0)).max(axis=1)
    assert moves[:3].max() < 0.3 * moves[15:60].max()
    assert moves[-3:].max() < 0.01 * moves[15:60].max()
    assert moves.max() < 2.5e-2


@both
def test_training_learns_a_mixture(cls):
    """The bound of the trained network against that of the exact one, with the same noise: what is left to learn."""
    parameters = {"hidden": (32, 32), "n_steps": 1500, "batch_size": 128, "learning_rate": 1e-2, "ema_decay": 0.99}
    model = cls(**DIFFUSION[cls], **parameters, rng=0).fit(CLUSTERS.sample(2000, rng=0))
    oracle, _ = exact(cls(**DIFFUSION[cls], n_steps=1), CLUSTERS)
    oracle.mean_, oracle.scale_ = model.mean_, model.scale_
    oracle.network_ = ExactNoise(
        Mixture(CLUSTERS.weights, model.to_model(CLUSTERS.means), CLUSTERS.covariances / model.scale_**2)
    )
    untrained = tiny(cls, n_steps=1).fit(CLUSTERS.sample(2000, rng=0))
    x = CLUSTERS.sample(200, rng=1)
    best, learnt, before = (m.elbo(x, rng=2).mean() for m in (oracle, model, untrained))
    assert 0 < best - learnt < 0.12  # nats; measured 0.04 for both
    assert best - before > 0.5


@both
def test_default_processes(cls):
    model = cls(hidden=(2,), n_steps=1, rng=0).fit(GAUSSIAN.sample(5, rng=0))
    if cls is DDPM:
        assert model.schedule_.variances.tobytes() == NoiseSchedule.linear(100).variances.tobytes()
    else:
        assert model.sde_ == VP()
