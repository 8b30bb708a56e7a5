"""Pictures of the VAE, (11)-(14), for a decoder that maps N(0, 1) exactly to the data."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from scratchgen import PPCA, datasets
from scratchgen.grading import OneLatent, nearest_gaussian
from scratchgen.likelihood import entropy_gaussian, kl_diag_standard
from scratchgen.report.book.figures.frame import BLUE, GREEN, GREY, ORANGE, drawing, panels
from scratchgen.report.tour import standardized_penguins
from scratchgen.report.transport import transport_decoder
from scratchgen.validation import Array
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_posterior


@drawing(
    "vae-map",
    "Three panels in a row. Left, the normal density of the latent z. In the middle the decoder, a steep staircase "
    "from z to x. Right, the density of x with three peaks: the staircase maps the normal density to this density.",
)
def vae_map() -> Figure:
    """A normal latent, a decoder, and the density that they give."""
    truth, z = datasets.gaussians_1d(), np.linspace(-3.2, 3.2, 401)
    f = transport_decoder(truth)
    x, normal = np.linspace(-2.3, 2.7, 401), np.exp(-0.5 * z**2) / (2 * np.pi) ** 0.5
    figure, axes = panels(1, 3, 2.7, width_ratios=(1.2, 1.6, 1))
    left, middle, right = axes[0]
    left.fill_between(z, normal, color=BLUE, alpha=0.25, lw=0)
    left.plot(z, normal, color=BLUE)
    left.set(title="latent: $z \\sim N(0, 1)$", xlabel="z", ylabel="density", yticks=[], ylim=(0, None))
    middle.plot(z, f(z), color=ORANGE)
    middle.set(title="decoder: $x = f(z)$ + noise s", xlabel="z", ylabel="x", ylim=(x[0], x[-1]))
    for s, color in ((0.05, BLUE), (0.4, GREEN)):
        density = np.exp(truth.diffuse(1.0, s).log_prob(x[:, None]))
        right.plot(density, x, color=color)
        right.fill_betweenx(x, density, color=color, alpha=0.12, lw=0)
    right.annotate("s = 0.05", (0.7, 0.2), color=BLUE, xytext=(0, 8), textcoords="offset points", fontsize=8.5)
    right.annotate("s = 0.4", (0.29, -0.7), color=GREEN, xytext=(8, -6), textcoords="offset points", fontsize=8.5)
    right.set(
        title="$p_\\theta(x)$", xlabel="density", ylabel="x", xticks=[], xlim=(0, None), ylim=(x[0], x[-1]), yticks=[]
    )
    return figure


@drawing(
    "vae-drawback",
    "Left, on logarithmic axes over the decoder's noise s: the divergence of the model and the least gap of a Gaussian "
    "posterior. The divergence falls with s. The gap is largest near s = 0.2 and falls on both sides. A dotted line "
    "shows the divergence of the best single Gaussian. Right, a posterior that is steep on one side, and the "
    "Gaussian nearest to it.",
)
def vae_drawback() -> Figure:
    """The cost of the two Gaussians of a VAE."""
    truth = datasets.gaussians_1d()
    f, noises = transport_decoder(truth), (1.0, 0.5, 0.2, 0.1, 0.05)
    points, weights = truth.quadrature(spacing=1.0)
    mass = weights * np.exp(truth.log_prob(points))
    seen = mass > 1e-6
    points, mass = points[seen], mass[seen] / mass[seen].sum()
    of_model = [truth.kl(truth.diffuse(1.0, s)) for s in noises]
    of_q = [
        float(mass @ [nearest_gaussian(*joint)[2] for joint in OneLatent(f, 2 * np.log(s)).log_joints(points)])
        for s in noises
    ]
    figure, axes = panels(1, 2, 3.0)
    left, right = axes[0]
    left.loglog(noises, of_model, "o-", color=BLUE, ms=4)
    left.loglog(noises, of_q, "s--", color=ORANGE, ms=4)
    best = entropy_gaussian(truth.covariance()) - truth.entropy()
    left.axhline(best, color="0.4", lw=1, ls=":")
    left.text(0.052, best * 1.2, "best single Gaussian", color="0.3", fontsize=8.5)
    left.annotate(
        r"$\mathrm{KL}(p \Vert p_\theta)$",
        (noises[3], of_model[3]),
        color=BLUE,
        xytext=(8, -8),
        textcoords="offset points",
    )
    left.annotate("gap of the best q(z | x)", (0.052, 0.18), color=ORANGE, fontsize=8.5)
    left.set_xticks(noises, [f"{s:g}" for s in noises])
    left.minorticks_off()
    left.set(title="cost of the two Gaussians", xlabel="noise s of the decoder", ylabel="nats", ylim=(None, 3))
    s, x = 0.2, -0.3
    ((z, log_density),) = OneLatent(f, 2 * np.log(s)).log_joints(np.array([[x]]))
    posterior = np.exp(log_density - log_density.max())
    posterior /= posterior.sum() * (z[1] - z[0])
    mean, std, kl = nearest_gaussian(z, log_density)
    right.fill_between(z, posterior, color=BLUE, alpha=0.25, lw=0)
    right.plot(z, posterior, color=BLUE, label=f"$p_\\theta(z \\mid x = {x})$")
    right.plot(
        z,
        np.exp(-0.5 * ((z - mean) / std) ** 2) / (std * (2 * np.pi) ** 0.5),
        color=ORANGE,
        ls="--",
        label=f"nearest Gaussian, KL {kl:.2f} nats",
    )
    right.set(
        title=f"a posterior, s = {s}",
        xlabel="z",
        ylabel="density",
        xlim=(-1.8, 1.2),
        yticks=[],
        ylim=(0, 1.35 * posterior.max()),
    )
    right.legend(loc="upper left", fontsize=8.5)
    return figure


BETAS = (0.0625, 0.125, 0.25, 0.5, 0.7, 1, 1.4, 2, 4, 8, 16)  # weights of the KL divergence


class BetaVAE(NamedTuple):
    """Averages over the penguins, nats, for every β of `BETAS`; the log-likelihood is the same for all."""

    log_prob: float
    elbo: Array
    reconstruction: Array  # E_q log p(x | z)
    kl: Array  # KL(q‖N(0, I))


@cache
def beta_vae() -> BetaVAE:
    """The ELBO and its terms for the q that maximises E_q log p(x | z) − β KL(q‖N(0, I)), with PPCA's decoder.

    This q ∝ p(z) p(x | z)^{1/β} is the posterior of the decoder with noise variance β σ².
    """
    x = standardized_penguins()
    model = PPCA(2).fit(x)
    decoder, noise = (model.components_, model.mean_), model.noise_variance_
    terms = []
    for beta in BETAS:
        means, covariance = linear_gaussian_posterior(x, *decoder, beta * noise)
        elbo = linear_gaussian_elbo(x, *decoder, noise, means, covariance).mean()
        kl = kl_diag_standard(means, np.log(np.diagonal(covariance))[None]).mean()  # PPCA's WᵀW is diagonal
        terms.append((elbo, elbo + kl, kl))
    return BetaVAE(float(linear_gaussian_log_prob(x, *decoder, noise).mean()), *np.array(terms).T)


@drawing(
    "vae-beta",
    "Three curves over the weight beta, on a logarithmic axis. Reconstruction and minus the divergence from the prior "
    "cross: the first falls, the second rises to zero. Their sum, the ELBO, touches the horizontal line of the "
    "log-likelihood at beta = 1 and lies below it elsewhere.",
)
def vae_beta() -> Figure:
    """The ELBO and its two terms over β."""
    found = beta_vae()
    figure, axes = panels(1, 1, 2.9)
    axis = axes[0, 0]
    axis.axhline(found.log_prob, color=GREY, ls=":")
    axis.semilogx(BETAS, found.reconstruction, "s--", color=ORANGE, ms=4)
    axis.semilogx(BETAS, -found.kl, "^-.", color=GREEN, ms=4)
    axis.semilogx(BETAS, found.elbo, "o-", color=BLUE, ms=4)
    for text, y, color, rise in (
        (r"$\mathbb{E}_q \log p_\theta(x \mid z)$", found.reconstruction[-1], ORANGE, 6),
        (r"$-\mathrm{KL}(q \Vert p(z))$", -found.kl[-1], GREEN, 0),
        ("ELBO", found.elbo[-1], BLUE, -6),
        (r"$\log p_\theta(x)$", found.log_prob, "0.35", 0),
    ):
        axis.annotate(text, (BETAS[-1], y), xytext=(10, rise), textcoords="offset points", color=color, va="center")
    axis.set(title="PPCA's decoder for the penguins, the best q for each β", xlabel="β", ylabel="nats")
    axis.set_xlim(0.055, 18)
    axis.set_xticks(BETAS, [f"{beta:g}" for beta in BETAS])
    axis.minorticks_off()
    return figure
