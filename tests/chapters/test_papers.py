"""Two oracles written from the papers alone, in their notation; the package must agree with them.

`improved_ddpm_bound` is the bound of Ho et al. (2020, arXiv 2006.11239) summed over every step in bits/dim, as Nichol
and Dhariwal (2021, arXiv 2102.09672) report it.  `flow_log_likelihood` is the likelihood of Song et al. (2021, arXiv
2011.13456), appendix D.2.  Neither calls scratchgen.  Numbers in brackets are equations of these papers.
"""

import copy
from collections import namedtuple
from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.special import ndtr

from scratchgen import DDPM, VE, VP, Mixture, NoiseSchedule, ScoreSDE, SubVP
from scratchgen.datasets import dequantize, digits, two_moons
from scratchgen.ddpm import bound_terms
from scratchgen.likelihood import bits_per_dim
from scratchgen.sde import probability_flow_log_prob
from tests.strategies import residual

# --- oracle 1: the bound of Ho et al., Nichol and Dhariwal ------------------------------------------------


def alphas_cumprod(betas):
    """Betas, alphas and ᾱ at t = 0..T, from the betas at t = 1..T, which are variances."""
    betas = np.append(0.0, betas)
    return betas, 1 - betas, np.cumprod(1 - betas)


def beta_tilde(betas):
    """The posterior variances β̃_t, t = 1..T (7)."""
    betas, _, cumprod = alphas_cumprod(betas)
    return betas[1:] * (1 - cumprod[:-1]) / (1 - cumprod[1:])


def normal_kl(mean_q, variance_q, mean_p, variance_p):
    ratio = variance_q / variance_p
    return 0.5 * (ratio - np.log(ratio) - 1 + (mean_q - mean_p) ** 2 / variance_p)


def discretised_decoder(k, K, mean, sigma):
    """log p(x_0 | x_1) of the levels k = 0..K−1 scaled to [−1, 1], 255 being K − 1 (13)."""
    x = 2 * k / (K - 1) - 1
    upper = np.where(k == K - 1, np.inf, (x + 1 / (K - 1) - mean) / sigma)
    lower = np.where(k == 0, -np.inf, (x - 1 / (K - 1) - mean) / sigma)
    return np.log(np.where(lower > 0, ndtr(-lower) - ndtr(-upper), ndtr(upper) - ndtr(lower)))


def improved_ddpm_bound(betas, sigma_squared, eps_theta, x_0, noise, decoder):
    """L_0, …, L_T in bits/dim, (N, T+1), with μ_θ = μ̃_t(x_t, x̂_0) and decoder(μ_θ, σ_1) = log p(x_0 | x_1) (5)."""
    betas, alphas, cumprod = alphas_cumprod(betas)
    T, posterior_variance = len(betas) - 1, np.append(0.0, beta_tilde(betas[1:]))
    terms = np.empty((len(x_0), T + 1))
    terms[:, T] = normal_kl(np.sqrt(cumprod[T]) * x_0, 1 - cumprod[T], 0, 1).sum(axis=1)
    for t in range(T, 0, -1):
        x_t = np.sqrt(cumprod[t]) * x_0 + np.sqrt(1 - cumprod[t]) * noise[t - 1]  # (4)
        x_0_hat = (x_t - np.sqrt(1 - cumprod[t]) * eps_theta(x_t, t)) / np.sqrt(cumprod[t])  # (15)
        of_x_0 = np.sqrt(cumprod[t - 1]) * betas[t] / (1 - cumprod[t])
        of_x_t = np.sqrt(alphas[t]) * (1 - cumprod[t - 1]) / (1 - cumprod[t])
        mu_theta, mu_tilde = of_x_0 * x_0_hat + of_x_t * x_t, of_x_0 * x_0 + of_x_t * x_t  # (7)
        if t > 1:
            terms[:, t - 1] = normal_kl(mu_tilde, posterior_variance[t], mu_theta, sigma_squared[t - 1]).sum(axis=1)
        else:
            terms[:, 0] = -decoder(mu_theta, np.sqrt(sigma_squared[0])).sum(axis=1)
    return terms / (x_0.shape[1] * np.log(2))


def sigma_squared(betas, variance, noise_losses=None, D=None):
    """σ_t², t = 1..T.  β̃_1 = 0 would make L_0 infinite; β_1 takes its place, because the paper leaves it open."""
    if variance == "beta":
        return betas
    if variance == "posterior":
        return np.append(betas[0], beta_tilde(betas)[1:])
    _, alphas, cumprod = alphas_cumprod(betas)  # "optimal": β̃_t + E‖μ̃_t − μ_θ‖²/D, with μ_θ of (11)
    return beta_tilde(betas) + betas**2 / (alphas * (1 - cumprod))[1:] * noise_losses[1:] / D


def cosine_betas(T):
    """ᾱ_t = f(t)/f(0), f = cos²((t/T + s)/(1 + s) · π/2), s = 0.008, β_t at most 0.999 (Nichol and Dhariwal 17)."""
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


# --- our DDPM against it ----------------------------------------------------------------------------------


def in_double(model):
    """The fitted model with float64 parameters: in float32 ε̂ changes by 1e-7 with the last bit of x_t."""
    twin = copy.copy(model)
    n = model.network_.n_coordinate_features
    twin.network_ = type(model.network_)(model.n_features_in_, model.hidden, n_coordinate_features=n, dtype=np.float64)
    twin.network_.parameters[:] = model.parameters_
    return twin


BETAS = {"Ho": np.linspace(1e-4, 0.02, 1000), "cosine": cosine_betas(50), "few": np.array([0.3, 0.1, 0.6])}


@pytest.mark.equation(20)
@pytest.mark.parametrize("betas", BETAS.values(), ids=BETAS.keys())
@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize("K", [None, 17, 256])
def test_every_term_of_the_bound_is_the_papers(betas, variance, K):
    rng = np.random.default_rng(0)
    k = rng.integers(K, size=(20, 3)) if K else None
    if K:
        k[0] = 0, K - 1, 1
    x_0 = 2 * k / (K - 1) - 1 if K else rng.standard_normal((20, 3))
    noise = rng.standard_normal((len(betas), *x_0.shape))

    def eps_theta(x_t, t):
        return 0.9 * x_t + 0.3 * np.sin(3 * x_t[:, ::-1] + t)

    decoder = partial(discretised_decoder, k, K) if K else partial(stats.norm.logpdf, x_0)
    ours = bound_terms(NoiseSchedule.from_variances(betas), x_0, eps_theta, noise, variance, K) / (3 * np.log(2))
    papers = improved_ddpm_bound(betas, sigma_squared(betas, variance), eps_theta, x_0, noise, decoder)
    assert residual(ours, papers) < 1e-10  # measured 3e-11: 1 − ᾱ_t here cancels for Ho's betas


def test_cosine_schedule_is_that_of_the_paper():
    assert residual(NoiseSchedule.cosine(50).variances, BETAS["cosine"]) < 1e-13


# measured 1e-14 in the next tests
TRAINED = {"hidden": (16,), "n_steps": 40, "batch_size": 64, "learning_rate": 1e-2, "ema_decay": 0.0, "rng": 0}
PREDICTIONS, VARIANCES = ["noise", "v", "x0"], ["beta", "posterior", "optimal"]


@pytest.mark.equation(20)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_a_trained_model_of_levels_has_the_bits_per_dim_of_the_paper(prediction, variance):
    betas, K, D, images = np.linspace(0.005, 0.4, 20), 17, 64, digits().images[:200]
    model = DDPM(NoiseSchedule.from_variances(betas), variance, prediction=prediction, n_levels=K, **TRAINED).fit(
        images
    )
    model, k = in_double(model), images[:30]
    sigma2 = sigma_squared(betas, variance, model.noise_losses_, D)
    noise = np.random.default_rng(1).standard_normal((20, 30, D))
    decoder = partial(discretised_decoder, k, K)
    papers = improved_ddpm_bound(betas, sigma2, model.eps_hat, 2 * k / 16 - 1, noise, decoder)
    assert residual(model.bound_terms(k, rng=1) / (D * np.log(2)), papers) < 1e-12
    assert residual(-model.elbo(k, rng=1) / (D * np.log(2)), papers.sum(axis=1)) < 1e-12


@pytest.mark.equation(20)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_a_trained_model_of_reals_has_the_bound_of_the_paper_in_the_datas_units(prediction, variance):
    betas = np.linspace(0.01, 0.3, 25)
    x = two_moons().sample(300, rng=0) * [30.0, 5.0] + [100.0, -7.0]
    single = DDPM(NoiseSchedule.from_variances(betas), variance, prediction=prediction, **TRAINED).fit(x)
    model, mean, std = in_double(single), x.mean(axis=0), x.std(axis=0)
    sigma2 = sigma_squared(betas, variance, model.noise_losses_, 2)
    noise = np.random.default_rng(1).standard_normal((25, *x.shape))

    def decoder(mu, sigma):  # for x, not for the scaled x_0
        return stats.norm.logpdf(x, mean + std * mu, std * sigma)

    papers = improved_ddpm_bound(betas, sigma2, model.eps_hat, (x - mean) / std, noise, decoder)
    assert residual(model.bound_terms(x, rng=1) / (2 * np.log(2)), papers) < 1e-12
    assert residual(-model.elbo(x, rng=1) / (2 * np.log(2)), papers.sum(axis=1)) < 1e-12
    assert residual(-single.elbo(x, rng=1) / (2 * np.log(2)), papers.sum(axis=1)) < 1e-5  # float32: measured 6e-7


@pytest.mark.equation(20)
@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_a_respaced_model_has_the_betas_of_nichol_and_dhariwal_and_the_networks_old_times(variance):
    """β_{S_i} = 1 − ᾱ_{S_i}/ᾱ_{S_{i−1}} (Nichol and Dhariwal 19)."""
    betas, S = np.linspace(0.01, 0.3, 25), np.array([2, 9, 10, 25])
    x = two_moons().sample(300, rng=0)
    model = in_double(DDPM(NoiseSchedule.from_variances(betas), variance, standardize=False, **TRAINED).fit(x))
    cumprod = alphas_cumprod(betas)[2][np.append(0, S)]
    short = 1 - cumprod[1:] / cumprod[:-1]
    noise = np.random.default_rng(1).standard_normal((4, *x.shape))

    def eps_theta(x_t, i):
        return model.eps_hat(x_t, int(S[i - 1]))

    decoder = partial(stats.norm.logpdf, x)
    papers = improved_ddpm_bound(short, sigma_squared(short, variance), eps_theta, x, noise, decoder)
    assert residual(model.respace(S).bound_terms(x, rng=1) / (2 * np.log(2)), papers) < 1e-12


# --- oracle 2: the likelihood of Song et al. --------------------------------------------------------------


def beta(t):
    return 0.1 + t * (20 - 0.1)


def beta_integral(t):
    return 0.1 * t + 0.5 * t**2 * (20 - 0.1)


def sigma(t):
    return 0.01 * (50 / 0.01) ** t


def alpha(t):
    return np.exp(-beta_integral(t) / 2)


# dx = f(t) x dt + √g²(t) dw (9), (11), (12), with perturbation kernel N(α(t) x(0), σ²(t) I) (29)
Process = namedtuple("Process", "f g2 alpha sigma2 prior_std")
PAPERS = {
    "VP": Process(lambda t: -beta(t) / 2, beta, alpha, lambda t: 1 - alpha(t) ** 2, 1.0),
    "sub-VP": Process(
        lambda t: -beta(t) / 2, lambda t: beta(t) * (1 - alpha(t) ** 4), alpha, lambda t: (1 - alpha(t) ** 2) ** 2, 1.0
    ),
    "VE": Process(
        lambda t: 0.0,
        lambda t: 2 * sigma(t) ** 2 * np.log(50 / 0.01),  # dσ²/dt
        lambda t: 1.0,
        lambda t: sigma(t) ** 2 - sigma(0) ** 2,
        50.0,
    ),
}
OURS = {"VP": VP(), "sub-VP": SubVP(), "VE": VE(0.01, 50.0)}
every_process = pytest.mark.parametrize("name", PAPERS)


def flow_log_likelihood(paper, score, x, eps, probes=None, tol=1e-8, h=1e-3):
    """(x(T), ∫ ∇·f̃ dt) of dx/dt = f̃ = f x − ½ g² s (13) from t = eps to T = 1; log p adds log p_T(x(T)) (39).

    ∇·f̃ is the mean of vᵀ(∇f̃)v over probes v, (n, N, D), (40), by central differences of step h; the probes √D e_i,
    the default, make it exact.
    """
    N, D = x.shape
    if probes is None:
        probes = np.broadcast_to(np.sqrt(D) * np.eye(D)[:, None], (D, N, D))
    v = h * probes

    def slope(t, state):
        points = state[: N * D].reshape(N, D)
        stack = np.concatenate([points[None], points + v, points - v, points + 2 * v, points - 2 * v]).reshape(-1, D)
        f_tilde = (paper.f(t) * stack - 0.5 * paper.g2(t) * score(stack, t)).reshape(-1, N, D)
        up, down, up2, down2 = np.split(f_tilde[1:], 4)
        along = (8 * (up - down) - (up2 - down2)) / 12  # (∇f̃) v
        divergence = (v * along).sum(axis=2).mean(axis=0) / h**2
        return np.concatenate([f_tilde[0].ravel(), divergence])

    end = solve_ivp(slope, (eps, 1.0), np.append(x.ravel(), np.zeros(N)), method="RK45", rtol=tol, atol=tol).y[:, -1]
    return end[: N * D].reshape(N, D), end[N * D :]


def mixture_score(paper, weights, means, covariances):
    """∇ log Σ_k w_k N(x; α m_k, α² C_k + σ² I)."""

    def score(x, t):
        precisions = np.linalg.inv(paper.alpha(t) ** 2 * covariances + paper.sigma2(t) * np.eye(means.shape[1]))
        away = paper.alpha(t) * means - x[:, None]
        pull = np.einsum("kde,nke->nkd", precisions, away)
        logits = np.log(weights) + 0.5 * np.log(np.linalg.det(precisions)) - 0.5 * (away * pull).sum(axis=2)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.einsum("nk,nkd->nd", share / share.sum(axis=1, keepdims=True), pull)

    return score


# --- our flow against it ----------------------------------------------------------------------------------

LAW = (
    np.array([0.5, 0.2, 0.3]),
    np.array([[0.0, 1.5], [-1.5, -0.5], [1.5, -1.0]]),
    np.array([[[0.2, 0.1], [0.1, 0.1]], [[0.1, 0.0], [0.0, 0.3]], [[0.1, -0.05], [-0.05, 0.2]]]),
)


def log_normal(x, std):
    return stats.norm.logpdf(x, 0, std).sum(axis=1)


@pytest.mark.equation(32)
@every_process
def test_flow_of_the_exact_score_has_the_likelihood_of_the_paper(name):
    paper, sde, law = PAPERS[name], OURS[name], Mixture(*LAW)
    x = np.random.default_rng(0).uniform(-2.5, 2.5, (12, 2))

    def score_and_divergence(x_t, t):
        p_t = law.diffuse(*sde.level(t))
        return p_t.score(x_t), np.trace(p_t.score_jacobian(x_t), axis1=1, axis2=2)

    ours = probability_flow_log_prob(sde, score_and_divergence, x, 1e-5, rtol=1e-8)
    x_T, integral = flow_log_likelihood(paper, mixture_score(paper, *LAW), x, 1e-5)
    assert residual(ours, log_normal(x_T, paper.sigma2(1.0) ** 0.5) + integral) < 2e-7  # measured 2e-8
    # the papers' priors N(0, I) and N(0, σ_max² I) differ slightly from p_T: measured 4e-4, 8e-4, 4e-7 nats
    assert 1e-9 < np.abs(ours - log_normal(x_T, paper.prior_std) - integral).max() < 1e-3


def trained(name, x):
    return ScoreSDE(OURS[name], t_min=1e-3, **TRAINED).fit(x)


def papers_log_prob(name, model, training_data, x, **keywords):
    """log p(x) by the oracle from the model's score, for columns with mean 0 and variance 1."""
    paper, mean, std = PAPERS[name], training_data.mean(axis=0), training_data.std(axis=0)
    x_T, integral = flow_log_likelihood(paper, model.predict_score, (x - mean) / std, 1e-3, **keywords)
    return log_normal(x_T, np.sqrt(paper.sigma2(1.0))) + integral - np.log(std).sum()


@pytest.mark.equation(32)
@every_process
def test_flow_of_a_trained_model_has_the_likelihood_of_the_paper_in_the_datas_units(name):
    x = two_moons().sample(300, rng=0) * [30.0, 5.0] + [100.0, -7.0]
    single = trained(name, x)
    model = in_double(single)
    papers = papers_log_prob(name, model, x, x[:10])
    assert residual(model.log_prob(x[:10], rtol=1e-7), papers) < 2e-7  # measured 2e-8
    assert residual(single.log_prob(x[:10]), papers) < 1e-5  # float32 and rtol = 1e-5: measured 1e-6


@pytest.mark.equation(32)
@every_process
def test_hutchinsons_estimate_is_that_of_the_paper_with_the_same_signs(name):
    x = np.random.default_rng(0).standard_normal((300, 5)) ** 3
    model = in_double(trained(name, x))
    signs = np.random.default_rng(7).choice([-1.0, 1.0], size=(2, 10, 5))
    papers = papers_log_prob(name, model, x, x[:10], probes=signs)
    ours = model.log_prob(x[:10], rtol=1e-7, n_probes=2, rng=7)
    assert residual(ours, papers) < 3e-7  # measured 3e-8
    assert residual(model.log_prob(x[:10], rtol=1e-3), papers) > 5e-3  # the estimate is not the exact value


# --- bits/dim of levels -----------------------------------------------------------------------------------


@pytest.mark.equation("bits-per-dimension")
def test_bits_of_dequantised_digits_are_the_papers_with_their_offset():
    """Ours: −log₂ p(k + u)/D.  The papers: −log₂ p(2(k + u)/K − 1)/D + log₂(K/2), where 7 = log₂(K/2) for bytes."""
    K, k = 17, digits().images[:300, [27, 28, 35, 36]]
    u = np.random.default_rng(0).random(k.shape)
    x, y = dequantize(k[:10], noise=u[:10]), 2 * (k + u) / K - 1
    ours = -in_double(trained("VP", k + u)).log_prob(x, rtol=1e-7) / (4 * np.log(2))
    nats = -papers_log_prob("VP", in_double(trained("VP", y)), y, y[:10])
    papers = nats / (4 * np.log(2)) + np.log2(K / 2)
    assert residual(ours, papers) < 1e-5  # two trainings on data that differ by rounding: measured 1e-8
    assert residual(bits_per_dim(nats, 4, scale=2 / K), papers) < 1e-14
    assert residual(bits_per_dim(nats, 4, scale=2 / 256), nats / (4 * np.log(2)) + 7) < 1e-14
