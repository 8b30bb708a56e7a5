"""Right implementations for the checks of VAE, latent variables, EM, continuous time, and beyond the deck."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.integrate
import scipy.linalg
import scipy.spatial
import scipy.special
import scipy.stats

from scratchgen import NoiseSchedule
from scratchgen import conformance as c
from scratchgen.mixture import Mixture
from scratchgen.sde import VE, VP, SubVP
from tests.battery.case import Right

CASES: list[Right] = []
LOG2PI = math.log(2 * math.pi)


def add(name: str, run: Callable[[], c.Check], slow: bool = False) -> None:
    CASES.append(Right(name, run, slow))


def low(a: Any) -> Any:
    """An argument in float32; whole numbers and functions as they are."""
    if isinstance(a, np.ndarray):
        return a.astype(np.float32) if a.dtype == np.float64 else a
    return np.float32(a) if isinstance(a, float) else a


def single(f: Callable[..., Any]) -> Callable[..., Any]:
    """The code f, called with float32."""
    return lambda *args: f(*[low(a) for a in args])


def cross(check: Callable[..., c.Check], codings: dict, problems: dict, only_single: tuple = (), slow: bool = False):
    """One case for each coding and problem; the codings in `only_single` also in float32, on the first problem."""
    title = check.__name__.removeprefix("check_")
    for how, code in codings.items():
        for what, problem in problems.items():
            add(f"{title}: {how}; {what}", partial(check, code, *problem), slow)
        if how in only_single:
            what, problem = next(iter(problems.items()))
            add(f"{title}: {how}; {what}; float32", partial(in_single, check, single(code), problem), slow)


def in_single(check: Callable[..., c.Check], code: Callable[..., Any], problem: tuple) -> c.Check:
    return check(code, *problem).at(1e-5)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def spd(seed: int, D: int, least: float = 0.3) -> np.ndarray:
    a = rng(seed).normal(size=(D, D)) / math.sqrt(D)
    return a @ a.T + least * np.eye(D)


def table(seed: int, *shape: int, axis: int | None = None) -> np.ndarray:
    p = rng(seed).uniform(0.1, 1.0, shape)
    return p / p.sum(axis=axis, keepdims=axis is not None)


# VAE ------------------------------------------------------------------------------------------------------------------


def vae_textbook(x, x_hat, mu, lv, dlv):
    s2 = np.exp(dlv)
    rec = 0.5 * (((x - x_hat) ** 2) / s2 + np.log(2 * math.pi * s2)).sum(axis=1)
    return rec + 0.5 * (mu**2 + np.exp(lv) - 1 - lv).sum(axis=1)


def vae_logpdf(x, x_hat, mu, lv, dlv):
    rec = -scipy.stats.norm.logpdf(x, x_hat, np.sqrt(np.exp(dlv))).sum(-1)
    ratio = np.exp(0.5 * lv) ** 2
    return rec + (0.5 * (ratio + mu * mu - 1 - np.log(ratio))).sum(-1)


def vae_gaussian_nll(x, x_hat, mu, lv, dlv):
    var = np.exp(dlv) * np.ones_like(x)
    nll = 0.5 * (np.log(var) + (x - x_hat) ** 2 / var) + 0.5 * LOG2PI
    kld = -0.5 * np.sum(1 + lv - mu**2 - np.exp(lv), axis=1)
    return np.sum(nll, axis=1) + kld


def vae_precision(x, x_hat, mu, lv, dlv):
    r = x - x_hat
    D, tau = x.shape[1], np.exp(-dlv)
    kl = 0.5 * (np.einsum("nk,nk->n", mu, mu) + np.expm1(lv).sum(1) - lv.sum(1))
    return 0.5 * (tau * np.einsum("nd,nd->n", r, r) + D * (LOG2PI + dlv)) + kl


def vae_loops(x, x_hat, mu, lv, dlv):
    out = []
    for n in range(len(x)):
        parts = [
            0.5 * (a - b) ** 2 * math.exp(-dlv) + 0.5 * (LOG2PI + float(dlv))
            for a, b in zip(x[n], x_hat[n], strict=True)
        ]
        parts += [0.5 * (m * m + math.exp(v) - 1 - v) for m, v in zip(mu[n], lv[n], strict=True)]
        out.append(math.fsum(parts))
    return out


def vae_problem(seed, N, D, k, variance):
    g = rng(seed)
    return (
        g.normal(size=(N, D)), g.normal(size=(D, k)), g.normal(size=D), variance,
        g.normal(size=(N, k)), g.normal(size=(N, k)) * 0.7 - 0.5,
    )  # fmt: skip


cross(
    c.check_vae_loss,
    {
        "textbook": vae_textbook,
        "logpdf and the KL of two normal laws": vae_logpdf,
        "the full Gaussian nll and Kingma's KL": vae_gaussian_nll,
        "precision, expm1": vae_precision,
        "loops": vae_loops,
    },
    {
        "D=5 k=2": vae_problem(1, 4, 5, 2, 0.5),
        "D=64 k=8 s²=0.01": vae_problem(2, 5, 64, 8, 0.01),
        "D=1 k=1 s²=1": vae_problem(3, 3, 1, 1, 1.0),
    },
    ("textbook", "precision, expm1"),
)


def kl_kingma(mu, lv):
    return -0.5 * np.sum(1 + lv - mu**2 - np.exp(lv), axis=-1)


def bce_logits(x, a, mu, lv):
    return (np.maximum(a, 0) - a * x + np.log1p(np.exp(-np.abs(a)))).sum(1) + kl_kingma(mu, lv)


def bce_softplus(x, a, mu, lv):
    return (x * np.logaddexp(0, -a) + (1 - x) * np.logaddexp(0, a)).sum(1) + kl_kingma(mu, lv)


def bce_probabilities(x, a, mu, lv):
    p = scipy.special.expit(a)
    return -(scipy.special.xlogy(x, p) + scipy.special.xlog1py(1 - x, -p)).sum(1) + kl_kingma(mu, lv)


def bce_clamped(x, a, mu, lv):
    p = 1 / (1 + np.exp(-a))
    with np.errstate(divide="ignore"):
        bce = x * np.maximum(np.log(p), -100) + (1 - x) * np.maximum(np.log1p(-p), -100)
    return kl_kingma(mu, lv) - bce.sum(1)


def bernoulli_problem(seed, N, D, k, binary):
    g = rng(seed)
    x = g.integers(0, 2, (N, D)).astype(float) if binary else g.uniform(size=(N, D))
    return x, 2 * g.normal(size=(N, D)), g.normal(size=(N, k)), g.normal(size=(N, k)) * 0.5


cross(
    c.check_bernoulli_loss,
    {
        "max(a, 0) − a x": bce_logits,
        "softplus": bce_softplus,
        "xlogy": bce_probabilities,
        "clamped at −100": bce_clamped,
    },
    {"D=6 grey": bernoulli_problem(4, 4, 6, 2, False), "D=49 binary": bernoulli_problem(5, 3, 49, 4, True)},
    ("max(a, 0) − a x", "softplus"),
)


def draw_cholesky(mu, lv, xi):
    factor = np.stack([np.diag(np.exp(0.5 * row)) for row in lv])
    return mu + np.einsum("nij,nj->ni", factor, xi)


def draw_loops(mu, lv, xi):
    return [
        [m + math.sqrt(math.exp(v)) * e for m, v, e in zip(*rows, strict=True)] for rows in zip(mu, lv, xi, strict=True)
    ]


cross(
    c.check_reparameterisation,
    {
        "exp(½ log σ²)": lambda mu, lv, xi: xi * np.exp(0.5 * lv) + mu,
        "the square root of exp": lambda mu, lv, xi: mu + np.sqrt(np.exp(lv)) * xi,
        "a power of e": lambda mu, lv, xi: mu + xi * math.e ** (lv / 2),
        "diagonal Cholesky factors": draw_cholesky,
        "loops": draw_loops,
    },
    {"k=3": (rng(6).normal(size=(4, 3)), rng(7).normal(size=(4, 3)), rng(8).normal(size=(4, 3)))},
    ("exp(½ log σ²)", "diagonal Cholesky factors"),
)


def iwae_shift(w):
    top = w.max(axis=0)
    return top + np.log(np.exp(w - top).mean(axis=0))


def iwae_softmax(w):
    r = scipy.special.softmax(w, axis=0)
    return (r * (w - np.log(r))).sum(0) - math.log(len(w))


def iwae_fold(w):
    total = w[0]
    for row in w[1:]:
        total = np.logaddexp(total, row)
    return total - math.log(len(w))


cross(
    c.check_importance_weighted_bound,
    {
        "logsumexp − log n": lambda w: scipy.special.logsumexp(w, axis=0) - math.log(len(w)),
        "the largest taken out": iwae_shift,
        "log of the mean": lambda w: np.log(np.mean(np.exp(w), axis=0)),
        "by softmax and its entropy": iwae_softmax,
        "logaddexp one by one": iwae_fold,
        "weights b=1/n inside logsumexp": lambda w: scipy.special.logsumexp(w, axis=0, b=1 / len(w)),
    },
    {"3 draws": (table(9, 3, 4), table(10, 3, 4, axis=1), 3)},
    ("logsumexp − log n", "the largest taken out"),
)

KL_PROBLEM = (table(11, 7), table(12, 7))
cross(
    c.check_kl,
    {
        "sum p log(p/q)": lambda p, q: np.sum(p * np.log(p / q)),
        "rel_entr": lambda p, q: scipy.special.rel_entr(p, q).sum(),
        "cross-entropy − entropy": lambda p, q: -(p @ np.log(q)) - scipy.stats.entropy(p),
        "scipy.stats.entropy": lambda p, q: scipy.stats.entropy(p, q),
        "kl_div, with its −p + q": lambda p, q: scipy.special.kl_div(p, q).sum(),
        "log-probabilities, as nn.KLDivLoss": lambda p, q: np.sum(np.exp(np.log(p)) * (np.log(p) - np.log(q))),
        "fsum": lambda p, q: math.fsum(a * math.log(a) - a * math.log(b) for a, b in zip(p, q, strict=True)),
    },
    {"7 values": KL_PROBLEM},
    ("sum p log(p/q)", "log-probabilities, as nn.KLDivLoss"),
)


def gkl_inverse(mp, Sp, mq, Sq):
    P, d = np.linalg.inv(Sq), mq - mp
    return 0.5 * (np.trace(P @ Sp) + d @ P @ d - len(d) + np.linalg.slogdet(Sq)[1] - np.linalg.slogdet(Sp)[1])


def gkl_cholesky(mp, Sp, mq, Sq):
    Lp, Lq = np.linalg.cholesky(Sp), np.linalg.cholesky(Sq)
    M = np.linalg.solve(Lq, Lp)
    y = np.linalg.solve(Lq, mq - mp)
    half = np.log(np.diag(Lq)).sum() - np.log(np.diag(Lp)).sum()
    return half + 0.5 * ((M**2).sum() + (y**2).sum() - len(y))


def gkl_generalised(mp, Sp, mq, Sq):
    lam, V = scipy.linalg.eigh(Sp, Sq)
    y = V.T @ (mq - mp)
    return 0.5 * (lam - 1 - np.log(lam) + y**2).sum()


def gkl_eigh(mp, Sp, mq, Sq):
    lp, (lq, U) = np.linalg.eigvalsh(Sp), np.linalg.eigh(Sq)
    rotated, y = U.T @ Sp @ U, U.T @ (mq - mp)
    return 0.5 * ((np.diag(rotated) + y**2) / lq - 1 + np.log(lq)).sum() - 0.5 * np.log(lp).sum()


def gkl_second_moment(mp, Sp, mq, Sq):
    # −h(p) − E_p log q
    d = mp - mq
    expected = -0.5 * (np.linalg.slogdet(2 * math.pi * Sq)[1] + np.trace(np.linalg.solve(Sq, Sp + np.outer(d, d))))
    return -0.5 * np.linalg.slogdet(2 * math.pi * math.e * Sp)[1] - expected


def gkl_problem(seed, D):
    g = rng(seed)
    return g.normal(size=D), spd(seed + 1, D), g.normal(size=D), spd(seed + 2, D)


cross(
    c.check_gaussian_kl,
    {
        "inverse and slogdet": gkl_inverse,
        "Cholesky": gkl_cholesky,
        "generalised eigenvalues": gkl_generalised,
        "eigenvectors of q": gkl_eigh,
        "cross-entropy − entropy": gkl_second_moment,
    },
    {"D=3": gkl_problem(13, 3), "D=1": gkl_problem(16, 1), "D=20": gkl_problem(19, 20)},
    ("inverse and slogdet", "Cholesky"),
)

cross(
    c.check_diagonal_kl,
    {
        "Kingma's": kl_kingma,
        "expm1": lambda mu, lv: 0.5 * (mu**2 + (np.expm1(lv) - lv)).sum(1),
        "of standard deviations": lambda mu, lv: (
            -np.log(np.exp(lv / 2)) + (np.exp(lv / 2) ** 2 + mu**2) / 2 - 0.5
        ).sum(1),
        "by full matrices": lambda mu, lv: [
            gkl_cholesky(m, np.diag(np.exp(v)), np.zeros(len(m)), np.eye(len(m))) for m, v in zip(mu, lv, strict=True)
        ],
        "einsum": lambda mu, lv: 0.5 * (np.einsum("nk,nk->n", mu, mu) + np.exp(lv).sum(1) - lv.sum(1) - mu.shape[1]),
    },
    {
        "k=2": (rng(22).normal(size=(4, 2)), rng(23).normal(size=(4, 2))),
        "k=32": (rng(24).normal(size=(3, 32)), rng(25).normal(size=(3, 32)) - 1),
    },
    ("Kingma's", "expm1"),
)

for what, (n, dim, scale) in {
    "pixels/256": (8, 3072, 1 / 256),
    "levels in [−1, 1]": (17, 64, 2 / 16),
    "whole numbers": (5, 2, 1.0),
}.items():
    cross(
        c.check_bits_per_dim,
        {
            "nats/(D log 2) − log₂ scale": lambda nats, D, s: nats / (D * math.log(2)) - math.log2(s),
            "nats of the mass first": lambda nats, D, s: (nats - D * np.log(s)) / D / np.log(2.0),
            "log₂ e": lambda nats, D, s: math.log2(math.e) * (nats / D + math.log(1 / s)),
        },
        {what: (table(26, n), dim, scale)},
    )
add(
    "bits_per_dim: float32",
    lambda: c.check_bits_per_dim(
        single(lambda nats, D, s: nats / np.float32(D * math.log(2)) - np.log2(s)), table(26, 9), 48, 1 / 128
    ).at(1e-5),
)


def log1mexp(a):
    """log(1 − e^−a) for a > 0."""
    return np.where(a < 0.693, np.log(-np.expm1(-a)), np.log1p(-np.exp(-np.maximum(a, 0.5))))


def mass_flip(level, mean, std, n):
    half = 1 / (n - 1)
    centre = 2 * level / (n - 1) - 1
    upper, lower = (centre + half - mean) / std, (centre - half - mean) / std
    upper = np.where(level == n - 1, np.inf, upper)
    lower = np.where(level == 0, -np.inf, lower)
    flip = upper + lower > 0
    flip = np.where(level == n - 1, lower > 0, np.where(level == 0, upper > 0, flip))
    a, b = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    la, lb = scipy.special.log_ndtr(a), scipy.special.log_ndtr(b)
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(la), lb, lb + log1mexp(lb - la))


def mass_two_tails(level, mean, std, n):
    """Ho's discretized likelihood, with the smaller of the two tails."""
    x = -1 + 2 * level / (n - 1)
    d = x - mean
    up, down = (d + 1 / (n - 1)) / std, (d - 1 / (n - 1)) / std
    left = scipy.special.log_ndtr(up)
    right = scipy.special.log_ndtr(-down)
    first = scipy.special.log_ndtr(down)
    last = scipy.special.log_ndtr(-up)
    middle = np.where(
        d < 0,
        left + np.log(-np.expm1(np.minimum(first - left, -1e-300))),
        right + np.log(-np.expm1(np.minimum(last - right, -1e-300))),
    )
    return np.where(level == 0, left, np.where(level == n - 1, right, middle))


def mass_legendre(level, mean, std, n):
    """The density, integrated over each bin by 40 Gauss-Legendre nodes; the open bins by log Φ."""
    half = 1 / (n - 1)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    centre = 2 * level / (n - 1) - 1
    z = ((centre - mean)[..., None] + half * nodes) / std
    inner = scipy.special.logsumexp(-0.5 * z**2, b=weights * half / (std * math.sqrt(2 * math.pi)), axis=-1)
    low_tail = scipy.special.log_ndtr((centre + half - mean) / std)
    high_tail = scipy.special.log_ndtr(-(centre - half - mean) / std)
    return np.where(level == 0, low_tail, np.where(level == n - 1, high_tail, inner))


for how, mass in {
    "log Φ, flipped": mass_flip,
    "the smaller tail": mass_two_tails,
    "by quadrature": mass_legendre,
}.items():
    for n, std in (17, 0.1), (256, 0.05), (2, 0.7):
        add(
            f"bin_masses: {how}; {n} levels, std {std}",
            lambda mass=mass, n=n, std=std: c.check_bin_masses(
                partial(mass, n=n), n, np.array([-0.9, 0.03, 0.4, 1.2]), std
            ),
        )
add(
    "bin_masses: log Φ, flipped; 17 levels; float32",
    lambda: c.check_bin_masses(single(partial(mass_flip, n=17)), 17, np.array([-0.9, 0.03, 0.4]), 0.2).at(1e-5),
)


# Tables of latent variables -------------------------------------------------------------------------------------------

JOINTS = {"4 x 3": (table(30, 4, 3), table(31, 4, 3, axis=1)), "2 x 9": (table(32, 2, 9), table(33, 2, 9, axis=1))}


def posterior_logs(joint):
    logs = np.log(joint)
    evidence = scipy.special.logsumexp(logs, axis=1)
    return np.exp(logs - evidence[:, None]), np.exp(evidence)


def posterior_bayes(joint):
    prior = joint.sum(0)
    likelihood = joint / prior
    evidence = likelihood @ prior
    return np.stack([row * prior / e for row, e in zip(likelihood, evidence, strict=True)]), evidence


cross(
    c.check_latent_posterior,
    {
        "divide by the sum": lambda joint: (joint / joint.sum(1, keepdims=True), joint.sum(1)),
        "softmax of logarithms": posterior_logs,
        "Bayes' rule": posterior_bayes,
        "einsum": lambda joint: (
            np.einsum("xz,x->xz", joint, 1 / np.einsum("xz->x", joint)),
            np.einsum("xz->x", joint),
        ),
    },
    {name: (joint,) for name, (joint, _) in JOINTS.items()},
    ("divide by the sum", "softmax of logarithms"),
)

cross(
    c.check_posterior_kl,
    {
        "rel_entr": lambda joint, q: scipy.special.rel_entr(q, joint / joint.sum(1, keepdims=True)).sum(1),
        "log p(x) − ELBO": lambda joint, q: np.log(joint.sum(1)) - (q * (np.log(joint) - np.log(q))).sum(1),
        "loops": lambda joint, q: [
            sum(b * math.log(b * sum(row) / a) for a, b in zip(row, qs, strict=True))
            for row, qs in zip(joint, q, strict=True)
        ],
    },
    JOINTS,
    ("rel_entr",),
)

cross(
    c.check_elbo,
    {
        "E_q log p/q": lambda joint, q: np.einsum("xz,xz->x", q, np.log(joint / q)),
        "energy + entropy": lambda joint, q: (q * np.log(joint)).sum(1) + scipy.special.entr(q).sum(1),
        "log p(x) − KL": lambda joint, q: (
            np.log(joint.sum(1)) - scipy.stats.entropy(q, joint / joint.sum(1, keepdims=True), axis=1)
        ),
        "split, with the marginal of z": lambda joint, q: (
            (q * np.log(joint / joint.sum(0))).sum(1) - (q * np.log(q / joint.sum(0))).sum(1)
        ),
    },
    JOINTS,
    ("E_q log p/q", "energy + entropy"),
)

SPLIT = {
    "4 x 3": (table(34, 4, 3, axis=0), table(35, 3), table(36, 4, 3, axis=1)),
    "9 x 2": (table(37, 9, 2, axis=0), table(38, 2), table(39, 9, 2, axis=1)),
}
cross(
    c.check_split_elbo,
    {
        "matmul": lambda d, p, q: (q * np.log(d)).sum(1) - scipy.special.rel_entr(q, p).sum(1),
        "one logarithm": lambda d, p, q: np.sum(q * np.log(d * p / q), axis=1),
        "from the posterior": lambda d, p, q: np.log(d @ p) - scipy.stats.entropy(q, d * p / (d @ p)[:, None], axis=1),
        "loops": lambda d, p, q: [
            sum(q[x, z] * (math.log(d[x, z]) - math.log(q[x, z] / p[z])) for z in range(len(p))) for x in range(len(d))
        ],
    },
    SPLIT,
    ("matmul",),
)

JOINT_KL = {name: (table(40 + i, len(d)), q, d, p) for i, (name, (d, p, q)) in enumerate(SPLIT.items())}
JOINT_KL_CODINGS = {
    "both joints as tables": lambda px, q, d, p: scipy.special.rel_entr(px[:, None] * q, d * p).sum(),
    "chain rule by x": lambda px, q, d, p: (
        scipy.stats.entropy(px, d @ p) + px @ scipy.stats.entropy(q, d * p / (d @ p)[:, None], axis=1)
    ),
    "chain rule by z": lambda px, q, d, p: (
        scipy.stats.entropy(px @ q, p) + (px @ q) @ scipy.stats.entropy(px[:, None] * q / (px @ q), d, axis=0)
    ),
    "−ELBO − H(p)": lambda px, q, d, p: -px @ (q * np.log(d * p / q)).sum(1) - scipy.stats.entropy(px),
}
cross(c.check_joint_kl, JOINT_KL_CODINGS, JOINT_KL, ("both joints as tables",))
cross(
    c.check_vae_objective,
    {
        "reconstruction + KL": lambda px, q, d, p: px @ (-(q * np.log(d)).sum(1) + (q * np.log(q / p)).sum(1)),
        "einsum": lambda px, q, d, p: np.einsum("x,xz,xz->", px, q, np.log(q) - np.log(p) - np.log(d)),
        "joint KL + entropy": lambda px, q, d, p: (
            scipy.special.rel_entr(px[:, None] * q, d * p).sum() + scipy.special.entr(px).sum()
        ),
        "cross-entropy + gap": lambda px, q, d, p: (
            -px @ np.log(d @ p) + px @ scipy.stats.entropy(q, d * p / (d @ p)[:, None], axis=1)
        ),
    },
    JOINT_KL,
    ("reconstruction + KL",),
)
cross(
    c.check_free_m_step,
    {
        "joint/marginal": lambda px, q: ((px[:, None] * q) / (px @ q), px @ q),
        "normalised columns": lambda px, q: (
            (px[:, None] * q) / (px[:, None] * q).sum(0, keepdims=True),
            (px[:, None] * q).sum(0),
        ),
        "logarithms": lambda px, q: (
            scipy.special.softmax(np.log(px)[:, None] + np.log(q), axis=0),
            np.exp(scipy.special.logsumexp(np.log(px)[:, None] + np.log(q), axis=0)),
        ),
    },
    {name: (px, q, p) for name, (px, q, _, p) in JOINT_KL.items()},
    ("joint/marginal",),
)
cross(
    c.check_kl_parts,
    {
        "rel_entr": lambda px, q, p: (
            scipy.special.rel_entr(q, px @ q).sum(1),
            scipy.special.rel_entr(px @ q, p).sum(),
        ),
        "entropies": lambda px, q, p: (
            -scipy.stats.entropy(q, axis=1) - q @ np.log(px @ q),
            -scipy.stats.entropy(px @ q) - (px @ q) @ np.log(p),
        ),
        "einsum": lambda px, q, p: (
            np.einsum("xz,xz->x", q, np.log(q / np.einsum("x,xz->z", px, q))),
            np.einsum("x,xz,z->", px, q, np.log(np.einsum("x,xz->z", px, q) / p)),
        ),
    },
    {name: (px, q, p) for name, (px, q, _, p) in JOINT_KL.items()},
    ("rel_entr",),
)


def ladder_tuples(joint, q, n):
    """All Z^n tuples, by one more axis for each draw."""
    w = joint / q
    X = len(w)
    total, mass = np.zeros((X, 1)), np.ones((X, 1))
    for _ in range(n):
        total = (total[:, :, None] + w[:, None, :]).reshape(X, -1)
        mass = (mass[:, :, None] * q[:, None, :]).reshape(X, -1)
    return (mass * np.log(total / n)).sum(1)


def ladder_logs(joint, q, n):
    logs = np.log(joint) - np.log(q)
    grid = np.stack(np.meshgrid(*[np.arange(q.shape[1])] * n, indexing="ij")).reshape(n, -1)
    bound = scipy.special.logsumexp(logs[:, grid], axis=1) - math.log(n)
    return (np.exp(np.log(q)[:, grid].sum(1)) * bound).sum(1)


def ladder_recursive(joint, q, n):
    def expected(x, left, total):
        if left == 0:
            return math.log(total / n)
        return sum(q[x, z] * expected(x, left - 1, total + joint[x, z] / q[x, z]) for z in range(q.shape[1]))

    return [expected(x, n, 0.0) for x in range(len(q))]


cross(
    c.check_iwae_ladder,
    {"sums of weights": ladder_tuples, "logsumexp on a grid": ladder_logs, "recursion": ladder_recursive},
    {"4 x 3": (*JOINTS["4 x 3"], 3)},
    ("sums of weights",),
)


def dequantise_legendre(log_prob, k, n=24):
    x, w = np.polynomial.legendre.leggauss(n)
    D = k.shape[1]
    u = np.stack(np.meshgrid(*[(x + 1) / 2] * D, indexing="ij"), -1).reshape(-1, D)
    weight = np.prod(np.stack(np.meshgrid(*[w / 2] * D, indexing="ij"), -1).reshape(-1, D), axis=1)
    logs = np.asarray(log_prob((k[:, None] + u).reshape(-1, D))).reshape(len(k), -1)
    return scipy.special.logsumexp(logs, b=weight, axis=1) - logs @ weight


def dequantise_loop(log_prob, k):
    x, w = scipy.special.roots_sh_legendre(20)
    out = []
    for point in k:
        logs, weights = np.zeros(1), np.ones(1)
        nodes = np.zeros((1, 0))
        for d in range(len(point)):
            nodes = np.concatenate([np.repeat(nodes, len(x), 0), np.tile(point[d] + x, len(nodes))[:, None]], axis=1)
            weights = np.outer(weights, w).ravel()
        logs = np.asarray(log_prob(nodes))
        top = logs.max()
        out.append(top + math.log(weights @ np.exp(logs - top)) - weights @ logs)
    return out


cross(
    c.check_dequantisation,
    {"tensor grid": dequantise_legendre, "point by point": dequantise_loop},
    {"D=2": (np.array([0.3, -0.4]), np.array([1.2, 2.0])), "D=1": (np.array([1.0]), np.array([1.1]))},
)


# The linear-Gaussian model --------------------------------------------------------------------------------------------


def lg_ppca(x, W, mu, s2):
    M = W.T @ W + s2 * np.eye(W.shape[1])
    return np.linalg.solve(M, W.T @ (x - mu).T).T, s2 * np.linalg.inv(M)


def lg_information(x, W, mu, s2):
    P = np.eye(W.shape[1]) + W.T @ W / s2
    L = np.linalg.cholesky(P)
    Li = np.linalg.inv(L)
    cov = Li.T @ Li
    return (x - mu) @ W @ cov / s2, cov


def lg_joint(x, W, mu, s2):
    C = W @ W.T + s2 * np.eye(len(W))
    gain = np.linalg.solve(C, W).T
    return (x - mu) @ gain.T, np.eye(W.shape[1]) - gain @ W


def lg_svd(x, W, mu, s2):
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    full = np.eye(W.shape[1]) - Vt.T @ Vt  # directions that W does not use keep variance 1
    shrink = s2 / (s**2 + s2)
    return (x - mu) @ (U * (s / (s**2 + s2))) @ Vt, (Vt.T * shrink) @ Vt + full


def lg_kalman(x, W, mu, s2):
    m, P = np.zeros((len(x), W.shape[1])), np.eye(W.shape[1])
    for d, w in enumerate(W):
        S = w @ P @ w + s2
        K = P @ w / S
        m = m + np.outer(x[:, d] - mu[d] - m @ w, K)
        P = P - np.outer(K, w @ P)
    return m, P


def lg_lstsq(x, W, mu, s2):
    k, root = W.shape[1], math.sqrt(s2)
    rows = np.concatenate([W / root, np.eye(k)])
    Q, R = np.linalg.qr(rows)
    target = np.concatenate([(x - mu).T / root, np.zeros((k, len(x)))])
    Ri = np.linalg.inv(R)
    return (Ri @ (Q.T @ target)).T, Ri @ Ri.T


def lg_problem(seed, N, D, k, s2):
    g = rng(seed)
    return g.normal(size=(N, D)), g.normal(size=(D, k)), g.normal(size=D), s2


LG = {
    "D=5 k=2": lg_problem(50, 4, 5, 2, 0.6),
    "D=2 k=4": lg_problem(51, 3, 2, 4, 0.3),
    "D=30 k=3 σ²=0.05": lg_problem(52, 5, 30, 3, 0.05),
}
cross(
    c.check_linear_gaussian_posterior,
    {
        "PPCA's M": lg_ppca,
        "precision, Cholesky": lg_information,
        "Woodbury": lg_joint,
        "SVD": lg_svd,
        "Kalman, row by row": lg_kalman,
        "QR of a regression": lg_lstsq,
    },
    LG,
    ("PPCA's M", "precision, Cholesky"),
)


def mf_precision(x, W, mu, s2):
    P = np.eye(W.shape[1]) + W.T @ W / s2
    return np.linalg.solve(P, W.T @ (x - mu).T / s2).T, 1 / np.diag(P)


def mf_columns(x, W, mu, s2):
    mean, _ = lg_joint(x, W, mu, s2)
    return mean, s2 / (s2 + (W**2).sum(0))


def mf_coordinate_ascent(x, W, mu, s2):
    k = W.shape[1]
    v = s2 / (s2 + np.einsum("dk,dk->k", W, W))
    m = np.zeros((len(x), k))
    for _ in range(2000):
        old = m.copy()
        for i in range(k):
            rest = x - mu - m @ W.T + np.outer(m[:, i], W[:, i])
            m[:, i] = v[i] * (rest @ W[:, i]) / s2
        if np.abs(m - old).max() < 1e-16:
            break
    return m, v


cross(
    c.check_mean_field,
    {"precision": mf_precision, "Woodbury and columns": mf_columns, "coordinate ascent": mf_coordinate_ascent},
    {"D=5 k=2": LG["D=5 k=2"], "D=30 k=3 σ²=0.05": LG["D=30 k=3 σ²=0.05"]},
    ("precision",),
)


def lge_textbook(x, W, mu, s2, m, S):
    D, k = W.shape
    r = x - mu - m @ W.T
    rec = -0.5 * (D * np.log(2 * math.pi * s2) + ((r**2).sum(1) + np.trace(W.T @ W @ S)) / s2)
    kl = 0.5 * (np.trace(S) + (m**2).sum(1) - k - np.linalg.slogdet(S)[1])
    return rec - kl


def lge_evidence(x, W, mu, s2, m, S):
    post, cov = lg_joint(x, W, mu, s2)
    C = W @ W.T + s2 * np.eye(len(W))
    log_p = scipy.stats.multivariate_normal(mu, C).logpdf(x)
    return log_p - np.array([gkl_inverse(a, S, b, cov) for a, b in zip(m, post, strict=True)])


def lge_joint(x, W, mu, s2, m, S):
    """E_q of the joint log density, by second moments, plus the entropy of q."""
    D, k = W.shape
    Ezz = S + m[:, :, None] * m[:, None, :]
    r = x - mu
    quad = (r**2).sum(1) - 2 * np.einsum("nd,dk,nk->n", r, W, m) + np.einsum("nij,ji->n", Ezz, W.T @ W)
    log_joint = -0.5 * (quad / s2 + np.trace(Ezz, axis1=1, axis2=2) + D * math.log(s2) + (D + k) * LOG2PI)
    return log_joint + 0.5 * k * (1 + LOG2PI) + np.log(np.diag(np.linalg.cholesky(S))).sum()


def lge_points(x, W, mu, s2, m, S):
    """The mean over 2k points m ± √k times the columns of the factor of S."""
    k = W.shape[1]
    L = np.linalg.cholesky(S) * math.sqrt(k)
    z = np.concatenate([m + col for col in L.T] + [m - col for col in L.T]).reshape(2 * k, *m.shape)
    log_px = -0.5 * (((x - mu - z @ W.T) ** 2) / s2 + math.log(2 * math.pi * s2)).sum(-1)
    log_pz = -0.5 * (z**2 + LOG2PI).sum(-1)
    return (log_px + log_pz).mean(0) + 0.5 * np.linalg.slogdet(2 * math.pi * math.e * S)[1]


cross(
    c.check_linear_gaussian_elbo,
    {
        "reconstruction − KL": lge_textbook,
        "evidence − KL": lge_evidence,
        "second moments": lge_joint,
        "sigma points": lge_points,
    },
    {name: (*p, rng(53).normal(size=(len(p[0]), p[1].shape[1])), spd(54, p[1].shape[1])) for name, p in LG.items()},
    ("reconstruction − KL",),
)


# EM -------------------------------------------------------------------------------------------------------------------


def logpdf_cholesky(x, m, C):
    L = np.linalg.cholesky(C)
    y = np.linalg.solve(L, (x - m).T)
    return -0.5 * (y**2).sum(0) - np.log(np.diag(L)).sum() - 0.5 * x.shape[1] * x.dtype.type(LOG2PI)


def logpdf_precision(x, m, C):
    r = x - m
    return -0.5 * (np.einsum("nd,de,ne->n", r, np.linalg.inv(C), r) + np.linalg.slogdet(C)[1] + x.shape[1] * LOG2PI)


def logpdf_eigh(x, m, C):
    lam, U = np.linalg.eigh(C)
    y = (x - m) @ U / np.sqrt(lam)
    return -0.5 * ((y**2).sum(1) + np.log(2 * math.pi * lam).sum())


def logpdf_scipy(x, m, C):
    return np.atleast_1d(scipy.stats.multivariate_normal(m, C).logpdf(x))


def logpdf_sequential(x, m, C):
    """A product of conditional laws, coordinate by coordinate."""
    total = np.zeros(len(x))
    for d in range(len(m)):
        b = np.linalg.solve(C[:d, :d], C[:d, d]) if d else np.zeros(0)
        v = C[d, d] - b @ C[:d, d]
        r = x[:, d] - m[d] - (x[:, :d] - m[:d]) @ b
        total += -0.5 * (r**2 / v + np.log(2 * np.pi * v))
    return total


def log_joint(x, w, m, C, logpdf=logpdf_cholesky):
    return np.stack([np.log(w[k]) + logpdf(x, m[k], C[k]) for k in range(len(w))], axis=1)


def e_logs(x, w, m, C, logpdf=logpdf_cholesky):
    lj = log_joint(x, w, m, C, logpdf)
    return np.exp(lj - scipy.special.logsumexp(lj, axis=1, keepdims=True))


def e_odds(x, w, m, C):
    lj = log_joint(x, w, m, C, logpdf_precision)
    with np.errstate(over="ignore"):
        return 1 / np.exp(lj[:, None, :] - lj[:, :, None]).sum(2)


def e_sklearn(x, w, m, C):
    """Factors of the precisions, as precisions_cholesky_ of scikit-learn."""
    N, D = x.shape
    out = np.empty((N, len(w)))
    for k in range(len(w)):
        L = np.linalg.cholesky(C[k])
        P = scipy.linalg.solve_triangular(L, np.eye(D), lower=True).T
        y = x @ P - m[k] @ P
        out[:, k] = -0.5 * (D * LOG2PI + np.square(y).sum(1)) + np.log(np.diag(P)).sum() + np.log(w[k])
    return np.exp(out - scipy.special.logsumexp(out, axis=1)[:, None])


def em_problem(seed, N, D, K):
    g = rng(seed)
    centres = 2 * g.normal(size=(K, D))
    x = centres[g.integers(0, K, N)] + g.normal(size=(N, D))
    means = centres + 0.4 * g.normal(size=(K, D))
    return x, table(seed + 1, K), means, np.stack([spd(seed + 2 + k, D) for k in range(K)])


EM = {
    "N=40 D=2 K=3": em_problem(60, 40, 2, 3),
    "N=30 D=1 K=2": em_problem(70, 30, 1, 2),
    "N=120 D=8 K=4": em_problem(80, 120, 8, 4),
}
cross(
    c.check_e_step,
    {
        "Cholesky": e_logs,
        "precision matrices": partial(e_logs, logpdf=logpdf_precision),
        "eigenvectors": partial(e_logs, logpdf=logpdf_eigh),
        "scipy": partial(e_logs, logpdf=logpdf_scipy),
        "conditional laws": partial(e_logs, logpdf=logpdf_sequential),
        "sums of odds": e_odds,
        "precisions_cholesky": e_sklearn,
        "softmax": lambda *p: scipy.special.softmax(log_joint(*p), axis=1),
    },
    EM,
    ("Cholesky", "precision matrices"),
)


def m_textbook(x, r):
    Nk = r.sum(0)
    m = (r.T @ x) / Nk[:, None]
    C = np.stack([(r[:, k, None] * (x - m[k])).T @ (x - m[k]) / Nk[k] for k in range(len(Nk))])
    return Nk / len(x), m, C


def m_moments(x, r):
    shift = x.mean(0)
    y = x - shift
    Nk = np.einsum("nk->k", r)
    first = np.einsum("nk,nd->kd", r, y) / Nk[:, None]
    second = np.einsum("nk,nd,ne->kde", r, y, y) / Nk[:, None, None]
    return r.mean(0), first + shift, second - np.einsum("kd,ke->kde", first, first)


def m_weighted(x, r):
    m = np.stack([np.average(x, axis=0, weights=r[:, k]) for k in range(r.shape[1])])
    C = np.stack([np.cov(x.T, aweights=r[:, k], ddof=0).reshape(x.shape[1], -1) for k in range(r.shape[1])])
    return r.sum(0) / r.sum(), m, C


def m_loops(x, r):
    N, D = x.shape
    K = r.shape[1]
    w, m, C = np.zeros(K), np.zeros((K, D)), np.zeros((K, D, D))
    for k in range(K):
        total = math.fsum(r[:, k])
        w[k] = total / N
        for n in range(N):
            m[k] += r[n, k] * x[n] / total
        for n in range(N):
            C[k] += r[n, k] * np.outer(x[n] - m[k], x[n] - m[k]) / total
    return w, m, C


def m_qr(x, r):
    Nk = r.sum(0)
    m = r.T @ x / Nk[:, None]
    C = []
    for k in range(len(Nk)):
        R = np.linalg.qr(np.sqrt(r[:, k] / Nk[k])[:, None] * (x - m[k]), mode="r")
        C.append(R.T @ R)
    return Nk / Nk.sum(), m, np.stack(C)


def shaped(w, m, C, kind="full", ridge=0.0, floor=0.0):
    """The family of covariances; then a ridge; then eigenvalues raised to the floor."""
    D = m.shape[1]
    eye = np.eye(D, dtype=C.dtype)
    if kind == "tied":
        C = np.broadcast_to(np.einsum("k,kde->de", w / w.sum(), C), C.shape)
    elif kind == "diag":
        C = C * eye
    elif kind == "spherical":
        C = (np.trace(C, axis1=1, axis2=2) / D)[:, None, None] * eye
    C = C + ridge * eye
    if floor:
        lam, U = np.linalg.eigh(C)
        C = (U * np.maximum(lam, floor)[:, None, :]) @ U.transpose(0, 2, 1)
    return w, m, C


def em_step(x, w, m, C, e=e_logs, m_step=m_textbook, **options):
    return shaped(*m_step(x, e(x, w, m, C)), **options)


cross(
    c.check_em,
    {
        "textbook": em_step,
        "moments about the mean": partial(em_step, m_step=m_moments),
        "np.average and np.cov": partial(em_step, e=e_sklearn, m_step=m_weighted),
        "loops": partial(em_step, e=partial(e_logs, logpdf=logpdf_precision), m_step=m_loops),
        "QR": partial(em_step, e=partial(e_logs, logpdf=logpdf_scipy), m_step=m_qr),
    },
    {"N=40 D=2 K=3": EM["N=40 D=2 K=3"], "N=30 D=1 K=2": EM["N=30 D=1 K=2"]},
    ("textbook", "QR"),
)
add("em: einsum; N=120 D=8 K=4", lambda: c.check_em(partial(em_step, m_step=m_moments), *EM["N=120 D=8 K=4"]))


def tied_scatter(x, w, m, C):
    """Tied: total scatter minus that between components, as scikit-learn."""
    r = e_sklearn(x, w, m, C)
    Nk = r.sum(0)
    new = r.T @ x / Nk[:, None]
    shared = (x.T @ x - (Nk * new.T) @ new) / Nk.sum()
    return Nk / len(x), new, np.stack([shared] * len(w))


def diagonal_sklearn(x, w, m, C):
    r = e_logs(x, w, m, C, logpdf_eigh)
    Nk = r.sum(0)
    new = r.T @ x / Nk[:, None]
    v = r.T @ x**2 / Nk[:, None] - new**2
    return Nk / len(x), new, np.stack([np.diag(row) for row in v])


def spherical_distances(x, w, m, C):
    r = e_odds(x, w, m, C)
    Nk = r.sum(0)
    new = r.T @ x / Nk[:, None]
    v = (r * scipy.spatial.distance.cdist(x, new, "sqeuclidean")).sum(0) / (Nk * x.shape[1])
    return Nk / len(x), new, v[:, None, None] * np.eye(x.shape[1])


for kind, other in {"tied": tied_scatter, "diag": diagonal_sklearn, "spherical": spherical_distances}.items():
    for how, step in {"restricted": partial(em_step, kind=kind), "in its own way": other}.items():
        add(
            f"em: {kind}, {how}",
            lambda kind=kind, step=step: c.check_em(step, *EM["N=40 D=2 K=3"], covariance_type=kind),
        )
    add(
        f"em: {kind}, ridge 0.01",
        lambda kind=kind: c.check_em(
            partial(em_step, kind=kind, ridge=0.01), *EM["N=40 D=2 K=3"], covariance_type=kind, ridge=0.01
        ),
    )
add("em: full, ridge 1e-6", lambda: c.check_em(partial(em_step, ridge=1e-6), *EM["N=40 D=2 K=3"], ridge=1e-6))
add("em: full, floor 0.2", lambda: c.check_em(partial(em_step, floor=0.2), *EM["N=40 D=2 K=3"], floor=0.2))
add(
    "em: diag, floor 0.2",
    lambda: c.check_em(
        partial(em_step, kind="diag", floor=0.2), *EM["N=40 D=2 K=3"], floor=0.2, covariance_type="diag"
    ),
)


def em_loop(x, w, m, C, n_steps, e=log_joint, m_step=m_textbook):
    history = []
    for i in range(n_steps + 1):
        lj = e(x, w, m, C)
        evidence = scipy.special.logsumexp(lj, axis=1)
        history.append(evidence.mean())
        if i < n_steps:
            w, m, C = m_step(x, np.exp(lj - evidence[:, None]))
    return history, w, m, C


def em_loop_after(x, w, m, C, n_steps):
    """Steps first, then the objective of every mixture that was visited."""
    visited = [(w, m, C)]
    for _ in range(n_steps):
        visited.append(em_step(x, *visited[-1], e=e_sklearn, m_step=m_qr))
    objective = [np.mean(np.logaddexp.reduce(log_joint(x, *v, logpdf_eigh), axis=1)) for v in visited]
    return (objective, *visited[-1])


def em_loop_case(loop, problem, n_steps, precision=np.float64):
    given = [np.asarray(a, dtype=precision) for a in problem]
    return c.check_em_loop(lambda: loop(*given, n_steps), *problem, n_steps)


for what in "N=40 D=2 K=3", "N=30 D=1 K=2":
    for how, loop in {
        "one loop": em_loop,
        "moments, precisions": partial(em_loop, e=partial(log_joint, logpdf=logpdf_precision), m_step=m_moments),
        "objective afterwards": em_loop_after,
    }.items():
        for n in 1, 5:
            add(f"em_loop: {how}; {what}; {n} steps", partial(em_loop_case, loop, EM[what], n))
add(
    "em_loop: one loop; N=40 D=2 K=3; 3 steps; float32",
    lambda: em_loop_case(em_loop, EM["N=40 D=2 K=3"], 3, np.float32).at(1e-5),
)


def free_evidence(x, log_q, w, m, C):
    lj = log_joint(x, w, m, C, logpdf_eigh)
    evidence = scipy.special.logsumexp(lj, axis=1)
    return evidence - scipy.special.rel_entr(np.exp(log_q), np.exp(lj - evidence[:, None])).sum(1)


def free_split(x, log_q, w, m, C):
    q = np.exp(log_q)
    likelihood = np.stack([logpdf_scipy(x, a, b) for a, b in zip(m, C, strict=True)], axis=1)
    return (q * likelihood).sum(1) + q @ np.log(w) + scipy.special.entr(q).sum(1)


cross(
    c.check_free_energy,
    {
        "E_q[log p − log q]": lambda x, log_q, w, m, C: (np.exp(log_q) * (log_joint(x, w, m, C) - log_q)).sum(1),
        "evidence − KL": free_evidence,
        "likelihood, prior and entropy": free_split,
        "einsum": lambda x, lq, w, m, C: np.einsum(
            "nk,nk->n", np.exp(lq), log_joint(x, w, m, C, logpdf_precision) - lq
        ),
    },
    {name: (p[0], np.log(table(61, len(p[0]), len(p[1]), axis=1)), *p[1:]) for name, p in EM.items()},
    ("E_q[log p − log q]",),
)


def statistics_of(problem, e=log_joint, m_step=m_textbook, blocks=False, precision=np.float64):
    x, w, m, C = (np.asarray(a, dtype=precision) for a in problem)
    lj = e(x, w, m, C)
    evidence = np.logaddexp.reduce(lj, axis=1)
    r = np.exp(lj - evidence[:, None])
    if not blocks:
        _, means, covs = m_step(x, r)
        return r.sum(0), means, covs, evidence.mean()
    zero, one, two = np.zeros(len(w)), np.zeros_like(m), np.zeros_like(C)
    for start in range(0, len(x), 7):
        part, y = r[start : start + 7], x[start : start + 7] - x[0]
        zero += part.sum(0)
        one += part.T @ y
        two += np.einsum("nk,nd,ne->kde", part, y, y)
    one, two = one / zero[:, None], two / zero[:, None, None]
    return zero, one + x[0], two - one[:, :, None] * one[:, None, :], np.average(evidence)


for what, problem in EM.items():
    for how, options in {
        "Cholesky": {},
        "precisions, moments": {"e": partial(log_joint, logpdf=logpdf_precision), "m_step": m_moments},
        "blocks of rows": {"blocks": True},
        "conditional laws, QR": {"e": partial(log_joint, logpdf=logpdf_sequential), "m_step": m_qr},
    }.items():
        add(
            f"statistics: {how}; {what}",
            lambda p=problem, o=options: c.check_statistics(lambda: statistics_of(p, **o), *p),
        )
add(
    "statistics: Cholesky; N=40 D=2 K=3; float32",
    lambda: c.check_statistics(lambda: statistics_of(EM["N=40 D=2 K=3"], precision=np.float32), *EM["N=40 D=2 K=3"]).at(
        1e-5
    ),
)


def types_matrix(kind, variance, count, S, N, floor):
    K, D = S.shape[:2]
    eye = np.eye(D)
    if kind == "tied":
        shared = (np.einsum("k,kde->de", N, S) + count * variance * eye) / (N.sum() + count)
        C = np.stack([shared] * K)
    else:
        C = (N[:, None, None] * S + count * variance * eye) / (N + count)[:, None, None]
    if kind == "diag":
        C = C * eye
    if kind == "spherical":
        C = np.einsum("kdd->k", C)[:, None, None] / D * eye
    lam, U = np.linalg.eigh(C)
    return np.einsum("kde,ke,kfe->kdf", U, np.maximum(lam, floor), U)


def types_scalars(kind, variance, count, S, N, floor):
    K, D = S.shape[:2]
    out = np.zeros((K, D, D))
    if kind in ("diag", "spherical"):
        for k in range(K):
            v = [(N[k] * S[k, d, d] + count * variance) / (N[k] + count) for d in range(D)]
            if kind == "spherical":
                v = [sum(v) / D] * D
            for d in range(D):
                out[k, d, d] = max(v[d], floor)
        return out
    if kind == "tied":
        parts, total = [sum(n * s for n, s in zip(N, S, strict=True))] * K, [N.sum()] * K
    else:
        parts, total = [n * s for n, s in zip(N, S, strict=True)], N
    for k in range(K):
        C = (parts[k] + count * variance * np.identity(D)) / (total[k] + count)
        lam, U = scipy.linalg.eigh(C)
        out[k] = C + (U * np.maximum(floor - lam, 0)) @ U.T  # only what is missing is added
    return out


TYPES = (np.stack([spd(90 + k, 3, 0.02) for k in range(3)]), np.array([10.0, 4.5, 21.0]))
for how, maximum in {"one matrix formula": types_matrix, "entry by entry": types_scalars}.items():
    for floor in 0.0, 0.05, 0.3:
        add(
            f"covariance_types: {how}; floor {floor}",
            lambda maximum=maximum, floor=floor: c.check_covariance_types(
                partial(maximum, S=TYPES[0], N=TYPES[1], floor=floor), *TYPES, floor
            ),
        )
add(
    "covariance_types: one matrix formula; float32",
    lambda: c.check_covariance_types(
        single(partial(types_matrix, S=low(TYPES[0]), N=low(TYPES[1]), floor=0.05)), *TYPES, 0.05
    ).at(1e-5),
)


def kmeans_lloyd(x, centres):
    labels = None
    while True:
        new = ((x[:, None] - centres) ** 2).sum(2).argmin(1)
        if labels is not None and (new == labels).all():
            return centres
        labels = new
        centres = np.stack([x[labels == k].mean(0) for k in range(len(centres))])


def kmeans_products(x, centres):
    while True:
        distance = (centres**2).sum(1) - 2 * x @ centres.T
        one_hot = np.eye(len(centres), dtype=x.dtype)[distance.argmin(1)]
        new = one_hot.T @ x / one_hot.sum(0)[:, None]
        if np.array_equal(new, centres):
            return centres
        centres = new


def kmeans_tree(x, centres):
    for _ in range(300):
        _, labels = scipy.spatial.cKDTree(centres).query(x)
        sums = np.stack([np.bincount(labels, weights=column, minlength=len(centres)) for column in x.T], axis=1)
        moved = sums / np.bincount(labels, minlength=len(centres))[:, None]
        if np.allclose(moved, centres, rtol=0, atol=1e-14):
            break
        centres = moved
    return moved


def kmeans_problem(seed, N, D, K):
    x = em_problem(seed, N, D, K)[0]
    return x, x[:K].copy()


cross(
    c.check_kmeans,
    {"differences": kmeans_lloyd, "products and one-hot rows": kmeans_products, "a tree of centres": kmeans_tree},
    {
        "N=60 D=2 K=3": kmeans_problem(100, 60, 2, 3),
        "N=25 D=1 K=2": kmeans_problem(110, 25, 1, 2),
        "N=200 D=10 K=5": kmeans_problem(120, 200, 10, 5),
    },
    ("differences",),
)


def table_one_hot(x, w, tables, counts):
    hot = np.eye(tables.shape[2], dtype=tables.dtype)[x]
    lj = np.log(w) + np.einsum("ndl,kdl->nk", hot, np.log(tables))
    evidence = scipy.special.logsumexp(lj, axis=1)
    r = np.exp(lj - evidence[:, None])
    new = np.einsum("nk,ndl->kdl", r, hot) + counts
    return evidence, r.mean(0), new / new.sum(2, keepdims=True)


def table_loops(x, w, tables, counts):
    N, D = x.shape
    K, _, n_levels = tables.shape
    joint = np.array([[w[k] * math.prod(tables[k, d, x[n, d]] for d in range(D)) for k in range(K)] for n in range(N)])
    r = joint / joint.sum(1, keepdims=True)
    new = np.zeros_like(tables)
    for k in range(K):
        for d in range(D):
            new[k, d] = np.bincount(x[:, d], weights=r[:, k], minlength=n_levels) + counts[d]
            new[k, d] /= new[k, d].sum()
    return np.log(joint.sum(1)), r.sum(0) / N, new


def table_gather(x, w, tables, counts):
    dims = np.arange(x.shape[1])
    lj = np.log(tables[:, dims, x]).sum(2).T + np.log(w)
    q = scipy.special.softmax(lj, axis=1)
    new = np.tile(counts.astype(float), (len(w), 1, 1))
    for k in range(len(w)):
        np.add.at(new[k], (dims[None, :], x), q[:, k, None])
    return np.logaddexp.reduce(lj, axis=1), q.sum(0) / q.sum(), new / new.sum(-1)[..., None]


def table_problem(seed, N, D, K, n_levels, smoothing):
    g = rng(seed)
    return (
        g.integers(0, n_levels, (N, D)),
        table(seed + 1, K),
        table(seed + 2, K, D, n_levels, axis=2),
        smoothing * table(seed + 3, D, n_levels),
    )


def as_code(step):
    """The pseudo-counts belong to the model, so that step takes (x, weights, tables)."""

    def check(code, x, w, t, counts):
        return step(partial(code, counts=counts), x, w, t, counts)

    check.__name__ = step.__name__
    return check


cross(
    as_code(c.check_table_em),
    {"one-hot": table_one_hot, "loops": table_loops, "gather and add.at": table_gather},
    {
        "D=4 K=3, 5 levels": table_problem(130, 30, 4, 3, 5, 0.0),
        "smoothed": table_problem(135, 20, 3, 2, 4, 1.5),
        "D=16 K=4, binary": table_problem(140, 25, 16, 4, 2, 0.3),
    },
)


# PPCA and factor analysis ---------------------------------------------------------------------------------------------


def ppca_eigh(S, k):
    lam, U = np.linalg.eigh(S)
    lam, U = lam[::-1], U[:, ::-1]
    s2 = lam[k:].mean()
    return U[:, :k] * np.sqrt(lam[:k] - s2), s2


def ppca_svd(S, k):
    U, s, _ = np.linalg.svd(np.linalg.cholesky(S))
    s2 = (s[k:] ** 2).sum() / (len(S) - k)
    return U[:, :k] @ np.diag(np.sqrt(s[:k] ** 2 - s2)), s2


def ppca_rotated(S, k):
    """Any rotation of the latents is a maximum as well."""
    W, s2 = ppca_eigh(S, k)
    R = np.linalg.qr(rng(7).normal(size=(k, k)))[0]
    return W @ R, s2


def ppca_trace(S, k):
    lam, U = scipy.linalg.eigh(S, subset_by_index=[len(S) - k, len(S) - 1])
    s2 = (np.trace(S) - lam.sum()) / (len(S) - k)
    return U * (lam - s2) ** 0.5, s2


cross(
    c.check_ppca_maximum,
    {
        "eigh": ppca_eigh,
        "SVD of a factor": ppca_svd,
        "rotated": ppca_rotated,
        "leading eigenvectors and the trace": ppca_trace,
    },
    {"D=5 k=2": (spd(150, 5), 2), "D=12 k=11": (spd(151, 12), 11), "D=2 k=1": (spd(152, 2), 1)},
    ("eigh",),
)


def pp_tipping(S, W, s2):
    D, k = W.shape
    Mi = np.linalg.inv(W.T @ W + s2 * np.eye(k))
    new = S @ W @ np.linalg.inv(s2 * np.eye(k) + Mi @ W.T @ S @ W)
    return new, np.trace(S - S @ W @ Mi @ new.T) / D


def pp_regression(S, W, s2):
    D, k = W.shape
    M = s2 * np.eye(k, dtype=W.dtype) + W.T @ W
    B = np.linalg.solve(M, W.T)
    Exz = S @ B.T
    Ezz = s2 * np.linalg.inv(M) + B @ S @ B.T
    new = np.linalg.solve(Ezz, Exz.T).T
    return new, (np.trace(S) - 2 * np.sum(new * Exz) + np.sum((new @ Ezz) * new)) / D


def pp_beta(S, W, s2):
    D, k = W.shape
    beta = np.linalg.solve(W @ W.T + s2 * np.eye(D), W).T
    new = S @ beta.T @ np.linalg.inv(np.eye(k) - beta @ W + beta @ S @ beta.T)
    return new, np.diag(S - new @ beta @ S).mean()


def pp_data(S, W, s2):
    """With D examples whose sample covariance is S, one by one."""
    D, k = W.shape
    X = math.sqrt(D) * np.linalg.cholesky(S).T
    P = np.linalg.inv(np.eye(k) + W.T @ W / s2)
    xz, zz = np.zeros((D, k)), np.zeros((k, k))
    moments = []
    for x in X:
        z = P @ W.T @ x / s2
        moments.append((z, P + np.outer(z, z)))
        xz += np.outer(x, z)
        zz += moments[-1][1]
    new = xz @ np.linalg.inv(zz)
    total = sum(x @ x - 2 * z @ new.T @ x + np.trace(Ez @ new.T @ new) for x, (z, Ez) in zip(X, moments, strict=True))
    return new, total / D**2


cross(
    c.check_ppca_step,
    {
        "Tipping and Bishop": pp_tipping,
        "regression": pp_regression,
        "β of factor analysis": pp_beta,
        "example by example": pp_data,
    },
    {
        "D=5 k=2": (spd(155, 5), rng(156).normal(size=(5, 2)), 0.7),
        "D=20 k=4": (spd(157, 20), rng(158).normal(size=(20, 4)), 0.2),
        "D=2 k=1": (spd(159, 2), np.ones((2, 1)), 1.0),
    },
    ("Tipping and Bishop", "regression"),
)


def fa_beta(S, W, psi):
    beta = W.T @ np.linalg.inv(np.diag(psi) + W @ W.T)
    Ezz = np.eye(W.shape[1]) - beta @ W + beta @ S @ beta.T
    new = S @ beta.T @ np.linalg.inv(Ezz)
    return new, np.diag(S - new @ beta @ S)


def fa_woodbury(S, W, psi):
    scaled = W / psi[:, None]
    G = np.linalg.inv(np.eye(W.shape[1], dtype=W.dtype) + W.T @ scaled)
    beta = G @ scaled.T
    Exz = S @ beta.T
    Ezz = G + beta @ Exz
    new = np.linalg.solve(Ezz, Exz.T).T
    return new, np.diag(S) - np.einsum("dk,dk->d", new, Exz)


def fa_full(S, W, psi):
    """Ψ′ with every term of the expected square."""
    D = len(psi)
    X = math.sqrt(D) * np.linalg.cholesky(S).T
    L = np.linalg.cholesky(np.eye(W.shape[1]) + (W.T / psi) @ W)
    cov = scipy.linalg.cho_solve((L, True), np.eye(W.shape[1]))
    Z = X / psi @ W @ cov
    zz = D * cov + Z.T @ Z
    new = scipy.linalg.solve(zz, Z.T @ X, assume_a="pos").T
    return new, (((X - Z @ new.T) ** 2).sum(0) + D * np.einsum("di,ij,dj->d", new, cov, new)) / D


def fa_dimensions(S, W, psi):
    """The regression of each dimension on its own."""
    k = W.shape[1]
    joint = np.block([[np.eye(k), W.T], [W, W @ W.T + np.diag(psi)]])
    gain = joint[:k, k:] @ np.linalg.inv(joint[k:, k:])
    Ezz = joint[:k, :k] - gain @ joint[k:, :k] + gain @ S @ gain.T
    rows = [np.linalg.solve(Ezz, gain @ S[:, d]) for d in range(len(psi))]
    return np.stack(rows), [S[d, d] - row @ gain @ S[:, d] for d, row in enumerate(rows)]


cross(
    c.check_factor_analysis_step,
    {
        "Ghahramani and Hinton": fa_beta,
        "Woodbury": fa_woodbury,
        "from data": fa_full,
        "a regression for each dimension": fa_dimensions,
    },
    {
        "D=5 k=2": (spd(160, 5), rng(161).normal(size=(5, 2)), rng(162).uniform(0.3, 1.5, 5)),
        "D=16 k=3": (spd(163, 16), rng(164).normal(size=(16, 3)), rng(165).uniform(0.1, 2.0, 16)),
    },
    ("Ghahramani and Hinton", "Woodbury"),
)


def missing_jacobian(x, w, m, C):
    K, D = m.shape
    r = e_logs(x, w, m, C)
    Nk = r.sum(0)
    J = np.zeros((K, D, K, D))
    for k in range(K):
        for j in range(K):
            coupling = r[:, k] * ((k == j) - r[:, j])
            J[k, :, j] = np.einsum("n,nd,ne->de", coupling, x - m[k], x - m[j]) @ np.linalg.inv(C[j]) / Nk[k]
    return np.sort(np.linalg.eigvals(J.reshape(K * D, K * D)).real)[::-1]


def missing_information(x, w, m, C):
    """Generalised eigenvalues of the missing and the complete information, both symmetric."""
    K, D = m.shape
    r = e_logs(x, w, m, C, logpdf_precision)
    g = np.stack([np.linalg.solve(C[k], (x - m[k]).T).T for k in range(K)], axis=1)
    complete = scipy.linalg.block_diag(*[r[:, k].sum() * np.linalg.inv(C[k]) for k in range(K)])
    mean = np.einsum("nk,nkd->nkd", r, g).reshape(len(x), -1)
    second = np.zeros((K * D, K * D))
    for k in range(K):
        part = slice(k * D, (k + 1) * D)
        second[part, part] = np.einsum("n,nd,ne->de", r[:, k], g[:, k], g[:, k])
    return scipy.linalg.eigh(second - mean.T @ mean, complete, eigvals_only=True)[::-1]


def missing_complex_step(x, w, m, C):
    K, D = m.shape
    inverse = np.linalg.inv(C)

    def em(means):
        d = x[:, None] - means
        lj = np.log(w) - 0.5 * np.einsum("nkd,kde,nke->nk", d, inverse, d) - 0.5 * np.linalg.slogdet(C)[1]
        e = np.exp(lj - lj.real.max(1, keepdims=True))
        r = e / e.sum(1, keepdims=True)
        return (r.T @ x) / r.sum(0)[:, None]

    J = np.empty((K * D, K * D))
    for i in range(K * D):
        shift = np.zeros(K * D, dtype=complex)
        shift[i] = 1e-30j
        J[:, i] = em(m + shift.reshape(K, D)).imag.ravel() / 1e-30
    return np.sort(np.linalg.eigvals(J).real)[::-1]


cross(
    c.check_missing_information,
    {
        "the Jacobian of a step": missing_jacobian,
        "missing over complete information": missing_information,
        "complex step": missing_complex_step,
    },
    {"N=40 D=2 K=3": EM["N=40 D=2 K=3"], "N=30 D=1 K=2": EM["N=30 D=1 K=2"]},
)


# Continuous time ------------------------------------------------------------------------------------------------------


def col(t, x):
    """Times for rows of x: a number, or (N, 1)."""
    return t[:, None] if np.ndim(t) else t


def sde_song_vp(b0=0.1, b1=20.0):
    def marginal(t):
        lmc = -0.25 * t**2 * (b1 - b0) - 0.5 * t * b0
        return np.exp(lmc), np.sqrt(1 - np.exp(2 * lmc))

    return marginal, lambda x, t: -0.5 * (b0 + col(t, x) * (b1 - b0)) * x, lambda t: np.sqrt(b0 + t * (b1 - b0)), 1.0


def sde_song_subvp(b0=0.1, b1=20.0):
    def marginal(t):
        lmc = -0.25 * t**2 * (b1 - b0) - 0.5 * t * b0
        return np.exp(lmc), 1 - np.exp(2 * lmc)

    def diffusion(t):
        discount = 1 - np.exp(-2 * b0 * t - (b1 - b0) * t**2)
        return np.sqrt((b0 + t * (b1 - b0)) * discount)

    return marginal, lambda x, t: -0.5 * (b0 + col(t, x) * (b1 - b0)) * x, diffusion, 1.0


def sde_song_ve(low_sigma=0.01, high=50.0):
    def sigma(t):
        return low_sigma * (high / low_sigma) ** t

    return (
        lambda t: (np.ones_like(t), sigma(t)),
        lambda x, t: np.zeros_like(x),
        lambda t: sigma(t) * np.sqrt(2 * (np.log(high) - np.log(low_sigma))),
        1.0,
    )


def sde_clean_ve(low_sigma=0.02, high=10.0, T=3.0):
    log_ratio = math.log(high / low_sigma)
    return (
        lambda t: (1.0, low_sigma * math.sqrt(math.expm1(2 * t / T * log_ratio))),
        lambda x, t: 0.0 * x,
        lambda t: low_sigma * math.exp(t / T * log_ratio) * math.sqrt(2 * log_ratio / T),
        T,
    )


def sde_edm(T=80.0):
    return lambda t: (1.0, t), lambda x, t: np.zeros(x.shape), lambda t: math.sqrt(2 * t), T


def sde_rectified(T=0.95):
    return lambda t: (1 - t, t), lambda x, t: -x / (1 - col(t, x)), lambda t: np.sqrt(2 * t / (1 - t)), T


def sde_cosine(T=0.9):
    h = math.pi / 2
    return (
        lambda t: (np.cos(h * t), np.sin(h * t)),
        lambda x, t: -h * np.tan(h * col(t, x)) * x,
        lambda t: np.sqrt(2 * h * np.tan(h * t)),
        T,
    )


def sde_ornstein(theta=1.3, sigma=0.8, T=2.0):
    return (
        lambda t: (math.exp(-theta * t), sigma * math.sqrt(-math.expm1(-2 * theta * t) / (2 * theta))),
        lambda x, t: -theta * x,
        lambda t: sigma,
        T,
    )


def sde_brownian(T=4.0):
    return lambda t: (1.0, np.sqrt(t)), lambda x, t: np.zeros_like(x), lambda t: np.ones_like(t), T


def sde_vdm(g0=-13.3, g1=5.0):
    """Kingma's variational diffusion model: log-SNR −γ, and γ linear in t."""

    def gamma(t):
        return g0 + (g1 - g0) * t

    def beta(t):
        return (g1 - g0) * scipy.special.expit(gamma(t))

    return (
        lambda t: (np.sqrt(scipy.special.expit(-gamma(t))), np.sqrt(scipy.special.expit(gamma(t)))),
        lambda x, t: -0.5 * beta(col(t, x)) * x,
        lambda t: np.sqrt(beta(t)),
        1.0,
    )


def sde_expm1_vp(b0=0.1, b1=20.0):
    def B(t):
        return t * (b0 + 0.5 * t * (b1 - b0))

    return (
        lambda t: (math.exp(-B(t) / 2), math.sqrt(-math.expm1(-B(t)))),
        lambda x, t: -(b0 + t * (b1 - b0)) / 2 * x,
        lambda t: (b0 + t * (b1 - b0)) ** 0.5,
        1.0,
    )


for how, process in {
    "score_sde's VP": sde_song_vp(),
    "score_sde's VP, β to 5": sde_song_vp(0.3, 5.0),
    "score_sde's sub-VP": sde_song_subvp(),
    "score_sde's VE": sde_song_ve(),
    "VE from clean data": sde_clean_ve(),
    "EDM": sde_edm(),
    "rectified flow": sde_rectified(),
    "cosine": sde_cosine(),
    "Ornstein-Uhlenbeck": sde_ornstein(),
    "Brownian motion": sde_brownian(),
    "VDM": sde_vdm(),
    "VP by expm1": sde_expm1_vp(),
}.items():
    add(f"sde: {how}", lambda process=process: c.check_sde(*process))
add("sde: Ornstein-Uhlenbeck; float32", lambda: c.check_sde(*[single(f) for f in sde_ornstein()[:3]], 2.0).at(1e-5))
add(
    "sde: EDM; float32",
    lambda: c.check_sde(
        lambda t: (np.float32(1), np.float32(t)),
        lambda x, t: 0 * low(x),
        lambda t: np.sqrt(np.float32(2) * np.float32(t)),
        80.0,
    ).at(1e-5),
)

VPS = {
    "VP, T=10": (VP(), 10),
    "VP, T=1000": (VP(), 1000),
    "VP β to 3, horizon 2, T=37": (VP(0.2, 3.0, 2.0), 37),
    "VP, T=1": (VP(0.1, 4.0), 1),
}


def disc_integral(sde, T):
    slope = (sde.beta_max - sde.beta_min) / sde.horizon
    t = np.linspace(0, sde.horizon, T + 1)
    return -np.expm1(-np.diff(sde.beta_min * t + slope * t**2 / 2))


def disc_midpoint(sde, T):
    h = sde.horizon / T
    middle = (np.arange(T) + 0.5) * h
    exponent = (sde.beta_min + (sde.beta_max - sde.beta_min) * middle / sde.horizon) * h
    return 1 - np.exp(-exponent) if T < 100 else -np.expm1(-exponent)


def disc_trapezoid(sde, T):
    grid = np.linspace(sde.beta_min, sde.beta_max, T + 1)
    return [-math.expm1(-sde.horizon / T * (a + b) / 2) for a, b in itertools.pairwise(grid)]


def disc_quad(sde, T):
    h = sde.horizon / T

    def beta(s):
        return sde.beta_min + (sde.beta_max - sde.beta_min) * s / sde.horizon

    return [-math.expm1(-scipy.integrate.fixed_quad(beta, i * h, (i + 1) * h, n=3)[0]) for i in range(T)]


for what, (sde, T) in VPS.items():
    for how, code in {
        "differences of B": disc_integral,
        "midpoints": disc_midpoint,
        "trapezoids": disc_trapezoid,
        "quadrature": disc_quad,
    }.items():
        add(f"discretisation: {how}; {what}", lambda code=code, sde=sde, T=T: c.check_discretisation(code(sde, T), sde))


def disc_single():
    t = np.linspace(0, 1, 11, dtype=np.float32)
    return -np.expm1(-np.diff(np.float32(0.1) * t + np.float32(19.9 / 2) * t * t))


add("discretisation: differences of B; VP, T=10; float32", lambda: c.check_discretisation(disc_single(), VP()).at(1e-5))

SDES = {
    "VP": VP(),
    "VP β to 6, horizon 2": VP(0.3, 6.0, 2.0),
    "sub-VP": SubVP(0.1, 12.0),
    "VE": VE(0.05, 8.0, 1.5),
    "EDM": c.EDM(20.0),
}
MEAN, COV = np.array([0.5, -1.0, 0.2]), spd(170, 3)


def gauss_score_solve(sde, x, t):
    a, b = sde.level(t)
    return -np.linalg.solve(a * a * COV + b * b * np.eye(3), (x - a * MEAN).T).T


def gauss_score_eigh(sde, x, t):
    a, b = sde.level(t)
    lam, U = np.linalg.eigh(COV)
    return -((x - a * MEAN) @ U / (a**2 * lam + b**2)) @ U.T


def gauss_denoiser(sde, x, t):
    a, b = sde.level(t)
    gain = a * COV @ np.linalg.inv(a**2 * COV + b**2 * np.eye(3))
    return MEAN + (x - a * MEAN) @ gain.T


def only_number(t):
    """A time as a float; TypeError for an array."""
    return float(t) if np.ndim(t) == 0 else float("an array of times")


def reverse_song(sde, lam, x, t):
    t = only_number(t)
    g = float(sde.diffusion(t))
    return sde.drift(x, t) - g**2 * gauss_score_solve(sde, x, t) * (1 + lam**2) / 2


def reverse_from_flow(sde, lam, x, t):
    """The velocity of the flow, minus ½ λ² g² times the score."""
    t = only_number(t)
    s, half = gauss_score_eigh(sde, x, t), 0.5 * float(sde.diffusion(t)) ** 2
    velocity = float(sde.rate(t)) * x - half * s
    return velocity - lam**2 * half * s


def reverse_by_rows(sde, lam, x, t):
    times = np.broadcast_to(np.asarray(t, dtype=float), (len(x),))
    return np.concatenate([reverse_song(sde, lam, row[None], float(s)) for row, s in zip(x, times, strict=True)])


for what, sde in SDES.items():
    for how, code in {
        "score_sde's": reverse_song,
        "velocity and score": reverse_from_flow,
        "row by row": reverse_by_rows,
    }.items():
        for lam in (0.0, 0.6, 1.0) if how == "velocity and score" else (1.0,):
            add(
                f"reverse_sde: {how}; {what}, λ={lam}",
                lambda sde=sde, code=code, lam=lam: c.check_reverse_sde(
                    partial(code, sde, lam), lambda t: lam * sde.diffusion(t), sde, MEAN, COV, lam
                ),
            )


def step_euler(sde, mean, var, lam, x, t, s, z):
    """score_sde's Euler-Maruyama, with dt < 0."""
    a, b = sde.level(t)
    score = -(x - a * mean) / (a * a * var + b * b)
    g = float(sde.diffusion(t))
    drift = float(sde.rate(t)) * x - 0.5 * (1 + lam**2) * g**2 * score
    dt = s - t
    return x + drift * dt + lam * g * math.sqrt(-dt) * z


def step_noise(sde, mean, var, lam, x, t, s, z):
    """Euler-Maruyama with predicted noise, in positive time."""
    a, b = sde.level(t)
    eps = b * (x - a * mean) / (a * a * var + b * b)
    h, g2 = t - s, float(sde.diffusion(t)) ** 2
    return x - h * (float(sde.rate(t)) * x + 0.5 * g2 * (1 + lam * lam) * eps / b) + lam * np.sqrt(g2 * h) * z


def step_exponential(sde, mean, var, lam, x, t, s, z):
    """The stochastic exponential integrator in log-SNR."""
    a, b = sde.level(t)
    a2, b2 = sde.level(s)
    x0 = mean + a * var / (a * a * var + b * b) * (x - a * mean)
    if b2 == 0:
        return x0
    h, c2 = math.log(a2 / b2) - math.log(a / b), lam * lam
    return (
        b2 / b * math.exp(-c2 * h) * x
        - a2 * math.expm1(-(1 + c2) * h) * x0
        + b2 * math.sqrt(-math.expm1(-2 * c2 * h)) * z
    )


def step_ddim_scaled(sde, mean, var, lam, x, t, s, z):
    """DDIM's variance with the ratio of signals of a general process."""
    a, b = sde.level(t)
    a2, b2 = sde.level(s)
    x0 = mean + a * var / (a * a * var + b * b) * (x - a * mean)
    forward = b * b - (a * b2 / a2) ** 2  # variance of x_t given x_s
    sigma2 = lam**2 * forward * (b2 / b) ** 2
    return a2 * x0 + math.sqrt(b2**2 - sigma2) * (x - a * x0) / b + math.sqrt(sigma2) * z


MEAN2, VAR2 = np.array([0.4, -0.7]), np.array([0.5, 2.0])
for what, sde in SDES.items():
    for how, code in {
        "Euler, dt < 0": step_euler,
        "Euler, noise": step_noise,
        "exponential in log-SNR": step_exponential,
    }.items():
        for lam in (0.0, 1.0):
            if how == "exponential in log-SNR" and what not in ("VP", "EDM", "VE"):
                continue
            add(
                f"reverse_step: {how}; {what}, λ={lam}",
                lambda sde=sde, code=code, lam=lam: c.check_reverse_step(
                    partial(code, sde, MEAN2, VAR2, lam), sde, MEAN2, VAR2, lam
                ),
            )
for lam in 0.0, 1.0:
    add(
        f"reverse_step: DDIM η={lam}; VP",
        lambda lam=lam: c.check_reverse_step(partial(step_ddim_scaled, VP(), MEAN2, VAR2, lam), VP(), MEAN2, VAR2, lam),
    )
    add(
        f"reverse_step: DDIM η={lam}; sub-VP",
        lambda lam=lam: c.check_reverse_step(
            partial(step_ddim_scaled, SDES["sub-VP"], MEAN2, VAR2, lam), SDES["sub-VP"], MEAN2, VAR2, lam
        ),
    )
add(
    "reverse_step: Euler; VP, D=1, λ=0.5",
    lambda: c.check_reverse_step(partial(step_euler, VP(), 0.3, 1.5, 0.5), VP(), 0.3, 1.5, 0.5),
)


def any_score(x, t):
    """Neither affine nor exact."""
    return -0.7 * x + 0.5 * np.sin(x + t) + 0.2 * np.roll(x, 1, axis=1)


def sampler_loop(sde, lam, x, times, noise):
    for i in range(len(times) - 1):
        t, dt = float(times[i]), float(times[i + 1] - times[i])
        g = float(sde.diffusion(t))
        x = (
            x
            + (sde.drift(x, t) - 0.5 * g * g * (1 + lam**2) * any_score(x, t)) * dt
            + lam * g * math.sqrt(-dt) * noise[i]
        )
    return x


def sampler_mean_first(sde, lam, x, times, noise):
    """Mean, then noise; score_sde's `discretize`, with λ."""
    for t, s, z in zip(times[:-1], times[1:], noise, strict=True):
        h = t - s
        G = sde.diffusion(t) * np.sqrt(h)
        mean = x - (float(sde.rate(t)) * x) * h + 0.5 * G**2 * any_score(x, t) + 0.5 * (lam * G) ** 2 * any_score(x, t)
        x = mean + lam * G * z
    return x


def sampler_pc(sde, snr, n, x, times, noise):
    """Predictor and corrector."""
    for i, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        g = float(sde.diffusion(t))
        x = x + (t - s) * (g**2 * any_score(x, t) - float(sde.rate(t)) * x) + g * math.sqrt(t - s) * noise[i, 0]
        for j in range(n):
            step = 2 * (snr * float(sde.std(s))) ** 2
            x = x + step * any_score(x, s) + math.sqrt(2 * step) * noise[i, 1 + j]
    return x


def fall(sde, n=9, end=0.02):
    return sde.horizon * (end + (0.6 - end) * np.linspace(1, 0, n + 1) ** 1.5)


for what, sde in SDES.items():
    if what == "EDM":
        sde = c.EDM(3.0)
    for lam in 0.0, 0.5, 1.0:
        for how, code in {"a loop": sampler_loop, "mean first": sampler_mean_first}.items():
            if how == "mean first" and lam == 0.5 and what != "VP":
                continue
            add(
                f"reverse_sampler: {how}; {what}, λ={lam}",
                lambda sde=sde, code=code, lam=lam: c.check_reverse_sampler(
                    partial(code, sde, lam), any_score, sde, fall(sde), lam
                ),
            )
    add(
        f"reverse_sampler: predictor and corrector; {what}",
        lambda sde=sde: c.check_reverse_sampler(
            partial(sampler_pc, sde, 0.12, 2), any_score, sde, fall(sde, 5), 1.0, 2, 0.12
        ),
    )


def heun_textbook(sde, x, times):
    def slope(x, t):
        return sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * any_score(x, t)

    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        k1 = slope(x, t)
        k2 = slope(x + (s - t) * k1, s)
        x = x + (s - t) * (k1 + k2) / 2
    return x


def heun_corrected(sde, x, times):
    """Karras' form: Euler's result, corrected; x kept as a function of positive steps."""
    for i in range(len(times) - 1):
        t, s = float(times[i]), float(times[i + 1])
        d = float(sde.rate(t)) * x - float(sde.diffusion(t)) ** 2 / 2 * any_score(x, t)
        euler = x - (t - s) * d
        d2 = float(sde.rate(s)) * euler - float(sde.diffusion(s)) ** 2 / 2 * any_score(euler, s)
        x = euler + 0.5 * (t - s) * (d - d2)
    return x


def heun_edm(x, times):
    def denoise(x, sigma):
        return x + sigma**2 * any_score(x, sigma)

    for t, s in itertools.pairwise(times):
        d = (x - denoise(x, t)) / t
        y = x + (s - t) * d
        x = x + (s - t) * (0.5 * d + 0.5 * (y - denoise(y, s)) / s)
    return x


for what, sde in {**SDES, "EDM": c.EDM(3.0)}.items():
    for how, code in {"two slopes": heun_textbook, "Euler corrected": heun_corrected}.items():
        add(
            f"heun: {how}; {what}",
            lambda sde=sde, code=code: c.check_heun(partial(code, sde), any_score, sde, fall(sde)),
        )
add("heun: (x − D)/σ; EDM", lambda: c.check_heun(heun_edm, any_score, c.EDM(3.0), fall(c.EDM(3.0), 12)))
add(
    "heun: two slopes; VP; float32",
    lambda: c.check_heun(
        lambda x, t: heun_textbook(VP(0.1, 4.0), low(x), t).astype(np.float32), any_score, VP(0.1, 4.0), fall(VP())
    ).at(1e-5),
)


def langevin_song(sde, variance, snr, x, t, z):
    step = 2 * (snr * sde.std(t)) ** 2
    grad = -x / variance
    return x + step * grad + np.sqrt(2 * step) * z


def langevin_factor(sde, variance, snr, x, t, z):
    r = snr * float(sde.std(t))
    return (1 - 2 * r * r / variance) * x + 2 * r * z


for what, sde in SDES.items():
    for how, code in {"score_sde's": langevin_song, "shrink and add": langevin_factor}.items():
        for variance in 1.7, np.array([0.4, 1.0, 3.0]):
            add(
                f"langevin_step: {how}; {what}, {np.size(variance)} variances",
                lambda code=code, sde=sde, v=variance: c.check_langevin_step(partial(code, sde, v, 0.16), sde, v, 0.16),
            )

# Mixtures -------------------------------------------------------------------------------------------------------------


def mixture_problem(seed, D, K, spread=1.5, least=0.3):
    g = rng(seed)
    return Mixture(
        table(seed, K), spread * g.normal(size=(K, D)), np.stack([spd(seed + 1 + k, D, least) for k in range(K)])
    )


LINE = Mixture(np.array([0.3, 0.7]), np.array([[-1.2], [0.8]]), np.array([[[0.3]], [[0.5]]]))
MIXTURES = {"D=1 K=2": LINE, "D=2 K=3": mixture_problem(180, 2, 3), "D=10 K=2": mixture_problem(190, 10, 2)}


def parts(mix):
    return np.asarray(mix.weights), np.asarray(mix.means), np.asarray(mix.covariances)


def log_prob_of(logpdf, mix, x):
    w, m, C = (np.asarray(a, dtype=x.dtype) for a in parts(mix))
    return scipy.special.logsumexp(log_joint(x, w, m, C, logpdf), axis=1)


def noisy(mix, a, b):
    w, m, C = parts(mix)
    return w, a * m, a * a * C + b * b * np.eye(m.shape[1])


def score_sum(w, m, C, x):
    r = e_logs(x, w, m, C)
    return sum(r[:, k, None] * np.linalg.solve(C[k], (m[k] - x).T).T for k in range(len(w)))


def score_information(w, m, C, x):
    """Mean natural parameters: Σ r P m − (Σ r P) x."""
    r = scipy.special.softmax(log_joint(x, w, m, C, logpdf_eigh), axis=1)
    P = np.linalg.inv(C)
    return np.einsum("nk,kde,ke->nd", r, P, m) - np.einsum("nk,kde,ne->nd", r, P, x)


def score_rows(w, m, C, x):
    out = []
    for row in x:
        logs = [math.log(w[k]) + logpdf_sequential(row[None], m[k], C[k])[0] for k in range(len(w))]
        top = max(logs)
        e = [math.exp(v - top) for v in logs]
        out.append(
            -sum(
                a / sum(e) * scipy.linalg.cho_solve(scipy.linalg.cho_factor(C[k]), row - m[k]) for k, a in enumerate(e)
            )
        )
    return np.stack(out)


def score_typed(code, mix, x):
    return code(*[np.asarray(a, dtype=x.dtype) for a in parts(mix)], x)


def denoise_gain(mix, x, a, b):
    w, m, C = parts(mix)
    r = e_logs(x, *noisy(mix, a, b))
    out = np.zeros_like(x)
    for k in range(len(w)):
        gain = np.linalg.solve(a * a * C[k] + b * b * np.eye(x.shape[1]), a * C[k]).T
        out += r[:, k, None] * (m[k] + (x - a * m[k]) @ gain.T)
    return out


def denoise_precision(mix, x, a, b):
    _w, m, C = parts(mix)
    r = e_logs(x, *noisy(mix, a, b), logpdf_eigh)
    P = np.linalg.inv(C)
    V = np.linalg.inv(P + (a / b) ** 2 * np.eye(x.shape[1]))
    natural = np.einsum("kde,ke->kd", P, m)[None] + (a / b**2) * x[:, None]
    return np.einsum("nk,kde,nke->nd", r, V, natural)


def denoise_eigh(mix, x, a, b):
    w, m, C = parts(mix)
    lam, U = np.linalg.eigh(C)
    y = np.einsum("kde,nkd->nke", U, x[:, None] - a * m)
    s2 = a * a * lam + b * b
    lj = np.log(w) - 0.5 * (y**2 / s2 + np.log(s2)).sum(2)
    r = np.exp(lj - np.logaddexp.reduce(lj, axis=1)[:, None])
    return np.einsum("nk,nkd->nd", r, m + np.einsum("kde,nke->nkd", U, a * lam / s2 * y))


for what, mix in MIXTURES.items():
    x = 2 * rng(200).normal(size=(6, mix.dimension))
    for how, logpdf in {
        "Cholesky": logpdf_cholesky, "precisions": logpdf_precision, "eigenvectors": logpdf_eigh, "scipy": logpdf_scipy,
        "conditional laws": logpdf_sequential,
    }.items():  # fmt: skip
        add(
            f"log_prob: {how}; {what}",
            lambda logpdf=logpdf, mix=mix, x=x: c.check_log_prob(partial(log_prob_of, logpdf, mix), mix, x),
        )
    for how, code in {
        "Σ r C⁻¹(m − x)": score_sum,
        "natural parameters": score_information,
        "row by row": score_rows,
    }.items():
        add(
            f"score: {how}; {what}",
            lambda code=code, mix=mix, x=x: c.check_score(partial(score_typed, code, mix), mix, x),
        )
    for how, code in {"gain": denoise_gain, "precisions": denoise_precision, "eigenvectors": denoise_eigh}.items():
        for process, (a, b) in {"VP": (0.8, 0.6), "EDM": (1.0, 0.5), "flow matching": (0.3, 0.7)}.items():
            add(
                f"denoiser: {how}; {what}, {process}",
                lambda code=code, mix=mix, x=x, a=a, b=b: c.check_denoiser(partial(code, mix), mix, x, a, b),
            )
X2 = 2 * rng(201).normal(size=(6, 2))
add(
    "log_prob: Cholesky; D=2 K=3; float32",
    lambda: c.check_log_prob(
        single(partial(log_prob_of, logpdf_cholesky, MIXTURES["D=2 K=3"])), MIXTURES["D=2 K=3"], X2
    ).at(1e-5),
)
add(
    "score: Σ r C⁻¹(m − x); D=2 K=3; float32",
    lambda: c.check_score(single(partial(score_typed, score_sum, MIXTURES["D=2 K=3"])), MIXTURES["D=2 K=3"], X2).at(
        1e-5
    ),
)

DENOISING = {
    "‖s + ε/b‖²": lambda s, e, b: ((s + e / b) ** 2).sum(1),
    "of the predicted noise": lambda s, e, b: (np.square(e - (-b * s)) / b**2).sum(-1),
    "expanded": lambda s, e, b: (
        np.einsum("nd,nd->n", s, s) + 2 / b * np.einsum("nd,nd->n", s, e) + (e**2).sum(1) / b**2
    ),
    "score_sde's, undone weights": lambda s, e, b: ((s * b + e) ** 2).sum(1) / b**2,
}
IMPLICIT = [
    lambda s, d: (s**2).sum(1) + 2 * d,
    lambda s, d: 2 * (0.5 * np.linalg.norm(s, axis=1) ** 2 + d),
    lambda s, d: np.einsum("nd,nd->n", s, s) + d + d,
]
SLICED = [
    lambda s, v, dv: (s * v).sum(1) ** 2 + 2 * (v * dv).sum(1),
    lambda s, v, dv: (s**2).sum(1) + 2 * np.einsum("nd,nd->n", v, dv),  # variance reduced
    lambda s, v, dv: [2 * (a @ d + 0.5 * (a @ b) ** 2) for a, b, d in zip(v, s, dv, strict=True)],
]


def tanh_score(x):
    return -0.6 * x + 0.4 * np.tanh(x)


def tanh_divergence(x):
    return (-0.6 + 0.4 / np.cosh(x) ** 2).sum(1)


for i, (how, denoising) in enumerate(DENOISING.items()):
    for what in "D=1 K=2", "D=2 K=3":
        for a, b in ((0.8, 0.6), (1.0, 0.9)):
            add(
                f"score_matching: {how}; {what}, scale {a}, std {b}",
                lambda i=i, denoising=denoising, what=what, a=a, b=b: c.check_score_matching(
                    denoising, IMPLICIT[i % 3], SLICED[i % 3], MIXTURES[what], a, b, tanh_score, tanh_divergence
                ),
                what == "D=2 K=3",
            )
add(
    "score_matching: ‖s + ε/b‖²; D=1; float32",
    lambda: c.check_score_matching(
        single(DENOISING["‖s + ε/b‖²"]),
        single(IMPLICIT[0]),
        single(SLICED[0]),
        LINE,
        0.8,
        0.6,
        tanh_score,
        tanh_divergence,
    ).at(1e-5),
)


def cb_prior(sde, x0):
    a, b = sde.level(sde.horizon)
    return 0.5 * (a / b) ** 2 * (x0**2).sum(1)


def cb_prior_kl(sde, x0):
    """By the KL of two Gaussians, example by example."""
    a, b = sde.level(sde.horizon)
    D = x0.shape[1]
    return [gkl_inverse(a * row, b**2 * np.eye(D), np.zeros(D), b**2 * np.eye(D)) for row in x0]


def log_snr_range(sde, t_min):
    (a, b), (aT, bT) = sde.level(t_min), sde.level(sde.horizon)
    return 2 * (math.log(a / b) - math.log(aT / bT))


def cb_noise(sde, t_min, slope, x0, t, e):
    a, b = (np.asarray(v)[:, None] for v in sde.marginal(t))
    return 0.5 * log_snr_range(sde, t_min) * ((e - slope * (a * x0 + b * e)) ** 2).sum(1)


def cb_x0(sde, t_min, slope, x0, t, e):
    """VDM's: SNR times the squared error of x̂_0."""
    a, b = (np.asarray(v)[:, None] for v in sde.marginal(t))
    x = a * x0 + b * e
    x0_hat = (x - b * (slope * x)) / a
    return log_snr_range(sde, t_min) / 2 * np.squeeze(a / b, 1) ** 2 * ((x0 - x0_hat) ** 2).sum(1)


def cb_score(sde, t_min, slope, x0, t, e):
    a, b = (np.asarray(v)[:, None] for v in sde.marginal(t))
    s = -slope * (a * x0 + b * e) / b
    return log_snr_range(sde, t_min) * np.einsum("nd,nd->n", b * s + e, b * s + e) / 2


def cb_reconstruction(sde, t_min, x0, e):
    a, b = sde.level(t_min)
    return 0.5 * (e**2 + math.log(2 * math.pi) + 2 * math.log(b / a)).sum(1)


def cb_reconstruction_logpdf(sde, t_min, x0, e):
    a, b = sde.level(t_min)
    return -scipy.stats.norm(x0 + b / a * e, b / a).logpdf(x0).sum(1)


X0 = rng(203).normal(size=(4, 2))
for what, (sde, t_min) in {
    "VP": (VP(), 0.01),
    "sub-VP": (SubVP(0.1, 8.0), 0.05),
    "VE": (VE(0.05, 8.0), 0.1),
    "EDM": (c.EDM(10.0), 0.1),
}.items():
    for how, (prior, loss, rec) in {
        "noise": (cb_prior, cb_noise, cb_reconstruction),
        "x̂_0, as VDM": (cb_prior_kl, cb_x0, cb_reconstruction_logpdf),
        "score": (cb_prior, cb_score, cb_reconstruction),
    }.items():
        add(
            f"continuous_bound: {how}; {what}",
            lambda sde=sde, t_min=t_min, prior=prior, loss=loss, rec=rec: c.check_continuous_bound(
                partial(prior, sde), partial(loss, sde, t_min, 0.4), partial(rec, sde, t_min), sde, t_min, 0.4, X0
            ),
        )

A3, B3 = rng(204).normal(size=(3, 3)), rng(205).normal(size=3)


def net(x):
    return np.tanh(x @ A3 + B3) + 0.3 * x


def div_analytic(x, probes, std):
    h = np.tanh(x @ A3 + B3)
    J = A3.T[None] * (1 - h**2)[:, :, None] + 0.3 * np.eye(3)  # J[n, i, j] = ∂ε̂_i/∂x_j
    s = -(h + 0.3 * x) / std
    if probes is None:
        return s, -np.trace(J, axis1=1, axis2=2) / std
    return s, -np.einsum("pni,nij,pnj->pn", probes, J, probes).mean(0) / std


def div_forward(x, probes, std):
    h = np.tanh(x @ A3 + B3)

    def jvp(v):
        return (v @ A3) * (1 - h * h) + 0.3 * v

    if probes is None:
        total = sum(jvp(np.eye(3)[[d] * len(x)])[:, d] for d in range(3))
    else:
        total = sum((v * jvp(v)).sum(1) for v in probes) / len(probes)
    return -net(x) / std, -total / std


def div_backward(x, probes, std):
    h = np.tanh(x @ A3 + B3)

    def vjp(v):
        return (v * (1 - h * h)) @ A3.T + 0.3 * v

    if probes is None:
        return -net(x) / std, [-sum(vjp(np.eye(3)[[d] * len(x)])[n, d] for d in range(3)) / std for n in range(len(x))]
    return net(x) / -std, -np.mean([(vjp(v) * v).sum(1) for v in probes], axis=0) / std


def div_complex(x, probes, std):
    tiny = 1e-30
    probes_or_units = [np.sqrt(3) * row * np.ones((len(x), 1)) for row in np.eye(3)] if probes is None else list(probes)
    values = [(v * net(x + 1j * tiny * v).imag / tiny).sum(1) for v in probes_or_units]
    return -net(x) / std, -np.mean(values, axis=0) / std


for how, code in {
    "Jacobians": div_analytic,
    "forward": div_forward,
    "backward": div_backward,
    "complex step": div_complex,
}.items():
    for std in 0.7, 0.05:
        add(
            f"divergence: {how}; std {std}",
            lambda code=code, std=std: c.check_divergence(
                lambda x, v: code(x, v, std),
                net,
                std,
                rng(206).normal(size=(4, 3)),
                rng(207).choice([-1.0, 1.0], (2, 4, 3)),
            ),
        )


# Bounds and likelihoods in continuous time ----------------------------------------------------------------------------


def legendre(n, start, end):
    x, w = np.polynomial.legendre.leggauss(n)
    return (start + end) / 2 + (end - start) / 2 * x, (end - start) / 2 * w


def kb_legendre(sde, error, prior_kl):
    t, w = legendre(200, 0.0, sde.horizon)
    return prior_kl + 0.5 * sum(a * float(sde.diffusion(s)) ** 2 * error(float(s)) for s, a in zip(t, w, strict=True))


def kb_quad(sde, error, prior_kl):
    value, _ = scipy.integrate.quad(
        lambda t: float(sde.diffusion(t)) ** 2 * error(t), 0, sde.horizon, epsabs=1e-13, epsrel=1e-12, limit=400
    )
    return value / 2 + prior_kl


def kb_substituted(sde, error, prior_kl):
    """With t = T u²."""
    u, w = legendre(160, 0.0, 1.0)
    T = sde.horizon
    values = np.array([0.5 * sde.diffusion(T * v * v) ** 2 * error(float(T * v * v)) * 2 * T * v for v in u])
    return w @ values + prior_kl


def kb_double_exponential(sde, error, prior_kl):
    k = np.arange(-150, 151) / 40
    inner = 0.5 * math.pi * np.sinh(k)
    t = sde.horizon * 0.5 * (1 + np.tanh(inner))
    w = sde.horizon * 0.25 * math.pi * np.cosh(k) / np.cosh(inner) ** 2 / 40
    keep = (t > 0) & (t < sde.horizon)
    values = [0.5 * float(sde.diffusion(s)) ** 2 * error(float(s)) for s in t[keep]]
    return prior_kl + np.dot(w[keep], values)


KB = {
    "VP": (VP(0.1, 8.0, 2.0), MEAN2, spd(210, 2), -MEAN2, spd(212, 2)),
    "sub-VP": (SubVP(0.2, 5.0, 1.5), MEAN2, spd(213, 2), MEAN2 / 2, spd(214, 2)),
    "VE": (VE(0.1, 5.0, 2.5), np.array([0.4]), np.array([[0.7]]), np.array([-0.2]), np.array([[1.4]])),
    "EDM": (c.EDM(6.0), MEAN, COV, -MEAN, spd(215, 3)),
}
for what, problem in KB.items():
    for how, code in {
        "Gauss-Legendre": kb_legendre,
        "quad": kb_quad,
        "t = T u²": kb_substituted,
        "double exponential": kb_double_exponential,
    }.items():
        add(f"kl_bound: {how}; {what}", lambda code=code, p=problem: c.check_kl_bound(partial(code, p[0]), *p))

WIDE = Mixture(np.array([0.4, 0.6]), np.array([[-0.4], [0.3]]), np.array([[[1.0]], [[1.4]]]))
WIDE2 = Mixture(
    np.array([0.5, 0.5]), np.array([[-0.3, 0.2], [0.4, 0.0]]), np.stack([spd(216, 2, 0.8), spd(217, 2, 0.8)])
)


def normal_nodes(D, rule):
    if rule == "trapezoid":
        u = np.arange(-170, 171) * 0.05
        w = np.exp(-0.5 * u * u) * 0.05 / math.sqrt(2 * math.pi)
    else:
        u, w = np.polynomial.hermite_e.hermegauss(80 if D == 1 else 36)
        w = w / math.sqrt(2 * math.pi)
    nodes = np.stack(np.meshgrid(*[u] * D, indexing="ij"), -1).reshape(-1, D)
    weights = np.prod(np.stack(np.meshgrid(*[w] * D, indexing="ij"), -1).reshape(-1, D), axis=1)
    return nodes, weights


def lpb(sde, rule, stein, score_and_divergence, prior_log_prob, x):
    N, D = x.shape
    e, we = normal_nodes(D, rule)

    def mean(t, f):
        a, b = sde.level(t)
        points = (a * x[:, None] + b * e).reshape(-1, D)
        return np.asarray(f(points)).reshape(N, len(e)) @ we

    def integrand(t):
        _a, b = sde.level(t)

        def f(points):
            s, div = score_and_divergence(points, t)
            s = np.asarray(s)
            if stein:  # E div s = E s·ε/std
                div = (s.reshape(N, len(e), D) * e / b).sum(-1).ravel()
            return (s**2).sum(1) + 2 * np.asarray(div)

        return float(sde.diffusion(t)) ** 2 * mean(t, f) - 2 * D * float(sde.rate(t))

    t, wt = legendre(60, 0.0, sde.horizon)
    return mean(sde.horizon, prior_log_prob) - 0.5 * sum(w * integrand(float(s)) for s, w in zip(t, wt, strict=True))


for what, sde in {"VP": VP(0.1, 6.0, 1.5), "sub-VP": SubVP(0.2, 5.0), "VE": VE(0.2, 4.0, 2.0)}.items():
    for how, (rule, stein) in {
        "trapezoid": ("trapezoid", False),
        "Gauss-Hermite": ("hermite", False),
        "by Stein's identity": ("trapezoid", True),
    }.items():
        add(
            f"log_prob_bound: {how}; {what}",
            lambda sde=sde, rule=rule, stein=stein: c.check_log_prob_bound(
                partial(lpb, sde, rule, stein), sde, WIDE, np.array([[-1.0], [0.2], [1.5]])
            ),
        )
add(
    "log_prob_bound: Gauss-Hermite; VP, D=2",
    lambda: c.check_log_prob_bound(
        partial(lpb, VP(0.1, 6.0, 1.5), "hermite", False), VP(0.1, 6.0, 1.5), WIDE2, X2[:2] / 2
    ),
)


def score_and_trace(w, m, C, x):
    P = np.linalg.inv(C)
    r = e_logs(x, w, m, C, logpdf_eigh)
    g = np.einsum("kde,nke->nkd", P, m - x[:, None])
    s = np.einsum("nk,nkd->nd", r, g)
    trace = np.einsum("nk,nk->n", r, (g**2).sum(2) - np.trace(P, axis1=1, axis2=2)) - (s**2).sum(1)
    return s, trace


def flow_ivp(sde, mix, x):
    N, D = x.shape

    def slope(t, y):
        p = y[: N * D].reshape(N, D)
        f, half = float(sde.rate(t)), 0.5 * float(sde.diffusion(t)) ** 2
        s, div = score_and_trace(*noisy(mix, *sde.level(t)), p)
        return np.concatenate([(f * p - half * s).ravel(), f * D - half * div])

    end = scipy.integrate.solve_ivp(
        slope, (0, sde.horizon), np.concatenate([x.ravel(), np.zeros(N)]), method="DOP853", rtol=1e-12, atol=1e-12
    ).y[:, -1]
    w, m, C = noisy(mix, *sde.level(sde.horizon))
    return np.logaddexp.reduce(log_joint(end[: N * D].reshape(N, D), w, m, C), axis=1) + end[N * D :]


def flow_sigma(mix, x, sigma_max=8.0):
    """In σ with scale 1: dy/dσ = −σ ∇log p, whatever the process."""
    N, D = x.shape

    def slope(sigma, y):
        s, div = score_and_trace(*noisy(mix, 1.0, sigma), y[: N * D].reshape(N, D))
        return -sigma * np.concatenate([s.ravel(), div])

    end = scipy.integrate.solve_ivp(
        slope, (0, sigma_max), np.concatenate([x.ravel(), np.zeros(N)]), method="DOP853", rtol=1e-12, atol=1e-12
    ).y[:, -1]
    w, m, C = noisy(mix, 1.0, sigma_max)
    return (
        scipy.special.logsumexp(log_joint(end[: N * D].reshape(N, D), w, m, C, logpdf_precision), axis=1) + end[N * D :]
    )


def flow_kutta(mix, x, n=500, last=5.0):
    """The classical Runge-Kutta method in the clock B = ∫β of a variance-preserving process."""

    def slope(B, p):
        s, div = score_and_trace(*noisy(mix, math.exp(-B / 2), math.sqrt(-math.expm1(-B))), p)
        return -0.5 * (p + s), -0.5 * (p.shape[1] + div)

    h, total = last / n, np.zeros(len(x))
    for i in range(n):
        k1, l1 = slope(i * h, x)
        k2, l2 = slope((i + 0.5) * h, x + h / 2 * k1)
        k3, l3 = slope((i + 0.5) * h, x + h / 2 * k2)
        k4, l4 = slope((i + 1) * h, x + h * k3)
        x, total = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
    return (
        np.logaddexp.reduce(log_joint(x, *noisy(mix, math.exp(-last / 2), math.sqrt(-math.expm1(-last)))), axis=1)
        + total
    )


for what, (mix, x) in {"D=1": (WIDE, np.array([[-1.0], [0.4]])), "D=2": (WIDE2, X2[:3] / 2)}.items():
    for name, sde in {"VP": VP(0.1, 8.0), "VE": VE(0.1, 6.0), "EDM": c.EDM(8.0), "sub-VP": SubVP(0.1, 8.0)}.items():
        add(
            f"probability_flow_likelihood: solve_ivp; {name}, {what}",
            lambda sde=sde, mix=mix, x=x: c.check_probability_flow_likelihood(partial(flow_ivp, sde, mix), mix, x, sde),
        )
    add(
        f"probability_flow_likelihood: in σ; {what}",
        lambda mix=mix, x=x: c.check_probability_flow_likelihood(partial(flow_sigma, mix), mix, x),
    )
    add(
        f"probability_flow_likelihood: Runge-Kutta in B; {what}",
        lambda mix=mix, x=x: c.check_probability_flow_likelihood(partial(flow_kutta, mix), mix, x).at(1e-7),
        True,
    )


def law_closed(integral, D, score):
    """Affine scores by probing; each eigenvalue in closed form."""
    kappa = np.asarray(score(np.zeros((1, D)), 0.5))[0]
    A = np.asarray(score(np.eye(D), 0.5)).T - kappa[:, None] + 0.5 * np.eye(D)
    lam, U = np.linalg.eig(A)
    Ui = np.linalg.inv(U)
    mean = U @ (np.where(lam == 0, integral, np.expm1(lam * integral) / lam) * (Ui @ kappa))
    grown = U @ np.diag(np.exp(lam * integral)) @ Ui
    noise = Ui @ Ui.T * np.expm1((lam[:, None] + lam) * integral) / (lam[:, None] + lam)
    return mean.real, (grown @ grown.T + U @ noise @ U.T).real


def law_van_loan(integral, D, score):
    kappa = np.asarray(score(np.zeros((1, D)), 0.1))[0]
    A = np.asarray(score(np.eye(D), 0.1)).T - kappa[:, None] + 0.5 * np.eye(D)
    block = np.block([[-A, np.eye(D)], [np.zeros((D, D)), A.T]])
    E = scipy.linalg.expm(block * integral)
    Phi = E[D:, D:].T
    affine = scipy.linalg.expm(np.block([[A, kappa[:, None]], [np.zeros((1, D + 1))]]) * integral)
    return affine[:D, D], Phi @ Phi.T + Phi @ E[:D, D:]


def law_ivp(integral, D, score):
    def slope(_, y):
        m, V = y[:D], y[D:].reshape(D, D)
        s0 = np.asarray(score(m[None], 0.3))[0]
        A = np.stack([np.asarray(score((m + e)[None], 0.3))[0] - s0 for e in np.eye(D)], axis=1) + 0.5 * np.eye(D)
        return np.concatenate([0.5 * m + s0, (A @ V + V @ A.T + np.eye(D)).ravel()])

    start = np.concatenate([np.zeros(D), np.eye(D).ravel()])
    y = scipy.integrate.solve_ivp(slope, (0, integral), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return y[:D], y[D:].reshape(D, D)


for how, code in {"eigenvalues": law_closed, "matrix exponentials": law_van_loan, "moment equations": law_ivp}.items():
    for D, integral, delta in (1, 3.0, 0.5), (3, 1.2, 0.3), (2, 6.0, -0.2):
        add(
            f"reverse_law: {how}; D={D}, B={integral}, δ={delta}",
            lambda code=code, D=D, B=integral, delta=delta: c.check_reverse_law(partial(code, B, D), B, delta),
        )


# Beyond the deck ------------------------------------------------------------------------------------------------------

HALF_PI = math.pi / 2
# level, its derivative, and the times of a check
PATHS = {
    "rectified flow": (lambda t: (1 - t, t), lambda t: (-1.0, 1.0), np.array([0.1, 0.5, 0.9])),
    "cosine": (
        lambda t: (math.cos(HALF_PI * t), math.sin(HALF_PI * t)),
        lambda t: (-HALF_PI * math.sin(HALF_PI * t), HALF_PI * math.cos(HALF_PI * t)),
        np.array([0.15, 0.6, 0.9]),
    ),
    "EDM": (lambda t: (1.0, t), lambda t: (0.0, 1.0), np.array([0.3, 1.0, 5.0])),
    "VP": (
        lambda t: (math.exp(-t * t - 0.1 * t), math.sqrt(-math.expm1(-2 * t * t - 0.2 * t))),
        lambda t: (
            -(2 * t + 0.1) * math.exp(-t * t - 0.1 * t),
            (2 * t + 0.1) * math.exp(-2 * t * t - 0.2 * t) / math.sqrt(-math.expm1(-2 * t * t - 0.2 * t)),
        ),
        np.array([0.2, 0.7, 1.2]),
    ),
}


def fp_coefficients(level, slope, mix, lam, x, t):
    (a, b), (a1, b1) = level(t), slope(t)
    f = a1 / a
    g2 = 2 * b * (b1 - f * b)
    return f * x - 0.5 * (1 + lam**2) * g2 * score_information(*noisy(mix, a, b), x)


def fp_velocity(level, slope, mix, lam, x, t):
    """a′ x̂_0 + b′ ε̂, and Langevin's part."""
    (a, b), (a1, b1) = level(t), slope(t)
    x0 = denoise_gain(mix, x, a, b)
    eps = (x - a * x0) / b
    return a1 * x0 + b1 * eps + 0.5 * lam**2 * (2 * b * (b1 - a1 / a * b)) * eps / b


def fp_noise(level, slope, lam, t):
    (a, b), (a1, b1) = level(t), slope(t)
    return lam * math.sqrt(2 * b * b1 - 2 * a1 / a * b * b)


FP_LAWS = {"D=1": LINE, "D=3": mixture_problem(220, 3, 2)}
for what, (level, slope, times) in PATHS.items():
    for how, code in {"f and g²": fp_coefficients, "velocity": fp_velocity}.items():
        for lam in 0.0, 1.0, 0.4:
            mix = FP_LAWS["D=3" if lam == 0.4 else "D=1"]
            add(
                f"fokker_planck: {how}; {what}, λ={lam}",
                lambda level=level, slope=slope, times=times, code=code, lam=lam, mix=mix: c.check_fokker_planck(
                    partial(code, level, slope, mix, lam), partial(fp_noise, level, slope, lam), level, mix, times
                ),
            )


def sit_drift(mix, x, t):
    """Stochastic interpolants: the velocity of the rectified flow, and noise of any size."""
    x0 = denoise_precision(mix, x, 1 - t, t)
    return (x - x0) / t - 0.5 * t * score_sum(*noisy(mix, 1 - t, t), x)


# math.sqrt itself, whose parameter is called x, raises TypeError in the check: "another order of the parameters".
add(
    "fokker_planck: rectified flow, G = √t",
    lambda: c.check_fokker_planck(
        partial(sit_drift, LINE), lambda t: math.sqrt(t), PATHS["rectified flow"][0], LINE, PATHS["rectified flow"][2]
    ),
)

VELOCITIES = {
    "rectified flow": [
        lambda x0, e, t: e - x0,
        lambda x0, e, t: (((1 - col(t, x0)) * x0 + col(t, x0) * e) - x0) / col(t, x0),
    ],
    "cosine": [
        lambda x0, e, t: HALF_PI * (np.cos(HALF_PI * col(t, x0)) * e - np.sin(HALF_PI * col(t, x0)) * x0),
        lambda x0, e, t: HALF_PI * (math.cos(HALF_PI * float(t)) * e - math.sin(HALF_PI * float(t)) * x0),
    ],
    "EDM": [lambda x0, e, t: e, lambda x0, e, t: ((x0 + col(t, x0) * e) - x0) / col(t, x0)],
    "VP": [lambda x0, e, t: PATHS["VP"][1](float(t))[0] * x0 + PATHS["VP"][1](float(t))[1] * e],
}
for what, codes in VELOCITIES.items():
    for i, code in enumerate(codes):
        for D, law in FP_LAWS.items():
            add(
                f"flow_velocity: {what}, form {i + 1}; {D}",
                lambda code=code, what=what, law=law: c.check_flow_velocity(code, PATHS[what][0], law, PATHS[what][2]),
            )
add(
    "flow_velocity: rectified flow; float32",
    lambda: c.check_flow_velocity(
        single(VELOCITIES["rectified flow"][0]), PATHS["rectified flow"][0], LINE, PATHS["rectified flow"][2]
    ).at(1e-5),
)


def mi_log_snr(sde, loss, t_min):
    lam, w = legendre(70, float(sde.log_snr(sde.horizon)), float(sde.log_snr(t_min)))
    return 0.5 * sum(a * loss(float(sde.time_at(v))) for v, a in zip(lam, w, strict=True))


def mi_log_time(sde, loss, t_min):
    """−d log-SNR/dt = g²/std²."""
    u, w = legendre(80, math.log(t_min), math.log(sde.horizon))
    return 0.5 * sum(
        a * math.exp(v) * (float(sde.diffusion(math.exp(v))) / float(sde.std(math.exp(v)))) ** 2 * loss(math.exp(v))
        for v, a in zip(u, w, strict=True)
    )


GAUSS = Mixture(np.array([1.0]), np.array([[0.5]]), np.array([[[0.8]]]))
for how, code in {"in log-SNR": mi_log_snr, "in log t": mi_log_time}.items():
    add(
        f"mutual_information: {how}",
        lambda code=code: c.check_mutual_information(
            code, [(VP(0.5, 6.0), 0.05), (VE(0.2, 5.0), 0.1), (c.EDM(5.0), 0.1)], [GAUSS, WIDE]
        ),
    )


def edm_angle(sigma, sd):
    angle = np.arctan2(sigma, sd)
    return np.cos(angle) ** 2, sd * np.sin(angle), np.cos(angle) / sd, 1 / (sd * np.sin(angle)) ** 2


def edm_hypot(sigma, sd):
    r = np.hypot(sigma, sd)
    return (sd / r) ** 2, sigma / r * sd, 1 / r, (r / (sigma * sd)) ** 2


EDM_CODINGS = {
    "as printed": lambda s, sd: (
        sd**2 / (s**2 + sd**2),
        s * sd / np.sqrt(s**2 + sd**2),
        1 / np.sqrt(s**2 + sd**2),
        (s**2 + sd**2) / (s * sd) ** 2,
    ),
    "hypot": edm_hypot,
    "an angle": edm_angle,
    "k-diffusion's": lambda s, sd: (
        sd**2 / (s**2 + sd**2),
        s * sd * (s**2 + sd**2) ** -0.5,
        (s**2 + sd**2) ** -0.5,
        1 / sd**2 + 1 / s**2,
    ),
}
for how, code in EDM_CODINGS.items():
    for sd in 0.5, 1.0:
        add(
            f"edm_coefficients: {how}; data {sd}",
            lambda code=code, sd=sd: c.check_edm_coefficients(lambda s: code(s, sd), sd),
        )
add(
    "edm_coefficients: as printed; float32",
    lambda: c.check_edm_coefficients(single(lambda s: EDM_CODINGS["as printed"](s, 0.5)), 0.5).at(1e-5),
)

GRIDS = {
    "as printed": lambda n, a, b, rho: (
        (b ** (1 / rho) + np.arange(n) / (n - 1) * (a ** (1 / rho) - b ** (1 / rho))) ** rho
    ),
    "linspace, and a zero": lambda n, a, b, rho: np.append(np.linspace(b ** (1 / rho), a ** (1 / rho), n) ** rho, 0.0),
    "flipped": lambda n, a, b, rho: np.linspace(a ** (1 / rho), b ** (1 / rho), n)[::-1] ** rho,
    "k-diffusion's": lambda n, a, b, rho: np.concatenate(
        [(b ** (1 / rho) + np.linspace(0, 1, n) * (a ** (1 / rho) - b ** (1 / rho))) ** rho, np.zeros(1)]
    ),
}
for how, code in GRIDS.items():
    for options in (0.002, 80.0, 7.0), (0.01, 10.0, 3.0), (0.1, 5.0, 1.0):
        add(f"sigma_grid: {how}; {options}", lambda code=code, options=options: c.check_sigma_grid(code, *options))


def exp_general(cc, multi, x, x0, last, levels, z):
    (a0, b0), (a, b), (a2, b2) = levels
    h, h0 = math.log(a2 * b / (b2 * a)), math.log(a * b0 / (b * a0))
    D = x0 + (h / (2 * h0) * (x0 - last) if multi else 0)
    c2 = cc * cc
    return (
        b2 / b * math.exp(-c2 * h) * x
        - a2 * math.expm1(-(1 + c2) * h) * D
        + b2 * math.sqrt(-math.expm1(-2 * c2 * h)) * z
    )


def exp_dpm(x, x0, last, levels, z):
    """DPM-Solver++(2M), multistep."""
    lam = np.log(levels[:, 0]) - np.log(levels[:, 1])
    h = lam[2] - lam[1]
    r = (lam[1] - lam[0]) / h
    D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * last
    return levels[2, 1] / levels[1, 1] * x - levels[2, 0] * (np.exp(-h) - 1) * D


def exp_diffusers(x, x0, last, levels, z):
    """The same in the form D0, D1."""
    lam = [math.log(a / b) for a, b in levels]
    h, h0 = lam[2] - lam[1], lam[1] - lam[0]
    D1 = (x0 - last) / (h0 / h)
    (a, b), b1 = levels[2], levels[1, 1]
    return (b / b1) * x - (a * (math.exp(-h) - 1.0)) * x0 - 0.5 * (a * (math.exp(-h) - 1.0)) * D1


def exp_sde_dpm(x, x0, last, levels, z):
    """SDE-DPM-Solver++(2M), the midpoint form."""
    lam = [math.log(a / b) for a, b in levels]
    h, h0 = lam[2] - lam[1], lam[1] - lam[0]
    (a, b), b1 = levels[2], levels[1, 1]
    D = x0 + 0.5 * h / h0 * (x0 - last)
    return b / b1 * math.exp(-h) * x + a * (1 - math.exp(-2 * h)) * D + b * math.sqrt(1 - math.exp(-2 * h)) * z


def exp_ddim(x, x0, last, levels, z):
    (a, b), (a2, b2) = levels[1:]
    return a2 * x0 + b2 * (x - a * x0) / b


def exp_ancestral(x, x0, last, levels, z):
    (a, b), (a2, b2) = levels[1:]
    ratio = a / a2
    step = b * b - ratio**2 * b2**2
    return (ratio * b2**2 * x + a2 * step * x0) / b**2 + math.sqrt(step) * b2 / b * z


for how, (code, cc, multi) in {
    "general, c=0": (partial(exp_general, 0.0, True), 0.0, True),
    "general, c=0.7": (partial(exp_general, 0.7, True), 0.7, True),
    "general, c=1, one step": (partial(exp_general, 1.0, False), 1.0, False),
    "DPM-Solver++(2M)": (exp_dpm, 0.0, True),
    "D0 and D1": (exp_diffusers, 0.0, True),
    "SDE-DPM-Solver++(2M)": (exp_sde_dpm, 1.0, True),
    "DDIM": (exp_ddim, 0.0, False),
    "ancestral": (exp_ancestral, 1.0, False),
}.items():
    add(f"exponential_step: {how}", lambda code=code, cc=cc, multi=multi: c.check_exponential_step(code, cc, multi))
add(
    "exponential_step: DPM-Solver++(2M); float32", lambda: c.check_exponential_step(single(exp_dpm), 0.0, True).at(1e-5)
)


def order_ddim(denoise, x, levels):
    for (a, b), (a2, b2) in itertools.pairwise(levels):
        x0 = denoise(x, float(a), float(b))
        x = a2 * x0 + b2 / b * (x - a * x0)
    return x


def order_2m(denoise, x, levels):
    last = None
    for i in range(len(levels) - 1):
        x0 = denoise(x, *map(float, levels[i]))
        x = (
            exp_ddim(x, x0, None, levels[i - 1 : i + 2] if i else np.stack([levels[0], levels[0], levels[1]]), None)
            if last is None
            else exp_dpm(x, x0, last, levels[i - 1 : i + 2], None)
        )
        last = x0
    return x


def order_heun(denoise, x, levels):
    """Heun's method in (x/scale, σ), as EDM."""
    y = x / levels[0, 0]
    for (a, b), (a2, b2) in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        s, s2 = b / a, b2 / a2
        d = (y - denoise(a * y, a, b)) / s
        euler = y + (s2 - s) * d
        d2 = (euler - denoise(a2 * euler, a2, b2)) / s2
        y = y + (s2 - s) * (d + d2) / 2
    return y * levels[-1, 0]


def order_midpoint(denoise, x, levels):
    """DPM-Solver++(2S): half of a step in log-SNR first."""
    for (a, b), (a2, b2) in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        h = math.log(a2 * b / (a * b2))
        snr = a / b * math.exp(h / 2)
        am, bm = snr / math.hypot(1, snr), 1 / math.hypot(1, snr)  # on the circle; any scale would do
        x0 = denoise(x, a, b)
        u = bm / b * x - am * math.expm1(-h / 2) * x0
        x = b2 / b * x - a2 * math.expm1(-h) * denoise(u, am, bm)
    return x


def edm_level(u):
    return 1.0, (10 ** (1 / 7) + u * (0.05 ** (1 / 7) - 10 ** (1 / 7))) ** 7


def rectified_level(u):
    t = 0.98 + u * (0.03 - 0.98)
    return 1 - t, t


for how, (code, order) in {
    "DDIM": (order_ddim, 1.0),
    "DPM-Solver++(2M)": (order_2m, 2.0),
    "Heun": (order_heun, 2.0),
    "DPM-Solver++(2S)": (order_midpoint, 2.0),
}.items():
    for what, law in {"D=1": WIDE, "D=2": WIDE2}.items():
        add(
            f"flow_order: {how}; {what}",
            lambda code=code, order=order, law=law: c.check_flow_order(code, law, order),
        )
add("flow_order: Heun on EDM's levels", lambda: c.check_flow_order(order_heun, WIDE, 2.0, edm_level))
add("flow_order: DDIM on a rectified flow", lambda: c.check_flow_order(order_ddim, WIDE, 1.0, rectified_level))


def weak_ancestral(denoise, x, levels, noise):
    for i, z in enumerate(noise):
        x = exp_ancestral(
            x, denoise(x, *map(float, levels[i])), None, np.stack([levels[i], levels[i], levels[i + 1]]), z
        )
    return x


def weak_exponential(cc, denoise, x, levels, noise):
    for i, z in enumerate(noise):
        x = exp_general(
            cc, False, x, denoise(x, *map(float, levels[i])), None, [(0.1, 1.0), levels[i], levels[i + 1]], z
        )
    return x


def weak_ddim(eta, denoise, x, levels, noise):
    for i, z in enumerate(noise):
        (a, b), (a2, b2) = levels[i].tolist(), levels[i + 1].tolist()
        x0 = denoise(x, a, b)
        sigma = eta * b2 / b * math.sqrt(b * b - (a * b2 / a2) ** 2)
        x = a2 * x0 + math.sqrt(b2 * b2 - sigma**2) * (x - a * x0) / b + sigma * z
    return x


for how, code in {
    "ancestral": weak_ancestral,
    "exponential, c=1": partial(weak_exponential, 1.0),
    "exponential, c=0.5": partial(weak_exponential, 0.5),
    "DDIM η=1": partial(weak_ddim, 1.0),
}.items():
    for D in 1, 2:
        add(
            f"weak_order: {how}; D={D}",
            lambda code=code, D=D: c.check_weak_order(code, MEAN2[:D], spd(230 + D, D)),
        )

SCHEDULES = {
    "linear T=12": NoiseSchedule.linear(12),
    "cosine T=50": NoiseSchedule.cosine(50),
    "Ho's T=1000": NoiseSchedule.from_variances(np.linspace(1e-4, 0.02, 1000)),
    "constant T=1": NoiseSchedule.from_variances(np.array([0.3])),
}
for what, schedule in SCHEDULES.items():
    for how, code in {
        "x̂_0, then noise again": lambda n, s, t, x, e: (
            n.alpha_bar[t] * (x - n.beta_bar[s] * e) / n.alpha_bar[s] + n.beta_bar[t] * e
        ),
        "Ho's tables of squares": lambda n, s, t, x, e: (
            np.sqrt(np.prod(1 - n.beta[s + 1 : t + 1] ** 2)) * (x - n.beta_bar[s] * e) + n.beta_bar[t] * e
        ),
        "in σ": lambda n, s, t, x, e: (
            n.alpha_bar[t]
            * (x / n.alpha_bar[s] + (n.beta_bar[t] / n.alpha_bar[t] - n.beta_bar[s] / n.alpha_bar[s]) * e)
        ),
    }.items():
        add(
            f"ddim_inversion: {how}; {what}",
            lambda code=code, schedule=schedule: c.check_ddim_inversion(partial(code, schedule), schedule),
        )


def tilt_grid(mix, p_label, x, a, b, w):
    """Weights of x_0 on a grid, for D = 1 or 2."""
    D = mix.dimension
    u = np.linspace(-25, 25, 8001) if D == 1 else np.linspace(-14, 14, 281)
    grid = np.stack(np.meshgrid(*[u] * D, indexing="ij"), -1).reshape(-1, D)
    lj = log_joint(grid, *parts(mix))
    log_p = np.logaddexp.reduce(lj, axis=1)
    log_py = scipy.special.logsumexp(lj, b=p_label, axis=1)
    log_tilt = log_p + w * (log_py - log_p)
    logs = log_tilt - 0.5 * (((x[:, None] - a * grid) / b) ** 2).sum(2)
    q = scipy.special.softmax(logs, axis=1)
    return (a * q @ grid - x) / b**2


def tilt_gradient(mix, p_label, x, a, b, w):
    """The same with the score of x_0 inside: ∇log p_t = E[∇log tilt(x_0) | x_t]/a."""
    u = np.linspace(-25, 25, 8001)[:, None]
    lj = log_joint(u, *parts(mix))
    wk, m, C = parts(mix)
    log_p = np.logaddexp.reduce(lj, axis=1)
    log_py = scipy.special.logsumexp(lj, b=p_label, axis=1)
    with np.errstate(divide="ignore"):
        labelled = score_sum(wk * p_label / (wk @ p_label), m, C, u)
    slope = (1 - w) * score_sum(wk, m, C, u) + w * labelled
    q = scipy.special.softmax(log_p + w * (log_py - log_p) - 0.5 * ((x - a * u.T) / b) ** 2, axis=1)
    return q @ slope / a


LEVELS = np.array([[0.9, 0.45], [0.6, 0.8], [1.0, 1.0]])
add(
    "tilted_score: posterior mean; D=1",
    lambda: c.check_tilted_score(partial(tilt_grid, LINE, np.array([0.9, 0.2])), LINE, np.array([0.9, 0.2]), LEVELS),
)
add(
    "tilted_score: mean of the slope; D=1",
    lambda: c.check_tilted_score(
        partial(tilt_gradient, LINE, np.array([0.9, 0.2])), LINE, np.array([0.9, 0.2]), LEVELS
    ),
)
add(
    "tilted_score: posterior mean; D=1, w=1.7",
    lambda: c.check_tilted_score(
        partial(tilt_grid, LINE, np.array([0.4, 0.8])), LINE, np.array([0.4, 0.8]), LEVELS, 1.7
    ),
)
add(
    "tilted_score: posterior mean; D=2",
    lambda: c.check_tilted_score(
        partial(tilt_grid, WIDE2, np.array([0.3, 0.6])), WIDE2, np.array([0.3, 0.6]), LEVELS[1:], 2.0
    ),
    True,
)


def tweedie_posterior(mix, x, a, b):
    _w, m, C = parts(mix)
    r = e_logs(x, *noisy(mix, a, b))
    eye = np.eye(x.shape[1])
    gains = [np.linalg.solve(a * a * Ck + b * b * eye, a * Ck).T for Ck in C]
    means = np.stack([mk + (x - a * mk) @ G.T for mk, G in zip(m, gains, strict=True)], axis=1)
    V = np.stack([Ck - G @ (a * Ck) for Ck, G in zip(C, gains, strict=True)])
    centred = means - np.einsum("nk,nkd->nd", r, means)[:, None]
    return np.einsum("nk,kde->nde", r, V) + np.einsum("nk,nkd,nke->nde", r, centred, centred)


def tweedie_hessian(mix, x, a, b):
    w, m, C = noisy(mix, a, b)
    P = np.linalg.inv(C)
    r = e_logs(x, w, m, C, logpdf_precision)
    g = np.einsum("kde,nke->nkd", P, m - x[:, None])
    s = np.einsum("nk,nkd->nd", r, g)
    H = np.einsum("nk,nkd,nke->nde", r, g, g) - np.einsum("nd,ne->nde", s, s) - np.einsum("nk,kde->nde", r, P)
    return (b / a) ** 2 * (np.eye(x.shape[1]) + b * b * H)


def tweedie_complex(mix, x, a, b):
    """The derivative of the denoiser, (b²/a) ∂x̂_0/∂x, by the complex step."""
    w, m, C = noisy(mix, a, b)
    P, D = np.linalg.inv(C), x.shape[1]
    out = np.empty((len(x), D, D))
    for d in range(D):
        y = x + 1e-40j * np.eye(D)[d]
        r = y[:, None] - m
        lj = np.log(w) - 0.5 * np.linalg.slogdet(C)[1] - 0.5 * np.einsum("nkd,kde,nke->nk", r, P, r)
        e = np.exp(lj - lj.real.max(1, keepdims=True))
        s = -np.einsum("nk,kde,nke->nd", e / e.sum(1, keepdims=True), P, r)
        x0 = (y + b * b * s) / a
        out[:, :, d] = x0.imag / 1e-40 * b * b / a
    return out


for what, law in {"D=1": LINE, "D=2": MIXTURES["D=2 K=3"], "D=10": MIXTURES["D=10 K=2"]}.items():
    for how, code in {
        "posterior": tweedie_posterior,
        "Hessian": tweedie_hessian,
        "complex step": tweedie_complex,
    }.items():
        add(
            f"tweedie_covariance: {how}; {what}",
            lambda code=code, law=law: c.check_tweedie_covariance(partial(code, law), law, LEVELS),
        )

for what, law in {"D=2 K=3": MIXTURES["D=2 K=3"], "D=2 wide": WIDE2, "D=10 K=2": MIXTURES["D=10 K=2"]}.items():
    for how, code in {
        "Σ r C⁻¹(m − x)": score_sum,
        "natural parameters": score_information,
        "with the divergence": lambda *p: score_and_trace(*p)[0],
    }.items():
        add(
            f"conservative_score: {how}; {what}",
            lambda code=code, law=law: c.check_conservative_score(partial(code, *parts(law)), law),
        )


def rate_grid(sde, p, q, t):
    a, b = sde.level(t)
    P, Q = noisy(p, a, b), noisy(q, a, b)
    x = np.linspace(-16, 16, 6401)[:, None] * max(1.0, b)
    weight = np.exp(np.logaddexp.reduce(log_joint(x, *P), axis=1)) * (x[1, 0] - x[0, 0])
    error = (score_sum(*P, x) - score_sum(*Q, x))[:, 0]
    return -0.5 * float(sde.diffusion(t)) ** 2 * (weight @ error**2)


def rate_gaussian(sde, p, q, t):
    """E‖A x + c‖² of two Gaussians."""
    a, b = sde.level(t)
    (_, mp, Cp), (_, mq, Cq) = noisy(p, a, b), noisy(q, a, b)
    Pp, Pq = np.linalg.inv(Cp[0]), np.linalg.inv(Cq[0])
    A = Pq - Pp
    offset = Pq @ (mp[0] - mq[0])  # at the mean of p the score of p is 0
    return -0.5 * float(sde.diffusion(t)) ** 2 * (np.trace(A @ Cp[0] @ A.T) + offset @ offset)


ONE, OTHER = Mixture(np.ones(1), MEAN2[None], spd(240, 2)[None]), Mixture(np.ones(1), -MEAN2[None], spd(241, 2)[None])
for what, sde in {"VP": VP(0.1, 8.0), "VE": VE(0.1, 4.0, 2.0), "EDM": c.EDM(5.0), "sub-VP": SubVP(0.1, 8.0)}.items():
    times = sde.horizon * np.array([0.1, 0.4, 0.8])
    add(
        f"kl_rate: on a grid; {what}, D=1",
        lambda sde=sde, times=times: c.check_kl_rate(partial(rate_grid, sde, LINE, WIDE), sde, LINE, WIDE, times),
    )
    add(
        f"kl_rate: Gaussians; {what}, D=2",
        lambda sde=sde, times=times: c.check_kl_rate(partial(rate_gaussian, sde, ONE, OTHER), sde, ONE, OTHER, times),
    )


def density_grid(n, eps_hat, variance):
    """p_{t−1}(y) = ∫ N(y; mean(x), σ²) p_t(x) dx on one grid."""
    x = np.linspace(-30, 30, 2001)
    p = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    for t in range(n.T, 0, -1):
        eps = np.asarray(eps_hat(x[:, None], t))[:, 0]
        mean = (x - n.beta[t] ** 2 / n.beta_bar[t] * eps) / n.alpha[t]
        kernel = np.exp(-0.5 * (x[:, None] - mean) ** 2 / variance[t]) / math.sqrt(2 * math.pi * variance[t])
        p = kernel @ p * (x[1] - x[0])
    return x, p


def density_affine(n, eps_hat, variance):
    """Mean and variance of the affine chain, by two values of ε̂ at every step."""
    m, v = 0.0, 1.0
    for t in range(n.T, 0, -1):
        at0, at1 = (float(np.asarray(eps_hat(np.full((1, 1), u), t))[0, 0]) for u in (0.0, 1.0))
        k = n.beta[t] ** 2 / n.beta_bar[t]
        gain = (1 - k * (at1 - at0)) / n.alpha[t]
        m, v = gain * m - k * at0 / n.alpha[t], gain**2 * v + variance[t]
    x = m + math.sqrt(v) * np.linspace(-12, 12, 2001)
    return x[:, None], scipy.stats.norm(m, math.sqrt(v)).pdf(x)


for what, schedule in {
    "T=5": NoiseSchedule.from_variances(np.array([0.1, 0.15, 0.2, 0.25, 0.3])),
    "T=3 constant": NoiseSchedule.from_variances(np.array([0.3, 0.4, 0.5])),
    "T=10 cosine": NoiseSchedule.cosine(10),
}.items():
    for how, code in {"on a grid": density_grid, "affine": density_affine}.items():
        if how == "on a grid" and "cosine" in what:
            continue  # the first steps leave the grid
        add(
            f"data_processing: {how}; {what}",
            lambda code=code, schedule=schedule: c.check_data_processing(partial(code, schedule), schedule),
            how == "on a grid",
        )


def exact_bound(rule, schedule, x0, eps_hat, variance, n_levels):
    """−L_T − Σ L_{t−1} + E log P(x_0 | x_1); the expectation of each term on its own."""
    T = schedule.T
    e, w = normal_grid(rule)
    a, b = schedule.alpha_bar, schedule.beta_bar
    prior = 0.5 * (a[T] ** 2 * x0**2 + b[T] ** 2 - 1 - np.log(b[T] ** 2)).sum(1)
    out = -prior
    for t in range(1, T + 1):
        x = (a[t] * x0[:, None] + b[t] * e).reshape(-1, 2)
        eps = np.asarray(eps_hat(x, t))
        mean = (x - schedule.beta[t] ** 2 / b[t] * eps) / schedule.alpha[t]
        clean = np.repeat(x0, len(e), axis=0)
        if t == 1:
            level = np.rint((clean + 1) * (n_levels - 1) / 2)
            value = mass_flip(level, mean, math.sqrt(variance[1]), n_levels).sum(1)
        else:
            wanted = (schedule.alpha[t] * b[t - 1] ** 2 * x + a[t - 1] * schedule.beta[t] ** 2 * clean) / b[t] ** 2
            ratio = schedule.beta[t] ** 2 * b[t - 1] ** 2 / b[t] ** 2 / variance[t]
            value = -(ratio - 1 - math.log(ratio)) - ((wanted - mean) ** 2).sum(1) / (2 * variance[t])
        out = out + value.reshape(len(x0), -1) @ w
    return out


def normal_grid(rule):
    if rule == "panels":
        edges = np.linspace(-9, 9, 19)
        u, w = (
            np.concatenate(part)
            for part in zip(*[legendre(9, *ends) for ends in itertools.pairwise(edges)], strict=True)
        )
    else:
        u = np.linspace(-9, 9, 181)
        w = np.full(181, 0.1)
    w = w * np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    return np.stack(np.meshgrid(u, u, indexing="ij"), -1).reshape(-1, 2), np.outer(w, w).ravel()


for how in "panels", "trapezoid":
    for n in 2, 3, 5:
        add(
            f"discrete_bound: {how}; {n} levels",
            lambda how=how, n=n: c.check_discrete_bound(partial(exact_bound, how), n).at(1e-6),
            n > 2,
        )
