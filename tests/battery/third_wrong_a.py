"""Third battery, wrong implementations (first half): the discrete chain, its bounds and samplers, networks, training.

Every case is one mistake in code of a common convention: Ho's tables, a scheduler of HF, EDM, flow matching, VDM, or
the textbook.  `H` holds Ho's tables with an entry for clean data, so that index t is step t.
"""

from collections.abc import Callable

import numpy as np

from scratchgen import VE, VP, NoiseSchedule
from scratchgen import conformance as c
from scratchgen.conformance import Check
from tests.battery.case import Wrong

CASES: list[Wrong] = []


def wrong(name: str, *words: str, slow: bool = False) -> Callable[[Callable[[], Check]], Callable[[], Check]]:
    """Add the decorated function to CASES."""

    def add(run: Callable[[], Check]) -> Callable[[], Check]:
        CASES.append(Wrong(name, run, words, slow))
        return run

    return add


class H:
    """Ho's tables of a schedule: `b` betas (variances), `a` = 1 − b, `ab` their product, `prev` that of step t − 1."""

    def __init__(self, schedule, dtype=np.float64):
        self.b = np.concatenate([[0.0], schedule.variances]).astype(dtype)
        self.a = 1 - self.b
        self.ab = np.cumprod(self.a)
        self.prev = np.concatenate([[1.0], self.ab[:-1]]).astype(dtype)
        self.T = len(self.b) - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            self.post = np.where(np.arange(self.T + 1) > 1, self.b * (1 - self.prev) / (1 - self.ab), 0).astype(dtype)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


LINEAR = NoiseSchedule.linear(50)
SHORT = NoiseSchedule.linear(6)
COSINE = NoiseSchedule.cosine(40)
HO = NoiseSchedule.from_variances(np.linspace(1e-4, 0.02, 1000))
FROM_SDE = NoiseSchedule.from_sde(VP(0.1, 12.0), 25)
CONSTANT = NoiseSchedule.from_variances(np.full(12, 0.08))
RANDOM = NoiseSchedule.from_variances(np.random.default_rng(7).uniform(0.02, 0.6, 9))
ONE = NoiseSchedule.from_variances([0.3])
SCALED = NoiseSchedule.from_variances(np.linspace(0.00085**0.5, 0.012**0.5, 200) ** 2)
TEN = NoiseSchedule.from_variances(np.linspace(0.03, 0.4, 10))

SQUARE = ("squared", "square root", "variance", "standard deviation")
SIGN = ("sign", "minus", "negative", "negated", "plus")
EARLIER = ("t − 1", "t - 1", "off by one", "previous", "shifted", "one step", "step before", "zero-based", "from 0")
LATER = ("t + 1", "off by one", "next", "shifted", "one step", "one-based")
HALF = ("factor 2", "factor of 2", "½", "half", "twice", "doubled", "1/2")
MEAN = ("mean over", "mean of", "divided by D", "1/D", "average", "mean in place")
MISSING = ("missing", "omitted", "left out", "without", "lacks", "forgotten", "dropped", "not added")

# --- check_schedule ------------------------------------------------------------------------------------------------


@wrong("schedule: alphas_cumprod without its square root, linear T=50", "ᾱ²", "ᾱ_t²", *SQUARE)
def _():
    h = H(LINEAR)
    return c.check_schedule(LINEAR, h.ab, np.sqrt(1 - h.ab))


@wrong("schedule: 1 − alphas_cumprod for its root, cosine T=40", "β̄²", "β̄_t²", *SQUARE)
def _():
    h = H(COSINE)
    return c.check_schedule(COSINE, np.sqrt(h.ab), 1 - h.ab)


@wrong("schedule: α = √(1 − β) with the deviation β, random", *SQUARE)
def _():
    ab = np.cumprod(1 - np.sqrt(H(RANDOM).b))
    return c.check_schedule(RANDOM, np.sqrt(ab), np.sqrt(1 - ab))


@wrong("schedule: alphas_cumprod_prev, Ho's 1000 betas", "ᾱ_{t−1}", "β̄_{t−1}", *EARLIER)
def _():
    h = H(HO)
    return c.check_schedule(HO, np.sqrt(h.prev), np.sqrt(1 - h.prev))


@wrong("schedule: exp(−½ Σβ) for the product, constant", "exp", "continuous", "limit", "product", "first order", "SDE")
def _():
    log = np.cumsum(H(CONSTANT).b)
    return c.check_schedule(CONSTANT, np.exp(-log / 2), np.sqrt(1 - np.exp(-log)))


@wrong("schedule: β̃² for β̃, scaled-linear T=200", "β̃²", "β̃_t²", *SQUARE)
def _():
    h = H(SCALED)
    return c.check_schedule(SCALED, np.sqrt(h.ab), np.sqrt(1 - h.ab), h.post)


@wrong("schedule: β̃ is √β, the other choice of Ho", "β_t in place", "not β̃", "forward", "one step", "β_t for β̃")
def _():
    h = H(TEN)
    return c.check_schedule(TEN, np.sqrt(h.ab), np.sqrt(1 - h.ab), np.sqrt(h.b))


@wrong("schedule: β̃_1 is β̃_2, Ho's clipped table", "t = 1", "t = 2", "clip", "β̃_2", "first step", "step 1")
def _():
    h = H(LINEAR)
    post = h.post.copy()
    post[1] = post[2]
    return c.check_schedule(LINEAR, np.sqrt(h.ab), np.sqrt(1 - h.ab), np.sqrt(post))


@wrong("schedule: variances of the steps added up", "sum", "added", "exploding", "shrink", "product", "α_t = 1")
def _():
    h = H(FROM_SDE)
    return c.check_schedule(FROM_SDE, np.sqrt(h.ab), np.sqrt(np.cumsum(h.b)))


@wrong("schedule: tables kept in float16", "rounding", "rounded", "float16", "half precision", "digits", "precision")
def _():
    h = H(SCALED)
    return c.check_schedule(SCALED, np.sqrt(h.ab).astype(np.float16), np.sqrt(1 - h.ab).astype(np.float16))


@wrong("schedule: product of α over steps after t", "after", "reversed", "order", "backwards", "from the end", "T − t")
def _():
    h = H(RANDOM)
    ab = np.concatenate([[1.0], np.cumprod(h.a[:0:-1])])
    return c.check_schedule(RANDOM, np.sqrt(ab), np.sqrt(1 - ab))


# --- check_forward_step --------------------------------------------------------------------------------------------


@wrong("q_step: (1 − β) x without the root", "α_t²", "α²", *SQUARE)
def _():
    h = H(LINEAR)
    return c.check_forward_step(lambda t, x, n: h.a[t] * x + np.sqrt(h.b[t]) * n, LINEAR)


@wrong("q_step: β ε for √β ε, Ho's betas", "β_t²", "β²", *SQUARE)
def _():
    h = H(HO)
    return c.check_forward_step(lambda t, x, n: np.sqrt(h.a[t]) * x + h.b[t] * n, HO)


@wrong("q_step: β of the step before", "β_{t−1}", *EARLIER)
def _():
    h = H(TEN)
    return c.check_forward_step(lambda t, x, n: np.sqrt(h.a[t - 1]) * x + np.sqrt(h.b[t - 1]) * n, TEN)


@wrong("q_step: x + √β ε, as a VE chain", "α_t", "scale", "shrink", "exploding", *MISSING)
def _():
    h = H(COSINE)
    return c.check_forward_step(lambda t, x, n: x + np.sqrt(h.b[t]) * n, COSINE)


@wrong("q_step: uses the tables of q_sample", "ᾱ_t", "cumulative", "β̄_t", "x_0", "product")
def _():
    h = H(RANDOM)
    return c.check_forward_step(lambda t, x, n: np.sqrt(h.ab[t]) * x + np.sqrt(1 - h.ab[t]) * n, RANDOM)


@wrong(
    "q_step: Euler's (1 − β/2) x", "first order", "Euler", "1 − ½", "½β", "β²/2", "½ β", "expan", "limit", "approxim"
)
def _():
    h = H(CONSTANT)
    return c.check_forward_step(lambda t, x, n: (1 - h.b[t] / 2) * x + np.sqrt(h.b[t]) * n, CONSTANT)


# --- check_forward_process -----------------------------------------------------------------------------------------


@wrong("q_sample: (1 − ᾱ) ε without the root", "β̄²", "β̄_t²", *SQUARE)
def _():
    h = H(LINEAR)
    return c.check_forward_process(lambda t, x, n: np.sqrt(h.ab[t]) * x + (1 - h.ab[t]) * n, LINEAR)


@wrong("q_sample: ᾱ x_0 without the root, float32", "ᾱ²", "ᾱ_t²", *SQUARE)
def _():
    h = H(SCALED, np.float32)
    return c.check_forward_process(
        lambda t, x, n: h.ab[t] * x.astype("f4") + np.sqrt(1 - h.ab[t]) * n.astype("f4"), SCALED
    ).at(1e-5)


@wrong("q_sample: table of the step before, Ho's betas", "ᾱ_{t−1}", "β̄_{t−1}", *EARLIER)
def _():
    h = H(HO)
    return c.check_forward_process(lambda t, x, n: np.sqrt(h.prev[t]) * x + np.sqrt(1 - h.prev[t]) * n, HO)


@wrong("q_sample: α_t for ᾱ_t, cumprod forgotten", "α_t", "β_t", "single step", "one step", "product", "cumulative")
def _():
    h = H(COSINE)
    return c.check_forward_process(lambda t, x, n: np.sqrt(h.a[t]) * x + np.sqrt(h.b[t]) * n, COSINE)


@wrong("q_sample: signal and noise exchanged", "exchanged", "swapped", "interchanged")
def _():
    h = H(RANDOM)
    return c.check_forward_process(lambda t, x, n: np.sqrt(1 - h.ab[t]) * x + np.sqrt(h.ab[t]) * n, RANDOM)


@wrong("q_sample: minus the noise", *SIGN)
def _():
    h = H(FROM_SDE)
    return c.check_forward_process(lambda t, x, n: np.sqrt(h.ab[t]) * x - np.sqrt(1 - h.ab[t]) * n, FROM_SDE)


@wrong("q_sample: images rescaled to 2x − 1 inside", "2 x", "2x", "rescale", "constant", "offset", "[0, 1]", "shift")
def _():
    h = H(TEN)
    return c.check_forward_process(lambda t, x, n: np.sqrt(h.ab[t]) * (2 * x - 1) + np.sqrt(1 - h.ab[t]) * n, TEN)


@wrong("q_sample: EDM's x_0 + σ ε", "σ_t", "EDM", "divided by ᾱ", "x_t/ᾱ", "exploding", "scale", "β̄/ᾱ")
def _():
    h = H(LINEAR)
    return c.check_forward_process(lambda t, x, n: x + np.sqrt((1 - h.ab[t]) / h.ab[t]) * n, LINEAR)


@wrong("q_sample: straight path of flow matching", "flow", "t/T", "straight", "linear in t", "interpol")
def _():
    return c.check_forward_process(lambda t, x, n: (1 - t / 10) * x + t / 10 * n, TEN)


@wrong("q_sample: table read from the end", "reversed", "T − t", "T + 1 − t", "from the end", "order", "backwards")
def _():
    h = H(RANDOM)
    return c.check_forward_process(
        lambda t, x, n: np.sqrt(h.ab[h.T + 1 - t]) * x + np.sqrt(1 - h.ab[h.T + 1 - t]) * n, RANDOM
    )


@wrong("q_sample: result clipped to [−1, 1]", "clip", "[−1, 1]", "saturat", "clamp")
def _():
    h = H(CONSTANT)
    return c.check_forward_process(
        lambda t, x, n: np.clip(np.sqrt(h.ab[t]) * x + np.sqrt(1 - h.ab[t]) * n, -1, 1), CONSTANT
    )


# --- check_noise_merging -------------------------------------------------------------------------------------------


def merging(schedule, merge, split=None):
    h = H(schedule)

    def ab(t):
        return np.sqrt(h.a[t] * (1 - h.prev[t]) / (1 - h.ab[t])), np.sqrt(h.b[t] / (1 - h.ab[t]))

    def right_split(t, e, w):
        p, q = ab(t)
        return q * e - p * w

    return c.check_noise_merging(
        lambda t, e1, e2: merge(h, t, *ab(t), e1, e2),
        (lambda t, e, w: split(h, t, *ab(t), e, w)) if split else right_split,
        schedule,
    )


@wrong("merge_noise: not divided by β̄", "β̄_t", "divided", "normal", "unit", "length", "orthogonal")
def _():
    return merging(LINEAR, lambda h, t, p, q, e1, e2: ((p * e1 + q * e2) * np.sqrt(1 - h.ab[t]), q * e1 - p * e2))


@wrong(
    "merge_noise: ω and ε share the same row", "orthogonal", "independent", "correlat", "exchanged", "swapped", "row"
)
def _():
    return merging(TEN, lambda h, t, p, q, e1, e2: (p * e1 + q * e2, q * e1 + p * e2))


@wrong("merge_noise: squares of the coefficients", *SQUARE)
def _():
    return merging(COSINE, lambda h, t, p, q, e1, e2: (p * p * e1 + q * q * e2, q * e1 - p * e2))


@wrong("split_noise: plus ω", *SIGN)
def _():
    return merging(
        RANDOM, lambda h, t, p, q, e1, e2: (p * e1 + q * e2, q * e1 - p * e2), lambda h, t, p, q, e, w: q * e + p * w
    )


@wrong("merge_noise: noises exchanged", "exchanged", "swapped", "interchanged", "order")
def _():
    return merging(FROM_SDE, lambda h, t, p, q, e1, e2: (p * e2 + q * e1, q * e2 - p * e1))


# --- check_predict_x0 ----------------------------------------------------------------------------------------------


def x0_of(schedule, formula, dtype=np.float64):
    h = H(schedule, dtype)
    return c.check_predict_x0(lambda t, x, e: formula(h, t, x, e), schedule)


@wrong("predict_x0: (1 − ᾱ) ε̂ without the root", "β̄²", "β̄_t²", *SQUARE)
def _():
    return x0_of(LINEAR, lambda h, t, x, e: (x - (1 - h.ab[t]) * e) / np.sqrt(h.ab[t]))


@wrong("predict_x0: division by ᾱ without the root", "ᾱ²", "ᾱ_t²", *SQUARE)
def _():
    return x0_of(FROM_SDE, lambda h, t, x, e: (x - np.sqrt(1 - h.ab[t]) * e) / h.ab[t])


@wrong("predict_x0: always clipped to [−1, 1]", "clip", "[−1, 1]", "clamp", "saturat")
def _():
    return x0_of(RANDOM, lambda h, t, x, e: np.clip((x - np.sqrt(1 - h.ab[t]) * e) / np.sqrt(h.ab[t]), -1, 1))


@wrong("predict_x0: plus the noise", *SIGN)
def _():
    return x0_of(TEN, lambda h, t, x, e: (x + np.sqrt(1 - h.ab[t]) * e) / np.sqrt(h.ab[t]))


@wrong("predict_x0: alphas_cumprod of the step before", "ᾱ_{t−1}", "β̄_{t−1}", *EARLIER)
def _():
    return x0_of(LINEAR, lambda h, t, x, e: (x - np.sqrt(1 - h.prev[t]) * e) / np.sqrt(h.prev[t]))


@wrong("predict_x0: formula of a v-prediction", "v-prediction", "v-network", "of v", "velocity", "ᾱ_t x_t", "multipl")
def _():
    return x0_of(CONSTANT, lambda h, t, x, e: np.sqrt(h.ab[t]) * x - np.sqrt(1 - h.ab[t]) * e)


@wrong("predict_x0: only the noise divided by ᾱ", "x_t", "divided", "bracket", "parenthes", *MISSING)
def _():
    return x0_of(ONE, lambda h, t, x, e: x - np.sqrt(1 / h.ab[t] - 1) * e)


@wrong("predict_x0: not divided by ᾱ, EDM's x − σ ε", "ᾱ_t", "divided", "σ_t", "scale", *MISSING)
def _():
    return x0_of(COSINE, lambda h, t, x, e: x - np.sqrt(1 - h.ab[t]) * e)


# --- check_posterior -----------------------------------------------------------------------------------------------


def posterior_of(schedule, mean=None, variance=None, **options):
    h = H(schedule)

    def right(h, t, x, x0):
        return (np.sqrt(h.prev[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t])

    return c.check_posterior(
        lambda t, x, x0: ((mean or right)(h, t, x, x0), (variance or (lambda h, t: h.post[t]))(h, t)),
        schedule,
        **options,
    )


@wrong("posterior: weights of x_0 and x_t exchanged", "exchanged", "swapped", "interchanged")
def _():
    return posterior_of(
        LINEAR,
        lambda h, t, x, x0: (np.sqrt(h.prev[t]) * h.b[t] * x + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x0) / (1 - h.ab[t]),
    )


@wrong("posterior: variance β_t", "β_t²", "β²", "β̃", "forward", "one step")
def _():
    return posterior_of(COSINE, variance=lambda h, t: h.b[t])


@wrong("posterior: deviation for variance", "β̃", *SQUARE)
def _():
    return posterior_of(HO, variance=lambda h, t: np.sqrt(h.post[t]))


@wrong("posterior: ᾱ_t for ᾱ_{t−1} in the weight of x_0", "ᾱ_t", "ᾱ_t", "weight of x_0", "factor of x_0", *LATER)
def _():
    return posterior_of(
        RANDOM,
        lambda h, t, x, x0: (np.sqrt(h.ab[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t]),
    )


@wrong("posterior: ᾱ_{t−1} without its root", "ᾱ_{t−1}²", "ᾱ²", *SQUARE)
def _():
    return posterior_of(
        TEN, lambda h, t, x, x0: (h.prev[t] * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t])
    )


@wrong("posterior: α_t without its root", "α_t²", "α²", *SQUARE)
def _():
    return posterior_of(
        LINEAR, lambda h, t, x, x0: (np.sqrt(h.prev[t]) * h.b[t] * x0 + h.a[t] * (1 - h.prev[t]) * x) / (1 - h.ab[t])
    )


@wrong("posterior: log-variance for variance", "log", "exp")
def _():
    return posterior_of(FROM_SDE, variance=lambda h, t: np.log(np.maximum(h.post[t], h.post[2])))


@wrong("posterior: no clipping at t = 1", "t = 1", "clip", "t = 2", "first step", "step 1")
def _():
    return posterior_of(TEN, clipped=True)


@wrong("posterior: fraction of the variance upside down", "inverse", "upside", "exchanged", "swapped", "recipro", "β̄_t")
def _():
    return posterior_of(LINEAR, variance=lambda h, t: h.b[t] * (1 - h.ab[t]) / (1 - h.prev[t]) if t > 1 else 0.0)


@wrong("posterior: mean not divided by 1 − ᾱ", "β̄_t²", "divided", "1 − ᾱ", "normal", *MISSING)
def _():
    return posterior_of(
        CONSTANT, lambda h, t, x, x0: np.sqrt(h.prev[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x
    )


# --- check_ancestral_step ------------------------------------------------------------------------------------------


def step_of(schedule, formula, variance="beta"):
    h = H(schedule)
    sigma2 = h.b.copy() if variance == "beta" else np.where(np.arange(h.T + 1) == 1, h.b, h.post)
    sigma2[0] = 1.0
    return c.check_ancestral_step(lambda t, x, e, z: formula(h, sigma2, t, x, e, z), schedule, sigma2)


def mu(h, t, x, e):
    return (x - h.b[t] / np.sqrt(1 - h.ab[t]) * e) / np.sqrt(h.a[t])


@wrong("p_step: noise times the variance", "σ²", "σ_t²", *SQUARE)
def _():
    return step_of(LINEAR, lambda h, s, t, x, e, z: mu(h, t, x, e) + s[t] * z)


@wrong("p_step: no noise at t = 1", "t = 1", "last step", "step 1", "Ho et al")
def _():
    return step_of(HO, lambda h, s, t, x, e, z: mu(h, t, x, e) + (t > 1) * np.sqrt(s[t]) * z)


@wrong("p_step: √β for β before ε̂", "β_t/β̄", "β_t", *SQUARE)
def _():
    return step_of(
        RANDOM,
        lambda h, s, t, x, e, z: (x - np.sqrt(h.b[t] / (1 - h.ab[t])) * e) / np.sqrt(h.a[t]) + np.sqrt(s[t]) * z,
    )


@wrong("p_step: 1 − ᾱ without its root", "β̄²", "β̄_t²", *SQUARE)
def _():
    return step_of(
        COSINE,
        lambda h, s, t, x, e, z: (x - h.b[t] / (1 - h.ab[t]) * e) / np.sqrt(h.a[t]) + np.sqrt(s[t]) * z,
    )


@wrong("p_step: bracket closed too early", "bracket", "parenthes", "α_t", "divided", "only x")
def _():
    return step_of(
        TEN,
        lambda h, s, t, x, e, z: x / np.sqrt(h.a[t]) - h.b[t] / np.sqrt(1 - h.ab[t]) * e + np.sqrt(s[t]) * z,
    )


@wrong("p_step: times √α, not divided", "multipl", "divided", "1/α", "α_t", "inverse")
def _():
    return step_of(CONSTANT, lambda h, s, t, x, e, z: mu(h, t, x, e) * h.a[t] + np.sqrt(s[t]) * z)


@wrong("p_step: plus ε̂", *SIGN)
def _():
    return step_of(FROM_SDE, lambda h, s, t, x, e, z: mu(h, t, x, -e) + np.sqrt(s[t]) * z)


@wrong("p_step: β̃ for σ = β", "β̃", "posterior", "variance", "σ_t")
def _():
    return step_of(LINEAR, lambda h, s, t, x, e, z: mu(h, t, x, e) + np.sqrt(h.post[t]) * z)


@wrong("p_step: exp(½ σ²), a variance read as its logarithm", "exp", "log")
def _():
    return step_of(TEN, lambda h, s, t, x, e, z: mu(h, t, x, e) + np.exp(0.5 * s[t]) * z)


@wrong("p_step: √ᾱ for √α in front", "ᾱ_t", "cumulative", "product")
def _():
    return step_of(RANDOM, lambda h, s, t, x, e, z: mu(h, t, x, e) * np.sqrt(h.a[t] / h.ab[t]) + np.sqrt(s[t]) * z)


@wrong("p_step: x̂_0 clipped, posterior mean", "clip", "[−1, 1]", "clamp")
def _():
    def formula(h, s, t, x, e, z):
        x0 = np.clip((x - np.sqrt(1 - h.ab[t]) * e) / np.sqrt(h.ab[t]), -1, 1)
        mean = (np.sqrt(h.prev[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t])
        return mean + np.sqrt(s[t]) * z

    return step_of(LINEAR, formula, "posterior")


@wrong("p_step: noise of the step before", "σ_{t−1}", *EARLIER)
def _():
    return step_of(COSINE, lambda h, s, t, x, e, z: mu(h, t, x, e) + np.sqrt(h.b[t - 1]) * z)


# --- check_ddim_step -----------------------------------------------------------------------------------------------


def ddim_of(schedule, formula, eta):
    h = H(schedule)

    def step(t, s, x, e, z):
        x0 = (x - np.sqrt(1 - h.ab[t]) * e) / np.sqrt(h.ab[t])
        sigma = eta * np.sqrt((1 - h.ab[s]) / (1 - h.ab[t]) * (1 - h.ab[t] / h.ab[s]))
        return formula(h, t, s, x, e, z, x0, sigma)

    return c.check_ddim_step(step, schedule, eta)


def ddim_right(h, s, e, z, x0, sigma):
    return np.sqrt(h.ab[s]) * x0 + np.sqrt(np.maximum(1 - h.ab[s] - sigma**2, 0)) * e + sigma * z


@wrong("ddim: σ² not taken from the direction, η = 1", "σ²", "direction", "η", "variance", "marginal", *MISSING)
def _():
    return ddim_of(TEN, lambda h, t, s, x, e, z, x0, g: np.sqrt(h.ab[s]) * x0 + np.sqrt(1 - h.ab[s]) * e + g * z, 1.0)


@wrong("ddim: noise times σ², η = 0.7", "σ²", *SQUARE)
def _():
    return ddim_of(
        LINEAR,
        lambda h, t, s, x, e, z, x0, g: np.sqrt(h.ab[s]) * x0 + np.sqrt(1 - h.ab[s] - g**2) * e + g**2 * z,
        0.7,
    )


@wrong("ddim: η ignored, η = 0.7", "η", "eta", "deterministic", "is 0", "zero", "from 0")
def _():
    return ddim_of(RANDOM, lambda h, t, s, x, e, z, x0, g: ddim_right(h, s, e, z, x0, 0.0), 0.7)


@wrong("ddim: 1 − ᾱ − σ, not squared, η = 0.5", *SQUARE)
def _():
    return ddim_of(
        CONSTANT,
        lambda h, t, s, x, e, z, x0, g: np.sqrt(h.ab[s]) * x0 + np.sqrt(np.maximum(1 - h.ab[s] - g, 0)) * e + g * z,
        0.5,
    )


@wrong("ddim: x̂_0 clipped, η = 0", "clip", "[−1, 1]", "clamp")
def _():
    return ddim_of(FROM_SDE, lambda h, t, s, x, e, z, x0, g: ddim_right(h, s, e, z, np.clip(x0, -1, 1), g), 0.0)


@wrong("ddim: always steps to t − 1, η = 0", "t − 1", "t - 1", "s = ", "skip", "one step")
def _():
    return ddim_of(TEN, lambda h, t, s, x, e, z, x0, g: ddim_right(h, t - 1, e, z, x0, 0.0), 0.0)


@wrong("ddim: signal ᾱ_s without the root, η = 0", "ᾱ_s²", "ᾱ²", *SQUARE)
def _():
    return ddim_of(COSINE, lambda h, t, s, x, e, z, x0, g: h.ab[s] * x0 + np.sqrt(1 - h.ab[s]) * e, 0.0)


@wrong("ddim: σ is η β_t, the variance of the forward step, η = 1", "β̃", "β_t", "σ_t", "forward")
def _():
    return ddim_of(
        LINEAR,
        lambda h, t, s, x, e, z, x0, g: ddim_right(h, s, e, z, x0, np.sqrt(1 - h.ab[t] / h.ab[s])),
        1.0,
    )


@wrong("ddim: the last step to x_0 keeps the noise level of s = 1, η = 0", "s = 0", "clean", "last", "ᾱ_1", "final")
def _():
    return ddim_of(TEN, lambda h, t, s, x, e, z, x0, g: ddim_right(h, max(s, 1), e, z, x0, 0.0), 0.0)


# --- check_ddim_sampler and check_sampler --------------------------------------------------------------------------


def ddim_loop(schedule, eta, steps=None, order=None, asked=0, clip=None, ends=False):
    h = H(schedule)

    def sample(x, eps_hat, noise):
        for t in steps(h.T) if steps else range(h.T, 0, -1):
            e = eps_hat(x, t - asked)
            x0 = (x - np.sqrt(1 - h.ab[t]) * e) / np.sqrt(h.ab[t])
            if clip:
                x0 = np.clip(x0, -clip, clip)
            sigma = eta * np.sqrt(h.post[t])
            z = noise[order(h.T, t) if order else h.T - t]
            x = np.sqrt(h.prev[t]) * x0 + np.sqrt(np.maximum(1 - h.prev[t] - sigma**2, 0)) * e + sigma * z
        return x

    return c.check_ddim_sampler(sample, schedule, eta)


@wrong("ddim sampler: noise[t − 1] for the step t, η = 1", "order", "reversed", "noise")
def _():
    return ddim_loop(TEN, 1.0, order=lambda T, t: t - 1)


@wrong("ddim sampler: stops at x_1, η = 0", "last", "t = 1", "x_1", "final", "stops")
def _():
    return ddim_loop(SHORT, 0.0, steps=lambda T: range(T, 1, -1))


@wrong("ddim sampler: network gets t − 1, η = 0.5", *EARLIER)
def _():
    return ddim_loop(RANDOM, 0.5, asked=1)


@wrong("ddim sampler: x̂_0 clipped to ±1, η = 0", "clip", "±1", "[−1, 1]", "clamp")
def _():
    return ddim_loop(CONSTANT, 0.0, clip=1.0)


@wrong("ddim sampler: the first step, from T, is left out, η = 1", "first", "step T", "t = T", "from T", "skip")
def _():
    return ddim_loop(TEN, 1.0, steps=lambda T: range(T - 1, 0, -1))


def loop_of(schedule, change=None, mean=0.4, variance=0.5, start=None, steps=None, asked=0):
    h = H(schedule)
    # the optimal variance for data N(mean, variance I): that of x_{t−1} given x_t
    cov = h.prev * variance + 1 - h.prev
    sigma2 = cov * h.b / (h.a * cov + h.b)
    sigma2[0] = 1.0

    def sample(x, eps_hat, noise):
        x = start(h, x) if start else x
        for t in steps(h.T) if steps else range(h.T, 0, -1):
            e, z, std = eps_hat(x, t - asked), noise[h.T - t], np.sqrt(sigma2[t])
            x = change(h, t, x, e, z, std, noise) if change else mu(h, t, x, e) + std * z
        return x

    return c.check_sampler(sample, schedule, mean, variance, sigma2)


@wrong("sampler: no noise in the last step", "last", "t = 1", "step 1", "Ho et al")
def _():
    return loop_of(TEN, lambda h, t, x, e, z, s, n: mu(h, t, x, e) + (t > 1) * s * z)


@wrong("sampler: network gets t − 1", *EARLIER)
def _():
    return loop_of(RANDOM, asked=1)


@wrong(
    "sampler: one draw of noise for all steps",
    "same noise",
    "every step",
    "reused",
    "noise[0]",
    "one draw",
    "first noise",
)
def _():
    return loop_of(SHORT, lambda h, t, x, e, z, s, n: mu(h, t, x, e) + s * n[0])


@wrong("sampler: the start is scaled by σ_max of EDM", "start", "x_T", "scaled", "σ_max", "initial")
def _():
    return loop_of(SHORT, start=lambda h, x: x * np.sqrt((1 - h.ab[-1]) / h.ab[-1]))


@wrong("sampler: noise times σ²", "σ²", "σ_t²", *SQUARE)
def _():
    return loop_of(CONSTANT, lambda h, t, x, e, z, s, n: mu(h, t, x, e) + s**2 * z)


@wrong("sampler: samples clipped to ±1 at the end", "clip", "±1", "[−1, 1]", "clamp")
def _():
    return loop_of(
        TEN, lambda h, t, x, e, z, s, n: (lambda y: np.clip(y, -1, 1) if t == 1 else y)(mu(h, t, x, e) + s * z)
    )


@wrong("sampler: steps rise from 1 to T", "order", "rise", "reversed", "ascending", "1..T", "direction")
def _():
    return loop_of(RANDOM, steps=lambda T: range(1, T + 1))


# --- check_predicted_noise -----------------------------------------------------------------------------------------


def noise_of(schedule, kind, to_eps=None, guide=None, clip=None):
    h = H(schedule)

    def right(h, t, x, o):
        s, n = np.sqrt(h.ab[t]), np.sqrt(1 - h.ab[t])
        return {"noise": o, "x0": (x - s * o) / n, "v": s * o + n * x, "step": o * n / np.sqrt(h.b[t])}[kind]

    def output(x, t, labelled):
        return np.tanh(x[:, ::-1] * (1 + 0.05 * t)) * 0.8 + 0.3 * labelled * np.cos(x)

    def predict(x, t, w, clipped):
        e0 = (to_eps or right)(h, t, x, output(x, t, False))
        e1 = (to_eps or right)(h, t, x, output(x, t, True))
        e = guide(e0, e1, w) if guide else e0 + w * (e1 - e0)
        if not clipped:
            return e
        s, n = np.sqrt(h.ab[t]), np.sqrt(1 - h.ab[t])
        if clip:
            return clip(e, x, s, n)
        return (x - s * np.clip((x - n * e) / s, -1, 1)) / n

    return c.check_predicted_noise(predict, output, schedule, kind, normal(11, 5, 4) * 2)


@wrong("predicted noise: v with a minus", *SIGN)
def _():
    return noise_of(TEN, "v", lambda h, t, x, o: np.sqrt(h.ab[t]) * o - np.sqrt(1 - h.ab[t]) * x)


@wrong("predicted noise: guidance (1 + w) of Ho and Salimans", "1 + w", "1 + guidance", "guidance", "w + 1")
def _():
    return noise_of(LINEAR, "noise", guide=lambda e0, e1, w: (1 + w) * e1 - w * e0)


@wrong("predicted noise: labels exchanged in the guidance", "guidance", "label", "exchanged", "swapped")
def _():
    return noise_of(COSINE, "noise", guide=lambda e0, e1, w: e1 + w * (e0 - e1))


@wrong("predicted noise: x_0 not divided by β̄", "β̄_t", "divided", "std", *MISSING)
def _():
    return noise_of(RANDOM, "x0", lambda h, t, x, o: x - np.sqrt(h.ab[t]) * o)


@wrong("predicted noise: step noise times β/β̄", "inverse", "multipl", "divided", "recipro", "β̄_t")
def _():
    return noise_of(CONSTANT, "step", lambda h, t, x, o: o * np.sqrt(h.b[t] / (1 - h.ab[t])))


@wrong("predicted noise: x̂_0 clipped to [0, 1]", "clip", "[0, 1]", "clamp")
def _():
    return noise_of(TEN, "noise", clip=lambda e, x, s, n: (x - s * np.clip((x - n * e) / s, 0, 1)) / n)


@wrong("predicted noise: ε̂ itself clipped", "clip", "of ε̂", "x̂_0", "clamp")
def _():
    return noise_of(FROM_SDE, "x0", clip=lambda e, x, s, n: np.clip(e, -1, 1))


@wrong("predicted noise: clip has no effect on ε̂", "clip", "x̂_0", "ignored")
def _():
    return noise_of(LINEAR, "v", clip=lambda e, x, s, n: e)


@wrong("predicted noise: v with signal and noise exchanged", "exchanged", "swapped", "interchanged", "x_0", "x̂_0")
def _():
    return noise_of(SHORT, "v", lambda h, t, x, o: np.sqrt(1 - h.ab[t]) * o + np.sqrt(h.ab[t]) * x)


# --- check_reverse_variance and check_optimal_variance -------------------------------------------------------------


def variances_of(schedule, change):
    h = H(schedule)
    post = np.where(np.arange(h.T + 1) == 1, h.b, h.post)
    return c.check_reverse_variance(lambda name: change(h, {"beta": h.b, "posterior": post}, name), schedule)


@wrong("reverse variance: β̃_1 = 0 kept", "t = 1", "first step", "β_1", "β̃_1", "step 1")
def _():
    return variances_of(LINEAR, lambda h, v, name: h.post if name == "posterior" else h.b)


@wrong("reverse variance: names exchanged", "exchanged", "swapped", "interchanged", "names", "β̃")
def _():
    return variances_of(RANDOM, lambda h, v, name: v["beta" if name == "posterior" else "posterior"])


@wrong("reverse variance: deviations", *SQUARE)
def _():
    return variances_of(TEN, lambda h, v, name: np.sqrt(v[name]))


@wrong("reverse variance: σ_1² is β̃_2², Ho's clip", "t = 1", "clip", "t = 2", "β̃_2", "first step", "step 1")
def _():
    return variances_of(
        COSINE, lambda h, v, name: np.where(np.arange(h.T + 1) == 1, h.post[2], h.post) if name == "posterior" else h.b
    )


@wrong("reverse variance: table without an entry for t = 0 filled at the end", "shifted", "off by one", *LATER)
def _():
    return variances_of(HO, lambda h, v, name: np.append(v[name][1:], v[name][-1]))


def optimal_of(schedule, formula, D=3):
    h = H(schedule)
    A = normal(5, D, D)
    cov = A @ A.T / D + 0.2 * np.eye(D)

    def run(loss):
        w = np.zeros(h.T + 1)
        w[1:] = h.b[1:] ** 2 / (h.a[1:] * (1 - h.ab[1:]))
        return formula(h, w, np.asarray(loss), D)

    return c.check_optimal_variance(run, schedule, cov)


@wrong("optimal variance: without β̃²", "β̃", "posterior", *MISSING)
def _():
    return optimal_of(LINEAR, lambda h, w, loss, D: w * loss / D)


@wrong("optimal variance: not divided by D", "over D", "times D", "D times", "mean", "dimension")
def _():
    return optimal_of(RANDOM, lambda h, w, loss, D: h.post + w * loss)


@wrong("optimal variance: coefficient of ε̂ not squared", *SQUARE)
def _():
    return optimal_of(TEN, lambda h, w, loss, D: h.post + np.sqrt(w) * loss / D)


@wrong("optimal variance: β² for β̃²", "β_t²", "β²", "β̃")
def _():
    return optimal_of(COSINE, lambda h, w, loss, D: h.b + w * loss / D)


@wrong("optimal variance: loss subtracted, not added", *SIGN)
def _():
    return optimal_of(FROM_SDE, lambda h, w, loss, D: h.post - w * loss / D)


# --- check_step_loss -----------------------------------------------------------------------------------------------

LOG_TAU = np.log(2 * np.pi)


def slope_noise(x, t):
    return 0.6 * np.tanh(x) + 0.02 * t


def step_loss_of(schedule, t, formula, sigma2=None):
    h = H(schedule)
    s2 = h.b[t] if sigma2 is None else sigma2

    def loss(t, x0, e1, e2, eps_hat):
        prev = np.sqrt(h.prev[t]) * x0 + np.sqrt(1 - h.prev[t]) * e1
        x = np.sqrt(h.a[t]) * prev + np.sqrt(h.b[t]) * e2
        return formula(h, s2, t, x0, prev, x, e2, eps_hat(x, t), x0.shape[1])

    return c.check_step_loss(loss, schedule, t, slope_noise, 0.3, 0.8, s2)


def square(v):
    return (v**2).sum(axis=1)


@wrong("step loss: no ½ before the square", *HALF)
def _():
    return step_loss_of(
        TEN, 4, lambda h, s, t, x0, p, x, e2, e, D: square(p - mu(h, t, x, e)) / s + D / 2 * (LOG_TAU + np.log(s))
    )


@wrong("step loss: constant ½ log 2π left out", "2π", "constant", *MISSING)
def _():
    return step_loss_of(
        LINEAR, 20, lambda h, s, t, x0, p, x, e2, e, D: square(p - mu(h, t, x, e)) / (2 * s) + D / 2 * np.log(s)
    )


@wrong(
    "step loss: constant counted once, not per dimension",
    "dimension",
    "over D",
    "times D",
    "D times",
    "once",
    "constant",
)
def _():
    return step_loss_of(
        RANDOM, 5, lambda h, s, t, x0, p, x, e2, e, D: square(p - mu(h, t, x, e)) / (2 * s) + (LOG_TAU + np.log(s)) / 2
    )


@wrong("step loss: divided by 2σ", *SQUARE)
def _():
    return step_loss_of(
        CONSTANT,
        7,
        lambda h, s, t, x0, p, x, e2, e, D: (
            square(p - mu(h, t, x, e)) / (2 * np.sqrt(s)) + D / 2 * (LOG_TAU + np.log(s))
        ),
    )


@wrong(
    "step loss: target is the noise of the last step", "ε_t", "one step", "total noise", "merged", "last step", "target"
)
def _():
    def formula(h, s, t, x0, p, x, e2, e, D):
        w = h.b[t] ** 2 / (2 * s * h.a[t] * (1 - h.ab[t]))
        return w * square(e2 - e) + D / 2 * (LOG_TAU + np.log(s)) + D * h.post[t] / (2 * s)

    return step_loss_of(TEN, 6, formula)


@wrong("step loss: merged noise without the spread β̃² of x_{t−1}", "β̃", "ω", "spread", "constant", *MISSING)
def _():
    def formula(h, s, t, x0, p, x, e2, e, D):
        w = h.b[t] ** 2 / (2 * s * h.a[t] * (1 - h.ab[t]))
        eps = (x - np.sqrt(h.ab[t]) * x0) / np.sqrt(1 - h.ab[t])
        return w * square(eps - e) + D / 2 * (LOG_TAU + np.log(s))

    return step_loss_of(COSINE, 15, formula)


@wrong("step loss: log σ for log σ²", *HALF, *SQUARE, "log")
def _():
    return step_loss_of(
        FROM_SDE,
        9,
        lambda h, s, t, x0, p, x, e2, e, D: square(p - mu(h, t, x, e)) / (2 * s) + D / 2 * (LOG_TAU + np.log(s) / 2),
        0.03,
    )


# --- check_bound_terms, check_variational_bound, check_bound_of ----------------------------------------------------


def prior_kl(h, x0):
    v = 1 - h.ab[-1]
    return 0.5 * (h.ab[-1] * x0**2 + v - 1 - np.log(v)).sum(axis=1)


def step_kl(h, s2, t, x0, x, e):
    q = (np.sqrt(h.prev[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t])
    ratio = h.post[t] / s2[t]
    return 0.5 * ((q - mu(h, t, x, e)) ** 2 / s2[t] + ratio - 1 - np.log(ratio)).sum(axis=1)


def decoder_nll(h, s2, x0, x, e):
    return 0.5 * ((x0 - mu(h, 1, x, e)) ** 2 / s2[1] + np.log(2 * np.pi * s2[1])).sum(axis=1)


def tables(schedule, variance):
    h = H(schedule)
    s2 = h.b.copy() if variance == "beta" else np.where(np.arange(h.T + 1) == 1, h.b, h.post)
    s2[0] = 1.0
    return h, s2


def terms_of(schedule, prior=None, step=None, last=None, variance="beta"):
    h, s2 = tables(schedule, variance)
    return c.check_bound_terms(
        lambda x0: (prior or prior_kl)(h, x0),
        lambda t, x0, x, eps_hat: (step or step_kl)(h, s2, t, x0, x, eps_hat(x, t)),
        lambda x0, x, eps_hat: (last or decoder_nll)(h, s2, x0, x, eps_hat(x, 1)),
        schedule,
        normal(21, 4, 3),
        normal(22, 4, 3),
        slope_noise,
        s2,
    )


@wrong("bound terms: mean over D in L_{t−1}, Ho's mean_flat", *MEAN, "over D", "times D", "D times", "dimension")
def _():
    return terms_of(LINEAR, step=lambda *a: step_kl(*a) / 3)


@wrong("bound terms: KL(p‖q) for KL(q‖p)", "exchanged", "swapped", "KL(p", "other way", "reverse", "order")
def _():
    def step(h, s2, t, x0, x, e):
        q = (np.sqrt(h.prev[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t])
        ratio = s2[t] / h.post[t]
        return 0.5 * ((q - mu(h, t, x, e)) ** 2 / h.post[t] + ratio - 1 - np.log(ratio)).sum(axis=1)

    return terms_of(TEN, step=step)


@wrong("bound terms: L_T of the mean alone", "L_T", "variance", "log", "constant", *MISSING)
def _():
    return terms_of(SHORT, prior=lambda h, x0: 0.5 * h.ab[-1] * (x0**2).sum(axis=1))


@wrong("bound terms: L_T with log β̄ for log β̄²", *HALF, *SQUARE, "log")
def _():
    def prior(h, x0):
        v = 1 - h.ab[-1]
        return 0.5 * (h.ab[-1] * x0**2 + v - 1 - 0.5 * np.log(v)).sum(axis=1)

    return terms_of(CONSTANT, prior=prior)


@wrong("bound terms: L_0 with the variance of t = 2", "t = 2", "σ_2", "σ_1", "variance", *LATER)
def _():
    return terms_of(RANDOM, last=lambda h, s2, x0, x, e: decoder_nll(h, np.roll(s2, -1), x0, x, e))


@wrong("bound terms: L_{t−1} of the means alone", "variance", "log", "constant", "β̃", *MISSING)
def _():
    def step(h, s2, t, x0, x, e):
        q = (np.sqrt(h.prev[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t])
        return 0.5 * ((q - mu(h, t, x, e)) ** 2 / s2[t]).sum(axis=1)

    return terms_of(COSINE, step=step)


@wrong("bound terms: bits", "log 2", "bits", "log(2)", "nats")
def _():
    bits = np.log(2)
    return terms_of(
        FROM_SDE,
        lambda *a: prior_kl(*a) / bits,
        lambda *a: step_kl(*a) / bits,
        lambda *a: decoder_nll(*a) / bits,
    )


@wrong("bound terms: L_T of step T − 1", "T − 1", "T - 1", "ᾱ_{T−1}", *EARLIER)
def _():
    return terms_of(TEN, prior=lambda h, x0: 0.5 * (h.ab[-2] * x0**2 - h.ab[-2] - np.log(1 - h.ab[-2])).sum(axis=1))


@wrong("bound terms: L_0 is the squared error", "constant", "σ_t", "variance", "log", *HALF, *MISSING)
def _():
    return terms_of(LINEAR, last=lambda h, s2, x0, x, e: ((x0 - mu(h, 1, x, e)) ** 2).sum(axis=1))


def rows(h, s2, x0, eps_hat, noise, step=None):
    """The terms L_0, …, L_T, a list of (N,)."""
    out = []
    for t in range(1, h.T + 1):
        x = np.sqrt(h.ab[t]) * x0 + np.sqrt(1 - h.ab[t]) * noise[t - 1]
        e = eps_hat(x, t)
        out.append(decoder_nll(h, s2, x0, x, e) if t == 1 else (step or step_kl)(h, s2, t, x0, x, e))
    return [*out, prior_kl(h, x0)]


def bound_of(schedule, change=sum, variance="beta", step=None, D=2):
    h, s2 = tables(schedule, variance)
    A = normal(31, h.T + 1, D, D) * 0.2 + 0.3 * np.eye(D)
    G = normal(32, D, D)
    return c.check_variational_bound(
        lambda x0, eps_hat, noise: change(rows(h, s2, x0, eps_hat, noise, step)),
        schedule,
        normal(33, D),
        G @ G.T / D + 0.3 * np.eye(D),
        A,
        normal(34, h.T + 1, D) * 0.1,
        s2,
    )


@wrong("bound: mean over the steps", "1/T", "divided by T", "mean", "average", "times T", "1/T", "T times")
def _():
    return bound_of(SHORT, lambda r: sum(r) / (len(r) - 1))


@wrong("bound: L_T left out", "L_T", "prior", *MISSING)
def _():
    return bound_of(RANDOM, lambda r: sum(r[:-1]))


@wrong("bound: the ELBO, not −ELBO", *SIGN)
def _():
    return bound_of(TEN, lambda r: -sum(r), "posterior")


@wrong("bound: L_0 left out", "L_0", "reconstruction", *MISSING)
def _():
    return bound_of(CONSTANT, lambda r: sum(r[1:]))


@wrong("bound: simple loss ‖ε − ε̂‖² for L_{t−1}", "weight", "simple", "w_t", "unweighted", "λ_t")
def _():
    def step(h, s2, t, x0, x, e):
        return square((x - np.sqrt(h.ab[t]) * x0) / np.sqrt(1 - h.ab[t]) - e)

    return bound_of(SHORT, step=step)


@wrong("bound: steps t ≥ 2 times T, as if one t were drawn", "times T", "1/T", "T times", "times T", "factor T")
def _():
    return bound_of(TEN, lambda r: r[0] + (len(r) - 1) * sum(r[1:-1]) + r[-1])


@wrong("bound: terms with L_T first, then L_0, L_1, …", "order", "reversed", "shifted", "L_0", "L_1")
def _():
    return bound_of(SHORT, lambda r: np.stack(np.roll(r, 1, axis=0), axis=1))


NETWORK = normal(41, 3, 3) * 0.5


def network(x, t):
    return (np.tanh(np.asarray(x) @ NETWORK) + 0.1 * np.sin(t)).astype(np.asarray(x).dtype)


def own_bound(schedule, change=sum, variance="beta", asked=0, step=None, **options):
    h, s2 = tables(schedule, variance)
    return c.check_bound_of(
        lambda x0, noise: change(rows(h, s2, x0, lambda x, t: network(x, t - asked), noise, step)),
        network,
        normal(42, 4, 3),
        normal(43, h.T, 4, 3),
        schedule,
        variance,
        **options,
    )


@wrong("bound of a network: it gets t − 1", *EARLIER)
def _():
    return own_bound(SHORT, asked=1)


@wrong("bound of a network: bits per dimension", "bits", "log 2", "over D", "times D", "D times", "nats")
def _():
    return own_bound(LINEAR, lambda r: sum(r) / (3 * np.log(2)))


@wrong("bound of a network: β_t for β̃_t in p_θ", "β̃", "σ_t", "variance", "β_t")
def _():
    h, s2 = tables(TEN, "beta")
    return c.check_bound_of(
        lambda x0, noise: sum(rows(h, s2, x0, network, noise)),
        network,
        normal(42, 4, 3),
        normal(43, h.T, 4, 3),
        TEN,
        "posterior",
    )


@wrong("bound of a network: density for the mass of a bin in L_0", "L_0", "bin", "density", "mass", "width", "whole")
def _():
    h, s2 = tables(SHORT, "beta")
    levels = np.random.default_rng(44).integers(0, 16, (4, 3)) / 7.5 - 1
    return c.check_bound_of(
        lambda x0, noise: sum(rows(h, s2, x0, network, noise)),
        network,
        levels,
        normal(43, h.T, 4, 3),
        SHORT,
        "beta",
        16,
    )


@wrong("bound of a network: KL without ½", *HALF)
def _():
    return own_bound(RANDOM, step=lambda *a: 2 * step_kl(*a))


# --- check_negative_elbo and check_chains --------------------------------------------------------------------------


def elbo_of(schedule, weight=None, second=None, constant=None, prior=None, D=2):
    h, s2 = tables(schedule, "beta")
    A = normal(51, h.T + 1, D, D) * 0.2 + 0.3 * np.eye(D)
    G = normal(52, D, D)

    def run(loss, m2, D):
        m2 = second(m2, D) if second else m2
        v = 1 - h.ab[-1]
        L_T = 0.5 * (h.ab[-1] * m2 + D * (v - 1 - np.log(v)))
        w = np.zeros(h.T + 1)
        w[1:] = h.b[1:] ** 2 / (2 * s2[1:] * h.a[1:] * (1 - h.ab[1:]))
        w = weight(h, s2, w) if weight else w
        ratio = h.post[2:] / s2[2:]
        L_0 = constant(s2, D) if constant else D / 2 * np.log(2 * np.pi * s2[1])
        fixed = L_0 + D / 2 * (ratio - 1 - np.log(ratio)).sum()
        return (0 if prior == "none" else L_T) + fixed + (w[1:] * np.asarray(loss)[1:]).sum()

    return c.check_negative_elbo(
        run,
        schedule,
        normal(53, D),
        G @ G.T / D + 0.3 * np.eye(D),
        A,
        normal(54, h.T + 1, D) * 0.1,
        s2,
    )


@wrong("negative ELBO: E‖x_0‖² taken as D", "‖x_0‖²", "second moment", "x_0", "unit", "over D", "times D", "D times")
def _():
    return elbo_of(SHORT, second=lambda m2, D: D)


@wrong("negative ELBO: weights without ½", *HALF)
def _():
    return elbo_of(RANDOM, weight=lambda h, s2, w: 2 * w)


@wrong("negative ELBO: weights without 1/α²", "1/α", "α_t", *MISSING)
def _():
    return elbo_of(TEN, weight=lambda h, s2, w: w * h.a)


@wrong(
    "negative ELBO: log 2πσ_1² once for all dimensions",
    "over D",
    "times D",
    "D times",
    "dimension",
    "once",
    "constant",
    "L_0",
)
def _():
    return elbo_of(CONSTANT, constant=lambda s2, D: 0.5 * np.log(2 * np.pi * s2[1]))


@wrong("negative ELBO: no L_T", "L_T", "prior", *MISSING)
def _():
    return elbo_of(SHORT, prior="none")


@wrong("negative ELBO: simple weights 1/T", "weight", "simple", "1/T", "mean")
def _():
    return elbo_of(TEN, weight=lambda h, s2, w: np.full(h.T + 1, 1 / h.T))


def log_normal(x, mean, v):
    return -0.5 * ((x - mean) ** 2 / v + np.log(2 * np.pi * v)).sum(axis=1)


def chains_of(schedule, forward=None, reverse=None):
    h, s2 = tables(schedule, "beta")

    def q(path):
        return sum((forward or log_normal)(path[t], np.sqrt(h.a[t]) * path[t - 1], h.b[t]) for t in range(1, h.T + 1))

    def p(path, eps_hat):
        out = log_normal(path[-1], 0.0, 1.0)
        for t in range(1, h.T + 1):
            out = out + log_normal(path[t - 1], mu(h, t, path[t], eps_hat(path[t], t)), s2[t])
        return out

    slopes = np.linspace(0.2, 0.9, h.T + 1)
    return c.check_chains(
        q,
        (lambda path, eps_hat: reverse(h, s2, path, eps_hat)) if reverse else p,
        schedule,
        normal(61, h.T + 1, 4, 3),
        slopes,
        s2,
    )


def reverse_sum(h, s2, path, eps_hat, steps, at=0):
    return sum(log_normal(path[t - 1], mu(h, t, path[t], eps_hat(path[t - at], t)), s2[t]) for t in steps)


@wrong("chains: p(x_T) left out", "x_T", "prior", *MISSING)
def _():
    return chains_of(SHORT, reverse=lambda h, s2, p, e: reverse_sum(h, s2, p, e, range(1, h.T + 1)))


@wrong("chains: ε̂ of x_{t−1}", "x_{t−1}", "of ε̂", *EARLIER)
def _():
    return chains_of(
        TEN,
        reverse=lambda h, s2, p, e: log_normal(p[-1], 0.0, 1.0) + reverse_sum(h, s2, p, e, range(1, h.T + 1), 1),
    )


@wrong("chains: p_θ(x_0 | x_1) left out", "x_0", "x_1", "t = 1", "first", "last", *MISSING)
def _():
    return chains_of(
        RANDOM, reverse=lambda h, s2, p, e: log_normal(p[-1], 0.0, 1.0) + reverse_sum(h, s2, p, e, range(2, h.T + 1))
    )


@wrong("chains: mean over dimensions", *MEAN, "over D", "times D", "D times", "dimension")
def _():
    return chains_of(CONSTANT, forward=lambda x, m, v: log_normal(x, m, v) / x.shape[1])


@wrong("chains: deviation in the density of q", *SQUARE)
def _():
    return chains_of(LINEAR, forward=lambda x, m, v: log_normal(x, m, np.sqrt(v)))


# --- check_loss_weights --------------------------------------------------------------------------------------------


def weights_of(schedule, name, formula):
    h, s2 = tables(schedule, "beta")
    snr = h.ab[1:] / (1 - h.ab[1:])
    right = {
        "simple": np.ones(h.T),
        "x0": 1 / snr,
        "v": 1 / h.ab[1:],
        "min-snr": np.minimum(snr, 5) / snr,
        "bound": h.T * h.b[1:] ** 2 / (2 * s2[1:] * h.a[1:] * (1 - h.ab[1:])),
    }

    def run(asked):
        return np.concatenate([[0.0], formula(h, s2, snr) if asked == name else right[asked]])

    return c.check_loss_weights(run, schedule, s2)


@wrong("loss weights: SNR for 1/SNR, x0", "inverse", "1/SNR", "SNR", "recipro")
def _():
    return weights_of(LINEAR, "x0", lambda h, s2, snr: snr)


@wrong("loss weights: ratio of deviations for SNR, x0", *SQUARE)
def _():
    return weights_of(RANDOM, "x0", lambda h, s2, snr: 1 / np.sqrt(snr))


@wrong("loss weights: SNR + 1 for v, HF's min-snr with v", "1/SNR", "SNR", "1 − ᾱ", "inverse", "x_0")
def _():
    return weights_of(COSINE, "v", lambda h, s2, snr: snr + 1)


@wrong("loss weights: 1/ᾱ for v", *SQUARE)
def _():
    return weights_of(FROM_SDE, "v", lambda h, s2, snr: 1 / np.sqrt(h.ab[1:]))


@wrong("loss weights: min(SNR, 5), the weight of ‖x_0 − x̂_0‖²", "SNR", "x_0", "divided")
def _():
    return weights_of(SCALED, "min-snr", lambda h, s2, snr: np.minimum(snr, 5))


@wrong("loss weights: max for min", "max", "min", "min(SNR", "at most")
def _():
    return weights_of(LINEAR, "min-snr", lambda h, s2, snr: np.maximum(snr, 5) / snr)


@wrong("loss weights: bound without T", "times T", "1/T", "T times", *MISSING)
def _():
    return weights_of(TEN, "bound", lambda h, s2, snr: h.b[1:] ** 2 / (2 * s2[1:] * h.a[1:] * (1 - h.ab[1:])))


@wrong("loss weights: bound without ½", *HALF)
def _():
    return weights_of(RANDOM, "bound", lambda h, s2, snr: h.T * h.b[1:] ** 2 / (s2[1:] * h.a[1:] * (1 - h.ab[1:])))


@wrong("loss weights: β⁴ of a table of variances, not β_t² of Ho", *SQUARE)
def _():
    return weights_of(
        CONSTANT, "bound", lambda h, s2, snr: h.T * h.b[1:] ** 4 / (2 * s2[1:] * h.a[1:] * (1 - h.ab[1:]))
    )


# --- check_step_draws and check_time_draws -------------------------------------------------------------------------


def grid(u, n=8):
    return (u + np.arange(n) / n) % 1


@wrong("step draws: steps 0..T − 1", "is 0", "zero", "from 0", "T − 1", "off by one", "zero-based", "shifted", "step T")
def _():
    return c.check_step_draws(lambda u: (np.floor(grid(u) * 10).astype(int), np.ones(8)), 10)


@wrong("step draws: T is never drawn", "times T", "1/T", "T times", "never", "last step", "randint", "excluded")
def _():
    return c.check_step_draws(lambda u: (1 + np.floor(grid(u) * 11).astype(int), np.ones(8)), 12)


@wrong("step draws: rounded, not floored", "round", "is 0", "zero", "from 0", "half", "ends", "step 0")
def _():
    return c.check_step_draws(lambda u: (np.rint(grid(u) * 10).astype(int), np.ones(8)), 10)


def by_law(u, p):
    return 1 + np.searchsorted(np.cumsum(p)[:-1], grid(u), side="right")


LAW = np.arange(1, 9) / 36


@wrong("step draws: importance sampling without weights", "weight", "importance", "biased", *MISSING)
def _():
    return c.check_step_draws(lambda u: (by_law(u, LAW), np.ones(8)), 8)


@wrong("step draws: weights 1/p without 1/T", "times T", "1/T", "T times", "1/T", "factor", "times")
def _():
    return c.check_step_draws(lambda u: (by_law(u, LAW), 1 / LAW[by_law(u, LAW) - 1]), 8)


@wrong("step draws: weights p T for 1/(p T)", "inverse", "multipl", "divided", "recipro", "weight")
def _():
    return c.check_step_draws(lambda u: (by_law(u, LAW), 8 * LAW[by_law(u, LAW) - 1]), 8)


@wrong("time draws: t from 0, not from t_min", "t_min", "start", "is 0", "zero", "from 0", "small")
def _():
    return c.check_time_draws(lambda u: (np.maximum(grid(u), 1e-3), np.ones(8)), lambda t: (t - 0.1) / 0.9)


@wrong("time draws: even in log t where t should be even", "log", "weight", "clock", "even")
def _():
    return c.check_time_draws(lambda u: (0.01 * 100.0 ** grid(u), np.ones(8)), lambda t: (t - 0.01) / 0.99)


@wrong(
    "time draws: density of the importance law for its inverse", "inverse", "weight", "multipl", "divided", "recipro"
)
def _():
    return c.check_time_draws(lambda u: (np.sqrt(grid(u)), 2 * np.sqrt(grid(u))), lambda t: t)


@wrong("time draws: antithetic pairs of half the interval", "half", "½", "upper", "share", "only")
def _():
    return c.check_time_draws(lambda u: (np.append(grid(u, 4), grid(u, 4)) / 2, np.ones(8)), lambda t: t)


# --- check_loss_of -------------------------------------------------------------------------------------------------


def loss_of(
    schedule, target=None, error=None, asked=0, given=None, prediction="noise", weight=None, reduction="sum", lam=None
):
    h = H(schedule)
    w = np.ones(h.T + 1) if weight is None else weight(h)

    def loss(t, x0, e):
        s, n = np.sqrt(h.ab[t])[:, None], np.sqrt(1 - h.ab[t])[:, None]
        x = s * x0 + n * e
        enters = given(s, n, x0, e, x) if given else x
        out = np.concatenate([network(enters[i : i + 1], int(k) - asked) for i, k in enumerate(t)])
        goal = target(s, n, x0, e, h, t) if target else {"noise": e, "x0": x0, "v": s * e - n * x0}[prediction]
        r = error(goal - out) if error else (goal - out) ** 2
        r = r.mean(axis=1) if reduction == "mean" else r.sum(axis=1)
        return r * (lam(h, t) if lam else w[t])

    return c.check_loss_of(
        loss,
        network,
        normal(71, 5, 3),
        normal(72, 5, 3),
        schedule,
        prediction=prediction,
        weight=None if weight is None else w,
        reduction="mean" if reduction == "mean" else "sum",
    )


@wrong("loss: target x_0 in place of ε", "x_0", "target")
def _():
    return loss_of(LINEAR, lambda s, n, x0, e, h, t: x0)


@wrong("loss: l1", "absolute", "l1", "L1", "|g|", "not squared", *SQUARE)
def _():
    return loss_of(TEN, error=np.abs)


@wrong("loss: Huber", "Huber", "absolute", "l1", "large", "smooth")
def _():
    return loss_of(COSINE, error=lambda r: np.where(abs(r) < 1, r**2 / 2, abs(r) - 0.5))


@wrong("loss: network gets t − 1", *EARLIER)
def _():
    return loss_of(RANDOM, asked=1)


@wrong("loss: network gets x_0, not x_t", "x_0", "x_t", "clean")
def _():
    return loss_of(CONSTANT, given=lambda s, n, x0, e, x: x0)


@wrong("loss: v with the other sign", *SIGN)
def _():
    return loss_of(FROM_SDE, lambda s, n, x0, e, h, t: n * x0 - s * e, prediction="v")


@wrong("loss: weight of the step before", "λ_{t−1}", *EARLIER)
def _():
    return loss_of(
        SHORT,
        prediction="x0",
        weight=lambda h: h.ab + 0.5,
        lam=lambda h, t: (h.ab + 0.5)[t - 1],
    )


@wrong("loss: error mean over D, said to be the sum", *MEAN, "over D", "times D", "D times", "dimension")
def _():
    return loss_of(LINEAR, error=lambda r: r**2 / r.shape[1])


@wrong("loss: weight inside the square", *SQUARE, "weight", "λ_t")
def _():
    return loss_of(TEN, prediction="v", weight=lambda h: 0.5 + h.ab, lam=lambda h, t: (0.5 + h.ab[t]) ** 2)


@wrong("loss: noise drawn with variance β̄², std missing in x_t", *SQUARE)
def _():
    return loss_of(SCALED, given=lambda s, n, x0, e, x: s * x0 + n**2 * e)


@wrong("loss: x_t of EDM, x_0 + σ ε, to a network of Ho", "σ_t", "EDM", "scale", "ᾱ_t", "x_t")
def _():
    return loss_of(TEN, given=lambda s, n, x0, e, x: x0 + n / s * e)


# --- check_sampler_of ----------------------------------------------------------------------------------------------


def sampler_of(schedule, body, x=None, order=None, **options):
    h, s2 = tables(schedule, options.get("variance", "beta"))

    def sample(x_T, noise):
        x = x_T
        for t in range(h.T, 0, -1):
            x = body(h, s2, t, x, noise[order(h.T, t) if order else h.T - t])
        return x

    return c.check_sampler_of(sample, network, 0.5 * normal(81, 4, 3), normal(82, h.T, 4, 3), schedule, **options)


@wrong("sampler of a network: noise in the last step, which Ho omits", "last", "t = 1", "step 1", "noise")
def _():
    return sampler_of(TEN, lambda h, s, t, x, z: mu(h, t, x, network(x, t)) + np.sqrt(s[t]) * z, last_noise=False)


@wrong("sampler of a network: β for β̃", "β̃", "β_t", "variance", "σ_t")
def _():
    return sampler_of(
        RANDOM, lambda h, s, t, x, z: mu(h, t, x, network(x, t)) + np.sqrt(h.b[t]) * z, variance="posterior"
    )


@wrong("sampler of a network: it gets t − 1", *EARLIER)
def _():
    return sampler_of(
        COSINE, lambda h, s, t, x, z: mu(h, t, x, network(x, t - 1)) + (t > 1) * np.sqrt(s[t]) * z, last_noise=False
    )


@wrong("sampler of a network: x̂_0 clipped", "clip", "[−1, 1]", "clamp", "±1")
def _():
    def body(h, s, t, x, z):
        x0 = np.clip((x - np.sqrt(1 - h.ab[t]) * network(x, t)) / np.sqrt(h.ab[t]), -1, 1)
        mean = (np.sqrt(h.prev[t]) * h.b[t] * x0 + np.sqrt(h.a[t]) * (1 - h.prev[t]) * x) / (1 - h.ab[t])
        return mean + (t > 1) * np.sqrt(s[t]) * z

    return sampler_of(SHORT, body, last_noise=False)


@wrong("sampler of a network: noise in rising order of t", "order", "reversed", "noise")
def _():
    return sampler_of(
        CONSTANT,
        lambda h, s, t, x, z: mu(h, t, x, network(x, t)) + np.sqrt(s[t]) * z,
        order=lambda T, t: t - 1,
    )


@wrong("sampler of a network: DDIM with a minus before ε̂", *SIGN)
def _():
    def body(h, s, t, x, z):
        e = network(x, t)
        x0 = (x - np.sqrt(1 - h.ab[t]) * e) / np.sqrt(h.ab[t])
        return np.sqrt(h.prev[t]) * x0 - np.sqrt(1 - h.prev[t]) * e

    return sampler_of(SHORT, body, eta=0.0)


@wrong("sampler of a network: v network taken for ε̂", "v-pred", "prediction", "velocity", "of ε̂")
def _():
    def body(h, s, t, x, z):
        v = network(x, t)
        return mu(h, t, x, np.sqrt(h.ab[t]) * v + np.sqrt(1 - h.ab[t]) * x) + np.sqrt(s[t]) * z

    return sampler_of(TEN, body)


# --- check_flow_likelihood_of --------------------------------------------------------------------------------------


def flow_of(sde, drift, divergence_scale=1.0, prior_std=None, trace=None, tell=None, t_min=0.05):
    """Runge and Kutta's method with 400 steps for x and log p; drift(sde, x, t, s) for the score s."""
    W = normal(91, 2, 2) * 0.4

    def score(x, t):
        return np.tanh(np.asarray(x) @ W) - 0.7 * np.asarray(x)

    def div(x, t):
        u = np.tanh(np.asarray(x) @ W)
        return ((1 - u**2) * np.diag(W)).sum(axis=1) - 0.7 * 2

    def log_prob(x):
        x, n = np.asarray(x, dtype=float), 400
        h = (sde.horizon - t_min) / n

        def f(y, t):
            d = y.shape[1]
            beta = float(sde.diffusion(t)) ** 2
            fx = np.asarray(sde.drift(y, t))
            f1 = float(np.asarray(sde.drift(np.ones((1, 1)), t)).ravel()[0])
            dx, factor = drift(fx, beta, score(y, t))
            return dx, divergence_scale * (d * f1 + factor * beta * (trace or div)(y, t))

        total = np.zeros(len(x))
        for i in range(n):
            t = t_min + i * h
            k1, l1 = f(x, t)
            k2, l2 = f(x + h / 2 * k1, t + h / 2)
            k3, l3 = f(x + h / 2 * k2, t + h / 2)
            k4, l4 = f(x + h * k3, t + h)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            total = total + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
        std = prior_std if prior_std else float(sde.prior_std)
        return -0.5 * ((x / std) ** 2 + np.log(2 * np.pi * std**2)).sum(axis=1) + total

    return c.check_flow_likelihood_of(log_prob, score, normal(92, 3, 2), sde, t_min, div, prior_std=tell)


@wrong("flow likelihood: divergence subtracted", *SIGN, slow=True)
def _():
    return flow_of(VP(0.1, 4.0), lambda f, g2, s: (f - g2 / 2 * s, -0.5), -1.0)


@wrong("flow likelihood: drift of the reverse SDE", "½", "reverse SDE", "g²", *HALF, slow=True)
def _():
    return flow_of(VP(0.1, 4.0), lambda f, g2, s: (f - g2 * s, -1.0))


@wrong("flow likelihood: divergence of the score left out", "divergence", *MISSING, slow=True)
def _():
    return flow_of(VP(0.1, 4.0), lambda f, g2, s: (f - g2 / 2 * s, 0.0))


@wrong("flow likelihood: prior N(0, I) of a VE process", "prior", "N(0, I)", "std(T)", "prior_std", slow=True)
def _():
    return flow_of(VE(0.01, 3.0), lambda f, g2, s: (f - g2 / 2 * s, -0.5), prior_std=1.0)


@wrong("flow likelihood: plus ½ g² s", *SIGN, slow=True)
def _():
    return flow_of(VP(0.1, 4.0), lambda f, g2, s: (f + g2 / 2 * s, 0.5))


# --- check_gradient, check_loss_gradient, check_training_step ------------------------------------------------------

X = normal(101, 6, 3)
Y = normal(102, 6, 3)


def linear_parts(p):
    """The residual of x W + b for the flat vector of W (3, 3) and b (3,)."""
    return X @ p[:9].reshape(3, 3) + p[9:] - Y


def gradient_of(gradient):
    def loss(p):
        return (linear_parts(np.asarray(p)) ** 2).sum(axis=1).mean()

    return c.check_gradient(loss, gradient, normal(103, 12), np.eye(12))


def by_hand(p, factor=2 / 6):
    r = linear_parts(p)
    return factor * (X.T @ r), factor * r.sum(axis=0)


@wrong("gradient: factor 2 of the square lost", *HALF)
def _():
    return gradient_of(lambda p: np.concatenate([g.ravel() for g in by_hand(p, 1 / 6)]))


@wrong("gradient: sum over the batch, loss is a mean", "times N", "1/N", "N times", "mean", "sum", "batch", "times")
def _():
    return gradient_of(lambda p: np.concatenate([g.ravel() for g in by_hand(p, 2.0)]))


@wrong("gradient: of W transposed", "transpos", "order", "exchanged")
def _():
    return gradient_of(lambda p: np.concatenate([g.T.ravel() for g in by_hand(p)]))


@wrong("gradient: bias has none", "is 0", "zero", "from 0", "zero", "bias", *MISSING)
def _():
    return gradient_of(lambda p: np.append(by_hand(p)[0].ravel(), np.zeros(3)))


@wrong("gradient: descent direction, −∇", *SIGN)
def _():
    return gradient_of(lambda p: -np.concatenate([g.ravel() for g in by_hand(p)]))


@wrong(
    "gradient: the bias sums over the batch, the weights average",
    "times N",
    "1/N",
    "N times",
    "mean",
    "sum",
    "batch",
    "bias",
    "parameter",
)
def _():
    return gradient_of(lambda p: np.append(by_hand(p)[0].ravel(), by_hand(p, 2.0)[1]))


def loss_gradient_of(pair):
    noise = normal(111, 5, 3)

    def losses(e):
        return (noise**2).sum(axis=1) - 2 * (noise * e).sum(axis=1) + (np.asarray(e) ** 2).sum(axis=1)

    return c.check_loss_gradient(lambda e: pair(e, noise), losses, normal(112, 5, 3))


@wrong("loss gradient: ε − ε̂, the sign of the target", *SIGN)
def _():
    return loss_gradient_of(lambda e, n: (square(e - n), 2 * (n - e)))


@wrong("loss gradient: without the 2", *HALF)
def _():
    return loss_gradient_of(lambda e, n: (square(e - n), e - n))


@wrong("loss gradient: of the mean over the batch", "times N", "1/N", "N times", "mean", "batch", "divided", "average")
def _():
    return loss_gradient_of(lambda e, n: (square(e - n), 2 * (e - n) / len(e)))


@wrong("loss gradient: loss mean over D, gradient of the sum", *MEAN, "over D", "times D", "D times", "dimension")
def _():
    return loss_gradient_of(lambda e, n: (square(e - n) / 3, 2 * (e - n)))


def training_step_of(result, weight):
    def losses(p):
        return (linear_parts(np.asarray(p)) ** 2).sum(axis=1)

    def grad(p, w):
        r = linear_parts(p) * np.reshape(w, (-1, 1))
        return np.concatenate([(2 * X.T @ r / 6).ravel(), 2 * r.sum(axis=0) / 6])

    p0 = np.random.default_rng(121).uniform(0.3, 1.5, 12)
    return c.check_training_step(lambda p: result(losses(p), lambda w: grad(p, w)), losses, p0, weight)


STEP_WEIGHT = np.array([0.2, 1.7, 0.6, 3.0, 1.1, 0.4])


@wrong("training step: weights not in the gradient", "weight", "λ_t")
def _():
    return training_step_of(lambda v, g: (v, g(np.ones(6))), STEP_WEIGHT)


@wrong("training step: sum over the batch", "sum", "mean", "times N", "1/N", "N times", "batch")
def _():
    return training_step_of(lambda v, g: (v, 6 * g(STEP_WEIGHT)), STEP_WEIGHT)


@wrong(
    "training step: weighted mean divided by Σw",
    "normal",
    "weight",
    "divided",
    "Σ weight",
    "sum of the weights",
    "times",
)
def _():
    return training_step_of(lambda v, g: (v, g(STEP_WEIGHT) * 6 / STEP_WEIGHT.sum()), STEP_WEIGHT)


@wrong("training step: weights inside the square", *SQUARE, "weight")
def _():
    return training_step_of(lambda v, g: (v, g(STEP_WEIGHT**2)), STEP_WEIGHT)


@wrong("training step: gradients clipped to norm 1", "clip", "norm", "length", "times", "factor")
def _():
    return training_step_of(lambda v, g: (v, g(1.0) / max(1.0, np.linalg.norm(g(1.0)))), 1.0)


# --- check_adam, check_learning_rate, check_moving_average, check_training -----------------------------------------


def adam(p, gradients, lr, b1=0.9, b2=0.999, eps=1e-8, wd=0.0, kind="right"):
    p, m, v, out = np.array(p, dtype=float), 0.0, 0.0, []
    for k, g in enumerate(gradients, 1):
        g = np.asarray(g, dtype=float)
        if kind == "L2":
            g = g + wd * p
        m = b1 * m + (1 - b1) * g if kind != "decays exchanged" else b2 * m + (1 - b2) * g
        if kind == "abs":
            v = b2 * v + (1 - b2) * abs(g)
        elif kind == "decays exchanged":
            v = b1 * v + (1 - b1) * g**2
        else:
            v = b2 * v + (1 - b2) * g**2
        n = k + 1 if kind == "late" else k
        mh, vh = m / (1 - b1**n), v / (1 - b2**n)
        if kind == "uncorrected":
            mh, vh = m, v
        if kind == "first only":
            vh = v
        if kind == "inside":
            change = mh / np.sqrt(vh + eps)
        elif kind == "before":
            change = mh * np.sqrt(1 - b2**k) / (np.sqrt(v) + eps)
        elif kind == "no root":
            change = mh / (vh + eps)
        else:
            change = mh / (np.sqrt(vh) + eps)
        if kind == "decay without rate":
            p = p - lr * change - wd * p
        elif kind == "L2":
            p = p - lr * change
        else:
            p = p - lr * (change + wd * p)
        out.append(p.copy())
    return np.array(out)


def adam_of(kind, lr=1e-2, eps=1e-8, wd=0.0, n=12):
    return c.check_adam(
        lambda p, g: adam(p, g, lr, eps=eps, wd=wd, kind=kind),
        normal(131, 5),
        normal(132, n, 5),
        lr,
        0.9,
        0.999,
        eps,
        wd,
    )


@wrong("adam: no bias correction", "bias correction", "1 − β", "corrected", *MISSING)
def _():
    return adam_of("uncorrected")


@wrong("adam: second moment not corrected", "second moment", "bias correction", "β_2", "v̂", "corrected")
def _():
    return adam_of("first only")


@wrong("adam: bias correction counts from 2", "bias correction", "t + 1", "off by one", "one step", "from 0", "late")
def _():
    return adam_of("late")


@wrong("adam: decays exchanged", "exchanged", "swapped", "interchanged")
def _():
    return adam_of("decays exchanged")


@wrong("adam: ε inside the root", "inside", "ε", "root")
def _():
    return adam_of("inside", eps=1e-3)


@wrong("adam: ε̂ of the paper's last note, not scaled by the correction", "ε", "bias correction", "before")
def _():
    return adam_of("before", eps=1e-3)


@wrong("adam: no root", *SQUARE)
def _():
    return adam_of("no root")


@wrong("adam: |g| in the second moment", "absolute", "|g|", *SQUARE)
def _():
    return adam_of("abs")


@wrong("adam: weight decay in the gradient, L2", "L2", "gradient", "coupled", "AdamW", "decoupled")
def _():
    return adam_of("L2", wd=0.1)


@wrong("adam: weight decay without the learning rate", "learning rate", "weight decay", "decay")
def _():
    return adam_of("decay without rate", wd=0.05)


def rate_of(formula, n=40, lr=3e-4, warmup=8):
    return c.check_learning_rate(lambda k: formula(k, n, lr, warmup), n, lr, warmup)


def cosine(k, n, lr, w):
    return lr * (k + 1) / w if k < w else lr / 2 * (1 + np.cos(np.pi * (k - w) / (n - w)))


@wrong(
    "learning rate: step/warmup, the first is 0",
    "step + 1",
    "first",
    "is 0",
    "zero",
    "from 0",
    "warm",
    "off by one",
    "one step",
)
def _():
    return rate_of(lambda k, n, lr, w: lr * k / w if k < w else cosine(k, n, lr, w))


@wrong("learning rate: cosine over all n_steps", "warmup", "n_steps", "warm-up", "after", "start")
def _():
    return rate_of(lambda k, n, lr, w: cosine(k, n, lr, w) if k < w else lr / 2 * (1 + np.cos(np.pi * k / n)))


@wrong("learning rate: falls on a straight line", "linear", "straight", "cosine", "line")
def _():
    return rate_of(lambda k, n, lr, w: cosine(k, n, lr, w) if k < w else lr * (n - k) / (n - w))


@wrong("learning rate: quarter of a cosine", "quarter", "half", "cos", "π/2", "½")
def _():
    return rate_of(lambda k, n, lr, w: cosine(k, n, lr, w) if k < w else lr * np.cos(np.pi / 2 * (k - w) / (n - w)))


@wrong("learning rate: 1 + cos without ½", *HALF)
def _():
    return rate_of(lambda k, n, lr, w: cosine(k, n, lr, w) if k < w else 2 * cosine(k, n, lr, w), warmup=3)


@wrong("learning rate: no warm-up", "warm", *MISSING)
def _():
    return rate_of(lambda k, n, lr, w: lr / 2 * (1 + np.cos(np.pi * k / n)), lr=1e-3, warmup=10)


@wrong("learning rate: 0 at the last step, n_steps − 1", "n_steps − 1", "last", "off by one", "end", "one step")
def _():
    return rate_of(
        lambda k, n, lr, w: cosine(k, n, lr, w) if k < w else lr / 2 * (1 + np.cos(np.pi * (k - w) / (n - 1 - w)))
    )


def ema(start, parameters, decays, late=False):
    out, a = [], np.array(start, dtype=float)
    for k, p in enumerate(parameters, 1):
        d = decays(k)
        a = d * a + (1 - d) * (parameters[k - 2] if late and k > 1 else start if late else p)
        out.append(a.copy())
    return np.array(out)


def warm(d):
    return lambda k: min(d, (1 + k) / (10 + k))


def average_of(run, decay=0.95):
    return c.check_moving_average(run, normal(141, 4), normal(142, 30, 4), decay)


@wrong("EMA: decay and 1 − decay exchanged", "1 − decay", "exchanged", "swapped", "complement", "interchanged")
def _():
    return average_of(lambda s, p: ema(s, p, lambda k: 1 - warm(0.95)(k)))


@wrong("EMA: constant decay", "warm", "constant", "(1 + k)/(10 + k)", "min", "same decay")
def _():
    return average_of(lambda s, p: ema(s, p, lambda k: 0.95))


@wrong("EMA: k counts from 0", "k − 1", "from 0", "off by one", "one step", "counts")
def _():
    return average_of(lambda s, p: ema(s, p, lambda k: warm(0.95)(k - 1)), 0.9)


@wrong("EMA: starts at 0, not at the parameters", "start", "is 0", "zero", "from 0", "initial", "zero")
def _():
    return average_of(lambda s, p: ema(np.zeros(4), p, warm(0.95)))


@wrong(
    "EMA: averages the parameters before the step", "before", "previous", "one step", "late", "off by one", "shifted"
)
def _():
    return average_of(lambda s, p: ema(s, p, warm(0.95), late=True))


@wrong("EMA: max for min of the decays", "max", "min")
def _():
    return average_of(lambda s, p: ema(s, p, lambda k: max(0.8, (1 + k) / (10 + k))), 0.8)


BATCHES = np.random.default_rng(151).standard_normal((6, 4))


def train_loss(p, n):
    r = np.asarray(p) - BATCHES[n]
    return float((r**2).sum() + 0.1 * (np.asarray(p)[0] * np.asarray(p)[1]) ** 2)


def train_gradient(p, n):
    g = 2 * (p - BATCHES[n])
    g[0] += 0.2 * p[0] * p[1] ** 2
    g[1] += 0.2 * p[1] * p[0] ** 2
    return g


def training_of(kind, wd=0.0, decay=None, warmup=2, lr=0.05):
    n_steps = len(BATCHES)

    def train(start):
        p = np.array(start, dtype=float)
        m, v, last, average, losses = 0.0, 0.0, 0.0, p.copy(), []
        for k in range(n_steps):
            batch = max(k - 1, 0) if kind == "batch before" else k
            rate = cosine(k, n_steps, lr, warmup)
            if kind == "warm-up from 0" and k < warmup:
                rate = lr * k / warmup
            if kind == "constant rate":
                rate = lr
            if kind != "loss after":
                losses.append(train_loss(p, batch))
            g = train_gradient(p, batch)
            if kind == "accumulated":
                g = g + last
            if kind == "L2":
                g = g + wd * p
            last = g
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            step = (m / (1 - 0.9 ** (k + 1))) / (np.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
            before = p.copy()
            p = p - rate * (step + (0 if kind == "L2" else wd * p))
            if kind == "sgd":
                p = before - rate * g
            if kind == "loss after":
                losses.append(train_loss(p, batch))
            if decay is not None:
                d = decay if kind == "constant decay" else min(decay, (2 + k) / (11 + k))
                average = d * average + (1 - d) * (before if kind == "EMA before the step" else p)
        return np.array(losses), p, average

    return c.check_training(train, train_loss, normal(152, 4) + 2, n_steps, lr, warmup, wd, decay)


@wrong("training: batch before", "batch", "previous", "before", "off by one", "one step")
def _():
    return training_of("batch before")


@wrong("training: warm-up from 0", "warm", "first", "step + 1", "off by one")
def _():
    return training_of("warm-up from 0")


@wrong("training: learning rate constant", "constant", "cosine", "learning rate", "warm", "schedule")
def _():
    return training_of("constant rate")


@wrong("training: loss of a step measured after it", "after", "before", "one step", "late", "updated")
def _():
    return training_of("loss after")


@wrong("training: gradients accumulate, no zero_grad", "accumul", "added up", "zero_grad", "sum", "gradients", "reset")
def _():
    return training_of("accumulated")


@wrong("training: L2 for AdamW", "L2", "decay", "coupled", "gradient")
def _():
    return training_of("L2", wd=0.1)


@wrong("training: EMA of the parameters before the step", "before", "average", "one step", "EMA", "previous")
def _():
    return training_of("EMA before the step", decay=0.9)


@wrong("training: EMA of constant decay", "decay", "constant", "warm", "(1 + k)/(10 + k)")
def _():
    return training_of("constant decay", decay=0.99)


@wrong("training: plain gradient steps", "Adam", "SGD", "gradient descent", "plain", "moment")
def _():
    return training_of("sgd")


# --- check_mlp, check_jvp, check_activation ------------------------------------------------------------------------

LAYERS = [
    (normal(161, 4, 4) * 0.6, normal(162, 4) * 0.3),
    (normal(163, 4, 4) * 0.6, normal(164, 4) * 0.3),
    (normal(165, 4, 2) * 0.6, normal(166, 2) * 0.3),
]


def sigmoid(z):
    return 0.5 * (1 + np.tanh(z / 2))


def silu(z):
    return z * sigmoid(z)


def forward(x, act=silu, last=None, use=lambda W, b, y, i: y @ W + b, residual=False):
    y = np.asarray(x)
    for i, (W, b) in enumerate(LAYERS):
        z = use(W, b, y, i)
        y = act(z) + (y if residual else 0) if i < len(LAYERS) - 1 else z
    return last(y) if last else y


def mlp_of(call, activation="silu"):
    return c.check_mlp(call, LAYERS, normal(167, 7, 4), activation)


@wrong("mlp: activation after the last layer too", "last layer", "output", "activation", "last")
def _():
    return mlp_of(lambda x: forward(x, last=silu))


@wrong("mlp: hidden weights transposed", "transpos")
def _():
    return mlp_of(lambda x: forward(x, use=lambda W, b, y, i: y @ (W.T if i < 2 else W) + b))


@wrong("mlp: biases left out", "bias", *MISSING)
def _():
    return mlp_of(lambda x: forward(x, use=lambda W, b, y, i: y @ W))


@wrong("mlp: bias after the activation", "bias", "after", "order")
def _():
    def call(x):
        y = np.asarray(x)
        for i, (W, b) in enumerate(LAYERS):
            y = (silu(y @ W) if i < 2 else y @ W) + b
        return y

    return mlp_of(call)


@wrong("mlp: relu for silu", "relu", "ReLU", "activation")
def _():
    return mlp_of(lambda x: forward(x, act=lambda z: np.maximum(z, 0)))


@wrong("mlp: quick GELU for SiLU", "1.702", "GELU", "gelu", "activation")
def _():
    return mlp_of(lambda x: forward(x, act=lambda z: z * sigmoid(1.702 * z)))


@wrong("mlp: sigmoid for tanh", "sigmoid", "activation", "logistic")
def _():
    return mlp_of(lambda x: forward(x, act=sigmoid), "tanh")


@wrong("mlp: residual connections", "residual", "input", "skip", "added")
def _():
    return mlp_of(lambda x: forward(x, residual=True))


@wrong("mlp: the two hidden layers exchanged", "order", "exchanged", "swapped", "reversed", "layer")
def _():
    swapped = [LAYERS[1], LAYERS[0], LAYERS[2]]
    return mlp_of(lambda x: forward(x, use=lambda W, b, y, i: y @ swapped[i][0] + swapped[i][1]))


def silu_slope(z):
    s = sigmoid(z)
    return s + z * s * (1 - s)


def tangent(x, d, slope=silu_slope, weight=lambda W: W, bias=False):
    y, v = np.asarray(x), np.asarray(d)
    for i, (W, b) in enumerate(LAYERS):
        z, v = y @ W + b, v @ (weight(W) if i < 2 else W) + (b if bias else 0)
        if i < 2:
            y, v = silu(z), v * slope(z)
    return z, v


def jvp_of(derivative):
    return c.check_jvp(lambda x, d: (forward(x), derivative(x, d)), forward, normal(168, 5, 4), normal(169, 5, 4))


@wrong("jvp: weights transposed as in a backward pass", "transpos")
def _():
    return jvp_of(lambda x, d: tangent(x, d, weight=np.transpose)[1])


@wrong("jvp: slope of the activation forgotten", "slope", "activation", "linear", "derivative", *MISSING)
def _():
    return jvp_of(lambda x, d: tangent(x, d, slope=np.ones_like)[1])


@wrong("jvp: biases added to the tangent", "bias", "constant", "offset", "added")
def _():
    return jvp_of(lambda x, d: tangent(x, d, bias=True)[1])


@wrong("jvp: one-sided difference with a step of 1e-3", "difference", "one-sided", "step", "finite", "digits", "error")
def _():
    return jvp_of(lambda x, d: (forward(np.asarray(x) + 1e-3 * d) - forward(x)) / 1e-3)


@wrong("jvp: direction normalised to length 1", "length", "norm", "unit length", "unit", "scaled")
def _():
    return jvp_of(lambda x, d: tangent(x, d / np.linalg.norm(d, axis=1, keepdims=True))[1])


def activation_of(slope, value=silu):
    z = np.concatenate([normal(170, 20) * 3, [-40.0, 0.0, 40.0]])
    return c.check_activation(value, lambda z: (value(z), slope(z)), z)


@wrong("activation: slope s(1 − s) of the sigmoid", "sigmoid", "s(1 − s)", "s (1 − s)", *MISSING)
def _():
    return activation_of(lambda z: sigmoid(z) * (1 - sigmoid(z)))


@wrong("activation: slope s + z s, without 1 − s", "1 − s", *MISSING)
def _():
    return activation_of(lambda z: sigmoid(z) * (1 + z))


@wrong("activation: slope with minus z s (1 − s)", *SIGN)
def _():
    return activation_of(lambda z: sigmoid(z) - z * sigmoid(z) * (1 - sigmoid(z)))


@wrong("activation: y + s(1 − y) with the argument for the value y", "argument", "value", "s = ", "its argument")
def _():
    return activation_of(lambda z: z + sigmoid(z) * (1 - z))


@wrong("activation: tanh-based GELU for SiLU", "GELU", "gelu", "activation")
def _():
    def gelu(z):
        return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

    def slope(z):
        u = np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))
        return 0.5 * (1 + u) + 0.5 * z * (1 - u**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)

    return activation_of(slope, gelu)


# --- check_noise_network -------------------------------------------------------------------------------------------

N_TIME = 4
IN = 2 + 2 * N_TIME + 3
MIX = normal(181, IN, 2) * 0.4


def net(u):
    return np.tanh(np.asarray(u) @ MIX) + 0.2 * np.sin(np.asarray(u) @ np.roll(MIX, 1, axis=0))


LABELS = np.array([0, 2, -1, 1, 1, -1])
INDICATORS = (LABELS[:, None] == np.arange(3)).astype(float)


def waves(log_snr, order="cos"):
    freq = 0.125 * 16.0 ** (np.arange(N_TIME) / (N_TIME - 1))
    a = log_snr[:, None] * freq
    return np.concatenate([np.cos(a), np.sin(a)] if order == "cos" else [np.sin(a), np.cos(a)], axis=1)


def network_of(
    clock=lambda s, d: 2 * np.log(s / d),
    order="cos",
    entry=None,
    label=INDICATORS,
    skip=None,
    gain=None,
    edm=False,
):
    if edm:
        scale, std = np.ones(6), np.array([0.02, 0.4, 1.3, 5.0, 20.0, 0.1])
    else:
        angle = np.array([0.2, 0.5, 0.8, 1.1, 1.4, 0.35])
        scale, std = np.cos(angle), np.sin(angle)

    def eps_hat(x, s, d):
        s, d = np.broadcast_to(s, (len(x),)).astype(float), np.broadcast_to(d, (len(x),)).astype(float)
        r = np.hypot(s, d)
        y = x * (entry(s, d) if entry else 1 / r)[:, None]
        lab = label if len(label) == len(x) else label[: len(x)]
        F = net(np.concatenate([y, waves(clock(s, d), order), lab], axis=1))
        k = skip(s, d) if skip else d / r**2
        m = gain(s, d) if gain else s / r
        return k[:, None] * x + m[:, None] * F

    return c.check_noise_network(eps_hat, net, normal(182, 6, 2), scale, std, N_TIME, INDICATORS)


@wrong("noise network: log(scale/std) for the log-SNR", *HALF, *SQUARE)
def _():
    return network_of(lambda s, d: np.log(s / d))


@wrong("noise network: sin before cos", "sin", "cos", "order", "exchanged", "swapped")
def _():
    return network_of(order="sin")


@wrong("noise network: −log-SNR, as some VDM codes", *SIGN)
def _():
    return network_of(lambda s, d: 2 * np.log(d / s))


@wrong("noise network: c_noise = ¼ log σ of EDM", "log σ", "¼", "c_noise", "log-SNR", "std", "log std")
def _():
    return network_of(lambda s, d: np.log(d) / 4, edm=True)


@wrong("noise network: x not divided by r, EDM levels", "x/r", "by r", "divided", "x/r", "scale", *MISSING)
def _():
    return network_of(entry=lambda s, d: np.ones_like(s), edm=True)


@wrong("noise network: x without a label gets that of class 0", "label", "class", "indicator")
def _():
    return network_of(label=np.where(LABELS[:, None] < 0, np.eye(3)[:1], INDICATORS))


@wrong("noise network: label indicators of the next class", "label", "class", "shifted", "indicator", "off by one")
def _():
    return network_of(label=np.roll(INDICATORS, 1, axis=1))


@wrong("noise network: labels all dropped", "label", "indicator", "is 0", "zero", "from 0", *MISSING)
def _():
    return network_of(label=np.zeros((6, 3)))


@wrong("noise network: skip is std, not std/r²", "r²", "skip", "divided", "normal", *SQUARE)
def _():
    return network_of(skip=lambda s, d: d, edm=True)


@wrong("noise network: gain and skip exchanged", "exchanged", "swapped", "interchanged", "gain", "skip")
def _():
    return network_of(skip=lambda s, d: s, gain=lambda s, d: d)


@wrong("noise network: gain has the wrong sign, v = β̄ x_0 − ᾱ ε", *SIGN)
def _():
    return network_of(gain=lambda s, d: -s / np.hypot(s, d))


@wrong("noise network: gain 1, the MLP taken for ε̂", "gain", "ᾱ_t", "scale", "gain F", *MISSING)
def _():
    return network_of(gain=lambda s, d: np.ones_like(s))


# --- check_categorical_denoiser and check_categorical_draw ---------------------------------------------------------

N_LEVELS, DIM, N_CAT_TIME = 5, 3, 3
LEVELS = np.linspace(-1, 1, N_LEVELS)
HIST = np.random.default_rng(191).dirichlet(np.ones(N_LEVELS) * 2, DIM)
_G = normal(192, DIM, DIM)
COV = 0.2 * (_G @ _G.T / DIM + 0.2 * np.eye(DIM))
CAT_IN = 3 * DIM + 2 * N_CAT_TIME + 2
CAT_MIX = normal(193, CAT_IN, 4 * DIM) * 0.3


def cat_net(u):
    return 0.8 * np.tanh(np.asarray(u) @ CAT_MIX)


def soft(v):
    w = np.exp(v - v.max(axis=-1, keepdims=True))
    return w / w.sum(axis=-1, keepdims=True)


def categorical_of(own=None, eps=None, wiener=None, basis=None, centre=True, order=False):
    angle = np.array([0.3, 0.7, 1.1, 1.3])
    scale, std = np.cos(angle), np.sin(angle)
    x = normal(194, 4, DIM)
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    mean = HIST @ LEVELS
    s, d = scale[:, None], std[:, None]
    default = np.log(HIST) - (x[:, :, None] - scale[:, None, None] * LEVELS) ** 2 / (2 * std[:, None, None] ** 2)
    logits = own(x, scale[:, None, None], std[:, None, None]) if own else default
    centred = x - s * (mean if centre else 0)
    matrix = wiener or (lambda s, d: s * np.linalg.solve(s**2 * COV + d**2 * np.eye(DIM), COV).T)
    linear = np.array([centred[i] @ matrix(scale[i], std[i]).T for i in range(4)])
    freq = 0.125 * 16.0 ** (np.arange(N_CAT_TIME) / (N_CAT_TIME - 1))
    a = 2 * np.log(scale / std)[:, None] * freq
    u = np.concatenate(
        [centred / np.hypot(s, d), soft(logits) @ LEVELS - mean, linear, np.cos(a), np.sin(a), labels], axis=1
    )
    B = basis if basis is not None else np.stack([np.eye(N_LEVELS)[0], np.eye(N_LEVELS)[-1], LEVELS, LEVELS**2])
    F = cat_net(u)
    F = F.reshape(4, 4, DIM).swapaxes(1, 2) if order else F.reshape(4, DIM, 4)
    law = soft(logits + F @ B)
    e = (eps or (lambda x, s, d, m: (x - s * m) / d))(x, s, d, law @ LEVELS)
    return c.check_categorical_denoiser(lambda: law, lambda: e, cat_net, x, scale, std, HIST, COV, N_CAT_TIME, labels)


@wrong("categorical denoiser: std for std² in the likelihood", *SQUARE)
def _():
    return categorical_of(lambda x, s, d: np.log(HIST) - (x[:, :, None] - s * LEVELS) ** 2 / (2 * d))


@wrong("categorical denoiser: no ½ in the likelihood", *HALF)
def _():
    return categorical_of(lambda x, s, d: np.log(HIST) - (x[:, :, None] - s * LEVELS) ** 2 / d**2)


@wrong("categorical denoiser: histograms not used", "histogram", "prior", "uniform", *MISSING)
def _():
    return categorical_of(lambda x, s, d: -((x[:, :, None] - s * LEVELS) ** 2) / (2 * d**2) + 0 * HIST)


@wrong("categorical denoiser: histograms added, not their logarithm", "log", "histogram")
def _():
    return categorical_of(lambda x, s, d: HIST - (x[:, :, None] - s * LEVELS) ** 2 / (2 * d**2))


@wrong("categorical denoiser: x_t not scaled, levels unscaled", "scale", "levels", "ᾱ_t", *MISSING)
def _():
    return categorical_of(lambda x, s, d: np.log(HIST) - (x[:, :, None] - LEVELS) ** 2 / (2 * d**2))


@wrong("categorical denoiser: ε̂ = (x_t − x̂_0)/std", "scale", "x̂_0", "ᾱ_t", *MISSING)
def _():
    return categorical_of(eps=lambda x, s, d, m: (x - m) / d)


@wrong("categorical denoiser: ε̂ divided by std²", *SQUARE, "std")
def _():
    return categorical_of(eps=lambda x, s, d, m: (x - s * m) / d**2)


@wrong("categorical denoiser: linear denoiser without the noise std²", "noise", "std²", "covariance", *MISSING)
def _():
    return categorical_of(wiener=lambda s, d: np.eye(DIM) / s)


@wrong("categorical denoiser: factors ordered by kind, not by dimension", "order", "transpos", "reshape", "dimension")
def _():
    return categorical_of(order=True)


@wrong("categorical denoiser: first and last level exchanged", "exchanged", "swapped", "first", "last")
def _():
    unit = np.eye(N_LEVELS)
    return categorical_of(basis=np.stack([unit[-1], unit[0], LEVELS, LEVELS**2]))


def draw_of(draw):
    law = np.random.default_rng(201).dirichlet(np.ones(4), (3, 2))
    return c.check_categorical_draw(lambda u: draw(np.asarray(u), law), law)


@wrong("categorical draw: one number for a whole row", "own", "same", "first", "shared", "entry", "uniform")
def _():
    return draw_of(lambda u, p: (u[:, :1, None] > p.cumsum(axis=2)[:, :, :-1]).sum(axis=2))


@wrong("categorical draw: levels 1..n", "from 1", "shifted", "off by one", "one-based", "from 1")
def _():
    return draw_of(lambda u, p: (u[:, :, None] > p.cumsum(axis=2)[:, :, :-1]).sum(axis=2) + 1)


@wrong("categorical draw: most likely level", "argmax", "most likely", "mode", "random", "depend")
def _():
    return draw_of(lambda u, p: p.argmax(axis=2) + 0 * u.astype(int))


@wrong("categorical draw: mean level rounded", "mean", "round", "expected", "average", "depend", "random")
def _():
    return draw_of(lambda u, p: np.rint(p @ np.arange(4)).astype(int) + 0 * u.astype(int))


@wrong("categorical draw: levels equally likely", "uniform", "equal", "law", "same")
def _():
    return draw_of(lambda u, p: np.floor(4 * u).astype(int))


@wrong(
    "categorical draw: sum that starts before the level", "before", "shifted", "off by one", "cumulative", "exclusive"
)
def _():
    return draw_of(lambda u, p: (u[:, :, None] > (p.cumsum(axis=2) - p)[:, :, 1:-1]).sum(axis=2))
