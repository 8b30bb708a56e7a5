"""Fifth battery, right implementations: codings crossed with conventions, precisions, schedules, D and T."""

import math

import numpy as np
from scipy.special import erf, expit, log_ndtr, logsumexp, ndtr, softmax

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

            add(f"{check.__name__ if hasattr(check, '__name__') else 'check'}: {name}, {label}, {np.dtype(dtype)}", run)


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
    return lambda t, x, x0: (h.c1[t - 1] * x0 + h.c2[t - 1] * x, h.pvar[t - 1])


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
    return lambda t, x, x0: (h.c1[t - 1] * x0 + h.c2[t - 1] * x, np.exp(logs[t - 1]))


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
    return lambda t, x, e: h.recip[t - 1] * x - h.recipm1[t - 1] * e


def x0_score(s, dtype):
    h = Ho(s, dtype)

    def predict(t, x, e):
        i = np.reshape(t, (-1, 1)) - 1
        score = -e / h.sm[i]
        return (x + h.sm[i] ** 2 * score) / h.sa[i]

    return predict


def x0_edm(s, dtype):
    e_ = Sigmas(s, dtype)
    return lambda t, x, e: x / e_.scale[t] - e_.sigma[t] * e


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
        lambda make=make, s=SCHEDULES[label], d=dtype: judged(kit.check_ddim_inversion(cast(make(s, d), d), s), d),
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
        i = t - 1
        true = h.c1[i] * x0 + h.c2[i] * x
        model = h.c1[i] * (h.recip[i] * x - h.recipm1[i] * e) + h.c2[i] * x
        return normal_kl(true, np.log(h.pvar[i]), model, np.log(v[t])).sum(1)

    return term


def kl_noise(s, v):
    def term(t, x0, x, e):
        eps = (x - s.alpha_bar[t] * x0) / s.beta_bar[t]
        ratio = s.beta_tilde[t] ** 2 / v[t]
        factor = s.beta[t] ** 4 / (2 * v[t] * s.alpha[t] ** 2 * s.beta_bar[t] ** 2)
        return factor * ((eps - e) ** 2).sum(1) + x0.shape[1] / 2 * (ratio - 1 - np.log(ratio))

    return term


def kl_snr(s, v):
    """VDM: the factor of the squared error of x̂_0 in SNRs, for the variance of the posterior 0.5 (SNR_s − SNR_t)."""

    def term(t, x0, x, e):
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
