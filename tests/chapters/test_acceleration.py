"""Over-relaxed EM: lengths of steps, paths of valid mixtures, the guard, and the E-steps that it saves."""

from functools import partial
from itertools import islice

import numpy as np
import pytest

from scratchgen import GaussianMixture, Mixture
from scratchgen.em import (
    em,
    m_step_from_statistics,
    over_relaxed_em,
    relaxed_mixture,
    silver_step,
    starting_mixture,
)
from scratchgen.fast.em_statistics import expected_statistics
from tests.em_helpers import at_floor, blobs, every_type, rise, three_blobs

RHO = 1 + 2**0.5
RATES = np.array([1.0, 0.3, 0.02])  # 1 − the fractions of missing information of a quadratic bound


def mixtures(kind, D=3):
    """A mixture and its M-step."""
    x = blobs(90, D)
    old = starting_mixture(x, 3, "k-means++", np.random.default_rng(3), 1e-6, kind)
    return old, m_step_from_statistics(expected_statistics(x, old)[0], old, 1e-6, kind)


def quadratic(lengths, start=(1.0, -2.0, 3.0)):
    """Iterates of `over_relaxed_em` for the bound −½ Σ a θ², whose EM step is θ − a θ, and the number of E-steps."""
    calls = []

    def e_step(theta):
        calls.append(theta)
        return None, float(-0.5 * (RATES * theta**2).sum())

    def relax(theta, plain, step):
        lengths.append(step)
        return theta + step * (plain - theta)

    run = over_relaxed_em(np.array(start), e_step, lambda _, theta: theta - RATES * theta, relax, max_iter=40)
    return list(run), len(calls)


def test_silver_steps_have_their_sums():
    """The first 2^k − 1 lengths sum to ρ^k − 1 (Altschuler and Parrilo 2023); they are the same forwards and back."""
    steps = [silver_step(t) for t in range(1, 256)]
    np.testing.assert_allclose(steps[:4], [2**0.5, 2, 2**0.5, 2 + 2**0.5], rtol=1e-15)
    for k in range(1, 9):
        assert sum(steps[: 2**k - 1]) == pytest.approx(RHO**k - 1, rel=1e-13)
        assert steps[: 2**k - 1] == steps[: 2**k - 1][::-1]
    with pytest.raises(ValueError, match="t must be"):
        silver_step(0)


def test_a_step_that_lowers_the_bound_is_replaced_by_that_of_em():
    lengths = []
    iterates, n_e_steps = quadratic(lengths)
    assert lengths == [silver_step(t) for t in range(1, 41)]
    replaced = 0
    for before, after, step in zip(iterates[:-1], iterates[1:], lengths, strict=True):
        relaxed = before.theta * (1 - step * RATES)
        better = (RATES * relaxed**2).sum() <= (RATES * before.theta**2).sum()
        replaced += not better
        np.testing.assert_allclose(after.theta, relaxed if better else before.theta * (1 - RATES), rtol=1e-12)
    assert 0 < replaced < 20
    assert n_e_steps == len(iterates) + replaced
    assert rise(iterates[-1].bounds) >= 0
    plain = -0.5 * (RATES * (np.array([1.0, -2.0, 3.0]) * (1 - RATES) ** n_e_steps) ** 2).sum()
    assert iterates[-1].bounds[-1] > plain / 3  # EM with as many E-steps stays farther from the maximum, 0


def test_convergence_is_that_of_a_step_of_em():
    """A longer step from 1 to −1 gains nothing, and does not end the run; the step of EM is taken."""
    run = over_relaxed_em(
        1.0, lambda theta: (None, -(theta**2)), lambda _, theta: theta / 2, lambda *_: -0.9999, tol=1e-3, max_iter=2
    )
    assert [(i.theta, i.converged) for i in run] == [(1.0, False), (0.5, False), (0.25, False)]


@every_type
def test_a_relaxed_mixture_goes_on_from_old_by_new(kind):
    """At η = 1 it is the new mixture; means, log weights and the logarithm of Σ_old⁻¹ Σ are linear in η."""
    old, new = mixtures(kind)
    assert relaxed_mixture(old, new, 1.0, 1e-6, kind) is new
    for name in "weights", "means", "covariances":
        same = getattr(relaxed_mixture(old, new, 1 + 1e-14, 1e-6, kind), name)
        np.testing.assert_allclose(same, getattr(new, name), rtol=1e-12, atol=1e-12)
    step, shift = 1.7, np.log(new.weights / old.weights)
    far = relaxed_mixture(old, new, step, 1e-6, kind)
    np.testing.assert_allclose(far.means - old.means, step * (new.means - old.means), rtol=1e-12, atol=1e-13)
    ratio = np.log(far.weights / old.weights) - step * shift
    np.testing.assert_allclose(ratio, ratio[0], atol=1e-13)
    for before, middle, after in zip(old.covariances, new.covariances, far.covariances, strict=True):
        once, all_of_it = np.linalg.solve(before, middle), np.linalg.solve(before, after)
        expected = np.sort(np.linalg.eigvals(once).real) ** step
        np.testing.assert_allclose(np.sort(np.linalg.eigvals(all_of_it).real), expected, rtol=1e-11)
        np.testing.assert_allclose(once @ all_of_it, all_of_it @ once, atol=1e-11)  # the same axes
    if kind in ("diag", "spherical"):
        assert not (far.covariances * (1 - np.eye(3))).any()
    if kind == "tied":
        assert (far.covariances == far.covariances[0]).all()


def test_a_relaxed_mixture_does_not_depend_on_the_units():
    old, new = mixtures("full")
    A, b = np.array([[2.0, 0.3, 0.0], [0.0, 5.0, 1.0], [0.1, 0.0, 0.01]]), np.array([3.0, -1.0, 10.0])

    def mapped(mixture):
        return Mixture(mixture.weights, mixture.means @ A.T + b, A @ mixture.covariances @ A.T)

    found, expected = relaxed_mixture(mapped(old), mapped(new), 2.4), mapped(relaxed_mixture(old, new, 2.4))
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-10)
    np.testing.assert_allclose(found.covariances, expected.covariances, rtol=1e-9, atol=1e-12)


def test_a_relaxed_mixture_is_valid_far_away():
    """The change of a variance is at most e⁴ unless EM's own is larger; floors hold; a weight of 0 stays 0."""
    one = np.eye(2)[None]
    old, new = Mixture([1.0], [[0.0, 0.0]], one), Mixture([1.0], [[1.0, 0.0]], one / 10)
    far = relaxed_mixture(old, new, 1e6)
    np.testing.assert_allclose(far.covariances, np.exp(-4.0) * one, rtol=1e-12)
    np.testing.assert_allclose(far.means, [[4 / np.log(10), 0]], rtol=1e-12)
    np.testing.assert_allclose(relaxed_mixture(old, new, 1e6, 0.05).covariances, 0.05 * one, rtol=1e-12)
    tiny = Mixture([1.0], [[0.0, 0.0]], one * 1e-9)
    np.testing.assert_allclose(relaxed_mixture(old, tiny, 9.0).covariances, tiny.covariances, rtol=1e-9)
    start = Mixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], np.repeat(one, 2, axis=0))
    empty = Mixture([0.0, 1.0], start.means, start.covariances)
    np.testing.assert_array_equal(relaxed_mixture(start, empty, 3.0).weights, [0.0, 1.0])
    assert relaxed_mixture(empty, start, 3.0) is start


def test_a_floor_that_a_longer_step_would_lose_leaves_the_step_of_em():
    old, new = (Mixture([1.0], [[0.0, 0.0]], [np.diag(v)]) for v in ([1e13, 2.0], [6e13, 1.0]))
    assert relaxed_mixture(old, new, 2.0, 1.0) is new


def test_wrong_arguments_are_refused():
    old, new = mixtures("full")
    with pytest.raises(ValueError, match="step must be"):
        relaxed_mixture(old, new, 0.5)
    with pytest.raises(ValueError, match=r"new must have the shape of old, \(3, 3\), got \(1, 2\)"):
        relaxed_mixture(old, Mixture([1.0], [[0.0, 0.0]], [np.eye(2)]), 2.0)
    with pytest.raises(TypeError, match="relax must be"):
        next(over_relaxed_em(1.0, lambda t: (None, 0.0), lambda e, t: t, None))


# --- Gaussian mixtures --------------------------------------------------------------------------------------------


def overlapping(kind, seed):
    """Points of overlapping components, and a start."""
    rng = np.random.default_rng(seed)
    K, D = 2 + seed % 2, 2
    A = 0.4 * rng.standard_normal((K, D, D)) + np.eye(D)
    law = Mixture(rng.dirichlet(np.full(K, 4.0)), 1.2 * rng.standard_normal((K, D)), A @ A.swapaxes(1, 2))
    x = law.sample(300, rng)
    return x, starting_mixture(x, K, "k-means++", rng, 1e-3, kind)


def traced(kind, x, start, loop, *relax):
    """Bounds of a run to its limit, and the number of E-steps up to each bound."""
    calls, bounds, counts = [0], [], []

    def e_step(mixture):
        calls[0] += 1
        return expected_statistics(x, mixture)

    m_step = partial(m_step_from_statistics, covariance_floor=1e-3, covariance_type=kind)
    for iterate in islice(loop(start, e_step, m_step, *relax, max_iter=4000), 4000):
        bounds, counts = iterate.bounds, [*counts, calls[0]]
        if len(bounds) > 40 and bounds[-1] - bounds[-30] < 1e-13:
            break
    return np.array(bounds), np.array(counts)


@every_type
def test_over_relaxed_em_reaches_the_limit_of_em_in_fewer_e_steps(kind):
    ratios = []
    for seed in range(3):
        x, start = overlapping(kind, seed)
        plain, plain_counts = traced(kind, x, start, em)
        fast, fast_counts = traced(
            kind, x, start, over_relaxed_em, partial(relaxed_mixture, covariance_floor=1e-3, covariance_type=kind)
        )
        assert fast[-1] == pytest.approx(plain[-1], abs=1e-8)
        assert rise(fast) > -1e-12
        near = max(plain[-1], fast[-1]) - 1e-6
        ratios.append(plain_counts[plain >= near][0] / fast_counts[fast >= near][0])
    assert min(ratios) >= 0.8
    assert np.exp(np.log(ratios).mean()) >= 1.5


def test_without_the_guard_the_bound_falls():
    """The same steps without the comparison of bounds: the test above does not pass by chance."""
    x, mixture = overlapping("full", 0)
    bounds = []
    for t in range(1, 40):
        statistics, bound = expected_statistics(x, mixture)
        bounds.append(bound)
        mixture = relaxed_mixture(mixture, m_step_from_statistics(statistics, mixture, 1e-3), silver_step(t), 1e-3)
    assert rise(bounds) < -1e-6


@at_floor
@every_type
@pytest.mark.parametrize("prior", [None, (0.5, 3.0)])
def test_the_model_takes_the_option_with_weights_and_priors(kind, prior, tmp_path):
    """Rows of weight 2 count twice; the bound never falls; the limit is that of EM; a file keeps the option."""
    x = three_blobs(80)
    weights = 1 + np.arange(80) % 2
    options = {"covariance_type": kind, "covariance_prior": prior, "tol": 1e-11, "max_iter": 4000}
    options |= {"means_init": [[0, 0], [3, 1.5], [1, 3.6]]}
    fast = GaussianMixture(3, acceleration="over-relaxed", **options).fit(x, sample_weight=weights)
    twice = GaussianMixture(3, acceleration="over-relaxed", **options).fit(np.repeat(x, weights, axis=0))
    plain = GaussianMixture(3, **options).fit(x, sample_weight=weights)
    assert rise(fast.lower_bounds_) > -1e-12
    assert fast.converged_
    assert fast.n_iter_ < plain.n_iter_
    assert fast.lower_bounds_[-1] == pytest.approx(plain.lower_bounds_[-1], abs=1e-8)
    assert fast.lower_bounds_[-1] == pytest.approx(twice.lower_bounds_[-1], abs=1e-8)
    fast.save(tmp_path / "model.npz")
    again = GaussianMixture.load(tmp_path / "model.npz")
    assert again.acceleration == "over-relaxed"
    np.testing.assert_array_equal(again.lower_bounds_, fast.lower_bounds_)
