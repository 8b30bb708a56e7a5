"""Checks of diffusion chains beyond the deck: DDIM inversion, data processing, whole numbers, dequantisation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, parts, returned, takes_arrays
from scratchgen.conformance.reference_chain import (
    CLIPS,
    EpsHat,
    Formula,
    Steps,
    at,
    check_linear,
    clipped,
    common_mistakes,
    compose,
    rounding,
)
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.quadrature import gauss_hermite
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array


def check_ddim_inversion(inverse: Callable[[int, int, Array, Array], ArrayLike], schedule: NoiseSchedule) -> Check:
    """Song, Meng and Ermon 2021: the inverse DDIM step keeps x̂_0 and ε̂, and takes x_s to x_t for t > s.

    Both lie on the path x_t = ᾱ_t x̂_0 + β̄_t ε̂.  Therefore x_t = (ᾱ_t/ᾱ_s) x_s + (β̄_t − (ᾱ_t/ᾱ_s) β̄_s) ε̂.

    Parameters
    ----------
    inverse : callable
        inverse(s, t, x_s (N, D), eps_hat (N, D)) → x_t, for 0 <= s < t <= T; s = 0 is clean data.
    schedule : NoiseSchedule
        28 pairs (s, t) of its steps are used at most.

    Returns
    -------
    Check
        Tolerance 64 + 2 T machine epsilons, enlarged where 1 − ᾱ² cancels.
    """
    check_callable(inverse, "inverse(s, t, x_s, eps_hat); t counts 1..T")
    steps, inputs = compose(schedule), ("x_s", "ε̂")
    kept = np.unique(np.round(np.linspace(0, steps.T, 8)).astype(int)).tolist()
    pairs = np.array([(t, s) for s in kept for t in kept if s < t])

    def by(chain: Steps) -> Formula:
        def step(t: Array, s: Array, x: Array, e: Array) -> Array:
            ratio = at(chain.scale, t) / at(chain.scale, s)
            return ratio * x + (at(chain.std, t) - ratio * at(chain.std, s)) * e

        return step

    a, b = steps.scale, steps.std
    mistakes: dict[str, Formula] = {
        "it adds fresh noise: q(x_t | x_s), not the path of ε̂": lambda t, s, x, e: (
            at(a, t) / at(a, s) * x + np.sqrt(at(b, t) ** 2 - (at(a, t) / at(a, s) * at(b, s)) ** 2) * e
        ),
        "the noise of x_s is not removed: x_s stands where x̂_0 belongs": lambda t, s, x, e: at(a, t) * x + at(b, t) * e,
        "ε̂ has the factor β̄_t − β̄_s: ᾱ_t/ᾱ_s is missing before β̄_s": lambda t, s, x, e: (
            at(a, t) / at(a, s) * x + (at(b, t) - at(b, s)) * e
        ),
        "x̂_0 has the levels of t: x_s is returned": lambda t, s, x, e: x + 0 * at(a, t),
        "the roots are missing: ᾱ² and β̄² stand for ᾱ and β̄": lambda t, s, x, e: (
            (at(a, t) / at(a, s)) ** 2 * (x - at(b, s) ** 2 * e) + at(b, t) ** 2 * e
        ),
        "ε̂ has the wrong sign": lambda t, s, x, e: (
            at(a, t) / at(a, s) * x - (at(b, t) - at(a, t) / at(a, s) * at(b, s)) * e
        ),
        "the part of ε̂ in x_t has the wrong sign": lambda t, s, x, e: (
            at(a, t) / at(a, s) * (x - at(b, s) * e) - at(b, t) * e
        ),
        **{
            f"x̂_0 is clipped to [−{bound:g}, {bound:g}]; ε̂ is not recomputed from it": lambda t, s, x, e, bound=bound: (
                at(a, t) * clipped((x - at(b, s) * e) / at(a, s), bound) + at(b, t) * e
            )
            for bound in CLIPS
        },
        "x̂_0 is not divided by ᾱ_s": lambda t, s, x, e: at(a, t) * (x - at(b, s) * e) + at(b, t) * e,
        "it is the DDIM step from t down to s": lambda t, s, x, e: (
            at(a, s) / at(a, t) * x + (at(b, s) - at(a, s) / at(a, t) * at(b, t)) * e
        ),
    }
    t, s = pairs.T
    ratio, of_scale, of_std = a[t] / a[s], steps.scale_condition, b * steps.total_condition
    of_x = ratio * (of_scale[t] + of_scale[s])
    return check_linear(
        "check_ddim_inversion",
        "(25)",
        lambda t, s, x, e: inverse(s, t, x, e),
        "inverse",
        pairs,
        by(steps),
        inputs,
        "x_t",
        np.stack([of_x, 1 + of_std[t] + ratio * of_std[s] + of_x * b[s]], axis=1),
        mistakes | common_mistakes(by, steps, inputs),
        rounding(steps.T),
    )


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
        KL(p‖p_θ(x_0)) of the four cases; tolerance 1e-6.  If the code gives KL of the paths, the diagnosis says so.
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

    def of_sampler(
        weights: Array | None = None,
        divided: bool = True,
        power: int = 2,
        noises: Callable[[Array], Array] = lambda table: table,
    ) -> list[float]:
        """KL(p‖p_θ(x_0)) of the four cases under a mistake of the sampler."""
        values = []
        for m, v, factor, shift, spread in cases:
            table, mean, variance = noises(spread * steps.variance), 0.0, 1.0
            for t in range(T, 0, -1):
                slope = factor * std[t] / (steps.scale[t] ** 2 * v + steps.total[t])
                weight = steps.variance[t] / std[t] if weights is None else weights[t]
                alpha = steps.alpha[t] if divided else 1.0
                gain = (1 - weight * slope) / alpha
                mean = gain * mean + weight * (slope * steps.scale[t] * m - shift) / alpha
                variance = gain**power * variance + table[t]
            values.append(_kl(m, v, mean, variance) if variance > 0 else float("nan"))
        return values

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
    return compare(
        "check_data_processing",
        "(20)",
        "KL(p‖p_θ(x_0)) of the sampler",
        left,
        right,
        1e-6,
        {
            "the last step has no noise": lambda: of_sampler(
                noises=lambda table: np.concatenate([[0.0, 0.0], table[2:]])
            ),
            "σ is added to the variance, not σ²": lambda: of_sampler(noises=np.sqrt),
            "the slope of a step is not squared in the variance": lambda: of_sampler(power=1),
            "β_t² stands where β_t²/β̄_t belongs": lambda: of_sampler(weights=steps.variance),
            "1/α_t is missing": lambda: of_sampler(divided=False),
            "β_t stands where β_t²/β̄_t belongs, as if ε̂ were the noise of one step": lambda: of_sampler(
                weights=np.sqrt(steps.variance)
            ),
            "it is KL of the paths, the bound minus H(p), which is larger": lambda: paths,
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
    in the limit ᾱ_1 → 0 of a chain with T = 1 and a decoder that ignores x_1.  The second chain has ᾱ_1 = 0.001: there
    the ELBO is log P(x_0) − L_T in closed form, and 1 − β_1² still has ten right digits.

    Parameters
    ----------
    elbo : callable
        elbo(schedule, x0 (N, 2), eps_hat, sigma_squared (T+1,), n_levels) → (N,), nats, without Monte Carlo error.  x0
        holds levels scaled to [−1, 1]; the first and the last bin reach to infinity.
    n_levels : int

    Returns
    -------
    Check
        The larger of two residuals; tolerance 1e-10 and ten times the error of the quadrature over paths, and 1e-8 for
        the chain that forgets.  `Check.at` judges code whose own integral has fewer digits.
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

    ratio = (b1 * b2 / std[2]) ** 2 / table[2]  # β̃²/σ² of the second step

    def closed(x: Array, mean: Array, variance: float) -> Array:
        """log mass of the bins of x, where the first and the last bin end as the others do."""
        lower, upper = (x - half - mean) / variance**0.5, (x + half - mean) / variance**0.5
        flip = lower > 0
        near, far = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
        return (log_ndtr(near) + np.log(-np.expm1(log_ndtr(far) - log_ndtr(near)))).sum(axis=-1)

    def over_x_1(decoder: Callable[[Array, Array, float], Array]) -> Array:
        """E of a log-decoder over x_1 given x_0, (N,)."""
        nodes, weights = gauss_hermite(28, 2)
        x_1 = a1 * x0[:, None] + b1 * nodes
        return decoder(x0[:, None], mean_of(x_1.reshape(-1, 2), 1).reshape(x_1.shape), float(table[1])) @ weights

    exact, coarse = paths(14), paths(12)
    tolerance = 1e-10 + 10 * float(np.abs(exact - coarse).max())
    forgetful, name = NoiseSchedule([1 - 1e-6]), "check_discrete_bound"
    signal = 1e-6  # ᾱ_1²
    prior_term = 0.5 * (signal * (x0**2 - 1) - np.log1p(-signal)).sum(axis=1)
    forgetting = log_decoder(x0, np.full(2, 0.3), 0.5) - prior_term

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
                "L_T, the divergence from the prior, is missing": lambda: (
                    exact + 0.5 * ((a1 * a2 * x0) ** 2 + std[2] ** 2 - 1 - np.log(std[2] ** 2)).sum(axis=1)
                ),
                "D/2 (β̃²/σ² − 1 − log β̃²/σ²) is missing in L_1": lambda: exact + ratio - 1 - np.log(ratio),
                "the first and the last bin are closed": lambda: exact + over_x_1(closed) - over_x_1(log_decoder),
                "L_0 is averaged over the two dimensions": lambda: exact - 0.5 * over_x_1(log_decoder),
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
            "exp(ELBO) of a chain that forgets x_0 (its sum should be 1 to 1e-6)",
            np.exp(returned(elbo(forgetful, x0, pointing, np.array([0.0, 0.5]), n_levels), (len(x0),), "elbo")),
            np.exp(forgetting),
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

    def mass(start: Array) -> Array:
        """log P of the cells [start, start + 1)."""
        low, high = (start - mean) / std, (start + 1 - mean) / std
        flip = low > 0
        near, far = np.where(flip, -low, high), np.where(flip, -high, low)
        logs: Array = (log_ndtr(near) + np.log(-np.expm1(log_ndtr(far) - log_ndtr(near)))).sum(axis=1)
        return logs

    def mean_of_log(start: Array) -> Array:
        """E_u log p(start + u)."""
        low, high = (start - mean) / std, (start + 1 - mean) / std
        squares = (low**2 + low * high + high**2) / 3  # E ((start + u − mean)/std)²
        return -0.5 * (squares + np.log(2 * np.pi * std**2)).sum(axis=1)

    log_mass, mean_log = mass(k), mean_of_log(k)
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
            "u is uniform on [−½, ½), not on [0, 1)": lambda: mass(k - 0.5) - mean_of_log(k - 0.5),
            "the density at the middle of a cell stands for its mass": lambda: log_prob(k + 0.5) - mean_log,
            "u is fixed at 0": lambda: log_mass - log_prob(k),
            "u is fixed at ½": lambda: log_mass - log_prob(k + 0.5),
            "it is averaged over the D dimensions": lambda: exact / D,
        },
        labels=([f"k = {row}" for row in k.astype(int).tolist()],),
    )
