"""Beyond the deck: paths, EDM, exponential steps, orders, information, second moments; right codes and wrong twins."""

import numpy as np
import pytest

from scratchgen import VE, VP, Mixture, NoiseSchedule, SubVP
from scratchgen.conformance import (
    check_conservative_score,
    check_edm_coefficients,
    check_exponential_step,
    check_flow_order,
    check_flow_velocity,
    check_fokker_planck,
    check_kl_rate,
    check_mutual_information,
    check_sigma_grid,
    check_tilted_score,
    check_tweedie_covariance,
    check_weak_order,
)
from scratchgen.ddpm import ddim_step, eps_to_prediction, q_posterior
from scratchgen.quadrature import gauss_hermite
from scratchgen.sde import (
    denoiser_to_score,
    edm_coefficients,
    edm_sigmas,
    euler_maruyama,
    exponential_sampler,
    exponential_step,
    flow_velocity,
    heun,
    kl_rate,
    log_ratio_step,
    mutual_information,
    path_coefficients,
    reverse_drift,
    tilted_score,
    tweedie_covariance,
)

LINE = Mixture([0.3, 0.7], [[-1.0], [0.8]], [[[0.2]], [[0.3]]])
PLANE = Mixture(
    [0.3, 0.5, 0.2],
    [[-1.0, 0.5], [1.0, -0.2], [0.3, 1.4]],
    [[[0.3, 0.1], [0.1, 0.2]], [[0.4, -0.2], [-0.2, 0.5]], [[0.3, 0.0], [0.0, 0.6]]],
)
SPACE = Mixture([0.6, 0.4], [[0.0, 1.0, -1.0], [1.0, -0.5, 0.3]], [0.4 * np.eye(3) + 0.1, np.diag([0.2, 0.5, 0.3])])
NARROW = Mixture([0.4, 0.6], [[-1.0], [0.5]], [[[0.01]], [[0.02]]])
LAWS = {"line": LINE, "plane": PLANE, "space": SPACE, "narrow": NARROW}
SDES = {"vp": VP(0.3, 4.0, 1.7), "sub-vp": SubVP(0.3, 4.0, 1.7), "ve": VE(0.1, 5.0), "song": VP()}
by_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
by_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
LEVELS = np.array([[0.9, 0.4], [0.5, 0.5], [1.0, 2.0], [0.1, 0.99]])
X = np.sin(np.arange(1.0, 16)).reshape(5, 3)
rng = np.random.default_rng(0)


def named(check, sentence):
    assert not check
    assert sentence in check.diagnosis, check


# --- Fokker-Planck ----------------------------------------------------------------------------------------------------


def times_of(sde):
    return sde.horizon * np.array([0.05, 0.4, 0.9])


def planck(sde, law, drift, diffusion):
    return check_fokker_planck(drift, diffusion, sde.level, law, times_of(sde))


@pytest.mark.equation("fokker-planck")
@by_law
@by_sde
@pytest.mark.parametrize("c", [0.0, 0.6, 1.0, 1.7])
def test_reverse_processes_with_any_stochasticity_pass(sde, law, c):
    def drift(x, t):
        return reverse_drift(sde, law.diffuse(*sde.level(t)).score(x), x, t, c)

    assert planck(sde, law, drift, lambda t: c * sde.diffusion(t))


@by_sde
def test_processes_that_no_stochasticity_describes_pass_too(sde):
    """A noise that depends on t in its own way, and a rotation R s with R antisymmetric, which moves no mass."""
    R = np.array([[0.0, 1.0, 0.5], [-1.0, 0.0, 0.2], [-0.5, -0.2, 0.0]])

    def noise(t):
        return 0.3 + t**2

    def drift(x, t):
        s = SPACE.diffuse(*sde.level(t)).score(x)
        return reverse_drift(sde, s, x, t, 0.0) - 0.5 * noise(t) ** 2 * s + 0.7 * s @ R.T

    assert planck(sde, SPACE, drift, noise)


@pytest.mark.equation("fokker-planck")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda f, g, c, s, x: f * x - 0.5 * g**2 * s, "the drift is that of the flow"),
        (lambda f, g, c, s, x: f * x - g**2 * s, "the drift is that of the reverse SDE"),
        (lambda f, g, c, s, x: f * x - 0.5 * (1 + c) * g**2 * s, "½(1 + λ), not ½(1 + λ²)"),
        (lambda f, g, c, s, x: f * x, "the score is missing"),
        (lambda f, g, c, s, x: f * x + 0.5 * (1 + c**2) * g**2 * s, "the score has the wrong sign"),
        (lambda f, g, c, s, x: f * x - 0.5 * (1 + c**2) * g * s, "expected"),
        (lambda f, g, c, s, x: f * x - 0.5 * (1 + c**2) * g**2 * s * (1 + 1e-7), "expected"),
        (lambda f, g, c, s, x: -0.5 * (1 + c**2) * g**2 * s, "expected"),
        (lambda f, g, c, s, x: f * x - 0.5 * (1 + c**2) * g**2 * np.clip(s, -4, 4), "expected"),
        (lambda f, g, c, s, x: f * x - 0.5 * (1 + c**2) * g**2 * s.mean(axis=0), "expected"),
    ],
)
def test_wrong_drifts_under_noise_fail(wrong, sentence):
    sde, c = SDES["vp"], 0.6

    def drift(x, t):
        return wrong(sde.rate(t), sde.diffusion(t), c, PLANE.diffuse(*sde.level(t)).score(x), x)

    named(planck(sde, PLANE, drift, lambda t: c * sde.diffusion(t)), sentence)


@pytest.mark.equation("fokker-planck")
@by_sde
def test_coefficients_of_a_path_are_those_of_its_sde(sde):
    t = times_of(sde)
    scale, std = sde.marginal(t)
    h = 1e-6 * t
    slopes = [(sde.marginal(t + h)[i] - sde.marginal(t - h)[i]) / (2 * h) for i in (0, 1)]
    f, g = path_coefficients(scale, std, *slopes)
    np.testing.assert_allclose(f, sde.rate(t), rtol=0, atol=1e-7)
    np.testing.assert_allclose(g, sde.diffusion(t), rtol=1e-7)


def test_coefficients_at_clean_data_and_of_impossible_paths():
    f, g = path_coefficients(1.0, 0.0, -1.0, 1.0)
    assert (f, g) == (-1.0, 0.0)
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        path_coefficients(0.0, 1.0, -1.0, 1.0)
    with pytest.raises(ValueError, match="std/scale must not fall with t"):
        path_coefficients(0.5, 0.5, 1.0, -1.0)


# --- flow matching ----------------------------------------------------------------------------------------------------

STRAIGHT = lambda t: (1 - t, t)  # noqa: E731
TURNING = lambda t: (np.cos(0.5 * np.pi * t), np.sin(0.5 * np.pi * t))  # noqa: E731
PATH_TIMES = np.array([0.05, 0.5, 0.9])


@pytest.mark.equation("flow-matching")
@by_law
def test_velocities_of_common_paths_pass(law):
    half = 0.5 * np.pi
    assert check_flow_velocity(lambda x0, e, t: e - x0, STRAIGHT, law, PATH_TIMES)
    assert check_flow_velocity(lambda x0, e, t: flow_velocity(x0, e, -1.0, 1.0), STRAIGHT, law, PATH_TIMES)
    v = lambda x0, e, t: half * (np.cos(half * t) * e - np.sin(half * t) * x0)  # noqa: E731
    assert check_flow_velocity(v, TURNING, law, PATH_TIMES)
    ve = SDES["ve"]
    rate = lambda t: ve.diffusion(t) ** 2 / (2 * ve.std(t))  # noqa: E731
    assert check_flow_velocity(lambda x0, e, t: flow_velocity(x0, e, 0.0, rate(t)), ve.level, law, PATH_TIMES)


@pytest.mark.parametrize(
    ("path", "wrong", "sentence"),
    [
        (STRAIGHT, lambda x0, e, t: x0 - e, "the sign is wrong: time runs from noise to data; or: it is x_0 − ε"),
        (STRAIGHT, lambda x0, e, t: -x0 - e, "the part of ε has the wrong sign"),
        (STRAIGHT, lambda x0, e, t: e, "the part of x_0 is missing"),
        (STRAIGHT, lambda x0, e, t: (1 - t) * e - t * x0, "it is v = scale · ε − std · x_0"),
        (STRAIGHT, lambda x0, e, t: e - x0.mean(axis=1, keepdims=True), "expected"),
        (STRAIGHT, lambda x0, e, t: e - np.clip(x0, -10, 10), "expected"),
        (STRAIGHT, lambda x0, e, t: (1 + 1e-7) * (e - x0), "expected"),
        (
            TURNING,
            lambda x0, e, t: 0.5 * np.pi * (np.cos(h := 0.5 * np.pi * np.ravel(t)[0]) * e - np.sin(h) * x0),
            "t as an array",
        ),
        (TURNING, lambda x0, e, t: e - x0, "it is ε − x_0, which is right for scale = 1 − t"),
    ],
)
def test_wrong_velocities_fail(path, wrong, sentence):
    named(check_flow_velocity(wrong, path, PLANE, PATH_TIMES), sentence)


@pytest.mark.equation("flow-matching")
def test_conditional_and_marginal_flow_matching_have_the_same_gradient_and_differ_by_a_constant():
    """Losses of v(x) = A x + c towards the target of a pair, and towards its mean given x_t, by quadrature."""
    t, law = 0.4, LINE
    nodes, weights = gauss_hermite(60, 2)
    x0 = np.concatenate(
        [m + np.sqrt(C) * nodes[:, :1] for m, C in zip(law.means[:, 0], law.covariances[:, 0, 0], strict=True)]
    )
    noise, mass = np.tile(nodes[:, 1:], (2, 1)), np.outer(law.weights, weights).ravel()
    x_t = (1 - t) * x0 + t * noise
    clean = law.denoise(x_t, 1 - t, t)
    conditional, marginal = noise - x0, flow_velocity(clean, (x_t - (1 - t) * clean) / t, -1.0, 1.0)

    def loss_and_gradient(A, c, target):
        error = A * x_t + c - target
        return mass @ (error**2)[:, 0], 2 * mass @ (error * x_t)[:, 0], 2 * mass @ error[:, 0]

    first, second = [
        np.array(loss_and_gradient(A, c, conditional)) - np.array(loss_and_gradient(A, c, marginal))
        for A, c in ((0.3, -0.2), (-1.1, 0.7))
    ]
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)
    np.testing.assert_allclose(first[1:], 0.0, atol=1e-6)
    assert first[0] > 0.1


def test_velocities_keep_the_dtype_and_refuse_broadcasting():
    x = X.astype(np.float32)
    assert flow_velocity(x, x, np.full(5, -1.0), 1.0).dtype == np.float32
    with pytest.raises(ValueError, match="noise must have the shape of x0"):
        flow_velocity(X, X[:1], -1.0, 1.0)
    with pytest.raises(ValueError, match="one number a row"):
        flow_velocity(X, X, np.ones(3), 1.0)


# --- EDM --------------------------------------------------------------------------------------------------------------


@pytest.mark.equation("edm-preconditioning")
@pytest.mark.parametrize("data_std", [0.5, 1.0, 0.03, 30.0])
def test_preconditioning_is_the_regression(data_std):
    assert check_edm_coefficients(lambda sigma: edm_coefficients(sigma, data_std), data_std)


@pytest.mark.equation("edm-preconditioning")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda c, s: (c.c_skip, c.c_out, c.c_in, 1 / s**2), "1/σ², that of noise prediction"),
        (lambda c, s: (c.c_skip, c.c_out, c.c_in, np.ones_like(s)), "the weight is 1"),
        (lambda c, s: (c.c_skip, c.c_out, c.c_in, c.c_out**2), "not 1/c_out²"),
        (lambda c, s: (c.c_skip, c.c_out**2, c.c_in, c.weight), "c_out is a variance"),
        (lambda c, s: (c.c_skip, c.c_out, np.ones_like(s), c.weight), "c_in is missing"),
        (lambda c, s: (c.c_skip, c.c_out, 1 / np.sqrt(1 + s**2), c.weight), "c_in is 1/√(1 + σ²)"),
        (lambda c, s: (1 - c.c_skip, c.c_out, c.c_in, c.weight), "c_skip is σ²/(σ² + s²)"),
        (lambda c, s: (c.c_skip, c.c_out, c.c_in, c.weight * (1 + 1e-12)), "expected"),
    ],
)
def test_wrong_preconditioning_fails(wrong, sentence):
    named(check_edm_coefficients(lambda sigma: wrong(edm_coefficients(sigma), sigma)), sentence)


def test_with_data_of_variance_1_the_target_is_minus_v():
    schedule, eps = NoiseSchedule.linear(10), X[::-1]
    for t in (1, 5, 10):
        scale, std = schedule.alpha_bar[t], schedule.beta_bar[t]
        y = X + std / scale * eps
        c = edm_coefficients(std / scale, 1.0)
        v = eps_to_prediction(schedule, t, scale * y, eps, "v")
        np.testing.assert_allclose((X - c.c_skip * y) / c.c_out, -v, rtol=0, atol=1e-12)


def test_eulers_step_in_sigma_is_ddim():
    schedule, eps = NoiseSchedule.cosine(20), X[::-1]
    for t, s in (20, 11), (11, 3), (3, 1):
        scale, sigma = schedule.alpha_bar, schedule.beta_bar / schedule.alpha_bar
        euler = scale[s] * (X / scale[t] + (sigma[s] - sigma[t]) * eps)
        np.testing.assert_allclose(euler, ddim_step(schedule, t, s, X, eps), rtol=0, atol=3e-13)


def test_score_and_denoiser_belong_together():
    for scale, std in LEVELS.tolist():
        x = 2 * X[:, :2]
        score = denoiser_to_score(x, PLANE.denoise(x, scale, std), scale, std)
        np.testing.assert_allclose(score, PLANE.diffuse(scale, std).score(x), rtol=1e-10, atol=1e-10)
    assert denoiser_to_score(X.astype(np.float32), X.astype(np.float32), 0.5, np.full(5, 0.5)).dtype == np.float32
    with pytest.raises(ValueError, match="std must be positive"):
        denoiser_to_score(X, X, 1.0, 0.0)
    with pytest.raises(ValueError, match="x0_hat must have the shape of x_t"):
        denoiser_to_score(X, X[:1], 1.0, 1.0)


def test_preconditioning_keeps_dtype_and_shape_and_refuses_sigma_0():
    assert {part.dtype for part in edm_coefficients(np.ones((4, 1), np.float32))} == {np.dtype(np.float32)}
    assert {part.shape for part in edm_coefficients(np.ones((4, 1)))} == {(4, 1)}
    with pytest.raises(ValueError, match="sigma must be positive"):
        edm_coefficients([1.0, 0.0])
    with pytest.raises(ValueError, match="data_std must be in"):
        edm_coefficients(1.0, 0.0)


@pytest.mark.equation("edm-noise-levels")
@pytest.mark.parametrize("settings", [(0.002, 80.0, 7.0), (0.01, 50.0, 3.0), (1e-3, 1e3, 1.0), (0.5, 2.0, 100.0)])
def test_the_levels_of_karras_pass_with_and_without_a_last_zero(settings):
    assert check_sigma_grid(edm_sigmas, *settings)
    assert check_sigma_grid(lambda *a: np.append(edm_sigmas(*a), 0.0), *settings)
    low, high, rho = settings
    ends = high ** (1 / rho), low ** (1 / rho)
    assert check_sigma_grid(lambda n, *a: (ends[0] + np.arange(n) / (n - 1) * (ends[1] - ends[0])) ** rho, *settings)
    assert edm_sigmas(7, *settings)[[0, -1]] == pytest.approx(settings[1::-1], rel=1e-12)


@pytest.mark.equation("edm-noise-levels")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda n, low, high, rho: edm_sigmas(n, low, high, rho)[::-1], "the levels rise"),
        (lambda n, low, high, rho: np.geomspace(high, low, n), "evenly spaced in log σ"),
        (lambda n, low, high, rho: np.linspace(high, low, n), "evenly spaced in σ"),
        (lambda n, low, high, rho: edm_sigmas(n, low, high, 1 / rho), "ρ and 1/ρ are swapped"),
        (lambda n, low, high, rho: edm_sigmas(n, low, high, rho + 1e-9), "expected"),
    ],
)
def test_wrong_levels_fail(wrong, sentence):
    named(check_sigma_grid(wrong), sentence)


def test_levels_need_two_ends_in_order():
    with pytest.raises(ValueError, match="sigma_max must be in"):
        edm_sigmas(4, 2.0, 1.0)
    with pytest.raises(ValueError, match="n_levels must be at least 2"):
        edm_sigmas(1)
    with pytest.raises(ValueError, match="rho must be in"):
        edm_sigmas(4, rho=0.0)


# --- exponential steps ------------------------------------------------------------------------------------------------


def ours(stochasticity, multistep):
    def step(x, x0_hat, x0_last, levels, noise):
        before, level, after = (tuple(row) for row in levels.tolist())
        last = (x0_last, log_ratio_step(before, level)) if multistep else None
        return exponential_step(x, x0_hat, level, after, stochasticity, noise, last)

    return step


@pytest.mark.equation("exponential-step")
@pytest.mark.parametrize("c", [0.0, 0.3, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("multistep", [False, True])
def test_exponential_steps_pass(c, multistep):
    assert check_exponential_step(ours(c, multistep), c, multistep)


def dpm_solver_pp_2m(x, x0_hat, x0_last, levels, noise):
    """The formula of Lu et al. (2022), with r = h_last/h."""
    (a_0, b_0), (a_t, b_t), (a_s, b_s) = levels
    lambdas = np.log([a_0 / b_0, a_t / b_t, a_s / b_s])
    h_last, h = np.diff(lambdas)
    r = h_last / h
    D = (1 + 1 / (2 * r)) * x0_hat - 1 / (2 * r) * x0_last
    return (b_s / b_t) * x - a_s * np.expm1(-h) * D


@pytest.mark.equation("exponential-step")
def test_the_published_formula_of_the_multistep_solver_passes():
    assert check_exponential_step(dpm_solver_pp_2m)


@pytest.mark.parametrize(
    ("c", "wrong", "sentence"),
    [
        (0.0, ours(0.0, False), "the denoiser is not extrapolated"),
        (0.7, ours(0.0, True), "expected"),
        (0.7, lambda *a: ours(0.7, True)(*a[:4], 0 * a[4]), "there is no noise"),
        (
            1.0,
            lambda x, d, p, levels, z: ours(1.0, True)(x, d, 2 * d - p, levels, z),
            "the extrapolation has the wrong sign",
        ),
        (1.0, lambda x, d, p, levels, z: ours(1.0, True)(x, d, 2 * p - d, levels, z), "the factor ½"),
        (0.0, lambda x, d, p, levels, z: ours(0.0, True)(np.clip(x, -2, 2), d, p, levels, z), "expected"),
        (0.0, lambda x, d, p, levels, z: (1 + 1e-9) * ours(0.0, True)(x, d, p, levels, z), "expected"),
        (0.7, lambda x, d, p, levels, z: ours(0.7, True)(x, d, p, levels, z[:, :1] + 0 * z), "expected"),
    ],
)
def test_wrong_exponential_steps_fail(c, wrong, sentence):
    named(check_exponential_step(wrong, c), sentence)


@pytest.mark.equation("exponential-step")
def test_without_noise_the_step_is_ddim_and_with_all_of_it_the_posterior():
    schedule = NoiseSchedule.linear(12)
    levels = [(float(a), float(b)) for a, b in zip(schedule.alpha_bar, schedule.beta_bar, strict=True)]
    eps, z = X[::-1], np.cos(X)
    for t, s in (12, 11), (12, 4), (5, 4), (2, 1), (3, 0):
        x0_hat = (X - schedule.beta_bar[t] * eps) / schedule.alpha_bar[t]
        step = exponential_step(X, x0_hat, levels[t], levels[s])
        np.testing.assert_allclose(step, ddim_step(schedule, t, s, X, eps), rtol=0, atol=1e-12)
        full = exponential_step(X, x0_hat, levels[t], levels[s], 1.0, z)
        np.testing.assert_allclose(full, ddim_step(schedule, t, s, X, eps, z, eta=1.0), rtol=0, atol=1e-12)
    mean, variance = q_posterior(schedule, 7, X, x0_hat)
    drawn = exponential_step(X, x0_hat, levels[7], levels[6], 1.0, z)
    np.testing.assert_allclose(drawn, mean + np.sqrt(variance) * z, rtol=0, atol=1e-12)


def test_steps_to_clean_data_and_bad_arguments():
    x = X.astype(np.float32)
    last = (x, 0.3)
    assert exponential_step(x, 2 * x, (0.9, 0.4), (1.0, 0.0), 1.0, x, last) == pytest.approx(2 * x)
    assert exponential_step(x, x, (0.5, 0.8), (0.9, 0.4), 1.0, x, last).dtype == np.float32
    assert log_ratio_step((0.9, 0.4), (1.0, 0.0)) == np.inf
    with pytest.raises(ValueError, match="must be positive and fall from level to next_level"):
        exponential_step(X, X, (0.9, 0.4), (0.5, 0.8))
    with pytest.raises(ValueError, match="noise is needed for stochasticity > 0"):
        exponential_step(X, X, (0.5, 0.8), (0.9, 0.4), 1.0)
    with pytest.raises(ValueError, match="noise must have the shape of x"):
        exponential_step(X, X, (0.5, 0.8), (0.9, 0.4), 1.0, X[:1])
    with pytest.raises(ValueError, match="x0_hat must have the shape of x"):
        exponential_step(X, X[:1], (0.5, 0.8), (0.9, 0.4))
    with pytest.raises(ValueError, match="x0_hat of the last step must have the shape of x"):
        exponential_step(X, X, (0.5, 0.8), (0.9, 0.4), last=(X[:1], 0.3))
    with pytest.raises(ValueError, match=r"levels must have shape \(n\+1, 2\)"):
        next(exponential_sampler(PLANE.denoise, X, [0.1, 0.2]))
    with pytest.raises(ValueError, match="rng is needed"):
        next(exponential_sampler(PLANE.denoise, X, LEVELS, stochasticity=1.0))


# --- orders -----------------------------------------------------------------------------------------------------------


class Given(np.random.Generator):
    """A random generator that returns given noise."""

    def __init__(self, noise):
        super().__init__(np.random.PCG64(0))
        self.rows = iter(noise)

    def standard_normal(self, shape, dtype):
        return next(self.rows)


def through(multistep, c=0.0):
    def sample(denoise, x, levels, noise=()):
        *_, (_, out) = exponential_sampler(denoise, x, levels, Given(noise), c, multistep)
        return out

    return sample


def flow_of(solver, sde):
    """A solver of the package on a VP process, as a sampler in the denoiser's form."""

    def sample(denoise, x, levels, noise=None):
        times = sde.time_at(2 * np.log(levels[:, 0] / levels[:, 1]))

        def score(x, t):
            scale, std = sde.level(t)
            return denoiser_to_score(x, denoise(x, scale, std), scale, std)

        *_, (_, out) = solver(sde, score, x, times, noise)
        return out

    return sample


HEUN = flow_of(lambda sde, score, x, times, noise: heun(sde, score, x, times), VP())
EULER = flow_of(lambda sde, score, x, times, noise: euler_maruyama(sde, score, x, times, stochasticity=0.0), VP())
EULER_MARUYAMA = flow_of(lambda sde, score, x, times, noise: euler_maruyama(sde, score, x, times, noise=noise), VP())
LATE = flow_of(lambda sde, score, x, times, noise: heun(sde, lambda y, t: score(y, 0.97 * t), x, times), VP())
SHORT = lambda u: (np.exp(-2 * (1 - u)), np.sqrt(-np.expm1(-4 * (1 - 0.98 * u))))  # noqa: E731
FLOW = lambda u: (0.02 + 0.93 * u, 0.98 - 0.93 * u)  # noqa: E731


@pytest.mark.equation("flow-order")
@by_law
@pytest.mark.parametrize("path", [None, FLOW], ids=["even in log-SNR", "flow matching"])
def test_ddim_has_order_1_and_the_multistep_solver_order_2(law, path):
    assert check_flow_order(through(True), law, 2.0, path)
    assert check_flow_order(through(False), law, 1.0, path)
    assert not check_flow_order(through(False), law, 2.0, path)


def test_heuns_method_has_order_2_and_eulers_order_1():
    assert check_flow_order(HEUN, PLANE, 2.0, n_steps=60)
    assert check_flow_order(EULER, PLANE, 1.0, n_steps=60)
    assert not check_flow_order(EULER, PLANE, 2.0, n_steps=60)


@pytest.mark.parametrize(
    "wrong",
    [
        LATE,
        lambda d, x, levels: through(True)(lambda y, a, b: np.clip(d(y, a, b), -1, 1), x, levels),
        lambda d, x, levels: through(True)(lambda y, a, b: d(y, a, 1.01 * b), x, levels),
    ],
    ids=["score at another time", "clipped", "another level"],
)
def test_solvers_of_another_flow_have_no_order(wrong):
    assert not check_flow_order(wrong, PLANE, 1.0)


@pytest.mark.equation("flow-order")
def test_a_mistake_at_one_end_costs_an_order():
    def a_level_short(denoise, x, levels):
        return through(True)(denoise, x, levels[:-1])

    assert check_flow_order(a_level_short, PLANE, 1.0)
    assert not check_flow_order(a_level_short, PLANE, 2.0)


MEAN, COV = np.array([0.5, -1.0]), np.array([[0.5, 0.2], [0.2, 0.3]])


@pytest.mark.equation("weak-order")
@pytest.mark.parametrize("c", [0.4, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("multistep", [False, True])
def test_stochastic_forms_converge_in_mean_and_covariance(c, multistep):
    assert check_weak_order(through(multistep, c), MEAN, COV, 1.0)
    assert check_weak_order(through(multistep, c), np.append(MEAN, 0.1), np.eye(3) * 0.3 + 0.1, 1.0, FLOW)


@pytest.mark.equation("euler-maruyama")
def test_euler_maruyama_has_weak_order_1():
    assert check_weak_order(EULER_MARUYAMA, MEAN, COV, 1.0, n_steps=50)
    assert not check_weak_order(EULER_MARUYAMA, MEAN, COV, 2.0, n_steps=50)


def shifted(scale=1.0, shared=False, last=True):
    def sample(denoise, x, levels, noise):
        z = scale * noise
        z = z[:, :, :1] + 0 * z if shared else z
        z = z if last else np.concatenate([z[:-1], 0 * z[-1:]])
        return through(True, 1.0)(denoise, x, levels, z)

    return sample


@pytest.mark.equation("weak-order")
@pytest.mark.parametrize(
    "wrong",
    [shifted(1.02), shifted(0.0), shifted(shared=True), shifted(-1.2)],
    ids=["x 1.02", "none", "shared", "x -1.2"],
)
def test_wrong_noise_has_no_weak_order(wrong):
    assert not check_weak_order(wrong, MEAN, COV, 1.0)


# --- information and divergence ---------------------------------------------------------------------------------------


def same_ends(sde, t_min):
    """A VE process with the log-SNR of another process at both ends."""
    low, high = sde.log_snr(np.array([sde.horizon, t_min])).tolist()
    end = float(VE(0.1, 9.0).time_at(low))
    ve = VE(0.1, 0.1 * 90**end, end)
    return ve, float(ve.time_at(high))


INFORMED = [(SDES["vp"], 0.1), same_ends(SDES["vp"], 0.1), (SDES["sub-vp"], 0.2)]


@pytest.mark.equation("i-mmse")
def test_half_the_integral_of_the_least_loss_is_the_information_whatever_the_schedule():
    result = check_mutual_information(mutual_information, INFORMED, [LINE, NARROW])
    assert result
    np.testing.assert_allclose(result.left[0], result.left[1], rtol=1e-12)


@pytest.mark.equation("i-mmse")
def test_the_information_of_a_gaussian_is_half_a_logarithm():
    law, sde = Mixture([1.0], [[0.4]], [[[0.7]]]), SDES["vp"]
    loss = lambda t: (lambda a, b: 0.7 * a**2 / (0.7 * a**2 + b**2))(*sde.level(t))  # noqa: E731
    share = [0.5 * np.log1p(0.7 * np.exp(sde.log_snr(t))) for t in (0.05, sde.horizon)]
    assert mutual_information(sde, loss, 0.05) == pytest.approx(share[0] - share[1], rel=1e-12)
    assert law.dimension == 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda sde, loss, t: 2 * mutual_information(sde, loss, t), "the ½ is missing"),
        (lambda sde, loss, t: 0.5 * mutual_information(sde, loss, t), "it is half"),
        (lambda sde, loss, t: mutual_information(sde, loss, 1.01 * t), "expected"),
        (lambda sde, loss, t: mutual_information(sde, loss, t, 4), "expected"),
        (lambda sde, loss, t: mutual_information(sde, lambda u: loss(u) * (1 + 1e-9), t), "expected"),
    ],
)
def test_wrong_information_fails(wrong, sentence):
    named(check_mutual_information(wrong, INFORMED, [LINE, NARROW]), sentence)


def test_code_that_integrates_with_fewer_digits_passes_at_1e_5():
    def trapezoid(sde, loss, t_min):
        times = np.linspace(t_min, sde.horizon, 2000)
        rates = [loss(float(t)) * (sde.diffusion(t) / sde.std(t)) ** 2 for t in times]
        return 0.25 * (times[1] - times[0]) * (2 * np.sum(rates) - rates[0] - rates[-1])

    check = check_mutual_information(trapezoid, INFORMED[:1], [LINE])
    assert not check
    assert check.at(1e-5)


def test_information_needs_a_positive_t_min():
    with pytest.raises(ValueError, match="t_min must be in"):
        mutual_information(VP(), lambda t: 1.0, 0.0)


OTHERS = {"line": LINE, "wide": Mixture([1.0], [[0.2]], [[[0.8]]]), "narrow": NARROW}


@pytest.mark.equation("de-bruijn")
@pytest.mark.parametrize("p", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("q", OTHERS.values(), ids=OTHERS)
@by_sde
def test_de_bruijns_rate_of_any_two_laws(sde, p, q):
    assert check_kl_rate(lambda t: kl_rate(sde, p, q, t), sde, p, q, times_of(sde)[1:])


def test_de_bruijns_rate_in_the_plane_and_its_integral():
    sde, q = SDES["vp"], Mixture([1.0], [[0.3, 0.1]], [[[0.9, -0.2], [-0.2, 0.8]]])
    assert check_kl_rate(lambda t: kl_rate(sde, PLANE, q, t), sde, PLANE, q, np.array([0.3, 1.2]))
    nodes, weights = np.polynomial.legendre.leggauss(30)
    a, b = 0.2, 1.7
    times = 0.5 * (a + b) + 0.5 * (b - a) * nodes
    wide = OTHERS["wide"]
    total = 0.5 * (b - a) * weights @ [kl_rate(sde, LINE, wide, t) for t in times.tolist()]
    ends = [LINE.diffuse(*sde.level(t)).kl(wide.diffuse(*sde.level(t)).log_prob) for t in (b, a)]
    assert total == pytest.approx(ends[0] - ends[1], abs=1e-9)
    assert kl_rate(sde, LINE, LINE, 0.5) == 0.0


@pytest.mark.equation("de-bruijn")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda r, g: 2 * r, "the ½ is missing"),
        (lambda r, g: r / g, "g stands where g² belongs"),
        (lambda r, g: r / g**2, "g² is missing"),
        (lambda r, g: -r, "the sign is wrong"),
        (lambda r, g: r * (1 + 1e-7), "expected"),
    ],
)
def test_wrong_rates_fail(wrong, sentence):
    sde, q = SDES["vp"], OTHERS["wide"]
    rate = lambda t: wrong(kl_rate(sde, LINE, q, t), sde.diffusion(t))  # noqa: E731
    named(check_kl_rate(rate, sde, LINE, q, np.array([0.2, 0.7, 1.5])), sentence)


# --- second moments and score fields ----------------------------------------------------------------------------------


@pytest.mark.equation("tweedie-covariance")
@by_law
def test_tweedies_covariance_of_the_exact_score(law):
    check = check_tweedie_covariance(lambda x, a, b: tweedie_covariance(law.diffuse(a, b).score, x, a, b), law, LEVELS)
    assert check
    closed = check_tweedie_covariance(
        lambda x, a, b: (b / a) ** 2 * (np.eye(law.dimension) + b**2 * law.diffuse(a, b).score_jacobian(x)), law, LEVELS
    )
    assert closed


def test_the_covariance_is_symmetric_and_positive_and_its_trace_the_least_loss():
    x = 3 * X[:, :2]
    for scale, std in LEVELS.tolist():
        C = tweedie_covariance(PLANE.diffuse(scale, std).score, x, scale, std)
        np.testing.assert_allclose(C, C.swapaxes(1, 2), rtol=0, atol=1e-9)
        assert np.linalg.eigvalsh(C).min() > 0
        least = PLANE.denoise_variance(x, scale, std)
        np.testing.assert_allclose(np.trace(C, axis1=1, axis2=2), least, rtol=1e-8)


def exact(x, a, b):
    return tweedie_covariance(PLANE.diffuse(a, b).score, x, a, b)


@pytest.mark.equation("tweedie-covariance")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda x, a, b: a**2 * exact(x, a, b), "scale is missing"),
        (lambda x, a, b: exact(x, a, b) * np.eye(2), "the Jacobian is taken as diagonal"),
        (lambda x, a, b: (b / a) ** 2 * b**2 * PLANE.diffuse(a, b).score_jacobian(x), "the identity is missing"),
        (lambda x, a, b: 2 * (b / a) ** 2 * np.eye(2) - exact(x, a, b), "the Jacobian has the wrong sign"),
        (lambda x, a, b: exact(x, a, b).mean(axis=0) + 0 * exact(x, a, b), "expected"),
        (lambda x, a, b: exact(x, a, b) + 1e-8 * np.eye(2), "expected"),
        (
            lambda x, a, b: (b / a) ** 2 * (np.eye(2) + b * PLANE.diffuse(a, b).score_jacobian(x)),
            "std stands where std²",
        ),
    ],
)
def test_wrong_covariances_fail(wrong, sentence):
    named(check_tweedie_covariance(wrong, PLANE, LEVELS), sentence)


def field(scale=0.6, std=0.7):
    return PLANE.diffuse(scale, std)


@pytest.mark.equation("conservative-score")
def test_exact_scores_are_conservative():
    for scale, std in LEVELS.tolist():
        assert check_conservative_score(PLANE.diffuse(scale, std).score, PLANE.diffuse(scale, std))
        clean = lambda x, a=scale, b=std: denoiser_to_score(x, PLANE.denoise(x, a, b), a, b)  # noqa: E731
        assert check_conservative_score(clean, PLANE.diffuse(scale, std))


@pytest.mark.equation("conservative-score")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda x: -field().score(x), "the score has the wrong sign"),
        (lambda x: field().score(x)[:, ::-1], "expected"),
        (lambda x: np.clip(field().score(x), -1, 1), "asymmetry"),
        (lambda x: denoiser_to_score(x, np.clip(PLANE.denoise(x, 0.6, 0.7), -1, 1), 0.6, 0.7), "asymmetry"),
        (lambda x: field().score(x) / np.linalg.norm(field().score(x), axis=1, keepdims=True), "asymmetry"),
        (lambda x: field().score(x) * (1 + 1e-7), "times the right value"),
        (lambda x: PLANE.score(x), "expected"),
        (lambda x: field().score(x) + 1e-6 * x @ np.array([[0.0, 1.0], [-1.0, 0.0]]), "asymmetry"),
    ],
)
def test_fields_that_are_no_score_fail(wrong, sentence):
    named(check_conservative_score(wrong, field()), sentence)


@pytest.mark.parametrize(("D", "spread"), [(5, 0.2), (8, 0.5), (16, 0.5)])
def test_float32_scores_of_sharp_mixtures_are_conservative(D, spread):
    """Differences that are wide enough for float32 do not see the symmetry of an exact score to 1e-5."""
    draw = np.random.default_rng(D)
    roots = draw.normal(size=(3, D, D)) * spread / np.sqrt(D)
    covariances = roots @ np.swapaxes(roots, 1, 2) + 0.3 * spread**2 * np.eye(D)
    law = Mixture(np.full(3, 1 / 3), draw.normal(size=(3, D)), covariances)
    turn = np.eye(D, k=1) * (np.arange(D) == 0)[:, None]
    turn = 0.01 / spread**2 * (turn - turn.T)

    def single(x):
        return law.score(x).astype(np.float32)

    assert check_conservative_score(single, law).at(1e-5)
    assert not check_conservative_score(lambda x: single(x) + (x @ turn).astype(np.float32), law).at(1e-5)
    assert not check_conservative_score(lambda x: np.clip(single(x), -3, 3), law).at(1e-5)


def test_in_space_the_asymmetry_is_seen():
    p = SPACE.diffuse(0.6, 0.7)
    assert check_conservative_score(p.score, p)
    R = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    named(check_conservative_score(lambda x: p.score(x) + 1e-6 * x @ R, p), "d = 0, e = 1")
    named(check_conservative_score(lambda x: np.clip(p.score(x), -1, 1), p), "asymmetry")
    with pytest.raises(ValueError, match="law must have two dimensions or more"):
        check_conservative_score(LINE.score, LINE)


# --- tilts ------------------------------------------------------------------------------------------------------------

LABEL = np.array([1.0, 0.2])
ROUND = Mixture([0.4, 0.6], [[-0.8, 0.3], [0.9, -0.4]], [0.6 * np.eye(2), [[0.7, 0.1], [0.1, 0.6]]])


def labelled(law, label):
    return Mixture(law.weights * label / (law.weights @ label), law.means, law.covariances)


def guided(law, label):
    def score(x, a, b, w):
        return (1 - w) * law.diffuse(a, b).score(x) + w * labelled(law, label).diffuse(a, b).score(x)

    return score


@pytest.mark.equation("tilt")
@pytest.mark.parametrize(
    ("law", "label"), [(LINE, LABEL), (NARROW, np.array([0.0, 0.7])), (ROUND, np.array([0.9, 0.3]))]
)
@pytest.mark.parametrize("w", [0.5, 3.0])
def test_tilted_scores_pass_and_guided_scores_do_not(law, label, w):
    levels = LEVELS[1:3] if law is ROUND else np.append(LEVELS, [[0.98, 0.2]], axis=0)
    tilted = lambda x, a, b, w: tilted_score(law, label, w, x, a, b)  # noqa: E731
    assert check_tilted_score(tilted, law, label, levels, w)
    named(check_tilted_score(guided(law, label), law, label, levels, w), "the guided score, which does not sample")


def test_guidance_samples_the_tilt_for_gaussians_of_equal_covariance_and_a_certain_label():
    """p(x | y) = N(1, 1) and p(x) = N(0, 1): the tilt is N(w, 1) at every level."""
    for scale, std in LEVELS.tolist():
        p, label = (Mixture([1.0], [[m]], [[[1.0]]]).diffuse(scale, std) for m in (0.0, 1.0))
        tilt, x = Mixture([1.0], [[3.0]], [[[1.0]]]).diffuse(scale, std), X[:, :1]
        np.testing.assert_allclose(-2 * p.score(x) + 3 * label.score(x), tilt.score(x), rtol=0, atol=1e-12)


@pytest.mark.equation("tilt")
def test_without_noise_the_guided_score_is_right():
    x, score = X[:, :1], guided(LINE, LABEL)
    gaps = [np.abs(tilted_score(LINE, LABEL, 3.0, x, 1.0, b) - score(x, 1.0, b, 3.0)).max() for b in (0.3, 0.1, 0.03)]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]


def test_tilts_need_a_label_and_a_weight():
    with pytest.raises(ValueError, match="p_label must be 2 numbers"):
        tilted_score(LINE, [1.0], 1.0, X[:, :1], 1.0, 1.0)
    with pytest.raises(ValueError, match="p_label must be 2 numbers"):
        tilted_score(LINE, [0.0, 0.0], 1.0, X[:, :1], 1.0, 1.0)
    with pytest.raises(ValueError, match="guidance must be in"):
        tilted_score(LINE, LABEL, -1.0, X[:, :1], 1.0, 1.0)
    with pytest.raises(ValueError, match="needs 1 or 2 dimensions"):
        tilted_score(SPACE, LABEL, 1.0, X, 1.0, 1.0)


# --- borders and defaults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: path_coefficients([0.5, 0.0], [0.1, 0.1], -1.0, 1.0), "scale must be positive"),
        (lambda: path_coefficients([0.5, 0.5], [0.1, 0.1], -1.0, [1.0, -1.0]), "std/scale must not fall"),
        (lambda: denoiser_to_score(X, X, 1.0, np.array([1.0, 1.0, 0.0, 1.0, 1.0])), "std must be positive"),
        (lambda: edm_sigmas(4, 0.0), "sigma_min must be in"),
        (lambda: edm_sigmas(4, 1.0, 1.0), "sigma_max must be in"),
        (lambda: log_ratio_step((0.5, 0.5), (0.7, 0.7)), "fall from level to next_level"),
        (lambda: log_ratio_step((0.5, 0.0), (0.7, 0.0)), "fall from level to next_level"),
        (lambda: log_ratio_step((0.0, 0.5), (0.7, 0.2)), "fall from level to next_level"),
        (lambda: log_ratio_step((0.5, 0.5), (-0.7, 0.2)), "fall from level to next_level"),
        (lambda: log_ratio_step((0.5, 0.5), (0.7, -0.2)), "fall from level to next_level"),
        (lambda: log_ratio_step((0.1, 0.5), (0.2, 0.9)), "ok"),
        (lambda: next(exponential_sampler(PLANE.denoise, X, [[0.1, 0.2]])), "levels must have shape"),
        (lambda: next(exponential_sampler(PLANE.denoise, X, np.ones((3, 3)))), "levels must have shape"),
        (lambda: next(exponential_sampler(PLANE.denoise, X, LEVELS, stochasticity=0.5)), "rng is needed"),
        (lambda: exponential_step(X, X, (0.5, 0.8), (0.9, 0.4), 0.5), "noise is needed"),
        (lambda: exponential_step(X, X, (0.5, 0.8), (0.9, 0.4), -1.0), "stochasticity must be in"),
        (lambda: tweedie_covariance(PLANE.score, X[:, :2], 1.0, 0.0), "std must be in"),
        (lambda: tweedie_covariance(PLANE.score, X[:, :2], 0.0, 1.0), "scale must be in"),
        (lambda: tweedie_covariance(PLANE.score, X[0], 1.0, 1.0), "x_t must have shape"),
        (lambda: tilted_score(LINE, LABEL, 1.0, X[:, :1], 1.0, 0.0), "std must be in"),
        (lambda: tilted_score(LINE, LABEL, 1.0, X[:, :1], 0.0, 1.0), "scale must be in"),
        (lambda: tilted_score(LINE, LABEL, 1.0, X, 1.0, 1.0), "x_t must have 1 columns"),
        (lambda: tilted_score(LINE, [1.5, 0.5], 1.0, X[:, :1], 1.0, 1.0), "p_label must be 2 numbers"),
        (lambda: tilted_score(LINE, [-0.5, 0.5], 1.0, X[:, :1], 1.0, 1.0), "p_label must be 2 numbers"),
    ],
)
def test_arguments_at_their_borders(call, message):
    if message == "ok":
        call()
    else:
        with pytest.raises(ValueError, match=message):
            call()


def test_defaults_and_what_the_sampler_yields():
    np.testing.assert_allclose(edm_sigmas(3), edm_sigmas(3, 0.002, 80.0, 7.0), rtol=0)
    np.testing.assert_allclose(edm_sigmas(18)[[0, -1]], [80.0, 0.002], rtol=1e-12)
    np.testing.assert_allclose(edm_coefficients(0.7), edm_coefficients(0.7, 0.5), rtol=0)
    levels = np.array([[0.1, 0.99], [0.5, 0.8], [0.9, 0.4], [1.0, 0.0]])
    x = X[:, :2].astype(np.float32)
    steps = list(exponential_sampler(lambda x, a, b: 0.5 * x, x, levels))
    assert [i for i, _ in steps] == [0, 1, 2, 3]
    twice = list(exponential_sampler(lambda x, a, b: 0.5 * x, x, levels, multistep=True))
    np.testing.assert_array_equal(steps[-1][1], twice[-1][1])
    drawn = list(exponential_sampler(lambda x, a, b: 0.5 * x, x, levels, np.random.default_rng(0), 1.0))
    assert {y.dtype for _, y in steps + drawn} == {np.dtype(np.float32)}


def test_the_entries_of_a_jacobian_are_in_the_order_that_is_stated():
    """Entry [n, d, e] contains ∂s_d/∂x_e, also for a field that is no gradient."""
    A = np.array([[1.0, 2.0], [-3.0, 0.5]])
    C = tweedie_covariance(lambda x: x @ A.T, X[:, :2], 0.5, 2.0)
    np.testing.assert_allclose(C, np.broadcast_to(16 * (np.eye(2) + 4 * A), C.shape), rtol=1e-10)


def test_tilts_are_accurate_where_the_noise_is_narrower_than_the_data():
    """At w = 1 the score is that of p(x | y), in closed form."""
    x = np.linspace(-1.5, 1.5, 7)[:, None]
    wide = Mixture(LINE.weights, 10 * LINE.means, 100 * np.ones((2, 1, 1)))
    for law in LINE, wide:
        for scale, std in (1.0, 0.05), (0.3, 0.02), (5.0, 0.05), (0.05, 1.0):
            exact = labelled(law, LABEL).diffuse(scale, std).score(scale * x)
            found = tilted_score(law, LABEL, 1.0, scale * x, scale, std)
            np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-8)
