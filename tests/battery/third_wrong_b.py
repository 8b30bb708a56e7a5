"""Wrong implementations of VAE, latent variables, EM and continuous time."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit, log_ndtr, logsumexp, ndtr

from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen import conformance as kit
from scratchgen.conformance import EDM, Check
from tests.battery.case import Wrong

CASES: list[Wrong] = []
LOG_2PI = np.log(2 * np.pi)
GAUSS = np.polynomial.legendre.leggauss(80)
RNG = np.random.default_rng(20)
OF_D = ("dimension", "divided by D", "/D", "D times", "times D", "of D", "½D", "− D", "over D", "D log")
OF_2 = ("√2", "factor 2", "2 times", "factor of 2", "twice", "half", "2 is")
OF_T = ("horizon", "factor T", "by T", "1/T", "T times")


def in_single(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with arrays and numbers in float32."""

    def cast(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == float:
            return value.astype(np.float32)
        return np.float32(value) if isinstance(value, float) else value

    return lambda *args: function(*map(cast, args))


def judge(name: str, code: Callable, flaw: str, problem: tuple, options: dict, single: bool) -> Check:
    """The check called `name` on the callables of a coding with a flaw."""
    callables = code(flaw)
    if single:
        callables = tuple(in_single(function) for function in callables)
    check = getattr(kit, f"check_{name}")(*callables, *problem, **options)
    return check.at(1e-5) if single else check


def add(
    check: str,
    code: Callable,
    problem: tuple,
    flaws: dict[str, tuple[str, ...]],
    *,
    label: str = "",
    single: bool = False,
    slow: bool = False,
    **options: Any,
) -> None:
    """Add a case for every flaw, with the phrases that name it."""
    for flaw, words in flaws.items():
        run = partial(judge, check, code, flaw, problem, options, single)
        kind = ", ".join(part for part in (label, "float32" if single else "") if part)
        CASES.append(Wrong(f"{check}{f' ({kind})' if kind else ''}: {flaw}", run, words, slow))


def integral(f: Callable[[float], Any], start: float, end: float, pieces: int = 1) -> Any:
    """∫ f dt by Gauss-Legendre on `pieces` equal parts."""
    edges = np.linspace(start, end, pieces + 1)
    return sum(
        w * 0.5 * (b - a) * f(float(0.5 * (a + b) + 0.5 * (b - a) * u))
        for a, b in itertools.pairwise(edges)
        for u, w in zip(*GAUSS, strict=True)
    )


def table(*shape: int, axis: int | None = None) -> Any:
    """A positive table with sum 1 along an axis, or over all."""
    values = RNG.gamma(1.5, size=shape) + 0.1
    return values / values.sum(axis=axis, keepdims=axis is not None)


def spd(k: int, size: float = 1.0) -> Any:
    """A covariance."""
    root = RNG.normal(size=(k, k))
    return size * (root @ root.T / k + 0.3 * np.eye(k))


# ---------------------------------------------------------------------------------------------------------- the VAE


def vae_loss(flaw: str) -> tuple[Callable, ...]:
    """-ELBO in the coding of the usual tutorials, summed by example."""

    def loss(x, x_hat, mean, log_var, dec):
        D = x.shape[1]
        scale = np.exp(0.5 * dec) if flaw == "divides the error by the standard deviation" else np.exp(dec)
        error = (x - x_hat) ** 2 / scale
        recon = 0.5 * error.sum(axis=1)
        if flaw == "mean of the squared error over pixels":
            recon = 0.5 * error.mean(axis=1)
        if flaw == "squared error without a half":
            recon = error.sum(axis=1)
        if flaw == "no log 2 pi":
            recon = recon + 0.5 * D * dec
        elif flaw == "log-variance of the decoder counted once, not for every pixel":
            recon = recon + 0.5 * D * LOG_2PI + 0.5 * dec
        elif flaw == "no log-variance of the decoder":
            recon = recon + 0.5 * D * LOG_2PI
        else:
            recon = recon + 0.5 * D * (LOG_2PI + dec)
        if flaw == "encoder's log-variance taken for log-std in the KL":
            log_var = 2 * log_var
        inner = 1 + log_var - mean**2 - np.exp(log_var)
        if flaw == "mean not squared":
            inner = 1 + log_var - mean - np.exp(log_var)
        if flaw == "KL the other way round":
            inner = 1 - log_var - (1 + mean**2) * np.exp(-log_var)
        if flaw == "KL without the 1":
            inner = inner - 1
        if flaw == "KL averaged over latents":
            kl = -0.5 * inner.mean(axis=1)
        elif flaw == "KL without a half":
            kl = -inner.sum(axis=1)
        elif flaw == "KL subtracted":
            kl = 0.5 * inner.sum(axis=1)
        elif flaw == "KL averaged over the batch":
            kl = -0.5 * inner.sum(axis=1).mean()
        elif flaw == "beta-VAE weight 4":
            kl = -2.0 * inner.sum(axis=1)
        else:
            kl = -0.5 * inner.sum(axis=1)
        return recon + kl

    return (loss,)


VAE = (
    RNG.normal(size=(4, 6)),
    RNG.normal(size=(6, 3)),
    RNG.normal(size=6),
    0.4,
    RNG.normal(size=(4, 3)),
    RNG.normal(-0.5, 0.6, size=(4, 3)),
)
add(
    "vae_loss",
    vae_loss,
    VAE,
    {
        "encoder's log-variance taken for log-std in the KL": ("log-std", "log std", "log σ", "standard deviation"),
        "KL without a half": (
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "half",
            "twice",
            "factor",
        ),
        "KL subtracted": ("sign", "subtract", "minus"),
        "mean of the squared error over pixels": ("mean over", "mean of", "average", "divided by D", "/D"),
        "no log 2 pi": ("2π", "constant"),
        "divides the error by the standard deviation": ("standard deviation", "squared", "std"),
        "KL averaged over the batch": ("batch", "examples", "mean over"),
        "KL without the 1": ("constant", "without the 1", "without −1", "½k", "the −1"),
    },
)
add(
    "vae_loss",
    vae_loss,
    VAE,
    {
        "squared error without a half": (
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "half",
            "twice",
            "factor",
        ),
        "log-variance of the decoder counted once, not for every pixel": ("once", "log-variance", "log σ", *OF_D),
        "KL the other way round": ("reverse", "other way", "KL(N", "order", "swapped"),
        "KL averaged over latents": ("mean over", "average", "mean of", "latent"),
        "beta-VAE weight 4": ("factor", "weight", "times", "β-VAE", "beta"),
    },
    single=True,
)


def bernoulli_loss(flaw: str) -> tuple[Callable, ...]:
    """Cross-entropy with logits and the KL."""

    def loss(x, logits, mean, log_var):
        if flaw == "sigmoid taken twice":
            logits = expit(logits)
        terms = np.logaddexp(0, logits) - x * logits
        if flaw == "only x log p, without the other class":
            terms = x * np.logaddexp(0, -logits)
        if flaw == "probability and its complement swapped":
            terms = np.logaddexp(0, logits) - (1 - x) * logits
        if flaw == "clips p to [0.01, 0.99]":
            p = np.clip(expit(logits), 0.01, 0.99)
            terms = -(x * np.log(p) + (1 - x) * np.log(1 - p))
        if flaw == "squared error of the probabilities":
            terms = (x - expit(logits)) ** 2
        bce = terms.mean(axis=1) if flaw == "mean of the cross-entropy" else terms.sum(axis=1)
        variance = np.exp(0.5 * log_var) if flaw == "std in place of the variance in the KL" else np.exp(log_var)
        kl = 0.5 * (variance + mean**2 - 1 - log_var).sum(axis=1)
        if flaw == "sum of the KL over the batch":
            kl = kl.sum()
        return bce + kl

    return (loss,)


BERNOULLI = (
    RNG.integers(0, 2, size=(5, 8)).astype(float),
    RNG.normal(0, 2, size=(5, 8)),
    RNG.normal(size=(5, 2)),
    RNG.normal(-1, 0.5, size=(5, 2)),
)
GREY = (RNG.random((3, 16)), RNG.normal(0, 2, size=(3, 16)), RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)))
add(
    "bernoulli_loss",
    bernoulli_loss,
    BERNOULLI,
    {
        "sigmoid taken twice": ("twice", "sigmoid", "logistic", "probabilities"),
        "probability and its complement swapped": ("swap", "1 − x", "1 − p", "sign", "complement"),
        "mean of the cross-entropy": ("mean over", "mean of", "average", "/D"),
        "sum of the KL over the batch": ("batch", "examples", "sum over"),
    },
)
add(
    "bernoulli_loss",
    bernoulli_loss,
    GREY,
    {
        "only x log p, without the other class": ("1 − x", "second term", "missing", "without"),
        "squared error of the probabilities": ("square", "Gaussian"),
        "std in place of the variance in the KL": ("std", "standard deviation", "squared", "σ in place", "σ for"),
    },
    label="grey values",
    single=True,
)
add(
    "bernoulli_loss",
    bernoulli_loss,
    (GREY[0], 3 * GREY[1], *GREY[2:]),
    {"clips p to [0.01, 0.99]": ("clip", "clamp")},
    label="confident decoder",
)


def reparameterisation(flaw: str) -> tuple[Callable, ...]:
    """z = mean + std * noise."""

    def draw(mean, log_var, noise):
        return {
            "": mean + np.exp(0.5 * log_var) * noise,
            "multiplies by the variance": mean + np.exp(log_var) * noise,
            "forgets exp": mean + 0.5 * log_var * noise,
            "one noise for all latents": mean + np.exp(0.5 * log_var) * noise[:, :1],
            "one noise for the whole batch": mean + np.exp(0.5 * log_var) * noise[:1],
            "without the mean": np.exp(0.5 * log_var) * noise,
            "softplus in place of exp": mean + np.logaddexp(0, log_var) * noise,
            "adds std without noise": mean + np.exp(0.5 * log_var),
        }[flaw]

    return (draw,)


DRAW = (RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)))
add(
    "reparameterisation",
    reparameterisation,
    DRAW,
    {
        "multiplies by the variance": ("variance", "log-std", "log std", "squared"),
        "one noise for all latents": ("one noise", "same noise", "shared", "noise of"),
        "without the mean": ("without the mean", "mean is missing", "without μ", "mean"),
        "adds std without noise": ("without noise", "noise", "ξ is", "without ξ"),
    },
)
add(
    "reparameterisation",
    reparameterisation,
    DRAW,
    {
        "forgets exp": ("exp", "log"),
        "one noise for the whole batch": ("one noise", "same noise", "shared", "noise of"),
        "softplus in place of exp": ("softplus", "exp"),
    },
    single=True,
)


def importance_bound(flaw: str) -> tuple[Callable, ...]:
    """IWAE of log-weights (n, X)."""

    def bound(log_w):
        n = len(log_w)
        total = logsumexp(log_w, axis=0)
        return {
            "": total - np.log(n),
            "mean of the log-weights": log_w.mean(axis=0),
            "sum in place of the mean of the weights": total,
            "largest weight": log_w.max(axis=0),
            "adds log n": total + np.log(n),
            "divides the log by n": total / n,
            "self-normalised sum of w log w": (np.exp(log_w - total) * log_w).sum(axis=0),
            "averages over examples": logsumexp(log_w) - np.log(log_w.size) + 0 * total,
        }[flaw]

    return (bound,)


JOINT, Q = table(3, 4), table(3, 4, axis=1)
add(
    "importance_weighted_bound",
    importance_bound,
    (JOINT, Q),
    {
        "mean of the log-weights": ("mean of log", "outside", "ELBO", "mean of the log"),
        "sum in place of the mean of the weights": ("log n", "1/n", "sum", "divided"),
        "largest weight": ("largest", "maximum", "max"),
        "averages over examples": ("examples", "axis", "batch"),
    },
)
add(
    "importance_weighted_bound",
    importance_bound,
    (JOINT, Q, 3),
    {
        "adds log n": ("sign", "log n", "1/n"),
        "divides the log by n": ("1/n", "outside", "divide"),
        "self-normalised sum of w log w": ("normalised", "weights", "w log w"),
    },
    label="three draws",
)


# ------------------------------------------------------------------------------------------------------- divergences


def discrete_kl(flaw: str) -> tuple[Callable, ...]:
    """Sum of p log p/q."""

    def kl(p, q):
        m = 0.5 * (p + q)
        return {
            "": np.sum(p * np.log(p / q)),
            "q and p swapped": np.sum(q * np.log(q / p)),
            "bits": np.sum(p * np.log2(p / q)),
            "cross-entropy": -np.sum(p * np.log(q)),
            "mean over the table": np.mean(p * np.log(p / q)),
            "Jensen-Shannon": 0.5 * np.sum(p * np.log(p / m)) + 0.5 * np.sum(q * np.log(q / m)),
            "sign": -np.sum(p * np.log(p / q)),
            "not weighted by p": np.sum(np.log(p / q)),
        }[flaw]

    return (kl,)


add(
    "kl",
    discrete_kl,
    (table(6), table(6)),
    {
        "q and p swapped": ("KL(q‖p)", "swapped", "order", "other way"),
        "bits": ("bits", "log 2", "log₂"),
        "cross-entropy": ("cross-entropy", "entropy", "H(p)"),
        "mean over the table": ("mean", "average", "number of"),
        "Jensen-Shannon": ("Jensen", "symmetric"),
        "not weighted by p": ("weight", "without p", "expectation"),
    },
)


def gaussian_kl(flaw: str) -> tuple[Callable, ...]:
    """KL of two Gaussians in the textbook form."""

    def kl(m_p, C_p, m_q, C_q):
        if flaw == "arguments swapped":
            m_p, C_p, m_q, C_q = m_q, C_q, m_p, C_p
        D, step = len(m_p), m_q - m_p
        metric = C_p if flaw == "Mahalanobis distance in the metric of p" else C_q
        square = step @ np.linalg.solve(metric, step)
        if flaw == "root of the Mahalanobis distance":
            square = np.sqrt(square)
        trace = np.trace(np.linalg.solve(C_q, C_p))
        if flaw == "trace of the inverse ratio":
            trace = np.trace(np.linalg.solve(C_p, C_q))
        if flaw == "diagonals only":
            trace = np.sum(np.diag(C_p) / np.diag(C_q))
        log_ratio = np.linalg.slogdet(C_q)[1] - np.linalg.slogdet(C_p)[1]
        if flaw == "log-determinants the other way":
            log_ratio = -log_ratio
        if flaw == "no D":
            D = 0
        if flaw == "1 in place of D":
            D = 1
        return (1.0 if flaw == "no half" else 0.5) * (trace + square - D + log_ratio)

    return (kl,)


PAIR = (RNG.normal(size=3), spd(3), RNG.normal(size=3), spd(3, 2.0))
add(
    "gaussian_kl",
    gaussian_kl,
    PAIR,
    {
        "arguments swapped": ("swapped", "KL(q‖p)", "order", "other way"),
        "log-determinants the other way": ("determinant", "sign", "log|"),
        "no D": (*OF_D, "constant"),
        "no half": ("half", "the ½", "without ½", "no ½", "factor ½", "factor of ½", "½ is", "half", "twice", "factor"),
        "trace of the inverse ratio": ("trace", "inverse", "tr"),
        "Mahalanobis distance in the metric of p": ("covariance of p", "metric", "mean", "cov_p"),
        "diagonals only": ("diagonal", "trace", "tr"),
    },
)
add(
    "gaussian_kl",
    gaussian_kl,
    PAIR,
    {"1 in place of D": (*OF_D, "constant"), "root of the Mahalanobis distance": ("square", "root")},
    single=True,
)


def diagonal_kl(flaw: str) -> tuple[Callable, ...]:
    """KL to N(0, I), as in every VAE."""

    def kl(mean, log_var):
        if flaw == "log-variance read as log-std":
            log_var = 2 * log_var
        if flaw == "reverse KL":
            terms = (1 + mean**2) * np.exp(-log_var) - 1 + log_var
        elif flaw == "mean not squared":
            terms = np.exp(log_var) + mean - 1 - log_var
        elif flaw == "std in place of the variance":
            terms = np.exp(0.5 * log_var) + mean**2 - 1 - log_var
        elif flaw == "plus log-variance":
            terms = np.exp(log_var) + mean**2 - 1 + log_var
        elif flaw == "without the mean":
            terms = np.exp(log_var) - 1 - log_var
        else:
            terms = np.exp(log_var) + mean**2 - 1 - log_var
        if flaw == "mean over latents":
            return 0.5 * terms.mean(axis=-1)
        if flaw == "sum over the batch":
            return np.full(len(mean), 0.5 * terms.sum())
        return terms.sum(axis=-1) if flaw == "no half" else 0.5 * terms.sum(axis=-1)

    return (kl,)


DIAGONAL = (RNG.normal(size=(3, 5)), RNG.normal(size=(3, 5)))
add(
    "diagonal_kl",
    diagonal_kl,
    DIAGONAL,
    {
        "log-variance read as log-std": ("log-std", "log std", "log σ", "standard deviation"),
        "reverse KL": ("reverse", "other way", "KL(N(0", "order", "swapped"),
        "mean over latents": ("mean over", "mean of", "average", "/k"),
        "plus log-variance": ("sign",),
        "sum over the batch": ("batch", "examples", "sum over"),
    },
)
add(
    "diagonal_kl",
    diagonal_kl,
    DIAGONAL,
    {
        "no half": ("half", "the ½", "without ½", "no ½", "factor ½", "factor of ½", "½ is", "half", "twice", "factor"),
        "std in place of the variance": ("std", "standard deviation", "squared", "σ in place", "σ for"),
        "without the mean": ("mean", "μ is", "without μ", "− μ"),
    },
    single=True,
)


def bits(flaw: str) -> tuple[Callable, ...]:
    """Bits per dimension, with the correction of the scale."""

    def bits_per_dim(nats, D, scale):
        return {
            "": (nats / D - np.log(scale)) / np.log(2),
            "nats": nats / D - np.log(scale),
            "no correction of the scale": nats / D / np.log(2),
            "sign of the correction": (nats / D + np.log(scale)) / np.log(2),
            "correction once, not per dimension": (nats - np.log(scale)) / D / np.log(2),
            "not divided by the dimension": (nats - D * np.log(scale)) / np.log(2),
            "multiplied by log 2": (nats / D - np.log(scale)) * np.log(2),
            "8 bits whatever the scale": nats / D / np.log(2) + 8,
        }[flaw]

    return (bits_per_dim,)


add(
    "bits_per_dim",
    bits,
    (table(5), 12, 2 / 16),
    {
        "nats": ("nats", "log 2", "log₂"),
        "no correction of the scale": ("scale", "cell", "log scale"),
        "sign of the correction": ("sign", "scale"),
        "correction once, not per dimension": ("once", *OF_D, "per dimension"),
        "not divided by the dimension": (*OF_D, "dimension", "divided"),
        "multiplied by log 2": ("log 2", "multipl", "divided"),
    },
)
add("bits_per_dim", bits, (table(9), 3, 0.3), {"8 bits whatever the scale": ("256", "256", "scale")}, single=True)


def bin_masses(flaw: str) -> tuple[Callable, ...]:
    """The Gaussian decoder in bins, as Ho's, by log-CDFs."""

    def make(n_levels: int) -> Callable:
        def log_mass(level, mean, std):
            x, half = 2 * level / (n_levels - 1) - 1, 1 / (n_levels - 1)
            if flaw == "bins of width 2/n":
                half = 1 / n_levels
            if flaw == "bins twice as wide":
                half = 2 / (n_levels - 1)
            if flaw == "variance in place of the std":
                std = std**2
            low, high = (x - half - mean) / std, (x + half - mean) / std
            if flaw == "density at the centre times the width":
                return -0.5 * ((x - mean) / std) ** 2 - 0.5 * LOG_2PI - np.log(std) + np.log(2 * half)
            if flaw == "logistic in place of the Gaussian":
                cdf: Callable = expit
            else:
                cdf = ndtr
            low, high = np.broadcast_arrays(low, high)
            if flaw != "both ends closed":
                low = np.where(level == 0, -np.inf, low)
                high = np.where(level == n_levels - 1, np.inf, high)
            if flaw in ("logistic in place of the Gaussian", "clips the mass at 1e-12"):
                return np.log(np.maximum(cdf(high) - cdf(low), 1e-12))
            swap = low > 0
            low, high = np.where(swap, -high, low), np.where(swap, -low, high)
            a, b = log_ndtr(high), log_ndtr(low)
            return a + np.log1p(-np.exp(b - a))

        return log_mass

    return (make(17),)


MASSES = (17, np.linspace(-1.2, 1.1, 6), 0.11)
add(
    "bin_masses",
    bin_masses,
    MASSES,
    {
        "both ends closed": ("open", "end", "first", "last", "infinit"),
        "bins of width 2/n": ("n_levels", "width", "half"),
        "density at the centre times the width": ("density", "centre", "width"),
        "variance in place of the std": ("variance", "std", "squared"),
        "clips the mass at 1e-12": ("clip", "clamp", "underflow", "1e-12"),
        "bins twice as wide": ("width", "twice", "half"),
        "logistic in place of the Gaussian": ("logistic", "Φ is", "normal distribution"),
    },
)


# --------------------------------------------------------------------------------------------- tables of x and z


def rows(values: Any) -> Any:
    """Rows divided by their sums."""
    return values / values.sum(axis=1, keepdims=True)


def joint_kl(flaw: str) -> tuple[Callable, ...]:
    """KL(p q || p_theta(x, z))."""

    def kl(p_x, q, decoder, prior):
        left, right = p_x[:, None] * q, decoder * prior
        if flaw == "p(x) uniform":
            left = q / len(q)
        if flaw == "prior left out":
            right = decoder
        if flaw == "entropy of p(x) left out":
            return np.sum(left * np.log(q / right))
        if flaw == "only KL of the encoder":
            return np.sum(left * np.log(q / rows(right)))
        if flaw == "marginal KL":
            return np.sum(p_x * np.log(p_x / right.sum(axis=1)))
        if flaw == "joints swapped":
            left, right = right, left
        return np.sum(left * np.log(left / right))

    return (kl,)


P_X, DECODER, PRIOR = table(4), table(4, 3, axis=0), table(3)
ENCODER = table(4, 3, axis=1)
add(
    "joint_kl",
    joint_kl,
    (P_X, ENCODER, DECODER, PRIOR),
    {
        "p(x) uniform": ("p(x)", "uniform", "mean over"),
        "prior left out": ("prior", "p(z)"),
        "entropy of p(x) left out": ("entropy", "H(p)", "p(x)"),
        "joints swapped": ("swapped", "order", "other way", "KL(p_θ"),
        "only KL of the encoder": ("KL(q‖p_θ(z", "second term", "posterior", "KL(p‖p_θ(x))"),
        "marginal KL": ("KL(p‖p_θ(x))", "second term", "marginal"),
    },
)


def elbo_of_joint(flaw: str) -> tuple[Callable, ...]:
    """ELBO of a table p(x, z)."""

    def elbo(joint, q):
        entropy = -np.sum(q * np.log(q), axis=1)
        energy = np.sum(q * np.log(joint), axis=1)
        return {
            "": energy + entropy,
            "no entropy": energy,
            "entropy subtracted": energy - entropy,
            "negative": -energy - entropy,
            "log-evidence": np.log(joint.sum(axis=1)) + 0 * energy,
            "posterior in place of the joint": np.sum(q * np.log(rows(joint) / q), axis=1),
            "mean over z": np.mean(q * np.log(joint / q), axis=1),
            "log outside the expectation": np.log(np.sum(q * joint, axis=1)) + entropy,
        }[flaw]

    return (elbo,)


add(
    "elbo",
    elbo_of_joint,
    (table(4, 5), table(4, 5, axis=1)),
    {
        "no entropy": ("entropy",),
        "entropy subtracted": ("sign", "entropy"),
        "log-evidence": ("log p(x)", "evidence"),
        "posterior in place of the joint": ("posterior", "KL", "log p(x)"),
        "log outside the expectation": ("outside", "log of", "Jensen"),
        "mean over z": ("mean", "average", "sum"),
    },
)


def split_elbo(flaw: str) -> tuple[Callable, ...]:
    """Reconstruction minus KL."""

    def elbo(decoder, prior, q):
        match = np.sum(q * np.log(decoder), axis=1)
        if flaw == "log outside the expectation":
            match = np.log(np.sum(q * decoder, axis=1))
        if flaw == "z drawn from the prior":
            match = np.sum(prior * np.log(decoder), axis=1)
        kl = np.sum(q * np.log(q / prior), axis=1)
        if flaw == "KL the other way":
            kl = np.sum(prior * np.log(prior / q), axis=1)
        if flaw == "uniform prior":
            kl = np.sum(q * np.log(q * len(prior)), axis=1)
        if flaw == "KL averaged over x":
            kl = kl.mean()
        return match + kl if flaw == "KL added" else match - kl

    return (elbo,)


add(
    "split_elbo",
    split_elbo,
    (DECODER, PRIOR, ENCODER),
    {
        "log outside the expectation": ("outside", "log of", "Jensen"),
        "z drawn from the prior": ("prior", "p(z)", "drawn"),
        "KL the other way": ("other way", "order", "KL(p(z)‖q", "reverse", "swapped"),
        "KL added": ("sign", "added"),
        "KL averaged over x": ("mean over", "batch", "examples", "average"),
        "uniform prior": ("prior", "uniform", "p(z)"),
    },
)


def vae_objective(flaw: str) -> tuple[Callable, ...]:
    """(13) for tables."""

    def loss(p_x, q, decoder, prior):
        aggregate = p_x @ q
        match = np.sum(q * np.log(decoder), axis=1)
        kl = np.sum(q * np.log(q / prior), axis=1)
        if flaw == "KL of the aggregate":
            kl = np.full(len(q), np.sum(aggregate * np.log(aggregate / prior)))
        if flaw == "reverse KL":
            kl = np.sum(prior * np.log(prior / q), axis=1)
        if flaw == "entropy of q only":
            kl = np.sum(q * np.log(q), axis=1)
        terms = kl + match if flaw == "sign of the reconstruction" else kl - match
        return terms.mean() if flaw == "plain mean over x" else np.sum(p_x * terms)

    return (loss,)


add(
    "vae_objective",
    vae_objective,
    (P_X, ENCODER, DECODER, PRIOR),
    {
        "KL of the aggregate": ("aggregate", "q̄", "marginal", "q(z)"),
        "reverse KL": ("other way", "order", "reverse", "swapped"),
        "sign of the reconstruction": ("sign",),
        "plain mean over x": ("mean over", "p(x)", "uniform"),
        "entropy of q only": ("prior", "entropy", "q(z)"),
    },
)


def latent_posterior(flaw: str) -> tuple[Callable, ...]:
    """Bayes' rule on a table."""

    def posterior(joint):
        evidence = joint.sum(axis=1)
        result = joint / evidence[:, None]
        if flaw == "normalised over x":
            result = joint / joint.sum(axis=0)
        if flaw == "evidence over the wrong axis":
            evidence = joint.sum(axis=0)
        if flaw == "not normalised":
            result = joint
        if flaw == "softmax of the joint":
            result = rows(np.exp(joint))
        if flaw == "likelihood without the prior of z":
            result = rows(joint / joint.sum(axis=0))
        if flaw == "log-evidence":
            evidence = np.log(evidence)
        return result, evidence

    return (posterior,)


add(
    "latent_posterior",
    latent_posterior,
    (table(4, 4),),
    {
        "normalised over x": ("axis", "p(x | z)", "over x", "transposed"),
        "not normalised": ("normali", "joint", "divided"),
        "softmax of the joint": ("exp", "softmax"),
        "likelihood without the prior of z": ("prior", "p(z)", "likelihood"),
        "log-evidence": ("log",),
        "evidence over the wrong axis": ("axis", "p(z)", "over x"),
    },
)


def posterior_kl(flaw: str) -> tuple[Callable, ...]:
    """KL(q || p(z | x)) of a table."""

    def kl(joint, q):
        p = rows(joint)
        return {
            "": np.sum(q * np.log(q / p), axis=1),
            "the other way": np.sum(p * np.log(p / q), axis=1),
            "joint in place of the posterior": np.sum(q * np.log(q / joint), axis=1),
            "prior in place of the posterior": np.sum(q * np.log(q / joint.sum(axis=0)), axis=1),
            "posterior normalised over x": np.sum(q * np.log(q / (joint / joint.sum(axis=0))), axis=1),
            "mean over z": np.mean(q * np.log(q / p), axis=1),
        }[flaw]

    return (kl,)


add(
    "posterior_kl",
    posterior_kl,
    (table(5, 3), table(5, 3, axis=1)),
    {
        "the other way": ("other way", "order", "KL(p(z", "swapped", "reverse"),
        "joint in place of the posterior": ("joint", "ELBO", "log p(x)", "evidence"),
        "prior in place of the posterior": ("prior", "p(z)"),
        "posterior normalised over x": ("axis", "over x", "p(x | z)"),
        "mean over z": ("mean", "average", "sum"),
    },
)


def free_m_step(flaw: str) -> tuple[Callable, ...]:
    """The best table p(x | z)."""

    def step(p_x, q):
        joint = p_x[:, None] * q
        if flaw == "ignores p(x)":
            joint = q / len(q)
        q_z = joint.sum(axis=0)
        decoder = joint / q_z
        if flaw == "normalised over z":
            decoder = rows(joint)
        if flaw == "joint, not divided by q(z)":
            decoder = joint
        if flaw == "q(z) as a plain mean":
            q_z = q.mean(axis=0)
        return decoder, q_z

    return (step,)


add(
    "free_m_step",
    free_m_step,
    (P_X, ENCODER, PRIOR),
    {
        "ignores p(x)": ("p(x)", "uniform"),
        "normalised over z": ("axis", "p(z | x)", "over z", "q(z | x)"),
        "joint, not divided by q(z)": ("divided", "joint", "normali"),
        "q(z) as a plain mean": ("mean", "p(x)", "uniform"),
    },
)


def kl_parts(flaw: str) -> tuple[Callable, ...]:
    """ELBO surgery."""

    def parts(p_x, q, prior):
        aggregate = q.mean(axis=0) if flaw == "aggregate as a plain mean" else p_x @ q
        first = np.sum(q * np.log(q / aggregate), axis=1)
        second = np.sum(aggregate * np.log(aggregate / prior))
        if flaw == "second part the other way":
            second = np.sum(prior * np.log(prior / aggregate))
        if flaw == "first part to the prior":
            first = np.sum(q * np.log(q / prior), axis=1)
        if flaw == "first part the other way":
            first = np.sum(aggregate * np.log(aggregate / q), axis=1)
        return first, second

    return (parts,)


add(
    "kl_parts",
    kl_parts,
    (P_X, ENCODER, PRIOR),
    {
        "aggregate as a plain mean": ("mean", "p(x)", "uniform"),
        "second part the other way": ("other way", "order", "reverse", "swapped"),
        "first part to the prior": ("prior",),
        "first part the other way": ("other way", "order", "reverse", "swapped"),
    },
)


def iwae_ladder(flaw: str) -> tuple[Callable, ...]:
    """E log mean of n weights, by all tuples."""

    def expected(joint, q, n):
        log_w, out = np.log(joint / q), np.zeros(len(q))
        for draws in itertools.product(range(q.shape[1]), repeat=n):
            at = list(draws)
            chance = np.prod((rows(joint) if flaw == "draws from the posterior" else q)[:, at], axis=1)
            bound = logsumexp(log_w[:, at], axis=1) - np.log(n)
            if flaw == "sum of the weights":
                bound = bound + np.log(n)
            if flaw == "mean of log-weights":
                bound = log_w[:, at].mean(axis=1)
            if flaw == "first draw only":
                bound = log_w[:, at[0]]
            if flaw == "divides by n - 1":
                bound = bound + np.log(n) - np.log(max(n - 1, 1))
            out += chance * bound
        return np.log(joint.sum(axis=1)) if flaw == "log outside the expectation" else out

    return (expected,)


add(
    "iwae_ladder",
    iwae_ladder,
    (table(3, 3), table(3, 3, axis=1)),
    {
        "draws from the posterior": ("posterior", "drawn", "p(z | x)"),
        "sum of the weights": ("log n", "1/n", "sum", "divided"),
        "mean of log-weights": ("mean of log", "ELBO", "outside", "mean of the log"),
        "log outside the expectation": ("log p(x)", "outside", "evidence"),
        "divides by n - 1": ("n − 1",),
    },
)


# ------------------------------------------------------------------------------------------- linear-Gaussian models


def linear_posterior(flaw: str) -> tuple[Callable, ...]:
    """Tipping and Bishop's posterior."""

    def posterior(x, W, mean, s2):
        eye = np.eye(W.shape[1])
        if flaw == "std in place of the variance":
            s2 = np.sqrt(s2)
        precision = W.T @ W / s2 + eye
        if flaw == "no prior":
            precision = W.T @ W / s2
        if flaw == "noise variance left out of the precision":
            precision = W.T @ W + eye
        cov = np.linalg.inv(precision)
        centred = x if flaw == "data not centred" else x - mean
        means = centred @ W @ cov / s2
        if flaw == "mean not divided by the noise variance":
            means = centred @ W @ cov
        if flaw == "covariance is M⁻¹ without σ²":
            cov = cov / s2
        if flaw == "precision returned":
            cov = precision
        return means, cov

    return (posterior,)


LINEAR = (RNG.normal(size=(5, 4)), RNG.normal(size=(4, 2)), RNG.normal(size=4), 0.3)
add(
    "linear_gaussian_posterior",
    linear_posterior,
    LINEAR,
    {
        "no prior": ("prior", "I is missing", "without I", "least squares", "+ I"),
        "data not centred": ("mean", "centred", "μ is", "without μ", "− μ"),
        "mean not divided by the noise variance": ("σ²", "noise variance", "divided"),
        "precision returned": ("precision", "inverse"),
        "covariance is M⁻¹ without σ²": ("σ²", "noise variance", "factor"),
    },
)
add(
    "linear_gaussian_posterior",
    linear_posterior,
    LINEAR,
    {
        "std in place of the variance": ("σ for σ²", "standard deviation", "std", "squared", "σ in place"),
        "noise variance left out of the precision": ("σ²", "noise variance"),
    },
    single=True,
)


def linear_elbo(flaw: str) -> tuple[Callable, ...]:
    """ELBO of probabilistic PCA for a Gaussian q."""

    def elbo(x, W, mean, s2, m, V):
        D, k = W.shape
        error = np.sum((x - mean - m @ W.T) ** 2, axis=1)
        spread = np.trace(W.T @ W @ V)
        if flaw == "no spread of the decoder's mean":
            spread = 0.0
        if flaw == "variances of q only in the spread":
            spread = np.sum(np.sum(W**2, axis=0) * np.diag(V))
        log_det = np.linalg.slogdet(V)[1]
        if flaw == "log-determinant from the diagonal":
            log_det = np.sum(np.log(np.diag(V)))
        if flaw == "no log-determinant":
            log_det = 0.0
        kl = 0.5 * (np.trace(V) + np.sum(m**2, axis=1) - k - log_det)
        match = -0.5 * (D * (LOG_2PI + np.log(s2)) + (error + spread) / s2)
        if flaw == "log σ² without D":
            match = match + 0.5 * (D - 1) * np.log(s2)
        if flaw == "no log 2 pi":
            match = match + 0.5 * D * LOG_2PI
        return match + kl if flaw == "KL added" else match - kl

    return (elbo,)


add(
    "linear_gaussian_elbo",
    linear_elbo,
    (*LINEAR, RNG.normal(size=(5, 2)), spd(2, 0.5)),
    {
        "no spread of the decoder's mean": ("trace", "spread", "tr", "variance of q", "covariance of q"),
        "log-determinant from the diagonal": ("diagonal", "determinant"),
        "no log-determinant": ("determinant", "log|", "entropy"),
        "KL added": ("sign", "added"),
        "log σ² without D": (*OF_D, "once", "log σ²"),
        "no log 2 pi": ("2π", "constant"),
        "variances of q only in the spread": ("diagonal", "off-diagonal", "trace"),
    },
)


def mean_field(flaw: str) -> tuple[Callable, ...]:
    """The best diagonal q."""

    def best(x, W, mean, s2):
        eye = np.eye(W.shape[1])
        P = W.T @ W / s2 + eye
        means = (x - mean) @ W @ np.linalg.inv(P) / s2
        variances = 1 / np.diag(P)
        if flaw == "marginal variances of the posterior":
            variances = np.diag(np.linalg.inv(P))
        if flaw == "standard deviations":
            variances = np.sqrt(variances)
        if flaw == "no prior in the variances":
            variances = 1 / (np.diag(P) - 1)
        if flaw == "one pass from zero":
            means = (x - mean) @ W / s2 * variances
        if flaw == "not centred":
            means = x @ W @ np.linalg.inv(P) / s2
        return means, variances

    return (best,)


add(
    "mean_field",
    mean_field,
    LINEAR,
    {
        "marginal variances of the posterior": ("marginal", "inverse", "diagonal", "P⁻¹", "KL(p"),
        "standard deviations": ("std", "standard deviation", "square root", "root"),
        "no prior in the variances": ("prior",),
        "one pass from zero": ("coupl", "other latents", "diagonal", "one pass", "iteration"),
        "not centred": ("mean", "centred", "μ is", "without μ", "− μ"),
    },
)


# ---------------------------------------------------------------------------------------------------------------- EM


def log_joint(flaw: str, x: Any, weights: Any, means: Any, covs: Any) -> Any:
    """log w_k N(x; m_k, C_k), (N, K), as in scikit-learn: by Cholesky factors."""
    D, columns = x.shape[1], []
    for m, C in zip(means, covs, strict=True):
        if flaw == "diagonal of the covariances only":
            C = np.diag(np.diag(C))
        L = np.linalg.cholesky(C)
        y = np.linalg.solve(L, (x - m).T)
        square = np.sum(y**2, axis=0)
        if flaw == "multiplies by the covariance, not its inverse":
            square = np.einsum("nd,de,ne->n", x - m, C, x - m)
        if flaw == "one triangular solve, no square":
            square = np.sum(np.abs(y), axis=0)
        half_log_det = np.sum(np.log(np.diag(L)))
        if flaw == "determinant without its root":
            half_log_det = 2 * half_log_det
        if flaw == "half of the log-determinant, twice halved":
            half_log_det = 0.5 * half_log_det
        if flaw == "sign of the log-determinant":
            half_log_det = -half_log_det
        if flaw == "no determinant":
            half_log_det = 0.0
        exponent = square if flaw == "exponent without a half" else 0.5 * square
        constant = 0.5 * D * LOG_2PI
        if flaw == "no log 2 pi":
            constant = 0.0
        if flaw == "2 pi once, not per dimension":
            constant = 0.5 * LOG_2PI
        columns.append(-exponent - half_log_det - constant)
    table_of = np.stack(columns, axis=1)
    if flaw == "no mixing weights":
        return table_of
    return table_of + (weights if flaw == "weights without log" else np.log(weights))


def e_step(flaw: str) -> tuple[Callable, ...]:
    """Responsibilities."""

    def responsibilities(x, weights, means, covs):
        logs = log_joint(flaw, x, weights, means, covs)
        if flaw == "densities without logarithms, plus 1e-10":
            density = np.exp(logs)
            return density / (density.sum(axis=1, keepdims=True) + 1e-10)
        if flaw == "normalised over the points":
            return np.exp(logs - logsumexp(logs, axis=0))
        if flaw == "hard assignment":
            return np.eye(logs.shape[1])[logs.argmax(axis=1)]
        if flaw == "returns logarithms":
            return logs - logsumexp(logs, axis=1, keepdims=True)
        if flaw == "not normalised":
            return np.exp(logs)
        return np.exp(logs - logsumexp(logs, axis=1, keepdims=True))

    return (responsibilities,)


POINTS = np.concatenate([RNG.normal(-1, 0.8, size=(14, 2)), RNG.normal([1.5, 0.5], 1.1, size=(16, 2))])
MIX = (np.array([0.5, 0.2, 0.3]), RNG.normal(size=(3, 2)), np.stack([spd(2), spd(2, 0.7), spd(2, 1.6)]))
GMM = (POINTS, *MIX)
add(
    "e_step",
    e_step,
    GMM,
    {
        "no mixing weights": ("weight", "prior"),
        "normalised over the points": ("axis", "points", "examples", "columns"),
        "exponent without a half": (
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "half",
            "twice",
            "factor",
        ),
        "sign of the log-determinant": ("determinant", "sign"),
        "densities without logarithms, plus 1e-10": ("underflow", "logarithm", "softmax", "1e-10", "added"),
        "hard assignment": ("hard", "nearest", "argmax", "one"),
        "multiplies by the covariance, not its inverse": ("inverse", "precision", "covariance in place"),
        "not normalised": ("normali", "divided", "sum"),
    },
)
add(
    "e_step",
    e_step,
    GMM,
    {
        "determinant without its root": (
            "determinant",
            "root",
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
        ),
        "diagonal of the covariances only": ("diagonal",),
        "weights without log": ("weight", "log"),
        "returns logarithms": ("log",),
    },
    single=True,
)


def m_step(flaw: str, x: Any, resp: Any, old_means: Any) -> tuple[Any, Any, Any]:
    """Weights, means and full covariances."""
    N, D = x.shape
    counts = resp.sum(axis=0)
    means = resp.T @ x / counts[:, None]
    if flaw == "means divided by N":
        means = resp.T @ x / N
    if flaw == "plain average of the points":
        means = np.tile(x.mean(axis=0), (len(counts), 1))
    centre = old_means if flaw == "old means in the covariance" else means
    delta = x[:, None] - centre
    covs = np.einsum("nk,nkd,nke->kde", resp, delta, delta)
    below = counts - 1 if flaw == "divides by N_k - 1" else counts
    if flaw == "covariances divided by N":
        below = np.full(len(counts), N)
    covs = covs / below[:, None, None]
    if flaw == "squared responsibilities in the covariance":
        covs = np.einsum("nk,nkd,nke->kde", resp**2, delta, delta) / counts[:, None, None]
    if flaw == "second moment, not centred":
        covs = np.einsum("nk,nd,ne->kde", resp, x, x) / counts[:, None, None]
    if flaw == "adds 1e-3 to the diagonal":
        covs = covs + 1e-3 * np.eye(D)
    if flaw == "off-diagonal entries dropped":
        covs = covs * np.eye(D)
    weights = counts / N
    if flaw == "weights not divided":
        weights = counts
    if flaw == "weights stay uniform":
        weights = np.full(len(counts), 1 / len(counts))
    return weights, means, covs


def em_step(flaw: str) -> tuple[Callable, ...]:
    """One step of EM for a full mixture."""
    (responsibilities,) = e_step(flaw)

    def step(x, weights, means, covs):
        new = m_step(flaw, x, responsibilities(x, weights, means, covs), means)
        return (weights, *new[1:]) if flaw == "weights not updated" else new

    return (step,)


add(
    "em",
    em_step,
    GMM,
    {
        "old means in the covariance": ("old mean", "means before", "before the update", "old"),
        "divides by N_k - 1": ("N_k − 1", "− 1", "unbiased"),
        "weights not updated": ("weights", "old weight", "unchanged"),
        "covariances divided by N": ("divided by N", "/N", "N_k"),
        "second moment, not centred": ("centred", "second moment", "mean"),
        "adds 1e-3 to the diagonal": ("added", "diagonal", "ridge", "+ "),
        "hard assignment": ("hard", "k-means", "argmax", "nearest"),
        "no mixing weights": ("weight",),
        "squared responsibilities in the covariance": ("squared", "square"),
    },
)
add(
    "em",
    em_step,
    GMM,
    {
        "off-diagonal entries dropped": ("diagonal",),
        "weights not divided": ("N_k", "counts", "divided", "sum"),
        "normalised over the points": ("axis", "points", "examples"),
        "means divided by N": ("divided by N", "/N", "N_k"),
    },
    single=True,
)


def em_family(kind: str, flaw: str) -> tuple[Callable, ...]:
    """Steps with a restricted covariance."""
    (full,) = em_step("")

    def step(x, weights, means, covs):
        w, m, C = full(x, weights, means, covs)
        eye = np.eye(x.shape[1])
        if kind == "tied":
            parts = np.full(len(w), 1 / len(w)) if flaw == "components count equally" else w
            if flaw == "old weights in the average":
                parts = weights
            one = np.einsum("k,kde->de", parts, C)
            if flaw == "covariance of all data":
                one = np.cov(x.T, bias=True)
            return w, m, np.tile(one, (len(w), 1, 1))
        if kind == "spherical":
            size = np.trace(C, axis1=1, axis2=2)
            if flaw == "trace, not divided by D":
                return w, m, size[:, None, None] * eye
            if flaw == "geometric mean":
                return w, m, np.linalg.det(C)[:, None, None] ** (1 / len(eye)) * eye
            return w, m, size[:, None, None] / len(eye) * eye
        if flaw == "square root":
            return w, m, np.sqrt(C * eye)
        if flaw == "inverse of the diagonal of the precision":
            return w, m, eye / np.diagonal(np.linalg.inv(C), axis1=1, axis2=2)[:, None]
        return w, m, C * eye

    return (step,)


TIED = np.tile(spd(2), (3, 1, 1))
add(
    "em",
    partial(em_family, "tied"),
    (POINTS, *MIX[:2], TIED),
    {
        "components count equally": ("equal", "weight", "mean over", "N_k"),
        "covariance of all data": ("all data", "total", "whole data", "between"),
    },
    label="tied",
    covariance_type="tied",
)
add(
    "em",
    partial(em_family, "spherical"),
    (POINTS, *MIX[:2], np.tile(np.eye(2), (3, 1, 1)) * np.array([0.5, 1.0, 2.0])[:, None, None]),
    {
        "trace, not divided by D": (*OF_D, "trace", "sum", "mean"),
        "geometric mean": ("geometric", "determinant"),
    },
    label="spherical",
    covariance_type="spherical",
)
add(
    "em",
    partial(em_family, "diag"),
    (POINTS, *MIX[:2], MIX[2] * np.eye(2)),
    {
        "square root": ("std", "standard deviation", "root"),
        "inverse of the diagonal of the precision": ("precision", "inverse"),
    },
    label="diag",
    covariance_type="diag",
)


def em_loop(flaw: str) -> tuple[Callable, ...]:
    """EM for five steps from a start, with the objective."""

    def em() -> tuple:
        x, weights, means, covs = GMM
        history, old = [], None
        n_steps = 4 if flaw == "stops one step early" else 5
        for _ in range(n_steps):
            logs = log_joint("", x, weights, means, covs)
            resp = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
            history.append(logsumexp(logs, axis=1).mean())
            used = old if flaw == "responsibilities of the step before" and old is not None else resp
            old = resp
            new_weights, new_means, covs = m_step(flaw, x, used, means)
            weights = weights if flaw == "weights never updated" else new_weights
            means = new_means
        history.append(logsumexp(log_joint("", x, weights, means, covs), axis=1).mean())
        if flaw == "stops one step early":
            history.append(history[-1])
        if flaw == "objective after the M-step":
            history = [*history[1:], history[-1]]
        values = np.array(history)
        if flaw == "sum over the points":
            values = values * len(x)
        return (-values if flaw == "negative log-likelihood" else values), weights, means, covs

    return (em,)


add(
    "em_loop",
    em_loop,
    (*GMM, 5),
    {
        "responsibilities of the step before": ("old", "before", "stale", "last step", "previous"),
        "objective after the M-step": ("after", "shift", "late", "next", "off by one"),
        "sum over the points": ("sum", "N times", "mean"),
        "stops one step early": ("step", "early", "fewer", "one less"),
        "divides by N_k - 1": ("− 1", "unbiased"),
        "negative log-likelihood": ("sign",),
    },
)


def statistics(flaw: str) -> tuple[Callable, ...]:
    """Expected counts, means, covariances and mean log-likelihood."""

    def all_of() -> tuple:
        x, weights, means, covs = GMM
        logs = log_joint(flaw, x, weights, means, covs)
        total = logsumexp(logs, axis=1)
        resp = np.exp(logs - total[:, None])
        _, new_means, new_covs = m_step(flaw, x, resp, means)
        counts = resp.sum(axis=0)
        if flaw == "shares in place of counts":
            counts = counts / len(x)
        score = total.sum() if flaw == "sum of the log-likelihood" else total.mean()
        if flaw == "log of the mean likelihood":
            score = np.log(np.exp(total).mean())
        return counts, new_means, new_covs, score

    return (all_of,)


add(
    "statistics",
    statistics,
    GMM,
    {
        "shares in place of counts": ("divided by N", "/N", "share", "weights", "divided"),
        "sum of the log-likelihood": ("sum", "N times", "mean"),
        "old means in the covariance": ("old mean", "before", "old"),
        "no log 2 pi": ("2π", "constant"),
        "second moment, not centred": ("centred", "second moment", "mean"),
        "log of the mean likelihood": ("log of the mean", "outside", "mean of"),
    },
)


def free_energy(flaw: str) -> tuple[Callable, ...]:
    """E_q log p(x, z) - log q."""

    def energy(x, log_resp, weights, means, covs):
        logs = log_joint(flaw, x, weights, means, covs)
        resp = np.exp(log_resp)
        expected, entropy = np.sum(resp * logs, axis=1), -np.sum(resp * log_resp, axis=1)
        return {
            "no entropy": expected,
            "entropy subtracted": expected - entropy,
            "log-likelihood, whatever q": logsumexp(logs, axis=1),
            "mean over components": np.mean(resp * (logs - log_resp), axis=1),
            "entropy of the weights": expected - np.sum(weights * np.log(weights)),
        }.get(flaw, expected + entropy)

    return (energy,)


LOG_RESP = np.log(table(30, 3, axis=1))
add(
    "free_energy",
    free_energy,
    (POINTS, LOG_RESP, *MIX),
    {
        "no entropy": ("entropy",),
        "entropy subtracted": ("sign", "entropy"),
        "log-likelihood, whatever q": ("log p_θ(x)", "log-likelihood", "evidence"),
        "no mixing weights": ("weight",),
        "half of the log-determinant, twice halved": ("determinant", "half", "quarter"),
        "2 pi once, not per dimension": ("2π", "once", *OF_D),
    },
)


def covariance_types(flaw: str) -> tuple[Callable, ...]:
    """Covariances of every type with a prior of some counts."""

    def make(S: Any, N: Any) -> Callable:
        def maximum(kind, variance, count):
            K, D = S.shape[:2]
            eye = np.eye(D)
            prior = (variance if flaw == "count left out of the prior" else count * variance) * eye
            if count == 0:
                prior = 0 * eye
            below = N + (0 if flaw == "count left out of the denominator" else count)
            C = (N[:, None, None] * S + prior) / below[:, None, None]
            if kind == "tied":
                total = np.sum(N[:, None, None] * S, axis=0)
                if flaw == "tied: components count equally":
                    return np.tile((N.sum() * S.mean(axis=0) + prior) / (N.sum() + count), (K, 1, 1))
                if flaw == "tied: prior once per component":
                    return np.tile((total + K * prior) / (N.sum() + K * count), (K, 1, 1))
                if flaw == "tied: a list of one":
                    return ((total + prior) / (N.sum() + count))[None]
                return np.tile((total + prior) / (N.sum() + count), (K, 1, 1))
            if kind == "diag":
                return C if flaw == "diag: keeps the off-diagonal entries" else C * eye
            if kind == "spherical":
                size = np.trace(C, axis1=1, axis2=2) / D
                if flaw == "spherical: trace":
                    size = size * D
                if flaw == "spherical: largest variance":
                    size = np.diagonal(C, axis1=1, axis2=2).max(axis=1)
                return size[:, None, None] * eye
            return C

        return maximum

    return (make(SPREAD, COUNTS),)


SPREAD, COUNTS = np.stack([spd(3), spd(3, 2.0)]), np.array([7.0, 4.5])
add(
    "covariance_types",
    covariance_types,
    (SPREAD, COUNTS, 0.0),
    {
        "count left out of the denominator": ("prior", "count", "denominator", "N_k"),
        "count left out of the prior": ("prior", "count"),
        "tied: components count equally": ("tied", "equal", "N_k", "mean over"),
        "tied: prior once per component": ("tied", "prior", "K times", "each component"),
        "diag: keeps the off-diagonal entries": ("diag", "full", "off-diagonal"),
        "spherical: trace": ("spherical", "trace", *OF_D, "mean"),
        "spherical: largest variance": ("spherical", "largest", "mean"),
    },
)


def kmeans(flaw: str) -> tuple[Callable, ...]:
    """Lloyd's algorithm."""

    def lloyd(x, centres):
        centres, labels = centres.copy(), None
        while True:
            delta = x[:, None] - centres
            distance = np.abs(delta).sum(axis=2) if flaw == "sum of absolute differences" else (delta**2).sum(axis=2)
            new = distance.argmin(axis=1)
            if labels is not None and np.array_equal(new, labels):
                return centres
            labels = new
            for k in range(len(centres)):
                mine = x[labels == k]
                if len(mine):
                    centres[k] = np.median(mine, axis=0) if flaw == "medians" else mine.mean(axis=0)
                if flaw == "centres are the nearest points" and len(mine):
                    centres[k] = mine[((mine - mine.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            if flaw == "one iteration":
                return centres
            if flaw == "moves half of the way":
                return 0.5 * centres

    return (lloyd,)


CLOUD = np.concatenate([RNG.normal(m, s, size=(n, 2)) for m, s, n in ((0, 1, 25), (2, 0.7, 20), (-1, 1, 15))])
add(
    "kmeans",
    kmeans,
    (CLOUD, CLOUD[[0, 1, 2, 3]]),
    {
        "one iteration": ("iteration", "one step", "converge", "first step", "stops"),
        "medians": ("median",),
        "sum of absolute differences": ("absolute", "distance"),
        "centres are the nearest points": ("medoid", "nearest", "point of the data", "mean"),
    },
)


def table_em(flaw: str) -> tuple[Callable, ...]:
    """EM for independent tables."""

    def make(pseudo: Any) -> Callable:
        def step(x, weights, tables):
            N, D = x.shape
            levels = tables.shape[2]
            logs = np.stack([np.log(t[np.arange(D), x]).sum(axis=1) for t in tables], axis=1)
            if flaw != "no weights in the E-step":
                logs = logs + np.log(weights)
            total = logsumexp(logs, axis=1)
            resp = np.exp(logs - total[:, None])
            if flaw == "hard assignment":
                resp = np.eye(len(weights))[logs.argmax(axis=1)]
            hot = np.eye(levels)[x]
            counts = np.einsum("nk,ndl->kdl", resp, hot)
            if flaw != "no pseudo-counts":
                counts = counts + (pseudo.mean() if flaw == "mean pseudo-count everywhere" else pseudo)
            if flaw == "tables divided by N_k alone":
                new = counts / resp.sum(axis=0)[:, None, None]
            elif flaw == "tables normalised over components":
                new = counts / counts.sum(axis=0)
            else:
                new = counts / counts.sum(axis=2, keepdims=True)
            shares = resp.sum(axis=0) / N
            if flaw == "weights from counts with pseudo-counts":
                shares = counts.sum(axis=(1, 2)) / counts.sum()
            return (total / D if flaw == "log P per dimension" else total), shares, new

        return step

    return (make(PSEUDO),)


PSEUDO = 0.3 + RNG.random((4, 3))
add(
    "table_em",
    table_em,
    (RNG.integers(0, 3, size=(20, 4)), np.array([0.65, 0.35]), table(2, 4, 3, axis=2), PSEUDO),
    {
        "no pseudo-counts": ("pseudo", "prior", "count"),
        "no weights in the E-step": ("weight",),
        "tables divided by N_k alone": ("N_k", "normali", "pseudo", "sum"),
        "tables normalised over components": ("axis", "component", "over k"),
        "weights from counts with pseudo-counts": ("pseudo", "weight"),
        "log P per dimension": (*OF_D, "mean over", "per dimension"),
        "hard assignment": ("hard", "argmax"),
        "mean pseudo-count everywhere": ("pseudo", "mean"),
    },
)


def ppca_maximum(flaw: str) -> tuple[Callable, ...]:
    """Tipping and Bishop's closed form by eigenvectors."""

    def maximum(S, k):
        values, vectors = np.linalg.eigh(S)
        if flaw != "smallest eigenvalues":
            values, vectors = values[::-1], vectors[:, ::-1]
        s2 = values[k:].mean()
        if flaw == "sum of the rest":
            s2 = values[k:].sum()
        if flaw == "rest divided by D":
            s2 = values[k:].sum() / len(values)
        if flaw == "largest of the rest":
            s2 = values[k]
        excess = values[:k] - (0.0 if flaw == "noise not subtracted" else s2)
        excess = np.abs(excess)
        W = vectors[:, :k] * (excess if flaw == "no square root" else np.sqrt(excess))
        if flaw == "rows of the eigenvectors":
            W = vectors[:k].T * np.sqrt(excess)
        if flaw == "std of the noise":
            s2 = np.sqrt(s2)
        return W, s2

    return (maximum,)


COV5 = spd(5)
add(
    "ppca_maximum",
    ppca_maximum,
    (COV5, 2),
    {
        "sum of the rest": ("sum", "mean"),
        "rest divided by D": (*OF_D, "divided", "D − k"),
        "noise not subtracted": ("σ²", "subtract", "λ g", "stochasticity"),
        "no square root": ("root", "squared"),
        "smallest eigenvalues": ("smallest", "order", "eigen"),
        "rows of the eigenvectors": ("transposed", "rows", "columns"),
    },
)
STD = ("std", "standard deviation", "root", "σ in place", "σ for")
add("ppca_maximum", ppca_maximum, (COV5, 3), {"std of the noise": STD}, single=True)


def ppca_step(flaw: str) -> tuple[Callable, ...]:
    """EM for PPCA on the sample covariance."""

    def step(S, W, s2):
        D, k = W.shape
        M = W.T @ W + s2 * np.eye(k)
        if flaw == "posterior without the noise":
            M = W.T @ W
        Minv = np.linalg.inv(M)
        SW = S @ W
        inner = s2 * np.eye(k) + Minv @ W.T @ SW
        if flaw == "posterior covariance left out of E zz":
            inner = Minv @ W.T @ SW
        if flaw == "σ² I is I":
            inner = np.eye(k) + Minv @ W.T @ SW
        new = SW @ np.linalg.inv(inner)
        used = W if flaw == "old W in the new variance" else new
        rest = np.trace(S - SW @ Minv @ used.T)
        below = {"divides by D - k": D - k, "not divided by D": 1}.get(flaw, D)
        value = rest / below
        return new, (np.sqrt(value) if flaw == "std" else value)

    return (step,)


STEP = (COV5, RNG.normal(size=(5, 2)), 0.6)
add(
    "ppca_step",
    ppca_step,
    STEP,
    {
        "old W in the new variance": ("old W",),
        "divides by D - k": ("D − k", "divided"),
        "not divided by D": (*OF_D, "divided", "sum", "trace"),
        "posterior covariance left out of E zz": ("covariance", "E zz", "posterior", "spread"),
        "posterior without the noise": ("σ²", "noise", "posterior"),
        "σ² I is I": ("σ²", "identity", "+ I"),
    },
)
add("ppca_step", ppca_step, STEP, {"std": ("std", "standard deviation", "root", "σ in place", "σ for")}, single=True)


def factor_step(flaw: str) -> tuple[Callable, ...]:
    """EM for factor analysis on the sample covariance."""

    def step(S, W, psi):
        k = W.shape[1]
        noise = psi.mean() * np.eye(len(S)) if flaw == "one noise variance in the posterior" else np.diag(psi)
        beta = W.T @ np.linalg.inv(W @ W.T + noise)
        spread = np.eye(k) - beta @ W
        if flaw == "posterior covariance left out":
            spread = 0 * spread
        moment = spread + beta @ S @ beta.T
        new = S @ beta.T @ np.linalg.inv(moment)
        used = W if flaw == "old W in Ψ" else new
        rest = np.diag(S - used @ beta @ S)
        if flaw == "Ψ from the posterior mean alone":
            rest = np.diag(S - 2 * used @ beta @ S + used @ beta @ S @ beta.T @ used.T)
        if flaw == "one variance for all":
            rest = np.full(len(S), rest.mean())
        if flaw == "Ψ from S - W Wᵀ":
            rest = np.diag(S - new @ new.T)
        return new, rest

    return (step,)


add(
    "factor_analysis_step",
    factor_step,
    (COV5, RNG.normal(size=(5, 2)), RNG.uniform(0.3, 1.2, size=5)),
    {
        "old W in Ψ": ("old W",),
        "posterior covariance left out": ("covariance", "E zz", "posterior", "spread"),
        "one variance for all": ("mean", "PPCA", "one variance", "average", "same"),
        "Ψ from S - W Wᵀ": ("W Wᵀ", "W W"),
        "one noise variance in the posterior": ("mean", "PPCA", "one variance", "average"),
        "Ψ from the posterior mean alone": ("posterior", "covariance", "spread"),
    },
)


def missing_information(flaw: str) -> tuple[Callable, ...]:
    """Louis' formula for the means of a mixture."""

    def fractions(x, weights, means, covs):
        K, D = means.shape
        logs = log_joint("", x, weights, means, covs)
        resp = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        score = np.stack([(x - m) @ np.linalg.inv(C) for m, C in zip(means, covs, strict=True)], axis=1)
        complete, missing = np.zeros((K * D, K * D)), np.zeros((K * D, K * D))
        for k in range(K):
            at = slice(k * D, k * D + D)
            count = len(x) * weights[k] if flaw == "counts from the weights" else resp[:, k].sum()
            complete[at, at] = count * np.linalg.inv(covs[k])
            missing[at, at] = np.einsum("n,nd,ne->de", resp[:, k], score[:, k], score[:, k])
        flat = (resp[:, :, None] * score).reshape(len(x), -1)
        if flaw == "only the blocks of one component":
            for k in range(K):
                at = slice(k * D, k * D + D)
                missing[at, at] -= flat[:, at].T @ flat[:, at]
        elif flaw != "second moment of the score":
            missing -= flat.T @ flat
        rates = np.sort(np.linalg.eigvals(np.linalg.solve(complete, missing)).real)[::-1]
        if flaw == "fractions of observed information":
            return np.sort(1 - rates)[::-1]
        return np.sqrt(np.abs(rates)) if flaw == "square roots" else rates

    return (fractions,)


FAR = (np.array([0.6, 0.4]), np.array([[-1.0, -0.8], [1.4, 0.6]]), np.stack([0.8 * np.eye(2), spd(2)]))
add(
    "missing_information",
    missing_information,
    (POINTS, *FAR),
    {
        "fractions of observed information": ("observed", "1 −", "one minus"),
        "only the blocks of one component": ("block", "component", "coupl", "between"),
        "second moment of the score": ("second moment", "square", "mean"),
        "square roots": ("root",),
    },
)


# --------------------------------------------------------------------------------------------------- continuous time


def vp(flaw: str) -> tuple[Callable, ...]:
    """score_sde's VPSDE on a horizon of 1, beta from 0.1 to 20."""
    low, high = 0.1, 20.0

    def total(t: Any) -> Any:
        if flaw == "β(t) t in place of the integral":
            return (low + (high - low) * t) * t
        if flaw == "integral without the half of t²":
            return low * t + (high - low) * t**2
        return low * t + 0.5 * (high - low) * t**2

    def marginal(t):
        B = total(t)
        scale = np.exp(-B if flaw == "scale e^(-B)" else -0.5 * B)
        std = np.sqrt(-np.expm1(-B))
        if flaw == "variance in place of the std":
            std = -np.expm1(-B)
        if flaw == "std is 1 - scale":
            std = -np.expm1(-0.5 * B)
        return scale, std

    def drift(x, t):
        beta = low + (high - low) * np.asarray(t)
        factor = {"drift without a half": -1.0, "drift with a plus": 0.5}.get(flaw, -0.5)
        return factor * np.reshape(beta, (-1, 1)) * x

    def diffusion(t):
        beta = low + (high - low) * t
        return {"g is β": beta, "g is the root of 2β": np.sqrt(2 * beta)}.get(flaw, np.sqrt(beta))

    return marginal, drift, diffusion


add(
    "sde",
    vp,
    (1.0,),
    {
        "variance in place of the std": ("variance", "squared", "root"),
        "β(t) t in place of the integral": ("integral", "β(t)t", "β(t) t", "∫g²", "∫β"),
        "scale e^(-B)": (
            "scale²",
            "squared",
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "half",
        ),
        "drift without a half": (
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "half",
            "twice",
            "factor",
        ),
        "drift with a plus": ("sign",),
        "g is β": ("squared", "g²", "root"),
        "std is 1 - scale": ("1 − scale", "squared", "root"),
        "integral without the half of t²": (
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "half",
            "integral",
        ),
        "g is the root of 2β": ("√2", "factor", *OF_2, "twice"),
    },
    label="VP",
)


def sub_vp(flaw: str) -> tuple[Callable, ...]:
    """score_sde's subVPSDE, horizon 2."""
    low, high, T = 0.2, 8.0, 2.0

    def beta(t: Any) -> Any:
        return low + (high - low) * t if flaw == "time not divided by the horizon" else low + (high - low) * t / T

    def total(t: Any) -> Any:
        return low * t + 0.5 * (high - low) * t**2 / T

    def marginal(t):
        B = total(t)
        return np.exp(-0.5 * B), (np.sqrt(-np.expm1(-B)) if flaw == "std of VP" else -np.expm1(-B))

    def drift(x, t):
        return -0.5 * np.reshape(beta(np.asarray(t)), (-1, 1)) * x

    def diffusion(t):
        discount = -np.expm1(-(1 if flaw == "discount 1 - e^(-B)" else 2) * total(t))
        if flaw == "g of VP":
            discount = 1.0
        return np.sqrt(beta(t)) * discount if flaw == "discount outside the root" else np.sqrt(beta(t) * discount)

    return marginal, drift, diffusion


add(
    "sde",
    sub_vp,
    (2.0,),
    {
        "std of VP": ("VP", "squared", "root"),
        "g of VP": ("VP", "1 − e", "sub-VP", "discount"),
        "discount 1 - e^(-B)": ("e^(−2B)", "2B", "exponent", "twice"),
        "discount outside the root": ("root", "squared"),
        "time not divided by the horizon": ("horizon", *OF_T),
    },
    label="sub-VP, horizon 2",
)


def ve(flaw: str) -> tuple[Callable, ...]:
    """score_sde's VESDE: sigma from 0.02 to 12, horizon 3."""
    low, high, T = 0.02, 12.0, 3.0

    def sigma(t: Any) -> Any:
        return low * (high / low) ** (t / T)

    def marginal(t):
        std = sigma(t)
        if flaw == "variance in place of the std":
            std = std**2
        return np.ones_like(std), std

    def drift(x, t):
        return (-x if flaw == "drift of an OU process" else 0 * x) * np.ones_like(np.reshape(t, (-1, 1)))

    def diffusion(t):
        rate = np.log(high / low) / T
        return {
            "g is σ": sigma(t),
            "no 2 in the derivative": sigma(t) * np.sqrt(rate),
            "derivative without the horizon": sigma(t) * np.sqrt(2 * rate * T),
            "log10 of the ratio": sigma(t) * np.sqrt(2 * rate / np.log(10)),
            "g is dσ/dt": sigma(t) * rate,
        }.get(flaw, sigma(t) * np.sqrt(2 * rate))

    return marginal, drift, diffusion


add(
    "sde",
    ve,
    (3.0,),
    {
        "g is σ": ("g = σ", "log", "derivative", "dσ²/dt"),
        "no 2 in the derivative": (*OF_2, "twice", "half", "factor"),
        "derivative without the horizon": ("horizon", *OF_T),
        "g is dσ/dt": ("derivative", "dσ²/dt", "squared"),
        "drift of an OU process": ("drift", "f x", "D f"),
        "log10 of the ratio": ("factor", "log"),
    },
    label="VE, horizon 3",
)


def cosine(flaw: str) -> tuple[Callable, ...]:
    """A VDM-like angle, x_t = cos(a) x_0 + sin(a) eps with a = pi t/2 * 0.9."""
    rate = 0.5 * np.pi * 0.9

    def marginal(t):
        a = rate * t
        return (np.cos(a) ** 2, np.sin(a) ** 2) if flaw == "squares" else (np.cos(a), np.sin(a))

    def drift(x, t):
        f = -rate * np.tan(rate * np.asarray(t))
        if flaw == "no chain rule":
            f = f / rate
        return np.reshape(f, (-1, 1)) * x

    def diffusion(t):
        tan = np.tan(rate * t)
        square = 2 * rate * tan
        if flaw == "only d std²/dt":
            square = 2 * rate * np.sin(rate * t) * np.cos(rate * t)
        if flaw == "no 2 in g²":
            square = rate * tan
        return np.sqrt(square)

    return marginal, drift, diffusion


add(
    "sde",
    cosine,
    (1.0,),
    {
        "no chain rule": ("factor", "derivative", "drift"),
        "only d std²/dt": ("2 f", "drift", "dσ²/dt", "d std²"),
        "no 2 in g²": ("half", *OF_2, "twice", "factor"),
        "squares": ("squared", "variance"),
    },
    label="cosine",
)


def edm_process(flaw: str) -> tuple[Callable, ...]:
    """EDM with sigma = t."""

    def marginal(t):
        t = np.asarray(t, float)
        return np.ones_like(t), (np.sqrt(t) if flaw == "std is the root of t" else t)

    def drift(x, t):
        return 0 * x * np.reshape(t, (-1, 1))

    def diffusion(t):
        return {"g² = t": np.sqrt(t), "g = 2t": 2 * t, "g = t": 1.0 * t}.get(flaw, np.sqrt(2 * t))

    return marginal, drift, diffusion


add(
    "sde",
    edm_process,
    (80.0,),
    {
        "std is the root of t": ("root", "squared", "variance"),
        "g² = t": (*OF_2, "half", "factor"),
        "g = 2t": ("squared", "root", "g²"),
    },
    label="EDM",
)


def steps_of(flaw: str) -> tuple[Any, ...]:
    """The table of variances of 50 steps of VP, as an array."""
    low, high, T = VP_SHORT.beta_min, VP_SHORT.beta_max, VP_SHORT.horizon
    edges = np.linspace(0, T, 51)
    B = low * edges + 0.5 * (high - low) * edges**2 / T
    at_end = (low + (high - low) * edges[1:] / T) * T / 50
    return {
        "": (-np.expm1(-np.diff(B)),),
        "first order, β(t_i) h": (at_end,),
        "β(t_i) without h": (at_end * 50 / T,),
        "std in place of the variance": (np.sqrt(-np.expm1(-np.diff(B))),),
        "half of the integral": (-np.expm1(-0.5 * np.diff(B)),),
        "cumulative": (-np.expm1(-B[1:]),),
        "integral without 1 - exp": (np.diff(B),),
        "exp at the end of the step": (-np.expm1(-at_end),),
        "one step late": (-np.expm1(-np.diff(B))[[0, *range(49)]],),
    }[flaw]


def discretised(flaw: str) -> Check:
    """The check of (30)-(31) on a table."""
    return kit.check_discretisation(*steps_of(flaw), VP_SHORT)


VP_SHORT = VP(0.3, 9.0, 2.0)
for mistake, phrases in {
    "first order, β(t_i) h": ("first", "β(t", "g²(t", "limit"),
    "std in place of the variance": ("root", "std", "standard deviation", "squared"),
    "half of the integral": ("half", "half", "the ½", "without ½", "no ½", "factor ½", "factor of ½", "½ is"),
    "cumulative": ("cumulative", "ᾱ_t", "1 − ᾱ", "β̄", "from 0", "total"),
    "integral without 1 - exp": ("exp", "first", "integral", "∫g²", "∫β"),
    "exp at the end of the step": ("end", "β(t", "g²(t", "integral"),
    "one step late": ("shift", "step", "late", "off by one", "index"),
    "β(t_i) without h": ("length of a step", "1/h", *OF_T, "factor", "Δt"),
}.items():
    CASES.append(Wrong(f"discretisation: {mistake}", partial(discretised, mistake), phrases))


def levels(sde: Any, t: float) -> tuple[float, float, float, float]:
    """Scale, std, f, g at a number t or an array of times, as columns for arrays."""
    scale, std = sde.marginal(t)
    values = scale, std, sde.rate(t), sde.diffusion(t)
    return tuple(np.reshape(v, (-1, 1)) if np.ndim(v) else float(v) for v in values)


def gaussian_score(sde: Any, mean: Any, cov: Any, x: Any, t: Any) -> Any:
    """Score of diffused Gaussian data, for one time."""
    scale, std, _, _ = levels(sde, t)
    total = scale**2 * cov + std**2 * np.eye(len(mean))
    return -(x - scale * mean) @ np.linalg.inv(total)


def reverse_sde(sde: Any, mean: Any, cov: Any, lam: float) -> Callable:
    """A coding of (32): drift f x - (1 + lam²)/2 g² s, noise lam g."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def drift(x, t):
            t = float(t)
            scale, std, f, g = levels(sde, t)
            score = gaussian_score(sde, mean, cov, x, t)
            if flaw == "score of the data, not diffused":
                score = -(x - mean) @ np.linalg.inv(cov)
            if flaw == "score of q(x_t | 0)":
                score = -x / std**2
            if flaw == "mean of the data not scaled":
                score = -(x - mean) @ np.linalg.inv(scale**2 * cov + std**2 * np.eye(len(mean)))
            factor = {
                "½(1 + λ)": 0.5 * (1 + lam),
                "factor of the SDE": 1.0,
                "factor of the flow": 0.5,
                "λ² alone": lam**2,
                "score with a plus": -0.5 * (1 + lam**2),
            }.get(flaw, 0.5 * (1 + lam**2))
            size = g if flaw == "g in place of g²" else g**2
            forward = {"no drift of x": 0.0, "sign of the forward drift": -f, "half of the forward drift": 0.5 * f}
            return forward.get(flaw, f) * x - factor * size * score

        def diffusion(t):
            g = float(sde.diffusion(float(t)))
            return {"noise λ² g": lam**2 * g, "noise g": g, "noise g²": g**2, "no noise": 0.0}.get(flaw, lam * g)

        return drift, diffusion

    return code


MEAN3, COV3 = RNG.normal(size=3), spd(3, 0.8)
HALF = ("half", "the ½", "without ½", "no ½", "factor ½", "factor of ½", "½ is", "half", "twice", "factor")
add(
    "reverse_sde",
    reverse_sde(VP(), MEAN3, COV3, 1.0),
    (VP(), MEAN3, COV3),
    {
        "score with a plus": ("sign",),
        "g in place of g²": ("g²", "squared", "g in place"),
        "factor of the flow": ("flow", *HALF),
        "score of the data, not diffused": ("data", "diffused", "clean", "not of x_t"),
        "no drift of x": ("drift", "f x"),
        "noise g²": ("g²", "squared"),
        "no noise": ("noise", "flow", "G = 0", "is 0", "zero"),
    },
    label="VP",
)
add(
    "reverse_sde",
    reverse_sde(VE(0.05, 10.0, 2.0), MEAN3, COV3, 0.0),
    (VE(0.05, 10.0, 2.0), MEAN3, COV3, 0.0),
    {
        "factor of the SDE": ("reverse SDE", *HALF),
        "noise g": ("noise", "reverse SDE", "diffusion"),
        "score of q(x_t | 0)": ("x_0", "std", "data", "prior", "N(0"),
    },
    label="VE, flow",
)
add(
    "reverse_sde",
    reverse_sde(SubVP(0.1, 12.0, 1.5), MEAN3, COV3, 0.5),
    (SubVP(0.1, 12.0, 1.5), MEAN3, COV3, 0.5),
    {
        "½(1 + λ)": ("λ²", "1 + λ", "λ g", "stochasticity"),
        "λ² alone": ("λ²", "½(1", "λ g", "stochasticity"),
        "noise λ² g": ("λ²", "squared", "λ g", "stochasticity"),
        "sign of the forward drift": ("sign",),
        "mean of the data not scaled": ("mean", "scale"),
        "half of the forward drift": HALF,
    },
    label="sub-VP, λ = ½",
)


def reverse_step(sde: Any, mean: float, variance: float, lam: float, scheme: str = "Euler") -> Callable:
    """One step of Euler-Maruyama or of Ho's ancestral form of it."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def score(x: Any, t: float) -> Any:
            scale, std, _, _ = levels(sde, t)
            return -(x - scale * mean) / (scale**2 * variance + std**2)

        def step(x, t, s, noise):
            h = t - s
            at = s if flaw == "drift and noise at the end of the step" else t
            _, _, f, g = levels(sde, at)
            value = score(x, s if flaw == "score at s" else at)
            factor = {"flow's half": 0.5, "without a half": 1.0}.get(flaw, 0.5 * (1 + lam**2))
            slope = f * x - factor * (g if flaw == "g in place of g²" else g**2) * value
            if flaw == "score with a plus":
                slope = f * x + factor * g**2 * value
            if scheme == "exponential":
                slope = f * x
                mean_x = x * np.exp(-f * h) + factor * g**2 * value * h
            else:
                mean_x = x - slope * h
            if flaw == "step forward in time":
                mean_x = x + slope * h
            size = {
                "noise times dt, not its root": lam * g * h,
                "noise without the root of dt": lam * g,
                "noise without g": lam * np.sqrt(h),
                "noise with g²": lam * g**2 * np.sqrt(h),
                "no noise": 0.0,
                "noise twice": np.sqrt(2) * lam * g * np.sqrt(h),
            }.get(flaw, lam * g * np.sqrt(h))
            return mean_x + size * noise

        return (step,)

    return code


NOISE_WORDS = ("√(t − s)", "√dt", "√h", "root", "√Δt", "√(", "square root")
add(
    "reverse_step",
    reverse_step(VP(0.1, 6.0, 2.0), 0.7, 0.5, 1.0),
    (VP(0.1, 6.0, 2.0), 0.7, 0.5),
    {
        "noise times dt, not its root": NOISE_WORDS,
        "noise without the root of dt": NOISE_WORDS,
        "noise without g": ("factor g", "without g", "g is", "diffusion"),
        "flow's half": ("flow", *HALF),
        "step forward in time": ("sign", "forward", "dt"),
        "score with a plus": ("sign",),
        "no noise": ("noise", "flow"),
    },
    label="VP, horizon 2",
)
add(
    "reverse_step",
    reverse_step(EDM(10.0), -0.3, 0.25, 1.0),
    (EDM(10.0), -0.3, 0.25),
    {
        "noise with g²": ("g²", "squared"),
        "g in place of g²": ("g²", "squared", "g in place"),
        "noise twice": ("√2", "twice", "factor", *OF_2),
    },
    label="EDM",
)
add(
    "reverse_step",
    reverse_step(SubVP(0.1, 8.0), 0.5, 1.5, 0.0),
    (SubVP(0.1, 8.0), 0.5, 1.5, 0.0),
    {"without a half": ("reverse SDE", *HALF), "step forward in time": ("sign", "forward", "dt")},
    label="sub-VP, flow",
)
add(
    "reverse_step",
    reverse_step(VP(0.1, 6.0, 2.0), 0.7, 0.5, 1.0, "exponential"),
    (VP(0.1, 6.0, 2.0), 0.7, 0.5),
    {"flow's half": ("flow", *HALF), "noise times dt, not its root": NOISE_WORDS},
    label="semi-linear",
)


def net(x: Any, t: float) -> Any:
    """A score that is neither affine nor exact."""
    return np.sin(x + 0.3 * t) - 0.8 * x


def reverse_sampler(sde: Any, lam: float, n_corrections: int) -> Callable:
    """Euler-Maruyama as a loop, with Langevin corrections."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def correct(x: Any, t: float, z: Any) -> Any:
            std = levels(sde, t)[1]
            snr = 0.16
            delta = 2 * (snr * std) ** 2
            if flaw == "step of the corrector not squared":
                delta = 2 * snr * std
            if flaw == "half of the corrector's step":
                delta = (snr * std) ** 2
            spread = np.sqrt(delta) if flaw == "corrector's noise √δ" else np.sqrt(2 * delta)
            return x + delta * net(x, t) + spread * z

        def sample(x, times, noise):
            n = len(times) - 1
            for i in range(n):
                t, s = float(times[i]), float(times[i + 1])
                h = float(times[0] - times[-1]) / n if flaw == "equal steps assumed" else t - s
                at = s if flaw == "drift and g at the end of the step" else t
                _, _, f, g = levels(sde, at)
                z = noise[i, 0] if n_corrections else noise[i]
                if flaw == "no noise in the last step" and i == n - 1:
                    z = 0 * z
                if flaw == "one noise for all steps":
                    z = noise[0, 0] if n_corrections else noise[0]
                if flaw == "corrects before the step":
                    for j in range(n_corrections):
                        x = correct(x, t, noise[i, 1 + j])
                factor = {"λ in place of λ²": 0.5 * (1 + lam), "full score": 1.0}.get(flaw, 0.5 * (1 + lam**2))
                x = x - (f * x - factor * g**2 * net(x, at)) * h + lam * g * np.sqrt(h) * z
                if flaw == "clips the states to [-3, 3]":
                    x = np.clip(x, -3, 3)
                if flaw not in ("corrects before the step", "no corrections"):
                    for j in range(n_corrections):
                        x = correct(x, t if flaw == "corrector at t, not at s" else s, noise[i, 1 + j])
                if flaw == "stops one step early" and i == n - 2:
                    return x
            return x

        return (sample,)

    return code


GRID = np.array([1.0, 0.8, 0.66, 0.4, 0.25, 0.1, 0.02])
add(
    "reverse_sampler",
    reverse_sampler(VP(0.1, 5.0), 1.0, 0),
    (net, VP(0.1, 5.0), GRID),
    {
        "no noise in the last step": ("last step", "last"),
        "drift and g at the end of the step": ("end", "at s", "late"),
        "equal steps assumed": ("even", "equal", "grid", "steps of one"),
        "one noise for all steps": ("one noise", "same noise", "first noise", "noise"),
        "stops one step early": ("last step", "early", "fewer", "one step"),
    },
    label="VP",
)
add(
    "reverse_sampler",
    reverse_sampler(VE(0.1, 3.0), 0.5, 0),
    (net, VE(0.1, 3.0), GRID, 0.5),
    {"λ in place of λ²": ("λ²", "1 + λ", "λ g"), "clips the states to [-3, 3]": ("clip",)},
    label="VE, λ = ½",
)
add(
    "reverse_sampler",
    reverse_sampler(VP(0.1, 5.0), 1.0, 2),
    (net, VP(0.1, 5.0), GRID, 1.0, 2),
    {
        "corrector's noise √δ": ("√2", "√(2δ)", "2δ", "half"),
        "corrector at t, not at s": ("at t", "at s", "time"),
        "step of the corrector not squared": ("squared", "snr"),
        "corrects before the step": ("before", "order", "first"),
        "half of the corrector's step": HALF,
        "no corrections": ("correct", "Langevin"),
    },
    label="corrections",
)


def heun(sde: Any) -> Callable:
    """Heun's method on the flow."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def slope(x: Any, t: float) -> Any:
            _, _, f, g = levels(sde, t)
            return f * x - (1.0 if flaw == "slope of the reverse SDE" else 0.5) * g**2 * net(x, t)

        def sample(x, times):
            times = [float(t) for t in times]
            for i, (t, s) in enumerate(itertools.pairwise(times)):
                h = s - t
                first = slope(x, t)
                ahead = x + h * first
                second = slope(x if flaw == "second slope at the old x" else ahead, t if "old time" in flaw else s)
                if flaw == "Euler only" or (flaw == "Euler in the last step" and i == len(times) - 2):
                    x = ahead
                elif flaw == "midpoint":
                    x = x + h * slope(x + 0.5 * h * first, t + 0.5 * h)
                elif flaw == "correction added to the Euler step":
                    x = ahead + 0.5 * h * (first + second)
                elif flaw == "slopes added, not averaged":
                    x = x + h * (first + second)
                elif flaw == "second slope alone":
                    x = x + h * second
                else:
                    x = x + 0.5 * h * (first + second)
            return x

        return (sample,)

    return code


add(
    "heun",
    heun(VP(0.1, 5.0)),
    (net, VP(0.1, 5.0), GRID),
    {
        "Euler only": ("Euler",),
        "Euler in the last step": ("last", "Euler"),
        "second slope at the old time": ("old time", "at t", "start", "time"),
        "slopes added, not averaged": (
            "mean",
            "half",
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "sum",
            "twice",
        ),
        "slope of the reverse SDE": ("reverse SDE", *HALF),
    },
    label="VP",
)
add(
    "heun",
    heun(EDM(4.0)),
    (net, EDM(4.0), 2 * GRID),
    {
        "midpoint": ("midpoint", "middle"),
        "second slope at the old x": ("old x", "start", "x_t"),
        "second slope alone": ("second", "end", "mean", "Euler"),
    },
    label="EDM",
)


def langevin(sde: Any, variance: Any, snr: float) -> Callable:
    """One corrector step."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def step(x, t, noise):
            std = levels(sde, float(t))[1]
            delta = 2 * (snr * std) ** 2
            if flaw == "snr not squared":
                delta = 2 * snr * std**2
            if flaw == "no 2 in δ":
                delta = (snr * std) ** 2
            if flaw == "std left out of δ":
                delta = 2 * snr**2
            if flaw == "std not squared":
                delta = 2 * snr**2 * std
            score = -x / variance
            if flaw == "score times std":
                score = score * std
            sign = -1 if flaw == "sign of the score" else 1
            half = 0.5 if flaw == "half of δ in the drift" else 1.0
            spread = {
                "noise √δ": np.sqrt(delta),
                "noise 2δ": 2 * delta,
                "no noise": 0.0,
            }.get(flaw, np.sqrt(2 * delta))
            return x + sign * half * delta * score + spread * noise

        return (step,)

    return code


VARIANCES = np.array([0.4, 1.0, 2.2])
add(
    "langevin_step",
    langevin(VP(), VARIANCES, 0.16),
    (VP(), VARIANCES, 0.16),
    {
        "noise √δ": ("√(2δ)", "√2", "2δ"),
        "snr not squared": ("snr", "squared"),
        "sign of the score": ("sign",),
        "half of δ in the drift": HALF,
        "no noise": ("noise",),
    },
    label="VP",
)
add(
    "langevin_step",
    langevin(VE(0.01, 5.0), 0.7, 0.2),
    (VE(0.01, 5.0), 0.7, 0.2),
    {
        "no 2 in δ": (*OF_2, "half", "half", "the ½", "without ½", "no ½", "factor ½", "factor of ½", "½ is", "factor"),
        "std left out of δ": ("std",),
        "noise 2δ": ("root", "√(", "square root"),
        "std not squared": ("std", "squared"),
        "score times std": ("std", "noise", "ε is", "ε̂"),
    },
    label="VE",
)


# ---------------------------------------------------------------------------------------- scores of mixtures, bounds


LAW = Mixture(MIX[0], MIX[1] * 1.5, MIX[2] * 0.5)


def parts(law: Any, x: Any, scale: float, std: float, flaw: str = "") -> tuple[Any, Any, Any]:
    """Responsibilities (N, K), C_k^-1 (x - m_k) (N, K, D), and E[x_0 | x_t, k] of a diffused mixture."""
    D = x.shape[1]
    covs = scale**2 * law.covariances + std**2 * np.eye(D)
    means = scale * law.means
    logs = log_joint(flaw, x, law.weights, means, covs)
    if flaw == "responsibilities of the clean mixture":
        logs = log_joint("", x, law.weights, law.means, law.covariances)
    resp = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    if flaw == "hard assignment":
        resp = np.eye(len(law.weights))[logs.argmax(axis=1)]
    if flaw == "weights as responsibilities":
        resp = np.tile(law.weights, (len(x), 1))
    delta = x[:, None] - means
    white = np.einsum("kde,nke->nkd", np.linalg.inv(covs), delta)
    if flaw == "multiplies by the covariance":
        white = np.einsum("kde,nke->nkd", covs, delta)
    back = law.means + scale * np.einsum("kde,nke->nkd", law.covariances, white)
    return resp, white, back


def denoiser(flaw: str) -> tuple[Callable, ...]:
    """E[x_0 | x_t] of a mixture."""

    def denoise(x, scale, std):
        resp, white, back = parts(LAW, x, scale, std, flaw)
        score = -np.einsum("nk,nkd->nd", resp, white)
        if flaw == "Tweedie with std":
            return (x + std * score) / scale
        if flaw == "Tweedie with a minus":
            return (x - std**2 * score) / scale
        if flaw == "not divided by the scale":
            return x + std**2 * score
        if flaw == "means of the components alone":
            return resp @ LAW.means
        if flaw == "one Gaussian with the moments":
            mean, cov = LAW.mean(), LAW.covariance()
            gain = scale * cov @ np.linalg.inv(scale**2 * cov + std**2 * np.eye(len(mean)))
            return mean + (x - scale * mean) @ gain.T
        return np.einsum("nk,nkd->nd", resp, back)

    return (denoise,)


add(
    "denoiser",
    denoiser,
    (LAW, RNG.normal(size=(6, 2)), 0.8, 0.6),
    {
        "Tweedie with std": ("std", "squared", "std²"),
        "Tweedie with a minus": ("sign",),
        "not divided by the scale": ("scale", "divided"),
        "means of the components alone": ("mean", "component"),
        "one Gaussian with the moments": ("Gaussian", "linear", "moments"),
        "responsibilities of the clean mixture": ("responsib", "clean", "diffused", "weights"),
        "weights as responsibilities": ("weights", "responsib", "prior"),
        "hard assignment": ("hard", "nearest", "argmax", "most probable"),
    },
)


def log_prob(flaw: str) -> tuple[Callable, ...]:
    """log p of a mixture."""

    def density(x):
        logs = log_joint(flaw, x, LAW.weights, LAW.means, LAW.covariances)
        if flaw == "best component only":
            return logs.max(axis=1)
        if flaw == "log of a sum of densities plus 1e-12":
            return np.log(np.exp(logs).sum(axis=1) + 1e-12)
        if flaw == "weighted mean of log densities":
            return (logs - np.log(LAW.weights)) @ LAW.weights
        if flaw == "bits":
            return logsumexp(logs, axis=1) / np.log(2)
        if flaw == "per dimension":
            return logsumexp(logs, axis=1) / x.shape[1]
        return logsumexp(logs, axis=1)

    return (density,)


add(
    "log_prob",
    log_prob,
    (LAW, RNG.normal(size=(6, 2))),
    {
        "no log 2 pi": ("2π", "constant"),
        "2 pi once, not per dimension": ("2π", "once", *OF_D),
        "exponent without a half": HALF,
        "sign of the log-determinant": ("determinant", "sign"),
        "no mixing weights": ("weight",),
        "best component only": ("largest", "max", "one component", "best", "most probable"),
        "log of a sum of densities plus 1e-12": ("underflow", "logsumexp", "1e-12", "added", "floor"),
        "weighted mean of log densities": ("mean of log", "outside", "mean of the log", "Jensen"),
        "half of the log-determinant, twice halved": (
            "determinant",
            "half",
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
        ),
    },
)
add(
    "log_prob",
    log_prob,
    (LAW, RNG.normal(size=(6, 2))),
    {"bits": ("bits", "log 2", "log₂"), "per dimension": (*OF_D, "dimension", "mean over")},
    single=True,
)


def mixture_score(flaw: str) -> tuple[Callable, ...]:
    """Score of a mixture."""

    def score(x):
        resp, white, _ = parts(LAW, x, 1.0, 0.0, flaw)
        value = -np.einsum("nk,nkd->nd", resp, white)
        if flaw == "sign":
            value = -value
        if flaw == "gradient of p, not of log p":
            logs = log_joint("", x, LAW.weights, LAW.means, LAW.covariances)
            value = value * np.exp(logsumexp(logs, axis=1))[:, None]
        if flaw == "towards the mean of the mixture":
            value = -np.linalg.solve(LAW.covariance(), (x - LAW.mean()).T).T
        if flaw == "half of the score":
            value = 0.5 * value
        return value

    return (score,)


add(
    "score",
    mixture_score,
    (LAW, RNG.normal(size=(6, 2))),
    {
        "sign": ("sign",),
        "no mixing weights": ("weight",),
        "multiplies by the covariance": ("inverse", "precision", "covariance in place"),
        "hard assignment": ("hard", "nearest", "argmax", "most probable", "one component"),
        "weights as responsibilities": ("weights", "responsib", "prior"),
        "gradient of p, not of log p": ("∇p", "gradient of p", "density", "log"),
        "towards the mean of the mixture": ("Gaussian", "moments", "mean"),
        "no determinant": ("determinant",),
    },
)


def matching(flaw: str) -> tuple[Callable, ...]:
    """The three losses of score matching."""

    def denoising(score, noise, std):
        target = noise if flaw == "denoising: target not divided by std" else noise / std
        if flaw == "denoising: divided by std²":
            target = noise / std**2
        square = (score - target) ** 2 if flaw == "denoising: sign of the target" else (score + target) ** 2
        if flaw == "denoising: weighted by std²":
            square = std**2 * square
        total = square.mean(axis=1) if flaw == "denoising: mean over dimensions" else square.sum(axis=1)
        return 0.5 * total if flaw == "denoising: a half" else total

    def implicit(score, divergence):
        factor = {"implicit: divergence once": 1.0, "implicit: divergence subtracted": -2.0}.get(flaw, 2.0)
        return np.sum(score**2, axis=1) + factor * divergence

    def sliced(score, v, derivative):
        slope = np.sum(v * derivative, axis=1)
        if flaw == "sliced: derivative not projected":
            slope = derivative.sum(axis=1)
        factor = 1.0 if flaw == "sliced: derivative once" else 2.0
        square = np.sum(score**2, axis=1)
        if flaw == "sliced: square of the sum":
            square = score.sum(axis=1) ** 2
        if flaw == "sliced: no square":
            square = np.sum(v * score, axis=1)
        return square + factor * slope

    return denoising, implicit, sliced


def tame_score(x: Any) -> Any:
    """A smooth score."""
    return -0.6 * x + 0.4 * np.sin(x)


def tame_divergence(x: Any) -> Any:
    """Its divergence."""
    return np.sum(-0.6 + 0.4 * np.cos(x), axis=1)


add(
    "score_matching",
    matching,
    (LAW, 0.7, 0.5, tame_score, tame_divergence),
    {
        "denoising: sign of the target": ("sign",),
        "denoising: target not divided by std": ("std", "divided"),
        "denoising: mean over dimensions": ("mean over", "/D", "average", "mean of"),
        "denoising: weighted by std²": ("std²", "weight"),
        "denoising: a half": HALF,
        "denoising: divided by std²": ("std²", "std", "squared"),
        "implicit: divergence once": HALF,
        "implicit: divergence subtracted": ("sign",),
        "sliced: derivative not projected": ("vᵀ", "·v", "v·", "direction", "project"),
        "sliced: derivative once": HALF,
        "sliced: square of the sum": ("square", "sum"),
        "sliced: no square": ("square",),
    },
)


def continuous_bound(sde: Any, t_min: float, slope: float) -> Callable:
    """The terms of the VDM bound."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def snr(t: Any) -> Any:
            a, b = sde.marginal(t)
            return 2 * (np.log(a) - np.log(b)) * (0.5 if flaw == "log(scale/std) for log-SNR" else 1)

        def prior(x0):
            a, b = (float(v) for v in sde.marginal(sde.horizon))
            square = np.sum((a * x0) ** 2, axis=1)
            if flaw == "prior: x_0 not scaled":
                square = np.sum(x0**2, axis=1)
            if flaw == "prior: N(0, I)":
                return 0.5 * (square + x0.shape[1] * (b**2 - 1 - 2 * np.log(b)))
            return square / b**2 if flaw == "prior: no half" else 0.5 * square / b**2

        def diffusion_loss(x0, t, noise):
            a, b = (np.reshape(v, (-1, 1)) for v in sde.marginal(t))
            error = noise - slope * (a * x0 + b * noise)
            span = snr(t_min) - snr(sde.horizon)
            total = np.sum(error**2, axis=1)
            if flaw == "diffusion: mean over dimensions":
                total = np.mean(error**2, axis=1)
            if flaw == "diffusion: length of the interval left out":
                span = 1.0
            if flaw == "diffusion: g² for the log-SNR":
                return 0.5 * (sde.horizon - t_min) * sde.diffusion(t) ** 2 * total
            if flaw == "diffusion: sign of the interval":
                span = -span
            return (1.0 if flaw == "diffusion: no half" else 0.5) * span * total

        def reconstruction(x0, noise):
            a, b = (float(v) for v in sde.marginal(t_min))
            width = b if flaw == "reconstruction: std not divided by the scale" else b / a
            D = x0.shape[1]
            constant = 0.5 * D * LOG_2PI + D * np.log(width)
            if flaw == "reconstruction: no constants":
                constant = 0.0
            if flaw == "reconstruction: log of the variance without its half":
                constant = 0.5 * D * LOG_2PI + 2 * D * np.log(width)
            square = np.sum(noise**2, axis=1)
            return (1.0 if flaw == "reconstruction: no half" else 0.5) * square + constant

        return prior, diffusion_loss, reconstruction

    return code


X0 = RNG.normal(size=(3, 2))
add(
    "continuous_bound",
    continuous_bound(VP(0.1, 8.0), 0.01, 0.6),
    (VP(0.1, 8.0), 0.01, 0.6, X0),
    {
        "diffusion: no half": HALF,
        "diffusion: mean over dimensions": ("mean over", "/D", "average", "mean of"),
        "diffusion: length of the interval left out": ("interval", "log-SNR", "length"),
        "log(scale/std) for log-SNR": ("log-SNR", *HALF),
        "prior: no half": HALF,
        "prior: N(0, I)": ("N(0, I)", "std(T)", "prior"),
        "reconstruction: no constants": ("2π", "constant", "log"),
        "diffusion: g² for the log-SNR": ("g²", "log-SNR", "weight"),
    },
    label="VP",
)
add(
    "continuous_bound",
    continuous_bound(VE(0.1, 5.0, 2.0), 0.05, 0.3),
    (VE(0.1, 5.0, 2.0), 0.05, 0.3, X0),
    {
        "diffusion: sign of the interval": ("sign",),
        "prior: N(0, I)": ("N(0, I)", "std(T)", "prior"),
        "reconstruction: log of the variance without its half": ("log", *HALF),
        "reconstruction: no half": HALF,
    },
    label="VE, horizon 2",
)


A_NET, B_NET = RNG.normal(size=(3, 5)), RNG.normal(size=(5, 3))


def eps_net(x: Any) -> Any:
    """A small network."""
    return np.tanh(np.asarray(x) @ A_NET) @ B_NET


def divergence(flaw: str) -> tuple[Callable, ...]:
    """Score and divergence of eps_net at std 0.4."""
    std = 0.4

    def both(x, probes):
        slope = 1 - np.tanh(x @ A_NET) ** 2
        J = np.einsum("dh,nh,he->nde", A_NET, slope, B_NET)
        score = -eps_net(x) / std
        factor = {"sign of the divergence": 1 / std, "not divided by std": -1.0, "divided by std²": -1 / std**2}
        if probes is None:
            value = np.trace(J, axis1=1, axis2=2)
            if flaw == "gradient of the sum of the outputs":
                value = J.sum(axis=(1, 2))
            if flaw == "mean over dimensions":
                value = value / x.shape[1]
            if flaw == "divergence over the batch":
                value = np.full(len(x), value.sum())
        else:
            v = probes / np.linalg.norm(probes, axis=2, keepdims=True) if flaw == "probes normalised" else probes
            value = np.einsum("pnd,nde,pne->pn", v, J, v)
            value = value.sum(axis=0) if flaw == "sum over the probes" else value.mean(axis=0)
            if flaw == "first probe only":
                value = np.einsum("nd,nde,ne->n", v[0], J, v[0])
            if flaw == "probes multiplied elementwise with the sum":
                value = np.einsum("pnd,nde->pn", v, J).mean(axis=0)
        return score, factor.get(flaw, -1 / std) * value

    return (both,)


add(
    "divergence",
    divergence,
    (eps_net, 0.4, RNG.normal(size=(4, 3)), RNG.normal(size=(2, 4, 3))),
    {
        "sign of the divergence": ("sign",),
        "not divided by std": ("std", "divided"),
        "divided by std²": ("std²", "std", "squared"),
        "gradient of the sum of the outputs": ("sum of", "trace", "off-diagonal", "diagonal"),
        "mean over dimensions": ("mean over", "/D", "average", "mean of"),
        "sum over the probes": ("sum", "mean", "probes"),
        "probes normalised": ("probe", "normali", "length", *OF_D),
        "first probe only": ("first", "one probe", "probe"),
        "divergence over the batch": ("batch", "examples"),
    },
)


def kl_bound(sde: Any) -> Callable:
    """(34) by quadrature in t."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def bound(score_error, prior_kl):
            def rate(t: float) -> float:
                g = float(sde.diffusion(t))
                weight = {"g in place of g²": g, "no g²": 1.0, "std² in place of g²": float(sde.std(t)) ** 2}
                error = float(score_error(t))
                return weight.get(flaw, g**2) * (np.sqrt(error) if flaw == "distance, not its square" else error)

            total = integral(rate, 0.0, sde.horizon, 4)
            if flaw == "mean over t, not the integral":
                total = total / sde.horizon
            if flaw == "no prior":
                prior_kl = 0.0
            if flaw == "prior subtracted":
                prior_kl = -prior_kl
            return prior_kl + (1.0 if flaw == "no half" else 0.5) * total

        return (bound,)

    return code


GAUSSIANS = (RNG.normal(size=2), spd(2), RNG.normal(size=2), spd(2, 1.5))
add(
    "kl_bound",
    kl_bound(VP(0.2, 5.0, 2.0)),
    (VP(0.2, 5.0, 2.0), *GAUSSIANS),
    {
        "no half": HALF,
        "g in place of g²": ("g²", "squared", "g in place"),
        "no prior": ("prior", "π =", "log π", "KL(p_T", "KL(p_T"),
        "mean over t, not the integral": (*OF_T, "horizon", "mean"),
        "distance, not its square": ("square", "root"),
        "no g²": ("g²",),
    },
    label="VP, horizon 2",
)
add(
    "kl_bound",
    kl_bound(VE(0.3, 4.0, 1.5)),
    (VE(0.3, 4.0, 1.5), *GAUSSIANS),
    {"std² in place of g²": ("std", "g²", "weight"), "prior subtracted": ("sign", "prior")},
    label="VE, horizon 1.5",
)


def log_prob_bound(sde: Any) -> Callable:
    """Song et al. 2021, for one dimension, by Gauss-Hermite and Gauss-Legendre."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def code(flaw: str) -> tuple[Callable, ...]:
        def bound(score_and_divergence, prior_log_prob, x):
            def spread(t: float) -> Any:
                scale, std = (float(v) for v in sde.marginal(t))
                return (scale * x[:, None, :] + std * nodes[None, :, None]).reshape(-1, 1)

            def rate(t: float) -> Any:
                s, div = score_and_divergence(spread(t), t)
                g2, f = float(sde.diffusion(t)) ** 2, float(sde.rate(t))
                square = np.sum(np.asarray(s) ** 2, axis=1)
                div = np.asarray(div)
                inner = g2 * (square + 2 * div) - 2 * f
                if flaw == "no divergence of the drift":
                    inner = g2 * (square + 2 * div)
                if flaw == "sign of the divergence of the drift":
                    inner = g2 * (square + 2 * div) + 2 * f
                if flaw == "divergence of the score once":
                    inner = g2 * (square + div) - 2 * f
                if flaw == "no divergence of the score":
                    inner = g2 * square - 2 * f
                if flaw == "g in place of g²":
                    inner = np.sqrt(g2) * (square + 2 * div) - 2 * f
                if flaw == "flow in place of the SDE":
                    inner = g2 * div - 2 * f
                return inner.reshape(len(x), -1) @ weights

            last = np.asarray(prior_log_prob(spread(sde.horizon))).reshape(len(x), -1) @ weights
            if flaw == "no prior":
                last = 0 * last
            if flaw == "prior at the mean of x_T":
                last = np.asarray(prior_log_prob(float(sde.marginal(sde.horizon)[0]) * x))
            return last - (1.0 if flaw == "no half" else 0.5) * integral(rate, 0.0, sde.horizon, 2)

        return (bound,)

    return code


LINE = Mixture([0.4, 0.6], [[-1.0], [0.8]], [[[0.4]], [[0.6]]])
add(
    "log_prob_bound",
    log_prob_bound(VP(0.2, 5.0, 2.0)),
    (VP(0.2, 5.0, 2.0), LINE, np.array([[-1.2], [0.1], [1.5]])),
    {
        "no half": HALF,
        "no divergence of the drift": ("div f", "drift", "f x", "D f"),
        "sign of the divergence of the drift": ("sign",),
        "divergence of the score once": HALF,
        "no prior": ("prior", "π =", "log π", "KL(p_T", "log q_T"),
        "flow in place of the SDE": ("flow", "‖s", "square"),
        "g in place of g²": ("g²", "squared"),
        "prior at the mean of x_T": ("mean", "prior", "noise"),
    },
    label="VP, horizon 2",
    slow=True,
)


def flow_likelihood(sde: Any, law: Any, n: int) -> Callable:
    """Probability flow with Runge and Kutta's fourth-order method, and the exact score."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def field(x: Any, t: float) -> tuple[Any, Any]:
            scale, std, f, g = levels(sde, t)
            diffused = law.diffuse(scale, std)
            half = {"g² without a half": 1.0, "no score": 0.0}.get(flaw, 0.5)
            s, div = diffused.score(x), np.trace(diffused.score_jacobian(x), axis1=1, axis2=2)
            D = x.shape[1]
            drift_div = {"no divergence of f x": 0.0, "divergence f, not D f": f}.get(flaw, D * f)
            if flaw == "divergence without the score":
                return f * x - half * g**2 * s, drift_div + 0 * div
            if flaw == "divergence with the whole g²":
                return f * x - half * g**2 * s, drift_div - g**2 * div
            return f * x - half * g**2 * s, drift_div - half * g**2 * div

        def density(x):
            start, total = x, np.zeros(len(x))
            t, h = 0.0, sde.horizon / n
            for _ in range(n):
                k1, d1 = field(x, t)
                k2, d2 = field(x + 0.5 * h * k1, t + 0.5 * h)
                k3, d3 = field(x + 0.5 * h * k2, t + 0.5 * h)
                k4, d4 = field(x + h * k3, min(t + h, sde.horizon))
                x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
                total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
                t += h
            prior = law.diffuse(*(float(v) for v in sde.marginal(sde.horizon)))
            if flaw == "sign of the divergence":
                total = -total
            at = start if flaw == "prior at the data" else x
            if flaw == "change of volume left out":
                total = 0 * total
            if flaw == "mean of the divergence over the batch":
                total = np.full(len(total), total.mean())
            return (total if flaw == "no prior" else total + prior.log_prob(at)) / (
                x.shape[1] if flaw == "per dimension" else 1
            )

        return (density,)

    return code


FLOW = (VP(0.1, 5.0), Mixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.4]], [0.4 * np.eye(2), 0.6 * np.eye(2)]))
add(
    "probability_flow_likelihood",
    flow_likelihood(*FLOW, 120),
    (FLOW[1], np.array([[0.3, -0.5], [1.2, 0.4]]), FLOW[0]),
    {
        "g² without a half": HALF,
        "sign of the divergence": ("sign",),
        "no divergence of f x": ("div f", "f x", "drift", "D f"),
        "divergence f, not D f": (*OF_D, "div f", "once"),
        "divergence without the score": ("score", "div s", "divergence"),
        "divergence with the whole g²": HALF,
        "prior at the data": ("prior", "x_T", "start", "at x"),
        "change of volume left out": ("divergence", "volume", "Jacobian"),
        "no prior": ("prior", "π =", "log π", "KL(p_T"),
        "mean of the divergence over the batch": ("batch", "examples"),
        "per dimension": (*OF_D, "dimension", "mean over"),
    },
    label="VP",
    slow=True,
)


def reverse_law(flaw: str) -> tuple[Callable, ...]:
    """Moments of the reverse SDE with β = 1 over a time B, by Runge and Kutta's method."""
    B = 3.0

    def moments(score):
        def slopes(m: Any, V: Any) -> tuple[Any, Any]:
            c = np.asarray(score(np.zeros((1, 2)), 0.5))[0]
            A = np.stack([np.asarray(score(e[None], 0.5))[0] - c for e in np.eye(2)], axis=1)
            force = {"score halved": 0.5, "score with a minus": -1.0, "flow with half the score": 0.5}.get(flaw, 1.0)
            pull = {"drift with a minus": -0.5, "drift without a half": 1.0, "no drift of x": 0.0}.get(flaw, 0.5)
            noise = {"flow with half the score": 0.0, "no noise": 0.0, "half of the noise": 0.5, "noise twice": 2.0}
            F = pull * np.eye(2) + force * A
            return F @ m + force * c, F @ V + V @ F.T + noise.get(flaw, 1.0) * np.eye(2)

        m, V, n = np.zeros(2), np.eye(2), 300
        if flaw == "starts from a point":
            V = 0 * V
        h = B / n
        for _ in range(n):
            a = slopes(m, V)
            b = slopes(m + 0.5 * h * a[0], V + 0.5 * h * a[1])
            c = slopes(m + 0.5 * h * b[0], V + 0.5 * h * b[1])
            d = slopes(m + h * c[0], V + h * c[1])
            m = m + h / 6 * (a[0] + 2 * b[0] + 2 * c[0] + d[0])
            V = V + h / 6 * (a[1] + 2 * b[1] + 2 * c[1] + d[1])
        return m, (np.sqrt(np.abs(V)) if flaw == "std in place of the variance" else V)

    return (moments,)


add(
    "reverse_law",
    reverse_law,
    (3.0, 0.4),
    {
        "flow with half the score": ("flow", "ODE"),
        "score halved": HALF,
        "drift without a half": HALF,
        "half of the noise": HALF,
        "starts from a point": ("start", "N(0, I)", "prior", "point"),
        "no drift of x": ("drift", "f x"),
        "std in place of the variance": ("std", "standard deviation", "root"),
        "no noise": ("noise",),
        "noise twice": ("noise", *OF_2, "twice"),
    },
)


# -------------------------------------------------------------------------------------------------- beyond the deck


def edm_coefficients(flaw: str) -> tuple[Callable, ...]:
    """Karras' preconditioning for data of standard deviation 0.5."""

    def coefficients(sigma):
        data, total = 0.5, sigma**2 + 0.25
        skip, out, inner = data**2 / total, sigma * data / np.sqrt(total), 1 / np.sqrt(total)
        weight = total / (sigma * data) ** 2
        if flaw == "c_skip of the noise":
            skip = sigma**2 / total
        if flaw == "c_out without the root":
            out = sigma * data / total
        if flaw == "c_out without the data's std":
            out = sigma / np.sqrt(total)
        if flaw == "c_in without the root":
            inner = 1 / total
        if flaw == "weight upside down":
            weight = 1 / weight
        if flaw == "weight with the sum in the denominator":
            weight = total / (sigma + data) ** 2
        if flaw == "weight 1/σ²":
            weight = 1 / sigma**2
        return skip, out, inner, weight

    return (coefficients,)


add(
    "edm_coefficients",
    edm_coefficients,
    (0.5,),
    {
        "c_skip of the noise": ("c_skip", "1 −", "swapped"),
        "c_out without the root": ("root", "squared", "c_out"),
        "c_out without the data's std": ("c_out", "σ_data", "data"),
        "c_in without the root": ("root", "squared", "c_in"),
        "weight upside down": ("c_out²", "inverse", "1/", "weight"),
        "weight with the sum in the denominator": ("sum", "product", "weight", "plus"),
        "weight 1/σ²": ("1/σ²", "weight", "SNR"),
    },
)


def sigma_grid(flaw: str) -> tuple[Callable, ...]:
    """Karras' noise levels."""

    def grid(n, low, high, rho):
        u = np.linspace(0, 1, n)
        if flaw == "stops before sigma_min":
            u = np.arange(n) / n
        if flaw == "rising":
            u = u[::-1]
        if flaw == "linear in σ":
            rho = 1.0
        if flaw == "even in log σ":
            return np.exp(np.log(high) + u * np.log(low / high))
        if flaw == "ρ for 1/ρ":
            rho = 1 / rho
        values = (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        if flaw == "not raised to ρ":
            values = values ** (1 / rho)
        return values

    return (grid,)


add(
    "sigma_grid",
    sigma_grid,
    (),
    {
        "stops before sigma_min": ("n − 1", "sigma_min", "last", "off by one"),
        "rising": ("order", "rising", "reverse"),
        "linear in σ": ("even", "1/ρ", "power ρ", "ρ =", "linear"),
        "even in log σ": ("log",),
        "ρ for 1/ρ": ("1/ρ", "1/ρ", "power ρ", "ρ ="),
        "not raised to ρ": ("power", "raised", "1/ρ", "power ρ", "ρ ="),
    },
)


def exponential_step(c: float, multistep: bool) -> Callable:
    """DPM-Solver++(2M) with log(scale/std)."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def step(x, x0, x0_last, table_of, z):
            (a0, b0), (a1, b1), (a2, b2) = table_of
            half = [np.log(a / b) for a, b in ((a0, b0), (a1, b1), (a2, b2))]
            if flaw == "log-SNR with its factor 2":
                half = [2 * v for v in half]
            last, h = half[1] - half[0], half[2] - half[1]
            ratio = last / h if flaw != "ratio of the steps upside down" else h / last
            if flaw == "ratio taken as 1":
                ratio = 1.0
            extra = (x0 - x0_last) / (2 * ratio)
            if flaw == "correction without a half":
                extra = 2 * extra
            if flaw == "sign of the correction":
                extra = -extra
            D = x0 + extra if multistep and flaw != "first order only" else x0
            scale = a1 if flaw == "scale of the old level" else a2
            decay = np.exp(-((0 if flaw == "x without its decay" else c) ** 2) * h)
            gain = -np.expm1(-(1 + c**2) * h)
            if flaw == "gain of the flow":
                gain = -np.expm1(-h)
            spread = np.sqrt(-np.expm1(-2 * c**2 * h))
            if flaw == "noise with h, not 2h":
                spread = np.sqrt(-np.expm1(-(c**2) * h))
            if flaw == "variance of the noise for its std":
                spread = spread**2
            if flaw == "noise of the old level":
                spread = spread * b1 / b2
            ratio_x = b1 / b2 if flaw == "ratio of x upside down" else b2 / b1
            if flaw == "ratio of the scales for x":
                ratio_x = a2 / a1
            return ratio_x * decay * x + scale * gain * D + b2 * spread * z

        return (step,)

    return code


add(
    "exponential_step",
    exponential_step(0.0, True),
    (0.0, True),
    {
        "ratio of the steps upside down": ("ratio", "h′", "inverse"),
        "correction without a half": HALF,
        "sign of the correction": ("sign",),
        "first order only": ("first order", "DDIM", "x0_hat_last", "last"),
        "scale of the old level": ("scale", "level"),
        "log-SNR with its factor 2": ("log-SNR", *OF_2, "twice"),
        "ratio taken as 1": ("ratio", "even", "equal", "h′"),
    },
    label="2M",
)
add(
    "exponential_step",
    exponential_step(1.0, False),
    (1.0, False),
    {
        "noise with h, not 2h": (*OF_2, "half", "twice"),
        "gain of the flow": ("flow", "1 + c²", "expm1"),
        "x without its decay": ("e^", "decay", "x_t", "factor of x", "old x"),
        "variance of the noise for its std": ("root", "variance", "squared"),
        "ratio of the scales for x": ("scale", "std"),
    },
    label="stochastic",
)


def flow_sampler(order: int) -> Callable:
    """Samplers in y = x/scale and sigma = std/scale."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def slope(denoise: Callable, y: Any, level: Any) -> Any:
            a, b = (float(v) for v in level)
            return (y - np.asarray(denoise(a * y, a, b))) / (b / a)

        def sample(denoise, x, path):
            y, old = x / path[0, 0], None
            for i, (here, there) in enumerate(itertools.pairwise(path)):
                step = there[1] / there[0] - here[1] / here[0]
                first = slope(denoise, y, there if flaw == "network asked one level late" else here)
                ahead = y + step * first
                if order == 1 or flaw == "Euler alone":
                    y = ahead
                elif flaw == "second slope from the old state":
                    y = y + 0.5 * step * (first + slope(denoise, y, there))
                elif flaw == "second slope at the old level":
                    y = y + 0.5 * step * (first + slope(denoise, ahead, here))
                elif flaw == "Adams and Bashforth without the ratio of steps":
                    y = ahead if old is None else y + step * (1.5 * first - 0.5 * old)
                elif flaw == "Euler in every second step" and i % 2:
                    y = ahead
                else:
                    y = y + 0.5 * step * (first + slope(denoise, ahead, there))
                old = first
                if flaw == "score of the reverse SDE":
                    y = y + 0.5 * step * first
            return path[-1, 0] * y

        return (sample,)

    return code


add(
    "flow_order",
    flow_sampler(2),
    (LINE,),
    {
        "Euler alone": ("order", "Euler", "first"),
        "network asked one level late": ("level", "late", "order"),
        "second slope from the old state": ("order", "slope", "state"),
        "second slope at the old level": ("order", "slope", "level"),
        "Adams and Bashforth without the ratio of steps": ("order", "ratio", "uneven", "even"),
    },
    label="Heun",
    slow=True,
)
add(
    "flow_order",
    flow_sampler(1),
    (LINE, 1.0),
    {"score of the reverse SDE": ("order", "converge", "limit", "half")},
    label="Euler",
    slow=True,
)


def weak_sampler(flaw: str) -> tuple[Callable, ...]:
    """The stochastic exponential sampler of first order."""

    def sample(denoise, x, path, noise):
        for i, ((a, b), (a2, b2)) in enumerate(itertools.pairwise(path)):
            h = np.log(a2 / b2) - np.log(a / b)
            D = np.asarray(denoise(x, float(a), float(b)))
            gain, decay, spread = -np.expm1(-2 * h), np.exp(-h), np.sqrt(-np.expm1(-2 * h))
            if flaw == "noise added to a step of the flow":
                gain, decay = -np.expm1(-h), 1.0
            if flaw == "no noise":
                spread = 0.0
            if flaw == "noise with twice the variance":
                spread = spread * np.sqrt(2)
            if flaw == "one noise for all steps":
                x = b2 / b * decay * x + a2 * gain * D + b2 * spread * noise[0]
                continue
            x = b2 / b * decay * x + a2 * gain * D + b2 * spread * noise[i]
        return x

    return (sample,)


add(
    "weak_order",
    weak_sampler,
    (np.array([0.4, -0.2]), spd(2)),
    {
        "noise added to a step of the flow": ("order", "converge", "noise", "limit"),
        "no noise": ("order", "converge", "noise", "limit"),
        "one noise for all steps": ("order", "converge", "noise", "limit"),
        "noise with twice the variance": ("order", "converge", "noise", "limit"),
    },
    slow=True,
)

CHAIN = NoiseSchedule.linear(12)
TOTAL = np.concatenate([[1.0], np.cumprod(1 - np.asarray(CHAIN.beta)[1:] ** 2)])  # Ho's alphas_cumprod with index 0


def inversion(flaw: str) -> tuple[Callable, ...]:
    """Inverse DDIM in Ho's symbols."""

    def inverse(s, t, x, eps):
        if flaw == "direction swapped":
            s, t = t, s
        a_s, a_t = TOTAL[s], TOTAL[t]
        x0 = (x - np.sqrt(1 - a_s) * eps) / np.sqrt(a_s)
        if flaw == "x̂_0 with the levels of t":
            x0 = (x - np.sqrt(1 - a_t) * eps) / np.sqrt(a_t)
        if flaw == "x̂_0 clipped":
            x0 = np.clip(x0, -1, 1)
        if flaw == "no roots":
            return a_t * x0 + (1 - a_t) * eps
        if flaw == "sign of the noise":
            return np.sqrt(a_t) * x0 - np.sqrt(1 - a_t) * eps
        if flaw == "fresh noise level of one step":
            return np.sqrt(a_t / a_s) * x + np.sqrt(1 - a_t / a_s) * eps
        return np.sqrt(a_t) * x0 + np.sqrt(1 - a_t) * eps

    return (inverse,)


add(
    "ddim_inversion",
    inversion,
    (CHAIN,),
    {
        "x̂_0 with the levels of t": ("of t", "x̂_0", "levels"),
        "x̂_0 clipped": ("clip",),
        "no roots": ("root", "squared"),
        "sign of the noise": ("sign",),
        "fresh noise level of one step": ("forward", "q(x_t", "noise", "independent"),
        "direction swapped": ("swap", "x_s", "direction", "DDIM step"),
    },
)


def straight(t: Any) -> tuple[Any, Any]:
    """The path of rectified flow, 0 is clean data."""
    return 1 - t, t


def curved(t: Any) -> tuple[Any, Any]:
    """A variance-preserving path."""
    return np.cos(0.5 * np.pi * t), np.sin(0.5 * np.pi * t)


def velocity(path: str) -> Callable:
    """Targets of flow matching."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def target(x0, noise, t):
            t = np.reshape(t, (-1, 1)) if np.ndim(t) else t
            if path == "straight":
                return {
                    "data minus noise": x0 - noise,
                    "noise alone": noise,
                    "state in place of its derivative": (1 - t) * x0 + t * noise,
                    "divided by t": (noise - x0) / t,
                    "sum": noise + x0,
                }.get(flaw, noise - x0)
            rate = 1.0 if flaw == "no chain rule" else 0.5 * np.pi
            a, b = np.cos(0.5 * np.pi * t), np.sin(0.5 * np.pi * t)
            if flaw == "scale and std swapped":
                return rate * (b * noise - a * x0)
            if flaw == "plus":
                return rate * (a * noise + b * x0)
            if flaw == "straight path's target":
                return noise - x0
            return rate * (a * noise - b * x0)

        return (target,)

    return code


TIMES = np.array([0.1, 0.35, 0.7, 0.9])
add(
    "flow_velocity",
    velocity("straight"),
    (straight, LAW, TIMES),
    {
        "data minus noise": ("sign",),
        "noise alone": ("noise", "x_0", "missing"),
        "state in place of its derivative": ("x_t", "derivative", "state"),
        "sum": ("sign", "sum"),
    },
    label="straight",
)
add(
    "flow_velocity",
    velocity("curved"),
    (curved, LAW, TIMES),
    {
        "no chain rule": ("π/2", "factor", "derivative", "0.6"),
        "scale and std swapped": ("swap", "exchang"),
        "plus": ("sign",),
        "straight path's target": ("ε − x_0", "straight", "linear"),
    },
    label="curved",
)


def reverse_process(lam: float) -> Callable:
    """A reverse process of the straight path with noise lam g."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def terms(t: float) -> tuple[float, float]:
            a, b = 1 - t, t
            f = -1 / a
            square = 2 * b * (1 - f * b)
            if flaw == "g² = d std²/dt":
                square = 2 * b
            if flaw == "g² without the 2":
                square = b * (1 - f * b)
            return (0.0 if flaw == "no drift of x" else f), square

        def drift(x, t):
            f, square = terms(float(t))
            resp, white, _ = parts(LAW, x, 1 - float(t), float(t))
            score = -np.einsum("nk,nkd->nd", resp, white)
            factor = {
                "½(1 + λ)": 0.5 * (1 + lam),
                "score with a plus": -0.5 * (1 + lam**2),
                "λ² alone": lam**2,
                "half of the score": 0.25 * (1 + lam**2),
            }
            return f * x - factor.get(flaw, 0.5 * (1 + lam**2)) * square * score

        def diffusion(t):
            g = np.sqrt(terms(float(t))[1])
            return {"noise λ² g": lam**2 * g, "noise g": g}.get(flaw, lam * g)

        return drift, diffusion

    return code


add(
    "fokker_planck",
    reverse_process(0.6),
    (straight, LAW, TIMES),
    {
        "½(1 + λ)": ("λ²", "score", "half", "the ½", "without ½", "no ½", "factor ½", "factor of ½", "½ is"),
        "score with a plus": ("sign",),
        "g² = d std²/dt": ("g²", "2 f", "drift"),
        "no drift of x": ("drift", "f x"),
        "noise λ² g": ("noise", "λ g", "stochasticity", "G(t)", "diffusion"),
        "noise g": ("noise", "λ g", "stochasticity", "G(t)", "diffusion"),
        "half of the score": ("half", "the ½", "without ½", "no ½", "factor ½", "factor of ½", "½ is", "half", "score"),
    },
    label="straight, λ = 0.6",
)
add(
    "fokker_planck",
    reverse_process(1.0),
    (straight, LAW, TIMES),
    {"g² without the 2": ("g²", "half", "twice"), "half of the score": ("the ½", "half", "score", "flow")},
    label="straight, λ = 1",
)


def information(flaw: str) -> tuple[Callable, ...]:
    """I-MMSE by quadrature in log-SNR."""

    def total(sde, noise_loss, t_min):
        top, bottom = float(sde.log_snr(t_min)), float(sde.log_snr(sde.horizon))

        def rate(level: float) -> float:
            t = float(sde.time_at(level))
            scale, std = (float(v) for v in sde.marginal(t))
            loss = float(noise_loss(t))
            if flaw == "loss of x_0":
                loss = loss * (std / scale) ** 2
            if flaw == "root of the loss":
                loss = np.sqrt(loss)
            return loss

        if flaw == "integral over t":
            return 0.5 * integral(lambda t: float(noise_loss(t)), t_min, sde.horizon, 4)
        value = 0.5 * integral(rate, bottom, top, 4)
        return {"no half": 2 * value, "sign": -value, "log(scale/std)": 0.5 * value, "bits": value / np.log(2)}.get(
            flaw, value
        )

    return (total,)


SDES = [(VP(0.1, 8.0), 0.05), (VE(0.1, 6.0), 0.1)]
add(
    "mutual_information",
    information,
    (SDES, [LINE]),
    {
        "no half": HALF,
        "sign": ("sign",),
        "log(scale/std)": HALF,
        "integral over t": ("log-SNR", "uniform in t", "over t", "measure"),
        "loss of x_0": ("x_0", "x̂_0", "SNR"),
        "bits": ("bits", "log 2"),
    },
    slow=True,
)


def tilted(flaw: str) -> tuple[Callable, ...]:
    """Score of a tilted law in one dimension, by a sum over a grid of x_0."""
    label = np.array([0.9, 0.2])

    def score(x, scale, std, w):
        if flaw == "guidance of the scores":
            resp, white, _ = parts(LINE, x, scale, std)
            plain = -np.einsum("nk,nkd->nd", resp, white)
            chosen = resp * label / (resp @ label)[:, None]
            return (1 - w) * plain + w * -np.einsum("nk,nkd->nd", chosen, white)
        z = np.linspace(-9, 9, 4001)[:, None]
        logs = log_joint("", z, LINE.weights, LINE.means, LINE.covariances)
        log_p = logsumexp(logs, axis=1)
        log_label = logsumexp(logs + np.log(label), axis=1) - log_p
        power = w + 1 if flaw == "power w + 1" else w
        tilt = log_p + power * log_label
        if flaw == "not divided by p(x)":
            tilt = log_p + power * (log_label + log_p)
        if flaw == "p(x) left out":
            tilt = power * log_label
        gap = scale * z.T - x
        weight = tilt - 0.5 * (gap / std) ** 2
        weight = np.exp(weight - logsumexp(weight, axis=1, keepdims=True))
        below = std if flaw == "divided by std" else std**2
        if flaw == "sign":
            below = -below
        return np.sum(weight * gap, axis=1, keepdims=True) / below

    return (score,)


add(
    "tilted_score",
    tilted,
    (LINE, np.array([0.9, 0.2]), np.array([[0.9, 0.5], [0.6, 0.8]])),
    {
        "guidance of the scores": ("guidance", "(1 − w)"),
        "power w + 1": ("w + 1", "1 + w"),
        "not divided by p(x)": ("p(x)", "divided"),
        "divided by std": ("std",),
        "sign": ("sign",),
    },
    slow=True,
)


def posterior_covariance(flaw: str) -> tuple[Callable, ...]:
    """Tweedie's second formula."""

    def covariance(x, scale, std):
        resp, white, _ = parts(LAW, x, scale, std)
        score = -np.einsum("nk,nkd->nd", resp, white)
        precisions = np.linalg.inv(scale**2 * LAW.covariances + std**2 * np.eye(2))
        outer = np.einsum("nk,nkd,nke->nde", resp, white, white) - score[:, :, None] * score[:, None, :]
        H = outer - np.einsum("nk,kde->nde", resp, precisions)
        if flaw == "Hessian without the spread of the components":
            H = -np.einsum("nk,kde->nde", resp, precisions)
        if flaw == "sign of the Hessian":
            H = -H
        noise = std if flaw == "std not squared in the sum" else std**2
        inner = np.eye(2) + noise * H
        if flaw == "no I":
            inner = noise * H
        if flaw == "diagonal only":
            inner = inner * np.eye(2)
        size = {
            "not divided by the scale": std**2,
            "one factor std/scale": std / scale,
            "factor scale/std": (scale / std) ** 2,
        }
        return size.get(flaw, (std / scale) ** 2) * inner

    return (covariance,)


add(
    "tweedie_covariance",
    posterior_covariance,
    (LAW, np.array([[0.8, 0.6], [0.5, 0.9]])),
    {
        "Hessian without the spread of the components": ("spread", "component", "between", "means"),
        "sign of the Hessian": ("sign",),
        "std not squared in the sum": ("std", "squared"),
        "no I": ("identity", "+ I", "identity"),
        "not divided by the scale": ("scale",),
        "one factor std/scale": ("squared", "std/scale", "root"),
        "diagonal only": ("diagonal",),
    },
)


def conservative(flaw: str) -> tuple[Callable, ...]:
    """A score that should be a gradient."""

    def score(x):
        resp, white, _ = parts(LAW, x, 1.0, 0.0, flaw)
        if flaw == "softmax at half the temperature":
            resp = resp**2 / np.sum(resp**2, axis=1, keepdims=True)
        value = -np.einsum("nk,nkd->nd", resp, white)
        if flaw == "a rotation added":
            value = value + 0.1 * x @ np.array([[0.0, 1.0], [-1.0, 0.0]])
        if flaw == "whitened, not by the inverse covariance":
            L = np.linalg.inv(np.linalg.cholesky(LAW.covariances))
            delta = x[:, None] - LAW.means
            value = -np.einsum("nk,kde,nke->nd", resp, L, delta)
        if flaw == "twice the score":
            value = 2 * value
        return value

    return (score,)


add(
    "conservative_score",
    conservative,
    (LAW,),
    {
        "a rotation added": ("rotation", "symmetric", "gradient", "asymm", "curl"),
        "softmax at half the temperature": ("symmetric", "gradient", "temperature", "asymm", "responsib"),
        "whitened, not by the inverse covariance": ("symmetric", "gradient", "Cholesky", "root", "asymm"),
        "no mixing weights": ("weight",),
        "twice the score": ("twice", *OF_2, "factor"),
    },
)


def kl_rate(sde: Any) -> Callable:
    """de Bruijn's identity in one dimension, by a sum over a grid."""

    def code(flaw: str) -> tuple[Callable, ...]:
        def rate(t):
            scale, std, _, g = levels(sde, float(t))
            p, q = LINE.diffuse(scale, std), OTHER.diffuse(scale, std)
            reach = 10 * (scale + std)
            x = np.linspace(-reach, reach, 4001)[:, None]
            weight = np.exp((q if flaw == "expectation under q" else p).log_prob(x)) * (x[1, 0] - x[0, 0])
            gap = np.sum((p.score(x) - q.score(x)) ** 2, axis=1)
            if flaw == "root of the distance":
                gap = np.sqrt(gap)
            size = {
                "no half": -(g**2),
                "sign": 0.5 * g**2,
                "g in place of g²": -0.5 * g,
                "no g²": -0.5,
                "std² in place of g²": -0.5 * std**2,
            }
            return size.get(flaw, -0.5 * g**2) * np.sum(weight * gap)

        return (rate,)

    return code


OTHER = Mixture([1.0], [[0.3]], [[[1.1]]])
add(
    "kl_rate",
    kl_rate(VP(0.3, 6.0, 2.0)),
    (VP(0.3, 6.0, 2.0), LINE, OTHER, np.array([0.2, 0.9, 1.5])),
    {
        "no half": HALF,
        "sign": ("sign",),
        "g in place of g²": ("g²", "squared"),
        "expectation under q": ("q_t", "under q", "expectation"),
        "std² in place of g²": ("std", "g²"),
    },
    label="VP",
)
add("kl_rate", kl_rate(VE(0.3, 4.0)), (VE(0.3, 4.0), LINE, OTHER, np.array([0.3, 0.8])), {"no g²": ("g²",)}, label="VE")


def sampler_density(flaw: str) -> tuple[Callable, ...]:
    """Exact density of ancestral sampling with an affine network, in one dimension."""

    def density(eps_hat, sigma_squared):
        mean, variance = 0.0, 1.0
        for t in range(len(TOTAL) - 1, 0, -1):
            beta = 1 - TOTAL[t] / TOTAL[t - 1]
            c, e = (float(np.asarray(eps_hat(np.array([[v]]), t))[0, 0]) for v in (0.0, 1.0))
            factor = beta / np.sqrt(1 - TOTAL[t])
            if flaw == "noise of one step for the total noise":
                factor = np.sqrt(beta)
            if flaw == "not divided by the root":
                factor = beta
            slope = (1 - factor * (e - c)) / np.sqrt(1 - beta)
            mean = slope * mean - factor * c / np.sqrt(1 - beta)
            added = np.sqrt(sigma_squared[t]) if flaw == "std added as a variance" else sigma_squared[t]
            if flaw == "no noise in the last step" and t == 1:
                added = 0.0
            variance = (slope if flaw == "slope not squared" else slope**2) * variance + added
        std = np.sqrt(variance)
        x = np.linspace(mean - 9 * std, mean + 9 * std, 2001)
        return x, np.exp(-0.5 * ((x - mean) / std) ** 2) / np.sqrt(2 * np.pi * variance)

    return (density,)


add(
    "data_processing",
    sampler_density,
    (CHAIN,),
    {
        "noise of one step for the total noise": ("noise", "β-VAE", "beta", "total"),
        "not divided by the root": ("β̄", "root", "noise"),
        "std added as a variance": ("std", "variance", "σ in place", "σ for"),
        "no noise in the last step": ("last step", "noise"),
        "slope not squared": ("squared", "variance"),
    },
)


def dequantised(flaw: str) -> tuple[Callable, ...]:
    """Cost of uniform dequantisation in two dimensions, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    nodes, weights = 0.5 * (nodes + 1), 0.5 * weights

    def cost(log_prob, k):
        u = nodes - 0.5 if flaw == "cells around the whole numbers" else nodes
        grid = np.array(list(itertools.product(u, repeat=2)))
        mass = np.array([a * b for a, b in itertools.product(weights, repeat=2)])
        logs = np.array([np.asarray(log_prob(row + grid)) for row in np.asarray(k, float)])
        whole = logsumexp(logs, axis=1, b=mass)
        mean = logs @ mass
        middle = np.array([float(np.asarray(log_prob((row + 0.5)[None]))[0]) for row in np.asarray(k, float)])
        corner = np.array([float(np.asarray(log_prob(row[None]))[0]) for row in np.asarray(k, float)])
        return {
            "sign": mean - whole,
            "density at the middle": whole - middle,
            "density at the whole number": whole - corner,
            "per dimension": (whole - mean) / 2,
            "bits": (whole - mean) / np.log(2),
            "negative log P alone": -whole,
        }.get(flaw, whole - mean)

    return (cost,)


add(
    "dequantisation",
    dequantised,
    (np.array([0.4, 1.3]), np.array([1.2, 1.7])),
    {
        "sign": ("sign",),
        "density at the middle": (
            "middle",
            "centre",
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
        ),
        "density at the whole number": ("corner", "whole number", "u = 0", "without u"),
        "cells around the whole numbers": (
            "−½",
            "half",
            "the ½",
            "without ½",
            "no ½",
            "factor ½",
            "factor of ½",
            "½ is",
            "around",
            "shift",
            "centred",
        ),
        "per dimension": (*OF_D, "dimension", "mean over"),
        "bits": ("bits", "log 2"),
    },
)


def discrete_elbo(flaw: str) -> tuple[Callable, ...]:
    """The ELBO of two whole numbers by tensor quadrature; the mean over x_1 by a fine trapezoid rule."""

    def elbo(schedule, x0, eps_hat, sigma_squared, n_levels):
        beta = np.asarray(schedule.beta) ** 2
        total = np.concatenate([[1.0], np.cumprod(1 - beta[1:])])
        T = len(total) - 1
        line = np.linspace(-8, 8, 65)
        grid = np.array(list(itertools.product(line, repeat=2)))
        mass = np.exp(-0.5 * np.sum(grid**2, axis=1))
        mass = mass / mass.sum()
        half = 1 / (n_levels - 1)
        out = np.zeros(len(x0))
        for n, x in enumerate(np.asarray(x0)):
            a, v = total[T], 1 - total[T]
            value = -0.5 * np.sum(a * x**2 + v - 1 - np.log(v))
            if flaw == "no prior term":
                value = 0.0
            for t in range(2, T + 1):
                x_t = np.sqrt(total[t]) * x + np.sqrt(1 - total[t]) * grid
                eps = np.asarray(eps_hat(x_t, t))
                true = beta[t] * (1 - total[t - 1]) / (1 - total[t])
                gap = beta[t] / np.sqrt((1 - total[t]) * (1 - beta[t])) * (grid - eps)
                s2 = sigma_squared[t]
                kl = 0.5 * np.sum(gap**2, axis=1) / s2 + true / s2 - 1 - np.log(true / s2)
                if flaw == "no constants in L_{t-1}":
                    kl = 0.5 * np.sum(gap**2, axis=1) / s2
                value -= mass @ kl
            x_1 = np.sqrt(total[1]) * x + np.sqrt(1 - total[1]) * grid
            eps = np.asarray(eps_hat(x_1, 1))
            mean, std = (x_1 - np.sqrt(beta[1]) * eps) / np.sqrt(1 - beta[1]), np.sqrt(sigma_squared[1])
            low, high = (x - half - mean) / std, (x + half - mean) / std
            if flaw != "closed ends":
                low = np.where(np.isclose(x, -1), -np.inf, low)
                high = np.where(np.isclose(x, 1), np.inf, high)
            if flaw == "density in place of the mass":
                log_mass = -0.5 * ((x - mean) / std) ** 2 - 0.5 * LOG_2PI - np.log(std)
            else:
                swap = low > 0
                low, high = np.where(swap, -high, low), np.where(swap, -low, high)
                upper, lower = log_ndtr(high), log_ndtr(low)
                log_mass = upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-300)))
            value += mass @ (log_mass.mean(axis=1) if flaw == "mean of L_0 over D" else log_mass.sum(axis=1))
            out[n] = value
        return -out if flaw == "sign" else out

    return (elbo,)


add(
    "discrete_bound",
    discrete_elbo,
    (),
    {
        "no prior term": ("L_T", "prior"),
        "no constants in L_{t-1}": ("constant", "variance", "L_{t−1}"),
        "closed ends": ("open", "end", "first", "infinit"),
        "density in place of the mass": ("density", "width", "mass"),
        "mean of L_0 over D": ("mean over", *OF_D, "sum"),
        "sign": ("sign",),
    },
    slow=True,
)
