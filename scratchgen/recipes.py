"""Recipes: arguments that are good for a kind of data, with the numbers that they reach and their CPU time.

There are three kinds of data: the digits, sets of points in the plane, and tables of real numbers.  `digits`, `plane`
and `tables` return a configured model without a fit.  A recipe fixes the number of steps, so that its result does not
depend on the machine; its CPU time does.

>>> from scratchgen import recipes
>>> recipes.digits("tables", "fast", rng=0)
CategoricalMixture(n_components=40, n_levels=17, smoothing=8.0, rng=0)
>>> print(recipes.listed("digits", "tables"))
best, fast
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from scratchgen.augmentation import Deformations, copies
from scratchgen.models.categorical_mixture import CategoricalMixture
from scratchgen.models.ddpm import DDPM
from scratchgen.models.estimator import Estimator
from scratchgen.models.gaussian_mixture import GaussianMixture
from scratchgen.models.linear_gaussian import PPCA, FactorAnalysis
from scratchgen.models.score_sde import ScoreSDE
from scratchgen.models.vae import VAE
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import RNG, Array, ArrayLike, as_choice, as_generator, as_samples

DEFORMATIONS = Deformations(1.0, 0.25)  # of the copies for models by EM
KINDS = ("digits", "plane", "tables")
FAMILIES: dict[str, type[Estimator]] = {
    "gmm": GaussianMixture,
    "ppca": PPCA,
    "fa": FactorAnalysis,
    "tables": CategoricalMixture,
    "vae": VAE,
    "ddpm": DDPM,
    "sde": ScoreSDE,
}  # by their names in `scratchgen fit`


class Measured(NamedTuple):
    """The numbers that the models of a recipe reached on one data set, by `python -m benchmarks.quality`."""

    data: str
    metric: str  # with its unit
    expected: float  # mean over `n_seeds` trainings
    spread: float  # their standard deviation
    n_seeds: int
    cpu_seconds: float  # of one training, mean
    machine: str


@dataclass(frozen=True)
class Recipe:
    """A model class with arguments, and the numbers that it reached.

    Attributes
    ----------
    kind : {"digits", "plane", "tables"}
        Kind of data.
    family : str
        Name of the model in `scratchgen fit`.
    name : str
        "best", "fast", "labels" for the digits with their labels, or "long".
    arguments : mapping
        Arguments of the model's constructor, with `n_steps` for a network.
    copies : int
        Number of deformed copies of every image that `rows` adds to the training data; for models by EM, which have no
        argument `augment`.
    """

    kind: str
    family: str
    name: str
    arguments: Mapping[str, Any]
    copies: int = 0

    @property
    def title(self) -> str:
        """Kind, family and name in one text."""
        return f"{self.kind} {self.family} {self.name}"

    @property
    def command(self) -> str:
        """The command that measured the recipe."""
        return f"python -m benchmarks.quality {self.kind} --only '{self.family} {self.name}'"

    @property
    def measured(self) -> tuple[Measured, ...]:
        """The numbers of the recipe, one for each data set that it was measured on."""
        return tuple(Measured(**row) for row in _measurements().get(self.title, ()))

    def build(self, rng: RNG = None) -> Estimator:
        """Return the model without a fit."""
        as_generator(rng)  # a check, which constructors of models leave to the fit
        return FAMILIES[self.family](**self.arguments, rng=rng)

    def rows(self, x: ArrayLike, rng: RNG = None) -> Array:
        """Return the rows to fit the model on: x, (N, D), with `copies` N deformed copies below."""
        x = as_samples(x)
        return np.concatenate([x, copies(x, self.copies, DEFORMATIONS, rng)]) if self.copies else x


@cache
def _measurements() -> dict[str, list[dict[str, Any]]]:
    """Rows of `Measured` by the title of the recipe, from data/recipes.json."""
    text = files("scratchgen").joinpath("data", "recipes.json").read_text(encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = json.loads(text)
    return found


# --- the recipes ------------------------------------------------------------------------------------------------------

_OF_LEVELS: dict[str, Any] = {
    "n_levels": 17,
    "prediction": "levels",
    "network": "residual",
    "hidden": (256, 256),
    "dropout": 0.2,
    "picture": (8, 8),
    "learning_rate": 3e-3,
    "weight_decay": 1.0,
    "ema_decay": 0.999,
}
_FAST = {"augment": Deformations(0.7, 0.3), "n_steps": 1000}
_BEST = {"augment": Deformations(0.7, 0.3), "n_steps": 3600}
_LONG = {"augment": Deformations(0.7, 0.5), "n_steps": 18_000}  # which gain nothing
_IMPORTANCE = {"weighting": "bound", "step_choice": "importance"}
_TABLES = {"n_levels": 17, "smoothing": 8.0}
_OF_VAE: dict[str, Any] = {
    "n_latents": 24,
    "hidden": (256, 256),
    "decoder_variance": "diag",
    "n_levels": 17,
    "augment": Deformations(0.8, 0.3),
}
_CHAIN = {"schedule": NoiseSchedule.log_snr_even(50, 4.5, -7.0), "variance": "law"}
_OF_DDPM = {**_CHAIN, **_IMPORTANCE, **_OF_LEVELS}
_OF_SDE = {"time_choice": "importance", "n_sample_steps": 50, **_OF_LEVELS}
_IN_PLANE = {"n_coordinate_features": 3, "standardize": "global"}
RECIPES = (
    Recipe("digits", "tables", "best", {**_TABLES, "n_components": 120, "max_iter": 20}, copies=20),
    Recipe("digits", "tables", "fast", {**_TABLES, "n_components": 40}),
    Recipe("digits", "vae", "best", {**_OF_VAE, "n_steps": 6000}),
    Recipe("digits", "vae", "fast", {**_OF_VAE, "n_steps": 2000}),
    Recipe("digits", "ddpm", "best", {**_OF_DDPM, **_BEST}),
    Recipe("digits", "ddpm", "fast", {**_OF_DDPM, **_FAST}),
    Recipe("digits", "ddpm", "labels", {**_OF_DDPM, **_BEST, "n_classes": 10}),
    Recipe("digits", "sde", "best", {**_OF_SDE, **_BEST}),
    Recipe("digits", "sde", "fast", {**_OF_SDE, **_FAST}),
    Recipe("digits", "sde", "labels", {**_OF_SDE, **_BEST, "n_classes": 10}),
    Recipe("digits", "sde", "long", {**_OF_SDE, **_LONG}),
    Recipe("plane", "gmm", "best", {"n_components": 40, "n_init": 3}),
    Recipe("plane", "vae", "best", {"n_latents": 2, "hidden": (128, 128), "n_steps": 5000}),
    Recipe("plane", "ddpm", "best", {**_IN_PLANE, **_IMPORTANCE, "n_steps": 90_000}),
    Recipe("plane", "ddpm", "fast", {**_IN_PLANE, **_IMPORTANCE, "n_steps": 15_000}),
    Recipe("plane", "sde", "best", {**_IN_PLANE, "time_choice": "importance", "n_steps": 90_000}),
    Recipe("plane", "sde", "fast", {**_IN_PLANE, "time_choice": "importance", "n_steps": 15_000}),
    Recipe("tables", "gmm", "best", {"n_components": 3, "n_init": 10}),
    Recipe("tables", "ppca", "best", {"n_components": 2}),
    Recipe("tables", "fa", "best", {"n_components": 2}),
    Recipe("tables", "vae", "best", {"n_latents": 2, "n_steps": 1500}),
    Recipe("tables", "ddpm", "best", {**_IMPORTANCE, "n_steps": 1500}),
    Recipe("tables", "sde", "best", {"time_choice": "importance", "n_steps": 1500}),
)


# --- finding one ------------------------------------------------------------------------------------------------------


def digits(family: str, name: str = "best", rng: RNG = None) -> Any:
    """Return the model of a recipe for `datasets.digits` or other pictures of 8 × 8 pixels with 17 levels.

    Parameters
    ----------
    family : {"tables", "vae", "ddpm", "sde"}
    name : str
        "best", "fast", "labels" for a model with the ten labels, or "long"; `listed` has the names of a family.
    rng : int, Generator or None

    Returns
    -------
    model : CategoricalMixture, VAE, DDPM or ScoreSDE
        Without a fit.  The best tables are for the images with copies, `find("digits", "tables").rows(images)`.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    return find("digits", family, name).build(rng)


def plane(family: str, name: str = "best", rng: RNG = None) -> Any:
    """Return the model of a recipe for points of a plane; arguments as for `digits`, without labels.

    "best" is for 100,000 points or more.  With 10,000 its 90,000 steps overfit, and "fast", with 15,000, is better.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    return find("plane", family, name).build(rng)


def tables(family: str, name: str = "best", rng: RNG = None) -> Any:
    """Return the model of a recipe for a table of real numbers; arguments as for `digits`, without labels.

    Raises
    ------
    ValueError
        If there is no such recipe.
    """
    return find("tables", family, name).build(rng)


def find(kind: str, family: str, name: str = "best") -> Recipe:
    """Return a recipe by kind of data, family and name; ValueError, with the names that there are, for another."""
    as_choice(kind, "kind", KINDS)
    as_choice(family, "family", tuple(dict.fromkeys(one.family for one in RECIPES if one.kind == kind)))
    known = {one.name: one for one in RECIPES if (one.kind, one.family) == (kind, family)}
    as_choice(name, "name", tuple(known))
    return known[name]


def listed(kind: str, family: str) -> str:
    """Names of the recipes of a family for a kind of data, in one text; empty if there are none."""
    return ", ".join(one.name for one in RECIPES if (one.kind, one.family) == (kind, family))


def kind_of(x: ArrayLike) -> str:
    """Kind of data of x, (N, D): "digits" for 64 columns of whole numbers 0..16, "plane" for two, "tables" for others.

    Raises
    ------
    TypeError, ValueError
        If x is not an array of real numbers of such a shape.
    """
    x = as_samples(x)
    if x.shape[1] == 64 and np.array_equal(x, np.rint(x)) and x.min() >= 0 and x.max() <= 16:
        return "digits"
    return "plane" if x.shape[1] == 2 else "tables"
