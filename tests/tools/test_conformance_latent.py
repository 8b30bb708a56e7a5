"""The checks of (1)-(18): right code in several codings and precisions passes, and mistakes fail with their diagnosis.

Right code is written as people write it: by inverses, Cholesky factors, solves, sums of logarithms, in float32.
"""

import math
import re
from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from scratchgen import conformance as c
from scratchgen.conformance.instances import argmin, rounding
from scratchgen.conformance.networks import printed_mlp
from scratchgen.conformance.result import NAMELESS
from scratchgen.conformance.variational import by_regression
from scratchgen.equations.problems import (
    DATA_COV,
    DATA_MEAN,
    DECODER,
    JOINT,
    LOG_VARIANCE,
    MU,
    NOISE,
    OTHER_COV,
    PLANE,
    POINTS,
    POSTERIOR,
    PRIOR,
    Q_COV,
    Q_MEAN,
    SAMPLE_COV,
    P,
    Q,
    W,
    X,
    parameters_of,
    waves,
)
from scratchgen.likelihood import log_bin_mass, softmax
from scratchgen.museum.planting import planted

PARAMETERS = parameters_of(PLANE)
BLOBS = np.concatenate([1 + 0.4 * waves(20, 2), -1 + 0.6 * waves(25, 2, shift=1.0), waves(15, 2, shift=2.0)])
LOG_RESP = np.log(softmax(waves(6, 3)))
P2 = Q[:, 1] / Q[:, 1].sum()


def single(f):
    """The same function in float32: its arrays are rounded before, and its results after."""

    def rounded(value):
        return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value

    def call(*arguments):
        value = f(*map(rounded, arguments))
        return tuple(np.float32(part) for part in value) if isinstance(value, tuple) else np.float32(value)

    return call


# --- the problems: name → check of a function ------------------------------------------------------------------------

WIDE = np.linspace(-3, 3, 24)  # D = 24 for the linear-Gaussian model
WIDE_W = waves(24, 5, shift=2.0)


def loss_checks(loss):
    """The loss of a VAE at two variances of the decoder; the worse result."""
    checks = [c.check_vae_loss(loss, X, W, MU, s2, Q_MEAN, LOG_VARIANCE) for s2 in (0.3, 0.05)]
    return max(checks, key=lambda check: check.residual / check.tolerance)


CHECKS = {
    "kl": lambda f: c.check_kl(f, P, P2),
    "gaussian kl": lambda f: c.check_gaussian_kl(f, DATA_MEAN, DATA_COV, -DATA_MEAN, OTHER_COV),
    "diagonal kl": lambda f: c.check_diagonal_kl(f, Q_MEAN, LOG_VARIANCE),
    "bins": lambda f: c.check_bin_masses(f, 17, 0.8 * waves(5), 0.4),
    "bins with tails": lambda f: c.check_bin_masses(f, 17, 0.8 * waves(5), 0.1),
    "narrow bins": lambda f: c.check_bin_masses(f, 256, 0.8 * waves(5), 0.05),
    "posterior table": lambda f: c.check_latent_posterior(f, JOINT),
    "posterior kl": lambda f: c.check_posterior_kl(f, JOINT, Q),
    "elbo": lambda f: c.check_elbo(f, JOINT, Q),
    "split elbo": lambda f: c.check_split_elbo(f, DECODER, PRIOR, Q),
    "joint kl": lambda f: c.check_joint_kl(f, P, Q, DECODER, PRIOR),
    "objective": lambda f: c.check_vae_objective(f, P, Q, DECODER, PRIOR),
    "posterior": lambda f: c.check_linear_gaussian_posterior(f, X, W, MU, 0.3),
    "wide posterior": lambda f: c.check_linear_gaussian_posterior(f, waves(7, 24), WIDE_W, WIDE, 0.02),
    "linear elbo": lambda f: c.check_linear_gaussian_elbo(f, X, W, MU, 0.3, Q_MEAN, Q_COV),
    "wide elbo": lambda f: c.check_linear_gaussian_elbo(
        f, waves(7, 24), WIDE_W, WIDE, 0.02, waves(7, 5), 0.3 * np.eye(5) + 0.1
    ),
    "mean field": lambda f: c.check_mean_field(f, X, W, MU, NOISE),
    "loss": loss_checks,
    "draw": lambda f: c.check_reparameterisation(f, Q_MEAN, LOG_VARIANCE, 1.5 * waves(5, 3, shift=1.0)),
    "iwae": lambda f: c.check_importance_weighted_bound(f, JOINT, Q, 3),
    "free m-step": lambda f: c.check_free_m_step(f, P, Q, PRIOR),
    "e-step": lambda f: c.check_e_step(f, POINTS, *PARAMETERS),
    "free energy": lambda f: c.check_free_energy(f, POINTS, LOG_RESP, *PARAMETERS),
    "em": lambda f: c.check_em(f, BLOBS, *PARAMETERS),
    "tied em": lambda f: c.check_em(f, BLOBS, *PARAMETERS, covariance_type="tied"),
    "diag em": lambda f: c.check_em(f, BLOBS, *PARAMETERS, covariance_type="diag"),
    "spherical em": lambda f: c.check_em(f, BLOBS, *PARAMETERS, covariance_type="spherical"),
    "ppca step": lambda f: c.check_ppca_step(f, SAMPLE_COV, W, NOISE),
    "ppca maximum": lambda f: c.check_ppca_maximum(f, SAMPLE_COV, 2),
    "factor analysis": lambda f: c.check_factor_analysis_step(f, SAMPLE_COV, W[:, :2], 0.5 + 0.3 * waves(4)),
}


# --- right code ------------------------------------------------------------------------------------------------------


def kl_cholesky(m, S, n, R):
    L = np.linalg.cholesky(R)
    A, b = np.linalg.solve(L, np.linalg.cholesky(S)), np.linalg.solve(L, n - m)
    log_ratio = np.log(np.diagonal(L)).sum() - np.log(np.diagonal(np.linalg.cholesky(S))).sum()
    return 0.5 * ((A**2).sum() + b @ b - len(m)) + log_ratio


def kl_solve(m, S, n, R):
    mahalanobis = (n - m) @ np.linalg.solve(R, n - m)
    return 0.5 * (np.trace(np.linalg.solve(R, S)) + mahalanobis - len(m) + np.log(np.linalg.det(R) / np.linalg.det(S)))


def bin_masses(level, mean, std, n_levels):
    """By log Φ of the nearer tail."""
    x, half = 2 * level / (n_levels - 1) - 1, 1 / (n_levels - 1)
    low = np.where(level == 0, -np.inf, (x - half - mean) / std)
    high = np.where(level == n_levels - 1, np.inf, (x + half - mean) / std)
    swap = low + high > 0
    low, high = np.where(swap, -high, low), np.where(swap, -low, high)
    a, b = special.log_ndtr(low), special.log_ndtr(high)
    return b + np.log1p(-np.exp(a - b))


def plain_bins(level, mean, std, n_levels=17, least=1e-12):
    """As published code does it: a difference of Φ, clamped."""
    x, half = 2 * level / (n_levels - 1) - 1, 1 / (n_levels - 1)
    low = np.where(level == 0, 0.0, special.ndtr((x - half - mean) / std))
    high = np.where(level == n_levels - 1, 1.0, special.ndtr((x + half - mean) / std))
    return np.log(np.maximum(high - low, least))


def posterior_by_joint(x, W, mean, s2):
    C = W @ W.T + s2 * np.eye(len(W), dtype=W.dtype)
    gain = np.linalg.solve(C, W).T
    return (x - mean) @ gain.T, np.eye(W.shape[1]) - gain @ W


def posterior_by_precision(x, W, mean, s2):
    M = W.T @ W + s2 * np.eye(W.shape[1], dtype=W.dtype)
    return np.linalg.solve(M, W.T @ (x - mean).T).T, s2 * np.linalg.inv(M)


def elbo_by_terms(x, W, mean, s2, m, V):
    residual = ((x - mean - m @ W.T) ** 2).sum(axis=1) + np.trace(W @ V @ W.T)
    log_p = -0.5 * (x.shape[1] * np.log(2 * np.pi * s2) + residual / s2)
    return log_p - 0.5 * ((m**2).sum(axis=1) + np.trace(V) - len(V) - np.linalg.slogdet(V)[1])


def elbo_by_joint(x, W, mean, s2, m, V):
    """E log p(x, z) − E log q, with the entropy of q in closed form."""
    expected = np.einsum("nk,nl->nkl", m, m) + V
    quadratic = np.einsum("kl,nkl->n", W.T @ W / s2 + np.eye(len(V)), expected)
    centred = x - mean
    cross = (centred @ W * m).sum(axis=1) / s2
    D, k = W.shape
    log_joint = (
        -0.5 * ((D + k) * np.log(2 * np.pi) + D * np.log(s2) + (centred**2).sum(axis=1) / s2 + quadratic) + cross
    )
    return log_joint + 0.5 * (k * np.log(2 * np.pi * np.e) + np.linalg.slogdet(V)[1])


def mean_field(x, W, mean, s2):
    return posterior_by_precision(x, W, mean, s2)[0], s2 / (s2 + (W**2).sum(axis=0))


def nll_plus_kl(x, x_hat, mean, log_variance, log_s2):
    nll = 0.5 * (np.log(2 * np.pi) + log_s2 + (x - x_hat) ** 2 / np.exp(log_s2))
    return nll.sum(axis=1) - 0.5 * (1 + log_variance - mean**2 - np.exp(log_variance)).sum(axis=1)


def log_prob_by_scipy(x, x_hat, mean, log_variance, log_s2):
    log_p = stats.norm.logpdf(x, x_hat, np.exp(log_s2 / 2)).sum(axis=1)
    std = np.exp(log_variance / 2)
    return -log_p + (0.5 * (std**2 + mean**2) - 0.5 - np.log(std)).sum(axis=1)


def sklearn_log_joint(x, weights, means, covariances):
    """As scikit-learn does it: Cholesky factors of the precisions."""
    factors = np.linalg.inv(np.linalg.cholesky(covariances)).swapaxes(1, 2)
    white = np.einsum("nd,kde->nke", x, factors) - np.einsum("kd,kde->ke", means, factors)
    log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    return -0.5 * (x.shape[1] * np.log(2 * np.pi) + (white**2).sum(axis=2)) + log_det + np.log(weights)


def sklearn_e_step(x, *parameters):
    log_joint = sklearn_log_joint(x, *parameters)
    return np.exp(log_joint - special.logsumexp(log_joint, axis=1, keepdims=True))


def hmm_e_step(x, *parameters):
    """As hidden Markov models do it: likelihoods scaled by the largest of each row, then divided by their sum."""
    log_joint = sklearn_log_joint(x, *parameters)
    scaled = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def m_step(x, resp, kind="full"):
    counts = resp.sum(axis=0)
    means = resp.T @ x / counts[:, None]
    if kind == "diag":  # as scikit-learn: E[x²] − m²
        covariances = [np.diag(row) for row in resp.T @ x**2 / counts[:, None] - means**2]
    else:
        covariances = [(resp[:, k, None] * (x - m)).T @ (x - m) / counts[k] for k, m in enumerate(means)]
    if kind == "tied":
        covariances = [(x.T @ x - (counts * means.T) @ means) / len(x)] * len(counts)
    if kind == "spherical":
        covariances = [np.trace(C) / x.shape[1] * np.eye(x.shape[1]) for C in covariances]
    return counts / len(x), means, np.array(covariances)


def free_energy(x, log_resp, *parameters):
    return (np.exp(log_resp) * (sklearn_log_joint(x, *parameters) - log_resp)).sum(axis=1)


def ppca_step(S, W, s2):
    M = W.T @ W + s2 * np.eye(W.shape[1], dtype=W.dtype)
    new = S @ W @ np.linalg.inv(s2 * np.eye(W.shape[1], dtype=W.dtype) + np.linalg.solve(M, W.T @ S @ W))
    return new, np.trace(S - S @ W @ np.linalg.solve(M, new.T)) / len(S)


def ppca_maximum(S, k):
    vectors, values, _ = np.linalg.svd(S)
    s2 = values[k:].mean()
    return vectors[:, :k] @ np.diag(np.sqrt(values[:k] - s2)), s2


def factor_analysis_step(S, W, noise):
    beta = W.T @ np.linalg.inv(W @ W.T + np.diag(noise))
    zz = np.eye(W.shape[1]) - beta @ W + beta @ S @ beta.T
    new = S @ beta.T @ np.linalg.inv(zz)
    return new, np.diagonal(S - new @ beta @ S)


def free_m_step(p, q):
    joint = (q.T * p).T
    return joint / joint.sum(axis=0), np.einsum("x,xz->z", p, q)


def log_mean_exp(w):
    return special.logsumexp(w, axis=0) - np.log(len(w))


def table_elbo(joint, q):
    return np.einsum("xz,xz->x", q, np.log(joint / q))


RIGHT = [
    ("kl", lambda p, q: np.sum(p * np.log(p / q))),
    ("kl", lambda p, q: stats.entropy(p, q)),
    ("kl", lambda p, q: special.rel_entr(p, q).sum()),
    ("gaussian kl", kl_cholesky),
    ("gaussian kl", kl_solve),
    ("diagonal kl", lambda m, v: -0.5 * np.sum(1 + v - m**2 - np.exp(v), axis=1)),
    ("diagonal kl", lambda m, v: (-(v / 2) + (np.exp(v / 2) ** 2 + m**2) / 2 - 0.5).sum(axis=-1)),
    (
        "diagonal kl",
        lambda m, v: np.array(
            [kl_cholesky(a, np.diag(np.exp(b)), 0 * a, np.eye(3)) for a, b in zip(m, v, strict=True)]
        ),
    ),
    ("bins", lambda *a: bin_masses(*a, 17)),
    ("bins", plain_bins),
    ("bins with tails", lambda *a: bin_masses(*a, 17)),
    ("narrow bins", lambda *a: bin_masses(*a, 256)),
    ("posterior table", lambda joint: (softmax(np.log(joint)), joint @ np.ones(joint.shape[1]))),
    ("posterior table", lambda joint: ((joint.T / joint.sum(axis=1)).T, joint.sum(axis=1))),
    ("posterior kl", lambda joint, q: (q * np.log(q * joint.sum(axis=1, keepdims=True) / joint)).sum(axis=1)),
    ("elbo", table_elbo),
    ("split elbo", lambda decoder, prior, q: table_elbo(decoder * prior, q)),
    ("split elbo", lambda d, p, q: np.array([a @ np.log(b) - a @ np.log(a / p) for a, b in zip(q, d, strict=True)])),
    ("joint kl", lambda p, q, d, prior: (p[:, None] * q * np.log(p[:, None] * q / d / prior)).sum()),
    ("joint kl", lambda p, q, d, prior: p @ (np.log(p) - table_elbo(d * prior, q))),
    ("objective", lambda p, q, d, prior: -p @ table_elbo(d * prior, q)),
    *((name, f) for name in ("posterior", "wide posterior") for f in (posterior_by_joint, posterior_by_precision)),
    *((name, f) for name in ("linear elbo", "wide elbo") for f in (elbo_by_terms, elbo_by_joint)),
    ("mean field", mean_field),
    ("loss", nll_plus_kl),
    ("loss", log_prob_by_scipy),
    ("draw", lambda m, v, xi: m + np.exp(0.5 * v) * xi),
    ("draw", lambda m, v, xi: np.sqrt(np.exp(v)) * xi + m),
    ("iwae", log_mean_exp),
    ("iwae", lambda w: w.max(axis=0) + np.log(np.exp(w - w.max(axis=0)).mean(axis=0))),
    ("free m-step", free_m_step),
    ("e-step", sklearn_e_step),
    ("e-step", hmm_e_step),
    ("free energy", free_energy),
    *(
        (f"{kind} em".removeprefix("full "), lambda x, *p, e=e_step, kind=kind: m_step(x, e(x, *p), kind))
        for kind in ("full", "tied", "diag", "spherical")
        for e_step in (sklearn_e_step, hmm_e_step)
    ),
    ("ppca step", ppca_step),
    ("ppca maximum", ppca_maximum),
    ("factor analysis", factor_analysis_step),
]


@pytest.mark.parametrize(("name", "f"), RIGHT, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RIGHT)])
def test_right_code_passes_in_float64_and_in_float32(name, f):
    check = CHECKS[name](f)
    assert check, check
    assert check.residual < 0.2 * check.tolerance, check
    in_single = CHECKS[name](single(f))
    assert in_single.at(1e-5), in_single


def test_every_check_here_has_right_code_and_a_mistake():
    assert {name for name, _ in RIGHT} == set(CHECKS)
    assert {name for name, _, _ in WRONG} >= set(CHECKS) - {"narrow bins", "wide posterior", "wide elbo"}


# --- mistakes --------------------------------------------------------------------------------------------------------


def on_result(f, change):
    return lambda *arguments: change(f(*arguments))


def part(f, i, change):
    """`f` with a change of its i-th result."""

    def call(*arguments):
        values = list(f(*arguments))
        values[i] = change(values[i], *arguments)
        return tuple(values)

    return call


def vae(reconstruction, kl):
    """A loss from ‖x − x̂‖² (N,), D, log s² and from μ, log σ² (N, k)."""
    return lambda x, x_hat, m, v, log_s2: reconstruction(((x - x_hat) ** 2).sum(axis=1), x.shape[1], log_s2) + kl(m, v)


def right_nll(r, D, log_s2):
    return 0.5 * (D * (np.log(2 * np.pi) + log_s2) + r * np.exp(-log_s2))


def right_kl(m, v):
    return 0.5 * (m**2 + np.exp(v) - 1 - v).sum(axis=1)


def kl_with(variance, log_variance):
    return lambda m, v: 0.5 * (m**2 + variance(v) - 1 - log_variance(v)).sum(axis=1)


def em_with(change_resp=lambda resp, *a: resp, change=lambda after, *a: after):
    def step(x, *parameters):
        resp = change_resp(sklearn_e_step(x, *parameters), x, *parameters)
        return change(m_step(x, resp), x, *parameters)

    return step


def covariances_with(spread):
    """A step whose covariances are spread(x, resp, new means, old means)."""

    def step(x, weights, means, covariances):
        resp = sklearn_e_step(x, weights, means, covariances)
        new = m_step(x, resp)
        return new[0], new[1], spread(x, resp, new[1], means)

    return step


def moments_about(x, resp, centres, divisor):
    apart = x[:, None] - centres
    return np.einsum("nk,nkd,nke->kde", resp, apart, apart) / np.broadcast_to(divisor, resp.shape[1])[:, None, None]


def e_step_with(**changed):
    """An E-step with other weights or covariances."""

    def call(x, weights, means, covariances):
        given = {"weights": weights, "means": means, "covariances": covariances}
        given.update({name: f(given[name]) for name, f in changed.items()})
        return sklearn_e_step(x, *given.values())

    return call


def naive_e_step(x, *parameters):
    with np.errstate(all="ignore"):
        joint = np.exp(sklearn_log_joint(x, *parameters))
        return joint / joint.sum(axis=1, keepdims=True)


def smoothed_e_step(x, *parameters):
    joint = np.exp(sklearn_log_joint(x, *parameters)) + 1e-12
    return joint / joint.sum(axis=1, keepdims=True)


def table_with(log_p):
    return lambda joint, q: (q * log_p(joint, q)).sum(axis=1)


def tilted_posterior(x, W, mean, s2):
    means, covariance = posterior_by_precision(x, W, mean, s2)
    return means + 1e-9, covariance


def std_of(f):
    return lambda m, v, xi: m + f(v) * xi


WRONG = [
    ("kl", lambda p, q: np.sum(q * np.log(q / p)), "the arguments are swapped"),
    ("kl", lambda p, q: -np.sum(p * np.log(q)), "the entropy of p is not subtracted"),
    ("kl", lambda p, q: np.sum(p * np.log2(p / q)), "in bits"),
    ("kl", lambda p, q: np.mean(p * np.log(p / q)), "a mean over the table"),
    ("kl", lambda p, q: np.abs(p * np.log(p / q)).sum(), "in absolute value"),
    ("kl", lambda p, q: np.sum((p - q) * np.log(p / q)), "KL(p‖q) + KL(q‖p)"),
    ("kl", lambda p, q: np.sum(p * np.log(p / (q + 1e-8))), "1e-08 is added to q inside the logarithm"),
    ("gaussian kl", lambda m, S, n, R: kl_solve(n, R, m, S), "swapped"),
    ("gaussian kl", lambda m, S, n, R: kl_solve(m, S, n, R) + 0.5 * len(m), "D is not subtracted"),
    ("gaussian kl", lambda m, S, n, R: kl_solve(m, S @ S, n, R @ R), "the covariances are squared"),
    ("gaussian kl", lambda m, S, n, R: kl_solve(m, np.linalg.inv(S), n, np.linalg.inv(R)), "read as precisions"),
    ("gaussian kl", lambda m, S, n, R: kl_solve(m, S, n, R) / len(m), "divided by D"),
    ("gaussian kl", lambda m, S, n, R: kl_solve(m, np.diag(np.diagonal(S)), n, np.diag(np.diagonal(R))), "diagonals"),
    ("gaussian kl", lambda m, S, n, R: 2 * kl_solve(m, S, n, R), "the ½ is missing"),
    ("diagonal kl", on_result(right_kl, lambda kl: 2 * kl), "the ½ of the KL is missing"),
    ("diagonal kl", on_result(right_kl, lambda kl: -kl), "the KL has the wrong sign"),
    ("diagonal kl", on_result(right_kl, lambda kl: kl / 3), "averaged over the latent dimensions"),
    ("diagonal kl", on_result(right_kl, lambda kl: np.full(5, kl.mean())), "averaged over the examples"),
    ("diagonal kl", on_result(right_kl, np.mean), "has shape (2,), expected (2, 5)"),
    ("diagonal kl", kl_with(np.exp, lambda v: (v / 2) ** 2), "(log σ)² stands for log σ²"),
    ("diagonal kl", kl_with(lambda v: np.exp(v / 2), lambda v: v / 2), "σ stands where σ² belongs"),
    ("diagonal kl", kl_with(lambda v: np.exp(2 * v), lambda v: 2 * v), "log σ² is read as log σ"),
    ("diagonal kl", kl_with(lambda v: v**2, lambda v: np.log(v**2)), "log σ² is read as σ "),
    ("diagonal kl", kl_with(np.exp, lambda v: -v), "log σ² is added"),
    ("diagonal kl", lambda m, v: 0.5 * ((1 + m**2) * np.exp(-v) - 1 + v).sum(axis=1), "the KL is reversed"),
    ("bins with tails", plain_bins, "difference of two Φ, and small masses are clamped"),
    ("bins with tails", lambda *a: np.maximum(bin_masses(*a, 17), np.log(1e-12)), "small masses are clamped"),
    ("bins with tails", lambda *a: plain_bins(*a, least=0.0), "is -inf"),
    ("bins", lambda *a: np.log(np.exp(bin_masses(*a, 17)) + 1e-9), NAMELESS),
    ("bins", lambda level, mean, std: bin_masses(level, mean, std**2, 17), "std² stands where std belongs"),
    ("bins", lambda *a: bin_masses(*a, 17) + np.log(8), "twice the right value|no known mistake"),
    ("posterior table", lambda joint: (joint / joint.sum(axis=0), joint.sum(axis=1)), "normalised over x"),
    ("posterior table", lambda joint: (joint / (joint.sum(axis=1, keepdims=True) + 1e-9), joint.sum(axis=1)), NAMELESS),
    ("posterior table", lambda joint: (POSTERIOR, joint.sum(axis=0).repeat(2)[:4]), NAMELESS),
    ("posterior table", lambda joint: (POSTERIOR, joint.mean(axis=1)), "the mean over z"),
    ("posterior kl", table_with(lambda joint, q: np.log(q / joint)), "it is −ELBO"),
    ("posterior kl", table_with(lambda joint, q: np.log(q / joint.sum(axis=0))), "the KL to the prior"),
    ("elbo", table_with(lambda joint, q: np.log(joint)), "the entropy of q is missing"),
    ("elbo", table_with(lambda joint, q: np.log(joint * q)), "the entropy of q has the wrong sign"),
    ("elbo", lambda joint, q: np.log(joint.sum(axis=1)), "E_q stands under the logarithm"),
    ("elbo", on_result(table_elbo, lambda elbo: -elbo), "−ELBO"),
    ("elbo", on_result(table_elbo, lambda elbo: np.full(4, elbo.mean())), "averaged over x"),
    ("split elbo", lambda d, p, q: (q * np.log(d)).sum(axis=1), "the KL is missing"),
    (
        "split elbo",
        lambda d, p, q: np.log((q * d).sum(axis=1)) - (q * np.log(q / p)).sum(axis=1),
        "E_q stands under the logarithm",
    ),
    ("joint kl", lambda p, q, d, prior: -p @ table_elbo(d * prior, q), "it is (13)"),
    ("joint kl", lambda p, q, d, prior: p @ np.log(p / (d @ prior)), "the marginal KL"),
    ("joint kl", lambda p, q, d, prior: (p[:, None] * q * np.log(p[:, None] * q / d)).sum(), "the prior is missing"),
    ("joint kl", lambda p, q, d, prior: np.mean(np.log(p) - table_elbo(d * prior, q)), NAMELESS),
    ("objective", lambda p, q, d, prior: -table_elbo(d * prior, q).mean(), "without p(x)"),
    ("objective", lambda p, q, d, prior: p @ (np.log(p) - table_elbo(d * prior, q)), "it is (12)"),
    ("objective", lambda p, q, d, prior: p @ table_elbo(d * prior, q), "it is the ELBO"),
    ("posterior", lambda x, W, m, s2: posterior_by_precision(x + m, W, m, s2), "μ is not subtracted"),
    ("posterior", lambda x, W, m, s2: posterior_by_precision(x, W, m, s2**0.5), "σ stands where σ² belongs"),
    ("posterior", part(posterior_by_precision, 1, lambda C, x, W, m, s2: C / s2), "σ² is missing"),
    ("posterior", part(posterior_by_precision, 1, lambda C, *a: np.linalg.cholesky(C)), "a factor L"),
    ("posterior", part(posterior_by_precision, 1, lambda C, *a: np.diag(np.diagonal(C))), "only its diagonal"),
    (
        "posterior",
        part(posterior_by_precision, 0, lambda z, x, W, m, s2: (x - m) @ np.linalg.pinv(W).T),
        "least squares",
    ),
    ("posterior", tilted_posterior, NAMELESS),
    ("linear elbo", lambda x, W, m, s2, a, V: elbo_by_terms(x, W, m, s2, a, 0 * V + 1e-300 * np.eye(3)), NAMELESS),
    ("linear elbo", lambda *a: -elbo_by_terms(*a), "−ELBO"),
    ("linear elbo", lambda x, W, m, s2, a, V: elbo_by_terms(x, W, m, s2**0.5, a, V), "σ stands where σ² belongs"),
    (
        "linear elbo",
        lambda x, W, m, s2, a, V: elbo_by_terms(x, W, m, s2, a, V) + 0.5 * np.trace(W @ V @ W.T) / s2,
        "tr W V Wᵀ is missing",
    ),
    (
        "linear elbo",
        lambda x, W, m, s2, a, V: elbo_by_terms(x, W, m, s2, a, V) + 2 * np.log(2 * np.pi * s2),
        "the constant (D/2) log 2πσ² is missing",
    ),
    ("mean field", part(mean_field, 1, lambda v, *a: np.diagonal(posterior_by_precision(*a)[1])), "reversed KL"),
    ("mean field", part(mean_field, 1, lambda v, *a: np.sqrt(v)), "they are standard deviations"),
    ("mean field", part(mean_field, 0, lambda z, x, W, m, s2: mean_field(x + m, W, m, s2)[0]), "μ is not subtracted"),
    (
        "loss",
        vae(lambda r, D, s: right_nll(r, D, s) / D, right_kl),
        "−log p_θ(x | z) is averaged over the D dimensions",
    ),
    ("loss", vae(lambda r, D, s: r / D, right_kl), "the reconstruction is the mean of squares (MSE)"),
    (
        "loss",
        vae(lambda r, D, s: r / D, lambda m, v: right_kl(m, v) / 3),
        "the reconstruction is the mean of squares (MSE); the KL is averaged over the latents, not summed",
    ),
    ("loss", vae(lambda r, D, s: r / 2, right_kl), "half the sum of squares: s² = 1 and no constant"),
    ("loss", vae(lambda r, D, s: r, lambda m, v: -right_kl(m, v)), "plain sum of squares; the KL has the wrong sign"),
    ("loss", vae(lambda r, D, s: r / (2 * np.exp(s)), right_kl), "the constant (D/2) log 2πs² is missing"),
    ("loss", vae(lambda r, D, s: right_nll(r, D, s / 2), right_kl), "s stands where s² belongs, in the constant too"),
    ("loss", vae(lambda r, D, s: right_nll(r, D, 2 * s), right_kl), "s² is squared"),
    ("loss", vae(lambda r, D, s: right_nll(r, 1, s), right_kl), "the constant is not multiplied by D"),
    ("loss", vae(right_nll, lambda m, v: 0.5 * right_kl(m, v)), "the KL is halved"),
    ("loss", vae(right_nll, lambda m, v: 0 * right_kl(m, v)), "the KL is missing"),
    ("loss", vae(right_nll, lambda m, v: 4 * right_kl(m, v)), "; the KL is multiplied by 4"),
    (
        "loss",
        vae(lambda r, D, s: r / D, lambda m, v: 0.00025 * right_kl(m, v)),
        "the reconstruction is the mean of squares (MSE); the KL is multiplied by 0.00025",
    ),
    ("loss", vae(right_nll, kl_with(np.exp, lambda v: (v / 2) ** 2)), "(log σ)² stands for log σ²"),
    ("loss", vae(right_nll, kl_with(lambda v: np.exp(v / 2), lambda v: v / 2)), "σ stands where σ² belongs in the KL"),
    ("loss", vae(right_nll, kl_with(lambda v: v**2, lambda v: np.log(v**2))), "log σ² is read as σ in the KL"),
    ("loss", vae(right_nll, lambda m, v: np.full(5, right_kl(m, v).mean())), "the KL is averaged over the batch"),
    ("loss", vae(lambda r, D, s: np.full(5, right_nll(r, D, s).mean()), right_kl), NAMELESS),
    ("loss", on_result(nll_plus_kl, lambda loss: np.full(5, loss.mean())), "it is averaged over the batch"),
    ("loss", on_result(nll_plus_kl, np.mean), "has shape (8,), expected (8, 5)"),
    ("loss", on_result(nll_plus_kl, lambda loss: loss[::-1]), NAMELESS),
    ("loss", on_result(nll_plus_kl, lambda loss: loss + 1e-11), NAMELESS),
    ("draw", std_of(np.exp), "exp(log σ²) for exp(½ log σ²)"),
    ("draw", std_of(lambda v: v), "an exponential is missing"),
    ("draw", std_of(lambda v: 0.01 * np.exp(v / 2)), "the noise is multiplied by 0.01"),
    ("draw", std_of(lambda v: -np.exp(v / 2)), "the noise is multiplied by -1"),
    ("draw", lambda m, v, xi: m, "the noise is left out"),
    ("draw", lambda m, v, xi: m + np.exp(v / 2), "the constant 1 stands in the place of the noise"),
    ("draw", lambda m, v, xi: m + np.exp(v / 2) * xi[:, :1], "all latents share one noise"),
    ("draw", lambda m, v, xi: m + np.exp(v / 2) * xi[:1], "all examples share one noise"),
    ("draw", lambda m, v, xi: m + np.exp(v / 2) * np.random.default_rng(0).standard_normal(m.shape), NAMELESS),
    ("draw", lambda m, v, xi: m + np.log1p(np.exp(v)) * xi, "a softplus"),
    ("iwae", lambda w: w.mean(axis=0), "an ELBO"),
    ("iwae", lambda w: w[0], "only the first draw is used"),
    ("iwae", lambda w: w[-1], "only the last draw is used"),
    ("iwae", lambda w: special.logsumexp(w, axis=0), "log n is not subtracted"),
    ("iwae", lambda w: special.logsumexp(w, axis=0) / len(w), "divided by n outside the logarithm"),
    ("iwae", lambda w: -special.logsumexp(-w, axis=0) + np.log(len(w)), "−log of the mean of 1/w"),
    ("iwae", lambda w: (softmax(w, axis=0) * w).sum(axis=0), "weighted by w"),
    ("iwae", lambda w: np.exp(w).mean(axis=0), "the logarithm is missing"),
    (
        "iwae",  # unequal weights: E exp(bound) = p(x) holds for them
        lambda w: special.logsumexp(
            w, b=(np.arange(1.0, len(w) + 1) / np.arange(1.0, len(w) + 1).sum())[:, None], axis=0
        ),
        NAMELESS,
    ),
    ("free m-step", part(free_m_step, 0, lambda d, p, q: p[:, None] * q), "q(z) is not divided out"),
    ("free m-step", part(free_m_step, 0, lambda d, p, q: q / q.sum(axis=0)), "p(x) is missing"),
    ("free m-step", part(free_m_step, 1, lambda a, p, q: q.mean(axis=0)), "averaged without p(x)"),
    ("e-step", e_step_with(weights=lambda w: np.ones(3)), "the mixing weights are missing"),
    ("e-step", e_step_with(covariances=lambda C: C @ C), "the covariances are squared"),
    ("e-step", e_step_with(covariances=np.linalg.inv), "read as precisions"),
    ("e-step", e_step_with(covariances=lambda C: C * np.eye(2)), "only the diagonals"),
    ("e-step", lambda *a: np.exp(sklearn_log_joint(*a)), "they are not normalised"),
    ("e-step", lambda *a: sklearn_e_step(*a) / sklearn_e_step(*a).sum(axis=0), NAMELESS),
    ("e-step", lambda *a: softmax(sklearn_log_joint(*a), axis=0), "it is normalised over the examples"),
    ("e-step", lambda *a: np.eye(3)[sklearn_log_joint(*a).argmax(axis=1)], "a hard assignment"),
    ("e-step", naive_e_step, "take the softmax of logarithms) is nan|take the softmax of logarithms"),
    ("e-step", smoothed_e_step, NAMELESS),
    ("free energy", lambda x, q, *p: (np.exp(q) * sklearn_log_joint(x, *p)).sum(axis=1), "the entropy of q is missing"),
    ("free energy", lambda x, q, *p: special.logsumexp(sklearn_log_joint(x, *p), axis=1), "it is log p_θ(x)"),
    ("free energy", on_result(free_energy, lambda f: -f), "it is the loss"),
    ("free energy", on_result(free_energy, lambda f: np.full(6, f.mean())), "averaged over the examples"),
    ("free energy", lambda x, q, w, m, C: free_energy(x, q, np.ones(3), m, C), "the mixing weights are missing"),
    ("em", em_with(lambda r, *a: np.eye(3)[r.argmax(axis=1)]), "a hard assignment"),
    ("em", em_with(lambda r, x, w, m, C: e_step_with(weights=lambda w: np.ones(3))(x, w, m, C)), "weights are missing"),
    ("em", em_with(change=lambda a, x, w, *rest: (w, *a[1:])), "mixing weights are never updated"),
    ("em", em_with(change=lambda a, x, *rest: (a[0] * len(x), *a[1:])), "they are not normalised"),
    ("em", em_with(change=lambda a, *rest: (a[0], a[1] * a[0][:, None], a[2])), "divided by N, not by N_k"),
    ("em", covariances_with(lambda x, r, new, old: moments_about(x, r, old, r.sum(axis=0))), "about the old means"),
    ("em", covariances_with(lambda x, r, new, old: moments_about(x, r, new, len(x))), "divided by N, not by N_k"),
    ("em", covariances_with(lambda x, r, new, old: moments_about(x, r, new, r.sum(axis=0) - 1)), "N_k − 1"),
    ("em", covariances_with(lambda x, r, new, old: moments_about(x, r, new, len(x) - 1)), "by N − 1, not by N_k"),
    ("em", covariances_with(lambda x, r, new, old: moments_about(x, r, new, len(x) - 2)), NAMELESS),
    ("em", covariances_with(lambda x, r, new, old: moments_about(x, r, new, 1.0)), "not divided by N_k"),
    ("em", covariances_with(lambda x, r, new, old: moments_about(x, r, 0 * new, r.sum(axis=0))), "moments about 0"),
    ("em", em_with(change=lambda a, *rest: (*a[:2], np.sqrt(np.abs(a[2])))), "they are standard deviations"),
    ("em", em_with(change=lambda a, *rest: (*a[:2], a[2] + 1e-6 * np.eye(2))), "a ridge of 1e-06"),
    ("em", em_with(change=lambda a, *rest: (*a[:2], a[2] * np.eye(2))), "they are of the type “diag”, not “full”"),
    ("diag em", em_with(), "they are of the type “full”, not “diag”"),
    (
        "tied em",
        em_with(change=lambda a, *rest: (*a[:2], np.tile(a[2].mean(axis=0), (3, 1, 1)))),
        "the plain average of the components",
    ),
    (
        "spherical em",
        em_with(change=lambda a, *rest: (*a[:2], a[2].trace(axis1=1, axis2=2)[:, None, None] * np.eye(2))),
        "the traces, not divided by D",
    ),
    ("ppca step", part(ppca_step, 1, lambda v, S, W, s2: 4 * v), "not divided by D"),
    ("ppca step", part(ppca_step, 0, lambda new, S, W, s2: W), "the old W"),
    ("ppca step", part(ppca_step, 1, lambda v, S, W, s2: np.sqrt(v)), "it is σ, not σ²"),
    ("ppca maximum", part(ppca_maximum, 1, lambda s2, S, k: s2 * (4 - k)), "the sum of the discarded eigenvalues"),
    ("ppca maximum", part(ppca_maximum, 1, lambda s2, S, k: s2 * (4 - k) / 4), "averaged over all D"),
    (
        "ppca maximum",
        part(ppca_maximum, 0, lambda W, S, k: W * np.sqrt(1 + ppca_maximum(S, k)[1] / (W**2).sum(axis=0))),
        "σ² is not subtracted in W",
    ),
    (
        "factor analysis",
        part(factor_analysis_step, 1, lambda v, *a: np.full(4, v.mean())),
        "one number for all dimensions",
    ),
    ("factor analysis", part(factor_analysis_step, 0, lambda new, S, W, v: W), "the old W"),
    ("factor analysis", part(factor_analysis_step, 1, lambda new, S, W, v: np.diagonal(S)), "the variance of x"),
]


@pytest.mark.parametrize(
    ("name", "f", "sentence"), WRONG, ids=[f"{n}-{s[:30]}-{i}" for i, (n, _, s) in enumerate(WRONG)]
)
def test_a_mistake_fails_and_is_named(name, f, sentence):
    with np.errstate(all="ignore"):
        check = CHECKS[name](f)
    assert not check
    assert any(text in check.diagnosis for text in sentence.split("|")), check.diagnosis


def mistakes_of(name):
    """(quantity, right, tolerance, sentence, value) of every mistake that a check knows."""
    found = []

    def record(original, check, equation, quantity, left, right, tolerance, mistakes=None, *more, **options):
        with np.errstate(all="ignore"):
            for sentence, value in (mistakes or {}).items():
                found.append((quantity, np.asarray(right), tolerance, sentence, np.asarray(value())))
        return original(check, equation, quantity, left, right, tolerance, mistakes, *more, **options)

    with planted("conformance.result.compare", record):
        assert CHECKS[name](next(f for other, f in RIGHT if other == name))
    return found


# Mistakes with a number that is fitted to left, of rounding only, of another shape, without effect at a floor of 0, or
# the same for tied covariances.
NOT_FIXED = re.compile(
    r"clamped to|is multiplied by|clipped to|the constant .* in the place|^a ridge of|the sum over x,|no digits|"
    r"the floor is|x is ignored"
)


@pytest.mark.parametrize("name", CHECKS)
def test_every_known_mistake_has_numbers_of_its_own(name):
    """They have the shape of the right side, and differ from it and from each other.

    In the moments of EM, responsibilities that differ by a factor per component are the same.
    """
    known = [mistake for mistake in mistakes_of(name) if not NOT_FIXED.search(mistake[3])]
    sentences = {}
    assert known
    for quantity, right, tolerance, sentence, value in known:
        assert value.shape in (right.shape, ()), sentence
        assert not np.allclose(value, right, rtol=10 * tolerance, atol=10 * tolerance), sentence
        if np.isfinite(value).all() and "in the E-step it is normalised over the examples" not in sentence:
            other = sentences.setdefault((quantity, (np.round(value.astype(float), 10) + 0.0).tobytes()), sentence)
            assert other == sentence


def at_each_part(change):
    return lambda value: tuple(map(change, value)) if isinstance(value, tuple) else change(value)


BAD = {
    "a scalar": lambda value: 0.0,
    "nothing": lambda value: None,
    "an empty array": lambda value: np.zeros(0),
    "a text": lambda value: "no",
    "a ragged list": lambda value: [1, [2, 3]],
    "an axis more": at_each_part(lambda part: np.zeros((*np.shape(part), 1))),
    "NaN": at_each_part(lambda part: part * np.nan),
    "infinity": at_each_part(lambda part: 0 * part + np.inf),
    "zeros": at_each_part(lambda part: 0 * part),
    "huge numbers": at_each_part(lambda part: 1e200 * part),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", CHECKS)
def test_a_result_of_another_kind_fails_or_is_refused_by_name(name, bad):
    """No error from inside NumPy, and no warning."""
    f = next(f for other, f in RIGHT if other == name)
    try:
        check = CHECKS[name](lambda *arguments: BAD[bad](f(*arguments)))
    except (TypeError, ValueError) as error:
        assert "must return" in str(error)  # noqa: PT017
    else:
        assert not check


SEEN = {  # relative errors that earlier tolerances let pass
    "kl": 1e-12,
    "gaussian kl": 1e-11,
    "diagonal kl": 5e-13,
    "bins": 2e-12,
    "posterior table": 2e-13,
    "posterior kl": 5e-13,
    "elbo": 5e-13,
    "split elbo": 5e-13,
    "joint kl": 1e-12,
    "objective": 5e-13,
    "posterior": 1e-11,
    "linear elbo": 1e-11,
    "mean field": 1e-11,
    "loss": 5e-13,
    "draw": 5e-13,
    "iwae": 5e-13,
    "free m-step": 5e-13,
    "e-step": 1e-11,
    "free energy": 1e-11,
    "em": 2e-11,
    "ppca step": 1e-11,
    "ppca maximum": 1e-11,
    "factor analysis": 1e-11,
}


@pytest.mark.parametrize("name", SEEN)
def test_a_small_relative_error_is_seen_too(name):
    def scaled(*arguments):
        value = f(*arguments)
        if isinstance(value, tuple):
            return tuple((1 + SEEN[name]) * part for part in value)
        return (1 + SEEN[name]) * value

    f = next(f for other, f in RIGHT if other == name)
    assert not CHECKS[name](scaled)
    assert CHECKS[name](f)


@pytest.mark.parametrize("name", CHECKS)
def test_a_callable_of_another_arity_is_told_the_right_one(name):
    with pytest.raises(TypeError, match=r"^(\w+) must be callable as \1\("):
        CHECKS[name](lambda a, b, c, d, e, f, g: 0.0)


# --- wrong arguments, far problems, and the helpers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: c.check_kl(np.dot, [1.0], [1.0]), "p and q must both be"),
        (lambda: c.check_kl(np.dot, [0.5, 0.5], [0.2, 0.3, 0.5]), "p and q must both be"),
        (lambda: c.check_vae_objective(lambda *a: 0.0, P, Q, DECODER, 2 * PRIOR), "prior must sum to 1"),
        (lambda: c.check_vae_objective(lambda *a: 0.0, 2 * P, Q, DECODER, PRIOR), "p_x must sum to 1"),
        (lambda: c.check_vae_objective(lambda *a: 0.0, P, Q / 2, DECODER, PRIOR), "q must sum to 1"),
        (lambda: c.check_joint_kl(lambda *a: 0.0, P, Q, DECODER, [0.5, 0.5]), "q, decoder and prior must be"),
        (lambda: c.check_importance_weighted_bound(len, JOINT, 2 * Q), "q must sum to 1"),
        (
            lambda: c.check_reparameterisation(lambda *a: 0.0, Q_MEAN, LOG_VARIANCE, Q_MEAN[:1]),
            "mean, log_variance and noise must",
        ),
        (lambda: c.check_free_energy(free_energy, POINTS, LOG_RESP + 1, *PARAMETERS), r"exp\(log_resp\) must sum to 1"),
        (lambda: c.check_em(em_with(), BLOBS, *PARAMETERS, covariance_type="round"), "covariance_type must be one of"),
    ],
)
def test_misuse_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.parametrize("noise_variance", [1e-4, 1e-8, 1e-10])
def test_a_small_noise_variance_costs_the_right_sides_no_digits(noise_variance):
    """Through W Wᵀ + σ² I the right side lost 77 nats at 1e-10."""
    loadings, x = waves(4, 3), waves(5, 3) @ waves(4, 3).T + noise_variance**0.5 * waves(5, 4, shift=1.0)
    zero = np.zeros(4)
    check = c.check_linear_gaussian_elbo(elbo_by_terms, x, loadings, zero, noise_variance, waves(5, 3), 0.3 * np.eye(3))
    assert check, check
    means = x @ np.linalg.pinv(loadings).T  # the posterior's to order σ²
    found, R, log_prob, _ = by_regression(x, loadings, zero, noise_variance)
    assert np.abs(found - means).max() < 30 * noise_variance * np.abs(means).max()
    exact = [gaussian_by_woodbury(row, loadings, noise_variance) for row in x]
    assert np.abs(log_prob - exact).max() < 1e-6
    assert np.abs(R.T @ R * noise_variance - loadings.T @ loadings).max() < 2 * noise_variance + 1e-12


def gaussian_by_woodbury(x, loadings, noise_variance):
    """log N(x; 0, W Wᵀ + σ² I) with the part of x inside the span of W from its coordinates there."""
    U, s, _ = np.linalg.svd(loadings)
    y, variances = U.T @ x, np.append(s**2, 0.0) + noise_variance
    return -0.5 * (len(x) * math.log(2 * math.pi) + np.log(variances).sum() + (y**2 / variances).sum())


def test_the_kl_of_one_table_has_its_minimum_where_the_means_agree():
    """A divergence with the right zero but another minimum over the family fails at the argmin."""
    check = c.check_kl(lambda p, q: np.sum(p * np.log(p / q)), P, P2)
    assert check
    squared = c.check_kl(lambda p, q: np.sum((p - q) ** 2), P, P2)
    assert not squared


def test_networks_with_another_activation_are_named():
    layers = [(waves(3, 4), waves(4)), (waves(4, 2, shift=1.0), waves(2))]
    for activation, sentence in (("relu", "ReLU"), ("gelu", "GELU"), ("tanh", "tanh"), ("sigmoid", "sigmoid")):
        check = c.check_mlp(lambda x, a=activation: printed_mlp(x, layers, a), layers, waves(6, 3))
        assert sentence in check.diagnosis
    assert c.check_mlp(lambda x: printed_mlp(x, layers), layers, waves(6, 3))


def test_the_derivative_of_a_network_in_float32_is_judged_at_its_precision():
    layers = [(waves(3, 4), waves(4)), (waves(4, 2, shift=1.0), waves(2))]
    x, v = waves(6, 3), waves(6, 3, shift=2.0)

    def call(x, dtype=np.float32):
        return printed_mlp(x.astype(dtype), [(w.astype(dtype), b.astype(dtype)) for w, b in layers]).astype(dtype)

    def jvp(x, v):
        z = x @ layers[0][0] + layers[0][1]
        s = special.expit(z)
        slope = s + z * s * (1 - s)
        derivative = (slope * (v @ layers[0][0])) @ layers[1][0]
        return call(x), derivative.astype(np.float32)

    assert c.check_jvp(jvp, call, x, v).at(1e-5)
    assert not c.check_jvp(lambda x, v: (jvp(x, v)[0], 1.001 * jvp(x, v)[1]), call, x, v).at(1e-5)


def test_rounding_is_64_machine_epsilons_times_the_condition_number_within_bounds():
    assert rounding(1.0) == 5e-14
    assert rounding([2.0, 1e6]) == pytest.approx(64 * 2.0**-52 * 1e6)
    assert rounding(np.inf) == 1e-4


def test_argmin_leaves_out_candidates_that_float32_cannot_order():
    exact = np.array([[0.0, 1.0], [1e-7, 0.0], [1.0, 3.0]])
    noisy = exact + np.array([[1e-6, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert argmin(noisy, exact, (5, 6, 7)).tolist() == [5, 6]
    assert argmin(-exact, exact, (5, 6, 7)).tolist() == [7, 7]


# --- an entry with many digits beside one with few ----------------------------------------------------------------


def test_an_entry_with_many_digits_is_judged_by_them_beside_one_with_few():
    """The tolerance was that of the worst entry; a mistake far above the rounding of the others passed."""
    rng = np.random.default_rng(0)
    mean, log_variance = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    log_variance[5] = -3e4  # log σ² of this example loses four digits more

    def kl(mean, log_variance, error=0.0):
        value = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
        value[0] *= 1 + error
        return value

    assert c.check_diagonal_kl(kl, mean, log_variance)
    assert not c.check_diagonal_kl(partial(kl, error=1e-12), mean, log_variance)

    def log_mass(level, mean, std, error=0.0):
        value = log_bin_mass(level, mean, std, 17)
        value[8, 0] *= 1 + error
        return value

    means = np.array([0.01, -0.4, 3e4])
    assert c.check_bin_masses(log_mass, 17, means, 0.3)
    assert not c.check_bin_masses(partial(log_mass, error=1e-11), 17, means, 0.3)
