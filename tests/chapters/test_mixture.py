"""Mixture, the oracle that grades trained models: every formula against an independent oracle.

Derivatives are compared with complex steps Im f(x + ih)/h at h = 1e-30, which have no truncation error.  Their density
uses inverse and determinant, and shares no code with the package, which uses Cholesky factors.
"""

from itertools import pairwise
from math import exp, log, log1p, pi, sqrt

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from scratchgen import GaussianMixture, Mixture, datasets, grading, sde
from scratchgen.likelihood import entropy_discrete, entropy_gaussian
from scratchgen.testing import mixtures, mixtures_and_points, reals
from tests.strategies import passes_as_sample, relative, residual

STEP = 1e-30


# --- the oracle -------------------------------------------------------------------------------------------


def naive_log_joint(mixture, x):
    """log w_k N(x; m_k, C_k), (N, K), for real or complex x."""
    columns = []
    for w, m, C in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
        quadratic = np.einsum("nd,de,ne->n", x - m, np.linalg.inv(C), x - m)
        columns.append(np.log(w) - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * C)[1]))
    return np.stack(columns, axis=1)


def naive_log_prob(mixture, x):
    joint = naive_log_joint(mixture, x)
    top = joint.real.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(joint - top).sum(axis=1))


def naive_score(mixture, x):
    """−Σ_k p(k | x) C_k⁻¹(x − m_k), for real or complex x."""
    posterior = np.exp(naive_log_joint(mixture, x) - naive_log_prob(mixture, x)[:, None])
    pairs = zip(mixture.means, mixture.covariances, strict=True)
    return -sum(posterior[:, [k]] * ((x - m) @ np.linalg.inv(C)) for k, (m, C) in enumerate(pairs))


def complex_step(f, x):
    """∂f/∂x_d in a new last axis."""
    return np.stack([f(x + 1j * STEP * e).imag / STEP for e in np.eye(x.shape[1])], axis=-1)


def grid(mixture, width=np.inf, include=()):
    """Nodes (M, 1) and spacing of a trapezoid rule for p(x_0) times a Gaussian factor of this width, in 1-D.

    The nodes reach 13 widths beyond every mean and beyond `include`, at a tenth of the narrowest factor.
    """
    m, s = mixture.means[:, 0], np.sqrt(mixture.covariances[:, 0, 0])
    step = 0.1 * min(s.min(), width)
    low, high = (edge(m + sign * 13 * s) for edge, sign in ((np.min, -1), (np.max, 1)))
    if len(include):
        low, high = min(low, np.min(include) - 13 * width), max(high, np.max(include) + 13 * width)
    return np.arange(low, high + step, step)[:, None], step


TWO = Mixture([0.3, 0.7], [[-1.0, 0.5], [1.5, -1.0]], [[[0.5, 0.2], [0.2, 0.3]], [[1.0, -0.6], [-0.6, 0.8]]])


# --- density and posterior --------------------------------------------------------------------------------


@given(mixtures_and_points())
def test_log_prob_is_the_textbooks(pair):
    mixture, x = pair
    assert residual(mixture.log_joint(x), naive_log_joint(mixture, x)) < 1e-10
    assert residual(mixture.log_prob(x), naive_log_prob(mixture, x)) < 1e-10


@given(mixtures_and_points())
def test_posterior_is_the_bayes_ratio_and_sums_to_one(pair):
    """(18): p(k | x) p(x) = w_k N(x; m_k, C_k)."""
    mixture, x = pair
    posterior = mixture.posterior(x)
    assert residual(posterior.sum(axis=1), np.ones(len(x))) < 1e-12
    log_ratio = naive_log_joint(mixture, x) - naive_log_prob(mixture, x)[:, None]
    assert residual(posterior, np.exp(log_ratio)) < 1e-10
    assert posterior.min() >= 0


@given(mixtures(max_dimension=2))
def test_quadrature_integrates_density_mean_and_covariance(mixture):
    points, weights = mixture.quadrature()
    mass = weights * np.exp(mixture.log_prob(points))
    centred = points - mixture.mean()
    assert abs(mass.sum() - 1) < 1e-12
    assert residual(mass @ points, mixture.mean()) < 1e-11
    assert residual((centred.T * mass) @ centred, mixture.covariance()) < 1e-11


def test_covariance_keeps_its_digits_far_from_zero():
    """E xxᵀ − E x E xᵀ at an offset of 2^30 would have no correct digit."""
    offset = 2.0**30
    moved = Mixture(TWO.weights, np.round(TWO.means * 16) / 16 + offset, TWO.covariances)
    here = Mixture(TWO.weights, np.round(TWO.means * 16) / 16, TWO.covariances)
    assert residual(moved.covariance(), here.covariance()) < 1e-6


def test_nearly_normalised_weights_make_a_density():
    """float32 probabilities sum to 1 only up to 1e-7; the mass, the mean and the posterior must not change."""
    weights = np.array([1, 2, 4], np.float32) / np.float32(7)
    off = weights * np.float32(1 + 4e-7)
    assert 1e-8 < abs(off.astype(float).sum() - 1) < 1e-6
    mixture = Mixture(off, [[1e6], [1e6], [1e6]], np.ones((3, 1, 1)))
    points, w = mixture.quadrature()
    assert abs((w * np.exp(mixture.log_prob(points))).sum() - 1) < 1e-9
    assert abs(mixture.mean()[0] - 1e6) < 1e-6


# --- score ------------------------------------------------------------------------------------------------


@pytest.mark.equation("mixture-score")
@given(mixtures_and_points())
def test_score_is_the_gradient_of_log_prob(pair):
    mixture, x = pair
    score = mixture.score(x)
    assert score.shape == x.shape
    assert residual(score, complex_step(lambda y: naive_log_prob(mixture, y), x)) < 1e-9


@given(mixtures_and_points())
def test_score_jacobian_is_the_jacobian_of_the_score(pair):
    mixture, x = pair
    jacobian = mixture.score_jacobian(x)
    assert residual(jacobian, complex_step(lambda y: naive_score(mixture, y), x)) < 1e-8
    assert residual(jacobian, jacobian.swapaxes(1, 2)) < 1e-12


# --- diffusion --------------------------------------------------------------------------------------------

kernels = st.tuples(st.floats(0.05, 1.5), st.floats(0.05, 1.5))  # (scale, std)


@pytest.mark.equation("mixture-denoiser")
@given(mixtures_and_points(), kernels)
def test_denoiser_is_tweedies(pair, kernel):
    """E[x_0 | x_t] = (x_t + std² ∇log p_t)/scale."""
    (mixture, x), (scale, std) = pair, kernel
    tweedie = (x + std**2 * mixture.diffuse(scale, std).score(x)) / scale
    assert residual(mixture.denoise(x, scale, std), tweedie) < 1e-9


@given(mixtures_and_points(), kernels)
def test_denoiser_variance_is_tweedies_second_formula(pair, kernel):
    """Cov(x_0 | x_t) = (std²/scale²)(I + std² ∇∇ᵀlog p_t)."""
    (mixture, x), (scale, std) = pair, kernel
    trace = np.trace(mixture.diffuse(scale, std).score_jacobian(x), axis1=1, axis2=2)
    expected = (std / scale) ** 2 * (mixture.dimension + std**2 * trace)
    assert residual(mixture.denoise_variance(x, scale, std), expected) < 1e-9
    tiny = mixture.denoise_variance(x, 1.0, 1e-9)  # x_0 is known up to the noise
    assert residual(tiny / 1e-18, np.full(len(x), float(mixture.dimension))) < 1e-6
    forgotten = mixture.denoise_variance(x, 0.0, std)  # pure noise has no information on x_0
    assert residual(forgotten, np.full(len(x), np.trace(mixture.covariance()))) < 1e-9


@pytest.mark.equation("mixture-denoiser")
@given(mixtures_and_points(max_dimension=1), kernels)
def test_denoiser_is_its_integral(pair, kernel):
    """∫ x_0 N(x_t; scale x_0, std²) p(x_0) dx_0 divided by the same integral without x_0, in 1-D."""
    (mixture, x), (scale, std) = pair, kernel
    x_0, _ = grid(mixture, std / scale, include=x[:, 0] / scale)
    log_weight = -0.5 * ((x - scale * x_0.T) / std) ** 2 + mixture.log_prob(x_0)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    assert residual(mixture.denoise(x, scale, std)[:, 0], weight @ x_0[:, 0] / weight.sum(axis=1)) < 1e-9


@given(mixtures_and_points(max_dimension=1), kernels)
def test_diffused_density_is_the_convolution(pair, kernel):
    """p_t(x) = ∫ N(x; scale x_0, std²) p(x_0) dx_0, (25), in 1-D."""
    (mixture, x), (scale, std) = pair, kernel
    x_0, step = grid(mixture, std / scale)
    kernel = np.exp(-0.5 * ((x - scale * x_0.T) / std) ** 2) / (np.sqrt(2 * np.pi) * std)
    density = step * kernel @ np.exp(mixture.log_prob(x_0))
    assert np.abs(np.exp(mixture.diffuse(scale, std).log_prob(x)) - density).max() < 1e-11


@given(mixtures_and_points(), kernels, kernels)
def test_diffusing_twice_is_diffusing_once(pair, first, second):
    """The semigroup: scales multiply, variances add up as in (25)."""
    mixture, x = pair
    (a, s), (b, r) = first, second
    twice, once = mixture.diffuse(a, s).diffuse(b, r), mixture.diffuse(a * b, np.hypot(b * s, r))
    assert residual(twice.means, once.means) < 1e-13
    assert residual(twice.covariances, once.covariances) < 1e-13
    assert residual(twice.log_prob(x), once.log_prob(x)) < 1e-11


@given(mixtures_and_points())
def test_no_diffusion_changes_nothing_and_full_diffusion_forgets(pair):
    mixture, x = pair
    assert residual(mixture.diffuse(1.0, 0.0).log_prob(x), mixture.log_prob(x)) < 1e-13
    assert residual(mixture.denoise(x, 1.0, 0.0), x) < 1e-9
    forgotten = mixture.diffuse(0.0, 1.0)
    assert residual(forgotten.log_prob(x), stats.norm.logpdf(x).sum(axis=1)) < 1e-13
    assert residual(mixture.denoise(x, 0.0, 1.0), np.tile(mixture.mean(), (len(x), 1))) < 1e-12


def test_denoiser_keeps_its_digits_when_the_scale_is_small():
    """As scale → 0, E[x_0 | x_t] → E x_0 + scale Cov(x_0) x_t/std²; Tweedie's formula gives rounding noise there."""
    x, scale = np.array([[0.5, -0.3], [2.0, 1.0]]), 1e-9
    exact = TWO.mean() + scale * x @ TWO.covariance()
    assert residual(TWO.denoise(x, scale, 1.0), exact) < 1e-14
    tweedie = (x + TWO.diffuse(scale, 1.0).score(x)) / scale
    assert residual(tweedie, exact) > 1e-9


# --- entropy ----------------------------------------------------------------------------------------------


@given(reals((3,), 0.05, 1), st.just(1))
@example(np.array([0.2, 0.3, 0.5]), 2)
def test_entropy_of_separate_components_is_that_of_the_label_and_the_parts(weights, D):
    """H(x) = H(k) + Σ w_k H(x | k) if no two components overlap."""
    weights = weights / weights.sum()
    means, variances = 25.0 * np.arange(3)[:, None] * np.eye(D)[0], [0.5, 1.0, 2.0]
    mixture = Mixture(weights, means, [v * np.eye(D) for v in variances])
    parts = weights @ [entropy_gaussian(v * np.eye(D)) for v in variances]
    assert residual(mixture.entropy(), entropy_discrete(weights) + parts) < 1e-10


@given(mixtures(max_dimension=1))
def test_entropy_is_its_integral(mixture):
    """log p has branch points near the axis, so that the rule converges more slowly than for the mass."""
    x, step = grid(mixture)
    log_prob = mixture.log_prob(x)
    assert residual(mixture.entropy(), -step * (np.exp(log_prob) * log_prob).sum()) < 1e-10


@given(mixtures(max_dimension=1), reals((1,), -3, 3))
def test_kl_is_its_integral_and_zero_at_the_match(mixture, shift):
    other = Mixture(mixture.weights, mixture.means + shift, 1.5 * mixture.covariances)
    x, step = grid(mixture)
    log_p = mixture.log_prob(x)
    exact = step * (np.exp(log_p) * (log_p - naive_log_prob(other, x))).sum()
    assert residual(mixture.kl(other.log_prob), exact) < 2e-9
    assert abs(mixture.kl(mixture.log_prob)) < 1e-13
    assert residual(mixture.kl(lambda x: 0.0 * x[:, 0]), -mixture.entropy()) < 1e-12


def piecewise(f, centres, widths, low=-9.0, high=9.0):
    """∫ f by `quad` between points around every centre; every piece has one scale only."""
    around = np.add.outer(np.array(centres), np.outer(widths, [-30, -8, -3, -1, 0, 1, 3, 8, 30]).ravel()).ravel()
    edges = np.unique(np.concatenate([[low], around[(around > low) & (around < high)], [high]]))
    return sum(quad(f, a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0] for a, b in pairwise(edges))


def normal(x, mean, std):
    return exp(-0.5 * ((x - mean) / std) ** 2) / (std * sqrt(2 * pi))


@pytest.mark.equation(2)
@pytest.mark.parametrize("std", [0.1, 0.01, 0.001, 1e-4])
@pytest.mark.parametrize("centre", [0.3, -1.2345678])
def test_kl_sees_components_of_q_that_are_narrower_than_p(std, centre):
    """On p's grid alone the value for .01 at .3 is −.0397, and no KL is negative."""
    p = Mixture([1.0], [[0.0]], [[[1.0]]])
    q = Mixture([0.9, 0.1], [[0.0], [centre]], [[[1.0]], [[std**2]]])

    def density(x):
        return 0.9 * normal(x, 0, 1) + 0.1 * normal(x, centre, std)

    exact = piecewise(lambda x: normal(x, 0, 1) * log(normal(x, 0, 1) / density(x)), [centre], [std])
    assert p.kl(q) == pytest.approx(exact, abs=1e-10)
    back = piecewise(lambda x: density(x) * log(density(x) / normal(x, 0, 1)), [centre], [std])
    assert q.kl(p) == pytest.approx(back, abs=1e-10)
    if (std, centre) in {(0.01, 0.3), (0.001, 0.3)}:
        assert exact == pytest.approx({0.01: 0.0716, 0.001: 0.0975}[std], abs=1e-4)


def test_kl_of_products_is_the_sum_in_two_dimensions():
    """p and q have independent coordinates, and q a narrow component along the first."""
    p1, q1 = Mixture([1.0], [[0.0]], [[[1.0]]]), Mixture([0.8, 0.2], [[0.0], [0.41]], [[[1.0]], [[0.06**2]]])
    p = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    q = Mixture(q1.weights, [[0.0, 0.5], [0.41, 0.5]], [np.diag([1.0, 2.0]), np.diag([0.06**2, 2.0])])
    rest = 0.5 * (0.5 + 0.5**2 / 2 - 1 + np.log(2))  # KL(N(0, 1)‖N(½, 2))
    assert p.kl(q) == pytest.approx(p1.kl(q1) + rest, abs=1e-9)


def test_a_kink_of_log_q_is_resolved():
    """Two narrow components of q, far from p's mass: log q has a kink where they are equal."""
    p, q = Mixture([1.0], [[0.1]], [[[1.0]]]), Mixture([0.5, 0.5], [[-0.5], [0.5]], [[[1e-3]], [[1e-3]]])

    def log_q(x):
        a, b = -((x + 0.5) ** 2) / 2e-3, -((x - 0.5) ** 2) / 2e-3
        return max(a, b) + log1p(exp(-abs(a - b))) + log(0.5 / sqrt(2e-3 * pi))

    exact = piecewise(lambda x: normal(x, 0.1, 1) * (log(normal(x, 0.1, 1)) - log_q(x)), [0.0], [1e-3, 0.1], -8.9, 9.1)
    assert p.kl(q) == pytest.approx(exact, rel=1e-7)


def test_kl_from_a_law_without_mass_there_is_infinite():
    p = Mixture([1.0], [[0.0]], [[[1.0]]])
    assert p.kl(lambda x: np.where(x[:, 0] > 1, -np.inf, 0.0)) == np.inf
    with pytest.raises(ArithmeticError, match=r"^f must be a number at every point"):
        p.kl(lambda x: np.full(len(x), np.nan))


def test_components_of_weight_0_and_laws_elsewhere_need_no_nodes():
    """A component of weight 0 and variance 1e-10 took 3.6 million nodes."""
    p, dead = Mixture([1.0], [[0.0]], [[[1.0]]]), Mixture([1.0, 0.0], [[0.0], [300.0]], [[[1.0]], [[1e-10]]])
    inside = Mixture([1.0, 0.0], [[0.0], [0.5]], [[[1.0]], [[1e-10]]])
    for points, weights in dead.quadrature(), p.quadrature(law=dead), p.quadrature(law=inside):
        assert np.array_equal(points, p.quadrature()[0])
        assert np.array_equal(weights, p.quadrature()[1])
    far = Mixture([1.0], [[50.0]], [[[1e-6]]])
    assert len(p.quadrature(law=far)[0]) == len(p.quadrature()[0])
    assert len(p.quadrature(law=Mixture([1.0], [[8.0]], [[[1e-6]]]))[0]) > 30_000


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("centre", "resolved"), [([9.8, 0], True), ([10.0, 0], False), ([0, 10.7], True), ([0, 10.9], False)]
)
def test_a_component_of_another_law_is_resolved_if_it_reaches_into_the_box(centre, sign, resolved):
    """The box reaches to ±9, and the component 9 of its deviations, (.9, 1.8), into every direction."""
    p = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    law = Mixture([0.5, 0.5], [sign * np.array(centre), [300.0, 300.0]], [np.diag([0.01, 0.04]), 1e-6 * np.eye(2)])
    assert p.quadrature(law=law)[1][0] == pytest.approx((0.05 if resolved else 0.5) ** 2, rel=1e-12)


def test_an_expectation_halves_its_spacing_until_every_column_agrees():
    """E|x − a| = 2φ(a) + a (2Φ(a) − 1) has a kink; a large column beside it must not end the halving."""
    p, a = Mixture([1.0], [[0.0]], [[[1.0]]]), 0.37
    exact = 2 * stats.norm.pdf(a) + a * (2 * stats.norm.cdf(a) - 1)
    alone = p.expectation(lambda x: np.abs(x - a))
    assert alone[0] == pytest.approx(exact, rel=1e-5)
    assert np.array_equal(alone, p.expectation(lambda x: np.abs(x - a), rtol=1e-5))
    assert abs(p.expectation(lambda x: np.abs(x - a), rtol=1.0)[0] - exact) > 1e-5
    beside = p.expectation(lambda x: np.column_stack([np.abs(x - a), np.full(len(x), 1e6)]))
    assert beside[0] == pytest.approx(alone[0], rel=1e-14)


def test_an_expectation_counts_every_node_that_has_mass_and_no_other():
    """E[1/p] is the sum of all weights, and an infinite f where p underflows adds nothing."""
    p = Mixture([1.0], [[0.0]], [[[1.0]]])
    total = p.expectation(lambda x: np.exp(-p.log_prob(x))[:, None], rtol=0.1)[0]
    assert total == pytest.approx(p.quadrature(0.15)[1].sum(), rel=1e-12)
    apart = Mixture([0.5, 0.5], [[0.0], [100.0]], np.ones((2, 1, 1)))
    assert apart.expectation(lambda x: np.where(np.abs(x - 50) < 5, np.inf, 1.0)) == pytest.approx(1, rel=1e-12)


def test_a_box_of_too_many_nodes_is_refused():
    narrow = Mixture([0.5, 0.5], [[0.0], [1.0]], [[[1.0]], [[1e-14]]])
    with pytest.raises(
        ArithmeticError,
        match=r"^quadrature needs nodes 5e-08 apart on a box of sides \[18\.\], more than 10,000,000: a component",
    ):
        narrow.quadrature()
    with pytest.raises(ValueError, match=r"^law must have 1 dimensions, as this law, got 2"):
        narrow.kl(Mixture([1.0], [[0.0, 0.0]], [np.eye(2)]))


@pytest.mark.parametrize(("arguments", "width"), [({}, 9.0), ({"width": 2.3}, 2.3)])
def test_quadrature_reaches_its_width_beyond_every_mean_and_a_step_further_at_most(arguments, width):
    mixture = Mixture([0.3, 0.7], [[-1.0, 0.0], [2.0, 0.5]], [np.diag([0.25, 1.0]), np.diag([4.0, 0.25])])
    points, _ = mixture.quadrature(**arguments)
    beyond = points.max(axis=0) - [2 + 2 * width, width]
    assert residual(points.min(axis=0), np.array([2 - 2 * width, -width])) < 1e-14
    assert np.all((beyond > -1e-9) & (beyond < 0.25 + 1e-9))


def test_components_of_weight_0_have_no_part_in_the_quadrature():
    """A variance of 1e-10 would take 3.6 million nodes, and a mean at 1e6 a box of that size."""
    alone = Mixture([0.3, 0.7], [[0.0], [3.0]], [[[1.0]], [[2.0]]])
    ghost = Mixture([0.3, 0.7, 0.0], [[0.0], [3.0], [1e6]], [[[1.0]], [[2.0]], [[1e-10]]])
    for found, expected in zip(ghost.quadrature(), alone.quadrature(), strict=True):
        assert np.array_equal(found, expected)
    assert abs(ghost.entropy() - alone.entropy()) < 1e-14


def test_quadrature_in_three_dimensions_is_refused():
    mixture = Mixture([1.0], [np.zeros(3)], [np.eye(3)])
    for call in mixture.quadrature, mixture.entropy, lambda: mixture.kl(mixture.log_prob):
        with pytest.raises(ValueError, match=r"^quadrature needs 1 or 2 dimensions, got 3; sample instead"):
            call()


# --- far away and degenerate ------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [1e3, 1e6])
def test_far_points_are_finite_and_belong_to_the_component_that_reaches_furthest(distance):
    """At 1e3 standard deviations every density underflows; the widest component must have responsibility 1."""
    mixture = Mixture([0.5, 0.5], [[0.0], [0.0]], [[[1.0]], [[4.0]]])
    x = np.array([[distance], [-distance]])
    assert np.array_equal(mixture.posterior(x), [[0, 1], [0, 1]])
    assert residual(mixture.log_prob(x), np.log(0.5) + stats.norm.logpdf(x[:, 0], 0, 2)) < 1e-14
    assert relative(mixture.score(x), -x / 4) < 1e-14
    assert residual(mixture.score_jacobian(x)[:, 0, 0], np.full(2, -0.25)) < 1e-12
    assert relative(mixture.denoise(x, 0.5, 1.0), 4 * 0.5 * x / (0.25 * 4 + 1)) < 1e-12


def test_jacobian_does_not_cancel_far_from_every_mean():
    """At 1e6 v vᵀ is 1e12: the rounding of E[v vᵀ] − s sᵀ, or of a posterior that sums to 1 ± 1e-7, would exceed −I."""
    mixture = Mixture([0.4, 0.6], [[0.0, 0.0], [1e-6, 0.0]], np.tile(np.eye(2), (2, 1, 1)))
    for distance in 1e3, 1e6:
        x = distance * np.array([[1.0, -3.0]])
        assert residual(mixture.posterior(x).sum(axis=1), np.ones(1)) < 1e-12
        assert residual(mixture.score_jacobian(x)[0], -np.eye(2)) < 1e-8


@given(mixtures_and_points(), kernels)
def test_component_of_weight_zero_is_not_there(pair, kernel):
    """Warnings are errors in this suite, so that nothing warns either."""
    mixture, x = pair
    D = mixture.dimension
    with_ghost = Mixture(
        [*mixture.weights, 0.0],
        [*mixture.means, np.full(D, 1e3)],
        [*mixture.covariances, 1e-4 * np.eye(D)],
    )
    for f in (
        lambda m: m.log_prob(x),
        lambda m: m.score(x),
        lambda m: m.score_jacobian(x),
        lambda m: m.denoise(x, *kernel),
        lambda m: m.mean(),
        lambda m: m.covariance(),
    ):
        assert residual(f(with_ghost), f(mixture)) < 1e-12
    assert np.array_equal(with_ghost.posterior(x)[:, -1], np.zeros(len(x)))
    assert np.all(with_ghost.sample(100, rng=0) < 500)


# --- equivariance -----------------------------------------------------------------------------------------


# --- sampling ---------------------------------------------------------------------------------------------

SKEWED = Mixture([0.2, 0.8], [[0, 3], [1, -1]], [[[1.0, 0.9], [0.9, 4.0]], [[0.3, -0.2], [-0.2, 0.5]]])
WRONG_MODELS = {
    "weights uniform": Mixture([0.5, 0.5], SKEWED.means, SKEWED.covariances),
    "components' means swapped": Mixture(SKEWED.weights, SKEWED.means[::-1], SKEWED.covariances),
    "means 0.05 off": Mixture(SKEWED.weights, SKEWED.means + 0.05, SKEWED.covariances),
    "variance for deviation": Mixture(SKEWED.weights, SKEWED.means, [C @ C for C in SKEWED.covariances]),
    "Lᵀ for L": Mixture(
        SKEWED.weights,
        SKEWED.means,
        [L.T @ L for L in np.linalg.cholesky(SKEWED.covariances)],
    ),
    "no correlation": Mixture(SKEWED.weights, SKEWED.means, [C * np.eye(2) for C in SKEWED.covariances]),
}


def test_samples_have_the_law():
    """A correct sampler fails here with probability 1e-7 over seeds; the next test shows which errors it finds."""
    assert passes_as_sample(SKEWED.sample(40_000, rng=3), SKEWED)


@pytest.mark.parametrize("wrong", WRONG_MODELS.values(), ids=WRONG_MODELS.keys())
def test_samples_of_a_wrong_law_are_rejected(wrong):
    """The same test with the same number of samples rejects each wrong mixture."""
    assert not passes_as_sample(wrong.sample(40_000, rng=3), SKEWED)


def test_samples_are_independent():
    """Neighbouring draws are uncorrelated; samples with each point repeated fail."""
    x = SKEWED.sample(20_000, rng=4)

    def correlated(x):
        return stats.pearsonr(x[:-1, 0], x[1:, 0]).pvalue < 1e-7

    assert not correlated(x)
    assert correlated(np.repeat(x[::2], 2, axis=0))


def test_diffused_samples_are_samples_of_the_diffused_law():
    noise = np.random.default_rng(6).standard_normal((40_000, 2))
    x_t = 0.6 * SKEWED.sample(40_000, rng=5) + 0.8 * noise
    assert passes_as_sample(x_t, SKEWED.diffuse(0.6, 0.8))
    assert not passes_as_sample(x_t, SKEWED.diffuse(0.8, 0.6))


def test_same_seed_same_bytes_and_a_generator_is_advanced():
    assert SKEWED.sample(5, rng=0).tobytes() == SKEWED.sample(5, rng=0).tobytes()
    assert not np.array_equal(SKEWED.sample(5, rng=0), SKEWED.sample(5, rng=1))
    assert not np.array_equal(SKEWED.sample(5), SKEWED.sample(5))
    rng = np.random.default_rng(0)
    first, second = SKEWED.sample(5, rng=rng), SKEWED.sample(5, rng=rng)
    assert np.array_equal(first, SKEWED.sample(5, rng=0))
    assert not np.array_equal(first, second)


def test_no_samples_are_an_empty_array():
    assert SKEWED.sample(0, rng=0).shape == (0, 2)


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_number_of_samples_is_checked(n, error):
    with pytest.raises(error, match=r"^n must be "):
        SKEWED.sample(n)


# --- accepted arguments -------------------------------------------------------------------------------------


def test_mixture_owns_its_arrays():
    weights, means, covariances = np.array([1.0]), np.zeros((1, 2)), np.eye(2)[None].copy()
    mixture = Mixture(weights, means, covariances)
    for array in weights, means, covariances:
        array += 1
    assert mixture.weights.tolist() == [1]
    assert mixture.means.tolist() == [[0, 0]]
    assert np.array_equal(mixture.covariances[0], np.eye(2))
    with pytest.raises(AttributeError):
        mixture.means = means
    for array in mixture.weights, mixture.means, mixture.covariances:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.5


def test_weights_whose_sum_is_1_up_to_rounding_are_kept_to_the_bit():
    weights = np.full(7, 1 / 7)
    assert weights.sum() != 1
    assert np.array_equal(Mixture(weights, np.zeros((7, 1)), np.ones((7, 1, 1))).weights, weights)


def test_covariance_with_rounded_zeros_is_symmetric():
    """U (v I) Uᵀ is v I up to rounding: different off-diagonals of 1e-17 do not count as asymmetry."""
    covariance = 0.3 * np.eye(2)
    covariance[0, 1], covariance[1, 0] = 2e-17, -1e-17
    assert residual(Mixture([1.0], [[0, 0]], [covariance]).covariances[0], 0.3 * np.eye(2)) < 1e-15


def test_float32_points_are_accepted_and_give_float64():
    x = np.array([[0.5, 0.25]], np.float32)
    for f in TWO.log_prob, TWO.score, TWO.posterior, TWO.score_jacobian:
        assert f(x).dtype == np.float64
        assert np.array_equal(f(x), f(x.astype(np.float64)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ([0.5, 0.6], [[0], [1]], np.ones((2, 1, 1))),
            ValueError,
            r"^weights must be non-negative and sum to 1",
        ),
        (
            ([1.5, -0.5], [[0], [1]], np.ones((2, 1, 1))),
            ValueError,
            r"^weights must be non-negative and sum to 1",
        ),
        (
            ([1.0], [[0], [1]], np.ones((2, 1, 1))),
            ValueError,
            r"^weights, means, covariances must have shapes",
        ),
        (
            ([0.5, 0.5], [[0], [1]], np.ones((2, 1))),
            ValueError,
            r"^weights, means, covariances must have shapes",
        ),
        (
            ([0.5, 0.5], [[0], [1]], np.ones((2, 2, 2))),
            ValueError,
            r"^weights, means, covariances must have shapes",
        ),
        (([1.0], [0.0], [[[1.0]]]), ValueError, r"^means must have shape \(K, D\)"),
        (([], np.zeros((0, 1)), np.zeros((0, 1, 1))), ValueError, r"^means must have shape \(K, D\) with K >= 1"),
        (([1.0], [[np.nan]], [[[1.0]]]), ValueError, r"^means must be finite"),
        (([np.nan], [[0.0]], [[[1.0]]]), ValueError, r"^weights must be finite"),
        (([1.0], [[0.0]], [[[np.inf]]]), ValueError, r"^covariances must be finite"),
        ((["a"], [[0.0]], [[[1.0]]]), TypeError, r"^weights must be a real array"),
        (
            ([1.0], [[0, 0]], [[[1, 0.5], [0, 1]]]),
            ValueError,
            r"^covariances must be symmetric; use 0\.5 \* \(C \+ C\.T\)$",
        ),
        (
            ([0.5, 0.5], [[0, 0], [0, 0]], [1e9 * np.eye(2), [[1, 0.5], [0, 1]]]),
            ValueError,
            r"^covariances must be symmetric",
        ),
        (([0.5, 0.5], [[0], [0]], [[[1]], [[0]]]), ValueError, r"^covariances\[1\] is not positive definite"),
        (
            ([0.5, 0.5], [[0], [0]], [[[-1]], [[1]]]),
            ValueError,
            r"^covariances\[0\] is not positive definite",
        ),
        (([1.0], [[0, 0]], [[[1, 2], [2, 1]]]), ValueError, r"^covariances\[0\] is not positive definite"),
    ],
)
def test_invalid_mixture_parameters_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        Mixture(*arguments)


@pytest.mark.parametrize("method", ["log_prob", "score", "score_jacobian", "posterior", "log_joint"])
def test_points_are_n_by_d(method):
    f = getattr(TWO, method)
    with pytest.raises(ValueError, match=r"^x must have shape \(N, D\)"):
        f(np.zeros(2))
    with pytest.raises(ValueError, match=r"^x must have 2 columns, as the model has, got 3"):
        f(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"^x must be finite"):
        f(np.full((1, 2), np.nan))


@pytest.mark.parametrize(
    ("scale", "std", "message"),
    [
        (1.0, -0.1, r"^std must be in "),
        (np.nan, 0.1, r"^scale must be in "),
        (0.0, 0.0, r"not positive definite"),
    ],
)
def test_invalid_kernels_are_refused(scale, std, message):
    for call in (lambda: TWO.diffuse(scale, std), lambda: TWO.denoise(np.zeros((1, 2)), scale, std)):
        with pytest.raises(ValueError, match=message):
            call()


def test_repr_is_short():
    assert repr(TWO) == "Mixture(2 components in 2 dimensions)"


def test_mixtures_are_compared_by_identity_and_can_be_kept_in_a_set():
    """Arrays have no truth value, so that a comparison of the fields would raise."""
    one, same = (Mixture([1.0], [[0.0]], [[[1.0]]]) for _ in range(2))
    assert one == one
    assert one != same
    assert len({one, same, one}) == 2


def test_posterior_and_density_meet_no_subnormal_numbers():
    """Responsibilities below the smallest normal number are 0; subnormal numbers take 10 to 50 times as long."""
    mixture = Mixture([0.5, 0.5], [[0.0], [1.0]], np.ones((2, 1, 1)))
    x = np.linspace(-760.0, -600.0, 2000)[:, None]  # the posterior of the second component is about e^x
    posterior = mixture.posterior(x)
    assert ((posterior == 0) | (posterior >= np.finfo(float).tiny)).all()
    assert (posterior[:, 1] == 0).any()
    assert (posterior[:, 1] > 0).any()


def test_whitening_and_peaks_are_those_of_the_components():
    """L⁻¹ C L⁻ᵀ = I, and log w N(m; m, C)."""
    for W, C in zip(TWO.whitening, TWO.covariances, strict=True):
        assert residual(W @ C @ W.T, np.eye(2)) < 1e-14
        assert np.array_equal(W, np.tril(W))
    parts = zip(TWO.weights, TWO.means, TWO.covariances, strict=True)
    peaks = [np.log(w) + stats.multivariate_normal.logpdf(m, m, C) for w, m, C in parts]
    assert residual(TWO.log_peaks, np.array(peaks)) < 1e-14


# --- marginal and conditional laws ------------------------------------------------------------------------


@pytest.mark.parametrize("D", [2, 3, 4, 5])
def test_marginal_times_conditional_is_the_joint(D):
    """log p(x) = log p(x_a) + log p(x_b | x_a) for every split of the columns, in either order."""
    rng = np.random.default_rng(D)
    roots = rng.standard_normal((3, D, D))
    law = Mixture([0.2, 0.5, 0.3], 2 * rng.standard_normal((3, D)), roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(D))
    for x in law.sample(3, rng=1):
        for split in range(1, 2**D - 1):
            a = [d for d in range(D) if split >> d & 1][::-1]
            b = [d for d in range(D) if d not in a]
            rest = law.conditional({d: x[d] for d in a})
            parts = law.marginal(a).log_prob(x[None, a]) + rest.log_prob(x[None, b])
            assert relative(parts, law.log_prob(x[None])) < 1e-12
            assert relative(law.marginal(b).log_prob(x[None, b]), naive_log_prob(law.marginal(b), x[None, b])) < 1e-12
    assert residual(law.marginal(range(D)).covariances, law.covariances) == 0


def test_conditional_is_the_textbooks():
    """Weights, means and covariances by inverses of blocks, which share no code with the package."""
    value = 0.4
    rest = TWO.conditional({1: value})
    (w, m, C), peaks = (TWO.weights, TWO.means, TWO.covariances), []
    for k in range(2):
        gain = C[k, 0, 1] / C[k, 1, 1]
        assert abs(rest.means[k, 0] - (m[k, 0] + gain * (value - m[k, 1]))) < 1e-15
        assert abs(rest.covariances[k, 0, 0] - (C[k, 0, 0] - gain * C[k, 1, 0])) < 1e-15
        peaks.append(w[k] * stats.norm.pdf(value, m[k, 1], np.sqrt(C[k, 1, 1])))
    assert residual(rest.weights, np.array(peaks) / sum(peaks)) < 1e-15


def test_conditional_far_from_all_components_belongs_to_the_widest():
    """At 1e6 standard deviations densities underflow; their ratio goes to 0, and the mean follows the regression."""
    rest = TWO.conditional({0: 1e6})
    assert rest.weights.tolist() == [0.0, 1.0]
    assert relative(rest.means[1, 0], -1.0 - 0.6 * (1e6 - 1.5)) < 1e-15
    assert np.isfinite(rest.log_prob([[0.0], [-6e5]])).all()


@pytest.mark.parametrize("far", [1.0, 1e3, 1e6])
def test_conditional_far_from_all_components_is_that_of_mpmath(far):
    """Blocks inverted in 60 digits.  Measured: 4e-15; for components of one covariance the weights lose ε · far²."""
    rng = np.random.default_rng(4)
    roots = rng.standard_normal((3, 4, 4))
    covariances = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(4)
    for C, error in (covariances, 1e-14), (covariances[[0] * 3], 1e-14 + 1e-15 * far**2):
        law = Mixture([0.2, 0.5, 0.3], 1e-6 * rng.standard_normal((3, 4)), C)
        rest, exponents = law.conditional({2: far, 0: -far}), []
        with mpmath.workdps(60):
            value = mpmath.matrix([far, -far])
            for k, (w, m) in enumerate(zip(law.weights, law.means, strict=True)):
                pairs = ([2, 0], [2, 0]), ([1, 3], [2, 0]), ([1, 3], [1, 3])
                C_aa, C_ba, C_bb = (mpmath.matrix(C[k][np.ix_(i, j)].tolist()) for i, j in pairs)
                gain, apart = C_ba * C_aa**-1, value - mpmath.matrix(m[[2, 0]].tolist())
                mean, spread = mpmath.matrix(m[[1, 3]].tolist()) + gain * apart, C_bb - gain * C_ba.T
                assert relative(rest.means[k], np.array(mean.tolist(), float)[:, 0]) < 1e-14
                assert residual(rest.covariances[k], np.array(spread.tolist(), float)) < 1e-14
                exponents.append(mpmath.log(w) - (mpmath.log(mpmath.det(C_aa)) + (apart.T * C_aa**-1 * apart)[0]) / 2)
            shares = [mpmath.exp(e - max(exponents)) for e in exponents]
            weights = np.array([float(share / sum(shares)) for share in shares])
        assert residual(rest.weights, weights) < error


def exact_log_prob(law, columns, x):
    """log p of some columns in 60 digits, with inverses and determinants."""
    with mpmath.workdps(60):
        total = mpmath.mpf(0)
        for w, m, C in zip(law.weights, law.means[:, columns], law.covariances[:, columns][:, :, columns], strict=True):
            C, apart = mpmath.matrix(C.tolist()), mpmath.matrix(x.tolist()) - mpmath.matrix(m.tolist())
            total += w * mpmath.exp(-(apart.T * C**-1 * apart)[0] / 2) / mpmath.sqrt(mpmath.det(2 * mpmath.pi * C))
        return mpmath.log(total)


@pytest.mark.parametrize(("far", "error"), [(1.0, 2e-14), (1e3, 1e-11), (1e6, 2e-8)])
@pytest.mark.parametrize("D", [2, 3, 4, 5])
def test_conditional_density_far_from_all_components_is_that_of_mpmath(D, far, error):
    """log p(x_b | x_a) for every split, x_b drawn given x_a.  Measured: 2e-15, 1e-12 and 2e-9 nats.

    The mean of x_b has the rounding error of a number as large as x_a.
    """
    rng = np.random.default_rng(D)
    roots = rng.standard_normal((3, D, D))
    law = Mixture([0.2, 0.5, 0.3], 2 * rng.standard_normal((3, D)), roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(D))
    place = far * rng.standard_normal(D)
    for split in range(1, 2**D - 1):
        a, b = ([d for d in range(D) if (split >> d & 1) == given] for given in (1, 0))
        rest, x = law.conditional({d: place[d] for d in a}), place.copy()
        x[b] = rest.sample(1, rng)[0]
        found = rest.log_prob(x[None, b])[0]
        assert abs(found - float(exact_log_prob(law, list(range(D)), x) - exact_log_prob(law, a, x[a]))) < error
        assert relative(law.marginal(a).log_prob(x[None, a])[0] + found, law.log_prob(x[None])[0]) < 1e-14


@pytest.mark.parametrize("x", [(40.0, 20.0), (1e3, 600.0), (-1e3, -600.0), (1e4, 8e3)])
def test_conditional_keeps_components_whose_weight_is_too_small_for_a_float(x):
    """At (40, 20) log p(x_b | x_a) is −962.4, from a component of weight e^−940; without it −2210.5.

    Measured: 6e-16.  A mixture built from the rounded weights, the twin, must fail.
    """
    x = np.array(x)
    rest = TWO.conditional({0: x[0]})
    exact = float(exact_log_prob(TWO, [0, 1], x) - exact_log_prob(TWO, [0], x[:1]))
    assert rest.weights.min() == 0
    assert np.isfinite(rest.log_weights).all()
    assert relative(rest.log_prob(x[None, 1:])[0], exact) < 6e-15
    lossy = Mixture(rest.weights, rest.means, rest.covariances)
    assert relative(lossy.log_prob(x[None, 1:])[0], exact) > 1


def test_laws_of_a_conditional_law_keep_its_small_weights():
    """Conditional, marginal and diffused laws of conditional laws, their scores and denoisers, against 60 digits.

    The first component is far wider in the second column, so that it explains the point, with a weight of e^−281499
    given x_0.  Measured: 2e-16.
    """
    means = np.array([[0.0, 0.0, 0.0], [1.0, 0.5, -1.0]])
    covariances = np.array([[[0.1, 0.0, 0.1], [0.0, 400.0, 3.0], [0.1, 3.0, 9.0]], np.eye(3)])
    law = Mixture([0.3, 0.7], means, covariances)
    x = np.array([250.0, 9e3, 700.0])
    rest = law.conditional({0: x[0]})
    assert rest.weights.tolist() == [0.0, 1.0]
    whole, first = exact_log_prob(law, [0, 1, 2], x), exact_log_prob(law, [0], x[:1])
    assert relative(rest.log_prob(x[None, 1:])[0], float(whole - first)) < 3e-15
    pair = exact_log_prob(law, [0, 1], x[:2])
    assert relative(rest.marginal([0]).log_prob(x[None, 1:2])[0], float(pair - first)) < 3e-15
    assert relative(rest.conditional({0: x[1]}).log_prob(x[None, 2:])[0], float(whole - pair)) < 3e-15
    scale, std = 0.8, 0.6
    noisy = Mixture(law.weights, law.means * [1, scale, scale], diffused_but_first(law.covariances, scale, std))
    diffused = float(exact_log_prob(noisy, [0, 1, 2], x) - first)
    assert relative(rest.diffuse(scale, std).log_prob(x[None, 1:])[0], diffused) < 3e-15
    one = Mixture([1.0], rest.means[:1], rest.covariances[:1])  # the other component has the posterior e^−4e7
    lossy = Mixture(rest.weights, rest.means, rest.covariances)
    for verb in (lambda law: law.score(x[None, 1:])), (lambda law: law.denoise(x[None, 1:], scale, std)):
        assert relative(verb(rest), verb(one)) < 1e-15
        assert relative(verb(lossy), verb(one)) > 0.1


def diffused_but_first(covariances, scale, std):
    """Covariances of (x_0, scale · (x_1, x_2) + std · ε)."""
    units = np.array([1.0, scale, scale])
    return covariances * np.outer(units, units) + std**2 * np.diag([0.0, 1.0, 1.0])


def test_draws_of_conditionals_complete_draws_of_the_marginal():
    """x_b drawn given x_a ~ p(x_a) makes draws of p(x); x_b drawn from its marginal, the twin, does not."""
    x = TWO.sample(3000, rng=1)
    conditional, independent = x.copy(), x.copy()
    rng = np.random.default_rng(2)
    conditional[:, 1] = [TWO.conditional({0: value}).sample(1, rng)[0, 0] for value in x[:, 0]]
    independent[:, 1] = TWO.marginal([1]).sample(3000, rng)[:, 0]
    assert passes_as_sample(conditional, TWO)
    assert not passes_as_sample(independent, TWO)


def test_conditional_densities_integrate_to_one():
    rng = np.random.default_rng(3)
    roots = rng.standard_normal((2, 3, 3))
    law = Mixture([0.4, 0.6], rng.standard_normal((2, 3)), roots @ roots.swapaxes(1, 2) + 0.3 * np.eye(3))
    for values in {1: 0.7}, {2: -0.5, 0: 4.0}:
        rest = law.conditional(values)
        points, weights = rest.quadrature()
        whole = np.empty((len(points), 3))
        whole[:, list(values)] = list(values.values())
        whole[:, [d for d in range(3) if d not in values]] = points
        known = np.array([list(values.values())])
        ratio = np.exp(law.log_prob(whole) - law.marginal(list(values)).log_prob(known))
        assert abs(weights @ ratio - 1) < 1e-10
        assert relative(np.exp(rest.log_prob(points)), ratio) < 1e-9


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: TWO.conditional({0: 1.0, 1: 2.0}), ValueError, "given must leave a column of the 2, got all"),
        (lambda: TWO.conditional({}), ValueError, "given must have different columns, at least one"),
        (lambda: TWO.conditional([1.0]), TypeError, "given must be a dict of values by column"),
        (lambda: TWO.conditional({2: 1.0}), ValueError, "given: a column must be"),
        (lambda: TWO.conditional({0: np.nan}), ValueError, r"given\[0\] must be"),
        (lambda: TWO.marginal([0, 0]), ValueError, "columns must have different columns"),
        (lambda: TWO.marginal("01"), TypeError, "columns must be a list of columns"),
        (lambda: TWO.marginal([-1]), ValueError, "columns: a column must be"),
        (lambda: TWO.marginal([0.5]), TypeError, "columns: a column must be"),
    ],
)
def test_wrong_columns_are_refused(call, error, text):
    with pytest.raises(error, match=f"^{text}"):
        call()


def test_labels_are_the_components_of_the_same_points():
    x, labels = TWO.sample(5000, rng=3, return_labels=True)
    assert x.tobytes() == TWO.sample(5000, rng=3).tobytes()
    for k in range(2):
        own = Mixture([1.0], TWO.means[[k]], TWO.covariances[[k]])
        assert passes_as_sample(x[labels == k], own)
        assert not passes_as_sample(x[labels != k], own)
    assert abs((labels == 0).mean() - 0.3) < 0.05  # 7.7 standard errors


@pytest.mark.parametrize("call", ["diffuse", "denoise", "denoise_variance"])
def test_a_noise_level_whose_squares_leave_the_range_is_refused(call):
    """1e155 gave an OverflowError without a name, and 1e-160 the variance NaN."""
    law = Mixture([0.5, 0.5], [[0.0, 0.0], [5.0, 5.0]], [np.eye(2), 2 * np.eye(2)])
    x = () if call == "diffuse" else (np.ones((1, 2)),)
    for scale in 1e155, -1e61:
        with pytest.raises(ValueError, match=r"^scale must be in \[-1e\+60, 1e\+60\], got"):
            getattr(law, call)(*x, scale, 0.5)
    with pytest.raises(ValueError, match=r"^std must be in \[0.0, 1e\+60\], got 1e\+155"):
        getattr(law, call)(*x, 0.5, 1e155)
    with pytest.raises(ValueError, match=r"^scale or std must be at least 1e-60 in size, .* got 1e-160 and 1e-160"):
        getattr(law, call)(*x, 1e-160, 1e-160)
    if x:  # the least level has all digits: x_t = scale · x for both
        small, one = (getattr(law, call)(*x * np.array(scale), scale, 2 * scale) for scale in (1e-60, 1.0))
        assert relative(small, one) < 1e-12


def test_columns_without_an_axis_are_no_list():
    law = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    with pytest.raises(TypeError, match=r"^columns must be a list of columns, got array\(0\); pass \[0, 2\]"):
        law.marginal(np.array(0))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda v: datasets.eight_gaussians(std=v), "std"),
        (lambda v: datasets.eight_gaussians(radius=v), "radius"),
        (lambda v: sde.reverse_times(sde.VP(), 5, 0.1, detail=v), "detail"),
        (lambda v: sde.edm_sigmas(5, sigma_max=v), "sigma_max"),
        (lambda v: sde.edm_sigmas(5, rho=1 / v), "rho"),
        (lambda v: sde.tweedie_covariance(np.negative, np.ones((1, 2)), 1.0, v), "std"),
        (lambda v: sde.tweedie_covariance(np.negative, np.ones((1, 2)), 1 / v, 1.0), "scale"),
        (lambda v: sde.tilted_score(datasets.gaussians_1d(), [1.0, 0, 0], 1.0, np.ones((1, 1)), 1.0, v), "std"),
        (lambda v: datasets.gaussians_1d().quadrature(spacing=v), "spacing"),
        (lambda v: datasets.gaussians_1d().quadrature(width=v), "width"),
        (lambda v: grading.sample_noise_grade(TWO, np.negative, np.ones((2, 2)), np.ones((2, 2)), 1.0, v), "std"),
        (lambda v: grading.grade_noise(TWO, np.negative, v, 1.0), "scale"),
        (lambda v: grading.chain_density([(np.negative, 1.0)], 1, resolution=v), "resolution"),
        (lambda v: GaussianMixture(covariance_floor=1 / v).fit(np.eye(3)), "covariance_floor"),
    ],
)
def test_numbers_whose_squares_overflow_are_refused_by_name(call, name):
    with pytest.raises(ValueError, match=rf"^{name} must be in "):
        call(1e200)
