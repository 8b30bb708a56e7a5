"""Checks of equations (1)-(18): entropies and divergences, the ELBO, the VAE's loss, the steps of EM.

Tables are p_x (X,), q[x, z] = q(z | x), decoder[x, z] = p_θ(x | z), prior (Z,), joint[x, z] = p_θ(x, z), all positive.
The right sides here use inverses, determinants and plain sums, which the package itself avoids.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import sigma_points
from scratchgen.validation import Array

# --- (1)-(2): divergences ----------------------------------------------------------------------------------------


def check_kl(kl: Callable[..., ArrayLike], p: Array, q: Array) -> Check:
    """(1)-(2): KL(p‖q) = −H(p) − E_p log q, for kl(p, q) of two positive tables (X,)."""
    return compare(
        "check_kl",
        "(2)",
        "KL(p‖q)",
        kl(p, q),
        (p * np.log(p)).sum() - (p * np.log(q)).sum(),
        1e-12,
        {
            "the arguments are swapped: it is KL(q‖p)": lambda: (q * np.log(q / p)).sum(),
            "it is −E log q: the entropy of p is not subtracted": lambda: -(p * np.log(q)).sum(),
            "it is E log q, the objective of (1) and not a divergence": lambda: (p * np.log(q)).sum(),
            "it is in bits, not in nats": lambda: (p * np.log2(p / q)).sum(),
        },
    )


def check_gaussian_kl(kl: Callable[..., ArrayLike], mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> Check:
    """(2): KL of two Gaussians, for kl(mean_p, cov_p, mean_q, cov_q), by inverse and determinant; 0 at the match."""

    def textbook(m: Array, S: Array, n: Array, R: Array, weight: float = 0.5) -> float:
        P = np.linalg.inv(R)
        quadratic = np.trace(P @ S) + (m - n) @ P @ (m - n) - len(m)
        return float(0.5 * quadratic + weight * (np.linalg.slogdet(R)[1] - np.linalg.slogdet(S)[1]))

    return compare(
        "check_gaussian_kl",
        "(2)",
        "KL(N_p‖N_q) and KL(N_p‖N_p)",
        [np.asarray(kl(mean_p, cov_p, mean_q, cov_q)), np.asarray(kl(mean_p, cov_p, mean_p, cov_p))],
        [textbook(mean_p, cov_p, mean_q, cov_q), 0.0],
        1e-9,
        {
            "the arguments are swapped: it is KL(q‖p)": lambda: [textbook(mean_q, cov_q, mean_p, cov_p), 0.0],
            "the ½ of the log-determinants is missing": lambda: [textbook(mean_p, cov_p, mean_q, cov_q, 1.0), 0.0],
            "the log-determinants are missing": lambda: [textbook(mean_p, cov_p, mean_q, cov_q, 0.0), 0.0],
        },
    )


def check_diagonal_kl(kl: Callable[..., ArrayLike], mean: Array, log_variance: Array) -> Check:
    """(7), (14): KL(N(μ, diag σ²)‖N(0, I)) of rows, (N,), for kl(mean, log_variance), against E_q of the log-ratio.

    The log-ratio is a quadratic in z, which the two points μ ± σ of every dimension integrate exactly.
    """
    std = np.exp(log_variance / 2)
    log_q = -0.5 * (log_variance + 1)
    log_p = -0.25 * ((mean + std) ** 2 + (mean - std) ** 2)
    terms = log_q - log_p

    def textbook(variance: Array) -> Array:
        return 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(axis=1)

    reverse = 0.5 * ((1 + mean**2) * np.exp(-log_variance) - 1 + log_variance)
    return compare(
        "check_diagonal_kl",
        "(14)",
        "KL(N(μ, σ²)‖N(0, I))",
        kl(mean, log_variance),
        terms.sum(axis=1),
        1e-11,
        {
            "it is averaged over the latent dimensions, not summed": lambda: terms.mean(axis=1),
            "it is averaged over examples, not one value each": lambda: terms.sum(axis=1).mean(),
            "σ stands where σ² belongs": lambda: textbook(std),
            "log σ² is read as log σ": lambda: textbook(std**4),
            "the arguments are swapped: it is KL(N(0, I)‖q)": lambda: reverse.sum(axis=1),
        },
    )


# --- (3)-(8): the posterior and the ELBO -------------------------------------------------------------------------


def check_latent_posterior(posterior: Callable[[Array], tuple[ArrayLike, ArrayLike]], joint: Array) -> Check:
    """(3), (11), (16): p(z | x) and p(x) from the joint, for posterior(joint) → (p(z | x) (X, Z), p(x) (X,))."""
    table, evidence = (np.asarray(part) for part in posterior(joint))
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


def _tables(joint: Array, q: Array) -> tuple[Array, Array, Array, Array]:
    """log p(x), KL(q‖p(z | x)), E_q log p(x, z) and H(q), (X,) each, by plain sums."""
    evidence = joint.sum(axis=1)
    kl = (q * (np.log(q) - np.log(joint / evidence[:, None]))).sum(axis=1)
    return np.log(evidence), kl, (q * np.log(joint)).sum(axis=1), -(q * np.log(q)).sum(axis=1)


def check_posterior_kl(kl: Callable[[Array, Array], ArrayLike], joint: Array, q: Array) -> Check:
    """(4): KL(q(z | x)‖p(z | x)) of every x, (X,), for kl(joint, q); 0 at the posterior."""
    log_evidence, exact, log_joint, entropy = _tables(joint, q)
    posterior = joint / joint.sum(axis=1, keepdims=True)
    return compare(
        "check_posterior_kl",
        "(4)",
        "KL(q‖p(z | x)) at q and at the posterior",
        [np.asarray(kl(joint, q)), np.asarray(kl(joint, posterior))],
        [log_evidence - log_joint - entropy, np.zeros(len(joint))],
        1e-11,
        {
            "it is KL(p(z | x)‖q), the other way round": lambda: [
                (posterior * np.log(posterior / q)).sum(axis=1),
                np.zeros(len(joint)),
            ],
            "the joint is not normalised: it is −ELBO": lambda: [-log_joint - entropy, -log_evidence],
            "the same constant is off for every x": lambda: [exact + 1, np.ones(len(joint))],
        },
    )


def check_elbo(elbo: Callable[[Array, Array], ArrayLike], joint: Array, q: Array) -> Check:
    """(5)-(6), (8): ELBO = log p(x) − KL(q‖p(z | x)) of every x, (X,), for elbo(joint, q); log p(x) at the posterior.

    "ELBO <= log p" alone finds next to nothing (entropy dropped, its sign, KL doubled: 0 of 500), so that the gap is
    compared with the KL that it must equal.
    """
    log_evidence, kl, log_joint, entropy = _tables(joint, q)
    posterior = joint / joint.sum(axis=1, keepdims=True)
    _, _, best_joint, best_entropy = _tables(joint, posterior)
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
            "the gap is KL(p(z | x)‖q), the other way round": lambda: [log_evidence - reverse, log_evidence],
            "it is −ELBO, the loss": lambda: [kl - log_evidence, -log_evidence],
        },
    )


def check_split_elbo(elbo: Callable[..., ArrayLike], decoder: Array, prior: Array, q: Array) -> Check:
    """(7): E_q log p(x | z) − KL(q‖p(z)) of every x, (X,), for elbo(decoder, prior, q): log p(x) less the gap."""
    log_evidence, kl, _, _ = _tables(decoder * prior, q)
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


def _condition(W: Array, noise_variance: float) -> tuple[Array, Array, Array]:
    """Cov x, Cov(z, x) Cov(x)⁻¹ and Cov(z | x) of x = W z + noise, by conditioning the joint Gaussian."""
    covariance = W @ W.T + noise_variance * np.eye(len(W))
    gain = W.T @ np.linalg.inv(covariance)
    return covariance, gain, np.eye(W.shape[1]) - gain @ W


def check_linear_gaussian_posterior(
    posterior: Callable[..., tuple[ArrayLike, ArrayLike]], x: Array, W: Array, mean: Array, noise_variance: float
) -> Check:
    """(11): p(z | x) of p(z) = N(0, I), p(x | z) = N(W z + μ, σ² I), by conditioning the joint Gaussian of (x, z).

    posterior(x, W, mean, noise_variance) → (means (N, k), covariance (k, k)).
    """
    _, gain, posterior_cov = _condition(W, noise_variance)
    means, covariance = posterior(x, W, mean, noise_variance)
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


def check_linear_gaussian_elbo(
    elbo: Callable[..., ArrayLike],
    x: Array,
    W: Array,
    mean: Array,
    noise_variance: float,
    q_mean: Array,
    q_cov: Array,
) -> Check:
    """(8): log p_θ(x) − KL(q‖p_θ(z | x)) of p(z) = N(0, I), p(x | z) = N(W z + μ, σ² I), with the equality case.

    elbo(x, W, mean, noise_variance, q_mean (N, k), q_cov (k, k)) → (N,), nats.
    """
    covariance, gain, posterior_cov = _condition(W, noise_variance)
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


def check_mean_field(
    mean_field: Callable[..., tuple[ArrayLike, ArrayLike]], x: Array, W: Array, mean: Array, noise_variance: float
) -> Check:
    """(4), (6): the diagonal Gaussian of the least KL(q‖p(z | x)), which has the largest ELBO.

    mean_field(x, W, mean, noise_variance) → (means (N, k), variances (k,)).  The diagonal q nearest to a Gaussian of
    precision P has variances 1/P_ii.
    """
    _, gain, posterior_cov = _condition(W, noise_variance)
    means, variances = mean_field(x, W, mean, noise_variance)
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
                "they are the posterior's own marginal variances, which minimise the reversed KL": lambda: np.diagonal(
                    posterior_cov
                )
            },
        ),
    )


# --- (9)-(14): the joint KL and the VAE --------------------------------------------------------------------------


def check_joint_kl(joint_kl: Callable[..., ArrayLike], p_x: Array, q: Array, decoder: Array, prior: Array) -> Check:
    """(9)-(10), (12): KL(p q‖p_θ) = KL(p‖p_θ(x)) + E_p KL(q‖p_θ(z | x)), for joint_kl(p_x, q, decoder, prior).

    The second term is what (10) drops; the deck needs q ≈ p(z | x) for it, the chain rule does not.
    """
    log_evidence, gap, _, _ = _tables(decoder * prior, q)
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
            "it is KL(p‖p_θ), the marginal one": lambda: marginal,
            "the inner KL is averaged over x without p(x)": lambda: marginal + gap.mean(),
        },
    )


def check_vae_objective(loss: Callable[..., ArrayLike], p_x: Array, q: Array, decoder: Array, prior: Array) -> Check:
    """(13): E_p[−E_q log p_θ(x | z) + KL(q‖q(z))] = (12) + H(p), for loss(p_x, q, decoder, prior)."""
    log_evidence, gap, _, _ = _tables(decoder * prior, q)
    fit, regulariser = (q * np.log(decoder)).sum(axis=1), (q * np.log(q / prior)).sum(axis=1)
    return compare(
        "check_vae_objective",
        "(13)",
        "E_p[−E_q log p_θ(x | z) + KL(q‖q(z))]",
        loss(p_x, q, decoder, prior),
        p_x @ (gap - log_evidence),
        1e-11,
        {
            "it is (12): p(x) stands under the logarithm": lambda: p_x @ (gap - log_evidence + np.log(p_x)),
            "the reconstruction has the wrong sign": lambda: p_x @ (fit + regulariser),
            "the KL has the wrong sign": lambda: -p_x @ (fit + regulariser),
            "x is averaged without p(x)": lambda: (gap - log_evidence).mean(),
        },
    )


def check_vae_loss(
    loss: Callable[..., ArrayLike],
    x: Array,
    W: Array,
    decoder_mean: Array,
    decoder_variance: float,
    q_mean: Array,
    q_log_variance: Array,
) -> Check:
    """(14): one draw's loss, averaged over sigma points of z, is −ELBO of the linear-Gaussian model in closed form.

    loss(x, x_hat, mean, log_variance, decoder_log_variance) → (N,), nats: with q(z | x_n) = N(q_mean[n], diag) and
    p(x | z) = N(W z + decoder_mean, decoder_variance I).
    """
    points = sigma_points(W.shape[1])
    D, k, log_s2 = x.shape[1], W.shape[1], float(np.log(decoder_variance))
    q_variance = np.exp(q_log_variance)
    draws = [q_mean + np.sqrt(q_variance) * xi for xi in points]
    value = np.mean([loss(x, z @ W.T + decoder_mean, q_mean, q_log_variance, log_s2) for z in draws], axis=0)
    squares = ((x - decoder_mean - q_mean @ W.T) ** 2).sum(axis=1) + q_variance @ (W**2).sum(axis=0)
    constant = 0.5 * D * np.log(2 * np.pi * decoder_variance)
    kl = 0.5 * (q_mean**2 + q_variance - 1 - q_log_variance).sum(axis=1)
    fit = squares / (2 * decoder_variance)
    return compare(
        "check_vae_loss",
        "(14)",
        "−ELBO of an example",
        value,
        constant + fit + kl,
        1e-12,
        {
            "the KL is averaged over the latents, not summed": lambda: constant + fit + kl / k,
            "the squared error is averaged over the D dimensions": lambda: constant + fit / D + kl,
            "the constant (D/2) log 2πs² is missing": lambda: fit + kl,
            "s stands where s² belongs": lambda: constant + squares / (2 * np.sqrt(decoder_variance)) + kl,
            "the ½ before the squared error is missing": lambda: constant + 2 * fit + kl,
            "the ½ before the KL is missing": lambda: constant + fit + 2 * kl,
            "the KL has the wrong sign": lambda: constant + fit - kl,
            "the KL is missing": lambda: constant + fit,
            "it is averaged over the batch": lambda: (constant + fit + kl).mean(),
            "it is the plain sum of squares plus KL": lambda: squares + kl,
            "the normal constant is counted D times over": lambda: (
                constant + 0.5 * D * (D - 1) * np.log(2 * np.pi) + fit + kl
            ),
        },
    )


def check_importance_weighted_bound(
    bound: Callable[[Array], ArrayLike], joint: Array, q: Array, n_draws: int = 2
) -> Check:
    """Burda et al. 2016: E exp(bound) = p(x) and bound = log w for one draw, by summing over all n-tuples of z.

    bound(log_weights (n, X)) → (X,), with log w = log p(x, z)/q(z | x).  An inequality would pass a plain mean of log w
    and a softmax over losses as well.
    """
    log_weights = np.log(joint) - np.log(q)
    n_z = joint.shape[1]
    tuples = list(product(range(n_z), repeat=n_draws))
    law = np.array([np.prod(q[:, draw], axis=1) for draw in tuples])
    stacks = [log_weights[:, draw].T for draw in tuples]
    logs = np.array([bound(stack) for stack in stacks])

    def mean_of(f: Callable[[Array], Array]) -> Array:
        return (law * np.exp([f(stack) for stack in stacks])).sum(axis=0)

    def weigh_by_loss(stack: Array) -> Array:
        softmax = np.exp(-stack) / np.exp(-stack).sum(axis=0)
        return (softmax * stack).sum(axis=0)

    return worst(
        compare(
            "check_importance_weighted_bound",
            "(8)",
            "the bound of one draw",
            np.array([bound(log_weights[:, [z]].T) for z in range(n_z)]),
            log_weights.T,
            1e-11,
        ),
        compare(
            "check_importance_weighted_bound",
            "(8)",
            "E exp(bound), which should be p(x),",
            (law * np.exp(logs)).sum(axis=0),
            joint.sum(axis=1),
            1e-11,
            {
                "it is the mean of the log-weights, an ELBO": lambda: mean_of(lambda stack: stack.mean(axis=0)),
                "log n is not subtracted": lambda: n_draws * joint.sum(axis=1),
                "it is the largest log-weight": lambda: mean_of(lambda stack: stack.max(axis=0)),
                "the worst draws weigh most: a softmax over losses": lambda: mean_of(weigh_by_loss),
            },
        ),
    )


# --- (15)-(18): EM -----------------------------------------------------------------------------------------------


def check_free_m_step(m_step: Callable[..., tuple[ArrayLike, ArrayLike]], p_x: Array, q: Array, prior: Array) -> Check:
    """(15): over all tables the best p_θ(x | z) leaves the joint KL at KL(q(z)‖prior), the mirror of the chain rule.

    m_step(p_x, q) → (p_θ(x | z) (X, Z), q(z) (Z,)).
    """
    decoder, aggregate = (np.asarray(part) for part in m_step(p_x, q))
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


def _log_joint(x: Array, weights: Array, means: Array, covariances: Array) -> Array:
    """log w_k N(x_n; m_k, C_k), (N, K), by inverses and determinants."""
    columns = []
    for w, m, C in zip(weights, means, covariances, strict=True):
        quadratic = np.einsum("nd,de,ne->n", x - m, np.linalg.inv(C), x - m)
        columns.append(np.log(w) - 0.5 * (x.shape[1] * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + quadratic))
    return np.stack(columns, axis=1)


def _log_sum(log_joint: Array, axis: int = 1) -> Array:
    top = log_joint.max(axis=axis, keepdims=True)
    return top + np.log(np.exp(log_joint - top).sum(axis=axis, keepdims=True))


def _normalised(log_joint: Array, axis: int = 1) -> Array:
    joint = np.exp(log_joint - log_joint.max(axis=axis, keepdims=True))
    return joint / joint.sum(axis=axis, keepdims=True)


def check_e_step(
    responsibilities: Callable[..., ArrayLike], x: Array, weights: Array, means: Array, covariances: Array
) -> Check:
    """(16), (18): q(z | x) = p_θ(z | x), (N, K), for responsibilities(x, weights, means, covariances)."""
    log_joint = _log_joint(x, weights, means, covariances)
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
    log_joint = _log_joint(x, weights, means, covariances)
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

    Monotony alone would pass a step that leaves the mixing weights as they were.

    Parameters
    ----------
    step : callable
        step(x, weights, means, covariances) → (weights (K,), means (K, D), covariances (K, D, D)), one E- and M-step.
    floor : float
        The least eigenvalue that `step` allows a covariance; the constrained maximum raises eigenvalues to it.
    n_iterations : int
        Steps over which the likelihood is followed.
    """
    resp = _normalised(_log_joint(x, weights, means, covariances))
    counts = resp.sum(axis=0)
    best_means = resp.T @ x / counts[:, None]
    spread = np.array(
        [(resp[:, k, None] * (x - m)).T @ (x - m) / counts[k] for k, m in enumerate(best_means)], dtype=np.float64
    )
    best_covariances = np.array([_floored(C, floor) for C in spread])
    ahead = [np.asarray(part, dtype=np.float64) for part in step(x, weights, means, covariances)]
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
        compare("check_em", "(15)", "the means after a step", ahead[1], best_means, 1e-9),
    ]
    around_old = np.array(
        [(resp[:, k, None] * (x - m)).T @ (x - m) / counts[k] for k, m in enumerate(means)], dtype=np.float64
    )
    unbiased = spread * (counts / np.maximum(counts - 1, 1e-300))[:, None, None]
    ridge = float(np.trace(ahead[2][0] - spread[0])) / x.shape[1] if ahead[2].shape == spread.shape else 0.0
    checks.append(
        compare(
            "check_em",
            "(15)",
            "the covariances after a step",
            ahead[2],
            best_covariances,
            1e-9,
            {
                f"a ridge of {ridge:.3g} is added to them: that maximises nothing fixed": lambda: (
                    spread + ridge * np.eye(x.shape[1])
                ),
                "they are taken about the old means": lambda: around_old,
                "they are divided by N_k − 1": lambda: unbiased,
                "they are shared by all components": lambda: np.einsum("k,kde->de", counts / len(x), spread),
            },
        )
    )
    if all(check.passed for check in checks):
        state, log_likelihoods = (weights, means, covariances), []
        for _ in range(n_iterations):
            log_likelihoods.append(float(_log_sum(_log_joint(x, *state)).sum()))
            state = tuple(np.asarray(part, dtype=np.float64) for part in step(x, *state))  # type: ignore[assignment]
        values = np.array(log_likelihoods)
        highest = np.maximum.accumulate(values)
        checks.append(compare("check_em", "(18)", "the log-likelihood after each step", values, highest, 1e-9))
    return worst(*checks)


def check_ppca_step(step: Callable[..., tuple[ArrayLike, Any]], S: Array, W: Array, noise_variance: float) -> Check:
    """(15)-(18) with q(z) = N(0, I): one EM step of PPCA on the sample covariance S, for step(S, W, σ²) → (W', σ²').

    Right: regress x on z with the posterior's moments.  With the old W in σ²' the step is monotone too and has the same
    fixed points; only the comparison sees it.
    """
    _, gain, posterior_cov = _condition(W, noise_variance)
    xz, zz = S @ gain.T, posterior_cov + gain @ S @ gain.T
    best_W = xz @ np.linalg.inv(zz)
    D = len(S)

    def residual_variance(V: Array) -> float:
        return float(np.trace(S) - 2 * np.sum(xz * V) + np.trace(V @ zz @ V.T)) / D

    new_W, new_variance = step(S, W, noise_variance)
    return worst(
        compare(
            "check_ppca_step",
            "(15)",
            "W after a step",
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
            "σ² after a step",
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


def check_ppca_maximum(maximum: Callable[..., tuple[ArrayLike, Any]], S: Array, n_components: int) -> Check:
    """The maximum of PPCA's likelihood, value and covariance W Wᵀ + σ² I, for maximum(S, k) → (W, σ²).

    S has the 1/N of maximum likelihood; the value is −½[D log 2π + Σ log λ_i + (D−k) log σ² + D] (Tipping and Bishop
    1999), and S C⁻¹ W = W makes the point stationary.
    """
    W, noise_variance = maximum(S, n_components)
    W = np.asarray(W, dtype=np.float64)
    C = W @ W.T + float(noise_variance) * np.eye(len(S))
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
            float(noise_variance),
            rest,
            1e-9,
            {
                "it is the sum of the discarded eigenvalues": lambda: values[n_components:].sum(),
                "it is averaged over all D": lambda: values[n_components:].sum() / D,
            },
        ),
        compare("check_ppca_maximum", "(18)", "S C⁻¹ W, which should be W,", S @ np.linalg.solve(C, W), W, 1e-8),
    )
