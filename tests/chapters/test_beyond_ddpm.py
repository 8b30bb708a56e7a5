"""Beyond the deck: DDIM inversion, data processing, bounds of whole numbers, dequantisation; wrong twins fail."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from scratchgen import Mixture, NoiseSchedule
from scratchgen.conformance import (
    check_data_processing,
    check_ddim_inversion,
    check_dequantisation,
    check_discrete_bound,
)
from scratchgen.ddpm import ddim_inverse_step, ddim_step, dequantisation_cost, exact_elbo, negative_elbo, p_mean
from scratchgen.grading import ancestral_density
from scratchgen.likelihood import entropy_discrete, entropy_gaussian, level_values, softmax
from scratchgen.museum.planting import planted
from scratchgen.testing import schedules

X = np.sin(np.arange(1.0, 16)).reshape(5, 3)
SCHEDULES = {
    "five steps": NoiseSchedule([0.02, 0.1, 0.25, 0.4, 0.6]),
    "linear": NoiseSchedule.linear(1000),
    "Ho": NoiseSchedule.from_variances(np.linspace(1e-4, 0.02, 1000)),
    "cosine": NoiseSchedule.cosine(1000),
    "one step": NoiseSchedule([0.3]),
    "tiny": NoiseSchedule(np.full(20, 1e-12)),
}
FIVE = SCHEDULES["five steps"]


def named(check, sentence):
    assert not check
    assert sentence in check.diagnosis, check


# --- DDIM inversion ---------------------------------------------------------------------------------------------------


@pytest.mark.equation("ddim-inversion")
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_inverse_steps_pass_in_two_codings(schedule):
    assert check_ddim_inversion(lambda s, t, x, eps: ddim_inverse_step(schedule, s, t, x, eps), schedule)

    def by_x0(s, t, x, eps):  # takes numbers only
        x0 = (x - float(schedule.beta_bar[s]) * eps) / float(schedule.alpha_bar[s])
        return float(schedule.alpha_bar[t]) * x0 + float(schedule.beta_bar[t]) * eps

    assert check_ddim_inversion(by_x0, schedule)


@pytest.mark.equation("ddim-inversion")
@given(schedules())
def test_the_inverse_step_undoes_ddim_for_the_same_noise(schedule):
    t, eps = schedule.T, np.cos(X)
    s = t // 2
    x_t = schedule.alpha_bar[t] * X + schedule.beta_bar[t] * eps
    x_s = ddim_step(schedule, t, s, x_t, eps)
    scale = 1 + np.abs(x_t).max() / schedule.alpha_bar[t]
    np.testing.assert_allclose(ddim_inverse_step(schedule, s, t, x_s, eps), x_t, rtol=0, atol=1e-12 * scale)


def test_the_error_of_a_round_trip_with_a_network_is_of_second_order_in_the_step():
    """The encoder takes ε̂ at x_s, the sampler at x_t: errors of one step fall by 4 when the step is halved."""
    law = Mixture([0.4, 0.6], [[-1.0], [1.0]], [[[0.2]], [[0.3]]])
    errors = []
    for T in (100, 200, 400):
        schedule, s, x = NoiseSchedule.linear(T), T // 2, X[:, :1]

        def eps_hat(x, t, schedule=schedule):
            scale, std = float(schedule.alpha_bar[t]), float(schedule.beta_bar[t])
            return -std * law.diffuse(scale, std).score(x)

        x_t = ddim_inverse_step(schedule, s, s + 1, x, eps_hat(x, s))
        errors.append(np.abs(ddim_step(schedule, s + 1, s, x_t, eps_hat(x_t, s + 1)) - x).max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            lambda a, b, s, t, x, e: a[t] / a[s] * x + np.sqrt(b[t] ** 2 - (a[t] / a[s] * b[s]) ** 2) * e,
            "adds fresh noise",
        ),
        (lambda a, b, s, t, x, e: a[t] * x + b[t] * e, "the noise of x_s is not removed"),
        (lambda a, b, s, t, x, e: a[t] * (x - b[s] * e) + b[t] * e, "x̂_0 is not divided by ᾱ_s"),
        (
            lambda a, b, s, t, x, e: a[t - 1] / a[s - 1] * x + (b[t - 1] - a[t - 1] / a[s - 1] * b[s - 1]) * e,
            "expected",
        ),
        (
            lambda a, b, s, t, x, e: a[t] / a[s] * x + (b[t] - a[t] / a[s] * b[s]) * e[:, :1],
            "all dimensions use ε̂ of the first dimension",
        ),
        (lambda a, b, s, t, x, e: a[s] / a[t] * x + (b[s] - a[s] / a[t] * b[t]) * e, "the DDIM step from t down to s"),
        (lambda a, b, s, t, x, e: a[t] / a[s] * x + (b[t] - a[t] / a[s] * b[s]) * e.mean(axis=0), "expected"),
        (lambda a, b, s, t, x, e: (a[t] / a[s] * x + (b[t] - a[t] / a[s] * b[s]) * e) * (1 + 1e-12), "expected"),
        (lambda a, b, s, t, x, e: a[t] / a[s] * np.clip(x, -1, 1) + (b[t] - a[t] / a[s] * b[s]) * e, "expected"),
    ],
)
def test_wrong_inverse_steps_fail(wrong, sentence):
    a, b = FIVE.alpha_bar, FIVE.beta_bar
    named(check_ddim_inversion(lambda s, t, x, eps: wrong(a, b, s, t, x, eps), FIVE), sentence)


def test_arrays_of_steps_are_checked_where_the_code_takes_them():
    def first_only(s, t, x, eps):
        s, t = np.atleast_1d(s)[0], np.atleast_1d(t)[0]
        return ddim_inverse_step(FIVE, int(s), int(t), x, eps)

    named(check_ddim_inversion(first_only, FIVE), "t as an array")
    steps, eps = np.array([0, 1, 2, 3, 4]), np.cos(X)
    together = ddim_inverse_step(FIVE, steps, steps + 1, X, eps)
    for row, s in enumerate(steps.tolist()):
        np.testing.assert_array_equal(together[[row]], ddim_inverse_step(FIVE, s, s + 1, X[[row]], eps[[row]]))


def test_inverse_steps_keep_the_dtype_and_refuse_what_is_no_step_upwards():
    assert ddim_inverse_step(FIVE, 0, 3, X.astype(np.float32), X.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="t must be above s"):
        ddim_inverse_step(FIVE, 3, 3, X, X)
    with pytest.raises(ValueError, match=r"t must be in 1\.\.5"):
        ddim_inverse_step(FIVE, 3, 6, X, X)
    with pytest.raises(ValueError, match=r"s must be in 0\.\.5"):
        ddim_inverse_step(FIVE, -1, 3, X, X)
    with pytest.raises(ValueError, match="t must be above s"):
        ddim_inverse_step(FIVE, np.array([0, 1, 2, 3, 3]), np.full(5, 3), X, X)
    with pytest.raises(ValueError, match="eps_hat must have the shape of x_s"):
        ddim_inverse_step(FIVE, 0, 1, X, X[:1])


# --- data processing --------------------------------------------------------------------------------------------------


@pytest.mark.equation("data-processing")
@pytest.mark.parametrize("schedule", [FIVE, NoiseSchedule.linear(20), NoiseSchedule([0.3])], ids=["5", "20", "1"])
def test_the_exact_density_of_the_sampler_passes(schedule):
    check = check_data_processing(lambda eps_hat, v: ancestral_density(schedule, eps_hat, 1, v)[:2], schedule)
    assert check
    assert check.left[-1] == pytest.approx(0.0, abs=1e-9)  # the equality case


def on_a_grid(schedule, sigma_squared, eps_hat, late=0, last=True, prior=1.0, points=None):
    """A transfer operator of its own."""
    points = np.linspace(-14, 14, 561)[:, None] if points is None else points
    cell, density = points[1, 0] - points[0, 0], stats.norm.pdf(points[:, 0], scale=prior)
    for t in range(schedule.T, 0, -1):
        if t == 1 and not last:
            sigma_squared = sigma_squared * np.append([1, 1e-2], np.ones(schedule.T - 1))
        mean = p_mean(schedule, t, points, eps_hat(points, max(t - late, 1)))[:, 0]
        kernel = np.exp(-0.5 * (points - mean) ** 2 / sigma_squared[t]) / np.sqrt(2 * np.pi * sigma_squared[t])
        density = cell * kernel @ density
    return points, density


def test_a_users_own_transfer_operator_passes():
    assert check_data_processing(lambda eps_hat, v: on_a_grid(FIVE, v, eps_hat), FIVE)


@pytest.mark.parametrize(
    "options", [{"late": 1}, {"last": False}, {"prior": 1.01}, {"points": np.linspace(-2, 2, 201)[:, None]}]
)
def test_densities_of_other_samplers_fail(options):
    assert not check_data_processing(lambda eps_hat, v: on_a_grid(FIVE, v, eps_hat, **options), FIVE)


@pytest.mark.equation("data-processing")
@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3])
def test_kl_of_the_sampler_is_at_most_the_bound_minus_the_entropy(factor):
    """Data N(0, 1) and ε̂ = factor · E[ε | x_t]: equality for the exact ε̂ and σ_t² = β_t² only."""
    points, density = on_a_grid(FIVE, FIVE.beta**2, lambda x, t: factor * FIVE.beta_bar[t] * x)
    log_p = stats.norm.logpdf(points[:, 0])
    kl = (points[1, 0] - points[0, 0]) * np.exp(log_p) @ (log_p - np.log(density))
    noise_loss = 1 - (2 * factor - factor**2) * FIVE.beta_bar**2
    kl_of_paths = negative_elbo(FIVE, noise_loss, 1.0, 1) - entropy_gaussian(np.eye(1))
    assert kl == pytest.approx(kl_of_paths, abs=1e-9) if factor == 1.0 else kl < 0.9 * kl_of_paths


# --- whole numbers ----------------------------------------------------------------------------------------------------


def ours(schedule, x0, eps_hat, table, n_levels):
    return exact_elbo(schedule, x0, eps_hat, table, n_levels)


@pytest.mark.equation("level-bound")
@pytest.mark.parametrize("n_levels", [2, 3, 5])
def test_the_elbo_of_whole_numbers_passes(n_levels):
    assert check_discrete_bound(ours, n_levels)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda s, x, e, v, n: -ours(s, x, e, v, n), "the bound with the sign of a loss"),
        (lambda s, x, e, v, n: exact_elbo(s, x, e, v), "the density of x_0 stands where"),
        (lambda s, x, e, v, n: exact_elbo(s, x, e, "beta", n), "expected"),
        (lambda s, x, e, v, n: ours(s, x, lambda y, t: e(y, max(t - 1, 1)), v, n), "expected"),
        (lambda s, x, e, v, n: ours(s, x, e, v, 2 * n - 1), "expected"),
        (lambda s, x, e, v, n: ours(s, x, e, v, n).mean() + 0 * x[:, 0], "expected"),
        (lambda s, x, e, v, n: exact_elbo(s, x, e, v, n, 5), "expected"),
        (lambda s, x, e, v, n: ours(s, x, e, v, n) / x.shape[1], "expected"),
        (lambda s, x, e, v, n: ours(s, x, e, v, n) * (1 + 1e-7), "expected"),
    ],
)
def test_wrong_bounds_of_whole_numbers_fail(wrong, sentence):
    named(check_discrete_bound(wrong), sentence)


@pytest.mark.equation("level-bound")
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 2.0])
def test_bounds_of_all_whole_numbers_sum_to_at_most_1_and_exceed_every_entropy(factor):
    """For any ε̂."""
    levels = level_values(3)
    x0, schedule = np.array(list(product(levels, levels))), NoiseSchedule([0.02, 0.3, 0.7])
    eps_hat = lambda x, t: factor * x + 0.4 * np.tanh(x[:, ::-1] - t)  # noqa: E731
    table = np.array([0.0, 1e-3, 0.3, 0.7])
    bound = exact_elbo(schedule, x0, eps_hat, table, 3, 60)
    assert np.exp(bound).sum() <= 1
    for seed in range(20):
        P = softmax(3 * np.random.default_rng(seed).standard_normal(9))
        assert -P @ bound >= entropy_discrete(P)


def test_a_chain_that_forgets_has_the_table_of_its_decoder():
    levels = level_values(4)
    x0, schedule = np.array(list(product(levels, levels))), NoiseSchedule([1 - 1e-14])
    eps_hat = lambda x, t: x / schedule.beta_bar[t]  # noqa: E731  # x̂_0 = 0
    bound = exact_elbo(schedule, x0, eps_hat, np.array([0.0, 0.4]), 4)
    assert np.exp(bound).sum() == pytest.approx(1, abs=1e-7)
    law = np.diff(stats.norm.cdf(np.array([-np.inf, -2 / 3, 0.0, 2 / 3, np.inf]) / 0.4**0.5))
    np.testing.assert_allclose(np.exp(bound).reshape(4, 4), np.outer(law, law), rtol=1e-6)
    assert np.exp(exact_elbo(schedule, x0, eps_hat, np.array([0.0, 0.05]))).sum() > 1  # a density in place of the mass


def test_the_elbo_of_real_numbers_is_exact_for_gaussian_data():
    """Data N(0, 1), exact ε̂ and σ_t² = β_t²: every reverse step is exact, and the ELBO is log N(x; 0, 1)."""
    eps_hat = lambda x, t: FIVE.beta_bar[t] * x  # noqa: E731
    bound = exact_elbo(FIVE, X, eps_hat, "beta")
    np.testing.assert_allclose(bound, stats.norm.logpdf(X).sum(axis=1), rtol=0, atol=1e-12)


def test_quadratures_need_few_columns():
    wide = np.zeros((2, 4))
    with pytest.raises(ValueError, match="x0 must have at most 3 columns"):
        exact_elbo(FIVE, wide, lambda x, t: x)
    with pytest.raises(ValueError, match="k must have at most 3 columns"):
        dequantisation_cost(lambda x: x.sum(axis=1), wide)


MOMENTS = [([0.4], [1.2]), ([0.4, -2.2], [1.2, 3.0]), ([0.4, -2.2, 7.0], [1.2, 3.0, 0.9])]


@pytest.mark.equation("dequantisation")
@pytest.mark.parametrize(("mean", "std"), MOMENTS)
def test_the_cost_of_dequantisation_passes(mean, std):
    assert check_dequantisation(dequantisation_cost, mean, std)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda p, k: -dequantisation_cost(p, k), "the sign is wrong"),
        (lambda p, k: dequantisation_cost(p, k) / 2, "it is averaged over the D dimensions"),
        (lambda p, k: dequantisation_cost(p, k - 0.5), "expected"),
        (lambda p, k: dequantisation_cost(p, k, 2), "expected"),
        (lambda p, k: dequantisation_cost(lambda x: p(x) / np.log(2), k), "expected"),
        (lambda p, k: dequantisation_cost(p, k) * (1 + 1e-10), "expected"),
    ],
)
def test_wrong_costs_of_dequantisation_fail(wrong, sentence):
    named(check_dequantisation(wrong, *MOMENTS[1]), sentence)


@pytest.mark.equation("dequantisation")
def test_a_density_that_is_constant_on_cells_costs_nothing():
    cost = dequantisation_cost(lambda x: -np.abs(np.floor(x)).sum(axis=1), np.array([[0.0, 3.0], [-2.0, 1.0]]))
    np.testing.assert_allclose(cost, 0.0, atol=1e-14)


def test_a_density_whose_kl_is_that_of_the_paths_is_named():
    """p_θ(x_0) is replaced by a density whose KL from p is the bound minus H(p), case by case."""
    seen = []

    def record(original, name, equation, quantity, left, right, tolerance, mistakes, **options):
        of_paths = next(value for text, value in mistakes.items() if "KL of the paths" in text)
        seen.append((np.array(right), np.array(of_paths())))
        return original(name, equation, quantity, seen[-1][1], right, tolerance, mistakes, **options)

    with planted("conformance.result.compare", record):
        check = check_data_processing(lambda eps_hat, v: on_a_grid(FIVE, v, eps_hat), FIVE)
    ((of_sampler, of_paths),) = seen
    assert (of_sampler[:-1] < of_paths[:-1] - 0.01).all()
    assert of_sampler[-1] == pytest.approx(0.0, abs=1e-12)
    assert of_paths[-1] == pytest.approx(0.0, abs=1e-12)
    named(check, "KL of the paths, the bound minus H(p)")
