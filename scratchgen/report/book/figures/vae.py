"""Pictures of the VAE, (11)-(14), for a decoder that maps N(0, 1) exactly to the data."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchgen import datasets
from scratchgen.grading import OneLatent, nearest_gaussian
from scratchgen.likelihood import entropy_gaussian
from scratchgen.report.book.figures.frame import BLUE, GREEN, ORANGE, drawing, panels
from scratchgen.report.transport import transport_decoder


@drawing(
    "vae-map",
    "Three panels in a row. Left, the normal density of the latent z. In the middle the decoder, a steep staircase "
    "from z to x. Right, the density of x with three peaks, which is what the staircase makes of the normal density.",
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
    """What the two Gaussians of a VAE cost."""
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
