"""Predictor-corrector sampling: exact moments, exact densities, the bias of a Langevin step."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import VE, VP, Mixture, ScoreSDE
from scratchgen.grading import chain_density
from scratchgen.sde import (
    euler_maruyama,
    euler_std,
    euler_step,
    langevin_step,
    predictor_corrector,
    reverse_times,
)
from scratchgen.testing import sdes
from tests.strategies import residual

THREE = Mixture([0.3, 0.4, 0.3], [[-1.5], [0.2], [1.6]], [[[0.05]], [[0.03]], [[0.12]]])


def gaussian_score(sde, variance):
    return lambda x, t: -x / (sde.level(t)[0] ** 2 * variance + sde.level(t)[1] ** 2)


@given(sdes(), st.floats(0.05, 1), st.floats(0.05, 4), st.floats(0.01, 0.9))
def test_langevin_steps_settle_at_the_variance_that_theory_says(sde, u, variance, snr):
    """V/(1 − δ/(2V)) is carried into itself, and V, which a step of δ → 0 would keep, is not."""
    t = u * sde.horizon
    score = gaussian_score(sde, variance)
    mean, std = langevin_step(sde, score, np.ones((1, 1)), t, snr)
    gain = mean.item()
    V, size = sde.level(t)[0] ** 2 * variance + sde.level(t)[1] ** 2, 2 * (snr * sde.level(t)[1]) ** 2
    settled = V / (1 - size / (2 * V))
    assert residual(gain**2 * settled + std**2, settled) < 1e-12
    assert settled <= V / (1 - snr**2) * (1 + 1e-12)
    assert residual(gain**2 * V + std**2, V + size**2 / V) < 1e-12


@pytest.mark.parametrize("n_corrections", [0, 1, 3])
@pytest.mark.parametrize("churn", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("sde", [VP(), VE(0.02, 6.0)])
def test_it_is_a_predictor_and_its_corrections_at_the_time_reached(sde, churn, n_corrections):
    rng = np.random.default_rng(0)
    times, x = reverse_times(sde, 5, 0.01), rng.standard_normal((4, 2))
    noise = rng.standard_normal((5, 1 + n_corrections, 4, 2))
    score = gaussian_score(sde, 0.3)
    states = list(predictor_corrector(sde, score, x, times, None, noise, churn, n_corrections, snr=0.3))
    assert [t for t, _ in states] == times.tolist()
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        mean, std = euler_step(sde, score, x, t, s, churn)
        x = mean + std * noise[i, 0]
        for k in range(n_corrections):
            size = 2 * 0.3**2 * float(sde.std(s)) ** 2
            x = x + size * score(x, s) + (2 * size) ** 0.5 * noise[i, 1 + k]
        assert residual(states[i + 1][1], x) < 1e-13
    if n_corrections == 0 and churn:
        plain = list(euler_maruyama(sde, score, states[0][1], times, noise=noise[:, 0], churn=churn))
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(plain, states, strict=True))


def kl_of_chain(n, n_corrections, snr=0.16):
    """KL(p‖p_θ), nats, of n steps with corrections and the exact score of three Gaussians: every step is Gaussian."""
    sde = VP()
    times = reverse_times(sde, n, 1e-3, detail=0.1)

    def score(x, t):
        return THREE.diffuse(*sde.level(t)).score(x)

    steps = []
    for t, s in pairwise(times.tolist()):
        steps.append((lambda x, t=t, s=s: euler_step(sde, score, x, t, s)[0], euler_std(sde, t, s)))
        std = langevin_step(sde, score, np.zeros((1, 1)), s, snr)[1]
        steps += n_corrections * [(lambda x, s=s: langevin_step(sde, score, x, s, snr)[0], std)]
    density = chain_density(steps, 1, final_spacing=0.01, resolution=0.35)
    return density.kl_from(THREE.diffuse(*sde.level(1e-3)).log_prob(density.points))


def test_a_correction_helps_and_another_step_helps_more():
    """Exact densities: .0154 nats for 20 steps, .0126 with a correction each, .0036 for 40 steps."""
    plain, corrected, doubled = kl_of_chain(20, 0), kl_of_chain(20, 1), kl_of_chain(40, 0)
    assert doubled < corrected < plain
    assert kl_of_chain(20, 3) < corrected


def test_corrections_mend_a_wrong_start():
    """From a start three times too wide, at the exact score: what corrections are for."""
    sde, variance = VP(), 0.4
    score = gaussian_score(sde, variance)
    times = np.array([0.05, 0.045])

    def end_variance(n_corrections):
        n = n_corrections + 1
        noise = np.zeros((1, n, n + 1, 1))
        noise[0, np.arange(n), np.arange(n)] = 1
        start = np.zeros((n + 1, 1))
        start[n] = 1
        path = predictor_corrector(sde, score, start, times, None, noise, n_corrections=n_corrections, snr=0.4)
        *_, (_, x) = path
        return float((x[:n, 0] ** 2).sum() + x[n, 0] ** 2 * 9 * variance)

    exact = sde.level(0.045)[0] ** 2 * variance + sde.level(0.045)[1] ** 2
    errors = [abs(end_variance(n) - exact) for n in (0, 10, 100)]
    assert errors[0] > 2
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]


def test_noise_and_choices_are_checked():
    sde, x = VP(), np.zeros((2, 1))
    score, times = gaussian_score(sde, 1.0), np.array([1.0, 0.5])
    with pytest.raises(ValueError, match="rng or noise"):
        list(predictor_corrector(sde, score, x, times))
    with pytest.raises(ValueError, match="noise must have shape"):
        list(predictor_corrector(sde, score, x, times, noise=np.zeros((1, 1, 2, 1))))
    with pytest.raises(ValueError, match="n_corrections must be"):
        list(predictor_corrector(sde, score, x, times, np.random.default_rng(0), n_corrections=-1))
    for snr in -1.0, 1.0:
        with pytest.raises(ValueError, match="snr must be"):
            langevin_step(sde, score, x, 0.5, snr)
    for bad in {"n_corrections": -1}, {"n_corrections": 0, "snr": -1.0}:
        with pytest.raises(ValueError, match="must be"):
            model_of_three().sample_path(2, rng=0, **bad)


@cache
def model_of_three():
    return ScoreSDE(n_steps=300, hidden=(16,), n_sample_steps=20, rng=0).fit(THREE.sample(500, rng=0))


@pytest.mark.parametrize("churn", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, int])
def test_no_corrections_are_euler_maruyama_bit_for_bit(dtype, churn):
    sde, x = VP(), np.array([[1], [2]], dtype=dtype)
    times, score = reverse_times(sde, 4, 0.01), gaussian_score(sde, np.float64(0.3))
    plain = euler_maruyama(sde, score, x, times, np.random.default_rng(0), churn=churn)
    corrected = predictor_corrector(sde, score, x, times, np.random.default_rng(0), churn=churn, n_corrections=0)
    for (_, a), (_, b) in zip(plain, corrected, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    assert len(list(predictor_corrector(sde, score, x, times, churn=0.0, n_corrections=0))) == 5  # needs no noise


def test_a_model_corrects_its_samples():
    model = model_of_three()
    plain, corrected = model.sample(50, rng=1), model.sample(50, rng=1, n_corrections=2, snr=0.3)
    assert corrected.shape == plain.shape
    assert not np.array_equal(corrected, plain)
    assert np.array_equal(model.sample(50, rng=1, n_corrections=0), plain)
    steps = list(model.sample_path(50, 1, n_corrections=2, snr=0.3))
    assert steps[-1][1].dtype == np.float32
    with pytest.raises(ValueError, match="method must be 'euler'"):
        model.sample(5, rng=1, churn=0.0, method="heun", n_corrections=1)
