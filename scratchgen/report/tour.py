"""The main job: EM → VAE → DDPM → SDE, each trained on real data and graded against an exact answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import chdtri

from scratchgen import DDPM, PPCA, VAE, GaussianMixture, Mixture, ScoreSDE, datasets
from scratchgen.ddpm import negative_elbo, p_mean, reverse_variance
from scratchgen.estimator import Estimator
from scratchgen.grading import GridDensity, NoiseGrade, chain_density, grade_noise
from scratchgen.likelihood import entropy_gaussian
from scratchgen.report.console import Grade, Narrator
from scratchgen.sde import LinearSDE, euler_step, kl_bound, reverse_times
from scratchgen.validation import Array

FALSE_ALARM = 1e-7  # of every tolerance that rests on chance


@dataclass
class Tour:
    """Everything a tour made: what the figures and metrics.json show."""

    seed: int
    quick: bool
    narrator: Narrator
    grades: list[Grade] = field(default_factory=list)
    models: dict[str, Any] = field(default_factory=dict)
    bits_per_dim: dict[str, float] = field(default_factory=dict)
    optimum_of_linear_vae: float = np.nan
    noise_grades: dict[str, tuple[Array, list[NoiseGrade]]] = field(default_factory=dict)

    def steps(self, n: int) -> int:
        """Training steps: n, or a fifth of it for a quick tour."""
        return n // 5 if self.quick else n

    def train(self, name: str, label: str, model: Estimator, x: Array) -> Any:
        """Train a model and keep it under `name`."""
        self.models[name] = self.narrator.train(label, model, x)
        return self.models[name]

    def grade(self, chapter: str, rows: list[tuple[str, float, float, float, float]]) -> None:
        """Record and print rows (quantity, measured, exact, low, high)."""
        grades = [Grade(chapter, *row) for row in rows]
        self.grades += grades
        self.narrator.grades(grades)


def run(tour: Tour) -> None:
    """Run the four chapters and the comparison on digits."""
    em(tour)
    vae(tour)
    ddpm(tour)
    sde(tour)
    compare_digits(tour)


# --- EM ----------------------------------------------------------------------------------------------------------


def em(tour: Tour) -> None:
    """Fit mixtures to a known 2-D mixture and to penguins."""
    tour.narrator.heading(
        "EM, equations (15)-(18)", "q(z|x) ← p_θ(z|x);  θ ← argmax E_p E_q log p_θ(x,z);  afterwards ELBO = log p_θ(x)"
    )
    truth = datasets.gaussians_2d()
    x = truth.sample(5000, tour.seed)
    K, D = truth.means.shape
    fitted = tour.train(
        "mixture",
        "mixture of 4 Gaussians, 5000 points in 2-D",
        GaussianMixture(K, tol=1e-9, max_iter=1000, n_init=3, rng=tour.seed),
        x,
    )
    penguins = standardized_penguins()
    species = tour.train(
        "penguins",
        "mixture of 3 Gaussians, 342 penguins",
        GaussianMixture(3, tol=1e-9, max_iter=1000, n_init=3, rng=tour.seed),
        penguins,
    )
    single = GaussianMixture(1).fit(penguins)
    # Twice the log-likelihood ratio of fit and truth is χ² with as many degrees of freedom as the mixture has
    # parameters (Wilks), so that the fit must beat the truth on its own sample, by no more than this:
    n_parameters = K - 1 + K * D + K * D * (D + 1) // 2
    wilks = float(chdtri(n_parameters, FALSE_ALARM)) / (2 * len(x))
    tour.grade(
        "em",
        [
            ("2-D: log p_θ against the generator's", fitted.score(x), float(truth.log_prob(x).mean()), 0, wilks),
            ("2-D: ELBO after the E-step = log p_θ", float(fitted.elbo(x).mean()), fitted.score(x), -1e-9, 1e-9),
            ("penguins: ELBO = log p_θ", float(species.elbo(penguins).mean()), species.score(penguins), -1e-9, 1e-9),
            ("penguins: largest fall of log p_θ", float(min(np.diff(species.lower_bounds_).min(), 0)), 0, -1e-9, 1e-9),
            (
                "penguins, K = 1: log p_θ = −H(N(m, S))",
                single.score(penguins),
                -entropy_gaussian(np.cov(penguins.T, bias=True)),
                -1e-9,
                1e-9,
            ),
        ],
    )


def standardized_penguins() -> Array:
    """The four penguin measurements, each to mean 0 and variance 1, (342, 4)."""
    measurements = datasets.penguins().measurements
    return (measurements - measurements.mean(axis=0)) / measurements.std(axis=0)


# --- VAE ---------------------------------------------------------------------------------------------------------


def vae(tour: Tour) -> None:
    """Train a linear VAE, whose optimum is PPCA, and a nonlinear one on digits."""
    tour.narrator.heading("VAE, equations (11)-(14)", "−ELBO = E_q[−log p_θ(x|z)] + KL(q(z|x)‖N(0,I)) ≥ −log p_θ(x)")
    penguins = standardized_penguins()
    linear = tour.train(
        "linear_vae",
        "linear VAE, 2 latents, penguins",
        VAE(
            2,
            hidden=(),
            latent_noise="sigma",
            batch_size=None,
            n_steps=3000,
            learning_rate=1e-2,
            dtype="float64",
            rng=tour.seed,
        ),
        penguins,
    )
    x, x_test = dequantized_digits(tour.seed)
    digits = tour.train(
        "vae", "VAE, 16 latents, 1437 digits", VAE(16, hidden=(256,), n_steps=tour.steps(2000), rng=tour.seed), x
    )
    optimum = PPCA(2).fit(penguins)
    tour.optimum_of_linear_vae = optimum.score(penguins)
    tour.grade(
        "vae",
        [
            (
                "linear: ELBO = PPCA's maximum",
                float(linear.elbo(penguins).mean()),
                optimum.score(penguins),
                -1e-6,
                1e-9,
            ),
            ("linear: decoder variance = PPCA's σ²", linear.decoder_variance_, optimum.noise_variance_, -1e-4, 1e-4),
            (
                "digits: log(decoder variance/mean square)",
                float(np.log(digits.decoder_variance_ / mean_square(digits, x, tour.seed))),
                0.0,
                -0.03,
                0.03,
            ),
        ],
    )
    tour.bits_per_dim["VAE, 16 latents: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))
    tour.bits_per_dim["VAE, 16 latents: IWAE-64"] = bits_per_dim(digits.iwae(x_test, 64, tour.seed))


def mean_square(model: VAE, x: Array, seed: int) -> float:
    """E‖x − decode(z)‖²/D with z ~ q(z | x), the best decoder variance for these networks."""
    mean, variance = model.encode(x)
    z = mean + np.sqrt(variance) * np.random.default_rng(seed).standard_normal(mean.shape)
    return float(((x - model.decode(z)) ** 2).mean())


def dequantized_digits(seed: int) -> tuple[Array, Array]:
    """Training and test digits as continuous data on [0, 17)."""
    return (
        datasets.dequantize(datasets.digits("train").images, rng=seed),
        datasets.dequantize(datasets.digits("test").images, rng=seed + 1),
    )


def bits_per_dim(log_prob: Array) -> float:
    """−mean log p(k + u)/(D ln 2) for 64 pixels: an upper bound of −log₂ P(k)/64 of the 17-level images."""
    return float(-log_prob.mean() / (64 * np.log(2)))


# --- DDPM --------------------------------------------------------------------------------------------------------


def ddpm(tour: Tour) -> None:
    """Train DDPMs on eight Gaussians and on digits."""
    tour.narrator.heading(
        "DDPM, equations (19)-(29)",
        "E‖ε − ε̂(ᾱ_t x₀ + β̄_t ε, t)‖² for every t;  KL(q(x_{0:T})‖p_θ(x_{0:T})) ≥ KL(q(x₀)‖p_θ(x₀))",
    )
    truth = datasets.eight_gaussians()
    model = tour.train(
        "ddpm",
        "DDPM, eight Gaussians, T = 100",
        DDPM(hidden=(128, 128), n_coordinate_features=3, n_steps=tour.steps(4000), standardize=False, rng=tour.seed),
        truth.sample(20000, tour.seed),
    )
    x, x_test = dequantized_digits(tour.seed)
    digits = tour.train(
        "ddpm_digits", "DDPM, digits, T = 100", DDPM(hidden=(256, 256, 256), n_steps=tour.steps(3000), rng=tour.seed), x
    )
    schedule, entropy = model.schedule_, truth.entropy()
    noise_grades = [NoiseGrade(0.0, 0.0)] + [
        grade_noise(truth, lambda p, t=t: model.eps_hat(p, t), schedule.alpha_bar[t], schedule.beta_bar[t])  # type: ignore[misc]
        for t in range(1, schedule.T + 1)
    ]
    bayes, excess = np.array(noise_grades).T
    second_moment = float(np.trace(truth.covariance()) + truth.mean() @ truth.mean())
    bound = negative_elbo(schedule, bayes + excess, second_moment, truth.dimension)
    best_bound = negative_elbo(schedule, bayes, second_moment, truth.dimension)
    chain = ddpm_density(model)
    chain_kl = chain.kl_from(truth.log_prob(chain.points))
    slack = 4.0 if tour.quick else 1.0
    tour.grade(
        "ddpm",
        [
            (
                "noise loss against the Bayes loss",
                float((bayes + excess)[1:].mean()),
                float(bayes[1:].mean()),
                0,
                0.01 * slack,
            ),
            ("−ELBO against the exact denoiser's", bound, best_bound, 0, 0.12 * slack),
            ("−ELBO against the entropy H(p)", bound, entropy, 0, 0.15 + 0.12 * slack),
            ("exact −E log p_θ against H(p)", entropy + chain_kl, entropy, 0, 0.1 * slack),
            ("−ELBO against exact −E log p_θ", bound, entropy + chain_kl, 0, 0.3 * slack),
        ],
    )
    tour.noise_grades["DDPM"] = np.log(schedule.snr[1:]), noise_grades[1:]
    tour.bits_per_dim["DDPM, T = 100: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))


def ddpm_density(model: DDPM) -> GridDensity:
    """Exact density of a trained two-dimensional DDPM: its T Gaussian steps followed on a grid."""
    schedule = model.schedule_
    std = np.sqrt(reverse_variance(schedule, model.variance))
    steps = [
        (lambda x, t=t: p_mean(schedule, t, x, model.eps_hat(x, t)), float(std[t])) for t in range(schedule.T, 0, -1)
    ]
    return chain_density(steps, model.n_features_in_)


# --- SDE ---------------------------------------------------------------------------------------------------------


def sde(tour: Tour) -> None:
    """Train score models on eight Gaussians and on digits; hold both sides of (34) against each other."""
    tour.narrator.heading(
        "Score SDE, equations (30)-(34)",
        "dx = [f − g² ∇log p_t] dt + g dw̄;  KL(p‖p_θ) ≤ ½∫g² E‖∇log p_t − s_θ‖² dt + KL(p_T‖π)",
    )
    truth = datasets.eight_gaussians()
    model = tour.train(
        "sde",
        "score model, eight Gaussians",
        ScoreSDE(
            hidden=(128, 128), n_coordinate_features=3, n_steps=tour.steps(4000), standardize=False, rng=tour.seed
        ),
        truth.sample(20000, tour.seed),
    )
    x, x_test = dequantized_digits(tour.seed)
    digits = tour.train(
        "sde_digits",
        "score model, digits",
        ScoreSDE(t_min=1e-2, weighting="noise", hidden=(256, 256, 256), n_steps=tour.steps(3000), rng=tour.seed),
        x,
    )
    process = model.sde_
    low, high = process.log_snr(np.array([process.horizon, model.t_min]))
    log_snr = np.linspace(low, high, 65)
    noise_grades = [score_grade(truth, model, float(t)) for t in process.time_at(log_snr)]
    bayes, excess = np.array(noise_grades).T
    start, end = diffuse(truth, process, model.t_min), diffuse(truth, process, process.horizon)
    prior_kl = mixture_kl(end, process.prior_log_prob)
    bound = kl_bound(
        process,
        lambda t: score_grade(truth, model, t).excess / float(process.std(t)) ** 2,
        prior_kl,
        model.t_min,
        n_nodes=32,
    )
    left = [kl_of_euler(start, model, n) for n in (50, 100)]
    other = datasets.gaussians_2d()
    equality = kl_bound(
        process,
        lambda t: score_distance(truth, other, process, t),
        mixture_kl(end, diffuse(other, process, process.horizon).log_prob),
        model.t_min,
        n_nodes=48,
    )
    slack = 4.0 if tour.quick else 1.0
    tour.grade(
        "sde",
        [
            ("noise loss against the Bayes loss", float((bayes + excess).mean()), float(bayes.mean()), 0, 0.01 * slack),
            ("(34): right side against KL(p‖p_θ)", bound, left[1], 0, 0.06 * slack),
            ("KL(p‖p_θ): 50 steps against 100", left[0], left[1], 0, 0.06),
            (
                "(34), s_θ = ∇log q_t: right = KL(p‖q)",
                equality,
                mixture_kl(start, diffuse(other, process, model.t_min).log_prob),
                -1e-6,
                1e-6,
            ),
        ],
    )
    tour.noise_grades["score model"] = log_snr, noise_grades
    tour.bits_per_dim["score SDE: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))


def diffuse(mixture: Mixture, process: LinearSDE, t: float) -> Mixture:
    """p_t of a mixture."""
    return mixture.diffuse(*process.level(t))


def score_grade(truth: Mixture, model: ScoreSDE, t: float) -> NoiseGrade:
    """`grade_noise` of a score model at time t."""
    return grade_noise(truth, lambda p: model.eps_hat(p, t), *model.sde_.level(t))


def score_distance(p: Mixture, q: Mixture, process: LinearSDE, t: float) -> float:
    """E_{p_t}‖∇log p_t − ∇log q_t‖², by quadrature."""
    p_t, q_t = diffuse(p, process, t), diffuse(q, process, t)
    points, weights = p_t.quadrature()
    return float((weights * np.exp(p_t.log_prob(points))) @ ((p_t.score(points) - q_t.score(points)) ** 2).sum(axis=1))


def mixture_kl(p: Mixture, log_q: Any) -> float:
    """KL(p‖q), nats, by quadrature, for log_q a function of points."""
    points, weights = p.quadrature()
    log_p = p.log_prob(points)
    return float((weights * np.exp(log_p)) @ (log_p - log_q(points)))


def kl_of_euler(start: Mixture, model: ScoreSDE, n_steps: int) -> float:
    """KL(p_{t_min}‖law of n Euler-Maruyama steps), the law followed exactly on a grid."""
    process = model.sde_
    times = reverse_times(process, n_steps, model.t_min, detail=float(np.sqrt(start.covariances[0, 0, 0]))).tolist()
    origin = np.zeros((1, start.dimension))
    steps = [
        (
            lambda x, t=t, s=s: euler_step(process, model.predict_score, x, t, s)[0],
            euler_step(process, model.predict_score, origin, t, s)[1],
        )
        for t, s in pairwise(times)
    ]
    density = chain_density(steps, start.dimension, process.prior_std)
    return density.kl_from(start.log_prob(density.points))


# --- digits ------------------------------------------------------------------------------------------------------


def compare_digits(tour: Tour) -> None:
    """Put every model of the digits on one scale, beside densities that are exact."""
    x, x_test = dequantized_digits(tour.seed)
    uniform = float(np.log2(17))
    gaussian = GaussianMixture(1).fit(x)
    rows = {"17 equal levels (exact)": uniform, "one Gaussian (exact)": bits_per_dim(gaussian.log_prob(x_test))}
    tour.bits_per_dim = rows | tour.bits_per_dim
    tour.narrator.heading(
        "Digits, 360 test images: bits per pixel, lower is better",
        "−log₂ p(k + u)/64 of dequantised images; ELBOs are upper bounds of it (reported, not graded)",
    )
    for name, value in tour.bits_per_dim.items():
        tour.narrator.say(f"  {name:<28}{value:.3f}")
