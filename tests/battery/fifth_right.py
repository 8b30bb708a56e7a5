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
