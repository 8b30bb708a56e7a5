"""Classifier-free guidance (Ho and Salimans 2022): a network with labels and one without, in one prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchgen.nn.categorical_denoiser import CategoricalDenoiser
from scratchgen.nn.labels import guided
from scratchgen.nn.noise_network import NoiseNetwork
from scratchgen.validation import Array, IntArray, as_choice, as_guidance

GUIDED = ("eps", "logits")  # quantities that guidance can mix


@dataclass(frozen=True, eq=False)
class GuidedNetwork:
    """ε̂ of a network for rows with given labels y, as a function of x_t and the noise level.

        "eps"     ε̂(x_t) + w (ε̂(x_t, y) − ε̂(x_t))
        "logits"  (x_t − scale E[x_0])/std, with the mean of the law with the logits
                  log P(l_k | x_t) + w (log P(l_k | x_t, y) − log P(l_k | x_t)) + const

    w = 0 is the model without labels, w = 1 that of p(x | y); larger w strengthen the dependence on the label.  In the
    logits the law of a dimension is ∝ P(l_k | x_t)^(1 − w) P(l_k | x_t, y)^w, by Bayes' rule ∝ P(l_k | x_t) P(y | l_k,
    x_t)^w.  It remains a law over the levels: E[x_0] stays among them, and a level that is impossible with the label or
    without it stays impossible.  Guidance in ε̂ moves E[x_0] along a line, without end.

    Parameters
    ----------
    network : NoiseNetwork or CategoricalDenoiser
    labels : (N,) of int, optional
        y of every row; None is the model without labels.
    guidance : float
        w.  Values other than 1 need labels, and two calls of the network.  Ho and Salimans (2022) call w − 1 w.
    guidance_in : {"eps", "logits"}
        Quantity that is mixed.  "logits" needs a CategoricalDenoiser.

    Raises
    ------
    TypeError, ValueError
        If guidance is not a finite number, is not 1 without labels, or guidance_in is not possible.
    """

    network: NoiseNetwork | CategoricalDenoiser
    labels: IntArray | None = None
    guidance: float = 1.0
    guidance_in: str = "eps"

    def __post_init__(self) -> None:
        as_guidance(self.guidance, self.labels)
        as_choice(self.guidance_in, "guidance_in", GUIDED)
        if self.guidance_in == "logits" and not isinstance(self.network, CategoricalDenoiser):
            raise ValueError(
                "guidance_in must be 'eps' for a network without a law over levels, got 'logits'; pass 'eps', or train "
                "with prediction='levels'"
            )

    def __call__(self, x: Array, scale: Array | float, std: Array | float, **given: Any) -> Array:
        """ε̂, (N, D), for x (N, D), scale and std (N,) or numbers; further arguments are those of the network."""
        if self.guidance_in == "logits":
            return self._law_network(x, scale, std, self.labels, self.guidance)
        told = self.network(x, scale, std, labels=self.labels, **given)
        if self.guidance == 1:
            return told
        return guided(self.network(x, scale, std, **given), told, self.guidance)

    def law(self, x: Array, scale: Array | float, std: Array | float) -> Array:
        """P(x_0d = l_k | x_t), (N, D, n_levels), of a CategoricalDenoiser; with guidance in ε̂ that given the labels."""
        return self._law_network.law(x, scale, std, self.labels, self._guidance_of_law)

    def draw(self, rng: np.random.Generator, x: Array, scale: Array | float, std: Array | float) -> Array:
        """Draw whole numbers x_0 from `law`, (N, D)."""
        return self._law_network.draw(rng, x, scale, std, self.labels, self._guidance_of_law)

    @property
    def _law_network(self) -> CategoricalDenoiser:
        """The network, which has a law over levels; TypeError for others."""
        if not isinstance(self.network, CategoricalDenoiser):
            raise TypeError(f"network must be a CategoricalDenoiser, got {self.network!r:.60}; train one")
        return self.network

    @property
    def _guidance_of_law(self) -> float:
        return self.guidance if self.guidance_in == "logits" else 1.0
