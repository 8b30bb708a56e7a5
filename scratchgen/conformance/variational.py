"""Checks of equations (3)-(12): the posterior, the ELBO and the joint KL, for tables and the linear-Gaussian model.

The tables are p_x (X,), q[x, z] = q(z | x), decoder[x, z] = p_θ(x | z), prior (Z,) and joint[x, z] = p_θ(x, z).  All
entries are positive.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, parts, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.validation import Array

# --- tables ----------------------------------------------------------------------------------------------------------


def _as_model(q: Array, decoder: Array, prior: Array) -> None:
    as_probabilities(q, "q", axis=1)
    as_probabilities(decoder, "decoder", axis=0)
    as_probabilities(prior, "prior")


def gap_of_tables(joint: Array, q: Array) -> tuple[Array, Array, Array, Array]:
    """log p(x), KL(q‖p(z | x)), E_q log p(x, z) and H(q), (X,) each, by plain sums."""
    evidence = joint.sum(axis=1)
    kl = (q * (np.log(q) - np.log(joint / evidence[:, None]))).sum(axis=1)
    return np.log(evidence), kl, (q * np.log(joint)).sum(axis=1), -(q * np.log(q)).sum(axis=1)


@takes_arrays
def check_latent_posterior(posterior: Callable[[Array], tuple[ArrayLike, ArrayLike]], joint: Array) -> Check:
    """(3), (11), (16): the posterior p(z | x) and the evidence p(x) from the joint.

    Parameters
    ----------
    posterior : callable
        posterior(joint) → (p(z | x) (X, Z), p(x) (X,)).
    joint : (X, Z)
        p(x, z), positive, sum 1.

    Returns
    -------
    Check
        The larger of the two residuals; tolerance 1e-13.
    """
    as_probabilities(joint, "joint", axis=(0, 1))
    table, evidence = parts(posterior(joint), 2, "posterior")
    exact = np.array([sum(row) for row in joint.tolist()])
    return worst(
        compare(
            "check_latent_posterior",
            "(3)",
            "the evidence p(x)",
            evidence,
            exact,
            1e-13,
            {"it is the sum over x, which is p(z)": lambda: joint.sum(axis=0)},
        ),
        compare(
            "check_latent_posterior",
            "(3)",
            "p(z | x)",
            table,
            np.exp(np.log(joint) - np.log(exact)[:, None]),
            1e-13,
            {
                "it is normalised over x: that is p(x | z)": lambda: joint / joint.sum(axis=0),
                "it is not normalised": lambda: joint,
                "it is normalised over both: that is the joint": lambda: joint / joint.sum(),
            },
        ),
    )


@takes_arrays
def check_posterior_kl(kl: Callable[[Array, Array], ArrayLike], joint: Array, q: Array) -> Check:
    """(4): KL(q(z | x)‖p(z | x)) of every x, and its value 0 at the posterior.

    Parameters
    ----------
    kl : callable
        kl(joint, q) → (X,), nats.
    joint : (X, Z)
        p(x, z), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    as_probabilities(joint, "joint", axis=(0, 1))
    as_probabilities(q, "q", axis=1)
    log_evidence, exact, log_joint, entropy = gap_of_tables(joint, q)
    posterior = joint / joint.sum(axis=1, keepdims=True)
    return compare(
        "check_posterior_kl",
        "(4)",
        "KL(q‖p(z | x)) at q and at the posterior",
        [np.asarray(kl(joint, q)), np.asarray(kl(joint, posterior))],
        [log_evidence - log_joint - entropy, np.zeros(len(joint))],
        1e-11,
        {
            "it is KL(p(z | x)‖q), with swapped arguments": lambda: [
                (posterior * np.log(posterior / q)).sum(axis=1),
                np.zeros(len(joint)),
            ],
            "the joint is not normalised: it is −ELBO": lambda: [-log_joint - entropy, -log_evidence],
            "the same constant is off for every x": lambda: [exact + 1, np.ones(len(joint))],
        },
    )


@takes_arrays
def check_elbo(elbo: Callable[[Array, Array], ArrayLike], joint: Array, q: Array) -> Check:
    """(5)-(6), (8): ELBO = log p(x) − KL(q‖p(z | x)) of every x, and log p(x) at the posterior.

    The inequality ELBO <= log p(x) alone finds almost no mistake: without the entropy of q, with the wrong sign of the
    entropy, or with a doubled KL, it held in 500 of 500 trials.

    Parameters
    ----------
    elbo : callable
        elbo(joint, q) → (X,), nats.
    joint : (X, Z)
        p(x, z), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    as_probabilities(joint, "joint", axis=(0, 1))
    as_probabilities(q, "q", axis=1)
    log_evidence, kl, log_joint, entropy = gap_of_tables(joint, q)
    posterior = joint / joint.sum(axis=1, keepdims=True)
    _, _, best_joint, best_entropy = gap_of_tables(joint, posterior)
    reverse = (posterior * np.log(posterior / q)).sum(axis=1)
    return compare(
        "check_elbo",
        "(5)",
        "the ELBO at q and at the posterior",
        [np.asarray(elbo(joint, q)), np.asarray(elbo(joint, posterior))],
        [log_evidence - kl, log_evidence],
        1e-11,
        {
            "the entropy of q is missing": lambda: [log_joint, best_joint],
            "the entropy of q has the wrong sign": lambda: [log_joint - entropy, best_joint - best_entropy],
            "the gap is KL(p(z | x)‖q), with swapped arguments": lambda: [log_evidence - reverse, log_evidence],
            "it is −ELBO, the loss": lambda: [kl - log_evidence, -log_evidence],
        },
    )


@takes_arrays
def check_split_elbo(elbo: Callable[..., ArrayLike], decoder: Array, prior: Array, q: Array) -> Check:
    """(7): E_q log p(x | z) − KL(q‖p(z)) of every x, which equals log p(x) − KL(q‖p(z | x)).

    Parameters
    ----------
    elbo : callable
        elbo(decoder, prior, q) → (X,), nats.
    decoder : (X, Z)
        p(x | z), positive; every column sums to 1.
    prior : (Z,)
        p(z), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    _as_model(q, decoder, prior)
    log_evidence, kl, _, _ = gap_of_tables(decoder * prior, q)
    fit, regulariser = (q * np.log(decoder)).sum(axis=1), (q * np.log(q / prior)).sum(axis=1)
    return compare(
        "check_split_elbo",
        "(7)",
        "E_q log p(x | z) − KL(q‖p(z))",
        elbo(decoder, prior, q),
        log_evidence - kl,
        1e-11,
        {
            "the KL is missing": lambda: fit,
            "the KL is added": lambda: fit + regulariser,
            "the KL is doubled": lambda: fit - 2 * regulariser,
            "the KL is halved": lambda: fit - regulariser / 2,
            "the KL is reversed": lambda: fit - (prior * np.log(prior / q)).sum(axis=1),
        },
    )


@takes_arrays
def check_joint_kl(joint_kl: Callable[..., ArrayLike], p_x: Array, q: Array, decoder: Array, prior: Array) -> Check:
    """(9)-(10), (12): KL(p q‖p_θ(x, z)) = KL(p‖p_θ(x)) + E_p KL(q‖p_θ(z | x)).

    (10) drops the second term.  The deck assumes q ≈ p(z | x) for this; the chain rule holds for every q.

    Parameters
    ----------
    joint_kl : callable
        joint_kl(p_x, q, decoder, prior) → a number, nats.
    p_x : (X,)
        p(x), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    decoder : (X, Z)
        p_θ(x | z), positive; every column sums to 1.
    prior : (Z,)
        p(z), positive, sum 1.

    Returns
    -------
    Check
        Tolerance 1e-11.
    """
    as_probabilities(p_x, "p_x")
    _as_model(q, decoder, prior)
    log_evidence, gap, _, _ = gap_of_tables(decoder * prior, q)
    marginal, entropy = p_x @ (np.log(p_x) - log_evidence), -p_x @ np.log(p_x)
    return compare(
        "check_joint_kl",
        "(12)",
        "KL(p(x) q(z | x)‖p_θ(x, z))",
        joint_kl(p_x, q, decoder, prior),
        marginal + p_x @ gap,
        1e-11,
        {
            "p(x) is missing under the logarithm: it is (13)": lambda: marginal + p_x @ gap + entropy,
            "it is KL(p‖p_θ(x)), the marginal KL": lambda: marginal,
            "the inner KL is averaged over x without p(x)": lambda: marginal + gap.mean(),
        },
    )


# --- the linear-Gaussian model ---------------------------------------------------------------------------------------


def condition(W: Array, noise_variance: float) -> tuple[Array, Array, Array]:
    """Cov x, Cov(z, x) Cov(x)⁻¹ and Cov(z | x) of x = W z + noise, from the joint Gaussian."""
    covariance = W @ W.T + noise_variance * np.eye(len(W))
    gain = W.T @ np.linalg.inv(covariance)
    return covariance, gain, np.eye(W.shape[1]) - gain @ W


@takes_arrays
def check_linear_gaussian_posterior(
    posterior: Callable[..., tuple[ArrayLike, ArrayLike]], x: Array, W: Array, mean: Array, noise_variance: float
) -> Check:
    """(11): the posterior of p(z) = N(0, I), p(x | z) = N(W z + μ, σ² I), from the joint Gaussian of (x, z).

    Parameters
    ----------
    posterior : callable
        posterior(x, W, mean, noise_variance) → (means (N, k), covariance (k, k)).
    x : (N, D)
    W : (D, k)
    mean : (D,)
        μ.
    noise_variance : float
        σ².

    Returns
    -------
    Check
        The larger of the two residuals; tolerance 1e-9.
    """
    _, gain, posterior_cov = condition(W, noise_variance)
    means, covariance = parts(posterior(x, W, mean, noise_variance), 2, "posterior")
    name = "check_linear_gaussian_posterior"
    return worst(
        compare(name, "(11)", "E[z | x]", means, (x - mean) @ gain.T, 1e-9),
        compare(
            name,
            "(11)",
            "Cov(z | x)",
            covariance,
            posterior_cov,
            1e-9,
            {
                "σ² is missing: it is (WᵀW + σ² I)⁻¹": lambda: posterior_cov / noise_variance,
                "it is the precision": lambda: np.linalg.inv(posterior_cov),
            },
        ),
    )


@takes_arrays
def check_linear_gaussian_elbo(
    elbo: Callable[..., ArrayLike],
    x: Array,
    W: Array,
    mean: Array,
    noise_variance: float,
    q_mean: Array,
    q_cov: Array,
) -> Check:
    """(8): ELBO = log p_θ(x) − KL(q‖p_θ(z | x)) of p(z) = N(0, I), p(x | z) = N(W z + μ, σ² I).

    At q = p_θ(z | x) the ELBO is log p_θ(x).

    Parameters
    ----------
    elbo : callable
        elbo(x, W, mean, noise_variance, q_mean, q_cov) → (N,), nats.
    x : (N, D)
    W : (D, k)
    mean : (D,)
        μ.
    noise_variance : float
        σ².
    q_mean : (N, k)
    q_cov : (k, k)

    Returns
    -------
    Check
        Tolerance 1e-9.
    """
    covariance, gain, posterior_cov = condition(W, noise_variance)
    P, posterior_mean = np.linalg.inv(posterior_cov), (x - mean) @ gain.T
    quadratic = np.einsum("nd,de,ne->n", x - mean, np.linalg.inv(covariance), x - mean)
    log_prob = -0.5 * (x.shape[1] * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + quadratic)
    shift = q_mean - posterior_mean
    log_ratio = np.linalg.slogdet(posterior_cov)[1] - np.linalg.slogdet(q_cov)[1]
    k = len(q_cov)
    kl = 0.5 * (np.trace(P @ q_cov) + np.einsum("nk,kl,nl->n", shift, P, shift) - k + log_ratio)
    parameters = (x, W, mean, noise_variance)
    trace = 0.5 * np.trace(W @ q_cov @ W.T) / noise_variance
    constant = 0.5 * x.shape[1] * np.log(2 * np.pi * noise_variance)
    return compare(
        "check_linear_gaussian_elbo",
        "(8)",
        "the linear-Gaussian ELBO at q and at the posterior",
        [np.asarray(elbo(*parameters, q_mean, q_cov)), np.asarray(elbo(*parameters, posterior_mean, posterior_cov))],
        [log_prob - kl, log_prob],
        1e-9,
        {
            "tr W V Wᵀ is missing: the decoder is taken at the mean of q only": lambda: [
                log_prob - kl + trace,
                log_prob + 0.5 * np.trace(W @ posterior_cov @ W.T) / noise_variance,
            ],
            "the constant (D/2) log 2πσ² is missing": lambda: [log_prob - kl + constant, log_prob + constant],
        },
    )


@takes_arrays
def check_mean_field(
    mean_field: Callable[..., tuple[ArrayLike, ArrayLike]], x: Array, W: Array, mean: Array, noise_variance: float
) -> Check:
    """(4), (6): the diagonal Gaussian q with the least KL(q‖p(z | x)), which has the largest ELBO.

    The nearest diagonal q to a Gaussian with precision P has the variances 1/P_ii.

    Parameters
    ----------
    mean_field : callable
        mean_field(x, W, mean, noise_variance) → (means (N, k), variances (k,)).
    x : (N, D)
    W : (D, k)
    mean : (D,)
        μ.
    noise_variance : float
        σ².

    Returns
    -------
    Check
        The larger of the two residuals; tolerance 1e-9.
    """
    _, gain, posterior_cov = condition(W, noise_variance)
    means, variances = parts(mean_field(x, W, mean, noise_variance), 2, "mean_field")
    return worst(
        compare("check_mean_field", "(6)", "the means", means, (x - mean) @ gain.T, 1e-9),
        compare(
            "check_mean_field",
            "(6)",
            "the variances",
            variances,
            1 / np.diagonal(np.linalg.inv(posterior_cov)),
            1e-9,
            {
                "they are the marginal variances of the posterior, which minimise the reversed KL": lambda: np.diagonal(
                    posterior_cov
                )
            },
        ),
    )
