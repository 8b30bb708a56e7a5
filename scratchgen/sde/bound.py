"""Equation (34), its form for one example, and the continuous-time bound of log p_θ(x).

The continuous-time bound has three terms (Kingma et al. 2021), each a function of given times and noise:

    −log p_θ(x) ≤ L_T + ½∫E‖ε − ε̂(x_t, t)‖² d(log-SNR) + L_0

p_θ is the reverse SDE from π at the horizon T to t_min, followed by a decoder p(x_0 | x_{t_min}).  Since
g² dt/std² = −d(log-SNR), the integral equals ½∫g² E‖s_θ + ε/std‖² dt, the denoising form of the integral in (34).
All values are in nats, and all points in the units of the process.
"""

from collections.abc import Callable

import numpy as np

from scratchgen.likelihood import LOG_2PI, kl_diag_standard, levels_of, log_bin_mass
from scratchgen.nn import AnyPredictor, check_network
from scratchgen.quadrature import tanh_sinh
from scratchgen.sde.flow import as_pair
from scratchgen.sde.matching import denoising_score_matching, implicit_score_matching, predict_score
from scratchgen.sde.processes import LinearSDE, as_time, check_process
from scratchgen.validation import Array, as_arrays, as_number, as_real, as_samples, check_callable


def _number(value: float) -> float:
    """Return a value of score_error, which may be NaN; ValueError or TypeError unless it is one number."""
    number = as_real(value, "score_error")
    if number.ndim:
        raise ValueError(f"score_error must return one number, got an array of shape {number.shape}; sum over the rows")
    return float(number)


def kl_bound(
    sde: LinearSDE, score_error: Callable[[float], float], prior_kl: float, t_min: float = 0.0, rtol: float = 1e-6
) -> float:
    """Right side of (34), nats: ½ ∫ g(t)² E_{p_t}‖∇log p_t − s_θ‖² dt + KL(p_T‖π).

    The bound is on KL(p_0‖p_θ), where p_θ is the law at time 0 of the continuous reverse SDE with score s_θ, started at
    π.  It does not hold for the law of the probability-flow ODE, nor for a sampler with finitely many steps.  The bound
    is an equality if s_θ = ∇log q_t and π = q_T for some law q that is diffused by the same SDE.

    Parameters
    ----------
    sde : LinearSDE
    score_error : callable
        t → E_{p_t}‖∇log p_t(x) − s_θ(x, t)‖², summed over dimensions.
    prior_kl : float
        KL(p_T‖π), nats.
    t_min : float
        Lower limit of the integral; for t_min > 0 the bound is on KL(p_{t_min}‖p_{θ, t_min}).
    rtol : float
        The number of times is doubled, from 28, until the integral changes by at most this fraction.  For a smooth
        score_error its error is then far smaller.

    Raises
    ------
    TypeError, ValueError
        If t_min is not in [0, horizon], or rtol is not a positive number.
    ArithmeticError
        If score_error is not finite, or the integral does not settle.
    """
    t_min, prior_kl = (
        as_time(sde, t_min, "t_min"),
        as_number(prior_kl, "prior_kl", low=-1e-6),
    )  # a KL of 0 may be rounded below 0
    check_callable(score_error, "score_error", "t → a number")

    def integrand(t: float) -> float:
        return 0.5 * float(sde.diffusion(t)) ** 2 * _number(score_error(t))

    return float(tanh_sinh(integrand, t_min, sde.horizon, rtol, "score_error")) + prior_kl


def sde_log_prob_bound(
    sde: LinearSDE,
    score_and_divergence: Callable[[Array, float], tuple[Array, Array]],
    x: Array,
    noise: Array,
    noise_weights: Array | None = None,
    t_min: float = 0.0,
    prior_log_prob: Callable[[Array], Array] | None = None,
    rtol: float = 1e-6,
) -> Array:
    """A lower bound of log p_θ(x), (N,), nats: the form of (34) for one example (Song et al., NeurIPS 2021).

        log p_θ(x) ≥ E log π(x_T) − ½∫E[g² (‖s_θ‖² + 2 div s_θ) − 2 div f] dt,    x_t from x by the forward SDE

    p_θ is the law at t_min of the continuous reverse SDE with score s_θ.  The bound is an equality if s_θ = ∇log q_t
    and π = q_T for some law q that is diffused by the same SDE.  At single points the bound of log p_θ can lie above
    log p of the data.  The integrand is implicit score matching.  `ScoreSDE.elbo` has the denoising form, which needs
    no divergence.

    Parameters
    ----------
    score_and_divergence : callable
        (x, t) → (s_θ (N, D), div s_θ (N,)).
    x : (N, D)
        Points at time t_min.
    noise : (M, D)
        ε in x_t = scale · x + std · ε.  Standard normal draws give an unbiased estimate of the bound, and nodes of a
        quadrature rule with their weights its exact value.
    noise_weights : (M,), optional
        Weights of the mean over noise, with sum 1; 1/M if None.
    t_min : float
        Lower limit of the integral, in [0, horizon].
    prior_log_prob : callable, optional
        log π, (N, D) → (N,), nats; the process's own N(0, prior_std² I) if None.
    rtol : float
        Relative tolerance of the time integral of every row, as for `kl_bound`.

    Raises
    ------
    TypeError, ValueError
        If x or noise is not a finite array of shape (·, D), noise_weights are not M numbers with sum 1, or t_min or
        rtol is out of range.
    ArithmeticError
        If the score or its divergence is not finite, or the integral does not settle.
    """
    t_min = as_time(sde, t_min, "t_min")
    x = as_samples(x)
    (N, D), noise = x.shape, as_samples(noise, "noise", dimension=x.shape[1])
    M = len(noise)
    noise_weights = np.full(M, 1 / M) if noise_weights is None else as_real(noise_weights, "noise_weights")
    if noise_weights.shape != (M,) or not abs(noise_weights.sum() - 1) <= 1e-6:
        raise ValueError(
            f"noise_weights must be {M} numbers that sum to 1, one for each row of noise, got {noise_weights!r:.60}"
        )
    check_callable(score_and_divergence, "score_and_divergence", "(x (N, D), t) → (N, D) and (N,)")
    if prior_log_prob is not None:
        check_callable(prior_log_prob, "prior_log_prob", "x (N, D) → (N,)")
    prior_log_prob = sde.prior_log_prob if prior_log_prob is None else prior_log_prob
    scale_min, std_min = sde.level(t_min)

    def mean_at(t: float, f: Callable[[Array], Array]) -> Array:
        """E f(x_t) for the forward SDE from x at t_min, (N,)."""
        scale, std = sde.level(t)
        ratio = scale / scale_min
        spread = np.sqrt(max(std**2 - (ratio * std_min) ** 2, 0.0))
        x_t = ratio * x[None] + spread * noise[:, None]
        return noise_weights @ f(x_t.reshape(M * N, D)).reshape(M, N)

    def loss(t: float) -> Array:
        matching = mean_at(t, lambda x_t: implicit_score_matching(*as_pair(score_and_divergence(x_t, t), x_t)))
        return 0.5 * float(sde.diffusion(t)) ** 2 * matching

    log_ratio = float(sde.log_scale(sde.horizon) - sde.log_scale(t_min))  # ∫f dt
    integral = tanh_sinh(loss, t_min, sde.horizon, rtol, "the score")

    def prior(x_T: Array) -> Array:
        return np.asarray(as_arrays("prior_log_prob (N)", prior_log_prob(x_T), N=len(x_T)))

    return mean_at(sde.horizon, prior) - integral + D * log_ratio


# --- the three terms of the continuous-time bound ---------------------------------------------------------------------


def prior_loss(sde: LinearSDE, x0: Array) -> Array:
    """L_T = KL(q(x_T | x_0)‖π), (N,), nats, for x0 (N, D); it contains no parameters."""
    check_process(sde)
    x0 = as_arrays("x0 (N, D)", x0)
    scale, std = sde.level(sde.horizon)
    log_variance = np.full_like(x0, 2 * np.log(std / sde.prior_std))
    return kl_diag_standard(scale * x0 / sde.prior_std, log_variance)


def diffusion_loss(network: AnyPredictor, sde: LinearSDE, x0: Array, t: Array, noise: Array, t_min: float) -> Array:
    """½ (log-SNR(t_min) − log-SNR(T)) std² ‖s_θ(x_t, t) + ε/std‖², (N,), nats, with one time an example.

    The mean over ε ~ N(0, I) and over times t that are uniform in log-SNR on [t_min, T], see `TimeSampler`, is the
    integral of the bound.

    Parameters
    ----------
    network : NoiseNetwork, CategoricalDenoiser or GuidedNetwork
    x0, noise : (N, D)
        x_0 and ε.
    t : (N,)
    t_min : float
    """
    check_network(network)
    t_min = as_time(sde, t_min, "t_min", open_low=True)
    low, high = sde.log_snr(np.array([sde.horizon, t_min])).tolist()
    score, std = predict_score(network, sde, sde.perturb(t, x0, noise), t), sde.std(t)
    return 0.5 * (high - low) * std**2 * denoising_score_matching(score, noise, std)


def reconstruction_loss(
    sde: LinearSDE,
    x0: Array,
    t_min: float,
    noise: Array | None = None,
    n_levels: int | None = None,
    decoder: Callable[[Array], Array] | None = None,
) -> Array:
    """L_0 = −E log p(x_0 | x_{t_min}), (N,), nats, for the decoder N(x_{t_min}/scale, (std/scale)² I).

    Parameters
    ----------
    x0 : (N, D)
    t_min : float
    noise : (N, D), optional
        ε of x_{t_min}.  Not needed for real numbers: the expectation is then ½D log 2πe(std/scale)² for every x_0.
    n_levels : int, optional
        For whole numbers scaled to [−1, 1]: the decoder is then the mass of the Gaussian in their bins.
    decoder : callable, optional
        Function of x_{t_min} (N, D) that returns log P(x_0 | x_{t_min}), (N,), nats, instead of the Gaussian.

    Raises
    ------
    ValueError
        If noise is needed and not given.
    """
    t_min, x0 = as_time(sde, t_min, "t_min", open_low=True), as_arrays("x0 (N, D)", x0)
    scale, std = sde.level(t_min)
    if decoder is None:
        if n_levels is None:  # E‖x_{t_min}/scale − x_0‖² = D (std/scale)²
            return np.full(len(x0), 0.5 * x0.shape[1] * (LOG_2PI + 1 + 2 * np.log(std / scale)))
        level = levels_of(x0, n_levels, "x0")

        def decoder(x_t: Array) -> Array:
            return log_bin_mass(level, x_t / scale, std / scale, n_levels).sum(axis=1)

    check_callable(decoder, "decoder", "x (N, D) → (N,)")
    if noise is None:
        raise ValueError("noise is needed for a decoder of whole numbers; pass standard normal draws of shape (N, D)")
    return -decoder(sde.perturb(t_min, x0, noise))
