"""Euler-Maruyama with Langevin corrections: exact moments, exact densities, the bias of a Langevin step."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import VE, VP, Mixture
from scratchgen.grading import chain_density
from scratchgen.sde import (
    euler_maruyama,
    euler_std,
    euler_step,
    langevin_step,
    reverse_times,
)
from scratchgen.testing import sdes
from tests.strategies import residual

THREE = Mixture([0.3, 0.4, 0.3], [[-1.5], [0.2], [1.6]], [[[0.05]], [[0.03]], [[0.12]]])


def gaussian_score(sde, variance):
    return lambda x, t: -x / (sde.level(t)[0] ** 2 * variance + sde.level(t)[1] ** 2)


@pytest.mark.equation(32, "langevin-step")
@given(sdes(), st.floats(0.05, 1), st.floats(0.05, 4), st.floats(0.01, 0.9))
def test_langevin_steps_converge_to_the_variance_of_theory(sde, u, variance, snr):
    """The variance V/(1 − δ/(2V)) is invariant under a step; V is invariant only as δ → 0."""
    t = u * sde.horizon
    score = gaussian_score(sde, variance)
    mean, std = langevin_step(sde, score(np.ones((1, 1)), t), np.ones((1, 1)), t, snr)
    gain = mean.item()
    V, size = sde.level(t)[0] ** 2 * variance + sde.level(t)[1] ** 2, 2 * (snr * sde.level(t)[1]) ** 2
    settled = V / (1 - size / (2 * V))
    assert residual(gain**2 * settled + std**2, settled) < 1e-12
    assert settled <= V / (1 - snr**2) * (1 + 1e-12)
    assert residual(gain**2 * V + std**2, V + size**2 / V) < 1e-12


@pytest.mark.equation(32, "predictor-corrector")
@pytest.mark.parametrize("n_corrections", [0, 1, 3])
@pytest.mark.parametrize("stochasticity", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("sde", [VP(), VE(0.02, 6.0)])
def test_a_step_is_the_predictor_and_then_corrections_at_the_new_time(sde, stochasticity, n_corrections):
    rng = np.random.default_rng(0)
    times, x = reverse_times(sde, 5, 0.01), rng.standard_normal((4, 2))
    noise = rng.standard_normal((5, 1 + n_corrections, 4, 2))
    score = gaussian_score(sde, 0.3)
    given = noise if n_corrections else noise[:, 0]
    states = list(euler_maruyama(sde, score, x, times, None, given, stochasticity, n_corrections, snr=0.3))
    assert [t for t, _ in states] == times.tolist()
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        mean, std = euler_step(sde, score(x, t), x, t, s, stochasticity)
        x = mean + std * noise[i, 0]
        for k in range(n_corrections):
            size = 2 * 0.3**2 * float(sde.std(s)) ** 2
            x = x + size * score(x, s) + (2 * size) ** 0.5 * noise[i, 1 + k]
        assert residual(states[i + 1][1], x) < 1e-13


def kl_of_chain(n, n_corrections, snr=0.16):
    """KL(p‖p_θ), nats, of n steps with corrections and the exact score of three Gaussians."""
    sde = VP()
    times = reverse_times(sde, n, 1e-3, detail=0.1)

    def score(x, t):
        return THREE.diffuse(*sde.level(t)).score(x)

    steps = []
    for t, s in pairwise(times.tolist()):
        steps.append((lambda x, t=t, s=s: euler_step(sde, score(x, t), x, t, s)[0], euler_std(sde, t, s)))
        std = langevin_step(sde, np.zeros((1, 1)), np.zeros((1, 1)), s, snr)[1]
        steps += n_corrections * [(lambda x, s=s: langevin_step(sde, score(x, s), x, s, snr)[0], std)]
    density = chain_density(steps, 1, final_spacing=0.01)
    return density.kl_from(THREE.diffuse(*sde.level(1e-3)).log_prob(density.points))


@pytest.mark.equation(32)
def test_a_correction_lowers_the_kl_and_another_step_lowers_it_more():
    """Exact densities: .0154 nats for 20 steps, .0126 with one correction per step, .0036 for 40 steps."""
    plain, corrected, doubled = kl_of_chain(20, 0), kl_of_chain(20, 1), kl_of_chain(40, 0)
    assert doubled < corrected < plain
    assert kl_of_chain(20, 3) < corrected


@pytest.mark.equation(32, "predictor-corrector")
def test_corrections_reduce_the_error_of_a_wrong_start():
    """The start is three times too wide, and the score is exact."""
    sde, variance = VP(), 0.4
    score = gaussian_score(sde, variance)
    times = np.array([0.05, 0.045])

    def end_variance(n_corrections):
        n = n_corrections + 1
        noise = np.zeros((1, n, n + 1, 1))
        noise[0, np.arange(n), np.arange(n)] = 1
        start = np.zeros((n + 1, 1))
        start[n] = 1
        given = noise if n_corrections else noise[:, 0]
        path = euler_maruyama(sde, score, start, times, None, given, n_corrections=n_corrections, snr=0.4)
        *_, (_, x) = path
        return float((x[:n, 0] ** 2).sum() + x[n, 0] ** 2 * 9 * variance)

    exact = sde.level(0.045)[0] ** 2 * variance + sde.level(0.045)[1] ** 2
    errors = [abs(end_variance(n) - exact) for n in (0, 10, 100)]
    assert errors[0] > 2
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]


def test_noise_and_choices_are_checked():
    sde, x = VP(), np.zeros((2, 1))
    score, times = gaussian_score(sde, 1.0), np.array([1.0, 0.5])
    assert len(list(euler_maruyama(sde, score, x[:0], times, noise=np.zeros((1, 0, 1))))) == 2  # no examples
    for needed in {}, {"stochasticity": 0.1}, {"n_corrections": 1}, {"n_corrections": 1, "stochasticity": 0.0}:
        with pytest.raises(ValueError, match=r"^rng or noise is needed when stochasticity or n_corrections is not 0"):
            next(euler_maruyama(sde, score, x, times, **needed))
    for shape in (1, 2, 1), (1, 1, 2, 1), (1, 3, 2, 1):
        with pytest.raises(ValueError, match=r"^noise must have shape \(1, 2, 2, 1\), got "):
            next(euler_maruyama(sde, score, x, times, noise=np.zeros(shape), n_corrections=1))
    for shape in (2, 2, 1), (1, 2, 2), (1, 1, 1), (2, 1):
        with pytest.raises(ValueError, match=r"^noise must have shape \(1, 2, 1\), got "):
            next(euler_maruyama(sde, score, x, times, noise=np.zeros(shape)))
    with pytest.raises(ValueError, match="n_corrections must be"):
        list(euler_maruyama(sde, score, x, times, np.random.default_rng(0), n_corrections=-1))
    for snr in -1.0, 1.0:
        with pytest.raises(ValueError, match="snr must be"):
            langevin_step(sde, score(x, 0.5), x, 0.5, snr)


@pytest.mark.parametrize("n_corrections", [0, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, int])
def test_noise_is_drawn_for_a_step_and_then_for_its_corrections(dtype, n_corrections):
    """The dtype of the noise is that of the path, float64 for whole numbers."""
    sde, x = VP(), np.array([[1], [2]], dtype=dtype)
    times, score = reverse_times(sde, 4, 0.01), gaussian_score(sde, 0.3)
    drawn = list(euler_maruyama(sde, score, x, times, np.random.default_rng(0), n_corrections=n_corrections))
    floating, rng = np.result_type(dtype, np.float32), np.random.default_rng(0)
    noise = rng.standard_normal((4, 1 + n_corrections, 2, 1), dtype=floating)
    given = noise if n_corrections else noise[:, 0]
    for (_, a), (_, b) in zip(
        drawn, euler_maruyama(sde, score, x, times, noise=given, n_corrections=n_corrections), strict=True
    ):
        assert np.array_equal(a, b)
    assert drawn[-1][1].dtype == floating
