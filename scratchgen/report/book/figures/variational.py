"""Pictures of variational inference, (1)-(10)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchgen import Mixture
from scratchgen.em import e_step, free_energy
from scratchgen.report.book.figures.frame import BLUE, GREEN, GREY, ORANGE, PINK, drawing, panels
from scratchgen.validation import Array


@drawing(
    "elbo-gap",
    "Left, bars with the probabilities of three components under four choices of q: uniform, prior, the nearest "
    "component alone, posterior. Right, for each q the log-likelihood of one point is split into the ELBO and the "
    "divergence from q to the posterior. The divergence is zero for the posterior only, and the sum is always "
    "the same.",
)
def elbo_gap() -> Figure:
    """Split log p(x) for four choices of q."""
    law, x = Mixture([0.3, 0.45, 0.25], [[-1.3], [0.1], [1.4]], np.full((3, 1, 1), 0.36)), np.array([[0.7]])
    posterior, log_prob = e_step(x, law)
    nearest = np.where(np.arange(3) == posterior.argmax(), 0.98, 0.01)
    choices = {
        "uniform": np.full(3, 1 / 3),
        "prior": law.weights,
        "nearest": nearest,
        "posterior": np.exp(posterior[0]),
    }
    figure, axes = panels(1, 2, 2.5, width_ratios=(1, 1.6))
    left, right = axes[0]
    for row, (name, q) in enumerate(choices.items()):
        start = 0.0
        for share, color, z in zip(q, (BLUE, ORANGE, GREEN), (1, 2, 3), strict=True):
            left.barh(row, share, left=start, color=color, height=0.6, edgecolor="white", lw=1)
            if row == 0:
                left.text(start + share / 2, -0.75, f"z = {z}", color=color, fontsize=8.5, ha="center", va="bottom")
            start += share
        elbo = float(free_energy(x, np.log(q)[None], law)[0])
        right.barh(row, -elbo, color="#c9ced6", height=0.6)
        right.barh(row, elbo - log_prob[0], left=-elbo, color=PINK, height=0.6) if name != "posterior" else None
        right.text(0.06 - elbo, row, f"−ELBO = {-elbo:.2f}", va="center", fontsize=8.5)
    right.text((-log_prob[0] + 2.68) / 2, 0, "KL, the gap", ha="center", va="center", fontsize=8.5)
    left.set(title=r"$q(z \mid x)$", xlabel="probability", yticks=range(4), xticks=(0, 1), xlim=(0, 1))
    left.set_yticklabels(choices)
    right.axvline(-log_prob[0], color=BLUE, lw=1.6)
    right.text(-log_prob[0], -0.75, f" −log p(x) = {-log_prob[0]:.2f}", color=BLUE, fontsize=8.5, va="bottom")
    right.set(
        title=r"$-\mathrm{ELBO} = -\log p(x) + \mathrm{KL}(q \Vert p(z \mid x))$",
        xlabel="nats",
        yticks=[],
        ylim=(3.6, -1.1),
        xlim=(0, 3.6),
        xticks=range(4),
    )
    left.set_ylim(3.6, -1.1)
    return figure


def two_components(theta: float) -> Mixture:
    """0.5 N(−1, 0.5²) + 0.5 N(θ, 0.5²)."""
    return Mixture([0.5, 0.5], [[-1.0], [theta]], [[[0.25]], [[0.25]]])


def joint_kl(p: Mixture, theta: float, theta_of_q: float) -> float:
    """KL(p(x) q(z | x)‖p_θ(x, z)), nats, for q = p_θ'(z | x) with another θ'."""

    def gap(x: Array) -> Array:
        elbo = free_energy(x, e_step(x, two_components(theta_of_q))[0], two_components(theta))
        return np.asarray(p.log_prob(x) - elbo)[:, None]

    return float(p.expectation(gap)[0])


@drawing(
    "touching",
    "Curves over one parameter. The divergence between the marginals is a curve with its minimum at the true value 1. "
    "Three curves of the joint divergence, each for one fixed q, lie above it, and each touches it at one point, where "
    "q is the posterior.",
)
def touching() -> Figure:
    """Marginal KL over θ, and the joint KL for three fixed q."""
    p, thetas = two_components(1.0), np.linspace(-0.2, 2.4, 61)
    figure, axes = panels(1, 1, 3.0)
    axis = axes[0, 0]
    marginal = np.array([joint_kl(p, theta, theta) for theta in thetas])
    axis.plot(thetas, marginal, color="black", lw=2.2, label=r"marginal: $\mathrm{KL}(p(x) \Vert p_\theta(x))$")
    for start, color, style in ((0.3, BLUE, "-"), (0.7, GREEN, "--"), (1.7, ORANGE, "-.")):
        values = np.array([joint_kl(p, theta, start) for theta in thetas])
        axis.plot(thetas, values, color=color, ls=style, label=f"joint, q is the posterior at θ = {start}")
        axis.plot(start, joint_kl(p, start, start), "o", color=color, ms=6)
        best = thetas[values.argmin()]
        axis.plot(best, values.min(), "v", color=color, ms=6, mfc="white")
    axis.plot([], [], "o", color=GREY, label="touches where q is the posterior")
    axis.plot([], [], "v", color=GREY, mfc="white", label="minimum over θ for this q")
    title = r"$\mathrm{KL}(p(x)\, q(z \mid x) \Vert p_\theta(x, z))$ for three fixed q"
    axis.set(title=title, xlabel="θ", ylabel="nats", ylim=(-0.03, 0.75), xlim=(-0.2, 2.4))
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    return figure
