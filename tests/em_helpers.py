"""Data and helpers for the tests of EM and its models."""

import numpy as np
import pytest
from hypothesis import strategies as st

from scratchgen.em import COVARIANCE_TYPES
from scratchgen.testing import cut, reals, size

at_floor = pytest.mark.filterwarnings("ignore:components .* have collapsed:RuntimeWarning")
every_type = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


def three_blobs(n=60, seed=0, spread=1.0):
    """Three overlapping groups in two dimensions."""
    rng = np.random.default_rng(seed)
    centres = 3.0 * np.array([[0, 0], [1, 0.5], [0.3, 1.2]])
    return centres[rng.integers(3, size=n)] + spread * rng.standard_normal((n, 2))


def blobs(n=60, D=3, seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((3, D))
    scales = 0.4 + rng.random((3, D))
    labels = np.arange(n) % 3
    return centres[labels] + scales[labels] * rng.standard_normal((n, D)) + 0.3 * rng.standard_normal((n, 1))


def rise(values):
    """The smallest step of a sequence, relative to 1 + |value|; a sequence that never falls has >= −rounding."""
    values = np.asarray(values)
    return np.min(np.diff(values) / (1 + np.abs(values[1:])), initial=np.inf)


def hard_data():
    rng = np.random.default_rng(12)
    plain = rng.standard_normal((24, 3))
    return {
        "plain, K=1": (plain, 1),
        "plain, K=3": (plain, 3),
        "K=N": (plain[:6], 6),
        "one point": (plain[:1], 1),
        "one column": (plain[:, :1], 2),
        "duplicates": (np.ones((9, 3)), 2),
        "duplicates of what floats cannot hold": (np.tile([0.1, 0.2, 0.3], (7, 1)), 2),
        "two atoms": (np.repeat([[0.1, 0.2], [5.1, -0.3]], 8, axis=0), 2),
        "constant column": (plain * [1.0, 0.0, 1.0], 2),
        "outlier at 1e3": (np.concatenate([plain, [[1e3, 0.0, 0.0]]]), 2),
        "offset 2^10": (plain + 2.0**10, 2),
        "offset 2^20": (plain + 2.0**20, 2),
        "offset 1e8": (plain + 1e8, 2),
        "scale 1e-6": (plain * 1e-6, 2),
        "scale 1e6": (plain * 1e6, 2),
        "below the floor": (plain * 1e-9, 3),
    }


def data_with_covariance(S, mean):
    """2D points with exactly this sample mean and covariance (1/N): mean ± √D L e_i."""
    steps = np.sqrt(len(S)) * np.linalg.cholesky(S).T
    return mean + np.concatenate([steps, -steps])


def symmetric(S):
    return 0.5 * (S + S.T)


def name_cases(cases):
    """Parameters with short ids: the name of the argument and the number of the case."""
    return [pytest.param(*case, id=f"{case[2]}-{i}") for i, case in enumerate(cases)]


X2 = np.arange(8.0).reshape(4, 2)


@st.composite
def spectra(draw):
    """(covariance, mean, k, eigenvalues in descending order), with λ_k at least 1e-3 above the noise."""
    k = draw(st.integers(1, 3))
    D = k + draw(st.integers(1, 3))
    values, mean, A = cut(draw(reals(size((D,), (D,), (D, D)), -1, 1)), (D,), (D,), (D, D))
    values = np.sort(2.55 + 2.45 * values)[::-1]
    values[:k] += 1e-2
    U, _ = np.linalg.qr(A + 2 * np.eye(D))
    return (U * values) @ U.T, 5 * mean, k, values
