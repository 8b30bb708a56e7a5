"""How good the models are: `python -m benchmarks.quality` measures, `python -m benchmarks.quality report` writes.

Results are JSON lines in benchmarks/quality/PART.jsonl.  A result that is there with the same settings is kept, so that
a run goes on where another one stopped, and a change of a recipe repeats what depends on it and nothing else.  Trained
models are kept in a folder of their own for all parts.  `report` trains nothing: it writes benchmarks/QUALITY.md with
its figures, and the numbers of the recipes, scratchgen/data/recipes.json, from the results.

Parts:
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from benchmarks.quality import report
from benchmarks.quality.parts import PARTS
from benchmarks.quality.records import Options, run
from benchmarks.timing import start_with_one_thread

HERE = Path(__file__).parent


def main() -> int:
    """Run the parts, or write the report; return 1 if a unit failed."""
    about = (__doc__ or "") + "".join(f"  {name:10}{text}\n" for name, (_, text) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="parts, or `report`; default all parts, and no report")
    parser.add_argument("--only", default="", metavar="TEXT", help="units whose name begins with this text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--again", action="store_true", help="repeat results that are there")
    parser.add_argument("--list", action="store_true", help="name the units, and do nothing")
    parser.add_argument("--quick", action="store_true", help="tiny models and few samples, to try the command")
    parser.add_argument("--folder", type=Path, default=HERE, help="of results and figures (default %(default)s)")
    parser.add_argument("--models", type=Path, help="of trained models (default FOLDER/models)")
    options = parser.parse_args()
    unknown = set(options.parts) - {*PARTS, "report"}
    if unknown:
        parser.error(f"parts must be among {', '.join(PARTS)}, report; got {', '.join(sorted(unknown))}")
    start_with_one_thread("benchmarks.quality")
    for usual in ("EM has not converged", "covariance_floor"):
        warnings.filterwarnings("ignore", usual)
    folder = options.folder.resolve()
    given = Options(folder, options.models or folder / "models", options.quick, tuple(options.seeds))
    n_failed = 0
    for part in options.parts or PARTS:
        if part == "report":
            report.write(given)
            continue
        units = [unit for unit in PARTS[part][0](given) if unit.name.startswith(options.only)]
        if options.list:
            print(*(f"{unit.part}, {unit.name}, seed {unit.seed}" for unit in units), sep="\n")
        else:
            n_failed += run(units, given, options.again)
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
