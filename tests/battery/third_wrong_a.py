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
MEAN = ("mean", "divided by D", "1/D", "average")
MISSING = ("missing", "omitted", "left out", "without", "lacks", "forgotten", "dropped", "no ")

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


@wrong("schedule: β̃ is √β, the other choice of Ho", "β_t in place of β̃", "not β̃", "β_t, ", "one step", "β_t for β̃")
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


@wrong("q_step: uses the tables of q_sample", "ᾱ", "cumulative", "β̄", "x_0", "product")
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


@wrong("q_sample: EDM's x_0 + σ ε", "σ", "EDM", "divided by ᾱ", "x_t/ᾱ", "exploding", "scale", "β̄/ᾱ")
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


@wrong("predict_x0: formula of a v-prediction", "v-prediction", "v ", "v,", "velocity", "ᾱ_t x_t", "multipl")
def _():
    return x0_of(CONSTANT, lambda h, t, x, e: np.sqrt(h.ab[t]) * x - np.sqrt(1 - h.ab[t]) * e)


@wrong("predict_x0: only the noise divided by ᾱ", "x_t", "divided", "bracket", "parenthes", *MISSING)
def _():
    return x0_of(ONE, lambda h, t, x, e: x - np.sqrt(1 / h.ab[t] - 1) * e)


@wrong("predict_x0: not divided by ᾱ, EDM's x − σ ε", "ᾱ", "divided", "σ", "scale", *MISSING)
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


@wrong("posterior: ᾱ_t for ᾱ_{t−1} in the weight of x_0", "ᾱ_t", "ᾱ", "weight of x_0", "factor of x_0", *LATER)
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


@wrong("posterior: fraction of the variance upside down", "inverse", "upside", "exchanged", "swapped", "recipro", "β̄")
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


@wrong("p_step: no noise at t = 1", "t = 1", "last step", "step 1", "Ho")
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


@wrong("p_step: β̃ for σ = β", "β̃", "posterior", "variance", "σ")
def _():
    return step_of(LINEAR, lambda h, s, t, x, e, z: mu(h, t, x, e) + np.sqrt(h.post[t]) * z)


@wrong("p_step: exp(½ σ²), a variance read as its logarithm", "exp", "log")
def _():
    return step_of(TEN, lambda h, s, t, x, e, z: mu(h, t, x, e) + np.exp(0.5 * s[t]) * z)


@wrong("p_step: √ᾱ for √α in front", "ᾱ", "cumulative", "product")
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


@wrong("ddim: η ignored, η = 0.7", "η", "eta", "deterministic", "0")
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


@wrong("ddim: always steps to t − 1, η = 0", "t − 1", "t - 1", "s", "skip", "one step")
def _():
    return ddim_of(TEN, lambda h, t, s, x, e, z, x0, g: ddim_right(h, t - 1, e, z, x0, 0.0), 0.0)


@wrong("ddim: signal ᾱ_s without the root, η = 0", "ᾱ_s²", "ᾱ²", *SQUARE)
def _():
    return ddim_of(COSINE, lambda h, t, s, x, e, z, x0, g: h.ab[s] * x0 + np.sqrt(1 - h.ab[s]) * e, 0.0)


@wrong("ddim: σ is η β_t, the variance of the forward step, η = 1", "β̃", "β_t", "σ", "forward")
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


@wrong("sampler: no noise in the last step", "last", "t = 1", "step 1", "Ho")
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


@wrong("predicted noise: x_0 not divided by β̄", "β̄", "divided", "std", *MISSING)
def _():
    return noise_of(RANDOM, "x0", lambda h, t, x, o: x - np.sqrt(h.ab[t]) * o)


@wrong("predicted noise: step noise times β/β̄", "inverse", "multipl", "divided", "recipro", "β̄")
def _():
    return noise_of(CONSTANT, "step", lambda h, t, x, o: o * np.sqrt(h.b[t] / (1 - h.ab[t])))


@wrong("predicted noise: x̂_0 clipped to [0, 1]", "clip", "[0, 1]", "clamp")
def _():
    return noise_of(TEN, "noise", clip=lambda e, x, s, n: (x - s * np.clip((x - n * e) / s, 0, 1)) / n)


@wrong("predicted noise: ε̂ itself clipped", "clip", "ε̂", "x̂_0", "clamp")
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


@wrong("optimal variance: not divided by D", "D", "mean", "dimension")
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
