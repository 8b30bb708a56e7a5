"""Mutation testing of the running code: random single-point faults, given to `verify` and to the tests.

    python benchmarks/mutants.py --n 300 --seed 0                    choose, run, report
    python benchmarks/mutants.py --only verify --modules "nn/*" "fast/*"
    python benchmarks/mutants.py --retry                             the survivors again, after new tests
    python benchmarks/mutants.py --report                            print the table of all verdicts so far

A mutant changes one point of one module: an operator, a constant, an axis, an omitted argument, a deleted statement,
sum for mean, min for max.  Docstrings, annotations, decorators, imports, `raise` statements, functions that build an
error and blocks for type checkers are never changed.  The choice depends only on the seed and on the text of each
point, so that a change elsewhere in a module keeps the other mutants.

There are two verdicts.  `verify` runs all rows of the table of equations in a process forked for the mutant; the mutant
is killed if a row fails or raises.  `suite` runs pytest on the test files that TESTS names for the module, then on
FALLBACK; the first failed test kills the mutant.  The work is done in a copy of the repository.  Every verdict is
appended at once to a file of JSON lines, and a second run continues where the first one ended.
"""

from __future__ import annotations

import argparse
import ast
import copy
import fnmatch
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# Modules, as globs below scratchgen/, that train, sample and score.
MODULES = (
    "likelihood.py", "variational.py", "quadrature.py", "schedule.py", "mixture.py", "timestep_sampling.py",
    "augmentation.py",
    "nn/*.py", "fast/*.py", "vae/*.py", "em/*.py", "ddpm/*.py", "sde/*.py", "models/*.py",
)  # fmt: skip
SKIPPED_MODULES = ("*/__init__.py", "__init__.py")

# Test files for a module, as globs.  A module's own path counts first, then the first pattern that fits.
TESTS: dict[str, tuple[str, ...]] = {
    "ddpm/*": ("tests/chapters/*ddpm*.py", "tests/models/*ddpm*.py", "tests/models/*diffusion*.py"),
    "models/ddpm.py": ("tests/models/*ddpm*.py", "tests/models/*diffusion*.py", "tests/models/*whole*.py"),
    "models/score_sde.py": ("tests/models/*sde*.py", "tests/models/*diffusion*.py", "tests/models/*whole*.py"),
    "models/diffusion.py": ("tests/models/*diffusion*.py", "tests/models/*ddpm*.py", "tests/models/*sde*.py"),
    "models/*vae*": ("tests/models/*vae*.py", "tests/models/*estimator*.py"),
    "models/*gaussian*": ("tests/models/*gaussian*.py", "tests/models/*estimator*.py"),
    "models/*mixture*": ("tests/models/*mixture*.py", "tests/models/*estimator*.py"),
    "models/*": ("tests/models/*estimator*.py", "tests/models/*.py"),
    "sde/*": ("tests/chapters/*sde*.py", "tests/chapters/*matching*.py", "tests/chapters/*corrector*.py",
              "tests/chapters/*flow*.py", "tests/models/*sde*.py"),
    "em/*": ("tests/chapters/*em*.py", "tests/chapters/*linear_gaussian*.py", "tests/models/*mixture*.py",
             "tests/models/*linear_gaussian*.py"),
    "fast/em*": ("tests/chapters/*em*.py",),
    "fast/*": ("tests/nn/*activations*.py", "tests/nn/*mlp*.py"),
    "vae/*": ("tests/chapters/*vae*.py", "tests/models/*vae*.py"),
    "nn/*": ("tests/nn/*.py", "tests/models/*whole*.py"),
    "augmentation*": ("tests/models/*augmentation*.py",),
    "timestep*": ("tests/nn/*timestep*.py",),
    "*": ("tests/chapters/test_{stem}.py", "tests/tools/test_{stem}.py"),  # {stem}: the module's own name
}  # fmt: skip
FALLBACK = (  # after the module's own files; in this order
    "tests/chapters/*.py", "tests/models/*.py", "tests/nn/*.py", "tests/tools/*.py",
)  # fmt: skip
# Slow tests, and tests of other things:
LEFT_OUT = ("*speed*", "*benchmark*", "*readme*", "*test_cli*", "*datasets*", "*drift*", "*test_verify*", "*report*")

# (module, function, before, after, reason): mutants that change no result.  `before` and `after` are the changed lines
# without indentation, as the report prints them.  A reason starts with "message" or "equivalent".
EQUIVALENT: tuple[tuple[str, str, str, str, str], ...] = ()

MEMORY = 8 * 2**30  # bytes of address space of a process that runs a mutant
VERIFY_TIMEOUT = 40.0  # s


# --- mutants -----------------------------------------------------------------------------------------------------

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.Pow: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.FloorDiv,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
NAMES = {
    "sum": "mean", "mean": "sum", "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum",
    "argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any", "zeros": "ones", "ones": "zeros",
    "zeros_like": "ones_like", "ones_like": "zeros_like", "log1p": "log", "expm1": "exp", "repeat": "tile",
    "tile": "repeat", "floor": "ceil", "ceil": "floor", "cumsum": "asarray",
}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.ClassDef)


class Mutant(NamedTuple):
    """One fault."""

    key: str  # of module, place and change
    module: str  # below scratchgen/
    function: str  # qualified name, "" at the module's top
    line: int
    kind: str
    before: str  # the changed lines
    after: str
    source: str  # of the mutated module
    digest: str  # of the unchanged module

    def record(self) -> dict[str, Any]:
        kept = ("key", "module", "function", "line", "kind", "before", "after", "digest")
        return {name: getattr(self, name) for name in kept}


def points(tree: ast.Module) -> Iterator[tuple[ast.AST, str, bool]]:
    """Every node that may be mutated, with the name of its function and whether it lies in a slice."""

    def visit(node: ast.AST, where: tuple[str, ...], in_slice: bool) -> Iterator[tuple[ast.AST, str, bool]]:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr, ast.Global, ast.Nonlocal)):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # docstrings, the ... of a protocol
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return  # strict=True of zip: the lengths are equal by construction
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_typing(node):
            return
        if isinstance(node, FUNCTIONS) and node.returns is not None and ast.unparse(node.returns).endswith("Error"):
            return
        if isinstance(node, SCOPES):
            where = (*where, node.name)
        yield node, ".".join(where), in_slice
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases", "keywords", "type_params") and (
                isinstance(node, (*SCOPES, ast.arg, ast.AnnAssign))
            ):
                continue
            inside = in_slice or (isinstance(node, ast.Subscript) and name == "slice")
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, where, inside)

    yield from visit(tree, (), False)


def _is_typing(node: ast.Assign | ast.AnnAssign) -> bool:
    """__all__, __slots__, TypeVars and other names for types."""
    targets = [ast.unparse(t) for t in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    if any(t in ("__all__", "__slots__", "__version__") for t in targets):
        return True
    if node.value is None:
        return True
    text = ast.unparse(node.value)
    return text.startswith(("TypeVar(", "NewType(", "Callable[", "Union[", "tuple[", "dict[", "list[", "NDArray["))


def variants(node: ast.AST, in_slice: bool, assigned: set[str]) -> list[tuple[str, ast.AST]]:
    """(kind, what stands in the node's place) for every mutation of one node."""
    found: list[tuple[str, ast.AST]] = []

    def changed(kind: str, **fields: Any) -> None:
        new = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        found.append((kind, new))

    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            for other in SWAPS.get(type(op), ()):
                changed("operator", op=other())
            if isinstance(node, ast.AugAssign):
                found.append(("statement deleted", ast.Pass()))
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in SWAPS.get(type(op), ()):
                    changed("comparison", ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            if not (in_slice and isinstance(operand, ast.Constant)):
                found.append(("sign or not dropped", operand))
        case ast.Constant(value=bool(value)):
            found.append(("True and False", ast.Constant(not value)))
        case ast.Constant(value=int() | float() as value):
            found.append(("slice shifted" if in_slice else "constant + 1", ast.Constant(value + 1)))
            if value and not in_slice:
                found.append(("constant doubled", ast.Constant(2 * value)))
                found.append(("constant negated", ast.UnaryOp(ast.USub(), ast.Constant(value))))
        case ast.keyword(arg="axis", value=ast.Constant(value=int(value))):
            found.append(("axis", ast.keyword("axis", ast.Constant(1 if value == 0 else 0))))
        case ast.keyword(arg="axis", value=ast.UnaryOp()):
            found.append(("axis", ast.keyword("axis", ast.Constant(0))))
        case ast.Call(func=func, args=args, keywords=keywords):
            # the only argument of a function is one that it needs; of a method (x.sum(0)) it may have a default
            droppable = len(args) + len(keywords) > 1 or (
                isinstance(func, ast.Attribute) and not ast.unparse(func.value).startswith("np")
            )
            for i in range(len(args) if droppable else 0):
                changed("argument dropped", args=[*args[:i], *args[i + 1 :]])
            for i, keyword in enumerate(keywords):
                if keyword.arg != "strict":
                    changed("keyword dropped", keywords=[*keywords[:i], *keywords[i + 1 :]])
            if isinstance(func, ast.Attribute) and func.attr in NAMES:
                new = copy.deepcopy(node)
                new.func.attr = NAMES[func.attr]  # type: ignore[attr-defined]
                found.append((f"{func.attr} -> {NAMES[func.attr]}", new))
            if isinstance(func, ast.Name) and func.id in ("min", "max", "any", "all"):
                changed(f"{func.id} -> {NAMES[func.id]}", func=ast.Name(NAMES[func.id], ast.Load()))
        case ast.Attribute(attr="T", value=value):
            found.append(("transpose dropped", value))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if not isinstance(test, (ast.Compare, ast.UnaryOp)):  # these have their own mutations
                found.append(("condition negated", test))
        case ast.Expr(value=value) if not isinstance(value, (ast.Yield, ast.YieldFrom, ast.Await)):
            found.append(("statement deleted", ast.Pass()))
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            found.append(("statement deleted", ast.Pass()))
        case ast.Assign(targets=[ast.Name(id=name)]) if name in assigned:
            found.append(("statement deleted", ast.Pass()))
        case ast.Break() | ast.Continue():
            found.append(("statement deleted", ast.Pass()))
    return found


def mutants_of(module: str, source: str, seed: int) -> list[tuple[str, Mutant]]:
    """One mutant of every point of a module that has some, with its place in the order that the seed says."""
    tree, encoded = ast.parse(source), source.encode()
    starts = [0]
    for line in encoded.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    digest, seen, out = hashlib.sha256(encoded).hexdigest()[:12], dict[tuple[str, str], int](), []
    assigned: dict[str, set[str]] = {}
    for node, function, in_slice in points(tree):
        before_names = assigned.setdefault(function, set())
        choices = variants(node, in_slice, before_names)
        if isinstance(node, ast.Assign):
            before_names.update(t.id for t in node.targets if isinstance(t, ast.Name))
        if not choices or not hasattr(node, "lineno"):
            continue
        text = f"{type(node).__name__} {ast.unparse(node)}"
        number = seen[function, text] = seen.get((function, text), -1) + 1
        place = f"{module}:{function}:{text}:{number}"
        draw = int(hashlib.sha256(f"{seed}:{place}:kind".encode()).hexdigest(), 16)
        kind, new = choices[draw % len(choices)]
        if kind == "condition negated":
            node, replacement = new, f"not ({ast.unparse(new)})"
        else:
            replacement = ast.unparse(ast.fix_missing_locations(new))
        if isinstance(new, ast.expr):
            replacement = f"({replacement})"
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        mutated = (encoded[:begin] + replacement.encode() + encoded[end:]).decode()
        try:
            changed = ast.dump(ast.parse(mutated)) != ast.dump(tree)
        except SyntaxError:
            continue
        if not changed:
            continue
        first, last = node.lineno - 1, node.end_lineno
        lines_before = source.splitlines()[first:last]
        lines_after = mutated.splitlines()[first : last + mutated.count("\n") - source.count("\n")]
        before, after = (" ".join(part.strip() for part in lines)[:300] for lines in (lines_before, lines_after))
        key = hashlib.sha256(f"{place}:{kind}:{after}".encode()).hexdigest()[:16]
        rank = hashlib.sha256(f"{seed}:{place}".encode()).hexdigest()
        out.append((rank, Mutant(key, module, function, node.lineno, kind, before, after, mutated, digest)))
    return out


def modules_of(root: Path, globs: tuple[str, ...]) -> list[str]:
    """Paths below scratchgen/ that some glob names."""
    package = root / "scratchgen"
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    chosen = [n for n in names if any(fnmatch.fnmatch(n, g) for g in globs)]
    return [n for n in chosen if not any(fnmatch.fnmatch(n, g) for g in SKIPPED_MODULES)]


def choose(root: Path, modules: list[str], n: int, seed: int) -> tuple[list[Mutant], int]:
    """n mutants of all, each point as likely, and how many points there are."""
    everything: list[tuple[str, Mutant]] = []
    for module in modules:
        everything += mutants_of(module, (root / "scratchgen" / module).read_text(), seed)
    everything.sort(key=lambda pair: pair[0])
    return [mutant for _, mutant in everything[:n]], len(everything)


# --- where a mutant runs -----------------------------------------------------------------------------------------


class Copy:
    """A copy of the repository in which one mutant at a time stands."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        ignored = shutil.ignore_patterns(".*", "mutants", "build", "dist", "*.egg-info", "*-report")
        shutil.copytree(root, folder, ignore=ignored)
        self.environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",  # or a mutant's bytecode could be taken for the next one's
            "HYPOTHESIS_PROFILE": "mutation",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.server: subprocess.Popen[str] | None = None

    def plant(self, mutant: Mutant) -> None:
        (self.folder / "scratchgen" / mutant.module).write_text(mutant.source)

    def restore(self, mutant: Mutant) -> None:
        shutil.copy2(self.root / "scratchgen" / mutant.module, self.folder / "scratchgen" / mutant.module)

    def verify(self) -> dict[str, Any]:
        """{"killed": bool, "by": rows that fail, "seconds"}."""
        if self.server is None or self.server.poll() is not None:
            self.server = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--serve", str(self.folder)],
                cwd=self.folder, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print("go", file=self.server.stdin, flush=True)
        return dict(json.loads(self.server.stdout.readline()))

    def pytest(self, files: list[str], timeout: float, stop: bool = True) -> dict[str, Any]:
        """{"killed": bool, "by": the first test that fails, "seconds"}."""
        options = [*(["-x"] if stop else []), "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", "--no-header"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *files], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_limit_memory,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=timeout)
            failed = [line.split(" ", 1)[1].split(" - ")[0] for line in out.splitlines()
                      if line.startswith(("FAILED", "ERROR "))]  # fmt: skip
            by = failed or ([] if process.returncode in (0, 5) else [f"exit status {process.returncode}: {out[-300:]}"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            by = [f"timeout of {timeout:.0f} s"]
        return {"killed": bool(by), "by": by, "seconds": round(time.perf_counter() - began, 2)}

    def end(self) -> None:
        if self.server is not None and self.server.stdin is not None:
            self.server.stdin.close()
            self.server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def serve(folder: Path) -> None:
    """For every line on standard input run all rows of the table in a forked process; answer one JSON line."""
    import numpy  # noqa: F401  warm for every fork
    import scipy.integrate
    import scipy.linalg
    import scipy.optimize
    import scipy.spatial.distance
    import scipy.special
    import scipy.stats  # noqa: F401

    for _ in sys.stdin:
        began = time.perf_counter()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _answer_rows(folder, write)
        os.close(write)
        parts, deadline = [], began + VERIFY_TIMEOUT
        while select.select([read], [], [], max(deadline - time.perf_counter(), 0))[0]:
            part = os.read(read, 1 << 16)
            if not part:
                break
            parts.append(part)
        else:
            os.kill(child, signal.SIGKILL)
            parts = [json.dumps([f"timeout of {VERIFY_TIMEOUT:.0f} s"]).encode()]
        os.waitpid(child, 0)
        os.close(read)
        by = json.loads(b"".join(parts) or b'["process died"]')
        answer = {"killed": bool(by), "by": by, "seconds": round(time.perf_counter() - began, 2)}
        print(json.dumps(answer), flush=True)


def _answer_rows(folder: Path, write: int) -> None:
    """In the forked process: import the mutated package, run every row, write the names of those that fail, and end."""
    failed: list[str] = []
    try:
        import warnings

        _limit_memory()
        warnings.simplefilter("ignore")
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        import scratchgen
        from scratchgen.equations import EQUATIONS, PROPOSITIONS, check

        if Path(scratchgen.__file__).parent != folder / "scratchgen":
            failed.append(f"imported {scratchgen.__file__}")
        for row in EQUATIONS + PROPOSITIONS:
            try:
                if not check(row).passed:
                    failed.append(row.name)
            except BaseException as error:
                failed.append(f"{row.name} ({type(error).__name__})")
    except BaseException as error:
        failed.append(f"import: {type(error).__name__}: {error}")
    os.write(write, json.dumps(failed).encode())
    os.close(write)
    os._exit(0)


# --- which tests -------------------------------------------------------------------------------------------------


def test_files(root: Path, module: str) -> tuple[list[str], list[str]]:
    """The module's own test files, and the others, in the order in which they run."""
    own = _existing(root, _globs_of(module), Path(module).stem)
    others = [name for name in _existing(root, FALLBACK, "") if name not in own]
    return own, others


def _globs_of(module: str) -> tuple[str, ...]:
    exact = next((globs for pattern, globs in TESTS.items() if pattern == module), None)
    return exact or next(globs for pattern, globs in TESTS.items() if fnmatch.fnmatch(module, pattern))


def _existing(root: Path, globs: tuple[str, ...], stem: str) -> list[str]:
    names = [path.relative_to(root).as_posix() for g in globs for path in sorted(root.glob(g.replace("{stem}", stem)))]
    kept = [n for n in dict.fromkeys(names) if Path(n).name.startswith("test_")]
    return [n for n in kept if not any(fnmatch.fnmatch(n, g) for g in LEFT_OUT)]


# --- run and report ----------------------------------------------------------------------------------------------


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Records by key; a later line of the same mutant adds to the earlier one."""
    records: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            new = json.loads(line)
            old = records.get(new["key"], {})
            records[new["key"]] = (old if old.get("digest") == new["digest"] else {}) | new
    return records


def reason(record: dict[str, Any]) -> str:
    """Why a mutant changes no result, if EQUIVALENT says so."""
    place = tuple(record[name] for name in ("module", "function", "before", "after"))
    return next((entry[4] for entry in EQUIVALENT if entry[:4] == place), "")


def report(records: list[dict[str, Any]]) -> None:
    """A table by module, then the survivors."""

    def killed(record: dict[str, Any], by: str) -> bool:
        return bool(record.get(by, {}).get("killed"))

    def line(name: str, part: list[dict[str, Any]]) -> str:
        real = [r for r in part if killed(r, "verify") or killed(r, "suite") or not reason(r)]
        cells = [f"{name:28s}{len(part):8d}{len(part) - len(real):12d}"]
        for by in ("verify", "suite"):
            run = [r for r in real if by in r]
            share = f"{sum(killed(r, by) for r in run)} of {len(run)}" if run else "-"
            percent = f"{100 * sum(killed(r, by) for r in run) / len(run):.1f} %" if run else ""
            cells.append(f"{share:>14s}{percent:>9s}")
        return "".join(cells)

    print(f"{'module':28s}{'mutants':>8s}{'equivalent':>12s}{'verify':>23s}{'suite':>23s}")
    folders: dict[str, list[dict[str, Any]]] = {}
    for module in sorted({r["module"] for r in records}):
        part = [r for r in records if r["module"] == module]
        print(line(module, part))
        folders.setdefault(module.split("/")[0] + "/" if "/" in module else "top level", []).extend(part)
    print()
    for folder, part in folders.items():
        print(line(folder, part))
    print(line("all", records))
    for by in ("suite", "verify"):
        alive = [r for r in records if by in r and not killed(r, by)]
        if by == "verify":
            alive = []  # too many to list; the share of `verify` counts
        for record in sorted(alive, key=lambda r: (r["module"], r["line"])):
            why = reason(record)
            print(f"\nsurvives the {by}: scratchgen/{record['module']}:{record['line']}  {record['function']}"
                  f"  [{record['kind']}]  key {record['key']}")  # fmt: skip
            print(f"    - {record['before']}\n    + {record['after']}")
            if killed(record, "verify"):
                print(f"    (verify sees it: {', '.join(record['verify']['by'][:5])})")
            if why:
                print(f"    ({why})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="how many mutants (default 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", default=MODULES, help="globs below scratchgen/")
    parser.add_argument("--only", choices=("verify", "suite"))
    parser.add_argument("--own", action="store_true", help="of the tests only the module's own files, not FALLBACK")
    parser.add_argument("--unverified", action="store_true", help="of the mutants only those that verify does not see")
    parser.add_argument("--key", nargs="+", default=[], help="only these mutants")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, help="s of one run of tests; default 4 times what they take unmutated")
    parser.add_argument("--retry", action="store_true", help="run survivors once more")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="print the chosen mutants and run nothing")
    parser.add_argument("--no-control", action="store_true", help="skip the run of unmutated code")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="repository")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    root = options.root.resolve()
    modules = modules_of(root, tuple(options.modules))
    chosen, n_points = choose(root, modules, options.n, options.seed)
    chosen = [m for m in chosen if not options.key or m.key in options.key]
    print(f"{len(chosen)} mutants of {n_points} points in {len(modules)} modules, seed {options.seed}")
    if options.list:
        for m in chosen:
            print(f"{m.key} {m.module}:{m.line} {m.function} [{m.kind}]\n    - {m.before}\n    + {m.after}")
        return 0
    records = load(options.out)
    if not options.report:
        run(options, root, chosen, records)
    digests = {m.key: m.digest for m in chosen}
    report([r for key, r in records.items() if digests.get(key) == r["digest"]])
    return 0


def run(options: argparse.Namespace, root: Path, chosen: list[Mutant], records: dict[str, dict[str, Any]]) -> None:
    """All verdicts that are missing, each appended to the file when it is known."""

    def missing(mutant: Mutant, by: str) -> bool:
        record = records.get(mutant.key, {})
        if options.only not in (None, by):
            return False
        if by == "suite" and options.unverified and record.get("verify", {}).get("killed"):
            return False
        if record.get("digest") != mutant.digest or by not in record:
            return True
        return bool(options.retry and not record[by]["killed"])

    jobs = [m for m in chosen if missing(m, "verify") or missing(m, "suite")]
    if not jobs:
        return
    lock, done = threading.Lock(), 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        free = [Copy(root, Path(temporary) / str(i) / "repository") for i in range(max(options.jobs, 1))]
        seconds = control(options, free[0], jobs)

        def timeout(files: list[str]) -> float:
            known = sum(seconds.get(name, 20.0) for name in files)
            return float(options.timeout or 4 * known + 30)

        def work(mutant: Mutant) -> None:
            nonlocal done
            with lock:
                place = free.pop()
            record = mutant.record()
            place.plant(mutant)
            try:
                if missing(mutant, "verify"):
                    record["verify"] = place.verify()
                    if options.only is None and options.unverified and record["verify"]["killed"]:
                        return
                if missing(mutant, "suite"):
                    own, others = test_files(root, mutant.module)
                    verdict = place.pytest(own, timeout(own)) if own else {"killed": False, "by": [], "seconds": 0.0}
                    if not verdict["killed"] and others and not options.own:
                        first = verdict["seconds"]
                        verdict = place.pytest(others, timeout(others))
                        verdict["seconds"] = round(verdict["seconds"] + first, 2)
                    record["suite"] = verdict
            finally:
                place.restore(mutant)
                with lock:
                    free.append(place)
                    done += 1
                    if "verify" in record or "suite" in record:
                        with options.out.open("a") as file:
                            file.write(json.dumps(record, ensure_ascii=False) + "\n")
                        old = records.get(mutant.key, {})
                        records[mutant.key] = (old if old.get("digest") == mutant.digest else {}) | record
                    said = [f"{by}: {', '.join(record[by]['by'][:2])[:90] or 'survives'} ({record[by]['seconds']} s)"
                            for by in ("verify", "suite") if by in record]  # fmt: skip
                    place_of = f"[{done}/{len(jobs)}] {mutant.module}:{mutant.line} [{mutant.kind}]"
                    print(f"{place_of}  {'; '.join(said)}", flush=True)

        with ThreadPoolExecutor(max(options.jobs, 1)) as pool:
            for future in [pool.submit(work, mutant) for mutant in jobs]:
                future.result()
        for place in free:
            place.end()


def control(options: argparse.Namespace, place: Copy, jobs: list[Mutant]) -> dict[str, float]:
    """Seconds of every test file on unmutated code, where everything must pass: else every mutant would seem killed."""
    if options.no_control:
        return {}
    if options.only != "suite":
        verdict = place.verify()
        if verdict["killed"]:
            raise SystemExit(f"verify fails on unmutated code: {verdict['by']}")
    if options.only == "verify":
        return {}
    files = dict.fromkeys(
        name for m in jobs for part in test_files(place.root, m.module)[: 1 if options.own else 2] for name in part
    )
    seconds: dict[str, float] = {}
    for name in files:
        verdict = place.pytest([name], 1200.0)
        if verdict["killed"]:
            raise SystemExit(f"{name} fails on unmutated code: {verdict['by'][:3]}")
        seconds[name] = verdict["seconds"]
    print(f"unmutated: {len(files)} test files pass in {sum(seconds.values()):.0f} s", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
