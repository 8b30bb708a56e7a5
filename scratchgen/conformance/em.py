"""Checks of equations (15)-(18): the two steps of EM, for tables and for Gaussian mixtures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, check_callable, parts, takes_arrays
from scratchgen.conformance.instances import argmin, at_each, result, rounding, through
from scratchgen.conformance.result import SINGLE_LIMIT, Check, compare, worst
from scratchgen.conformance.variational import other_p
from scratchgen.validation import Array, as_number


@takes_arrays
def check_free_m_step(m_step: Callable[..., tuple[ArrayLike, ArrayLike]], p_x: Array, q: Array, prior: Array) -> Check:
    """(15): the best p_θ(x | z) among all tables is the joint p(x) q(z | x) divided by q(z).

    With this table the joint KL equals KL(q(z)‖prior); with tables near it the joint KL is larger.  The step is called
    for two p(x).

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
        The largest of four residuals; tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(m_step, "m_step(p_x, q)")
    as_probabilities(p_x, "p_x")
    as_probabilities(q, "q", axis=1)
    as_probabilities(prior, "prior")
    laws = [(p_x,), (other_p(p_x),)]
    found = [parts(m_step(p, q), 2, "m_step") for (p,) in laws]
    decoders, aggregates = [pair[0] for pair in found], [pair[1] for pair in found]
    joints = [p[:, None] * q for (p,) in laws]
    sums = np.array([joint.sum(axis=0) for joint in joints])
    name, tolerance = "check_free_m_step", rounding(1 - np.log(min(p.min() for p in (p_x, q, prior))))
    checks = [
        compare(
            name,
            "(15)",
            "q(z)",
            aggregates,
            sums,
            tolerance,
            at_each(
                laws,
                {
                    "x is averaged without p(x)": lambda p: q.mean(axis=0),
                    "x is summed without p(x)": lambda p: q.sum(axis=0),
                    "it is the prior": lambda p: prior,
                    "it is not normalised, p(x) q(z | x)/max": lambda p: p @ q / (p @ q).max(),
                },
            ),
        ),
        compare(
            name,
            "(15)",
            "p_θ(x | z)",
            decoders,
            [joint / total for joint, total in zip(joints, sums, strict=True)],
            tolerance,
            at_each(
                laws,
                {
                    "it is normalised over z: it is q(z | x)": lambda p: q,
                    "p(x) is missing": lambda p: q / q.sum(axis=0),
                    "it is the joint: q(z) is not divided out": lambda p: p[:, None] * q,
                    "it is divided by the prior, not by q(z)": lambda p: p[:, None] * q / prior,
                    "it is 0 or 1: q is a hard assignment": lambda p: (
                        (p[:, None] * (q == q.max(axis=1, keepdims=True)))
                        / np.maximum((p[:, None] * (q == q.max(axis=1, keepdims=True))).sum(axis=0), 1e-300)
                    ),
                },
            ),
            labels=lambda index: f"p_θ(x = {index[1]} | z = {index[2]}) after the step from p(x) number {index[0]}",
        ),
    ]
    if not all(checks):
        return worst(*checks)

    def joint_kl(joint: Array, decoder: Array) -> float:
        return float((joint * np.log(joint / (decoder * prior))).sum())

    tilts = np.cos(np.arange(1.0, q.size + 1)).reshape(q.shape)
    steps, least, best = (-0.3, -0.03, 0.0, 0.03, 0.3), [], []
    for joint, decoder, total in zip(joints, decoders, sums, strict=True):
        family = [decoder * np.exp(h * tilts) for h in steps]
        values = [[joint_kl(joint, table / table.sum(axis=0))] for table in family]
        least.append(float(argmin(values, values, steps)[0]))
        best.append((total * np.log(total / prior)).sum())
    left = [joint_kl(joint, decoder) for joint, decoder in zip(joints, decoders, strict=True)]
    return worst(
        *checks,
        compare(name, "(15)", "the joint KL after the step", left, best, tolerance),
        compare(name, "(15)", "the place of the least joint KL on a line of tables", least, np.zeros(2), 1e-12),
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


def condition_of_mixture(x: Array, means: Array, covariances: Array) -> float:
    """Error of a log-density in units of machine epsilon: the loss of digits in x − m and in the inverse."""
    values = np.linalg.eigvalsh(covariances)
    size = max(np.abs(x).max(), np.abs(means).max())
    spread = np.abs(x[:, None] - means).max(axis=(0, 1))
    return float((values[:, -1] / values[:, 0]).max() + 1 + size * spread.max() / values[:, 0].min())


def wrong_log_joints(x: Array, weights: Array, means: Array, covariances: Array) -> dict[str, Callable[[], Array]]:
    """log p_θ(x, z), (N, K), under the mistakes of an E-step."""

    def log_joint(covariances: Array = covariances, weights: Array = weights) -> Array:
        return log_joint_by_inverses(x, weights, means, covariances)

    def by_powers(power: float) -> Array:
        values, vectors = np.linalg.eigh(covariances)
        return np.einsum("kde,ke,kfe->kdf", vectors, values**power, vectors)

    log_det = np.linalg.slogdet(covariances)[1]
    diagonals = covariances * np.eye(x.shape[1])
    return {
        "the mixing weights are missing": lambda: log_joint(weights=np.ones(len(weights))),
        "the mixing weights stand for their logarithms": lambda: log_joint(weights=np.exp(weights)),
        "the log-determinants are missing": lambda: log_joint() + 0.5 * log_det,
        "the ½ of the log-determinants is missing": lambda: log_joint() - 0.5 * log_det,
        "the ½ of the log-determinants stands twice, as ½ Σ log diag of the Cholesky factor": lambda: (
            log_joint() + 0.25 * log_det
        ),
        "the log-determinants have the wrong sign": lambda: log_joint() + log_det,
        "the ½ of the quadratic form is missing": lambda: (
            2 * (log_joint(weights=np.ones(len(weights))) + 0.5 * log_det) - 0.5 * log_det + np.log(weights)
        ),
        "the covariances are squared: they are read as standard deviations": lambda: log_joint(by_powers(2.0)),
        "standard deviations stand in the place of variances": lambda: log_joint(by_powers(0.5)),
        "the covariances are read as precisions": lambda: log_joint(by_powers(-1.0)),
        "C stands where its inverse C⁻¹ belongs": lambda: log_joint(by_powers(-1.0)) - log_det,
        "only the diagonals of the covariances are used": lambda: log_joint(diagonals),
        "all components have the first covariance": lambda: log_joint(covariances[[0] * len(weights)]),
        **{
            f"{ridge:g} is added to the variances": partial(log_joint, covariances + ridge * np.eye(x.shape[1]))
            for ridge in RIDGES
        },
    }


FLOORS = (1e-6, 1e-8, 1e-9, 1e-10, 1e-12)  # constants that people add to a density
RIDGES = (1e-6, 2e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # and to a variance
PRIOR = "it is the prior: x is ignored"


def wrong_responsibilities(
    x: Array, weights: Array, means: Array, covariances: Array
) -> dict[str, Callable[[], ArrayLike]]:
    """q(z | x), (N, K), under the mistakes of an E-step."""
    log_joint = log_joint_by_inverses(x, weights, means, covariances)
    best = normalised(log_joint)
    wrong = wrong_log_joints(x, weights, means, covariances)

    def with_constant(constant: float) -> Array:
        return best / (1 + constant * np.exp(-log_sum(log_joint)))

    return {
        **through(normalised, wrong),
        "it is 0 or 1: a hard assignment": lambda: np.eye(len(weights))[best.argmax(axis=1)],
        "they are not normalised: it is the joint": lambda: np.exp(log_joint),
        "it is normalised over the examples": lambda: normalised(log_joint, axis=0),
        "log p is normalised without an exponential": lambda: log_joint / log_joint.sum(axis=1, keepdims=True),
        "the responsibilities are squared": lambda: best**2,
        "the logarithms are halved before the softmax": lambda: normalised(0.5 * log_joint),
        "the responsibilities are squared and normalised": lambda: normalised(2 * log_joint),
        PRIOR: lambda: np.tile(weights, (len(x), 1)),
        **{
            f"{floor:g} is added to p(x) before the division, so that they do not sum to 1": partial(
                with_constant, floor
            )
            for floor in FLOORS
        },
    }


FAR = 40.0  # distance of the far points in standard deviations; exp(−40²/2) underflows
FLOOR = -80.0  # logarithms below are equal: float32 has no smaller positive number


@takes_arrays
def check_e_step(
    responsibilities: Callable[..., ArrayLike], x: Array, weights: Array, means: Array, covariances: Array
) -> Check:
    """(16), (18): the responsibilities q(z | x) = p_θ(z | x) of a Gaussian mixture.

    A second call has points so far from all means that every density underflows; only a softmax of logarithms is right
    there.  For them the logarithms of the responsibilities are compared, divided by the size of log p_θ(x, z).  Code
    that is wrong at the first points by more than the rounding of float32 gets no second call: it may return something
    else than responsibilities, and the second diagnosis would be wrong.

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
        The larger of two residuals; tolerance 5e-14, more if x − m or an inverse loses digits.
    """
    check_callable(responsibilities, "responsibilities(x, weights, means, covariances)")
    as_probabilities(weights, "weights")
    parameters, name, K = (weights, means, covariances), "check_e_step", len(weights)
    log_joint = log_joint_by_inverses(x, *parameters)
    near = compare(
        name,
        "(18)",
        "p_θ(z | x)",
        result(responsibilities(x, *parameters), "responsibilities"),
        normalised(log_joint),
        rounding(condition_of_mixture(x, means, covariances)),
        wrong_responsibilities(x, *parameters),
        labels=lambda index: f"p_θ(z = {index[1]} | x) of example {index[0]}",
    )
    if near.residual > SINGLE_LIMIT:
        return near
    directions = x - x.mean(axis=0)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.where(lengths > 1e-6 * lengths.max(initial=1e-300), directions, 1.0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    std = np.sqrt(np.linalg.eigvalsh(covariances)[:, -1].max())
    far_x = means.mean(axis=0) + (np.abs(means - means.mean(axis=0)).max() + FAR * std) * directions
    far_joint = log_joint_by_inverses(far_x, *parameters)
    size = 1 + np.abs(far_joint).max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        given = np.log(result(responsibilities(far_x, *parameters), "responsibilities"))
    far = compare(
        name,
        "(18)",
        "log p_θ(z | x) in units of log p_θ(x, z), where every density underflows (take the softmax of logarithms)",
        np.maximum(given, FLOOR) / size if given.shape == (len(x), K) else given,
        np.maximum(far_joint - log_sum(far_joint), FLOOR) / size,
        rounding(condition_of_mixture(far_x, means, covariances) / size.min()),
        {"they are all 0: the densities underflow": lambda: FLOOR / size * np.ones((1, K))},
        labels=lambda index: (
            f"log p_θ(z = {index[1]} | x) of example {index[0]} in units of log p_θ(x, z), where every density "
            "underflows (take the softmax of logarithms),"
        ),
    )
    return worst(near, far)


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
        Tolerance 5e-14, more if x − m or an inverse loses digits.
    """
    check_callable(free_energy, "free_energy(x, log_resp, weights, means, covariances)")
    as_probabilities(weights, "weights")
    as_probabilities(np.exp(log_resp), "exp(log_resp)", axis=1)
    parameters = (weights, means, covariances)
    log_joint = log_joint_by_inverses(x, *parameters)
    log_prob = log_sum(log_joint)[:, 0]
    log_posterior = log_joint - log_prob[:, None]
    between = log_resp / 2 + log_posterior / 2
    instances = [(q,) for q in (log_resp, between - log_sum(between), log_posterior)]
    labels = ["the given q", "a q between it and the posterior", "the posterior"]

    def exact(log_q: Array) -> Array:
        return log_prob - (np.exp(log_q) * (log_q - log_posterior)).sum(axis=1)

    wrong = wrong_log_joints(x, *parameters)
    return compare(
        "check_free_energy",
        "(17)",
        "E_q[log p_θ(x, z) − log q]",
        [result(free_energy(x, log_q, *parameters), "free_energy") for (log_q,) in instances],
        [exact(log_q) for (log_q,) in instances],
        rounding(condition_of_mixture(x, means, covariances)),
        at_each(
            instances,
            {
                "the entropy of q is missing": lambda q: (np.exp(q) * log_joint).sum(axis=1),
                "the entropy of q has the wrong sign": lambda q: (np.exp(q) * (log_joint + q)).sum(axis=1),
                "the KL is added": lambda q: 2 * log_prob - exact(q),
                "it is log p_θ(x): E_q stands under the logarithm": lambda q: log_prob,
                "it is the loss, −ELBO": lambda q: -exact(q),
                "the KL to the mixing weights is added, not subtracted": lambda q: (
                    np.exp(q) * (log_joint + q - 2 * np.log(weights))
                ).sum(axis=1),
                "it is the logsumexp of log p + log q, log Σ q p: E_q stands under the logarithm": lambda q: log_sum(
                    log_joint + q
                )[:, 0],
                "(D/2) log 2π is missing": lambda q: exact(q) + 0.5 * x.shape[1] * np.log(2 * np.pi),
                "½ log 2π stands where (D/2) log 2π belongs": lambda q: (
                    exact(q) + 0.5 * (x.shape[1] - 1) * np.log(2 * np.pi)
                ),
                "it is a mean over the components, not a sum": lambda q: exact(q) / len(weights),
                "it is averaged over the examples": lambda q: np.full(len(x), exact(q).mean()),
                **{
                    text: lambda q, value=value: (np.exp(q) * (value() - q)).sum(axis=1)
                    for text, value in wrong.items()
                },
            },
        ),
        labels=lambda index: f"E_q[log p_θ(x, z) − log q] of example {index[1]} at {labels[index[0]]}",
    )


def floored(covariance: Array, floor: float) -> Array:
    """The covariance with every eigenvalue below the floor raised to the floor."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, floor)) @ vectors.T


KINDS = ("full", "tied", "diag", "spherical")


def of_kind(spread: Array, counts: Array, kind: str) -> Array:
    """The maximum-likelihood covariances (K, D, D) of a kind from S_k, (K, D, D), and N_k, (K,), entry by entry."""
    if kind not in KINDS:
        raise ValueError(f"covariance_type must be one of {', '.join(KINDS)}, got {kind!r}")
    K, D, _ = spread.shape
    if kind == "tied":
        total = sum(counts[k] * spread[k] for k in range(K)) / sum(float(n) for n in counts)
        return np.array([total] * K)
    if kind == "diag":
        return np.array([[[S[d, e] if d == e else 0.0 for e in range(D)] for d in range(D)] for S in spread])
    if kind == "spherical":
        return np.array([sum(S[d, d] for d in range(D)) / D * np.eye(D) for S in spread])
    return spread


@takes_arrays
def check_em(
    step: Callable[..., tuple[ArrayLike, ArrayLike, ArrayLike]],
    x: Array,
    weights: Array,
    means: Array,
    covariances: Array,
    floor: float = 0.0,
    n_iterations: int = 6,
    covariance_type: str = "full",
    ridge: float = 0.0,
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
        Number of steps, after the first, over which the likelihood is followed.
    covariance_type : {"full", "tied", "diag", "spherical"}
        The family of covariances in which the step maximises.
    ridge : float
        A number that `step` adds to every variance by choice, as reg_covar of scikit-learn.  Such a step maximises no
        likelihood, and its growth is not checked.

    A ridge or a floor that is large beside the variances of x hides them.  The check then also calls `step` with x
    times a factor such that both are 1 % of the variance.

    Returns
    -------
    Check
        Means are divided by the size of the data and covariances by its square; tolerance 3e-12, more if x − m or an
        inverse loses digits.
    """
    check_callable(step, "step(x, weights, means, covariances)")
    as_probabilities(weights, "weights")
    floor, ridge = as_number(floor, "floor", low=0.0), as_number(ridge, "ridge", low=0.0)
    options = floor, n_iterations, covariance_type, ridge
    checks = [_check_em(step, x, weights, means, covariances, *options)]
    hidden, variance = 100 * max(ridge, floor), float(x.var(axis=0).max())
    if hidden > variance > 0:
        factor = np.sqrt(hidden / variance)
        scaled = factor * x, weights, factor * means, factor**2 * covariances
        checks.append(_check_em(step, *scaled, *options, f", with x times {factor:.3g}"))
    return worst(*checks)


def _log_likelihood(x: Array, weights: Array, means: Array, covariances: Array) -> float:
    """Σ log p_θ(x) under the state that a step returns; NaN if this is no mixture."""
    if not (np.isfinite(means).all() and np.isfinite(covariances).all() and (np.linalg.det(covariances) > 0).all()):
        return float("nan")
    return float(log_sum(log_joint_by_inverses(x, weights, means, covariances)).sum())


def _check_em(
    step: Callable[..., tuple[ArrayLike, ArrayLike, ArrayLike]],
    x: Array,
    weights: Array,
    means: Array,
    covariances: Array,
    floor: float,
    n_iterations: int,
    covariance_type: str,
    ridge: float,
    where: str = "",
) -> Check:
    """`check_em` for one x; `where` ends the labels."""
    start = (weights, means, covariances)
    log_joint = log_joint_by_inverses(x, *start)
    resp = normalised(log_joint)
    counts, N, K = resp.sum(axis=0), len(x), len(weights)

    def moments(
        shares: Array, counts: Array, centres: Array | None = None, kind: str = covariance_type
    ) -> tuple[Array, Array]:
        """Means, and covariances of the type; `shares` (N, K) are the shares of each point in a component."""
        middle = shares.T @ x
        apart = x[:, None] - (middle if centres is None else centres)
        return middle, of_kind(np.einsum("nk,nkd,nke->kde", shares, apart, apart), counts, kind)

    def after(resp: Array) -> tuple[Array, Array, Array]:
        """The M-step from other responsibilities."""
        total = resp.sum(axis=0)
        return total / N, *moments(resp / total, total)

    shares = normalised(log_joint - log_sum(log_joint), axis=0)  # of each point in a component
    best_means, spread = moments(shares, counts)
    added = ridge * np.eye(x.shape[1])
    best_covariances = np.array([floored(C, floor) for C in spread]) + added
    # Divided by the components' own size: an absolute residual would depend on the units of x.
    variance = np.abs(best_covariances).max()
    length = max(np.sqrt(variance), np.abs(best_means).max())
    ahead = parts(step(x, *start), 3, "step")
    found = float(np.trace(ahead[2][0] - spread[0])) / x.shape[1] if ahead[2].shape == spread.shape else 0.0
    meant = f"not {ridge:.3g}" if ridge else "which is no maximum of (15); pass ridge= if it is meant"
    scales = np.array(1.0), length, variance

    def part_of_step(resp: Array, i: int) -> Array:
        """Part i of the step from wrong responsibilities; NaN unless they explain all three parts together."""
        wrong, found = after(resp), (ahead[0], ahead[1], ahead[2] - added)
        pairs = zip(found, wrong, scales, strict=True)
        together = all(a.shape == b.shape and np.abs(a - b).max() <= 1e-4 * s for a, b, s in pairs)
        return wrong[i] / scales[i] if together else np.full_like(wrong[i], np.nan)

    def steps(i: int) -> dict[str, Callable[[], ArrayLike]]:
        """Part i of the step from every wrong responsibility."""
        return through(lambda resp: part_of_step(resp, i), wrong_responsibilities(x, *start), "in the E-step ")

    def of_another(kind: str) -> Callable[[], ArrayLike]:
        return lambda: moments(shares, counts, kind=kind)[1] / variance

    name, tolerance = "check_em", rounding(condition_of_mixture(x, means, covariances), 3e-12)
    per = (counts / N)[:, None]
    wrong_covariances: dict[str, Callable[[], ArrayLike]] = {  # without the ridge
        "they are taken about the old means": lambda: moments(shares, counts, means)[1] / variance,
        "they are taken about the mean of the data": lambda: moments(shares, counts, x.mean(axis=0))[1] / variance,
        "they are second moments about 0": lambda: moments(shares, counts, 0 * means)[1] / variance,
        "they are divided by N_k − 1": lambda: spread * (counts / (counts - 1))[:, None, None] / variance,
        "they are divided by N, not by N_k": lambda: spread * per[..., None] / variance,
        "they are divided by N − 1, not by N_k": lambda: spread * counts[:, None, None] / (N - 1) / variance,
        "they are not divided by N_k": lambda: spread * counts[:, None, None] / variance,
        "they are standard deviations": lambda: np.sqrt(np.abs(spread)) / variance,
        "they are the precisions": lambda: np.linalg.inv(spread) / variance,
        "they are the inverse of the diagonal of the precision": lambda: (
            of_kind(
                np.array([np.diag(1 / np.diagonal(np.linalg.inv(C))) for C in moments(shares, counts, kind="full")[1]]),
                counts,
                covariance_type,
            )
            / variance
        ),
        "they are weighted by the squared responsibilities": lambda: (
            moments(resp**2 / (resp**2).sum(axis=0), counts, best_means)[1] / variance
        ),
        "they are sums with the squared responsibilities, divided by N_k": lambda: (
            moments(resp**2 / counts, counts, best_means)[1] / variance
        ),
        "they are the traces, not divided by D": lambda: x.shape[1] * spread / variance,
        "they are the plain average of the components, not weighted by N_k": lambda: (
            of_kind(moments(shares, counts, kind="full")[1], np.ones(K), "tied") / variance
        ),
        **{
            f"they are of the type “{kind}”, not “{covariance_type}”": of_another(kind)
            for kind in KINDS
            if kind != covariance_type
        },
        **steps(2),
    }
    checks = [
        compare(
            name,
            "(15)",
            "the weights after a step",
            ahead[0],
            counts / N,
            tolerance,
            {
                "they are the old ones: mixing weights are never updated": lambda: weights,
                "they are not normalised": lambda: counts,
                "one example is added to every component": lambda: (counts + 1) / (N + K),
                "they are equal": lambda: np.full(K, 1 / K),
                **{text: value for text, value in steps(0).items() if not text.endswith(PRIOR)},  # the old weights
            },
            labels=lambda index: f"the weight of component {index[0]} after a step{where}",
        ),
        compare(
            name,
            "(15)",
            "the means after a step, in units",
            ahead[1] / length,
            best_means / length,
            tolerance,
            {
                "they are the old ones": lambda: means / length,
                "they are divided by N, not by N_k": lambda: best_means * per / length,
                "they are not divided by N_k": lambda: best_means * counts[:, None] / length,
                **steps(1),
            },
            labels=lambda index: (
                f"the mean of component {index[0]}, dimension {index[1]}, after a step{where}, in units,"
            ),
        ),
        compare(
            name,
            "(15)",
            "the covariances after a step, in units",
            ahead[2] / variance,
            best_covariances / variance,
            tolerance,
            {
                "the floor is not applied": lambda: spread / variance,
                f"a ridge of {found:.3g} is added to them, {meant}": lambda: (
                    (spread + found * np.eye(x.shape[1])) / variance
                ),
                "they are the old ones": lambda: covariances / variance,
                **through(lambda C: C + added / variance, wrong_covariances),
            },
            labels=lambda index: f"the covariance {index[1:]} of component {index[0]} after a step{where}, in units,",
        ),
    ]
    if ridge == 0 and all(check.passed for check in checks):
        state, log_likelihoods = ahead, []  # the start may lie outside the family of the covariances
        for _ in range(n_iterations + 1):
            log_likelihoods.append(_log_likelihood(x, *state))
            if not np.isfinite(log_likelihoods[-1]):
                break
            state = parts(step(x, *state), 3, "step")
        values = np.array(log_likelihoods)
        highest = np.maximum.accumulate(np.where(np.isfinite(values), values, values[0]))
        checks.append(compare(name, "(18)", "the log-likelihood after each step", values, highest, 1e-9))
    return worst(*checks)
