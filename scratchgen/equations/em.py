"""The problems of the rows about EM, (15)-(18), and about the likelihood, (1)."""

from __future__ import annotations

import numpy as np

from scratchgen.conformance import (
    Check,
    check_covariance_types,
    check_e_step,
    check_em,
    check_em_loop,
    check_factor_analysis_step,
    check_free_energy,
    check_kl,
    check_kmeans,
    check_linear_gaussian_posterior,
    check_statistics,
    check_table_em,
)
from scratchgen.em import CategoricalLaw, indicators, table_statistics
from scratchgen.em import e_step as package_e_step
from scratchgen.em import m_step as package_m_step
from scratchgen.equations.problems import (
    MU,
    NOISE,
    PLANE,
    POINTS,
    SAMPLE_COV,
    Functions,
    P,
    Q,
    W,
    X,
    parameters_of,
    waves,
)
from scratchgen.equations.row import both, noted
from scratchgen.likelihood import softmax
from scratchgen.mixture import Mixture
from scratchgen.validation import Array

EIGHTEEN = np.concatenate([1 + 0.4 * waves(9, 2), -1 + 0.6 * waves(9, 2, shift=1.0)])  # points in the plane
COPIES = np.arange(18) % 4  # weights of the points: a point of weight w counts as w points


def cross_entropy(f: Functions) -> Check:
    """(1): −E_p log q − H(p) is KL(p‖q)."""
    cross_entropy, entropy = f("likelihood.cross_entropy_discrete"), f("likelihood.entropy_discrete")
    check = check_kl(lambda p, q: cross_entropy(p, q) - entropy(p), P, Q[:, 0] / Q[:, 0].sum())
    return noted(check, "as −E_p log q − H(p)")


def e_step(f: Functions) -> Check:
    """(18) on a mixture in the plane."""
    return check_e_step(
        lambda x, *parameters: np.exp(f("em.e_step")(x, Mixture(*parameters))[0]), POINTS, *parameters_of(PLANE)
    )


def free_energy(f: Functions) -> Check:
    """(17) at a q that is not the posterior."""
    log_resp = np.log(softmax(waves(6, 3)))
    return check_free_energy(
        lambda x, log_resp, *parameters: f("em.free_energy")(x, log_resp, Mixture(*parameters)),
        POINTS,
        log_resp,
        *parameters_of(PLANE),
    )


def em(f: Functions) -> Check:
    """(15)-(18): six steps on eighteen points, with a floor of the covariances."""

    def step(x: Array, *parameters: Array) -> tuple[Array, Array, Array]:
        mixture = Mixture(*parameters)
        return parameters_of(f("em.m_step")(x, package_e_step(x, mixture)[0], mixture, 0.05))

    return check_em(step, EIGHTEEN, *parameters_of(PLANE), floor=0.05)


def em_loop(f: Functions) -> Check:
    """(15)-(18): the loop over both steps, with five M-steps."""

    def run() -> tuple[Array, Array, Array, Array]:
        *_, last = f("em.em")(
            PLANE,
            lambda mixture: package_e_step(EIGHTEEN, mixture),
            lambda log_resp, mixture: package_m_step(EIGHTEEN, log_resp, mixture, 0.05),
            max_iter=5,
            log_prior=lambda mixture: 0.3,
        )
        return np.array(last.bounds) - 0.3, *parameters_of(last.theta)

    return check_em_loop(run, EIGHTEEN, *parameters_of(PLANE), n_steps=5, floor=0.05)


def sufficient_statistics(f: Functions) -> Check:
    """The statistics of all points at once, the sum of the statistics of two parts, and points with weights."""

    def statistics(parts: list[Array], weights: Array) -> tuple[Array, Array, Array, Array]:
        total, log_likelihood, start = None, 0.0, 0
        for x in parts:
            log_resp, log_prob = package_e_step(x, PLANE)
            w, start = weights[start : start + len(x)], start + len(x)
            new = f("em.sufficient_statistics")(x, log_resp, PLANE, w)
            total, log_likelihood = (
                new if total is None else total + new,
                log_likelihood + w @ log_prob / weights.sum(),
            )
        assert total is not None
        return np.exp(total.log_counts), total.means, total.covariances, np.asarray(log_likelihood)

    return both(
        *(
            check_statistics(
                lambda parts=parts, copies=copies: statistics(parts, copies),  # type: ignore[misc]
                np.repeat(EIGHTEEN, copies, axis=0),
                *parameters_of(PLANE),
            )
            for parts, copies in (
                ([EIGHTEEN], np.ones(18, dtype=int)),
                ([EIGHTEEN[:5], EIGHTEEN[5:]], np.ones(18, dtype=int)),
                ([EIGHTEEN[:5], EIGHTEEN[5:]], COPIES),
            )
        )
    )


def statistics_with_missing(f: Functions) -> Check:
    """Rows without their third value have the statistics of the plane; a missing z of (11) has its posterior."""
    covariances = 0.5 * np.tile(np.eye(3), (3, 1, 1))
    covariances[:, :2, :2] = PLANE.covariances
    covariances[:, 2, :2] = covariances[:, :2, 2] = 0.2 * waves(3, 2)
    space = Mixture(PLANE.weights, np.c_[PLANE.means, waves(3)], covariances)

    def of_plane(copies: Array) -> tuple[Array, Array, Array, Array]:
        found, log_likelihood = f("em.statistics_with_missing")(np.c_[EIGHTEEN, np.full(18, np.nan)], space, copies)
        return np.exp(found.log_counts), found.means[:, :2], found.covariances[:, :2, :2], np.asarray(log_likelihood)

    def posterior(x: Array, W: Array, mean: Array, noise_variance: float) -> tuple[Array, Array]:
        D, k = W.shape
        joint = np.block([[np.eye(k), W.T], [W, W @ W.T + noise_variance * np.eye(D)]])
        law = Mixture([1.0], [np.r_[np.zeros(k), mean]], [joint])
        rows = [f("em.statistics_with_missing")(np.r_[np.full(k, np.nan), row][None], law)[0] for row in x]
        return np.array([row.means[0, :k] for row in rows]), rows[0].covariances[0, :k, :k]

    return both(
        noted(check_linear_gaussian_posterior(posterior, X, W, MU, NOISE), "where z are the missing values"),
        *(
            check_statistics(
                lambda copies=copies: of_plane(copies),  # type: ignore[misc]
                np.repeat(EIGHTEEN, copies, axis=0),
                *parameters_of(PLANE),
            )
            for copies in (np.ones(18, dtype=int), COPIES)
        ),
    )


def complete_rows(f: Functions) -> Check:
    """Missing values x_b = z + noise have the posterior mean of (11), and its covariance plus that of the noise."""

    def posterior(x: Array, W: Array, mean: Array, noise_variance: float) -> tuple[Array, Array]:
        D, k = W.shape
        gaps = np.c_[x, np.full((len(x), k), np.nan)]
        found = f("em.complete_rows")(gaps, np.r_[W, np.eye(k)], np.r_[mean, np.zeros(k)], noise_variance)
        return found.x[:, D:], found.covariance[D:, D:] - noise_variance * np.eye(k)

    check = check_linear_gaussian_posterior(posterior, X, W, MU, NOISE)
    return noted(check, "where z are the missing values without their noise")


def statistics_in_one_pass(f: Functions) -> Check:
    """Both forms, with quadratic features and with whitened coordinates, diagonal covariances, and weights."""
    far = Mixture(PLANE.weights, 300 * PLANE.means, PLANE.covariances)  # too far apart for quadratic features
    diagonal = Mixture(PLANE.weights, PLANE.means, PLANE.covariances * np.eye(2))

    def statistics(x: Array, mixture: Mixture, diagonal: bool, w: Array) -> tuple[Array, Array, Array, Array]:
        found, log_likelihood = f("fast.em_statistics.expected_statistics")(x, mixture, diagonal, w)
        covariances = found.covariances
        if diagonal:  # only the diagonals are defined
            log_resp, _ = package_e_step(x, mixture)
            resp = w[:, None] * np.exp(log_resp - log_resp.max(axis=0))
            resp /= resp.sum(axis=0)
            means = resp.T @ x
            exact = np.einsum("nk,nkd,nke->kde", resp, x[:, None] - means, x[:, None] - means)
            covariances = np.where(np.eye(2) > 0, covariances, exact)
        return np.exp(found.log_counts), found.means, covariances, np.asarray(log_likelihood)

    return both(
        *(
            check_statistics(
                lambda x=x, mixture=mixture, flag=flag, copies=copies: statistics(x, mixture, flag, copies),  # type: ignore[misc]
                np.repeat(x, copies, axis=0),
                *parameters_of(mixture),
            )
            for copies in (np.ones(18, dtype=int), COPIES)
            for x, mixture, flag in (
                (EIGHTEEN, PLANE, False),
                (EIGHTEEN + 300 * PLANE.means[np.arange(18) % 3], far, False),
                (EIGHTEEN, diagonal, True),
            )
        )
    )


def covariance_types(f: Functions) -> Check:
    """Three spreads; one of them is below the floor in one direction."""
    spread = np.stack([PLANE.covariances[0], PLANE.covariances[1], np.array([[0.5, 0.1], [0.1, 0.06]])])
    counts = np.array([4.0, 1.5, 7.0])

    def maximum(kind: str, variance: float, count: float) -> Array:
        prior = (variance, count) if count else None
        return f("em.covariance_maximum")(spread, counts, kind, 0.08, prior)

    return check_covariance_types(maximum, spread, counts, 0.08)


def kmeans(f: Functions) -> Check:
    """Three centres on eighteen points, without and with weights, with a start far from the solution."""

    def weighted(repeated: Array, centres: Array) -> Array:
        centres = f("em.kmeans")(EIGHTEEN, centres, sample_weight=COPIES)
        return np.asarray(centres)

    return both(
        check_kmeans(f("em.kmeans"), EIGHTEEN, EIGHTEEN[[0, 1, 12]]),
        check_kmeans(weighted, np.repeat(EIGHTEEN, COPIES, axis=0), EIGHTEEN[[0, 1, 12]]),
    )


def table_em(f: Functions) -> Check:
    """Two tables over three levels in two dimensions, with pseudo-counts and weights."""
    x = (np.arange(16).reshape(8, 2) ** 2 % 7 % 3).astype(np.float64)
    pseudo_counts = 0.5 + 0.2 * waves(2, 3)

    def check(copies: Array) -> Check:
        def step(repeated: Array, weights: Array, tables: Array) -> tuple[Array, Array, Array]:
            log_resp, log_prob = package_e_step(x, CategoricalLaw(weights, tables))
            law = f("em.categorical_m_step_from_statistics")(
                table_statistics(indicators(x, 3), log_resp, copies), pseudo_counts
            )
            return np.repeat(log_prob, copies), law.weights, law.probabilities

        repeated = np.repeat(x, copies, axis=0)
        return check_table_em(step, repeated, softmax(waves(2)), softmax(waves(2, 2, 3, shift=1.0)), pseudo_counts)

    return both(check(np.ones(8, dtype=int)), check(COPIES[:8]))


def factor_analysis_step(f: Functions) -> Check:
    """One step with one noise variance per dimension."""
    return check_factor_analysis_step(f("em.factor_analysis_em_step"), SAMPLE_COV, W[:, :2], 0.5 + 0.3 * waves(4))
