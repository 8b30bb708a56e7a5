"""Checks of reverse steps from a law over levels, and of even log-SNR: right code passes, mistakes are named."""

import numpy as np
import pytest

from scratchgen import NoiseSchedule
from scratchgen.conformance import check_even_log_snr, check_law_moments, check_mixture_step
from scratchgen.ddpm import law_moments, mixture_log_prob

SCHEDULES = [NoiseSchedule([0.02, 0.1, 0.25, 0.4, 0.6]), NoiseSchedule.linear(100), NoiseSchedule.cosine(12)]
SCHEDULE = SCHEDULES[0]


def normal(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def components(t, x_t, levels):
    """A_t x_t + B_t l_k, (N, D, K), and β̃_t², from Bayes' rule for Gaussians."""
    precision = SCHEDULE.alpha[t] ** 2 / SCHEDULE.beta[t] ** 2 + 1 / SCHEDULE.beta_bar[t - 1] ** 2
    keep, gain = SCHEDULE.alpha[t] / SCHEDULE.beta[t] ** 2, SCHEDULE.alpha_bar[t - 1] / SCHEDULE.beta_bar[t - 1] ** 2
    return (keep * x_t[:, :, None] + gain * levels) / precision, 1 / precision


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_right_code_passes_for_any_schedule(schedule):
    assert check_mixture_step(lambda *a: mixture_log_prob(schedule, *a), schedule)
    assert check_law_moments(lambda *a: law_moments(schedule, *a), schedule)


def log_of_sum(law, each):
    return np.log((law * np.exp(each)).sum(axis=2)).sum(axis=1)


H = np.array([[0.1, 0.4, 0.2, 0.3], [0.6, 0.05, 0.25, 0.1]])
STEPS = {
    "the logarithm stands inside the sum": lambda x, m, v, law: (law * normal(x, m, v)).sum(axis=(1, 2)),
    "all pixels share one level": lambda x, m, v, law: np.log((law.prod(1) * np.exp(normal(x, m, v).sum(1))).sum(1)),
    "mean of the mixture and the variance β̃_t²": lambda x, m, v, law: normal(x[..., 0], (law * m).sum(2), v).sum(
        axis=1
    ),
    "it is the Gaussian with the mean and the variance of the mixture": lambda x, m, v, law: normal(
        x[..., 0], (law * m).sum(2), v + (law * (m - (law * m).sum(2, keepdims=True)) ** 2).sum(2)
    ).sum(axis=1),
    "the weights are the histograms": lambda x, m, v, law: log_of_sum(H, normal(x, m, v)),
    "β̃_t stands where β̃_t² belongs": lambda x, m, v, law: log_of_sum(law, normal(x, m, v**0.5)),
    "−½ log 2π is missing": lambda x, m, v, law: log_of_sum(law, normal(x, m, v)) + np.log(2 * np.pi),
    "": lambda x, m, v, law: log_of_sum(law, normal(x, m, v)) + x[:, 0, 0],
}


@pytest.mark.parametrize("words", STEPS)
def test_a_wrong_mixture_step_is_named(words):
    def log_prob(t, x_prev, x_t, levels, law):
        return STEPS[words](x_prev[:, :, None], *components(t, x_t, levels), law)

    check = check_mixture_step(log_prob, SCHEDULE)
    assert not check
    assert words in check.diagnosis
    assert bool(words) != check.diagnosis.endswith("no known mistake gives these numbers")


VARIANCES = {
    "the variance of the law is missing": lambda t, B, V: SCHEDULE.beta_tilde[t] ** 2 + 0 * V,
    "B_t is not squared": lambda t, B, V: SCHEDULE.beta_tilde[t] ** 2 + B * V,
    "B_t is missing": lambda t, B, V: SCHEDULE.beta_tilde[t] ** 2 + V,
    "β_t² stands where β̃_t² belongs": lambda t, B, V: SCHEDULE.beta[t] ** 2 + B**2 * V,
    "β̃_t² is missing": lambda t, B, V: B**2 * V,
    "the variance is that of all pixels": lambda t, B, V: (
        SCHEDULE.beta_tilde[t] ** 2 + B**2 * np.repeat(V.mean(axis=1, keepdims=True), 2, axis=1)
    ),
}


@pytest.mark.parametrize("words", VARIANCES)
def test_a_wrong_variance_of_the_law_is_named(words):
    def moments(t, x_t, levels, law):
        mean, _ = components(t, x_t, levels)
        V = (law * levels**2).sum(axis=2) - (law @ levels) ** 2
        B = SCHEDULE.alpha_bar[t - 1] * SCHEDULE.beta[t] ** 2 / SCHEDULE.beta_bar[t] ** 2
        return (law * mean).sum(axis=2), VARIANCES[words](t, B, V)

    check = check_law_moments(moments, SCHEDULE)
    assert not check
    assert words in check.diagnosis


def test_a_chain_with_steps_too_narrow_for_quadrature_is_refused():
    with pytest.raises(ValueError, match=r"^check_law_moments: schedule needs a step t >= 2 with β̃_t above 0.001"):
        check_law_moments(lambda *a: a, NoiseSchedule([0.5]))


def variances(log_snr):
    """β_t² of a chain from its log-SNRs, by 1 − ᾱ_t²/ᾱ²_{t−1}."""
    signal = np.concatenate([[1.0], 1 / (1 + np.exp(-log_snr))])
    return 1 - signal[1:] / signal[:-1]


GRIDS = {
    "half the log-SNR": lambda T, first, last: 2 * np.linspace(first, last, T),
    "the grid has T + 1 steps": lambda T, first, last: np.linspace(first, last, T + 1)[:-1],
    "the first log-SNR is that of t = 0": lambda T, first, last: np.linspace(first, last, T + 1)[1:],
    "powers of ten": lambda T, first, last: np.log(10) * np.linspace(first, last, T),
}


@pytest.mark.parametrize("words", GRIDS)
def test_a_wrong_grid_of_log_snr_is_named(words):
    assert check_even_log_snr(lambda *a: variances(np.linspace(a[1], a[2], a[0])))
    check = check_even_log_snr(lambda *a: variances(GRIDS[words](*a)))
    assert not check
    assert words in check.diagnosis
