"""Metrics of samples and models, each with its floor: the value of the metric for data against data.

* `laws`: Fréchet distance, maximum mean discrepancy, sliced W₂; `neighbours`: precision, recall, density, coverage,
  distances to the training data; `classifiers`: two-sample test, training on samples.
* `comparison`: a table of these metrics and their floors.
* `bits`: bits per dimension of whole numbers with standard errors, also with labels summed out.
* `distances`: distances between rows, by blocks of rows.
"""

from scratchgen.metrics.bits import Bits, cross_fitted_bound, label_summed_bits, model_bits
from scratchgen.metrics.classifiers import Accuracy, logistic_loss, train_on_synthetic, two_sample_accuracy
from scratchgen.metrics.comparison import Comparison, Estimate, compare
from scratchgen.metrics.laws import frechet_distance, median_bandwidth, mmd2, sliced_wasserstein2
from scratchgen.metrics.neighbours import (
    DensityCoverage,
    Memorisation,
    PrecisionRecall,
    count_copies,
    density_coverage,
    expected_coverage,
    nearest_train_ratio,
    precision_recall,
)

__all__ = [
    "Accuracy",
    "Bits",
    "Comparison",
    "DensityCoverage",
    "Estimate",
    "Memorisation",
    "PrecisionRecall",
    "compare",
    "count_copies",
    "cross_fitted_bound",
    "density_coverage",
    "expected_coverage",
    "frechet_distance",
    "label_summed_bits",
    "logistic_loss",
    "median_bandwidth",
    "mmd2",
    "model_bits",
    "nearest_train_ratio",
    "precision_recall",
    "sliced_wasserstein2",
    "train_on_synthetic",
    "two_sample_accuracy",
]
