"""Checks of equations (19)-(29): densities of paths, the loss of one step, the variational bound.

Every expectation is exact, and is taken for every example x_0.  One step with any smooth ε̂ uses the trapezoid rule in
the two noises.  A whole chain with affine ε̂ uses sigma points.  The right sides add precisions step by step, so that
they keep their digits for chains of thousands of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import as_sigma_squared, check_callable, returned, takes_arrays
from scratchgen.conformance.reference_chain import EPS, EpsHat, Steps, compose, enlarged, reverse_mean, rounding
from scratchgen.conformance.result import Check, Mistakes, compare, first_of, worst
from scratchgen.conformance.returns import numbers
from scratchgen.ddpm.kernels import check_time
from scratchgen.quadrature import sigma_points
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, as_number

# --- (19): densities of paths ----------------------------------------------------------------------------------------


@takes_arrays
def check_chains(
    forward_log_prob: Callable[[Array], ArrayLike],
    reverse_log_prob: Callable[[Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    path: Array,
    slopes: Array,
    sigma_squared: Array,
) -> Check:
    """(19): the log-densities of a path under q and under p_θ, for ε̂(x, t) = slopes[t] · x.

    The right sides factorise the same joint Gaussians in the other direction of time: q from x_T to x_1 by Bayes' rule,
    p_θ from x_0 to x_T.

    Parameters
    ----------
    forward_log_prob : callable
        forward_log_prob(path) → log q(x_{1:T} | x_0), (N,), nats.
    reverse_log_prob : callable
        reverse_log_prob(path, eps_hat) → log p_θ(x_{0:T}), (N,), nats.
    schedule : NoiseSchedule
    path : (T+1, N, D)
        The states x_0, …, x_T of N paths; N and D of 2 or more.
    slopes : (T+1,)
        Slope of the total noise ε̂ at every step.
    sigma_squared : (T+1,)
        The variances σ_t² that `reverse_log_prob` uses.

    Returns
    -------
    Check
        log p_θ if both pass, else the larger residual; tolerance 64 + 2 T machine epsilons, in units of the sum of
        squares, enlarged where 1 − ᾱ² cancels.
    """
    check_callable(forward_log_prob, "forward_log_prob(path)")
    check_callable(reverse_log_prob, "reverse_log_prob(path, eps_hat)")
    sigma_squared = as_sigma_squared(sigma_squared, schedule)
    steps, tolerance = compose(schedule), rounding(schedule.T)
    T, (_, N, D) = steps.T, path.shape
    mean = reverse_mean(steps)
    gains = np.append(1.0, mean[:, 0] + mean[:, 1] * slopes[1:])  # of p_θ(x_{t−1} | x_t)
    marginal = np.ones(T + 1)  # variances of x_t under p_θ
    for t in range(T, 0, -1):
        marginal[t - 1] = gains[t] ** 2 * marginal[t] + sigma_squared[t]
    posterior = 1 / (1 / marginal[1:] + gains[1:] ** 2 / sigma_squared[1:])  # of p_θ(x_t | x_{t−1})
    backward = steps.posterior

    q = [_log_normal(path[T] - steps.scale[T] * path[0], steps.total[T])]
    for t in range(2, T + 1):
        of_both = steps.alpha[t] / steps.variance[t] * path[t] + steps.scale[t - 1] / steps.total[t - 1] * path[0]
        q.append(_log_normal(path[t - 1] - backward[t] * of_both, backward[t]))
    into = posterior * gains[1:] / sigma_squared[1:]  # the gains of p_θ(x_t | x_{t−1})
    p = [_log_normal(path[t] - into[t - 1] * path[t - 1], posterior[t - 1]) for t in range(1, T + 1)]
    p.append(_log_normal(path[0], marginal[0]))

    squares = [_squares(path[t] - steps.alpha[t] * path[t - 1]) / steps.variance[t] for t in range(1, T + 1)]
    by_p = [_squares(path[t - 1] - gains[t] * path[t]) / sigma_squared[t] for t in range(1, T + 1)]
    constants = D * np.log(2 * np.pi * steps.variance[1:]).sum()
    prior, whole = _log_normal(path[T], 1.0), _log_normal(path[T], float(steps.total[T]))

    size = np.abs(path).max(axis=(1, 2))
    errors = _mean_error(steps, np.maximum(size[1:], size[:-1]), sigma_squared, tolerance)
    lost = np.sum([_density_error(e, r, D) for e, r in zip(errors, by_p, strict=True)], axis=0)

    def one(
        quantity: str,
        left: ArrayLike,
        log_probs: list[Array],
        sizes: list[Array],
        mistakes: Mistakes,
        lost: Array | float = 0.0,
    ) -> Check:
        right = np.sum(log_probs, axis=0)
        return compare(
            "check_chains",
            "(19)",
            quantity,
            left,
            right,
            tolerance,
            {
                "it is averaged over the D dimensions": lambda: right / D,
                "it is averaged over the T steps": lambda: right / T,
                "the mean over the examples stands for every example": lambda: np.full(N, right.mean()),
                **mistakes,
            },
            labels=([f"example {i}" for i in range(N)],),
            unit=(1 + np.abs(right) + np.sum(sizes, axis=0))
            * enlarged(tolerance, 1 / np.sqrt(steps.variance[1:]).min())
            + lost / tolerance,
        )

    def q_with(terms: list[Array], constant: float) -> Callable[[], Array]:
        return lambda: -0.5 * (np.sum(terms, axis=0) + constant)

    every = 0.5 * D * np.log(2 * np.pi)
    return first_of(
        one(
            "log p_θ(x_{0:T})",
            reverse_log_prob(path, lambda x, t: slopes[t] * x),
            p,
            [*by_p, _squares(path[T])],
            {
                "log p_θ(x_T) is missing": lambda: np.sum(p, axis=0) - prior,
                "p_θ(x_T) has the variance β̄_T², not 1": lambda: np.sum(p, axis=0) - prior + whole,
                "p_θ(x_T) is q(x_T | x_0)": lambda: np.sum(p, axis=0) - prior + q[0],
                "log p_θ(x_0 | x_1) is missing": lambda: (
                    np.sum(p, axis=0) - _log_normal(path[0] - gains[1] * path[1], float(sigma_squared[1]))
                ),
                "log σ_t stands for log σ_t²": lambda: np.sum(p, axis=0) + 0.25 * D * np.log(sigma_squared[1:]).sum(),
                "½ log 2πσ_t² is missing": lambda: (
                    np.sum(p, axis=0) + 0.5 * D * np.log(2 * np.pi * sigma_squared[1:]).sum()
                ),
                "the ½ of the squares of the steps is missing": lambda: np.sum(p, axis=0) - 0.5 * np.sum(by_p, axis=0),
            },
            lost,
        ),
        one(
            "log q(x_{1:T} | x_0)",
            forward_log_prob(path),
            q,
            squares,
            {
                "log β_t stands for log β_t²": q_with(squares, constants - 0.5 * D * np.log(steps.variance[1:]).sum()),
                "½ log 2πβ_t² is missing": q_with(squares, 0.0),
                "½ log 2π is missing": q_with(squares, constants - 2 * T * every),
                "the ½ of the squares is missing": q_with([2 * s for s in squares], constants),
                "β_t stands for β_t² in the squares": q_with(
                    [s * np.sqrt(v) for s, v in zip(squares, steps.variance[1:], strict=True)], constants
                ),
                "β_t stands for β_t², a standard deviation for a variance": q_with(
                    [s * np.sqrt(v) for s, v in zip(squares, steps.variance[1:], strict=True)],
                    constants - 0.5 * D * np.log(steps.variance[1:]).sum(),
                ),
                "β_t² is given where β_t belongs, as the scale of a normal law": q_with(
                    [s / v for s, v in zip(squares, steps.variance[1:], strict=True)],
                    constants + D * np.log(steps.variance[1:]).sum(),
                ),
                "the last step is missing": q_with(
                    squares[:-1], constants - D * np.log(2 * np.pi * steps.variance[-1])
                ),
                "the first step is missing": q_with(squares[1:], constants - D * np.log(2 * np.pi * steps.variance[1])),
            },
        ),
    )


def _mean_error(steps: Steps, size: Array | float, sigma_squared: Array, tolerance: float) -> Array:
    """The rounding error of the mean of every reverse step in units of σ_t, (T,), for states of this size.

    Ho et al. write the mean as β²ᾱ_{t−1}/β̄² x̂_0 + α β̄²_{t−1}/β̄² x_t.  If 1 − ᾱ² is computed from a product, the two
    factors have an error of a machine epsilon over β̄².
    """
    of_mean = size / (steps.alpha[1:] * steps.total[1:])
    return max(64 * EPS, 0.05 * tolerance) * of_mean / np.sqrt(sigma_squared[1:])


def _density_error(mean_error: Array | float, squares: Array, D: int) -> Array:
    """The error of a log-density whose mean has this error, for Σ_d of the squared residuals, both in units of σ².

    It is of first and of second order: Σ_d |residual_d| <= √(D Σ_d residual_d²).
    """
    return mean_error * np.sqrt(D * squares) + D * np.square(mean_error)


def _squares(x: Array) -> Array:
    return (x**2).sum(axis=-1)


def _log_normal(x: Array, variance: float) -> Array:
    """log N(x; 0, variance I), summed over the last axis."""
    return -0.5 * (x**2 / variance + np.log(2 * np.pi * variance)).sum(axis=-1)


# --- (22)-(29): one step ---------------------------------------------------------------------------------------------

X0_NODES = np.array([-1.5, -0.4, 0.3, 1.2])  # the examples, in standard deviations of the data
N_NODES = 121, 110, 101  # of the trapezoid rule on ±9; the first is compared, the others give its error


def _normal_nodes(n: int) -> tuple[Array, Array]:
    """Pairs of nodes (n², 2) of the trapezoid rule on ±9 and weights (n²,) of two standard normal numbers.

    For a sine of frequency f and 121 nodes the error is exp(−(42 − f)²/2).
    """
    x = np.linspace(-9, 9, n)
    w = np.exp(-0.5 * x**2)
    pairs, weights = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2), np.outer(w, w).ravel()
    kept = weights > 1e-18 * weights.max()
    return pairs[kept], weights[kept] / weights[kept].sum()


@takes_arrays
def check_step_loss(
    loss: Callable[[int, Array, Array, Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    t: int,
    eps_hat: EpsHat,
    mean: float,
    std: float,
    sigma_squared: float,
) -> Check:
    """(22)-(29): −E log p_θ(x_{t−1} | x_t) given x_0, with all constants, at four x_0; then three dimensions.

    Parameters
    ----------
    loss : callable
        loss(t, x0, eps_bar_prev, eps_t, eps_hat) → (N,), nats, for the given σ_t².  Every array is (N, D);
        `eps_bar_prev` is the total noise of x_{t−1} and `eps_t` the noise of step t.  A loss in the merged noise, (28)
        or (29), merges these two first, by the proposition before (27).  Only the expectation over the noise is
        compared.  The loss of D dimensions must be the sum of the losses of its columns.
    schedule : NoiseSchedule
    t : int
        The step, 1..T.
    eps_hat : callable
        eps_hat(x_t, t) → total noise, (N, D); every entry depends on the same entry of x_t.  It should be smooth; the
        error of the quadrature, from three numbers of nodes, is added to the tolerance.
    mean, std : float
        The x_0 are mean + std · (−1.5, −0.4, 0.3, 1.2).
    sigma_squared : float
        The variance σ_t² that `loss` uses.

    Returns
    -------
    Check
        The expectation if both pass, else the larger residual; tolerance 1e-12, enlarged where 1 − ᾱ² cancels.
    """
    check_callable(loss, "loss(t, x0, eps_bar_prev, eps_t, eps_hat); t counts 1..T")
    check_time(schedule, t)
    sigma_squared = as_number(sigma_squared, "sigma_squared", low=0.0, open_low=True)
    steps, x0s, name = compose(schedule), mean + std * X0_NODES, "check_step_loss"
    factors = reverse_mean(steps)[t - 1]

    def draws(n: int) -> tuple[Array, Array, Array, Array, Array, Array]:
        """x_0, ε̄_{t−1}, ε_t, x_{t−1}, x_t at the nodes for every x_0, and the weights of the nodes."""
        nodes, weights = _normal_nodes(n)
        x0, eps_bar, eps_t = (
            np.repeat(x0s, len(nodes))[:, None],
            np.tile(nodes[:, :1], (len(x0s), 1)),
            np.tile(nodes[:, 1:], (len(x0s), 1)),
        )
        x_prev = steps.scale[t - 1] * x0 + steps.std[t - 1] * eps_bar
        x_t = steps.alpha[t] * x_prev + np.sqrt(steps.variance[t]) * eps_t
        return x0, eps_bar, eps_t, x_prev, x_t, weights

    def square_of(n: int, by_eps: float, step: int = t) -> Array:
        """E‖x_{t−1} − μ_θ(x_t)‖² for every x_0, where ε̂ of `step` has the factor by_eps in μ_θ."""
        *_, x_prev, x_t, weights = draws(n)
        square = (x_prev - factors[0] * x_t - by_eps * eps_hat(x_t, step)) ** 2
        return square.reshape(len(x0s), -1) @ weights

    def of_one_step() -> Array:
        """E‖x_{t−1} − μ_θ(ᾱ_t x_0 + β̄_t ε_t)‖²/(2σ²) for every x_0."""
        x0, _, eps_t, x_prev, _, weights = draws(N_NODES[0])
        x_t = steps.scale[t] * x0 + steps.std[t] * eps_t
        gap = (x_prev - factors[0] * x_t - factors[1] * eps_hat(x_t, t)) ** 2 / (2 * sigma_squared)
        return np.asarray(gap.reshape(len(x0s), -1) @ weights)

    def of_target() -> Array:
        """The weighted E‖ε_t − ε̂(x_t, t)‖² for every x_0."""
        _, _, eps_t, _, x_t, weights = draws(N_NODES[0])
        gap = (factors[1] * (eps_t - eps_hat(x_t, t))) ** 2 / (2 * sigma_squared)
        return np.asarray(gap.reshape(len(x0s), -1) @ weights)

    def wrong_mean(by_eps: float, step: int = t) -> Callable[[], Array]:
        return lambda: constant + square_of(N_NODES[0], by_eps, step) / (2 * sigma_squared)

    def expected(n: int) -> tuple[Array, Array]:
        """E‖x_{t−1} − μ_θ(x_t)‖² by the nodes for every x_0; the same for the loss under test."""
        x0, eps_bar, eps_t, _, _, weights = draws(n)
        left = returned(loss(t, x0, eps_bar, eps_t, eps_hat), (len(x0),), "loss")
        return square_of(n, float(factors[1])), left.reshape(len(x0s), -1) @ weights

    (square, left), *coarse = (expected(n) for n in N_NODES)
    error = 10 * np.max([np.abs(square - s) / (2 * sigma_squared) for s, _ in coarse], axis=0)
    # a wrong left may depend on the nodes: its own error counts up to 1e-3
    error += 10 * np.minimum(np.max([np.abs(left - other) for _, other in coarse], axis=0), 1e-4)
    constant, fit = 0.5 * np.log(2 * np.pi * sigma_squared), square / (2 * sigma_squared)
    omega, v, total = steps.posterior[t] / (2 * sigma_squared), steps.variance[t], steps.total[t]
    noise = fit - omega  # β⁴/(2β̄²α²σ²) E‖ε − ε̂‖²
    tolerance = 1e-12
    condition = enlarged(tolerance, steps.posterior_condition[t])
    size = np.abs(x0s) + 3 * steps.std[t]
    mean_error = _mean_error(steps, size[:, None], np.full(steps.T + 1, sigma_squared), tolerance)[:, t - 1]
    error += _density_error(mean_error, 2 * fit, 1)
    expectation = compare(
        name,
        "(29)",
        "−E[log p_θ(x_{t−1} | x_t) | x_0]",
        left,
        constant + fit,
        tolerance,
        {
            "the prefactor has lost its ½, as printed": lambda: constant + 2 * fit,
            "the term D β̃²/(2σ²), the integral over ω, is missing, as printed": lambda: constant + noise,
            "the prefactor of ‖ε − ε̂‖² has lost its ½, as printed": lambda: constant + omega + 2 * noise,
            "the prefactor has lost its ½ and D β̃²/(2σ²) is missing, as printed": lambda: constant + 2 * noise,
            "½ log 2πσ² and the ½ of the prefactor are missing, as printed": lambda: 2 * fit,
            "½ log 2πσ² is missing": lambda: fit,
            "½ log 2π is missing": lambda: constant - 0.5 * np.log(2 * np.pi) + fit,
            "log σ stands for log σ²": lambda: constant - 0.25 * np.log(sigma_squared) + fit,
            "log σ² stands for ½ log σ²": lambda: constant + 0.5 * np.log(sigma_squared) + fit,
            "β_t stands where β_t²/β̄_t belongs: ε̂ is taken for the noise of one step": wrong_mean(
                -float(np.sqrt(v / (1 - v)))
            ),
            "ε_t is taken for the total noise: x_t is ᾱ_t x_0 + β̄_t ε_t": lambda: constant + of_one_step(),
            "ε_t, the noise of one step, is the target of ε̂": lambda: constant + omega + of_target(),
            "ε̂ has the wrong sign": wrong_mean(-float(factors[1])),
            "ε̂ is evaluated at t − 1": wrong_mean(float(factors[1]), max(t - 1, 1)),
            "both ½ log 2πσ² and D β̃²/(2σ²) are missing": lambda: noise,
            "it is E‖ε − ε̂‖², without weight and constants": lambda: noise * 2 * sigma_squared / factors[1] ** 2,
            "β² stands where β⁴/β̄² belongs": lambda: constant + omega + noise * total / v,
            "1/β̄² is missing": lambda: constant + omega + noise * total,
            "1/α² is missing": lambda: constant + omega + noise * (1 - v),
            "β² stands for β⁴": lambda: constant + omega + noise / v,
            "σ stands where σ² belongs in the prefactor": lambda: constant + fit * np.sqrt(sigma_squared),
            "σ² is squared in the prefactor: a variance is taken for a standard deviation": lambda: (
                constant + fit / sigma_squared
            ),
            "the mean over the examples stands for every example": lambda: np.full(len(fit), (constant + fit).mean()),
            "the sign is wrong: it is log p_θ": lambda: -constant - fit,
        },
        labels=([f"x_0 = {x:.3g}" for x in x0s],),
        unit=(1 + np.abs(constant) + fit) * condition + error / tolerance,
    )
    return first_of(expectation, _check_columns(loss, t, eps_hat, x0s, tolerance, float(constant)))


def _check_columns(
    loss: Callable[[int, Array, Array, Array, EpsHat], ArrayLike],
    t: int,
    eps_hat: EpsHat,
    x0s: Array,
    tolerance: float,
    constant: float,
) -> Check:
    """The loss of a batch in three dimensions is, example by example, the sum of the losses of its single numbers."""
    numbers = np.sin(1.7 * np.arange(1.0, 46.0) ** 1.3).reshape(3, 5, 3)
    arrays = np.abs(x0s).max() * numbers[0], 2 * numbers[1], 2 * numbers[2]

    def of(x0: Array, eps_bar: Array, eps_t: Array) -> Array:
        return returned(loss(t, x0, eps_bar, eps_t, eps_hat), (len(x0),), "loss")

    by_column = np.array([[of(*(x[i : i + 1, d : d + 1] for x in arrays))[0] for i in range(5)] for d in range(3)])
    right = by_column.sum(axis=0)
    return compare(
        "check_step_loss",
        "(29)",
        "the loss of three dimensions (it should be the sum over the columns)",
        of(*arrays),
        right,
        tolerance,
        {
            "it is averaged over the D dimensions": lambda: right / 3,
            "½ log 2πσ² is counted once, not D times": lambda: right - 2 * constant,
            "it is the loss of the first dimension": lambda: by_column[0],
            "it is averaged over the examples": lambda: np.full(5, right.mean()),
            "it is summed over the examples": lambda: np.full(5, right.sum()),
            "it is averaged over examples and dimensions": lambda: np.full(5, right.mean() / 3),
        },
        labels=([f"example {i}" for i in range(5)],),
        unit=1 + np.abs(by_column).sum(axis=0),
        by_code=True,
    )


# --- (20)-(21): the bound --------------------------------------------------------------------------------------------


def _terms(
    steps: Steps, x0: Array, A: Array, b: Array, sigma_squared: Array, covariance: Array | None = None
) -> tuple[Array, Array, Array]:
    """L_0, …, L_T given x_0, (N, T+1), under ε̂(x, t) = A_t x + b_t; its noise losses (N, T+1); E‖x_0‖², (N,).

    With `covariance` the expectation is over x_0 ~ N(row, covariance) as well.
    """
    (N, D), T = x0.shape, steps.T
    std, scale = steps.std[:, None, None], steps.scale[:, None, None]
    offset = np.einsum("tij,nj->nti", scale[1:] * A[1:], x0) + b[1:]
    losses = ((np.eye(D) - std * A) ** 2).sum(axis=(1, 2))[1:] + (offset**2).sum(axis=2)
    second = (x0**2).sum(axis=1)
    if covariance is not None:
        losses = losses + np.einsum("tij,jk,tik->t", scale[1:] * A[1:], covariance, scale[1:] * A[1:])
        second = second + np.trace(covariance)
    s2, factor = sigma_squared[1:], reverse_mean(steps)[:, 1]
    fits = factor**2 * losses / (2 * s2)
    terms = np.empty((N, T + 1))
    terms[:, 0] = 0.5 * D * np.log(2 * np.pi * s2[0]) + fits[:, 0]
    ratio = steps.posterior[2:] / s2[1:]
    terms[:, 1:T] = 0.5 * D * (ratio - 1 - np.log(ratio)) + fits[:, 1:]
    total = steps.total[-1]
    terms[:, T] = 0.5 * (steps.scale[-1] ** 2 * second + D * (total - 1 - np.log(total)))
    return terms, np.concatenate([np.zeros((N, 1)), losses], axis=1), second


def _mistaken_bounds(
    steps: Steps, terms: Array, losses: Array, second: Array, D: int, sigma_squared: Array
) -> Mistakes:
    """The values of −E ELBO, (N,), without one of its terms, or with a wrong factor."""
    T = steps.T
    v, s2, N = steps.variance[1:], sigma_squared[1:], len(terms)
    weights = reverse_mean(steps)[:, 1] ** 2 / (2 * s2)
    bound, fits = terms.sum(axis=1), weights * losses[:, 1:]
    omega = 0.5 * D * steps.posterior[1:] / s2
    largest, L_0, L_T = bound.max(), terms[:, 0], terms[:, T]
    square, total = 2 * s2[0] * fits[:, 0], steps.total[T - 1]
    L_T_before = 0.5 * (steps.scale[T - 1] ** 2 * second + D * (total - 1 - np.log(total))) if T > 1 else L_T

    def weighted(factor: ArrayLike, first: int = 1) -> Callable[[], Array]:
        """The weights of the noise losses from t = first on have another factor."""
        return lambda: bound + ((np.broadcast_to(factor, fits.shape) - 1) * fits)[:, first - 1 :].sum(axis=1)

    later = {1: "", 2: ", from t = 2 on"}
    return {
        "E‖x_0‖² is missing in L_T": lambda: bound - 0.5 * steps.scale[T] ** 2 * second,
        "L_T is that of step T − 1": lambda: bound - L_T + L_T_before,
        "L_0 is the squared error": lambda: bound - L_0 + square,
        "L_0 is half the squared error": lambda: bound - L_0 + 0.5 * square,
        "L_0 is the mean squared error": lambda: bound - L_0 + square / D,
        "the L_{t−1} are averaged over t, not summed": lambda: L_0 + L_T + terms[:, 1:T].sum(axis=1) / max(T - 1, 1),
        "the L_{t−1} are averaged over the T steps, not summed": lambda: L_0 + L_T + terms[:, 1:T].sum(axis=1) / T,
        "L_{T−1} is missing: the loop ends before t = T": lambda: bound - terms[:, T - 1],
        "L_1 is missing: the loop starts after t = 2": lambda: bound - terms[:, 1],
        **{f"1/α_t² is missing in the weights{text}": weighted(1 - v, t) for t, text in later.items()},
        **{f"1/β̄_t² is missing in the weights{text}": weighted(steps.total[1:], t) for t, text in later.items()},
        **{f"β_t² stands for β_t⁴ in the weights{text}": weighted(1 / v, t) for t, text in later.items()},
        **{f"the weights are 1: the simple loss{text}": weighted(1 / weights, t) for t, text in later.items()},
        **{f"the weights are ½{text}": weighted(0.5 / weights, t) for t, text in later.items()},
        "L_T, the divergence from the prior, is missing": lambda: bound - terms[:, -1],
        "L_0, the reconstruction, is missing": lambda: bound - terms[:, 0],
        "the L_{t−1} are missing": lambda: terms[:, 0] + terms[:, -1],
        "the noise losses have lost their ½, as printed": lambda: bound + fits.sum(axis=1),
        "the term D β̃²/(2σ²), the integral over ω, is missing": lambda: bound - omega.sum(),
        "log σ² is missing": lambda: bound - 0.5 * D * np.log(s2 / v).sum(),
        "½ D log 2πσ_1² is missing in L_0": lambda: bound - 0.5 * D * np.log(2 * np.pi * s2[0]),
        "½ D log 2π is missing in L_0": lambda: bound - 0.5 * D * np.log(2 * np.pi),
        "it is the sum of the E‖ε − ε̂‖², without weights and constants": lambda: losses.sum(axis=1),
        "the entropy of the forward chain is missing, as in the first “=” of (21)": lambda: (
            bound + 0.5 * D * np.log(2 * np.pi * np.e * v).sum()
        ),
        "it is averaged over the D dimensions": lambda: bound / D,
        "it is averaged over the T steps": lambda: bound / steps.T,
        "it is T times the mean of its T + 1 terms": lambda: bound * steps.T / (steps.T + 1),
        "ᾱ_T stands for ᾱ_T² in L_T": lambda: bound + 0.5 * (steps.scale[T] - steps.scale[T] ** 2) * second,
        "E‖x_0‖² is taken as D in L_T": lambda: bound + 0.5 * steps.scale[T] ** 2 * (D - second),
        "½ D is missing in every divergence, as where the entropies of the steps lack their e": lambda: (
            bound + 0.5 * D * T
        ),
        "½ log 2πσ_1² is counted once in L_0, not D times": lambda: bound - 0.5 * (D - 1) * np.log(2 * np.pi * s2[0]),
        "the L_{t−1} are multiplied by T, as if one t were drawn": lambda: bound + (T - 1) * terms[:, 1:T].sum(axis=1),
        "the L_{t−1} are E‖ε − ε̂‖², without weights and constants": lambda: L_0 + L_T + losses[:, 2:].sum(axis=1),
        "the weights are 1/T: the simple loss divided by T": weighted(1 / T / weights),
        "L_0 and the L_{t−1} are E‖ε − ε̂‖²/T": lambda: L_T + losses[:, 1:].sum(axis=1) / T,
        "the noise losses are E‖ε − ε̂‖²/T, without weights and constants": lambda: losses.sum(axis=1) / T,
        "the squares have lost their ½ in every L_{t−1}": lambda: bound + fits[:, 1:].sum(axis=1),
        "it is averaged over its T + 1 terms": lambda: bound / (steps.T + 1),
        "the mean over the examples stands for every example": lambda: np.full(N, bound.mean()),
        "the sum over the examples stands for every example": lambda: np.full(N, bound.sum()),
        "logsumexp over the examples stands for every example": lambda: np.full(
            N, largest + np.log(np.exp(bound - largest).sum())
        ),
        "logsumexp over the terms stands for their sum": lambda: _logsumexp(terms),
        "it is the ELBO: the sign is wrong": lambda: -bound,
        "it is in bits, not nats": lambda: bound / np.log(2),
        "it is in bits per dimension, not nats": lambda: bound / np.log(2) / D,
    }


def _logsumexp(x: Array) -> Array:
    largest = x.max(axis=1)
    return largest + np.log(np.exp(x - largest[:, None]).sum(axis=1))


@takes_arrays
def check_variational_bound(
    bound: Callable[[Array, EpsHat, Array], ArrayLike],
    schedule: NoiseSchedule,
    mean: Array,
    covariance: Array,
    A: Array,
    b: Array,
    sigma_squared: Array,
) -> Check:
    """(20)-(21): −E ELBO of every x_0 under ε̂(x, t) = A_t x + b_t; then its terms, if there are T+1 of them.

    The right side adds the divergences of single steps, whose precisions are those of the reference chain.  Its mean
    over N(mean, covariance) is KL(q(x_{0:T})‖p_θ(x_{0:T})) + H(x_0) of the two joint Gaussians.

    Parameters
    ----------
    bound : callable
        bound(x0 (N, D), eps_hat, noise (T, N, D)) → −ELBO, (N,), nats; or its T+1 terms L_0, …, L_T in this order or
        the reverse order, (N, T+1).  noise[t−1] is the total noise of x_t.  Each term is a quadratic in its noise, so
        that sigma points give the exact expectation.
    schedule : NoiseSchedule
    mean : (D,)
    covariance : (D, D)
        Covariance of the data; the x_0 are the mean and points within its spread.
    A : (T+1, D, D)
    b : (T+1, D)
        Coefficients of the predicted total noise ε̂(x_t, t) = A_t x_t + b_t.
    sigma_squared : (T+1,)
        The variances σ_t² that `bound` uses.

    Returns
    -------
    Check
        The larger residual; tolerance 64 + 2 T machine epsilons times the size of the terms, enlarged where 1 − ᾱ²
        cancels.
    """
    check_callable(bound, "bound(x0, eps_hat, noise)")
    sigma_squared = as_sigma_squared(sigma_squared, schedule)
    steps, D, T = compose(schedule), len(mean), schedule.T
    spread = np.array([[0.0], [1.0], [-1.5], [0.7]])[: 4 if D <= 8 else 2]
    data = mean + spread * np.linalg.cholesky(covariance).sum(axis=1)
    points, n = sigma_points(D), len(data)
    x0 = np.repeat(data, len(points), axis=0)
    noise = np.broadcast_to(np.tile(points, (n, 1)), (T, len(x0), D))
    if noise.size < 1e6:  # every term sees every point, and neighbouring steps not the same one
        noise = np.stack([np.tile(np.roll(points, t, axis=0), (n, 1)) for t in range(T)])
    values = numbers(bound(x0, lambda x, t: x @ A[t].T + b[t], noise), "bound must return an array of shape (N,)")
    terms, losses, second = _terms(steps, data, A, b, sigma_squared)
    if values.shape not in ((len(x0),), (len(x0), T + 1)):
        raise ValueError(
            f"bound must return an array of shape ({len(x0)},) or of terms ({len(x0)}, {T + 1}), got {values.shape}"
        )
    left = values.reshape(n, len(points), -1).mean(axis=1)
    tolerance = rounding(T)
    unit = (1 + np.abs(terms).sum(axis=1)) * enlarged(tolerance, steps.posterior_condition.max())
    unit += _lost(steps, data, losses, sigma_squared, tolerance) / tolerance
    names = [f"x_0 number {i}" for i in range(n)]
    whole = compare(
        "check_variational_bound",
        "(20)",
        "−E ELBO",
        left.sum(axis=1),
        terms.sum(axis=1),
        tolerance,
        _mistaken_bounds(steps, terms, losses, second, D, sigma_squared),
        labels=(names,),
        unit=unit,
    )
    if left.shape[1] != T + 1 or T == 1:
        return whole
    backwards = terms[:, ::-1]
    if np.abs(left - backwards).max() < np.abs(left - terms).max():
        left = left[:, ::-1]
    each = compare(
        "check_variational_bound",
        "(20)",
        "E L_t",
        left,
        terms,
        tolerance,
        {
            "the terms are in another order": lambda: _same_order(left, terms),
            "the mean over the examples stands for every example": lambda: np.broadcast_to(
                terms.mean(axis=0), terms.shape
            ),
        },
        labels=(names, [f"L_{t}" for t in range(T + 1)]),
        unit=unit[:, None],
    )
    return worst(whole, each)


def _lost(steps: Steps, x0: Array, losses: Array, sigma_squared: Array, tolerance: float) -> Array:
    """The error of −E ELBO of every x_0, (N,), by the rounding of the means of the reverse steps."""
    D = x0.shape[1]
    size = np.abs(x0).max(axis=1, keepdims=True) + 3 * steps.std[1:]
    fits = (reverse_mean(steps)[:, 1] ** 2 / sigma_squared[1:]) * losses[:, 1:]
    return _density_error(_mean_error(steps, size, sigma_squared, tolerance), fits, D).sum(axis=1)


def _same_order(left: Array, terms: Array) -> Array:
    """The terms with their columns in the order of left."""
    return terms[:, np.argsort(terms.mean(axis=0))[np.argsort(np.argsort(left.mean(axis=0)))]]


@takes_arrays
def check_negative_elbo(
    negative_elbo: Callable[[Array, float, int], ArrayLike],
    schedule: NoiseSchedule,
    mean: Array,
    covariance: Array,
    A: Array,
    b: Array,
    sigma_squared: Array,
) -> Check:
    """(21), (29): −E ELBO from the noise losses ℓ_t = E‖ε − ε̂(x_t, t)‖² and E‖x_0‖², for four data laws.

    Parameters
    ----------
    negative_elbo : callable
        negative_elbo(noise_loss (T+1,), second_moment, D) → −E ELBO, a number, nats.
    schedule, mean, covariance, A, b, sigma_squared
        As in `check_variational_bound`, and so is the right side.  The data are N(c mean, covariance) for c of 1, −2, 0
        and 3.

    Returns
    -------
    Check
        As in `check_variational_bound`.
    """
    check_callable(negative_elbo, "negative_elbo(noise_loss, second_moment, D)")
    sigma_squared = as_sigma_squared(sigma_squared, schedule)
    steps, D, T = compose(schedule), len(mean), schedule.T
    means = np.array([1.0, -2.0, 0.0, 3.0])[:, None] * mean
    terms, losses, second = _terms(steps, means, A, b, sigma_squared, covariance)
    left = [
        float(returned(negative_elbo(row.copy(), float(moment), D), (), "negative_elbo"))
        for row, moment in zip(losses, second, strict=True)
    ]
    tolerance = rounding(T)
    unit = (1 + np.abs(terms).sum(axis=1)) * enlarged(tolerance, steps.posterior_condition.max())
    return compare(
        "check_negative_elbo",
        "(21)",
        "−E ELBO",
        left,
        terms.sum(axis=1),
        tolerance,
        _mistaken_bounds(steps, terms, losses, second, D, sigma_squared),
        labels=([f"data law {i}" for i in range(4)],),
        unit=unit,
    )


@takes_arrays
def check_bound_terms(
    prior_loss: Callable[[Array], ArrayLike],
    step_loss: Callable[[int, Array, Array, EpsHat], ArrayLike],
    reconstruction_loss: Callable[[Array, Array, EpsHat], ArrayLike],
    schedule: NoiseSchedule,
    x0: Array,
    noise: Array,
    eps_hat: EpsHat,
    sigma_squared: Array,
) -> Check:
    """(20): the terms L_T, L_{t−1} and L_0 of every example.

    The right sides are means of log q/p over sigma points of q.

    Parameters
    ----------
    prior_loss : callable
        prior_loss(x0) → L_T, (N,), nats.
    step_loss : callable
        step_loss(t, x0, x_t, eps_hat) → L_{t−1}, (N,), nats, for t = 2..T.
    reconstruction_loss : callable
        reconstruction_loss(x0, x_1, eps_hat) → L_0, (N,), nats.
    schedule : NoiseSchedule
    x0, noise : (N, D)
        N and D of 2 or more, and noise that differs between its columns, so that a mean over D differs from a sum.
    eps_hat : callable
        eps_hat(x_t, t) → total noise (N, D); any function.
    sigma_squared : (T+1,)
        The variances σ_t² that the callables use.

    Returns
    -------
    Check
        L_{t−1} if all pass, else the largest of the three residuals; tolerance 64 + 2 T machine epsilons, enlarged
        where 1 − ᾱ² cancels.
    """
    check_callable(prior_loss, "prior_loss(x0)")
    check_callable(step_loss, "step_loss(t, x0, x_t, eps_hat); t counts 2..T")
    check_callable(reconstruction_loss, "reconstruction_loss(x0, x_1, eps_hat)")
    sigma_squared, steps = as_sigma_squared(sigma_squared, schedule), compose(schedule)
    (N, D), points, means = x0.shape, sigma_points(x0.shape[1]), reverse_mean(steps)
    name, ts, tolerance = "check_bound_terms", range(2, steps.T + 1), rounding(steps.T)

    def at(t: int) -> Array:
        return steps.scale[t] * x0 + steps.std[t] * noise

    def kl(difference: Array, q_variance: float, p_variance: float) -> Array:
        """KL of N(difference, q_variance I) from N(0, p_variance I); the points are centred, so that digits stay."""
        draws = [np.sqrt(q_variance) * point for point in points]
        ratios = [_log_normal(x + 0 * difference, q_variance) - _log_normal(x + difference, p_variance) for x in draws]
        return np.mean(ratios, axis=0)

    def difference(t: int) -> Array:
        """The mean of q(x_{t−1} | x_t, x_0) minus that of p_θ(x_{t−1} | x_t), a multiple of ε − ε̂."""
        return means[t - 1, 1] * (noise - eps_hat(at(t), t))

    def step(t: int, variance: float) -> Array:
        return kl(difference(t), steps.posterior[t], variance)

    def all_steps(of: Callable[[int], Array]) -> Callable[[], Array]:
        return lambda: np.array([of(t) for t in ts]).reshape(-1, N)

    L_T = kl(steps.scale[-1] * x0, steps.total[-1], 1.0)
    total = steps.total[-1]
    L_0 = -_log_normal(difference(1), sigma_squared[1])
    right = all_steps(lambda t: step(t, sigma_squared[t]))()
    ratio = steps.posterior[2:] / sigma_squared[2:]
    fits = all_steps(lambda t: (difference(t) ** 2).sum(axis=1) / (2 * sigma_squared[t]))()
    squares = (difference(1) ** 2).sum(axis=1) / (2 * sigma_squared[1])
    condition = enlarged(tolerance, steps.posterior_condition)
    size = np.array([np.abs([x0, at(t)]).max(axis=(0, 2)) for t in range(1, steps.T + 1)]).T
    errors = _mean_error(steps, size, sigma_squared, tolerance).T
    examples = [f"example {i}" for i in range(N)]

    def means_of(value: Array) -> Mistakes:
        return {
            "it is averaged over the D dimensions": lambda: value / D,
            "the mean over the examples stands for every example": lambda: np.broadcast_to(
                value.mean(axis=-1, keepdims=True), value.shape
            ),
            "it is minus the right value": lambda: -value,
        }

    checks = [
        compare(
            name,
            "(20)",
            "L_T",
            prior_loss(x0),
            L_T,
            tolerance,
            {
                **means_of(L_T),
                "β̄_T stands for β̄_T² in the logarithm": lambda: L_T + 0.25 * D * np.log(total),
                "the ½ is missing": lambda: 2 * L_T,
                "the terms of the variance are missing: it is ½ ᾱ_T² ‖x_0‖²": lambda: (
                    0.5 * steps.scale[-1] ** 2 * _squares(x0)
                ),
                "it is −log N(ᾱ_T x_0; 0, I)": lambda: -_log_normal(steps.scale[-1] * x0, 1.0),
                "‖x_0‖² is missing": lambda: L_T - 0.5 * steps.scale[-1] ** 2 * _squares(x0),
                "it is that of step T − 1": lambda: (
                    kl(steps.scale[-2] * x0, steps.total[-2], 1.0) if steps.T > 1 else np.full(N, np.nan)
                ),
                "the terms of the variance have lost their factor D": lambda: (
                    L_T - 0.5 * (D - 1) * (total - 1 - np.log(total))
                ),
                "log β̄_T² is missing": lambda: L_T + 0.5 * D * np.log(total),
            },
            labels=(examples,),
            unit=(D + np.abs(L_T)) * (1 + 64 * EPS / tolerance / total),
        ),
        compare(
            name,
            "(20)",
            "L_0",
            reconstruction_loss(x0, at(1), eps_hat),
            L_0,
            tolerance,
            {
                **means_of(L_0),
                "½ D log 2πσ² is missing": lambda: squares,
                "½ log 2πσ² is counted once, not D times": lambda: (
                    L_0 - 0.5 * (D - 1) * np.log(2 * np.pi * sigma_squared[1])
                ),
                "σ² is that of t = 2": lambda: -_log_normal(difference(1), sigma_squared[min(2, steps.T)]),
                "it is the squared error": lambda: 2 * sigma_squared[1] * squares,
                "σ stands for σ² under the squares": lambda: L_0 + squares * (np.sqrt(sigma_squared[1]) - 1),
                "½ D log 2π is missing": lambda: L_0 - 0.5 * D * np.log(2 * np.pi),
                "the squares have lost their ½": lambda: L_0 + squares,
                "log σ stands for log σ²": lambda: L_0 - 0.25 * D * np.log(sigma_squared[1]),
            },
            labels=(examples,),
            unit=(1 + np.abs(L_0) + squares) * condition[1] + _density_error(errors[0], 2 * squares, D) / tolerance,
        ),
    ]
    if steps.T > 1:
        checks.append(
            compare(
                name,
                "(20)",
                "L_{t−1}",
                np.array([step_loss(t, x0, at(t), eps_hat) for t in ts]),
                right,
                tolerance,
                {
                    **means_of(right),
                    "σ² is β̃_t²; the given σ_t² is ignored": all_steps(lambda t: step(t, steps.posterior[t])),
                    "the squares have lost their ½": lambda: right + fits,
                    "the squares are missing": lambda: right - fits,
                    "it is the squares only, without D/2 (β̃²/σ² − 1 − log β̃²/σ²)": lambda: fits,
                    "log β̃²/σ² is missing": lambda: right + 0.5 * D * np.log(ratio)[:, None],
                    "log β̃/σ stands for log β̃²/σ²": lambda: right + 0.25 * D * np.log(ratio)[:, None],
                    "β̃²/σ² is missing": lambda: right - 0.5 * D * ratio[:, None],
                    "the − D/2 is missing": lambda: right + 0.5 * D,
                    "the terms of the variances have lost their factor D": lambda: (
                        right - 0.5 * (D - 1) * (ratio - 1 - np.log(ratio))[:, None]
                    ),
                    "the divergence is reversed, KL(p‖q)": all_steps(
                        lambda t: kl(difference(t), sigma_squared[t], steps.posterior[t])
                    ),
                    "ε̂ is evaluated at t − 1": all_steps(
                        lambda t: kl(
                            means[t - 1, 1] * (noise - eps_hat(at(t), t - 1)), steps.posterior[t], sigma_squared[t]
                        )
                    ),
                    "σ² is that of step t−1": all_steps(lambda t: step(t, sigma_squared[t - 1])),
                },
                labels=([f"t = {t}" for t in ts], examples),
                unit=(D + np.abs(right) + fits) * (1 + ratio[:, None]) * condition[2:, None]
                + _density_error(errors[1:], 2 * fits, D) / tolerance,
            )
        )
    return first_of(*checks[::-1])


@takes_arrays
def check_loss_weights(
    weights: Callable[[str], ArrayLike], schedule: NoiseSchedule, sigma_squared: Array, weightings: tuple[str, ...] = ()
) -> Check:
    """(29): the weights λ_t of the training loss λ_t ‖ε − ε̂‖².

    Parameters
    ----------
    weights : callable
        weights(name) → λ_t, (T+1,), with λ_0 = 0.  The names and their right sides:

        * "simple": 1.
        * "x0": the loss ‖x_0 − x̂_0‖², where x_0 = (x_t − β̄ε)/ᾱ.
        * "v": the loss ‖v − v̂‖², where v = ᾱε − β̄x_0.
        * "min-snr": the weight of "x0" times min(SNR, 5).
        * "bound": T times the factor of ‖ε − ε̂‖² in −log p_θ(x_{t−1} | x_t).
    schedule : NoiseSchedule
    sigma_squared : (T+1,)
        The variances σ_t² of "bound".
    weightings : tuple of str
        The names to check; all five if empty.

    Returns
    -------
    Check
        Tolerance 1e-10, enlarged where 1 − ᾱ² cancels.
    """
    steps = compose(schedule)
    T, scale, total = steps.T, steps.scale[1:], steps.total[1:]
    sigma = as_sigma_squared(sigma_squared, schedule)[1:]
    snr = scale**2 / total
    x0_per_noise, v_per_noise = -np.sqrt(total) / scale, scale + total / scale
    tables = {
        "simple": np.ones(T),
        "bound": T * reverse_mean(steps)[:, 1] ** 2 / (2 * sigma),
        "x0": x0_per_noise**2,
        "v": v_per_noise**2,
        "min-snr": np.minimum(snr, 5.0) * x0_per_noise**2,
    }
    names = weightings or tuple(tables)
    right = np.array([np.append(0.0, tables[name]) for name in names])

    def with_table(one: str, table: Array) -> Callable[[], Array]:
        return lambda: np.array([np.append(0.0, table if name == one else tables[name]) for name in names])

    def by_snr(rows: slice) -> Array:
        """VDM's difference of the SNR at some steps as the weight of the bound."""
        table = tables["bound"].copy()
        table[rows] = (T / 2 * (np.append(np.inf, snr[:-1]) / snr - 1))[rows]
        return with_table("bound", table)()

    return compare(
        "check_loss_weights",
        "(29)",
        "λ_t of every weighting, t = 0..T",
        [np.asarray(weights(name)) for name in names],
        right,
        1e-10,
        {
            "the weight of the bound has lost its ½, as printed": lambda: np.where(
                np.array(names)[:, None] == "bound", 2 * right, right
            ),
            "the factor T of the weight of the bound is missing": with_table("bound", tables["bound"] / T),
            "the weight of the bound has lost its ½ and its factor T": with_table("bound", 2 * tables["bound"] / T),
            "1/α_t² is missing in the weight of the bound": with_table("bound", tables["bound"] * steps.alpha[1:] ** 2),
            "the weight of x0 is inverted: the SNR, not 1/SNR": with_table("x0", snr),
            "the weight of x0 is its root β̄/ᾱ": with_table("x0", np.sqrt(1 / snr)),
            "the weight of v is SNR + 1, that of a loss in x_0": with_table("v", snr + 1),
            "the weight of v is 1/(SNR + 1)": with_table("v", 1 / (snr + 1)),
            "the weight of v is 1/ᾱ, without its square": with_table("v", 1 / scale),
            "the weight of min-snr has max(SNR, 5), not min": with_table("min-snr", np.maximum(snr, 5) / snr),
            "the weight of min-snr is min(SNR, 5)/(SNR + 1), that of a loss in v": with_table(
                "min-snr", np.minimum(snr, 5) / (snr + 1)
            ),
            "the weight of v is 1/ᾱ⁴: ᾱ² is taken for ᾱ": with_table("v", 1 / scale**4),
            "the weight of the bound is T/2 (SNR_{t−1}/SNR_t − 1), right for σ² = β̃² only": lambda: by_snr(slice(None)),
            "the weight of the bound is T/2 (SNR_{t−1}/SNR_t − 1) from t = 2 on, right for σ² = β̃² only": lambda: (
                by_snr(slice(1, None))
            ),
            "the weight of min-snr is min(SNR, 5), that of a loss in x_0": with_table("min-snr", np.minimum(snr, 5)),
            "the weight of min-snr is min(1/SNR, 5)": with_table("min-snr", np.minimum(1 / snr, 5)),
            "they are the weights of step t−1": lambda: np.concatenate([0 * right[:, :1], right[:, :-1]], axis=1),
        },
        unit=(1 + np.abs(right)) * (1 + 64 * EPS / 1e-10 * steps.posterior_condition),
    )
