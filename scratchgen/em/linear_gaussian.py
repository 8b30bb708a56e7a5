"""PPCA and factor analysis: x = W z + μ + noise with q(z) = N(0, I) fixed as in the deck, both steps in closed form."""

import numpy as np

from scratchgen.validation import Array, as_arrays, as_count, as_finite, as_number, as_real, check_symmetric
from scratchgen.variational import linear_gaussian_posterior


def as_semidefinite(covariance: Array) -> Array:
    """Return a covariance, (D, D); ValueError unless it is symmetric without eigenvalues below 0, but for rounding."""
    covariance = as_arrays("covariance (D, D)", covariance)
    check_symmetric(covariance, "covariance")
    values = np.linalg.eigvalsh(covariance)
    if values[0] < -1e-8 * abs(values[-1]):
        raise ValueError(f"covariance must be positive semidefinite, but has the eigenvalue {values[0]:.3g}")
    return covariance


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
        If σ² is estimated and k is not in 1..D−1, or a given σ² is negative or not finite.
    """
    covariance, n_components = as_semidefinite(covariance), as_count(n_components, "n_components", minimum=0)
    values, vectors = np.linalg.eigh(covariance)
    if noise_variance is not None:
        noise_variance = as_number(noise_variance, "noise_variance", low=0.0)
    if noise_variance is None and not 0 < n_components < len(values):
        raise ValueError(f"n_components must be in 1..{len(values) - 1} to leave directions for σ², got {n_components}")
    if noise_variance is None:
        noise_variance = float(values[:-n_components].mean())
    excess = np.maximum(values[::-1][:n_components] - noise_variance, 0.0)
    return vectors[:, ::-1][:, :n_components] * np.sqrt(excess), noise_variance


def ppca_em_step(covariance: Array, W: Array, noise_variance: float) -> tuple[Array, float]:
    """One E-step and one M-step of PPCA, (15)-(18) with q(z) = N(0, I) fixed: W', (D, k), and σ²'.

        W' = S W (σ² I + M⁻¹ WᵀS W)⁻¹,   σ²' = tr(S − S W M⁻¹ W'ᵀ)/D,   M = WᵀW + σ² I

    The step is that of factor analysis with Ψ = σ² I, except that one σ²' is the mean of Ψ'.

    Parameters
    ----------
    covariance : (D, D)
        Sample covariance S.
    W : (D, k)
    noise_variance : float
        σ².
    """
    covariance, W = as_semidefinite(covariance), as_arrays("W (D, k)", as_finite(W, "W"))
    noise_variance = as_number(noise_variance, "noise_variance", low=0.0, open_low=True)
    new_W, new_variances = factor_analysis_em_step(covariance, W, np.full(len(W), noise_variance))
    return new_W, float(new_variances.mean())


def factor_analysis_em_step(
    covariance: Array, W: Array, noise_variance: Array, noise_floor: float | Array = 0.0
) -> tuple[Array, Array]:
    """One E-step and one M-step of factor analysis, (15)-(18): W', (D, k), and Ψ', (D,).

        β = Wᵀ(W Wᵀ + Ψ)⁻¹,   V = I − βW,   W' = S βᵀ (V + βSβᵀ)⁻¹,   Ψ' = diag[(I − W'β) S (I − W'β)ᵀ + W'V W'ᵀ]

    βx and V are the mean and the covariance of the posterior (11).  Ψ' also is diag(S − W'βS), a difference that loses
    the digits of a small Ψ'.  If all Ψ_d are equal, the mean of Ψ' is the σ²' of PPCA.

    Parameters
    ----------
    covariance : (D, D)
        Sample covariance S.
    W : (D, k)
    noise_variance : (D,)
        Ψ.
    noise_floor : float or (D,)
        Least Ψ'; the M-step is then the maximum subject to Ψ >= floor.

    Raises
    ------
    ValueError
        If Ψ is not positive and finite, or noise_floor is negative or not finite.
    """
    covariance = as_semidefinite(covariance)
    W = as_finite(W, "W")
    W, noise_variance = as_arrays("W (D, k), noise_variance (D)", W, noise_variance, D=len(covariance))
    D, floor = len(W), as_real(noise_floor, "noise_floor")
    if not ((floor >= 0) & (floor < np.inf)).all():
        raise ValueError(f"noise_floor must be finite and not negative, got {noise_floor}; pass 0 for no floor")
    if floor.shape not in ((), (D,)):
        raise ValueError(f"noise_floor must be one number or ({D},), got shape {floor.shape}")
    beta_T, V = linear_gaussian_posterior(np.eye(D), W, np.zeros(D), noise_variance)  # (11)
    S_beta = covariance @ beta_T
    new_W = np.linalg.solve(V + beta_T.T @ S_beta, S_beta.T).T
    residual = np.eye(D) - new_W @ beta_T.T
    spread = ((new_W @ np.linalg.cholesky(V)) ** 2).sum(axis=1)
    left = ((covariance - new_W @ S_beta.T) * residual).sum(axis=1) + spread
    return new_W, np.maximum(left, floor)
