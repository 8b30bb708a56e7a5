"""The package as a whole: the cost of its import, its exports, its docstrings and their examples."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from operator import attrgetter
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
WEIGHTED = MODELS[:4]  # their rows may have weights
VERBS = ["fit", "train", "sample", "elbo", "score", "score_samples", "save", "load", "get_params", "set_params"]
every_module = pytest.mark.parametrize("name", MODULES)


def run(*code):
    """Standard output of a fresh interpreter that sees this copy of the package and treats warnings as errors."""
    command = [sys.executable, "-W", "error", *code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def public(module):
    """The public functions and classes that a module defines."""
    for name, value in vars(module).items():
        defined_here = getattr(value, "__module__", None) == module.__name__
        if defined_here and not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            yield name, value


# --- import -----------------------------------------------------------------------------------------------


def test_import_loads_numpy_and_nothing_else_that_is_heavy():
    """scipy.special would more than double the time; matplotlib and rich are extras; scikit-learn is no dependency."""
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


# --- exports -------------------------------------------------------------------------------------


@every_module
def test_all_lists_names_that_exist_once_and_in_order(name):
    module = MODULES[name]
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    for entry in exported:
        assert hasattr(module, entry), entry


def test_top_level_exports_exactly_the_promised_names():
    classes = [*MODELS, "NoiseSchedule", "VP", "SubVP", "VE", "Mixture", "MLP", "Adam"]
    promised = [*classes, "load", "to_ddpm", "to_sde"]
    assert set(scratchgen.__all__) == set(promised)
    visible = {k for k, v in vars(scratchgen).items() if not k.startswith("_") and not inspect.ismodule(v)}
    assert visible == set(scratchgen.__all__)
    namespace = {}
    exec("from scratchgen import *", namespace)
    assert set(promised) <= set(namespace)


@pytest.mark.parametrize("package", ["vae", "em", "ddpm", "sde"])
def test_chapters_export_their_whole_theory(package):
    """Every public function and class of the chapter, except checks of arguments."""
    chapter = MODULES[f"scratchgen.{package}"]
    defined = {
        entry
        for name, module in MODULES.items()
        if name.startswith(f"scratchgen.{package}.")
        for entry, _ in public(module)
        if not entry.startswith(("check_", "as_"))
    }
    values = {entry: getattr(chapter, entry) for entry in chapter.__all__}
    assert {entry for entry, v in values.items() if inspect.isfunction(v) or inspect.isclass(v)} == defined


def arguments_of(function):
    return list(inspect.signature(function).parameters)


def test_promised_functions_have_their_promised_arguments():
    """Other code relies on these names."""
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
        "ddpm.noise_error": "noise eps_hat",
        "ddpm.eps_coefficients": "schedule t kind",
        "ddpm.prediction_to_eps": "schedule t x_t prediction kind",
        "ddpm.eps_to_prediction": "schedule t x_t eps_hat kind",
        "ddpm.optimal_reverse_variance": "schedule noise_loss dimension",
        "ddpm.train_step": "network schedule x0 t noise weight given",
        "sde.reverse_drift": "sde score x t stochasticity",
        "sde.euler_maruyama": "sde score x times rng noise stochasticity n_corrections snr",
        "sde.denoising_error": "score noise std",
        "sde.score_step": "network sde x0 t noise weight given",
        "sde.VP": "beta_min beta_max horizon",
        "sde.SubVP": "beta_min beta_max horizon",
        "sde.VE": "sigma_min sigma_max horizon",
        "em.e_step": "x law",
        "vae.train_step": "network x noise kl_weight",
    }
    for path, arguments in promised.items():
        module, name = path.split(".")
        assert arguments_of(getattr(MODULES[f"scratchgen.{module}"], name)) == arguments.split(), path
    for name in MODELS:
        cls = getattr(scratchgen, name)
        for verb in VERBS:
            assert callable(getattr(cls, verb)), (name, verb)
        weighted = ["sample_weight"] if name in WEIGHTED else []
        assert arguments_of(cls.fit) == ["self", "x", "y", *weighted]
        assert ("sample_weight" in arguments_of(cls.train)) == bool(weighted)
        assert hasattr(cls, "bic") == hasattr(cls, "aic") == (name in {*WEIGHTED, "LinearVAE"})
        assert arguments_of(cls.sample)[:3] == ["self", "n", "rng"]
        assert "rng" in arguments_of(cls.elbo)
        assert hasattr(cls, "log_prob") == (name not in ("VAE", "DDPM"))
    for cls in scratchgen.VAE, scratchgen.LinearVAE:
        assert arguments_of(cls.elbo) == arguments_of(cls.iwae)


REQUIRED = inspect.Parameter.empty
NETWORK = {
    "hidden": (128, 128, 128), "network": "mlp", "dropout": 0.0, "picture": None, "n_coordinate_features": None,
    "n_classes": 0, "label_dropout": 0.1,
}  # fmt: skip
ADAM = {
    "n_steps": None, "batch_size": 256, "learning_rate": 5e-3, "weight_decay": 0.0, "ema_decay": 0.9999,
    "augment": None,
}  # fmt: skip
LAST = {
    "early_stopping": False, "validation_fraction": 0.1, "n_iter_no_change": 5, "standardize": True, "verbose": False,
    "rng": None,
}  # fmt: skip
DEFAULTS = {
    "GaussianMixture": {
        "n_components": 1, "covariance_type": "full", "tol": 1e-3, "max_iter": 100, "n_init": 1,
        "init_params": "k-means++", "covariance_floor": 1e-6, "covariance_prior": None, "weights_init": None,
        "means_init": None, "precisions_init": None, "warm_start": False, "acceleration": None, "verbose": False,
        "rng": None,
    },
    "PPCA": {"n_components": 1, "method": "closed", "tol": 1e-9, "max_iter": 1000, "verbose": False, "rng": None},
    "FactorAnalysis": {
        "n_components": 1, "tol": 1e-6, "max_iter": 1000, "noise_floor": 1e-6, "verbose": False, "rng": None,
    },
    "CategoricalMixture": {
        "n_components": 1, "n_levels": 2, "smoothing": 1.0, "tol": 1e-4, "max_iter": 200, "n_init": 1, "verbose": False,
        "rng": None,
    },
    "VAE": {
        "n_latents": 2, "hidden": (64, 64), "decoder_hidden": None, "activation": "silu", "decoder_variance": None,
        "n_levels": None, "kl_weight": 1.0, "n_steps": None, "batch_size": 128, "learning_rate": 2e-3,
        "dtype": "float32", "augment": None, **LAST,
    },
    "LinearVAE": {
        "n_latents": 2, "decoder_variance": None, "kl_weight": 1.0, "n_steps": 3000, "learning_rate": 1e-2, **LAST,
    },
    "DDPM": {
        "schedule": None, "variance": "beta", "prediction": "v", "weighting": "simple", "step_choice": "uniform",
        "n_levels": None, "clip_x0": False, **NETWORK, **ADAM, **LAST,
    },
    "ScoreSDE": {
        "sde": None, "t_min": 1e-3, "weighting": "likelihood", "matching": "denoising", "directions": "rademacher",
        "time_choice": "stratified", "n_sample_steps": 50, "n_levels": None, "prediction": "v",
        **NETWORK, **ADAM, **LAST,
    },
    "VP": {"beta_min": 0.1, "beta_max": 20.0, "horizon": 1.0},
    "SubVP": {"beta_min": 0.1, "beta_max": 20.0, "horizon": 1.0},
    "VE": {"sigma_min": REQUIRED, "sigma_max": REQUIRED, "horizon": 1.0},
    "Mixture": {"weights": REQUIRED, "means": REQUIRED, "covariances": REQUIRED},
    "NoiseSchedule": {"variances": REQUIRED},
    "NoiseSchedule.from_variances": {"v": REQUIRED},
    "NoiseSchedule.linear": {"T": REQUIRED, "beta_min": 0.1, "beta_max": 20.0},
    "NoiseSchedule.cosine": {"T": REQUIRED, "offset": 0.008, "max_variance": 0.999},
    "NoiseSchedule.from_sde": {"sde": REQUIRED, "T": REQUIRED},
    "nn.Adam": {
        "parameters": REQUIRED, "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
        "weight_decay": 0.0,
    },
    "nn.EMA": {"average": REQUIRED, "decay": 0.999},
    "nn.MLP": {"sizes": REQUIRED, "activation": "silu", "rng": None, "dtype": np.float32, "zero_last": False},
    "nn.NoiseNetwork": {
        "dimension": REQUIRED, "hidden": (128, 128, 128), "n_time_features": 8, "n_coordinate_features": 0,
        "rng": None, "dtype": np.float32, "n_classes": 0, "n_augment": 0,
        "network": "mlp", "dropout": 0.0,
    },
    "nn.CategoricalDenoiser": {
        "histograms": REQUIRED, "covariance": REQUIRED, "hidden": (256, 256, 256), "n_time_features": 8,
        "n_classes": 0, "rng": None, "dtype": np.float32, "n_augment": 0, "class_histograms": None,
        "network": "mlp", "dropout": 0.0, "picture": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("path", DEFAULTS)
def test_constructors_have_their_arguments_in_order_with_these_defaults(path):
    parameters = inspect.signature(attrgetter(path)(scratchgen)).parameters
    positional = [name for name, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert positional == [name for name in DEFAULTS[path] if name in positional]
    assert {name: (type(p.default), p.default) for name, p in parameters.items()} == {
        name: (type(value), value) for name, value in DEFAULTS[path].items()
    }


@pytest.mark.parametrize(("loop", "model"), [("ddpm.train", "DDPM"), ("sde.train", "ScoreSDE"), ("vae.train", "VAE")])
def test_training_loops_have_the_defaults_of_their_models(loop, model):
    chapter, name = loop.split(".")
    parameters = inspect.signature(getattr(importlib.import_module(f"scratchgen.{chapter}"), name)).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    shared = defaults.keys() & DEFAULTS[model]
    assert {"learning_rate"} < shared
    for argument in shared - {"prediction"}:  # None keeps the coefficients of the network itself; the models pass "v"
        assert defaults[argument] == DEFAULTS[model][argument], argument


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
def test_docstring_examples_run(name):
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


def test_the_distribution_has_a_name_of_its_own_and_the_command_keeps_that_of_the_package():
    """The package registry's `scratchgen` is another project, so that no hint may name it to pip."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf8"))["project"]
    assert project["name"] == "scratchgen-vi"
    assert project["scripts"] == {"scratchgen": "scratchgen.report.cli:main"}
    for path in (*ROOT.rglob("*.py"), ROOT.parent / "README.md"):
        assert not re.search(r"pip install ['\"]?scratchgen", path.read_text(encoding="utf8")), path


def test_public_functions_are_annotated():
    """`py.typed` promises it: every public function annotates its arguments and its result."""
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
