"""Wrong implementations of VAE, latent variables, EM and continuous time; see README.md of this folder."""

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

    def loss(x, x_hat, mean, log_var, dec):  # noqa: ANN001, ANN202
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
        "KL without a half": ("½", "half", "twice", "factor"),
        "KL subtracted": ("sign", "subtract", "minus"),
        "mean of the squared error over pixels": ("mean over", "mean of", "average", "divided by D", "/D"),
        "no log 2 pi": ("2π", "constant"),
        "divides the error by the standard deviation": ("standard deviation", "squared", "std"),
        "KL averaged over the batch": ("batch", "examples", "mean over"),
        "KL without the 1": ("constant", "without the 1", "without −1", "½k", "1"),
    },
)
add(
    "vae_loss",
    vae_loss,
    VAE,
    {
        "squared error without a half": ("½", "half", "twice", "factor"),
        "log-variance of the decoder counted once, not for every pixel": ("once", "log-variance", "log σ", "D"),
        "KL the other way round": ("reverse", "other way", "KL(N", "order", "swapped"),
        "KL averaged over latents": ("mean over", "average", "mean of", "latent"),
        "beta-VAE weight 4": ("factor", "weight", "times", "β"),
    },
    single=True,
)


def bernoulli_loss(flaw: str) -> tuple[Callable, ...]:
    """Cross-entropy with logits and the KL."""

    def loss(x, logits, mean, log_var):  # noqa: ANN001, ANN202
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
        "std in place of the variance in the KL": ("std", "standard deviation", "squared", "σ"),
        "clips p to [0.01, 0.99]": ("clip", "clamp"),
    },
    label="grey values",
    single=True,
)


def reparameterisation(flaw: str) -> tuple[Callable, ...]:
    """z = mean + std * noise."""

    def draw(mean, log_var, noise):  # noqa: ANN001, ANN202
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
        "adds std without noise": ("without noise", "noise", "ξ"),
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

    def bound(log_w):  # noqa: ANN001, ANN202
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

    def kl(p, q):  # noqa: ANN001, ANN202
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

    def kl(m_p, C_p, m_q, C_q):  # noqa: ANN001, ANN202
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
        "no D": ("D", "constant"),
        "no half": ("½", "half", "twice", "factor"),
        "trace of the inverse ratio": ("trace", "inverse", "tr"),
        "Mahalanobis distance in the metric of p": ("covariance of p", "metric", "mean", "cov_p"),
        "diagonals only": ("diagonal", "trace", "tr"),
    },
)
add(
    "gaussian_kl",
    gaussian_kl,
    PAIR,
    {"1 in place of D": ("D", "constant"), "root of the Mahalanobis distance": ("square", "root")},
    single=True,
)


def diagonal_kl(flaw: str) -> tuple[Callable, ...]:
    """KL to N(0, I), as in every VAE."""

    def kl(mean, log_var):  # noqa: ANN001, ANN202
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
        "no half": ("½", "half", "twice", "factor"),
        "std in place of the variance": ("std", "standard deviation", "squared", "σ"),
        "without the mean": ("mean", "μ"),
    },
    single=True,
)


def bits(flaw: str) -> tuple[Callable, ...]:
    """Bits per dimension, with the correction of the scale."""

    def bits_per_dim(nats, D, scale):  # noqa: ANN001, ANN202
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
        "correction once, not per dimension": ("once", "D", "per dimension"),
        "not divided by the dimension": ("D", "dimension", "divided"),
        "multiplied by log 2": ("log 2", "multipl", "divided"),
    },
)
add("bits_per_dim", bits, (table(9), 3, 0.3), {"8 bits whatever the scale": ("8", "256", "scale")}, single=True)


def bin_masses(flaw: str) -> tuple[Callable, ...]:
    """The Gaussian decoder in bins, as Ho's, by log-CDFs."""

    def make(n_levels: int) -> Callable:
        def log_mass(level, mean, std):  # noqa: ANN001, ANN202
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
        "logistic in place of the Gaussian": ("logistic", "Φ"),
    },
)


# --------------------------------------------------------------------------------------------- tables of x and z


def rows(values: Any) -> Any:
    """Rows divided by their sums."""
    return values / values.sum(axis=1, keepdims=True)


def joint_kl(flaw: str) -> tuple[Callable, ...]:
    """KL(p q || p_theta(x, z))."""

    def kl(p_x, q, decoder, prior):  # noqa: ANN001, ANN202
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

    def elbo(joint, q):  # noqa: ANN001, ANN202
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

    def elbo(decoder, prior, q):  # noqa: ANN001, ANN202
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

    def loss(p_x, q, decoder, prior):  # noqa: ANN001, ANN202
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

    def posterior(joint):  # noqa: ANN001, ANN202
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

    def kl(joint, q):  # noqa: ANN001, ANN202
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

    def step(p_x, q):  # noqa: ANN001, ANN202
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

    def parts(p_x, q, prior):  # noqa: ANN001, ANN202
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

    def expected(joint, q, n):  # noqa: ANN001, ANN202
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

    def posterior(x, W, mean, s2):  # noqa: ANN001, ANN202
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
        "data not centred": ("mean", "centred", "μ"),
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

    def elbo(x, W, mean, s2, m, V):  # noqa: ANN001, ANN202
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
        "log σ² without D": ("D", "once", "log σ²"),
        "no log 2 pi": ("2π", "constant"),
        "variances of q only in the spread": ("diagonal", "off-diagonal", "trace"),
    },
)


def mean_field(flaw: str) -> tuple[Callable, ...]:
    """The best diagonal q."""

    def best(x, W, mean, s2):  # noqa: ANN001, ANN202
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
        if flaw == "log-variances":
            variances = np.log(variances)
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
        "not centred": ("mean", "centred", "μ"),
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

    def responsibilities(x, weights, means, covs):  # noqa: ANN001, ANN202
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
        "exponent without a half": ("½", "half", "twice", "factor"),
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
        "determinant without its root": ("determinant", "root", "½"),
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

    def step(x, weights, means, covs):  # noqa: ANN001, ANN202
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


def em_family(flaw: str) -> tuple[Callable, ...]:
    """Steps with a restricted covariance, the flaw after a colon."""
    kind, mistake = flaw.split(": ")
    (full,) = em_step("")

    def step(x, weights, means, covs):  # noqa: ANN001, ANN202
        w, m, C = full(x, weights, means, covs)
        eye = np.eye(x.shape[1])
        if kind == "tied":
            parts = np.full(len(w), 1 / len(w)) if mistake == "components count equally" else w
            if mistake == "old weights in the average":
                parts = weights
            one = np.einsum("k,kde->de", parts, C)
            if mistake == "covariance of all data":
                one = np.cov(x.T, bias=True)
            return w, m, np.tile(one, (len(w), 1, 1))
        if kind == "spherical":
            size = np.trace(C, axis1=1, axis2=2)
            if mistake == "trace, not divided by D":
                return w, m, size[:, None, None] * eye
            if mistake == "geometric mean":
                return w, m, np.linalg.det(C)[:, None, None] ** (1 / len(eye)) * eye
            return w, m, size[:, None, None] / len(eye) * eye
        if mistake == "square root":
            return w, m, np.sqrt(C * eye)
        if mistake == "inverse of the diagonal of the precision":
            return w, m, eye / np.diagonal(np.linalg.inv(C), axis1=1, axis2=2)[:, None]
        return w, m, C * eye

    return (step,)


TIED = np.tile(spd(2), (3, 1, 1))
add(
    "em",
    em_family,
    (POINTS, *MIX[:2], TIED),
    {
        "tied: components count equally": ("equal", "weight", "mean over", "N_k"),
        "tied: covariance of all data": ("all data", "total", "whole data", "between"),
    },
    covariance_type="tied",
)
add(
    "em",
    em_family,
    (POINTS, *MIX[:2], np.tile(np.eye(2), (3, 1, 1)) * np.array([0.5, 1.0, 2.0])[:, None, None]),
    {
        "spherical: trace, not divided by D": ("D", "trace", "sum", "mean"),
        "spherical: geometric mean": ("geometric", "determinant"),
    },
    covariance_type="spherical",
)
add(
    "em",
    em_family,
    (POINTS, *MIX[:2], MIX[2] * np.eye(2)),
    {
        "diag: square root": ("std", "standard deviation", "root"),
        "diag: inverse of the diagonal of the precision": ("precision", "inverse"),
    },
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
        "shares in place of counts": ("N", "share", "weights", "divided"),
        "sum of the log-likelihood": ("sum", "N times", "mean"),
        "old means in the covariance": ("old mean", "before", "old"),
        "no log 2 pi": ("2π", "constant"),
        "second moment, not centred": ("centred", "second moment", "mean"),
        "log of the mean likelihood": ("log of the mean", "outside", "mean of"),
    },
)


def free_energy(flaw: str) -> tuple[Callable, ...]:
    """E_q log p(x, z) - log q."""

    def energy(x, log_resp, weights, means, covs):  # noqa: ANN001, ANN202
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
        "half of the log-determinant, twice halved": ("determinant", "half", "¼"),
        "2 pi once, not per dimension": ("2π", "once", "D"),
    },
)


def covariance_types(flaw: str) -> tuple[Callable, ...]:
    """Covariances of every type with a prior of some counts."""

    def make(S: Any, N: Any) -> Callable:
        def maximum(kind, variance, count):  # noqa: ANN001, ANN202
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
        "tied: prior once per component": ("tied", "prior", "K"),
        "diag: keeps the off-diagonal entries": ("diag", "full", "off-diagonal"),
        "spherical: trace": ("spherical", "trace", "D", "mean"),
        "spherical: largest variance": ("spherical", "largest", "mean"),
    },
)


def kmeans(flaw: str) -> tuple[Callable, ...]:
    """Lloyd's algorithm."""

    def lloyd(x, centres):  # noqa: ANN001, ANN202
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
            if flaw == "returns the centres before the last update":
                pass
            if flaw == "moves half of the way":
                return 0.5 * centres

    return (lloyd,)


CLOUD = np.concatenate([RNG.normal(size=(25, 2)), RNG.normal([2.0, 1.0], 0.7, size=(20, 2)), RNG.normal(-1, 1, (15, 2))])
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
        def step(x, weights, tables):  # noqa: ANN001, ANN202
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
        "log P per dimension": ("D", "mean over", "per dimension"),
        "hard assignment": ("hard", "argmax"),
        "mean pseudo-count everywhere": ("pseudo", "mean"),
    },
)


def ppca_maximum(flaw: str) -> tuple[Callable, ...]:
    """Tipping and Bishop's closed form by eigenvectors."""

    def maximum(S, k):  # noqa: ANN001, ANN202
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
        "rest divided by D": ("D", "divided", "D − k"),
        "noise not subtracted": ("σ²", "subtract", "λ"),
        "no square root": ("root", "squared"),
        "smallest eigenvalues": ("smallest", "order", "eigen"),
        "rows of the eigenvectors": ("transposed", "rows", "columns"),
    },
)
add("ppca_maximum", ppca_maximum, (COV5, 3), {"std of the noise": ("std", "standard deviation", "root", "σ")}, single=True)


def ppca_step(flaw: str) -> tuple[Callable, ...]:
    """EM for PPCA on the sample covariance."""

    def step(S, W, s2):  # noqa: ANN001, ANN202
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
        "not divided by D": ("D", "divided", "sum", "trace"),
        "posterior covariance left out of E zz": ("covariance", "E zz", "posterior", "spread"),
        "posterior without the noise": ("σ²", "noise", "posterior"),
        "σ² I is I": ("σ²", "I"),
    },
)
add("ppca_step", ppca_step, STEP, {"std": ("std", "standard deviation", "root", "σ")}, single=True)


def factor_step(flaw: str) -> tuple[Callable, ...]:
    """EM for factor analysis on the sample covariance."""

    def step(S, W, psi):  # noqa: ANN001, ANN202
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
        if flaw == "doubled correction of Ψ":
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
        "doubled correction of Ψ": ("posterior", "covariance", "spread"),
    },
)


def missing_information(flaw: str) -> tuple[Callable, ...]:
    """Louis' formula for the means of a mixture."""

    def fractions(x, weights, means, covs):  # noqa: ANN001, ANN202
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
