"""Right implementations, fourth battery: other codings again, hard corners of the documented problems included."""

import functools
import itertools
import math
import operator

import numpy as np
from scipy import integrate, linalg, special, stats

import scratchgen.conformance as c
from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from tests.battery.case import Right

CASES: list[Right] = []


def add(name, run, slow=False):
    CASES.append(Right(name, run, slow))


def single(*arrays):
    return tuple(np.asarray(a, dtype=np.float32) for a in arrays)


def rng(seed):
    return np.random.default_rng(seed)


def at(table, t):
    """Entries t of a table, with an axis for the dimensions: t is an int or (N,)."""
    return np.asarray(table)[t][..., None]


HO = NoiseSchedule.from_variances(np.linspace(1e-4, 0.02, 1000))
LINEAR = NoiseSchedule.linear(20)
COSINE = NoiseSchedule.cosine(50)
ONE = NoiseSchedule.from_variances([0.3])
ONE_SMALL = NoiseSchedule.from_variances([1e-9])
ONE_LARGE = NoiseSchedule.from_variances([0.999999])
CONSTANT = NoiseSchedule.from_variances(np.full(37, 0.05))
RANDOM = NoiseSchedule.from_variances(rng(0).uniform(0.001, 0.7, 12))
TINY = NoiseSchedule.from_variances(np.full(15, 1e-8))
EXTREME = NoiseSchedule.from_variances([1e-7, 0.95, 1e-5, 0.5, 0.9])
FROM_VP = NoiseSchedule.from_sde(VP(), 30)
FALLING = NoiseSchedule.from_variances(np.linspace(0.4, 0.01, 9))
TWO = NoiseSchedule.from_variances([0.2, 0.6])
LONG = NoiseSchedule.cosine(1000)

# ---------------------------------------------------------------- tables of a schedule


def tables_by_logs(s):
    half = np.concatenate([[0.0], np.cumsum(0.5 * np.log1p(-(s.beta[1:] ** 2)))])
    return np.exp(half), np.sqrt(-np.expm1(2 * half))


def tables_by_recursion(s):
    a, b = [1.0], [0.0]
    for v in s.beta[1:] ** 2:
        b.append(math.sqrt((1 - v) * b[-1] ** 2 + v))
        a.append(a[-1] * math.sqrt(1 - v))
    return a, b


def tables_with_tilde(s):
    a, b = tables_by_logs(s)
    total = b**2
    tilde = np.zeros(s.T + 1)
    precision = (1 - s.beta[2:] ** 2) / s.beta[2:] ** 2 + 1 / total[1:-1]
    tilde[2:] = 1 / np.sqrt(precision)
    return a, b, tilde


def tables_from_log_snr(s):
    a, b = tables_by_logs(s)
    lam = np.log(a[1:] ** 2) - np.log(b[1:] ** 2)  # as VDM: gamma = −λ
    return (
        np.concatenate([[1], np.sqrt(special.expit(lam))]),
        np.concatenate([[0], np.sqrt(special.expit(-lam))]),
    )


add("schedule: logs, T = 1000 Ho", lambda: c.check_schedule(HO, *tables_by_logs(HO)))
add("schedule: lists by recursion, T = 1", lambda: c.check_schedule(ONE, *tables_by_recursion(ONE)))
add(
    "schedule: with beta tilde by precisions, extreme betas",
    lambda: c.check_schedule(EXTREME, *tables_with_tilde(EXTREME)),
)
add("schedule: gamma as VDM, cosine T = 1000", lambda: c.check_schedule(LONG, *tables_from_log_snr(LONG)))
add("schedule: one step of 1e-9, tilde", lambda: c.check_schedule(ONE_SMALL, *tables_with_tilde(ONE_SMALL)))
add(
    "schedule: Ho's beta tilde as a keyword, T = 2",
    lambda: c.check_schedule(
        schedule=TWO,
        alpha_bar=np.r_[1, np.sqrt(np.cumprod([0.8, 0.4]))],
        beta_bar=np.r_[0, np.sqrt(1 - np.cumprod([0.8, 0.4]))],
        beta_tilde=np.r_[0, 0, np.sqrt(0.6 * 0.2 / (1 - 0.32))],
    ),
)

# ---------------------------------------------------------------- forward step


class Forward:
    """A forward process as a class: betas zero-based as in Ho's code."""

    def __init__(self, schedule, dtype=np.float64):
        self.betas = (schedule.beta[1:] ** 2).astype(dtype)
        self.log_ac = np.cumsum(np.log1p(-(schedule.beta[1:] ** 2)))
        self.dtype = dtype

    def __call__(self, t, x, noise):
        b = at(self.betas, np.asarray(t) - 1)
        return np.sqrt(1 - b) * x.astype(self.dtype) + np.sqrt(b) * noise.astype(self.dtype)

    def q_sample(self, t, x0, noise):
        logs = at(self.log_ac, np.asarray(t) - 1)
        mean = np.exp(0.5 * logs).astype(self.dtype) * x0.astype(self.dtype)
        return mean + np.sqrt(-np.expm1(logs)).astype(self.dtype) * noise.astype(self.dtype)


def forward_step_ints(s, t, x, noise):
    v = float(s.beta[operator.index(t)]) ** 2
    return [
        [math.sqrt(1 - v) * a + math.sqrt(v) * z for a, z in zip(r, q, strict=True)]
        for r, q in zip(x, noise, strict=True)
    ]


def forward_step_rotation(s, t, x, noise):
    angle = at(np.arcsin(s.beta), t)  # the step as a rotation of (x, z)
    return np.cos(angle) * x + np.sin(angle) * noise


def forward_step_einsum(s, t, x, noise):
    alpha, beta = np.broadcast_to(s.alpha[t], len(x)), np.broadcast_to(s.beta[t], len(x))
    return np.einsum("n,nd->nd", alpha, x) + np.einsum("n,nd->nd", beta, noise)


add("forward_step: class with __call__, Ho T = 1000", lambda: c.check_forward_step(Forward(HO), HO))
add(
    "forward_step: class in float32, cosine T = 1000",
    lambda: c.check_forward_step(Forward(LONG, np.float32), LONG).at(1e-5),
)
add(
    "forward_step: nested lists, ints only, T = 1",
    lambda: c.check_forward_step(functools.partial(forward_step_ints, ONE_LARGE), ONE_LARGE),
)
add(
    "forward_step: a rotation, random betas",
    lambda: c.check_forward_step(functools.partial(forward_step_rotation, RANDOM), RANDOM),
)
add(
    "forward_step: einsum, extreme betas",
    lambda: c.check_forward_step(lambda t, x, e: forward_step_einsum(EXTREME, t, x, e), EXTREME),
)

# ---------------------------------------------------------------- forward process


def q_sample_composed(s, t, x0, noise):
    a, v = 1.0, 0.0
    for i in range(1, operator.index(t) + 1):
        a, v = a * s.alpha[i], s.alpha[i] ** 2 * v + s.beta[i] ** 2
    return a * x0 + math.sqrt(v) * noise


def q_sample_edm(s, t, x0, noise):
    sigma = at(s.beta_bar / s.alpha_bar, t)  # x/scale = x_0 + σ ε
    return (x0 + sigma * noise) / np.sqrt(1 + sigma**2)


def q_sample_vdm(s, t, x0, noise):
    gamma = at(np.r_[-np.inf, -np.log(s.snr[1:])], t)
    return np.sqrt(special.expit(-gamma)) * x0 + np.sqrt(special.expit(gamma)) * noise


add(
    "forward_process: composed, ints only, T = 37",
    lambda: c.check_forward_process(functools.partial(q_sample_composed, CONSTANT), CONSTANT),
)
add("forward_process: EDM's sigma, Ho", lambda: c.check_forward_process(functools.partial(q_sample_edm, HO), HO))
add("forward_process: bound method, betas of 1e-8", lambda: c.check_forward_process(Forward(TINY).q_sample, TINY))
add(
    "forward_process: bound method in float32, Ho",
    lambda: c.check_forward_process(Forward(HO, np.float32).q_sample, HO).at(1e-5),
)
add(
    "forward_process: composed, one step of 0.999999",
    lambda: c.check_forward_process(functools.partial(q_sample_composed, ONE_LARGE), ONE_LARGE),
)

# ---------------------------------------------------------------- posterior


def posterior_ho(s, dtype, t, x_t, x0):
    beta = s.beta**2
    total = s.beta_bar**2
    k = np.asarray(t)
    c0 = (s.alpha_bar[k - 1] * beta[k] / total[k])[..., None].astype(dtype)
    ct = (s.alpha[k] * total[k - 1] / total[k])[..., None].astype(dtype)
    var = (beta[k] * total[k - 1] / total[k])[..., None].astype(dtype)
    return c0 * x0.astype(dtype) + ct * x_t.astype(dtype), var


def posterior_of_noise(s, t, x_t, x0):
    """Mean through the noise of x_t, and DDIM's coefficient of it with η = 1."""
    a, b, b1 = at(s.alpha_bar, t), at(s.beta_bar, t), at(s.beta_bar, np.asarray(t) - 1)
    a1 = at(s.alpha_bar, np.asarray(t) - 1)
    var = (b1 / b) ** 2 * at(s.beta, t) ** 2
    eps = (x_t - a * x0) / b
    keep = at(s.alpha, t) * b1**2 / b  # √(β̄²_{t−1} − β̃²)
    return a1 * x0 + keep * eps, np.broadcast_to(var, x_t.shape)


def posterior_kalman(s, t, x_t, x0):
    """Prior x_{t−1} = ᾱ x_0 ± β̄, seen through x_t = α x_{t−1} + β z."""
    t = operator.index(t)
    prior_mean, prior = s.alpha_bar[t - 1] * x0, s.beta_bar[t - 1] ** 2
    gain = prior * s.alpha[t] / (s.alpha[t] ** 2 * prior + s.beta[t] ** 2)
    return prior_mean + gain * (x_t - s.alpha[t] * prior_mean), gain * s.beta[t] ** 2 / s.alpha[t]


def posterior_clipped(s, t, x_t, x0):
    mean, var = posterior_ho(s, np.float64, t, x_t, x0)
    _, second = posterior_ho(s, np.float64, 2, x_t, x0)
    return mean, np.where(np.asarray(t)[..., None] == 1, second, var)


add(
    "posterior: Ho's coefficients, T = 1000",
    lambda: c.check_posterior(functools.partial(posterior_ho, HO, np.float64), HO),
)
add(
    "posterior: float32, cosine T = 50",
    lambda: c.check_posterior(functools.partial(posterior_ho, COSINE, np.float32), COSINE).at(1e-5),
)
add(
    "posterior: by the noise, broadcast variance, random",
    lambda: c.check_posterior(functools.partial(posterior_of_noise, RANDOM), RANDOM),
)
add(
    "posterior: Kalman gain, falling betas",
    lambda: c.check_posterior(functools.partial(posterior_kalman, FALLING), FALLING),
)
add(
    "posterior: clipped, T = 2", lambda: c.check_posterior(functools.partial(posterior_clipped, TWO), TWO, clipped=True)
)
add(
    "posterior: clipped, extreme betas",
    lambda: c.check_posterior(lambda t, x, y: posterior_clipped(EXTREME, t, x, y), EXTREME, True),
)

# ---------------------------------------------------------------- merged noise


def merge_matrix(s, t):
    one, two = at(s.alpha, t) * at(s.beta_bar, np.asarray(t) - 1) / at(s.beta_bar, t), at(s.beta, t) / at(s.beta_bar, t)
    return one, two


def merge(s, t, prev, eps):
    cos, sin = merge_matrix(s, t)
    return cos * prev + sin * eps, sin * prev - cos * eps


def split(s, t, eps, omega):
    cos, sin = merge_matrix(s, t)
    return sin * eps - cos * omega


def merge_angle(s, t, prev, eps):
    phi = np.arctan2(at(s.beta, t), at(s.alpha, t) * at(s.beta_bar, np.asarray(t) - 1))
    return [np.cos(phi) * prev + np.sin(phi) * eps, np.sin(phi) * prev - np.cos(phi) * eps]


def split_angle(s, t, eps, omega):
    phi = np.arctan2(at(s.beta, t), at(s.alpha, t) * at(s.beta_bar, np.asarray(t) - 1))
    return np.sin(phi) * eps - np.cos(phi) * omega


def merge_householder(s, t, prev, eps):
    """A symmetric orthogonal matrix I − 2 n nᵀ; its last row is that of (27)."""
    t = operator.index(t)
    phi = math.atan2(s.beta[t], s.alpha[t] * s.beta_bar[t - 1])
    n = np.array([-math.sin(phi / 2), math.cos(phi / 2)])
    r = np.eye(2) - 2 * np.outer(n, n)
    return np.einsum("ij,jnd->ind", r, np.stack([prev, eps]))


def merge_single(s, t, prev, eps):
    cos, sin = (np.float32(a) for a in merge_matrix(s, t))
    prev, eps = single(prev, eps)
    return cos * prev + sin * eps, sin * prev - cos * eps


add(
    "noise_merging: matrix, Ho",
    lambda: c.check_noise_merging(functools.partial(merge, HO), functools.partial(split, HO), HO),
)
add(
    "noise_merging: angles, betas of 1e-8",
    lambda: c.check_noise_merging(functools.partial(merge_angle, TINY), functools.partial(split_angle, TINY), TINY),
)
add(
    "noise_merging: Householder, ints only, cosine",
    lambda: c.check_noise_merging(
        functools.partial(merge_householder, COSINE), functools.partial(split_angle, COSINE), COSINE
    ),
)
add(
    "noise_merging: float32, random betas",
    lambda: c.check_noise_merging(functools.partial(merge_single, RANDOM), functools.partial(split, RANDOM), RANDOM).at(
        1e-5
    ),
)

# ---------------------------------------------------------------- x0 from noise


def x0_ho(s, dtype, t, x_t, eps):
    ac = s.alpha_bar**2
    recip = at(1 / np.sqrt(ac), t).astype(dtype)
    recipm1 = at(s.beta_bar / s.alpha_bar, t).astype(dtype)
    return recip * x_t.astype(dtype) - recipm1 * eps.astype(dtype)


def x0_from_v(s, t, x_t, eps):
    a, b = at(s.alpha_bar, t), at(s.beta_bar, t)
    x0 = (x_t - b * eps) / a
    v = a * eps - b * x0
    return a * x_t - b * v


def x0_by_score(s, t, x_t, eps):
    score = -eps / at(s.beta_bar, t)
    return (x_t + at(s.beta_bar, t) ** 2 * score) / at(s.alpha_bar, t)


def x0_solved(s, t, x_t, eps):
    k = operator.index(t)
    return np.linalg.solve(s.alpha_bar[k] * np.eye(x_t.shape[1]), (x_t - s.beta_bar[k] * eps).T).T


add("predict_x0: Ho's reciprocals, T = 1000", lambda: c.check_predict_x0(functools.partial(x0_ho, HO, np.float64), HO))
add(
    "predict_x0: Ho's reciprocals in float32",
    lambda: c.check_predict_x0(functools.partial(x0_ho, HO, np.float32), HO).at(1e-5),
)
add("predict_x0: by Tweedie, cosine T = 1000", lambda: c.check_predict_x0(functools.partial(x0_by_score, LONG), LONG))
add(
    "predict_x0: linear solve, ints only, T = 1",
    lambda: c.check_predict_x0(functools.partial(x0_solved, ONE_LARGE), ONE_LARGE),
)
add("predict_x0: through v, from an SDE", lambda: c.check_predict_x0(functools.partial(x0_from_v, FROM_VP), FROM_VP))

# ---------------------------------------------------------------- ancestral step


def ancestral_ho(s, sigma2, dtype, t, x_t, eps, z):
    """Through x̂_0 and the posterior mean, as Ho's p_mean_variance."""
    x0 = x0_ho(s, dtype, t, x_t, eps)
    mean, _ = posterior_ho(s, dtype, t, x_t, x0)
    return mean + at(np.sqrt(sigma2), t).astype(dtype) * z.astype(dtype)


def ancestral_direct(s, sigma2, t, x_t, eps, z):
    b = at(s.beta, t) ** 2
    return (x_t - b / at(s.beta_bar, t) * eps) / np.sqrt(1 - b) + np.exp(0.5 * at(np.log(np.r_[1, sigma2[1:]]), t)) * z


def ancestral_score(s, sigma2, t, x_t, eps, z):
    """As score_sde: (x + β score)/√(1 − β)."""
    b = at(s.beta, t) ** 2
    score = -eps / at(s.beta_bar, t)
    return (x_t + b * score) / at(s.alpha, t) + np.sqrt(at(sigma2, t)) * z


def ancestral_rows(s, sigma2, t, x_t, eps, z):
    t = np.broadcast_to(t, len(x_t))
    rows = []
    for i, k in enumerate(t):
        k = int(k)
        rows.append((x_t[i] - s.beta[k] ** 2 / s.beta_bar[k] * eps[i]) / s.alpha[k] + sigma2[k] ** 0.5 * z[i])
    return rows


add(
    "ancestral: through x0, Ho T = 1000, beta",
    lambda: c.check_ancestral_step(functools.partial(ancestral_ho, HO, HO.beta**2, np.float64), HO, HO.beta**2),
)
add(
    "ancestral: direct, cosine, arbitrary variances",
    lambda: c.check_ancestral_step(
        functools.partial(ancestral_direct, COSINE, np.geomspace(1e-6, 1e3, 51)), COSINE, np.geomspace(1e-6, 1e3, 51)
    ),
)
add(
    "ancestral: by the score, random betas",
    lambda: c.check_ancestral_step(functools.partial(ancestral_score, RANDOM, RANDOM.beta**2), RANDOM, RANDOM.beta**2),
)
add(
    "ancestral: rows in a list, T = 1",
    lambda: c.check_ancestral_step(functools.partial(ancestral_rows, ONE, ONE.beta**2), ONE, ONE.beta**2),
)
add(
    "ancestral: float32 through x0, linear T = 20",
    lambda: c.check_ancestral_step(
        functools.partial(ancestral_ho, LINEAR, LINEAR.beta**2, np.float32), LINEAR, LINEAR.beta**2
    ).at(1e-5),
)

# ---------------------------------------------------------------- DDIM


def ddim_paper(s, eta, t, u, x_t, eps, z):
    """(12) and (16) of Song et al. 2021, with their ᾱ = ᾱ² here."""
    at_, as_ = s.alpha_bar[t] ** 2, s.alpha_bar[u] ** 2
    vt, vs = s.beta_bar[t] ** 2, s.beta_bar[u] ** 2
    step = -np.expm1(s.log_signal_ratio(u, t))
    sigma = eta * np.sqrt(vs / vt * step)
    root = np.sqrt(np.maximum(vs - sigma**2, 0))
    col = lambda a: np.asarray(a)[..., None]  # noqa: E731
    return col(np.sqrt(as_ / at_)) * (x_t - col(np.sqrt(vt)) * eps) + col(root) * eps + col(sigma) * z


def ddim_sigma(s, t, u, x_t, eps, z):
    """Deterministic, as Euler's step in x/scale and σ."""
    sig = s.beta_bar / s.alpha_bar
    y = x_t / at(s.alpha_bar, t) + (at(sig, u) - at(sig, t)) * eps
    return at(s.alpha_bar, u) * y


def ddim_angles(s, t, u, x_t, eps, z):
    """v-prediction's rotation: φ = arctan(β̄/ᾱ)."""
    phi = np.arctan2(s.beta_bar, s.alpha_bar)
    x0 = (x_t - at(np.sin(phi), t) * eps) / at(np.cos(phi), t)
    v = at(np.cos(phi), t) * eps - at(np.sin(phi), t) * x0
    d = at(phi, u) - at(phi, t)
    return np.cos(d) * x_t + np.sin(d) * v


def ddim_full_noise(s, t, u, x_t, eps, z):
    """η = 1: the posterior of the respaced chain."""
    ratio = np.exp(s.log_signal_ratio(u, t))[..., None]  # ᾱ_t²/ᾱ_s²
    beta2 = -np.expm1(s.log_signal_ratio(u, t))[..., None]
    x0 = (x_t - at(s.beta_bar, t) * eps) / at(s.alpha_bar, t)
    vs, vt = at(s.beta_bar, u) ** 2, at(s.beta_bar, t) ** 2
    mean = at(s.alpha_bar, u) * beta2 / vt * x0 + np.sqrt(ratio) * vs / vt * x_t
    return mean + np.sqrt(beta2 * vs / vt) * z


def ddim_single(s, eta, t, u, x_t, eps, z):
    return ddim_paper(s, eta, t, u, *single(x_t, eps, z)).astype(np.float32)


add(
    "ddim: paper, eta 0.7, random betas",
    lambda: c.check_ddim_step(functools.partial(ddim_paper, RANDOM, 0.7), RANDOM, 0.7),
)
add("ddim: Euler in sigma, Ho T = 1000", lambda: c.check_ddim_step(functools.partial(ddim_sigma, HO), HO, 0.0))
add("ddim: rotation, falling betas", lambda: c.check_ddim_step(functools.partial(ddim_angles, FALLING), FALLING, 0.0))
add(
    "ddim: eta 1 as a posterior, Ho T = 1000",
    lambda: c.check_ddim_step(functools.partial(ddim_full_noise, HO), HO, 1.0),
)
add(
    "ddim: float32, eta 0.3, linear",
    lambda: c.check_ddim_step(functools.partial(ddim_single, LINEAR, 0.3), LINEAR, 0.3).at(1e-5),
)


def ddim_loop(s, eta, x, eps_hat, noise):
    for i, t in enumerate(range(s.T, 0, -1)):
        x = ddim_paper(s, eta, t, t - 1, x, eps_hat(x, t), noise[i])
    return x


def ddim_loop_batched(s, x, eps_hat, noise):
    for t in reversed(range(1, s.T + 1)):
        e = eps_hat(x, np.full(len(x), t))
        x0 = (x - s.beta_bar[t] * e) / s.alpha_bar[t]
        x = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * e
    return x


def ddim_recursive(s, x, eps_hat, noise):
    def down(x, t):
        return x if t == 0 else down(ddim_sigma(s, t, t - 1, x, eps_hat(x, t), None), t - 1)

    return down(x, s.T)


def ddim_reduce(s, x, eps_hat, noise):
    steps = zip(range(s.T, 0, -1), noise, strict=True)
    return functools.reduce(lambda y, k: ddim_full_noise(s, k[0], k[0] - 1, y, eps_hat(y, k[0]), k[1]), steps, x)


add(
    "ddim_sampler: eta 0.4, linear T = 20",
    lambda: c.check_ddim_sampler(functools.partial(ddim_loop, LINEAR, 0.4), LINEAR, 0.4),
)
add(
    "ddim_sampler: t as an array, constant betas",
    lambda: c.check_ddim_sampler(functools.partial(ddim_loop_batched, CONSTANT), CONSTANT, 0.0),
)
add(
    "ddim_sampler: recursion, T = 12",
    lambda: c.check_ddim_sampler(functools.partial(ddim_recursive, RANDOM), RANDOM, 0.0),
)
add(
    "ddim_sampler: reduce with eta 1, T = 9",
    lambda: c.check_ddim_sampler(functools.partial(ddim_reduce, FALLING), FALLING, 1.0),
)
add("ddim_sampler: T = 1, eta 0.9", lambda: c.check_ddim_sampler(functools.partial(ddim_loop, ONE, 0.9), ONE, 0.9))


def invert_sigma(s, u, t, x, eps):
    sig = s.beta_bar / s.alpha_bar
    return s.alpha_bar[t] * (x / s.alpha_bar[u] + (sig[t] - sig[u]) * eps)


def invert_x0(s, u, t, x, eps):
    x0 = (x - at(s.beta_bar, u) * eps) / at(s.alpha_bar, u)
    return at(s.alpha_bar, t) * x0 + at(s.beta_bar, t) * eps


def invert_angle(s, u, t, x, eps):
    phi = np.arctan2(s.beta_bar, s.alpha_bar)
    # x_t = cos φ_t/cos φ_s x + sin(φ_t − φ_s)/cos φ_s ε
    return (np.cos(phi[t]) * x + np.sin(phi[t] - phi[u]) * eps) / np.cos(phi[u])


def invert_single(s, u, t, x, eps):
    x, eps = single(x, eps)
    return (
        np.float32(s.alpha_bar[t] / s.alpha_bar[u]) * x
        + np.float32(
            math.sin(math.atan2(s.beta_bar[t], s.alpha_bar[t]) - math.atan2(s.beta_bar[u], s.alpha_bar[u]))
            / s.alpha_bar[u]
        )
        * eps
    )


add(
    "ddim_inversion: sigma, ints, constant",
    lambda: c.check_ddim_inversion(lambda u, t, x, e: invert_sigma(CONSTANT, int(u), int(t), x, e), CONSTANT),
)
add("ddim_inversion: x0 kept, Ho T = 1000", lambda: c.check_ddim_inversion(functools.partial(invert_x0, HO), HO))
add(
    "ddim_inversion: angle, T = 1",
    lambda: c.check_ddim_inversion(lambda u, t, x, e: invert_angle(ONE, int(u), int(t), x, e), ONE),
)
add(
    "ddim_inversion: float32, linear",
    lambda: c.check_ddim_inversion(lambda u, t, x, e: invert_single(LINEAR, int(u), int(t), x, e), LINEAR).at(1e-5),
)

# ---------------------------------------------------------------- whole sampler


def optimal(s, v):
    """σ_t² of exact denoising of N(m, v), by conditioning of two Gaussians."""
    out = np.zeros(s.T + 1)
    prev = s.alpha_bar[:-1] ** 2 * v + s.beta_bar[:-1] ** 2
    out[1:] = prev * s.beta[1:] ** 2 / (s.alpha[1:] ** 2 * prev + s.beta[1:] ** 2)
    return out


def ancestral_loop(s, sigma2, x, eps_hat, noise):
    for z, t in zip(noise, range(s.T, 0, -1), strict=True):
        x = ancestral_direct(s, sigma2, t, x, eps_hat(x, t), z)
    return x


def ancestral_loop_x0(s, sigma2, x, eps_hat, noise):
    for i in range(s.T):
        t = s.T - i
        x = ancestral_ho(s, sigma2, np.float64, t, x, eps_hat(x, np.full(len(x), t)), noise[i])
    return x


class Sampler:
    def __init__(self, s, sigma2):
        self.s, self.sd = s, [math.sqrt(v) for v in sigma2]

    def run(self, x, eps_hat, noise):
        todo = list(noise)
        t = self.s.T
        while t:
            beta2 = self.s.beta[t] ** 2
            x = x / self.s.alpha[t] - beta2 / (self.s.alpha[t] * self.s.beta_bar[t]) * np.asarray(eps_hat(x, t))
            x = x + self.sd[t] * todo.pop(0)
            t -= 1
        return x.tolist()


def sampler_case(s, sigma2, make, mean, variance):
    return c.check_sampler(make(s, sigma2), s, mean, variance, sigma2)


add(
    "sampler: direct, beta variances, mean 3",
    lambda: sampler_case(LINEAR, LINEAR.beta**2, lambda s, v: functools.partial(ancestral_loop, s, v), 3.0, 0.25),
)
add(
    "sampler: through x0, t as an array, optimal variances",
    lambda: sampler_case(
        FALLING, optimal(FALLING, 4.0), lambda s, v: functools.partial(ancestral_loop_x0, s, v), -1.0, 4.0
    ),
)
add(
    "sampler: bound method that returns a list, T = 1",
    lambda: sampler_case(ONE, ONE.beta**2, lambda s, v: Sampler(s, v).run, 0.5, 1.0),
)
add(
    "sampler: bound method, T = 50 cosine",
    lambda: sampler_case(COSINE, COSINE.beta**2, lambda s, v: Sampler(s, v).run, 0.0, 1.0),
)

# ---------------------------------------------------------------- predicted noise


def some_output(x, t, labelled):
    return np.sin(1.3 * x + 0.1 * np.asarray(t)) + (0.4 * np.cos(x) if labelled else 0.0)


def to_noise(s, kind, out, x, t):
    a, b = at(s.alpha_bar, t), at(s.beta_bar, t)
    if kind == "x0":
        return (x - a * out) / b
    if kind == "v":
        return a * out + b * x
    return out * b / at(s.beta, t) if kind == "step" else out


def predict_cfg(s, kind, x, t, w, clip):
    free = to_noise(s, kind, some_output(x, t, False), x, t)
    cond = to_noise(s, kind, some_output(x, t, True), x, t)
    eps = (1 - w) * free + w * cond
    if clip:
        a, b = at(s.alpha_bar, t), at(s.beta_bar, t)
        eps = (x - a * np.clip((x - b * eps) / a, -1, 1)) / b
    return eps


def predict_in_x0(s, kind, x, t, w, clip):
    """Guidance and clipping of x̂_0: x̂_0 is affine in ε̂, so that guidance commutes."""
    a, b = at(s.alpha_bar, t), at(s.beta_bar, t)

    def x0(labelled):
        out = some_output(x, t, labelled)
        return out if kind == "x0" else a * x - b * out if kind == "v" else (x - b * to_noise(s, kind, out, x, t)) / a

    guided = x0(False) + w * (x0(True) - x0(False))
    if clip:
        guided = np.minimum(np.maximum(guided, -1.0), 1.0)
    return (x - a * guided) / b


WIDE = 3 * rng(1).standard_normal((7, 4))
for kind_, s_, how_ in [
    ("noise", LINEAR, predict_cfg),
    ("x0", COSINE, predict_cfg),
    ("v", FROM_VP, predict_in_x0),
    ("step", CONSTANT, predict_cfg),
    ("noise", ONE, predict_cfg),
    ("x0", FALLING, predict_in_x0),
]:
    add(
        f"predicted_noise: {kind_}, {how_.__name__}, T = {s_.T}",
        lambda kind=kind_, s=s_, how=how_: c.check_predicted_noise(
            functools.partial(how, s, kind), some_output, s, kind, WIDE
        ),
    )

# ---------------------------------------------------------------- variances


def variance_dict(s):
    post = np.zeros(s.T + 1)
    post[1] = s.beta[1] ** 2
    post[2:] = 1 / ((1 / s.beta[2:] ** 2 - 1) + 1 / s.beta_bar[1:-1] ** 2)
    return {"beta": s.beta**2, "posterior": post}


def variance_logs(s, name):
    log_beta = 2 * np.log(s.beta[1:])
    if name == "beta":
        return np.exp(np.r_[0.0, log_beta])
    tail = log_beta[1:] + 2 * np.log(s.beta_bar[1:-1]) - 2 * np.log(s.beta_bar[2:])
    return np.exp(np.r_[0.0, log_beta[0], tail])


add("reverse_variance: a dictionary's method, Ho", lambda: c.check_reverse_variance(variance_dict(HO).__getitem__, HO))
add(
    "reverse_variance: logs, index 0 is 1, random",
    lambda: c.check_reverse_variance(functools.partial(variance_logs, RANDOM), RANDOM),
)
add(
    "reverse_variance: float32, cosine T = 1000",
    lambda: c.check_reverse_variance(lambda n: variance_logs(LONG, n).astype(np.float32), LONG).at(1e-5),
)
add(
    "reverse_variance: nan at index 0, extreme",
    lambda: c.check_reverse_variance(lambda n: np.r_[np.nan, variance_dict(EXTREME)[n][1:]], EXTREME),
)


def best_variance(s, D, loss):
    out = np.zeros(s.T + 1)
    out[1:] = s.beta_tilde[1:] ** 2 + s.beta[1:] ** 4 * np.asarray(loss)[1:] / (
        D * s.alpha[1:] ** 2 * s.beta_bar[1:] ** 2
    )
    return out


def best_variance_of_x0(s, D, loss):
    """β̃² + (coefficient of x_0)² E‖x_0 − x̂_0‖²/D, the law of total variance."""
    out = [0.0]
    for t in range(1, s.T + 1):
        mse = loss[t] * (s.beta_bar[t] / s.alpha_bar[t]) ** 2 / D
        coefficient = s.alpha_bar[t - 1] * s.beta[t] ** 2 / s.beta_bar[t] ** 2
        out.append((s.beta[t] * s.beta_bar[t - 1] / s.beta_bar[t]) ** 2 + coefficient**2 * mse)
    return out


SPD = {d: (lambda a: a @ a.T / d + 0.1 * np.eye(d))(rng(d).standard_normal((d, d))) for d in (1, 2, 3, 4, 5, 8, 16, 64)}
add(
    "optimal_variance: formula, D = 64, Ho",
    lambda: c.check_optimal_variance(functools.partial(best_variance, HO, 64), HO, SPD[64]),
)
add(
    "optimal_variance: by x0, D = 1, T = 1",
    lambda: c.check_optimal_variance(functools.partial(best_variance_of_x0, ONE, 1), ONE, np.array([[2.0]])),
)
add(
    "optimal_variance: by x0, D = 3, data of size 1e3",
    lambda: c.check_optimal_variance(functools.partial(best_variance_of_x0, CONSTANT, 3), CONSTANT, 1e6 * SPD[3]),
)
add(
    "optimal_variance: formula, data of size 1e-3",
    lambda: c.check_optimal_variance(functools.partial(best_variance, RANDOM, 2), RANDOM, 1e-6 * SPD[2]),
)

# ---------------------------------------------------------------- losses of one step and bounds

LOG_TAU = math.log(2 * math.pi)


def normal_nll(x, mean, var):
    return 0.5 * np.sum((x - mean) ** 2 / var + np.log(var) + LOG_TAU, axis=-1)


def step_loss_density(s, var, t, x0, prev, eps, eps_hat):
    before = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * prev
    x_t = s.alpha[t] * before + s.beta[t] * eps
    mean = (x_t - s.beta[t] ** 2 / s.beta_bar[t] * eps_hat(x_t, t)) / s.alpha[t]
    return -stats.norm.logpdf(before, mean, math.sqrt(var)).sum(axis=1)


def step_loss_26(s, var, t, x0, prev, eps, eps_hat):
    before = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * prev
    x_t = s.alpha[t] * before + s.beta[t] * eps
    one_step = s.beta[t] / s.beta_bar[t] * eps_hat(x_t, t)
    factor = s.beta[t] ** 2 / (2 * s.alpha[t] ** 2 * var)
    return x0.shape[1] / 2 * math.log(2 * math.pi * var) + factor * np.linalg.norm(eps - one_step, axis=1) ** 2


def step_loss_29(s, var, t, x0, prev, eps, eps_hat):
    merged = (s.alpha[t] * s.beta_bar[t - 1] * prev + s.beta[t] * eps) / s.beta_bar[t]
    err = merged - eps_hat(s.alpha_bar[t] * x0 + s.beta_bar[t] * merged, t)
    D = x0.shape[1]
    weight = s.beta[t] ** 4 / (2 * s.beta_bar[t] ** 2 * s.alpha[t] ** 2 * var)
    return (
        D / 2 * (LOG_TAU + math.log(var))
        + D * s.beta_tilde[t] ** 2 / (2 * var)
        + weight * np.einsum("nd,nd->n", err, err)
    )


def smooth(x, t):
    return 0.8 * np.sin(x) + 0.1 * np.cos(0.5 * x)


add(
    "step_loss: density, T = 1",
    lambda: c.check_step_loss(functools.partial(step_loss_density, ONE, 0.3), ONE, 1, smooth, 0.2, 1.0, 0.3),
)
add(
    "step_loss: (26), t = 1 of 20",
    lambda: c.check_step_loss(functools.partial(step_loss_26, LINEAR, 0.01), LINEAR, 1, smooth, 0.0, 2.0, 0.01),
)
add(
    "step_loss: (29), t = 500 of Ho",
    lambda: c.check_step_loss(
        functools.partial(step_loss_29, HO, HO.beta[500] ** 2), HO, 500, smooth, -1.0, 0.5, HO.beta[500] ** 2
    ),
)
add(
    "step_loss: (29), t = T, variance of 40",
    lambda: c.check_step_loss(
        functools.partial(step_loss_29, RANDOM, 40.0), RANDOM, 12, lambda x, t: 0.3 * x, 1.0, 0.1, 40.0
    ),
)


def prior_kl(s, x0):
    a, v = s.alpha_bar[s.T], s.beta_bar[s.T] ** 2
    return 0.5 * ((a * x0) ** 2 + v - 1 - np.log(v)).sum(-1)


def prior_kl_sums(s, x0):
    v = s.beta_bar[-1] ** 2
    return 0.5 * s.alpha_bar[-1] ** 2 * np.einsum("nd,nd->n", x0, x0) + 0.5 * x0.shape[1] * (np.log(1 / v) + v - 1)


def reverse_mean(s, t, x_t, eps):
    return (x_t - s.beta[t] ** 2 / s.beta_bar[t] * eps) / s.alpha[t]


def step_kl(s, sigma2, t, x0, x_t, eps_hat):
    q_mean, q_var = posterior_ho(s, np.float64, t, x_t, x0)
    diff = q_mean - reverse_mean(s, t, x_t, eps_hat(x_t, t))
    log_ratio = np.log(q_var) - np.log(sigma2[t])  # as Ho's normal_kl
    return 0.5 * np.sum(-1 - log_ratio + np.exp(log_ratio) + diff**2 / sigma2[t], axis=-1)


def step_kl_noise(s, sigma2, t, x0, x_t, eps_hat):
    eps = (x_t - s.alpha_bar[t] * x0) / s.beta_bar[t]
    ratio = s.beta_tilde[t] ** 2 / sigma2[t]
    weight = s.beta[t] ** 4 / (2 * sigma2[t] * s.alpha[t] ** 2 * s.beta_bar[t] ** 2)
    return weight * ((eps - eps_hat(x_t, t)) ** 2).sum(1) + x0.shape[1] / 2 * (ratio - 1 - math.log(ratio))


def first_nll(s, sigma2, x0, x1, eps_hat):
    return normal_nll(x0, reverse_mean(s, 1, x1, eps_hat(x1, 1)), sigma2[1])


def first_nll_scipy(s, sigma2, x0, x1, eps_hat):
    mean = reverse_mean(s, 1, x1, eps_hat(x1, 1))
    return [-stats.multivariate_normal.logpdf(a, m, sigma2[1] * np.eye(len(a))) for a, m in zip(x0, mean, strict=True)]


def bound_terms_case(s, sigma2, prior, step, first, D, size=1.0, seed=0):
    x0, noise = size * rng(seed).standard_normal((4, D)), rng(seed + 1).standard_normal((4, D))
    return c.check_bound_terms(
        functools.partial(prior, s),
        functools.partial(step, s, sigma2),
        functools.partial(first, s, sigma2),
        s,
        x0,
        noise,
        lambda x, t: np.sin(x) + 0.01 * t,
        sigma2,
    )


add(
    "bound_terms: Ho's normal_kl, T = 1000",
    lambda: bound_terms_case(HO, HO.beta**2, prior_kl, step_kl, first_nll, 2),
)
add(
    "bound_terms: by the noise, D = 64",
    lambda: bound_terms_case(LINEAR, LINEAR.beta**2, prior_kl_sums, step_kl_noise, first_nll_scipy, 64),
)
add(
    "bound_terms: large variances, random betas",
    lambda: bound_terms_case(RANDOM, 1 + RANDOM.beta**2, prior_kl_sums, step_kl_noise, first_nll, 5),
)
add(
    "bound_terms: data of size 100, T = 9",
    lambda: bound_terms_case(FALLING, FALLING.beta**2, prior_kl, step_kl, first_nll, 2, size=100.0),
)


def whole_bound(s, sigma2, order, x0, eps_hat, noise):
    columns = []
    for t in range(1, s.T + 1):
        x_t = s.alpha_bar[t] * x0 + s.beta_bar[t] * noise[t - 1]
        columns.append(first_nll(s, sigma2, x0, x_t, eps_hat) if t == 1 else step_kl(s, sigma2, t, x0, x_t, eps_hat))
    columns.append(prior_kl(s, x0))
    if order == "sum":
        return np.sum(columns, axis=0)
    return np.stack(columns if order == "rising" else columns[::-1], axis=1)


def whole_bound_21(s, sigma2, x0, eps_hat, noise):
    """(21): cross-entropies minus entropies of the forward steps, each with its noise integrated where it can be."""
    D = x0.shape[1]
    total = D / 2 * LOG_TAU + 0.5 * (s.alpha_bar[-1] ** 2 * (x0**2).sum(1) + D * s.beta_bar[-1] ** 2)
    for t in range(s.T, 0, -1):
        x_t = s.alpha_bar[t] * x0 + s.beta_bar[t] * noise[t - 1]
        miss = ((noise[t - 1] - eps_hat(x_t, t)) ** 2).sum(1)
        total = (
            total + D / 2 * math.log(sigma2[t] / s.beta[t] ** 2) - D / 2 + D * s.beta_tilde[t] ** 2 / (2 * sigma2[t])
        )
        total = total + s.beta[t] ** 4 / (2 * sigma2[t] * s.alpha[t] ** 2 * s.beta_bar[t] ** 2) * miss
    return total


def bound_problem(s, D, seed, size=1.0):
    r = rng(seed)
    A = 0.5 * np.eye(D) + 0.1 * r.standard_normal((s.T + 1, D, D))
    return size * r.standard_normal(D), size**2 * SPD[D], A, 0.1 * r.standard_normal((s.T + 1, D))


def bound_case(s, sigma2, bound, D, seed, size=1.0):
    return c.check_variational_bound(bound, s, *bound_problem(s, D, seed, size), sigma2)


add(
    "variational_bound: sum, T = 9, D = 2",
    lambda: bound_case(FALLING, FALLING.beta**2, functools.partial(whole_bound, FALLING, FALLING.beta**2, "sum"), 2, 0),
)
add(
    "variational_bound: terms in rising order, T = 12",
    lambda: bound_case(RANDOM, RANDOM.beta**2, functools.partial(whole_bound, RANDOM, RANDOM.beta**2, "rising"), 3, 1),
)
add(
    "variational_bound: terms from L_T down, T = 2",
    lambda: bound_case(TWO, TWO.beta**2, functools.partial(whole_bound, TWO, TWO.beta**2, "falling"), 1, 2),
)
add(
    "variational_bound: (21), T = 20",
    lambda: bound_case(LINEAR, LINEAR.beta**2, functools.partial(whole_bound_21, LINEAR, LINEAR.beta**2), 2, 3),
)
add(
    "variational_bound: data of size 0.01",
    lambda: bound_case(TWO, TWO.beta**2, functools.partial(whole_bound_21, TWO, TWO.beta**2), 3, 5, 0.01),
)


def negative_elbo_terms(s, sigma2, loss, moment, D):
    total = 0.5 * (s.alpha_bar[-1] ** 2 * moment + D * (s.beta_bar[-1] ** 2 - 1 - 2 * math.log(s.beta_bar[-1])))
    weight = s.beta[1:] ** 4 / (2 * sigma2[1:] * s.alpha[1:] ** 2 * s.beta_bar[1:] ** 2)
    total += float(np.dot(weight, loss[1:]))
    ratio = s.beta_tilde[2:] ** 2 / sigma2[2:]
    return total + D / 2 * np.sum(ratio - 1 - np.log(ratio)) + D / 2 * math.log(2 * math.pi * sigma2[1])


def negative_elbo_21(s, sigma2, loss, moment, D):
    cross = [0.5 * D * math.log(2 * math.pi) + 0.5 * (s.alpha_bar[s.T] ** 2 * moment + D * s.beta_bar[s.T] ** 2)]
    for t in range(1, s.T + 1):
        v = sigma2[t]
        cross.append(D / 2 * math.log(2 * math.pi * v) + D * s.beta_tilde[t] ** 2 / (2 * v))
        cross.append(s.beta[t] ** 4 / (2 * s.beta_bar[t] ** 2 * s.alpha[t] ** 2 * v) * loss[t])
        cross.append(-D / 2 * math.log(2 * math.pi * math.e * s.beta[t] ** 2))
    return math.fsum(cross)


def negative_case(s, sigma2, f, D, seed, size=1.0):
    mean, cov, A, b = bound_problem(s, D, seed, size)
    return c.check_negative_elbo(functools.partial(f, s, sigma2), s, mean, cov, A, b, sigma2)


add("negative_elbo: by terms, T = 12, D = 5", lambda: negative_case(RANDOM, RANDOM.beta**2, negative_elbo_terms, 5, 0))
add("negative_elbo: (21), T = 20, D = 1", lambda: negative_case(LINEAR, LINEAR.beta**2, negative_elbo_21, 1, 1))
add("negative_elbo: by terms, T = 1", lambda: negative_case(ONE, ONE.beta**2, negative_elbo_terms, 3, 2))
add(
    "negative_elbo: (21), other variances, data of size 30",
    lambda: negative_case(FALLING, np.linspace(0.1, 2, 10), negative_elbo_21, 2, 3, 30.0),
)


def forward_density(s, path):
    x = np.asarray(path)
    return sum(-normal_nll(x[t], s.alpha[t] * x[t - 1], s.beta[t] ** 2) for t in range(1, s.T + 1))


def forward_density_logpdf(s, path):
    a, b = s.alpha[1:, None, None], s.beta[1:, None, None]
    return stats.norm.logpdf(path[1:], a * path[:-1], b).sum(axis=(0, 2))


def reverse_density(s, sigma2, path, eps_hat):
    total = stats.norm.logpdf(path[s.T]).sum(1)
    for t in range(s.T, 0, -1):
        total -= normal_nll(path[t - 1], reverse_mean(s, t, path[t], eps_hat(path[t], t)), sigma2[t])
    return total


def reverse_density_x0(s, sigma2, path, eps_hat):
    out = [-normal_nll(path[-1], 0.0, np.ones(path.shape[2]))]
    for t in range(1, s.T + 1):
        x0 = (path[t] - s.beta_bar[t] * eps_hat(path[t], t)) / s.alpha_bar[t]
        mean = posterior_kalman(s, t, path[t], x0)[0]
        out.append(stats.norm.logpdf(path[t - 1], mean, math.sqrt(sigma2[t])).sum(1))
    return np.sum(out, axis=0)


def chains_case(s, sigma2, f, g, D, seed, size=1.0):
    path = size * rng(seed).standard_normal((s.T + 1, 3, D))
    slopes = rng(seed + 9).uniform(0, 0.9, s.T + 1)
    return c.check_chains(functools.partial(f, s), functools.partial(g, s, sigma2), s, path, slopes, sigma2)


add("chains: loops, T = 12", lambda: chains_case(RANDOM, RANDOM.beta**2, forward_density, reverse_density, 3, 0))
add(
    "chains: logpdf in one call, cosine T = 50",
    lambda: chains_case(COSINE, COSINE.beta**2, forward_density_logpdf, reverse_density_x0, 2, 1),
)
add("chains: T = 1, D = 8", lambda: chains_case(ONE, ONE.beta**2, forward_density, reverse_density_x0, 8, 2))
add(
    "chains: large paths, T = 9",
    lambda: chains_case(FALLING, 0.5 + FALLING.beta, forward_density_logpdf, reverse_density, 2, 3, 50.0),
)


def weights_if(s, sigma2, name):
    snr = s.snr[1:]
    rows = {
        "simple": np.ones(s.T),
        "x0": 1 / snr,
        "v": 1 + 1 / snr,  # 1/ᾱ²
        "min-snr": np.minimum(snr, 5) / snr,
        "bound": s.T * s.beta[1:] ** 4 / (2 * sigma2[1:] * s.alpha[1:] ** 2 * s.beta_bar[1:] ** 2),
    }
    return np.concatenate([[0.0], rows[name]])


def weights_list(s, sigma2, name):
    out = [0.0]
    for t in range(1, s.T + 1):
        a, b = s.alpha_bar[t], s.beta_bar[t]
        x0 = (b / a) ** 2
        mean_slope = s.beta[t] ** 2 / (s.alpha[t] * b)
        out.append(
            {
                "simple": 1,
                "x0": x0,
                "v": a**-2,
                "min-snr": x0 * min(a * a / b / b, 5.0),
                "bound": s.T * mean_slope**2 / 2 / sigma2[t],
            }[name]
        )
    return out


add(
    "loss_weights: all five, Ho",
    lambda: c.check_loss_weights(functools.partial(weights_if, HO, HO.beta**2), HO, HO.beta**2),
)
add(
    "loss_weights: lists, cosine T = 50",
    lambda: c.check_loss_weights(functools.partial(weights_list, COSINE, COSINE.beta**2), COSINE, COSINE.beta**2),
)
add(
    "loss_weights: two names only, T = 1",
    lambda: c.check_loss_weights(
        {"v": [0, 1 / 0.7], "x0": np.array([0, 3 / 7])}.__getitem__, ONE, ONE.beta**2, weightings=("v", "x0")
    ),
)
add(
    "loss_weights: 'bound' of other variances",
    lambda: c.check_loss_weights(
        functools.partial(weights_list, RANDOM, np.arange(13) + 1.0), RANDOM, np.arange(13) + 1.0, ("bound", "simple")
    ),
)


def draw_systematic(T, n, u):
    place = (np.arange(n) + u) / n
    return 1 + np.floor(place * T).astype(int), np.ones(n)


def draw_antithetic(T, u):
    t = 1 + int(u * T)
    return [t, T + 1 - t], [1.0, 1.0]  # as lucidrains' and Song's (t, T + 1 − t)


def draw_importance(p, u):
    t = 1 + int(np.searchsorted(np.cumsum(p), u, side="right"))
    return np.array([t]), np.array([1 / (len(p) * p[t - 1])])


def draw_alternating(T, u):
    """All steps at once, with weight 1."""
    return np.roll(np.arange(1, T + 1), int(u * T)), np.ones(T)


add("step_draws: systematic, T = 1000", lambda: c.check_step_draws(functools.partial(draw_systematic, 1000, 8), 1000))
add("step_draws: antithetic lists, T = 7", lambda: c.check_step_draws(functools.partial(draw_antithetic, 7), 7))
add(
    "step_draws: importance, T = 10",
    lambda: c.check_step_draws(functools.partial(draw_importance, np.arange(1, 11) / 55), 10),
)
add("step_draws: T = 1", lambda: c.check_step_draws(lambda u: ([1], [1.0]), 1))


def times_uniform(lo, hi, n, u):
    t = lo + (hi - lo) * ((np.arange(n) / n + u) % 1)
    return t, np.ones(n)


def times_quadratic(u):
    """t = u² has the density 1/(2√t) on (0, 1)."""
    t = np.array([u**2])
    return t, 2 * np.sqrt(t)


def times_log_snr(sde, lo, n, u):
    a, b = (math.log((sde.marginal(t)[0] / sde.marginal(t)[1]) ** 2) for t in (lo, sde.horizon))
    lam = a + (b - a) * (np.arange(n) + u) / n
    return np.array([sde.time_at(v) for v in lam]), np.ones(n)


add(
    "time_draws: stratified, uniform in [1e-5, 1]",
    lambda: c.check_time_draws(functools.partial(times_uniform, 1e-5, 1.0, 16), lambda t: (t - 1e-5) / (1 - 1e-5)),
)
add(
    "time_draws: weighted by the density, 6 moments",
    lambda: c.check_time_draws(times_quadratic, np.positive, n_moments=6),
)
add(
    "time_draws: uniform in log-SNR, lists",
    lambda: c.check_time_draws(
        lambda u: [v.tolist() for v in times_log_snr(VP(), 1e-3, 4, u)],
        lambda t: (VP().log_snr(1e-3) - VP().log_snr(t)) / (VP().log_snr(1e-3) - VP().log_snr(1.0)),
    ),
)
add(
    "time_draws: log-uniform sigma of EDM, tiny units",
    lambda: c.check_time_draws(
        lambda u: (np.array([1e-9 * 1e4**u]), np.ones(1)), lambda t: np.log(t / 1e-9) / math.log(1e4), 2
    ),
)

# ---------------------------------------------------------------- with the network of the code under test


class Net:
    """A small network: `net(x, t)` for an int t or (N,)."""

    def __init__(self, D, seed=0, dtype=np.float64, gain=0.5):
        self.w = (rng(seed).standard_normal((D, D)) / math.sqrt(D)).astype(dtype)
        self.gain, self.dtype = dtype(gain), dtype

    def __call__(self, x, t):
        x = np.asarray(x, self.dtype)
        clock = np.asarray(np.asarray(t) / 100, self.dtype)[..., None]
        return self.gain * np.tanh(x @ self.w + clock) + self.dtype(0.3) * x


def target(s, kind, t, x0, e):
    a, b = at(s.alpha_bar, t), at(s.beta_bar, t)
    return {"noise": e, "x0": x0, "v": a * e - b * x0, "step": at(s.beta, t) / b * e}[kind]


def loss_rows(s, net, kind, weight, mean, t, x0, e):
    t, x0, e = np.asarray(t), np.asarray(x0), np.asarray(e)
    x_t = at(s.alpha_bar, t) * x0 + at(s.beta_bar, t) * e
    err = (target(s, kind, t, x0, e) - net(x_t, t)) ** 2
    per = err.mean(1) if mean else err.sum(1)
    return per if weight is None else np.asarray(weight)[t] * per


def loss_scalar(s, net, kind, weight, mean, t, x0, e):
    return float(np.mean(loss_rows(s, net, kind, weight, mean, t, x0, e)))


def loss_of_case(s, D, kind, f, weight=None, mean=False, t=None, dtype=np.float64, N=6, size=1.0):
    net = Net(D, dtype=dtype)
    x0, e = (size * rng(3).standard_normal((N, D))).astype(dtype), rng(4).standard_normal((N, D)).astype(dtype)
    loss = functools.partial(f, s, net, kind, weight, mean)
    return c.check_loss_of(loss, net, x0, e, s, t, kind, weight, "mean" if mean else "sum")


add("loss_of: noise, rows, Ho, D = 64", lambda: loss_of_case(HO, 64, "noise", loss_rows))
add("loss_of: v, mean, one number, cosine", lambda: loss_of_case(COSINE, 8, "v", loss_scalar, mean=True))
add(
    "loss_of: x0, weighted by min-SNR",
    lambda: loss_of_case(LINEAR, 3, "x0", loss_rows, weight=np.r_[0, np.minimum(LINEAR.snr[1:], 5)]),
)
add(
    "loss_of: step, given t with repeats, D = 1",
    lambda: loss_of_case(RANDOM, 1, "step", loss_rows, t=[12, 1, 1, 5, 12, 7]),
)
add("loss_of: noise, float32 network, D = 16", lambda: loss_of_case(LINEAR, 16, "noise", loss_rows, dtype=np.float32))
add(
    "loss_of: D = 3072, T = 1, one example",
    lambda: loss_of_case(ONE, 3072, "noise", loss_rows, mean=True, N=1),
    slow=True,
)
add(
    "loss_of: lists, T = 2",
    lambda: c.check_loss_of(
        functools.partial(loss_rows, TWO, Net(2), "noise", None, False),
        Net(2),
        [[1.0, 2.0], [0.5, -1.0]],
        [[0.0, 1.0], [1.0, -2.0]],
        TWO,
    ),
)


def bound_of(s, net, sigma2, how, x0, noise):
    return whole_bound(s, sigma2, how, np.asarray(x0), net, noise)


def log_bin(levels, x0, mean, std):
    """log P of the bin of x0, as Ho's discretized_gaussian_log_likelihood, with logarithms."""
    half = 1 / (levels - 1)
    sign = np.where(x0 > mean, -1.0, 1.0)  # towards the side where Φ is small
    hi = np.where(x0 > 1 - half / 2, np.inf, (x0 + half - mean) / std)
    lo = np.where(x0 < -1 + half / 2, -np.inf, (x0 - half - mean) / std)
    big, small = np.where(sign > 0, hi, -lo), np.where(sign > 0, lo, -hi)
    a, b = special.log_ndtr(big), special.log_ndtr(small)
    return a + np.log1p(-np.exp(b - a))


def bound_of_levels(s, net, sigma2, levels, x0, noise):
    terms = whole_bound(s, sigma2, "rising", x0, net, noise)
    x1 = s.alpha_bar[1] * x0 + s.beta_bar[1] * noise[0]
    terms[:, 0] = -log_bin(levels, x0, reverse_mean(s, 1, x1, net(x1, 1)), math.sqrt(sigma2[1])).sum(1)
    return terms


def bound_of_case(s, D, how, variance, sigma2, levels=None, dtype=np.float64):
    net = Net(D, dtype=dtype)
    r = rng(8)
    x0 = r.standard_normal((3, D)) if levels is None else 2 * r.integers(0, levels, (3, D)) / (levels - 1) - 1
    noise = r.standard_normal((s.T, 3, D))
    if levels is None:
        return c.check_bound_of(functools.partial(bound_of, s, net, sigma2, how), net, x0, noise, s, variance)
    return c.check_bound_of(
        functools.partial(bound_of_levels, s, net, sigma2, levels), net, x0, noise, s, variance, levels
    )


add("bound_of: sum, beta, T = 20", lambda: bound_of_case(LINEAR, 3, "sum", "beta", LINEAR.beta**2))
add(
    "bound_of: terms, posterior, T = 12",
    lambda: bound_of_case(RANDOM, 5, "rising", "posterior", variance_dict(RANDOM)["posterior"]),
)
add("bound_of: a table of variances, T = 1", lambda: bound_of_case(ONE, 2, "sum", np.array([0, 0.8]), [0, 0.8]))
add("bound_of: 256 levels, cosine T = 50", lambda: bound_of_case(COSINE, 4, "rising", "beta", COSINE.beta**2, 256))
add(
    "bound_of: float32 network, T = 37",
    lambda: bound_of_case(CONSTANT, 2, "sum", "beta", CONSTANT.beta**2, dtype=np.float32),
)


def sampler_path(s, net, sigma2, last, x, noise):
    path = [x]
    for t in range(s.T, 0, -1):
        z = noise[s.T - t] if last or t > 1 else 0.0
        path.append(reverse_mean(s, t, path[-1], net(path[-1], t)) + math.sqrt(sigma2[t]) * z)
    return np.stack(path)


def sampler_end(s, net, sigma2, last, x, noise):
    return sampler_path(s, net, sigma2, last, x, noise)[-1]


def sampler_ddim(s, net, eta, last, x, noise):
    for t in range(s.T, 0, -1):
        x = ddim_paper(s, eta, t, t - 1, x, net(x, t), noise[s.T - t])
    return x


def sampler_of_case(s, D, f, arg, dtype=np.float64, **options):
    net = Net(D, dtype=dtype)
    x, noise = rng(5).standard_normal((4, D)), rng(6).standard_normal((s.T, 4, D))
    return c.check_sampler_of(
        functools.partial(f, s, net, arg, options.get("last_noise", True)), net, x, noise, s, **options
    )


add("sampler_of: path, beta, T = 20", lambda: sampler_of_case(LINEAR, 3, sampler_path, LINEAR.beta**2))
add(
    "sampler_of: no last noise, posterior, T = 12",
    lambda: sampler_of_case(
        RANDOM, 2, sampler_end, variance_dict(RANDOM)["posterior"], variance="posterior", last_noise=False
    ),
)
add(
    "sampler_of: own variances, T = 1",
    lambda: sampler_of_case(ONE, 5, sampler_path, [0, 2.0], variance=np.array([0, 2.0])),
)
add("sampler_of: DDIM eta 0, T = 37", lambda: sampler_of_case(CONSTANT, 1, sampler_ddim, 0.0, eta=0.0))
add("sampler_of: DDIM eta 0.6, T = 9", lambda: sampler_of_case(FALLING, 8, sampler_ddim, 0.6, eta=0.6))


def own_score(x, t):
    return -x / (1.0 + 0.2 * t) + 0.2 * np.tanh(x)


def own_divergence(x, t):
    return (-1 / (1.0 + 0.2 * t) + 0.2 / np.cosh(x) ** 2).sum(1)


def flow_log_prob(sde, t_min, prior_std, rtol, x):
    N, D = x.shape

    def slope(t, y):
        z = y[: N * D].reshape(N, D)
        f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2
        d_log = D * f - 0.5 * g2 * own_divergence(z, t)
        return np.concatenate([(f * z - 0.5 * g2 * own_score(z, t)).ravel(), d_log])

    out = integrate.solve_ivp(
        slope, (t_min, sde.horizon), np.r_[x.ravel(), np.zeros(N)], method="DOP853", rtol=rtol, atol=rtol
    )
    end = out.y[:, -1]
    return stats.norm.logpdf(end[: N * D].reshape(N, D), scale=prior_std).sum(1) + end[N * D :]


def flow_case(sde, t_min, D, accuracy=1e-10, prior=None, **options):
    x = rng(7).standard_normal((3, D))
    run = functools.partial(
        flow_log_prob, sde, t_min, float(sde.std(sde.horizon)) if prior is None else prior, accuracy
    )
    return c.check_flow_likelihood_of(run, own_score, x, sde, t_min, prior_std=prior, **options)


add(
    "flow_likelihood_of: VP, D = 2, exact divergence",
    lambda: flow_case(VP(), 1e-3, 2, divergence=own_divergence),
)
add("flow_likelihood_of: sub-VP, prior N(0, I)", lambda: flow_case(SubVP(), 1e-2, 1, prior=1.0))
add(
    "flow_likelihood_of: VP of horizon 3, rtol 1e-4",
    lambda: flow_case(VP(0.1, 2.0, 3.0), 0.01, 3, 1e-6, rtol=1e-4, divergence=own_divergence),
)
add("flow_likelihood_of: VE", lambda: flow_case(VE(0.1, 3.0), 0.05, 2, prior=3.0, divergence=own_divergence))

# ---------------------------------------------------------------- VAE


def vae_loss_sums(x, x_hat, mean, log_variance, decoder_log_variance):
    D = x.shape[-1]
    rec = 0.5 * (D * (LOG_TAU + decoder_log_variance) + np.exp(-decoder_log_variance) * ((x - x_hat) ** 2).sum(-1))
    return rec + 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1)


def vae_loss_scipy(x, x_hat, mean, log_variance, decoder_log_variance):
    rec = -stats.norm(x_hat, np.exp(decoder_log_variance / 2)).logpdf(x).sum(axis=1)
    sd = np.exp(0.5 * log_variance)
    return (
        rec
        - np.sum(0.5 * log_variance, axis=1)
        + 0.5 * (np.einsum("nk,nk->n", mean, mean) + np.sum(np.square(sd) - 1, axis=1))
    )


def vae_loss_expm1(x, x_hat, mean, log_variance, decoder_log_variance):
    total = []
    for a, b, m, v in zip(x, x_hat, mean, log_variance, strict=True):
        kl = math.fsum((p * p + math.expm1(q) - q) / 2 for p, q in zip(m, v, strict=True))
        total.append(kl + float(normal_nll(a, b, np.exp(decoder_log_variance))))
    return total


def vae_loss_single(*arguments):
    return vae_loss_sums(*single(*arguments))


def vae_case(loss, N, D, k, variance, seed, spread=1.0):
    r = rng(seed)
    size = math.sqrt(variance)
    return c.check_vae_loss(
        loss,
        size * r.standard_normal((N, D)),
        size * r.standard_normal((D, k)),
        size * r.standard_normal(D),
        variance,
        r.standard_normal((N, k)),
        spread * r.standard_normal((N, k)),
    )


add("vae_loss: sums, D = 64", lambda: vae_case(vae_loss_sums, 5, 64, 3, 0.5, 0))
add("vae_loss: scipy, D = 1, tiny units", lambda: vae_case(vae_loss_scipy, 4, 1, 1, 1e-12, 1))
add("vae_loss: lists and fsum, huge units", lambda: vae_case(vae_loss_expm1, 3, 5, 4, 1e10, 2))
add("vae_loss: narrow and wide q", lambda: vae_case(vae_loss_sums, 6, 4, 5, 1.0, 3, 4.0))
add("vae_loss: D = 3072, one example", lambda: vae_case(vae_loss_scipy, 1, 3072, 2, 1.0, 5))


def bernoulli_logaddexp(x, logits, mean, log_variance):
    ce = (np.logaddexp(0, logits) - x * logits).sum(1)
    return ce + 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(1)


def bernoulli_two_sided(x, logits, mean, log_variance):
    log_p, log_not = special.log_expit(logits), special.log_expit(-logits)
    return -(x * log_p + (1 - x) * log_not).sum(-1) + diagonal_kl_scipy(mean, log_variance)


def bernoulli_torch_like(x, logits, mean, log_variance):
    """max(l, 0) − l x + log(1 + e^{−|l|})."""
    ce = np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits)))
    return ce.sum(axis=1) - 0.5 * np.sum(1 + log_variance - mean**2 - np.exp(log_variance), axis=1)


def diagonal_kl_scipy(mean, log_variance):
    sd = np.exp(log_variance / 2)
    cross = 0.5 * LOG_TAU + 0.5 * (mean**2 + sd**2)
    return (cross - stats.norm.entropy(scale=sd)).sum(1)


def diagonal_kl_ints(mean, log_variance):
    return [
        0.5 * math.fsum(math.exp(v) + m * m - 1 - v for m, v in zip(a, b, strict=True))
        for a, b in zip(mean, log_variance, strict=True)
    ]


def diagonal_kl_full(mean, log_variance):
    out = []
    for m, v in zip(mean, log_variance, strict=True):
        cov = np.diag(np.exp(v))
        out.append(0.5 * (np.trace(cov) + m @ m - len(m) - v.sum()))
    return np.array(out)


for loss_, N_, D_, k_, scale_ in [
    (bernoulli_logaddexp, 5, 64, 2, 1.0),
    (bernoulli_two_sided, 4, 3, 3, 20.0),
    (bernoulli_torch_like, 2, 1, 1, 300.0),
]:
    add(
        f"bernoulli_loss: {loss_.__name__}, logits of size {scale_}",
        lambda loss=loss_, N=N_, D=D_, k=k_, size=scale_: c.check_bernoulli_loss(
            loss,
            rng(0).uniform(0, 1, (N, D)),
            size * rng(1).standard_normal((N, D)),
            rng(2).standard_normal((N, k)),
            rng(3).standard_normal((N, k)),
        ),
    )
add(
    "bernoulli_loss: binary x, D = 3072",
    lambda: c.check_bernoulli_loss(
        bernoulli_logaddexp,
        rng(0).integers(0, 2, (2, 3072)).astype(float),
        rng(1).standard_normal((2, 3072)),
        np.ones((2, 1)),
        np.zeros((2, 1)),
    ),
)

add(
    "diagonal_kl: scipy's entropy, k = 8",
    lambda: c.check_diagonal_kl(diagonal_kl_scipy, rng(0).standard_normal((4, 8)), rng(1).standard_normal((4, 8))),
)
add(
    "diagonal_kl: lists, integer arrays, k = 1",
    lambda: c.check_diagonal_kl(diagonal_kl_ints, np.array([[1], [-2], [0]]), np.array([[0], [1], [-3]])),
)
add(
    "diagonal_kl: traces, wide log-variances",
    lambda: c.check_diagonal_kl(diagonal_kl_full, rng(0).standard_normal((5, 3)), 6 * rng(1).standard_normal((5, 3))),
)
add(
    "diagonal_kl: float32, k = 64",
    lambda: c.check_diagonal_kl(
        lambda m, v: diagonal_kl_full(*single(m, v)), rng(0).standard_normal((2, 64)), rng(1).standard_normal((2, 64))
    ).at(1e-5),
)


class Encoder:
    def draw(self, mean, log_variance, noise):
        return mean + np.exp(log_variance * 0.5) * noise


def draw_cholesky(mean, log_variance, noise):
    return [m + np.linalg.cholesky(np.diag(np.exp(v))) @ e for m, v, e in zip(mean, log_variance, noise, strict=True)]


def draw_power(mean, log_variance, noise):
    return np.add(mean, np.multiply(np.sqrt(math.e**log_variance), noise))


def draw_inverse(mean, log_variance, noise):
    return stats.norm(mean, np.exp(log_variance / 2)).ppf(0.5) + np.exp(log_variance / 2) * noise


for draw_, N_, k_, size_ in [
    (Encoder().draw, 4, 3, 1.0),
    (draw_cholesky, 3, 1, 3.0),
    (draw_power, 2, 64, 1.0),
    (draw_inverse, 5, 2, 0.1),
]:
    add(
        f"reparameterisation: {draw_.__name__}, k = {k_}",
        lambda draw=draw_, N=N_, k=k_, size=size_: c.check_reparameterisation(
            draw, rng(0).standard_normal((N, k)), size * rng(1).standard_normal((N, k)), rng(2).standard_normal((N, k))
        ),
    )
add(
    "reparameterisation: float32, means of 1e-3",
    lambda: c.check_reparameterisation(
        lambda *a: Encoder().draw(*single(*a)),
        1e-3 * rng(0).standard_normal((4, 3)),
        rng(1).standard_normal((4, 3)),
        rng(2).standard_normal((4, 3)),
    ).at(1e-5),
)

# ---------------------------------------------------------------- tables


def simplex(seed, *shape, axis=-1, power=1.0):
    p = rng(seed).gamma(power, size=shape) + 1e-9
    return p / (p.sum() if axis is None else p.sum(axis, keepdims=True))


def joint_table(X, Z, seed, power=1.0):
    return simplex(seed, X, Z, axis=None, power=power)


def kl_rel_entr(p, q):
    return special.rel_entr(p, q).sum()


def kl_cross(p, q):
    return stats.entropy(p, q)


def kl_loop(p, q):
    return math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def kl_bits(p, q):
    return np.dot(p, np.log2(p / q)) * math.log(2)


for kl_, n_, power_ in [(kl_rel_entr, 2, 1.0), (kl_cross, 1000, 1.0), (kl_loop, 5, 0.1), (kl_bits, 64, 3.0)]:
    add(
        f"kl: {kl_.__name__}, {n_} entries",
        lambda kl=kl_, n=n_, power=power_: c.check_kl(kl, simplex(0, n, power=power), simplex(1, n, power=power)),
    )


def posterior_divide(joint):
    p_x = joint.sum(1)
    return joint / p_x[:, None], p_x


def posterior_softmax(joint):
    logs = np.log(joint)
    return special.softmax(logs, axis=1), np.exp(special.logsumexp(logs, axis=1))


def posterior_bayes(joint):
    prior = joint.sum(0)
    likelihood = joint / prior
    evidence = likelihood @ prior
    return (likelihood * prior / evidence[:, None]).tolist(), evidence.tolist()


for f_, X_, Z_ in [
    (posterior_divide, 1, 3),
    (posterior_softmax, 6, 4),
    (posterior_bayes, 40, 2),
    (posterior_softmax, 3, 1),
]:
    add(
        f"latent_posterior: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_: c.check_latent_posterior(f, joint_table(X, Z, X)),
    )


def posterior_kl_log(joint, q):
    return np.sum(q * (np.log(q) - special.log_softmax(np.log(joint), axis=1)), axis=1)


def posterior_kl_elbo(joint, q):
    p_x = joint.sum(1)
    return np.log(p_x) - np.einsum("xz,xz->x", q, np.log(joint / q))


def posterior_kl_scipy(joint, q):
    return [stats.entropy(a, b) for a, b in zip(q, joint, strict=True)]


for f_, X_, Z_ in [(posterior_kl_log, 5, 4), (posterior_kl_elbo, 1, 2), (posterior_kl_scipy, 8, 16)]:
    add(
        f"posterior_kl: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_: c.check_posterior_kl(f, joint_table(X, Z, 1), simplex(2, X, Z)),
    )
add(
    "posterior_kl: float32",
    lambda: c.check_posterior_kl(
        lambda j, q: posterior_kl_log(*single(j, q)), joint_table(4, 3, 1, 3.0), simplex(2, 4, 3, power=3.0)
    ).at(1e-5),
)


def elbo_ratio(joint, q):
    return (q * np.log(joint / q)).sum(axis=1)


def elbo_entropy(joint, q):
    return np.einsum("xz,xz->x", q, np.log(joint)) + special.entr(q).sum(1)


def elbo_identity(joint, q):
    return np.log(joint.sum(1)) - posterior_kl_log(joint, q)


for f_, X_, Z_, power_ in [(elbo_ratio, 5, 4, 1.0), (elbo_entropy, 2, 2, 0.2), (elbo_identity, 10, 30, 1.0)]:
    add(
        f"elbo: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_, p=power_: c.check_elbo(f, joint_table(X, Z, 3, p), simplex(4, X, Z, power=p)),
    )
add(
    "elbo: float32",
    lambda: c.check_elbo(
        lambda j, q: elbo_ratio(*single(j, q)), joint_table(4, 3, 1, 3.0), simplex(2, 4, 3, power=3.0)
    ).at(1e-5),
)


def split_direct(decoder, prior, q):
    return (q * np.log(decoder)).sum(1) - special.rel_entr(q, prior[None]).sum(1)


def split_joint(decoder, prior, q):
    return elbo_ratio(decoder * prior, q)


def split_rows(decoder, prior, q):
    return [float(r @ np.log(d)) - float(stats.entropy(r, prior)) for d, r in zip(decoder, q, strict=True)]


for f_, X_, Z_ in [(split_direct, 6, 3), (split_joint, 2, 9), (split_rows, 20, 2)]:
    add(
        f"split_elbo: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_: c.check_split_elbo(f, simplex(5, X, Z, axis=0), simplex(6, Z), simplex(7, X, Z)),
    )
add(
    "split_elbo: peaked tables",
    lambda: c.check_split_elbo(
        split_direct, simplex(5, 5, 4, axis=0, power=0.05), simplex(6, 4, power=0.3), simplex(7, 5, 4, power=0.05)
    ),
)


def joint_kl_sum(p_x, q, decoder, prior):
    left = p_x[:, None] * q
    return special.rel_entr(left, decoder * prior).sum()


def joint_kl_chain(p_x, q, decoder, prior):
    joint = decoder * prior
    return stats.entropy(p_x, joint.sum(1)) + p_x @ posterior_kl_log(joint, q)


def joint_kl_einsum(p_x, q, decoder, prior):
    logs = np.log(p_x)[:, None] + np.log(q) - np.log(decoder) - np.log(prior)
    return np.einsum("x,xz,xz->", p_x, q, logs)


def objective_direct(p_x, q, decoder, prior):
    return p_x @ (special.rel_entr(q, prior[None]).sum(1) - (q * np.log(decoder)).sum(1))


def objective_joint(p_x, q, decoder, prior):
    return joint_kl_sum(p_x, q, decoder, prior) + special.entr(p_x).sum()


def objective_loop(p_x, q, decoder, prior):
    return math.fsum(
        p * a * (math.log(a / b) - math.log(d))
        for p, row, dec in zip(p_x, q, decoder, strict=True)
        for a, d, b in zip(row, dec, prior, strict=True)
    )


for f_, X_, Z_, power_ in [(joint_kl_sum, 5, 3, 1.0), (joint_kl_chain, 2, 2, 1.0), (joint_kl_einsum, 30, 8, 0.3)]:
    add(
        f"joint_kl: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_, p=power_: c.check_joint_kl(
            f, simplex(8, X, power=p), simplex(9, X, Z, power=p), simplex(10, X, Z, axis=0, power=p), simplex(11, Z)
        ),
    )
for f_, X_, Z_, power_ in [(objective_direct, 4, 6, 1.0), (objective_joint, 12, 2, 0.4), (objective_loop, 3, 3, 1.0)]:
    add(
        f"vae_objective: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_, p=power_: c.check_vae_objective(
            f, simplex(8, X, power=p), simplex(9, X, Z, power=p), simplex(10, X, Z, axis=0, power=p), simplex(11, Z)
        ),
    )
add(
    "joint_kl: float32",
    lambda: c.check_joint_kl(
        lambda *a: joint_kl_sum(*single(*a)),
        simplex(8, 4, power=3.0),
        simplex(9, 4, 3, power=3.0),
        simplex(10, 4, 3, axis=0, power=3.0),
        simplex(11, 3, power=3.0),
    ).at(1e-5),
)
add(
    "vae_objective: float32",
    lambda: c.check_vae_objective(
        lambda *a: objective_direct(*single(*a)),
        simplex(8, 4, power=3.0),
        simplex(9, 4, 3, power=3.0),
        simplex(10, 4, 3, axis=0, power=3.0),
        simplex(11, 3, power=3.0),
    ).at(1e-5),
)


def free_m_divide(p_x, q):
    joint = p_x[:, None] * q
    q_z = joint.sum(0)
    return joint / q_z, q_z


def free_m_logs(p_x, q):
    logs = np.log(p_x)[:, None] + np.log(q)
    return special.softmax(logs, axis=0), np.exp(special.logsumexp(logs, axis=0))


def free_m_counts(p_x, q):
    q_z = [sum(p * row[z] for p, row in zip(p_x, q, strict=True)) for z in range(q.shape[1])]
    return [[p * row[z] / q_z[z] for z in range(q.shape[1])] for p, row in zip(p_x, q, strict=True)], q_z


for f_, X_, Z_ in [(free_m_divide, 5, 3), (free_m_logs, 2, 2), (free_m_counts, 9, 4)]:
    add(
        f"free_m_step: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_: c.check_free_m_step(f, simplex(12, X), simplex(13, X, Z), simplex(14, Z)),
    )
add(
    "free_m_step: peaked tables",
    lambda: c.check_free_m_step(
        free_m_logs, simplex(12, 6, power=0.5), simplex(13, 6, 3, power=0.2), simplex(14, 3, power=0.5)
    ),
)


def kl_parts_rel(p_x, q, prior):
    bar = p_x @ q
    return special.rel_entr(q, bar[None]).sum(1), special.rel_entr(bar, prior).sum()


def kl_parts_entropy(p_x, q, prior):
    bar = np.einsum("x,xz->z", p_x, q)
    per_x = -special.entr(q).sum(1) - q @ np.log(bar)
    return per_x.tolist(), float(-special.entr(bar).sum() - bar @ np.log(prior))


def kl_parts_scipy(p_x, q, prior):
    bar = np.average(q, axis=0, weights=p_x)
    return [stats.entropy(r, bar) for r in q], stats.entropy(bar, prior)


for f_, X_, Z_ in [(kl_parts_rel, 5, 3), (kl_parts_entropy, 2, 2), (kl_parts_scipy, 30, 6)]:
    add(
        f"kl_parts: {f_.__name__}, {X_} x {Z_}",
        lambda f=f_, X=X_, Z=Z_: c.check_kl_parts(f, simplex(12, X), simplex(13, X, Z), simplex(14, Z)),
    )


def iw_logsumexp(log_w):
    return special.logsumexp(log_w, axis=0) - math.log(len(log_w))


def iw_reduce(log_w):
    return np.logaddexp.reduce(np.asarray(log_w), axis=0) - np.log(np.shape(log_w)[0])


def iw_max(log_w):
    top = log_w.max(0)
    return top + np.log(np.exp(log_w - top).mean(0))


def iw_weighted(log_w):
    return special.logsumexp(log_w, axis=0, b=1 / len(log_w))


for f_, X_, Z_, n_ in [(iw_logsumexp, 4, 3, 2), (iw_reduce, 2, 2, 5), (iw_max, 3, 4, 3), (iw_weighted, 1, 6, 1)]:
    add(
        f"importance_weighted_bound: {f_.__name__}, {n_} draws",
        lambda f=f_, X=X_, Z=Z_, n=n_: c.check_importance_weighted_bound(
            f, joint_table(X, Z, 15), simplex(16, X, Z), n_draws=n
        ),
    )


def ladder_tuples(joint, q, n):
    out = np.zeros(len(joint))
    for z in itertools.product(range(joint.shape[1]), repeat=n):
        p = np.prod(q[:, z], axis=1)
        out += p * np.log(np.mean(joint[:, z] / q[:, z], axis=1))
    return out


def ladder_counts(joint, q, n):
    """By multisets, with multinomial coefficients."""
    X, Z = joint.shape
    out = np.zeros(X)
    for z in itertools.combinations_with_replacement(range(Z), n):
        count = np.bincount(z, minlength=Z)
        p = math.factorial(n) / math.prod(map(math.factorial, count)) * np.prod(q**count, axis=1)
        out += p * np.log(joint / q @ count / n)
    return out


add(
    "iwae_ladder: tuples, 4 draws", lambda: c.check_iwae_ladder(ladder_tuples, joint_table(3, 3, 17), simplex(18, 3, 3))
)
add(
    "iwae_ladder: multisets, 6 draws",
    lambda: c.check_iwae_ladder(ladder_counts, joint_table(2, 4, 17), simplex(18, 2, 4), n_most=6),
)
add(
    "iwae_ladder: 1 draw",
    lambda: c.check_iwae_ladder(lambda j, q, n: elbo_ratio(j, q), joint_table(5, 4, 17), simplex(18, 5, 4), 1),
)

# ---------------------------------------------------------------- Gaussians, bins, bits


def gaussian_kl_solve(mean_p, cov_p, mean_q, cov_q):
    d = mean_q - mean_p
    logdet = np.linalg.slogdet(cov_q)[1] - np.linalg.slogdet(cov_p)[1]
    return 0.5 * (np.trace(np.linalg.solve(cov_q, cov_p)) + d @ np.linalg.solve(cov_q, d) - len(d) + logdet)


def gaussian_kl_cholesky(mean_p, cov_p, mean_q, cov_q):
    lp, lq = np.linalg.cholesky(cov_p), np.linalg.cholesky(cov_q)
    m = linalg.solve_triangular(lq, lp, lower=True)
    z = linalg.solve_triangular(lq, mean_p - mean_q, lower=True)
    return 0.5 * ((m**2).sum() + z @ z - len(z)) - np.log(np.diag(lp) / np.diag(lq)).sum()


def gaussian_kl_eigen(mean_p, cov_p, mean_q, cov_q):
    values = linalg.eigh(cov_p, cov_q, eigvals_only=True)
    d = np.subtract(mean_p, mean_q)
    return float(0.5 * np.sum(values - 1 - np.log(values)) + 0.5 * d @ linalg.cho_solve(linalg.cho_factor(cov_q), d))


for f_, D_, size_ in [
    (gaussian_kl_solve, 1, 1.0),
    (gaussian_kl_cholesky, 16, 1.0),
    (gaussian_kl_eigen, 5, 1e-4),
    (gaussian_kl_cholesky, 3, 1e5),
]:
    add(
        f"gaussian_kl: {f_.__name__}, D = {D_}, units {size_}",
        lambda f=f_, D=D_, u=size_: c.check_gaussian_kl(
            f,
            u * rng(0).standard_normal(D),
            u * u * SPD[D],
            u * rng(1).standard_normal(D),
            u * u * (SPD[D] + np.eye(D)),
        ),
    )


def bin_log_ndtr(n, level, mean, std):
    return log_bin(n, 2 * np.asarray(level) / (n - 1) - 1, mean, std)


def bin_logcdf(n, level, mean, std):
    """In the tail below the mean, by symmetry where needed."""
    x = 2 * np.asarray(level, float) / (n - 1) - 1
    hi = np.where(level == n - 1, np.inf, (x + 1 / (n - 1) - mean) / std)
    lo = np.where(level == 0, -np.inf, (x - 1 / (n - 1) - mean) / std)
    flip = lo + hi > 0
    hi, lo = np.where(flip, -lo, hi), np.where(flip, -hi, lo)
    a, b = stats.norm.logcdf(hi), stats.norm.logcdf(lo)
    return a + np.log(-np.expm1(b - a))


def bin_quadrature(n, level, mean, std):
    """Inner bins by Gauss-Legendre over the density scaled by its value at the nearer edge."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    half = 1 / (n - 1)
    x = 2 * np.asarray(level, float) / (n - 1) - 1
    z = (np.expand_dims(x, -1) + half * nodes - np.expand_dims(mean, -1)) / std
    inner = special.logsumexp(-0.5 * z**2, b=weights * half / std, axis=-1) - 0.5 * LOG_TAU
    first = special.log_ndtr((x + half - mean) / std)
    last = special.log_ndtr(-(x - half - mean) / std)
    return np.where(level == 0, first, np.where(level == n - 1, last, inner))


for f_, n_, means_, std_ in [
    (bin_log_ndtr, 256, [-0.5, 0.0, 0.3], 0.2),
    (bin_logcdf, 2, [0.1, -3.0], 1.0),
    (bin_quadrature, 17, [0.9, -1.5], 0.3),
    (bin_log_ndtr, 3, [0.0], 5.0),
]:
    add(
        f"bin_masses: {f_.__name__}, {n_} levels",
        lambda f=f_, n=n_, m=means_, s=std_: c.check_bin_masses(functools.partial(f, n), n, np.array(m), s),
    )


add(
    "bits_per_dim: image of D = 3072",
    lambda: c.check_bits_per_dim(lambda nats, D, a: (nats / D - np.log(a)) / np.log(2), simplex(0, 5), 3072, 2 / 255),
)
add(
    "bits_per_dim: D = 1, unit cells, lists",
    lambda: c.check_bits_per_dim(
        lambda nats, D, a: [(v - D * math.log(a)) / (D * math.log(2)) for v in nats], simplex(1, 2), 1, 1.0
    ),
)
add(
    "bits_per_dim: log2, tiny cells",
    lambda: c.check_bits_per_dim(
        lambda nats, D, a: nats * math.log2(math.e) / D - math.log2(a), simplex(2, 40), 3, 1e-6
    ),
)
add(
    "bits_per_dim: huge cells, float32",
    lambda: c.check_bits_per_dim(
        lambda nats, D, a: (np.float32(nats) / np.float32(D) - np.float32(math.log(a))) / np.float32(math.log(2)),
        simplex(3, 6, power=3.0),
        2,
        50.0,
    ).at(1e-5),
)

# ---------------------------------------------------------------- linear-Gaussian models


def posterior_precision(x, W, mean, v):
    precision = np.eye(W.shape[1]) + W.T @ W / v
    return np.linalg.solve(precision, W.T @ (x - mean).T / v).T, np.linalg.inv(precision)


def posterior_gain(x, W, mean, v):
    gain = np.linalg.solve(W @ W.T + v * np.eye(len(W)), W).T
    return (x - mean) @ gain.T, np.eye(W.shape[1]) - gain @ W


def posterior_svd(x, W, mean, v):
    u, d, vt = np.linalg.svd(W, full_matrices=True)
    d = np.r_[d, np.zeros(W.shape[1] - len(d))]
    shrink = d / (d**2 + v)
    n = min(W.shape)
    means = ((x - mean) @ u[:, :n] * shrink[:n]) @ vt[:n]
    return means.tolist(), (vt.T * (v / (d**2 + v))) @ vt


def posterior_ridge(x, W, mean, v):
    """Ridge regression with scaled rows, by least squares."""
    rows = np.vstack([W / math.sqrt(v), np.eye(W.shape[1])])
    y = np.hstack([(x - mean) / math.sqrt(v), np.zeros((len(x), W.shape[1]))])
    r = np.linalg.qr(rows, mode="r")
    return np.linalg.lstsq(rows, y.T, rcond=None)[0].T, np.linalg.inv(r.T @ r)


def linear_elbo(x, W, mean, v, q_mean, q_cov):
    D, k = W.shape
    err = x - mean - q_mean @ W.T
    fit = -0.5 * (D * math.log(2 * math.pi * v) + ((err**2).sum(1) + np.trace(W @ q_cov @ W.T)) / v)
    return fit - 0.5 * (np.trace(q_cov) + (q_mean**2).sum(1) - k - np.linalg.slogdet(q_cov)[1])


def linear_elbo_gap(x, W, mean, v, q_mean, q_cov):
    m, s = posterior_precision(x, W, mean, v)
    evidence = stats.multivariate_normal(mean, W @ W.T + v * np.eye(len(mean))).logpdf(x)
    return np.atleast_1d(evidence) - [gaussian_kl_cholesky(a, q_cov, b, s) for a, b in zip(q_mean, m, strict=True)]


def linear_elbo_joint(x, W, mean, v, q_mean, q_cov):
    """E_q log p(x, z) by sigma points of q, plus the entropy of q."""
    k = W.shape[1]
    root = np.linalg.cholesky(q_cov) * math.sqrt(k)
    total = 0.0
    for step in np.vstack([root.T, -root.T]):
        z = q_mean + step
        total = total - normal_nll(x, z @ W.T + mean, np.full(len(W), v)) - normal_nll(z, 0.0, np.ones(k))
    return total / (2 * k) + 0.5 * (k * (1 + LOG_TAU) + np.linalg.slogdet(q_cov)[1])


def mean_field_direct(x, W, mean, v):
    return posterior_precision(x, W, mean, v)[0], 1 / (1 + (W**2).sum(0) / v)


def mean_field_coordinates(x, W, mean, v):
    """Coordinate ascent until nothing moves."""
    precision = W.T @ W / v + np.eye(W.shape[1])
    b = (x - mean) @ W / v
    m = np.zeros_like(b)
    for _ in range(500):
        for i in range(m.shape[1]):
            m[:, i] += (b[:, i] - m @ precision[i]) / precision[i, i]
    return m, 1 / np.diag(precision)


def mean_field_gain(x, W, mean, v):
    return posterior_gain(x, W, mean, v)[0].tolist(), [v / (v + col @ col) for col in W.T]


def linear_problem(N, D, k, v, seed):
    r = rng(seed)
    return r.standard_normal((N, D)), r.standard_normal((D, k)), r.standard_normal(D), v


for f_, p_ in [
    (posterior_precision, (4, 5, 2, 0.5)),
    (posterior_gain, (3, 1, 1, 2.0)),
    (posterior_svd, (5, 3, 6, 1.0)),
    (posterior_ridge, (2, 64, 4, 0.7)),
]:
    add(
        f"linear_gaussian_posterior: {f_.__name__}, N, D, k, v = {p_}",
        lambda f=f_, p=p_: c.check_linear_gaussian_posterior(f, *linear_problem(*p, 0)),
    )
for f_, p_ in [
    (linear_elbo, (4, 5, 2, 0.5)),
    (linear_elbo_gap, (3, 2, 3, 1.0)),
    (linear_elbo_joint, (5, 8, 3, 0.9)),
    (linear_elbo, (2, 1, 1, 100.0)),
]:
    add(
        f"linear_gaussian_elbo: {f_.__name__}, N, D, k, v = {p_}",
        lambda f=f_, p=p_: c.check_linear_gaussian_elbo(
            f, *linear_problem(*p, 1), rng(2).standard_normal((p[0], p[2])), SPD[p[2]]
        ),
    )
for f_, p_ in [
    (mean_field_direct, (4, 5, 2, 0.5)),
    (mean_field_coordinates, (3, 4, 3, 1.5)),
    (mean_field_gain, (2, 8, 1, 1.0)),
]:
    add(
        f"mean_field: {f_.__name__}, N, D, k, v = {p_}",
        lambda f=f_, p=p_: c.check_mean_field(f, *linear_problem(*p, 3)),
    )

# ---------------------------------------------------------------- mixtures and EM


def log_joint_cholesky(x, w, means, covs):
    out = []
    for a, m, cov in zip(w, means, covs, strict=True):
        low = np.linalg.cholesky(cov)
        z = linalg.solve_triangular(low, (x - m).T, lower=True)
        out.append(np.log(a) - 0.5 * ((z**2).sum(0) + len(m) * LOG_TAU) - np.log(np.diag(low)).sum())
    return np.stack(out, axis=1)


def log_joint_eigen(x, w, means, covs):
    values, vectors = np.linalg.eigh(covs)
    z = np.einsum("nkd,kde->nke", x[:, None] - means, vectors) / np.sqrt(values)
    return np.log(w) - 0.5 * (np.square(z) + np.log(values) + LOG_TAU).sum(-1)


def log_joint_precision(x, w, means, covs):
    precision = np.linalg.inv(covs)
    d = x[:, None, :] - means
    maha = np.einsum("nki,kij,nkj->nk", d, precision, d)
    return np.log(w) - 0.5 * (maha + np.linalg.slogdet(2 * np.pi * np.asarray(covs))[1])


def resp_softmax(joint, x, w, means, covs):
    return special.softmax(joint(x, w, means, covs), axis=1)


def resp_minus_max(x, w, means, covs):
    logs = log_joint_precision(x, w, means, covs)
    p = np.exp(logs - logs.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def resp_logs(x, w, means, covs):
    logs = log_joint_cholesky(x, w, means, covs)
    return np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None]).tolist()


def resp_single(x, w, means, covs):
    return resp_softmax(log_joint_cholesky, *single(x, w, means, covs))


def mixture_of(K, D, seed, size=1.0, gap=1.5):
    r = rng(seed)
    a = r.standard_normal((K, D, D)) / math.sqrt(D)
    covs = a @ np.swapaxes(a, 1, 2) + 0.5 * np.eye(D)
    return simplex(seed + 1, K, power=3.0), size * gap * r.standard_normal((K, D)), size**2 * covs


def points(N, D, seed, size=1.0):
    return size * 1.5 * rng(seed).standard_normal((N, D))


for f_, p_ in [
    (functools.partial(resp_softmax, log_joint_eigen), (6, 3, 4, 1.0)),
    (resp_minus_max, (5, 1, 2, 1e6)),
    (resp_logs, (4, 8, 3, 1e-5)),
    (functools.partial(resp_softmax, log_joint_cholesky), (3, 64, 2, 1.0)),
    (functools.partial(resp_softmax, log_joint_precision), (5, 2, 1, 1.0)),
]:
    add(
        f"e_step: {getattr(f_, '__name__', 'softmax')}, N, D, K, units = {p_}",
        lambda f=f_, p=p_: c.check_e_step(f, points(p[0], p[1], 0, p[3]), *mixture_of(p[2], p[1], 1, p[3])),
    )
add("e_step: float32", lambda: c.check_e_step(resp_single, points(5, 2, 0), *mixture_of(3, 2, 1)).at(1e-5))


def energy_sum(x, log_r, w, means, covs):
    return (np.exp(log_r) * (log_joint_cholesky(x, w, means, covs) - log_r)).sum(1)


def energy_gap(x, log_r, w, means, covs):
    logs = log_joint_eigen(x, w, means, covs)
    evidence = special.logsumexp(logs, axis=1)
    r = np.exp(log_r)
    return evidence - np.einsum("nk,nk->n", r, log_r - logs + evidence[:, None])


def energy_entropy(x, log_r, w, means, covs):
    r = np.exp(log_r)
    return [
        float(a @ b + special.entr(a).sum()) for a, b in zip(r, log_joint_precision(x, w, means, covs), strict=True)
    ]


for f_, p_ in [
    (energy_sum, (6, 3, 4, 1.0)),
    (energy_gap, (4, 1, 2, 10.0)),
    (energy_entropy, (3, 8, 3, 0.1)),
    (energy_sum, (5, 2, 1, 1.0)),
]:
    add(
        f"free_energy: {f_.__name__}, N, D, K, units = {p_}",
        lambda f=f_, p=p_: c.check_free_energy(
            f, points(p[0], p[1], 2, p[3]), np.log(simplex(5, p[0], p[2])), *mixture_of(p[2], p[1], 3, p[3])
        ),
    )


def restrict(S, counts, kind, floor=0.0):
    S = np.array(S, float)
    D = S.shape[1]
    if kind == "tied":
        S = np.broadcast_to(np.average(S, axis=0, weights=counts), S.shape)
    if kind in ("diag", "spherical"):
        d = np.diagonal(S, axis1=1, axis2=2)
        d = d if kind == "diag" else np.repeat(d.mean(1, keepdims=True), D, axis=1)
        return np.stack([np.diag(np.maximum(row, floor)) for row in d])
    if floor:
        values, vectors = np.linalg.eigh(S)
        S = (vectors * np.maximum(values, floor)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return S


def em_moments(x, logs):
    share = special.softmax(logs, axis=0)  # of the points in every component
    counts = np.exp(special.logsumexp(logs, axis=0))
    means = share.T @ x
    d = x[:, None] - means
    return counts, means, np.einsum("nk,nki,nkj->kij", share, d, d)


def em_step(kind, floor, ridge, x, w, means, covs):
    logs = special.log_softmax(log_joint_cholesky(x, w, means, covs), axis=1)
    counts, means, S = em_moments(x, logs)
    return counts / len(x), means, restrict(S, counts, kind, floor) + ridge * np.eye(x.shape[1])


def em_step_loop(x, w, means, covs):
    """Component by component with np.cov and np.average."""
    r = np.asarray(resp_minus_max(x, w, means, covs))
    new_means = [np.average(x, axis=0, weights=r[:, k]) for k in range(len(w))]
    new_covs = [np.atleast_2d(np.cov(x.T, aweights=r[:, k], ddof=0)) for k in range(len(w))]
    return r.mean(0).tolist(), new_means, new_covs


def em_step_sklearn(kind, reg, x, w, means, covs):
    """As scikit-learn: resp.T @ x, weights normalised, reg_covar on every variance."""
    resp = resp_softmax(log_joint_precision, x, w, means, covs)
    nk = resp.sum(axis=0)
    new = np.dot(resp.T, x) / nk[:, None]
    K, D = new.shape
    if kind == "tied":
        total = sum(((resp[:, k, None] * (x - new[k])).T @ (x - new[k])) for k in range(K)) / nk.sum()
        total.flat[:: D + 1] += reg
        out = np.array([total] * K)
    else:
        out = np.empty((K, D, D))
        for k in range(K):
            diff = x - new[k]
            out[k] = np.dot(resp[:, k] * diff.T, diff) / nk[k]
            out[k].flat[:: D + 1] += reg
        if kind != "full":
            var = np.diagonal(out, axis1=1, axis2=2)
            var = var if kind == "diag" else np.repeat(var.mean(1)[:, None], D, 1)
            out = np.einsum("kd,de->kde", var, np.eye(D))
    return nk / nk.sum(), new, out


def em_case(step, N, D, K, size=1.0, seed=0, start=None, **options):
    w, m, covs = mixture_of(K, D, seed, size)
    if start:
        covs = restrict(covs, np.ones(K), start)
    return c.check_em(step, points(N, D, seed + 7, size), w, m, covs, **options)


add("em: logs, D = 2, K = 3", lambda: em_case(functools.partial(em_step, "full", 0.0, 0.0), 40, 2, 3))
add("em: np.cov, D = 1, K = 2, units of 1e-4", lambda: em_case(em_step_loop, 30, 1, 2, 1e-4))
add(
    "em: tied, as scikit-learn, units of 1e5",
    lambda: em_case(
        functools.partial(em_step_sklearn, "tied", 0.0), 50, 3, 2, 1e5, start="tied", covariance_type="tied"
    ),
)
add(
    "em: diag with a floor",
    lambda: em_case(
        functools.partial(em_step, "diag", 0.8, 0.0), 40, 3, 3, start="diag", covariance_type="diag", floor=0.8
    ),
)
add(
    "em: spherical with reg_covar",
    lambda: em_case(
        functools.partial(em_step_sklearn, "spherical", 1e-3),
        40,
        2,
        3,
        start="spherical",
        covariance_type="spherical",
        ridge=1e-3,
    ),
)
add(
    "em: full with a floor of eigenvalues, 2 iterations",
    lambda: em_case(functools.partial(em_step, "full", 0.5, 0.0), 40, 4, 2, floor=0.5, n_iterations=2),
)


def em_run(x, w, m, covs, n, floor, lists):
    trace = []
    for i in range(n + 1):
        logs = log_joint_eigen(x, w, m, covs)
        trace.append(special.logsumexp(logs, axis=1).mean())
        if i < n:
            counts, m, S = em_moments(x, special.log_softmax(logs, axis=1))
            w, covs = counts / len(x), restrict(S, counts, "full", floor)
    return (trace, list(w), list(m), list(covs)) if lists else (np.array(trace), w, m, covs)


def em_run_elbo(x, w, m, covs, n):
    """The objective as a free energy at the responsibilities of the E-step."""
    out = []
    for _ in range(n):
        r = resp_minus_max(x, w, m, covs)
        out.append(np.mean(energy_entropy(x, np.log(r), w, m, covs)))
        w, m, covs = em_step_loop(x, w, m, covs)
        w, m, covs = np.array(w), np.array(m), np.array(covs)
    r = resp_minus_max(x, w, m, covs)
    return [*out, np.mean(energy_entropy(x, np.log(r), w, m, covs))], w, m, covs


def em_loop_case(make, N, D, K, n, floor=0.0, size=1.0):
    x, (w, m, covs) = points(N, D, 3, size), mixture_of(K, D, 4, size, 1.0)
    return c.check_em_loop(functools.partial(make, x, w, m, covs, n), x, w, m, covs, n, floor)


add("em_loop: 5 steps", lambda: em_loop_case(lambda *a: em_run(*a, 0.0, False), 30, 2, 3, 5))
add("em_loop: lists, floor, 3 steps", lambda: em_loop_case(lambda *a: em_run(*a, 0.6, True), 30, 3, 2, 3, 0.6))
add("em_loop: free energies, 2 steps", lambda: em_loop_case(em_run_elbo, 25, 2, 2, 2))
add(
    "em_loop: 1 step, D = 1, units of 1e3",
    lambda: em_loop_case(lambda *a: em_run(*a, 0.0, False), 25, 1, 2, 1, size=1e3),
)


def statistics_logs(x, w, m, covs):
    logs = log_joint_cholesky(x, w, m, covs)
    return (*em_moments(x, special.log_softmax(logs, axis=1)), special.logsumexp(logs, axis=1).mean())


def statistics_blocks(x, w, m, covs):
    """Sums over blocks of rows, centred at the mean of all data."""
    centre = x.mean(0)
    n = np.zeros(len(w))
    s1, s2, total = np.zeros_like(m), np.zeros_like(covs), 0.0
    for block in np.array_split(x, 4):
        logs = log_joint_precision(block, w, m, covs)
        lse = special.logsumexp(logs, axis=1)
        r, y = np.exp(logs - lse[:, None]), block - centre
        n += r.sum(0)
        s1 += r.T @ y
        s2 += np.einsum("nk,ni,nj->kij", r, y, y)
        total += lse.sum()
    mean = s1 / n[:, None]
    return n, mean + centre, s2 / n[:, None, None] - np.einsum("ki,kj->kij", mean, mean), total / len(x)


def statistics_loop(x, w, m, covs):
    _, means, new = em_step_loop(x, w, m, covs)
    r = resp_minus_max(x, w, m, covs)
    pdf = sum(a * stats.multivariate_normal(b, s).pdf(x) for a, b, s in zip(w, m, covs, strict=True))
    return r.sum(0).tolist(), means, new, np.mean(np.log(pdf))


def statistics_case(f, N, D, K, size=1.0):
    problem = points(N, D, 5, size), *mixture_of(K, D, 6, size, 1.0)
    return c.check_statistics(functools.partial(f, *problem), *problem)


for f_, p_ in [
    (statistics_logs, (30, 3, 4, 1.0)),
    (statistics_blocks, (40, 2, 2, 1.0)),
    (statistics_loop, (20, 2, 3, 0.1)),
    (statistics_logs, (10, 1, 1, 1e-8)),
]:
    add(f"statistics: {f_.__name__}, N, D, K, units = {p_}", lambda f=f_, p=p_: statistics_case(f, *p))


def covariance_maximum(spread, counts, floor, kind, variance, count):
    K, D = spread.shape[:2]
    prior = variance * count * np.eye(D)
    if kind == "tied":
        one = (np.einsum("k,kij->ij", counts, spread) + prior) / (counts.sum() + count)
        return restrict(np.stack([one] * K), np.ones(K), "full", floor)
    full = (counts[:, None, None] * spread + prior) / (counts + count)[:, None, None]
    return restrict(full, counts, kind, floor)


def covariance_maximum_points(spread, counts, floor, kind, variance, count):
    """The prior as further scatter, with loops."""
    D = spread.shape[1]
    scatter = [n * s for n, s in zip(counts, spread, strict=True)]
    sizes = list(counts)
    if kind == "tied":
        scatter, sizes = [sum(scatter)], [sum(sizes)]
    out = []
    for s, n in zip(scatter, sizes, strict=True):
        cov = (s + count * variance * np.eye(D)) / (n + count)
        if kind == "spherical":
            cov = np.trace(cov) / D * np.eye(D)
        elif kind == "diag":
            cov = np.diag(np.diag(cov))
        u, d, _ = np.linalg.svd(cov, hermitian=True)
        out.append(u @ np.diag(np.where(d < floor, floor, d)) @ u.T)
    return out * len(spread) if kind == "tied" else out


def covariance_case(f, K, D, floor, size=1.0, counts=None):
    spread = mixture_of(K, D, 9, size)[2]
    counts = rng(3).uniform(2, 40, K) if counts is None else counts
    return c.check_covariance_types(functools.partial(f, spread, counts, floor), spread, counts, floor)


add("covariance_types: einsum, K = 3, D = 4", lambda: covariance_case(covariance_maximum, 3, 4, 0.0))
add("covariance_types: scatter, floor", lambda: covariance_case(covariance_maximum_points, 2, 3, 0.7))
add("covariance_types: D = 1, units of 1e-3", lambda: covariance_case(covariance_maximum, 4, 1, 1e-9, 1e-3))
add(
    "covariance_types: K = 1, counts are integers",
    lambda: covariance_case(covariance_maximum_points, 1, 5, 0.6, counts=np.array([12])),
)


def kmeans_while(x, centres):
    label = None
    while True:
        new = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
        if label is not None and (new == label).all():
            return centres
        label = new
        centres = np.stack([x[label == k].mean(0) for k in range(len(centres))])


def kmeans_bincount(x, centres):
    centres = np.array(centres, float)
    for _ in range(1000):
        near = np.argmin(-2 * x @ centres.T + (centres**2).sum(1), axis=1)
        count = np.bincount(near, minlength=len(centres))
        new = np.stack([np.bincount(near, weights=col, minlength=len(centres)) / count for col in x.T], axis=1)
        if np.allclose(new, centres, rtol=0, atol=0):
            break
        centres = new
    return centres.tolist()


def kmeans_python(x, centres):
    points_, centres = [tuple(p) for p in x], [tuple(p) for p in centres]
    while True:
        groups = [[] for _ in centres]
        for p in points_:
            groups[min(range(len(centres)), key=lambda k, p=p: math.dist(p, centres[k]))].append(p)
        new = [tuple(math.fsum(v) / len(g) for v in zip(*g, strict=True)) for g in groups]
        if all(math.dist(a, b) < 1e-14 for a, b in zip(new, centres, strict=True)):
            return new
        centres = new


def blobs(N, D, K, seed, size=1.0):
    r = rng(seed)
    centres = 5 * r.standard_normal((K, D))
    x = centres[r.integers(0, K, N)] + r.standard_normal((N, D))
    return size * x, size * x[:K]


for f_, p_ in [
    (kmeans_while, (60, 2, 4, 0)),
    (kmeans_bincount, (40, 8, 3, 1)),
    (kmeans_python, (30, 1, 2, 2)),
    (kmeans_while, (10, 3, 1, 3)),
]:
    add(f"kmeans: {f_.__name__}, N, D, K = {p_[:3]}", lambda f=f_, p=p_: c.check_kmeans(f, *blobs(*p)))


def table_em_onehot(pseudo, x, w, tables):
    hot = np.eye(tables.shape[2])[x]  # (N, D, L)
    logs = np.log(w) + np.einsum("ndl,kdl->nk", hot, np.log(tables))
    lse = special.logsumexp(logs, axis=1)
    r = np.exp(logs - lse[:, None])
    counts = np.einsum("nk,ndl->kdl", r, hot) + pseudo
    return lse, r.mean(0), counts / counts.sum(-1, keepdims=True)


def table_em_loop(pseudo, x, w, tables):
    K, D, L = tables.shape
    joint = np.array([[w[k] * math.prod(tables[k, d, row[d]] for d in range(D)) for k in range(K)] for row in x])
    p = joint.sum(1)
    r = joint / p[:, None]
    counts = np.zeros((K, D, L)) + pseudo
    for n, row in enumerate(x):
        for d, level in enumerate(row):
            counts[:, d, level] += r[n]
    return np.log(p).tolist(), r.sum(0) / len(x), counts / counts.sum(2)[..., None]


def table_em_bincount(pseudo, x, w, tables):
    K, D, L = tables.shape
    logs = np.log(w) + sum(np.log(tables[:, d, x[:, d]]).T for d in range(D))
    top = logs.max(1, keepdims=True)
    p = np.exp(logs - top)
    r = p / p.sum(1, keepdims=True)
    new = np.array([[np.bincount(x[:, d], r[:, k], L) for d in range(D)] for k in range(K)]) + pseudo
    return np.log(p.sum(1)) + top[:, 0], r.mean(axis=0), new / new.sum(-1)[..., None]


def table_case(f, N, D, K, L, pseudo, integer=np.int64):
    counts = np.full((D, L), pseudo) if pseudo is not None else rng(2).uniform(0, 1, (D, L))
    x = rng(0).integers(0, L, (N, D)).astype(integer)
    return c.check_table_em(
        functools.partial(f, counts), x, simplex(1, K, power=3.0), simplex(2, K, D, L, power=2.0), counts
    )


add("table_em: one-hot, pseudo-counts of 0.5", lambda: table_case(table_em_onehot, 30, 4, 3, 5, 0.5))
add("table_em: loops, no pseudo-counts", lambda: table_case(table_em_loop, 40, 2, 2, 3, 0.0))
add("table_em: bincount, uneven pseudo-counts, D = 64", lambda: table_case(table_em_bincount, 20, 64, 2, 17, None))
add("table_em: one-hot, K = 1, D = 1, small integers", lambda: table_case(table_em_onehot, 10, 1, 1, 2, 1e-3, np.uint8))


def ppca_tipping(S, W, v):
    D, k = W.shape
    M = W.T @ W + v * np.eye(k)
    new = S @ W @ np.linalg.inv(v * np.eye(k) + np.linalg.solve(M, W.T @ S @ W))
    return new, np.trace(S - S @ W @ np.linalg.solve(M, new.T)) / D


def ppca_moments(S, W, v):
    D, k = W.shape
    gain = np.linalg.solve(W @ W.T + v * np.eye(D), W).T
    xz, zz = S @ gain.T, np.eye(k) - gain @ W + gain @ S @ gain.T
    new = np.linalg.solve(zz, xz.T).T
    return new, (np.trace(S) - 2 * np.sum(new * xz) + np.trace(zz @ new.T @ new)) / D


def ppca_data(S, W, v):
    """By data whose covariance is S: rows √D of a Cholesky factor."""
    D, k = W.shape
    x = np.linalg.cholesky(S).T * math.sqrt(D)
    cov = np.linalg.inv(np.eye(k) + W.T @ W / v)
    z = x @ W @ cov / v
    zz = z.T @ z / D + cov
    new = (x.T @ z / D) @ np.linalg.inv(zz)
    rest = ((x - z @ new.T) ** 2).sum() / D + np.trace(new @ cov @ new.T)
    return new.tolist(), np.float64(rest / D)


for f_, D_, k_, v_ in [
    (ppca_tipping, 5, 2, 0.3),
    (ppca_moments, 8, 3, 1.0),
    (ppca_data, 3, 1, 0.1),
    (ppca_moments, 2, 1, 4.0),
]:
    add(
        f"ppca_step: {f_.__name__}, D = {D_}, k = {k_}",
        lambda f=f_, D=D_, k=k_, v=v_: c.check_ppca_step(f, SPD[D], rng(0).standard_normal((D, k)), v),
    )


def ppca_eigh(S, k):
    values, vectors = np.linalg.eigh(S)
    v = values[:-k].mean()
    return vectors[:, -k:] * np.sqrt(values[-k:] - v), v


def ppca_svd_rotated(S, k):
    u, d, _ = np.linalg.svd(S)
    v = (np.trace(S) - d[:k].sum()) / (len(S) - k)
    turn = linalg.qr(rng(k).standard_normal((k, k)))[0]
    return (u[:, :k] @ np.diag(np.sqrt(d[:k] - v)) @ turn).tolist(), float(v)


def ppca_scipy(S, k):
    D = len(S)
    values, vectors = linalg.eigh(S, subset_by_index=[D - k, D - 1])
    v = (np.trace(S) - values.sum()) / (D - k)
    return vectors @ np.diag(np.sqrt(values - v)), np.array(v)


for f_, D_, k_, u_ in [
    (ppca_eigh, 8, 3, 1.0),
    (ppca_svd_rotated, 5, 4, 1e3),
    (ppca_scipy, 16, 2, 1e-3),
    (ppca_eigh, 2, 1, 1.0),
]:
    add(
        f"ppca_maximum: {f_.__name__}, D = {D_}, k = {k_}, units {u_}",
        lambda f=f_, D=D_, k=k_, u=u_: c.check_ppca_maximum(f, u * u * SPD[D], k),
    )


def fa_gain(S, W, psi):
    beta = W.T @ np.linalg.inv(W @ W.T + np.diag(psi))
    new = S @ beta.T @ np.linalg.inv(np.eye(W.shape[1]) - beta @ W + beta @ S @ beta.T)
    return new, np.diag(S - new @ beta @ S)


def fa_precision(S, W, psi):
    cov = np.linalg.inv(np.eye(W.shape[1]) + (W.T / psi) @ W)
    beta = cov @ W.T / psi
    xz, zz = S @ beta.T, cov + beta @ S @ beta.T
    new = np.linalg.solve(zz, xz.T).T
    return new.tolist(), (np.diag(S) - 2 * (new * xz).sum(1) + np.einsum("dk,kl,dl->d", new, zz, new)).tolist()


def fa_rows(S, W, psi):
    """Every row of W' as its own regression."""
    beta = np.linalg.solve(W @ W.T + np.diag(psi), W).T
    zz = np.eye(W.shape[1]) - beta @ W + beta @ S @ beta.T
    rows = [np.linalg.solve(zz, beta @ s) for s in S.T]
    return np.array(rows), np.array([S[d, d] - r @ beta @ S[:, d] for d, r in enumerate(rows)])


for f_, D_, k_, u_ in [
    (fa_gain, 5, 2, 1.0),
    (fa_precision, 8, 3, 1e-2),
    (fa_rows, 3, 1, 1.0),
    (fa_precision, 16, 1, 30.0),
]:
    add(
        f"factor_analysis_step: {f_.__name__}, D = {D_}, k = {k_}, units {u_}",
        lambda f=f_, D=D_, k=k_, u=u_: c.check_factor_analysis_step(
            f, u * u * SPD[D], u * rng(0).standard_normal((D, k)), u * u * rng(1).uniform(0.2, 2, D)
        ),
    )


def fractions_jacobian(x, w, m, covs):
    r = resp_minus_max(x, w, m, covs)
    K, D = m.shape
    score = np.einsum("kij,nkj->nki", np.linalg.inv(covs), x[:, None] - m)
    jac = np.zeros((K, D, K, D))
    for k in range(K):
        for j in range(K):
            d = r[:, k] * ((k == j) - r[:, j])
            jac[k, :, j] = np.einsum("n,ni,nj->ij", d, x - m[k], score[:, j]) / r[:, k].sum()
    return np.sort(np.linalg.eigvals(jac.reshape(K * D, K * D)).real)[::-1]


def fractions_information(x, w, m, covs):
    r = resp_minus_max(x, w, m, covs)
    K, D = m.shape
    precision = np.linalg.inv(covs)
    score = np.einsum("kij,nkj->nki", precision, x[:, None] - m)
    missing = np.einsum("nk,kj,nka,njb->kajb", r, np.eye(K), score, score) - np.einsum(
        "nk,nj,nka,njb->kajb", r, r, score, score
    )
    complete = linalg.block_diag(*(r.sum(0)[:, None, None] * precision))
    return linalg.eigh(missing.reshape(K * D, K * D), complete, eigvals_only=True)[::-1]


for f_, N_, D_, K_ in [
    (fractions_jacobian, 40, 2, 2),
    (fractions_information, 60, 1, 3),
    (fractions_information, 30, 2, 2),
]:
    add(
        f"missing_information: {f_.__name__}, N, D, K = {N_, D_, K_}",
        lambda f=f_, N=N_, D=D_, K=K_: c.check_missing_information(
            f, blobs(N, D, K, 5)[0], np.full(K, 1 / K), blobs(N, D, K, 5)[0][:K], np.array([1.5 * np.eye(D)] * K)
        ),
    )

# ---------------------------------------------------------------- laws, scores and denoisers


def law_of(K, D, seed, size=1.0):
    return Mixture(*mixture_of(K, D, seed, size))


def log_prob_of(joint, law, x):
    return special.logsumexp(joint(x, law.weights, law.means, law.covariances), axis=1)


def log_prob_reduce(law, x):
    logs = log_joint_precision(x, law.weights, law.means, law.covariances)
    return functools.reduce(np.logaddexp, logs.T).tolist()


def score_precision(law, x):
    r = resp_minus_max(x, law.weights, law.means, law.covariances)
    return -np.einsum(
        "nk,nki->ni", r, np.einsum("kij,nkj->nki", np.linalg.inv(law.covariances), x[:, None] - law.means)
    )


def score_solve(law, x):
    r = resp_softmax(log_joint_eigen, x, law.weights, law.means, law.covariances)
    return sum(r[:, [k]] * np.linalg.solve(law.covariances[k], (law.means[k] - x).T).T for k in range(len(law.weights)))


def score_rows(law, x):
    out = []
    for row in x:
        r = resp_minus_max(row[None], law.weights, law.means, law.covariances)[0]
        pull = [
            linalg.cho_solve(linalg.cho_factor(s), m - row) for m, s in zip(law.means, law.covariances, strict=True)
        ]
        out.append(np.average(pull, axis=0, weights=r))
    return out


class Diffused:
    """A mixture after noise: functions of (x, scale, std)."""

    def __init__(self, law):
        self.law = law

    def at(self, scale, std):
        D = self.law.means.shape[1]
        return Mixture(self.law.weights, scale * self.law.means, scale**2 * self.law.covariances + std**2 * np.eye(D))

    def denoise_kalman(self, x, scale, std):
        law = self.at(scale, std)
        r = resp_softmax(log_joint_cholesky, x, law.weights, law.means, law.covariances)
        gain = scale * self.law.covariances @ np.linalg.inv(law.covariances)
        means = self.law.means + np.einsum("kij,nkj->nki", gain, x[:, None] - law.means)
        return np.einsum("nk,nki->ni", r, means)

    def denoise_precision(self, x, scale, std):
        """Every component's posterior by adding precisions."""
        law = self.at(scale, std)
        r = resp_softmax(log_joint_eigen, x, law.weights, law.means, law.covariances)
        out = np.zeros_like(x)
        for k, (m, s) in enumerate(zip(self.law.means, self.law.covariances, strict=True)):
            p = np.linalg.inv(s)
            post = np.linalg.inv(p + scale**2 / std**2 * np.eye(len(m)))
            out += r[:, [k]] * ((p @ m + scale / std**2 * x) @ post)
        return out

    def denoise_eigen(self, x, scale, std):
        law = self.at(scale, std)
        r = resp_minus_max(x, law.weights, law.means, law.covariances)
        values, vectors = np.linalg.eigh(self.law.covariances)
        d = np.einsum("nki,kij->nkj", x[:, None] - scale * self.law.means, vectors)
        d = d * (scale * values / (scale**2 * values + std**2))
        return (r[..., None] * (self.law.means + np.einsum("nkj,kij->nki", d, vectors))).sum(1)


for joint_, K_, D_, u_ in [
    (log_joint_cholesky, 3, 2, 1.0),
    (log_joint_eigen, 2, 16, 1e3),
    (log_joint_precision, 1, 1, 1e-4),
]:
    add(
        f"log_prob: {joint_.__name__}, K, D, units = {K_, D_, u_}",
        lambda f=joint_, K=K_, D=D_, u=u_: c.check_log_prob(
            functools.partial(log_prob_of, f, law_of(K, D, 0, u)), law_of(K, D, 0, u), points(4, D, 1, u)
        ),
    )
add(
    "log_prob: reduce to a list",
    lambda: c.check_log_prob(functools.partial(log_prob_reduce, law_of(4, 3, 2)), law_of(4, 3, 2), points(5, 3, 3)),
)
for f_, K_, D_, u_ in [(score_precision, 3, 2, 1.0), (score_solve, 2, 8, 1e3), (score_rows, 4, 1, 1e-4)]:
    add(
        f"score: {f_.__name__}, K, D, units = {K_, D_, u_}",
        lambda f=f_, K=K_, D=D_, u=u_: c.check_score(
            functools.partial(f, law_of(K, D, 0, u)), law_of(K, D, 0, u), points(4, D, 1, u)
        ),
    )
add(
    "score: of a diffused mixture, std given, integer points",
    lambda: c.check_score(
        functools.partial(score_precision, Diffused(law_of(2, 2, 0)).at(0.8, 0.6)),
        Diffused(law_of(2, 2, 0)).at(0.8, 0.6),
        np.array([[1, 2], [0, -1]]),
        std=0.6,
    ),
)
for name_, K_, D_, scale_, std_ in [
    ("denoise_kalman", 3, 2, 0.8, 0.6),
    ("denoise_precision", 2, 1, 1.0, 5.0),
    ("denoise_eigen", 2, 8, 0.5, 0.5),
    ("denoise_kalman", 1, 3, 0.99, 0.14),
]:
    add(
        f"denoiser: {name_}, K, D = {K_, D_}, scale {scale_}, std {std_}",
        lambda f=name_, K=K_, D=D_, a=scale_, b=std_: c.check_denoiser(
            getattr(Diffused(law_of(K, D, 1)), f), law_of(K, D, 1), points(4, D, 2), a, b
        ),
    )

# ---------------------------------------------------------------- SDEs


class CosineProcess:
    """Variance-preserving with scale = cos(πt/2H); f = −(π/2H) tan, g² = −2f."""

    def __init__(self, horizon):
        self.h = horizon

    def marginal(self, t):
        return np.cos(np.pi * t / 2 / self.h), np.sin(np.pi * t / 2 / self.h)

    def drift(self, x, t):
        return -np.pi / 2 / self.h * np.tan(np.pi * np.asarray(t) / 2 / self.h)[..., None] * x

    def diffusion(self, t):
        return np.sqrt(np.pi / self.h * np.tan(np.pi * t / 2 / self.h))


def vp_marginal(lo, hi, T, t):
    integral = t * lo + 0.5 * t * t * (hi - lo) / T
    return math.exp(-0.5 * integral), math.sqrt(-math.expm1(-integral))


def vp_drift(lo, hi, T, x, t):
    return -0.5 * (lo + t / T * (hi - lo)) * x


add(
    "sde: cosine, horizon 2", lambda: (lambda p: c.check_sde(p.marginal, p.drift, p.diffusion, 2.0))(CosineProcess(2.0))
)
add(
    "sde: VP of score_sde, times are numbers only",
    lambda: c.check_sde(
        functools.partial(vp_marginal, 0.1, 20, 1),
        lambda x, t: vp_drift(0.1, 20, 1, x, float(t)),
        lambda t: math.sqrt(0.1 + t * 19.9),
        1.0,
    ),
)
add(
    "sde: EDM with sigma for t, horizon 80",
    lambda: c.check_sde(
        lambda t: (np.ones_like(t, dtype=float), t),
        lambda x, t: np.zeros_like(x),
        lambda t: np.sqrt(2 * np.asarray(t)),
        80.0,
    ),
)
add(
    "sde: VE that starts at sigma_min",
    lambda: c.check_sde(
        lambda t: (1.0, 0.01 * 5000.0**t),
        lambda x, t: 0 * x,
        lambda t: 0.01 * 5000.0**t * math.sqrt(2 * math.log(5000.0)),
        1.0,
    ),
)
add(
    "sde: straight path of flow matching",
    lambda: c.check_sde(
        lambda t: (1 - t, t), lambda x, t: -x / np.asarray(1 - t)[..., None], lambda t: np.sqrt(2 * t / (1 - t)), 1.0
    ),
)
add(
    "sde: Ornstein and Uhlenbeck, horizon 1e-4",
    lambda: c.check_sde(
        lambda t: (np.exp(-5e3 * t), np.sqrt(-np.expm1(-1e4 * t))), lambda x, t: -5e3 * x, lambda t: 100.0, 1e-4
    ),
)


def steps_of(lo, hi, T, n):
    edges = np.linspace(0, T, n + 1)
    left, right = edges[:-1], edges[1:]
    mean_rate = lo + (hi - lo) * (left + right) / (2 * T)
    return -np.expm1(-mean_rate * T / n)


def steps_quad(sde, n):
    edges = [sde.horizon * i / n for i in range(n + 1)]
    return [
        1 - math.exp(-integrate.quad(lambda t: float(sde.diffusion(t)) ** 2, a, b)[0])
        for a, b in itertools.pairwise(edges)
    ]


add("discretisation: middle of every step, T = 1000", lambda: c.check_discretisation(steps_of(0.1, 20, 1, 1000), VP()))
add(
    "discretisation: quad, a list, T = 7",
    lambda: c.check_discretisation(steps_quad(VP(0.5, 3.0, 4.0), 7), VP(0.5, 3.0, 4.0)),
)
add("discretisation: T = 1, constant rate", lambda: c.check_discretisation([-math.expm1(-6.0)], VP(2.0, 2.0, 3.0)))
add(
    "discretisation: float32",
    lambda: c.check_discretisation(steps_of(0.1, 20, 1, 50).astype(np.float32), VP()).at(1e-5),
)


def gaussian_score(sde, mean, cov, x, t):
    scale, std = sde.marginal(t)
    scale, std = np.asarray(scale)[..., None], np.asarray(std)[..., None]
    if np.ndim(t):
        return np.stack([gaussian_score(sde, mean, cov, r[None], float(s))[0] for r, s in zip(x, t, strict=True)])
    return -np.linalg.solve(scale[0] ** 2 * cov + std[0] ** 2 * np.eye(len(mean)), (x - scale * mean).T).T


def reverse_drift_lambda(sde, mean, cov, lam, x, t):
    g = np.asarray(sde.diffusion(t))[..., None]
    return sde.drift(x, t) - (1 + lam**2) / 2 * g**2 * gaussian_score(sde, mean, cov, x, t)


def reverse_drift_eps(sde, mean, cov, lam, x, t):
    """Through ε̂ = −std · score, with times as numbers."""
    t = float(t)
    eps = -float(sde.std(t)) * gaussian_score(sde, mean, cov, x, t)
    return float(sde.rate(t)) * x + (1 + lam * lam) / 2 * float(sde.diffusion(t)) ** 2 / float(sde.std(t)) * eps


for sde_, f_, D_, lam_, u_ in [
    (VP(), reverse_drift_lambda, 3, 1.0, 1.0),
    (VE(0.01, 50.0), reverse_drift_eps, 2, 0.0, 1.0),
    (SubVP(0.1, 5.0, 2.0), reverse_drift_lambda, 1, 0.5, 1.0),
    (c.EDM(), reverse_drift_eps, 8, 1.0, 0.5),
    (VP(0.1, 2.0, 5.0), reverse_drift_lambda, 2, 2.0, 100.0),
]:
    add(
        f"reverse_sde: {type(sde_).__name__}, {f_.__name__}, D = {D_}, stochasticity {lam_}",
        lambda s=sde_, f=f_, D=D_, lam=lam_, u=u_: c.check_reverse_sde(
            functools.partial(f, s, u * np.ones(D), u * u * SPD[D], lam),
            lambda t: lam * s.diffusion(t),
            s,
            u * np.ones(D),
            u * u * SPD[D],
            lam,
        ),
    )


def em_reverse(sde, m, v, lam, x, t, s, z):
    scale, std = sde.marginal(t)
    g, h = float(sde.diffusion(t)), t - s
    score = -(x - scale * np.asarray(m)) / (scale**2 * np.asarray(v) + std**2)
    return x - h * (float(sde.rate(t)) * x - 0.5 * (1 + lam**2) * g**2 * score) + lam * g * math.sqrt(h) * z


def exact_reverse(sde, m, v, lam, x, t, s, z):
    """The exact q(x_s | x_t) for λ = 1: Bayes' rule for two Gaussians."""
    (at_, bt), (as_, bs) = sde.marginal(t), sde.marginal(s)
    keep = at_ / as_
    noise = bt**2 - keep**2 * bs**2
    prior_mean, prior = as_ * np.asarray(m), as_**2 * np.asarray(v) + bs**2
    gain = keep * prior / (keep**2 * prior + noise)
    return prior_mean + gain * (x - keep * prior_mean) + np.sqrt(gain * noise / keep) * z


def exact_flow(sde, m, v, lam, x, t, s, z):
    (at_, bt), (as_, bs) = sde.marginal(t), sde.marginal(s)
    m, v = np.asarray(m), np.asarray(v)
    return as_ * m + np.sqrt((as_**2 * v + bs**2) / (at_**2 * v + bt**2)) * (x - at_ * m)


for sde_, f_, m_, v_, lam_ in [
    (VP(), em_reverse, 0.5, 2.0, 1.0),
    (VE(0.01, 50.0), em_reverse, np.array([1.0, -2.0]), np.array([0.5, 3.0]), 0.0),
    (VP(0.1, 3.0, 2.0), exact_reverse, 0.0, 1.5, 1.0),
    (SubVP(0.5, 4.0, 1.0), exact_flow, np.zeros(3), np.array([0.1, 1.0, 4.0]), 0.0),
    (c.EDM(10.0), em_reverse, 3.0, 0.25, 0.3),
]:
    add(
        f"reverse_step: {type(sde_).__name__}, {f_.__name__}, stochasticity {lam_}",
        lambda s=sde_, f=f_, m=m_, v=v_, lam=lam_: c.check_reverse_step(
            functools.partial(f, s, m, v, lam), s, m, v, stochasticity=lam
        ),
    )


def bent_score(x, t):
    return -np.tanh(x) / (1 + t) + 0.1 * np.cos(x)


def euler_loop(sde, lam, corrections, snr, x, times, noise):
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        h = s - t
        g = float(sde.diffusion(t))
        z = noise[i] if corrections == 0 else noise[i][0]
        x = (
            x
            + (float(sde.rate(t)) * x - 0.5 * (1 + lam**2) * g**2 * bent_score(x, t)) * h
            + lam * g * math.sqrt(-h) * z
        )
        for j in range(corrections):
            step = 2 * (snr * float(sde.std(s))) ** 2
            x = x + step * bent_score(x, s) + math.sqrt(2 * step) * noise[i][1 + j]
    return x


def euler_reduce(sde, lam, x, times, noise):
    def step(x, item):
        t, s, z = item
        beta = float(sde.diffusion(t)) ** 2
        f = np.asarray(sde.drift(x, t)) - beta * bent_score(x, t) * (0.5 + 0.5 * lam**2)
        return x - (t - s) * f + lam * np.sqrt(beta * (t - s)) * z

    return functools.reduce(step, zip(times[:-1], times[1:], noise, strict=True), x)


TIMES = np.linspace(1.0, 1e-3, 11)
for sde_, f_, times_, options_ in [
    (VP(), euler_loop, TIMES, {}),
    (VE(0.1, 5.0), euler_loop, TIMES**2, {"stochasticity": 0.0}),
    (SubVP(), euler_reduce, np.array([0.9, 0.5, 0.45]), {"stochasticity": 0.5}),
    (VP(0.1, 4.0), euler_loop, TIMES[:6], {"n_corrections": 2, "snr": 0.1}),
    (c.EDM(3.0), euler_reduce, np.array([3.0, 2.0]), {}),
]:
    args_ = (sde_, options_.get("stochasticity", 1.0), options_.get("n_corrections", 0), options_.get("snr", 0.16))
    add(
        f"reverse_sampler: {type(sde_).__name__}, {f_.__name__}, {len(times_) - 1} steps, {options_}",
        lambda f=f_, a=args_, s=sde_, t=times_, o=options_: c.check_reverse_sampler(
            functools.partial(f, *(a if f is euler_loop else a[:2])), bent_score, s, t, **o
        ),
    )


def heun_loop(sde, x, times):
    def slope(x, t):
        return float(sde.rate(t)) * x - 0.5 * float(sde.diffusion(t)) ** 2 * bent_score(x, t)

    for t, s in itertools.pairwise(times):
        d = slope(x, t)
        x = x + (s - t) * (0.5 * d + 0.5 * slope(x + (s - t) * d, s))
    return x


def heun_recursive(sde, x, times):
    if len(times) == 1:
        return x
    t, s = times[:2]
    first = sde.drift(x, t) - sde.diffusion(t) ** 2 / 2 * bent_score(x, t)
    end = x + (s - t) * first
    second = sde.drift(end, s) - sde.diffusion(s) ** 2 / 2 * bent_score(end, s)
    return heun_recursive(sde, (end + x + (s - t) * second) / 2, times[1:])


for sde_, f_, times_ in [
    (VP(0.1, 4.0), heun_loop, TIMES),
    (VE(0.1, 3.0), heun_recursive, TIMES[:4]),
    (c.EDM(2.0), heun_loop, np.array([2.0, 1.2, 0.1])),
    (SubVP(0.2, 3.0), heun_recursive, np.array([1.0, 0.2])),
]:
    add(
        f"heun: {type(sde_).__name__}, {f_.__name__}, {len(times_) - 1} steps",
        lambda f=f_, s=sde_, t=times_: c.check_heun(functools.partial(f, s), bent_score, s, t),
    )


def langevin(sde, v, snr, x, t, z):
    d = 2 * (snr * np.asarray(sde.std(t))) ** 2
    return x - d * x / v + np.sqrt(2 * d) * z


def langevin_song(sde, v, snr, x, t, z):
    """√(2δ) = 2 snr std."""
    a = 2 * snr * float(sde.std(t))
    return (1 - 0.5 * a**2 / np.asarray(v)) * x + a * z


for sde_, f_, v_, snr_ in [
    (VP(), langevin, 1.0, 0.16),
    (VE(0.01, 50.0), langevin_song, np.array([1.0, 4.0, 9.0]), 0.01),
    (SubVP(), langevin, np.array([0.1, 0.2, 0.3]), 0.3),
    (c.EDM(), langevin_song, 1e4, 0.5),
]:
    add(
        f"langevin_step: {type(sde_).__name__}, {f_.__name__}, snr {snr_}",
        lambda f=f_, s=sde_, v=v_, snr=snr_: c.check_langevin_step(functools.partial(f, s, v, snr), s, v, snr),
    )


def matching_case(denoising, implicit, sliced, D, scale, std, seed):
    w = 0.2 * rng(seed).standard_normal((D, D))
    return c.check_score_matching(
        denoising, implicit, sliced, law_of(2, D, seed), scale, std,
        lambda x: np.tanh(x @ w) - 0.5 * x,
        lambda x: ((1 - np.tanh(x @ w) ** 2) * np.diag(w)).sum(1) - 0.5 * D,
    )  # fmt: skip


add(
    "score_matching: sums, v·s squared, D = 1",
    lambda: matching_case(
        lambda s, e, std: ((s + e / std) ** 2).sum(1),
        lambda s, d: (s**2).sum(1) + 2 * d,
        lambda s, v, j: (v * s).sum(1) ** 2 + 2 * (v * j).sum(1),
        1,
        0.8,
        0.6,
        0,
    ),
)
add(
    "score_matching: variance reduced, D = 2",
    lambda: matching_case(
        lambda s, e, std: np.linalg.norm(s * std + e, axis=1) ** 2 / std**2,
        lambda s, d: np.einsum("nd,nd->n", s, s) + 2 * d,
        lambda s, v, j: np.einsum("nd,nd->n", s, s) + 2 * np.einsum("nd,nd->n", v, j),
        2,
        0.3,
        0.9,
        1,
    ),
)
add(
    "score_matching: expanded squares, lists",
    lambda: matching_case(
        lambda s, e, std: [a @ a + 2 * (a @ b) / std + b @ b / std**2 for a, b in zip(s, e, strict=True)],
        lambda s, d: [a @ a + 2 * b for a, b in zip(s, d, strict=True)],
        lambda s, v, j: [(a @ b) ** 2 + 2 * (b @ k) for a, b, k in zip(s, v, j, strict=True)],
        1,
        1.0,
        2.0,
        2,
    ),
)


def continuous_case(sde, t_min, slope, D, how, size=1.0):
    T = sde.horizon
    (a, b), (a0, b0) = (tuple(map(float, sde.marginal(t))) for t in (T, t_min))
    width = 2 * math.log(a0 / b0) - 2 * math.log(a / b)

    def prior(x0):
        if how == "closed":
            return 0.5 * (a / b) ** 2 * (x0**2).sum(1)
        return [gaussian_kl_solve(a * r, b * b * np.eye(D), np.zeros(D), b * b * np.eye(D)) for r in x0]

    def diffusion(x0, t, noise):
        s, d = (np.asarray(v)[:, None] for v in sde.marginal(t))
        return width / 2 * ((noise - slope * (s * x0 + d * noise)) ** 2).sum(1)

    def reconstruction(x0, noise):
        ratio = b0 / a0
        if how == "closed":
            return np.full(len(x0), D * (0.5 + math.log(ratio) + 0.5 * LOG_TAU))
        return normal_nll(x0, x0 + ratio * noise, np.full(D, ratio**2))

    return c.check_continuous_bound(
        prior, diffusion, reconstruction, sde, t_min, slope, size * rng(0).standard_normal((3, D))
    )


for sde_, t_, slope_, D_, how_ in [
    (VP(), 1e-3, 0.5, 2, "closed"),
    (SubVP(0.1, 6.0, 2.0), 0.01, 0.9, 5, "drawn"),
    (VE(0.01, 50.0), 1e-2, 0.01, 1, "drawn"),
    (VP(0.5, 5.0, 3.0), 0.1, 0.0, 3, "closed"),
]:
    add(
        f"continuous_bound: {type(sde_).__name__}, {how_}, D = {D_}, slope {slope_}",
        lambda s=sde_, t=t_, k=slope_, D=D_, h=how_: continuous_case(s, t, k, D, h),
    )


def divergence_case(D, std, seed, how):
    w = rng(seed).standard_normal((D, D)) / math.sqrt(D)

    def eps_hat(x):
        return np.sin(x @ w) + 0.3 * x

    def score_and_divergence(x, probes):
        c_ = np.cos(x @ w)  # Jacobian of sin(x w)_j by x_i is c_j w_ij
        s = -eps_hat(x) / std
        if probes is None:
            if how == "trace":
                return s, -((c_ * np.diag(w)).sum(1) + 0.3 * D) / std
            return s, [-np.trace(row * w + 0.3 * np.eye(D)) / std for row in c_]
        return s, np.mean([-((v @ w * c_ + 0.3 * v) * v).sum(1) / std for v in probes], axis=0)

    return c.check_divergence(
        score_and_divergence, eps_hat, std, rng(1).standard_normal((3, D)), np.sign(rng(2).standard_normal((4, 3, D)))
    )


for D_, std_, how_ in [(1, 1.0, "trace"), (16, 0.05, "rows"), (3, 30.0, "trace")]:
    add(f"divergence: {how_}, D = {D_}, std {std_}", lambda D=D_, std=std_, h=how_: divergence_case(D, std, 5, h))


def gl(lo, hi, n, panels=1):
    u, w = np.polynomial.legendre.leggauss(n)
    edges = np.linspace(lo, hi, panels + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + u)).ravel(), (half * w).ravel()


def kl_bound_gl(sde, error, prior):
    t, w = gl(0, sde.horizon, 60, 6)
    return prior + 0.5 * math.fsum(
        a * float(sde.diffusion(s)) ** 2 * float(error(s)) for s, a in zip(t, w, strict=True)
    )


def kl_bound_quad(sde, error, prior):
    return (
        prior
        + integrate.quad(
            lambda t: 0.5 * float(sde.diffusion(t)) ** 2 * float(error(t)),
            0,
            sde.horizon,
            epsabs=1e-12,
            epsrel=1e-12,
            limit=400,
        )[0]
    )


def kl_bound_mean(sde, error, prior):
    """As an expectation over t ~ U(0, T), times T."""
    u, w = gl(0, 1, 64, 6)
    return (
        sde.horizon * np.dot(w, [0.5 * float(sde.diffusion(t)) ** 2 * float(error(t)) for t in sde.horizon * u]) + prior
    )


for sde_, f_, D_ in [
    (VP(0.1, 3.0, 2.0), kl_bound_gl, 2),
    (VP(0.5, 4.0, 0.5), kl_bound_quad, 1),
    (SubVP(0.2, 2.0, 3.0), kl_bound_mean, 3),
]:
    add(
        f"kl_bound: {type(sde_).__name__}, {f_.__name__}, D = {D_}",
        lambda s=sde_, f=f_, D=D_: c.check_kl_bound(
            functools.partial(f, s), s, np.zeros(D), SPD[D] + np.eye(D), 0.3 * np.ones(D), 1.5 * np.eye(D)
        ),
    )


def bound_for_one(sde, n_time, score_and_divergence, prior_log_prob, x):
    """Expectations over x_t given x by the trapezoid rule, in one dimension."""
    z = np.linspace(-9, 9, 181)
    p = stats.norm.pdf(z) * (z[1] - z[0])

    def expect(f, t):
        a, b = (float(v) for v in sde.marginal(t))
        nodes = (a * x + b * z).reshape(-1, 1)
        return np.asarray(f(nodes)).reshape(len(x), len(z)) @ p

    total = expect(prior_log_prob, sde.horizon)
    for t, w in zip(*gl(0, sde.horizon, n_time, 3), strict=True):
        g2, f = float(sde.diffusion(t)) ** 2, float(sde.rate(t))

        def integrand(y, t=t, g2=g2, f=f):
            s, d = score_and_divergence(y, t)
            return g2 * ((np.asarray(s) ** 2).sum(1) + 2 * np.asarray(d)) - 2 * f

        total = total - 0.5 * w * expect(integrand, t)
    return total


for sde_, K_ in [(VP(0.1, 3.0, 2.0), 2), (VP(0.5, 2.0, 1.0), 1), (SubVP(0.5, 3.0, 1.5), 2)]:
    add(
        f"log_prob_bound: {type(sde_).__name__}, K = {K_}, horizon {sde_.horizon}",
        lambda s=sde_, K=K_: c.check_log_prob_bound(
            functools.partial(bound_for_one, s, 40), s, law_of(K, 1, 0), np.array([[0.3], [-1.2]])
        ),
    )


def flow_density(sde, law, x):
    """Along the probability flow with every row integrated alone; the divergence by the Jacobian of the score."""
    out = []
    for row in x:

        def slope(t, y, row=row):
            a, b = (float(v) for v in sde.marginal(t))
            p = Diffused(law).at(a, b)
            f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2
            point = y[None, :-1]
            trace = np.trace(p.score_jacobian(point)[0])
            return np.r_[f * y[:-1] - 0.5 * g2 * score_precision(p, point)[0], len(row) * f - 0.5 * g2 * trace]

        run = integrate.solve_ivp(slope, (0.0, sde.horizon), np.r_[row, 0.0], method="DOP853", rtol=1e-11, atol=1e-12)
        end = Diffused(law).at(*(float(v) for v in sde.marginal(sde.horizon)))
        out.append(log_prob_of(log_joint_cholesky, end, run.y[None, :-1, -1])[0] + run.y[-1, -1])
    return np.array(out)


for sde_, K_, D_ in [(VP(0.1, 3.0), 2, 1), (SubVP(0.5, 3.0), 1, 3), (VP(0.5, 1.0, 2.0), 2, 2)]:
    add(
        f"probability_flow_likelihood: {type(sde_).__name__}, K, D = {K_, D_}",
        lambda s=sde_, K=K_, D=D_: c.check_probability_flow_likelihood(
            functools.partial(flow_density, s, law_of(K, D, 3)), law_of(K, D, 3), points(2, D, 1), sde=s
        ),
        slow=True,
    )


def affine_of(score, D, t=0.5):
    zero = np.asarray(score(np.zeros((1, D)), t))[0]
    slope = np.asarray(score(np.eye(D), t)) - zero
    return zero, slope


def reverse_moments_closed(B, D, score):
    kappa, slope = affine_of(score, D)
    rate = -0.5 - slope[0, 0]  # −(½ + s'): with s' = −(1 + δ) it is ½ + δ
    decay = math.exp(-rate * B)
    mean = kappa * (1 - decay) / rate
    return mean, (decay**2 + (1 - decay**2) / (2 * rate)) * np.eye(D)


def reverse_moments_expm(B, D, score):
    """Linear equations of the moments, by a matrix exponential (Van Loan)."""
    kappa, slope = affine_of(score, D)
    A = 0.5 * np.eye(D) + slope.T
    big = linalg.expm(B * np.block([[-A, np.eye(D)], [np.zeros((D, D)), A.T]]))
    F = big[D:, D:].T
    grow = linalg.expm(B * np.block([[A, kappa[:, None]], [np.zeros((1, D + 1))]]))
    return grow[:D, D], F @ F.T + F @ big[:D, D:]


def reverse_moments_ode(B, D, score):
    kappa, slope = affine_of(score, D)
    run = integrate.solve_ivp(
        lambda t, y: np.r_[0.5 * y[:D] + y[:D] @ slope + kappa, (1 + 2 * slope[0, 0]) * y[D] + 1],
        (0, B),
        np.r_[np.zeros(D), 1.0],
        method="DOP853",
        rtol=1e-12,
        atol=1e-13,
    )
    return run.y[:D, -1].tolist(), run.y[D, -1] * np.eye(D)


for f_, B_, delta_, D_ in [
    (reverse_moments_closed, 10.0, 0.5, 2),
    (reverse_moments_expm, 2.0, 0.1, 3),
    (reverse_moments_ode, 5.0, 1.0, 1),
    (reverse_moments_closed, 0.01, 3.0, 16),
]:
    add(
        f"reverse_law: {f_.__name__}, B = {B_}, delta = {delta_}, D = {D_}",
        lambda f=f_, B=B_, d=delta_, D=D_: c.check_reverse_law(functools.partial(f, B, D), B, d),
    )

# ---------------------------------------------------------------- networks and training


def layers_of(sizes, seed, size=1.0):
    r = rng(seed)
    return [
        (size * r.standard_normal((m, n)) / math.sqrt(m), 0.1 * r.standard_normal(n))
        for m, n in itertools.pairwise(sizes)
    ]


ACTIVATIONS = {
    "silu": lambda z: z * special.expit(z),
    "tanh": np.tanh,
    "identity": lambda z: z,
    "sigmoid": special.expit,
    "relu": lambda z: np.where(z > 0, z, 0),
    "gelu": lambda z: z * special.ndtr(z),
}


def mlp_loop(layers, name, x):
    h = x
    for i, (w, b) in enumerate(layers):
        h = np.dot(h, w) + b
        if i < len(layers) - 1:
            h = ACTIVATIONS[name](h)
    return h


def mlp_columns(layers, name, x):
    """Column vectors and transposed weights, as nn.Linear."""
    h = np.transpose(x)
    *hidden, (w, b) = layers
    for v, a in hidden:
        h = ACTIVATIONS[name](v.T @ h + a[:, None])
    return (w.T @ h + b[:, None]).T


def mlp_homogeneous(layers, name, x):
    def affine(h, layer):
        return np.hstack([h, np.ones((len(h), 1))]) @ np.vstack(layer)

    return affine(functools.reduce(lambda h, layer: ACTIVATIONS[name](affine(h, layer)), layers[:-1], x), layers[-1])


for f_, sizes_, name_ in [
    (mlp_loop, (3, 16, 2), "silu"),
    (mlp_columns, (1, 8, 8, 8, 1), "tanh"),
    (mlp_homogeneous, (64, 32, 5), "sigmoid"),
    (mlp_loop, (2, 3), "identity"),
    (mlp_columns, (4, 7, 7, 3), "relu"),
    (mlp_homogeneous, (2, 20, 2), "gelu"),
]:
    add(
        f"mlp: {f_.__name__}, {name_}, sizes {sizes_}",
        lambda f=f_, s=sizes_, n=name_: c.check_mlp(
            functools.partial(f, layers_of(s, 0), n), layers_of(s, 0), rng(1).standard_normal((4, s[0])), n
        ),
    )


def jvp_tanh(layers, x, v):
    for i, (w, b) in enumerate(layers):
        x, v = x @ w + b, v @ w
        if i < len(layers) - 1:
            x = np.tanh(x)
            v = (1 - x**2) * v
    return x, v


def jvp_complex(layers, x, v):
    y = mlp_loop(layers, "tanh", x + 1e-30j * v)
    return y.real, y.imag / 1e-30


def jvp_jacobian(layers, x, v):
    (w, b), (u, a) = layers
    h = np.tanh(x @ w + b)
    J = np.einsum("im,nm,mo->nio", w, 1 - h**2, u)
    return h @ u + a, np.einsum("ni,nio->no", v, J)


for f_, sizes_ in [(jvp_tanh, (3, 16, 16, 2)), (jvp_complex, (1, 8, 1)), (jvp_jacobian, (16, 8, 4))]:
    add(
        f"jvp: {f_.__name__}, sizes {sizes_}",
        lambda f=f_, s=sizes_: c.check_jvp(
            functools.partial(f, layers_of(s, 2)),
            functools.partial(mlp_loop, layers_of(s, 2), "tanh"),
            rng(3).standard_normal((4, s[0])),
            rng(4).standard_normal((4, s[0])),
        ),
    )


def silu_tanh(z):
    return 0.5 * z * (1 + np.tanh(0.5 * z))


def silu_slope_expit(z):
    s = special.expit(z)
    return z * s, s + z * s * special.expit(-z)


def silu_in_place(z):
    s = special.expit(z)
    z *= s
    return z


def silu_branches(z):
    e = np.exp(-np.abs(z))
    s = np.where(z >= 0, 1 / (1 + e), e / (1 + e))
    other = np.where(z >= 0, e / (1 + e), 1 / (1 + e))
    return (z * s).tolist(), (s * (1 + z * other)).tolist()


add("activation: tanh and expit", lambda: c.check_activation(silu_tanh, silu_slope_expit, np.linspace(-8, 8, 33)))
add(
    "activation: branches, huge arguments",
    lambda: c.check_activation(
        lambda z: z * special.expit(z), silu_branches, np.array([-1e4, -745.0, -30.0, 0.0, 1e-300, 30.0, 745.0, 1e4])
    ),
)
add("activation: in place, one number", lambda: c.check_activation(silu_in_place, silu_slope_expit, np.array([0.3])))
add(
    "activation: float32",
    lambda: c.check_activation(
        lambda z: silu_in_place(z.astype(np.float32)),
        lambda z: silu_slope_expit(z.astype(np.float32)),
        rng(0).standard_normal(50),
    ).at(1e-5),
)


def waves_of(log_snr, n):
    frequency = np.geomspace(0.125, 2.0, n) if n > 1 else np.full(n, 0.125)
    angle = np.outer(log_snr, frequency)
    return np.hstack([np.cos(angle), np.sin(angle)])


def noise_network(mlp, n_time, labels, octaves, coefficients, x, scale, std):
    N, D = x.shape
    scale, std = np.broadcast_to(scale, N)[:, None], np.broadcast_to(std, N)[:, None]
    r = np.hypot(scale, std)
    y = x / r
    angle = (y[..., None] * 2.0 ** np.arange(1, octaves + 1)).reshape(N, D * octaves)
    inputs = [y, np.cos(angle), np.sin(angle), waves_of(2 * np.log(scale / std)[:, 0], n_time), labels]
    skip, gain = (std / r**2, scale / r) if coefficients is None else (np.asarray(v)[:, None] for v in coefficients)
    return skip * x + gain * mlp(np.concatenate(inputs, axis=1))


def network_case(D, n_time, classes, octaves, seed, coefficients=False, N=5):
    r = rng(seed)
    labels = np.eye(classes)[r.integers(0, classes, N)] if classes else np.zeros((N, 0))
    scale, std = r.uniform(0.2, 1, N), r.uniform(0.2, 2, N)
    pair = (r.standard_normal(N), r.standard_normal(N)) if coefficients else None
    mlp = functools.partial(mlp_loop, layers_of((D * (1 + 2 * octaves) + 2 * n_time + classes, 8, D), seed), "tanh")
    run = functools.partial(noise_network, mlp, n_time, labels, octaves, pair)
    return c.check_noise_network(run, mlp, r.standard_normal((N, D)), scale, std, n_time, labels, octaves, pair)


for p_ in [(2, 8, 0, 0), (1, 1, 3, 2), (8, 4, 2, 1)]:
    add(f"noise_network: D, times, classes, octaves = {p_}", lambda p=p_: network_case(*p, 0))
add("noise_network: own coefficients", lambda: network_case(3, 2, 2, 0, 1, True))


def categorical_parts(mlp, x, scale, std, histograms, covariance, n_time, labels):
    D, L = histograms.shape
    level = np.linspace(-1, 1, L)
    a, b = scale[:, None], std[:, None]
    mean = histograms @ level
    own = np.log(histograms) + stats.norm.logpdf(x[..., None], a[..., None] * level, b[..., None])
    own_mean = special.softmax(own, axis=-1) @ level - mean
    centred = x - a * mean
    wiener = np.stack(
        [
            s * covariance @ np.linalg.solve(s * s * covariance + d * d * np.eye(D), y)
            for s, d, y in zip(scale, std, centred, strict=True)
        ]
    )
    inputs = np.hstack(
        [centred / np.sqrt(a**2 + b**2), own_mean, wiener, waves_of(2 * np.log(scale / std), n_time), labels]
    )
    factor = np.asarray(mlp(inputs)).reshape(len(x), D, 4)
    basis = np.vstack([np.arange(L) == 0, np.arange(L) == L - 1, level, level**2]).astype(float)
    law = special.softmax(own + factor @ basis, axis=-1)
    return law, (x - a * (law @ level)) / b


def categorical_case(D, L, n_time, classes, seed, N=4):
    r = rng(seed)
    labels = np.eye(classes)[r.integers(0, classes, N)] if classes else np.zeros((N, 0))
    histograms = simplex(seed, D, L, power=3.0)
    mlp = functools.partial(mlp_loop, layers_of((3 * D + 2 * n_time + classes, 8, 4 * D), seed), "silu")
    problem = (
        r.standard_normal((N, D)),
        r.uniform(0.3, 1, N),
        r.uniform(0.3, 1, N),
        histograms,
        0.2 * SPD[D],
        n_time,
        labels,
    )
    law, eps = categorical_parts(mlp, *problem)
    return c.check_categorical_denoiser(lambda: law, lambda: eps, mlp, *problem)


for p_ in [(2, 3, 2, 0), (1, 2, 1, 2), (5, 17, 4, 3)]:
    add(f"categorical_denoiser: D, levels, times, classes = {p_}", lambda p=p_: categorical_case(*p, 0))


def draw_cumsum(law, u):
    return (np.cumsum(law, axis=-1) < u[..., None]).sum(-1).clip(max=law.shape[-1] - 1)


def draw_search(law, u):
    N, D, L = law.shape
    return [[min(int(np.searchsorted(np.cumsum(law[i, j]), u[i, j])), L - 1) for j in range(D)] for i in range(N)]


def draw_from_above(law, u):
    """Levels from the highest: the complement of u, so that another order of the same law."""
    tail = np.cumsum(law[..., ::-1], axis=-1)
    k = np.minimum((tail < u[..., None]).sum(-1), law.shape[-1] - 1)
    return law.shape[-1] - 1 - k


for f_, N_, D_, L_, n_ in [(draw_cumsum, 3, 2, 5, 500), (draw_search, 2, 1, 2, 300), (draw_from_above, 1, 8, 17, 1000)]:
    add(
        f"categorical_draw: {f_.__name__}, {L_} levels",
        lambda f=f_, N=N_, D=D_, L=L_, n=n_: c.check_categorical_draw(
            functools.partial(f, simplex(0, N, D, L)), simplex(0, N, D, L), n_uniform=n
        ),
    )


def ridge_loss(X, y, p):
    return 0.5 * ((X @ p - y) ** 2).mean() + 0.05 * p @ p


def ridge_gradient(X, y, p):
    return X.T @ (X @ p - y) / len(y) + 0.1 * p


def logistic_losses(X, y, p):
    return np.logaddexp(0, X @ p) - y * (X @ p)


def logistic_gradient(X, y, weight, p):
    return logistic_losses(X, y, p), X.T @ (weight * (special.expit(X @ p) - y)) / len(y)


def regression(N, P, seed):
    r = rng(seed)
    return r.standard_normal((N, P)), (r.uniform(size=N) > 0.5).astype(float)


add(
    "gradient: ridge, unit vectors",
    lambda: c.check_gradient(
        functools.partial(ridge_loss, *regression(20, 5, 0)),
        functools.partial(ridge_gradient, *regression(20, 5, 0)),
        rng(1).standard_normal(5),
        np.eye(5),
    ),
)
add(
    "gradient: P = 1, own h",
    lambda: c.check_gradient(
        lambda p: math.exp(p[0]), lambda p: [math.exp(p[0])], np.array([0.3]), np.array([[1.0]]), h=0.01
    ),
)
add(
    "gradient: logistic, dense directions",
    lambda: c.check_gradient(
        lambda p: logistic_losses(*regression(30, 64, 2), p).mean(),
        lambda p: logistic_gradient(*regression(30, 64, 2), 1.0, p)[1],
        rng(3).standard_normal(64),
        rng(4).standard_normal((3, 64)) / 8,
    ),
)
add(
    "gradient: huge loss",
    lambda: c.check_gradient(
        lambda p: 1e12 * np.sin(p).sum(), lambda p: 1e12 * np.cos(p), rng(5).standard_normal(4), np.eye(4)
    ),
)


def huber(e):
    return (np.sqrt(1 + e**2) - 1).sum(1)


add(
    "loss_gradient: squares",
    lambda: c.check_loss_gradient(
        lambda a: (np.einsum("nd,nd->n", a - 0.5, a - 0.5), 2 * a - 1),
        lambda a: ((a - 0.5) ** 2).sum(1),
        rng(0).standard_normal((5, 3)),
    ),
)
add(
    "loss_gradient: pseudo-Huber, an equation named",
    lambda: c.check_loss_gradient(
        lambda a: (huber(a).tolist(), a / np.hypot(1, a)), huber, rng(1).standard_normal((4, 2)), equation="(14)"
    ),
)
add(
    "loss_gradient: cross-entropy of logits, mean over D",
    lambda: c.check_loss_gradient(
        lambda a: (np.logaddexp(0, a).mean(1) - 0.3 * a.mean(1), (special.expit(a) - 0.3) / a.shape[1]),
        lambda a: (np.maximum(a, 0) + np.log1p(np.exp(-abs(a))) - 0.3 * a).mean(1),
        rng(2).standard_normal((3, 8)),
    ),
)


for N_, P_, weighted_ in [(12, 3, False), (5, 16, True), (1, 2, False)]:
    add(
        f"training_step: logistic, N = {N_}, P = {P_}, weights {weighted_}",
        lambda N=N_, P=P_, g=weighted_: (
            lambda w: c.check_training_step(
                lambda p: logistic_gradient(*regression(N, P, 6), w, p),
                functools.partial(logistic_losses, *regression(N, P, 6)),
                0.5 + rng(7).uniform(size=P),
                weight=w,
                equation="(14)",
            )
        )(rng(8).uniform(0.5, 2, N) if g else 1.0),
    )


class AdamState:
    """Adam with running powers of the betas, as in a textbook's class."""

    def __init__(self, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
        self.lr, self.b1, self.b2, self.eps, self.decay = lr, b1, b2, eps, decay
        self.m = self.v = 0.0
        self.p1 = self.p2 = 1.0

    def step(self, p, g, lr=None):
        lr = self.lr if lr is None else lr
        self.p1, self.p2 = self.p1 * self.b1, self.p2 * self.b2
        self.m = self.m + (1 - self.b1) * (g - self.m)
        self.v = self.v + (1 - self.b2) * (g * g - self.v)
        return p - lr * (self.m / (1 - self.p1) / (np.sqrt(self.v / (1 - self.p2)) + self.eps) + self.decay * p)

    def run(self, p, gradients):
        fresh = AdamState(self.lr, self.b1, self.b2, self.eps, self.decay)
        return list(itertools.accumulate(gradients, fresh.step, initial=p))[1:]


def adam_sums(lr, b1, b2, eps, p, gradients):
    """Moments as explicit weighted sums over all gradients so far."""
    g, out = np.asarray(gradients), []
    for n in range(1, len(g) + 1):
        w1, w2 = b1 ** np.arange(n - 1, -1, -1), b2 ** np.arange(n - 1, -1, -1)
        m, v = w1 @ g[:n] / w1.sum(), w2 @ g[:n] ** 2 / w2.sum()
        p = p - lr * m / (np.sqrt(v) + eps)
        out.append(p)
    return np.array(out)


def adam_pytorch(lr, b1, b2, eps, decay, p, gradients):
    m, v, out, p = np.zeros_like(p), np.zeros_like(p), [], p.copy()
    for t, g in enumerate(gradients, 1):
        p = p * (1 - lr * decay)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - lr / (1 - b1**t) * m / (np.sqrt(v) / math.sqrt(1 - b2**t) + eps)
        out.append(p)
    return out


def gradients_of(n, P, size=1.0):
    return rng(0).standard_normal(P), size * rng(1).standard_normal((n, P))


add("adam: a class, defaults", lambda: c.check_adam(AdamState().run, *gradients_of(20, 5)))
add(
    "adam: explicit sums, other options",
    lambda: c.check_adam(
        functools.partial(adam_sums, 0.1, 0.5, 0.9, 1e-3),
        *gradients_of(15, 3),
        learning_rate=0.1,
        beta1=0.5,
        beta2=0.9,
        epsilon=1e-3,
    ),
)
add(
    "adam: AdamW as PyTorch, tiny gradients",
    lambda: c.check_adam(
        functools.partial(adam_pytorch, 0.01, 0.9, 0.99, 1e-8, 0.1),
        *gradients_of(10, 4, 1e-6),
        0.01,
        0.9,
        0.99,
        1e-8,
        weight_decay=0.1,
    ),
)
add(
    "adam: float32, its tolerance",
    lambda: c.check_adam(
        lambda p, g: adam_pytorch(np.float32(1e-3), 0.9, 0.999, 1e-8, 0.0, *single(p, g)),
        *gradients_of(10, 6),
        tolerance=1e-5,
    ),
)


def rate_of(n, lr, warmup, step):
    if step < warmup:
        return lr * (step + 1) / warmup
    return 0.5 * lr * (1 + math.cos(math.pi * (step - warmup) / (n - warmup)))


def rate_table(n, lr, warmup):
    up = np.arange(1, warmup + 1) / max(warmup, 1)
    down = np.cos(np.pi / 2 * np.arange(n - warmup) / (n - warmup)) ** 2
    return lr * np.concatenate([up, down])


for how_, n_, lr_, warm_ in [(False, 100, 1e-3, 10), (True, 50, 3.0, 0), (True, 1000, 1e-8, 999), (False, 1, 0.1, 0)]:
    add(
        f"learning_rate: {'table' if how_ else 'function'}, {n_} steps, warm-up {warm_}",
        lambda how=how_, n=n_, lr=lr_, w=warm_: c.check_learning_rate(
            rate_table(n, lr, w).__getitem__ if how else functools.partial(rate_of, n, lr, w), n, lr, w
        ),
    )


def average_loop(decay, start, parameters):
    out = []
    for k, p in enumerate(parameters, 1):
        d = min(decay, (1 + k) / (10 + k))
        start = d * start + (1 - d) * p
        out.append(start)
    return out


def average_lerp(decay, start, parameters):
    ks = np.arange(1, len(parameters) + 1)
    keep = np.minimum(decay, (1 + ks) / (10 + ks))
    steps = itertools.accumulate(
        zip(keep, parameters, strict=True), lambda a, item: a + (1 - item[0]) * (item[1] - a), initial=start
    )
    return np.array(list(steps)[1:])


for f_, n_, P_, decay_ in [
    (average_loop, 30, 4, 0.9999),
    (average_lerp, 100, 2, 0.5),
    (average_loop, 1, 1, 0.99),
    (average_lerp, 20, 3, 0.0),
]:
    add(
        f"moving_average: {f_.__name__}, {n_} steps, decay {decay_}",
        lambda f=f_, n=n_, P=P_, d=decay_: c.check_moving_average(
            functools.partial(f, d), rng(0).standard_normal(P), rng(1).standard_normal((n, P)), d
        ),
    )


def train_logistic(N, P, n, lr, warmup, decay, ema, start):
    adam, p, losses, path = AdamState(decay=decay), np.array(start), [], []
    for k in range(n):
        X, y = regression(N, P, 100 + k)
        value, grad = logistic_gradient(X, y, 1.0, p)
        losses.append(value.mean())
        p = adam.step(p, grad, rate_of(n, 1.0, warmup, k) * np.asarray(lr))
        path.append(p)
    return losses, p, average_lerp(ema or 0.0, np.asarray(start), np.array(path))[-1]


def training_case(N, P, n, lr, warmup=0, decay=0.0, ema=None, equation="(29)"):
    return c.check_training(
        functools.partial(train_logistic, N, P, n, lr, warmup, decay, ema),
        lambda p, k: logistic_losses(*regression(N, P, 100 + k), p).mean(),
        rng(9).standard_normal(P),
        n,
        lr,
        warmup,
        decay,
        ema,
        equation,
    )


add("training: 5 steps", lambda: training_case(10, 3, 5, 0.01))
add("training: warm-up, weight decay, average", lambda: training_case(8, 2, 12, 0.05, 4, 0.1, 0.99, "(14)"))
add(
    "training: a rate for each parameter",
    lambda: training_case(6, 4, 6, np.array([0.1, 0.01, 0.001, 0.2]), 2, 0.0, 0.5),
)
add("training: one step", lambda: training_case(5, 1, 1, 0.1, ema=0.9))

# ---------------------------------------------------------------- beyond the deck


def discrete_elbo(s, x0, eps_hat, sigma2, n):
    """Every term over x_t given x_0, by the trapezoid rule in two dimensions."""
    line = np.linspace(-8.5, 8.5, 86)
    z = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    p = stats.norm.pdf(z).prod(1) * (line[1] - line[0]) ** 2
    out = []
    for row in np.asarray(x0):
        x = np.repeat(row[None], len(z), axis=0)
        total = prior_kl(s, row[None])[0]
        for t in range(1, s.T + 1):
            x_t = s.alpha_bar[t] * x + s.beta_bar[t] * z
            if t == 1:
                mean = reverse_mean(s, 1, x_t, eps_hat(x_t, 1))
                total -= p @ log_bin(n, x, mean, math.sqrt(sigma2[1])).sum(1)
            else:
                total += p @ step_kl_noise(s, sigma2, t, x, x_t, eps_hat)
        out.append(-total)
    return np.array(out)


for n_ in (2, 3, 5):
    add(
        f"discrete_bound: trapezoid rule, {n_} levels", lambda n=n_: c.check_discrete_bound(discrete_elbo, n), slow=True
    )


def sampler_density(s, spread, eps_hat, sigma2):
    """Mean and variance of N(0, 1) under affine steps; the network is read at 0 and 1."""
    m, v = 0.0, 1.0
    for t in range(s.T, 0, -1):
        zero, one = np.asarray(eps_hat(np.array([[0.0], [1.0]]), t)).ravel()
        k = s.beta[t] ** 2 / s.beta_bar[t]
        slope = (1 - k * (one - zero)) / s.alpha[t]
        m, v = slope * m - k * zero / s.alpha[t], slope**2 * v + sigma2[t]
    grid = m + spread * math.sqrt(v) * np.linspace(-1, 1, 4001)
    return grid, stats.norm.pdf(grid, m, math.sqrt(v))


add(
    "data_processing: affine moments, T = 20",
    lambda: c.check_data_processing(functools.partial(sampler_density, LINEAR, 14), LINEAR),
)
add("data_processing: T = 1", lambda: c.check_data_processing(functools.partial(sampler_density, ONE, 14), ONE))
add(
    "data_processing: points (M, 1), T = 12",
    lambda: c.check_data_processing(
        lambda e, v: (lambda g, p: (g[:, None], p))(*sampler_density(RANDOM, 14, e, v)), RANDOM
    ),
)

for f_, K_, D_ in [(score_precision, 2, 2), (score_solve, 3, 3)]:
    add(
        f"conservative_score: {f_.__name__}, K, D = {K_, D_}",
        lambda f=f_, K=K_, D=D_: c.check_conservative_score(functools.partial(f, law_of(K, D, 4)), law_of(K, D, 4)),
    )
add(
    "conservative_score: a ufunc, N(0, I)",
    lambda: c.check_conservative_score(np.negative, Mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])),
)


def dequantisation_cost(n, log_prob, k):
    D = k.shape[1]
    u, w = gl(0, 1, n)
    nodes = np.array(list(itertools.product(u, repeat=D)))
    weights = np.prod(list(itertools.product(w, repeat=D)), axis=1)
    logs = np.asarray(log_prob((k[:, None] + nodes).reshape(-1, D))).reshape(len(k), -1)
    return special.logsumexp(logs, axis=1, b=weights) - logs @ weights


for n_, D_, std_ in [(20, 1, 1.0), (14, 2, 3.0), (12, 3, 10.0)]:
    add(
        f"dequantisation: D = {D_}, std {std_}",
        lambda n=n_, D=D_, s=std_: c.check_dequantisation(
            functools.partial(dequantisation_cost, n), rng(0).standard_normal(D), np.full(D, s)
        ),
    )


def edm_paper(sd, sigma):
    total = sigma**2 + sd**2
    return sd**2 / total, sigma * sd / np.sqrt(total), 1 / np.sqrt(total), total / (sigma * sd) ** 2


def edm_angle(sd, sigma):
    phi = np.arctan2(sigma, sd)
    return np.cos(phi) ** 2, sd * np.sin(phi), np.cos(phi) / sd, (sd * np.sin(phi)) ** -2.0


add("edm_coefficients: paper, 0.5", lambda: c.check_edm_coefficients(functools.partial(edm_paper, 0.5)))
add(
    "edm_coefficients: angle, data of size 20",
    lambda: c.check_edm_coefficients(functools.partial(edm_angle, 20.0), data_std=20.0),
)
add(
    "edm_coefficients: own levels, lists",
    lambda: c.check_edm_coefficients(
        lambda s: [v.tolist() for v in edm_paper(0.1, s)], 0.1, np.array([1e-4, 0.1, 1e4])
    ),
)


def dpm_step(cc, multi, x, now, last, levels, noise):
    (_, b1), (a2, b2) = levels[1:]
    l0, l1, l2 = (math.log(a / b) for a, b in levels)
    h = l2 - l1
    D = now + (now - last) * h / (2 * (l1 - l0)) if multi else now
    mean = b2 / b1 * math.exp(-(cc**2) * h) * x - a2 * math.expm1(-(1 + cc**2) * h) * D
    return mean + b2 * math.sqrt(-math.expm1(-2 * cc**2 * h)) * noise


def ddim_levels(x, now, last, levels, noise):
    (a1, b1), (a2, b2) = levels[1:]
    return a2 * now + b2 * (x - a1 * now) / b1


for cc_, multi_ in [(0.0, True), (1.0, True), (0.5, False)]:
    add(
        f"exponential_step: DPM-Solver++, stochasticity {cc_}, multistep {multi_}",
        lambda k=cc_, m=multi_: c.check_exponential_step(functools.partial(dpm_step, k, m), k, m),
    )
add("exponential_step: DDIM", lambda: c.check_exponential_step(ddim_levels, multistep=False))


def sample_ddim(denoise, x, levels):
    for (a, b), (a2, b2) in itertools.pairwise(levels):
        x0 = denoise(x, a, b)
        x = a2 * x0 + b2 / b * (x - a * x0)
    return x


def sample_heun(denoise, x, levels):
    """Karras: Heun in σ on y = x/scale."""
    sigma, y = levels[:, 1] / levels[:, 0], x / levels[0, 0]
    for i in range(len(levels) - 1):
        h = sigma[i + 1] - sigma[i]
        d = (y - denoise(levels[i, 0] * y, *levels[i])) / sigma[i]
        e = y + h * d
        y = y + h / 2 * (d + (e - denoise(levels[i + 1, 0] * e, *levels[i + 1])) / sigma[i + 1])
    return levels[-1, 0] * y


def sample_dpm2m(denoise, x, levels):
    last = None
    for i in range(len(levels) - 1):
        now = denoise(x, *levels[i])
        triple = levels[[max(i - 1, 0), i, i + 1]]
        x = dpm_step(0.0, last is not None, x, now, last, triple, 0.0)
        last = now
    return x


for f_, order_, options_ in [
    (sample_ddim, 1.0, {}),
    (sample_heun, 2.0, {"n_steps": 60}),
    (sample_dpm2m, 2.0, {}),
    (sample_ddim, 1.0, {"level": lambda u: (math.cos(1.4 * (1 - u) + 0.05), math.sin(1.4 * (1 - u) + 0.05))}),
]:
    add(
        f"flow_order: {f_.__name__}, {', '.join(options_) or 'defaults'}",
        lambda f=f_, q=order_, o=options_: c.check_flow_order(f, law_of(2, 2, 5), q, **o),
    )


def sample_ancestral(denoise, x, levels, noise):
    """The exact posterior of x_s given x_t and x̂_0, at every step."""
    for (a, b), (a2, b2), z in zip(levels[:-1], levels[1:], noise, strict=True):
        keep = a / a2
        var = b**2 - keep**2 * b2**2
        x = (a2 * var * denoise(x, a, b) + keep * b2**2 * x) / b**2 + math.sqrt(var) * b2 / b * z
    return x


def sample_churn(denoise, x, levels, noise):
    """DPM-Solver++ of first order with noise."""
    for i, z in enumerate(noise):
        x = dpm_step(1.0, False, x, denoise(x, *levels[i]), None, levels[[i, i, i + 1]], z)
    return x


add(
    "weak_order: ancestral, D = 2",
    lambda: c.check_weak_order(sample_ancestral, np.array([0.5, -1.0]), SPD[2]),
)
add(
    "weak_order: stochastic DPM-Solver++, D = 1, own level",
    lambda: c.check_weak_order(
        sample_churn, np.array([1.0]), np.array([[0.5]]), 1.0, lambda u: (1.0, 10.0 * (0.01**u)), 30
    ),
)
add(
    "weak_order: deterministic Heun under the same check",
    lambda: c.check_weak_order(
        lambda d, x, levels, noise: sample_heun(d, x, levels), np.zeros(3), SPD[3], order=2.0, n_steps=40
    ),
)


def straight(t):
    return 1 - t, t


def trigonometric(t):
    return np.cos(math.pi * t / 2), np.sin(math.pi * t / 2)


def vp_path(t):
    return np.exp(-0.5 * t * t - 0.1 * t), np.sqrt(-np.expm1(-t * t - 0.2 * t))


def velocity_vp(x0, e, t):
    t = np.asarray(t)[..., None]
    a, b = np.exp(-0.5 * t * t - 0.1 * t), np.sqrt(-np.expm1(-t * t - 0.2 * t))
    rate = t + 0.1  # −f
    return -rate * a * x0 + rate * a * a / b * e


MIDDLE = np.array([0.1, 0.5, 0.9])
add(
    "flow_velocity: rectified flow, D = 2",
    lambda: c.check_flow_velocity(lambda x, e, t: e - x, straight, law_of(2, 2, 6), MIDDLE),
)
add(
    "flow_velocity: trigonometric, D = 1, t is a number",
    lambda: c.check_flow_velocity(
        lambda x, e, t: math.pi / 2 * (math.cos(math.pi / 2 * float(t)) * e - math.sin(math.pi / 2 * float(t)) * x),
        trigonometric,
        law_of(3, 1, 7),
        MIDDLE,
    ),
)
add(
    "flow_velocity: VP, D = 8",
    lambda: c.check_flow_velocity(velocity_vp, vp_path, law_of(2, 8, 8), np.array([0.05, 2.0])),
)


def planck_case(sde, lam, law, times):
    def drift(x, t):
        p = Diffused(law).at(*map(float, sde.marginal(float(t))))
        return sde.drift(x, t) - 0.5 * (1 + lam**2) * float(sde.diffusion(t)) ** 2 * score_precision(p, x)

    return c.check_fokker_planck(
        drift, lambda t: lam * float(sde.diffusion(t)), lambda t: tuple(map(float, sde.marginal(t))), law, times
    )


for sde_, lam_, K_, D_ in [(VP(), 1.0, 2, 2), (VE(0.1, 10.0), 0.0, 3, 1), (SubVP(0.2, 4.0, 2.0), 0.7, 1, 5)]:
    add(
        f"fokker_planck: {type(sde_).__name__}, stochasticity {lam_}, D = {D_}",
        lambda s=sde_, lam=lam_, K=K_, D=D_: planck_case(s, lam, law_of(K, D, 9), np.array([0.1, 0.4, 0.8])),
    )
add(
    "fokker_planck: a straight path and its velocity",
    lambda: c.check_fokker_planck(
        lambda x, t: (x - Diffused(law_of(2, 1, 0)).denoise_kalman(x, 1 - t, t)) / t,
        lambda t: 0.0,
        straight,
        law_of(2, 1, 0),
        MIDDLE,
    ),
)


def grid_over(law, width=11, n=3001):
    sd = np.sqrt(law.covariances[:, 0, 0])
    x = np.linspace((law.means[:, 0] - width * sd).min(), (law.means[:, 0] + width * sd).max(), n)
    return x[:, None], x[1] - x[0]


def kl_rate_grid(sde, p, q, t):
    a, b = (float(v) for v in sde.marginal(t))
    p, q = Diffused(p).at(a, b), Diffused(q).at(a, b)
    x, h = grid_over(p)
    gap = ((score_precision(p, x) - score_precision(q, x)) ** 2).sum(1)
    return -0.5 * float(sde.diffusion(t)) ** 2 * h * (np.exp(log_prob_of(log_joint_cholesky, p, x)) @ gap)


for sde_, K_ in [(VP(), 2), (VE(0.1, 5.0), 1), (SubVP(0.1, 6.0, 2.0), 3)]:
    add(
        f"kl_rate: {type(sde_).__name__}, K = {K_}",
        lambda s=sde_, K=K_: c.check_kl_rate(
            functools.partial(kl_rate_grid, s, law_of(K, 1, 1), law_of(2, 1, 2)),
            s,
            law_of(K, 1, 1),
            law_of(2, 1, 2),
            np.array([0.1, 0.5, 0.9]) * s.horizon,
        ),
    )


def information(n, sde, loss, t_min):
    lam, w = gl(float(sde.log_snr(sde.horizon)), float(sde.log_snr(t_min)), n, 8)
    return 0.5 * sum(a * float(loss(float(sde.time_at(v)))) for v, a in zip(lam, w, strict=True))


add(
    "mutual_information: two processes, two laws",
    lambda: c.check_mutual_information(
        functools.partial(information, 16), [(VP(), 1e-2), (VE(0.01, 20.0), 0.2)], [law_of(2, 1, 3), law_of(1, 1, 4)]
    ).at(1e-8),
)
add(
    "mutual_information: sub-VP, 24 nodes",
    lambda: c.check_mutual_information(
        functools.partial(information, 24), [(SubVP(0.1, 5.0, 2.0), 0.2)], [law_of(2, 1, 5)]
    ),
)


def karras(n, lo, hi, rho):
    return (hi ** (1 / rho) + np.arange(n) / (n - 1) * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho


add("sigma_grid: Karras's formula", lambda: c.check_sigma_grid(karras))
add("sigma_grid: a 0 at the end, rho 1", lambda: c.check_sigma_grid(lambda *a: [*karras(*a), 0.0], rho=1.0))
add(
    "sigma_grid: other levels",
    lambda: c.check_sigma_grid(
        lambda n, lo, hi, r: np.linspace(lo ** (1 / r), hi ** (1 / r), n)[::-1] ** r, 1e-4, 1e3, 3.0
    ),
)


def tilted(law, label, x_t, scale, std, w):
    x0, _ = grid_over(law, 10, 6001)
    joint = log_joint_cholesky(x0, law.weights, law.means, law.covariances)
    log_p = special.logsumexp(joint, axis=1)
    log_y = special.logsumexp(joint, axis=1, b=label) - log_p
    logs = log_p + w * log_y - 0.5 * ((x_t - scale * x0.T) / std) ** 2  # (N, M)
    return (special.softmax(logs, axis=1) @ (scale * x0) - x_t) / std**2


add(
    "tilted_score: one dimension, guidance 3",
    lambda: c.check_tilted_score(
        functools.partial(tilted, law_of(3, 1, 6), np.array([0.9, 0.2, 0.5])),
        law_of(3, 1, 6),
        np.array([0.9, 0.2, 0.5]),
        np.array([[0.9, 0.4], [0.3, 0.95]]),
    ),
)
add(
    "tilted_score: guidance 1.5, K = 2",
    lambda: c.check_tilted_score(
        functools.partial(tilted, law_of(2, 1, 7), np.array([0.99, 0.3])),
        law_of(2, 1, 7),
        np.array([0.99, 0.3]),
        np.array([[1.0, 2.0]]),
        guidance=1.5,
    ),
)


def posterior_covariance(law, x, scale, std):
    """Within and between the components."""
    p = Diffused(law).at(scale, std)
    r = resp_minus_max(x, p.weights, p.means, p.covariances)
    gain = scale * law.covariances @ np.linalg.inv(p.covariances)
    within = law.covariances - scale * gain @ law.covariances
    means = law.means + np.einsum("kij,nkj->nki", gain, x[:, None] - p.means)
    d = means - np.einsum("nk,nki->ni", r, means)[:, None]
    return np.einsum("nk,kij->nij", r, within) + np.einsum("nk,nki,nkj->nij", r, d, d)


def tweedie_hessian(law, x, scale, std):
    p = Diffused(law).at(scale, std)
    return (std / scale) ** 2 * (np.eye(x.shape[1]) + std**2 * p.score_jacobian(x))


for f_, K_, D_ in [(posterior_covariance, 3, 2), (tweedie_hessian, 2, 1), (posterior_covariance, 2, 8)]:
    add(
        f"tweedie_covariance: {f_.__name__}, K, D = {K_, D_}",
        lambda f=f_, K=K_, D=D_: c.check_tweedie_covariance(
            functools.partial(f, law_of(K, D, 8)), law_of(K, D, 8), np.array([[0.9, 0.4], [0.5, 0.8], [1.0, 3.0]])
        ),
    )

# ---------------------------------------------------------------- code that draws its own noise


def q_sample_own(s, t, x0):
    noise = np.random.default_rng(0).standard_normal(np.shape(x0))
    return at(s.alpha_bar, t) * x0 + at(s.beta_bar, t) * noise


def within_noise(f, t, x, noise):
    with c.given_noise(noise):
        return f(t, x)


add(
    "given_noise: forward process that draws its noise",
    lambda: c.check_forward_process(functools.partial(within_noise, functools.partial(q_sample_own, RANDOM)), RANDOM),
)
