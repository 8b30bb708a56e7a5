"""Pictures beyond the deck."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from scratchgen import VP, datasets
from scratchgen.report.book.figures.frame import BLUE, GREY, ORANGE, drawing, panels
from scratchgen.sde import exponential_sampler, sinh_times
from scratchgen.validation import Array


@drawing(
    "beyond-orders",
    "Errors of two samplers over the number of steps, on logarithmic axes. The error of DDIM falls along a line of "
    "slope one. That of DPM-Solver++(2M) falls along a line of slope two, and is smaller from the start.",
)
def orders() -> Figure:
    """Error of DDIM and of DPM-Solver++(2M) on the probability flow, with the exact denoiser."""
    law, process, counts = datasets.gaussians_2d(), VP(), (8, 16, 32, 64, 128)
    start = np.random.default_rng(0).standard_normal((200, 2))

    def end(n: int, multistep: bool) -> Array:
        levels = np.array([process.level(t) for t in sinh_times(process, n, 1e-3).tolist()])
        *_, (_, x) = exponential_sampler(law.denoise, start, levels, multistep=multistep)
        return x

    exact = end(2048, True)
    figure, axes = panels(1, 1, 2.7)
    axis = axes[0, 0]
    for multistep, name, color, style in ((False, "DDIM", ORANGE, "s--"), (True, "DPM-Solver++(2M)", BLUE, "o-")):
        errors = [np.sqrt(((end(n, multistep) - exact) ** 2).sum(axis=1).mean()) for n in counts]
        axis.loglog(counts, errors, style, color=color, ms=4, label=name)
        order = 2 if multistep else 1
        slope = errors[-1] * (counts[-1] / np.array(counts, dtype=float)) ** order
        axis.loglog(counts, slope, color=GREY, lw=0.8, ls=":", label="slopes 1 and 2" if multistep else None)
    axis.set(title="root mean square error of samples of the flow", xlabel="number of steps", ylabel="in units of x")
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.minorticks_off()
    axis.legend()
    return figure
