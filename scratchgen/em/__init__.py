"""Equations (15)-(18): EM as alternating minimisation of KL(p(x) q(z|x)‖p_θ(x, z)).

The E-step takes q(z | x) = p_θ(z | x), (18), after which the joint KL equals KL(p‖p_θ); the M-step maximises
E_p E_q log p_θ(x, z) over θ with q frozen, (15).  (The deck's formula after (18) lets θ vary in the sampling law too,
which would not maximise the likelihood.)

`steps` has the two steps of a Gaussian mixture, `moments` both in one pass, `gaussian` its estimator; `factors` has
PPCA and factor analysis, where z ~ N(0, I) is fixed as in the deck; `categorical` mixtures of tables for whole numbers.
"""

from scratchgen.em.categorical import CategoricalMixture
from scratchgen.em.factors import PPCA, FactorAnalysis, factor_analysis_em_step, ppca_em_step, ppca_maximum
from scratchgen.em.gaussian import GaussianMixture
from scratchgen.em.moments import Moments, expected_moments, moments_of_labels
from scratchgen.em.steps import (
    covariance_maximum,
    e_step,
    floor_eigenvalues,
    floored_mixture,
    free_energy,
    kmeans,
    kmeans_plus_plus,
    log_covariance_prior,
    m_step,
    m_step_table,
    maximum,
)

__all__ = [
    "PPCA",
    "CategoricalMixture",
    "FactorAnalysis",
    "GaussianMixture",
    "Moments",
    "covariance_maximum",
    "e_step",
    "expected_moments",
    "factor_analysis_em_step",
    "floor_eigenvalues",
    "floored_mixture",
    "free_energy",
    "kmeans",
    "kmeans_plus_plus",
    "log_covariance_prior",
    "m_step",
    "m_step_table",
    "maximum",
    "moments_of_labels",
    "ppca_em_step",
    "ppca_maximum",
]
