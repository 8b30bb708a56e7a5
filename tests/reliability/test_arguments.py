"""Bad arguments: every case of `arguments`, and the advice for mistakes that people make."""

import random
from functools import cache

import numpy as np
import pytest

from scratchgen import (
    DDPM,
    VP,
    Adam,
    GaussianMixture,
    LinearVAE,
    Mixture,
    NoiseSchedule,
    ScoreSDE,
    ddpm,
    em,
    grading,
    nn,
    sde,
)
from tests.reliability import arguments, strange
from tests.reliability.allowed import ALLOWED
from tests.reliability.calls import calls

REALS = np.random.default_rng(0).standard_normal((20, 3))
PICTURES = np.random.default_rng(0).integers(0, 17, (20, 8, 8))
SCHEDULE = NoiseSchedule.linear(6)
ND = np.ones((5, 2))
ODD = np.array([[1.0, 0.9], [0.0, 1.0]])
HUGE = np.array([[0.0, np.longdouble("1e4000")]])
HALF = np.full((5, 2), 0.5)
TWO = Mixture([0.5, 0.5], np.zeros((2, 2)), np.stack([np.eye(2)] * 2))


@cache
def tried():
    return [*arguments.tried(), *strange.tried()]


@pytest.mark.parametrize("one", calls(), ids=lambda one: one.name)
def test_the_call_whose_arguments_are_replaced_is_valid(one):
    arguments.run(one)


def test_every_bad_argument_is_named_in_an_error_and_every_form_has_one_meaning():
    words = [word for *_, word, _ in tried()]
    assert len(words) > 40_000
    wrong = [(name, argument, what, said) for name, argument, what, word, said in tried() if word in ("raw", "silent")]
    assert not wrong, "\n".join(map(str, wrong[:20]))


def test_every_allowed_value_is_met():
    met = [(name, argument, what) for name, argument, what, word, _ in tried() if word == "allowed"]
    for row in ALLOWED:
        assert any(all(map(arguments.re.fullmatch, row[:3], case)) for case in met), row


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: GaussianMixture(2).fit(REALS.astype(str)), TypeError, ["x must be a real array", "convert"]),
        (lambda: GaussianMixture(2).fit(REALS * 1j), ValueError, ["x must be a real array", "complex"]),
        (lambda: GaussianMixture(2).fit(PICTURES), ValueError, ["x.reshape(len(x), -1)"]),
        (lambda: DDPM(SCHEDULE, n_steps=1).fit(PICTURES), ValueError, ["x.reshape(len(x), -1)"]),
        (lambda: GaussianMixture(1, rng=0).fit(REALS).log_prob(REALS[:, :2]), ValueError, ["3 columns", "2"]),
        (lambda: DDPM("linear").fit(REALS), TypeError, ["schedule", "NoiseSchedule.linear(100)"]),
        (lambda: ddpm.q_sample(NoiseSchedule, 1, ND, ND), TypeError, ["schedule", "the class", "pass an instance"]),
        (lambda: ScoreSDE(VP).fit(REALS), TypeError, ["sde", "pass VP()"]),
        (lambda: sde.reverse_drift(VP(), ND, ND, 1.5), ValueError, ["t must be in [0.0, 1.0]"]),
        (lambda: ddpm.q_sample(SCHEDULE, 7, ND, ND), ValueError, ["t must be in 1..6"]),
        (lambda: sde.reverse_drift(VP(), ND, ND, 0.5, np.nan), ValueError, ["stochasticity", "nan"]),
        (lambda: Mixture([1.0], [[0.0, 0.0]], [ODD]), ValueError, ["covariances must be symmetric", "0.5 * (C + C.T)"]),
        (lambda: em.ppca_maximum(ODD, 1), ValueError, ["covariance must be symmetric"]),
        (lambda: em.ppca_maximum(-np.eye(2), 1), ValueError, ["positive semidefinite"]),
        (lambda: GaussianMixture(2, "Full").fit(REALS), ValueError, ["covariance_type", "did you mean 'full'"]),
        (lambda: em.clusters(ND, [["a", "b"]]), TypeError, ["centres must be a real array"]),
        (
            lambda: ddpm.forward_log_prob(SCHEDULE, np.ones((9, 5, 2))),
            ValueError,
            ["path must have shape", "(9, 5, 2)"],
        ),
        (lambda: sde.implicit_score_matching(ND, np.ones((5, 1))), ValueError, ["divergence[..., 0]"]),
        (
            lambda: Mixture([-0.5, 1.5], [[0.0], [1.0]], np.ones((2, 1, 1))),
            ValueError,
            ["weights must be non-negative"],
        ),
        (lambda: DDPM(SCHEDULE, n_classes=2, n_steps=1).fit(REALS, np.full(20, 5)), ValueError, ["y must be in 0..1"]),
        (lambda: LinearVAE(1, standardize="no").fit(REALS), TypeError, ["standardize must be True or False", "'no'"]),
        (lambda: DDPM(random_state=0), TypeError, ["random_state", "did you mean rng"]),
        (lambda: GaussianMixture().set_params(random_state=0), TypeError, ["did you mean rng"]),
        (lambda: GaussianMixture.load("a" * 300), ValueError, ["path must be the name of a file", "255 bytes"]),
        (
            lambda: ddpm.p_step(SCHEDULE, 2, ND, ND, ND[0]),
            ValueError,
            ["noise must have the shape of x_t, (5, 2), got (2,)"],
        ),
        (lambda: em.kmeans_plus_plus(REALS, 2, np.random.RandomState(0)), TypeError, ["rng", "default_rng(seed)"]),
        (lambda: em.kmeans_plus_plus(REALS, 2, np.random.Generator), TypeError, ["rng", "default_rng(seed)"]),
        (lambda: em.kmeans_plus_plus(REALS, 2, random.Random(0)), TypeError, ["rng", "default_rng(seed)"]),
        (lambda: VP(beta_max=np.longdouble("1e4000")), ValueError, ["beta_max", "finite", "inf"]),
        pytest.param(
            lambda: em.nearest(ND, HUGE),
            ValueError,
            ["centres must hold numbers within the range of float64", "1e+4000"],
            marks=pytest.mark.skipif(not np.isfinite(HUGE).all(), reason="long doubles are float64 here"),
        ),
        (
            lambda: LinearVAE(np.timedelta64(1, "s")).fit(REALS),
            TypeError,
            ["n_latents must be an integer", "timedelta64"],
        ),
        (
            lambda: LinearVAE(10**5000).fit(REALS),
            ValueError,
            ["n_latents must be in 1..", "an int of size above 1e300"],
        ),
        (lambda: sde.denoising_error(ND, ND, True), TypeError, ["std must be a number", "True", "1.0"]),
        (lambda: Adam([1.0, 2.0]), TypeError, ["parameters must be a writeable", "in place", "np.array(parameters"]),
        (lambda: nn.check_step(0, 1.0, [[1, 2], [3]]), TypeError, ["gradient an array (P,)", "[[1, 2], [3]]"]),
        (
            lambda: list(em.em(0, lambda theta: (theta, {1}), lambda q, _: 0)),
            TypeError,
            ["e_step must be a real array", "set"],
        ),
        (lambda: em.m_step(ND + np.inf, np.log(HALF), TWO), ValueError, ["x must be finite"]),
        (lambda: em.m_step(ND, HALF + np.inf, TWO), ValueError, ["log_resp must hold", "NaN or inf"]),
        (
            lambda: grading.nearest_gaussian(np.arange(9.0), np.where(np.arange(9) == 4, 1e300, 0.0)),
            ValueError,
            ["log_density must have a maximum", "1e+300", "subtract"],
        ),
    ],
)
def test_a_mistake_gets_its_advice(call, error, words):
    with pytest.raises(error) as raised:
        call()
    for word in words:
        assert word in str(raised.value)


def test_whole_numbers_are_not_cut_off():
    """Of an int array np.full_like would make ints."""
    whole = np.array([[1, 2], [3, -1]])
    for loss in (lambda x: ddpm.prior_loss(SCHEDULE, x), lambda x: sde.prior_loss(VP(), x)):
        np.testing.assert_array_equal(loss(whole), loss(whole.astype(np.float64)))


@pytest.mark.parametrize("t_min", [1e-300, 1e-32])
def test_a_time_without_noise_is_refused(t_min):
    """At 1e-300 std is 1e-150, which is 0 in float32, and scores would divide by it."""
    for use in (lambda: ScoreSDE(t_min=t_min, hidden=(4,)).fit(REALS), lambda: sde.TimeSampler(VP(), t_min)):
        with pytest.raises(ValueError, match=r"^t_min must leave noise .* raise t_min"):
            use()
