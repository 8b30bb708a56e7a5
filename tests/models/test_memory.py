"""Memory of fits and verbs beside their input and output: a few blocks of rows, for any number of rows and T.

The data have 8 MB in 16 blocks of rows in place of 2**19 numbers, so that the test is quick.  A copy of all rows as
float64, or of their noise at all steps, would have 8 MB or more; a bound of 6 MB refuses each of them.
"""

import inspect
import warnings

import numpy as np
import pytest
import scipy.spatial.distance  # noqa: F401 - k-means imports it, and the first import would count

import scratchgen.blocks
from benchmarks import rows
from scratchgen import (
    DDPM,
    PPCA,
    VAE,
    CategoricalMixture,
    FactorAnalysis,
    GaussianMixture,
    LinearVAE,
    NoiseSchedule,
    ScoreSDE,
)
from scratchgen.blocks import blocks, by_blocks
from scratchgen.ddpm import bound_terms, q_path
from scratchgen.em import sample_moments, start

N, D = 125_000, 8
MOST = 6.0  # MB


def added(work, *given, **options):
    """Peak of the allocations of NumPy during work, less its result, MB."""
    return rows.added(work, *given, **options) * 2**20 / 1e6


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 0.5 MB, and starts from few rows."""
    monkeypatch.setattr(scratchgen.blocks, "BLOCK", 2**16)
    monkeypatch.setattr(start, "MOST_ROWS", 5000)


def data(n=N, levels=False):
    rng = np.random.default_rng(7)  # another seed than that of the noise, which would be equal to the data
    return rng.integers(0, 4, (n, D)).astype(np.float64) if levels else rng.standard_normal((n, D)) + rng.integers(3)


SMALL = {"hidden": (8,), "n_steps": 2, "rng": 0}
MODELS = {
    "GaussianMixture": GaussianMixture(2, max_iter=1, rng=0),
    "CategoricalMixture": CategoricalMixture(2, n_levels=4, max_iter=1, rng=0),
    "PPCA": PPCA(2, method="em", max_iter=2, rng=0),
    "FactorAnalysis": FactorAnalysis(2, max_iter=2, rng=0),
    "VAE": VAE(2, **SMALL),
    "DDPM": DDPM(NoiseSchedule.linear(3), **SMALL),
    "ScoreSDE": ScoreSDE(n_sample_steps=3, **SMALL),
    "LinearVAE": LinearVAE(2, n_steps=2, rng=0),
}
STATE = "a function of a state x_t, which samplers call for blocks of rows"
VERBS = {
    "GaussianMixture": ("score_samples", "elbo", "predict", "predict_proba", "impute"),
    "CategoricalMixture": ("score_samples", "elbo", "predict", "predict_proba"),
    "PPCA": ("score_samples", "elbo", "encode", "impute"),
    "FactorAnalysis": ("score_samples", "elbo", "encode"),
    "VAE": ("elbo", "iwae", "encode", "reconstruct"),
    "DDPM": ("elbo", "bound_terms", "noise_losses"),
    "ScoreSDE": ("elbo",),
    "LinearVAE": ("log_prob", "elbo", "iwae", "encode", "reconstruct"),
}
# Methods that the tests of this file leave out, or measure elsewhere than by VERBS, each with the reason.
OTHERS = {
    "fit": "test_a_fit_adds_a_few_blocks",
    "train": "`fit` runs it",
    "resume": "`fit` runs it",
    "fit_predict": "`fit` and `predict`",
    "sample": "test_draws_add_a_few_blocks",
    "sample_path": "yields whole states of a chain, (n, D)",
    "score": "the mean of `score_samples`",
    "aic": "a sum of `score_samples`",
    "bic": "a sum of `score_samples`",
    "iwae": "in VERBS, and for a DDPM in test_noise_of_many_steps_is_not_kept",
    "log_prob": "`score_samples`; a ScoreSDE solves an ODE for 4096 rows at a time",
    "score_samples": "`log_prob`, or `elbo` where there is no likelihood",
    "decode": "the second half of `reconstruct`",
    "to_data": "one product and one sum of arrays",
    "to_model": "one difference and one quotient of arrays",
    "eps_hat": STATE,
    "predict_score": STATE,
    "score_and_divergence": STATE,
    "denoise": STATE,
    "denoise_variance": STATE,
    "diffused_log_prob": STATE,
}
OPTIONS = {
    ("VAE", "elbo"): {"n_draws": 3},
    ("VAE", "iwae"): {"n_draws": 3},
    ("LinearVAE", "iwae"): {"n_draws": 3},
    ("ScoreSDE", "elbo"): {"n_times": 2},
}


@pytest.fixture(scope="module")
def fitted():
    """The models after a fit to few rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return {
            name: type(model)(**model.get_params()).fit(data(200, levels=name == "CategoricalMixture"))
            for name, model in MODELS.items()
        }


@pytest.mark.parametrize("name", [name for name in MODELS if name != "LinearVAE"])  # its batch is all of x
def test_a_fit_adds_a_few_blocks(name):
    """Network models keep one copy of x, in float32."""
    model = MODELS[name]
    x = data(levels=name == "CategoricalMixture")
    copy = x.size * 4 / 1e6 if name in ("VAE", "DDPM", "ScoreSDE") else 0.0
    assert added(type(model)(**model.get_params()).fit, x) < MOST + copy


@pytest.mark.parametrize(("name", "verb"), [(name, verb) for name, verbs in VERBS.items() for verb in verbs])
def test_a_verb_over_rows_adds_a_few_blocks(fitted, name, verb):
    x = data(levels=name == "CategoricalMixture")
    if verb == "impute":
        x[::7, 3] = np.nan
    assert added(getattr(fitted[name], verb), x, **OPTIONS.get((name, verb), {})) < MOST


@pytest.mark.parametrize("name", MODELS)
def test_every_method_over_rows_is_measured_or_has_a_reason(name):
    methods = inspect.getmembers(type(MODELS[name]), inspect.isfunction)
    first = {method: [*inspect.signature(f).parameters, "", ""][1] for method, f in methods if method[0] != "_"}
    over_rows = {method for method, argument in first.items() if argument in ("x", "x_t", "z", "n")}
    assert over_rows - set(OTHERS) <= set(VERBS[name]) <= over_rows


@pytest.mark.parametrize("name", [name for name in MODELS if name != "LinearVAE"])
def test_draws_add_a_few_blocks(fitted, name):
    assert added(fitted[name].sample, N, rng=0) < MOST


def test_noise_of_many_steps_is_not_kept():
    """All noise of the bound would have 13 MB, and all paths of `iwae` too."""
    model = DDPM(NoiseSchedule.linear(100), **SMALL).fit(data(200))
    assert added(model.elbo, data(2000), rng=0) < MOST
    assert added(model.iwae, data(2000), rng=0, n_draws=1) < MOST


def test_noise_that_an_iterator_draws_has_the_number_and_shape_of_the_steps():
    schedule, x0 = NoiseSchedule.linear(3), np.ones((4, 2))
    noise = np.random.default_rng(0).standard_normal((3, 4, 2))

    def terms(given):
        return bound_terms(schedule, x0, lambda x, t: 0.5 * x, given)

    np.testing.assert_array_equal(terms(iter(noise)), terms(noise))
    np.testing.assert_array_equal(q_path(schedule, x0, iter(noise)), q_path(schedule, x0, noise))
    for wrong in iter(noise[:2]), iter([*noise, noise[0]]), iter([]):
        with pytest.raises(ValueError, match="noise must yield T = 3 arrays, got"):
            terms(wrong)
    with pytest.raises(ValueError, match=r"noise must have shape \(N, D\) = \(4, 2\), got shape \(4, 1\)"):
        terms(iter(noise[..., :1]))


@pytest.mark.parametrize(
    ("name", "verb"),
    [(n, v) for n, verbs in VERBS.items() for v in verbs if n not in ("VAE", "DDPM", "ScoreSDE") and v != "iwae"]
    + [("VAE", "encode"), ("VAE", "reconstruct")],
)
def test_values_do_not_depend_on_the_blocks(fitted, monkeypatch, name, verb):
    """The other verbs draw other noise in other blocks."""
    x = data(700, levels=name == "CategoricalMixture")
    if verb == "impute":
        x[::7, 3], x[::5] = np.nan, np.nan
    whole = getattr(fitted[name], verb)(x)
    monkeypatch.setattr(scratchgen.blocks, "BLOCK", 999)
    parts = getattr(fitted[name], verb)(x)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["GaussianMixture", "CategoricalMixture", "PPCA", "FactorAnalysis"])
def test_a_fit_does_not_depend_on_the_blocks(monkeypatch, name):
    model, x = MODELS[name], data(700, levels=name == "CategoricalMixture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        whole = type(model)(**model.get_params()).fit(x)
        monkeypatch.setattr(scratchgen.blocks, "BLOCK", 999)
        parts = type(model)(**model.get_params()).fit(x)
    for attribute in model._fitted:
        np.testing.assert_allclose(getattr(parts, attribute), getattr(whole, attribute), rtol=1e-11, atol=1e-12)


def test_the_mean_bound_of_blocks_is_that_of_all_rows(fitted, monkeypatch):
    """Blocks have other draws: the difference of the means of 2000 rows is at most 6 of its standard deviations."""
    x = data(2000)
    for name in "VAE", "DDPM", "ScoreSDE":
        whole = fitted[name].elbo(x, rng=0)
        monkeypatch.setattr(scratchgen.blocks, "BLOCK", 999)
        parts = fitted[name].elbo(x, rng=1)
        monkeypatch.setattr(scratchgen.blocks, "BLOCK", 2**16)
        assert abs((parts - whole).mean()) < 6 * (parts - whole).std() / len(x) ** 0.5


def test_blocks_hold_every_row_once(monkeypatch):
    monkeypatch.setattr(scratchgen.blocks, "BLOCK", 10)
    assert list(blocks(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(blocks(7, 100, least=5)) == [slice(0, 5), slice(5, 7)]
    assert list(blocks(0, 3)) == [slice(0, 0)]
    x = np.arange(14.0).reshape(7, 2)
    squares, sums = by_blocks(lambda rows: (x[rows] ** 2, x[rows].sum(axis=1)), 7, 2)
    np.testing.assert_array_equal(squares, x**2)
    np.testing.assert_array_equal(sums, x.sum(axis=1))
    assert by_blocks(lambda rows: x, 7, 1) is x


def test_moments_of_blocks_are_those_of_all_rows(monkeypatch):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 3)) + 10.0, rng.uniform(0.5, 2, 500)
    monkeypatch.setattr(scratchgen.blocks, "BLOCK", 100)
    mean, covariance = sample_moments(x, w)
    np.testing.assert_allclose(mean, np.average(x, axis=0, weights=w), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(x.T, bias=True, aweights=w), rtol=1e-12, atol=1e-12)


def test_an_element_out_of_range_is_named_by_its_row_in_x(fitted, monkeypatch):
    monkeypatch.setattr(scratchgen.blocks, "BLOCK", 80)
    x = data(100)
    x[57, 3] = 1e40
    with pytest.raises(ValueError, match=r"x\[57, 3\] is 1e\+40"):
        fitted["DDPM"].elbo(x)
    levels = data(100, levels=True)
    levels[57, 3] = 4
    with pytest.raises(ValueError, match=r"x\[57, 3\] is 4"):
        CategoricalMixture(2, n_levels=4).fit(levels)
