"""The rows beyond the deck: their use, code in float32, callables of a wrong form, time."""

import inspect
import time

import numpy as np
import pytest

from scratchgen import Mixture, NoiseSchedule, conformance
from scratchgen.conformance import check_conservative_score
from scratchgen.equations import BEYOND, EQUATIONS, PROPOSITIONS, check, find
from scratchgen.report import cli

every_row = pytest.mark.parametrize("row", BEYOND, ids=lambda row: row.name)
LINE = Mixture([1.0], [[0.0]], [[[1.0]]])
PLANE = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])


def single(value):
    """A result in float32; densities and numbers keep their form."""
    if inspect.isgenerator(value):
        return (single(part) for part in value)
    if isinstance(value, tuple):
        parts = [single(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value if isinstance(value, int) else np.float32(value)


def test_the_rows_are_a_part_of_the_propositions_and_say_what_they_are_good_for():
    assert PROPOSITIONS[-len(BEYOND) :] == BEYOND
    for row in BEYOND:
        assert row.use, row.name
        assert row.use[0].isupper(), row.name
        assert not row.use.endswith("."), row.name
        assert not row.name.startswith("N"), row.name
    assert not any(row.use for row in (*EQUATIONS, *PROPOSITIONS[: -len(BEYOND)]))
    assert len({row.use for row in BEYOND}) == len(BEYOND)


@every_row
def test_right_code_in_float32_passes_at_1e_5(row):
    function = find(row.function)
    assert check(row, {row.function: lambda *a, **k: single(function(*a, **k))}).at(1e-5)


@every_row
def test_one_part_in_a_thousand_is_seen_also_at_1e_5(row):
    """In samplers one part in ten, since their errors are larger."""
    function = find(row.function)

    def off(*arguments, **keywords):
        value = function(*arguments, **keywords)
        if inspect.isgenerator(value):
            return ((i, 1.1 * x) for i, x in value)
        if isinstance(value, tuple):
            return (
                type(value)(*(1.001 * part for part in value))
                if hasattr(value, "_fields")
                else (tuple(1.001 * part for part in value))
            )
        return 1.001 * value

    assert not check(row, {row.function: off}).at(1e-5)


def test_verify_shows_the_use_and_the_part(capsys):
    assert cli.main(["verify", "de Bruijn"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("de Bruijn  d/dt KL")
    assert "use         Tests an integrand of (34)" in out
    assert "remark" not in out


def test_the_rows_take_little_time():
    """Of the ten seconds of verify; process time, since other processes may run."""
    for row in BEYOND:
        check(row)  # the imports of SciPy
    began = time.process_time()
    for row in BEYOND:
        check(row)
    assert time.process_time() - began < 3


SCHEDULE = NoiseSchedule([0.1, 0.2])
LEVEL = lambda t: (1 - t, t)  # noqa: E731
WRONG = [
    ("check_fokker_planck", lambda f: (f, lambda t: t, LEVEL, PLANE, [0.5])),
    ("check_flow_velocity", lambda f: (f, LEVEL, PLANE, [0.5])),
    ("check_edm_coefficients", lambda f: (f,)),
    ("check_sigma_grid", lambda f: (f,)),
    ("check_exponential_step", lambda f: (f,)),
    ("check_flow_order", lambda f: (f, PLANE)),
    ("check_weak_order", lambda f: (f, [0.0], [[1.0]])),
    ("check_mutual_information", lambda f: (f, [], [])),
    ("check_kl_rate", lambda f: (f, None, LINE, LINE, [0.5])),
    ("check_tweedie_covariance", lambda f: (f, PLANE, [[1.0, 1.0]])),
    ("check_conservative_score", lambda f: (f, PLANE)),
    ("check_tilted_score", lambda f: (f, LINE, [1.0], [[1.0, 1.0]])),
    ("check_ddim_inversion", lambda f: (f, SCHEDULE)),
    ("check_mixture_step", lambda f: (f, SCHEDULE)),
    ("check_law_moments", lambda f: (f, SCHEDULE)),
    ("check_data_processing", lambda f: (f, SCHEDULE)),
    ("check_discrete_bound", lambda f: (f,)),
    ("check_dequantisation", lambda f: (f, [0.0], [1.0])),
    ("check_kl_parts", lambda f: (f, [1.0], [[1.0]], [1.0])),
    ("check_iwae_ladder", lambda f: (f, [[1.0]], [[1.0]])),
    ("check_missing_information", lambda f: (f, [[0.0]], [1.0], [[0.0]], [[[1.0]]])),
]


def test_every_check_of_a_row_beyond_the_deck_is_tried_below():
    assert {name for name, _ in WRONG} == {check(row).name for row in BEYOND}


@pytest.mark.parametrize(("name", "arguments"), WRONG, ids=[name for name, _ in WRONG])
def test_a_callable_of_another_arity_is_refused(name, arguments):
    with pytest.raises(TypeError, match="must be callable as"):
        getattr(conformance, name)(*arguments(lambda: 0))
    with pytest.raises(TypeError, match="must be callable as"):
        getattr(conformance, name)(*arguments(3.0))


def test_results_of_another_shape_are_refused_by_name():
    with pytest.raises(ValueError, match=r"drift must return an array of shape \(7, 2\), got shape \(7,\)"):
        conformance.check_fokker_planck(lambda x, t: x[:, 0], lambda t: t, LEVEL, PLANE, [0.5])
    with pytest.raises(ValueError, match="coefficients must return 4 arrays, got 3"):
        conformance.check_edm_coefficients(lambda sigma: (sigma,) * 3)
    with pytest.raises(ValueError, match="p_x must sum to 1"):
        conformance.check_kl_parts(lambda p, q, r: (p, 0.0), [0.5, 0.4], [[1.0], [1.0]], [1.0])


# --- a score that is a gradient, but not that of the law -----------------------------------------------------------


def law_in(D):
    rng = np.random.default_rng(D)
    A = rng.standard_normal((3, D, D))
    return Mixture([0.5, 0.2, 0.3], 2 * rng.standard_normal((3, D)), A @ A.swapaxes(1, 2) / D + 0.3 * np.eye(D))


def swirl(law, x):
    """A rotation in the plane of the last two coordinates, beside the mean of the law only."""
    y = 0 * x
    apart = x - law.mean()
    y[:, -2], y[:, -1] = -apart[:, -1], apart[:, -2]
    return np.exp(-0.05 * (apart**2).sum(axis=1, keepdims=True)) * y


WRONG_SCORES = {
    "a factor": lambda law, x: 0.9 * law.score(x),
    "a small factor": lambda law, x: (1 + 1e-7) * law.score(x),
    "a constant": lambda law, x: law.score(x) + 1e-6,
    "the gradient of another law": lambda law, x: law.score(x) - 1e-6 * x,
    "a rotation": lambda law, x: law.score(x) + 1e-3 * swirl(law, x),
    "clipped": lambda law, x: np.clip(law.score(x), -5, 5),
    "the sign": lambda law, x: -law.score(x),
}


@pytest.mark.parametrize("D", [2, 3, 8, 40])
def test_the_conservative_score_is_that_of_its_law_in_any_dimension(D):
    """Of D > 2 the check once saw the asymmetry only, and a factor and a constant passed."""
    law = law_in(D)
    assert check_conservative_score(law.score, law)
    for name, wrong in WRONG_SCORES.items():
        assert not check_conservative_score(lambda x, f=wrong: f(law, x), law), name
    factor = check_conservative_score(lambda x: 0.9 * law.score(x), law)
    assert "it is 0.9 times the right value" in factor.diagnosis
    if D < 5:
        assert check_conservative_score(lambda x: law.score(x).astype(np.float32), law).at(1e-5)
        assert not check_conservative_score(lambda x: (0.9 * law.score(x)).astype(np.float32), law).at(1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e3])
def test_sharp_changes_between_components_refuse_no_right_score(scale):
    law = law_in(3)
    narrow = Mixture(law.weights, law.means, scale * law.covariances)
    assert check_conservative_score(narrow.score, narrow)
    assert not check_conservative_score(lambda x: 1.001 * narrow.score(x), narrow)
