"""Fourth battery: wrong implementations of every check, each with one mistake as people post it."""

from collections.abc import Callable
from itertools import pairwise, permutations, product
from types import SimpleNamespace

import numpy as np
from scipy.special import expit, logsumexp, ndtr
from scipy.stats import norm

import scratchgen.conformance as c
from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen.conformance import Check
from scratchgen.conformance.networks import printed_noise
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


@wrong("schedule: rescale_zero_terminal_snr shifts and does not rescale", "ᾱ_T", "shift", "minus", "zero", "constant")
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


@wrong("predict_x0: sqrt_recipm1 as √(1/ᾱ²) − 1", "square root", "root", "1/ᾱ", "− 1", "1 − ᾱ", "(1 − ᾱ_t)")
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


@wrong("ancestral_step: (1 − α_t)/β̄_t with α a standard deviation", "1 − α", "1−α", "α_t²", "square", "β_t²")
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


@wrong("ddim_step: σ from t − 1 in place of s after respacing", "t−1", "t - 1", "one step", "previous", "of s", "skip")
def _():
    s = LINEAR

    def step(t, u, x, e, z):
        at, au, bt, bu = s.alpha_bar[t], s.alpha_bar[u], s.beta_bar[t], s.beta_bar[u]
        sigma = min(s.beta_tilde[t], bu)
        return au * (x - bt * e) / at + np.sqrt(bu**2 - sigma**2) * e + sigma * z

    return c.check_ddim_step(lambda t, u, *a: step(int(t), int(u), *a), s, 1.0)


@wrong("ddim_step: η inside σ and again before the noise", "η²", "twice", "squared", "again")
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


@wrong("predicted_noise: guidance rescale of Lin et al. left on", "rescal", "guidance", "standard deviation", "norm")
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
    "reverse_variance: diffusers' clamp of the posterior variance to 1e-20", "1e-20", "t = 1", "first", "clip", "β̃_1"
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


@wrong("optimal_variance: clipped to β_t², as the bound of unit data", "clip", "at most β", "limit", "β_t²")
def _():
    return c.check_optimal_variance(
        lambda loss: np.minimum(best_variance(RANDOM, loss, 2), RANDOM.beta**2),
        RANDOM,
        WIDE,
    )


@wrong("optimal_variance: 1/ᾱ_t² in place of 1/α_t² (Ho's alphas_cumprod)", "cumulative", "in place of α", "product")
def _():
    s = LINEAR

    def variance(loss):
        out = s.beta_tilde**2
        out[1:] += (s.beta[1:] ** 4 / (s.alpha_bar[1:] * s.beta_bar[1:]) ** 2) * loss[1:] / 2
        return out

    return c.check_optimal_variance(variance, s, 0.4 * WIDE)


def smooth(x, t):
    return np.sin(x + 0.05 * np.asarray(t)) + 0.3 * x


@wrong("step_loss: the constant once, not once a dimension", "dimension", "once", "log", "constant")
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


@wrong("loss_weights: 'min-snr' of a network for v, min(SNR, 5)/(SNR + 1)", "SNR + 1", "(SNR+1)", "+ 1")
def _():
    snr, tables = weight_tables(COSINE, COSINE.beta**2)
    tables["min-snr"][1:] = (np.minimum(snr, 5) / (snr + 1))[1:]
    return c.check_loss_weights(tables.__getitem__, COSINE, COSINE.beta**2)


@wrong("loss_weights: VDM's difference of SNR with σ² = β², where it needs β̃²", "β̃", "posterior")
def _():
    s = LINEAR
    snr, tables = weight_tables(s, s.beta**2)
    tables["bound"][2:] = s.T / 2 * (snr[1:-1] / snr[2:] - 1)
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


@wrong("time_draws: t = u T + eps, beyond the horizon", "beyond", "t_min", "shift", "horizon", "interval")
def _():
    eps, T = 0.05, 2.0

    def draw(u):
        return (u + np.arange(8) / 8) % 1 * T + eps, np.ones(8)

    return c.check_time_draws(draw, lambda t: (t - eps) / (T - eps))


@wrong("time_draws: uniform in log-SNR, with the weight turned upside down", "inverse", "weight", "upside", "density")
def _():
    lo, hi = 0.02, 3.0  # times of a process with the log-SNR −2 log t; the loss is uniform in t

    def draw(u):
        t = lo * (hi / lo) ** ((u + np.arange(16) / 16) % 1)
        density = 1 / (t * np.log(hi / lo)) * (hi - lo)
        return t, density

    return c.check_time_draws(draw, lambda t: (t - lo) / (hi - lo))


# With the network of the code under test


def rows(net, x, t):
    """A network for one step, at one step an example."""
    return np.concatenate([net(x[i : i + 1], int(step)) for i, step in enumerate(t)])


def batch(seed, n=5, dim=3):
    return rng(seed).normal(size=(n, dim)), rng(seed + 1).normal(size=(n, dim))


@wrong(
    "loss_of: x_t of the whole batch at the step of its first example",
    "first example",
    "first",
    "same",
    "one step",
    "batch",
    "broadcast",
)
def _():
    s, net = HO200, network(20)

    def loss(t, x0, e):
        x_t = s.alpha_bar[t[0]] * x0 + s.beta_bar[t[0]] * e
        return ((e - rows(net, x_t, t)) ** 2).sum(1)

    return c.check_loss_of(loss, net, *batch(20), s)


@wrong("loss_of: smooth L1 with its corner at 1", "½", "half", "Huber", "huber", "L1", "absolute", "smooth")
def _():
    s, net = LINEAR, network(22)

    def loss(t, x0, e):
        d = np.abs(e - rows(net, col(s.alpha_bar, t) * x0 + col(s.beta_bar, t) * e, t))
        return np.where(d < 1, 0.5 * d**2, d - 0.5).mean(1)

    return c.check_loss_of(loss, net, *batch(22), s, reduction="mean")


@wrong("bound_of: one noise for all steps", "noise[0]", "one noise", "same noise", "noise", "first")
def _():
    s, net = RANDOM, network(26)
    x0, noise = rng(26).normal(size=(4, 3)), rng(27).normal(size=(s.T, 4, 3))

    def bound(x0, noise):
        return all_terms(s, s.beta**2, x0, net, np.broadcast_to(noise[0], noise.shape))

    return c.check_bound_of(bound, net, x0, noise, s)


@wrong("bound_of: bins of 256 levels around data of 8 levels", "bin", "255", "256", "level", "width", "narrow")
def _():
    s, net = FROM_SDE, network(28)
    x0, noise = rng(28).integers(0, 8, (3, 3)) / 3.5 - 1, rng(29).normal(size=(s.T, 3, 3))

    def bound(x0, noise):
        terms = all_terms(s, s.beta**2, x0, net, noise)
        x_1 = s.alpha_bar[1] * x0 + s.beta_bar[1] * noise[0]
        gap = x0 - ancestral(s, 1, x_1, net(x_1, 1))
        upper = np.where(x0 > 0.999, 1.0, ndtr((gap + 1 / 255) / s.beta[1]))
        lower = np.where(x0 < -0.999, 0.0, ndtr((gap - 1 / 255) / s.beta[1]))
        terms[:, 0] = -np.log(np.maximum(upper - lower, 1e-300)).sum(1)
        return terms.sum(1)

    return c.check_bound_of(bound, net, x0, noise, s, n_levels=8)


@wrong("sampler_of: DDIM's ε̂ from the x_0 that was clipped", "clip", "[−1, 1]", "x̂_0")
def _():
    s, net = COSINE, network(32)
    x, noise = rng(32).normal(size=(3, 3)), rng(33).normal(size=(s.T, 3, 3))

    def sample(x, noise):
        for t in range(s.T, 0, -1):
            x0 = np.clip((x - s.beta_bar[t] * net(x, t)) / s.alpha_bar[t], -1, 1)
            e = (x - s.alpha_bar[t] * x0) / s.beta_bar[t]
            x = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * e
        return x

    return c.check_sampler_of(sample, net, x, noise, s, eta=0.0)


@wrong(
    "sampler_of: the path without x_T's first step of noise, z shifted by one",
    "noise",
    "shift",
    "order",
    "previous",
    "late",
    "off by one",
)
def _():
    s, net = CONSTANT, network(34)
    x, noise = rng(34).normal(size=(3, 3)), rng(35).normal(size=(s.T, 3, 3))

    def sample(x, noise):
        path, z = [x], np.zeros_like(x)
        for i, t in enumerate(range(s.T, 0, -1)):
            x = ancestral(s, t, x, net(x, t)) + s.beta[t] * z
            z = noise[i]
            path.append(x)
        return np.stack(path)

    return c.check_sampler_of(sample, net, x, noise, s)


def affine_score(x, t):
    return -x * np.array([0.8, 0.5]) + 0.2 * np.sin(x[:, ::-1])


def flow_log_prob(x, sde, t_min, score, factor=1.0, prior_std=None, n=150, div=None):
    """Runge-Kutta over the probability flow; `factor` multiplies the divergence of the score."""
    div = div or (lambda x, t: np.full(len(x), -1.3))

    def slope(x, t):
        g2 = float(sde.diffusion(t)) ** 2
        f = float(sde.rate(t))
        return f * x - 0.5 * g2 * score(x, t), x.shape[1] * f - factor * 0.5 * g2 * div(x, t)

    times, total = t_min + (sde.horizon - t_min) * np.linspace(0, 1, n + 1) ** 2, 0.0
    for t, u in pairwise(times):
        h = u - t
        a, da = slope(x, t)
        b, db = slope(x + h / 2 * a, t + h / 2)
        d, dd = slope(x + h / 2 * b, t + h / 2)
        e, de = slope(x + h * d, u)
        x, total = x + h / 6 * (a + 2 * b + 2 * d + e), total + h / 6 * (da + 2 * db + 2 * dd + de)
    std = float(sde.std(sde.horizon)) if prior_std is None else prior_std
    return total + gauss(x, 0.0, std**2)


@wrong(
    "flow_likelihood_of: N(0, I) at the end of a variance-exploding process", "prior", "N(0, I)", "π", "σ_max", "std(T)"
)
def _():
    sde, x = VE(0.05, 5.0), rng(37).normal(size=(3, 2))
    score = lambda x, t: affine_score(x, t) / (1 + float(sde.std(t)) ** 2)  # noqa: E731
    div = lambda x, t: np.full(len(x), -1.3) / (1 + float(sde.std(t)) ** 2)  # noqa: E731
    return c.check_flow_likelihood_of(
        lambda x: flow_log_prob(x, sde, 0.01, score, prior_std=1.0, div=div), score, x, sde, 0.01
    )


@wrong(
    "flow_likelihood_of: the density of t_min divided by scale(t_min), once for all dimensions",
    "scale",
    "constant",
    "shift",
    "t_min",
    "factor",
)
def _():
    sde, x = VP(0.5, 4.0, 2.0), rng(38).normal(size=(4, 2))

    def log_prob(x):
        return flow_log_prob(x, sde, 0.1, affine_score) + float(sde.log_scale(0.1))

    return c.check_flow_likelihood_of(log_prob, affine_score, x, sde, 0.1)


# Latent variables


def kl_rows(mean, log_var):
    return 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(1)


def vae_case(loss, seed):
    draw = rng(seed)
    x, W, bias = draw.normal(size=(4, 5)), draw.normal(size=(5, 2)), draw.normal(size=5)
    return c.check_vae_loss(loss, x, W, bias, 0.6, draw.normal(size=(4, 2)), draw.normal(size=(4, 2)) - 1)


@wrong(
    "vae_loss: D log s² without the ½, as of a standard deviation",
    "½",
    "log",
    "twice",
    "factor",
    "standard deviation",
    "σ²",
)
def _():
    def loss(x, x_hat, mean, log_var, s):
        log_std = s  # the network's output is taken as log σ in the constant only
        nll = (x - x_hat) ** 2 / (2 * np.exp(s)) + log_std + 0.5 * np.log(2 * np.pi)
        return nll.sum(1) + kl_rows(mean, log_var)

    return vae_case(loss, 40)


@wrong("vae_loss: F.gaussian_nll_loss without full=True", "2π", "2 π", "constant", "log 2π")
def _():
    def loss(x, x_hat, mean, log_var, s):
        var = np.maximum(np.exp(s), 1e-6)
        return 0.5 * (np.log(var) + (x - x_hat) ** 2 / var).sum(1) + kl_rows(mean, log_var)

    return vae_case(loss, 42)


def tables(seed, X=4, Z=3):
    """p(x), q(z | x), p(x | z), p(z) and the joint p(x, z)."""
    draw = rng(seed)
    p, q = draw.dirichlet(np.full(X, 3.0)), draw.dirichlet(np.full(Z, 2.0), X)
    decoder, prior = draw.dirichlet(np.full(X, 2.0), Z).T.copy(), draw.dirichlet(np.full(Z, 3.0))
    return p, q, decoder, prior, decoder * prior


@wrong("vae_objective: the average over x without p(x)", "p(x)", "uniform", "weight", "mean", "average")
def _():
    p, q, decoder, prior, _ = tables(43)

    def loss(p, q, decoder, prior):
        return (q * (np.log(q / prior) - np.log(decoder))).sum(1).mean()

    return c.check_vae_objective(loss, p, q, decoder, prior)


@wrong("vae_objective: free bits, KL at least 0.5 a example", "KL", "at least", "free bits", "max", "clip")
def _():
    p, q, decoder, prior, _ = tables(44)

    def loss(p, q, decoder, prior):
        kl = np.maximum((q * np.log(q / prior)).sum(1), 0.5)
        return p @ (kl - (q * np.log(decoder)).sum(1))

    return c.check_vae_objective(loss, p, q, decoder, prior)


def bernoulli_case(loss, seed):
    draw = rng(seed)
    x = draw.uniform(size=(4, 6))
    return c.check_bernoulli_loss(
        loss, x, draw.normal(size=(4, 6)) * 2, draw.normal(size=(4, 3)), draw.normal(size=(4, 3))
    )


@wrong("bernoulli_loss: log(p + 1e-3) against log 0", "0.001", "1e-3", "1e-03", "added", "eps", "log(p +")
def _():
    def loss(x, logits, mean, log_var):
        p = expit(logits)
        bce = -(x * np.log(p + 1e-3) + (1 - x) * np.log(1 - p + 1e-3)).sum(1)
        return bce + kl_rows(mean, log_var)

    return bernoulli_case(loss, 46)


@wrong("bernoulli_loss: pixels rounded to 0 or 1 inside the loss", "round", "binar", "0 or 1", "threshold")
def _():
    def loss(x, logits, mean, log_var):
        hard = (x > 0.5).astype(float)
        return (np.logaddexp(0, logits) - hard * logits).sum(1) + kl_rows(mean, log_var)

    return bernoulli_case(loss, 47)


@wrong("reparameterisation: softplus of the log-variance as σ", "softplus", "log(1 +", "log1p")
def _():
    a, b = batch(48)
    return c.check_reparameterisation(lambda m, v, e: m + np.logaddexp(0, v) * e, a, b, rng(50).normal(size=a.shape))


@wrong(
    "reparameterisation: one draw for the batch", "one noise", "first", "broadcast", "same", "every example", "batch"
)
def _():
    a, b = batch(51)
    return c.check_reparameterisation(lambda m, v, e: m + np.exp(v / 2) * e[:1], a, b, rng(53).normal(size=a.shape))


def log_mean(w, axis=0):
    return logsumexp(w, axis=axis) - np.log(w.shape[axis])


@wrong("importance_weighted_bound: log of the batch size in place of log n", "log", "number", "batch", "constant")
def _():
    *_, joint = tables(54)
    return c.check_importance_weighted_bound(
        lambda w: logsumexp(w, axis=0) - np.log(w.shape[-1]), joint, tables(55)[1], 3
    )


@wrong(
    "importance_weighted_bound: Σ w̃ log w, the surrogate for gradients",
    "normalised",
    "surrogate",
    "softmax",
    "weighted",
    "self",
)
def _():
    *_, joint = tables(56)

    def bound(w):
        p = np.exp(w - logsumexp(w, axis=0))
        return (p * w).sum(0)

    return c.check_importance_weighted_bound(bound, joint, tables(57)[1], 2)


def exact_iwae(joint, q, n, replace=True):
    out = []
    for p, guide in zip(joint, q, strict=True):
        log_w, total, mass = np.log(p / guide), 0.0, 0.0
        for draw in product(range(len(p)), repeat=n) if replace else permutations(range(len(p)), n):
            index = list(draw)
            chance = np.prod(guide[index])
            total, mass = total + chance * log_mean(log_w[index]), mass + chance
        out.append(total / mass)
    return np.array(out)


@wrong("iwae_ladder: draws without replacement", "replacement", "distinct", "different", "permutation", "repeat")
def _():
    *_, joint = tables(58, 3, 5)
    return c.check_iwae_ladder(lambda j, q, n: exact_iwae(j, q, n, replace=False), joint, tables(59, 3, 5)[1], 3)


@wrong("iwae_ladder: the jackknife's n L_n − (n−1) L_{n−1}", "jackknife", "bias", "n L", "extrapol", "previous", "L_{n")
def _():
    *_, joint = tables(60)

    def iwae(j, q, n):
        out = n * exact_iwae(j, q, n)
        return out - (n - 1) * exact_iwae(j, q, n - 1) if n > 1 else out

    return c.check_iwae_ladder(iwae, joint, tables(61)[1], 3)


@wrong("kl: F.kl_div with probabilities where it wants log-probabilities", "log q", "log", "probabilit")
def _():
    p, q = tables(62)[0], tables(63)[0]
    return c.check_kl(lambda p, q: (p * (np.log(p) - q)).sum(), p, q)


@wrong(
    "kl: scipy's jensenshannon, the root of a symmetric divergence",
    "Jensen",
    "symmetric",
    "root",
    "mean of p and q",
    "mixture",
)
def _():
    p, q = tables(64)[0], tables(65)[0]

    def js(p, q):
        m = (p + q) / 2
        return np.sqrt(np.maximum(0.5 * (p * np.log(p / m)).sum() + 0.5 * (q * np.log(q / m)).sum(), 0))

    return c.check_kl(js, p, q)


def gaussians(seed, dim=3):
    draw = rng(seed)
    a, b = draw.normal(size=(2, dim, dim))
    return draw.normal(size=dim), a @ a.T + np.eye(dim), draw.normal(size=dim), b @ b.T + np.eye(dim)


def gaussian_kl(mean_p, cov_p, mean_q, cov_q, metric=None, logdet=lambda m: np.linalg.slogdet(m)[1]):
    d = mean_q - mean_p
    quad = d @ np.linalg.solve(cov_q if metric is None else metric, d)
    return 0.5 * (np.trace(np.linalg.solve(cov_q, cov_p)) + quad - len(d) + logdet(cov_q) - logdet(cov_p))


@wrong(
    "gaussian_kl: the first result of slogdet, the sign",
    "log|",
    "determinant",
    "log det",
    "log-det",
    "missing",
    "without",
)
def _():
    return c.check_gaussian_kl(lambda *a: gaussian_kl(*a, logdet=lambda m: np.linalg.slogdet(m)[0]), *gaussians(66))


@wrong(
    "gaussian_kl: Mahalanobis distance in the covariance of p",
    "S_p",
    "cov_p",
    "covariance of p",
    "other covariance",
    "inverse",
    "S_q",
)
def _():
    return c.check_gaussian_kl(lambda *a: gaussian_kl(*a, metric=a[1]), *gaussians(67, 2))


@wrong("diagonal_kl: exp(v)² beside v, log σ and log σ² mixed", "σ⁴", "square", "standard deviation", "log σ")
def _():
    return c.check_diagonal_kl(lambda m, v: 0.5 * (m**2 + np.exp(v) ** 2 - 1 - v).sum(1), *batch(70))


@wrong("bits_per_dim: the 7 bits of images in [−1, 1], whatever the scale", "scale", "128", "127.5", "constant")
def _():
    masses = rng(72).dirichlet(np.ones(6))
    return c.check_bits_per_dim(lambda nats, d, scale: nats / (d * np.log(2)) + 7.0, masses, 3, 0.25)


@wrong("bits_per_dim: log of the cell in nats among bits", "nats", "log 2", "ln 2", "log₂", "bits")
def _():
    masses = rng(73).dirichlet(np.ones(5))
    return c.check_bits_per_dim(lambda nats, d, scale: nats / (d * np.log(2)) - np.log(scale), masses, 4, 2 / 255)


def bins(level, mean, std, n, half, cdf=ndtr):
    x = 2 * level / (n - 1) - 1
    upper = np.where(level == n - 1, 1.0, cdf((x + half - mean) / std))
    lower = np.where(level == 0, 0.0, cdf((x - half - mean) / std))
    return np.log(np.maximum(upper - lower, 1e-300))


@wrong("bin_masses: half a bin as 1/n", "1/n", "n_levels", "width", "edge", "gap", "narrow")
def _():
    return c.check_bin_masses(lambda k, m, s: bins(k, m, s, 6, 1 / 6), 6, np.array([-0.4, 0.1, 0.8]), 0.5)


@wrong("bin_masses: Ho's tanh for Φ", "tanh", "approxim", "Φ", "logistic")
def _():
    cdf = lambda z: 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))  # noqa: E731
    return c.check_bin_masses(lambda k, m, s: bins(k, m, s, 5, 1 / 4, cdf), 5, np.array([-0.7, 0.2, 0.5]), 0.6)


@wrong("joint_kl: without p(x) in the logarithm, the loss of a VAE", "entropy", "H(p)", "p(x)", "log p")
def _():
    p, q, decoder, prior, _ = tables(74)
    return c.check_joint_kl(lambda p, q, d, pr: (p[:, None] * q * np.log(q / (d * pr))).sum(), p, q, decoder, prior)


@wrong("joint_kl: the aggregated posterior in the place of the prior", "aggregate", "q̄", "q(z)", "marginal", "prior")
def _():
    p, q, decoder, prior, _ = tables(75)

    def joint_kl(p, q, d, pr):
        return (p[:, None] * q * np.log(p[:, None] * q / (d * (p @ q)))).sum()

    return c.check_joint_kl(joint_kl, p, q, decoder, prior)


@wrong("elbo: the logarithm outside, log E_q p/q", "log p(x)", "evidence", "Jensen", "log of", "outside")
def _():
    *_, joint = tables(76)
    return c.check_elbo(lambda j, q: np.log((q * (j / q)).sum(1)), joint, tables(77)[1])


@wrong("elbo: the entropy of q from scipy with base=2", "log2", "log₂", "bits", "ln 2", "base", "entropy")
def _():
    *_, joint = tables(78)
    return c.check_elbo(lambda j, q: (q * np.log(j)).sum(1) - (q * np.log2(q)).sum(1), joint, tables(79)[1])


@wrong("split_elbo: kl_divergence(prior, q)", "KL(p", "reverse", "direction", "order", "swapped", "exchanged")
def _():
    _, q, decoder, prior, _ = tables(80)
    return c.check_split_elbo(lambda d, pr, q: (q * np.log(d)).sum(1) - (pr * np.log(pr / q)).sum(1), decoder, prior, q)


@wrong("split_elbo: likelihood averaged over the prior", "prior", "p(z)", "under", "average", "expectation")
def _():
    _, q, decoder, prior, _ = tables(81)
    return c.check_split_elbo(lambda d, pr, q: np.log(d) @ pr - (q * np.log(q / pr)).sum(1), decoder, prior, q)


@wrong("latent_posterior: softmax of the joint, not of its logarithm", "softmax", "log")
def _():
    *_, joint = tables(83)
    return c.check_latent_posterior(lambda j: (np.exp(j) / np.exp(j).sum(1, keepdims=True), j.sum(1)), joint)


@wrong("posterior_kl: the joint is not normalised", "log p(x)", "ELBO", "normal", "joint", "evidence")
def _():
    *_, joint = tables(84)
    return c.check_posterior_kl(lambda j, q: (q * np.log(q / j)).sum(1), joint, tables(85)[1])


@wrong(
    "posterior_kl: KL(p(z | x)‖q), expectation propagation's",
    "reverse",
    "KL(p",
    "direction",
    "order",
    "swapped",
    "exchanged",
)
def _():
    *_, joint = tables(86)

    def kl(j, q):
        post = j / j.sum(1, keepdims=True)
        return (post * np.log(post / q)).sum(1)

    return c.check_posterior_kl(kl, joint, tables(87)[1])


@wrong("kl_parts: q̄ as the mean of the rows of q", "uniform", "mean", "p(x)", "weight", "average")
def _():
    p, q, _, prior, _ = tables(88)

    def parts(p, q, prior):
        bar = q.mean(0)
        return (q * np.log(q / bar)).sum(1), (bar * np.log(bar / prior)).sum()

    return c.check_kl_parts(parts, p, q, prior)


@wrong("kl_parts: the second part as KL(prior‖q̄)", "reverse", "KL(prior", "direction", "order", "swapped", "exchanged")
def _():
    p, q, _, prior, _ = tables(89)

    def parts(p, q, prior):
        bar = p @ q
        return (q * np.log(q / bar)).sum(1), (prior * np.log(prior / bar)).sum()

    return c.check_kl_parts(parts, p, q, prior)


def linear_model(seed, n=4, D=5, k=2):
    draw = rng(seed)
    return draw.normal(size=(n, D)), draw.normal(size=(D, k)), draw.normal(size=D), 0.7


def linear_posterior(x, W, mean, var):
    precision = np.eye(W.shape[1]) + W.T @ W / var
    return np.linalg.solve(precision, W.T @ (x - mean).T / var).T, precision


@wrong("mean_field: one sweep over the latents from 0", "sweep", "converge", "iteration", "one step", "mean")
def _():
    def mean_field(x, W, mean, var):
        _, precision = linear_posterior(x, W, mean, var)
        pull, m = (x - mean) @ W / var, np.zeros((len(x), W.shape[1]))
        for i in range(W.shape[1]):
            m[:, i] = (pull[:, i] - m @ precision[:, i] + m[:, i] * precision[i, i]) / precision[i, i]
        return m, 1 / np.diag(precision)

    return c.check_mean_field(mean_field, *linear_model(90, k=3))


@wrong("mean_field: the variances of the exact posterior", "marginal", "inverse", "diagonal of", "posterior", "P⁻¹")
def _():
    def mean_field(x, W, mean, var):
        m, precision = linear_posterior(x, W, mean, var)
        return m, np.diag(np.linalg.inv(precision))

    return c.check_mean_field(mean_field, *linear_model(91))


def linear_elbo(x, W, mean, var, m, S, spread=1.0, half=0.5):
    D, k = W.shape
    d = x - mean - m @ W.T
    fit = -0.5 * (D * np.log(2 * np.pi * var) + ((d**2).sum(1) + spread * np.trace(W.T @ W @ S)) / var)
    return fit - 0.5 * ((m**2).sum(1) + np.trace(S) - k) + half * np.linalg.slogdet(S)[1]


@wrong("linear_gaussian_elbo: reconstruction at the mean of q", "trace", "spread", "mean of q", "q_cov", "covariance")
def _():
    S = np.array([[0.5, 0.1], [0.1, 0.3]])
    return c.check_linear_gaussian_elbo(
        lambda *a: linear_elbo(*a, spread=0.0), *linear_model(92), rng(93).normal(size=(4, 2)), S
    )


@wrong(
    "linear_gaussian_elbo: log|S| of the diagonal of q_cov",
    "diagonal",
    "determinant",
    "log|",
    "off-diagonal",
    "correlation",
    "mean-field",
)
def _():
    S = np.array([[0.5, 0.25], [0.25, 0.3]])

    def elbo(x, W, mean, var, m, S):
        return linear_elbo(x, W, mean, var, m, S, half=0.0) + 0.5 * np.log(np.diag(S)).sum()

    return c.check_linear_gaussian_elbo(elbo, *linear_model(94), rng(95).normal(size=(4, 2)), S)


@wrong("linear_gaussian_posterior: M⁻¹ of Tipping and Bishop without σ²", "σ²", "factor", "M⁻¹", "times")
def _():
    def posterior(x, W, mean, var):
        inverse = np.linalg.inv(W.T @ W + var * np.eye(W.shape[1]))
        return (x - mean) @ W @ inverse, inverse

    return c.check_linear_gaussian_posterior(posterior, *linear_model(96))


@wrong(
    "linear_gaussian_posterior: projection by the pseudo-inverse of W",
    "prior",
    "pseudo",
    "least squares",
    "projection",
    "identity",
    "shrink",
)
def _():
    def posterior(x, W, mean, var):
        precision = np.eye(W.shape[1]) + W.T @ W / var
        return (x - mean) @ np.linalg.pinv(W).T, np.linalg.inv(precision)

    return c.check_linear_gaussian_posterior(posterior, *linear_model(97))


# EM


def mixture_of(seed, K=3, D=2, n=12):
    """Data, and weights, means and covariances of a mixture."""
    draw = rng(seed)
    roots = draw.normal(size=(K, D, D)) / 2
    means, covariances = 2 * draw.normal(size=(K, D)), roots @ roots.transpose(0, 2, 1) + 0.4 * np.eye(D)
    return 2 * draw.normal(size=(n, D)), draw.dirichlet(np.full(K, 4.0)), means, covariances


def log_joint(x, w, m, C, half=0.5):
    diff = x[:, None] - m
    quad = np.einsum("nkd,kde,nke->nk", diff, np.linalg.inv(C), diff)
    return np.log(w) - 0.5 * (quad + x.shape[1] * np.log(2 * np.pi)) - half * np.linalg.slogdet(C)[1]


def e_step(x, w, m, C):
    joint = log_joint(x, w, m, C)
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def m_step(x, r, about=None):
    counts = r.sum(0)
    means = r.T @ x / counts[:, None]
    diff = x[:, None] - (means if about is None else about)
    return counts / len(x), means, np.einsum("nk,nkd,nke->kde", r, diff, diff) / counts[:, None, None]


@wrong("e_step: densities divided by their sum plus 1e-300", "underflow", "softmax", "log", "uniform")
def _():
    def responsibilities(*a):
        p = np.exp(log_joint(*a))
        return (p + 1e-300) / (p + 1e-300).sum(1, keepdims=True)

    return c.check_e_step(responsibilities, *mixture_of(100))


@wrong(
    "e_step: ½ Σ log diag of the Cholesky factor, the fourth root of |C|",
    "determinant",
    "½",
    "log|",
    "Cholesky",
    "root",
    "factor",
)
def _():
    def responsibilities(*a):
        joint = log_joint(*a, half=0.25)
        return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))

    return c.check_e_step(responsibilities, *mixture_of(101))


@wrong(
    "em: one example added to every component's weight",
    "added",
    "prior",
    "smooth",
    "+ 1",
    "pseudo",
    "Dirichlet",
    "weight",
)
def _():
    def step(x, w, m, C):
        r = e_step(x, w, m, C)
        _, means, covariances = m_step(x, r)
        return (r.sum(0) + 1) / (len(x) + len(w)), means, covariances

    return c.check_em(step, *mixture_of(103, K=2, n=25))


@wrong("em: every diagonal component gets the mean of its variances", "spherical", "mean", "average", "one variance")
def _():
    x, w, m, _ = mixture_of(104, n=30)

    def step(x, w, m, C):
        weights, means, new = m_step(x, e_step(x, w, m, C))
        return weights, means, np.einsum("kdd->k", new)[:, None, None] / x.shape[1] * np.eye(x.shape[1])

    C = np.stack([np.diag(v) for v in rng(105).uniform(0.5, 2, (3, 2))])
    return c.check_em(step, x, w, m, C, covariance_type="diag")


def mean_log_prob(x, *mixture):
    return logsumexp(log_joint(x, *mixture), axis=1).mean()


@wrong(
    "em_loop: the objective noted after the M-step",
    "after",
    "shift",
    "M-step",
    "next",
    "one step",
    "off by one",
    "later",
)
def _():
    x, *start = mixture_of(106, n=20)

    def em():
        mixture, history = start, []
        for _ in range(4):
            mixture = m_step(x, e_step(x, *mixture))
            history.append(mean_log_prob(x, *mixture))
        return [*history, history[-1]], *mixture

    return c.check_em_loop(em, x, *start, 4)


@wrong(
    "em_loop: responsibilities of the start in every M-step",
    "once",
    "start",
    "first",
    "fixed",
    "old",
    "one step",
    "recompute",
)
def _():
    x, *start = mixture_of(107, n=20)

    def em():
        r, mixture, history = e_step(x, *start), start, [mean_log_prob(x, *start)]
        for _ in range(3):
            mixture = m_step(x, r)
            history.append(mean_log_prob(x, *mixture))
        return history, *mixture

    return c.check_em_loop(em, x, *start, 3)


def log_q(seed, n=12, K=3):
    return np.log(rng(seed).dirichlet(np.full(K, 2.0), n))


@wrong("free_energy: the KL to the mixing weights added, not subtracted", "sign", "plus", "added", "KL")
def _():
    def free_energy(x, lq, w, m, C):
        q = np.exp(lq)
        return (q * (log_joint(x, w, m, C) - np.log(w))).sum(1) - (q * (np.log(w) - lq)).sum(1)

    return c.check_free_energy(free_energy, mixture_of(108)[0], log_q(109), *mixture_of(108)[1:])


@wrong("free_energy: logsumexp of log p + log q", "logsumexp", "log of", "outside", "product", "log E")
def _():
    return c.check_free_energy(
        lambda x, lq, *mix: logsumexp(log_joint(x, *mix) + lq, axis=1),
        mixture_of(110)[0],
        log_q(111),
        *mixture_of(110)[1:],
    )


@wrong("free_m_step: columns of q divided by their sums, without p(x)", "p(x)", "uniform", "weight", "without p")
def _():
    p, q, _, prior, _ = tables(112)
    return c.check_free_m_step(lambda p, q: (q / q.sum(0), p @ q), p, q, prior)


@wrong("free_m_step: q(z) as the mean of q over x", "p(x)", "uniform", "mean", "average", "weight", "1/X")
def _():
    p, q, _, prior, _ = tables(113)
    return c.check_free_m_step(lambda p, q: (p[:, None] * q / (p @ q), q.mean(0)), p, q, prior)


def maximum_covariances(kind, variance, count, S, n, floor, tied=None, divide=True):
    K, D, _ = S.shape
    prior = count * variance * np.eye(D)
    if kind == "tied":
        pooled = (np.einsum("k,kde->de", n, S) + prior) / (n.sum() + count) if tied is None else tied
        out = np.repeat(pooled[None], K, axis=0)
    else:
        out = (n[:, None, None] * S + prior) / (n[:, None, None] + count)
    if kind == "diag":
        out = out * np.eye(D)
    if kind == "spherical":
        out = np.einsum("kdd->k", out)[:, None, None] * np.eye(D) / (D if divide else 1)
    values, vectors = np.linalg.eigh(out)
    return (vectors * np.maximum(values, floor)[:, None]) @ vectors.transpose(0, 2, 1)


@wrong("covariance_types: 'tied' as a mean over components without N_k", "N_k", "weight", "mean", "counts", "equal")
def _():
    S, n = mixture_of(114)[3], np.array([3.0, 9.0, 20.0])

    def maximum(kind, variance, count):
        tied = (S.mean(0) * n.sum() + count * variance * np.eye(2)) / (n.sum() + count)
        return maximum_covariances(kind, variance, count, S, n, 0.01, tied)

    return c.check_covariance_types(maximum, S, n, 0.01)


@wrong("covariance_types: 'spherical' is the trace", "trace", "mean", "sum", "divided")
def _():
    S, n = mixture_of(115)[3], np.array([5.0, 7.0, 11.0])
    return c.check_covariance_types(lambda *a: maximum_covariances(*a, S, n, 0.001, divide=False), S, n, 0.001)


def assign(x, centres, power=2):
    return (np.abs(x[:, None] - centres) ** power).sum(2).argmin(1)


POINTS = rng(116).normal(size=(40, 2)) * [3.0, 0.7] + rng(117).integers(0, 2, (40, 1)) * [1.0, 4.0]


@wrong("kmeans: a loop of one step", "iteration", "one step", "first", "converge", "stops")
def _():
    def kmeans(x, centres):
        label = assign(x, centres)
        return np.stack([x[label == k].mean(0) for k in range(len(centres))])

    return c.check_kmeans(kmeans, POINTS, POINTS[[10, 11, 12]])


@wrong("kmeans: the median of the points", "median")
def _():
    def kmeans(x, centres):
        for _ in range(60):
            label = assign(x, centres)
            centres = np.stack([np.median(x[label == k], axis=0) for k in range(len(centres))])
        return centres

    return c.check_kmeans(kmeans, POINTS, POINTS[[0, 9, 20]])


@wrong("statistics: covariances as second moments around 0", "centred", "second moment", "m mᵀ", "mean", "around 0")
def _():
    x, *mix = mixture_of(118)

    def statistics():
        r = e_step(x, *mix)
        _, means, second = m_step(x, r, about=np.zeros_like(mix[1]))
        return r.sum(0), means, second, mean_log_prob(x, *mix)

    return c.check_statistics(statistics, x, *mix)


@wrong("statistics: the log-likelihood without mixing weights", "weights", "log w", "mixing", "prior", "π")
def _():
    x, *mix = mixture_of(119)

    def statistics():
        r = e_step(x, *mix)
        _, means, covariances = m_step(x, r)
        return r.sum(0), means, covariances, mean_log_prob(x, np.ones(3), *mix[1:])

    return c.check_statistics(statistics, x, *mix)


def table_case(step, seed):
    draw = rng(seed)
    return c.check_table_em(
        step,
        draw.integers(0, 3, (15, 4)),
        draw.dirichlet(np.full(2, 3.0)),
        draw.dirichlet(np.full(3, 2.0), (2, 4)),
        PSEUDO,
    )


PSEUDO = rng(120).uniform(0.1, 0.9, (4, 3))


def table_joint(x, w, P):
    return np.log(w) + np.log(P[:, np.arange(x.shape[1]), x]).sum(2).T


@wrong("table_em: tables divided by N_k, without the pseudo-counts in the sum", "normal", "sum", "pseudo", "N_k")
def _():
    def step(x, w, P):
        joint = table_joint(x, w, P)
        r = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        counts = np.einsum("nk,ndl->kdl", r, np.eye(3)[x]) + PSEUDO
        return logsumexp(joint, axis=1), r.mean(0), counts / r.sum(0)[:, None, None]

    return table_case(step, 121)


@wrong(
    "table_em: pseudo-counts shared by the levels of all dimensions",
    "pseudo",
    "mean",
    "average",
    "dimension",
    "uniform",
)
def _():
    def step(x, w, P):
        joint = table_joint(x, w, P)
        r = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        counts = np.einsum("nk,ndl->kdl", r, np.eye(3)[x]) + PSEUDO.mean(0)
        return logsumexp(joint, axis=1), r.mean(0), counts / counts.sum(2, keepdims=True)

    return table_case(step, 122)


def sample_covariance(seed, D=5):
    x = rng(seed).normal(size=(40, D)) * np.linspace(2, 0.6, D) @ np.linalg.qr(rng(seed + 1).normal(size=(D, D)))[0]
    return np.cov(x.T, bias=True)


@wrong("ppca_maximum: W = U Λ^½, as scaled principal components", "− σ²", "σ²", "Λ", "eigenvalue", "without")
def _():
    def maximum(S, k):
        values, vectors = np.linalg.eigh(S)
        return vectors[:, -k:] * np.sqrt(values[-k:]), values[:-k].mean()

    return c.check_ppca_maximum(maximum, sample_covariance(123), 2)


@wrong("ppca_maximum: σ² as the (k+1)st eigenvalue", "eigenvalue", "largest", "next", "λ_{k+1}", "mean", "first of")
def _():
    def maximum(S, k):
        values, vectors = np.linalg.eigh(S)
        var = values[-k - 1]
        return vectors[:, -k:] * np.sqrt(values[-k:] - var), var

    return c.check_ppca_maximum(maximum, sample_covariance(125), 2)


def ppca_step(S, W, var, spread=1.0, degrees=0):
    M = W.T @ W + var * np.eye(W.shape[1])
    inverse = np.linalg.inv(M)
    second = spread * var * np.eye(len(M)) + inverse @ W.T @ S @ W
    new = S @ W @ np.linalg.inv(second)
    return new, np.trace(S - S @ W @ inverse @ new.T) / (len(S) - degrees)


@wrong(
    "ppca_step: E zzᵀ without the posterior covariance",
    "posterior covariance",
    "σ² I",
    "σ²I",
    "covariance of z",
    "M⁻¹",
    "variance of z",
)
def _():
    return c.check_ppca_step(
        lambda *a: ppca_step(*a, spread=0.0), sample_covariance(127), rng(129).normal(size=(5, 2)), 0.5
    )


@wrong("ppca_step: σ² divided by D − k", "D − k", "D-k", "D/(D", "divided", "latents")
def _():
    return c.check_ppca_step(
        lambda *a: ppca_step(*a, degrees=2), sample_covariance(130), rng(132).normal(size=(5, 2)), 0.8
    )


def factor_step(S, W, psi):
    beta = W.T @ np.linalg.inv(W @ W.T + np.diag(psi))
    second = np.eye(W.shape[1]) - beta @ W + beta @ S @ beta.T
    new = S @ beta.T @ np.linalg.inv(second)
    return beta, second, new


@wrong(
    "factor_analysis_step: the new Ψ averaged over dimensions, as in PPCA",
    "mean",
    "PPCA",
    "isotropic",
    "average",
    "one number",
)
def _():
    def step(S, W, psi):
        beta, _, new = factor_step(S, W, psi)
        return new, np.full(len(S), np.trace(S - new @ beta @ S) / len(S))

    return c.check_factor_analysis_step(
        step, sample_covariance(133), rng(135).normal(size=(5, 2)), rng(136).uniform(0.3, 1, 5)
    )


@wrong(
    "factor_analysis_step: posterior covariance I + β W", "sign", "I + ", "minus", "posterior covariance", "β W", "plus"
)
def _():
    def step(S, W, psi):
        beta = W.T @ np.linalg.inv(W @ W.T + np.diag(psi))
        new = S @ beta.T @ np.linalg.inv(np.eye(W.shape[1]) + beta @ W + beta @ S @ beta.T)
        return new, np.diag(S - new @ beta @ S)

    return c.check_factor_analysis_step(
        step, sample_covariance(137), rng(139).normal(size=(5, 2)), rng(140).uniform(0.3, 1, 5)
    )


def em_rates(x, w, m, C, cross=True):
    r, K, D = e_step(x, w, m, C), *m.shape
    out = np.zeros((K, D, K, D))
    new = r.T @ x / r.sum(0)[:, None]
    pull = np.einsum("jde,nje->njd", np.linalg.inv(C), x[:, None] - m)
    for k in range(K):
        for j in range(K):
            if cross or k == j:
                weight = r[:, k] * ((k == j) - r[:, j])
                out[k, :, j] = np.einsum("n,nd,ne->de", weight, x - new[k], pull[:, j]) / r[:, k].sum()
    return np.sort(np.linalg.eigvals(out.reshape(K * D, K * D)).real)[::-1]


def overlapping(seed):
    draw = rng(seed)
    x = draw.normal(size=(60, 2)) + np.repeat([[-1.3, 0.0], [1.3, 0.5]], 30, axis=0)
    return x, np.array([0.45, 0.55]), np.array([[-1.0, 0.2], [1.1, 0.1]]), np.stack([np.eye(2), 1.2 * np.eye(2)])


@wrong("missing_information: every component alone", "block", "cross", "between", "component", "off-diagonal")
def _():
    return c.check_missing_information(lambda *a: em_rates(*a, cross=False), *overlapping(141))


@wrong("missing_information: the share of observed information", "1 −", "1 - ", "complement", "observed")
def _():
    return c.check_missing_information(lambda *a: np.sort(1 - em_rates(*a))[::-1], *overlapping(142))


# Continuous time


@wrong("sde: sub-VP's diffusion beside VP's marginal", "square root", "root", "1 − e")
def _():
    right = SubVP(0.1, 8.0, 1.0)

    def marginal(t):
        B = right.beta_integral(t)
        return np.exp(-B / 2), np.sqrt(-np.expm1(-B))

    return c.check_sde(marginal, right.drift, right.diffusion, 1.0)


@wrong("sde: VE's g for a horizon of 1", "horizon", "1/T", "factor", "√")
def _():
    low, ratio, T = 0.02, 500.0, 3.0

    def marginal(t):
        return np.ones_like(t), low * np.sqrt(ratio ** (2 * np.asarray(t) / T) - 1)

    return c.check_sde(
        marginal,
        lambda x, t: np.zeros_like(x),
        lambda t: low * ratio ** (np.asarray(t) / T) * np.sqrt(2 * np.log(ratio)),
        T,
    )


@wrong("discretisation: g² at the start of every step", "first order", "first-order", "start", "left", "g²", "β(t")
def _():
    sde, T = VP(0.1, 10.0, 1.5), 50
    h = sde.horizon / T
    return c.check_discretisation(sde.beta(h * np.arange(T)) * h, sde)


@wrong(
    "discretisation: 1 − exp(−½∫β), the mean's factor without its square", "½", "half", "square root", "1 − α", "factor"
)
def _():
    sde = VP(0.2, 6.0, 1.0)
    B = sde.beta_integral(np.linspace(0, 1, 21))
    return c.check_discretisation(-np.expm1(-np.diff(B) / 2), sde)


def gaussian_score(sde, mean, covariance):
    mean, covariance = np.atleast_1d(mean), np.atleast_2d(covariance)

    def score(x, t):
        a, b = (float(v) for v in sde.marginal(t))
        return -np.linalg.solve(a**2 * covariance + b**2 * np.eye(len(mean)), (x - a * mean).T).T

    return score


@wrong("reverse_sde: ½(1 + λ) in place of ½(1 + λ²)", "λ²", "1 + λ", "squared", "1+λ", "stochasticity")
def _():
    sde, mean = VP(0.1, 7.0, 1.2), np.array([0.5, -1.0])
    score = gaussian_score(sde, mean, WIDE)
    return c.check_reverse_sde(
        lambda x, t: sde.drift(x, t) - 0.5 * 1.4 * float(sde.diffusion(t)) ** 2 * score(x, t),
        lambda t: 0.4 * sde.diffusion(t),
        sde,
        mean,
        WIDE,
        0.4,
    )


@wrong("reverse_sde: the drift of a process in T − t", "sign", "dt", "direction", "minus", "negative", "−1", "backward")
def _():
    sde, mean = SubVP(0.2, 6.0, 1.0), np.array([0.2, 0.7])
    score = gaussian_score(sde, mean, WIDE)
    return c.check_reverse_sde(
        lambda x, t: float(sde.diffusion(t)) ** 2 * score(x, t) - sde.drift(x, t), sde.diffusion, sde, mean, WIDE
    )


@wrong("reverse_step: noise times h, without the root", "square root", "√", "root", "t − s")
def _():
    sde = VP(0.1, 5.0, 2.0)
    score = gaussian_score(sde, 0.4, 0.6)

    def step(x, t, s, z):
        g = float(sde.diffusion(t))
        return x + (sde.drift(x, t) - g**2 * score(x, t)) * (s - t) + g * (t - s) * z

    return c.check_reverse_step(step, sde, 0.4, 0.6)


@wrong(
    "reverse_step: the score of x_t given x_0 = the mean",
    "scale²",
    "std²",
    "given",
    "conditional",
    "variance of the data",
)
def _():
    sde = VE(0.1, 6.0)

    def step(x, t, s, z):
        g = float(sde.diffusion(t))
        score = -(x - 0.3) / (float(sde.std(t)) ** 2 + 1e-12)
        return x + (sde.drift(x, t) - g**2 * score) * (s - t) + g * np.sqrt(t - s) * z

    return c.check_reverse_step(step, sde, 0.3, 0.9)


def wavy(x, t):
    return -x / (1 + t) + 0.2 * np.sin(x[:, ::-1])


@wrong("reverse_sampler: noise with g of the end of the step", "g(s)", "at s", "next", "time")
def _():
    sde = VP(0.2, 4.0, 1.0)

    def sample(x, times, noise):
        for (t, s), z in zip(pairwise(times), noise, strict=True):
            g = float(sde.diffusion(t))
            x = x + (sde.drift(x, t) - g**2 * wavy(x, t)) * (s - t) + float(sde.diffusion(s)) * np.sqrt(t - s) * z
        return x

    return c.check_reverse_sampler(sample, wavy, sde, np.linspace(1, 0.05, 13))


@wrong(
    "reverse_sampler: the corrector before the predictor",
    "before",
    "order",
    "corrector",
    "predictor",
    "at t",
    "std(t)",
    "Langevin",
)
def _():
    sde, snr = VP(0.1, 5.0, 1.5), 0.16

    def sample(x, times, noise):
        for (t, s), (z, y) in zip(pairwise(times), noise, strict=True):
            delta = 2 * (snr * float(sde.std(t))) ** 2
            x = x + delta * wavy(x, t) + np.sqrt(2 * delta) * y
            g = float(sde.diffusion(t))
            x = x + (sde.drift(x, t) - g**2 * wavy(x, t)) * (s - t) + g * np.sqrt(t - s) * z
        return x

    return c.check_reverse_sampler(sample, wavy, sde, np.linspace(1.5, 0.1, 9), n_corrections=1, snr=snr)


def flow_slope(sde, x, t):
    return sde.drift(x, t) - 0.5 * float(sde.diffusion(t)) ** 2 * wavy(x, t)


@wrong("heun: the second slope at the time of the first", "time", "at t", "t in place of s", "start")
def _():
    sde = VP(0.1, 6.0, 1.0)

    def sample(x, times):
        for t, s in pairwise(times):
            first = flow_slope(sde, x, t)
            x = x + (s - t) / 2 * (first + flow_slope(sde, x + (s - t) * first, t))
        return x

    return c.check_heun(sample, wavy, sde, np.linspace(1, 0.02, 12))


@wrong("heun: the last step by Euler, although the grid does not end at 0", "Euler", "last step", "final", "last")
def _():
    sde = SubVP(0.3, 5.0, 2.0)

    def sample(x, times):
        for t, s in pairwise(times):
            first = flow_slope(sde, x, t)
            euler = x + (s - t) * first
            x = euler if s == times[-1] else x + (s - t) / 2 * (first + flow_slope(sde, euler, s))
        return x

    return c.check_heun(sample, wavy, sde, np.linspace(2, 0.2, 10))


@wrong("langevin_step: noise √δ", "√2", "√(2δ)", "2δ", "factor", "noise", "√δ")
def _():
    sde, var = VP(0.1, 9.0, 1.0), np.array([0.5, 1.0, 2.0])

    def step(x, t, z):
        delta = 2 * (0.2 * float(sde.std(t))) ** 2
        return x - delta * x / var + np.sqrt(delta) * z

    return c.check_langevin_step(step, sde, var, 0.2)


@wrong("langevin_step: δ from the norms of noise and score", "norm", "‖", "size", "length", "noise")
def _():
    sde, var = VE(0.05, 4.0), 1.5

    def step(x, t, z):
        score = -x / var
        ratio = np.linalg.norm(z, axis=1).mean() / (np.linalg.norm(score, axis=1).mean() + 1e-12)
        delta = 2 * (0.16 * ratio) ** 2
        return x + delta * score + np.sqrt(2 * delta) * z

    return c.check_langevin_step(step, sde, var, 0.16)


def denoise(w, m, C, x, scale, std, w_of=None):
    noisy = scale**2 * C + std**2 * np.eye(m.shape[1])
    joint = log_joint(x, w, scale * m, noisy) if w_of is None else w_of(x)
    r = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    means = m + np.einsum("kde,nke->nkd", scale * C @ np.linalg.inv(noisy), x[:, None] - scale * m)
    return np.einsum("nk,nkd->nd", r, means)


@wrong(
    "denoiser: responsibilities under the clean mixture",
    "responsib",
    "posterior",
    "clean",
    "without noise",
    "p(k",
    "diffus",
)
def _():
    x, *mix = mixture_of(150)
    return c.check_denoiser(
        lambda x, a, b: denoise(*mix, x, a, b, w_of=lambda x: log_joint(x, *mix)), Mixture(*mix), x, 0.6, 0.8
    )


@wrong("denoiser: Tweedie without the division by scale", "scale", "divid", "factor")
def _():
    x, *mix = mixture_of(151, K=2, D=3)
    law = Mixture(*mix)
    return c.check_denoiser(lambda x, a, b: a * denoise(*mix, x, a, b), law, x, 0.4, 0.9)


@wrong("log_prob: log 2π once, not once a dimension", "2π", "dimension", "once", "constant")
def _():
    x, *mix = mixture_of(152, D=3)
    return c.check_log_prob(
        lambda x: logsumexp(log_joint(x, *mix), axis=1) + np.log(2 * np.pi) * (x.shape[1] - 1) / 2, Mixture(*mix), x
    )


@wrong("log_prob: the nearest component only", "largest", "max", "component", "logsumexp", "nearest")
def _():
    x, *mix = mixture_of(153)
    return c.check_log_prob(lambda x: log_joint(x, *mix).max(1), Mixture(*mix), x)


@wrong("score: mixing weights in place of responsibilities", "weights", "responsib", "w_k", "prior", "posterior")
def _():
    x, w, m, C = mixture_of(154)
    pull = lambda x: np.einsum("kde,nke->nkd", np.linalg.inv(C), x[:, None] - m)  # noqa: E731
    return c.check_score(lambda x: -np.einsum("k,nkd->nd", w, pull(x)), Mixture(w, m, C), x)


@wrong("score: the whitened difference L⁻¹(x − m)", "Cholesky", "L⁻¹", "whiten", "root", "standard deviation", "C⁻¹")
def _():
    x, w, m, C = mixture_of(155)

    def score(x):
        pull = np.einsum("kde,nke->nkd", np.linalg.inv(np.linalg.cholesky(C)), x[:, None] - m)
        return -np.einsum("nk,nkd->nd", e_step(x, w, m, C), pull)

    return c.check_score(score, Mixture(w, m, C), x)


def matching_case(seed, denoising=None, implicit=None, sliced=None):
    _, *mix = mixture_of(seed)
    return c.check_score_matching(
        denoising or (lambda s, e, b: ((s + e / b) ** 2).sum(1)),
        implicit or (lambda s, d: (s**2).sum(1) + 2 * d),
        sliced or (lambda s, v, u: (s * v).sum(1) ** 2 + 2 * (v * u).sum(1)),
        Mixture(*mix),
        0.7,
        0.6,
        lambda x: -0.7 * x + 0.2 * np.sin(x),
        lambda x: (-0.7 + 0.2 * np.cos(x)).sum(1),
    )


@wrong("score_matching: target −ε/std² of an unscaled noise", "std²", "squared", "ε/std", "−ε", "target", "noise")
def _():
    return matching_case(157, denoising=lambda s, e, b: ((s + e / b**2) ** 2).sum(1))


@wrong("score_matching: sliced with Σ ∇s v, not vᵀ∇s v", "v ·", "v·", "dot", "direction", "project", "vᵀ")
def _():
    return matching_case(158, sliced=lambda s, v, u: (s * v).sum(1) ** 2 + 2 * u.sum(1))


BOUND_SDE, SLOPE, T_MIN = VP(0.2, 7.0, 1.4), 0.6, 0.02


def continuous_case(prior=None, diffusion=None, start=None):
    sde = BOUND_SDE
    a0, b0 = sde.level(T_MIN)
    a1, b1 = sde.level(sde.horizon)
    width = float(sde.log_snr(T_MIN) - sde.log_snr(sde.horizon))

    def right_prior(x0):
        v = float(sde.std(sde.horizon)) ** 2
        return 0.5 * ((a1 * x0) ** 2 / v + b1**2 / v - 1 - np.log(b1**2 / v)).sum(1)

    def right_diffusion(x0, t, e):
        a, b = sde.marginal(t)
        x = a[:, None] * x0 + b[:, None] * e
        return 0.5 * width * ((e - SLOPE * x) ** 2).sum(1)

    def right_start(x0, e):
        return 0.5 * (e**2 + np.log(2 * np.pi * (b0 / a0) ** 2)).sum(1)

    return c.check_continuous_bound(
        prior or right_prior,
        diffusion(width) if diffusion else right_diffusion,
        start(a0, b0) if start else right_start,
        sde,
        T_MIN,
        SLOPE,
        rng(160).normal(size=(3, 2)),
    )


@wrong(
    "continuous_bound: the range of log(scale/std), half of that of the log-SNR",
    "½",
    "half",
    "log-SNR",
    "factor",
    "range",
)
def _():
    def diffusion(width):
        def loss(x0, t, e):
            a, b = BOUND_SDE.marginal(t)
            return 0.25 * width * ((e - SLOPE * (a[:, None] * x0 + b[:, None] * e)) ** 2).sum(1)

        return loss

    return continuous_case(diffusion=diffusion)


@wrong("continuous_bound: x_0 given x_t with std in place of std/scale", "scale", "std/scale", "log scale")
def _():
    return continuous_case(start=lambda a, b: lambda x0, e: 0.5 * (e**2 + np.log(2 * np.pi * b**2)).sum(1))


MATRIX = rng(161).normal(size=(3, 3))


def curved(x):
    return np.tanh(x @ MATRIX) + 0.3 * x


def curved_jacobian(x):
    """∂ε̂_d/∂x_e, (N, d, e)."""
    return (1 - np.tanh(x @ MATRIX) ** 2)[:, :, None] * MATRIX.T + 0.3 * np.eye(3)


@wrong(
    "divergence: the exact one as the sum over the whole Jacobian",
    "trace",
    "sum of all",
    "off-diagonal",
    "whole",
    "ones",
    "Jacobian",
)
def _():
    std, x = 0.7, rng(162).normal(size=(4, 3))

    def both(x, v):
        J = -curved_jacobian(x) / std
        div = J.sum((1, 2)) if v is None else np.einsum("pnd,nde,pne->pn", v, J, v).mean(0)
        return -curved(x) / std, div

    return c.check_divergence(both, curved, std, x, rng(163).choice([-1.0, 1.0], (5, 4, 3)))


@wrong("divergence: Hutchinson summed over the probes", "sum", "mean", "probes", "number", "times")
def _():
    std, x = 1.3, rng(164).normal(size=(4, 3))

    def both(x, v):
        J = -curved_jacobian(x) / std
        div = np.einsum("ndd->n", J) if v is None else np.einsum("pnd,nde,pne->n", v, J, v)
        return -curved(x) / std, div

    return c.check_divergence(both, curved, std, x, rng(165).normal(size=(4, 4, 3)))


def legendre(a, b, n=60):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return a + (b - a) * (nodes + 1) / 2, weights * (b - a) / 2


@wrong("kl_bound: weighted by std², the training weights", "std²", "g²", "weight")
def _():
    sde = VP(0.1, 5.0, 2.0)

    def bound(error, prior_kl):
        t, w = legendre(0, sde.horizon)
        return 0.5 * sum(v * float(sde.std(u)) ** 2 * error(u) for u, v in zip(t, w, strict=True)) + prior_kl

    return c.check_kl_bound(bound, sde, *gaussians(166, 2))


@wrong("kl_bound: the root of the error integral", "root", "squared", "square")
def _():
    sde = VP(0.3, 4.0, 1.5)

    def bound(error, prior_kl):
        t, w = legendre(0, sde.horizon)
        total = sum(v * float(sde.diffusion(u)) ** 2 * error(u) for u, v in zip(t, w, strict=True))
        return np.sqrt(0.5 * total) + prior_kl

    return c.check_kl_bound(bound, sde, *gaussians(167, 2))


def log_prob_bound(sde, drop_f=False, at_mean=False):
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()

    def bound(both, prior_log_prob, x):
        times, steps = legendre(0, 1, 40)
        times, steps, total = sde.horizon * times**2, 2 * sde.horizon * times * steps, 0.0
        for t, h in zip(times, steps, strict=True):
            a, b = sde.level(t)
            points = (a * x[:, None] + b * nodes[:, None]).reshape(-1, 1)
            s, div = both(points, t)
            f = 0.0 if drop_f else float(sde.rate(t))
            value = float(sde.diffusion(t)) ** 2 * ((s**2).sum(1) + 2 * div) - 2 * f
            total = total - 0.5 * h * value.reshape(len(x), -1) @ weights
        a, b = sde.level(sde.horizon)
        if at_mean:
            return total + prior_log_prob(a * x)
        return (
            total + prior_log_prob((a * x[:, None] + b * nodes[:, None]).reshape(-1, 1)).reshape(len(x), -1) @ weights
        )

    return bound


LINE = Mixture([0.4, 0.6], [[-1.0], [1.2]], [[[0.3]], [[0.5]]])


@wrong("log_prob_bound: without the divergence of the drift", "div f", "drift", "2 div f")
def _():
    sde = VP(0.1, 6.0, 1.2)
    return c.check_log_prob_bound(log_prob_bound(sde, drop_f=True), sde, LINE, np.array([[-0.8], [0.1], [1.5]]))


@wrong("log_prob_bound: log π at the mean of x_T", "mean", "x_T", "prior", "variance", "scale")
def _():
    sde = VP(0.2, 3.0, 1.5)
    return c.check_log_prob_bound(log_prob_bound(sde, at_mean=True), sde, LINE, np.array([[-1.0], [0.4]]))


def exact_flow(sde, law, sign=1.0, prior=None, n=80):
    def log_prob(x):
        total = 0.0

        def slope(x, t):
            now = law.diffuse(*sde.level(t))
            g2, f = float(sde.diffusion(t)) ** 2, float(sde.rate(t))
            trace = np.einsum("ndd->n", now.score_jacobian(x))
            return f * x - 0.5 * g2 * now.score(x), x.shape[1] * f - 0.5 * g2 * trace

        for t, u in pairwise(sde.horizon * np.linspace(0, 1, n + 1) ** 2):
            h = u - t
            a, da = slope(x, t)
            b, db = slope(x + h / 2 * a, t + h / 2)
            d, dd = slope(x + h / 2 * b, t + h / 2)
            e, de = slope(x + h * d, u)
            x, total = x + h / 6 * (a + 2 * b + 2 * d + e), total + h / 6 * (da + 2 * db + 2 * dd + de)
        end = law.diffuse(*sde.level(sde.horizon)).log_prob(x) if prior is None else gauss(x, 0.0, prior)
        return end + sign * total

    return log_prob


@wrong("probability_flow_likelihood: log-determinant subtracted", "sign", "minus", "divergence", "subtract")
def _():
    sde = VP(0.1, 5.0, 1.0)
    return c.check_probability_flow_likelihood(exact_flow(sde, LINE, sign=-1.0), LINE, np.array([[-0.5], [1.0]]), sde)


@wrong("probability_flow_likelihood: N(0, I) after a short process", "prior", "N(0", "p_T", "π")
def _():
    sde = VP(0.1, 2.0, 1.0)
    return c.check_probability_flow_likelihood(exact_flow(sde, LINE, prior=1.0), LINE, np.array([[-0.5], [1.0]]), sde)


def reverse_moments(integral, noise=1.0, start=1.0, dim=2):
    def moments(score):
        shift = score(np.zeros((1, dim)), 0.5)[0]
        A = (score(np.eye(dim), 0.5) - shift)[0, 0] + 0.5
        grow = np.expm1(2 * A * integral) / (2 * A)
        var = start * np.exp(2 * A * integral) + noise * grow
        return shift * np.expm1(A * integral) / A, var * np.eye(dim)

    return moments


@wrong("reverse_law: noise √2 as in Langevin dynamics", "noise", "√2", "twice", "g²", "variance")
def _():
    return c.check_reverse_law(reverse_moments(4.0, noise=2.0), 4.0, 0.3)


@wrong("reverse_law: all samples start at 0", "start", "prior", "N(0, I)", "variance")
def _():
    return c.check_reverse_law(reverse_moments(2.5, start=0.0), 2.5, -0.2)


# Networks and training


def layers_of(seed, sizes):
    draw = rng(seed)
    return [(draw.normal(size=(m, n)) / np.sqrt(m), 0.3 * draw.normal(size=n)) for m, n in pairwise(sizes)]


def silu(z):
    return z * expit(z)


@wrong("mlp: bias added after the activation", "bias", "after the activation", "order", "b after")
def _():
    layers = layers_of(170, (3, 6, 5, 2))

    def call(x):
        for W, b in layers[:-1]:
            x = np.tanh(x @ W) + b
        return x @ layers[-1][0] + layers[-1][1]

    return c.check_mlp(call, layers, rng(171).normal(size=(4, 3)), "tanh")


@wrong("mlp: LeakyReLU of slope 0.01 for ReLU", "leaky", "Leaky", "slope", "0.01", "negative")
def _():
    layers = layers_of(172, (4, 7, 3))

    def call(x):
        z = x @ layers[0][0] + layers[0][1]
        return np.where(z > 0, z, 0.01 * z) @ layers[1][0] + layers[1][1]

    return c.check_mlp(call, layers, rng(173).normal(size=(6, 4)), "relu")


def jvp_case(seed, slope, bias=0.0):
    (W, b), (V, d) = layers_of(seed, (3, 6, 2))

    def jvp(x, v):
        z = x @ W + b
        return silu(z) @ V + d, (slope(z) * (v @ W)) @ V + bias * d

    x, v = batch(seed + 1)
    return c.check_jvp(jvp, lambda x: silu(x @ W + b) @ V + d, x, v)


def silu_slope(z):
    return expit(z) * (1 + z * expit(-z))


@wrong("jvp: the tangent goes through the affine layer with its bias", "bias", "constant", "offset")
def _():
    return jvp_case(174, silu_slope, bias=1.0)


@wrong("jvp: the derivative of the sigmoid for SiLU's", "sigmoid", "SiLU", "activation", "slope", "s (1 − s)")
def _():
    return jvp_case(176, lambda z: expit(z) * expit(-z))


@wrong("activation: the slope as σ(z) + z σ'(−z)²", "slope", "derivative", "squared", "s²", "(1 − s)")
def _():
    z = np.linspace(-6, 6, 25)
    return c.check_activation(silu, lambda z: (silu(z), expit(z) + z * expit(-z) ** 2), z)


@wrong("activation: swish with β = 1.702, for GELU", "1.702", "GELU", "gelu", "sigmoid")
def _():
    z = np.linspace(-5, 5, 21)
    k = 1.702
    return c.check_activation(
        lambda z: z * expit(k * z), lambda z: (z * expit(k * z), expit(k * z) * (1 + k * z * expit(-k * z))), z
    )


def noise_net_case(seed, **change):
    draw = rng(seed)
    M = draw.normal(size=(60, 3)) / 3
    mlp = lambda h: np.tanh(h @ M[: h.shape[1]])  # noqa: E731
    x, std = draw.normal(size=(4, 3)), draw.uniform(0.3, 0.9, 4)
    scale, labels = np.sqrt(1 - 0.8 * std**2), np.eye(2)[[0, 1, 1, 0]]

    def eps_hat(x, scale, std):
        a, b = np.broadcast_to(scale, len(x)), np.broadcast_to(std, len(x))
        r = np.hypot(a, b)
        net = mlp
        if "raw" in change:
            net = lambda h: mlp(np.concatenate([h[:, :3] * r[:, None], h[:, 3:]], axis=1))  # noqa: E731
        options = {"log_snr": change["log_snr"]} if "log_snr" in change else {}
        pair = (b / r, a / r) if "skip" in change else (b / r**2, a / r)
        return printed_noise(net, x, a, b, 4, labels, coefficients=pair, **options)

    return c.check_noise_network(eps_hat, mlp, x, scale, std, 4, labels)


@wrong("noise_network: skip std/r", "skip", "r²", "1/r", "squared", "std/r")
def _():
    return noise_net_case(180, skip=True)


@wrong("noise_network: x not divided by r before the network", "x/r", "input", "scaled", "divid")
def _():
    return noise_net_case(181, raw=True)


def denoiser_case(seed, prior=True, mode=False):
    draw = rng(seed)
    L, D, N = 4, 2, 3
    levels, h, F = np.linspace(-1, 1, L), draw.dirichlet(np.full(L, 2.0), D), draw.normal(size=(D, 4)) / 2
    std, x = draw.uniform(0.3, 0.8, N), draw.normal(size=(N, D))
    scale = np.sqrt(1 - std**2)
    basis = np.stack([np.arange(L) == 0, np.arange(L) == L - 1, levels, levels**2]).astype(float)

    def law():
        fit = -0.5 * ((x[:, :, None] - scale[:, None, None] * levels) / std[:, None, None]) ** 2
        logits = fit + F @ basis + (np.log(h) if prior else 0.0)
        return np.exp(logits - logsumexp(logits, axis=2, keepdims=True))

    def eps_hat():
        p = law()
        x0 = levels[p.argmax(2)] if mode else p @ levels
        return (x - scale[:, None] * x0) / std[:, None]

    mlp = lambda h: np.tile(F.ravel(), (len(h), 1))  # noqa: E731
    covariance = np.diag((h @ levels**2) - (h @ levels) ** 2)
    return c.check_categorical_denoiser(law, eps_hat, mlp, x, scale, std, h, covariance, 3, np.eye(2)[[0, 1, 0]])


@wrong("categorical_denoiser: all levels alike before the data", "histogram", "h_k", "prior", "uniform", "P(level)")
def _():
    return denoiser_case(182, prior=False)


@wrong("categorical_denoiser: ε̂ from the most likely level", "mode", "argmax", "most likely", "largest", "mean")
def _():
    return denoiser_case(183, mode=True)


LAW = rng(184).dirichlet(np.full(4, 2.0), (3, 2))


@wrong("categorical_draw: one uniform number for a row", "one number", "same", "row", "shared", "first", "other")
def _():
    return c.check_categorical_draw(lambda u: (u[:, :1, None] > np.cumsum(LAW, 2)[:, :, :-1]).sum(2), LAW)


@wrong("categorical_draw: temperature ½", "temperature", "squared", "power", "sharp", "P²")
def _():
    sharp = LAW**2 / (LAW**2).sum(2, keepdims=True)
    return c.check_categorical_draw(lambda u: (u[:, :, None] > np.cumsum(sharp, 2)[:, :, :-1]).sum(2), LAW)


DESIGN, TARGET = rng(185).normal(size=(10, 4)), rng(186).normal(size=10)


@wrong("gradient: without the penalty ½λ‖θ‖² of the loss", "penalty", "missing", "weight decay", "parameter")
def _():
    return c.check_gradient(
        lambda p: ((DESIGN @ p - TARGET) ** 2).mean() + 0.05 * (p**2).sum(),
        lambda p: 2 * DESIGN.T @ (DESIGN @ p - TARGET) / 10,
        rng(187).normal(size=4),
        np.eye(4),
    )


@wrong("gradient: a detached standard deviation in a normalised loss", "detach", "missing", "parameter", "part of")
def _():
    def loss(p):
        y = DESIGN @ p
        return ((y / y.std() - TARGET) ** 2).mean()

    def gradient(p):
        y = DESIGN @ p
        return 2 * DESIGN.T @ (y / y.std() - TARGET) / (10 * y.std())

    return c.check_gradient(loss, gradient, rng(188).normal(size=4), np.eye(4))


@wrong("loss_gradient: derivatives clipped to 1", "clip", "[−1, 1]", "limit", "at most")
def _():
    at, target = batch(189)
    at = 3 * at
    return c.check_loss_gradient(
        lambda y: (((y - target) ** 2).sum(1), np.clip(2 * (y - target), -1, 1)),
        lambda y: (y * y - 2 * y * target + target * target).sum(1),
        at,
    )


@wrong("loss_gradient: the derivative of the mean over D beside a sum", "mean", "1/D", "divided", "dimension")
def _():
    at, target = batch(191)
    return c.check_loss_gradient(
        lambda y: (((y - target) ** 2).sum(1), 2 * (y - target) / y.shape[1]),
        lambda y: (y * y - 2 * y * target + target * target).sum(1),
        at,
    )


def example_losses(p):
    return np.log1p((DESIGN @ p - TARGET) ** 2)


def example_gradients(p):
    d = DESIGN @ p - TARGET
    return (2 * d / (1 + d**2))[:, None] * DESIGN


@wrong("training_step: weights normalised to mean 1", "weight", "normal", "mean", "sum of the weights", "factor")
def _():
    w = rng(193).uniform(0.2, 3, 10)
    return c.check_training_step(
        lambda p: (example_losses(p), (w / w.mean()) @ example_gradients(p) / 10),
        example_losses,
        rng(194).normal(size=4) + 2,
        w,
    )


@wrong("training_step: gradient clipped to norm 0.1", "norm", "clip", "length")
def _():
    def step(p):
        g = example_gradients(p).mean(0)
        return example_losses(p), g * min(1, 0.1 / np.linalg.norm(g))

    return c.check_training_step(step, example_losses, np.array([1.5, -1.2, 0.8, 1.1]))


def batch_loss(p, n):
    d = DESIGN[n : n + 4] @ p - TARGET[n : n + 4]
    return (d**2).mean()


def batch_gradient(p, n):
    return 2 * DESIGN[n : n + 4].T @ (DESIGN[n : n + 4] @ p - TARGET[n : n + 4]) / 4


def adam(p, gradients, rates, decay=0.0, top=False, l2=0.0, correct=True, beta2=0.999):
    """Adam as a generator of parameters; `gradients(p, n)`."""
    m, v, most = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for n, rate in enumerate(rates):
        g = gradients(p, n) + l2 * p
        m, v = 0.9 * m + 0.1 * g, beta2 * v + (1 - beta2) * g * g
        most = np.maximum(most, v) if top else v
        power = n + 1
        hat = most / (1 - beta2**power) if correct else most
        p = p * (1 - rate * decay) - rate * m / (1 - 0.9**power) / (np.sqrt(hat) + 1e-8)
        yield p


def cosine_rates(n, rate, warmup=0):
    s = np.arange(n)
    fall = 0.5 * (1 + np.cos(np.pi * (s - warmup) / (n - warmup)))
    return rate * np.where(s < warmup, (s + 1) / max(warmup, 1), fall)


@wrong(
    "training: gradients of all earlier batches kept (no zero_grad)",
    "accumul",
    "sum of",
    "zero_grad",
    "earlier",
    "previous",
)
def _():
    def train(p):
        losses, total = [], np.zeros_like(p)

        def gradients(p, n):
            losses.append(batch_loss(p, n))
            total[:] += batch_gradient(p, n)
            return total.copy()

        *_, last = adam(p, gradients, cosine_rates(6, 0.05))
        return losses, last, last

    return c.check_training(train, batch_loss, np.array([0.5, -0.3, 0.8, 0.2]), 6, 0.05)


@wrong(
    "training: losses after the update, not before it",
    "after",
    "update",
    "next",
    "shift",
    "one step",
    "off by one",
    "late",
)
def _():
    def train(p):
        path = list(adam(p, batch_gradient, cosine_rates(6, 0.1, 2)))
        return [batch_loss(q, n) for n, q in enumerate(path)], path[-1], path[-1]

    return c.check_training(train, batch_loss, np.array([0.5, -0.3, 0.8, 0.2]), 6, 0.1, warmup=2)


GRADIENTS = rng(196).normal(size=(8, 3)) * np.array([3.0, 0.5, 0.1]) * np.linspace(2, 0.3, 8)[:, None]


@wrong("adam: AMSGrad, the largest second moment so far", "AMSGrad", "amsgrad", "max", "largest")
def _():
    def run(p, g):
        return np.stack(list(adam(p, lambda p, n: g[n], [0.001] * len(g), top=True, beta2=0.9)))

    return c.check_adam(run, rng(197).normal(size=3), GRADIENTS, beta2=0.9)


@wrong("adam: only the first moment corrected", "bias correction", "correct", "v̂", "second moment", "1 − β₂")
def _():
    def run(p, g):
        return np.stack(list(adam(p, lambda p, n: g[n], [0.001] * len(g), correct=False)))

    return c.check_adam(run, rng(199).normal(size=3), GRADIENTS)


@wrong(
    "learning_rate: the cosine starts at step 0, under the rise",
    "warmup",
    "warm-up",
    "(step − warmup)",
    "offset",
    "step 0",
    "from 0",
)
def _():
    def rate(step):
        return 0.002 * (min((step + 1) / 10, 1) if step < 10 else 0.5 * (1 + np.cos(np.pi * step / 100)))

    return c.check_learning_rate(rate, 100, 0.002, 10)


@wrong("learning_rate: eta_min of a tenth", "floor", "0.1", "minimum", "least", "10 %", "not 0", "eta_min")
def _():
    table = cosine_rates(60, 1.0, 6)
    table[6:] = 0.1 + 0.9 * table[6:]
    return c.check_learning_rate(lambda step: 0.01 * table[step], 60, 0.01, 6)


def averages(start, values, decays, keep=1.0):
    out, now = [], keep * start
    for value, d in zip(values, decays, strict=True):
        now = d * now + (1 - d) * value
        out.append(now)
    return np.stack(out)


@wrong(
    "moving_average: decay of step k − 1 (the count rises after the update)",
    "k − 1",
    "k = 0",
    "off by one",
    "shift",
    "previous",
    "one step",
    "k/(9",
)
def _():
    k = np.arange(20)
    return c.check_moving_average(
        lambda start, p: averages(start, p, np.minimum(0.9, (1 + k) / (10 + k))),
        rng(200).normal(size=4),
        rng(201).normal(size=(20, 4)),
        0.9,
    )


@wrong(
    "moving_average: the average trails the parameters by a step",
    "previous",
    "one step",
    "late",
    "lag",
    "before",
    "off by one",
    "last",
)
def _():
    k = np.arange(1, 16)

    def average(start, p):
        return averages(start, np.concatenate([start[None], p[:-1]]), np.minimum(0.99, (1 + k) / (10 + k)))

    return c.check_moving_average(average, rng(202).normal(size=4), rng(203).normal(size=(15, 4)), 0.99)


# Beyond the deck


def edm(sigma, d=0.5):
    total = sigma**2 + d**2
    return d**2 / total, sigma * d / np.sqrt(total), 1 / np.sqrt(total), total / (sigma * d) ** 2


@wrong("edm_coefficients: weight with the sum of σ and σ_data below", "σ + ", "sum", "product", "σ_data", "(σ")
def _():
    return c.check_edm_coefficients(lambda s: (*edm(s)[:3], (s**2 + 0.25) / (s + 0.5) ** 2))


@wrong("edm_coefficients: c_skip for data of standard deviation 1", "σ_data", "data_std", "standard deviation 1", "0.5")
def _():
    return c.check_edm_coefficients(lambda s: (1 / (1 + s**2), *edm(s)[1:]))


@wrong("sigma_grid: i/n, so that the last level is above sigma_min", "n − 1", "i/n", "n-1", "last", "sigma_min")
def _():
    def grid(n, low, high, rho):
        u = np.arange(n) / n
        return (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho

    return c.check_sigma_grid(grid)


@wrong("sigma_grid: even in log σ, whatever ρ", "log", "geometric", "ρ")
def _():
    return c.check_sigma_grid(lambda n, low, high, rho: np.geomspace(high, low, n))


def two_m(x, x0, last, levels, invert=False, twice=1.0):
    lam = twice * np.log(levels[:, 0] / levels[:, 1])
    h_last, h = lam[1] - lam[0], lam[2] - lam[1]
    ratio = h_last / h if invert else h / h_last
    return levels[2, 1] / levels[1, 1] * x - levels[2, 0] * np.expm1(-h) * (x0 + ratio / 2 * (x0 - last))


@wrong("exponential_step: the ratio of the steps upside down", "ratio", "inverse", "h′/h", "upside", "1/r", "h′")
def _():
    return c.check_exponential_step(lambda x, a, b, levels, z: two_m(x, a, b, levels, invert=True))


@wrong("exponential_step: λ as the log-SNR", "log-SNR", "2h", "twice", "factor", "scale²")
def _():
    return c.check_exponential_step(lambda x, a, b, levels, z: two_m(x, a, b, levels, twice=2.0))


PLANE = Mixture([0.5, 0.5], [[-1.0, 0.3], [0.9, -0.4]], [0.3 * np.eye(2), 0.2 * np.eye(2)])


@wrong(
    "flow_order: 2M keeps x̂_0 of the first step as the last one",
    "order 0",
    "not converge",
    "previous",
    "extrapol",
    "last x̂_0",
)
def _():
    def sample(denoise, x, levels):
        first = None
        for i in range(len(levels) - 1):
            x0 = denoise(x, *levels[i])
            first = x0 if first is None else first
            before = levels[i - 1] if i else levels[i] * [0.9, 1.0]
            x = two_m(x, x0, first, np.stack([before, levels[i], levels[i + 1]]))
        return x

    return c.check_flow_order(sample, PLANE)


@wrong(
    "weak_order: noise of DDIM's η = 1 on the mean of η = 0",
    "order 0",
    "does not converge",
    "variance",
    "noise",
    "not converge",
)
def _():
    def sample(denoise, x, levels, noise):
        for i in range(len(levels) - 1):
            (a, b), (a1, b1) = levels[i], levels[i + 1]
            x0 = denoise(x, a, b)
            sigma = b1 / b * np.sqrt(1 - (a / a1) ** 2)
            x = a1 * x0 + b1 / b * (x - a * x0) + sigma * noise[i]
        return x

    return c.check_weak_order(sample, np.array([0.5, -0.2]), np.array([[0.8, 0.2], [0.2, 0.5]]))


@wrong(
    "ddim_inversion: tables of s and t exchanged", "exchanged", "swapped", "s and t", "t and s", "place of", "direction"
)
def _():
    s = LINEAR

    def inverse(u, t, x, e):
        return s.alpha_bar[u] * (x - s.beta_bar[t] * e) / s.alpha_bar[t] + s.beta_bar[u] * e

    return c.check_ddim_inversion(lambda u, t, *a: inverse(int(u), int(t), *a), s)


@wrong("ddim_inversion: factor β̄_t − β̄_s of ε̂", "ᾱ_t/ᾱ_s", "ratio", "β̄_t − β̄_s", "without", "β̄_s")
def _():
    s = COSINE

    def inverse(u, t, x, e):
        return s.alpha_bar[t] / s.alpha_bar[u] * x + (s.beta_bar[t] - s.beta_bar[u]) * e

    return c.check_ddim_inversion(lambda u, t, *a: inverse(int(u), int(t), *a), s)


TIMES = np.array([0.2, 0.5, 0.8])


@wrong("flow_velocity: the target of a process that runs to the data", "sign", "minus", "direction", "−1", "negative")
def _():
    return c.check_flow_velocity(lambda x0, e, t: x0 - e, lambda t: (1 - t, t), PLANE, TIMES)


@wrong("flow_velocity: ε − x_0 on a circular path", "straight", "linear", "derivative", "ε − x_0", "rectified", "ε − x")
def _():
    return c.check_flow_velocity(
        lambda x0, e, t: e - x0, lambda t: (np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)), PLANE, TIMES
    )


@wrong("fokker_planck: the drift of the flow with the noise of the SDE", "½", "λ²", "g²", "flow", "noise")
def _():
    sde = VP(0.1, 6.0, 1.0)

    def drift(x, t):
        return sde.drift(x, t) - 0.5 * float(sde.diffusion(t)) ** 2 * PLANE.diffuse(*sde.level(t)).score(x)

    return c.check_fokker_planck(drift, sde.diffusion, sde.level, PLANE, TIMES)


@wrong("fokker_planck: f = scale′, not scale′/scale", "scale", "a′", "divid", "rate")
def _():
    def level(t):
        return 1 - t, t

    def drift(x, t):
        g2 = 2 * t * (1 + t / (1 - t))
        return -x - g2 * PLANE.diffuse(*level(t)).score(x)

    return c.check_fokker_planck(drift, lambda t: np.sqrt(2 * t * (1 + t / (1 - t))), level, PLANE, TIMES)


LEVELS = np.array([[0.9, 0.4], [0.5, 0.8]])


@wrong("tilted_score: p(y | k)^w in the mixing weights", "weights", "component", "p(y | k)", "power", "mixture")
def _():
    label = np.array([0.2, 0.9])

    def score(x, a, b, w):
        tilted = PLANE.weights * label**w
        return Mixture(tilted / tilted.sum(), PLANE.means, PLANE.covariances).diffuse(a, b).score(x)

    return c.check_tilted_score(score, PLANE, label, LEVELS)


@wrong("tweedie_covariance: std, not std², before the Hessian", "std²", "squared", "b²")
def _():
    def covariance(x, a, b):
        return (b / a) ** 2 * (np.eye(2) + b * PLANE.diffuse(a, b).score_jacobian(x))

    return c.check_tweedie_covariance(covariance, PLANE, LEVELS)


@wrong("tweedie_covariance: second moment E x_0 x_0ᵀ, not centred", "second moment", "centred", "mean", "x̂_0 x̂_0ᵀ")
def _():
    def covariance(x, a, b):
        x0 = PLANE.denoise(x, a, b)
        right = (b / a) ** 2 * (np.eye(2) + b**2 * PLANE.diffuse(a, b).score_jacobian(x))
        return right + x0[:, :, None] * x0[:, None]

    return c.check_tweedie_covariance(covariance, PLANE, LEVELS)


@wrong(
    "conservative_score: a triangular factor in place of the precision",
    "asymmetr",
    "symmetric",
    "gradient",
    "curl",
    "triang",
    "Cholesky",
)
def _():
    law = Mixture([1.0], [[0.2, -0.5]], [[[1.0, 0.6], [0.6, 0.8]]])
    factor = np.linalg.inv(np.linalg.cholesky(law.covariances[0]))
    return c.check_conservative_score(lambda x: -(x - law.means[0]) @ factor.T, law)


def rate_case(power=2, under_q=False):
    sde, p, q = VP(0.2, 4.0, 1.0), LINE, Mixture([1.0], [[0.3]], [[[0.8]]])
    grid = np.linspace(-9, 9, 2001)[:, None]

    def rate(t):
        a, b = p.diffuse(*sde.level(t)), q.diffuse(*sde.level(t))
        weight = np.exp((b if under_q else a).log_prob(grid)) * 0.009
        return -0.5 * float(sde.diffusion(t)) ** power * (weight * ((a.score(grid) - b.score(grid)) ** 2).sum(1)).sum()

    return c.check_kl_rate(rate, sde, p, q, TIMES)


@wrong("kl_rate: the mean under q_t", "q_t", "under q", "E_q", "expectation", "mean")
def _():
    return rate_case(under_q=True)


@wrong("kl_rate: g in place of g²", "g²", "square")
def _():
    return rate_case(power=1)


@wrong("mutual_information: d(log-SNR) from log(scale/std)", "½", "half", "factor", "log-SNR", "twice")
def _():
    def information(sde, loss, t_min):
        lam = np.linspace(float(sde.log_snr(sde.horizon)), float(sde.log_snr(t_min)), 41)
        values = np.array([loss(float(sde.time_at(v))) for v in lam])
        return 0.25 * np.trapezoid(values, lam)

    return c.check_mutual_information(information, [(VP(0.1, 6.0), 0.05), (VE(0.1, 8.0), 0.1)], [LINE]).at(1e-3)


@wrong("dequantisation: noise on [−½, ½)", "½", "0.5", "centre", "shift")
def _():
    nodes, weights = legendre(-0.5, 0.5, 12)
    return dequantised(nodes, weights)


@wrong("dequantisation: the mass of a cell as the density at its middle", "middle", "midpoint", "centre", "density at")
def _():
    return dequantised(*legendre(0, 1, 12), middle=True)


def dequantised(nodes, weights, middle=False):
    u = np.array(list(product(nodes, nodes)))
    w = np.prod(list(product(weights, weights)), axis=1)

    def cost(log_prob, k):
        values = np.stack([log_prob(k[i] + u) for i in range(len(k))])
        mass = log_prob(k + 0.5) if middle else logsumexp(values, b=w, axis=1)
        return mass - values @ w

    return c.check_dequantisation(cost, np.array([0.4, -0.3]), np.array([1.2, 1.7]))


@wrong("data_processing: the last step of the sampler without noise", "last", "noise", "t = 1", "variance", "no noise")
def _():
    def density(eps_hat, var):
        s, mean, spread = LINEAR, 0.0, 1.0
        for t in range(s.T, 0, -1):
            shift, slope = float(eps_hat(np.zeros((1, 1)), t)[0, 0]), 0.0
            slope = float(eps_hat(np.ones((1, 1)), t)[0, 0]) - shift
            gain = s.beta[t] ** 2 / s.beta_bar[t]
            mean = (mean - gain * (shift + slope * mean)) / s.alpha[t]
            spread = spread * ((1 - gain * slope) / s.alpha[t]) ** 2 + (var[t] if t > 1 else 0.0)
        points = np.linspace(mean - 10 * np.sqrt(spread), mean + 10 * np.sqrt(spread), 2001)
        return points, norm.pdf(points, mean, np.sqrt(spread))

    return c.check_data_processing(density, LINEAR)


def discrete_elbo(schedule, x0, eps_hat, var, n, opened=True, prior=True):
    s = schedule
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    e = np.array(list(product(nodes, nodes)))
    w = np.prod(list(product(weights, weights)), axis=1) / weights.sum() ** 2
    last, step, _ = bound_parts(s, var)
    out = -last(x0) if prior else np.zeros(len(x0))
    for i, x in enumerate(x0):
        many = np.repeat(x[None], len(e), axis=0)
        for t in range(2, s.T + 1):
            out[i] -= w @ step(t, many, s.alpha_bar[t] * many + s.beta_bar[t] * e, eps_hat)
        x_1 = s.alpha_bar[1] * many + s.beta_bar[1] * e
        gap, half, std = many - ancestral(s, 1, x_1, eps_hat(x_1, 1)), 1 / (n - 1), np.sqrt(var[1])
        upper, lower = ndtr((gap + half) / std), ndtr((gap - half) / std)
        if opened:
            upper, lower = np.where(many > 0.99, 1.0, upper), np.where(many < -0.99, 0.0, lower)
        out[i] += w @ np.log(np.maximum(upper - lower, 1e-300)).sum(1)
    return out


@wrong("discrete_bound: bounded bins at both ends", "open", "edge", "first and last", "infinity", "tails", "bounded")
def _():
    return c.check_discrete_bound(lambda *a: discrete_elbo(*a, opened=False)).at(1e-4)


@wrong("discrete_bound: without L_T", "L_T", "prior")
def _():
    return c.check_discrete_bound(lambda *a: discrete_elbo(*a, prior=False)).at(1e-4)
