"""Imports run one way and have no circle, including the imports inside functions."""

import ast
import pkgutil
from functools import cache
from pathlib import Path

import pytest

import scratchgen

ROOT = Path(scratchgen.__file__).parent
MODULES = {"scratchgen": ROOT / "__init__.py"} | {
    module.name: ROOT.joinpath(*module.name.split(".")[1:]) for module in pkgutil.walk_packages([ROOT], "scratchgen.")
}
MODULES = {name: path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for name, path in MODULES.items()}

# Each group imports only from itself and from the groups above it in this list.
GROUPS = [
    (
        "foundations",
        "blocks validation likelihood variational quadrature schedule law mixture plane timestep_sampling datasets "
        "augmentation",
    ),
    ("fast", "fast.silu"),
    ("nn", "nn"),
    ("vae", "vae"),
    ("em", "em"),
    ("ddpm", "ddpm"),
    ("sde", "sde"),
    ("fast forms of chapters", "fast.em_statistics fast"),
    ("models", "models"),
    ("metrics", "metrics"),
    ("recipes", "recipes"),
    ("export", "export"),
    ("package", ""),
    ("grading", "grading"),
    ("conformance", "conformance"),
    ("testing", "testing"),
    ("equations", "equations"),
    ("museum", "museum"),
    ("report", "report __main__"),
]
NEVER = [  # (modules, modules that they never import)
    ("nn vae em ddpm sde fast", "models metrics export grading conformance equations museum report"),
    (
        "blocks validation likelihood variational quadrature schedule law mixture plane",
        "nn vae em ddpm sde fast models",
    ),
    ("ddpm sde", "vae em"),
    ("vae em", "ddpm sde"),
    ("conformance equations museum", "models metrics recipes grading report"),
    ("models metrics grading export", "conformance equations museum report"),
    ("models", "metrics"),
]


@cache
def imported(name):
    """Modules of the package that a module imports anywhere in its code; imports for annotations do not count."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf8"))
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found |= {whole} if whole in MODULES else {node.module} & MODULES.keys()
    return found - {name}


def part_of(name, parts):
    """Whether a module is one of the named parts of the package, or inside one."""
    inner = name.removeprefix("scratchgen").removeprefix(".")
    return any(inner == part or (part and inner.startswith(f"{part}.")) for part in parts.split() or [""])


def group(name):
    """The group with the longest matching name."""
    found = [
        (len(part), i) for i, (_, parts) in enumerate(GROUPS) for part in parts.split() or [""] if part_of(name, part)
    ]
    assert found, f"{name} belongs to no group"
    return max(found)[1]


def test_every_module_is_in_the_import_graph():
    assert len(MODULES) > 90
    assert all(path.is_file() for path in MODULES.values())
    assert imported("scratchgen.likelihood") >= {"scratchgen.validation"}
    assert "scratchgen.report.verify" in imported("scratchgen.report.commands.verify")  # in functions
    assert "scratchgen.museum.tour" in imported("scratchgen.report.commands.museum")


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_to_earlier_groups(name):
    late = {other for other in imported(name) if group(other) > group(name)}
    assert not late, f"{GROUPS[group(name)][0]} imports {late}"


@pytest.mark.parametrize(("who", "whom"), NEVER, ids=[f"{who} | {whom}" for who, whom in NEVER])
def test_lower_layers_never_import_higher_ones(who, whom):
    for name in MODULES:
        if part_of(name, who):
            wrong = {other for other in imported(name) if part_of(other, whom)}
            assert not wrong, f"{name} imports {wrong}"


def test_imports_have_no_circle():
    """The __init__ of a package counts as seen by the modules that import from it."""
    done, path = set(), []

    def follow(name):
        assert name not in path, " > ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(imported(name)):
            follow(other)
        path.pop()
        done.add(name)

    for name in MODULES:
        follow(name)
