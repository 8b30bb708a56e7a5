"""Helpers of several adapters: the factors of Karras et al., and covariances of a restricted form."""

from __future__ import annotations

from typing import Any

import numpy as np

from scratchgen import Mixture
from scratchgen.conformance import Check
from scratchgen.conformance.result import compare


def preconditioning(left: Any, sigma: Any, sigma_data: float) -> Check:
    """Karras et al. 2022, appendix B.6, from the covariance of (x_0, x): regression, residual, and unit variances."""
    slope = sigma_data**2 / (sigma_data**2 + sigma**2)  # of x_0 on x = x_0 + σ ε
    rest = np.sqrt((1 - slope) ** 2 * sigma_data**2 + slope**2 * sigma**2)  # of x_0 − slope x
    right = [slope, rest, 1 / np.sqrt(sigma_data**2 + sigma**2), np.log(sigma) / 4, 1 / rest**2]
    return compare("Karras et al. 2022, B.6", "", "the factors at three σ", left, right[: len(left)], 1e-12)


def restricted(mixture: Mixture, form: str) -> tuple[Any, Any, Any]:
    """Weights, means, and covariances of the form."""
    diagonal = mixture.covariances * np.eye(2)
    return (
        mixture.weights,
        mixture.means,
        {
            "full": mixture.covariances,
            "tied": np.broadcast_to(mixture.covariances[0], mixture.covariances.shape).copy(),
            "diag": diagonal,
            "spherical": np.trace(diagonal, axis1=1, axis2=2)[:, None, None] / 2 * np.eye(2),
        }[form],
    )


def compact(covariances: Any, form: str) -> Any:
    return {
        "full": covariances,
        "tied": covariances[0],
        "diag": np.diagonal(covariances, axis1=1, axis2=2),
        "spherical": covariances[:, 0, 0],
    }[form]
