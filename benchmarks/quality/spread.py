"""Where the Fréchet distance of samples comes from: means and variances of samples against those of training images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.quality.digits import bits, drawing, held_out_part, train_images, train_part
from benchmarks.quality.records import Options, Record, Unit, settings_of, trained
from scratchgen import recipes
from scratchgen.metrics import frechet_distance
from scratchgen.validation import Array

AXES = {"1 to 5": slice(0, 5), "6 to 20": slice(5, 20), "21 to 64": slice(20, 64)}
FLOOR = "train images"
N_CALLS = 50  # of the default sampler
CHANGES: dict[str, dict[str, Any]] = {
    "sde labels": {},
    "sde labels, 200 calls of the network": {"n_sample_steps": 200},
    "sde labels, no weight decay": {"weight_decay": 0.0},
}


def variance_ratios(x: Array) -> Record:
    """Variance of x, (n, 64), over that of the training images, summed over groups of their principal axes."""
    train = train_part().images
    own, axes = np.linalg.eigh(np.cov(train.T, bias=True))
    own, along = own[::-1], (x @ axes[:, ::-1]).var(axis=0)
    return {f"variance, axes {name}": float(along[part].sum() / own[part].sum()) for name, part in AXES.items()}


def about(x: Array) -> Record:
    """Fréchet distances of samples to test images and to training images, and ratios of variances."""
    distances = {
        "frechet": frechet_distance(held_out_part().images, x),
        "frechet_train": frechet_distance(train_part().images, x),
    }
    return distances | variance_ratios(x)


def units(options: Options) -> Iterator[Unit]:
    """Training images, and a score SDE with labels and one change, for each seed."""
    for seed in options.seeds:
        yield Unit("frechet", FLOOR, seed, [options.n_samples], lambda seed=seed: of_draws(train_images, options, seed))
    for name, changes in CHANGES.items():
        for seed in options.seeds:
            yield of_model(name, changes, options, seed)


def of_draws(draw: Any, options: Options, seed: int) -> Record:
    """The numbers of every draw."""
    rng = np.random.default_rng(seed)
    return {"draws": [about(draw(options.n_samples, rng)[0]) for _ in range(options.n_draws)]}


def of_model(name: str, changes: dict[str, Any], options: Options, seed: int) -> Unit:
    """Training with one change, bits of the test images given their labels, and samples."""
    arguments = options.planned(dict(recipes.find("digits", "sde", "labels").arguments) | changes)
    model = recipes.FAMILIES["sde"](**arguments, rng=seed)

    def run() -> Record:
        train, test = train_part(), held_out_part()
        sampler = {"n_sample_steps": model.n_sample_steps}
        fitted, seconds = trained(model.set_params(n_sample_steps=N_CALLS), train.images, options, train.labels)
        given = bits(fitted, options.few(test.images), options, options.few(test.labels)).mean
        fitted.set_params(**sampler)
        return {"seconds": seconds, "given_bits": given} | of_draws(drawing(fitted, 10), options, seed)

    return Unit("frechet", name, seed, [settings_of(model), options.n_samples], run)
