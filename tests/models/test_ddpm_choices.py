"""The choices of a DDPM: prediction, weights, steps, levels and labels.

Each choice is tested against an invariant.  Predictions are affine in ε and convert exactly.  A draw of t keeps the
expectation of the loss.  A respaced chain keeps the noise levels.  Guidance 0 and 1 are the unlabelled and the labelled
model.
"""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import DDPM, CategoricalMixture, Mixture, NoiseSchedule, to_sde
from scratchgen.ddpm import (
    ancestral_sampler,
    bound_terms,
    ddim_sampler,
    eps_coefficients,
    eps_to_prediction,
    loss_weight,
    negative_elbo,
    optimal_reverse_variance,
    prediction_to_eps,
    q_sample,
    reverse_variance,
    training,
)
from scratchgen.ddpm.objective import WEIGHTINGS
from scratchgen.ddpm.predictions import PREDICTIONS, predict_noise
from scratchgen.sde import exponential_sampler
from scratchgen.testing import reals, schedules, schedules_and_t
from scratchgen.timestep_sampling import STEP_CHOICES
from tests.exact import ExactNoise, affine, exact
from tests.strategies import Scripted, residual

# --- parameterisations ------------------------------------------------------------------------------------


@given(schedules_and_t(), reals((2, 3, 2), -3, 3))
def test_each_prediction_of_the_true_noise_is_what_its_name_says(drawn, flat):
    schedule, t = drawn
    x0, eps = flat
    x_t = q_sample(schedule, t, x0, eps)
    alpha_bar, beta_bar = schedule.alpha_bar[t], schedule.beta_bar[t]
    exact = {
        "noise": eps,
        "x0": x0,
        "v": alpha_bar * eps - beta_bar * x0,
        "step": schedule.beta[t] / beta_bar * eps,  # E[ε_t | ε] by (27), ω being independent of x_t
    }
    for kind in PREDICTIONS:
        scale = 1 + np.abs(x_t).max() / alpha_bar
        assert np.abs(eps_to_prediction(schedule, t, x_t, eps, kind) - exact[kind]).max() < 1e-12 * scale
        assert np.abs(prediction_to_eps(schedule, t, x_t, exact[kind], kind) - eps).max() < 1e-12 * scale / beta_bar


@given(schedules_and_t(), reals((2, 3, 2), -3, 3), st.sampled_from(PREDICTIONS), st.sampled_from(PREDICTIONS))
def test_predictions_convert_into_each_other_and_back(drawn, flat, one, other):
    """For any numbers, not only a true noise; every example may have its own step."""
    schedule, t = drawn
    t = np.array([t, 1, schedule.T])
    x_t, prediction = flat
    eps = prediction_to_eps(schedule, t, x_t, prediction, one)
    there = eps_to_prediction(schedule, t, x_t, eps, other)
    back = eps_to_prediction(schedule, t, x_t, prediction_to_eps(schedule, t, x_t, there, other), one)
    gains = [np.abs(np.broadcast_to(eps_coefficients(schedule, t, kind).gain, 3)) for kind in (one, other)]
    condition = 1 + max((a / b).max() for a in (*gains, np.ones(1)) for b in (*gains, np.ones(1)))
    assert np.abs(back - prediction).max() < 1e-12 * condition**2


def test_an_unknown_prediction_is_refused_by_name():
    schedule, x = NoiseSchedule.linear(3), np.zeros((2, 1))
    with pytest.raises(ValueError, match=r"^kind must be one of 'noise', 'x0', 'v', 'step', got 'score'"):
        prediction_to_eps(schedule, 1, x, x, "score")
    with pytest.raises(ValueError, match=r"^prediction must have the shape of x_t"):
        prediction_to_eps(schedule, 1, x, x[0], "v")
    with pytest.raises(ValueError, match=r"^eps_hat must have the shape of x_t"):
        eps_to_prediction(schedule, 1, x, x[0], "v")


class Says:
    """Replaces an MLP and returns a given answer."""

    def __init__(self, answer):
        self.answer, self.parameters = answer, np.zeros(1)

    def __call__(self, inputs, constant):
        return self.answer


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("t", [1, 3, 6])
def test_a_model_converts_the_prediction_of_its_network_to_noise(kind, t):
    rng = np.random.default_rng(0)
    model = DDPM(NoiseSchedule.linear(6), prediction=kind, hidden=(4,), n_steps=1, rng=0).fit(
        rng.standard_normal((9, 2))
    )
    x_t, eps = rng.standard_normal((2, 5, 2))
    model.network_.mlp = Says(eps_to_prediction(model.schedule_, t, x_t, eps, kind))
    assert residual(model.eps_hat(x_t, t), eps) < 1e-6  # the network works in float32


# --- weights and draws of t -------------------------------------------------------------------------------


@pytest.mark.equation("loss-weights")
@given(schedules(), st.sampled_from(["beta", "posterior"]), st.integers(0, 2**32 - 1))
def test_bound_weights_make_the_mean_loss_the_bound(schedule, variance, seed):
    """(1/T) Σ λ_t ℓ_t equals the part of −ELBO that depends on the network, nats."""
    losses = np.random.default_rng(seed).uniform(0, 3, schedule.T + 1)
    weight = loss_weight(schedule, "bound", variance)
    bound, floor = (negative_elbo(schedule, value, 1.7, 2, variance) for value in (losses, 0 * losses))
    assert residual((weight * losses)[1:].mean(), bound - floor) < 1e-9
    assert weight[0] == 0


@pytest.mark.equation("loss-weights")
@given(schedules_and_t(), reals((3, 3, 2), -3, 3))
def test_other_weights_make_the_loss_the_error_of_the_prediction_they_name(drawn, flat):
    schedule, t = drawn
    x0, eps, eps_hat = flat
    x_t = q_sample(schedule, t, x0, eps)
    squared = ((eps - eps_hat) ** 2).sum(axis=1)

    def error(kind):
        told, true = (eps_to_prediction(schedule, t, x_t, e, kind) for e in (eps_hat, eps))
        return ((told - true) ** 2).sum(axis=1)

    expected = {
        "simple": squared,
        "x0": error("x0"),
        "v": error("v"),
        "min-snr": min(schedule.snr[t], 5.0) * error("x0"),
    }
    for weighting, value in expected.items():
        weight = loss_weight(schedule, weighting)
        assert np.abs(weight[t] * squared - value).max() < 1e-9 * (1 + np.abs(value).max())
        assert weight[0] == 0
        assert len(weight) == schedule.T + 1
    assert set(expected) | {"bound"} == set(WEIGHTINGS)


@pytest.mark.parametrize("choice", STEP_CHOICES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_training_weighs_the_squared_error_of_its_steps(choice, weighting, monkeypatch):
    """Every step of Algorithm 1 uses λ_t/(T p_t), with λ_t for the model's variance, and reports the weighted mean."""
    seen, step = [], training.train_step

    def spied(network, schedule, x0, t, noise, weight, **given):
        losses = step(network, schedule, x0, t, noise, weight, **given)
        seen.append((t, weight, losses))
        return losses

    monkeypatch.setattr(training, "train_step", spied)
    schedule = NoiseSchedule.linear(5)
    model = DDPM(schedule, "posterior", weighting=weighting, step_choice=choice, hidden=(4,), n_steps=40, batch_size=16)
    corrected = False
    for state in model.train(np.random.default_rng(0).standard_normal((50, 2))):
        t, weight, losses = seen[-1]
        table = loss_weight(schedule, weighting, "posterior")[t]
        assert set(t.tolist()) <= {1, 2, 3, 4, 5}
        assert state.loss == pytest.approx((weight * losses).mean(), rel=1e-5)
        if np.abs(weight / table - 1).max() > 1e-3:
            corrected = True
    assert len(seen) == 40
    assert corrected == (choice == "importance")


# --- respacing, DDIM, variances ---------------------------------------------------------------------------


@given(schedules(min_T=3), st.data())
def test_respaced_chain_visits_the_same_noise_levels(schedule, data):
    steps = sorted(data.draw(st.sets(st.integers(1, schedule.T), min_size=1)))
    short = schedule.respace(steps)
    assert len(steps) == short.T
    assert residual(short.alpha_bar[1:], schedule.alpha_bar[steps]) < 1e-12
    assert residual(short.beta_bar[1:], schedule.beta_bar[steps]) < 1e-12
    assert residual(schedule.respace(range(1, schedule.T + 1)).variances, schedule.variances) < 1e-12
    again = short.respace([short.T])
    assert residual(again.beta_bar[1], schedule.beta_bar[steps[-1]]) < 1e-12


@pytest.mark.parametrize(
    ("steps", "words"),
    [([], "1-D array of ints"), ([1.0], r"1-D array of ints.* pass the steps that stay, such as \[1, 5\]"),
     ([[1]], "1-D array of ints"), ([[1], [1, 2]], "rectangular array"), ([0, 1], "rise strictly"),
     ([2, 2], "rise strictly"), ([3, 1], "rise strictly"), ([6], "rise strictly")],
)  # fmt: skip
def test_invalid_steps_are_refused(steps, words):
    with pytest.raises(ValueError, match=rf"^steps must .*{words}"):
        NoiseSchedule.linear(5).respace(steps)


ROUND = Mixture([1.0], [[0.5, -1.0]], [0.3 * np.eye(2)])  # isotropic, so that one σ_t² per step can be exact


def exact_model(T=12, **parameters):
    model = DDPM(NoiseSchedule.linear(T), standardize=False, hidden=(2,), n_steps=1, rng=0, **parameters)
    model.fit(ROUND.sample(20, rng=0))
    model.network_ = ExactNoise(ROUND)
    return model


def moments(model, n_draws, **keywords):
    """Exact mean and covariance of a sampler that is affine in its normal numbers, from 0 and unit vectors."""
    mean, jacobian = affine((n_draws, 2), partial(model.sample, **keywords))
    return mean, jacobian @ jacobian.T


def gaussian_noise_losses(schedule):
    """ℓ*_t = D − β̄_t² tr V_t⁻¹ of ROUND, V_t = (0.3 ᾱ_t² + β̄_t²) I."""
    return 2 * (1 - schedule.beta_bar**2 / (0.3 * schedule.alpha_bar**2 + schedule.beta_bar**2))


def test_noise_losses_are_those_of_the_data():
    """At sigma points of data and noise, where the mean of a quadratic is exact."""
    model = exact_model()
    unit = 2**0.5 * np.vstack([np.eye(2), -np.eye(2)])
    x = np.repeat(ROUND.means[0] + 0.3**0.5 * unit, 4, axis=0)
    rng = Scripted(lambda i, shape: np.tile(unit, (4, 1)))
    losses = model.noise_losses(x, rng=rng)
    assert residual(losses[1:], gaussian_noise_losses(model.schedule_)[1:]) < 1e-12
    assert losses[0] == 0


def test_optimal_variance_is_estimated_when_training_ends():
    model = DDPM(NoiseSchedule.linear(4), "optimal", hidden=(4,), n_steps=3, rng=0)
    x = np.random.default_rng(0).standard_normal((500, 2)) * [2.0, 0.5]
    for state in model.train(x):
        if state.step < 3:
            assert np.array_equal(model.variance_, model.schedule_.beta**2)
    expected = optimal_reverse_variance(model.schedule_, model.noise_losses(x, rng=5), 2)
    assert model.variance_[1:] == pytest.approx(expected[1:], rel=0.1)
    assert (model.variance_[1:] >= model.schedule_.beta_tilde[1:] ** 2).all()
    bounds = {
        kind: negative_elbo(model.schedule_, model.noise_losses_, 1.0, 2, variance)
        for kind, variance in {"optimal": model.variance_, "beta": "beta", "posterior": "posterior"}.items()
    }
    assert bounds["optimal"] < min(bounds["beta"], bounds["posterior"])


@pytest.mark.parametrize(
    ("steps", "kept"),
    [(12, range(1, 13)), (5, [3, 5, 8, 10, 12]), (1, [12]), ([2, 12], [2, 12]), ([1, 2, 3, 12], [1, 2, 3, 12])],
    ids=str,
)
def test_respaced_model_with_its_best_variances_draws_the_data_exactly(steps, kept):
    """σ_t² = v_t for any subset of the steps, from the exact x_T: the samples have the moments of isotropic data."""
    model = exact_model(variance="optimal")
    model.noise_losses_ = gaussian_noise_losses(model.schedule_)
    model.variance_ = model._best_variance(model.noise_losses_)
    short = model.respace(steps)
    assert residual(short.schedule_.alpha_bar[1:], model.schedule_.alpha_bar[list(kept)]) < 1e-12
    mean, covariance = moments(short, short.schedule_.T + 1)
    alpha_bar, end = model.schedule_.alpha_bar[-1], model.schedule_
    V = alpha_bar**2 * 0.3 + end.beta_bar[-1] ** 2  # of x_T; the sampler starts at N(0, I) instead
    gain = alpha_bar * 0.3 / V  # E[x_0 | x_T] = m + gain (x_T − ᾱ m)
    assert residual(mean, ROUND.means[0] * (1 - gain * alpha_bar)) < 1e-6
    assert residual(covariance, (0.3 + gain**2 * (1 - V)) * np.eye(2)) < 1e-6


def test_respacing_keeps_the_kind_of_variance():
    for kind in "beta", "posterior":
        short = exact_model(variance=kind).respace(4)
        assert np.array_equal(short.variance_, reverse_variance(short.schedule_, kind))
    model = exact_model()
    assert model.respace(4) is not model
    assert model.schedule_.T == 12  # itself unchanged
    assert residual(model.respace(12).sample(3, rng=0), model.sample(3, rng=0)) < 1e-12


@pytest.mark.parametrize(
    ("parameters", "steps", "words"),
    [
        ({"prediction": "step"}, 3, "cannot be respaced"),
        ({"variance": np.full(13, 0.1)}, 3, "cannot be respaced"),
        ({}, 13, "steps must be at most 12, got 13; lower it"),
        ({}, 0, "steps must be at least 1"),
        ({}, [3, 2], "steps must rise strictly"),
    ],
    ids=str,
)
def test_invalid_respacings_are_refused_with_the_reason(parameters, steps, words):
    with pytest.raises(ValueError, match=words):
        exact_model(**parameters).respace(steps)


@pytest.mark.parametrize("steps", [np.float64(3), 3.0, "3", True])
def test_a_number_of_steps_that_is_no_int_is_refused(steps):
    with pytest.raises(TypeError, match=r"^steps must be an integer, got .*; pass an int"):
        exact_model().respace(steps)


def test_ddim_needs_one_draw_at_eta_0_and_gives_the_ancestral_posterior_sampler_at_eta_1():
    model = exact_model(variance="posterior")
    mean, covariance = moments(model, 1, eta=0.0)
    assert np.abs(covariance - covariance[0, 0] * np.eye(2)).max() < 1e-6
    ddim, ancestral = moments(model, 13, eta=1.0), moments(model, 13)
    first = model.schedule_.beta[1] ** 2 * np.eye(2)  # the last step of the ancestral sampler, with β_1² for β̃_1² = 0
    assert residual(ddim[0], ancestral[0]) < 1e-6
    assert residual(ddim[1] + first, ancestral[1]) < 1e-6
    with pytest.raises(ValueError, match=r"^rng is needed for eta > 0"):
        next(ddim_sampler(model.schedule_, model.eps_hat, np.zeros((1, 2)), eta=0.5))
    with pytest.raises(ValueError, match=r"^eta must be in"):
        model.sample(2, rng=0, eta=1.5)
    assert mean.shape == (2,)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize("D", [1, 2, 3])
def test_denoise_last_leaves_out_the_noise_of_the_last_step_and_nothing_else(D, variance):
    """On the same noise; x_0 is then E[x_0 | x_1], which the law knows."""
    rng = np.random.default_rng(D)
    A = rng.standard_normal((2, D, D))
    law = Mixture([0.3, 0.7], 2 * rng.standard_normal((2, D)), A @ A.swapaxes(1, 2) + 0.1 * np.eye(D))
    model, inner = exact(DDPM(NoiseSchedule.linear(12, 0.02, 0.6), variance=variance, hidden=(4,), rng=0), law)
    schedule, noise = model.schedule_, rng.standard_normal((13, 50, D)).astype(np.float32)
    sigma_1 = np.sqrt(reverse_variance(schedule, variance)[1])

    def chapter(**options):
        given = Scripted(lambda i, shape: noise[i + 1])
        return list(ancestral_sampler(schedule, model.eps_hat, noise[0].astype(np.float64), given, variance, **options))

    (*_, (_, x_1), (_, noisy)), (*_, (_, same_x_1), (_, clean)) = chapter(), chapter(denoise_last=True)
    assert np.array_equal(x_1, same_x_1)
    assert np.abs(noisy - clean - sigma_1 * noise[-1]).max() < 1e-14
    assert np.abs(clean - inner.denoise(x_1, schedule.alpha_bar[1], schedule.beta_bar[1])).max() < 1e-12

    noisy, clean = (model.sample(50, Scripted(lambda i, shape: noise[i]), denoise_last=last) for last in (False, True))
    assert np.abs((noisy - clean) / model.scale_ - sigma_1 * noise[-1]).max() < 1e-6
    assert np.abs(noisy - clean).max() > 0.1 * sigma_1  # a sampler that ignores the flag fails


def test_denoise_last_rounds_means_of_whole_numbers_and_is_refused_where_the_last_step_has_no_noise():
    x = np.random.default_rng(0).integers(0, 4, (40, 2))
    options = {"n_levels": 4, "hidden": (4,), "n_steps": 2, "rng": 0}
    model = DDPM(NoiseSchedule.linear(5), **options).fit(x)
    *_, (t, last) = model.sample_path(30, rng=1, denoise_last=True)
    draws = model.sample(30, rng=1, denoise_last=True)
    assert t == 0
    assert np.array_equal(draws, np.clip(np.rint(model.to_data(last)), 0, 3))
    for call in model.sample, model.sample_path:
        with pytest.raises(ValueError, match=r"^denoise_last must be False for DDIM steps, .* eta=0.0; leave out"):
            call(3, rng=0, eta=0.0, denoise_last=True)
        with pytest.raises(ValueError, match=r"^denoise_last must be False for multistep steps, .* stochasticity=0.5;"):
            call(3, rng=0, stochasticity=0.5, denoise_last=True)
        with pytest.raises(ValueError, match=r"^eta must be None with stochasticity=0.5, got 0.0; pass eta for DDIM"):
            call(3, rng=0, eta=0.0, stochasticity=0.5)
        with pytest.raises(ValueError, match=r"^stochasticity must be in"):
            call(3, rng=0, stochasticity=-1.0)
    levels = DDPM(NoiseSchedule.linear(5), prediction="levels", **options).fit(x)
    with pytest.raises(ValueError, match=r"^denoise_last must be False for prediction='levels'"):
        levels.sample(3, rng=0, denoise_last=True)
    with pytest.raises(TypeError, match=r"^denoise_last must be"):
        model.sample(3, rng=0, denoise_last=1)


# --- whole numbers ----------------------------------------------------------------------------------------


class TableNoise:
    """The exact ε̂ of data from tables, in place of a trained network."""

    def __init__(self, tables):
        self.tables = tables

    def __call__(self, x, scale, std, *_, **__):
        return (x - scale * self.tables.denoise(x, scale, std)) / std


def test_bound_with_masses_exceeds_the_entropy_of_whole_numbers_and_with_a_density_does_not():
    """−E ELBO ≥ H(P) for the exact denoiser: a sum over all levels, noise by the trapezoid rule."""
    levels = np.repeat([[0.0], [1.0], [4.0]], [5, 3, 2], axis=0)
    tables = CategoricalMixture(1, n_levels=5, smoothing=0.0).fit(levels)
    values, p = np.array([[0.0], [1.0], [4.0]]), np.array([0.5, 0.3, 0.2])
    entropy = -(p * np.log(p)).sum()
    xi, step = np.linspace(-8, 8, 801, retstep=True)
    weights = step * stats.norm.pdf(xi)
    rows = np.repeat(values, len(xi), axis=0)
    bounds = {}
    for n_levels in 5, None:
        model = DDPM(NoiseSchedule.linear(20), n_levels=n_levels, standardize=False, hidden=(2,), n_steps=1, rng=0)
        model.fit(levels if n_levels else levels / 2 - 1)
        model.network_ = TableNoise(tables)
        noise = Scripted(lambda i, shape: np.broadcast_to(np.tile(xi, 3)[:, None], shape))
        elbo = model.elbo(rows if n_levels else rows / 2 - 1, rng=noise).reshape(3, -1) @ weights
        bounds[n_levels] = -(p @ elbo)
    assert entropy < bounds[5] < entropy + 0.5
    assert bounds[None] < entropy  # a density is not a mass: its "bound" is below the entropy


def test_samples_of_whole_numbers_are_whole():
    levels = np.random.default_rng(0).integers(0, 3, (60, 2))
    model = DDPM(NoiseSchedule.linear(5), n_levels=3, hidden=(4,), n_steps=5, rng=0).fit(levels)
    assert set(np.unique(model.sample(200, rng=0))) <= {0.0, 1.0, 2.0}
    for wrong in levels + 0.5, levels - 1, levels + 1:
        with pytest.raises(ValueError, match=r"^x must hold whole numbers in 0\.\.2, as n_levels says"):
            DDPM(n_levels=3).fit(wrong)


# --- labels and guidance ----------------------------------------------------------------------------------


def two_classes(n=400):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    return np.where(y == 1, 2.0, -2.0)[:, None] + 0.3 * rng.standard_normal((n, 1)), y


def labelled(**parameters):
    defaults = {"n_classes": 2, "hidden": (32,), "n_steps": 400, "batch_size": 64, "learning_rate": 1e-2, "rng": 0}
    x, y = two_classes()
    return DDPM(NoiseSchedule.linear(20), **{**defaults, **parameters}).fit(x, y)


def test_labels_determine_the_samples_and_the_right_label_has_the_largest_bound():
    model = labelled()
    x, y = two_classes()
    drawn = model.sample(400, rng=0, y=np.repeat([0, 1], 200))[:, 0]
    assert (np.sign(drawn) == np.repeat([-1, 1], 200)).mean() > 0.95
    free = model.sample(400, rng=0)[:, 0]
    assert 0.3 < (free > 0).mean() < 0.7
    right, wrong, unlabelled = (model.elbo(x, rng=1, y=labels).mean() for labels in (y, 1 - y, None))
    assert right > unlabelled + 0.3 > wrong + 0.3


def test_guidance_is_linear_between_the_unlabelled_and_the_labelled_model():
    model = labelled(n_steps=30)
    x, y = np.random.default_rng(1).standard_normal((6, 1)), np.array([0, 1, 1, 0, 1, 0])
    free, given = model.eps_hat(x, 4), model.eps_hat(x, 4, y)
    assert np.abs(given - free).max() > 1e-3
    assert np.array_equal(model.eps_hat(x, 4, y, guidance=0.0), free)
    assert np.array_equal(model.eps_hat(x, 4, y, guidance=1.0), given)
    assert residual(model.eps_hat(x, 4, y, guidance=3.0), free + 3 * (given - free)) < 1e-6
    stronger = model.sample(200, rng=0, y=np.ones(200, dtype=int), guidance=3.0)
    assert not np.array_equal(stronger, model.sample(200, rng=0, y=np.ones(200, dtype=int)))


def test_multistep_steps_use_the_noise_of_eps_hat_with_its_labels_guidance_and_clipping():
    """The path is that of `exponential_sampler` for x̂_0 = (x_t − β̄_t ε̂)/ᾱ_t with ε̂ at the step's t, once a step."""
    whole = np.random.default_rng(0).integers(0, 4, (40, 1))
    small = {"hidden": (4,), "n_steps": 3, "rng": 0}
    told = {"y": np.array([0, 1, 1]), "guidance": 3.0}
    models = [(labelled(n_steps=30), told), (labelled(n_steps=30, prediction="step"), told)]
    models += [
        (labelled(n_steps=30).respace([2, 3, 9, 20]), told),
        (DDPM(n_levels=4, clip_x0=True, **small).fit(whole), {}),
    ]
    for model, labels in models:
        schedule, rng, seen = model.schedule_, np.random.default_rng(5), []

        def denoise(x_t, scale, std, model=model, schedule=schedule, seen=seen, labels=labels):
            (t,) = np.flatnonzero((schedule.alpha_bar == scale) & (schedule.beta_bar == std))
            seen.append(int(t))
            return (x_t - np.float32(std) * model.eps_hat(x_t, int(t), **labels)) / np.float32(scale)

        levels = np.stack([schedule.alpha_bar, schedule.beta_bar], axis=1)[::-1]
        x_T = rng.standard_normal((3, 1), dtype=np.float32)
        wanted = [x for _, x in exponential_sampler(denoise, x_T, levels, rng, 0.7)]
        found = list(model.sample_path(3, np.random.default_rng(5), stochasticity=0.7, **labels))
        assert seen == list(range(schedule.T, 0, -1)) == [t for t, _ in found][:-1]
        assert residual(np.array([x for _, x in found]), np.array(wanted)) < 1e-6
        assert np.isfinite(model.sample(3, rng=0, stochasticity=0.7, **labels)).all()


def test_multistep_samples_of_whole_numbers_are_whole_and_follow_their_tables():
    """With a network over the levels, the last step draws from P(x_0 | x_1)."""
    x = np.random.default_rng(0).integers(0, 4, (40, 2))
    for prediction in "levels", "v":
        model = DDPM(n_levels=4, prediction=prediction, hidden=(4,), n_steps=3, rng=0).fit(x)
        drawn = model.respace(model.schedule_.sinh_steps(6)).sample(200, rng=0, stochasticity=1.0)
        assert set(np.unique(drawn)) <= {0.0, 1.0, 2.0, 3.0}
        assert len(np.unique(drawn)) > 1


@pytest.mark.parametrize("y", [None, [0, 1, 1]])
def test_guidance_is_checked_with_and_without_labels(y):
    model = labelled(n_steps=5)
    for guidance, error in (np.nan, ValueError), (np.inf, ValueError), ("2", TypeError):
        with pytest.raises(error, match=r"^guidance must be "):
            model.sample(3, rng=0, y=y, guidance=guidance)
        with pytest.raises(error, match=r"^guidance must be "):
            model.eps_hat(np.zeros((3, 1)), 4, y, guidance)


def test_guidance_without_labels_and_guidance_that_overflows_are_errors_with_a_remedy():
    model, y = labelled(n_steps=5), [0, 1, 1]
    for guidance in (0.0, 2.0):
        with pytest.raises(ValueError, match=r"needs labels y, got None; pass labels, or leave guidance at 1"):
            model.sample(3, rng=0, guidance=guidance)
        with pytest.raises(ValueError, match=r"needs labels y, got None"):
            predict_noise(model.network_, model.schedule_, np.zeros((3, 1)), 4, None, guidance, model.prediction)
    with pytest.raises(ArithmeticError, match=r"^the prediction is not finite with guidance=1e\+300; lower guidance"):
        model.sample(3, rng=0, y=y, guidance=1e300)
    assert np.isfinite(model.sample(3, rng=0, y=y, guidance=100.0)).all()


def test_dropped_labels_are_not_learnt():
    """label_dropout = 1: the weights of the label never change.  0: the unlabelled network never trains."""
    never, always = labelled(label_dropout=1.0, n_steps=20), labelled(label_dropout=0.0, n_steps=20)
    start = labelled(label_dropout=1.0, n_steps=1)
    rows = slice(-2, None)  # of the first layer: the two indicators come last
    assert np.abs(never.network_.mlp.weights[0][rows] - start.network_.mlp.weights[0][rows]).max() < 1e-6
    assert np.abs(always.network_.mlp.weights[0][rows] - start.network_.mlp.weights[0][rows]).max() > 1e-4


@pytest.mark.parametrize(
    ("y", "error", "words"),
    [
        (None, ValueError, "be 400 int labels, got None; number the classes"),
        ([0, 1], ValueError, r"have the shape \(400,\), one label an example, got \(2,\); pass 400 labels"),
        ([[0], [0, 1]], ValueError, "be a rectangular array"),
        (np.zeros(400), TypeError, "hold ints, got dtype float64; number the classes"),
        (["a"] * 400, TypeError, "be a real array, got dtype <U1; convert it to numbers"),
        (np.ma.array([0] * 400, mask=[True] * 400), TypeError, "not be a masked array; drop the masked rows"),
        (np.full(400, 2), ValueError, r"be in 0\.\.1, got 2\.\.2; number them"),
        (np.full(400, -1), ValueError, r"be in 0\.\.1, got -1\.\.-1; number them"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_invalid_labels_are_refused(y, error, words):
    x, _ = two_classes()
    with pytest.raises(error, match=f"^y must {words}"):
        DDPM(n_classes=2).fit(x, y)
    if y is not None:
        with pytest.raises(error, match=f"^y must {words}"):
            labelled(n_steps=1).sample(400, rng=0, y=y)


def test_one_number_as_data_is_refused_by_name_also_with_labels():
    with pytest.raises(ValueError, match=r"^x must have shape \(N, D\), got shape \(\)"):
        DDPM(n_classes=2).fit(3.0, [0])


@pytest.mark.parametrize(
    ("variance", "error", "words"),
    [
        (
            np.ones(7),
            ValueError,
            r"be a name or an array of shape \(13,\), .*, got shape \(7,\); pass 'beta', or put a 0",
        ),
        (0.1, ValueError, r"be a name or an array of shape \(13,\), .*, got shape \(\); pass 'beta'"),
        (np.zeros(13), ValueError, "be positive and finite, got 0.0; pass positive numbers from index 1 on"),
        (np.full(13, np.nan), ValueError, "be positive and finite, got nan; pass positive numbers from index 1 on"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_invalid_variances_are_refused_with_the_remedy(variance, error, words):
    with pytest.raises(error, match=f"^variance must {words}"):
        exact_model(variance=variance)


def test_labels_are_ignored_without_classes():
    x, y = two_classes()
    one, other = (DDPM(hidden=(4,), n_steps=3, rng=0).fit(x, labels) for labels in (y, None))
    assert one.sample(3, rng=0).tobytes() == other.sample(3, rng=0).tobytes()
    with pytest.raises(ValueError, match="y must be None for a model without labels, n_classes=0"):
        one.sample(3, rng=0, y=[0, 1, 0])


def test_choices_survive_save_and_load(tmp_path):
    model = labelled(variance="optimal", prediction="x0", weighting="bound", step_choice="importance", n_steps=5)
    model.save(tmp_path / "m.npz")
    loaded = DDPM.load(tmp_path / "m.npz")
    y = np.array([0, 1, 0])
    assert loaded.sample(3, rng=0, y=y, guidance=2.0).tobytes() == model.sample(3, rng=0, y=y, guidance=2.0).tobytes()
    assert np.array_equal(loaded.variance_, model.variance_)
    short, loaded_short = model.respace(5), loaded.respace(5)
    assert np.array_equal(short.variance_, loaded_short.variance_)
    short.save(tmp_path / "short.npz")
    assert DDPM.load(tmp_path / "short.npz").sample(3, rng=0).tobytes() == short.sample(3, rng=0).tobytes()


# --- clipping ---------------------------------------------------------------------------------------------


def test_clipping_leaves_values_in_range_and_makes_no_denoiser_worse():
    """Uniform levels with exact E[x_0 | x_t]: clipping lowers the excess of a badly trained network at every step."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (400, 2)).astype(float)
    parameters = {"n_levels": 5, "prediction": "noise", "hidden": (8,), "n_steps": 30, "rng": 0}
    plain, clipped = (DDPM(clip_x0=clip_x0, **parameters).fit(x) for clip_x0 in (False, True))
    assert np.array_equal(plain.parameters_, clipped.parameters_)  # training is the same
    law = CategoricalMixture(1, n_levels=5, smoothing=0).fit(x)
    x0, schedule = plain.to_model(x), plain.schedule_
    for t in (1, 20, 60, 100):
        noise = rng.standard_normal(x0.shape)
        x_t, scale, std = q_sample(schedule, t, x0, noise), schedule.alpha_bar[t], schedule.beta_bar[t]
        best = law.denoise(x_t, scale, std)
        wild, tame = ((x_t - std * m.eps_hat(x_t, t)) / scale for m in (plain, clipped))
        assert np.abs(tame).max() <= 1 + 1e-6
        assert residual(tame, np.clip(wild, -1, 1)) < 1e-5  # the network is float32
        assert (((tame - best) ** 2) <= (wild - best) ** 2 + 1e-5).all()
        assert ((wild - best) ** 2).mean() > (1.0 if t == 1 else 1.2) * ((tame - best) ** 2).mean()
    assert clipped.elbo(x, rng=1).mean() > plain.elbo(x, rng=1).mean() + 0.1
    assert residual(clipped.predict_score(x_t, 100), -clipped.eps_hat(x_t, 100) / std) < 1e-12


def test_clipping_needs_levels_and_exists_for_ddpm_only():
    with pytest.raises(ValueError, match="clip_x0 needs n_levels"):
        DDPM(clip_x0=True, n_steps=1).fit(np.eye(3))
    model = DDPM(clip_x0=True, n_levels=2, n_steps=1, hidden=(2,), rng=0).fit(np.eye(3))
    with pytest.raises(ValueError, match="clip_x0"):
        to_sde(model)
    reals = DDPM(n_steps=1, hidden=(2,), rng=0).fit(5 * np.eye(3))
    before = reals.sample(4, rng=0)
    assert np.array_equal(reals.set_params(clip_x0=True).sample(4, rng=0), before)  # arguments count at the next fit


def test_a_decoder_takes_the_place_of_the_last_step():
    schedule, x0 = NoiseSchedule.linear(3), np.array([[0.2], [-0.4]])
    noise, seen = np.random.default_rng(0).standard_normal((3, 2, 1)), []

    def decoder(x_1):
        seen.append(x_1)
        return -np.arange(2.0)

    def eps_hat(x, t):
        assert t > 1  # the network is not called
        return 0.3 * x

    plain = bound_terms(schedule, x0, lambda x, t: 0.3 * x, noise)
    terms = bound_terms(schedule, x0, eps_hat, noise, decoder=decoder)
    assert np.array_equal(terms[:, 0], [0.0, 1.0])
    assert np.array_equal(terms[:, 1:], plain[:, 1:])
    assert np.array_equal(seen[0], q_sample(schedule, 1, x0, noise[0]))


# --- class-conditional levels -----------------------------------------------------------------------------


def labelled_levels(**parameters):
    """Two classes of whole numbers, 0 or 1 and 3 or 4, in two columns; and a model of them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    x = (rng.integers(0, 2, (500, 2)) + 3 * y[:, None]).astype(float)
    defaults = {"n_levels": 5, "n_classes": 2, "prediction": "levels", "weighting": "bound", "hidden": (32,)}
    model = DDPM(NoiseSchedule.linear(20), n_steps=300, batch_size=64, learning_rate=1e-2, rng=0, **defaults)
    return model.set_params(**parameters).fit(x, y), x, y


def test_labels_reach_the_network_the_mass_and_the_draw_of_whole_numbers():
    """Without label, class count or rng, samples, bound or repeated draws would equal those without labels."""
    model, x, y = labelled_levels()
    assert model.network_.n_classes == 2
    told = np.repeat([0, 1], 200)
    drawn = model.sample(400, rng=0, y=told)
    assert (drawn // 3 == told[:, None]).mean() > 0.9
    assert 0.2 < (model.sample(400, rng=0) >= 3).mean() < 0.8
    assert np.array_equal(drawn, model.sample(400, rng=0, y=told))
    assert not np.array_equal(drawn, model.sample(400, rng=1, y=told))
    right, wrong, free = (model.elbo(x, rng=1, y=labels).mean() for labels in (y, 1 - y, None))
    assert right > free + 0.3
    assert free > wrong + 0.3
    # the decoder alone: the mass given x_1, and the last draw, at a noise level where x_1 has no information
    level = 0.05, (1 - 0.05**2) ** 0.5
    mass, noise = model.network_, np.random.default_rng(2).standard_normal((500, 2))
    assert mass.log_mass(x, noise, *level, y).mean() > mass.log_mass(x, noise, *level, 1 - y).mean() + 1
    last = mass.draw(np.random.default_rng(0), noise, *level, y)
    assert (last // 3 == y[:, None]).mean() > 0.8  # 0.5 without labels


@pytest.mark.parametrize("prediction", ["v", "noise", "x0", "step"])
def test_guidance_mixes_the_noise_of_every_prediction(prediction):
    """Guidance 3 is free + 3 (labelled − free) for every prediction: both calls of the network use its coefficients."""
    model = labelled(prediction=prediction, n_steps=30)
    network, schedule = model.network_, model.schedule_
    x, y, t = np.random.default_rng(1).standard_normal((6, 1)), np.array([0, 1, 1, 0, 1, 0]), 4
    coefficients = eps_coefficients(schedule, t, prediction)
    level = float(schedule.alpha_bar[t]), float(schedule.beta_bar[t])
    free, told = (network(x, *level, coefficients, labels) for labels in (None, y))
    assert residual(model.eps_hat(x, t, y, guidance=3.0), free + 3 * (told - free)) < 1e-6


def test_respacing_during_training_uses_beta_squared_of_the_new_schedule():
    """Before the end of training there are no noise losses."""
    model = DDPM(NoiseSchedule.linear(6), "optimal", hidden=(4,), n_steps=3, rng=0)
    for state in model.train(np.random.default_rng(0).standard_normal((50, 2))):
        short = model.respace(3)
        if state.step < 3:
            assert np.array_equal(short.variance_, short.schedule_.beta**2)
    assert not np.allclose(short.variance_, short.schedule_.beta**2)
    kept = model.noise_losses_[[0, 2, 4, 6]]
    assert np.array_equal(short.variance_[1:], optimal_reverse_variance(short.schedule_, kept, 2)[1:])


# --- the importance-weighted bound over paths -------------------------------------------------------------


@pytest.mark.equation(19)
def test_importance_weighted_bound_rises_from_the_elbo_to_the_likelihood():
    """Data N(m, 0.3 I) with exact ε̂: p_θ is a Gaussian in closed form, from the moments of the sampler."""
    model = exact_model(T=4)
    mean, covariance = moments(model, 5)
    x = ROUND.sample(300, rng=3)
    exact = stats.multivariate_normal(mean, covariance).logpdf(x)
    bounds = [model.iwae(x, rng=1, n_draws=n) for n in (1, 8, 200)]
    gaps = [(exact - bound).mean() for bound in bounds]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    assert gaps[2] < 0.005
    elbo = np.mean([model.elbo(x, rng=seed) for seed in range(40)], axis=0)
    one = np.mean([model.iwae(x, rng=seed, n_draws=1) for seed in range(40)], axis=0)
    assert abs((one - elbo).mean()) < 5.5 * (one - elbo).std() / 300**0.5


@pytest.mark.equation(19)
def test_the_weight_of_a_path_is_constant_if_the_chain_is_reversed_exactly():
    """ε̂ = β̄ x and σ = β on data N(0, I): the log weight of every path is log N(x; 0, I), in data units."""
    normal = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    model = DDPM(NoiseSchedule.linear(9), n_steps=1, rng=0).fit(normal.sample(50, rng=0))
    scale, shift = model.scale_, model.mean_
    model.network_ = ExactNoise(normal)
    x = np.array([[0.3, -1.0], [2.0, 0.1]])
    expected = normal.log_prob((x - shift) / scale) - np.log(scale).sum()
    for seed in range(3):
        assert residual(model.iwae(x, rng=seed, n_draws=1), expected) < 1e-10


def test_importance_weighted_bound_of_whole_numbers_is_of_their_mass():
    """The bound is above the ELBO of masses, and E Σ_x exp(bound) ≤ 1 over all x."""
    model, x, _ = labelled_levels(n_classes=0, n_steps=100)
    cells = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    sums = [np.exp(model.iwae(cells, rng=seed, n_draws=4)).sum() for seed in range(50)]
    assert abs(np.mean(sums) - 1) < 5.5 * np.std(sums) / 50**0.5  # unbiased: exactly 1 for a law over all cells
    assert model.iwae(x[:100], rng=0, n_draws=30).mean() > model.elbo(x[:100], rng=0).mean()
    binned = DDPM(NoiseSchedule.linear(20), n_levels=5, hidden=(8,), n_steps=50, rng=0).fit(x)
    sums = [np.exp(binned.iwae(cells, rng=seed, n_draws=4)).sum() for seed in range(50)]
    assert (
        0.5 < np.mean(sums) < 1 + 5.5 * np.std(sums) / 50**0.5
    )  # rare paths have the rest of the mass; densities would sum to 4


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (2.0, TypeError), (None, TypeError)])
def test_a_wrong_number_of_examples_is_refused_by_its_name_also_with_labels(n, error):
    x = np.random.default_rng(0).standard_normal((20, 2))
    model = DDPM(NoiseSchedule.linear(4), n_classes=2, hidden=(4,), n_steps=2, rng=0).fit(x, np.arange(20) % 2)
    for y in None, [0, 1]:
        with pytest.raises(error, match=r"^n must be"):
            model.sample(n, y=y)
