"""Checks of diffusion chains beyond the deck: DDIM inversion, data processing, whole numbers, dequantisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, returned, takes_arrays
from scratchgen.conformance.irregular import irregular
from scratchgen.conformance.reference_chain import EpsHat, compose
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import gauss_hermite
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array


def check_ddim_inversion(inverse: Callable[[int, int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """Song, Meng and Ermon 2021: the inverse DDIM step takes a point of the path of (x_0, ε̂) to another one.

    Along the deterministic path x_t = scale_t x_0 + std_t ε̂ with fixed x_0 and ε̂, the step from s to t > s has to give
    x_t.  The coefficients come from single forward steps.

    Parameters
    ----------
    inverse : callable
        inverse(s, t, x_s (N, D), eps_hat (N, D)) → x_t, for 0 <= s < t <= T; s = 0 is clean data.  If the code takes
        arrays s and t, (N,), these are checked as well.
    schedule : NoiseSchedule
        At most 30 pairs (s, t) of its steps are used.

    Returns
    -------
    Check
        Tolerance 2e-14.
    """
    check_callable(inverse, "inverse(s, t, x_s, eps_hat); t counts 1..T")
    name, steps = "check_ddim_inversion", compose(schedule)
    scale, std = steps.scale, np.sqrt(steps.total)
    kept = np.unique(np.round(np.linspace(0, steps.T, 8)).astype(int)).tolist()
    pairs = [(s, t) for s in kept for t in kept if s < t]
    x0, eps = 2 * irregular(5, 3), irregular(5, 3, shift=1.0)
    starts = np.array([scale[s] * x0 + std[s] * eps for s, _ in pairs])
    left = [returned(inverse(s, t, x, eps), x.shape, "inverse") for (s, t), x in zip(pairs, starts, strict=True)]

    def with_factors(factors: Callable[[int, int], tuple[float, float]]) -> Array:
        by_pair = [factors(s, t) for s, t in pairs]
        return np.array([a * x + b * eps for (a, b), x in zip(by_pair, starts, strict=True)])

    with_ints = compare(
        name,
        "(25)",
        "x_t",
        left,
        [scale[t] * x0 + std[t] * eps for _, t in pairs],
        2e-14,
        {
            "it adds fresh noise: q(x_t | x_s), not the path of ε̂": lambda: with_factors(
                lambda s, t: (scale[t] / scale[s], np.sqrt(std[t] ** 2 - (scale[t] / scale[s] * std[s]) ** 2))
            ),
            "the noise of x_s is not removed: x_s stands where x̂_0 belongs": lambda: with_factors(
                lambda s, t: (scale[t], std[t])
            ),
            "x̂_0 is not divided by scale_s": lambda: with_factors(lambda s, t: (scale[t], std[t] - scale[t] * std[s])),
            "it is the DDIM step from t down to s": lambda: with_factors(
                lambda s, t: (scale[s] / scale[t], std[s] - scale[s] / scale[t] * std[t])
            ),
        },
        labels=(
            [f"s = {s}, t = {t}" for s, t in pairs],
            [f"example {i}" for i in range(5)],
            [f"coordinate {i}" for i in range(3)],
        ),
    )
    s_all, t_all = np.array(pairs).T
    try:
        found = np.asarray(inverse(s_all, t_all, starts[:, 0], np.tile(eps[0], (len(pairs), 1))))
    except Exception:  # the code takes numbers only
        return with_ints
    by_pair = [scale[t] * x0[0] + std[t] * eps[0] for _, t in pairs]
    return worst(with_ints, compare(name, "(25)", "x_t for arrays s and t, one number a row,", found, by_pair, 2e-14))


def check_data_processing(
    density: Callable[[EpsHat, Array], tuple[ArrayLike, ArrayLike]], schedule: NoiseSchedule
) -> Check:
    """KL(p‖p_θ(x_0)) of a sampler's exact density on N(m, v) is at most KL of the paths, the bound minus H(p).

    The density of ancestral sampling with affine ε̂ is Gaussian, and both divergences have closed forms.  Four cases:
    three wrong nets, and data N(0, 1) with the exact ε̂ and σ_t² = β_t², where both divergences are 0.

    Parameters
    ----------
    density : callable
        density(eps_hat, sigma_squared (T+1,)) → (points (M,) or (M, 1), p_θ at the points (M,)) on an even grid in one
        dimension.  eps_hat(x (N, 1), t) → (N, 1); index 0 of the table is not used.
    schedule : NoiseSchedule

    Returns
    -------
    Check
        KL(p‖p_θ(x_0)) of the four cases; tolerance 1e-6.  The values of KL of the paths are named if they are found.
    """
    check_callable(density, "density(eps_hat, sigma_squared)")
    steps = compose(schedule)
    T, std = steps.T, np.sqrt(steps.total)
    cases = [
        (0.5, 0.3, 1.0, 0.0, 1.0),
        (0.0, 1.0, 0.8, 0.1, 1.3),
        (-0.4, 0.6, 1.1, -0.2, 0.8),
        (0.0, 1.0, 1.0, 0.0, 1.0),
    ]
    left, right, paths = [], [], []
    for m, v, factor, shift, spread in cases:  # ε̂ = factor · (that of N(m, v)) + shift, σ² = spread · β²
        slope = np.append(0.0, factor * std[1:] / (steps.scale[1:] ** 2 * v + steps.total[1:]))
        table = spread * steps.variance

        def eps_hat(x: Array, t: int, slope: Array = slope, m: float = m, shift: float = shift) -> Array:
            return slope[t] * (x - steps.scale[t] * m) + shift

        points, values = parts(density(eps_hat, table.copy()), 2, "density")
        points = points.ravel()
        values = returned(values, points.shape, "density")
        log_p = -0.5 * ((points - m) ** 2 / v + np.log(2 * np.pi * v))
        mass = np.exp(log_p) * ((points[-1] - points[0]) / (len(points) - 1))
        seen = (mass > 0) & (values > 0)
        lost = abs(float(mass[seen].sum()) - 1) > 1e-6
        left.append(np.inf if lost else float(mass[seen] @ (log_p[seen] - np.log(values[seen]))))
        mean, variance, path_kl = 0.0, 1.0, 0.0
        q_mean, q_variance = steps.scale * m, steps.scale**2 * v + steps.total
        path_kl += _kl(q_mean[T], q_variance[T], mean, variance)
        for t in range(T, 0, -1):
            weight = steps.variance[t] / std[t]
            gain = (1 - weight * slope[t]) / steps.alpha[t]
            offset = (weight * (slope[t] * steps.scale[t] * m - shift)) / steps.alpha[t]
            exact_gain = steps.alpha[t] * q_variance[t - 1] / q_variance[t]
            exact_variance = q_variance[t - 1] * steps.variance[t] / q_variance[t]
            mean_gap = q_mean[t - 1] - gain * q_mean[t] - offset  # of the means at x_t = E x_t
            path_kl += _kl(mean_gap, exact_variance, 0.0, table[t])
            path_kl += 0.5 * (exact_gain - gain) ** 2 * q_variance[t] / table[t]
            mean, variance = gain * mean + offset, gain**2 * variance + table[t]
        right.append(_kl(m, v, mean, variance))
        paths.append(path_kl)
    if not (np.array(right) <= np.array(paths) + 1e-12).all():
        raise ValueError(f"check_data_processing: {right} exceeds {paths}; the problem is too ill-conditioned")
    return compare(
        "check_data_processing",
        "(20)",
        "KL(p‖p_θ(x_0)) of the sampler",
        left,
        right,
        1e-6,
        {
            "it is KL of the paths, the bound minus H(p), which is larger": lambda: paths,
            "it is the reversed KL": lambda: [np.nan] * len(cases),
        },
        labels=([*(f"wrong net {i}" for i in range(3)), "data N(0, 1) with the exact net"],),
    )


def _kl(m: float, v: float, mean: float, variance: float) -> float:
    """KL(N(m, v)‖N(mean, variance))."""
    return float(0.5 * ((m - mean) ** 2 / variance + v / variance - 1 - np.log(v / variance)))


def check_discrete_bound(
    elbo: Callable[[NoiseSchedule, Array, EpsHat, Array, int], ArrayLike], n_levels: int = 3
) -> Check:
    """(20) for whole numbers in two dimensions: the ELBO of every x, by quadrature over whole paths of two steps.

    For any ε̂ the values exp(ELBO(x)) sum to at most 1 over all x, so that E_P[−ELBO] >= H(P) for every P.  The sum is 1
    for a chain that forgets x_0 in its first step, with a decoder that ignores x_1.

    Parameters
    ----------
    elbo : callable
        elbo(schedule, x0 (N, 2), eps_hat, sigma_squared (T+1,), n_levels) → (N,), nats, without Monte Carlo error.  x0
        holds levels scaled to [−1, 1]; the first and the last bin reach to infinity.
    n_levels : int

    Returns
    -------
    Check
        The larger of two residuals; tolerance 1e-8.
    """
    from scipy.special import log_ndtr

    check_callable(elbo, "elbo(schedule, x0, eps_hat, sigma_squared, n_levels)")
    half = 1 / (n_levels - 1)
    axis = 2 * half * np.arange(n_levels) - 1
    x0 = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    schedule = NoiseSchedule([0.3, 0.8])
    (_, b1, b2), (_, a1, a2) = (
        np.sqrt(np.append(0.0, schedule.variances)),
        np.sqrt(1 - np.append(0.0, schedule.variances)),
    )
    std = np.array([0.0, b1, np.hypot(a2 * b1, b2)])
    table = np.array([0.0, 0.5, 0.6])

    def eps_hat(x: Array, t: int) -> Array:
        return 0.6 * x + 0.3 * np.sin(x[:, ::-1] + t) - 0.1 * t

    def log_normal(x: Array, mean: Array, variance: float) -> Array:
        return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(axis=-1)

    def mean_of(x: Array, t: int) -> Array:
        weight = (b1, b2)[t - 1] ** 2 / std[t]
        return (x - weight * eps_hat(x, t)) / (a1, a2)[t - 1]

    def log_decoder(x: Array, mean: Array, variance: float) -> Array:
        """log mass of the bins of x."""
        lower = np.where(x < axis[0] + half, -np.inf, (x - half - mean) / variance**0.5)
        upper = np.where(x > axis[-1] - half, np.inf, (x + half - mean) / variance**0.5)
        flip = lower > 0
        near, far = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
        return (log_ndtr(near) + np.log(-np.expm1(log_ndtr(far) - log_ndtr(near)))).sum(axis=-1)

    def paths(n: int) -> Array:
        """ELBO of every x from the log-densities of both chains along paths."""
        nodes, weights = gauss_hermite(n, 4)
        x_1 = a1 * x0[:, None] + b1 * nodes[:, :2]
        x_2 = a2 * x_1 + b2 * nodes[:, 2:]
        flat_1, flat_2 = x_1.reshape(-1, 2), x_2.reshape(-1, 2)
        log_p = log_normal(flat_2, np.zeros(2), 1.0) + log_normal(flat_1, mean_of(flat_2, 2), float(table[2]))
        log_p = log_p.reshape(len(x0), -1) + log_decoder(
            x0[:, None], mean_of(flat_1, 1).reshape(x_1.shape), float(table[1])
        )
        log_q = log_normal(x_1, a1 * x0[:, None], b1**2) + log_normal(x_2, a2 * x_1, b2**2)
        return (log_p - log_q) @ weights

    exact, coarse = paths(14), paths(12)
    tolerance = 1e-10 + 10 * float(np.abs(exact - coarse).max())
    forgetful, name = NoiseSchedule([1 - 1e-12]), "check_discrete_bound"
    decoder = log_decoder(x0, np.full(2, 0.3), 0.5)

    def pointing(x: Array, t: int) -> Array:
        """The ε̂ whose μ_θ is 0.3 for every x_1."""
        return (x - 0.3 * forgetful.alpha[1]) / forgetful.beta_bar[1]

    return worst(
        compare(
            name,
            "(20)",
            "the ELBO of two whole numbers",
            returned(elbo(schedule, x0, eps_hat, table.copy(), n_levels), (len(x0),), "elbo"),
            exact,
            tolerance,
            {
                "it is the bound with the sign of a loss": lambda: -exact,
                "the density of x_0 stands where the mass of its bin belongs": lambda: _with_density(
                    exact, x0, log_decoder, log_normal, mean_of, float(table[1]), a1, b1
                ),
            },
            labels=([f"x = {tuple(np.round((x + 1) / (2 * half)).astype(int).tolist())}" for x in x0],),
        ),
        compare(
            name,
            "(20)",
            "exp(ELBO) of a chain that forgets x_0 (its sum should be 1)",
            np.exp(returned(elbo(forgetful, x0, pointing, np.array([0.0, 0.5]), n_levels), (len(x0),), "elbo")),
            np.exp(decoder),
            1e-8,
        ),
    )


def _with_density(
    exact: Array,
    x0: Array,
    log_decoder: Callable[[Array, Array, float], Array],
    log_normal: Callable[[Array, Array, float], Array],
    mean_of: Callable[[Array, int], Array],
    variance: float,
    a1: float,
    b1: float,
) -> Array:
    """The ELBO with log N(x_0; μ, σ²) where log P(x_0 | x_1) belongs."""
    nodes, weights = gauss_hermite(28, 2)
    x_1 = a1 * x0[:, None] + b1 * nodes
    mean = mean_of(x_1.reshape(-1, 2), 1).reshape(x_1.shape)
    gap = log_normal(x0[:, None], mean, variance) - log_decoder(x0[:, None], mean, variance)
    return exact + gap @ weights


@takes_arrays
def check_dequantisation(
    cost: Callable[[Callable[[Array], Array], Array], ArrayLike], mean: Array, std: Array
) -> Check:
    """Theis et al. 2016: log P(k) − E_u log p(k + u) = KL(uniform‖p(u | k)) >= 0, for independent Gaussians.

    Parameters
    ----------
    cost : callable
        cost(log_prob, k (N, D)) → (N,), nats, where log_prob takes points (M, D) and u is uniform on [0, 1)^D.
    mean, std : (D,)
        Moments of p; std of about 1 or more, so that the code's quadrature over u is accurate.

    Returns
    -------
    Check
        Tolerance 1e-13.
    """
    from scipy.special import log_ndtr

    check_callable(cost, "cost(log_prob, k)")
    D = len(mean)
    k = np.round(mean) + np.stack([np.roll(np.arange(-3.0, 3.0), d) for d in range(D)], axis=1)

    def log_prob(points: Array) -> Array:
        return -0.5 * (((points - mean) / std) ** 2 + np.log(2 * np.pi * std**2)).sum(axis=1)

    low, high = (k - mean) / std, (k + 1 - mean) / std
    flip = low > 0
    near, far = np.where(flip, -low, high), np.where(flip, -high, low)
    log_mass = (log_ndtr(near) + np.log(-np.expm1(log_ndtr(far) - log_ndtr(near)))).sum(axis=1)
    squares = (low**2 + low * high + high**2) / 3  # E ((k + u − mean)/std)²
    mean_log = -0.5 * (squares + np.log(2 * np.pi * std**2)).sum(axis=1)
    exact = log_mass - mean_log
    return compare(
        "check_dequantisation",
        "(1)",
        "KL(uniform‖p(u | k))",
        returned(cost(log_prob, k), (len(k),), "cost"),
        exact,
        1e-13,
        {
            "it is log P(k), the mass itself": lambda: log_mass,
            "it is E_u log p(k + u), the bound": lambda: mean_log,
            "u is fixed at 0": lambda: log_mass - log_prob(k),
            "u is fixed at ½": lambda: log_mass - log_prob(k + 0.5),
            "it is averaged over the D dimensions": lambda: exact / D,
        },
        labels=([f"k = {row}" for row in k.astype(int).tolist()],),
    )
