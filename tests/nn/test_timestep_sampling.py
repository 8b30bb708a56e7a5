"""Draws of t: the probability of each t, the weights that correct for it, and the running means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen.timestep_sampling import (
    MEMORY,
    STEP_CHOICES,
    TimestepSampler,
    stratified,
    stratified_steps,
    uniform_steps,
)
from tests.strategies import FALSE_ALARM, residual


class Even(np.random.Generator):
    """A Generator whose `random` returns one given number."""

    def __init__(self, u):
        super().__init__(np.random.PCG64(0))
        self.u = u

    def random(self):
        return self.u


@pytest.mark.equation("step-draws")
@given(st.integers(1, 30), st.integers(1, 12))
def test_stratified_steps_are_each_as_likely_and_a_batch_is_even(T, n):
    """Over an even grid of shifts every t occurs equally often; in one batch the counts differ by at most one."""
    counts = np.zeros(T + 1)
    for u in (np.arange(60 * T) + 0.5) / (60 * T):
        batch = np.bincount(stratified_steps(T, n, Even(u)), minlength=T + 1)
        assert batch[1:].max() - batch[1:].min() <= 1
        counts += batch
    assert counts[0] == 0
    assert residual(counts[1:], np.full(T, 60 * n)) < 1e-12


def test_stratified_steps_stay_within_the_steps_when_the_last_draw_is_rounded_up():
    """(n − 1 + u)/n is rounded to 1 for the largest u below 1, and T · 1 is no step."""
    u = Even(np.nextafter(1.0, 0.0))
    assert ((2 + u.u) / 3, int(10 * (2 + u.u) / 3)) == (1.0, 10)
    for T in 1, 2, 7, 10, 1000:
        for n in range(1, 40):
            assert stratified_steps(T, n, u).max() <= T
            for choice in "stratified", "importance":
                t, weight = TimestepSampler(T, choice).draw(n, u)
                assert t.min() >= 1
                assert t.max() <= T
                assert np.isfinite(weight).all()


def test_steps_without_any_loss_are_drawn_uniformly():
    """0/0 would be the probability of every t; one positive loss is enough for importance sampling."""
    sampler = TimestepSampler(5, "importance")
    sampler.observe(np.tile(np.arange(1, 6), 10), np.zeros(50))
    assert sampler.probabilities.tolist() == [0, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert residual(sampler.draw(20, np.random.default_rng(0))[1], np.ones(20)) < 1e-15
    sampler.observe(np.array([3]), np.array([2.0]))
    assert residual(sampler.probabilities, [0, 0.02, 0.02, 0.92, 0.02, 0.02]) < 1e-15


@pytest.mark.equation("step-draws")
def test_uniform_steps_are_each_as_likely():
    t = uniform_steps(7, 70_000, np.random.default_rng(0))
    assert stats.chisquare(np.bincount(t, minlength=8)[1:]).pvalue > FALSE_ALARM
    assert set(t.tolist()) == set(range(1, 8))


def seasoned(T=6):
    """A sampler that has seen every t many times, with losses that fall in t; and these losses."""
    losses = np.concatenate([[0.0], 10.0 / np.arange(1, T + 1) ** 2])
    sampler = TimestepSampler(T, "importance")
    t = np.tile(np.arange(1, T + 1), 50)
    sampler.observe(t, losses[t])
    return sampler, losses


@pytest.mark.equation("step-draws")
def test_importance_draws_follow_their_law_and_correct_for_it():
    """p_t ∝ √E loss², mixed with a tenth of uniform.

    E weight · loss is the mean under uniform draws, and its second moment is smaller.
    """
    sampler, losses = seasoned()
    p, T = sampler.probabilities, 6
    assert residual(p[1:], 0.9 * losses[1:] / losses.sum() + 0.1 / T) < 1e-12
    counts, weighted = np.zeros(T + 1), []
    for u in (np.arange(20_000) + 0.5) / 20_000:
        t, weight = sampler.draw(3, Even(u))
        counts += np.bincount(t, minlength=T + 1)
        weighted.append((weight * losses[t]).mean())
        assert residual(weight, 1 / (T * p[t])) < 1e-12
    assert residual(counts / counts.sum(), p) < 1e-3
    assert np.mean(weighted) == pytest.approx(losses[1:].mean(), rel=1e-3)
    importance = (p[1:] * (losses[1:] / (T * p[1:])) ** 2).sum()
    assert importance < 0.7 * (losses[1:] ** 2).mean()


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf, 1e200])
def test_a_loss_whose_square_is_not_finite_is_refused_and_changes_nothing(loss):
    sampler = TimestepSampler(3, "importance")
    with pytest.raises(ValueError, match=r"^losses must be finite, with finite squares, but losses\[1\] is "):
        sampler.observe(np.array([1, 2, 3]), np.array([1.0, loss, 1.0]))
    with pytest.raises(ValueError, match=r"^losses must have the shape of t"):
        sampler.observe(np.array([1, 2, 3]), np.array([1.0]))
    for _ in range(10):
        sampler.observe(np.array([1, 2, 3]), np.array([2.0, 1.0, 1.0]))
    assert residual(sampler.probabilities, np.array([0, 0.45, 0.225, 0.225]) + 0.1 / 3 * np.array([0, 1, 1, 1])) < 1e-14


def test_importance_waits_until_every_step_was_seen_ten_times():
    sampler = TimestepSampler(3, "importance")
    uniform = np.array([0, 1, 1, 1]) / 3
    for _ in range(9):
        sampler.observe(np.array([1, 2, 3]), np.array([5.0, 1.0, 1.0]))
        assert np.array_equal(sampler.probabilities, uniform)
    sampler.observe(np.array([1, 2]), np.array([5.0, 1.0]))
    assert np.array_equal(sampler.probabilities, uniform)
    sampler.observe(np.array([3]), np.array([1.0]))
    assert sampler.probabilities[1] > 0.6
    for _ in range(200):  # a running mean forgets
        sampler.observe(np.array([1]), np.array([1.0]))
    assert residual(sampler.probabilities, uniform) < 1e-6


@pytest.mark.parametrize("choice", ["uniform", "stratified"])
def test_even_choices_neither_weigh_nor_learn(choice):
    sampler = TimestepSampler(5, choice)
    t, weight = sampler.draw(20, np.random.default_rng(0))
    assert np.array_equal(weight, np.ones(20))
    sampler.observe(np.tile(np.arange(1, 6), 20), np.arange(100.0))
    assert np.array_equal(sampler.probabilities, np.array([0, 1, 1, 1, 1, 1]) / 5)
    assert t.min() >= 1
    assert t.max() <= 5


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_running_mean_of_a_batch_is_that_of_its_losses_one_by_one(seed, T, sizes):
    """m ← m + r (loss² − m), r = max(1 − MEMORY, 1/(number of losses)); the losses of a batch are equal."""
    rng, sampler = np.random.default_rng(seed), TimestepSampler(T, "importance")
    mean, seen = np.zeros(T + 1), np.zeros(T + 1)
    for n in sizes:
        t = rng.integers(1, T + 1, n)
        loss = rng.uniform(0, 3, T + 1)
        for step in np.unique(t):
            count = (t == step).sum()
            seen[step] += count
            rate = max(1 - MEMORY**count, count / seen[step])
            mean[step] += rate * (loss[step] ** 2 - mean[step])
        sampler.observe(t, loss[t].astype(np.float32).astype(np.float64))
    assert residual(sampler.mean_squares, mean) < 1e-6
    assert np.array_equal(sampler.n_seen, seen)


@pytest.mark.parametrize("choice", STEP_CHOICES)
def test_the_same_seed_gives_the_same_steps(choice):
    draws = []
    for _ in range(2):
        sampler, rng = TimestepSampler(7, choice), np.random.default_rng(3)
        for _ in range(30):
            t, weight = sampler.draw(11, rng)
            sampler.observe(t, t / 7)
        draws.append((t.tobytes(), weight.tobytes()))
    assert draws[0] == draws[1]
    assert len(weight) == 11
    assert set(t.tolist()) <= set(range(1, 8))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_stratified_numbers_have_a_cell_each(seed, n):
    u = stratified(n, np.random.default_rng(seed))
    assert np.array_equal(np.floor(n * u), np.arange(n))


def test_an_unknown_choice_is_refused_by_name():
    with pytest.raises(
        ValueError, match="step_choice must be one of 'uniform', 'stratified', 'importance', got 'even'"
    ):
        TimestepSampler(5, "even")
