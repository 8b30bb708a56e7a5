"""Fourth battery: wrong implementations of every check, each with one mistake as people post it."""

from collections.abc import Callable
from itertools import pairwise, permutations, product
from types import SimpleNamespace

import numpy as np
from scipy.special import erf, expit, logsumexp, ndtr
from scipy.stats import norm

import scratchgen.conformance as c
from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen.conformance import Check
from tests.battery.case import Wrong

CASES: list[Wrong] = []


def wrong(name: str, *words: str, slow: bool = False) -> Callable[[Callable[[], Check]], Callable[[], Check]]:
    """Add the decorated function as a case."""

    def add(run: Callable[[], Check]) -> Callable[[], Check]:
        CASES.append(Wrong(name, run, words, slow))
        return run

    return add


def rng(seed):
    return np.random.default_rng(seed)


def col(table, t):
    """Values of a table at a step or at one step an example, as a column."""
    value = np.asarray(table)[t]
    return value[:, None] if np.ndim(value) else value


def ho(schedule):
    """Ho's tables with an entry for clean data: b, a, ab (cumulative) and abp (the previous one)."""
    b = schedule.beta**2
    a = 1 - b
    ab = np.cumprod(a)
    return SimpleNamespace(b=b, a=a, ab=ab, abp=np.append(1.0, ab[:-1]), one=schedule.beta_bar**2, T=len(b) - 1)


HO = NoiseSchedule.from_variances(np.linspace(1e-4, 0.02, 1000))
HO200 = NoiseSchedule.from_variances(np.linspace(5e-4, 0.1, 200))
COSINE = NoiseSchedule.cosine(40)
LINEAR = NoiseSchedule.linear(25)
FROM_SDE = NoiseSchedule.from_sde(VP(0.2, 9.0, 2.0), 16)
CONSTANT = NoiseSchedule.from_variances(np.full(7, 0.3))
RANDOM = NoiseSchedule.from_variances(rng(1).uniform(0.03, 0.6, 10))
TWO = NoiseSchedule.from_variances([0.25, 0.5])


# The chain


@wrong("schedule: alphas_cumprod_prev in place of alphas_cumprod", "t−1", "t - 1", "shift", "off by one", "previous")
def _():
    tables = ho(HO)
    return c.check_schedule(HO, np.sqrt(tables.abp), np.sqrt(1 - tables.abp))


@wrong(
    "schedule: rescale_zero_terminal_snr shifts and does not rescale",
    "ᾱ_T",
    "shift",
    "minus",
    "zero",
    "constant",
    "end",
)
def _():
    bar = COSINE.alpha_bar - COSINE.alpha_bar[-1]
    bar[0] = 1.0
    return c.check_schedule(COSINE, bar, np.sqrt(1 - bar**2))


@wrong(
    "schedule: β̃ with the ratio of variances, without its root",
    "square root",
    "root",
    "squared",
    "β̄_{t−1}²",
    "β̄²",
    "variance",
)
def _():
    s = FROM_SDE
    tilde = np.zeros(s.T + 1)
    tilde[1:] = s.beta[1:] * s.beta_bar[:-1] ** 2 / s.beta_bar[1:] ** 2
    return c.check_schedule(s, s.alpha_bar, s.beta_bar, tilde)


@wrong("forward_step: α of the next step beside β of this one", "t+1", "next", "off by one", "α_{t+1}", "shift")
def _():
    s = RANDOM
    return c.check_forward_step(
        lambda t, x, e: col(s.alpha, np.minimum(t + 1, s.T)) * x + col(s.beta, t) * e,
        s,
    )


@wrong(
    "forward_step: Ho's formula with a table of standard deviations",
    "square root",
    "root",
    "standard deviation",
    "variance",
    "1 − β_t",
    "√β",
)
def _():
    sigma = LINEAR.beta
    return c.check_forward_step(
        lambda t, x, e: np.sqrt(1 - col(sigma, t)) * x + np.sqrt(col(sigma, t)) * e,
        LINEAR,
    )


@wrong(
    "forward_process: the straight path of flow matching on ᾱ", "1 − ᾱ", "1−ᾱ", "linear", "interpol", "straight", "flow"
)
def _():
    return c.check_forward_process(
        lambda t, x0, e: col(HO.alpha_bar, t) * x0 + (1 - col(HO.alpha_bar, t)) * e,
        HO,
    )


@wrong(
    "forward_process: cosine in closed form, although the chain clips its last β",
    "clip",
    "0.999",
    ".999",
    "cos",
    "t = T",
    "last",
    "pure noise",
)
def _():
    u = np.arange(COSINE.T + 1) / COSINE.T
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    bar = f / f[0]
    return c.check_forward_process(
        lambda t, x0, e: np.sqrt(np.maximum(col(bar, t), 0)) * x0 + np.sqrt(1 - col(bar, t)) * e,
        COSINE,
    )


@wrong(
    "posterior: ᾱ_{t−1} of Ho without its root in the factor of x_0",
    "square root",
    "root",
    "squared",
    "ᾱ_{t−1}²",
    "ᾱ²_{t−1}",
)
def _():
    h = ho(HO200)

    def q_posterior(t, x_t, x0):
        c0 = col(h.b * h.abp / h.one.clip(1e-300), t)
        c1 = col((1 - h.abp) * np.sqrt(h.a) / h.one.clip(1e-300), t)
        return c0 * x0 + c1 * x_t, col(HO200.beta_tilde**2, t)

    return c.check_posterior(q_posterior, HO200)


@wrong(
    "posterior: the table of the clipped logarithm gives the variance of the last step",
    "clip",
    "t = 2",
    "t = 1",
    "first",
)
def _():
    s = CONSTANT
    var = s.beta_tilde**2
    var[1] = var[2]

    def q_posterior(t, x_t, x0):
        one = col(s.beta_bar, t) ** 2
        mean = col(s.alpha, t) * col(s.beta_bar, t - 1) ** 2 * x_t + col(s.alpha_bar, t - 1) * col(s.beta, t) ** 2 * x0
        return mean / one, col(var, t)

    return c.check_posterior(q_posterior, s)


@wrong(
    "posterior: precisions added without α_t²",
    "α_t²",
    "α²",
    "α_t",
    "precision",
    "without α",
    "β_t² + β̄",
    "missing",
    "sum",
)
def _():
    s = RANDOM

    def q_posterior(t, x_t, x0):
        if t == 1:
            return x0, 0.0
        prec = 1 / s.beta[t] ** 2 + 1 / s.beta_bar[t - 1] ** 2
        return (s.alpha[t] * x_t / s.beta[t] ** 2 + s.alpha_bar[t - 1] * x0 / s.beta_bar[t - 1] ** 2) / prec, 1 / prec

    return c.check_posterior(lambda t, x_t, x0: q_posterior(int(t), x_t, x0), s)


@wrong("noise_merging: ε_t in (27) not divided by β̄_t", "β̄_t", "divid", "normal", "factor", "length")
def _():
    s = LINEAR

    def merge(t, prev, new):
        p, q, r = col(s.alpha, t) * col(s.beta_bar, t - 1), col(s.beta, t), col(s.beta_bar, t)
        return (p * prev + q * new) / r, (q * prev - p * new) / r

    def split(t, eps, omega):
        return col(s.beta, t) * eps - col(s.alpha, t) * col(s.beta_bar, t - 1) * omega

    return c.check_noise_merging(merge, split, s)


@wrong(
    "noise_merging: the old noise added without α_t, then scaled to length 1",
    "α_t",
    "without α",
    "missing",
    "β̄_{t−1} in place",
)
def _():
    s = RANDOM

    def parts(t):
        p, q = col(s.beta_bar, t - 1), col(s.beta, t)
        return p / np.hypot(p, q), q / np.hypot(p, q)

    def merge(t, prev, new):
        p, q = parts(t)
        return p * prev + q * new, q * prev - p * new

    def split(t, eps, omega):
        p, q = parts(t)
        return q * eps - p * omega

    return c.check_noise_merging(merge, split, s)


@wrong(
    "predict_x0: sqrt_recipm1 as √(1/ᾱ²) − 1",
    "square root",
    "root",
    "1/ᾱ",
    "− 1",
    "1 − ᾱ",
    "(1 − ᾱ_t)",
)
def _():
    recip = np.sqrt(1 / ho(HO200).ab)
    return c.check_predict_x0(lambda t, x, e: col(recip, t) * x - (col(recip, t) - 1) * e, HO200)


@wrong("predict_x0: Imagen's dynamic threshold left on", "clip", "threshold", "[−1, 1]", "linear", "limit")
def _():
    s = COSINE

    def predict(t, x_t, e):
        x0 = (x_t - col(s.beta_bar, t) * e) / col(s.alpha_bar, t)
        limit = np.maximum(np.quantile(np.abs(x0), 0.995, axis=1, keepdims=True), 1.0)
        return np.clip(x0, -limit, limit) / limit

    return c.check_predict_x0(predict, s)


@wrong(
    "ancestral_step: (1 − α_t)/β̄_t with α a standard deviation",
    "1 − α",
    "1−α",
    "α_t²",
    "square",
    "β_t²",
)
def _():
    s = HO200

    def step(t, x, e, z):
        return (x - (1 - col(s.alpha, t)) / col(s.beta_bar, t) * e) / col(s.alpha, t) + col(s.beta, t) * z

    return c.check_ancestral_step(step, s, s.beta**2)


@wrong(
    "ancestral_step: mask t > 1 of a code that counts from 0, with t from 1 on",
    "t = 1",
    "t = 2",
    "last",
    "no noise",
    "without noise",
    "noise",
)
def _():
    s = FROM_SDE

    def step(t, x, e, z):
        mask = np.where(np.asarray(t) - 1 > 1, 1.0, 0.0)
        mask = mask[:, None] if np.ndim(mask) else mask
        mean = (x - col(s.beta, t) ** 2 / col(s.beta_bar, t) * e) / col(s.alpha, t)
        return mean + mask * col(s.beta, t) * z

    return c.check_ancestral_step(step, s, s.beta**2)


@wrong("ancestral_step: only x_t divided by α_t", "α_t", "divid", "bracket", "ε̂", "1/α")
def _():
    s = RANDOM
    var = np.where(s.beta_tilde > 0, s.beta_tilde, s.beta) ** 2

    def step(t, x, e, z):
        return x / col(s.alpha, t) - col(s.beta, t) ** 2 / col(s.beta_bar, t) * e + np.sqrt(col(var, t)) * z

    return c.check_ancestral_step(step, s, var)


@wrong("ddim_step: σ in place of σ² under the root", "σ²", "σ", "squared", "square", "variance", "root")
def _():
    s = COSINE

    def step(t, u, x, e, z):
        at, au, bt, bu = s.alpha_bar[t], s.alpha_bar[u], s.beta_bar[t], s.beta_bar[u]
        sigma = 0.6 * bu / bt * np.sqrt(1 - (at / au) ** 2)
        return au * (x - bt * e) / at + np.sqrt(np.maximum(bu**2 - sigma, 0)) * e + sigma * z

    return c.check_ddim_step(lambda t, u, *a: step(int(t), int(u), *a), s, 0.6)


@wrong(
    "ddim_step: σ from t − 1 in place of s after respacing", "t−1", "t - 1", "one step", "previous", "σ", "of s", "skip"
)
def _():
    s = LINEAR

    def step(t, u, x, e, z):
        at, au, bt, bu = s.alpha_bar[t], s.alpha_bar[u], s.beta_bar[t], s.beta_bar[u]
        sigma = min(s.beta_tilde[t], bu)
        return au * (x - bt * e) / at + np.sqrt(bu**2 - sigma**2) * e + sigma * z

    return c.check_ddim_step(lambda t, u, *a: step(int(t), int(u), *a), s, 1.0)


@wrong("ddim_step: η inside σ and again before the noise", "η²", "twice", "η", "squared", "again")
def _():
    s = CONSTANT

    def step(t, u, x, e, z):
        at, au, bt, bu = (col(table, i) for table in (s.alpha_bar, s.beta_bar) for i in (t, u))
        sigma = 0.5 * bu / bt * np.sqrt(1 - (at / au) ** 2)
        return au * (x - bt * e) / at + np.sqrt(bu**2 - sigma**2) * e + 0.5 * sigma * z

    return c.check_ddim_step(step, s, 0.5)


def ddim(s, t, u, x, e, z, eta):
    """A right step of DDIM."""
    sigma = eta * s.beta_bar[u] / s.beta_bar[t] * np.sqrt(1 - (s.alpha_bar[t] / s.alpha_bar[u]) ** 2)
    x0 = (x - s.beta_bar[t] * e) / s.alpha_bar[t]
    return s.alpha_bar[u] * x0 + np.sqrt(np.maximum(s.beta_bar[u] ** 2 - sigma**2, 0)) * e + sigma * z


@wrong(
    "ddim_sampler: zip(times, times[1:]) stops at t = 1",
    "last step",
    "t = 1",
    "final",
    "x_1",
    "stop",
    "skip",
    "left out",
)
def _():
    def sample(x, eps_hat, noise):
        times = list(range(LINEAR.T, 0, -1))
        for i, (t, u) in enumerate(pairwise(times)):
            x = ddim(LINEAR, t, u, x, eps_hat(x, t), noise[i], 0.0)
        return x

    return c.check_ddim_sampler(sample, LINEAR, 0.0)


@wrong(
    "ddim_sampler: the multistep of PNDM in the place of ε̂",
    "multistep",
    "previous",
    "Adams",
    "second",
    "old",
    "last step",
    "extrapol",
)
def _():
    def sample(x, eps_hat, noise):
        old = None
        for i, t in enumerate(range(FROM_SDE.T, 0, -1)):
            new = eps_hat(x, t)
            e = new if old is None else 1.5 * new - 0.5 * old
            x, old = ddim(FROM_SDE, t, t - 1, x, e, noise[i], 0.0), new
        return x

    return c.check_ddim_sampler(sample, FROM_SDE, 0.0)


def ancestral(s, t, x, e):
    """The mean of a right ancestral step."""
    return (x - s.beta[t] ** 2 / s.beta_bar[t] * e) / s.alpha[t]


@wrong(
    "sampler: noise indexed by the step, not by the order of the steps", "order", "reverse", "index", "noise of", "t−1"
)
def _():
    def sample(x, eps_hat, noise):
        for t in range(RANDOM.T, 0, -1):
            x = ancestral(RANDOM, t, x, eps_hat(x, t)) + RANDOM.beta[t] * noise[t - 1]
        return x

    return c.check_sampler(sample, RANDOM, 0.3, 0.5, RANDOM.beta**2)


@wrong(
    "sampler: returns the mean of the last step, as score_sde's denoise", "last", "noise", "t = 1", "no noise", "mean"
)
def _():
    s = COSINE

    def sample(x, eps_hat, noise):
        for i, t in enumerate(range(s.T, 0, -1)):
            mean = ancestral(s, t, x, eps_hat(x, t))
            x = mean + s.beta[t] * noise[i]
        return mean

    return c.check_sampler(sample, s, -0.5, 1.0, s.beta**2)


def network(seed, dim=3, out=None):
    """A network of two layers, (x, t) → (N, out)."""
    draw = rng(seed)
    first, second, clock = draw.normal(size=(dim, 8)), draw.normal(size=(8, out or dim)) / 3, draw.normal(size=8)
    return lambda x, t: np.tanh(x @ first + 0.1 * np.asarray(t).reshape(-1, 1) * clock) @ second


def labelled(seed):
    with_label, without = network(seed), network(seed + 1)
    return lambda x, t, y: with_label(x, t) if y else without(x, t)


@wrong(
    "predicted_noise: guidance rescale of Lin et al. left on", "rescal", "std", "guidance", "standard deviation", "norm"
)
def _():
    s, output = LINEAR, labelled(3)

    def predict(x, t, w, clip):
        cond, free = output(x, t, True), output(x, t, False)
        out = free + w * (cond - free)
        out = 0.7 * out * cond.std(1, keepdims=True) / out.std(1, keepdims=True) + 0.3 * out
        if clip:
            x0 = np.clip((x - s.beta_bar[t] * out) / s.alpha_bar[t], -1, 1)
            out = (x - s.alpha_bar[t] * x0) / s.beta_bar[t]
        return out

    return c.check_predicted_noise(predict, output, s, "noise", rng(5).normal(size=(4, 3)) * 2)


@wrong("predicted_noise: ε from v with the sign of x_t turned", "sign", "minus", "−β̄", "ᾱv − β̄x")
def _():
    s, output = COSINE, labelled(6)

    def predict(x, t, w, clip):
        v = output(x, t, False) + w * (output(x, t, True) - output(x, t, False))
        a, b = s.alpha_bar[t], s.beta_bar[t]
        e = a * v - b * x
        return (x - a * np.clip((x - b * e) / a, -1, 1)) / b if clip else e

    return c.check_predicted_noise(predict, output, s, "v", rng(7).normal(size=(5, 3)) * 2)


@wrong(
    "predicted_noise: (1 + w) cond − w free, for guidance 1 without change",
    "1 + w",
    "w + 1",
    "guidance",
    "1 + guidance",
    "one more",
)
def _():
    s, output = FROM_SDE, labelled(8)

    def predict(x, t, w, clip):
        x0 = (1 + w) * output(x, t, True) - w * output(x, t, False)
        x0 = np.clip(x0, -1, 1) if clip else x0
        return (x - s.alpha_bar[t] * x0) / s.beta_bar[t]

    return c.check_predicted_noise(predict, output, s, "x0", rng(9).normal(size=(4, 3)) * 2)


@wrong(
    "reverse_variance: diffusers' clamp of the posterior variance to 1e-20",
    "1e-20",
    "t = 1",
    "first",
    "clip",
    "β̃_1",
    "0",
)
def _():
    tables = {"beta": HO.beta**2, "posterior": np.maximum(HO.beta_tilde**2, 1e-20)}
    return c.check_reverse_variance(tables.__getitem__, HO)


@wrong(
    "reverse_variance: 'beta' halfway of Nichol's log range",
    "geometric",
    "mean of",
    "log",
    "interpol",
    "between",
    "half",
    "β_t β̃_t",
)
def _():
    s = COSINE
    post = s.beta_tilde**2
    post[1] = s.beta[1] ** 2
    tables = {"beta": np.sqrt(s.beta**2 * post), "posterior": post}
    return c.check_reverse_variance(tables.__getitem__, s)


def best_variance(s, loss, dim):
    out = np.zeros(s.T + 1)
    out[1:] = s.beta_tilde[1:] ** 2 + (s.beta**4 / (s.alpha * s.beta_bar).clip(1e-300) ** 2)[1:] * loss[1:] / dim
    return out


WIDE = np.array([[4.0, 0.6], [0.6, 2.5]])


@wrong(
    "optimal_variance: clipped to β_t², as the bound of unit data",
    "clip",
    "at most β",
    "limit",
    "min",
    "β_t²",
)
def _():
    return c.check_optimal_variance(
        lambda loss: np.minimum(best_variance(RANDOM, loss, 2), RANDOM.beta**2),
        RANDOM,
        WIDE,
    )


@wrong(
    "optimal_variance: 1/ᾱ_t² in place of 1/α_t² (Ho's alphas_cumprod)",
    "ᾱ",
    "cumulative",
    "in place of α",
    "product",
)
def _():
    s = LINEAR

    def variance(loss):
        out = s.beta_tilde**2
        out[1:] += (s.beta[1:] ** 4 / (s.alpha_bar[1:] * s.beta_bar[1:]) ** 2) * loss[1:] / 2
        return out

    return c.check_optimal_variance(variance, s, 0.4 * WIDE)


def smooth(x, t):
    return np.sin(x + 0.05 * np.asarray(t)) + 0.3 * x


@wrong("step_loss: the constant once, not once a dimension", "dimension", "D", "once", "log", "constant")
def _():
    s, t, var = FROM_SDE, 5, 0.2

    def loss(t, x0, prev, new, eps_hat):
        x_t = s.alpha[t] * (s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * prev) + s.beta[t] * new
        err = new - s.beta[t] / s.beta_bar[t] * eps_hat(x_t, t)
        return 0.5 * np.log(2 * np.pi * var) + (s.beta[t] / s.alpha[t]) ** 2 / (2 * var) * (err**2).sum(1)

    return c.check_step_loss(loss, s, t, smooth, 0.2, 0.7, var)


@wrong(
    "step_loss: the noise of one step as the total noise of x_t",
    "total noise",
    "merge",
    "ε_t",
    "one step",
    "single step",
)
def _():
    s, t = LINEAR, 9
    var = s.beta[t] ** 2

    def loss(t, x0, prev, new, eps_hat):
        x_prev = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * prev
        x_t = s.alpha_bar[t] * x0 + s.beta_bar[t] * new
        err = x_prev - ancestral(s, t, x_t, eps_hat(x_t, t))
        return (0.5 * np.log(2 * np.pi * var) + err**2 / (2 * var)).sum(1)

    return c.check_step_loss(loss, s, t, smooth, -0.3, 0.5, var)


def bound_parts(s, var):
    """Right terms of the bound."""

    def prior(x0):
        return 0.5 * ((s.alpha_bar[-1] * x0) ** 2 + s.beta_bar[-1] ** 2 - 1 - 2 * np.log(s.beta_bar[-1])).sum(1)

    def step(t, x0, x_t, eps_hat):
        true = s.alpha[t] * s.beta_bar[t - 1] ** 2 * x_t + s.alpha_bar[t - 1] * s.beta[t] ** 2 * x0
        gap = true / s.beta_bar[t] ** 2 - ancestral(s, t, x_t, eps_hat(x_t, t))
        post = s.beta_tilde[t] ** 2
        return 0.5 * (gap**2 / var[t] + post / var[t] - 1 - np.log(post / var[t])).sum(1)

    def start(x0, x_1, eps_hat):
        gap = x0 - ancestral(s, 1, x_1, eps_hat(x_1, 1))
        return 0.5 * (gap**2 / var[1] + np.log(2 * np.pi * var[1])).sum(1)

    return prior, step, start


def terms_case(s, var, prior=None, step=None, start=None, seed=11):
    right = bound_parts(s, var)
    draw = rng(seed)
    return c.check_bound_terms(
        prior or right[0],
        step or right[1],
        start or right[2],
        s,
        draw.normal(size=(4, 3)),
        draw.normal(size=(4, 3)),
        network(seed),
        var,
    )


@wrong("bound_terms: L_T without the −1 of the KL", "D/2", "−1", "constant", "½", "D / 2", "− D")
def _():
    s = LINEAR
    return terms_case(s, s.beta**2, prior=lambda x0: bound_parts(s, s.beta**2)[0](x0) + x0.shape[1] / 2)


@wrong("bound_terms: KL of one step as the squared distance of means only", "log", "variance", "β̃", "constant", "mean")
def _():
    s = RANDOM

    def step(t, x0, x_t, eps_hat):
        w = s.beta[t] ** 2 / (2 * s.alpha[t] ** 2 * s.beta_bar[t] ** 2)
        eps = (x_t - s.alpha_bar[t] * x0) / s.beta_bar[t]
        return w * ((eps - eps_hat(x_t, t)) ** 2).sum(1)

    return terms_case(s, s.beta**2, step=step)


@wrong("bound_terms: L_0 in bits, the others in nats (mean_flat / log 2)", "bits", "log 2", "ln 2", "0.69", "1.44")
def _():
    s = FROM_SDE
    return terms_case(s, s.beta**2, start=lambda *a: bound_parts(s, s.beta**2)[2](*a) / np.log(2))


def affine(seed, s, dim=2):
    """Coefficients of an affine network, and moments of data."""
    draw = rng(seed)
    root = draw.normal(size=(dim, dim))
    A, b = 0.3 * draw.normal(size=(s.T + 1, dim, dim)) + 0.4 * np.eye(dim), 0.2 * draw.normal(size=(s.T + 1, dim))
    return draw.normal(size=dim), root @ root.T / dim + 0.3 * np.eye(dim), A, b


def all_terms(s, var, x0, eps_hat, noise):
    prior, step, start = bound_parts(s, var)
    x = [s.alpha_bar[t] * x0 + s.beta_bar[t] * noise[t - 1] for t in range(1, s.T + 1)]
    return np.stack(
        [start(x0, x[0], eps_hat), *(step(t, x0, x[t - 1], eps_hat) for t in range(2, s.T + 1)), prior(x0)],
        axis=1,
    )


@wrong(
    "variational_bound: the loop ends before T, so that L_{T−1} is missing",
    "L_{T",
    "one term",
    "last",
    "missing",
    "left out",
)
def _():
    s = CONSTANT
    bound = lambda x0, e, z: np.delete(all_terms(s, s.beta**2, x0, e, z), s.T - 1, axis=1).sum(1)  # noqa: E731
    return c.check_variational_bound(bound, s, *affine(12, s), s.beta**2)


@wrong("variational_bound: T times the mean of T+1 terms", "T/(T", "mean", "factor", "T + 1", "T+1", "average")
def _():
    s = RANDOM
    bound = lambda x0, e, z: s.T * all_terms(s, s.beta**2, x0, e, z).mean(1)  # noqa: E731
    return c.check_variational_bound(bound, s, *affine(13, s), s.beta**2)


def total(s, var, loss, moment, dim, e=1.0, scale=None):
    """−E ELBO by (21), with possible mistakes."""
    t = slice(1, None)
    steps = dim / 2 * np.log(2 * np.pi * var[t]) + dim * s.beta_tilde[t] ** 2 / (2 * var[t])
    steps += s.beta[t] ** 4 / (2 * s.beta_bar[t] ** 2 * s.alpha[t] ** 2 * var[t]) * loss[t]
    last = s.alpha_bar[-1] ** 2 if scale is None else scale
    prior = dim / 2 * np.log(2 * np.pi) + 0.5 * (last * moment + dim * s.beta_bar[-1] ** 2)
    return steps.sum() + prior - (dim / 2 * (np.log(2 * np.pi * s.beta[t] ** 2) + e)).sum()


@wrong("negative_elbo: E‖x_T‖² with ᾱ_T in place of ᾱ_T²", "ᾱ_T", "second moment", "square", "L_T", "prior")
def _():
    s = CONSTANT
    var = s.beta**2
    return c.check_negative_elbo(
        lambda ell, m, d: total(s, var, ell, m, d, scale=s.alpha_bar[-1]), s, *affine(14, s), var
    )


@wrong("negative_elbo: entropies of the steps without e", "entropy", "½", "TD/2", "T D/2", "constant", "log 2π")
def _():
    s = FROM_SDE
    var = s.beta**2
    return c.check_negative_elbo(lambda ell, m, d: total(s, var, ell, m, d, e=0.0), s, *affine(15, s), var)


def gauss(x, mean, var):
    return -0.5 * ((x - mean) ** 2 / var + np.log(2 * np.pi * var)).sum(-1)


def forward_chain(s, path):
    return sum(gauss(path[t], s.alpha[t] * path[t - 1], s.beta[t] ** 2) for t in range(1, s.T + 1))


def reverse_chain(s, var, path, eps_hat):
    steps = (gauss(path[t - 1], ancestral(s, t, path[t], eps_hat(path[t], t)), var[t]) for t in range(1, s.T + 1))
    return gauss(path[-1], 0.0, 1.0) + sum(steps)


@wrong("chains: p(x_T) with the variance β̄_T² of the forward process", "β̄_T", "prior", "x_T", "variance")
def _():
    s = CONSTANT
    path, slopes = rng(16).normal(size=(s.T + 1, 3, 2)), rng(17).uniform(0.2, 0.8, s.T + 1)

    def reverse(path, eps_hat):
        right = reverse_chain(s, s.beta**2, path, eps_hat)
        return right - gauss(path[-1], 0.0, 1.0) + gauss(path[-1], 0.0, s.beta_bar[-1] ** 2)

    return c.check_chains(lambda p: forward_chain(s, p), reverse, s, path, slopes, s.beta**2)


@wrong(
    "chains: scale β_t² given to a logpdf that wants a standard deviation",
    "squared",
    "variance",
    "standard deviation",
    "β_t²",
)
def _():
    s = TWO
    path, slopes = rng(18).normal(size=(3, 4, 3)), np.array([0.0, 0.6, 0.7])

    def forward(path):
        return sum(norm.logpdf(path[t], s.alpha[t] * path[t - 1], s.beta[t] ** 2).sum(1) for t in range(1, s.T + 1))

    return c.check_chains(forward, lambda p, e: reverse_chain(s, s.beta**2, p, e), s, path, slopes, s.beta**2)


def weight_tables(s, var):
    snr = np.ones(s.T + 1)
    snr[1:] = (s.alpha_bar[1:] / s.beta_bar[1:]) ** 2
    out = {"simple": np.ones(s.T + 1), "x0": 1 / snr, "min-snr": np.minimum(snr, 5) / snr}
    out["v"] = 1 / s.alpha_bar**2
    out["bound"] = np.zeros(s.T + 1)
    out["bound"][1:] = s.T * s.beta[1:] ** 4 / (2 * var[1:] * s.alpha[1:] ** 2 * s.beta_bar[1:] ** 2)
    for table in out.values():
        table[0] = 0.0
    return snr, out


@wrong("loss_weights: 'min-snr' of a network for v, min(SNR, 5)/(SNR + 1)", "SNR + 1", "(SNR+1)", "v", "+ 1", "SNR")
def _():
    snr, tables = weight_tables(COSINE, COSINE.beta**2)
    tables["min-snr"][1:] = (np.minimum(snr, 5) / (snr + 1))[1:]
    return c.check_loss_weights(tables.__getitem__, COSINE, COSINE.beta**2)


@wrong("loss_weights: VDM's difference of SNR with σ² = β², where it needs β̃²", "β̃", "posterior", "SNR", "σ")
def _():
    s = LINEAR
    snr, tables = weight_tables(s, s.beta**2)
    tables["bound"][2:] = s.T / 2 * (snr[1:-1] / snr[2:] - 1)
    return c.check_loss_weights(tables.__getitem__, s, s.beta**2)


@wrong("loss_weights: 'v' as SNR + 1, the weight for x_0", "SNR", "x_0", "inverse", "β̄", "1/β̄")
def _():
    s = RANDOM
    _, tables = weight_tables(s, s.beta**2)
    tables["v"][1:] = 1 / s.beta_bar[1:] ** 2
    return c.check_loss_weights(tables.__getitem__, s, s.beta**2)


@wrong(
    "step_draws: antithetic partner T − t in place of T + 1 − t", "T + 1", "T+1", "step 0", "t = 0", "share", "never"
)
def _():
    T = 12

    def draw(u):
        t = np.floor((u + np.arange(6) / 6) % 1 * T).astype(int) + 1
        return np.concatenate([t, T - t]), np.ones(12)

    return c.check_step_draws(draw, T)


@wrong(
    "step_draws: importance weights 1/p scaled to mean 1 in the batch",
    "normal",
    "mean",
    "weight",
    "self",
    "1/p",
    "biased",
)
def _():
    T, n = 8, 4
    p = np.arange(1, T + 1) / (T * (T + 1) / 2)

    def draw(u):
        index = np.searchsorted(np.cumsum(p), (u + np.arange(n) / n) % 1).clip(max=T - 1)
        w = 1 / p[index]
        return index + 1, w / w.mean()

    return c.check_step_draws(draw, T)


@wrong("time_draws: t = u T + eps, beyond the horizon", "beyond", "t_min", "end", "shift", "horizon", "interval")
def _():
    eps, T = 0.05, 2.0

    def draw(u):
        return (u + np.arange(8) / 8) % 1 * T + eps, np.ones(8)

    return c.check_time_draws(draw, lambda t: (t - eps) / (T - eps))


@wrong(
    "time_draws: uniform in log-SNR, with the weight turned upside down", "inverse", "weight", "1/", "upside", "density"
)
def _():
    lo, hi = 0.02, 3.0  # times of a process with the log-SNR −2 log t; the loss is uniform in t

    def draw(u):
        t = lo * (hi / lo) ** ((u + np.arange(16) / 16) % 1)
        density = 1 / (t * np.log(hi / lo)) * (hi - lo)
        return t, density

    return c.check_time_draws(draw, lambda t: (t - lo) / (hi - lo))
