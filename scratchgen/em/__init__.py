"""Equations (15)-(18): EM as alternating minimisation of KL(p(x) q(z | x)‖p_θ(x, z)).

The model: a latent z whose posterior has a closed form, such as the component of a mixture or a factor.
Minimised: the joint KL of (10).  The E-step minimises it over q, (17): q(z | x) = p_θ(z | x), (18); the joint KL then
equals KL(p‖p_θ).  The M-step minimises it over θ with q held fixed: it maximises E_p E_q log p_θ(x, z), (15).
Exact: both steps.  After every E-step the bound is the likelihood, (16), which therefore never falls.
Lost: nothing in a step; but EM ends in a local maximum, which depends on the start.

In the deck's formula after (18) the distribution of z depends on the same θ; its maximum over θ would not be that of
the likelihood.

* `algorithm`: the EM loop, and both steps for a discrete z.
* `acceleration`: the same loop with longer steps.
* `gaussian`: the M-step of Gaussian mixtures.
* `categorical`: mixtures of categorical tables and their M-step.
* `linear_gaussian`: both steps of PPCA and factor analysis, with z ~ N(0, I) fixed as in the deck.
* `missing`: the E-steps for rows with missing values.
* `start`: k-means and the initial mixtures.
* `rate`: how fast EM converges, beyond the deck.

Read `algorithm` first, then `gaussian`.
"""

from scratchgen.em.acceleration import ACCELERATIONS, over_relaxed_em, relaxed_mixture, silver_step
from scratchgen.em.algorithm import Iterate, LatentLaw, e_step, em, free_energy, m_step_table
from scratchgen.em.categorical import (
    CategoricalLaw,
    TableStatistics,
    categorical_m_step,
    categorical_m_step_from_statistics,
    indicators,
    log_table_prior,
    table_statistics,
)
from scratchgen.em.gaussian import (
    COVARIANCE_TYPES,
    Prior,
    SufficientStatistics,
    covariance_maximum,
    floor_eigenvalues,
    floored_mixture,
    log_covariance_prior,
    m_step,
    m_step_from_statistics,
    sample_moments,
    statistics_of_labels,
    sufficient_statistics,
)
from scratchgen.em.linear_gaussian import factor_analysis_em_step, ppca_em_step, ppca_maximum
from scratchgen.em.missing import (
    CompletedRows,
    ObservedMixture,
    by_pattern,
    complete_rows,
    fill_with_means,
    impute,
    patterns,
    statistics_with_missing,
)
from scratchgen.em.rate import missing_fractions
from scratchgen.em.start import STARTS, clusters, kmeans, kmeans_plus_plus, nearest, some_rows, starting_mixture

__all__ = [
    "ACCELERATIONS",
    "COVARIANCE_TYPES",
    "STARTS",
    "CategoricalLaw",
    "CompletedRows",
    "Iterate",
    "LatentLaw",
    "ObservedMixture",
    "Prior",
    "SufficientStatistics",
    "TableStatistics",
    "by_pattern",
    "categorical_m_step",
    "categorical_m_step_from_statistics",
    "clusters",
    "complete_rows",
    "covariance_maximum",
    "e_step",
    "em",
    "factor_analysis_em_step",
    "fill_with_means",
    "floor_eigenvalues",
    "floored_mixture",
    "free_energy",
    "impute",
    "indicators",
    "kmeans",
    "kmeans_plus_plus",
    "log_covariance_prior",
    "log_table_prior",
    "m_step",
    "m_step_from_statistics",
    "m_step_table",
    "missing_fractions",
    "nearest",
    "over_relaxed_em",
    "patterns",
    "ppca_em_step",
    "ppca_maximum",
    "relaxed_mixture",
    "sample_moments",
    "silver_step",
    "some_rows",
    "starting_mixture",
    "statistics_of_labels",
    "statistics_with_missing",
    "sufficient_statistics",
    "table_statistics",
]
