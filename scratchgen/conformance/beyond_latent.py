"""Checks of latent-variable models beyond the deck: the two parts of the mean KL, IWAE by enumeration, EM's rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import factorial

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_probabilities, check_callable, parts, returned, takes_arrays
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.conformance.variational import as_joint
from scratchgen.quadrature import central_difference
from scratchgen.validation import Array


@takes_arrays
def check_kl_parts(
    kl_parts: Callable[[Array, Array, Array], tuple[ArrayLike, ArrayLike]], p_x: Array, q: Array, prior: Array
) -> Check:
    """Hoffman and Johnson 2016: E_p KL(q(z | x)‖prior) = I_q(x; z) + KL(q̄(z)‖prior), with q̄(z) = Σ_x p(x) q(z | x).

    Parameters
    ----------
    kl_parts : callable
        kl_parts(p_x, q, prior) → (KL(q(z | x)‖q̄(z)) of every x, (X,), whose mean is I_q(x; z); KL(q̄‖prior), a number).
    p_x : (X,)
        p(x), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    prior : (Z,)
        Positive, sum 1.

    Returns
    -------
    Check
        The larger of two residuals, also for a prior equal to q̄, where the second part is 0; tolerance 2e-14.
    """
    check_callable(kl_parts, "kl_parts(p_x, q, prior)")
    as_probabilities(p_x, "p_x")
    as_probabilities(q, "q", axis=1)
    as_probabilities(prior, "prior")
    joint = p_x[:, None] * q
    aggregate = np.array([sum(column) for column in joint.T.tolist()])
    priors = [prior, 0.5 * (prior + aggregate), aggregate]
    found = [parts(kl_parts(p_x, q, each), 2, "kl_parts") for each in priors]
    entropies = -(q * np.log(q)).sum(axis=1)
    information = -(q @ np.log(aggregate)) - entropies
    # the mean KL to a prior minus the information, which is the second part
    second = [float(p_x @ (-(q @ np.log(each)) - entropies)) - float(p_x @ information) for each in priors]
    to_prior = [-(q @ np.log(each)) - entropies for each in priors]
    name = "check_kl_parts"
    return worst(
        compare(
            name,
            "(13)",
            "KL(q(z | x)‖q̄(z))",
            [value[0] for value in found],
            [information] * len(priors),
            2e-14,
            {
                "it is the KL to the prior, not to the aggregate posterior": lambda: to_prior,
                "q̄ is the mean of q(z | x) without p(x)": lambda: (
                    [-(q @ np.log(q.mean(axis=0))) - entropies] * len(priors)
                ),
                "the arguments are swapped: it is KL(q̄(z)‖q(z | x))": lambda: (
                    [np.log(aggregate) @ aggregate - np.log(q) @ aggregate] * len(priors)
                ),
                "it is weighted by p(x)": lambda: [p_x * information] * len(priors),
            },
            labels=(["at the prior", "halfway to q̄", "at prior = q̄"], [f"x = {i}" for i in range(len(p_x))]),
        ),
        compare(
            name,
            "(13)",
            "KL(q̄(z)‖prior)",
            [value[1] for value in found],
            second,
            2e-14,
            {
                "the arguments are swapped: it is KL(prior‖q̄(z))": lambda: [
                    float(each @ np.log(each / aggregate)) for each in priors
                ]
            },
        ),
    )


def _counts(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `parts` counts with the given sum."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _counts(total - first, parts - 1):
            yield (first, *rest)


@takes_arrays
def check_iwae_ladder(iwae: Callable[[Array, Array, int], ArrayLike], joint: Array, q: Array, n_most: int = 4) -> Check:
    """Burda et al. 2016: the expected bound of n draws, n = 1..n_most, for every x, by a sum over counts of each z.

    The bound is the ELBO for n = 1, rises with n, and stays below log p(x); at q = p(z | x) it is log p(x) for every n.
    The mean of exp(bound) is p(x) also for wrong bounds: for one that uses the first draw only, and for one with other
    fixed weights of the draws.

    Parameters
    ----------
    iwae : callable
        iwae(joint, q, n) → E log (1/n) Σ_i w_i of every x, (X,), nats.
    joint : (X, Z)
        p(x, z), positive, sum 1.
    q : (X, Z)
        q(z | x), positive; every row sums to 1.
    n_most : int

    Returns
    -------
    Check
        Tolerance 5e-14.
    """
    check_callable(iwae, "iwae(joint, q, n)")
    as_joint(joint, q)
    evidence = joint.sum(axis=1)
    laws = [q, joint / evidence[:, None]]

    def ladder(law: Array, bound: Callable[[Array, Array], Array], draws: Array | None = None) -> list[Array]:
        """E bound(counts/n, w) for n = 1..n_most, with draws from the law or from another one."""
        source = law if draws is None else draws
        w, values = joint / law, list[Array]()
        for n in range(1, n_most + 1):
            total = np.zeros(len(joint))
            for counts in _counts(n, q.shape[1]):
                ways = factorial(n) / np.prod([float(factorial(c)) for c in counts])
                total += ways * np.prod(source ** np.array(counts), axis=1) * bound(np.array(counts) / n, w)
            values.append(total)
        return values

    def of(bound: Callable[[Array, Array], Array]) -> Array:
        return np.array([ladder(law, bound) for law in laws])

    n = np.arange(1.0, n_most + 1)[:, None]
    right = of(lambda share, w: np.log(w @ share))
    return compare(
        "check_iwae_ladder",
        "(8)",
        "E log (1/n) Σ_i w_i",
        [[returned(iwae(joint, law, k), (len(joint),), "iwae") for k in range(1, n_most + 1)] for law in laws],
        right,
        5e-14,
        {
            "it is the ELBO for every n: the mean of log w, not the log of the mean": lambda: of(
                lambda share, w: np.log(w) @ share
            ),
            "it is n L_n − (n − 1) L_{n−1}, a jackknife of two rungs": lambda: (
                right * n - (n - 1) * np.concatenate([0 * right[:, :1], right[:, :-1]], axis=1)
            ),
            "it is divided by n − 1, not by n": lambda: right + np.log(n / np.maximum(n - 1, 1)),
            "the draws are those of p(z | x), beside weights of q": lambda: np.array(
                [ladder(law, lambda share, w: np.log(w @ share), draws=laws[1]) for law in laws]
            ),
            "log n is not subtracted": lambda: right + np.log(n),
            "it is log E w = log p(x) for every n": lambda: right * 0 + np.log(evidence),
            "the largest weight stands for the mean": lambda: of(
                lambda share, w: np.log(np.where(share > 0, w, 0.0).max(axis=1))
            ),
        },
        labels=(
            ["at q", "at q = p(z | x)"],
            [f"n = {k}" for k in range(1, n_most + 1)],
            [f"x = {i}" for i in range(len(joint))],
        ),
    )


@takes_arrays
def check_missing_information(
    fractions: Callable[..., ArrayLike], x: Array, weights: Array, means: Array, covariances: Array
) -> Check:
    """Dempster et al. 1977: an EM step over the means multiplies the error by the fractions of missing information.

    The check runs EM over the means to its fixed point.  The right side are the eigenvalues of the derivative of one EM
    step there, by central differences, in falling order.  The largest is the rate at which EM converges.

    Parameters
    ----------
    fractions : callable
        fractions(x, weights (K,), means (K, D), covariances (K, D, D)) → (K D,), falling, at a fixed point of EM.
    x : (N, D)
        Data; the check uses all of them, and all but the last two.
    weights, means, covariances
        A mixture; EM starts at its means, and weights and covariances stay.

    Returns
    -------
    Check
        Tolerance 1e-10.
    """
    check_callable(fractions, "fractions(x, weights, means, covariances)")
    precisions = np.linalg.inv(covariances)
    log_peaks = np.log(weights) + 0.5 * np.linalg.slogdet(precisions)[1]

    def responsibilities(data: Array, at: Array) -> Array:
        apart = data[:, None] - at
        log_joint = log_peaks - 0.5 * np.einsum("nkd,kde,nke->nk", apart, precisions, apart)
        resp = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        return resp / resp.sum(axis=1, keepdims=True)

    def step(data: Array, at: Array) -> Array:
        """One EM step over the means."""
        resp = responsibilities(data, at)
        return (resp.T @ data) / resp.sum(axis=0)[:, None]

    left, right, observed = [], [], []
    for data in (x, x[:-2]):
        at = means
        for _ in range(2000):
            before, at = at, step(data, at)
            if np.abs(at - before).max() < 1e-15:
                break
        else:
            raise ValueError("EM over the means did not converge in 2000 steps for this problem; use another start")
        size = means.size
        derivative = np.stack(
            [
                np.asarray(
                    central_difference(
                        lambda u, v=v, data=data, at=at: step(data, at + u * v.reshape(at.shape)).ravel(),  # type: ignore[misc]
                        0.01,
                    )
                )
                for v in np.eye(size)
            ],
            axis=1,
        )
        left.append(returned(fractions(data, weights, at, covariances), (size,), "fractions"))
        right.append(np.sort(np.linalg.eigvals(derivative).real)[::-1])
        observed.append(1 - right[-1])
    exact = np.array(right)
    return compare(
        "check_missing_information",
        "(15)",
        "the fractions of missing information",
        left,
        exact,
        1e-10,
        {
            "they are the fractions of observed information": lambda: np.array(observed)[:, ::-1],
            "they are in rising order": lambda: exact[:, ::-1],
            "they are the squares: the rate of the likelihood, not of the means": lambda: exact**2,
        },
        labels=(["all data", "without the last two"], [f"eigenvalue {i}" for i in range(means.size)]),
    )
