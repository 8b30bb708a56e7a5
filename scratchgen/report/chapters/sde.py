"""Score SDE: both sides of (34), densities on the line, tables of levels in 64 dimensions, and digits."""

from __future__ import annotations

import numpy as np

from scratchgen import CategoricalMixture, ScoreSDE, datasets
from scratchgen.grading import (
    NoiseGrade,
    SampledNoiseGrade,
    euler_density,
    grade_kl_bound,
    grade_noise,
    sample_noise_grade,
)
from scratchgen.law import Law
from scratchgen.likelihood import bits_per_dim as bits
from scratchgen.report.tour import NOISE_ERROR, Tour, bits_per_dim, digit_options, levels_of_digits
from scratchgen.sde import LinearSDE, reverse_times
from scratchgen.validation import Array


def sde(tour: Tour) -> None:
    """Score models in the plane, on the line, on tables of levels and on digits."""
    tour.begin(
        "sde",
        "Score SDE, equations (30)-(34)",
        "dx = [f − g² s_θ]dt + g dw̄\nKL(p‖p_θ) ≤ ½∫g² E‖∇log p_t − s_θ‖² dt + KL(p_T‖π)",
    )
    in_the_plane(tour)
    on_the_line(tour)
    tables(tour)
    x, x_test = levels_of_digits()
    digits = ScoreSDE(n_steps=tour.steps(2000), n_sample_steps=250, **digit_options(tour))  # the figure shows a path
    digits = tour.train("sde_digits", "score model, 1437 digits", digits, x, NOISE_ERROR)
    tour.bits_per_dim["score SDE: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed, n_times=256))
    tour.show_grades("sde")


def in_the_plane(tour: Tour) -> None:
    """Eight Gaussians: noise losses, and both sides of (34)."""
    truth = datasets.eight_gaussians()
    model = ScoreSDE(
        time_choice="importance",
        hidden=(128, 128),
        n_coordinate_features=3,
        n_steps=tour.steps(4000),
        n_sample_steps=250,  # the figure shows the path
        standardize=False,
        rng=tour.seed,
    )
    model = tour.train("sde", "score model, eight Gaussians", model, truth.sample(20000, tour.seed), NOISE_ERROR)
    process, t_min = model.sde_, model.t_min
    start = truth.diffuse(*process.level(t_min))

    def noise_grade(t: float) -> NoiseGrade:
        return grade_noise(truth, lambda p: model.eps_hat(p, t), *process.level(t))

    low, high = process.log_snr(np.array([process.horizon, t_min]))
    log_snr = np.linspace(low, high, 65)
    grades = [noise_grade(float(t)) for t in process.time_at(log_snr)]
    bayes, excess = np.array(grades).T
    right = grade_kl_bound(process, model.predict_score, truth, t_min, rtol=1e-3).bound
    left = {}
    for n in (50, 100):
        times = reverse_times(process, n, t_min, detail=float(np.sqrt(truth.covariances[0, 0, 0])))
        density = euler_density(process, model.predict_score, times, truth.dimension)
        left[n] = density.kl_from(start.log_prob(density.points))
    loss, least = (bayes + excess).mean(), bayes.mean()
    tour.grade("sde", "noise loss vs Bayes loss", loss, least, 0, 0.01 * tour.slack, NOISE_ERROR)
    tour.grade("sde", "(34) right vs left, KL(p‖p_θ)", right, left[100], 0, 0.06 * tour.slack)
    tour.grade("sde", "(34) left: 50 vs 100 steps", left[50], left[100], 0, 0.04 * tour.slack)
    laws: dict[str, tuple[Law, float]] = {
        "eight Gaussians": (truth, t_min),
        "checkerboard": (datasets.checkerboard(), 0.1),
        "two moons": (datasets.two_moons(), 0.1),
    }
    for name, (law, t) in laws.items():
        tour.grade("sde", f"(34) equality, {name}", *both_sides_of_equality(process, law, t), -1e-6, 1e-6)
    tour.noise_grades["score model"] = log_snr, grades


def on_the_line(tour: Tour) -> None:
    """Three Gaussians: the exact likelihood of the flow, and the bound of the SDE, which need not hold for the flow."""
    truth = datasets.gaussians_1d()
    model = ScoreSDE(
        t_min=0.005,
        time_choice="importance",
        hidden=(64, 64),
        n_coordinate_features=3,
        n_steps=tour.steps(3000),
        n_sample_steps=250,  # the figure shows the path
        standardize=False,
        rng=tour.seed,
    )
    model = tour.train(
        "sde_line", "score model, three Gaussians on the line", model, truth.sample(20000, tour.seed), NOISE_ERROR
    )
    process, t_min = model.sde_, model.t_min
    start = truth.diffuse(*process.level(t_min))
    points, weights = start.quadrature(spacing=0.25)
    mass = weights * np.exp(start.log_prob(points))
    flow = -float(mass @ model.log_prob(points, rtol=1e-4))
    entropy = start.entropy()
    bound = entropy + grade_kl_bound(process, model.predict_score, truth, t_min, rtol=1e-3).bound
    tour.grade("sde", "line: flow's −E log p_θ vs H(p)", flow, entropy, 0, 0.06 * tour.slack)
    tour.grade("sde", "line: the SDE's bound vs H(p)", bound, entropy, 0, 0.03 * tour.slack)


def tables(tour: Tour) -> None:
    """64 pixels of 17 levels from a mixture of tables: log P and the Bayes denoiser are exact."""
    law = tour.models["tables"] = CategoricalMixture(10, n_levels=17, rng=tour.seed).fit(levels_of_digits()[0])
    x, x_test = law.sample(20000, tour.seed), law.sample(1000, tour.seed + 1)
    model = ScoreSDE(n_steps=tour.steps(1000), **digit_options(tour))
    model = tour.train("sde_tables", "score model, 20000 draws of 10 tables", model, x, NOISE_ERROR)
    process = model.sde_
    low, high = process.log_snr(np.array([process.horizon, model.t_min]))
    log_snr, rng = np.linspace(low, high, 13), np.random.default_rng(tour.seed)
    levels = model.to_model(x_test[:500])

    def noise_grade(t: float) -> SampledNoiseGrade:
        noise = rng.standard_normal(levels.shape)
        return sample_noise_grade(law, lambda p: model.eps_hat(p, t), levels, noise, *process.level(t))

    tour.tables_grades = log_snr, [noise_grade(float(t)) for t in process.time_at(log_snr)]
    bayes, excess = np.array(tour.tables_grades[1])[:, :2].T
    exact, bound = -law.log_prob(x_test), -model.elbo(x_test, tour.seed, n_times=256)
    loss, least = (bayes + excess).mean(), bayes.mean()
    tour.grade("sde", "tables: noise loss vs Bayes, 64-D", loss, least, 0, 0.5 * tour.slack, NOISE_ERROR)
    tour.grade(
        "sde",
        "tables: −ELBO vs −log P",
        float(bits(bound.mean(), 64)),
        float(bits(exact.mean(), 64)),
        0,
        0.1 * tour.slack,
        "bits a pixel",
    )


def both_sides_of_equality(process: LinearSDE, p: Law, t_min: float) -> tuple[float, float]:
    """Both sides of (34) for s_θ = ∇log q_t and π = q_T, where they are equal; q is a mixture of four Gaussians."""
    q = datasets.gaussians_2d()

    def score_of_q(x: Array, t: float) -> Array:
        return q.diffuse(*process.level(t)).score(x)

    q_start, q_end = (q.diffuse(*process.level(t)) for t in (t_min, process.horizon))
    grade = grade_kl_bound(process, score_of_q, p, t_min, 1e-3, q_end.log_prob, law=q)
    return grade.bound, p.diffuse(*process.level(t_min)).kl(q_start)
