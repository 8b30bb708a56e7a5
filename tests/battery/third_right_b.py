"""Right implementations for the checks of VAE, latent variables, EM, continuous time, and beyond the deck."""

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
        "PPCA's M": lg_ppca, "precision, Cholesky": lg_information, "Woodbury": lg_joint, "SVD": lg_svd, "Kalman, row by row": lg_kalman,
        "QR of a regression": lg_lstsq,
    },
    LG,
    ("PPCA's M", "precision, Cholesky"),
)  # fmt: skip


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
