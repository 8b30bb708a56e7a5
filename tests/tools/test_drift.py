"""The theory trains: every function runs exactly in the verbs that the table names.

Each function of a row is replaced by one that raises; of all verbs of all models, exactly those of `runs_in` fail.  The
calls of a training step, of a step of a sampler and of an iteration of EM go one way, from model to chapter to network.
"""

import inspect
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import scratchgen
from scratchgen import DDPM, VAE, GaussianMixture, NoiseSchedule, ScoreSDE
from scratchgen.equations import EQUATIONS, PROPOSITIONS, find, through
from scratchgen.models.files import ModelFileError
from scratchgen.museum.planting import planted
from tests.tools.verbs import VERBS, WAYS, X, kept

ROWS = EQUATIONS + PROPOSITIONS
FUNCTIONS = sorted({row.function for row in ROWS})
RUNS_IN = {function: {row.runs_in for row in ROWS if row.function == function} for function in FUNCTIONS}


class PlantedError(Exception):
    """Raised by every function that must not be called."""


def refuse(original, *arguments, **keywords):
    raise PlantedError


def fails(verb):
    try:
        VERBS[verb]()
    except (PlantedError, ModelFileError) as error:  # `load` takes every error for that of a damaged file
        return PlantedError in (type(error), type(error.__cause__))
    return False


def plantable(function):
    """A class is replaced by its initialiser."""
    return f"{function}.__init__" if inspect.isclass(find(function)) else function


@pytest.fixture(scope="module", autouse=True)
def models_are_trained_before_anything_is_planted():
    for name in WAYS:
        kept(name)
    for verb in VERBS.values():
        verb()


@pytest.mark.parametrize("function", [function for function in FUNCTIONS if RUNS_IN[function] != {()}])
def test_without_its_function_exactly_the_verbs_of_runs_in_fail(function):
    (runs_in,) = RUNS_IN[function]  # rows with the same function have the same runs_in
    with planted(plantable(function), refuse):
        failed = [verb for verb in VERBS if fails(verb)]
    assert sorted(failed) == sorted(runs_in)


def test_without_the_functions_that_are_theory_only_no_verb_fails():
    """All of them at once, and the functions for which a fast form runs."""
    with ExitStack() as stack:
        for function in FUNCTIONS:
            if RUNS_IN[function] == {()}:
                stack.enter_context(planted(plantable(function), refuse))
        assert not [verb for verb in VERBS if fails(verb)]


def test_every_row_runs_somewhere_or_says_why_not():
    for row in ROWS:
        assert bool(through(row, ROWS)) != bool(row.theory_only), row.name
        assert not row.theory_only.endswith("."), row.name
        assert set(row.runs_in) <= set(VERBS), row.name
        assert len(set(row.runs_in)) == len(row.runs_in), row.name


def test_fast_forms_have_rows_of_their_own_and_live_in_fast():
    for row in ROWS:
        if row.fast:
            assert row.fast.startswith("fast."), row.name
            assert row.fast in FUNCTIONS, row.name
    for function in FUNCTIONS:
        if function.startswith("fast."):
            assert any(row.fast == function for row in ROWS), f"no row names {function} as its fast form"


def test_most_equations_run_and_the_named_ones_train():
    """The count is of distinct functions; rows that share a function count once."""
    running = {row.function for row in EQUATIONS if through(row, EQUATIONS + PROPOSITIONS)}
    assert len(running) >= 17
    training = {row.name for row in EQUATIONS if any(".fit" in verb for verb in through(row, ROWS))}
    assert training >= {"8", "14", "15", "16", "18", "25", "29", "31", "33"}
    verbs = {row.name: through(row, ROWS) for row in EQUATIONS}
    assert "GaussianMixture.elbo" in verbs["17"]
    assert "DDPM.iwae" in verbs["19"]
    assert "DDPM.elbo" in verbs["20"]
    assert "grade_bound" in verbs["21"]
    assert "to_ddpm" in verbs["30"]
    assert "ScoreSDE.sample" in verbs["32"]
    assert "grade_kl_bound" in verbs["34"]


# --- frames ------------------------------------------------------------------------------------------------

ROOT = Path(scratchgen.__file__).parent
LAYERS = ("models", "chapter", "below")  # calls go from left to right, never back
CHAPTERS = {"vae", "em", "ddpm", "sde"}


def layer(path):
    part = path.relative_to(ROOT).parts[0]
    return "models" if part == "models" else "chapter" if part in CHAPTERS else "below"


class Spy:
    """Follows the calls within scratchgen while switched on: their depth, and which layer calls which."""

    def __init__(self):
        self.stack, self.deepest, self.back, self.functions = [], [], set(), set()

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(ROOT)):
            return
        if code.co_filename.endswith("validation.py"):
            return  # checks of arguments are no part of the theory
        if code.co_name in ("<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"):
            return  # not counted as a call
        if event == "return":
            if self.stack:
                self.stack.pop()
            return
        path = Path(code.co_filename)
        self.functions.add((path.name, code.co_qualname))
        here, (above, caller) = layer(path), self.stack[-1] if self.stack else (LAYERS[0], "")
        if "<locals>" in code.co_qualname and LAYERS.index(here) < LAYERS.index(above):
            here = above  # a closure with bound arguments counts as part of its caller; further calls must go forwards
        if LAYERS.index(here) < LAYERS.index(above):
            self.back.add((caller, code.co_qualname))
        self.stack.append((here, code.co_qualname))
        if len(self.stack) > len(self.deepest):
            self.deepest = [name for _, name in self.stack]

    def follow(self, step):
        sys.setprofile(self)
        try:
            step()
        finally:
            sys.setprofile(None)


def training(model, x):
    steps = model.train(x)
    next(steps)  # the first call includes work that is done once
    return lambda: next(steps)


def sampling(path):
    next(path)
    return lambda: next(path)


def iteration_of_em():
    return training(GaussianMixture(2, tol=0, max_iter=4, rng=0), X)


SMALL = {"hidden": (4,), "n_steps": 4, "batch_size": 6, "rng": 0}
T4 = NoiseSchedule.linear(4, 1e-2, 0.9)
STEPS = {
    "DDPM trains": lambda: training(DDPM(T4, **SMALL), X),
    "ScoreSDE trains": lambda: training(ScoreSDE(**SMALL), X),
    "VAE trains": lambda: training(VAE(1, (4,), n_steps=4, batch_size=6, rng=0), X),
    "DDPM samples": lambda: sampling(kept("DDPM")[0][0].sample_path(3, rng=0)),
    "DDPM samples by DDIM": lambda: sampling(kept("DDPM")[0][0].sample_path(3, rng=0, eta=0.5)),
    "DDPM samples by multistep steps": lambda: sampling(kept("DDPM")[0][0].sample_path(3, rng=0, stochasticity=0.5)),
    "ScoreSDE samples": lambda: sampling(kept("ScoreSDE")[0][0].sample_path(3, rng=0)),
    "ScoreSDE samples by Euler-Maruyama": lambda: sampling(
        kept("ScoreSDE")[0][0].sample_path(3, rng=0, method="euler")
    ),
    "ScoreSDE samples by Heun": lambda: sampling(
        kept("ScoreSDE")[0][0].sample_path(3, rng=0, stochasticity=0.0, method="heun")
    ),
    "EM iterates": iteration_of_em,
}


@pytest.mark.parametrize("name", STEPS)
def test_calls_go_one_way_and_at_most_six_deep(name):
    spy, step = Spy(), STEPS[name]()
    spy.follow(step)
    assert spy.functions
    assert not spy.back
    assert len(spy.deepest) <= 6, " > ".join(spy.deepest)
