"""VAE: linear VAEs against PPCA, one latent against quadrature, eight latents on digits."""

from __future__ import annotations

import numpy as np

from scratchgen import VAE, LinearVAE, Mixture, datasets
from scratchgen.grading import OneLatent, gaussian_gap, grade_linear_vae, grade_vae, nearest_gaussian
from scratchgen.likelihood import entropy_gaussian
from scratchgen.report.text import say
from scratchgen.report.tour import Tour, bits_per_dim, dequantized_digits, levels_of_digits, standardized_penguins
from scratchgen.report.transport import transport_decoder
from scratchgen.validation import Array


def vae(tour: Tour) -> None:
    """Linear VAEs, whose optimum is that of PPCA; a VAE with one latent, where the gaps are exact; and digits."""
    tour.begin("vae", "VAE, equations (11)-(14)", "−ELBO = E_q[−log p_θ(x|z)] + KL(q(z|x)‖N(0,I)) ≥ −log p_θ(x)")
    linear_vaes(tour)
    one_latent(tour)
    digits(tour)
    tour.show_grades("vae")


def linear_vaes(tour: Tour) -> None:
    """Train with learned s² and with given s², and grade both against PPCA."""
    penguins = standardized_penguins()
    model = tour.train("linear_vae", "linear VAE, 2 latents, penguins", LinearVAE(2, rng=tour.seed), penguins)
    grade = grade_linear_vae(model, penguins)
    tour.grade("vae", "linear: ELBO vs PPCA's maximum", grade.elbo, grade.maximum, -1e-6, 1e-6)
    tour.grade("vae", "linear: s² vs PPCA's σ²", grade.variance, grade.best_variance, -1e-4, 1e-4, "no unit")
    tour.grade("vae", "linear: angle to PPCA's plane", grade.angle, 0.0, -1e-4, 1e-4, "radians")
    model = LinearVAE(3, decoder_variance=0.5, rng=tour.seed)
    model = tour.train("collapsed_vae", "linear VAE, 3 latents, s² = ½, penguins", model, penguins)
    grade = grade_linear_vae(model, penguins)
    tour.grade("vae", "linear, s² = ½: ELBO vs maximum", grade.elbo, grade.maximum, -1e-4, 1e-4)
    tour.grade("vae", "linear, s² = ½: active ones", grade.n_active, grade.best_n_active, 0, 0, "latents")


# --- one latent --------------------------------------------------------------------------------------------------


def points_on_the_line(truth: Mixture) -> tuple[Array, Array]:
    """Quadrature points (M, 1) of p, and the probability mass of each (M,)."""
    points, weights = truth.quadrature(spacing=0.5)
    mass = weights * np.exp(truth.log_prob(points))
    seen = mass > 1e-9
    return points[seen], mass[seen]


def one_latent(tour: Tour) -> None:
    """Split the bound into the entropy, the KL of the model and the gap of the posterior, all by quadrature."""
    truth = datasets.gaussians_1d()
    model = VAE(1, (32, 32), decoder_variance=0.03, n_steps=tour.steps(3000), learning_rate=5e-3, rng=tour.seed)
    model = tour.train("one_latent", "VAE, 1 latent, three Gaussians", model, truth.sample(5000, tour.seed))
    entropy = truth.entropy()
    cross_entropy = entropy + truth.kl(lambda x: grade_vae(model, x).log_prob)
    points, mass = points_on_the_line(truth)
    gap, least = float(mass @ grade_vae(model, points).gap), float(mass @ gaussian_gap(model, points))
    bound = -float(mass @ model.elbo(points, tour.seed, n_draws=10_000))
    tour.grade("vae", "1 latent: −E log p_θ vs H(p)", cross_entropy, entropy, 0, 0.3 * tour.slack)
    tour.grade("vae", "1 latent: gap of q vs least of Gaussians", gap, least, 0, 0.1 * tour.slack)
    tour.grade("vae", "1 latent: −ELBO vs −E log p_θ + gap", bound, cross_entropy + gap, -0.02, 0.02)
    drawback(tour, truth)


def drawback(tour: Tour, truth: Mixture) -> None:
    """Cost of a Gaussian decoder and of a Gaussian posterior if f maps N(0, 1) to p: KL(p‖p_θ) and the least gap.

    Both vanish as s → 0.  On the line neither of the two Gaussians limits the VAE; the trained f does.
    """
    points, mass = points_on_the_line(truth)
    f = transport_decoder(truth)
    tour.drawback["best Gaussian"] = entropy_gaussian(truth.covariance()) - truth.entropy(), 0.0
    for s in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02):
        gaps = [nearest_gaussian(*joint)[2] for joint in OneLatent(f, 2 * np.log(s)).log_joints(points)]
        tour.drawback[f"s = {s:g}"] = truth.kl(truth.diffuse(1.0, s)), float(mass @ gaps)
    say("  The drawback of the VAE in the deck, for a decoder that maps N(0, 1) to p, with noise s (nats):")
    for name, (model_gap, least_gap) in tour.drawback.items():
        say(f"    {name:<16}KL(p‖p_θ) {model_gap:.6f}   least gap of a Gaussian q(z|x) {least_gap:.4f}")


# --- digits ------------------------------------------------------------------------------------------------------


def digits(tour: Tour) -> None:
    """Eight latents, with a decoder for real numbers and with one for 17 levels."""
    x, x_test = dequantized_digits(tour.seed)
    model = VAE(8, (128, 64), n_steps=tour.steps(2000), standardize="global", rng=tour.seed)
    real = tour.train("vae", "VAE, 8 latents, 1437 digits", model, x)
    levels, test_levels = levels_of_digits()
    model = VAE(8, (128, 64), n_levels=17, n_steps=tour.steps(2000), rng=tour.seed)
    binned = tour.train("vae_levels", "VAE, 8 latents, decoder in 17 bins", model, levels)
    ratio = float(real.decoder_variance_[0]) / mean_square(real, x, tour.seed)
    tour.grade("vae", "digits: s²/mean square", ratio, 1.0, -0.03 * tour.slack, 0.03 * tour.slack, "ratio")
    for name, fit, test in (("VAE, 8 latents", real, x_test), ("VAE, 8 latents, 17 bins", binned, test_levels)):
        tour.bits_per_dim[f"{name}: ELBO"] = bits_per_dim(fit.elbo(test, tour.seed))
        tour.bits_per_dim[f"{name}: IWAE-64"] = bits_per_dim(fit.iwae(test, tour.seed, n_draws=64))


def mean_square(model: VAE, x: Array, seed: int) -> float:
    """E‖x − decode(z)‖²/D with z ~ q(z | x): the optimal decoder variance s² for these networks."""
    mean, variance = model.encode(x)
    z = mean + np.sqrt(variance) * np.random.default_rng(seed).standard_normal(mean.shape)
    return float(((x - model.decode(z)) ** 2).mean())
