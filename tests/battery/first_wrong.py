"""Wrong implementations for every check, each with one mistake; the phrases were fixed before the first run."""

import functools
import itertools

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import log_ndtr, logsumexp, ndtr

import scratchgen.conformance as c
from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen.conformance.networks import printed_law, printed_noise
from tests.battery.case import Wrong

_cases = []


def wrong(name, *words, slow=False):
    """Add the decorated function to CASES; a word is a phrase or a tuple of phrases."""
    flat = tuple(phrase for word in words for phrase in ((word,) if isinstance(word, str) else word))

    def add(run):
        _cases.append(Wrong(name, run, flat, slow))
        return run

    return add


def place(given, wanted):
    """Return the ways to say that one quantity stands where another belongs."""
    forms = "{0} in place of {1}", "{0} instead of {1}", "{0} for {1}", "{0}, not {1}", "{0} stands where {1}"
    return tuple(form.format(given, wanted) for form in forms)


def missing(*parts):
    """Return the ways to say that a part is missing."""
    forms = "{0} is missing", "without {0}", "{0} missing", "no {0}", "{0} was dropped", "{0} is left out"
    forms += ("without the {0}", "{0} are missing")
    return tuple(form.format(part) for part in parts for form in forms)


def superfluous(*parts):
    """Return the ways to say that a part is one too many."""
    forms = "{0} too many", "superfluous {0}", "{0} is superfluous", "with {0}", "{0} is added", "extra {0}"
    return tuple(form.format(part) for part in parts for form in forms)


HALF = ("½", "half", "factor 2", "twice", "doubled", "2 times", "times 2", "factor of 2", "1/2")
SIGN = ("sign", "negated", "opposite", "−1 times", "minus in place of plus", "plus in place of minus", "subtracted")
MEAN = ("mean over", "averaged", "divided by D", "1/D", "mean instead of", "mean in place of", "mean, not", "average")
TOTAL = ("summed over", "sum over", "total over", "over the batch", "over the examples", "all examples")
SHARED = ("same noise", "shared", "one noise", "common noise", "reused", "of another example", "of the first")
ROOT = ("square root", "root of", "squared", "the square of", "a variance", "a standard deviation", "std, not")
ROOT += ("standard deviation in place", "variance in place", "std in place", "is a variance", "variance, not")
INDEX = ("{t−1} in place", "{t+1} in place", "previous step", "next step", "index", "shifted", "off by one")
INDEX += ("one step late", "one step early", "counts from", "neighbour", "of step t − 1", "of step t + 1", "t − 1 in")
INDEX += ("t+1 in place of t", "t−1 in place of t", "t + 1 in place of t", "step late", "one step", "wrong step")
CLIP = ("clip", "clamp")
FIRST = ("t = 1",)
REVERSED = ("reversed", "reverse order", "other order", "exchanged", "swapped", "order of", "KL(q‖p)", "in reverse")
AXIS = ("axis", "transpose", "rows and columns", "columns", "column", "wrong dimension")


def at(table, t):
    """Return a table's entry at an int t, or a column of entries at an array t."""
    entry = table[t]
    return entry[:, None] if np.ndim(entry) else entry


rng = np.random.default_rng(20)
S = NoiseSchedule.linear(10)
COS = NoiseSchedule.cosine(14)
HO = NoiseSchedule(np.linspace(1e-4, 0.02, 30))
V2 = 0.5 * (S.beta**2 + np.where(np.arange(11) == 1, S.beta[1] ** 2, S.beta_tilde**2))  # σ_t², between both choices
X3 = rng.normal(size=(5, 3))
X2 = rng.normal(size=(4, 2)) * 1.3 + 0.4
SDE = VP(0.2, 5.0, horizon=1.5)
LOG2PI = np.log(2 * np.pi)


def ho(schedule):
    """Return Ho's betas, alphas and alphas_cumprod (T,)."""
    betas = schedule.beta[1:] ** 2
    return betas, 1 - betas, np.cumprod(1 - betas)


def curved(x, t):
    """Return a noise network that is not linear."""
    return 0.6 * x + 0.3 * np.sin(2 * x + 0.1 * np.asarray(t, float).reshape((-1, 1) if np.ndim(t) else ()))


def mixed(x, t):
    """Return a noise network that mixes dimensions."""
    t = np.asarray(t, float).reshape((-1, 1) if np.ndim(t) else ())
    return 0.7 * x + 0.2 * np.tanh(x[:, ::-1] - 0.05 * t) + 0.05


# --- schedule and forward process


def _schedule_case(schedule, alpha_bar=None, beta_bar=None, beta_tilde=None):
    return c.check_schedule(
        schedule,
        schedule.alpha_bar if alpha_bar is None else alpha_bar,
        schedule.beta_bar if beta_bar is None else beta_bar,
        schedule.beta_tilde if beta_tilde is None else beta_tilde,
    )


@wrong("alphas_cumprod is given where its root belongs", ROOT, "ᾱ_t²", "ᾱ²")
def _():
    return _schedule_case(S, alpha_bar=S.alpha_bar**2)


@wrong("cumulative products shifted: entry t holds the product to t - 1", INDEX)
def _():
    bar = np.concatenate([[1.0], S.alpha_bar[:-1]])
    return _schedule_case(S, alpha_bar=bar, beta_bar=np.sqrt(1 - bar**2))


@wrong("posterior std clipped at its second entry as in Ho's log variance (subtle: t = 1 only)", FIRST, "β̃_2", "β̃_1")
def _():
    tilde = S.beta_tilde.copy()
    tilde[1] = tilde[2]
    return _schedule_case(S, beta_tilde=tilde)


@wrong("product of betas in place of product of alphas: 1 - prod of β²", "product", "Π", "∏", "β_1", "prod")
def _():
    return _schedule_case(HO, beta_bar=np.sqrt(np.concatenate([[0.0], np.cumsum(HO.beta[1:] ** 2)])))


@wrong("q_step: β_t² multiplies the noise (variance for std)", ROOT, place("β_t²", "β_t"), "β²", "β_t²")
def _():
    return c.check_forward_step(lambda t, x, e: at(S.alpha, t) * x + at(S.beta, t) ** 2 * e, S)


@wrong(
    "q_step: variance exploding, x_{t-1} not scaled", missing("α_t", "α"), "not scaled", "not shrunk", "not multiplied"
)
def _():
    return c.check_forward_step(lambda t, x, e: x + at(S.beta, t) * e, S)


@wrong("q_step: one noise for all dimensions of an example", SHARED, "dimensions")
def _():
    return c.check_forward_step(lambda t, x, e: at(S.alpha, t) * x + at(S.beta, t) * e[:, :1], S)


@wrong("q_sample: 0-based table with 1-based t, clean index wraps (Ho)", INDEX, "ᾱ_{t+1}", "ᾱ_{t−1}")
def _():
    bar = ho(S)[2]
    return c.check_forward_process(
        lambda t, x, e: np.sqrt(at(bar, np.minimum(t, 9))) * x + np.sqrt(1 - at(bar, np.minimum(t, 9))) * e,
        S,
    )


@wrong("q_sample: 1 - ᾱ in place of its root", ROOT, "β̄_t²", "β̄²")
def _():
    bar = np.concatenate([[1], ho(S)[2]])
    return c.check_forward_process(lambda t, x, e: np.sqrt(at(bar, t)) * x + (1 - at(bar, t)) * e, S)


@wrong("q_sample: betas of one step where the product belongs", "α_t", "one step", "single step", "not the product")
def _():
    betas = S.beta**2
    return c.check_forward_process(lambda t, x, e: np.sqrt(1 - at(betas, t)) * x + np.sqrt(at(betas, t)) * e, S)


@wrong("q_sample: t broadcast over dimensions, not examples", "broadcast", AXIS, "array of t", "arrays of t")
def _():
    def q_sample(t, x, e):
        return S.alpha_bar[t] * x + S.beta_bar[t] * e  # (N,) against (N, D): right for one t only

    return c.check_forward_process(q_sample, S)


@wrong("q_sample: wrong by 1e-6 at T only (subtle)", "t = 10", "t = T", "last step")
def _():
    bar = S.beta_bar.copy()
    bar[-1] *= 1 + 1e-6
    return c.check_forward_process(lambda t, x, e: at(S.alpha_bar, t) * x + at(bar, t) * e, S)


@wrong("q_sample: clipping to [-3, 3] after noising (subtle: only far points)", CLIP)
def _():
    return c.check_forward_process(lambda t, x, e: (at(S.alpha_bar, t) * x + at(S.beta_bar, t) * e).clip(-3, 3), S)


# --- posterior, noise merging, x_0


def _posterior(schedule, change="none"):
    b2, ab, bb2, a = schedule.beta**2, schedule.alpha_bar, schedule.beta_bar**2, schedule.alpha

    def q_posterior(t, x, x0):
        p = np.asarray(t) - 1
        one, two = at(ab, p) * at(b2, t) / at(bb2, t), at(a, t) * at(bb2, p) / at(bb2, t)
        variance = at(b2, t) * at(bb2, p) / at(bb2, t)
        if change == "coefficients swapped":
            one, two = two, one
        if change == "ᾱ_t":
            one = at(ab, t) * at(b2, t) / at(bb2, t)
        if change == "no root of α":
            two = at(a, t) ** 2 * at(bb2, p) / at(bb2, t)
        if change == "log":
            variance = np.log(np.maximum(variance, 1e-20))
        if change == "std":
            variance = np.sqrt(variance)
        if change == "clip":
            variance = np.maximum(variance, at(b2, np.maximum(t, 2)) * bb2[1] / bb2[2])
        if change == "floor":
            variance = np.maximum(variance, 1e-4)
        return one * x0 + two * x, variance

    return c.check_posterior(q_posterior, schedule)


@wrong("posterior: the two coefficients of the mean are exchanged", "exchanged", "swapped", "other way", "arguments")
def _():
    return _posterior(S, "coefficients swapped")


@wrong("posterior: sqrt of alphas_cumprod[t] for that of t - 1", "ᾱ_t in place of ᾱ_{t−1}", INDEX)
def _():
    return _posterior(COS, "ᾱ_t")


@wrong("posterior: α_t² (Ho's alphas without root) on x_t", ROOT, "α_t² ", "α²", place("α_t²", "α_t"))
def _():
    return _posterior(S, "no root of α")


@wrong(
    "posterior: the log variance is returned as variance", "logarithm", "log variance", "is log", "the log of", "log β̃"
)
def _():
    return _posterior(S, "log")


@wrong(
    "posterior: variance floored at 1e-4 (subtle: only where β̃² is small)", "at least", "floor", CLIP, "least", FIRST
)
def _():
    return _posterior(HO, "floor")


def _merge(schedule, change="none"):
    a, b, bb = schedule.alpha, schedule.beta, schedule.beta_bar

    def row(t):
        one, two = at(a, t) * at(bb, np.asarray(t) - 1) / at(bb, t), at(b, t) / at(bb, t)
        if change == "α missing":
            one = at(bb, np.asarray(t) - 1) / at(bb, t)
        return one, two

    def merge(t, prev, step):
        one, two = row(t)
        if change == "not orthogonal":
            return one * prev + two * step, two * prev + one * step
        return one * prev + two * step, two * prev - one * step

    def split(t, eps, omega):
        one, two = row(t)
        if change == "plus":
            return two * eps + one * omega
        return two * eps - one * omega

    return c.check_noise_merging(merge, split, schedule)


@wrong(
    "merged noise: ω has plus for minus, not orthogonal to ε", SIGN, "orthogonal", "independent", "correlated", "R Rᵀ"
)
def _():
    return _merge(S, "not orthogonal")


@wrong("merged noise: α_t is missing, variance above 1", missing("α_t"), "length", "variance 1")
def _():
    return _merge(S, "α missing")


@wrong("split noise: plus for minus", SIGN)
def _():
    return _merge(COS, "plus")


@wrong("predict_x0: not divided by ᾱ_t", missing("1/ᾱ_t", "the division by ᾱ_t"), "not divided", "divided by ᾱ_t")
def _():
    return c.check_predict_x0(lambda t, x, e: x - at(S.beta_bar, t) * e, S)


@wrong("predict_x0: clipped to [-1, 1]", CLIP)
def _():
    return c.check_predict_x0(lambda t, x, e: ((x - at(S.beta_bar, t) * e) / at(S.alpha_bar, t)).clip(-1, 1), S)


@wrong("predict_x0: sqrt_recipm1 for sqrt_recip on x_t (arguments of a helper swapped)", "swapped", "exchanged")
def _():
    return c.check_predict_x0(lambda t, x, e: at(S.beta_bar, t) / at(S.alpha_bar, t) * x - e / at(S.alpha_bar, t), S)


@wrong("predict_x0: denominator max(ᾱ, 1e-2) guards the division (subtle: only T)", CLIP, "t = 14", "at least", "floor")
def _():
    return c.check_predict_x0(
        lambda t, x, e: (x - at(COS.beta_bar, t) * e) / np.maximum(at(COS.alpha_bar, t), 1e-2), COS
    )


# --- reverse steps and samplers


def _ancestral(schedule, s2, change="none"):
    def step(t, x, e, z):
        beta, total, alpha, sigma = (at(v, t) for v in (schedule.beta, schedule.beta_bar, schedule.alpha, np.sqrt(s2)))
        if change == "variance":
            sigma = sigma**2
        if change == "no last noise":
            sigma = sigma * (np.asarray(t) > 1).astype(float).reshape((-1, 1) if np.ndim(t) else ())
        if change == "β for β²":
            return (x - beta / total * e) / alpha + sigma * z
        if change == "β̄ root":
            return (x - beta**2 / total**2 * e) / alpha + sigma * z
        if change == "sign":
            return (x + beta**2 / total * e) / alpha + sigma * z
        if change == "noise inside":
            return (x - beta**2 / total * e + sigma * z) / alpha
        return (x - beta**2 / total * e) / alpha + sigma * z

    return c.check_ancestral_step(step, schedule, s2)


@wrong("p_sample: σ² multiplies the noise", "σ²", ROOT)
def _():
    return _ancestral(S, V2, "variance")


@wrong("p_sample: 1 - ᾱ without its root under β", ROOT, "β̄_t²", place("β̄_t²", "β̄_t"))
def _():
    return _ancestral(S, V2, "β̄ root")


@wrong("p_sample: the noise is inside the brackets that α_t divides", "1/α", "divided by α", "α_t")
def _():
    return _ancestral(COS, COS.beta**2, "noise inside")


@wrong("p_sample: no noise at t = 1 where the check wants it (subtle: t = 1 only)", FIRST, "last step", "no noise")
def _():
    return _ancestral(S, V2, "no last noise")


def _ddim(schedule, eta, change="none"):
    ab, bb = schedule.alpha_bar, schedule.beta_bar

    def step(t, s, x, e, z):
        sigma = eta * at(bb, s) / at(bb, t) * np.sqrt(np.maximum(1 - at(ab, t) ** 2 / at(ab, s) ** 2, 0))
        x0 = (x - at(bb, t) * e) / at(ab, t)
        if change == "stale":
            x0 = x0.clip(-1, 1)
        if change == "direction":
            return at(ab, s) * x0 + at(bb, s) * e + sigma * z
        if change == "eta squared":
            sigma = sigma * eta
        if change == "ratio":
            sigma = eta * at(bb, s) / at(bb, t) * np.sqrt(np.maximum(1 - at(ab, t) / at(ab, s), 0))
        if change == "sigma in root":
            return at(ab, s) * x0 + np.sqrt(np.maximum(at(bb, s) ** 2 - sigma, 0)) * e + sigma * z
        if change == "one step":
            s = np.asarray(t) - 1
        return at(ab, s) * x0 + np.sqrt(np.maximum(at(bb, s) ** 2 - sigma**2, 0)) * e + sigma * z

    return step


@wrong("DDIM: the direction keeps its whole length though noise is added", "σ²", "direction", missing("σ"))
def _():
    return c.check_ddim_step(_ddim(S, 0.7, "direction"), S, 0.7)


@wrong("DDIM: η is squared", "η²", "η squared", "η twice", "η is squared")
def _():
    return c.check_ddim_step(_ddim(S, 0.7, "eta squared"), S, 0.7)


@wrong("DDIM: ᾱ without square in the ratio of σ (root of alphas_cumprod mixed up)", ROOT, "ᾱ_t/ᾱ_s")
def _():
    return c.check_ddim_step(_ddim(S, 1.0, "ratio"), S, 1.0)


@wrong("DDIM: steps always to t - 1 though s is given", "t − 1", "t−1", INDEX)
def _():
    return c.check_ddim_step(_ddim(S, 0.0, "one step"), S, 0.0)


@wrong("DDIM: x_0 clipped to [-1, 1] while ε̂ stays stale", CLIP)
def _():
    return c.check_ddim_step(_ddim(S, 0.0, "stale"), S, 0.0)


def _ddim_sampler(schedule, eta, change="none"):
    step = _ddim(schedule, eta)

    def sample(x, eps_hat, noise):
        old = None
        for i, t in enumerate(range(schedule.T, 0, -1)):
            if change == "missing last" and t == 1:
                break
            e = eps_hat(x, t - 1 if change == "t − 1" else t)
            if change == "stale eps" and old is not None:
                e, old = old, e
            else:
                old = e
            if change == "x0 at the end" and t == 1:
                return (x - schedule.beta_bar[1] * e) / schedule.alpha_bar[1] * (1 + 1e-6)
            z = noise[0] if change == "same noise" else noise[i]
            if change == "noise reversed":
                z = noise[::-1][i]
            x = step(t, t - 1, x, e, z)
        return x

    return c.check_ddim_sampler(sample, schedule, eta)


@wrong("DDIM sampler: the last step to x_0 is missing", "last step", "x_1", missing("the step from t = 1"), FIRST)
def _():
    return _ddim_sampler(S, 0.0, "missing last")


@wrong("DDIM sampler: the network gets t - 1 (0-based)", INDEX, "t − 1", "t−1")
def _():
    return _ddim_sampler(S, 0.5, "t − 1")


@wrong("DDIM sampler: ε̂ of the step before (stale variable)", "stale", "previous", "step before", "old", "lag", "late")
def _():
    return _ddim_sampler(COS, 0.0, "stale eps")


@wrong("DDIM sampler: one noise for all steps", SHARED, "noise[0]", "every step")
def _():
    return _ddim_sampler(S, 1.0, "same noise")


@wrong("DDIM sampler: x_0 wrong by 1e-6 relative at the last step (subtle)", FIRST, "last step")
def _():
    return _ddim_sampler(S, 0.3, "x0 at the end")


def _sampler(schedule, s2, change="none", mean=0.3, variance=0.6):
    def sample(x, eps_hat, noise):
        for i, t in enumerate(range(schedule.T, 0, -1)):
            a, b, ab, bb = (v[t] for v in (schedule.alpha, schedule.beta, schedule.alpha_bar, schedule.beta_bar))
            e, z, sigma = eps_hat(x, t), noise[i], np.sqrt(s2[t])
            if change == "zero-based":
                e = eps_hat(x, t - 1)
            if change == "clip x0":
                x0 = ((x - bb * e) / ab).clip(-1, 1)
                e = (x - ab * x0) / bb
            if change == "clip 10":
                x0 = ((x - bb * e) / ab).clip(-10, 10)
                e = (x - ab * x0) / bb
            if change == "T - 1" and t == 1:
                sigma = 0.0
            if change == "σ of t − 1":
                sigma = np.sqrt(s2[max(t - 1, 1)])
            if change == "reversed":
                z = noise[schedule.T - 1 - i]
            if change == "first row":
                z = noise[i][:1]
            x = (x - b**2 / bb * e) / a + sigma * z
        return x

    return c.check_sampler(sample, schedule, mean, variance, s2)


@wrong("sampler: x_0 clipped to [-1, 1]", CLIP)
def _():
    return _sampler(S, V2, "clip x0")


@wrong("sampler: no noise at the last step (subtle: t = 1 only)", FIRST, "last step", "no noise")
def _():
    return _sampler(S, V2, "T - 1")


@wrong("sampler: σ of the step before", INDEX, "σ_{t−1}")
def _():
    return _sampler(S, V2, "σ of t − 1")


@wrong("sampler: noise consumed in reversed order", REVERSED, "order", "noise[t", "backwards")
def _():
    return _sampler(S, V2, "reversed")


@wrong("sampler: the noise of the first example for all", SHARED, "examples")
def _():
    return _sampler(COS, COS.beta**2, "first row")


@wrong("sampler: x_0 clipped to [-10, 10] (subtle: only far points)", CLIP)
def _():
    return _sampler(S, V2, "clip 10")


def _sampler_of(change, eta=None, last_noise=True, variance="beta"):
    s2 = S.beta**2
    step = _ddim(S, eta if eta is not None else 0.0)
    local = np.random.default_rng(3)

    def sample(x, noise):
        for i, t in enumerate(range(10, 0, -1)):
            e = mixed(x, t)
            if change == "half cfg":
                e = 0.5 * e
            if eta is not None:
                x = step(t, t - 1, x, e if change != "t − 1" else mixed(x, t - 1), noise[i])
                continue
            sigma = np.sqrt(s2[t]) if not (change == "no last" and t == 1) else 0.0
            if change == "posterior":
                sigma = S.beta_tilde[t]
            if change == "log var":
                sigma = np.exp(np.log(s2[t]))
            x = (x - S.beta[t] ** 2 / S.beta_bar[t] * e) / S.alpha[t] + sigma * noise[i]
        return x

    x_T, noise = local.normal(size=(4, 3)), local.normal(size=(10, 4, 3))
    return c.check_sampler_of(sample, mixed, x_T, noise, S, variance, eta, last_noise)


@wrong("sampler with own network: σ² = β̃² where β² is meant", "β̃", "posterior")
def _():
    return _sampler_of("posterior")


@wrong("sampler with own network: exp(log σ²) without ½ as std", ROOT, "σ²", HALF)
def _():
    return _sampler_of("log var")


@wrong("sampler with own network: last noise dropped (subtle: t = 1 only)", FIRST, "last step", "no noise")
def _():
    return _sampler_of("no last")


@wrong("DDIM with own network: t - 1 to the network", INDEX, "t − 1", "t−1")
def _():
    return _sampler_of("t − 1", eta=0.0)


# --- predictions, variances, weights


def _predicted(kind, change="none", schedule=S):
    x_t = np.random.default_rng(4).normal(size=(6, 3)) * 2

    def output(x, t, labelled):
        return 0.5 * np.sin(x) + 0.1 * x + (0.3 * np.cos(x) if labelled else 0.05)

    def to_eps(x, t, out):
        ab, bb, b = schedule.alpha_bar[t], schedule.beta_bar[t], schedule.beta[t]
        if kind == "noise":
            return out
        if kind == "x0":
            return (x - ab * out) / bb
        if kind == "v":
            if change == "v sign":
                return bb * x - ab * out
            if change == "v swapped":
                return ab * x + bb * out
            return ab * out + bb * x
        return out * bb / b if change != "step inverse" else out * b / bb

    def predict(x, t, guidance, clip):
        with_label, without = output(x, t, True), output(x, t, False)
        if change == "labels dropped":
            with_label = without
        if change == "guidance from label":
            out = with_label + guidance * (with_label - without)
        elif change == "guidance reversed":
            out = with_label + guidance * (without - with_label)
        else:
            out = without + guidance * (with_label - without)
        e = to_eps(x, t, out)
        if clip:
            ab, bb = schedule.alpha_bar[t], schedule.beta_bar[t]
            x0 = ((x - bb * e) / ab).clip(-1, 1)
            if change == "clip 0 1":
                x0 = x0.clip(0, 1)
            if change != "stale":
                e = (x - ab * x0) / bb
        return e

    return c.check_predicted_noise(predict, output, schedule, kind, x_t)


@wrong("predicted noise: guidance 1 + w (ε_c + w(ε_c - ε_u))", "1 + w", "w + 1", "guidance", "w − 1")
def _():
    return _predicted("noise", "guidance from label")


@wrong("predicted noise: label dropped in both calls", "label", "unconditional", "guidance")
def _():
    return _predicted("noise", "labels dropped")


@wrong("predicted noise: v with the other sign", SIGN)
def _():
    return _predicted("v", "v sign")


@wrong("predicted noise: ᾱ and β̄ exchanged in v", "exchanged", "swapped", "x_0 of v", "x̂_0")
def _():
    return _predicted("v", "v swapped")


@wrong("predicted noise: x_0 clipped, ε̂ left stale", CLIP, "stale")
def _():
    return _predicted("x0", "stale")


@wrong("predicted noise: clipped to [0, 1] for [-1, 1] (subtle: only negative pixels)", CLIP, "[0, 1]")
def _():
    return _predicted("noise", "clip 0 1")


@wrong("predicted noise: factor of one step inverted", "inverse", "inverted", "β_t/β̄_t", "β_t²/β̄_t²", "divided")
def _():
    return _predicted("step", "step inverse")


@wrong("reverse variance: β̃_1² = 0 kept (subtle: t = 1 only)", FIRST, "β̃_1")
def _():
    return c.check_reverse_variance(lambda name: S.beta**2 if name == "beta" else S.beta_tilde**2, S)


@wrong("reverse variance: standard deviations", ROOT)
def _():
    tilde = np.where(np.arange(11) == 1, S.beta[1], S.beta_tilde)
    return c.check_reverse_variance(lambda name: S.beta if name == "beta" else tilde, S)


@wrong("reverse variance: first entry clipped to the second as in Ho (subtle: t = 1)", FIRST, "β̃_2", "β̃_1")
def _():
    tilde = S.beta_tilde**2
    tilde[1] = tilde[2]
    return c.check_reverse_variance(lambda name: S.beta**2 if name == "beta" else tilde, S)


def _optimal(change):
    def v(loss):
        with np.errstate(all="ignore"):
            D = 1 if change == "no 1/D" else 2
            w = S.beta**4 / (D * S.alpha**2 * S.beta_bar**2)
            if change == "no α":
                w = w * S.alpha**2
            out = S.beta_tilde**2 + w * loss
        if change == "no β̃":
            out = out - S.beta_tilde**2
        out[0] = 0
        return out

    return c.check_optimal_variance(v, S, np.array([[0.8, 0.2], [0.2, 0.4]]))


@wrong("optimal variance: loss not divided by D", MEAN, missing("1/D"), "sum over", "D times")
def _():
    return _optimal("no 1/D")


@wrong("optimal variance: β̃² is missing", missing("β̃_t²", "β̃²", "β̃"))
def _():
    return _optimal("no β̃")


@wrong("optimal variance: 1/α² is missing (subtle at small β)", missing("1/α_t²", "1/α²", "α_t²", "α²"))
def _():
    return _optimal("no α")


def _weights(change):
    def weights(name):
        with np.errstate(all="ignore"):
            snr = S.alpha_bar**2 / S.beta_bar**2
            w = {
                "simple": np.ones(11),
                "x0": 1 / snr,
                "v": 1 / S.alpha_bar**2,
                "min-snr": np.minimum(snr, 5) / snr,
                "bound": 10 * S.beta**4 / (2 * V2 * S.alpha**2 * S.beta_bar**2),
            }
            if change == "snr":
                w["x0"] = snr
            if change == "v snr":
                w["v"] = snr + 1
            if change == "max":
                w["min-snr"] = np.maximum(snr, 5) / snr
            if change == "no half":
                w["bound"] = 2 * w["bound"]
            if change == "no T":
                w["bound"] = w["bound"] / 10
        w = w[name]
        w[0] = 0
        return w

    return c.check_loss_weights(weights, S, V2)


@wrong("loss weights: SNR for 1/SNR in x0", "SNR", "inverse", "inverted", "reciprocal")
def _():
    return _weights("snr")


@wrong("loss weights: v as weight on x0, SNR + 1", "SNR + 1", "1 + SNR", "x_0", "‖x_0", "1/β̄")
def _():
    return _weights("v snr")


@wrong("loss weights: the bound's without ½", HALF)
def _():
    return _weights("no half")


@wrong("loss weights: max(SNR, 5) for min", "max", "above 5", "larger")
def _():
    return _weights("max")


# --- bounds of the chain


def _step_loss(change, t=4):
    s2 = V2[t]

    def loss(t, x0, prev, step, eps_hat):
        x_prev = S.alpha_bar[t - 1] * x0 + S.beta_bar[t - 1] * prev
        if change == "single noise":
            x_t = S.alpha_bar[t] * x0 + S.beta_bar[t] * step
        else:
            x_t = S.alpha[t] * x_prev + S.beta[t] * step
        e = eps_hat(x_t, t - 1 if change == "t − 1" else t)
        mean = (x_t - S.beta[t] ** 2 / S.beta_bar[t] * e) / S.alpha[t]
        if change == "noise of one step":
            mean = (x_t - S.beta[t] * e) / S.alpha[t]
        D = x0.shape[1]
        square = ((x_prev - mean) ** 2).sum(1)
        if change == "no half":
            square = 2 * square
        if change == "mean":
            return 0.5 * LOG2PI + 0.5 * np.log(s2) + square / (2 * s2) / D
        if change == "constant":
            return D / 2 * np.log(s2) + square / (2 * s2)
        if change == "log σ":
            return D / 2 * LOG2PI + D * np.log(s2) + square / (2 * s2)
        return D / 2 * (LOG2PI + np.log(s2)) + square / (2 * s2)

    return c.check_step_loss(loss, S, t, curved, 0.3, 0.9, s2)


@wrong("step loss: square twice, as printed on the slide", HALF)
def _():
    return _step_loss("no half")


@wrong("step loss: log 2π missing", "2π", "constant")
def _():
    return _step_loss("constant")


@wrong("step loss: total noise used as the noise of one step", "one step", "β_t/β̄_t", "β̄", "total noise")
def _():
    return _step_loss("noise of one step")


@wrong("step loss: mean over dimensions", MEAN)
def _():
    return _step_loss("mean")


@wrong("step loss: log σ² not halved", HALF, "log σ")
def _():
    return _step_loss("log σ")


def _mu_q(t, x, x0):
    return (S.alpha_bar[t - 1] * S.beta[t] ** 2 * x0 + S.alpha[t] * S.beta_bar[t - 1] ** 2 * x) / S.beta_bar[t] ** 2


def _mu_p(t, x, eps):
    return (x - S.beta[t] ** 2 / S.beta_bar[t] * eps) / S.alpha[t]


def _L_T(x0, change="none"):
    m2, v = S.alpha_bar[-1] ** 2 * x0**2, S.beta_bar[-1] ** 2
    if change == "L_T log":
        return 0.5 * (m2 + v - 1 - 0.5 * np.log(v)).sum(1)
    if change == "L_T mean":
        return 0.5 * (m2 + v - 1 - np.log(v)).mean(1)
    if change == "L_T zero":
        return 0 * x0.sum(1)
    if change == "L_T of T - 1":
        m2, v = S.alpha_bar[-2] ** 2 * x0**2, S.beta_bar[-2] ** 2
    return 0.5 * (m2 + v - 1 - np.log(v)).sum(1)


def _L_t(t, x0, x_t, eps_hat, s2, change="none"):
    v, D = S.beta_tilde[t] ** 2, x0.shape[1]
    d2 = ((_mu_q(t, x_t, x0) - _mu_p(t, x_t, eps_hat(x_t, t))) ** 2).sum(1)
    ratio = v / s2[t]
    if change == "reversed":
        return 0.5 * D * (1 / ratio - 1 + np.log(ratio)) + d2 / (2 * v)
    if change == "equal":
        ratio = 1.0
    if change == "no half":
        return 0.5 * D * (ratio - 1 - np.log(ratio)) + d2 / s2[t]
    if change == "D":
        return 0.5 * (ratio - 1 - np.log(ratio)) + d2 / (2 * s2[t])
    return 0.5 * D * (ratio - 1 - np.log(ratio)) + d2 / (2 * s2[t])


def _L_0(x0, x1, eps_hat, s2, change="none"):
    d2, D = ((x0 - _mu_p(1, x1, eps_hat(x1, 1))) ** 2).sum(1), x0.shape[1]
    if change == "L_0 mse":
        return d2
    if change == "L_0 constant":
        return 0.5 * D * np.log(s2[1]) + d2 / (2 * s2[1])
    if change == "L_0 σ":
        return 0.5 * D * LOG2PI + 0.5 * D * np.log(s2[1]) + d2 / (2 * np.sqrt(s2[1]))
    return 0.5 * D * (LOG2PI + np.log(s2[1])) + d2 / (2 * s2[1])


def _terms(change):
    x0, noise = X3, np.random.default_rng(5).normal(size=(5, 3))
    return c.check_bound_terms(
        lambda x0: _L_T(x0, change),
        lambda t, x0, x_t, e: _L_t(t, x0, x_t, e, V2, change),
        lambda x0, x1, e: _L_0(x0, x1, e, V2, change),
        S,
        x0,
        noise,
        mixed,
        V2,
    )


@wrong("bound terms: L_T with log std for log variance", "L_T", ROOT, HALF)
def _():
    return _terms("L_T log")


@wrong("bound terms: KL of a step reversed", REVERSED, "KL(p")
def _():
    return _terms("reversed")


@wrong("bound terms: variances taken as equal", missing("β̃"), "equal", "trace")
def _():
    return _terms("equal")


@wrong("bound terms: L_0 without log 2π", "2π", "constant")
def _():
    return _terms("L_0 constant")


@wrong("bound terms: ½ D (...) of the variances without D", MEAN, missing("D"), "one dimension", "factor D")
def _():
    return _terms("D")


def _all_terms(x0, eps_hat, noise, s2, change="none"):
    out = []
    for t in range(1, 11):
        x_t = S.alpha_bar[t] * x0 + S.beta_bar[t] * (noise[0] if change == "same noise" else noise[t - 1])
        if t == 1:
            out.append(_L_0(x0, x_t, eps_hat, s2, change))
        else:
            out.append(_L_t(t, x0, x_t, eps_hat, s2, change))
    out.append(_L_T(x0, change))
    return np.stack(out, 1)


def _variational(change):
    A = 0.3 * np.random.default_rng(6).normal(size=(11, 2, 2)) + 0.5 * np.eye(2)
    b = 0.1 * np.random.default_rng(7).normal(size=(11, 2))
    mean, cov = np.array([0.5, -0.3]), np.array([[0.7, 0.2], [0.2, 0.5]])

    def bound(x0, eps_hat, noise):
        terms = _all_terms(x0, eps_hat, noise, V2, change)
        if change == "no L_T":
            terms = terms[:, :-1]
        if change == "missing t = T":
            terms = np.delete(terms, 9, axis=1)
        if change == "mean over t":
            return terms[:, 1:-1].mean(1) + terms[:, 0] + terms[:, -1]
        return terms if change == "per term" else terms.sum(1)

    return c.check_variational_bound(bound, S, mean, cov, A, b, V2)


@wrong("variational bound: prior term left out", "L_T", "prior", "L_10")
def _():
    return _variational("no L_T")


@wrong("variational bound: mean over t for the sum", "1/T", "T − 1", "sum over t")
def _():
    return _variational("mean over t")


@wrong("variational bound: the loop ends at T - 1", "T − 1", "t = 10", "t = T", "L_9", missing("L_9", "L_{T−1}"))
def _():
    return _variational("missing t = T")


@wrong("variational bound: L_0 is a squared error", "L_0", "squared error", "reconstruction")
def _():
    return _variational("L_0 mse")


@wrong("variational bound: L_T at step T - 1 (subtle: prior term only)", "T − 1", "L_T", "prior")
def _():
    return _variational("L_T of T - 1")


def _negative_elbo(change):
    A = 0.3 * np.random.default_rng(8).normal(size=(11, 2, 2)) + 0.5 * np.eye(2)
    b = 0.1 * np.random.default_rng(9).normal(size=(11, 2))
    mean, cov = np.array([0.5, -0.3]), np.array([[0.7, 0.2], [0.2, 0.5]])

    def value(loss, m2, D):
        total = (
            0.5 * D * (LOG2PI + np.log(V2[1]))
            + S.beta[1] ** 4 / (2 * S.beta_bar[1] ** 2 * S.alpha[1] ** 2 * V2[1]) * loss[1]
        )
        for t in range(2, 11):
            ratio = S.beta_tilde[t] ** 2 / V2[t]
            weight = S.beta[t] ** 4 / (2 * S.beta_bar[t] ** 2 * S.alpha[t] ** 2 * V2[t])
            if change == "simple":
                weight = 1.0
            if change == "α":
                weight *= S.alpha[t] ** 2
            if change == "no ratio":
                ratio = 1.0
            total += 0.5 * D * (ratio - 1 - np.log(ratio)) + weight * loss[t]
        v = S.beta_bar[-1] ** 2
        factor = 0.0 if change == "second moment" else S.alpha_bar[-1] ** 2
        return total + 0.5 * (D * (v - 1 - np.log(v)) + factor * m2)

    return c.check_negative_elbo(value, S, mean, cov, A, b, V2)


@wrong("negative ELBO: simple weights", "weight", "λ", "simple")
def _():
    return _negative_elbo("simple")


@wrong("negative ELBO: 1/α_t² missing in the weights", missing("1/α_t²", "1/α²", "α_t²", "α²"))
def _():
    return _negative_elbo("α")


@wrong(
    "negative ELBO: E‖x_0‖² left out of the prior term (subtle: ᾱ_T is small)", "second moment", "‖x_0‖²", "x_0", "L_T"
)
def _():
    return _negative_elbo("second moment")


def _normal(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + LOG2PI + np.log(variance)).sum(-1)


def _chains(change):
    path = np.random.default_rng(10).normal(size=(11, 4, 2))
    slopes = np.linspace(0.2, 0.8, 11)

    def forward(path):
        variance = S.beta if change == "std" else S.beta**2
        alpha = S.alpha**2 if change == "α²" else S.alpha
        return sum(_normal(path[t], alpha[t] * path[t - 1], variance[t]) for t in range(1, 11))

    def reverse(path, eps_hat):
        prior = 0.0 if change == "no prior" else _normal(path[-1], 0.0, 1.0)
        if change == "prior variance":
            prior = _normal(path[-1], 0.0, S.beta_bar[-1] ** 2)
        first = 2 if change == "no last" else 1
        steps = [_normal(path[t - 1], _mu_p(t, path[t], eps_hat(path[t], t)), V2[t]) for t in range(first, 11)]
        return prior + sum(steps)

    return c.check_chains(forward, reverse, S, path, slopes, V2)


@wrong("chains: p(x_T) left out", "prior", "p(x_T)", "p_θ(x_T)", "x_T")
def _():
    return _chains("no prior")


@wrong("chains: β for β² as variance of a forward step", ROOT, place("β_t", "β_t²"))
def _():
    return _chains("std")


@wrong("chains: p(x_0 | x_1) left out (subtle: t = 1 only)", FIRST, "x_1", "last step", "p_θ(x_0 | x_1)")
def _():
    return _chains("no last")


@wrong("chains: prior N(0, β̄_T²) for N(0, I) (subtle: β̄_T near 1)", "prior", "β̄_T")
def _():
    return _chains("prior variance")


def _loss_of(change, prediction="noise", reduction="sum", weight=None):
    x0, noise = X3, np.random.default_rng(11).normal(size=(5, 3))

    def loss(t, x0, e):
        x_t = at(S.alpha_bar, t) * x0 + at(S.beta_bar, t) * e
        if change == "table":
            x_t = at(S.alpha_bar**2, t) * x0 + at(S.beta_bar**2, t) * e
        out = np.concatenate(
            [mixed(x_t[i : i + 1], int(t[i]) - (1 if change == "t − 1" else 0)) for i in range(len(x0))]
        )
        target = {
            "noise": e,
            "x0": x0,
            "v": at(S.alpha_bar, t) * e - at(S.beta_bar, t) * x0,
            "step": at(S.beta / np.maximum(S.beta_bar, 1e-9), t) * e,
        }[prediction]
        if change == "x0 − ε":
            target = x0 - e
        if change == "+v":
            target = at(S.alpha_bar, t) * e + at(S.beta_bar, t) * x0
        if change == "noise target":
            target = e
        d = out - target
        if change == "l1":
            return abs(d).sum(1)
        if change == "mean":
            return (d**2).mean(1)
        if change == "first t":
            x_t = S.alpha_bar[t[0]] * x0 + S.beta_bar[t[0]] * e
            out = np.concatenate([mixed(x_t[i : i + 1], int(t[i])) for i in range(len(x0))])
            return ((out - target) ** 2).sum(1)
        if change == "batch mean":
            return np.full(len(x0), (d**2).sum(1).mean())
        return (d**2).sum(1)

    return c.check_loss_of(loss, mixed, x0, noise, S, None, prediction, weight, reduction)


@wrong("loss: mean over the dimensions", MEAN)
def _():
    return _loss_of("mean")


@wrong("loss: v with plus", SIGN)
def _():
    return _loss_of("+v", "v")


@wrong("loss: noise as the target of an x_0 network", "target")
def _():
    return _loss_of("noise target", "x0")


@wrong("loss: t of the first example for all", "first example", "shared", "same t", "one t", "common", "t[0]")
def _():
    return _loss_of("first t")


@wrong("loss: L1 norm", "absolute", "L1")
def _():
    return _loss_of("l1")


def _bound_of(change, slow=False):
    noise = np.random.default_rng(12).normal(size=(10, 5, 3))

    def bound(x0, noise):
        terms = _all_terms(x0, mixed, noise, S.beta**2, change)
        if change == "bits":
            return terms.sum(1) / np.log(2)
        return terms.sum(1) if change != "terms" else terms

    return c.check_bound_of(bound, mixed, X3, noise, S)


@wrong("bound of own network: noise of step 1 for all steps", SHARED, "noise[0]", "every step")
def _():
    return _bound_of("same noise")


@wrong("bound of own network: L_T zero (subtle)", "L_T", "prior", "L_10")
def _():
    return _bound_of("L_T zero")


@wrong("bound of own network: in bits", "bits", "log 2", "ln 2")
def _():
    return _bound_of("bits")


# --- draws


@wrong("steps drawn from 0..T-1", INDEX, "from 0")
def _():
    return c.check_step_draws(lambda u: ((np.floor((u + np.arange(4)) / 4 * 8)).astype(int), np.ones(4)), 8)


@wrong("steps: randint(1, T) never draws T (subtle: one step)", "t = 8", "step 8", "t = T", "step T", "last step")
def _():
    return c.check_step_draws(lambda u: (1 + np.floor((u + np.arange(4)) / 4 * 7).astype(int), np.ones(4)), 8)


@wrong("steps: importance draws without weights", "weight")
def _():
    p = np.arange(1, 9) / 36

    def draw(u):
        t = 1 + np.searchsorted(np.cumsum(p)[:-1], (u + np.arange(4)) / 4)
        return t, np.ones(4)

    return c.check_step_draws(draw, 8)


@wrong("steps: importance weights p for 1/p", "inverse", "reciprocal", "1/p", "inverted", "weight")
def _():
    p = np.arange(1, 9) / 36

    def draw(u):
        t = 1 + np.searchsorted(np.cumsum(p)[:-1], (u + np.arange(4)) / 4)
        return t, 8 * p[t - 1]

    return c.check_step_draws(draw, 8)


@wrong("times: clock is t, draws are squared", "uniform", "t²", "square", "early", "small")
def _():
    return c.check_time_draws(lambda u: (((u + np.arange(5)) / 5) ** 2, np.ones(5)), lambda t: t)


@wrong("times: reciprocal weights double counted, not normalised", "weight", HALF, "normalis")
def _():
    return c.check_time_draws(lambda u: ((u + np.arange(5)) / 5, np.full(5, 2.0)), lambda t: t)


@wrong(
    "times: uniform on [0.05, 1] (subtle: the start is never drawn)", "start", "smallest", "0.05", "lower end", "early"
)
def _():
    return c.check_time_draws(lambda u: (0.05 + 0.95 * (u + np.arange(5)) / 5, np.ones(5)), lambda t: t)


# --- VAE

VX, VW = rng.normal(size=(6, 4)), rng.normal(size=(4, 3))
VM, VQ, VL = rng.normal(size=4), rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) * 0.5 - 0.4


def _vae(change):
    def loss(x, x_hat, mean, log_var, dec):
        D = x.shape[1]
        kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(1)
        square = ((x - x_hat) ** 2).sum(1)
        rec = 0.5 * D * (LOG2PI + dec) + 0.5 * square / np.exp(dec)
        if change == "mse":
            rec = square
        if change == "kl sign":
            return rec - kl
        if change == "kl mean":
            kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).mean(1)
        if change == "rec mean":
            rec = rec / D
        if change == "log σ":
            kl = 0.5 * (mean**2 + np.exp(2 * log_var) - 1 - 2 * log_var).sum(1)
        if change == "no 2π":
            rec = 0.5 * D * dec + 0.5 * square / np.exp(dec)
        if change == "σ":
            rec = 0.5 * D * (LOG2PI + dec) + 0.5 * square / np.exp(0.5 * dec)
        if change == "kl no half":
            kl = 2 * kl
        if change == "batch":
            kl = np.full(len(x), kl.mean())
        if change == "last latent":
            kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)[:, :-1].sum(1)
        return rec + kl

    return c.check_vae_loss(loss, VX, VW, VM, 0.4, VQ, VL)


@wrong("VAE: plain squared error for −log p(x | z)", "squared error", "constant", "1/(2s²)", "2s²", "decoder variance")
def _():
    return _vae("mse")


@wrong("VAE: KL subtracted", SIGN)
def _():
    return _vae("kl sign")


@wrong("VAE: log variance taken as log std in the KL", ROOT, "log σ", HALF, "log std")
def _():
    return _vae("log σ")


@wrong("VAE: mean over latents for the KL", MEAN, "1/k", "divided by k")
def _():
    return _vae("kl mean")


@wrong("VAE: the batch's mean KL for every example", TOTAL, "batch")
def _():
    return _vae("batch")


@wrong("VAE: the last latent is left out of the KL (subtle: one dimension)", "latent", "dimension")
def _():
    return _vae("last latent")


@wrong("reparameterisation: exp(log variance) for its root", ROOT, HALF)
def _():
    return c.check_reparameterisation(lambda m, lv, z: m + np.exp(lv) * z, VQ, VL, rng_noise(6, 3))


@wrong("reparameterisation: one noise for all examples", SHARED, "examples")
def _():
    return c.check_reparameterisation(lambda m, lv, z: m + np.exp(0.5 * lv) * z[:1], VQ, VL, rng_noise(6, 3))


@wrong("reparameterisation: log variance clipped at 0 (subtle: only wide latents)", CLIP, "at most")
def _():
    return c.check_reparameterisation(lambda m, lv, z: m + np.exp(0.5 * np.minimum(lv, 0)) * z, VQ, VL, rng_noise(6, 3))


def rng_noise(*shape):
    """Return fixed noise."""
    return np.random.default_rng(13).normal(size=shape)


@wrong("diagonal KL: log variance added", SIGN)
def _():
    return c.check_diagonal_kl(lambda m, lv: 0.5 * (m**2 + np.exp(lv) - 1 + lv).sum(1), VQ, VL)


@wrong("diagonal KL: the 1 is forgotten", missing("1", "−1", "− 1", "k/2"), "constant", "½")
def _():
    return c.check_diagonal_kl(lambda m, lv: 0.5 * (m**2 + np.exp(lv) - lv).sum(1), VQ, VL)


@wrong("diagonal KL: KL(N(0, I) ‖ q)", REVERSED, "KL(N(0, I)")
def _():
    return c.check_diagonal_kl(lambda m, lv: 0.5 * ((m**2 + 1) / np.exp(lv) - 1 + lv).sum(1), VQ, VL)


JOINT = np.random.default_rng(14).dirichlet(np.ones(12)).reshape(4, 3)
QT = np.random.default_rng(15).dirichlet(np.ones(3) * 2, size=4)
PX = np.array([0.1, 0.35, 0.25, 0.3])
PRIOR = np.array([0.5, 0.2, 0.3])
DEC = np.random.default_rng(16).dirichlet(np.ones(4) * 2, size=3).T


@wrong("IWAE: mean of log w for log of the mean", "mean of log", "ELBO", "outside", "inside")
def _():
    return c.check_importance_weighted_bound(lambda lw: lw.mean(0), JOINT, QT)


@wrong("IWAE: log-sum-exp without log n", "log n", "1/n", "number of draws")
def _():
    return c.check_importance_weighted_bound(lambda lw: logsumexp(lw, axis=0), JOINT, QT)


@wrong("IWAE: over the wrong axis, one number for the batch", AXIS, TOTAL, "batch")
def _():
    return c.check_importance_weighted_bound(
        lambda lw: np.full(lw.shape[1], (logsumexp(lw, axis=1) - np.log(lw.shape[1])).mean()), JOINT, QT
    )


@wrong("IWAE: first draw has weight twice (subtle: E exp still right)", "equal", "weight", "draw", "unequal")
def _():
    def bound(lw):
        w = np.ones(len(lw))
        w[0] = 1.2 if len(lw) > 1 else 1
        w /= w.sum()
        return logsumexp(lw, axis=0, b=w[:, None])

    return c.check_importance_weighted_bound(bound, JOINT, QT)


@wrong("VAE objective: entropy of q left out of the KL", "entropy", missing("log q", "H(q)"))
def _():
    def loss(p, q, dec, prior):
        return (p[:, None] * q * (-np.log(dec) - np.log(prior))).sum()

    return c.check_vae_objective(loss, PX, QT, DEC, PRIOR)


@wrong("VAE objective: mean over x for the expectation under p(x)", "uniform", "mean over", "p(x)", "weighted", "1/X")
def _():
    def loss(p, q, dec, prior):
        return (q * (-np.log(dec) + np.log(q / prior))).sum(1).mean()

    return c.check_vae_objective(loss, PX, QT, DEC, PRIOR)


@wrong("VAE objective: KL against the aggregated q(z), not the prior", "aggregat", "prior", "marginal")
def _():
    def loss(p, q, dec, prior):
        return (p[:, None] * q * (-np.log(dec) + np.log(q / (p @ q)))).sum()

    return c.check_vae_objective(loss, PX, QT, DEC, PRIOR)


# --- divergences and tables

P5 = np.array([0.1, 0.3, 0.15, 0.25, 0.2])
Q5 = np.array([0.3, 0.1, 0.2, 0.05, 0.35])


@wrong("KL: arguments exchanged as in torch's kl_div", REVERSED, "KL(q")
def _():
    return c.check_kl(lambda p, q: (q * np.log(q / p)).sum(), P5, Q5)


@wrong("KL: in bits", "bits", "log₂", "log 2", "base 2", "ln 2")
def _():
    return c.check_kl(lambda p, q: (p * np.log2(p / q)).sum(), P5, Q5)


@wrong("KL: mean for sum (reduction='mean')", MEAN, "number of entries", "1/X", "divided by 5")
def _():
    return c.check_kl(lambda p, q: (p * np.log(p / q)).mean(), P5, Q5)


@wrong("KL: 1e-6 added inside the logarithm (subtle)", "1e-6", "1e-06", "added", "epsilon", "inside the log")
def _():
    return c.check_kl(lambda p, q: (p * np.log((p + 1e-6) / (q + 1e-6))).sum(), P5, Q5)


CP, CQ = np.array([[1.2, 0.3], [0.3, 0.8]]), np.array([[0.7, -0.2], [-0.2, 1.5]])
MP, MQ = np.array([0.3, -0.5]), np.array([-0.4, 0.9])


def _gaussian_kl(change):
    def kl(mp, cp, mq, cq):
        inv, d = np.linalg.inv(cq), mq - mp
        logs = np.log(np.linalg.det(cq) / np.linalg.det(cp))
        D = 0 if change == "no D" else len(d)
        if change == "log sign":
            logs = -logs
        if change == "inverse of p":
            inv = np.linalg.inv(cp)
        square = np.sqrt(d @ inv @ d) if change == "distance" else d @ inv @ d
        trace = np.diag(inv) @ np.diag(cp) if change == "diagonals" else np.trace(inv @ cp)
        return 0.5 * (trace + square - D + logs)

    return c.check_gaussian_kl(kl, MP, CP, MQ, CQ)


@wrong("Gaussian KL: log-determinants the other way", SIGN, "exchanged")
def _():
    return _gaussian_kl("log sign")


@wrong("Gaussian KL: −D is missing", missing("−D", "D/2", "−D/2", "− D"), "constant")
def _():
    return _gaussian_kl("no D")


@wrong("Gaussian KL: Mahalanobis distance not squared", ROOT, "distance")
def _():
    return _gaussian_kl("distance")


@wrong("Gaussian KL: trace from the diagonals only (subtle: correlations)", "diagonal", "trace")
def _():
    return _gaussian_kl("diagonals")


@wrong("bits per dimension: log 2 missing", "nats", "log 2", "ln 2", "log₂")
def _():
    return c.check_bits_per_dim(lambda n, D, s: (n - D * np.log(s)) / D, PX, 3, 0.1)


@wrong("bits per dimension: sign of the scale", SIGN)
def _():
    return c.check_bits_per_dim(lambda n, D, s: (n + D * np.log(s)) / (D * np.log(2)), PX, 3, 0.1)


@wrong("bits per dimension: log scale counted once, not D times", "every dimension", "once", "each dimension")
def _():
    return c.check_bits_per_dim(lambda n, D, s: (n - np.log(s)) / (D * np.log(2)), PX, 3, 0.1)


def _bins(change):
    def log_mass(level, mean, std):
        n = 9
        half = 1 / n if change == "width" else 1 / (n - 1)
        centre = 2 * level / (n - 1) - 1
        low, high = (centre - half - mean) / std, (centre + half - mean) / std
        if change != "closed":
            low, high = np.where(level == 0, -np.inf, low), np.where(level == n - 1, np.inf, high)
        if change == "last only":
            high = np.where(level == n - 1, (centre + half - mean) / std, high)
        if change == "naive":
            return np.log(np.maximum(ndtr(high) - ndtr(low), 1e-12))
        flip = low > 0
        low, high = np.where(flip, -high, low), np.where(flip, -low, high)
        out = log_ndtr(high) + np.log(-np.expm1(log_ndtr(low) - log_ndtr(high)))
        if change == "density":
            out = -0.5 * ((centre - mean) / std) ** 2 - 0.5 * LOG2PI - np.log(std)
        return out

    return c.check_bin_masses(log_mass, 9, np.array([-0.9, 0.05, 0.6]), 0.15)


@wrong("bin masses: edges of half width 1/n for 1/(n − 1)", "width", "edge", "1/n")
def _():
    return _bins("width")


@wrong("bin masses: first and last bin not open", "open", "first and", "tail", "outer")
def _():
    return _bins("closed")


@wrong("bin masses: last bin not open (subtle: one level)", "open", "tail")
def _():
    return _bins("last only")


@wrong("bin masses: clamped at 1e-12 as in Ho (subtle: far bins)", "1e-12", CLIP, "at least", "floor", "far")
def _():
    return _bins("naive")


def _joint(change):
    def joint_kl(p, q, dec, prior):
        left = q if change == "no p" else p[:, None] * q
        if change == "reversed":
            r = dec * prior
            return (r * np.log(r / (p[:, None] * q))).sum()
        if change == "no log p":
            return (left * np.log(q / (dec * prior))).sum()
        if change == "prior":
            return (left * np.log(p[:, None] * q / dec)).sum()
        return (left * np.log(p[:, None] * q / (dec * prior))).sum()

    return c.check_joint_kl(joint_kl, PX, QT, DEC, PRIOR)


@wrong("joint KL: entropy of p left out", "H(p)", "entropy", "log p(x)", "(13)")
def _():
    return _joint("no log p")


@wrong("joint KL: prior left out", "prior", "q(z)", "p(z)")
def _():
    return _joint("prior")


@wrong("joint KL: reversed", REVERSED)
def _():
    return _joint("reversed")


@wrong("ELBO: entropy of q left out", "entropy", "log q", "H(q)")
def _():
    return c.check_elbo(lambda j, q: (q * np.log(j)).sum(1), JOINT, QT)


@wrong("ELBO: posterior for the joint", "posterior", "normalis", "log p(x)", "p(z | x)", "joint")
def _():
    return c.check_elbo(lambda j, q: (q * np.log(j / j.sum(1, keepdims=True) / q)).sum(1), JOINT, QT)


@wrong("ELBO: log of the expectation (no bound)", "log p(x)", "outside", "inside", "Jensen", "does not depend on q")
def _():
    return c.check_elbo(lambda j, q: np.log((q * (j / q)).sum(1)), JOINT, QT)


@wrong("split ELBO: KL added", SIGN)
def _():
    return c.check_split_elbo(lambda d, p, q: (q * np.log(d)).sum(1) + (q * np.log(q / p)).sum(1), DEC, PRIOR, QT)


@wrong("split ELBO: KL weighted by 4 (beta-VAE)", "β", "weight", "4 times", "factor", "KL is", "times the KL", "KL has")
def _():
    return c.check_split_elbo(lambda d, p, q: (q * np.log(d)).sum(1) - 4 * (q * np.log(q / p)).sum(1), DEC, PRIOR, QT)


@wrong("split ELBO: KL(p(z)‖q) reversed", REVERSED, "KL(p")
def _():
    return c.check_split_elbo(lambda d, p, q: (q * np.log(d)).sum(1) - (p * np.log(p / q)).sum(1), DEC, PRIOR, QT)


@wrong("posterior of a table: normalised over x, not z", AXIS, "over x", "normalis", "p(x | z)")
def _():
    return c.check_latent_posterior(lambda j: (j / j.sum(0), j.sum(1)), JOINT)


@wrong("posterior of a table: log evidence for the evidence", "logarithm", "is log p(x)", "the log of", "log p(x), not")
def _():
    return c.check_latent_posterior(lambda j: (j / j.sum(1, keepdims=True), np.log(j.sum(1))), JOINT)


@wrong("posterior of a table: not normalised", "normalis", "joint", "not divided", "sum to 1")
def _():
    return c.check_latent_posterior(lambda j: (j, j.sum(1)), JOINT)


@wrong("KL to the posterior: joint for posterior", "joint", "log p(x)", "normalis", "evidence")
def _():
    return c.check_posterior_kl(lambda j, q: (q * np.log(q / j)).sum(1), JOINT, QT)


@wrong("KL to the posterior: reversed", REVERSED)
def _():
    def kl(j, q):
        p = j / j.sum(1, keepdims=True)
        return (p * np.log(p / q)).sum(1)

    return c.check_posterior_kl(kl, JOINT, QT)


@wrong("free M-step: normalised over z", AXIS, "over z", "p(z | x)", "normalis", "not divided", "posterior")
def _():
    def step(p, q):
        joint = p[:, None] * q
        return joint / joint.sum(1, keepdims=True), joint.sum(0)

    return c.check_free_m_step(step, PX, QT, PRIOR)


@wrong("free M-step: p(x) left out (all x equally likely)", "p(x)", "uniform", "equal")
def _():
    def step(p, q):
        return q / q.sum(0), p @ q

    return c.check_free_m_step(step, PX, QT, PRIOR)


@wrong("free M-step: q(z) as the mean over x", "p(x)", "uniform")
def _():
    def step(p, q):
        joint = p[:, None] * q
        return joint / joint.sum(0), q.mean(0)

    return c.check_free_m_step(step, PX, QT, PRIOR)


# --- EM

EX = np.concatenate([rng.normal(size=(9, 2)), rng.normal(size=(8, 2)) * 0.7 + [2.0, 1.0]])
EW = np.array([0.3, 0.5, 0.2])
EM = np.array([[0.1, -0.2], [1.8, 1.1], [0.9, 0.3]])
EC = np.array([[[1.0, 0.2], [0.2, 0.8]], [[0.6, -0.1], [-0.1, 0.5]], [[1.5, 0.4], [0.4, 1.1]]])


def log_normals(x, means, covs, change="none"):
    """Return log N(x_n; m_k, C_k), (N, K)."""
    out = []
    for m, C in zip(means, covs, strict=True):
        d = x - m
        P = np.linalg.inv(C)
        logdet = np.linalg.slogdet(C)[1]
        if change == "logdet":
            logdet = 2 * logdet
        if change == "diagonal":
            P, logdet = np.diag(1 / np.diag(C)), np.log(np.diag(C)).sum()
        square = np.einsum("ni,ij,nj->n", d, P, d)
        if change == "covariance":
            square = np.einsum("ni,ij,nj->n", d, C, d)
        out.append(-0.5 * (square + logdet + (x.shape[1] - (change == "2π once")) * LOG2PI))
    return np.stack(out, 1)


def responsibilities(x, w, m, C, change="none"):
    """Return q(z | x), (N, K)."""
    if change == "no weights":
        joint = log_normals(x, m, C)
    elif change == "no logsumexp":
        joint = np.log(w) + log_normals(x, m, C)
        return np.exp(joint) / (np.exp(joint).sum(1, keepdims=True) + 1e-300)
    else:
        joint = np.log(w) + log_normals(x, m, C, change)
    if change == "over examples":
        return np.exp(joint - logsumexp(joint, axis=0))
    if change == "unnormalised":
        return np.exp(joint)
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def _e_step(change):
    return c.check_e_step(lambda x, w, m, C: responsibilities(x, w, m, C, change), EX, EW, EM, EC)


@wrong("E-step: mixing weights left out", "weights", "equal weights", "p(z)", "prior")
def _():
    return _e_step("no weights")


@wrong("E-step: normalised over the examples", AXIS, "over the examples", "over x", "over n", "normalis")
def _():
    return _e_step("over examples")


@wrong("E-step: normaliser |C| for its root", ROOT, "det", "|C|", HALF)
def _():
    return _e_step("logdet")


@wrong("E-step: without log-sum-exp (subtle: only far points)", "underflow", "far", "log-sum-exp", "logsumexp")
def _():
    return _e_step("no logsumexp")


@wrong("E-step: covariance for its inverse", "inverse", "precision", "inverted")
def _():
    return _e_step("covariance")


def log_responsibilities(x, w, m, C):
    """Return log q(z | x), (N, K), finite for points far from a component."""
    joint = np.log(w) + log_normals(x, m, C)
    return joint - logsumexp(joint, axis=1, keepdims=True)


def hard(log_r):
    """Return the logarithms of a hard assignment."""
    return np.log(np.eye(log_r.shape[1])[log_r.argmax(1)] + 1e-300)


def m_step(x, log_r, old, change="none"):
    """Return weights, means and covariances, from logarithms so that a far component keeps its moments."""
    total = logsumexp(log_r, axis=0)
    n, r = np.exp(total), np.exp(log_r - total)
    K, means = len(n), r.T @ x
    centre = old if change == "old mean" else means
    covs = np.stack([(r[:, k, None] * (x - centre[k])).T @ (x - centre[k]) for k in range(K)])
    if change == "bessel":
        covs = covs * (n / (n - 1))[:, None, None]
    if change == "no mean":
        covs = np.stack([(r[:, k, None] * x).T @ x for k in range(K)])
    if change == "regular":
        covs = covs + 1e-6 * np.eye(x.shape[1])
    return n / len(x), means, covs


def _em(change):
    def step(x, w, m, C):
        log_r = log_responsibilities(x, w, m, C)
        if change == "hard":
            log_r = hard(log_r)
        new_w, new_m, new_C = m_step(x, log_r, m, change)
        return w if change == "weights kept" else new_w, new_m, new_C

    return c.check_em(step, EX, EW, EM, EC)


@wrong("EM: covariance about the old mean", "old mean", "previous mean", "mean before")
def _():
    return _em("old mean")


@wrong("EM: Bessel's correction", "Bessel", "N_k − 1", "N − 1", "n − 1", "unbiased")
def _():
    return _em("bessel")


@wrong("EM: mixing weights never updated", "weights", "not updated", "old weights")
def _():
    return _em("weights kept")


@wrong("EM: hard assignment (Viterbi)", "hard", "argmax", "nearest", "0 or 1", "most probable")
def _():
    return _em("hard")


@wrong(
    "EM: reg_covar 1e-6 added (subtle, scikit-learn's default)", "1e-06", "1e-6", "reg", "diagonal", "added", "ridge"
)
def _():
    return _em("regular")


def _em_loop(change):
    def em():
        w, m, C = EW, EM, EC
        first = log_responsibilities(EX, w, m, C)
        values = []
        for _ in range(4):
            values.append(logsumexp(np.log(w) + log_normals(EX, m, C), axis=1).mean())
            w, m, C = m_step(EX, first if change == "frozen q" else log_responsibilities(EX, w, m, C), m)
        values.append(logsumexp(np.log(w) + log_normals(EX, m, C), axis=1).mean())
        if change == "after":
            values = [*values[1:], values[-1]]
        if change == "sum":
            values = [v * len(EX) for v in values]
        return np.array(values), w, m, C

    return c.check_em_loop(em, EX, EW, EM, EC, 4)


@wrong("EM loop: responsibilities computed once", "old responsibilities", "stale", "start", "responsibilities")
def _():
    return _em_loop("frozen q")


@wrong("EM loop: objective after the M-step", "after", "one step", "next", "shifted", "late", "early", "later")
def _():
    return _em_loop("after")


@wrong("EM loop: sum over examples for the mean", TOTAL, "N times")
def _():
    return _em_loop("sum")


def _statistics(change):
    log_r = log_responsibilities(EX, EW, EM, EC)
    weights, m, C = m_step(EX, log_r, EM, change)
    counts = weights if change == "weights" else weights * len(EX)
    value = logsumexp(np.log(EW) + log_normals(EX, EM, EC), axis=1).mean()
    return c.check_statistics(lambda: (counts, m, C, value), EX, EW, EM, EC)


@wrong("statistics: weights N_k/N for the counts", "1/N", "divided by N", "weights", "N_k/N", "share")
def _():
    return _statistics("weights")


@wrong(
    "statistics: second moments without the mean subtracted",
    "second moment",
    "not centred",
    "about 0",
    "origin",
)
def _():
    return _statistics("no mean")


@wrong("statistics: covariance about the old mean", "old mean", "about the")
def _():
    return _statistics("old mean")


def _free_energy(change):
    log_q = np.log(np.random.default_rng(17).dirichlet(np.ones(3), size=len(EX)))

    def value(x, lq, w, m, C):
        joint = np.log(w) + log_normals(x, m, C, change)
        q = np.exp(lq)
        if change == "no entropy":
            return (q * joint).sum(1)
        if change == "entropy sign":
            return (q * (joint + lq)).sum(1)
        if change == "no weights":
            joint = joint - np.log(w)
        return (q * (joint - lq)).sum(1)

    return c.check_free_energy(value, EX, log_q, EW, EM, EC)


@wrong("free energy: entropy left out", "entropy", "log q", "H(q)")
def _():
    return _free_energy("no entropy")


@wrong("free energy: entropy with the wrong sign", SIGN)
def _():
    return _free_energy("entropy sign")


@wrong("free energy: log 2π once, not D times", "2π", "constant")
def _():
    return _free_energy("2π once")


COUNTS = np.array([7.0, 4.0, 9.0])


def _covariances(change):
    def maximum(kind, variance, count):
        n = COUNTS + count
        eye = np.eye(2)
        full = (COUNTS[:, None, None] * EC + count * variance * eye) / n[:, None, None]
        if change == "prior not counted":
            full = (COUNTS[:, None, None] * EC + count * variance * eye) / COUNTS[:, None, None]
        if kind == "tied":
            pooled = (np.tensordot(COUNTS, EC, 1) + count * variance * eye) / (
                COUNTS.sum() + count
            )  # one prior of one Σ
            full = np.repeat(pooled[None], 3, 0)
            if change == "tied mean":
                full = np.repeat(EC.mean(0)[None], 3, 0) if count == 0 else full
        if kind == "diag":
            full = full * eye
        if kind == "spherical":
            factor = 1.0 if change == "trace" else 0.5
            full = factor * np.trace(full, axis1=1, axis2=2)[:, None, None] * eye
        values, vectors = np.linalg.eigh(full)
        return np.einsum("kij,kj,klj->kil", vectors, np.maximum(values, 0.05), vectors)

    return c.check_covariance_types(maximum, EC, COUNTS, 0.05)


@wrong("tied covariance: plain mean over components", "weight", "N_k", "counts", "unweighted", "tied")
def _():
    return _covariances("tied mean")


@wrong("spherical covariance: trace not divided by D", missing("1/D"), "trace", "divided by D", "D times")
def _():
    return _covariances("trace")


@wrong("covariance prior: examples of the prior not counted in the denominator", "denominator", "count", "prior")
def _():
    return _covariances("prior not counted")


def _kmeans(change):
    def kmeans(x, centres):
        for _ in range(100 if change != "one iteration" else 1):
            d = ((x[:, None] - centres) ** 2).sum(2)
            if change == "L1":
                d = abs(x[:, None] - centres).sum(2)
            label = d.argmin(1)
            new = np.stack([x[label == k].mean(0) for k in range(len(centres))])
            if change == "median":
                new = np.stack([np.median(x[label == k], axis=0) for k in range(len(centres))])
            if np.array_equal(new, centres):
                break
            centres = new
        return centres

    return c.check_kmeans(kmeans, EX, EM)


@wrong("k-means: medians", "median")
def _():
    return _kmeans("median")


@wrong("k-means: one iteration only", "iteration", "one step", "not converged", "once", "stops", "early")
def _():
    return _kmeans("one iteration")


def _tables(change):
    local = np.random.default_rng(18)
    x = local.integers(0, 3, size=(12, 2))
    weights, tables = np.array([0.6, 0.4]), local.dirichlet(np.ones(3), size=(2, 2))
    pseudo = np.array([[0.5, 0.2, 0.1], [0.3, 0.3, 0.4]])

    def step(x, w, tab):
        x = x.astype(int)
        joint = np.log(w) + sum(np.log(tab[:, d, x[:, d]]).T for d in range(2))
        if change == "no weights":
            joint = joint - np.log(w)
        log_p = logsumexp(joint, axis=1)
        r = np.exp(joint - log_p[:, None])
        counts = np.stack([np.stack([r[x[:, d] == level].sum(0) for level in range(3)], 1) for d in range(2)], 1)
        if change == "no pseudo":
            new = counts
        elif change == "pseudo after":
            new = counts / counts.sum(-1, keepdims=True) + pseudo
        else:
            new = counts + pseudo
        new = new / new.sum(-1, keepdims=True)
        if change == "wrong axis":
            new = (counts + pseudo) / (counts + pseudo).sum(0, keepdims=True)
        return log_p, r.mean(0) if change != "N + 1" else r.sum(0) / (len(x) - 1), new

    return c.check_table_em(step, x, weights, tables, pseudo)


@wrong("tables: pseudo-counts left out", "pseudo")
def _():
    return _tables("no pseudo")


@wrong("tables: normalised over components", AXIS, "components", "normalis")
def _():
    return _tables("wrong axis")


@wrong("tables: pseudo-counts added to frequencies, not to counts", "pseudo", "frequenc", "normalis")
def _():
    return _tables("pseudo after")


SC = np.cov(np.random.default_rng(19).normal(size=(4, 9)) * np.array([[2.0], [1.5], [1.0], [0.6]]), bias=True)
PW = np.random.default_rng(21).normal(size=(4, 2))


def _ppca_step(change):
    def step(S_, W, v):
        k = W.shape[1]
        M = W.T @ W + v * np.eye(k)
        inv = np.linalg.inv(M)
        new = S_ @ W @ np.linalg.inv(v * np.eye(k) + inv @ W.T @ S_ @ W)
        if change == "old W":
            return new, np.trace(S_ - S_ @ W @ inv @ W.T) / 4
        if change == "no D":
            return new, np.trace(S_ - S_ @ W @ inv @ new.T)
        if change == "no σ²":
            new = S_ @ W @ np.linalg.inv(inv @ W.T @ S_ @ W)
        return new, np.trace(S_ - S_ @ W @ inv @ new.T) / 4

    return c.check_ppca_step(step, SC, PW, 0.5)


@wrong("PPCA step: old W in the new σ²", "old W")
def _():
    return _ppca_step("old W")


@wrong("PPCA step: trace not divided by D", missing("1/D"), "divided by D", "D times", "trace")
def _():
    return _ppca_step("no D")


@wrong(
    "PPCA step: posterior covariance left out of E zzᵀ",
    "covariance of z",
    "posterior covariance",
    "E zzᵀ",
    "σ²I",
    "M⁻¹",
)
def _():
    return _ppca_step("no σ²")


def _ppca_maximum(change):
    def maximum(S_, k):
        values, U = np.linalg.eigh(S_)
        values, U = values[::-1], U[:, ::-1]
        v = values[k:].mean()
        if change == "sum":
            v = values[k:].sum()
        if change == "all":
            v = values.mean()
        if change == "smallest":
            v = values[-1]
        if change == "pca":
            return U[:, :k] * np.sqrt(values[:k]), v
        if change == "not rooted":
            return U[:, :k] * (values[:k] - v), v
        return U[:, :k] * np.sqrt(np.maximum(values[:k] - v, 0)), v

    return c.check_ppca_maximum(maximum, SC, 2)


@wrong("PPCA maximum: σ² not subtracted from the eigenvalues", "subtracted", missing("σ²", "−σ²"), "PCA")
def _():
    return _ppca_maximum("pca")


@wrong("PPCA maximum: eigenvalues not rooted", ROOT)
def _():
    return _ppca_maximum("not rooted")


@wrong("PPCA maximum: least eigenvalue for the mean of the rest", "smallest", "least")
def _():
    return _ppca_maximum("smallest")


def _factor(change):
    def step(S_, W, psi):
        k = W.shape[1]
        beta = W.T @ np.linalg.inv(W @ W.T + np.diag(psi))
        zz = np.eye(k) - beta @ W + beta @ S_ @ beta.T
        if change == "no I":
            zz = beta @ S_ @ beta.T
        new = S_ @ beta.T @ np.linalg.inv(zz)
        target = W if change == "old W" else new
        new_psi = np.diag(S_ - target @ beta @ S_)
        if change == "isotropic":
            new_psi = np.full(4, new_psi.mean())
        return new, new_psi

    return c.check_factor_analysis_step(step, SC, PW, np.array([0.5, 0.3, 0.6, 0.4]))


@wrong("factor analysis: old W in Ψ", "old W")
def _():
    return _factor("old W")


@wrong("factor analysis: Ψ isotropic as in PPCA", "isotropic", "PPCA", "one number", "average")
def _():
    return _factor("isotropic")


# --- linear-Gaussian models

LX, LW = np.random.default_rng(22).normal(size=(5, 4)), np.random.default_rng(23).normal(size=(4, 3))
LM = np.array([0.2, -0.4, 0.6, 0.1])


def _lg_posterior(change):
    def posterior(x, W, mean, v):
        k = W.shape[1]
        M = W.T @ W + v * np.eye(k)
        centred = x if change == "not centred" else x - mean
        means = centred @ W @ np.linalg.inv(M)
        cov = np.linalg.inv(M) if change == "no σ²" else v * np.linalg.inv(M)
        if change == "std":
            means = centred @ W @ np.linalg.inv(W.T @ W + np.sqrt(v) * np.eye(k))
        if change == "least squares":
            means = centred @ W @ np.linalg.inv(W.T @ W)
        return means, cov

    return c.check_linear_gaussian_posterior(posterior, LX, LW, LM, 0.3)


@wrong("posterior of PPCA: mean not subtracted", "μ", "centred")
def _():
    return _lg_posterior("not centred")


@wrong("posterior of PPCA: M⁻¹ for σ²M⁻¹", missing("σ²"), "factor σ²")
def _():
    return _lg_posterior("no σ²")


@wrong("posterior of PPCA: least squares without the prior", "prior", "least squares", missing("I"))
def _():
    return _lg_posterior("least squares")


QM = np.random.default_rng(24).normal(size=(5, 3)) * 0.5
QC = np.array([[0.4, 0.1, 0.0], [0.1, 0.3, 0.05], [0.0, 0.05, 0.5]])


def _lg_elbo(change):
    def elbo(x, W, mean, v, qm, qc):
        D, k = W.shape
        r = x - mean - qm @ W.T
        spread = 0.0 if change == "no trace" else np.trace(W @ qc @ W.T)
        rec = -0.5 * D * (LOG2PI + np.log(v)) - 0.5 * ((r**2).sum(1) + spread) / v
        kl = 0.5 * (np.trace(qc) + (qm**2).sum(1) - k - np.linalg.slogdet(qc)[1])
        if change == "diagonal":
            kl = 0.5 * (np.trace(qc) + (qm**2).sum(1) - k - np.log(np.diag(qc)).sum())
        if change == "k":
            kl = kl + 0.5 * k - 0.5 * D
        return rec - kl

    return c.check_linear_gaussian_elbo(elbo, LX, LW, LM, 0.3, QM, QC)


@wrong("linear-Gaussian ELBO: trace term left out (plug-in mean)", "trace", "covariance of q", "variance of z")
def _():
    return _lg_elbo("no trace")


@wrong("linear-Gaussian ELBO: log-determinant from the diagonal (subtle: correlations)", "diagonal", "determinant")
def _():
    return _lg_elbo("diagonal")


@wrong("linear-Gaussian ELBO: D for k in the KL", "k/2", "constant")
def _():
    return _lg_elbo("k")


@wrong("mean field: variances of the marginals, diag of the inverse", "marginal", "diagonal of", "inverse", "KL(p‖q)")
def _():
    def mean_field(x, W, mean, v):
        P = np.eye(3) + W.T @ W / v
        return (x - mean) @ W @ np.linalg.inv(P) / v, np.diag(np.linalg.inv(P))

    return c.check_mean_field(mean_field, LX, LW, LM, 0.3)


@wrong("mean field: standard deviations", ROOT)
def _():
    def mean_field(x, W, mean, v):
        P = np.eye(3) + W.T @ W / v
        return (x - mean) @ W @ np.linalg.inv(P) / v, 1 / np.sqrt(np.diag(P))

    return c.check_mean_field(mean_field, LX, LW, LM, 0.3)


@wrong("mean field: coordinate ascent stopped after 25 sweeps (subtle: near the optimum)", "sweep", "converge", "slope")
def _():
    def mean_field(x, W, mean, v):
        P, h = np.eye(3) + W.T @ W / v, (x - mean) @ W / v
        m = np.zeros((len(x), 3))
        for _ in range(25):
            for i in range(3):
                m[:, i] = (h[:, i] - m @ P[i] + m[:, i] * P[i, i]) / P[i, i]
        return m, 1 / np.diag(P)

    return c.check_mean_field(mean_field, LX, LW, LM, 0.3)


# --- SDE


def _sde(change, sde=SDE):
    def marginal(t):
        B = sde.beta_integral(t)
        if change == "scale":
            return np.exp(-B), np.sqrt(1 - np.exp(-2 * B))
        if change == "variance":
            return np.exp(-B / 2), 1 - np.exp(-B)
        if change == "floor":
            return np.exp(-B / 2), np.maximum(np.sqrt(-np.expm1(-B)), 0.05)
        return np.exp(-B / 2), np.sqrt(-np.expm1(-B))

    def drift(x, t):
        beta = np.asarray(sde.beta(t)).reshape((-1, 1) if np.ndim(t) else ())
        if change == "no half":
            return -beta * x
        if change == "sign":
            return 0.5 * beta * x
        if change == "tanh":
            return -0.5 * beta * np.clip(x, -10, 10)
        return -0.5 * beta * x

    def diffusion(t):
        return sde.beta(t) if change == "g²" else np.sqrt(sde.beta(t))

    return c.check_sde(marginal, drift, diffusion, sde.horizon)


@wrong("SDE: β for √β as diffusion", ROOT, "g²", place("β", "√β"))
def _():
    return _sde("g²")


@wrong("SDE: drift without ½", HALF)
def _():
    return _sde("no half")


@wrong("SDE: variance returned as std", ROOT)
def _():
    return _sde("variance")


@wrong("SDE: drift clipped beyond ±10 (subtle: only far points)", CLIP, "linear", "far", "beyond")
def _():
    return _sde("tanh")


@wrong("SDE: VE with σ(t) for g (no √(2 log ratio))", "√(2", "log", "σ", "dσ²/dt", "derivative")
def _():
    ve = VE(0.01, 5.0)
    return c.check_sde(
        lambda t: (np.ones_like(np.asarray(t, float)), ve.std(t)),
        lambda x, t: 0 * x,
        lambda t: 0.01 * 500.0 ** np.asarray(t, float),
        1.0,
    )


@wrong("discretisation: first-order table β(t_i) h", "first order", "first-order", "h →", "Euler", "g²(t")
def _():
    t = np.arange(1, 13) * SDE.horizon / 12
    return c.check_discretisation(SDE.beta(t) * SDE.horizon / 12, SDE)


@wrong("discretisation: horizon forgotten, h = 1/T", "horizon", "h =", "1/T")
def _():
    t = np.linspace(0, SDE.horizon, 13)
    return c.check_discretisation(1 - np.exp(-np.diff(SDE.beta_integral(t)) / SDE.horizon), SDE)


@wrong("discretisation: standard deviations", ROOT)
def _():
    t = np.linspace(0, SDE.horizon, 13)
    return c.check_discretisation(np.sqrt(1 - np.exp(-np.diff(SDE.beta_integral(t)))), SDE)


RM, RC = np.array([0.4, -0.6]), np.array([[0.9, 0.3], [0.3, 0.5]])


def _reverse_sde(change, lam=1.0, sde=SDE):
    def score(x, t):
        scale, std = sde.marginal(t)
        if np.ndim(t):
            return np.concatenate([score(x[i : i + 1], float(t[i])) for i in range(len(x))])
        cov = scale**2 * RC + std**2 * np.eye(2)
        return -(x - scale * RM) @ np.linalg.inv(cov)

    def drift(x, t):
        g2 = np.asarray(sde.diffusion(t)) ** 2
        g2 = g2[:, None] if np.ndim(g2) else g2
        f, s = sde.drift(x, t), score(x, t)
        factor = 0.5 * (1 + lam**2)
        if change == "g":
            g2 = np.sqrt(g2)
        if change == "sign":
            return f + factor * g2 * s
        if change == "half":
            factor = 0.5
        if change == "lam":
            factor = 0.5 * (1 + lam)
        if change == "f sign":
            return -f + factor * g2 * s
        if change == "clip":
            s = s.clip(-20, 20)
        return f - factor * g2 * s

    return c.check_reverse_sde(drift, lambda t: lam * sde.diffusion(t), sde, RM, RC, lam)


@wrong("reverse SDE: g for g²", ROOT, place("g", "g²"))
def _():
    return _reverse_sde("g")


@wrong("reverse SDE: the flow's ½ with the noise of the SDE", HALF, "flow", "λ")
def _():
    return _reverse_sde("half")


@wrong("reverse SDE: (1 + λ)/2 for (1 + λ²)/2", "λ²", "1 + λ", "λ")
def _():
    return _reverse_sde("lam", lam=0.6)


@wrong("reverse SDE: both signs turned (dt > 0)", SIGN, "time")
def _():
    return _reverse_sde("f sign")


def _reverse_step(change, lam=1.0, sde=SDE):
    mean, variance = np.array([0.4, -0.6, 0.1]), np.array([0.9, 0.4, 1.5])

    def step(x, t, s, z):
        scale, std = sde.marginal(t)
        score = -(x - scale * mean) / (scale**2 * variance + std**2)
        g = sde.diffusion(t)
        drift = sde.drift(x, t) - 0.5 * (1 + lam**2) * g**2 * score
        h = t - s
        if change == "dt":
            return x + drift * h + lam * g * np.sqrt(h) * z
        if change == "sqrt":
            return x - drift * h + lam * g * h * z
        if change == "g²":
            return x - drift * h + lam * g**2 * np.sqrt(h) * z
        if change == "tiny":
            score = -(x - scale * mean) / (scale**2 * variance + std**2 + 1e-5)
            drift = sde.drift(x, t) - 0.5 * (1 + lam**2) * g**2 * score
        if change == "no f":
            drift = -0.5 * (1 + lam**2) * g**2 * score
        return x - drift * h + lam * g * np.sqrt(h) * z

    return c.check_reverse_step(step, sde, mean, variance, lam)


@wrong("reverse step: dt with the wrong sign", SIGN, "forward", "time")
def _():
    return _reverse_step("dt")


@wrong("reverse step: dt for √dt", "√", "root", "t − s")
def _():
    return _reverse_step("sqrt")


@wrong("reverse step: drift f left out", missing("f", "f x", "the drift"), "forward drift", "drift f")
def _():
    return _reverse_step("no f")


@wrong("reverse step: 1e-5 added to the variance (subtle)", "1e-05", "1e-5", "added")
def _():
    return _reverse_step("tiny")


TIMES = np.array([1.5, 1.2, 0.8, 0.5, 0.2, 0.05])


def smooth_score(x, t):
    """Return a score that is not affine."""
    return -x / (0.5 + t) + 0.3 * np.sin(x[:, ::-1] + t)


def _reverse_sampler(change, lam=1.0, corrections=0):
    def sample(x, times, noise):
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            z = noise[i] if corrections == 0 else noise[i, 0]
            tt = s if change == "end" else t
            g, h = SDE.diffusion(tt), t - s
            if change == "even grid":
                h = (times[0] - times[-1]) / (len(times) - 1)
            last = i == len(times) - 2
            amp = 0.0 if change == "no last noise" and last else lam * g * np.sqrt(h)
            x = x - (SDE.drift(x, tt) - 0.5 * (1 + lam**2) * g**2 * smooth_score(x, tt)) * h + amp * z
            for j in range(corrections):
                where = t if change == "corrector at t" else s
                delta = 2 * (0.16 * SDE.std(where)) ** 2
                if change == "no 2":
                    delta = delta / 2
                x = x + delta * smooth_score(x, where) + np.sqrt(2 * delta) * noise[i, 1 + j]
        return x

    return c.check_reverse_sampler(sample, smooth_score, SDE, TIMES, lam, corrections)


@wrong("reverse sampler: drift and g at the end of the step", "end of", "at s", "implicit")
def _():
    return _reverse_sampler("end")


@wrong("reverse sampler: even steps on an uneven grid", "even", "step size", "grid", "uniform")
def _():
    return _reverse_sampler("even grid")


@wrong("reverse sampler: no noise in the last step", "last step", "no noise")
def _():
    return _reverse_sampler("no last noise")


@wrong("predictor-corrector: corrector at t, not s", "at t", "start of", "before", "old time", "std(t)")
def _():
    return _reverse_sampler("corrector at t", corrections=2)


def _heun(change):
    def slope(x, t):
        return SDE.drift(x, t) - 0.5 * SDE.diffusion(t) ** 2 * smooth_score(x, t)

    def sample(x, times):
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            d = slope(x, t)
            y = x + (s - t) * d
            if change == "euler" or (change == "last euler" and i == len(times) - 2):
                x = y
                continue
            e = slope(y, t if change == "same t" else s)
            if change == "old x":
                e = slope(x, s)
            x = (y if change == "from y" else x) + (s - t) * 0.5 * (d + e)
        return x

    return c.check_heun(sample, smooth_score, SDE, TIMES)


@wrong("Heun: second slope at the old time", "at t", "old time", "start", "time of")
def _():
    return _heun("same t")


@wrong("Heun: second slope at the old x", "old x", "at x", "start", "Euler")
def _():
    return _heun("old x")


@wrong("Heun: last step by Euler as in EDM (subtle: one step)", "last step", "Euler")
def _():
    return _heun("last euler")


@wrong("Heun: corrected from the end of Euler's step", "twice", "end of", "Euler")
def _():
    return _heun("from y")


def _langevin(change):
    variance = np.array([0.7, 1.3, 0.4])

    def step(x, t, z):
        delta = 2 * (0.16 * SDE.std(t)) ** 2
        if change == "no 2":
            delta = (0.16 * SDE.std(t)) ** 2
        if change == "std":
            delta = 2 * 0.16**2 * SDE.std(t)
        noise = np.sqrt(delta) if change == "noise" else np.sqrt(2 * delta)
        if change == "half":
            return x - 0.5 * delta * x / variance + np.sqrt(2 * delta) * z
        if change == "sign":
            return x + delta * x / variance + noise * z
        return x - delta * x / variance + noise * z

    return c.check_langevin_step(step, SDE, variance, 0.16)


@wrong("Langevin: √δ for √(2δ)", HALF, "√δ", "√(2δ)", "√2")
def _():
    return _langevin("noise")


@wrong("Langevin: δ without its 2", HALF, "δ")
def _():
    return _langevin("no 2")


@wrong("Langevin: std for std²", ROOT, place("std", "std²"))
def _():
    return _langevin("std")


MIX = Mixture([0.35, 0.65], [[-0.8, 0.4], [0.9, -0.3]], [[[0.4, 0.1], [0.1, 0.3]], [[0.5, -0.15], [-0.15, 0.6]]])
MX = np.random.default_rng(25).normal(size=(6, 2))


def _denoiser(change):
    w, m, C = MIX.weights if hasattr(MIX, "weights") else np.array([0.35, 0.65]), MIX.means, MIX.covariances

    def denoise(x, scale, std):
        D = 2
        total = [scale**2 * Ck + std**2 * np.eye(D) for Ck in C]
        if change == "scale":
            total = [scale * Ck + std**2 * np.eye(D) for Ck in C]
        centres = m if change == "mean not scaled" else scale * m
        r = responsibilities(x, w, centres, total)
        if change == "responsibilities":
            r = responsibilities(x, w, m, C)
        if change == "argmax":
            r = np.eye(2)[r.argmax(1)]
        parts = [m[k] + (x - scale * m[k]) @ np.linalg.inv(total[k]) @ C[k] * scale for k in range(2)]
        if change == "gain":
            parts = [m[k] + (x - scale * m[k]) @ np.linalg.inv(total[k]) @ C[k] for k in range(2)]
        if change == "tweedie std":
            score = MIX.diffuse(scale, std).score(x)
            return (x + std * score) / scale
        return sum(r[:, k : k + 1] * parts[k] for k in range(2))

    return c.check_denoiser(denoise, MIX, MX, 0.7, 0.6)


@wrong("denoiser: Tweedie with std for std²", ROOT, place("std", "std²"))
def _():
    return _denoiser("tweedie std")


@wrong("denoiser: responsibilities of clean data", "responsibilities", "p(k | x", "clean", "undiffused")
def _():
    return _denoiser("responsibilities")


@wrong("denoiser: scale missing in the gain", missing("scale"))
def _():
    return _denoiser("gain")


@wrong("denoiser: means not scaled in the responsibilities", "means")
def _():
    return _denoiser("mean not scaled")


def mix_log_prob(x, change="none"):
    """Return log p(x) of MIX."""
    w, m, C = np.array([0.35, 0.65]), MIX.means, MIX.covariances
    if change == "weights":
        return logsumexp(log_normals(x, m, C), axis=1)
    if change == "naive":
        with np.errstate(divide="ignore"):
            return np.log(np.exp(np.log(w) + log_normals(x, m, C)).sum(1) + 1e-30)
    if change == "mean of logs":
        return log_normals(x, m, C) @ w
    return logsumexp(np.log(w) + log_normals(x, m, C, change), axis=1)


@wrong("mixture log p: 1/2π once for D = 2", "2π", "constant")
def _():
    return c.check_log_prob(lambda x: mix_log_prob(x, "2π once"), MIX, MX)


@wrong("mixture log p: weights left out", "weights")
def _():
    return c.check_log_prob(lambda x: mix_log_prob(x, "weights"), MIX, MX)


@wrong("mixture log p: Σ w log N for log Σ w N", "mean of log", "log inside", "Σ w log", "ELBO", "logarithm")
def _():
    return c.check_log_prob(lambda x: mix_log_prob(x, "mean of logs"), MIX, MX)


@wrong(
    "mixture log p: log(density + 1e-30) (subtle: only far points)", "far", "underflow", "1e-30", "added", "logsumexp"
)
def _():
    return c.check_log_prob(lambda x: mix_log_prob(x, "naive"), MIX, MX)


def _score(change, std=1.0):
    w, m, C = np.array([0.35, 0.65]), MIX.means, MIX.covariances

    def score(x):
        r = responsibilities(x, w, m, C, change)
        if change == "argmax":
            r = np.eye(2)[r.argmax(1)]
        s = -sum(r[:, k : k + 1] * ((x - m[k]) @ np.linalg.inv(C[k])) for k in range(2))
        if change == "sign":
            return -s
        if change == "no inverse":
            return -sum(r[:, k : k + 1] * (x - m[k]) for k in range(2))
        if change == "norm clip":
            n = np.linalg.norm(s, axis=1, keepdims=True)
            return s * np.minimum(1, 8 / n)
        return s

    return c.check_score(score, MIX, MX, std)


@wrong("score: sign", SIGN)
def _():
    return _score("sign")


@wrong("score: of the nearest component", "argmax", "nearest", "hard", "one component", "most probable")
def _():
    return _score("argmax")


@wrong("score: mixing weights left out of the responsibilities", "weights")
def _():
    return _score("no weights")


@wrong("score: norm clipped at 8 (subtle: far points)", CLIP, "far", "norm")
def _():
    return _score("norm clip")


def _matching(change):
    mix = Mixture([0.4, 0.6], [[-0.7], [0.9]], [[[0.3]], [[0.5]]])

    def denoising(s, e, std):
        target = {"none": e / std, "sign": -e / std, "variance": e / std**2, "weighted": e / std}.get(change, e / std)
        d = ((s + target) ** 2).sum(1)
        if change == "mean":
            d = d / s.shape[1]
        return std**2 * d if change == "weighted" else d

    def implicit(s, div):
        if change == "no 2":
            return (s**2).sum(1) + div
        if change == "half":
            return 0.5 * (s**2).sum(1) + div
        return (s**2).sum(1) + 2 * div

    def sliced(s, v, derivative):
        if change == "no 2 sliced":
            return (v * s).sum(1) ** 2 + (v * derivative).sum(1)
        if change == "square of sum":
            return ((v * s) ** 2).sum(1) + 2 * (v * derivative).sum(1)
        return (v * s).sum(1) ** 2 + 2 * (v * derivative).sum(1)

    return c.check_score_matching(
        denoising,
        implicit,
        sliced,
        mix,
        0.8,
        0.5,
        lambda x: -0.7 * x + 0.3 * np.sin(x),
        lambda x: (-0.7 + 0.3 * np.cos(x)).sum(1),
    )


@wrong("denoising score matching: sign of the target", SIGN)
def _():
    return _matching("sign")


@wrong("denoising score matching: ε/std² for ε/std", ROOT, "std²")
def _():
    return _matching("variance")


@wrong("implicit score matching: divergence once", HALF, "divergence")
def _():
    return _matching("no 2")


@wrong("sliced score matching: squares before the sum (subtle: only D > 1)", "sum of squares", "v·s", "(v", "square")
def _():
    return _matching("square of sum")


def _continuous(change):
    slope, t_min = 0.6, 0.02
    scale_T, std_T = SDE.marginal(SDE.horizon)
    scale_0, std_0 = SDE.marginal(t_min)
    span = SDE.log_snr(t_min) - SDE.log_snr(SDE.horizon)

    def prior(x0):
        if change == "prior":
            return 0.5 * (scale_T**2 * x0**2 + std_T**2 - 1 - 2 * np.log(std_T)).sum(1)
        return 0.5 * (scale_T * x0 / std_T).__pow__(2).sum(1)

    def diffusion(x0, t, e):
        scale, std = SDE.marginal(t)
        if change == "first t":
            scale, std = np.full_like(scale, scale[0]), np.full_like(std, std[0])
        x = scale[:, None] * x0 + std[:, None] * e
        d = ((e - slope * x) ** 2).sum(1)
        if change == "no half":
            return span * d
        if change == "span":
            return 0.5 * (SDE.horizon - t_min) * d
        if change == "mean":
            return 0.5 * span * d / x0.shape[1]
        return 0.5 * span * d

    def reconstruction(x0, e):
        D = x0.shape[1]
        if change == "jacobian":
            return 0.5 * D * (LOG2PI + 2 * np.log(std_0)) + 0.5 * (e**2).sum(1)
        return 0.5 * D * (LOG2PI + 2 * np.log(std_0 / scale_0)) + 0.5 * (e**2).sum(1)

    return c.check_continuous_bound(prior, diffusion, reconstruction, SDE, t_min, slope, X3)


@wrong("continuous bound: ½ missing in the diffusion loss", HALF)
def _():
    return _continuous("no half")


@wrong("continuous bound: length of time for the span of log-SNR", "log-SNR", "time", "span", "interval")
def _():
    return _continuous("span")


@wrong(
    "continuous bound: scale missing in the reconstruction (subtle: scale near 1)",
    missing("scale", "the scale", "1/scale"),
    "log scale",
    "scale(t_min)",
    "std/scale",
    "Jacobian",
)
def _():
    return _continuous("jacobian")


@wrong("continuous bound: prior N(0, I) for N(0, std(T)² I) (subtle)", "prior", "std(T)", "N(0, I)")
def _():
    return _continuous("prior")


def _divergence(change):
    A = np.random.default_rng(26).normal(size=(3, 3)) * 0.6

    def eps_hat(x):
        return np.tanh(x @ A) + 0.2 * x

    def both(x, probes):
        e = eps_hat(x)
        slope = 1 - np.tanh(x @ A) ** 2
        jac = A.T[None] * slope[:, :, None] + 0.2 * np.eye(3)  # ∂e_i/∂x_j
        s = -e / 0.4**2 if change == "variance" else -e / 0.4
        if probes is None or change == "ignores probes":
            div = np.trace(jac, axis1=1, axis2=2)
            if change == "diag sum":
                div = jac.sum((1, 2))
        else:
            div = np.einsum("pni,nij,pnj->pn", probes, jac, probes)
            div = div.sum(0) if change == "sum" else div.mean(0)
            if change == "first":
                div = np.einsum("ni,nij,nj->n", probes[0], jac, probes[0])
        return s, div / 0.4 if change == "sign" else -div / 0.4

    return c.check_divergence(both, eps_hat, 0.4, MX3, np.random.default_rng(27).normal(size=(4, 5, 3)))


MX3 = np.random.default_rng(28).normal(size=(5, 3))


@wrong("divergence: sum of all entries of the Jacobian", "all entries", "sum of", "trace", "off-diagonal")
def _():
    return _divergence("diag sum")


@wrong("Hutchinson: sum over probes for the mean", "n times", "number of probes", "probes")
def _():
    return _divergence("sum")


@wrong("score of a network: std² for std", ROOT, "std²")
def _():
    return _divergence("variance")


@wrong("Hutchinson: only the first probe (subtle: equal in expectation)", "probe")
def _():
    return _divergence("first")


NODES, GW = np.polynomial.legendre.leggauss(80)


def _kl_bound(change):
    T = SDE.horizon

    def bound(err, prior_kl):
        total = 0.0
        for node, w in zip(NODES, GW, strict=True):
            t = 0.5 * T * (node + 1)
            g = SDE.diffusion(t)
            total += 0.5 * (1 if change == "no T" else T) * w * (g if change == "g" else g**2) * err(t)
        if change == "no prior":
            prior_kl = 0.0
        return (1 if change == "no half" else 0.5) * total + prior_kl

    return c.check_kl_bound(bound, SDE, MP, CP, MQ, CQ)


@wrong("KL bound: horizon missing", "horizon")
def _():
    return _kl_bound("no T")


@wrong("KL bound: g for g²", ROOT, place("g", "g²"))
def _():
    return _kl_bound("g")


@wrong("KL bound: KL of the prior left out", "prior", "π")
def _():
    return _kl_bound("no prior")


@wrong("KL bound: ½ missing", HALF)
def _():
    return _kl_bound("no half")


def _log_prob_bound(change):
    sde = VP(0.3, 3.0, horizon=1.2)
    mix = Mixture([0.4, 0.6], [[-0.5], [0.6]], [[[0.6]], [[0.8]]])
    h, hw = np.polynomial.hermite_e.hermegauss(40)
    hw = hw / hw.sum()

    def bound(both, prior, x):
        scale, std = sde.marginal(sde.horizon)
        out = np.array([(hw * prior(scale * xi + std * h[:, None])).sum() for xi in x])
        for node, w in zip(*np.polynomial.legendre.leggauss(40), strict=True):
            u = 0.5 * (node + 1)
            t = sde.horizon * u**2  # nodes crowd at 0
            weight = 0.5 * w * 2 * sde.horizon * u
            scale, std = sde.marginal(t)
            for i, xi in enumerate(x):
                s, div = both(scale * xi + std * h[:, None], t)
                g2, f = sde.diffusion(t) ** 2, sde.rate(t)
                inner = (s**2).sum(1) + (1 if change == "no 2" else 2) * div
                drift = 0 if change == "no f" else 2 * f * x.shape[1]
                if change == "f sign":
                    drift = -drift
                out[i] -= 0.5 * weight * (g2 * (hw * inner).sum() - drift)
        return out

    return c.check_log_prob_bound(bound, sde, mix, np.array([[-0.7], [0.2], [1.1]]))


@wrong("bound of log p: divergence of the drift left out", "div f", "drift", missing("f"), slow=True)
def _():
    return _log_prob_bound("no f")


@wrong("bound of log p: divergence of the score once", HALF, "div s", "divergence", slow=True)
def _():
    return _log_prob_bound("no 2")


@wrong("bound of log p: div f with the wrong sign", SIGN, slow=True)
def _():
    return _log_prob_bound("f sign")


FLOW = VP(0.3, 4.0, horizon=1.2)


def flow_log_prob(x, score, div, final, sde, t0, change="none"):
    """Return the flow's log density at t0 by an adaptive solver."""
    N, D = x.shape

    def rhs(t, y):
        p = y[: N * D].reshape(N, D)
        g2, f = sde.diffusion(t) ** 2, sde.rate(t)
        half = 1.0 if change == "SDE" else 0.5
        v = f * p - half * g2 * score(p, t)
        d = f * D - half * g2 * div(p, t)
        if change == "no div f":
            d = d - f * D
        return np.concatenate([v.ravel(), d])

    y0 = np.concatenate([x.ravel(), np.zeros(N)])
    y = solve_ivp(rhs, (t0, sde.horizon), y0, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    delta = y[N * D :]
    return final(y[: N * D].reshape(N, D)) + (-delta if change == "sign" else delta)


def _flow(change):
    def at_time(t):
        return MIX.diffuse(*(float(v) for v in FLOW.marginal(t)))

    def log_prob(x):
        return flow_log_prob(
            x,
            lambda p, t: at_time(t).score(p),
            lambda p, t: np.trace(at_time(t).score_jacobian(p), axis1=1, axis2=2),
            FLOW.prior_log_prob if change == "prior" else at_time(FLOW.horizon).log_prob,
            FLOW,
            1e-3 if change == "t0" else 0.0,
            change,
        )

    return c.check_probability_flow_likelihood(log_prob, MIX, MX[:3], FLOW)


@wrong("flow likelihood: sign of the integral", SIGN, slow=True)
def _():
    return _flow("sign")


@wrong("flow likelihood: divergence of f left out", "div f", "drift", missing("f"), slow=True)
def _():
    return _flow("no div f")


@wrong("flow likelihood: prior for p_T (base density)", "prior", "π", "p_T", slow=True)
def _():
    return _flow("prior")


@wrong("flow likelihood: starts at 1e-3 with x as x_{1e-3} (subtle)", "t_min", "start", "0.001", "1e-3", slow=True)
def _():
    return _flow("t0")


def _flow_of(change):
    def score(x, t):
        return -x / (0.6 + 0.4 * t) + 0.2 * np.tanh(x)

    def div(x, t):
        return (-1 / (0.6 + 0.4 * t) + 0.2 * (1 - np.tanh(x) ** 2)).sum(1)

    def final(x):
        std = 1.0 if change == "unit prior" else float(FLOW.std(FLOW.horizon))
        return -0.5 * ((x / std) ** 2 + LOG2PI + 2 * np.log(std)).sum(1)

    return c.check_flow_likelihood_of(
        lambda x: flow_log_prob(x, score, div, final, FLOW, 0.01, change), score, MX, FLOW, 0.01, div
    )


@wrong("flow of own network: N(0, I) for N(0, std(T)²) (subtle: std near 1)", "prior", "N(0, I)", "std(T)", slow=True)
def _():
    return _flow_of("unit prior")


@wrong("flow of own network: drift of the SDE, g² for ½g²", HALF, "SDE", slow=True)
def _():
    return _flow_of("SDE")


def _reverse_law(change):
    B = 3.0

    def moments(score):
        D = 2
        zero = np.zeros((1, D))
        k = score(zero, 0.5)[0]
        A = -(score(np.eye(D), 0.5) - k)[0, 0]
        rate = 0.5 - A
        n = 4000
        m, v = np.zeros(D), 1.0
        if change == "start":
            v = 0.0
        E = np.exp(rate * B)
        m = E * m + k * (E - 1) / rate
        noise = 0.0 if change == "flow" else 1.0
        if change == "half noise":
            noise = 0.5
        v = E**2 * v + noise * (E**2 - 1) / (2 * rate)
        if change == "flow":
            half = 0.5 * (1 - A)
            v = np.exp(2 * half * B)
            m = k * 0.5 * (np.exp(half * B) - 1) / half
        if change == "euler":
            m, v = np.zeros(D), 1.0
            for _ in range(n):
                m = m + (rate * m + k) * B / n
                v = (1 + rate * B / n) ** 2 * v + B / n
        return m, v * np.eye(D)

    return c.check_reverse_law(moments, B, 0.4)


@wrong("reverse law: moments of the flow", "flow")
def _():
    return _reverse_law("flow")


@wrong("reverse law: starts at a point, not at N(0, I)", "start", "prior", "N(0, I)", "π")
def _():
    return _reverse_law("start")


@wrong("reverse law: Euler with 4000 steps as exact (subtle)", "Euler", "first order")
def _():
    return _reverse_law("euler")


# --- networks and training


def silu(z):
    """Return SiLU."""
    return z / (1 + np.exp(-z))


def sigmoid(z):
    """Return the sigmoid without overflow."""
    return np.exp(-np.logaddexp(0, -z))


@wrong("SiLU: derivative is the sigmoid alone", missing("z s (1 − s)", "z s(1 − s)", "the second term"), "sigmoid")
def _():
    return c.check_activation(lambda z: z * sigmoid(z), lambda z: (z * sigmoid(z), sigmoid(z)), np.linspace(-6, 6, 25))


@wrong("SiLU: GELU's approximation z σ(1.702 z)", "1.702", "GELU", "gelu")
def _():
    return c.check_activation(
        lambda z: z * sigmoid(1.702 * z),
        lambda z: (
            z * sigmoid(1.702 * z),
            sigmoid(1.702 * z) * (1 + 1.702 * z * (1 - sigmoid(1.702 * z))),
        ),
        np.linspace(-6, 6, 25),
    )


@wrong("SiLU: input of the sigmoid clipped at ±20 (subtle: only far points)", CLIP, "far", "large")
def _():
    def both(z):
        s = sigmoid(np.clip(z, -20, 20))
        return z * s, s + z * s * (1 - s)

    return c.check_activation(lambda z: both(z)[0], both, np.linspace(-60, 60, 41))


LAYERS = tuple(
    (np.random.default_rng(30 + i).normal(size=s) * 0.5, np.random.default_rng(40 + i).normal(size=s[1]) * 0.3)
    for i, s in enumerate([(3, 6), (6, 6), (6, 2)])
)


def _mlp(change):
    def call(x):
        h = x
        for i, (W, b) in enumerate(LAYERS):
            if change == "transpose" and W.shape[0] == W.shape[1]:
                W = W.T
            if change == "no bias" and i == 2:
                b = 0
            h = h @ W + b
            if i < 2 or change == "last":
                h = h * sigmoid(h) if change != "relu" else np.maximum(h, 0)
        return h

    return c.check_mlp(call, LAYERS, X3)


@wrong("MLP: activation after the last layer too", "last layer", "output", "activation")
def _():
    return _mlp("last")


@wrong("MLP: square matrix transposed", AXIS, "transposed")
def _():
    return _mlp("transpose")


@wrong("MLP: last bias left out", "bias")
def _():
    return _mlp("no bias")


def _net(x):
    return np.tanh(x @ LAYERS[0][0]) @ LAYERS[2][0]


@wrong("jvp: transposed product of a square Jacobian (vjp for jvp)", AXIS, "vjp", "backward")
def _():
    A = LAYERS[1][0][:3, :3]

    def jvp(x, v):
        y = np.tanh(x @ A)
        return y, (v * (1 - y**2)) @ A.T

    return c.check_jvp(jvp, lambda x: np.tanh(x @ A), X3, rng_noise(5, 3))


@wrong("jvp: derivative of tanh is 1 − tanh, not 1 − tanh²", "slope", "activation", "derivative of", "tanh")
def _():
    def jvp(x, v):
        y = np.tanh(x @ LAYERS[0][0])
        return y @ LAYERS[2][0], ((v @ LAYERS[0][0]) * (1 - y)) @ LAYERS[2][0]

    return c.check_jvp(jvp, _net, X3, rng_noise(5, 3))


@wrong("jvp: direction normalised first", "normalis", "length", "unit", "norm")
def _():
    def jvp(x, v):
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        y = np.tanh(x @ LAYERS[0][0])
        return y @ LAYERS[2][0], ((v @ LAYERS[0][0]) * (1 - y**2)) @ LAYERS[2][0]

    return c.check_jvp(jvp, _net, X3, rng_noise(5, 3))


def _gradient(change):
    target = rng_noise(5, 2)

    def forward(p):
        return np.tanh(X3 @ p[:6].reshape(3, 2) + p[6:8])

    def loss(p):
        return ((forward(p) - target) ** 2).sum() / 5

    def gradient(p):
        y = forward(p)
        d = 2 * (y - target) / 5 * (1 - y**2)
        if change == "no 2":
            d = d / 2
        if change == "no N":
            d = d * 5
        if change == "no slope":
            d = 2 * (y - target) / 5
        bias = d.sum(0)
        if change == "bias mean":
            bias = d.mean(0)
        weights = X3.T @ d
        if change == "last entry":
            weights[-1, -1] *= 1.001
        return np.concatenate([weights.ravel(), bias])

    return c.check_gradient(loss, gradient, np.linspace(-0.6, 0.9, 8), np.eye(8))


@wrong("gradient: 2 of the square forgotten", HALF)
def _():
    return _gradient("no 2")


@wrong("gradient: not divided by N", "1/N", "N times", "5 times", "number of examples")
def _():
    return _gradient("no N")


@wrong("gradient: bias by the mean over the batch", "bias", "direction 6", "parameter 6", "parameters 6")
def _():
    return _gradient("bias mean")


@wrong("gradient: one weight wrong by 0.001 (subtle: one entry)", "direction 5", "parameter 5", "one entry", "entry 5")
def _():
    return _gradient("last entry")


def _loss_gradient(change):
    noise = rng_noise(5, 3)

    def pair(a):
        d = a - noise
        value = (d**2).sum(1)
        slope = 2 * d
        if change == "no 2":
            slope = d
        if change == "mean":
            slope = slope / 3
        if change == "sign":
            slope = -slope
        if change == "batch":
            slope = slope / 5
        return value, slope

    return c.check_loss_gradient(pair, lambda a: (a**2 - 2 * a * noise + noise**2).sum(1), X3)


@wrong("derivative of the loss: 2 missing", HALF)
def _():
    return _loss_gradient("no 2")


@wrong("derivative of the loss: ‖·‖² is a sum, derivative of a mean", MEAN, "1/D")
def _():
    return _loss_gradient("mean")


@wrong("derivative of the loss: ε̂ − ε with the other sign", SIGN)
def _():
    return _loss_gradient("sign")


def _adam(change, decay=0.0):
    def run(p, grads):
        m, v, out = np.zeros_like(p), np.zeros_like(p), []
        for i, g in enumerate(grads, 1):
            if change == "L2":
                g = g + decay * p
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            if change == "v of m":
                v = 0.999 * v + 0.001 * m**2
            k = i - 1 if change == "0-based" else i
            mh = m if change == "no correction" else m / (1 - 0.9 ** max(k, 1))
            vh = v if change == "no correction" else v / (1 - 0.999 ** max(k, 1))
            if change == "only m":
                vh = v
            denominator = np.sqrt(vh + 1e-8) if change == "eps inside" else np.sqrt(vh) + 1e-8
            if change == "eps before":
                denominator = (np.sqrt(v) + 1e-8) / np.sqrt(1 - 0.999**i)
            new = p - 0.01 * mh / denominator
            p = new - 0.01 * decay * p if decay and change != "L2" else new
            out.append(p)
        return np.array(out)

    grads = np.random.default_rng(50).normal(size=(6, 4)) * np.array([1.0, 0.1, 1e-3, 3.0])
    return c.check_adam(run, np.array([0.5, -0.2, 1.0, 0.3]), grads, 0.01, weight_decay=decay)


@wrong("Adam: no bias correction", "bias correction", "correction", "1 − β")
def _():
    return _adam("no correction")


@wrong("Adam: ε inside the root", "inside the root", "under the root", "epsilon")
def _():
    return _adam("eps inside")


@wrong("Adam: ε before the bias correction (subtle, TensorFlow's ε̂)", "epsilon", "eps")
def _():
    return _adam("eps before")


@wrong("AdamW: L2 in the gradient for decoupled decay", "L2", "decoupled", "gradient", "weight decay")
def _():
    return _adam("L2", 0.1)


def _rate(change):
    def rate(step):
        n, w = 40, 5
        if step < w:
            return 0.01 * (step if change == "from 0" else step + 1) / w
        share = (step - w) / (n - w)
        if change == "whole":
            share = step / n
        if change == "full cosine":
            return 0.01 * 0.5 * (1 + np.cos(2 * np.pi * share))
        if change == "n - 1":
            share = (step - w) / (n - 1 - w)
        return 0.01 * 0.5 * (1 + np.cos(np.pi * share))

    return rate


@wrong("learning rate: cosine counted from step 0, not from the end of warm-up", "warm", "from step 0", "start")
def _():
    return c.check_learning_rate(_rate("whole"), 40, 0.01, 5)


@wrong("learning rate: falls by a whole cosine", "cosine", "2π", HALF)
def _():
    return c.check_learning_rate(_rate("full cosine"), 40, 0.01, 5)


def _average(change):
    def average(start, params):
        avg, out = start, []
        for k, p in enumerate(params, 1):
            d = min(0.95, (1 + k) / (10 + k))
            if change == "no warmup":
                d = 0.95
            if change == "swapped":
                d = 1 - d
            if change == "0-based":
                d = min(0.95, k / (9 + k))
            avg = d * avg + (1 - d) * p
            if change == "zero start" and k == 1:
                avg = (1 - d) * p
            out.append(avg)
        return np.array(out)

    return c.check_moving_average(average, np.array([0.5, -1.0]), np.random.default_rng(51).normal(size=(30, 2)), 0.95)


@wrong("moving average: decay and 1 − decay exchanged", "exchanged", "swapped", "1 − decay", "1 − d")
def _():
    return _average("swapped")


@wrong("moving average: no smaller decay in the first steps", "first steps", "warm", "(1 + k)", "min")
def _():
    return _average("no warmup")


@wrong("moving average: steps counted from 0", INDEX, "from 0", "k − 1")
def _():
    return _average("0-based")


@wrong("moving average: starts at 0, not at the parameters", "start")
def _():
    return _average("zero start")


TARGETS = rng_noise(6, 2)
INPUTS = np.random.default_rng(52).normal(size=(6, 2))
WEIGHT = np.array([0.5, 1.0, 2.0, 1.5, 0.7, 1.2])


def _training_step(change):
    def outputs(p):
        return np.tanh(INPUTS @ p.reshape(2, 2))

    def step(p):
        y = outputs(p)
        losses = ((y - TARGETS) ** 2).sum(1)
        w = np.ones(6) if change == "no weight" else WEIGHT
        d = 2 * w[:, None] * (y - TARGETS) * (1 - y**2) / 6
        if change == "sum":
            d = d * 6
        if change == "weight squared":
            d = d * w[:, None]
        if change == "normalised":
            d = d * 6 / w.sum()
        if change == "one example":
            d[2] = 0
        return losses, (INPUTS.T @ d).ravel()

    return c.check_training_step(
        step, lambda p: ((outputs(p) - TARGETS) ** 2).sum(1), np.array([0.4, -0.5, 0.7, 0.3]), WEIGHT
    )


@wrong("training step: weights left out of the gradient", "weight")
def _():
    return _training_step("no weight")


@wrong("training step: gradient of the sum for the mean", "1/N", "6 times", "N times")
def _():
    return _training_step("sum")


@wrong("training step: weights applied twice", "twice", "squared", "weight²", "weights²", "weight")
def _():
    return _training_step("weight squared")


@wrong("training step: divided by the sum of the weights", "sum of the weights", "Σ weight", "normalis", "weight")
def _():
    return _training_step("normalised")


def _training(change):
    data = np.random.default_rng(53).normal(size=(12, 4, 2))

    def loss(p, n):
        return ((data[n] @ p - 1) ** 2).mean()

    def gradient(p, n):
        return 2 * data[n].T @ (data[n] @ p - 1) / 4

    def rate(i):
        if i < 3:
            return 0.05 * (i + 1) / 3
        return 0.05 * 0.5 * (1 + np.cos(np.pi * (i - 3) / 9))

    def train(p):
        m, v, avg, losses = np.zeros(2), np.zeros(2), p, []
        g = None
        for i in range(12):
            losses.append(loss(p, i))
            new = gradient(p, i)
            if change == "accumulated" and g is not None:
                new = new + g
            g = new
            if change == "repeated batch":
                g = gradient(p, 0)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            lr = 0.05 if change == "constant rate" else rate(i)
            if change == "rate late":
                lr = rate(max(i - 1, 0))
            k = i + 1
            old = p
            p = p - lr * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
            d = min(0.99, (1 + k) / (10 + k))
            avg = d * avg + (1 - d) * (old if change == "ema old" else p)
        return np.array(losses), p, avg

    return c.check_training(train, loss, np.array([0.3, -0.4]), 12, 0.05, 3, ema_decay=0.99)


@wrong("training: gradients accumulate (zero_grad forgotten)", "accumulat", "zero", "added up", "previous gradient")
def _():
    return _training("accumulated")


@wrong("training: moving average of the parameters before the update", "before", "old", "late", "previous")
def _():
    return _training("ema old")


@wrong("training: scheduler one step late (subtle)", "learning rate", "late", "one step", "schedule")
def _():
    return _training("rate late")


@wrong("training: always the first batch's gradient", "first batch", "same batch", "batch 0", "batch")
def _():
    return _training("repeated batch")


NX = np.random.default_rng(54).normal(size=(5, 3))
NSCALE, NSTD = np.array([0.95, 0.8, 0.6, 0.4, 0.2]), np.array([0.3, 0.6, 0.8, 0.9, 0.98])
IND = np.eye(2)[[0, 1, 0, 1, 0]]
IND[4] = 0


def feature_mlp(n, seed):
    """Return F for any number of inputs."""

    def mlp(h):
        W = np.random.default_rng(seed).normal(size=(h.shape[1], n)) / np.sqrt(h.shape[1])
        return np.tanh(h @ W)

    return mlp


def _noise_network(change):
    mlp = feature_mlp(3, 55)

    def eps_hat(x, scale, std):
        n = len(x)
        scale, std = np.broadcast_to(scale, n), np.broadcast_to(std, n)
        ind = IND
        if change == "labels dropped":
            ind = np.zeros_like(IND)
        if change == "labels rolled":
            ind = np.roll(IND, 1, axis=0)
        r = np.sqrt(scale**2 + std**2)
        if change == "common level":
            scale, std = np.full(n, scale[0]), np.full(n, std[0])
        coefficients = {"gain": (std / r**2, 1 / r), "no skip": (0 * std, scale / r)}.get(change)
        if change == "log snr":
            return printed_noise(mlp, x, scale, std, 4, ind, log_snr=lambda a, b: np.log(a / b))
        return printed_noise(mlp, x, scale, std, 4, ind, coefficients=coefficients)

    return c.check_noise_network(eps_hat, mlp, NX, NSCALE, NSTD, 4, IND)


@wrong("noise network: label dropped", "label")
def _():
    return _noise_network("labels dropped")


@wrong("noise network: gain 1/r for scale/r", "gain")
def _():
    return _noise_network("gain")


@wrong("noise network: log of scale/std for log-SNR (½)", HALF, "log-SNR", "SNR")
def _():
    return _noise_network("log snr")


@wrong("noise network: level of the first example for all", "first example", "level", "shared", "common")
def _():
    return _noise_network("common level")


HIST = np.random.default_rng(56).dirichlet(np.ones(4) * 2, size=3)


def _categorical(change):
    mlp = feature_mlp(12, 57)
    cov = np.array([[0.5, 0.1, 0.0], [0.1, 0.4, 0.1], [0.0, 0.1, 0.6]])
    levels = np.linspace(-1, 1, 4)

    def law():
        hist = np.full_like(HIST, 0.25) if change == "histogram" else HIST
        ind = 0 * IND if change == "label" else IND
        p = printed_law(mlp, NX, NSCALE, NSTD, hist, cov, 3, ind)
        if change == "log law":
            return np.log(p)
        if change == "temperature":
            p = p**2 / (p**2).sum(-1, keepdims=True)
        return p

    def eps():
        p = printed_law(mlp, NX, NSCALE, NSTD, HIST, cov, 3, IND)
        mean = levels[p.argmax(-1)] if change == "argmax" else p @ levels
        if change == "indices":
            mean = p @ np.arange(4)
        std = NSTD**2 if change == "variance" else NSTD
        return (NX - NSCALE[:, None] * mean) / std[:, None]

    return c.check_categorical_denoiser(law, eps, mlp, NX, NSCALE, NSTD, HIST, cov, 3, IND)


@wrong("categorical denoiser: ε̂ from the most probable level", "argmax", "most probable", "mode")
def _():
    return _categorical("argmax")


@wrong(
    "categorical denoiser: mean of indices 0..3 for levels in [-1, 1]", "0..", "indices", "index", "[−1, 1]", "levels"
)
def _():
    return _categorical("indices")


@wrong("categorical denoiser: label dropped in the law", "label")
def _():
    return _categorical("label")


LAW = np.random.default_rng(58).dirichlet(np.ones(4), size=(3, 2))


@wrong("categorical draw: argmax, no draw", "argmax", "most probable", "always", "does not depend on u")
def _():
    return c.check_categorical_draw(lambda u: LAW.argmax(-1), LAW)


@wrong("categorical draw: levels counted from 1", INDEX, "from 1", "one level", "higher")
def _():
    def draw(u):
        return np.minimum((u[..., None] > np.cumsum(LAW, -1)).sum(-1) + 1, 3)

    return c.check_categorical_draw(draw, LAW)


@wrong(
    "categorical draw: one uniform number for all dimensions (subtle: marginals are right)", "shared", "same", "one u"
)
def _():
    def draw(u):
        return np.minimum((u[:, :1, None] > np.cumsum(LAW, -1)).sum(-1), 3)

    return c.check_categorical_draw(draw, LAW)


@wrong("sub-VP: g of VP", "sub-VP", "SubVP", "VP", "g²")
def _():
    sub = SubVP(0.2, 5.0, horizon=1.5)
    return c.check_sde(sub.marginal, sub.drift, functools.partial(VP.diffusion, SDE), 1.5)


# Right names in other words than were foreseen: each was compared by hand with the mistake.
FOUND = {
    "cumulative products shifted: entry t holds the product to t - 1": "of step t−1",
    "product of betas in place of product of alphas: 1 - prod of β²": "the sum of the β²",
    "q_step: variance exploding, x_{t-1} not scaled": "x_{t−1} has factor 1",
    "posterior: sqrt of alphas_cumprod[t] for that of t - 1": "ᾱ_t stands where ᾱ_{t−1} belongs",
    "posterior: the log variance is returned as variance": "a log-variance",
    "predict_x0: not divided by ᾱ_t": "1/ᾱ is missing",
    "sampler: σ of the step before": "that of step t−1",
    "reverse variance: standard deviations": "they are standard deviations",
    "bound terms: L_T with log std for log variance": "β̄_T stands for β̄_T² in the logarithm",
    "bound terms: variances taken as equal": "the squares only, without D/2",
    "variational bound: mean over t for the sum": "averaged over t",
    "VAE: plain squared error for −log p(x | z)": "the plain sum of squares",
    "statistics: weights N_k/N for the counts": "means over the examples",
    "PPCA maximum: eigenvalues not rooted": "the root is missing",
    "linear-Gaussian ELBO: trace term left out (plug-in mean)": "tr W V Wᵀ is missing",
    "mean field: standard deviations": "they are standard deviations",
    "SDE: variance returned as std": "std is the variance",
    "SDE: VE with σ(t) for g (no √(2 log ratio))": "g² is 0.0804556 times",  # 1/(2 log 500)
    "mixture log p: log(density + 1e-30) (subtle: only far points)": "below -69.0776",  # log 1e-30
    "denoising score matching: sign of the target": "the target of denoising is +ε/std",
    "KL bound: horizon missing": "the factor T is missing",
    "KL bound: ½ missing": "T stands where T/2 belongs",
    "Adam: no bias correction": "not corrected for their start at 0",
    "Adam: ε before the bias correction (subtle, TensorFlow's ε̂)": "before the bias correction",
    "training step: gradient of the sum for the mean": "the gradient of a sum",
}
CASES = tuple(case._replace(words=(*case.words, FOUND[case.name])) if case.name in FOUND else case for case in _cases)
