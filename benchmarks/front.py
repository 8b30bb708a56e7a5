"""The picture of README.md: `python -m benchmarks.front` writes benchmarks/front.png in about a minute.

Above: samples of a trained score SDE on their way from noise to data, over the exact densities of the diffused law.
Below: a DDPM graded against exact numbers, and digits drawn by the shipped model beside test images.  Needs the extra
`demo`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.quality.figures import show
from scratchgen import DDPM, ScoreSDE, datasets, load
from scratchgen.grading import ancestral_density, grade_bound
from scratchgen.report.figures.frame import snapshots

TIMES = (1.0, 0.5, 0.25, 0.1, 1e-3)
STEPS = (10, 25, 50, 100)
REACH = 2.2


def reverse_sde(axes: Any) -> None:
    """Samples of a ScoreSDE trained on 10,000 points of two moons, and the exact density at the same times."""
    law = datasets.two_moons()
    model = ScoreSDE(n_steps=15_000, standardize=False, rng=0).fit(law.sample(10_000, rng=0))
    path = snapshots(model.sample_path(2000, rng=1), TIMES)
    axis = np.linspace(-REACH, REACH, 161)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for panel, t in zip(axes, TIMES, strict=True):
        density = np.exp(law.diffuse(*model.sde_.level(t)).log_prob(plane)).reshape(161, 161)
        panel.imshow(density**0.5, cmap="Greys", origin="lower", extent=(-REACH, REACH) * 2, vmax=1.2)
        panel.scatter(*path[t].T, s=2, color="C0", alpha=0.6, linewidths=0)
        panel.set(title=f"t = {t:g}", xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=(), yticks=())


def ladder(axes: Any) -> None:
    """H(p) ≤ exact −E log p_θ ≤ −ELBO of one DDPM of eight Gaussians in several numbers of steps."""
    law = datasets.eight_gaussians()
    model = DDPM(weighting="bound", step_choice="importance", n_steps=5000, standardize=False, rng=0)
    model.fit(law.sample(20_000, rng=0))
    exact, bound = [], []
    for T in STEPS:
        short = model.respace(T)
        density = ancestral_density(short.schedule_, short.eps_hat, 2, short.variance_)
        exact.append(law.entropy() + density.kl_from(law.log_prob(density.points)))
        bound.append(grade_bound(short.schedule_, short.eps_hat, law, short.variance_).bound)
    axes.plot(STEPS, bound, "o-", color="C0", label="−ELBO, (21)")
    axes.plot(STEPS, exact, "s-", color="C1", label="exact −E log p_θ(x)")
    axes.axhline(law.entropy(), color="C3", label="entropy H(p)")
    axes.set(title="DDPM of eight Gaussians, nats", xlabel="steps of the sampler", xscale="log")
    axes.set(xticks=STEPS, xticklabels=STEPS)
    axes.minorticks_off()
    axes.legend(frameon=False)


def digits(left: Any, right: Any) -> None:
    """The first 48 samples of the model that the package ships, and 48 test images."""
    show(left, load("digits-sde").sample(48, rng=0), 16, "digits drawn by the score SDE in the package")
    show(right, datasets.digits("test").images[:48], 16, "test images")


def main() -> None:
    """Train, draw, write."""
    figure = Figure((11, 5.2), layout="constrained", dpi=100)
    above, below = figure.subfigures(2, 1)
    above.suptitle("Score SDE, (32): samples on their way from noise to data, over the exact density at the same time")
    reverse_sde(above.subplots(1, len(TIMES)))
    parts = below.subplot_mosaic([["ladder", "samples"], ["ladder", "test"]], width_ratios=[1, 1.7])
    ladder(parts["ladder"])
    digits(parts["samples"], parts["test"])
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
