"""`scratchgen fit MODEL DATA -o model.npz`: train a model on a table, with a report before and after."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from scratchgen import recipes
from scratchgen.models.categorical_mixture import CategoricalMixture
from scratchgen.models.estimator import Estimator, WeightedEstimator
from scratchgen.models.gaussian_mixture import GaussianMixture
from scratchgen.models.linear_gaussian import LinearGaussianModel
from scratchgen.models.loading import load
from scratchgen.models.network_model import NetworkModel
from scratchgen.models.progress import shown
from scratchgen.report import advice
from scratchgen.report.files import check_output
from scratchgen.report.moments import SAMPLES, samples_beside, samples_of
from scratchgen.report.options import Commands, add_command, add_data_options, choice_of, seed, words_of
from scratchgen.report.scores import (
    check_labels,
    is_exact,
    kind_of,
    known_names,
    label_names,
    n_parameters_of,
    score_rows,
)
from scratchgen.report.settings import add_settings, settings_of
from scratchgen.report.tables import Data, Frame, listed, option, read
from scratchgen.report.text import CommandError, say
from scratchgen.report.verbs import VERBS, Verb

SAVED_EVERY = (5.0, 60.0)  # seconds between checkpoints: at least, and at most if less than a tenth is done
SCORED = 2000  # most rows of the training data whose bound the report estimates
LISTED = 20  # most names of columns that the report lists
WIDE = 2000  # columns of which a covariance is slow
MOST_HINTED = 256  # largest number of levels that is proposed
SHARED = 5  # times the levels of a column, from which the levels of all columns are too coarse for it

HELP = """\
Train one of seven models on a table, and save it.

Every model has a lower bound of the log-likelihood, (7): ELBO(q) = E_q log p(x|z) − KL(q(z|x)‖p(z)).  `fit` maximises
it; for tables with pseudo-counts (smoothing=1).  Only ddpm drops the weights of its steps by default, as Ho et al. did;
weighting=bound keeps them.

Models:
"""
EXAMPLE = """
`scratchgen fit MODEL --help` has the equation, the defaults and the typical time of each.

Example:
  scratchgen data penguins -o mine.csv
  scratchgen fit gmm mine.csv -o model.npz --set n_components=3 --validate .1
  scratchgen fit sde digits_train -o digits.npz --recipe fast

Typical time: 1 s for gmm, ppca, fa and tables; 1 to 15 s for vae, ddpm and sde."""


def add(commands: Commands) -> None:
    """Add the command, with a command of its own for each model."""
    models = "\n".join(f"  {name:8}{verb.about}" for name, verb in VERBS.items())
    parser = add_command(commands, "fit", HELP + models + "\n" + EXAMPLE, None)
    inner = parser.add_subparsers(dest="model", metavar="MODEL", required=True, help="one of the above")
    for name, verb in VERBS.items():
        model = add_command(inner, name, _help(name, verb), run)
        add_data_options(model, labels=_takes_labels(verb), weights=_takes_weights(verb))
        model.add_argument(
            "-o", "--output", type=Path, required=True, metavar="MODEL.npz", help="the file of the trained model"
        )
        add_settings(model, "an argument of the model, see above; may be repeated")
        model.add_argument(
            "--recipe",
            metavar="NAME",
            help="arguments that are good for the kind of data, see above; --set changes them",
        )
        model.add_argument(
            "--seed", type=seed, default=argparse.SUPPRESS, help="of training and of --validate (default 0)"
        )
        model.add_argument(
            "--validate",
            type=fraction,
            metavar="FRACTION",
            help="hold out a part of the rows, such as .1, and score it",
        )
        model.add_argument("--resume", action="store_true", help="continue a training that was interrupted")
        model.add_argument("--force", action="store_true", help="replace MODEL.npz if it exists")


def _recipes_of(family: str) -> str:
    """Recipes of a model, with what they reached."""
    lines = [f"  {one.kind}: {one.name}{_reached(one)}" for one in recipes.RECIPES if one.family == family]
    about = (
        "Recipes for --recipe, by kind of data (digits: 64 columns of whole numbers 0..16; plane: two columns; tables: "
        "others), with mean and standard deviation over trainings:"
    )
    return "\n".join([about, *lines]) + "\n\n"


def _reached(recipe: recipes.Recipe) -> str:
    """What a recipe reached, as text; empty if it was not measured."""
    return "".join(
        f"; {one.data}: {one.expected:.4g}{f' +- {one.spread:.2g}' if one.n_seeds > 1 else ''} {one.metric}, "
        f"{one.cpu_seconds:.3g} s of CPU time"
        for one in recipe.measured
    )


def _help(family: str, verb: Verb) -> str:
    """Description of the command of one model: its equation, arguments, recipes and example."""
    given = {name: repr(p.default) for name, p in verb.cls._parameters().items() if name != "rng"}
    if verb.cls is CategoricalMixture:  # see build
        given["n_levels"] = "(largest cell + 1)"
    arguments = "  " + ", ".join(f"{name}={value}" for name, value in given.items())
    return (
        f"Fit {verb.about} ({verb.cls.__name__}).\n\n{verb.equation}\n\n{verb.note}\n\n"
        f"Arguments for --set, with their defaults:\n{arguments}\n"
        f"Their meaning: python -c 'import scratchgen; help(scratchgen.{verb.cls.__name__})'\n\n"
        f"{_recipes_of(family)}"
        f"Example:\n  {verb.example}\n\nTypical time: {verb.seconds}."
    )


def fraction(text: str) -> float:
    """A number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, such as .1, got {text}")
    return value


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    verb, out = VERBS[options.model], options.output
    _check_roles(verb, options)
    check_output(
        out, (".npz",), options.force or options.resume, "--force replaces it, --resume continues its training"
    )
    settings = settings_of(options.settings, [n for n in verb.cls._parameters() if n != "rng"], verb.cls.__name__)
    data = read(options.data, choice_of(options), missing=verb.cls(**settings)._takes_missing)
    say(data.about)
    more = f", and {len(data.names) - LISTED} more" if len(data.names) > LISTED else ""
    say("  " + ", ".join(data.names[:LISTED]) + more)
    recipe = None if options.recipe is None else _recipe(options, data)
    if recipe is not None:
        settings = {**recipe.arguments, **settings}
    data, held_out = split(data, options.validate, options.seed)
    resumed = options.resume and out.exists()
    if options.resume and not resumed:
        say(f"there is no {out} yet, so that training starts from the beginning")
    if resumed:
        model = load(out)
        _check_same(model, verb, settings, out)
        _check_same_columns(model, data, out)
        check_labels(out, model, data)
        model.set_params(verbose=settings.get("verbose", model.verbose))
    else:
        model = build(verb, settings, options.seed, data)
    _train(model, data if recipe is None else _with_copies(data, recipe, options.seed), options, resumed)
    _summarize(model, data, held_out, options)
    return 0


def _recipe(options: argparse.Namespace, data: Data) -> recipes.Recipe:
    """The recipe for the kind of the data; CommandError, with the names of recipes, for another name."""
    kind = recipes.kind_of(data.x) if np.isfinite(data.x).all() else "tables"
    names = recipes.listed(kind, options.model)
    if options.recipe not in names.split(", "):
        known = f"take {'one of' if ',' in names else '--recipe'} {names}" if names else "there is none; take --set"
        raise CommandError(
            f"{options.model} has no --recipe {options.recipe} for {kind}, the kind of {options.data}; {known}"
        )
    recipe = recipes.find(kind, options.model, options.recipe)
    if recipe.arguments.get("n_classes") and data.labels is None:
        raise CommandError(f"--recipe {recipe.name} needs labels; name their column with --labels")
    say(f"recipe {recipe.title}: {_reached(recipe).removeprefix('; ') or 'not measured'}")
    return recipe


def _with_copies(data: Data, recipe: recipes.Recipe, seed: int) -> Data:
    """The table with the copies of a recipe, if it has some; they have the weights of their rows."""
    if not recipe.copies:
        return data
    say(f"{recipe.copies} deformed copies of every image are added to the training data")
    weights = None if data.weights is None else np.tile(data.weights, recipe.copies + 1)
    return data._replace(x=recipe.rows(data.x, seed), weights=weights, lines=None)


def _takes_labels(verb: Verb) -> bool:
    return "n_classes" in verb.cls._parameters()


def _takes_weights(verb: Verb) -> bool:
    return issubclass(verb.cls, WeightedEstimator)


def _check_roles(verb: Verb, options: argparse.Namespace) -> None:
    """Raise CommandError for --labels or --weights if the model takes none."""
    name = verb.cls.__name__
    if options.labels is not None and not _takes_labels(verb):
        raise CommandError(f"--labels is for ddpm and sde, the models with labels; {name} has none: use --drop")
    if options.weights is not None and not _takes_weights(verb):
        raise CommandError(f"--weights is for gmm, ppca, fa and tables, the models by EM; {name} has none: use --drop")


def split(data: Data, fraction: float | None, seed: int) -> tuple[Data, Data | None]:
    """The rows to train on, and the held-out rows, which the seed draws."""
    N = len(data.x)
    if N < 2:
        raise CommandError(f"{data.about}: a model needs at least 2 rows")
    if fraction is None:
        return data, None
    n_held = max(1, round(fraction * N))
    if N - n_held < 2:
        raise CommandError(f"--validate {fraction:g} leaves {N - n_held} of {N} rows to train on; lower it")
    order = np.random.default_rng(seed).permutation(N)
    return data.take(np.sort(order[n_held:])), data.take(np.sort(order[:n_held]))


def build(verb: Verb, settings: dict[str, Any], seed: int, data: Data) -> Estimator:
    """The untrained model; numbers of levels and classes that the data show are added, and said."""
    parameters, settings = verb.cls._parameters(), dict(settings)
    whole = bool((np.isfinite(data.x) & (data.x == np.floor(data.x)) & (data.x >= 0)).all())
    if "n_levels" in parameters and "n_levels" not in settings and whole:
        n_levels = max(int(data.x.max()) + 1, 2)
        if parameters["n_levels"].default is not None:  # it has no default that fits other data
            settings["n_levels"] = n_levels
            print(f"n_levels={n_levels}, since the largest cell is {n_levels - 1}")
        elif n_levels <= MOST_HINTED:
            hint = (
                f"all cells are whole numbers 0..{n_levels - 1}: with --set n_levels={n_levels} the model draws whole "
                "numbers, and its likelihood is a probability"
            )
            largest = data.x.max(axis=0).astype(int)
            small = int(np.where(largest > 0, largest, n_levels).argmin())
            if n_levels > SHARED * (largest[small] + 1):
                hint += (
                    "; all columns share the levels, and one of a small range, such as "
                    f"{data.names[small]!r} with 0..{largest[small]}, may become too wide"
                )
            say(hint)
    D = len(data.names)
    if issubclass(verb.cls, GaussianMixture | LinearGaussianModel) and D > WIDE:
        say(f"a covariance of {D} columns has {D * (D + 1) // 2:,} numbers, which is slow: choose some with --columns")
    if verb.cls is CategoricalMixture and not whole:
        n, d = np.argwhere(~((data.x == np.floor(data.x)) & (data.x >= 0)))[0]
        raise CommandError(
            f"column {data.names[d]!r} has the value {data.x[n, d]:g}, but tables are for whole numbers 0, 1, 2, ...; "
            "choose other columns with --columns, or fit gmm, ppca or fa"
        )
    if data.labels is not None:
        settings.setdefault("n_classes", len(data.classes))
        codes = [str(code) for code in range(len(data.classes))]
        meanings = ", ".join(f"{code} = {value}" for code, value in zip(codes, data.classes, strict=True))
        say(f"labels 0..{codes[-1]}" + ("" if codes == list(data.classes) else f": {meanings}"))
    return verb.cls(**settings, rng=seed)


def _check_same(model: Estimator, verb: Verb, settings: dict[str, Any], out: Path) -> None:
    """Raise CommandError unless the file holds a training of this class with these arguments that has not ended."""
    if type(model) is not verb.cls:
        raise CommandError(f"{out} holds a {type(model).__name__}, not a {verb.cls.__name__}; fit that, or use --force")
    given = model.get_params()
    for name, value in settings.items():
        if name != "verbose" and repr(given[name]) != repr(value):
            raise CommandError(
                f"{out} was begun with {name}={given[name]!r}, not {value!r}; leave --set {name} out to continue, or "
                "begin again with --force in place of --resume"
            )
    if model.training_state_ is None:
        raise CommandError(f"the training in {out} has ended; begin again with --force in place of --resume")


def _check_same_columns(model: Estimator, data: Data, out: Path) -> None:
    """Raise CommandError unless the named columns are those of the training."""
    known = known_names(model)
    if known and data.named and known != data.names:
        raise CommandError(
            f"{out} was begun with the columns {listed(known)}, not {listed(data.names)}; choose them with --columns "
            f"{option(known)}, or begin again with --force in place of --resume"
        )


def _train(model: Any, data: Data, options: argparse.Namespace, resume: bool) -> None:
    """Train to the end and save; on the way save checkpoints, and after Ctrl-C the last state."""
    out, name = options.output, type(model).__name__
    table: Any = Frame(data.x, data.names) if data.named else data.x
    labels = () if data.labels is None else (data.labels,)
    weights = {} if data.weights is None else {"sample_weight": data.weights}
    last, saved_tenth, summary = time.monotonic(), 0, list[str]()

    def save() -> None:
        known = data.classes and len(data.classes) == model.n_classes  # --set n_classes may ask for more
        model._label_names = data.classes if known else None
        model.save(out, overwrite=True)

    try:
        steps = model.train(table, *labels, **weights, resume=resume)
        with closing(shown(steps, name, model._report, bool(model.verbose), summary.append)) as steps:
            for progress in steps:
                waited, tenth = time.monotonic() - last, 10 * progress.step // progress.n_steps
                if waited > SAVED_EVERY[1] or (waited > SAVED_EVERY[0] and saved_tenth < tenth < 10):
                    save()
                    last, saved_tenth = time.monotonic(), tenth
    except KeyboardInterrupt:
        state = getattr(model, "training_state_", None)
        if state is None:
            raise KeyboardInterrupt("before the first step; no file was written") from None
        save()
        left = f"{out} holds the training of {state.step} steps; continue: {_again(options)}"
        raise KeyboardInterrupt(left) from None
    except ValueError as error:
        _raise_with_names(str(error), model, data)
        raise
    save()
    say("".join(summary))


def _raise_with_names(text: str, model: Estimator, data: Data) -> None:
    """Raise the error of a training with names of constant columns or the line of a cell, if it has their numbers."""
    constant = [name for name, column in zip(data.names, data.x.T, strict=True) if (column == column[0]).all()]
    if "is constant" in text and constant:
        own = (
            ", or, if all columns have one unit, pass --set standardize=global"
            if "standardize" in model.get_params()
            else ""
        )
        raise CommandError(
            f"columns must vary, but {listed(constant)} never does; leave it out with --drop {option(constant)}{own}"
        )
    if cell := re.search(r"x\[(\d+), (\d+)\]", text):
        n, d = int(cell[1]), int(cell[2])
        place = f"row {n}" if data.lines is None else f"line {data.lines[n]}"
        raise CommandError(text.replace(cell[0], f"{place}, column {data.names[d]!r},"))


def _again(options: argparse.Namespace) -> str:
    """The command that continues the training."""
    words = ["scratchgen", "fit", options.model, *words_of(options), "-o", str(options.output)]
    words += [word for setting in options.settings for word in ("--set", setting)]
    words += ["--recipe", options.recipe] if options.recipe is not None else []
    words += ["--seed", str(options.seed)] if options.seed else []
    words += ["--validate", f"{options.validate:g}"] if options.validate is not None else []
    return shlex.join([*words, "--resume"])


def _summarize(model: Estimator, data: Data, held_out: Data | None, options: argparse.Namespace) -> None:
    """Print the scores of training and held-out rows, and the next commands."""
    out, about = shlex.quote(str(options.output)), kind_of(model)
    about += ", given the labels" if data.labels is not None else ""
    say(f"{options.output}: {model!r}, {n_parameters_of(model):,} parameters")
    say(f"{about}:")
    hints = list(advice.on_columns(model, data))
    some = data if is_exact(model) else data.take(np.arange(0, len(data.x), -(-len(data.x) // SCORED)))
    training = score_rows(model, some.x, options.seed, some.weights, some.labels)
    say(f"  training    {training.text()}")
    if held_out is not None:
        validation = score_rows(model, held_out.x, options.seed, held_out.weights, held_out.labels)
        say(f"  validation  {validation.text()}")
        if isinstance(model, NetworkModel):
            hints += advice.on_scores(model, training, validation)
    for line in [*_about_samples(model, data, options.seed), *hints]:
        say(line)
    label = "".join(f" --set {shlex.quote(f'y={name}')}" for name in label_names(model)[:1])
    print(f"Next:\n  scratchgen sample {out}{label} -n 1000 -o samples.csv")
    print(f"  scratchgen score {out} {shlex.join(words_of(options))}")
    print(f"  scratchgen info {out}", flush=True)


def _about_samples(model: Estimator, data: Data, seed: int) -> Iterator[str]:
    """Lines about samples beside the rows of training, and the advice that they show."""
    yield f"{SAMPLES} samples, beside the rows of training:"
    try:
        samples = samples_of(model, data, seed)
    except ArithmeticError as error:
        yield f"  none: {error}"
        return
    yield from samples_beside(samples, data)
    yield from advice.on_samples(model, data, samples)
