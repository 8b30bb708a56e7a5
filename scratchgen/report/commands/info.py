"""`scratchgen info model.npz`: the contents of a model file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scratchgen.models.files import model_file
from scratchgen.models.loading import load
from scratchgen.report.options import MODEL, Commands, add_command
from scratchgen.report.scores import kind_of, known_names, label_names, left_early, n_parameters_of
from scratchgen.report.tables import listed
from scratchgen.report.text import say
from scratchgen.report.verbs import VERBS

HELP = """\
Show what a model file holds: class, equation, arguments, columns, length of the training and number of parameters.

The file is checked as it is read, and no code in it runs.

Example:
  scratchgen info model.npz

Typical time: under 1 s."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "info", HELP, run)
    parser.add_argument("file", type=Path, metavar="MODEL.npz", help=MODEL)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    model: Any = load(options.file)
    with model_file(options.file) as file:
        size = file.stat().st_size / 1024
    verbs = [verb for verb in VERBS.values() if type(model) is verb.cls]
    lines = [("class", f"{type(model).__name__}{f', {verbs[0].about}' if verbs else ''}")]
    if verbs:
        lines += [("equation", line.strip()) for line in verbs[0].equation.splitlines()]
    lines += [
        ("arguments", ", ".join(f"{name}={value!r:.60}" for name, value in model.get_params().items())),
        ("columns", f"{model.n_features_in_}" + (f": {', '.join(known_names(model))}" if known_names(model) else "")),
        *([("labels", _labels(model))] if getattr(model, "n_classes", 0) else []),
        ("training", _training(model)),
        ("parameters", f"{n_parameters_of(model):,}"),
        ("score", kind_of(model)),
        ("file", f"{options.file}, {size:,.1f} KiB"),
    ]
    for name, text in lines:
        say(f"  {name:12}{text}")
    if unfinished := left_early(model, options.file):
        say(unfinished)
    return 0


def _labels(model: Any) -> str:
    """Numbers of the labels, and the values that they stand for."""
    meanings = [f"{code} = {name}" for code, name in enumerate(label_names(model))]
    return listed(meanings) if meanings else f"0..{model.n_classes - 1}, without names"


def _training(model: Any) -> str:
    """Length of the training in words."""
    if not hasattr(model, "losses_"):
        found = "closed form" if model.n_iter_ == 0 else f"{model.n_iter_} iterations of EM"
        stopped = "left early, see below" if model.training_state_ else "not converged: raise max_iter"
        end = "converged" if model.converged_ else stopped
        return f"{found}, {end}; bound {model.lower_bounds_[-1]:.4f} nats"
    steps = f"{len(model.losses_)} of {model.n_steps_} steps"
    last = model.losses_[-100:]
    return f"{steps}, mean of the last {len(last)} losses {last.mean():.4g}" if len(last) else steps
