"""Reverse steps from a law over levels, one variance for each dimension, and the schedule with even log-SNR.

The exact law P(x_0d = l_k | x_t) of a table P(x) is a sum over all x.  Expectations over noise are quadratures.
"""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import NoiseSchedule
from scratchgen.ddpm import (
    LevelLaw,
    ancestral_sampler,
    bound_terms,
    bound_weight,
    law_moments,
    mixture_log_prob,
    mixture_step,
    negative_elbo,
    optimal_reverse_variance,
    p_log_prob,
    p_mean,
    p_step,
    q_posterior,
    q_sample,
    reconstruction_loss,
    reverse_log_prob,
    reverse_variance,
    step_loss,
)
from scratchgen.likelihood import draw_levels, level_values, logsumexp
from scratchgen.quadrature import gauss_hermite
from scratchgen.testing import schedules
from tests.strategies import residual

SCHEDULE = NoiseSchedule.log_snr_even(4, 2.0, -4.0)
LEVELS = level_values(3)


class Table:
    """A law P(x) of three levels in D dimensions: a mixture of independent tables, and its exact LevelLaw."""

    def __init__(self, D, n_components, seed=0):
        rng = np.random.default_rng(seed)
        tables = rng.dirichlet(np.full(3, 0.15), size=(n_components, D))
        self.index = np.array(list(product(range(3), repeat=D)))
        self.x = LEVELS[self.index]
        self.P = np.mean([np.prod(t[np.arange(D), self.index], axis=1) for t in tables], axis=0)
        self.entropy = -self.P @ np.log(self.P)

    def posterior(self, x_t, scale, std):
        """P(x | x_t), (N, 3^D)."""
        log_joint = np.log(self.P) - 0.5 * ((x_t[:, None] - scale * self.x) ** 2).sum(axis=2) / std**2
        return np.exp(log_joint - logsumexp(log_joint)[:, None])

    def law(self, schedule):
        one_hot = (self.index[:, :, None] == np.arange(3)).astype(float)

        def law(x_t, t):
            p = self.posterior(x_t, schedule.alpha_bar[t], schedule.beta_bar[t])
            return np.einsum("nx,xdk->ndk", p, one_hot)

        return LevelLaw(schedule, LEVELS, law)

    def decoder(self, schedule, x0):
        """log Π_d P(x_0d | x_1) of rows x_0, as a function of x_1."""
        level = np.rint(x0 + 1).astype(int)

        def decoder(x_1):
            chosen = np.take_along_axis(self.law(schedule).law(x_1, 1), level[:, :, None], axis=2)
            return np.log(chosen[:, :, 0]).sum(axis=1)

        return decoder


def expected_terms(table, schedule, variance, nodes, weights, omega=None):
    """E of every term over x and the noise nodes (M, D), which are the same at every step."""
    M, n = len(nodes), len(table.x)
    x0 = np.repeat(table.x, M, axis=0)
    repeated = [None if z is None else np.broadcast_to(np.tile(z, (n, 1)), (schedule.T, n * M, z.shape[1]))
                for z in (nodes, omega)]  # fmt: skip
    steps = table.law(schedule)
    terms = bound_terms(
        schedule, x0, steps, repeated[0], variance, decoder=table.decoder(schedule, x0), omega=repeated[1]
    )
    return np.einsum("x,m,xmt->t", table.P, weights, terms.reshape(n, M, -1))


# --- the mixture step -------------------------------------------------------------------------------------


def test_terms_of_independent_pixels_are_mutual_informations():
    """The mixture step is q(x_{t−1} | x_t); E L_{t−1} = I(x_0; x_{t−1}) − I(x_0; x_t), from entropies on a grid.

    A term is a sum over pixels, so that nodes of one pixel serve for both.
    """
    table = Table(2, 1)
    line, w = gauss_hermite(60, 1)
    eps, omega = (part.ravel() for part in np.meshgrid(line, line, indexing="ij"))
    pair = np.stack([eps, eps], axis=1), np.stack([omega, omega], axis=1)
    terms = expected_terms(table, SCHEDULE, "mixture", pair[0], np.outer(w, w).ravel(), pair[1])

    def information(t):
        grid = np.linspace(-9, 9, 6001)
        scale, std = SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t]
        total = 0.0
        for d in range(2):
            h = np.array([table.P[table.index[:, d] == k].sum() for k in range(3)])
            p = (
                (h * np.exp(-0.5 * ((grid[:, None] - scale * LEVELS) / std) ** 2)).sum(axis=1)
                / std
                / (2 * np.pi) ** 0.5
            )
            total -= (p * np.log(p)).sum() * (grid[1] - grid[0]) + 0.5 * np.log(2 * np.pi * np.e * std**2)
        return total

    right = np.array([information(t - 1) - information(t) for t in range(2, SCHEDULE.T + 1)])
    assert residual(terms[1:-1], right) < 1e-5
    assert residual(terms[0], table.entropy - information(1)) < 1e-5
    gaussian = expected_terms(table, SCHEDULE, "law", pair[0], np.outer(w, w).ravel())
    assert (gaussian[1:-1] > terms[1:-1] + 5e-5).all()  # the twin: no Gaussian step is exact


@pytest.mark.equation("mixture-step")
def test_in_expectation_the_mixture_is_best_then_the_law_then_the_tables():
    """Dependent pixels: among all products the exact marginals are best, among Gaussian ones their moments."""
    table = Table(2, 2, seed=3)
    nodes, weights = gauss_hermite(9, 4)
    plane, w = gauss_hermite(24, 2)
    mixture = expected_terms(table, SCHEDULE, "mixture", nodes[:, :2], weights, nodes[:, 2:])
    law = expected_terms(table, SCHEDULE, "law", plane, w)
    M, n = len(plane), len(table.x)
    losses = np.zeros((SCHEDULE.T + 1, 2))
    for t in range(1, SCHEDULE.T + 1):
        noise = np.tile(plane, (n, 1))
        x_t = q_sample(SCHEDULE, t, np.repeat(table.x, M, axis=0), noise)
        error = (noise - table.law(SCHEDULE)(x_t, t)) ** 2
        losses[t] = np.einsum("x,m,xmd->d", table.P, w, error.reshape(n, M, 2))
    diagonal = optimal_reverse_variance(SCHEDULE, losses, 2)
    scalar = optimal_reverse_variance(SCHEDULE, losses.sum(axis=1), 2)
    assert residual(diagonal.mean(axis=1), scalar) < 1e-12
    chain = [mixture, law, *(expected_terms(table, SCHEDULE, kind, plane, w) for kind in (diagonal, scalar, "beta"))]
    for better, worse in pairwise(chain):
        assert (better[1:-1] < worse[1:-1]).all()
    assert mixture.sum() > table.entropy + 0.01  # a bound, and no equality for dependent pixels


def test_in_three_dimensions_drawn_terms_bound_the_entropy():
    table = Table(3, 2, seed=1)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(table.x), 5000, p=table.P)
    x0 = table.x[rows]
    noise, omega = rng.standard_normal((2, SCHEDULE.T, *x0.shape))
    totals = {
        kind: bound_terms(
            SCHEDULE, x0, table.law(SCHEDULE), noise, kind, decoder=table.decoder(SCHEDULE, x0), omega=omega
        ).sum(axis=1)
        for kind in ("law", "mixture")
    }
    for total in totals.values():
        gap = total + np.log(table.P[rows])
        assert gap.mean() > 5.5 * gap.std() / len(x0) ** 0.5
    gain = totals["law"] - totals["mixture"]
    assert gain.mean() > 5.5 * gain.std() / len(x0) ** 0.5


@pytest.mark.equation("bound-terms")
def test_the_estimate_has_the_mean_of_log_q_minus_log_p_and_a_smaller_deviation():
    table, t = Table(2, 2, seed=3), 3
    rng = np.random.default_rng(0)
    x0 = np.repeat(table.x[[0, 4, 5]], 4000, axis=0)
    steps, x_t, omega = (
        table.law(SCHEDULE),
        q_sample(SCHEDULE, t, x0, np.full_like(x0, 0.4)),
        rng.standard_normal(x0.shape),
    )
    mean, variance = q_posterior(SCHEDULE, t, x_t, x0)
    x_prev = mean + variance**0.5 * omega
    log_q = -0.5 * (omega**2 + np.log(2 * np.pi * variance)).sum(axis=1)
    plain = log_q - p_log_prob(SCHEDULE, t, x_prev, x_t, steps, "mixture")
    ours = step_loss(SCHEDULE, t, x0, x_t, steps, "mixture", omega)
    gap = (ours - plain).reshape(3, -1)
    assert (np.abs(gap.mean(axis=1)) < 5.5 * gap.std(axis=1) / 4000**0.5).all()
    assert (ours.reshape(3, -1).std(axis=1) < 0.5 * plain.reshape(3, -1).std(axis=1)).all()


@pytest.mark.equation("mixture-draw")
@pytest.mark.parametrize("kind", ["mixture", "uniform law"])
def test_the_sampler_of_independent_pixels_draws_their_law(kind):
    """From the exact x_T; a wrong law is seen."""
    table, rng = Table(2, 1), np.random.default_rng(0)
    x0 = table.x[rng.choice(9, 20_000, p=table.P)]
    x_T = q_sample(SCHEDULE, SCHEDULE.T, x0, rng.standard_normal(x0.shape))
    steps = table.law(SCHEDULE)
    if kind != "mixture":
        steps = LevelLaw(SCHEDULE, LEVELS, lambda x, t: np.full((*x.shape, 3), 1 / 3))
    *_, (t, drawn) = ancestral_sampler(SCHEDULE, steps, x_T, rng, "mixture")
    assert t == 0
    assert residual(drawn, np.rint(drawn)) < 1e-14
    counts = (np.rint(drawn)[:, None] == table.x).all(axis=2).sum(axis=0)
    z = (counts - 20_000 * table.P) / np.sqrt(20_000 * table.P * (1 - table.P))
    assert (np.abs(z).max() < 5.8) == (kind == "mixture")


@pytest.mark.equation("law-variance")
def test_a_gaussian_step_of_the_law_has_its_moments():
    table, rng = Table(2, 2), np.random.default_rng(0)
    x_T, steps = rng.standard_normal((5, 2)), table.law(SCHEDULE)
    (_, _), (t, x) = (lambda path: (next(path), next(path)))(
        ancestral_sampler(SCHEDULE, steps, x_T, np.random.default_rng(1), "law")
    )
    mean, variance = law_moments(SCHEDULE, 4, x_T, LEVELS, steps.law(x_T, 4))
    assert t == 3
    assert residual(x, mean + variance**0.5 * np.random.default_rng(1).standard_normal((5, 2))) < 1e-14
    assert residual(mean, p_mean(SCHEDULE, 4, x_T, steps(x_T, 4))) < 1e-13
    assert (
        residual(
            p_log_prob(SCHEDULE, 4, x, x_T, steps, "law"),
            (-0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))).sum(axis=1),
        )
        < 1e-13
    )


@pytest.mark.equation("mixture-draw")
def test_at_the_first_step_the_law_itself_is_drawn():
    x_1, law = np.zeros((4, 2)), np.random.default_rng(0).dirichlet(np.ones(3), (4, 2))
    uniform = np.random.default_rng(1).random((4, 2))
    drawn = mixture_step(SCHEDULE, 1, x_1, LEVELS, law, uniform, np.ones((4, 2)))
    assert residual(drawn, LEVELS[draw_levels(law, uniform)]) < 1e-15
    mean, variance = law_moments(SCHEDULE, 1, x_1, LEVELS, law)
    assert residual(mean, law @ LEVELS) < 1e-14
    assert residual(variance, law @ LEVELS**2 - (law @ LEVELS) ** 2) < 1e-14


@pytest.mark.equation("mixture-step")
def test_the_mixture_density_integrates_to_1():
    law, grid = np.random.default_rng(0).dirichlet(np.ones(3), (1, 1)), np.linspace(-8, 8, 4001)[:, None]
    for t in range(2, SCHEDULE.T + 1):
        log_p = mixture_log_prob(SCHEDULE, t, grid, np.full_like(grid, 0.7), LEVELS, np.repeat(law, len(grid), axis=0))
        assert np.exp(log_p).sum() * (grid[1, 0] - grid[0, 0]) == pytest.approx(1, rel=1e-12)


# --- errors -----------------------------------------------------------------------------------------------

X = np.zeros((5, 2))
UNIFORM = LevelLaw(SCHEDULE, LEVELS, lambda x, t: np.full((*x.shape, 3), 1 / 3))
NOISE = np.zeros((4, 5, 2))


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda: bound_terms(SCHEDULE, X, lambda x, t: x, NOISE, "law"), TypeError,
         "eps_hat must be a LevelLaw for variance='law', got .*; pass LevelLaw"),
        (lambda: bound_terms(SCHEDULE, X, UNIFORM, NOISE, "law"), ValueError, "t must be at least 2 .* pass a decoder"),
        (lambda: reconstruction_loss(SCHEDULE, X, X, UNIFORM, "mixture", 3), ValueError, "t must be at least 2 "),
        (lambda: p_log_prob(SCHEDULE, 1, X, X, UNIFORM, "mixture"), ValueError, "t must be at least 2 "),
        (lambda: step_loss(SCHEDULE, 1, X, X, UNIFORM, "mixture", X), ValueError, "t must be at least 2 "),
        (lambda: reverse_log_prob(SCHEDULE, np.zeros((5, 5, 2)), UNIFORM, "law"), ValueError, "t must be at least 2 "),
        (lambda: bound_terms(SCHEDULE, X, UNIFORM, NOISE, "mixture"), ValueError,
         "omega is needed for variance='mixture', .*; pass N"),
        (lambda: step_loss(SCHEDULE, 2, X, X, UNIFORM, "mixture"), ValueError, "omega is needed"),
        (lambda: bound_terms(SCHEDULE, X, UNIFORM, NOISE, "mixture", omega=NOISE[:3]), ValueError, "omega"),
        (lambda: reverse_variance(SCHEDULE, "law"), ValueError, "variance must be one of 'beta', 'posterior'"),
        (lambda: bound_weight(SCHEDULE, np.ones((5, 2))), ValueError, r"shape \(5,\), one number"),
        (lambda: negative_elbo(SCHEDULE, np.ones((5, 2)), 1.0, 2), ValueError,
         r"noise_loss must have shape \(5,\), got \(5, 2\); sum over D"),
        (lambda: optimal_reverse_variance(SCHEDULE, np.ones((5, 3)), 2), ValueError,
         "noise_loss must be 5 numbers, or"),
        (lambda: draw_levels(np.full((5, 2, 3), np.nan), X), ArithmeticError, "the law of x_0 is NaN"),
    ],
)  # fmt: skip
def test_a_wrong_use_is_refused_with_the_reason(use, error, words):
    with pytest.raises(error, match=words):
        use()


# --- one variance for each dimension ----------------------------------------------------------------------


@given(schedules(min_T=2), st.integers(0, 2**32 - 1))
def test_a_table_with_a_column_for_each_dimension_acts_on_that_dimension(schedule, seed):
    rng = np.random.default_rng(seed)
    table = rng.uniform(0.1, 2, (schedule.T + 1, 3))
    x0, x_t, noise = rng.standard_normal((3, 4, 3))
    x0, t, steps = np.rint(x0).clip(-1, 1), schedule.T, rng.integers(1, schedule.T + 1, 4)

    def net(x, t):
        return 0.5 * x + 0.1

    uses = {
        "p_log_prob": lambda c, v: p_log_prob(schedule, t, x0[:, c], x_t[:, c], net, v),
        "step_loss": lambda c, v: step_loss(schedule, t, x0[:, c], x_t[:, c], net, v),
        "L_0": lambda c, v: reconstruction_loss(schedule, x0[:, c], x_t[:, c], net, v),
        "bins": lambda c, v: reconstruction_loss(schedule, x0[:, c], x_t[:, c], net, v, 3),
        "step": lambda c, v: p_step(schedule, t, x_t[:, c], net(x_t[:, c], t), noise[:, c], v).sum(axis=1),
        "steps": lambda c, v: p_step(schedule, steps, x_t[:, c], net(x_t[:, c], t), noise[:, c], v).sum(axis=1),
    }
    for name, use in uses.items():
        each = sum(use([d], table[:, d]) for d in range(3))
        assert residual(use([0, 1, 2], table), each) < 1e-12, name
    single = p_step(schedule, t, x_t.astype(np.float32), x_t.astype(np.float32), noise.astype(np.float32), table)
    assert single.dtype == np.float32


# --- the schedule -----------------------------------------------------------------------------------------


@pytest.mark.equation("even-log-snr")
@given(st.integers(1, 300), st.floats(-15, 25), st.floats(0.5, 30))
def test_log_snr_falls_in_even_steps(T, last, span):
    schedule = NoiseSchedule.log_snr_even(T, last + span, last)
    assert residual(np.log(schedule.snr[1:]), np.linspace(last, last + span, T)[::-1]) < 1e-9
    assert residual(schedule.beta_bar[1:] ** 2, 1 / (1 + np.exp(np.linspace(last, last + span, T)[::-1]))) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "T must be at least 1"),
        ((5, -7.0, -7.0), r"first must be in \(-7.0, inf\], got -7.0"),
        ((5, 800.0, -7.0), "variances must lie strictly"),
        ((5, 4.0, -800.0), "variances must lie strictly"),
        ((5, np.nan), "first must be"),
    ],
)
def test_ends_that_no_chain_reaches_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        NoiseSchedule.log_snr_even(*arguments)
