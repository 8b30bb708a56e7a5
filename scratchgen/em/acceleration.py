"""Over-relaxed EM: longer steps in the direction of the M-step, each kept only if the bound rises."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from scratchgen.em.algorithm import Expected, Iterate, Theta, _bound, _has_converged
from scratchgen.em.gaussian import COVARIANCE_TYPES, covariance_maximum
from scratchgen.mixture import Mixture
from scratchgen.validation import (
    Array,
    as_arrays,
    as_choice,
    as_count,
    as_finite,
    as_floors,
    as_number,
    check_callable,
    check_type,
)

ACCELERATIONS = ("over-relaxed",)
LARGEST_CHANGE = 4.0  # of a log weight or a log variance in one step; EM far from the optimum is not linear


def silver_step(t: int) -> float:
    """Length η_t = 1 + ρ^(ν(t) − 1) of step t = 1, 2, ..., with ρ = 1 + √2 and 2^ν(t) the largest power that divides t.

    The lengths are √2, 2, √2, 2 + √2, √2, 2, √2, ...  They depend on t alone, and need neither a line search nor a
    memory of earlier steps.  EM is a gradient step of length 1 in units of the information of x and z together; with
    these lengths gradient descent needs the power log 2/log ρ = 0.79 of the number of steps, if that is large
    (Altschuler and Parrilo 2023).
    """
    t = as_count(t, "t")
    return float(1 + (1 + 2**0.5) ** ((t & -t).bit_length() - 2))


def over_relaxed_em(
    start: Theta,
    e_step: Callable[[Theta], tuple[Expected, Array | float]],
    m_step: Callable[[Expected, Theta], Theta],
    relax: Callable[[Theta, Theta, float], Theta],
    tol: float = 0.0,
    max_iter: int = 100,
    log_prior: Callable[[Theta], float] = lambda theta: 0.0,
    bounds: Sequence[float] = (),
) -> Iterator[Iterate[Theta, Expected]]:
    """`em` with steps of length η_t, `silver_step`, times the step of EM (Salakhutdinov and Roweis 2003).

    A step that raises the bound by less than tol, or lowers it, is replaced by the step of EM.  The bound therefore
    never falls, and convergence is judged by a step of EM.  A replaced step costs a second E-step.

    Parameters
    ----------
    relax : (θ, θ', η) → θ''
        The parameters that are η times as far from θ as θ', which the M-step gives; valid parameters for every η >= 1.
    start, e_step, m_step, tol, max_iter, log_prior, bounds
        As for `em`.

    Yields
    ------
    iterate : Iterate
        After every E-step but those at steps that are replaced.
    """
    for name, f in {"e_step": e_step, "m_step": m_step, "relax": relax, "log_prior": log_prior}.items():
        check_callable(f, name, "of the parameters")
    tol, max_iter = as_number(tol, "tol", low=0.0), as_count(max_iter, "max_iter", minimum=0)
    theta, so_far = start, as_arrays("bounds (n)", as_finite(bounds, "bounds")).tolist()

    def at(theta: Theta) -> tuple[Expected, float]:
        expected, elbo = e_step(theta)
        return expected, _bound(elbo, log_prior(theta))

    expected, bound = at(theta)
    while True:
        so_far.append(bound)
        converged = _has_converged(so_far, tol)
        yield Iterate(theta, expected, so_far, converged)
        if converged or len(so_far) > max_iter:
            return
        plain = m_step(expected, theta)
        theta = relax(theta, plain, silver_step(len(so_far)))
        expected, bound = at(theta)
        if not bound >= so_far[-1] + tol:
            theta = plain
            expected, bound = at(theta)


def relaxed_mixture(
    old: Mixture,
    new: Mixture,
    step: float,
    covariance_floor: float | Array = 0.0,
    covariance_type: str = "full",
) -> Mixture:
    """The mixture `step` times as far from `old` as `new` is, along curves on which every mixture is valid.

        π ∝ π_old (π_new/π_old)^η,   m = m_old + η (m_new − m_old),   Σ = L (L⁻¹ Σ_new L⁻ᵀ)^η Lᵀ with Σ_old = L Lᵀ

    The curve of Σ is a geodesic of the positive definite matrices.  It keeps the covariance type and does not depend on
    the units of x.  A step that would change a log weight or a log variance by more than 4 is shortened, but not
    below 1, that of `new`.  Where rounding would lose the floor, the result is `new`.

    Parameters
    ----------
    old, new : Mixture
        The mixture before and after an M-step; a component of weight 0 in `new` keeps weight 0.
    step : float
        η >= 1.
    covariance_floor, covariance_type
        As for `m_step`; the floor holds for the result.
    """
    check_type(old, Mixture, "old")
    check_type(new, Mixture, "new")
    if old.means.shape != new.means.shape:
        raise ValueError(f"new must have the shape of old, {old.means.shape}, got {new.means.shape}; pass its M-step")
    step = as_number(step, "step", low=1.0)
    as_floors(covariance_floor, "covariance_floor", old.dimension)
    as_choice(covariance_type, "covariance_type", COVARIANCE_TYPES)
    root = np.linalg.cholesky(old.covariances)
    rotation, ratios, _ = np.linalg.svd(old.whitening @ np.linalg.cholesky(new.covariances))  # √ of variance ratios
    seen = new.weights > 0
    with np.errstate(divide="ignore"):
        log_weights, log_variances = np.log(new.weights[seen] / old.weights[seen]), 2 * np.log(ratios)
    step = LARGEST_CHANGE / max(np.abs(log_weights).max(), np.abs(log_variances).max(), LARGEST_CHANGE / step)
    if step <= 1:
        return new
    weights = np.zeros_like(new.weights)
    weights[seen] = old.weights[seen] * np.exp(step * log_weights)
    weights /= weights.sum()
    factor = root @ (rotation * ratios[:, None, :] ** step)
    try:
        covariances = covariance_maximum(factor @ factor.swapaxes(1, 2), weights, covariance_type, covariance_floor)
        return Mixture(weights, old.means + step * (new.means - old.means), covariances)
    except ValueError:  # rounding loses the floor beside a larger variance; LinAlgError is a ValueError
        return new
