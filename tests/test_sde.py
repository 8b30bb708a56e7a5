"""Equations (30)-(34): the three processes, their reversal, the bound and the flow's likelihood.

With Gaussian data and an affine score every sampler is an affine map, so that its moments are read off exactly and
nothing is drawn.  The mean alone would not see the sign or the size of the score, so that the variance is checked;
and since (34) as an inequality cannot see a missing factor, it is tested where it is an equality.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad, solve_ivp

from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen.likelihood import kl_gaussian
from scratchgen.quadrature import affine_map, central_difference
from scratchgen.sde import (
    LinearSDE,
    euler_maruyama,
    euler_step,
    kl_bound,
    probability_flow_log_prob,
    reverse_drift,
    reverse_moments,
    reverse_times,
)
from scratchgen.sde.reverse import euler_std
from scratchgen.testing import reals, sdes
from tests.strategies import affine_moments, relative, residual


@st.composite
def sdes_and_times(draw, n=4, first=0.05):
    sde = draw(sdes())
    return sde, sde.horizon * (first + (1 - first) * draw(reals(n, 0, 1)))


def slope(f, t, h):
    """f'(t)."""
    return central_difference(lambda step: f(t + step), h)


PROCESSES = [VP(), SubVP(), VE(0.01, 10.0)]

# --- processes --------------------------------------------------------------------------------------------


@given(sdes(), st.floats(0, 1))
def test_level_is_the_marginal_in_python_floats(sde, u):
    """Which leave float32 arrays float32."""
    level = sde.level(u * sde.horizon)
    assert level == tuple(sde.marginal(u * sde.horizon))
    assert [type(value) for value in level] == [float, float]


@given(sdes_and_times())
def test_log_snr_falls_at_the_rate_of_the_diffusion(case):
    """g²/std² = −d log-SNR/dt, the natural clock of training and of (34)."""
    sde, t = case
    rate = -slope(sde.log_snr, t, 1e-3 * sde.horizon)
    assert relative(rate, sde.diffusion(t) ** 2 / sde.std(t) ** 2) < 1e-7


@given(sdes_and_times(first=1e-6))
def test_time_at_inverts_log_snr(case):
    sde, t = case
    assert relative(sde.time_at(sde.log_snr(t)), t) < 1e-9
    scale, std = sde.marginal(t)
    assert residual(sde.log_snr(t), 2 * np.log(scale / std)) < 1e-12


@given(sdes(), reals(4, -15, 15))
def test_log_snr_inverts_time_at(sde, log_snr):
    """Up to the horizon: a falling β has no more noise to give soon after it."""
    log_snr = np.maximum(log_snr, sde.log_snr(sde.horizon))
    assert residual(sde.log_snr(sde.time_at(log_snr)), log_snr) < 1e-9


@given(sdes(kinds=(VP, SubVP)), st.floats(0, 1))
def test_vp_family_is_the_integral_of_its_beta(sde, u):
    """β runs from beta_min to beta_max over the horizon, whatever that is; VP keeps scale² + std² = 1."""
    t = u * sde.horizon
    integral = quad(sde.beta, 0, t)[0]
    scale, std = sde.marginal(t)
    assert sde.beta(0.0) == pytest.approx(sde.beta_min, abs=1e-14)
    assert sde.beta(sde.horizon) == pytest.approx(sde.beta_max, rel=1e-14)
    assert residual(sde.beta_integral(t), integral) < 1e-12
    assert residual(scale, np.exp(-integral / 2)) < 1e-12
    assert residual(std, 1 - np.exp(-integral) if isinstance(sde, SubVP) else np.sqrt(-np.expm1(-integral))) < 1e-12
    if type(sde) is VP:
        assert residual(scale**2 + std**2, np.float64(1)) < 1e-14


@given(sdes(kinds=(VE,)), st.floats(0, 1))
def test_ve_std_is_sigma_less_what_the_data_has(sde, u):
    """std² + sigma_min² = σ(t)², geometric from sigma_min to sigma_max; nothing is scaled."""
    sigma = sde.sigma_min ** (1 - u) * sde.sigma_max**u
    scale, std = sde.marginal(u * sde.horizon)
    assert scale == 1
    assert std**2 + sde.sigma_min**2 == pytest.approx(sigma**2, rel=1e-12)
    assert sde.prior_std**2 == pytest.approx(sde.sigma_max**2 - sde.sigma_min**2, rel=1e-12)


@given(sdes(), reals((3, 2), -5, 5))
def test_prior_is_the_law_of_pure_noise_at_the_horizon(sde, x):
    std = float(sde.marginal(sde.horizon)[1])
    assert sde.prior_std == std
    assert residual(sde.prior_log_prob(x), stats.norm.logpdf(x, 0, std).sum(axis=1)) < 1e-12


@given(sdes(), reals((4, 2), -5, 5), reals(4, 0, 1))
def test_drift_takes_one_time_or_one_an_example(sde, x, u):
    t = u * sde.horizon
    rows = [sde.drift(x[[n]], float(t[n]))[0] for n in range(4)]
    assert residual(sde.drift(x, t), np.array(rows)) < 1e-15
    assert residual(sde.drift(x, t), sde.rate(t)[:, None] * x) < 1e-15


@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_clean_data_have_infinite_log_snr_and_no_warning(sde):
    assert sde.log_snr(0.0) == np.inf
    assert np.array_equal(sde.log_snr(np.zeros(2)), [np.inf, np.inf])


@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
@pytest.mark.parametrize("name", ["log_scale", "std", "rate", "diffusion", "log_snr", "time_at"])
def test_functions_of_time_answer_in_double_and_in_the_shape_of_the_time(sde, name):
    f = getattr(sde, name)
    for t in np.array([0.1, 0.3, 0.7], np.float32), np.array([[1], [0]]), 1:
        value = np.asarray(f(t))
        assert (value.dtype, value.shape) == (np.float64, np.shape(t))
        assert np.array_equal(value, f(np.asarray(t, dtype=np.float64)))


@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_float32_stays_float32_in_the_drift(sde):
    x = np.ones((3, 2), np.float32)
    assert sde.drift(x, 0.3).dtype == np.float32
    assert sde.drift(x, np.array([0.1, 0.2, 0.3])).dtype == np.float32


@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_std_keeps_its_digits_at_small_times(sde):
    """std² → ∫g², for sub-VP (∫β)², as t → 0: 1 − exp(.) in the open would lose every digit at t = 1e-16."""
    t = np.array([1e-16, 1e-12, 1e-8])
    expected = (sde.diffusion(0.0) ** 2 if isinstance(sde, VE) else sde.beta_min) * t
    assert relative(sde.std(t) ** 2, expected ** (2 if isinstance(sde, SubVP) else 1)) < 1e-5


@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_time_at_keeps_its_digits_at_small_times(sde):
    t = np.array([1e-16, 1e-12, 1e-8])
    assert relative(sde.time_at(sde.log_snr(t)), t) < 1e-12


def test_first_order_table_tends_to_the_sde_at_rate_one():
    """E30, 4.8: (30) with β_i² = β(t_i) h, h the step of the grid, is right in the limit only."""
    sde, errors, Ts = VP(1.0, 3.0, horizon=2.0), [], [100, 200, 400]
    for T in Ts:
        schedule = NoiseSchedule(sde.beta(sde.horizon * np.arange(1, T + 1) / T) * sde.horizon / T)
        errors.append(abs(schedule.alpha_bar[-1] - np.exp(sde.log_scale(sde.horizon))))
    assert np.polyfit(np.log(Ts), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.03)


@pytest.mark.parametrize(
    ("make", "name", "error"),
    [
        (lambda: VP(horizon=0.0), "horizon", ValueError),
        (lambda: SubVP(horizon=-1.0), "horizon", ValueError),
        (lambda: VE(0.1, 1.0, horizon=np.inf), "horizon", ValueError),
        (lambda: VP(beta_min=-0.1), "beta_min", ValueError),
        (lambda: SubVP(beta_min=np.nan), "beta_min", ValueError),
        (lambda: VP(beta_max=0.0), "beta_max", ValueError),
        (lambda: VP(beta_max="20"), "beta_max", TypeError),
        (lambda: VE(0.0, 1.0), "sigma_min", ValueError),
        (lambda: VE(1.0, 1.0), "sigma_max", ValueError),
        (lambda: VE(2.0, 1.0), "sigma_max", ValueError),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(make, name, error):
    with pytest.raises(error, match=rf"^{name} must be "):
        make()


def test_processes_are_values():
    assert VP() == VP(0.1, 20.0, 1.0) != SubVP()
    with pytest.raises(AttributeError):
        VP().horizon = 2.0
    assert VE(0.01, 5.0) == VE(0.01, 5.0, horizon=1.0)


@pytest.mark.parametrize("name", ["log_scale", "std", "rate", "diffusion", "time_at"])
def test_a_process_must_give_its_five_functions(name):
    with pytest.raises(NotImplementedError):
        getattr(LinearSDE(), name)(0.5)


# --- reversal ---------------------------------------------------------------------------------------------


class ScalarData:
    """x_0 ~ N(m, v) under an SDE; the score of p_t is affine."""

    def __init__(self, sde, mean, variance):
        self.sde, self.mean, self.variance = sde, mean, variance

    def moments(self, t):
        scale, std = self.sde.marginal(t)
        return float(scale * self.mean), float(scale**2 * self.variance + std**2)

    def score(self, x, t):
        mean, variance = self.moments(t)
        return (mean - x) / variance


@st.composite
def scalar_data(draw, **kwargs):
    sde = draw(sdes(**kwargs))
    return ScalarData(sde, draw(st.floats(-2, 2)), draw(st.floats(np.log(0.05), np.log(4)).map(np.exp)))


def affine(f):
    """(a, c) of f(x) = a x + c in one dimension."""
    c, a_plus_c = f(np.array([[0.0], [1.0]]))[:, 0]
    return a_plus_c - c, c


def sampler_moments(data, times, churn=1.0):
    """Of euler_maruyama with the exact score, started at the exact p_T."""

    def run(start, noise):
        *_, (t, x) = euler_maruyama(data.sde, data.score, start, times, noise=noise, churn=churn)
        assert t == times[-1]
        return x

    return affine_moments(run, len(times) - 1, *data.moments(times[0]))


@given(scalar_data(), reals(8, 0.01, 1), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_euler_maruyama_has_the_moments_of_its_recursion(data, gaps, churn):
    """4.8: drift and g where the step leaves, on an uneven grid; blind spot 5 of P32."""
    sde = data.sde
    times = sde.horizon * (1 - np.concatenate([[0], np.cumsum(gaps) / gaps.sum()]) * 0.9)
    mean, variance = data.moments(times[0])
    for t, s in pairwise(times):
        m_t, V_t = data.moments(t)
        g_squared, h = float(sde.diffusion(t)) ** 2, t - s
        pull = 0.5 * (1 + churn**2) * g_squared / V_t
        factor = 1 - h * (float(sde.rate(t)) + pull)
        mean, variance = factor * mean + h * pull * m_t, factor**2 * variance + churn**2 * g_squared * h
    assert residual(sampler_moments(data, times, churn), np.array([mean, variance])) < 1e-11


@pytest.mark.parametrize("sde", [VP(4.0, 4.0), VP(0.5, 6.0, 2.0), SubVP(4.0, 4.0), VE(0.3, 3.0)], ids=repr)
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_weak_order_of_euler_maruyama_is_one(sde, churn):
    """4.8: slope of the error of the variance at t = 0 against the number of even steps, from exact moments."""
    data = ScalarData(sde, 1.0, 0.3)
    grids = [np.linspace(sde.horizon, 0, n + 1) for n in (128, 256, 512)]
    errors = [abs(sampler_moments(data, times, churn)[1] - 0.3) for times in grids]
    slopes = np.abs(np.diff(np.log(errors)) / np.log(2) + 1)
    assert slopes[1] < slopes[0]
    assert slopes[1] < 0.06


def test_weak_error_of_euler_maruyama_is_what_theory_says():
    """4.8's forward table at N = 512, run backwards: data N(0, 1) is stationary, so that only EM's own bias is left.

    A step maps v to (1 − bh/2)² v + bh, whose fixed point is 1/(1 − bh/4).
    """
    n = 512
    data = ScalarData(VP(4.0, 4.0), 0.0, 1.0)
    mean, variance = sampler_moments(data, np.linspace(1, 0, n + 1))
    fixed = 1 / (1 - 1 / n)
    assert mean == 0
    assert variance == pytest.approx(fixed + (1 - fixed) * (1 - 2 / n) ** (2 * n), rel=1e-12)


def nonlinear_score(x, t):
    return np.tanh(x + t) - x


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("churn", [0.5, 1.0])
def test_rng_and_the_same_noise_give_the_same_path(churn, dtype):
    sde, times = VP(), np.array([1.0, 0.6, 0.3, 0.1])
    start = np.random.default_rng(1).standard_normal((4, 2)).astype(dtype)
    rng = np.random.default_rng(7)
    noise = np.array([rng.standard_normal((4, 2), dtype=dtype) for _ in range(3)])
    by_rng = list(euler_maruyama(sde, nonlinear_score, start, times, np.random.default_rng(7), churn=churn))
    by_noise = list(euler_maruyama(sde, nonlinear_score, start, times, noise=noise, churn=churn))
    assert [t for t, _ in by_rng] == [t for t, _ in by_noise] == times.tolist()
    for (_, x), (_, y) in zip(by_rng, by_noise, strict=True):
        assert x.dtype == dtype
        assert np.array_equal(x, y)


def test_euler_maruyama_takes_euler_steps():
    """Step by step; its start is yielded first and not changed."""
    sde, times = SubVP(), np.array([1.0, 0.6, 0.3, 0.1])
    start, noise = np.ones((4, 2)), np.random.default_rng(0).standard_normal((3, 4, 2))
    path = [(t, x.copy()) for t, x in euler_maruyama(sde, nonlinear_score, start, times, noise=noise)]
    assert np.array_equal(start, np.ones((4, 2)))
    assert np.array_equal(path[0][1], start)
    for z, ((t, x), (s, y)) in zip(noise, pairwise(path), strict=True):
        mean, std = euler_step(sde, nonlinear_score, x, t, s)
        assert residual(y, mean + std * z) < 1e-15
        assert std == euler_std(sde, t, s) == euler_std(sde, t, s, churn=1.0)


def test_flow_needs_no_noise_and_hears_none():
    sde, times, start = VP(), np.array([1.0, 0.5, 0.1]), np.ones((3, 2))
    rng = np.random.default_rng(0)
    paths = [
        [x for _, x in euler_maruyama(sde, nonlinear_score, start, times, churn=0.0, **kwargs)]
        for kwargs in ({}, {"rng": rng}, {"noise": np.ones((2, 3, 2))})
    ]
    assert np.array_equal(paths[0], paths[1])
    assert np.array_equal(paths[0], paths[2])
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize(
    "times",
    [[1.0], [1.0, 1.0], [0.1, 1.0], [1.0, 0.2, 0.5], [1.0, np.nan, 0.1], [[1.0, 0.5]]],
    ids=str,
)
def test_times_that_do_not_fall_are_refused(times):
    with pytest.raises(ValueError, match=r"^times must be a strictly falling 1-D array"):
        next(euler_maruyama(VP(), nonlinear_score, np.ones((3, 2)), np.array(times), np.random.default_rng(0)))


@pytest.mark.parametrize("shape", [(2, 3, 2), (4, 3, 2), (3, 3, 1), (3, 2)], ids=str)
def test_noise_of_another_shape_is_refused(shape):
    times = np.array([1.0, 0.6, 0.3, 0.1])
    with pytest.raises(ValueError, match=r"^noise must have shape \(3, 3, 2\), got "):
        next(euler_maruyama(VP(), nonlinear_score, np.ones((3, 2)), times, noise=np.ones(shape)))


@pytest.mark.parametrize("churn", [0.1, 1.0])
def test_noise_that_is_needed_is_asked_for(churn):
    with pytest.raises(ValueError, match=r"^rng or noise is needed when churn is not 0"):
        next(euler_maruyama(VP(), nonlinear_score, np.ones((3, 2)), np.array([1.0, 0.5]), churn=churn))


@pytest.mark.parametrize("t_min", [-0.1, 1.1, np.nan])
def test_reverse_moments_end_within_the_horizon(t_min):
    with pytest.raises(ValueError, match=r"^t_min must be in \[0.0, 1.0\]"):
        reverse_moments(VP(), lambda x, t: -x, np.zeros(1), np.eye(1), t_min)


def test_affine_map_is_read_off_in_double():
    """The difference of two numbers in single precision would be rounded once more."""
    image = np.float32([[0.7, 0.7], [10.3, 20.3], [30.3, 40.3]])
    A, c = affine_map(lambda x: image, 2)
    image = image.astype(np.float64)
    assert residual(A, (image[1:] - image[0]).T) < 1e-15
    assert np.array_equal(c, image[0])


# --- times of the reverse process -------------------------------------------------------------------------


@given(sdes(), st.integers(1, 60), st.floats(1e-4, 0.5), st.one_of(st.just(0.0), st.floats(1e-3, 2)))
def test_reverse_times_are_even_in_the_noise_over_the_detail(sde, n_steps, u, detail):
    """They fall, end exactly where they should, and log(std²/scale² + detail²) falls by the same amount every step."""
    t_min = u * sde.horizon
    times = reverse_times(sde, n_steps, t_min, detail)
    assert times.shape == (n_steps + 1,)
    assert (times[0], times[-1]) == (sde.horizon, t_min)
    assert np.all(np.diff(times) < 0)
    scale, std = sde.marginal(times)
    level = np.log((std / scale) ** 2 + detail**2)
    assert residual(level, np.linspace(level[0], level[-1], n_steps + 1)) < 1e-9


@given(sdes(), st.integers(1, 60), st.floats(1e-2, 2))
def test_reverse_times_reach_clean_data_if_there_is_a_detail(sde, n_steps, detail):
    times = reverse_times(sde, n_steps, 0.0, detail)
    assert (times[0], times[-1]) == (sde.horizon, 0.0)
    assert np.all(np.diff(times) < 0)
    scale, std = sde.marginal(times)
    level = np.log((std / scale) ** 2 + detail**2)
    assert residual(level, np.linspace(level[0], level[-1], n_steps + 1)) < 1e-9


def test_reverse_times_without_detail_are_even_in_log_snr():
    sde = VP()
    steps = np.diff(sde.log_snr(reverse_times(sde, 40, 1e-3)))
    assert relative(steps, np.full(40, steps[0])) < 1e-9


@pytest.mark.parametrize(
    ("arguments", "name", "error"),
    [
        ({"t_min": 0.0}, "t_min", ValueError),
        ({"t_min": -0.1, "detail": 0.1}, "t_min", ValueError),
        ({"t_min": 2.1}, "t_min", ValueError),
        ({"t_min": 2.0}, "t_min", ValueError),
        ({"t_min": 0.1, "detail": -0.1}, "detail", ValueError),
        ({"t_min": 0.1, "n_steps": 0}, "n_steps", ValueError),
        ({"t_min": 0.1, "n_steps": 2.0}, "n_steps", TypeError),
    ],
    ids=str,
)
def test_reverse_times_out_of_range_are_refused_by_name(arguments, name, error):
    with pytest.raises(error, match=rf"^{name} must be "):
        reverse_times(VP(horizon=2.0), **{"n_steps": 5, **arguments})


# --- the probability flow ---------------------------------------------------------------------------------


def started_from(sde, log_prob):
    """The same SDE with another prior, so that it can be the exact p_T."""
    kind = type("Started" + type(sde).__name__, (type(sde),), {"prior_log_prob": lambda self, x: log_prob(x)})
    return kind(**vars(sde))


def exact_score_and_divergence(sde, mixture):
    def score_and_divergence(x, t):
        law = mixture.diffuse(*sde.level(t))
        return law.score(x), np.trace(law.score_jacobian(x), axis1=1, axis2=2)

    return score_and_divergence


class DiagonalMixture:
    """A mixture of K product laws in D dimensions under an SDE, written out again: lean enough for a property."""

    def __init__(self, sde, weights, means, variances):
        self.sde, self.log_weights, self.means, self.variances = sde, np.log(weights), means, variances

    def log_joint(self, x, t):
        scale, std = self.sde.level(t)
        variances, centred = scale**2 * self.variances + std**2, x[:, None] - scale * self.means
        return (
            self.log_weights - 0.5 * (np.log(2 * np.pi * variances) + centred**2 / variances).sum(axis=2),
            centred,
            variances,
        )

    def log_prob(self, x, t):
        log_joint, _, _ = self.log_joint(x, t)
        return np.logaddexp.reduce(log_joint, axis=1)

    def score_and_divergence(self, x, t):
        log_joint, centred, variances = self.log_joint(x, t)
        p = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        scores = -centred / variances
        score = (p[:, :, None] * scores).sum(axis=1)
        divergence = (p * ((scores**2) - 1 / variances).sum(axis=2)).sum(axis=1) - (score**2).sum(axis=1)
        return score, divergence


@given(sdes(), reals(16, 0, 1), st.sampled_from([0.0, 0.1]))
def test_flow_of_the_exact_score_has_the_exact_density(sde, u, start):
    """PODE: started from the exact p_T the flow's law at t_min is p_{t_min}."""
    means, variances, x = 4 * u[2:6].reshape(2, 2) - 2, 0.1 + u[6:10].reshape(2, 2), 6 * u[10:].reshape(3, 2) - 3
    law = DiagonalMixture(sde, (0.1 + u[:2]) / (0.1 + u[:2]).sum(), means, variances)
    exact = started_from(sde, lambda x: law.log_prob(x, sde.horizon))
    value = probability_flow_log_prob(exact, law.score_and_divergence, x, start * sde.horizon, rtol=1e-9)
    assert residual(value, law.log_prob(x, start * sde.horizon)) < 1e-7


@pytest.mark.parametrize("sde", [VP(), SubVP(0.5, 8.0, 2.0), VE(0.1, 10.0)], ids=repr)
def test_flow_of_a_mixture_has_the_density_of_the_mixture(sde):
    """PODE with `Mixture` and full covariances, as users would write it."""
    factors = np.array([[[0.5, 0.2], [0.1, 0.4]], [[0.9, -0.3], [0.0, 0.3]]])
    mixture = Mixture([0.3, 0.7], [[-1.0, 0.5], [1.0, -0.2]], factors @ factors.swapaxes(1, 2))
    x = np.array([[0.0, 0.0], [-1.0, 1.0], [1.5, -0.5], [0.3, -1.5]])
    exact = started_from(sde, mixture.diffuse(*sde.level(sde.horizon)).log_prob)
    value = probability_flow_log_prob(exact, exact_score_and_divergence(sde, mixture), x, rtol=1e-9)
    assert residual(value, mixture.log_prob(x)) < 1e-7


@given(sdes(), reals(10, 0, 1))
def test_flow_from_the_shipped_prior_is_off_by_the_prior_alone(sde, u):
    """PODE: on Gaussian data the flow is x_T = m_T + √(V_T/V_0)(x − m), so that log p = log π(x_T) + ½ log V_T/V_0."""
    mean, variances, x = 4 * u[:2] - 2, 0.1 + 3 * u[2:4], 6 * u[4:].reshape(3, 2) - 3
    scale, std = sde.marginal(sde.horizon)
    stretch = np.sqrt((scale**2 * variances + std**2) / variances)
    end = scale * mean + stretch * (x - mean)
    expected = stats.norm.logpdf(end, 0, float(std)).sum(axis=1) + np.log(stretch).sum()
    law = DiagonalMixture(sde, np.ones(1), mean[None], variances[None])
    value = probability_flow_log_prob(sde, law.score_and_divergence, x, rtol=1e-9)
    assert residual(value, expected) < 1e-7


@pytest.mark.parametrize("sde", [VP(0.5, 4.0), SubVP(0.5, 4.0, 2.0), VE(0.3, 4.0)], ids=repr)
def test_flow_of_any_score_has_a_density_that_integrates_to_one(sde):
    """Right or wrong, nonlinear or not: an invertible map neither makes nor loses mass."""

    def wrong(x, t):
        scale, std = sde.marginal(t)
        width = float(np.hypot(scale, std))
        y = x / width
        return (0.4 * np.sin(2 * y + t) - 0.8 * y) / width, (0.8 * np.cos(2 * y + t) - 0.8)[:, 0] / width**2

    x = np.linspace(-12, 12, 481)[:, None]
    density = np.exp(probability_flow_log_prob(sde, wrong, x, rtol=1e-8))
    assert density[[0, -1]].max() < 1e-10
    assert np.trapezoid(density, dx=1 / 20) == pytest.approx(1, abs=1e-7)


def test_rtol_is_the_flows_accuracy():
    sde, x = VP(), np.linspace(-2, 2, 9)[:, None]
    law = DiagonalMixture(sde, np.array([0.4, 0.6]), np.array([[-1.0], [1.2]]), np.array([[0.1], [0.3]]))
    exact = started_from(sde, lambda x: law.log_prob(x, 1.0))
    errors = [
        np.abs(probability_flow_log_prob(exact, law.score_and_divergence, x, rtol=rtol) - law.log_prob(x, 0.0)).max()
        for rtol in (1e-4, 1e-6, 1e-8)
    ]
    assert np.all(np.array(errors) < [1e-4, 1e-6, 1e-8])
    assert errors[2] < errors[1] < errors[0]
    default = probability_flow_log_prob(exact, law.score_and_divergence, x)
    assert np.abs(default - law.log_prob(x, 0.0)).max() == errors[1]


def test_flow_takes_float32_and_answers_in_float64():
    law = Mixture([1.0], [[0.0]], [[[0.5]]])
    x = np.array([[0.5], [-1.0]])
    values = [
        probability_flow_log_prob(VP(), exact_score_and_divergence(VP(), law), x.astype(dtype))
        for dtype in (np.float64, np.float32)
    ]
    assert values[1].dtype == np.float64
    assert np.array_equal(*values)


def test_flow_that_cannot_be_integrated_says_so():
    """A score that is not a number from t = 0.5 on; it is not returned as a likelihood."""

    def broken(x, t):
        return (np.full_like(x, np.nan) if t > 0.5 else -x), -np.ones(len(x))

    with pytest.raises(
        ArithmeticError, match=r"^the probability flow could not be integrated: .*; raise t_min or rtol$"
    ):
        probability_flow_log_prob(VP(), broken, np.ones((2, 1)))


def test_score_that_is_no_number_is_not_integrated_for_ever():
    with pytest.raises(ArithmeticError, match=r"^the probability flow could not be integrated"):
        probability_flow_log_prob(VP(), lambda x, t: (x * np.nan, x[:, 0]), np.ones((2, 1)))
    with pytest.raises(ArithmeticError, match=r"^the moments could not be integrated"):
        reverse_moments(VP(), lambda x, t: x * np.nan, np.ones(1), np.eye(1))


def test_moments_that_cannot_be_integrated_are_not_returned():
    """A score that is not a number below t = 0.5: the moments there are not those at t_min = 0."""
    with pytest.raises(ArithmeticError, match=r"^the moments could not be integrated: .*; raise t_min$"):
        reverse_moments(VP(), lambda x, t: -x if t > 0.5 else x * np.nan, np.ones(1), np.eye(1))


# --- the bound --------------------------------------------------------------------------------------------


class DiffusedGaussian:
    def __init__(self, sde, mean, covariance):
        self.sde, self.mean, self.covariance = sde, mean, covariance

    def at(self, t):
        scale, std = self.sde.marginal(t)
        return float(scale) * self.mean, float(scale) ** 2 * self.covariance + float(std) ** 2 * np.eye(len(self.mean))


def score_distance(p, q, t):
    """E_{p_t}‖∇log p_t − ∇log q_t‖² for Gaussians."""
    (m_p, V_p), (m_q, V_q) = p.at(t), q.at(t)
    P_p, P_q = np.linalg.inv(V_p), np.linalg.inv(V_q)
    return float(np.trace((P_q - P_p) @ (P_q - P_p) @ V_p) + ((P_q @ (m_p - m_q)) ** 2).sum())


@given(sdes(), reals(12, -1, 1), st.sampled_from([0.0, 0.1]))
def test_bound_is_the_kl_when_the_score_is_of_a_diffused_law(sde, flat, u):
    """P34, (34) as an equality at any horizon: s_θ = ∇log q_t, π = q_T give KL(p_{t_min}‖q_{t_min})."""
    m_p, m_q, A, B = 2 * flat[:2], 2 * flat[2:4], flat[4:8].reshape(2, 2), flat[8:].reshape(2, 2)
    p, q = (DiffusedGaussian(sde, m, C @ C.T + 0.2 * np.eye(2)) for m, C in ((m_p, A), (m_q, B)))
    t_min, T = u * sde.horizon, sde.horizon
    bound = kl_bound(sde, lambda t: score_distance(p, q, t), kl_gaussian(*p.at(T), *q.at(T)), t_min)
    assert residual(bound, kl_gaussian(*p.at(t_min), *q.at(t_min))) < 1e-8


def test_nodes_crowd_where_the_scores_are_sharp():
    """4.3: for data of variance 1e-4 the substitution y³ is 1e4 times better than even nodes, 1.6e-3 off."""
    sde = VP(4.0, 4.0, 0.5)
    p, q = (DiffusedGaussian(sde, np.zeros(1), np.array([[v]])) for v in (1e-4, 4e-4))
    exact = kl_gaussian(*p.at(0), *q.at(0))
    bound = kl_bound(sde, lambda t: score_distance(p, q, t), kl_gaussian(*p.at(0.5), *q.at(0.5)))
    assert bound == pytest.approx(exact, abs=1e-6)
    finer = kl_bound(sde, lambda t: score_distance(p, q, t), kl_gaussian(*p.at(0.5), *q.at(0.5)), n_nodes=256)
    assert finer == pytest.approx(exact, abs=1e-11)


def kl_to_scaled(v):
    """KL(N(0, 1)‖N(0, v))."""
    return 0.5 * (1 / v - 1 + np.log(v))


class WrongScore:
    """E34: data N(0, 1), whose score is −x at every t, and s_θ = −(1 + δ) x; B = ∫β over the horizon."""

    def __init__(self, delta, B, horizon):
        self.delta, self.B = delta, B
        self.sde = started_from(VP(B / horizon, B / horizon, horizon), lambda x: stats.norm.logpdf(x).sum(axis=1))
        self.bound = kl_bound(self.sde, lambda t: delta**2, 0.0)

    def sde_variance(self):
        """Of the reverse SDE at time 0, from reverse_drift and g."""

        def slope(t, v):
            a, _ = affine(lambda x: reverse_drift(self.sde, lambda y, t: -(1 + self.delta) * y, x, t))
            return 2 * a * v - float(self.sde.diffusion(t)) ** 2

        return float(solve_ivp(slope, (self.sde.horizon, 0.0), [1.0], method="DOP853", rtol=1e-11, atol=1e-12).y[0, -1])

    def flow_kl(self):
        """KL(N(0, 1)‖p^ODE): −E log p^ODE − H, where log p^ODE is quadratic, so that ±1 integrate it."""
        slope = -(1 + self.delta)
        value = probability_flow_log_prob(
            self.sde, lambda x, t: (slope * x, np.full(len(x), slope)), np.array([[1.0], [-1.0]]), rtol=1e-10
        )
        return float(-value.mean() - 0.5 * np.log(2 * np.pi * np.e))


@given(st.floats(-0.3, 1), st.floats(0.3, 8), st.floats(0.2, 3))
def test_wrong_score_costs_the_sde_less_than_the_bound_and_the_flow_more(delta, B, horizon):
    """P34b, E34 in closed form; the inequality for the SDE's law, with its exact slack, and not for the flow's."""
    case = WrongScore(delta, B, horizon)
    assert residual(case.bound, B * delta**2 / 2) < 1e-12
    rate = 1 + 2 * delta
    variance = (1 + 2 * delta * np.exp(-rate * B)) / rate
    assert residual(case.sde_variance(), variance) < 1e-8
    assert kl_to_scaled(case.sde_variance()) <= case.bound + 1e-8
    flow_kl = (np.exp(B * delta) - 1 - B * delta) / 2
    assert residual(case.flow_kl(), flow_kl) < 1e-7


@pytest.mark.parametrize(
    ("delta", "bound", "sde_kl", "flow_kl"), [(0.1, 0.05, 0.0088, 0.3591), (0.5, 1.25, 0.153, 71.2)]
)
def test_bound_is_violated_by_the_flow(delta, bound, sde_kl, flow_kl):
    """E34: the published numbers at ∫β = 10."""
    case = WrongScore(delta, 10.0, 1.0)
    assert case.bound == pytest.approx(bound, rel=1e-12)
    assert kl_to_scaled(case.sde_variance()) == pytest.approx(sde_kl, rel=1e-2)
    assert case.flow_kl() == pytest.approx(flow_kl, rel=1e-3)
    assert kl_to_scaled(case.sde_variance()) < case.bound < case.flow_kl()


@pytest.mark.parametrize(
    ("arguments", "name"), [({"t_min": -0.1}, "t_min"), ({"t_min": 2.1}, "t_min"), ({"n_nodes": 0}, "n_nodes")]
)
def test_bound_refuses_arguments_out_of_range_by_name(arguments, name):
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        kl_bound(VP(horizon=2.0), lambda t: 1.0, 0.0, **arguments)
