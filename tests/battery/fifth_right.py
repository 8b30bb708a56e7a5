"""Fifth battery, right implementations: codings crossed with conventions, precisions, schedules, D and T."""

import itertools
import math

import numpy as np
from scipy.special import erf, expit, log_ndtr, logsumexp, softmax

import scratchgen.conformance as kit
from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from tests.battery.case import Right

CASES: list[Right] = []
F32, F64 = np.float32, np.float64


def add(name, run, slow=False):
    CASES.append(Right(name, run, slow))


def rng(seed):
    return np.random.default_rng(seed)


def judged(check, dtype):
    return check.at(1e-5) if dtype is F32 else check


def cast(function, dtype):
    """The function with all float arrays in a precision."""

    def inner(*args):
        return function(*[a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args])

    return inner


SCHEDULES = {
    "linear, T=12": NoiseSchedule.linear(12),
    "cosine, T=30": NoiseSchedule.cosine(30),
    "Ho's betas, T=1000": NoiseSchedule.from_variances(np.linspace(1e-4, 0.02, 1000)),
    "from an SDE, T=25": NoiseSchedule.from_sde(VP(0.1, 12.0), 25),
    "constant, T=8": NoiseSchedule.from_variances(np.full(8, 0.15)),
    "random, T=15": NoiseSchedule.from_variances(rng(0).uniform(0.01, 0.4, 15)),
    "T=1": NoiseSchedule.from_variances([0.3]),
    "T=2": NoiseSchedule.from_variances([0.2, 0.5]),
}
SHORT = [n for n in SCHEDULES if "1000" not in n]


def cross(check, codings, problems, wrapped=cast):
    """A case for every coding and the (schedule, precision) pairs that stand at its place in turn."""
    for name, make, places in codings:
        for place in places:
            label, dtype = problems[place]
            s = SCHEDULES[label]

            def run(make=make, s=s, dtype=dtype):
                return judged(check(wrapped(make(s, dtype), dtype), s), dtype)

            add(f"{check.__name__.removeprefix('check_').replace('_', ' ')}: {name}, {label}, {np.dtype(dtype)}", run)


class Ho:
    """The buffers of Ho's code, zero-based."""

    def __init__(self, s, dtype=F64):
        betas = s.beta[1:] ** 2
        self.T = len(betas)
        acp = np.cumprod(1 - betas)
        prev = np.append(1.0, acp[:-1])
        self.f64 = {
            "betas": betas,
            "alphas": 1 - betas,
            "acp": acp,
            "prev": prev,
            "sa": np.sqrt(acp),
            "sm": np.sqrt(1 - acp),
            "recip": np.sqrt(1 / acp),
            "recipm1": np.sqrt(1 / acp - 1),
            "pvar": betas * (1 - prev) / (1 - acp),
            "c1": betas * np.sqrt(prev) / (1 - acp),
            "c2": (1 - prev) * np.sqrt(1 - betas) / (1 - acp),
        }
        for key, value in self.f64.items():
            setattr(self, key, value.astype(dtype))


class Gamma:
    """VDM: gamma = −log SNR at steps 0..T, alpha² = sigmoid(−gamma), sigma² = sigmoid(gamma)."""

    def __init__(self, s, dtype=F64):
        nats = -np.cumsum(np.log1p(-(s.beta[1:] ** 2)))
        gamma = np.append(-np.inf, np.log(np.expm1(nats)))
        self.gamma = gamma
        self.alpha = np.sqrt(expit(-gamma)).astype(dtype)
        self.sigma = np.sqrt(expit(gamma)).astype(dtype)
        with np.errstate(invalid="ignore"):
            self.c = np.append(0.0, -np.expm1(gamma[:-1] - gamma[1:])).astype(dtype)


class Sigmas:
    """EDM: sigma = √(1/ᾱ² − 1), scale 1/√(1 + sigma²)."""

    def __init__(self, s, dtype=F64):
        nats = -np.cumsum(np.log1p(-(s.beta[1:] ** 2)))
        self.sigma = np.append(0.0, np.sqrt(np.expm1(nats))).astype(dtype)
        self.scale = np.append(1.0, np.exp(-nats / 2)).astype(dtype)


# --- tables of the schedule


def tables_ho(s):
    h = Ho(s)
    return np.append(1, h.sa), np.append(0, h.sm), np.append(0, np.sqrt(h.pvar))


def tables_logs(s):
    nats = np.append(0, np.cumsum(np.log1p(-(s.beta[1:] ** 2))))
    bar = np.sqrt(-np.expm1(nats))
    tilde = np.append(0.0, s.beta[1:] * bar[:-1] / bar[1:])
    return np.exp(nats / 2), bar, tilde


def tables_loop(s):
    keep, total, tilde = [1.0], [0.0], [0.0]
    for v in s.beta[1:] ** 2:
        new = (1 - v) * total[-1] + v
        tilde.append(math.sqrt(v * total[-1] / new))
        keep.append(keep[-1] * math.sqrt(1 - v))
        total.append(new)
    return keep, [math.sqrt(v) for v in total], tilde


for label in ("cosine, T=30", "Ho's betas, T=1000"):
    for how, make in (("cumprod", tables_ho), ("log1p", tables_logs), ("recursion of variances", tables_loop)):
        add(
            f"schedule: {how}, {label}",
            lambda make=make, s=SCHEDULES[label]: kit.check_schedule(s, *make(s)),
        )


# --- forward


def step_ho(s, dtype):
    h = Ho(s, dtype)
    return lambda t, x, n: np.sqrt(h.alphas[t - 1])[..., None] * x + np.sqrt(h.betas[t - 1])[..., None] * n


def step_score_sde(s, dtype):
    h = Ho(s, dtype)

    def step(t, x, n):
        i = np.reshape(np.asarray(t) - 1, (-1, 1))
        f = np.sqrt(h.alphas)[i] * x - x
        return x + f + np.sqrt(h.betas)[i] * n

    return step


def step_sigma(s, dtype):
    e = Sigmas(s, dtype)

    def step(t, x, n):
        added = np.sqrt(e.sigma[t] ** 2 - e.sigma[t - 1] ** 2)
        return e.scale[t] * (x / e.scale[t - 1] + added * n)

    return lambda t, x, n: step(int(t), x, n)


P = [
    ("linear, T=12", F64),
    ("cosine, T=30", F64),
    ("Ho's betas, T=1000", F64),
    ("from an SDE, T=25", F64),
    ("random, T=15", F64),
    ("T=1", F64),
    ("linear, T=12", F32),
    ("Ho's betas, T=1000", F32),
    ("constant, T=8", F32),
    ("T=2", F64),
]

cross(
    kit.check_forward_step,
    [("Ho", step_ho, (1, 7)), ("drift and G", step_score_sde, (2, 6)), ("EDM's sigma", step_sigma, (4,))],
    P,
)


def sample_ho(s, dtype):
    h = Ho(s, dtype)
    return lambda t, x, n: h.sa.take(np.reshape(t, (-1, 1)) - 1) * x + h.sm.take(np.reshape(t, (-1, 1)) - 1) * n


def sample_vdm(s, dtype):
    g = Gamma(s, dtype)
    return lambda t, x, n: np.multiply(g.alpha[t], x.T).T + np.multiply(g.sigma[t], n.T).T


def sample_edm(s, dtype):
    e = Sigmas(s, dtype)

    def sample(t, x, n):
        sig = e.sigma[np.asarray(t).reshape(-1, 1)]
        return (x + sig * n) / np.sqrt(1 + sig**2)

    return sample


def sample_angle(s, dtype):
    angle = np.arctan2(s.beta_bar, s.alpha_bar).astype(dtype)
    return lambda t, x, n: np.cos(angle[int(t)]) * x + np.sin(angle[int(t)]) * n


cross(
    kit.check_forward_process,
    [
        ("Ho", sample_ho, (2,)),
        ("VDM's gamma", sample_vdm, (1, 8)),
        ("EDM's sigma", sample_edm, (4,)),
        ("angle of v", sample_angle, (3,)),
    ],
    P,
)


# --- posterior


def posterior_ho(s, dtype):
    h = Ho(s, dtype)

    def posterior(t, x, x0):
        i = np.reshape(t, (-1, 1)) - 1
        return h.c1[i] * x0 + h.c2[i] * x, h.pvar[i]

    return posterior


def posterior_vdm(s, dtype):
    g = Gamma(s, dtype)

    def posterior(t, x, x0):
        c, k = g.c[t], t - 1
        return g.alpha[k] * ((1 - c) * x / g.alpha[t] + c * x0), g.sigma[k] ** 2 * c

    return lambda t, x, x0: posterior(int(t), x, x0)


def posterior_ddim(s, dtype):
    h = Ho(s, dtype)

    def posterior(t, x, x0):
        t = int(t) - 1
        e = (x - h.sa[t] * x0) / h.sm[t]
        v = h.pvar[t]
        return np.sqrt(h.prev[t]) * x0 + np.sqrt(np.maximum(1 - h.prev[t] - v, 0)) * e, np.full_like(x, v)

    return posterior


def posterior_clipped(s, dtype):
    h = Ho(s, dtype)
    logs = np.log(np.append(h.pvar[1], h.pvar[1:]))

    def posterior(t, x, x0):
        i = np.reshape(t, (-1, 1)) - 1
        return h.c1[i] * x0 + h.c2[i] * x, np.exp(logs[i])

    return posterior


cross(
    kit.check_posterior,
    [
        ("Ho", posterior_ho, (2, 7)),
        ("VDM's c", posterior_vdm, (3, 0)),
        ("noise direction of DDIM", posterior_ddim, (4,)),
    ],
    P,
)
for label, dtype in (("Ho's betas, T=1000", F64), ("linear, T=12", F32)):
    add(
        f"posterior: clipped logarithm of Ho, {label}, {np.dtype(dtype)}",
        lambda s=SCHEDULES[label], d=dtype: judged(
            kit.check_posterior(cast(posterior_clipped(s, d), d), s, clipped=True), d
        ),
    )


# --- merging of noise


def merging(kind, s, dtype):
    c = np.append(0, s.alpha[1:] * s.beta_bar[:-1] / s.beta_bar[1:]).astype(dtype)
    r = np.append(0, s.beta[1:] / s.beta_bar[1:]).astype(dtype)
    if kind == "matrix":

        def both(t, a, b):
            R = np.array([[c[t], r[t]], [r[t], -c[t]]])
            return tuple(np.einsum("ij,jnd->ind", R, np.stack([a, b])))

        return lambda t, a, b: both(int(t), a, b), lambda t, e, w: both(int(t), e, w)[1]
    angle = np.arctan2(r, c)

    def merge(t, a, b):
        z = np.cos(angle[int(t)]), np.sin(angle[int(t)])
        return z[0] * a + z[1] * b, z[1] * a - z[0] * b

    return merge, lambda t, e, w: np.sin(angle[int(t)]) * e - np.cos(angle[int(t)]) * w


for kind, label, dtype in (
    ("matrix", "cosine, T=30", F64),
    ("matrix", "T=2", F64),
    ("angle", "random, T=15", F64),
    ("angle", "constant, T=8", F32),
):

    def run(kind=kind, s=SCHEDULES[label], d=dtype):
        return judged(kit.check_noise_merging(*[cast(f, d) for f in merging(kind, s, d)], s), d)

    add(f"noise merging: {kind}, {label}, {np.dtype(dtype)}", run)


# --- x̂_0


def x0_ho(s, dtype):
    h = Ho(s, dtype)
    return lambda t, x, e: h.recip[int(t) - 1] * x - h.recipm1[int(t) - 1] * e


def x0_score(s, dtype):
    h = Ho(s, dtype)

    def predict(t, x, e):
        i = np.reshape(t, (-1, 1)) - 1
        score = -e / h.sm[i]
        return (x + h.sm[i] ** 2 * score) / h.sa[i]

    return predict


def x0_edm(s, dtype):
    e_ = Sigmas(s, dtype)
    return lambda t, x, e: x / e_.scale[int(t)] - e_.sigma[int(t)] * e


def x0_v(s, dtype):
    """v from ε̂, then ᾱ x − β̄ v."""
    g = Gamma(s, dtype)

    def predict(t, x, e):
        v = (e - g.sigma[t] * x) / g.alpha[t]
        return g.alpha[t] * x - g.sigma[t] * v

    return lambda t, x, e: predict(int(t), x, e)


cross(
    kit.check_predict_x0,
    [("Ho", x0_ho, (5,)), ("score", x0_score, (1, 7)), ("EDM's sigma", x0_edm, (3,)), ("through v", x0_v, (0,))],
    P,
)


# --- ancestral step


def ancestral_paper(s, dtype, v):
    h = Ho(s, dtype)
    std = np.sqrt(v).astype(dtype)

    def step(t, x, e, z):
        i = int(t) - 1
        return 1 / np.sqrt(h.alphas[i]) * (x - h.betas[i] / h.sm[i] * e) + std[i + 1] * z

    return step


def ancestral_ho(s, dtype, v):
    h = Ho(s, dtype)
    logs = np.log(v[1:]).astype(dtype)

    def step(t, x, e, z):
        i = np.reshape(t, (-1, 1)) - 1
        start = h.recip[i] * x - h.recipm1[i] * e
        return h.c1[i] * start + h.c2[i] * x + np.exp(logs[i] / 2) * z

    return step


def ancestral_vdm(s, dtype, v):
    g = Gamma(s, dtype)
    std = np.sqrt(v).astype(dtype)

    def step(t, x, e, z):
        t = int(t)
        return g.alpha[t - 1] / g.alpha[t] * (x - g.c[t] * g.sigma[t] * e) + std[t] * z

    return step


def ancestral_score(s, dtype, v):
    h = Ho(s, dtype)
    std = np.sqrt(v).astype(dtype)

    def step(t, x, e, z):
        i = int(t) - 1
        score = -e / h.sm[i]
        return (x + h.betas[i] * score) / np.sqrt(1 - h.betas[i]) + std[i + 1] * z

    return step


def betas_of(s):
    return s.beta**2


def tilde_of(s):
    v = s.beta_tilde**2
    v[1] = s.beta[1] ** 2
    return v


def between(s):
    return np.append(0, np.exp((np.log(betas_of(s)[1:]) + np.log(tilde_of(s)[1:])) / 2))


for name, make, label, dtype, var in (
    ("paper", ancestral_paper, "cosine, T=30", F64, betas_of),
    ("paper", ancestral_paper, "Ho's betas, T=1000", F32, betas_of),
    ("Ho, through x0", ancestral_ho, "Ho's betas, T=1000", F64, tilde_of),
    ("Ho, through x0", ancestral_ho, "linear, T=12", F32, between),
    ("VDM", ancestral_vdm, "from an SDE, T=25", F64, tilde_of),
    ("score", ancestral_score, "T=1", F64, betas_of),
):

    def run(make=make, s=SCHEDULES[label], d=dtype, var=var):
        return judged(kit.check_ancestral_step(cast(make(s, d, var(s)), d), s, var(s)), d)

    add(f"ancestral step: {name}, {label}, {np.dtype(dtype)}, {var.__name__}", run)


# --- DDIM


def ddim_song(s, dtype, eta):
    a = np.append(1, Ho(s).acp).astype(dtype)
    b = (s.beta_bar**2).astype(dtype)

    def step(t, k, x, e, z):
        sig = eta * np.sqrt(b[k] / b[t] * (1 - a[t] / a[k]))
        x0 = (x - np.sqrt(b[t]) * e) / np.sqrt(a[t])
        return np.sqrt(a[k]) * x0 + np.sqrt(np.maximum(b[k] - sig**2, 0)) * e + sig * z

    return step


def ddim_k(s, dtype, eta):
    """k-diffusion's ancestral Euler step in sigma, with sigma_up and sigma_down."""
    q = Sigmas(s, F64)

    def step(t, k, x, e, z):
        a, b = q.sigma[t], q.sigma[k]
        up = eta * np.sqrt(b**2 * (a**2 - b**2) / a**2)
        down = np.sqrt(b**2 - up**2) if eta < 1 else b**2 / a
        y = x / dtype(q.scale[t])
        return dtype(q.scale[k]) * (y + dtype(down - a) * e + dtype(up) * z)

    return step


def ddim_x0(s, dtype, eta):
    """HF: pred_original_sample, then pred_sample_direction."""
    bar, noise = s.alpha_bar.astype(dtype), s.beta_bar.astype(dtype)

    def step(t, k, x, e, z):
        pred = (x - noise[t] * e) / bar[t]
        step_variance = -np.expm1(s.log_signal_ratio(k, t))
        variance = (s.beta_bar[k] / s.beta_bar[t]) ** 2 * step_variance
        direction = dtype(math.sqrt(max(s.beta_bar[k] ** 2 - eta**2 * variance, 0.0))) * e
        return bar[k] * pred + direction + dtype(eta * math.sqrt(variance)) * z

    return step


def stepwise(f):
    return lambda t, k, x, e, z: f(int(t), int(k), x, e, z)


for name, make, label, dtype, eta in (
    ("Song", ddim_song, "linear, T=12", F64, 0.0),
    ("Song", ddim_song, "Ho's betas, T=1000", F64, 0.6),
    ("k-diffusion", ddim_k, "from an SDE, T=25", F64, 0.0),
    ("k-diffusion", ddim_k, "random, T=15", F64, 1.0),
    ("HF", ddim_x0, "constant, T=8", F32, 0.3),
    ("HF", ddim_x0, "T=2", F64, 1.0),
):

    def run(make=make, s=SCHEDULES[label], d=dtype, eta=eta):
        return judged(kit.check_ddim_step(cast(stepwise(make(s, d, eta)), d), s, eta), d)

    add(f"DDIM step: {name}, {label}, {np.dtype(dtype)}, eta {eta}", run)

for name, make, label, dtype, eta in (
    ("Song", ddim_song, "constant, T=8", F64, 1.0),
    ("k-diffusion", ddim_k, "linear, T=12", F64, 0.0),
    ("HF", ddim_x0, "from an SDE, T=25", F64, 0.5),
    ("HF", ddim_x0, "linear, T=12", F32, 0.2),
):

    def run(make=make, s=SCHEDULES[label], d=dtype, eta=eta):
        step = make(s, d, eta)

        def sample(x, eps_hat, noise):
            x, noise = x.astype(d), noise.astype(d)
            for z, t in zip(noise, range(s.T, 0, -1), strict=True):
                x = step(t, t - 1, x, np.asarray(eps_hat(x, t), d), z)
            return x

        return judged(kit.check_ddim_sampler(sample, s, eta), d)

    add(f"DDIM sampler: {name}, {label}, {np.dtype(dtype)}, eta {eta}", run)


def inverse_sigma(s, d):
    q = Sigmas(s, d)
    return lambda k, t, x, e: q.scale[t] * (x / q.scale[k] + (q.sigma[t] - q.sigma[k]) * e)


def inverse_x0(s, d):
    a, b = s.alpha_bar.astype(d), s.beta_bar.astype(d)
    return lambda k, t, x, e: a[t] * ((x - b[k] * e) / a[k]) + b[t] * e


for name, make, label, dtype in (
    ("sigma", inverse_sigma, "linear, T=12", F64),
    ("through x0", inverse_x0, "Ho's betas, T=1000", F64),
    ("through x0", inverse_x0, "random, T=15", F32),
):
    add(
        f"DDIM inversion: {name}, {label}, {np.dtype(dtype)}",
        lambda make=make, s=SCHEDULES[label], d=dtype: judged(
            kit.check_ddim_inversion(cast(lambda k, t, x, e: make(s, d)(int(k), int(t), x, e), d), s), d
        ),
    )


# --- ancestral sampler

for name, make, label, dtype, var in (
    ("paper", ancestral_paper, "linear, T=12", F64, betas_of),
    ("Ho, through x0", ancestral_ho, "constant, T=8", F64, tilde_of),
    ("VDM", ancestral_vdm, "random, T=15", F64, between),
    ("score", ancestral_score, "T=2", F64, betas_of),
):

    def run(make=make, s=SCHEDULES[label], d=dtype, var=var):
        step = make(s, d, var(s))

        def sample(x, eps_hat, noise):
            for i, t in enumerate(reversed(range(1, s.T + 1))):
                x = step(t, x, eps_hat(x, np.full(len(x), t)), noise[i])
            return x

        return kit.check_sampler(sample, s, 0.4, 0.7, var(s))

    add(f"sampler: {name}, {label}, {var.__name__}", run)


# --- prediction of the noise


def noise_from(kind, s, x, t, out):
    a, b = s.alpha_bar[t], s.beta_bar[t]
    if kind == "noise":
        return out
    if kind == "x0":
        return (x - a * out) / b
    if kind == "v":
        return a * out + b * x
    return out * b / s.beta[t]


for kind in ("noise", "x0", "v", "step"):
    for label, dimension in (("linear, T=12", 2), ("cosine, T=30", 16)):

        def run(kind=kind, s=SCHEDULES[label], n=dimension):
            w = rng(3).normal(size=(2, n, n)) / math.sqrt(n)

            def output(x, t, labelled):
                return np.tanh(x @ w[int(labelled)] + 0.01 * t)

            def predict(x, t, guidance, clip):
                free, tied = (noise_from(kind, s, x, t, output(x, t, k)) for k in (False, True))
                e = (1 - guidance) * free + guidance * tied
                if not clip:
                    return e
                start = np.clip((x - s.beta_bar[t] * e) / s.alpha_bar[t], -1, 1)
                return (x - s.alpha_bar[t] * start) / s.beta_bar[t]

            return kit.check_predicted_noise(predict, output, s, kind, 3 * rng(4).normal(size=(5, n)))

        add(f"predicted noise: {kind}, {label}, D={dimension}", run)


# --- variances

for label in ("linear, T=12", "Ho's betas, T=1000", "T=2"):

    def run(s=SCHEDULES[label]):
        h = Ho(s)
        table = {"beta": h.betas, "posterior": np.append(h.betas[0], h.pvar[1:])}
        return kit.check_reverse_variance(lambda name: np.append(np.nan, table[name]), s)

    add(f"reverse variance: Ho's tables, {label}", run)

for label, dimension in (("linear, T=12", 2), ("random, T=15", 8), ("T=1", 1)):

    def run(s=SCHEDULES[label], n=dimension):
        root = rng(5).normal(size=(n, n))

        def v(loss):
            factor = np.append(0, s.beta[1:] ** 2 / s.beta_bar[1:] / s.alpha[1:])
            return s.beta_tilde**2 + factor**2 * loss / n

        def via_x0(loss):
            h = Ho(s)
            return np.append(0, h.pvar + h.c1**2 * (1 / h.acp - 1) * loss[1:] / n)

        return kit.check_optimal_variance(via_x0 if n == 8 else v, s, root @ root.T + 0.1 * np.eye(n))

    add(f"optimal variance: D={dimension}, {label}", run)


# --- losses and bounds of the chain


def normal_kl(m1, l1, m2, l2):
    return 0.5 * (-1.0 + l2 - l1 + np.exp(l1 - l2) + (m1 - m2) ** 2 * np.exp(-l2))


def nll(x, m, v):
    return 0.5 * np.sum((x - m) ** 2 / v + np.log(2 * np.pi * v), axis=-1)


def mean_of(s, t, x, e):
    return (x - s.beta[t] ** 2 / s.beta_bar[t] * e) / s.alpha[t]


def prior_ho(s):
    h = Ho(s)
    return lambda x0: normal_kl(h.sa[-1] * x0, np.log(1 - h.acp[-1]), 0.0, 0.0).sum(1)


def prior_logs(s):
    nats = np.log1p(-(s.beta[1:] ** 2)).sum()
    keep, rest = np.exp(nats), -np.expm1(nats)
    return lambda x0: 0.5 * (keep * np.einsum("nd,nd->n", x0, x0) + x0.shape[1] * (rest - 1 - np.log(rest)))


def kl_ho(s, v):
    h = Ho(s)

    def term(t, x0, x, e):
        t = int(t)
        i = t - 1
        true = h.c1[i] * x0 + h.c2[i] * x
        model = h.c1[i] * (h.recip[i] * x - h.recipm1[i] * e) + h.c2[i] * x
        return normal_kl(true, np.log(h.pvar[i]), model, np.log(v[t])).sum(1)

    return term


def kl_noise(s, v):
    def term(t, x0, x, e):
        t = int(t)
        eps = (x - s.alpha_bar[t] * x0) / s.beta_bar[t]
        ratio = s.beta_tilde[t] ** 2 / v[t]
        factor = s.beta[t] ** 4 / (2 * v[t] * s.alpha[t] ** 2 * s.beta_bar[t] ** 2)
        return factor * ((eps - e) ** 2).sum(1) + x0.shape[1] / 2 * (ratio - 1 - np.log(ratio))

    return term


def kl_snr(s, v):
    """VDM: the factor of the squared error of x̂_0 in SNRs, for the variance of the posterior 0.5 (SNR_s − SNR_t)."""

    def term(t, x0, x, e):
        t = int(t)
        start = (x - s.beta_bar[t] * e) / s.alpha_bar[t]
        gain = s.snr[t - 1] - s.snr[t]
        ratio = s.beta_tilde[t] ** 2 / v[t]
        square = ((x0 - start) ** 2).sum(1)
        return 0.5 * gain * ratio * square + 0.5 * x0.shape[1] * (ratio - 1 - np.log(ratio))

    return term


def wavy(x, t):
    return np.sin(x + 0.1 * t) + 0.3 * x


for name, prior, term, label, var, dimension in (
    ("Ho's normal_kl", prior_ho, kl_ho, "linear, T=12", betas_of, 3),
    ("Ho's normal_kl", prior_ho, kl_ho, "T=2", tilde_of, 2),
    ("noise error", prior_logs, kl_noise, "cosine, T=30", tilde_of, 8),
    ("noise error", prior_logs, kl_noise, "Ho's betas, T=1000", betas_of, 2),
    ("SNRs", prior_logs, kl_snr, "random, T=15", between, 5),
):

    def run(prior=prior, term=term, s=SCHEDULES[label], var=var, n=dimension):
        v = var(s)
        f = term(s, v)
        x0, noise = rng(6).normal(size=(2, 4, n))
        return kit.check_bound_terms(
            prior(s),
            lambda t, x0, x, net: f(t, x0, x, net(x, t)),
            lambda x0, x, net: nll(x0, mean_of(s, 1, x, net(x, 1)), v[1]),
            s,
            x0,
            noise,
            wavy,
            v,
        )

    add(f"bound terms: {name}, {label}, {var.__name__}, D={dimension}", run, slow="1000" in label)


def bound_maker(s, v, term, prior, how):
    f, first = term(s, v), prior(s)

    def bound(x0, net, noise):
        rows = []
        for t in range(1, s.T + 1):
            x = s.alpha_bar[t] * x0 + s.beta_bar[t] * noise[t - 1]
            e = np.asarray(net(x, t))
            rows.append(nll(x0, mean_of(s, 1, x, e), v[1]) if t == 1 else f(t, x0, x, e))
        rows.append(first(x0))
        terms = np.stack(rows, axis=1)
        return {"terms": terms, "reversed": terms[:, ::-1], "sum": terms.sum(1)}[how]

    return bound


for how, term, prior, label, var, dimension in (
    ("sum", kl_ho, prior_ho, "linear, T=12", betas_of, 2),
    ("terms", kl_noise, prior_logs, "constant, T=8", tilde_of, 3),
    ("reversed", kl_snr, prior_logs, "T=2", between, 4),
    ("sum", kl_noise, prior_ho, "T=1", betas_of, 1),
):

    def run(how=how, term=term, prior=prior, s=SCHEDULES[label], var=var, n=dimension):
        g = rng(7)
        A, b, root = 0.4 * g.normal(size=(s.T + 1, n, n)), g.normal(size=(s.T + 1, n)), g.normal(size=(n, n))
        cov = root @ root.T + 0.2 * np.eye(n)
        bound = bound_maker(s, var(s), term, prior, how)
        return kit.check_variational_bound(bound, s, g.normal(size=n), cov, A, b, var(s))

    add(f"variational bound: {how}, {term.__name__}, {label}, {var.__name__}, D={dimension}", run)

for how, term, label, var, dimension in (
    ("sum", kl_ho, "from an SDE, T=25", "beta", 4),
    ("terms", kl_noise, "cosine, T=30", "posterior", 16),
    ("sum", kl_snr, "random, T=15", "posterior", 1),
    ("terms", kl_ho, "T=1", "beta", 3),
):

    def run(how=how, term=term, s=SCHEDULES[label], var=var, n=dimension):
        v = betas_of(s) if var == "beta" else tilde_of(s)
        bound = bound_maker(s, v, term, prior_logs, how)
        g = rng(8)
        x0, noise = g.normal(size=(3, n)), g.normal(size=(s.T, 3, n))
        return kit.check_bound_of(lambda x, z: bound(x, wavy, z), wavy, x0, noise, s, var)

    add(f"bound of a network: {how}, {term.__name__}, {label}, {var}, D={dimension}", run)


def run_levels():
    """Ho's discretised L_0 of 256 levels, in logarithms."""
    s = SCHEDULES["linear, T=12"]
    v = betas_of(s)
    g = rng(9)
    levels = g.integers(0, 256, size=(3, 5))
    x0, noise = levels / 127.5 - 1, g.normal(size=(s.T, 3, 5))
    f = kl_noise(s, v)

    def bound(x, z):
        first = s.alpha_bar[1] * x + s.beta_bar[1] * z[0]
        m, std = mean_of(s, 1, first, wavy(first, 1)), s.beta[1]
        up = np.where(x > 0.999, np.inf, (x + 1 / 255 - m) / std)
        low = np.where(x < -0.999, -np.inf, (x - 1 / 255 - m) / std)
        flip = low > 0
        a, b = log_ndtr(np.where(flip, -low, up)), log_ndtr(np.where(flip, -up, low))
        total = -(a + np.log1p(-np.exp(b - a))).sum(1) + prior_ho(s)(x)
        for t in range(2, s.T + 1):
            xt = s.alpha_bar[t] * x + s.beta_bar[t] * z[t - 1]
            total = total + f(t, x, xt, wavy(xt, t))
        return total

    return kit.check_bound_of(bound, wavy, x0, noise, s, "beta", 256)


add("bound of a network: 256 levels, log of Phi differences, linear, T=12, D=5", run_levels)

for label, var, dimension in (
    ("linear, T=12", betas_of, 2),
    ("T=1", betas_of, 3),
    ("random, T=15", between, 4),
    ("cosine, T=30", tilde_of, 1),
):

    def run(s=SCHEDULES[label], var=var, n=dimension):
        v = var(s)

        def total(loss, square, dim):
            out = 0.5 * (s.alpha_bar[-1] ** 2 * square + dim * (s.beta_bar[-1] ** 2 - 1 - 2 * np.log(s.beta_bar[-1])))
            for t in range(1, s.T + 1):
                out += s.beta[t] ** 4 / (2 * v[t] * s.alpha[t] ** 2 * s.beta_bar[t] ** 2) * loss[t]
                ratio = s.beta_tilde[t] ** 2 / v[t]
                out += dim / 2 * (np.log(2 * np.pi * v[1]) if t == 1 else ratio - 1 - np.log(ratio))
            return out

        g = rng(10)
        root = g.normal(size=(n, n))
        return kit.check_negative_elbo(
            total,
            s,
            g.normal(size=n),
            root @ root.T + 0.2 * np.eye(n),
            0.3 * g.normal(size=(s.T + 1, n, n)),
            g.normal(size=(s.T + 1, n)),
            v,
        )

    add(f"negative ELBO: loop over steps, {label}, {var.__name__}, D={dimension}", run)

for name, label, var, dimension in (
    ("loop", "linear, T=12", betas_of, 2),
    ("vectorised over steps", "random, T=15", tilde_of, 6),
    ("loop", "T=1", betas_of, 3),
    ("vectorised over steps", "from an SDE, T=25", between, 2),
):

    def run(name=name, s=SCHEDULES[label], var=var, n=dimension):
        v = var(s)

        def forward(path):
            if name == "loop":
                return -sum(nll(path[t], s.alpha[t] * path[t - 1], s.beta[t] ** 2) for t in range(1, s.T + 1))
            z = (path[1:] - s.alpha[1:, None, None] * path[:-1]) / s.beta[1:, None, None]
            logs = -0.5 * z**2 - np.log(s.beta[1:, None, None]) - 0.5 * np.log(2 * np.pi)
            return logs.sum(axis=(0, 2))

        def reverse(path, net):
            out = -0.5 * (path[-1] ** 2).sum(1) - n / 2 * np.log(2 * np.pi)
            for t in range(s.T, 0, -1):
                out = out - nll(path[t - 1], mean_of(s, t, path[t], net(path[t], t)), v[t])
            return out

        g = rng(11)
        return kit.check_chains(forward, reverse, s, g.normal(size=(s.T + 1, 3, n)), g.normal(size=s.T + 1), v)

    add(f"chains: {name}, {label}, {var.__name__}, D={dimension}", run)

for name, label, t, var in (
    ("pair of noises", "linear, T=12", 5, betas_of),
    ("merged noise", "cosine, T=30", 17, tilde_of),
    ("pair of noises", "T=1", 1, betas_of),
    ("merged noise", "Ho's betas, T=1000", 400, between),
):

    def run(name=name, s=SCHEDULES[label], t=t, var=var):
        v = float(var(s)[t])

        def loss(t, x0, bar, new, net):
            t = int(t)
            before = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * bar
            x = s.alpha[t] * before + s.beta[t] * new
            e = net(x, t)
            if name == "pair of noises":
                return nll(before, mean_of(s, t, x, e), v)
            merged = (s.alpha[t] * s.beta_bar[t - 1] * bar + s.beta[t] * new) / s.beta_bar[t]
            square = s.beta_tilde[t] ** 2 + (s.beta[t] ** 2 / s.alpha[t] / s.beta_bar[t]) ** 2 * (merged - e) ** 2
            return (square / (2 * v) + 0.5 * np.log(2 * np.pi * v)).sum(1)

        return kit.check_step_loss(loss, s, t, lambda x, t: np.tanh(x) * 0.5, 0.2, 0.9, v)

    add(f"step loss: {name}, {label}, t={t}, {var.__name__}", run)

for label, var in (("linear, T=12", betas_of), ("random, T=15", tilde_of), ("Ho's betas, T=1000", between)):

    def run(s=SCHEDULES[label], var=var):
        v = var(s)
        h = Ho(s)
        snr = h.acp / (1 - h.acp)
        table = {
            "simple": np.ones(s.T),
            "x0": 1 / snr,
            "v": 1 + 1 / snr,
            "min-snr": np.minimum(snr, 5) / snr,
            "bound": s.T * h.c1**2 / snr / (2 * v[1:]),
        }
        return kit.check_loss_weights(lambda name: np.insert(table[name], 0, 0.0), s, v)

    add(f"loss weights: SNRs of Ho's tables, {label}, {var.__name__}", run)

for kind, weight, reduction, label, dtype, dimension, whole in (
    ("noise", None, "sum", "linear, T=12", F64, 3, False),
    ("noise", None, "mean", "Ho's betas, T=1000", F32, 16, True),
    ("v", "snr", "mean", "cosine, T=30", F64, 8, False),
    ("x0", "min", "sum", "random, T=15", F64, 64, True),
    ("step", None, "mean", "T=2", F64, 2, False),
):

    def run(kind=kind, weight=weight, red=reduction, s=SCHEDULES[label], d=dtype, n=dimension, whole=whole):
        w = (rng(12).normal(size=(n, n)) / math.sqrt(n)).astype(d)
        table = None
        if weight:
            table = np.append(0, s.snr[1:] + 1 if weight == "snr" else np.minimum(s.snr[1:], 5))

        def net(x, t):
            x = np.asarray(x, d)
            return np.tanh(x @ w + np.reshape(t, (-1, 1)).astype(d) / d(s.T))

        a, b = s.alpha_bar.astype(d), s.beta_bar.astype(d)

        def loss(t, x0, noise):
            x0, noise, at = x0.astype(d), noise.astype(d), np.asarray(t)[:, None]
            x = a[at] * x0 + b[at] * noise
            ratio = np.append(0, s.beta[1:] / s.beta_bar[1:]).astype(d)
            target = {"noise": noise, "x0": x0, "v": a[at] * noise - b[at] * x0, "step": ratio[at] * noise}[kind]
            out = getattr(np, red)((target - net(x, t)) ** 2, axis=1)
            out = out if table is None else table[t] * out
            return out.mean() if whole else out

        x0, noise = rng(13).normal(size=(2, 6, n)).astype(d)
        return kit.check_loss_of(loss, net, x0, noise, s, None, kind, table, red)

    add(f"loss of a network: {kind}, {weight}, {reduction}, {label}, {np.dtype(dtype)}, D={dimension}", run)

for name, make, label, var, eta, last, paths in (
    ("Ho, through x0", ancestral_ho, "linear, T=12", "posterior", None, False, False),
    ("score", ancestral_score, "random, T=15", "beta", None, True, True),
    ("VDM", ancestral_vdm, "cosine, T=30", "beta", None, False, True),
    ("Song's DDIM", ddim_song, "from an SDE, T=25", "beta", 0.0, True, False),
    ("DDIM of k-diffusion", ddim_k, "constant, T=8", "beta", 1.0, True, True),
):

    def run(make=make, s=SCHEDULES[label], var=var, eta=eta, last=last, paths=paths):
        step = make(s, F64, (betas_of(s) if var == "beta" else tilde_of(s)) if eta is None else eta)

        def sample(x, noise):
            xs = [x]
            for i in range(s.T):
                t = s.T - i
                z = noise[i] if (last or t > 1) else np.zeros_like(x)
                x = step(t, x, wavy(x, t), z) if eta is None else step(t, t - 1, x, wavy(x, t), z)
                xs.append(x)
            return np.array(xs) if paths else x

        x, noise = rng(14).normal(size=(3, 4)), rng(15).normal(size=(s.T, 3, 4))
        return kit.check_sampler_of(sample, wavy, x, noise, s, var, eta, last)

    add(f"sampler of a network: {name}, {label}, {var}, eta {eta}, last noise {last}, path {paths}", run)

for T in (1, 10, 100):

    def run(T=T):
        def draw(u):
            t = np.floor(T * ((u + np.arange(2 * T) / (2 * T)) % 1)).astype(int) + 1
            return t, np.ones(2 * T)

        return kit.check_step_draws(draw, T)

    add(f"step draws: low discrepancy, T={T}", run)

for T in (4, 20):

    def run_uniform(T=T):
        def draw(u):
            i = (np.arange(T) + int(u * T)) % T
            return i + 1, np.full(T, 1.0)

        return kit.check_step_draws(draw, T)

    add(f"step draws: every step once, rolled, T={T}", run_uniform)


def run_importance():
    """One step with probability k/16: inverse of the cumulative sum, with jumps on multiples of 1/16."""
    p = np.array([1, 1, 2, 1, 3, 1, 1, 6]) / 16

    def draw(u):
        i = int(np.searchsorted(np.cumsum(p), u, side="right"))
        return np.array([i + 1]), np.array([1 / (8 * p[i])])

    return kit.check_step_draws(draw, 8)


add("step draws: importance sampling with the inverse CDF, T=8", run_importance)


def time_cases():
    vp = VP(0.1, 20.0)
    lo, hi = float(vp.beta_integral(1e-3)), float(vp.beta_integral(1.0))

    def flat(u):
        t = 1e-3 + (1 - 1e-3) * ((u + np.arange(8) / 8) % 1)
        return t, np.ones(8)

    def logs(u):
        share = (u + np.arange(5) / 5) % 1
        return np.exp(np.log(1e-3) * (1 - share)), np.ones(5)

    def weighted(u):
        """t uniform; the weight is the density of the clock B(t) against the uniform one."""
        t = 1e-3 + (1 - 1e-3) * ((u + np.arange(50) / 50) % 1)
        return t, vp.beta(t) * (1 - 1e-3) / (hi - lo)

    yield "uniform on [t_min, 1], systematic", flat, lambda t: (t - 1e-3) / (1 - 1e-3)
    yield "log-uniform", logs, lambda t: 1 - np.log(t) / np.log(1e-3)
    yield "uniform with weights of the integral of beta", weighted, lambda t: (vp.beta_integral(t) - lo) / (hi - lo)


for name, draw, clock in time_cases():
    add(f"time draws: {name}", lambda draw=draw, clock=clock: kit.check_time_draws(draw, clock))


# --- VAE and tables


def several(check, codings, problems, label):
    """Every coding on one of the problems, in turn."""
    for i, (name, make) in enumerate(codings):
        words, problem = problems[i % len(problems)]
        add(f"{label}: {name}, {words}", lambda make=make, problem=problem: check(make, *problem))


def latents(seed, n, k):
    g = rng(seed)
    return g.normal(size=(n, k)), 0.8 * g.normal(size=(n, k))


DIAGONAL = [
    ("N=4, k=1", latents(20, 4, 1)),
    ("N=3, k=64", latents(21, 3, 64)),
    ("N=1, k=5", latents(22, 1, 5)),
]

several(
    kit.check_diagonal_kl,
    [
        ("Kingma's minus half", lambda m, lv: -0.5 * np.sum(1 + lv - m**2 - np.exp(lv), axis=1)),
        ("expm1", lambda m, lv: 0.5 * (np.expm1(lv) - lv + m * m).sum(-1)),
        ("torch's kl of Normals", lambda m, lv: (np.exp(lv / 2) ** 2 / 2 + m**2 / 2 - 0.5 - lv / 2).sum(1)),
        ("einsum", lambda m, lv: 0.5 * (np.einsum("nk,nk->n", m, m) + (np.exp(lv) - lv - 1) @ np.ones(m.shape[1]))),
    ],
    DIAGONAL,
    "diagonal KL",
)
add(
    "diagonal KL: float32, k=8",
    lambda: kit.check_diagonal_kl(
        cast(lambda m, lv: 0.5 * (np.exp(lv) + m**2 - 1 - lv).sum(1), F32), *latents(23, 5, 8)
    ).at(1e-5),
)

several(
    kit.check_reparameterisation,
    [
        ("exp of half", lambda m, lv, z: m + np.exp(0.5 * lv) * z),
        ("square root of the variance", lambda m, lv, z: np.sqrt(np.exp(lv)) * z + m),
        (
            "diagonal Cholesky factor",
            lambda m, lv, z: m + np.stack([np.diag(np.exp(v / 2)) @ e for v, e in zip(lv, z, strict=True)]),
        ),
    ],
    [(w, (*p, rng(24).normal(size=p[0].shape))) for w, p in DIAGONAL],
    "reparameterisation",
)
add(
    "reparameterisation: float32, k=16",
    lambda: kit.check_reparameterisation(
        cast(lambda m, lv, z: m + z * np.exp(lv / F32(2)), F32), *latents(25, 4, 16), rng(26).normal(size=(4, 16))
    ).at(1e-5),
)


def vae_problem(seed, n, dim, k):
    g = rng(seed)
    return g.normal(size=(n, dim)), g.normal(size=(dim, k)), g.normal(size=dim), 0.3, *latents(seed + 1, n, k)


def vae_textbook(x, xh, m, lv, dv):
    dim = x.shape[1]
    rec = 0.5 * (dim * math.log(2 * math.pi) + dim * dv + ((x - xh) ** 2).sum(1) / np.exp(dv))
    return rec - 0.5 * (1 + lv - m**2 - np.exp(lv)).sum(1)


def vae_log_density(x, xh, m, lv, dv):
    std = np.exp(dv / 2)
    logs = -0.5 * ((x - xh) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return -(logs.sum(-1)) + 0.5 * (m**2 + np.exp(lv) - lv - 1).sum(-1)


def vae_mean_times_d(x, xh, m, lv, dv):
    """A mean over D, times D: the pixel mean of frameworks, scaled back."""
    mse = np.mean(np.square(x - xh), axis=-1) * x.shape[-1]
    constant = x.shape[-1] * (np.log(2 * np.pi) + dv)
    return (mse * np.exp(-dv) + constant) / 2 + normal_kl(m, lv, 0.0, 0.0).sum(1)


several(
    kit.check_vae_loss,
    [("textbook", vae_textbook), ("log-density of Normal", vae_log_density), ("mean times D", vae_mean_times_d)],
    [
        ("D=2, k=1", vae_problem(30, 4, 2, 1)),
        ("D=32, k=3", vae_problem(31, 3, 32, 3)),
        ("D=1, k=2", vae_problem(32, 2, 1, 2)),
    ],
    "VAE loss",
)


def bernoulli_problem(seed, n, dim, k):
    g = rng(seed)
    return g.uniform(size=(n, dim)), 2 * g.normal(size=(n, dim)), *latents(seed, n, k)


several(
    kit.check_bernoulli_loss,
    [
        (
            "torch's stable form",
            lambda x, a, m, lv: (
                (np.maximum(a, 0) - a * x + np.log1p(np.exp(-np.abs(a)))).sum(1)
                - 0.5 * (1 + lv - m**2 - np.exp(lv)).sum(1)
            ),
        ),
        (
            "logaddexp",
            lambda x, a, m, lv: (
                np.sum(x * np.logaddexp(0, -a) + (1 - x) * np.logaddexp(0, a), axis=1)
                + 0.5 * (m**2 + np.expm1(lv) - lv).sum(1)
            ),
        ),
        (
            "probabilities",
            lambda x, a, m, lv: (
                -(x * np.log(expit(a)) + (1 - x) * np.log(expit(-a))).sum(1) + normal_kl(m, lv, 0.0, 0.0).sum(1)
            ),
        ),
    ],
    [("D=3, k=2", bernoulli_problem(33, 4, 3, 2)), ("D=49, k=8", bernoulli_problem(34, 2, 49, 8))],
    "Bernoulli loss",
)


def table(seed, *shape, axis=None):
    t = rng(seed).gamma(2.0, size=shape) + 0.05
    return t / t.sum(axis=axis, keepdims=axis is not None)


def tables(seed, x, z):
    return table(seed, x), table(seed + 1, x, z, axis=1), table(seed + 2, x, z, axis=0), table(seed + 3, z)


SIZES = [("X=3, Z=2", (40, 3, 2)), ("X=2, Z=9", (41, 2, 9)), ("X=12, Z=4", (42, 12, 4))]
FOUR = [(w, tables(*s)) for w, s in SIZES]
JOINT_Q = [(w, (table(s[0], s[1], s[2]), table(s[0] + 1, s[1], s[2], axis=1))) for w, s in SIZES]

several(
    kit.check_kl,
    [
        ("sum of p log p/q", lambda p, q: np.sum(p * np.log(p / q))),
        ("cross-entropy minus entropy", lambda p, q: -p @ np.log(q) + p @ np.log(p)),
        ("Python's fsum", lambda p, q: math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))),
    ],
    [("X=2", (table(43, 2), table(44, 2))), ("X=64", (table(45, 64), table(46, 64)))],
    "KL",
)

several(
    kit.check_elbo,
    [
        ("joint over q", lambda j, q: (q * np.log(j / q)).sum(1)),
        ("evidence minus KL", lambda j, q: np.log(j.sum(1)) - (q * np.log(q * j.sum(1, keepdims=True) / j)).sum(1)),
        ("entropy", lambda j, q: np.einsum("xz,xz->x", q, np.log(j)) - np.einsum("xz,xz->x", q, np.log(q))),
    ],
    JOINT_Q,
    "ELBO",
)
several(
    kit.check_posterior_kl,
    [
        ("posterior by division", lambda j, q: (q * (np.log(q) - np.log(j / j.sum(1)[:, None]))).sum(1)),
        ("evidence minus ELBO", lambda j, q: np.log(j.sum(1)) + np.sum(q * np.log(q / j), axis=1)),
        ("softmax of logs", lambda j, q: (q * np.log(q / softmax(np.log(j), axis=1))).sum(-1)),
    ],
    JOINT_Q,
    "posterior KL",
)
several(
    kit.check_latent_posterior,
    [
        ("division", lambda j: (j / j.sum(1, keepdims=True), j.sum(1))),
        ("softmax", lambda j: (softmax(np.log(j), axis=1), np.exp(logsumexp(np.log(j), axis=1)))),
        ("rows", lambda j: (np.array([r / math.fsum(r) for r in j]), [math.fsum(r) for r in j])),
    ],
    [(w, p[:1]) for w, p in JOINT_Q],
    "latent posterior",
)
several(
    kit.check_split_elbo,
    [
        (
            "two parts",
            lambda d, p, q: np.sum(q * np.log(d), axis=1) - np.sum(q * np.log(q / p), axis=1),
        ),
        ("matrix products", lambda d, p, q: np.diag(q @ np.log(d).T) + q @ np.log(p) - (q * np.log(q)).sum(1)),
        ("one ratio", lambda d, p, q: (q * np.log(d * p[None] / q)).sum(axis=-1)),
    ],
    [(w, (f[2], f[3], f[1])) for w, f in FOUR],
    "split ELBO",
)
several(
    kit.check_joint_kl,
    [
        ("whole tables", lambda p, q, d, r: np.sum(p[:, None] * q * np.log(p[:, None] * q / (d * r)))),
        (
            "chain rule",
            lambda p, q, d, r: p @ np.log(p / (d @ r)) + p @ (q * np.log(q / (d * r / (d @ r)[:, None]))).sum(1),
        ),
        ("objective minus entropy", lambda p, q, d, r: p @ np.log(p) - p @ (q * np.log(d * r / q)).sum(1)),
    ],
    FOUR,
    "joint KL",
)
several(
    kit.check_vae_objective,
    [
        (
            "reconstruction plus KL",
            lambda p, q, d, r: p @ (-(q * np.log(d)).sum(1) + (q * (np.log(q) - np.log(r))).sum(1)),
        ),
        ("mean of −ELBO", lambda p, q, d, r: -np.average((q * np.log(d * r / q)).sum(1), weights=p)),
        ("einsum", lambda p, q, d, r: np.einsum("x,xz,xz->", p, q, np.log(q) - np.log(d) - np.log(r)[None])),
    ],
    FOUR,
    "VAE objective",
)


def free_bayes(p, q):
    joint = p[:, None] * q
    return joint / joint.sum(0), joint.sum(0)


def free_matrix(p, q):
    z = p @ q
    return np.diag(p) @ q @ np.diag(1 / z), z


several(
    kit.check_free_m_step,
    [("joint over its sum", free_bayes), ("matrices", free_matrix)],
    [(w, (f[0], f[1], f[3])) for w, f in FOUR],
    "free M-step",
)


def parts_plain(p, q, r):
    bar = p @ q
    return (q * np.log(q / bar)).sum(1), bar @ np.log(bar / r)


def parts_entropy(p, q, r):
    bar = (p[:, None] * q).sum(0)
    return (q * np.log(q)).sum(1) - q @ np.log(bar), -(bar @ np.log(r)) + np.sum(bar * np.log(bar))


several(
    kit.check_kl_parts,
    [("ratios", parts_plain), ("entropies", parts_entropy)],
    [(w, (f[0], f[1], f[3])) for w, f in FOUR],
    "KL parts",
)

several(
    kit.check_importance_weighted_bound,
    [
        ("logsumexp", lambda w: logsumexp(w, axis=0) - np.log(len(w))),
        ("largest taken out", lambda w: w.max(0) + np.log(np.mean(np.exp(w - w.max(0)), axis=0))),
        ("logaddexp", lambda w: np.logaddexp.reduce(w, axis=0) - math.log(w.shape[0])),
    ],
    [(w, (*p, n)) for (w, p), n in zip(JOINT_Q, (4, 2, 3), strict=True)],
    "importance-weighted bound",
)


def ladder_product(joint, q, n):
    """All ordered tuples, by repeated addition of an axis."""
    w = joint / q
    sums, probs = w, q
    for _ in range(n - 1):
        sums = (sums[:, :, None] + w[:, None, :]).reshape(len(w), -1)
        probs = (probs[:, :, None] * q[:, None, :]).reshape(len(w), -1)
    return (probs * np.log(sums / n)).sum(1)


for w, p in [*JOINT_Q[:1], ("X=4, Z=3", (table(47, 4, 3), table(48, 4, 3, axis=1)))]:
    add(f"IWAE ladder: ordered tuples, {w}", lambda p=p: kit.check_iwae_ladder(ladder_product, *p))


def gaussian(seed, n):
    root = rng(seed).normal(size=(n, n)) / math.sqrt(n)
    return rng(seed + 1).normal(size=n), root @ root.T + 0.4 * np.eye(n)


def kl_solve(m, P, u, Q):
    d = u - m
    logs = np.linalg.slogdet(Q)[1] - np.linalg.slogdet(P)[1]
    return 0.5 * (np.trace(np.linalg.solve(Q, P)) + d @ np.linalg.solve(Q, d) - len(m) + logs)


def kl_cholesky(m, P, u, Q):
    L, M = np.linalg.cholesky(Q), np.linalg.cholesky(P)
    a, b = np.linalg.solve(L, M), np.linalg.solve(L, u - m)
    return 0.5 * ((a**2).sum() + b @ b - m.size) + np.log(np.diag(L)).sum() - np.log(np.diag(M)).sum()


def kl_eigen(m, P, u, Q):
    values, vectors = np.linalg.eigh(Q)
    white = vectors / np.sqrt(values)
    ratio = np.linalg.eigvalsh(white.T @ P @ white)
    return 0.5 * (np.sum(ratio - 1 - np.log(ratio)) + np.sum((white.T @ (m - u)) ** 2))


several(
    kit.check_gaussian_kl,
    [("solve", kl_solve), ("Cholesky", kl_cholesky), ("whitened eigenvalues", kl_eigen)],
    [(f"D={n}", (*gaussian(50 + n, n), *gaussian(80 + n, n))) for n in (1, 4, 16)],
    "Gaussian KL",
)

several(
    kit.check_bits_per_dim,
    [
        ("nats over D log 2, minus log2 scale", lambda a, n, s: a / (n * math.log(2)) - math.log2(s)),
        ("log mass first", lambda a, n, s: (a - n * np.log(s)) / n / np.log(2)),
        ("Song's offset for 1/128", lambda a, n, s: a / np.log(2.0) / n + (7 if s == 1 / 128 else -np.log2(s))),
    ],
    [("D=3, scale 1/256", (table(60, 5), 3, 1 / 256)), ("D=64, scale 1/128", (table(61, 2), 64, 1 / 128))],
    "bits per dim",
)


def mass_flip(level, m, s, n):
    x, h = 2 * level / (n - 1) - 1, 1 / (n - 1)
    up = np.where(level == n - 1, np.inf, (x + h - m) / s)
    low = np.where(level == 0, -np.inf, (x - h - m) / s)
    flip = low + up > 0
    a, b = np.where(flip, -low, up), np.where(flip, -up, low)
    return log_ndtr(a) + np.log1p(-np.exp(log_ndtr(b) - log_ndtr(a)))


def mass_logsumexp(level, m, s, n):
    a = (2 * level - n + 1 - 1) / (n - 1)
    b = (2 * level - n + 1 + 1) / (n - 1)
    low = np.where(level == 0, -np.inf, (a - m) / s) + 0 * m
    up = np.where(level == n - 1, np.inf, (b - m) / s) + 0 * m
    right = low > 0
    big, small = np.where(right, -low, up), np.where(right, -up, low)
    return logsumexp(np.stack([log_ndtr(big), log_ndtr(small)]), axis=0, b=np.array([1.0, -1.0])[:, None, None])


for name, f, n, std in (
    ("reflected tails", mass_flip, 4, 0.3),
    ("logsumexp with signs", mass_logsumexp, 2, 0.7),
    ("reflected tails", mass_flip, 16, 0.2),
):
    add(
        f"bin masses: {name}, {n} levels",
        lambda f=f, n=n, std=std: kit.check_bin_masses(
            lambda level, m, s: f(level, m, s, n), n, np.linspace(-1.1, 1.2, 7), std
        ),
    )

NODES, HALF = np.polynomial.legendre.leggauss(24)


def dequantised(log_prob, k):
    """Gauss-Legendre over the unit cube, in one or two dimensions."""
    u, w = (NODES + 1) / 2, HALF / 2
    dim = k.shape[1]
    grid = np.stack(np.meshgrid(*[u] * dim, indexing="ij"), -1).reshape(-1, dim)
    mass = np.prod(np.stack(np.meshgrid(*[w] * dim, indexing="ij"), -1).reshape(-1, dim), axis=1)
    logs = log_prob((k[:, None] + grid).reshape(-1, dim)).reshape(len(k), -1)
    return np.log(np.exp(logs) @ mass) - logs @ mass


for n in (1, 2):
    add(
        f"dequantisation: Gauss-Legendre, D={n}",
        lambda n=n: kit.check_dequantisation(dequantised, np.array([0.4, 1.3])[:n], np.array([1.2, 2.0])[:n]),
    )


# --- linear-Gaussian models


def linear_problem(seed, n, dim, k):
    g = rng(seed)
    return g.normal(size=(n, dim)), g.normal(size=(dim, k)), g.normal(size=dim), 0.4


LINEAR = [(f"D={d}, k={k}", linear_problem(90 + d, n, d, k)) for n, d, k in ((4, 2, 1), (3, 10, 3), (5, 3, 3))]


def latent_bishop(x, W, m, v):
    M = W.T @ W + v * np.eye(W.shape[1])
    return (x - m) @ W @ np.linalg.inv(M), v * np.linalg.inv(M)


def latent_gain(x, W, m, v):
    K = np.linalg.solve(W @ W.T + v * np.eye(len(W)), W).T
    return np.einsum("kd,nd->nk", K, x - m), np.eye(W.shape[1]) - K @ W


def latent_svd(x, W, m, v):
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    mean = ((x - m) @ U) * (s / (s**2 + v)) @ Vt
    return mean, np.eye(W.shape[1]) - Vt.T @ np.diag(s**2 / (s**2 + v)) @ Vt


several(
    kit.check_linear_gaussian_posterior,
    [("Bishop's M", latent_bishop), ("Kalman gain", latent_gain), ("SVD", latent_svd)],
    LINEAR,
    "linear-Gaussian posterior",
)


def mean_field(x, W, m, v):
    mean, _ = latent_bishop(x, W, m, v)
    return mean, 1 / (1 + (W**2).sum(0) / v)


def mean_field_coordinates(x, W, m, v):
    """Coordinate ascent to convergence."""
    P, h = np.eye(W.shape[1]) + W.T @ W / v, (x - m) @ W / v
    z = np.zeros_like(h)
    for _ in range(3000):
        for i in range(len(P)):
            z[:, i] = (h[:, i] - z @ P[i] + z[:, i] * P[i, i]) / P[i, i]
    return z, 1 / np.diag(P)


several(
    kit.check_mean_field,
    [("diagonal of the precision", mean_field), ("coordinate ascent", mean_field_coordinates)],
    LINEAR[:2],
    "mean field",
)


def elbo_terms(x, W, m, v, u, C):
    r = x - m - u @ W.T
    rec = -0.5 * (W.shape[0] * np.log(2 * np.pi * v) + ((r**2).sum(1) + np.trace(W @ C @ W.T)) / v)
    kl = 0.5 * (np.trace(C) + (u**2).sum(1) - len(C) - np.linalg.slogdet(C)[1])
    return rec - kl


def elbo_evidence(x, W, m, v, u, C):
    S = W @ W.T + v * np.eye(len(W))
    d = x - m
    logp = -0.5 * (np.einsum("nd,nd->n", d, np.linalg.solve(S, d.T).T) + np.linalg.slogdet(2 * np.pi * S)[1])
    z, V = latent_bishop(x, W, m, v)
    return logp - np.array([kl_cholesky(a, C, b, V) for a, b in zip(u, z, strict=True)])


for i, f in enumerate((elbo_terms, elbo_evidence, elbo_terms, elbo_evidence)):
    words, p = LINEAR[i % 3]
    k = p[1].shape[1]
    root = rng(95).normal(size=(k, k))
    add(
        f"linear-Gaussian ELBO: {f.__name__}, {words}, {i}",
        lambda f=f, p=p, k=k, root=root: kit.check_linear_gaussian_elbo(
            f, *p, rng(96).normal(size=(len(p[0]), k)), root @ root.T / k + 0.3 * np.eye(k)
        ),
    )


# --- mixtures and EM


def mixture_problem(seed, n, dim, k):
    g = rng(seed)
    means = 1.5 * g.normal(size=(k, dim))
    roots = g.normal(size=(k, dim, dim)) / math.sqrt(dim)
    covs = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(dim)
    weights = g.uniform(0.5, 1.5, size=k)
    return means[g.integers(k, size=n)] + g.normal(size=(n, dim)), weights / weights.sum(), means, covs


MIXTURES = [
    ("D=2, K=3", mixture_problem(100, 60, 2, 3)),
    ("D=1, K=2", mixture_problem(101, 40, 1, 2)),
    ("D=5, K=2", mixture_problem(102, 80, 5, 2)),
]


def joint_cholesky(x, w, m, C):
    out = np.empty((len(x), len(w)))
    for k, c in enumerate(C):
        L = np.linalg.cholesky(c)
        z = np.linalg.solve(L, (x - m[k]).T)
        out[:, k] = np.log(w[k]) - 0.5 * (z**2).sum(0) - np.log(np.diag(L)).sum() - 0.5 * len(c) * np.log(2 * np.pi)
    return out


def joint_einsum(x, w, m, C):
    d = x[:, None] - m
    square = np.einsum("nki,kij,nkj->nk", d, np.linalg.inv(C), d)
    return np.log(w) - 0.5 * (square + np.linalg.slogdet(2 * np.pi * C)[1])


def joint_eigen(x, w, m, C):
    values, vectors = np.linalg.eigh(C)
    z = np.einsum("nkd,kde->nke", x[:, None] - m, vectors)
    return np.log(w) - 0.5 * np.sum(z**2 / values + np.log(2 * np.pi * values), axis=-1)


def responsibilities(joint):
    def e(x, w, m, C):
        logs = joint(x, w, m, C)
        return np.exp(logs - logsumexp(logs, axis=1, keepdims=True))

    return e


JOINTS = [("Cholesky", joint_cholesky), ("inverses", joint_einsum), ("eigenvectors", joint_eigen)]

several(kit.check_e_step, [(n, responsibilities(j)) for n, j in JOINTS], MIXTURES, "E-step")


def energy(joint):
    def f(x, logr, w, m, C):
        return np.sum(np.exp(logr) * (joint(x, w, m, C) - logr), axis=1)

    return f


for i, (n, j) in enumerate(JOINTS):
    words, (x, w, m, C) = MIXTURES[i]

    def run(j=j, x=x, w=w, m=m, C=C):
        a = rng(103).normal(size=(len(x), len(w)))
        return kit.check_free_energy(energy(j), x, a - logsumexp(a, axis=1, keepdims=True), w, m, C)

    add(f"free energy: {n}, {words}", run)


def m_weighted(x, r, kind="full", ridge=0.0):
    counts = r.sum(0)
    m = r.T @ x / counts[:, None]
    d = x[:, None] - m
    S = np.einsum("nk,nki,nkj->kij", r, d, d) / counts[:, None, None]
    eye = np.eye(x.shape[1])
    if kind == "tied":
        S = np.broadcast_to(np.tensordot(counts, S, 1) / len(x), S.shape)
    if kind == "diag":
        S = S * eye
    if kind == "spherical":
        S = np.trace(S, axis1=1, axis2=2)[:, None, None] / x.shape[1] * eye
    return counts / len(x), m, S + ridge * eye


def m_cov(x, r, kind="full", ridge=0.0):
    """np.cov and np.average for every component."""
    m = np.array([np.average(x, axis=0, weights=c) for c in r.T])
    S = [np.atleast_2d(np.cov(x.T, aweights=c, ddof=0)) for c in r.T]
    w = r.mean(axis=0)
    if kind == "tied":
        S = [sum(a * s for a, s in zip(w, S, strict=True))] * len(w)
    if kind == "diag":
        S = [np.diag(np.diag(s)) for s in S]
    if kind == "spherical":
        S = [np.mean(np.diag(s)) * np.eye(len(s)) for s in S]
    return w, m, np.array(S) + ridge * np.eye(x.shape[1])


for i, (kind, ridge, m_step, joint) in enumerate(
    (
        ("full", 0.0, m_weighted, joint_cholesky),
        ("tied", 0.0, m_weighted, joint_einsum),
        ("diag", 1e-6, m_weighted, joint_eigen),
        ("spherical", 0.0, m_cov, joint_cholesky),
        ("full", 1e-3, m_cov, joint_einsum),
        ("tied", 1e-6, m_cov, joint_eigen),
    )
):
    words, p = MIXTURES[i % 3]

    def run(kind=kind, ridge=ridge, m_step=m_step, joint=joint, p=p):
        e = responsibilities(joint)
        step = lambda x, w, m, C: m_step(x, e(x, w, m, C), kind, ridge)  # noqa: E731
        return kit.check_em(step, *p, covariance_type=kind, ridge=ridge)

    add(f"EM: {kind}, ridge {ridge}, {m_step.__name__}, {joint.__name__}, {words}", run)

for i, n in enumerate((1, 5, 12)):
    words, p = MIXTURES[i]

    def run(n=n, p=p, joint=JOINTS[i][1], m_step=(m_weighted, m_cov, m_weighted)[i]):
        x, *theta = p

        def em():
            objective, state = [], tuple(theta)
            for k in range(n + 1):
                logs = joint(x, *state)
                total = logsumexp(logs, axis=1)
                objective.append(total.mean())
                if k < n:
                    state = m_step(x, np.exp(logs - total[:, None]))
            return objective, *state

        return kit.check_em_loop(em, *p, n)

    add(f"EM loop: {n} steps, {words}", run)

for i, (name, joint) in enumerate(JOINTS):
    words, p = MIXTURES[i]

    def run(joint=joint, p=p, i=i):
        def statistics():
            logs = joint(*p)
            total = np.logaddexp.reduce(logs, axis=1)
            r = np.exp(logs - total[:, None])
            _w, m, S = (m_weighted, m_cov)[i % 2](p[0], r)
            return r.sum(axis=0), m, S, np.mean(total)

        return kit.check_statistics(statistics, *p)

    add(f"statistics: {name}, {words}", run)

for dim, k, floor in ((2, 3, 0.0), (4, 2, 0.05), (1, 2, 0.0)):

    def run(dim=dim, k=k, floor=floor):
        g = rng(104)
        roots = g.normal(size=(k, dim, dim))
        S, counts = roots @ roots.transpose(0, 2, 1) / dim + 0.2 * np.eye(dim), g.uniform(3, 20, size=k)

        def raised(c):
            values, vectors = np.linalg.eigh(c)
            return (vectors * np.maximum(values, floor)[..., None, :]) @ np.swapaxes(vectors, -1, -2)

        def maximum(kind, variance, count):
            eye = np.eye(dim)
            if kind == "tied":
                one = (np.tensordot(counts, S, 1) + count * variance * eye) / (counts.sum() + count)
                return np.repeat(raised(one)[None], k, axis=0)
            n = counts[:, None, None]
            full = (n * S + count * variance * eye) / (n + count)
            if kind == "diag":
                return np.maximum(full, floor) * eye
            if kind == "spherical":
                return np.maximum(np.einsum("kii->k", full) / dim, floor)[:, None, None] * eye
            return raised(full)

        return kit.check_covariance_types(maximum, S, counts, floor)

    add(f"covariance types: D={dim}, K={k}, floor {floor}", run)


def lloyd(x, c):
    old = None
    while True:
        label = np.argmin(((x[:, None] - c) ** 2).sum(-1), axis=1)
        if old is not None and np.array_equal(label, old):
            return c
        c, old = np.array([x[label == k].mean(0) if np.any(label == k) else c[k] for k in range(len(c))]), label


def lloyd_products(x, c):
    """Distances by products; counts and sums by a table of indicators."""
    for _ in range(500):
        near = np.argmax(x @ c.T - 0.5 * (c**2).sum(1), axis=1)
        one = np.eye(len(c))[near]
        new = one.T @ x / one.sum(0)[:, None]
        if np.array_equal(new, c):
            break
        c = new
    return c


for i, f in enumerate((lloyd, lloyd_products, lloyd)):
    words, (x, _, m, _) = MIXTURES[i]
    add(f"k-means: {f.__name__}, {words}", lambda f=f, x=x, m=m: kit.check_kmeans(f, x, m))


def table_em(x, w, tabs, pseudo, style):
    cols = np.arange(x.shape[1])
    logs = np.log(w) + np.log(tabs[:, cols, x]).sum(-1).T
    total = logsumexp(logs, axis=1)
    r = np.exp(logs - total[:, None])
    if style == "one-hot":
        counts = np.einsum("nk,ndl->kdl", r, np.eye(tabs.shape[2])[x]) + pseudo
    else:
        counts = np.tile(pseudo, (len(w), 1, 1)).astype(float)
        for d in cols:
            np.add.at(counts, (slice(None), d, x[:, d]), r.T)
    return total, r.sum(0) / len(x), counts / counts.sum(-1, keepdims=True)


for style, n, dim, k, levels, c in (
    ("one-hot", 30, 3, 2, 4, 0.5),
    ("add.at", 12, 8, 3, 2, 0.0),
    ("one-hot", 9, 1, 2, 3, 0.1),
):

    def run(style=style, n=n, dim=dim, k=k, levels=levels, c=c):
        g = rng(105)
        x, pseudo = g.integers(levels, size=(n, dim)), c * g.uniform(0.5, 1, size=(dim, levels))
        step = lambda x, w, tabs: table_em(x, w, tabs, pseudo, style)  # noqa: E731
        return kit.check_table_em(step, x, table(106, k), table(107, k, dim, levels, axis=2), pseudo)

    add(f"table EM: {style}, D={dim}, K={k}, {levels} levels", run)


def sample_covariance(seed, dim):
    x = rng(seed).normal(size=(4 * dim, dim)) @ rng(seed + 1).normal(size=(dim, dim))
    return np.cov(x.T, bias=True)


def ppca_eigen(S, k):
    values, vectors = np.linalg.eigh(S)
    v = values[:-k].mean()
    return vectors[:, -k:] * np.sqrt(values[-k:] - v), v


def ppca_svd(S, k):
    U, lam, _ = np.linalg.svd(S)
    v = (np.trace(S) - lam[:k].sum()) / (len(S) - k)
    turn = np.linalg.qr(rng(1).normal(size=(k, k)))[0]
    return U[:, :k] @ np.diag(np.sqrt(lam[:k] - v)) @ turn, v


for f, dim, k in ((ppca_eigen, 3, 1), (ppca_svd, 5, 3), (ppca_eigen, 8, 7)):
    add(
        f"PPCA maximum: {f.__name__}, D={dim}, k={k}",
        lambda f=f, dim=dim, k=k: kit.check_ppca_maximum(f, sample_covariance(108, dim), k),
    )


def ppca_tipping(S, W, v):
    M = v * np.eye(W.shape[1]) + W.T @ W
    SW = S @ W
    new = SW @ np.linalg.inv(v * np.eye(len(M)) + np.linalg.solve(M, W.T @ SW))
    return new, np.trace(S - SW @ np.linalg.solve(M, new.T)) / len(S)


def ppca_moments(S, W, v):
    G = np.linalg.solve(W @ W.T + v * np.eye(len(S)), W)
    zz = np.eye(W.shape[1]) - G.T @ W + G.T @ S @ G
    new = np.linalg.solve(zz, (S @ G).T).T
    square = np.trace(S) - 2 * np.sum(new * (S @ G)) + np.sum((new @ zz) * new)
    return new, square / len(S)


for f, dim, k in ((ppca_tipping, 3, 2), (ppca_moments, 6, 2), (ppca_tipping, 12, 4)):
    add(
        f"PPCA step: {f.__name__}, D={dim}, k={k}",
        lambda f=f, dim=dim, k=k: kit.check_ppca_step(
            f, sample_covariance(109, dim), rng(2).normal(size=(dim, k)), 0.6
        ),
    )


def fa_gain(S, W, psi):
    B = np.linalg.solve(W @ W.T + np.diag(psi), W).T
    zz = np.eye(len(B)) - B @ W + B @ S @ B.T
    new = S @ B.T @ np.linalg.inv(zz)
    return new, np.diag(S - new @ B @ S)


def fa_precision(S, W, psi):
    scaled = W / psi[:, None]
    cov = np.linalg.inv(np.eye(W.shape[1]) + W.T @ scaled)
    B = cov @ scaled.T
    cross_moment, zz = S @ B.T, cov + B @ S @ B.T
    new = np.linalg.solve(zz, cross_moment.T).T
    return new, np.diag(S) - 2 * (new * cross_moment).sum(1) + np.einsum("di,ij,dj->d", new, zz, new)


for f, dim, k in ((fa_gain, 4, 1), (fa_precision, 6, 3), (fa_precision, 3, 2)):
    add(
        f"factor analysis step: {f.__name__}, D={dim}, k={k}",
        lambda f=f, dim=dim, k=k: kit.check_factor_analysis_step(
            f, sample_covariance(110, dim), rng(3).normal(size=(dim, k)), rng(4).uniform(0.3, 1.2, size=dim)
        ),
    )


# --- densities and scores


def law_of(p):
    return Mixture(*p[1:])


def score_softmax(p):
    _, w, m, C = p

    def score(x):
        r = responsibilities(joint_einsum)(x, w, m, C)
        return -np.einsum("nk,kij,nkj->ni", r, np.linalg.inv(C), x[:, None] - m)

    return score


def score_whitened(p):
    _, w, m, C = p

    def score(x):
        r = softmax(joint_eigen(x, w, m, C), axis=1)
        pulls = [np.linalg.solve(C[k], (m[k] - x).T).T for k in range(len(w))]
        return sum(r[:, k : k + 1] * pulls[k] for k in range(len(w)))

    return score


for i, (name, joint) in enumerate(JOINTS):
    words, p = MIXTURES[i]
    add(
        f"log p: {name}, {words}",
        lambda p=p, joint=joint: kit.check_log_prob(lambda x: logsumexp(joint(x, *p[1:]), axis=1), law_of(p), p[0][:6]),
    )
    add(
        f"score: {words}, {i}",
        lambda p=p, f=(score_softmax, score_whitened)[i % 2]: kit.check_score(f(p), law_of(p), p[0][:6]),
    )


def denoise_component(p):
    _, w, m, C = p

    def denoise(x, scale, std):
        V = scale**2 * C + std**2 * np.eye(x.shape[1])
        r = softmax(joint_cholesky(x, w, scale * m, V), axis=1)
        gain = scale * C @ np.linalg.inv(V)
        return np.einsum("nk,nkd->nd", r, m + np.einsum("kij,nkj->nki", gain, x[:, None] - scale * m))

    return denoise


def denoise_precision(p):
    """Posterior precision of every component, C⁻¹ + scale²/std² I."""
    _, w, m, C = p

    def denoise(x, scale, std):
        r = softmax(joint_einsum(x, w, scale * m, scale**2 * C + std**2 * np.eye(x.shape[1])), axis=1)
        P = np.linalg.inv(C)
        Q = np.linalg.inv(P + (scale / std) ** 2 * np.eye(x.shape[1]))
        h = np.einsum("kij,kj->ki", P, m) + (scale / std**2) * x[:, None]
        return np.einsum("nk,kij,nkj->ni", r, Q, h)

    return denoise


for i, (make, scale, std) in enumerate(
    ((denoise_component, 0.8, 0.6), (denoise_precision, 1.0, 2.0), (denoise_component, 0.3, 0.95))
):
    words, p = MIXTURES[i]
    add(
        f"denoiser: {make.__name__}, {words}, scale {scale}, std {std}",
        lambda make=make, p=p, a=scale, b=std: kit.check_denoiser(make(p), law_of(p), p[0][:5], a, b),
    )

for i in (0, 2):
    words, p = MIXTURES[i]
    add(
        f"conservative score: {words}",
        lambda p=p, i=i: kit.check_conservative_score((score_softmax if i else score_whitened)(p), law_of(p)),
        slow=True,
    )


def tweedie(p):
    """Within and between components, by the posterior of every component."""
    _, w, m, C = p

    def covariance(x, scale, std):
        eye = np.eye(x.shape[1])
        V = scale**2 * C + std**2 * eye
        r = softmax(joint_cholesky(x, w, scale * m, V), axis=1)
        gain = scale * C @ np.linalg.inv(V)
        z = m + np.einsum("kij,nkj->nki", gain, x[:, None] - scale * m)
        within = np.einsum("nk,kij->nij", r, C - scale * gain @ C)
        d = z - np.einsum("nk,nkd->nd", r, z)[:, None]
        return within + np.einsum("nk,nki,nkj->nij", r, d, d)

    return covariance


def tweedie_jacobian(p):
    """std²/scale times the derivative of the denoiser, by the Jacobian of the score of the diffused law."""
    law = law_of(p)

    def covariance(x, scale, std):
        J = law.diffuse(scale, std).score_jacobian(x)
        return (std / scale) ** 2 * (np.eye(x.shape[1]) + std**2 * J)

    return covariance


LEVELS = np.array([[1.0, 0.4], [0.8, 0.6], [0.4, 0.9]])
for i, f in enumerate((tweedie, tweedie_jacobian, tweedie)):
    words, p = MIXTURES[i]
    add(
        f"Tweedie covariance: {f.__name__}, {words}",
        lambda f=f, p=p: kit.check_tweedie_covariance(f(p), law_of(p), LEVELS),
    )


# --- SDEs


def song_vp(t, lo=0.1, hi=20.0):
    c = -0.25 * np.square(t) * (hi - lo) - 0.5 * t * lo
    return np.exp(c), np.sqrt(-np.expm1(2 * c))


def song_sub_vp(t):
    c = -0.25 * t**2 * 19.9 - 0.05 * t
    return np.exp(c), -np.expm1(2 * c)


def beta_line(t):
    return 0.1 + t * (20 - 0.1)


def column(t):
    return np.reshape(t, (-1, 1)) if np.ndim(t) else t


SDES = [
    ("score_sde's VP", song_vp, lambda x, t: -0.5 * column(beta_line(t)) * x, lambda t: np.sqrt(beta_line(t)), 1.0),
    (
        "score_sde's sub-VP",
        song_sub_vp,
        lambda x, t: -0.5 * column(beta_line(t)) * x,
        lambda t: np.sqrt(beta_line(t) * -np.expm1(-0.2 * t - 19.9 * t**2)),
        1.0,
    ),
    (
        "score_sde's VE with std sigma(t)",
        lambda t: (np.ones_like(t) if np.ndim(t) else 1.0, 0.01 * (5000.0) ** t),
        lambda x, t: np.zeros_like(x),
        lambda t: 0.01 * 5000.0**t * np.sqrt(2 * np.log(5000.0)),
        1.0,
    ),
    (
        "cosine VP",
        lambda t: (np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)),
        lambda x, t: -np.pi / 2 * column(np.tan(np.pi * t / 2)) * x,
        lambda t: np.sqrt(np.pi * np.tan(np.pi * t / 2)),
        0.95,
    ),
    ("EDM", lambda t: (1.0 + 0 * t, t), lambda x, t: 0.0 * x, lambda t: np.sqrt(2 * np.asarray(t)), 80.0),
    (
        "straight path of flow matching",
        lambda t: (1 - t, t),
        lambda x, t: -x / column(1 - t),
        lambda t: np.sqrt(2 * t / (1 - t)),
        0.9,
    ),
    (
        "Ornstein-Uhlenbeck",
        lambda t: (np.exp(-t), np.sqrt(-np.expm1(-2 * np.asarray(t)))),
        lambda x, t: -x,
        lambda t: math.sqrt(2) + 0 * t,
        3.0,
    ),
]
for name, marginal, drift, diffusion, horizon in SDES:
    add(
        f"SDE: {name}",
        lambda m=marginal, f=drift, g=diffusion, h=horizon: kit.check_sde(m, f, g, h),
    )

for T, lo, hi, horizon in ((10, 0.1, 20.0, 1.0), (100, 0.5, 4.0, 2.0), (1, 0.2, 0.9, 1.0)):

    def run(T=T, lo=lo, hi=hi, horizon=horizon):
        """The trapezoid rule is exact for a β(t) that is linear."""
        edges = np.linspace(0, horizon, T + 1)
        rate = lo + (hi - lo) * edges / horizon
        return kit.check_discretisation(-np.expm1(-0.5 * (rate[1:] + rate[:-1]) * horizon / T), VP(lo, hi, horizon))

    add(f"discretisation: trapezoid of a linear beta, T={T}, horizon {horizon}", run)

PROCESSES = [
    ("VP", VP(0.1, 12.0)),
    ("VE, horizon 2", VE(0.01, 20.0, 2.0)),
    ("sub-VP", SubVP(0.1, 9.0)),
    ("EDM", kit.EDM(10.0)),
]


def rates(sde, t):
    return np.asarray(sde.rate(t)), np.asarray(sde.diffusion(t))


for i, (words, sde) in enumerate(PROCESSES):
    for lam in (0.0, 1.0):

        def run(sde=sde, lam=lam, n=(2, 1, 4, 3)[i]):
            mean, cov = gaussian(120, n)
            values, vectors = np.linalg.eigh(cov)

            def drift(x, t):
                a, s = (column(v) for v in sde.marginal(t))
                f, g = (column(v) for v in rates(sde, t))
                score = -((x - a * mean) @ vectors / (a**2 * values + s**2)) @ vectors.T
                return f * x - 0.5 * (1 + lam) * g**2 * score

            return kit.check_reverse_sde(drift, lambda t: lam * np.asarray(sde.diffusion(t)), sde, mean, cov, lam)

        add(f"reverse SDE: eigenvectors, {words}, stochasticity {lam}", run)

for words, sde, lam, scheme in (
    ("VP", VP(0.1, 12.0), 1.0, "Euler-Maruyama"),
    ("VE", VE(0.01, 20.0, 2.0), 0.0, "Euler-Maruyama"),
    ("sub-VP", SubVP(0.1, 9.0), 1.0, "Euler-Maruyama"),
    ("VP", VP(0.1, 12.0), 0.0, "DDIM"),
    ("EDM", kit.EDM(10.0), 0.0, "DDIM"),
    ("VE", VE(0.01, 20.0), 1.0, "ancestral"),
):

    def run(sde=sde, lam=lam, scheme=scheme):
        mean, var = np.array([0.3, -0.8]), np.array([0.5, 1.4])

        def score(x, t):
            a, s = sde.marginal(t)
            return -(x - a * mean) / (a**2 * var + s**2)

        def step(x, t, s, z):
            t, s = float(t), float(s)
            a, b = sde.marginal(t)
            c, d = sde.marginal(s)
            if scheme == "DDIM":
                e = -b * score(x, t)
                return c * (x - b * e) / a + d * e
            if scheme == "ancestral":
                return x + (b**2 - d**2) * score(x, t) + d / b * np.sqrt(b**2 - d**2) * z
            f, g = rates(sde, t)
            h = t - s
            return x - h * (f * x - 0.5 * (1 + lam) * g**2 * score(x, t)) + lam * g * np.sqrt(h) * z

        return kit.check_reverse_step(step, sde, mean, var, lam)

    add(f"reverse step: {scheme}, {words}, stochasticity {lam}", run)


def wiggle(x, t):
    return np.sin(x + t) - 0.4 * x


for words, sde, lam, n, corrections in (
    ("VP", VP(0.1, 4.0), 1.0, 10, 0),
    ("VE", VE(0.05, 2.0, 2.0), 0.0, 12, 0),
    ("sub-VP", SubVP(0.1, 5.0), 1.0, 6, 2),
    ("VP, one step", VP(0.1, 4.0), 1.0, 1, 1),
):

    def run(sde=sde, lam=lam, n=n, corrections=corrections):
        times = sde.horizon * np.linspace(1, 0.05, n + 1) ** 2 if n > 1 else np.array([0.6, 0.2])

        def sample(x, times, noise):
            noise = noise if corrections else noise[:, None]
            for t, s, z in zip(times[:-1], times[1:], noise, strict=True):
                f, g = rates(sde, t)
                back = -f * x + (1 + lam) / 2 * g**2 * wiggle(x, t)
                x = x + back * (t - s) + lam * g * math.sqrt(t - s) * z[0]
                delta = 2 * (0.16 * float(sde.marginal(s)[1])) ** 2
                for k in range(corrections):
                    x = x + delta * wiggle(x, s) + math.sqrt(2 * delta) * z[1 + k]
            return x

        return kit.check_reverse_sampler(sample, wiggle, sde, times, lam, corrections)

    add(f"reverse sampler: {words}, stochasticity {lam}, {n} steps, {corrections} corrections", run)

for words, sde, n in (("VP", VP(0.1, 6.0), 8), ("EDM", kit.EDM(3.0), 5), ("sub-VP", SubVP(0.1, 5.0), 15)):

    def run(sde=sde, n=n):
        def slope(x, t):
            f, g = rates(sde, t)
            return f * x - 0.5 * g**2 * wiggle(x, t)

        def sample(x, times):
            for h, t, s in zip(np.diff(times), times[:-1], times[1:], strict=True):
                d = slope(x, t)
                guess = x + h * d
                x = x + h * (0.5 * d + 0.5 * slope(guess, s))
            return x

        return kit.check_heun(sample, wiggle, sde, np.linspace(sde.horizon, 0.02, n + 1))

    add(f"Heun: EDM's d_prime, {words}, {n} steps", run)

for words, sde, var in (("VP", VP(0.1, 9.0), 0.7), ("VE", VE(0.01, 5.0), np.array([0.2, 1.0, 3.0]))):

    def run(sde=sde, var=var):
        def step(x, t, z):
            size = 0.2 * float(sde.marginal(float(t))[1])
            return x - 2 * size**2 * x / var + 2 * size * z

        return kit.check_langevin_step(step, sde, var, 0.2)

    add(f"Langevin step: 2 snr std, {words}", run)

for words, dim, squared in (("D=1, (v s)²", 1, True), ("D=2, ‖s‖²", 2, False)):

    def run(dim=dim, squared=squared):
        _, w, m, C = MIXTURES[1 if dim == 1 else 0][1]

        def sliced(s, v, dv):
            return 2 * np.einsum("nd,nd->n", v, dv) + ((v * s).sum(1) ** 2 if squared else (s**2).sum(1))

        return kit.check_score_matching(
            lambda s, z, std: np.sum((s + z / std) ** 2, axis=1),
            lambda s, div: np.linalg.norm(s, axis=1) ** 2 + 2 * div,
            sliced,
            Mixture(w, m, C),
            0.7,
            0.8,
            lambda x: np.sin(x) - 0.5 * x,
            lambda x: (np.cos(x) - 0.5).sum(1),
        )

    add(f"score matching: {words}", run, slow=True)

for words, sde, n, slope in (
    ("VP", VP(0.1, 9.0), 3, 0.4),
    ("VE", VE(0.01, 20.0), 1, 0.05),
    ("sub-VP", SubVP(0.1, 9.0), 2, 0.5),
):

    def run(sde=sde, n=n, slope=slope):
        a1, s1 = sde.marginal(sde.horizon)
        a0, s0 = sde.marginal(1e-2)
        span = 2 * (np.log(a0 / s0) - np.log(a1 / s1))

        def diffusion(x0, t, z):
            a, s = (column(v) for v in sde.marginal(t))
            return 0.5 * span * ((z - slope * (a * x0 + s * z)) ** 2).sum(1)

        return kit.check_continuous_bound(
            lambda x0: 0.5 * (a1 / s1) ** 2 * (x0**2).sum(1),
            diffusion,
            lambda x0, z: n * (np.log(s0 / a0) + 0.5 * np.log(2 * np.pi)) + 0.5 * (z**2).sum(1),
            sde,
            1e-2,
            slope,
            rng(130).normal(size=(3, n)),
        )

    add(f"continuous bound: VDM's half of the span of log-SNR, {words}, D={n}", run)

for n, hidden in ((2, 5), (6, 16)):

    def run(n=n, hidden=hidden):
        g = rng(131)
        W, U = g.normal(size=(n, hidden)) / n, g.normal(size=(hidden, n)) / hidden

        def both(x, probes):
            h = np.tanh(x @ W)
            score = -h @ U / 0.4
            if probes is None:
                return score, -((1 - h**2) @ np.einsum("dh,hd->h", W, U)) / 0.4
            push = ((1 - h**2) * (probes @ W)) @ U
            return score, -(probes * push).sum(-1).mean(0) / 0.4

        eps = lambda x: np.tanh(x @ W) @ U  # noqa: E731
        return kit.check_divergence(both, eps, 0.4, g.normal(size=(4, n)), np.sign(g.normal(size=(3, 4, n))))

    add(f"divergence: diagonal of the Jacobian of a tanh network, D={n}", run)


def integral(f, lo, hi, pieces=40):
    edges = np.linspace(lo, hi, pieces + 1)
    return sum(
        (b - a) / 2 * sum(w * f((a + b) / 2 + (b - a) / 2 * u) for u, w in zip(NODES, HALF, strict=True))
        for a, b in itertools.pairwise(edges)
    )


for words, sde, n in (("VP", VP(0.1, 6.0, 2.0), 2), ("sub-VP", SubVP(0.1, 5.0, 1.5), 1)):

    def run(sde=sde, n=n):
        def bound(error, prior):
            return prior + 0.5 * integral(lambda t: float(sde.diffusion(t)) ** 2 * float(error(t)), 0, sde.horizon)

        return kit.check_kl_bound(bound, sde, *gaussian(132, n), *gaussian(135, n))

    add(f"KL bound: Gauss-Legendre in pieces, {words}, D={n}", run, slow=True)

HX, HW = np.polynomial.hermite_e.hermegauss(90)
HW = HW / HW.sum()

for words, sde in (("VP", VP(0.1, 6.0, 2.0)), ("sub-VP", SubVP(0.2, 5.0, 1.0))):

    def run(sde=sde):
        def bound(score, prior, x):
            def mean(f, t):
                a, s = sde.marginal(t)
                return f((a * x + s * HX).reshape(-1, 1)).reshape(len(x), -1) @ HW

            def rate(t):
                def inner(y):
                    s, div = score(y, t)
                    return (np.asarray(s) ** 2).sum(1) + 2 * np.asarray(div)

                return 0.5 * float(sde.diffusion(t)) ** 2 * mean(inner, t) - float(sde.rate(t))

            return mean(prior, sde.horizon) - integral(rate, 0, sde.horizon, 12)

        law = Mixture([0.4, 0.6], [[-0.8], [0.7]], [[[0.5]], [[0.9]]])
        return kit.check_log_prob_bound(bound, sde, law, np.array([[0.1], [1.2], [-1.5]]))

    add(f"log p bound: Gauss-Hermite in x_t, {words}, D=1", run, slow=True)


def flow_log_prob(score_and_div, prior, sde, t_min):
    from scipy.integrate import solve_ivp

    def log_prob(x):
        n, dim = x.shape

        def rate(t, y):
            z = y[: n * dim].reshape(n, dim)
            f, g = rates(sde, t)
            s, div = score_and_div(z, t)
            return np.append((f * z - 0.5 * g**2 * s).ravel(), f * dim - 0.5 * g**2 * div)

        start = np.append(x.ravel(), np.zeros(n))
        end = solve_ivp(rate, (t_min, sde.horizon), start, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        return prior(end[: n * dim].reshape(n, dim)) + end[n * dim :]

    return log_prob


for words, sde, i in (("VP", VP(0.1, 6.0), 0), ("sub-VP", SubVP(0.5, 6.0), 1)):

    def run(sde=sde, i=i):
        p = MIXTURES[i][1]
        law = law_of(p)

        def both(z, t):
            now = law.diffuse(*(float(v) for v in sde.marginal(t)))
            return now.score(z), np.trace(now.score_jacobian(z), axis1=1, axis2=2)

        last = law.diffuse(*(float(v) for v in sde.marginal(sde.horizon)))
        return kit.check_probability_flow_likelihood(flow_log_prob(both, last.log_prob, sde, 0.0), law, p[0][:3], sde)

    add(f"probability-flow likelihood: DOP853, {words}, {MIXTURES[i][0]}", run, slow=True)

for words, sde, n, std in (
    ("VP", VP(0.1, 6.0), 2, None),
    ("VP, prior N(0, I)", VP(0.1, 9.0), 4, 1.0),
    ("EDM", kit.EDM(5.0), 1, None),
):

    def run(sde=sde, n=n, std=std):
        W = 0.4 * rng(140).normal(size=(n, n))

        def score(x, t):
            return (np.tanh(x @ W) - x) / (1 + t)

        def div(x, t):
            return ((1 - np.tanh(x @ W) ** 2) @ np.diag(W) - n) / (1 + t)

        s = float(sde.marginal(sde.horizon)[1]) if std is None else std
        prior = lambda y: -0.5 * ((y / s) ** 2).sum(1) - n / 2 * np.log(2 * np.pi * s**2)  # noqa: E731
        f = flow_log_prob(lambda x, t: (score(x, t), div(x, t)), prior, sde, 0.05)
        x = rng(141).normal(size=(3, n))
        return kit.check_flow_likelihood_of(f, score, x, sde, 0.05, div if n > 1 else None, None, std)

    add(f"flow likelihood of a network: DOP853, {words}, D={n}", run, slow=True)


def moments_by_expm(score, B, n):
    """The affine system of mean and covariance of reverse time, in units of ∫g² dt."""
    from scipy.linalg import expm

    c = np.asarray(score(np.zeros((1, n)), 0.5))[0]
    A = 0.5 * np.eye(n) + (np.asarray(score(np.eye(n), 0.5)) - c).T
    block = np.zeros((n + 1, n + 1))
    block[:n, :n], block[:n, n] = A, c
    m = expm(B * block)[:n, n]
    E = expm(B * A)
    V = E @ E.T + np.linalg.solve(A + A.T, E @ E.T - np.eye(n))
    return m, V


for B, delta, n in ((4.0, 0.5, 2), (10.0, 0.1, 1), (2.0, 1.0, 3)):
    add(
        f"reverse law: matrix exponential, B={B}, delta={delta}, D={n}",
        lambda B=B, delta=delta, n=n: kit.check_reverse_law(lambda s: moments_by_expm(s, B, n), B, delta),
    )


# --- networks and training

ACTIVATIONS = {
    "silu": lambda z: z * expit(z),
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "gelu": lambda z: 0.5 * z * (1 + erf(z / math.sqrt(2))),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


def layers_of(seed, *sizes):
    g = rng(seed)
    return [(g.normal(size=(m, n)) / math.sqrt(m), g.normal(size=n)) for m, n in itertools.pairwise(sizes)]


for kind, sizes in (("silu", (3, 8, 2)), ("gelu", (64, 16, 16, 4)), ("relu", (1, 5, 1)), ("sigmoid", (4, 3))):

    def run(kind=kind, sizes=sizes):
        layers = layers_of(150, *sizes)
        act = ACTIVATIONS[kind]

        def call(x):
            """Biases as a column of ones; the last layer is linear."""
            for i, (W, b) in enumerate(layers):
                x = np.column_stack([x, np.ones(len(x))]) @ np.vstack([W, b])
                x = x if i == len(layers) - 1 else act(x)
            return x

        return kit.check_mlp(call, layers, rng(151).normal(size=(5, sizes[0])), kind)

    add(f"MLP: column of ones, {kind}, {sizes}", run)

for sizes in ((2, 6, 2), (10, 20, 3)):

    def run(sizes=sizes):
        (W, b), (U, c) = layers_of(152, *sizes)
        call = lambda x: np.tanh(x @ W + b) @ U + c  # noqa: E731

        def jvp(x, v):
            h = np.tanh(x @ W + b)
            return h @ U + c, ((v @ W) / np.cosh(x @ W + b) ** 2) @ U

        x, v = rng(153).normal(size=(2, 4, sizes[0]))
        return kit.check_jvp(jvp, call, x, v)

    add(f"JVP: 1/cosh², {sizes}", run)

for name, sigmoid in (
    ("expit", expit),
    ("tanh", lambda z: 0.5 + 0.5 * np.tanh(0.5 * z)),
    ("exp of −log1p(exp)", lambda z: np.exp(-np.logaddexp(0, -z))),
):

    def run(s=sigmoid):
        z = np.linspace(-12, 12, 41)
        return kit.check_activation(lambda z: z * s(z), lambda z: (z * s(z), s(z) * (1 + z * s(-z))), z)

    add(f"activation: {name}", run)

for n, waves, octaves, classes, plain in ((2, 3, 0, 0, True), (5, 1, 2, 3, True), (1, 4, 1, 2, False)):

    def run(n=n, waves=waves, octaves=octaves, classes=classes, plain=plain):
        g = rng(154)
        x, scale = g.normal(size=(4, n)), g.uniform(0.3, 0.95, size=4)
        std = np.sqrt(1 - scale**2)
        label = np.eye(max(classes, 1))[[0] * 4][:, :classes]
        width = n * (1 + 2 * octaves) + 2 * waves + classes
        W = g.normal(size=(width, n)) / math.sqrt(width)
        mlp = lambda h: np.tanh(h @ W)  # noqa: E731

        def eps_hat(x, a, s):
            a, s = (np.broadcast_to(v, len(x))[:, None].astype(float) for v in (a, s))
            r = np.hypot(a, s)
            f = 2.0 ** np.linspace(-3, 1, waves) if waves > 1 else np.array([0.125])
            turns = 2 * np.log(a / s) * f
            y = x / r
            fine = (y[..., None] * 2.0 ** (1 + np.arange(octaves))).reshape(len(x), -1)
            h = [y, np.cos(fine), np.sin(fine), np.cos(turns), np.sin(turns), label]
            out = mlp(np.hstack(h))
            skip, gain = (s / r**2, a / r) if plain else (0.0, 1.0)
            return skip * x + gain * out

        given = None if plain else (np.zeros(4), np.ones(4))
        return kit.check_noise_network(eps_hat, mlp, x, scale, std, waves, label, octaves, given)

    add(f"noise network: D={n}, {waves} time waves, {octaves} octaves, {classes} classes, {plain}", run)

for name, dim, levels in (("inverse CDF", 3, 4), ("comparison with sums", 1, 2), ("inverse CDF", 2, 16)):

    def run(name=name, dim=dim, levels=levels):
        law = table(155, 4, dim, levels, axis=2)

        def draw(u):
            edges = np.cumsum(law, axis=-1)
            if name == "inverse CDF":
                flat = [np.searchsorted(e, v) for e, v in zip(edges.reshape(-1, levels), np.ravel(u), strict=True)]
                return np.minimum(flat, levels - 1).reshape(u.shape)
            return (u[..., None] > edges[..., :-1]).sum(-1)

        return kit.check_categorical_draw(draw, law)

    add(f"categorical draw: {name}, D={dim}, {levels} levels", run)


def regression(seed, n, p):
    g = rng(seed)
    return g.normal(size=(n, p)), g.normal(size=n), 0.5 + g.uniform(size=p)


for name, p in (("least squares", 3), ("logistic", 12), ("logistic", 1)):

    def run(name=name, p=p):
        X, y, at = regression(156, 20, p)
        sign = np.sign(y)
        if name == "least squares":
            loss, grad = (lambda w: np.mean((X @ w - y) ** 2)), (lambda w: 2 * X.T @ (X @ w - y) / len(y))
        else:
            loss = lambda w: np.logaddexp(0, -sign * (X @ w)).mean()  # noqa: E731
            grad = lambda w: -(sign * expit(-sign * (X @ w))) @ X / len(y)  # noqa: E731
        return kit.check_gradient(loss, grad, at, np.eye(p))

    add(f"gradient: {name}, P={p}", run)

for name, n in (("squared error", 2), ("softplus", 9), ("log-cosh", 4)):

    def run(name=name, n=n):
        at, target = rng(157).normal(size=(2, 5, n))
        both, other = {
            "squared error": (
                lambda a: (((a - target) ** 2).sum(1), 2 * (a - target)),
                lambda a: np.linalg.norm(target - a, axis=1) ** 2,
            ),
            "softplus": (lambda a: (np.logaddexp(0, a).sum(1), expit(a)), lambda a: np.log(1 + np.exp(a)).sum(1)),
            "log-cosh": (
                lambda a: ((np.logaddexp(a, -a) - math.log(2)).sum(1), np.tanh(a)),
                lambda a: np.log(np.cosh(a)).sum(1),
            ),
        }[name]
        return kit.check_loss_gradient(both, other, at)

    add(f"loss gradient: {name}, D={n}", run)

for p, weighted in ((2, False), (7, True), (1, True)):

    def run(p=p, weighted=weighted):
        X, y, at = regression(158, 15, p)
        weight = rng(159).uniform(0.5, 2, size=15) if weighted else 1.0

        def step(w):
            error = X @ w - y
            return error**2, np.mean(np.reshape(2 * error * weight, (-1, 1)) * X, axis=0)

        return kit.check_training_step(step, lambda w: np.square(y - X @ w), at, weight)

    add(f"training step: least squares, P={p}, weights {weighted}", run)


class AdamW:
    """torch's order: decay first, then the step with bias corrections in the step size."""

    def __init__(self, size, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
        self.m, self.v, self.k = np.zeros(size), np.zeros(size), 0
        self.b1, self.b2, self.eps, self.decay = b1, b2, eps, decay

    def step(self, w, g, lr):
        self.k += 1
        w = w * (1 - lr * self.decay)
        self.m += (1 - self.b1) * (g - self.m)
        self.v = self.b2 * self.v + (1 - self.b2) * np.square(g)
        root = np.sqrt(self.v) / math.sqrt(1 - self.b2**self.k) + self.eps
        return w - lr / (1 - self.b1**self.k) * self.m / root


for p, n, decay, b1 in ((3, 8, 0.0, 0.9), (10, 30, 0.1, 0.9), (1, 1, 0.01, 0.5)):

    def run(p=p, n=n, decay=decay, b1=b1):
        def steps(w, grads):
            adam, out = AdamW(len(w), b1, 0.99, decay=decay), []
            for g in grads:
                w = adam.step(w, g, 0.02)
                out.append(w)
            return out

        g = rng(160)
        return kit.check_adam(steps, g.normal(size=p), g.normal(size=(n, p)), 0.02, b1, 0.99, weight_decay=decay)

    add(f"Adam: torch's order, P={p}, {n} steps, decay {decay}", run)


def rate_of(k, n, top, warm):
    return top * (k + 1) / warm if k < warm else top * math.cos(0.5 * math.pi * (k - warm) / (n - warm)) ** 2


for n, warm in ((20, 5), (7, 0), (1000, 100)):
    add(
        f"learning rate: cos² of half the angle, {n} steps, warm-up {warm}",
        lambda n=n, warm=warm: kit.check_learning_rate(lambda k: rate_of(k, n, 3e-4, warm), n, 3e-4, warm),
    )

for p, n, decay in ((2, 5, 0.999), (4, 40, 0.7), (1, 1, 0.9)):

    def run(p=p, n=n, decay=decay):
        def average(mean, params):
            out = np.empty_like(params)
            for k, w in enumerate(params, start=1):
                mean = mean + (1 - min(decay, (1 + k) / (10 + k))) * (w - mean)
                out[k - 1] = mean
            return out

        return kit.check_moving_average(average, rng(161).normal(size=p), rng(162).normal(size=(n, p)), decay)

    add(f"moving average: lerp, P={p}, {n} steps, decay {decay}", run)

for p, n, warm, decay, ema in ((2, 12, 3, 0.0, None), (4, 8, 0, 0.05, 0.99), (3, 20, 5, 0.01, 0.5)):

    def run(p=p, n=n, warm=warm, decay=decay, ema=ema):
        X, y, at = regression(163, 4 * n, p)
        batch = lambda k: (X[4 * k : 4 * k + 4], y[4 * k : 4 * k + 4])  # noqa: E731

        def loss(w, k):
            a, b = batch(k)
            return np.mean((a @ w - b) ** 2)

        def train(w):
            adam, mean, losses = AdamW(p, decay=decay), w.copy(), []
            for k in range(n):
                a, b = batch(k)
                losses.append(loss(w, k))
                w = adam.step(w, 2 * a.T @ (a @ w - b) / len(b), rate_of(k, n, 0.03, warm))
                d = min(ema or 0.9, (2 + k) / (11 + k))
                mean = d * mean + (1 - d) * w
            return losses, w, mean

        return kit.check_training(train, loss, at, n, 0.03, warm, decay, ema)

    add(f"training: least squares, P={p}, {n} steps, warm-up {warm}, decay {decay}, average {ema}", run)


# --- beyond the deck


def edm(sigma, d):
    total = sigma**2 + d**2
    return d**2 / total, sigma * d / np.sqrt(total), 1 / np.sqrt(total), total / (sigma * d) ** 2


for d in (0.5, 1.0):
    add(f"EDM coefficients: data std {d}", lambda d=d: kit.check_edm_coefficients(lambda s: edm(s, d), d))
for lo, hi, rho in ((0.002, 80.0, 7.0), (0.1, 10.0, 3.0)):

    def run(lo=lo, hi=hi, rho=rho):
        def grid(n, a, b, r):
            return np.append(np.linspace(b ** (1 / r), a ** (1 / r), n) ** r, 0.0)

        return kit.check_sigma_grid(grid, lo, hi, rho)

    add(f"sigma grid: linspace with a last 0, rho {rho}", run)


def exponential(x, d, last, levels, z, c, multi):
    lam = np.log(levels[:, 0] / levels[:, 1])
    h = lam[2] - lam[1]
    d = d + 0.5 * h / (lam[1] - lam[0]) * (d - last) if multi else d
    return (
        levels[2, 1] / levels[1, 1] * np.exp(-(c**2) * h) * x
        - levels[2, 0] * np.expm1(-(1 + c**2) * h) * d
        + levels[2, 1] * np.sqrt(-np.expm1(-2 * c**2 * h)) * z
    )


for c, multi in ((0.0, False), (0.0, True), (1.0, True), (0.5, False)):
    add(
        f"exponential step: stochasticity {c}, multistep {multi}",
        lambda c=c, multi=multi: kit.check_exponential_step(
            lambda *args: exponential(*args, c, multi), stochasticity=c, multistep=multi
        ),
    )


def heun_sigma(denoise, x, levels):
    for (a, s), (b, r) in itertools.pairwise(levels):
        y, h = x / a, r / b - s / a
        d = (y - denoise(x, a, s)) / (s / a)
        guess = y + h * d
        x = b * (y + h / 2 * (d + (guess - denoise(b * guess, b, r)) / (r / b)))
    return x


def ddim_levels(denoise, x, levels):
    for (a, s), (b, r) in itertools.pairwise(levels):
        x0 = denoise(x, a, s)
        x = b * x0 + r / s * (x - a * x0)
    return x


def ancestral_levels(denoise, x, levels, noise):
    for (a, s), (b, r), z in zip(levels[:-1], levels[1:], noise, strict=True):
        x = exponential(x, denoise(x, a, s), None, np.array([[1, 1], [a, s], [b, r]]), z, 1.0, False)
    return x


for f, order in ((heun_sigma, 2.0), (ddim_levels, 1.0)):
    add(
        f"flow order: {f.__name__}",
        lambda f=f, order=order: kit.check_flow_order(f, law_of(MIXTURES[1][1]), order),
        slow=True,
    )
add("weak order: ancestral, D=2", lambda: kit.check_weak_order(ancestral_levels, *gaussian(170, 2)), slow=True)

for name, level, velocity, i in (
    ("rectified flow", lambda t: (1 - t, t), lambda x, e, t: e - x, 0),
    (
        "cosine path",
        lambda t: (math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t)),
        lambda x, e, t: math.pi / 2 * (math.cos(math.pi / 2 * t) * e - math.sin(math.pi / 2 * t) * x),
        1,
    ),
):
    add(
        f"flow velocity: {name}",
        lambda level=level, f=velocity, i=i: kit.check_flow_velocity(
            f, level, law_of(MIXTURES[i][1]), np.array([0.2, 0.5, 0.8])
        ),
    )

for words, sde, lam in (("VP", VP(0.1, 8.0), 1.0), ("VE", VE(0.1, 5.0), 0.6)):

    def run(sde=sde, lam=lam):
        law = law_of(MIXTURES[0][1])

        def drift(x, t):
            f, g = rates(sde, t)
            return f * x - 0.5 * (1 + lam**2) * g**2 * law.diffuse(*sde.level(t)).score(x)

        return kit.check_fokker_planck(
            drift, lambda t: lam * float(sde.diffusion(t)), sde.level, law, np.array([0.2, 0.6])
        )

    add(f"Fokker-Planck: {words}, stochasticity {lam}", run)


def missing(x, w, m, C):
    r = responsibilities(joint_einsum)(x, w, m, C)
    d, n, k = x[:, None] - m, m.shape[1], len(w)
    pull = np.einsum("nki,kij->nkj", d, np.linalg.inv(C))
    both = np.einsum("nk,kj->nkj", r, np.eye(k)) - r[:, :, None] * r[:, None]
    J = np.einsum("nkj,nka,njb->kajb", both, d, pull) / r.sum(0)[:, None, None, None]
    return np.sort(np.linalg.eigvals(J.reshape(k * n, k * n)).real)[::-1]


for i in (0, 1):
    add(
        f"missing information: Jacobian of the means, {MIXTURES[i][0]}",
        lambda i=i: kit.check_missing_information(missing, *MIXTURES[i][1]),
    )

for words, sde in (("VP", VP(0.1, 8.0)), ("EDM", kit.EDM(4.0))):

    def run(sde=sde):
        p = Mixture([0.3, 0.7], [[-1.0], [0.8]], [[[0.4]], [[0.6]]])
        q = Mixture([1.0], [[0.3]], [[[1.5]]])
        x = np.linspace(-60, 60, 24001)[:, None]

        def rate(t):
            a, b = p.diffuse(*sde.level(t)), q.diffuse(*sde.level(t))
            square = ((a.score(x) - b.score(x)) ** 2).sum(1) * np.exp(a.log_prob(x))
            return -0.5 * float(sde.diffusion(t)) ** 2 * square.sum() * (x[1, 0] - x[0, 0])

        return kit.check_kl_rate(rate, sde, p, q, np.array([0.2, 0.5, 0.9]) * sde.horizon)

    add(f"KL rate: sum on an even grid, {words}", run, slow=True)


def run_information():
    def information(sde, loss, t_min):
        lo, hi = (float(sde.log_snr(t)) for t in (sde.horizon, t_min))
        return 0.5 * integral(lambda u: float(loss(float(sde.time_at(u)))), lo, hi, 8)

    laws = [Mixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.3]], [[0.3]]])]
    return kit.check_mutual_information(information, [(VP(0.1, 8.0), 0.02), (kit.EDM(5.0), 0.1)], laws)


add("mutual information: Gauss-Legendre in log-SNR, D=1", run_information, slow=True)


def run_tilted():
    law, label = law_of(MIXTURES[1][1]), np.array([0.2, 0.9])
    grid = np.linspace(-25, 25, 10001)[:, None]

    def score(x, scale, std, w):
        logs = law.log_prob(grid) + w * np.log(law.posterior(grid) @ label)
        p = softmax(logs - 0.5 * ((x - scale * grid.T) / std) ** 2, axis=1)
        return (scale * p @ grid - x) / std**2

    return kit.check_tilted_score(score, law, label, np.array([[0.9, 0.5], [0.5, 0.8]]))


add("tilted score: even grid over x0, D=1", run_tilted, slow=True)


def run_processing():
    s = SCHEDULES["linear, T=12"]

    def density(net, v):
        m, square = 0.0, 1.0
        for t in range(s.T, 0, -1):
            b = float(np.ravel(net(np.zeros((1, 1)), t))[0])
            a = float(np.ravel(net(np.ones((1, 1)), t))[0]) - b
            k = s.beta[t] ** 2 / s.beta_bar[t]
            m, square = (m - k * (a * m + b)) / s.alpha[t], ((1 - k * a) / s.alpha[t]) ** 2 * square + v[t]
        x = m + max(1.0, math.sqrt(square)) * np.linspace(-12, 12, 4001)
        return x, np.exp(-0.5 * (x - m) ** 2 / square) / math.sqrt(2 * math.pi * square)

    return kit.check_data_processing(density, s)


add("data processing: moments of the chain, linear, T=12", run_processing)
