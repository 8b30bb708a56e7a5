"""Checks of equations (15)-(18): the two steps of EM, for tables and for Gaussian mixtures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, parts, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.validation import Array


@takes_arrays
def check_free_m_step(m_step: Callable[..., tuple[ArrayLike, ArrayLike]], p_x: Array, q: Array, prior: Array) -> Check:
    """(15): the best p_θ(x | z) among all tables is the joint p(x) q(z | x) divided by q(z).

    With this table the joint KL equals KL(q(z)‖prior).

    Parameters
    ----------
    m_step : callable
        m_step(p_x, q) → (p_θ(x | z) (X, Z), q(z) (Z,)).
    p_x : (X,)
        Positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    prior : (Z,)
        Positive, sum 1.

    Returns
    -------
    Check
        The largest of three residuals; tolerance 1e-12 for the tables, 1e-11 for the joint KL.
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
    """log w_k N(x_n; m_k, C_k), (N, K), by inverses and determinants, also for complex x; −inf where w_k is 0."""
    columns = []
    for w, m, C in zip(weights, means, covariances, strict=True):
        quadratic = np.einsum("nd,de,ne->n", x - m, np.linalg.inv(C), x - m)
        log_weight = np.log(w) if w > 0 else -np.inf
        columns.append(log_weight - 0.5 * (x.shape[1] * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + quadratic))
    return np.stack(columns, axis=1)


def log_sum(log_joint: Array, axis: int = 1) -> Array:
    """log Σ exp along an axis, which is kept with length 1."""
    top = log_joint.max(axis=axis, keepdims=True)
    return top + np.log(np.exp(log_joint - top).sum(axis=axis, keepdims=True))


def normalised(log_joint: Array, axis: int = 1) -> Array:
    """exp divided by its sum along an axis: a softmax that is independent of the one in the package."""
    joint = np.exp(log_joint - log_joint.max(axis=axis, keepdims=True))
    return joint / joint.sum(axis=axis, keepdims=True)


@takes_arrays
def check_e_step(
    responsibilities: Callable[..., ArrayLike], x: Array, weights: Array, means: Array, covariances: Array
) -> Check:
    """(16), (18): the responsibilities q(z | x) = p_θ(z | x) of a Gaussian mixture.

    Parameters
    ----------
    responsibilities : callable
        responsibilities(x, weights, means, covariances) → (N, K).
    x : (N, D)
    weights : (K,)
    means : (K, D)
    covariances : (K, D, D)

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    log_det = np.linalg.slogdet(covariances)[1]
    best = normalised(log_joint)
    return compare(
        "check_e_step",
        "(18)",
        "p_θ(z | x)",
        responsibilities(x, weights, means, covariances),
        best,
        1e-9,
        {
            "the mixing weights are missing": lambda: normalised(log_joint - np.log(weights)),
            "the log-determinants are missing": lambda: normalised(log_joint + 0.5 * log_det),
            "the ½ of the log-determinants is missing": lambda: normalised(log_joint - 0.5 * log_det),
            "it is 0 or 1: a hard assignment": lambda: np.eye(len(weights))[best.argmax(axis=1)],
            "it is normalised over the examples": lambda: normalised(log_joint, axis=0),
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
    """(17): E_q[log p_θ(x, z) − log q] = log p_θ(x) − KL(q‖p_θ(z | x)), and log p_θ(x) if q is the posterior.

    Parameters
    ----------
    free_energy : callable
        free_energy(x, log_resp, weights, means, covariances) → (N,), nats.
    x : (N, D)
    log_resp : (N, K)
        log q(z | x).
    weights : (K,)
    means : (K, D)
    covariances : (K, D, D)

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    log_prob = log_sum(log_joint)[:, 0]
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


def floored(covariance: Array, floor: float) -> Array:
    """The covariance with every eigenvalue below the floor raised to the floor."""
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
    """(15)-(18): one step maximises E_p E_q log p_θ(x, z) with q fixed, and the log-likelihood never falls.

    A monotone likelihood alone proves little: a step that never updates the mixing weights is monotone too.
    The right sides normalise responsibilities in logarithms, so that a component far from all points, whose
    responsibilities underflow, still has exact moments.

    Parameters
    ----------
    step : callable
        step(x, weights, means, covariances) → (weights (K,), means (K, D), covariances (K, D, D)): one E-step and one
        M-step.
    x : (N, D)
    weights : (K,)
    means : (K, D)
    covariances : (K, D, D)
    floor : float
        The least eigenvalue that `step` allows; the constrained maximum raises smaller eigenvalues to it.
    n_iterations : int
        Number of steps over which the likelihood is followed.

    Returns
    -------
    Check
        Means are divided by the size of the data and covariances by its square; tolerance 1e-9.
    """
    as_probabilities(weights, "weights")
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    resp = normalised(log_joint)
    counts = resp.sum(axis=0)
    shares = normalised(log_joint - log_sum(log_joint), axis=0)  # share of each point in a component

    def spread_about(centres: Array) -> Array:
        apart = x[:, None] - centres
        return np.einsum("nk,nkd,nke->kde", shares, apart, apart)

    best_means = shares.T @ x
    spread = spread_about(best_means)
    best_covariances = np.array([floored(C, floor) for C in spread])
    # Divided by the components' own size: an absolute residual would depend on the units of x.
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
                f"a ridge of {ridge:.3g} is added to them, which is no maximum of (15)": lambda: (
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
            log_likelihoods.append(float(log_sum(log_joint_by_inverses(x, *state)).sum()))
            state = tuple(parts(step(x, *state), 3, "step"))  # type: ignore[assignment]
        values = np.array(log_likelihoods)
        highest = np.maximum.accumulate(values)
        checks.append(compare("check_em", "(18)", "the log-likelihood after each step", values, highest, 1e-9))
    return worst(*checks)
