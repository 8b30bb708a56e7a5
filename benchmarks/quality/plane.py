"""Points of a plane, whose density is known, and a table of real numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality.records import Options, Record, Unit, settings_of, trained
from scratchgen import DDPM, ScoreSDE, datasets, recipes
from scratchgen.grading import grade_bound, grade_kl_bound, grade_score_sde
from scratchgen.law import Law
from scratchgen.validation import Array

N_TRAIN, N_TEST, N_FLOW = 10_000, 10_000, 1000
N_MANY = 100_000  # points for the recipes of 90,000 steps, which overfit N_TRAIN
RTOL = 1e-3  # of the integral over time in (34)
LAWS: dict[str, Callable[[], Law]] = {
    "eight_gaussians": datasets.eight_gaussians,
    "two_moons": datasets.two_moons,
    "checkerboard": datasets.checkerboard,
}
OTHER_LAWS: dict[str, Callable[[], Law]] = {
    "rings": datasets.rings,
    "spirals": datasets.spirals,
    "swiss_roll": datasets.swiss_roll,
    "gaussian_grid": datasets.gaussian_grid,
    "pinwheel": datasets.pinwheel,
}


class Model(NamedTuple):
    """A model with a name."""

    name: str
    cls: type
    arguments: dict[str, Any]
    n_train: int = N_TRAIN


def models(kind: str) -> Iterator[Model]:
    """The recipes of a kind of data; for the plane also the models as they are by default."""
    for recipe in recipes.RECIPES:
        if recipe.kind == kind:
            many = kind == "plane" and recipe.family in ("ddpm", "sde") and recipe.name == "best"
            arguments, n_train = dict(recipe.arguments), N_MANY if many else N_TRAIN
            yield Model(f"{recipe.family} {recipe.name}", recipes.FAMILIES[recipe.family], arguments, n_train)
    if kind == "plane":
        best = dict(recipes.find("plane", "sde", "best").arguments)
        yield Model("sde of best on 10,000 points", ScoreSDE, best)
        yield Model("ddpm default", DDPM, {})
        yield Model("sde default", ScoreSDE, {})
        yield Model("sde default, 15000 steps", ScoreSDE, {"n_steps": 15_000})
        no_features = dict(recipes.find("plane", "sde", "fast").arguments) | {"n_coordinate_features": 0}
        yield Model("sde fast, no coordinate features", ScoreSDE, no_features)


def units(options: Options) -> Iterator[Unit]:
    """KL(p || p_θ), nats, of every model on three laws, and of `sde fast` on the others."""
    for name, make in LAWS.items():
        for model in models("plane"):
            yield from (_unit(name, make, model, options, seed) for seed in options.seeds)
    fast = next(model for model in models("plane") if model.name == "sde fast")
    for name, make in OTHER_LAWS.items():
        yield from (_unit(name, make, fast, options, seed) for seed in options.seeds)


def _unit(data: str, make: Callable[[], Law], model: Model, options: Options, seed: int) -> Unit:
    arguments = options.planned(model.arguments or ({"n_steps": 20} if options.quick else {}))
    unfitted = model.cls(**arguments, rng=seed)

    def run() -> Record:
        law = make()
        fitted, seconds = trained(unfitted, law.sample(model.n_train, seed), options)
        x = options.few(law.sample(N_TEST, 1000))
        found = {"seconds": seconds, "data": data}
        if isinstance(fitted, DDPM | ScoreSDE):
            found |= kl_bound(fitted, law, x)
        elif not hasattr(fitted, "log_prob"):
            found |= kl("bound", law.log_prob(x) - fitted.elbo(x, rng=0))
        if hasattr(fitted, "log_prob"):
            some = x[:N_FLOW] if isinstance(fitted, ScoreSDE) else x  # of a score SDE: the law of its flow
            found |= kl("exact", law.log_prob(some) - fitted.log_prob(some))
        return found

    return Unit("plane", f"{data}, {model.name}", seed, [settings_of(unfitted), model.n_train, N_TEST], run)


def kl_bound(model: DDPM | ScoreSDE, law: Law, x: Array) -> Record:
    """Bound of KL(p‖p_θ), nats, by quadrature: (34), or (21) minus the entropy; with (34) also its left side.

    A network that is trained for long may throw points too far for the grid of the left side, which is then missing.
    The error of a network at one time may also be too rough for the quadrature; the bound is then the mean over x, with
    its standard error.
    """
    own = law.standardized(model.mean_, model.scale_)
    try:
        if isinstance(model, DDPM):
            grade = grade_bound(model.schedule_, model.eps_hat, own, model.variance_)
            return {"bound": grade.bound - grade.entropy}
        try:
            sides = grade_score_sde(model, law, rtol=RTOL)
        except ArithmeticError:
            return {"bound": grade_kl_bound(model.sde_, model.predict_score, own, model.t_min, RTOL).bound}
        return {"bound": sides.bound, "sampler": sides.kl}
    except ArithmeticError:
        return kl("bound", law.log_prob(x) - model.elbo(x, rng=0))


def kl(name: str, log_ratio: Array) -> Record:
    """Mean of log p/p_θ over draws of p, nats, and its standard error."""
    return {name: log_ratio.mean(), f"{name}_error": log_ratio.std(ddof=1) / len(log_ratio) ** 0.5}


def tables(options: Options) -> Iterator[Unit]:
    """Nats a column of every fifth penguin, after training on the others."""
    x = datasets.penguins().measurements
    held_out = np.random.default_rng(0).permutation(len(x)) < len(x) // 5
    for model in models("tables"):
        for seed in options.seeds:
            yield _table(model.name, model.cls(**options.planned(model.arguments), rng=seed), x, held_out, options)


def _table(name: str, unfitted: Any, x: Array, held_out: Array, options: Options) -> Unit:
    def run() -> Record:
        fitted, seconds = trained(unfitted, x[~held_out], options)
        exact = hasattr(fitted, "log_prob") and not isinstance(fitted, ScoreSDE)
        nats = fitted.log_prob(x[held_out]) if exact else fitted.elbo(np.repeat(x[held_out], 8, axis=0), rng=0)
        return {"seconds": seconds, "data": "penguins", "nats": -nats.mean() / x.shape[1]}

    return Unit("tables", name, unfitted.rng, settings_of(unfitted), run)
