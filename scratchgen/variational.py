"""Equations (3)-(10): the posterior, both forms of the ELBO, its gap, and the exact chain rule of the joint KL.

    log p_θ(x) = ELBO(q) + KL(q‖p_θ(z | x))

Wanted: log p_θ(x), an integral over the latent variable z, and the posterior p_θ(z | x), (3), with the same integral.
Minimised: over q, the divergence from q(z | x) to the posterior, (4).  The same q maximises the ELBO, (5)-(7).
Exact: the gap of the bound is this divergence, (8), for every q.  On average over the data, the joint divergence
KL(p(x) q(z | x)‖p_θ(x, z)) is the marginal one, KL(p‖p_θ), plus the average gap, (9)-(10).
Lost: the gap, if q is restricted; nothing, if q is the posterior.

This one inequality, joint KL >= marginal KL, is the objective of every model of the package.  The module has two forms
of each quantity.  All values are in nats.

* `posterior_table`, `posterior_kl_table`, `elbo_table`, `elbo_split_table`, `joint_kl_table`: for tables, where every
  integral is a finite sum.
* `linear_gaussian_posterior`, `linear_gaussian_mean_field`, `linear_gaussian_log_prob`, `linear_gaussian_elbo`: for
  p(z) = N(0, I), p(x | z) = N(W z + μ, Ψ), where every integral has a closed form.

Read on in `vae`, which learns q, and in `em`, which computes it.
"""

import numpy as np

from scratchgen.likelihood import LOG_2PI, cross_entropy_discrete, kl_discrete
from scratchgen.validation import Array, as_arrays, as_covariances, as_real, check_positive, check_probabilities

# --- tables: joint[x, z] = p(x, z), decoder[x, z] = p(x | z), q[x, z] = q(z | x), each (X, Z); prior[z], (Z,) ---------


def posterior_table(joint: Array) -> tuple[Array, Array]:
    """The posterior p(z | x) = p(x, z)/p(x), (X, Z), and the evidence p(x), (X,), of a table (X, Z): (3), (11), (16).

    The deck's (11) divides p_θ(x | z) q(z) by p(x).  The denominator has to be p_θ(x) = Σ_z p_θ(x | z) q(z).
    """
    joint = as_arrays("joint (X, Z)", joint)
    check_probabilities(joint, "joint", axis=None)
    evidence = joint.sum(axis=1)
    return joint / evidence[:, None], evidence


def posterior_kl_table(joint: Array, q: Array) -> Array:
    """KL(q(z | x)‖p(z | x)) for every x, (X,), nats, (4): the objective over φ; 0 only if q is the posterior."""
    joint, q = as_arrays("joint (X, Z), q (X, Z)", joint, q)
    check_probabilities(q, "q")
    return kl_discrete(q, posterior_table(joint)[0])


def elbo_table(joint: Array, q: Array) -> Array:
    """ELBO(q) = E_q log p(x, z)/q(z | x) = log p(x) − KL(q‖p(z | x)) for every x, (X,), nats, (5)-(6), (8).

    The deck's (6) equates min KL with max ELBO.  The same q attains both, but the two values differ: the minimal KL is
    log p(x) minus the maximal ELBO.
    """
    joint, q = as_arrays("joint (X, Z), q (X, Z)", joint, q)
    check_probabilities(joint, "joint", axis=None)
    check_probabilities(q, "q")
    return -kl_discrete(q, joint)


def elbo_split_table(decoder: Array, prior: Array, q: Array) -> Array:
    """ELBO(q) = E_q log p(x | z) − KL(q(z | x)‖p(z)) for every x, (X,), nats, (7)."""
    decoder, prior, q = as_arrays("decoder (X, Z), prior (Z), q (X, Z)", decoder, prior, q)
    check_probabilities(decoder, "decoder", axis=None)
    check_probabilities(prior, "prior", axis=None)
    check_probabilities(q, "q")
    return -cross_entropy_discrete(q, decoder) - kl_discrete(q, prior)


def joint_kl_table(p_x: Array, q: Array, decoder: Array, prior: Array) -> float:
    """KL(p(x) q(z | x)‖p_θ(x | z) q(z)) = KL(p‖p_θ) + E_p KL(q‖p_θ(z | x)) for every q, nats, (12); (10) follows.

    The deck's chain of inequalities assumes q ≈ p(z | x) in the middle.  The chain rule needs no approximation.

    Parameters
    ----------
    p_x : (X,)
    q, decoder : (X, Z)
    prior : (Z,)
    """
    shapes = "p_x (X), q (X, Z), decoder (X, Z), prior (Z)"
    p_x, q, decoder, prior = as_arrays(shapes, p_x, q, decoder, prior)
    check_probabilities(p_x, "p_x")
    check_probabilities(q, "q")
    check_probabilities(decoder, "decoder", axis=None)
    check_probabilities(prior, "prior", axis=None)
    return float(kl_discrete((p_x[:, None] * q).ravel(), (decoder * prior).ravel()))


# --- the linear-Gaussian model ---------------------------------------------------------------------------------------
# Shapes: x (N, D), W (D, k), mean μ (D,).  noise_variance is a number σ², Ψ = σ² I, for PPCA; or (D,), Ψ = diag, for
# factor analysis.


def _noise(W: Array, noise_variance: float | Array) -> Array:
    """Ψ, (D,), after a check that it is positive and finite."""
    check_positive(noise_variance, "noise_variance", "raise the noise floor")
    noise = as_real(noise_variance, "noise_variance").astype(np.float64)
    if noise.shape not in ((), (len(W),)):
        raise ValueError(f"noise_variance must be one number or one a row of W, ({len(W)},), got shape {noise.shape}")
    return np.broadcast_to(noise, len(W))


def _factors(W: Array, noise_variance: float | Array) -> tuple[Array, Array, Array]:
    """Q (k + D, k) and triangular R (k, k) of the matrix with the rows of I and of Ψ^−½ W, and Ψ^½, (D,).

    RᵀR is the posterior's precision M = I + WᵀΨ⁻¹W.  The factors of W Wᵀ + Ψ, and of M itself, would lose all digits of
    a noise that is small beside W.
    """
    root = np.sqrt(_noise(W, noise_variance))
    return *np.linalg.qr(np.concatenate([np.eye(W.shape[1]), W / root[:, None]])), root


def linear_gaussian_posterior(x: Array, W: Array, mean: Array, noise_variance: float | Array) -> tuple[Array, Array]:
    """p(z | x) = N(M⁻¹WᵀΨ⁻¹(x − μ), M⁻¹) with M = I + WᵀΨ⁻¹W, (11): means (N, k) and the common covariance (k, k)."""
    x, W, mean = as_arrays("x (N, D), W (D, k), mean (D)", x, W, mean)
    Q, R, root = _factors(W, noise_variance)
    inverse = np.linalg.inv(R)
    return (x - mean) / root @ Q[len(R) :] @ inverse.T, inverse @ inverse.T


def linear_gaussian_mean_field(x: Array, W: Array, mean: Array, noise_variance: float | Array) -> tuple[Array, Array]:
    """The diagonal Gaussian q with the least KL(q‖p(z | x)), (4), and therefore the largest ELBO, (6).

    The mean of q is the posterior's mean.  Its variances are 1/M_ii, with the posterior's precision M.  The least KL is
    ½(Σ log M_ii − log|M|) nats, the same for every x (Lucas et al. 2019).

    Returns
    -------
    means : (N, k)
    variances : (k,)
    """
    x, W, mean = as_arrays("x (N, D), W (D, k), mean (D)", x, W, mean)
    means, _ = linear_gaussian_posterior(x, W, mean, noise_variance)
    return means, 1 / (1 + (W.T**2 / _noise(W, noise_variance)).sum(axis=1))


def linear_gaussian_log_prob(x: Array, W: Array, mean: Array, noise_variance: float | Array) -> Array:
    """log N(x; μ, W Wᵀ + Ψ), (N,), nats, from the posterior mean m and precision M (Woodbury's identity).

    −½ log|2πΨ| − ½ log|M| − ½[‖x − μ − W m‖²_{Ψ⁻¹} + ‖m‖²]
    """
    x, W, mean = as_arrays("x (N, D), W (D, k), mean (D)", x, W, mean)
    Q, R, root = _factors(W, noise_variance)
    k, white = len(R), (x - mean) / root
    m = white @ Q[k:]  # in coordinates of the columns of Q
    distance = ((white - m @ Q[k:].T) ** 2).sum(axis=1) + ((m @ Q[:k].T) ** 2).sum(axis=1)
    log_det = 2 * (np.log(root).sum() + np.log(np.abs(np.diagonal(R))).sum())
    return -0.5 * (len(W) * LOG_2PI + log_det + distance)


def linear_gaussian_elbo(
    x: Array, W: Array, mean: Array, noise_variance: float | Array, q_mean: Array, q_cov: Array
) -> Array:
    """E_q log p(x_n | z) − KL(q‖N(0, I)) for q = N(m_n, V), (N,), nats, (7).

        −½ log|2πΨ| − ½[‖x − μ − W m‖²_{Ψ⁻¹} + tr WᵀΨ⁻¹W V] − ½[‖m‖² + tr V − k − log|V|]

    Parameters
    ----------
    q_mean : (N, k)
        m.
    q_cov : (k, k)
        V, the same for every x.

    Raises
    ------
    ValueError
        If noise_variance is not positive and finite.
    numpy.linalg.LinAlgError
        If q_cov is not positive definite (a subclass of ValueError).
    """
    shapes = "x (N, D), W (D, k), mean (D), q_mean (N, k)"
    x, W, mean, q_mean = as_arrays(shapes, x, W, mean, q_mean)
    q_cov = as_covariances("q_cov (k, k)", q_cov, k=W.shape[1])
    noise, factor = _noise(W, noise_variance), np.linalg.cholesky(q_cov)
    spread = ((W @ factor) ** 2).sum(axis=1)  # the diagonal of W V Wᵀ
    residual = ((x - mean - q_mean @ W.T) ** 2 / noise).sum(axis=1) + (spread / noise).sum()
    log_det = 2 * np.log(np.diagonal(factor)).sum()
    kl = 0.5 * ((q_mean**2).sum(axis=1) + np.trace(q_cov) - len(q_cov) - log_det)
    return -0.5 * (len(W) * LOG_2PI + np.log(noise).sum() + residual) - kl
