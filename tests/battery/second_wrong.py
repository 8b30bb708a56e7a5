"""Second battery: code as people write and post it, each with one realistic mistake, for every check.

A coding is a function of a key: the empty key gives the right coding, and every other key one mistake.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import expm
from scipy.special import log_ndtr, logsumexp, ndtr

from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP, conformance
from scratchgen.conformance import Check
from scratchgen.nn import coordinate_features, time_features
from tests.battery.case import Wrong

FAMILIES: list[tuple[str, Any, dict[str, Any], tuple[Any, ...], bool]] = []


def family(check: str, coding: Callable[[str], dict[str, Any]], problem: dict[str, Any], *wrongs, slow=False) -> None:
    """Register the mistakes (key, name, words) of a coding for one check on one problem."""
    FAMILIES.append((check, coding, problem, wrongs, slow))


def run(check: str, coding: Callable[[str], dict[str, Any]], problem: dict[str, Any], key: str) -> Check:
    """Call the check on the coding with one mistake."""
    return getattr(conformance, f"check_{check}")(**coding(key), **problem)


def draws(seed: int, *shape: int) -> np.ndarray:
    """Fixed numbers that look normal."""
    return np.random.default_rng(seed).standard_normal(shape)


# -- DDPM, in the convention of Ho et al.: betas are variances, lists start at t = 1 ---------------------------------


class Ho:
    """Buffers of a GaussianDiffusion, index 0 is t = 1."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.betas = np.asarray(schedule.variances)
        self.alphas = 1 - self.betas
        self.ac = np.cumprod(self.alphas)
        self.ac_prev = np.append(1.0, self.ac[:-1])
        self.om = -np.expm1(np.cumsum(np.log1p(-self.betas)))
        self.om_prev = np.append(0.0, self.om[:-1])


LINEAR = NoiseSchedule.linear(12)
COSINE = NoiseSchedule.cosine(9)
SMALL = NoiseSchedule.from_variances(np.linspace(1e-4, 0.02, 40))
MIXED = NoiseSchedule.from_variances([0.05, 0.3, 0.12, 0.4, 0.22, 0.5])
BETA = {s: np.append(0.0, s.variances) for s in (LINEAR, COSINE, SMALL, MIXED)}


def schedule_tables(w):
    ho = Ho(SMALL)
    ac = ho.ac
    if w == "cumsum":
        ac = 1 - np.cumsum(ho.betas)
    prev = np.append(1.0, ac[:-1])
    om = 1 - np.clip(ac, 1e-9, 0.999) if w == "clip" else 1 - ac
    tilde = ho.betas * (1 - prev) / (1 - ac)
    alpha_bar = ac if w == "root" else np.sqrt(ac)
    beta_bar = om if w == "variance" else np.sqrt(om)
    if w == "one minus":
        beta_bar = 1 - np.sqrt(ac)
    tilde = np.sqrt(tilde)
    return {
        "alpha_bar": np.append(1.0, alpha_bar),
        "beta_bar": np.append(0.0, beta_bar),
        "beta_tilde": np.append(0.0, tilde),
    }


family(
    "schedule",
    schedule_tables,
    {"schedule": SMALL},
    ("root", "alphas_cumprod without its root", ("square", "root", "ᾱ_t²", "ᾱ²")),
    ("variance", "1 − ᾱ² without its root", ("square", "root", "variance", "β̄_t²", "β̄²")),
    ("cumsum", "1 − the sum of the betas in place of a product", ("sum", "product")),
    ("one minus", "noise 1 − ᾱ, as if the factors summed to 1", ("1 − ᾱ", "sum to 1", "linear")),
    ("clip", "alphas_cumprod clipped to 0.999 before 1 − ᾱ²", ("clip", "clamp", "limit", "small t", "first steps")),
)


def forward_step(w):
    ho = Ho(LINEAR)

    def q_step(t, x_prev, noise):
        b = ho.betas[t - 2] if w == "index" else ho.betas[t - 1]
        if w == "std":
            return np.sqrt(1 - b) * x_prev + b * noise
        if w == "alpha":
            return (1 - b) * x_prev + np.sqrt(b) * noise
        if w == "ve":
            return x_prev + np.sqrt(b) * noise
        return np.sqrt(1 - b) * x_prev + np.sqrt(b) * noise

    return {"q_step": q_step}


family(
    "forward_step",
    forward_step,
    {"schedule": LINEAR},
    ("std", "beta as the factor of the noise", ("variance", "square", "β_t²", "root")),
    ("alpha", "alpha without its root", ("square", "root", "α_t²", "1 − β_t²")),
    (
        "index",
        "betas[t-2]: the step before, and the last one at t = 1",
        ("t − 1", "t−1", "step before", "earlier", "index", "shift"),
    ),
    ("ve", "the state is not shrunk", ("α_t is missing", "shrink", "without α", "factor 1", "explod", "not scaled")),
)


def forward_process(w):
    ho = Ho(LINEAR)

    def q_sample(t, x0, noise):
        i = t - 1
        if w == "index":
            i = np.minimum(np.asarray(t), LINEAR.T - 1)
        if w == "share":
            noise = noise[:1]
        if w == "clip":
            x0 = np.clip(x0, -1, 1)
        signal = ho.ac[i] if w == "signal" else np.sqrt(ho.ac[i])
        spread = np.sqrt(ho.betas[i]) if w == "beta" else np.sqrt(ho.om[i])
        return signal * x0 + spread * noise

    return {"q_sample": q_sample}


family(
    "forward_process",
    forward_process,
    {"schedule": LINEAR},
    ("signal", "alphas_cumprod without its root before x_0", ("square", "root", "ᾱ_t²")),
    ("beta", "noise of one step in place of the total noise", ("β_t", "one step", "single step")),
    ("index", "tables from 0 read at t", ("t + 1", "t+1", "next", "later", "index", "shift")),
    ("share", "one noise for all examples", ("example", "shared", "same noise", "broadcast")),
    ("clip", "x_0 clipped to [-1, 1]", ("clip", "clamp", "[−1, 1]", "not linear")),
)


def posterior(w):
    ho = Ho(COSINE)
    prev, om_prev = ho.ac_prev.copy(), ho.om_prev.copy()
    if w == "first":
        prev[0], om_prev[0] = ho.ac[0], ho.om[0]
    c0 = np.sqrt(prev) * ho.betas / ho.om
    ct = np.sqrt(ho.alphas) * om_prev / ho.om
    if w == "swap":
        c0, ct = ct, c0
    if w == "root":
        c0 = prev * ho.betas / ho.om
    if w == "cumulated":
        ct = np.sqrt(ho.ac) * om_prev / ho.om
    variance = ho.betas * om_prev / ho.om
    if w == "std":
        variance = np.sqrt(variance)

    def q_posterior(t, x_t, x0):
        i = np.asarray(t).reshape(-1, 1) - 1 if np.ndim(t) else t - 1
        return c0[i] * x0 + ct[i] * x_t, variance[i]

    return {"q_posterior": q_posterior}


family(
    "posterior",
    posterior,
    {"schedule": COSINE},
    ("swap", "the coefficients of x_0 and x_t are exchanged", ("swap", "exchang", "interchang", "order")),
    ("root", "alphas_cumprod_prev without its root", ("ᾱ_{t−1}²", "square", "root")),
    ("cumulated", "alphas_cumprod for alphas before x_t", ("ᾱ_t", "cumul", "product")),
    ("std", "the standard deviation returned for the variance", ("standard deviation", "root", "β̃_t")),
    (
        "first",
        "alphas_cumprod_prev starts with alphas_cumprod[0]: wrong at t = 1 only",
        ("t = 1", "first step", "ᾱ_0", "x_0 itself"),
    ),
)


def noise_merging(w):
    s = MIXED

    def factors(t):
        b = s.beta[t] / s.beta_bar[t]
        a = s.alpha[t] * s.beta_bar[t - 1] / s.beta_bar[t]
        if w == "alpha":
            a = s.beta_bar[t - 1] / s.beta_bar[t]
        if w == "sum":
            a, b = a / (a + b), b / (a + b)
        return a, b

    def merge_noise(t, eps_bar_prev, eps_t):
        a, b = factors(t)
        omega = b * eps_bar_prev - a * eps_t
        if w == "independent":
            omega = a * eps_bar_prev - b * eps_t
        return a * eps_bar_prev + b * eps_t, omega

    def split_noise(t, eps, omega):
        a, b = factors(t)
        return b * eps + a * omega if w == "sign" else b * eps - a * omega

    return {"merge_noise": merge_noise, "split_noise": split_noise}


family(
    "noise_merging",
    noise_merging,
    {"schedule": MIXED},
    ("sign", "plus for minus in the split", ("sign", "plus", "minus")),
    ("alpha", "α_t forgotten before the earlier noise", ("α_t is missing", "without α", "α_t")),
    ("sum", "weights divided by their sum, not by the root of squares", ("sum", "length", "unit", "variance", "norm")),
    (
        "independent",
        "ω with the factors exchanged",
        ("swap", "exchang", "orthogonal", "correlat", "independent", "interchang"),
    ),
)


def predict_x0(w):
    ho = Ho(LINEAR)

    def predict(t, x_t, eps_hat):
        a = ho.ac[t - 1]
        if w == "precedence":
            return np.sqrt(1 / a) * x_t - (np.sqrt(1 / a) - 1) * eps_hat
        if w == "divide":
            return x_t / np.sqrt(a) - np.sqrt(1 - a) * eps_hat
        x0 = (x_t - np.sqrt(ho.om[t - 1]) * eps_hat) / np.sqrt(a)
        if w == "clamp":
            return np.clip(x0, -1, 1)
        return x0 * np.sqrt(a) / a if w == "root" else x0

    return {"predict_x0": predict}


family(
    "predict_x0",
    predict_x0,
    {"schedule": LINEAR},
    ("precedence", "√(1/ᾱ²) − 1 for √(1/ᾱ² − 1)", ("1/ᾱ_t − 1", "− 1", "inside the root", "outside the root", "root")),
    ("divide", "only x_t is divided by ᾱ", ("not divided", "only x_t", "1/ᾱ_t is missing", "1/ᾱ", "divi")),
    ("clamp", "x̂_0 clamped to [-1, 1]", ("clip", "clamp", "not linear")),
    ("root", "divided by ᾱ² in place of ᾱ", ("ᾱ_t²", "square", "root")),
)


def ancestral(w):
    ho = Ho(LINEAR)

    def step(t, x_t, eps_hat, noise):
        i = t - 1
        factor = np.sqrt(ho.betas[i]) if w == "std" else ho.betas[i]
        mean = x_t - factor / np.sqrt(ho.om[i]) * eps_hat
        if w == "sign":
            mean = x_t + factor / np.sqrt(ho.om[i]) * eps_hat
        mean = mean / np.sqrt(ho.ac[i] if w == "cumulated" else ho.alphas[i])
        if w == "dims":
            noise = noise[:, :1]
        if w == "variance":
            return mean + ho.betas[i] * noise
        if w == "last":
            noise = noise * np.where(np.asarray(t) > 1, 1.0, 0.0)
        return mean + np.sqrt(ho.betas[i]) * noise

    return {"step": step}


family(
    "ancestral_step",
    ancestral,
    {"schedule": LINEAR, "sigma_squared": BETA[LINEAR]},
    ("std", "β for β² before the noise prediction", ("β_t", "standard deviation", "root", "square")),
    ("sign", "the noise is added, not removed", ("sign", "added", "plus")),
    ("cumulated", "divided by ᾱ in place of α", ("ᾱ_t", "cumul", "product")),
    ("variance", "σ² before the fresh noise", ("variance", "σ²", "σ_t²", "square", "root")),
    ("dims", "one fresh noise for all dimensions", ("dimension", "shared", "column")),
    ("last", "no noise at the step to clean data", ("t = 1", "last step", "no noise", "without noise")),
)


def ddim(eta):
    def coding(w):
        ac = np.append(1.0, Ho(LINEAR).ac)
        bar2 = np.append(0.0, Ho(LINEAR).om)

        def step(t, s, x_t, eps_hat, noise):
            if w == "previous":
                s = np.asarray(t) - 1
            sigma = eta * np.sqrt(bar2[s] / bar2[t]) * np.sqrt(1 - ac[t] / ac[s])
            if w == "eta2":
                sigma = eta * sigma
            if w == "ratio":
                sigma = (
                    eta * np.sqrt(bar2[t] / bar2[s]) * np.sqrt(1 - ac[t] / ac[s]) if np.all(np.asarray(s) > 0) else 0.0
                )
            x0 = (x_t - np.sqrt(bar2[t]) * eps_hat) / np.sqrt(ac[t])
            if w == "stale":
                x0 = np.clip(x0, -1, 1)
            direction = np.sqrt(np.maximum(bar2[s] - (0 if w == "total" else sigma**2), 0))
            if w == "variance":
                direction = np.maximum(bar2[s] - sigma**2, 0)
            return np.sqrt(ac[s]) * x0 + direction * eps_hat + sigma * noise

        return {"step": step}

    return coding


family(
    "ddim_step",
    ddim(0.6),
    {"schedule": LINEAR, "eta": 0.6},
    (
        "total",
        "σ² not subtracted in the direction to x_t",
        ("σ²", "σ", "not subtracted", "too much noise", "total variance"),
    ),
    ("eta2", "η squared in σ", ("η²", "twice", "square")),
    ("ratio", "β̄_t/β̄_s in σ", ("invers", "upside", "β̄_t/β̄_s", "recip", "swap", "exchang")),
)
family(
    "ddim_step",
    ddim(0.0),
    {"schedule": LINEAR, "eta": 0.0},
    (
        "previous",
        "t − 1 for s: right without skipped steps only",
        ("t − 1", "t−1", "skip", "next step", "adjacent", "one step"),
    ),
    ("stale", "x̂_0 clipped, ε̂ as before", ("clip", "clamp", "not linear")),
    ("variance", "no root of 1 − ᾱ_s²", ("β̄_s²", "root", "square", "variance")),
)


def ddim_loop(w):
    ho = Ho(COSINE)
    ac, bar2, T, eta = np.append(1.0, ho.ac), np.append(0.0, ho.om), COSINE.T, 0.5

    def sample(x, eps_hat, noise):
        for k, t in enumerate(range(T, 1 if w == "stop" else 0, -1)):
            s = t - 1
            e = eps_hat(x, s if w == "index" and s else t)
            z = noise[T - 1 - k] if w == "order" else noise[k]
            sigma = eta * np.sqrt(bar2[s] / bar2[t] * (1 - ac[t] / ac[s]))
            x0 = (x - np.sqrt(bar2[t]) * e) / np.sqrt(ac[t])
            if w == "clip":
                x0 = np.clip(x0, -1, 1)
                e = (x - np.sqrt(ac[t]) * x0) / np.sqrt(bar2[t])
            x = np.sqrt(ac[s]) * x0 + np.sqrt(bar2[s] - sigma**2) * e + sigma * z
        return x

    return {"sample": sample}


family(
    "ddim_sampler",
    ddim_loop,
    {"schedule": COSINE, "eta": 0.5},
    ("stop", "the loop stops before t = 1", ("last step", "t = 1", "step is missing", "missing step", "stops", "x_1")),
    ("index", "the network gets t − 1", ("t − 1", "t−1", "zero", "from 0", "index")),
    ("order", "noise in the other order", ("order", "revers")),
    ("clip", "x̂_0 clipped to [-1, 1]", ("clip", "clamp")),
)


def sampler(w):
    ho = Ho(LINEAR)
    T = LINEAR.T

    def sample(x, eps_hat, noise):
        e = None
        for i in reversed(range(T)):
            t = i + 1
            if e is None or w != "once":
                e = eps_hat(x, max(i, 1) if w == "index" else t)
            z = noise[i] if w == "order" else noise[T - t]
            if w == "first" or w == "reuse":
                z = noise[0] if w == "reuse" else z * (t > 1)
            if w == "posterior":
                x0 = np.clip((x - np.sqrt(ho.om[i]) * e) / np.sqrt(ho.ac[i]), -1, 1)
                x = (np.sqrt(ho.ac_prev[i]) * ho.betas[i] * x0 + np.sqrt(ho.alphas[i]) * ho.om_prev[i] * x) / ho.om[i]
            else:
                x = (x - ho.betas[i] / np.sqrt(ho.om[i]) * e) / np.sqrt(ho.alphas[i])
            x = x + np.sqrt(ho.betas[i]) * z
        return x

    return {"sample": sample}


family(
    "sampler",
    sampler,
    {"schedule": LINEAR, "mean": 0.7, "variance": 0.4, "sigma_squared": BETA[LINEAR]},
    ("first", "no noise at the last step", ("last step", "t = 1", "no noise", "without noise")),
    ("index", "the network gets the index from 0", ("t − 1", "t−1", "from 0", "zero", "index")),
    ("order", "noise[t-1] for noise[T-t]", ("order", "revers")),
    ("reuse", "one noise drawn before the loop", ("same noise", "one noise", "reuse", "every step", "noise[0]")),
    ("posterior", "x̂_0 clipped inside the sampler", ("clip", "clamp")),
    ("once", "the network is called once, before the loop", ("stale", "once", "first step", "not called again", "x_T")),
)


def predicted(kind):
    A, B = draws(1, 3, 3) * 0.4, draws(2, 3)

    def output(x_t, t, labelled):
        return np.tanh(x_t @ A + 0.1 * t) + (0.3 * B if labelled else 0.0)

    def coding(w):
        s = LINEAR

        def predict(x_t, t, guidance, clip):
            cond, free = output(x_t, t, True), output(x_t, t, False)
            out = free + guidance * (cond - free)
            if w == "ho":
                out = (1 + guidance) * cond - guidance * free
            if w == "order":
                out = cond + guidance * (free - cond)
            if w == "label":
                out = free
            a, b = s.alpha_bar[t], s.beta_bar[t]
            if kind == "noise":
                e = out
            elif kind == "x0":
                e = (x_t - out) / b if w == "scale" else (x_t - a * out) / b
            elif kind == "v":
                e = a * out - b * x_t if w == "sign" else a * out + b * x_t
            else:
                e = out / s.beta[t] if w == "step" else out * b / s.beta[t]
            if clip:
                x0 = np.clip((x_t - b * e) / a, -1, 1)
                if w == "sigma":
                    return (x_t - x0) / b
                if w != "stale":
                    e = (x_t - a * x0) / b
            return e

        return {"predict": predict, "output": output, "kind": kind}

    return coding


POINTS = np.array([[0.2, -0.5, 0.9], [2.5, 0.1, -3.0], [-0.7, 4.0, 0.3], [0.05, -0.1, 0.4]])
family(
    "predicted_noise",
    predicted("noise"),
    {"schedule": LINEAR, "x_t": POINTS},
    ("ho", "guidance (1 + w) with label − w without", ("1 + w", "w + 1", "w+1", "1+w", "one more", "(1 + ")),
    ("label", "the label is dropped", ("label", "uncondition", "without guidance", "guidance")),
    ("stale", "x̂_0 clipped, ε̂ not computed again", ("clip", "not clipped", "before the clip", "stale")),
)
family(
    "predicted_noise",
    predicted("x0"),
    {"schedule": LINEAR, "x_t": POINTS},
    ("scale", "x_t − x̂_0 without ᾱ", ("ᾱ_t is missing", "without ᾱ", "ᾱ_t")),
    ("order", "the two outputs exchanged in guidance", ("swap", "exchang", "interchang", "label", "1 − w")),
)
family(
    "predicted_noise",
    predicted("v"),
    {"schedule": LINEAR, "x_t": POINTS},
    ("sign", "ᾱ v − β̄ x_t", ("sign", "minus", "negative")),
    ("sigma", "(x_t − x̂_0)/σ after clipping, of variance-exploding code", ("ᾱ", "clip", "explod", "scale")),
)
family(
    "predicted_noise",
    predicted("step"),
    {"schedule": LINEAR, "x_t": POINTS},
    ("step", "divided by β_t, without β̄_t", ("β̄_t is missing", "β̄_t", "without β̄")),
)


def reverse_variance(w):
    ho = Ho(LINEAR)

    def variance(name):
        v = ho.betas.copy()
        if name == "posterior":
            v = ho.betas * ho.om_prev / ho.om
            v[0] = {"clipped": v[1], "floor": 1e-20}.get(w, ho.betas[0])
        elif w == "std":
            v = np.sqrt(v)
        return np.append(0.0, v)

    return {"variance": variance}


family(
    "reverse_variance",
    reverse_variance,
    {"schedule": LINEAR},
    (
        "clipped",
        "the first posterior variance is that of t = 2, as in the clipped logarithm",
        ("t = 2", "second", "β̃_2", "next step", "t = 1", "first step"),
    ),
    ("floor", "the first posterior variance is 1e-20", ("t = 1", "first step", "is 0", "zero", "β̃_1")),
    ("std", "standard deviations returned", ("standard deviation", "root", "β_t")),
)


def optimal_variance(w):
    s = MIXED

    def mean_square_step(loss, d=2):
        v = np.zeros(s.T + 1)
        for t in range(1, s.T + 1):
            b2, bar2 = s.beta[t] ** 2, s.beta_bar[t] ** 2
            n = 1 if w == "sum" else d
            extra = (b2 if w == "power" else b2**2) * loss[t] / (n * s.alpha[t] ** 2 * bar2)
            v[t] = (0 if w == "tilde" else s.beta_tilde[t] ** 2) + extra
        return v

    return {"mean_square_step": mean_square_step}


family(
    "optimal_variance",
    optimal_variance,
    {"schedule": MIXED, "covariance": np.array([[0.8, 0.3], [0.3, 0.5]])},
    ("sum", "summed over dimensions, not a mean", ("sum", "1/D", "mean", "D times", "factor D")),
    ("tilde", "the posterior variance is left out", ("β̃", "posterior variance", "is missing")),
    ("power", "β² for β⁴", ("β_t²", "β⁴", "power", "square")),
)


def gaussian_nll(x, mean, variance):
    return 0.5 * np.sum((x - mean) ** 2 / variance + np.log(2 * np.pi * variance), axis=1)


def step_loss(w):
    s, v = MIXED, 0.35

    def loss(t, x0, eps_bar_prev, eps_t, eps_hat):
        prev = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * eps_bar_prev
        x_t = s.alpha[t] * prev + s.beta[t] * eps_t
        factor = s.beta[t] if w == "step noise" else s.beta[t] ** 2 / s.beta_bar[t]
        d = x0.shape[1]
        if w == "merged":
            eps = (s.alpha[t] * s.beta_bar[t - 1] * eps_bar_prev + s.beta[t] * eps_t) / s.beta_bar[t]
            k = s.beta[t] ** 4 / (2 * s.beta_bar[t] ** 2 * s.alpha[t] ** 2 * v)
            return d / 2 * np.log(2 * np.pi * v) + k * np.sum((eps - eps_hat(x_t, t)) ** 2, axis=1)
        mean = (x_t - factor * eps_hat(x_t, t)) / s.alpha[t]
        square = np.sum((prev - mean) ** 2, axis=1)
        if w == "mean":
            square = np.mean((prev - mean) ** 2, axis=1) * 1.0
        constant = 0.5 * np.log(2 * np.pi * v)
        if w == "half":
            return d * np.log(2 * np.pi * v) + square / (2 * v)
        return (1 if w == "one constant" else d) * constant + square / (2 * v)

    return {"loss": loss, "sigma_squared": v}


family(
    "step_loss",
    step_loss,
    {"schedule": MIXED, "t": 3, "eps_hat": lambda x, t: np.tanh(0.6 * x + 0.1), "mean": 0.2, "std": 0.8},
    ("half", "log 2πσ² without ½", ("½", "twice", "half")),
    ("merged", "(29) without D β̃²/(2σ²)", ("β̃", "ω", "posterior variance", "constant")),
    ("step noise", "ε̂ taken for the noise of one step", ("one step", "noise of the step", "single step", "β_t", "ε_t")),
    (
        "one constant",
        "the constant counted once, not D times: right in one dimension",
        ("constant", "D times", "/D", "factor D", "dimensions", "log 2π"),
    ),
    ("mean", "squares averaged over dimensions", ("mean", "1/D", "average")),
)

DATA2 = draws(3, 4, 2)
NOISE2 = draws(4, MIXED.T, 4, 2)


def affine_eps(x, t):
    return np.tanh(0.5 * x) + 0.05 * t * x


def bound_terms(w):
    s, v = MIXED, BETA[MIXED]

    def prior_loss(x0):
        a2, b2 = s.alpha_bar[-1] ** 2, s.beta_bar[-1] ** 2
        log = np.log(s.beta_bar[-1]) if w == "log std" else np.log(b2)
        if w == "no mean":
            return 0.5 * np.sum(b2 - 1 - log + 0 * x0, axis=1)
        return 0.5 * np.sum(a2 * x0**2 + b2 - 1 - log, axis=1)

    def model(t, x_t, eps_hat):
        return (x_t - s.beta[t] ** 2 / s.beta_bar[t] * eps_hat(x_t, t)) / s.alpha[t]

    def q(t, x0, x_t):
        m = s.alpha[t] * s.beta_bar[t - 1] ** 2 * x_t + s.alpha_bar[t - 1] * s.beta[t] ** 2 * x0
        return m / s.beta_bar[t] ** 2

    def step(t, x0, x_t, eps_hat):
        gap = (q(t, x0, x_t) - model(t, x_t, eps_hat)) ** 2
        r = s.beta_tilde[t] ** 2 / v[t]
        if w == "reversed":
            return 0.5 * np.sum(gap / s.beta_tilde[t] ** 2 + 1 / r - 1 + np.log(r), axis=1)
        if w == "only squares":
            return 0.5 * np.sum(gap / v[t], axis=1)
        per_dim = gap / v[t] + r - 1 - np.log(r)
        return 0.5 * (per_dim.mean(axis=1) if w == "mean" else per_dim.sum(axis=1))

    def last(x0, x_1, eps_hat):
        if w == "mse":
            return np.sum((x0 - model(1, x_1, eps_hat)) ** 2, axis=1) / (2 * v[1])
        return gaussian_nll(x0, model(1, x_1, eps_hat), v[1])

    return {"prior_loss": prior_loss, "step_loss": step, "reconstruction_loss": last}


family(
    "bound_terms",
    bound_terms,
    {"schedule": MIXED, "x0": DATA2, "noise": NOISE2[0], "eps_hat": affine_eps, "sigma_squared": BETA[MIXED]},
    ("log std", "log β̄ for log β̄² in the prior term", ("standard deviation", "½", "log β̄_T", "half", "log-variance")),
    ("no mean", "the prior term without the mean of q", ("mean", "ᾱ_T", "x_0")),
    ("reversed", "KL(p‖q) for KL(q‖p) at a step", ("revers", "swap", "exchang", "KL(p", "order")),
    (
        "only squares",
        "the variances' part of the KL left out",
        ("variance", "constant", "logarithm", "log ", "squares only"),
    ),
    ("mse", "L_0 without ½ log 2πσ²", ("log 2π", "constant", "normalis")),
    ("mean", "KL averaged over dimensions", ("mean", "1/D", "average")),
)


def whole_bound(s, w, eps_hat=None, index=0):
    v = BETA[s]

    def model(net, t, x_t):
        return (x_t - s.beta[t] ** 2 / s.beta_bar[t] * net(x_t, t)) / s.alpha[t]

    def bound(x0, net, noise):
        total = 0.5 * np.sum(
            s.alpha_bar[-1] ** 2 * x0**2 + s.beta_bar[-1] ** 2 - 1 - 2 * np.log(s.beta_bar[-1]), axis=1
        )
        if w == "prior":
            total = 0 * total
        for t in range(1, s.T + 1):
            e = noise[t - 2] if w == "noise" and t > 1 else noise[t - 1]
            x_t = s.alpha_bar[t] * x0 + s.beta_bar[t] * e
            m = model(net, t - 1 if w == "index" and t > 1 else t, x_t)
            if t == 1:
                total = total + gaussian_nll(x0, m, v[1])
                continue
            q = s.alpha[t] * s.beta_bar[t - 1] ** 2 * x_t + s.alpha_bar[t - 1] * s.beta[t] ** 2 * x0
            q = q / s.beta_bar[t] ** 2
            r = (s.beta_bar[t - 1] ** 2 * s.beta[t] ** 2 / s.beta_bar[t] ** 2) / v[t]
            kl = 0.5 * np.sum((q - m) ** 2 / v[t] + r - 1 - np.log(r), axis=1)
            if w == "half":
                kl = np.sum((q - m) ** 2 / v[t], axis=1) + 0.5 * x0.shape[1] * (r - 1 - np.log(r))
            if w == "bits":
                kl = kl / np.log(2)
            if w == "mean":
                kl = kl / (s.T - 1)
            total = total + kl
        return total / x0.shape[1] if w == "per dim" else total

    return bound


def variational(w):
    return {"bound": whole_bound(MIXED, w)}


SPREAD2 = np.array([[0.9, -0.2], [-0.2, 0.5]])
AFFINE = {"A": 0.3 * draws(5, MIXED.T + 1, 2, 2), "b": 0.2 * draws(6, MIXED.T + 1, 2)}
MOMENTS = {"mean": np.array([0.4, -0.6]), "covariance": SPREAD2, "sigma_squared": BETA[MIXED], "schedule": MIXED}
family(
    "variational_bound",
    variational,
    MOMENTS | AFFINE,
    ("prior", "L_T is left out", ("L_T", "prior")),
    ("half", "no ½ before the squared distance of the means", ("½", "twice", "half", "factor 2")),
    ("mean", "mean over the steps for their sum", ("mean", "sum", "average", "1/T", "1/(T")),
    ("per dim", "a number a dimension", ("dimension", "1/D", "mean over D", "D times", "/D", "factor D", "dimensions")),
    ("bits", "KL terms in bits, L_0 and L_T in nats", ("bits", "log 2", "base")),
)


def negative_elbo(w):
    s, v = MIXED, BETA[MIXED]

    def value(loss, second, d):
        a, b2 = s.alpha_bar[-1], s.beta_bar[-1] ** 2
        total = 0.5 * ((a if w == "prior" else a**2) * second + d * (b2 - 1 - np.log(b2)))
        for t in range(1, s.T + 1):
            k = s.beta[t] ** 4 / (2 * v[t] * s.alpha[t] ** 2 * s.beta_bar[t] ** 2)
            if w == "alpha":
                k = s.beta[t] ** 4 / (2 * v[t] * s.beta_bar[t] ** 2)
            total += (1 if w == "simple" else k) * loss[t]
            if t == 1:
                total += (0.5 if w == "dimension" else d / 2) * np.log(2 * np.pi * v[1])
            else:
                r = s.beta_tilde[t] ** 2 / v[t]
                total += d / 2 * (r - 1 - np.log(r))
        return total

    return {"negative_elbo": value}


family(
    "negative_elbo",
    negative_elbo,
    MOMENTS | AFFINE,
    ("prior", "ᾱ for ᾱ² before E‖x_0‖²", ("ᾱ_T", "square", "root", "prior", "L_T")),
    ("simple", "all weights 1, the simple loss", ("weight", "simple", "factor")),
    (
        "dimension",
        "½ log 2πσ² counted once",
        ("D times", "/D", "factor D", "dimensions", "dimension", "log 2π", "constant"),
    ),
    ("alpha", "1/α² forgotten in the weights", ("α_t", "1/α")),
)


def chains(w):
    s, v = MIXED, BETA[MIXED]

    def log_normal(x, mean, variance):
        n = 1 if w == "constant" else x.shape[1]
        return -np.sum((x - mean) ** 2, axis=1) / (2 * variance) - n / 2 * np.log(2 * np.pi * variance)

    def forward(path):
        total = 0.0
        for t in range(1, s.T + 1):
            if w == "marginal":
                total = total + log_normal(path[t], s.alpha_bar[t] * path[0], s.beta_bar[t] ** 2)
            else:
                total = total + log_normal(path[t], s.alpha[t] * path[t - 1], s.beta[t] ** 2)
        return total

    def backward(path, eps_hat):
        total = 0.0 if w == "prior" else log_normal(path[-1], 0, 1.0)
        for t in range(2 if w == "last" else 1, s.T + 1):
            e = eps_hat(path[t - 1] if w == "argument" else path[t], t)
            mean = (path[t] - s.beta[t] ** 2 / s.beta_bar[t] * e) / s.alpha[t]
            total = total + log_normal(path[t - 1], mean, v[t])
        return total

    return {"forward_log_prob": forward, "reverse_log_prob": backward}


family(
    "chains",
    chains,
    {
        "schedule": MIXED,
        "path": draws(7, MIXED.T + 1, 3, 2),
        "slopes": 0.1 * np.arange(MIXED.T + 1) + 0.2,
        "sigma_squared": BETA[MIXED],
    },
    ("prior", "log p(x_T) left out", ("prior", "p(x_T)", "x_T")),
    ("last", "the factor of x_0 given x_1 left out", ("t = 1", "x_0 | x_1", "last step", "first step", "x_1")),
    ("marginal", "product of the marginals of x_t given x_0", ("marginal", "ᾱ", "x_0", "β̄")),
    (
        "constant",
        "normaliser of one dimension",
        ("D times", "/D", "factor D", "dimensions", "dimension", "log 2π", "constant", "normalis"),
    ),
    ("argument", "the network gets x_{t−1}", ("x_{t−1}", "t−1", "argument", "wrong state")),
)


def loss_weights(w):
    s, v = MIXED, BETA[MIXED]

    def weights(name):
        snr = s.alpha_bar[1:] ** 2 / s.beta_bar[1:] ** 2
        out = {
            "simple": np.ones(s.T),
            "x0": snr if w == "inverse" else 1 / snr,
            "v": (1 + snr if w == "snr+1" else (1 + snr) / snr),
            "min-snr": np.minimum(snr, 5) if w == "x0 form" else np.minimum(snr, 5) / snr,
            "bound": s.T * s.beta[1:] ** 4 / (2 * v[1:] * s.alpha[1:] ** 2 * s.beta_bar[1:] ** 2),
        }
        if w == "steps":
            out["bound"] = out["bound"] / s.T
        if w == "half":
            out["bound"] = out["bound"] * 2
        return np.append(0.0, out[name])

    return {"weights": weights}


family(
    "loss_weights",
    loss_weights,
    {"schedule": MIXED, "sigma_squared": BETA[MIXED]},
    ("inverse", "SNR for 1/SNR in the weight of x_0", ("SNR", "invers", "1/SNR")),
    ("snr+1", "SNR + 1, the weight of v for a loss of x_0", ("SNR", "x_0", "β̄", "x̂_0")),
    ("x0 form", "min(SNR, 5), the weight for a loss of x_0", ("SNR", "x_0", "x̂_0")),
    (
        "steps",
        "the bound without T",
        ("T is missing", "1/T", "without T", "T times", "factor T", "horizon", "mean over"),
    ),
    ("half", "the bound without ½", ("½", "twice", "half", "factor 2")),
)


def step_draws(w):
    T, n = 10, 5

    def draw(u):
        v = (u + np.arange(n) / n) % 1.0
        t = 1 + np.floor(T * v).astype(int)
        weight = np.ones(n)
        if w == "zero":
            t = t - 1
        if w == "round":
            t = np.round(T * v).astype(int)
        if w == "never T":
            t = 1 + np.floor((T - 1) * v).astype(int)
        return t, weight

    return {"draw": draw}


def importance_draws(w):
    T, n = 10, 5
    p = np.arange(1, T + 1) / (T * (T + 1) / 2)

    def draw(u):
        v = (u + np.arange(n) / n) % 1.0
        t = 1 + np.searchsorted(np.cumsum(p), v, side="right").clip(max=T - 1)
        weight = 1 / (T * p[t - 1])
        if w == "importance":
            weight = T * p[t - 1]
        if w == "no T":
            weight = 1 / p[t - 1]
        if w == "self":
            weight = weight / weight.mean()
        return t, weight

    return {"draw": draw}


family(
    "step_draws",
    step_draws,
    {"T": 10},
    ("zero", "t from 0 to T − 1", ("t = 0", "is 0", "zero", "from 0", "T − 1", "T−1")),
    ("round", "rounded, so that 0 and T have half the share", ("half", "round", "ends", "½")),
    (
        "never T",
        "randint with an open end: T never occurs",
        ("T never", "never", "t = T", "last step", "T is missing", "T − 1", "T−1"),
    ),
)
family(
    "step_draws",
    importance_draws,
    {"T": 10},
    ("importance", "weights T p in place of 1/(T p)", ("weight", "invers", "1/p", "square")),
    ("no T", "weights 1/p without 1/T", ("T times", "factor T", "without T", "horizon", "1/T", "factor", "weight")),
    (
        "self",
        "weights divided by their mean over the batch: biased",
        ("weight", "normalis", "mean", "biased", "batch", "sum to"),
    ),
)


def time_draws(w):
    sde, t_min, n = VP(), 0.01, 64
    high, low = sde.log_snr(t_min), sde.log_snr(sde.horizon)

    def draw(u):
        v = u + np.arange(n) / n
        v = v % 1.0
        t = t_min + (sde.horizon - t_min) * v
        _scale, std = sde.marginal(t)
        rate = sde.beta(t) / std**2  # -d log SNR/dt
        weights = rate * (sde.horizon - t_min) / (high - low)
        if w == "inverse":
            weights = 1 / weights
        if w == "interval":
            weights = rate / (high - low) * 0.5
        if w == "none":
            weights = np.ones(n)
        return t, weights

    return {"draw": draw, "clock": lambda t: (high - sde.log_snr(t)) / (high - low)}


family(
    "time_draws",
    time_draws,
    {},
    ("none", "uniform in t without weights, the clock is log-SNR", ("weight", "uniform in t", "uniform")),
    ("inverse", "weights upside down", ("invers", "upside", "1/SNR", "recip", "weight")),
    ("interval", "weights with a wrong normalisation, ½", ("½", "half", "weight", "normalis", "sum to", "mean")),
)

# -- whole functions with their own network --------------------------------------------------------------------------

NET_A, NET_B = 0.5 * draws(8, 2, 2), 0.4 * draws(9, 2, 2)


def own_net(x, t):
    return np.tanh(np.asarray(x) @ NET_A + 0.05 * np.reshape(t, (-1, 1)) * np.ones(2)) @ NET_B


WEIGHT = np.append(0.0, 1 / np.arange(1, MIXED.T + 1))


def loss_of(prediction, reduction="sum", weighted=False):
    def coding(w):
        s = MIXED

        def loss(t, x0, noise):
            t = np.asarray(t)
            if w == "one t":
                t = np.full_like(t, t[-1])
            a, b = s.alpha_bar[t][:, None], s.beta_bar[t][:, None]
            if w == "share":
                noise = np.broadcast_to(noise[:, :1], noise.shape)
            out = own_net(a * x0 + b * noise, t - 1 if w == "index" else t)
            target = {"noise": noise, "x0": x0, "v": a * noise - b * x0}[prediction]
            if w == "v sign":
                target = b * x0 - a * noise
            if w == "target":
                target = x0 if prediction == "noise" else noise
            error = np.abs(target - out) if w == "l1" else (target - out) ** 2
            error = error.sum(axis=1) if (reduction == "sum") != (w == "reduction") else error.mean(axis=1)
            if weighted:
                error = error * WEIGHT[np.maximum(t - 1, 1) if w == "weight index" else t]
                if w == "root weight":
                    error = error / np.sqrt(WEIGHT[t])
            return error

        return {"loss": loss}

    return coding


OF = {"x0": DATA2, "schedule": MIXED}
T_OF = np.array([2, 5, 6, 3])
family(
    "loss_of",
    loss_of("noise"),
    OF | {"network": own_net, "noise": NOISE2[1], "t": T_OF},
    ("index", "the network gets t − 1", ("t − 1", "t−1", "from 0", "index", "zero")),
    ("one t", "one t for the whole batch", ("one t", "example", "shared", "same t", "another step")),
    ("l1", "absolute values for squares", ("absolute", "L1", "absolute value", "not square")),
    ("reduction", "mean over dimensions for the sum", ("mean", "1/D", "average")),
    ("share", "one noise number a row, for all dimensions", ("dimension", "shared", "column")),
)
family(
    "loss_of",
    loss_of("v"),
    OF | {"network": own_net, "noise": NOISE2[1], "t": T_OF, "prediction": "v"},
    ("v sign", "v = β̄ x_0 − ᾱ ε", ("sign", "−v", "minus")),
    ("target", "a network of v trained on the noise", ("target", "noise", "ε itself", "of ε", "ε for")),
)
family(
    "loss_of",
    loss_of("x0", weighted=True),
    OF | {"network": own_net, "noise": NOISE2[1], "t": T_OF, "prediction": "x0", "weight": WEIGHT},
    ("weight index", "weight of the step before", ("t − 1", "t−1", "weight", "index", "shift")),
    ("root weight", "the root of the weight", ("root", "√", "weight")),
)


def bound_of(w):
    inner = whole_bound(COSINE, w)
    return {"bound": lambda x0, noise: inner(x0, own_net, noise)}


NOISE_COSINE = draws(10, COSINE.T, 4, 2)
family(
    "bound_of",
    bound_of,
    {"eps_hat": own_net, "x0": DATA2, "noise": NOISE_COSINE, "schedule": COSINE},
    ("index", "the network gets t − 1", ("t − 1", "t−1", "from 0", "index", "zero")),
    ("noise", "x_t is made of the noise of x_{t−1}", ("noise[", "t−1", "t − 1", "noise of", "index", "shift")),
    ("prior", "L_T is left out", ("L_T", "prior")),
)


def sampler_of(eta=None):
    def coding(w):
        s = COSINE

        def sample(x, noise):
            for t in range(s.T, 0, -1):
                e = own_net(x, s.T - t + 1 if w == "time" else t)
                z = noise[s.T - t]
                a, b = s.alpha_bar, s.beta_bar
                if eta is None:
                    std = s.beta_tilde[t] if w == "tilde" and t > 1 else s.beta[t]
                    x = (x - s.beta[t] ** 2 / b[t] * e) / s.alpha[t] + std * z * (t > 1 or w == "last")
                    continue
                x0 = (x - b[t] * e) / a[t]
                sigma = eta * b[t - 1] / b[t] * np.sqrt(1 - (a[t] / a[t - 1]) ** 2)
                if w == "ddpm":
                    sigma = eta * s.beta[t] * (t > 1)
                x = a[t - 1] * x0 + np.sqrt(np.maximum(b[t - 1] ** 2 - sigma**2, 0)) * e
                x = x + (sigma**2 if w == "variance" else sigma) * z
            return x

        return {"sample": sample}

    return coding


SAMPLER_OF = {"eps_hat": own_net, "x_T": draws(11, 4, 2), "noise": NOISE_COSINE, "schedule": COSINE}
family(
    "sampler_of",
    sampler_of(),
    SAMPLER_OF | {"last_noise": False},
    ("time", "the times of the network run upwards", ("time", "revers", "order", "upward", "T − t", "T−t")),
    ("tilde", "posterior standard deviation for β", ("β̃", "posterior")),
    ("last", "the last step adds noise", ("last step", "t = 1", "adds noise", "last noise")),
)
family(
    "sampler_of",
    sampler_of(0.8),
    SAMPLER_OF | {"eta": 0.8},
    ("variance", "σ² before the noise", ("σ²", "variance", "square")),
    ("ddpm", "σ = η β in place of η β̃", ("β_t", "β̃", "forward step")),
)


def affine_score(x, t):
    return -0.8 * np.asarray(x) + 0.2 * np.sin(np.asarray(x)) - 0.1 * t


def affine_divergence(x, t):
    return np.sum(-0.8 + 0.2 * np.cos(np.asarray(x)), axis=1)


def wide_score(x, t):
    return -np.asarray(x) / (1 + 9 * t)


def wide_divergence(x, t):
    return np.full(len(x), -x.shape[1] / (1 + 9 * t))


def flow_likelihood(sde, t_min, score_of, divergence_of):
    def coding(w):
        def log_prob(x):
            x, total = np.array(x, float), np.zeros(len(x))
            t1 = sde.horizon
            n = 400
            grid = np.linspace(t_min ** (1 / 3), t1 ** (1 / 3), n + 1) ** 3

            def slope(y, t):
                f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2
                half = 1.0 if w == "half" else 0.5
                dy = f * y - half * g2 * score_of(y, t)
                div = f * y.shape[1] - half * g2 * divergence_of(y, t)
                if w == "drift divergence":
                    div = -half * g2 * divergence_of(y, t)
                return dy, -div if w == "sign" else div

            for t, s in itertools.pairwise(grid):
                h = s - t
                k1, d1 = slope(x, t)
                k2, d2 = slope(x + h / 2 * k1, t + h / 2)
                k3, d3 = slope(x + h / 2 * k2, t + h / 2)
                k4, d4 = slope(x + h * k3, s)
                x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
                total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
            std = 1.0 if w == "unit prior" else sde.prior_std
            base = -0.5 * np.sum((x / std) ** 2, axis=1)
            if w != "constant":
                base = base - x.shape[1] * np.log(std * np.sqrt(2 * np.pi))
            return base + total

        return {"log_prob": log_prob}

    return coding


FLOW_OF = {"x": DATA2, "t_min": 0.01}
family(
    "flow_likelihood_of",
    flow_likelihood(VP(), 0.01, affine_score, affine_divergence),
    FLOW_OF | {"sde": VP(), "score": affine_score, "divergence": affine_divergence},
    ("sign", "the divergence subtracted", ("sign", "subtract", "minus")),
    ("half", "g² for ½g²", ("½", "twice", "half", "reverse SDE")),
    ("drift divergence", "the divergence of f x left out", ("drift", "f x", "f is", "of f", "divergence of f", "D f")),
    slow=True,
)
family(
    "flow_likelihood_of",
    flow_likelihood(VE(0.05, 3.0), 0.01, wide_score, wide_divergence),
    FLOW_OF | {"sde": VE(0.05, 3.0), "score": wide_score, "divergence": wide_divergence},
    (
        "unit prior",
        "N(0, I) as the base density of a variance-exploding process",
        ("N(0, I)", "prior", "base", "std ", "std²", "std is", "standard deviation"),
    ),
    ("constant", "normaliser of the base density left out", ("normalis", "constant", "log 2π")),
    slow=True,
)

# -- VAE -------------------------------------------------------------------------------------------------------------

VAE = {
    "x": draws(12, 4, 3),
    "W": 0.8 * draws(13, 3, 2),
    "decoder_mean": np.array([0.3, -0.2, 0.5]),
    "decoder_variance": 0.4,
    "q_mean": draws(14, 4, 2),
    "q_log_variance": 0.6 * draws(15, 4, 2) - 0.5,
}


def vae_loss(w):
    def loss(x, x_hat, mean, log_variance, decoder_log_variance):
        square = (x - x_hat) ** 2
        square = square.mean(axis=1) if w == "mse" else square.sum(axis=1)
        nll = 0.5 * square * np.exp(-decoder_log_variance)
        if w == "no half":
            nll = 2 * nll
        if w == "std":
            nll = 0.5 * square * np.exp(-decoder_log_variance / 2)
        if w != "constant":
            nll = nll + 0.5 * x.shape[1] * np.log(2 * np.pi)
        nll = nll + (0.5 if w != "log once" else 0.5 / x.shape[1]) * x.shape[1] * decoder_log_variance
        kl = -0.5 * (1 + log_variance - mean**2 - np.exp(log_variance))
        if w == "log std":
            kl = -0.5 * (1 + log_variance - mean**2 - np.exp(2 * log_variance))
        kl = kl.mean(axis=1) if w == "kl mean" else kl.sum(axis=1)
        if w == "batch":
            kl = np.full(len(x), kl.mean())
        return nll + kl

    return {"loss": loss}


family(
    "vae_loss",
    vae_loss,
    VAE,
    ("mse", "mean squared error over dimensions beside a summed KL", ("mean", "1/D", "average")),
    ("no half", "no ½ before the squared error", ("½", "twice", "half", "factor 2")),
    ("constant", "without (D/2) log 2π", ("log 2π", "constant", "normalis")),
    (
        "log once",
        "the log-variance of the decoder counted once",
        ("D times", "/D", "factor D", "dimensions", "logarithm", "log ", "dimension"),
    ),
    (
        "std",
        "the log-variance read as a log of the standard deviation in the decoder",
        ("standard deviation", "variance", "root", "s²"),
    ),
    ("kl mean", "KL averaged over latents", ("mean", "1/k", "average")),
    ("log std", "KL with σ² = exp(2 log σ²)", ("σ⁴", "standard deviation", "square", "log σ", "exp(2")),
    (
        "batch",
        "KL averaged over the batch and given to every example",
        ("batch", "examples", "mean of the KL", "other examples"),
    ),
)

P_X = np.array([0.2, 0.35, 0.3, 0.15])
Q = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.4, 0.15, 0.45]])
PRIOR = np.array([0.3, 0.45, 0.25])
DECODER = np.array([[0.4, 0.1, 0.2], [0.3, 0.2, 0.25], [0.2, 0.3, 0.35], [0.1, 0.4, 0.2]])
JOINT = DECODER * PRIOR


def vae_objective(w):
    def loss(p_x, q, decoder, prior):
        recon = -np.sum(q * np.log(decoder), axis=1)
        if w == "likelihood":
            recon = -np.log(np.sum(q * decoder, axis=1))
        kl = np.sum(q * np.log(q / prior), axis=1)
        if w == "reverse":
            kl = np.sum(prior * np.log(prior / q), axis=1)
        if w == "uniform":
            kl = np.sum(q * np.log(q), axis=1) + np.log(q.shape[1])
        if w == "beta":
            kl = 0.5 * kl
        if w == "mean":
            return np.mean(recon + kl)
        return p_x @ (recon + kl)

    return {"loss": loss}


TABLES = {"p_x": P_X, "q": Q, "decoder": DECODER, "prior": PRIOR}
family(
    "vae_objective",
    vae_objective,
    TABLES,
    (
        "likelihood",
        "log of the mean likelihood for the mean log",
        ("log E", "log of the mean", "inside the log", "Jensen", "log Σ", "mixture"),
    ),
    ("reverse", "KL(q(z)‖q(z|x))", ("revers", "swap", "exchang", "order", "KL(q(z)")),
    ("uniform", "prior taken as uniform", ("uniform", "prior", "entropy")),
    ("beta", "KL weighted with 0.5", ("½", "weight", "half", "0.5", "β")),
    ("mean", "mean over x for the expectation under p(x)", ("mean over x", "p(x)", "uniform", "unweighted", "1/X")),
)


def reparameterise(w):
    def draw(mean, log_variance, noise):
        std = np.exp(0.5 * log_variance)
        if w == "variance":
            std = np.exp(log_variance)
        if w == "log":
            std = log_variance
        if w == "softplus":
            std = np.logaddexp(0, log_variance)
        if w == "row":
            noise = noise[:, :1]
        if w == "batch":
            noise = noise[:1]
        return mean + std * noise

    return {"draw": draw}


family(
    "reparameterisation",
    reparameterise,
    {"mean": draws(16, 4, 2), "log_variance": 0.7 * draws(17, 4, 2), "noise": draws(18, 4, 2)},
    ("variance", "exp(log σ²) as the standard deviation", ("variance", "σ²", "square", "½")),
    ("log", "log σ² itself as the standard deviation", ("log σ²", "log-variance", "exp")),
    ("softplus", "softplus of log σ²", ("softplus", "log(1 +")),
    ("row", "one noise number for all latents of a row", ("latent", "dimension", "shared", "column", "same noise")),
    ("batch", "one noise vector for the batch", ("example", "batch", "shared", "row", "same noise")),
)


def iw_bound(w):
    def bound(log_w):
        n = len(log_w)
        if w == "sum":
            return logsumexp(log_w, axis=0)
        if w == "max":
            return log_w.max(axis=0)
        if w == "self":
            p = np.exp(log_w - logsumexp(log_w, axis=0))
            return np.sum(p * log_w, axis=0)
        if w == "n-1":
            return logsumexp(log_w, axis=0) - np.log(max(n - 1, 1))
        return logsumexp(log_w, axis=0) - np.log(n)

    return {"bound": bound}


family(
    "importance_weighted_bound",
    iw_bound,
    {"joint": JOINT, "q": Q, "n_draws": 3},
    ("sum", "log of the sum, without 1/n", ("1/n", "log n", "sum")),
    ("max", "the largest log-weight", ("max", "largest")),
    (
        "self",
        "log-weights averaged with the normalised weights, the form of the gradient",
        ("self-normal", "normalised weights", "gradient", "softmax", "w̃"),
    ),
    ("n-1", "divided by n − 1", ("n − 1", "n−1", "Bessel")),
)


def kl(w):
    def value(p, q):
        if w == "reverse":
            return np.sum(q * np.log(q / p))
        if w == "bits":
            return np.sum(p * np.log2(p / q))
        if w == "cross":
            return -np.sum(p * np.log(q))
        if w == "smooth":
            return np.sum(p * np.log((p + 1e-8) / (q + 1e-8)))
        if w == "mean":
            return np.mean(p * np.log(p / q))
        return np.sum(p * np.log(p / q))

    return {"kl": value}


family(
    "kl",
    kl,
    {"p": np.array([0.1, 0.4, 0.2, 0.3]), "q": np.array([0.3, 0.2, 0.35, 0.15])},
    ("reverse", "the arguments in the order of F.kl_div", ("revers", "swap", "exchang", "order", "KL(q‖p)")),
    ("bits", "log2 for log", ("bits", "log 2", "log₂", "base 2")),
    ("cross", "cross-entropy for KL", ("cross", "entropy", "H(p)")),
    ("smooth", "1e-8 added inside the logarithm", ("1e-8", "1e-08", "small number", "added", "epsilon")),
    ("mean", "reduction='mean' over the entries", ("mean", "1/X", "average", "number of")),
)


def gaussian_kl(w):
    def value(m_p, c_p, m_q, c_q):
        d, inv = len(m_p), np.linalg.inv(c_q)
        if w == "inverse":
            inv = np.linalg.inv(c_p)
        r = m_q - m_p
        logs = np.linalg.slogdet(c_q)[1] - np.linalg.slogdet(c_p)[1]
        if w == "log sign":
            logs = -logs
        if w == "diagonal":
            logs = np.log(np.diag(c_q)).sum() - np.log(np.diag(c_p)).sum()
        trace = np.sum(inv * c_p)
        if w == "dimension":
            d = 1
        if w == "half":
            return 0.5 * (trace - d + logs) + r @ inv @ r
        return 0.5 * (trace + r @ inv @ r - d + logs)

    return {"kl": value}


GAUSSIANS = {
    "mean_p": np.array([0.5, -0.3, 0.1]),
    "cov_p": np.array([[1.0, 0.4, 0.1], [0.4, 0.7, -0.2], [0.1, -0.2, 0.5]]),
    "mean_q": np.array([-0.2, 0.4, 0.6]),
    "cov_q": np.array([[0.6, -0.2, 0.0], [-0.2, 1.1, 0.3], [0.0, 0.3, 0.9]]),
}
family(
    "gaussian_kl",
    gaussian_kl,
    GAUSSIANS,
    (
        "inverse",
        "precision of p in place of that of q",
        ("revers", "swap", "exchang", "inverse of", "precision of", "precisions", "inverse", "S_p", "other"),
    ),
    ("log sign", "determinants upside down", ("sign", "determinant", "log|", "log det")),
    ("diagonal", "determinants by the diagonals only", ("diagonal", "off-diagonal", "correlation")),
    ("dimension", "1 for D: right in one dimension", ("D times", "/D", "factor D", "dimensions", "dimension")),
    ("half", "no ½ before the Mahalanobis term", ("½", "twice", "half", "mean")),
)


def diagonal_kl(w):
    def value(mean, log_variance):
        v = np.exp(log_variance)
        per = 0.5 * (mean**2 + v - 1 - log_variance)
        if w == "half":
            per = 2 * per
        if w == "sign":
            per = -per
        if w == "mean square":
            per = 0.5 * (mean + v - 1 - log_variance)
        if w == "log sigma":
            per = 0.5 * (mean**2 + v - 1) - 0.25 * log_variance
        if w == "one":
            per = 0.5 * (mean**2 + v - log_variance)
        if w == "clamp":
            lv = np.clip(log_variance, -1, 1)
            per = 0.5 * (mean**2 + np.exp(lv) - 1 - lv)
        return per.mean(axis=1) if w == "average" else per.sum(axis=1)

    return {"kl": value}


family(
    "diagonal_kl",
    diagonal_kl,
    {"mean": draws(19, 4, 3), "log_variance": 1.2 * draws(20, 4, 3)},
    ("half", "without ½", ("½", "twice", "half")),
    ("sign", "sign of 0.5 * sum(1 + ...)", ("sign", "negative", "minus")),
    ("mean square", "mu for mu squared", ("μ", "not squared", "square", "mean")),
    ("one", "the 1 left out", ("1 is missing", "the 1", "without the 1", "k/2", "constant")),
    ("log sigma", "log σ for log σ²", ("log σ", "log-variance", "½", "half")),
    ("clamp", "log-variance clamped", ("clamp", "clip", "limit")),
    ("average", "mean over latents", ("mean", "1/k", "average")),
)


def bits(w):
    def bits_per_dim(nats, dimension, scale):
        if w == "sign":
            return (nats / dimension + np.log(scale)) / np.log(2)
        if w == "scale once":
            return (nats - np.log(scale)) / dimension / np.log(2)
        if w == "nats":
            return nats / dimension - np.log(scale)
        if w == "255":
            return nats / dimension / np.log(2) + 8
        if w == "total":
            return (nats - dimension * np.log(scale)) / np.log(2)
        return (nats / dimension - np.log(scale)) / np.log(2)

    return {"bits_per_dim": bits_per_dim}


family(
    "bits_per_dim",
    bits,
    {"masses": np.array([0.1, 0.2, 0.3, 0.4]), "dimension": 3, "scale": 0.25},
    ("sign", "log scale with the wrong sign", ("sign", "added", "plus", "+ log")),
    (
        "scale once",
        "the scale counted once, not for every dimension",
        ("D times", "/D", "factor D", "dimensions", "dimension", "once", "log scale"),
    ),
    ("nats", "not divided by log 2", ("nats", "log 2", "bits")),
    ("255", "8 bits built in, as for 256 levels in [0, 1]", ("256", "8 bits", "built in", "scale", "1/256")),
    ("total", "not divided by D", ("D times", "/D", "factor D", "dimensions", "dimension", "total")),
)


def bins(w):
    def log_mass(level, mean, std, n=7):
        x = 2 * level / (n - 1) - 1
        half = 1 / n if w == "width" else 1 / (n - 1)
        s = std**2 if w == "variance" else std
        hi, lo = (x + half - mean) / s, (x - half - mean) / s
        hi = np.where(level == n - 1, np.inf, hi)
        lo = np.where(level == 0, -np.inf, lo)
        if w == "closed":
            hi, lo = (x + half - mean) / s, (x - half - mean) / s
        if w == "density":
            return -0.5 * ((x - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi)) + np.log(2 * half)
        if w == "clamp":
            return np.log(np.maximum(ndtr(hi) - ndtr(lo), 1e-12))
        if w == "tanh":

            def cdf(z):
                return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

            hi2, lo2 = np.clip(hi, -9, 9), np.clip(lo, -9, 9)
            return np.log(np.maximum(cdf(hi2) - cdf(lo2), 1e-12))
        flip = lo > 0
        a, b = np.where(flip, -lo, hi), np.where(flip, -hi, lo)
        la, lb = log_ndtr(a), log_ndtr(b)
        return la + np.log1p(-np.exp(lb - la))

    return {"log_mass": log_mass}


family(
    "bin_masses",
    bins,
    {"n_levels": 7, "means": np.array([-0.9, 0.0, 0.35, 1.4]), "std": 0.2},
    ("width", "bins of half width 1/n", ("width", "edge", "1/n", "n_levels", "narrow", "gap")),
    ("variance", "variance for the standard deviation", ("variance", "std²", "square")),
    ("closed", "the outer bins are not open", ("open", "infin", "outer", "first and", "ends", "closed")),
    ("density", "density times width", ("density", "midpoint", "centre", "width")),
    (
        "clamp",
        "mass clamped at 1e-12, as in Ho's code",
        ("clamp", "clip", "1e-12", "tail", "underflow", "floor", "rounding"),
    ),
    ("tanh", "the tanh approximation of Φ", ("tanh", "approximat")),
)


def joint_kl(w):
    def value(p_x, q, decoder, prior):
        joint = decoder * prior
        pq = p_x[:, None] * q
        if w == "prior":
            return np.sum(pq * np.log(pq / decoder))
        if w == "entropy":
            return np.sum(pq * np.log(q / joint))
        if w == "marginal":
            return p_x @ np.log(p_x / joint.sum(axis=1))
        if w == "reverse":
            return np.sum(joint * np.log(joint / pq))
        if w == "unweighted":
            return np.sum(q * np.log(pq / joint)) / len(p_x)
        return np.sum(pq * np.log(pq / joint))

    return {"joint_kl": value}


family(
    "joint_kl",
    joint_kl,
    TABLES,
    ("prior", "the prior forgotten in the joint", ("prior", "q(z)", "p(z)")),
    ("entropy", "log p(x) left out", ("H(p)", "entropy", "log p(x)")),
    ("marginal", "KL of the marginals only", ("marginal", "KL(p‖", "E_p KL", "second term", "posterior")),
    ("reverse", "KL in the other order", ("revers", "swap", "exchang", "order")),
    ("unweighted", "mean over x for p(x)", ("mean over x", "p(x)", "uniform", "weight")),
)


def elbo(w):
    def value(joint, q):
        energy = np.sum(q * np.log(joint), axis=1)
        entropy = -np.sum(q * np.log(q), axis=1)
        if w == "sign":
            return energy - entropy
        if w == "no entropy":
            return energy
        if w == "jensen":
            return np.log(np.sum(q * joint, axis=1)) + entropy
        if w == "normalised":
            p = joint / joint.sum(axis=1, keepdims=True)
            return np.sum(q * np.log(p), axis=1) + entropy
        if w == "negative":
            return -(energy + entropy)
        return energy + entropy

    return {"elbo": value}


family(
    "elbo",
    elbo,
    {"joint": JOINT, "q": Q},
    ("sign", "the entropy subtracted", ("sign", "subtract", "minus")),
    ("no entropy", "no entropy of q", ("entropy", "log q")),
    ("jensen", "log of the expectation", ("log E", "inside", "log of the mean", "Jensen", "log Σ")),
    ("normalised", "p(z | x) in place of the joint", ("log p(x)", "posterior", "p(z | x)", "−KL", "evidence")),
    ("negative", "the loss returned for the bound", ("sign", "negative", "−ELBO", "loss")),
)


def split_elbo(w):
    def value(decoder, prior, q):
        recon = np.sum(q * np.log(decoder), axis=1)
        kl_q = np.sum(q * np.log(q / prior), axis=1)
        if w == "plus":
            return recon + kl_q
        if w == "reverse":
            return recon - np.sum(prior * np.log(prior / q), axis=1)
        if w == "prior sample":
            return np.log(decoder) @ prior - kl_q
        if w == "aggregate":
            return recon - np.sum(q * np.log(q / q.mean(axis=0)), axis=1)
        return recon - kl_q

    return {"elbo": value}


family(
    "split_elbo",
    split_elbo,
    {"decoder": DECODER, "prior": PRIOR, "q": Q},
    ("plus", "KL added", ("sign", "added", "plus")),
    ("reverse", "KL(p(z)‖q)", ("revers", "swap", "exchang", "order", "KL(p(z)")),
    ("prior sample", "reconstruction under the prior", ("prior", "under p(z)", "E_p(z)")),
    ("aggregate", "KL to the mean of the q", ("aggregat", "mean of q", "average q", "q̄", "q(z)")),
)


def latent_posterior(w):
    def value(joint):
        evidence = joint.sum(axis=1)
        post = joint / joint.sum(axis=1, keepdims=True)
        if w == "axis":
            return joint / joint.sum(axis=0, keepdims=True), evidence
        if w == "prior":
            lik = joint / joint.sum(axis=0, keepdims=True)
            return lik / lik.sum(axis=1, keepdims=True), evidence
        if w == "mean":
            return post, joint.mean(axis=1)
        if w == "softmax":
            e = np.exp(joint)
            return e / e.sum(axis=1, keepdims=True), evidence
        return post, evidence

    return {"posterior": value}


family(
    "latent_posterior",
    latent_posterior,
    {"joint": JOINT},
    ("axis", "normalised over x", ("axis", "over x", "p(x | z)", "column", "likelihood")),
    ("prior", "likelihood normalised without the prior", ("prior", "p(z)")),
    ("mean", "mean over z for the sum", ("mean", "sum", "1/Z", "average")),
    ("softmax", "softmax of probabilities, not of logarithms", ("softmax", "exp", "logarithm")),
)


def posterior_kl(w):
    def value(joint, q):
        post = joint / joint.sum(axis=1, keepdims=True)
        if w == "joint":
            post = joint
        if w == "reverse":
            return np.sum(post * np.log(post / q), axis=1)
        if w == "prior":
            post = np.broadcast_to(joint.sum(axis=0), joint.shape)
        if w == "jeffreys":
            return 0.5 * np.sum((q - post) * np.log(q / post), axis=1)
        return np.sum(q * np.log(q / post), axis=1)

    return {"kl": value}


family(
    "posterior_kl",
    posterior_kl,
    {"joint": JOINT, "q": Q},
    ("joint", "the joint not normalised: −ELBO", ("normalis", "log p(x)", "ELBO", "evidence", "joint")),
    ("reverse", "KL(p(z|x)‖q), as expectation propagation", ("revers", "swap", "exchang", "order")),
    ("prior", "KL to the prior", ("prior", "p(z)")),
    ("jeffreys", "mean of both orders", ("symmetr", "both orders", "mean of")),
)

LG = {"x": draws(21, 4, 3), "W": draws(22, 3, 2), "mean": np.array([0.4, -0.1, 0.2]), "noise_variance": 0.5}


def lg_posterior(w):
    def value(x, W, mean, noise_variance):
        M = W.T @ W + noise_variance * np.eye(W.shape[1])
        if w == "no prior":
            M = W.T @ W
        if w == "identity":
            M = W.T @ W + np.eye(W.shape[1])
        r = x if w == "centre" else x - mean
        z = np.linalg.solve(M, W.T @ r.T).T
        if w == "cov":
            return z, np.linalg.inv(M)
        return z, noise_variance * np.linalg.inv(M)

    return {"posterior": value}


family(
    "linear_gaussian_posterior",
    lg_posterior,
    LG,
    ("centre", "x not centred", ("μ", "mean", "centr")),
    ("cov", "covariance M⁻¹ without σ²", ("σ²", "noise variance")),
    ("no prior", "least squares: the prior left out", ("prior", "least squares", "regression", "pseudo")),
    ("identity", "I for σ² I in M", ("σ²", "σ² I", "I is", "identity", "noise variance")),
)


def lg_elbo(w):
    def value(x, W, mean, noise_variance, q_mean, q_cov):
        d, k = W.shape
        r = x - q_mean @ W.T - mean
        trace = 0.0 if w == "trace" else np.sum((W @ q_cov) * W)
        log_lik = -0.5 * (np.sum(r**2, axis=1) + trace) / noise_variance - d / 2 * np.log(2 * np.pi * noise_variance)
        _, logdet = np.linalg.slogdet(q_cov)
        if w == "diag":
            logdet = np.log(np.diag(q_cov)).sum()
        k = 1 if w == "latents" else k
        klq = 0.5 * (np.trace(q_cov) + np.sum(q_mean**2, axis=1) - k - logdet)
        if w == "entropy":
            klq = 0.5 * (np.trace(q_cov) + np.sum(q_mean**2, axis=1))
        return log_lik - klq

    return {"elbo": value}


family(
    "linear_gaussian_elbo",
    lg_elbo,
    LG | {"q_mean": draws(23, 4, 2), "q_cov": np.array([[0.5, 0.2], [0.2, 0.3]])},
    (
        "trace",
        "decoder at the mean of q only, without tr(W Σ Wᵀ)",
        ("trace", "tr(", "mean of q", "variance of q", "covariance of q"),
    ),
    ("diag", "determinant of q by its diagonal", ("diagonal", "off-diagonal", "correlation")),
    ("latents", "1 for k: right for one latent", ("latents", "1/k", "k is", "latent", "dimension")),
    ("entropy", "log p(z) without the entropy of q", ("entropy", "log q", "log 2πe")),
)


def mean_field(w):
    def value(x, W, mean, noise_variance):
        P = np.eye(W.shape[1]) + W.T @ W / noise_variance
        h = (x - mean) @ W / noise_variance
        z = np.linalg.solve(P, h.T).T
        if w == "one sweep":
            z = np.zeros_like(h)
            for i in range(W.shape[1]):
                others = z @ P[:, i] - z[:, i] * P[i, i]
                z[:, i] = (h[:, i] - others) / P[i, i]
        if w == "jacobi":
            z = h / np.diag(P)
        v = 1 / np.diag(P)
        if w == "marginal":
            v = np.diag(np.linalg.inv(P))
        if w == "prior":
            v = noise_variance / np.sum(W**2, axis=0)
        if w == "std":
            v = np.sqrt(v)
        return z, v

    return {"mean_field": value}


family(
    "mean_field",
    mean_field,
    LG,
    (
        "marginal",
        "marginal variances of the posterior, the other KL",
        ("marginal", "revers", "inverse", "KL(p", "Σ_ii", "diagonal of"),
    ),
    ("one sweep", "one sweep of coordinate ascent from 0", ("sweep", "converge", "iterat", "coordinate")),
    (
        "jacobi",
        "correlations ignored in the means",
        ("correlat", "off-diagonal", "diagonal", "other latents", "explaining"),
    ),
    ("prior", "no 1 of the prior in the precision", ("prior", "+ 1", "σ² I", "I is", "identity")),
    ("std", "standard deviations for variances", ("standard deviation", "root", "square")),
)

# -- EM, in the style of scikit-learn --------------------------------------------------------------------------------

EM_X = np.concatenate([draws(24, 8, 2) * [1.0, 0.5] + [1.5, 0.3], draws(25, 7, 2) * 0.7 - [1.2, 0.4]])
EM_W = np.array([0.35, 0.65])
EM_M = np.array([[1.0, 0.2], [-0.8, -0.1]])
EM_C = np.array([[[1.0, 0.2], [0.2, 0.6]], [[0.7, -0.1], [-0.1, 0.9]]])
EM = {"x": EM_X, "weights": EM_W, "means": EM_M, "covariances": EM_C}


def log_gauss(x, means, covariances, w=""):
    out = np.empty((len(x), len(means)))
    for k, (m, c) in enumerate(zip(means, covariances, strict=True)):
        r = x - m
        maha = np.einsum("ni,ij,nj->n", r, np.linalg.inv(c), r)
        if w == "diagonal":
            maha = np.sum(r**2 / np.diag(c), axis=1)
        logdet = np.linalg.slogdet(c)[1]
        if w == "det":
            logdet = 2 * logdet
        if w == "no det":
            logdet = 0.0
        d = 0 if w == "2pi" else x.shape[1]
        out[:, k] = -0.5 * (maha + logdet + d * np.log(2 * np.pi))
    return out


def log_resp(x, weights, means, covariances, w=""):
    joint = log_gauss(x, means, covariances, w) + (0 if w == "no weights" else np.log(weights))
    return joint - logsumexp(joint, axis=1, keepdims=True), logsumexp(joint, axis=1)


def e_step(w):
    def responsibilities(x, weights, means, covariances):
        if w in ("naive", "axis", "eps"):
            density = np.exp(log_gauss(x, means, covariances)) * weights
            with np.errstate(invalid="ignore"):
                if w == "eps":
                    return density / (density.sum(axis=1, keepdims=True) + 1e-8)
                return density / density.sum(axis=0 if w == "axis" else 1, keepdims=True)
        return np.exp(log_resp(x, weights, means, covariances, w)[0])

    return {"responsibilities": responsibilities}


family(
    "e_step",
    e_step,
    EM,
    ("naive", "densities without log-sum-exp", ("underflow", "logarithm", "log ", "softmax", "0/0", "NaN", "finite")),
    ("axis", "normalised over the examples", ("axis", "example", "over x", "column", "over the points")),
    ("no weights", "mixing weights left out", ("weight", "π", "prior")),
    ("no det", "determinants left out", ("determinant", "log|", "log det", "normalis")),
    (
        "eps",
        "1e-8 added to the denominator",
        ("1e-8", "1e-08", "denominator", "underflow", "added", "not normalised", "sum to 1"),
    ),
    ("diagonal", "only the diagonals of the covariances", ("diagonal", "off-diagonal", "correlation")),
)


def m_step(x, r, w="", old_means=None):
    n = r.sum(axis=0)
    weights = n / len(x)
    means = r.T @ x / n[:, None]
    centre = old_means if w == "old means" else means
    covs = []
    for k in range(r.shape[1]):
        d = x - centre[k]
        denominator = n[k] - 1 if w == "bessel" else n[k]
        c = (r[:, k, None] * d).T @ d / denominator
        if w == "squared":
            c = (r[:, k, None] ** 2 * d).T @ d / np.sum(r[:, k] ** 2)
        if w == "jitter":
            c = c + 1e-6 * np.eye(x.shape[1])
        covs.append(c)
    if w == "uniform":
        weights = np.full(len(n), 1 / len(n))
    return weights, means, np.array(covs)


def em(w):
    def step(x, weights, means, covariances):
        r = np.exp(log_resp(x, weights, means, covariances)[0])
        if w == "hard":
            r = np.eye(len(weights))[r.argmax(axis=1)]
        return m_step(x, r, w, means)

    return {"step": step}


family(
    "em",
    em,
    EM,
    ("old means", "covariance about the old means", ("old mean", "previous mean", "means before", "old")),
    ("bessel", "N_k − 1 in the covariances", ("N_k − 1", "N_k−1", "Bessel", "unbiased", "− 1", "−1")),
    ("uniform", "weights never updated", ("weight", "uniform", "1/K", "not updated")),
    ("hard", "hard assignments", ("hard", "k-means", "argmax", "0 or 1", "largest")),
    ("squared", "squared responsibilities in the covariance", ("square", "r²", "responsibilit")),
    (
        "jitter",
        "1e-6 added to the diagonal, as reg_covar",
        ("1e-6", "1e-06", "regular", "diagonal", "added", "reg_covar", "ridge"),
    ),
)


def em_loop(w):
    def run_em():
        weights, means, covs = EM_W, EM_M, EM_C
        history = []
        r = None
        for _ in range(3):
            new_r, log_p = log_resp(EM_X, weights, means, covs)
            if r is None or w != "stale":
                r = np.exp(new_r)
            history.append(log_p.sum() if w == "sum" else log_p.mean())
            old = (weights, means, covs)
            weights, means, covs = m_step(EM_X, r, "", means)
            if w == "after":
                history[-1] = log_resp(EM_X, weights, means, covs)[1].mean()
        history.append(log_resp(EM_X, weights, means, covs)[1].mean() * (len(EM_X) if w == "sum" else 1))
        if w == "before last":
            weights, means, covs = old
        return np.array(history), weights, means, covs

    return {"em": run_em}


family(
    "em_loop",
    em_loop,
    EM | {"n_steps": 3},
    ("stale", "the E-step is not repeated", ("stale", "responsibilit", "old", "first E-step", "not repeated")),
    ("after", "the objective recorded after the M-step", ("after", "M-step", "one step", "later", "shift", "next")),
    (
        "before last",
        "the mixture before the last M-step returned",
        ("last M-step", "one step", "before", "earlier", "missing"),
    ),
    ("sum", "the sum of log p for its mean", ("sum", "mean", "1/N", "N times")),
)

LOG_R = np.log(np.stack([0.2 + 0.6 * ndtr(EM_X[:, 0]), 0.8 - 0.6 * ndtr(EM_X[:, 0])], axis=1))


def free_energy(w):
    def value(x, log_q, weights, means, covariances):
        q = np.exp(log_q)
        joint = log_gauss(x, means, covariances) + np.log(weights)
        entropy = -np.sum(q * log_q, axis=1)
        if w == "no entropy":
            return np.sum(q * joint, axis=1)
        if w == "sign":
            return np.sum(q * joint, axis=1) - entropy
        if w == "evidence":
            return logsumexp(joint, axis=1)
        if w == "weights":
            return np.sum(q * log_gauss(x, means, covariances), axis=1) + entropy
        return np.sum(q * joint, axis=1) + entropy

    return {"free_energy": value}


family(
    "free_energy",
    free_energy,
    EM | {"log_resp": LOG_R},
    ("no entropy", "expected complete log-likelihood without the entropy", ("entropy", "log q")),
    ("sign", "entropy subtracted", ("sign", "subtract", "minus")),
    (
        "evidence",
        "log p(x), whatever q is",
        ("log p", "KL", "q is not used", "does not depend on q", "ignores q", "evidence"),
    ),
    ("weights", "log of the mixing weights left out", ("weight", "prior", "p(z)", "π")),
)

SPREAD_K = np.array([[[1.0, 0.3], [0.3, 0.6]], [[0.4, -0.1], [-0.1, 1.5]], [[0.8, 0.2], [0.2, 0.2]]])
COUNTS = np.array([12.0, 5.0, 20.0])


def covariance_types(w):
    def maximum(kind, variance, count):
        S, n, d = SPREAD_K, COUNTS, 2
        post = (n[:, None, None] * S + count * variance * np.eye(d)) / (n + count)[:, None, None]
        if w == "prior count":
            post = (n[:, None, None] * S + count * variance * np.eye(d)) / n[:, None, None]
        if kind == "full":
            return post
        if kind == "tied":
            total = (n[:, None, None] * S).sum(axis=0) + count * variance * np.eye(d)  # one covariance, one prior
            t = post.mean(axis=0) if w == "tied mean" else total / (n.sum() + count)
            return np.repeat(t[None], len(n), axis=0)
        diagonal = np.einsum("kii->ki", post)
        if kind == "diag":
            if w == "inverse diag":
                diagonal = 1 / np.einsum("kii->ki", np.linalg.inv(post))
            return np.array([np.diag(v) for v in diagonal])
        v = diagonal.sum(axis=1) if w == "trace" else diagonal.mean(axis=1)
        return v[:, None, None] * np.eye(d)

    return {"maximum": maximum}


family(
    "covariance_types",
    covariance_types,
    {"spread": SPREAD_K, "counts": COUNTS, "floor": 1e-6},
    (
        "tied mean",
        "tied: mean of the covariances not weighted by the counts",
        ("weight", "count", "N_k", "unweighted", "mean of"),
    ),
    ("trace", "spherical: trace without 1/D", ("1/D", "trace", "sum", "mean")),
    (
        "inverse diag",
        "diag: inverse of the precision's diagonal",
        ("precision of", "precisions", "inverse", "conditional"),
    ),
    ("prior count", "the prior's count not in the denominator", ("denominator", "count", "N_k")),
)


def kmeans(w):
    def lloyd(x, centres):
        c = np.array(centres, float)
        for _i in range(100):
            d = ((x[:, None] - c[None]) ** 2).sum(axis=2)
            if w == "city":
                d = np.abs(x[:, None] - c[None]).sum(axis=2)
            a = d.argmin(axis=1)
            new = np.array([x[a == k].mean(axis=0) if np.any(a == k) else c[k] for k in range(len(c))])
            if w == "median":
                new = np.array([np.median(x[a == k], axis=0) if np.any(a == k) else c[k] for k in range(len(c))])
            if np.array_equal(new, c) or w == "once":
                return new
            c = new
        return c

    return {"kmeans": lloyd}


KM_X = draws(26, 40, 2) @ np.array([[1.0, 0.8], [-0.8, 1.0]])
family(
    "kmeans",
    kmeans,
    {"x": KM_X, "centres": KM_X[[0, 1, 2]]},
    ("once", "one iteration only", ("one step", "one iteration", "once", "first iteration", "not converged", "stops")),
    ("median", "medians for means", ("median",)),
    ("city", "sum of absolute differences for the distance", ("absolute", "L1", "city", "Manhattan")),
)


def statistics(w):
    def value():
        log_r, log_p = log_resp(EM_X, EM_W, EM_M, EM_C)
        r = np.exp(log_r)
        _, means, covs = m_step(EM_X, r, {"old": "old means", "bessel": "bessel"}.get(w, ""), EM_M)
        if w == "raw":
            covs = np.einsum("nk,ni,nj->kij", r, EM_X, EM_X) / r.sum(axis=0)[:, None, None]
        counts = r.mean(axis=0) if w == "share" else r.sum(axis=0)
        return counts, means, covs, (np.exp(log_p).mean() if w == "density" else log_p.mean())

    return {"statistics": value}


family(
    "statistics",
    statistics,
    EM,
    ("raw", "second moments without the square of the mean", ("second moment", "mean", "centr", "subtract")),
    ("share", "shares for counts", ("1/N", "share", "weights", "mean", "divided by N")),
    ("density", "mean density for mean log-density", ("logarithm", "log ", "density")),
    ("bessel", "N_k − 1 in the covariances", ("N_k − 1", "N_k−1", "Bessel", "unbiased", "− 1", "−1")),
)

TABLE_X = np.array([[0, 1], [2, 0], [1, 1], [2, 2], [0, 0], [1, 2], [2, 1], [0, 1]])
TABLE_P = np.array([[[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]], [[0.2, 0.2, 0.6], [0.4, 0.3, 0.3]]])


def table_em(w):
    pseudo = np.array([[0.3, 0.4, 0.5], [0.6, 0.2, 0.4]])

    def step(x, weights, tables):
        x = np.asarray(x).astype(int)
        joint = np.tile(weights, (len(x), 1))
        for d in range(x.shape[1]):
            joint = joint * tables[:, d, x[:, d]].T
        log_p = np.log(joint.sum(axis=1))
        r = joint / joint.sum(axis=1, keepdims=True)
        if w == "hard":
            r = np.eye(len(weights))[r.argmax(axis=1)]
        new = np.empty_like(tables)
        for d in range(x.shape[1]):
            counts = r.T @ np.eye(tables.shape[2])[x[:, d]]
            if w != "pseudo":
                counts = counts + pseudo[d]
            total = counts.sum(axis=1, keepdims=True)
            if w == "denominator":
                total = r.sum(axis=0)[:, None]
            if w == "levels":
                total = counts.sum(axis=0, keepdims=True)
            new[:, d] = counts / total
        new_weights = r.mean(axis=0)
        if w == "weights":
            new_weights = (r.sum(axis=0) + 1) / (len(x) + len(weights))
        return log_p, new_weights, new

    return {"step": step, "pseudo_counts": pseudo}


family(
    "table_em",
    table_em,
    {"x": TABLE_X, "weights": np.array([0.4, 0.6]), "tables": TABLE_P},
    ("pseudo", "pseudo-counts left out", ("pseudo", "smooth", "prior")),
    ("denominator", "pseudo-counts in the numerator only", ("numerator", "denominator", "sum to 1", "normalis")),
    ("levels", "normalised over components", ("component", "axis", "P(k", "over k")),
    ("weights", "one pseudo-example a component in the weights", ("weight", "pseudo", "+ 1", "Laplace", "smooth")),
    ("hard", "hard assignments", ("hard", "argmax", "0 or 1", "largest", "k-means")),
)


def free_m_step(w):
    def step(p_x, q):
        joint = p_x[:, None] * q
        q_z = joint.sum(axis=0)
        if w == "uniform":
            u = q / q.sum(axis=0)
            return u, q.mean(axis=0)
        if w == "axis":
            return joint / joint.sum(axis=1, keepdims=True), q_z
        if w == "joint":
            return joint, q_z
        return joint / q_z, q_z

    return {"m_step": step}


family(
    "free_m_step",
    free_m_step,
    {"p_x": P_X, "q": Q, "prior": PRIOR},
    ("uniform", "p(x) forgotten", ("p(x)", "uniform", "weight")),
    ("axis", "normalised over z", ("over z", "axis", "q(z | x)", "row")),
    ("joint", "not divided by q(z)", ("q(z)", "joint", "normalis", "divided")),
)

PC_S = np.cov(draws(29, 40, 4) @ draws(30, 4, 4), rowvar=False)
PC_W = draws(31, 4, 2)


def ppca_maximum(w):
    def value(S, k):
        lam, U = np.linalg.eigh(S)
        lam, U = lam[::-1], U[:, ::-1]
        noise = lam[k:].mean()
        if w == "sum":
            noise = lam[k:].sum()
        if w == "over D":
            noise = lam[k:].sum() / len(lam)
        gain = np.sqrt(np.maximum(lam[:k] - (0 if w == "pca" else noise), 0))
        if w == "no root":
            gain = lam[:k] - noise
        return U[:, :k] * gain, noise

    return {"maximum": value}


family(
    "ppca_maximum",
    ppca_maximum,
    {"S": PC_S, "n_components": 2},
    ("sum", "sum of the other eigenvalues", ("sum", "mean", "D − k", "D−k", "average")),
    ("over D", "divided by D in place of D − k", ("D − k", "D−k", "1/D")),
    ("pca", "loadings of PCA, σ² not subtracted", ("σ²", "PCA", "subtract")),
    ("no root", "λ − σ² without the root", ("root", "square")),
)


def ppca_step(w):
    def step(S, W, noise_variance):
        k = W.shape[1]
        M = W.T @ W + noise_variance * np.eye(k)
        Mi = np.linalg.inv(M)
        SW = S @ W
        second = noise_variance * np.eye(k) + Mi @ W.T @ SW
        if w == "no variance":
            second = Mi @ W.T @ SW
        if w == "transposed":
            second = second.T
        new = SW @ np.linalg.inv(second)
        used = W if w == "stale" else new
        trace = np.trace(S - SW @ Mi @ used.T)
        return new, trace if w == "sum" else trace / len(S)

    return {"step": step}


family(
    "ppca_step",
    ppca_step,
    {"S": PC_S, "W": PC_W, "noise_variance": 0.6},
    ("stale", "the old W in the new σ²", ("old W", "old", "stale", "before")),
    (
        "no variance",
        "posterior means without their covariance",
        ("covariance", "σ²", "variance", "E zz", "posterior mean"),
    ),
    ("sum", "trace without 1/D", ("1/D", "D times", "/D", "factor D", "dimensions", "sum", "trace")),
    ("transposed", "the second moment transposed", ("transpos",)),
)


def factor_step(w):
    def step(S, W, psi):
        k = W.shape[1]
        C = W @ W.T + np.diag(psi)
        B = W.T @ np.linalg.inv(C)
        Ezz = np.eye(k) - B @ W + B @ S @ B.T
        if w == "means":
            Ezz = B @ S @ B.T
        new = S @ B.T @ np.linalg.inv(Ezz)
        used = W if w == "stale" else new
        resid = S - used @ B @ S
        out = np.diag(resid).copy()
        if w == "isotropic":
            out[:] = out.mean()
        if w == "no floor":
            out = np.diag(S - new @ new.T).copy()
        return new, out

    return {"step": step}


family(
    "factor_analysis_step",
    factor_step,
    {"S": PC_S, "W": PC_W, "noise_variance": np.array([0.5, 0.8, 0.6, 1.1])},
    ("stale", "the old W in Ψ", ("old W", "old", "stale", "before")),
    ("means", "E zzᵀ without the posterior covariance", ("covariance", "posterior", "E zz", "means only")),
    ("isotropic", "Ψ averaged, the M-step of PPCA", ("mean", "PPCA", "isotropic", "average", "same")),
    ("no floor", "Ψ = diag(S − W Wᵀ), as in principal factors", ("W Wᵀ", "WWᵀ", "diag", "principal")),
)

# -- SDE, in the convention of score_sde -----------------------------------------------------------------------------


def vp_sde(w):
    b0, b1 = 0.1, 20.0

    def marginal(t):
        t = np.asarray(t, float)
        log_mean = -0.25 * t**2 * (b1 - b0) - 0.5 * t * b0
        if w == "beta t":
            log_mean = -0.5 * t * (b0 + t * (b1 - b0))
        mean, std = np.exp(log_mean), np.sqrt(-np.expm1(2 * log_mean))
        if w == "one exponent":
            std = np.sqrt(-np.expm1(log_mean))
        if w == "sub":
            std = -np.expm1(2 * log_mean)
        return mean, std

    def drift(x, t):
        b = b0 + np.asarray(t) * (b1 - b0)
        b = b if np.ndim(b) == 0 else b[:, None]
        return (-1.0 if w == "drift half" else -0.5) * b * x

    def diffusion(t):
        b = b0 + np.asarray(t) * (b1 - b0)
        return b if w == "g2" else np.sqrt(b)

    return {"marginal": marginal, "drift": drift, "diffusion": diffusion}


family(
    "sde",
    vp_sde,
    {"horizon": 1.0},
    ("g2", "β for √β as the diffusion", ("g²", "root", "square")),
    ("drift half", "drift −β x, ½ forgotten", ("½", "twice", "half")),
    ("one exponent", "1 − scale for 1 − scale²", ("scale²", "1 − scale", "square", "twice")),
    ("beta t", "β(t) t for the integral of β", ("integral", "β(t)", "t²", "½")),
    ("sub", "std of the sub-VP process", ("sub", "1 − scale²", "square", "root", "std²", "variance")),
)


def ve_sde(w):
    lo, hi = 0.02, 4.0

    def marginal(t):
        s = lo * (hi / lo) ** np.asarray(t, float)
        return np.ones_like(s), s

    def diffusion(t):
        s = lo * (hi / lo) ** np.asarray(t, float)
        rate = np.log(hi / lo)
        if w == "no 2":
            return s * np.sqrt(rate)
        if w == "outside":
            return s * np.sqrt(2) * rate
        return s * np.sqrt(2 * rate)

    return {"marginal": marginal, "drift": lambda x, t: 0.0 * x, "diffusion": diffusion}


family(
    "sde",
    ve_sde,
    {"horizon": 1.0},
    (
        "no 2",
        "g² = σ² log(σ_max/σ_min), 2 forgotten",
        ("factor 2", "twice", "the 2", "2 is missing", "half", "½", "dσ²"),
    ),
    ("outside", "the logarithm outside the root", ("root", "logarithm", "log ", "square")),
)


def discretise(w):
    sde, T = VP(0.2, 12.0, 2.0), 10

    def table():
        h = sde.horizon / T
        edge = np.linspace(0, sde.horizon, T + 1)
        if w == "euler":
            return sde.beta(edge[1:]) * h
        if w == "no dt":
            return np.minimum(sde.beta(edge[1:]) / T, 0.999)
        b = sde.beta((edge[1:] + edge[:-1]) / 2) * h  # exact: beta is linear
        if w == "left":
            b = sde.beta(edge[:-1]) * h
        if w == "half":
            b = b / 2
        return 1 - np.exp(-b)

    return {"variances": table()}


family(
    "discretisation",
    discretise,
    {"sde": VP(0.2, 12.0, 2.0)},
    ("euler", "β(t) h, of first order", ("first order", "first-order", "step size", "h²", "exp", "limit")),
    ("no dt", "β/T, as if the horizon were 1", ("horizon", "1/T", "h =")),
    ("left", "β at the start of the step", ("start", "left", "beginning", "t_{i−1}", "earlier")),
    ("half", "½β, the factor of the drift", ("½", "half")),
)

SDE_MEAN, SDE_COV = np.array([0.5, -0.8]), np.array([[0.6, 0.2], [0.2, 0.3]])
VPS = VP(0.3, 8.0, 1.5)
SUB = SubVP(0.3, 8.0, 1.5)
VES = VE(0.1, 5.0, 2.0)
SINGLE = Mixture([1.0], [SDE_MEAN], [SDE_COV])


def reverse_sde(sde, c):
    def coding(w):
        def drift(x, t):
            t = np.asarray(t) if np.ndim(t) else t
            if np.ndim(t):
                return np.concatenate([drift(x[i : i + 1], float(t[i])) for i in range(len(x))])
            scale, std = (float(a) for a in sde.marginal(t))
            score = SINGLE.diffuse(scale, std).score(x)
            f, g = float(sde.rate(t)), float(sde.diffusion(t))
            if w == "clean score":
                score = SINGLE.score(x)
            if w == "sign":
                return f * x + 0.5 * (1 + c**2) * g**2 * score
            if w == "eps":
                score = score * std
            if w == "g":
                return f * x - 0.5 * (1 + c**2) * g * score
            if w == "half":
                return f * x - 0.5 * g**2 * score
            if w == "lambda":
                return f * x - 0.5 * (1 + c) * g**2 * score
            if w == "reverse time":
                return -f * x + 0.5 * (1 + c**2) * g**2 * score
            return f * x - 0.5 * (1 + c**2) * g**2 * score

        def diffusion(t):
            g = sde.diffusion(t)
            return c**2 * g if w == "noise2" else c * g

        return {"drift": drift, "diffusion": diffusion}

    return coding


R = {"mean": SDE_MEAN, "covariance": SDE_COV}
family(
    "reverse_sde",
    reverse_sde(VPS, 1.0),
    R | {"sde": VPS},
    ("sign", "the score added", ("sign", "added", "plus")),
    ("half", "½g², the drift of the flow, with noise", ("½", "half", "flow")),
    ("g", "g for g²", ("g for g²", "g in place of g²", "g(t) in place", "root", "square")),
    (
        "eps",
        "the noise in place of the score: not divided by std",
        ("std ", "std²", "std is", "standard deviation", "noise", "ε itself", "of ε", "ε for"),
    ),
    ("reverse time", "sign of dt in the drift as well", ("sign", "time", "dt", "negative")),
)
family(
    "reverse_sde",
    reverse_sde(SUB, 0.5),
    R | {"sde": SUB, "stochasticity": 0.5},
    ("lambda", "(1 + λ)/2 for (1 + λ²)/2", ("λ", "square", "1 + λ", "(1 +", "stochasticity")),
    ("noise2", "λ² g as the diffusion", ("λ", "square", "stochasticity")),
    ("clean score", "the score of the data, not of the diffused data", ("diffus", "data", "clean", "p_0", "t = 0")),
)

STEP_MEAN, STEP_VAR = np.array([0.4, -0.7, 1.1]), np.array([0.3, 0.9, 0.5])


def reverse_step(sde, c):
    def coding(w):
        def step(x, t, s, noise):
            scale, std = (float(a) for a in sde.marginal(t))
            var = scale**2 * STEP_VAR + std**2
            if w == "noise only":
                var = std**2
            score = -(x - (STEP_MEAN if w == "mean" else scale * STEP_MEAN)) / var
            f, g = float(sde.rate(t)), float(sde.diffusion(t))
            dt = t - s if w == "dt" else s - t
            k = 1.0 if w == "built in" else 0.5 * (1 + c**2)
            move = (f * x - k * g**2 * score) * dt
            spread = np.sqrt(abs(dt))
            if w == "root dt":
                spread = abs(dt)
            if w == "share":
                noise = noise[:, :1]
            return x + move + c * g * spread * noise

        return {"step": step}

    return coding


SR = {"mean": STEP_MEAN, "variance": STEP_VAR}
family(
    "reverse_step",
    reverse_step(VPS, 1.0),
    SR | {"sde": VPS},
    ("dt", "dt > 0 in the drift", ("sign", "dt", "forward", "direction")),
    ("root dt", "dt for √dt before the noise", ("√", "root", "dt", "t − s")),
    ("mean", "the mean of the diffused data not scaled", ("scale", "mean")),
    ("share", "one noise for all dimensions", ("dimension", "shared", "column")),
)
family(
    "reverse_step",
    reverse_step(VES, 0.0),
    SR | {"sde": VES, "stochasticity": 0.0},
    ("built in", "g² without ½ in the flow: the drift of the SDE", ("½", "twice", "half", "SDE")),
    (
        "noise only",
        "score of one clean point: the variance of the data left out",
        ("variance of the data", "data", "std²", "score"),
    ),
)


def any_score(x, t):
    return -np.asarray(x) / (1 + 0.3 * t) + 0.2 * np.cos(np.asarray(x) + t)


TIMES = np.array([1.4, 1.0, 0.75, 0.3, 0.1, 0.02])


def reverse_sampler(sde, c, corrections=0):
    def coding(w):
        snr = 0.16

        def sample(x, times, noise):
            if w == "even":
                times = np.linspace(times[0], times[-1], len(times))
            if w == "upwards":
                times = times[::-1]
            n = len(times) - 1
            for i in range(n - 1 if w == "last" else n):
                t, s = float(times[i]), float(times[i + 1])
                z = noise[i, 0] if corrections else noise[i]
                if w == "denoise" and i == n - 1:
                    z = 0 * z
                f, g = float(sde.rate(t)), float(sde.diffusion(t))
                x = x + (f * x - 0.5 * (1 + c**2) * g**2 * any_score(x, t)) * (s - t) + c * g * np.sqrt(abs(t - s)) * z
                for j in range(corrections):
                    at = t if w == "corrector time" else s
                    delta = 2 * (snr * float(sde.std(at))) ** 2
                    z = noise[i, 0] if w == "same noise" else noise[i, 1 + j]
                    x = x + delta * any_score(x, at) + np.sqrt(delta if w == "langevin" else 2 * delta) * z
            return x

        return {"sample": sample}

    return coding


RS = {"score": any_score, "times": TIMES}
family(
    "reverse_sampler",
    reverse_sampler(VPS, 1.0),
    RS | {"sde": VPS},
    ("even", "an even grid from first to last time", ("even", "grid", "constant", "equal", "uniform")),
    ("last", "the last step is missing", ("last step", "missing", "stops")),
    ("denoise", "no noise in the last step", ("last step", "no noise", "without noise")),
    ("upwards", "times from small to large", ("revers", "order", "upward", "time")),
)
family(
    "reverse_sampler",
    reverse_sampler(VES, 1.0, 2),
    RS | {"sde": VES, "n_corrections": 2, "snr": 0.16},
    ("corrector time", "the corrector at the time before the step", ("before", "start", "at t", "time of")),
    (
        "langevin",
        "√δ for √(2δ) in the corrector",
        ("√2", "factor 2", "twice", "the 2", "2 is missing", "√δ", "Langevin", "½"),
    ),
    ("same noise", "the predictor's noise in the corrector", ("same noise", "predictor", "reuse", "shared")),
)


def heun(w):
    sde = VPS

    def sample(x, times):
        for t, s in itertools.pairwise(times):
            t, s = float(t), float(s)

            def slope(y, u):
                return float(sde.rate(u)) * y - 0.5 * float(sde.diffusion(u)) ** 2 * any_score(y, u)

            d = slope(x, t)
            y = x + (s - t) * d
            e = slope(x if w == "stale" else y, t if w == "same time" else s)
            if w == "midpoint":
                x = x + (s - t) * slope(x + (s - t) / 2 * d, (s + t) / 2)
            elif w == "twice":
                x = y + (s - t) / 2 * (d + e)
            elif w == "last euler" and s == float(times[-1]):
                x = y
            else:
                x = x + (s - t) / 2 * (d + e)
        return x

    return {"sample": sample}


family(
    "heun",
    heun,
    RS | {"sde": VPS},
    ("same time", "the second slope at the time of the first", ("time", "at t", "start")),
    ("stale", "the second slope at the old x", ("old x", "at x", "Euler", "not at")),
    ("twice", "the corrected step added to Euler's", ("twice", "Euler", "added")),
    ("midpoint", "midpoint method for Heun's", ("midpoint", "middle")),
    ("last euler", "Euler in the last step, as in EDM", ("last step", "Euler")),
)


def langevin(w):
    def step(x, t, noise):
        std = float(VES.std(t))
        delta = 2 * (0.2 * std) ** 2
        score = -x / np.array([0.5, 1.0, 2.0])
        if w == "snr":
            delta = 2 * 0.2 * std**2
        if w == "half":
            delta = (0.2 * std) ** 2
        spread = np.sqrt(delta) if w == "root 2" else np.sqrt(2 * delta)
        if w == "sign":
            return x - delta * score + spread * noise
        return x + delta * score + spread * noise

    return {"step": step}


family(
    "langevin_step",
    langevin,
    {"sde": VES, "variance": np.array([0.5, 1.0, 2.0]), "snr": 0.2},
    ("root 2", "√δ for √(2δ)", ("√2", "√δ", "factor 2", "twice", "the 2", "2 is missing", "½")),
    ("snr", "snr not squared", ("snr", "square")),
    ("sign", "downhill", ("sign", "minus", "negative", "descent", "down")),
    ("half", "δ without 2", ("factor 2", "twice", "the 2", "2 is missing", "half", "½", "δ")),
)

# -- densities and scores of mixtures --------------------------------------------------------------------------------

MW = np.array([0.3, 0.5, 0.2])
MM = np.array([[1.5, 0.0], [-1.0, 0.8], [0.2, -1.6]])
MC = np.array([[[0.5, 0.15], [0.15, 0.3]], [[0.4, -0.1], [-0.1, 0.6]], [[0.3, 0.05], [0.05, 0.5]]])
MIX = Mixture(MW, MM, MC)
MX = draws(32, 5, 2) * 1.5


def log_prob(w):
    def value(x):
        joint = log_gauss(x, MM, MC, w)
        if w == "no weights":
            return logsumexp(joint, axis=1) - np.log(len(MW))
        if w == "log of mean":
            return joint @ MW
        if w == "clamp":
            return np.log(np.exp(joint) @ MW + 1e-30)
        return logsumexp(joint + np.log(MW), axis=1)

    return {"log_prob": value}


family(
    "log_prob",
    log_prob,
    {"mixture": MIX, "x": MX},
    ("det", "log|C| without ½", ("½", "determinant", "log|", "twice", "log det")),
    ("2pi", "(D/2) log 2π left out", ("2π", "constant", "normalis")),
    ("no weights", "equal weights", ("weight", "equal", "1/K", "uniform")),
    ("log of mean", "mean of the log-densities", ("mean", "log-sum-exp", "logsumexp", "Jensen", "Σ w")),
    (
        "clamp",
        "1e-30 added before the logarithm",
        ("underflow", "1e-30", "log-sum-exp", "logsumexp", "added", "far", "floor"),
    ),
)


def mix_score(x, weights, means, covs, w=""):
    joint = log_gauss(x, means, covs) + np.log(weights)
    r = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    if w == "prior weights":
        r = np.broadcast_to(weights, r.shape)
    if w == "nearest":
        r = np.eye(len(weights))[joint.argmax(axis=1)]
    total = np.zeros_like(x)
    for k, (m, c) in enumerate(zip(means, covs, strict=True)):
        p = np.linalg.inv(c)
        if w == "diagonal":
            p = np.diag(1 / np.diag(c))
        total = total + (1 if w == "sign" else -1) * r[:, k, None] * ((x - m) @ p)
    return total


def score(w):
    def value(x):
        s = mix_score(x, MW, MM, MC, w)
        return s

    return {"score": value}


family(
    "score",
    score,
    {"mixture": MIX, "x": MX},
    ("sign", "x − m with a plus", ("sign", "negative", "minus")),
    ("prior weights", "mixing weights for responsibilities", ("weight", "responsibilit", "posterior", "p(k")),
    (
        "nearest",
        "only the most probable component",
        ("nearest", "largest", "one component", "hard", "argmax", "most probable"),
    ),
    ("diagonal", "inverse of the diagonals", ("diagonal", "off-diagonal", "correlation")),
)


def denoiser(w):
    def denoise(x_t, scale, std):
        means, covs = scale * MM, scale**2 * MC + std**2 * np.eye(2)
        s = mix_score(x_t, MW, means, covs)
        if w == "tweedie sign":
            return (x_t - std**2 * s) / scale
        if w == "no scale":
            return x_t + std**2 * s
        if w == "first power":
            return (x_t + std * s) / scale
        joint = log_gauss(x_t, means, covs) + np.log(MW)
        r = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        if w == "nearest":
            r = np.eye(len(MW))[joint.argmax(axis=1)]
        out = np.zeros_like(x_t)
        for k in range(len(MW)):
            gain = scale * MC[k] @ np.linalg.inv(covs[k])
            m = MM[k] if w == "mean" else scale * MM[k]
            out = out + r[:, k, None] * (MM[k] + (x_t - m) @ gain.T)
        return out

    return {"denoise": denoise}


family(
    "denoiser",
    denoiser,
    {"mixture": MIX, "x_t": MX, "scale": 0.7, "std": 0.6},
    ("tweedie sign", "x − std² s", ("sign", "minus", "subtract")),
    ("no scale", "not divided by scale", ("scale",)),
    ("first power", "std for std² before the score", ("std ", "std²", "std is", "standard deviation", "square")),
    ("mean", "residual about m, not scale · m", ("scale", "mean")),
    (
        "nearest",
        "the most probable component only",
        ("nearest", "largest", "one component", "hard", "argmax", "most probable"),
    ),
)


def matching(w):
    def denoising(s, noise, std):
        target = -noise / std
        if w == "noise target":
            target = -noise
        if w == "sign":
            target = noise / std
        e = (s - target) ** 2
        if w == "weighted":
            e = e * std**2
        return e.mean(axis=1) if w == "mean" else e.sum(axis=1)

    def implicit(s, divergence):
        if w == "no 2":
            return np.sum(s**2, axis=1) + divergence
        return np.sum(s**2, axis=1) + 2 * divergence

    def sliced(s, direction, derivative):
        if w == "sum":
            return np.sum(s**2, axis=1) + 2 * np.sum(derivative, axis=1)
        return np.sum(s * direction, axis=1) ** 2 + 2 * np.sum(direction * derivative, axis=1)

    return {"denoising": denoising, "implicit": implicit, "sliced": sliced}


family(
    "score_matching",
    matching,
    {
        "mixture": MIX,
        "scale": 0.8,
        "std": 0.5,
        "score": lambda x: -0.7 * x + 0.3 * np.sin(x),
        "divergence": lambda x: np.sum(-0.7 + 0.3 * np.cos(x), axis=1),
    },
    (
        "noise target",
        "target −ε, not divided by std",
        ("std ", "std²", "std is", "standard deviation", "divided", "ε itself", "of ε", "ε for"),
    ),
    ("sign", "target +ε/std", ("sign", "+ε", "plus")),
    ("weighted", "weight std² in the loss", ("std²", "weight", "λ")),
    ("mean", "mean over dimensions", ("mean", "1/D", "average")),
    ("no 2", "divergence without 2", ("factor 2", "twice", "the 2", "2 is missing", "half", "½")),
    ("sum", "derivative not multiplied by the direction", ("direction", "probe", "projection", "vᵀ")),
    slow=True,
)


def continuous(w):
    sde, slope, t_min = VPS, 0.6, 0.01
    hi, lo = float(sde.log_snr(t_min)), float(sde.log_snr(sde.horizon))

    def prior(x0):
        a, b = sde.level(sde.horizon)
        pi = 1.0 if w == "unit" else b
        r = b**2 / pi**2
        return 0.5 * np.sum((a * x0 / pi) ** 2 + r - 1 - np.log(r), axis=1)

    def diffusion(x0, t, noise):
        a, b = (v[:, None] for v in sde.marginal(t))
        e = np.sum((noise - slope * (a * x0 + b * noise)) ** 2, axis=1)
        if w == "no interval":
            return 0.5 * e
        if w == "no half":
            return (hi - lo) * e
        if w == "dt":
            return 0.5 * (sde.horizon - t_min) * e * sde.beta(t)
        return 0.5 * (hi - lo) * e

    def recon(x0, noise):
        a, b = sde.level(t_min)
        x = a * x0 + b * noise
        v = b**2 if w == "variance" else (b / a) ** 2
        return gaussian_nll(x0, x / a, v)

    return {
        "prior_loss": prior,
        "diffusion_loss": diffusion,
        "reconstruction_loss": recon,
        "t_min": t_min,
        "slope": slope,
    }


family(
    "continuous_bound",
    continuous,
    {"sde": VPS, "x0": DATA2},
    ("unit", "N(0, I) as the prior", ("N(0, I)", "prior", "unit", "std(T)", "π")),
    ("no half", "no ½ before the integral", ("½", "twice", "half")),
    ("no interval", "the length of the log-SNR interval forgotten", ("log-SNR", "length", "interval", "mean for", "λ")),
    (
        "dt",
        "weight g² without 1/std², the noise taken for the score",
        ("std ", "std²", "std is", "standard deviation", "g²", "weight", "score"),
    ),
    ("variance", "decoder variance std² for (std/scale)²", ("scale", "variance")),
)


def divergence(w):
    A, std = 0.6 * draws(33, 3, 3), 0.7

    def eps_hat(x):
        return np.tanh(x @ A) + 0.1 * x

    def jacobian(x):
        s2 = 1 - np.tanh(x @ A) ** 2
        return np.einsum("ni,di->nid", s2, A) + 0.1 * np.eye(3)

    def value(x, probes):
        jac = -jacobian(x) / (1 if w == "std" else std)
        s = -eps_hat(x) / std
        if probes is None:
            div = jac.sum(axis=(1, 2)) if w == "all entries" else np.einsum("nii->n", jac)
        else:
            div = np.einsum("pni,nij,pnj->pn", probes, jac, probes)
            div = div.sum(axis=0) if w == "sum" else div.mean(axis=0)
            if w == "unit":
                n = probes / np.linalg.norm(probes, axis=2, keepdims=True)
                div = np.einsum("pni,nij,pnj->pn", n, jac, n).mean(axis=0)
        return s, -div if w == "sign" else div

    return {"score_and_divergence": value, "eps_hat": eps_hat, "std": std}


family(
    "divergence",
    divergence,
    {"x": draws(34, 4, 3), "probes": draws(35, 3, 4, 3)},
    ("sign", "the minus of the score forgotten in the divergence", ("sign", "minus", "negative")),
    ("std", "divergence of ε̂ not divided by std", ("std ", "std²", "std is", "standard deviation", "divided", "1/std")),
    (
        "all entries",
        "sum of the whole Jacobian, as autograd of the sum gives",
        ("all entries", "off-diagonal", "sum", "Jacobian", "trace"),
    ),
    ("sum", "sum over probes", ("sum", "mean", "1/n", "average")),
    ("unit", "probes of unit length without D", ("length", "unit", "norm", "D times", "/D", "factor D", "dimensions")),
)


def gauss_legendre(f, a, b, pieces=40, nodes=16):
    u, wt = np.polynomial.legendre.leggauss(nodes)
    edges = np.linspace(a ** (1 / 3), b ** (1 / 3), pieces + 1) ** 3
    total = 0.0
    for lo, hi in itertools.pairwise(edges):
        for x, k in zip(u, wt, strict=True):
            total = total + k * (hi - lo) / 2 * f((hi + lo) / 2 + (hi - lo) / 2 * x)
    return total


def kl_bound(w):
    sde = VPS

    def value(score_error, prior_kl):
        power = 1 if w == "g" else 2
        half = 1.0 if w == "half" else 0.5
        total = half * gauss_legendre(lambda t: float(sde.diffusion(t)) ** power * score_error(t), 0.0, sde.horizon)
        if w == "mean":
            total = total / sde.horizon
        if w == "likelihood":
            total = half * gauss_legendre(lambda t: float(sde.std(t)) ** 2 * score_error(t), 0.0, sde.horizon)
        return total if w == "prior" else total + prior_kl

    return {"kl_bound": value}


family(
    "kl_bound",
    kl_bound,
    {
        "sde": VPS,
        "mean_p": SDE_MEAN,
        "cov_p": SDE_COV,
        "mean_q": np.array([0.1, 0.3]),
        "cov_q": np.array([[0.5, -0.1], [-0.1, 0.8]]),
    },
    ("half", "g² without ½", ("½", "twice", "half")),
    ("g", "g for g²", ("g for g²", "g in place of g²", "g(t) in place", "root", "square")),
    (
        "mean",
        "mean over t for the integral: the horizon is missing",
        ("horizon", "T times", "factor T", "without T", "mean"),
    ),
    ("prior", "KL of the priors left out", ("prior", "KL(p_T")),
    ("likelihood", "weight std² for g²", ("std²", "weight", "g²")),
    slow=True,
)

MIX1 = Mixture([0.4, 0.6], [[-0.8], [0.9]], [[[0.3]], [[0.5]]])
HERMITE_X, HERMITE_W = np.polynomial.hermite_e.hermegauss(40)
HERMITE_W = HERMITE_W / HERMITE_W.sum()


def log_prob_bound(w):
    sde = VPS

    def value(score_and_divergence, prior_log_prob, x):
        def expect(f, t):
            a, b = sde.level(t)
            return sum(k * f(a * x + b * z) for z, k in zip(HERMITE_X, HERMITE_W, strict=True))

        def rate(t):
            f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2

            def inner(y):
                s, div = score_and_divergence(y, t)
                s2, div = np.sum(np.asarray(s) ** 2, axis=1), np.asarray(div)
                two = 1 if w == "no 2" else 2
                drift = 0 if w == "drift" else 2 * f * x.shape[1]
                return g2 * (s2 + two * div) - drift

            return expect(inner, t)

        integral = gauss_legendre(rate, 0.0, sde.horizon, 14, 8)
        half = 1.0 if w == "half" else 0.5
        prior = prior_log_prob(x) if w == "x0" else expect(prior_log_prob, sde.horizon)
        return prior - half * integral

    return {"log_prob_bound": value}


family(
    "log_prob_bound",
    log_prob_bound,
    {"sde": VPS, "mixture": MIX1, "x": np.array([[-1.2], [0.1], [0.8]])},
    ("no 2", "divergence without 2", ("factor 2", "twice", "the 2", "2 is missing", "half", "½", "divergence")),
    ("drift", "divergence of the drift left out", ("drift", "div f", "f x", "f is", "of f")),
    ("x0", "prior at x_0, not at x_T", ("x_0", "x_T", "prior")),
    ("half", "no ½ before the integral", ("½", "twice", "half")),
    slow=True,
)


def flow_density(w):
    sde = VPS

    def log_density(x):
        x = np.array(x, float)
        total = np.zeros(len(x))
        grid = np.linspace(0, 1, 161) ** 2 * sde.horizon

        def slope(y, t):
            a, b = sde.level(t)
            law = MIX1.diffuse(a, b)
            f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2
            c = 0.5
            s, j = law.score(y), law.score_jacobian(y)[:, 0, 0]
            div = f - c * g2 * j
            if w == "divergence":
                div = f * np.ones(len(y))
            if w == "batch":
                div = np.full(len(y), div.mean())
            return f * y - c * g2 * s, div

        for t, u in itertools.pairwise(grid):
            t, u = float(t), float(u)
            h = u - t
            k1, d1 = slope(x, t)
            k2, d2 = slope(x + h / 2 * k1, t + h / 2)
            k3, d3 = slope(x + h / 2 * k2, t + h / 2)
            k4, d4 = slope(x + h * k3, u)
            x, total = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        a, b = sde.level(sde.horizon)
        end = MIX1.diffuse(a, b).log_prob(x)
        if w == "normal":
            end = -0.5 * np.sum(x**2, axis=1) - 0.5 * np.log(2 * np.pi)
        return end - total if w == "sign" else end + total

    return {"log_prob": log_density}


family(
    "probability_flow_likelihood",
    flow_density,
    {"mixture": MIX1, "x": np.array([[-1.2], [0.1], [0.8]]), "sde": VPS},
    ("sign", "log-determinant subtracted", ("sign", "subtract", "minus")),
    ("normal", "N(0, I) for the law of x_T", ("N(0, I)", "prior", "base", "x_T", "p_T")),
    ("divergence", "divergence of the score left out", ("divergence", "score", "f only")),
    ("batch", "the divergence averaged over the batch", ("batch", "example", "mean", "other")),
    slow=True,
)


def reverse_law(w):
    total = 4.0

    def moments(score):
        d = 2
        origin = np.asarray(score(np.zeros((1, d)), 0.0))[0]
        slopes = np.asarray(score(np.eye(d), 0.0)) - origin
        if w == "flow":
            A, b, noise = -0.5 * np.eye(d) - 0.5 * slopes.T, -0.5 * origin, 0.0
        elif w == "half":
            A, b, noise = -0.5 * np.eye(d) - 0.5 * slopes.T, -0.5 * origin, 1.0
        else:
            A, b, noise = -0.5 * np.eye(d) - slopes.T, -origin, 1.0
        # backward in time: dx = -(A x + b) dB + dw
        F = -A
        block = np.zeros((d + 1, d + 1))
        block[:d, :d], block[:d, d] = F, -b
        m = expm(block * total)[:d, d]
        E = expm(F * total)
        start = np.zeros((d, d)) if w == "point" else np.eye(d)
        big = np.zeros((2 * d, 2 * d))
        big[:d, :d], big[:d, d:], big[d:, d:] = -F, noise * np.eye(d), F.T
        X = expm(big * total)
        Qint = X[d:, d:].T @ X[:d, d:]
        cov = E @ start @ E.T + Qint
        if w == "std":
            cov = np.diag(np.sqrt(np.diag(cov)))
        if w == "steps":
            n = 50
            h = total / n
            m, cov = np.zeros(d), np.eye(d)
            for _ in range(n):
                m, cov = m + h * (F @ m - b), (np.eye(d) + h * F) @ cov @ (np.eye(d) + h * F).T + h * np.eye(d)
        return m, cov

    return {"reverse_moments": moments, "integral": total}


family(
    "reverse_law",
    reverse_law,
    {"delta": 0.3},
    ("flow", "the flow in place of the reverse SDE", ("flow", "without noise")),
    ("half", "½g² s with noise", ("½", "half")),
    ("point", "start at a point, not at N(0, I)", ("point", "start", "N(0, I)", "initial", "variance")),
    ("std", "standard deviations in the covariance", ("standard deviation", "root", "square")),
    ("steps", "50 steps of Euler-Maruyama", ("Euler", "steps", "discretis")),
)

# -- networks --------------------------------------------------------------------------------------------------------

LAYERS = [
    (0.6 * draws(36, 3, 4), 0.3 * draws(37, 4)),
    (0.6 * draws(38, 4, 4), 0.3 * draws(39, 4)),
    (0.6 * draws(40, 4, 2), 0.3 * draws(41, 2)),
]


def silu(z):
    return z / (1 + np.exp(-z))


def silu_slope(z):
    s = 1 / (1 + np.exp(-z))
    return s + z * s * (1 - s)


def mlp_call(x, w=""):
    h = x
    for i, (W, b) in enumerate(LAYERS):
        h = h @ (W.T if w == "transposed" and i == 1 else W)
        if not (w == "no bias" and i == 2):
            h = h + b
        if i < 2 or w == "last":
            h = np.tanh(h) if w == "tanh" else silu(h)
    return h


def mlp(w):
    def call(x):
        if w == "quick":
            h = x
            for i, (W, b) in enumerate(LAYERS):
                h = h @ W + b
                h = h / (1 + np.exp(-1.702 * h)) if i < 2 else h
            return h
        return mlp_call(x, w)

    return {"call": call}


family(
    "mlp",
    mlp,
    {"layers": LAYERS, "x": draws(42, 5, 3)},
    ("last", "activation after the last layer", ("last layer", "output layer", "after the last", "activation")),
    ("no bias", "the last bias forgotten", ("bias",)),
    ("transposed", "a square weight matrix transposed", ("transpos",)),
    ("tanh", "tanh for SiLU", ("tanh", "activation")),
    ("quick", "x σ(1.702 x), the approximation of GELU", ("GELU", "gelu", "1.702", "activation")),
)


def jvp(w):
    def value(x, direction):
        h, d = x, direction
        for i, (W, b) in enumerate(LAYERS):
            z, dz = h @ W + b, d @ W
            if w == "bias":
                dz = dz + b
            if i < 2:
                at = silu(z) if w == "output" else z
                slope = silu_slope(at)
                h, d = silu(z), (dz if w == "skip" and i == 1 else slope * dz)
            else:
                h, d = z, dz
        return h, d

    return {"jvp": value, "call": mlp_call}


family(
    "jvp",
    jvp,
    {"x": draws(42, 5, 3), "direction": draws(43, 5, 3)},
    ("bias", "the bias in the derivative too", ("bias",)),
    (
        "output",
        "slope of the activation at its output",
        ("output", "slope", "derivative of the activation", "activation"),
    ),
    ("skip", "one activation without its slope", ("slope", "layer", "activation")),
)


def activation(w):
    def value(z):
        return z * np.exp(-np.logaddexp(0, -(1.702 if w == "gelu" else 1.0) * z))

    def both(z):
        s = np.exp(-np.logaddexp(0, -z))
        slope = s + z * s * (1 - s)
        if w == "product rule":
            slope = z * s * (1 - s)
        if w == "sigmoid":
            slope = s * (1 + z * s)
        return z * s, slope

    return {"value": value, "value_and_slope": both}


family(
    "activation",
    activation,
    {"z": np.array([-30.0, -3.0, -0.5, 0.0, 0.8, 2.5, 20.0])},
    (
        "product rule",
        "first term of the product rule forgotten",
        ("product", "sigmoid", "s is", "first term", "is missing"),
    ),
    ("sigmoid", "s (1 + z s) for s (1 + z (1 − s))", ("1 − s", "sigmoid")),
    ("gelu", "σ(1.702 z)", ("1.702", "GELU", "gelu")),
)


def net_f(n_out):
    def mlp_inputs(x):
        A = 0.4 * np.cos(np.arange(x.shape[1] * n_out).reshape(x.shape[1], n_out) * 1.3)
        return np.tanh(x @ A)

    return mlp_inputs


NN_X, NN_SCALE, NN_STD = draws(44, 4, 2), np.array([0.9, 0.6, 0.3, 0.8]), np.array([0.3, 0.9, 1.2, 0.5])
LABELS = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])


def noise_network(w):
    F = net_f(2)

    def eps_hat(x, scale, std):
        scale = np.broadcast_to(np.asarray(scale, float), (len(x),))[:, None]
        std = np.broadcast_to(np.asarray(std, float), (len(x),))[:, None]
        r = np.sqrt(scale**2 + std**2)
        y = x if w == "input" else x / r
        log_snr = np.log(scale / std)[:, 0] * (1 if w == "half snr" else 2)
        labels = np.zeros_like(LABELS) if w == "label" else LABELS[: len(x)]
        out = F(np.concatenate([y, coordinate_features(y, 1), time_features(log_snr, 3), labels], axis=1))
        skip, gain = std / r**2, scale / r
        if w == "skip":
            skip = std / r
        return skip * x + gain * out

    return {"eps_hat": eps_hat, "mlp": F}


family(
    "noise_network",
    noise_network,
    {"x": NN_X, "scale": NN_SCALE, "std": NN_STD, "n_time_features": 3, "indicators": LABELS, "n_octaves": 1},
    ("input", "x in place of x/r as the input", ("r²", "norm of", "x/r", "scaled", "input")),
    (
        "half snr",
        "log(scale/std) for log-SNR",
        ("log-SNR", "half", "½", "factor 2", "twice", "the 2", "2 is missing", "log(scale/std)"),
    ),
    ("label", "the label is dropped", ("label", "indicator")),
    ("skip", "skip std/r for std/r²", ("skip", "r²", "1/r", "norm of")),
)

HIST = np.array([[0.2, 0.5, 0.3], [0.4, 0.25, 0.35]])
LEVEL_COV = np.array([[0.45, 0.1], [0.1, 0.7]])


def categorical(w):
    F = net_f(8)
    levels = np.linspace(-1, 1, 3)

    def law():
        scale, std = NN_SCALE[:, None], NN_STD[:, None]
        mean = HIST @ levels
        xc = NN_X - scale * mean
        logits = np.log(HIST)[None] - 0.5 * ((NN_X[:, :, None] - scale[:, :, None] * levels) / std[:, :, None]) ** 2
        if w == "no histogram":
            logits = logits - np.log(HIST)[None]
        own = np.exp(logits - logsumexp(logits, axis=2, keepdims=True))
        own_mean = own @ levels - mean
        wiener = np.empty_like(NN_X)
        for n in range(len(NN_X)):
            a, s = NN_SCALE[n], NN_STD[n]
            wiener[n] = a * LEVEL_COV @ np.linalg.solve(a**2 * LEVEL_COV + s**2 * np.eye(2), xc[n])
        log_snr = 2 * np.log(NN_SCALE / NN_STD)
        labels = 0 * LABELS if w == "label" else LABELS
        f = F(
            np.concatenate(
                [xc / np.sqrt(scale**2 + std**2), own_mean, wiener, time_features(log_snr, 3), labels], axis=1
            )
        )
        basis = np.stack([levels == levels[0], levels == levels[-1], levels, levels**2]).astype(float)
        f = f.reshape(len(NN_X), 2, 4)
        logits = logits + f @ basis
        axis = 1 if w == "axis" else 2
        return np.exp(logits - logsumexp(logits, axis=axis, keepdims=True))

    def eps_hat():
        scale, std = NN_SCALE[:, None], NN_STD[:, None]
        p = law()
        x0 = p @ levels
        if w == "argmax":
            x0 = levels[p.argmax(axis=2)]
        if w == "no scale":
            return (NN_X - x0) / std
        if w == "std":
            return (NN_X - scale * x0) / std**2
        return (NN_X - scale * x0) / std

    return {"law": law, "eps_hat": eps_hat, "mlp": F}


family(
    "categorical_denoiser",
    categorical,
    {
        "x": NN_X,
        "scale": NN_SCALE,
        "std": NN_STD,
        "histograms": HIST,
        "covariance": LEVEL_COV,
        "n_time_features": 3,
        "indicators": LABELS,
    },
    ("argmax", "the most probable level for the mean", ("argmax", "mode", "most probable", "mean", "largest")),
    ("no scale", "x − x̂_0 without scale", ("scale",)),
    ("no histogram", "the histogram forgotten", ("histogram", "h_dk", "prior", "frequenc")),
    ("axis", "softmax over the dimensions", ("axis", "dimension", "sum to 1", "normalis")),
    ("std", "divided by std²: the score", ("std²", "score", "std ", "std is", "standard deviation")),
    ("label", "the label is dropped", ("label", "indicator")),
)

CAT_LAW = np.array([[[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], [[0.1, 0.1, 0.8], [0.3, 0.45, 0.25]]])


def categorical_draw(w):
    def draw(u):
        cdf = np.cumsum(CAT_LAW, axis=2)
        if w == "plus":
            return np.minimum((u[:, :, None] > cdf).sum(axis=2) + 1, 2)
        if w == "argmax":
            return np.broadcast_to(CAT_LAW.argmax(axis=2), u.shape)
        if w == "row law":
            return (u[:, :, None] > cdf[:1]).sum(axis=2)
        if w == "unnormalised":
            cdf = np.cumsum(np.exp(CAT_LAW) / np.exp(CAT_LAW).sum(axis=2, keepdims=True), axis=2)
        return (u[:, :, None] > cdf).sum(axis=2)

    return {"draw": draw}


family(
    "categorical_draw",
    categorical_draw,
    {"law": CAT_LAW},
    ("plus", "levels counted from 1", ("from 1", "shift", "+ 1", "one higher", "next level", "one level")),
    ("argmax", "the most probable level always", ("argmax", "most probable", "mode", "largest")),
    ("row law", "the law of the first example for all", ("first example", "example", "shared", "row")),
    ("unnormalised", "softmax of probabilities", ("softmax", "exp")),
)

# -- training --------------------------------------------------------------------------------------------------------

REG_X, REG_Y = draws(45, 6, 3), draws(46, 6)


def reg_losses(p):
    return 0.5 * (np.tanh(REG_X @ p[:3]) * p[3] + p[4] - REG_Y) ** 2


def reg_parts(p, w=""):
    h = np.tanh(REG_X @ p[:3])
    out = h * p[3] + p[4]
    e = out - REG_Y
    if w == "factor":
        e = 2 * e
    slope = 1 - h**2 if w != "slope" else 1 - h
    if w == "detach":
        slope = np.zeros_like(h)
    g = np.concatenate([(e * p[3] * slope)[:, None] * REG_X, (e * h)[:, None], e[:, None]], axis=1)
    return g


REG_P = np.array([0.4, -0.3, 0.6, 0.8, 0.2])


def gradient(w):
    def grad(p):
        g = reg_parts(p, w)
        if w == "decay":
            return g.mean(axis=0) + 0.01 * p
        if w == "bias":
            g = g.copy()
            g[:, 4] = 0
        return g.sum(axis=0) if w == "sum" else g.mean(axis=0)

    return {"loss": lambda p: np.mean(reg_losses(p)), "gradient": grad}


family(
    "gradient",
    gradient,
    {"parameters": REG_P, "directions": np.eye(5)},
    ("sum", "gradient of the sum, loss a mean", ("N times", "1/N", "factor N", "sum", "mean", "factor", "times")),
    ("slope", "1 − tanh for 1 − tanh²", ("activation", "tanh", "slope", "parameter")),
    ("factor", "2 for ½ · 2", ("factor 2", "twice", "the 2", "2 is missing", "factor")),
    (
        "bias",
        "the bias gets no gradient",
        ("bias", "is 0", "zero", "no gradient", "entry 4", "parameter 4", "direction 4"),
    ),
    ("decay", "weight decay added to the gradient", ("decay", "parameters", "L2", "regular")),
)


def loss_gradient(w):
    target = draws(47, 4, 2)

    def both(a):
        r = a - target
        loss = np.sum(r**2, axis=1)
        g = 2 * r
        if w == "half":
            g = r
        if w == "batch":
            g = g / len(a)
        if w == "mean":
            loss = np.mean(r**2, axis=1)
        if w == "sign":
            g = -g
        return loss, g

    def losses(a):
        return np.sum(a**2 - 2 * a * target + target**2, axis=1)

    return {"loss_and_gradient": both, "losses": losses}


family(
    "loss_gradient",
    loss_gradient,
    {"at": draws(48, 4, 2)},
    ("half", "derivative without 2", ("factor 2", "twice", "the 2", "2 is missing", "half", "½")),
    ("batch", "derivative divided by the batch", ("N times", "1/N", "factor N", "batch", "mean over")),
    ("mean", "mean over dimensions in the loss", ("mean", "1/D", "average")),
    ("sign", "target − a", ("sign", "minus", "negative")),
)

BATCH_WEIGHT = np.array([0.5, 2.0, 1.0, 0.7, 1.3, 0.9])


def training_step(w):
    def step(p):
        g, loss = reg_parts(p, w), reg_losses(p)
        weight = np.ones(6) if w == "unweighted" else BATCH_WEIGHT
        total = (weight[:, None] * g).mean(axis=0)
        if w == "self":
            total = (weight[:, None] * g).sum(axis=0) / weight.sum()
        if w == "sum":
            total = (weight[:, None] * g).sum(axis=0)
        if w == "accumulate":
            total = 2 * total
        if w == "double weight":
            total = (weight[:, None] ** 2 * g).mean(axis=0)
        return loss, total

    return {"step": step, "losses": reg_losses}


family(
    "training_step",
    training_step,
    {"parameters": REG_P, "weight": BATCH_WEIGHT},
    ("unweighted", "the weights are not used", ("weight",)),
    ("self", "divided by the sum of the weights", ("sum of", "weight", "normalis", "Σ weight")),
    ("sum", "sum over the batch", ("N times", "1/N", "factor N", "sum", "mean")),
    (
        "accumulate",
        "gradient not set to zero: added twice",
        ("twice", "factor 2", "the 2", "2 is missing", "accumul", "factor"),
    ),
    ("detach", "no gradient into the first layer", ("is 0", "zero", "no gradient", "layer")),
    ("double weight", "the weights squared", ("weight", "square", "twice")),
)


def adam_run(p, grads, w="", lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    p = np.array(p, float)
    m, v, out = np.zeros_like(p), np.zeros_like(p), []
    for n, g in enumerate(grads, 1):
        if w == "l2":
            g = g + decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        mh, vh = m / (1 - b1**n), v / (1 - b2**n)
        if w == "no correction":
            mh, vh = m, v
        if w == "late correction":
            mh, vh = m / (1 - b1 ** (n + 1)), v / (1 - b2 ** (n + 1))
        if w == "only v":
            mh = m
        if decay and w != "l2":
            p = p * (1 - (decay if w == "decay without lr" else lr * decay))
        root = np.sqrt(vh) + eps
        if w == "eps inside":
            root = np.sqrt(vh + eps)
        if w == "eps before":
            root = (np.sqrt(v) + eps) / np.sqrt(1 - b2**n)
        p = p - lr * mh / root
        out.append(p.copy())
    return np.array(out)


def adam(decay):
    return lambda w: {"run": partial(adam_run, w=w, lr=0.01, decay=decay)}


ADAM = {"parameters": draws(49, 4), "gradients": draws(50, 6, 4) * [1.0, 0.1, 3.0, 0.01], "learning_rate": 0.01}
family(
    "adam",
    adam(0.0),
    ADAM,
    ("no correction", "no bias correction", ("correction", "bias", "1 − β")),
    ("late correction", "bias correction one step late", ("n + 1", "n+1", "correction", "late", "step")),
    ("only v", "first moment not corrected", ("first moment", "m̂", "correction", "1 − β₁", "momentum", "m is")),
    ("eps inside", "ε inside the root", ("ε itself", "of ε", "ε for", "inside", "root")),
    ("eps before", "ε before the bias correction", ("ε itself", "of ε", "ε for", "before", "correction")),
)
family(
    "adam",
    adam(0.1),
    ADAM | {"weight_decay": 0.1},
    ("l2", "weight decay in the gradient, Adam's L2", ("L2", "gradient", "decoupled", "coupled")),
    ("decay without lr", "decay not multiplied by the learning rate", ("learning rate", "lr")),
)


def learning_rate(w):
    n, peak, warm = 40, 0.02, 8

    def rate(step):
        if step < warm:
            return peak * (step if w == "zero" else step + 1) / warm
        u = (step - warm) / (n - warm)
        if w == "global":
            u = step / n
        if w == "linear":
            return peak * (1 - u)
        if w == "quarter":
            return peak * np.cos(np.pi / 2 * u)
        return peak * 0.5 * (1 + np.cos(np.pi * u))

    return {"rate": rate, "n_steps": n, "learning_rate": peak, "warmup": warm}


family(
    "learning_rate",
    learning_rate,
    {},
    ("zero", "warm-up from 0, step for step + 1", ("from 0", "step + 1", "step+1", "is 0", "zero", "earlier", "shift")),
    ("global", "the cosine over all steps, warm-up included", ("warm", "whole", "all steps", "n_steps")),
    ("quarter", "a quarter of a cosine", ("quarter", "π/2", "cos")),
    ("linear", "linear decay", ("linear",)),
)


def moving_average(w):
    decay = 0.6

    def average(start, parameters):
        a, out = np.array(start, float), []
        for k, p in enumerate(parameters, 1):
            d = min(decay, (1 + k) / (10 + k))
            if w == "no warm-up":
                d = decay
            if w == "index":
                d = min(decay, k / (9 + k))
            if w == "swap":
                d = 1 - d
            if w == "copy" and k == 1:
                a = np.array(p, float)
            a = d * a + (1 - d) * p
            out.append(a / (1 - decay**k) if w == "corrected" else a)
        return np.array(out)

    return {"average": average, "decay": decay}


family(
    "moving_average",
    moving_average,
    {"start": draws(51, 3), "parameters": draws(52, 20, 3)},
    ("no warm-up", "constant decay", ("constant", "warm", "(1 + k)", "decay")),
    ("index", "the count starts at 0", ("k − 1", "k−1", "from 0", "count", "late", "shift", "earlier")),
    ("swap", "decay and 1 − decay exchanged", ("swap", "exchang", "1 − decay", "interchang")),
    ("copy", "start at the first parameters", ("first", "start", "initial")),
    ("corrected", "bias correction of Adam", ("correction", "1 − decay", "bias")),
)


def training(w):
    n = 8

    def batch_loss(p, i):
        return float(np.mean(reg_losses(p)[[i % 6, (i + 2) % 6, (i + 3) % 6]]))

    def train(p):
        p = np.array(p, float)
        m, v = np.zeros(5), np.zeros(5)
        average, losses = p.copy(), []
        for i in range(n):
            rows = [i % 6, (i + 2) % 6, (i + 3) % 6]
            g = reg_parts(p)[rows].mean(axis=0)
            if w != "late loss":
                losses.append(batch_loss(p, i))
            step = i + 1
            lr = 0.05 * (i + 1) / 2 if i < 2 else 0.05 * 0.5 * (1 + np.cos(np.pi * (i - 2) / (n - 2)))
            if w == "constant lr":
                lr = 0.05
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            c = 1 if w == "no correction" else step
            mh, vh = m / (1 - 0.9**c), v / (1 - 0.999**c)
            if w == "no correction":
                mh, vh = m, v
            if w == "average before":
                d = min(0.9, (1 + step) / (10 + step))
                average = d * average + (1 - d) * p
            p = p - lr * mh / (np.sqrt(vh) + 1e-8)
            if w == "late loss":
                losses.append(batch_loss(p, i))
            if w != "average before":
                d = min(0.9, (1 + step) / (10 + step))
                average = d * average + (1 - d) * p
        return np.array(losses), p, average

    return {"train": train, "loss": batch_loss}


family(
    "training",
    training,
    {"parameters": REG_P, "n_steps": 8, "learning_rate": 0.05, "warmup": 2, "ema_decay": 0.9},
    ("constant lr", "no schedule of the learning rate", ("learning rate", "constant", "warm", "cosine")),
    ("no correction", "Adam without bias correction", ("correction", "bias")),
    ("average before", "the average before the step of the optimiser", ("before", "average", "late", "old")),
    ("late loss", "the loss after the step", ("after", "loss", "updated")),
)

# -- further checks: paths, solvers, information ---------------------------------------------------------------------


def straight(t):
    return 1 - t, t


def vp_level(t):
    return VP().level(float(t))


PATH_TIMES = np.array([0.2, 0.5, 0.8])


def fokker_planck(c):
    def coding(w):
        sde = VP()

        def drift(x, t):
            a, b = sde.level(t)
            law = MIX.diffuse(a, b)
            f, g2 = float(sde.rate(t)), float(sde.diffusion(t)) ** 2
            k = 0.5 * (1 + c**2)
            if w == "half":
                k = 0.5
            if w == "full":
                k = 1.0
            s = law.score(x)
            if w == "forward":
                return f * x
            if w == "sign":
                return f * x + k * g2 * s
            return f * x - k * g2 * s

        def diffusion(t):
            g = float(sde.diffusion(t))
            return c * (g**2 if w == "g2" else g)

        return {"drift": drift, "diffusion": diffusion}

    return coding


FP = {"level": vp_level, "law": MIX, "times": PATH_TIMES}
family(
    "fokker_planck",
    fokker_planck(1.0),
    FP,
    ("half", "drift of the flow with the noise of the SDE", ("flow", "½", "half")),
    ("g2", "g² as the diffusion", ("g²", "square", "root")),
    ("sign", "the score added", ("sign", "plus", "added")),
)
family(
    "fokker_planck",
    fokker_planck(0.0),
    FP,
    ("full", "drift of the SDE without its noise", ("½", "twice", "SDE", "noise")),
    ("forward", "the forward drift: no score", ("score", "forward", "f x")),
)


def velocity(path):
    def coding(w):
        def value(x0, noise, t):
            t = np.asarray(t, float)
            t = t[:, None] if t.ndim else t
            if path == "straight":
                if w == "sign":
                    return x0 - noise
                if w == "noise":
                    return noise
                return noise - x0
            a, b = np.cos(np.pi / 2 * t), np.sin(np.pi / 2 * t)
            k = 1.0 if w == "chain" else np.pi / 2
            if w == "v sign":
                return k * (a * noise + b * x0)
            return k * (a * noise - b * x0)

        return {"velocity": value}

    return coding


family(
    "flow_velocity",
    velocity("straight"),
    {"level": straight, "law": MIX, "times": PATH_TIMES},
    ("sign", "x_0 − ε, with time in the other direction", ("sign", "time", "direction", "revers", "negative")),
    ("noise", "ε for ε − x_0", ("x_0", "noise", "ε itself", "of ε", "ε for")),
)
family(
    "flow_velocity",
    velocity("cosine"),
    {"level": lambda t: (np.cos(np.pi / 2 * t), np.sin(np.pi / 2 * t)), "law": MIX, "times": PATH_TIMES},
    (
        "chain",
        "v of Salimans and Ho without π/2, the derivative of the angle",
        ("π/2", "angle", "chain", "factor", "probe", "projection"),
    ),
    ("v sign", "plus for minus before x_0", ("sign", "plus", "x_0")),
)


def edm_coefficients(w):
    d = 0.5

    def value(sigma):
        r2 = sigma**2 + d**2
        skip, out, cin = d**2 / r2, sigma * d / np.sqrt(r2), 1 / np.sqrt(r2)
        weight = r2 / (sigma * d) ** 2
        if w == "swap":
            skip = sigma**2 / r2
        if w == "out root":
            out = sigma * d / r2
        if w == "in":
            cin = 1 / np.sqrt(sigma**2 + 1)
        if w == "weight sum":
            weight = r2 / (sigma + d) ** 2
        if w == "first power":
            weight = np.sqrt(weight)
        return skip, out, cin, weight

    return {"coefficients": value}


family(
    "edm_coefficients",
    edm_coefficients,
    {"data_std": 0.5},
    ("swap", "σ² for σ_data² in c_skip", ("σ²", "swap", "exchang", "1 −", "noise")),
    (
        "in",
        "σ_data taken as 1 in c_in, as in k-diffusion's VP models",
        ("1 is missing", "the 1", "without the 1", "data_std", "σ_data"),
    ),
    ("weight sum", "(σ + σ_data)² in the weight: the paper's table misread", ("sum", "plus", "σ +", "product")),
    ("out root", "c_out without the root", ("root", "square", "√")),
    ("first power", "weight 1/c_out", ("1/c_out", "root", "square", "c_out")),
)


def sigma_grid(w):
    def grid(n, lo, hi, rho):
        i = np.arange(n)
        u = i / n if w == "open" else i / (n - 1)
        if w == "log":
            return np.exp(np.log(hi) + u * (np.log(lo) - np.log(hi)))
        if w == "inverse":
            return (hi**rho + u * (lo**rho - hi**rho)) ** (1 / rho)
        if w == "fixed":
            rho = 3.0
        return (hi ** (1 / rho) + u * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho

    return {"grid": grid}


family(
    "sigma_grid",
    sigma_grid,
    {},
    ("open", "i/n for i/(n − 1): sigma_min is not reached", ("n − 1", "n−1", "1/n", "i/n", "sigma_min")),
    ("log", "evenly spaced in log σ", ("logarithm", "log ", "geometric")),
    ("inverse", "ρ and 1/ρ exchanged", ("1/ρ", "σ^ρ", "swap", "exchang", "invers", "ρ")),
    ("fixed", "ρ = 3 built in", ("ρ", "rho", "built in", "other")),
)


def exponential_step(c, multi):
    def coding(w):
        def step(x, x0, x0_last, levels, noise):
            (_a0, _b0), (_a1, b1), (a2, b2) = levels
            l0, l1, l2 = (np.log(a / b) for a, b in levels)
            h, h0 = l2 - l1, l1 - l0
            D = x0
            if multi:
                r = h / (2 * h0)
                if w == "ratio":
                    r = h0 / (2 * h)
                if w == "no half":
                    r = h / h0
                D = (1 + r) * x0 - r * x0_last
                if w == "single":
                    D = x0
            k = 1 + c**2
            if w == "drop c":
                k = 1.0
            decay = np.exp(-(c**2) * h)
            # y = x/std: y' = k e^λ D − c² y
            gain = b2 / b1 * decay
            bit = a2 * -np.expm1(-k * h)
            if w == "sign":
                bit = a2 * np.expm1(-k * h)
            spread = b2 * np.sqrt(-np.expm1(-2 * c**2 * h))
            if w == "noise":
                spread = b2 * np.sqrt(-np.expm1(-(c**2) * h))
            return gain * x + bit * D + spread * noise

        return {"step": step}

    return coding


family(
    "exponential_step",
    exponential_step(0.0, True),
    {"stochasticity": 0.0, "multistep": True},
    ("ratio", "r upside down", ("invers", "upside", "ratio", "recip", "last step", "step size", "h²")),
    ("no half", "1/r for 1/(2r)", ("½", "twice", "half", "end of the step", "factor 2", "the 2", "2 is missing")),
    (
        "single",
        "x̂_0 of the last level not used",
        ("last level", "last one", "first order", "DDIM", "not used", "extrapol"),
    ),
    ("sign", "e^{−h} − 1 without its minus", ("sign", "minus", "negative")),
)
family(
    "exponential_step",
    exponential_step(1.0, False),
    {"stochasticity": 1.0, "multistep": False},
    (
        "noise",
        "1 − e^{−h} for 1 − e^{−2h} under the root",
        ("2h", "factor 2", "twice", "the 2", "2 is missing", "half", "noise", "variance"),
    ),
    (
        "drop c",
        "1 + c² forgotten before x̂_0",
        ("1 + c²", "c²", "stochasticity", "flow", "factor 2", "twice", "the 2", "2 is missing"),
    ),
)


def flow_sampler(order):
    def coding(w):
        def sample(denoise, x, levels):
            D_last, l_last = None, None
            for (a, b), (a2, b2) in itertools.pairwise(levels):
                D = denoise(x, a, b)
                lam, lam2 = np.log(a / b), np.log(a2 / b2)
                use = D
                if order == 2 and D_last is not None and w != "first order":
                    r = (lam2 - lam) / (2 * (lam - l_last))
                    if w == "no half":
                        r = 2 * r
                    use = D + r * (D - D_last)
                if w == "level":
                    use = denoise(x, a2, b2)
                D_last, l_last = D, lam
                if w == "clip":
                    use = np.clip(use, -1, 1)
                x = b2 / b * x + (a2 - (a if w == "ratio" else a * b2 / b)) * use
            return x

        return {"sample": sample, "order": float(order)}

    return coding


family(
    "flow_order",
    flow_sampler(2),
    {"law": MIX},
    (
        "first order",
        "DPM-Solver++(2M) without its second term: DDIM",
        ("order 1", "first order", "first-order", "DDIM", "Euler"),
    ),
    ("level", "the denoiser told the next level", ("order 1", "first order", "level", "late")),
    ("no half", "twice the extrapolation", ("order 1", "first order", "½", "extrapol", "half")),
)
family(
    "flow_order",
    flow_sampler(1),
    {"law": MIX},
    (
        "ratio",
        "ᾱ_s − ᾱ_t before x̂_0, the ratio of the noises forgotten",
        ("order 0", "not converge", "does not", "other limit", "ratio"),
    ),
    ("clip", "x̂_0 clipped to [-1, 1]", ("order 0", "not converge", "does not", "clip", "other limit")),
)


def weak_sampler(w):
    def sample(denoise, x, levels, noise):
        for i, ((a, b), (a2, b2)) in enumerate(itertools.pairwise(levels)):
            D = denoise(x, a, b)
            eps = (x - a * D) / b
            sigma = b2 / b * np.sqrt(1 - (a / a2) ** 2)
            keep = np.sqrt(np.maximum(b2**2 - sigma**2, 0))
            if w == "no subtraction":
                keep = b2
            z = noise[0] if w == "same noise" else noise[i]
            if w == "no noise":
                z = 0 * z
            x = a2 * D + keep * eps + (sigma**2 if w == "variance" else sigma) * z
        return x

    return {"sample": sample}


family(
    "weak_order",
    weak_sampler,
    {"mean": SDE_MEAN, "covariance": SDE_COV},
    ("no subtraction", "σ² not subtracted: too much noise", ("order", "not converge", "does not", "variance", "noise")),
    (
        "same noise",
        "one noise vector in all steps",
        ("same noise", "order", "not converge", "does not", "correlat", "reuse"),
    ),
    ("no noise", "fresh noise forgotten", ("noise", "order", "not converge", "does not", "covariance")),
    ("variance", "σ² before the fresh noise", ("σ²", "variance", "order", "not converge", "does not")),
)


def mutual_information(w):
    def value(sde, noise_loss, t_min):
        hi, lo = float(sde.log_snr(t_min)), float(sde.log_snr(sde.horizon))
        u, wt = np.polynomial.legendre.leggauss(24)
        total, pieces = 0.0, 24
        edges = np.linspace(lo, hi, pieces + 1)
        for p, q in itertools.pairwise(edges):
            for x, k in zip(u, wt, strict=True):
                t = float(sde.time_at((p + q) / 2 + (q - p) / 2 * x))
                weight = 1.0
                if w == "snr":
                    weight = float(np.exp(sde.log_snr(t)))
                total += k * (q - p) / 2 * weight * noise_loss(t)
        if w == "mean":
            return 0.5 * total / (hi - lo)
        if w == "bits":
            return 0.5 * total / np.log(2)
        return total if w == "half" else 0.5 * total

    return {"information": value}


family(
    "mutual_information",
    mutual_information,
    {"sdes": [(VPS, 0.02), (VES, 0.05)], "laws": [MIX1, Mixture([1.0], [[0.3]], [[[0.8]]])]},
    ("half", "no ½", ("½", "twice", "half")),
    ("mean", "mean over log-SNR for the integral", ("mean", "length", "interval", "log-SNR")),
    ("snr", "the loss of ε weighted as a loss of x_0", ("SNR", "x_0", "weight")),
    ("bits", "in bits", ("bits", "log 2", "base")),
    slow=True,
)

MIX1B = Mixture([0.7, 0.3], [[-0.4], [1.1]], [[[0.6]], [[0.25]]])


def kl_rate(w):
    sde = VPS

    def rate(t):
        a, b = sde.level(t)
        p, q = MIX1.diffuse(a, b), MIX1B.diffuse(a, b)
        law = q if w == "under q" else p
        grid = np.linspace(-12, 12, 6001)[:, None]
        density = np.exp(law.log_prob(grid)) * (grid[1, 0] - grid[0, 0])
        gap = np.sum((p.score(grid) - q.score(grid)) ** 2, axis=1)
        g = float(sde.diffusion(t))
        value = density @ gap
        if w == "half":
            return -(g**2) * value
        if w == "sign":
            return 0.5 * g**2 * value
        if w == "g":
            return -0.5 * g * value
        return -0.5 * g**2 * value

    return {"rate": rate}


family(
    "kl_rate",
    kl_rate,
    {"sde": VPS, "p": MIX1, "q": MIX1B, "times": np.array([0.2, 0.6, 1.1])},
    ("half", "no ½", ("½", "twice", "half")),
    ("sign", "the divergence rises", ("sign", "negative", "minus", "positive", "rise")),
    ("under q", "expectation under q", ("under q", "E_q", "q_t", "swap", "exchang")),
    ("g", "g for g²", ("g for g²", "g in place of g²", "g(t) in place", "root", "square")),
)

LEVELS = np.array([[0.9, 0.4], [0.5, 0.8]])


def tweedie(w):
    def covariance(x_t, scale, std):
        J = MIX.diffuse(scale, std).score_jacobian(x_t)
        eye = np.eye(2)
        if w == "sign":
            return (std / scale) ** 2 * (eye - std**2 * J)
        if w == "first":
            return (std / scale) ** 2 * (eye + std * J)
        if w == "scale":
            return std**2 * (eye + std**2 * J)
        if w == "scale once":
            return std**2 / scale * (eye + std**2 * J)
        if w == "diagonal":
            full = (std / scale) ** 2 * (eye + std**2 * J)
            return full * eye
        return (std / scale) ** 2 * (eye + std**2 * J)

    return {"covariance": covariance}


family(
    "tweedie_covariance",
    tweedie,
    {"law": MIX, "levels": LEVELS},
    ("scale", "1/scale² forgotten", ("scale",)),
    ("first", "std for std² before the Hessian", ("std ", "std²", "std is", "standard deviation", "square")),
    ("sign", "minus for plus", ("sign", "minus", "negative")),
    ("diagonal", "off-diagonal entries set to 0", ("diagonal", "correlation")),
    ("scale once", "1/scale in place of 1/scale²", ("scale", "square")),
)


def conservative(w):
    def value(x):
        s = mix_score(x, MW, MM, MC, w)
        if w == "twist":
            return s + 0.05 * np.stack([-x[:, 1], x[:, 0]], axis=1)
        if w == "temperature":
            return 0.9 * s
        if w == "offset":
            return s + np.array([0.01, 0.0])
        return s

    return {"score": value}


family(
    "conservative_score",
    conservative,
    {"law": MIX},
    (
        "twist",
        "a rotation added, as in non-reversible samplers",
        ("symmetric", "gradient", "curl", "rotation", "antisymmetric", "not conservative"),
    ),
    ("temperature", "the score times 0.9", ("factor", "0.9", "times", "temperature", "Stein")),
    ("offset", "a constant added", ("constant", "mean", "E s", "offset", "shift")),
)

P_LABEL = np.array([0.9, 0.2, 0.5])


def tilted(w):
    grid1 = np.linspace(-6, 6, 3001)[:, None]
    h = grid1[1, 0] - grid1[0, 0]
    law = MIX1
    label = np.array([0.85, 0.3])

    def score(x_t, scale, std, weight):
        if w == "guidance":
            p = law.diffuse(scale, std)
            mix = label * np.array([0.4, 0.6])
            cond = Mixture(mix / mix.sum(), [[-0.8], [0.9]], [[[0.3]], [[0.5]]]).diffuse(scale, std)
            return (1 - weight) * p.score(x_t) + weight * cond.score(x_t)
        post = law.posterior(grid1) @ label
        power = weight + 1 if w == "plus 1" else weight
        log_tilt = law.log_prob(grid1) + power * np.log(post)
        log_k = -0.5 * ((x_t - scale * grid1.T) / std) ** 2 + log_tilt
        p = np.exp(log_k - logsumexp(log_k, axis=1, keepdims=True))
        mean = p @ grid1
        if w == "unscaled":
            return (mean - x_t) / std**2
        if w == "std":
            return (scale * mean - x_t) / std
        return (scale * mean - x_t) / std**2 + 0 * h

    return {"score": score, "p_label": label, "law": law}


family(
    "tilted_score",
    tilted,
    {"levels": np.array([[0.9, 0.5], [0.6, 0.8]]), "guidance": 2.5},
    (
        "guidance",
        "guidance of diffused scores for the score of the tilted law",
        ("guidance", "(1 − w)", "mixture of scores", "diffused scores"),
    ),
    ("plus 1", "w + 1 for w", ("w + 1", "1 + w", "w+1", "one more")),
    ("unscaled", "scale forgotten before the mean", ("scale",)),
    ("std", "std for std²: the noise", ("std ", "std²", "std is", "standard deviation", "noise", "square")),
)


def kl_parts(w):
    def value(p_x, q, prior):
        agg = p_x @ q
        if w == "uniform":
            agg = q.mean(axis=0)
        information = np.sum(q * np.log(q / agg), axis=1)
        marginal = np.sum(agg * np.log(agg / prior))
        if w == "to prior":
            information = np.sum(q * np.log(q / prior), axis=1)
        if w == "reverse":
            marginal = np.sum(prior * np.log(prior / agg))
        if w == "weighted":
            information = p_x * information
        return information, marginal

    return {"kl_parts": value}


family(
    "kl_parts",
    kl_parts,
    {"p_x": P_X, "q": Q, "prior": PRIOR},
    ("uniform", "aggregate over a uniform p(x), as over a batch", ("p(x)", "uniform", "mean", "weight")),
    ("to prior", "KL to the prior, not to the aggregate", ("prior", "aggregate", "q̄")),
    ("reverse", "KL(prior‖q̄)", ("revers", "swap", "exchang", "order", "KL(prior")),
    ("weighted", "every x times p(x)", ("p(x)", "weight")),
)


def iwae_ladder(w):
    def expected(joint, q, n):
        X, Z = joint.shape
        log_w = np.log(joint) - np.log(q)
        out = np.zeros(X)
        for z in np.ndindex(*(Z,) * n):
            prob = np.prod(q[:, list(z)], axis=1)
            if w == "prior draws":
                prior = joint.sum(axis=0)
                prob = np.tile(np.prod(prior[list(z)]), X)
            terms = log_w[:, list(z)]
            if w == "mean log":
                value = terms.mean(axis=1)
            elif w == "no n":
                value = logsumexp(terms, axis=1)
            elif w == "likelihood":
                value = logsumexp(np.log(joint)[:, list(z)], axis=1) - np.log(n)
            else:
                value = logsumexp(terms, axis=1) - np.log(n)
            out = out + prob * value
        return out

    return {"iwae": expected}


family(
    "iwae_ladder",
    iwae_ladder,
    {"joint": JOINT, "q": Q, "n_most": 3},
    (
        "mean log",
        "mean of the log-weights: the ELBO for every n",
        ("mean of log", "ELBO", "mean log", "every n", "log w"),
    ),
    ("no n", "1/n forgotten", ("1/n", "log n", "sum")),
    ("likelihood", "q not divided out", ("q(z", "importance", "divided", "log q")),
    ("prior draws", "the tuples weighted with the prior", ("prior", "p(z)")),
)

MI_X = np.concatenate([draws(53, 7, 1) * 0.8 - 1.2, draws(54, 8, 1) * 0.7 + 1.3])
MI_W, MI_M, MI_C = np.array([0.45, 0.55]), np.array([[-1.0], [1.2]]), np.array([[[0.8]], [[0.6]]])


def missing_information(w):
    def fractions(x, weights, means, covariances):
        r = np.exp(log_resp(x, weights, means, covariances)[0])
        K, D = means.shape
        A = np.zeros((K * D, K * D))
        n = r.sum(axis=0)
        for k in range(K):
            for j in range(K):
                # dM_k/dm_j = sum_n r_k (delta_kj - r_j) (x - M_k) (x - m_j)^T C_j^-1 / N_k
                c = r[:, k] * ((k == j) - r[:, j]) / n[k]
                if w == "own only" and k != j:
                    c = 0 * c
                left, right = x - means[k], (x - means[j]) @ np.linalg.inv(covariances[j])
                if w == "precision":
                    right = x - means[j]
                A[k * D : (k + 1) * D, j * D : (j + 1) * D] = np.einsum("n,ni,nj->ij", c, left, right)
        values = np.sort(np.linalg.eigvals(A).real)[::-1]
        if w == "rising":
            values = values[::-1]
        return 1 - values[::-1] if w == "observed" else values

    return {"fractions": fractions}


family(
    "missing_information",
    missing_information,
    {"x": MI_X, "weights": MI_W, "means": MI_M, "covariances": MI_C},
    ("observed", "fractions of observed information", ("1 −", "observed", "complement")),
    (
        "own only",
        "responsibilities of other components held fixed",
        ("other", "diagonal", "block", "cross", "off-diagonal"),
    ),
    ("precision", "inverse covariance forgotten", ("covariance", "precision of", "precisions", "inverse", "C⁻¹")),
    ("rising", "eigenvalues in rising order", ("order", "rising", "ascending", "sort", "revers")),
)


def inversion(w):
    s = LINEAR

    def inverse(i, t, x_s, eps_hat):
        x0 = x_s - s.beta_bar[i] * eps_hat
        x0 = x0 / s.alpha_bar[i]
        if w == "forward step":
            ratio = s.alpha_bar[t] / s.alpha_bar[i]
            return ratio * x_s + np.sqrt(1 - ratio**2) * eps_hat
        if w == "swap":
            return s.alpha_bar[i] / s.alpha_bar[t] * (x_s - s.beta_bar[t] * eps_hat) + s.beta_bar[i] * eps_hat
        if w == "next":
            t = i + 1
        if w == "clip":
            x0 = np.clip(x0, -1, 1)
        return s.alpha_bar[t] * x0 + s.beta_bar[t] * eps_hat

    return {"inverse": inverse}


family(
    "ddim_inversion",
    inversion,
    {"schedule": LINEAR},
    ("forward step", "noise added as by q(x_t | x_s)", ("q(x_t", "forward", "√(1 −", "fresh", "added")),
    (
        "swap",
        "s and t exchanged: the step of the sampler",
        ("swap", "exchang", "sampler", "s and t", "interchang", "direction"),
    ),
    (
        "next",
        "t = s + 1: right without skipped steps only",
        ("s + 1", "s+1", "skip", "next step", "adjacent", "one step"),
    ),
    ("clip", "x̂_0 clipped to [-1, 1]", ("clip", "clamp")),
)


def data_processing(w):
    s = NoiseSchedule.from_variances([0.3, 0.5, 0.6, 0.7])

    def density(eps_hat, sigma_squared):
        m, v = 0.0, 1.0
        for t in range(s.T, 0, -1):
            e = np.asarray(eps_hat(np.array([[0.0], [1.0]]), t))[:, 0]
            b, k = e[0], e[1] - e[0]
            c = s.beta[t] ** 2 / s.beta_bar[t]
            gain = (1 - c * k) / s.alpha[t]
            var = sigma_squared[t]
            if w == "std":
                var = np.sqrt(var)
            m, v = gain * m - c * b / s.alpha[t], (gain * v if w == "gain" else gain**2 * v) + var
        x = np.linspace(m - 12 * np.sqrt(v), m + 12 * np.sqrt(v), 20001)
        if w == "half":
            return x, np.exp(-((x - m) ** 2) / v) / np.sqrt(2 * np.pi * v)
        return x, np.exp(-0.5 * (x - m) ** 2 / v) / np.sqrt(2 * np.pi * v)

    return {"density": density, "schedule": s}


family(
    "data_processing",
    data_processing,
    {},
    ("std", "σ for σ² in the variance", ("σ", "standard deviation", "root", "square")),
    ("gain", "gain not squared in the variance", ("square", "gain", "variance")),
    ("half", "exp(−(x − m)²/v) without ½: not normalised", ("½", "half", "normalis", "sum to 1", "integra", "mass")),
)


def discrete_bound(w):
    def elbo(schedule, x0, eps_hat, sigma_squared, n_levels):
        s = schedule
        nodes, weights = np.polynomial.hermite_e.hermegauss(64)
        weights = weights / weights.sum()
        z1, z2 = np.meshgrid(nodes, nodes, indexing="ij")
        wz = np.outer(weights, weights).ravel()
        noise = np.stack([z1.ravel(), z2.ravel()], axis=1)
        half = 1 / n_levels if w == "width" else 1 / (n_levels - 1)
        out = np.zeros(len(x0))
        for i, x in enumerate(x0):
            a, b = s.alpha_bar[-1], s.beta_bar[-1]
            total = 0.5 * np.sum(a**2 * x**2 + b**2 - 1 - 2 * np.log(b))
            if w == "prior":
                total = 0.0
            for t in range(1, s.T + 1):
                x_t = s.alpha_bar[t] * x + s.beta_bar[t] * noise
                m = (x_t - s.beta[t] ** 2 / s.beta_bar[t] * np.asarray(eps_hat(x_t, t))) / s.alpha[t]
                v = sigma_squared[t]
                if t == 1:
                    hi, lo = (x + half - m) / np.sqrt(v), (x - half - m) / np.sqrt(v)
                    if w != "closed":
                        hi = np.where(x > 1 - 1e-9, np.inf, hi)
                        lo = np.where(x < -1 + 1e-9, -np.inf, lo)
                    flip = lo > 0
                    p, q = np.where(flip, -lo, hi), np.where(flip, -hi, lo)
                    with np.errstate(divide="ignore"):
                        log_mass = log_ndtr(p) + np.log1p(-np.exp(log_ndtr(q) - log_ndtr(p)))
                    if w == "density":
                        log_mass = -0.5 * (x - m) ** 2 / v - 0.5 * np.log(2 * np.pi * v)
                    value = -np.sum(log_mass, axis=1)
                else:
                    q = (
                        s.alpha[t] * s.beta_bar[t - 1] ** 2 * x_t + s.alpha_bar[t - 1] * s.beta[t] ** 2 * x
                    ) / s.beta_bar[t] ** 2
                    r = s.beta_tilde[t] ** 2 / v
                    value = 0.5 * np.sum((q - m) ** 2 / v + r - 1 - np.log(r), axis=1)
                total = total + wz @ value
            out[i] = -total
        return out

    return {"elbo": elbo}


family(
    "discrete_bound",
    discrete_bound,
    {},
    ("closed", "the outer bins are not open", ("open", "infin", "outer", "ends", "closed", "first and")),
    ("density", "the density at the level for the mass of its bin", ("density", "width", "mass")),
    ("prior", "L_T left out", ("L_T", "prior")),
    ("width", "bins of half width 1/n", ("width", "edge", "1/n", "gap", "narrow")),
    slow=True,
)


def dequantisation(w):
    mean, std = np.array([0.4, 1.8]), np.array([1.3, 1.7])

    def cost(log_p, k):
        u, wt = np.polynomial.legendre.leggauss(24)
        u, wt = (u + 1) / 2, wt / 2
        if w == "centred":
            u = u - 0.5
        g1, g2 = np.meshgrid(u, u, indexing="ij")
        nodes, weight = np.stack([g1.ravel(), g2.ravel()], axis=1), np.outer(wt, wt).ravel()
        values = np.array([log_p(row + nodes) for row in np.asarray(k, float)])
        if w == "midpoint":
            return np.log(np.exp(values) @ weight) - log_p(np.asarray(k, float) + 0.5)
        if w == "diagonal":
            line = np.stack([u, u], axis=1)
            mean_log = np.array([log_p(row + line) @ wt for row in np.asarray(k, float)])
        else:
            mean_log = values @ weight
        log_mass = np.log(np.exp(values) @ weight)
        if w == "diagonal":
            log_mass = np.log(np.array([np.exp(log_p(row + line)) @ wt for row in np.asarray(k, float)]))
        if w == "sign":
            return mean_log - log_mass
        if w == "per dim":
            return (log_mass - mean_log) / 2
        return log_mass - mean_log

    return {"cost": cost, "mean": mean, "std": std}


family(
    "dequantisation",
    dequantisation,
    {},
    ("midpoint", "density at the midpoint for its mean logarithm", ("midpoint", "centre", "u = ½", "0.5")),
    ("centred", "u in [−½, ½)", ("½", "centr", "shift")),
    ("diagonal", "one u for all dimensions", ("dimension", "shared", "one u", "same u")),
    ("sign", "the cost with the other sign", ("sign", "negative", "minus")),
    ("per dim", "divided by D", ("D times", "/D", "factor D", "dimensions", "dimension", "½", "half")),
)


def _cases():
    for check, coding, problem, wrongs, slow in FAMILIES:
        for key, name, words in wrongs:
            yield Wrong(f"{check}: {name}", partial(run, check, coding, problem, key), words, slow)


# Right names in other words than the foreseen ones, compared with the mistake by hand after the first run.
FOUND = {
    "em: weights never updated": "they are equal",  # the wrong code returns 1/K
    "predicted_noise: x_t − x̂_0 without ᾱ": "ᾱ is missing before x_0",
    "optimal_variance: summed over dimensions, not a mean": "the noise loss is not divided by D",
    "bound_terms: log β̄ for log β̄² in the prior term": "β̄_T stands for β̄_T² in the logarithm",
    "sampler_of: the times of the network run upwards": "the steps are counted backwards",
    "vae_objective: log of the mean likelihood for the mean log": "the expectation E_q stands under the logarithm",
    "importance_weighted_bound: log-weights averaged with the normalised weights, "
    "the form of the gradient": "the mean of log w weighted by w",
    "bits_per_dim: not divided by D": "it is not divided by D",
    "joint_kl: log p(x) left out": "p(x) is missing under the logarithm",
    "ppca_maximum: divided by D in place of D − k": "averaged over all D",
    "ppca_step: trace without 1/D": "it is not divided by D",
    "factor_analysis_step: Ψ averaged, the M-step of PPCA": "one number for all dimensions",
    "sde: g² = σ² log(σ_max/σ_min), 2 forgotten": "a factor √2 of g is missing",
    "sde: the logarithm outside the root": "g² is 5.29832 times",
    "reverse_sde: g for g²": "g stands where g² belongs",
    "heun: the second slope at the old x": "the second slope is taken at the x of the start",
    "score_matching: divergence without 2": "the divergence has lost its 2",
    "kl_bound: g² without ½": "T stands where T/2 belongs",
    "kl_bound: g for g²": "g stands where g² belongs",
    "loss_gradient: derivative divided by the batch": "divided by the number of examples",
    "loss_gradient: mean over dimensions in the loss": "half the right value",
    "training_step: gradient not set to zero: added twice": "added to the gradient of the call before",
    "adam: no bias correction": "not corrected for their start at 0",
    "learning_rate: warm-up from 0, step for step + 1": "the rise starts at 0",
    "learning_rate: linear decay": "along a line",
    "training: Adam without bias correction": "not corrected for their start at 0",
    "flow_velocity: v of Salimans and Ho without π/2, the derivative of the angle": "v = scale · ε − std · x_0",
    "edm_coefficients: σ_data taken as 1 in c_in, as in k-diffusion's VP models": "the data's variance is taken as 1",
    "exponential_step: r upside down": "h/h_last is turned over",
    "kl_rate: g for g²": "g stands where g² belongs",
    "ddim_inversion: s and t exchanged: the step of the sampler": "the DDIM step from t down to s",
    "dequantisation: density at the midpoint for its mean logarithm": "u is fixed at ½",
}

CASES = tuple(case._replace(words=(*case.words, FOUND[case.name])) if case.name in FOUND else case for case in _cases())
