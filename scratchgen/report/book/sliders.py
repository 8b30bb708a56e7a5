"""The sliders of the book: their numbers, computed by the package's functions, and their places in the pictures.

A picture with a slider is complete without it.  The page holds the numbers as JSON, and `book.js` shows those of the
slider's value.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np

from scratchgen import VP, datasets
from scratchgen.report.book.figures import FIGURES
from scratchgen.report.book.figures.ddpm import LADDER, ladder
from scratchgen.report.book.figures.frame import STYLE
from scratchgen.report.book.figures.vae import BETAS, beta_vae
from scratchgen.validation import Array


class Slider(NamedTuple):
    """A control beside a picture, and the numbers at every value of it."""

    label: str  # what the control changes
    symbol: str  # the symbol of the value
    values: tuple[float, ...]
    start: int  # index of the value before anybody moves the slider
    rows: dict[str, Array]  # name of a quantity → its value at every place
    digits: int  # of the numbers
    unit: str = ""
    marked: bool = True  # the values stand on the first horizontal axis of the picture
    map: dict[str, Any] | None = None  # points and arrows of the plane, for a drawing

    def as_json(self, figure: str) -> str:
        """The numbers for `book.js`."""
        data: dict[str, Any] = {
            "symbol": self.symbol,
            "values": self.values,
            "rows": {name: np.round(numbers, self.digits).tolist() for name, numbers in self.rows.items()},
            "digits": self.digits,
            "unit": self.unit,
        }
        data |= places(figure, self.values) if self.marked else {}
        data |= {"map": self.map} if self.map else {}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def places(figure: str, values: tuple[float, ...]) -> dict[str, Any]:
    """Where values stand in the first axes of a picture, as shares of its width; top and height of these axes."""
    with mpl.rc_context(STYLE):
        drawn = FIGURES[figure]()
        drawn.draw_without_rendering()
    axis = drawn.axes[0]
    box = axis.get_position()
    pixels = axis.transData.transform([(value, axis.get_ylim()[0]) for value in values])
    return {
        "places": np.round(pixels[:, 0] / drawn.bbox.width, 4).tolist(),
        "top": round(1 - box.y1, 4),
        "height": round(box.height, 4),
    }


def score_field() -> Slider:
    """Eight Gaussians at eleven times: 250 points, and the exact score on a grid."""
    law, process = datasets.eight_gaussians(), VP()
    times = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
    rng = np.random.default_rng(0)
    axis = np.linspace(-2.5, 2.5, 12)  # the score is 0 at the centre, which is no point of this grid
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    levels = [process.level(t) for t in times]
    scores = np.stack([law.diffuse(*level).score(grid) for level in levels])
    lengths = np.linalg.norm(scores, axis=2, keepdims=True)
    arrows = 0.6 * scores / np.sqrt(lengths * lengths.max(axis=1, keepdims=True))
    scale, std = np.array(levels).T
    return Slider(
        "Time of the forward process, from data to noise",
        "t",
        times,
        3,
        {
            "scale of the data": scale,
            "std of the noise": std,
            "score of the longest arrow": lengths.max(axis=(1, 2)),
        },
        2,
        marked=False,
        map={
            "x0": np.round(law.sample(250, rng), 2).tolist(),
            "noise": np.round(rng.standard_normal((250, 2)), 2).tolist(),
            "grid": grid.tolist(),
            "arrows": np.round(arrows, 2).tolist(),
            "scale": np.round(scale, 4).tolist(),
            "std": np.round(std, 4).tolist(),
        },
    )


def ladder_of_steps() -> Slider:
    """Entropy, exact cross-entropy and bound of the exact noise predictor over the number of steps."""
    found = ladder()
    rows = {
        "entropy": np.full(len(LADDER), found.entropy),
        "exact cross-entropy with σ² = β²": found.entropy + found.exact,
        "bound with σ² = β²": found.entropy + found.bound,
        "bound with the best σ²": found.entropy + found.best,
    }
    return Slider("Number of steps of the chain", "T", LADDER, LADDER.index(16), rows, 4, " nats")


def weight_of_kl() -> Slider:
    """The ELBO, its terms and its gap over the weight of the β-VAE."""
    found = beta_vae()
    rows = {
        "reconstruction": found.reconstruction,
        "KL to the prior": found.kl,
        "ELBO": found.elbo,
        "log-likelihood": np.full(len(BETAS), found.log_prob),
        "gap": found.log_prob - found.elbo,
    }
    return Slider("Weight of the KL divergence", "β", BETAS, BETAS.index(1), rows, 3, " nats")


SLIDERS: dict[str, Callable[[], Slider]] = {  # name of the picture → its slider
    "sde-scores": score_field,
    "ddpm-ladder": ladder_of_steps,
    "vae-beta": weight_of_kl,
}
