"""The main job: EM → VAE → DDPM → SDE, each trained on real data and graded against an exact answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from scipy.special import chdtri

from scratchgen import DDPM, PPCA, VAE, CategoricalMixture, GaussianMixture, ScoreSDE, datasets, likelihood
from scratchgen.ddpm import negative_elbo
from scratchgen.estimator import Estimator
from scratchgen.grading import NoiseGrade, ancestral_density, euler_density, grade_noise
from scratchgen.likelihood import entropy_gaussian
from scratchgen.report.console import Grade, Narrator
from scratchgen.sde import kl_bound, reverse_times
from scratchgen.validation import Array

FALSE_ALARM = 1e-7  # of the tolerance that rests on chance

Model = TypeVar("Model", bound=Estimator)


@dataclass
class Tour:
    """Everything a tour made: what the figures and metrics.json show."""

    seed: int
    quick: bool
    narrator: Narrator
    grades: list[Grade] = field(default_factory=list)
    models: dict[str, Any] = field(default_factory=dict)
    bits_per_dim: dict[str, float] = field(default_factory=dict)
    noise_grades: dict[str, tuple[Array, list[NoiseGrade]]] = field(default_factory=dict)

    def steps(self, n: int) -> int:
        """Training steps: n, or a fifth of it for a quick tour."""
        return n // 5 if self.quick else n

    @property
    def slack(self) -> float:
        """Factor of the tolerances that rest on training: 1, or 4 for a quick tour."""
        return 4.0 if self.quick else 1.0

    def train(self, name: str, label: str, model: Model, x: Array) -> Model:
        """Train a model and keep it under `name`."""
        self.models[name] = self.narrator.train(label, model, x)
        return model

    def grade(self, chapter: str, quantity: str, measured: float, exact: float, low: float, high: float) -> None:
        """Record one comparison; it passes if low <= measured − exact <= high."""
        self.grades.append(Grade(chapter, quantity, float(measured), float(exact), low, high))

    def show_grades(self, chapter: str) -> None:
        """Print the table of one chapter."""
        self.narrator.grades([grade for grade in self.grades if grade.chapter == chapter])


def run(tour: Tour) -> None:
    """Run the four chapters and the comparison on digits."""
    em(tour)
    vae(tour)
    ddpm(tour)
    sde(tour)
    compare_digits(tour)


# --- data --------------------------------------------------------------------------------------------------------


def standardized_penguins() -> Array:
    """The four penguin measurements, each to mean 0 and variance 1, (342, 4)."""
    measurements = datasets.penguins().measurements
    return (measurements - measurements.mean(axis=0)) / measurements.std(axis=0)


def dequantized_digits(seed: int) -> tuple[Array, Array]:
    """Training (1437, 64) and test (360, 64) digits as continuous data on [0, 17)."""
    x, x_test = (datasets.digits(split).images for split in ("train", "test"))
    return datasets.dequantize(x, rng=seed), datasets.dequantize(x_test, rng=seed + 1)


def bits_per_dim(log_prob: Array) -> float:
    """−mean log p(k + u)/(64 ln 2), an upper bound of −log₂ P(k)/64 of the 17-level images; or that, from log P(k)."""
    return float(likelihood.bits_per_dim(-log_prob.mean(), 64))


# --- EM ----------------------------------------------------------------------------------------------------------


def em(tour: Tour) -> None:
    """Fit mixtures to a known 2-D mixture and to penguins."""
    tour.narrator.heading(
        "EM, equations (15)-(18)",
        "q(z|x) ← p_θ(z|x);  θ ← argmax E_p E_q log p_θ(x,z);  then ELBO = log p_θ(x)",
    )
    truth = datasets.gaussians_2d()
    x = truth.sample(5000, tour.seed)
    K, D = truth.means.shape
    model = GaussianMixture(K, tol=1e-9, max_iter=1000, n_init=3, rng=tour.seed)
    fitted = tour.train("mixture", f"{K} Gaussians, 5000 points in 2-D", model, x)
    penguins = standardized_penguins()
    model = GaussianMixture(3, tol=1e-9, max_iter=1000, n_init=3, rng=tour.seed)
    species = tour.train("penguins", "3 Gaussians, 342 penguins", model, penguins)
    single = GaussianMixture(1).fit(penguins)

    # Twice the log-likelihood ratio of fit and truth is χ² with as many degrees of freedom as the mixture has
    # parameters (Wilks), so that the fit must beat the truth on its own sample, by no more than this:
    n_parameters = K - 1 + K * D + K * D * (D + 1) // 2
    wilks = float(chdtri(n_parameters, FALSE_ALARM)) / (2 * len(x))
    tour.grade("em", "2-D: log p_θ vs generator", fitted.score(x), truth.log_prob(x).mean(), 0, wilks)
    tour.grade("em", "2-D: ELBO vs log p_θ", fitted.elbo(x).mean(), fitted.score(x), -1e-9, 1e-9)
    tour.grade("em", "penguins: ELBO vs log p_θ", species.elbo(penguins).mean(), species.score(penguins), -1e-9, 1e-9)
    fall = min(float(np.diff(species.lower_bounds_).min()), 0.0)
    tour.grade("em", "penguins: log p_θ falls by", fall, 0.0, -1e-9, 1e-9)
    entropy = entropy_gaussian(np.cov(penguins.T, bias=True))
    tour.grade("em", "penguins, K = 1: log p_θ vs −H", single.score(penguins), -entropy, -1e-9, 1e-9)
    tour.show_grades("em")


# --- VAE ---------------------------------------------------------------------------------------------------------


def vae(tour: Tour) -> None:
    """Train a linear VAE, whose optimum is PPCA, and a nonlinear one on digits."""
    tour.narrator.heading("VAE, equations (11)-(14)", "−ELBO = E_q[−log p_θ(x|z)] + KL(q(z|x)‖N(0,I)) ≥ −log p_θ(x)")
    penguins = standardized_penguins()
    linear = VAE(2, (), latent_noise="sigma", batch_size=None, learning_rate=1e-2, dtype="float64", rng=tour.seed)
    linear = tour.train("linear_vae", "linear VAE, 2 latents, penguins", linear, penguins)
    x, x_test = dequantized_digits(tour.seed)
    model = VAE(8, (128, 64), n_steps=tour.steps(2000), rng=tour.seed)
    digits = tour.train("vae", "VAE, 8 latents, 1437 digits", model, x)
    levels, test_levels = (datasets.digits(split).images for split in ("train", "test"))
    model = VAE(8, (128, 64), n_levels=17, n_steps=tour.steps(2000), rng=tour.seed)
    binned = tour.train("vae_levels", "VAE, 8 latents, decoder in 17 bins", model, levels)

    optimum = PPCA(2).fit(penguins)
    maximum = optimum.score(penguins)
    tour.grade("vae", "linear: ELBO vs PPCA's maximum", linear.elbo(penguins).mean(), maximum, -1e-6, 1e-6)
    tour.grade(
        "vae", "linear: s² vs PPCA's σ²", float(linear.decoder_variance_), float(optimum.noise_variance_), -1e-4, 1e-4
    )
    ratio = float(digits.decoder_variance_) / mean_square(digits, x, tour.seed)
    tour.grade("vae", "digits: s²/mean square", ratio, 1.0, -0.03 * tour.slack, 0.03 * tour.slack)
    tour.show_grades("vae")
    tour.bits_per_dim["VAE, 8 latents: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))
    tour.bits_per_dim["VAE, 8 latents: IWAE-64"] = bits_per_dim(digits.iwae(x_test, 64, tour.seed))
    tour.bits_per_dim["VAE, 8 latents, 17 bins: ELBO"] = bits_per_dim(binned.elbo(test_levels, tour.seed))
    tour.bits_per_dim["VAE, 8 latents, 17 bins: IWAE-64"] = bits_per_dim(binned.iwae(test_levels, 64, tour.seed))


def mean_square(model: VAE, x: Array, seed: int) -> float:
    """E‖x − decode(z)‖²/D with z ~ q(z | x): the best decoder variance s² for these networks."""
    mean, variance = model.encode(x)
    z = mean + np.sqrt(variance) * np.random.default_rng(seed).standard_normal(mean.shape)
    return float(((x - model.decode(z)) ** 2).mean())


# --- DDPM --------------------------------------------------------------------------------------------------------


def ddpm(tour: Tour) -> None:
    """Train DDPMs on eight Gaussians and on digits; climb from the entropy to the likelihood to the bound."""
    tour.narrator.heading(
        "DDPM, equations (19)-(29)",
        "min E‖ε − ε̂(ᾱ_t x₀ + β̄_t ε, t)‖²;  −ELBO − H(p) = KL(q(x_{0:T})‖p_θ(x_{0:T})) ≥ KL(p‖p_θ)",
    )
    truth = datasets.eight_gaussians()
    model = DDPM(hidden=(128, 128), n_coordinate_features=3, n_steps=tour.steps(4000), standardize=False, rng=tour.seed)
    model = tour.train("ddpm", "DDPM, eight Gaussians, T = 100", model, truth.sample(20000, tour.seed))
    x, x_test = dequantized_digits(tour.seed)
    digits = DDPM(hidden=(256, 256, 256), n_steps=tour.steps(3600), batch_size=128, rng=tour.seed)
    digits = tour.train("ddpm_digits", "DDPM, 1437 digits, T = 100", digits, x)

    schedule, entropy, D = model.schedule_, truth.entropy(), truth.dimension

    def noise_grade(t: int) -> NoiseGrade:
        return grade_noise(truth, lambda p: model.eps_hat(p, t), schedule.alpha_bar[t], schedule.beta_bar[t])

    nothing = NoiseGrade(0.0, 0.0)  # index 0 is clean data, where no noise is predicted
    grades = [nothing] + [noise_grade(t) for t in range(1, schedule.T + 1)]
    bayes, excess = np.array(grades).T
    second_moment = float(np.trace(truth.covariance()) + truth.mean() @ truth.mean())
    bound = negative_elbo(schedule, bayes + excess, second_moment, D)
    best_bound = negative_elbo(schedule, bayes, second_moment, D)
    chain = ancestral_density(schedule, model.eps_hat, D)
    cross_entropy = entropy + chain.kl_from(truth.log_prob(chain.points))
    tour.grade("ddpm", "noise loss vs Bayes loss", (bayes + excess)[1:].mean(), bayes[1:].mean(), 0, 0.01 * tour.slack)
    tour.grade("ddpm", "−ELBO vs exact denoiser's", bound, best_bound, 0, 0.12 * tour.slack)
    tour.grade("ddpm", "−ELBO vs entropy H(p)", bound, entropy, 0, best_bound - entropy + 0.12 * tour.slack)
    tour.grade("ddpm", "exact −E log p_θ vs H(p)", cross_entropy, entropy, 0, 0.1 * tour.slack)
    tour.grade("ddpm", "−ELBO vs exact −E log p_θ", bound, cross_entropy, 0, best_bound - entropy + 0.12 * tour.slack)
    tour.show_grades("ddpm")
    tour.noise_grades["DDPM"] = np.log(schedule.snr[1:]), grades[1:]
    tour.bits_per_dim["DDPM, T = 100: ELBO"] = bits_per_dim(digits.elbo(x_test, tour.seed))


# --- SDE ---------------------------------------------------------------------------------------------------------


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
    x, x_test = dequantized_digits(tour.seed)
    digits = ScoreSDE(
        t_min=1e-2,
        weighting="noise",
        hidden=(256, 256, 256),
        n_steps=tour.steps(3600),
        batch_size=128,
        rng=tour.seed,
    )
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


# --- digits ------------------------------------------------------------------------------------------------------


def compare_digits(tour: Tour) -> None:
    """Put every model of the digits on one scale, beside densities that are exact."""
    x, x_test = dequantized_digits(tour.seed)
    gaussian = GaussianMixture(1).fit(x)
    exact = {
        "17 equal levels (exact)": float(np.log2(17)),
        "one Gaussian (exact)": bits_per_dim(gaussian.log_prob(x_test)),
        "pixel histograms (exact)": bits_of_pixel_histograms(),
        "mixture of 20 histograms (exact)": bits_of_tables(tour.seed),
    }
    tour.bits_per_dim = exact | tour.bits_per_dim
    tour.narrator.heading(
        "Digits, 360 test images: bits per pixel, lower is better",
        "−log₂ p(k + u)/64 of dequantised images, or −log₂ P(k)/64; an ELBO bounds it from above",
    )
    for name, value in tour.bits_per_dim.items():
        tour.narrator.say(f"  {name:<36}{value:.3f}")


def bits_of_tables(seed: int) -> float:
    """−log₂ P/64 of test digits under a mixture of 20 tables of 17 levels a pixel, by EM."""
    train, test = (datasets.digits(split).images for split in ("train", "test"))
    model = CategoricalMixture(20, n_levels=17, smoothing=20, rng=seed).fit(train)
    return bits_per_dim(model.log_prob(test))


def bits_of_pixel_histograms() -> float:
    """−log₂ P/64 of test digits when every pixel has its own table of 17 levels, counted on the training digits.

    Half a count is added everywhere, so that no level is impossible.
    """
    train, test = (datasets.digits(split).images.astype(int) for split in ("train", "test"))
    counts = 0.5 + np.array([np.bincount(pixel, minlength=17) for pixel in train.T])
    log_prob = np.log(counts / counts.sum(axis=1, keepdims=True))
    return bits_per_dim(log_prob[np.arange(64), test].sum(axis=1))
