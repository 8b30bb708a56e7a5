"""Equations (13)-(14): the loss of the VAE, its gradient, its bounds and the training loop, against exact answers.

Expectations over the latent noise are sums over nodes, which are passed as `noise`.
"""

from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen.likelihood import log_bin_mass, log_bin_mass_slopes
from scratchgen.nn import Adam, cosine_decay
from scratchgen.nn.activations import ACTIVATIONS
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.testing import reals
from scratchgen.vae import (
    VAENetwork,
    elbo,
    importance_weighted_bound,
    iwae,
    log_importance_weight,
    random_batch,
    reconstruction_error,
    sigma_batch,
    train,
    train_step,
    vae_loss,
    vae_loss_and_gradient,
)
from scratchgen.variational import linear_gaussian_elbo
from tests.strategies import residual, slope_along


@st.composite
def networks(draw, hidden=None, any_decoder=False):
    """A VAE network with random parameters, examples, noise, and the Generator that drew them.

    The decoder is a Gaussian with one variance; with `any_decoder` also a Gaussian in bins, or one with D variances.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    D, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    layers = draw(st.lists(st.integers(1, 5), max_size=2)) if hidden is None else hidden
    n_levels, n_variances = draw(st.sampled_from([None, 2, 17])), draw(st.sampled_from([1, D]))
    options = {"n_levels": n_levels, "n_variances": n_variances} if any_decoder else {}
    network = VAENetwork(D, k, layers, draw(st.sampled_from(sorted(ACTIVATIONS))), rng, np.float64, **options)
    for parameters, _ in network.parts:
        parameters[:] = rng.standard_normal(len(parameters)) / 2
    x = rng.standard_normal((3, D))
    if network.n_levels is not None:
        x = 2 * rng.integers(n_levels, size=(3, D)) / (n_levels - 1) - 1
    return network, x, rng.standard_normal((3, k)), rng


# --- (14) as a function of its arguments ---------------------------------------------------------------------------


@st.composite
def losses(draw):
    """Arguments of `vae_loss_and_gradient`; log s² is a number, one per dimension, or one per entry."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    N, D, k = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n_levels = draw(st.sampled_from([None, 2, 17]))
    x = (
        rng.standard_normal((N, D))
        if n_levels is None
        else 2 * rng.integers(n_levels, size=(N, D)) / (n_levels - 1) - 1
    )
    shape = draw(st.sampled_from([(), (1,), (D,), (N, D)]))
    arguments = [rng.standard_normal((N, size)) for size in (D, k, k)]
    return x, *arguments, rng.uniform(-2, 1, shape), draw(st.sampled_from([0.0, 1.0, 3.0])), n_levels


@pytest.mark.equation(14)
@given(losses())
def test_derivatives_of_the_loss_are_those_of_its_value(case):
    """With respect to every argument in turn, for both decoders."""
    x, *arguments, kl_weight, n_levels = case
    gradient = vae_loss_and_gradient(x, *arguments, kl_weight, n_levels)[1]
    assert gradient.decoder_log_variance.shape == x.shape
    for i, by in enumerate(gradient):
        direction = np.cos(1.0 + np.arange(np.size(arguments[i]))).reshape(np.shape(arguments[i]))

        def loss(h, i=i, direction=direction):
            moved = [*arguments[:i], arguments[i] + h * direction, *arguments[i + 1 :]]
            return vae_loss_and_gradient(x, *moved, kl_weight, n_levels)[0]

        exact = (by * direction).sum(axis=1)
        assert np.abs(central_difference(loss, 1e-2) - exact).max() < 1e-6 * (1 + np.abs(exact).max())


@pytest.mark.equation(14)
@given(losses())
def test_the_loss_is_the_value_whose_gradient_trains(case):
    x, x_hat, mean, log_variance, log_s2, _, n_levels = case
    value = vae_loss(x, x_hat, mean, log_variance, log_s2, n_levels)
    assert np.array_equal(value, vae_loss_and_gradient(x, x_hat, mean, log_variance, log_s2, 1.0, n_levels)[0])
    std = np.exp(0.5 * log_s2)
    if n_levels is None:
        log_decoder = stats.norm.logpdf(x, x_hat, std)
    else:
        log_decoder = log_bin_mass(np.rint((x + 1) * (n_levels - 1) / 2), x_hat, std, n_levels)
    kl = (0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance)).sum(axis=1)
    assert residual(value, kl - log_decoder.sum(axis=1)) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_and_derivatives_keep_the_dtype(dtype):
    rng = np.random.default_rng(0)
    x, x_hat, mean, log_variance = (rng.standard_normal((5, n)).astype(dtype) for n in (3, 3, 2, 2))
    for log_s2 in 0.3, np.full(3, 0.3, dtype=dtype):
        losses, gradient = vae_loss_and_gradient(x, x_hat, mean, log_variance, log_s2, 2.0)
        assert {losses.dtype, *(by.dtype for by in gradient)} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("x", "x_hat", "expected"),
    [
        (np.float32, np.float32, np.float32),
        (np.float64, np.float32, np.float64),
        (np.float32, np.float64, np.float64),
        (np.int8, np.int8, np.float64),
    ],
)
def test_log_variance_has_the_dtype_of_data_and_mean_and_is_no_whole_number(x, x_hat, expected):
    """log s² = 0.3 would become 0 as a whole number, and lose digits as a float32 beside doubles."""
    losses, _, _ = reconstruction_error(np.zeros((2, 3), x), np.ones((2, 3), x_hat), 0.3)
    assert losses.dtype == expected
    rounding = 1e-6 if expected == np.float32 else 1e-15
    assert residual(losses, -stats.norm.logpdf(0, 1, np.exp(0.15)) * np.full(2, 3.0)) < rounding


# --- a step of training ----------------------------------------------------------------------------------------------


@pytest.mark.equation(14, "vae-draw", "vae-step")
@given(networks(any_decoder=True), st.sampled_from([0.0, 1.0, 4.0]))
def test_gradient_of_the_loss_is_its_derivative_in_all_three_parts(drawn, kl_weight):
    """For a Gaussian decoder and for one in bins, with one variance or one per dimension."""
    network, x, noise, rng = drawn
    train_step(network, x, noise, kl_weight)
    gradients = [gradient.copy() for _, gradient in network.parts]
    for (parameters, _), gradient in zip(network.parts, gradients, strict=True):
        direction = rng.standard_normal(parameters.shape)
        direction /= np.linalg.norm(direction)
        numeric = slope_along(parameters, direction, lambda: float(train_step(network, x, noise, kl_weight).mean()))
        assert abs(float(gradient @ direction) - numeric) <= 1e-7 * max(float(np.linalg.norm(gradient)), 1e-2)


@pytest.mark.equation(14, "vae-step")
@given(networks(), st.sampled_from([0.0, 1.0, 4.0]))
def test_loss_is_minus_log_joint_plus_the_kl(drawn, kl_weight):
    """For every draw: ‖x − x̂‖²/(2s²) + (D/2) log 2πs², summed over D, and the weighted KL(N(μ, σ²)‖N(0, 1)), over k."""
    network, x, noise, _ = drawn
    output = network.encoder(x)
    mean, std = output[:, : network.n_latents], np.exp(output[:, network.n_latents :] / 2)
    x_hat, s = network.decoder(mean + std * noise), np.exp(network.log_variance[0] / 2)
    kl = (np.log(1 / std) + (std**2 + mean**2) / 2 - 0.5).sum(axis=1)
    expected = kl_weight * kl - stats.norm.logpdf(x, x_hat, s).sum(axis=1)
    assert residual(train_step(network, x, noise, kl_weight), expected) < 1e-12
    assert residual(train_step(network, x, noise), train_step(network, x, noise, 1.0)) == 0


@pytest.mark.equation(14)
def test_the_loss_of_a_step_is_that_of_its_decoder_in_bins():
    """`vae_loss` of levels, not of a density."""
    network = VAENetwork(3, 2, (4,), rng=0, dtype=np.float64, n_levels=5)
    rng = np.random.default_rng(1)
    x, noise = 2 * rng.integers(5, size=(6, 3)) / 4 - 1, rng.standard_normal((6, 2))
    mean, log_variance = network.encode(x)
    x_hat = network.decoder(mean + np.exp(0.5 * log_variance) * noise)
    expected = vae_loss(x, x_hat, mean, log_variance, network.log_variance, 5)
    assert residual(train_step(network, x, noise), expected) < 1e-14


@pytest.mark.equation(14)
@given(networks(), st.booleans())
def test_best_decoder_variance_is_the_mean_squared_error(drawn, per_dimension):
    """One variance for all dimensions, or one per dimension."""
    network, x, noise, _ = drawn
    mean, log_variance = network.encode(x)
    x_hat = network.decoder(mean + np.exp(log_variance / 2) * noise)
    best = np.log(((x - x_hat) ** 2).mean(axis=0 if per_dimension else None, keepdims=True).ravel())
    network.log_variance, network.log_variance_gradient = np.zeros((2, len(best)))
    for shift, sign in (0.0, 0), (0.1, 1), (-0.1, -1):
        network.log_variance[:] = best + shift
        train_step(network, x, noise)
        gradient = network.log_variance_gradient
        assert (abs(gradient) < 1e-12 if sign == 0 else np.sign(gradient) == sign).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log_variance", [-30.0, 30.0])
def test_large_log_variances_are_finite_and_pull_back(log_variance, dtype):
    """No clamp: at log σ² = ±30 the gradient of the KL is ½(σ² − 1); with a clamp it would stay 0."""
    network = VAENetwork(3, 2, (), rng=0, dtype=dtype)
    network.encoder.weights[0][:, 2:] = 0
    network.encoder.biases[0][2:] = log_variance
    network.decoder.weights[0][:] = 0  # only the gradient of the KL is left
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    loss = train_step(network, x, np.ones((5, 2), dtype=dtype))
    assert np.isfinite(loss).all()
    assert all(np.isfinite(gradient).all() for _, gradient in network.parts)
    bias_gradient = network.encoder.gradient[-2:]
    assert bias_gradient == pytest.approx(0.5 * np.expm1(log_variance), rel=1e-5 if dtype == np.float32 else 1e-12)


def test_float32_network_computes_in_float32():
    network = VAENetwork(3, 2, (4,), rng=0)
    rng = np.random.default_rng(0)
    x, noise = (rng.standard_normal((5, n), dtype=np.float32) for n in (3, 2))
    assert train_step(network, x, noise).dtype == np.float32
    assert {array.dtype for part in network.parts for array in part} == {np.dtype(np.float32)}


@given(st.sampled_from([2, 17, 256]), st.floats(0.01, 2), reals((6,), -1.5, 1.5))
def test_slopes_of_bin_masses_are_their_derivatives(n_levels, std, means):
    levels = np.arange(n_levels)[:, None]
    log_mass, by_mean, by_log_variance = log_bin_mass_slopes(levels, means, std, n_levels)
    assert np.array_equal(log_mass, log_bin_mass(levels, means, std, n_levels))
    numeric = central_difference(lambda h: log_bin_mass(levels, means + h * std, std, n_levels), 1e-3)
    assert np.abs(by_mean * std - numeric).max() < 1e-8 * (1 + np.abs(numeric).max())
    numeric = central_difference(lambda h: log_bin_mass(levels, means, std * np.exp(h / 2), n_levels), 1e-3)
    assert np.abs(by_log_variance - numeric).max() < 1e-8 * (1 + np.abs(numeric).max())


# --- bounds at given noise -------------------------------------------------------------------------------------------


@pytest.mark.equation(8, 13, 14, "importance-weighting")
@given(networks(hidden=()))
def test_bounds_of_a_linear_decoder_are_closed_at_sigma_points(drawn):
    """The ELBO by (14), and by (8) as the mean of log w; both are quadratics of the noise."""
    network, x, _, rng = drawn
    k = network.n_latents
    W, mean, s2 = network.decoder.weights[0].T, network.decoder.biases[0], float(np.exp(network.log_variance[0]))
    q_mean, q_log_variance = network.encode(x)
    closed = [
        linear_gaussian_elbo(row[None], W, mean, s2, m[None], np.diag(np.exp(v)))[0]
        for row, m, v in zip(x, q_mean, q_log_variance, strict=True)
    ]
    assert residual(elbo(network, x, sigma_points(k)[:, None]), np.array(closed)) < 1e-12
    log_w = np.array([iwae(network, x, np.tile(point, (1, 3, 1))) for point in sigma_points(k)])  # one draw: log w
    assert residual(log_w.mean(axis=0), np.array(closed)) < 1e-12
    noise = rng.standard_normal((5, 3, k))
    single = np.array([iwae(network, x, xi[None]) for xi in noise])
    assert residual(iwae(network, x, noise), importance_weighted_bound(single)) < 1e-13
    z = q_mean + np.exp(0.5 * q_log_variance) * noise[0]
    direct = log_importance_weight(x, network.decoder(z), z, q_mean, q_log_variance, network.log_variance)
    assert residual(direct, single[0]) < 1e-13
    assert direct.dtype == np.float64


# --- the loop --------------------------------------------------------------------------------------------------------


def optimisers(network):
    """One Adam for each part of a network."""
    return [Adam(parameters) for parameters, _ in network.parts]


@pytest.mark.equation("vae-training")
def test_training_is_adam_on_the_step_s_gradients_with_a_rate_of_their_own_for_log_s2():
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    mine, theirs = (VAENetwork(3, 2, (4,), rng=1) for _ in range(2))
    options = {"learning_rate": 0.02, "log_variance_rate": 3.0, "kl_weight": 0.5}
    draw = partial(random_batch, n_latents=2, batch_size=8)
    losses = list(train(mine, x, 5, np.random.default_rng(2), draw, adams=optimisers(mine), **options))
    rng, adams = np.random.default_rng(2), [Adam(parameters) for parameters, _ in theirs.parts]
    for step, loss in enumerate(losses):
        rows = rng.integers(20, size=8)
        noise = rng.standard_normal((8, 2), dtype=np.float32)
        assert float(train_step(theirs, x[rows], noise, 0.5).mean()) == loss
        for adam, (_, gradient), factor in zip(adams, theirs.parts, (1, 1, 3), strict=True):
            adam.step(gradient, factor * cosine_decay(step, 5, 0.02))
    for (a, _), (b, _) in zip(mine.parts, theirs.parts, strict=True):
        assert np.array_equal(a, b)
    fixed = VAENetwork(3, 2, (4,), rng=1)
    draw = partial(random_batch, n_latents=2)
    list(train(fixed, x, 3, rng, draw, adams=optimisers(fixed), log_variance_rate=0.0))
    assert fixed.log_variance[0] == 0


def test_the_loop_has_the_documented_defaults():
    def run(**options):
        network, x = VAENetwork(3, 2, (4,), rng=1), np.random.default_rng(0).standard_normal((20, 3), dtype=np.float32)
        draw = partial(random_batch, n_latents=2)
        loop = train(network, x, 5, np.random.default_rng(2), draw, adams=optimisers(network), **options)
        return [list(loop), *(parameters.tolist() for parameters, _ in network.parts)]

    assert run() == run(learning_rate=2e-3, log_variance_rate=10.0, kl_weight=1.0)


def test_an_update_that_overflows_in_one_part_is_undone_in_all():
    network, x = VAENetwork(3, 2, (4,), rng=1), np.random.default_rng(0).standard_normal((20, 3), dtype=np.float32)
    before, draw = [part.copy() for part, _ in network.parts], partial(random_batch, n_latents=2)
    options = {"adams": optimisers(network), "log_variance_rate": 1e25}
    with pytest.raises(ArithmeticError, match=r"diverged in step 1: .* those from before the training; lower"):
        next(train(network, x, 5, np.random.default_rng(2), draw, **options))
    assert all(np.array_equal(part, old) for (part, _), old in zip(network.parts, before, strict=True))
    with pytest.raises(ValueError, match=r"^learning_rate \* log_variance_rate must be in .* got inf"):
        next(train(network, x, 5, np.random.default_rng(2), draw, **options | {"learning_rate": 1e300}))


@pytest.mark.equation("vae-training")
@pytest.mark.parametrize("split", [1, 4, 6])
def test_a_second_loop_goes_on_where_the_first_one_ended(split):
    x = np.random.default_rng(0).standard_normal((20, 3), dtype=np.float32)

    def run(*splits):
        network, rng, losses = VAENetwork(3, 2, (4,), rng=1), np.random.default_rng(2), []
        adams, draw = optimisers(network), partial(random_batch, n_latents=2, batch_size=8)
        for n in (*splits, 7 - sum(splits)):
            losses += list(islice(train(network, x, 7, rng, draw, adams=adams), n))
        return losses, [parameters.tolist() for parameters, _ in network.parts], rng.random()

    assert run() == run(split)


def test_the_loop_needs_the_optimisers_of_its_network():
    network, x = VAENetwork(3, 2, (4,), rng=1), np.ones((4, 3), np.float32)
    draw, adams = partial(random_batch, n_latents=2), optimisers(network)
    for wrong in (adams[:2], adams[0], None, [adams[1], adams[0], adams[2]], optimisers(VAENetwork(3, 2, (4,), rng=1))):
        with pytest.raises(ValueError, match=r"^adams"):
            next(train(network, x, 5, np.random.default_rng(2), draw, adams=wrong))


def test_batches_are_rows_with_noise_and_all_rows_with_every_sigma_point():
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    batch, noise = random_batch(x, np.random.default_rng(0), 2, 7)
    assert batch.shape == (7, 3)
    assert {tuple(row) for row in batch.tolist()} <= {tuple(row) for row in x.tolist()}
    assert (noise.shape, noise.dtype) == ((7, 2), np.float32)
    assert random_batch(x, np.random.default_rng(0), 2)[0] is x
    batch, noise = sigma_batch(x, np.random.default_rng(0), 2)
    pairs = {(*row, *point) for row, point in zip(batch.tolist(), noise.tolist(), strict=True)}
    points = sigma_points(2).astype(np.float32)
    assert pairs == {(*row, *point) for row in x.tolist() for point in points.tolist()}
    assert len(batch) == len(pairs) == 20
    assert noise.dtype == np.float32
