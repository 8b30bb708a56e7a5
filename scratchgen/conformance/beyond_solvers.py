"""Checks of samplers in the denoiser's form: EDM's coefficients and levels, exponential steps, orders of convergence.

A level is a pair (scale, std) of x_t = scale · x_0 + std · ε.  A denoiser gives x̂_0 ≈ E[x_0 | x_t].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, returned, takes_arrays
from scratchgen.conformance.irregular import irregular
from scratchgen.conformance.result import Check, compare
from scratchgen.mixture import Mixture
from scratchgen.quadrature import integrate
from scratchgen.validation import Array

Denoiser = Callable[[Array, float, float], Array]
SLACK = 0.4  # an observed order counts up to the expected one minus this


# --- EDM --------------------------------------------------------------------------------------------------------------


@takes_arrays
def check_edm_coefficients(
    coefficients: Callable[[Array], tuple[ArrayLike, ...]], data_std: float = 0.5, sigmas: Array | None = None
) -> Check:
    """Karras et al. 2022: c_skip, c_out, c_in and the loss weight, from the regression of x_0 on y = x_0 + σ ε.

    c_skip is the coefficient of this regression, c_out the root mean square of its residual, c_in one over the root
    mean square of y, and the weight 1/c_out²; for data of standard deviation `data_std`.

    Parameters
    ----------
    coefficients : callable
        coefficients(sigma (n,)) → (c_skip, c_out, c_in, weight), each (n,).
    data_std : float
    sigmas : (n,), optional
        Levels; 0.002 to 80 if None.

    Returns
    -------
    Check
        Relative residual; tolerance 2e-14.
    """
    check_callable(coefficients, "coefficients(sigma)")
    at: Array = (
        np.array([0.002, 0.03, 0.4, 1.7, 12.0, 80.0]) if sigmas is None else np.asarray(sigmas, dtype=np.float64)
    )
    left: Array = np.array(parts(coefficients(at), 4, "coefficients"))
    right = []
    for sigma in at.tolist():
        x0 = 2**0.5 * data_std * np.array([1.0, -1.0, 0.0, 0.0])  # sigma points of (x_0, ε)
        y = x0 + 2**0.5 * sigma * np.array([0.0, 0.0, 1.0, -1.0])
        skip = float(x0 @ y / (y @ y))
        rest = float(((x0 - skip * y) ** 2).mean())
        right.append([skip, rest**0.5, float((y**2).mean()) ** -0.5, 1 / rest])
    skip, out, into, weight = np.array(right).T
    return compare(
        "check_edm_coefficients",
        "(33)",
        "EDM's coefficients",
        left,
        np.array(right).T,
        2e-14,
        {
            "the weight is the c_out² of a network, not 1/c_out²": lambda: [skip, out, into, 1 / weight],
            "the weight is 1": lambda: [skip, out, into, 1 + 0 * weight],
            "the weight is 1/σ², that of noise prediction": lambda: [skip, out, into, 1 / at**2],
            "the weight is (σ² + s²)/(σ + s)², not (σ² + s²)/(σ s)²": lambda: [
                skip,
                out,
                into,
                (at**2 + data_std**2) / (at + data_std) ** 2,
            ],
            "c_skip is 1/(1 + σ²): the data's variance is taken as 1": lambda: [1 / (1 + at**2), out, into, weight],
            "c_out has lost its root: it is σ s/(σ² + s²)": lambda: [skip, out * into, into, weight],
            "c_out has lost its factor s": lambda: [skip, out / data_std, into, weight],
            "c_in has lost its root: it is 1/(σ² + s²)": lambda: [skip, out, into**2, weight],
            "c_out is a variance": lambda: [skip, out**2, into, weight],
            "c_in is missing": lambda: [skip, out, 1 + 0 * into, weight],
            "c_in is 1/√(1 + σ²): the data's variance is taken as 1": lambda: [
                skip,
                out,
                1 / np.sqrt(1 + at**2),
                weight,
            ],
            "c_skip is σ²/(σ² + s²)": lambda: [1 - skip, out, into, weight],
        },
        relative=True,
        labels=(["c_skip", "c_out", "c_in", "weight"], [f"σ = {sigma:g}" for sigma in at.tolist()]),
    )


@takes_arrays
def check_sigma_grid(
    grid: Callable[[int, float, float, float], ArrayLike],
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Check:
    """Karras et al. 2022: noise levels from sigma_max to sigma_min, evenly spaced in σ^(1/ρ).

    Parameters
    ----------
    grid : callable
        grid(n, sigma_min, sigma_max, rho) → (n,), or (n+1,) with a 0 at the end.
    sigma_min, sigma_max, rho : float

    Returns
    -------
    Check
        The place of every level on the grid, which should be 0, 1, …, n − 1, for n = 5 and 18; tolerance
        64 (4 + ρ/log(sigma_max/sigma_min)) machine epsilons, the condition of a place.
    """
    check_callable(grid, "grid(n, sigma_min, sigma_max, rho)")
    first, last = np.log(sigma_max) / rho, np.log(sigma_min) / rho
    left, right, raw = [], [], []
    for n in (5, 18):
        found = np.asarray(grid(n, sigma_min, sigma_max, rho))
        levels = returned(found[:-1] if found.shape == (n + 1,) and found[-1] == 0 else found, (n,), "grid")
        with np.errstate(all="ignore"):
            root = np.log(levels) / rho
            left.append((n - 1) * np.expm1(root - first) / np.expm1(last - first))
        right.append(np.arange(float(n)))
        raw.append(n)

    def place(levels: Callable[[int], Array]) -> Array:
        """The places of other levels."""
        with np.errstate(all="ignore"):
            return np.concatenate(
                [(n - 1) * np.expm1(np.log(levels(n)) / rho - first) / np.expm1(last - first) for n in raw]
            )

    def root_levels(n: int, share: Array) -> Array:
        high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
        return (high + share * (low - high)) ** rho

    return compare(
        "check_sigma_grid",
        "(32)",
        "the place of a level",
        np.concatenate(left),
        np.concatenate(right),
        64 * float(np.finfo(np.float64).eps) * (4 + rho / float(np.log(sigma_max / sigma_min))),
        {
            "the levels rise": lambda: place(lambda n: root_levels(n, np.linspace(1, 0, n))),
            "the levels are evenly spaced in log σ": lambda: place(lambda n: np.geomspace(sigma_max, sigma_min, n)),
            "the levels are evenly spaced in σ": lambda: place(lambda n: np.linspace(sigma_max, sigma_min, n)),
            "the mixture of σ^(1/ρ) is not raised to ρ": lambda: place(
                lambda n: np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n)
            ),
            "the step is 1/n, not 1/(n − 1)": lambda: place(lambda n: root_levels(n, np.arange(n) / n)),
            "the exponents ρ and 1/ρ are swapped": lambda: place(
                lambda n: np.linspace(sigma_max**rho, sigma_min**rho, n) ** (1 / rho)
            ),
        },
    )


# --- exponential steps ------------------------------------------------------------------------------------------------


def _levels(stochasticity: float) -> Array:
    """Triples of levels (scale, std), (4, 3, 2): variance-preserving, exploding, flow matching, one of large steps."""
    angles = np.array([[1.3, 1.0, 0.9], [1.5, 0.7, 0.1]])
    return np.array(
        [
            *np.stack([np.cos(angles), np.sin(angles)], axis=-1),
            [[1.0, 7.0], [1.0, 4.0], [1.0, 0.6 + 0.1 * stochasticity]],
            [[0.2, 0.8], [0.5, 0.5], [0.7, 0.3]],
        ]
    )


@takes_arrays
def check_exponential_step(step: Callable[..., ArrayLike], stochasticity: float = 0.0, multistep: bool = True) -> Check:
    """Lu et al. 2022: one step of DDIM, DPM-Solver++(2M), or their stochastic forms, by integration of the linear SDE.

    In λ = log(scale/std) the variable x/std has the derivative (1 + c²) e^λ D − c² x/std, and its variance the rate
    2c² (1 − variance).  These equations are solved numerically with D fixed at x̂_0, or at x̂_0 extrapolated from the
    last level to the middle of the step in λ.

    Parameters
    ----------
    step : callable
        step(x (N, D), x0_hat (N, D), x0_hat_last (N, D), levels (3, 2), noise (N, D)) → x at the last level.  The rows
        of levels are (scale, std) of the level before, of x, and of the result.
    stochasticity : float
        c: 0 for the flow, 1 for the reverse SDE.
    multistep : bool
        False for a step that does not use x0_hat_last.

    Returns
    -------
    Check
        Tolerance 2e-13.
    """
    check_callable(step, "step(x, x0_hat, x0_hat_last, levels, noise)")
    N, D, c2 = 5, 3, float(stochasticity) ** 2
    x, x0_hat, x0_last, noise = (3 * irregular(N, D, shift=shift) for shift in (0.0, 1.0, 2.0, 3.0))
    left, right, pieces = [], [], []
    for levels in _levels(stochasticity):
        left.append(returned(step(x, x0_hat, x0_last, levels.copy(), noise), (N, D), "step"))
        lambdas = np.log(levels[:, 0] / levels[:, 1])
        h_last, h = np.diff(lambdas).tolist()
        std_t, std_s = levels[1:, 1].tolist()

        def slope(u: float, state: Array, start: float = float(lambdas[1])) -> Array:
            """Derivatives of the factors of x/std and of D, and of the variance, (1, 3)."""
            carried, from_denoiser, variance = state[0]
            return np.array(
                [[-c2 * carried, (1 + c2) * np.exp(start + u) - c2 * from_denoiser, 2 * c2 * (1 - variance)]]
            )

        start = np.array([[1.0, 0.0, 0.0]])
        carried, gain, variance = integrate(slope, 0.0, h, start, 1e-13, "the step", "use other levels")[0].tolist()
        share = h / (2 * h_last) if multistep else 0.0
        terms = [
            std_s * carried / std_t * x,
            std_s * gain * x0_hat,
            std_s * gain * share * (x0_hat - x0_last),
            std_s * max(variance, 0.0) ** 0.5 * noise,
        ]
        right.append(sum(terms))
        numbers = h / h_last, std_s, h, std_t, *levels[1:, 0].tolist(), share
        pieces.append([*terms, *(np.full_like(x, value) for value in numbers)])
    by_x, by_x0, extra, by_noise, ratio, std, h_all, *rest = np.moveaxis(np.array(pieces), 1, 0)
    old_std, old_scale, new_scale, share_all = rest
    base = by_x + by_x0
    return compare(
        "check_exponential_step",
        "(32)",
        "x after the step",
        left,
        right,
        2e-13,
        {
            "the denoiser is not extrapolated: a step of order 1": lambda: base + by_noise,
            "h/h_last is turned over": lambda: base + extra / ratio**2 + by_noise,
            "the factor ½ of h/(2 h_last) is missing": lambda: base + 2 * extra + by_noise,
            "the extrapolation has the wrong sign": lambda: base - extra + by_noise,
            "x0_hat_last is extrapolated, although the step should not use it": lambda: (
                base + ratio / 2 * by_x0 / x0_hat * (x0_hat - x0_last) + by_noise
            ),
            "h/h_last is taken as 1": lambda: base + extra / ratio + by_noise,
            "λ is log(scale²/std²), twice its right value": lambda: (
                std / old_std * np.exp(-2 * c2 * h_all) * x
                - new_scale * np.expm1(-2 * (1 + c2) * h_all) * (x0_hat + share_all * (x0_hat - x0_last))
                + std * np.sqrt(-np.expm1(-4 * c2 * h_all)) * noise
            ),
            "scale of the old level stands before the denoiser": lambda: (
                by_x + (by_x0 + extra) * old_scale / new_scale + by_noise
            ),
            "the noise has 1 − e^(−c²h), not 1 − e^(−2c²h)": lambda: (
                base + extra + std * np.sqrt(-np.expm1(-c2 * h_all)) * noise
            ),
            "the denoiser has the factor of the flow, 1 − e^(−h)": lambda: (
                by_x - new_scale * np.expm1(-h_all) * (x0_hat + share_all * (x0_hat - x0_last)) + by_noise
            ),
            "e^(−c²h) is missing before x": lambda: std / old_std * x + by_x0 + extra + by_noise,
            "the noise has the factor std (1 − e^(−2c²h)), a variance": lambda: (
                base + extra + std * -np.expm1(-2 * c2 * h_all) * noise
            ),
            "x has the factor of the scales, not of the stds": lambda: (
                new_scale / old_scale * np.exp(-c2 * h_all) * x + by_x0 + extra + by_noise
            ),
            "there is no noise": lambda: base + extra,
            "the noise has the factor of c = 1": lambda: base + extra + std * np.sqrt(-np.expm1(-2 * h_all)) * noise,
            "the noise has the factor of DDIM, η std √(1 − e^(−2h))": lambda: (
                base + extra + stochasticity * std * np.sqrt(-np.expm1(-2 * h_all)) * noise
            ),
        },
        labels=(
            ["a cosine path", "a cosine path with long steps", "scale 1", "flow matching"],
            [f"example {i}" for i in range(N)],
            [f"coordinate {i}" for i in range(D)],
        ),
    )


# --- orders of convergence --------------------------------------------------------------------------------------------


def _observed(errors: Sequence[float], order: float) -> list[float]:
    """log₂ of the ratios of successive errors, counted up to order − SLACK; an error near rounding counts in full."""
    expected = order - SLACK
    return [
        expected if fine < 1e-10 else min(expected, float(np.log2(coarse / fine))) for coarse, fine in pairwise(errors)
    ]


@takes_arrays
def check_flow_order(
    sample: Callable[[Denoiser, Array, Array], ArrayLike],
    law: Mixture,
    order: float = 2.0,
    level: Callable[[float], tuple[float, float]] | None = None,
    n_steps: int = 40,
) -> Check:
    """A deterministic sampler converges to the probability flow with at least the given order, for the exact denoiser.

    The flow is solved in y = x/scale and σ = std/scale, where dy/dσ = (y − x̂_0)/σ, by a Runge-Kutta method of order 8.
    A mistake in a step that its own formula does not show, such as a score that is evaluated one level late, lowers the
    order to 1 or 0.

    Parameters
    ----------
    sample : callable
        sample(denoise, x (N, D), levels (n+1, 2)) → x at the last level; denoise(x, scale, std) → x̂_0, (N, D).
    law : Mixture
        Law of the data.
    order : float
        2 for Heun's method and DPM-Solver++(2M), 1 for DDIM and Euler's method.
    level : callable, optional
        level(u) → (scale, std) for u in [0, 1], from the start (u = 0) to the end; if None, variance-preserving and
        evenly spaced in log-SNR from −6 to 5.
    n_steps : int
        Steps of the coarsest run; the others have two and four times as many.

    Returns
    -------
    Check
        log₂ of the ratios of the errors, counted up to order − 0.4; tolerance 0.01.
    """
    check_callable(sample, "sample(denoise, x, levels)")
    path = _preserving if level is None else level
    start, end = (tuple(float(value) for value in path(u)) for u in (0.0, 1.0))
    x = start[0] * law.mean() + start[1] * 1.5 * irregular(6, law.dimension)

    def slope(log_sigma: float, y: Array) -> Array:
        return y - law.denoise(y, 1.0, float(np.exp(log_sigma)))

    first, last = (float(np.log(std / scale)) for scale, std in (start, end))
    exact = end[0] * integrate(slope, first, last, x / start[0], 1e-10, "the flow", "use other levels")
    errors = []
    for n in (n_steps, 2 * n_steps, 4 * n_steps):
        levels = np.array([path(u) for u in np.linspace(0, 1, n + 1)])
        found = returned(sample(law.denoise, x.copy(), levels), x.shape, "sample")
        errors.append(float(np.sqrt(((found - exact) ** 2).mean())))
    left = _observed(errors, order)
    return _order_of(left, order, errors, n_steps, "check_flow_order", "the order on the probability flow")


@takes_arrays
def check_weak_order(
    sample: Callable[[Denoiser, Array, Array, Array], ArrayLike],
    mean: Array,
    covariance: Array,
    order: float = 1.0,
    level: Callable[[float], tuple[float, float]] | None = None,
    n_steps: int = 20,
) -> Check:
    """A stochastic sampler converges in mean and covariance with at least the given order, on Gaussian data.

    The exact denoiser of N(mean, covariance) is affine.  The sampler is then affine in its start and its noise, and
    unit vectors give the exact mean and covariance of its samples, without a Monte Carlo error.

    Parameters
    ----------
    sample : callable
        sample(denoise, x (N, D), levels (n+1, 2), noise (n, N, D)) → x at the last level.
    mean, covariance : (D,), (D, D)
        Moments of the data.
    order, level, n_steps
        As for `check_flow_order`.

    Returns
    -------
    Check
        log₂ of the ratios of the errors of mean and covariance, counted up to order − 0.4; tolerance 0.01.
    """
    check_callable(sample, "sample(denoise, x, levels, noise)")
    path = _preserving if level is None else level
    law, D = Mixture([1.0], [mean], [covariance]), len(mean)
    errors = []
    for n in (n_steps, 2 * n_steps, 4 * n_steps):
        levels = np.array([path(u) for u in np.linspace(0, 1, n + 1)])
        units = np.concatenate([np.zeros((1, (n + 1) * D)), np.eye((n + 1) * D)]).reshape(-1, n + 1, D)
        start, end = law.diffuse(*levels[0]), law.diffuse(*levels[-1])
        x = start.mean() + units[:, 0] @ np.linalg.cholesky(start.covariance()).T
        noise = np.ascontiguousarray(np.moveaxis(units[:, 1:], 1, 0))
        found = returned(sample(law.denoise, x, levels, noise), x.shape, "sample")
        linear = found[1:] - found[0]
        error = np.concatenate([found[0] - end.mean(), (linear.T @ linear - end.covariance()).ravel()])
        errors.append(float(np.sqrt((error**2).sum())))
    left = _observed(errors, order)
    return _order_of(left, order, errors, n_steps, "check_weak_order", "the weak order on Gaussian data")


def _preserving(u: float) -> tuple[float, float]:
    """scale² + std² = 1, evenly spaced in log-SNR from −6 to 5."""
    log_snr = -6 + 11 * u
    return float((1 + np.exp(-log_snr)) ** -0.5), float((1 + np.exp(log_snr)) ** -0.5)


def _order_of(left: list[float], order: float, errors: list[float], n_steps: int, name: str, quantity: str) -> Check:
    """The comparison of observed orders with the expected one."""
    runs = [f"from {n_steps * 2**i} to {n_steps * 2 ** (i + 1)} steps" for i in range(len(left))]
    found = [f"{run} (errors {a:.2g} and {b:.2g})" for run, (a, b) in zip(runs, pairwise(errors), strict=True)]
    expected = [order - SLACK] * len(left)
    return compare(name, "(32)", f"{quantity}, counted up to {order - SLACK:g}", left, expected, 0.01, labels=(found,))
