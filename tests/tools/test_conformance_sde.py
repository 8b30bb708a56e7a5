"""The checks of (30)-(34) and of scores: right code in several conventions passes, mistakes fail and are named.

The conventions are those of score_sde (VP, sub-VP, VE with std(0) = sigma_min), of EDM (scale 1, std = t), of flow
matching (1 − t, t), of Nichol's cosine and of VDM's log-SNR.
"""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from scratchgen import VE, VP, Mixture, NoiseSchedule
from scratchgen.conformance import (
    check_continuous_bound,
    check_denoiser,
    check_discretisation,
    check_divergence,
    check_heun,
    check_kl_bound,
    check_langevin_step,
    check_log_prob,
    check_log_prob_bound,
    check_probability_flow_likelihood,
    check_reverse_law,
    check_reverse_sampler,
    check_reverse_sde,
    check_reverse_step,
    check_score,
    check_score_matching,
    check_sde,
)
from scratchgen.conformance.result import NAMELESS
from scratchgen.equations.problems import (
    DATA_COV,
    DATA_MEAN,
    LINE,
    OTHER_COV,
    PLANE,
    POINTS,
    SDE,
    gaussian_score,
    waves,
)
from scratchgen.quadrature import integrate, sigma_points
from scratchgen.sde import (
    LinearSDE,
    SubVP,
    denoising_score_matching,
    euler_maruyama,
    euler_step,
    heun,
    implicit_score_matching,
    kl_bound,
    langevin_step,
    reverse_drift,
    reverse_moments,
    sde_log_prob_bound,
    sliced_score_matching,
)


def fails_as(check, sentence):
    """The check fails, and the diagnosis of its first comparison ends with the sentence."""
    assert not check, check
    assert check.diagnosis.split(".  Also, ")[0].endswith(sentence), check.diagnosis


def single(f):
    """f in float32: arguments and results are rounded."""

    def rounded(value):
        return np.asarray(value, dtype=np.float32) if np.ndim(value) else np.float32(value)

    def call(*arguments):
        value = f(*map(rounded, arguments))
        return tuple(map(rounded, value)) if isinstance(value, tuple) else rounded(value)

    return call


def column(t):
    return np.reshape(t, (-1, 1))


# --- processes -------------------------------------------------------------------------------------------------------


class EDM(LinearSDE):
    """Scale 1 and std = t."""

    horizon = 80.0

    def log_scale(self, t):
        return 0.0 * np.asarray(t)

    def std(self, t):
        return np.asarray(t, dtype=np.float64)

    def rate(self, t):
        return 0.0 * np.asarray(t)

    def diffusion(self, t):
        return np.sqrt(2.0 * np.asarray(t))

    def time_at(self, log_snr):
        return np.exp(-0.5 * np.asarray(log_snr))


class Straight(EDM):
    """Flow matching: x_t = (1 − u) x_0 + u ε with u = t/horizon."""

    horizon = 3.0

    def log_scale(self, t):
        return np.log1p(-np.asarray(t) / self.horizon)

    def std(self, t):
        return np.asarray(t, dtype=np.float64) / self.horizon

    def rate(self, t):
        return -1 / (self.horizon - np.asarray(t))

    def diffusion(self, t):
        u = np.asarray(t) / self.horizon
        return np.sqrt(2 * u / ((1 - u) * self.horizon))


class NoisyStart(VE):
    """The VE of score_sde: std(0) = sigma_min."""

    def std(self, t):
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** (np.asarray(t) / self.horizon)


PROCESSES = {
    "VP": VP(0.1, 20.0),
    "VP to 1.7": SDE,
    "VP to 1000": VP(1e-4, 0.02, 1000.0),
    "sub-VP": SubVP(0.1, 20.0, 0.5),
    "VE": VE(0.01, 50.0, 2.0),
    "VE of score_sde": NoisyStart(0.01, 50.0, 2.0),
    "EDM": EDM(),
    "flow matching": Straight(),
}
every_process = pytest.mark.parametrize("sde", PROCESSES.values(), ids=PROCESSES.keys())
WITH_END = {name: sde for name, sde in PROCESSES.items() if name != "flow matching"}  # its f is infinite at the horizon


def song_log_scale(t):
    return -0.25 * t**2 * (20.0 - 0.1) - 0.5 * t * 0.1


def cosine(t):
    return np.cos((t + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)


def cosine_rate(t):
    return -np.pi / 2 / 1.008 * np.tan((t + 0.008) / 1.008 * np.pi / 2)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gamma(t):
    return -13.3 + 18.3 * t  # minus the log-SNR


CODES = {  # marginal, drift, diffusion, horizon
    "score_sde, VP": (
        lambda t: (np.exp(song_log_scale(t)), np.sqrt(1.0 - np.exp(2.0 * song_log_scale(t)))),
        lambda x, t: -0.5 * column(0.1 + t * 19.9) * x,
        lambda t: np.sqrt(0.1 + t * 19.9),
        1.0,
    ),
    "score_sde, sub-VP": (
        lambda t: (np.exp(song_log_scale(t)), 1 - np.exp(2.0 * song_log_scale(t))),
        lambda x, t: -0.5 * column(0.1 + t * 19.9) * x,
        lambda t: np.sqrt((0.1 + t * 19.9) * (1.0 - np.exp(-2 * 0.1 * t - 19.9 * t**2))),
        1.0,
    ),
    "score_sde, VE": (
        lambda t: (1.0, 0.01 * (50 / 0.01) ** t),
        lambda x, t: np.zeros_like(x),
        lambda t: 0.01 * (50 / 0.01) ** t * np.sqrt(2 * (np.log(50) - np.log(0.01))),
        1.0,
    ),
    "EDM": (lambda t: (1.0, t), lambda x, t: 0 * x, lambda t: np.sqrt(2 * t), 80.0),
    "flow matching": (
        lambda t: (1 - t, t),
        lambda x, t: -x / column(1 - t),
        lambda t: np.sqrt(2 * t / (1 - t)),
        1.0,
    ),
    "cosine": (
        lambda t: (cosine(t), np.sqrt(1 - cosine(t) ** 2)),
        lambda x, t: column(cosine_rate(t)) * x,
        lambda t: np.sqrt(-2 * cosine_rate(t)),
        1.0,
    ),
    "VDM": (
        lambda t: (np.sqrt(sigmoid(-gamma(t))), np.sqrt(sigmoid(gamma(t)))),
        lambda x, t: column(-0.5 * 18.3 * sigmoid(gamma(t))) * x,
        lambda t: np.sqrt(18.3 * sigmoid(gamma(t))),
        1.0,
    ),
    "torchsde, time one number": (
        lambda t: (float(SDE.level(t)[0]), float(SDE.level(t)[1])),
        lambda x, t: -0.5 * float(SDE.beta(t)) * x,
        lambda t: float(np.sqrt(SDE.beta(t))),
        1.7,
    ),
    **{name: (sde.marginal, sde.drift, sde.diffusion, sde.horizon) for name, sde in PROCESSES.items()},
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_right_processes_of_every_convention_pass(code):
    *functions, horizon = code
    check = check_sde(*functions, horizon)
    assert check
    assert check.residual < 0.1 * check.tolerance
    assert check_sde(*map(single, functions), horizon).at(1e-5)


B, LEVEL, F, G = SDE.beta_integral, SDE.marginal, SDE.drift, SDE.diffusion
EXPLODING, SUB = VE(0.1, 30.0, 1.7), SubVP(0.3, 4.0, 1.7)
WRONG_PROCESSES = {
    "it is −β x": (LEVEL, lambda x, t: 2 * F(x, t), G),
    "it is −¼ β x": (LEVEL, lambda x, t: F(x, t) / 2, G),
    "β² stands where β belongs in the drift": (LEVEL, lambda x, t: -0.5 * column(SDE.beta(t) ** 2) * x, G),
    "√β stands where β belongs in the drift": (LEVEL, lambda x, t: -0.5 * column(np.sqrt(SDE.beta(t))) * x, G),
    "the drift has the wrong sign": (LEVEL, lambda x, t: -F(x, t), G),
    "the diffusion is g², not g: its root is missing": (LEVEL, F, SDE.beta),
    "the diffusion is √g, not g": (LEVEL, F, lambda t: np.sqrt(G(t))),
    "a factor √2 of g is missing": (EXPLODING.marginal, EXPLODING.drift, lambda t: EXPLODING.diffusion(t) / 2**0.5),
    "g² is 0.25 times what scale and std need": (LEVEL, F, lambda t: G(t) / 2),
    "f is 2 times what scale and std need": (SUB.marginal, lambda x, t: 2 * SUB.drift(x, t), SUB.diffusion),
    "the drift −½β x is missing": (LEVEL, lambda x, t: 0 * x, G),
    "g² is 4 times what scale and std need": (lambda t: (LEVEL(t)[0], 0.5 * SDE.std(t)), F, G),
    "g is dσ/dt, where g² = dσ²/dt": (
        lambda t: (1.0, EXPLODING.std(t)),
        EXPLODING.drift,
        lambda t: 0.5 * EXPLODING.diffusion(t) ** 2 / np.maximum(EXPLODING.std(t), 1e-9),
    ),
    "scale is exp(−∫β), the square of the right value": (lambda t: (np.exp(-B(t)), SDE.std(t)), F, G),
    "scale is exp(−¼∫β), the root of the right value": (lambda t: (np.exp(-B(t) / 4), SDE.std(t)), F, G),
    "Ho's ᾱ and 1 − ᾱ": (lambda t: (np.exp(-B(t)), SDE.std(t) ** 2), F, G),
    "twice the f and g² of the SDE": (lambda t: (np.exp(-B(t)), np.sqrt(-np.expm1(-2 * B(t)))), F, G),
    "half the f and g² of the SDE": (lambda t: (np.exp(-B(t) / 4), np.sqrt(-np.expm1(-B(t) / 2))), F, G),
    "β(t) t stands where ∫β belongs": (
        lambda t: (np.exp(-0.5 * SDE.beta(t) * t), np.sqrt(-np.expm1(-SDE.beta(t) * t))),
        F,
        G,
    ),
    "std has no contraction 2 f std² by the drift": (lambda t: (SDE.level(t)[0], np.sqrt(B(t))), F, G),
    "std is the variance, or the diffusion has lost sub-VP's 1 − exp(−2∫β)": (SUB.marginal, F, G),
    "that of a variance-preserving process": (LEVEL, SUB.drift, SUB.diffusion),
    "as by the wrong sign of log-SNR": (lambda t: LEVEL(t)[::-1], F, G),
    "the logarithm of the variance is given": (lambda t: (LEVEL(t)[0], 2 * np.log(SDE.std(t) + 1e-300)), F, G),
    "std is 1: the start of the reverse process stands where std(t) belongs": (
        lambda t: (LEVEL(t)[0], np.ones_like(SDE.std(t))),
        F,
        G,
    ),
    "x is missing: it is the same for every x": (LEVEL, lambda x, t: F(np.ones_like(x), t), G),
    "it is the same in every dimension": (LEVEL, lambda x, t: F(x.mean(axis=1, keepdims=True) + 0 * x, t), G),
    "every row has the drift of the first time": (LEVEL, lambda x, t: float(np.ravel(SDE.rate(t))[0]) * x, G),
    "every value is clipped to [-34, 34]": (LEVEL, lambda x, t: np.clip(F(x, t), -20, 20), G),
    NAMELESS: (lambda t: (LEVEL(t)[0], np.sqrt(SDE.std(t) ** 2 + 1e-9)), F, G),
}


@pytest.mark.parametrize(("sentence", "code"), WRONG_PROCESSES.items(), ids=WRONG_PROCESSES.keys())
def test_wrong_processes_are_named(sentence, code):
    fails_as(check_sde(*code, 1.7), sentence)


def test_a_variance_that_never_moves_is_no_start_at_a_noise_level():
    """std = 1 solves the moment equations of a VP process; a start with std(0) = 1 is not clean data."""
    assert not check_sde(lambda t: (LEVEL(t)[0], 1.0), F, G, 1.7)
    assert check_sde(lambda t: (1.0, 0.01 + t), lambda x, t: 0 * x, lambda t: np.sqrt(2 * (0.01 + t)), 80.0)


def test_a_marginal_of_one_time_is_two_numbers():
    with pytest.raises(ValueError, match=r"^scale and std must be one number for a time"):
        check_sde(lambda t: (np.ones(2), t), F, G, 1.7)


@pytest.mark.parametrize("T", [1, 10, 1000, 4000])
@pytest.mark.parametrize("sde", [SDE, VP(0.1, 20.0), VP(0.0, 3.0, 0.2)])
def test_exact_discretisations_pass_at_any_length(sde, T):
    assert check_discretisation(NoiseSchedule.from_sde(sde, T).variances, sde)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (np.sqrt, "a standard deviation"),
        (lambda v: 1 - v, "it is 1 − β_i² = α_i²"),
        (lambda v: -np.expm1(np.log1p(-v) / 2), "the ½ of the drift"),
        (lambda v: -np.expm1(np.log1p(-v) / 1.7), "it is that of the horizon 1"),
        (lambda v: SDE.beta(1.7 * np.arange(1, 51) / 50) * 1.7 / 50, "it is β(t_i) h, right to first order only"),
        (lambda v: v * (1 + 1e-10), NAMELESS),
    ],
)
def test_wrong_discretisations_are_named(wrong, sentence):
    fails_as(check_discretisation(wrong(NoiseSchedule.from_sde(SDE, 50).variances), SDE), sentence)


@pytest.mark.parametrize(
    ("call", "usage"),
    [
        (lambda: check_sde(LEVEL, lambda t, x: F(x, t), G, 1.7), r"drift must be callable as drift\(x, t\)"),
        (lambda: check_sde(LEVEL, F, lambda x, t: G(t), 1.7), r"diffusion must be callable as diffusion\(t\)"),
        (
            lambda: check_reverse_sde(lambda t, x: x, G, SDE, DATA_MEAN, DATA_COV),
            r"drift must be callable as drift\(x, t\)",
        ),
        (
            lambda: check_reverse_step(lambda x, t, noise: x, SDE, 0.5, 0.3),
            r"step must be callable as step\(x, t, s, noise\)",
        ),
        (
            lambda: check_langevin_step(lambda x, noise: x, SDE, 0.5, 0.3),
            r"step must be callable as step\(x, t, noise\)",
        ),
        (
            lambda: check_reverse_sampler(lambda x, times: x, lambda x, t: x, SDE, np.array([1.0, 0.5])),
            r"sample must be callable as sample\(x, times, noise\)",
        ),
    ],
)
def test_another_order_or_number_of_arguments_is_refused(call, usage):
    with pytest.raises(TypeError, match=rf"^{usage}"):
        call()


# --- densities, scores, denoisers ------------------------------------------------------------------------------------


def mixture(D, K, unit=1.0, narrow=1.0):
    rng = np.random.default_rng(D + 10 * K)
    A = rng.standard_normal((K, D, D))
    covariances = narrow * (A @ A.swapaxes(1, 2) / D + 0.1 * np.eye(D))
    return Mixture(np.full(K, 1 / K), 4 * unit * rng.uniform(-1, 1, (K, D)), unit**2 * covariances)


@pytest.mark.parametrize(
    ("D", "unit", "narrow"),
    [*((D, unit, narrow) for D in (1, 3) for unit in (1e-5, 1.0, 1e5) for narrow in (1.0, 1e-4)), (64, 1.0, 1.0)],
)
def test_right_densities_scores_and_denoisers_pass_in_any_units(D, unit, narrow):
    """Tweedie's formula loses digits at a small scale, and still passes."""
    for K in 1, 4:
        law = mixture(D, K, unit, narrow)
        x = law.sample(5, 0)
        assert check_log_prob(law.log_prob, law, x)
        assert check_score(law.score, law, x)
        for scale, std in (0.8, 0.6 * unit), (0.01, unit), (1.0, 3 * unit), (0.3, 0.7 * unit):
            x_t = law.diffuse(scale, std).sample(5, 1)
            assert check_denoiser(law.denoise, law, x_t, scale, std)
            tweedie = lambda x, a, b, law=law: (x + b**2 * law.diffuse(a, b).score(x)) / a  # noqa: E731
            assert check_denoiser(tweedie, law, x_t, scale, std)


def test_right_code_in_float32_passes_at_its_precision():
    assert check_log_prob(single(PLANE.log_prob), PLANE, POINTS).at(1e-5)
    assert check_score(single(PLANE.score), PLANE, POINTS).at(1e-5)
    edm = single(lambda x, a, b: PLANE.denoise(x / a, 1.0, float(b / a)))
    assert check_denoiser(edm, PLANE, POINTS, 0.6, 0.8).at(1e-5)


def log_joint(x):
    return PLANE.log_joint(x)


@pytest.mark.parametrize(
    ("log_prob", "sentence"),
    [
        (lambda x: np.logaddexp.reduce(log_joint(x) - np.log(PLANE.weights), axis=1), "mixing weights are missing"),
        (lambda x: PLANE.log_prob(x) + np.log(2 * np.pi), "(D/2) log 2π is missing"),
        (lambda x: PLANE.log_prob(x) + 0.5 * np.log(2 * np.pi), "½ log 2π stands where (D/2) log 2π belongs"),
        (lambda x: log_joint(x).max(axis=1), "the log-density of the nearest component"),
        (lambda x: (log_joint(x) - np.log(PLANE.weights)) @ PLANE.weights, "the mean of logarithms"),
        (
            Mixture(PLANE.weights, PLANE.means, PLANE.covariances @ PLANE.covariances).log_prob,
            "covariances are taken for standard deviations",
        ),
        (lambda x: PLANE.log_prob(x) / 2, "it is averaged over D"),
        (lambda x: PLANE.log_prob(np.clip(x, -10, 10)), NAMELESS),
        (lambda x: np.full(len(x), PLANE.log_prob(x).mean()), NAMELESS),
        (lambda x: PLANE.log_prob(x) + 1e-11 * x[:, 0], NAMELESS),
    ],
)
def test_wrong_densities_are_named(log_prob, sentence):
    fails_as(check_log_prob(log_prob, PLANE, POINTS), sentence)


DIFFUSED = PLANE.diffuse(0.6, 0.8)


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (lambda x: -DIFFUSED.score(x), "the sign is wrong"),
        (lambda x: -0.8 * DIFFUSED.score(x), "it is −std · ∇log p, the noise"),
        (lambda x: 0.8 * DIFFUSED.score(x), "it is std · ∇log p"),
        (lambda x: 0.64 * DIFFUSED.score(x), "the denoiser's shift"),
        (lambda x: DIFFUSED.score(x) / 0.8, "as −ε̂/std²"),
        (lambda x: np.exp(DIFFUSED.log_prob(x))[:, None] * DIFFUSED.score(x), "it is ∇p, not ∇log p"),
        (
            lambda x: np.einsum("k,nkd->nd", DIFFUSED.weights, DIFFUSED._component_scores(x)[1]),
            "the mixing weights stand where p(k | x) belongs",
        ),
        (lambda x: DIFFUSED.score(np.clip(x, -10, 10)), NAMELESS),
    ],
)
def test_wrong_scores_are_named(score, sentence):
    fails_as(check_score(score, DIFFUSED, POINTS, 0.8), sentence)


def score_at(x, scale, std):
    return PLANE.diffuse(scale, std).score(x)


@pytest.mark.parametrize(
    ("denoise", "sentence"),
    [
        (lambda x, a, b: (x - b**2 * score_at(x, a, b)) / a, "the score has the wrong sign"),
        (lambda x, a, b: (x + b * score_at(x, a, b)) / a, "std stands where std² belongs"),
        (lambda x, a, b: x + b**2 * score_at(x, a, b), "at the level of the noise"),
        (lambda x, a, b: x / a + b**2 * score_at(x, a, b), "only x_t is divided by scale"),
        (lambda x, a, b: -b * score_at(x, a, b), "it is the noise E[ε | x_t]"),
        (lambda x, a, b: (x + b**2 * PLANE.score(x)) / a, "the score is that of the data, not of x_t"),
        (lambda x, a, b: PLANE.denoise(x, 0.6, 0.8), "the denoiser of the first level at every level"),
        (lambda x, a, b: PLANE.denoise(x, b, a), "scale and std are swapped"),
        (lambda x, a, b: PLANE.denoise(x, a, b**0.5), "std is taken for the variance"),
        (lambda x, a, b: PLANE.denoise(x, 1.0, b), "x_t is taken for x_0 + std · ε"),
        (lambda x, a, b: PLANE.denoise(x, 1.0, b / a), "x_t is not divided by scale, and the noise is std/scale"),
        (lambda x, a, b: np.clip(PLANE.denoise(x, a, b), -5, 5), "every value is clipped to [-5.14549, 5.14549]"),
        (lambda x, a, b: PLANE.denoise(x, a, b) * (1 + 1e-11), NAMELESS),
    ],
)
def test_wrong_denoisers_are_named(denoise, sentence):
    fails_as(check_denoiser(denoise, PLANE, POINTS, 0.6, 0.8), sentence)


# --- score matching --------------------------------------------------------------------------------------------------


def check_forms(
    law, denoising=denoising_score_matching, implicit=implicit_score_matching, sliced=sliced_score_matching
):
    if law is LINE:
        fields = (lambda x: -x + 0.5 * np.sin(2 * x), lambda x: (-1 + np.cos(2 * x))[:, 0])
    else:
        fields = (lambda x: -x + 0.5 * np.sin(x + x[:, ::-1]), lambda x: -2 + np.cos(x.sum(axis=1)))
    return check_score_matching(denoising, implicit, sliced, law, 0.6, 0.8, *fields)


on_a_line_and_a_plane = pytest.mark.parametrize("law", [LINE, PLANE], ids=["line", "plane"])


@on_a_line_and_a_plane
def test_right_score_matching_passes(law):
    assert check_forms(law)
    assert check_forms(law, sliced=partial(sliced_score_matching, reduce_variance=True))
    numbers_only = lambda s, noise, std: ((s + noise / float(std)) ** 2).sum(axis=1)  # noqa: E731
    assert check_forms(law, denoising=numbers_only)
    forms = single(denoising_score_matching), single(implicit_score_matching), single(sliced_score_matching)
    assert check_forms(law, *forms).at(1e-5)


@on_a_line_and_a_plane
@pytest.mark.parametrize(
    ("form", "wrong", "sentence"),
    [
        ("denoising", lambda s, e, b: ((s - e / column(b)) ** 2).sum(1), "the target of denoising is +ε/std"),
        ("denoising", lambda s, e, b: ((s + e) ** 2).sum(1), "the target of denoising is −ε: 1/std is missing"),
        ("denoising", lambda s, e, b: ((s + e / column(b) ** 2) ** 2).sum(1), "the target of denoising is −ε/std²"),
        ("denoising", lambda s, e, b: ((s - e) ** 2).sum(1), "the score is taken for the noise ε̂"),
        ("denoising", lambda s, e, b: ((s + e / column(b)) ** 2).mean(1), "it is averaged over D"),
        ("denoising", lambda s, e, b: ((s * column(b) + e) ** 2).sum(1), "weighted by std²"),
        ("denoising", lambda s, e, b: ((s + e / np.ravel(b)[0]) ** 2).sum(1), "every example has the std of the first"),
        ("denoising", lambda s, e, b: np.full(len(s), ((s + e / column(b)) ** 2).sum(1).mean()), NAMELESS),
        ("implicit", lambda s, d: (s**2).sum(1) + d, "the divergence has lost its 2"),
        ("implicit", lambda s, d: (s**2).sum(1) - 2 * d, "the divergence has the wrong sign"),
        ("implicit", lambda s, d: (s**2).mean(1) + 2 * d, "‖s_θ‖² is averaged over D"),
        ("implicit", lambda s, d: 0.5 * (s**2).sum(1) + d, "it has a factor ½"),
        ("sliced", lambda s, v, d: (v * s).sum(1) ** 2 + (v * d).sum(1), "the derivative has lost its 2"),
        ("sliced", lambda s, v, d: ((v * s) ** 2).sum(1) + 2 * (v * d).sum(1), "not (v · s_θ)²"),
        (
            "sliced",
            lambda s, v, d: sliced_score_matching(s, v, d) / (v**2).sum(1),
            "v has length 1",
        ),
        ("sliced", lambda s, v, d: sliced_score_matching(s, v, d) / s.shape[1], "it is averaged over D"),
    ],
)
def test_wrong_score_matching_is_named(law, form, wrong, sentence):
    fails_as(check_forms(law, **{form: wrong}), sentence)


def test_a_divergence_of_another_score_is_refused():
    with pytest.raises(ValueError, match=r"^divergence must be the divergence of score"):
        check_score_matching(
            denoising_score_matching,
            implicit_score_matching,
            sliced_score_matching,
            PLANE,
            0.6,
            0.8,
            lambda x: -x,
            lambda x: np.full(len(x), -1.0),
        )


# --- the reverse SDE -------------------------------------------------------------------------------------------------

VARIANCE = np.diag(DATA_COV)
LAMBDAS = 0.0, 0.7, 1.0
for_lambdas = pytest.mark.parametrize("made", LAMBDAS)


@every_process
@for_lambdas
def test_right_reverse_drifts_pass(sde, made):
    score = gaussian_score(sde, DATA_MEAN, DATA_COV)
    drift = lambda x, t: reverse_drift(sde, score(x, t), x, t, made)  # noqa: E731
    diffusion = lambda t: made * sde.diffusion(t)  # noqa: E731
    check = check_reverse_sde(drift, diffusion, sde, DATA_MEAN, DATA_COV, made)
    assert check
    assert check.residual < 1e-13
    float32 = single(lambda x, t: drift(x, float(t)))
    assert check_reverse_sde(float32, single(diffusion), sde, DATA_MEAN, DATA_COV, made).at(1e-5)


def drift_with(weight, sign=1.0):
    """The reverse drift sign · f x − weight(g, std, λ) ∇log p_t."""
    score = gaussian_score(SDE, DATA_MEAN, DATA_COV)

    def drift(x, t, made):
        return sign * SDE.drift(x, t) - weight(float(SDE.diffusion(t)), SDE.level(t)[1], made) * score(x, t)

    return drift


WRONG_DRIFTS = {
    "the score has the wrong sign": drift_with(lambda g, b, m: -0.5 * (1 + m**2) * g**2),
    "g stands where g² belongs": drift_with(lambda g, b, m: 0.5 * (1 + m**2) * g),
    "f has the wrong sign": drift_with(lambda g, b, m: 0.5 * (1 + m**2) * g**2, -1.0),
    "f x is missing": drift_with(lambda g, b, m: 0.5 * (1 + m**2) * g**2, 0.0),
    "the noise ε̂ stands where the score −ε̂/std belongs": drift_with(lambda g, b, m: -0.5 * (1 + m**2) * g**2 * b),
    "½(1 + λ) stands where ½(1 + λ²) belongs": drift_with(lambda g, b, m: 0.5 * (1 + m) * g**2),
    "the score has the flow's ½ in the SDE": drift_with(lambda g, b, m: 0.5 * g**2),
    "the score has the factor 0.745745 g², not 0.745 g²": drift_with(lambda g, b, m: 0.745745 * g**2),
}


@pytest.mark.parametrize(("sentence", "drift"), WRONG_DRIFTS.items(), ids=WRONG_DRIFTS.keys())
def test_wrong_reverse_drifts_are_named(sentence, drift):
    problem = (lambda t: 0.7 * SDE.diffusion(t)), SDE, DATA_MEAN, DATA_COV, 0.7
    fails_as(check_reverse_sde(partial(drift, made=0.7), *problem), sentence)


def test_a_stochasticity_that_is_written_into_the_code_is_named():
    """0.7 passes where 0.7 is asked for, and at no other value."""
    score = gaussian_score(SDE, DATA_MEAN, DATA_COV)
    drift = lambda x, t: reverse_drift(SDE, score(x, t), x, t, 0.7)  # noqa: E731
    for asked in LAMBDAS:
        right = lambda x, t, asked=asked: reverse_drift(SDE, score(x, t), x, t, asked)  # noqa: E731
        fixed = lambda t: 0.7 * SDE.diffusion(t)  # noqa: E731
        by_drift = check_reverse_sde(drift, lambda t: asked * SDE.diffusion(t), SDE, DATA_MEAN, DATA_COV, asked)  # noqa: B023
        by_diffusion = check_reverse_sde(right, fixed, SDE, DATA_MEAN, DATA_COV, asked)
        if asked == 0.7:
            assert by_drift
            assert by_diffusion
        else:
            k = 0.5 * (1 + asked**2)
            fails_as(by_drift, f"the score has the factor 0.745 g², not {k:g} g²")
            fails_as(by_diffusion, f"it is g times 0.7, not times {asked:g}")


def test_the_time_of_every_row_is_used():
    """Where a drift takes an array of times, each row has its own time."""
    V = DATA_COV[0, 0]

    def drift(x, t, used=lambda t: t):
        t = used(t)
        scale, std = (column(part) for part in SDE.marginal(t))
        score = -(x - scale * 0.4) / (scale**2 * V + std**2)
        return column(SDE.rate(t)) * x - column(SDE.diffusion(t) ** 2) * score

    problem = SDE.diffusion, SDE, np.full(2, 0.4), V * np.eye(2)
    assert check_reverse_sde(drift, *problem)
    first = partial(drift, used=lambda t: np.ravel(t)[0])
    fails_as(check_reverse_sde(first, *problem), "every row has the drift of the first time")


# --- steps -----------------------------------------------------------------------------------------------------------


def step_of(sde, made, mean=DATA_MEAN, variance=VARIANCE):
    score = gaussian_score(sde, np.atleast_1d(mean), np.diag(np.atleast_1d(variance)))

    def step(x, t, s, noise):
        centre, std = euler_step(sde, score(x, t), x, t, s, made)
        return centre + std * noise

    return step


@every_process
@for_lambdas
def test_right_steps_of_euler_maruyama_pass(sde, made):
    step = step_of(sde, made)
    check = check_reverse_step(step, sde, DATA_MEAN, VARIANCE, made)
    assert check.residual < 1e-14
    assert check_reverse_step(lambda *a: np.float32(step(*a)), sde, DATA_MEAN, VARIANCE, made).at(1e-5)
    assert check_reverse_step(lambda x, t, s, z: step(x, t, s, -z), sde, DATA_MEAN, VARIANCE, made)
    assert check_reverse_step(step_of(sde, made, 0.5, 0.3), sde, 0.5, 0.3, made)


@every_process
def test_right_steps_of_other_schemes_pass(sde):
    """The exact conditional of Gaussian data, and the discretisation of score_sde for VE."""

    def conditional(x, t, s, noise):
        (a_t, b_t), (a_s, b_s) = sde.level(t), sde.level(s)
        V_t, V_s, ratio = a_t**2 * VARIANCE + b_t**2, a_s**2 * VARIANCE + b_s**2, a_t / a_s
        gain = ratio * V_s / V_t
        return a_s * DATA_MEAN + gain * (x - a_t * DATA_MEAN) + np.sqrt(V_s * (1 - gain * ratio)) * noise

    assert check_reverse_step(conditional, sde, DATA_MEAN, VARIANCE)
    assert not check_reverse_step(lambda x, t, s, z: conditional(x, t, s, 1.0001 * z), sde, DATA_MEAN, VARIANCE)
    if isinstance(sde, VE):
        score = gaussian_score(sde, DATA_MEAN, np.diag(VARIANCE))

        def song(x, t, s, noise):
            growth = sde.std(t) ** 2 - sde.std(s) ** 2
            return x + growth * score(x, t) + np.sqrt(growth) * noise

        assert check_reverse_step(song, sde, DATA_MEAN, VARIANCE)


def wrong_step(drift=None, noise=lambda g, h, made: made * g * h**0.5, length=lambda h: h):
    drift = drift or drift_of_step(lambda g, b, m: 0.5 * (1 + m**2) * g**2)

    def step(x, t, s, z, made):
        h = t - s
        return x - length(h) * drift(x, t, made) + noise(float(SDE.diffusion(t)), h, made) * z

    return step


def drift_of_step(weight, sign=1.0):
    score = gaussian_score(SDE, DATA_MEAN, np.diag(VARIANCE))
    return lambda x, t, made: (
        sign * SDE.drift(x, t) - weight(float(SDE.diffusion(t)), SDE.level(t)[1], made) * score(x, t)
    )


WRONG_STEPS = {
    "time runs forwards: the drift has the wrong sign": wrong_step(length=lambda h: -h),
    "the score has the wrong sign": wrong_step(drift_of_step(lambda g, b, m: -0.5 * (1 + m**2) * g**2)),
    "the score has the flow's ½ in the SDE": wrong_step(drift_of_step(lambda g, b, m: 0.5 * g**2)),
    "g stands where g² belongs": wrong_step(drift_of_step(lambda g, b, m: 0.5 * (1 + m**2) * g)),
    "the score has the factor 0.75245 g², not 0.745 g²": wrong_step(drift_of_step(lambda g, b, m: 0.75245 * g**2)),
    "dt is missing": wrong_step(length=lambda h: 1.0),
    "there is no noise": wrong_step(noise=lambda g, h, m: 0.0),
    "the noise has factor g dt, not g √dt": wrong_step(noise=lambda g, h, m: m * g * h),
    "the noise has factor g² √dt, not g √dt": wrong_step(noise=lambda g, h, m: m * g**2 * h**0.5),
    "the noise has factor g: √dt is missing": wrong_step(noise=lambda g, h, m: m * g),
    "the noise has the factor g √dt for every stochasticity": wrong_step(noise=lambda g, h, m: g * h**0.5),
    "the noise has 0.6 times the factor g √dt, not 0.7 times": wrong_step(noise=lambda g, h, m: 0.6 * g * h**0.5),
    "the noise has 0.333333 times the factor g √dt, not 0.7 times": wrong_step(noise=lambda g, h, m: g * h**0.5 / 3),
    "all dimensions have one noise": lambda x, t, s, z, made: wrong_step()(x, t, s, z[:, :1] + 0 * z, made),
    NAMELESS: lambda x, t, s, z, made: np.clip(wrong_step()(x, t, s, z, made), -5, 5),
}


@pytest.mark.parametrize(("sentence", "step"), WRONG_STEPS.items(), ids=WRONG_STEPS.keys())
def test_wrong_steps_are_named(sentence, step):
    fails_as(check_reverse_step(partial(step, made=0.7), SDE, DATA_MEAN, VARIANCE, 0.7), sentence)


@pytest.mark.parametrize("factor", [1.01, 1 + 1e-5])
def test_a_score_that_is_a_little_too_large_is_seen(factor):
    """The score times 1.01 passed a tolerance of 2e-2."""
    step = wrong_step(drift_of_step(lambda g, b, m: factor * 0.5 * (1 + m**2) * g**2))
    for made in LAMBDAS:
        assert not check_reverse_step(partial(step, made=made), SDE, DATA_MEAN, VARIANCE, made)


@every_process
def test_right_langevin_steps_pass(sde):
    variance = np.array([0.8, 0.5, 1.3])

    def step(x, t, noise):
        centre, std = langevin_step(sde, -x / variance, x, t, 0.2)
        return centre + std * noise

    assert check_langevin_step(step, sde, variance, 0.2)
    assert check_langevin_step(lambda *a: np.float32(step(*a)), sde, variance, 0.2).at(1e-5)
    assert check_langevin_step(lambda x, t, z: step(x, t, -z), sde, variance, 0.2)


def langevin(delta=lambda std, z, s: 2 * (0.3 * std) ** 2, kick=lambda d: np.sqrt(2 * d), sign=1.0):
    def step(x, t, noise):
        score = -x / 0.8
        size = delta(SDE.level(t)[1], noise, score)
        return x + sign * size * score + kick(size) * noise

    return step


def mean_norm(rows):
    return np.linalg.norm(rows, axis=1).mean()


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (langevin(kick=lambda d: np.sqrt(d)), "the noise has factor √δ"),
        (langevin(kick=lambda d: 2 * d), "the noise has factor 2δ, a variance"),
        (langevin(sign=-1.0), "the score has the wrong sign"),
        (langevin(sign=0.5), "the step is ½ δ ∇log p"),
        (langevin(lambda std, z, s: (0.3 * std) ** 2), "δ is (snr std)²: its 2 is missing"),
        (langevin(lambda std, z, s: 0.6 * std), "δ is 2 snr std, without a square"),
        (langevin(lambda std, z, s: 0.6 * std**2), "snr is not squared"),
        (langevin(lambda std, z, s: 0.18), "δ is 2 snr², without std"),
        (langevin(lambda std, z, s: 2 * (0.3 * mean_norm(z) / mean_norm(s)) ** 2), "as in score_sde"),
    ],
)
def test_wrong_langevin_steps_are_named(step, sentence):
    fails_as(check_langevin_step(step, SDE, 0.8, 0.3), sentence)


# --- samplers --------------------------------------------------------------------------------------------------------

UNEVEN = np.array([1.7, 1.2, 0.9, 0.3, 0.05])


def field(x, t):
    return np.tanh(x + t) - x


@pytest.mark.parametrize("n_corrections", [0, 2])
@for_lambdas
def test_right_samplers_pass(made, n_corrections):
    def sample(x, times, noise):
        options = {"noise": noise, "stochasticity": made, "n_corrections": n_corrections, "snr": 0.3}
        *_, (_, end) = euler_maruyama(SDE, field, x, times, **options)
        return end

    problem = field, SDE, UNEVEN, made, n_corrections, 0.3
    assert check_reverse_sampler(sample, *problem).residual < 1e-14
    assert check_reverse_sampler(single(sample), *problem).at(1e-5)


def walk(
    made=0.7,
    noise=True,
    last=True,
    late=False,
    half=False,
    dt=None,
    order="after",
    delta=lambda std: 2 * (0.3 * std) ** 2,
):
    """A sampler with a mistake."""

    def sample(x, times, z):
        z = z if z.ndim == 4 else z[:, None]

        def corrected(x, at, i):
            for kick in z[i, 1:]:
                size = delta(SDE.level(at)[1])
                x = x + size * field(x, at) + np.sqrt(2 * size) * kick
            return x

        for i, (t, s) in enumerate(pairwise(times.tolist())):
            x = corrected(x, t, i) if order == "before" else x
            at, h = (s if late else t), dt or t - s
            g = float(SDE.diffusion(at))
            weight = 0.5 * g**2 * (1 if half else 1 + made**2)
            x = x - h * (float(SDE.rate(at)) * x - weight * field(x, at))
            x = x + made * g * h**0.5 * z[i, 0] * (noise and (last or s != times[-1]))
            x = corrected(x, s, i) if order == "after" else x
        return x

    return sample


WRONG_SAMPLERS = {
    "drift and g are taken at the end of a step, not at its start": {"late": True},
    "there is no noise": {"noise": False},
    "the last step has no noise: its mean is returned": {"last": False},
    "the score has the flow's ½ beside the noise": {"half": True},
    "it is the reverse SDE for every stochasticity": {"made": 1.0},
    "it is the probability flow for every stochasticity": {"made": 0.0},
    "every step has the length of an even grid over these times": {"dt": 1.65 / 4},
    "every step has the length horizon/n": {"dt": 1.7 / 4},
}


@pytest.mark.parametrize("n_corrections", [0, 2])
@pytest.mark.parametrize(("sentence", "options"), WRONG_SAMPLERS.items(), ids=WRONG_SAMPLERS.keys())
def test_wrong_samplers_are_named(sentence, options, n_corrections):
    assert check_reverse_sampler(walk(), field, SDE, UNEVEN, 0.7, n_corrections, 0.3)
    fails_as(check_reverse_sampler(walk(**options), field, SDE, UNEVEN, 0.7, n_corrections, 0.3), sentence)


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("corrections come before the step, as in score_sde", {"order": "before"}),
        ("there are no corrections", {"order": "never"}),
        ("corrections have δ = (snr std)²: its 2 is missing", {"delta": lambda std: (0.3 * std) ** 2}),
        ("corrections have δ = 2 snr std, without a square", {"delta": lambda std: 0.6 * std}),
    ],
)
def test_wrong_corrections_are_named(sentence, options):
    fails_as(check_reverse_sampler(walk(**options), field, SDE, UNEVEN, 0.7, 2, 0.3), sentence)


@every_process
def test_heuns_method_passes(sde):
    times = sde.horizon * np.array([0.95, 0.7, 0.5, 0.2, 0.03])
    scaled = lambda x, t: field(x, t / sde.horizon)  # noqa: E731
    assert check_heun(lambda x, times: list(heun(sde, scaled, x, times))[-1][1], scaled, sde, times)


def slope(x, t, weight=0.5):
    return float(SDE.rate(t)) * x - weight * float(SDE.diffusion(t)) ** 2 * field(x, t)


def second_order(step):
    """A sampler of the flow with step(x, t, s, h, slope at the start, whether it is the last)."""

    def sample(x, times):
        for t, s in pairwise(times.tolist()):
            x = step(x, t, s, s - t, slope(x, t), s == times[-1])
        return x

    return sample


def heun_step(x, t, s, h, a, last):
    return x + h * (a + slope(x + h * a, s)) / 2


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (lambda x, t, s, h, a, last: x + h * a, "it is Euler's method: one slope per step"),
        (
            lambda x, t, s, h, a, last: x + h * a if last else heun_step(x, t, s, h, a, last),
            "the last step is Euler's",
        ),
        (
            lambda x, t, s, h, a, last: x + h * (a + slope(x + h * a, t)) / 2,
            "the second slope is taken at the time of the start",
        ),
        (lambda x, t, s, h, a, last: x + h * (a + slope(x, s)) / 2, "taken at the x of the start"),
        (lambda x, t, s, h, a, last: x + h * slope(x + h * a / 2, (t + s) / 2), "it is the midpoint method"),
        (lambda x, t, s, h, a, last: x + h * slope(x + h * a, s), "the step uses the second slope alone"),
        (lambda x, t, s, h, a, last: x + h * (a + slope(x + h * a, s)), "½ is missing"),
        (
            lambda x, t, s, h, a, last: x + h * (slope(x, t, 1) + slope(x + h * slope(x, t, 1), s, 1)) / 2,
            "the score has the SDE's factor g², not ½ g²",
        ),
    ],
)
def test_wrong_methods_of_heun_are_named(step, sentence):
    assert check_heun(second_order(heun_step), field, SDE, UNEVEN)
    fails_as(check_heun(second_order(step), field, SDE, UNEVEN), sentence)


# --- (34) ------------------------------------------------------------------------------------------------------------

GAUSSIANS = DATA_MEAN, DATA_COV, -DATA_MEAN, OTHER_COV


@pytest.mark.parametrize("sde", WITH_END.values(), ids=WITH_END.keys())
@pytest.mark.parametrize("D", [1, 3, 16])
def test_right_bounds_on_the_divergence_pass(sde, D):
    rng = np.random.default_rng(D)
    A = rng.uniform(-1, 1, (2, D, D))
    laws = (
        rng.uniform(-2, 2, D),
        A[0] @ A[0].T + 0.2 * np.eye(D),
        rng.uniform(-2, 2, D),
        A[1] @ A[1].T + 0.2 * np.eye(D),
    )
    check = check_kl_bound(lambda error, prior: kl_bound(sde, error, prior), sde, *laws)
    assert check
    assert check.residual < 1e-11
    float32 = lambda error, prior: np.float32(kl_bound(sde, lambda t: float(np.float32(error(t))), prior))  # noqa: E731
    assert check_kl_bound(float32, sde, *laws).at(1e-5)


def path_integral(score_error, weight=lambda t: float(SDE.diffusion(t)) ** 2):
    nodes, weights = np.polynomial.legendre.leggauss(64)
    y = 0.5 * (nodes + 1)
    values = [weight(t) * score_error(t) for t in (SDE.horizon * y**3).tolist()]
    return float((1.5 * SDE.horizon * weights * y**2) @ values)


@pytest.mark.parametrize(
    ("bound", "sentence"),
    [
        (lambda e, k: path_integral(e) + k, "T stands where T/2 belongs"),
        (lambda e, k: 0.25 * path_integral(e) + k, "½ stands twice"),
        (lambda e, k: 0.5 * path_integral(e) / 1.7 + k, "the factor T is missing"),
        (lambda e, k: 0.5 * path_integral(e), "KL(p_T‖π) is missing"),
        (lambda e, k: 0.5 * path_integral(e) + k / 2, "KL(p_T‖π) is halved"),
        (lambda e, k: 0.5 * path_integral(e) - k, "KL(p_T‖π) is subtracted"),
        (lambda e, k: 0.5 * path_integral(e, lambda t: float(SDE.diffusion(t))) + k, "g stands where g² belongs"),
        (lambda e, k: 0.5 * path_integral(e, lambda t: 1.0) + k, "g² is missing"),
        (lambda e, k: 0.5 * path_integral(e, lambda t: SDE.level(t)[1] ** 2) + k, "std² stands where g² belongs"),
        (lambda e, k: kl_bound(SDE, e, k, t_min=1e-5), NAMELESS),
    ],
)
def test_wrong_bounds_on_the_divergence_are_named(bound, sentence):
    assert check_kl_bound(lambda e, k: 0.5 * path_integral(e) + k, SDE, *GAUSSIANS)
    fails_as(check_kl_bound(bound, SDE, *GAUSSIANS), sentence)


def example_bound(sde, noise, weights, square=1.0, divergence=1.0, drift=1.0, prior=None, mean=False):
    """`sde_log_prob_bound` with other factors of its terms."""

    def bound(score_and_divergence, prior_log_prob, x):
        def changed(points, t):
            s, div = score_and_divergence(points, t)
            return square**0.5 * s, divergence * div

        value = sde_log_prob_bound(sde, changed, x, noise, weights, prior_log_prob=prior or prior_log_prob)
        value = value + (drift - 1) * x.shape[1] * float(sde.log_scale(sde.horizon))
        return value / x.shape[1] if mean else value

    return bound


def standard_normal(x):
    return -0.5 * (x**2).sum(axis=1) - 0.5 * x.shape[1] * np.log(2 * np.pi)


GRID = np.linspace(-8.5, 8.5, 171)[:, None]
GRID_WEIGHTS = np.exp(-0.5 * GRID[:, 0] ** 2) / np.exp(-0.5 * GRID[:, 0] ** 2).sum()
GAUSSIAN = Mixture(np.ones(1), DATA_MEAN[None], DATA_COV[None])
EXAMPLES = {
    "line": (GRID, GRID_WEIGHTS, LINE, np.linspace(-4.0, 4.0, 6)[:, None]),
    "D = 3": (sigma_points(3), np.full(6, 1 / 6), GAUSSIAN, 3 * waves(5, 3)),
}


@pytest.mark.parametrize("sde", WITH_END.values(), ids=WITH_END.keys())
def test_right_bounds_of_examples_pass(sde):
    noise, weights, law, x = EXAMPLES["D = 3"]
    bound = example_bound(sde, noise, weights)
    assert check_log_prob_bound(bound, sde, law, x)
    assert check_log_prob_bound(lambda *a: np.float32(bound(*a)), sde, law, x).at(1e-5)
    if isinstance(sde, VP):  # the even grid resolves the mixture while std is at most 1
        noise, weights, law, x = EXAMPLES["line"]
        assert check_log_prob_bound(example_bound(sde, noise, weights), sde, law, x)


@pytest.mark.parametrize("problem", EXAMPLES.values(), ids=EXAMPLES.keys())
@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("∫div f dt is missing", {"drift": 0.0}),
        ("∫div f dt has the wrong sign", {"drift": -1.0}),
        ("½ is missing before ∫g²(‖s‖² + 2 div s)", {"square": 2.0, "divergence": 2.0}),
        ("the 2 before div s is missing", {"divergence": 0.5}),
        ("div s is missing", {"divergence": 0.0}),
        ("div s has the wrong sign", {"divergence": -1.0}),
        ("‖s‖² is missing", {"square": 0.0}),
        ("N(0, I) stands where π belongs", {"prior": standard_normal}),
    ],
)
def test_wrong_bounds_of_examples_are_named(sentence, options, problem):
    noise, weights, law, x = problem
    fails_as(check_log_prob_bound(example_bound(SDE, noise, weights, **options), SDE, law, x), sentence)


def test_a_bound_of_examples_that_is_averaged_over_dimensions_is_named():
    noise, weights, law, x = EXAMPLES["D = 3"]
    fails_as(check_log_prob_bound(example_bound(SDE, noise, weights, mean=True), SDE, law, x), "it is averaged over D")


@pytest.mark.parametrize("D", [1, 2])
def test_the_law_of_the_reverse_process_is_not_that_of_the_flow(D):
    start = np.zeros(D), np.eye(D)
    integral = float(SDE.beta_integral(1.7))
    for delta in -0.3, 0.3, 1.0:
        assert check_reverse_law(lambda score: reverse_moments(SDE, score, *start), integral, delta)
    flow = lambda score: reverse_moments(SDE, score, *start, stochasticity=0.0)  # noqa: E731
    fails_as(check_reverse_law(flow, integral, 0.3), "it is the distribution of the flow, which (34) does not bound")
    fails_as(check_reverse_law(lambda score: start, integral, 0.3), "the error of the score has no effect")


def flow_log_prob(x, base="p_T", divergence=1.0, weight=lambda g: 0.5 * g**2, mean=False, share=False):
    """log p of PLANE by the probability flow, with mistakes."""
    N, D = x.shape

    def velocity(t, state):
        points, law, g = state[:, :D], PLANE.diffuse(*SDE.level(t)), float(SDE.diffusion(t))
        trace = np.trace(law.score_jacobian(points), axis1=1, axis2=2)
        speed = float(SDE.rate(t)) * points - weight(g) * law.score(points)
        return np.column_stack([speed, D * float(SDE.rate(t)) - weight(g) * trace])

    end = integrate(velocity, 0.0, 1.7, np.column_stack([x, np.zeros(N)]), 1e-9, "", "")
    x_T, growth = end[:, :D], end[:, D]
    growth = np.full(N, growth.mean()) if share else growth
    at_end = {
        "p_T": PLANE.diffuse(*SDE.level(1.7)).log_prob,
        "N(0, I)": standard_normal,
        "prior": SDE.prior_log_prob,
        "none": lambda x: np.zeros(len(x)),
    }[base](x_T)
    return (at_end + divergence * growth) / (D if mean else 1)


def test_the_likelihood_of_the_flow_passes():
    assert check_probability_flow_likelihood(flow_log_prob, PLANE, POINTS, SDE)


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("∫div dt is missing", {"divergence": 0.0}),
        ("∫div dt has the wrong sign", {"divergence": -1.0}),
        ("∫div dt is doubled", {"divergence": 2.0}),
        ("N(0, I) stands where p_T belongs", {"base": "N(0, I)"}),
        ("N(0, std(T)² I) stands where p_T belongs", {"base": "prior"}),
        ("p_T is missing", {"base": "none"}),
        ("it is averaged over D", {"mean": True}),
        (NAMELESS, {"share": True}),
        (NAMELESS, {"weight": lambda g: g**2}),
    ],
)
def test_wrong_likelihoods_of_the_flow_are_named(sentence, options):
    fails_as(check_probability_flow_likelihood(partial(flow_log_prob, **options), PLANE, POINTS[:3], SDE), sentence)


def test_without_the_process_a_wrong_likelihood_fails_and_only_the_average_is_named():
    def wrong(x):
        return flow_log_prob(x, divergence=0.0)

    assert check_probability_flow_likelihood(flow_log_prob, PLANE, POINTS[:3])
    fails_as(check_probability_flow_likelihood(wrong, PLANE, POINTS[:3]), NAMELESS)
    averaged = partial(flow_log_prob, mean=True)
    fails_as(check_probability_flow_likelihood(averaged, PLANE, POINTS[:3]), "it is averaged over D")


# --- the bound of a network ------------------------------------------------------------------------------------------


def terms(sde, t_min, slope=0.6, half=0.5, mean=False, prior_std=None, decoder=1.0, first_time=False):
    """The three terms of the continuous-time bound for ε̂ = slope · x, with mistakes."""
    (a_T, b_T), (a_0, b_0) = sde.level(sde.horizon), sde.level(t_min)
    low, high = (float(sde.log_snr(t)) for t in (sde.horizon, t_min))
    pi = b_T if prior_std is None else prior_std

    def over_D(values):
        return values.mean(axis=1) if mean else values.sum(axis=1)

    def prior_loss(x0):
        return 0.5 * over_D((a_T * x0 / pi) ** 2 + (b_T / pi) ** 2 - 1 - 2 * np.log(b_T / pi))

    def diffusion_loss(x0, t, noise):
        scale, std = (column(part) for part in sde.marginal(t[:1] if first_time else t))
        return half * (high - low) * over_D((noise - slope * (scale * x0 + std * noise)) ** 2)

    def reconstruction_loss(x0, noise):
        s = decoder * b_0 / a_0
        return 0.5 * over_D((b_0 / a_0 * noise / s) ** 2 + np.log(2 * np.pi * s**2))

    return prior_loss, diffusion_loss, reconstruction_loss, sde, t_min, slope, waves(5, 3)


@pytest.mark.parametrize("sde", [SDE, VE(0.1, 3.0, 1.3), SUB, EDM()], ids=["VP", "VE", "sub-VP", "EDM"])
def test_the_continuous_bound_of_a_network(sde):
    assert check_continuous_bound(*terms(sde, 0.05))
    losses, problem = terms(sde, 0.05)[:3], terms(sde, 0.05)[3:]
    assert check_continuous_bound(*map(single, losses), *problem).at(1e-5)
    fails_as(check_continuous_bound(*terms(sde, 0.05, half=1.0)), "its ½ is missing")
    fails_as(check_continuous_bound(*terms(sde, 0.05, mean=True)), "it is averaged over D")
    assert not check_continuous_bound(*terms(sde, 0.05, first_time=True))
    if not isinstance(sde, VP):
        fails_as(check_continuous_bound(*terms(sde, 0.05, prior_std=1.0)), "π is N(0, I), not N(0, std(T)² I)")


def network(x):
    return np.tanh(x @ waves(3, 3)) + 0.3 * x


def network_score(x, probes, std=0.7, sign=-1.0, mean=False, first=False):
    inner = x @ waves(3, 3)
    jacobian = np.einsum("nd,ed->nde", 1 - np.tanh(inner) ** 2, waves(3, 3)) + 0.3 * np.eye(3)
    if probes is None:
        trace = np.trace(jacobian, axis1=1, axis2=2)
    else:
        probes = probes[:1] if first else probes
        trace = np.einsum("pnd,nde,pne->n", probes, jacobian, probes) / len(probes)
    return sign * network(x) / std, sign * trace / std / (3 if mean else 1)


def test_the_divergence_of_a_network():
    x, probes = waves(5, 3), waves(4, 5, 3)
    assert check_divergence(network_score, network, 0.7, x, probes)
    float32 = lambda x, probes: tuple(np.float32(part) for part in network_score(x, probes))  # noqa: E731
    assert check_divergence(float32, single(network), 0.7, x, probes).at(1e-5)
    for options, sentence in (
        ({"sign": 1.0}, "the sign is wrong"),
        ({"std": 1.0}, "1/std is missing"),
        ({"mean": True}, "it is averaged over D"),
        ({"first": True}, "only the first probe is used"),
    ):
        check = check_divergence(partial(network_score, **options), network, 0.7, x, probes)
        assert not check
        assert sentence in check.diagnosis or "minus sign" in check.diagnosis, check.diagnosis
