"""NoiseSchedule: its tables against fractions and decimals, and its three constructors."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import VE, VP, NoiseSchedule, SubVP
from scratchgen.schedule import sinh_log_snr
from scratchgen.testing import variances
from tests.strategies import relative, residual

TABLES = ("alpha", "beta", "alpha_bar", "beta_bar", "beta_tilde", "snr")

# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.equation(25, "schedule")
@given(variances(1e-9, 0.999))
def test_one_step_preserves_variance(v):
    """α² + β² = 1 and ᾱ² + β̄² = 1; the given table is β², so that β is a standard deviation."""
    schedule = NoiseSchedule(v)
    assert relative(schedule.beta[1:] ** 2, v) < 1e-14
    assert residual(schedule.alpha**2 + schedule.beta**2, np.ones(len(v) + 1)) < 1e-15
    assert residual(schedule.alpha_bar**2 + schedule.beta_bar**2, np.ones(len(v) + 1)) < 1e-14


@given(variances(1e-9, 0.999))
def test_index_zero_is_clean_data(v):
    schedule = NoiseSchedule(v)
    assert len(v) == schedule.T
    assert np.array_equal(schedule.variances, v)
    assert all(getattr(schedule, name).shape == (len(v) + 1,) for name in TABLES)
    first = [getattr(schedule, name)[0] for name in TABLES]
    assert first == [1, 0, 1, 0, 0, np.inf]


@pytest.mark.equation(24, "schedule")
@given(variances(1e-6, 0.999, max_T=8))
def test_beta_tilde_is_the_posteriors_standard_deviation(v):
    """1/β̃_t² = α_t²/β_t² + 1/β̄_{t−1}² for t ≥ 2 in exact fractions; β̃_1 = 0, because x_0 is given."""
    schedule = NoiseSchedule(v)
    assert schedule.beta_tilde[1] == 0
    alpha_bar_squared = Fraction(1)
    for t, variance in enumerate(map(Fraction, v.tolist()), start=1):
        if t >= 2:
            precision = (1 - variance) / variance + 1 / (1 - alpha_bar_squared)
            assert abs(schedule.beta_tilde[t] / float(1 / precision) ** 0.5 - 1) < 1e-12
        alpha_bar_squared *= 1 - variance


@given(variances(1e-9, 0.999))
def test_snr_falls_and_is_the_ratio_of_the_squares(v):
    schedule = NoiseSchedule(v)
    assert relative(schedule.snr[1:], (schedule.alpha_bar[1:] / schedule.beta_bar[1:]) ** 2) < 1e-13
    assert np.all(np.diff(schedule.snr[1:]) < 0)


def exact_tables(v):
    """ᾱ_t and β̄_t to 50 digits from the binary values of v."""
    with localcontext() as context:
        context.prec = 60
        squared, rows = Decimal(1), []
        for variance in v:
            squared *= 1 - Decimal(variance)
            rows.append((float(squared.sqrt()), float((1 - squared).sqrt())))
    return np.array(rows).T


@pytest.mark.equation(25, "schedule")
@pytest.mark.parametrize("variance", [1e-15, 1e-12, 1e-8, 1e-3, 0.5, 0.999])
def test_tables_keep_their_digits(variance):
    """Relative error of β̄ below 1e-12 down to β² = 1e-15."""
    v = np.full(30, variance) * np.linspace(0.5, 1.0, 30)
    schedule = NoiseSchedule(v)
    alpha_bar, beta_bar = exact_tables(v.tolist())
    assert relative(schedule.alpha_bar[1:], alpha_bar) < 1e-12
    assert relative(schedule.beta_bar[1:], beta_bar) < 1e-12
    assert relative(schedule.snr[1:], (alpha_bar / beta_bar) ** 2) < 1e-12


def test_square_root_of_one_minus_alpha_bar_loses_digits():
    """√(1 − ᾱ²) with ᾱ from cumprod, as in much published code, has an error of 1e-5 at β² = 1e-12."""
    v = np.full(30, 1e-12)
    naive = np.sqrt(1 - np.cumprod(np.sqrt(1 - v)) ** 2)
    assert relative(naive, exact_tables(v.tolist())[1]) > 1e-6


@pytest.mark.parametrize(("n", "variance", "last"), [(1000, 0.9, 307), (4000, 0.999, 102), (2000, 0.5, 1022)])
def test_a_schedule_that_leaves_no_signal_is_refused_by_its_step(n, variance, last):
    """ᾱ_t² = (1 − β²)^t falls below 2^−1022, the least float64 with all digits, after step `last`."""
    with localcontext() as context:
        context.prec = 60
        assert (1 - Decimal(variance)) ** last >= Decimal(2) ** -1022 > (1 - Decimal(variance)) ** (last + 1)
    words = f"alpha_bar² underflows at step {last + 1} of {n}; pass at most {last} of these variances, or smaller ones"
    with pytest.raises(ValueError, match=rf"^variances must leave some signal, but {words}$"):
        NoiseSchedule(np.full(n, variance))
    schedule = NoiseSchedule(np.full(last, variance))
    assert all((getattr(schedule, name)[1:] > 0).all() for name in ("alpha_bar", "snr"))
    assert all(np.isfinite(getattr(schedule, name)[1:]).all() for name in TABLES)


# --- ratios of two levels ---------------------------------------------------------------------------------

SMALL_AFTER_LARGE = [0.999, 0.999, 1e-9, 1e-12, 1e-9, 0.3, 1e-15, 1e-12]


def exact_added(v, s, t):
    """1 − ᾱ_t²/ᾱ_s² = 1 − Π(1 − β_i²) over the steps from s + 1 to t, in fractions."""
    product = Fraction(1)
    for variance in v[s:t]:
        product *= 1 - Fraction(variance)
    return 1 - product


@given(variances(1e-15, 0.999), st.data())
def test_ratio_of_two_levels_keeps_its_digits(v, data):
    """Also for small variances after large ones, where the difference of two log ᾱ has lost them."""
    v = np.concatenate([v, SMALL_AFTER_LARGE])
    t = np.array(data.draw(st.lists(st.integers(1, len(v)), min_size=1, max_size=5)))
    s = np.array([data.draw(st.integers(0, last - 1)) for last in t.tolist()])
    schedule = NoiseSchedule(v)
    exact = np.array([float(exact_added(v.tolist(), *pair)) for pair in zip(s.tolist(), t.tolist(), strict=True)])
    assert relative(-np.expm1(schedule.log_signal_ratio(s, t)), exact) < 1e-14
    one = schedule.log_signal_ratio(int(s[0]), int(t[0]))
    assert one.shape == ()
    assert one == schedule.log_signal_ratio(s, t)[0]


@pytest.mark.parametrize("v", [SMALL_AFTER_LARGE, [0.9999, 1e-17]], ids=["small after large", "below rounding"])
def test_respaced_variances_keep_their_digits(v):
    """With all steps kept the variances return to 1e-15; differences of log ᾱ gave 9e-5, or a variance of 0."""
    schedule, T = NoiseSchedule(v), len(v)
    assert relative(schedule.respace(np.arange(1, T + 1)).variances, np.array(v)) < 1e-15
    kept = list(range(2, T + 1, 2))
    exact = [float(exact_added(v, s, t)) for s, t in zip([0, *kept], kept, strict=False)]
    assert relative(schedule.respace(kept).variances, np.array(exact)) < 1e-14


def test_steps_too_far_apart_are_refused():
    """A variance of 1 − 1e-20 is 1 in float64."""
    schedule = NoiseSchedule(np.full(20, 0.9))
    with pytest.raises(ValueError, match=r"^steps must leave variances below 1, .* from 0 to 20 rounds to 1; keep"):
        schedule.respace([20])
    assert schedule.respace([10, 20]).T == 2


# --- linear -----------------------------------------------------------------------------------------------


@pytest.mark.equation(30, 31)
@given(st.integers(1, 300), st.floats(0, 2), st.floats(0.5, 25))
def test_linear_is_the_exact_discretisation_of_vp(T, low, high):
    """The same numbers as from_sde(VP), which uses the integral of β(s) instead of its midpoints."""
    linear, exact = NoiseSchedule.linear(T, low, high), NoiseSchedule.from_sde(VP(low, high), T)
    assert linear.T == exact.T == T
    assert relative(linear.variances, exact.variances) < 1e-9
    for name in ("alpha_bar", "beta_bar", "beta_tilde"):
        assert residual(getattr(linear, name), getattr(exact, name)) < 1e-12


@pytest.mark.parametrize("T", [1, 2, 10, 100, 1000])
def test_linear_ends_equally_noisy_at_every_T(T):
    """ᾱ_T² = exp(−∫β) = exp(−10.05); Ho's table for T = 1000, cut to 100 steps, would end at 0.36."""
    assert relative(NoiseSchedule.linear(T).alpha_bar[-1] ** 2, np.exp(-10.05)) < 1e-12
    if T == 100:
        assert NoiseSchedule(np.linspace(1e-4, 0.02, T)).alpha_bar[-1] ** 2 == pytest.approx(0.36, abs=0.01)


def test_linear_with_1000_steps_is_hos_table_to_104_ten_thousandths_of_its_end():
    """1 − exp(−19.99/1000 …) lies 1.042 % below 0.02; the first entry lies a tenth above 1e-4."""
    ours, hos = NoiseSchedule.linear(1000).variances, np.linspace(1e-4, 0.02, 1000)
    assert 0.01042 * hos.max() < np.abs(ours - hos).max() < 0.01043 * hos.max()
    assert relative(ours[50:], hos[50:]) < 0.011
    assert ours[0] / hos[0] == pytest.approx(1.0994, abs=1e-4)


# --- from_sde ---------------------------------------------------------------------------------------------


def test_from_sde_keeps_small_steps_accurate():
    """β² of 100 000 steps starts at 1e-6: 1 − exp(.) without expm1 would keep 10 digits."""
    T, sde = 100_000, VP()
    B = np.diff(sde.beta_integral(np.arange(101) / T))
    assert relative(NoiseSchedule.from_sde(sde, T).variances[:100], B - B**2 / 2 + B**3 / 6) < 1e-12


@pytest.mark.parametrize("sde", [SubVP(), VE(0.01, 5.0), VE(1e-5, 7e-5)], ids=["SubVP", "VE", "VE, hardly any noise"])
def test_from_sde_refuses_what_does_not_preserve_variance(sde):
    with pytest.raises(ValueError, match=r"^sde must be variance preserving .* use VP$"):
        NoiseSchedule.from_sde(sde, 10)


# --- cosine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "offset"), [(1, 0.008), (2, 0.008), (10, 0.0), (100, 0.008), (1000, 0.1)])
def test_cosine_is_the_papers_alpha_bar_below_its_cap(T, offset):
    schedule = NoiseSchedule.cosine(T, offset=offset)
    f = np.cos(0.5 * np.pi * (np.arange(T + 1) / T + offset) / (1 + offset)) ** 2
    free = np.flatnonzero(schedule.variances >= 0.999)[0]  # steps before the first capped one
    assert relative(schedule.alpha_bar[1 : free + 1], np.sqrt(f / f[0])[1 : free + 1]) < 1e-11
    assert schedule.variances[-1] == 0.999
    assert schedule.variances.max() == 0.999


def test_cosine_is_a_schedule_for_every_T():
    for T in (*range(1, 66), *range(66, 4000, 119), 3999, 4000):
        schedule = NoiseSchedule.cosine(T)
        assert schedule.T == T
        assert np.all((schedule.variances > 0) & (schedule.variances <= 0.999))
        assert all(np.isfinite(getattr(schedule, name)[1:]).all() for name in TABLES)
        assert schedule.alpha_bar[-1] < 0.04


def test_cosine_without_offset_keeps_its_first_digits():
    """β_1² = sin²(π/2T) exactly; 1 − cos² would have a relative error of 1e-9 at T = 4000."""
    T = 4000
    first = NoiseSchedule.cosine(T, offset=0.0).variances[0]
    assert relative(first, np.sin(np.pi / (2 * T)) ** 2) < 1e-13


def test_cosine_has_the_papers_offset_and_cap_by_default():
    assert np.array_equal(NoiseSchedule.cosine(50).variances, NoiseSchedule.cosine(50, 0.008, 0.999).variances)


def test_cosine_takes_another_cap():
    assert NoiseSchedule.cosine(10, max_variance=0.5).variances.max() == 0.5


# --- the object -------------------------------------------------------------------------------------------


def test_from_variances_is_hos_table_counted_from_the_first_step():
    v = [0.1, 0.2, 0.4]
    schedule = NoiseSchedule.from_variances(v)
    assert np.array_equal(schedule.beta[1:], np.sqrt(v))
    assert all(np.array_equal(getattr(schedule, name), getattr(NoiseSchedule(v), name)) for name in TABLES)


def test_float32_variances_give_the_same_tables_as_their_float64_values():
    single = np.array([0.1, 0.2, 0.4], np.float32)
    for name in ("variances", *TABLES):
        assert getattr(NoiseSchedule(single), name).dtype == np.float64
        assert np.array_equal(getattr(NoiseSchedule(single), name), getattr(NoiseSchedule(single.astype(float)), name))


def test_schedule_cannot_be_changed():
    v = np.array([0.1, 0.2])
    schedule = NoiseSchedule(v)
    v[:] = 0.9
    assert np.array_equal(schedule.variances, [0.1, 0.2])
    with pytest.raises(AttributeError):
        schedule.beta = np.zeros(3)
    for name in ("variances", *TABLES):
        with pytest.raises(ValueError, match="read-only"):
            getattr(schedule, name)[0] = 0.5


def test_repr_is_short():
    assert repr(NoiseSchedule.linear(100)) == "NoiseSchedule(T=100, alpha_bar[T]=0.00657)"


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, 1.5])
def test_variance_outside_the_unit_interval_is_refused_and_located(wrong):
    with pytest.raises(
        ValueError,
        match=rf"^variances must lie strictly between 0 and 1, but variances\[1\] is {wrong}; "
        r"pass the variance β² \(Ho's beta\), not β, and rescale the table when T changes$",
    ):
        NoiseSchedule([0.5, wrong, wrong])


@pytest.mark.filterwarnings("error")
def test_a_variance_whose_snr_would_overflow_is_refused_and_the_next_one_has_all_steps():
    with pytest.raises(ValueError, match=r"^variances must lie strictly between 2.2e-308 and 1, .*\[1\] is 1e-320"):
        NoiseSchedule([0.5, 1e-320])
    schedule = NoiseSchedule([3e-308, 3e-308, 0.5])
    assert np.isfinite(schedule.snr[1:]).all()
    assert schedule.sinh_steps(2).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("v", "error"),
    [
        ([], ValueError),
        ([[0.1]], ValueError),
        (0.1, ValueError),
        ([np.nan], ValueError),
        ([0.1, np.inf], ValueError),
        (["a"], TypeError),
        ([0.1j], ValueError),
        (None, TypeError),
    ],
    ids=repr,
)
def test_invalid_variances_are_refused(v, error):
    with pytest.raises(error, match=r"^variances must "):
        NoiseSchedule.from_variances(v)


@pytest.mark.parametrize(("T", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
@pytest.mark.parametrize(
    "make",
    [NoiseSchedule.linear, NoiseSchedule.cosine, lambda T: NoiseSchedule.from_sde(VP(), T)],
    ids=["linear", "cosine", "from_sde"],
)
def test_number_of_steps_is_a_positive_integer(make, T, error):
    with pytest.raises(error, match=r"^T must be "):
        make(T)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: NoiseSchedule.linear(5, beta_min=-0.1), "beta_min"),
        (lambda: NoiseSchedule.linear(5, beta_max=0.0), "beta_max"),
        (lambda: NoiseSchedule.linear(5, beta_max=np.nan), "beta_max"),
        (lambda: NoiseSchedule.cosine(5, offset=-0.1), "offset"),
        (lambda: NoiseSchedule.cosine(5, max_variance=0.0), "max_variance"),
        (lambda: NoiseSchedule.cosine(5, max_variance=1.0), "max_variance"),
    ],
)
def test_shape_parameters_out_of_range_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=rf"^{name} must be in "):
        make()


def test_schedules_are_compared_by_identity_and_can_be_kept_in_a_set():
    one, same = NoiseSchedule.linear(3), NoiseSchedule.linear(3)
    assert one == one
    assert one != same
    assert len({one, same, one}) == 2


# --- the grid of fast samplers ------------------------------------------------------------------------------


@given(st.floats(-30, 20), st.floats(0.1, 30), st.integers(2, 60))
def test_sinh_log_snr_is_even_in_v_and_keeps_its_ends(low, span, n):
    log_snr = sinh_log_snr(low, low + span, n)
    assert log_snr.shape == (n,)
    assert np.abs(log_snr[[0, -1]] - [low, low + span]).max() < 1e-12 * (1 + abs(low) + span)
    v = np.log((log_snr - 2) / 4 + np.hypot((log_snr - 2) / 4, 1))  # arcsinh
    assert np.abs(np.diff(v) - (v[-1] - v[0]) / (n - 1)).max() < 1e-12 * (1 + abs(low) + span)


@given(variances(1e-6, 0.9, max_T=30), st.data())
def test_sinh_steps_are_distinct_steps_up_to_T_nearest_to_the_grid(v, data):
    """Exactly n for every n; where they lie far apart, each is one of the two steps around its log-SNR."""
    schedule = NoiseSchedule(v)
    n = data.draw(st.integers(1, schedule.T))
    steps = schedule.sinh_steps(n)
    assert steps.shape == (n,)
    assert steps[-1] == schedule.T
    assert np.array_equal(schedule.respace(steps).alpha_bar[1:].argsort(), np.arange(n)[::-1])
    log_snr = np.log(schedule.snr[1:])
    wanted = sinh_log_snr(log_snr[-1], log_snr[0], n)[::-1] if schedule.T > 1 else log_snr
    if np.diff(steps).min(initial=9) > 1:
        assert (log_snr[np.maximum(steps - 2, 0)] >= wanted - 1e-9).all()
        assert (log_snr[np.minimum(steps, schedule.T - 1)] <= wanted + 1e-9).all()


def test_sinh_steps_of_all_steps_are_all_steps_and_few_are_dense_where_data_form():
    schedule = NoiseSchedule.linear(100)
    for T in 1, 2, 12, 100:  # the last steps of the cosine are far apart, so that several values have one nearest step
        assert np.array_equal(NoiseSchedule.linear(T).sinh_steps(T), np.arange(1, T + 1))
        for n in range(1, T + 1):
            assert len(NoiseSchedule.cosine(T).respace(NoiseSchedule.cosine(T).sinh_steps(n)).variances) == n
    assert schedule.sinh_steps(1).tolist() == [100]
    assert schedule.sinh_steps(2).tolist() == [1, 100]
    assert schedule.sinh_steps(20).tolist() == [
        1, 2, 3, 4, 5, 7, 10, 13, 17, 22, 28, 35, 42, 50, 58, 66, 74, 82, 91, 100
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"^n must be at most 100, got 101"):
        schedule.sinh_steps(101)


def test_sinh_log_snr_refuses_an_empty_range():
    with pytest.raises(ValueError, match=r"^high must be in"):
        sinh_log_snr(3.0, 3.0, 4)
