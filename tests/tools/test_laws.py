"""Laws in the plane: diffused densities against integrals by other routes, samples against densities, and grades."""

import numpy as np
import pytest
from scipy import integrate, stats

from scratchgen import VP, ScoreSDE
from scratchgen.datasets import (
    checkerboard,
    eight_gaussians,
    gaussian_grid,
    gaussians_1d,
    gaussians_2d,
    pinwheel,
    rings,
    spirals,
    swiss_roll,
    two_moons,
)
from scratchgen.grading import euler_density, grade_kl_bound, grade_score_sde
from scratchgen.mixture import Mixture
from scratchgen.plane import Histogram
from scratchgen.sde import reverse_times

Z = stats.norm.isf(1e-7 / 40)  # two sides of 20 tests
LAWS = {
    "eight_gaussians": eight_gaussians,
    "gaussian_grid": gaussian_grid,
    "two_moons": two_moons,
    "rings": rings,
    "spirals": spirals,
    "swiss_roll": swiss_roll,
    "checkerboard": checkerboard,
    "pinwheel": pinwheel,
}
CURVES = {  # x(θ) for every curve, range of θ, density of θ, noise
    "two_moons": ([lambda a: (np.cos(a) - 0.5, np.sin(a) - 0.25), lambda a: (0.5 - np.cos(a), 0.25 - np.sin(a))],
                  0, np.pi, lambda a: 0 * a + 1 / np.pi, 0.05),
    "rings": ([lambda a, r=r: (r * np.cos(a), r * np.sin(a)) for r in (0.375, 0.75, 1.125, 1.5)],
              0, 2 * np.pi, lambda a: 0 * a + 0.5 / np.pi, 0.04),
    "spirals": ([lambda a: (-a * np.cos(a) / 6, a * np.sin(a) / 6), lambda a: (a * np.cos(a) / 6, -a * np.sin(a) / 6)],
                0, 3 * np.pi, lambda a: 2 * a / (3 * np.pi) ** 2, 0.05),
    "swiss_roll": ([lambda a: (a * np.cos(a) / 10 - 0.2, a * np.sin(a) / 10 - 0.2 / (3 * np.pi))],
                   1.5 * np.pi, 4.5 * np.pi, lambda a: 0 * a + 1 / (3 * np.pi), 0.05),
}  # fmt: skip
each_law = pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)


def difference(f, x, h=1e-3):
    """Gradient of f at rows x by central differences of sixth order."""
    steps = h * np.eye(x.shape[1])
    return np.stack(
        [sum(w * (f(x + k * e) - f(x - k * e)) for k, w in ((1, 0.75), (2, -0.15), (3, 1 / 60))) / h for e in steps],
        axis=1,
    )


# --- densities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(("scale", "std"), [(1.0, 0.0), (0.9, 0.2)])
def test_the_density_of_a_noisy_curve_is_its_integral(name, scale, std):
    """The integral over θ by Simpson's rule with 20,000 nodes: at points on the curve, beside it and far from it."""
    curves, low, high, density, noise = CURVES[name]
    law, sigma = LAWS[name]().diffuse(scale, std), np.hypot(scale * noise, std)
    on = np.array([curve(a) for curve, a in zip(curves * 4, np.linspace(low, high, 4), strict=False)])
    points = scale * np.concatenate([on, on[:2] + 2 * noise, on[:2] + np.array([[0.2, -0.1], [-0.2, 0.2]])])
    theta = np.linspace(low, high, 20_001)
    means = scale * np.stack([np.stack(curve(theta), axis=-1) for curve in curves])
    squares = ((points[:, None, None] - means) ** 2).sum(axis=-1) / sigma**2
    kernel = np.exp(-0.5 * squares) / (2 * np.pi * sigma**2) * density(theta)
    exact = integrate.simpson(kernel, x=theta, axis=2).mean(axis=1)
    assert np.abs(np.exp(law.log_prob(points)) / exact - 1).max() < 1e-8
    assert np.abs(law.score(points) - difference(law.log_prob, points, 0.02 * sigma)).max() < 1e-6 / sigma


@pytest.mark.parametrize("std", [1e-4, 0.01, 0.3, 5.0])
def test_the_density_of_a_blurred_checkerboard_is_right_in_squares_between_them_and_far_away(std):
    """Against error functions of 60 digits; far away 1 − Φ is below the range of floats."""
    mp = pytest.importorskip("mpmath")
    board = checkerboard().diffuse(0.8, std)
    x = np.array(
        [
            [0.4, 0.4],
            [0.4, 1.2],
            [0.0, 0.0],
            [0.8 + std, 0.3],
            [1.6 + 30 * std, -1.6 - 5 * std],
            [-1.6 - 300 * std, 0.1],
        ]
    )
    with mp.workdps(60):

        def log_prob(a, b):
            def f(low, high, t):
                low, high = (low - t) / std, (high - t) / std
                low, high = (-high, -low) if low > 0 else (low, high)  # mp.ncdf rounds close to 1
                return mp.ncdf(high) - mp.ncdf(low)

            sides = [[mp.mpf("0.8") * (i - 2), mp.mpf("0.8") * (i - 1)] for i in range(4)]
            mass = sum(f(*sides[i], a) * f(*sides[j], b) for i in range(4) for j in range(4) if (i + j) % 2 == 0)
            return mp.log(mass / 8 / mp.mpf("0.64"))

        exact = np.array([float(log_prob(mp.mpf(a), mp.mpf(b))) for a, b in x])
        h = mp.mpf(std) * mp.mpf("1e-15")
        slopes = [
            [float((log_prob(a + u, b + v) - log_prob(a - u, b - v)) / (2 * h)) for u, v in ((h, 0), (0, h))]
            for a, b in ((mp.mpf(a), mp.mpf(b)) for a, b in x)
        ]
    assert np.abs(board.log_prob(x) / exact - 1).max() < 1e-10
    top = np.abs(slopes).max()  # at z standard deviations log p is z²/2, and rounding changes p by 1e-16 of this
    assert np.abs(board.score(x) - slopes).max() < (1e-10 + 1e-15 * (std * top) ** 2) * max(top, 1 / std)


def test_a_histogram_is_the_law_of_its_cells():
    law = Histogram([0.0, 1.0, 3.0], [-1.0, 0.0, 0.5, 1.0], [[0.1, 0.2, 0.0], [0.3, 0.3, 0.1]])
    density = np.array([[0.1, 0.4, 0.0], [0.15, 0.3, 0.1]])
    x = np.array([[0.5, -0.5], [0.5, 0.2], [0.5, 0.7], [2, -0.5], [2, 0.2], [1.0, 0.5], [3.0, 0.7], [-0.1, 0], [1, 1]])
    with np.errstate(divide="ignore"):
        expected = np.log([*density[0], *density[1], 0, 0, 0])
    np.testing.assert_allclose(law.log_prob(x), expected, rtol=1e-14)
    filled = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    assert law.entropy() == pytest.approx(-filled @ np.log([0.1, 0.4, 0.15, 0.3, 0.1]), rel=1e-14)
    x = law.sample(20_000, 0)
    assert not np.isinf(law.log_prob(x)).any()
    counts = np.histogram2d(*x.T, bins=law.edges)[0]
    for count, w in zip(counts.ravel(), law.weights.ravel(), strict=True):
        assert stats.binomtest(int(count), len(x), w).pvalue > 1e-8
    blurred = law.diffuse(1.0, 0.05)
    points, weights = blurred.quadrature(0.25)
    mass = weights * np.exp(blurred.log_prob(points))
    np.testing.assert_allclose(mass @ points, law.mean(), atol=1e-10)
    centred = points - law.mean()
    np.testing.assert_allclose((mass * centred.T) @ centred, blurred.covariance(), atol=1e-10)


@pytest.mark.parametrize(
    ("edges_1", "weights", "message"),
    [
        ([0.0, 0.0, 1.0], np.full((2, 1), 0.5), "edges_1 must be two or more rising numbers"),
        ([0.0, 1.0], np.full((2, 1), 0.5), r"weights must have the shape \(1, 1\)"),
        ([0.0, 1.0, 2.0], [[1.5], [-0.5]], "weights must be non-negative and sum to 1"),
    ],
)
def test_a_histogram_needs_rising_edges_and_probabilities(edges_1, weights, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Histogram(edges_1, [0.0, 1.0], weights)


def test_the_laws_of_the_plane_have_short_names():
    board = checkerboard()
    assert repr(board) == "Histogram(4 x 4 cells)"
    assert repr(board.diffuse(0.5, 0.1)) == "BlurredHistogram(Histogram(4 x 4 cells), std [0.1 0.1])"
    needles = pinwheel().diffuse(1.0, 0.5)
    assert needles.detail_within(np.zeros(2), np.ones(2), 9.0) == needles.detail > 0.5


def test_the_density_of_a_pinwheel_is_its_integral_over_r_and_s():
    """Without noise the density has mass 1, the entropy and the covariance; with noise it is a double integral."""
    law = pinwheel()
    axis = np.arange(-2.8, 2.8, 0.06)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_prob = law.log_prob(x)
    mass = 0.06**2 * np.exp(log_prob)
    seen = mass > 0
    assert abs(mass.sum() - 1) < 1e-4
    assert abs(mass[seen] @ log_prob[seen] + law.entropy()) < 1e-4
    np.testing.assert_allclose((mass * x.T) @ x, law.covariance(), atol=1e-4)
    np.testing.assert_allclose(law.covariance(), 0.55 * np.eye(2), atol=1e-9)
    z = np.linspace(-7, 7, 141)
    r, s = (a.ravel() for a in np.meshgrid(1 + 0.3 * z, 0.1 * z, indexing="ij"))
    angle = 2 * np.pi * np.arange(5)[:, None] / 5 + 0.25 * np.exp(r)
    means = 0.9 * np.stack([r * np.cos(angle) - s * np.sin(angle), r * np.sin(angle) + s * np.cos(angle)], axis=-1)
    weights = np.multiply.outer(stats.norm.pdf(z), stats.norm.pdf(z)).ravel() * 0.01 / 5
    blurred, points = law.diffuse(0.9, 0.2), np.array([[0.5, 0.7], [-1.0, 0.3], [0.0, 0.0], [1.5, -1.5]])
    for point in points:
        kernel = np.exp(-((point - means) ** 2).sum(axis=-1) / 0.08) / (0.08 * np.pi)
        assert float((kernel @ weights).sum()) == pytest.approx(
            float(np.exp(blurred.log_prob(point[None])[0])), rel=1e-8
        )
    assert np.abs(blurred.score(points) - difference(blurred.log_prob, points, 0.01)).max() < 1e-7


def test_straight_arms_are_gaussians():
    law = pinwheel(n_arms=2, rate=0.0, radial_std=0.2, tangential_std=0.1)
    arms = Mixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], np.tile(np.diag([0.04, 0.01]), (2, 1, 1)))
    x = arms.sample(50, 0)
    np.testing.assert_allclose(law.log_prob(x), arms.log_prob(x), atol=1e-10)
    np.testing.assert_allclose(law.diffuse(0.5, 0.3).score(x), arms.diffuse(0.5, 0.3).score(x), atol=1e-8)
    assert law.entropy() == pytest.approx(arms.entropy(), abs=1e-7)


# --- what all laws share ---------------------------------------------------------------------------------------------


def agree(law, entropy, x):
    """Whether the mean of log p over rows of x is −H(p), with a false alarm in 1e-7 of 20 tests together."""
    log_prob = law.log_prob(x)
    if np.isinf(log_prob).any():
        return False
    return bool(abs(log_prob.mean() + entropy) < Z * log_prob.std() / len(x) ** 0.5 + 1e-12)


@each_law
def test_samples_have_the_density_and_the_entropy(make):
    """Samples with more noise, and of a law of another size, do not."""
    law = make()
    x, rng, entropy = law.sample(400, 0), np.random.default_rng(1), law.entropy()
    assert agree(law, entropy, x)
    assert not agree(law, entropy, x + 0.2 * rng.standard_normal(x.shape))
    assert not agree(law, entropy, 1.3 * x)
    blurred = law.diffuse(0.8, 0.3)
    entropy = blurred.entropy()
    assert agree(blurred, entropy, blurred.sample(400, 2))
    assert agree(blurred, entropy, 0.8 * x + 0.3 * rng.standard_normal(x.shape))
    assert not agree(blurred, entropy, 0.8 * x + 0.9 * rng.standard_normal(x.shape))


@each_law
def test_a_law_on_a_grid_is_the_law_and_its_moments_are_right(make):
    """Mass, mean, covariance and Σ p ∇log p = 0 by quadrature; density and gradient as at single points."""
    law = make().standardized([0.1, -0.2], [1.5, 0.7]).diffuse(0.9, 0.05)
    total = np.zeros(7)
    for x, mass, density, score in law.nodes(0.4):
        some = np.flatnonzero(density > 1e-12)[:: max(len(x) // 20, 1)]
        assert np.abs(law.log_prob(x[some]) - np.log(density[some])).max(initial=0) < 1e-7
        assert np.abs(law.score(x[some]) - score[some]).max(initial=0) < 1e-4
        total += [mass.sum(), *(mass @ x), *(mass @ x**2), *(mass @ score)]
    mean, covariance = law.mean(), law.covariance()
    np.testing.assert_allclose(total, [1, *mean, *(mean**2 + covariance.diagonal()), 0, 0], atol=1e-6)


@each_law
def test_units_change_a_density_by_their_volume(make):
    law = make()
    mean, scale = np.array([0.3, -2.0]), np.array([5.0, 0.2])
    x = law.sample(20, 0)
    for one in (law, law.diffuse(1.0, 0.3)):
        other = one.standardized(mean, scale)
        np.testing.assert_allclose(
            other.log_prob((x - mean) / scale), one.log_prob(x), atol=1e-9
        )  # scale has product 1
        np.testing.assert_allclose(other.mean(), (one.mean() - mean) / scale, atol=1e-9)
        np.testing.assert_allclose(other.covariance(), one.covariance() / np.outer(scale, scale), atol=1e-8)
    again = law.diffuse(0.8, 0.3).diffuse(0.5, 0.1)
    assert np.abs(again.log_prob(x) - law.diffuse(0.4, np.hypot(0.15, 0.1)).log_prob(x)).max() < 1e-8
    assert law.dimension == again.dimension == 2


def test_the_nodes_of_a_histogram_resolve_its_edges_and_another_law():
    for std, spacing in ((3e-3, 0.125), (0.01, 0.25), (0.1, 0.5), (3.0, 0.5)):
        board = checkerboard().diffuse(1.0, std)
        assert abs(sum(mass.sum() for _, mass, _, _ in board.nodes(spacing)) - 1) < 1e-11
    needle = Mixture([1.0], [[0.5, 0.5]], [1e-4 * np.eye(2)])
    wide = Mixture([1.0], [[0.5, 0.5]], [np.eye(2)])
    board = checkerboard().diffuse(1.0, 0.1)
    assert board.detail_within(np.zeros(2), np.ones(2), 9.0) == board.detail == 0.1
    (x1, _), _ = board.axes(1.0, 9.0, needle)
    assert np.diff(x1).max() < 0.0101
    assert np.diff(board.axes(1.0, 9.0, wide)[0][0]).max() > 0.1
    with pytest.raises(ArithmeticError, match="quadrature needs more than"):
        board.quadrature(1e-4)
    with pytest.raises(ValueError, match="law must have 2 dimensions"):
        board.quadrature(law=gaussians_1d())


def test_a_pinwheel_of_too_many_turns_or_needles_is_refused():
    for rate, radial_std in ((1e6, 0.3), (0.25, 10.0), (1e60, 80.0)):
        with pytest.raises(ValueError, match=r"^rate must bend an arm by less than 10,000 radians .* lower rate"):
            pinwheel(rate=rate, radial_std=radial_std)
    with pytest.raises(ArithmeticError, match=r"^std must leave noise that 100,000 needles resolve"):
        pinwheel().diffuse(1.0, 1e-6)


# --- grades ----------------------------------------------------------------------------------------------------------


@pytest.mark.equation(34)
@pytest.mark.parametrize(("name", "t_min"), [("checkerboard", 0.1), ("two_moons", 0.1)])
def test_the_bound_is_an_equality_for_the_score_of_another_law(name, t_min):
    """KL(p‖q) at t_min by quadrature is the integral over time of the differences of the scores plus KL(p_T‖q_T)."""
    sde, p, q = VP(), LAWS[name](), gaussians_2d()

    def score(x, t):
        return q.diffuse(*sde.level(t)).score(x)

    end = q.diffuse(*sde.level(1.0)).log_prob
    grade = grade_kl_bound(sde, score, p, t_min, 1e-3, end, law=q)
    p_min, q_min = (law.diffuse(*sde.level(t_min)) for law in (p, q))
    assert grade.bound == pytest.approx(p_min.kl(q_min), rel=1e-4)
    assert grade.bound != pytest.approx(p_min.diffuse(1.0, 0.5).kl(q_min), rel=1e-2)


@pytest.mark.parametrize("law", [two_moons(noise=0.2), checkerboard()], ids=["two_moons", "checkerboard"])
def test_a_fitted_score_model_has_the_same_grade_in_all_units(law):
    """Both sides of (34), and the left side by its parts; data of other units give the same numbers."""
    grades = []
    for scale in (1.0, 50.0):
        data = law.standardized([3.0, 0.0], np.full(2, 1 / scale))
        x = scale * (law.sample(500, 0) - [3.0, 0.0])
        model = ScoreSDE(hidden=(16,), n_steps=100, t_min=0.02, rng=0).fit(x)
        grades.append(grade_score_sde(model, data, 25, rtol=0.03))
    assert 0 < grades[1].kl < grades[1].bound < 3
    np.testing.assert_allclose(grades[1], grades[0], rtol=1e-3)
    start = data.standardized(model.mean_, model.scale_).diffuse(*model.sde_.level(0.02))
    times = reverse_times(model.sde_, 25, 0.02, start.detail)
    density = euler_density(model.sde_, model.predict_score, times, 2)
    kl = density.kl_from(start.log_prob(density.points))
    assert density.kl_from(start) == pytest.approx(kl, rel=1e-9)
    assert grades[1].kl == pytest.approx(kl, rel=1e-3)
    with pytest.raises(ValueError, match="p must have 2 dimensions, as this grid, got 1"):
        density.kl_from(gaussians_1d())
    with pytest.raises(ValueError, match="law must have 2 dimensions, as model has, got 1"):
        grade_score_sde(model, gaussians_1d())
    model.n_levels = 3
    with pytest.raises(ValueError, match="model must have n_levels=None"):
        grade_score_sde(model, data)
