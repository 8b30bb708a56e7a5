"""The models of the digits that are in the package: the commands that draw from them, and their bits."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from scratchgen import datasets
from scratchgen.models.loading import load
from scratchgen.report.scores import kind_of, score_rows
from scratchgen.validation import Array

N_IMAGES = 36  # of a picture


class Scored(NamedTuple):
    """Bits a pixel of the test digits, as `scratchgen score NAME digits_test` prints them."""

    name: str
    bits: float
    kind: str  # exact log-likelihood, or the bound of the model


@cache
def scored(name: str) -> Scored:
    """The bits of a model by its name, such as "digits-sde"."""
    model = load(name)
    score = score_rows(model, datasets.digits("test").images, seed=0)
    return Scored(name, float(score.bits.mean()), kind_of(model))


def drawn(name: str) -> Array:
    """The images that `scratchgen sample NAME -n 36` draws, (36, 64)."""
    images: Array = load(name).sample(N_IMAGES, rng=0)
    return images
