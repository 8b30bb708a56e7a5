"""Checks of the marginals of a process with a given path x_t = scale(t) x_0 + std(t) ε: Fokker-Planck, flow matching.

Data are a Gaussian mixture, whose diffused density and score are exact.  A path is a callable level(t) → (scale, std)
with any scale and std, such as `VP().level` or lambda t: (1 − t, t).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, returned, takes_arrays
from scratchgen.conformance.irregular import irregular, jacobian, spread_points
from scratchgen.conformance.result import Check, compare, worst
from scratchgen.mixture import Mixture
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.validation import Array

STEP = 2e-4  # of a difference in t, in units of t
Path = Callable[[float], tuple[float, float]]


def path_rates(level: Path, t: float) -> tuple[float, float, float, float]:
    """scale, std and their derivatives at t, by central differences."""
    h = STEP * t
    scale, std = (float(value) for value in level(t))
    slopes = (float(central_difference(lambda u, i=i: float(level(t + u)[i]), h)) for i in (0, 1))  # type: ignore[misc]
    return scale, std, *slopes  # type: ignore[return-value]


def path_f_and_g2(level: Path, t: float) -> tuple[float, float]:
    """f = d log scale/dt and g² = 2 std² d log(std/scale)/dt of a path at t."""
    f = float(central_difference(lambda u: float(np.log(level(t + u)[0])), STEP * t))
    slope = float(central_difference(lambda u: float(np.log(level(t + u)[1] / level(t + u)[0])), STEP * t))
    return f, 2 * float(level(t)[1]) ** 2 * slope


@takes_arrays
def check_fokker_planck(
    drift: Callable[[Array, float], ArrayLike],
    diffusion: Callable[[float], ArrayLike],
    level: Path,
    law: Mixture,
    times: Array,
) -> Check:
    """(32): a reverse process dx = d dt + G dw̄ has the marginals p_t if and only if Fokker and Planck's equation holds.

    ∂/∂t log p_t + div d + d · s + ½G² (div s + ‖s‖²) = 0 with s = ∇log p_t, for a process whose time runs from T to 0.
    The check works for any drift, any noise and any path, on data that are not Gaussian.

    Parameters
    ----------
    drift : callable
        drift(x (N, D), t) → d, (N, D), with the exact score of the diffused data.
    diffusion : callable
        diffusion(t) → G(t); 0 for a flow.
    level : callable
        level(t) → (scale, std).
    law : Mixture
        Law of the data, of any D.
    times : (n,)
        Positive, and inside the path by 0.3 %.

    Returns
    -------
    Check
        ∂/∂t log p_t times t at points up to six standard deviations from the mean; tolerance 1e-9.
    """
    check_callable(drift, "drift(x, t)")
    check_callable(diffusion, "diffusion(t); t is a number")
    left, right, pieces = [], [], []
    for t in times.tolist():
        p_t = law.diffuse(*(float(value) for value in level(t)))
        x, (f, g2) = spread_points(p_t, 7), path_f_and_g2(level, t)
        d, s, J = returned(drift(x, t), x.shape, "drift"), p_t.score(x), p_t.score_jacobian(x)
        curvature = np.trace(J, axis1=1, axis2=2) + (s**2).sum(axis=1)
        noise = float(np.asarray(diffusion(t))) ** 2
        slopes = jacobian(lambda y, t=t: np.asarray(drift(y, t)), x, p_t)  # type: ignore[misc]
        left.append(-t * (np.trace(slopes, axis1=1, axis2=2) + (d * s).sum(axis=1) + 0.5 * noise * curvature))
        change = central_difference(lambda u, t=t, x=x: law.diffuse(*level(t + u)).log_prob(x), 1e-3 * t)  # type: ignore[misc]
        right.append(t * change)
        transport = -t * f * (law.dimension + (x * s).sum(axis=1))  # of the drift f x
        contraction = 2 * f * float(level(t)[1]) ** 2
        pieces.append(
            [
                transport,
                -t * curvature,
                *(value + 0 * curvature for value in (noise, g2, contraction, float(level(t)[0]))),
            ]
        )
    transport, bend, G2, g2, contraction, scales = np.moveaxis(np.array(pieces), 1, 0)

    def with_score(factor: Array) -> Array:
        """The rate of the drift f x − factor · s under the noise of the code."""
        return transport + (0.5 * G2 - factor) * bend

    return compare(
        "check_fokker_planck",
        "(32)",
        "t ∂/∂t log p_t by drift and noise",
        np.array(left),
        np.array(right),
        1e-9,
        {
            "the drift is that of the flow, f x − ½g² ∇log p, under a noise that is not 0": lambda: with_score(
                0.5 * g2
            ),
            "the drift is that of the reverse SDE, f x − g² ∇log p, under another noise than g": lambda: with_score(g2),
            "the factor of g² ∇log p is ½(1 + λ), not ½(1 + λ²), with λ = G/g": lambda: with_score(
                0.5 * g2 * (1 + np.sqrt(G2 / g2))
            ),
            "g² is d std²/dt, without its contraction −2 f std²": lambda: with_score(0.5 * (g2 + contraction + G2)),
            "f is d scale/dt, not d log scale/dt": lambda: with_score(0.5 * (g2 + G2)) + (scales - 1) * transport,
            "f x is missing in the drift": lambda: with_score(0.5 * (g2 + G2)) - transport,
            "the score has one ½ too many": lambda: with_score(0.25 * (g2 + G2)),
            "the score is missing in the drift": lambda: with_score(np.zeros_like(g2)),
            "the score has the wrong sign in the drift": lambda: with_score(-0.5 * (g2 + G2)),
        },
        labels=([f"t = {t:g}" for t in times.tolist()], [f"point {i}" for i in range(len(left[0]))]),
    )


@takes_arrays
def check_flow_velocity(
    velocity: Callable[[Array, Array, float], ArrayLike], level: Path, law: Mixture, times: Array
) -> Check:
    """Lipman et al. 2023: the target of flow matching, d(scale · x_0 + std · ε)/dt, and its mean given x_t.

    The mean given x_t is f x − ½g² ∇log p_t, the velocity of the probability flow, with f = scale'/scale and
    g² = 2 std² d log(std/scale)/dt.

    Parameters
    ----------
    velocity : callable
        velocity(x0 (N, D), noise (N, D), t) → (N, D), the target for pairs (x_0, ε); linear in both.  If the code takes
        one t a row, (N,), this is checked as well.
    level : callable
        level(t) → (scale, std); t = 0 is clean data.
    law : Mixture
        Law of the data, of any D.
    times : (n,)
        Positive, and inside the path by 0.3 %.

    Returns
    -------
    Check
        The larger of the two residuals, in units of x for t times the velocity; tolerance 1e-9.
    """
    check_callable(velocity, "velocity(x0, noise, t)")
    D, unit = law.dimension, sigma_points(law.dimension)
    N = D + 4  # not D, so that t of shape (N,) cannot be broadcast over the dimensions
    x0, noise = 2 * irregular(N, D), irregular(N, D, shift=2.0)
    x0[-1] *= 12
    paths, exact, marginals, flows, parts = [], [], [], [], []
    for t in times.tolist():
        scale, std, scale_rate, std_rate = path_rates(level, t)
        paths.append(t * returned(velocity(x0, noise, t), (N, D), "velocity"))
        exact.append(t * (scale_rate * x0 + std_rate * noise))
        parts.append(t * np.array([scale_rate * x0, std_rate * noise, x0, noise]))
        p_t, (f, g2) = law.diffuse(scale, std), path_f_and_g2(level, t)
        x = spread_points(p_t, 6)
        gains = scale * law.covariances @ np.linalg.inv(p_t.covariances)
        mean = np.zeros_like(x)
        for k, C in enumerate(law.covariances):  # x_0 given x_t and k is Gaussian: the mean over sigma points is exact
            centre = law.means[k] + (x - p_t.means[k]) @ gains[k].T
            root = np.linalg.cholesky(C - scale * gains[k] @ C)
            for point in unit @ root.T:
                clean = centre + point
                value = returned(velocity(clean, (x - scale * clean) / std, t), x.shape, "velocity")
                mean += p_t.posterior(x)[:, [k]] * value / len(unit)
        marginals.append(t * mean)
        flows.append(t * (f * x - 0.5 * g2 * p_t.score(x)))
    by_scale, by_std, clean_t, noise_t = (np.array([part[i] for part in parts]) for i in range(4))
    labels = [f"t = {t:g}" for t in times.tolist()]
    name = "check_flow_velocity"

    def at_levels(i: int) -> Array:
        """scale (0) or std (1) at the times, (n, 1, 1)."""
        return np.array([float(level(t)[i]) for t in times])[:, None, None]

    rows = np.resize(times, N)
    try:
        found = rows[:, None] * np.asarray(velocity(x0, noise, rows.copy()), dtype=np.float64)  # type: ignore[arg-type]
    except Exception:  # the code takes numbers only
        found = np.empty(0)
    by_row = np.array([exact[i % len(times)][i] for i in range(N)])
    together = compare(name, "(32)", "t times the velocity for t as an array", found, by_row, 1e-9)
    one_by_one = worst(
        compare(
            name,
            "(32)",
            "t times the velocity of a pair",
            paths,
            exact,
            1e-9,
            {
                "the sign is wrong: time runs from noise to data": lambda: -(by_scale + by_std),
                "it is x_0 − ε, not ε − x_0": lambda: clean_t - noise_t,
                "the part of ε has the wrong sign": lambda: by_scale - by_std,
                "it is x_t, not its derivative": lambda: at_levels(0) * clean_t + at_levels(1) * noise_t,
                "it is x_0 + ε": lambda: clean_t + noise_t,
                "the derivatives of scale and std are exchanged": lambda: (
                    by_scale[:, :, :1] / clean_t[:, :, :1] * noise_t + by_std[:, :, :1] / noise_t[:, :, :1] * clean_t
                ),
                "it is scale · ε + std · x_0": lambda: at_levels(0) * noise_t + at_levels(1) * clean_t,
                "it is std · ε − scale · x_0": lambda: at_levels(1) * noise_t - at_levels(0) * clean_t,
                "it is scale · x_0 − std · ε": lambda: at_levels(0) * clean_t - at_levels(1) * noise_t,
                "the part of x_0 is missing": lambda: by_std,
                "the part of ε is missing": lambda: by_scale,
                "it is ε − x_0, which is right for scale = 1 − t and std = t only": lambda: noise_t - clean_t,
                "it is v = scale · ε − std · x_0, which is right for scale = cos t and std = sin t only": lambda: (
                    np.array([level(t)[0] for t in times])[:, None, None] * noise_t
                    - np.array([level(t)[1] for t in times])[:, None, None] * clean_t
                ),
            },
            labels=(labels, [f"pair {i}" for i in range(N)], [f"coordinate {i}" for i in range(D)]),
        ),
        compare(
            name,
            "(32)",
            "t times the mean velocity given x_t (it should be f x − ½g² ∇log p_t)",
            marginals,
            flows,
            1e-9,
            labels=(labels, [f"point {i}" for i in range(6)], [f"coordinate {i}" for i in range(D)]),
        ),
    )
    return worst(one_by_one, together) if one_by_one and found.shape == (N, D) else one_by_one
