"""Checks of equations (3)-(12): the posterior, the ELBO and the joint KL, for tables and the linear-Gaussian model.

The tables are p_x (X,), q[x, z] = q(z | x), decoder[x, z] = p_θ(x | z), prior (Z,) and joint[x, z] = p_θ(x, z).  All
entries are positive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, check_callable, parts, takes_arrays
from scratchgen.conformance.instances import argmin, at_each, by_entry, result, rounding
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.validation import Array

# --- tables ----------------------------------------------------------------------------------------------------------


def as_model(q: Array, decoder: Array, prior: Array) -> None:
    """Raise ValueError unless q, decoder and prior are tables of one shape (X, Z) with the sums of probabilities."""
    as_probabilities(q, "q", axis=1)
    as_probabilities(decoder, "decoder", axis=0)
    as_probabilities(prior, "prior")
    if q.shape != decoder.shape or prior.shape != q.shape[1:]:
        raise ValueError(
            f"q, decoder and prior must be (X, Z), (X, Z) and (Z,), got {q.shape}, {decoder.shape}, {prior.shape}"
        )


def as_joint(joint: Array, q: Array) -> None:
    """Raise ValueError unless joint is a distribution of (x, z) and q holds one of z for every x."""
    as_probabilities(joint, "joint", axis=(0, 1))
    as_probabilities(q, "q", axis=1)


def gap_of_tables(joint: Array, q: Array) -> tuple[Array, Array, Array, Array]:
    """log p(x), KL(q‖p(z | x)), E_q log p(x, z) and H(q), (X,) each, by plain sums."""
    evidence = joint.sum(axis=1)
    kl = (q * (np.log(q) - np.log(joint / evidence[:, None]))).sum(axis=1)
    return np.log(evidence), kl, (q * np.log(joint)).sum(axis=1), -(q * np.log(q)).sum(axis=1)


def best_q(joint: Array, n_steps: int = 70) -> tuple[Array, Array]:
    """The q(z | x), (X, Z), with the largest ELBO, and this ELBO, (X,): ascent from the uniform q.

    A step of natural-gradient ascent with step size ½ is log q ← ½(log q + log p(x, z)) + constant.
    """
    log_q = np.full(joint.shape, -np.log(joint.shape[1]))
    for _ in range(n_steps):
        log_q = 0.5 * (log_q + np.log(joint))
        log_q -= log_q.max(axis=1, keepdims=True)
        log_q -= np.log(np.exp(log_q).sum(axis=1, keepdims=True))
    q = np.exp(log_q)
    return q, (q * (np.log(joint) - log_q)).sum(axis=1)


PATH = (0.0, 0.4, 0.8, 0.95, 1.0, 1.05, 1.3)  # 0 is a q, 1 the posterior


def path_of_q(joint: Array, q: Array) -> list[Array]:
    """q^{1−s} p(z | x)^s, normalised, for s in `PATH`; a q at the posterior is first moved away from it."""
    posterior = joint / joint.sum(axis=1, keepdims=True)
    start = q * np.exp(0.7 * np.cos(np.arange(1.0, q.size + 1)).reshape(q.shape))
    between = [np.log(start) * (1 - s) + np.log(posterior) * s for s in PATH]
    path = [np.exp(np.maximum(log_q - log_q.max(axis=1, keepdims=True), -600)) for log_q in between]  # all positive
    path = [table / table.sum(axis=1, keepdims=True) for table in path]
    path[PATH.index(1.0)] = posterior
    return path


def _condition(*tables: Array) -> float:
    """The largest |log p| of the tables: the error of a sum of p log p in units of machine epsilon."""
    return float(1 - np.log(min(table.min() for table in tables)))


def _name_of_q(i: int) -> str:
    """The q number i of an array over the given q and those of the path."""
    return "the given q" if i == 0 else f"q^{{1−s}} p(z | x)^s, s = {PATH[i - 1]:g}"


def _at_s(quantity: str, index: tuple[int, ...]) -> str:
    """The subject of an entry of an array over (q, x)."""
    return f"{quantity} at {_name_of_q(index[0])}, x = {index[1]},"


def at_law(quantity: str, i: int) -> str:
    """The subject of an entry of a flat array over q and two p(x)."""
    return f"{quantity} at {_name_of_q(i // 2)}, {'another' if i % 2 else 'the given'} p(x),"


@takes_arrays
def check_latent_posterior(posterior: Callable[[Array], tuple[ArrayLike, ArrayLike]], joint: Array) -> Check:
    """(3), (11), (16): the posterior p(z | x) and the evidence p(x) from the joint.

    The right side does not divide by a sum.  It maximises the ELBO over q(z | x): the maximum is at the posterior, and
    its value is log p(x), (4)-(6).

    Parameters
    ----------
    posterior : callable
        posterior(joint) → (p(z | x) (X, Z), p(x) (X,)).
    joint : (X, Z)
        p(x, z), positive, sum 1.

    Returns
    -------
    Check
        The larger of the two residuals, relative; tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(posterior, "posterior(joint)")
    as_probabilities(joint, "joint", axis=(0, 1))
    table, evidence = parts(posterior(joint), 2, "posterior")
    best, largest = best_q(joint)
    tolerance = rounding(_condition(joint))
    return worst(
        compare(
            "check_latent_posterior",
            "(3)",
            "the evidence p(x)",
            evidence,
            np.exp(largest),
            tolerance,
            {
                "it is the sum over x, which is p(z)": lambda: joint.sum(axis=0),
                "it is the sum of the squares": lambda: (joint**2).sum(axis=1),
                "it is log p(x)": lambda: largest,
                "it is the product over z, not the sum": lambda: joint.prod(axis=1),
                "it is the mean over z, not the sum": lambda: np.exp(largest) / joint.shape[1],
                "it is the largest term of the sum": lambda: joint.max(axis=1),
            },
            relative=True,
            labels=lambda index: f"p(x = {index[0]})",
        ),
        compare(
            "check_latent_posterior",
            "(3)",
            "p(z | x)",
            table,
            best,
            tolerance,
            {
                "it is normalised over x: that is p(x | z)": lambda: joint / joint.sum(axis=0),
                "the prior p(z) is left out: it is p(x | z), normalised over z": lambda: (
                    joint / joint.sum(axis=0) / (joint / joint.sum(axis=0)).sum(axis=1, keepdims=True)
                ),
                "it is not normalised": lambda: joint,
                "it is divided by 1/X, a p(x) of the data, not by p_θ(x)": lambda: len(joint) * joint,
                "it is 0 or 1: the most probable z": lambda: joint == joint.max(axis=1, keepdims=True),
                "it is divided by the largest entry": lambda: joint / joint.max(axis=1, keepdims=True),
                "it is a softmax of p(x, z), without a logarithm": lambda: (
                    np.exp(joint) / np.exp(joint).sum(axis=1, keepdims=True)
                ),
                "it is log p(z | x)": lambda: np.log(best),
            },
            relative=True,
            labels=lambda index: f"p(z = {index[1]} | x = {index[0]})",
        ),
    )


@takes_arrays
def check_posterior_kl(kl: Callable[[Array, Array], ArrayLike], joint: Array, q: Array) -> Check:
    """(4): KL(q(z | x)‖p(z | x)) of every x, and its least value 0, at the posterior.

    The values are compared at q and along a path of q that passes through the posterior.  The least one on the path
    must be at the posterior.

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
        The larger of the residuals of the values and of the argmin; tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(kl, "kl(joint, q)")
    as_joint(joint, q)
    instances = [(joint, table) for table in (q, *path_of_q(joint, q))]

    def exact(joint: Array, q: Array) -> Array:
        log_evidence, _, log_joint, entropy = gap_of_tables(joint, q)
        return log_evidence - log_joint - entropy

    def reversed_kl(joint: Array, q: Array) -> Array:
        posterior = joint / joint.sum(axis=1, keepdims=True)
        return (posterior * np.log(posterior / q)).sum(axis=1)

    name, left = "check_posterior_kl", [result(kl(*instance), "kl") for instance in instances]
    right = np.array([exact(*instance) for instance in instances])
    right[1 + PATH.index(1.0)] = 0.0
    values = compare(
        name,
        "(4)",
        "KL(q‖p(z | x))",
        left,
        right,
        rounding(_condition(joint, *(table for _, table in instances))),
        at_each(
            instances,
            {
                "it is KL(p(z | x)‖q), with swapped arguments": reversed_kl,
                "p(x, z) is normalised over x: that is p(x | z)": lambda joint, q: (
                    q * np.log(q / (joint / joint.sum(axis=0)))
                ).sum(axis=1),
                "the joint is not normalised: it is −ELBO": lambda joint, q: (q * np.log(q / joint)).sum(axis=1),
                "it is the KL to the prior p(z), not to p(z | x)": lambda joint, q: (
                    q * np.log(q / joint.sum(axis=0))
                ).sum(axis=1),
                "the entropy of q is missing": lambda joint, q: exact(joint, q) - (q * np.log(q)).sum(axis=1),
                "it is a mean over z, not a sum": lambda joint, q: exact(joint, q) / q.shape[1],
                "it is averaged over x": lambda joint, q: np.full(len(q), exact(joint, q).mean()),
                "it is in bits, not in nats": lambda joint, q: exact(joint, q) / np.log(2),
            },
        ),
        labels=lambda index: _at_s("KL(q‖p(z | x))", index),
    )
    return worst(values, *_optimum(name, "(4)", "s of the least KL(q‖p(z | x)) (1 is the posterior)", values, 1, right))


def _optimum(name: str, equation: str, quantity: str, values: Check, sign: int, exact: Array) -> list[Check]:
    """The place of the least value along the path, if all values have the right shape; sign −1 for the largest."""
    if values.left.shape != exact.shape:
        return []
    found = argmin(sign * values.left[1:], sign * exact[1:], PATH)
    best = argmin(sign * exact[1:], sign * exact[1:], PATH)
    return [compare(name, equation, quantity, found, best, 1e-12)]


@takes_arrays
def check_elbo(elbo: Callable[[Array, Array], ArrayLike], joint: Array, q: Array) -> Check:
    """(5)-(6), (8): ELBO = log p(x) − KL(q‖p(z | x)) of every x; its largest value is log p(x), at the posterior.

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
        The larger of the residuals of the values and of the argmax; tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(elbo, "elbo(joint, q)")
    as_joint(joint, q)
    instances = [(joint, table) for table in (q, *path_of_q(joint, q))]

    def gap(swapped: bool) -> Callable[[Array, Array], Array]:
        def value(joint: Array, q: Array) -> Array:
            posterior = joint / joint.sum(axis=1, keepdims=True)
            a, b = (posterior, q) if swapped else (q, posterior)
            return np.log(joint.sum(axis=1)) - (a * np.log(a / b)).sum(axis=1)

        return value

    name, exact = "check_elbo", gap(swapped=False)
    right = np.array([exact(*instance) for instance in instances])
    values = compare(
        name,
        "(5)",
        "the ELBO",
        [result(elbo(*instance), "elbo") for instance in instances],
        right,
        rounding(_condition(joint, *(table for _, table in instances))),
        at_each(
            instances,
            {
                "the entropy of q is missing": lambda joint, q: (q * np.log(joint)).sum(axis=1),
                "the entropy of q has the wrong sign": lambda joint, q: (q * np.log(q * joint)).sum(axis=1),
                "the gap is KL(p(z | x)‖q), with swapped arguments": gap(swapped=True),
                "it is −ELBO, the loss": lambda joint, q: -exact(joint, q),
                "it is −KL(q‖p(z | x)): log p(x) is missing": lambda joint, q: (
                    exact(joint, q) - np.log(joint.sum(axis=1))
                ),
                "the entropy of q is in bits": lambda joint, q: (
                    (q * np.log(joint)).sum(axis=1) - (q * np.log2(q)).sum(axis=1)
                ),
                "E_q stands under the logarithm: it is log E_q p(x, z) plus the entropy of q": lambda joint, q: (
                    np.log((q * joint).sum(axis=1)) - (q * np.log(q)).sum(axis=1)
                ),
                "the entropy of q is summed over x": lambda joint, q: (
                    (q * np.log(joint)).sum(axis=1) - (q * np.log(q)).sum()
                ),
                "it is log p(x): E_q stands under the logarithm": lambda joint, q: np.log(joint.sum(axis=1)),
                "log p(z) is missing: it is E_q log p(x | z)/q": lambda joint, q: (
                    exact(joint, q) - (q * np.log(joint.sum(axis=0))).sum(axis=1)
                ),
                "it is a mean over z, not a sum": lambda joint, q: exact(joint, q) / q.shape[1],
                "it is averaged over x": lambda joint, q: np.full(len(q), exact(joint, q).mean()),
                "the KL of the gap is doubled": lambda joint, q: 2 * exact(joint, q) - np.log(joint.sum(axis=1)),
            },
        ),
        labels=lambda index: _at_s("the ELBO", index),
    )
    return worst(values, *_optimum(name, "(6)", "s of the largest ELBO (1 is the posterior)", values, -1, right))


@takes_arrays
def check_split_elbo(elbo: Callable[..., ArrayLike], decoder: Array, prior: Array, q: Array) -> Check:
    """(7): E_q log p(x | z) − KL(q‖p(z)) of every x, which equals log p(x) − KL(q‖p(z | x)).

    The values are compared at q and along a path of q that passes through the posterior.

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
        Tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(elbo, "elbo(decoder, prior, q)")
    as_model(q, decoder, prior)
    instances = [(decoder, prior, table) for table in (q, *path_of_q(decoder * prior, q))]

    def split(weight: float = 1.0, bits: float = 1.0) -> Callable[..., Array]:
        return lambda decoder, prior, q: (
            (q * np.log(decoder)).sum(axis=1) * bits - weight * (q * np.log(q / prior)).sum(axis=1)
        )

    def exact(decoder: Array, prior: Array, q: Array) -> Array:
        log_evidence, kl, _, _ = gap_of_tables(decoder * prior, q)
        return log_evidence - kl

    left = [result(elbo(*instance), "elbo") for instance in instances]
    weight = 1.0
    if all(value.shape == (len(q),) for value in left):
        with np.errstate(divide="ignore", invalid="ignore"):  # with one latent state every KL is 0
            ratios = [
                (split(0.0)(*instance) - value) / (split(0.0)(*instance) - split()(*instance))
                for instance, value in zip(instances, left, strict=True)
            ]
        weight = float(np.nan_to_num(np.median(ratios), nan=1.0, posinf=1.0, neginf=1.0))
    fitted = (
        {}
        if np.isclose(weight, [-1, 0, 0.5, 1, 2, 1 / len(prior)]).any()
        else {f"the KL is multiplied by the weight {weight:.4g}": split(weight)}
    )
    return compare(
        "check_split_elbo",
        "(7)",
        "E_q log p(x | z) − KL(q‖p(z))",
        left,
        [exact(*instance) for instance in instances],
        rounding(_condition(decoder, prior, *(table for *_, table in instances))),
        at_each(
            instances,
            {
                **fitted,
                "the KL is missing": split(0.0),
                "the KL is added: its sign is wrong": split(-1.0),
                "the KL is doubled": split(2.0),
                "the KL is halved": split(0.5),
                "the KL is reversed": lambda decoder, prior, q: (
                    (q * np.log(decoder)).sum(axis=1) - (prior * np.log(prior / q)).sum(axis=1)
                ),
                "it is −ELBO, the loss": lambda *a: -exact(*a),
                "the reconstruction E_q log p(x | z) is missing": split(bits=0.0),
                "the KL is averaged over z, not summed": split(1 / len(prior)),
                "the reconstruction is averaged over the prior, not over q": lambda decoder, prior, q: (
                    np.log(decoder) @ prior - (q * np.log(q / prior)).sum(axis=1)
                ),
                "the KL is averaged over x": lambda decoder, prior, q: (
                    (q * np.log(decoder)).sum(axis=1) - (q * np.log(q / prior)).sum(axis=1).mean()
                ),
                "the prior is taken as uniform": lambda decoder, prior, q: (
                    (q * np.log(decoder)).sum(axis=1) - (q * np.log(q * len(prior))).sum(axis=1)
                ),
                "the entropy of q is missing": lambda decoder, prior, q: (q * np.log(decoder * prior)).sum(axis=1),
                "the expectation E_q stands under the logarithm": lambda decoder, prior, q: (
                    np.log((q * decoder).sum(axis=1)) - (q * np.log(q / prior)).sum(axis=1)
                ),
                "it is averaged over x": lambda decoder, prior, q: np.full(len(q), exact(decoder, prior, q).mean()),
                "the posterior p(z | x) stands in the place of p(x | z)": lambda decoder, prior, q: (
                    (q * np.log(decoder * prior / (decoder @ prior)[:, None])).sum(axis=1)
                    - (q * np.log(q / prior)).sum(axis=1)
                ),
            },
        ),
        labels=lambda index: _at_s("E_q log p(x | z) − KL(q‖p(z))", index),
    )


def other_p(p_x: Array) -> Array:
    """A distribution over x that is neither p(x) nor uniform."""
    tilted = p_x * np.exp(0.9 * np.sin(np.arange(1.0, len(p_x) + 1)))
    return tilted / tilted.sum()


def tables_and_laws(p_x: Array, q: Array, decoder: Array, prior: Array) -> tuple[list[Array], list[Array]]:
    """q and the tables along its path through the posterior, and two distributions of x; the arguments are checked."""
    as_probabilities(p_x, "p_x")
    as_model(q, decoder, prior)
    return [q, *path_of_q(decoder * prior, q)], [p_x, other_p(p_x)]


@takes_arrays
def check_joint_kl(joint_kl: Callable[..., ArrayLike], p_x: Array, q: Array, decoder: Array, prior: Array) -> Check:
    """(9)-(10), (12): KL(p q‖p_θ(x, z)) = KL(p‖p_θ(x)) + E_p KL(q‖p_θ(z | x)).

    (10) drops the second term.  The deck assumes q ≈ p(z | x) for this; the chain rule holds for every q.  The values
    are compared for two p(x), at q and along a path of q that passes through the posterior p_θ(z | x).  The least
    value on the path must be KL(p‖p_θ(x)), the equality case of (9) and (10), and at the posterior.

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
        The largest of three residuals; tolerance 5e-14, more if a logarithm is large.
    """
    check_callable(joint_kl, "joint_kl(p_x, q, decoder, prior)")
    tables, laws = tables_and_laws(p_x, q, decoder, prior)
    instances = [(p, table, decoder, prior) for table in tables for p in laws]

    def chain_rule(p: Array, q: Array, *model: Array) -> tuple[float, float, float]:
        log_evidence, gap, _, _ = gap_of_tables(model[0] * model[1], q)
        return float(p @ (np.log(p) - log_evidence)), float(p @ gap), float(gap.mean())

    name, n = "check_joint_kl", len(tables)
    left = [result(joint_kl(*instance), "joint_kl") for instance in instances]
    right = np.array([sum(chain_rule(*instance)[:2]) for instance in instances])
    tolerance = rounding(_condition(p_x, decoder, prior, *tables))
    values = compare(
        name,
        "(12)",
        "KL(p(x) q(z | x)‖p_θ(x, z))",
        left,
        right,
        tolerance,
        at_each(
            instances,
            {
                "p(x) is missing under the logarithm: it is (13)": lambda p, *a: (
                    sum(chain_rule(p, *a)[:2]) - p @ np.log(p)
                ),
                "it is KL(p‖p_θ(x)), the marginal KL": lambda *a: chain_rule(*a)[0],
                "it is E_p KL(q‖p_θ(z | x)), the gap alone": lambda *a: chain_rule(*a)[1],
                "the inner KL is averaged over x without p(x)": lambda *a: chain_rule(*a)[0] + chain_rule(*a)[2],
                "it is E_p KL(q‖p(z)): p_θ(x | z) is missing": lambda p, q, decoder, prior: (
                    p @ (q * np.log(q / prior)).sum(axis=1)
                ),
                "the arguments are swapped": lambda p, q, decoder, prior: (
                    decoder * prior * np.log(decoder * prior / (p[:, None] * q))
                ).sum(),
                "the prior is missing": lambda p, q, decoder, prior: (
                    p[:, None] * q * np.log(p[:, None] * q / decoder)
                ).sum(),
                "the entropy of q is missing": lambda p, q, decoder, prior: (
                    p[:, None] * q * np.log(p[:, None] / (decoder * prior))
                ).sum(),
                "p(x) does not weigh the sum": lambda p, q, decoder, prior: (
                    q * np.log(p[:, None] * q / (decoder * prior))
                ).sum(),
                "it is a mean over the table": lambda p, q, decoder, prior: (
                    p[:, None] * q * np.log(p[:, None] * q / (decoder * prior))
                ).mean(),
                "the aggregate E_p q(z | x) stands in the place of the prior": lambda p, q, decoder, prior: (
                    p[:, None] * q * np.log(p[:, None] * q / (decoder * (p @ q)))
                ).sum(),
                "p(x) is taken as uniform": lambda p, q, decoder, prior: (
                    q / len(p) * np.log(q / len(p) / (decoder * prior))
                ).sum(),
                "q is averaged over x": lambda p, q, decoder, prior: (
                    p[:, None] * (p @ q) * np.log(p[:, None] * (p @ q) / (decoder * prior))
                ).sum(),
            },
        ),
        labels=lambda index: at_law("KL(p(x) q(z | x)‖p_θ(x, z))", index[0]),
    )
    if values.left.shape != right.shape:
        return values
    found, exact = values.left.reshape(n, 2)[1:], right.reshape(n, 2)[1:]
    marginal = np.array([chain_rule(*instance)[0] for instance in instances[:2]])
    return worst(
        values,
        compare(
            name, "(10)", "the least KL over q (it should be KL(p‖p_θ(x)))", found.min(axis=0), marginal, tolerance
        ),
        compare(
            name,
            "(9)",
            "s of the least KL (1 is the posterior)",
            argmin(found, exact, PATH),
            argmin(exact, exact, PATH),
            1e-12,
        ),
    )


# --- the linear-Gaussian model ---------------------------------------------------------------------------------------


def by_regression(x: Array, W: Array, mean: Array, noise_variance: ArrayLike) -> tuple[Array, Array, Array, float]:
    """E[z | x] (N, k), R (k, k), log p_θ(x) (N,) and a condition number, of p(z) = N(0, I), p(x | z) = N(Wz + μ, Ψ).

    The condition number is ‖I + WᵀΨ⁻¹W‖, an upper bound of that of the matrix itself, and of Cov x if Ψ = σ² I.

    E[z | x] is the least-squares solution of [Ψ^{−½}W; I] z = [Ψ^{−½}(x − μ); 0].  With R of the QR decomposition
    Cov(z | x) = (RᵀR)⁻¹ and log|Cov x| = log|Ψ| + 2 log|R|.  Nothing of size D × D is formed, so that a small noise
    variance costs no digits.
    """
    (D, k), std = W.shape, np.sqrt(np.broadcast_to(np.asarray(noise_variance, dtype=np.float64), len(W)))
    design = np.vstack([W / std[:, None], np.eye(k)])
    target = np.vstack([((x - mean) / std).T, np.zeros((k, len(x)))])
    Q, R = np.linalg.qr(design)
    z = np.linalg.solve(R, Q.T @ target)
    rest = ((target - design @ z) ** 2).sum(axis=0)
    log_det = 2 * np.log(std).sum() + 2 * np.log(np.abs(np.diagonal(R))).sum()
    return z.T, R, -0.5 * (D * np.log(2 * np.pi) + log_det + rest), float(np.linalg.norm(R, 2)) ** 2


def condition(W: Array, noise_variance: ArrayLike) -> tuple[Array, Array]:
    """Cov(z, x) Cov(x)⁻¹, (k, D), and Cov(z | x), (k, k), of p(z) = N(0, I), p(x | z) = N(W z + μ, Ψ)."""
    means, R, _, _ = by_regression(np.eye(len(W)), W, np.zeros(len(W)), noise_variance)
    root = np.linalg.inv(R)
    return means.T, root @ root.T


@takes_arrays
def check_linear_gaussian_posterior(
    posterior: Callable[..., tuple[ArrayLike, ArrayLike]], x: Array, W: Array, mean: Array, noise_variance: float
) -> Check:
    """(11): the posterior of p(z) = N(0, I), p(x | z) = N(W z + μ, σ² I), and p_θ(x | z) q(z)/p_θ(z | x) = p_θ(x).

    The right side is a regression of x on W with the prior as further rows.  The quotient of (11) is p_θ(x) for every
    z; printed with the denominator p(x) of the data, the posterior would not integrate to 1.

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
        The largest of three residuals; tolerance 5e-14, more in proportion to the condition number of I + WᵀW/σ².
    """
    check_callable(posterior, "posterior(x, W, mean, noise_variance)")
    exact, R, log_prob, conditioned = by_regression(x, W, mean, noise_variance)
    root = np.linalg.inv(R)
    covariance, k, s2 = root @ root.T, W.shape[1], noise_variance
    means, given = parts(posterior(x, W, mean, s2), 2, "posterior")
    name, tolerance = "check_linear_gaussian_posterior", rounding(conditioned)

    def ridge(prior: float, noise: float, centre: float = 1.0) -> Array:
        """(prior · noise I + WᵀW)⁻¹Wᵀ(x − centre · μ)."""
        return (x - centre * mean) @ W @ np.linalg.inv(prior * noise * np.eye(k) + W.T @ W).T

    checks = [
        compare(
            name,
            "(11)",
            "E[z | x]",
            means,
            exact,
            tolerance,
            {
                "μ is not subtracted": lambda: ridge(1, s2, 0.0),
                "σ stands where σ² belongs": lambda: ridge(1, s2**0.5),
                "σ² is squared": lambda: ridge(1, s2**2),
                "σ² is 1": lambda: ridge(1, 1.0),
                "the prior is missing: it is least squares": lambda: ridge(0, 1.0),
                "1/σ² is missing: it is Cov(z | x) Wᵀ(x − μ)": lambda: exact * s2,
                "σ² is missing in the precision: it is (I + WᵀW)⁻¹Wᵀ(x − μ)/σ²": lambda: ridge(1, 1.0) / s2,
                "M⁻¹ is missing: it is Wᵀ(x − μ)/σ²": lambda: (x - mean) @ W / s2,
                "M⁻¹ is missing: it is Wᵀ(x − μ)": lambda: (x - mean) @ W,
                "it is divided by σ²": lambda: exact / s2,
            },
            labels=lambda index: f"E[z | x] of example {index[0]}, latent {index[1]}",
        ),
        compare(
            name,
            "(11)",
            "Cov(z | x)",
            given,
            covariance,
            tolerance,
            {
                "σ² is missing: it is (WᵀW + σ² I)⁻¹": lambda: covariance / s2,
                "it is the precision": lambda: R.T @ R,
                "σ² is missing in the precision: it is (I + WᵀW)⁻¹": lambda: np.linalg.inv(np.eye(k) + W.T @ W),
                "it is WᵀW + σ² I": lambda: W.T @ W + s2 * np.eye(k),
                "σ stands where σ² belongs": lambda: np.linalg.inv(np.eye(k) + W.T @ W / s2**0.5),
                "the prior is missing: it is σ²(WᵀW)⁻¹": lambda: s2 * np.linalg.inv(W.T @ W),
                "it is the prior covariance": lambda: np.eye(k),
                "only its diagonal is kept": lambda: np.diag(np.diagonal(covariance)),
                "it is a factor L of L Lᵀ, not the covariance": lambda: np.linalg.cholesky(covariance),
            },
            labels=lambda index: f"Cov(z | x)[{index[0]}, {index[1]}]",
        ),
    ]
    if not all(checks):
        return worst(*checks)
    probes = means + (np.array([np.zeros(k), np.ones(k), *(2 * np.eye(k))]) @ root.T)[:, None]  # (k + 2, N, k)
    white = np.linalg.solve(np.linalg.cholesky(given), (probes - means)[..., None])[..., 0]
    squares = (white**2).sum(axis=-1) - (probes**2).sum(axis=-1)
    residual = ((x - mean - probes @ W.T) ** 2).sum(axis=-1) / s2
    log_det = np.linalg.slogdet(given)[1] - x.shape[1] * np.log(2 * np.pi * s2)
    quotient = 0.5 * (squares - residual + log_det)
    size = (1 + np.abs(residual) + np.abs(squares)) / (1 + np.abs(log_prob))
    return worst(
        *checks,
        compare(
            name,
            "(11)",
            "log p_θ(x | z) q(z)/p_θ(z | x) (it should be log p_θ(x) for every z)",
            quotient,
            np.broadcast_to(log_prob, quotient.shape),
            rounding(conditioned * size),
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

    The values are compared at q, at q with another covariance, and at q = p_θ(z | x), where the ELBO is log p_θ(x).

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
        Tolerance 5e-14, more in proportion to the condition numbers of I + WᵀW/σ² and q_cov.
    """
    check_callable(elbo, "elbo(x, W, mean, noise_variance, q_mean, q_cov)")
    posterior_mean, R, log_prob, conditioned = by_regression(x, W, mean, noise_variance)
    root = np.linalg.inv(R)
    (N, D), k, s2 = x.shape, W.shape[1], noise_variance
    posterior_cov = root @ root.T
    instances = [(q_mean, q_cov), (0.5 * q_mean, q_cov + np.diag(0.1 + np.arange(k))), (posterior_mean, posterior_cov)]
    labels = ["the given q", "another q", "the posterior"]

    def exact(m: Array, V: Array) -> Array:
        shift = (m - posterior_mean) @ R.T
        log_ratio = -2 * np.log(np.abs(np.diagonal(R))).sum() - np.linalg.slogdet(V)[1]
        return log_prob - 0.5 * ((shift**2).sum(axis=1) + np.trace(R @ V @ R.T) - k + log_ratio)

    def pieces(m: Array, V: Array) -> dict[str, Any]:
        return {
            "constant": 0.5 * D * np.log(2 * np.pi * s2),
            "squares": ((x - mean - m @ W.T) ** 2).sum(axis=1) / (2 * s2),
            "trace": 0.5 * np.trace(W @ V @ W.T) / s2,
            "kl": 0.5 * ((m**2).sum(axis=1) + np.trace(V) - k - np.linalg.slogdet(V)[1]),
            "entropy": 0.5 * np.linalg.slogdet(V)[1],
        }

    def wrong(**factors: float) -> Callable[[Array, Array], Array]:
        """Minus the sum of the pieces, each times its factor; the right factors are 1, and 0 for the entropy."""

        def value(m: Array, V: Array) -> Array:
            weights = {"constant": 1.0, "squares": 1.0, "trace": 1.0, "kl": 1.0, "entropy": 0.0, **factors}
            return -sum(weights[key] * piece for key, piece in pieces(m, V).items()) + np.zeros(N)

        return value

    sizes = [1 + sum(np.abs(piece) for piece in pieces(*q).values()) for q in instances]
    right = [exact(*q) for q in instances]
    digits = np.array([max(conditioned, np.linalg.cond(V)) for _, V in instances])[:, None]
    tolerance, unit = by_entry(digits * np.array(sizes) / (1 + np.abs(right)), right)
    return compare(
        "check_linear_gaussian_elbo",
        "(8)",
        "the linear-Gaussian ELBO",
        [result(elbo(x, W, mean, s2, *q), "elbo") for q in instances],
        right,
        tolerance,
        at_each(
            instances,
            {
                "tr W V Wᵀ is missing: the decoder is taken at the mean of q only": wrong(trace=0),
                "tr W V Wᵀ is not divided by σ²": wrong(trace=s2),
                "the constant (D/2) log 2πσ² is missing": wrong(constant=0),
                "the constant (D/2) log 2π is missing": wrong(constant=np.log(s2) / np.log(2 * np.pi * s2)),
                "log σ² is not multiplied by D": lambda m, V: exact(m, V) + 0.5 * (D - 1) * np.log(s2),
                "tr W V Wᵀ has the diagonal of V only": lambda m, V: (
                    exact(m, V) + 0.5 * float(np.trace(W @ (V - np.diag(np.diagonal(V))) @ W.T)) / s2
                ),
                "the constant is not multiplied by D": wrong(constant=1 / D),
                "D stands where k belongs in the KL: −D/2, not −k/2": lambda m, V: exact(m, V) + 0.5 * (D - k),
                "−k/2 is missing in the KL": lambda m, V: exact(m, V) - 0.5 * k,
                "the log-determinant is that of the diagonal of V": lambda m, V: (
                    exact(m, V) + 0.5 * float(np.log(np.diagonal(V)).sum() - np.linalg.slogdet(V)[1])
                ),
                "the KL is missing": wrong(kl=0),
                "the KL has the wrong sign": wrong(kl=-1),
                "the ½ of the KL is missing": wrong(kl=2),
                "the KL is averaged over the latents, not summed": wrong(kl=1 / k),
                "the ½ before the squares is missing": wrong(squares=2, trace=2),
                "the squares are averaged over the D dimensions": wrong(squares=1 / D, trace=1 / D),
                "σ stands where σ² belongs": wrong(
                    constant=np.log(2 * np.pi * s2**0.5) / np.log(2 * np.pi * s2), squares=s2**0.5, trace=s2**0.5
                ),
                "log|V| is missing in the KL": wrong(entropy=-1),
                "the ½ of log|V| is missing": wrong(entropy=1),
                "it is −ELBO, the loss": lambda *q: -exact(*q),
                "it is log p_θ(x): there is no gap": lambda *q: log_prob,
                "it is averaged over the examples": lambda *q: np.full(N, exact(*q).mean()),
                "it is divided by D": lambda *q: exact(*q) / D,
                "only the diagonal of V is used": lambda m, V: exact(m, np.diag(np.diagonal(V))),
                "μ is not subtracted": lambda m, V: (
                    exact(m, V)
                    + (((x - mean - m @ W.T) ** 2).sum(axis=1) - ((x - m @ W.T) ** 2).sum(axis=1)) / (2 * s2)
                ),
            },
        ),
        labels=lambda index: f"the ELBO of example {index[1]} at {labels[index[0]]}",
        unit=unit,
    )


@takes_arrays
def check_mean_field(
    mean_field: Callable[..., tuple[ArrayLike, ArrayLike]], x: Array, W: Array, mean: Array, noise_variance: float
) -> Check:
    """(4), (6): the diagonal Gaussian q with the least KL(q‖p(z | x)), which has the largest ELBO.

    The nearest diagonal q to a Gaussian with precision P has the variances 1/P_ii.  At the returned q the slopes of the
    KL and of the ELBO are compared with 0, in every mean and every log-variance.  The KL is convex and the ELBO concave
    in means and variances, so that the slope is 0 at the argmin only, which is the argmax as well.  The KL is the
    textbook formula, the ELBO an expectation over sigma points; their sum must be log p_θ(x).

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
        The largest of the residuals; tolerance 1e-13, for slopes 1e-10, more in proportion to the condition number of
        I + WᵀW/σ².
    """
    check_callable(mean_field, "mean_field(x, W, mean, noise_variance)")
    exact, R, log_prob, conditioned = by_regression(x, W, mean, noise_variance)
    precision, k, s2 = R.T @ R, W.shape[1], noise_variance
    means, variances = parts(mean_field(x, W, mean, s2), 2, "mean_field")
    name, tolerance = "check_mean_field", rounding(conditioned)
    checks = [
        compare(
            name,
            "(6)",
            "the means",
            means,
            exact,
            tolerance,
            {
                "μ is not subtracted": lambda: exact + mean @ W @ (np.linalg.inv(precision) / s2).T,
                "it is one sweep over the latents from 0, not the fixed point": lambda: (
                    np.linalg.solve(np.tril(precision), precision @ exact.T).T
                ),
                "the other latents are ignored: it is one update from 0, not the fixed point": lambda: (
                    exact @ precision / np.diagonal(precision)
                ),
            },
        ),
        compare(
            name,
            "(6)",
            "the variances",
            variances,
            1 / np.diagonal(precision),
            tolerance,
            {
                "they are the marginal variances of the posterior, which minimise the reversed KL": lambda: np.diagonal(
                    np.linalg.inv(precision)
                ),
                "they are the precisions": lambda: np.diagonal(precision),
                "they are standard deviations": lambda: np.diagonal(precision) ** -0.5,
                "they are the prior's": lambda: np.ones(k),
                "the prior is missing": lambda: s2 / (W**2).sum(axis=0),
                "σ² is missing: they are 1/(WᵀW + σ² I)_ii": lambda: 1 / np.diagonal(precision) / s2,
            },
        ),
    ]
    if not all(checks):
        return worst(*checks)

    def kl(m: Array, v: Array) -> Array:
        shift = (m - exact) @ R.T
        log_ratio = -2 * np.log(np.abs(np.diagonal(R))).sum() - np.log(v).sum()
        return 0.5 * ((shift**2).sum(axis=1) + np.diagonal(precision) @ v - k + log_ratio)

    def elbo(m: Array, v: Array) -> Array:
        draws = m + np.sqrt(v) * sigma_points(k)[:, None]
        log_joint = -0.5 * (((x - mean - draws @ W.T) ** 2).sum(axis=-1) / s2 + (draws**2).sum(axis=-1))
        constant = -0.5 * x.shape[1] * np.log(2 * np.pi * s2) + 0.5 * (np.log(v) + 1).sum()
        return log_joint.mean(axis=0) + constant

    def slope(objective: Callable[[Array, Array], Array], m: Array, log_v: Array) -> Array:
        """Derivative along the direction (m, log v), (N,)."""
        return np.asarray(central_difference(lambda h: objective(means + h * m, variances * np.exp(h * log_v)), 0.02))

    axes = [(np.sqrt(variances) * e, 0 * e) for e in np.eye(k)] + [(0 * e, e) for e in np.eye(k)]
    least, largest = kl(means, variances), elbo(means, variances)
    size = 1 + np.abs(largest).max()
    found = np.array([[slope(objective, *axis) for axis in axes] for objective in (kl, elbo)])
    return worst(
        *checks,
        compare(
            name,
            "(6)",
            "the slopes of the KL and of the ELBO at q (they should be 0)",
            found,
            np.zeros_like(found),
            rounding(conditioned * size * 50, 1e-10),
        ),
        compare(
            name,
            "(6)",
            "the least KL + the largest ELBO (it should be log p_θ(x))",
            least + largest,
            log_prob,
            rounding(conditioned * size),
        ),
    )
