"""ScoreSDE: bounds, likelihoods and samples against exact answers, its arguments, and the draws of training."""

from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from scratchgen import VE, VP, Mixture, ScoreSDE, SubVP
from scratchgen.grading import grade_noise
from scratchgen.nn import NoiseNetwork
from scratchgen.sde import flow_map, reverse_moments
from tests.exact import (
    BIMODAL,
    CLUSTERS,
    GAUSSIAN,
    LOG_2PI,
    ExactNoise,
    affine,
    exact,
    gaussian,
    grid_rows,
    multistep_moments,
    sigma_rows,
)
from tests.strategies import FALSE_ALARM, Scripted, passes_as_sample, residual

SDES = [VP(), VP(0.5, 8.0, 2.0), SubVP(0.1, 15.0), VE(0.01, 20.0)]
LINE = Mixture([0.4, 0.6], [[-1.0], [1.2]], [[[0.1]], [[0.2]]])
PLANE = Mixture([0.4, 0.6], [[-1.0, 0.5], [0.8, -0.3]], [0.2 * np.eye(2), [[0.3, 0.1], [0.1, 0.2]]])
every_sde = pytest.mark.parametrize("sde", SDES, ids=repr)

# --- the bound, with an exact predictor ----------------------------------------------------------------


def log_snr_ends(sde, t_min):
    """log(scale²/std²) at the horizon and at t_min."""
    return [float(2 * np.log(scale / std)) for scale, std in (sde.marginal(sde.horizon), sde.marginal(t_min))]


def kl_to_prior(sde, law):
    """KL(p_T‖π) by its definition: by quadrature in one dimension, in closed form for one Gaussian."""
    scale, std = (float(v) for v in sde.marginal(sde.horizon))
    p_T = law.diffuse(scale, std)
    cross = 0.5 * law.dimension * (LOG_2PI + 2 * np.log(sde.prior_std)) + 0.5 / sde.prior_std**2 * (
        np.trace(p_T.covariance()) + p_T.mean() @ p_T.mean()
    )
    return float(cross - entropy(p_T))


def entropy(law):
    if len(law.weights) > 1:
        return law.entropy()
    return 0.5 * float(law.dimension * (LOG_2PI + 1) + np.linalg.slogdet(law.covariances[0])[1])


def sde_bound(sde, t_min, law):
    """E_p[−elbo] of an exact score: KL(p_T‖π) + H(x_{t_min}/scale), because only the two ends of the path differ."""
    scale, std = (float(v) for v in sde.marginal(t_min))
    return kl_to_prior(sde, law) + entropy(law.diffuse(scale, std)) - law.dimension * np.log(scale)


@every_sde
@pytest.mark.parametrize("error", [0.0, 0.3, -0.5])
def test_sde_bound_is_exact_for_gaussian_data(sde, error):
    """E_p[−elbo] = KL(p_T‖π) + H + ½ ∫ E‖ε* − ε̂‖² d(log-SNR): (34) with its factor, at times of the SDE."""
    t_min, n_times = 0.01, 200
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), GAUSSIAN, error)
    x0, noise = sigma_rows(GAUSSIAN)
    elbo = model.elbo(x0, rng=Scripted(lambda i, shape: noise), n_times=n_times)
    assert elbo.shape == (len(x0),)
    low, high = log_snr_ends(sde, t_min)
    eigenvalues = np.linalg.eigvalsh(law.covariance())
    # E‖ε*‖² = Σ 1/(1 + λ e^u) at log-SNR u, whose integral is −Σ log(λ + e^−u)
    excess = error**2 * (np.log(eigenvalues + np.exp(-low)) - np.log(eigenvalues + np.exp(-high))).sum()
    expected = sde_bound(sde, t_min, law) + 0.5 * excess + np.log(model.scale_).sum()
    assert abs(elbo.mean() + expected) < 1e-5  # the midpoint rule in time


def test_sde_bound_is_exact_for_a_mixture():
    sde, t_min = VP(), 0.005
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), BIMODAL)
    x0, noise, weights = grid_rows(BIMODAL)
    elbo = weights @ model.elbo(x0, rng=Scripted(lambda i, shape: noise), n_times=150)
    expected = sde_bound(sde, t_min, law) + np.log(model.scale_).sum()
    assert abs(elbo + expected) < 1e-4
    assert 0 < expected - BIMODAL.entropy() < 0.01  # the bound is nearly tight; the rest is due to t_min


def test_sde_bound_is_unbiased_for_any_number_of_times():
    """Statistical: within 5.5 standard errors, each fails once in 2e7 runs; more times have less variance."""
    sde, n, t_min = VP(), 600, 0.01
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), GAUSSIAN)
    expected = sde_bound(sde, t_min, law) + np.log(model.scale_).sum()
    x = GAUSSIAN.sample(n, rng=1)
    spreads = []
    for n_times in 1, 3, 20:  # every example has its own times, so that examples are independent
        gaps = GAUSSIAN.log_prob(x) - model.elbo(x, rng=10 + n_times, n_times=n_times)
        spreads.append(gaps.std(ddof=1))
        gap = expected - entropy(GAUSSIAN)
        assert abs(gaps.mean() - gap) < stats.t.isf(FALSE_ALARM / 2, n - 1) * spreads[-1] / n**0.5
    assert spreads[0] > 3 * spreads[2]
    assert abs(gap) < 0.05


# --- the likelihood -----------------------------------------------------


@every_sde
def test_flow_likelihood_is_exact_for_gaussian_data(sde):
    """The flow maps N(a m, V_{t_min}) to N(a_T m, V_T) along each axis; log π is added there, and the log-volume."""
    t_min = 0.01
    model, law = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), GAUSSIAN)
    x = GAUSSIAN.sample(20, rng=1)
    eigenvalues, axes = np.linalg.eigh(law.covariance())
    (a, s), (a_T, s_T) = sde.marginal(t_min), sde.marginal(sde.horizon)
    stretch = np.sqrt((a_T**2 * eigenvalues + s_T**2) / (a**2 * eigenvalues + s**2))
    end = (model.to_model(x) - a * law.mean()) @ axes * stretch + a_T * law.mean() @ axes
    expected = stats.norm.logpdf(end, 0, s_T).sum(axis=1) + np.log(stretch).sum() - np.log(model.scale_).sum()
    assert residual(model.log_prob(x, rtol=1e-9), expected) < 1e-6
    assert residual(model.log_prob(x), expected) < 1e-3


@cache
def small_model():
    return ScoreSDE(n_steps=1, hidden=(2,), rng=0).fit(CLUSTERS.sample(20, rng=0))


@pytest.mark.parametrize("t", [0.0, -0.1, 1.1, np.nan])
def test_score_sde_refuses_times_outside_its_range(t):
    model = small_model()
    for verb in model.eps_hat, model.predict_score:
        with pytest.raises(ValueError, match="t must be"):
            verb(np.zeros((2, 2)), t)


@every_sde
def test_score_sde_predicts_noise_and_score_at_time_t(sde):
    model, law = exact(ScoreSDE(sde, n_steps=1, rng=0), CLUSTERS)
    x = np.random.default_rng(0).standard_normal((3, 2))
    for t in 0.01, 0.3, sde.horizon:
        scale, std = (float(v) for v in sde.marginal(t))
        p_t = law.diffuse(scale, std)
        assert residual(model.predict_score(x, t), p_t.score(x)) < 1e-12
        assert residual(model.eps_hat(x, t), -std * p_t.score(x)) < 1e-12
        score, divergence = model.score_and_divergence(x, t)
        assert residual(score, p_t.score(x)) < 1e-12
        assert residual(divergence, np.trace(p_t.score_jacobian(x), axis1=1, axis2=2)) < 1e-12


# --- samples ------------------------------------------------------------


def euler_moments(sde, law, times, stochasticity):
    """Mean and covariance of Euler-Maruyama on (32) for Gaussian data, then of E[x_0 | x] at the last time."""
    D = law.dimension
    mean, V = np.zeros(D), sde.prior_std**2 * np.eye(D)

    def score(t):
        scale, std = (float(v) for v in sde.marginal(t))
        precision = np.linalg.inv(scale**2 * law.covariance() + std**2 * np.eye(D))
        return -precision, precision @ (scale * law.mean())

    for t, s in pairwise(times):
        f, g2, h = float(sde.rate(t)), float(sde.diffusion(t)) ** 2, t - s
        S, b = score(t)
        A = (1 - h * f) * np.eye(D) + 0.5 * (1 + stochasticity**2) * g2 * h * S
        mean = A @ mean + 0.5 * (1 + stochasticity**2) * g2 * h * b
        V = A @ V @ A.T + stochasticity**2 * g2 * h * np.eye(D)
    scale, std = (float(v) for v in sde.marginal(times[-1]))
    S, b = score(times[-1])
    A = (np.eye(D) + std**2 * S) / scale  # Tweedie
    return A @ mean + std**2 / scale * b, A @ V @ A.T


@every_sde
@pytest.mark.parametrize("stochasticity", [1.0, 0.0, 0.5])
def test_score_sde_samples_gaussian_data_with_the_exact_moments_of_its_scheme(sde, stochasticity):
    n, t_min = 12, 0.02
    model, law = exact(ScoreSDE(sde, t_min, n_sample_steps=n + 1, n_steps=1, rng=0), GAUSSIAN)
    draw = partial(model.sample, stochasticity=stochasticity, method="euler")
    mean, jacobian = affine((n + 1 if stochasticity else 1, 2), draw)
    low, high = log_snr_ends(sde, t_min)
    times = [sde.horizon, *(float(sde.time_at(u)) for u in np.linspace(low, high, n + 1)[1:-1]), t_min]
    m, V = euler_moments(sde, law, times, stochasticity)
    assert residual(mean, model.scale_ * m + model.mean_) < 1e-5  # x_T is float32
    assert residual(jacobian @ jacobian.T, np.outer(model.scale_, model.scale_) * V) < 1e-5


@every_sde
@pytest.mark.parametrize("stochasticity", [1.0, 0.0])
def test_score_sde_samples_have_the_right_covariance_at_first_order(sde, stochasticity):
    """The error halves with twice the steps; t_min and the start at π leave an error for every number of steps."""
    errors = []
    data = gaussian([0, 0], [[1.0, 0.3], [0.3, 0.5]])
    for n in 100, 200, 400:
        model, _ = exact(ScoreSDE(sde, n_sample_steps=n + 1, standardize=False, n_steps=1, rng=0), data)
        draw = partial(model.sample, stochasticity=stochasticity, method="euler")
        jacobian = affine((n + 1 if stochasticity else 1, 2), draw)[1]
        errors.append(jacobian @ jacobian.T - data.covariance())
    assert abs(2 * errors[2] - errors[1]).max() < 0.03  # extrapolated to step size 0
    assert np.log2(np.linalg.norm(errors[0] - errors[1]) / np.linalg.norm(errors[1] - errors[2])) > 0.8


@every_sde
@pytest.mark.parametrize("stochasticity", [1.0, 0.0, 0.5])
@pytest.mark.parametrize("method", ["multistep", "ddim"])
def test_exponential_steps_have_the_exact_moments_of_their_formula_on_the_sinh_grid(sde, stochasticity, method):
    n, t_min = 12, 0.02
    model, law = exact(ScoreSDE(sde, t_min, n_sample_steps=n, n_steps=1, rng=0), GAUSSIAN)
    draw = partial(model.sample, stochasticity=stochasticity, method=method)
    mean, jacobian = affine((n if stochasticity else 1, 2), draw)
    v = np.arcsinh((np.array(log_snr_ends(sde, t_min)) - 2) / 4)
    levels = np.stack(sde.marginal(sde.time_at(2 + 4 * np.sinh(np.linspace(*v, n)))), axis=1)
    m, V = multistep_moments(levels, law, stochasticity, extrapolates=method == "multistep")
    assert residual(mean, model.scale_ * m + model.mean_) < 1e-5  # x_T is float32
    assert residual(jacobian @ jacobian.T, np.outer(model.scale_, model.scale_) * V) < 1e-5


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(0.01, 20.0)], ids=repr)
def test_orders_of_the_samplers_of_the_flow_on_the_exact_score_of_a_mixture(sde):
    """With half as long steps, errors at t_min fall by 2 for "ddim", and by 4 for "multistep" and "heun"."""
    model, _ = exact(ScoreSDE(sde, 0.02, standardize=False, n_steps=1, rng=0), PLANE)
    ((_, x_T), *_) = model.sample_path(40, rng=0)
    end = flow_map(sde, model.predict_score, x_T.astype(float), sde.horizon, 0.02, rtol=1e-9)
    for method, order in ("ddim", 1.0), ("multistep", 2.0), ("heun", 2.0):
        errors = []
        for n in 41, 81, 161:
            model.set_params(n_sample_steps=n)
            *_, (t, x) = model.sample_path(40, rng=0, stochasticity=0.0, method=method)
            assert t == 0.02
            errors.append(np.sqrt(((x - end) ** 2).mean()))
        orders = np.log2(errors[:-1]) - np.log2(errors[1:])
        assert abs(orders - order).max() < 0.2


@every_sde
@pytest.mark.parametrize("stochasticity", [0.7, 1.0])
def test_weak_orders_on_gaussian_data(sde, stochasticity):
    """Mean and covariance at t_min against those of the reverse SDE from the same start, solved exactly."""
    t_min, orders = 0.02, {}
    model, _ = exact(ScoreSDE(sde, t_min, n_steps=1, rng=0), GAUSSIAN)
    start = np.zeros(2), sde.prior_std**2 * np.eye(2)
    m, V = reverse_moments(sde, model.predict_score, *start, t_min, stochasticity)
    for method in "multistep", "ddim":

        def end(size, rng, method=method):
            *_, (_, x) = model.sample_path(size, rng, stochasticity, method)
            return x

        errors = []
        for n in 41, 81:
            model.set_params(n_sample_steps=n)
            mean, jacobian = affine((n, 2), end)
            errors.append(np.linalg.norm(np.vstack([mean - m, jacobian @ jacobian.T - V])))
        orders[method] = np.log2(errors[0] / errors[1])
    print(orders)
    assert 1.6 < orders["multistep"] < 2.2
    assert 0.8 < orders["ddim"] < 1.2


class Counted(ExactNoise):
    """An exact network that counts its calls."""

    calls = 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        return super().__call__(*arguments, **options)


@pytest.mark.parametrize("n", [2, 3, 20])
@pytest.mark.parametrize("sde", [VP(), VE(0.01, 20.0)], ids=repr)
def test_sample_makes_exactly_n_sample_steps_calls_of_the_network(sde, n):
    model, law = exact(ScoreSDE(sde, n_sample_steps=n, n_steps=1, rng=0), PLANE)
    for given, calls in (
        ({}, n),
        ({"stochasticity": 0.0}, n),
        ({"method": "ddim", "stochasticity": 0.5}, n),
        ({"method": "euler"}, n),
        ({"method": "euler", "n_corrections": 2}, 3 * n - 2),
        ({"method": "heun", "stochasticity": 0.0}, 2 * n - 1),
    ):
        model.network_ = Counted(law)
        model.sample(3, rng=0, **given)
        assert model.network_.calls == calls, given


@pytest.mark.parametrize(("given", "n"), [({}, 20), ({"stochasticity": 0.0}, 20), ({"method": "euler"}, 250)])
def test_score_sde_samples_a_mixture(given, n):
    """Statistical, against the mixture; a path that stops halfway fails, and so does Euler-Maruyama with 10 steps."""
    model, law = exact(ScoreSDE(n_sample_steps=n, n_steps=1, rng=0), CLUSTERS)
    path = list(model.sample_path(1500, rng=0, **given))
    times = np.array([t for t, _ in path])
    assert times[0] == 1.0
    assert times[-1] == 1e-3
    assert len(times) == n
    assert (np.diff(times) < 0).all()
    assert passes_as_sample(path[0][1], gaussian([0, 0], np.eye(2)))
    assert passes_as_sample(path[-1][1], law)
    assert not passes_as_sample(path[n // 2][1], law)
    assert passes_as_sample(model.sample(1500, rng=0, **given), CLUSTERS)
    assert not passes_as_sample(model.set_params(n_sample_steps=6).sample(1500, rng=0, method="euler"), CLUSTERS)


@pytest.mark.parametrize("sde", [SubVP(), VE(0.01, 20.0), VE(0.002, 80.0)], ids=repr)
def test_the_default_of_sample_draws_a_mixture_on_every_process(sde):
    """Statistical, against the mixture; Euler-Maruyama with half of the calls fails."""
    model, _ = exact(ScoreSDE(sde, n_steps=1, rng=0), CLUSTERS)
    assert passes_as_sample(model.sample(4000, rng=0), CLUSTERS)
    assert passes_as_sample(model.sample(4000, rng=0, stochasticity=0.0), CLUSTERS)
    assert not passes_as_sample(model.set_params(n_sample_steps=15).sample(4000, rng=0, method="euler"), CLUSTERS)


# --- training ---------------------------------------------------------------------------------------------


@every_sde
@pytest.mark.parametrize("weighting", ["likelihood", "noise"])
def test_score_sde_trains_on_one_time_in_every_cell(sde, weighting, monkeypatch):
    """Cells of equal log-SNR (λ = g²) or of equal time (λ = std²), with uniform times in each cell."""
    levels, vjp = [], NoiseNetwork.vjp

    def spied(network, x, scale, std, **given):
        levels.append((scale, std))
        return vjp(network, x, scale, std, **given)

    monkeypatch.setattr(NoiseNetwork, "vjp", spied)
    parameters = {"hidden": (4,), "n_steps": 40, "batch_size": 64, "rng": 0}
    ScoreSDE(sde, 0.01, weighting, **parameters).fit(GAUSSIAN.sample(50, rng=0))
    scales, stds = np.array(levels).swapaxes(0, 1)
    log_snr = 2 * np.log(scales / stds)
    low, high = log_snr_ends(sde, 0.01)
    if weighting == "likelihood":
        position = (log_snr - low) / (high - low) * 64
    else:
        position = (sde.time_at(log_snr) - 0.01) / (sde.horizon - 0.01) * 64
    position = np.sort(position, axis=1) - np.arange(64)
    assert position.min() > -1e-6
    assert position.max() < 1 + 1e-6
    assert stats.kstest(position.ravel(), "uniform").pvalue > FALSE_ALARM
    assert residual(scales**2, scale_squared(sde, log_snr)) < 1e-9


def scale_squared(sde, log_snr):
    """scale² as a function of log-SNR, from the invariant of each process."""
    snr = np.exp(log_snr)
    if type(sde) is VP:
        return snr / (1 + snr)
    if type(sde) is VE:
        return np.ones_like(snr)
    return (2 / (1 + np.sqrt(1 + 4 * np.sqrt(snr) ** 2)) * np.sqrt(snr)) ** 2  # a/(1 − a²) = √snr


@pytest.mark.parametrize("matching", ["implicit", "sliced", "sliced-vr"])
def test_training_without_the_noise_learns_the_score(matching):
    """Excess over the Bayes loss, by quadrature, at three noise levels; untrained, .05 and .27 at two of them."""
    x = LINE.sample(5000, rng=0)
    parameters = {"hidden": (32, 32), "matching": matching, "directions": "gaussian"}
    parameters |= {"standardize": False, "t_min": 0.01, "rng": 0}
    model = ScoreSDE(n_steps=1500, **parameters).fit(x)
    untrained = ScoreSDE(n_steps=1, **parameters).fit(x)

    def excess(fitted):
        levels = [fitted.sde_.level(t) for t in (0.1, 0.3, 0.6)]
        times = zip((0.1, 0.3, 0.6), levels, strict=True)
        return [grade_noise(LINE, lambda p, t=t: fitted.eps_hat(p, t), *level).excess for t, level in times]

    assert max(excess(model)) < 0.02
    assert min(excess(untrained)[:2]) > 0.04


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"matching": "explicit"}, "matching must be"),
        ({"directions": "unit"}, "directions must be"),
        ({"prediction": "noise"}, "prediction must be"),
        ({"n_sample_steps": 1}, "n_sample_steps must be at least 2"),
        ({"matching": "sliced", "prediction": "levels", "n_levels": 3}, "matching must be 'denoising'"),
    ],
)
def test_invalid_choices_are_refused_before_training(parameters, words):
    with pytest.raises(ValueError, match=words):
        ScoreSDE(n_steps=1, **parameters).fit(np.eye(3))


# --- arguments of the verbs -------------------------------------------------------------------------------


def trained(**parameters):
    defaults = {
        "hidden": (32, 32),
        "n_steps": 600,
        "learning_rate": 1e-2,
        "t_min": 0.02,
        "n_sample_steps": 200,
        "rng": 0,
    }
    return ScoreSDE(**{**defaults, **parameters}).fit(PLANE.sample(2000, rng=0))


@cache
def trained_in_the_plane():
    return trained()


def test_all_methods_draw_samples_of_the_same_flow():
    model = trained_in_the_plane()
    methods = "multistep", "ddim", "euler", "heun", "adaptive"
    multistep, ddim, euler, heun, adaptive = (model.sample(50, 3, stochasticity=0.0, method=m) for m in methods)
    for second_order in multistep, heun:
        assert np.abs(second_order - adaptive).max() < 5e-3
        for first_order in ddim, euler:
            assert np.abs(second_order - adaptive).max() < np.abs(first_order - adaptive).max() < 0.5


@pytest.mark.parametrize("sde", [VP(), VE(0.05, 5.0, 2.0)], ids=repr)
def test_paths_begin_with_the_prior_at_the_horizon(sde):
    """For every method x_T is the first state, and the last state is at t_min exactly."""
    model = ScoreSDE(sde, 0.02, n_sample_steps=4, hidden=(4,), n_steps=1, rng=0).fit(GAUSSIAN.sample(20, rng=0))
    x_T = np.float32(sde.prior_std) * np.random.default_rng(5).standard_normal((3, 2), dtype=np.float32)
    flow = {"stochasticity": 0.0}
    euler = {"method": "euler", "n_corrections": 1}
    for given in {}, flow, flow | {"method": "ddim"}, flow | {"method": "heun"}, {"method": "euler"}, euler:
        path = list(model.sample_path(3, rng=5, **given))
        assert len(path) == 4
        assert path[0][0] == sde.horizon
        assert path[-1][0] == 0.02
        assert residual(path[0][1], x_T) < 1e-7
        assert {x.dtype for _, x in path} == {np.dtype(np.float32)}
    ((t, _),) = model.sample_path(3, rng=5, stochasticity=0.0, method="adaptive")
    assert t == 0.02


def test_corrections_change_the_samples_of_a_model():
    model = trained_in_the_plane()
    draw = partial(model.sample, 50, rng=1, method="euler")
    plain, corrected = draw(), draw(n_corrections=2, snr=0.3)
    assert corrected.shape == plain.shape
    assert not np.array_equal(corrected, plain)
    assert np.array_equal(draw(n_corrections=0), plain)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stochasticity": 0.0, "method": "rk4"}, "^method must be one of 'multistep', 'ddim', 'euler', .*'rk4'"),
        ({"method": "heun"}, "^method 'heun' needs stochasticity=0, got 1.0; pass 0"),
        ({"stochasticity": 0.0, "method": "heun", "n_corrections": 1}, "^method must be 'euler' with n_corrections=1"),
        ({"n_corrections": 1}, "^method must be 'euler' with n_corrections=1, got 'multistep'"),
        ({"n_corrections": -1}, "^n_corrections must be"),
        ({"snr": -1.0}, "^snr must be"),
        ({"snr": 1.0}, "^snr must be"),
    ],
)
def test_invalid_sampler_arguments_are_refused(given, words):
    """Before the first step."""
    with pytest.raises(ValueError, match=words):
        small_model().sample_path(2, rng=0, **given)


@pytest.mark.parametrize("prediction", ["v", "levels"])
def test_samples_of_whole_numbers_are_drawn_at_the_last_time_and_have_no_negative_zero(prediction):
    """Rounding −0.3 gives −0.0; its sign would show in a file or in a division."""
    x = np.random.default_rng(0).integers(0, 2, (200, 3)) * np.random.default_rng(1).integers(0, 3, (200, 3))
    model = ScoreSDE(n_levels=5, prediction=prediction, t_min=0.1, hidden=(8,), n_steps=50, n_sample_steps=20, rng=0)
    samples = model.fit(x).sample(500, rng=1)
    assert (samples == 0).sum() > 100
    assert set(np.unique(samples)) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert not np.signbit(samples).any()
    *_, (t, end) = model.sample_path(500, rng := np.random.default_rng(1))
    scale, std = model.sde_.level(t)
    assert prediction == "levels" or np.array_equal(
        samples, np.clip(np.rint(model.to_data((end + std * rng.standard_normal(end.shape)) / scale)), 0, 4)
    )
