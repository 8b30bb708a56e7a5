"""Score SDE: both sides of (34), and digits."""

from __future__ import annotations

import numpy as np

from scratchgen import ScoreSDE, datasets
from scratchgen.grading import NoiseGrade, euler_density, grade_noise
from scratchgen.report.tour import Tour, bits_per_dim, level_network, levels_of_digits
from scratchgen.sde import kl_bound, reverse_times


def sde(tour: Tour) -> None:
    """Train score models on eight Gaussians and on digits; hold both sides of (34) against each other."""
    tour.narrator.heading(
        "Score SDE, equations (30)-(34)",
        "dx = [f − g² s_θ]dt + g dw̄;  KL(p‖p_θ) ≤ ½∫g² E‖∇log p_t − s_θ‖² dt + KL(p_T‖π)",
    )
    truth = datasets.eight_gaussians()
    model = ScoreSDE(
        hidden=(128, 128), n_coordinate_features=3, n_steps=tour.steps(4000), standardize=False, rng=tour.seed
    )
    model = tour.train("sde", "score model, eight Gaussians", model, truth.sample(20000, tour.seed))
    x, x_test = levels_of_digits()
    digits = ScoreSDE(n_steps=tour.steps(2000), **level_network(tour))
    digits = tour.train("sde_digits", "score model, 1437 digits", digits, x)

    process, t_min = model.sde_, model.t_min
    start, end = truth.diffuse(*process.level(t_min)), truth.diffuse(*process.level(process.horizon))

    def noise_grade(t: float) -> NoiseGrade:
        return grade_noise(truth, lambda p: model.eps_hat(p, t), *process.level(t))

    def score_error(t: float) -> float:  # ∇log p_t − s_θ = (ε̂ − ε*)/std
        return noise_grade(t).excess / float(process.std(t)) ** 2

    low, high = process.log_snr(np.array([process.horizon, t_min]))
    log_snr = np.linspace(low, high, 65)
    grades = [noise_grade(float(t)) for t in process.time_at(log_snr)]
    bayes, excess = np.array(grades).T
    right = kl_bound(process, score_error, end.kl(process.prior_log_prob), t_min, n_nodes=32)
    left = {}
    for n in (50, 100):
        times = reverse_times(process, n, t_min, detail=float(np.sqrt(truth.covariances[0, 0, 0])))
        density = euler_density(process, model.predict_score, times, truth.dimension)
        left[n] = density.kl_from(start.log_prob(density.points))
    tour.grade("sde", "noise loss vs Bayes loss", (bayes + excess).mean(), bayes.mean(), 0, 0.01 * tour.slack)
    tour.grade("sde", "(34) right vs left, KL(p‖p_θ)", right, left[100], 0, 0.06 * tour.slack)
    tour.grade("sde", "(34) left: 50 vs 100 steps", left[50], left[100], 0, 0.04 * tour.slack)
    tour.grade("sde", "(34) equality, s_θ = ∇log q_t", *both_sides_of_equality(model), -1e-6, 1e-6)
    tour.show_grades("sde")
    tour.noise_grades["score model"] = log_snr, grades
    tour.bits_per_dim["score SDE: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))


def both_sides_of_equality(model: ScoreSDE) -> tuple[float, float]:
    """Both sides of (34) for s_θ = ∇log q_t and π = q_T, where it is an equality: p eight Gaussians, q four others."""
    process, t_min = model.sde_, model.t_min
    p, q = datasets.eight_gaussians(), datasets.gaussians_2d()

    def score_distance(t: float) -> float:
        p_t, q_t = p.diffuse(*process.level(t)), q.diffuse(*process.level(t))
        points, weights = p_t.quadrature(spacing=0.25)
        squared = ((p_t.score(points) - q_t.score(points)) ** 2).sum(axis=1)
        return float((weights * np.exp(p_t.log_prob(points))) @ squared)

    ends = [mixture.diffuse(*process.level(t)) for t in (t_min, process.horizon) for mixture in (p, q)]
    right = kl_bound(process, score_distance, ends[2].kl(ends[3].log_prob), t_min, n_nodes=48)
    return right, ends[0].kl(ends[1].log_prob)
