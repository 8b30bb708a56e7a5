"""What a DDPM may predict, weigh, draw, skip and be told: each choice against what it must not change.

Parameterisations are affine in ε and convert exactly; a draw of t keeps the expectation of the loss; a respaced chain
keeps the noise levels; the label's ends are the unlabelled and the labelled model.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import DDPM, CategoricalMixture, Mixture, NoiseSchedule
from scratchgen.conformance import check_gradient
from scratchgen.ddpm import (
    bound_terms,
    ddim_sampler,
    from_noise,
    loss_weight,
    mean_square_step,
    negative_elbo,
    noise_from,
    q_sample,
    reverse_variance,
    to_noise,
)
from scratchgen.ddpm.objective import WEIGHTINGS
from scratchgen.ddpm.predictions import PREDICTIONS
from scratchgen.noise_network import NoiseNetwork
from scratchgen.steps import STEP_CHOICES, StepChooser, stratified_steps, uniform_steps
from scratchgen.testing import reals, schedules, schedules_and_t
from tests.strategies import FALSE_ALARM, Scripted, residual

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
        assert np.abs(from_noise(schedule, t, x_t, eps, kind) - exact[kind]).max() < 1e-12 * scale
        assert np.abs(to_noise(schedule, t, x_t, exact[kind], kind) - eps).max() < 1e-12 * scale / beta_bar


@given(schedules_and_t(), reals((2, 3, 2), -3, 3), st.sampled_from(PREDICTIONS), st.sampled_from(PREDICTIONS))
def test_predictions_convert_into_each_other_and_back(drawn, flat, one, other):
    """Any number, not only a true noise; every example may have a step of its own."""
    schedule, t = drawn
    t = np.array([t, 1, schedule.T])
    x_t, prediction = flat
    eps = to_noise(schedule, t, x_t, prediction, one)
    there = from_noise(schedule, t, x_t, eps, other)
    back = from_noise(schedule, t, x_t, to_noise(schedule, t, x_t, there, other), one)
    gains = [np.abs(np.broadcast_to(noise_from(schedule, t, kind)[1], (3, 1))) for kind in (one, other)]
    condition = 1 + max((a / b).max() for a in (*gains, np.ones(1)) for b in (*gains, np.ones(1)))
    assert np.abs(back - prediction).max() < 1e-12 * condition**2


def test_unknown_prediction_is_named():
    schedule, x = NoiseSchedule.linear(3), np.zeros((2, 1))
    with pytest.raises(ValueError, match=r"^kind must be one of 'noise', 'x0', 'v', 'step', got 'score'"):
        to_noise(schedule, 1, x, x, "score")
    with pytest.raises(ValueError, match=r"^prediction must have the shape of x_t"):
        to_noise(schedule, 1, x, x[0], "v")
    with pytest.raises(ValueError, match=r"^eps_hat must have the shape of x_t"):
        from_noise(schedule, 1, x, x[0], "v")


class Says:
    """In an MLP's place: answers what it was told to."""

    def __init__(self, answer):
        self.answer, self.parameters = answer, np.zeros(1)

    def __call__(self, inputs, constant):
        return self.answer


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("t", [1, 3, 6])
def test_a_model_turns_what_its_network_predicts_into_noise(kind, t):
    rng = np.random.default_rng(0)
    model = DDPM(NoiseSchedule.linear(6), prediction=kind, hidden=(4,), n_steps=1, rng=0).fit(
        rng.standard_normal((9, 2))
    )
    x_t, eps = rng.standard_normal((2, 5, 2))
    model.network_.mlp = Says(from_noise(model.schedule_, t, x_t, eps, kind))
    assert residual(model.eps_hat(x_t, t), eps) < 1e-12


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_gradient_of_a_network_with_another_head_and_labels(seed, labelled):
    rng = np.random.default_rng(seed)
    network = NoiseNetwork(2, (5,), n_coordinate_features=1, rng=rng, dtype=np.float64, n_classes=3)
    network.mlp.parameters[:] = 0.5 * rng.standard_normal(len(network.mlp.parameters))
    x, g, scale, std = *rng.standard_normal((2, 4, 2)), rng.uniform(0.1, 1, 4), rng.uniform(0.1, 1, 4)
    rest = (rng.standard_normal(4), rng.standard_normal((4, 1))), (np.array([2, -1, 0, 1]) if labelled else None)

    def gradient(flat):
        network.forward(flat.reshape(4, 2), scale, std, *rest)
        return network.backward(g).ravel()

    def loss(flat):
        return (network(flat.reshape(4, 2), scale, std, *rest) * g).sum()

    check = check_gradient(loss, gradient, x.ravel(), np.eye(8))
    assert check, check

    def loss_of_parameters(flat):
        network.mlp.parameters[:] = flat
        return loss(x)

    def gradient_of_parameters(flat):
        network.mlp.parameters[:] = flat
        gradient(x)
        return network.mlp.gradient.copy()

    start = network.mlp.parameters.copy()
    check = check_gradient(loss_of_parameters, gradient_of_parameters, start, rng.standard_normal((3, len(start))))
    assert check, check


# --- weights and draws of t -------------------------------------------------------------------------------


@given(schedules(), st.sampled_from(["beta", "posterior"]), st.integers(0, 2**32 - 1))
def test_bound_weights_make_the_mean_loss_the_bound(schedule, variance, seed):
    """(1/T) Σ λ_t ℓ_t is all of −ELBO that depends on the network, nats."""
    losses = np.random.default_rng(seed).uniform(0, 3, schedule.T + 1)
    weight = loss_weight(schedule, "bound", variance)
    bound, floor = (negative_elbo(schedule, value, 1.7, 2, variance) for value in (losses, 0 * losses))
    assert residual((weight * losses)[1:].mean(), bound - floor) < 1e-9
    assert weight[0] == 0


@given(schedules_and_t(), reals((3, 3, 2), -3, 3))
def test_other_weights_make_it_the_error_of_what_they_are_named_after(drawn, flat):
    schedule, t = drawn
    x0, eps, eps_hat = flat
    x_t = q_sample(schedule, t, x0, eps)
    squared = ((eps - eps_hat) ** 2).sum(axis=1)

    def error(kind):
        return ((from_noise(schedule, t, x_t, eps_hat, kind) - from_noise(schedule, t, x_t, eps, kind)) ** 2).sum(
            axis=1
        )

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


class Even:
    """A Generator's `random` that answers one given number."""

    def __init__(self, u):
        self.u = u

    def random(self):
        return self.u


@given(st.integers(1, 30), st.integers(1, 12))
def test_stratified_steps_are_each_as_likely_and_a_batch_is_even(T, n):
    """Over an even grid of shifts every t comes equally often; in one batch counts differ by at most one."""
    counts = np.zeros(T + 1)
    for u in (np.arange(60 * T) + 0.5) / (60 * T):
        batch = np.bincount(stratified_steps(T, n, Even(u)), minlength=T + 1)
        assert batch[1:].max() - batch[1:].min() <= 1
        counts += batch
    assert counts[0] == 0
    assert residual(counts[1:], np.full(T, 60 * n)) < 1e-12


def test_uniform_steps_are_each_as_likely():
    t = uniform_steps(7, 70_000, np.random.default_rng(0))
    assert stats.chisquare(np.bincount(t, minlength=8)[1:]).pvalue > FALSE_ALARM
    assert set(t.tolist()) == set(range(1, 8))


def seasoned(T=6):
    """A chooser that has seen every t often, with losses that fall in t; and those losses."""
    losses = np.concatenate([[0.0], 10.0 / np.arange(1, T + 1) ** 2])
    chooser = StepChooser(T, "importance")
    t = np.tile(np.arange(1, T + 1), 50)
    chooser.observe(t, losses[t])
    return chooser, losses


def test_importance_draws_follow_their_law_and_correct_for_it():
    """p_t ∝ √E loss² and a tenth of uniform; E weight · loss is the uniform mean, its second moment the smaller."""
    chooser, losses = seasoned()
    p, T = chooser.probabilities, 6
    assert residual(p[1:], 0.9 * losses[1:] / losses.sum() + 0.1 / T) < 1e-12
    counts, weighted = np.zeros(T + 1), []
    for u in (np.arange(20_000) + 0.5) / 20_000:
        t, weight = chooser.draw(3, Even(u))
        counts += np.bincount(t, minlength=T + 1)
        weighted.append((weight * losses[t]).mean())
        assert residual(weight, 1 / (T * p[t])) < 1e-12
    assert residual(counts / counts.sum(), p) < 1e-3
    assert np.mean(weighted) == pytest.approx(losses[1:].mean(), rel=1e-3)
    importance = (p[1:] * (losses[1:] / (T * p[1:])) ** 2).sum()
    assert importance < 0.7 * (losses[1:] ** 2).mean()


def test_importance_waits_until_every_step_was_seen_ten_times():
    chooser = StepChooser(3, "importance")
    uniform = np.array([0, 1, 1, 1]) / 3
    for _ in range(9):
        chooser.observe(np.array([1, 2, 3]), np.array([5.0, 1.0, 1.0]))
        assert np.array_equal(chooser.probabilities, uniform)
    chooser.observe(np.array([1, 2]), np.array([5.0, 1.0]))
    assert np.array_equal(chooser.probabilities, uniform)
    chooser.observe(np.array([3]), np.array([1.0]))
    assert chooser.probabilities[1] > 0.6
    for _ in range(200):  # a running mean forgets
        chooser.observe(np.array([1]), np.array([1.0]))
    assert residual(chooser.probabilities, uniform) < 1e-6


@pytest.mark.parametrize("choice", ["uniform", "stratified"])
def test_even_choices_neither_weigh_nor_learn(choice):
    chooser = StepChooser(5, choice)
    t, weight = chooser.draw(20, np.random.default_rng(0))
    assert np.array_equal(weight, np.ones(20))
    chooser.observe(np.tile(np.arange(1, 6), 20), np.arange(100.0))
    assert np.array_equal(chooser.probabilities, np.array([0, 1, 1, 1, 1, 1]) / 5)
    assert t.min() >= 1
    assert t.max() <= 5


@pytest.mark.parametrize("choice", STEP_CHOICES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_training_weighs_the_squared_error_of_its_steps(choice, weighting, monkeypatch):
    """The gradient that reaches the network is 2/n · λ_t/(T p_t) (ε̂ − ε), and the reported loss its mean square."""
    seen = []
    backward = NoiseNetwork.backward_parameters

    def spied(network, grad):
        seen.append(grad.astype(float))
        backward(network, grad)

    monkeypatch.setattr(NoiseNetwork, "backward_parameters", spied)
    schedule = NoiseSchedule.linear(5)
    model = DDPM(schedule, weighting=weighting, step_choice=choice, hidden=(4,), n_steps=40, batch_size=16, rng=0)
    x = np.random.default_rng(0).standard_normal((50, 2))
    for state in model.train(x):
        t, grad = model._t, seen[-1]
        weight = loss_weight(schedule, weighting)[t]
        if choice != "importance":
            error = 8 * grad / weight[:, None]
            assert state.loss == pytest.approx((weight * (error**2).sum(axis=1)).mean(), rel=1e-5)
        assert np.isfinite(grad).all()
    assert len(seen) == 40


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
    [([], "1-D array of ints"), ([1.0], "1-D array of ints"), ([[1]], "1-D array of ints"), ([0, 1], "rise strictly"),
     ([2, 2], "rise strictly"), ([3, 1], "rise strictly"), ([6], "rise strictly")],
)  # fmt: skip
def test_steps_that_are_none_are_refused(steps, words):
    with pytest.raises(ValueError, match=rf"^steps must .*{words}"):
        NoiseSchedule.linear(5).respace(steps)


class ExactNoise:
    """E[ε | x_t] for data of a known law, in a trained network's place."""

    def __init__(self, law):
        self.law = law

    def __call__(self, x, scale, std, *_):
        return -std * self.law.diffuse(scale, std).score(x)


ROUND = Mixture([1.0], [[0.5, -1.0]], [0.3 * np.eye(2)])  # isotropic, so that one σ_t² a step can be exact


def exact_model(T=12, **parameters):
    model = DDPM(NoiseSchedule.linear(T), standardize=False, hidden=(2,), n_steps=1, rng=0, **parameters)
    model.fit(ROUND.sample(20, rng=0))
    model.network_ = ExactNoise(ROUND)
    return model


def moments(model, n_draws, **keywords):
    """Exact mean and covariance of a sampler affine in its normal numbers: one call at 0 and at unit vectors."""
    units = np.vstack([np.zeros(2 * n_draws), np.eye(2 * n_draws)])
    rng = Scripted(lambda i, shape: units[:, 2 * i : 2 * i + 2])
    draws = model.sample(len(units), rng=rng, **keywords)
    assert rng.calls == n_draws
    jacobian = (draws[1:] - draws[0]).T
    return draws[0], jacobian @ jacobian.T


def gaussian_noise_losses(schedule, law):
    """ℓ*_t = D − β̄_t² J_t in closed form."""
    losses = np.zeros(schedule.T + 1)
    for t in range(1, schedule.T + 1):
        V = schedule.alpha_bar[t] ** 2 * law.covariances[0] + schedule.beta_bar[t] ** 2 * np.eye(2)
        losses[t] = 2 - schedule.beta_bar[t] ** 2 * np.trace(np.linalg.inv(V))
    return losses


def test_noise_losses_are_those_of_the_data():
    """At sigma points of data and noise, where the mean of a quadratic is exact."""
    model = exact_model()
    unit = 2**0.5 * np.vstack([np.eye(2), -np.eye(2)])
    x = np.repeat(ROUND.means[0] + 0.3**0.5 * unit, 4, axis=0)
    rng = Scripted(lambda i, shape: np.tile(unit, (4, 1)))
    losses = model.noise_losses(x, rng=rng)
    assert residual(losses, gaussian_noise_losses(model.schedule_, ROUND)) < 1e-12
    assert losses[0] == 0


def test_optimal_variance_is_estimated_when_training_ends():
    model = DDPM(NoiseSchedule.linear(4), "optimal", hidden=(4,), n_steps=3, rng=0)
    x = np.random.default_rng(0).standard_normal((500, 2)) * [2.0, 0.5]
    for state in model.train(x):
        if state.step < 3:
            assert np.array_equal(model.variance_, model.schedule_.beta**2)
    expected = mean_square_step(model.schedule_, model.noise_losses(x, rng=5), 2)
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
    """4.6 for any subset of the steps, started at the exact x_T: isotropic Gaussian data come back whole."""
    model = exact_model(variance="optimal")
    model.noise_losses_ = gaussian_noise_losses(model.schedule_, ROUND)
    model._use_best_variance()
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
        ({}, 13, "steps must be at most the 12 steps"),
        ({}, 0, "steps must be at least 1"),
        ({}, [3, 2], "steps must rise strictly"),
    ],
    ids=str,
)
def test_what_cannot_be_respaced_says_why(parameters, steps, words):
    with pytest.raises(ValueError, match=words):
        exact_model(**parameters).respace(steps)


def test_ddim_needs_one_draw_at_eta_0_and_gives_the_ancestral_posterior_sampler_at_eta_1():
    model = exact_model(variance="posterior")
    mean, covariance = moments(model, 1, eta=0.0)
    assert np.abs(covariance - covariance[0, 0] * np.eye(2)).max() < 1e-6
    ddim, ancestral = moments(model, 13, eta=1.0), moments(model, 13)
    first = model.schedule_.beta[1] ** 2 * np.eye(2)  # the ancestral sampler's last step, where β̃_1 = 0 would not do
    assert residual(ddim[0], ancestral[0]) < 1e-6
    assert residual(ddim[1] + first, ancestral[1]) < 1e-6
    with pytest.raises(ValueError, match=r"^rng is needed for eta > 0"):
        next(ddim_sampler(model.schedule_, model.eps_hat, np.zeros((1, 2)), eta=0.5))
    with pytest.raises(ValueError, match=r"^eta must be in"):
        model.sample(2, rng=0, eta=1.5)
    assert mean.shape == (2,)


# --- whole numbers ----------------------------------------------------------------------------------------


class TableNoise:
    """The exact ε̂ of data from tables, in a trained network's place."""

    def __init__(self, tables):
        self.tables = tables

    def __call__(self, x, scale, std, *_):
        return (x - scale * self.tables.denoise(x, scale, std)) / std


def test_bound_of_whole_numbers_bounds_their_entropy_and_a_density_would_not():
    """PB3 with the exact denoiser, every level by its probability, noise by the trapezoid rule, one column."""
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
    assert bounds[None] < entropy  # a density is no mass: its "bound" is below what it should bound


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


def test_labels_steer_the_samples_and_tell_likelier_from_less_likely():
    model = labelled()
    x, y = two_classes()
    drawn = model.sample(400, rng=0, y=np.repeat([0, 1], 200))[:, 0]
    assert (np.sign(drawn) == np.repeat([-1, 1], 200)).mean() > 0.98
    free = model.sample(400, rng=0)[:, 0]
    assert 0.3 < (free > 0).mean() < 0.7
    right, wrong, unlabelled = (model.elbo(x, rng=1, y=labels).mean() for labels in (y, 1 - y, None))
    assert right > unlabelled + 0.3 > wrong + 0.3


def test_guidance_ends_at_the_two_models_and_is_linear():
    model = labelled(n_steps=30)
    x, y = np.random.default_rng(1).standard_normal((6, 1)), np.array([0, 1, 1, 0, 1, 0])
    free, given = model.eps_hat(x, 4), model.eps_hat(x, 4, y)
    assert np.abs(given - free).max() > 1e-3
    assert np.array_equal(model.eps_hat(x, 4, y, guidance=0.0), free)
    assert np.array_equal(model.eps_hat(x, 4, y, guidance=1.0), given)
    assert residual(model.eps_hat(x, 4, y, guidance=3.0), free + 3 * (given - free)) < 1e-6
    stronger = model.sample(200, rng=0, y=np.ones(200, dtype=int), guidance=3.0)
    assert not np.array_equal(stronger, model.sample(200, rng=0, y=np.ones(200, dtype=int)))


def test_withheld_labels_are_not_learnt():
    """p_unlabelled = 1: the label's weights never move; 0: they do, and the network without label is never trained."""
    never, always = labelled(p_unlabelled=1.0, n_steps=20), labelled(p_unlabelled=0.0, n_steps=20)
    start = labelled(p_unlabelled=1.0, n_steps=1)
    rows = slice(-2, None)  # of the first layer: the two indicators come last
    assert np.abs(never.network_.mlp.weights[0][rows] - start.network_.mlp.weights[0][rows]).max() < 1e-6
    assert np.abs(always.network_.mlp.weights[0][rows] - start.network_.mlp.weights[0][rows]).max() > 1e-4


@pytest.mark.parametrize("y", [None, [0, 1], np.zeros(400), np.full(400, 2), np.full(400, -1)], ids=repr)
def test_labels_that_will_not_do_are_refused(y):
    x, _ = two_classes()
    with pytest.raises(ValueError, match=r"^y must be (in 0\.\.1|400 int labels, as n_classes=2 says)"):
        DDPM(n_classes=2).fit(x, y)
    if y is not None:
        with pytest.raises(ValueError, match=r"^y must be "):
            labelled(n_steps=1).sample(400, rng=0, y=y)


def test_labels_are_ignored_without_classes():
    x, y = two_classes()
    one, other = (DDPM(hidden=(4,), n_steps=3, rng=0).fit(x, labels) for labels in (y, None))
    assert one.sample(3, rng=0).tobytes() == other.sample(3, rng=0).tobytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [("prediction", "score"), ("weighting", "snr"), ("step_choice", "random"), ("n_classes", -1), ("p_unlabelled", 1.5),
     ("n_levels", 1), ("variance", "best")],
)  # fmt: skip
def test_choices_that_are_none_are_refused_before_the_time_is_spent(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        next(DDPM(**{name: value}).train(np.arange(6.0).reshape(3, 2)))


def test_choices_come_back_from_a_file(tmp_path):
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


def test_clipping_keeps_what_lies_within_and_makes_no_denoiser_worse():
    """Uniform levels, whose E[x_0 | x_t] is exact: the excess of a badly trained network falls, at every step."""
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


def test_clipping_needs_levels_and_stays_with_ddpm():
    with pytest.raises(ValueError, match="clip_x0 needs n_levels"):
        DDPM(clip_x0=True, n_steps=1).fit(np.eye(3))
    model = DDPM(clip_x0=True, n_levels=2, n_steps=1, hidden=(2,), rng=0).fit(np.eye(3))
    with pytest.raises(ValueError, match="clip_x0"):
        model.to_sde()
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
        assert t > 1  # the network has no part in it
        return 0.3 * x

    plain = bound_terms(schedule, x0, lambda x, t: 0.3 * x, noise)
    terms = bound_terms(schedule, x0, eps_hat, noise, decoder=decoder)
    assert np.array_equal(terms[:, 0], [0.0, 1.0])
    assert np.array_equal(terms[:, 1:], plain[:, 1:])
    assert np.array_equal(seen[0], q_sample(schedule, 1, x0, noise[0]))
