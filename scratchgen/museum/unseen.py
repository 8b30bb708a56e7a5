"""Wing one, last part: mistakes that no row sees, with the reason; property tests see each of them."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from scratchgen.em import floored_mixture
from scratchgen.likelihood import kl_diag_standard
from scratchgen.museum.chain import _tables
from scratchgen.museum.exhibit import Unseen


def _one_pass_covariance(x, log_resp, mixture, covariance_floor=0.0):
    resp = np.exp(log_resp)
    counts = resp.sum(axis=0)
    means = resp.T @ x / counts[:, None]
    second = np.einsum("nk,nd,ne->kde", resp, x, x) / counts[:, None, None]
    covariances = second - means[:, :, None] * means[:, None, :]
    return floored_mixture(counts / counts.sum(), means, covariances, covariance_floor)


def _clipped_log_variance(mean, log_variance):
    return kl_diag_standard(mean, np.clip(log_variance, -5, 5))


def _cancelling(variances):
    beta = np.sqrt(np.concatenate([[0.0], variances]))
    alpha_bar = np.cumprod(np.sqrt(1 - beta**2))
    return _tables(alpha_bar, np.sqrt(1 - alpha_bar**2), beta)


UNSEEN: tuple[Unseen, ...] = (
    Unseen(
        "covariances as E xxᵀ − m mᵀ, with cancellation",
        "scikit-learn #30382",
        "em.m_step",
        _one_pass_covariance,
        "the data of the row are near 0",
    ),
    Unseen(
        "log σ² is clipped to [−5, 5]",
        "mutation audit",
        "likelihood.kl_diag_standard",
        _clipped_log_variance,
        "every log σ² of the row is in this interval",
    ),
    Unseen(
        "β̄ = √(1 − ᾱ²), with cancellation",
        "mutation audit",
        "schedule.NoiseSchedule",
        _cancelling,
        "no β² of the row is small",
    ),
)
