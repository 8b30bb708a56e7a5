"""`scratchgen sample model.npz`: new rows as a table, or as a picture."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen.models.loading import load
from scratchgen.models.progress import say_on_stderr
from scratchgen.report.files import check_output, write_csv, write_file, write_npy
from scratchgen.report.options import MODEL, Commands, add_command, count, demo_extra, seed
from scratchgen.report.scores import label_names, left_early, names_of
from scratchgen.report.settings import add_settings, settings_of, value_of
from scratchgen.report.sources import is_number
from scratchgen.report.tables import listed, size_of
from scratchgen.report.text import CommandError, one_line, say

OWN = ("self", "n", "rng", "return_labels", "as_frame")  # arguments of `sample` that are not for --set
OF_LABELS = ("y", "guidance", "guidance_in")  # arguments of `sample` of models with labels
HELP = """\
Draw new rows from a model.

A model with latents draws z, then x given z: p_θ(x) = ∫p_θ(x|z)q(z)dz, (16). A DDPM takes the steps
p_θ(x_{t−1}|x_t) of (19), and a score SDE runs (32) backwards in time.

Without -o the rows are printed as CSV. A .png is a grid of pictures for square pictures of whole numbers, and a
scatter plot for up to 8 columns; it needs matplotlib (in the checkout: pip install '.[demo]').

--set takes arguments of the model's `sample`: eta=0 for DDIM, denoise_last=True, stochasticity=1 for multistep steps
of a DDPM; stochasticity=0 and method=heun of a score SDE; y=NAME for a label that `scratchgen info` lists, guidance=2
and guidance_in=logits of models with labels.

Example:
  scratchgen sample model.npz -n 1000 -o samples.csv
  scratchgen sample digits-ddpm -n 64 -o grid.png --seed 1

Typical time: 1 s; 2 s for 1000 rows of a DDPM or a score SDE of two columns."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "sample", HELP, run)
    parser.add_argument("file", type=Path, metavar="MODEL.npz", help=MODEL)
    parser.add_argument("-n", type=count, default=100, metavar="N", help="number of rows (default 100)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="a .csv, .npy or .png file")
    parser.add_argument("--seed", type=seed, default=argparse.SUPPRESS, help="of the draws (default 0)")
    add_settings(parser, "an argument of the model's sample, such as eta=0; may be repeated")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    out = options.output
    if out is not None:
        check_output(out, (".csv", ".npy", ".png"), options.force)
    model: Any = load(options.file)
    if unfinished := left_early(model, options.file):
        say_on_stderr(one_line(f"scratchgen: {unfinished}"))  # standard output may be the table
    arguments = [name for name in inspect.signature(model.sample).parameters if name not in OWN]
    given = {text.partition("=")[0] for text in options.settings}
    if unknown := [name for name in OF_LABELS if name in given and name not in arguments]:
        raise CommandError(
            f"--set {unknown[0]}: {options.file} holds a {type(model).__name__}, which has no labels; leave it out, or "
            "fit ddpm or sde with --labels"
        )
    texts = [_with_codes(text, label_names(model), options.file) for text in options.settings]
    settings = settings_of(texts, arguments, f"{type(model).__name__}.sample")
    if isinstance(settings.get("y"), str) and model.n_classes:
        raise CommandError(
            f"--set y={settings['y']}: the labels of {options.file} have no names, only numbers "
            f"0..{model.n_classes - 1}; write --set y=0, or fit the model again with --labels"
        )
    if isinstance(settings.get("y"), int):
        settings["y"] = np.full(options.n, settings["y"])  # one label for all rows
    picture: Callable[..., Any] | None = None
    if out is not None and out.suffix.lower() == ".png":
        with demo_extra("a picture"):
            from scratchgen.report.pictures import draw

            picture = draw
    rows = model.sample(options.n, rng=options.seed, **settings)
    whole, drawn = getattr(model, "n_levels", None) is not None, size_of(rows)
    if picture is not None:
        drawing, drawn = picture(rows, names_of(model), model.n_levels if whole else None)
        write_file(out, lambda file: drawing.savefig(file, format="png", dpi=110), options.force)
    elif out is not None and out.suffix.lower() == ".npy":
        write_npy(out, rows, options.force)
    else:
        write_csv(out, names_of(model), (rows.astype(np.int64) if whole else rows).tolist(), options.force)
    if out is not None:
        print(f"{out}: {drawn}, drawn with seed {options.seed}")
        if getattr(model, "n_classes", 0) and settings.get("y") is None:
            say("drawn without a label, from the law of all labels; no column says which; --set y=NAME draws one label")
    return 0


def _with_codes(text: str, names: Sequence[str], file: Path) -> str:
    """A setting y=NAME or y=[NAME, ...] with the numbers of the labels in place of their names; others unchanged."""
    argument, _, value = text.partition("=")
    if argument != "y" or not names or value == "None":
        return text
    many = value.strip().startswith("[") and value.strip() not in names
    codes = [_code(str(one), names, file) for one in (value_of("y", value) if many else [value])]
    return f"y={codes if many else codes[0]}"


def _code(name: str, names: Sequence[str], file: Path) -> int:
    """Number of the label of this name; the number itself is taken only if no name is a number."""
    if (name := name.strip()) in names:
        return names.index(name)
    if name in map(str, range(len(names))) and not any(map(is_number, names)):
        return int(name)
    raise CommandError(f"--set y={name}: {file} has the labels {listed(names)}; name one of them")
