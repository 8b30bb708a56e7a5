"""The command line: `scratchgen tour` (the default), `verify`, `museum`, `audit`; also as `python -m scratchgen`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import runpy
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from scratchgen import __version__
from scratchgen.models.files import write_atomically

TRACEBACK = "show the traceback of an error"
TYPICAL_SECONDS = {False: 155, True: 65}  # of a tour, by --quick, on two cores


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all is in tolerance, 1 if not, 2 for wrong use or an error, 130 for Ctrl-C."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        if options.command == "verify":
            return verify(options.equation, options.form)
        if options.command == "museum":
            return museum()
        if options.command == "audit":
            return audit(options.file)
        return tour(options.seed, options.out, options.quick)
    except KeyboardInterrupt:
        print("scratchgen: interrupted, nothing more is written", file=sys.stderr)
        return 130
    except (
        BrokenPipeError
    ):  # the reader of the pipe (`head`, for example) has closed it; the last flush must not raise again:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if options.traceback:
            raise
        print(f"scratchgen: {type(error).__name__}: {error} (--traceback shows where)", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; the default command is the tour."""
    parser = argparse.ArgumentParser(prog="scratchgen", description="Generative models from scratch, graded exactly.")
    parser.add_argument("--version", action="version", version=f"scratchgen {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    add_tour_options(parser)
    parser.set_defaults(seed=0, out=Path("scratchgen-report"), quick=False, traceback=False)
    add_tour_options(
        commands.add_parser(
            "tour", help="train EM, VAE, DDPM and a score SDE and grade each against an exact answer (the default)"
        )
    )
    verification = commands.add_parser(
        "verify", help="compute both sides of the 34 equations of the deck and compare them"
    )
    verification.add_argument(
        "equation",
        type=equation,
        nargs="?",
        metavar="N",
        help="a number in 1..34 or the name of a proposition: show this row in detail",
    )
    forms = verification.add_mutually_exclusive_group()
    forms.add_argument("--json", dest="form", action="store_const", const="json", help="print every value as JSON")
    forms.add_argument("--markdown", dest="form", action="store_const", const="markdown", help="print a Markdown table")
    verification.set_defaults(form="text")
    verification.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)
    exhibition = commands.add_parser(
        "museum", help="show known mistakes and faults planted in running code, and the check or test that finds each"
    )
    exhibition.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)
    auditing = commands.add_parser("audit", help="run every check that applies to your own code, and print one table")
    auditing.add_argument(
        "file",
        type=Path,
        metavar="FILE.py",
        help="a Python file with audit_me(), which returns the arguments of scratchgen.conformance.audit as a dict",
    )
    auditing.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)
    options = parser.parse_args(arguments)
    of_the_tour = (options.seed, options.quick, options.out) != (0, False, Path("scratchgen-report"))
    if options.command in ("verify", "museum", "audit") and of_the_tour:
        parser.error(
            f"--seed, --quick and --out are options of the tour; {options.command} draws nothing and writes nothing"
        )
    return options


def add_tour_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the tour to the bare command and to `tour`; only the bare command has defaults."""
    parser.add_argument(
        "--seed", type=seed, default=argparse.SUPPRESS, help="seed of data, weights and samples (default 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FOLDER",
        help="folder for the figures and metrics.json (default scratchgen-report)",
    )
    parser.add_argument(
        "--quick", action="store_true", default=argparse.SUPPRESS, help="a fifth of the training, with wider tolerances"
    )
    parser.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=TRACEBACK)


def seed(text: str) -> int:
    """A non-negative integer."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {value}")
    return value


def equation(text: str) -> str:
    """One of the 34 numbers of the deck, or the name of a proposition."""
    from scratchgen.equations import EQUATIONS, PROPOSITIONS

    for row in EQUATIONS + PROPOSITIONS:
        if text.lower() in (row.name.lower(), f"({row.name.lower()})"):
            return row.name
    names = ", ".join(row.name for row in PROPOSITIONS)
    raise argparse.ArgumentTypeError(f"must be in 1..34 or one of {names}; got {text}")


def verify(name: str | None, form: str) -> int:
    """Check the equations; return 1 if one of them is outside its tolerance."""
    with _demo_extra("verify"):
        from scratchgen.report.console import Narrator
        from scratchgen.report.verify import verify
    return verify(name, form, Narrator())


def museum() -> int:
    """Print both wings of the museum of mistakes."""
    from scratchgen.museum.tour import print_tour

    print_tour()
    return 0


def _place(error: BaseException, file: Path) -> str:
    """The file and the line of an error: the deepest line in this file, or that of a SyntaxError."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and not lines:
        return f"{error.filename}, line {error.lineno}"
    return f"{file}, line {lines[-1]}" if lines else str(file)


def audit(file: Path) -> int:
    """Run `audit_me()` of a Python file and print the table; return 1 if a check fails."""
    from scratchgen.conformance import Audit
    from scratchgen.conformance import audit as audit_of

    remedy = "define audit_me(), which returns the arguments of scratchgen.conformance.audit as a dict, or its result"
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; name a Python file, and in it {remedy}")
    sys.path.insert(0, str(file.resolve().parent))  # the file may import its neighbours, as a script does
    try:
        try:
            function = runpy.run_path(str(file)).get("audit_me")
            result = function() if callable(function) else None
        except Exception as error:
            raise RuntimeError(f"{_place(error, file)}: {type(error).__name__}: {error}") from error
        if not callable(function):
            raise ValueError(f"{file} has no function audit_me; {remedy}")
        if isinstance(result, dict):
            other = [key for key in result if not isinstance(key, str)]
            if other:
                raise TypeError(f"the keys of the dict of audit_me() must be names of arguments, got {other[0]!r}")
            result = audit_of(**result)
    except SystemExit as error:
        raise RuntimeError(f"{file} called sys.exit({error.code!r}) before its audit ended; {remedy}") from None
    finally:
        sys.path.pop(0)
    if not isinstance(result, Audit):
        raise TypeError(f"audit_me() in {file} must return a dict or an Audit, got {type(result).__name__}")
    print(result)
    return 0 if result.passed else 1


def tour(seed: int, out: Path, quick: bool) -> int:
    """Train, grade and draw everything; return 1 if a difference is outside its tolerance."""
    with _demo_extra("the tour"):
        from threadpoolctl import threadpool_limits

        from scratchgen.report.chapters import run
        from scratchgen.report.console import Narrator
        from scratchgen.report.figures import draw_all
        from scratchgen.report.tour import Tour
    replaced = claim_folder(out)
    began = time.perf_counter()
    narrator = Narrator()
    narrator.say(
        f"scratchgen {__version__}: trains EM, VAE, DDPM and a score SDE from scratch and grades each exactly."
    )
    narrator.say(
        f"Seed {seed}; about {TYPICAL_SECONDS[quick]} s on two cores; figures and metrics.json "
        f"{'replace those in' if replaced else 'go to'} {out}{os.sep}"
    )
    journey = Tour(seed, quick, narrator)
    # At these sizes a second BLAS thread gains little; with the other core busy it is ten times slower.
    with threadpool_limits(1, user_api="blas"):
        run(journey)
        figures = draw_all(journey, out)
    failed = [grade for grade in journey.grades if not grade.passed]
    metrics = {
        "scratchgen": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seed": seed,
        "quick": quick,
        "grades": [
            {
                "chapter": g.chapter,
                "quantity": g.quantity.strip(),
                "measured": g.measured,
                "exact": g.exact,
                "difference": g.difference,
                "low": g.low,
                "high": g.high,
                "passed": g.passed,
            }
            for g in journey.grades
        ],
        "digits_bits_per_dim": journey.bits_per_dim,
        "vae_drawback": {
            name: {"model_gap": model_gap, "least_gaussian_gap": least_gap}
            for name, (model_gap, least_gap) in journey.drawback.items()
        },
        "ddpm_ladder": {
            T: {"exact": exact, "bound": bound, "least_bound": least}
            for T, (exact, bound, least) in journey.ladder.items()
        },
    }
    write_atomically(out / "metrics.json", lambda file: file.write(json.dumps(metrics, indent=1).encode() + b"\n"))
    narrator.say()
    narrator.say(f"{len(figures)} figures and metrics.json in {out}{os.sep}, {time.perf_counter() - began:.0f} s")
    narrator.say(f"{len(journey.grades) - len(failed)} of {len(journey.grades)} differences within tolerance")
    return 1 if failed else 0


@contextmanager
def _demo_extra(what: str) -> Iterator[None]:
    """Name the remedy if a package of the extra `demo` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} needs {error.name}; run in the checkout: pip install '.[demo]'") from None


def claim_folder(out: Path) -> bool:
    """Create the folder of the report; return True if the folder holds an earlier report.

    Raises
    ------
    FileExistsError
        If the folder holds other files.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / "metrics.json").exists():
        return True
    if any(out.iterdir()):
        raise FileExistsError(f"--out {out} holds files that are not an earlier report; name another folder")
    (out / "metrics.json").touch()  # marks the folder as a report, so that an interrupted tour can be repeated
    return False
