"""Pictures of score models, (30)-(34)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from scratchgen import VP, datasets
from scratchgen.likelihood import kl_gaussian
from scratchgen.report.book.figures.frame import BLUE, ORANGE, drawing, name_plane, panels
from scratchgen.sde import euler_maruyama, kl_bound, reverse_moments, reverse_times
from scratchgen.validation import Array


def arrows(axis: Any, points: Array, field: Array) -> None:
    """Arrows with the square roots of the field's lengths; the longest is 0.55 long, 1.5 times the grid's spacing."""
    field = field / np.sqrt(np.linalg.norm(field, axis=1, keepdims=True))
    longest = np.linalg.norm(field, axis=1).max()
    axis.quiver(*points.T, *field.T, color=BLUE, width=0.006, angles="xy", scale_units="xy", scale=longest / 0.55)


@drawing(
    "sde-scores",
    "Three maps of a density of eight clusters on a ring, at small, middle and large noise, with arrows of the score. "
    "At small noise the arrows point to the nearest cluster. At large noise they all point to the centre.",
)
def sde_scores() -> Figure:
    """The exact score field at three times."""
    truth, process = datasets.eight_gaussians(), VP()
    axis = np.linspace(-2.6, 2.6, 15)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    fine = np.linspace(-3, 3, 121)
    plane = np.stack(np.meshgrid(fine, fine), axis=-1).reshape(-1, 2)
    figure, axes = panels(1, 3, 2.9, sharex=True, sharey=True)
    for panel, t in zip(axes[0], (0.05, 0.2, 0.6), strict=True):
        law = truth.diffuse(*process.level(t))
        density = np.exp(law.log_prob(plane)).reshape(121, 121)
        panel.pcolormesh(fine, fine, density, cmap="Greys", shading="auto", vmax=1.5 * density.max())
        field = law.score(points)
        arrows(panel, points, field)
        panel.set(title=f"t = {t}", aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    name_plane(axes)
    return figure


@drawing(
    "sde-paths",
    "Three panels with paths over shades of the exact density, t from 0 to 1 on the horizontal axis. The forward SDE: "
    "rough paths from three peaks at the left into one bell at the right. The reverse SDE: rough paths from right to "
    "left that end in the peaks. The probability flow: smooth paths that end in the peaks and never cross.",
)
def sde_paths() -> Figure:
    """Paths of the forward SDE, the reverse SDE and the flow, with the exact score."""
    truth, process, rng = datasets.gaussians_1d(), VP(), np.random.default_rng(4)
    x, times = np.linspace(-3.2, 3.2, 201), np.linspace(0, process.horizon, 201)
    density = np.stack([np.exp(truth.diffuse(*process.level(t)).log_prob(x[:, None])) for t in times.tolist()], axis=1)

    def score(x: Array, t: float) -> Array:
        return truth.diffuse(*process.level(t)).score(x)

    forward = [truth.sample(10, rng)[:, 0]]
    for t, s in pairwise(times):  # the exact transition from t to s
        ratio = np.exp(process.log_scale(s) - process.log_scale(t))
        spread = np.sqrt(process.std(s) ** 2 - (ratio * process.std(t)) ** 2)
        forward.append(ratio * forward[-1] + spread * rng.standard_normal(10))
    shown = {"forward SDE, (31)  →": (times, np.array(forward))}
    grid, start = reverse_times(process, 300, 1e-3, detail=0.2), rng.standard_normal((10, 1))
    for title, stochasticity in (("←  reverse SDE, (32)", 1.0), ("←  probability flow", 0.0)):
        steps = list(euler_maruyama(process, score, start, grid, rng, stochasticity=stochasticity))
        shown[title] = np.array([t for t, _ in steps]), np.array([x[:, 0] for _, x in steps])
    figure, axes = panels(1, 3, 2.8, sharey=True)
    for panel, (title, (t, path)) in zip(axes[0], shown.items(), strict=True):
        panel.pcolormesh(times, x, density**0.5, cmap="Greys", shading="auto", vmax=1.2)
        panel.plot(t, path, lw=0.7, color=BLUE)
        panel.set(title=title, xlabel="t", ylim=(-3.2, 3.2), xlim=(0, 1))
        panel.set_xticks((0, 0.5, 1), ["0", "0.5", "1"])  # short: the ends of neighbours lie side by side
    axes[0, 0].set_ylabel("x")
    return figure


@drawing(
    "sde-bound",
    "Three curves over the size of an error of the score. The bound of equation 34 and the divergence of the reverse "
    "SDE start at zero together, and the divergence stays below the bound. The divergence of the probability flow "
    "rises far above the bound.",
)
def sde_bound() -> Figure:
    """Both sides of (34), and the flow, for s_θ = −(1 + δ)x on data N(0, 1)."""
    process, deltas = VP(), np.linspace(0.0, 0.3, 13)
    zero, one = np.zeros(1), np.eye(1)
    rows = []
    for delta in deltas.tolist():

        def score(x: Array, t: float, delta: float = delta) -> Array:
            return -(1 + delta) * x

        bound = kl_bound(process, lambda t, delta=delta: delta**2, 0.0)  # type: ignore[misc]
        laws = [reverse_moments(process, score, zero, one, stochasticity=c) for c in (1.0, 0.0)]
        rows.append((bound, *(kl_gaussian(zero, one, *law) for law in laws)))
    figure, axes = panels(1, 1, 2.8)
    axis = axes[0, 0]
    for values, color, style, name in zip(
        np.array(rows).T,
        ("black", BLUE, ORANGE),
        ("-", "--", "-."),
        ("the bound, right side of (34)", "KL of the reverse SDE", "KL of the probability flow"),
        strict=True,
    ):
        axis.plot(deltas, values, color=color, ls=style, label=name)
    axis.set(
        title="$s_\\theta = -(1 + \\delta)\\,x$ on data N(0, 1)",
        xlabel="error δ of the score",
        ylabel="nats",
        ylim=(-0.03, 1.2),
        xlim=(0, 0.3),
    )
    axis.legend()
    return figure


@drawing(
    "sde-discretisation",
    "The variance of one step of the discretised SDE over t. With 10 steps the exact value stays below one, and the "
    "first-order value, beta times the length of the step, exceeds one from the middle on. With 100 steps the "
    "two are close.",
)
def sde_discretisation() -> Figure:
    """β_i of (30): exact, and β(t_i)Δt."""
    process = VP()
    figure, axes = panels(1, 2, 2.5)
    for axis, T in zip(axes[0], (10, 100), strict=True):
        t = np.linspace(0, 1, T + 1)
        exact = -np.expm1(-np.diff(process.beta_integral(t)))
        dots = 3 if T == 10 else 0
        axis.plot(t[1:], exact, "o-", color=BLUE, ms=dots, label=r"$1 - \exp(-\int\beta\,dt)$, exact")
        axis.plot(
            t[1:], process.beta(t[1:]) / T, "s--", color=ORANGE, ms=dots, label=r"$\beta(t_i)\,\Delta t$, first order"
        )
        axis.set(title=f"$\\beta_i$ of (30), {T} steps", xlabel="t", ylim=(0, 20.5 / T))
    axes[0, 0].axhline(1, color="0.5", lw=0.8, ls=":")
    axes[0, 0].text(1.0, 1.03, "1", color="0.35", fontsize=8.5, ha="right", va="bottom")
    axes[0, 0].set_ylabel("variance of a step")
    axes[0, 0].legend(loc="upper left")
    return figure
