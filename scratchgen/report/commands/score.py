"""`scratchgen score model.npz DATA`: log-likelihood or its bound of the rows of a table."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scratchgen.models.loading import load
from scratchgen.report.files import check_output, write_csv, write_npy
from scratchgen.report.options import MODEL, Commands, add_command, add_data_options, choice_of, seed
from scratchgen.report.scores import check_labels, kind_of, known_names, left_early, score_rows
from scratchgen.report.tables import option, read
from scratchgen.report.text import CommandError, say

HELP = """\
Score the rows of a table: the mean log-likelihood of a model, or its lower bound, with its standard error.

Mixtures, PPCA and factor analysis have an exact log p_θ(x) = ELBO(q) + KL(q‖p_θ(z|x)), (8), with q = p_θ(z|x). A
VAE has the ELBO (7), a DDPM the bound (20), a score SDE the bound (34).

For real columns the log-likelihood is that of a density, which depends on the columns' units: compare models on the
same columns. For whole numbers it is that of a probability. For GaussianMixture and PPCA missing cells (empty, NA or
nan) have no part in the likelihood of their row; the bits a column are a mean over all columns.

Columns are found by the names that the model was trained on, if the file has them; others are left out, and the
report lists them. With --labels the bound of a DDPM or a score SDE is that of log p_θ(x|label). With --weights w the
mean is that of the rows weighted by the column w.

Example:
  scratchgen score model.npz penguins -o rows.csv

Typical time: 1 s for 1000 rows."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "score", HELP, run)
    parser.add_argument("file", type=Path, metavar="MODEL.npz", help=MODEL)
    add_data_options(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="ROWS.csv", help="the score of every row, .csv or .npy")
    parser.add_argument("--seed", type=seed, default=argparse.SUPPRESS, help="of the noise of a bound (default 0)")
    parser.add_argument("--force", action="store_true", help="replace ROWS.csv if it exists")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.output is not None:
        check_output(options.output, (".csv", ".npy"), options.force)
    model = load(options.file)
    data = read(options.data, choice_of(options), model._takes_missing, known_names(model))
    if len(data.names) != model.n_features_in_:
        raise CommandError(
            f"{options.file} was trained on {model.n_features_in_} columns, and {options.data} has {len(data.names)}; "
            "choose them, in the order of training, with --columns, or leave others out with --drop"
        )
    n_classes = getattr(model, "n_classes", 0)
    if data.labels is not None and len(data.classes) != n_classes:
        raise CommandError(
            f"{options.file} has {n_classes or 'no'} labels, and column {options.labels!r} has {len(data.classes)} "
            f"different values; leave --labels out and pass --drop {option([options.labels])} for rows without labels"
        )
    check_labels(options.file, model, data)
    score = score_rows(model, data.x, options.seed, data.weights, data.labels)
    say(data.about)
    if unfinished := left_early(model, options.file):
        say(unfinished)
    say(f"{kind_of(model)}{', given the labels' if data.labels is not None else ''}:\n  {score.text()}")
    if score.discrete:
        say("  (of a probability of whole numbers)")
    else:
        say("  (of a density, in the units of the columns)")
    if n_classes and data.labels is None:
        say("scored without labels; --labels COLUMN gives the bound of log p_θ(x|label)")
    if options.output is not None:
        numbers = np.stack([score.rows, score.bits], axis=1)
        if options.output.suffix.lower() == ".npy":
            write_npy(options.output, numbers, options.force)
        else:
            places = range(len(data.x)) if data.lines is None else data.lines
            heads = ("row" if data.lines is None else "line", "nats", "bits_per_column")
            rows = ((place, *pair) for place, pair in zip(places, numbers.tolist(), strict=True))
            write_csv(options.output, heads, rows, options.force)
        print(f"{options.output}: {len(data.x)} rows")
    return 0
