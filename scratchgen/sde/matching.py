"""Equation (33): four forms of score matching, each with its integrand at one noise level for every example.

    explicit   ‖∇log p_t − s_θ‖²               needs the true score
    denoising  ‖s_θ + ε/std‖²                  = explicit + D/std² − J      (Vincent 2011)
    implicit   ‖s_θ‖² + 2 div s_θ              = explicit − J               (Hyvärinen 2005)
    sliced     (v·s_θ)² + 2 vᵀ(∇s_θ)v          = implicit if E vvᵀ = I      (Song et al., UAI 2019)

The equalities hold in expectation over x_t = scale · x_0 + std · ε, with J = E‖∇log p_t‖².  The differences contain no
θ.  Therefore all four have the same minimiser, but only the first is 0 there.

`denoising_error` and `sliced_error` return the loss and its derivatives, for training.  `predict_score` and
`score_and_divergence` give the score of a noise network, s_θ(x, t) = −ε̂(x, t)/std(t), and its divergence, `predict_x0`
its denoiser.
"""

import numpy as np

from scratchgen.nn import AnyPredictor, NoisePredictor, check_network
from scratchgen.sde.processes import LinearSDE, as_time, check_times
from scratchgen.validation import Array, IntArray, as_arrays, check_flag, check_positive, column


def explicit_score_matching(score: Array, target: Array) -> Array:
    """‖∇log p_t(x) − s_θ(x, t)‖², (N,): the integrand of (33) without λ(t); s_θ and target = ∇log p_t are (N, D)."""
    score, target = as_arrays("score (N, D), target (N, D)", score, target)
    return ((target - score) ** 2).sum(axis=1)


def denoising_error(score: Array, noise: Array, std: Array | float) -> tuple[Array, Array]:
    """‖s_θ + ε/std‖², (N,), and its derivative 2 (s_θ + ε/std) with respect to s_θ, (N, D).

    Parameters
    ----------
    score, noise : (N, D)
        s_θ(x_t, t) and ε.
    std : float or (N,)
        Positive; ValueError otherwise.
    """
    score, noise = as_arrays("score (N, D), noise (N, D)", score, noise)
    check_positive(std, "std")
    error = score + noise / column(std, noise, "std")
    return (error**2).sum(axis=1), 2 * error


def denoising_score_matching(score: Array, noise: Array, std: Array | float) -> Array:
    """‖s_θ(x_t, t) + ε/std‖², (N,); arguments as for `denoising_error`.

    −ε/std is the score of q(x_t | x_0), and its mean given x_t is ∇log p_t(x_t).
    """
    return denoising_error(score, noise, std)[0]


def implicit_score_matching(score: Array, divergence: Array) -> Array:
    """‖s_θ‖² + 2 div s_θ, (N,), from s_θ (N, D) and div s_θ (N,).

    The form follows from (33) by integration by parts, if p_t s_θ vanishes at infinity.
    """
    score, divergence = as_arrays("score (N, D), divergence (N)", score, divergence)
    return (score**2).sum(axis=1) + 2 * divergence


def sliced_error(
    score: Array, direction: Array, derivative: Array, reduce_variance: bool = False
) -> tuple[Array, Array, Array]:
    """`sliced_score_matching`, (N,), and its derivatives with respect to s_θ and to ∇s_θ v, each (N, D)."""
    check_flag(reduce_variance, "reduce_variance")
    score, direction, derivative = as_arrays(
        "score (N, D), direction (N, D), derivative (N, D)", score, direction, derivative
    )
    if reduce_variance:
        square, by_score = (score**2).sum(axis=1), 2 * score
    else:
        projection = (direction * score).sum(axis=1)
        square, by_score = projection**2, 2 * projection[:, None] * direction
    return square + 2 * (direction * derivative).sum(axis=1), by_score, 2 * direction


def sliced_score_matching(score: Array, direction: Array, derivative: Array, reduce_variance: bool = False) -> Array:
    """(v·s_θ)² + 2 v·(∇s_θ v), (N,), for random directions v with E vvᵀ = I.

    Gaussian and Rademacher directions have E vvᵀ = I.  Uniformly random unit vectors would give 1/D of the implicit
    loss.

    Parameters
    ----------
    score, direction, derivative : (N, D)
        s_θ, v, and the derivative ∇s_θ v of s_θ along v.
    reduce_variance : bool
        Replace (v·s_θ)² by its mean over v, ‖s_θ‖² (SSM-VR of Song et al., UAI 2019), which has less variance where the
        score is large.
    """
    return sliced_error(score, direction, derivative, reduce_variance)[0]


# --- the score of a noise network ------------------------------------------------------------------------------------


def predict_score(network: AnyPredictor, sde: LinearSDE, x: Array, t: Array | float) -> Array:
    """s_θ(x, t) = −ε̂/std ≈ ∇log p_t(x), (N, D), for x (N, D) and t a number or (N,).

    The score of p_t is −E[ε | x_t = x]/std, and ε̂ approximates E[ε | x_t = x].
    """
    check_network(network)
    check_times(sde, t)
    x = as_arrays("x (N, D)", x)
    scale, std = sde.marginal(t)
    return -network(x, scale, std) / column(std, x)


def predict_x0(network: AnyPredictor, x: Array, scale: Array | float, std: Array | float) -> Array:
    """x̂_0 = (x_t − std · ε̂)/scale ≈ E[x_0 | x_t], (N, D), for x_t = scale · x_0 + std · ε, (N, D).

    Parameters
    ----------
    network : NoiseNetwork, CategoricalDenoiser or GuidedNetwork
        ε̂.
    x : (N, D)
        x_t.
    scale, std : float or (N,)
        Positive.
    """
    check_network(network)
    x = as_arrays("x (N, D)", x)
    return (x - column(std, x, "std") * network(x, scale, std)) / column(scale, x, "scale")


def score_and_divergence(
    network: NoisePredictor,
    sde: LinearSDE,
    x: Array,
    t: float,
    probes: Array | None = None,
    labels: IntArray | None = None,
) -> tuple[Array, Array]:
    """s_θ, (N, D), and div s_θ = tr ∇s_θ, (N,), at x (N, D) and one time t.

    Parameters
    ----------
    probes : (n, N, D), optional
        Random vectors v with E vvᵀ = I.  The divergence is then Hutchinson's estimate, the mean of vᵀ(∇s_θ)v over n
        backward passes.  If None, the divergence is exact and takes D backward passes.
    labels : (N,) of int, optional
    """
    check_network(network)
    t = as_time(sde, t)
    x, probes = as_arrays("x (N, D), probes? (n, N, D)", x, probes)
    if probes is not None and not len(probes):
        raise ValueError("probes must hold at least one vector a row, got none; pass None for the exact divergence")
    scale, std = sde.level(t)
    eps_hat, backward = network.vjp(x, scale, std, labels=labels)
    if probes is None:  # the sum over unit vectors is the divergence
        probes, weight = np.broadcast_to(np.eye(x.shape[1])[:, None], (x.shape[1], *x.shape)), 1.0
    else:
        weight = 1 / len(probes)
    eps_hat = eps_hat.astype(np.result_type(x, eps_hat))
    trace = np.zeros(len(x), dtype=eps_hat.dtype)
    for v in probes.astype(eps_hat.dtype):
        trace += weight * (backward(v, inputs=True) * v).sum(axis=1)
    return -eps_hat / std, -trace / std
