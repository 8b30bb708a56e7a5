"""benchmarks/QUALITY.md and the numbers of the recipes, from the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality import figures, spread
from benchmarks.quality.ablations import BASE, CHANGES, SCHEDULES, VARIANCES
from benchmarks.quality.digits import FLOORS, KDE_WIDTH
from benchmarks.quality.parts import PARTS
from benchmarks.quality.records import Options, Record, read
from scratchgen import recipes
from scratchgen.models.files import write_atomically

Records = dict[tuple[str, int], Record]
ROOT = Path(__file__).parents[2]
SHOWN = ("sde best", "ddpm best", "sde fast", "ddpm fast")  # the first that is there is in the figures
OF_SHOWN = ("grid", "nearest", "distances")
METRICS = {
    "frechet": ("Fréchet", 1),
    "mmd2": ("MMD² × 1e4", 1),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "density": ("density", 3),
    "coverage": ("coverage", 3),
    "c2st_mlp": ("C2ST, MLP", 3),
    "c2st_forest": ("C2ST, forest", 3),
    "c2st_svm": ("C2ST, SVM", 3),
    "c2st_boosting": ("C2ST, boosting", 3),
    "nearest_train": ("nearest train", 2),
    "synthetic_svc": ("synthetic SVC", 3),
    "svc_agrees": ("SVC agrees", 3),
}


def write(options: Options) -> None:
    """Write the page, its figures and the numbers of the recipes; with `quick` all of them into the folder."""
    found = {part: in_order(part, options) for part in PARTS}
    page, numbers = ROOT / "benchmarks" / "QUALITY.md", ROOT / "scratchgen" / "data" / "recipes.json"
    if options.quick:
        page, numbers = options.folder / page.name, options.folder / numbers.name
    drawn = draw(found, options.folder)
    prefix = "" if options.quick else "quality/"
    text = "\n".join(lines(found, {name: f"{prefix}{name}.png" for name in drawn})) + "\n"
    measured = json.dumps(of_recipes(found), ensure_ascii=False, indent=1) + "\n"
    for path, content in (page, text), (numbers, measured):
        write_atomically(path, lambda file, content=content: file.write(content.encode()))


def in_order(part: str, options: Options) -> Records:
    """The records of a part in the order of its units, without those of no unit; `stale` marks other settings."""
    records = read(options.folder, part)
    units = {(unit.name, unit.seed): unit.key for unit in PARTS[part][0](options)}
    return {
        place: records[place] | {"stale": records[place]["key"] != key}
        for place, key in units.items()
        if place in records
    }


def draw(found: dict[str, Records], folder: Path) -> list[str]:
    """Draw every figure whose records are there, and return their names."""
    digits, drawings = found["digits"], dict[str, Callable[[], Any]]()
    names = shown(digits)
    if names:
        drawings["grid"] = lambda: figures.grid(digits, names[0])
        drawings["nearest"] = lambda: figures.nearest(digits, names[0])
        if any(own == "KDE memoriser" for own, _ in digits):
            drawings["distances"] = lambda: figures.distances(digits, names[:2])
        drawings["times"] = lambda: figures.times(digits, found["times"])
    if found["curves"]:
        drawings["curves"] = lambda: figures.curves(found["curves"])
    figures.save(folder, drawings)
    return list(drawings)


# --- numbers ----------------------------------------------------------------------------------------------------------


class Number(NamedTuple):
    """Mean over seeds and draws, and the standard deviation over seeds."""

    mean: float
    spread: float
    n: int

    def text(self, digits: int) -> str:
        """Mean, and ± spread if the seeds differ."""
        return f"{self.mean:.{digits}f}" + (f" ± {self.spread:.{digits}f}" if self.spread > 0 else "")


def number(values: Sequence[float | None]) -> Number | None:
    """The number of the values, one for each seed; None if one is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Number(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0, len(known))


def by_name(records: Records) -> dict[str, list[Record]]:
    """Records of all seeds by name."""
    found: dict[str, list[Record]] = {}
    for (name, _), record in records.items():
        found.setdefault(name, []).append(record)
    return found


def over_seeds(records: list[Record], key: str) -> Number | None:
    """A number of the records, which may be missing in all."""
    return number([record.get(key) for record in records])


def over_draws(records: list[Record], key: str) -> Number | None:
    """A metric of samples: first the mean over the draws of a seed."""
    means = [number([draw.get(key) for draw in record["draws"]]) for record in records]
    return number([None if mean is None else mean.mean for mean in means])


def cell(found: Number | None, digits: int) -> str:
    """A cell of a table."""
    return "–" if found is None else found.text(digits)


def of_recipes(found: dict[str, Records]) -> dict[str, list[Record]]:
    """Rows of `recipes.Measured` by title of the recipe."""
    metrics = {
        "digits": ("bits", "bits a pixel of the test images"),
        "plane": ("bound", "KL(p‖p_θ), nats"),
        "tables": ("nats", "nats a column of held-out rows"),
    }
    rows: dict[str, list[Record]] = {}
    for kind, (key, metric) in metrics.items():
        for name, records in by_name(found[kind]).items():
            own = name.split(", ", 1)[1] if kind == "plane" else name
            if not any(one.title == f"{kind} {own}" for one in recipes.RECIPES):
                continue
            value = over_seeds(records, key) or over_seeds(records, "exact")
            seconds = over_seeds(records, "seconds")
            assert value is not None
            assert seconds is not None
            points = f", from {records[0]['about'][1]:,} points" if kind == "plane" else ""
            row = {
                "data": "digits_test" if kind == "digits" else records[0]["data"],
                "metric": metric + points,
                "expected": round(value.mean, 4),
                "spread": round(value.spread, 4),
                "n_seeds": value.n,
                "cpu_seconds": round(seconds.mean, 2),
                "machine": records[0]["machine"],
            }
            rows.setdefault(f"{kind} {own}", []).append(row)
    return rows


# --- the page ---------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table in Markdown."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def source(records: Records, part: str) -> str:
    """Command, CPU time and machine of a part."""
    if not records:
        return f"Not measured yet: `python -m benchmarks.quality {part}`."
    several = list(records.values())
    machines = dict.fromkeys(f"{record['machine']}; {record['versions']}" for record in several)
    commits = dict.fromkeys(record["commit"] for record in several)
    spent = sum(record["unit_seconds"] for record in several)
    stale = sum(record["stale"] for record in several)
    changed = f" **{stale} of them have other settings than the code has now.**" if stale else ""
    quick = " **With --quick: the numbers mean nothing.**" if any(record["quick"] for record in several) else ""
    return (
        f"`python -m benchmarks.quality {part}`, {len(several)} results, {spent:.0f} s of CPU time in one thread on "
        f"{' and on '.join(machines)}; commit {', '.join(commits)}.{changed}{quick}"
    )


def shown(digits: Records) -> list[str]:
    """Names of the models that the figures show, the best first."""
    return [name for name in SHOWN if any(own == name and "grid" in record for (own, _), record in digits.items())]


def of_shown(digits: Records) -> str:
    """Command, steps, CPU time and machine of the models in the figures of samples."""
    texts = []
    for name in shown(digits)[:2]:
        record = figures.one(digits, name)
        texts.append(
            f"`python -m benchmarks.quality digits --only '{name}' --seeds {record['seed']}`: {record['steps']:,} "
            f"steps, {record['seconds']:.0f} s of CPU time in one thread on {record['machine']}"
        )
    return "; ".join(texts) + "."


def lines(found: dict[str, Records], drawn: dict[str, str]) -> Iterator[str]:
    """The page."""
    yield INTRODUCTION
    yield "## What was aimed at\n"
    yield from targets(found)
    yield "## Evidence 1: every family under one protocol, beside floors\n"
    yield BITS_TEXT
    yield source(found["digits"], "digits") + "\n"
    yield from bits_table(found["digits"])
    yield SAMPLES_TEXT
    yield from samples_table(found["digits"])
    for name, (title, text, part) in FIGURES.items():
        yield f"## {title}\n\n{text}\n"
        yield f"{of_shown(found[part]) if name in OF_SHOWN else source(found[part], part)}\n"
        if name in drawn:
            yield f"![{title}]({drawn[name]})\n"
    yield f"## Evidence 6: a canary\n\n{CANARY_TEXT}\n\n{source(found['canary'], 'canary')}\n"
    yield from canary_table(found["canary"])
    yield f"## Evidence 7: labels, summed out without optimism\n\n{LABELS_TEXT}\n"
    yield source(found["digits"], "digits") + "\n"
    yield from labels_table(found["digits"])
    yield f"## Where the Fréchet distance comes from\n\n{FRECHET_TEXT}\n\n{source(found['frechet'], 'frechet')}\n"
    yield from frechet_table(found["frechet"])
    yield f"## What each choice is worth\n\n{ABLATIONS_TEXT}\n\n{source(found['ablations'], 'ablations')}\n"
    yield from ablations_table(found["ablations"])
    yield f"## DDPM: the schedule's ends and the variance\n\n{CHAINS_TEXT}\n\n{source(found['chains'], 'chains')}\n"
    yield from chains_table(found["chains"])
    yield f"## Points of a plane\n\n{PLANE_TEXT}\n\n{source(found['plane'], 'plane')}\n"
    yield from plane_table(found["plane"])
    yield f"## A table of real numbers\n\n{TABLES_TEXT}\n\n{source(found['tables'], 'tables')}\n"
    rows = [
        [name, cell(over_seeds(records, "nats"), 3), cell(over_seeds(records, "seconds"), 2)]
        for name, records in by_name(found["tables"]).items()
    ]
    yield from table(["recipe", "nats a column", "CPU s"], rows)


def bits_table(digits: Records) -> Iterator[str]:
    """Bits of the test images."""
    rows = [["no model: log2 17", "4.087", "", "", "", ""]]
    for name, records in by_name(digits).items():
        if "bits" in records[0]:
            noise = f"{records[0]['row_error']:.3f}, {records[0]['noise_error']:.4f}"
            steps = f"{records[0]['steps']:,}" if records[0]["steps"] else "–"
            bits = over_seeds(records, "bits")
            rows.append([name, cell(bits, 4), noise, steps, cell(over_seeds(records, "seconds"), 1), kind(name)])
    yield from table(["model", "bits a pixel", "s.e.: images, noise", "steps", "CPU s of training", "number"], rows)


def kind(name: str) -> str:
    """Kind of the bits of a family: exact, or a bound."""
    family = name.split()[0]
    if name in FLOORS:
        return "exact" if name != "class Gaussians" else "bound by uniform noise"
    return {
        "tables": "exact",
        "vae": "IWAE-512",
        "ddpm": "bound (20)",
        "sde": "bound (34)",
    }.get(family, "bound by uniform noise")


def samples_table(digits: Records) -> Iterator[str]:
    """Metrics of samples; a column that no model has is left out."""
    found = {name: {key: over_draws(records, key) for key in METRICS} for name, records in by_name(digits).items()}
    kept = [key for key in METRICS if any(row[key] is not None for row in found.values())]
    rows = [[name, *(cell(row[key], METRICS[key][1]) for key in kept)] for name, row in found.items()]
    yield from table(["samples of", *(METRICS[key][0] for key in kept)], rows)


def labels_table(digits: Records) -> Iterator[str]:
    """Bits of the models with labels."""
    rows = [
        [name, *(cell(over_seeds(records, key), 4) for key in ("given_bits", "summed_bits", "bits"))]
        for name, records in by_name(digits).items()
        if "given_bits" in records[0]
    ]
    yield from table(["model", "label given", "label summed out", "without label"], rows)


def canary_table(found: Records) -> Iterator[str]:
    """Copies among samples."""
    rows = [
        [name, f"{one['n']}", f"{one['expected']:.1f}", str(one["equal"]), f"{one['near']} within {one['radius']:.1f}"]
        for (name, _), one in found.items()
    ]
    yield from table(["canary in training", "samples", "copies of a memoriser", "equal samples", "near samples"], rows)


def frechet_table(found: Records) -> Iterator[str]:
    """Distances of samples and their variances by principal axis."""
    columns = {"frechet": "Fréchet", "frechet_train": "to training images"}
    columns |= {f"variance, axes {axes}": f"variance, axes {axes}" for axes in spread.AXES}
    rows = []
    for name, records in by_name(found).items():
        cells = [cell(over_draws(records, key), 3 if "variance" in key else 1) for key in columns]
        rows.append([name, *cells, cell(over_seeds(records, "given_bits"), 4)])
    yield from table(["samples of", *columns.values(), "bits, label given"], rows)


def ablations_table(found: Records) -> Iterator[str]:
    """Differences of bits to the recipe, paired by image."""
    names = [name for name in CHANGES if (name, 0) in found]
    if BASE not in names:
        return
    base = found[BASE, 0]
    rows = []
    for name in names:
        one = found[name, 0]
        difference = np.array(one["rows"]) - np.array(base["rows"])
        worth = f"{difference.mean():+.4f} ± {difference.std(ddof=1) / len(difference) ** 0.5:.4f}"
        rows.append([name, f"{one['bits']:.4f}", "" if name == BASE else worth, f"{one['seconds']:.0f}"])
    yield from table(["change", "validation bits", "difference, paired", "CPU s"], rows)


def chains_table(found: Records) -> Iterator[str]:
    """Bits by schedule and variance."""
    rows = []
    for title in SCHEDULES:
        records = [found.get((f"{title}; {variance}", 0)) for variance in VARIANCES]
        if any(records):
            rows.append([title, *("–" if one is None else f"{one['bits']:.3f}" for one in records)])
    yield from table(["schedule", *VARIANCES], rows)


def plane_table(found: Records) -> Iterator[str]:
    """KL by law and model."""
    rows = []
    for name, records in by_name(found).items():
        data, model = name.split(", ", 1)
        held = [record for record in records if "sampler" in record]  # whose density a grid holds
        kls = over_seeds(records, "bound"), over_seeds(held, "sampler"), over_seeds(records, "exact")
        cells = [cell(one, 4) for one in kls]
        error = records[0].get("bound_error", records[0].get("exact_error"))
        cells.append("–" if error is None else f"{error:.4f}")
        points = f"{records[0]['about'][1]:,}"
        rows.append([data, model, points, *cells, cell(over_seeds(records, "seconds"), 1)])
    heads = ["law", "model", "points", "KL, bound", "KL, reverse SDE", "KL, exact or of the flow", "s.e.", "CPU s"]
    yield from table(heads, rows)


# --- targets ----------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """A number that was aimed at."""

    what: str
    part: str
    name: str
    key: str  # of the record, or of its draws
    at_most: float | None = None
    at_least: float | None = None
    cause: str = ""  # of a miss


FRECHET = (
    "a fifth of the distance above the floor is that of weight decay, without which the bits are worse; the sampler "
    "has no part in it, and the cause of the rest is not known"
)
TARGETS = (
    Target("digits, score SDE, about 60 s", "digits", "sde best", "bits", 1.78),
    Target("digits, score SDE, 10 min", "digits", "sde long", "bits", 1.75),
    Target("digits, VAE, IWAE-512", "digits", "vae best", "bits", 1.90),
    Target("digits, mixture of tables", "digits", "tables best", "bits", 2.06),
    Target("samples with labels: Fréchet", "digits", "sde labels", "frechet", 34.0, cause=FRECHET),
    *(
        Target(f"samples with labels: C2ST, {name}", "digits", "sde labels", f"c2st_{name}", 0.56)
        for name in ("mlp", "forest", "svm", "boosting")
    ),
    Target("samples with labels: nearest train", "digits", "sde labels", "nearest_train", 1.15, 0.95),
    Target("samples with labels: synthetic SVC", "digits", "sde labels", "synthetic_svc", None, 0.965),
    Target("samples with labels: SVC agrees", "digits", "sde labels", "svc_agrees", None, 0.95),
    Target("eight Gaussians, defaults, 10 s", "plane", "eight_gaussians, sde default, 15000 steps", "bound", 0.02),
    Target("two moons, defaults, 10 s", "plane", "two_moons, sde default, 15000 steps", "bound", 0.02),
    Target("checkerboard, defaults, 10 s", "plane", "checkerboard, sde default, 15000 steps", "bound", 0.05),
    Target("eight Gaussians, 60 s, 100,000 points", "plane", "eight_gaussians, sde best", "bound", 0.008),
    Target("two moons, 60 s, 100,000 points", "plane", "two_moons, sde best", "bound", 0.01),
    Target("checkerboard, 60 s, 100,000 points", "plane", "checkerboard, sde best", "bound", 0.025),
)


def targets(found: dict[str, Records]) -> Iterator[str]:
    """The targets beside the measured numbers."""
    rows = []
    for target in TARGETS:
        wanted = " and ".join(
            f"{word} {value:g}"
            for word, value in (("at least", target.at_least), ("at most", target.at_most))
            if value is not None
        )
        records = by_name(found[target.part]).get(target.name)
        value = None
        if records:
            value = over_seeds(records, target.key) or over_draws(records, target.key)
        rows.append([target.what, wanted, cell(value, 4), verdict(target, value)])
    gap = ddpm_gap(found["digits"])
    reached = "" if gap is None else "reached" if gap.mean <= 0.03 else f"missed by {gap.mean - 0.03:.4f}"
    rows.append(["digits, DDPM (T = 50) above the score SDE", "at most 0.03", cell(gap, 4), reached])
    yield from table(["what", "wanted", "measured", ""], rows)


def verdict(target: Target, value: Number | None) -> str:
    """Whether a target is reached, or by how much it is missed and why."""
    if value is None:
        return "not measured"
    above = 0.0 if target.at_most is None else value.mean - target.at_most
    below = 0.0 if target.at_least is None else target.at_least - value.mean
    missed = max(above, below)
    return "reached" if missed <= 0 else f"missed by {missed:.4f}" + f": {target.cause}" * bool(target.cause)


def ddpm_gap(digits: Records) -> Number | None:
    """Bits of `ddpm best` above those of `sde best`, seed by seed."""
    pairs = [
        (record["bits"], digits["sde best", seed]["bits"])
        for (name, seed), record in digits.items()
        if name == "ddpm best" and ("sde best", seed) in digits
    ]
    return number([ours - theirs for ours, theirs in pairs])


# --- text -------------------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# How good the models are

    python -m benchmarks.quality            # measures; goes on where another run has stopped
    python -m benchmarks.quality report     # writes this page, its figures and the numbers of the recipes

The results are in `benchmarks/quality/*.jsonl`, a line each with its settings, its machine and its commit, so that this
page can be written again without training. `python -m benchmarks.quality --list` names all of them.

**Protocol.** Digits are the 1797 images of `scratchgen.datasets.digits`, with its frozen split: 1437 images for
training, 360 for the test. Hyper-parameters were chosen on every fifth image of a class of the training images. The
tables of test bits and of samples are the only use of the test images. Bits are −log2 P(x)/64 of the whole numbers, for
all families on one scale; a density is scored by uniform noise. Numbers are means over three trainings with different
seeds, ± their standard deviation. Recipes are those of `scratchgen.recipes`; steps are fixed, and CPU seconds are those
of the machine that is named. Images of one writer are in both parts of the split, so that no number here shows how a
model does on new writers.
"""
BITS_TEXT = """\
A bound has the noise of its draws: a score SDE takes 512 times an image, a DDPM 512 calls of the network or more, a VAE
512 draws of IWAE, repeated four times. The draws are the same for all models of a class. The first standard error is
over the 360 images, and the second over repetitions of the evaluation, for the first seed.
"""
SAMPLES_TEXT = f"""\
Each model draws 1080 samples three times, for each of three trainings; the reference are the 360 test images. The floor
are the training images themselves in place of samples. Class histograms, class Gaussians and the memoriser (a kernel
density: a training image plus noise of {KDE_WIDTH:g} level) have as many samples. C2ST is the accuracy, by
cross-validation, of a classifier that tells samples from test images; .5 is best. "Nearest train" is the distance to
the nearest training image over that of test images: well below 1 is copying. "Synthetic SVC" is the accuracy on test
images of a classifier that is trained on samples and their labels, and "SVC agrees" the share of samples whose label a
classifier of training images finds.
"""
FIGURES = {
    "grid": (
        "Evidence 2: samples beside test images",
        "The first 100 samples of the first draw of the first seed, none left out, beside 100 test images.",
        "digits",
    ),
    "nearest": (
        "Evidence 3: the samples nearest to training images",
        "The ten of 1080 samples that are nearest to a training image. Each stands above its training image.",
        "digits",
    ),
    "distances": (
        "Evidence 4: distances to the nearest training image",
        "The whole distribution: a model that copies some images has a curve that rises early, as the memoriser's.",
        "digits",
    ),
    "curves": (
        "Evidence 5: training images against held-out images",
        "Bits of images of training and of validation images along a training, with and without augmentation.",
        "curves",
    ),
    "times": (
        "Bits against CPU time",
        "Every training of the tables, and shorter trainings.",
        "times",
    ),
}
CANARY_TEXT = """\
One image is in the training data once, or 21 times. A model that memorises would draw it as often as it is there. The
radius is half of the distance to the nearest other training image."""
LABELS_TEXT = """\
"Summed out" is a bound of log mean_y p(x | y): q(y | x) comes from other draws of the noise than the bound that it
weights (`scratchgen.metrics.cross_fitted_bound`), so that noise does not turn into likelihood. "Without label" is the
same network without a label."""
FRECHET_TEXT = """\
"To training images" is the Fréchet distance of samples to all training images in place of test images. The variances
are those of samples along principal axes of the training images, over the variance of the training images. Samples have
too little variance along the axes 6 to 20. Without weight decay they lack 4 % in place of 8 %, and the distance is
smaller by 1.4, but the bits are worse. More calls of the network change nothing: the sampler is not the cause."""
ABLATIONS_TEXT = """\
The recipe `sde fast` with one change, trained on four fifths of the training images. The bits are those of the
validation images, on common draws; the difference is paired by image, ± its standard error. Positive is worse. "Another
seed" shows the size of differences without a meaning."""
CHAINS_TEXT = """\
Validation bits of a DDPM that has the network of `sde best`, trained on four fifths of the training images. Only the
schedule and the variance of the reverse steps differ; "optimal" and "optimal-diag" are estimated on training images."""
PLANE_TEXT = """\
KL(p‖p_θ), nats; 0 is best. "Points" is the number of training points, which are draws of the law. The bound of a score
SDE is (34) and that of a DDPM is (21) minus the entropy, both by quadrature, or with a standard error from 10,000
points; that of a VAE is from 10,000 points. "KL, reverse SDE" is the left side of (34): the exact KL of a sampler of
100 Euler-Maruyama steps, whose density is computed on a grid. It is missing where it was not computed, and for the
first seed of the checkerboard, which throws more than 1e-7 of the mass too far for a grid. For the other seeds it is
above its bound: 100 steps are too few for the edges of the squares. The KL of the probability flow, of which (34) is no
bound, is from 1000 points, with its standard error.

With 10,000 points the 90,000 steps of `sde best` overfit: the row "of best on 10,000 points" is above `sde fast`, which
has 15,000 steps. With 100,000 points the same training reaches all targets. What limits a model of 10,000 points is
their number, not the training."""
TABLES_TEXT = """\
Penguins: minus the mean log-likelihood, or its bound, of a fifth of the rows, after training on the others. The rows
have units, so that only differences mean something; less is better."""
