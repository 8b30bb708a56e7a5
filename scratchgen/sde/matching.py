"""Equation (33): score matching, four ways; each gives its integrand at one noise level for every example.

    explicit   ‖∇log p_t − s_θ‖²               needs the true score
    denoising  ‖s_θ + ε/std‖²                  = explicit + D/std² − J      (Vincent 2011)
    implicit   ‖s_θ‖² + 2 div s_θ              = explicit − J               (Hyvärinen 2005)
    sliced     (v·s_θ)² + 2 vᵀ(∇s_θ)v          = implicit if E vvᵀ = I      (Song et al., UAI 2019)

in expectation over x_t = scale · x_0 + std · ε, with J = E‖∇log p_t‖².  The differences contain no θ: all four have the
same minimiser, and only the first is 0 there.
"""

from __future__ import annotations

from scratchgen.validation import Array


def explicit_score_matching(score: Array, target: Array) -> Array:
    """‖∇log p_t(x) − s_θ(x, t)‖², (N,), from the two scores (N, D): (33) itself, without λ(t)."""
    return ((target - score) ** 2).sum(axis=1)


def denoising_score_matching(score: Array, noise: Array, std: float) -> Array:
    """‖s_θ(x_t, t) + ε/std‖², (N,): −ε/std is the score of q(x_t | x_0), whose mean given x_t is ∇log p_t."""
    return ((score + noise / std) ** 2).sum(axis=1)


def implicit_score_matching(score: Array, divergence: Array) -> Array:
    """‖s_θ‖² + 2 div s_θ, (N,), by partial integration, which needs p_t s_θ to vanish at infinity."""
    return (score**2).sum(axis=1) + 2 * divergence


def sliced_score_matching(score: Array, direction: Array, derivative: Array, reduce_variance: bool = False) -> Array:
    """(v·s_θ)² + 2 v·(∇s_θ v), (N,), for directions v (N, D) and derivatives ∇s_θ v (N, D) of s_θ along them.

    Gaussian and Rademacher directions have E vvᵀ = I; unit vectors would give 1/D of the implicit loss.  With
    `reduce_variance` ‖s_θ‖² stands for (v·s_θ)², whose mean over v it is (Song et al.'s SSM-VR);
    it varies less where the score is large.
    """
    square = (score**2).sum(axis=1) if reduce_variance else ((direction * score).sum(axis=1)) ** 2
    return square + 2 * (direction * derivative).sum(axis=1)
