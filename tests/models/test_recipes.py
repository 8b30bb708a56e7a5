"""Recipes: what they build, what they say, and that the fastest one reaches its number."""

import json
from importlib.resources import files

import numpy as np
import pytest

from scratchgen import CategoricalMixture, ScoreSDE, augmentation, datasets, recipes
from scratchgen.metrics import model_bits
from scratchgen.models.network_model import NetworkModel

TITLES = [one.title for one in recipes.RECIPES]


@pytest.mark.parametrize("recipe", recipes.RECIPES, ids=TITLES)
def test_every_recipe_builds_a_model_whose_arguments_are_right_and_whose_steps_are_fixed(recipe):
    model = recipe.build(rng=3)
    model._check_parameters()
    assert type(model) is recipes.FAMILIES[recipe.family]
    assert model.rng == 3
    assert not isinstance(model, NetworkModel) or isinstance(model.n_steps, int)
    assert recipes.find(recipe.kind, recipe.family, recipe.name) is recipe
    assert repr(getattr(recipes, recipe.kind)(recipe.family, recipe.name, 3)) == repr(model)
    assert recipe.name in recipes.listed(recipe.kind, recipe.family).split(", ")


def test_titles_differ_and_all_measurements_are_of_a_recipe():
    assert len(set(TITLES)) == len(TITLES)
    measured = json.loads(files("scratchgen").joinpath("data", "recipes.json").read_text())
    assert set(measured) <= set(TITLES)
    for recipe in recipes.RECIPES:
        assert len(recipe.measured) == len(measured.get(recipe.title, ()))
        assert all(one.spread >= 0 and one.cpu_seconds >= 0 and one.n_seeds >= 1 for one in recipe.measured)


def test_the_best_is_the_default_and_another_name_is_an_error_with_the_names():
    assert repr(recipes.digits("sde")) == repr(recipes.digits("sde", "best"))
    assert type(recipes.digits("sde")) is ScoreSDE
    with pytest.raises(ValueError, match="name must be one of 'best', 'fast', got 'worst'"):
        recipes.digits("tables", "worst")
    with pytest.raises(ValueError, match="family must be one of 'tables', 'vae', 'ddpm', 'sde', got 'gmm'"):
        recipes.digits("gmm")
    with pytest.raises(ValueError, match="kind must be one of 'digits', 'plane', 'tables', got 'images'"):
        recipes.find("images", "vae")


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (datasets.digits("test").images, "digits"),
        (datasets.digits("test").images / 16, "tables"),
        (datasets.digits("test").images + 1, "tables"),
        (datasets.digits("test").images - 1, "tables"),
        (datasets.digits("test").images[:, :63], "tables"),
        (datasets.two_moons().sample(10, rng=0), "plane"),
        (datasets.penguins().measurements, "tables"),
    ],
)
def test_the_kind_of_data_follows_from_columns_and_numbers(x, kind):
    assert recipes.kind_of(x) == kind


def test_the_rows_of_a_recipe_are_the_images_and_their_copies():
    x = datasets.digits("test").images[:4]
    recipe = recipes.find("digits", "tables", "best")
    rows = recipe.rows(x, rng=0)
    assert np.array_equal(rows[:4], x)
    assert np.array_equal(rows[4:], augmentation.copies(x, recipe.copies, recipes.DEFORMATIONS, 0))
    assert recipes.find("digits", "tables", "fast").rows(x) is x


def test_the_command_measures_the_recipe():
    recipe = recipes.find("plane", "ddpm", "fast")
    assert recipe.command == "python -m benchmarks.quality plane --only 'ddpm fast'"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_fastest_recipe_reaches_its_number():
    """One training with the first seed of the measurement, and one of a model that must miss the number."""
    (measured,) = recipes.find("digits", "tables", "fast").measured
    train, test = datasets.digits("train").images, datasets.digits("test").images
    model = recipes.digits("tables", "fast", rng=0)
    tolerance = 4 * measured.spread + 1e-3
    found = model_bits(model.fit(train), test, n_repeats=2).mean
    assert abs(found - measured.expected) < tolerance
    worse = CategoricalMixture(1, n_levels=17, rng=0).fit(train)
    assert model_bits(worse, test, n_repeats=2).mean > measured.expected + 2 * tolerance
    assert np.isfinite(tolerance)
