"""Right implementations of the chain, its reverse process, bounds, losses, training and networks."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import integrate, special, stats

import scratchgen.conformance as kit
from scratchgen import VE, VP, NoiseSchedule, SubVP
from tests.battery.case import Right

Any_ = Any
F = Callable[..., Any_]
F32, F64 = np.float32, np.float64
CASES: list[Right] = []


def add(name: str, run: Callable[[], kit.Check], slow: bool = False) -> None:
    CASES.append(Right(name, run, slow))


# The betas (variances) of several schedules.


def ho(T: int = 1000) -> Any_:
    return np.linspace(1e-4, 0.02, T)


def lucid_linear(T: int) -> Any_:
    return np.linspace(1e-4 * 1000 / T, 0.02 * 1000 / T, T)


def scaled_linear(T: int) -> Any_:
    return np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2


def cosine(T: int, s: float = 0.008) -> Any_:
    f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def vp_steps(T: int, low: float = 0.1, high: float = 20.0) -> Any_:
    s = np.arange(T + 1) / T
    return -np.expm1(-np.diff(low * s + 0.5 * (high - low) * s**2))


def constant(T: int, value: float) -> Any_:
    return np.full(T, value)


def uneven(T: int, seed: int = 0, low: float = 0.05, high: float = 0.6) -> Any_:
    return np.random.default_rng(seed).uniform(low, high, T)


BETAS: dict[str, Any_] = {
    "Ho's 1000 betas": ho(),
    "lucidrains linear T=50": lucid_linear(50),
    "scaled linear T=100": scaled_linear(100),
    "cosine T=20": cosine(20),
    "cosine T=200": cosine(200),
    "VP T=10": vp_steps(10),
    "VP T=40": vp_steps(40),
    "constant .02 T=30": constant(30, 0.02),
    "constant .3 T=6": constant(6, 0.3),
    "random T=8": uneven(8),
    "random T=15": uneven(15, 1),
    "falling T=12": np.linspace(0.5, 0.02, 12),
    "T=1": np.array([0.37]),
    "T=2": np.array([0.2, 0.45]),
    "T=3": np.array([0.5, 0.1, 0.9]),
}
TAME = "random T=8", "constant .3 T=6", "VP T=10", "random T=15", "T=3", "T=2"


def chain(betas: Any_) -> NoiseSchedule:
    return NoiseSchedule(betas)


class Ho:
    """Tables of Ho's code, counted from 0; computed in float64 and then stored in another type."""

    def __init__(self, betas: Any_, kind: Any_ = F64) -> None:
        b = np.asarray(betas, F64)
        cum = np.cumprod(1 - b)
        before = np.append(1.0, cum[:-1])
        self.T = len(b)
        self.betas = b.astype(kind)
        self.alphas = (1 - b).astype(kind)
        self.cum = cum.astype(kind)
        self.cum_prev = before.astype(kind)
        self.rest = (1 - cum).astype(kind)
        self.rest_prev = (1 - before).astype(kind)
        self.root = np.sqrt(cum).astype(kind)
        self.root_rest = np.sqrt(1 - cum).astype(kind)
        self.recip = np.sqrt(1 / cum).astype(kind)
        self.recipm1 = np.sqrt(1 / cum - 1).astype(kind)
        self.var = (b * (1 - before) / (1 - cum)).astype(kind)
        self.coef1 = (b * np.sqrt(before) / (1 - cum)).astype(kind)
        self.coef2 = ((1 - before) * np.sqrt(1 - b) / (1 - cum)).astype(kind)


class Deck:
    """Tables with entry 0 for clean data, by logarithms."""

    def __init__(self, betas: Any_, kind: Any_ = F64) -> None:
        b = np.append(0.0, np.asarray(betas, F64))
        log = np.cumsum(np.log1p(-b))
        self.T = len(b) - 1
        self.beta = np.sqrt(b).astype(kind)
        self.b2 = b.astype(kind)
        self.alpha = np.exp(0.5 * np.log1p(-b)).astype(kind)
        self.scale = np.exp(0.5 * log).astype(kind)
        self.std = np.sqrt(-np.expm1(log)).astype(kind)
        self.total = (-np.expm1(log)).astype(kind)
        self.log = log
        tilde = np.zeros_like(b)
        tilde[2:] = b[2:] * np.expm1(log[1:-1]) / np.expm1(log[2:])
        self.tilde2 = tilde.astype(kind)


def pick(table: Any_, t: Any_) -> Any_:
    """The entry of a step, or a column of entries for an array of steps."""
    value = table[t]
    return value[:, None] if np.ndim(t) else value


def scalar_only(t: Any_) -> int:
    if np.ndim(t):
        raise TypeError("one step only")
    return int(t)


def single(f: F) -> F:
    """The function within float32: arrays arrive in float32, and functions among the arguments return it."""

    def low(a: Any_) -> Any_:
        if callable(a):
            return lambda *r: np.asarray(a(*r), F32)
        if isinstance(a, np.ndarray) and a.dtype == F64:
            return a.astype(F32)
        return a

    return lambda *args: f(*[low(a) for a in args])


def softplus(x: Any_) -> Any_:
    return np.logaddexp(0, x)


def gammas(betas: Any_) -> Any_:
    """The γ_t = −log SNR of Kingma et al. for t = 1..T, at index t−1."""
    return np.log(np.expm1(-np.cumsum(np.log1p(-betas))))


def wave(x: Any_, t: Any_) -> Any_:
    """A smooth network of every entry."""
    return 0.6 * np.tanh(x) + 0.1 * np.sin(0.7 * x + 0.3 * column(t)) + 0.05


def mixing(x: Any_, t: Any_) -> Any_:
    """A smooth network whose entries depend on the whole example."""
    return 0.5 * x + 0.3 * np.tanh(x.sum(-1, keepdims=True) - 0.1 * column(t)) - 0.2 * np.roll(x, 1, -1)


def column(t: Any_) -> Any_:
    return np.asarray(t)[:, None] if np.ndim(t) else t


def draws(seed: int, *shape: int) -> Any_:
    return np.random.default_rng(seed).standard_normal(shape)


# check_schedule


def tables_cumprod(b: Any_) -> Any_:
    cum = np.append(1.0, np.cumprod(1 - b))
    tilde = np.append(0.0, b * (1 - cum[:-1]) / (1 - cum[1:]))
    return np.sqrt(cum), np.sqrt(1 - cum), np.sqrt(tilde)


def tables_logs(b: Any_) -> Any_:
    log = np.append(0.0, np.cumsum(np.log1p(-b)))
    total = -np.expm1(log)
    ratio = total[:-1] / total[1:]
    return np.exp(log / 2), np.sqrt(total), np.append(0.0, np.sqrt(b * ratio))


def tables_recursion(b: Any_) -> Any_:
    scale, var, tilde = [1.0], [0.0], [0.0]
    for value in b.tolist():
        keep = 1 - value
        tilde.append(math.sqrt(1 / (keep / value + 1 / var[-1])) if var[-1] > 0 else 0.0)
        scale.append(scale[-1] * math.sqrt(keep))
        var.append(keep * var[-1] + value)
    return scale, [math.sqrt(v) for v in var], tilde


def tables_vdm(b: Any_) -> Any_:
    g = gammas(b)
    scale = np.sqrt(special.expit(-g))
    std = np.sqrt(special.expit(g))
    step = -np.expm1(softplus(g[:-1]) - softplus(g[1:]))
    tilde = np.sqrt(step * special.expit(g[:-1]) / special.expit(g[1:]))
    return np.append(1, scale), np.append(0, std), np.concatenate([[0, 0], tilde])


def tables_edm(b: Any_) -> Any_:
    cum = np.append(1.0, np.cumprod(1 - b))
    sigma = np.sqrt((1 - cum) / cum)
    scale = 1 / np.sqrt(1 + sigma**2)
    up = sigma[:-1] * np.sqrt(sigma[1:] ** 2 - sigma[:-1] ** 2) / sigma[1:]
    return scale, sigma * scale, np.append(0.0, up * scale[:-1])


def tables_angles(b: Any_) -> Any_:
    """β̄ as the sine of an angle whose cosine is ᾱ: tan² = 1/ᾱ² − 1."""
    cum = np.cumprod(1 - b)
    phi = np.append(0.0, np.arctan(np.sqrt(1 / cum - 1)))
    tilde = np.append(0.0, np.sqrt(b) * np.sin(phi[:-1]) / np.sin(phi[1:]))
    return np.cos(phi), np.sin(phi), tilde


def schedule_case(name: str, tables: F, betas: Any_, kind: Any_ = F64) -> None:
    def run() -> kit.Check:
        given = [np.asarray(a, kind) for a in tables(np.asarray(betas))]
        check = kit.check_schedule(chain(betas), *given)
        return check.at(1e-5) if kind == F32 else check

    add(f"schedule: {name}", run)


for title, key in [
    ("cumprod", "Ho's 1000 betas"),
    ("cumprod", "cosine T=200"),
    ("cumprod", "T=1"),
]:
    schedule_case(f"{title}, {key}", tables_cumprod, BETAS[key])
schedule_case("log1p, Ho's 1000 betas", tables_logs, ho())
schedule_case("log1p, scaled linear T=100", tables_logs, BETAS["scaled linear T=100"])
schedule_case("lists and math, cosine T=20", tables_recursion, cosine(20))
schedule_case("lists and math, random T=15", tables_recursion, BETAS["random T=15"])
schedule_case("sigmoid of log-SNR, VP T=10", tables_vdm, BETAS["VP T=10"])
schedule_case("sigmoid of log-SNR, random T=8", tables_vdm, BETAS["random T=8"])
schedule_case("from sigmas, constant .3 T=6", tables_edm, BETAS["constant .3 T=6"])
schedule_case("angles, T=3", tables_angles, BETAS["T=3"])
schedule_case("float32 tables from float64, Ho's 1000 betas", tables_cumprod, ho(), F32)
schedule_case("float32 tables from logs, VP T=40", tables_logs, BETAS["VP T=40"], F32)


def tables_vp(b: Any_) -> Any_:
    s = np.arange(len(b) + 1) / len(b)
    integral = 0.1 * s + 0.5 * 19.9 * s**2
    return np.exp(-integral / 2), np.sqrt(-np.expm1(-integral))


def tables_power(b: Any_) -> Any_:
    t = np.arange(len(b) + 1)
    log = t * np.log1p(-b[0])
    return np.exp(log / 2), np.sqrt(-np.expm1(log))


schedule_case("closed form of VP, T=40, no posterior", tables_vp, vp_steps(40))
schedule_case("powers of one factor, T=30, no posterior", tables_power, constant(30, 0.02))


# Kernels: every coding is a factory betas → function, so that the codings of one check can be compared.


def step_plain(b: Any_, kind: Any_ = F64) -> F:
    d = Deck(b, kind)
    return lambda t, x, e: pick(d.alpha, t) * x + pick(d.beta, t) * e


def step_ho(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b, kind)
    return lambda t, x, e: np.sqrt(1 - pick(h.betas, t - 1)) * x + np.sqrt(pick(h.betas, t - 1)) * e


def step_log(b: Any_, kind: Any_ = F64) -> F:
    def step(t: Any_, x: Any_, e: Any_) -> Any_:
        now = b[scalar_only(t) - 1]
        return math.exp(0.5 * math.log1p(-now)) * x + math.exp(0.5 * math.log(now)) * e

    return step


def step_vdm(b: Any_, kind: Any_ = F64) -> F:
    soft = np.append(0.0, softplus(gammas(b)))

    def step(t: Any_, x: Any_, e: Any_) -> Any_:
        change = pick(soft, t - 1) - pick(soft, t)
        return np.exp(change / 2) * x + np.sqrt(-np.expm1(change)) * e

    return step


def step_matrix(b: Any_, kind: Any_ = F64) -> F:
    pairs = np.stack([np.sqrt(1 - b), np.sqrt(b)], 1)

    def step(t: Any_, x: Any_, e: Any_) -> Any_:
        rows = np.broadcast_to(pairs[np.asarray(t) - 1], (len(x), 2))
        return np.einsum("nc,cnd->nd", rows, np.stack([x, e]))

    return step


def step_sde(b: Any_, kind: Any_ = F64) -> F:
    """x + f with f = (√(1−β) − 1) x and the diffusion G, as the discretisation of score_sde."""
    root = np.sqrt(b)

    def step(t: Any_, x: Any_, e: Any_) -> Any_:
        f = np.sqrt(1 - pick(b, t - 1)) * x - x
        return x + f + pick(root, t - 1) * e

    return step


def step_rows(b: Any_, kind: Any_ = F64) -> F:
    def step(t: Any_, x: Any_, e: Any_) -> Any_:
        out = np.empty_like(x)
        for n, now in enumerate(np.broadcast_to(t, (len(x),))):
            for d in range(x.shape[1]):
                out[n, d] = math.sqrt(1 - b[now - 1]) * x[n, d] + math.sqrt(b[now - 1]) * e[n, d]
        return out

    return step


def sample_plain(b: Any_, kind: Any_ = F64) -> F:
    d = Deck(b, kind)
    return lambda t, x, e: pick(d.scale, t) * x + pick(d.std, t) * e


def sample_ho(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b, kind)
    return lambda t, x, e: pick(h.root, t - 1) * x + pick(h.root_rest, t - 1) * e


def sample_edm(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b)
    return lambda t, x, e: (x + pick(h.recipm1, t - 1) * e) / pick(h.recip, t - 1)


def sample_vdm(b: Any_, kind: Any_ = F64) -> F:
    g = gammas(b)

    def sample(t: Any_, x: Any_, e: Any_) -> Any_:
        now = pick(g, t - 1)
        return np.sqrt(special.expit(-now)) * x + np.sqrt(special.expit(now)) * e

    return sample


def sample_flow(b: Any_, kind: Any_ = F64) -> F:
    """On the line (1 − s) x_0 + s ε of flow matching, then rescaled."""
    h = Ho(b)

    def sample(t: Any_, x: Any_, e: Any_) -> Any_:
        size = pick(h.root, t - 1) + pick(h.root_rest, t - 1)
        s = pick(h.root_rest, t - 1) / size
        return size * (x + s * (e - x))

    return sample


def sample_angle(b: Any_, kind: Any_ = F64) -> F:
    phi = np.arcsin(np.sqrt(1 - np.cumprod(1 - b)))

    def sample(t: Any_, x: Any_, e: Any_) -> Any_:
        z = (x - 1j * e) * np.exp(1j * pick(phi, t - 1))
        return z.real

    return sample


def sample_product(b: Any_, kind: Any_ = F64) -> F:
    def sample(t: Any_, x: Any_, e: Any_) -> Any_:
        keep = 1.0
        for value in b[: scalar_only(t)]:
            keep *= 1.0 - float(value)
        return keep**0.5 * x + (1 - keep) ** 0.5 * e

    return sample


def posterior_ho(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b, kind)
    return lambda t, x, x0: (pick(h.coef1, t - 1) * x0 + pick(h.coef2, t - 1) * x, pick(h.var, t - 1))


def posterior_precisions(b: Any_, kind: Any_ = F64) -> F:
    d = Deck(b)

    def q(t: Any_, x: Any_, x0: Any_) -> Any_:
        t = scalar_only(t)
        if t == 1:
            return x0 + 0 * x, 0.0
        here, before = d.alpha[t] ** 2 / d.b2[t], 1 / d.total[t - 1]
        return (here * (x / d.alpha[t]) + before * (d.scale[t - 1] * x0)) / (here + before), 1 / (here + before)

    return q


def posterior_square(b: Any_, kind: Any_ = F64) -> F:
    """−½(a u² − 2 c u): the two quadratics in u = x_{t−1} times β² β̄_{t−1}², so that t = 1 needs no branch."""
    d = Deck(b)

    def q(t: Any_, x: Any_, x0: Any_) -> Any_:
        one, prev = pick(d.b2, t), pick(d.total, t - 1)
        a = pick(d.alpha, t) ** 2 * prev + one
        c = pick(d.alpha, t) * prev * x + pick(d.scale, t - 1) * one * x0
        return c / a, np.broadcast_to(one * prev / a, x.shape)

    return q


def posterior_joint(b: Any_, kind: Any_ = F64) -> F:
    """Conditioning of the joint Gaussian of (x_{t−1}, x_t) given x_0."""
    d = Deck(b)

    def q(t: Any_, x: Any_, x0: Any_) -> Any_:
        t = scalar_only(t)
        prev = d.total[t - 1]
        joint = np.array([[prev, d.alpha[t] * prev], [d.alpha[t] * prev, d.alpha[t] ** 2 * prev + d.b2[t]]])
        gain = joint[0, 1] / joint[1, 1]
        mean = d.scale[t - 1] * x0 + gain * (x - d.scale[t] * x0)
        return mean, np.full(x.shape[1], np.linalg.det(joint) / joint[1, 1])

    return q


def posterior_snr(b: Any_, kind: Any_ = F64) -> F:
    g = np.append(-np.inf, gammas(b))
    soft = softplus(g)

    def q(t: Any_, x: Any_, x0: Any_) -> Any_:
        g_s, g_t = pick(g, t - 1), pick(g, t)
        change = pick(soft, t - 1) - pick(soft, t)
        step, shrink = -np.expm1(change), special.expit(g_s) / special.expit(g_t)
        mean = np.exp(change / 2) * shrink * x + np.sqrt(special.expit(-g_s)) * step / special.expit(g_t) * x0
        return mean, step * shrink

    return q


def posterior_noise(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b)

    def q(t: Any_, x: Any_, x0: Any_) -> Any_:
        e = (x - pick(h.root, t - 1) * x0) / pick(h.root_rest, t - 1)
        var = pick(h.var, t - 1)
        rest = np.sqrt(np.maximum(pick(h.rest_prev, t - 1) - var, 0))
        return np.sqrt(pick(h.cum_prev, t - 1)) * x0 + rest * e, var

    return q


def posterior_sigma(b: Any_, kind: Any_ = F64) -> F:
    d = Deck(b)
    sigma2 = d.total / d.scale**2

    def q(t: Any_, x: Any_, x0: Any_) -> Any_:
        back = pick(d.scale, t - 1)
        share = pick(sigma2, t - 1) / pick(sigma2, t)
        mean = x0 + share * (x / pick(d.scale, t) - x0)
        return back * mean, back**2 * share * (pick(sigma2, t) - pick(sigma2, t - 1))

    return q


def posterior_reparameterised(b: Any_, kind: Any_ = F64) -> F:
    """The mean by the noise of x_t, and the variance as β² times a ratio."""
    d = Deck(b)

    def q(t: Any_, x: Any_, x0: Any_) -> Any_:
        e = (x - pick(d.scale, t) * x0) / pick(d.std, t)
        mean = (x - pick(d.b2, t) / pick(d.std, t) * e) / pick(d.alpha, t)
        return mean, (pick(d.beta, t) * pick(d.std, t - 1) / pick(d.std, t)) ** 2

    return q


def posterior_clipped(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b, kind)
    log = np.log(np.append(h.var[1], h.var[1:]))
    return lambda t, x, x0: (pick(h.coef1, t - 1) * x0 + pick(h.coef2, t - 1) * x, np.exp(pick(log, t - 1)))


def kernel_cases(check: F, label: str, codings: list[tuple[str, F, tuple[str, ...]]], **options: Any_) -> None:
    for name, factory, keys in codings:
        for key in keys:

            def run(factory: F = factory, key: str = key) -> kit.Check:
                b = BETAS[key]
                return check(factory(b), chain(b), **options)

            add(f"{label}: {name}, {key}", run)


def kernel_single(check: F, label: str, codings: list[tuple[str, F, tuple[str, ...]]], **options: Any_) -> None:
    for name, factory, keys in codings:
        for key in keys:

            def run(factory: F = factory, key: str = key) -> kit.Check:
                b = BETAS[key]
                return check(single(factory(b, F32)), chain(b), **options).at(1e-5)

            add(f"{label}: {name} in float32, {key}", run)


STEPS = [
    ("tables of the deck", step_plain, ("Ho's 1000 betas", "cosine T=20", "T=1")),
    ("counted from 0", step_ho, ("lucidrains linear T=50", "T=3")),
    ("logarithms, ints only", step_log, ("VP T=40", "falling T=12")),
    ("softplus of log-SNR", step_vdm, ("random T=8", "constant .3 T=6")),
    ("einsum of coefficients", step_matrix, ("random T=15", "cosine T=200")),
    ("drift and diffusion", step_sde, ("VP T=10", "scaled linear T=100")),
    ("loops over entries", step_rows, ("T=2", "random T=8")),
]
kernel_cases(kit.check_forward_step, "forward step", STEPS)
kernel_single(kit.check_forward_step, "forward step", [("counted from 0", step_ho, ("Ho's 1000 betas", "VP T=10"))])

SAMPLES = [
    ("tables of the deck", sample_plain, ("Ho's 1000 betas", "T=2")),
    ("counted from 0", sample_ho, ("cosine T=200", "lucidrains linear T=50")),
    ("sigmas", sample_edm, ("VP T=40", "falling T=12")),
    ("sigmoid of log-SNR", sample_vdm, ("random T=8", "constant .3 T=6")),
    ("straight line rescaled", sample_flow, ("random T=15", "VP T=10")),
    ("complex rotation", sample_angle, ("T=3", "random T=8")),
    ("product in a loop, ints only", sample_product, ("cosine T=20", "T=1")),
]
kernel_cases(kit.check_forward_process, "forward process", SAMPLES)
kernel_single(
    kit.check_forward_process, "forward process", [("counted from 0", sample_ho, ("cosine T=20", "constant .02 T=30"))]
)

POSTERIORS = [
    ("two coefficients", posterior_ho, ("Ho's 1000 betas", "cosine T=20", "T=1")),
    ("precisions, ints only", posterior_precisions, ("VP T=40", "random T=15")),
    ("completing the square", posterior_square, ("cosine T=200", "T=3")),
    ("joint Gaussian", posterior_joint, ("random T=8", "constant .3 T=6")),
    ("log-SNR", posterior_snr, ("VP T=10", "T=2")),
    ("noise and fresh part", posterior_noise, ("random T=8", "random T=15")),
    ("sigmas", posterior_sigma, ("constant .3 T=6", "T=3")),
    ("noise of x_t", posterior_reparameterised, ("VP T=10", "falling T=12")),
]
kernel_cases(kit.check_posterior, "posterior", POSTERIORS)
kernel_cases(
    kit.check_posterior,
    "clipped posterior",
    [("log-variance with entry 2 first", posterior_clipped, ("Ho's 1000 betas", "cosine T=20", "T=2"))],
    clipped=True,
)
kernel_single(
    kit.check_posterior, "posterior", [("two coefficients", posterior_ho, ("VP T=10", "lucidrains linear T=50"))]
)


# check_noise_merging: a reflection of the plane of (ε̄_{t−1}, ε_t)


def merge_direct(b: Any_, kind: Any_ = F64) -> tuple[F, F]:
    d = Deck(b, kind)

    def merge(t: Any_, e1: Any_, e2: Any_) -> Any_:
        c = pick(d.alpha, t) * pick(d.std, t - 1) / pick(d.std, t)
        s = pick(d.beta, t) / pick(d.std, t)
        return c * e1 + s * e2, s * e1 - c * e2

    def split(t: Any_, e: Any_, w: Any_) -> Any_:
        return (pick(d.beta, t) * e - pick(d.alpha, t) * pick(d.std, t - 1) * w) / pick(d.std, t)

    return merge, split


def merge_angle(b: Any_, kind: Any_ = F64) -> tuple[F, F]:
    d = Deck(b)
    angle = np.append(0.0, np.arctan2(d.beta[1:], d.alpha[1:] * d.std[:-1]))

    def merge(t: Any_, e1: Any_, e2: Any_) -> Any_:
        z = np.exp(1j * pick(angle, t)) * np.conj(e1 + 1j * e2)
        return z.real, z.imag

    def split(t: Any_, e: Any_, w: Any_) -> Any_:
        return (np.exp(1j * pick(angle, t)) * np.conj(e + 1j * w)).imag

    return merge, split


def merge_householder(b: Any_, kind: Any_ = F64) -> tuple[F, F]:
    """R = I − 2 n nᵀ with n along (1 − c, −s): it maps (c, s) to the first axis."""
    d = Deck(b)

    def both(t: Any_, pair: Any_) -> Any_:
        c, s = d.alpha[t] * d.std[t - 1] / d.std[t], d.beta[t] / d.std[t]
        n = np.array([1 - c, -s]) / math.hypot(1 - c, s)
        return np.einsum("ij,jnd->ind", np.eye(2) - 2 * np.outer(n, n), pair)

    def merge(t: Any_, e1: Any_, e2: Any_) -> Any_:
        return tuple(both(scalar_only(t), np.stack([e1, e2])))

    def split(t: Any_, e: Any_, w: Any_) -> Any_:
        return both(scalar_only(t), np.stack([e, w]))[1]

    return merge, split


def merge_solve(b: Any_, kind: Any_ = F64) -> tuple[F, F]:
    """The split by solving the two equations of the merge."""
    d = Deck(b)

    def matrix(t: int) -> Any_:
        row = np.array([d.alpha[t] * d.std[t - 1], d.beta[t]])
        return np.stack([row, [row[1], -row[0]]]) / np.linalg.norm(row)

    def merge(t: Any_, e1: Any_, e2: Any_) -> Any_:
        m = matrix(scalar_only(t))
        return m[0, 0] * e1 + m[0, 1] * e2, m[1, 0] * e1 + m[1, 1] * e2

    def split(t: Any_, e: Any_, w: Any_) -> Any_:
        both = np.linalg.solve(matrix(scalar_only(t)), np.stack([e.ravel(), w.ravel()]))
        return both[1].reshape(e.shape)

    return merge, split


MERGES = [
    ("two rows", merge_direct, ("Ho's 1000 betas", "cosine T=20", "T=1")),
    ("conjugate and phase", merge_angle, ("random T=15", "VP T=10")),
    ("Householder", merge_householder, ("random T=8", "constant .3 T=6")),
    ("linear solve", merge_solve, ("T=3", "VP T=40")),
]
for title, merging, where in MERGES:
    for key in where:

        def run_merge(merging: F = merging, key: str = key) -> kit.Check:
            return kit.check_noise_merging(*merging(BETAS[key]), chain(BETAS[key]))

        add(f"noise merging: {title}, {key}", run_merge)


def run_merge_single() -> kit.Check:
    merge, split = merge_direct(BETAS["random T=8"], F32)
    return kit.check_noise_merging(single(merge), single(split), chain(BETAS["random T=8"])).at(1e-5)


add("noise merging: two rows in float32, random T=8", run_merge_single)


# check_predict_x0


def x0_ho(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b, kind)
    return lambda t, x, e: pick(h.recip, t - 1) * x - pick(h.recipm1, t - 1) * e


def x0_deck(b: Any_, kind: Any_ = F64) -> F:
    d = Deck(b, kind)
    return lambda t, x, e: (x - pick(d.std, t) * e) / pick(d.scale, t)


def x0_score(b: Any_, kind: Any_ = F64) -> F:
    """Tweedie's formula, with the score −ε̂/β̄."""
    h = Ho(b)

    def predict(t: Any_, x: Any_, e: Any_) -> Any_:
        score = -e / pick(h.root_rest, t - 1)
        return (x + pick(h.rest, t - 1) * score) / pick(h.root, t - 1)

    return predict


def x0_edm(b: Any_, kind: Any_ = F64) -> F:
    h = Ho(b)
    sigma = np.sqrt((1 - h.cum) / h.cum)
    return lambda t, x, e: x * np.sqrt(1 + pick(sigma, t - 1) ** 2) - pick(sigma, t - 1) * e


def x0_velocity(b: Any_, kind: Any_ = F64) -> F:
    """v from x_t and ε̂: ᾱ v = ε − β̄ x_t; then x_0 = ᾱ x_t − β̄ v."""
    d = Deck(b)

    def predict(t: Any_, x: Any_, e: Any_) -> Any_:
        a, s = pick(d.scale, t), pick(d.std, t)
        v = (e - s * x) / a
        return a * x - s * v

    return predict


def x0_flow(b: Any_, kind: Any_ = F64) -> F:
    d = Deck(b)

    def predict(t: Any_, x: Any_, e: Any_) -> Any_:
        size = pick(d.scale, t) + pick(d.std, t)
        y, time = x / size, pick(d.std, t) / size
        return y - time * (e - y) / (1 - time)

    return predict


PREDICT = [
    ("reciprocal roots", x0_ho, ("Ho's 1000 betas", "cosine T=20")),
    ("tables of the deck", x0_deck, ("cosine T=200", "T=1")),
    ("score", x0_score, ("VP T=40", "random T=15")),
    ("sigmas", x0_edm, ("scaled linear T=100", "T=3")),
    ("velocity", x0_velocity, ("random T=8", "constant .3 T=6")),
    ("straight line", x0_flow, ("random T=8", "T=2")),
]
kernel_cases(kit.check_predict_x0, "x0", PREDICT)
kernel_single(kit.check_predict_x0, "x0", [("reciprocal roots", x0_ho, ("Ho's 1000 betas", "VP T=10"))])


# check_ancestral_step


def variances(b: Any_, law: str) -> Any_:
    """σ_t² with entry 0: β_t², β̃_t² with β_1² first, or a table between them."""
    h = Ho(b)
    posterior = np.append(h.betas[0], h.var[1:])
    table = {"beta": h.betas, "posterior": posterior, "between": np.sqrt(h.betas * posterior), "twice": 2 * h.betas}
    return np.append(0.0, table[law])


def ancestral_ho(b: Any_, sigma2: Any_, kind: Any_ = F64) -> F:
    h, s = Ho(b, kind), sigma2.astype(kind)

    def step(t: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        mean = (x - pick(h.betas, t - 1) / pick(h.root_rest, t - 1) * e) / np.sqrt(pick(h.alphas, t - 1))
        return mean + np.sqrt(pick(s, t)) * z

    return step


def ancestral_x0(b: Any_, sigma2: Any_, kind: Any_ = F64) -> F:
    h = Ho(b, kind)
    with np.errstate(divide="ignore"):
        log = np.log(sigma2).astype(kind)

    def step(t: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        x0 = pick(h.recip, t - 1) * x - pick(h.recipm1, t - 1) * e
        mean = pick(h.coef1, t - 1) * x0 + pick(h.coef2, t - 1) * x
        return mean + np.exp(0.5 * pick(log, t)) * z

    return step


def ancestral_score(b: Any_, sigma2: Any_, kind: Any_ = F64) -> F:
    d = Deck(b)

    def step(t: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        score = -e / pick(d.std, t)
        return (x + pick(d.b2, t) * score) / np.sqrt(1 - pick(d.b2, t)) + np.sqrt(pick(sigma2, t)) * z

    return step


def ancestral_vdm(b: Any_, sigma2: Any_, kind: Any_ = F64) -> F:
    g = np.append(-np.inf, gammas(b))

    def step(t: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        change = softplus(pick(g, t - 1)) - softplus(pick(g, t))
        var = -np.expm1(change)
        mean = np.exp(-change / 2) * (x - var / np.sqrt(special.expit(pick(g, t))) * e)
        return mean + pick(sigma2, t) ** 0.5 * z

    return step


def ancestral_ddim(b: Any_, sigma2: Any_, kind: Any_ = F64) -> F:
    """x̂_0, the direction to x_t with the posterior variance, and the noise."""
    h = Ho(b)

    def step(t: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        x0 = (x - pick(h.root_rest, t - 1) * e) / pick(h.root, t - 1)
        turn = np.sqrt(np.maximum(pick(h.rest_prev, t - 1) - pick(h.var, t - 1), 0))
        return np.sqrt(pick(h.cum_prev, t - 1)) * x0 + turn * e + np.sqrt(pick(sigma2, t)) * z

    return step


ANCESTRAL = [
    ("Algorithm 2", ancestral_ho, "beta", ("Ho's 1000 betas", "cosine T=20", "T=1")),
    ("x0 and two coefficients", ancestral_x0, "posterior", ("VP T=40", "T=2")),
    ("score", ancestral_score, "between", ("cosine T=200", "random T=15")),
    ("log-SNR", ancestral_vdm, "twice", ("VP T=10", "random T=8")),
    ("direction to x_t", ancestral_ddim, "posterior", ("random T=8", "constant .3 T=6")),
]
for title, coding, law, where in ANCESTRAL:
    for key in where:

        def run_step(coding: F = coding, law: str = law, key: str = key) -> kit.Check:
            b = BETAS[key]
            return kit.check_ancestral_step(coding(b, variances(b, law)), chain(b), variances(b, law))

        add(f"ancestral step: {title}, {law}, {key}", run_step)
for title, coding, key in [
    ("Algorithm 2", ancestral_ho, "lucidrains linear T=50"),
    ("x0", ancestral_x0, "random T=8"),
]:

    def run_single(coding: F = coding, key: str = key) -> kit.Check:
        b = BETAS[key]
        step = single(coding(b, variances(b, "posterior"), F32))
        return kit.check_ancestral_step(step, chain(b), variances(b, "posterior")).at(1e-5)

    add(f"ancestral step: {title} in float32, posterior, {key}", run_single)


# check_ddim_step


def ddim_song(b: Any_, eta: float, kind: Any_ = F64) -> F:
    cum = np.append(1.0, np.cumprod(1 - b)).astype(kind)

    def step(t: Any_, s: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        now, before = pick(cum, t), pick(cum, s)
        c1 = eta * np.sqrt((1 - now / before) * (1 - before) / (1 - now))
        c2 = np.sqrt(np.maximum(1 - before - c1**2, 0))
        return np.sqrt(before) * ((x - e * np.sqrt(1 - now)) / np.sqrt(now)) + c1 * z + c2 * e

    return step


def ddim_logs(b: Any_, eta: float, kind: Any_ = F64) -> F:
    log = np.append(0.0, np.cumsum(np.log1p(-b)))

    def step(t: Any_, s: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        now, before = pick(log, t), pick(log, s)
        v_t, v_s = -np.expm1(now), -np.expm1(before)
        share = -np.expm1(now - before) / v_t
        sigma = eta * np.sqrt(v_s * share)
        direction = np.sqrt(np.maximum(v_s * (1 - eta**2 * share), 0))
        up = np.exp((before - now) / 2)
        return up * x + (direction - up * np.sqrt(v_t)) * e + sigma * z

    return step


def ddim_sigma(b: Any_, eta: float, kind: Any_ = F64) -> F:
    """In the space x/ᾱ: the noise level is first brought down to √(σ_s² − up²), then raised."""
    d = Deck(b)
    sig = d.std / d.scale

    def step(t: Any_, s: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        hi, lo = pick(sig, t), pick(sig, s)
        # η (β̄_s/β̄_t) √(1 − ᾱ_t²/ᾱ_s²) over ᾱ_s
        ratio = np.sqrt((hi**2 - lo**2) / (1 + hi**2))
        noise = eta * lo / hi * np.sqrt(1 + hi**2) * ratio
        down = np.sqrt(np.maximum(lo**2 - noise**2, 0))
        y = x / pick(d.scale, t) + (down - hi) * e
        return pick(d.scale, s) * (y + noise * z)

    return step


def ddim_velocity(b: Any_, eta: float, kind: Any_ = F64) -> F:
    """The deterministic step as a rotation by φ_s − φ_t in the plane of x and v; η is 0."""
    phi = np.append(0.0, np.arctan(np.sqrt(1 / np.cumprod(1 - b) - 1)))

    def step(t: Any_, s: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        hi, lo = pick(phi, t), pick(phi, s)
        v = (e - np.sin(hi) * x) / np.cos(hi)
        return np.cos(lo - hi) * x + np.sin(lo - hi) * v

    return step


def ddim_ints(b: Any_, eta: float, kind: Any_ = F64) -> F:
    def step(t: Any_, s: Any_, x: Any_, e: Any_, z: Any_) -> Any_:
        keep_t = math.prod((1 - b[: scalar_only(t)]).tolist())
        keep_s = math.prod((1 - b[: scalar_only(s)]).tolist())
        x0 = (x - math.sqrt(1 - keep_t) * e) / math.sqrt(keep_t)
        var = eta**2 * (1 - keep_s) / (1 - keep_t) * (1 - keep_t / keep_s)
        return math.sqrt(keep_s) * x0 + math.sqrt(max(1 - keep_s - var, 0.0)) * e + math.sqrt(var) * z

    return step


DDIM = [
    ("Song's code", ddim_song, 0.0, ("Ho's 1000 betas", "cosine T=20")),
    ("Song's code", ddim_song, 1.0, ("VP T=10", "random T=15")),
    ("one factor of x_t, logs", ddim_logs, 0.7, ("VP T=40", "T=3")),
    ("one factor of x_t, logs", ddim_logs, 0.0, ("scaled linear T=100", "T=1")),
    ("sigmas", ddim_sigma, 0.5, ("random T=8", "constant .3 T=6")),
    ("rotation of x and v", ddim_velocity, 0.0, ("random T=8", "T=2")),
    ("products, ints only", ddim_ints, 0.3, ("random T=8", "VP T=10")),
]
for title, coding, level, where in DDIM:
    for key in where:

        def run_ddim(coding: F = coding, level: float = level, key: str = key) -> kit.Check:
            return kit.check_ddim_step(coding(BETAS[key], level), chain(BETAS[key]), level)

        add(f"DDIM step: {title}, η = {level}, {key}", run_ddim)


def run_ddim_single() -> kit.Check:
    b = BETAS["constant .3 T=6"]
    return kit.check_ddim_step(single(ddim_song(b, 0.7, F32)), chain(b), 0.7).at(1e-5)


add("DDIM step: Song's code in float32, η = 0.7, constant .3 T=6", run_ddim_single)


# Samplers: every coding is a factory (betas, …) → sample(x_T, eps_hat, noise)


def sampler_loop(step: F) -> F:
    def sample(x: Any_, eps_hat: F, noise: Any_) -> Any_:
        T = len(noise)
        for i in range(T):
            t = T - i
            x = step(t, x, eps_hat(x, t), noise[i])
        return x

    return sample


def sampler_batched(step: F) -> F:
    """Steps as arrays (N,), as in torch code."""

    def sample(x: Any_, eps_hat: F, noise: Any_) -> Any_:
        for i, z in zip(reversed(range(len(noise))), noise, strict=True):
            t = np.full(len(x), i + 1)
            x = step(t, x, np.asarray(eps_hat(x, t)), z)
        return x

    return sample


def sampler_recursive(step: F) -> F:
    def sample(x: Any_, eps_hat: F, noise: Any_) -> Any_:
        if len(noise) == 0:
            return x
        t = len(noise)
        return sample(step(t, x, eps_hat(x, t), noise[0]), eps_hat, noise[1:])

    return sample


def sampler_sigma_space(b: Any_, sigma2: Any_) -> F:
    """The state is y = x/ᾱ; one step is y + (σ_s²/σ_t² − 1)(y − x̂_0) in the mean."""
    d = Deck(b)
    sig2 = d.total / d.scale**2

    def sample(x: Any_, eps_hat: F, noise: Any_) -> Any_:
        y = x / d.scale[-1]
        for t in range(d.T, 0, -1):
            x0 = y - np.sqrt(sig2[t]) * eps_hat(d.scale[t] * y, t)
            y = x0 + sig2[t - 1] / sig2[t] * (y - x0) + np.sqrt(sigma2[t]) / d.scale[t - 1] * noise[d.T - t]
        return y

    return sample


def ddim_steps(b: Any_, eta: float, kind: Any_ = F64) -> F:
    step = ddim_song(b, eta, kind)
    return lambda t, x, e, z: step(t, t - 1, x, e, z)


def ddim_pairs(b: Any_, eta: float) -> F:
    """The loop over pairs of times of lucidrains, with −1 for clean data."""
    cum = np.cumprod(1 - b)

    def sample(x: Any_, eps_hat: F, noise: Any_) -> Any_:
        times = [-1, *range(len(b))]
        for (now, after), z in zip(zip(times[:0:-1], times[-2::-1], strict=True), noise, strict=True):
            e = eps_hat(x, now + 1)
            alpha, alpha_next = cum[now], cum[after] if after >= 0 else 1.0
            x0 = np.sqrt(1 / alpha) * x - np.sqrt(1 / alpha - 1) * e
            if after < 0:
                x = x0
                continue
            sigma = eta * ((1 - alpha / alpha_next) * (1 - alpha_next) / (1 - alpha)) ** 0.5
            x = x0 * alpha_next**0.5 + (1 - alpha_next - sigma**2) ** 0.5 * e + sigma * z
        return x

    return sample


def ddim_rotating(b: Any_) -> F:
    step = ddim_velocity(b, 0.0)

    def sample(x: Any_, eps_hat: F, noise: Any_) -> Any_:
        for t in range(len(b), 0, -1):
            x = step(t, t - 1, x, eps_hat(x, t), None)
        return x

    return sample


def ddim_as_ode(b: Any_) -> F:
    """Euler steps of dy = ε̂ dσ for y = x/ᾱ, exact for DDIM with η = 0."""
    sigma = np.append(0.0, np.sqrt(1 / np.cumprod(1 - b) - 1))

    def sample(x: Any_, eps_hat: F, noise: Any_) -> Any_:
        y = x * np.sqrt(1 + sigma[-1] ** 2)
        for t in range(len(b), 0, -1):
            y = y + (sigma[t - 1] - sigma[t]) * eps_hat(y / np.sqrt(1 + sigma[t] ** 2), t)
        return y

    return sample


DDIM_SAMPLERS = [
    ("loop", lambda b, eta: sampler_loop(ddim_steps(b, eta)), 0.0, ("VP T=10", "cosine T=20")),
    ("loop", lambda b, eta: sampler_loop(ddim_steps(b, eta)), 1.0, ("random T=8",)),
    ("batched steps", lambda b, eta: sampler_batched(ddim_steps(b, eta)), 0.6, ("constant .3 T=6", "VP T=40")),
    ("recursion", lambda b, eta: sampler_recursive(ddim_steps(b, eta)), 0.3, ("T=3", "random T=15")),
    ("pairs of times", ddim_pairs, 0.5, ("random T=8", "T=2")),
    ("rotation", lambda b, eta: ddim_rotating(b), 0.0, ("constant .02 T=30", "random T=15")),
    ("ODE in σ", lambda b, eta: ddim_as_ode(b), 0.0, ("falling T=12", "VP T=10")),
]
for title, coding, level, where in DDIM_SAMPLERS:
    for key in where:

        def run_ddim_sampler(coding: F = coding, level: float = level, key: str = key) -> kit.Check:
            return kit.check_ddim_sampler(coding(BETAS[key], level), chain(BETAS[key]), level)

        add(f"DDIM sampler: {title}, η = {level}, {key}", run_ddim_sampler)


def run_ddim_sampler_single() -> kit.Check:
    b = constant(10, 0.05)
    return kit.check_ddim_sampler(single(sampler_loop(ddim_steps(b, 0.5, F32))), chain(b), 0.5).at(1e-5)


add("DDIM sampler: loop in float32, constant .05 T=10", run_ddim_sampler_single)


def best_variances(b: Any_, variance: float) -> Any_:
    """Var(x_{t−1} | x_t) for data of this variance: precisions of the step and of the marginal add up."""
    d = Deck(b)
    marginal = d.scale[:-1] ** 2 * variance + d.total[:-1]
    return np.append(0.0, 1 / (d.alpha[1:] ** 2 / d.b2[1:] + 1 / marginal))


SAMPLERS = [
    ("Algorithm 2 in a loop", lambda b, s: sampler_loop(ancestral_ho(b, s)), 0.4, 0.5, ("VP T=10", "cosine T=20")),
    ("Algorithm 2, batched steps", lambda b, s: sampler_batched(ancestral_ho(b, s)), 0.0, 1.0, ("VP T=40", "T=1")),
    ("x0 and coefficients", lambda b, s: sampler_loop(ancestral_x0(b, s)), -1.0, 0.2, ("random T=8", "random T=15")),
    ("log-SNR, recursion", lambda b, s: sampler_recursive(ancestral_vdm(b, s)), 2.0, 3.0, ("constant .3 T=6", "T=2")),
    ("score, batched steps", lambda b, s: sampler_batched(ancestral_score(b, s)), 0.3, 0.8, ("falling T=12",)),
    ("state over ᾱ", sampler_sigma_space, -0.5, 1.5, ("random T=8", "T=3")),
]
for title, coding, mean, variance, where in SAMPLERS:
    for key in where:

        def run_sampler(
            coding: F = coding, mean: float = mean, variance: float = variance, key: str = key
        ) -> kit.Check:
            b = BETAS[key]
            sigma2 = best_variances(b, variance)
            return kit.check_sampler(coding(b, sigma2), chain(b), mean, variance, sigma2)

        add(f"sampler: {title}, N({mean}, {variance}), {key}", run_sampler)


def run_sampler_single() -> kit.Check:
    b = constant(10, 0.05)
    sigma2 = best_variances(b, 0.7)
    return kit.check_sampler(single(sampler_loop(ancestral_ho(b, sigma2, F32))), chain(b), 0.2, 0.7, sigma2).at(1e-5)


add("sampler: Algorithm 2 in float32, constant .05 T=10", run_sampler_single)


# check_predicted_noise


def net_output(x: Any_, t: Any_, labelled: bool) -> Any_:
    return 0.8 * np.tanh(x - 0.02 * column(t)) + (0.4 * np.cos(x) + 0.1 if labelled else 0.0)


def to_noise(d: Deck, kind: str, x: Any_, t: Any_, out: Any_) -> Any_:
    a, s = pick(d.scale, t), pick(d.std, t)
    if kind == "noise":
        return out
    if kind == "x0":
        return (x - a * out) / s
    if kind == "v":
        return s * x + a * out
    return out * s / pick(d.beta, t)


def to_x0(d: Deck, kind: str, x: Any_, t: Any_, out: Any_) -> Any_:
    a, s = pick(d.scale, t), pick(d.std, t)
    if kind == "x0":
        return out
    if kind == "v":
        return a * x - s * out
    e = out if kind == "noise" else out * s / pick(d.beta, t)
    return (x - s * e) / a


def guided_noise(b: Any_, kind: str) -> F:
    """Both predictions become ε̂, are combined, and x̂_0 is clipped at the end."""
    d = Deck(b)

    def predict(x: Any_, t: Any_, guidance: float, clip: bool) -> Any_:
        plain = to_noise(d, kind, x, t, net_output(x, t, False))
        label = to_noise(d, kind, x, t, net_output(x, t, True))
        e = plain + guidance * (label - plain)
        if clip:
            x0 = np.clip((x - pick(d.std, t) * e) / pick(d.scale, t), -1, 1)
            e = (x - pick(d.scale, t) * x0) / pick(d.std, t)
        return e

    return predict


def guided_x0(b: Any_, kind: str) -> F:
    """Both predictions become x̂_0; the combination has weights of sum 1, so that it commutes with the affine map."""
    d = Deck(b)

    def predict(x: Any_, t: Any_, guidance: float, clip: bool) -> Any_:
        x0 = (1 - guidance) * to_x0(d, kind, x, t, net_output(x, t, False))
        x0 = x0 + guidance * to_x0(d, kind, x, t, net_output(x, t, True))
        if clip:
            x0 = np.minimum(np.maximum(x0, -1), 1)
        return (x - pick(d.scale, t) * x0) / pick(d.std, t)

    return predict


def guided_output(b: Any_, kind: str) -> F:
    """The guidance acts on the outputs of the network, with w = guidance − 1, as in Ho and Salimans."""
    d = Deck(b)

    def predict(x: Any_, t: Any_, guidance: float, clip: bool) -> Any_:
        w = guidance - 1
        out = (1 + w) * net_output(x, t, True) - w * net_output(x, t, False)
        e = to_noise(d, kind, x, t, out)
        if clip:
            x0 = to_x0(d, kind, x, t, out)
            inside = np.abs(x0) <= 1
            e = np.where(inside, e, (x - pick(d.scale, t) * np.sign(x0)) / pick(d.std, t))
        return e

    return predict


POINTS = np.array([[0.3, -4.0, 1.1], [2.5, 0.2, -0.7], [-6.0, 0.05, 3.0], [0.9, -1.4, 8.0]])
for title, coding, kind, key in [
    ("guidance of ε̂", guided_noise, "noise", "Ho's 1000 betas"),
    ("guidance of ε̂", guided_noise, "x0", "VP T=10"),
    ("guidance of ε̂", guided_noise, "v", "cosine T=20"),
    ("guidance of ε̂", guided_noise, "step", "random T=8"),
    ("guidance of x̂_0", guided_x0, "noise", "random T=8"),
    ("guidance of x̂_0", guided_x0, "x0", "T=1"),
    ("guidance of x̂_0", guided_x0, "v", "constant .3 T=6"),
    ("guidance of x̂_0", guided_x0, "step", "T=3"),
    ("guidance of outputs", guided_output, "noise", "VP T=40"),
    ("guidance of outputs", guided_output, "x0", "random T=15"),
    ("guidance of outputs", guided_output, "v", "T=2"),
    ("guidance of outputs", guided_output, "step", "falling T=12"),
]:

    def run_noise(coding: F = coding, kind: str = kind, key: str = key) -> kit.Check:
        b = BETAS[key]
        return kit.check_predicted_noise(coding(b, kind), net_output, chain(b), kind, POINTS)

    add(f"predicted noise: {title}, {kind}, {key}", run_noise)


# check_reverse_variance


def variance_ho(b: Any_) -> F:
    h = Ho(b)
    return lambda name: np.append(0, h.betas if name == "beta" else np.append(h.betas[0], h.var[1:]))


def variance_precision(b: Any_) -> F:
    d = Deck(b)

    def variance(name: str) -> Any_:
        if name == "beta":
            return d.b2
        out = d.b2.copy()
        out[2:] = 1 / (d.alpha[2:] ** 2 / d.b2[2:] + 1 / d.total[1:-1])
        return out

    return variance


def variance_lists(b: Any_) -> F:
    def variance(name: str) -> Any_:
        if name == "beta":
            return [0.0, *b.tolist()]
        out, keep = [0.0], 1.0
        for i, beta in enumerate(b.tolist()):
            before, keep = keep, keep * (1 - beta)
            out.append(beta if i == 0 else beta * (1 - before) / (1 - keep))
        return out

    return variance


def variance_vdm(b: Any_) -> F:
    g = gammas(b)

    def variance(name: str) -> Any_:
        change = np.diff(softplus(np.append(-np.inf, g)))
        steps = -np.expm1(-change)
        if name == "posterior":
            steps[1:] *= special.expit(g[:-1]) / special.expit(g[1:])
        return np.append(0.0, steps)

    return variance


for title, coding, key in [
    ("Ho's code", variance_ho, "Ho's 1000 betas"),
    ("Ho's code", variance_ho, "T=1"),
    ("precisions", variance_precision, "cosine T=200"),
    ("precisions", variance_precision, "VP T=40"),
    ("lists", variance_lists, "random T=15"),
    ("log-SNR", variance_vdm, "random T=8"),
]:

    def run_variance(coding: F = coding, key: str = key) -> kit.Check:
        return kit.check_reverse_variance(coding(BETAS[key]), chain(BETAS[key]))

    add(f"reverse variance: {title}, {key}", run_variance)


# check_optimal_variance: the law of total variance in three forms


def optimal_noise(b: Any_, D: int) -> F:
    h = Ho(b)
    factor = h.betas**2 / (h.alphas * h.rest)
    return lambda loss: np.append(0.0, h.var + factor * np.asarray(loss)[1:] / D)


def optimal_x0(b: Any_, D: int) -> F:
    h = Ho(b)

    def square(loss: Any_) -> Any_:
        error = h.rest / h.cum * loss[1:] / D
        return np.append(0.0, h.var + h.coef1**2 * error)

    return square


def optimal_analytic(b: Any_, D: int) -> F:
    """Analytic-DPM: β²/α less what is known of the noise, with D − ℓ_t = β̄² E‖score‖²."""
    h = Ho(b)

    def square(loss: Any_) -> Any_:
        known = (D - loss[1:]) / h.rest / D
        return np.append(0.0, h.betas / h.alphas * (1 - h.betas * known))

    return square


def optimal_loop(b: Any_, D: int) -> F:
    d = Deck(b)

    def square(loss: Any_) -> Any_:
        out = [0.0]
        for t in range(1, d.T + 1):
            turn = d.scale[t - 1] * d.std[t] / d.scale[t] - math.sqrt(d.total[t - 1] - d.tilde2[t])
            out.append(d.tilde2[t] + turn**2 * float(loss[t]) / D)
        return out

    return square


def spd(D: int, seed: int = 0) -> Any_:
    root = draws(seed, D, D) / math.sqrt(D)
    return root @ root.T + 0.2 * np.eye(D)


for title, coding, key, D in [
    ("noise", optimal_noise, "Ho's 1000 betas", 2),
    ("noise", optimal_noise, "T=1", 1),
    ("x0", optimal_x0, "VP T=40", 3),
    ("x0", optimal_x0, "random T=15", 16),
    ("score", optimal_analytic, "VP T=10", 4),
    ("score", optimal_analytic, "random T=8", 2),
    ("loop", optimal_loop, "constant .3 T=6", 5),
]:

    def run_optimal(coding: F = coding, key: str = key, D: int = D) -> kit.Check:
        return kit.check_optimal_variance(coding(BETAS[key], D), chain(BETAS[key]), spd(D))

    add(f"optimal variance: {title}, {key}, D={D}", run_optimal)


# check_step_loss


def noised(d: Deck, t: int, x0: Any_, e1: Any_, e2: Any_) -> tuple[Any_, Any_]:
    before = d.scale[t - 1] * x0 + d.std[t - 1] * e1
    return before, d.alpha[t] * before + d.beta[t] * e2


def constants(x: Any_, s2: float) -> float:
    return x.shape[1] / 2 * math.log(2 * math.pi * s2)


def step_loss_plain(b: Any_, s2: float) -> F:
    d = Deck(b)

    def loss(t: int, x0: Any_, e1: Any_, e2: Any_, eps_hat: F) -> Any_:
        before, x = noised(d, t, x0, e1, e2)
        mean = (x - d.b2[t] / d.std[t] * eps_hat(x, t)) / d.alpha[t]
        return ((before - mean) ** 2).sum(1) / (2 * s2) + constants(x, s2)

    return loss


def step_loss_scipy(b: Any_, s2: float) -> F:
    h = Ho(b)
    d = Deck(b)

    def loss(t: int, x0: Any_, e1: Any_, e2: Any_, eps_hat: F) -> Any_:
        before, x = noised(d, t, x0, e1, e2)
        guess = h.recip[t - 1] * x - h.recipm1[t - 1] * eps_hat(x, t)
        mean = h.coef1[t - 1] * guess + h.coef2[t - 1] * x
        return -stats.norm.logpdf(before, mean, math.sqrt(s2)).sum(axis=1)

    return loss


def step_loss_merged(b: Any_, s2: float) -> F:
    """(28): only the merged noise is left; the part of ω has its expectation β̃² D."""
    d = Deck(b)

    def loss(t: int, x0: Any_, e1: Any_, e2: Any_, eps_hat: F) -> Any_:
        e = (d.alpha[t] * d.std[t - 1] * e1 + d.beta[t] * e2) / d.std[t]
        x = d.scale[t] * x0 + d.std[t] * e
        square = ((e - eps_hat(x, t)) ** 2).sum(1)
        factor = d.b2[t] ** 2 / (d.alpha[t] ** 2 * d.total[t])
        return (factor * square + x.shape[1] * d.tilde2[t]) / (2 * s2) + constants(x, s2)

    return loss


def step_loss_step_noise(b: Any_, s2: float) -> F:
    """(22)-(24): x_{t−1} = (x_t − β ε_t)/α, so that the loss compares ε_t with (β/β̄) ε̂."""
    d = Deck(b)

    def loss(t: int, x0: Any_, e1: Any_, e2: Any_, eps_hat: F) -> Any_:
        _, x = noised(d, t, x0, e1, e2)
        gap = e2 - d.beta[t] / d.std[t] * eps_hat(x, t)
        return d.b2[t] / d.alpha[t] ** 2 * np.einsum("nd,nd->n", gap, gap) / (2 * s2) + constants(x, s2)

    return loss


def step_loss_kl(b: Any_, s2: float) -> F:
    """Divergence of the posterior, plus its entropy; for t of 2 or more."""
    d = Deck(b)

    def loss(t: int, x0: Any_, e1: Any_, e2: Any_, eps_hat: F) -> Any_:
        _, x = noised(d, t, x0, e1, e2)
        D, tilde = x.shape[1], d.tilde2[t]
        guess = (x - d.std[t] * eps_hat(x, t)) / d.scale[t]
        gap = d.scale[t - 1] * d.b2[t] / d.total[t] * (x0 - guess)
        kl = 0.5 * (D * (math.log(s2 / tilde) + tilde / s2 - 1) + (gap**2).sum(1) / s2)
        return kl + D / 2 * (1 + math.log(2 * math.pi * tilde))

    return loss


for title, coding, key, t, s2 in [
    ("squares", step_loss_plain, "VP T=10", 4, 0.3),
    ("squares", step_loss_plain, "T=1", 1, 0.37),
    ("squares", step_loss_plain, "Ho's 1000 betas", 500, 0.01),
    ("logpdf of SciPy", step_loss_scipy, "random T=8", 8, 0.2),
    ("logpdf of SciPy", step_loss_scipy, "cosine T=20", 11, 0.15),
    ("merged noise", step_loss_merged, "random T=15", 6, 0.5),
    ("merged noise", step_loss_merged, "T=2", 1, 0.2),
    ("noise of the step", step_loss_step_noise, "constant .3 T=6", 3, 0.3),
    ("noise of the step", step_loss_step_noise, "VP T=40", 40, 0.4),
    ("divergence and entropy", step_loss_kl, "VP T=10", 7, 0.6),
    ("divergence and entropy", step_loss_kl, "T=3", 2, 0.1),
]:

    def run_step_loss(coding: F = coding, key: str = key, t: int = t, s2: float = s2) -> kit.Check:
        return kit.check_step_loss(coding(BETAS[key], s2), chain(BETAS[key]), t, wave, 0.3, 0.8, s2)

    add(f"step loss: {title}, {key}, t={t}", run_step_loss)


# The terms of the bound: every coding is a factory (betas, σ²) → (prior, step, reconstruction)


def normal_kl(mean1: Any_, log1: Any_, mean2: Any_, log2: Any_) -> Any_:
    return 0.5 * (-1.0 + log2 - log1 + np.exp(log1 - log2) + (mean1 - mean2) ** 2 * np.exp(-log2))


def terms_ho(b: Any_, sigma2: Any_) -> tuple[F, F, F]:
    h = Ho(b)

    def model(t: int, x: Any_, eps_hat: F) -> Any_:
        guess = h.recip[t - 1] * x - h.recipm1[t - 1] * eps_hat(x, t)
        return h.coef1[t - 1] * guess + h.coef2[t - 1] * x

    def prior(x0: Any_) -> Any_:
        return normal_kl(h.root[-1] * x0, np.log(h.rest[-1]), 0.0, 0.0).sum(1)

    def step(t: int, x0: Any_, x: Any_, eps_hat: F) -> Any_:
        mean = h.coef1[t - 1] * x0 + h.coef2[t - 1] * x
        return normal_kl(mean, np.log(h.var[t - 1]), model(t, x, eps_hat), np.log(sigma2[t])).sum(axis=1)

    def reconstruction(x0: Any_, x: Any_, eps_hat: F) -> Any_:
        log = np.log(sigma2[1])
        gap = x0 - model(1, x, eps_hat)
        return 0.5 * (math.log(2 * math.pi) + log + gap**2 * np.exp(-log)).sum(axis=-1)

    return prior, step, reconstruction


def terms_noise(b: Any_, sigma2: Any_) -> tuple[F, F, F]:
    """By the noise of x_t: the two means differ by β²(ε̂ − ε)/(α β̄)."""
    d = Deck(b)

    def gap(t: int, x0: Any_, x: Any_, eps_hat: F) -> Any_:
        e = (x - d.scale[t] * x0) / d.std[t]
        square = np.square(e - eps_hat(x, t)).sum(1)
        return d.b2[t] ** 2 / (2 * sigma2[t] * d.alpha[t] ** 2 * d.total[t]) * square

    def prior(x0: Any_) -> Any_:
        square = np.einsum("nd,nd->n", x0, x0)
        return 0.5 * (d.scale[-1] ** 2 * square - x0.shape[1] * (d.scale[-1] ** 2 + np.log(d.total[-1])))

    def step(t: int, x0: Any_, x: Any_, eps_hat: F) -> Any_:
        ratio = d.tilde2[t] / sigma2[t]
        return gap(t, x0, x, eps_hat) + x.shape[1] / 2 * (ratio - 1 - np.log(ratio))

    def reconstruction(x0: Any_, x: Any_, eps_hat: F) -> Any_:
        return gap(1, x0, x, eps_hat) + x.shape[1] / 2 * np.log(2 * np.pi * sigma2[1])

    return prior, step, reconstruction


def matrix_kl(m1: Any_, c1: Any_, m2: Any_, c2: Any_) -> float:
    inverse = np.linalg.inv(c2)
    log = np.linalg.slogdet(c2)[1] - np.linalg.slogdet(c1)[1]
    return 0.5 * float(np.trace(inverse @ c1) - len(m1) + log + (m2 - m1) @ inverse @ (m2 - m1))


def terms_matrices(b: Any_, sigma2: Any_) -> tuple[F, F, F]:
    d = Deck(b)
    step_mean = ancestral_score(b, 0 * sigma2)

    def prior(x0: Any_) -> Any_:
        one = np.eye(x0.shape[1])
        return [matrix_kl(d.scale[-1] * row, d.total[-1] * one, 0 * row, one) for row in x0]

    def step(t: int, x0: Any_, x: Any_, eps_hat: F) -> Any_:
        mean, var = posterior_precisions(b)(t, x, x0)
        guess = step_mean(t, x, eps_hat(x, t), 0)
        one = np.eye(x.shape[1])
        return [matrix_kl(p, var * one, q, sigma2[t] * one) for p, q in zip(mean, guess, strict=True)]

    def reconstruction(x0: Any_, x: Any_, eps_hat: F) -> Any_:
        mean = step_mean(1, x, eps_hat(x, 1), 0)
        law = stats.multivariate_normal(np.zeros(x.shape[1]), sigma2[1] * np.eye(x.shape[1]))
        return -law.logpdf(x0 - mean)

    return prior, step, reconstruction


def terms_snr(b: Any_, sigma2: Any_) -> tuple[F, F, F]:
    """Kingma et al.: ½ (SNR(s) − SNR(t)) ‖x_0 − x̂_0‖², for σ_t² = β̃_t²."""
    d = Deck(b)
    with np.errstate(divide="ignore"):
        snr = d.scale**2 / d.total

    def guess(t: int, x: Any_, eps_hat: F) -> Any_:
        return (x - d.std[t] * eps_hat(x, t)) / d.scale[t]

    def prior(x0: Any_) -> Any_:
        return 0.5 * np.sum(d.total[-1] + d.scale[-1] ** 2 * x0**2 - np.log(d.total[-1]) - 1, axis=1)

    def step(t: int, x0: Any_, x: Any_, eps_hat: F) -> Any_:
        return 0.5 * (snr[t - 1] - snr[t]) * np.linalg.norm(x0 - guess(t, x, eps_hat), axis=1) ** 2

    def reconstruction(x0: Any_, x: Any_, eps_hat: F) -> Any_:
        return -stats.norm.logpdf(x0, guess(1, x, eps_hat), np.sqrt(sigma2[1])).sum(1)

    return prior, step, reconstruction


TERMS = [
    ("normal_kl", terms_ho, "beta", mixing, ("Ho's 1000 betas", "VP T=10")),
    ("normal_kl", terms_ho, "posterior", wave, ("cosine T=20",)),
    ("noise", terms_noise, "between", mixing, ("random T=15", "VP T=40")),
    ("noise", terms_noise, "twice", wave, ("T=3", "falling T=12")),
    ("matrices", terms_matrices, "beta", mixing, ("constant .3 T=6", "T=2")),
    ("differences of SNR", terms_snr, "posterior", wave, ("random T=8", "VP T=10")),
]
SIZES = (2, 3, 8, 64)
for i, (title, coding, law, net, where) in enumerate(TERMS):
    for key in where:

        def run_terms(
            coding: F = coding, law: str = law, net: F = net, key: str = key, D: int = SIZES[i % 4]
        ) -> kit.Check:
            b = BETAS[key]
            sigma2 = variances(b, law)
            given = chain(b), 0.8 * draws(1, 4, D), draws(2, 4, D), net, sigma2
            return kit.check_bound_terms(*coding(b, sigma2), *given)

        add(f"bound terms: {title}, {law}, {key}, D={SIZES[i % 4]}", run_terms)


def run_terms_single() -> kit.Check:
    b = BETAS["constant .3 T=6"]
    sigma2 = variances(b, "beta")
    three = [single(f) for f in terms_noise(b, sigma2.astype(F32))]
    return kit.check_bound_terms(*three, chain(b), draws(1, 3, 2), draws(2, 3, 2), wave, sigma2).at(1e-5)


add("bound terms: noise in float32, constant .3 T=6, D=2", run_terms_single)


# check_variational_bound


def all_terms(terms: F, b: Any_, sigma2: Any_) -> F:
    d = Deck(b)
    prior, step, reconstruction = terms(b, sigma2)

    def bound(x0: Any_, eps_hat: F, noise: Any_) -> Any_:
        out = [reconstruction(x0, d.scale[1] * x0 + d.std[1] * noise[0], eps_hat)]
        out += [step(t, x0, d.scale[t] * x0 + d.std[t] * noise[t - 1], eps_hat) for t in range(2, d.T + 1)]
        return np.stack([*out, prior(x0)], axis=1)

    return bound


def bound_sum(b: Any_, sigma2: Any_) -> F:
    bound = all_terms(terms_noise, b, sigma2)
    return lambda x0, eps_hat, noise: bound(x0, eps_hat, noise).sum(1)


def bound_rows(b: Any_, sigma2: Any_) -> F:
    return all_terms(terms_ho, b, sigma2)


def bound_reversed(b: Any_, sigma2: Any_) -> F:
    """From T down to 0, as in the loop of Ho's code."""
    h = Ho(b)
    prior, step, reconstruction = terms_ho(b, sigma2)

    def bound(x0: Any_, eps_hat: F, noise: Any_) -> Any_:
        out = [prior(x0)]
        for t in reversed(range(h.T)):
            x = h.root[t] * x0 + h.root_rest[t] * noise[t]
            out.append(step(t + 1, x0, x, eps_hat) if t else reconstruction(x0, x, eps_hat))
        return np.stack(out, 1)

    return bound


def bound_drawn_prior(b: Any_, sigma2: Any_) -> F:
    """L_T as log q(x_T | x_0) − log p(x_T) at the drawn x_T: a quadratic with the right expectation."""
    d = Deck(b)
    _, step, reconstruction = terms_noise(b, sigma2)

    def bound(x0: Any_, eps_hat: F, noise: Any_) -> Any_:
        xs = d.scale[1:, None, None] * x0 + d.std[1:, None, None] * noise
        last = 0.5 * (xs[-1] ** 2 - noise[-1] ** 2).sum(1) - x0.shape[1] * np.log(d.std[-1])
        total = last + reconstruction(x0, xs[0], eps_hat)
        for t in range(2, d.T + 1):
            total = total + step(t, x0, xs[t - 1], eps_hat)
        return total

    return bound


def bound_entropies(b: Any_, sigma2: Any_) -> F:
    """−log p_θ(x_{t−1} | x_t) in expectation, less the entropy of the posterior."""
    d = Deck(b)

    def bound(x0: Any_, eps_hat: F, noise: Any_) -> Any_:
        D = x0.shape[1]
        total = 0.5 * (d.scale[-1] ** 2 * (x0**2).sum(1) + D * d.total[-1]) - D / 2 * (1 + math.log(d.total[-1]))
        for t in range(1, d.T + 1):
            x = d.scale[t] * x0 + d.std[t] * noise[t - 1]
            mean, var = posterior_reparameterised(b)(t, x, x0)
            guess = (x - d.b2[t] / d.std[t] * eps_hat(x, t)) / d.alpha[t]
            cross = 0.5 * (((mean - guess) ** 2).sum(1) + D * var) / sigma2[t]
            total = total + cross + D / 2 * math.log(2 * math.pi * sigma2[t])
            if t > 1:
                total = total - D / 2 * (1 + math.log(2 * math.pi * var))
        return total

    return bound


def affine(T: int, D: int, seed: int = 5) -> tuple[Any_, Any_]:
    return 0.4 * np.eye(D) + 0.2 * draws(seed, T + 1, D, D), 0.2 * draws(seed + 1, T + 1, D)


BOUNDS = [
    ("sum of terms", bound_sum, "beta", 2, ("VP T=10", "T=1")),
    ("rows of terms", bound_rows, "between", 3, ("random T=8", "T=2")),
    ("terms from T down", bound_reversed, "posterior", 2, ("constant .3 T=6", "random T=8")),
    ("drawn prior term", bound_drawn_prior, "twice", 2, ("T=3", "VP T=10")),
    ("cross-entropies and entropies", bound_entropies, "beta", 3, ("random T=8", "constant .3 T=6")),
]
for title, coding, law, D, where in BOUNDS:
    for key in where:

        def run_bound(coding: F = coding, law: str = law, D: int = D, key: str = key) -> kit.Check:
            b = BETAS[key]
            sigma2 = variances(b, law)
            given = chain(b), 0.3 * draws(3, D), spd(D, 4), *affine(len(b), D), sigma2
            return kit.check_variational_bound(coding(b, sigma2), *given)

        add(f"variational bound: {title}, {law}, {key}, D={D}", run_bound)


# check_negative_elbo


def elbo_sum(b: Any_, sigma2: Any_) -> F:
    d = Deck(b)

    def negative(loss: Any_, second: float, D: int) -> Any_:
        factor = d.b2[1:] ** 2 / (2 * sigma2[1:] * d.alpha[1:] ** 2 * d.total[1:])
        ratio = d.tilde2[2:] / sigma2[2:]
        squares = factor @ np.asarray(loss)[1:]
        first = D / 2 * np.log(2 * np.pi * sigma2[1])
        last = 0.5 * (d.scale[-1] ** 2 * second - D * d.scale[-1] ** 2 - D * np.log(d.total[-1]))
        return squares + first + D / 2 * np.sum(ratio - 1 - np.log(ratio)) + last

    return negative


def elbo_loop(b: Any_, sigma2: Any_) -> F:
    h = Ho(b)

    def negative(loss: Any_, second: float, D: int) -> Any_:
        total = 0.5 * (h.cum[-1] * second + D * (h.rest[-1] - 1 - math.log(h.rest[-1])))
        for i in range(h.T):
            error = h.rest[i] / h.cum[i] * float(loss[i + 1])
            total += h.coef1[i] ** 2 * error / (2 * sigma2[i + 1]) + D / 2 * math.log(2 * math.pi * sigma2[i + 1])
            if i:
                total += D / 2 * (h.var[i] / sigma2[i + 1] - 1 - math.log(2 * math.pi * h.var[i]))
        return total

    return negative


def elbo_paths(b: Any_, sigma2: Any_) -> F:
    """−E log p_θ(x_{0:T}) + E log q(x_{1:T} | x_0): the forward steps have the entropies of β_t²."""
    d = Deck(b)

    def negative(loss: Any_, second: float, D: int) -> Any_:
        end = 0.5 * (d.scale[-1] ** 2 * second + D * d.total[-1]) + D / 2 * math.log(2 * math.pi)
        turn = d.b2[1:] ** 2 / (d.alpha[1:] ** 2 * d.total[1:])
        steps = (turn * loss[1:] + D * d.tilde2[1:]) / (2 * sigma2[1:]) + D / 2 * np.log(2 * np.pi * sigma2[1:])
        entropy = D / 2 * np.sum(1 + np.log(2 * np.pi * d.b2[1:]))
        return end + np.sum(steps) - entropy

    return negative


for title, coding, law, key, D in [
    ("terms", elbo_sum, "beta", "VP T=10", 2),
    ("terms", elbo_sum, "between", "T=1", 3),
    ("loop in x̂_0", elbo_loop, "posterior", "random T=8", 2),
    ("loop in x̂_0", elbo_loop, "twice", "T=3", 4),
    ("entropies of the forward steps", elbo_paths, "beta", "constant .3 T=6", 3),
    ("entropies of the forward steps", elbo_paths, "between", "T=2", 2),
]:

    def run_elbo(coding: F = coding, law: str = law, key: str = key, D: int = D) -> kit.Check:
        b = BETAS[key]
        sigma2 = variances(b, law)
        given = chain(b), 0.3 * draws(3, D), spd(D, 4), *affine(len(b), D), sigma2
        return kit.check_negative_elbo(coding(b, sigma2), *given)

    add(f"negative ELBO: {title}, {law}, {key}, D={D}", run_elbo)


# check_chains


def chains_scipy(b: Any_, sigma2: Any_) -> tuple[F, F]:
    def forward(path: Any_) -> Any_:
        steps = stats.norm.logpdf(path[1:], np.sqrt(1 - b)[:, None, None] * path[:-1], np.sqrt(b)[:, None, None])
        return steps.sum(axis=(0, 2))

    def reverse(path: Any_, eps_hat: F) -> Any_:
        h = Ho(b)
        total = stats.norm.logpdf(path[-1]).sum(1)
        for t in range(h.T, 0, -1):
            mean = (path[t] - h.betas[t - 1] / h.root_rest[t - 1] * eps_hat(path[t], t)) / np.sqrt(h.alphas[t - 1])
            total = total + stats.norm.logpdf(path[t - 1], mean, np.sqrt(sigma2[t])).sum(1)
        return total

    return forward, reverse


def chains_squares(b: Any_, sigma2: Any_) -> tuple[F, F]:
    d = Deck(b)

    def forward(path: Any_) -> Any_:
        D = path.shape[2]
        z = (path[1:] - d.alpha[1:, None, None] * path[:-1]) / d.beta[1:, None, None]
        return -0.5 * np.einsum("tnd,tnd->n", z, z) - D * np.sum(np.log(d.beta[1:])) - d.T * D / 2 * np.log(2 * np.pi)

    def reverse(path: Any_, eps_hat: F) -> Any_:
        D = path.shape[2]
        squares = np.square(path[-1]).sum(1)
        for t in range(1, d.T + 1):
            guess = (path[t] - d.std[t] * eps_hat(path[t], t)) / d.scale[t]
            mean, _ = posterior_square(b)(t, path[t], guess)
            squares = squares + np.square(path[t - 1] - mean).sum(1) / sigma2[t]
        return -0.5 * squares - D / 2 * (np.log(sigma2[1:]).sum() + (d.T + 1) * np.log(2 * np.pi))

    return forward, reverse


def chains_joint(b: Any_, sigma2: Any_) -> tuple[F, F]:
    """q as one Gaussian of T variables, whose covariance is ᾱ_j/ᾱ_i β̄_i² for i ≤ j."""
    d = Deck(b)
    low = np.minimum.outer(np.arange(1, d.T + 1), np.arange(1, d.T + 1))
    high = np.maximum.outer(np.arange(1, d.T + 1), np.arange(1, d.T + 1))
    covariance = d.scale[high] / d.scale[low] * d.total[low]
    root = np.linalg.cholesky(covariance)

    def forward(path: Any_) -> Any_:
        gaps = path[1:] - d.scale[1:, None, None] * path[0]
        z = np.linalg.solve(root, gaps.reshape(d.T, -1)).reshape(gaps.shape)
        each = -0.5 * (z**2).sum(0) - np.log(np.diag(root)).sum() - d.T / 2 * np.log(2 * np.pi)
        return each.sum(1)

    return forward, chains_scipy(b, sigma2)[1]


for title, coding, law, key, D in [
    ("norm.logpdf", chains_scipy, "beta", "Ho's 1000 betas", 2),
    ("norm.logpdf", chains_scipy, "posterior", "cosine T=20", 3),
    ("squares", chains_squares, "between", "VP T=40", 8),
    ("squares", chains_squares, "twice", "T=1", 2),
    ("joint Gaussian", chains_joint, "beta", "random T=8", 2),
    ("joint Gaussian", chains_joint, "posterior", "constant .3 T=6", 4),
]:

    def run_chains(coding: F = coding, law: str = law, key: str = key, D: int = D) -> kit.Check:
        b = BETAS[key]
        T, sigma2 = len(b), variances(b, law)
        path = [0.7 * draws(8, 3, D)]
        for t in range(T):
            path.append(np.sqrt(1 - b[t]) * path[-1] + np.sqrt(b[t]) * draws(100 + t, 3, D))
        slopes = np.linspace(0.2, 0.9, T + 1)
        return kit.check_chains(*coding(b, sigma2), chain(b), np.stack(path), slopes, sigma2)

    add(f"chains: {title}, {law}, {key}, D={D}", run_chains)


# check_loss_weights


def weights_snr(b: Any_, sigma2: Any_) -> F:
    h = Ho(b)
    snr = h.cum / h.rest
    table = {
        "simple": np.ones(h.T),
        "x0": 1 / snr,
        "v": 1 / h.cum,
        "min-snr": np.minimum(snr, 5) / snr,
        "bound": h.T * h.betas**2 / (2 * sigma2[1:] * h.alphas * h.rest),
    }
    return lambda name: np.append(0.0, table[name])


def weights_logs(b: Any_, sigma2: Any_) -> F:
    g = gammas(b)
    change = np.diff(softplus(np.append(-np.inf, g)))

    def weights(name: str) -> Any_:
        if name == "simple":
            out = g * 0 + 1
        elif name == "x0":
            out = np.exp(g)
        elif name == "v":
            out = 1 + np.exp(g)
        elif name == "min-snr":
            out = np.exp(np.minimum(0, g + math.log(5)))
        else:
            out = len(b) * np.expm1(-change) ** 2 * np.exp(change) * (1 + np.exp(-g)) / (2 * sigma2[1:])
        return np.concatenate([[0.0], out])

    return weights


def weights_loop(b: Any_, sigma2: Any_) -> F:
    """By the factors of ε in x̂_0, v̂ and the mean of the step."""
    d = Deck(b)

    def weights(name: str) -> Any_:
        out = [0.0]
        for t in range(1, d.T + 1):
            in_x0 = d.std[t] / d.scale[t]
            in_v = d.scale[t] + d.std[t] * in_x0
            in_mean = d.scale[t - 1] * d.b2[t] / d.total[t] * in_x0
            clipped = in_x0**2 * min(in_x0**-2, 5.0)
            options = {"simple": 1.0, "x0": in_x0**2, "v": in_v**2, "min-snr": clipped}
            out.append(options[name] if name in options else d.T * in_mean**2 / (2 * sigma2[t]))
        return out

    return weights


for title, coding, law, key, names in [
    ("SNR", weights_snr, "beta", "Ho's 1000 betas", ()),
    ("SNR", weights_snr, "posterior", "cosine T=20", ("bound", "x0")),
    ("log-SNR", weights_logs, "between", "VP T=40", ()),
    ("log-SNR", weights_logs, "beta", "T=1", ("v", "min-snr")),
    ("factors of ε", weights_loop, "twice", "random T=15", ()),
    ("factors of ε", weights_loop, "posterior", "cosine T=200", ()),
]:

    def run_weights(coding: F = coding, law: str = law, key: str = key, names: tuple[str, ...] = names) -> kit.Check:
        b = BETAS[key]
        given = coding(b, variances(b, law)), chain(b), variances(b, law)
        if not names:
            return kit.check_loss_weights(*given)
        try:
            return kit.check_loss_weights(*given, names)
        except ValueError as error:  # an exception of the check on documented arguments counts as a refusal
            return dataclasses.replace(kit.check_loss_weights(*given), residual=math.inf, diagnosis=repr(error))

    add(f"loss weights: {title}, {law}, {key}, {names or 'all'}", run_weights)


# check_step_draws


def one_draw(T: int) -> F:
    return lambda u: (np.array([1 + math.floor(T * u)]), np.ones(1))


def stratified_draws(T: int, n: int) -> F:
    """The i-th step lies in the i-th of n equal cells."""
    return lambda u: (1 + np.floor(T * (np.arange(n) + u) / n).astype(int), np.ones(n))


def antithetic_draws(T: int) -> F:
    def draw(u: float) -> Any_:
        t = min(int(T * u), T - 1) + 1
        return [t, T + 1 - t], [1.0, 1.0]

    return draw


def every_step(T: int) -> F:
    return lambda u: (np.roll(np.arange(1, T + 1), int(u * T)), np.ones(T))


def importance_draws(T: int, n: int) -> F:
    """From p ∝ t, with weights 1/(T p); n numbers are spread evenly and wrap round."""
    p = np.arange(1, T + 1) / (T * (T + 1) / 2)
    edges = np.cumsum(p)

    def draw(u: float) -> Any_:
        us = (u + np.arange(n) / n) % 1
        i = np.minimum(np.searchsorted(edges, us, side="right"), T - 1)
        return i + 1, 1 / (T * p[i])

    return draw


def shifted_draws(T: int, n: int) -> F:
    return lambda u: (np.floor(T * np.mod(u + np.linspace(0, 1, n, endpoint=False), 1)).astype(int) + 1, np.ones(n))


def twisted_draws(T: int, n: int) -> F:
    """One number for all: the second half counts the steps down; the weights are those of two equal groups."""

    def draw(u: float) -> Any_:
        t = 1 + np.floor(T * ((u * n) % 1)).astype(int)
        return np.array([t, T + 1 - t, t]), np.array([0.75, 1.5, 0.75])

    return draw


for title, draw, T in [
    ("one step", one_draw(10), 10),
    ("one step", one_draw(1000), 1000),
    ("cells", stratified_draws(20, 5), 20),
    ("cells", stratified_draws(50, 50), 50),
    ("mirrored pair", antithetic_draws(12), 12),
    ("all steps rolled", every_step(7), 7),
    ("all steps rolled", every_step(100), 100),
    ("importance p ∝ t", importance_draws(8, 4), 8),
    ("shifted", shifted_draws(16, 8), 16),
    ("unequal weights", twisted_draws(10, 1), 10),
    ("T=1", one_draw(1), 1),
]:

    def run_step_draws(draw: F = draw, T: int = T) -> kit.Check:
        return kit.check_step_draws(draw, T)

    add(f"step draws: {title}, T={T}", run_step_draws)


# check_time_draws


def time_case(name: str, draw: F, clock: F, n_moments: int = 4) -> None:
    add(f"time draws: {name}", lambda: kit.check_time_draws(draw, clock, n_moments))


def even(u: float, n: int) -> Any_:
    return (u + np.arange(n) / n) % 1


def cells(u: float, n: int) -> Any_:
    return (np.arange(n) + u) / n


time_case(
    "uniform on [1e-5, 1]", lambda u: (1e-5 + (1 - 1e-5) * cells(u, 4), np.ones(4)), lambda t: (t - 1e-5) / (1 - 1e-5)
)
time_case("one uniform time", lambda u: (np.array([u]), np.ones(1)), lambda t: t, 3)
time_case("flow matching, mirrored", lambda u: (np.array([u, 1 - u]), np.ones(2)), lambda t: t, 6)
time_case(
    "EDM lognormal",
    lambda u: (np.exp(-1.2 + 1.2 * special.ndtri(cells(u, 8))), np.ones(8)),
    lambda t: special.ndtr((np.log(t) + 1.2) / 1.2),
)
time_case(
    "VE, even in log σ",
    lambda u: (0.01 * 5000.0 ** even(u, 16), np.ones(16)),
    lambda t: np.log(t / 0.01) / np.log(5000.0),
)
time_case(
    "Karras ρ = 7",
    lambda u: ((0.002 ** (1 / 7) + cells(u, 3) * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7, np.ones(3)),
    lambda t: (t ** (1 / 7) - 0.002 ** (1 / 7)) / (80 ** (1 / 7) - 0.002 ** (1 / 7)),
)
# uniform in t with the density of the clock as weight; the clock is t²
time_case("uniform times with weight 2t", lambda u: (cells(u, 16), 2 * cells(u, 16)), lambda t: t**2)


def vp_log_snr(t: Any_) -> Any_:
    return -np.log(np.expm1(0.1 * t + 0.5 * 19.9 * t**2))


def vp_clock(t: Any_) -> Any_:
    top, end = vp_log_snr(1e-2), vp_log_snr(1.0)
    return (top - vp_log_snr(t)) / (top - end)


def vp_time(share: Any_) -> Any_:
    top, end = vp_log_snr(1e-2), vp_log_snr(1.0)
    integral = softplus(-(top + share * (end - top)))
    return (-0.1 + np.sqrt(0.01 + 2 * 19.9 * integral)) / 19.9


def vp_mixed(u: float) -> Any_:
    """Clock readings from the density 1.5 − r, r in [0, 1], with the inverse density as weight."""
    r = 1.5 - np.sqrt(2.25 - 2 * cells(u, 32))
    return vp_time(r), 1 / (1.5 - r)


time_case("VP, even in log-SNR", lambda u: (vp_time(cells(u, 8)), np.ones(8)), vp_clock)
time_case("VP, log-SNR with importance", vp_mixed, vp_clock)
time_case(
    "cosine schedule, uniform",
    lambda u: (np.arccos(1 - 2 * cells(u, 8)) / np.pi, np.ones(8)),
    lambda t: np.sin(np.pi * t / 2) ** 2,
)


# Code with its own network: check_loss_of, check_bound_of, check_sampler_of


class Net:
    """A small network of (x, t) with its own weights, in one type."""

    def __init__(self, D: int, T: int, kind: Any_ = F64, seed: int = 11, width: int = 12) -> None:
        self.kind, self.T = kind, T
        self.w1 = (draws(seed, D + 2, width) / math.sqrt(D + 2)).astype(kind)
        self.w2 = (0.7 * draws(seed + 1, width, D) / math.sqrt(width)).astype(kind)

    def __call__(self, x: Any_, t: Any_) -> Any_:
        x = np.asarray(x, self.kind)
        time = np.broadcast_to(np.asarray(t) / self.T, (len(x),)).astype(self.kind)
        inputs = np.concatenate([x, np.cos(3 * time)[:, None], np.sin(3 * time)[:, None]], axis=1)
        return (np.tanh(inputs @ self.w1) @ self.w2).astype(self.kind)


def target(prediction: str, d: Deck, t: Any_, x0: Any_, e: Any_) -> Any_:
    if prediction == "noise":
        return e
    if prediction == "x0":
        return x0
    if prediction == "v":
        return pick(d.scale, t) * e - pick(d.std, t) * x0
    return pick(d.beta, t) / pick(d.std, t) * e


def loss_batched(net: Net, b: Any_, prediction: str, weight: Any_, mean: bool) -> F:
    d = Deck(b, net.kind)

    def loss(t: Any_, x0: Any_, e: Any_) -> Any_:
        x0, e = x0.astype(net.kind), e.astype(net.kind)
        t = np.asarray(t)
        x = pick(d.scale, t) * x0 + pick(d.std, t) * e
        gap = (target(prediction, d, t, x0, e) - net(x, t)) ** 2
        each = gap.mean(1) if mean else gap.sum(1)
        return each if weight is None else each * weight[t].astype(net.kind)

    return loss


def loss_rows(net: Net, b: Any_, prediction: str, weight: Any_, mean: bool) -> F:
    h = Ho(b)

    def loss(t: Any_, x0: Any_, e: Any_) -> Any_:
        out = []
        for n, step in enumerate(np.asarray(t).tolist()):
            row, noise = x0[n : n + 1], e[n : n + 1]
            x = h.root[step - 1] * row + h.root_rest[step - 1] * noise
            gap = target(prediction, Deck(b), step, row, noise) - net(x, step)
            value = float(np.vdot(gap, gap)) * (1.0 if weight is None else float(weight[step]))
            out.append(value / (x0.shape[1] if mean else 1))
        return out

    return loss


def loss_one_number(net: Net, b: Any_, prediction: str, weight: Any_, mean: bool) -> F:
    each = loss_batched(net, b, prediction, weight, mean)
    return lambda t, x0, e: float(np.mean(each(t, x0, e)))


def loss_by_noise(net: Net, b: Any_, prediction: str, weight: Any_, mean: bool) -> F:
    """‖v − v̂‖² and ‖x_0 − x̂_0‖² as multiples of ‖ε − ε̂‖²."""
    d = Deck(b)

    def loss(t: Any_, x0: Any_, e: Any_) -> Any_:
        x = pick(d.scale, t) * x0 + pick(d.std, t) * e
        gap = np.linalg.norm(e - to_noise(d, prediction, x, t, net(x, t)), axis=1) ** 2
        power = {"noise": 1 + 0 * d.b2[t], "x0": d.total[t] / d.scale[t] ** 2, "v": d.scale[t] ** -2.0}
        power["step"] = d.b2[t] / d.total[t]
        each = power[prediction] * gap / (x0.shape[1] if mean else 1)
        return each if weight is None else weight[t] * each

    return loss


for title, coding, prediction, key, weighted, mean, kind, D in [
    ("batched", loss_batched, "noise", "Ho's 1000 betas", False, False, F64, 3),
    ("batched", loss_batched, "v", "cosine T=20", True, False, F64, 2),
    ("batched", loss_batched, "x0", "VP T=40", False, True, F64, 8),
    ("batched", loss_batched, "noise", "Ho's 1000 betas", False, True, F32, 16),
    ("batched", loss_batched, "x0", "VP T=10", True, False, F32, 2),
    ("batched", loss_batched, "v", "lucidrains linear T=50", False, False, F32, 4),
    ("rows", loss_rows, "noise", "random T=8", True, False, F64, 1),
    ("rows", loss_rows, "step", "T=3", False, True, F64, 3),
    ("one number", loss_one_number, "noise", "cosine T=200", False, True, F64, 64),
    ("one number", loss_one_number, "v", "random T=15", True, False, F64, 2),
    ("multiples of the noise loss", loss_by_noise, "x0", "random T=8", False, False, F64, 3),
    ("multiples of the noise loss", loss_by_noise, "v", "constant .3 T=6", True, True, F64, 2),
    ("multiples of the noise loss", loss_by_noise, "step", "T=2", False, False, F64, 5),
]:

    def run_loss_of(
        coding: F = coding,
        prediction: str = prediction,
        key: str = key,
        weighted: bool = weighted,
        mean: bool = mean,
        kind: Any_ = kind,
        D: int = D,
    ) -> kit.Check:
        b = BETAS[key]
        net = Net(D, len(b), kind)
        weight = weights_snr(b, variances(b, "beta"))("min-snr") + 0.5 if weighted else None
        return kit.check_loss_of(
            coding(net, b, prediction, weight, mean),
            net,
            draws(20, 6, D),
            draws(21, 6, D),
            chain(b),
            prediction=prediction,
            weight=weight,
            reduction="mean" if mean else "sum",
        )

    add(f"loss of a network: {title}, {prediction}, {key}, {np.dtype(kind).name}, D={D}", run_loss_of)


def bound_of(coding: F, net: F, b: Any_, sigma2: Any_) -> F:
    inner = coding(b, sigma2)
    return lambda x0, noise: inner(x0, net, noise)


def bound_of_levels(net: F, b: Any_, sigma2: Any_, n: int) -> F:
    """L_0 is the mass of a bin of the width 2/(n − 1); the outer bins reach to infinity."""
    d = Deck(b)
    prior, step, _ = terms_noise(b, sigma2)

    def log_mass(x0: Any_, mean: Any_, std: float) -> Any_:
        half = 1 / (n - 1)
        high = np.where(x0 > 1 - half, np.inf, (x0 + half - mean) / std)
        low = np.where(x0 < -1 + half, -np.inf, (x0 - half - mean) / std)
        flip = low > 0
        high, low = np.where(flip, -low, high), np.where(flip, -high, low)
        top, bottom = special.log_ndtr(high), special.log_ndtr(low)
        return top + np.log1p(-np.exp(bottom - top))

    def bound(x0: Any_, noise: Any_) -> Any_:
        xs = d.scale[1:, None, None] * x0 + d.std[1:, None, None] * noise
        mean = (xs[0] - d.beta[1] * net(xs[0], 1)) / d.alpha[1]
        out = [-log_mass(x0, mean, math.sqrt(sigma2[1])).sum(1)]
        out += [step(t, x0, xs[t - 1], net) for t in range(2, d.T + 1)]
        return np.stack([*out, prior(x0)], axis=1)

    return bound


for title, coding, law, key, D in [
    ("sum of terms", bound_sum, "beta", "VP T=10", 3),
    ("sum of terms", bound_sum, "between", "lucidrains linear T=50", 16),
    ("rows of terms", bound_rows, "posterior", "cosine T=20", 4),
    ("rows of terms", bound_rows, "beta", "T=1", 2),
    ("cross-entropies and entropies", bound_entropies, "posterior", "random T=15", 2),
    ("cross-entropies and entropies", bound_entropies, "twice", "T=3", 3),
]:

    def run_bound_of(coding: F = coding, law: str = law, key: str = key, D: int = D) -> kit.Check:
        b = BETAS[key]
        T, net = len(b), Net(D, len(b))
        sigma2 = variances(b, law)
        given = law if law in ("beta", "posterior") else sigma2
        x0, noise = draws(22, 4, D), draws(23, T, 4, D)
        return kit.check_bound_of(bound_of(coding, net, b, sigma2), net, x0, noise, chain(b), given)

    add(f"bound of a network: {title}, {law}, {key}, D={D}", run_bound_of)

for key, law, n in [
    ("cosine T=20", "posterior", 17),
    ("random T=8", "beta", 5),
    ("lucidrains linear T=50", "beta", 256),
]:

    def run_levels(key: str = key, law: str = law, n: int = n) -> kit.Check:
        b = BETAS[key]
        T, net = len(b), Net(3, len(b))
        x0 = np.round(np.clip(0.5 + 0.3 * draws(24, 5, 3), 0, 1) * (n - 1)) / (n - 1) * 2 - 1
        bound = bound_of_levels(net, b, variances(b, law), n)
        return kit.check_bound_of(bound, net, x0, draws(25, T, 5, 3), chain(b), law, n_levels=n)

    add(f"bound of a network: bins of {n} levels, {law}, {key}", run_levels)


def run_bound_single() -> kit.Check:
    b = BETAS["constant .3 T=6"]
    net = Net(2, 6, F32)
    bound = bound_of(bound_sum, net, b, variances(b, "beta").astype(F32))
    return kit.check_bound_of(single(bound), net, draws(22, 4, 2), draws(23, 6, 4, 2), chain(b), "beta")


add("bound of a network: sum of terms in float32, constant .3 T=6", run_bound_single)


def path_of(step: F, net: F, last_noise: bool, whole: bool) -> F:
    def sample(x: Any_, noise: Any_) -> Any_:
        path = [x]
        for z, t in zip(noise, range(len(noise), 0, -1), strict=True):
            path.append(step(t, path[-1], net(path[-1], t), z if t > 1 or last_noise else np.zeros_like(z)))
        return np.stack(path) if whole else path[-1]

    return sample


for title, coding, law, key, last, whole, D in [
    ("Algorithm 2, no last noise", ancestral_ho, "beta", "VP T=10", False, False, 3),
    ("Algorithm 2, the path", ancestral_ho, "posterior", "cosine T=20", True, True, 2),
    ("x0 and coefficients", ancestral_x0, "posterior", "VP T=40", False, True, 4),
    ("x0 and coefficients", ancestral_x0, "between", "random T=15", True, False, 1),
    ("score", ancestral_score, "twice", "constant .3 T=6", False, False, 16),
    ("log-SNR", ancestral_vdm, "beta", "T=2", True, True, 2),
    ("direction to x_t", ancestral_ddim, "posterior", "constant .02 T=30", False, False, 8),
]:

    def run_sampler_of(
        coding: F = coding, law: str = law, key: str = key, last: bool = last, whole: bool = whole, D: int = D
    ) -> kit.Check:
        b = BETAS[key]
        T, net, sigma2 = len(b), Net(D, len(b)), variances(b, law)
        sample = path_of(coding(b, sigma2), net, last, whole)
        given = law if law in ("beta", "posterior") else sigma2
        x, noise = draws(26, 4, D), draws(27, T, 4, D)
        return kit.check_sampler_of(sample, net, x, noise, chain(b), given, last_noise=last)

    add(f"sampler of a network: {title}, {law}, {key}, D={D}", run_sampler_of)

for title, eta, key, kind, whole in [
    ("Song's step", 0.0, "VP T=10", F64, False),
    ("Song's step", 0.8, "random T=8", F64, True),
    ("Song's step", 1.0, "scaled linear T=100", F64, False),
    ("Song's step", 0.5, "constant .02 T=30", F32, False),
    ("logs", 0.0, "falling T=12", F64, True),
]:

    def run_ddim_of(
        title: str = title, eta: float = eta, key: str = key, kind: Any_ = kind, whole: bool = whole
    ) -> kit.Check:
        b = BETAS[key]
        T, net = len(b), Net(3, len(b), kind)
        two = ddim_logs(b, eta) if title == "logs" else ddim_song(b, eta, kind)
        sample = path_of(lambda t, x, e, z: two(t, t - 1, x, e, z), net, True, whole)
        sample = single(sample) if kind == F32 else sample
        return kit.check_sampler_of(sample, net, draws(26, 4, 3), draws(27, T, 4, 3), chain(b), eta=eta)

    add(f"sampler of a network: DDIM, {title}, η = {eta}, {key}, {np.dtype(kind).name}", run_ddim_of)


# check_flow_likelihood_of


def gaussian_score(sde: Any_, v: float) -> F:
    """The score of N(0, v) data under the process."""
    return lambda x, t: -x / (math.exp(2 * float(sde.log_scale(t))) * v + float(sde.std(t)) ** 2)


def curved_score(sde: Any_, v: float) -> F:
    plain = gaussian_score(sde, v)
    return lambda x, t: plain(x, t) + 0.1 * np.sin(x)


def curved_divergence(sde: Any_, v: float) -> F:
    rate = gaussian_score(sde, v)
    return lambda x, t: (rate(np.ones_like(x), t) + 0.1 * np.cos(x)).sum(1)


def log_normal(x: Any_, std: float) -> Any_:
    return stats.norm.logpdf(x, scale=std).sum(axis=1)


def flow_closed(sde: Any_, v: float, t_min: float, prior: float | None) -> F:
    """The flow of a Gaussian score is a rescaling by the marginal standard deviation."""

    def size(t: float) -> float:
        return math.sqrt(math.exp(2 * float(sde.log_scale(t))) * v + float(sde.std(t)) ** 2)

    def log_prob(x: Any_) -> Any_:
        factor = size(sde.horizon) / size(t_min)
        std = float(sde.std(sde.horizon)) if prior is None else prior
        return log_normal(x * factor, std) + x.shape[1] * math.log(factor)

    return log_prob


def flow_ivp(sde: Any_, v: float, t_min: float, prior: float | None, method: str = "RK45") -> F:
    score, divergence = curved_score(sde, v), curved_divergence(sde, v)

    def log_prob(x: Any_) -> Any_:
        n, D = x.shape

        def slope(t: float, state: Any_) -> Any_:
            y = state[: n * D].reshape(n, D)
            f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2
            move = f * y - 0.5 * g2 * score(y, t)
            return np.append(move.ravel(), D * f - 0.5 * g2 * divergence(y, t))

        start = np.append(x.ravel(), np.zeros(n))
        end = integrate.solve_ivp(slope, (t_min, sde.horizon), start, method, rtol=1e-9, atol=1e-9).y[:, -1]
        std = float(sde.std(sde.horizon)) if prior is None else prior
        return log_normal(end[: n * D].reshape(n, D), std) + end[n * D :]

    return log_prob


def flow_runge_kutta(sde: Any_, v: float, t_min: float, prior: float | None) -> F:
    """Fixed steps of order 4, even in √t."""
    score, divergence = curved_score(sde, v), curved_divergence(sde, v)
    times = np.linspace(math.sqrt(t_min), math.sqrt(sde.horizon), 401)

    def log_prob(x: Any_) -> Any_:
        def slope(r: float, y: Any_) -> Any_:
            t = r * r
            f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2
            return 2 * r * (f * y - 0.5 * g2 * score(y, t)), 2 * r * (y.shape[1] * f - 0.5 * g2 * divergence(y, t))

        total = np.zeros(len(x))
        for a, c in itertools.pairwise(times):
            h = c - a
            k1, l1 = slope(a, x)
            k2, l2 = slope(a + h / 2, x + h / 2 * k1)
            k3, l3 = slope(a + h / 2, x + h / 2 * k2)
            k4, l4 = slope(c, x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            total = total + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
        return log_normal(x, float(sde.std(sde.horizon)) if prior is None else prior) + total

    return log_prob


for title, coding, net, sde, v, t_min, prior, exact in [
    ("closed form, VP", flow_closed, gaussian_score, VP(), 0.5, 1e-3, None, False),
    ("closed form, VE, prior 1", flow_closed, gaussian_score, VE(0.1, 5.0), 1.0, 1e-2, 1.0, False),
    ("closed form, SubVP", flow_closed, gaussian_score, SubVP(0.1, 10.0), 2.0, 1e-2, None, False),
    ("RK45, VP, prior 1", flow_ivp, curved_score, VP(0.1, 10.0), 0.6, 1e-2, 1.0, True),
    ("RK45, VE", flow_ivp, curved_score, VE(0.2, 3.0), 1.2, 1e-2, None, True),
    ("order 4 in √t, VP", flow_runge_kutta, curved_score, VP(0.1, 8.0), 0.8, 1e-2, None, True),
    ("order 4 in √t, SubVP, prior 1", flow_runge_kutta, curved_score, SubVP(0.5, 6.0), 1.0, 2e-2, 1.0, False),
]:

    def run_flow(
        coding: F = coding,
        net: F = net,
        sde: Any_ = sde,
        v: float = v,
        t_min: float = t_min,
        prior: float | None = prior,
        exact: bool = exact,
    ) -> kit.Check:
        divergence = curved_divergence(sde, v) if exact else None
        log_prob = coding(sde, v, t_min, prior)
        return kit.check_flow_likelihood_of(
            log_prob, net(sde, v), 0.8 * draws(30, 4, 2), sde, t_min, divergence=divergence, prior_std=prior
        )

    add(f"flow likelihood: {title}", run_flow)


# Gradients


def regression(seed: int) -> tuple[Any_, F, F]:
    """Multinomial logistic regression with a penalty: the gradient is Xᵀ(p − y)/n + λw."""
    x, y = draws(seed, 9, 3), np.eye(3)[np.arange(9) % 3]

    def loss(w: Any_) -> float:
        logits = x @ w.reshape(3, 3)
        return float(np.mean(special.logsumexp(logits, axis=1) - (logits * y).sum(1)) + 0.05 * w @ w)

    def gradient(w: Any_) -> Any_:
        p = special.softmax(x @ w.reshape(3, 3), axis=1)
        return (x.T @ (p - y) / 9).ravel() + 0.1 * w

    return 0.5 * draws(seed + 1, 9), loss, gradient


def gaussian_fit(seed: int) -> tuple[Any_, F, F]:
    """−log likelihood in (means, log-variances)."""
    x = 1 + draws(seed, 20, 2)

    def loss(p: Any_) -> float:
        return float(-stats.norm.logpdf(x, p[:2], np.exp(p[2:] / 2)).sum(1).mean())

    def gradient(p: Any_) -> Any_:
        gap = p[:2] - x.mean(0)
        spread = x.var(axis=0) + gap**2
        return np.concatenate([gap * np.exp(-p[2:]), 0.5 - 0.5 * spread * np.exp(-p[2:])])

    return np.array([0.4, 1.5, -0.3, 0.6]), loss, gradient


def two_layers(seed: int, complex_step: bool) -> tuple[Any_, F, F]:
    """The denoising loss of a perceptron with one hidden layer, with weights in one vector."""
    b = BETAS["random T=8"]
    d = Deck(b)
    t = np.arange(1, 9)
    x0, e = draws(seed, 8, 2), draws(seed + 1, 8, 2)
    x = d.scale[t][:, None] * x0 + d.std[t][:, None] * e

    def parts(p: Any_) -> Any_:
        return p[:8].reshape(2, 4), p[8:12], p[12:20].reshape(4, 2)

    def loss(p: Any_) -> Any_:
        w1, b1, w2 = parts(p)
        return ((np.tanh(x @ w1 + b1) @ w2 - e) ** 2).sum() / 8

    def backward(p: Any_) -> Any_:
        w1, b1, w2 = parts(p)
        h = np.tanh(x @ w1 + b1)
        top = 2 * (h @ w2 - e) / 8
        low = top @ w2.T * (1 - h**2)
        return np.concatenate([(x.T @ low).ravel(), low.sum(0), (h.T @ top).ravel()])

    def by_complex(p: Any_) -> Any_:
        return np.array([loss(p + 1e-30j * row).imag / 1e-30 for row in np.eye(20)])

    return 0.6 * draws(seed + 2, 20), loss, by_complex if complex_step else backward


def mixture_fit(seed: int) -> tuple[Any_, F, F]:
    """−log likelihood of two unit Gaussians on a line, in (logit, two means)."""
    x = np.append(draws(seed, 6) - 2, draws(seed + 1, 6) + 1.5)

    def joint(p: Any_) -> Any_:
        weights = -softplus(np.array([-p[0], p[0]]))
        return weights[:, None] + stats.norm.logpdf(x, p[1:, None])

    def loss(p: Any_) -> float:
        return float(-special.logsumexp(joint(p), axis=0).sum())

    def gradient(p: Any_) -> Any_:
        r = special.softmax(joint(p), axis=0)
        means = -(r * (x - p[1:, None])).sum(1)
        return np.append(len(x) * special.expit(p[0]) - r[0].sum(), means)

    return np.array([0.3, -1.0, 0.8]), loss, gradient


for title, problem, dense in [
    ("logistic regression", regression(1), False),
    ("logistic regression", regression(5), True),
    ("Gaussian likelihood", gaussian_fit(2), False),
    ("denoising loss, backward pass", two_layers(3, False), True),
    ("denoising loss, complex step", two_layers(7, True), False),
    ("mixture likelihood by responsibilities", mixture_fit(4), True),
]:

    def run_gradient(problem: Any_ = problem, dense: bool = dense) -> kit.Check:
        start, loss, gradient = problem
        directions = draws(9, 4, len(start)) / math.sqrt(len(start)) if dense else np.eye(len(start))
        return kit.check_gradient(loss, gradient, start, directions)

    add(f"gradient: {title}, {'dense' if dense else 'unit'} directions", run_gradient)


def squares_pair(D: int) -> tuple[F, F]:
    """‖ε − ε̂‖² and 2(ε̂ − ε); the other formula multiplies out."""
    e = draws(31, 5, D)

    def both(guess: Any_) -> Any_:
        gap = guess - e
        return np.einsum("nd,nd->n", gap, gap), 2 * gap

    return both, lambda guess: (e**2).sum(1) - 2 * (e * guess).sum(1) + (guess**2).sum(1)


def velocity_pair(D: int) -> tuple[F, F]:
    """The loss of v̂ as a function of ε̂: ‖ε − ε̂‖²/ᾱ², and its derivative."""
    d = Deck(BETAS["VP T=10"])
    e, x0, t = draws(31, 5, D), draws(32, 5, D), np.array([1, 3, 5, 7, 9])
    a, s = d.scale[t][:, None], d.std[t][:, None]

    def both(guess: Any_) -> Any_:
        gap = (guess - e) / a
        return (gap**2).sum(axis=1), 2 * gap / a

    def other(guess: Any_) -> Any_:
        x = a * x0 + s * e
        v_hat = a * guess - s * (x - s * guess) / a
        return np.linalg.norm(a * e - s * x0 - v_hat, axis=1) ** 2

    return both, other


def likelihood_pair(D: int) -> tuple[F, F]:
    """−log N(x; m, s² I) as a function of m."""
    x, s2 = draws(33, 5, D), 0.4

    def both(mean: Any_) -> Any_:
        return ((x - mean) ** 2).sum(1) / (2 * s2) + D / 2 * np.log(2 * np.pi * s2), (mean - x) / s2

    return both, lambda mean: -stats.norm.logpdf(x, mean, math.sqrt(s2)).sum(1)


def bernoulli_pair(D: int) -> tuple[F, F]:
    """Σ softplus(l) − x l, with σ(l) − x, against the logarithms of the probabilities."""
    x = (draws(34, 5, D) > 0).astype(float)

    def both(logits: Any_) -> Any_:
        return (softplus(logits) - x * logits).sum(1), special.expit(logits) - x

    return both, lambda logits: -(x * np.log(special.expit(logits)) + (1 - x) * np.log(special.expit(-logits))).sum(1)


def huber_pair(D: int) -> tuple[F, F]:
    """The pseudo-Huber loss of consistency models: √(‖ε̂ − ε‖² + c²) − c."""
    e, c = draws(35, 5, D), 0.3

    def both(guess: Any_) -> Any_:
        root = np.sqrt(((guess - e) ** 2).sum(1) + c**2)
        return root - c, (guess - e) / root[:, None]

    def other(guess: Any_) -> Any_:
        square = np.array([np.dot(r, r) for r in guess - e])
        return square / (np.sqrt(square + c * c) + c)

    return both, other


PAIRS = [
    ("noise, D=2", squares_pair(2)),
    ("noise, D=64", squares_pair(64)),
    ("velocity, D=3", velocity_pair(3)),
    ("Gaussian likelihood, D=4", likelihood_pair(4)),
    ("Bernoulli logits, D=8", bernoulli_pair(8)),
    ("pseudo-Huber, D=3", huber_pair(3)),
]
for title, pair in PAIRS:

    def run_loss_gradient(pair: Any_ = pair) -> kit.Check:
        both, other = pair
        return kit.check_loss_gradient(both, other, 0.8 * draws(36, 5, other_size(both)))

    add(f"loss gradient: {title}", run_loss_gradient)


def other_size(both: F) -> int:
    """D of a pair, by its own noise."""
    cells = [c.cell_contents for c in both.__closure__ or ()]
    return next(c.shape[1] for c in cells if isinstance(c, np.ndarray) and c.ndim == 2 and c.shape[1] > 1)


class Perceptron:
    """tanh(x W + b) V, with parameters in one vector, as the ε̂ of a denoising loss."""

    def __init__(self, key: str, D: int, N: int, width: int = 5, kind: Any_ = F64) -> None:
        d = Deck(BETAS[key])
        self.D, self.N, self.width, self.kind = D, N, width, kind
        t = 1 + np.arange(N) % d.T
        self.e = draws(40, N, D).astype(kind)
        x0 = draws(41, N, D)
        x = d.scale[t][:, None] * x0 + d.std[t][:, None] * self.e
        self.x = np.concatenate([x, np.log(d.total[t])[:, None]], 1).astype(kind)
        self.size = (D + 1) * width + width + width * D

    def split(self, p: Any_) -> Any_:
        p = np.asarray(p, self.kind)
        n = (self.D + 1) * self.width
        w, c, v = p[:n], p[n : n + self.width], p[n + self.width :]
        return w.reshape(self.D + 1, -1), c, v.reshape(self.width, -1)

    def losses(self, p: Any_) -> Any_:
        w, c, v = self.split(p)
        return ((np.tanh(self.x @ w + c) @ v - self.e) ** 2).sum(1)

    def gradient(self, p: Any_, weight: Any_) -> tuple[Any_, Any_]:
        w, c, v = self.split(p)
        h = np.tanh(self.x @ w + c)
        gap = h @ v - self.e
        top = 2 * np.broadcast_to(weight, (self.N,)).astype(self.kind)[:, None] * gap / self.N
        low = (top @ v.T) * (1 - h * h)
        return (gap**2).sum(1), np.concatenate([(self.x.T @ low).ravel(), low.sum(0), (h.T @ top).ravel()])

    def accumulated(self, p: Any_, weight: Any_) -> tuple[Any_, Any_]:
        """One example after another, with the gradients added."""
        w, c, v = self.split(p)
        losses, total = [], np.zeros(self.size)
        for n in range(self.N):
            row = self.x[n]
            h = np.tanh(row @ w + c)
            gap = h @ v - self.e[n]
            low = (v @ gap) * (1 - h**2)
            one = np.concatenate([np.outer(row, low).ravel(), low, np.outer(h, gap).ravel()])
            total += 2 * float(np.broadcast_to(weight, (self.N,))[n]) * one
            losses.append(float(gap @ gap))
        return losses, total / self.N

    def complex_step(self, p: Any_, weight: Any_) -> tuple[Any_, Any_]:
        def mean(q: Any_) -> Any_:
            n = (self.D + 1) * self.width
            w, c, v = q[:n].reshape(self.D + 1, -1), q[n : n + self.width], q[n + self.width :].reshape(self.width, -1)
            return np.mean(weight * ((np.tanh(self.x @ w + c) @ v - self.e) ** 2).sum(1))

        slopes = [mean(p + 1e-40j * row).imag / 1e-40 for row in np.eye(self.size)]
        return self.losses(p), np.array(slopes)


def away(n: int, seed: int) -> Any_:
    """Parameters with no entry near 0."""
    z = 0.4 * draws(seed, n)
    return z + 0.2 * np.sign(z)


for title, way, key, D, weighted in [
    ("backward pass", "gradient", "VP T=10", 2, False),
    ("backward pass", "gradient", "cosine T=20", 3, True),
    ("backward pass", "gradient", "Ho's 1000 betas", 8, True),
    ("added over examples", "accumulated", "random T=8", 2, True),
    ("added over examples", "accumulated", "T=3", 1, False),
    ("complex step", "complex_step", "constant .3 T=6", 2, True),
]:

    def run_training_step(way: str = way, key: str = key, D: int = D, weighted: bool = weighted) -> kit.Check:
        net = Perceptron(key, D, 7)
        weight = 0.5 + np.arange(7) / 3 if weighted else 1.0
        return kit.check_training_step(lambda p: getattr(net, way)(p, weight), net.losses, away(net.size, 42), weight)

    add(f"training step: {title}, {key}, D={D}, {'weights' if weighted else 'plain'}", run_training_step)


# Adam in several forms: each is a factory of a stepper (parameters) → function of (gradient, learning rate)


def adam_printed(p: Any_, b1: float, b2: float, eps: float, decay: float) -> F:
    state = {"p": p.copy(), "m": np.zeros_like(p), "v": np.zeros_like(p), "k": 0}

    def step(g: Any_, rate: Any_) -> Any_:
        state["k"] += 1
        state["m"] = b1 * state["m"] + (1 - b1) * g
        state["v"] = b2 * state["v"] + (1 - b2) * g * g
        m, v = state["m"] / (1 - b1 ** state["k"]), state["v"] / (1 - b2 ** state["k"])
        state["p"] = state["p"] - rate * m / (np.sqrt(v) + eps) - rate * decay * state["p"]
        return state["p"].copy()

    return step


def adam_torch(p: Any_, b1: float, b2: float, eps: float, decay: float) -> F:
    """In place, with lerp, addcmul and the step size lr/(1 − β₁ⁿ)."""
    p, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)
    count = [0]

    def step(g: Any_, rate: Any_) -> Any_:
        nonlocal p, m, v
        count[0] += 1
        p *= (1 - rate * decay) if decay else 1
        m += (1 - b1) * (g - m)
        v *= b2
        v += (1 - b2) * g**2
        size = rate / (1 - b1 ** count[0])
        p -= size * (m / (np.sqrt(v) / math.sqrt(1 - b2 ** count[0]) + eps))
        return p.copy()

    return step


def adam_efficient(p: Any_, b1: float, b2: float, eps: float, decay: float) -> F:
    """The order of the end of section 2 of the paper, with ε scaled so that it is the same."""
    m = v = 0.0
    power1 = power2 = 1.0

    def step(g: Any_, rate: Any_) -> Any_:
        nonlocal p, m, v, power1, power2
        power1, power2 = power1 * b1, power2 * b2
        m, v = m * b1 + g * (1 - b1), v * b2 + g * g * (1 - b2)
        root = math.sqrt(1 - power2)
        p = (1 - rate * decay) * p - rate * root / (1 - power1) * m / (np.sqrt(v) + eps * root)
        return p

    return step


def adam_sums(p: Any_, b1: float, b2: float, eps: float, decay: float) -> F:
    """The moments as weighted means over the whole history."""
    history: list[Any_] = []

    def step(g: Any_, rate: Any_) -> Any_:
        nonlocal p
        history.append(np.array(g))
        age = np.arange(len(history))[::-1]
        m = np.average(history, axis=0, weights=b1**age)
        v = np.average(np.square(history), axis=0, weights=b2**age)
        p = p - rate * (m / (np.sqrt(v) + eps) + decay * p)
        return p

    return step


def adam_floats(p: Any_, b1: float, b2: float, eps: float, decay: float) -> F:
    values = [[float(q), 0.0, 0.0] for q in p]
    count = [0]

    def step(g: Any_, rate: Any_) -> Any_:
        count[0] += 1
        rates = np.broadcast_to(rate, (len(values),))
        for one, slope, lr in zip(values, np.asarray(g).tolist(), rates.tolist(), strict=True):
            one[1] = b1 * one[1] + (1 - b1) * slope
            one[2] = b2 * one[2] + (1 - b2) * slope**2
            one[0] *= 1 - lr * decay
            one[0] -= lr * one[1] / (1 - b1 ** count[0]) / ((one[2] / (1 - b2 ** count[0])) ** 0.5 + eps)
        return np.array([one[0] for one in values])

    return step


for title, adam, options, P, n, kind in [
    ("printed", adam_printed, {}, 4, 12, F64),
    ("printed", adam_printed, {"weight_decay": 0.1, "learning_rate": 0.02}, 3, 30, F64),
    ("torch's order", adam_torch, {"learning_rate": 0.01, "weight_decay": 0.05}, 5, 20, F64),
    ("torch's order", adam_torch, {"beta1": 0.5, "beta2": 0.9}, 64, 8, F64),
    ("torch's order", adam_torch, {"learning_rate": 0.01}, 6, 15, F32),
    ("scaled ε", adam_efficient, {"epsilon": 1e-3, "learning_rate": 0.05}, 4, 25, F64),
    ("scaled ε", adam_efficient, {"weight_decay": 0.2, "beta1": 0.8}, 2, 10, F64),
    ("weighted means", adam_sums, {"beta2": 0.99, "learning_rate": 0.1}, 3, 40, F64),
    ("floats", adam_floats, {"epsilon": 1e-2, "weight_decay": 0.01, "learning_rate": 0.03}, 4, 16, F64),
    ("printed", adam_printed, {"weight_decay": 0.1, "learning_rate": 0.003}, 8, 10, F32),
]:

    def run_adam(
        adam: F = adam, options: dict[str, float] = options, P: int = P, n: int = n, kind: Any_ = kind
    ) -> kit.Check:
        def run(start: Any_, gradients: Any_) -> Any_:
            o = options
            b1, b2 = o.get("beta1", 0.9), o.get("beta2", 0.999)
            step = adam(start.astype(kind), b1, b2, o.get("epsilon", 1e-8), o.get("weight_decay", 0.0))
            return np.stack([step(g.astype(kind), o.get("learning_rate", 1e-3)) for g in gradients])

        tolerance = 1e-5 if kind == F32 else 1e-12
        return kit.check_adam(run, draws(50, P), draws(51, n, P) + 0.3, **options, tolerance=tolerance)

    add(f"Adam: {title}, {options}, {np.dtype(kind).name}", run_adam)


# check_learning_rate


def rate_plain(n: int, top: float, warmup: int) -> F:
    def rate(step: int) -> float:
        if step < warmup:
            return top * (step + 1) / warmup
        return 0.5 * top * (1 + math.cos(math.pi * (step - warmup) / (n - warmup)))

    return rate


def rate_half_angle(n: int, top: float, warmup: int) -> F:
    """½(1 + cos θ) = cos²(θ/2)."""

    def rate(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        share = max(0, step - warmup) / (n - warmup)
        return top * rise * math.cos(math.pi / 2 * share) ** 2

    return rate


def rate_table(n: int, top: float, warmup: int) -> F:
    rise = top * np.arange(1, warmup + 1) / max(warmup, 1)
    fall = top * (1 - np.sin(np.pi / 2 * np.arange(n - warmup) / (n - warmup)) ** 2)
    table = np.concatenate([rise, fall])
    return lambda step: table[step]


def rate_lambda(n: int, top: float, warmup: int) -> F:
    """A factor of the largest rate, as LambdaLR takes it, with the end of the cosine at 0."""

    def factor(step: int) -> float:
        done = (step - warmup) / (n - warmup)
        return (step + 1) / warmup if step < warmup else 0.5 + 0.5 * np.exp(1j * np.pi * done).real

    return lambda step: factor(step) * top


for title, coding, n, top, warmup in [
    ("as written", rate_plain, 100, 1e-3, 10),
    ("as written", rate_plain, 20, 0.3, 0),
    ("half angle", rate_half_angle, 57, 5e-3, 7),
    ("half angle", rate_half_angle, 12, 1.0, 1),
    ("table", rate_table, 200, 2e-4, 20),
    ("table", rate_table, 30, 0.1, 0),
    ("complex exponential", rate_lambda, 40, 1e-2, 39),
]:

    def run_rate(coding: F = coding, n: int = n, top: float = top, warmup: int = warmup) -> kit.Check:
        return kit.check_learning_rate(coding(n, top, warmup), n, top, warmup)

    add(f"learning rate: {title}, {n} steps, warmup {warmup}", run_rate)


# check_moving_average


def average_plain(decay: float) -> F:
    def average(start: Any_, parameters: Any_) -> Any_:
        out, now = [], start
        for k, p in enumerate(parameters, 1):
            d = min(decay, (1 + k) / (10 + k))
            now = d * now + (1 - d) * p
            out.append(now)
        return out

    return average


def average_lerp(decay: float) -> F:
    def average(start: Any_, parameters: Any_) -> Any_:
        shadow, out = start.copy(), np.empty_like(parameters)
        for i in range(len(parameters)):
            one_minus = 1 - min(decay, (2 + i) / (11 + i))
            shadow -= one_minus * (shadow - parameters[i])
            out[i] = shadow
        return out

    return average


def average_matrix(decay: float) -> F:
    """The weights of all earlier vectors in one lower triangular matrix."""

    def average(start: Any_, parameters: Any_) -> Any_:
        n = len(parameters)
        k = np.arange(1, n + 1)
        d = np.minimum(decay, (1 + k) / (10 + k))
        weights = np.zeros((n, n + 1))
        for i in range(n):
            weights[i] = weights[i - 1] * d[i] if i else 0.0
            weights[i, 0] = np.prod(d[: i + 1])
            weights[i, i + 1] = 1 - d[i]
        return weights @ np.vstack([start, parameters])

    return average


for title, coding, decay, n, P, kind in [
    ("as written", average_plain, 0.999, 30, 4, F64),
    ("as written", average_plain, 0.5, 50, 2, F64),
    ("lerp in place", average_lerp, 0.9999, 12, 64, F64),
    ("lerp in place", average_lerp, 0.9, 100, 3, F32),
    ("triangular weights", average_matrix, 0.99, 40, 5, F64),
    ("triangular weights", average_matrix, 0.3, 6, 1, F64),
]:

    def run_average(coding: F = coding, decay: float = decay, n: int = n, P: int = P, kind: Any_ = kind) -> kit.Check:
        average = coding(decay)
        if kind == F32:
            return kit.check_moving_average(single(average), draws(52, P), draws(53, n, P), decay).at(1e-5)
        return kit.check_moving_average(average, draws(52, P), draws(53, n, P), decay)

    add(f"moving average: {title}, {decay}, n={n}, P={P}, {np.dtype(kind).name}", run_average)


# check_training


class Batches:
    """Batches of the denoising loss of ε̂ = A x + c, with a gradient by hand; parameters (A, c)."""

    def __init__(self, key: str, D: int, n: int, kind: Any_ = F64) -> None:
        d = Deck(BETAS[key])
        t = 1 + np.arange(6) % d.T
        self.D, self.kind = D, kind
        self.e = draws(60, n, 6, D).astype(kind)
        x0 = 0.7 + draws(61, n, 6, D)
        self.x = (d.scale[t][:, None] * x0 + d.std[t][:, None] * self.e).astype(kind)

    def split(self, p: Any_) -> Any_:
        return p[: self.D**2].reshape(self.D, self.D), p[self.D**2 :]

    def loss(self, p: Any_, n: int) -> float:
        a, c = self.split(np.asarray(p, F64))
        return float(np.mean(((self.x[n].astype(F64) @ a.T + c - self.e[n].astype(F64)) ** 2).sum(1)))

    def both(self, p: Any_, n: int) -> tuple[float, Any_]:
        a, c = self.split(p)
        gap = self.x[n] @ a.T + c - self.e[n]
        return float((gap**2).sum() / 6), np.append((gap.T @ self.x[n] / 3).ravel(), gap.sum(0) / 3)


for title, adam, rates, average, key, D, n, warmup, decay, ema, kind in [
    ("printed", adam_printed, rate_plain, average_plain, "VP T=10", 2, 8, 2, 0.0, 0.99, F64),
    ("torch's order", adam_torch, rate_table, average_lerp, "cosine T=20", 2, 15, 5, 0.1, 0.999, F64),
    ("scaled ε", adam_efficient, rate_half_angle, average_matrix, "random T=8", 1, 20, 0, 0.05, 0.5, F64),
    ("weighted means", adam_sums, rate_lambda, average_plain, "T=3", 3, 6, 1, 0.0, None, F64),
    ("floats", adam_floats, rate_plain, average_lerp, "constant .3 T=6", 2, 10, 3, 0.2, 0.9, F64),
    ("torch's order", adam_torch, rate_plain, average_plain, "VP T=40", 2, 6, 2, 0.0, 0.9, F32),
]:

    def run_training(
        adam: F = adam,
        rates: F = rates,
        average: F = average,
        key: str = key,
        D: int = D,
        n: int = n,
        warmup: int = warmup,
        decay: float = decay,
        ema: float | None = ema,
        kind: Any_ = kind,
    ) -> kit.Check:
        batches = Batches(key, D, n, kind)
        rate = rates(n, 0.03, warmup)

        def train(start: Any_) -> Any_:
            p = np.array(start, kind)
            step = adam(p, 0.9, 0.999, 1e-8, decay)
            losses, path = [], []
            for i in range(n):
                value, slope = batches.both(p, i)
                p = step(slope, rate(i))
                losses.append(value)
                path.append(p)
            shadow = average(ema)(np.array(start, kind), np.stack(path))[-1] if ema else p
            return losses, p, shadow

        start = away(D * D + D, 62)
        check = kit.check_training(train, batches.loss, start, n, 0.03, warmup, decay, ema)
        return check.at(1e-5) if kind == F32 else check

    add(f"training: {title}, {key}, D={D}, {n} steps, {np.dtype(kind).name}", run_training)


# Networks: check_mlp, check_jvp, check_activation


SLOPES: dict[str, tuple[F, F]] = {
    "silu": (lambda z: z * special.expit(z), lambda z: special.expit(z) * (1 + z * special.expit(-z))),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "identity": (lambda z: z, np.ones_like),
    "sigmoid": (lambda z: 0.5 + 0.5 * np.tanh(z / 2), lambda z: special.expit(z) * special.expit(-z)),
    "relu": (lambda z: (z + np.abs(z)) / 2, lambda z: (z > 0) * 1.0),
    "gelu": (
        lambda z: 0.5 * z * (1 + special.erf(z / math.sqrt(2))),
        lambda z: special.ndtr(z) + z * stats.norm.pdf(z),
    ),
}


def layers_of(*sizes: int) -> list[Any_]:
    return [
        (draws(70 + i, m, n) / math.sqrt(m), 0.3 * draws(80 + i, n))
        for i, (m, n) in enumerate(itertools.pairwise(sizes))
    ]


def mlp_plain(layers: Any_, act: str, kind: Any_ = F64) -> F:
    def call(x: Any_) -> Any_:
        for i, (w, c) in enumerate(layers):
            x = x @ w.astype(kind) + c.astype(kind)
            x = SLOPES[act][0](x) if i + 1 < len(layers) else x
        return x

    return call


def mlp_torch(layers: Any_, act: str, kind: Any_ = F64) -> F:
    """Weights (out, in), and columns as examples."""
    stored = [(w.T.copy(), c[:, None]) for w, c in layers]

    def call(x: Any_) -> Any_:
        h = stored[0][0] @ x.T + stored[0][1]
        for w, c in stored[1:]:
            h = w @ SLOPES[act][0](h) + c
        return h.T

    return call


def mlp_augmented(layers: Any_, act: str, kind: Any_ = F64) -> F:
    """The biases as a last row of the weights."""
    stored = [np.vstack([w, c]) for w, c in layers]

    def call(x: Any_) -> Any_:
        for i, w in enumerate(stored):
            x = SLOPES[act][0](x) if i else x
            x = np.einsum("nm,mk->nk", np.hstack([x, np.ones((len(x), 1))]), w)
        return x

    return call


def mlp_rows(layers: Any_, act: str, kind: Any_ = F64) -> F:
    def one(row: Any_) -> Any_:
        for i, (w, c) in enumerate(layers):
            row = np.array([sum(row[m] * w[m, k] for m in range(len(row))) + c[k] for k in range(len(c))])
            if i < len(layers) - 1:
                row = SLOPES[act][0](row)
        return row

    return lambda x: [one(row) for row in x]


for title, coding, act, sizes in [
    ("as written", mlp_plain, "silu", (2, 64, 64, 1)),
    ("as written", mlp_plain, "gelu", (5, 8, 3)),
    ("weights (out, in)", mlp_torch, "tanh", (3, 16, 16, 3)),
    ("weights (out, in)", mlp_torch, "sigmoid", (1, 7, 2)),
    ("augmented", mlp_augmented, "relu", (4, 10, 10, 10, 2)),
    ("augmented", mlp_augmented, "identity", (2, 3)),
    ("rows", mlp_rows, "silu", (2, 5, 4)),
    ("rows", mlp_rows, "tanh", (3, 4, 4, 1)),
]:

    def run_mlp(coding: F = coding, act: str = act, sizes: tuple[int, ...] = sizes) -> kit.Check:
        layers = layers_of(*sizes)
        return kit.check_mlp(coding(layers, act), layers, draws(71, 6, sizes[0]), act)

    add(f"MLP: {title}, {act}, {sizes}", run_mlp)


def run_mlp_single() -> kit.Check:
    layers = layers_of(3, 32, 32, 3)
    return kit.check_mlp(single(mlp_plain(layers, "silu", F32)), layers, draws(71, 6, 3), "silu").at(1e-5)


add("MLP: as written in float32, silu", run_mlp_single)


def jvp_forward(layers: Any_, act: str, kind: Any_ = F64) -> F:
    def jvp(x: Any_, v: Any_) -> Any_:
        for i, (w, c) in enumerate(layers):
            x, v = x @ w.astype(kind) + c.astype(kind), v @ w.astype(kind)
            if i + 1 < len(layers):
                x, v = SLOPES[act][0](x), v * SLOPES[act][1](x)
        return x, v

    return jvp


def jvp_complex(layers: Any_, act: str, kind: Any_ = F64) -> F:
    def jvp(x: Any_, v: Any_) -> Any_:
        h = x + 1e-30j * v
        for i, (w, c) in enumerate(layers):
            h = h @ w + c
            if i + 1 < len(layers):
                h = np.tanh(h) if act == "tanh" else h / (1 + np.exp(-h))
        return h.real, h.imag / 1e-30

    return jvp


def jvp_jacobian(layers: Any_, act: str, kind: Any_ = F64) -> F:
    """The Jacobians of all examples from the output down, applied to the direction at the end."""

    def jvp(x: Any_, v: Any_) -> Any_:
        zs, h = [], x
        for i, (w, c) in enumerate(layers):
            zs.append(h @ w + c)
            h = SLOPES[act][0](zs[-1]) if i + 1 < len(layers) else zs[-1]
        jacobian = np.broadcast_to(layers[-1][0].T, (len(x), *layers[-1][0].T.shape))
        for (w, _), z in zip(layers[-2::-1], zs[-2::-1], strict=True):
            jacobian = np.einsum("nok,nk,mk->nom", jacobian, SLOPES[act][1](z), w)
        return h, np.einsum("nom,nm->no", jacobian, v)

    return jvp


for title, coding, act, sizes in [
    ("forward mode", jvp_forward, "silu", (2, 16, 16, 2)),
    ("forward mode", jvp_forward, "gelu", (4, 12, 3)),
    ("complex step", jvp_complex, "tanh", (3, 10, 10, 3)),
    ("complex step", jvp_complex, "silu", (2, 8, 2)),
    ("Jacobians", jvp_jacobian, "sigmoid", (5, 9, 9, 2)),
    ("Jacobians", jvp_jacobian, "tanh", (1, 6, 1)),
]:

    def run_jvp(coding: F = coding, act: str = act, sizes: tuple[int, ...] = sizes) -> kit.Check:
        layers = layers_of(*sizes)
        return kit.check_jvp(
            coding(layers, act), mlp_plain(layers, act), draws(72, 5, sizes[0]), draws(73, 5, sizes[0])
        )

    add(f"JVP: {title}, {act}, {sizes}", run_jvp)


def run_jvp_single() -> kit.Check:
    layers = layers_of(2, 16, 16, 2)
    call = single(mlp_plain(layers, "tanh", F32))
    return kit.check_jvp(single(jvp_fixed(layers)), call, draws(72, 5, 2), 0.5 * draws(73, 5, 2)).at(1e-5)


def jvp_fixed(layers: Any_) -> F:
    """Forward mode of tanh in float32, with the slope 1 − h²."""

    def jvp(x: Any_, v: Any_) -> Any_:
        for i, (w, c) in enumerate(layers):
            x, v = x @ w.astype(F32) + c.astype(F32), v @ w.astype(F32)
            if i + 1 < len(layers):
                x = np.tanh(x)
                v = v * (1 - x * x)
        return x, v

    return jvp


add("JVP: forward mode in float32, tanh", run_jvp_single)


def silu_tanh(z: Any_) -> Any_:
    return 0.5 * z * (1 + np.tanh(0.5 * z))


def silu_both_tanh(z: Any_) -> Any_:
    s = 0.5 * (1 + np.tanh(0.5 * z))
    return z * s, s * (1 + z - z * s)


def silu_log(z: Any_) -> Any_:
    return z * np.exp(-softplus(-z))


def silu_both_log(z: Any_) -> Any_:
    low, high = np.exp(-softplus(-z)), np.exp(-softplus(z))
    return z * low, low + z * low * high


def silu_branches(z: Any_) -> Any_:
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, z, z * small) / (1 + small)


def silu_both_branches(z: Any_) -> Any_:
    y = silu_branches(z)
    small = np.exp(-np.abs(z))
    return y, np.where(z >= 0, 1, small) / (1 + small) + z * small / (1 + small) ** 2


def silu_in_place(z: Any_) -> Any_:
    s = special.expit(z)
    np.multiply(z, s, out=z)
    return z


def silu_both_in_place(z: Any_) -> Any_:
    s = special.expit(z)
    z *= s
    slope = s + z * (1 - s)
    return z, slope


def silu_floats(z: Any_) -> Any_:
    return [v / (1 + math.exp(-v)) if v > -700 else 0.0 for v in np.asarray(z).tolist()]


def silu_both_floats(z: Any_) -> Any_:
    s = special.expit(z)
    return silu_floats(z), [float(v) * (1 + float(x) * (1 - float(v))) for v, x in zip(s, z, strict=True)]


for title, value, both, z in [
    ("tanh", silu_tanh, silu_both_tanh, np.linspace(-8, 8, 33)),
    ("softplus", silu_log, silu_both_log, np.linspace(-20, 20, 41)),
    ("two branches", silu_branches, silu_both_branches, np.linspace(-800, 800, 65)),
    ("in place", silu_in_place, silu_both_in_place, draws(74, 50)),
    ("in place", silu_in_place, silu_both_in_place, 5 * draws(75, 7)),
    ("floats", silu_floats, silu_both_floats, np.linspace(-30, 30, 21)),
]:

    def run_activation(value: F = value, both: F = both, z: Any_ = z) -> kit.Check:
        return kit.check_activation(value, both, z)

    add(f"activation: {title}, {len(z)} numbers", run_activation)


def run_activation_single() -> kit.Check:
    return kit.check_activation(single(silu_tanh), single(silu_both_tanh), draws(76, 20)).at(1e-5)


add("activation: tanh in float32", run_activation_single)


# check_noise_network: F is one perceptron; every coding builds its inputs in its own way


def time_waves(log_snr: Any_, n: int) -> Any_:
    angles = np.multiply.outer(np.asarray(log_snr), np.geomspace(0.125, 2, n))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


def noise_batched(mlp: F, n: int, octaves: int, labels: Any_, coefficients: Any_) -> F:
    def eps_hat(x: Any_, scale: Any_, std: Any_) -> Any_:
        N, D = x.shape
        scale = np.broadcast_to(scale, (N,))[:, None]
        std = np.broadcast_to(std, (N,))[:, None]
        r = np.sqrt(scale**2 + std**2)
        y = x / r
        angles = (y[:, :, None] * 2.0 ** np.arange(1, octaves + 1)).reshape(N, D * octaves)
        waves = time_waves(2 * np.log(scale[:, 0] / std[:, 0]), n)
        out = mlp(np.concatenate([y, np.cos(angles), np.sin(angles), waves, labels], axis=1))
        skip, gain = (std / r**2, scale / r) if coefficients is None else [c[:, None] for c in coefficients]
        return skip * x + gain * out

    return eps_hat


def noise_rows(mlp: F, n: int, octaves: int, labels: Any_, coefficients: Any_) -> F:
    """One example at a time, with the angles built in loops; r is c_in⁻¹ of Karras et al."""

    def one(i: int, row: Any_, scale: float, std: float) -> Any_:
        c_in = 1 / math.hypot(scale, std)
        y = (c_in * row).tolist()
        angles = [v * 2.0**k for v in y for k in range(1, octaves + 1)]
        level = math.log(scale**2 / std**2)
        frequencies = [0.125 * 16 ** (k / max(n - 1, 1)) for k in range(n)]
        inputs = y + [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        inputs += [math.cos(f * level) for f in frequencies] + [math.sin(f * level) for f in frequencies]
        out = mlp(np.array([inputs + labels[i].tolist()]))[0]
        if coefficients is None:
            return std * c_in**2 * row + scale * c_in * out
        return coefficients[0][i] * row + coefficients[1][i] * out

    def eps_hat(x: Any_, scale: Any_, std: Any_) -> Any_:
        levels = np.broadcast_to(scale, (len(x),)).tolist(), np.broadcast_to(std, (len(x),)).tolist()
        return [one(i, *given) for i, given in enumerate(zip(x, *levels, strict=True))]

    return eps_hat


def noise_denoiser(mlp: F, n: int, octaves: int, labels: Any_, coefficients: Any_) -> F:
    """As D = c_skip x + c_out F: with v = F, x̂_0 = (scale x − std r F)/r², and ε̂ = (x − scale x̂_0)/std."""

    def eps_hat(x: Any_, scale: Any_, std: Any_) -> Any_:
        a, s = (np.full(len(x), v)[:, None] if np.ndim(v) == 0 else np.asarray(v)[:, None] for v in (scale, std))
        r2 = a * a + s * s
        y = x * r2**-0.5
        angles = np.einsum("nd,k->ndk", y, np.exp2(1 + np.arange(octaves))).reshape(len(x), -1)
        level = np.log(a[:, 0]) * 2 - np.log(s[:, 0]) * 2
        z = np.exp(1j * np.outer(level, np.geomspace(0.125, 2.0, n)))
        f = mlp(np.hstack([y, np.cos(angles), np.sin(angles), z.real, z.imag, labels]))
        x0 = (a * x - s * np.sqrt(r2) * f) / r2
        return (x - a * x0) / s

    return eps_hat


for title, coding, D, n, octaves, classes, preserving, own in [
    ("batched", noise_batched, 2, 8, 0, 0, True, False),
    ("batched", noise_batched, 3, 4, 3, 2, False, False),
    ("batched", noise_batched, 2, 3, 2, 0, True, True),
    ("rows", noise_rows, 2, 5, 1, 3, True, False),
    ("rows", noise_rows, 1, 2, 2, 0, False, True),
    ("denoiser", noise_denoiser, 4, 6, 0, 2, True, False),
    ("denoiser", noise_denoiser, 2, 4, 2, 0, False, False),
]:

    def run_noise_network(
        coding: F = coding,
        D: int = D,
        n: int = n,
        octaves: int = octaves,
        classes: int = classes,
        preserving: bool = preserving,
        own: bool = own,
    ) -> kit.Check:
        N = 5
        mlp = mlp_plain(layers_of(D + 2 * D * octaves + 2 * n + classes, 9, D), "silu")
        labels = np.eye(N, classes + 1)[:, :classes]
        scale = np.array([0.95, 0.8, 0.6, 0.4, 0.2])
        std = np.sqrt(1 - scale**2) if preserving else np.array([0.1, 0.5, 1.0, 0.7, 2.0])
        coefficients = (np.full(N, 0.3), np.full(N, 0.6)) if own else None
        eps_hat = coding(mlp, n, octaves, labels, coefficients)
        x = draws(90, N, D)
        return kit.check_noise_network(eps_hat, mlp, x, scale, std, n, labels, octaves, coefficients)

    add(f"noise network: {title}, D={D}, {n} waves, {octaves} octaves, {classes} classes", run_noise_network)


# check_categorical_denoiser


class Whole:
    """A problem: histograms, covariance, noise levels and F."""

    def __init__(self, D: int, K: int, n: int, classes: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.levels = np.linspace(-1, 1, K)
        self.histograms = rng.dirichlet(np.full(K, 2.0), D)
        self.mean = self.histograms @ self.levels
        root = rng.standard_normal((D, D)) / math.sqrt(D)
        self.covariance = 0.2 * root @ root.T + 0.1 * np.eye(D)
        N = 5
        self.scale = np.array([0.9, 0.8, 0.6, 0.5, 0.3])
        self.std = np.sqrt(1 - self.scale**2)
        self.x = self.scale[:, None] * rng.choice(self.levels, (N, D)) + self.std[:, None] * draws(seed + 1, N, D)
        self.n, self.labels = n, np.eye(N, classes + 1)[:, :classes]
        self.mlp = mlp_plain(layers_of(3 * D + 2 * n + classes, 7, 4 * D), "silu")


def law_logs(p: Whole) -> Any_:
    """Everything in logarithms, for all examples."""
    a, s = p.scale[:, None], p.std[:, None]
    centred = p.x - a * p.mean
    like = np.log(p.histograms) - 0.5 * ((p.x[:, :, None] - a[:, :, None] * p.levels) / s[:, :, None]) ** 2
    alone = special.softmax(like, axis=2) @ p.levels - p.mean
    values, vectors = np.linalg.eigh(p.covariance)
    wiener = (centred @ vectors * (a * values / (a**2 * values + s**2))) @ vectors.T
    waves = time_waves(2 * np.log(p.scale / p.std), p.n)
    inputs = np.concatenate([centred / np.sqrt(a**2 + s**2), alone, wiener, waves, p.labels], axis=1)
    factors = p.mlp(inputs).reshape(*p.x.shape, 4)
    K = len(p.levels)
    basis = np.stack([np.eye(K)[0], np.eye(K)[-1], p.levels, p.levels**2])
    return special.softmax(like + factors @ basis, axis=2)


def law_rows(p: Whole) -> Any_:
    """Example by example, pixel by pixel, with densities and linear solves."""
    out = np.empty((*p.x.shape, len(p.levels)))
    D = p.x.shape[1]
    for i, x in enumerate(p.x):
        a, s = p.scale[i], p.std[i]
        like = [p.histograms[d] * stats.norm.pdf(x[d], a * p.levels, s) for d in range(D)]
        alone = np.array([w @ p.levels / w.sum() for w in like]) - p.mean
        total = a * a * p.covariance + s * s * np.eye(D)
        wiener = a * p.covariance @ np.linalg.solve(total, x - a * p.mean)
        inputs = np.concatenate([(x - a * p.mean) / math.hypot(a, s), alone, wiener])
        inputs = np.concatenate([inputs, time_waves(math.log(a * a / (s * s)), p.n), p.labels[i]])
        f = p.mlp(inputs[None])[0]
        for d in range(D):
            tilt = f[4 * d + 2] * p.levels + f[4 * d + 3] * p.levels**2
            tilt[0] += f[4 * d]
            tilt[-1] += f[4 * d + 1]
            w = like[d] * np.exp(tilt)
            out[i, d] = w / w.sum()
    return out


def eps_from_law(p: Whole, law: Any_) -> Any_:
    return (p.x - p.scale[:, None] * np.einsum("ndk,k->nd", law, p.levels)) / p.std[:, None]


def eps_mean_of_noise(p: Whole, law: Any_) -> Any_:
    """The mean over the levels of the noise that belongs to each of them."""
    noise = (p.x[:, :, None] - p.scale[:, None, None] * p.levels) / p.std[:, None, None]
    return (law * noise).sum(2)


for title, coding, eps, D, K, n, classes in [
    ("softmax of logarithms", law_logs, eps_from_law, 3, 17, 4, 0),
    ("softmax of logarithms", law_logs, eps_mean_of_noise, 2, 2, 2, 2),
    ("softmax of logarithms", law_logs, eps_from_law, 6, 5, 8, 3),
    ("rows of densities", law_rows, eps_mean_of_noise, 3, 4, 3, 0),
    ("rows of densities", law_rows, eps_from_law, 1, 9, 5, 2),
    ("rows of densities", law_rows, eps_from_law, 4, 3, 2, 0),
]:

    def run_categorical(
        coding: F = coding, eps: F = eps, D: int = D, K: int = K, n: int = n, classes: int = classes
    ) -> kit.Check:
        p = Whole(D, K, n, classes, D)
        return kit.check_categorical_denoiser(
            lambda: coding(p),
            lambda: eps(p, coding(p)),
            p.mlp,
            p.x,
            p.scale,
            p.std,
            p.histograms,
            p.covariance,
            p.n,
            p.labels,
        )

    add(f"categorical denoiser: {title}, D={D}, {K} levels, {classes} classes", run_categorical)


# check_categorical_draw


def draw_counts(law: Any_) -> F:
    edges = np.cumsum(law, axis=2)[:, :, :-1]
    return lambda u: (u[:, :, None] > edges).sum(2)


def draw_argmax(law: Any_) -> F:
    edges = np.cumsum(law, axis=-1)
    edges[..., -1] = 1.0
    return lambda u: np.argmax(edges >= u[..., None], axis=-1)


def draw_search(law: Any_) -> F:
    def draw(u: Any_) -> Any_:
        out = np.zeros(u.shape, dtype=int)
        for place in np.ndindex(u.shape):
            out[place] = min(int(np.searchsorted(np.cumsum(law[place]), u[place])), law.shape[2] - 1)
        return out

    return draw


def draw_from_top(law: Any_) -> F:
    """The levels from the last to the first."""
    edges = np.cumsum(law[:, :, ::-1], axis=2)[:, :, :-1]
    return lambda u: law.shape[2] - 1 - (u[:, :, None] > edges).sum(2)


def draw_alias(law: Any_) -> F:
    """Walker's tables: a cell of K equal ones, with at most two levels each."""
    N, D, K = law.shape
    cut, other = np.ones(law.shape), np.broadcast_to(np.arange(K), law.shape).copy()
    for i, d in np.ndindex(N, D):
        mass = (K * law[i, d]).tolist()
        small = [k for k in range(K) if mass[k] < 1]
        large = [k for k in range(K) if mass[k] >= 1]
        while small and large:
            low, high = small.pop(), large[-1]
            cut[i, d, low], other[i, d, low] = mass[low], high
            mass[high] -= 1 - mass[low]
            if mass[high] < 1:
                small.append(large.pop())

    def draw(u: Any_) -> Any_:
        cell = np.minimum((K * u).astype(int), K - 1)
        rest = K * u - cell
        keep = rest < np.take_along_axis(cut, cell[:, :, None], 2)[:, :, 0]
        return np.where(keep, cell, np.take_along_axis(other, cell[:, :, None], 2)[:, :, 0])

    return draw


for title, coding, N, D, K in [
    ("counts of edges", draw_counts, 2, 3, 5),
    ("counts of edges", draw_counts, 1, 16, 17),
    ("argmax", draw_argmax, 3, 2, 4),
    ("searchsorted in loops", draw_search, 2, 2, 3),
    ("from the top", draw_from_top, 2, 4, 6),
    ("alias tables", draw_alias, 2, 2, 4),
]:

    def run_draw(coding: F = coding, N: int = N, D: int = D, K: int = K) -> kit.Check:
        law = np.random.default_rng(K).dirichlet(np.full(K, 1.5), (N, D))
        return kit.check_categorical_draw(coding(law), law)

    add(f"categorical draw: {title}, N={N}, D={D}, {K} levels", run_draw)


# Names differ, so that a report names one case.
assert len({case.name for case in CASES}) == len(CASES)
