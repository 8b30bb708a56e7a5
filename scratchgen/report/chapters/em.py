"""EM: mixtures on a known distribution and on penguins; PPCA and factor analysis as alternating minimisation."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri

from scratchgen import PPCA, FactorAnalysis, GaussianMixture, datasets
from scratchgen.likelihood import entropy_gaussian, kl_gaussian
from scratchgen.models.linear_gaussian import LinearGaussianModel
from scratchgen.report.tour import Tour, standardized_penguins
from scratchgen.validation import Array

FALSE_ALARM = 1e-7  # probability that a correct fit exceeds the random tolerance


def em(tour: Tour) -> None:
    """Fit mixtures to a known 2-D mixture and to penguins; fit factor models to penguins, half-step by half-step."""
    tour.begin(
        "em",
        "EM, equations (15)-(18)",
        "q(z|x) ← p_θ(z|x)\nθ ← argmax E_p E_q log p_θ(x,z)\nthen ELBO = log p_θ(x)",
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

    # Wilks: twice the log-likelihood ratio of fit and truth is χ² with one degree of freedom per parameter.  On its own
    # sample the fit exceeds the truth, and by no more than this quantile:
    n_parameters = K - 1 + K * D + K * D * (D + 1) // 2
    wilks = float(chdtri(n_parameters, FALSE_ALARM)) / (2 * len(x))
    tour.grade("em", "2-D: log p_θ vs generator", fitted.score(x), truth.log_prob(x).mean(), 0, wilks)
    tour.grade("em", "2-D: ELBO vs log p_θ", fitted.elbo(x).mean(), fitted.score(x), -1e-9, 1e-9)
    tour.grade("em", "penguins: ELBO vs log p_θ", species.elbo(penguins).mean(), species.score(penguins), -1e-9, 1e-9)
    fall = min(float(np.diff(species.lower_bounds_).min()), 0.0)
    tour.grade("em", "penguins: log p_θ falls by", fall, 0.0, -1e-9, 1e-9)
    entropy = entropy_gaussian(np.cov(penguins.T, bias=True))
    tour.grade("em", "penguins, K = 1: log p_θ vs −H", single.score(penguins), -entropy, -1e-9, 1e-9)

    ppca = tour.train("ppca", "PPCA by EM, 2 factors, penguins", PPCA(2, "em", tol=1e-13, rng=tour.seed), penguins)
    one_factor = FactorAnalysis(1, rng=tour.seed)  # 610 iterations; tol = 1e-9 needs 22 000, for 7e-4 nats
    factors = tour.train("factors", "factor analysis by EM, 1 factor, penguins", one_factor, penguins)
    maximum = PPCA(2).fit(penguins).score(penguins)
    tour.grade("em", "PPCA: log p_θ vs closed form", ppca.score(penguins), maximum, -1e-9, 1e-9)
    fits: dict[str, LinearGaussianModel] = {"PPCA": ppca, "factors": factors}
    for name, fit in fits.items():
        joint_kl = joint_kl_path(fit, penguins)
        tour.grade("em", f"{name}: joint KL vs KL(p‖p_θ)", joint_kl[-1], data_kl(fit, penguins), -1e-9, 1e-9)
        tour.grade("em", f"{name}: joint KL rises by", max(float(np.diff(joint_kl).max()), 0.0), 0.0, -1e-9, 1e-9)
    tour.show_grades("em")


def joint_kl_path(model: LinearGaussianModel, x: Array) -> Array:
    """KL(p(x) q(z|x)‖p_θ(x, z)) after every half-step E M E …, nats; p is the Gaussian with the moments of the data."""
    return -model.free_energies_ - entropy_gaussian(np.cov(x.T, bias=True))


def data_kl(model: LinearGaussianModel, x: Array) -> float:
    """KL(p‖p_θ) for the same p; it equals the joint KL after an E-step."""
    return kl_gaussian(x.mean(axis=0), np.cov(x.T, bias=True), model.mean_, model.covariance())
