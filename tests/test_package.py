"""The package as a whole: what importing it costs, what it exports, its docstrings and their examples."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import scratchgen

ROOT = Path(scratchgen.__file__).parent
NAMES = sorted(
    module.name
    for module in pkgutil.walk_packages(scratchgen.__path__, "scratchgen.")
    if not module.name.endswith("__main__")
)
MODULES = {name: importlib.import_module(name) for name in ["scratchgen", *NAMES]}
MODELS = ["GaussianMixture", "PPCA", "FactorAnalysis", "CategoricalMixture", "VAE", "LinearVAE", "DDPM", "ScoreSDE"]
VERBS = ["fit", "train", "sample", "elbo", "score", "score_samples", "save", "load", "get_params", "set_params"]
every_module = pytest.mark.parametrize("name", MODULES)


def run(*code):
    """Standard output of a fresh interpreter that sees this copy of the package and no warning unpunished."""
    command = [sys.executable, "-W", "error", *code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def public(module):
    """Functions and classes that a module defines and does not hide."""
    for name, value in vars(module).items():
        defined_here = getattr(value, "__module__", None) == module.__name__
        if defined_here and not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            yield name, value


# --- import -----------------------------------------------------------------------------------------------


def test_import_loads_numpy_and_nothing_else_that_is_heavy():
    """scipy alone would triple the time; matplotlib and rich are extras; scikit-learn is no dependency."""
    loaded = run("-c", "import sys, scratchgen; print(*sys.modules, sep='\\n')").split()
    assert "numpy" in loaded
    roots = {name.partition(".")[0] for name in loaded}
    assert roots.isdisjoint({"scipy", "matplotlib", "rich", "sklearn", "threadpoolctl", "pandas", "torch"})
    assert not any(name.startswith("scratchgen.report") for name in loaded)


def test_import_changes_no_global_state():
    code = """
import random, warnings, os
import numpy as np
before = [np.geterr(), np.get_printoptions(), warnings.filters[:], dict(os.environ), random.getstate(),
          repr(np.random.get_state())]
import scratchgen
after = [np.geterr(), np.get_printoptions(), warnings.filters[:], dict(os.environ), random.getstate(),
         repr(np.random.get_state())]
assert before == after
"""
    assert run("-c", code) == ""


def imports(name):
    """Modules that a module imports when it is imported (not inside functions, not for types)."""
    tree = ast.parse(inspect.getsource(MODULES[name]))
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module


def test_imports_run_one_way():
    """DESIGN 2: theory and tools never import models' faces, models never import the report."""
    faces = {"scratchgen.estimator", "scratchgen.diffusion", "scratchgen.vae", "scratchgen.em"}
    faces |= {f"scratchgen.em.{name}" for name in ("runs", "gaussian", "factors", "categorical")}
    faces |= {"scratchgen.ddpm.model", "scratchgen.sde.model", "scratchgen.vae.model", "scratchgen.vae.linear"}
    theory = {f"scratchgen.{name}" for name in ("validation", "likelihood", "variational", "schedule", "mixture")}
    theory |= {f"scratchgen.{name}" for name in ("network", "optimizer", "datasets", "quadrature", "em.steps")}
    theory |= {
        name for name in MODULES if name.startswith(("scratchgen.ddpm.", "scratchgen.sde.", "scratchgen.vae."))
    } - faces
    assert theory | faces <= set(MODULES)
    for name in theory:
        assert faces.isdisjoint(imports(name)), name
    for name in theory | faces:
        assert not any(imported.startswith("scratchgen.report") for imported in imports(name)), name


# --- what is exported -------------------------------------------------------------------------------------


@every_module
def test_all_lists_names_that_exist_once_and_in_order(name):
    module = MODULES[name]
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    for entry in exported:
        assert hasattr(module, entry), entry


def test_top_level_exports_what_the_design_promises_and_all_of_it():
    promised = [*MODELS, "NoiseSchedule", "VP", "SubVP", "VE", "Mixture", "MLP", "Adam"]
    assert set(scratchgen.__all__) == set(promised)
    visible = {k for k, v in vars(scratchgen).items() if not k.startswith("_") and not inspect.ismodule(v)}
    assert visible == set(scratchgen.__all__)
    namespace = {}
    exec("from scratchgen import *", namespace)
    assert set(promised) <= set(namespace)


@pytest.mark.parametrize("package", ["ddpm", "sde"])
def test_chapters_export_their_whole_theory(package):
    """Every public function of the chapter's theory; its estimator is exported at the top."""
    chapter = MODULES[f"scratchgen.{package}"]
    helpers = {"at", "check_shapes", "check_snr", "check_times", "check_time", "column", "factor"}
    defined = {
        entry
        for name, module in MODULES.items()
        if name.startswith(f"scratchgen.{package}.") and not name.endswith(".model")
        for entry, _ in public(module)
    }
    assert set(chapter.__all__) == defined - helpers


def test_promised_functions_have_their_promised_arguments():
    """DESIGN 4, names that others rely on."""
    promised = {
        "ddpm.q_step": "schedule t x_prev noise",
        "ddpm.q_sample": "schedule t x0 noise",
        "ddpm.q_posterior": "schedule t x_t x0",
        "ddpm.predict_x0": "schedule t x_t eps_hat",
        "ddpm.p_mean": "schedule t x_t eps_hat",
        "ddpm.merge_noise": "schedule t eps_bar_prev eps_t",
        "ddpm.split_noise": "schedule t eps omega",
        "ddpm.p_step": "schedule t x_t eps_hat noise variance",
        "ddpm.ddim_step": "schedule t s x_t eps_hat noise eta",
        "sde.reverse_drift": "sde score x t churn",
        "sde.VP": "beta_min beta_max horizon",
        "sde.SubVP": "beta_min beta_max horizon",
        "sde.VE": "sigma_min sigma_max horizon",
        "em.e_step": "x mixture",
    }
    for path, arguments in promised.items():
        module, name = path.split(".")
        function = getattr(MODULES[f"scratchgen.{module}"], name)
        assert list(inspect.signature(function).parameters) == arguments.split(), path
    assert scratchgen.VP() == scratchgen.VP(0.1, 20.0, 1.0)
    for name in MODELS:
        cls = getattr(scratchgen, name)
        for verb in VERBS:
            assert callable(getattr(cls, verb)), (name, verb)
        assert list(inspect.signature(cls.fit).parameters) == ["self", "x", "y"]
        assert list(inspect.signature(cls.sample).parameters)[:3] == ["self", "n", "rng"]
        assert "rng" in inspect.signature(cls.elbo).parameters
        assert hasattr(cls, "log_prob") == (name not in ("VAE", "DDPM"))


# --- docstrings -------------------------------------------------------------------------------------------


@every_module
def test_everything_public_has_a_docstring(name):
    module = MODULES[name]
    assert (module.__doc__ or "").strip(), name
    for entry, value in public(module):
        assert (inspect.getdoc(value) or "").strip(), f"{name}.{entry}"
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if not attribute.startswith("_") and inspect.isfunction(function):
                    assert inspect.getdoc(getattr(value, attribute)), f"{name}.{entry}.{attribute}"


@pytest.mark.parametrize("name", MODELS)
def test_constructor_arguments_are_documented(name):
    cls = getattr(scratchgen, name)
    section = inspect.getdoc(cls).split("Parameters\n----------\n")[1].split("\nAttributes\n")[0]
    documented = {word for line in re.findall(r"^(\S[^:\n]*)", section, re.M) for word in re.split(r"[,\s]+", line)}
    assert set(inspect.signature(cls).parameters) <= documented


@every_module
def test_docstring_examples(name):
    results = doctest.testmod(MODULES[name], verbose=False)
    assert results.failed == 0


def test_there_are_docstring_examples():
    finder = doctest.DocTestFinder()
    with_examples = {test.name for module in MODULES.values() for test in finder.find(module) if test.examples}
    for name in *MODELS, "MLP":
        assert any(test.endswith(f".{name}") for test in with_examples), name


# --- packaging --------------------------------------------------------------------------------------------


def test_package_is_typed_and_carries_its_data():
    assert files("scratchgen").joinpath("py.typed").is_file()
    for name in "digits.npz", "penguins.npz":
        with files("scratchgen").joinpath("data", name).open("rb") as file:
            assert np.load(file, allow_pickle=False).files


def test_version_is_one_number_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", scratchgen.__version__)
    assert run("-m", "scratchgen", "--version").split() == ["scratchgen", scratchgen.__version__]


def test_annotations_are_what_they_say():
    """`py.typed` promises them: every public function annotates its result and every argument."""
    for name, module in MODULES.items():
        for entry, value in public(module):
            functions = [value] if inspect.isfunction(value) else []
            if inspect.isclass(value):
                members = [getattr(m, "__func__", m) for m in vars(value).values()]
                functions = [m for m in members if inspect.isfunction(m) and m.__module__ == name]
            for function in functions:
                if function.__qualname__.split(".")[-1].startswith("_") and "__init__" not in function.__qualname__:
                    continue
                signature = inspect.signature(function)
                assert signature.return_annotation is not inspect.Signature.empty, f"{name}.{entry}"
                for argument in signature.parameters.values():
                    annotated = argument.annotation is not inspect.Parameter.empty
                    assert annotated or argument.name in ("self", "cls"), f"{name}.{function.__qualname__}"
