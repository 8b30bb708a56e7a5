"""DDPM: the entropy, the exact likelihood and the bound of eight Gaussians; digits."""

from __future__ import annotations

import numpy as np

from scratchgen import DDPM, datasets
from scratchgen.grading import ancestral_density, grade_bound
from scratchgen.report.tour import NOISE_ERROR, Tour, bits_per_dim, digit_options, levels_of_digits


def ddpm(tour: Tour) -> None:
    """Train DDPMs on eight Gaussians and on digits; compare entropy, exact likelihood and bound."""
    tour.begin(
        "ddpm",
        "DDPM, equations (19)-(29)",
        "min E‖ε − ε̂(ᾱ_t x₀ + β̄_t ε, t)‖²\n−ELBO − H(p) = KL(q(x_{0:T})‖p_θ(x_{0:T})) ≥ KL(p‖p_θ)",
    )
    truth = datasets.eight_gaussians()
    model = DDPM(
        weighting="bound",
        step_choice="importance",
        hidden=(128, 128),
        n_coordinate_features=3,
        n_steps=tour.steps(4000),
        standardize=False,
        rng=tour.seed,
    )
    model = tour.train("ddpm", "DDPM, eight Gaussians, T = 100", model, truth.sample(20000, tour.seed))
    x, x_test = levels_of_digits()
    digits = DDPM(
        variance="optimal",
        weighting="bound",
        step_choice="stratified",
        n_steps=tour.steps(1000),
        **digit_options(tour),
    )
    digits = tour.train("ddpm_digits", "DDPM, 1437 digits, T = 100", digits, x)

    entropy = truth.entropy()
    for T in (10, 25, 50, 100):  # the same network, fewer steps
        short = model.respace(T)
        grade = grade_bound(short.schedule_, short.eps_hat, truth, short.variance_)
        chain = ancestral_density(short.schedule_, short.eps_hat, truth.dimension, short.variance_)
        exact = entropy + chain.kl_from(truth.log_prob(chain.points))
        tour.ladder[T] = exact, grade.bound, grade.least_bound
    bayes, excess = np.array(grade.noise).T  # at every step of T = 100
    cross_entropy, bound, best_bound = tour.ladder[100]
    loss, least = (bayes + excess).mean(), bayes.mean()
    tour.grade("ddpm", "noise loss vs Bayes loss", loss, least, 0, 0.01 * tour.slack, NOISE_ERROR)
    tour.grade("ddpm", "−ELBO vs exact denoiser's", bound, best_bound, 0, 0.12 * tour.slack)
    tour.grade("ddpm", "−ELBO vs entropy H(p)", bound, entropy, 0, best_bound - entropy + 0.12 * tour.slack)
    tour.grade("ddpm", "exact −E log p_θ vs H(p)", cross_entropy, entropy, 0, 0.1 * tour.slack)
    tour.grade("ddpm", "−ELBO vs exact −E log p_θ", bound, cross_entropy, 0, best_bound - entropy + 0.12 * tour.slack)
    tour.show_grades("ddpm")
    tour.noise_grades["DDPM"] = np.log(model.schedule_.snr[1:]), list(grade.noise)
    tour.bits_per_dim["DDPM, T = 100: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))
