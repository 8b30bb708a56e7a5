"""Pictures of the VAEs of a tour."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchgen import datasets
from scratchgen.grading import OneLatent, grade_vae, nearest_gaussian
from scratchgen.report.book.figures.digits import show_digits
from scratchgen.report.book.figures.frame import BLUE, ORANGE, number
from scratchgen.report.figures.frame import EXACT, MODEL, SMALL, drawing, row_of
from scratchgen.report.tour import Tour
from scratchgen.report.transport import transport_decoder


@drawing(
    "vae-digits",
    "Three grids of 64 handwritten digits: test pictures, their reconstructions, and means decoded from random "
    "latents.",
)
def vae_figure(tour: Tour) -> Figure:
    """Digits, their reconstructions, and decoded samples of the prior."""
    figure, (left, middle, right) = row_of(3, 2.75)
    model, x_test = tour.models["vae_levels"], datasets.digits("test").images
    show_digits(left, x_test[:64], 8, "test digits")
    show_digits(middle, model.reconstruct(x_test[:64]), 8, "reconstructions")
    z = np.random.default_rng(tour.seed).standard_normal((64, model.n_latents))
    show_digits(right, model.decode(z), 8, "means at z ~ N(0, I)")
    return figure


@drawing(
    "vae-latents",
    "Left, eight rows of decoded digits, each with one latent going from −2.5 to 2.5. Right, a bar for each latent: "
    "the divergence of its posterior from the prior.",
)
def latents_figure(tour: Tour) -> Figure:
    """Decoded values of each latent, and the mean KL of its posterior."""
    figure, (left, right) = row_of(2, 3.6)
    model, x_test = tour.models["vae_levels"], datasets.digits("test").images
    mean, variance = model.encode(x_test)
    rate = 0.5 * (mean**2 + variance - 1 - np.log(variance)).mean(axis=0)
    order, values = np.argsort(rate)[::-1], np.linspace(-2.5, 2.5, 9)
    z = np.zeros((model.n_latents, len(values), model.n_latents))
    for row, latent in enumerate(order):
        z[row, :, latent] = values
    show_digits(left, model.decode(z.reshape(-1, model.n_latents)), len(values), "one latent −2.5 … 2.5, others 0")
    names = [f"z{latent + 1}" for latent in order]
    for row, name in enumerate(names):
        left.text(-1.5, 9 * row + 4, name, ha="right", va="center")
    right.barh(names, rate[order], color=MODEL)
    right.invert_yaxis()
    right.set(title="KL to the prior, mean of the test digits", xlabel="nats; 0 is a collapsed latent")
    return figure


@drawing(
    "vae-drawback",
    "Three panels: densities of Gaussian decoders and of the trained VAE over a density with three peaks; two costs "
    "over the noise of the decoder; and a posterior that is not Gaussian beside its nearest Gaussian.",
)
def drawback_figure(tour: Tour) -> Figure:
    """Gaussian encoder and decoder: possible densities, their cost in nats, and a posterior that is not Gaussian."""
    figure, (left, middle, right) = row_of(3, 3.0)
    truth, model = datasets.gaussians_1d(), tour.models["one_latent"]
    x = np.linspace(-2.6, 3.0, 400)[:, None]
    left.plot(x, np.exp(truth.log_prob(x)), color=EXACT, label="p(x)")
    for s, style in ((0.5, ":"), (0.2, "--"), (0.05, "-.")):
        left.plot(x, np.exp(truth.diffuse(1.0, s).log_prob(x)), "k", ls=style, lw=1, label=f"exact map, s = {s:g}")
    trained = f"trained, s = {model.decoder_variance_[0] ** 0.5:.2g}"
    left.plot(x, np.exp(grade_vae(model, x).log_prob), color=MODEL, label=trained)
    left.set(title="densities of VAEs", xlabel="x", ylabel="density", ylim=(0, 1.75))
    left.legend(fontsize=SMALL)
    levels = {float(name[4:]): gaps for name, gaps in tour.drawback.items() if name.startswith("s = ")}
    for column, (label, color) in enumerate((("KL(p‖p$_θ$)", BLUE), ("least gap of a Gaussian q", ORANGE))):
        middle.loglog(list(levels), [gaps[column] for gaps in levels.values()], "o-", color=color, label=label)
    middle.axhline(tour.drawback["best Gaussian"][0], color="0.5", ls="--", label="KL(p‖best Gaussian)")
    middle.set(title="cost of the exact map", xlabel="noise s of the decoder", ylabel="nats", ylim=(1e-5, 40))
    middle.legend(fontsize=SMALL)
    s, point = 0.2, -0.3
    decoder = OneLatent(transport_decoder(truth), 2 * np.log(s))
    ((z, log_density),) = decoder.log_joints(np.array([[point]]))
    posterior = np.exp(log_density - log_density.max())
    right.plot(z, posterior / posterior.sum() / (z[1] - z[0]), color=EXACT, label=f"posterior, x = {number(point)}")
    mean, std, kl = nearest_gaussian(z, log_density)
    q = np.exp(-0.5 * ((z - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    right.plot(z, q, color=MODEL, label=f"nearest Gaussian,\nKL {kl:.2f} nats")
    right.set(title=f"a posterior, s = {s:g}", xlabel="z", ylabel="density", xlim=(-2.0, 1.5), ylim=(0, 4.4))
    right.legend(fontsize=SMALL)
    return figure
