"""DDPM: from the entropy to the exact likelihood to the bound, and digits."""

from __future__ import annotations

import numpy as np

from scratchgen import DDPM, datasets
from scratchgen.ddpm import negative_elbo
from scratchgen.grading import NoiseGrade, ancestral_density, grade_noise
from scratchgen.report.tour import Tour, bits_per_dim, level_network, levels_of_digits


def ddpm(tour: Tour) -> None:
    """Train DDPMs on eight Gaussians and on digits; climb from the entropy to the likelihood to the bound."""
    tour.narrator.heading(
        "DDPM, equations (19)-(29)",
        "min E‖ε − ε̂(ᾱ_t x₀ + β̄_t ε, t)‖²;  −ELBO − H(p) = KL(q(x_{0:T})‖p_θ(x_{0:T})) ≥ KL(p‖p_θ)",
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
        **level_network(tour),
    )
    digits = tour.train("ddpm_digits", "DDPM, 1437 digits, T = 100", digits, x)

    schedule, entropy, D = model.schedule_, truth.entropy(), truth.dimension

    def noise_grade(t: int) -> NoiseGrade:
        return grade_noise(truth, lambda p: model.eps_hat(p, t), schedule.alpha_bar[t], schedule.beta_bar[t])

    nothing = NoiseGrade(0.0, 0.0)  # index 0 is clean data, where no noise is predicted
    grades = [nothing] + [noise_grade(t) for t in range(1, schedule.T + 1)]
    bayes, excess = np.array(grades).T
    second_moment = float(np.trace(truth.covariance()) + truth.mean() @ truth.mean())
    for T in (10, 25, 50, 100):  # the same network, fewer steps
        short, visited = model.respace(T), [0, *(-(-schedule.T * np.arange(1, T + 1) // T))]
        chain = ancestral_density(short.schedule_, short.eps_hat, D, resolution=0.4 if T <= 10 else 1.0)
        tour.ladder[T] = (
            entropy + chain.kl_from(truth.log_prob(chain.points)),
            negative_elbo(short.schedule_, (bayes + excess)[visited], second_moment, D),
            negative_elbo(short.schedule_, bayes[visited], second_moment, D),
        )
    cross_entropy, bound, best_bound = tour.ladder[schedule.T]
    tour.grade("ddpm", "noise loss vs Bayes loss", (bayes + excess)[1:].mean(), bayes[1:].mean(), 0, 0.01 * tour.slack)
    tour.grade("ddpm", "−ELBO vs exact denoiser's", bound, best_bound, 0, 0.12 * tour.slack)
    tour.grade("ddpm", "−ELBO vs entropy H(p)", bound, entropy, 0, best_bound - entropy + 0.12 * tour.slack)
    tour.grade("ddpm", "exact −E log p_θ vs H(p)", cross_entropy, entropy, 0, 0.1 * tour.slack)
    tour.grade("ddpm", "−ELBO vs exact −E log p_θ", bound, cross_entropy, 0, best_bound - entropy + 0.12 * tour.slack)
    tour.show_grades("ddpm")
    tour.noise_grades["DDPM"] = np.log(schedule.snr[1:]), grades[1:]
    tour.bits_per_dim["DDPM, T = 100: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))
