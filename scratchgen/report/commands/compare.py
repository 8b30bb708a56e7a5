"""`scratchgen compare DATA MODEL.npz ...`: samples of models against data, beside data against data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen.metrics import Comparison, Estimate, compare, label_summed_bits, train_on_synthetic
from scratchgen.metrics.distances import nearest_distances
from scratchgen.models.estimator import Estimator
from scratchgen.models.loading import load
from scratchgen.models.progress import say_on_stderr
from scratchgen.report.options import MODEL, Commands, add_command, add_data_options, choice_of, count, seed
from scratchgen.report.scores import check_labels, known_names, left_early, score_rows
from scratchgen.report.tables import Data, read
from scratchgen.report.text import CommandError, say, table
from scratchgen.validation import Array, IntArray

DRAWS = 3  # of every model
FEWEST, MOST = 10, 1000  # samples of a draw: at least, and at most without -n
LONGEST = 14  # characters of a model's name
TITLES = {
    "frechet_distance": "Frechet distance",
    "mmd2": "MMD^2 x 1e4",
    "sliced_wasserstein2": "sliced W2^2",
    "two_sample_accuracy": "two-sample test",
    "forest_accuracy": "forest's test",
    "nearest_train_ratio": "nearest train",
}
BETTER = {  # rows of the table by their best values
    "lower is better": (
        *("Frechet distance", "MMD^2 x 1e4", "sliced W2^2"),
        *("bits a column", "bits given label", "bits, summed out"),
    ),
    "higher is better": ("precision", "recall", "coverage", "train on samples"),
    "best near 1": ("density", "nearest train"),
    "best near .5": ("two-sample test", "forest's test"),
}

HELP = """\
Compare samples of models with data, by the metrics of scratchgen.metrics, each beside its floor.

DATA is split at random into two halves. The floor is the metric of one half against the other, and the value of a model
is that of its samples against the same half. With --train the floor takes rows of TRAIN, and the samples are compared
with all rows of DATA. Values are means over three draws, +- their standard deviation.

  Frechet distance  of Gaussians with the same moments; 0 at best
  MMD^2             with a Gaussian kernel; 0 on average for one law
  sliced W2^2       transport along 100 directions; 0 at best
  precision         share of the samples that are near data
  recall            share of the data that are near samples
  density           as precision, but a mean number; 1 for one law
  coverage          share of the data with a sample near by
  two-sample test   accuracy of an MLP that tells samples from data; .5 at best
  forest's test     with --forest: the same by a forest of scikit-learn
  nearest train     with --train: distance of samples to the nearest row of TRAIN over that of DATA; below 1 is copying
  train on samples  with --labels, for models with labels: accuracy on data of an MLP that was trained on samples
  bits a column     of the same rows of DATA: the exact log-likelihood, or a bound, (7), (20) or (34)
  bits given label  with --labels, for models with labels: the bound of log p(x|label)
  bits, summed out  for whole numbers: log sum_y P(y) p(x|y), with the shares of the labels in the other rows as P(y)

Columns of whole numbers keep their units, and bits are shown for models of whole numbers only (n_levels). Otherwise
every column is divided by its standard deviation, and bits are those of a density in the units of the columns.

DATA should have no rows that a model was trained on: a model that copies them would look right.

Example:
  scratchgen fit tables digits_train -o tables.npz --set n_components=40
  scratchgen compare digits_test tables.npz --train digits_train

Typical time: 15 s for 360 rows of 64 columns."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "compare", HELP, run)
    add_data_options(parser, weights=False)
    parser.add_argument("files", type=Path, nargs="+", metavar="MODEL.npz", help=MODEL)
    parser.add_argument("--train", metavar="TRAIN", help="the table that the models were trained on")
    parser.add_argument("--forest", action="store_true", help="add a two-sample test that needs scikit-learn")
    parser.add_argument(
        "-n", type=count, metavar="N", help="samples of a draw (default: as many as rows, at most 1000)"
    )
    parser.add_argument("--seed", type=seed, default=argparse.SUPPRESS, help="of halves and draws (default 0)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    models = {name: load(file) for name, file in zip(_names(options.files), options.files, strict=True)}
    rng = np.random.default_rng(options.seed)
    held_out, others = _parts(options, known_names(next(iter(models.values()))), rng)
    for file, model in zip(options.files, models.values(), strict=True):
        _check(file, model, held_out)
        if unfinished := left_early(model, file):
            say(unfinished)
    n = min(len(held_out.x), len(others.x), MOST) if options.n is None else options.n
    if not FEWEST <= n <= len(others.x):
        raise CommandError(f"-n must be in {FEWEST}..{len(others.x)}, the rows for the floor, got {n}")
    source = f"rows of {options.train}" if options.train is not None else f"other rows of {options.data}"
    say(f"{DRAWS} draws of {n} samples against {len(held_out.x)} rows of {options.data}; floor: {n} {source}")
    if options.train is None:
        say(
            f"if a model was trained on {options.data}, its numbers are too good: name the table of its training with "
            "--train, and rows that no model has seen as DATA"
        )
    labels = None if others.labels is None else [rng.choice(others.labels, n) for _ in range(DRAWS)]
    draws = dict[str, list[Array]]()
    for name, model in models.items():
        say_on_stderr(f"compare: samples of {name}")
        draws[name] = _draws(model, n, labels, rng)
    whole = bool((held_out.x == np.rint(held_out.x)).all())
    scale = np.ones(held_out.x.shape[1]) if whole else held_out.x.std(axis=0)
    scale[scale == 0] = 1.0
    x, y = held_out.x / scale, others.x / scale
    train = None if options.train is None else y
    if train is not None and np.array_equal(x, y):
        say(
            f"TRAIN {options.train} and DATA {options.data} are the same table, so that the floor means nothing, and "
            "there is no row 'nearest train'; name rows that no model has seen as DATA"
        )
        train = None
    elif train is not None and np.median(nearest_distances(x, train)) == 0:
        say(f"half of the rows of {options.data} or more are also in {options.train}: no row 'nearest train'")
        train = None
    scaled = {name: [samples / scale for samples in parts] for name, parts in draws.items()}
    say_on_stderr("compare: metrics of the samples")
    found = compare(x, y, scaled, train, rng=rng, forest=options.forest)
    if labels is not None:
        synthetic = {name: parts for name, parts in draws.items() if _n_classes(models[name])}
        found.append(_train_on_samples(held_out, others, synthetic, labels, rng))
    rows = [_row(row, list(models)) for row in found]
    say_on_stderr("compare: bits")
    rows.append(["bits a column", "-", *(_bits(model, held_out, whole, options.seed) for model in models.values())])
    if labels is not None and any(map(_n_classes, models.values())):
        given = [_bits_given_labels(model, held_out, whole, options.seed) for model in models.values()]
        rows.append(["bits given label", "-", *given])
        if any(map(_has_label_sum, models.values())):
            summed = [_bits_summed_out(model, held_out, others, options.seed) for model in models.values()]
            rows.append(["bits, summed out", "-", *summed])
        else:
            say("no row 'bits, summed out': it is for models of whole numbers, with --set n_levels=N in `fit`")
    densities = [name for name, model in models.items() if whole and not _has_levels(model)]
    if densities:
        say(
            f"no bits for {', '.join(densities)}: all cells are whole numbers, and the model has a density; fit "
            "tables, or vae, ddpm or sde with --set n_levels=N"
        )
    for line in table(["", "floor", *models], rows, "l" + "r" * (1 + len(models))):
        print(line)
    print()
    for direction, titles in BETTER.items():
        say(f"  {direction:16}  {', '.join(row[0] for row in rows if row[0] in titles)}")
    say("  floor             data against data: a good model is near it in every row")
    return 0


def _names(paths: Sequence[Path]) -> list[str]:
    """Heads of the columns: names of the files without their ending, cut, and with a number where they repeat."""
    names = list[str]()
    for i, path in enumerate(paths, 1):
        name = path.stem[:LONGEST]
        names.append(name if name not in names else f"{name[: LONGEST - 4]} ({i})")
    return names


def _parts(options: argparse.Namespace, known: Sequence[str], rng: np.random.Generator) -> tuple[Data, Data]:
    """The rows held out, and those for the floor: two halves of DATA, or DATA and TRAIN."""
    data = read(options.data, choice_of(options), known=known)
    say(data.about)
    if options.train is not None:
        train = read(options.train, choice_of(options), known=known)
        say(train.about)
        if (train.names, train.classes) != (data.names, data.classes):
            raise CommandError(
                f"--train {options.train} must have the columns and labels of {options.data}; choose with --columns"
            )
        parts = data, train
    else:
        order = rng.permutation(len(data.x))
        parts = data.take(order[: len(order) // 2]), data.take(order[len(order) // 2 :])
    if min(len(part.x) for part in parts) < FEWEST:
        raise CommandError(f"{data.about}: a comparison needs {FEWEST} rows for the samples and {FEWEST} for the floor")
    return parts


def _n_classes(model: Estimator) -> int:
    """Number of labels of a model, 0 without."""
    return getattr(model, "n_classes", 0)


def _check(file: Path, model: Estimator, data: Data) -> None:
    """Raise CommandError unless the model has the columns and the labels of the data."""
    if model.n_features_in_ != len(data.names):
        raise CommandError(
            f"{file} was trained on {model.n_features_in_} columns, and the data have {len(data.names)}; choose them, "
            "in the order of training, with --columns, or leave others out with --drop"
        )
    if data.named and known_names(model) not in ((), data.names):
        raise CommandError(f"{file} was trained on other columns than the first model; compare models of the same ones")
    if data.labels is not None and _n_classes(model) not in (0, len(data.classes)):
        raise CommandError(
            f"{file} has {_n_classes(model)} labels, and the data have {len(data.classes)}; leave --labels out, with "
            "--drop for its column"
        )
    if _n_classes(model):
        check_labels(file, model, data)


def _draws(model: Any, n: int, labels: list[IntArray] | None, rng: np.random.Generator) -> list[Array]:
    """DRAWS sets of n samples, for labels (n,) if there are some and the model takes them."""
    if labels is None or not _n_classes(model):
        return [model.sample(n, rng=rng) for _ in range(DRAWS)]
    return [model.sample(n, rng=rng, y=own) for own in labels]


def _train_on_samples(
    held_out: Any, others: Any, draws: dict[str, list[Array]], labels: list[IntArray], rng: np.random.Generator
) -> Comparison:
    """Accuracy on the rows held out, after training on n other rows for the floor, and on n samples."""
    n, N = len(labels[0]), len(others.x)
    own = [rng.permutation(N)[:n] for _ in labels]
    pairs = {"": [(others.x[rows], others.labels[rows]) for rows in own]}
    pairs |= {name: list(zip(parts, labels, strict=True)) for name, parts in draws.items()}
    values = {
        name: [train_on_synthetic(held_out.x, held_out.labels, x, y, rng).accuracy for x, y in sets]
        for name, sets in pairs.items()
    }
    found = {name: Estimate.of(accuracies) for name, accuracies in values.items()}
    floor = found.pop("")
    return Comparison("train on samples", floor._replace(spread=None) if n > N / 2 else floor, found)


def _row(row: Comparison, models: Sequence[str]) -> list[str]:
    """Cells of a row; "-" for a model without a value."""
    estimates = [row.floor, *(row.values.get(name) for name in models)]
    cells = ["-" if one is None else _text(row.metric, one.mean, one.spread) for one in estimates]
    return [TITLES.get(row.metric, row.metric), *cells]


def _text(metric: str, mean: float, spread: float | None) -> str:
    """Mean +- spread with as many decimals as 14 characters allow, such as .9620 +- .0081, and 34.41 +- 0.52."""
    numbers = [(1e4 if metric == "mmd2" else 1.0) * number for number in (mean, spread) if number is not None]
    size = max(map(abs, numbers))
    decimals = 4 if size < 1 else max(4 - len(str(int(size))), 0)
    if metric == "mmd2":  # which may be negative
        decimals = min(decimals, int(size < 100))
    words = [f"{number:.{decimals}f}" for number in numbers]
    return " +- ".join(word.removeprefix("0") if decimals > 0 and size < 1 else word for word in words)


def _has_levels(model: Estimator) -> bool:
    """Whether the model has probabilities of whole numbers, and no density."""
    return getattr(model, "n_levels", None) is not None


def _has_label_sum(model: Estimator) -> bool:
    """Whether the model has probabilities of whole numbers given a label."""
    return bool(_n_classes(model)) and _has_levels(model)


def _bits_given_labels(model: Estimator, data: Data, whole: bool, seed: int) -> str:
    """Bits a column given the labels; "-" for a model without labels."""
    return _bits(model, data, whole, seed, data.labels) if _n_classes(model) else "-"


def _bits_summed_out(model: Any, held_out: Data, others: Any, seed: int) -> str:
    """Bits a column with the labels summed out; "-" for a model that has none."""
    if not _has_label_sum(model):
        return "-"
    prior = np.bincount(others.labels, minlength=_n_classes(model)) + 1.0  # one more row, so that none is 0
    summed = label_summed_bits(model, held_out.x, prior / prior.sum(), n_repeats=2, rng=seed)
    return _text("bits", summed.mean, summed.row_error)


def _bits(model: Estimator, data: Data, whole: bool, seed: int, labels: IntArray | None = None) -> str:
    """Bits a column and their standard error; "-" for a density of whole numbers."""
    if whole and not _has_levels(model):
        return "-"
    bits = score_rows(model, data.x, seed, labels=labels).bits
    if not np.isfinite(bits).all():
        return "inf"
    return _text("bits", float(bits.mean()), float(bits.std(ddof=1) / len(bits) ** 0.5))
