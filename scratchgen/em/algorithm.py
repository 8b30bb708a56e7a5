"""The two steps of EM, (15) and (18), and the loop that alternates them.

`m_step_table`, `e_step` and `free_energy` are for a discrete z.  All models use the loop `em`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from scratchgen.likelihood import logsumexp
from scratchgen.validation import (
    Array,
    as_arrays,
    as_count,
    as_finite,
    as_number,
    as_real,
    check_callable,
    check_probabilities,
)

Theta = TypeVar("Theta")  # the parameters of a model
Expected = TypeVar("Expected")  # the result of an E-step: q(z | x), or sufficient statistics under q


class Iterate(NamedTuple, Generic[Theta, Expected]):
    """State of `em` after an E-step."""

    theta: Theta
    expected: Expected  # result of the E-step at theta
    bounds: list[float]  # the bound after every E-step so far, nats; `em` appends to this list
    converged: bool  # the last gain was less than tol, and no fall


def em(
    start: Theta,
    e_step: Callable[[Theta], tuple[Expected, Array | float]],
    m_step: Callable[[Expected, Theta], Theta],
    tol: float = 0.0,
    max_iter: int = 100,
    log_prior: Callable[[Theta], float] = lambda theta: 0.0,
    bounds: Sequence[float] = (),
) -> Iterator[Iterate[Theta, Expected]]:
    """Alternate the two minimisations of KL(p(x) q(z | x)‖p_θ(x, z)), (15)-(18).

    The bound (1/N) Σ_n log p_θ(x_n) + log_prior(θ) does not decrease from one E-step to the next.

    Parameters
    ----------
    start : θ
        Initial parameters.
    e_step : θ → (result of the E-step, ELBO at its q)
        The ELBO, (8), nats, is given for every example, (N,), or as their mean.  At q = p_θ(z | x) it is log p_θ(x).
    m_step : (result of the E-step, θ) → θ
        Maximiser of E_p E_q log p_θ(x, z) + log_prior(θ).
    tol : float
        EM has converged when the bound increases by less than tol, nats.  A bound that falls by more than its rounding
        error shows a mistake, and is not convergence.
    max_iter : int
        Largest number of M-steps.
    log_prior : θ → float
        log p(θ)/N, nats, for a maximum a posteriori estimate; 0 by default.
    bounds : sequence of float
        Bounds of the E-steps before that at `start`, if `start` is an iterate of a run that goes on.

    Yields
    ------
    iterate : Iterate
        After every E-step, that at `start` first: with those of `bounds` at most max_iter + 1.
    """
    for name, f in {"e_step": e_step, "m_step": m_step, "log_prior": log_prior}.items():
        check_callable(f, name, "of the parameters")
    tol, max_iter = as_number(tol, "tol", low=0.0), as_count(max_iter, "max_iter", minimum=0)
    theta, so_far = start, as_arrays("bounds (n)", as_finite(bounds, "bounds")).tolist()
    while True:
        expected, elbo = e_step(theta)  # (18): q(z | x) ← p_θ(z | x)
        so_far.append(_bound(elbo, log_prior(theta)))
        converged = _has_converged(so_far, tol)
        yield Iterate(theta, expected, so_far, converged)
        if converged or len(so_far) > max_iter:
            return
        theta = m_step(expected, theta)  # (15): θ ← argmax E_p E_q log p_θ(x, z), q held fixed


def _bound(elbo: Array | float, log_prior: float) -> float:
    """Mean of the ELBO of an E-step plus the log prior density, nats."""
    return float(np.mean(as_real(elbo, "the ELBO of e_step"))) + float(as_real(log_prior, "log_prior(θ)"))


def _has_converged(bounds: Sequence[float], tol: float) -> bool:
    """Whether the last gain of the bounds was less than tol, and no fall by more than rounding."""
    rounding = 1e-12 * (1 + abs(bounds[-1]))
    return len(bounds) > 1 and -rounding < bounds[-1] - bounds[-2] < tol


class LatentLaw(Protocol):
    """A distribution of x with a discrete component z = 1..K: `Mixture` or `CategoricalLaw`."""

    @property
    def log_weights(self) -> Array:
        """log p(z), (K,), nats."""

    def log_joint(self, x: Array) -> Array:
        """log p_θ(x_n, z = k), (N, K), nats."""


def check_law(law: LatentLaw) -> None:
    """Raise TypeError unless law has the methods of a Mixture or a CategoricalLaw."""
    if isinstance(law, type) or not hasattr(law, "log_joint"):
        raise TypeError(f"law must be a Mixture or a CategoricalLaw, got {law!r:.60}; pass an instance")


def e_step(x: Array, law: LatentLaw) -> tuple[Array, Array]:
    """The E-step q(z | x) = p_θ(z | x), (18), in logarithms.

    Parameters
    ----------
    x : (N, D)
        Data, or any other form of them that `law.log_joint` takes.
    law : Mixture or CategoricalLaw
        p_θ.

    Returns
    -------
    log_resp : (N, K)
        log q(z = k | x_n).  Where p_θ(x_n) = 0, any q is a posterior, and the prior p_θ(z) is returned.
    log_prob : (N,)
        log p_θ(x_n), nats, (16), which is the ELBO at this q.
    """
    check_law(law)
    log_joint = law.log_joint(x)
    log_prob = logsumexp(log_joint)
    impossible = np.isneginf(log_prob)
    if impossible.any():
        log_joint[impossible] = law.log_weights
    return log_joint - np.where(impossible, 0.0, log_prob)[:, None], log_prob


def free_energy(x: Array, log_resp: Array, law: LatentLaw) -> Array:
    """The ELBO E_q[log p_θ(x, z) − log q(z | x)] of (8) for every x, (N,), nats; log p_θ(x) at the q of (18).

    Parameters
    ----------
    x : (N, D)
    log_resp : (N, K)
        log q(z | x) of any q.
    law : Mixture or CategoricalLaw
        p_θ.
    """
    check_law(law)
    log_joint = law.log_joint(x)
    log_resp = as_arrays("log_resp (N, K)", log_resp, N=len(log_joint), K=log_joint.shape[1])
    resp = np.exp(log_resp)
    log_ratio = np.subtract(log_joint, log_resp, out=np.zeros_like(log_joint), where=resp > 0)  # 0 log 0 = 0
    return (resp * log_ratio).sum(axis=1)


def m_step_table(p_x: Array, q: Array) -> tuple[Array, Array]:
    """The M-step (15) over all tables: p_θ(x | z) = p(x) q(z | x)/q(z) with q(z) = Σ_x p(x) q(z | x).

    At this maximum the joint KL is KL(q(z)‖prior).  The deck's (15) prints log p(x, z) in place of log p_θ(x | z), but
    p(x, z) = p(x) q(z | x) contains no θ.

    Parameters
    ----------
    p_x : (X,)
    q : (X, Z)
        q(z | x).

    Returns
    -------
    decoder : (X, Z)
        p_θ(x | z); columns sum to 1.  A z with q(z) = 0 gets p_θ(x | z) = p(x), since (15) does not depend on it.
    aggregate : (Z,)
        q(z).
    """
    p_x, q = as_arrays("p_x (X), q (X, Z)", p_x, q)
    check_probabilities(p_x, "p_x")
    check_probabilities(q, "q")
    aggregate = p_x @ q
    decoder = np.repeat(p_x[:, None], q.shape[1], axis=1)
    return np.divide(p_x[:, None] * q, aggregate, out=decoder, where=aggregate > 0), aggregate
