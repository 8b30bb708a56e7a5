"""Checks of information and divergence along a diffusion, of second moments of a denoiser, and of score fields.

Data are a Gaussian mixture; expectations are quadratures in one or two dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import check_callable, returned, takes_arrays
from scratchgen.conformance.instances import rounding
from scratchgen.conformance.irregular import WIDTH, WIDTH_SINGLE, irregular, jacobian, smallest_std, spread_points
from scratchgen.conformance.result import SINGLE_LIMIT, Check, compare, is_single, worst
from scratchgen.conformance.score import as_text, log_density
from scratchgen.likelihood import logsumexp, quiet_log
from scratchgen.mixture import Mixture
from scratchgen.quadrature import central_difference
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array

SPACING = {1: 0.06, 2: 0.18}  # of the nodes in D dimensions, in units of the smallest std
COARSER = 1.4  # factor of the spacing for the estimate of the quadrature's error, which enters the tolerance


def check_mutual_information(
    information: Callable[[LinearSDE, Callable[[float], float], float], ArrayLike],
    sdes: Sequence[tuple[LinearSDE, float]],
    laws: Sequence[Mixture],
) -> Check:
    """Guo et al. 2005: ½∫E‖ε − E[ε | x_t]‖² d(log-SNR) = I(x_0; x_{t_min}) − I(x_0; x_T), for every path in between.

    The right side contains no loss: I(x_0; x_t) is the entropy of x_t minus that of the noise.

    Parameters
    ----------
    information : callable
        information(sde, noise_loss, t_min) → nats, where noise_loss(t) is E‖ε − E[ε | x_t]‖², summed over dimensions.
    sdes : sequence of (sde, t_min)
    laws : sequence of Mixture
        Laws of the data, in one or two dimensions.

    Returns
    -------
    Check
        A row for each process, a column for each law; tolerance 1e-11 and the error of the quadrature.  `Check.at`
        judges code whose own integral has fewer digits: 1e-5 for a trapezoid rule of 1000 times.
    """
    check_callable(information, "information(sde, noise_loss, t_min)")
    left, right, by_time, ends, error = [], [], [], [], 0.0
    for sde, t_min in sdes:
        for law in laws:

            def noise_loss(t: float, sde: LinearSDE = sde, law: Mixture = law) -> float:
                scale, std = sde.level(t)
                points, weights = law.diffuse(scale, std).quadrature(COARSER * SPACING[law.dimension])
                density = weights * np.exp(law.diffuse(scale, std).log_prob(points))
                return (scale / std) ** 2 * float(density @ law.denoise_variance(points, scale, std))

            def shared(t: float, factor: float = 1.0, sde: LinearSDE = sde, law: Mixture = law) -> float:
                """I(x_0; x_t)."""
                scale, std = sde.level(t)
                p_t = law.diffuse(scale, std)
                points, weights = p_t.quadrature(factor * SPACING[law.dimension])
                log_p = p_t.log_prob(points)
                entropy = -float((weights * np.exp(log_p)) @ log_p)
                return entropy - 0.5 * law.dimension * float(np.log(2 * np.pi * np.e * std**2))

            left.append(float(np.asarray(information(sde, noise_loss, t_min))))
            right.append(shared(t_min) - shared(sde.horizon))
            error = max(error, abs(right[-1] - shared(t_min, COARSER) + shared(sde.horizon, COARSER)))
            by_time.append((sde, noise_loss, t_min))
            ends.append(shared(t_min))

    def over_time(weight: Callable[[LinearSDE, float], float]) -> Array:
        """½∫ weight · noise_loss dt."""
        nodes, weights = np.polynomial.legendre.leggauss(64)
        values = []
        for sde, noise_loss, t_min in by_time:
            low, high = sde.log_snr(np.array([sde.horizon, t_min])).tolist()
            times = sde.time_at(0.5 * (low + high) + 0.5 * (high - low) * nodes)
            dt = np.array([(float(sde.std(t)) / float(sde.diffusion(t))) ** 2 for t in times])
            terms = [weight(sde, t) * noise_loss(t) for t in times.tolist()]
            values.append(0.25 * (high - low) * float((weights * dt) @ np.array(terms)))
        return np.array(values).reshape(shape)

    def uniform_over_time() -> Array:
        """½ times the range of log-SNR times the mean loss over uniform t."""
        nodes, weights = np.polynomial.legendre.leggauss(64)
        values = []
        for sde, noise_loss, t_min in by_time:
            low, high = sde.log_snr(np.array([sde.horizon, t_min])).tolist()
            times = t_min + 0.5 * (sde.horizon - t_min) * (nodes + 1)
            values.append(0.25 * (high - low) * float(weights @ np.array([noise_loss(t) for t in times.tolist()])))
        return np.array(values).reshape(shape)

    shape = (len(sdes), len(laws))
    right_table = np.array(right).reshape(shape)
    return compare(
        "check_mutual_information",
        "(34)",
        "½∫E‖ε − ε*‖² d(log-SNR)",
        np.array(left).reshape(shape),
        right_table,
        1e-11 + error,
        {
            "the ½ is missing": lambda: 2 * right_table,
            "it is I(x_0; x_{t_min}): the information left at the horizon is not subtracted": lambda: np.array(
                ends
            ).reshape(shape),
            "the losses are averaged over uniform t, not over log-SNR": uniform_over_time,
            "the losses are integrated over t with weight 1, not over log-SNR": lambda: over_time(lambda sde, t: 1.0),
            "the losses are those of x_0: the weight is g²/scale², not g²/std²": lambda: over_time(
                lambda sde, t: (float(sde.diffusion(t)) / sde.level(t)[0]) ** 2
            ),
            "the losses have weight g², not g²/std²": lambda: over_time(lambda sde, t: float(sde.diffusion(t)) ** 2),
        },
        labels=([f"{sde!r} from {t_min:.3g}" for sde, t_min in sdes], [f"law {i}" for i in range(len(laws))]),
    )


@takes_arrays
def check_kl_rate(rate: Callable[[float], ArrayLike], sde: LinearSDE, p: Mixture, q: Mixture, times: Array) -> Check:
    """de Bruijn: d/dt KL(p_t‖q_t) = −½ g² E_{p_t}‖∇log p_t − ∇log q_t‖² of two laws under one SDE.

    Parameters
    ----------
    rate : callable
        rate(t) → d/dt KL(p_t‖q_t), nats a unit of time.
    sde : LinearSDE
    p, q : Mixture
        Laws of the data, in one or two dimensions.
    times : (n,)
        Positive, inside the horizon by 3 %.

    Returns
    -------
    Check
        Rates times t; tolerance 1e-10 and the error of the quadrature.
    """
    check_callable(rate, "rate(t); t is a number")

    def kl(t: float, factor: float) -> float:
        p_t, q_t = p.diffuse(*sde.level(t)), q.diffuse(*sde.level(t))
        finest = np.sqrt([np.linalg.eigvalsh(law.covariances).min() for law in (p_t, q_t)])
        points, weights = p_t.quadrature(factor * SPACING[p.dimension] * min(1.0, float(finest[1] / finest[0])))
        log_p = p_t.log_prob(points)
        return float((weights * np.exp(log_p)) @ (log_p - q_t.log_prob(points)))

    def rates(factor: float) -> Array:
        return np.array([t * central_difference(lambda u, t=t: kl(t + u, factor), 2e-3 * t) for t in times.tolist()])  # type: ignore[misc]

    def fisher(t: float) -> float:
        """−½ g² E_{q_t}‖∇log p_t − ∇log q_t‖²."""
        p_t, q_t = p.diffuse(*sde.level(t)), q.diffuse(*sde.level(t))
        points, weights = q_t.quadrature(SPACING[p.dimension])
        squares = ((p_t.score(points) - q_t.score(points)) ** 2).sum(axis=1)
        return -0.5 * float(sde.diffusion(t)) ** 2 * float((weights * np.exp(q_t.log_prob(points))) @ squares)

    exact = rates(1.0)
    error = float(np.abs(exact - rates(COARSER)).max())
    g = np.array([float(sde.diffusion(t)) for t in times])
    return compare(
        "check_kl_rate",
        "(34)",
        "t d/dt KL(p_t‖q_t)",
        [t * float(np.asarray(rate(t))) for t in times.tolist()],
        exact,
        1e-10 + error,
        {
            "g stands where g² belongs": lambda: exact / g,
            "the ½ is missing": lambda: 2 * exact,
            "the expectation is that under q_t": lambda: np.array([t * fisher(t) for t in times.tolist()]),
            "std² stands where g² belongs": lambda: (
                exact * np.array([sde.level(t)[1] ** 2 for t in times.tolist()]) / g**2
            ),
            "g² is missing": lambda: exact / g**2,
        },
        labels=([f"t = {t:g}" for t in times.tolist()],),
    )


def posterior_covariance(law: Mixture, x_t: Array, scale: float, std: float, between: bool = True) -> Array:
    """Cov(x_0 | x_t), (N, D, D), from the posterior of every component: within and between components."""
    p_t = law.diffuse(scale, std)
    gains = scale * law.covariances @ np.linalg.inv(p_t.covariances)
    within = law.covariances - scale * gains @ law.covariances
    means = law.means + np.einsum("kde,nke->nkd", gains, x_t[:, None] - p_t.means)
    posterior = p_t.posterior(x_t)
    spread = means - np.einsum("nk,nkd->nd", posterior, means)[:, None]
    across = np.einsum("nk,nkd,nke->nde", posterior, spread, spread)
    return np.asarray(np.einsum("nk,kde->nde", posterior, within) + (across if between else 0.0))


@takes_arrays
def check_tweedie_covariance(
    covariance: Callable[[Array, float, float], ArrayLike], law: Mixture, levels: Array
) -> Check:
    """Efron 2011: Cov(x_0 | x_t) = (std/scale)² (I + std² ∇∇ᵀlog p_t), from the posterior of every component.

    Parameters
    ----------
    covariance : callable
        covariance(x_t (N, D), scale, std) → (N, D, D), for the exact score or denoiser of `law`.
    law : Mixture
        Law of the data, of any D.
    levels : (n, 2)
        (scale, std), both positive.

    Returns
    -------
    Check
        Entries divided by (std/scale)²; tolerance 1e-10.
    """
    check_callable(covariance, "covariance(x_t, scale, std)")
    left, right, inner, outers, withins = [], [], [], list[Array](), list[Array]()
    for scale, std in levels.tolist():
        x = spread_points(law.diffuse(scale, std), 7)
        shape = (len(x), law.dimension, law.dimension)
        unit = (scale / std) ** 2
        left.append(unit * returned(covariance(x, scale, std), shape, "covariance"))
        right.append(unit * posterior_covariance(law, x, scale, std))
        inner.append((right[-1] - np.eye(law.dimension), scale, std))
        x0_hat = law.denoise(x, scale, std)
        outers.append(unit * x0_hat[:, :, None] * x0_hat[:, None])
        withins.append(unit * posterior_covariance(law, x, scale, std, between=False))
    exact = np.array(right)
    D = law.dimension
    return compare(
        "check_tweedie_covariance",
        "(33)",
        "Cov(x_0 | x_t) divided by (std/scale)²",
        left,
        exact,
        1e-10,
        {
            "scale is missing: the factor is std², not (std/scale)²": lambda: [
                scale**2 * C for C, (scale, _) in zip(exact, levels, strict=True)
            ],
            "std stands where std² belongs before the Jacobian": lambda: [np.eye(D) + J / std for J, _, std in inner],
            "the Jacobian has the wrong sign": lambda: [np.eye(D) - J for J, *_ in inner],
            "it is E x_0 x_0ᵀ: the means are not subtracted": lambda: [
                C + outer for C, outer in zip(exact, outers, strict=True)
            ],
            "the factor is std/scale, not its square": lambda: [
                C * scale / std for C, (scale, std) in zip(exact, levels, strict=True)
            ],
            "the spread between the components is missing": lambda: withins,
            "the identity is missing": lambda: [J for J, *_ in inner],
            "the Jacobian is taken as diagonal": lambda: [np.eye(D) + J * np.eye(D) for J, *_ in inner],
        },
        labels=(
            [f"scale {a:g}, std {b:g}" for a, b in levels.tolist()],
            [f"point {i}" for i in range(7)],
            *[[f"coordinate {i}" for i in range(D)]] * 2,
        ),
    )


@takes_arrays
def check_conservative_score(score: Callable[[Array], ArrayLike], law: Mixture) -> Check:
    """A score is a gradient: its Jacobian is symmetric, and ∫ s · dl = log p(b) − log p(a) on every line from a to b.

    The Jacobian is computed by central differences, the line integrals by Gauss-Legendre on up to 45 lines, which form
    closed loops: long ones between 9 points, and short ones beside each of them.  In two dimensions E s(x) xᵀ = −I and
    E s(x) = 0 under the law itself (Stein) are compared as well.  A network that is trained as a score need not be a
    gradient; the residual of the first comparison measures its distance from one.

    Parameters
    ----------
    score : callable
        score(x (N, D)) → (N, D), the score of `law`.
    law : Mixture
        The law of the data, in two dimensions or more.

    Returns
    -------
    Check
        The largest of the residuals; tolerance 2e-9, for the asymmetry more where x is so large that the differences
        lose digits.
    """
    check_callable(score, "score(x)")
    D, name = law.dimension, "check_conservative_score"
    if D < 2:
        raise ValueError("law must have two dimensions or more, got 1, where every function is a gradient")
    x = spread_points(law, 9)
    found = score(x)
    value, single = returned(found, x.shape, "score"), is_single(found)
    J = jacobian(lambda y: np.asarray(score(y)), x, law, single)
    size = np.sqrt((J**2).sum(axis=(1, 2)))[:, None]
    first, second = np.triu_indices(D, 1)
    step = WIDTH_SINGLE * smallest_std(law) * np.maximum(size[:, 0], 1e-300)
    lost = np.finfo(np.float32).eps * np.abs(value).max(axis=1) / step

    def asymmetries(J: Array) -> Array:
        return (J[:, first, second] - J[:, second, first]) / np.where(size > 0, size, 1.0)

    # 1e-5 is ten times the rounding of float32, and twice the error of such wide differences of the exact score
    missed = asymmetries(jacobian(law.score, x, law, True)) if single else np.zeros((len(x), len(first)))
    unit = np.maximum(np.maximum(1.0, 1e6 * lost)[:, None], 2e5 * np.abs(missed)) if single else 1.0
    asymmetry = compare(
        name,
        "(33)",
        "the asymmetry (∂s_d/∂x_e − ∂s_e/∂x_d)/‖∇s‖",
        asymmetries(J),
        np.zeros((len(x), len(first))),
        rounding(np.abs(x).max() / (WIDTH * smallest_std(law)), 2e-9),
        labels=(
            [f"point {i}" for i in range(len(x))],
            [f"d = {d}, e = {e}" for d, e in zip(first, second, strict=True)],
        ),
        unit=unit,
    )
    if asymmetry.residual > (SINGLE_LIMIT if single else asymmetry.tolerance):
        return asymmetry  # no gradient, and not for rounding: lines and expectations say less
    checks = [asymmetry, _check_lines(score, law, x)]
    if D > 2:
        return worst(*checks)
    points, weights = law.quadrature(0.3)
    density = weights * np.exp(law.log_prob(points))
    s = returned(score(points), points.shape, "score")
    return worst(
        *checks,
        compare(name, "(33)", "E s(x)", density @ s, np.zeros(2), 2e-9),
        compare(
            name,
            "(33)",
            "E s(x) xᵀ (it should be −I)",
            np.einsum("m,md,me->de", density, s, points),
            -np.eye(2),
            2e-9,
            {"the score has the wrong sign": lambda: np.eye(2)},
        ),
    )


PIECES = 60  # of the longest line; a piece is two standard deviations of the narrowest component long
NODES = 24  # of Gauss-Legendre on a piece
EXACT = 1e-10  # largest error of the exact score's own integral on a line that is compared


def _check_lines(score: Callable[[Array], ArrayLike], law: Mixture, x: Array) -> Check:
    """∫ s · dl against log p, on long lines from point to point and on short ones that form triangles at every point.

    A long line may cross so sharp a change of component that the nodes miss it.  The integral of the exact score tells
    which lines are short or smooth enough.
    """
    n, D, std = len(x), law.dimension, smallest_std(law)
    steps = 1.5 * std * irregular(2 * n, D, shift=2.0).reshape(2, n, D)
    corners = [x, x + steps[0], x + steps[1]]
    far = [(x, np.roll(x, -k, axis=0)) for k in (1, 2)]
    triangles = [(corners[i], corners[(i + 1) % 3]) for i in range(3)]
    starts, ends = (np.concatenate([pair[i] for pair in far + triangles]) for i in (0, 1))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)

    def along(f: Callable[[Array], ArrayLike], a: Array, b: Array) -> float:
        pieces = max(int(np.ceil(np.linalg.norm(b - a) / (2 * std))), 1)
        u = ((np.arange(pieces)[:, None] + 0.5 * (nodes + 1)) / pieces).ravel()
        values = returned(f(a + u[:, None] * (b - a)), (len(u), D), "score")
        return float(np.tile(0.5 * weights / pieces, pieces) @ (values @ (b - a)))

    right = log_density(law, ends).real - log_density(law, starts).real
    size = 1 + np.abs(right)
    kept = [
        i
        for i, (a, b) in enumerate(zip(starts, ends, strict=True))
        if np.linalg.norm(b - a) < 2 * std * PIECES and abs(along(law.score, a, b) - right[i]) < EXACT * size[i]
    ]
    return compare(
        "check_conservative_score",
        "(33)",
        "∫ s · dl (it should be log p(b) − log p(a))",
        [along(score, starts[i], ends[i]) for i in kept],
        right[kept],
        2e-9,
        {"the score has the wrong sign": lambda: -right[kept]},
        labels=lambda i: f"∫ s · dl from {as_text(starts[kept[i[0]]])} to {as_text(ends[kept[i[0]]])}",
    )


@takes_arrays
def check_tilted_score(
    score: Callable[[Array, float, float, float], ArrayLike],
    law: Mixture,
    p_label: Array,
    levels: Array,
    guidance: float = 3.0,
) -> Check:
    """The score at a noise level of the law ∝ p(x) (p(x | y)/p(x))^w, by differences of its diffused log-density.

    Guidance, (1 − w) ∇log p_t(x) + w ∇log p_t(x | y), is not this score unless w is 0 or 1.

    Parameters
    ----------
    score : callable
        score(x_t (N, D), scale, std, w) → (N, D).
    law : Mixture
        p, in one or two dimensions.
    p_label : (K,)
        P(y | k) of every component.
    levels : (n, 2)
        (scale, std), both positive.
    guidance : float
        w; the check also tries 0 and 1, where the score is that of p_t(x) and of p_t(x | y).

    Returns
    -------
    Check
        Scores times std; tolerance 1e-10 and the error of the quadrature.
    """
    check_callable(score, "score(x_t, scale, std, w)")
    label = Mixture(law.weights * p_label / (law.weights @ p_label), law.means, law.covariances)
    ws = [0.0, 1.0, float(guidance)]
    left, right, coarse, guided = [], [], [], []
    by_weights, stds, places = list[Array](), list[float](), list[tuple[Array, Mixture, float, float, float]]()

    def higher(more: float) -> list[Array]:
        return [std * by_differences(x, p_t, scale, std, w + more, 1.0) for x, p_t, scale, std, w in places]

    def undivided() -> list[Array]:
        return [std * by_differences(x, p_t, scale, std, w, 1.0, 1.0) for x, p_t, scale, std, w in places]

    def by_differences(
        x: Array, p_t: Mixture, scale: float, std: float, w: float, factor: float, of_p: float | None = None
    ) -> Array:
        """∇ log ∫ tilt(x_0) N(x; scale x_0, std² I) dx_0 at x, (N, D)."""
        narrow = float(np.sqrt(np.linalg.eigvalsh(law.covariances).min()))
        nodes, _ = law.quadrature(factor * SPACING[law.dimension] * min(1.0, std / scale / narrow), 10.0)
        log_joint = law.log_joint(nodes)
        log_tilt = (1 - w if of_p is None else of_p) * logsumexp(log_joint) + w * logsumexp(
            log_joint + quiet_log(p_label)
        )

        def log_density(y: Array) -> Array:
            squares = ((y[:, None] - scale * nodes) ** 2).sum(axis=-1)
            return logsumexp(log_tilt - 0.5 * squares / std**2)[:, None]

        return jacobian(log_density, x, p_t)[:, 0]

    for scale, std in levels.tolist():
        p_t, label_t = law.diffuse(scale, std), label.diffuse(scale, std)
        x = spread_points(p_t, 6)[:4]
        for w in ws:
            left.append(std * returned(score(x, scale, std, w), x.shape, "score"))
            places.append((x, p_t, scale, std, w))
            stds.append(std)
            tilted = law.weights * p_label**w
            by_weights.append(
                std * Mixture(tilted / tilted.sum(), law.means, law.covariances).diffuse(scale, std).score(x)
            )
            guided.append(std * ((1 - w) * p_t.score(x) + w * label_t.score(x)))
            if w in (0.0, 1.0):
                right.append(guided[-1])
                coarse.append(guided[-1])
            else:
                right.append(std * by_differences(x, p_t, scale, std, w, 1.0))
                coarse.append(std * by_differences(x, p_t, scale, std, w, COARSER))
    error = float(np.abs(np.array(right) - np.array(coarse)).max())
    labels = [f"scale {a:g}, std {b:g}, w = {w:g}" for a, b in levels.tolist() for w in ws]
    return compare(
        "check_tilted_score",
        "(32)",
        "std times the score of the tilted law",
        left,
        right,
        1e-10 + error,
        {
            "it is the mixture with the weights w_k P(y | k)^w, in place of the tilted law": lambda: by_weights,
            "it is divided by std, or ε̂ stands for the score": lambda: [
                value / std for value, std in zip(right, stds, strict=True)
            ],
            "it is multiplied by std: −ε̂ stands for the score": lambda: [
                value * std for value, std in zip(right, stds, strict=True)
            ],
            "the power is w + 1": lambda: higher(1.0),
            "p(x | y)^w is not divided by p(x)^w": lambda: undivided(),
            "it is (1 − w) ∇log p_t(x) + w ∇log p_t(x | y), the guided score, which does not sample the tilt": lambda: (
                guided
            ),
        },
        labels=(labels, [f"point {i}" for i in range(4)], [f"coordinate {i}" for i in range(law.dimension)]),
    )
