"""PPCA and factor analysis: x = W z + μ + noise with q(z) = N(0, I) fixed as in the deck, both steps in closed form."""

import numpy as np

from scratchgen.validation import Array


def ppca_maximum(covariance: Array, n_components: int, noise_variance: float | None = None) -> tuple[Array, float]:
    """The maximum-likelihood W, (D, k), and σ² of x = W z + μ + σ ε (Tipping and Bishop 1999).

        W = U_k max(Λ_k − σ² I, 0)^½,   σ² = mean of the D − k smallest eigenvalues of the covariance

    U_k and Λ_k are the k leading eigenvectors and eigenvalues.

    Parameters
    ----------
    covariance : (D, D)
        Sample covariance with the factor 1/N.
    n_components : int
        k; below D if σ² is estimated.
    noise_variance : float, optional
        A given σ².  Directions with eigenvalues up to σ² then have W = 0.

    Raises
    ------
    ValueError
        If σ² is estimated and k is not in 1..D−1.
    """
    values, vectors = np.linalg.eigh(covariance)
    if noise_variance is None and not 0 < n_components < len(values):
        raise ValueError(f"n_components must be in 1..{len(values) - 1} to leave directions for σ², got {n_components}")
    if noise_variance is None:
        noise_variance = float(values[:-n_components].mean())
    excess = np.maximum(values[::-1][:n_components] - noise_variance, 0.0)
    return vectors[:, ::-1][:, :n_components] * np.sqrt(excess), noise_variance


def ppca_em_step(covariance: Array, W: Array, noise_variance: float) -> tuple[Array, float]:
    """One E-step and one M-step of PPCA, (15)-(18) with q(z) = N(0, I) fixed: W', (D, k), and σ²'.

        W' = S W (σ² I + M⁻¹ WᵀS W)⁻¹,   σ²' = tr(S − S W M⁻¹ W'ᵀ)/D,   M = WᵀW + σ² I

    Parameters
    ----------
    covariance : (D, D)
        Sample covariance S.
    W : (D, k)
    noise_variance : float
        σ².
    """
    M = W.T @ W + noise_variance * np.eye(W.shape[1])
    SW = covariance @ W
    new_W = np.linalg.solve((noise_variance * np.eye(W.shape[1]) + np.linalg.solve(M, W.T @ SW)).T, SW.T).T
    new_variance = float(np.trace(covariance) - np.sum(np.linalg.solve(M, SW.T) * new_W.T)) / len(covariance)
    return new_W, new_variance


def factor_analysis_em_step(
    covariance: Array, W: Array, noise_variance: Array, noise_floor: float | Array = 0.0
) -> tuple[Array, Array]:
    """One E-step and one M-step of factor analysis, (15)-(18): W', (D, k), and Ψ', (D,).

        β = Wᵀ(W Wᵀ + Ψ)⁻¹,   W' = S βᵀ (I − βW + βSβᵀ)⁻¹,   Ψ' = diag(S − W'βS)

    If all Ψ_d are equal, W' is that of `ppca_em_step`, and σ²' of `ppca_em_step` is the mean of Ψ'.

    Parameters
    ----------
    covariance : (D, D)
        Sample covariance S.
    W : (D, k)
    noise_variance : (D,)
        Ψ.
    noise_floor : float or (D,)
        Least Ψ'; the M-step is then the maximum subject to Ψ >= floor.
    """
    weighted = (W.T / noise_variance).T
    beta = np.linalg.solve(np.eye(W.shape[1]) + W.T @ weighted, weighted.T)  # = (I + WᵀΨ⁻¹W)⁻¹WᵀΨ⁻¹, k × k
    S_beta = covariance @ beta.T
    new_W = np.linalg.solve((np.eye(W.shape[1]) - beta @ W + beta @ S_beta).T, S_beta.T).T
    left = np.diagonal(covariance) - (new_W * S_beta).sum(axis=1)
    return new_W, np.maximum(left, noise_floor)
