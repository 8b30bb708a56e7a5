"""Checks of equation (34): the likelihood of the flow, the bound on the divergence, the bound of one example.

An inequality alone finds few mistakes.  Each bound is checked in the case where it is an equality, and as an inequality
for a wrong score whose distribution p_θ is known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.conformance.arguments import parts, returned, takes_arrays
from scratchgen.conformance.result import Check, compare
from scratchgen.conformance.score import log_density, with_far_points
from scratchgen.conformance.sde import LARGEST_ERROR
from scratchgen.mixture import Mixture
from scratchgen.quadrature import integrate, sigma_points
from scratchgen.sde.processes import LinearSDE
from scratchgen.validation import Array

WRONG_BY = 0.3, -0.2  # a score (1 + δ) ∇log p_t in the place of ∇log p_t


def _time_integral(sde: LinearSDE, f: Callable[[float], ArrayLike]) -> tuple[Array, float]:
    """∫ f(t) dt over [0, T], and the relative difference of 60 and 90 nodes in y with t = T y³."""
    values = []
    for n in (60, 90):
        nodes, weights = np.polynomial.legendre.leggauss(n)
        y = 0.5 * (nodes + 1)
        weights = 1.5 * sde.horizon * weights * y**2
        values.append(np.tensordot(weights, [np.asarray(f(t)) for t in (sde.horizon * y**3).tolist()], axes=1))
    coarse, fine = values
    return fine, float(np.abs(coarse - fine).max() / (1 + np.abs(fine).max()))


def with_error(base: float, error: float) -> float:
    """A tolerance and the error of the quadrature in the right side."""
    return base + min(error, LARGEST_ERROR)


def _wrong_variances(sde: LinearSDE, variances: Array, delta: float) -> Array:
    """Variances at time 0 of the reverse SDE with score (1 + δ) ∇log p_t, from p_T, in the axes of the data.

    Per axis dv/dt = 2 (f + (1 + δ) g²/V) v − g², with V the variance of p_t and g²/V = d log V/dt − 2 f.  Hence
    v(0)/μ(0) = V(T)/μ(T) + ∫ g²/μ dt for μ = scale² (V/scale²)^(2 + 2δ).  The mean is that of the data.
    """

    def spread(t: float) -> tuple[Array, Array]:
        scale, std = sde.level(t)
        V = scale**2 * variances + std**2
        return V, scale**2 * (V / scale**2) ** (2 + 2 * delta)

    (_, first), (V, last) = spread(0.0), spread(sde.horizon)
    integral, _ = _time_integral(sde, lambda t: float(sde.diffusion(t)) ** 2 / spread(t)[1])
    return np.asarray(first * (V / last + integral))


@takes_arrays
def check_probability_flow_likelihood(
    log_prob: Callable[[Array], ArrayLike], mixture: Mixture, x: Array, sde: LinearSDE | None = None
) -> Check:
    """log p^ODE(x) = log p_0(x): with the exact score and the exact p_T, the flow has the density of the data.

    Parameters
    ----------
    log_prob : callable
        log_prob(x (N, D)) → (N,), nats, integrated to an error of about 1e-10.
    mixture : Mixture
        The distribution of the data.
    x : (N, D)
        The check adds points at 6 standard deviations, and asks for the first point alone as well: its density must not
        depend on the other examples.
    sde : LinearSDE, optional
        The process; only the diagnosis uses it.

    Returns
    -------
    Check
        Tolerance 1e-9; use `at` for an integrator of fewer digits.
    """
    x = with_far_points(mixture, x, width=6.0)
    rows = [*range(len(x)), 0]
    left = np.concatenate([np.asarray(log_prob(part), dtype=np.float64) for part in (x, x[:1])])
    right, D = log_density(mixture, x).real[rows], x.shape[1]
    mistakes: dict[str, Callable[[], ArrayLike]] = {"it is averaged over D": lambda: right / D}
    if sde is not None:
        process = sde

        def ends() -> tuple[Array, Array]:
            """x_T of the exact flow, and log p_T(x_T)."""
            end = _exact_flow(process, mixture, x)
            return end[rows], mixture.diffuse(*process.level(process.horizon)).log_prob(end)[rows]

        def standard(end: Array, variance: float) -> Array:
            return -0.5 * ((end**2).sum(axis=1) / variance + D * np.log(2 * np.pi * variance))

        def with_base(variance: float) -> Array:
            end, at_end = ends()
            return right - at_end + standard(end, variance)

        mistakes |= {
            "∫div dt is missing": lambda: ends()[1],
            "∫div dt has the wrong sign": lambda: 2 * ends()[1] - right,
            "div f is missing in ∫div dt": lambda: right - D * np.log(process.level(process.horizon)[0]),
            "div f is f, not D f": lambda: right - (D - 1) * np.log(process.level(process.horizon)[0]),
            "div s is missing in ∫div dt": lambda: ends()[1] + D * np.log(process.level(process.horizon)[0]),
            "div s has g², not ½ g², in ∫div dt": lambda: (
                2 * right - ends()[1] - D * np.log(process.level(process.horizon)[0])
            ),
            "p_T is taken at x, not at x_T": lambda: (
                right - ends()[1] + mixture.diffuse(*process.level(process.horizon)).log_prob(x)[rows]
            ),
            "∫div dt is doubled": lambda: 2 * right - ends()[1],
            "p_T is missing": lambda: right - ends()[1],
            "N(0, I) stands where p_T belongs": lambda: with_base(1.0),
            "N(0, std(T)² I) stands where p_T belongs": lambda: with_base(process.level(process.horizon)[1] ** 2),
        }
    return compare(
        "check_probability_flow_likelihood",
        "(34)",
        "log p(x) by the probability flow",
        left,
        right,
        1e-9,
        mistakes,
        labels=lambda i: f"log p by the flow, example {rows[i[0]]}" + (", alone" if i[0] >= len(x) else ""),
    )


def _exact_flow(sde: LinearSDE, mixture: Mixture, x: Array) -> Array:
    """x_T of the probability flow from x, with the exact score."""

    def slope(t: float, points: Array) -> Array:
        law = mixture.diffuse(*sde.level(t))
        return float(sde.rate(t)) * points - 0.5 * float(sde.diffusion(t)) ** 2 * law.score(points)

    return integrate(slope, 0.0, sde.horizon, x, 1e-9, "the flow", "use another SDE")


def _gaussian_kl(m: Array, S: Array, n: Array, R: Array) -> float:
    P = np.linalg.inv(R)
    log_ratio = np.linalg.slogdet(R)[1] - np.linalg.slogdet(S)[1]
    return float(0.5 * (np.trace(P @ S) + (m - n) @ P @ (m - n) - len(m) + log_ratio))


@takes_arrays
def check_kl_bound(
    kl_bound: Callable[[Callable[[float], float], float], ArrayLike],
    sde: LinearSDE,
    mean_p: Array,
    cov_p: Array,
    mean_q: Array,
    cov_q: Array,
) -> Check:
    """(34) as an equality: if s_θ = ∇log q_t of a diffused q and π = q_T, the bound is KL(p‖q).

    p and q are Gaussian, and the equality is checked for three pairs.  For the score (1 + δ) ∇log p_t and π = p_T the
    distribution p_θ is known, and the bound is checked as an inequality.  The horizon of the SDE must differ from 1,
    because T = 1 hides a missing factor T.

    Parameters
    ----------
    kl_bound : callable
        kl_bound(score_error, prior_kl) → nats, with score_error(t) = E_{p_t}‖∇log p_t − s_θ‖² and
        prior_kl = KL(p_T‖π).
    sde : LinearSDE
    mean_p, mean_q : (D,)
    cov_p, cov_q : (D, D)

    Returns
    -------
    Check
        Tolerance 1e-10, for a time integral of as many digits, plus the error of the quadrature in the right side.
    """
    start = sde.level(0.0)

    def at(law: tuple[Array, Array], level: tuple[float, float]) -> tuple[Array, Array]:
        (mean, covariance), (scale, std) = law, level
        return scale * mean, scale**2 * covariance + std**2 * np.eye(len(mean))

    def error_of(p: tuple[Array, Array], q: tuple[Array, Array]) -> Callable[[float], float]:
        def score_error(t: float) -> float:
            (m, V), (n, R) = at(p, sde.level(t)), at(q, sde.level(t))
            P, Q = np.linalg.inv(V), np.linalg.inv(R)
            return float(np.trace((Q - P) @ (Q - P) @ V) + ((Q @ (m - n)) ** 2).sum())

        return score_error

    p, q = (mean_p, cov_p), (mean_q, cov_q)
    pairs = [(p, q), (q, p), (p, (mean_q, cov_p))]
    variances, end = np.linalg.eigvalsh(cov_p), sde.level(sde.horizon)
    V_0 = start[0] ** 2 * variances + start[1] ** 2

    def wrong_error(t: float, delta: float) -> float:
        scale, std = sde.level(t)
        return float(delta**2 * (1 / (scale**2 * variances + std**2)).sum())

    def weighted(weight: Callable[[float], float]) -> tuple[Array, float]:
        """½ ∫ weight(t) score_error(t) dt for every problem, and its error."""
        return _time_integral(sde, lambda t: [0.5 * weight(t) * score_error(t) for score_error in errors])

    errors = [error_of(*pair) for pair in pairs] + [partial(wrong_error, delta=delta) for delta in WRONG_BY]
    prior = np.array([*(_gaussian_kl(*at(a, end), *at(b, end)) for a, b in pairs), 0.0, 0.0])
    known = [_gaussian_kl(*at(a, start), *at(b, start)) for a, b in pairs]
    integrals, error = weighted(lambda t: float(sde.diffusion(t)) ** 2)
    path = np.array([*(known - prior[:3]), *integrals[3:]])  # ½ ∫ g² E‖∇log p_t − s_θ‖² dt
    ratios = [V_0 / _wrong_variances(sde, variances, delta) for delta in WRONG_BY]
    divergences = np.array([0.5 * (ratio - 1 - np.log(ratio)).sum() for ratio in ratios])  # KL(p_0‖p_θ)

    def with_excess(bounds: Array) -> Array:
        return np.concatenate([bounds, np.maximum(divergences - bounds[3:], 0.0)])

    def by_distance() -> Array:
        values = _time_integral(
            sde, lambda t: [0.5 * float(sde.diffusion(t)) ** 2 * np.sqrt(error_at(t)) for error_at in errors]
        )
        return values[0]

    def reversed_divergence() -> Array:
        values = [_gaussian_kl(*at(b, start), *at(a, start)) for a, b in pairs]
        return np.array([*values, *path[3:]])

    wrong: dict[str, Callable[[], Array]] = {
        "T stands where T/2 belongs": lambda: 2 * path + prior,
        "½ stands twice": lambda: path / 2 + prior,
        "the factor T is missing": lambda: path / sde.horizon + prior,
        "it is the root of the integral": lambda: np.sqrt(path) + prior,
        "the distance of the scores is not squared": lambda: by_distance() + prior,
        "KL(p_T‖π) is missing": lambda: path,
        "KL(p_T‖π) is halved": lambda: path + prior / 2,
        "KL(p_T‖π) is subtracted": lambda: path - prior,
        "the divergence is reversed: it is KL(q‖p)": reversed_divergence,
        "g stands where g² belongs": lambda: weighted(lambda t: float(sde.diffusion(t)))[0] + prior,
        "g² is missing": lambda: weighted(lambda t: 1.0)[0] + prior,
        "std² stands where g² belongs": lambda: weighted(lambda t: sde.level(t)[1] ** 2)[0] + prior,
    }
    scores = [f"{1 + delta:g} ∇log p_t" for delta in WRONG_BY]
    names = [
        *("the bound that equals KL(p‖q)", "the bound that equals KL(q‖p)", "the bound that equals KL(p‖p shifted)"),
        *(f"the bound for the score {score}" for score in scores),
        *(f"the excess of KL(p_0‖p_θ) over the bound for the score {score}" for score in scores),
    ]
    left = [float(np.asarray(kl_bound(score_error, float(kl)))) for score_error, kl in zip(errors, prior, strict=True)]
    return compare(
        "check_kl_bound",
        "(34)",
        "½ ∫ g² E‖∇log p_t − s_θ‖² dt + KL(p_T‖π)",
        with_excess(np.array(left)),
        with_excess(path + prior),
        with_error(1e-10, error),
        {sentence: lambda value=value: with_excess(value()) for sentence, value in wrong.items()},  # type: ignore[misc]
        labels=lambda i: names[i[0]],
    )


@takes_arrays
def check_log_prob_bound(log_prob_bound: Callable[..., ArrayLike], sde: LinearSDE, mixture: Mixture, x: Array) -> Check:
    """(34) for single examples, as an equality with log q(x): s_θ = ∇log q_t and π = q_T of a mixture q.

    For the score 1.3 ∇log p_t of Gaussian data p and π = p_T, both the bound and log p_θ are known; the bound is
    compared with its value, and as an inequality with log p_θ.

    Parameters
    ----------
    log_prob_bound : callable
        log_prob_bound(score_and_divergence, prior_log_prob, x (N, D)) → (N,), nats, with expectations over x_t given x
        by quadrature.  score_and_divergence(x, t) → ∇log q_t (N, D) and its divergence (N,);
        prior_log_prob(x) → log q_T, (N,).
    sde : LinearSDE
    mixture : Mixture
        q, in as many dimensions as the quadrature of the callable.
    x : (N, D)

    Returns
    -------
    Check
        Tolerance 1e-10, plus the error of the quadrature in the right side.
    """
    N, D = x.shape
    start, end = sde.level(0.0), sde.level(sde.horizon)
    mean, variance, factor = mixture.mean(), float(np.diagonal(mixture.covariance()).mean()), 1 + WRONG_BY[0]

    def of_mixture(points: Array, t: float) -> tuple[Array, Array]:
        law = mixture.diffuse(*sde.level(t))
        return law.score(points), np.trace(law.score_jacobian(points), axis1=1, axis2=2)

    def of_gaussian(points: Array, t: float) -> tuple[Array, Array]:
        scale, std = sde.level(t)
        V = scale**2 * variance + std**2
        return -factor * (points - scale * mean) / V, np.full(len(points), -factor * D / V)

    def log_normal(points: Array, m: Array, V: float) -> Array:
        return -0.5 * (((points - m) ** 2).sum(axis=1) / V + D * np.log(2 * np.pi * V))

    def gaussian_end(points: Array) -> Array:
        return log_normal(points, end[0] * mean, end[0] ** 2 * variance + end[1] ** 2)

    mixture_end = mixture.diffuse(*end).log_prob
    left = np.array([log_prob_bound(of_mixture, mixture_end, x), log_prob_bound(of_gaussian, gaussian_end, x)])
    right = log_density(mixture.diffuse(*start), x).real
    spread = float(_wrong_variances(sde, np.array([variance]), WRONG_BY[0])[0])
    allowed = log_normal(x, start[0] * mean, spread)  # log p_θ of the wrong score
    by_gaussian = _BoundTerms(sde, of_gaussian, gaussian_end, x)

    def with_excess(bounds: ArrayLike) -> Array:
        """The two bounds, and the amount by which the second exceeds log p_θ, (3, N)."""
        bounds = np.asarray(bounds, dtype=np.float64)
        return np.array([*bounds, np.maximum(bounds[1] - allowed, 0.0)])

    by_mixture = cache(lambda: _BoundTerms(sde, of_mixture, mixture_end, x))  # of a failure only

    def mistake(f: Callable[[_BoundTerms], Array]) -> Callable[[], Array]:
        return lambda: with_excess([f(by_mixture()), f(by_gaussian)])

    def standard(points: Array) -> Array:
        return log_normal(points, np.zeros(D), 1.0)

    names = [
        "that equals log q",
        f"for the score {factor:g} ∇log p_t",
        f"minus log p_θ, for the score {factor:g} ∇log p_t",
    ]
    return compare(
        "check_log_prob_bound",
        "(34)",
        "E log π(x_T) − ½∫E[g²(‖s‖² + 2 div s) − 2 div f]dt",
        with_excess(left),
        with_excess([right, by_gaussian.bound()]),
        with_error(1e-10, by_gaussian.error),
        {
            "∫div f dt is missing": mistake(lambda terms: terms.bound(drift=0.0)),
            "∫div f dt has the wrong sign": mistake(lambda terms: terms.bound(drift=-1.0)),
            "∫div f dt is not summed over D": mistake(lambda terms: terms.bound(drift=1 / D)),
            "½ is missing before ∫g²(‖s‖² + 2 div s)": mistake(lambda terms: terms.bound(square=2.0, divergence=2.0)),
            "the 2 before div s is missing": mistake(lambda terms: terms.bound(divergence=0.5)),
            "div s is missing": mistake(lambda terms: terms.bound(divergence=0.0)),
            "div s has the wrong sign": mistake(lambda terms: terms.bound(divergence=-1.0)),
            "‖s‖² is missing": mistake(lambda terms: terms.bound(square=0.0)),
            "E log π(x_T) is missing": mistake(lambda terms: terms.bound(prior=np.zeros(N))),
            "log π is taken at the mean of x_T": mistake(
                lambda terms: terms.bound(prior=terms.prior_log_prob(end[0] / start[0] * x))
            ),
            "N(0, I) stands where π belongs": mistake(lambda terms: terms.bound(prior=terms.at_end(standard))),
            "the integral is divided by T": mistake(
                lambda terms: terms.bound(square=1 / sde.horizon, divergence=1 / sde.horizon)
            ),
            "it is averaged over D": mistake(lambda terms: terms.bound() / D),
        },
        labels=lambda i: f"the bound {names[i[0]]}, example {i[1]}",
    )


class _BoundTerms:
    """The terms of the bound of every example, by nodes of the noise: an even grid for D = 1, else sigma points.

    Sigma points are exact for quadratics, as for a Gaussian q.
    """

    def __init__(
        self,
        sde: LinearSDE,
        score_and_divergence: Callable[[Array, float], tuple[Array, Array]],
        prior_log_prob: Callable[[Array], Array],
        x: Array,
    ) -> None:
        self.sde, self.x, self.prior_log_prob = sde, x, prior_log_prob
        D = x.shape[1]
        self.nodes = np.linspace(-8.5, 8.5, 171)[:, None] if D == 1 else sigma_points(D)
        weights = np.exp(-0.5 * self.nodes[:, 0] ** 2) if D == 1 else np.ones(2 * D)
        self.weights = weights / weights.sum()

        def rates(t: float) -> Array:
            """g² E‖s‖² and g² E div s, (2, N)."""
            points = self.points(t)
            score, divergence = score_and_divergence(points.reshape(-1, D), t)
            terms = np.stack([(score**2).sum(axis=1), divergence]).reshape(2, *points.shape[:2])
            return float(sde.diffusion(t)) ** 2 * np.einsum("m,kmn->kn", self.weights, terms)

        (self.squares, self.divergences), self.error = _time_integral(sde, rates)

    def points(self, t: float) -> Array:
        """x_t at the nodes, (M, N, D)."""
        (scale, std), (first, blur) = self.sde.level(t), self.sde.level(0.0)
        spread = np.sqrt(max(std**2 - (scale / first * blur) ** 2, 0.0))
        return np.asarray(scale / first * self.x + spread * self.nodes[:, None])

    def at_end(self, log_prob: Callable[[Array], Array]) -> Array:
        """E log π(x_T), (N,)."""
        points = self.points(self.sde.horizon)
        return np.asarray(self.weights @ log_prob(points.reshape(-1, self.x.shape[1])).reshape(points.shape[:2]))

    def bound(
        self, square: float = 1.0, divergence: float = 1.0, drift: float = 1.0, prior: Array | None = None
    ) -> Array:
        """The bound with these factors of ‖s‖², div s and div f, and E log π(x_T) or `prior`."""
        prior = self.at_end(self.prior_log_prob) if prior is None else prior
        growth = self.x.shape[1] * np.log(self.sde.level(self.sde.horizon)[0] / self.sde.level(0.0)[0])
        return prior - 0.5 * (square * self.squares + 2 * divergence * self.divergences) + drift * growth


@takes_arrays
def check_reverse_law(
    reverse_moments: Callable[[Callable[[Array, float], Array]], tuple[ArrayLike, ArrayLike]],
    integral: float,
    delta: float,
) -> Check:
    """(34), left side in closed form: data N(0, I), s_θ = κ − (1 + δ)x, π = N(0, I), B = ∫g² dt of a VP process.

        v_θ = [1 + 2δ e^(−(1+2δ)B)]/(1 + 2δ),   m_θ = κ (1 − e^(−(½+δ)B))/(½ + δ)
        KL(p_0‖p_θ) <= ½ B (D δ² + ‖κ‖²)

    The bound holds for the distribution of the reverse SDE.  It need not hold for the flow, whose variance is e^(−Bδ):
    at B = 10 and δ = ½ the divergence of the flow is 71 nats, and the bound is 1.25.

    Parameters
    ----------
    reverse_moments : callable
        reverse_moments(score) → (mean (D,), covariance (D, D)) at time 0 of the reverse SDE from N(0, I);
        score(x, t) = s_θ.  The check takes D from the result.
    integral : float
        B.
    delta : float
        δ; the check runs at δ and δ/2, each with κ = 0 and with another κ.

    Returns
    -------
    Check
        The residual of the moments, and of the excess of KL(p_0‖p_θ) over its bound, which is 0.  Tolerance 1e-10.
    """

    def shift(D: int, kappa: float) -> Array:
        return kappa * (1 + 0.5 * np.arange(D))

    problems = [(delta, 0.0), (delta, 0.7), (delta / 2, 0.0), (delta / 2, -0.4)]

    def row(d: float, kappa: float, mean: Array, covariance: Array) -> Array:
        """Mean, covariance, and the amount by which KL(p_0‖p_θ) exceeds its bound."""
        D = len(mean)
        kl = _gaussian_kl(np.zeros(D), np.eye(D), mean, covariance) if np.linalg.det(covariance) > 0 else np.inf
        excess = max(kl - 0.5 * integral * (D * d**2 + (shift(D, kappa) ** 2).sum()), 0.0)
        return np.concatenate([mean, covariance.ravel(), [excess]])

    left = []
    for d, kappa in problems:
        mean, covariance = parts(
            reverse_moments(lambda x, t, d=d, kappa=kappa: shift(x.shape[1], kappa) - (1 + d) * x),  # type: ignore[misc]
            2,
            "reverse_moments",
        )
        D = len(np.ravel(mean))
        left.append(row(d, kappa, np.ravel(mean), returned(covariance, (D, D), "the covariance")))

    def moments(mean: Callable[[float], float], variance: Callable[[float], float]) -> Array:
        return np.array([row(d, kappa, shift(D, kappa) * mean(d), variance(d) * np.eye(D)) for d, kappa in problems])

    def exact_mean(d: float) -> float:
        return float(-np.expm1(-(0.5 + d) * integral) / (0.5 + d))

    def exact_variance(d: float) -> float:
        return float((1 + 2 * d * np.exp(-(1 + 2 * d) * integral)) / (1 + 2 * d))

    def by_rates(
        score: float = 1.0, drift: float = 0.5, noise: float = 1.0, start: float = 1.0
    ) -> tuple[Callable[[float], float], Callable[[float], float]]:
        """Mean and variance of dx = [drift x + score (κ − (1 + δ) x)] dB + √noise dw, as functions of δ."""

        def mean(d: float) -> float:
            a = score * (1 + d) - drift
            return float(-np.expm1(-a * integral) / a * score) if a else integral * score

        def variance(d: float) -> float:
            a = score * (1 + d) - drift
            grown = -np.expm1(-2 * a * integral) / (2 * a) if a else integral
            return float(start * np.exp(-2 * a * integral) + noise * grown)

        return mean, variance

    def flow_mean(d: float) -> float:
        return float(-np.expm1(-0.5 * d * integral) / d) if d else 0.5 * integral

    names = [
        *(f"mean {i + 1} of p_θ" for i in range(D)),
        *(f"covariance {i + 1},{j + 1} of p_θ" for i in range(D) for j in range(D)),
        "the excess of KL(p_0‖p_θ) over its bound",
    ]
    return compare(
        "check_reverse_law",
        "(34)",
        "(mean, covariance) of p_θ",
        left,
        moments(exact_mean, exact_variance),
        1e-10,
        {
            "it is the distribution of the flow, which (34) does not bound": lambda: moments(
                flow_mean, lambda d: float(np.exp(-integral * d))
            ),
            "it is the distribution of the data: the error of the score has no effect": lambda: moments(
                lambda d: 0.0, lambda d: 1.0
            ),
            "it is that of T → ∞: the start has no effect": lambda: moments(
                lambda d: 1 / (0.5 + d), lambda d: 1 / (1 + 2 * d)
            ),
            "the noise has the factor √2 g, as in Langevin dynamics": lambda: moments(
                exact_mean, by_rates(noise=2.0)[1]
            ),
            "the noise has half its variance": lambda: moments(exact_mean, by_rates(noise=0.5)[1]),
            "the noise has the factor 2 g": lambda: moments(exact_mean, by_rates(noise=4.0)[1]),
            "there is no noise": lambda: moments(exact_mean, by_rates(noise=0.0)[1]),
            "all samples start at 0, not from N(0, I)": lambda: moments(exact_mean, by_rates(start=0.0)[1]),
            "the score has the flow's ½ beside the noise": lambda: moments(*by_rates(0.5)),
            "the drift −½β x has lost its ½": lambda: moments(*by_rates(drift=1.0)),
            "the drift of x is missing": lambda: moments(*by_rates(drift=0.0)),
            "standard deviations stand where variances belong": lambda: moments(
                exact_mean, lambda d: exact_variance(d) ** 0.5
            ),
        },
        labels=lambda i: f"δ = {problems[i[0]][0]:g}, κ = {problems[i[0]][1]:g}: {names[i[1]]}",
    )
