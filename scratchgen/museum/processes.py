"""Wing one, chapter (30)-(34): mistakes in the SDE, its reversal, score matching and likelihoods."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from scratchgen.museum.exhibit import exhibit
from scratchgen.sde import (
    euler_maruyama,
    euler_std,
    euler_step,
    langevin_step,
    reverse_drift,
    reverse_moments,
    sde_log_prob_bound,
)

# --- (31)-(34): the SDE ----------------------------------------------------------------------------------------------


@exhibit("scale is e^(−B), the square of e^(−B/2)", "mutation audit", "sde.VP.marginal", "check_sde")
def _squared_scale(self, t):
    B = self.beta_integral(t)
    return np.exp(-B), np.sqrt(-np.expm1(-B))


@exhibit(
    "the score has the wrong sign in the reverse drift",
    "jsboige/CoursIA PR #16132",
    "sde.reverse_drift",
    "check_reverse_sde",
)
def _drift_with_the_wrong_sign(sde, score, x, t, stochasticity=1.0):
    return sde.drift(x, t) + 0.5 * (1 + stochasticity**2) * float(sde.diffusion(t)) ** 2 * score


@exhibit("the flow's ½ in the reverse SDE", "mutation audit", "sde.reverse_drift", "check_reverse_sde")
def _half_of_the_score(sde, score, x, t, stochasticity=1.0):
    return sde.drift(x, t) - 0.5 * float(sde.diffusion(t)) ** 2 * score


@exhibit("the steps of the reverse SDE have dt > 0", "the deck as printed", "sde.euler_step", "check_reverse_step")
def _forward_in_time(sde, score, x, t, s, stochasticity=1.0):
    return x + (t - s) * reverse_drift(sde, score, x, t, stochasticity), euler_std(sde, t, s, stochasticity)


@exhibit(
    "the score is evaluated at t − h, the end of the step",
    "mutation audit",
    "sde.euler_maruyama",
    "check_reverse_sampler",
)
def _evaluated_where_it_arrives(
    sde, score, x, times, rng=None, noise=None, stochasticity=1.0, n_corrections=0, snr=0.16
):
    def late(x, t):
        return score(x, float(times[min(np.searchsorted(-times, -t) + 1, len(times) - 1)]))

    return euler_maruyama(sde, late, x, times, rng, noise, stochasticity, n_corrections, snr)


@exhibit(
    "dt = −T/N on a grid with other steps",
    "yang-song/score_sde, sampling",
    "sde.euler_maruyama",
    "check_reverse_sampler",
)
def _constant_dt(sde, score, x, times, rng=None, noise=None, stochasticity=1.0, n_corrections=0, snr=0.16):
    dt, noise = sde.horizon / (len(times) - 1), noise.reshape(len(times) - 1, 1 + n_corrections, *x.shape)
    yield float(times[0]), x
    for t, s, z in zip(times[:-1].tolist(), times[1:].tolist(), noise, strict=True):
        mean, std = euler_step(sde, score(x, t), x, t, t - dt, stochasticity)
        x = mean + std * z[0]
        for correction in z[1:]:
            mean, std = langevin_step(sde, score(x, s), x, s, snr)
            x = mean + std * correction
        yield s, x


@exhibit(
    "denoising score matching towards +ε/std",
    "mutation audit",
    "sde.denoising_score_matching",
    "check_score_matching",
)
def _positive_target(score, noise, std):
    return ((score - noise / std) ** 2).sum(axis=1)


@exhibit("the divergence without its factor 2", "mutation audit", "sde.implicit_score_matching", "check_score_matching")
def _single_divergence(score, divergence):
    return (score**2).sum(axis=1) + divergence


def _flow_log_prob(sde, score_and_divergence, x, rtol, strength, ends):
    """`probability_flow_log_prob` with a given factor of the score, between given times."""
    from scipy.integrate import solve_ivp

    N, D = x.shape

    def slope(t, state):
        points = state[: N * D].reshape(N, D)
        score, divergence = score_and_divergence(points, t)
        velocity = sde.drift(points, t) - strength(t) * score
        return np.concatenate([velocity.ravel(), D * float(sde.rate(t)) - strength(t) * divergence])

    start = np.concatenate([x.astype(np.float64).ravel(), np.zeros(N)])
    end = solve_ivp(slope, ends, start, method="DOP853", rtol=rtol, atol=0.1 * rtol).y[:, -1]
    return sde.prior_log_prob(end[: N * D].reshape(N, D)) + end[N * D :]


@exhibit(
    "g for g² in the probability flow",
    "jmtomczak/intro_dgm, score-based example",
    "sde.probability_flow_log_prob",
    "check_probability_flow_likelihood",
)
def _flow_with_g(sde, score_and_divergence, x, t_min=0.0, rtol=1e-6):
    def strength(t):
        return 0.5 * float(sde.diffusion(t))

    return _flow_log_prob(sde, score_and_divergence, x, rtol, strength, (t_min, sde.horizon))


@exhibit(
    "the flow is integrated from T to 0, with the data as its start",
    "openai/consistency_models_cifar10 #12",
    "sde.probability_flow_log_prob",
    "check_probability_flow_likelihood",
)
def _flow_in_the_wrong_direction(sde, score_and_divergence, x, t_min=0.0, rtol=1e-6):
    def strength(t):
        return 0.5 * float(sde.diffusion(t)) ** 2

    return _flow_log_prob(sde, score_and_divergence, x, rtol, strength, (sde.horizon, t_min))


def _path_integral(sde, score_error):
    """∫ g² E‖∇log p_t − s_θ‖² dt over [0, T]."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    y = 0.5 * (nodes + 1)
    integrand = np.array([float(sde.diffusion(t)) ** 2 * score_error(float(t)) for t in sde.horizon * y**3])
    return float((0.5 * weights * 3 * sde.horizon * y**2 * integrand).sum())


@exhibit("T for T/2 in (34)", "mutation audit", "sde.kl_bound", "check_kl_bound")
def _whole_path(sde, score_error, prior_kl):
    return _path_integral(sde, score_error) + prior_kl


@exhibit("an average over t, without the factor T, in (34)", "mutation audit", "sde.kl_bound", "check_kl_bound")
def _without_horizon(sde, score_error, prior_kl):
    return 0.5 * _path_integral(sde, score_error) / sde.horizon + prior_kl


@exhibit("KL(p_T‖π) is left out of (34)", "mutation audit", "sde.kl_bound", "check_kl_bound")
def _without_prior_kl(sde, score_error, prior_kl):
    return 0.5 * _path_integral(sde, score_error)


@exhibit("the divergence of the drift is left out", "mutation audit", "sde.sde_log_prob_bound", "check_log_prob_bound")
def _without_drift(sde, score_and_divergence, x, noise, weights, prior_log_prob):
    right = sde_log_prob_bound(sde, score_and_divergence, x, noise, weights, prior_log_prob=prior_log_prob)
    return right - float(sde.log_scale(sde.horizon))


@exhibit(
    "½ is left out of the bound of one example", "mutation audit", "sde.sde_log_prob_bound", "check_log_prob_bound"
)
def _whole_integral(sde, score_and_divergence, x, noise, weights, prior_log_prob):
    def twice(points, t):  # a score with twice the loss
        score, divergence = score_and_divergence(points, t)
        return 2**0.5 * score, 2 * divergence

    return sde_log_prob_bound(sde, twice, x, noise, weights, prior_log_prob=prior_log_prob)


@exhibit("(34) read as a bound for the flow", "the deck as printed", "sde.reverse_moments", "check_reverse_law")
def _law_of_the_flow(sde, score, mean, covariance, t_min=0.0, stochasticity=1.0):
    return reverse_moments(sde, score, mean, covariance, t_min, stochasticity=0.0)
