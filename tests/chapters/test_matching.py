"""Score matching, (33): all forms have one expectation and one gradient; their variances; the training loop."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchgen import VE, VP, Mixture, SubVP
from scratchgen.nn import EMA, Adam, CategoricalDenoiser, NoiseNetwork
from scratchgen.quadrature import sigma_points
from scratchgen.sde import (
    LinearSDE,
    TimeSampler,
    denoising_error,
    denoising_score_matching,
    draw_directions,
    explicit_score_matching,
    implicit_score_matching,
    predict_score,
    score_step,
    sliced_error,
    sliced_score_matching,
    sliced_step,
    train,
)
from scratchgen.sde.training import N_CELLS
from scratchgen.testing import reals
from scratchgen.timestep_sampling import STEP_CHOICES, TimestepSampler
from tests.strategies import residual, slope, slope_along

BIMODAL = Mixture([0.4, 0.6], [[-1.0], [1.2]], [[[0.1]], [[0.2]]])


# --- losses with their derivatives ------------------------------------------------------------------------


@pytest.mark.equation(33)
@given(reals((3, 2), -3, 3), reals((3, 2), -3, 3), reals((3, 2), -1, 1), reals(3, 0.1, 2))
def test_denoising_error_is_the_loss_with_its_derivative(score, noise, direction, std):
    losses, by_score = denoising_error(score, noise, std)
    assert residual(losses, ((score + noise / std[:, None]) ** 2) @ np.ones(2)) < 1e-14
    assert np.array_equal(losses, denoising_score_matching(score, noise, std))
    assert residual(losses[:1], denoising_score_matching(score[:1], noise[:1], float(std[0]))) < 1e-15
    numeric = slope(lambda h: denoising_score_matching(score + h * direction, noise, std), 1e-2)
    assert residual((by_score * direction).sum(axis=1), numeric) < 1e-9


@pytest.mark.equation(33)
@pytest.mark.parametrize("reduce_variance", [False, True])
@given(reals((3, 2), -3, 3), reals((3, 2), -2, 2), reals((3, 2), -3, 3), reals((2, 3, 2), -1, 1))
def test_sliced_error_is_the_loss_with_its_derivatives(reduce_variance, score, v, derivative, directions):
    losses, by_score, by_derivative = sliced_error(score, v, derivative, reduce_variance)
    square = (score**2) @ np.ones(2) if reduce_variance else np.einsum("nd,nd->n", v, score) ** 2
    assert residual(losses, square + 2 * np.einsum("nd,nd->n", v, derivative)) < 1e-14
    assert np.array_equal(losses, sliced_score_matching(score, v, derivative, reduce_variance))
    if not reduce_variance:  # the default
        assert np.array_equal(losses, sliced_error(score, v, derivative)[0])
        assert np.array_equal(losses, sliced_score_matching(score, v, derivative))
    a, b = directions
    numeric = slope(lambda h: sliced_score_matching(score + h * a, v, derivative + h * b, reduce_variance), 1e-2)
    assert residual((by_score * a + by_derivative * b).sum(axis=1), numeric) < 1e-9


def test_losses_and_derivatives_keep_float32():
    a = np.ones((3, 2), np.float32)
    for std in 0.5, np.array([0.1, 0.5, 1.0]):
        assert {part.dtype for part in denoising_error(a, a, std)} == {np.dtype(np.float32)}
    for reduce_variance in False, True:
        assert {part.dtype for part in sliced_error(a, a, a, reduce_variance)} == {np.dtype(np.float32)}


# --- steps of training ------------------------------------------------------------------------------------


class OneLevel(LinearSDE):
    """A process with one noise level at all times."""

    rate = diffusion = time_at = None  # not called in a step of training
    horizon = 1.0

    def __init__(self, scale, std):
        self.levels = scale, std

    def log_scale(self, t):
        return np.log(self.levels[0]) + 0 * t

    def std(self, t):
        return self.levels[1] + 0 * t


def grid_of_noise(D):
    """Trapezoid nodes (M, D) and weights of E over ε ~ N(0, I_D)."""
    axis = np.linspace(-8.5, 8.5, {1: 401, 2: 121}[D])  # coordinate features oscillate, so that 1-D needs a fine grid
    nodes = np.stack(np.meshgrid(*[axis] * D, indexing="ij"), axis=-1).reshape(-1, D)
    weights = np.exp(-0.5 * (nodes**2).sum(axis=1))
    return nodes, weights / weights.sum()


@st.composite
def problems(draw):
    """A network with random parameters, one clean point and a noise level."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    D = draw(st.integers(1, 2))
    network = NoiseNetwork(D, (5, 4), n_coordinate_features=draw(st.integers(0, 1)), rng=rng, dtype=np.float64)
    network.parameters[:] = 0.5 * rng.standard_normal(len(network.parameters))
    return network, rng.standard_normal((1, D)), rng.uniform(0.3, 1), rng.uniform(0.1, 1)


def expected(problem, matching, directions="rademacher"):
    """Mean of std² times the loss, plus D except for denoising, and its gradient, over ε and v without random draws."""
    network, x0, scale, std = problem
    D = x0.shape[1]
    noise, weights = grid_of_noise(D)
    x0, t = np.repeat(x0, len(noise), axis=0), np.zeros(len(noise))
    arguments = network, OneLevel(scale, std), x0, t, noise, std**2 * weights * len(noise)
    if matching == "denoising":
        losses = score_step(*arguments)
    else:
        signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * D), axis=-1).reshape(-1, D)
        v = signs if directions == "rademacher" else sigma_points(D)  # losses are quadratic in v
        v = np.broadcast_to(v[:, None], (len(v), *x0.shape))
        if matching == "implicit":
            v = draw_directions("implicit", directions, x0, np.random.default_rng(0))
        losses = sliced_step(*arguments, v, matching != "sliced") + D / std**2
    return std**2 * float(weights @ losses), network.gradient.copy()


@pytest.mark.equation(33)
@settings(max_examples=20)
@given(problems(), st.sampled_from(["rademacher", "gaussian"]))
def test_every_kind_of_matching_has_the_expectation_and_the_gradient_of_denoising(problem, directions):
    """Stein: E ε·ε̂ = std E div ε̂, given x_0.  Quadrature over ε, all signs or sigma points for v."""
    loss, gradient = expected(problem, "denoising")
    for matching in ("implicit", "sliced", "sliced-vr"):
        other, other_gradient = expected(problem, matching, directions)
        assert residual(other, loss) < 1e-11
        assert np.abs(other_gradient - gradient).max() < 1e-10 * (1 + np.abs(gradient).max())


def random_network(D=3, seed=0):
    rng = np.random.default_rng(seed)
    network = NoiseNetwork(D, (6,), rng=rng, dtype=np.float64)
    network.parameters[:] = rng.standard_normal(len(network.parameters))
    return network, rng


@pytest.mark.equation(31, 33, "score-step", "sliced-step")
@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(0.05, 5.0)], ids=repr)
def test_losses_of_a_step_are_those_of_the_theory(sde):
    """x_t = scale x_0 + std ε with a different time for every example, and s_θ = −ε̂/std."""
    network, rng = random_network()
    x0, noise, v = rng.standard_normal((3, 4, 3))
    t, weight = rng.uniform(0.2, 1, 4), np.ones(4)
    scale, std = sde.marginal(t)
    x_t = scale[:, None] * x0 + std[:, None] * noise
    score = -network(x_t, scale, std) / std[:, None]
    assert residual(predict_score(network, sde, x_t, t), score) < 1e-15

    def along(v):
        return -network.jvp(x_t, v, scale, std)[1] / std[:, None]

    denoising = score_step(network, sde, x0, t, noise, weight)
    assert residual(denoising, ((score + noise / std[:, None]) ** 2).sum(axis=1)) < 1e-13
    for reduce_variance in False, True:
        sliced = sliced_step(network, sde, x0, t, noise, weight, v[None], reduce_variance)
        assert residual(sliced, sliced_score_matching(score, v, along(v), reduce_variance)) < 1e-13
    assert np.array_equal(
        sliced_step(network, sde, x0, t, noise, weight, v[None]),
        sliced_step(network, sde, x0, t, noise, weight, v[None], False),
    )
    axes = draw_directions("implicit", "rademacher", x0, rng)
    divergence = sum(along(np.tile(e, (4, 1))) @ e for e in np.eye(3))
    implicit = sliced_step(network, sde, x0, t, noise, weight, axes, reduce_variance=True)
    assert residual(implicit, implicit_score_matching(score, divergence)) < 1e-13


@pytest.mark.equation(33, "score-step", "sliced-step")
@pytest.mark.parametrize("matching", ["denoising", "implicit", "sliced", "sliced-vr"])
def test_a_step_leaves_the_gradient_of_the_weighted_mean(matching):
    """By differences along a random direction of the parameters; every example has its own weight and noise level."""
    network, rng = random_network()
    sde, t, weight = VP(), rng.uniform(0.1, 1, 5), rng.uniform(0.1, 2, 5)
    x0, noise = rng.standard_normal((2, 5, 3))
    v = draw_directions(matching, "gaussian", x0, rng)

    def losses():
        if matching == "denoising":
            return score_step(network, sde, x0, t, noise, weight)
        return sliced_step(network, sde, x0, t, noise, weight, v, matching != "sliced")

    direction = rng.standard_normal(len(network.parameters))
    losses()
    gradient = network.gradient.copy()
    numeric = slope_along(network.parameters, direction, lambda: float((weight * losses()).mean()))
    assert abs(gradient @ direction - numeric) < 1e-7 * (1 + abs(numeric))


def test_a_network_without_derivatives_along_directions_is_refused():
    network = CategoricalDenoiser(np.full((2, 3), 1 / 3), np.eye(2), (4,), rng=0)
    x = np.zeros((5, 2), np.float32)
    with pytest.raises(TypeError, match=r"^network must be a NoiseNetwork"):
        sliced_step(network, VP(), x, np.full(5, 0.5), x, np.ones(5), x[None])
    assert np.isfinite(score_step(network, VP(), x, np.full(5, 0.5), x, np.ones(5))).all()


@pytest.mark.equation(33)
def test_directions_have_unit_covariance():
    """Signs and normal numbers, one per example; and √D times every axis, where the mean is exact."""
    rng, x = np.random.default_rng(0), np.zeros((20_000, 3), np.float32)
    signs, gaussian = (draw_directions("sliced", law, x, rng) for law in ("rademacher", "gaussian"))
    assert signs.shape == gaussian.shape == (1, 20_000, 3)
    assert set(signs.ravel()) == {-1.0, 1.0}
    assert len(np.unique(gaussian)) > 50_000
    for v in signs[0], gaussian[0]:
        assert v.dtype == np.float32
        assert np.abs(v.T @ v / len(v) - np.eye(3)).max() < 5.5 * (2 / len(v)) ** 0.5
    axes = draw_directions("implicit", "rademacher", x[:4], rng)
    assert axes.shape == (3, 4, 3)
    for n in range(4):
        assert residual(axes[:, n].T @ axes[:, n] / 3, np.eye(3)) < 1e-6


@pytest.mark.equation(33)
def test_reduce_variance_lowers_the_variance_where_the_score_is_large():
    """The mean over v stays, E(v·s)² = ‖s‖² for unit covariance; Gaussian v have more variance than signs.

    For a small score the variance may rise, because (v·s)² and the derivative can cancel.
    """
    rng = np.random.default_rng(0)
    score, jacobian = 3 * rng.standard_normal((1, 4)), rng.standard_normal((4, 4))
    n, spread = 100_000, {}
    for law, v in (("gaussian", rng.standard_normal((n, 4))), ("signs", rng.choice([-1.0, 1.0], (n, 4)))):
        for reduce_variance in (False, True):
            losses = sliced_score_matching(np.tile(score, (n, 1)), v, v @ jacobian.T, reduce_variance)
            spread[law, reduce_variance] = losses.std()
            exact = float((score**2).sum() + 2 * np.trace(jacobian))
            assert abs(losses.mean() - exact) < 6 * losses.std() / n**0.5
    # Var v·(J v) is Σ_{i≠j} of the symmetric part for signs, and 2‖·‖² with its diagonal for Gaussians
    symmetric = jacobian + jacobian.T
    off = symmetric - np.diag(np.diagonal(symmetric))
    assert abs(spread["signs", True] / (2 * (off**2).sum()) ** 0.5 - 1) < 0.02
    assert abs(spread["gaussian", True] / (2 * (symmetric**2).sum()) ** 0.5 - 1) < 0.02
    assert spread["signs", True] < spread["signs", False] < spread["gaussian", False]


@pytest.mark.equation(33)
def test_implicit_matching_needs_a_density_that_vanishes_at_its_ends():
    """Uniform on [0, 1] with score 0, and s_θ = x: the explicit loss is 1/3; the wrong partial integration adds 2."""
    x, weights = np.polynomial.legendre.leggauss(5)
    x, weights = 0.5 * (x[:, None] + 1), 0.5 * weights
    assert weights @ explicit_score_matching(x, 0 * x) == pytest.approx(1 / 3, rel=1e-14)
    assert weights @ implicit_score_matching(x, np.ones(5)) == pytest.approx(1 / 3 + 2, rel=1e-14)


# --- draws of times ------------------------------------------------------------------------------------------


@pytest.mark.equation("time-draws")
@pytest.mark.parametrize("weighting", ["likelihood", "noise"])
def test_every_choice_of_times_has_the_same_expectation(weighting):
    """E weight · f(u) = ∫f over the clock; importance draws follow the observed losses, and need the weights."""
    rng, sde, t_min = np.random.default_rng(0), VP(), 0.01
    low, high = sde.log_snr(np.array([1.0, t_min]))

    def clock(t):
        return (sde.log_snr(t) - low) / (high - low) if weighting == "likelihood" else (t - t_min) / (1 - t_min)

    for choice in STEP_CHOICES:
        sampler = TimeSampler(sde, t_min, weighting, choice)
        if choice == "importance":
            for cell in range(1, N_CELLS + 1):
                sampler.observe(np.full(10, cell), np.full(10, 1.0 + 9 * (cell > 90)))
        batches = [(clock(t), cells, weight) for cells, t, weight in (sampler.draw(256, rng) for _ in range(2000))]
        plain, weighted = np.array([[(u**2).mean(), (u**2 * weight).mean()] for u, _, weight in batches]).T
        error = weighted.std() / len(batches) ** 0.5
        assert abs(weighted.mean() - 1 / 3) < 6 * error
        assert (abs(plain.mean() - 1 / 3) > 100 * error) == (choice == "importance")
        assert all(((u >= -1e-12) & (u <= 1 + 1e-12)).all() for u, _, _ in batches)
        n_cells = 256 if choice == "stratified" else 100
        for u, cells, _ in batches[:20]:
            assert (np.abs(n_cells * u - cells + 0.5) < 0.5 + 1e-9).all()  # u lies in its cell
            assert np.unique((cells - n_cells * u).round(6)).size > 200  # each time has a place of its own in the cell


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.0,), "t_min must be"),
        ((1.5,), "t_min must be"),
        ((0.1, "simple"), "weighting must be"),
        ((0.1, "noise", "even"), "time_choice must be"),
    ],
)
def test_invalid_arguments_of_a_time_sampler_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        TimeSampler(VP(), *arguments)


# --- the loop ---------------------------------------------------------------------------------------------


class Replay:
    """The draws of one training step in the order of the loop: rows, noise, times, directions."""

    def __init__(self, seed, x, batch_size, sampler, matching, law):
        rng = np.random.default_rng(seed)
        self.x0 = x[rng.integers(len(x), size=batch_size)]
        self.noise = rng.standard_normal(self.x0.shape, dtype=x.dtype)
        _, self.t, self.weight = sampler.draw(batch_size, rng)
        if matching.startswith("sliced"):
            shape = self.x0.shape
            self.v = rng.choice([-1.0, 1.0], size=shape) if law == "rademacher" else rng.standard_normal(shape)


@pytest.mark.equation(33, "score-training")
@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
@pytest.mark.parametrize("choice", STEP_CHOICES)
@pytest.mark.parametrize("matching", ["denoising", "implicit", "sliced", "sliced-vr"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_first_loss_of_the_loop_is_that_of_the_untrained_network(dtype, tolerance, matching, choice, law):
    """ε̂ = std x_t on a variance-preserving process, s = −x_t: the loss in units of the noise, from the same draws."""
    sde, x = VP(), np.random.default_rng(1).standard_normal((50, 3)).astype(dtype)
    network = NoiseNetwork(3, (4,), rng=0, dtype=dtype)
    arguments = {"matching": matching, "directions": law, "batch_size": 16}
    loop = train(
        network,
        sde,
        x,
        1,
        np.random.default_rng(7),
        adam=Adam(network.parameters),
        ema=EMA(network.parameters.copy()),
        sampler=TimeSampler(sde, 0.01, "noise", choice),
        **arguments,
    )
    (loss,) = loop
    draws = Replay(7, x, 16, TimeSampler(sde, 0.01, "noise", choice), matching, law)
    scale, std = (level[:, None] for level in sde.marginal(draws.t))
    x_t = scale * draws.x0 + std * draws.noise
    if matching == "denoising":
        losses = ((draws.noise - std * x_t) ** 2).sum(axis=1)
    elif matching == "implicit":
        losses = std[:, 0] ** 2 * ((x_t**2).sum(axis=1) - 2 * 3) + 3
    else:
        square = (draws.v * x_t).sum(axis=1) ** 2 if matching == "sliced" else (x_t**2).sum(axis=1)
        losses = std[:, 0] ** 2 * (square - 2 * (draws.v**2).sum(axis=1)) + 3
    assert loss == pytest.approx((draws.weight * losses).mean(), rel=tolerance)


def begin(n_steps, weight_decay=0.0, **options):
    """A loop of `train` on two-dimensional data, its network and the moving average."""
    network = NoiseNetwork(2, (3,), rng=3, dtype=np.float64)
    x, average = np.random.default_rng(1).standard_normal((30, 2)), network.parameters.copy()
    sampler = TimeSampler(VP(), 0.01)
    adam, ema = Adam(network.parameters, weight_decay=weight_decay), EMA(average)
    loop = train(network, VP(), x, n_steps, np.random.default_rng(2), adam=adam, ema=ema, sampler=sampler, **options)
    return loop, network, average


def test_the_loop_has_the_documented_defaults():
    def run(**options):
        loop, network, average = begin(5, **options)
        return [list(loop), network.parameters.tolist(), average.tolist()]

    assert run() == run(matching="denoising", batch_size=256, learning_rate=5e-3)
    assert run() != run(weight_decay=0.1)
    assert run(matching="sliced") == run(matching="sliced", directions="rademacher")


@pytest.mark.parametrize(("n_steps", "warmup"), [(32, 3), (1010, 100)])
def test_the_learning_rate_rises_over_a_tenth_of_the_steps_and_at_most_100(n_steps, warmup):
    """The first step of Adam moves every parameter with a gradient by the learning rate of that step."""
    loop, network, _ = begin(n_steps, learning_rate=0.3)
    before = network.parameters.copy()
    next(loop)
    assert np.abs(network.parameters - before).max() == pytest.approx(0.3 / warmup, rel=1e-4)


@pytest.mark.equation("score-training")
@pytest.mark.parametrize("matching", ["denoising", "sliced"])
@pytest.mark.parametrize("split", [1, 7, 11])
def test_a_second_loop_goes_on_where_the_first_one_ended(split, matching):
    x = np.random.default_rng(1).standard_normal((30, 2))

    def run(*splits):
        network, rng = NoiseNetwork(2, (3,), rng=3), np.random.default_rng(2)
        adam, ema = Adam(network.parameters), EMA(network.parameters.copy())
        given = {"adam": adam, "ema": ema, "sampler": TimeSampler(VP(), 0.01, choice="importance"), "batch_size": 128}
        losses = []
        for n in (*splits, 12 - sum(splits)):
            losses += list(islice(train(network, VP(), x, 12, rng, matching=matching, **given), n))
        return losses, network.parameters.tolist(), ema.average.tolist(), rng.random()

    assert run() == run(split)


def test_the_loop_trains_on_what_augment_returns_and_tells_the_network_its_numbers():
    x = np.random.default_rng(1).standard_normal((30, 2)).astype(np.float32)

    def run(x, augment, matching="denoising"):
        network, told = NoiseNetwork(2, (3,), rng=3, n_augment=2), []
        vjp = network.vjp
        network.vjp = lambda *args, augment_labels, **kw: (told.append(augment_labels), vjp(*args, **kw))[1]
        given = {"adam": Adam(network.parameters), "ema": EMA(network.parameters.copy()), "matching": matching}
        given |= {"sampler": TimeSampler(VP(), 1e-3), "augment": augment}
        return list(train(network, VP(), x, 1, np.random.default_rng(2), **given)), told

    rows = []
    numbers = run(x, lambda chosen, rng: (rows.append(chosen), (x[chosen], np.stack([chosen, -chosen], axis=1)))[1])[1]
    assert np.array_equal(numbers[0][:, 1], -rows[0])
    assert run(x, lambda rows, rng: (-x[rows], np.zeros((len(rows), 2))))[0] == run(-x, None)[0]
    with pytest.raises(ValueError, match=r"^augment must be None for matching='sliced'"):
        run(x, lambda rows, rng: (x[rows], None), "sliced")


def test_a_loss_that_is_not_finite_ends_the_training_with_its_step():
    loop, network, _ = begin(5)
    next(loop)
    network.parameters[:] = np.nan
    with pytest.raises(ArithmeticError, match=r"diverged in step 2: the loss is nan"):
        next(loop)


@pytest.mark.equation("time-draws")
def test_importance_spends_its_draws_where_the_loss_varies():
    """After training the estimate is √E[loss²] of the network, within the error of ten recent losses per cell."""
    rng, sde, x = np.random.default_rng(0), VP(), BIMODAL.sample(2000, rng=0).astype(np.float32)
    network = NoiseNetwork(1, (32,), rng=rng)
    adam, ema = Adam(network.parameters), EMA(network.parameters.copy())
    sampler = TimeSampler(sde, 1e-3, choice="importance")
    for _ in train(network, sde, x, 1500, rng, adam=adam, ema=ema, sampler=sampler):
        pass
    network.parameters[:] = ema.average
    rng, second = np.random.default_rng(1), np.zeros(N_CELLS)
    x0 = BIMODAL.sample(4000, rng)
    for cell in range(N_CELLS):
        t = float(sampler.time_at((cell + 0.5) / N_CELLS))
        noise = rng.standard_normal(x0.shape)
        eps_hat = network(sde.perturb(t, x0, noise), *sde.level(t))
        second[cell] = (((noise - eps_hat) ** 2).sum(axis=1) ** 2).mean()
    best = np.sqrt(second) / np.sqrt(second).sum()
    learned = (sampler.cells.probabilities[1:] - 0.1 / N_CELLS) / 0.9
    assert np.corrcoef(best, learned)[0, 1] > 0.75
    even = np.full(N_CELLS, 1 / N_CELLS)
    assert np.abs(learned - best).sum() < 0.6 * np.abs(even - best).sum()
    untold = TimeSampler(sde, 1e-3, choice="uniform")
    untold.observe(np.arange(1, 11), np.ones(10))
    assert np.array_equal(untold.cells.probabilities, TimestepSampler(N_CELLS, "uniform").probabilities)
