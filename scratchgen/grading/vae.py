"""The gaps between −H(p) and the mean ELBO of VAEs: with one latent by quadrature, of linear VAEs by PPCA.

    −E_p ELBO = H(p) + KL(p‖p_θ) + E_p KL(q(z | x)‖p_θ(z | x))

The second term is the model's gap, and the third term the inference gap.  The deck calls the Gaussian encoder and the
Gaussian decoder the "drawback of VAE".  A Gaussian decoder can match any density: ∫ N(x; f(z), s²) N(z) dz approaches
the density as s → 0.  A Gaussian encoder costs the inference gap: the posterior of a curved decoder is not Gaussian,
and `gaussian_gap` is the least KL of a Gaussian from the posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scratchgen.em import ppca_maximum
from scratchgen.grading.one_latent import OneLatent, nearest_gaussian
from scratchgen.likelihood import kl_diag_standard, logsumexp
from scratchgen.mixture import Mixture
from scratchgen.models.linear_vae import LinearVAE
from scratchgen.models.vae import GaussianVAE
from scratchgen.validation import Array, ArrayLike
from scratchgen.variational import linear_gaussian_log_prob


class VAEGrade(NamedTuple):
    """Exact log-likelihood and inference gap of every example, nats; both arrays are (N,)."""

    log_prob: Array  # log p_θ(x)
    gap: Array  # KL(q(z | x)‖p_θ(z | x)) = log p_θ(x) − ELBO


def grade_vae(model: GaussianVAE, x: ArrayLike, n_nodes: int | None = None) -> VAEGrade:
    """Exact log p_θ(x) and inference gap of a VAE with one latent, by the trapezoid rule over z.

    `gaussian_gap` gives the least inference gap of any Gaussian posterior.  If p is known, `Mixture.kl` with `log_prob`
    gives the model's gap KL(p‖p_θ):

    >>> from scratchgen import VAE
    >>> from scratchgen.datasets import gaussians_1d
    >>> truth = gaussians_1d()
    >>> x = truth.sample(2000, rng=0)
    >>> model = VAE(1, (32, 32), decoder_variance=0.03, n_steps=800, learning_rate=1e-2, rng=0).fit(x)
    >>> model_gap = truth.kl(lambda x: grade_vae(model, x).log_prob)
    >>> inference_gap, least = grade_vae(model, x[:20]).gap, gaussian_gap(model, x[:20])
    >>> 0 < model_gap < 0.3, bool((0 <= least).all()), bool((least <= inference_gap).all())
    (True, True, True)

    Parameters
    ----------
    model : VAE or LinearVAE
        Fitted, with one latent.
    x : (N, D)
    n_nodes : int, optional
        Number of nodes of z over [−9, 9]; None chooses the number for the decoder, see `OneLatent.log_joints`.

    Raises
    ------
    TypeError
        If model is not a VAE.
    ValueError
        If the model is not fitted, or has more than one latent.
    ArithmeticError
        As for `OneLatent.log_joints`.
    """
    data, decoder = _one_latent(model, x)
    log_prob, gap = np.empty(len(data)), np.empty(len(data))
    q_mean, q_log_variance = (part.astype(np.float64) for part in model.network_.encode(data))
    for n, (row, (z, log_joint)) in enumerate(zip(data, decoder.log_joints(data, n_nodes), strict=True)):
        log_prob[n] = logsumexp(log_joint) + np.log(z[1] - z[0])
        q = Mixture([1.0], q_mean[[n]], np.exp(q_log_variance[[n]])[:, None])  # q(z | x)

        def log_likelihood(z: Array, x: Array = row) -> Array:
            return decoder.log_prob(x, decoder.decode(z))[:, None]

        fit = q.expectation(log_likelihood, spacing=0.1, rtol=1e-6)
        gap[n] = log_prob[n] - fit[0] + kl_diag_standard(q_mean[n], q_log_variance[n])
    return VAEGrade(log_prob - model._log_volume, gap)


def gaussian_gap(model: GaussianVAE, x: ArrayLike, n_nodes: int | None = None) -> Array:
    """The least KL(q‖p_θ(z | x)) of any Gaussian q, (N,), nats, for a VAE with one latent.

    This is the part of the inference gap that no Gaussian encoder can avoid, the deck's "drawback of VAE".  The rest of
    the inference gap is the amortisation gap of the encoder (Cremer et al. 2018).  Parameters and errors are those of
    `grade_vae`.
    """
    data, decoder = _one_latent(model, x)
    q_mean, q_log_variance = (part.astype(np.float64)[:, 0] for part in model.network_.encode(data))
    starts = zip(q_mean, np.exp(0.5 * q_log_variance), strict=True)
    joints = decoder.log_joints(data, n_nodes)
    return np.array([nearest_gaussian(z, joint, [start])[2] for (z, joint), start in zip(joints, starts, strict=True)])


def _one_latent(model: GaussianVAE, x: ArrayLike) -> tuple[Array, OneLatent]:
    """Return x in the model's units and the decoder; TypeError or ValueError unless the model has one latent."""
    if not isinstance(model, GaussianVAE):
        raise TypeError(f"model must be a VAE, got {type(model).__name__}; pass a fitted VAE or LinearVAE")
    data = model.to_model(model._as_fitted_samples(x)).astype(np.float64)
    network = model.network_
    if network.n_latents != 1:
        raise ValueError(f"model must have one latent for an exact integral, got {network.n_latents}; use iwae instead")
    return data, OneLatent(lambda z: network.decoder(z).astype(np.float64), network.log_variance, network.n_levels)


# --- linear VAEs ------------------------------------------------------------------------------------------------------


class LinearVAEGrade(NamedTuple):
    """A linear VAE and the optimum for the data; log-likelihoods and bounds are means over the data, nats."""

    elbo: float
    log_prob: float  # E log p_θ(x), exact; log_prob − elbo is the inference gap
    maximum: float  # E log p(x) of PPCA, the largest value of any linear VAE of this size (and s², if given)
    least_gap: float  # ½(Σ log M_ii − log|M|), the inference gap of the best diagonal posterior at this W
    angle: float  # largest angle between the leading directions of W and of the best W, radians; nan if not unique
    variance: float  # s²
    best_variance: float  # σ² of PPCA
    n_active: int  # number of squared singular values of W above s²/100
    best_n_active: int  # number of squared singular values λ − σ² of the best W above σ²/100


def grade_linear_vae(model: LinearVAE, x: ArrayLike) -> LinearVAEGrade:
    """Compare ELBO, likelihood, subspace, s² and active latents of a linear VAE with those of PPCA on the same data.

    For a given decoder_variance s² the best W has squared singular values max(λ_i − s², 0); a collapsed latent is then
    optimal, and no failure of training.  For a learned s² the best W and s² are the maximum of Tipping and Bishop
    (1999).

    Parameters
    ----------
    model : LinearVAE
        Fitted, with one s².
    x : (N, D)
        Training data.

    Raises
    ------
    TypeError
        If model is not a LinearVAE.
    ValueError
        If decoder_variance is "diag", which is factor analysis and has no closed form (`FactorAnalysis` uses EM).  If
        s² is learned and the model has as many latents as x has columns, or x lies in as many dimensions as there are
        latents.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((200, 4)) * [3.0, 2.0, 1.0, 1.0]
    >>> grade = grade_linear_vae(LinearVAE(2, rng=0).fit(x), x)
    >>> bool(abs(grade.elbo - grade.maximum) < 1e-9), bool(grade.angle < 1e-4), grade.n_active
    (True, True, 2)
    """
    if not isinstance(model, LinearVAE):
        raise TypeError(f"model must be a LinearVAE, got {model!r:.60}; grade_vae takes a VAE with one latent")
    if model.decoder_variance == "diag":
        raise ValueError('model must have one decoder variance, got "diag"; compare with FactorAnalysis instead')
    x = model._as_fitted_samples(x).astype(np.float64)
    W, variance = model.components_, float(model.decoder_variance_)
    D, k = W.shape
    if k >= D and model.decoder_variance is None:
        raise ValueError(f"model must have fewer latents than the {D} columns of x, got {k}: σ² is not determined")
    S = np.atleast_2d(np.cov(x.T, bias=True))
    best_W, best_variance = ppca_maximum(S, min(k, D), None if model.decoder_variance is None else variance)
    if best_variance <= 1e-14 * np.trace(S):
        raise ValueError(
            f"x lies in a space of at most {k} dimension{'s' * (k != 1)}, so that the maximum is infinite; "
            "pass more or other data"
        )
    n_active, best_n_active = _rank(W, variance), _rank(best_W, best_variance)
    R = np.linalg.qr(np.concatenate([np.eye(k), W / variance**0.5]), mode="r")  # RᵀR = M
    return LinearVAEGrade(
        elbo=float(model.elbo(x).mean()),
        log_prob=float(model.log_prob(x).mean()),
        maximum=float(linear_gaussian_log_prob(x, best_W, x.mean(axis=0), best_variance).mean()),
        least_gap=float(np.log(np.linalg.norm(R, axis=0) / np.abs(np.diagonal(R))).sum()),
        angle=_angle(W, np.linalg.eigh(S), n_active, best_n_active),
        variance=variance,
        best_variance=best_variance,
        n_active=n_active,
        best_n_active=best_n_active,
    )


def _rank(W: Array, variance: float) -> int:
    """Number of squared singular values of W above variance/100."""
    return int((np.linalg.svd(W, compute_uv=False) ** 2 > 0.01 * variance).sum())


def _angle(W: Array, spectrum: tuple[Array, Array], n_active: int, n: int) -> float:
    """Largest principal angle between the n leading directions of W and of the data's covariance, radians."""
    values, vectors = spectrum[0][::-1], spectrum[1][:, ::-1]
    if n == 0 or (n < len(values) and values[n - 1] - values[n] < 1e-9 * values[0]):
        return float("nan")
    if n_active < n:
        return float(np.pi / 2)
    U, V = np.linalg.svd(W)[0][:, :n], vectors[:, :n]
    return float(np.arcsin(min(1.0, float(np.linalg.norm(V - U @ (U.T @ V), 2)))))
