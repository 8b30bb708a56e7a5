"""The checks of the diffusion chain on other people's codes: right ones pass, wrong ones fail with a right diagnosis.

The right codes are written without the package, in the forms that public code has: tables of α-bar from a cumulative
product (Ho's convention), the posterior mean of a predicted x_0, float32.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from scratchgen import NoiseSchedule
from scratchgen.conformance import (
    check_ancestral_step,
    check_bound_terms,
    check_chains,
    check_ddim_sampler,
    check_ddim_step,
    check_forward_process,
    check_forward_step,
    check_negative_elbo,
    check_noise_merging,
    check_optimal_variance,
    check_posterior,
    check_predict_x0,
    check_reverse_variance,
    check_sampler,
    check_schedule,
    check_step_draws,
    check_step_loss,
    check_variational_bound,
)
from scratchgen.conformance.bound import _terms
from scratchgen.conformance.reference_chain import compose
from scratchgen.conformance.result import NAMELESS
from scratchgen.ddpm import one_step_loss, total_noise_loss
from scratchgen.equations import check
from scratchgen.museum.tour import ROWS

FIVE = NoiseSchedule([0.02, 0.1, 0.25, 0.4, 0.6])
SCHEDULES = {
    "T = 1": NoiseSchedule([0.3]),
    "T = 2": NoiseSchedule([0.3, 0.2]),
    "T = 5": FIVE,
    "Ho's table": NoiseSchedule(np.linspace(1e-4, 0.02, 1000)),
    "cosine": NoiseSchedule.cosine(1000),
    "T = 4000": NoiseSchedule.linear(4000),
    "tiny steps": NoiseSchedule(np.full(5, 1e-8)),
    "steps of all sizes": NoiseSchedule([0.999, 0.999, 1e-9, 1e-3]),
}
SINGLE_SCHEDULES = [name for name in SCHEDULES if name != "tiny steps"]  # 1 − ᾱ² is 0 in float32


def column(values):
    """(N,) as (N, 1), for arrays of t."""
    return values[:, None] if np.ndim(values) else values


def code(schedule, dtype=np.float64):
    """A code of its own in Ho's convention: betas and α-bar with an entry 0 for clean data."""
    betas = np.append(0, schedule.variances).astype(dtype)
    alphas = 1 - betas
    acp = np.cumprod(alphas, dtype=dtype)
    prev = np.append(np.ones(1, dtype), acp[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = betas * (1 - prev) / (1 - acp)
        by_x_t, by_x0 = np.sqrt(alphas) * (1 - prev) / (1 - acp), np.sqrt(prev) * betas / (1 - acp)
    single = [np.asarray(one) for one in (betas, alphas, acp, variance)]

    def of(table, t):
        return column(table[t])

    def q_sample(t, x0, noise):
        return of(np.sqrt(acp), t) * x0.astype(dtype) + of(np.sqrt(1 - acp), t) * noise.astype(dtype)

    def q_step(t, x, noise):
        return of(np.sqrt(alphas), t) * x.astype(dtype) + of(np.sqrt(betas), t) * noise.astype(dtype)

    def q_posterior(t, x_t, x0):
        mean = of(by_x_t, t) * x_t.astype(dtype) + of(by_x0, t) * x0.astype(dtype)
        return mean, of(variance, t)

    def predict_x0(t, x_t, eps):
        return (x_t.astype(dtype) - of(np.sqrt(1 - acp), t) * eps.astype(dtype)) / of(np.sqrt(acp), t)

    def step(t, x_t, eps, noise, sigma):
        return q_posterior(t, x_t, predict_x0(t, x_t, eps))[0] + of(sigma.astype(dtype), t) * noise.astype(dtype)

    def ddim(t, s, x_t, eps, noise, eta):
        ratio = of(acp, t) / of(acp, s)
        sigma = eta * np.sqrt((1 - of(acp, s)) / (1 - of(acp, t)) * (1 - ratio))
        direct = np.sqrt(np.maximum(1 - of(acp, s) - sigma**2, 0))
        eps, noise = eps.astype(dtype), noise.astype(dtype)
        return of(np.sqrt(acp), s) * predict_x0(t, x_t, eps) + direct * eps + sigma.astype(dtype) * noise

    return SimpleNamespace(**{k: v for k, v in locals().items() if k not in ("schedule", "dtype", "single")})


def checks_of(schedule, mine):
    """Every check of kernels and steps on one code."""
    sigma = np.sqrt(np.append(0.0, schedule.variances))
    yield lambda: check_forward_process(mine.q_sample, schedule)
    yield lambda: check_forward_step(mine.q_step, schedule)
    yield lambda: check_posterior(mine.q_posterior, schedule)
    yield lambda: check_predict_x0(mine.predict_x0, schedule)
    yield lambda: check_ancestral_step(lambda *a: mine.step(*a, sigma), schedule, sigma**2)
    for eta in 0.0, 0.7, 1.0:
        yield lambda eta=eta: check_ddim_step(lambda *a: mine.ddim(*a, eta), schedule, eta)

    def sample(x, eps_hat, noise):
        for t in range(schedule.T, 0, -1):
            x = mine.step(t, x, eps_hat(x, t), noise[schedule.T - t], sigma)
        return x

    def loop(x, eps_hat, noise):
        for t in range(schedule.T, 0, -1):
            x = mine.ddim(t, t - 1, x, eps_hat(x, t), noise[schedule.T - t], 0.7)
        return x

    if schedule.T <= 1000:
        yield lambda: check_sampler(sample, schedule, 0.5, 0.3, sigma**2)
        yield lambda: check_ddim_sampler(loop, schedule, 0.7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_right_codes_in_hos_convention_pass(name):
    for run in checks_of(SCHEDULES[name], code(SCHEDULES[name])):
        result = run()
        assert result, result
        assert result.residual < 0.3 * result.tolerance, result


@pytest.mark.parametrize("name", SINGLE_SCHEDULES)
def test_right_codes_in_float32_pass_at_their_precision(name):
    for run in checks_of(SCHEDULES[name], code(SCHEDULES[name], np.float32)):
        result = run()
        assert result.at(1e-5), result


def test_float32_is_said_and_the_cancellation_with_it():
    ho = SCHEDULES["Ho's table"]
    result = check_forward_process(code(ho, np.float32).q_sample, ho)
    assert "1 − ᾱ² and its like are differences of float32 numbers near 1" in result.diagnosis
    assert "float32 precision" in result.diagnosis
    assert "float32 precision" in check_predict_x0(code(ho, np.float32).predict_x0, ho).diagnosis


# --- wrong codes and what their diagnosis says -----------------------------------------------------------------------

V, ACP = np.append(0, FIVE.variances), FIVE.alpha_bar**2
A, B, A_BAR, B_BAR, TILDE = FIVE.alpha, FIVE.beta, FIVE.alpha_bar, FIVE.beta_bar, FIVE.beta_tilde
GIVEN = np.array([0.0, 0.05, 0.2, 0.3, 0.5, 0.9])
SIGMA = np.sqrt(GIVEN)
RIGHT = code(FIVE)


def forward(a, b):
    return lambda t, x, e: column(np.asarray(a)[t]) * x + column(np.asarray(b)[t]) * e


def late(table):
    return np.append(table[1:], table[-1])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (forward(ACP, B_BAR), "x_0 has factor ᾱ², which is Ho's α-bar without its square root"),
        (forward(A_BAR, 1 - ACP), "the noise has factor β̄², a variance"),
        (forward(ACP, 1 - ACP), "both square roots are missing"),
        (forward(A_BAR, np.sqrt(1 - A_BAR)), "ᾱ is not squared"),
        (forward(late(A_BAR), late(B_BAR)), "every step is one too late: t counts 1..T"),
        (forward(np.roll(A_BAR, 1), np.roll(B_BAR, 1)), "index shifted by one"),
        (forward(A_BAR, B), "the noise is that of one step"),
        (lambda t, x, e: RIGHT.q_sample(t, x, e[:, :1] + 0 * e), "all dimensions use ε of the first dimension"),
        (lambda t, x, e: RIGHT.q_sample(t, x.mean(1, keepdims=True) + 0 * x, e), "x_0 is averaged over the dimensions"),
        (lambda t, x, e: RIGHT.q_sample(t, x, e[:1] + 0 * e), "all examples use ε of the first example"),
        (lambda t, x, e: np.clip(RIGHT.q_sample(t, x, e), -10, 10), "x_t is clipped to [−10, 10]"),
        (lambda t, x, e: RIGHT.q_sample(np.ravel(t)[0], x, e), "t as an array, t = "),
        (lambda t, x, e: RIGHT.q_sample(np.ravel(t)[0], x, e), "the first t is used for all examples"),
        (
            code(NoiseSchedule(np.linspace(1e-4, 0.02, 5))).q_sample,
            "pass NoiseSchedule.from_variances of this table",
        ),
        (code(NoiseSchedule(FIVE.variances**2)).q_sample, "a variance is taken for a standard deviation"),
        (lambda t, x, e: np.float32(forward(ACP, B_BAR)(t, x, e)), "without its square root"),
    ],
)
def test_wrong_forward_processes_are_named(wrong, text):
    result = check_forward_process(wrong, FIVE)
    assert not result
    assert text in result.diagnosis, result


def test_a_diagnosis_says_the_step_and_the_factor():
    result = check_forward_process(forward(A_BAR, 1 - ACP), FIVE)
    assert result.diagnosis.startswith("t = 3: factor of ε in x_t, dimension 0, is 0.3385, expected 0.581808; ")
    result = check_ddim_step(lambda t, s, x, e, z: RIGHT.ddim(t, s, x, e, z, 0.0), FIVE, 0.7)
    assert "s = " in result.diagnosis
    assert "factor of z in x_s" in result.diagnosis


def posterior(mean=RIGHT.q_posterior, variance=None):
    return lambda t, x, y: (mean(t, x, y)[0], RIGHT.variance[t] if variance is None else variance[t])


PADDED = np.append(TILDE[2] ** 2, TILDE[2:] ** 2)
SAFE_TILDE = np.concatenate([[1.0], PADDED])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (posterior(variance=V), "it is β_t², the variance of the forward step"),
        (posterior(variance=TILDE), "it is β̃, a standard deviation"),
        (posterior(variance=np.log(SAFE_TILDE)), "it is a log-variance, with the first step replaced by the second"),
        (posterior(variance=np.log(np.append(1, V[1:]))), "it is log β_t²"),
        (posterior(variance=B), "it is β_t, a standard deviation"),
        (posterior(variance=V * np.append(0, 1 - ACP[:-1])), "1/β̄_t² is missing"),
        (posterior(lambda t, x, y: RIGHT.q_posterior(t, y, x)), "the two factors are swapped"),
        (posterior(lambda t, x, y: (RIGHT.by_x_t[t] * x + RIGHT.by_x0[t] * A[t] * y,)), "ᾱ_t stands where ᾱ_{t−1}"),
        (posterior(lambda t, x, y: RIGHT.q_posterior(t, x, np.clip(y, -1, 1))), NAMELESS),
        (lambda t, x, y: code(FIVE).q_posterior(min(t + 1, 5), x, y), "every step is one too late"),
        (
            code(NoiseSchedule(np.linspace(1e-4, 0.02, 5))).q_posterior,
            "pass NoiseSchedule.from_variances of this table",
        ),
    ],
)
def test_wrong_posteriors_are_named(wrong, text):
    result = check_posterior(wrong, FIVE)
    assert not result
    assert text in result.diagnosis, result


def test_hos_right_posterior_against_the_rescaled_schedule_is_recognised():
    result = check_posterior(code(SCHEDULES["Ho's table"]).q_posterior, NoiseSchedule.linear(1000))
    assert "Ho's table np.linspace(1e-4, 0.02, 1000)" in result.diagnosis
    assert "from_variances" in result.diagnosis
    q_sample = code(SCHEDULES["Ho's table"]).q_sample
    assert "from_variances" in check_forward_process(q_sample, NoiseSchedule.linear(1000)).diagnosis


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda t, x, e: (x - (1 - ACP)[t] * e) / A_BAR[t], "the noise has factor β̄², a variance"),
        (lambda t, x, e: (x - B_BAR[t] * e) / ACP[t], "it is divided by ᾱ², Ho's α-bar without its root"),
        (lambda t, x, e: np.clip(RIGHT.predict_x0(t, x, e), -10, 10), "x̂_0 is clipped to [−10, 10]"),
        (lambda t, x, e: np.clip(RIGHT.predict_x0(t, x, e), -1, 1), "x̂_0 is clipped to [−1, 1]"),
        (lambda t, x, e: RIGHT.predict_x0(t, x, e.mean(1, keepdims=True) + 0 * e), "ε̂ is averaged"),
        (lambda t, x, e: RIGHT.predict_x0(t - 1, x, e), "index shifted by one"),
    ],
)
def test_wrong_predictions_of_x0_are_named(wrong, text):
    result = check_predict_x0(wrong, FIVE)
    assert not result
    assert text in result.diagnosis, result


def ancestral(by_eps=lambda t: B[t] ** 2 / B_BAR[t], sigma=SIGMA, x=lambda x: x, z=lambda z: z):
    return lambda t, x_t, e, noise: (x(x_t) - by_eps(t) * e) / A[t] + np.asarray(sigma)[t] * z(noise)


def clipping(bound):
    return lambda t, x, e, z: (
        RIGHT.q_posterior(t, x, np.clip(RIGHT.predict_x0(t, x, e), -bound, bound))[0] + SIGMA[t] * z
    )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (ancestral(lambda t: V[t] / (1 - ACP[t])), "1 − ᾱ² without its square root"),
        (ancestral(lambda t: B[t]), "as if ε̂ were the noise of one step"),
        (ancestral(lambda t: V[t] / np.sqrt(1 - A_BAR[t])), "√(1 − ᾱ) stands where β̄"),
        (ancestral(sigma=GIVEN), "the noise has factor σ², a variance"),
        (ancestral(sigma=np.log(np.append(1, GIVEN[1:]))), "the noise has factor log σ², a log-variance"),
        (ancestral(sigma=2 * SIGMA), "the noise is added twice"),
        (ancestral(sigma=np.append([0, 0], SIGMA[2:])), "the noise is left out at t = 1"),
        (ancestral(sigma=B), "σ_t² is β_t², not the given table"),
        (ancestral(sigma=TILDE), "σ_t² is β̃_t², not the given table"),
        (ancestral(z=lambda z: z[:, :1] + 0 * z), "all dimensions use z of the first dimension"),
        (ancestral(z=lambda z: z[:1] + 0 * z), "all examples use z of the first example"),
        (ancestral(x=lambda x: x.mean(1, keepdims=True) + 0 * x), "x_t is averaged over the dimensions"),
        *((clipping(bound), f"x̂_0 is clipped to [−{bound}, {bound}]") for bound in (1, 5, 6, 10)),
        (lambda t, x, e, z: RIGHT.step(t, x, e, z, SIGMA) + 1e-12, NAMELESS),
    ],
)
def test_wrong_ancestral_steps_are_named_also_in_a_loop(wrong, text):
    result = check_ancestral_step(wrong, FIVE, GIVEN)
    assert not result
    assert text in result.diagnosis, result

    def sample(x, eps_hat, noise):
        for t in range(5, 0, -1):
            x = wrong(t, x, eps_hat(x, t), noise[5 - t])
        return x

    result = check_sampler(sample, FIVE, 0.5, 0.3, GIVEN)
    assert not result
    assert text in result.diagnosis, result


def ddim(eta, sigma=None, x0=lambda t, x, e: RIGHT.predict_x0(t, x, e), direct=None, fresh=False):
    def step(t, s, x, e, z):
        noise = eta * np.sqrt((1 - ACP[s]) / (1 - ACP[t]) * (1 - ACP[t] / ACP[s])) if sigma is None else sigma(t, s)
        by_eps = np.sqrt(np.maximum((B_BAR[s] if direct is None else direct(t, s)) ** 2 - noise**2, 0))
        x0_hat = x0(t, x, e)
        again = (x - A_BAR[t] * x0_hat) / B_BAR[t] if fresh else e
        return A_BAR[s] * x0_hat + by_eps * again + noise * z

    return step


@pytest.mark.parametrize("eta", [0.7, 1.0])
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda eta: ddim(eta, direct=lambda t, s: B_BAR[t]), "β̄_t stands where β̄_s belongs in the direction"),
        (lambda eta: ddim(eta, lambda t, s: eta * B_BAR[s]), "σ has 1 − ᾱ_t² in place of 1 − ᾱ_t²/ᾱ_s²"),
        (lambda eta: ddim(0.0), "η is ignored: there is no fresh noise"),
        (lambda eta: ddim(eta, x0=lambda t, x, e: np.clip(RIGHT.predict_x0(t, x, e), -5, 5)), "ε̂ is not recomputed"),
        (
            lambda eta: ddim(eta, x0=lambda t, x, e: np.clip(RIGHT.predict_x0(t, x, e), -6, 6), fresh=True),
            "x̂_0 is clipped to [−6, 6], and ε̂ recomputed from it",
        ),
        (lambda eta: lambda t, s, *a: ddim(eta)(t, t - 1, *a), "s is ignored: the step goes to t − 1"),
        (
            lambda eta: lambda t, s, x, e, z: ddim(eta)(t, s, x, e, z[:, :1] + 0 * z),
            "all dimensions use z of the first dimension",
        ),
        (
            lambda eta: lambda t, s, x, e, z: ddim(eta)(t, s, A_BAR[t] * x / A_BAR[t] ** 2 * A_BAR[t] + 1e-9, e, z),
            NAMELESS,
        ),
    ],
)
def test_wrong_ddim_steps_are_named(wrong, text, eta):
    assert check_ddim_step(ddim(eta), FIVE, eta)
    result = check_ddim_step(wrong(eta), FIVE, eta)
    assert not result
    assert text in result.diagnosis, result


def test_a_hard_coded_eta_passes_at_its_own_value_only():
    assert check_ddim_step(ddim(0.7), FIVE, 0.7)
    assert "there is no fresh noise" not in check_ddim_step(ddim(0.7), FIVE, 1.0).diagnosis
    assert not check_ddim_step(ddim(0.7), FIVE, 1.0)
    assert "η is ignored: the step has η = 1" in check_ddim_step(ddim(1.0), FIVE, 0.7).diagnosis


def test_a_network_at_the_wrong_step_is_named_in_both_loops():
    def sample(late, step):
        def loop(x, eps_hat, noise):
            for t in range(5, 0, -1):
                x = step(t, x, eps_hat(x, t + late), noise[5 - t])
            return x

        return loop

    result = check_sampler(sample(-1, ancestral()), FIVE, 0.5, 0.3, GIVEN)
    assert "ε̂ is evaluated at t − 1" in result.diagnosis
    result = check_ddim_sampler(sample(-1, lambda t, *a: ddim(0.7)(t, t - 1, *a)), FIVE, 0.7)
    assert "ε̂ is evaluated at t − 1" in result.diagnosis


# --- bounds and losses -----------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)


def affine(schedule, D):
    """Data N(mean, covariance), ε̂ = A x + b, σ² = β²."""
    T = schedule.T
    A = 0.5 * np.eye(D) + 0.1 * rng.standard_normal((T + 1, D, D)) / D**0.5
    mean, covariance = rng.standard_normal(D), 0.3 * np.eye(D) + 0.1
    return mean, covariance, A, 0.3 * rng.standard_normal((T + 1, D)), np.append(np.nan, schedule.variances)


def bound_code(schedule, sigma_squared, dtype=np.float64):
    """The terms L_0, …, L_T of −ELBO in Ho's convention."""
    mine, s2 = code(schedule, dtype), sigma_squared.astype(dtype)

    def bound(x0, eps_hat, noise):
        N, D = x0.shape
        terms = np.empty((N, schedule.T + 1), dtype)
        for t in range(1, schedule.T + 1):
            x_t = mine.q_sample(t, x0, noise[t - 1])
            eps = eps_hat(x_t.astype(np.float64), t).astype(dtype)
            weight = mine.betas[t] ** 2 / (2 * s2[t] * mine.alphas[t] * (1 - mine.acp[t]))
            fit = weight * ((noise[t - 1].astype(dtype) - eps) ** 2).sum(axis=1)
            ratio = mine.variance[t] / s2[t]
            constant = np.log(2 * np.pi * s2[1]) if t == 1 else ratio - 1 - np.log(ratio)
            terms[:, t - 1] = fit + 0.5 * D * constant
        acp = mine.acp[-1]
        terms[:, -1] = 0.5 * (acp * (x0.astype(dtype) ** 2).sum(axis=1) - D * (acp + np.log(1 - acp)))
        return terms

    return bound


@pytest.mark.parametrize("D", [1, 3, 16])
@pytest.mark.parametrize("name", ["T = 1", "T = 5", "Ho's table", "cosine"])
def test_right_bounds_pass(name, D):
    schedule = SCHEDULES[name]
    problem = affine(schedule, D)
    bound = bound_code(schedule, problem[-1])
    assert check_variational_bound(bound, schedule, *problem)
    assert check_variational_bound(lambda *a: bound(*a).sum(axis=1), schedule, *problem)
    assert check_variational_bound(lambda *a: bound(*a)[:, ::-1], schedule, *problem)
    assert check_variational_bound(bound_code(schedule, problem[-1], np.float32), schedule, *problem).at(1e-5)


def test_one_step_of_1e_minus_12_passes():
    schedule = NoiseSchedule([1e-12])
    problem = affine(schedule, 2)
    assert check_variational_bound(bound_code(schedule, problem[-1]), schedule, *problem)


@pytest.mark.parametrize("D", [1, 2])
def test_the_right_side_of_the_bound_is_the_joint_kl_plus_the_entropy(D):
    """From one dense Gaussian over (x_0, …, x_T): KL(q‖p_θ) + H(x_0)."""
    mean, covariance, A, b, s2 = affine(FIVE, D)
    T, V = 5, A_BAR[:, None, None] ** 2 * covariance + B_BAR[:, None, None] ** 2 * np.eye(D)
    q_cov = np.block([[A_BAR[max(i, j)] / A_BAR[min(i, j)] * V[min(i, j)] for j in range(T + 1)] for i in range(T + 1)])
    G, g = np.zeros((T + 1, D, (T + 1) * D)), np.zeros((T + 1, D))
    G[T, :, T * D :] = np.eye(D)
    for t in range(T, 0, -1):
        slope = (np.eye(D) - B[t] ** 2 / B_BAR[t] * A[t]) / FIVE.alpha[t]
        G[t - 1], g[t - 1] = slope @ G[t], slope @ g[t] - B[t] ** 2 / B_BAR[t] / FIVE.alpha[t] * b[t]
        G[t - 1, :, (t - 1) * D : t * D] += np.sqrt(s2[t]) * np.eye(D)
    flat = G.reshape(-1, (T + 1) * D)
    p_cov, shift = flat @ flat.T, np.concatenate([a * mean for a in A_BAR]) - g.ravel()
    kl = 0.5 * (
        np.trace(np.linalg.solve(p_cov, q_cov))
        + shift @ np.linalg.solve(p_cov, shift)
        - len(shift)
        + np.linalg.slogdet(p_cov)[1]
        - np.linalg.slogdet(q_cov)[1]
    )
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    terms, _, _ = _terms(compose(FIVE), mean[None], A, b, s2, covariance)
    assert terms.sum() == pytest.approx(kl + entropy, abs=1e-11)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda v: np.full(len(v), v.sum(axis=1).mean()), "the mean over the examples stands for every example"),
        (lambda v: v[:, [1, 0, 2, 3, 4, 5]], "the terms are in another order"),
        (lambda v: v[:, :-1].sum(axis=1), "L_T, the divergence from the prior, is missing"),
        (lambda v: v[:, 1:].sum(axis=1), "L_0, the reconstruction, is missing"),
        (lambda v: v.sum(axis=1) / 3, "it is averaged over the D dimensions"),
        (lambda v: v.mean(axis=1), "it is averaged over its T + 1 terms"),
        (lambda v: v.sum(axis=1) / np.log(2) / 3, "it is in bits per dimension"),
        (lambda v: v.sum(axis=1) + 1e-10, NAMELESS),
    ],
)
def test_wrong_bounds_are_named(wrong, text):
    problem = affine(FIVE, 3)
    bound = bound_code(FIVE, problem[-1])
    result = check_variational_bound(lambda *a: wrong(bound(*a)), FIVE, *problem)
    assert not result
    assert text in result.diagnosis, result


def test_the_bound_from_losses_passes_for_long_chains_and_names_a_missing_half():
    for name in "T = 1", "T = 5", "Ho's table", "cosine":
        schedule = SCHEDULES[name]
        mine, problem = code(schedule), affine(schedule, 3)
        s2 = problem[-1][1:]

        def mine_of(losses, second, D, half=0.5, mine=mine, s2=s2):
            betas, alphas, acp = mine.betas[1:], mine.alphas[1:], mine.acp[1:]
            fits = half * betas**2 / (s2 * alphas * (1 - acp)) * losses[1:]
            ratio = mine.variance[2:] / s2[1:]
            constants = np.append(np.log(2 * np.pi * s2[0]), ratio - 1 - np.log(ratio))
            return fits.sum() + 0.5 * (D * constants.sum() + acp[-1] * second - D * (acp[-1] + np.log(1 - acp[-1])))

        assert check_negative_elbo(mine_of, schedule, *problem)
        result = check_negative_elbo(lambda *a: mine_of(*a, half=1.0), schedule, *problem)
        assert "the noise losses have lost their ½, as printed" in result.diagnosis


NETS = {
    "sin 8x": lambda x, t: 0.3 * x + 0.4 * np.sin(8 * x),
    "kink": lambda x, t: np.maximum(x, 0),
    "tanh": lambda x, t: np.tanh(3 * x),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("t", [1, 3, 5])
def test_step_losses_of_any_network_pass(net, t):
    for loss in (
        lambda t, x0, e, e_t, net: one_step_loss(FIVE, t, x0, e, e_t, net, GIVEN),
        lambda t, x0, eps, omega, net: total_noise_loss(FIVE, t, x0, eps, net, GIVEN),
    ):
        result = check_step_loss(loss, FIVE, t, net, 0.3, 0.8, GIVEN[t])
        assert result, result
        wrong = check_step_loss(lambda *a, loss=loss: 1.001 * loss(*a), FIVE, t, net, 0.3, 0.8, GIVEN[t])
        assert not wrong


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda v, D: v / D, "it is averaged over the D dimensions"),
        (lambda v, D: np.full_like(v, v.mean()), "it is averaged over the examples"),
        (lambda v, D: 2 * v, "it is twice the right value"),
        (lambda v, D: v - D / 2 * np.log(2 * np.pi * GIVEN[3]), "½ log 2πσ² is missing"),
    ],
)
def test_wrong_step_losses_are_named(wrong, text):
    def loss(t, x0, e, e_t, net):
        return wrong(one_step_loss(FIVE, t, x0, e, e_t, net, GIVEN), x0.shape[1])

    result = check_step_loss(loss, FIVE, 3, lambda x, t: 0.3 * x + 0.4 * np.sin(x), 0.3, 0.8, GIVEN[3])
    assert not result
    assert text in result.diagnosis, result


def log_normal(x, variance):
    return -0.5 * (x**2 / variance + np.log(2 * np.pi * variance)).sum(axis=-1)


@pytest.mark.parametrize("name", ["T = 1", "T = 5", "Ho's table", "cosine"])
def test_densities_of_long_paths_pass(name):
    schedule = SCHEDULES[name]
    T, alpha, v = schedule.T, schedule.alpha, np.append(0, schedule.variances)
    x = [rng.standard_normal((4, 3))]
    for t in range(1, T + 1):
        x.append(alpha[t] * x[-1] + np.sqrt(v[t]) * rng.standard_normal((4, 3)))
    path, slopes = np.array(x), np.full(T + 1, 0.5)

    def forward(path, mean=1.0):
        return mean * np.sum([log_normal(path[t] - alpha[t] * path[t - 1], v[t]) for t in range(1, T + 1)], axis=0)

    def reverse(path, net, whole=True):
        steps = [
            log_normal(
                path[t - 1] - (path[t] - v[t] / schedule.beta_bar[t] * net(path[t], t)) / alpha[t],
                v[t],
            )
            for t in range(1, T + 1)
        ]
        return np.sum(steps, axis=0) + whole * log_normal(path[-1], 1.0)

    problem = schedule, path, slopes, v
    assert check_chains(forward, reverse, *problem)
    assert "averaged over the D" in check_chains(lambda p: forward(p, 1 / 3), reverse, *problem).diagnosis
    without = check_chains(forward, lambda *a: reverse(*a, whole=False), *problem)
    assert "log p_θ(x_T) is missing" in without.diagnosis


@pytest.mark.parametrize("equation", ["22", "23"])
def test_rows_22_and_23_see_a_path_whose_early_steps_are_wrong(equation):
    """x_{t−1} from the noise of the last step alone has the right variance only without the steps before."""
    row = next(row for row in ROWS if row.name == equation)

    def q_path(schedule, x0, noise):
        path = [x0]
        for t in range(1, schedule.T + 1):
            wrong = noise[0] if t == 2 else noise[t - 1]  # the noise of step 1 is used twice
            path.append(schedule.alpha[t] * path[-1] + schedule.beta[t] * wrong)
        return np.array(path)

    assert check(row)
    assert not check(row, {"ddpm.q_path": q_path})


def test_draws_of_steps_are_exact_where_they_are_even():
    def draw(u, first=1, last=10):
        cells = (np.arange(5) + u) / 5
        return first + np.floor((last + 1 - first) * cells), np.ones(5)

    right = check_step_draws(draw, 10)
    assert right
    assert right.residual < 1e-14
    assert "one too early" in check_step_draws(lambda u: draw(u, 0, 9), 10).diagnosis
    assert "one too late" in check_step_draws(lambda u: draw(u, 2, 11), 10).diagnosis
    assert "step 1 is never drawn" in check_step_draws(lambda u: draw(u, 2, 10), 10).diagnosis
    assert not check_step_draws(lambda u: (draw(u)[0], 1.0001 * draw(u)[1]), 10)
    with pytest.raises(ValueError, match="whole steps"):
        check_step_draws(lambda u: (draw(u)[0] + 0.5, np.ones(5)), 10)


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_tables_of_a_cumulative_product_pass(name):
    schedule, mine = SCHEDULES[name], code(SCHEDULES[name])
    beta_tilde = np.sqrt(np.append(0, mine.variance[1:]))
    assert check_schedule(schedule, np.sqrt(mine.acp), np.sqrt(1 - mine.acp), beta_tilde)
    first = np.concatenate([[0], schedule.variances[:1], mine.variance[2:]])
    assert check_reverse_variance(lambda kind: mine.betas if kind == "beta" else first, schedule)
    covariance = np.diag([0.5, 0.3, 2.0])

    def optimal(losses):
        by_loss = mine.betas[1:] ** 2 / (3 * mine.alphas[1:] * (1 - mine.acp[1:])) * losses[1:]
        return np.append(0, mine.variance[1:] + by_loss)

    assert check_optimal_variance(optimal, schedule, covariance)


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ((ACP, B_BAR, None), "it is ᾱ², which is Ho's α-bar"),
        ((A_BAR, 1 - ACP, None), "it is β̄²: the square root is missing"),
        ((A_BAR, B_BAR, TILDE**2), "it is β̃², a variance"),
        ((A_BAR, B_BAR, np.concatenate([TILDE[:1], TILDE[2:3], TILDE[2:]])), "expected 0"),
        ((late(A_BAR), late(B_BAR), None), "it is that of step t+1, without an entry for clean data"),
        ((A_BAR[1:], B_BAR[1:], None), "has shape (5,), expected (6,)"),
    ],
)
def test_wrong_tables_are_named(tables, text):
    result = check_schedule(FIVE, *tables)
    assert not result
    assert text in result.diagnosis, result


def test_merged_noise_of_another_code_passes_and_shared_noise_does_not():
    cosine, sine = A * np.append(0, B_BAR[:-1]) / np.append(1, B_BAR[1:]), B / np.append(1, B_BAR[1:])

    def merge(t, first, second):
        return cosine[t] * first + sine[t] * second, sine[t] * first - cosine[t] * second

    def split(t, eps, omega):
        return sine[t] * eps - cosine[t] * omega

    assert check_noise_merging(merge, split, FIVE)
    shared = check_noise_merging(lambda t, a, b: merge(t, a[:, :1] + 0 * a, b), split, FIVE)
    assert "all dimensions use ε̄_{t−1} of the first dimension" in shared.diagnosis
    wrong = check_noise_merging(merge, lambda t, e, o: split(t, e, -o), FIVE)
    assert "ω has the wrong sign" in wrong.diagnosis


def test_terms_of_the_bound_are_named_example_by_example():
    x0, noise, D = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), 3
    net = lambda x, t: 0.4 * x + 0.3 * np.sin(x + t)  # noqa: E731
    mine = code(FIVE)

    def prior(x0):
        return 0.5 * (ACP[-1] * (x0**2).sum(axis=1) - D * (ACP[-1] + np.log(1 - ACP[-1])))

    def first(x0, x_1, net):
        return -log_normal(x0 - (x_1 - B[1] ** 2 / B_BAR[1] * net(x_1, 1)) / A[1], GIVEN[1])

    def step(t, x0, x_t, net, half=0.5):
        mean = (x_t - V[t] / B_BAR[t] * net(x_t, t)) / A[t]
        distance = ((mine.q_posterior(t, x_t, x0)[0] - mean) ** 2).sum(axis=1) / GIVEN[t]
        ratio = mine.variance[t] / GIVEN[t]
        return half * distance + 0.5 * D * (ratio - 1 - np.log(ratio))

    def run(prior=prior, step=step, first=first):
        return check_bound_terms(prior, step, first, FIVE, x0, noise, net, GIVEN)

    assert run()
    assert "the squares have lost their ½" in run(step=lambda *a: step(*a, half=1.0)).diagnosis
    assert "averaged over the D dimensions" in run(prior=lambda x: prior(x) / 3).diagnosis
    assert "½ D log 2π is missing" in run(first=lambda *a: first(*a) - 1.5 * np.log(2 * np.pi)).diagnosis
    assert "the mean over the examples" in run(step=lambda *a: np.full(4, step(*a).mean())).diagnosis


def test_a_chain_of_one_step_has_two_terms():
    schedule, s2 = NoiseSchedule([0.3]), np.array([0.0, 0.2])
    x0, noise = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    a, b, acp = schedule.alpha[1], schedule.beta[1], 0.7

    def check_of(half):
        return check_bound_terms(
            lambda x0: half * (acp * (x0**2).sum(axis=1) - 3 * (acp + np.log(1 - acp))),
            lambda *_: pytest.fail("there is no L_{t−1}"),
            lambda x0, x_1, net: -log_normal(x0 - (x_1 - b * net(x_1, 1)) / a, s2[1]),
            schedule,
            x0,
            noise,
            lambda x, t: 0.4 * x,
            s2,
        )

    assert check_of(0.5)
    assert "the ½ is missing" in check_of(1.0).diagnosis


# --- the calls -------------------------------------------------------------------------------------------------------


def test_a_wrong_call_is_refused_and_an_own_error_is_not_swallowed():
    with pytest.raises(TypeError, match=r"step must be callable as step\(t, s, x_t, eps_hat, noise\); t counts 1..T"):
        check_ddim_step(lambda t, x, e, z: x, FIVE, 0.5)
    with pytest.raises(TypeError, match=r"q_sample must be callable as q_sample\(t, x0, noise\).*another order"):
        check_forward_process(lambda x0, t, noise: x0, FIVE)
    with pytest.raises(IndexError) as caught:
        check_forward_process(lambda t, x, e: A_BAR[1:][t] * x + B_BAR[1:][t] * e, FIVE)
    assert "t counts 1..T" in caught.value.__notes__[0]

    def broken(t, x, e):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        check_forward_process(broken, FIVE)


def test_a_code_for_ints_only_passes():
    def ints_only(t, x, e):
        if t > 5:
            raise AssertionError
        return float(A_BAR[t]) * x + float(B_BAR[t]) * e

    assert check_forward_process(ints_only, FIVE)


def test_a_code_whose_arrays_of_t_have_their_own_axes_is_compared_for_ints_only():
    def batch_of_batches(t, x, e):
        return A_BAR[t][..., None, None] * x + B_BAR[t][..., None, None] * e

    assert batch_of_batches(np.array([1, 2]), *np.ones((2, 2, 3))).shape == (2, 2, 3)
    assert check_forward_process(batch_of_batches, FIVE)


def test_every_row_of_the_chain_still_passes():
    assert all(check(row) for row in ROWS if row.function.startswith(("ddpm.", "schedule.")))
