"""Checks of equations (15)-(18): the two steps of EM, for tables, Gaussian mixtures and PPCA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, parts, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.variational import condition
from scratchgen.validation import Array

# --- tables and mixtures ---------------------------------------------------------------------------------------------


@takes_arrays
def check_free_m_step(m_step: Callable[..., tuple[ArrayLike, ArrayLike]], p_x: Array, q: Array, prior: Array) -> Check:
    """(15): over all tables the best p_θ(x | z) leaves the joint KL at KL(q(z)‖prior), the mirror of the chain rule.

    m_step(p_x, q) → (p_θ(x | z) (X, Z), q(z) (Z,)).
    """
    as_probabilities(p_x, "p_x")
    as_probabilities(q, "q", axis=1)
    decoder, aggregate = parts(m_step(p_x, q), 2, "m_step")
    joint = p_x[:, None] * q
    exact = joint.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        joint_kl = (joint * np.log(joint / (decoder * prior))).sum()
    return worst(
        compare(
            "check_free_m_step",
            "(15)",
            "q(z)",
            aggregate,
            exact,
            1e-12,
            {"x is averaged without p(x)": lambda: q.mean(axis=0)},
        ),
        compare(
            "check_free_m_step",
            "(15)",
            "p_θ(x | z)",
            decoder,
            joint / exact,
            1e-12,
            {
                "it is normalised over z": lambda: joint / joint.sum(axis=1, keepdims=True),
                "p(x) is missing": lambda: q / q.sum(axis=0),
                "it is the joint: q(z) is not divided out": lambda: joint,
            },
        ),
        compare(
            "check_free_m_step",
            "(15)",
            "the joint KL after the step",
            joint_kl,
            (exact * np.log(exact / prior)).sum(),
            1e-11,
        ),
    )


def log_joint_by_inverses(x: Array, weights: Array, means: Array, covariances: Array) -> Array:
    """log w_k N(x_n; m_k, C_k), (N, K), by inverses and determinants, for complex x too; −inf where w_k is 0."""
    columns = []
    for w, m, C in zip(weights, means, covariances, strict=True):
        quadratic = np.einsum("nd,de,ne->n", x - m, np.linalg.inv(C), x - m)
        log_weight = np.log(w) if w > 0 else -np.inf
        columns.append(log_weight - 0.5 * (x.shape[1] * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + quadratic))
    return np.stack(columns, axis=1)


def _log_sum(log_joint: Array, axis: int = 1) -> Array:
    top = log_joint.max(axis=axis, keepdims=True)
    return top + np.log(np.exp(log_joint - top).sum(axis=axis, keepdims=True))


def _normalised(log_joint: Array, axis: int = 1) -> Array:
    joint = np.exp(log_joint - log_joint.max(axis=axis, keepdims=True))
    return joint / joint.sum(axis=axis, keepdims=True)


@takes_arrays
def check_e_step(
    responsibilities: Callable[..., ArrayLike], x: Array, weights: Array, means: Array, covariances: Array
) -> Check:
    """(16), (18): q(z | x) = p_θ(z | x), (N, K), for responsibilities(x, weights, means, covariances)."""
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    log_det = np.linalg.slogdet(covariances)[1]
    best = _normalised(log_joint)
    return compare(
        "check_e_step",
        "(18)",
        "p_θ(z | x)",
        responsibilities(x, weights, means, covariances),
        best,
        1e-9,
        {
            "the mixing weights are missing": lambda: _normalised(log_joint - np.log(weights)),
            "the log-determinants are missing": lambda: _normalised(log_joint + 0.5 * log_det),
            "the ½ of the log-determinants is missing": lambda: _normalised(log_joint - 0.5 * log_det),
            "it is 0 or 1: a hard assignment": lambda: np.eye(len(weights))[best.argmax(axis=1)],
            "it is normalised over the examples": lambda: _normalised(log_joint, axis=0),
        },
    )


@takes_arrays
def check_free_energy(
    free_energy: Callable[..., ArrayLike],
    x: Array,
    log_resp: Array,
    weights: Array,
    means: Array,
    covariances: Array,
) -> Check:
    """(17): E_q[log p_θ(x, z) − log q] = log p_θ(x) − KL(q‖p_θ(z | x)) of every x, (N,), and log p_θ(x) at (18).

    free_energy(x, log_resp (N, K), weights, means, covariances).
    """
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    log_prob = _log_sum(log_joint)[:, 0]
    log_posterior = log_joint - log_prob[:, None]
    resp = np.exp(log_resp)
    kl = (resp * (log_resp - log_posterior)).sum(axis=1)
    parameters = (weights, means, covariances)
    return compare(
        "check_free_energy",
        "(17)",
        "E_q[log p_θ(x, z) − log q] at q and at the posterior",
        [np.asarray(free_energy(x, log_resp, *parameters)), np.asarray(free_energy(x, log_posterior, *parameters))],
        [log_prob - kl, log_prob],
        1e-9,
        {
            "the entropy of q is missing": lambda: [
                (resp * log_joint).sum(axis=1),
                (np.exp(log_posterior) * log_joint).sum(axis=1),
            ],
            "the KL is added": lambda: [log_prob + kl, log_prob],
        },
    )


def _floored(covariance: Array, floor: float) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, floor)) @ vectors.T


@takes_arrays
def check_em(
    step: Callable[..., tuple[ArrayLike, ArrayLike, ArrayLike]],
    x: Array,
    weights: Array,
    means: Array,
    covariances: Array,
    floor: float = 0.0,
    n_iterations: int = 6,
) -> Check:
    """(15)-(18): a step is the maximiser of E_p E_q log p_θ(x, z) with q frozen, and the log-likelihood never falls.

    Monotony alone would pass a step that leaves the mixing weights as they were.  A component however far away has its
    moments from the ratios of its responsibilities, which logarithms keep where the numbers underflow.

    Parameters
    ----------
    step : callable
        step(x, weights, means, covariances) → (weights (K,), means (K, D), covariances (K, D, D)), one E- and M-step.
    floor : float
        The least eigenvalue that `step` allows a covariance; the constrained maximum raises eigenvalues to it.
    n_iterations : int
        Steps over which the likelihood is followed.
    """
    as_probabilities(weights, "weights")
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    resp = _normalised(log_joint)
    counts = resp.sum(axis=0)
    shares = _normalised(log_joint - _log_sum(log_joint), axis=0)  # of each point in a component, however far it is

    def spread_about(centres: Array) -> Array:
        apart = x[:, None] - centres
        return np.einsum("nk,nkd,nke->kde", shares, apart, apart)

    best_means = shares.T @ x
    spread = spread_about(best_means)
    best_covariances = np.array([_floored(C, floor) for C in spread])
    # Compared in units of the components' own size, so that neither small nor large data pass by their scale.
    variance = np.abs(best_covariances).max()
    length = max(np.sqrt(variance), np.abs(best_means).max())
    ahead = parts(step(x, weights, means, covariances), 3, "step")
    checks = [
        compare(
            "check_em",
            "(15)",
            "the weights after a step",
            ahead[0],
            counts / len(x),
            1e-9,
            {
                "they are the old ones: mixing weights are never updated": lambda: weights,
                "they are not normalised": lambda: counts,
                "they are equal": lambda: np.full(len(counts), 1 / len(counts)),
            },
        ),
        compare("check_em", "(15)", "the means after a step, in units", ahead[1] / length, best_means / length, 1e-9),
    ]
    ridge = float(np.trace(ahead[2][0] - spread[0])) / x.shape[1] if ahead[2].shape == spread.shape else 0.0
    checks.append(
        compare(
            "check_em",
            "(15)",
            "the covariances after a step, in units",
            ahead[2] / variance,
            best_covariances / variance,
            1e-9,
            {
                "the floor is not applied": lambda: spread / variance,
                f"a ridge of {ridge:.3g} is added to them: that maximises nothing fixed": lambda: (
                    (spread + ridge * np.eye(x.shape[1])) / variance
                ),
                "they are taken about the old means": lambda: spread_about(means) / variance,
                "they are divided by N_k − 1": lambda: spread * (counts / (counts - 1))[:, None, None] / variance,
                "they are shared by all components": lambda: np.einsum("k,kde->de", counts / len(x), spread) / variance,
            },
        )
    )
    if all(check.passed for check in checks):
        state, log_likelihoods = (weights, means, covariances), []
        for _ in range(n_iterations + 1):
            log_likelihoods.append(float(_log_sum(log_joint_by_inverses(x, *state)).sum()))
            state = tuple(parts(step(x, *state), 3, "step"))  # type: ignore[assignment]
        values = np.array(log_likelihoods)
        highest = np.maximum.accumulate(values)
        checks.append(compare("check_em", "(18)", "the log-likelihood after each step", values, highest, 1e-9))
    return worst(*checks)


# --- PPCA ------------------------------------------------------------------------------------------------------------


@takes_arrays
def check_ppca_step(step: Callable[..., tuple[ArrayLike, Any]], S: Array, W: Array, noise_variance: float) -> Check:
    """(15)-(18) with q(z) = N(0, I): one EM step of PPCA on the sample covariance S, for step(S, W, σ²) → (W', σ²').

    Right: regress x on z with the posterior's moments.  With the old W in σ²' the step is monotone too and has the same
    fixed points; only the comparison sees it.
    """
    D, unit = len(S), float(np.trace(S)) / len(S)
    new_W, new_variance = parts(step(S, W, noise_variance), 2, "step")
    # In units of the data's variance; both sides are equivariant, and residuals are absolute below 1.
    new_W, new_variance = new_W / np.sqrt(unit), new_variance / unit
    S, W, noise_variance = S / unit, W / np.sqrt(unit), noise_variance / unit
    _, gain, posterior_cov = condition(W, noise_variance)
    xz, zz = S @ gain.T, posterior_cov + gain @ S @ gain.T
    best_W = xz @ np.linalg.inv(zz)

    def residual_variance(V: Array) -> float:
        return float(np.trace(S) - 2 * np.sum(xz * V) + np.trace(V @ zz @ V.T)) / D

    return worst(
        compare(
            "check_ppca_step",
            "(15)",
            "W after a step, in units",
            new_W,
            best_W,
            1e-9,
            {
                "Cov(z | x) is missing in E zzᵀ": lambda: xz @ np.linalg.inv(gain @ S @ gain.T),
                "it is the old W": lambda: W,
            },
        ),
        compare(
            "check_ppca_step",
            "(15)",
            "σ² after a step, in units",
            new_variance,
            residual_variance(best_W),
            1e-9,
            {
                "it uses the old W": lambda: residual_variance(W),
                "it uses the old W in its cross term": lambda: float(np.trace(S) - np.sum(xz * W)) / D,
                "it is not divided by D": lambda: D * residual_variance(best_W),
            },
        ),
    )


@takes_arrays
def check_ppca_maximum(maximum: Callable[..., tuple[ArrayLike, Any]], S: Array, n_components: int) -> Check:
    """The maximum of PPCA's likelihood, value and covariance W Wᵀ + σ² I, for maximum(S, k) → (W, σ²).

    S has the 1/N of maximum likelihood; the value is −½[D log 2π + Σ log λ_i + (D−k) log σ² + D] (Tipping and Bishop
    1999), and S C⁻¹ W = W makes the point stationary.
    """
    if not 1 <= n_components < len(S):
        raise ValueError(f"n_components must be in 1..{len(S) - 1}, below the {len(S)} dimensions, got {n_components}")
    W, given = parts(maximum(S, n_components), 2, "maximum")
    unit = float(np.trace(S)) / len(S)
    S, W, noise_variance = S / unit, W / np.sqrt(unit), float(given) / unit
    C = W @ W.T + noise_variance * np.eye(len(S))
    values = np.linalg.eigvalsh(S)[::-1]
    D, rest = len(S), values[n_components:].mean()
    best = -0.5 * (D * np.log(2 * np.pi) + np.log(values[:n_components]).sum() + (D - n_components) * np.log(rest) + D)
    value = -0.5 * (D * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, S)))
    return worst(
        compare("check_ppca_maximum", "(18)", "the mean log-likelihood", value, best, 1e-9),
        compare(
            "check_ppca_maximum",
            "(18)",
            "σ²",
            noise_variance,
            rest,
            1e-9,
            {
                "it is the sum of the discarded eigenvalues": lambda: values[n_components:].sum(),
                "it is averaged over all D": lambda: values[n_components:].sum() / D,
            },
        ),
        compare("check_ppca_maximum", "(18)", "S C⁻¹ W, which should be W,", S @ np.linalg.solve(C, W), W, 1e-8),
    )
