"""Fifth battery: wrong implementations with mistakes as they are found in posted code."""

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.special import expit, logsumexp
from scipy.stats import norm

import scratchgen.conformance as kit
from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from tests.battery.case import Wrong

warnings.filterwarnings("ignore", category=RuntimeWarning, module="tests.battery.fifth_wrong")
CASES: list[Wrong] = []
T1 = ("t − 1", "t−1", "t + 1", "t+1", "off by one", "one step", "index", "neighbour", "previous", "next")
ROOT = ("square root", "squared", "square", "root", "√", "variance", "standard deviation")
MEAN = ("mean over", "mean of", "1/D", "divided by D", "averag", "1/N", "1/k")
SIGN = ("sign", "minus", "negative", "opposite")


def wrong(name: str, *words: str, slow: bool = False) -> Callable:
    """Put the function that runs the check among the cases."""

    def put(run: Callable) -> Callable:
        CASES.append(Wrong(name, run, words, slow))
        return run

    return put


def draws(seed: int, *shape: int) -> np.ndarray:
    """Numbers of a standard normal."""
    return np.random.default_rng(seed).standard_normal(shape)


HO = NoiseSchedule(np.linspace(1e-4, 0.02, 1000))
COS = NoiseSchedule.cosine(50)
LIN = NoiseSchedule.linear(20)
TEN = NoiseSchedule.linear(10)
FLAT = NoiseSchedule(np.full(12, 0.1))
RAND = NoiseSchedule(np.random.default_rng(5).uniform(0.02, 0.4, 15))
FROM = NoiseSchedule.from_sde(VP(), 25)


def ho(s: NoiseSchedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Betas, alphas and alphas_cumprod in Ho's convention, from t = 1."""
    betas = s.beta[1:] ** 2
    return betas, 1 - betas, np.cumprod(1 - betas)


def curve(x: np.ndarray, t: int) -> np.ndarray:
    """A noise network that is not linear."""
    return np.tanh(0.7 * x + 0.1) + 0.2 * x + 0.01 * np.asarray(t, float).reshape(-1, 1)


# the chain


@wrong("schedule: 1 − cumsum(betas) for the cumprod", "sum", "product", "first order", "cumprod")
def _():
    bar = np.concatenate([[1.0], 1 - np.cumsum(np.full(8, 0.05))])
    return kit.check_schedule(NoiseSchedule(np.full(8, 0.05)), np.sqrt(bar), np.sqrt(1 - bar))


@wrong("schedule: cumprod of betas", "of β", "product of", "cumprod")
def _():
    bar = np.concatenate([[1.0], np.cumprod(HO.beta[1:] ** 2)])
    return kit.check_schedule(HO, np.sqrt(bar), np.sqrt(1 - bar))


@wrong("forward step: alphas_cumprod[t] for alphas[t]", "ᾱ", "β̄", "total", "cumulative")
def _():
    _, _, bar = ho(RAND)
    return kit.check_forward_step(lambda t, x, e: np.sqrt(bar[t - 1]) * x + np.sqrt(1 - bar[t - 1]) * e, RAND)


@wrong("forward step: betas[t] of a table that starts at t = 1", *T1)
def _():
    betas = np.append(ho(HO)[0], 0.02)
    return kit.check_forward_step(lambda t, x, e: np.sqrt(1 - betas[t]) * x + np.sqrt(betas[t]) * e, HO)


@wrong(
    "forward step: x + √β ε, no shrinking", "without α", "not shrunk", "not scaled", "no factor", "factor of x", "α_t"
)
def _():
    return kit.check_forward_step(lambda t, x, e: x + LIN.beta[t] * e, LIN)


@wrong("forward process: 1 − ᾱ for its root, Ho", *ROOT)
def _():
    _, _, bar = ho(HO)
    return kit.check_forward_process(lambda t, x, e: np.sqrt(bar[t - 1]) * x + (1 - bar[t - 1]) * e, HO)


@wrong("forward process: noise scaled by √ᾱ, signal by √(1 − ᾱ)", "swap", "exchang", "interchang", "of each other")
def _():
    return kit.check_forward_process(lambda t, x, e: COS.beta_bar[t] * x + COS.alpha_bar[t] * e, COS)


@wrong("posterior: ᾱ_t for ᾱ_{t−1} in the coefficient of x_0", *T1, "ᾱ_t in place", "ᾱ")
def _():
    betas, alphas, bar = ho(RAND)
    prev = np.append(1.0, bar[:-1])

    def q(t, x_t, x0):
        i = t - 1
        mean = np.sqrt(bar[i]) * betas[i] / (1 - bar[i]) * x0 + np.sqrt(alphas[i]) * (1 - prev[i]) / (1 - bar[i]) * x_t
        return mean, betas[i] * (1 - prev[i]) / (1 - bar[i])

    return kit.check_posterior(q, RAND)


@wrong("posterior: the root of the variance returned as the variance", *ROOT)
def _():
    s = COS

    def q(t, x_t, x0):
        total = s.beta_bar**2
        mean = (s.alpha[t] * total[t - 1] * x_t + s.alpha_bar[t - 1] * s.beta[t] ** 2 * x0) / total[t]
        return mean, s.beta_tilde[t]

    return kit.check_posterior(q, s)


@wrong("noise merging: the sum of both noises, not divided by β̄_t", "β̄_t", "divid", "length", "unit", "normal")
def _():
    s = RAND
    a = s.alpha[1:] * s.beta_bar[:-1]

    def merge(t, old, new):
        eps = a[t - 1] * old + s.beta[t] * new
        return eps, (s.beta[t] * old - a[t - 1] * new) / s.beta_bar[t]

    return kit.check_noise_merging(merge, lambda t, e, w: (s.beta[t] * e - a[t - 1] * w) / s.beta_bar[t], s)


@wrong("noise merging: the split with the plus sign", *SIGN, "plus")
def _():
    s = TEN
    a = s.alpha[1:] * s.beta_bar[:-1]

    def merge(t, old, new):
        b = s.beta_bar[t]
        return (a[t - 1] * old + s.beta[t] * new) / b, (s.beta[t] * old - a[t - 1] * new) / b

    return kit.check_noise_merging(merge, lambda t, e, w: (s.beta[t] * e + a[t - 1] * w) / s.beta_bar[t], s)


@wrong("predict x0: divided by ᾱ without the root", *ROOT)
def _():
    _, _, bar = ho(FROM)
    return kit.check_predict_x0(lambda t, x, e: (x - np.sqrt(1 - bar[t - 1]) * e) / bar[t - 1], FROM)


@wrong("predict x0: clipped to [−1, 1]", "clip", "clamp")
def _():
    s = TEN
    return kit.check_predict_x0(lambda t, x, e: np.clip((x - s.beta_bar[t] * e) / s.alpha_bar[t], -1, 1), s)


@wrong("ancestral: division by √ᾱ_t in place of √α_t", "ᾱ", "total", "cumulative")
def _():
    s, v = RAND, RAND.beta**2
    return kit.check_ancestral_step(
        lambda t, x, e, z: (x - v[t] / s.beta_bar[t] * e) / s.alpha_bar[t] + s.beta[t] * z, s, v
    )


@wrong("ancestral: betas for √betas as the noise, Ho 1000", *ROOT)
def _():
    betas, alphas, bar = ho(HO)

    def step(t, x, e, z):
        i = t - 1
        return (x - betas[i] / np.sqrt(1 - bar[i]) * e) / np.sqrt(alphas[i]) + betas[i] * z

    return kit.check_ancestral_step(step, HO, HO.beta**2)


@wrong("DDIM step: direction √(1 − ᾱ_s) without − σ²", "σ²", "− σ", "−σ", "direction", "subtract")
def _():
    s = RAND

    def step(t, u, x, e, z):
        sig = 0.7 * s.beta_bar[u] / s.beta_bar[t] * np.sqrt(1 - (s.alpha_bar[t] / s.alpha_bar[u]) ** 2)
        x0 = (x - s.beta_bar[t] * e) / s.alpha_bar[t]
        return s.alpha_bar[u] * x0 + s.beta_bar[u] * e + sig * z

    return kit.check_ddim_step(step, s, 0.7)


@wrong("DDIM step: s always t − 1 although steps are skipped", *T1, "skip", "stride", "s = t")
def _():
    s = TEN

    def step(t, u, x, e, z):
        x0 = (x - s.beta_bar[t] * e) / s.alpha_bar[t]
        return s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * e

    return kit.check_ddim_step(step, s, 0.0)


@wrong("DDIM sampler: the network gets t − 1", *T1, "network", "time")
def _():
    s = TEN

    def sample(x, net, noise):
        for t in range(s.T, 0, -1):
            e = net(x, max(t - 1, 1))
            x = s.alpha_bar[t - 1] * (x - s.beta_bar[t] * e) / s.alpha_bar[t] + s.beta_bar[t - 1] * e
        return x

    return kit.check_ddim_sampler(sample, s, 0.0)


@wrong("DDIM sampler: the last step is left out", "last step", "t = 1", "stops", "first step", "one step")
def _():
    s = FLAT

    def sample(x, net, noise):
        for t in range(s.T, 1, -1):
            e = net(x, t)
            x = s.alpha_bar[t - 1] * (x - s.beta_bar[t] * e) / s.alpha_bar[t] + s.beta_bar[t - 1] * e
        return x

    return kit.check_ddim_sampler(sample, s, 0.0)


@wrong("sampler: x0 clamped to [−1, 1] inside the loop", "clip", "clamp")
def _():
    s, v = TEN, TEN.beta**2

    def sample(x, net, noise):
        for t in range(s.T, 0, -1):
            x0 = np.clip((x - s.beta_bar[t] * net(x, t)) / s.alpha_bar[t], -1, 1)
            b = s.beta_bar**2
            x = (s.alpha[t] * b[t - 1] * x + s.alpha_bar[t - 1] * v[t] * x0) / b[t] + s.beta[t] * noise[s.T - t]
        return x

    return kit.check_sampler(sample, s, 0.3, 0.5, v)


@wrong("sampler: no noise at t = 1, where it is asked for", "last step", "t = 1", "no noise", "without noise")
def _():
    s, v = LIN, LIN.beta**2

    def sample(x, net, noise):
        for t in range(s.T, 0, -1):
            z = noise[s.T - t] if t > 1 else 0
            x = (x - v[t] / s.beta_bar[t] * net(x, t)) / s.alpha[t] + s.beta[t] * z
        return x

    return kit.check_sampler(sample, s, -0.5, 0.8, v)


@wrong("predicted noise: v = ᾱ x_0 − β̄ ε for the other sign", *SIGN, "x_0 and ε", "exchang", "swap")
def _():
    s = RAND
    x = 3 * draws(1, 6, 3)

    def net(x, t, labelled):
        return np.sin(x + 0.3 * labelled) + 0.1 * t

    def one(x, t, labelled, clip):
        v = net(x, t, labelled)
        x0 = s.alpha_bar[t] * x + s.beta_bar[t] * v
        x0 = np.clip(x0, -1, 1) if clip else x0
        return (x - s.alpha_bar[t] * x0) / s.beta_bar[t]

    def predict(x, t, w, clip):
        a = one(x, t, False, clip)
        return a + w * (one(x, t, True, clip) - a)

    return kit.check_predicted_noise(predict, net, s, "v", x)


@wrong("predicted noise: guidance as (1 + w) ε(y) − w ε", "1 + w", "w + 1", "guidance")
def _():
    s = TEN
    x = 2 * draws(2, 5, 2)

    def net(x, t, labelled):
        return np.cos(x + labelled) - 0.02 * t

    def predict(x, t, w, clip):
        e = (1 + w) * net(x, t, True) - w * net(x, t, False)
        if clip:
            x0 = np.clip((x - s.beta_bar[t] * e) / s.alpha_bar[t], -1, 1)
            e = (x - s.alpha_bar[t] * x0) / s.beta_bar[t]
        return e

    return kit.check_predicted_noise(predict, net, s, "noise", x)


@wrong("reverse variance: the clipped table, β̃_2 at t = 1", "t = 2", "clipped", "β̃_2", "first", "t = 1")
def _():
    s = RAND

    def variance(name):
        v = s.beta_tilde**2
        v[1] = v[2]
        return s.beta**2 if name == "beta" else v

    return kit.check_reverse_variance(variance, s)


@wrong(
    "reverse variance: β̃ with (1 − ᾱ_t)/(1 − ᾱ_{t−1}) upside down", "upside", "inverse", "reciprocal", "exchang", "swap"
)
def _():
    s = COS

    def variance(name):
        if name == "beta":
            return s.beta**2
        v = s.beta**2
        v[2:] *= (s.beta_bar[2:] / s.beta_bar[1:-1]) ** 2
        return v

    return kit.check_reverse_variance(variance, s)


def best_variance(s: NoiseSchedule, factor: np.ndarray, D: int) -> Callable:
    """v_t with a given factor of the noise loss and the loss divided by D."""

    def v(loss):
        out = np.zeros(s.T + 1)
        out[1:] = s.beta_tilde[1:] ** 2 + factor[1:] * np.asarray(loss)[1:] / D
        return out

    return v


@wrong("optimal variance: the loss of the posterior mean without 1/α²", "α_t", "1/α", "α²")
def _():
    s = RAND
    f = np.zeros(s.T + 1)
    f[1:] = s.beta[1:] ** 4 / s.beta_bar[1:] ** 2
    return kit.check_optimal_variance(best_variance(s, f, 2), s, np.array([[1.0, 0.3], [0.3, 0.5]]))


@wrong("optimal variance: β̃² left out, only the error of the mean", "β̃", "posterior variance", "without", "left out")
def _():
    s = TEN
    f = np.zeros(s.T + 1)
    f[1:] = s.beta[1:] ** 4 / (s.beta_bar[1:] * s.alpha[1:]) ** 2
    cov = np.diag([1.0, 2.0, 0.4])
    return kit.check_optimal_variance(lambda loss: f * np.asarray(loss) / 3, s, cov)


def step_loss_of(s: NoiseSchedule, sig: float, k: float, const: float) -> Callable:
    """−log p_θ(x_{t−1} | x_t) by its definition, with k of ½ and a constant a dimension."""

    def loss(t, x0, old, new, net):
        prev = s.alpha_bar[t - 1] * x0 + s.beta_bar[t - 1] * old
        x = s.alpha[t] * prev + s.beta[t] * new
        mean = (x - s.beta[t] ** 2 / s.beta_bar[t] * net(x, t)) / s.alpha[t]
        return (k * (prev - mean) ** 2 / sig + const).sum(1)

    return loss


@wrong("step loss: no ½ before the square", "½", "half", "twice", "doubled", "factor 2")
def _():
    bad = step_loss_of(TEN, 0.2, 1.0, 0.5 * np.log(2 * np.pi * 0.2))
    return kit.check_step_loss(bad, TEN, 6, curve, 0.2, 0.9, 0.2)


@wrong("step loss: log σ without 2π", "2π", "log 2", "constant")
def _():
    bad = step_loss_of(RAND, 0.15, 0.5, 0.5 * np.log(0.15))
    return kit.check_step_loss(bad, RAND, 9, curve, -0.4, 1.1, 0.15)


# bounds, chains, draws, losses


def gauss_kl(m: np.ndarray, v: float, n: np.ndarray, w: float) -> np.ndarray:
    """KL of two Gaussians a coordinate."""
    return 0.5 * (np.log(w / v) + (v + (m - n) ** 2) / w - 1)


def terms(s: NoiseSchedule, sig: np.ndarray, **change: Callable) -> tuple[Callable, Callable, Callable]:
    """L_T, L_{t−1} and L_0 by their definitions; a change replaces one of them."""

    def p_mean(t, x, net):
        return (x - s.beta[t] ** 2 / s.beta_bar[t] * net(x, t)) / s.alpha[t]

    def prior(x0):
        return gauss_kl(s.alpha_bar[-1] * x0, s.beta_bar[-1] ** 2, 0.0, 1.0).sum(1)

    def step(t, x0, x, net):
        b = s.beta_bar**2
        mean = (s.alpha[t] * b[t - 1] * x + s.alpha_bar[t - 1] * s.beta[t] ** 2 * x0) / b[t]
        return gauss_kl(mean, s.beta_tilde[t] ** 2, p_mean(t, x, net), sig[t]).sum(1)

    def last(x0, x, net):
        return (0.5 * (x0 - p_mean(1, x, net)) ** 2 / sig[1] + 0.5 * np.log(2 * np.pi * sig[1])).sum(1)

    return change.get("prior", prior), change.get("step", step), change.get("last", last)


def all_terms(
    s: NoiseSchedule, sig: np.ndarray, x0: np.ndarray, net: Callable, noise: np.ndarray, **change
) -> np.ndarray:
    """L_0, …, L_T, (N, T+1)."""
    prior, step, last = terms(s, sig, **change)
    out = []
    for t in range(1, s.T + 1):
        x = s.alpha_bar[t] * x0 + s.beta_bar[t] * noise[t - 1]
        out.append(last(x0, x, net) if t == 1 else step(t, x0, x, net))
    return np.stack([*out, prior(x0)], 1)


@wrong(
    "bound terms: KL(π‖q_T) for KL(q_T‖π)", "revers", "exchang", "swap", "other order", "KL(p", "wrong way", "direction"
)
def _():
    s, v = FLAT, FLAT.beta**2
    prior, step, last = terms(s, v, prior=lambda x: gauss_kl(0.0, 1.0, s.alpha_bar[-1] * x, s.beta_bar[-1] ** 2).sum(1))
    return kit.check_bound_terms(prior, step, last, s, draws(1, 4, 2), draws(2, 4, 2), curve, v)


@wrong("bound terms: L_0 in bits", "bits", "log 2", "base 2", "log₂")
def _():
    s, v = TEN, TEN.beta**2
    prior, step, last = terms(s, v)
    return kit.check_bound_terms(
        prior, step, lambda a, b, e: last(a, b, e) / np.log(2), s, draws(5, 4, 2), draws(6, 4, 2), curve, v
    )


def affine(s: NoiseSchedule, D: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of an affine noise network."""
    return 0.3 * draws(seed, s.T + 1, D, D) + 0.5 * np.eye(D), 0.2 * draws(seed + 1, s.T + 1, D)


COV2 = np.array([[1.0, 0.4], [0.4, 0.7]])


@wrong("variational bound: L_T left out", "L_T", "prior", "left out", "missing", "without")
def _():
    s, v = FLAT, FLAT.beta**2
    return kit.check_variational_bound(
        lambda x, e, z: all_terms(s, v, x, e, z)[:, :-1].sum(1), s, np.array([0.5, -0.3]), COV2, *affine(s, 2, 8), v
    )


@wrong(
    "variational bound: the mean of the terms for their sum",
    "mean of the terms",
    "mean over",
    "1/T",
    "1/(T",
    "T + 1",
    "factor T",
)
def _():
    s, v = TEN, TEN.beta**2
    return kit.check_variational_bound(
        lambda x, e, z: all_terms(s, v, x, e, z).mean(1), s, np.array([1.0, -0.3]), COV2, *affine(s, 2, 10), v
    )


def elbo_of_losses(
    s: NoiseSchedule, v: np.ndarray, loss: np.ndarray, second: float, D: int, weight: float = 1.0
) -> float:
    """−E ELBO from noise losses, by its definition."""
    b = s.beta_bar**2
    out = 0.5 * (D * (b[-1] - 1 - np.log(b[-1])) + s.alpha_bar[-1] ** 2 * second)
    for t in range(1, s.T + 1):
        out += weight * 0.5 * s.beta[t] ** 4 / (b[t] * s.alpha[t] ** 2 * v[t]) * loss[t]
        if t > 1:
            r = s.beta_tilde[t] ** 2 / v[t]
            out += 0.5 * D * (r - 1 - np.log(r))
    return out + 0.5 * D * np.log(2 * np.pi * v[1])


@wrong("negative ELBO: D forgotten in the constants", "times D", "dimension")
def _():
    s, v = RAND, RAND.beta**2
    return kit.check_negative_elbo(
        lambda loss, m, D: elbo_of_losses(s, v, loss, m, 1), s, np.array([0.4, -0.2]), COV2, *affine(s, 2, 14), v
    )


@wrong("negative ELBO: log 2πσ² of L_0 missing", "2π", "L_0", "constant")
def _():
    s, v = TEN, TEN.beta**2
    return kit.check_negative_elbo(
        lambda loss, m, D: elbo_of_losses(s, v, loss, m, D) - 0.5 * D * np.log(2 * np.pi * v[1]),
        s, np.array([0.4, 0.9]), COV2, *affine(s, 2, 16), v,
    )  # fmt: skip


@wrong("chains: log q with β for β² inside the logarithm", *ROOT, "log β", "logarithm")
def _():
    return chain_case(RAND, lambda sd: 0.5 * np.log(2 * np.pi * sd), lambda x: 0.5 * (x**2 + np.log(2 * np.pi)))


@wrong("chains: log p(x_T) left out", "x_T", "prior", "log π", "start", "left out")
def _():
    return chain_case(TEN, lambda sd: 0.5 * np.log(2 * np.pi) + np.log(sd), lambda x: 0 * x)


def chain_case(s: NoiseSchedule, log_norm: Callable, prior: Callable) -> kit.Check:
    """Densities of a path, with a given logarithm of the normalisation of q and a given −log π."""
    v = s.beta**2

    def forward(path):
        out = 0.0
        for t in range(1, s.T + 1):
            r = (path[t] - s.alpha[t] * path[t - 1]) / s.beta[t]
            out = out - (0.5 * r**2 + log_norm(s.beta[t])).sum(1)
        return out

    def reverse(path, net):
        out = -prior(path[-1]).sum(1)
        for t in range(1, s.T + 1):
            m = (path[t] - v[t] / s.beta_bar[t] * net(path[t], t)) / s.alpha[t]
            out = out - (0.5 * (path[t - 1] - m) ** 2 / v[t] + 0.5 * np.log(2 * np.pi * v[t])).sum(1)
        return out

    return kit.check_chains(forward, reverse, s, draws(20, s.T + 1, 3, 2), np.linspace(0.2, 0.9, s.T + 1), v)


def weights_with(s: NoiseSchedule, v: np.ndarray, name: str, value: np.ndarray) -> Callable:
    """Loss weights, one of which is replaced."""

    def weights(kind):
        out = np.zeros(s.T + 1)
        a, b = s.alpha_bar[1:] ** 2, s.beta_bar[1:] ** 2
        table = {
            "simple": np.ones(s.T), "x0": b / a, "v": 1 / a, "min-snr": b / a * np.minimum(a / b, 5),
            "bound": s.T * s.beta[1:] ** 4 / (2 * v[1:] * b * s.alpha[1:] ** 2),
        }  # fmt: skip
        out[1:] = value if kind == name else table[kind]
        return out

    return weights


@wrong("loss weights: min-SNR of the x_0 loss, without division by SNR", "SNR", "x_0", "snr")
def _():
    s, v = COS, COS.beta**2
    snr = s.snr[1:]
    return kit.check_loss_weights(weights_with(s, v, "min-snr", np.minimum(snr, 5)), s, v, ("min-snr",))


@wrong("loss weights: the bound without T", "T times", "factor T", "1/T", "divided by T", "without T")
def _():
    s, v = RAND, RAND.beta**2
    w = s.beta[1:] ** 4 / (2 * v[1:] * s.beta_bar[1:] ** 2 * s.alpha[1:] ** 2)
    return kit.check_loss_weights(weights_with(s, v, "bound", w), s, v)


@wrong("step draws: randint(0, T) for 1..T", *T1, "step 0", "step zero")
def _():
    return kit.check_step_draws(lambda u: (np.array([int(u * 12)]), np.ones(1)), 12)


@wrong("step draws: randint(1, T), T never drawn", "never", "last", "T is", "step T", "left out")
def _():
    return kit.check_step_draws(lambda u: (np.array([1 + int(u * 14)]), np.ones(1)), 15)


@wrong("time draws: t from [0, 1), not from [t_min, 1)", "t_min", "step 0", "start", "interval", "first")
def _():
    def draw(u):
        return (np.arange(64) + u) / 64, np.ones(64)

    return kit.check_time_draws(draw, lambda t: (np.asarray(t) - 0.1) / 0.9)


@wrong("time draws: uniform in t for uniform in log-SNR", "uniform in t", "weight", "clock", "log")
def _():
    sde = VP()
    lo, hi = sde.log_snr(1e-3), sde.log_snr(1.0)
    return kit.check_time_draws(
        lambda u: (1e-3 + 0.999 * (np.arange(256) + u) / 256, np.ones(256)), lambda t: (sde.log_snr(t) - lo) / (hi - lo)
    )


def net_of(x: np.ndarray, t: int) -> np.ndarray:
    """The network of tested code."""
    return np.tanh(x @ np.array([[0.9, -0.4, 0.2], [0.1, 0.8, 0.5], [-0.3, 0.2, 0.7]]) + 0.05 * t)


def loss_case(s: NoiseSchedule, target: Callable, reduce: Callable, **options) -> kit.Check:
    """A training loss with a given target and reduction."""
    x0, e = draws(30, 7, 3), draws(31, 7, 3)

    def loss(t, x, z):
        a, b = s.alpha_bar[t][:, None], s.beta_bar[t][:, None]
        out = np.stack([net_of(r[None], int(k))[0] for r, k in zip(a * x + b * z, t, strict=True)])
        return reduce(target(x, z, a, b), out)

    return kit.check_loss_of(loss, net_of, x0, e, s, **options)


@wrong("loss of: target x_0 for a network of the noise", "x_0", "x0", "target")
def _():
    return loss_case(TEN, lambda x, z, a, b: x, lambda y, o: ((y - o) ** 2).sum(1))


@wrong("loss of: L1 for L2", "absolute", "L1", "square")
def _():
    return loss_case(RAND, lambda x, z, a, b: z, lambda y, o: np.abs(y - o).sum(1))


@wrong("loss of: v with the other sign", *SIGN)
def _():
    return loss_case(COS, lambda x, z, a, b: b * x - a * z, lambda y, o: ((y - o) ** 2).sum(1), prediction="v")


@wrong("bound of: the steps start at x_0, index t + 1 of the noise", *T1, "noise[", "order")
def _():
    s = TEN
    return kit.check_bound_of(
        lambda x, z: all_terms(s, s.beta**2, x, net_of, np.roll(z, 1, 0)),
        net_of,
        draws(40, 4, 3),
        draws(41, 10, 4, 3),
        s,
    )


@wrong("bound of: β̃ as the variance, β is said", "β̃", "posterior", "variance")
def _():
    s = RAND
    v = s.beta_tilde**2
    v[1] = s.beta[1] ** 2
    return kit.check_bound_of(
        lambda x, z: all_terms(s, v, x, net_of, z).sum(1), net_of, draws(42, 4, 3), draws(43, 15, 4, 3), s
    )


def run_chain(s: NoiseSchedule, x: np.ndarray, noise: np.ndarray, sd: np.ndarray, order: int = 1, last: bool = True):
    """Ancestral sampling with the given standard deviations."""
    for t in range(s.T, 0, -1):
        z = noise[::order][s.T - t] if t > 1 or last else 0
        x = (x - s.beta[t] ** 2 / s.beta_bar[t] * net_of(x, t)) / s.alpha[t] + sd[t] * z
    return x


@wrong("sampler of: noise[t − 1] for the step from t", "order", "reverse", "noise[t", "backwards")
def _():
    s = TEN
    return kit.check_sampler_of(
        lambda x, z: run_chain(s, x, z, s.beta, -1), net_of, draws(44, 4, 3), draws(45, 10, 4, 3), s
    )


@wrong("sampler of: exp(log variance) not halved", *ROOT, "½", "half")
def _():
    s = FLAT
    return kit.check_sampler_of(
        lambda x, z: run_chain(s, x, z, np.exp(np.log(np.maximum(s.beta, 1e-9) ** 2))), net_of, draws(46, 4, 3),
        draws(47, 12, 4, 3), s,
    )  # fmt: skip


@wrong("sampler of: noise at the last step, none is said", "last step", "t = 1", "adds noise", "noise[")
def _():
    s = LIN
    return kit.check_sampler_of(
        lambda x, z: run_chain(s, x, z, s.beta), net_of, draws(48, 4, 3), draws(49, 20, 4, 3), s, last_noise=False
    )


# the VAE and the ELBO of tables

TABLE = np.random.default_rng(7)
JOINT = TABLE.dirichlet(np.ones(15)).reshape(5, 3)
Q = TABLE.dirichlet(np.ones(3), 5)
PX = TABLE.dirichlet(np.ones(5))
DEC = TABLE.dirichlet(np.ones(5), 3).T
PRIOR = TABLE.dirichlet(np.ones(3))
MU, LV = draws(50, 4, 3), 0.7 * draws(51, 4, 3)


def rows_kl(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """KL of rows."""
    return (q * np.log(q / p)).sum(-1)


def vae_case(rec: Callable, kl: Callable) -> kit.Check:
    """The loss of a Gaussian VAE of given parts."""
    return kit.check_vae_loss(
        lambda x, y, m, lv, dv: rec(x, y, dv) + kl(m, lv),
        draws(52, 4, 5),
        draws(53, 5, 3),
        0.2 * draws(54, 5),
        0.4,
        MU,
        LV,
    )


def good_rec(x, y, dv):
    """−log N(x; y, e^dv)."""
    return 0.5 * ((x - y) ** 2 / np.exp(dv) + dv + np.log(2 * np.pi)).sum(1)


def good_kl(m, lv):
    """KL to N(0, I)."""
    return 0.5 * (m**2 + np.exp(lv) - lv - 1).sum(1)


@wrong("VAE loss: mse.mean over D, KL summed", *MEAN)
def _():
    return vae_case(lambda x, y, dv: good_rec(x, y, dv) / x.shape[1], good_kl)


@wrong("VAE loss: divided by the standard deviation", *ROOT)
def _():
    return vae_case(lambda x, y, dv: 0.5 * ((x - y) ** 2 / np.exp(dv / 2) + dv + np.log(2 * np.pi)).sum(1), good_kl)


@wrong("Bernoulli loss: sigmoid twice", "twice", "sigmoid", "logit")
def _():
    def loss(x, logits, m, lv):
        p = expit(expit(logits))
        return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1) + good_kl(m, lv)

    return kit.check_bernoulli_loss(loss, expit(draws(55, 4, 6)), draws(56, 4, 6), MU, LV)


@wrong("Bernoulli loss: + KL with the sign of the ELBO", *SIGN)
def _():
    def loss(x, logits, m, lv):
        return (np.logaddexp(0, logits) - x * logits).sum(1) - good_kl(m, lv)

    return kit.check_bernoulli_loss(loss, expit(draws(57, 4, 6)), draws(58, 4, 6), MU, LV)


@wrong("reparameterisation: exp(log σ²) as σ", *ROOT, "½", "half")
def _():
    return kit.check_reparameterisation(lambda m, lv, e: m + np.exp(lv) * e, MU, LV, draws(59, 4, 3))


@wrong("reparameterisation: exp(−½ log σ²)", *SIGN, "inverse", "1/σ", "precision")
def _():
    return kit.check_reparameterisation(lambda m, lv, e: m + np.exp(-lv / 2) * e, MU, LV, draws(61, 4, 3))


@wrong("diagonal KL: log_var.exp() missing, log σ² in its place", "exp", "log σ²", "log-variance")
def _():
    return kit.check_diagonal_kl(lambda m, lv: 0.5 * (m**2 + lv**2 - lv - 1).sum(1), MU, LV)


@wrong("diagonal KL: without ½", "½", "half", "twice", "factor 2", "doubled")
def _():
    return kit.check_diagonal_kl(lambda m, lv: 2 * good_kl(m, lv), MU, LV)


@wrong("IWAE: the mean of log w", "mean of log", "mean of the log", "ELBO", "logarithms", "Jensen")
def _():
    return kit.check_importance_weighted_bound(lambda w: w.mean(0), JOINT, Q)


@wrong("IWAE: logsumexp without − log n", "log n", "1/n", "sum", "number of draws")
def _():
    return kit.check_importance_weighted_bound(lambda w: logsumexp(w, axis=0), JOINT, Q)


@wrong("KL: KL(q‖p)", "revers", "exchang", "swap", "other order", "KL(q‖p)", "direction")
def _():
    return kit.check_kl(lambda p, q: (q * np.log(q / p)).sum(), PX, DEC[:, 0])


@wrong("KL: cross-entropy alone", "entropy", "H(p)", "cross")
def _():
    return kit.check_kl(lambda p, q: -(p * np.log(q)).sum(), PX, DEC[:, 1])


def full_kl(m, C, n, E, log=0.5, flip=False, trace=True):
    """KL of two Gaussians, with options to break it."""
    P = np.linalg.inv(E)
    d = np.linalg.slogdet(E)[1] - np.linalg.slogdet(C)[1]
    return 0.5 * ((np.trace(P @ C) if trace else 0) + (n - m) @ P @ (n - m) - len(m)) + log * (-d if flip else d)


COV3 = np.array([[1.0, 0.2, 0.1], [0.2, 0.8, -0.3], [0.1, -0.3, 1.4]])
ARGS = (draws(62, 3), COV3, draws(63, 3), np.diag([0.5, 1.0, 2.0]) + 0.1)


@wrong("Gaussian KL: the sign of the log-determinants", *SIGN, "determinant")
def _():
    return kit.check_gaussian_kl(lambda *a: full_kl(*a, flip=True), *ARGS)


@wrong("Gaussian KL: log-determinants without ½", "½", "half", "determinant")
def _():
    return kit.check_gaussian_kl(lambda *a: full_kl(*a, log=1.0), *ARGS)


@wrong("bits per dim: nats not divided by D", "times D", "dimension")
def _():
    return kit.check_bits_per_dim(lambda n, D, h: n / np.log(2) - np.log2(h), TABLE.dirichlet(np.ones(6)), 3, 1 / 255)


@wrong("bits per dim: the scale is forgotten", "scale", "log 256", "256", "cell")
def _():
    return kit.check_bits_per_dim(lambda n, D, h: n / np.log(2) / D, TABLE.dirichlet(np.ones(6)), 4, 2 / 255)


def bins(half: float, n: int, open_ends: bool) -> Callable:
    """log P(level) with a half width, by a difference of Φ in the better tail."""

    def log_mass(k, m, s):
        x = 2 * np.asarray(k, float) / (n - 1) - 1
        hi, lo = (x + half - m) / s, (x - half - m) / s
        if open_ends:
            hi, lo = np.where(k == n - 1, np.inf, hi), np.where(k == 0, -np.inf, lo)
        flip = lo > 0
        hi, lo = np.where(flip, -lo, hi), np.where(flip, -hi, lo)
        a, b = norm.logcdf(hi), norm.logcdf(lo)
        return a + np.log1p(-np.exp(b - a))

    return log_mass


@wrong("bin masses: bins of the full width to each side", "width", "half", "twice", "2/(", "1/(")
def _():
    return kit.check_bin_masses(bins(2 / 15, 16, True), 16, np.array([-0.3, 0.2, 0.9]), 0.15)


@wrong("bin masses: closed at both ends", "open", "end", "infinit", "first", "edge")
def _():
    return kit.check_bin_masses(bins(1 / 7, 8, False), 8, np.array([-0.8, 0.1, 0.7]), 0.3)


@wrong("bin masses: log(p + 1e-12)", "1e-12", "floor", "clamp", "clip", "added", "far")
def _():
    good = bins(1 / 15, 16, True)
    return kit.check_bin_masses(
        lambda k, m, s: np.log(np.exp(good(k, m, s)) + 1e-12), 16, np.array([-0.9, 0.0, 0.6]), 0.05
    )


@wrong("joint KL: H(p) forgotten", "entropy", "H(p)", "log p(x)", "p(x)")
def _():
    return kit.check_joint_kl(lambda p, q, d, z: (p[:, None] * q * np.log(q / (d * z))).sum(), PX, Q, DEC, PRIOR)


@wrong("joint KL: uniform prior", "prior", "uniform")
def _():
    return kit.check_joint_kl(
        lambda p, q, d, z: (p[:, None] * q * np.log(p[:, None] * q / (d / 3))).sum(), PX, Q, DEC, PRIOR
    )


@wrong("ELBO: H(q) subtracted", *SIGN, "entropy")
def _():
    return kit.check_elbo(lambda j, q: (q * np.log(j)).sum(1) + (q * np.log(q)).sum(1), JOINT, Q)


@wrong("ELBO: p(z | x) for p(x, z)", "p(x)", "posterior", "conditional", "normalis", "KL")
def _():
    return kit.check_elbo(lambda j, q: (q * np.log(j / j.sum(1, keepdims=True) / q)).sum(1), JOINT, Q)


@wrong("split ELBO: + KL", *SIGN)
def _():
    return kit.check_split_elbo(lambda d, z, q: (q * np.log(d)).sum(1) + rows_kl(q, z), DEC, PRIOR, Q)


@wrong("split ELBO: KL(prior‖q)", "revers", "exchang", "swap", "other order", "KL(p")
def _():
    return kit.check_split_elbo(lambda d, z, q: (q * np.log(d)).sum(1) - (z * np.log(z / q)).sum(1), DEC, PRIOR, Q)


@wrong("latent posterior: softmax of the joint", "softmax", "exp")
def _():
    return kit.check_latent_posterior(lambda j: (np.exp(j) / np.exp(j).sum(1, keepdims=True), j.sum(1)), JOINT)


@wrong("latent posterior: normalised over x", "over x", "axis", "p(x | z)", "p(z)", "columns")
def _():
    return kit.check_latent_posterior(lambda j: (j / j.sum(0), j.sum(1)), JOINT)


@wrong("posterior KL: against the joint, not normalised", "normalis", "joint", "log p(x)", "ELBO")
def _():
    return kit.check_posterior_kl(lambda j, q: (q * np.log(q / j)).sum(1), JOINT, Q)


@wrong("posterior KL: the moment projection KL(p‖q)", "revers", "exchang", "swap", "other order", "KL(p")
def _():
    def kl(j, q):
        p = j / j.sum(1, keepdims=True)
        return (p * np.log(p / q)).sum(1)

    return kit.check_posterior_kl(kl, JOINT, Q)


@wrong("VAE objective: log of the mean reconstruction", "log of", "Jensen", "inside", "logarithm")
def _():
    return kit.check_vae_objective(lambda p, q, d, z: p @ (-np.log((q * d).sum(1)) + rows_kl(q, z)), PX, Q, DEC, PRIOR)


@wrong("VAE objective: KL to the aggregate posterior", "aggregate", "q̄", "prior", "marginal")
def _():
    return kit.check_vae_objective(
        lambda p, q, d, z: p @ (-(q * np.log(d)).sum(1) + rows_kl(q, p @ q)), PX, Q, DEC, PRIOR
    )


@wrong("KL parts: q̄ as the plain mean of the rows", "mean over", "uniform", "p(x)", "unweighted", "equal weight")
def _():
    return kit.check_kl_parts(lambda p, q, z: (rows_kl(q, q.mean(0)), rows_kl(q.mean(0), z)), PX, Q, PRIOR)


@wrong("KL parts: the whole KL as the first part", "prior", "whole", "total", "q̄")
def _():
    return kit.check_kl_parts(lambda p, q, z: (rows_kl(q, z), rows_kl(p @ q, z)), PX, Q, PRIOR)


@wrong("IWAE ladder: independent of n, the ELBO", "ELBO", "n = 1", "mean of log", "first draw", "does not depend")
def _():
    return kit.check_iwae_ladder(lambda j, q, n: (q * np.log(j / q)).sum(1), JOINT, Q)


@wrong("IWAE ladder: log p(x) for every n", "log p(x)", "evidence", "limit", "infinit")
def _():
    return kit.check_iwae_ladder(lambda j, q, n: np.log(j.sum(1)), JOINT, Q)


@wrong("free M-step: normalised over z", "over z", "axis", "rows", "q(z | x)", "p(z | x)", "columns")
def _():
    def step(p, q):
        j = p[:, None] * q
        return j / j.sum(1, keepdims=True), j.sum(0)

    return kit.check_free_m_step(step, PX, Q, PRIOR)


@wrong("free M-step: p(x) left out", "p(x)", "uniform", "unweighted", "weights")
def _():
    return kit.check_free_m_step(lambda p, q: (q / q.sum(0), q.mean(0)), PX, Q, PRIOR)


W53, MEAN5, X5 = draws(70, 5, 2), 0.5 * draws(71, 5), draws(72, 6, 5)
QM, QC = draws(73, 6, 2), np.array([[0.6, 0.2], [0.2, 0.5]])


@wrong("linear Gaussian posterior: M = WᵀW + I", "σ²", "noise variance", "I in place")
def _():
    def post(x, W, m, v):
        M = np.linalg.inv(W.T @ W + np.eye(W.shape[1]))
        return (x - m) @ W @ M, v * M

    return kit.check_linear_gaussian_posterior(post, X5, W53, MEAN5, 0.3)


@wrong("linear Gaussian posterior: the mean is not subtracted", "μ", "mean over", "centr", "subtract")
def _():
    def post(x, W, m, v):
        M = np.linalg.inv(W.T @ W + v * np.eye(W.shape[1]))
        return x @ W @ M, v * M

    return kit.check_linear_gaussian_posterior(post, X5, W53, MEAN5, 0.4)


def lg_elbo(x, W, m, v, qm, qc, trace=1.0, entropy=1.0):
    """The ELBO of a linear Gaussian model, with factors to break it."""
    D, k = W.shape
    rec = -0.5 * (((x - m - qm @ W.T) ** 2).sum(1) + trace * np.trace(W @ qc @ W.T)) / v - D / 2 * np.log(2 * np.pi * v)
    kl = 0.5 * (np.trace(qc) + (qm**2).sum(1) - k - entropy * np.linalg.slogdet(qc)[1])
    return rec - kl


@wrong(
    "linear Gaussian ELBO: tr W C Wᵀ left out, x̂ at the mean of q", "trace", "tr W", "covariance", "mean of q", "spread"
)
def _():
    return kit.check_linear_gaussian_elbo(lambda *a: lg_elbo(*a, trace=0), X5, W53, MEAN5, 0.5, QM, QC)


@wrong("linear Gaussian ELBO: − log det of q", *SIGN, "determinant", "entropy")
def _():
    return kit.check_linear_gaussian_elbo(lambda *a: lg_elbo(*a, entropy=-1), X5, W53, MEAN5, 0.5, QM, QC)


@wrong("mean field: the diagonal of the covariance", "marginal", "diagonal", "inverse", "precision", "1/P")
def _():
    def field(x, W, m, v):
        C = np.linalg.inv(np.eye(2) + W.T @ W / v)
        return (x - m) @ W @ C / v, np.diag(C)

    return kit.check_mean_field(field, X5, W53, MEAN5, 0.3)


@wrong("mean field: one sweep of coordinate ascent from 0", "converge", "sweep", "iteration", "one step", "mean over")
def _():
    def field(x, W, m, v):
        P = np.eye(2) + W.T @ W / v
        h = (x - m) @ W / v
        return h / np.diag(P), 1 / np.diag(P)

    return kit.check_mean_field(field, X5, W53, MEAN5, 0.6)


# EM

XG = np.concatenate([draws(80, 14, 2) * 0.7 + [2, 0], draws(81, 16, 2) @ np.array([[1, 0.4], [0, 0.5]])])
WG, MG = np.array([0.3, 0.7]), np.array([[1.5, 0.4], [-0.2, 0.3]])
CG = np.array([[[0.8, 0.1], [0.1, 0.5]], [[1.2, -0.3], [-0.3, 0.9]]])


def log_joint(x, w, m, C, weights=True, half=0.5, maha=True):
    """log w_k N(x; m_k, C_k)."""
    d = x[:, None] - m
    P = np.linalg.inv(C)
    q = np.einsum("nki,kij,nkj->nk", d, P if maha else C, d)
    return (
        -0.5 * q - half * np.linalg.slogdet(C)[1] - m.shape[1] / 2 * np.log(2 * np.pi) + (np.log(w) if weights else 0)
    )


def soft(a):
    """Softmax of rows."""
    return np.exp(a - logsumexp(a, axis=1, keepdims=True))


def m_step(x, r, old=None, centred=True):
    """Weights, means and covariances of responsibilities; old means on demand."""
    n = r.sum(0)
    m = r.T @ x / n[:, None]
    d = x[:, None] - (m if old is None else old)
    return n / len(x), m, np.einsum("nk,nki,nkj->kij", r, d, d) / n[:, None, None]


@wrong("E-step: mixing weights left out", "weight", "prior", "π")
def _():
    return kit.check_e_step(lambda *a: soft(log_joint(*a, weights=False)), XG, WG, MG, CG)


@wrong("E-step: log det without ½", "½", "half", "determinant")
def _():
    return kit.check_e_step(lambda *a: soft(log_joint(*a, half=1.0)), XG, WG, MG, CG)


@wrong("E-step: densities + 1e-10 for stability", "1e-10", "underflow", "far", "logarithm", "added", "uniform")
def _():
    def resp(*a):
        p = np.exp(log_joint(*a)) + 1e-10
        return p / p.sum(1, keepdims=True)

    return kit.check_e_step(resp, XG, WG, MG, CG)


@wrong("EM: the covariances around the old means", "old mean", "old m", "previous mean", "before the step")
def _():
    return kit.check_em(lambda x, w, m, C: m_step(x, soft(log_joint(x, w, m, C)), old=m), XG, WG, MG, CG)


@wrong("EM: np.cov with N_k − 1", "N − 1", "N_k − 1", "unbiased", "Bessel", "− 1")
def _():
    def step(x, w, m, C):
        r = soft(log_joint(x, w, m, C))
        a, b, c = m_step(x, r)
        n = r.sum(0)
        return a, b, c * (n / (n - 1))[:, None, None]

    return kit.check_em(step, XG, WG, MG, CG)


@wrong("EM: hard assignment", "hard", "argmax", "k-means", "nearest", "most likely")
def _():
    return kit.check_em(lambda x, w, m, C: m_step(x, np.eye(2)[log_joint(x, w, m, C).argmax(1)]), XG, WG, MG, CG)


@wrong(
    "EM loop: the objective after the M-step", "after", "late", "one step", "next", "shift", "off by one", "iteration"
)
def _():
    def em():
        w, m, C = WG, MG, CG
        trace = []
        for _ in range(5):
            w, m, C = m_step(XG, soft(log_joint(XG, w, m, C)))
            trace.append(logsumexp(log_joint(XG, w, m, C), axis=1).mean())
        trace.append(trace[-1])
        return np.array(trace), w, m, C

    return kit.check_em_loop(em, XG, WG, MG, CG, 5)


@wrong("EM loop: the sum for the mean log-likelihood", "sum", "N times", "mean over")
def _():
    def em():
        w, m, C = WG, MG, CG
        trace = []
        for i in range(5):
            lj = log_joint(XG, w, m, C)
            trace.append(logsumexp(lj, axis=1).sum())
            if i < 4:
                w, m, C = m_step(XG, soft(lj))
        return np.array(trace), w, m, C

    return kit.check_em_loop(em, XG, WG, MG, CG, 4)


@wrong("free energy: without the entropy of q", "entropy", "log q")
def _():
    r = soft(draws(82, 30, 2))
    return kit.check_free_energy(lambda x, lr, *a: (np.exp(lr) * log_joint(x, *a)).sum(1), XG, np.log(r), WG, MG, CG)


@wrong("free energy: log p(x) whatever q is", "log p(x)", "log p_θ(x)", "evidence", "depend", "likelihood")
def _():
    r = soft(draws(83, 30, 2))
    return kit.check_free_energy(lambda x, lr, *a: logsumexp(log_joint(x, *a), axis=1), XG, np.log(r), WG, MG, CG)


SPREAD = np.array([[[1.0, 0.3], [0.3, 0.6]], [[0.5, -0.2], [-0.2, 1.4]], [[0.9, 0.1], [0.1, 0.8]]])
COUNTS = np.array([5.0, 12.0, 23.0])


def cov_type(kind: str, v: float, c: float, tied: bool = False, ball: bool = False, prior: bool = True) -> np.ndarray:
    """Covariances of a type, with a mistake on demand."""
    eye = np.eye(2)
    if kind == "tied":
        w = np.ones(3) if tied else COUNTS
        S = np.einsum("k,kij->ij", w, SPREAD) / w.sum()
        S = (S * COUNTS.sum() + c * v * eye) / (COUNTS.sum() + c)
        return np.repeat(S[None], 3, 0)
    S = SPREAD
    if kind != "full":
        S = S * eye
    if kind == "spherical":
        S = (np.trace(S, axis1=1, axis2=2) / (1 if ball else 2))[:, None, None] * eye
    n = COUNTS[:, None, None]
    return (n * S + c * v * eye) / (n + c if prior else n)


@wrong("covariance types: tied as the plain mean of the S_k", "mean over", "N_k", "count", "unweighted", "weights")
def _():
    return kit.check_covariance_types(lambda *a: cov_type(*a, tied=True), SPREAD, COUNTS, 1e-6)


@wrong("covariance types: spherical as the trace, not divided by D", "trace", "times D", "sum", "dimension")
def _():
    return kit.check_covariance_types(lambda *a: cov_type(*a, ball=True), SPREAD, COUNTS, 1e-6)


def lloyd(x, c, n=100, median=False, change=None):
    """Lloyd's algorithm."""
    for _ in range(n):
        z = ((x[:, None] - c) ** 2 if change is None else change(x[:, None] - c)).sum(2).argmin(1)
        f = np.median if median else np.mean
        new = np.stack([f(x[z == k], 0) if (z == k).any() else c[k] for k in range(len(c))])
        if np.allclose(new, c, atol=0, rtol=0):
            break
        c = new
    return c


XK = np.concatenate([draws(84, 15, 2), np.array([2.5, 0]) + draws(85, 20, 2), np.array([1, 2.0]) + draws(86, 25, 2)])


@wrong("k-means: one iteration", "one iteration", "one step", "converge", "iteration", "single")
def _():
    return kit.check_kmeans(lambda x, c: lloyd(x, c, 1), XK, XK[:3])


@wrong("k-means: medians", "median")
def _():
    return kit.check_kmeans(lambda x, c: lloyd(x, c, median=True), XK, XK[:3])


@wrong(
    "statistics: the covariances as second moments, mean not subtracted",
    "second moment",
    "not centred",
    "mean over",
    "subtract",
)
def _():
    def stats():
        lj = log_joint(XG, WG, MG, CG)
        r = soft(lj)
        n = r.sum(0)
        C = np.einsum("nk,ni,nj->kij", r, XG, XG) / n[:, None, None]
        return n, r.T @ XG / n[:, None], C, logsumexp(lj, axis=1).mean()

    return kit.check_statistics(stats, XG, WG, MG, CG)


@wrong("statistics: counts divided by N", "counts", "by N", "weights", "divided")
def _():
    def stats():
        lj = log_joint(XG, WG, MG, CG)
        r = soft(lj)
        return r.mean(0), *m_step(XG, r)[1:], logsumexp(lj, axis=1).mean()

    return kit.check_statistics(stats, XG, WG, MG, CG)


XT = np.random.default_rng(8).integers(0, 3, (20, 4))
TT = np.random.default_rng(9).dirichlet(np.ones(3), (2, 4))
PC = np.full((4, 3), 0.5)


def tables(x, w, t, pseudo=PC, prior=True, smooth=True):
    """One step of EM of categorical tables."""
    one = np.eye(3)[x]
    lj = np.einsum("ndl,kdl->nk", one, np.log(t)) + (np.log(w) if prior else 0)
    r = soft(lj)
    c = np.einsum("nk,ndl->kdl", r, one) + (pseudo if smooth else 0)
    return logsumexp(lj, axis=1), r.mean(0), c / c.sum(2, keepdims=True)


@wrong("table EM: weights left out of the responsibilities", "weight", "prior", "π")
def _():
    return kit.check_table_em(lambda *a: tables(*a, prior=False), XT, np.array([0.25, 0.75]), TT, PC)


@wrong("table EM: pseudo-counts forgotten", "pseudo", "smoothing", "Laplace")
def _():
    return kit.check_table_em(lambda *a: tables(*a, smooth=False), XT, np.array([0.4, 0.6]), TT, PC)


A5 = draws(90, 5, 9)
S5 = A5 @ A5.T / 9
W5 = 0.7 * draws(91, 5, 2)


def ppca(S, W, v, old=False, k_div=False, posterior=True):
    """One EM step of PPCA, with a mistake on demand."""
    Mi = np.linalg.inv(W.T @ W + v * np.eye(W.shape[1]))
    SW = S @ W
    inner = (v * np.eye(W.shape[1]) if posterior else 0) + Mi @ W.T @ SW
    new = SW @ np.linalg.inv(inner)
    return new, np.trace(S - SW @ Mi @ (W if old else new).T) / (len(S) - (W.shape[1] if k_div else 0))


@wrong("PPCA step: the old W in the new σ²", "old W", "old", "previous")
def _():
    return kit.check_ppca_step(lambda *a: ppca(*a, old=True), S5, W5, 0.4)


@wrong("PPCA step: divided by D − k", "D − k", "D − 2", "degrees", "divided")
def _():
    return kit.check_ppca_step(lambda *a: ppca(*a, k_div=True), S5, W5, 0.4)


def ppca_max(S, k, shift=True, root=True, noise="mean"):
    """The maximum of the likelihood of PPCA, with a mistake on demand."""
    lam, U = np.linalg.eigh(S)
    lam, U = lam[::-1], U[:, ::-1]
    v = {"mean": lam[k:].mean(), "D": lam[k:].sum() / len(S), "last": lam[-1]}[noise]
    g = lam[:k] - (v if shift else 0)
    return U[:, :k] * (np.sqrt(g) if root else g), v


@wrong("PPCA maximum: √λ without − σ², plain PCA", "σ²", "subtract", "λ", "PCA")
def _():
    return kit.check_ppca_maximum(lambda S, k: ppca_max(S, k, shift=False), S5, 2)


@wrong("PPCA maximum: the residual divided by D", "1/D", "D − k", "divided by D", "D in place")
def _():
    return kit.check_ppca_maximum(lambda S, k: ppca_max(S, k, noise="D"), S5, 2)


@wrong("factor analysis: Ψ tied to its mean", "mean over", "one value", "isotropic", "PPCA", "tied", "average")
def _():
    return kit.check_factor_analysis_step(lambda S, W, p: factors(S, W, p, tied=True), S5, W5, np.linspace(0.3, 0.9, 5))


@wrong("factor analysis: the old W in the new Ψ", "old W", "old", "previous")
def _():
    return kit.check_factor_analysis_step(lambda S, W, p: factors(S, W, p, old=True), S5, W5, np.linspace(0.3, 0.9, 5))


def factors(S, W, p, tied=False, old=False, cov=1):
    """One EM step of factor analysis, with a mistake on demand."""
    G = np.linalg.inv(np.eye(W.shape[1]) + (W.T / p) @ W)
    B = G @ (W.T / p)
    E = cov * G + B @ S @ B.T
    new = S @ B.T @ np.linalg.inv(E)
    psi = np.diag(S - (W if old else new) @ B @ S)
    return new, np.full(len(S), psi.mean()) if tied else psi


# continuous time

MIX1 = Mixture([0.4, 0.6], [[-1.0], [1.2]], [[[0.3]], [[0.5]]])
MIX2 = Mixture([0.35, 0.65], [[-1.0, 0.3], [0.8, -0.4]], [[[0.6, 0.2], [0.2, 0.4]], [[0.5, -0.1], [-0.1, 0.8]]])
V2 = VP(0.1, 12.0, 2.0)
SMALL = VP(0.2, 4.0, 1.5)
EXPL = VE(0.01, 20.0)


def col(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A function of time beside x (N, D)."""
    return np.reshape(a, (-1, 1)) if np.ndim(a) else a


@wrong("SDE: std² = 1 − e^(−B) given as std", *ROOT)
def _():
    return kit.check_sde(
        lambda t: (np.exp(-V2.beta_integral(t) / 2), 1 - np.exp(-V2.beta_integral(t))),
        lambda x, t: col(V2.rate(t), x) * x, V2.diffusion, 2.0,
    )  # fmt: skip


@wrong("SDE: drift −β x without ½", "½", "half", "twice", "factor 2", "doubled")
def _():
    return kit.check_sde(V2.marginal, lambda x, t: -col(V2.beta(t), x) * x, V2.diffusion, 2.0)


@wrong("SDE: VE with √(log ratio) for √(2 log ratio)", "factor 2", "√2", "root of 2", "log")
def _():
    return kit.check_sde(EXPL.marginal, lambda x, t: 0 * x, lambda t: EXPL.diffusion(t) / np.sqrt(2), 1.0)


@wrong("discretisation: β(t) h at the end of the step", "first order", "first-order", "g²", "step size", "Euler")
def _():
    return kit.check_discretisation(VP().beta(np.arange(1, 31) / 30) / 30, VP())


@wrong("discretisation: 1 − e^(−½∫β)", "½", "half", "root", "square")
def _():
    B = SMALL.beta_integral(np.linspace(0, 1.5, 21))
    return kit.check_discretisation(-np.expm1(-np.diff(B) / 2), SMALL)


def law_score(sde, x, t, m, C):
    """The score of N(m, C) after the noise of time t."""
    a, b = float(np.exp(sde.log_scale(t))), float(sde.std(t))
    return -np.linalg.solve(a**2 * C + b**2 * np.eye(len(m)), (x - a * m).T).T


M2 = np.array([0.5, -1.0])


@wrong("reverse SDE: + g² s", *SIGN)
def _():
    return kit.check_reverse_sde(
        lambda x, t: V2.rate(t) * x + V2.diffusion(t) ** 2 * law_score(V2, x, t, M2, COV2), V2.diffusion, V2, M2, COV2
    )


@wrong("reverse SDE: ½g² as in the flow, with noise", "½", "half", "flow")
def _():
    return kit.check_reverse_sde(
        lambda x, t: SMALL.rate(t) * x - 0.5 * SMALL.diffusion(t) ** 2 * law_score(SMALL, x, t, M2, COV2),
        SMALL.diffusion, SMALL, M2, COV2,
    )  # fmt: skip


def one_step(sde, x, t, s, z, noise, sign=1.0, m=0.4, v=0.6):
    """Euler-Maruyama for one Gaussian a dimension, with a given noise."""
    a, b = float(np.exp(sde.log_scale(t))), float(sde.std(t))
    g = float(sde.diffusion(t))
    score = -(x - a * m) / (a**2 * v + b**2)
    return x + sign * (s - t) * (float(sde.rate(t)) * x - g**2 * score) + noise(g, t - s) * z


@wrong("reverse step: g (t − s) z for g √(t − s) z", *ROOT, "√")
def _():
    return kit.check_reverse_step(lambda x, t, s, z: one_step(V2, x, t, s, z, lambda g, h: g * h), V2, 0.4, 0.6)


@wrong("reverse step: dt > 0 in the drift", *SIGN, "forward", "backwards")
def _():
    return kit.check_reverse_step(
        lambda x, t, s, z: one_step(SubVP(), x, t, s, z, lambda g, h: g * np.sqrt(h), -1.0), SubVP(), 0.4, 0.6
    )


def field(x, t):
    """A score that is not linear."""
    return -0.5 * x + 0.3 * np.sin(x) - 0.1 * t


GRID = np.array([1.2, 1.0, 0.7, 0.5, 0.2])


@wrong("reverse sampler: everything at the end of the step", "end of the step", "s in place", "next", "late", "at s")
def _():
    def sample(x, times, noise):
        for t, s, z in zip(times, times[1:], noise, strict=False):
            g = SMALL.diffusion(s)
            x = x + (s - t) * (SMALL.rate(s) * x - g**2 * field(x, s)) + g * np.sqrt(t - s) * z
        return x

    return kit.check_reverse_sampler(sample, field, SMALL, GRID)


@wrong(
    "reverse sampler: the step is 1/N on a grid that is not even",
    "even",
    "1/n",
    "grid",
    "step size",
    "uniform",
    "steps",
)
def _():
    def sample(x, times, noise):
        h = (times[0] - times[-1]) / (len(times) - 1)
        for t, z in zip(times[:-1], noise, strict=True):
            g = SMALL.diffusion(t)
            x = x - h * (SMALL.rate(t) * x - g**2 * field(x, t)) + g * np.sqrt(h) * z
        return x

    return kit.check_reverse_sampler(sample, field, SMALL, GRID)


def heun(x, times, second, half=0.5):
    """Heun's method with a given time of the second slope."""

    def slope(y, t):
        return SMALL.rate(t) * y - 0.5 * SMALL.diffusion(t) ** 2 * field(y, t)

    for t, s in pairwise(times):
        a = slope(x, t)
        x = x + (s - t) * half * (a + slope(x + (s - t) * a, second(t, s)))
    return x


@wrong("Heun: the second slope at t", "at t", "start", "second slope", "same time", "second")
def _():
    return kit.check_heun(lambda x, times: heun(x, times, lambda t, s: t), field, SMALL, GRID)


@wrong("Heun: the slopes are added, not averaged", "½", "half", "twice", "mean over", "sum", "added")
def _():
    return kit.check_heun(lambda x, times: heun(x, times, lambda t, s: s, 1.0), field, SMALL, GRID)


@wrong("Langevin: √δ for √(2δ)", "2δ", "√2", "√δ", "factor 2")
def _():
    def step(x, t, z):
        d = 2 * (0.16 * V2.std(t)) ** 2
        return x - d * x / 0.7 + np.sqrt(d) * z

    return kit.check_langevin_step(step, V2, 0.7, 0.16)


@wrong("Langevin: the size is not squared", *ROOT)
def _():
    def step(x, t, z):
        d = 2 * 0.16 * V2.std(t)
        return x - d * x / 1.3 + np.sqrt(2 * d) * z

    return kit.check_langevin_step(step, V2, 1.3, 0.16)


@wrong("denoiser: std for std² in Tweedie's formula", *ROOT)
def _():
    return kit.check_denoiser(
        lambda x, a, b: (x + b * MIX2.diffuse(a, b).score(x)) / a, MIX2, draws(100, 5, 2), 0.8, 0.5
    )


@wrong("denoiser: not divided by the scale", "scale", "divid", "ᾱ")
def _():
    return kit.check_denoiser(lambda x, a, b: x + b**2 * MIX2.diffuse(a, b).score(x), MIX2, draws(101, 5, 2), 0.7, 0.6)


@wrong("log p: the weights are left out", "weight")
def _():
    return kit.check_log_prob(
        lambda x: logsumexp(MIX2.log_joint(x) - np.log(MIX2.weights), axis=1), MIX2, draws(102, 5, 2)
    )


@wrong("log p: D/2 log 2π counted once", "2π", "times D", "dimension", "constant")
def _():
    return kit.check_log_prob(lambda x: MIX2.log_prob(x) + 0.5 * np.log(2 * np.pi), MIX2, draws(103, 5, 2))


@wrong("score: x − m with the plus sign", *SIGN)
def _():
    return kit.check_score(lambda x: -MIX2.score(x), MIX2, draws(104, 5, 2))


@wrong("score: fixed weights for responsibilities", "weight", "responsibilit", "posterior", "p(k")
def _():
    def score(x):
        parts = [-(x - m) @ np.linalg.inv(C) for m, C in zip(MIX2.means, MIX2.covariances, strict=True)]
        return sum(w * p for w, p in zip(MIX2.weights, parts, strict=True))

    return kit.check_score(score, MIX2, draws(105, 5, 2))


def matching(den=None, imp=None, sli=None):
    """Score matching, one form of which is replaced."""
    return kit.check_score_matching(
        den or (lambda s, e, std: ((s + e / std) ** 2).sum(1)),
        imp or (lambda s, d: (s**2).sum(1) + 2 * d),
        sli or (lambda s, v, j: 2 * (v * j).sum(1) + (s * v).sum(1) ** 2),
        MIX2, 0.8, 0.6, lambda x: -0.7 * x + 0.1, lambda x: np.full(len(x), -1.4),
    )  # fmt: skip


@wrong("score matching: s − ε/std", *SIGN, slow=True)
def _():
    return matching(den=lambda s, e, std: ((s - e / std) ** 2).sum(1))


@wrong("score matching: ε/std² as the target", *ROOT, slow=True)
def _():
    return matching(den=lambda s, e, std: ((s + e / std**2) ** 2).sum(1))


@wrong("score matching: the divergence without 2", "½", "half", "twice", "divergence", "factor 2", slow=True)
def _():
    return matching(imp=lambda s, d: (s**2).sum(1) + d)


def continuous(k=0.5, log=True, t_min=0.02, slope=0.4):
    """The three terms of the continuous bound, with a factor of the second and the logarithm of the third."""
    lo, hi = float(SMALL.log_snr(1.5)), float(SMALL.log_snr(t_min))
    a, b = float(np.exp(SMALL.log_scale(1.5))), float(SMALL.std(1.5))
    r = float(SMALL.std(t_min) / np.exp(SMALL.log_scale(t_min)))

    def diffusion(x0, t, e):
        x = np.exp(SMALL.log_scale(t))[:, None] * x0 + SMALL.std(t)[:, None] * e
        return k * (hi - lo) * ((e - slope * x) ** 2).sum(1)

    return kit.check_continuous_bound(
        lambda x: 0.5 * (a**2 * x**2 / b**2).sum(1), diffusion,
        lambda x, e: (0.5 * e**2 + 0.5 * np.log(2 * np.pi) + (np.log(r) if log else 0)).sum(1),
        SMALL, t_min, slope, draws(106, 4, 2),
    )  # fmt: skip


@wrong("continuous bound: the integral without ½", "½", "half", "twice", "doubled", "factor 2")
def _():
    return continuous(k=1.0)


@wrong("continuous bound: log std of the reconstruction missing", "log", "std", "constant", "volume", "norm")
def _():
    return continuous(log=False)


WD = draws(107, 3, 3)


def div_case(exact: Callable, probe: Callable) -> kit.Check:
    """A score, its divergence and the estimate, from the Jacobian of tanh(x W)."""

    def f(x, v):
        J = WD.T[None] * (1 - np.tanh(x @ WD) ** 2)[:, :, None]  # J[n, i, j] = d out_i / d x_j
        J = -J / 0.4
        d = np.trace(J, axis1=1, axis2=2)
        return -np.tanh(x @ WD) / 0.4, exact(d) if v is None else probe(np.einsum("mni,nij,mnj->mn", v, J, v))

    return kit.check_divergence(f, lambda x: np.tanh(x @ WD), 0.4, draws(108, 4, 3), draws(109, 5, 4, 3))


@wrong("divergence: of ε̂, not of the score", "std", "ε̂", "noise[", *SIGN)
def _():
    return div_case(lambda d: -0.4 * d, lambda q: -0.4 * q.mean(0))


@wrong("divergence: the sum over the probes", "sum", "mean over", "number of probes", "n times")
def _():
    return div_case(lambda d: d, lambda q: q.sum(0))


NODE, GLW = np.polynomial.legendre.leggauss(150)


def time_integral(f: Callable, T: float, T0: float = 0.0) -> float:
    """∫f dt."""
    t = T0 + (T - T0) * (NODE + 1) / 2
    return sum(w * f(float(u)) for w, u in zip(GLW, t, strict=True)) * (T - T0) / 2


PAIR = (M2, COV2, np.array([0.1, 0.4]), np.array([[0.8, -0.1], [-0.1, 1.1]]))


@wrong("KL bound: the mean over t for the integral", "factor T", "horizon", "mean over t", "mean over")
def _():
    return kit.check_kl_bound(
        lambda e, p: p + time_integral(lambda t: 0.5 * V2.diffusion(t) ** 2 * e(t), 2.0) / 2, V2, *PAIR
    )


@wrong("KL bound: the prior's KL left out", "prior", "π", "KL(p_T")
def _():
    return kit.check_kl_bound(lambda e, p: time_integral(lambda t: 0.5 * V2.diffusion(t) ** 2 * e(t), 2.0), V2, *PAIR)


def point_bound(div: float, square: float) -> kit.Check:
    """(34) for single examples in one dimension, with factors of div f and of ‖s‖²."""
    z, w = np.polynomial.hermite_e.hermegauss(40)
    w = w / w.sum()

    def bound(score, prior, x):
        def mean(f, t):
            p = np.exp(SMALL.log_scale(t)) * x + SMALL.std(t) * z  # (N, 40)
            return f(p.reshape(-1, 1)).reshape(p.shape) @ w

        def rate(t):
            def f(y):
                s, d = score(y, t)
                return SMALL.diffusion(t) ** 2 * (square * (s**2).sum(1) + d) - div * SMALL.rate(t)

            return mean(f, t)

        return mean(prior, 1.5) - time_integral(rate, 1.5)

    return kit.check_log_prob_bound(bound, SMALL, Mixture([1.0], [[0.3]], [[[0.8]]]), np.array([[0.2], [-1.0], [1.5]]))


@wrong("bound of log p: div f left out", "div f", "divergence of f", "drift", "f(t)")
def _():
    return point_bound(0.0, 0.5)


@wrong("bound of log p: ‖s‖² without ½", "½", "half", "‖s", "twice")
def _():
    return point_bound(1.0, 1.0)


def flow_density(sde, score_div, x, t0, T, prior, sign=1.0, half=0.5, n=240):
    """log p by RK4 on the probability flow."""
    D = x.shape[1]

    def f(y, t):
        s, d = score_div(y, t)
        g2 = sde.diffusion(t) ** 2
        return sde.rate(t) * y - half * g2 * s, D * sde.rate(t) - half * g2 * d

    total = np.zeros(len(x))
    times = t0 + (T - t0) * np.linspace(0, 1, n + 1)
    for t, u in pairwise(times):
        h = u - t
        k = f(x, t)
        l2 = f(x + h / 2 * k[0], t + h / 2)
        l3 = f(x + h / 2 * l2[0], t + h / 2)
        l4 = f(x + h * l3[0], u)
        x = x + h / 6 * (k[0] + 2 * l2[0] + 2 * l3[0] + l4[0])
        total = total + h / 6 * (k[1] + 2 * l2[1] + 2 * l3[1] + l4[1])
    return prior(x) + sign * total


G2 = Mixture([1.0], [[0.3, -0.2]], [COV2])


def g2_flow(x, **change):
    """The flow of a Gaussian with its exact score."""

    def score_div(y, t):
        law = G2.diffuse(float(np.exp(SMALL.log_scale(t))), float(SMALL.std(t)))
        return law.score(y), np.full(len(y), -np.trace(np.linalg.inv(law.covariances[0])))

    end = G2.diffuse(float(np.exp(SMALL.log_scale(1.5))), float(SMALL.std(1.5)))
    return flow_density(SMALL, score_div, x, 0.0, 1.5, change.pop("prior", end.log_prob), **change)


@wrong("flow likelihood: the divergence is subtracted", *SIGN, slow=True)
def _():
    return kit.check_probability_flow_likelihood(lambda x: g2_flow(x, sign=-1.0), G2, draws(110, 4, 2), SMALL)


@wrong("flow likelihood: g² for ½g²", "½", "half", "reverse SDE", "twice", "g²", slow=True)
def _():
    return kit.check_probability_flow_likelihood(lambda x: g2_flow(x, half=1.0), G2, draws(111, 4, 2), SMALL)


def flow_of(sign=1.0, total=True):
    """The likelihood with a network of two dimensions."""

    def net(x, t):
        return -0.8 * x + 0.2 * np.tanh(x) / (1 + t)

    def score_div(y, t):
        return net(y, t), (-0.8 + 0.2 / np.cosh(y) ** 2 / (1 + t)).sum(1)

    def prior(y):
        logs = norm.logpdf(y, 0, float(SMALL.std(1.5)))
        return logs.sum(1) if total else logs.mean(1)

    return kit.check_flow_likelihood_of(
        lambda x: flow_density(SMALL, score_div, x, 0.01, 1.5, prior, sign=sign), net, draws(112, 4, 2), SMALL, 0.01
    )


@wrong("flow likelihood of: − ∫ div", *SIGN, slow=True)
def _():
    return flow_of(sign=-1.0)


@wrong("flow likelihood of: the prior is the mean over the dimensions", *MEAN, "prior", slow=True)
def _():
    return flow_of(total=False)


@wrong("reverse law: the moments of the flow", "flow")
def _():
    def moments(score):
        k = score(np.zeros((1, 2)), 0.5)[0]
        d = -(score(np.ones((1, 2)), 0.5)[0] - k)[0] - 1
        return k * (1 - np.exp(-d * 3.0 / 2)) / d, np.exp(-d * 3.0) * np.eye(2)

    return kit.check_reverse_law(moments, 3.0, 0.4)


@wrong("reverse law: noise with ½g²", "½", "half", "noise[", "variance")
def _():
    def moments(score):
        k = score(np.zeros((1, 2)), 0.5)[0]
        d = -(score(np.ones((1, 2)), 0.5)[0] - k)[0] - 1
        a, B = 1 + 2 * d, 2.0
        return k * (1 - np.exp(-a * B / 2)) / (a / 2), (np.exp(-a * B) + 0.5 * (1 - np.exp(-a * B)) / a) * np.eye(2)

    return kit.check_reverse_law(moments, 2.0, 0.3)


# networks and training

LAYERS = [(0.5 * draws(i, m, n), 0.3 * draws(i + 1, n)) for i, m, n in ((120, 3, 6), (122, 6, 5), (124, 5, 2))]
X3, U3 = draws(126, 7, 3), draws(127, 7, 3)


def silu(z):
    """SiLU."""
    return z * expit(z)


def net_mlp(x, act=np.tanh, last=False, bias=True):
    """A multilayer perceptron."""
    for i, (w, b) in enumerate(LAYERS):
        x = x @ w + (b if bias else 0)
        x = act(x) if i < 2 or last else x
    return x


@wrong("MLP: activation after the last layer", "last layer", "output", "after the last")
def _():
    return kit.check_mlp(lambda x: net_mlp(x, silu, last=True), LAYERS, X3)


@wrong("MLP: the biases are left out", "bias")
def _():
    return kit.check_mlp(lambda x: net_mlp(x, silu, bias=False), LAYERS, X3)


@wrong("JVP: bias added to the tangent", "bias")
def _():
    def jvp(x, v):
        for i, (w, b) in enumerate(LAYERS):
            x, v = x @ w + b, v @ w + b
            if i < 2:
                x, v = np.tanh(x), v * (1 - np.tanh(x) ** 2)
        return x, v

    return kit.check_jvp(jvp, net_mlp, X3, U3)


@wrong("JVP: 1 − tanh² at the activated value", "activated", "slope", "derivative", "tanh", "twice")
def _():
    def jvp(x, v):
        for i, (w, b) in enumerate(LAYERS):
            x, v = x @ w + b, v @ w
            if i < 2:
                x = np.tanh(x)
                v = v * (1 - np.tanh(x) ** 2)
        return x, v

    return kit.check_jvp(jvp, net_mlp, X3, U3)


@wrong(
    "activation: the slope as s + s (1 − s), z left out",
    "factor z",
    "z left",
    "without z",
    "z s",
    "without z",
    "s(1 − s)",
    "s (1 − s)",
)
def _():
    return kit.check_activation(silu, lambda z: (silu(z), expit(z) + expit(z) * (1 - expit(z))), np.linspace(-6, 6, 13))


@wrong("activation: SiLU of 1.702 z, the fast GELU", "1.702", "GELU", "scaled")
def _():
    def both(z):
        s = expit(1.702 * z)
        return z * s, s + 1.702 * z * s * (1 - s)

    return kit.check_activation(lambda z: z * expit(1.702 * z), both, np.linspace(-5, 4, 10))


def waves_net(f):
    """F with any number of inputs."""
    k = np.arange(1, f.shape[1] + 1)[:, None]
    return np.tanh(f @ np.hstack([np.sin(k), np.cos(2 * k), np.sin(3 * k)]))


def noise_case(skip: Callable, gain: Callable) -> kit.Check:
    """A noise network of given coefficients."""
    x, a, b = draws(128, 5, 3), np.linspace(0.2, 0.9, 5), np.linspace(0.95, 0.3, 5)
    mark = np.eye(2)[[0, 1, 0, 1, 1]]

    def eps(x, scale, std):
        scale, std = (np.broadcast_to(u, len(x)).astype(float) for u in (scale, std))
        r = np.sqrt(scale**2 + std**2)
        c = skip(scale, std, r), gain(scale, std, r)
        return kit.networks.printed_noise(waves_net, x, scale, std, 4, mark, 0, c)

    return kit.check_noise_network(eps, waves_net, x, a, b, 4, mark)


@wrong("noise network: skip std/r for std/r²", *ROOT, "r²", "skip")
def _():
    return noise_case(lambda a, b, r: b / r, lambda a, b, r: a / r)


@wrong("noise network: gain std/r for scale/r", "std", "gain", "exchang", "swap")
def _():
    return noise_case(lambda a, b, r: b / r**2, lambda a, b, r: b / r)


LAW = np.random.default_rng(10).dirichlet(np.ones(4), (3, 2))


@wrong("categorical draw: one uniform number for the row", "one number", "own", "shared", "same", "first")
def _():
    return kit.check_categorical_draw(lambda u: (LAW.cumsum(2)[..., :-1] < u[:, :1, None]).sum(2), LAW)


@wrong("categorical draw: levels from 1", *T1, "one too", "level")
def _():
    return kit.check_categorical_draw(lambda u: 1 + (LAW.cumsum(2)[..., :-1] < u[..., None]).sum(2), LAW)


@wrong("categorical draw: argmax, the mode", "mode", "argmax", "most probable", "likely", "largest")
def _():
    return kit.check_categorical_draw(lambda u: LAW.argmax(2), LAW)


P0 = draws(129, 5) + 0.2
TARGET = draws(130, 6, 5)


def losses(p):
    """Losses of six examples."""
    return ((np.tanh(p) - TARGET) ** 2).sum(1)


def slopes(p):
    """Their derivatives, (6, 5)."""
    return 2 * (np.tanh(p) - TARGET) * (1 - np.tanh(p) ** 2)


@wrong("gradient: the 2 of the square is missing", "½", "half", "factor 2")
def _():
    return kit.check_gradient(lambda p: losses(p).mean(), lambda p: slopes(p).mean(0) / 2, P0, np.eye(5))


@wrong("gradient: of the sum, the loss is the mean", "6 times", "sum", "N times", "examples")
def _():
    return kit.check_gradient(lambda p: losses(p).mean(), lambda p: slopes(p).sum(0), P0, np.eye(5))


@wrong("loss gradient: divided by D, the loss is not", "times D", "mean over", "1/3", "dimension")
def _():
    y = draws(131, 4, 3)
    return kit.check_loss_gradient(
        lambda a: (((a - y) ** 2).sum(1), 2 * (a - y) / 3), lambda a: ((a - y) ** 2).sum(1), draws(132, 4, 3)
    )


@wrong("loss gradient: target − output", *SIGN)
def _():
    y = draws(133, 4, 3)
    return kit.check_loss_gradient(
        lambda a: (((a - y) ** 2).sum(1), 2 * (y - a)), lambda a: ((a - y) ** 2).sum(1), draws(134, 4, 3)
    )


@wrong(
    "training step: weighted mean divided by the sum of the weights", "sum of the weights", "Σ", "normalis", "weights"
)
def _():
    w = np.linspace(0.5, 3, 6)
    return kit.check_training_step(lambda p: (losses(p), w @ slopes(p) / w.sum()), losses, P0, w)


@wrong(
    "training step: gradients of two calls add up, no zero_grad", "twice", "accumul", "zero_grad", "2 times", "doubled"
)
def _():
    return kit.check_training_step(lambda p: (losses(p), 2 * slopes(p).mean(0)), losses, P0)


def adam(p, grads, rate, correct=True, inside=False, decay=0.0, l2=0.0, scale=None, b1=0.9, b2=0.999, e=1e-8):
    """Adam, with a mistake on demand; (n, P)."""
    m, v, out = np.zeros_like(p), np.zeros_like(p), []
    for k in range(len(grads)):
        g = (grads[k] if not callable(grads[k]) else grads[k](p)) + l2 * p
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        c1, c2 = (1 - b1 ** (k + 1), 1 - b2 ** (k + 1)) if correct else (1, 1)
        r = rate * (1 if scale is None else scale[k])
        p = p - r * decay * p
        p = p - r * (m / c1) / (np.sqrt(v / c2 + e) if inside else np.sqrt(v / c2) + e)
        out.append(p)
    return np.array(out)


GR = draws(135, 12, 5)


@wrong("Adam: without bias correction", "bias correction", "correct")
def _():
    return kit.check_adam(lambda p, g: adam(p, g, 1e-2, correct=False), P0, GR, 1e-2)


@wrong("Adam: weight decay as L2 in the gradient", "L2", "decoupled", "gradient", "AdamW")
def _():
    return kit.check_adam(lambda p, g: adam(p, g, 1e-2, l2=0.1), P0, GR, 1e-2, weight_decay=0.1)


@wrong("Adam: β₁ and β₂ exchanged", "exchang", "swap", "interchang", "beta2", "β₂", "β2")
def _():
    return kit.check_adam(lambda p, g: adam(p, g, 1e-2, b1=0.999, b2=0.9), P0, GR, 1e-2)


def warm(k, n, w, first=1, offset=None):
    """Warm-up and half a cosine."""
    if k < w:
        return (k + first) / w
    o = w if offset is None else offset
    return 0.5 * (1 + np.cos(np.pi * (k - o) / (n - o)))


@wrong("learning rate: step/warmup, the first is 0", *T1, "first", "0 at", "lost")
def _():
    return kit.check_learning_rate(lambda k: 2e-3 * warm(k, 60, 8, 0), 60, 2e-3, 8)


@wrong("learning rate: the cosine counts from step 0", "from step 0", "from 0", "warmup", "warm-up", "start")
def _():
    return kit.check_learning_rate(lambda k: 1e-3 * warm(k, 50, 10, 1, 0), 50, 1e-3, 10)


def ema(start, rows, decay, ramp=True, flip=False, first=1):
    """An exponential moving average, with a mistake on demand."""
    a, out = start, []
    for k, p in enumerate(rows, first):
        d = min(decay, (1 + k) / (10 + k)) if ramp else decay
        a = (1 - d) * a + d * p if flip else d * a + (1 - d) * p
        out.append(a)
    return np.array(out)


@wrong("moving average: constant decay", "constant", "ramp", "warm-up", "min(", "(1 + k)", "fixed")
def _():
    return kit.check_moving_average(lambda s, p: ema(s, p, 0.95, ramp=False), P0, GR, 0.95)


@wrong("moving average: decay and 1 − decay exchanged", "exchang", "swap", "interchang", "1 − decay")
def _():
    return kit.check_moving_average(lambda s, p: ema(s, p, 0.9, flip=True), P0, GR, 0.9)


def train_case(n=8, correct=True, sched=True, ramp=True):
    """A whole loop of training on known batches."""

    def one(p, k):
        return ((np.tanh(p) - TARGET[k % 6]) ** 2).sum()

    def train(p):
        grads = [lambda q, k=k: slopes(q)[k % 6] for k in range(n)]
        scale = [warm(k, n, 3) if sched else 1.0 for k in range(n)]
        rows = adam(p, grads, 0.05, correct, scale=scale)
        before = [p, *rows[:-1]]
        return [one(q, k) for k, q in enumerate(before)], rows[-1], ema(p, rows, 0.9, ramp=ramp)[-1]

    return kit.check_training(train, one, P0, n, 0.05, warmup=3, ema_decay=0.9)


@wrong("training: no schedule of the learning rate", "constant", "learning rate", "schedule", "warm")
def _():
    return train_case(sched=False)


@wrong("training: Adam without bias correction", "bias correction", "correct")
def _():
    return train_case(correct=False)


# beyond the deck


@wrong(
    "DDIM inversion: the step of sampling, s and t exchanged", "exchang", "swap", "sampling", "revers", "from t to s"
)
def _():
    s = RAND

    def inverse(u, t, x, e):
        a = max(s.alpha_bar[u], 1e-9) / s.alpha_bar[t]
        return a * x + (s.beta_bar[u] - a * s.beta_bar[t]) * e

    return kit.check_ddim_inversion(inverse, s)


@wrong("EDM: c_in = 1/(σ² + σ_data²)", *ROOT)
def _():
    def c(s):
        r = s**2 + 0.25
        return 0.25 / r, s * 0.5 / np.sqrt(r), 1 / r, r / (0.5 * s) ** 2

    return kit.check_edm_coefficients(c)


@wrong("EDM: the weight (σ² + σ_d²)/(σ + σ_d)²", "σ σ", "sum", "product", "σ·", "weight", "(σ + ")
def _():
    def c(s):
        r = s**2 + 0.25
        return 0.25 / r, s * 0.5 / np.sqrt(r), 1 / np.sqrt(r), r / (0.5 + s) ** 2

    return kit.check_edm_coefficients(c)


@wrong("sigma grid: geometric", "geometric", "log", "ρ", "rho")
def _():
    return kit.check_sigma_grid(lambda n, a, b, r: np.append(np.geomspace(b, a, n), 0))


@wrong("sigma grid: from small to large", "revers", "order", "ascending", "rising", "small to large", "backwards")
def _():
    return kit.check_sigma_grid(lambda n, a, b, r: np.linspace(a ** (1 / r), b ** (1 / r), n) ** r)


@wrong("DPM-Solver++(2M): 1/r for 1/(2r)", "½", "half", "2r", "twice", "end of the step", "extrapol")
def _():
    def step(x, d0, d1, levels, z):
        lam = np.log(levels[:, 0] / levels[:, 1])
        h, r = lam[2] - lam[1], (lam[1] - lam[0]) / (lam[2] - lam[1])
        D = d0 + (d0 - d1) / r
        return levels[2, 1] / levels[1, 1] * x - levels[2, 0] * np.expm1(-h) * D

    return kit.check_exponential_step(step)


@wrong("flow velocity: x_0 − ε for ε − x_0", *SIGN)
def _():
    return kit.check_flow_velocity(lambda x, e, t: x - e, lambda t: (1 - t, t), MIX2, np.array([0.2, 0.5, 0.8]))


@wrong("de Bruijn: g² for ½g²", "½", "half", "twice", "doubled", "factor 2", "2 times", slow=True)
def _():
    p, q = MIX1, Mixture([1.0], [[0.2]], [[[1.0]]])

    def rate(t):
        a, b = float(np.exp(SMALL.log_scale(t))), float(SMALL.std(t))
        f, g = p.diffuse(a, b), q.diffuse(a, b)
        err = f.expectation(lambda x: ((f.score(x) - g.score(x)) ** 2).sum(1, keepdims=True), rtol=1e-12)[0]
        return -float(SMALL.diffusion(t) ** 2) * err

    return kit.check_kl_rate(rate, SMALL, p, q, np.array([0.3, 0.8]))


@wrong("tilted score: guidance of the diffused scores", "guidance", "each level", "diffused", slow=True)
def _():
    label = np.array([0.9, 0.2])
    cond = Mixture(MIX1.weights * label / (MIX1.weights @ label), MIX1.means, MIX1.covariances)
    return kit.check_tilted_score(
        lambda x, a, b, w: (1 - w) * MIX1.diffuse(a, b).score(x) + w * cond.diffuse(a, b).score(x),
        MIX1, label, np.array([[0.9, 0.4], [0.5, 0.8]]),
    )  # fmt: skip


@wrong("Tweedie covariance: ∇∇ᵀ log p without std²", "std²", "factor std", "Hessian", *ROOT)
def _():
    return kit.check_tweedie_covariance(
        lambda x, a, b: (b / a) ** 2 * (np.eye(2) + MIX2.diffuse(a, b).score_jacobian(x)), MIX2,
        np.array([[0.9, 0.5], [0.6, 0.8]]),
    )  # fmt: skip


@wrong(
    "conservative score: the Jacobian turned by 90 degrees is added", "curl", "symmetr", "gradient", "rotat", slow=True
)
def _():
    turn = np.array([[0.0, 0.2], [-0.2, 0.0]])
    return kit.check_conservative_score(lambda x: MIX2.score(x) + x @ turn, MIX2)


@wrong("dequantisation: only the middle of the cell", "middle", "midpoint", "½", "u = ", "centre")
def _():
    m, sd = np.array([0.3, -0.5]), np.array([1.3, 2.0])

    def cost(log_prob, k):
        mass = np.log(norm.cdf(k + 1, m, sd) - norm.cdf(k, m, sd)).sum(1)
        return mass - np.asarray(log_prob(k + 0.5)).reshape(-1)

    return kit.check_dequantisation(cost, m, sd)


@wrong("flow order: Euler's method, sold as Heun's", "order 1", "order", "Euler", "first", slow=True)
def _():
    def sample(denoise, x, levels):
        for (a, b), (c, d) in pairwise(levels):
            x0 = denoise(x, a, b)
            x = c * x0 + d * (x - a * x0) / b
        return x

    return kit.check_flow_order(sample, MIX1)


@wrong("Fokker-Planck: the flow's drift with the noise g", "½", "half", "flow", "g²", "noise[", "diffusion")
def _():
    def drift(x, t):
        law = MIX2.diffuse(float(np.exp(V2.log_scale(t))), float(V2.std(t)))
        return V2.rate(t) * x - 0.5 * V2.diffusion(t) ** 2 * law.score(x)

    return kit.check_fokker_planck(
        drift, V2.diffusion, lambda t: tuple(float(u) for u in V2.marginal(t)), MIX2, np.array([0.4, 1.0, 1.6])
    )


@wrong("data processing: no noise at the last step", "last step", "t = 1", "no noise", "noise[")
def _():
    def density(net, sig):
        s, m, v = FLAT, 0.0, 1.0
        for t in range(s.T, 0, -1):
            c = float(net(np.zeros((1, 1)), t)[0, 0])
            a = float(net(np.ones((1, 1)), t)[0, 0]) - c
            k = s.beta[t] ** 2 / s.beta_bar[t]
            f = (1 - k * a) / s.alpha[t]
            m, v = f * m - k * c / s.alpha[t], f**2 * v + (sig[t] if t > 1 else 0)
        x = np.linspace(m - 10 * np.sqrt(v), m + 10 * np.sqrt(v), 4001)
        return x, norm.pdf(x, m, np.sqrt(v))

    return kit.check_data_processing(density, FLAT)


@wrong("mutual information: without ½", "½", "half", "twice", "doubled", "factor 2", "2 times", slow=True)
def _():
    def information(sde, loss, t_min):
        lo, hi = float(sde.log_snr(sde.horizon)), float(sde.log_snr(t_min))
        u = lo + (hi - lo) * (NODE + 1) / 2
        return sum(w * float(loss(float(sde.time_at(k)))) for k, w in zip(u, GLW, strict=True)) * (hi - lo) / 2

    return kit.check_mutual_information(information, [(SMALL, 0.05)], [Mixture([1.0], [[0.3]], [[[0.8]]])]).at(1e-6)


@wrong(
    "missing information: the observed fraction, 1 − λ", "1 −", "observed", "complement", "information that", "instead"
)
def _():
    def fractions(x, w, m, C):
        def step(v):
            r = soft(log_joint(x, w, v.reshape(m.shape), C))
            return (r.T @ x / r.sum(0)[:, None]).ravel()

        v, n = m.ravel(), m.size
        J = np.stack([(step(v + 1e-5 * e) - step(v - 1e-5 * e)) / 2e-5 for e in np.eye(n)], 1)
        return np.sort(1 - np.linalg.eigvals(J).real)[::-1]

    return kit.check_missing_information(fractions, XG, WG, MG, CG)


@wrong("weak order: the variance of the step as the factor of its noise", *ROOT, "noise[")
def _():
    def sample(denoise, x, levels, noise):
        for (a, b), (c, d), z in zip(levels, levels[1:], noise, strict=False):
            x0 = denoise(x, a, b)
            v = d**2 / b**2 * (b**2 - (a / c) ** 2 * d**2)
            x = c * x0 + np.sqrt(np.maximum(d**2 - v, 0)) * (x - a * x0) / b + v * z
        return x

    return kit.check_weak_order(sample, M2, COV2)
