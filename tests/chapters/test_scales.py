"""Standard deviations, variances and widths that are not positive are errors in every chapter, never NaN."""

import numpy as np
import pytest

from scratchgen import ddpm, em, likelihood, sde, variational
from scratchgen.datasets import eight_gaussians
from scratchgen.mixture import Mixture
from scratchgen.schedule import NoiseSchedule

X = np.array([[0.3, -1.2, 0.7], [1.1, 0.4, -0.5], [0.0, 2.0, -1.0], [-0.8, 0.1, 0.6]])
W = np.array([[1.0, 0.2], [0.5, -0.7], [-0.3, 0.4]])
LEVELS = np.array([[0, 1, 3], [2, 2, 0], [1, 3, 3], [0, 2, 1]])
MEANS, SPREAD = X[:, :2], np.array([[1.5, 0.3, 0.0], [0.3, 1.2, 0.1], [0.0, 0.1, 0.9]])
PLANE = Mixture([0.4, 0.6], [[0.0, 1.0], [1.0, -1.0]], [np.eye(2), 0.5 * np.eye(2)])
SCHEDULE = NoiseSchedule.linear(10)
ONE_EACH = [1.0, 1.0, 1.0]

POSITIVE = {  # functions of one number that must be positive
    "log_bin_mass, std": lambda v: likelihood.log_bin_mass(LEVELS, X, v, 4),
    "log_bin_mass, one std": lambda v: likelihood.log_bin_mass(LEVELS, X, np.array([1.0, v, 1.0]), 4),
    "bits_per_dim, scale": lambda v: likelihood.bits_per_dim(1.0, 3, v),
    "linear_gaussian_posterior": lambda v: variational.linear_gaussian_posterior(X, W, X[0], v),
    "linear_gaussian_mean_field": lambda v: variational.linear_gaussian_mean_field(X, W, X[0], v),
    "linear_gaussian_log_prob": lambda v: variational.linear_gaussian_log_prob(X, W, X[0], v),
    "linear_gaussian_elbo": lambda v: variational.linear_gaussian_elbo(X, W, X[0], v, MEANS, np.eye(2)),
    "linear_gaussian_elbo, one": lambda v: variational.linear_gaussian_elbo(
        X, W, X[0], np.array([1.0, v, 1.0]), MEANS, np.eye(2)
    ),
    "ppca_em_step": lambda v: em.ppca_em_step(SPREAD, W, v),
    "factor_analysis_em_step": lambda v: em.factor_analysis_em_step(SPREAD, W, np.array([1.0, v, 1.0])),
    "denoising_error": lambda v: sde.denoising_error(X, X, v),
    "denoising_score_matching": lambda v: sde.denoising_score_matching(X, X, np.array([*ONE_EACH, v])),
    "denoiser_to_score": lambda v: sde.denoiser_to_score(X, X, 1.0, v),
    "tweedie_covariance": lambda v: sde.tweedie_covariance(PLANE.score, MEANS, 1.0, v),
    "tilted_score": lambda v: sde.tilted_score(PLANE, [0.5, 0.2], 2.0, MEANS, 1.0, v),
    "edm_coefficients, sigma": sde.edm_coefficients,
    "edm_coefficients, data_std": lambda v: sde.edm_coefficients(1.0, v),
    "edm_sigmas": lambda v: sde.edm_sigmas(4, v),
    "eight_gaussians": lambda v: eight_gaussians(1.0, v),
    "quadrature, spacing": PLANE.quadrature,
    "quadrature, width": lambda v: PLANE.quadrature(0.5, v),
    "reverse_variance": lambda v: ddpm.reverse_variance(SCHEDULE, np.full(11, v)),
    "exponential_step": lambda v: sde.exponential_step(X, X, (1.0, v), (1.0, 0.1)),
    "CategoricalLaw.denoise": lambda v: em.CategoricalLaw([1.0], np.full((1, 3, 4), 0.25)).denoise(X, 1.0, v),
}
NOT_NEGATIVE = {
    "ppca_maximum": lambda v: em.ppca_maximum(SPREAD, 2, v),
    "factor_analysis_em_step, floor": lambda v: em.factor_analysis_em_step(SPREAD, W, np.ones(3), v),
    "floor_eigenvalues": lambda v: em.floor_eigenvalues(SPREAD, v),
    "covariance_maximum, floor": lambda v: em.covariance_maximum(SPREAD[None], np.ones(1), "diag", v),
    "covariance_maximum, prior's variance": lambda v: em.covariance_maximum(SPREAD[None], np.ones(1), prior=(v, 1.0)),
    "covariance_maximum, prior's count": lambda v: em.covariance_maximum(SPREAD[None], np.ones(1), prior=(1.0, v)),
    "log_covariance_prior, variance": lambda v: em.log_covariance_prior(SPREAD[None], (v, 1.0)),
    "log_covariance_prior, count": lambda v: em.log_covariance_prior(SPREAD[None], (1.0, v)),
    "Mixture.diffuse": lambda v: PLANE.diffuse(1.0, v),
    "expectation, rtol": lambda v: PLANE.expectation(lambda x: x, rtol=v),
    "euler_maruyama": lambda v: list(
        sde.euler_maruyama(sde.VP(), lambda x, t: -x, X, np.array([1.0, 0.5]), np.random.default_rng(0), None, v)
    ),
}


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", POSITIVE)
def test_what_must_be_positive_is_checked(name, value):
    with pytest.raises(ValueError, match=r"must be .*(positive|\(0\.0|\[0\.1|\[1e-[36]0|finite)"):
        POSITIVE[name](value)
    POSITIVE[name](0.5)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", NOT_NEGATIVE)
def test_what_must_not_be_negative_is_checked(name, value):
    with pytest.raises(ValueError, match=r"must be .*(not negative|\[0\.0)"):
        NOT_NEGATIVE[name](value)
    NOT_NEGATIVE[name](0.0)
    NOT_NEGATIVE[name](0.5)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_slopes_of_the_bins_refuse_a_std_that_is_not_positive_but_let_a_nan_pass(std):
    """Training sees from a NaN that its parameters have diverged."""
    with pytest.raises(ValueError, match=r"^std must be positive and finite, got "):
        likelihood.log_bin_mass_slopes(LEVELS, X, std, 4)
    assert np.isnan(likelihood.log_bin_mass_slopes(LEVELS, X, np.nan, 4)[0]).all()


def test_the_optimal_variance_needs_a_finite_loss_of_every_step():
    losses = np.ones(11)
    assert ddpm.optimal_reverse_variance(SCHEDULE, losses, 3).shape == (11,)
    for wrong in losses[:10], np.where(np.arange(11) == 4, np.nan, losses):
        with pytest.raises(ValueError, match=r"^noise_loss must be 11 numbers, or \(11, 3\), finite from index 1"):
            ddpm.optimal_reverse_variance(SCHEDULE, wrong, 3)
    with pytest.raises(ValueError, match=r"^dimension must be at least 1"):
        ddpm.optimal_reverse_variance(SCHEDULE, losses, 0)


@pytest.mark.parametrize("q", [3, None, "PLANE", [0.5]])
def test_kl_from_what_is_no_density_is_a_type_error(q):
    with pytest.raises(TypeError, match=r"^q must be a Mixture or a function log q\(x\), .*, got "):
        PLANE.kl(q)


@pytest.mark.parametrize("log_q", [lambda x: 3.0, lambda x: x, lambda x: np.zeros((len(x), 1))])
def test_kl_needs_one_logarithm_for_every_point(log_q):
    """A number, and a column, would be broadcast."""
    with pytest.raises(ValueError, match=r"^q must return log q\(x\) of shape \(\d+,\) for x \(\d+, 2\), got "):
        PLANE.kl(log_q)


@pytest.mark.parametrize("stochasticity", [1e7, 1e300])
def test_a_stochasticity_whose_square_overflows_is_refused(stochasticity):
    with pytest.raises(ValueError, match=r"^stochasticity must be in \[0\.0, 1000000\.0\]"):
        NOT_NEGATIVE["euler_maruyama"](stochasticity)
    with pytest.raises(ValueError, match=r"^stochasticity must be in \[0\.0, 1000000\.0\]"):
        sde.exponential_step(X, X, (1.0, 0.5), (1.0, 0.1), stochasticity, X)


def test_a_sampler_that_overflows_stops_with_the_time():
    start, times = X.astype(np.float32), np.linspace(1, 0.1, 5)
    steps = sde.euler_maruyama(sde.VP(), lambda x, t: 1e30 * x, start, times, stochasticity=0.0)
    with pytest.raises(ArithmeticError, match=r"^x is not finite at t = .*; take more steps, or lower stochasticity"):
        list(steps)
