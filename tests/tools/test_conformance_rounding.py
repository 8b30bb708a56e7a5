"""Checks know how their problem magnifies rounding: right codes pass where digits are lost, and small mistakes fail.

The refused codes are those of the first battery.  Every tolerance is held from both sides: a right code on an
ill-conditioned problem, and a mistake of 1e-6 on an ordinary one.
"""

import itertools

import numpy as np
import pytest

from scratchgen.conformance import (
    check_ddim_inversion,
    check_ddim_sampler,
    check_ddim_step,
    check_em_loop,
    check_forward_process,
    check_heun,
    check_learning_rate,
    check_loss_weights,
    check_moving_average,
    check_reverse_sampler,
    check_sampler,
    check_step_loss,
    check_table_em,
)
from scratchgen.conformance.loops import exactly, growth
from scratchgen.sde import VP
from tests.battery import first_right as battery

EPS = np.finfo(np.float64).eps
CASES = {case.name: case for case in battery.CASES}
REFUSED = [
    "check_ddim_sampler: Euler in σ, η = 0.0; 0.999, T = 5",
    "check_ddim_sampler: like diffusers, η = 1.0; 0.999, T = 50",
    "check_sampler: direct, β̃²; 0.999, T = 5",
    "check_sampler: logs, β²; 0.999, T = 50",
    "check_bound_terms: torch.distributions, best σ², D = 2; 1e-8, T = 50",
    "check_bound_terms: Ho's normal_kl, best σ², D = 64; 1e-8 to 0.9, T = 5",
    "check_variational_bound: Ho, terms, β̃²; 1e-8, T = 5, D = 2",
    "check_chains: einsum, best σ²; 1e-8 to 0.9, T = 5",
    "check_reverse_sampler: λ = 1.0, 2 corrections, 18 even steps; VE",
    "check_reverse_sampler: λ = 0.0, 0 corrections, 18 Karras steps; EDM",
]


@pytest.mark.parametrize("name", [name for name in REFUSED if name in CASES])  # one of them needs torch
def test_right_codes_that_were_refused_pass(name):
    result = CASES[name].run()
    assert result, result
    assert result.residual < 0.1 * result.tolerance, result


def test_a_problem_without_digits_is_refused_and_not_its_code():
    diagnosis = CASES["check_heun: EDM, 18 Karras steps; EDM"].run().diagnosis  # the battery reports errors so
    assert diagnosis.startswith("raises ValueError: check_heun: this problem leaves no digits in float64")


def test_the_other_warm_up_is_named():
    result = CASES["check_learning_rate: transformers, 50 steps, warm-up 5"].run()
    assert not result
    assert result.diagnosis.endswith("the rise starts at 0: step/warmup")


# --- the effect of rounding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_growth_is_that_of_a_linear_loop(slope):
    def loop(shake, n=12):
        x = np.array([[1.0, -2.0, 0.5]])
        for _ in range(n):
            x = slope * shake(x)
        return x

    right = loop(exactly)
    grown = growth("loop", loop) / np.abs(right) / (40 * EPS)  # n relative errors of random signs
    assert (grown <= 15).all()  # 12 of the shakes, and at most 12/4 of the loop itself
    assert (grown >= 0.9).all()


def test_growth_refuses_a_chaotic_loop():
    def loop(shake):
        x = np.array([[0.3, 0.4, 0.7]])
        for _ in range(60):
            x = 4 * shake(x) * (1 - x)
        return x

    with pytest.raises(ValueError, match="map: this problem leaves no digits"):
        growth("map", loop)


# --- chains of tiny, of large, and of all steps ----------------------------------------------------------------------


def chain(first, last, T):
    return battery.Chain(f"{first:g} to {last:g}, T = {T}", np.geomspace(first, last, T))


HARD = [
    *(chain(v, v, T) for v in (1e-8, 1e-6, 0.99, 0.999) for T in (2, 20)),
    *(chain(*ends, T) for ends in ((1e-8, 0.9), (1e-4, 0.99)) for T in (5, 40)),
    chain(1e-8, 1e-8, 1000),
]
SHORT = HARD[:-1]
every_hard_chain = pytest.mark.parametrize("p", HARD, ids=lambda p: p.name)
every_short_chain = pytest.mark.parametrize("p", SHORT, ids=lambda p: p.name)


def passes(result):
    assert result, result
    assert result.residual < 0.2 * result.tolerance, result


@every_hard_chain
def test_tables_of_products_pass(p):
    keep = np.append(1.0, np.cumprod(1 - p.betas))
    column = battery.col

    def q_sample(t, x, e):
        return np.sqrt(column(keep[t], x)) * x + np.sqrt(1 - column(keep[t], x)) * e

    def inverse(s, t, x, e):
        return np.sqrt(keep[t]) * (x - np.sqrt(1 - keep[s]) * e) / np.sqrt(keep[s]) + np.sqrt(1 - keep[t]) * e

    passes(check_forward_process(q_sample, p.schedule))
    passes(check_ddim_inversion(inverse, p.schedule))
    for eta in (0.0, 1.0):
        passes(check_ddim_step(battery.ddim_diffusers(p, eta), p.schedule, eta))

    def weights(name):
        snr, v = keep[1:] / (1 - keep[1:]), p.betas
        tables = {
            "simple": np.ones(p.T),
            "x0": 1 / snr,
            "v": 1 / keep[1:],
            "min-snr": np.minimum(snr, 5) / snr,
            "bound": p.T * v / (2 * (1 - v) * (1 - keep[1:])),
        }
        return np.append(0.0, tables[name])

    passes(check_loss_weights(weights, p.schedule, np.append(0.0, p.betas)))


@every_short_chain
@pytest.mark.parametrize("make", [battery.step_direct, battery.step_x0, battery.step_stable])
def test_samplers_pass(p, make):
    for sigma in (battery.sigma_best, battery.sigma_beta):
        sample, table = battery.sampler_with(make, sigma, False)(p)
        passes(check_sampler(sample, p.schedule, 0.7, 1.3, table))


@every_short_chain
def test_ddim_samplers_pass(p):
    for make, eta in itertools.product((battery.ddim_song, battery.ddim_logs), (0.0, 0.7)):
        passes(check_ddim_sampler(battery.ddim_loop(make(p, eta), p), p.schedule, eta))


@every_short_chain
@pytest.mark.parametrize("make", [battery.terms_ho, battery.terms_logs])
def test_densities_of_reverse_steps_pass(p, make):
    sigma = battery.sigma_best(p)
    for D in (2, 64):
        passes(battery.bound_terms_call((make(p, sigma), sigma, D), p))
    bound = battery.bound_from(make, battery.sigma_best, False, False)(p)
    passes(battery.variational_call(bound, battery.LinearProblem(p.name, p, 3)))
    passes(battery.chains_call(battery.chains_einsum(p), p))


@every_short_chain
def test_step_losses_through_x0_pass(p):
    ho, keep, sigma = battery.Ho(p.betas), np.append(1.0, np.cumprod(1 - p.betas)), battery.sigma_posterior(p)

    def loss(t, x0, eps_bar, eps_t, eps_hat):
        previous = np.sqrt(keep[t - 1]) * x0 + np.sqrt(1 - keep[t - 1]) * eps_bar
        x = np.sqrt(1 - p.betas[t - 1]) * previous + np.sqrt(p.betas[t - 1]) * eps_t
        x0_hat = ho.recip[t - 1] * x - ho.recipm1[t - 1] * eps_hat(x, t)
        mean = ho.coef1[t - 1] * x0_hat + ho.coef2[t - 1] * x
        return 0.5 * ((previous - mean) ** 2 / sigma[t] + np.log(2 * np.pi * sigma[t])).sum(axis=1)

    for t in (1, p.T):
        passes(check_step_loss(loss, p.schedule, t, lambda x, t: 0.5 * x + 0.3 * np.sin(x), 0.3, 1.5, sigma[t]))


# --- mistakes of one part in a million on ordinary problems ----------------------------------------------------------

HO = battery.Chain("Ho, T = 1000", np.linspace(1e-4, 0.02, 1000))
FIVE = battery.Chain("T = 5", np.array([0.02, 0.1, 0.25, 0.4, 0.6]))
OFF = 1 + 1e-6


@pytest.mark.parametrize("p", [FIVE, HO], ids=lambda p: p.name)
def test_a_millionth_is_seen_in_chains(p):
    sigma, logs = battery.sigma_best(p), battery.Logs(p.betas)
    step = battery.step_stable(p, sigma)

    def sample(x, eps_hat, noise):
        for i, t in enumerate(range(p.T, 0, -1)):
            x = step(t, x, OFF * eps_hat(x, t), noise[i])
        return x

    assert not check_sampler(sample, p.schedule, 0.7, 1.3, sigma)
    ddim = battery.ddim_logs(p, 0.7)
    wrong = lambda t, s, x, e, z: ddim(t, s, x, OFF * e, z)  # noqa: E731
    assert not check_ddim_sampler(battery.ddim_loop(wrong, p), p.schedule, 0.7)
    assert not check_ddim_step(wrong, p.schedule, 0.7)
    assert not check_forward_process(
        lambda t, x, e: battery.col(logs.ab[t], x) * x + OFF * battery.col(logs.bb[t], x) * e, p.schedule
    )


@pytest.mark.parametrize("p", [FIVE, chain(1e-4, 0.02, 50)], ids=lambda p: p.name)
def test_a_millionth_is_seen_in_densities(p):
    sigma = battery.sigma_best(p)
    make = battery.terms_logs
    for part in range(3):

        def wrong(p, s, part=part):
            terms = list(make(p, s))
            right = terms[part]
            terms[part] = lambda *a: OFF * right(*a)
            return terms

        assert not battery.bound_terms_call((wrong(p, sigma), sigma, 3), p)
        bound = battery.bound_from(wrong, battery.sigma_best, False, False)(p)
        assert not battery.variational_call(bound, battery.LinearProblem(p.name, p, 3))
    forward, reverse, table = battery.chains_einsum(p)
    assert not battery.chains_call((forward, lambda x, e: OFF * reverse(x, e), table), p)
    assert not battery.chains_call((forward, lambda x, e: reverse(x, lambda *a: OFF * e(*a)), table), p)


def field(x, t):
    return np.cos(x) - x * (0.5 + t) + 0.3 * x[:, ::-1]


@pytest.mark.parametrize("off", [1.0, OFF])
def test_a_millionth_is_seen_in_samplers_of_the_sde(off):
    sde, times = VP(0.1, 20.0), np.linspace(1.0, 0.02, 31)

    def slope(x, t, weight):
        return float(sde.rate(t)) * x - off * weight * float(sde.diffusion(t)) ** 2 * field(x, t)

    def euler(x, times, noise):
        for (t, s), z in zip(itertools.pairwise(times.tolist()), noise, strict=True):
            x = x - (t - s) * slope(x, t, 1.0) + float(sde.diffusion(t)) * np.sqrt(t - s) * z
        return x

    def heun(x, times):
        for t, s in itertools.pairwise(times.tolist()):
            first = slope(x, t, 0.5)
            x = x + (s - t) / 2 * (first + slope(x + (s - t) * first, s, 0.5))
        return x

    assert bool(check_reverse_sampler(euler, field, sde, times)) == (off == 1)
    assert bool(check_heun(heun, field, sde, times)) == (off == 1)


# --- EM, training ----------------------------------------------------------------------------------------------------


def em_loop(x, state, n, order):
    """EM in one dimension; `order` permutes the examples, which changes the rounding only."""
    x, values = x[order, 0], []
    w, m, v = state
    for i in range(n + 1):
        log_joint = np.log(w) - 0.5 * ((x[:, None] - m) ** 2 / v + np.log(2 * np.pi * v))
        top = log_joint.max(axis=1, keepdims=True)
        total = top + np.log(np.exp(log_joint - top).sum(axis=1, keepdims=True))
        values.append(total.mean())
        if i < n:
            resp = np.exp(log_joint - total)
            counts = resp.sum(axis=0)
            w, m = counts / len(x), resp.T @ x / counts
            v = (resp * (x[:, None] - m) ** 2).sum(axis=0) / counts
    return values, w, m[:, None], v[:, None, None]


EM_X = np.sin(1.7 * np.arange(1.0, 25.0) ** 1.3)[:, None] * 2 + (np.arange(24.0) % 2)[:, None]


@pytest.mark.parametrize(("gap", "n"), [(1.0, 5), (1e-3, 60), (1e-6, 90)])
def test_em_near_a_saddle_passes_and_a_millionth_is_seen(gap, n):
    w, m, v = np.array([0.5, 0.5]), np.array([0.3 - gap, 0.3 + gap]), np.array([2.0, 2.0])
    problem = EM_X, w, m[:, None], v[:, None, None], n
    order = np.argsort(np.cos(np.arange(24.0) ** 1.5))
    assert check_em_loop(lambda: em_loop(EM_X, (w, m, v), n, order), *problem)

    def wrong():
        values, w_n, m_n, v_n = em_loop(EM_X, (w, m, v), n, order)
        return values, w_n, m_n * OFF, v_n

    assert not check_em_loop(wrong, *problem)


def test_tables_are_given_integers():
    seen = []

    def step(x, weights, tables):
        seen.append(x.dtype)
        return np.zeros(len(x)), weights, tables

    check_table_em(step, [[0, 1], [1, 0], [1, 1]], [0.4, 0.6], np.full((2, 2, 2), 0.5), np.ones((2, 2)))
    assert seen[0].kind == "i"


def test_the_moving_average_of_many_steps_is_that_of_the_recursion():
    w, start, decay = np.cos(np.arange(1500.0 * 2) ** 1.3).reshape(1500, 2), np.array([1.0, -2.0]), 0.99

    def average(start, w, decay=decay):
        rows, a = [], start
        for k, row in enumerate(w, 1):
            d = min(decay, (1 + k) / (10 + k))
            a = d * a + (1 - d) * row
            rows.append(a)
        return rows

    assert check_moving_average(average, start, w, decay)
    assert not check_moving_average(lambda s, x: average(s, x, decay * (1 - 1e-9)), start, w, decay)


def test_a_linear_learning_rate_of_one_step_more_is_seen():
    rate = lambda n: 0.1 * (n + 1) / 5 if n < 5 else 0.05 * (1 + np.cos(np.pi * (n - 5) / 45))  # noqa: E731
    assert check_learning_rate(rate, 50, 0.1, 5)
    assert not check_learning_rate(lambda n: rate(n) * (1 + 1e-12), 50, 0.1, 5)
