"""The result of a check: residual, verdict, and the diagnosis of a mistake.

The tests in `chapters` show that the package passes every check; the museum shows that every check finds a mistake.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import VP, Mixture, NoiseSchedule, conformance
from scratchgen.conformance import (
    check_ancestral_step,
    check_categorical_draw,
    check_ddim_step,
    check_diagonal_kl,
    check_elbo,
    check_em,
    check_forward_process,
    check_gaussian_kl,
    check_gradient,
    check_kl,
    check_posterior,
    check_ppca_maximum,
    check_ppca_step,
    check_reverse_sampler,
    check_reverse_sde,
    check_sampler,
    check_score,
    check_sde,
    check_training_step,
)
from scratchgen.conformance.reference_chain import UNCLIPPED
from scratchgen.conformance.result import NAMELESS, SINGLE, compare, is_single, worst
from scratchgen.ddpm import p_step
from scratchgen.em import e_step, m_step, ppca_em_step, ppca_maximum
from scratchgen.likelihood import kl_gaussian
from scratchgen.sde import reverse_drift
from scratchgen.testing import reals, schedules


def compared(left, right, **kwargs):
    return compare("check_it", "(1)", "it", left, right, 1e-9, **kwargs)


@given(reals((3,), -5, 5), reals((3,), -5, 5))
def test_residual_is_the_largest_difference_over_one_plus_right(left, right):
    expected = max(abs(a - b) / (1 + abs(b)) for a, b in zip(left, right, strict=True))
    assert compared(left, right).residual == pytest.approx(expected, abs=1e-15)


@given(reals((3,), 0.1, 5), reals((3,), 0.1, 5))
def test_relative_residual_is_the_largest_difference_over_right(left, right):
    expected = max(abs(a - b) / abs(b) for a, b in zip(left, right, strict=True))
    assert compared(left, right, relative=True).residual == pytest.approx(expected, abs=1e-15)


def test_a_check_is_true_if_its_residual_is_within_the_tolerance():
    for left, passed in (1.0, True), (1 + 1.9e-9, True), (1 + 2.1e-9, False):
        check = compared(left, 1.0)
        assert bool(check) is check.passed is passed
        assert (check.diagnosis == "") is passed
    assert compared(1 + 0.9e-9, 1.0, relative=True)
    assert not compared(1 + 1.1e-9, 1.0, relative=True)


def test_sides_are_those_of_the_worst_value():
    check = compared([1.0, 2.0, 3.0], [1.0, 2.5, 3.1])
    assert check.sides == (2.0, 2.5)
    assert "it[1] is 2, expected 2.5" in check.diagnosis
    assert np.isnan(compared([1.0], [1.0, 2.0]).sides).all()


@pytest.mark.parametrize("right", [np.nan, np.inf, [1.0, -np.inf]], ids=str)
def test_a_problem_without_a_finite_answer_is_refused(right):
    with pytest.raises(ValueError, match=r"^check_it: it has no finite value for this problem"):
        compared(right, right)


@pytest.mark.parametrize("left", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_do_not_pass(left):
    check = compared([1.0, left], [1.0, 2.0])
    assert not check
    assert check.residual == np.inf
    assert "it[1] is" in check.diagnosis


@pytest.mark.parametrize("left", [np.ones(3), np.ones((2, 1)), 1.0, [np.ones(2), np.ones(3)]], ids=str)
def test_another_shape_does_not_pass_by_broadcasting(left):
    check = compared(left, np.ones(2))
    assert not check
    assert check.residual == np.inf
    assert "has shape" in check.diagnosis


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda r: -r, "the sign is wrong"),
        (lambda r: 2 * r, "it is twice the right value"),
        (lambda r: r / 2, "it is half the right value"),
        (lambda r: r**2, "it is the square of the right value"),
        (lambda r: r**0.5, "it is the root of the right value"),
        (np.log, "it is the logarithm of the right value"),
        (lambda r: r / 5, "a mean in place of a sum"),
        (lambda r: 0 * r, "it is zero"),
        (lambda r: r + np.eye(5)[0], NAMELESS),
        (lambda r: np.float32(2 * r), "it is twice the right value"),
        (lambda r: 2 * r + [0, 0, 0, 0, 1e-4], NAMELESS),
    ],
)
def test_general_mistakes_are_named(wrong, sentence):
    right = np.array([0.3, 1.7, 2.2, 0.9, 4.1])
    assert compared(wrong(right), right).diagnosis.endswith(sentence)


def test_a_named_mistake_comes_before_a_general_one_and_gives_every_number():
    right = np.array([2.0, 3.0, 5.0])
    mistakes = {"it is the other one": lambda: 2 * right, "it is a third": lambda: right + 1}
    assert compared(2 * right, right, mistakes=mistakes).diagnosis.endswith("; it is the other one")
    assert compared(2 * right + [0, 1e-9, 0], right, mistakes=mistakes).diagnosis.endswith("; it is the other one")
    for error in 1e-4, 1e-2, 0.3:
        assert compared(2 * right + [0, error, 0], right, mistakes=mistakes).diagnosis.endswith(NAMELESS)
    assert compared(right + 1, right, mistakes={"of another shape": lambda: np.ones(7)}).diagnosis.endswith(NAMELESS)
    same = {**mistakes, "it is its equal": lambda: 2 * right}
    assert compared(2 * right, right, mistakes=same).diagnosis.endswith("it is the other one; or: it is its equal")


def test_one_number_proves_no_mistake():
    """4 is the square of 2 and its double; a shift of one entry fits whatever moves this entry."""
    assert compared(4.0, 2.0, mistakes={"it is 4": lambda: 4.0}).diagnosis.endswith(NAMELESS)
    assert compared([4.0, 4.0], [2.0, 2.0]).diagnosis.endswith(NAMELESS)
    assert compared([4.0, 4.0], [2.0, 2.0], mistakes={"it is 4": lambda: 4.0}).diagnosis.endswith("; it is 4")
    assert compared([4.0, 2.0], [2.0, 2.0], mistakes={"it is 4": lambda: [4.0, 2.0]}).diagnosis.endswith(NAMELESS)


def test_a_constant_ratio_or_offset_of_three_values_is_told_as_a_fact():
    right = np.array([0.3, 1.7, 2.2, 0.9, 4.1])
    for left, fact in (
        (5 * right, "; it is 5 times the right value; "),
        (1.000001 * right, "; it is 1 + 1e-06 times the right value; "),
        (right + 1.5, "; it is the right value plus 1.5; "),
        (right - 0.25, "; it is the right value minus 0.25; "),
    ):
        assert compared(left, right).diagnosis.endswith(fact + NAMELESS)
    assert "times" not in compared(5 * right[:2], right[:2]).diagnosis  # two values have many explanations
    assert "times" not in compared(5 * right + [0, 0, 0, 0, 1e-4], right).diagnosis
    named = {"the factor is 5": lambda: 5 * right}
    assert compared(5 * right, right, mistakes=named).diagnosis.endswith("; the factor is 5")


def test_clipped_values_are_named_where_others_are_right():
    right = np.array([-6.0, -3.0, 0.5, 1.0, 2.0, 7.0])
    assert "every value above 0.7 is clipped to it" in compared(np.minimum(right, 0.7), right).diagnosis
    assert "every value below -0.2 is clipped to it" in compared(np.maximum(right, -0.2), right).diagnosis
    assert "clipped" not in compared(np.full(6, 7.0), right).diagnosis  # the largest value stands for all


def test_one_entry_is_named_by_its_place_only():
    right, left = np.arange(1.0, 6.0), np.array([0.0, 2.0, 3.0, 4.0, 5.0])
    wrong = {"the first is 0": lambda: left}
    assert compared(left, right, mistakes=wrong).diagnosis.endswith(NAMELESS)
    assert compared(left, right, places=wrong).diagnosis.endswith("; the first is 0")


def test_looser_limits_hold_for_float32_numbers_only():
    """A mistake that leaves out a small part more than `left` does not explain it, unless left is in float32."""
    right = np.array([0.3, 1.7, 2.2, 0.9, 4.1])
    mistakes = {"it is a little too much": lambda: right + 1e-3 + 3e-7}
    left = right + 1e-3 * (1 + 1e-9 * np.arange(5))
    assert compared(left, right, mistakes=mistakes).diagnosis.endswith(NAMELESS)
    assert compared(np.float32(left), right, mistakes=mistakes).diagnosis.endswith("; it is a little too much")


def test_numbers_of_a_callable_in_float32_are_seen_behind_a_change_of_units():
    def q_sample(dtype, factor):
        def sample(t, x0, noise):
            return (factor * (SCHEDULE.alpha_bar[t] * x0 + SCHEDULE.beta_bar[t] * noise)).astype(dtype)

        return sample

    assert check_forward_process(q_sample(np.float32, 1.0), SCHEDULE).diagnosis.endswith(SINGLE)
    assert not check_forward_process(q_sample(np.float64, 1 + 1e-7), SCHEDULE).diagnosis.endswith(SINGLE)


@pytest.mark.parametrize(
    ("left", "single"),
    [
        (np.float32(0.1), True),
        (np.float32([0.1, 2]).astype(float), True),
        ((np.ones(2), np.float32(0.1)), True),
        (np.array([1.0, 2.5, -3.0, np.nan]), False),  # short numbers are exact in every precision
        (np.array([0.1, 1.0]), False),
        (np.arange(3), False),
        ("text", False),
        ([np.ones(2), "text"], False),
    ],
    ids=str,
)
def test_float32_numbers_are_recognised(left, single):
    assert is_single(left) == single


@pytest.mark.parametrize(
    ("mix", "sentence"),
    [
        (lambda u: u[:, :1] + 0 * u, "all dimensions share one u"),
        (lambda u: u[:1] + 0 * u, "all examples share one u"),
        (lambda u: u[::-1], "the examples use u in reverse order"),
        (lambda u: np.roll(u, 1, axis=1), "every dimension uses u of the one before"),
    ],
)
def test_categories_drawn_from_the_number_of_another_entry_fail(mix, sentence):
    law = np.random.default_rng(3).dirichlet(np.ones(4), size=(5, 3))

    def draw(u):
        return (u[..., None] > law.cumsum(axis=-1)[..., :-1]).sum(axis=-1)

    assert check_categorical_draw(draw, law)
    check = check_categorical_draw(lambda u: draw(mix(u)), law)
    assert not check
    assert check.diagnosis.split("; ")[-1].startswith(sentence)


def test_a_tiny_error_is_not_explained_by_a_mistake_that_is_tiny_as_well():
    right = np.array([2.0, 3.0, 5.0])
    close = {"it is close": lambda: right + 2e-8}
    assert compared(right + 1.5e-8, right, mistakes=close).diagnosis.endswith(NAMELESS)


def test_infinite_values_of_a_mistake_explain_nothing():
    right = np.array([1.0, 800.0, 2.0])  # exp(800) is infinite
    check = compared(np.array([0.0, 3.0, np.inf]), right, mistakes={"it is infinite": lambda: np.full(3, np.inf)})
    assert check.diagnosis == "it[2] is inf, expected 2"
    assert compared([1.5, 3.0, 2.0], right).diagnosis.endswith(NAMELESS)


def test_labels_say_what_an_entry_means():
    left, right = np.array([[1.0, 2.0], [3.0, 4.5]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    assert compared(left, right, labels=(["t = 1", "t = 2"], ["example 0", "example 1"])).diagnosis.startswith(
        "it, t = 2, example 1 is 4.5, expected 4;"
    )
    assert compared(left, right, labels=lambda i: f"t = {i[0] + 1}: factor {i[1]}").diagnosis.startswith(
        "t = 2: factor 1 is 4.5, expected 4;"
    )


@pytest.mark.parametrize(
    ("left", "single"),
    [
        (lambda r: np.float32(r), True),
        (lambda r: np.cumsum(np.diff(np.float32(r), prepend=np.float32(0))), True),
        (lambda r: r + 1e-8, False),  # as from 1e-8 in a denominator
        (lambda r: r * (1 + 1e-7), False),
        (lambda r: r + 1e-7 * np.eye(7)[2], False),
        (lambda r: r + 1e-7 * (-1.0) ** np.arange(7), False),  # in float64, so no rounding
        (lambda r: r + 1e-3 * (-1.0) ** np.arange(7), False),
    ],
)
def test_float32_precision_is_small_and_at_most_entries_and_of_both_signs(left, single):
    right = np.array([0.3, 1.7, 2.2, 0.9, 4.1, 0.123, 0.77])
    assert compared(left(right), right).diagnosis.endswith(SINGLE if single else NAMELESS)


def test_mistakes_are_computed_after_a_failure_only():
    def never():
        raise AssertionError

    assert compared(1.0, 1.0, mistakes={"never": never})


def test_the_worst_of_several_is_the_largest_and_a_named_failure_follows():
    fine, right = compared(1.0, 1.0), np.array([1.0, 2.0])
    nameless, named = compared(right + np.array([90.0, 7.0]), right), compared(-right, right)
    assert worst(fine, nameless) is nameless
    both = worst(nameless, fine, named)
    assert both.residual == nameless.residual
    assert both.diagnosis == f"{named.diagnosis}.  Also, {nameless.diagnosis}"
    assert both.diagnosis.split(".  Also, ")[0].endswith("the sign is wrong")
    larger = compared(-100 * right, 100 * right)
    assert worst(nameless, larger, compared([1.0, 2.5], right)).residual == nameless.residual
    assert worst(compared(right + 0.1, right), larger) is larger
    assert worst(fine, compared(1 + 1e-12, 1.0)).residual > 0


def test_repr_of_a_check_has_residual_tolerance_and_diagnosis():
    schedule = NoiseSchedule([0.1, 0.2, 0.4])

    def q_sample(t, x0, noise):
        return schedule.alpha_bar[t] * x0 + schedule.beta_bar[t] ** 2 * noise

    check = check_forward_process(q_sample, schedule)
    assert repr(check).startswith("check_forward_process (25): residual ")
    assert "FAILED" in repr(check)
    assert check.diagnosis.endswith("the noise has factor β̄², a variance")
    assert repr(check_kl(lambda p, q: (p * np.log(p / q)).sum(), np.array([0.5, 0.5]), np.array([0.1, 0.9]))).endswith(
        "ok"
    )


@given(schedules(max_T=6, min_T=2), st.booleans())
def test_a_posterior_of_the_wrong_step_is_diagnosed(schedule, padded):
    """On every schedule with sufficiently different steps, the diagnosis names the shift."""
    v, total = np.append(0, schedule.variances), schedule.beta_bar**2

    def q_posterior(t, x_t, x0):
        mean = (schedule.alpha[t] * total[t - 1] * x_t + schedule.alpha_bar[t - 1] * v[t] * x0) / total[t]
        s = max(t - 1, 1) if padded else t
        return mean, v[s] * total[s - 1] / total[s]

    check = check_posterior(q_posterior, schedule)
    exact = v[2:] * total[1:-1] / total[2:]
    if not padded:
        assert check
    elif np.abs(np.diff(np.append(0, exact))).min() > 1e-3 * exact.max() and len(exact) > 1:
        assert check.diagnosis.endswith("it is that of step t−1: index shifted by one")


def test_results_of_other_frameworks_are_taken_as_arrays():
    """Anything that numpy.asarray accepts: lists, and objects with __array__."""

    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.values, dtype=dtype)

    schedule = NoiseSchedule([0.1, 0.2, 0.4])
    exact = lambda t, x0, noise: schedule.alpha_bar[t] * x0 + schedule.beta_bar[t] * noise  # noqa: E731
    assert check_forward_process(lambda *a: exact(*a).tolist(), schedule)
    assert check_forward_process(lambda *a: Tensor(exact(*a)), schedule)


def test_a_gradient_of_another_shape_does_not_pass():
    def losses(p):
        return np.array([1.0, 2.0]) * (p**2).sum()

    def step(p, rows=slice(None)):
        return losses(p), 3 * p[rows]

    at = np.array([0.7, -0.4, 1.1])
    assert check_training_step(step, losses, at)
    wrong = check_training_step(lambda p: step(p, slice(2)), losses, at)
    assert not wrong
    assert wrong.diagnosis == "the gradient has shape (2,), expected (3,)"


@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e5])
def test_steps_of_em_are_checked_in_units_of_the_data(unit):
    """An absolute residual would pass covariances of 1e-10 with an error of a third, and fail correct ones of 1e10."""
    rng = np.random.default_rng(0)
    x = unit * np.concatenate([rng.normal(1, 0.4, (40, 2)), rng.normal(-1, 0.6, (50, 2))])
    start = np.array([0.4, 0.6]), unit * np.array([[1.2, 0.8], [-1.0, -0.5]]), unit**2 * np.array([0.2, 0.5])
    start = start[0], start[1], start[2][:, None, None] * np.eye(2)

    def step(x, *parameters):
        mixture = Mixture(*parameters)
        after = m_step(x, e_step(x, mixture)[0], mixture)
        return after.weights, after.means, after.covariances

    def unbiased(x, *parameters):
        weights, means, covariances = step(x, *parameters)
        counts = weights * len(x)
        return weights, means, covariances * (counts / (counts - 1))[:, None, None]

    assert check_em(step, x, *start)
    assert check_em(unbiased, x, *start).diagnosis.endswith("they are divided by N_k − 1")

    S, W = unit**2 * (np.eye(4) + np.ones((4, 4))), unit * np.array([[1.0, 0.2], [0.3, -0.5], [0.4, 0.6], [0.1, 0.9]])

    def old_W(S, W, noise_variance):
        M = W.T @ W + noise_variance * np.eye(2)
        kept = np.trace(S) - np.sum(np.linalg.solve(M, W.T @ S) * W.T)
        return ppca_em_step(S, W, noise_variance)[0], kept / 4

    assert check_ppca_step(ppca_em_step, S, W, 0.7 * unit**2)
    assert not check_ppca_step(old_W, S, W, 0.7 * unit**2)
    assert check_ppca_maximum(ppca_maximum, S, 2)
    assert not check_ppca_maximum(lambda S, k: (ppca_maximum(S, k)[0], 1.3 * ppca_maximum(S, k)[1]), S, 2)


def test_a_step_that_clips_is_not_linear():
    """At unit vectors alone, the clipping of x̂_0 to [−1, 1] is invisible."""
    schedule = NoiseSchedule([0.02, 0.1, 0.25, 0.4, 0.6])

    def clipped(t, s, x_t, eps_hat, noise):
        x0 = np.clip((x_t - schedule.beta_bar[t] * eps_hat) / schedule.alpha_bar[t], -1, 1)
        return schedule.alpha_bar[s] * x0 + schedule.beta_bar[s] * eps_hat

    check = check_ddim_step(clipped, schedule, 0.0)
    assert np.abs(check.left[:, :4] - check.right[:, :4]).max() < 1e-12  # the factors and the constant
    assert not check
    assert check.diagnosis.endswith(f"x̂_0 is clipped to [−1, 1]; ε̂ is not recomputed from it; {UNCLIPPED}")


def test_posterior_variances_are_compared_in_units_of_a_step():
    """With β² = 1e-8 absolute differences are too small; a clamp at 1e-20 in place of β̃_1² = 0 still passes."""
    schedule = NoiseSchedule(np.full(5, 1e-8))
    v, total = np.append(0, schedule.variances), schedule.beta_bar**2

    def posterior(factor, clamp, t, x_t, x0):
        mean = (schedule.alpha[t] * total[t - 1] * x_t + schedule.alpha_bar[t - 1] * v[t] * x0) / total[t]
        return mean, max(factor * v[t] * total[t - 1] / total[t], clamp)

    assert check_posterior(lambda *a: posterior(1.0, 1e-20, *a), schedule)
    assert not check_posterior(lambda *a: posterior(1.01, 0.0, *a), schedule)


def test_a_check_can_be_judged_at_another_tolerance():
    single = compared(1 + 1e-6, 1.0)
    assert not single
    assert single.at(1e-5)
    assert single.at(1e-5).diagnosis == ""
    assert single.at(1e-5).residual == single.residual
    assert not single.at(1e-7)
    assert single.at(1e-7).diagnosis == single.diagnosis
    assert "it is 1.0000000001, expected 1" in compared(1 + 1e-10, 1.0).at(1e-12).diagnosis  # passed before


# --- mistakes that early versions of the checks missed ---------------------------------------------------------------

SDE = VP(0.3, 4.0, 1.7)
MEAN, COVARIANCE = np.array([0.4, -0.7]), np.array([[0.5, 0.2], [0.2, 0.3]])


def gaussian_score(x, t):
    scale, std = SDE.level(t)
    return -np.linalg.solve(scale**2 * COVARIANCE + std**2 * np.eye(2), (x - scale * MEAN).T).T


def reversed_by(stochasticity, bend=lambda drift: drift):
    return lambda x, t: bend(reverse_drift(SDE, gaussian_score(x, t), x, t, stochasticity))


@pytest.mark.parametrize("asked", [0.0, 1.0])
@pytest.mark.parametrize("made", [0.0, 0.5, 1.0, 2.0])
def test_reverse_sde_has_the_stochasticity_that_was_asked_for(asked, made):
    """Every stochasticity moves the moments correctly; the diffusion shows which one is in use."""
    problem = SDE, MEAN, COVARIANCE, asked
    check = check_reverse_sde(reversed_by(made), lambda t: made * SDE.diffusion(t), *problem)
    assert check.passed == (made == asked)
    squared = check_reverse_sde(reversed_by(made), lambda t: made * SDE.diffusion(t) ** 2, *problem)
    assert squared.passed == (made == asked == 0)


def test_reverse_drift_is_also_probed_far_from_0():
    clipped = reversed_by(1.0, lambda drift: np.clip(drift, -5, 5))
    assert "12 standard" in check_reverse_sde(clipped, SDE.diffusion, SDE, MEAN, COVARIANCE).quantity
    assert not check_reverse_sde(clipped, SDE.diffusion, SDE, MEAN, COVARIANCE)


@pytest.mark.parametrize("drift", [lambda x: 1 + 0 * x, lambda x: x**3, lambda x: 2 * x - 1, np.abs], ids=range(4))
def test_forward_drift_is_linear_in_x(drift):
    def wrong(x, t):
        return float(SDE.rate(t)) * drift(x)

    assert not check_sde(SDE.marginal, wrong, SDE.diffusion, SDE.horizon)


def test_small_numbers_are_compared_in_their_own_units():
    wide = Mixture([0.4, 0.6], [[-1e12], [2e12]], [[[1e24]], [[4e24]]])
    x = np.array([[1e12], [-3e12], [5e12]])
    assert check_score(wide.score, wide, x)
    assert not check_score(lambda x: 0 * x, wide, x)
    target = np.array([0.3, -0.2])
    parameters, directions = np.array([1.0, 2.0]), np.eye(2)
    for unit in 1e-8, 1.0, 1e8:
        assert check_gradient(lambda p, u=unit: u * p @ target, lambda p, u=unit: u * target, parameters, directions)
        assert not check_gradient(lambda p, u=unit: u * p @ target, lambda p: 0 * p, parameters, directions)
    schedule = NoiseSchedule([0.1, 0.3])
    still = check_sampler(lambda x_T, eps_hat, noise: 0 * x_T, schedule, 0.0, 1e-12, schedule.beta**2)
    assert not still


SCHEDULE = NoiseSchedule([0.1, 0.2, 0.4])
HALF = np.array([0.5, 0.5])
RIGHT_STEP = lambda t, x, e, z: x  # noqa: E731


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_kl(lambda p, q: 0.0, np.array([0.5, 0.6]), HALF), "p must sum to 1"),
        (lambda: check_kl(lambda p, q: 0.0, HALF, np.array([0.0, 1.0])), "q must be positive"),
        (lambda: check_elbo(lambda joint, q: 0.0, np.ones((2, 2)), np.full((2, 2), 0.5)), "joint must sum to 1"),
        (lambda: check_diagonal_kl(lambda m, v: 0.0, np.zeros((4, 2)), np.zeros((4, 1))), "mean and log_variance must"),
        (lambda: check_ddim_step(lambda *a: a[2], SCHEDULE, -1.0), "eta must be in"),
        (lambda: check_sampler(lambda *a: a[0], SCHEDULE, 0.0, -1.0, SCHEDULE.beta**2), "variance must be in"),
        (lambda: check_ancestral_step(RIGHT_STEP, SCHEDULE, np.ones(3)), "sigma_squared must have 4 entries"),
        (lambda: check_ancestral_step(RIGHT_STEP, SCHEDULE, np.array([0, 1, -1, 1.0])), "sigma_squared must have 4"),
        (lambda: check_forward_process(lambda *a: None, SCHEDULE), "q_sample must return an array"),
        (
            lambda: check_forward_process(lambda t, x, e: x.ravel(), SCHEDULE),
            r"q_sample must return an array of shape \(7, 3\)",
        ),
        (lambda: check_posterior(lambda t, x, x0: x, SCHEDULE), "q_posterior must return 2 arrays"),
        (
            lambda: check_em(lambda *a: a[1:3], np.zeros((4, 1)), HALF, np.eye(2)[:, :1], np.ones((2, 1, 1))),
            "step must",
        ),
        (lambda: check_gradient(lambda p: p, lambda p: p, HALF, np.eye(2)), r"loss must return an array of shape \(\)"),
        (lambda: check_ppca_maximum(lambda S, k: None, np.eye(3), 3), "n_components must be in 1..2"),
        (
            lambda: check_reverse_sampler(lambda *a: 0, lambda x, t: x, SDE, np.array([0.1, 0.5])),
            "times must have at least two entries",
        ),
        (lambda: compared(1.0, 1.0).at(None), "tolerance must be a number"),
    ],
)
def test_misuse_is_refused_by_name(call, message):
    with pytest.raises((ValueError, TypeError), match=rf"^(check_\w+: )?{message}"):
        call()


def test_lists_and_integers_are_taken_as_arrays():
    """Callables get arrays, for problems given as arrays or lists."""
    kl = kl_gaussian
    assert check_gaussian_kl(kl, [0, 1], [[2, 0], [0, 1]], [1, 1], [[1, 0], [0, 3]])
    assert check_ancestral_step(
        lambda t, x, e, z: p_step(SCHEDULE, t, x, e, z), SCHEDULE, [0, *SCHEDULE.variances.tolist()]
    )


def test_float32_precision_is_diagnosed():
    def q_sample(t, x0, noise):
        single = np.float32(SCHEDULE.alpha_bar[t]) * x0.astype(np.float32)
        return single + np.float32(SCHEDULE.beta_bar[t]) * noise.astype(np.float32)

    check = check_forward_process(q_sample, SCHEDULE)
    assert "float32 precision" in check.diagnosis
    assert check.at(1e-5)


def test_all_checks_are_exported():
    exported = [name for name in conformance.__all__ if name.startswith("check_")]
    assert len(exported) >= 50
    assert all(callable(getattr(conformance, name)) for name in exported)
