"""The digits: every family under one protocol, with floors; the figures' data; the canary; the curves.

Models see the 1437 training images of `datasets.digits`, and hyper-parameters were chosen on `validation`, a part of
them.  The 360 test images serve for the numbers of the table only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from benchmarks.quality import samples
from benchmarks.quality.records import Options, Record, Unit, settings_of, trained
from scratchgen import DDPM, PPCA, VAE, FactorAnalysis, GaussianMixture, Mixture, ScoreSDE, datasets, recipes
from scratchgen.likelihood import log_bin_mass, logsumexp
from scratchgen.metrics import Bits, count_copies, label_summed_bits, model_bits
from scratchgen.metrics.distances import distance_blocks, nearest_distances
from scratchgen.validation import Array, IntArray

N_LEVELS, DIMENSION = 17, 64
FOLD = 5  # every fifth image of a class is for validation
KDE_WIDTH = 1.0  # of the memoriser, in levels
CANARY, N_COPIES = 700, 20  # number of an image of training, and how often it is repeated
GUIDANCE = (1.5, 2.0)  # in the logits
SHOWN, NEAREST = 100, 10  # samples in the grid, and of those nearest to training images
Draw = Callable[[int, np.random.Generator], tuple[Array, IntArray | None]]


@cache
def train_part() -> datasets.Digits:
    """The training images."""
    return datasets.digits("train")


@cache
def held_out_part() -> datasets.Digits:
    """The test images."""
    return datasets.digits("test")


@cache
def validation() -> tuple[datasets.Digits, datasets.Digits]:
    """The training images in two parts: those to fit, and every fifth image of a class to validate."""
    images, labels = train_part()
    rank = np.zeros(len(labels), dtype=int)
    for label in range(10):
        own = np.flatnonzero(labels == label)
        rank[own] = np.arange(len(own))
    held = rank % FOLD == FOLD - 1
    return datasets.Digits(images[~held], labels[~held]), datasets.Digits(images[held], labels[held])


# --- bits -------------------------------------------------------------------------------------------------------------


def bits(model: Any, x: Array, options: Options, labels: IntArray | None = None) -> Bits:
    """Bits a pixel of x with about `n_times` noises an image, on common draws for all models of a class."""
    if isinstance(model, ScoreSDE):
        n = max(options.n_times // 64, 2)
        return model_bits(model, x, labels, n_repeats=n, rng=0, n_times=options.n_times // n)
    if isinstance(model, DDPM):
        return model_bits(model, x, labels, n_repeats=max(-(-options.n_times // model.schedule_.T), 2), rng=0)
    if isinstance(model, VAE):
        return model_bits(model, x, n_repeats=4, rng=0, bound="iwae", n_draws=options.n_times)
    return model_bits(model, x, n_repeats=16 if getattr(model, "n_levels", None) is None else 2, rng=0)


def as_record(found: Bits, name: str = "") -> Record:
    """Bits and their standard errors as JSON."""
    about = {"bits": found.mean, "row_error": found.row_error, "noise_error": found.noise_error}
    return {name + key: value for key, value in about.items()}


def label_bits(model: Any, x: Array, labels: IntArray, options: Options) -> Record:
    """Bits given the label, and with the label summed out."""
    given = bits(model, x, options, labels)
    n = {"n_times": min(options.n_times, 64)} if isinstance(model, ScoreSDE) else {}
    summed = label_summed_bits(model, x, n_repeats=2 if options.quick else 4, rng=0, **n)
    return as_record(given, "given_") | as_record(summed, "summed_")


# --- one unit ---------------------------------------------------------------------------------------------------------


def graded(draw: Draw, options: Options, seed: int, show: bool) -> Record:
    """Metrics of every draw; with `show` also pictures and distances for the figures."""
    train, test = train_part(), held_out_part()
    rng = np.random.default_rng(seed)
    drawn = [draw(options.n_samples, rng) for _ in range(options.n_draws)]
    found: Record = {"draws": [samples.grade(x, y, train, test, i, options.quick) for i, (x, y) in enumerate(drawn)]}
    return found | (pictures(drawn[0][0], train.images) if show else {})


def pictures(x: Array, train: Array) -> Record:
    """Samples for a grid, those nearest to training images beside these, and all distances to training images."""
    distances = nearest_distances(x, train)
    nearest = np.argsort(distances, kind="stable")[:NEAREST]
    neighbours = np.concatenate([to_train.argmin(axis=1) for _, to_train in distance_blocks(x[nearest], train)])
    return {
        "grid": samples.as_letters(x[:SHOWN]),
        "nearest": samples.as_letters(x[nearest]),
        "neighbours": samples.as_letters(train[neighbours]),
        "distances": np.round(distances, 2),
    }


def of_model(model: Any, options: Options, seed: int, title: str, recipe: recipes.Recipe | None = None) -> Unit:
    """Training on all training images, with the copies of a recipe, bits of the test images, and samples."""
    n_classes = getattr(model, "n_classes", 0)

    def run() -> Record:
        train, test = train_part(), held_out_part()
        whole = getattr(model, "n_levels", None) is not None
        x = train.images if whole else datasets.dequantize(train.images, seed)
        if recipe is not None and not options.quick:
            x = recipe.rows(x, seed)
        fitted, seconds = trained(model, x, options, train.labels if n_classes else None)
        held_out, labels = options.few(test.images), options.few(test.labels)
        found = {"seconds": seconds, "steps": len(getattr(fitted, "losses_", ()))} | as_record(
            bits(fitted, held_out, options)
        )
        if n_classes:
            found |= label_bits(fitted, held_out, labels, options)
        return found | graded(drawing(fitted, n_classes), options, seed, show=seed == options.seeds[0])

    copies = 0 if recipe is None else recipe.copies
    return Unit("digits", title, seed, [settings_of(model), copies, options.n_times, options.n_samples], run)


def of_guidance(model: Any, options: Options, seed: int, title: str, guidance: float) -> Unit:
    """Samples with guidance of a model with labels."""

    def run() -> Record:
        train = train_part()
        fitted, _ = trained(model, train.images, options, train.labels)
        return {"seconds": 0.0, "steps": 0} | graded(drawing(fitted, 10, guidance), options, seed, show=False)

    return Unit("digits", title, seed, [settings_of(model), guidance, options.n_samples], run)


def drawing(model: Any, n_classes: int, guidance: float = 1.0) -> Draw:
    """Samples of a model as whole numbers, for labels as often as in training if the model has some."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, IntArray | None]:
        if n_classes:
            labels = rng.choice(train_part().labels, n)
            return model.sample(n, rng=rng, y=labels, guidance=guidance, guidance_in="logits"), labels
        x = model.sample(n, rng=rng)
        x = x[0] if isinstance(x, tuple) else x
        return as_levels(np.floor(x)), None

    return draw


def as_levels(x: Array) -> Array:
    """The nearest levels."""
    return np.clip(np.rint(x), 0, N_LEVELS - 1)


# --- floors -----------------------------------------------------------------------------------------------------------


def train_images(n: int, rng: np.random.Generator) -> tuple[Array, IntArray]:
    """Images of training, each once."""
    train = train_part()
    rows = rng.permutation(len(train.images))[:n]
    return train.images[rows], train.labels[rows]


@cache
def class_histograms() -> Array:
    """Share of every level of a pixel in a class, (10, 64, 17), with one more example spread over the levels."""
    images, labels = train_part()
    one_hot = images[:, :, None] == np.arange(N_LEVELS)
    counts = np.stack([one_hot[labels == label].sum(axis=0) for label in range(10)]) + 1 / N_LEVELS
    return counts / counts.sum(axis=2, keepdims=True)


def from_histograms(n: int, rng: np.random.Generator) -> tuple[Array, IntArray]:
    """Pixels that are independent given the label."""
    labels = rng.choice(train_part().labels, n)
    total = class_histograms()[labels].cumsum(axis=2)
    return (rng.random((n, DIMENSION, 1)) > total[:, :, :-1]).sum(axis=2).astype(float), labels


@cache
def class_gaussians() -> Mixture:
    """A Gaussian for each class, of images plus uniform noise."""
    images, labels = train_part()
    x = datasets.dequantize(images, 0)
    parts = [x[labels == label] for label in range(10)]
    return Mixture(
        np.bincount(labels) / len(labels),
        np.stack([part.mean(axis=0) for part in parts]),
        np.stack([np.cov(part.T, bias=True) + np.eye(DIMENSION) / 12 for part in parts]),
    )


def from_gaussians(n: int, rng: np.random.Generator) -> tuple[Array, IntArray]:
    """Draws of a Gaussian given the label, as levels."""
    labels, law = rng.choice(train_part().labels, n), class_gaussians()
    factor = np.linalg.cholesky(law.covariances)[labels]
    x = law.means[labels] + np.einsum("nij,nj->ni", factor, rng.standard_normal((n, DIMENSION)))
    return as_levels(np.floor(x)), labels


def from_kde(n: int, rng: np.random.Generator) -> tuple[Array, IntArray]:
    """Images of training plus noise: a memoriser."""
    x, labels = train_images(n, rng)
    return as_levels(x + KDE_WIDTH * rng.standard_normal(x.shape)), labels


def histogram_bits(x: Array) -> Array:
    """Bits a pixel of every row under the histograms with the label summed out."""
    given = np.log(class_histograms()[:, np.arange(DIMENSION), x.astype(int)]).sum(axis=2)  # (10, N)
    share = np.bincount(train_part().labels) / len(train_part().labels)
    return -logsumexp(given.T + np.log(share)) / (DIMENSION * np.log(2))


def gaussian_bits(x: Array) -> Array:
    """Bits a pixel of every row under the Gaussians: a bound by uniform noise."""
    law, rng = class_gaussians(), np.random.default_rng(0)
    nats = np.mean([law.log_prob(datasets.dequantize(x, rng)) for _ in range(16)], axis=0)
    return -nats / (DIMENSION * np.log(2))


def kde_bits(x: Array) -> Array:
    """Bits a pixel of every row under the law of `from_kde`, exact."""
    level, centre = (axis.ravel().astype(float) for axis in np.meshgrid(np.arange(17), np.arange(17), indexing="ij"))
    half = 0.5 * (N_LEVELS - 1)
    mass = log_bin_mass(level[:, None], centre[:, None] / half - 1, KDE_WIDTH / half, N_LEVELS).reshape(17, 17)
    train = train_part().images.astype(int)
    nats = [logsumexp(mass[row.astype(int), train].sum(axis=1)) - np.log(len(train)) for row in x]
    return -np.array(nats) / (DIMENSION * np.log(2))


FLOORS: dict[str, tuple[Draw, Callable[[Array], Array] | None]] = {
    "train images": (train_images, None),
    "class histograms": (from_histograms, histogram_bits),
    "class Gaussians": (from_gaussians, gaussian_bits),
    "KDE memoriser": (from_kde, kde_bits),
}


def of_floor(name: str, options: Options, seed: int) -> Unit:
    """Bits and samples of a reference without training."""
    draw, score = FLOORS[name]

    def run() -> Record:
        found: Record = {"seconds": 0.0, "steps": 0}
        if score is not None:
            rows = score(options.few(held_out_part().images))
            found |= as_record(Bits(rows.mean(), rows.std(ddof=1) / len(rows) ** 0.5, 0.0, rows))
        return found | graded(draw, options, seed, show=seed == options.seeds[0])

    return Unit("digits", name, seed, [name, KDE_WIDTH, options.n_samples], run)


# --- parts ------------------------------------------------------------------------------------------------------------

REFERENCES: dict[str, Callable[[int], Any]] = {
    "ppca": lambda seed: PPCA(55, rng=seed),
    "fa": lambda seed: FactorAnalysis(40, rng=seed),
    "gmm": lambda seed: GaussianMixture(80, covariance_type="diag", n_init=3, rng=seed),
}


def units(options: Options) -> Iterator[Unit]:
    """The table of all families; the seeds of one model follow each other."""
    for name in FLOORS:
        yield from (of_floor(name, options, seed) for seed in options.seeds)
    for name, make in REFERENCES.items():
        for seed in options.seeds:
            model = make(seed)
            model.set_params(**options.planned(model.get_params()))
            yield of_model(model, options, seed, name)
    for recipe in recipes.RECIPES:
        if recipe.kind == "digits":
            for seed in options.seeds:
                model = recipes.FAMILIES[recipe.family](**options.planned(dict(recipe.arguments)), rng=seed)
                yield of_model(model, options, seed, f"{recipe.family} {recipe.name}", recipe)
            for guidance in GUIDANCE if "n_classes" in recipe.arguments else ():
                for seed in options.seeds:
                    model = recipes.FAMILIES[recipe.family](**options.planned(dict(recipe.arguments)), rng=seed)
                    title = f"{recipe.family} {recipe.name}, guidance {guidance:g}"
                    yield of_guidance(model, options, seed, title, guidance)


def canary(options: Options) -> Iterator[Unit]:
    """Copies of one image of training among samples, when it is in the training data once and 20 times more."""
    for copies in (0, N_COPIES):
        yield _canary(options, copies)


def _canary(options: Options, copies: int) -> Unit:
    model = ScoreSDE(**options.planned(dict(recipes.find("digits", "sde", "best").arguments)), rng=0)

    def run() -> Record:
        images = train_part().images
        bird = images[CANARY]
        x = np.concatenate([images, np.tile(bird, (copies, 1))])
        fitted, seconds = trained(model, x, options)
        n = options.n_draws * options.n_samples
        drawn = fitted.sample(n, rng=1)
        others = np.sort(np.sqrt(((images - bird) ** 2).sum(axis=1)))[1:]  # without the image itself
        radius = float(others[0] / 2)  # no other image is so near
        return {
            "seconds": seconds,
            "n": n,
            "expected": n * (copies + 1) / len(x),
            "equal": count_copies(drawn, bird),
            "near": count_copies(drawn, bird, radius),
            "radius": radius,
            "nearest_other": float(others[0]),
        }

    return Unit("canary", f"{copies} more copies", 0, [settings_of(model), copies, CANARY], run)


def curves(options: Options) -> Iterator[Unit]:
    """Bits of images of training and of validation images along the training, with and without augmentation."""
    arguments = dict(recipes.find("digits", "sde", "best").arguments)
    versions = {"recipe": arguments}
    if arguments.get("augment") is not None:
        versions["no augmentation"] = {**arguments, "augment": None}
    for name, own in versions.items():
        yield _curve(ScoreSDE(**options.planned(own), rng=0), options, name)


def _curve(model: ScoreSDE, options: Options, name: str) -> Unit:
    def run() -> Record:
        fit, held_out = validation()
        rows = np.random.default_rng(0).permutation(len(fit.images))[: len(held_out.images)]
        sets = {"train": options.few(fit.images[rows]), "validation": options.few(held_out.images)}
        found: Record = {"step": [], "train": [], "validation": []}
        for progress in model.train(fit.images):
            if progress.step % -(-progress.n_steps // 8) == 0 or progress.step == progress.n_steps:
                found["step"].append(progress.step)
                for part, x in sets.items():
                    n_times = min(options.n_times, 128)
                    found[part].append(-float(model.elbo(x, rng=0, n_times=n_times).mean()) / (DIMENSION * np.log(2)))
        return found

    return Unit("curves", name, 0, [settings_of(model), options.n_times], run)


def times(options: Options) -> Iterator[Unit]:
    """Test bits of shorter trainings of every family, for the figure of bits against CPU time."""
    for family, lengths in {"sde": (16, 8), "ddpm": (16, 8), "vae": (16, 8)}.items():
        recipe = recipes.find("digits", family, "best")
        for part in lengths:
            arguments = dict(recipe.arguments) | {"n_steps": recipe.arguments["n_steps"] // part}
            yield _time(recipes.FAMILIES[family](**options.planned(arguments), rng=0), options, f"{family} / {part}")
    for K in (5, 10, 80):
        arguments = dict(recipes.find("digits", "tables", "fast").arguments) | {"n_components": K}
        yield _time(recipes.FAMILIES["tables"](**options.planned(arguments), rng=0), options, f"tables {K}")


def _time(model: Any, options: Options, name: str) -> Unit:
    def run() -> Record:
        fitted, seconds = trained(model, train_part().images, options)
        return {"seconds": seconds} | as_record(bits(fitted, options.few(held_out_part().images), options))

    return Unit("times", name, 0, [settings_of(model), options.n_times], run)
