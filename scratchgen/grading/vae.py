"""What separates a VAE's ELBO from −H(p), part by part, wherever the integrals can be done.

    −E_p ELBO = H(p) + KL(p‖p_θ) + E_p KL(q(z | x)‖p_θ(z | x))

The second term is the model's gap, the third the inference gap.  Of the deck's "drawback of VAE", Gaussian encoder and
decoder, the decoder has no part: ∫ N(x; f(z), s²) N(z) dz comes near any density as s falls (`transport_decoder`).  The
encoder has, in the third term: the posterior of a curved decoder is no Gaussian, and the nearest leaves `gaussian_gap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scratchgen.em.factors import ppca_maximum
from scratchgen.likelihood import LOG_2PI, kl_diag_standard, logsumexp
from scratchgen.mixture import Mixture
from scratchgen.vae import VAE, LinearVAE
from scratchgen.validation import Array, as_count, as_finite
from scratchgen.variational import linear_gaussian_log_prob

REACH = 9.0  # z is integrated over [−9, 9] if its posterior lies within


# --- linear: PPCA ------------------------------------------------------------------------------------------------


class LinearVAEGrade(NamedTuple):
    """A linear VAE beside the best there is for the data; means over the data, nats."""

    elbo: float
    log_prob: float  # E log p_θ(x), exact: log_prob − elbo is the inference gap
    maximum: float  # PPCA's E log p(x), the most that any linear VAE of this size (and s², if given) attains
    least_gap: float  # ½(Σ log M_ii − log|M|): what the best diagonal posterior must leave at this W
    angle: float  # largest angle between W's leading directions and the best W's, radians; nan if those are not unique
    variance: float  # s²
    best_variance: float  # PPCA's σ²
    n_active: int  # directions of W that stand out of the noise: singular values squared above s²/100
    best_n_active: int  # the same of the best W, σ² and eigenvalues λ: λ − σ² > σ²/100


def grade_linear_vae(model: LinearVAE, x: ArrayLike) -> LinearVAEGrade:
    """ELBO, likelihood, subspace, s² and active latents of a linear VAE, and those of PPCA on x, (N, D).

    A given decoder_variance is graded against the best W for it, λ_i − s² where that is positive (posterior collapse is
    exact, not a failure of training); a learned one against Tipping and Bishop's maximum.

    Raises
    ------
    ValueError
        If decoder_variance is "diag": factor analysis has no closed form, `FactorAnalysis` fits it by EM.  If s² is
        learned and not determined, there being as many latents as columns, or infinitely likely at 0.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((200, 4)) * [3.0, 2.0, 1.0, 1.0]
    >>> grade = grade_linear_vae(LinearVAE(2, rng=0).fit(x), x)
    >>> bool(abs(grade.elbo - grade.maximum) < 1e-9), bool(grade.angle < 1e-4), grade.n_active
    (True, True, 2)
    """
    if not isinstance(model, LinearVAE):
        raise TypeError(f"model must be a LinearVAE, got {type(model).__name__}; grade_vae takes a VAE with one latent")
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
        raise ValueError(f"x lies in {k} dimensions or fewer, so that the maximum is infinite; give more or other data")
    n_active, best_n_active = _rank(W, variance), _rank(best_W, best_variance)
    M = np.eye(k) + W.T @ W / variance
    return LinearVAEGrade(
        elbo=float(model.elbo(x).mean()),
        log_prob=float(model.log_prob(x).mean()),
        maximum=float(linear_gaussian_log_prob(x, best_W, x.mean(axis=0), best_variance).mean()),
        least_gap=float(0.5 * (np.log(np.diagonal(M)).sum() - np.linalg.slogdet(M)[1])),
        angle=_angle(W, np.linalg.eigh(S), n_active, best_n_active),
        variance=variance,
        best_variance=best_variance,
        n_active=n_active,
        best_n_active=best_n_active,
    )


def _rank(W: Array, variance: float) -> int:
    """How many directions of W stand out of the noise."""
    return int((np.linalg.svd(W, compute_uv=False) ** 2 > 0.01 * variance).sum())


def _angle(W: Array, spectrum: tuple[Array, Array], n_active: int, n: int) -> float:
    """The largest principal angle between the n leading directions of W and of the data's covariance, radians."""
    values, vectors = spectrum[0][::-1], spectrum[1][:, ::-1]
    if n == 0 or (n < len(values) and values[n - 1] - values[n] < 1e-9 * values[0]):
        return float("nan")
    if n_active < n:
        return float(np.pi / 2)
    U, V = np.linalg.svd(W)[0][:, :n], vectors[:, :n]
    return float(np.arcsin(min(1.0, float(np.linalg.norm(V - U @ (U.T @ V), 2)))))


# --- one latent: by quadrature over z ----------------------------------------------------------------------------


class VAEGrade(NamedTuple):
    """What a VAE's ELBO leaves out, for every example, nats; both arrays (N,)."""

    log_prob: Array  # log p_θ(x), exact
    gap: Array  # KL(q(z | x)‖p_θ(z | x)) = log p_θ(x) − ELBO: what the Gaussian posterior costs


def grade_vae(model: VAE, x: ArrayLike, n_nodes: int = 4001) -> VAEGrade:
    """Exact log p_θ(x) and inference gap of a VAE with one latent, by the trapezoid rule over z.

    What the gap would be at best is `gaussian_gap`; the model's own gap is KL(p‖p_θ), and `Mixture.kl` takes it from
    this log_prob where p is known:

    >>> from scratchgen.datasets import gaussians_1d
    >>> truth = gaussians_1d()
    >>> x = truth.sample(2000, rng=0)
    >>> model = VAE(1, (32, 32), decoder_variance=0.03, n_steps=800, learning_rate=1e-2, rng=0).fit(x)
    >>> model_gap = truth.kl(lambda x: grade_vae(model, x).log_prob)
    >>> inference_gap, least = grade_vae(model, x[:20]).gap, gaussian_gap(model, x[:20])
    >>> 0 < model_gap < 0.3, bool((0 <= least).all()), bool((least <= inference_gap).all())
    (True, True, True)

    Raises
    ------
    ValueError
        If the model has more than one latent.
    ArithmeticError
        If the decoder moves by more than half its standard deviation between nodes, or a posterior lies hundreds of
        prior deviations away: the integral would be wrong by tenths of a nat without any sign of it.
    """
    data, network = _one_latent_data(model, x), model.network_
    log_prob, gap = np.empty(len(data)), np.empty(len(data))
    xi, step = np.linspace(-REACH, REACH, 801, retstep=True)  # for expectations over q(z | x)
    mass = step * np.exp(-0.5 * (xi**2 + LOG_2PI))
    q_mean, q_log_variance = (part.astype(np.float64) for part in network.encode(data))
    for n, (row, (z, log_joint)) in enumerate(zip(data, _log_joints(model, data, n_nodes), strict=True)):
        log_prob[n] = logsumexp(log_joint) + np.log(z[1] - z[0])
        at_q = network.decoder(q_mean[n] + np.exp(0.5 * q_log_variance[n]) * xi[:, None]).astype(np.float64)
        fit = mass @ network.log_decoder(np.broadcast_to(row, at_q.shape), at_q)
        gap[n] = log_prob[n] - fit + kl_diag_standard(q_mean[n], q_log_variance[n])
    return VAEGrade(log_prob - model._log_volume, gap)


def gaussian_gap(model: VAE, x: ArrayLike, n_nodes: int = 4001) -> Array:
    """The least KL(q‖p_θ(z | x)) of any Gaussian q, for every x, (N,), nats, for a VAE with one latent.

    The part of `grade_vae`'s gap that no encoder could close: the deck's "drawback of VAE".  What the encoder adds to
    it is the amortisation gap (Cremer et al. 2018).  Raises as `grade_vae`.
    """
    data = _one_latent_data(model, x)
    q_mean, q_log_variance = (part.astype(np.float64)[:, 0] for part in model.network_.encode(data))
    starts = zip(q_mean, np.exp(0.5 * q_log_variance), strict=True)
    joints = _log_joints(model, data, n_nodes)
    return np.array([nearest_gaussian(z, joint, [start])[2] for (z, joint), start in zip(joints, starts, strict=True)])


def _one_latent_data(model: VAE, x: ArrayLike) -> Array:
    """x in the model's units, if the model is one that can be integrated."""
    if not isinstance(model, VAE):
        raise TypeError(f"model must be a VAE, got {type(model).__name__}")
    if model.n_latents != 1:
        raise ValueError(f"model must have one latent for an exact integral, got {model.n_latents}; use iwae instead")
    return model.to_model(model._as_fitted_samples(x)).astype(np.float64)


def _log_joints(model: VAE, data: Array, n_nodes: int) -> Iterator[tuple[Array, Array]]:
    """For every x even nodes z (M,), and log p_θ(x, z) there (M,).

    z reaches from −9 to 9 where that holds the posterior; for an x far from all that the model draws, farther.
    """
    grids: dict[float, tuple[Array, Array]] = {}
    for row in data:
        reach = REACH
        while True:
            if reach not in grids:
                grids[reach] = _grid(model, reach, as_count(n_nodes, "n_nodes", minimum=3))
            z, means = grids[reach]
            log_joint = model.network_.log_decoder(np.broadcast_to(row, means.shape), means) - 0.5 * (z**2 + LOG_2PI)
            if max(log_joint[0], log_joint[-1]) < log_joint.max() - 30:  # e⁻³⁰ of its peak at the ends
                break
            reach *= 2
            if reach > 64 * REACH:
                raise ArithmeticError(
                    f"the posterior of an x reaches beyond |z| = {reach / 2:g}: it is far from all that the model "
                    "draws; leave it out"
                )
        yield z, log_joint


def _grid(model: VAE, reach: float, n_nodes: int) -> tuple[Array, Array]:
    """Nodes z over [−reach, reach], n_nodes to each [−9, 9], and the decoder's means there (M, D)."""
    z = np.linspace(-reach, reach, int((n_nodes - 1) * reach / REACH) + 1)
    means = model.network_.decoder(z[:, None]).astype(np.float64)
    stride = float(np.sqrt((np.diff(means, axis=0) ** 2 / np.exp(model.network_.log_variance)).sum(axis=1)).max())
    if stride > 0.5:
        raise ArithmeticError(
            f"the decoder moves by {stride:.2f} of its standard deviations between nodes, and 0.5 is the most that "
            f"integrates exactly; pass n_nodes={int(n_nodes * stride / 0.4)}"
        )
    return z, means


def nearest_gaussian(
    z: Array, log_density: Array, starts: Iterable[tuple[float, float]] = ()
) -> tuple[float, float, float]:
    """Mean and standard deviation of the Gaussian q nearest to p in KL(q‖p), and that KL in nats.

    q tends to settle on one mode of p, so that descent starts at each of them, at p's own moments, and at `starts`.

    Parameters
    ----------
    z : (M,)
        Even nodes that reach well beyond p, at most half a standard deviation of its narrowest mode apart.
    log_density : (M,)
        log p(z), up to a constant, finite: a Gaussian has mass everywhere, and KL(q‖p) would be infinite.
    starts : iterable of (mean, standard deviation), optional

    Raises
    ------
    ValueError
        If p is not finite, or not negligible (e⁻³⁰ of its peak) at both ends.
    ArithmeticError
        If q does not fit the nodes: it would be narrower than two of them, or reach beyond their ends.
    """
    from scipy.optimize import minimize  # importing SciPy would triple the time of `import scratchgen`

    z, log_density = as_finite(z, "z"), as_finite(log_density, "log_density")
    if z.shape != log_density.shape or z.ndim != 1 or len(z) < 5:
        raise ValueError(f"z and log_density must have one shape (M,), M >= 5, got {z.shape} and {log_density.shape}")
    if max(log_density[0], log_density[-1]) > log_density.max() - 30:
        raise ValueError("z must reach well beyond p, but log_density is within 30 of its maximum at an end; widen z")
    step = float(z[1] - z[0])
    # q ends where p does, soon after: to each side of where p is above e⁻¹⁰⁰ of its peak that width again is left.
    seen = np.flatnonzero(log_density > log_density.max() - 100)
    width = seen[-1] - seen[0] + 1
    window = slice(max(seen[0] - width, 0), seen[-1] + width)
    z, log_density = z[window], log_density[window]
    log_p = log_density - logsumexp(log_density) - np.log(step)
    mass = step * np.exp(log_p)
    mean = float(mass @ z)
    starts = [*starts, (mean, float(np.sqrt(mass @ (z - mean) ** 2)))]
    for i in 1 + np.flatnonzero((log_p[1:-1] > log_p[:-2]) & (log_p[1:-1] >= log_p[2:])):
        curvature = (2 * log_p[i] - log_p[i - 1] - log_p[i + 1]) / step**2
        starts.append((float(z[i]), float(1 / np.sqrt(max(curvature, step**-2 / len(z) ** 2)))))

    def kl(parameters: Array) -> tuple[float, Array]:
        mean, log_std = parameters
        u = (z - mean) * np.exp(-log_std)
        log_q = -0.5 * (u**2 + LOG_2PI) - log_std
        q = step * np.exp(log_q)
        pull = q * (log_q - log_p + 1)
        # Sums, not dot products: for each of those BLAS would wake its threads, which took 5 times as long.
        value, by_mean, by_log_std = (q * (log_q - log_p)).sum(), (pull * u).sum(), (pull * (u**2 - 1)).sum()
        return float(value), np.array([by_mean * np.exp(-log_std), by_log_std])

    # A narrower q would fall between the nodes, and a wider one have mass that is not counted.
    limits = [(z[0], z[-1]), (np.log(2 * step), np.log((z[-1] - z[0]) / 10))]
    found = [
        minimize(
            kl, (m, np.log(std)), jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-15, "gtol": 1e-9}
        )
        for m, std in starts
    ]
    best = min(found, key=lambda result: float(result.fun))
    mean, std = float(best.x[0]), float(np.exp(best.x[1]))
    if std < 2.001 * step or min(mean - z[0], z[-1] - mean) < 5 * std:
        raise ArithmeticError(
            f"the nearest Gaussian, mean {mean:.3g} and deviation {std:.3g}, does not fit nodes {step:.3g} apart from "
            f"{z[0]:.3g} to {z[-1]:.3g}; pass a finer or wider z"
        )
    return mean, std, float(best.fun)


# --- the marginal alone ------------------------------------------------------------------------------------------


def transport_decoder(truth: Mixture) -> Callable[[Array], Array]:
    """The f that carries N(0, 1) to p exactly, f = F⁻¹ ∘ Φ with p's distribution function F, for p on the line.

    A VAE with this decoder and noise s has the marginal ∫ N(x; f(z), s²) N(z) dz = p ∗ N(0, s²), which is
    `truth.diffuse(1, s)` and comes as near to p as one likes: Gaussian decoders restrict nothing.

    Returns
    -------
    f : callable
        From z of any shape, |z| <= 9, to x of the same shape.

    Examples
    --------
    >>> f = transport_decoder(Mixture([1.0], [[3.0]], [[[4.0]]]))
    >>> f(np.array([-1.0, 0.0, 2.0])).round(9)
    array([1., 3., 7.])
    """
    from scipy.special import log_ndtr, ndtri_exp

    if truth.dimension != 1:
        raise ValueError(f"truth must be a Mixture on the line, got {truth.dimension} dimensions")
    there = truth.weights > 0
    means, stds = truth.means[there, 0], np.sqrt(truth.covariances[there, 0, 0])
    log_weights = np.log(truth.weights[there])

    def normal_score(y: Array) -> Array:
        """Φ⁻¹(F(y)), from the nearer tail: the other rounds to 1."""
        below = logsumexp(log_ndtr((y[:, None] - means) / stds) + log_weights)
        above = logsumexp(log_ndtr((means - y[:, None]) / stds) + log_weights)
        return np.where(below < above, ndtri_exp(np.minimum(below, -1e-300)), -ndtri_exp(np.minimum(above, -1e-300)))

    y = np.unique((means + stds * np.linspace(-10, 10, 4001)[:, None]).ravel())  # dense where p is, at every scale
    scores = np.maximum.accumulate(normal_score(y))

    def f(z: Array) -> Array:
        flat = np.asarray(z, dtype=np.float64).ravel()
        x = np.interp(flat, scores, y)
        right = np.searchsorted(scores, flat).clip(1, len(y) - 1)
        for _ in range(4):  # Newton, kept between the two nodes: dz/dx = p(x)/φ(z)
            z_x = normal_score(x)
            slope = np.exp(truth.log_prob(x[:, None]) + 0.5 * (z_x**2 + LOG_2PI))
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = x - (z_x - flat) / slope
            x = np.clip(np.where(np.isfinite(moved), moved, x), y[right - 1], y[right])
        return x.reshape(np.shape(z))

    return f
