"""The rate of convergence of EM: the fraction of missing information."""

from __future__ import annotations

import numpy as np

from scratchgen.mixture import Mixture
from scratchgen.validation import Array, as_samples, check_type


def missing_fractions(x: Array, mixture: Mixture) -> Array:
    """Fractions of missing information about the means of a Gaussian mixture, (K D,), falling, at a fixed point of EM.

    They are the eigenvalues of I − I_com⁻¹ I_obs, with the observed information of the means and that of x and z
    together (Dempster, Laird and Rubin 1977).  That matrix is the derivative of one EM step over the means, so that in
    the long run an EM step multiplies the error by the largest fraction r.  The gains of the likelihood then shrink by
    r², and r²/(1 − r²) times the last gain is still to come.

    Parameters
    ----------
    x : (N, D)
    mixture : Mixture
        Its means maximise the likelihood of x; weights and covariances are known.  Weights are positive.
    """
    check_type(mixture, Mixture, "mixture")
    x = as_samples(x, dimension=mixture.dimension)
    K, D = mixture.means.shape
    resp = mixture.posterior(x)
    precisions = mixture.whitening.swapaxes(1, 2) @ mixture.whitening
    pull = np.einsum("kde,nke->nkd", precisions, x[:, None] - mixture.means)  # ∂ log N(x; m_k, C_k)/∂m_k
    missing = -np.einsum("nk,nkd,nl,nle->kdle", resp, pull, resp, pull)  # Σ_n Cov_q of the score of (x_n, z)
    missing[np.arange(K), :, np.arange(K)] += np.einsum("nk,nkd,nke->kde", resp, pull, pull)
    factor = np.linalg.cholesky(mixture.covariances / resp.sum(axis=0)[:, None, None])  # of I_com⁻¹, block by block
    symmetric = np.einsum("kfd,kfle,lea->kdla", factor, missing, factor).reshape(K * D, K * D)
    return np.linalg.eigvalsh(symmetric)[::-1]
