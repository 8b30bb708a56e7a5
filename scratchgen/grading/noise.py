"""Bayes loss and excess of a noise predictor on data of a known law, and the resulting bounds on KL(p‖p_θ).

For data of a known law the optimal noise predictor is known, ε*(x_t) = −std · ∇log p_t(x_t).  The grade of a trained
predictor is E‖ε* − ε̂‖², the excess of its loss over the Bayes loss.  The bounds (21) of DDPM and (34) of the score SDE
are weighted sums or integrals of these losses over noise levels.  `grade_noise` computes the loss at one noise level by
quadrature.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from scratchgen.ddpm import EpsHat, negative_elbo
from scratchgen.ddpm.kernels import check_schedule
from scratchgen.law import Law
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import LinearSDE, Score, kl_bound
from scratchgen.sde.processes import check_process
from scratchgen.validation import (
    SMALLEST,
    Array,
    as_arrays,
    as_number,
    as_samples,
    as_scale_and_std,
    check_callable,
    check_type,
)

NO_MASS = 1e-18  # of a node that is left out of a quadrature; 1e6 nodes have a mass of 1e-12
BLOCK = 500  # examples at a time; the tables of a categorical mixture have N · K · D · n_levels numbers


class Denoiser(Protocol):
    """A distribution of x_0 with a known Bayes denoiser of x_t = scale · x_0 + std · ε, such as `Mixture`."""

    def denoise(self, x_t: Array, scale: float, std: float) -> Array:
        """E[x_0 | x_t], (N, D)."""

    def denoise_variance(self, x_t: Array, scale: float, std: float) -> Array:
        """tr Cov(x_0 | x_t), (N,)."""


class NoiseGrade(NamedTuple):
    """Loss of a noise predictor at one noise level, in two parts, each summed over dimensions."""

    bayes: float  # E‖ε − ε*‖², the least possible loss
    excess: float  # E‖ε* − ε̂‖², the loss of ε̂ minus the Bayes loss


def grade_noise(
    data: Law, eps_hat: Callable[[Array], Array], scale: float, std: float, law: Law | None = None
) -> NoiseGrade:
    """Bayes loss and excess of ε̂(x_t) at x_t = scale · x_0 + std · ε with x_0 of the law `data`, by quadrature.

    The loss E‖ε − ε̂‖² is bayes + excess, because ε − ε* is orthogonal to every function of x_t.  The excess is
    computed as an integral.  A difference of two estimated losses would have errors larger than the excess.

    Parameters
    ----------
    data : Law
        In one or two dimensions.
    eps_hat : callable
        ε̂, from x_t (M, D) to (M, D).
    scale, std : float
        Noise level.
    law : Law, optional
        The distribution of x_0 for which ε̂ is optimal, if it is another law.  The nodes then resolve its details too.

    Raises
    ------
    ValueError
        If the law has more than two dimensions, or law has another dimension.
    ArithmeticError
        If ε̂ is NaN, or 10 million nodes do not suffice.
    """
    check_type(data, Law, "data", "pass a Mixture")
    check_callable(eps_hat, "eps_hat", "x_t (M, D) → (M, D)")
    if law is not None:
        check_type(law, Law, "law", "pass a Mixture")
    diffused = data.diffuse(scale, std)

    def predicted(x: Array) -> Array:
        return np.asarray(as_arrays("eps_hat (M, D)", eps_hat(x), M=len(x), D=x.shape[1]))

    def squares(x: Array, _: Array, score: Array) -> Array:
        optimum = -std * score
        return np.stack([(optimum**2).sum(axis=1), ((optimum - predicted(x)) ** 2).sum(axis=1)], axis=1)

    # ‖∇log p‖² has poles: errors were 1e-4 at the spacing 0.5 and 1e-7 at 0.25
    other = None if law is None else law.diffuse(scale, std)
    explained, excess = diffused.integrate(squares, 0.5, 1e-3, other, NO_MASS).tolist()
    return NoiseGrade(data.dimension - explained, excess)


class SampledNoiseGrade(NamedTuple):
    """A `NoiseGrade` from samples, with the standard errors of both numbers."""

    bayes: float
    excess: float
    bayes_error: float
    excess_error: float


def sample_noise_grade(
    law: Denoiser,
    eps_hat: Callable[[Array], Array],
    x0: Array,
    noise: Array,
    scale: float,
    std: float,
) -> SampledNoiseGrade:
    """Estimate `grade_noise` in any dimension by a mean over examples.

    The estimate averages two exact functions of x_t: ‖ε* − ε̂‖² with ε* = (x_t − scale E[x_0 | x_t])/std, and E[‖ε −
    ε*‖² | x_t] = (scale/std)² tr Cov(x_0 | x_t), which has far less variance than ‖ε − ε*‖².

    Parameters
    ----------
    law : Denoiser
        Distribution of x0: a `Mixture`, or a `CategoricalLaw` or fitted `CategoricalMixture` of levels scaled to
        [−1, 1].
    eps_hat : callable
        ε̂, from x_t (n, D) to (n, D).
    x0, noise : (N, D)
        Draws of `law`, and of N(0, I).
    scale, std : float
        Noise level; std in [1e-60, 1e60].

    Raises
    ------
    TypeError, ValueError
        If x0 and noise are not finite arrays of one shape, or scale or std is out of range.
    """
    x0 = as_samples(x0, "x0")
    noise = as_samples(noise, "noise", dimension=x0.shape[1])
    if len(noise) != len(x0):
        raise ValueError(f"noise must have one row for each of the {len(x0)} rows of x0, got {len(noise)}")
    scale, std = as_scale_and_std(scale, std, least=SMALLEST)
    check_callable(eps_hat, "eps_hat", "x_t (n, D) → (n, D)")
    if isinstance(law, type) or not hasattr(law, "denoise"):
        raise TypeError(f"law must be a Mixture or another distribution with denoise, got {law!r:.60}")
    excess, bayes = np.empty(len(x0)), np.empty(len(x0))
    for start in range(0, len(x0), BLOCK):
        rows = slice(start, start + BLOCK)
        x_t = scale * x0[rows] + std * noise[rows]
        optimum = (x_t - scale * law.denoise(x_t, scale, std)) / std
        excess[rows] = ((optimum - as_arrays("eps_hat (n, D)", eps_hat(x_t), n=len(x_t), D=x_t.shape[1])) ** 2).sum(
            axis=1
        )
        bayes[rows] = (scale / std) ** 2 * law.denoise_variance(x_t, scale, std)
    errors = [float(values.std(ddof=1) / len(x0) ** 0.5) if len(x0) > 1 else float("inf") for values in (bayes, excess)]
    return SampledNoiseGrade(float(bayes.mean()), float(excess.mean()), errors[0], errors[1])


# --- bounds -----------------------------------------------------------------------------------------------------------


class BoundGrade(NamedTuple):
    """The bound of a DDPM and the least bound for the same schedule and variances, nats."""

    bound: float  # E_p[−ELBO], (21)
    least_bound: float  # E_p[−ELBO] of the Bayes predictor ε*
    entropy: float  # H(p): bound − entropy = KL(q(x_{0:T})‖p_θ(x_{0:T})) ≥ KL(p‖p_θ)
    noise: tuple[NoiseGrade, ...]  # Bayes loss and excess at t = 1..T


def grade_bound(schedule: NoiseSchedule, eps_hat: EpsHat, data: Law, variance: str | Array = "beta") -> BoundGrade:
    """E_p[−ELBO] of a noise predictor and of ε* on data of the law `data`, (21), by quadrature at every step.

    Parameters
    ----------
    schedule : NoiseSchedule
    eps_hat : callable
        ε̂(x_t, t), (M, D), for an int t.
    data : Law
        p, in one or two dimensions.
    variance
        σ_t², as for `scratchgen.ddpm.reverse_variance`.

    Raises
    ------
    ValueError
        If the law has more than two dimensions, or variance is wrong.

    Examples
    --------
    >>> from scratchgen import Mixture
    >>> p, schedule = Mixture([1.0], [[0.5]], [[[2.0]]]), NoiseSchedule.linear(5)
    >>> grade = grade_bound(schedule, lambda x, t: 0 * x, p)
    >>> grade.entropy < grade.least_bound < grade.bound, [round(level.bayes + level.excess, 6) for level in grade.noise]
    (True, [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    check_schedule(schedule)
    check_callable(eps_hat, "eps_hat", "(x_t (M, D), t) → (M, D)")
    check_type(data, Law, "data", "pass a Mixture")
    steps = range(1, schedule.T + 1)
    levels = [(float(schedule.alpha_bar[t]), float(schedule.beta_bar[t])) for t in steps]
    noise = [grade_noise(data, lambda x, t=t: eps_hat(x, t), *level) for t, level in zip(steps, levels, strict=True)]  # type: ignore[misc]
    bayes, excess = np.array([NoiseGrade(0.0, 0.0), *noise]).T  # no noise at index 0, clean data
    second_moment = float(np.trace(data.covariance()) + data.mean() @ data.mean())
    bound, least = (
        negative_elbo(schedule, loss, second_moment, data.dimension, variance) for loss in (bayes + excess, bayes)
    )
    return BoundGrade(bound, least, data.entropy(), tuple(noise))


class KLBoundGrade(NamedTuple):
    """The right side of (34) for a score on data of a known law, nats."""

    bound: float  # ½ ∫ g² E‖∇log p_t − s_θ‖² dt + KL(p_T‖π) ≥ KL(p_{t_min}‖p_{θ, t_min})
    prior: float  # KL(p_T‖π), its second term


def grade_kl_bound(
    sde: LinearSDE,
    score: Score,
    data: Law,
    t_min: float = 0.0,
    rtol: float = 1e-4,
    prior_log_prob: Callable[[Array], Array] | None = None,
    law: Law | None = None,
) -> KLBoundGrade:
    """Right side of (34), nats, with E‖∇log p_t − s_θ‖² by quadrature at every node of time.

    Parameters
    ----------
    sde : LinearSDE
    score : callable
        s_θ(x, t) for one t.
    data : Law
        p, in one or two dimensions.
    t_min : float
        Time of the bounded KL; above 0 for a score that diverges at 0.
    rtol : float
        Relative tolerance of the integral over time, see `scratchgen.sde.kl_bound`.  The rounding of a network in
        float32 prevents 1e-6.
    prior_log_prob : callable, optional
        log π, (N, D) → (N,), nats; the process's own N(0, prior_std² I) if None.
    law : Law, optional
        The distribution q of x_0 with s_θ = ∇log q_t, if s_θ is such a score; see `grade_noise`.

    Raises
    ------
    TypeError, ValueError
        If the law has more than two dimensions, or t_min or rtol is out of range.
    ArithmeticError
        If the score is not finite, or an integral does not settle.

    Examples
    --------
    >>> from scratchgen import VP, Mixture
    >>> p, q = (Mixture([1.0], [[0.0]], [[[v]]]) for v in (1.5, 0.5))
    >>> def score_of_q(x, t):
    ...     return q.diffuse(*VP().level(t)).score(x)
    >>> grade = grade_kl_bound(VP(), score_of_q, p, prior_log_prob=q.diffuse(*VP().level(1.0)).log_prob)
    >>> bool(abs(grade.bound - p.kl(q)) < 1e-9)  # (34) is an equality for s_θ = ∇log q_t and π = q_T
    True
    """
    check_process(sde)
    check_callable(score, "score", "(x (M, D), t) → (M, D)")
    check_type(data, Law, "data", "pass a Mixture")
    t_min, rtol = as_number(t_min, "t_min", low=0.0, high=sde.horizon), as_number(rtol, "rtol", low=0.0, open_low=True)

    def score_error(t: float) -> float:  # ∇log p_t − s_θ = (ε̂ − ε*)/std with ε̂ = −std s_θ
        scale, std = sde.level(t)
        return (
            grade_noise(
                data,
                lambda x: -std * as_arrays("score (M, D)", score(x, t), M=len(x), D=x.shape[1]),
                scale,
                std,
                law,
            ).excess
            / std**2
        )

    end = data.diffuse(*sde.level(sde.horizon))
    prior = end.kl(sde.prior_log_prob if prior_log_prob is None else prior_log_prob)
    return KLBoundGrade(kl_bound(sde, score_error, prior, t_min, rtol), prior)
